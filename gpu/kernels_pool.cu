/* SPDX-License-Identifier: Apache-2.0 */
/* Pooling. Forward a thread makes 8 channels of an output place from its window, backward 8
 * channels of an input place from the windows that hold it: both gather, nothing is added from two
 * sides.
 *
 *   window of output p:    inputs  p*stride - pad ... + r          adaptive: floor(pH/P) ..
 * ceil((p+1)H/P) windows that hold h:   outputs ceil((h+pad-r+1)/stride) ..     adaptive:
 * floor(hP/H) .. ceil((h+1)P/H) floor((h+pad)/stride)
 *
 * Source: torch.nn.MaxPool2d, AvgPool2d, AdaptiveAvgPool2d. */
#include "gpu/kernels_device.h"

#include <math.h>

using namespace nnc;

namespace {

/* Half-open; in one dimension. */
struct span {
    int begin, end;
};

/* One dimension of a pooling: sizes of input and output, window, stride, padding. */
struct axis {
    int in, out, size, stride, pad;
};

__device__ inline axis axis_h(const struct nnc_gpu_pool &pool) {
    return axis{(int)pool.x.h, (int)pool.y.h, (int)pool.r, (int)pool.stride_h, (int)pool.pad_h};
}

__device__ inline axis axis_w(const struct nnc_gpu_pool &pool) {
    return axis{(int)pool.x.w, (int)pool.y.w, (int)pool.s, (int)pool.stride_w, (int)pool.pad_w};
}

/* Place `at` of `from` equal parts of `to` places: the places it touches. */
__device__ inline span adaptive_span(int at, int from, int to) {
    return span{(int)((int64_t)at * to / from), (int)(((int64_t)(at + 1) * to + from - 1) / from)};
}

/* Inputs under output `at`, inside the image. */
__device__ inline span inputs_of(const axis &dim, int at, bool adaptive) {
    if (adaptive) {
        return adaptive_span(at, dim.out, dim.in);
    }
    const int begin = at * dim.stride - dim.pad;
    return span{max(begin, 0), min(begin + dim.size, dim.in)};
}

/* Outputs whose window holds input `at`. */
__device__ inline span outputs_of(const axis &dim, int at, bool adaptive) {
    if (adaptive) {
        return adaptive_span(at, dim.in, dim.out);
    }
    const int last = at + dim.pad;
    const int first = last - dim.size + dim.stride; /* rounds up what follows */
    return span{first > 0 ? first / dim.stride : 0, min(last / dim.stride + 1, dim.out)};
}

/* Values that a mean over the window of output `at` is divided by, in one dimension. */
__device__ inline int divisor_of(const axis &dim, int at, bool adaptive) {
    const span window = inputs_of(dim, at, true);
    return adaptive ? window.end - window.begin : dim.size;
}

/* A row of a tensor taken apart. */
struct pixel {
    uint32_t n;
    int h, w;
};

__device__ inline pixel pixel_of(const struct nnc_gpu_tensor &tensor, uint32_t row) {
    return pixel{row / tensor.w / tensor.h, (int)(row / tensor.w % tensor.h),
                 (int)(row % tensor.w)};
}

/* Index of channel `channel` at a pixel. */
__device__ inline size_t index_at(const struct nnc_gpu_tensor &tensor, uint32_t n, int h, int w,
                                  uint32_t channel) {
    return ((size_t)(n * tensor.h + h) * tensor.w + w) * tensor.stride + channel;
}

/* The maximum so far and its number in the window. Of several maxima the first stays, but a NaN
 * always wins, as in PyTorch. */
struct maxima {
    float value[group_values];
    uint32_t place[group_values];
};

__device__ inline void take_maxima(const float (&values)[group_values], uint32_t place,
                                   maxima &best) {
#pragma unroll
    for (unsigned lane = 0; lane < group_values; lane++) {
        const bool better = values[lane] > best.value[lane] || isnan(values[lane]);
        best.value[lane] = better ? values[lane] : best.value[lane];
        best.place[lane] = better ? place : best.place[lane];
    }
}

__device__ inline void store_places(uint8_t *to, const maxima &best) {
    uint32_t bytes[2] = {};
#pragma unroll
    for (unsigned lane = 0; lane < group_values; lane++) {
        bytes[lane / 4] |= best.place[lane] << lane % 4 * 8;
    }
    *reinterpret_cast<uint2 *>(to) = make_uint2(bytes[0], bytes[1]);
}

template <typename T>
__global__ void __launch_bounds__(block_threads, 1)
    maxpool(matrix shape, struct nnc_gpu_pool pool, const T *__restrict__ x,
            uint8_t *__restrict__ places, T *__restrict__ y) {
    const place at = place_of_thread();
    if (at.column >= shape.columns) {
        return;
    }
    for (uint32_t row = at.row; row < shape.rows; row += at.row_step) {
        const pixel out = pixel_of(pool.y, row);
        const span rows = inputs_of(axis_h(pool), out.h, false);
        const span columns = inputs_of(axis_w(pool), out.w, false);
        /* Numbers in the window count its padding too. */
        const int origin_h = out.h * (int)pool.stride_h - (int)pool.pad_h;
        const int origin_w = out.w * (int)pool.stride_w - (int)pool.pad_w;
        maxima best;
#pragma unroll
        for (unsigned lane = 0; lane < group_values; lane++) {
            best.value[lane] = -INFINITY;
            best.place[lane] = (rows.begin - origin_h) * pool.s + (columns.begin - origin_w);
        }
        for (int h = rows.begin; h < rows.end; h++) {
            for (int w = columns.begin; w < columns.end; w++) {
                float values[group_values];
                load(x + index_at(pool.x, out.n, h, w, at.channel), values);
                take_maxima(values, (h - origin_h) * pool.s + (w - origin_w), best);
            }
        }
        const size_t index = index_of(shape, at, row);
        store(y + index, best.value);
        if (places) {
            store_places(places + index, best);
        }
    }
}

/* Add the gradients of one window whose place is `wanted`. */
template <typename T>
__device__ inline void add_chosen(const T *dy, const uint8_t *places, uint32_t wanted,
                                  float (&sums)[group_values]) {
    const uint2 bytes = *reinterpret_cast<const uint2 *>(places);
    float gradients[group_values];
    load(dy, gradients);
#pragma unroll
    for (unsigned lane = 0; lane < group_values; lane++) {
        const uint32_t word = lane < 4 ? bytes.x : bytes.y;
        sums[lane] += (word >> lane % 4 * 8 & 0xff) == wanted ? gradients[lane] : 0;
    }
}

template <typename T>
__global__ void __launch_bounds__(block_threads, 1)
    maxpool_backward(matrix shape, struct nnc_gpu_pool pool, const uint8_t *__restrict__ places,
                     const T *__restrict__ dy, bool accumulate, T *__restrict__ dx) {
    const place at = place_of_thread();
    if (at.column >= shape.columns) {
        return;
    }
    for (uint32_t row = at.row; row < shape.rows; row += at.row_step) {
        const pixel in = pixel_of(pool.x, row);
        const span rows = outputs_of(axis_h(pool), in.h, false);
        const span columns = outputs_of(axis_w(pool), in.w, false);
        float sums[group_values] = {};
        for (int p = rows.begin; p < rows.end; p++) {
            for (int q = columns.begin; q < columns.end; q++) {
                const size_t out = index_at(pool.y, in.n, p, q, at.channel);
                const int r = in.h + (int)pool.pad_h - p * (int)pool.stride_h;
                const int s = in.w + (int)pool.pad_w - q * (int)pool.stride_w;
                add_chosen(dy + out, places + out, r * pool.s + s, sums);
            }
        }
        store(dx + index_of(shape, at, row), sums, accumulate);
    }
}

template <typename T>
__global__ void __launch_bounds__(block_threads, 1)
    avgpool(matrix shape, struct nnc_gpu_pool pool, const T *__restrict__ x, T *__restrict__ y) {
    const place at = place_of_thread();
    if (at.column >= shape.columns) {
        return;
    }
    for (uint32_t row = at.row; row < shape.rows; row += at.row_step) {
        const pixel out = pixel_of(pool.y, row);
        const span rows = inputs_of(axis_h(pool), out.h, pool.adaptive);
        const span columns = inputs_of(axis_w(pool), out.w, pool.adaptive);
        const int divisor = divisor_of(axis_h(pool), out.h, pool.adaptive) *
                            divisor_of(axis_w(pool), out.w, pool.adaptive);
        float sums[group_values] = {};
        for (int h = rows.begin; h < rows.end; h++) {
            for (int w = columns.begin; w < columns.end; w++) {
                float values[group_values];
                load(x + index_at(pool.x, out.n, h, w, at.channel), values);
#pragma unroll
                for (unsigned lane = 0; lane < group_values; lane++) {
                    sums[lane] += values[lane];
                }
            }
        }
#pragma unroll
        for (unsigned lane = 0; lane < group_values; lane++) {
            sums[lane] /= (float)divisor;
        }
        store(y + index_of(shape, at, row), sums);
    }
}

template <typename T>
__global__ void __launch_bounds__(block_threads, 1)
    avgpool_backward(matrix shape, struct nnc_gpu_pool pool, const T *__restrict__ dy,
                     bool accumulate, T *__restrict__ dx) {
    const place at = place_of_thread();
    if (at.column >= shape.columns) {
        return;
    }
    for (uint32_t row = at.row; row < shape.rows; row += at.row_step) {
        const pixel in = pixel_of(pool.x, row);
        const span rows = outputs_of(axis_h(pool), in.h, pool.adaptive);
        const span columns = outputs_of(axis_w(pool), in.w, pool.adaptive);
        float sums[group_values] = {};
        for (int p = rows.begin; p < rows.end; p++) {
            for (int q = columns.begin; q < columns.end; q++) {
                const float share = 1.0f / (float)(divisor_of(axis_h(pool), p, pool.adaptive) *
                                                   divisor_of(axis_w(pool), q, pool.adaptive));
                float gradients[group_values];
                load(dy + index_at(pool.y, in.n, p, q, at.channel), gradients);
#pragma unroll
                for (unsigned lane = 0; lane < group_values; lane++) {
                    sums[lane] += gradients[lane] * share;
                }
            }
        }
        store(dx + index_of(shape, at, row), sums, accumulate);
    }
}

} // namespace

