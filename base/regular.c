/* SPDX-License-Identifier: Apache-2.0 */
/* Opening does not block, whatever is there; that it is a file is asked of what was opened, so that
 * nobody can put something else in its place between. */
#include "base/regular.h"

#include "base/err.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

int nnc_regular_open(const char *path, int *ret_fd) {
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0) {
        return nnc_fail_errno("%s", path);
    }
    struct stat status;
    int code = fstat(fd, &status) < 0 ? nnc_fail_errno("%s", path) : 0;
    if (code >= 0 && !S_ISREG(status.st_mode)) {
        code = nnc_fail(-NNC_E_FORMAT, "%s is not a regular file", path);
    }
    if (code < 0) {
        close(fd);
        return code;
    }
    *ret_fd = fd;
    return 0;
}

int nnc_regular_open_stream(const char *path, FILE **ret_file) {
    int fd;
    int code = nnc_regular_open(path, &fd);
    if (code < 0) {
        return code;
    }
    FILE *file = fdopen(fd, "r");
    if (file == NULL) {
        close(fd);
        return nnc_fail(-ENOMEM, "%s: no memory to read it", path);
    }
    *ret_file = file;
    return 0;
}
