/* SPDX-License-Identifier: Apache-2.0 */
/* The same work in several processes at once, timed: what the yardstick programs share. */
#ifndef NNC_BENCH_PARALLEL_H
#define NNC_BENCH_PARALLEL_H

#include <stdint.h>

/* One process's work. */
struct bench_work {
    /* In the new process, before timing: make what the process needs for itself. Errors: NULL. */
    void *(*open)(void *shared);
    /* Do sample `number` (0, 1, 2 ... over all processes). Errors: negative. */
    int (*sample)(void *own, uint64_t number);
    void *shared;    /* given to open() */
    uint64_t warmup; /* samples of each process before timing */
};

/* What all processes did between the start signal and the end of the last one. */
struct bench_total {
    uint64_t samples;
    double seconds;
    double cpu_seconds; /* user and system, of all processes */
};

/* Run the work in `processes` (1 to 64) forked processes for `seconds`. Samples are handed out one
 * by one, so that all processes end together. Errors: negative, with a line on standard error. */
int bench_parallel(const struct bench_work *work, uint32_t processes, double seconds,
                   struct bench_total *ret_total);

/* Print the total as one JSON object on standard output, with the keys of `nncoord bench input`. */
void bench_print(const struct bench_total *total);

#endif
