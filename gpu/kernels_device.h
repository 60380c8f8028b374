/* SPDX-License-Identifier: Apache-2.0 */
/* What the kernels share: types as fp32, 16-byte accesses, the way threads cover a tensor, sums
 * over rows.
 *
 *   group    8 values of one row, all of a thread's work at once: one access of 16 bytes in the
 *            16-bit types, two in fp32
 *   column   the groups of one row, threadIdx.x of them side by side in a block
 *   cover    blocks (columns, slabs): thread (x, y) takes column c = x of its block's, and rows
 *            y, y + all rows in flight, ...: what belongs to a channel is loaded once a thread
 *
 *            column ->  0 1 2 .. 31 | 32 ..
 *     row y  0          t t t    t  |            slab 0
 *            ..         t t t    t  |
 *            8          t t t    t  |            slab 1
 *
 * The shape alone gives the cover, and so the order of every sum. */
#ifndef NNC_GPU_KERNELS_DEVICE_H
#define NNC_GPU_KERNELS_DEVICE_H

#include "gpu/kernels.h"
#include "gpu/launch.h"

#include <assert.h>

namespace nnc {

constexpr unsigned group_values = 8;
/* One block a multiprocessor is all that kernels ask for, in __launch_bounds__(block_threads, 1):
 * left to choose, ptxas spills registers to make room for more. */
constexpr unsigned block_threads = 256;
constexpr unsigned warp_lanes = 32;
constexpr unsigned all_lanes = 0xffffffffu;

__device__ inline float to_float(float value) {
    return value;
}
__device__ inline float to_float(__nv_bfloat16 value) {
    return __bfloat162float(value);
}
__device__ inline float to_float(__half value) {
    return __half2float(value);
}

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

/* A tensor as the kernels see it. */
struct matrix {
    uint32_t rows, columns; /* columns in groups */
    uint32_t channels, stride;
};

/* Of one thread: its column, its first channel, and its rows. */
struct place {
    uint32_t column, channel, row, row_step;
};

__device__ inline place place_of_thread() {
    place at;
    at.column = blockIdx.x * blockDim.x + threadIdx.x;
    at.channel = at.column * group_values;
    at.row = blockIdx.y * blockDim.y + threadIdx.y;
    at.row_step = gridDim.y * blockDim.y;
    return at;
}

/* Real channels in the group that starts at `channel`; the rest is padding. */
__device__ inline unsigned real_channels(const matrix &shape, uint32_t channel) {
    return channel < shape.channels ? shape.channels - channel : 0;
}

/* Index of a thread's group in row `row`. */
__device__ inline size_t index_of(const matrix &shape, const place &at, uint32_t row) {
    return (size_t)row * shape.stride + at.channel;
}

template <typename T> __device__ inline T warp_sum(T value) {
    for (unsigned mask = warp_lanes / 2; mask > 0; mask /= 2) {
        value += __shfl_xor_sync(all_lanes, value, mask);
    }
    return value;
}

/* Sums over the threads of a block with equal threadIdx.x, left in those with y = 0. All threads of
 * the block call it, once in a kernel; blockDim.y is a power of two. Half of the rows add the other
 * half to theirs until one is left. */
template <unsigned quantities>
__device__ inline void sum_over_rows(float (&sums)[quantities][group_values]) {
    NNC_SHARED(float, tile, [quantities * group_values][block_threads]);
    const unsigned self = threadIdx.y * blockDim.x + threadIdx.x;
    float *values = sums[0];
#pragma unroll
    for (unsigned lane = 0; lane < quantities * group_values; lane++) {
        tile[lane][self] = values[lane];
    }
    for (unsigned half = blockDim.y / 2; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.y < half) {
#pragma unroll
            for (unsigned lane = 0; lane < quantities * group_values; lane++) {
                values[lane] += tile[lane][self + half * blockDim.x];
                tile[lane][self] = values[lane];
            }
        }
    }
}

/* ---- host side ---- */

/* How a launch covers a tensor. */
struct cover {
    matrix shape;
    dim3 grid, block;
};

inline cover cover_of(const struct nnc_gpu_tensor *tensor, unsigned slabs_max) {
    cover made;
    const uint64_t rows = (uint64_t)tensor->n * tensor->h * tensor->w;
    assert(rows > 0 && rows < UINT32_MAX / 2 && tensor->stride % group_values == 0);
    made.shape.rows = (uint32_t)rows;
    made.shape.columns = tensor->stride / group_values;
    made.shape.channels = tensor->channels;
    made.shape.stride = tensor->stride;
    /* Whole warps along a row where that wastes no threads, 128 bytes at least. */
    unsigned x = warp_lanes;
    while (x > 1 && (x / 2 >= made.shape.columns || (x > 8 && made.shape.columns % x != 0))) {
        x /= 2;
    }
    unsigned y = block_threads / x;
    unsigned across = (made.shape.columns + x - 1) / x;
    unsigned down = (made.shape.rows + y - 1) / y;
    unsigned most = slabs_max / across > 0 ? slabs_max / across : 1;
    made.grid = dim3(across, down < most ? down : most);
    made.block = dim3(x, y);
    return made;
}

/* Blocks of a launch that only maps: several waves on the largest devices. */
constexpr unsigned map_blocks = 8192;
/* Blocks of a launch whose blocks each leave a partial sum. */
constexpr unsigned sum_blocks = 1024;

inline cover map_cover(const struct nnc_gpu_tensor *tensor) {
    return cover_of(tensor, map_blocks);
}

inline cover sum_cover(const struct nnc_gpu_tensor *tensor) {
    return cover_of(tensor, sum_blocks);
}

/* Blocks for `count` threads of a grid-stride loop. */
inline dim3 map_grid(size_t count) {
    const size_t blocks = (count + block_threads - 1) / block_threads;
    return dim3(blocks < map_blocks ? (unsigned)(blocks > 0 ? blocks : 1) : map_blocks);
}

inline size_t type_bytes(enum nnc_gpu_type type) {
    return type == NNC_GPU_F32 ? 4 : 2;
}

inline size_t tensor_values(const struct nnc_gpu_tensor *tensor) {
    return (size_t)tensor->n * tensor->h * tensor->w * tensor->stride;
}

inline size_t tensor_bytes(const struct nnc_gpu_tensor *tensor) {
    return tensor_values(tensor) * type_bytes(tensor->type);
}

/* Call launch(T()) with the type that `type` names. */
template <typename Launch> int with_type(enum nnc_gpu_type type, Launch launch) {
    switch (type) {
    case NNC_GPU_BF16:
        return launch(__nv_bfloat16());
    case NNC_GPU_F16:
        return launch(__half());
    default:
        return launch(float());
    }
}

} // namespace nnc

#endif
