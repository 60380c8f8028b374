/* SPDX-License-Identifier: Apache-2.0 */
/* cuBLASLt is column-major: a row-major (rows, columns) matrix is a (columns x rows) one to it,
 * with leading dimension `columns`. So
 *
 *   forward   y[outputs x batch]    = w^T[outputs x features] x[features x batch]
 *   dx        x[features x batch]   = w[features x outputs] y[outputs x batch]
 *   dw        w[features x outputs] = x[features x batch] y^T[batch x outputs]
 *
 * and a bias runs along the rows of y, as the epilogue wants it.
 *
 * Source: cuBLAS library user guide, "cublasLtMatmul". */
#include "gpu/linear.h"

#include "base/err.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

enum matrix {
    X,
    W,
    Y,
    MATRIX_COUNT,
};

/* d = op(a) op(b) */
struct product {
    enum matrix a, b, d;
    cublasOperation_t a_op, b_op;
    cublasLtEpilogue_t epilogue;
};

static const struct product products[NNC_LINEAR_OP_COUNT] = {
    [NNC_LINEAR_FORWARD] = {W, X, Y, CUBLAS_OP_T, CUBLAS_OP_N, CUBLASLT_EPILOGUE_DEFAULT},
    [NNC_LINEAR_FORWARD_BIAS] = {W, X, Y, CUBLAS_OP_T, CUBLAS_OP_N, CUBLASLT_EPILOGUE_BIAS},
    [NNC_LINEAR_FORWARD_BIAS_RELU] = {W, X, Y, CUBLAS_OP_T, CUBLAS_OP_N,
                                      CUBLASLT_EPILOGUE_RELU_BIAS},
    [NNC_LINEAR_BACKWARD_DATA] = {W, Y, X, CUBLAS_OP_N, CUBLAS_OP_N, CUBLASLT_EPILOGUE_DEFAULT},
    [NNC_LINEAR_BACKWARD_WEIGHT] = {X, Y, W, CUBLAS_OP_N, CUBLAS_OP_T, CUBLASLT_EPILOGUE_DEFAULT},
};

static const cudaDataType_t types[NNC_GPU_TYPE_COUNT] = {
    [NNC_GPU_F32] = CUDA_R_32F,
    [NNC_GPU_BF16] = CUDA_R_16BF,
    [NNC_GPU_F16] = CUDA_R_16F,
};

struct nnc_linear {
    const struct product *product;
    cublasLtHandle_t handle; /* borrowed */
    cublasLtMatmulDesc_t description;
    cublasLtMatrixLayout_t layout[MATRIX_COUNT];
    cublasLtMatmulAlgo_t algorithm;
    size_t workspace;
    float beta;
};

int nnc_linear_check(cublasStatus_t status, const char *what) {
    if (status == CUBLAS_STATUS_SUCCESS) {
        return 0;
    }
    int code = status == CUBLAS_STATUS_ALLOC_FAILED ? -ENOMEM : -NNC_E_HARDWARE;
    return nnc_fail(code, "%s: cuBLASLt says %s", what, cublasLtGetStatusString(status));
}

void nnc_linear_free(struct nnc_linear *linear) {
    if (!linear) {
        return;
    }
    for (int matrix = 0; matrix < MATRIX_COUNT; matrix++) {
        if (linear->layout[matrix]) {
            cublasLtMatrixLayoutDestroy(linear->layout[matrix]);
        }
    }
    if (linear->description) {
        cublasLtMatmulDescDestroy(linear->description);
    }
    free(linear);
}

static int set(struct nnc_linear *linear, cublasLtMatmulDescAttributes_t attribute,
               const void *value, size_t bytes) {
    return nnc_linear_check(
        cublasLtMatmulDescSetAttribute(linear->description, attribute, value, bytes),
        "attribute of a matrix product");
}

static int describe(struct nnc_linear *linear, const struct nnc_linear_params *params) {
    const struct product *product = linear->product;
    int rc = nnc_linear_check(
        cublasLtMatmulDescCreate(&linear->description, CUBLAS_COMPUTE_32F, CUDA_R_32F),
        "matrix product");
    if (rc == 0) {
        rc = set(linear, CUBLASLT_MATMUL_DESC_TRANSA, &product->a_op, sizeof(product->a_op));
    }
    if (rc == 0) {
        rc = set(linear, CUBLASLT_MATMUL_DESC_TRANSB, &product->b_op, sizeof(product->b_op));
    }
    if (rc == 0) {
        rc = set(linear, CUBLASLT_MATMUL_DESC_EPILOGUE, &product->epilogue,
                 sizeof(product->epilogue));
    }
    if (rc == 0 && product->epilogue != CUBLASLT_EPILOGUE_DEFAULT) {
        rc = set(linear, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &params->bias, sizeof(params->bias));
    }
    const uint64_t shapes[MATRIX_COUNT][2] = {
        [X] = {params->features, params->batch},
        [W] = {params->features, params->outputs},
        [Y] = {params->outputs, params->batch},
    };
    for (int matrix = 0; rc == 0 && matrix < MATRIX_COUNT; matrix++) {
        const uint64_t *shape = shapes[matrix];
        rc = nnc_linear_check(cublasLtMatrixLayoutCreate(&linear->layout[matrix],
                                                         types[params->type], shape[0], shape[1],
                                                         (int64_t)shape[0]),
                              "layout of a matrix");
    }
    return rc;
}

