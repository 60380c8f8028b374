/* SPDX-License-Identifier: Apache-2.0 */
/* A loop whose turns run on several threads: scanning waits for the disk more than for the CPU. */
#ifndef NNC_COORDINATOR_DATASET_PARALLEL_H
#define NNC_COORDINATOR_DATASET_PARALLEL_H

#include <stddef.h>
#include <stdint.h>

/* Threads for a scan: `wanted`, or one per CPU this process may use up to 8 when wanted is 0. */
uint32_t nnc_scan_threads(uint32_t wanted);

/* Call run(context, i) once for each i in 0..count-1, on the calling thread and up to threads-1
 * others. Turns start in the order of i. run returns < 0 with nnc_fail() text to stop the loop:
 * turns that have begun end, no others start.
 * Errors: of the failed turn with the smallest i, with its text; the same one in each run. */
int nnc_parallel_for(size_t count, uint32_t threads, int (*run)(void *context, size_t i),
                     void *context);

#endif
