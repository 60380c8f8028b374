/* SPDX-License-Identifier: Apache-2.0 */
/* See dataset_record.h. */
#include "coordinator/dataset_record.h"

#include "base/regular.h"

#include <unistd.h>

int nnc_record_load(const char *path, json_t **ret_record) {
    int fd;
    int code = nnc_regular_open(path, &fd);
    if (code < 0) {
        return code;
    }
    *ret_record = json_loadfd(fd, JSON_REJECT_DUPLICATES, NULL);
    close(fd);
    return 0;
}
