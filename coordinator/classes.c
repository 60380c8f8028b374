/* SPDX-License-Identifier: Apache-2.0 */
/* A text file so that people and scripts can read it. */
#include "coordinator/classes.h"

#include "base/config.h"
#include "base/err.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

int nnc_classes_load(const char *run_or_checkpoint, struct nnc_classes *ret_classes) {
    char path[NNC_PATH_MAX + 32];
    *ret_classes = (struct nnc_classes){0};
    if (run_or_checkpoint[0] == '\0') {
        return 0;
    }
    snprintf(path, sizeof(path), "%s/classes.txt", run_or_checkpoint);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        snprintf(path, sizeof(path), "%s/../classes.txt", run_or_checkpoint);
        fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    }
    if (fd < 0) {
        return 0;
    }
    int code = nnc_classes_read(fd, path, ret_classes);
    close(fd);
    return code;
}

const char *nnc_classes_name(const struct nnc_classes *classes, uint32_t number, char *buffer,
                             size_t bytes) {
    if (number < classes->count) {
        return classes->name[number];
    }
    snprintf(buffer, bytes, "%u", (unsigned)number);
    return buffer;
}
