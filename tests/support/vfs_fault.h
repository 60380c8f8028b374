/* SPDX-License-Identifier: Apache-2.0 */
/* A file system that hands every call to another one, except the n-th, which fails. With n = 1, 2,
 * ... until a run passes without a fault, every error path of the caller is taken. */
#ifndef NNC_TESTS_SUPPORT_VFS_FAULT_H
#define NNC_TESTS_SUPPORT_VFS_FAULT_H

#include "base/vfs.h"

#include <stdbool.h>
#include <stdint.h>

enum vfs_fault_op {
    VFS_FAULT_OPEN,
    VFS_FAULT_CLOSE,
    VFS_FAULT_PREAD,
    VFS_FAULT_PWRITE,
    VFS_FAULT_ALLOCATE,
    VFS_FAULT_SYNC,
    VFS_FAULT_SIZE,
    VFS_FAULT_MKDIR,
    VFS_FAULT_RENAME,
    VFS_FAULT_UNLINK,
    VFS_FAULT_LIST,
    VFS_FAULT_FREE_BYTES,
    VFS_FAULT_OP_COUNT,
};

/* Which operations count and may fail. */
#define VFS_FAULT_ALL      ((1u << VFS_FAULT_OP_COUNT) - 1)
#define VFS_FAULT_ONLY(op) (1u << (op))

struct vfs_fault {
    struct nnc_vfs base; /* give &fault.base to the code under test */
    struct nnc_vfs *below;
    uint32_t ops;        /* mask of VFS_FAULT_ONLY() */
    uint64_t fail_at;    /* number of the first counted call that fails, from 1; 0: none */
    uint64_t fail_count; /* how many calls fail from there on; UINT64_MAX: all */
    int error;           /* errno, positive; 0: pread and pwrite move half, others succeed */
    uint64_t calls;      /* counted so far */
    uint64_t faults;     /* injected so far: 0 after a run means that fail_at was past its end */
    uint64_t op_calls[VFS_FAULT_OP_COUNT]; /* of each kind, counted or not */
};

/* Every call passes to `below` until the caller sets fail_at and error; fail_count is 1, ops all.
 */
void vfs_fault_init(struct vfs_fault *ret_fault, struct nnc_vfs *below);

/* Start counting anew: call number fail_at of the kinds in ops fails with error. */
void vfs_fault_arm(struct vfs_fault *fault, uint32_t ops, uint64_t fail_at, int error);

#endif
