/* SPDX-License-Identifier: Apache-2.0 */
/* Kernels that handle each value alone: input, activations, additions, dropout, changes of type.
 *
 * Where in and out may be the same memory there is no __restrict__: a thread reads its group before
 * it writes it, and no other thread touches that group.
 *
 * Source: torchvision's ToTensor and Normalize; workers/dropout.h and base/rng.c (Philox). */
#include "gpu/kernels_device.h"

#include <math.h>

using namespace nnc;

namespace {

/* A pixel a thread. */
__global__ void __launch_bounds__(block_threads, 1)
    input_u8(struct nnc_gpu_tensor shape, uint32_t pixels, size_t sample_stride, float4 scale,
             float4 shift, const uint8_t *__restrict__ images, void *__restrict__ y) {
    const uint32_t plane = shape.h * shape.w;
    const float scales[4] = {scale.x, scale.y, scale.z, scale.w};
    const float shifts[4] = {shift.x, shift.y, shift.z, shift.w};
    const uint32_t step = gridDim.x * blockDim.x;
    for (uint32_t pixel = blockIdx.x * blockDim.x + threadIdx.x; pixel < pixels; pixel += step) {
        const uint8_t *from =
            images + pixel / plane * sample_stride + (size_t)(pixel % plane) * shape.channels;
        float values[group_values] = {};
#pragma unroll
        for (unsigned c = 0; c < 4; c++) {
            values[c] = c < shape.channels ? from[c] * scales[c] + shifts[c] : 0.0f;
        }
        store_as(shape.type, y, (size_t)pixel * shape.stride, values);
    }
}

__device__ inline float act_of(enum nnc_gpu_act act, float value) {
    switch (act) {
    case NNC_GPU_RELU:
        return value < 0 ? 0 : value; /* NaN stays NaN: a broken run must show */
    case NNC_GPU_SIGMOID:
        return 1 / (1 + expf(-value));
    case NNC_GPU_TANH:
        return tanhf(value);
    default:
        return value;
    }
}

/* dy times the derivative, which is a function of the result y. */
__device__ inline float undo_act(enum nnc_gpu_act act, float y, float dy) {
    switch (act) {
    case NNC_GPU_RELU:
        return y > 0 ? dy : 0;
    case NNC_GPU_SIGMOID:
        return dy * y * (1 - y);
    case NNC_GPU_TANH:
        return dy * (1 - y * y);
    default:
        return dy;
    }
}

template <typename T>
__global__ void __launch_bounds__(block_threads, 1)
    pointwise(matrix shape, enum nnc_gpu_act act, const T *x, const T *z,
              const float *__restrict__ bias, T *y) {
    const place at = place_of_thread();
    if (at.column >= shape.columns) {
        return;
    }
    const unsigned real = real_channels(shape, at.channel);
    float biases[group_values];
    load_some(bias ? bias + at.channel : nullptr, real, 0, biases);
    for (uint32_t row = at.row; row < shape.rows; row += at.row_step) {
        const size_t index = index_of(shape, at, row);
        float values[group_values];
        float others[group_values] = {};
        load(x + index, values);
        if (z) {
            load(z + index, others);
        }
#pragma unroll
        for (unsigned lane = 0; lane < group_values; lane++) {
            /* Padding stays 0 although sigmoid(0) is not. */
            const float sum = values[lane] + others[lane] + biases[lane];
            values[lane] = lane < real ? act_of(act, sum) : 0;
        }
        store(y + index, values);
    }
}

template <typename T>
__global__ void __launch_bounds__(block_threads, 1)
    act_backward(matrix shape, enum nnc_gpu_act act, const T *y, const T *dy, bool accumulate,
                 T *dx) {
    const place at = place_of_thread();
    if (at.column >= shape.columns) {
        return;
    }
    for (uint32_t row = at.row; row < shape.rows; row += at.row_step) {
        const size_t index = index_of(shape, at, row);
        float results[group_values];
        float gradients[group_values];
        load(dy + index, gradients);
        if (act != NNC_GPU_NONE) {
            load(y + index, results);
#pragma unroll
            for (unsigned lane = 0; lane < group_values; lane++) {
                gradients[lane] = undo_act(act, results[lane], gradients[lane]);
            }
        }
        store(dx + index, gradients, accumulate);
    }
}

/* One of the four words of a Philox block; the rounds are base/rng.c's. */
__device__ inline uint32_t philox_word(uint32_t step, uint32_t node, uint32_t sample,
                                       uint32_t feature, uint32_t key_0, uint32_t key_1) {
    uint32_t word[4] = {step, node, sample, feature / 4};
    for (int round = 0; round < 10; round++) {
        const uint64_t product_0 = (uint64_t)0xD2511F53u * word[0];
        const uint64_t product_1 = (uint64_t)0xCD9E8D57u * word[2];
        word[0] = (uint32_t)(product_1 >> 32) ^ word[1] ^ key_0;
        word[1] = (uint32_t)product_1;
        word[2] = (uint32_t)(product_0 >> 32) ^ word[3] ^ key_1;
        word[3] = (uint32_t)product_0;
        key_0 += 0x9E3779B9u;
        key_1 += 0xBB67AE85u;
    }
    const uint32_t low = feature % 2 ? word[1] : word[0];
    const uint32_t high = feature % 2 ? word[3] : word[2];
    return feature % 4 < 2 ? low : high;
}

/* Neighbours in a group share a block of words only where h * w = 1; elsewhere each has its own,
 * and one loop for both is short. */
template <typename T>
__global__ void __launch_bounds__(block_threads, 1)
    dropout_mask(matrix shape, uint32_t plane, struct nnc_gpu_dropout dropout,
                 const struct nnc_gpu_step *__restrict__ step, const T *x, bool accumulate, T *y) {
    const place at = place_of_thread();
    if (at.column >= shape.columns) {
        return;
    }
    for (uint32_t row = at.row; row < shape.rows; row += at.row_step) {
        const uint32_t sample = step->first + row / plane;
        uint32_t kept = 0;
#pragma unroll 1
        for (unsigned lane = 0; lane < group_values; lane++) {
            const uint32_t feature = (at.channel + lane) * plane + row % plane;
            const uint32_t word = philox_word(step->step, dropout.node, sample, feature,
                                              dropout.key[0], dropout.key[1]);
            kept |= (uint32_t)(word >= dropout.threshold) << lane;
        }
        const size_t index = index_of(shape, at, row);
        float values[group_values];
        load(x + index, values);
#pragma unroll
        for (unsigned lane = 0; lane < group_values; lane++) {
            values[lane] *= kept >> lane & 1 ? dropout.scale : 0; /* a dropped NaN stays one */
        }
        store(y + index, values, accumulate);
    }
}

/* count values in a row, no matter what they belong to. */
template <typename From, typename To>
__global__ void __launch_bounds__(block_threads, 1)
    convert(size_t count, const From *__restrict__ from, To *__restrict__ to) {
    const size_t step = (size_t)gridDim.x * blockDim.x * group_values;
    size_t index = ((size_t)blockIdx.x * blockDim.x + threadIdx.x) * group_values;
    for (; index < count; index += step) {
        float values[group_values];
        if (count - index >= group_values) {
            load(from + index, values);
            store(to + index, values);
        } else {
            load_some(from + index, (unsigned)(count - index), 0, values);
            store_some(to + index, (unsigned)(count - index), values);
        }
    }
}

template <typename From, typename To>
int queue_convert(cudaStream_t stream, size_t count, const From *from, To *to) {
    NNC_READS(from, count * sizeof(*from));
    NNC_WRITES(to, count * sizeof(*to));
    const dim3 grid = map_grid((count + group_values - 1) / group_values);
    return NNC_LAUNCH((convert<From, To>), grid, block_threads, stream, count, from, to);
}

} // namespace

