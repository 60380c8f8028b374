/* SPDX-License-Identifier: Apache-2.0 */
/* Which values Dropout keeps: one decision for all backends, ranks and restarts. It depends on the
 * seed, the training step, the node, the sample's place in the global batch and the feature, and on
 * nothing that differs between one rank and many.
 *
 *   counter  step | node | sample | feature / 4        word[feature % 4] >= p * 2^32 keeps
 *   key      Philox of (0, 0, 0, NNC_RNG_DROPOUT << 16) under the seed, so that these counters,
 *            which fill all four words, meet no other stream of the seed
 *
 * Source: Srivastava et al., "Dropout", JMLR 2014; scaled in training as PyTorch does. */
#ifndef NNC_WORKERS_DROPOUT_H
#define NNC_WORKERS_DROPOUT_H

#include "base/rng.h"

#include <assert.h>
#include <stdbool.h>

struct nnc_dropout {
    uint32_t key[2];
    uint32_t step, node;
    uint64_t threshold; /* p * 2^32: 2^32 keeps nothing */
    float scale;        /* 1 / (1 - p), 0 when nothing is kept */
};

/* The mask of graph node `node` in training step `step` (below 2^32, assert), 0 <= p <= 1. */
static inline struct nnc_dropout nnc_dropout_make(uint64_t seed, uint64_t step, uint32_t node,
                                                  double p) {
    assert(step <= UINT32_MAX && p >= 0 && p <= 1);
    const uint32_t use[4] = {0, 0, 0, (uint32_t)NNC_RNG_DROPOUT << 16};
    const uint32_t seed_key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    struct nnc_philox_block block = nnc_philox(use, seed_key);
    return (struct nnc_dropout){.key = {block.word[0], block.word[1]},
                                .step = (uint32_t)step,
                                .node = node,
                                .threshold = (uint64_t)(p * 0x1p32),
                                .scale = p < 1 ? (float)(1 / (1 - p)) : 0};
}

/* The words of features 4 * quarter ... 4 * quarter + 3 of a sample; word >= threshold keeps.
 * sample: its place in the global batch (step's first + n). */
static inline struct nnc_philox_block nnc_dropout_words(const struct nnc_dropout *dropout,
                                                        uint32_t sample, uint32_t quarter) {
    const uint32_t counter[4] = {dropout->step, dropout->node, sample, quarter};
    return nnc_philox(counter, dropout->key);
}

/* Whether a value is kept (then times scale). feature = c*H*W + h*W + w. */
static inline bool nnc_dropout_keep(const struct nnc_dropout *dropout, uint32_t sample,
                                    uint32_t feature) {
    return nnc_dropout_words(dropout, sample, feature / 4).word[feature % 4] >= dropout->threshold;
}

#endif
