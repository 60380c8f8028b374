/* SPDX-License-Identifier: Apache-2.0 */
/* See faulty_kernels.h. */
#include "tests/gpu/faulty_kernels.h"

#include "gpu/launch.h"

namespace {

constexpr unsigned threads = 64;

__global__ void none(float *out) {
    NNC_SHARED(float, tile, [threads]);
    tile[threadIdx.x] = (float)threadIdx.x;
    __syncthreads();
    out[threadIdx.x] = tile[threadIdx.x ^ 1];
}

__global__ void missing_barrier(float *out) {
    NNC_SHARED(float, tile, [threads]);
    tile[threadIdx.x] = (float)threadIdx.x;
    out[threadIdx.x] = tile[threadIdx.x ^ 1];
}

__global__ void two_barriers(float *out) {
    if (threadIdx.x % 2) {
        __syncthreads();
        out[threadIdx.x] = 1;
    } else {
        __syncthreads();
        out[threadIdx.x] = 2;
    }
}

__global__ void early_exit(float *out) {
    if (threadIdx.x == 5) {
        return;
    }
    __syncthreads();
    out[threadIdx.x] = 1;
}

__global__ void lane_gone(float *out) {
    if (threadIdx.x == 5) {
        return;
    }
    out[threadIdx.x] = __shfl_xor_sync(0xffffffffu, (float)threadIdx.x, 1);
}

__global__ void narrow_mask(float *out) {
    out[threadIdx.x] = 0;
    if (threadIdx.x % 32 < 16) {
        out[threadIdx.x] = __shfl_xor_sync(0xffffu, (float)threadIdx.x, 16);
    }
}

__global__ void fresh_shared(float *out) {
    NNC_SHARED(float, tile, [threads]);
    out[threadIdx.x] = tile[threadIdx.x];
}

int launch(const char *name, void (*kernel)(float *), float *out) {
    NNC_WRITES(out, threads * sizeof(*out));
    return cuhost::launch(name, kernel, dim3(2), dim3(threads), nullptr, out);
}

} // namespace

int faulty_none(float *out) {
    return launch("none", none, out);
}

int faulty_missing_barrier(float *out) {
    return launch("missing_barrier", missing_barrier, out);
}

int faulty_two_barriers(float *out) {
    return launch("two_barriers", two_barriers, out);
}

int faulty_early_exit(float *out) {
    return launch("early_exit", early_exit, out);
}

int faulty_lane_gone(float *out) {
    return launch("lane_gone", lane_gone, out);
}

int faulty_narrow_mask(float *out) {
    return launch("narrow_mask", narrow_mask, out);
}

int faulty_fresh_shared(float *out) {
    return launch("fresh_shared", fresh_shared, out);
}
