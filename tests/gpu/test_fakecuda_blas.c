/* SPDX-License-Identifier: Apache-2.0 */
/* The stand-in of cuBLASLt: products against independent double loops, and what it refuses. */
#include "tests/gpu/fakecuda/numbers.h"
#include "tests/gpu/fakecuda/testing.h"

#include <criterion/criterion.h>
#include <cublasLt.h>
#include <math.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FINE(call) cr_assert_eq(call, CUBLAS_STATUS_SUCCESS, #call)

static const cudaDataType_t types[] = {CUDA_R_32F, CUDA_R_16BF, CUDA_R_16F};

struct product {
    cublasOperation_t a_op, b_op;
    cublasLtEpilogue_t epilogue;
    float beta;
    enum fake_type type;
    uint64_t rows, cols, sums;
};

struct objects {
    cublasLtHandle_t handle;
    cublasLtMatmulDesc_t description;
    cublasLtMatrixLayout_t a, b, d;
    cublasLtMatmulPreference_t preference;
    void *pa, *pb, *pd, *bias, *workspace;
    cudaStream_t stream;
};

static void *fill(enum fake_type type, size_t count, int salt) {
    float *values = calloc(count, sizeof *values);
    void *device;
    for (size_t i = 0; i < count; i++) {
        values[i] = (float)((int)((i * 29 + (size_t)salt) % 19) - 9) / 8;
    }
    cr_assert_eq(cudaMalloc(&device, count * fake_type_bytes(type)), cudaSuccess);
    fake_from_float(type, values, count, fakecuda_peek(device));
    free(values);
    return device;
}

