/* SPDX-License-Identifier: Apache-2.0 */
/* The CUDA kernels behind C functions: everything that memory bandwidth bounds. Matrix products and
 * convolutions are libraries' (dnn.h, linear.h).
 *
 * A tensor is a matrix of rows x stride values in NHWC order, rows = N*H*W, of which the first
 * `channels` of a row are real and the rest, up to stride = channels rounded up to 8, are padding.
 * Padding holds zeros, in values and in gradients, and every kernel keeps it so. rows < 2^31.
 *
 * Functions queue on the stream and return; nothing waits. Pointers are device memory, aligned to
 * 16 bytes. Activations and their gradients have the tensor's type, everything per channel is fp32:
 * parameters and running statistics `channels` values, what kernels make of them `stride` values;
 * sums are fp32 in an order that depends on shapes alone: the same bits every time, no float
 * atomics.
 * Errors: -NNC_E_HARDWARE when a launch is refused, with CUDA's words. */
#ifndef NNC_GPU_KERNELS_H
#define NNC_GPU_KERNELS_H

#include "gpu/kernels_types.h"

#include <cuda_runtime_api.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- input ---- */

struct nnc_gpu_input {
    struct nnc_gpu_tensor y;
    const uint8_t *images;    /* u8; sample i at images + i * sample_stride, (H,W,C) packed */
    size_t sample_stride;     /* bytes */
    float scale[4], shift[4]; /* per channel, y.channels <= 4: 1/(255 std), -mean/std */
};

/* y = u8 * scale + shift. */
int nnc_gpu_input(cudaStream_t stream, const struct nnc_gpu_input *params, void *ret_y);

/* ---- elementwise; in and out may be the same memory ---- */

/* y = act(x [+ z] [+ bias]); z NULL: none; bias fp32 per channel, NULL: none. NaN stays NaN. */
int nnc_gpu_pointwise(cudaStream_t stream, const struct nnc_gpu_tensor *shape, enum nnc_gpu_act act,
                      const void *x, const void *z, const float *bias, void *ret_y);

/* dx = dy * act'(.), the derivative as a function of y; RELU: dy where y > 0. accumulate: dx +=. */
int nnc_gpu_act_backward(cudaStream_t stream, const struct nnc_gpu_tensor *shape,
                         enum nnc_gpu_act act, const void *y, const void *dy, bool accumulate,
                         void *dx);

/* dx = dy, or dx += dy. */
int nnc_gpu_accumulate(cudaStream_t stream, const struct nnc_gpu_tensor *shape, const void *dy,
                       bool accumulate, void *dx);

/* One layer's dropout in one step, workers/dropout.h: keep where the Philox word of (step, node,
 * sample, feature) >= threshold, feature = c*H*W + h*W + w, sample = first + n. step and first come
 * from device memory, so that a captured graph can be replayed. */
struct nnc_gpu_dropout {
    uint32_t key[2];
    uint32_t node;
    uint64_t threshold; /* p * 2^32; 2^32 keeps nothing */
    float scale;        /* 1 / (1 - p) */
};

/* y = x * mask * scale; backward is the same function of dy. accumulate: y +=. */
int nnc_gpu_dropout(cudaStream_t stream, const struct nnc_gpu_tensor *shape,
                    const struct nnc_gpu_dropout *dropout, const struct nnc_gpu_step *step,
                    const void *x, bool accumulate, void *y);

/* ---- batch normalisation ----
 * Source: Ioffe, Szegedy, "Batch normalization", 2015; PyTorch's BatchNorm2d (running variance is
 * unbiased, the batch's is not). */

/* fp32 values that the reductions over rows need in `scratch`. */
size_t nnc_gpu_reduce_floats(const struct nnc_gpu_tensor *shape);

