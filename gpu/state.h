/* SPDX-License-Identifier: Apache-2.0 */
/* Parameters, gradients and momentum on the device, in flat arenas:
 *
 *   values     fp32   | matrix weights | vectors | buffers |
 *   momentum   fp32   |                |         |
 *   copy       type   |                |         |
 *   gradients         |      type      |  fp32   |
 *
 * Matrices and vectors are each in order of backward completion. Vectors are biases and the
 * parameters of normalisation: few values, whose sums need fp32. Where the compute type is fp32
 * there is no copy, the values themselves are read. Gradients and momentum come with the first
 * training program.
 *
 * A parameter lies as [k][plane][c], k and c padded to multiples of 8: KRSC for a convolution; for
 * a linear layer the features in (h, w, c) order of the tensor it reads; [c] for a vector. */
#ifndef NNC_GPU_STATE_H
#define NNC_GPU_STATE_H

#include "gpu/device.h"
#include "gpu/kernels.h"

/* c rounded up to what tensors are padded to. */
static inline uint32_t nnc_gpu_padded(uint32_t channels) {
    return (channels + 7) / 8 * 8;
}

/* Bytes of a value. */
static inline size_t nnc_gpu_type_bytes(enum nnc_gpu_type type) {
    return type == NNC_GPU_F32 ? 4 : 2;
}

/* Floats of the buffer for conversions. */
#define NNC_GPU_STAGING (1 << 18)

struct nnc_gpu_param {
    uint64_t offset, count; /* in values, of values, momentum and copy alike; with padding */
    uint32_t k, c, plane;   /* plain layout is [k][c][plane] */
    uint32_t stride;        /* c with padding */
};

/* The two runs of trained parameters that the update kernels see. */
enum nnc_gpu_part {
    NNC_GPU_MATRICES,
    NNC_GPU_VECTORS,
    NNC_GPU_PART_COUNT,
};

struct nnc_gpu_state {
    const struct nnc_graph *graph;
    struct nnc_device *device;
    enum nnc_gpu_type type;
    struct nnc_gpu_param *params; /* by parameter */
    uint32_t *order;              /* trained parameters: all matrices, then all vectors */
    uint32_t order_count;
    uint64_t part_first[NNC_GPU_PART_COUNT + 1]; /* offsets; the last one: of the buffers */
    uint64_t value_count;
    struct nnc_block values, copy, momentum;
    struct nnc_block gradients;   /* matrices in type, then vectors in fp32 */
    struct nnc_block chunks;      /* struct nnc_gpu_chunk of both parts */
    struct nnc_block ranges;      /* struct nnc_gpu_range of the matrices */
    struct nnc_block sums, norms; /* of nnc_gpu_gradient_sums() and nnc_gpu_norms() */
    struct nnc_block scaler;      /* struct nnc_gpu_scaler */
    struct nnc_block staging;     /* floats, for conversions */
    uint32_t chunk_count[NNC_GPU_PART_COUNT], matrix_count;
    bool collective; /* gradients come from ncclMemAlloc() */
};

/* Lay out the graph's parameters, all zero. `ranks` says whether gradients will be reduced.
 * Owner:  end with nnc_gpu_state_finish(), after an error too; state is zero-filled before.
 * Errors: -ENOMEM, -NNC_E_HARDWARE. */
int nnc_gpu_state_init(struct nnc_gpu_state *state, const struct nnc_graph *graph,
                       enum nnc_gpu_type type, uint32_t ranks, struct nnc_device *device);

/* Takes a half-built one. */
void nnc_gpu_state_finish(struct nnc_gpu_state *state);

/* Make gradients and momentum, zero, if there are none. Errors: -ENOMEM, -NNC_E_HARDWARE. */
int nnc_gpu_state_train(struct nnc_gpu_state *state);

/* A parameter in the type that products are computed in, in fp32, and its gradient (matrices in the
 * type, vectors in fp32); NULL for param -1. */
void *nnc_gpu_state_weight(const struct nnc_gpu_state *state, int32_t param);
float *nnc_gpu_state_value(const struct nnc_gpu_state *state, int32_t param);
void *nnc_gpu_state_gradient(const struct nnc_gpu_state *state, int32_t param);

/* What the update kernels need of one part. */
struct nnc_gpu_arena nnc_gpu_state_arena(const struct nnc_gpu_state *state, enum nnc_gpu_part part);

/* Queue one step of SGD with `step` (device memory) on the gradients, divided by the loss scale;
 * nothing where one of them is not finite. The scaler moves on. norms: step->trust is not 0. */
int nnc_gpu_state_update(struct nnc_gpu_state *state, const struct nnc_gpu_step *step, bool norms);

/* Queue zeros for all gradients. */
int nnc_gpu_state_clear(struct nnc_gpu_state *state);

/* One parameter from and to the plain layout, when all that was queued is done. A gradient is free
 * of the loss scale. See get and set in workers/backend.h. */
int nnc_gpu_state_get(struct nnc_gpu_state *state, enum nnc_state which, uint32_t param,
                      float *ret_values);
int nnc_gpu_state_set(struct nnc_gpu_state *state, enum nnc_state which, uint32_t param,
                      const float *values);

/* `count` values of `type` from the device as floats, when all that was queued is done. */
int nnc_gpu_state_read(struct nnc_gpu_state *state, enum nnc_gpu_type type, const void *values,
                       size_t count, float *ret_floats);

#endif
