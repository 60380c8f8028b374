/* SPDX-License-Identifier: Apache-2.0 */
/* The optimiser over flat arenas: a block a chunk of one parameter.
 *
 *   gradient_sums   sums of squares of each chunk, and whether a gradient is inf or NaN
 *   norms           Euclidean norms of each parameter, for LARS
 *   sgd             the update, and the copy of the values in the type of the activations
 *   scaler_update   what the loss scale becomes
 *
 * Source: torch.optim.SGD; torch.amp.GradScaler; You, Gitman, Ginsburg, arXiv 1708.03888. */
#include "gpu/kernels_device.h"

#include <math.h>

using namespace nnc;

namespace {

constexpr uint32_t growth_interval = 2000;
constexpr float scale_max = 16777216; /* 2^24 */
constexpr uint32_t kind_weight = 0;   /* NNC_PARAM_WEIGHT */

/* Load the group at `index` of an array that ends at `end`; what is behind the end is 0. */
template <typename T>
__device__ inline void load_until(const T *from, size_t index, size_t end,
                                  float (&ret_values)[group_values]) {
    if (end - index >= group_values) {
        load(from + index, ret_values);
    } else {
        load_some(from + index, (unsigned)(end - index), 0, ret_values);
    }
}

template <typename T>
__device__ inline void store_until(T *to, size_t index, size_t end,
                                   const float (&values)[group_values]) {
    if (end - index >= group_values) {
        store(to + index, values);
    } else {
        store_some(to + index, (unsigned)(end - index), values);
    }
}

template <typename G>
__global__ void __launch_bounds__(block_threads, 1)
    gradient_sums(const struct nnc_gpu_chunk *__restrict__ chunks, const G *__restrict__ gradients,
                  const float *__restrict__ values, struct nnc_gpu_scaler *scaler,
                  float *__restrict__ sums) {
    const struct nnc_gpu_chunk chunk = chunks[blockIdx.x];
    const float inverse = 1 / scaler->scale;
    const size_t end = chunk.offset + chunk.count;
    /* As sum_over_rows() wants it: [.][lane], in a block of one column. */
    float squares[2][group_values] = {};
    bool finite = true;
    for (size_t index = chunk.offset + threadIdx.y * group_values; index < end;
         index += block_threads * group_values) {
        float g[group_values], w[group_values];
        load_until(gradients, index, end, g);
        load_until(values, index, end, w);
#pragma unroll
        for (unsigned lane = 0; lane < group_values; lane++) {
            finite = finite && isfinite(g[lane]);
            g[lane] *= inverse;
            squares[0][lane] += g[lane] * g[lane];
            squares[1][lane] += w[lane] * w[lane];
        }
    }
    if (!finite) {
        scaler->nonfinite = 1; /* whoever else writes, writes the same */
    }
    sum_over_rows(squares);
    if (threadIdx.y == 0) {
        float sum_g = 0, sum_w = 0;
#pragma unroll
        for (unsigned lane = 0; lane < group_values; lane++) {
            sum_g += squares[0][lane];
            sum_w += squares[1][lane];
        }
        reinterpret_cast<float2 *>(sums)[blockIdx.x] = make_float2(sum_g, sum_w);
    }
}

/* A warp a parameter: lanes take chunks in turn. */
__global__ void __launch_bounds__(warp_lanes)
    param_norms(const struct nnc_gpu_range *__restrict__ ranges, const float *__restrict__ sums,
                float *__restrict__ norms) {
    const struct nnc_gpu_range range = ranges[blockIdx.x];
    double sum_g = 0, sum_w = 0;
    for (uint32_t chunk = threadIdx.x; chunk < range.count; chunk += warp_lanes) {
        const float2 pair = reinterpret_cast<const float2 *>(sums)[range.first + chunk];
        sum_g += pair.x;
        sum_w += pair.y;
    }
    sum_g = warp_sum(sum_g);
    sum_w = warp_sum(sum_w);
    if (threadIdx.x == 0) {
        const float2 pair = make_float2((float)sqrt(sum_g), (float)sqrt(sum_w));
        reinterpret_cast<float2 *>(norms)[blockIdx.x] = pair;
    }
}

/* What a chunk's step is multiplied with, by LARS for weights. */
__device__ inline float ratio_of(const struct nnc_gpu_step *step, const struct nnc_gpu_chunk &chunk,
                                 float decay, const float *norms) {
    if (step->trust <= 0 || chunk.kind != kind_weight) {
        return 1;
    }
    const float2 pair = reinterpret_cast<const float2 *>(norms)[chunk.param];
    const bool usable = pair.x > 0 && pair.y > 0;
    return usable ? step->trust * pair.y / (pair.x + decay * pair.y) : 1;
}

__device__ inline void store_copy(enum nnc_gpu_type type, void *copy, size_t index, size_t end,
                                  const float (&values)[group_values]) {
    if (!copy) {
        return;
    }
    if (type == NNC_GPU_BF16) {
        store_until((__nv_bfloat16 *)copy, index, end, values);
    } else if (type == NNC_GPU_F16) {
        store_until((__half *)copy, index, end, values);
    } else {
        store_until((float *)copy, index, end, values);
    }
}

template <typename G>
__global__ void __launch_bounds__(block_threads, 1)
    sgd(const struct nnc_gpu_chunk *__restrict__ chunks,
        const struct nnc_gpu_step *__restrict__ step,
        const struct nnc_gpu_scaler *__restrict__ scaler, const float *__restrict__ norms,
        const G *__restrict__ gradients, float *__restrict__ values, float *__restrict__ momentum,
        enum nnc_gpu_type copy_type, void *__restrict__ copy) {
    if (scaler->nonfinite) {
        return;
    }
    const struct nnc_gpu_chunk chunk = chunks[blockIdx.x];
    const float inverse = 1 / scaler->scale;
    const float decay = chunk.kind < 3 ? step->weight_decay[chunk.kind] : 0;
    const float ratio = ratio_of(step, chunk, decay, norms);
    const size_t end = chunk.offset + chunk.count;
    for (size_t index = chunk.offset + threadIdx.x * group_values; index < end;
         index += block_threads * group_values) {
        float g[group_values], w[group_values], m[group_values];
        load_until(gradients, index, end, g);
        load_until(values, index, end, w);
        load_until(momentum, index, end, m);
#pragma unroll
        for (unsigned lane = 0; lane < group_values; lane++) {
            const float d = ratio * (g[lane] * inverse + decay * w[lane]);
            m[lane] = step->momentum * m[lane] + d;
            w[lane] -= step->lr * (step->nesterov ? d + step->momentum * m[lane] : m[lane]);
        }
        store_until(values, index, end, w);
        store_until(momentum, index, end, m);
        store_copy(copy_type, copy, index, end, w);
    }
}

__global__ void __launch_bounds__(1) scaler_update(struct nnc_gpu_scaler *scaler) {
    const bool skipped = scaler->nonfinite != 0;
    scaler->nonfinite = 0;
    scaler->skipped += skipped;
    scaler->good_steps = skipped ? 0 : scaler->good_steps + 1;
    if (!scaler->dynamic) {
        return;
    }
    if (skipped) {
        scaler->scale = fmaxf(scaler->scale / 2, 1);
    } else if (scaler->good_steps == growth_interval) {
        scaler->scale = fminf(scaler->scale * 2, scale_max);
        scaler->good_steps = 0;
    }
}

__global__ void __launch_bounds__(1) count_up(uint64_t *counter) {
    *counter += 1;
    __threadfence_system(); /* the host sees it before the stream gets idle */
}

} // namespace

