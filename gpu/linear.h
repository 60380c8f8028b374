/* SPDX-License-Identifier: Apache-2.0 */
/* Matrix products of linear layers by cuBLASLt: the algorithm is chosen once, when a product is
 * made, and never again.
 *
 * x is (batch, features), y (batch, outputs), w (outputs, features), all row-major without gaps;
 * features and outputs are multiples of 8. Accumulation is fp32. */
#ifndef NNC_GPU_LINEAR_H
#define NNC_GPU_LINEAR_H

#include "gpu/kernels.h"

#include <cublasLt.h>

enum nnc_linear_op {
    NNC_LINEAR_FORWARD,           /* y = x w^T */
    NNC_LINEAR_FORWARD_BIAS,      /* y = x w^T + bias */
    NNC_LINEAR_FORWARD_BIAS_RELU, /* y = relu(x w^T + bias) */
    NNC_LINEAR_BACKWARD_DATA,     /* x (+)= y w: dx of dy */
    NNC_LINEAR_BACKWARD_WEIGHT,   /* w = y^T x: dw of dy and x */
    NNC_LINEAR_OP_COUNT,
};

struct nnc_linear_params {
    enum nnc_linear_op op;
    enum nnc_gpu_type type;
    uint32_t batch, outputs;
    uint64_t features;
    bool accumulate;      /* BACKWARD_DATA: add */
    bool deterministic;   /* only algorithms that give the same bits each time */
    size_t workspace_cap; /* bytes */
    const void *bias;     /* device, `outputs` values of the type */
};

struct nnc_linear;

/* Choose an algorithm.
 * Owner:  free with nnc_linear_free().
 * Errors: -ENOTSUP when cuBLASLt has none; -NNC_E_HARDWARE with its words; -ENOMEM. */
int nnc_linear_create(cublasLtHandle_t handle, const struct nnc_linear_params *params,
                      struct nnc_linear **ret_linear);

/* Takes NULL. */
void nnc_linear_free(struct nnc_linear *linear);

size_t nnc_linear_workspace(const struct nnc_linear *linear); /* bytes */

struct nnc_linear_memory {
    void *x, *w, *y, *workspace;
};

/* Queue the product. Errors: -NNC_E_HARDWARE with cuBLASLt's words. */
int nnc_linear_run(const struct nnc_linear *linear, cudaStream_t stream,
                   const struct nnc_linear_memory *memory);

/* 0, or -NNC_E_HARDWARE (-ENOMEM where memory is out) with `what` and cuBLASLt's words. */
int nnc_linear_check(cublasStatus_t status, const char *what);

#endif
