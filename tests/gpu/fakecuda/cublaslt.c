/* SPDX-License-Identifier: Apache-2.0 */
/* libcublasLt.so.13: D = epilogue(alpha * op(A) * op(B) + beta * C), column-major.
 *
 * Checks what the real one needs: shapes, leading dimensions, types, pointers as aligned as the
 * heuristic was told, the workspace it asked for. An algorithm carries the facts about it in its
 * opaque words. The algorithm that adds parts of sums in place gives other bits each time; it is
 * the first choice unless the preferences leave it out. */
#include "tests/gpu/fakecuda/cublaslt.h"
#include "tests/gpu/fakecuda/fakecuda.h"

#include <stdlib.h>
#include <string.h>

enum {
    MAGIC = 0x6c743131,
    SPLIT_WORKSPACE = 1 << 20,
};

struct cublasLtContext {
    uint32_t magic;
};

_Static_assert(sizeof(struct layout) <= sizeof(cublasLtMatrixLayoutOpaque_t), "fits");
_Static_assert(sizeof(struct description) <= sizeof(cublasLtMatmulDescOpaque_t), "fits");
_Static_assert(sizeof(struct preference) <= sizeof(cublasLtMatmulPreferenceOpaque_t), "fits");
_Static_assert(sizeof(struct algorithm) <= sizeof(cublasLtMatmulAlgo_t), "fits");

/* Where an attribute lies in its struct. */
struct field {
    int attribute;
    size_t offset, bytes;
};

#define FIELD(attribute, type, member)                                                             \
    { attribute, offsetof(struct type, member), sizeof((struct type){0}.member) }

static const struct field description_fields[] = {
    FIELD(CUBLASLT_MATMUL_DESC_TRANSA, description, transpose[0]),
    FIELD(CUBLASLT_MATMUL_DESC_TRANSB, description, transpose[1]),
    FIELD(CUBLASLT_MATMUL_DESC_EPILOGUE, description, epilogue),
    FIELD(CUBLASLT_MATMUL_DESC_BIAS_POINTER, description, bias),
    FIELD(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, description, bias_type),
};

static const struct field layout_fields[] = {
    FIELD(CUBLASLT_MATRIX_LAYOUT_TYPE, layout, type),
    FIELD(CUBLASLT_MATRIX_LAYOUT_ORDER, layout, order),
    FIELD(CUBLASLT_MATRIX_LAYOUT_ROWS, layout, rows),
    FIELD(CUBLASLT_MATRIX_LAYOUT_COLS, layout, cols),
    FIELD(CUBLASLT_MATRIX_LAYOUT_LD, layout, ld),
};

static const struct field preference_fields[] = {
    FIELD(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, preference, workspace),
    FIELD(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, preference, reduction),
    FIELD(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, preference, alignment[0]),
    FIELD(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, preference, alignment[1]),
    FIELD(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, preference, alignment[2]),
    FIELD(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, preference, alignment[3]),
};

#define SET(fields, to, attribute, from, bytes)                                                    \
    set(fields, sizeof fields / sizeof fields[0], to, (int)(attribute), from, bytes)

static cublasStatus_t set(const struct field *fields, size_t count, void *to, int attribute,
                          const void *from, size_t bytes) {
    for (size_t i = 0; i < count; i++) {
        if (fields[i].attribute == attribute && fields[i].bytes == bytes && from) {
            memcpy((char *)to + fields[i].offset, from, bytes);
            return CUBLAS_STATUS_SUCCESS;
        }
    }
    return CUBLAS_STATUS_INVALID_VALUE;
}

/* Space of the size of the header's struct, which begins with ours. */
static cublasStatus_t make(const void *ours, size_t our_bytes, size_t bytes, void *ret_object) {
    void *object = calloc(1, bytes);
    if (!object) {
        return CUBLAS_STATUS_ALLOC_FAILED;
    }
    memcpy(object, ours, our_bytes);
    memcpy(ret_object, &object, sizeof object);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtCreate(cublasLtHandle_t *handle) {
    cudaError_t code = fake_enter("cublasLtCreate");
    bool device = fake_settings()->devices > 0;
    fake_leave(code);
    struct cublasLtContext context = {.magic = MAGIC};
    return code || !device ? CUBLAS_STATUS_NOT_INITIALIZED
                           : make(&context, sizeof context, sizeof context, handle);
}

cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle) {
    free(handle);
    return CUBLAS_STATUS_SUCCESS;
}

