/* SPDX-License-Identifier: Apache-2.0 */
/* Files that are whole or not there.
 *
 *   follow a link -> open PATH.PID.tmp -> write ... -> [sync] close -> rename to PATH [-> sync the
 * directory]
 *
 * 1. Under its final name a file is complete, whatever ends this process and whenever.
 * 2. What cannot be begun is the user's to mend (usage); what breaks later is the device's.
 * 3. rename puts a file in the place of whatever has the name. So a link is followed first, and
 * what is neither a file nor free (a directory, a device, a pipe) is refused at the beginning.
 *
 * 4. A temporary file is locked (flock) while it is written. So one that can be locked is nobody's,
 * and nnc_output_sweep() may remove it; who opens one just then finds it without a name and makes
 * another. Where a file system has no locks, nothing is removed.
 *
 * Does not: make directories. */
#include "base/output.h"

#include "base/clock.h"
#include "base/err.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define LOCK_WAIT_NS 1000000ull

enum {
    LOCK_TRIES = 20, /* sweeping takes less than one wait */
};

/* The name to rename to: the path, or where it leads when it is a link. What stat cannot tell, such
 * as a missing directory, opening the file will. */
static int find_place(const char *path, char ret_place[NNC_PATH_MAX]) {
    char real[PATH_MAX];
    struct stat status;
    bool is_link = lstat(path, &status) == 0 && S_ISLNK(status.st_mode);
    if (is_link && realpath(path, real) == NULL) {
        return nnc_fail(-NNC_E_USAGE, "%s is a link that leads nowhere: %s; give another name",
                        path, strerror(errno));
    }
    bool is_there = stat(path, &status) == 0;
    if (is_there && S_ISDIR(status.st_mode)) {
        return nnc_fail(-NNC_E_USAGE, "%s is a directory: give the name of a file", path);
    }
    if (is_there && !S_ISREG(status.st_mode)) {
        return nnc_fail(-NNC_E_USAGE, "%s is a device, a pipe or a socket: give the name of a file",
                        path);
    }
    int length = snprintf(ret_place, NNC_PATH_MAX, "%s", is_link ? real : path);
    return length < 0 || length >= NNC_PATH_MAX
               ? nnc_fail(-NNC_E_USAGE, "%s: the name is too long", path)
               : 0;
}

/* The directory that the file's name is in. */
static void find_parent(const char *path, char ret_parent[NNC_PATH_MAX]) {
    const char *slash = strrchr(path, '/');
    int length = slash == NULL ? 1 : slash == path ? 1 : (int)(slash - path);
    snprintf(ret_parent, NNC_PATH_MAX, "%.*s", length, slash == NULL ? "." : path);
}

/* Lock a new temporary file. False when it is being swept away: it is to be made again. */
static bool lock(int fd) {
    struct stat status;
    if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
        return errno != EWOULDBLOCK;
    }
    return fstat(fd, &status) < 0 || status.st_nlink > 0;
}

/* Make the temporary file. A lock that stays is another output's of this process with the same
 * name, which nnc_output_is_same() tells. */
static int make_temporary(const struct nnc_output *output) {
    for (int try = 0;; try++) {
        int fd =
            output->vfs->ops->open(output->vfs, output->temp, O_WRONLY | O_CREAT | O_TRUNC, 0666);
        if (fd < 0 || lock(fd) || try == LOCK_TRIES) {
            return fd;
        }
        output->vfs->ops->close(output->vfs, fd);
        nnc_clock_sleep_ns(LOCK_WAIT_NS);
    }
}

int nnc_output_open(struct nnc_vfs *vfs, const char *path, struct nnc_output *ret_output) {
    struct nnc_output output = {.vfs = vfs};
    int code = find_place(path, output.path);
    if (code < 0) {
        return code;
    }
    snprintf(output.temp, sizeof(output.temp), "%s.%d.tmp", output.path, (int)getpid());
    output.fd = make_temporary(&output);
    if (output.fd < 0) {
        return nnc_fail(-NNC_E_USAGE, "%s cannot be written: %s; give another place", path,
                        strerror(-output.fd));
    }
    output.is_open = true;
    *ret_output = output;
    return 0;
}

/* ---- sweeping ---- */

/* Temporary files of one name. */
struct sweep {
    const char *name; /* without directories */
    char parent[NNC_PATH_MAX];
};

