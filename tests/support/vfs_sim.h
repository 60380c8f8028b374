/* SPDX-License-Identifier: Apache-2.0 */
/* A file system in memory that remembers the order of all changes, so that a test can ask: what
 * would be on the disk, had the power failed after the first n of them?
 *
 * Model (POSIX with what ext4 adds least):
 * - Data and size of a file are safe once the file was synced after the write.
 * - A name (create, mkdir, unlink, rename) is safe once the directory that holds the new name, or
 * held the removed one, was synced after it. Syncing a file does not make its name safe.
 * - A rename is atomic: both names change or neither.
 * - Everything else is lost or kept as the cut says, in blocks of 4 KiB of data and single name
 *   changes; a block that is kept has its latest content, one that is lost its last safe one (zeros
 *   where there was none). Kept name changes apply in their order.
 *
 * Only what the checkpoint needs is there: no links, no permissions, no seeking; names are split at
 * '/', "" and "." are skipped, ".." is refused. One thread. */
#ifndef NNC_TESTS_SUPPORT_VFS_SIM_H
#define NNC_TESTS_SUPPORT_VFS_SIM_H

#include "base/vfs.h"

#include <stdbool.h>
#include <stdint.h>

enum vfs_sim_cut {
    VFS_SIM_KEEP_ALL,    /* every change reached the disk */
    VFS_SIM_KEEP_NONE,   /* only what was synced did */
    VFS_SIM_KEEP_RANDOM, /* each unsynced block, size and name change with probability 1/2 */
    VFS_SIM_CUT_COUNT,
};

struct vfs_sim;

/* An empty file system with only its root directory. Aborts when memory runs out. */
struct vfs_sim *vfs_sim_create(void);

/* Free it; open descriptors of it die. NULL is fine. */
void vfs_sim_destroy(struct vfs_sim *sim);

/* The operations table to hand to the code under test. Owned by sim. */
struct nnc_vfs *vfs_sim_vfs(struct vfs_sim *sim);

/* Number of changes and syncs so far; a position in the trace. */
size_t vfs_sim_trace_length(const struct vfs_sim *sim);

/* A new file system as it would be found after a power cut directly after the first `length` trace
 * entries (<= the trace's length). seed chooses what VFS_SIM_KEEP_RANDOM keeps. Its own trace is
 * empty, all it holds is safe. sim is unchanged. Owner: the caller. */
struct vfs_sim *vfs_sim_power_cut(const struct vfs_sim *sim, size_t length, enum vfs_sim_cut cut,
                                  uint64_t seed);

/* Make writes fail with ENOSPC beyond this many bytes of file data in total. */
void vfs_sim_set_capacity(struct vfs_sim *sim, uint64_t bytes);

/* Descriptors that are open now: 0 after code that closes what it opens. */
int vfs_sim_open_count(const struct vfs_sim *sim);

#endif
