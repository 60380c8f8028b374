/* SPDX-License-Identifier: Apache-2.0 */
/* A small model with every kind of tensor, and states of a run with recognisable tensors, for tests
 * of snapshots and checkpoints. */
#ifndef NNC_TESTS_SUPPORT_CHECKPOINT_CASE_H
#define NNC_TESTS_SUPPORT_CHECKPOINT_CASE_H

#include "workers/checkpoint.h"

struct checkpoint_case {
    struct nnc_graph *graph;
    size_t floats;
    float *tensors;
    struct nnc_train_state state;
};

/* Convolution, batch norm and a linear layer of `hidden` features. Aborts when that fails. */
void checkpoint_case_init(struct checkpoint_case *ret_case, unsigned hidden);

/* Free it. */
void checkpoint_case_finish(struct checkpoint_case *checkpoint);

/* Make state and tensors those of `step` in epoch 0: a function of step alone. */
void checkpoint_case_set(struct checkpoint_case *checkpoint, uint64_t step);

/* Save the case's state in "run" of vfs, which must exist. */
int checkpoint_case_save(struct checkpoint_case *checkpoint, struct nnc_vfs *vfs, uint32_t keep,
                         bool is_best);

/* Find the newest checkpoint in "run", load it and compare every bit with the state of its step.
 * Returns the step, -1 when there is none, -2 when it cannot be found or read, -3 when it differs.
 */
int64_t checkpoint_case_find(struct checkpoint_case *checkpoint, struct nnc_vfs *vfs);

#endif
