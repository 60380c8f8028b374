/* SPDX-License-Identifier: Apache-2.0 */
/* Sums over rows, and batch normalisation on top of them.
 *
 *   sums:    blocks sum their slab of rows; sum_over_rows() adds a block's threads; each block
 * leaves one row of partial sums in scratch, [quantity][slab][stride] finish:  adds the slabs in
 * order, in double, and makes the result of each channel
 *
 * 1. Statistics sum x - k and (x - k)^2 with k a value of the channel (that of the middle row), so
 *    that a mean far from 0 costs no digits of the variance.
 * 2. Of padding channels mean and scale are 0, so that nothing grows there, whatever eps is.
 * 3. Bit i % 8 of byte i / 8 of the mask belongs to value i: a byte a group.
 *
 * Source: Ioffe, Szegedy, arXiv 1502.03167; torch.nn.BatchNorm2d; Chan, Golub, LeVeque, "Algorithms
 * for computing the sample variance", 1983 (shifted sums). */
#include "gpu/kernels_device.h"

#include <math.h>

using namespace nnc;

namespace {

constexpr unsigned finish_rows = 8;

/* The block's sums to its row of scratch. */
template <unsigned quantities>
__device__ inline void leave_sums(const matrix &shape, const place &at,
                                  float (&sums)[quantities][group_values], float *scratch) {
    sum_over_rows(sums);
    if (threadIdx.y > 0 || at.column >= shape.columns) {
        return;
    }
#pragma unroll
    for (unsigned quantity = 0; quantity < quantities; quantity++) {
        const size_t row = quantity * gridDim.y + blockIdx.y;
        store(scratch + row * shape.stride + at.channel, sums[quantity]);
    }
}

/* Finish: the sums of channel threadIdx.x of the block's 32, in the threads with y = 0. */
template <unsigned quantities>
__device__ inline void add_slabs(const matrix &shape, uint32_t slabs, uint32_t channel,
                                 const float *__restrict__ scratch,
                                 double (&ret_sums)[quantities]) {
    NNC_SHARED(double, tile, [quantities][finish_rows][warp_lanes]);
#pragma unroll
    for (unsigned quantity = 0; quantity < quantities; quantity++) {
        double sum = 0;
        for (uint32_t slab = threadIdx.y; channel < shape.stride && slab < slabs;
             slab += finish_rows) {
            sum += scratch[(size_t)(quantity * slabs + slab) * shape.stride + channel];
        }
        tile[quantity][threadIdx.y][threadIdx.x] = sum;
    }
    __syncthreads();
#pragma unroll
    for (unsigned quantity = 0; quantity < quantities; quantity++) {
        ret_sums[quantity] = 0;
        for (unsigned row = 0; row < finish_rows; row++) {
            ret_sums[quantity] += tile[quantity][row][threadIdx.x];
        }
    }
}

template <typename T>
__global__ void __launch_bounds__(block_threads, 1)
    statistics(matrix shape, const T *__restrict__ x, float *__restrict__ scratch) {
    const place at = place_of_thread();
    float sums[2][group_values] = {};
    if (at.column < shape.columns) {
        float shift[group_values];
        load(x + index_of(shape, at, shape.rows / 2), shift);
        for (uint32_t row = at.row; row < shape.rows; row += at.row_step) {
            float values[group_values];
            load(x + index_of(shape, at, row), values);
#pragma unroll
            for (unsigned lane = 0; lane < group_values; lane++) {
                const float distance = values[lane] - shift[lane];
                sums[0][lane] += distance;
                sums[1][lane] += distance * distance;
            }
        }
    }
    leave_sums(shape, at, sums, scratch);
}

__device__ inline float move_toward(float from, double to, float momentum) {
    return (float)((1.0 - momentum) * from + momentum * to);
}

template <typename T>
__global__ void __launch_bounds__(block_threads, 1)
    finish_statistics(matrix shape, uint32_t slabs, float eps, float momentum,
                      const T *__restrict__ x, const float *__restrict__ scratch,
                      float *__restrict__ running_mean, float *__restrict__ running_var,
                      float *__restrict__ mean, float *__restrict__ scale) {
    const uint32_t channel = blockIdx.x * warp_lanes + threadIdx.x;
    double sums[2];
    add_slabs(shape, slabs, channel, scratch, sums);
    if (threadIdx.y > 0 || channel >= shape.stride) {
        return;
    }
    if (channel >= shape.channels) {
        mean[channel] = 0;
        scale[channel] = 0;
        return;
    }
    const double count = shape.rows;
    const double shift = to_float(x[(size_t)(shape.rows / 2) * shape.stride + channel]);
    const double offset = sums[0] / count;
    const double squares = sums[1] - sums[0] * offset;
    /* Rounding may leave it below 0; NaN stays NaN: a broken run must show. */
    const double variance = squares < 0 ? 0 : squares / count;
    mean[channel] = (float)(shift + offset);
    scale[channel] = (float)(1 / sqrt(variance + eps));
    if (running_mean) {
        running_mean[channel] = move_toward(running_mean[channel], shift + offset, momentum);
    }
    if (running_var) {
        const double unbiased = count > 1 ? variance * count / (count - 1) : variance;
        running_var[channel] = move_toward(running_var[channel], unbiased, momentum);
    }
}

__global__ void __launch_bounds__(block_threads, 1)
    running_statistics(matrix shape, float eps, const float *__restrict__ running_mean,
                       const float *__restrict__ running_var, float *__restrict__ mean,
                       float *__restrict__ scale) {
    const uint32_t channel = blockIdx.x * blockDim.x + threadIdx.x;
    if (channel < shape.stride) {
        const bool real = channel < shape.channels;
        const float variance = real && running_var ? running_var[channel] : 1;
        mean[channel] = real && running_mean ? running_mean[channel] : 0;
        scale[channel] = real ? 1 / sqrtf(variance + eps) : 0;
    }
}

template <typename T>
__global__ void __launch_bounds__(block_threads, 1)
    norm_apply(matrix shape, bool relu, const float *__restrict__ weight,
               const float *__restrict__ bias, const float *__restrict__ mean,
               const float *__restrict__ scale, const T *x, const T *z, uint8_t *mask, T *y) {
    const place at = place_of_thread();
    if (at.column >= shape.columns) {
        return;
    }
    const unsigned real = real_channels(shape, at.channel);
    float means[group_values], factors[group_values], weights[group_values], biases[group_values];
    load(mean + at.channel, means);
    load(scale + at.channel, factors);
    load_some(weight ? weight + at.channel : nullptr, real, 1, weights);
    load_some(bias ? bias + at.channel : nullptr, real, 0, biases);
#pragma unroll
    for (unsigned lane = 0; lane < group_values; lane++) {
        factors[lane] *= weights[lane];
    }
    for (uint32_t row = at.row; row < shape.rows; row += at.row_step) {
        const size_t index = index_of(shape, at, row);
        float values[group_values];
        float others[group_values] = {};
        load(x + index, values);
        if (z) {
            load(z + index, others);
        }
        unsigned positive = 0;
#pragma unroll
        for (unsigned lane = 0; lane < group_values; lane++) {
            const float sum =
                (values[lane] - means[lane]) * factors[lane] + biases[lane] + others[lane];
            values[lane] = relu && sum < 0 ? 0 : sum;
            /* As it is stored: a small sum may round to 0. */
            positive |= (unsigned)(to_float(from_float<T>(values[lane])) > 0) << lane;
        }
        store(y + index, values);
        if (relu && mask) {
            mask[index / group_values] = (uint8_t)positive;
        }
    }
}

/* The gradient behind a ReLU: where `positive` has a bit. */
__device__ inline void apply_mask(unsigned positive, float (&values)[group_values]) {
#pragma unroll
    for (unsigned lane = 0; lane < group_values; lane++) {
        values[lane] = positive >> lane & 1 ? values[lane] : 0;
    }
}

/* Sums of d and of d * (x - mean). mask NULL: no ReLU. */
template <typename T>
__global__ void __launch_bounds__(block_threads, 1)
    norm_sums(matrix shape, const float *__restrict__ mean, const uint8_t *__restrict__ mask,
              const T *__restrict__ x, const T *__restrict__ dy, float *__restrict__ scratch) {
    const place at = place_of_thread();
    float sums[2][group_values] = {};
    if (at.column < shape.columns) {
        float means[group_values];
        load(mean + at.channel, means);
        for (uint32_t row = at.row; row < shape.rows; row += at.row_step) {
            const size_t index = index_of(shape, at, row);
            float values[group_values], gradients[group_values];
            load(x + index, values);
            load(dy + index, gradients);
            apply_mask(mask ? mask[index / group_values] : 0xffu, gradients);
#pragma unroll
            for (unsigned lane = 0; lane < group_values; lane++) {
                sums[0][lane] += gradients[lane];
                sums[1][lane] += gradients[lane] * (values[lane] - means[lane]);
            }
        }
    }
    leave_sums(shape, at, sums, scratch);
}

__global__ void __launch_bounds__(block_threads, 1)
    finish_norm_sums(matrix shape, uint32_t slabs, const float *__restrict__ scratch,
                     const float *__restrict__ scale, float *__restrict__ dweight,
                     float *__restrict__ dbias) {
    const uint32_t channel = blockIdx.x * warp_lanes + threadIdx.x;
    double sums[2];
    add_slabs(shape, slabs, channel, scratch, sums);
    if (threadIdx.y == 0 && channel < shape.stride) {
        if (dbias) {
            dbias[channel] = (float)sums[0];
        }
        if (dweight) {
            dweight[channel] = (float)(sums[1] * scale[channel]);
        }
    }
}

/* dx is finished before dz is read: they may be one tensor, and dz may be dy. */
template <typename T>
__global__ void __launch_bounds__(block_threads, 1)
    norm_backward(matrix shape, const float *__restrict__ weight, const float *__restrict__ mean,
                  const float *__restrict__ scale, const float *__restrict__ dweight,
                  const float *__restrict__ dbias, const uint8_t *__restrict__ mask, const T *x,
                  const T *dy, bool dx_accumulate, T *dx, bool dz_accumulate, T *dz) {
    const place at = place_of_thread();
    if (at.column >= shape.columns) {
        return;
    }
    /* dx = factor * (d - average - slope * (x - mean)) */
    float means[group_values], factors[group_values], averages[group_values], slopes[group_values];
    float weights[group_values];
    const unsigned real = real_channels(shape, at.channel);
    const float count_inverse = 1.0f / (float)shape.rows;
    load(mean + at.channel, means);
    load(scale + at.channel, factors);
    load(dbias + at.channel, averages);
    load(dweight + at.channel, slopes);
    load_some(weight ? weight + at.channel : nullptr, real, 1, weights);
#pragma unroll
    for (unsigned lane = 0; lane < group_values; lane++) {
        averages[lane] *= count_inverse;
        slopes[lane] *= factors[lane] * count_inverse;
        factors[lane] *= weights[lane];
    }
    for (uint32_t row = at.row; row < shape.rows; row += at.row_step) {
        const size_t index = index_of(shape, at, row);
        float gradients[group_values];
        load(dy + index, gradients);
        apply_mask(mask ? mask[index / group_values] : 0xffu, gradients);
        if (dx) {
            float values[group_values];
            load(x + index, values);
#pragma unroll
            for (unsigned lane = 0; lane < group_values; lane++) {
                const float removed = averages[lane] + slopes[lane] * (values[lane] - means[lane]);
                values[lane] = factors[lane] * (gradients[lane] - removed);
            }
            store(dx + index, values, dx_accumulate);
        }
        if (dz) {
            store(dz + index, gradients, dz_accumulate);
        }
    }
}

template <typename T>
__global__ void __launch_bounds__(block_threads, 1)
    bias_sums(matrix shape, const T *__restrict__ dy, float *__restrict__ scratch) {
    const place at = place_of_thread();
    float sums[1][group_values] = {};
    if (at.column < shape.columns) {
        for (uint32_t row = at.row; row < shape.rows; row += at.row_step) {
            float gradients[group_values];
            load(dy + index_of(shape, at, row), gradients);
#pragma unroll
            for (unsigned lane = 0; lane < group_values; lane++) {
                sums[0][lane] += gradients[lane];
            }
        }
    }
    leave_sums(shape, at, sums, scratch);
}

__global__ void __launch_bounds__(block_threads, 1)
    finish_bias_sums(matrix shape, uint32_t slabs, const float *__restrict__ scratch,
                     float *__restrict__ db) {
    const uint32_t channel = blockIdx.x * warp_lanes + threadIdx.x;
    double sums[1];
    add_slabs(shape, slabs, channel, scratch, sums);
    if (threadIdx.y == 0 && channel < shape.stride) {
        db[channel] = (float)sums[0];
    }
}

const dim3 finish_block(warp_lanes, finish_rows);

dim3 finish_grid(const cover &over) {
    return dim3((over.shape.stride + warp_lanes - 1) / warp_lanes);
}

/* Bytes of an fp32 array per channel, padding included; and of `quantities` partial sums. */
size_t stride_bytes(const cover &over) {
    return over.shape.stride * sizeof(float);
}

size_t scratch_bytes(const cover &over, unsigned quantities) {
    return quantities * over.grid.y * stride_bytes(over);
}

size_t mask_bytes(const struct nnc_gpu_tensor *shape) {
    return tensor_values(shape) / group_values;
}

} // namespace

