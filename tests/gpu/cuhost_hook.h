/* SPDX-License-Identifier: Apache-2.0 */
/* The seam between kernels compiled for the host (cuhost.h) and the stand-in of the CUDA runtime
 * (fakecuda/): a launch hands over what it touches and what to call; the stand-in decides when. */
#ifndef NNC_TESTS_GPU_CUHOST_HOOK_H
#define NNC_TESTS_GPU_CUHOST_HOOK_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* What a launch reads (write = 0) or writes, whole, as the addresses that the caller was handed. */
struct fakecuda_range {
    const void *memory;
    size_t bytes;
    int write;
    const char *kernel; /* its name, for messages */
};

/* Queue a launch on the stream.
 * Owner:  run is called once for each execution: once on a stream, once a replay of a captured
 *         graph, perhaps never. done is called once, after the last run: it frees the closure.
 *         The ranges are copied.
 * Errors: cudaGetLastError() has them, as of a real launch; done is called at once then. */
void fakecuda_submit(void *stream, const struct fakecuda_range *ranges, size_t count,
                     void (*run)(void *closure), void (*done)(void *closure), void *closure);

/* Where run finds the bytes of memory: the alias of device memory, host memory itself. */
void *fakecuda_translate(const void *memory);

#ifdef __cplusplus
}
#endif

#endif
