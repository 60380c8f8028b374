/* SPDX-License-Identifier: Apache-2.0 */
/* How kernels are launched, the only place that tells nvcc from the host build
 * (tests/gpu/cuhost.h).
 *
 *   NNC_READS(x, bytes);  NNC_WRITES(y, bytes);       what the launch touches: exact bytes, NULL is
 *                                                     nothing; for the host build's race checker
 *   return NNC_LAUNCH((kernel<T>), grid, block, stream, x, y);      0 or -NNC_E_HARDWARE
 *   NNC_SHARED(float, tile, [8][256]);                shared memory of a block, inside a kernel
 *
 * Pointers are plain arguments of kernels, never members of structs: the host build translates
 * them one by one. */
#ifndef NNC_GPU_LAUNCH_H
#define NNC_GPU_LAUNCH_H

#include "base/err.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime_api.h>

#ifdef __CUDACC__

/* What became of a launch, as a code. */
static inline int nnc_launched(const char *kernel, cudaError_t status) {
    if (status == cudaSuccess) {
        return 0;
    }
    return nnc_fail(-NNC_E_HARDWARE, "%s: %s", kernel, cudaGetErrorString(status));
}

#define NNC_READS(start, size)         ((void)(start), (void)(size))
#define NNC_WRITES(start, size)        ((void)(start), (void)(size))
#define NNC_SHARED(type, name, extent) __shared__ type name extent
/* clang-format off */
#define NNC_LAUNCH(kernel, grid, block, stream, ...)                                               \
    ((kernel)<<<(grid), (block), 0, (stream)>>>(__VA_ARGS__),                                      \
     nnc_launched(#kernel, cudaGetLastError()))
/* clang-format on */

#else

#include "tests/gpu/cuhost_device.h"

#define NNC_READS(start, size)  cuhost::declare((start), (size), false)
#define NNC_WRITES(start, size) cuhost::declare((start), (size), true)
#define NNC_SHARED(type, name, extent)                                                             \
    static type name extent;                                                                       \
    static uint64_t name##_filled_for;                                                             \
    cuhost::shared(name, sizeof(name), &name##_filled_for)
#define NNC_LAUNCH(kernel, grid, block, stream, ...)                                               \
    cuhost::launch(#kernel, (kernel), (grid), (block), (stream), __VA_ARGS__)

#endif

#endif
