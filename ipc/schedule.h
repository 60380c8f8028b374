/* SPDX-License-Identifier: Apache-2.0 */
/* What batch number `seq` of a ring means. Loaders and trainers compute it alike from constants, so
 * nothing about order is ever sent between processes.
 *
 *   seq:   0 1 2 ... T-1 | T ... T+E-1 | T+E ...
 *          epoch 0 train | epoch 0 val | epoch 1 train ...
 *
 * Each rank's ring has the same numbering. Global step s of a training epoch covers the positions
 * [s*G, min((s+1)*G, samples)) and rank r of R takes its slice [r*B, (r+1)*B) of them, B = G/R; the
 * last step may be short (or empty for high ranks: count 0). Validation is cut the same way, so
 * every image is seen exactly once at any number of ranks. Pure functions, no state. */
#ifndef NNC_IPC_SCHEDULE_H
#define NNC_IPC_SCHEDULE_H

#include <stdint.h>

enum nnc_phase {
    NNC_PHASE_TRAIN,
    NNC_PHASE_VAL,
};

struct nnc_schedule {
    uint64_t train_samples; /* 0: no training (eval, predict) */
    uint64_t val_samples;   /* 0: no validation */
    uint32_t ranks;
    uint32_t batch;  /* B, samples per rank and step, both phases */
    uint32_t epochs; /* >= 1 */
    uint32_t
        eval_every; /* validation after each of so many epochs and after the last; 0: last only */
    uint32_t drop_last;         /* 1: the short last training step is left out */
    uint32_t limit_train_steps; /* 0: none */
    uint32_t limit_val_steps;   /* 0: none */
};

/* One batch of one rank. */
struct nnc_batch_place {
    enum nnc_phase phase;
    uint32_t epoch;
    uint64_t step;         /* within phase and epoch */
    uint64_t first;        /* k of the rank's first sample; sample i of the batch is first + i */
    uint32_t count;        /* samples of this rank, 0..B */
    uint32_t global_count; /* samples of this step over all ranks, 1..G */
    uint32_t is_last;      /* last step of its phase and epoch */
};

/* Training steps of an epoch. */
uint64_t nnc_schedule_train_steps(const struct nnc_schedule *schedule);

/* Validation steps after epoch `epoch`; 0 when that epoch has none. */
uint64_t nnc_schedule_val_steps(const struct nnc_schedule *schedule, uint32_t epoch);

/* Number of batches in all: seq runs over [0, total). */
uint64_t nnc_schedule_total(const struct nnc_schedule *schedule);

/* The batch with number seq of a rank. Errors: -ENOENT when seq >= total. */
int nnc_schedule_locate(const struct nnc_schedule *schedule, uint32_t rank, uint64_t seq,
                        struct nnc_batch_place *ret_place);

/* The seq of training step `step` of `epoch`; step == train_steps means its first validation batch
 * (or the next epoch's first batch). Inverse of locate, for resuming. */
uint64_t nnc_schedule_seq(const struct nnc_schedule *schedule, uint32_t epoch, uint64_t step);

/* 0 when the numbers make sense and no product overflows, else -NNC_E_USAGE with the text. */
int nnc_schedule_check(const struct nnc_schedule *schedule);

#endif
