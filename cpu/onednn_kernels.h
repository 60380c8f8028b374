/* SPDX-License-Identifier: Apache-2.0 */
/* The loops that oneDNN does not have, or has only as several passes over memory: batch norm with
 * residual and ReLU, ReLU backward, sums, SGD. One table per instruction set, the same source
 * compiled with different flags; the best one the processor supports is taken.
 *
 * A "plane" is what one sample has in one group of `inner` neighbouring channels: `positions` rows
 * of `inner` floats, one after the other. inner is 1 (NCHW: one channel, all positions) or a
 * multiple of 8 (blocked or NHWC). Per-channel arrays have `inner` entries. All pointers may be
 * unaligned. */
#ifndef NNC_CPU_ONEDNN_KERNELS_H
#define NNC_CPU_ONEDNN_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "workers/dropout.h"
#include "workers/program.h"

/* y = act(x * scale + shift + z), act ReLU or nothing. */
struct nnc_norm_plane {
    size_t positions;
    uint32_t inner;
    const float *x, *z; /* z NULL: none */
    float *y;
    const float *scale, *shift;
    bool relu;
};

/* Where the ReLU of the forward pass let the gradient through. */
enum nnc_mask {
    NNC_MASK_NONE,
    NNC_MASK_Y, /* y > 0 */
    NNC_MASK_X, /* x * scale + shift > 0, computed as the forward pass did: y need not be read */
};

/* Backward of a batch norm, both passes. g = dy where the mask lets it through, else 0. */
struct nnc_norm_grad_plane {
    size_t positions;
    uint32_t inner;
    enum nnc_mask mask;
    const float *x, *y, *dy;
    const float *scale, *shift, *mean;
    /* First pass, sums: */
    float *dz; /* NULL: none; dz = g, or dz += g */
    bool dz_accumulate;
    double *sum_g, *sum_gx; /* sum of g, sum of g * (x - mean), stored */
    /* Second pass, gradient: dx = a * g + b * (x - mean) + c, or dx += */
    float *dx;
    bool dx_accumulate;
    const float *a, *b, *c;
};

enum {
    NNC_POOL_NONE = 255, /* `chosen`: no value of the window */
};

/* Max pooling, inner a multiple of 8. Windows have fewer than NNC_POOL_NONE values. */
struct nnc_pool_plane {
    struct nnc_shape in, out; /* h, w */
    struct nnc_window window;
    uint32_t inner;
    bool relu; /* x is the result of a ReLU: choose none where the maximum is not above 0 */
    const float *x;
    float *y;
    uint8_t *chosen; /* as y: place r * S + s of the maximum in its window; NULL: not wanted */
    /* Backward: */
    const float *dy;
    float *dx;
    bool dx_accumulate;
};

struct nnc_sgd_run {
    size_t count;
    float *value, *momentum_buffer;
    const float *gradient;
    float lr, momentum, weight_decay;
    float ratio; /* nnc_sgd_ratio() */
    bool nesterov;
};

struct nnc_kernels {
    const char *name;
    /* Mean and sum of squared deviations of each channel of a plane, in double.
     * Math: two passes over chunks that fit the first-level cache, chunks merged after Chan, Golub
     * and LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances",
     * 1979. */
    void (*stats)(const float *x, size_t positions, uint32_t inner, double *ret_mean,
                  double *ret_m2);
    void (*norm)(const struct nnc_norm_plane *plane);
    void (*norm_sums)(const struct nnc_norm_grad_plane *plane);
    void (*norm_grad)(const struct nnc_norm_grad_plane *plane);
    /* dx = dy * act'(.), from y = act(.); dx may be dy. */
    void (*act_grad)(enum nnc_act act, const float *y, const float *dy, float *dx, size_t count);
    /* out = left + right, then ReLU if wanted; out may be either. */
    void (*add)(const float *left, const float *right, bool relu, float *out, size_t count);
    void (*pool)(const struct nnc_pool_plane *plane);
    void (*pool_grad)(const struct nnc_pool_plane *plane);
    /* Factors, scale or 0, of features 0 .. count - 1 of a sample: workers/dropout.h's rule. */
    void (*dropout)(const struct nnc_dropout *dropout, uint32_t sample, size_t count,
                    float *ret_factors);
    /* PyTorch's SGD, see backend.h. False when a value is not finite afterwards. */
    bool (*sgd)(const struct nnc_sgd_run *run);
};

/* The best table for this processor. */
const struct nnc_kernels *nnc_kernels_best(void);

/* All tables that this processor can run, best first, NULL after the last; for tests. */
const struct nnc_kernels *const *nnc_kernels_all(void);

#endif