size_t cublasLtGetVersion(void) {
    return CUBLAS_VERSION;
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *ret, cublasComputeType_t compute,
                                        cudaDataType_t scale) {
    struct description ours = {.compute = compute,
                               .scale = scale,
                               .epilogue = CUBLASLT_EPILOGUE_DEFAULT,
                               .transpose = {CUBLAS_OP_N, CUBLAS_OP_N},
                               .bias_type = -1};
    return make(&ours, sizeof ours, sizeof **ret, ret);
}

cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t description) {
    free(description);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t description,
                                              cublasLtMatmulDescAttributes_t attribute,
                                              const void *value, size_t bytes) {
    return SET(description_fields, description, attribute, value, bytes);
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *ret, cudaDataType type,
                                          uint64_t rows, uint64_t cols, int64_t ld) {
    struct layout ours = {
        .type = type, .order = CUBLASLT_ORDER_COL, .rows = rows, .cols = cols, .ld = ld};
    return make(&ours, sizeof ours, sizeof **ret, ret);
}

cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout) {
    free(layout);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t layout,
                                                cublasLtMatrixLayoutAttribute_t attribute,
                                                const void *value, size_t bytes) {
    return SET(layout_fields, layout, attribute, value, bytes);
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *ret) {
    struct preference ours = {.reduction = CUBLASLT_REDUCTION_SCHEME_MASK,
                              .alignment = {256, 256, 256, 256}};
    return make(&ours, sizeof ours, sizeof **ret, ret);
}

cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference) {
    free(preference);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t attribute,
                                                    const void *value, size_t bytes) {
    return SET(preference_fields, preference, attribute, value, bytes);
}

/* ---- the product ---- */

static bool layout_fits(const struct layout *layout, uint64_t rows, uint64_t cols) {
    return layout->order == CUBLASLT_ORDER_COL && layout->rows == rows && layout->cols == cols &&
           layout->ld >= (int64_t)rows;
}

static cublasStatus_t check(const struct matmul *matmul) {
    const struct description *description = &matmul->description;
    uint64_t rows = matmul->d.rows, cols = matmul->d.cols, sums = lt_sums(matmul);
    bool a_turned = description->transpose[0] == CUBLAS_OP_T;
    bool b_turned = description->transpose[1] == CUBLAS_OP_T;
    if (!layout_fits(&matmul->a, a_turned ? sums : rows, a_turned ? rows : sums) ||
        !layout_fits(&matmul->b, b_turned ? cols : sums, b_turned ? sums : cols) ||
        !layout_fits(&matmul->c, rows, cols) || !layout_fits(&matmul->d, rows, cols)) {
        return CUBLAS_STATUS_INVALID_VALUE;
    }
    enum fake_type in = lt_type(matmul->a.type), out = lt_type(matmul->d.type);
    bool types = in != FAKE_NO_TYPE && matmul->b.type == matmul->a.type &&
                 matmul->c.type == matmul->d.type && (out == in || out == FAKE_F32);
    bool compute = description->scale == CUDA_R_32F &&
                   (description->compute == CUBLAS_COMPUTE_32F ||
                    (description->compute == CUBLAS_COMPUTE_32F_FAST_TF32 && in == FAKE_F32));
    bool epilogue = description->epilogue == CUBLASLT_EPILOGUE_DEFAULT ||
                    description->epilogue == CUBLASLT_EPILOGUE_RELU ||
                    description->epilogue == CUBLASLT_EPILOGUE_BIAS ||
                    description->epilogue == CUBLASLT_EPILOGUE_RELU_BIAS;
    bool bias = !lt_has_bias(matmul) || lt_bias_type(matmul) == in || lt_bias_type(matmul) == out;
    /* 16-byte loads along the leading dimension. */
    size_t step = 16 / fake_type_bytes(in);
    bool aligned =
        in == FAKE_F32 || (matmul->a.ld % (int64_t)step == 0 && matmul->b.ld % (int64_t)step == 0);
    return types && compute && epilogue && bias && aligned ? CUBLAS_STATUS_SUCCESS
                                                           : CUBLAS_STATUS_NOT_SUPPORTED;
}

