/* SPDX-License-Identifier: Apache-2.0 */
/* Shared by train.c (steps and phases), train_state.c (start, snapshots) and train_modes.c
 * and bench_input.c (everything that is not training). */
#ifndef NNC_WORKERS_TRAIN_PRIVATE_H
#define NNC_WORKERS_TRAIN_PRIVATE_H

#include "workers/state.h"
#include "workers/train.h"

#include <stdbool.h>

/* What ranks agree on after each batch; the largest word wins. */
enum trainer_wish {
    WISH_NOTHING,
    WISH_SNAPSHOT,
    WISH_STOP, /* after a snapshot */
    WISH_FAIL, /* a loss is not finite: all ranks end alike */
};

/* A batch whose slot the device may still read. */
struct trainer_held {
    struct nnc_batch batch;
    uint64_t feed; /* number of its feed, from 1; 0: it was not fed */
};

#define TRAINER_HELD_MAX 64 /* slots of a ring */

struct nnc_trainer {
    struct nnc_trainer_params params;
    const struct nnc_setup *setup;
    struct nnc_train_state state;  /* place and identity; metrics are filled in when it is stored */
    uint64_t seq, total;           /* next batch; batches in all */
    struct nnc_train_metrics sums; /* of this rank in the current phase */
    uint64_t bad;                  /* unreadable samples of it that this process met */
    uint64_t phase_began_ns;
    enum nnc_phase phase; /* whose sums they are */
    double lr;
    uint32_t half;                       /* of the next snapshot */
    uint32_t wish;                       /* heard, not yet granted */
    uint64_t steps, images, collectives; /* by this process */
    uint64_t began_ns, wait_ns;
    bool was_ready;        /* the last batch taken was complete when it was asked for */
    uint32_t stored_epoch; /* place of the newest snapshot that belongs on disk */
    uint64_t stored_step;  /* UINT64_MAX: none yet */
    bool stopping;
    struct trainer_held held[TRAINER_HELD_MAX]; /* a queue, oldest first; empty on host backends */
    uint32_t held_count;
    uint64_t feeds; /* so far */
    void *pinned;   /* the ring's pixels, where the device reads them directly; else NULL */
    char *audit;    /* lines of one batch */
    float *buffer;  /* holds one running statistic */
    float *logits;  /* PREDICT: of one batch, and what its samples are */
    uint32_t *kept_samples, *kept_status;
};

/* Heartbeat, with what is being done. */
static inline void trainer_beat(struct nnc_trainer *trainer, enum nnc_activity activity) {
    trainer->params.link.ops->beat(trainer->params.link.context, activity);
}

/* Counter of the child's page. */
static inline void trainer_set(struct nnc_trainer *trainer, enum nnc_counter counter,
                               uint64_t value) {
    trainer->params.link.ops->set(trainer->params.link.context, counter, value);
}

/* A message without a tail. Errors: -EPIPE, -ETIMEDOUT. */
static inline int trainer_send(struct nnc_trainer *trainer, enum nnc_message_type type,
                               const void *body, size_t bytes) {
    return trainer->params.link.ops->send(trainer->params.link.context, type, body, bytes, NULL, 0);
}

/* The part of the backend's table that devices have; NULL on the CPU and without a model. */
static inline const struct nnc_device_ops *trainer_device(const struct nnc_trainer *trainer) {
    const struct nnc_engine *engine = trainer->params.engine;
    return engine == NULL ? NULL : nnc_engine_ops(engine)->device;
}

/* ---- train.c ---- */

/* Wait for the batch with number trainer->seq and write its audit lines; *ret_place says what it
 * is. */
int trainer_take_batch(struct nnc_trainer *trainer, struct nnc_batch_place *ret_place,
                       struct nnc_batch *ret_batch);

/* Give the batch's slot to the batch that comes into it next, and count it. */
void trainer_give_back(struct nnc_trainer *trainer, const struct nnc_batch *batch);