/* NAME.DIGITS.tmp */
static bool is_temporary(const char *found, const char *name) {
    size_t length = strlen(name);
    if (strncmp(found, name, length) != 0 || found[length] != '.') {
        return false;
    }
    const char *digits = found + length + 1;
    size_t count = strspn(digits, "0123456789");
    return count > 0 && strcmp(digits + count, ".tmp") == 0;
}

static int sweep_one(void *context, const char *found) {
    const struct sweep *sweep = context;
    char path[NNC_PATH_MAX + NAME_MAX + 2];
    struct stat status;
    if (!is_temporary(found, sweep->name)) {
        return 0;
    }
    snprintf(path, sizeof(path), "%s/%s", sweep->parent, found);
    int fd = open(path, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (fd < 0) {
        return 0;
    }
    if (fstat(fd, &status) == 0 && S_ISREG(status.st_mode) && flock(fd, LOCK_EX | LOCK_NB) == 0) {
        unlink(path);
    }
    close(fd);
    return 0;
}

void nnc_output_sweep(const char *path) {
    struct nnc_vfs *vfs = nnc_vfs_real();
    struct sweep sweep;
    char place[NNC_PATH_MAX];
    if (find_place(path, place) < 0) {
        nnc_error_clear(); /* opening it will say so */
        return;
    }
    find_parent(place, sweep.parent);
    const char *slash = strrchr(place, '/');
    sweep.name = slash != NULL ? slash + 1 : place;
    vfs->ops->list(vfs, sweep.parent, sweep_one, &sweep);
}

bool nnc_output_is_same(const struct nnc_output *left, const struct nnc_output *right) {
    struct stat a, b;
    /* Temporary names are made from final ones, so they are the same file exactly then. */
    return left->is_open && right->is_open && fstat(left->fd, &a) == 0 &&
           fstat(right->fd, &b) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

int nnc_output_write(struct nnc_output *output, const void *data, size_t bytes) {
    assert(output->is_open);
    int code = nnc_vfs_write_all(output->vfs, output->fd, data, bytes, output->bytes);
    if (code < 0) {
        return nnc_fail(-NNC_E_CHECKPOINT, "%s cannot be written: %s", output->path,
                        strerror(-code));
    }
    output->bytes += bytes;
    return 0;
}

int nnc_output_commit(struct nnc_output *output, bool durable) {
    assert(output->is_open);
    struct nnc_vfs *vfs = output->vfs;
    char parent[NNC_PATH_MAX];
    int code = durable ? vfs->ops->sync(vfs, output->fd) : 0;
    int closed = vfs->ops->close(vfs, output->fd);
    output->is_open = false;
    code = code < 0 ? code : closed;
    code = code < 0 ? code : vfs->ops->rename(vfs, output->temp, output->path, 0);
    if (code < 0) {
        vfs->ops->unlink(vfs, output->temp);
        return nnc_fail(-NNC_E_CHECKPOINT, "%s cannot be written: %s", output->path,
                        strerror(-code));
    }
    find_parent(output->path, parent);
    code = durable ? nnc_vfs_sync_path(vfs, parent) : 0;
    /* A directory that may be written to but not read cannot be synced, and need not be. */
    return code < 0 && code != -EACCES ? nnc_fail_in(-NNC_E_CHECKPOINT, "%s", output->path) : 0;
}

int nnc_output_flush(FILE *stream, const char *name) {
    errno = 0;
    bool failed = fflush(stream) != 0;
    if (!failed && !ferror(stream)) {
        return 0;
    }
    /* The reason of a failure before the last flush is lost. */
    return nnc_fail(-NNC_E_CHECKPOINT, "%s cannot be written: %s", name,
                    failed && errno != 0 ? strerror(errno) : "an earlier write failed");
}

int nnc_output_save(struct nnc_vfs *vfs, const char *path, const void *data, size_t bytes) {
    struct nnc_output output = {.is_open = false};
    int code = nnc_output_open(vfs, path, &output);
    code = code < 0 ? code : nnc_output_write(&output, data, bytes);
    code = code < 0 ? code : nnc_output_commit(&output, true);
    nnc_output_abandon(&output);
    return code;
}

void nnc_output_abandon(struct nnc_output *output) {
    if (output->is_open) {
        output->vfs->ops->close(output->vfs, output->fd);
        output->vfs->ops->unlink(output->vfs, output->temp);
        output->is_open = false;
    }
}
