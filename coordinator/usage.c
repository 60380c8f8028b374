/* SPDX-License-Identifier: Apache-2.0 */
/* Sums of counters and CPU time over loaders.
 *
 * 1. Counters lie on the children's pages and are read while they count: values of slightly
 *    different moments mix, which shows in the last digits only.
 * 2. The CPU time of a live process comes from its CPU clock, that of a dead one from wait4(); both
 *    count user and system time of all its threads. A process that was not reaped keeps its number,
 *    so the clock is never a stranger's.
 * Does not reap or print. Source: clock_getcpuclockid(3). */
#include "coordinator/usage.h"

#include "base/clock.h"

#include <string.h>
#include <time.h>

void nnc_usage_add(struct nnc_usage *usage, const struct nnc_child_page *page, double cpu_seconds) {
    for (int i = 0; i < NNC_COUNT_MAX; i++) {
        /* Relaxed: statistics, nothing depends on their order. */
        usage->counter[i] += atomic_load_explicit(&page->counter[i], memory_order_relaxed);
    }
    usage->cpu_seconds += cpu_seconds;
}

double nnc_usage_cpu_seconds(const struct nnc_process *process) {
    clockid_t clock;
    struct timespec used;
    if (process->pid == 0 || clock_getcpuclockid(process->pid, &clock) != 0 ||
        clock_gettime(clock, &used) != 0) {
        return 0.0;
    }
    return (double)used.tv_sec + (double)used.tv_nsec * 1e-9;
}

void nnc_usage_collect(const struct nnc_usage *ended, const struct nnc_process *processes,
                       uint32_t count, struct nnc_usage *ret_usage) {
    struct nnc_usage usage = *ended;
    usage.at_ns = nnc_clock_ns();
    for (uint32_t i = 0; i < count; i++) {
        if (processes[i].role == NNC_ROLE_LOADER && processes[i].page != NULL) {
            nnc_usage_add(&usage, processes[i].page, nnc_usage_cpu_seconds(&processes[i]));
        }
    }
    *ret_usage = usage;
}

void nnc_usage_between(const struct nnc_usage *from, const struct nnc_usage *to,
                       struct nnc_usage *ret_usage) {
    struct nnc_usage usage = {.at_ns = to->at_ns - from->at_ns,
                              .cpu_seconds = to->cpu_seconds - from->cpu_seconds};
    for (int i = 0; i < NNC_COUNT_MAX; i++) {
        usage.counter[i] =
            to->counter[i] > from->counter[i] ? to->counter[i] - from->counter[i] : 0;
    }
    *ret_usage = usage;
}
