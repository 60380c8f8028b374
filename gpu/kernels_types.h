/* SPDX-License-Identifier: Apache-2.0 */
/* What kernels and their callers share: shapes, and structs that lie in device memory. The latter
 * hold no pointers. */
#ifndef NNC_GPU_KERNELS_TYPES_H
#define NNC_GPU_KERNELS_TYPES_H

#include <stdbool.h>
#include <stdint.h>

enum nnc_gpu_type {
    NNC_GPU_F32,
    NNC_GPU_BF16,
    NNC_GPU_F16,
    NNC_GPU_TYPE_COUNT,
};

/* As enum nnc_act of workers/program.h, which C++ does not see; dnn and exec assert equality. */
enum nnc_gpu_act {
    NNC_GPU_NONE,
    NNC_GPU_RELU,
    NNC_GPU_SIGMOID,
    NNC_GPU_TANH,
};

/* Shape of a tensor; rows = n * h * w. */
struct nnc_gpu_tensor {
    enum nnc_gpu_type type;
    uint32_t n, h, w;
    uint32_t channels, stride;
};

/* ---- in device memory ---- */

/* Sums over the batches since they were last set to zero; as struct nnc_metrics. */
struct nnc_gpu_metrics {
    double loss_sum;
    uint64_t count, left_out, correct1, correct5;
};

/* What changes from step to step, in device memory. */
struct nnc_gpu_step {
    uint32_t step, first; /* dropout counters */
    float gradient_scale; /* of d(loss sum): ranks / global_count, without the loss scale */
    float lr, momentum;
    float weight_decay[3]; /* by enum nnc_param_kind: WEIGHT, BIAS, NORM */
    uint32_t nesterov;
    float trust; /* LARS coefficient; 0: plain SGD */
};

/* Dynamic loss scale and what the gradients of this step were, in device memory. */
struct nnc_gpu_scaler {
    float scale;         /* of the loss; 1: off */
    uint32_t good_steps; /* since it last changed */
    uint32_t nonfinite;  /* of this step: 1 when a gradient is inf or NaN */
    uint32_t dynamic;    /* 1: scale follows the gradients */
    uint64_t skipped;    /* steps without an update, so far */
};

/* Values of a chunk at most. */
#define NNC_GPU_CHUNK 8192

/* A run of values of one parameter. */
struct nnc_gpu_chunk {
    uint64_t offset; /* in values, of all arenas alike; a multiple of 8 */
    uint32_t count;
    uint32_t param; /* number of the parameter among the trained ones */
    uint32_t kind;  /* enum nnc_param_kind */
    uint32_t reserved;
};

/* The first chunk and the number of chunks of a parameter. */
struct nnc_gpu_range {
    uint32_t first, count;
};

#endif
