/* SPDX-License-Identifier: Apache-2.0 */
/* Counting and failing file operations; see vfs_fault.h.
 *
 * 1. A call that fails has no effect below, except close: the descriptor is released all the same,
 *    as the kernel does, so that a test can look for descriptors that the caller forgot.
 * 2. With error 0 a pread or pwrite moves half of its bytes (at least one). */
#include "tests/support/vfs_fault.h"

#include <errno.h>

/* Count the call. Returns -errno to inject, 0 to pass, 1 for a short transfer. */
static int next_fault(struct vfs_fault *fault, enum vfs_fault_op op) {
    fault->op_calls[op]++;
    if (!(fault->ops & VFS_FAULT_ONLY(op))) {
        return 0;
    }
    fault->calls++;
    if (fault->fail_at == 0 || fault->calls < fault->fail_at ||
        fault->calls - fault->fail_at >= fault->fail_count) {
        return 0;
    }
    fault->faults++;
    return fault->error != 0 ? -fault->error : 1;
}

static size_t half(size_t bytes) {
    return bytes > 1 ? bytes / 2 : bytes;
}

static int fault_open(struct nnc_vfs *vfs, const char *path, int flags, unsigned mode) {
    struct vfs_fault *fault = (struct vfs_fault *)vfs;
    int code = next_fault(fault, VFS_FAULT_OPEN);
    return code < 0 ? code : fault->below->ops->open(fault->below, path, flags, mode);
}

static int fault_close(struct nnc_vfs *vfs, int fd) {
    struct vfs_fault *fault = (struct vfs_fault *)vfs;
    int code = next_fault(fault, VFS_FAULT_CLOSE);
    int closed = fault->below->ops->close(fault->below, fd);
    return code < 0 ? code : closed;
}

static ssize_t fault_pread(struct nnc_vfs *vfs, int fd, void *data, size_t bytes, uint64_t offset) {
    struct vfs_fault *fault = (struct vfs_fault *)vfs;
    int code = next_fault(fault, VFS_FAULT_PREAD);
    if (code < 0) {
        return code;
    }
    return fault->below->ops->pread(fault->below, fd, data, code ? half(bytes) : bytes, offset);
}

static ssize_t fault_pwrite(struct nnc_vfs *vfs, int fd, const void *data, size_t bytes,
                            uint64_t offset) {
    struct vfs_fault *fault = (struct vfs_fault *)vfs;
    int code = next_fault(fault, VFS_FAULT_PWRITE);
    if (code < 0) {
        return code;
    }
    return fault->below->ops->pwrite(fault->below, fd, data, code ? half(bytes) : bytes, offset);
}

static int fault_allocate(struct nnc_vfs *vfs, int fd, uint64_t bytes) {
    struct vfs_fault *fault = (struct vfs_fault *)vfs;
    int code = next_fault(fault, VFS_FAULT_ALLOCATE);
    return code < 0 ? code : fault->below->ops->allocate(fault->below, fd, bytes);
}

static int fault_sync(struct nnc_vfs *vfs, int fd) {
    struct vfs_fault *fault = (struct vfs_fault *)vfs;
    int code = next_fault(fault, VFS_FAULT_SYNC);
    return code < 0 ? code : fault->below->ops->sync(fault->below, fd);
}

static int64_t fault_size(struct nnc_vfs *vfs, int fd) {
    struct vfs_fault *fault = (struct vfs_fault *)vfs;
    int code = next_fault(fault, VFS_FAULT_SIZE);
    return code < 0 ? code : fault->below->ops->size(fault->below, fd);
}

static int fault_mkdir(struct nnc_vfs *vfs, const char *path, unsigned mode) {
    struct vfs_fault *fault = (struct vfs_fault *)vfs;
    int code = next_fault(fault, VFS_FAULT_MKDIR);
    return code < 0 ? code : fault->below->ops->mkdir(fault->below, path, mode);
}

static int fault_rename(struct nnc_vfs *vfs, const char *from, const char *to, int no_replace) {
    struct vfs_fault *fault = (struct vfs_fault *)vfs;
    int code = next_fault(fault, VFS_FAULT_RENAME);
    return code < 0 ? code : fault->below->ops->rename(fault->below, from, to, no_replace);
}

static int fault_unlink(struct nnc_vfs *vfs, const char *path) {
    struct vfs_fault *fault = (struct vfs_fault *)vfs;
    int code = next_fault(fault, VFS_FAULT_UNLINK);
    return code < 0 ? code : fault->below->ops->unlink(fault->below, path);
}

static int fault_list(struct nnc_vfs *vfs, const char *path,
                      int (*visit)(void *context, const char *name), void *context) {
    struct vfs_fault *fault = (struct vfs_fault *)vfs;
    int code = next_fault(fault, VFS_FAULT_LIST);
    return code < 0 ? code : fault->below->ops->list(fault->below, path, visit, context);
}

static int64_t fault_free_bytes(struct nnc_vfs *vfs, const char *path) {
    struct vfs_fault *fault = (struct vfs_fault *)vfs;
    int code = next_fault(fault, VFS_FAULT_FREE_BYTES);
    return code < 0 ? code : fault->below->ops->free_bytes(fault->below, path);
}

static const struct nnc_vfs_ops fault_ops = {
    .name = "fault",
    .open = fault_open,
    .close = fault_close,
    .pread = fault_pread,
    .pwrite = fault_pwrite,
    .allocate = fault_allocate,
    .sync = fault_sync,
    .size = fault_size,
    .mkdir = fault_mkdir,
    .rename = fault_rename,
    .unlink = fault_unlink,
    .list = fault_list,
    .free_bytes = fault_free_bytes,
};

void vfs_fault_init(struct vfs_fault *ret_fault, struct nnc_vfs *below) {
    *ret_fault = (struct vfs_fault){
        .base = {.ops = &fault_ops},
        .below = below,
        .ops = VFS_FAULT_ALL,
        .fail_count = 1,
    };
}

void vfs_fault_arm(struct vfs_fault *fault, uint32_t ops, uint64_t fail_at, int error) {
    fault->ops = ops;
    fault->fail_at = fail_at;
    fault->error = error;
    fault->calls = 0;
    fault->faults = 0;
}