int nnc_gpu_gradient_sums(cudaStream_t stream, const struct nnc_gpu_arena *arena,
                          struct nnc_gpu_scaler *scaler, float *ret_sums) {
    const size_t count = arena->value_count;
    NNC_READS(arena->chunks, arena->chunk_count * sizeof(*arena->chunks));
    NNC_READS(arena->gradients, count * type_bytes(arena->gradient_type));
    NNC_READS(arena->values, count * sizeof(float));
    NNC_READS(scaler, sizeof(*scaler));
    NNC_WRITES(scaler, sizeof(*scaler));
    NNC_WRITES(ret_sums, arena->chunk_count * sizeof(float2));
    return with_type(arena->gradient_type, [&](auto zero) {
        using G = decltype(zero);
        return NNC_LAUNCH((gradient_sums<G>), arena->chunk_count, dim3(1, block_threads), stream,
                          arena->chunks, (const G *)arena->gradients, (const float *)arena->values,
                          scaler, ret_sums);
    });
}

int nnc_gpu_norms(cudaStream_t stream, const struct nnc_gpu_arena *arena,
                  const struct nnc_gpu_range *ranges, const float *sums, float *ret_norms) {
    NNC_READS(ranges, arena->param_count * sizeof(*ranges));
    NNC_READS(sums, arena->chunk_count * sizeof(float2));
    NNC_WRITES(ret_norms, arena->param_count * sizeof(float2));
    return NNC_LAUNCH(param_norms, arena->param_count, warp_lanes, stream, ranges, sums, ret_norms);
}

int nnc_gpu_sgd(cudaStream_t stream, const struct nnc_gpu_arena *arena,
                const struct nnc_gpu_step *step, const struct nnc_gpu_scaler *scaler,
                const float *norms) {
    const size_t count = arena->value_count;
    NNC_READS(arena->chunks, arena->chunk_count * sizeof(*arena->chunks));
    NNC_READS(step, sizeof(*step));
    NNC_READS(scaler, sizeof(*scaler));
    NNC_READS(norms, arena->param_count * sizeof(float2));
    NNC_READS(arena->gradients, count * type_bytes(arena->gradient_type));
    NNC_READS(arena->values, count * sizeof(float));
    NNC_READS(arena->momentum, count * sizeof(float));
    NNC_WRITES(arena->values, count * sizeof(float));
    NNC_WRITES(arena->momentum, count * sizeof(float));
    NNC_WRITES(arena->copy, count * type_bytes(arena->copy_type));
    return with_type(arena->gradient_type, [&](auto zero) {
        using G = decltype(zero);
        return NNC_LAUNCH((sgd<G>), arena->chunk_count, block_threads, stream, arena->chunks, step,
                          scaler, norms, (const G *)arena->gradients, arena->values,
                          arena->momentum, arena->copy_type, arena->copy);
    });
}

int nnc_gpu_scaler_update(cudaStream_t stream, struct nnc_gpu_scaler *scaler) {
    NNC_READS(scaler, sizeof(*scaler));
    NNC_WRITES(scaler, sizeof(*scaler));
    return NNC_LAUNCH(scaler_update, 1, 1, stream, scaler);
}

int nnc_gpu_count(cudaStream_t stream, uint64_t *counter) {
    NNC_READS(counter, sizeof(*counter));
    NNC_WRITES(counter, sizeof(*counter));
    return NNC_LAUNCH(count_up, 1, 1, stream, counter);
}
