/* SPDX-License-Identifier: Apache-2.0 */
/* From snapshots in memory to checkpoints on disk: one saver process at a time, fed by the snapshot
 * memfd, so that a trainer never waits for a disk and its death loses no checkpoint that was under
 * way. */
#ifndef NNC_COORDINATOR_SAVING_H
#define NNC_COORDINATOR_SAVING_H

#include "coordinator/process.h"

#include <stdbool.h>
#include <stdint.h>

struct nnc_saving {
    bool enabled; /* the run has a folder */
    /* newest complete snapshot, for restarting the group; and the one waiting to be saved */
    struct nnc_msg_snapshot newest, waiting;
    bool have_newest, have_waiting;
    struct nnc_process saver;
    bool running;
    bool saved_reported; /* the running saver has sent its SAVED */
    struct nnc_msg_snapshot saving;
    uint32_t failures, skipped; /* since the run began */
    uint32_t saved;
    bool stop_saved; /* the snapshot that answers STOP is durable */
    char newest_path[NNC_PATH_MAX];
    char weights_sha256[65];
    char failure[NNC_PATH_MAX]; /* text of the last failure */
};

/* A snapshot became complete. Durable ones replace a waiting one that no saver has taken yet. */
void nnc_saving_snapshot(struct nnc_saving *saving, const struct nnc_msg_snapshot *message);

/* Start a saver for the waiting snapshot when none runs. Returns 1 when one was
 * started, 0 when there is nothing to do, negative when it cannot be started (counted as a
 * failure). */
int nnc_saving_start(struct nnc_saving *saving, const struct nnc_process_params *params,
                     struct nnc_setup *setup, int snapshot_fd);

/* Messages of the saver. Returns 1 when it reported a durable checkpoint. */
int nnc_saving_message(struct nnc_saving *saving);

/* The saver's pidfd is readable: reap it. */
void nnc_saving_exit(struct nnc_saving *saving);

/* Nothing is being written and nothing waits. */
bool nnc_saving_idle(const struct nnc_saving *saving);

#endif
