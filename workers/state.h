/* SPDX-License-Identifier: Apache-2.0 */
/* What a run needs beside its tensors to go on exactly where it was: place, identity and the sums
 * of the epoch so far. The same struct lies in snapshots (bytes) and in checkpoints (run.json). */
#ifndef NNC_WORKERS_STATE_H
#define NNC_WORKERS_STATE_H

#include "base/config.h"
#include "workers/graph.h"

#include <stddef.h>
#include <stdint.h>

/* One rank's sums over the training phase of the epoch so far. */
struct nnc_train_metrics {
    double loss_sum;
    double seconds, wait_seconds;
    uint64_t count, correct1, correct5, left_out; /* as struct nnc_metrics */
};

/* Fixed layout, no padding: it is hashed and shared. */
struct nnc_train_state {
    uint32_t epoch; /* the epoch in which the run goes on */
    uint32_t ranks; /* that wrote it; how many metrics are valid */
    uint64_t step;  /* training steps done in it, 0..steps_per_epoch */
    uint64_t steps_per_epoch;
    uint64_t seed, train_samples, global_batch; /* must be equal to resume */
    uint64_t param_hash;                        /* nnc_state_param_hash() of the model */
    double acc1;      /* validation accuracy of exactly these weights; < 0: none */
    double best_acc1; /* of the run so far, this one included; < 0: none */
    float loss_scale; /* of fp16, and the good steps since it changed; 0: there is none */
    uint32_t loss_scale_steps;
    struct nnc_train_metrics metrics[NNC_MAX_RANKS];
};
_Static_assert(sizeof(struct nnc_train_metrics) == 56, "no padding in the metrics");
_Static_assert(sizeof(struct nnc_train_state) == 80 + 56 * NNC_MAX_RANKS,
               "no padding in the state");

/* Training steps done since the start of the run. */
uint64_t nnc_state_global_step(const struct nnc_train_state *state);

/* XXH3-64 over names, kinds and shapes of all parameters: equal when tensors can be exchanged. */
uint64_t nnc_state_param_hash(const struct nnc_graph *graph);

/* Tensors lie in one run of floats: the values of all parameters and buffers in state_dict order,
 * then the momentum of the trained ones in the same order. Floats in all. Errors: -EOVERFLOW. */
int nnc_state_floats(const struct nnc_graph *graph, size_t *ret_floats);

/* Floats of the values alone: where the momentum begins. graph passed nnc_state_floats() before. */
size_t nnc_state_value_floats(const struct nnc_graph *graph);

/* 1 when the parameter is trained and so has a gradient and a momentum. */
int nnc_state_is_trained(const struct nnc_param *param);

/* SHA-256 over name, zero byte and little-endian values of every parameter and buffer in order: the
 * identity of a set of weights, independent of file formats. values as in nnc_state_floats().
 * Errors: -ENOMEM. */
int nnc_state_weights_sha256(const struct nnc_graph *graph, const float *values, char ret_hex[65]);

/* 0 when a run with these numbers can go on from the state, else -NNC_E_USAGE naming both sides. */
int nnc_state_check(const struct nnc_train_state *state, const struct nnc_train_state *run);

#endif