int nnc_gpu_input(cudaStream_t stream, const struct nnc_gpu_input *params, void *ret_y) {
    const struct nnc_gpu_tensor *shape = &params->y;
    const uint32_t plane = shape->h * shape->w;
    assert(shape->channels <= 4);
    const float *scale = params->scale;
    const float *shift = params->shift;
    NNC_READS(params->images,
              (shape->n - 1) * params->sample_stride + (size_t)plane * shape->channels);
    NNC_WRITES(ret_y, tensor_bytes(shape));
    return NNC_LAUNCH(input_u8, map_grid((size_t)shape->n * plane), block_threads, stream, *shape,
                      shape->n * plane, params->sample_stride,
                      make_float4(scale[0], scale[1], scale[2], scale[3]),
                      make_float4(shift[0], shift[1], shift[2], shift[3]), params->images, ret_y);
}

int nnc_gpu_pointwise(cudaStream_t stream, const struct nnc_gpu_tensor *shape, enum nnc_gpu_act act,
                      const void *x, const void *z, const float *bias, void *ret_y) {
    const cover over = map_cover(shape);
    NNC_READS(x, tensor_bytes(shape));
    NNC_READS(z, tensor_bytes(shape));
    NNC_READS(bias, shape->channels * sizeof(*bias));
    NNC_WRITES(ret_y, tensor_bytes(shape));
    return with_type(shape->type, [&](auto zero) {
        using T = decltype(zero);
        return NNC_LAUNCH((pointwise<T>), over.grid, over.block, stream, over.shape, act,
                          (const T *)x, (const T *)z, bias, (T *)ret_y);
    });
}