size_t nnc_gpu_reduce_floats(const struct nnc_gpu_tensor *shape) {
    const cover over = sum_cover(shape);
    return scratch_bytes(over, 2) / sizeof(float);
}

int nnc_gpu_norm_statistics(cudaStream_t stream, const struct nnc_gpu_norm *norm, const void *x) {
    const cover over = sum_cover(&norm->shape);
    const size_t real_bytes = norm->shape.channels * sizeof(float);
    return with_type(norm->shape.type, [&](auto zero) {
        using T = decltype(zero);
        NNC_READS(x, tensor_bytes(&norm->shape));
        NNC_WRITES(norm->scratch, scratch_bytes(over, 2));
        int code = NNC_LAUNCH((statistics<T>), over.grid, over.block, stream, over.shape,
                              (const T *)x, norm->scratch);
        if (code < 0) {
            return code;
        }
        NNC_READS(x, tensor_bytes(&norm->shape));
        NNC_READS(norm->scratch, scratch_bytes(over, 2));
        NNC_READS(norm->running_mean, real_bytes);
        NNC_READS(norm->running_var, real_bytes);
        NNC_WRITES(norm->running_mean, real_bytes);
        NNC_WRITES(norm->running_var, real_bytes);
        NNC_WRITES(norm->mean, stride_bytes(over));
        NNC_WRITES(norm->scale, stride_bytes(over));
        return NNC_LAUNCH((finish_statistics<T>), finish_grid(over), finish_block, stream,
                          over.shape, over.grid.y, norm->eps, norm->momentum, (const T *)x,
                          (const float *)norm->scratch, norm->running_mean, norm->running_var,
                          norm->mean, norm->scale);
    });
}

