/* SPDX-License-Identifier: Apache-2.0 */
/* Losses: a warp a row of logits. K classes, t the target distribution, s the label smoothing:
 *
 *   cross-entropy  t = (1-s)*onehot + s/K;  loss = -sum t*log p;  dx = (p - t) * factor
 *   squared        loss = sum (x - onehot)^2;  dx = 2*(x - onehot) * factor
 *
 * With m the largest logit and e = log(sum of exp(x - m)), -log p[k] = e + m - x[k]; so
 * loss = (1-s) * (e + m - x[label]) + s * (e + sum(m - x) / K).
 *
 * A row whose label names no class adds nothing and has gradient 0.
 * Source: torch.nn.CrossEntropyLoss with class indices. */
#include "gpu/kernels_device.h"

#include <math.h>

using namespace nnc;

namespace {

constexpr unsigned warps = block_threads / warp_lanes;

/* The warp's row; rows for whole warps alone, so that shuffles always find 32 lanes. */
__device__ inline uint32_t row_of_warp() {
    return blockIdx.x * warps + threadIdx.x / warp_lanes;
}

/* Call visit(class, logit) for each class of a row that is this lane's. */
template <typename T, typename Visit>
__device__ inline void each_class(const matrix &shape, const T *row, Visit visit) {
    for (uint32_t column = threadIdx.x % warp_lanes; column < shape.columns; column += warp_lanes) {
        float values[group_values];
        load(row + column * group_values, values);
#pragma unroll
        for (unsigned lane = 0; lane < group_values; lane++) {
            const uint32_t k = column * group_values + lane;
            if (k < shape.channels) {
                visit(k, values[lane]);
            }
        }
    }
}

/* What a row's softmax needs: largest logit, sum of exp(x - largest); the same in all lanes. */
struct softmax {
    float largest, sum;
};

template <typename T> __device__ inline softmax softmax_of(const matrix &shape, const T *row) {
    softmax made = {-INFINITY, 0};
    each_class(shape, row, [&](uint32_t, float x) { made.largest = fmaxf(made.largest, x); });
    for (unsigned mask = warp_lanes / 2; mask > 0; mask /= 2) {
        made.largest = fmaxf(made.largest, __shfl_xor_sync(all_lanes, made.largest, mask));
    }
    /* fmaxf() passes over NaN, expf() does not. */
    each_class(shape, row, [&](uint32_t, float x) { made.sum += expf(x - made.largest); });
    made.sum = warp_sum(made.sum);
    return made;
}

/* Classes that come before the label when sorted by logit: ties count for the lower class, a NaN at
 * the label comes last. */
template <typename T>
__device__ inline uint32_t rank_of(const matrix &shape, const T *row, uint32_t label) {
    const float own = to_float(row[label]);
    uint32_t before = 0;
    each_class(shape, row, [&](uint32_t k, float x) {
        const bool behind = x < own || (x == own && k >= label);
        before += !behind;
    });
    return warp_sum(before);
}

template <typename T>
__device__ inline float cross_entropy(const matrix &shape, const T *row, uint32_t label,
                                      float smoothing) {
    const softmax soft = softmax_of(shape, row);
    const float log_sum = logf(soft.sum);
    float below = 0; /* sum of largest - x */
    each_class(shape, row, [&](uint32_t, float x) { below += soft.largest - x; });
    below = warp_sum(below);
    return (1 - smoothing) * (log_sum + (soft.largest - to_float(row[label]))) +
           smoothing * (log_sum + below / (float)shape.channels);
}

template <typename T>
__device__ inline float squared_error(const matrix &shape, const T *row, uint32_t label) {
    float sum = 0;
    each_class(shape, row, [&](uint32_t k, float x) {
        const float distance = x - (k == label ? 1.0f : 0.0f);
        sum += distance * distance;
    });
    return warp_sum(sum);
}

/* results[row] = {loss, 1 when there is a label, 1 when first, 1 when among the first five} */
template <typename T>
__global__ void __launch_bounds__(block_threads, 1)
    row_losses(matrix shape, bool squared, float smoothing, const T *__restrict__ logits,
               const int32_t *__restrict__ labels, float *__restrict__ results) {
    const uint32_t row = row_of_warp();
    if (row >= shape.rows) {
        return;
    }
    const T *x = logits + (size_t)row * shape.stride;
    const uint32_t label = (uint32_t)labels[row];
    float4 result = {};
    if (label < shape.channels) {
        const uint32_t rank = rank_of(shape, x, label);
        result.x =
            squared ? squared_error(shape, x, label) : cross_entropy(shape, x, label, smoothing);
        result.y = 1;
        result.z = rank < 1;
        result.w = rank < 5;
    }
    if (threadIdx.x % warp_lanes == 0) {
        reinterpret_cast<float4 *>(results)[row] = result;
    }
}

/* One warp: lane l adds rows l, l + 32, ...; then the lanes are added. */
__global__ void __launch_bounds__(warp_lanes)
    add_metrics(uint32_t rows, const float *__restrict__ results,
                struct nnc_gpu_metrics *__restrict__ metrics) {
    double loss = 0;
    uint32_t count = 0, first = 0, among_five = 0;
    for (uint32_t row = threadIdx.x; row < rows; row += warp_lanes) {
        const float4 result = reinterpret_cast<const float4 *>(results)[row];
        loss += result.x;
        count += (uint32_t)result.y;
        first += (uint32_t)result.z;
        among_five += (uint32_t)result.w;
    }
    loss = warp_sum(loss);
    count = warp_sum(count);
    first = warp_sum(first);
    among_five = warp_sum(among_five);
    if (threadIdx.x == 0) {
        metrics->loss_sum += loss;
        metrics->count += count;
        metrics->left_out += rows - count;
        metrics->correct1 += first;
        metrics->correct5 += among_five;
    }
}

template <typename T>
__global__ void __launch_bounds__(block_threads, 1)
    loss_backward(matrix shape, bool squared, float smoothing, const T *__restrict__ logits,
                  const int32_t *__restrict__ labels, const struct nnc_gpu_step *__restrict__ step,
                  const struct nnc_gpu_scaler *__restrict__ scaler, T *__restrict__ dlogits) {
    const uint32_t row = row_of_warp();
    if (row >= shape.rows) {
        return;
    }
    const T *x = logits + (size_t)row * shape.stride;
    T *dx = dlogits + (size_t)row * shape.stride;
    const uint32_t label = (uint32_t)labels[row];
    const bool labelled = label < shape.channels;
    const float factor = step->gradient_scale * scaler->scale;
    const float rest = smoothing / (float)shape.channels;
    softmax soft = {};
    if (labelled && !squared) {
        soft = softmax_of(shape, x);
    }
    for (uint32_t column = threadIdx.x % warp_lanes; column < shape.columns; column += warp_lanes) {
        float values[group_values];
        load(x + column * group_values, values);
#pragma unroll
        for (unsigned lane = 0; lane < group_values; lane++) {
            const uint32_t k = column * group_values + lane;
            const float onehot = k == label ? 1 : 0;
            const float target = (1 - smoothing) * onehot + rest;
            const float gradient = squared ? 2 * (values[lane] - onehot)
                                           : expf(values[lane] - soft.largest) / soft.sum - target;
            values[lane] = labelled && k < shape.channels ? gradient * factor : 0;
        }
        store(dx + column * group_values, values);
    }
}

/* Rows and columns of logits, and a grid of one warp a row. */
cover row_cover(const struct nnc_gpu_tensor *logits) {
    cover over = map_cover(logits);
    over.grid = dim3((over.shape.rows + warps - 1) / warps);
    over.block = dim3(block_threads);
    return over;
}

} // namespace

