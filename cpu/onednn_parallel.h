/* SPDX-License-Identifier: Apache-2.0 */
/* Run a function on all compute threads: the same team of threads that oneDNN uses.
 *
 * Debian's libdnnl is linked with libgomp. Two OpenMP runtimes in one process would keep two teams
 * of threads spinning on the same cores, and which one a pragma means depends on the compiler
 * (clang: its own). So the code here has no pragmas and calls libgomp's stable entry point itself,
 * under any compiler. Source: GCC manual "libgomp", section "The libgomp ABI", Implementing
 * PARALLEL construct. */
#ifndef NNC_CPU_ONEDNN_PARALLEL_H
#define NNC_CPU_ONEDNN_PARALLEL_H

#include <stddef.h>
#include <stdint.h>

/* Set the size of the team for oneDNN calls made by this thread; threads >= 1. */
void nnc_parallel_init(uint32_t threads);

/* Call work(context, thread, threads) once on each of `threads` threads, 0 <= thread < threads;
 * returns when all are done. Not to be nested. */
void nnc_parallel(uint32_t threads, void (*work)(void *context, uint32_t thread, uint32_t threads),
                  void *context);

/* How many of `threads` threads work worth `ns` nanoseconds of one thread deserves: a team takes
 * tens of microseconds to meet where its threads sleep in between, and much longer on busy cores.
 */
static inline uint32_t nnc_team(uint32_t threads, double ns) {
    return ns < 50000 ? 1 : threads;
}

/* A thread's share of [0, count) in whole granules: [*ret_begin, *ret_end). Shares are contiguous,
 * in the order of the threads, and cover everything. */
static inline void nnc_share(size_t count, size_t granule, uint32_t thread, uint32_t threads,
                             size_t *ret_begin, size_t *ret_end) {
    size_t granules = (count + granule - 1) / granule;
    size_t begin = granules * thread / threads * granule;
    size_t end = granules * (thread + 1) / threads * granule;
    *ret_begin = begin < count ? begin : count;
    *ret_end = end < count ? end : count;
}

#endif
