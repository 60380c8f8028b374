/* SPDX-License-Identifier: Apache-2.0 */
/* The saver: a process that turns one half of the snapshot memory into a checkpoint and ends. It
 * survives the trainer's death, and the trainer never waits for a disk. */
#ifndef NNC_WORKERS_SAVER_H
#define NNC_WORKERS_SAVER_H

#include "base/vfs.h"
#include "ipc/setup.h"
#include "workers/checkpoint.h"

/* Save half setup->save_half of the snapshot at `memory` (setup->snapshot_bytes) into
 * setup->run_dir. The best validation accuracy so far makes it the best one. Errors: -NNC_E_FORMAT
 * the half is torn or was overwritten meanwhile; -NNC_E_CHECKPOINT. */
int nnc_saver_save(struct nnc_vfs *vfs, const struct nnc_setup *setup, void *memory,
                   struct nnc_checkpoint_saved *ret_saved, uint64_t *ret_global_step);

#endif
