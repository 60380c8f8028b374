/* SPDX-License-Identifier: Apache-2.0 */
/* Measures the windows that adapt.h judges, and does what it says.
 *
 * 1. A window is made of the times between two ticks that both saw training: validation has another
 *    pace, and what happens around it would be taken for the loaders' doing.
 * 2. It is complete after --workers-interval seconds and a few steps of training; trainers count
 *    their waiting once a step, so that less would be noise.
 * 3. A new generation begins with a new window: its counters start from zero. What was learnt
 * stays. Does nothing when the user gave the number of loaders. */
#include "coordinator/run_internal.h"

#include "base/log.h"

#include <inttypes.h>

#define STEPS_MIN 4 /* in a window */

/* CPU seconds of all children that live, and of the loaders that have ended. */
static double cpu_seconds(const struct nnc_run_state *run) {
    double seconds = run->ended.cpu_seconds;
    for (uint32_t i = 0; i < run->group.children; i++) {
        seconds += nnc_usage_cpu_seconds(&run->process[i]);
    }
    return seconds;
}

/* Every trainer has all batches ready but the one it may be reading. */
static bool rings_full(const struct nnc_run_state *run) {
    for (uint32_t rank = 0; rank < run->plan.ranks; rank++) {
        if (nnc_ring_ready_batches(run->ring[rank]) + 1 < run->plan.geometry.slots) {
            return false;
        }
    }
    return true;
}

static void add_to_window(struct nnc_run_window *window, const struct nnc_run_look *from,
                          const struct nnc_run_look *to) {
    window->ns += to->at_ns - from->at_ns;
    window->wait_ns += to->progress.wait_ns - from->progress.wait_ns;
    window->images += to->progress.samples - from->progress.samples;
    window->cpu_seconds += to->cpu_seconds - from->cpu_seconds;
    window->looks++;
    window->full_looks += to->rings_full ? 1 : 0;
}

static struct nnc_adapt_window judge_window(const struct nnc_run_state *run) {
    const struct nnc_run_window *window = &run->window;
    double seconds = (double)window->ns * 1e-9;
    double wait_share = (double)window->wait_ns * 1e-9 / seconds;
    return (struct nnc_adapt_window){
        .seconds = seconds,
        .loaders = nnc_group_loaders(&run->group),
        .wait_share = wait_share < 1.0 ? wait_share : 1.0,
        .full_share = (double)window->full_looks / window->looks,
        .images_per_s = (double)window->images / seconds,
        .cpus_used = window->cpu_seconds / seconds,
    };
}

/* Judge a complete window. Returns 1 when *actions are to be performed. */
static int decide(struct nnc_run_state *run, uint64_t now_ns, struct nnc_actions *actions) {
    const struct nnc_adapt_window window = judge_window(run);
    const struct nnc_adapt_limits limits = {.most = run->plan.loaders_max,
                                            .cpus = run->params->machine->cpus};
    char reason[128];
    enum nnc_adapt_verdict verdict =
        nnc_adapt_decide(&run->adapt, &limits, &window, reason, sizeof(reason));
    int done = verdict == NNC_ADAPT_ADD      ? nnc_group_add_loader(&run->group, now_ns, actions)
               : verdict == NNC_ADAPT_RETIRE ? nnc_group_retire_loader(&run->group, now_ns, actions)
                                             : 0;
    if (done == 1) {
        nnc_report_clear(&run->report);
        nnc_log(NNC_LOG_INFO, "%" PRIu32 " -> %" PRIu32 " loaders: %s", window.loaders,
                nnc_group_loaders(&run->group), reason);
        run->result->loader_changes++;
    }
    return done;
}

int nnc_run_adapt(struct nnc_run_state *run, const struct nnc_progress *progress, uint64_t now_ns,
                  struct nnc_actions *actions) {
    if (!run->plan.loaders_adapt || run->plan.loaders_max < 2) {
        return 0;
    }
    if (run->group.extra_failures != run->extra_failures) {
        run->extra_failures = run->group.extra_failures;
        nnc_adapt_refused(&run->adapt, nnc_group_loaders(&run->group));
    }
    struct nnc_run_look before = run->look;
    run->look = (struct nnc_run_look){
        .at_ns = now_ns,
        .generation = run->group.generation,
        .training = run->group.phase == NNC_GROUP_RUNNING && progress->samples != 0 &&
                    progress->phase == NNC_PHASE_TRAIN,
        .progress = *progress,
    };
    if (!run->look.training) {
        return 0;
    }
    run->look.cpu_seconds = cpu_seconds(run);
    run->look.rings_full = rings_full(run);
    if (before.generation != run->look.generation) {
        run->window = (struct nnc_run_window){.ns = 0};
        return 0;
    }
    if (!before.training || progress->samples < before.progress.samples ||
        progress->wait_ns < before.progress.wait_ns) {
        return 0;
    }
    add_to_window(&run->window, &before, &run->look);
    uint64_t step_images = (uint64_t)run->plan.schedule.batch * run->plan.ranks;
    if ((double)run->window.ns * 1e-9 < run->params->config->workers_interval ||
        run->window.images < STEPS_MIN * step_images) {
        return 0;
    }
    int done = decide(run, now_ns, actions);
    run->window = (struct nnc_run_window){.ns = 0};
    return done;
}