struct nnc_gpu_norm {
    struct nnc_gpu_tensor shape;
    const float *weight, *bias;        /* NULL: 1, 0 */
    float *running_mean, *running_var; /* NULL: none */
    float eps, momentum;
    float *mean, *scale; /* of the batch: mean and 1/sqrt(var + eps), per channel, stride values */
    uint32_t *mask; /* RELU: bit i % 32 of word i / 32 is 1 where y[i] > 0, i over rows*stride */
    float *scratch; /* nnc_gpu_reduce_floats() */
};

/* Batch statistics of x into mean and scale; running ones move. Numerically safe: sums of x minus a
 * value of its own channel. */
int nnc_gpu_norm_statistics(cudaStream_t stream, const struct nnc_gpu_norm *norm, const void *x);

/* mean and scale from the running statistics (inference). */
int nnc_gpu_norm_running(cudaStream_t stream, const struct nnc_gpu_norm *norm);

/* y = act(weight * (x - mean) * scale + bias [+ z]), act NONE or RELU; mask written for RELU unless
 * NULL. */
int nnc_gpu_norm_apply(cudaStream_t stream, const struct nnc_gpu_norm *norm, enum nnc_gpu_act act,
                       const void *x, const void *z, void *ret_y);

/* d = dy where the mask says so (RELU) or dy. dweight = sum d * (x - mean) * scale, dbias = sum d.
 * Both fp32, stride values; NULL parts are computed into scratch only. */
int nnc_gpu_norm_backward_sums(cudaStream_t stream, const struct nnc_gpu_norm *norm,
                               enum nnc_gpu_act act, const void *x, const void *dy,
                               float *ret_dweight, float *ret_dbias);

struct nnc_gpu_norm_backward {
    enum nnc_gpu_act act;
    const void *x, *dy;
    const float *dweight, *dbias; /* of nnc_gpu_norm_backward_sums */
    void *dx, *dz;                /* NULL: not needed */
    bool dx_accumulate, dz_accumulate;
};

/* dx (+)= weight*scale * (d - dbias/M - xhat * dweight/M); dz (+)= d. dz may be dy itself. */
int nnc_gpu_norm_backward(cudaStream_t stream, const struct nnc_gpu_norm *norm,
                          const struct nnc_gpu_norm_backward *params);

/* db = sum of dy over rows: gradient of a bias. fp32, stride values. */
int nnc_gpu_bias_gradient(cudaStream_t stream, const struct nnc_gpu_tensor *shape, const void *dy,
                          float *scratch, float *ret_db);

/* ---- pooling ---- */

struct nnc_gpu_pool {
    struct nnc_gpu_tensor x, y; /* the same n, channels, stride */
    uint32_t r, s, stride_h, stride_w, pad_h, pad_w;
    bool adaptive; /* average over PyTorch's adaptive windows; r, s, ... unused */
};

/* Maximum; the first one in row-major order, but the last NaN if any. place: its number in the
 * window (r * S + s), one byte a value, R*S <= 256. NULL in inference. */
int nnc_gpu_maxpool(cudaStream_t stream, const struct nnc_gpu_pool *pool, const void *x,
                    uint8_t *ret_place, void *ret_y);

/* Gathers: each dx sums the dy whose place is it. */
int nnc_gpu_maxpool_backward(cudaStream_t stream, const struct nnc_gpu_pool *pool,
                             const uint8_t *place, const void *dy, bool accumulate, void *dx);

/* Mean over windows; padding counts (count_include_pad), adaptive windows have none. */
int nnc_gpu_avgpool(cudaStream_t stream, const struct nnc_gpu_pool *pool, const void *x,
                    void *ret_y);
int nnc_gpu_avgpool_backward(cudaStream_t stream, const struct nnc_gpu_pool *pool, const void *dy,
                             bool accumulate, void *dx);

/* ---- loss ---- */

