/* SPDX-License-Identifier: Apache-2.0 */
/* How many loaders a training should have, decided from what was measured while it ran
 * (`--workers auto`). Pure: plain numbers in, a decision out. */
#ifndef NNC_COORDINATOR_ADAPT_H
#define NNC_COORDINATOR_ADAPT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What was seen over one window of training. */
struct nnc_adapt_window {
    double seconds;
    uint32_t loaders;
    double wait_share;   /* of the trainers' time, waiting for a batch: mean over ranks, 0..1 */
    double full_share;   /* of the looks at the rings: all had all their batches ready, 0..1 */
    double images_per_s; /* trained */
    double cpus_used;    /* by loaders and trainers: CPU seconds per second */
};

struct nnc_adapt_limits {
    uint32_t most; /* loaders */
    double cpus;   /* the CPU budget */
};

/* What is remembered from window to window; starts by nnc_adapt_start(). */
struct nnc_adapt {
    uint32_t settling;       /* windows to leave out: the last change is not in them yet */
    bool on_trial;           /* the last change was a loader added, not judged yet */
    double rate_before;      /* images per second before it */
    uint32_t full_windows;   /* in a row */
    double full_seconds;     /* their length */
    uint32_t least, ceiling; /* loaders; learnt, forgotten when nothing changed for long */
    uint32_t quiet_windows;  /* since the last change */
};

enum nnc_adapt_verdict {
    NNC_ADAPT_KEEP,
    NNC_ADAPT_ADD,    /* start one more loader */
    NNC_ADAPT_RETIRE, /* let one go */
};

/* Nothing is known yet. */
struct nnc_adapt nnc_adapt_start(void);

/* Judge one window. For ADD and RETIRE, ret_reason gets a clause that says why; else it is "". */
enum nnc_adapt_verdict nnc_adapt_decide(struct nnc_adapt *adapt,
                                        const struct nnc_adapt_limits *limits,
                                        const struct nnc_adapt_window *window, char *ret_reason,
                                        size_t bytes);

/* A loader that was to be added could not be started: no more than `loaders` from now on. */
void nnc_adapt_refused(struct nnc_adapt *adapt, uint32_t loaders);

#endif
