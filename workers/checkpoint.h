/* SPDX-License-Identifier: Apache-2.0 */
/* Checkpoints on disk: one directory each, committed by one rename, found again after any crash.
 *
 *   RUN/ckpt-000000012800/   name = training steps since the start of the run; -1, -2, ... when
 *     model.safetensors      the same step was saved again; weights under torchvision's names
 *     state.safetensors      momentum of the trained parameters
 *     run.json               place, identity, sums of the epoch so far
 *     MANIFEST               sizes and hashes of the others, written last
 *   RUN/ckpt-*.tmp.*         not committed, or being deleted: removed by the next saver
 *   RUN/LATEST, RUN/best     name of the newest and the best one, with the hash of its manifest
 *
 * All file operations go through the vfs table, so that tests can cut the power between any two. */
#ifndef NNC_WORKERS_CHECKPOINT_H
#define NNC_WORKERS_CHECKPOINT_H

#include "base/err.h"
#include "base/vfs.h"
#include "workers/state.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NNC_CHECKPOINT_PATH_MAX 2048

/* A checkpoint whose files agree with its manifest. */
struct nnc_checkpoint {
    char path[NNC_CHECKPOINT_PATH_MAX];
    uint64_t hash; /* of the manifest */
    struct nnc_train_state state;
    uint32_t skipped;             /* newer directories that are damaged */
    char why[NNC_ERROR_TEXT_MAX]; /* what is wrong with the newest of those */
};

struct nnc_checkpoint_save_params {
    struct nnc_vfs *vfs;
    const char *run_dir; /* exists */
    const struct nnc_graph *graph;
    const struct nnc_train_state *state;
    const float *tensors; /* as in nnc_state_floats(); may change under us, see confirm */
    /* Asked before the commit with the XXH3-64 of the tensors as they were written; negative
     * refuses. May be NULL. */
    int (*confirm)(void *context, uint64_t hash);
    void *context;
    uint32_t keep; /* newest checkpoints kept; 0 counts as 1 */
    bool is_best;
    uint32_t generation, pid; /* name the temporary directory */
};

struct nnc_checkpoint_saved {
    char path[NNC_CHECKPOINT_PATH_MAX];
    char weights_sha256[65]; /* as nnc_state_weights_sha256() */
};

/* Write, verify and commit a checkpoint, point LATEST (and best) to it and delete old ones. Durable
 * when it returns 0. A first failure is tried again in new files; after a full disk old checkpoints
 * but the newest go first. Whatever happens, checkpoints committed before stay valid. Errors:
 * -NNC_E_CHECKPOINT with the cause; what confirm returned. */
int nnc_checkpoint_save(const struct nnc_checkpoint_save_params *params,
                        struct nnc_checkpoint_saved *ret_saved);

/* Newest valid checkpoint of a run directory. Returns 1 with *ret_checkpoint, 0 when there is no
 * checkpoint directory (or no run directory) at all.
 * Errors: -NNC_E_CHECKPOINT there are some, but all are damaged: never start from zero silently. */
int nnc_checkpoint_find(struct nnc_vfs *vfs, const char *run_dir,
                        struct nnc_checkpoint *ret_checkpoint);

/* The checkpoint in the directory `path` itself. Errors: -NNC_E_CHECKPOINT damaged, with the place.
 */
int nnc_checkpoint_open(struct nnc_vfs *vfs, const char *path,
                        struct nnc_checkpoint *ret_checkpoint);

/* 1 when path is a checkpoint directory (has a manifest), 0 when not. */
int nnc_checkpoint_is_one(struct nnc_vfs *vfs, const char *path);

/* Read the tensors of an opened checkpoint in the order of nnc_state_floats().
 * Errors: -NNC_E_CHECKPOINT when names or shapes are not the graph's. */
int nnc_checkpoint_load(struct nnc_vfs *vfs, const struct nnc_checkpoint *checkpoint,
                        const struct nnc_graph *graph, float *ret_tensors);

/* Remove what unfinished saves and deletions left behind. */
int nnc_checkpoint_clean(struct nnc_vfs *vfs, const char *run_dir);

/* Put all checkpoints aside, for --fresh: ckpt-N becomes discarded-ckpt-N, one that was already
 * called so is deleted. LATEST and best go. */
int nnc_checkpoint_discard(struct nnc_vfs *vfs, const char *run_dir);

/* Delete all committed checkpoints but the newest `keep` (0 counts as 1) and the best. Only after a
 * newer one is durable and was read back. */
int nnc_checkpoint_delete_old(struct nnc_vfs *vfs, const char *run_dir, uint32_t keep);

/* After ENOSPC: delete all but the newest, provided that it is valid, and the best. */
void nnc_checkpoint_make_room(struct nnc_vfs *vfs, const char *run_dir);

/* ---- used inside: run.json, file bodies, names ---- */

/* The text of run.json. Owner: caller frees. Errors: -ENOMEM. */
int nnc_checkpoint_state_text(const struct nnc_train_state *state, const char *model,
                              char **ret_text);

/* Parse run.json. Errors: -NNC_E_FORMAT naming the key. */
int nnc_checkpoint_state_parse(const char *text, size_t bytes, struct nnc_train_state *ret_state);

/* "ckpt-<12 digits>[-revision]": 1 with the numbers, or 0. */
int nnc_checkpoint_parse_name(const char *name, uint64_t *ret_step, uint32_t *ret_revision);

/* A committed checkpoint directory in a run directory. */
struct nnc_checkpoint_entry {
    uint64_t step;
    uint32_t revision;
    char name[64];
};

/* All of them, newest first. Owner: caller frees. Errors: -ENOENT no such directory, -ENOMEM. */
int nnc_checkpoint_list(struct nnc_vfs *vfs, const char *run_dir,
                        struct nnc_checkpoint_entry **ret_entries, size_t *ret_count);

#endif