static int prefer(const struct nnc_linear_params *params, cublasLtMatmulPreference_t preference) {
    int rc = nnc_linear_check(
        cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                             &params->workspace_cap, sizeof(params->workspace_cap)),
        "workspace of matrix products");
    /* Parts of a sum that are added in place come in any order. */
    const uint32_t ordered = CUBLASLT_REDUCTION_SCHEME_MASK & ~CUBLASLT_REDUCTION_SCHEME_INPLACE;
    if (rc == 0 && params->deterministic) {
        rc = nnc_linear_check(
            cublasLtMatmulPreferenceSetAttribute(
                preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &ordered, sizeof(ordered)),
            "order of sums");
    }
    return rc;
}

static int choose(struct nnc_linear *linear, const struct nnc_linear_params *params) {
    const struct product *product = linear->product;
    cublasLtMatmulPreference_t preference = NULL;
    cublasLtMatmulHeuristicResult_t found = {.state = CUBLAS_STATUS_NOT_SUPPORTED};
    int count = 0;
    int rc = nnc_linear_check(cublasLtMatmulPreferenceCreate(&preference), "preferences");
    if (rc < 0) {
        return rc;
    }
    rc = prefer(params, preference);
    cublasStatus_t status = CUBLAS_STATUS_SUCCESS;
    if (rc == 0) {
        cublasLtMatrixLayout_t result = linear->layout[product->d];
        status = cublasLtMatmulAlgoGetHeuristic(
            linear->handle, linear->description, linear->layout[product->a],
            linear->layout[product->b], result, result, preference, 1, &found, &count);
    }
    cublasLtMatmulPreferenceDestroy(preference);
    if (rc < 0) {
        return rc;
    }
    if (status == CUBLAS_STATUS_NOT_SUPPORTED || (status == CUBLAS_STATUS_SUCCESS && count == 0) ||
        (status == CUBLAS_STATUS_SUCCESS && found.state != CUBLAS_STATUS_SUCCESS)) {
        return nnc_fail(-ENOTSUP,
                        "cuBLASLt has no algorithm for a product of %u x %llu by %u; a larger "
                        "--workspace may help",
                        params->batch, (unsigned long long)params->features, params->outputs);
    }
    linear->algorithm = found.algo;
    linear->workspace = found.workspaceSize;
    return nnc_linear_check(status, "choice of an algorithm");
}

int nnc_linear_create(cublasLtHandle_t handle, const struct nnc_linear_params *params,
                      struct nnc_linear **ret_linear) {
    assert(params->outputs % 8 == 0 && params->features % 8 == 0);
    struct nnc_linear *linear = calloc(1, sizeof(*linear));
    if (!linear) {
        return nnc_fail(-ENOMEM, "no memory for a matrix product");
    }
    linear->product = &products[params->op];
    linear->handle = handle;
    linear->beta = params->accumulate ? 1 : 0;
    int rc = describe(linear, params);
    if (rc == 0) {
        rc = choose(linear, params);
    }
    if (rc < 0) {
        nnc_linear_free(linear);
        return rc;
    }
    *ret_linear = linear;
    return 0;
}

size_t nnc_linear_workspace(const struct nnc_linear *linear) {
    return linear->workspace;
}

int nnc_linear_run(const struct nnc_linear *linear, cudaStream_t stream,
                   const struct nnc_linear_memory *memory) {
    const struct product *product = linear->product;
    void *const matrices[MATRIX_COUNT] = {[X] = memory->x, [W] = memory->w, [Y] = memory->y};
    const float one = 1;
    void *result = matrices[product->d];
    cublasLtMatrixLayout_t layout = linear->layout[product->d];
    return nnc_linear_check(
        cublasLtMatmul(linear->handle, linear->description, &one, matrices[product->a],
                       linear->layout[product->a], matrices[product->b], linear->layout[product->b],
                       &linear->beta, result, layout, result, layout, &linear->algorithm,
                       memory->workspace, linear->workspace, stream),
        "matrix product");
}
