/* SPDX-License-Identifier: Apache-2.0 */
/* What a run costs: CPU and stages of the loaders over the measured part, memory at its peak.
 *
 * 1. The measured part begins at START, or at the consumer's MEASURE (bench input after its
 * warm-up), and ends with the last DONE. Sums are taken at both ends and subtracted.
 * 2. Memory is the largest sum of proportional set sizes seen at any tick: each child tells its own
 *    on its page, because nobody else may look into a loader. Trainers tell theirs in bench input
 *    only; elsewhere weights and activations would hide the rest. */
#include "coordinator/run_internal.h"

void nnc_run_measure_begin(struct nnc_run_state *run) {
    nnc_usage_collect(&run->ended, run->process, run->group.children, &run->measured_from);
}

void nnc_run_measure_end(struct nnc_run_state *run) {
    struct nnc_usage now;
    nnc_usage_collect(&run->ended, run->process, run->group.children, &now);
    nnc_usage_between(&run->measured_from, &now, &run->result->measured);
    nnc_run_weigh(run);
}

void nnc_run_measure_ended(struct nnc_run_state *run, const struct nnc_process *process,
                           const struct nnc_process_end *end) {
    if (process->role == NNC_ROLE_LOADER) {
        nnc_usage_add(&run->ended, process->page, end->cpu_seconds);
    }
}

void nnc_run_weigh(struct nnc_run_state *run) {
    uint64_t sum = nnc_footprint_own(&run->footprint);
    for (uint32_t i = 0; i < run->group.children; i++) {
        const struct nnc_child_page *page = run->process[i].page;
        /* Relaxed: statistics. */
        sum += page == NULL ? 0
                            : atomic_load_explicit(&page->counter[NNC_COUNT_PSS_BYTES],
                                                   memory_order_relaxed);
    }
    uint64_t *peak = &run->result->peak_memory_bytes;
    *peak = sum > *peak ? sum : *peak;
}