/* Open all slots from trainer->seq on. */
void trainer_open_slots(struct nnc_trainer *trainer);

/* Ask the outside what it wants and agree with all ranks on it; own_wish is this rank's. */
int trainer_agree(struct nnc_trainer *trainer, uint32_t own_wish, uint32_t *ret_wish);

/* Sum all gradient buckets over the ranks. */
int trainer_reduce(struct nnc_trainer *trainer);

/* Wait for everything that a device has queued, and take its metrics. A host backend has none. */
int trainer_settle(struct nnc_trainer *trainer);

/* -NNC_E_NUMERIC when the loss of the phase so far is no finite number: such weights are not kept.
 * A device tells it a step or two late, so it is asked before every snapshot. */
int trainer_check_finite(const struct nnc_trainer *trainer);

/* Update the weights. Errors: -NNC_E_NUMERIC when the backend finds them not finite. */
int trainer_update(struct nnc_trainer *trainer, double lr);

/* This rank's sums of the training phase so far, zero during validation. */
struct nnc_train_metrics trainer_training_sums(const struct nnc_trainer *trainer);

/* Send the end message. seconds: of the part that counts. */
int trainer_send_done(struct nnc_trainer *trainer, double seconds);

/* ---- train_state.c ---- */

/* Fill in what identifies the run: seed, batch, samples, parameters. Errors: -ENOMEM. */
int trainer_init_state(struct nnc_trainer *trainer);

/* Take a snapshot of the state between two steps. All ranks call it. durable: it belongs on disk.
 */
int trainer_snapshot(struct nnc_trainer *trainer, bool durable, bool for_stop);

/* Whether --save-every calls for a checkpoint between these two global steps. */
bool trainer_is_due(const struct nnc_trainer *trainer, uint64_t before, uint64_t after);

/* 1 when the current state belongs on disk already: a snapshot of this very place was announced. */
bool trainer_is_stored(const struct nnc_trainer *trainer);

/* Copy rank 0's running statistics to all ranks. */
int trainer_share_buffers(struct nnc_trainer *trainer);

/* ---- train_modes.c ---- */

/* NNC_MODE_PREDICT: remember what the samples of a batch are. */
void trainer_keep_numbers(struct nnc_trainer *trainer, const struct nnc_batch *batch);

/* NNC_MODE_PREDICT: send the logits of the evaluated batch that was kept. */
int trainer_send_logits(struct nnc_trainer *trainer, struct nnc_executable *executable,
                        uint32_t count);

/* 1 when the coordinator said stop, -EPIPE when it is gone. */
int trainer_is_told_to_stop(struct nnc_trainer *trainer);

/* NNC_MODE_CHECK: take every batch and give it back. */
int trainer_run_check(struct nnc_trainer *trainer);

/* ---- bench_input.c ---- */

/* NNC_MODE_BENCH_INPUT: warm-up, then measured batches. Errors: -ENOMEM. */
int trainer_run_bench_input(struct nnc_trainer *trainer);

/* ---- train_modes.c ---- */

/* NNC_MODE_BENCH_TRAIN: timed steps on one synthetic batch. */
int trainer_run_bench(struct nnc_trainer *trainer);

/* A batch of random images and labels, for synthetic modes. */
struct trainer_synthetic {
    struct nnc_feed feed;
    uint8_t *images;
    int32_t *labels;
};

/* Owner: trainer_free_synthetic(), after a failure too. Errors: -ENOMEM. */
int trainer_make_synthetic(const struct nnc_trainer *trainer, struct trainer_synthetic *ret_batch);
void trainer_free_synthetic(struct trainer_synthetic *batch);

/* ---- bench_comm.c ---- */

/* NNC_MODE_BENCH_COMM: time all-reduces, and steps with and without them. */
int trainer_run_bench_comm(struct nnc_trainer *trainer);

#endif