int nnc_gpu_act_backward(cudaStream_t stream, const struct nnc_gpu_tensor *shape,
                         enum nnc_gpu_act act, const void *y, const void *dy, bool accumulate,
                         void *dx) {
    const cover over = map_cover(shape);
    NNC_READS(y, act == NNC_GPU_NONE ? 0 : tensor_bytes(shape));
    NNC_READS(dy, tensor_bytes(shape));
    NNC_READS(dx, accumulate ? tensor_bytes(shape) : 0);
    NNC_WRITES(dx, tensor_bytes(shape));
    return with_type(shape->type, [&](auto zero) {
        using T = decltype(zero);
        return NNC_LAUNCH((act_backward<T>), over.grid, over.block, stream, over.shape, act,
                          (const T *)y, (const T *)dy, accumulate, (T *)dx);
    });
}

int nnc_gpu_accumulate(cudaStream_t stream, const struct nnc_gpu_tensor *shape, const void *dy,
                       bool accumulate, void *dx) {
    return nnc_gpu_act_backward(stream, shape, NNC_GPU_NONE, nullptr, dy, accumulate, dx);
}

int nnc_gpu_dropout(cudaStream_t stream, const struct nnc_gpu_tensor *shape,
                    const struct nnc_gpu_dropout *dropout, const struct nnc_gpu_step *step,
                    const void *x, bool accumulate, void *y) {
    const cover over = map_cover(shape);
    NNC_READS(step, sizeof(*step));
    NNC_READS(x, tensor_bytes(shape));
    NNC_READS(y, accumulate ? tensor_bytes(shape) : 0);
    NNC_WRITES(y, tensor_bytes(shape));
    return with_type(shape->type, [&](auto zero) {
        using T = decltype(zero);
        return NNC_LAUNCH((dropout_mask<T>), over.grid, over.block, stream, over.shape,
                          shape->h * shape->w, *dropout, step, (const T *)x, accumulate, (T *)y);
    });
}

int nnc_gpu_cast(cudaStream_t stream, enum nnc_gpu_type type, const float *values, size_t count,
                 void *ret_copy) {
    return with_type(type, [&](auto zero) {
        return queue_convert(stream, count, values, (decltype(zero) *)ret_copy);
    });
}

int nnc_gpu_to_float(cudaStream_t stream, enum nnc_gpu_type type, const void *values, size_t count,
                     float *ret_floats) {
    return with_type(type, [&](auto zero) {
        return queue_convert(stream, count, (const decltype(zero) *)values, ret_floats);
    });
}
