/* SPDX-License-Identifier: Apache-2.0 */
/* How much of the sums over ranks hides behind a step, from what bench comm measured. Pure. */
#ifndef NNC_COORDINATOR_OVERLAP_H
#define NNC_COORDINATOR_OVERLAP_H

#include "ipc/channel.h"

#include <stdbool.h>

struct nnc_overlap {
    bool known;    /* share can be told from noise */
    double share;  /* 1: all of the sums hide, 0: they come on top, < 0: more than they do */
    double varies; /* seconds between the quartiles of the steps, of those that vary more */
};

/* Steps alone, steps together and the sums of all gradients, measured as often each.
 * Math:   share = 1 - (together - alone) / sums; known where sums > varies. The medians of n steps
 *         are off by about varies / sqrt(n): where the sums are below varies, what they add or do
 *         not add to a step is noise, and its ratio to them is any number. One step tells nothing
 *         of how much it varies. */
struct nnc_overlap nnc_overlap_of(const struct nnc_msg_comm *alone,
                                  const struct nnc_msg_comm *together,
                                  const struct nnc_msg_comm *sums);

#endif
