/* SPDX-License-Identifier: Apache-2.0 */
/* What the kernels share: the way threads cover a tensor, sums over rows, launches by type.
 *
 *   group    8 values of one row (kernels_values.h)
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
#include "gpu/kernels_values.h"

#include <assert.h>

namespace nnc {

/* A tensor as the kernels see it. */
struct matrix {
    uint32_t rows, columns; /* columns in groups */
    uint32_t channels, stride;
};

/* Of one thread: its column, its first channel, and its rows. */
struct place {
    uint32_t column, channel, row, row_step;
};

/* Where this thread works, in the grid of a cover. */
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

/* The sum over a warp, in all of its lanes. */
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

/* About slabs_max blocks at most, never more than there are rows for. */
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

/* Blocks of a launch that only maps: some waves on the largest devices, and still many rows a
 * thread, so that what it loads once for its channels counts little. */
constexpr unsigned map_blocks = 2048;
/* Blocks of a launch whose blocks each leave a partial sum. */
constexpr unsigned sum_blocks = 1024;

/* For kernels that write as much as they read. */
inline cover map_cover(const struct nnc_gpu_tensor *tensor) {
    return cover_of(tensor, map_blocks);
}

/* For kernels that leave partial sums. */
inline cover sum_cover(const struct nnc_gpu_tensor *tensor) {
    return cover_of(tensor, sum_blocks);
}

/* Blocks for `count` threads of a grid-stride loop. */
inline dim3 map_grid(size_t count) {
    const size_t blocks = (count + block_threads - 1) / block_threads;
    return dim3(blocks < map_blocks ? (unsigned)(blocks > 0 ? blocks : 1) : map_blocks);
}

/* Bytes of a value. */
inline size_t type_bytes(enum nnc_gpu_type type) {
    return type == NNC_GPU_F32 ? 4 : 2;
}

/* Padding included. */
inline size_t tensor_values(const struct nnc_gpu_tensor *tensor) {
    return (size_t)tensor->n * tensor->h * tensor->w * tensor->stride;
}

/* Padding included. */
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
