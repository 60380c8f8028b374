/* SPDX-License-Identifier: Apache-2.0 */
/* The state of a run in shared memory: two halves, written in turn by rank 0 at step boundaries,
 * read by savers and by the trainers of a restarted group. A half that was torn by a kill, or is
 * being overwritten, is recognised and never used. */
#ifndef NNC_WORKERS_SNAPSHOT_H
#define NNC_WORKERS_SNAPSHOT_H

#include "workers/state.h"

#include <stddef.h>
#include <stdint.h>

/* Bytes of the whole memfd for a model, both halves. Errors: -EOVERFLOW. */
int nnc_snapshot_bytes(const struct nnc_graph *graph, size_t *ret_bytes);

/* View on the mapped memory. */
struct nnc_snapshot {
    uint8_t *memory;
    size_t half_bytes;
    size_t floats; /* of the tensors in a half */
};

/* View on memory of nnc_snapshot_bytes(graph) bytes, mapped by the caller. Errors: -NNC_E_FORMAT
 * when `bytes` is another size. */
int nnc_snapshot_attach(const struct nnc_graph *graph, void *memory, size_t bytes,
                        struct nnc_snapshot *ret_snapshot);

/* Choose a half to write: `preferred`, or the other one while a living saver holds that. Then the
 * snapshot written last is overwritten before anybody saved it, which the saver copes with. Rank 0
 * only, the only writer; it takes over what a dead saver or a dead trainer left. Returns the half,
 * 0 or 1. */
uint32_t nnc_snapshot_choose(const struct nnc_snapshot *snapshot, uint32_t preferred);

/* Mark the chosen half as being written and return where its tensors go. */
float *nnc_snapshot_begin(const struct nnc_snapshot *snapshot, uint32_t half);

/* The tensors are in: hash them, store the state and mark the half as complete. Returns the hash of
 * the tensors. */
uint64_t nnc_snapshot_commit(const struct nnc_snapshot *snapshot, uint32_t half,
                             const struct nnc_train_state *state);

/* Keep the trainer from overwriting a half while it is saved. Waits at most timeout_ms for a writer
 * to finish. One saver at a time. Needs the memory mapped for writing. Errors: -EBUSY the writer
 * did not finish: it died. */
int nnc_snapshot_hold(const struct nnc_snapshot *snapshot, uint32_t half, int timeout_ms);
void nnc_snapshot_let_go(const struct nnc_snapshot *snapshot, uint32_t half);

/* Copy of the half's description when it is complete. Says nothing about the tensors yet: whoever
 * reads them hashes what it read and asks nnc_snapshot_confirm(). Errors: -NNC_E_FORMAT empty,
 * torn, damaged or of another model. */
struct nnc_snapshot_info {
    uint32_t sequence;
    uint64_t hash; /* XXH3-64 of the tensors */
    struct nnc_train_state state;
};
int nnc_snapshot_look(const struct nnc_snapshot *snapshot, uint32_t half,
                      struct nnc_snapshot_info *ret_info);

/* The tensors of a half, for reading in pieces. */
const float *nnc_snapshot_tensors(const struct nnc_snapshot *snapshot, uint32_t half);

/* 0 when what was read, with XXH3-64 `hash`, is what info describes. Errors: -NNC_E_FORMAT when the
 * half was overwritten or damaged meanwhile. */
int nnc_snapshot_confirm(const struct nnc_snapshot *snapshot, uint32_t half,
                         const struct nnc_snapshot_info *info, uint64_t hash);

/* Look at a half and verify its tensors. Errors: -NNC_E_FORMAT as for nnc_snapshot_look(), or
 * damaged tensors. */
int nnc_snapshot_verify(const struct nnc_snapshot *snapshot, uint32_t half,
                        struct nnc_snapshot_info *ret_info);

/* The verified half that is farthest in training. The newest one may be torn: a trainer overwrites
 * it while a saver holds the other. Errors: -NNC_E_FORMAT none is whole. */
int nnc_snapshot_newest(const struct nnc_snapshot *snapshot, uint32_t *ret_half,
                        struct nnc_snapshot_info *ret_info);

#endif
