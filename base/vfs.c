/* SPDX-License-Identifier: Apache-2.0 */
/* The real file system behind nnc_vfs, and helpers that work on any implementation; see vfs.h.
 *
 * 1. Operations return -errno and set no text; helpers set a text.
 * 2. What a file system cannot do is replaced only where the replacement keeps the promise: rename
 *    without RENAME_NOREPLACE looks first (the run directory's lock keeps others out), and fsync of
 *    a directory that answers EINVAL or ENOTSUP (NFS, FUSE) is all that such a system offers.
 *
 * It does not buffer, retry after a failed fsync, or follow checkpoints' rules: those are the
 * saver's. Source: renameat2(2), fsync(2), posix_fallocate(3). */
#include "base/vfs.h"

#include "base/err.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

static int real_open(struct nnc_vfs *vfs, const char *path, int flags, unsigned mode) {
    (void)vfs;
    int fd;
    /* Not blocking: the name may be that of a pipe, which is found out by the first read. */
    int wait = (flags & O_ACCMODE) == O_RDONLY ? O_NONBLOCK : 0;
    do {
        fd = open(path, flags | wait | O_CLOEXEC, (mode_t)mode);
    } while (fd < 0 && errno == EINTR);
    return fd < 0 ? -errno : fd;
}

static int real_close(struct nnc_vfs *vfs, int fd) {
    (void)vfs;
    /* On Linux the descriptor is gone after EINTR too: closing again could hit another file. */
    return close(fd) < 0 && errno != EINTR ? -errno : 0;
}

static ssize_t real_pread(struct nnc_vfs *vfs, int fd, void *data, size_t bytes, uint64_t offset) {
    (void)vfs;
    ssize_t got = pread(fd, data, bytes, (off_t)offset);
    return got < 0 ? -errno : got;
}

static ssize_t real_pwrite(struct nnc_vfs *vfs, int fd, const void *data, size_t bytes,
                           uint64_t offset) {
    (void)vfs;
    ssize_t put = pwrite(fd, data, bytes, (off_t)offset);
    return put < 0 ? -errno : put;
}

static int real_allocate(struct nnc_vfs *vfs, int fd, uint64_t bytes) {
    (void)vfs;
    if (bytes == 0) {
        return 0; /* posix_fallocate calls that an error */
    }
    int error;
    do {
        error = posix_fallocate(fd, 0, (off_t)bytes);
    } while (error == EINTR);
    return -error;
}

static int real_sync(struct nnc_vfs *vfs, int fd) {
    (void)vfs;
    if (fsync(fd) == 0) {
        return 0;
    }
    int error = errno;
    struct stat status;
    if ((error == EINVAL || error == ENOTSUP) && fstat(fd, &status) == 0 &&
        S_ISDIR(status.st_mode)) {
        return 0;
    }
    return -error;
}

static int64_t real_size(struct nnc_vfs *vfs, int fd) {
    (void)vfs;
    struct stat status;
    return fstat(fd, &status) < 0 ? -errno : (int64_t)status.st_size;
}

static int real_mkdir(struct nnc_vfs *vfs, const char *path, unsigned mode) {
    (void)vfs;
    return mkdir(path, (mode_t)mode) < 0 ? -errno : 0;
}

static int real_rename(struct nnc_vfs *vfs, const char *from, const char *to, int no_replace) {
    (void)vfs;
    if (no_replace) {
        if (renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE) == 0) {
            return 0;
        }
        if (errno != EINVAL && errno != ENOSYS) {
            return -errno;
        }
        struct stat status;
        if (lstat(to, &status) == 0) {
            return -EEXIST;
        }
    }
    return rename(from, to) < 0 ? -errno : 0;
}

static int real_unlink(struct nnc_vfs *vfs, const char *path) {
    (void)vfs;
    if (unlink(path) == 0) {
        return 0;
    }
    if (errno != EISDIR) {
        return -errno;
    }
    return rmdir(path) < 0 ? -errno : 0;
}

static int real_list(struct nnc_vfs *vfs, const char *path,
                     int (*visit)(void *context, const char *name), void *context) {
    (void)vfs;
    DIR *directory = opendir(path);
    if (directory == NULL) {
        return -errno;
    }
    int result = 0;
    while (result == 0) {
        errno = 0;
        const struct dirent *entry = readdir(directory);
        if (entry == NULL) {
            result = -errno;
            break;
        }
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) {
            result = visit(context, entry->d_name);
        }
    }
    closedir(directory);
    return result;
}

static int64_t real_free_bytes(struct nnc_vfs *vfs, const char *path) {
    (void)vfs;
    struct statvfs status;
    if (statvfs(path, &status) < 0) {
        return -errno;
    }
    uint64_t bytes;
    if (__builtin_mul_overflow((uint64_t)status.f_bavail, (uint64_t)status.f_frsize, &bytes) ||
        bytes > INT64_MAX) {
        return INT64_MAX;
    }
    return (int64_t)bytes;
}

static const struct nnc_vfs_ops real_ops = {
    .name = "real",
    .open = real_open,
    .close = real_close,
    .pread = real_pread,
    .pwrite = real_pwrite,
    .allocate = real_allocate,
    .sync = real_sync,
    .size = real_size,
    .mkdir = real_mkdir,
    .rename = real_rename,
    .unlink = real_unlink,
    .list = real_list,
    .free_bytes = real_free_bytes,
};

