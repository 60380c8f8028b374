/* SPDX-License-Identifier: Apache-2.0 */
/* File operations that make something durable, as a table, so that tests can record them, fail the
 * n-th one or simulate a power cut. Checkpoints go through this and nothing else. */
#ifndef NNC_BASE_VFS_H
#define NNC_BASE_VFS_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct nnc_vfs;

/* Each function behaves as the system call of its name, but returns -errno instead of setting it
 * (no error text: the caller knows what the file was for). Descriptors are close-on-exec. Paths are
 * absolute or relative to the working directory. Opening a pipe for reading does not wait for a
 * writer; reading it at an offset fails with -ESPIPE. */
struct nnc_vfs_ops {
    const char *name;
    int (*open)(struct nnc_vfs *vfs, const char *path, int flags, unsigned mode);
    int (*close)(struct nnc_vfs *vfs, int fd);
    ssize_t (*pread)(struct nnc_vfs *vfs, int fd, void *data, size_t bytes, uint64_t offset);
    ssize_t (*pwrite)(struct nnc_vfs *vfs, int fd, const void *data, size_t bytes, uint64_t offset);
    int (*allocate)(struct nnc_vfs *vfs, int fd, uint64_t bytes); /* posix_fallocate from 0 */
    /* fsync; also on directories, where a file system that cannot do it counts as done. */
    int (*sync)(struct nnc_vfs *vfs, int fd);
    int64_t (*size)(struct nnc_vfs *vfs, int fd);
    int (*mkdir)(struct nnc_vfs *vfs, const char *path, unsigned mode);
    /* With no_replace -EEXIST where `to` exists. */
    int (*rename)(struct nnc_vfs *vfs, const char *from, const char *to, int no_replace);
    int (*unlink)(struct nnc_vfs *vfs, const char *path); /* file or empty directory */
    /* Call visit for each name in the directory (no "." and ".."); stops at a non-zero answer. */
    int (*list)(struct nnc_vfs *vfs, const char *path,
                int (*visit)(void *context, const char *name), void *context);
    int64_t (*free_bytes)(struct nnc_vfs *vfs, const char *path);
};

/* Base of every implementation; embed it first. */
struct nnc_vfs {
    const struct nnc_vfs_ops *ops;
};

/* The real file system. Stateless, shared, never freed. */
struct nnc_vfs *nnc_vfs_real(void);

/* pwrite until all bytes are out, over short writes and interruptions.
 * Errors: as pwrite, -ENOSPC passes through; -EIO when nothing moves. */
int nnc_vfs_write_all(struct nnc_vfs *vfs, int fd, const void *data, size_t bytes, uint64_t offset);

/* pread until all bytes are in. Errors: as pread; -NNC_E_FORMAT when the file ends early. */
int nnc_vfs_read_all(struct nnc_vfs *vfs, int fd, void *data, size_t bytes, uint64_t offset);

/* Open the file or directory at path, sync it and close it again. Errors: as open and fsync. */
int nnc_vfs_sync_path(struct nnc_vfs *vfs, const char *path);

/* mkdir -p. Errors: as mkdir; -ENOTDIR when a file stands in the way; -ENAMETOOLONG. */
int nnc_vfs_make_dirs(struct nnc_vfs *vfs, const char *path, unsigned mode);

/* Remove a directory and everything in it, one level of files deep. Missing is no error.
 * Errors: as unlink; -ENOTEMPTY when there is a non-empty directory inside. */
int nnc_vfs_remove_tree(struct nnc_vfs *vfs, const char *path);

#endif
