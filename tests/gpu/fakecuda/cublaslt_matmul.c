/* SPDX-License-Identifier: Apache-2.0 */
/* The matrix product itself, with sums in fp32 that are rounded once. An algorithm begins its sums
 * at a place of its own: another algorithm, another rounding. */
#include "tests/gpu/fakecuda/cublaslt.h"
#include "tests/gpu/fakecuda/fakecuda.h"

#include <stdlib.h>
#include <string.h>

enum fake_type lt_type(uint32_t type) {
    return type == CUDA_R_32F    ? FAKE_F32
           : type == CUDA_R_16BF ? FAKE_BF16
           : type == CUDA_R_16F  ? FAKE_F16
                                 : FAKE_NO_TYPE;
}

enum fake_type lt_bias_type(const struct matmul *matmul) {
    int32_t type = matmul->description.bias_type;
    return lt_type(type < 0 ? matmul->d.type : (uint32_t)type);
}

bool lt_has_bias(const struct matmul *matmul) {
    return matmul->description.epilogue & CUBLASLT_EPILOGUE_BIAS;
}

uint64_t lt_sums(const struct matmul *matmul) {
    return matmul->description.transpose[0] == CUBLAS_OP_N ? matmul->a.cols : matmul->a.rows;
}

/* The matrix as floats, op(matrix) column-major without gaps: rows x cols. */
static float *unpack(const struct layout *layout, const void *matrix, bool turned) {
    size_t rows = layout->rows, cols = layout->cols;
    enum fake_type type = lt_type(layout->type);
    const char *from = fake_translate(matrix);
    float *floats = malloc(rows * cols * sizeof *floats), *column = malloc(rows * sizeof *column);
    if (!floats || !column) {
        abort();
    }
    for (size_t j = 0; j < cols; j++) {
        fake_to_float(type, from + j * (size_t)layout->ld * fake_type_bytes(type), rows, column);
        for (size_t i = 0; i < rows; i++) {
            floats[turned ? i * cols + j : j * rows + i] = column[i];
        }
    }
    free(column);
    return floats;
}

/* sum[i] += scale * from[i] */
static void add(float *restrict sum, float scale, const float *restrict from, size_t count) {
    for (size_t i = 0; i < count; i++) {
        sum[i] += scale * from[i];
    }
}

static void finish_column(const struct matmul *matmul, const float *bias, float *sum, size_t j,
                          float *column) {
    const struct layout *d = &matmul->d;
    enum fake_type type = lt_type(d->type);
    size_t rows = d->rows, bytes = fake_type_bytes(type);
    if (matmul->beta != 0) {
        const char *c = fake_translate(matmul->pc);
        fake_to_float(type, c + j * (size_t)matmul->c.ld * bytes, rows, column);
    }
    for (size_t i = 0; i < rows; i++) {
        float value = matmul->alpha * sum[i];
        value += matmul->beta != 0 ? matmul->beta * column[i] : 0;
        value += bias ? bias[i] : 0;
        /* NaN stays NaN. */
        bool relu = matmul->description.epilogue & CUBLASLT_EPILOGUE_RELU;
        sum[i] = relu && value < 0 ? 0 : value;
    }
    char *to = fake_translate(matmul->pd);
    fake_from_float(type, sum, rows, to + j * (size_t)d->ld * bytes);
}

void lt_run(void *closure) {
    const struct matmul *matmul = closure;
    static uint64_t runs;
    size_t rows = matmul->d.rows, sums = lt_sums(matmul);
    uint64_t first = matmul->algorithm.scrambled ? ++runs * 7 : matmul->algorithm.workspace >> 18;
    float *a = unpack(&matmul->a, matmul->pa, matmul->description.transpose[0] == CUBLAS_OP_T);
    float *b = unpack(&matmul->b, matmul->pb, matmul->description.transpose[1] == CUBLAS_OP_T);
    float *sum = calloc(2 * rows, sizeof *sum), *bias = NULL;
    if (lt_has_bias(matmul)) {
        bias = calloc(rows, sizeof *bias);
        fake_to_float(lt_bias_type(matmul), fake_translate(matmul->description.bias), rows, bias);
    }
    if (matmul->algorithm.workspace) {
        memset(fake_translate(matmul->workspace), 0xff, matmul->algorithm.workspace);
    }
    for (size_t j = 0; j < matmul->d.cols; j++) {
        memset(sum, 0, rows * sizeof *sum);
        for (size_t k = 0; k < sums; k++) {
            size_t l = (k + first) % sums;
            add(sum, b[j * sums + l], a + l * rows, rows);
        }
        finish_column(matmul, bias, sum, j, sum + rows);
    }
    free(a);
    free(b);
    free(sum);
    free(bias);
}