int nnc_gpu_norm_running(cudaStream_t stream, const struct nnc_gpu_norm *norm) {
    const cover over = map_cover(&norm->shape);
    NNC_READS(norm->running_mean, norm->shape.channels * sizeof(float));
    NNC_READS(norm->running_var, norm->shape.channels * sizeof(float));
    NNC_WRITES(norm->mean, stride_bytes(over));
    NNC_WRITES(norm->scale, stride_bytes(over));
    return NNC_LAUNCH(running_statistics, map_grid(over.shape.stride), block_threads, stream,
                      over.shape, norm->eps, (const float *)norm->running_mean,
                      (const float *)norm->running_var, norm->mean, norm->scale);
}

int nnc_gpu_norm_apply(cudaStream_t stream, const struct nnc_gpu_norm *norm, enum nnc_gpu_act act,
                       const void *x, const void *z, void *ret_y) {
    assert(act == NNC_GPU_NONE || act == NNC_GPU_RELU);
    const struct nnc_gpu_tensor *shape = &norm->shape;
    const cover over = map_cover(shape);
    const bool relu = act == NNC_GPU_RELU;
    NNC_READS(norm->weight, shape->channels * sizeof(float));
    NNC_READS(norm->bias, shape->channels * sizeof(float));
    NNC_READS(norm->mean, stride_bytes(over));
    NNC_READS(norm->scale, stride_bytes(over));
    NNC_READS(x, tensor_bytes(shape));
    NNC_READS(z, tensor_bytes(shape));
    NNC_WRITES(norm->mask, relu ? mask_bytes(shape) : 0);
    NNC_WRITES(ret_y, tensor_bytes(shape));
    return with_type(shape->type, [&](auto zero) {
        using T = decltype(zero);
        return NNC_LAUNCH((norm_apply<T>), over.grid, over.block, stream, over.shape, relu,
                          norm->weight, norm->bias, (const float *)norm->mean,
                          (const float *)norm->scale, (const T *)x, (const T *)z,
                          (uint8_t *)norm->mask, (T *)ret_y);
    });
}