static void load(struct matmul *matmul, cublasLtMatmulDesc_t description,
                 const cublasLtMatrixLayout_t layouts[4]) {
    memcpy(&matmul->description, description, sizeof matmul->description);
    memcpy(&matmul->a, layouts[0], sizeof matmul->a);
    memcpy(&matmul->b, layouts[1], sizeof matmul->b);
    memcpy(&matmul->c, layouts[2], sizeof matmul->c);
    memcpy(&matmul->d, layouts[3], sizeof matmul->d);
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t handle,
                                              cublasLtMatmulDesc_t description,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preference, int room,
                                              cublasLtMatmulHeuristicResult_t results[],
                                              int *ret_count) {
    struct matmul matmul = {0};
    struct preference wish;
    cudaError_t code = fake_enter("cublasLtMatmulAlgoGetHeuristic");
    bool none = fake_settings()->heuristic_none;
    fake_leave(code);
    if (!handle || handle->magic != MAGIC || room < 1 || code) {
        return CUBLAS_STATUS_INVALID_VALUE;
    }
    load(&matmul, description, (cublasLtMatrixLayout_t[]){a, b, c, d});
    memcpy(&wish, preference, sizeof wish);
    none = none || (fake_settings()->heuristic_plain &&
                    matmul.description.epilogue != CUBLASLT_EPILOGUE_DEFAULT);
    cublasStatus_t status = check(&matmul);
    const struct algorithm candidates[] = {
        {.scrambled = 1}, {.workspace = SPLIT_WORKSPACE}, {.workspace = 0}};
    int count = 0;
    for (int i = 0; i < 3 && count < room && status == CUBLAS_STATUS_SUCCESS && !none; i++) {
        struct algorithm algorithm = candidates[i];
        if ((algorithm.scrambled && !(wish.reduction & CUBLASLT_REDUCTION_SCHEME_INPLACE)) ||
            algorithm.workspace > wish.workspace) {
            continue;
        }
        algorithm.magic = MAGIC;
        memcpy(algorithm.alignment, wish.alignment, sizeof algorithm.alignment);
        cublasLtMatmulHeuristicResult_t *result = &results[count++];
        *result = (cublasLtMatmulHeuristicResult_t){
            .workspaceSize = algorithm.workspace, .state = CUBLAS_STATUS_SUCCESS, .wavesCount = 1};
        memcpy(&result->algo, &algorithm, sizeof algorithm);
    }
    *ret_count = count;
    return status == CUBLAS_STATUS_SUCCESS && count == 0 ? CUBLAS_STATUS_NOT_SUPPORTED : status;
}

static struct fake_range range_of(const struct layout *layout, const void *matrix, bool write) {
    size_t values = (size_t)layout->ld * (layout->cols - 1) + layout->rows;
    return (struct fake_range){
        .memory = matrix, .bytes = values * fake_type_bytes(lt_type(layout->type)), .write = write};
}

static void check_alignment(const struct matmul *matmul) {
    const void *const pointers[] = {matmul->pa, matmul->pb, matmul->pc, matmul->pd};
    for (int i = 0; i < 4; i++) {
        uint32_t alignment = matmul->algorithm.alignment[i];
        if (alignment && (uintptr_t)pointers[i] % alignment) {
            fake_violation("cublasLtMatmul: matrix %c at %p is not aligned to %u bytes, as the "
                           "preferences said",
                           "ABCD"[i], pointers[i], alignment);
        }
    }
}

