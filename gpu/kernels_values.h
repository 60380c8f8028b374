/* SPDX-License-Identifier: Apache-2.0 */
/* Values of all types as fp32, and groups of them: 8 values of one row, all of a thread's work at
 * once. A group is one access of 16 bytes in the 16-bit types, two in fp32. */
#ifndef NNC_GPU_KERNELS_VALUES_H
#define NNC_GPU_KERNELS_VALUES_H

#include "gpu/kernels_types.h"
#include "gpu/launch.h"

namespace nnc {

constexpr unsigned group_values = 8;
/* One block a multiprocessor is all that kernels ask for, in __launch_bounds__(block_threads, 1):
 * left to choose, ptxas spills registers to make room for more. */
constexpr unsigned block_threads = 256;
constexpr unsigned warp_lanes = 32;
constexpr unsigned all_lanes = 0xffffffffu;

/* Exact. */
__device__ inline float to_float(float value) {
    return value;
}

/* Exact. */
__device__ inline float to_float(__nv_bfloat16 value) {
    return __bfloat162float(value);
}

/* Exact. */
__device__ inline float to_float(__half value) {
    return __half2float(value);
}

/* To nearest, ties to even. */
template <typename T> __device__ T from_float(float value);
template <> __device__ inline float from_float<float>(float value) {
    return value;
}
template <> __device__ inline __nv_bfloat16 from_float<__nv_bfloat16>(float value) {
    return __float2bfloat16(value);
}
template <> __device__ inline __half from_float<__half>(float value) {
    return __float2half(value);
}

/* A group, as it lies in memory: 16 bytes an element of `part`. */
template <typename T> union packed {
    uint4 part[group_values * sizeof(T) / sizeof(uint4)];
    T value[group_values];
    __device__ packed() {
    }
};

/* 8 values at a 16-byte boundary. */
template <typename T>
__device__ inline void load(const T *from, float (&ret_values)[group_values]) {
    packed<T> group;
    constexpr unsigned parts = sizeof(group.part) / sizeof(uint4);
#pragma unroll
    for (unsigned part = 0; part < parts; part++) {
        group.part[part] = reinterpret_cast<const uint4 *>(from)[part];
    }
#pragma unroll
    for (unsigned lane = 0; lane < group_values; lane++) {
        ret_values[lane] = to_float(group.value[lane]);
    }
}

/* 8 values to a 16-byte boundary. */
template <typename T> __device__ inline void store(T *to, const float (&values)[group_values]) {
    packed<T> group;
    constexpr unsigned parts = sizeof(group.part) / sizeof(uint4);
#pragma unroll
    for (unsigned lane = 0; lane < group_values; lane++) {
        group.value[lane] = from_float<T>(values[lane]);
    }
#pragma unroll
    for (unsigned part = 0; part < parts; part++) {
        reinterpret_cast<uint4 *>(to)[part] = group.part[part];
    }
}

/* Store, or add to what is there: in fp32, rounded once. */
template <typename T>
__device__ inline void store(T *to, float (&values)[group_values], bool accumulate) {
    if (accumulate) {
        float old[group_values];
        load(to, old);
#pragma unroll
        for (unsigned lane = 0; lane < group_values; lane++) {
            values[lane] += old[lane];
        }
    }
    store(to, values);
}

/* The first `count` of 8 values that follow each other, the others `fill`: for ends of arrays, and
 * for arrays per channel that have no padding. from NULL: `fill` alone. */
template <typename T>
__device__ inline void load_some(const T *from, unsigned count, float fill,
                                 float (&ret_values)[group_values]) {
#pragma unroll
    for (unsigned lane = 0; lane < group_values; lane++) {
        ret_values[lane] = from && lane < count ? to_float(from[lane]) : fill;
    }
}

/* The first `count` of 8 values. */
template <typename T>
__device__ inline void store_some(T *to, unsigned count, const float (&values)[group_values]) {
#pragma unroll
    for (unsigned lane = 0; lane < group_values; lane++) {
        if (lane < count) {
            to[lane] = from_float<T>(values[lane]);
        }
    }
}

/* Store in the type that `type` names, `index` values behind `to`: where a kernel has too few
 * values to be compiled once a type. */
__device__ inline void store_as(enum nnc_gpu_type type, void *to, size_t index,
                                const float (&values)[group_values]) {
    if (type == NNC_GPU_BF16) {
        store((__nv_bfloat16 *)to + index, values);
    } else if (type == NNC_GPU_F16) {
        store((__half *)to + index, values);
    } else {
        store((float *)to + index, values);
    }
}

} // namespace nnc

#endif
