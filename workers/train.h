/* SPDX-License-Identifier: Apache-2.0 */
/* The trainer's loop: batches in schedule order from the ring through the engine, gradients through
 * the communicator, state into the snapshot. The world around it (coordinator, heartbeats) is a
 * link, so that tests run it with threads as ranks. */
#ifndef NNC_WORKERS_TRAIN_H
#define NNC_WORKERS_TRAIN_H

#include "ipc/child.h"
#include "workers/comm.h"
#include "workers/engine.h"
#include "workers/snapshot.h"

#include <stdint.h>

/* What the loop tells and asks the outside. */
struct nnc_link_ops {
    void (*beat)(void *context, enum nnc_activity activity);
    void (*set)(void *context, enum nnc_counter counter, uint64_t value);
    /* Loss sum and phase (enum nnc_phase) so far, current learning rate. */
    void (*progress)(void *context, uint32_t phase, double loss_sum, double lr);
    /* 0, NNC_MSG_SNAP or NNC_MSG_STOP; -EPIPE when nobody is there any more. */
    int (*poll)(void *context);
    int (*send)(void *context, enum nnc_message_type type, const void *body, size_t bytes,
                const void *tail, size_t tail_bytes);
};

struct nnc_link {
    const struct nnc_link_ops *ops;
    void *context;
};

struct nnc_trainer_params {
    const struct nnc_setup *setup; /* borrowed, as all of these */
    struct nnc_link link;
    struct nnc_engine *engine; /* NULL in BENCH_INPUT and CHECK */
    struct nnc_comm *comm;
    struct nnc_ring *ring;         /* NULL in synthetic modes */
    struct nnc_snapshot *snapshot; /* rank 0; NULL: none is taken */
    int audit_fd;                  /* receives a line for each delivered sample; -1: none */
    struct nnc_vfs *vfs;
};

struct nnc_trainer;

/* Owner: free with nnc_trainer_destroy(). Errors: -ENOMEM. */
int nnc_trainer_create(const struct nnc_trainer_params *params, struct nnc_trainer **ret_trainer);

/* Takes NULL. */
void nnc_trainer_destroy(struct nnc_trainer *trainer);

/* Put the starting weights in place, equal on all ranks: initialised by the seed, config.weights, a
 * checkpoint or a snapshot, as the setup says. Rank 0 reads, the others are told.
 * Errors: -NNC_E_CHECKPOINT, -NNC_E_USAGE, -NNC_E_COMM. */
int nnc_trainer_load(struct nnc_trainer *trainer);

/* Run the setup's mode to its end or to a stop, sending messages on the way and NNC_MSG_DONE last.
 * Errors: -NNC_E_NUMERIC naming epoch and step; -NNC_E_COMM; -EPIPE ring or coordinator gone;
 * -NNC_E_FORMAT a label out of range. */
int nnc_trainer_run(struct nnc_trainer *trainer);

#endif