int nnc_gpu_maxpool(cudaStream_t stream, const struct nnc_gpu_pool *pool, const void *x,
                    uint8_t *ret_place, void *ret_y) {
    assert(pool->r * pool->s <= 256 && !pool->adaptive);
    const cover over = map_cover(&pool->y);
    NNC_READS(x, tensor_bytes(&pool->x));
    NNC_WRITES(ret_place, tensor_values(&pool->y));
    NNC_WRITES(ret_y, tensor_bytes(&pool->y));
    return with_type(pool->y.type, [&](auto zero) {
        using T = decltype(zero);
        return NNC_LAUNCH((maxpool<T>), over.grid, over.block, stream, over.shape, *pool,
                          (const T *)x, ret_place, (T *)ret_y);
    });
}

int nnc_gpu_maxpool_backward(cudaStream_t stream, const struct nnc_gpu_pool *pool,
                             const uint8_t *place, const void *dy, bool accumulate, void *dx) {
    const cover over = map_cover(&pool->x);
    NNC_READS(place, tensor_values(&pool->y));
    NNC_READS(dy, tensor_bytes(&pool->y));
    NNC_READS(dx, accumulate ? tensor_bytes(&pool->x) : 0);
    NNC_WRITES(dx, tensor_bytes(&pool->x));
    return with_type(pool->x.type, [&](auto zero) {
        using T = decltype(zero);
        return NNC_LAUNCH((maxpool_backward<T>), over.grid, over.block, stream, over.shape, *pool,
                          place, (const T *)dy, accumulate, (T *)dx);
    });
}