static void open_objects(const struct product *p, struct objects *o) {
    cudaDataType_t type = types[p->type];
    bool a_turned = p->a_op == CUBLAS_OP_T, b_turned = p->b_op == CUBLAS_OP_T;
    uint64_t a_rows = a_turned ? p->sums : p->rows, b_rows = b_turned ? p->cols : p->sums;
    o->pa = fill(p->type, p->rows * p->sums, 1);
    o->pb = fill(p->type, p->cols * p->sums, 2);
    o->pd = fill(p->type, p->rows * p->cols, 3);
    o->bias = fill(p->type, p->rows, 4);
    cr_assert_eq(cudaMalloc(&o->workspace, 1 << 20), cudaSuccess);
    cr_assert_eq(cudaStreamCreateWithFlags(&o->stream, cudaStreamNonBlocking), cudaSuccess);
    FINE(cublasLtCreate(&o->handle));
    FINE(cublasLtMatmulDescCreate(&o->description, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    FINE(cublasLtMatmulDescSetAttribute(o->description, CUBLASLT_MATMUL_DESC_TRANSA, &p->a_op,
                                        sizeof p->a_op));
    FINE(cublasLtMatmulDescSetAttribute(o->description, CUBLASLT_MATMUL_DESC_TRANSB, &p->b_op,
                                        sizeof p->b_op));
    FINE(cublasLtMatmulDescSetAttribute(o->description, CUBLASLT_MATMUL_DESC_EPILOGUE, &p->epilogue,
                                        sizeof p->epilogue));
    FINE(cublasLtMatmulDescSetAttribute(o->description, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &o->bias,
                                        sizeof o->bias));
    FINE(cublasLtMatrixLayoutCreate(&o->a, type, a_rows, a_turned ? p->rows : p->sums,
                                    (int64_t)a_rows));
    FINE(cublasLtMatrixLayoutCreate(&o->b, type, b_rows, b_turned ? p->sums : p->cols,
                                    (int64_t)b_rows));
    FINE(cublasLtMatrixLayoutCreate(&o->d, type, p->rows, p->cols, (int64_t)p->rows));
    FINE(cublasLtMatmulPreferenceCreate(&o->preference));
    uint64_t cap = 1 << 20;
    FINE(cublasLtMatmulPreferenceSetAttribute(
        o->preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &cap, sizeof cap));
}

static void deterministic(struct objects *o) {
    uint32_t mask = CUBLASLT_REDUCTION_SCHEME_MASK & ~CUBLASLT_REDUCTION_SCHEME_INPLACE;
    FINE(cublasLtMatmulPreferenceSetAttribute(
        o->preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &mask, sizeof mask));
}

static cublasStatus_t choose(struct objects *o, cublasLtMatmulHeuristicResult_t *ret, int *count) {
    return cublasLtMatmulAlgoGetHeuristic(o->handle, o->description, o->a, o->b, o->d, o->d,
                                          o->preference, 1, ret, count);
}

static cublasStatus_t multiply(struct objects *o, float beta, const cublasLtMatmulAlgo_t *algo,
                               size_t workspace) {
    float one = 1;
    cublasStatus_t status =
        cublasLtMatmul(o->handle, o->description, &one, o->pa, o->a, o->pb, o->b, &beta, o->pd,
                       o->d, o->pd, o->d, algo, o->workspace, workspace, o->stream);
    cr_assert_eq(cudaStreamSynchronize(o->stream), cudaSuccess);
    return status;
}

static void close_objects(struct objects *o) {
    FINE(cublasLtMatrixLayoutDestroy(o->a));
    FINE(cublasLtMatrixLayoutDestroy(o->b));
    FINE(cublasLtMatrixLayoutDestroy(o->d));
    FINE(cublasLtMatmulDescDestroy(o->description));
    FINE(cublasLtMatmulPreferenceDestroy(o->preference));
    FINE(cublasLtDestroy(o->handle));
    cudaFree(o->pa);
    cudaFree(o->pb);
    cudaFree(o->pd);
    cudaFree(o->bias);
    cudaFree(o->workspace);
    cudaStreamDestroy(o->stream);
}

static float *read_floats(enum fake_type type, const void *device, size_t count) {
    float *values = calloc(count, sizeof *values);
    fake_to_float(type, fakecuda_peek(device), count, values);
    return values;
}

static void check_product(const struct product *p) {
    static const double relative[] = {0x1p-24, 0x1p-8, 0x1p-11};
    struct objects o;
    cublasLtMatmulHeuristicResult_t found;
    int count = 0;
    open_objects(p, &o);
    float *a = read_floats(p->type, o.pa, p->rows * p->sums);
    float *b = read_floats(p->type, o.pb, p->cols * p->sums);
    float *d = read_floats(p->type, o.pd, p->rows * p->cols);
    float *bias = read_floats(p->type, o.bias, p->rows);
    deterministic(&o);
    FINE(choose(&o, &found, &count));
    FINE(multiply(&o, p->beta, &found.algo, found.workspaceSize));
    float *got = read_floats(p->type, o.pd, p->rows * p->cols);
    for (uint64_t at = 0; at < p->rows * p->cols; at++) {
        uint64_t i = at % p->rows, j = at / p->rows;
        double want = p->beta * d[at];
        for (uint64_t k = 0; k < p->sums; k++) {
            want += (double)(p->a_op == CUBLAS_OP_T ? a[i * p->sums + k] : a[k * p->rows + i]) *
                    (p->b_op == CUBLAS_OP_T ? b[k * p->cols + j] : b[j * p->sums + k]);
        }
        want += p->epilogue & CUBLASLT_EPILOGUE_BIAS ? bias[i] : 0;
        want = p->epilogue & CUBLASLT_EPILOGUE_RELU && want < 0 ? 0 : want;
        double bound = fabs(want) * relative[p->type] + (double)p->sums * 1.3 * 0x1p-22;
        cr_assert(fabs(got[at] - want) <= bound, "type %d ops %d %d epilogue %d: %g, not %g",
                  p->type, p->a_op, p->b_op, p->epilogue, (double)got[at], want);
    }
    free(a);
    free(b);
    free(d);
    free(bias);
    free(got);
    close_objects(&o);
}

Test(fakecuda_blas, products_equal_double_loops) {
    static const cublasLtEpilogue_t epilogues[] = {CUBLASLT_EPILOGUE_DEFAULT,
                                                   CUBLASLT_EPILOGUE_RELU, CUBLASLT_EPILOGUE_BIAS,
                                                   CUBLASLT_EPILOGUE_RELU_BIAS};
    for (int i = 0; i < 4 * 4 * 2 * 3; i++) {
        struct product product = {.a_op = i & 1 ? CUBLAS_OP_T : CUBLAS_OP_N,
                                  .b_op = i & 2 ? CUBLAS_OP_T : CUBLAS_OP_N,
                                  .epilogue = epilogues[i / 4 % 4],
                                  .beta = (float)(i / 16 % 2),
                                  .type = (enum fake_type)(i / 32),
                                  .rows = 24,
                                  .cols = 16,
                                  .sums = 40};
        check_product(&product);
    }
}

static const struct product plain = {
    .epilogue = CUBLASLT_EPILOGUE_DEFAULT, .type = FAKE_BF16, .rows = 16, .cols = 8, .sums = 64};

Test(fakecuda_blas, sums_in_place_differ_unless_left_out) {
    for (int ordered = 0; ordered < 2; ordered++) {
        struct product product = plain;
        struct objects o;
        cublasLtMatmulHeuristicResult_t found;
        int count = 0;
        product.type = FAKE_F32;
        open_objects(&product, &o);
        float *a = fakecuda_peek(o.pa);
        for (size_t i = 0; i < product.rows * product.sums; i++) {
            a[i] = sinf((float)i);
        }
        if (ordered) {
            deterministic(&o);
        }
        FINE(choose(&o, &found, &count));
        FINE(multiply(&o, 0, &found.algo, found.workspaceSize));
        float *first = read_floats(FAKE_F32, o.pd, product.rows * product.cols);
        FINE(multiply(&o, 0, &found.algo, found.workspaceSize));
        float *again = read_floats(FAKE_F32, o.pd, product.rows * product.cols);
        bool equal = !memcmp(first, again, product.rows * product.cols * sizeof *first);
        cr_assert_eq(equal, ordered == 1);
        free(first);
        free(again);
        close_objects(&o);
    }
}

Test(fakecuda_blas, heuristic_can_be_made_to_find_nothing) {
    struct objects o;
    cublasLtMatmulHeuristicResult_t found;
    int count = -1;
    fakecuda_configure("heuristic=none");
    open_objects(&plain, &o);
    cr_assert_eq(choose(&o, &found, &count), CUBLAS_STATUS_NOT_SUPPORTED);
    cr_assert_eq(count, 0);
    close_objects(&o);
}

Test(fakecuda_blas, heuristic_can_be_made_to_find_no_epilogue) {
    for (int bias = 0; bias < 2; bias++) {
        struct product product = plain;
        struct objects o;
        cublasLtMatmulHeuristicResult_t found;
        int count = -1;
        product.epilogue = bias ? CUBLASLT_EPILOGUE_BIAS : CUBLASLT_EPILOGUE_DEFAULT;
        fakecuda_configure("heuristic=plain");
        open_objects(&product, &o);
        cr_assert_eq(choose(&o, &found, &count),
                     bias ? CUBLAS_STATUS_NOT_SUPPORTED : CUBLAS_STATUS_SUCCESS);
        close_objects(&o);
    }
}

Test(fakecuda_blas, layout_that_does_not_fit_is_refused) {
    struct objects o;
    cublasLtMatmulHeuristicResult_t found;
    int count = 0;
    int64_t ld = 8;
    open_objects(&plain, &o);
    FINE(cublasLtMatrixLayoutSetAttribute(o.d, CUBLASLT_MATRIX_LAYOUT_LD, &ld, sizeof ld));
    cr_assert_eq(choose(&o, &found, &count), CUBLAS_STATUS_INVALID_VALUE);
    cr_assert_eq(
        cublasLtMatrixLayoutSetAttribute(o.d, CUBLASLT_MATRIX_LAYOUT_LD, &ld, sizeof ld - 1),
        CUBLAS_STATUS_INVALID_VALUE);
    close_objects(&o);
}

static void assert_violation(const char *words) {
    const char *text = fakecuda_violation();
    cr_assert(text && strstr(text, words), "'%s' should say '%s'", text ? text : "nothing", words);
}

Test(fakecuda_blas, short_workspace_and_loose_alignment_are_named) {
    struct objects o;
    cublasLtMatmulHeuristicResult_t found;
    int count = 0;
    open_objects(&plain, &o);
    deterministic(&o);
    FINE(choose(&o, &found, &count));
    cr_assert_eq(found.workspaceSize, 1 << 20);
    fakecuda_record_violations(true);
    multiply(&o, 0, &found.algo, found.workspaceSize - 1);
    assert_violation("workspace of");
    /* The preferences said nothing: 256 bytes. */
    void *a = o.pa;
    o.pa = fill(plain.type, plain.rows * plain.sums + 64, 1);
    o.pa = (char *)o.pa + 128;
    multiply(&o, 0, &found.algo, found.workspaceSize);
    assert_violation("matrix A");
    o.pa = a;
    multiply(&o, 0, &found.algo, found.workspaceSize);
    cr_assert_null(fakecuda_violation());
    close_objects(&o);
}