int nnc_gpu_norm_backward_sums(cudaStream_t stream, const struct nnc_gpu_norm *norm,
                               enum nnc_gpu_act act, const void *x, const void *dy,
                               float *ret_dweight, float *ret_dbias) {
    const struct nnc_gpu_tensor *shape = &norm->shape;
    const cover over = sum_cover(shape);
    const uint8_t *mask = act == NNC_GPU_RELU ? (const uint8_t *)norm->mask : nullptr;
    NNC_READS(norm->mean, stride_bytes(over));
    NNC_READS(mask, mask_bytes(shape));
    NNC_READS(x, tensor_bytes(shape));
    NNC_READS(dy, tensor_bytes(shape));
    NNC_WRITES(norm->scratch, scratch_bytes(over, 2));
    int code = with_type(shape->type, [&](auto zero) {
        using T = decltype(zero);
        return NNC_LAUNCH((norm_sums<T>), over.grid, over.block, stream, over.shape,
                          (const float *)norm->mean, mask, (const T *)x, (const T *)dy,
                          norm->scratch);
    });
    if (code < 0) {
        return code;
    }
    NNC_READS(norm->scratch, scratch_bytes(over, 2));
    NNC_READS(norm->scale, ret_dweight ? stride_bytes(over) : 0);
    NNC_WRITES(ret_dweight, stride_bytes(over));
    NNC_WRITES(ret_dbias, stride_bytes(over));
    return NNC_LAUNCH(finish_norm_sums, finish_grid(over), finish_block, stream, over.shape,
                      over.grid.y, (const float *)norm->scratch, (const float *)norm->scale,
                      ret_dweight, ret_dbias);
}

