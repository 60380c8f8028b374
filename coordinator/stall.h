/* SPDX-License-Identifier: Apache-2.0 */
/* Which trainer has stopped, when all of them wait for one. Pure: what their pages say and the time
 * go in, the one to blame and a clause come out.
 *
 *   its heart stands still          the process hangs: stopped, or stuck in a call
 *   all hearts beat, nothing moves  a GPU hangs, or the way between ranks: the rank that is least
 *                                   far holds the others up
 *
 * Ranks meet in collectives, so a single hung one stops all; the order of their counters tells them
 * apart. A rank that waits for data is no hang: loaders have their own watch. */
#ifndef NNC_COORDINATOR_STALL_H
#define NNC_COORDINATOR_STALL_H

#include "base/config.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct nnc_stall_rank {
    bool running;
    uint64_t beat_ns;
    uint32_t activity;       /* enum nnc_activity */
    uint64_t seq, step;      /* batches taken, training steps done */
    uint64_t ready, reduced; /* gradient buckets computed, and summed over the ranks */
    bool on_device;          /* its heart also beats while its GPU works */
};

struct nnc_stall {
    struct nnc_stall_rank last[NNC_MAX_RANKS];
    uint64_t moved_ns[NNC_MAX_RANKS]; /* when any counter of the rank last changed */
};

/* Take a look. Returns the number of the rank that must go, with a clause like "has not moved for
 * 5 s in backward, step 12, after 37 all-reduces", or -1. ranks[count]; times of one clock. */
int nnc_stall_look(struct nnc_stall *stall, const struct nnc_stall_rank *ranks, uint32_t count,
                   uint64_t now_ns, uint64_t limit_ns, char *ret_words, size_t bytes);

/* Where a rank is: "in backward, step 12, after 37 all-reduces". */
void nnc_stall_place(const struct nnc_stall_rank *rank, char *ret_words, size_t bytes);

#endif
