/* SPDX-License-Identifier: Apache-2.0 */
/* The host build of gpu/kernels*.cu: CUDA's language as an ordinary library, for machines without a
 * GPU. A launch becomes a closure that the program receives through cuhost_submit() and runs when
 * it likes; cuhost.cc runs its blocks one after the other, each CUDA thread a fiber.
 *
 * What it checks, and aborts on with words: threads of a block at different __syncthreads(), one
 * that exits before it, a shuffle that not all lanes of its mask reach. Shared memory is NaN when a
 * block starts. Threads run in an order of the program's choice: a kernel whose result depends on
 * the order lacks a barrier.
 *
 * What it cannot see: memory order between threads of a GPU, speed, limits of a device.
 * One thread at a time may run closures. */
#ifndef NNC_TESTS_GPU_CUHOST_H
#define NNC_TESTS_GPU_CUHOST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Device memory that a launch reads or writes. */
struct cuhost_range {
    const void *start; /* device address, as the launcher got it */
    size_t bytes;
    bool write;
};

/* ---- what the program provides ---- */

/* A kernel was launched on `stream`: run(closure) executes it, now or later, and as often as the
 * program likes (a captured graph). ranges lives during the call only.
 * Owner: closure becomes the program's; free(closure) after its last run. */
void cuhost_submit(void *stream, const struct cuhost_range *ranges, size_t count,
                   void (*run)(void *closure), void *closure);

/* The host address for a device pointer among a kernel's arguments; called when the closure runs.
 * Never called for NULL. */
void *cuhost_translate(const void *device);

/* ---- what the host build provides ---- */

/* The name of a closure's kernel, as the launch wrote it. */
const char *cuhost_name(const void *closure);

enum cuhost_order {
    CUHOST_FORWARD,
    CUHOST_REVERSE,
    CUHOST_RANDOM, /* blocks and threads shuffled, threads anew after each barrier */
};

/* The order of blocks and threads from now on; the seed is for RANDOM. */
void cuhost_set_schedule(enum cuhost_order order, uint64_t seed);

/* A place where kernels wait for their block: one __syncthreads() in one kernel. */
struct cuhost_barrier {
    const char *kernel; /* as the launch wrote it */
    const char *file;
    int line;
};

/* The barriers that closures have reached so far, in order of discovery. */
size_t cuhost_barrier_count(void);
/* One of them; number < cuhost_barrier_count(). */
struct cuhost_barrier cuhost_barrier_at(size_t number);
/* Let threads pass barrier `number` without waiting, to prove that tests notice; -1: none. */
void cuhost_drop_barrier(long number);

#ifdef __cplusplus
}
#endif

#endif