struct nnc_vfs *nnc_vfs_real(void) {
    static struct nnc_vfs real = {.ops = &real_ops};
    return &real;
}

int nnc_vfs_write_all(struct nnc_vfs *vfs, int fd, const void *data, size_t bytes,
                      uint64_t offset) {
    size_t done = 0;
    while (done < bytes) {
        ssize_t put =
            vfs->ops->pwrite(vfs, fd, (const char *)data + done, bytes - done, offset + done);
        if (put == -EINTR) {
            continue;
        }
        if (put <= 0) {
            int code = put == 0 ? -EIO : (int)put;
            return nnc_fail(code, "writing %zu bytes at %llu: %s", bytes - done,
                            (unsigned long long)(offset + done), strerror(-code));
        }
        done += (size_t)put;
    }
    return 0;
}

int nnc_vfs_read_all(struct nnc_vfs *vfs, int fd, void *data, size_t bytes, uint64_t offset) {
    size_t done = 0;
    while (done < bytes) {
        ssize_t got = vfs->ops->pread(vfs, fd, (char *)data + done, bytes - done, offset + done);
        if (got == -EINTR) {
            continue;
        }
        if (got < 0) {
            return nnc_fail((int)got, "reading %zu bytes at %llu: %s", bytes - done,
                            (unsigned long long)(offset + done), strerror((int)-got));
        }
        if (got == 0) {
            return nnc_fail(-NNC_E_FORMAT, "the file ends at %llu, %zu bytes early",
                            (unsigned long long)(offset + done), bytes - done);
        }
        done += (size_t)got;
    }
    return 0;
}

int nnc_vfs_sync_path(struct nnc_vfs *vfs, const char *path) {
    int fd = vfs->ops->open(vfs, path, O_RDONLY, 0);
    if (fd < 0) {
        return nnc_fail(fd, "%s: cannot be opened to sync it: %s", path, strerror(-fd));
    }
    int code = vfs->ops->sync(vfs, fd);
    int closed = vfs->ops->close(vfs, fd);
    code = code < 0 ? code : closed;
    return code < 0 ? nnc_fail(code, "%s: sync: %s", path, strerror(-code)) : 0;
}

/* 0 when path is a directory. */
static int check_directory(struct nnc_vfs *vfs, const char *path) {
    int fd = vfs->ops->open(vfs, path, O_RDONLY | O_DIRECTORY, 0);
    if (fd < 0) {
        return nnc_fail(fd, "%s: %s", path, strerror(-fd));
    }
    vfs->ops->close(vfs, fd);
    return 0;
}

int nnc_vfs_make_dirs(struct nnc_vfs *vfs, const char *path, unsigned mode) {
    char prefix[PATH_MAX];
    size_t length = strlen(path);
    if (length == 0 || length >= sizeof(prefix)) {
        return nnc_fail(length == 0 ? -ENOENT : -ENAMETOOLONG,
                        "a directory name of %zu bytes cannot be made", length);
    }
    memcpy(prefix, path, length + 1);
    for (size_t end = 1; end <= length; end++) {
        if ((prefix[end] != '/' && prefix[end] != '\0') || prefix[end - 1] == '/') {
            continue;
        }
        prefix[end] = '\0';
        int code = vfs->ops->mkdir(vfs, prefix, mode);
        /* A read-only system may say so before it notices that the directory is there. */
        if (code == -EEXIST || code == -EROFS) {
            code = check_directory(vfs, prefix);
        } else if (code < 0) {
            nnc_fail(code, "making directory %s: %s", prefix, strerror(-code));
        }
        if (code < 0) {
            return code;
        }
        prefix[end] = path[end];
    }
    return 0;
}

struct removal {
    struct nnc_vfs *vfs;
    const char *path;
    int removed; /* in this pass */
    int failed;  /* error of one entry, its text is set */
};

static int remove_entry(void *context, const char *name) {
    struct removal *removal = context;
    char path[PATH_MAX];
    int length = snprintf(path, sizeof(path), "%s/%s", removal->path, name);
    if (length < 0 || (size_t)length >= sizeof(path)) {
        removal->failed = nnc_fail(-ENAMETOOLONG, "%s/%s: name too long", removal->path, name);
        return removal->failed;
    }
    int code = removal->vfs->ops->unlink(removal->vfs, path);
    if (code < 0 && code != -ENOENT) {
        removal->failed = nnc_fail(code, "removing %s: %s", path, strerror(-code));
    }
    removal->removed += code == 0;
    return removal->failed;
}

int nnc_vfs_remove_tree(struct nnc_vfs *vfs, const char *path) {
    struct removal removal = {.vfs = vfs, .path = path};
    do {
        /* A listing may skip names while others vanish: pass over it until nothing is left. */
        removal.removed = 0;
        int code = vfs->ops->list(vfs, path, remove_entry, &removal);
        if (removal.failed < 0) {
            return removal.failed;
        }
        if (code == -ENOENT) {
            return 0;
        }
        if (code < 0) {
            return nnc_fail(code, "listing %s: %s", path, strerror(-code));
        }
    } while (removal.removed > 0);
    int code = vfs->ops->unlink(vfs, path);
    if (code < 0 && code != -ENOENT) {
        return nnc_fail(code, "removing directory %s: %s", path, strerror(-code));
    }
    return 0;
}