struct nnc_gpu_loss {
    struct nnc_gpu_tensor logits; /* rows = N */
    bool squared;                 /* mean squared error against one-hot, else cross-entropy */
    float smoothing;              /* cross-entropy: (1-s) onehot + s/K */
    const int32_t *labels;        /* i32 (N); -1: none, adds neither loss nor gradient */
    const struct nnc_gpu_step *step;
    const struct nnc_gpu_scaler *scaler;
    float *scratch; /* 4 * N floats: of each row, loss and ranks */
};

/* Add the batch to *metrics (in fixed order, in double). Rank of the label: ties count for the
 * lower class, a NaN at the label ranks last. */
int nnc_gpu_loss(cudaStream_t stream, const struct nnc_gpu_loss *loss, const void *logits,
                 struct nnc_gpu_metrics *metrics);

/* dlogits = d(loss sum)/dlogits * gradient_scale * scale. */
int nnc_gpu_loss_backward(cudaStream_t stream, const struct nnc_gpu_loss *loss, const void *logits,
                          void *ret_dlogits);

/* ---- parameters ----
 * Parameters lie in flat arenas: fp32 values and momentum, gradients in `type` or fp32, a copy of
 * the values in `type`. A chunk is a run of at most NNC_GPU_CHUNK values of one parameter. */

struct nnc_gpu_arena {
    const struct nnc_gpu_chunk *chunks; /* device */
    uint32_t chunk_count;
    enum nnc_gpu_type gradient_type, copy_type;
    const void *gradients; /* all pointers: offset 0 of the arena */
    float *values, *momentum;
    void *copy;           /* NULL: none is kept */
    uint64_t value_count; /* of each array, up to the end of the last chunk */
    uint32_t param_count; /* trained parameters */
};

/* sums[2 * chunk] = sum of squares of the chunk's gradients / scaler->scale, [2 * chunk + 1] of its
 * values; scaler->nonfinite becomes 1 when a gradient is not finite. */
int nnc_gpu_gradient_sums(cudaStream_t stream, const struct nnc_gpu_arena *arena,
                          struct nnc_gpu_scaler *scaler, float *ret_sums);

/* norms[2 * param] and [2 * param + 1]: Euclidean norms of gradient and value, from the sums, in
 * fixed order. ranges: device, arena->param_count of them. */
int nnc_gpu_norms(cudaStream_t stream, const struct nnc_gpu_arena *arena,
                  const struct nnc_gpu_range *ranges, const float *sums, float *ret_norms);

/* PyTorch's SGD on gradient / scaler->scale, and the copy of the values; nothing at all where
 * scaler->nonfinite. With step->trust > 0 gradient and decay of each WEIGHT are multiplied by
 * trust * |w| / (|g| + decay * |w|) (You, Gitman, Ginsburg, "LARS", arXiv 1708.03888), 1 where
 * either norm is 0; norms may be NULL where trust is 0. */
int nnc_gpu_sgd(cudaStream_t stream, const struct nnc_gpu_arena *arena,
                const struct nnc_gpu_step *step, const struct nnc_gpu_scaler *scaler,
                const float *norms);

/* After the update. Dynamic: halve the scale after a non-finite gradient, double it after 2000
 * good steps, up to 2^24, down to 1; as torch.amp.GradScaler. nonfinite becomes 0. */
int nnc_gpu_scaler_update(cudaStream_t stream, struct nnc_gpu_scaler *scaler);

/* *counter += 1, when the stream has come so far. counter may be pinned host memory, where the host
 * reads it at any time; one stream writes it. */
int nnc_gpu_count(cudaStream_t stream, uint64_t *counter);

/* copy = values in the type, count of them. */
int nnc_gpu_cast(cudaStream_t stream, enum nnc_gpu_type type, const float *values, size_t count,
                 void *ret_copy);

/* floats = values of the type, count of them: for reading gradients and logits back. */
int nnc_gpu_to_float(cudaStream_t stream, enum nnc_gpu_type type, const void *values, size_t count,
                     float *ret_floats);

#ifdef __cplusplus
}
#endif

#endif