int nnc_gpu_avgpool(cudaStream_t stream, const struct nnc_gpu_pool *pool, const void *x,
                    void *ret_y) {
    const cover over = map_cover(&pool->y);
    NNC_READS(x, tensor_bytes(&pool->x));
    NNC_WRITES(ret_y, tensor_bytes(&pool->y));
    return with_type(pool->y.type, [&](auto zero) {
        using T = decltype(zero);
        return NNC_LAUNCH((avgpool<T>), over.grid, over.block, stream, over.shape, *pool,
                          (const T *)x, (T *)ret_y);
    });
}

int nnc_gpu_avgpool_backward(cudaStream_t stream, const struct nnc_gpu_pool *pool, const void *dy,
                             bool accumulate, void *dx) {
    const cover over = map_cover(&pool->x);
    NNC_READS(dy, tensor_bytes(&pool->y));
    NNC_READS(dx, accumulate ? tensor_bytes(&pool->x) : 0);
    NNC_WRITES(dx, tensor_bytes(&pool->x));
    return with_type(pool->x.type, [&](auto zero) {
        using T = decltype(zero);
        return NNC_LAUNCH((avgpool_backward<T>), over.grid, over.block, stream, over.shape, *pool,
                          (const T *)dy, accumulate, (T *)dx);
    });
}
