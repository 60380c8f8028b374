/* SPDX-License-Identifier: Apache-2.0 */
/* What the loaders of a run have used up so far: their counters and their CPU time, of those that
 * live and of those that have ended. The difference of two such sums is the cost of the part of the
 * run that lies between. */
#ifndef NNC_COORDINATOR_USAGE_H
#define NNC_COORDINATOR_USAGE_H

#include "coordinator/process.h"

#include <stdint.h>

struct nnc_usage {
    uint64_t at_ns; /* when it was taken */
    uint64_t counter[NNC_COUNT_MAX];
    double cpu_seconds;
};

/* Add one process's counters and CPU time to *usage. page: of the process, still mapped. */
void nnc_usage_add(struct nnc_usage *usage, const struct nnc_child_page *page, double cpu_seconds);

/* *ended (what is known of loaders that are gone) plus every live loader among processes[0..count).
 */
void nnc_usage_collect(const struct nnc_usage *ended, const struct nnc_process *processes,
                       uint32_t count, struct nnc_usage *ret_usage);

/* What was used between two sums, counter by counter; at_ns is the time between them. */
void nnc_usage_between(const struct nnc_usage *from, const struct nnc_usage *to,
                       struct nnc_usage *ret_usage);

/* CPU seconds that a process of ours which was not reaped yet has used so far; 0 when the kernel
 * does not tell. */
double nnc_usage_cpu_seconds(const struct nnc_process *process);

#endif