int nnc_gpu_loss(cudaStream_t stream, const struct nnc_gpu_loss *loss, const void *logits,
                 struct nnc_gpu_metrics *metrics) {
    const cover over = row_cover(&loss->logits);
    const uint32_t rows = over.shape.rows;
    NNC_READS(logits, tensor_bytes(&loss->logits));
    NNC_READS(loss->labels, rows * sizeof(*loss->labels));
    NNC_WRITES(loss->scratch, rows * sizeof(float4));
    int code = with_type(loss->logits.type, [&](auto zero) {
        using T = decltype(zero);
        return NNC_LAUNCH((row_losses<T>), over.grid, over.block, stream, over.shape, loss->squared,
                          loss->smoothing, (const T *)logits, loss->labels, loss->scratch);
    });
    if (code < 0) {
        return code;
    }
    NNC_READS(loss->scratch, rows * sizeof(float4));
    NNC_READS(metrics, sizeof(*metrics));
    NNC_WRITES(metrics, sizeof(*metrics));
    return NNC_LAUNCH(add_metrics, 1, warp_lanes, stream, rows, (const float *)loss->scratch,
                      metrics);
}

int nnc_gpu_loss_backward(cudaStream_t stream, const struct nnc_gpu_loss *loss, const void *logits,
                          void *ret_dlogits) {
    const cover over = row_cover(&loss->logits);
    NNC_READS(logits, tensor_bytes(&loss->logits));
    NNC_READS(loss->labels, over.shape.rows * sizeof(*loss->labels));
    NNC_READS(loss->step, sizeof(*loss->step));
    NNC_READS(loss->scaler, sizeof(*loss->scaler));
    NNC_WRITES(ret_dlogits, tensor_bytes(&loss->logits));
    return with_type(loss->logits.type, [&](auto zero) {
        using T = decltype(zero);
        return NNC_LAUNCH((loss_backward<T>), over.grid, over.block, stream, over.shape,
                          loss->squared, loss->smoothing, (const T *)logits, loss->labels,
                          loss->step, loss->scaler, (T *)ret_dlogits);
    });
}
