/* SPDX-License-Identifier: Apache-2.0 */
/* The rule of `--workers auto`.
 *
 * 1. Add: trainers waited more than 5 % of the window, the rings were mostly not full, and
 * something of the CPU budget is unused.
 * 2. Undo: a window later the training is not at least 2 % faster, so the loader brought nothing.
 * 3. Retire: trainers waited less than 1 % and the rings were full, in six windows in a row.
 *
 * Why it does not hurt where trainers use all CPUs: a loader is added only while trainers wait,
 * that is while their CPUs idle, and only as far as the budget has room; should it take more from
 * the trainers than it gives them, the next window is slower and it goes again.
 *
 * Why it does not flap: a number of loaders that was found too small is not returned to (least),
 * and one that brought nothing is not tried again (ceiling). So each step is taken at most once in
 * each direction, until nothing has changed for QUIET_WINDOWS; then conditions may be others (files
 * came into the page cache, another program ended), and both are forgotten.
 *
 * The first window, and the one in which a change took place, are left out: they measure starting.
 * Does not start or stop anything. */
#include "coordinator/adapt.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>

#define HUNGRY_SHARE 0.05 /* trainers wait: more loaders may help */
#define CALM_SHARE   0.01 /* trainers do not wait */
#define MOSTLY_FULL  0.5  /* of the looks: then waiting has another cause */
#define ALWAYS_FULL  0.95
#define CPU_ROOM     0.95 /* of the budget: above that it is used up */
#define WORTH_IT     1.02 /* faster by at least that much */

enum {
    FULL_WINDOWS = 6,
    QUIET_WINDOWS = 120,
};

struct nnc_adapt nnc_adapt_start(void) {
    return (struct nnc_adapt){.settling = 1, .least = 1, .ceiling = UINT32_MAX};
}

void nnc_adapt_refused(struct nnc_adapt *adapt, uint32_t loaders) {
    adapt->ceiling = loaders;
    adapt->on_trial = false;
}

/* Something is changed now: what was counted so far describes another number of loaders. */
static void begin_anew(struct nnc_adapt *adapt) {
    adapt->settling = 1;
    adapt->full_windows = 0;
    adapt->full_seconds = 0.0;
    adapt->quiet_windows = 0;
}

static void forget_if_quiet(struct nnc_adapt *adapt) {
    adapt->quiet_windows++;
    if (adapt->quiet_windows >= QUIET_WINDOWS) {
        adapt->quiet_windows = 0;
        adapt->least = 1;
        adapt->ceiling = UINT32_MAX;
    }
}

static void count_full(struct nnc_adapt *adapt, const struct nnc_adapt_window *window) {
    bool full = window->wait_share < CALM_SHARE && window->full_share >= ALWAYS_FULL;
    adapt->full_windows = full ? adapt->full_windows + 1 : 0;
    adapt->full_seconds = full ? adapt->full_seconds + window->seconds : 0.0;
}

static bool wants_more(const struct nnc_adapt *adapt, const struct nnc_adapt_limits *limits,
                       const struct nnc_adapt_window *window) {
    bool hungry = window->wait_share > HUNGRY_SHARE && window->full_share < MOSTLY_FULL;
    bool has_place = window->loaders < limits->most && window->loaders < adapt->ceiling;
    return hungry && has_place && window->cpus_used < CPU_ROOM * limits->cpus;
}

/* Whether the loader added last has to go again. */
static bool fails_trial(struct nnc_adapt *adapt, const struct nnc_adapt_window *window) {
    bool on_trial = adapt->on_trial;
    adapt->on_trial = false;
    return on_trial && window->loaders > 1 && window->images_per_s < WORTH_IT * adapt->rate_before;
}

enum nnc_adapt_verdict nnc_adapt_decide(struct nnc_adapt *adapt,
                                        const struct nnc_adapt_limits *limits,
                                        const struct nnc_adapt_window *window, char *ret_reason,
                                        size_t bytes) {
    assert(limits->most >= 1 && bytes > 0);
    ret_reason[0] = '\0';
    if (adapt->settling > 0) {
        adapt->settling--;
        return NNC_ADAPT_KEEP;
    }
    forget_if_quiet(adapt);
    count_full(adapt, window);
    if (fails_trial(adapt, window)) {
        adapt->ceiling = window->loaders - 1;
        adapt->least = adapt->least < adapt->ceiling ? adapt->least : adapt->ceiling;
        begin_anew(adapt);
        snprintf(ret_reason, bytes, "%.0f images/s with %" PRIu32 ", %.0f with %" PRIu32,
                 adapt->rate_before, window->loaders - 1, window->images_per_s, window->loaders);
        return NNC_ADAPT_RETIRE;
    }
    if (wants_more(adapt, limits, window)) {
        adapt->on_trial = true;
        adapt->rate_before = window->images_per_s;
        adapt->least = window->loaders + 1;
        begin_anew(adapt);
        snprintf(ret_reason, bytes, "trainers waited %.0f %% of the last %.3g s",
                 100.0 * window->wait_share, window->seconds);
        return NNC_ADAPT_ADD;
    }
    if (adapt->full_windows >= FULL_WINDOWS && window->loaders > adapt->least) {
        snprintf(ret_reason, bytes, "the ring was full for %.3g s", adapt->full_seconds);
        begin_anew(adapt);
        return NNC_ADAPT_RETIRE;
    }
    return NNC_ADAPT_KEEP;
}