int nnc_gpu_norm_backward(cudaStream_t stream, const struct nnc_gpu_norm *norm,
                          const struct nnc_gpu_norm_backward *params) {
    const struct nnc_gpu_tensor *shape = &norm->shape;
    const cover over = map_cover(shape);
    const uint8_t *mask = params->act == NNC_GPU_RELU ? (const uint8_t *)norm->mask : nullptr;
    NNC_READS(norm->weight, shape->channels * sizeof(float));
    NNC_READS(norm->mean, stride_bytes(over));
    NNC_READS(norm->scale, stride_bytes(over));
    NNC_READS(params->dweight, stride_bytes(over));
    NNC_READS(params->dbias, stride_bytes(over));
    NNC_READS(mask, mask_bytes(shape));
    NNC_READS(params->x, params->dx ? tensor_bytes(shape) : 0);
    NNC_READS(params->dy, tensor_bytes(shape));
    NNC_READS(params->dx, params->dx_accumulate ? tensor_bytes(shape) : 0);
    NNC_READS(params->dz, params->dz_accumulate ? tensor_bytes(shape) : 0);
    NNC_WRITES(params->dx, tensor_bytes(shape));
    NNC_WRITES(params->dz, tensor_bytes(shape));
    return with_type(shape->type, [&](auto zero) {
        using T = decltype(zero);
        return NNC_LAUNCH((norm_backward<T>), over.grid, over.block, stream, over.shape,
                          norm->weight, (const float *)norm->mean, (const float *)norm->scale,
                          params->dweight, params->dbias, mask, (const T *)params->x,
                          (const T *)params->dy, params->dx_accumulate, (T *)params->dx,
                          params->dz_accumulate, (T *)params->dz);
    });
}

int nnc_gpu_bias_gradient(cudaStream_t stream, const struct nnc_gpu_tensor *shape, const void *dy,
                          float *scratch, float *ret_db) {
    const cover over = sum_cover(shape);
    NNC_READS(dy, tensor_bytes(shape));
    NNC_WRITES(scratch, scratch_bytes(over, 1));
    int code = with_type(shape->type, [&](auto zero) {
        using T = decltype(zero);
        return NNC_LAUNCH((bias_sums<T>), over.grid, over.block, stream, over.shape, (const T *)dy,
                          scratch);
    });
    if (code < 0) {
        return code;
    }
    NNC_READS(scratch, scratch_bytes(over, 1));
    NNC_WRITES(ret_db, stride_bytes(over));
    return NNC_LAUNCH(finish_bias_sums, finish_grid(over), finish_block, stream, over.shape,
                      over.grid.y, (const float *)scratch, ret_db);
}