static cublasStatus_t queue(const struct matmul *params, size_t workspace_bytes,
                            cudaStream_t stream) {
    struct matmul *matmul = malloc(sizeof *matmul);
    cudaStream_t real = fake_stream_of(stream);
    if (!matmul || !real) {
        free(matmul);
        return CUBLAS_STATUS_INVALID_VALUE;
    }
    *matmul = *params;
    struct fake_range ranges[6] = {range_of(&matmul->a, matmul->pa, false),
                                   range_of(&matmul->b, matmul->pb, false),
                                   range_of(&matmul->d, matmul->pd, true)};
    size_t count = 3;
    if (matmul->beta != 0) {
        ranges[count++] = range_of(&matmul->c, matmul->pc, false);
    }
    if (lt_has_bias(matmul)) {
        size_t bytes = matmul->d.rows * fake_type_bytes(lt_bias_type(matmul));
        ranges[count++] = (struct fake_range){.memory = matmul->description.bias, .bytes = bytes};
    }
    if (matmul->algorithm.workspace > workspace_bytes) {
        fake_violation("cublasLtMatmul: workspace of %zu bytes, the algorithm needs %llu",
                       workspace_bytes, (unsigned long long)matmul->algorithm.workspace);
    }
    if (matmul->algorithm.workspace) {
        ranges[count++] = (struct fake_range){
            .memory = matmul->workspace, .bytes = matmul->algorithm.workspace, .write = true};
    }
    struct fake_work work = {.name = "cublasLtMatmul",
                             .ranges = ranges,
                             .count = count,
                             .run = lt_run,
                             .done = free,
                             .closure = matmul};
    return fake_submit(real, &work) ? CUBLAS_STATUS_EXECUTION_FAILED : CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t description,
                              const void *alpha, const void *a, cublasLtMatrixLayout_t a_layout,
                              const void *b, cublasLtMatrixLayout_t b_layout, const void *beta,
                              const void *c, cublasLtMatrixLayout_t c_layout, void *d,
                              cublasLtMatrixLayout_t d_layout, const cublasLtMatmulAlgo_t *algo,
                              void *workspace, size_t workspace_bytes, cudaStream_t stream) {
    if (!handle || handle->magic != MAGIC || !alpha || !beta) {
        return CUBLAS_STATUS_INVALID_VALUE;
    }
    struct matmul matmul = {.pa = a,
                            .pb = b,
                            .pc = c,
                            .pd = d,
                            .workspace = workspace,
                            .alpha = *(const float *)alpha,
                            .beta = *(const float *)beta};
    load(&matmul, description, (cublasLtMatrixLayout_t[]){a_layout, b_layout, c_layout, d_layout});
    if (algo) {
        memcpy(&matmul.algorithm, algo, sizeof matmul.algorithm);
    }
    cudaError_t code = fake_enter("cublasLtMatmul");
    cublasStatus_t status = code ? CUBLAS_STATUS_EXECUTION_FAILED : check(&matmul);
    if (status == CUBLAS_STATUS_SUCCESS &&
        ((algo && matmul.algorithm.magic != MAGIC) ||
         (matmul.beta != 0 && c == d && matmul.c.ld != matmul.d.ld))) {
        status = CUBLAS_STATUS_INVALID_VALUE;
    }
    if (status == CUBLAS_STATUS_SUCCESS) {
        check_alignment(&matmul);
        status = queue(&matmul, workspace_bytes, stream);
    }
    fake_leave(cudaSuccess);
    return status;
}

/* ---- words ---- */

const char *cublasLtGetStatusName(cublasStatus_t status) {
    switch (status) {
    case CUBLAS_STATUS_SUCCESS:
        return "CUBLAS_STATUS_SUCCESS";
    case CUBLAS_STATUS_NOT_INITIALIZED:
        return "CUBLAS_STATUS_NOT_INITIALIZED";
    case CUBLAS_STATUS_ALLOC_FAILED:
        return "CUBLAS_STATUS_ALLOC_FAILED";
    case CUBLAS_STATUS_INVALID_VALUE:
        return "CUBLAS_STATUS_INVALID_VALUE";
    case CUBLAS_STATUS_EXECUTION_FAILED:
        return "CUBLAS_STATUS_EXECUTION_FAILED";
    case CUBLAS_STATUS_NOT_SUPPORTED:
        return "CUBLAS_STATUS_NOT_SUPPORTED";
    default:
        return "CUBLAS_STATUS_INTERNAL_ERROR";
    }
}

const char *cublasLtGetStatusString(cublasStatus_t status) {
    return cublasLtGetStatusName(status);
}
