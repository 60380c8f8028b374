/* SPDX-License-Identifier: Apache-2.0 */
/* The stand-in of cuDNN: convolutions against independent double loops, and what it refuses. */
#include "tests/gpu/fakecuda/numbers.h"
#include "tests/gpu/fakecuda/testing.h"

#include <criterion/criterion.h>
#include <cudnn_graph.h>
#include <math.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FINE(call)                                                                                 \
    do {                                                                                           \
        cudnnStatus_t status_ = (call);                                                            \
        char words_[256];                                                                          \
        cudnnGetLastErrorString(words_, sizeof words_);                                            \
        cr_assert_eq(status_, CUDNN_STATUS_SUCCESS, "%s: %s", #call, words_);                      \
    } while (0)

enum op {
    FORWARD,
    FORWARD_BIAS,
    FORWARD_BIAS_RELU,
    BACKWARD_DATA,
    BACKWARD_FILTER,
    OPS,
};

enum {
    X = 1,
    W,
    Y,
    BIAS,
    PRODUCT,
    SUM,
    TENSORS = 4,
    ENGINES_MAX = 16,
};

struct shape {
    int64_t n, c, h, w, k, r, s, stride, pad;
};

static const struct shape shapes[] = {
    {2, 8, 7, 5, 16, 3, 3, 1, 1},
    {1, 16, 8, 8, 8, 1, 1, 2, 0},
    {3, 8, 9, 11, 8, 5, 3, 2, 2},
};

static int64_t rows_of(const struct shape *g) {
    return (g->h + 2 * g->pad - g->r) / g->stride + 1;
}

static int64_t cols_of(const struct shape *g) {
    return (g->w + 2 * g->pad - g->s) / g->stride + 1;
}

static size_t count_of(const struct shape *g, int tensor) {
    const int64_t counts[] = {g->n * g->h * g->w * g->c, g->k * g->r * g->s * g->c,
                              g->n * rows_of(g) * cols_of(g) * g->k, g->k};
    return (size_t)counts[tensor - X];
}

/* ---- descriptors ---- */

struct attribute {
    cudnnBackendAttributeName_t name;
    cudnnBackendAttributeType_t type;
    int64_t count;
    const void *values;
};

/* All that a test made; destroyed at its end. */
static struct {
    cudnnBackendDescriptor_t descriptors[2048];
    size_t count;
    cudnnHandle_t handle;
    cudaStream_t stream;
} made_here;

static cudnnStatus_t create(cudnnBackendDescriptorType_t kind, cudnnBackendDescriptor_t *ret) {
    cudnnStatus_t status = cudnnBackendCreateDescriptor(kind, ret);
    cr_assert_lt(made_here.count, sizeof made_here.descriptors / sizeof made_here.descriptors[0]);
    made_here.descriptors[made_here.count++] = *ret;
    return status;
}

static void destroy_descriptors(void) {
    while (made_here.count > 0) {
        FINE(cudnnBackendDestroyDescriptor(made_here.descriptors[--made_here.count]));
    }
}

static void finish(void) {
    destroy_descriptors();
    if (made_here.handle) {
        FINE(cudnnDestroy(made_here.handle));
    }
}

TestSuite(fakecuda_dnn, .fini = finish);

static cudnnStatus_t try_make(cudnnBackendDescriptorType_t kind, const struct attribute *rows,
                              size_t count, cudnnBackendDescriptor_t *ret) {
    cudnnStatus_t status = create(kind, ret);
    for (size_t i = 0; i < count && status == CUDNN_STATUS_SUCCESS; i++) {
        status = cudnnBackendSetAttribute(*ret, rows[i].name, rows[i].type, rows[i].count,
                                          rows[i].values);
    }
    return status == CUDNN_STATUS_SUCCESS ? cudnnBackendFinalize(*ret) : status;
}

#define TRY(kind, rows, ret) try_make(kind, rows, sizeof(rows) / sizeof((rows)[0]), ret)

static cudnnBackendDescriptor_t tensor(int64_t uid, cudnnDataType_t type, const int64_t dims[4]) {
    cudnnBackendDescriptor_t made;
    int64_t alignment = 16;
    int64_t strides[4] = {dims[1] * dims[2] * dims[3], 1, dims[1] * dims[3], dims[1]};
    bool is_virtual = uid >= PRODUCT;
    const struct attribute rows[] = {
        {CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, &uid},
        {CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &type},
        {CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, 1, &alignment},
        {CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 4, dims},
        {CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, 4, strides},
        {CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, 1, &is_virtual},
    };
    FINE(TRY(CUDNN_BACKEND_TENSOR_DESCRIPTOR, rows, &made));
    return made;
}

static cudnnBackendDescriptor_t window(const struct shape *g) {
    cudnnBackendDescriptor_t made;
    int64_t dims = 2, one[2] = {1, 1}, stride[2] = {g->stride, g->stride};
    int64_t pad[2] = {g->pad, g->pad};
    cudnnDataType_t sums = CUDNN_DATA_FLOAT;
    cudnnConvolutionMode_t mode = CUDNN_CROSS_CORRELATION;
    const struct attribute rows[] = {
        {CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, CUDNN_TYPE_INT64, 1, &dims},
        {CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &sums},
        {CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, 1, &mode},
        {CUDNN_ATTR_CONVOLUTION_DILATIONS, CUDNN_TYPE_INT64, 2, one},
        {CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, CUDNN_TYPE_INT64, 2, stride},
        {CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, CUDNN_TYPE_INT64, 2, pad},
        {CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, CUDNN_TYPE_INT64, 2, pad},
    };
    FINE(TRY(CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR, rows, &made));
    return made;
}

/* Kinds and attributes of the three directions, in the order window, x, w, y, alpha, beta. */
static const int directions[3][7] = {
    {CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR,
     CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X,
     CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y,
     CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA},
    {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR,
     CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC,
     CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W,
     CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA,
     CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA},
    {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR,
     CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC,
     CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW,
     CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY,
     CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA,
     CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA},
};

static cudnnBackendDescriptor_t convolution(enum op op, const cudnnBackendDescriptor_t parts[4]) {
    const int *direction = directions[op < BACKWARD_DATA ? 0 : op - BACKWARD_DATA + 1];
    cudnnBackendDescriptor_t made;
    float one = 1, zero = 0;
    struct attribute rows[6];
    for (int i = 0; i < 6; i++) {
        rows[i] = (struct attribute){(cudnnBackendAttributeName_t)direction[i + 1],
                                     i < 4 ? CUDNN_TYPE_BACKEND_DESCRIPTOR : CUDNN_TYPE_FLOAT, 1,
                                     i < 4    ? (const void *)&parts[i]
                                     : i == 4 ? (const void *)&one
                                              : (const void *)&zero};
    }
    FINE(TRY((cudnnBackendDescriptorType_t)direction[0], rows, &made));
    return made;
}

static cudnnBackendDescriptor_t pointwise(cudnnPointwiseMode_t mode, cudnnBackendDescriptor_t x,
                                          cudnnBackendDescriptor_t b, cudnnBackendDescriptor_t y) {
    cudnnBackendDescriptor_t what, made;
    cudnnDataType_t sums = CUDNN_DATA_FLOAT;
    const struct attribute what_rows[] = {
        {CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, 1, &mode},
        {CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_TYPE_DATA_TYPE, 1, &sums},
    };
    FINE(TRY(CUDNN_BACKEND_POINTWISE_DESCRIPTOR, what_rows, &what));
    const struct attribute rows[] = {
        {CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &what},
        {CUDNN_ATTR_OPERATION_POINTWISE_XDESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &x},
        {CUDNN_ATTR_OPERATION_POINTWISE_YDESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &y},
        {CUDNN_ATTR_OPERATION_POINTWISE_BDESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &b},
    };
    FINE(try_make(CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR, rows, b ? 4 : 3, &made));
    return made;
}

static const cudnnDataType_t cudnn_types[] = {CUDNN_DATA_FLOAT, CUDNN_DATA_BFLOAT16,
                                              CUDNN_DATA_HALF};

/* The graph of the operation; uid_y: the identifier of y, Y unless a test wants another. */
static cudnnStatus_t graph(enum op op, const struct shape *g, enum fake_type type, int64_t uid_y,
                           cudnnBackendDescriptor_t *ret) {
    cudnnDataType_t t = cudnn_types[type];
    const int64_t dims[][4] = {{g->n, g->c, g->h, g->w},
                               {g->k, g->c, g->r, g->s},
                               {g->n, g->k, rows_of(g), cols_of(g)},
                               {1, g->k, 1, 1}};
    bool bias = op == FORWARD_BIAS || op == FORWARD_BIAS_RELU;
    cudnnBackendDescriptor_t y = tensor(uid_y, t, dims[2]), chain[3];
    cudnnBackendDescriptor_t product = bias ? tensor(PRODUCT, t, dims[2]) : y;
    cudnnBackendDescriptor_t sum = op == FORWARD_BIAS_RELU ? tensor(SUM, t, dims[2]) : y;
    const cudnnBackendDescriptor_t parts[] = {window(g), tensor(X, t, dims[0]),
                                              tensor(W, t, dims[1]), product};
    int64_t length = 0;
    chain[length++] = convolution(op, parts);
    if (bias) {
        chain[length++] = pointwise(CUDNN_POINTWISE_ADD, product, tensor(BIAS, t, dims[3]), sum);
    }
    if (op == FORWARD_BIAS_RELU) {
        chain[length++] = pointwise(CUDNN_POINTWISE_RELU_FWD, sum, NULL, y);
    }
    const struct attribute rows[] = {
        {CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, length, chain}};
    return TRY(CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR, rows, ret);
}

static cudnnBackendDescriptor_t device(void) {
    cudnnBackendDescriptor_t made;
    int32_t ordinal = 0;
    const struct attribute rows[] = {
        {CUDNN_ATTR_DEVICEPROP_DEVICE_ID, CUDNN_TYPE_INT32, 1, &ordinal}};
    FINE(TRY(CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR, rows, &made));
    return made;
}

/* Configurations for the graph. */
static int64_t configurations(cudnnBackendDescriptor_t of, cudnnBackendDescriptor_t *ret_configs) {
    cudnnBackendDescriptor_t heuristics, properties = device();
    cudnnBackendHeurMode_t mode = CUDNN_HEUR_MODE_A;
    int64_t count = 0;
    const struct attribute rows[] = {
        {CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &of},
        {CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode},
        {CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &properties},
    };
    FINE(TRY(CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR, rows, &heuristics));
    for (int i = 0; i < ENGINES_MAX; i++) {
        FINE(create(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR, &ret_configs[i]));
    }
    FINE(cudnnBackendGetAttribute(heuristics, CUDNN_ATTR_ENGINEHEUR_RESULTS,
                                  CUDNN_TYPE_BACKEND_DESCRIPTOR, ENGINES_MAX, &count, ret_configs));
    return count;
}

static cudnnStatus_t plan_of(cudnnBackendDescriptor_t config, cudnnBackendDescriptor_t *ret_plan) {
    cudnnBackendDescriptor_t properties = device();
    const struct attribute rows[] = {
        {CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &config},
        {CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &properties},
    };
    return TRY(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR, rows, ret_plan);
}

static int64_t workspace_of(cudnnBackendDescriptor_t plan) {
    int64_t count, bytes = -1;
    FINE(cudnnBackendGetAttribute(plan, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64,
                                  1, &count, &bytes));
    return bytes;
}

static int64_t engine_of(cudnnBackendDescriptor_t config) {
    cudnnBackendDescriptor_t engine;
    int64_t count, number = -1;
    FINE(create(CUDNN_BACKEND_ENGINE_DESCRIPTOR, &engine));
    FINE(cudnnBackendGetAttribute(config, CUDNN_ATTR_ENGINECFG_ENGINE,
                                  CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &count, &engine));
    FINE(cudnnBackendGetAttribute(engine, CUDNN_ATTR_ENGINE_GLOBAL_INDEX, CUDNN_TYPE_INT64, 1,
                                  &count, &number));
    return number;
}

/* ---- memory and execution ---- */

struct memory {
    void *device[TENSORS], *workspace;
};

static cudnnStatus_t execute(cudnnBackendDescriptor_t plan, const struct memory *memory,
                             int64_t tensors) {
    cudnnBackendDescriptor_t pack;
    const int64_t uids[] = {X, W, Y, BIAS};
    if (!made_here.handle) {
        cr_assert_eq(cudaStreamCreateWithFlags(&made_here.stream, cudaStreamNonBlocking),
                     cudaSuccess);
        FINE(cudnnCreate(&made_here.handle));
        FINE(cudnnSetStream(made_here.handle, made_here.stream));
    }
    const struct attribute rows[] = {
        {CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, tensors, uids},
        {CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, tensors, memory->device},
        {CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1, &memory->workspace},
    };
    FINE(TRY(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, rows, &pack));
    cudnnStatus_t status = cudnnBackendExecute(made_here.handle, plan, pack);
    cr_assert_eq(cudaStreamSynchronize(made_here.stream), cudaSuccess);
    return status;
}

/* Fills all tensors with small numbers that differ. */
static void fill(const struct shape *g, enum fake_type type, struct memory *memory) {
    for (int i = 0; i < TENSORS; i++) {
        size_t count = count_of(g, X + i);
        float *values = calloc(count, sizeof *values);
        for (size_t k = 0; k < count; k++) {
            values[k] = (float)((int)((k * 37 + (size_t)i * 11) % 23) - 11) / 16;
        }
        cr_assert_eq(cudaMalloc(&memory->device[i], count * fake_type_bytes(type)), cudaSuccess);
        fake_from_float(type, values, count, fakecuda_peek(memory->device[i]));
        free(values);
    }
    cr_assert_eq(cudaMalloc(&memory->workspace, 65536), cudaSuccess);
}

static float *read_floats(enum fake_type type, const void *device, size_t count) {
    float *values = calloc(count, sizeof *values);
    fake_to_float(type, fakecuda_peek(device), count, values);
    return values;
}

/* The sum of all terms of the convolution, each added where the operation wants it. */
static double *oracle(enum op op, const struct shape *g, float *const f[TENSORS]) {
    int output = op == BACKWARD_DATA ? X : op == BACKWARD_FILTER ? W : Y;
    double *sums = calloc(count_of(g, output), sizeof *sums);
    int64_t cols = cols_of(g), total = (int64_t)count_of(g, Y) * g->r * g->s * g->c;
    for (int64_t i = 0; i < total; i++) {
        int64_t c = i % g->c, s = i / g->c % g->s, r = i / g->c / g->s % g->r;
        int64_t y = i / g->c / g->s / g->r, k = y % g->k, q = y / g->k % cols;
        int64_t p = y / g->k / cols % rows_of(g), n = y / g->k / cols / rows_of(g);
        int64_t h = p * g->stride - g->pad + r, w = q * g->stride - g->pad + s;
        if (h < 0 || h >= g->h || w < 0 || w >= g->w) {
            continue;
        }
        int64_t x = ((n * g->h + h) * g->w + w) * g->c + c;
        int64_t kernel = ((k * g->r + r) * g->s + s) * g->c + c;
        if (output == X) {
            sums[x] += (double)f[Y - X][y] * f[W - X][kernel];
        } else if (output == W) {
            sums[kernel] += (double)f[Y - X][y] * f[0][x];
        } else {
            sums[y] += (double)f[0][x] * f[W - X][kernel];
        }
    }
    for (size_t i = 0; i < count_of(g, Y) && (op == FORWARD_BIAS || op == FORWARD_BIAS_RELU); i++) {
        sums[i] += f[BIAS - X][i % (size_t)g->k];
        sums[i] = op == FORWARD_BIAS_RELU && sums[i] < 0 ? 0 : sums[i];
    }
    return sums;
}

static void check_case(enum op op, const struct shape *g, enum fake_type type) {
    /* Half an ulp of the result, and the sums of at most 600 fp32 terms below 0.5 in it. */
    static const double relative[] = {0x1p-24, 0x1p-8, 0x1p-11};
    cudnnBackendDescriptor_t of, configs[ENGINES_MAX], plan;
    struct memory memory;
    float *floats[TENSORS];
    int output = op == BACKWARD_DATA ? X : op == BACKWARD_FILTER ? W : Y;
    fill(g, type, &memory);
    for (int i = 0; i < TENSORS; i++) {
        floats[i] = read_floats(type, memory.device[i], count_of(g, X + i));
    }
    double *want = oracle(op, g, floats);
    FINE(graph(op, g, type, Y, &of));
    int64_t count = configurations(of, configs);
    FINE(plan_of(configs[count - 1], &plan));
    FINE(execute(plan, &memory, TENSORS));
    float *got = read_floats(type, memory.device[output - X], count_of(g, output));
    for (size_t i = 0; i < count_of(g, output); i++) {
        double bound = fabs(want[i]) * relative[type] + 600 * 0.5 * 0x1p-22;
        cr_assert(fabs(got[i] - want[i]) <= bound, "op %d type %d c %d value %zu: %g, not %g", op,
                  type, (int)g->c, i, (double)got[i], want[i]);
    }
    for (int i = 0; i < TENSORS; i++) {
        cudaFree(memory.device[i]);
        free(floats[i]);
    }
    cudaFree(memory.workspace);
    free(want);
    free(got);
    destroy_descriptors();
}

Test(fakecuda_dnn, convolutions_equal_double_loops) {
    for (enum op op = FORWARD; op < OPS; op++) {
        for (enum fake_type type = FAKE_F32; type < FAKE_NO_TYPE; type++) {
            for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
                check_case(op, &shapes[i], type);
            }
        }
    }
}

/* The plan of the engine with this number. */
static cudnnBackendDescriptor_t plan_of_engine(enum op op, int64_t engine) {
    cudnnBackendDescriptor_t of, configs[ENGINES_MAX], plan = NULL;
    FINE(graph(op, &shapes[0], FAKE_F32, Y, &of));
    int64_t count = configurations(of, configs);
    for (int64_t i = 0; i < count; i++) {
        if (engine_of(configs[i]) == engine) {
            FINE(plan_of(configs[i], &plan));
        }
    }
    cr_assert_not_null(plan);
    return plan;
}

static float *result_of(cudnnBackendDescriptor_t plan, const struct memory *memory) {
    FINE(execute(plan, memory, TENSORS));
    return read_floats(FAKE_F32, memory->device[Y - X], count_of(&shapes[0], Y));
}

Test(fakecuda_dnn, engines_round_differently_and_one_differs_from_itself) {
    struct memory memory;
    size_t bytes = count_of(&shapes[0], Y) * sizeof(float);
    fill(&shapes[0], FAKE_F32, &memory);
    /* Numbers with many bits, so that another order of summation shows. */
    float *x = fakecuda_peek(memory.device[0]);
    for (size_t i = 0; i < count_of(&shapes[0], X); i++) {
        x[i] = sinf((float)i);
    }
    float *first = result_of(plan_of_engine(FORWARD, 3), &memory);
    float *again = result_of(plan_of_engine(FORWARD, 3), &memory);
    float *other = result_of(plan_of_engine(FORWARD, 4), &memory);
    float *wild = result_of(plan_of_engine(FORWARD, 2), &memory);
    float *wilder = result_of(plan_of_engine(FORWARD, 2), &memory);
    cr_assert_eq(memcmp(first, again, bytes), 0);
    cr_assert_neq(memcmp(first, other, bytes), 0);
    cr_assert_neq(memcmp(wild, wilder, bytes), 0);
    float *const results[] = {first, again, other, wild, wilder};
    for (int i = 0; i < 5; i++) {
        free(results[i]);
    }
}

Test(fakecuda_dnn, plan_survives_the_way_through_text) {
    cudnnBackendDescriptor_t plan = plan_of_engine(FORWARD_BIAS_RELU, 4), again;
    cudnnBackendDescriptor_t properties = device();
    char text[4096];
    int64_t count = 0;
    FINE(cudnnBackendGetAttribute(plan, CUDNN_ATTR_EXECUTION_PLAN_JSON_REPRESENTATION,
                                  CUDNN_TYPE_CHAR, sizeof text, &count, text));
    cr_assert_eq((size_t)count, strlen(text) + 1);
    const struct attribute rows[] = {
        {CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &properties},
        {CUDNN_ATTR_EXECUTION_PLAN_JSON_REPRESENTATION, CUDNN_TYPE_CHAR, count, text},
    };
    FINE(TRY(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR, rows, &again));
    struct memory memory;
    fill(&shapes[0], FAKE_F32, &memory);
    float *one = result_of(plan, &memory), *two = result_of(again, &memory);
    cr_assert_eq(memcmp(one, two, count_of(&shapes[0], Y) * sizeof(float)), 0);
    free(one);
    free(two);
    text[1] = 'x';
    cr_assert_neq(TRY(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR, rows, &again), CUDNN_STATUS_SUCCESS);
}

Test(fakecuda_dnn, first_configurations_are_those_to_leave_out) {
    cudnnBackendDescriptor_t of, configs[ENGINES_MAX], plan;
    FINE(graph(FORWARD, &shapes[0], FAKE_BF16, Y, &of));
    int64_t count = configurations(of, configs);
    cr_assert_geq(count, 5);
    FINE(plan_of(configs[1], &plan));
    cr_assert_geq(workspace_of(plan), (int64_t)1 << 30);
    cr_assert_neq(plan_of(configs[2], &plan), CUDNN_STATUS_SUCCESS);
}

Test(fakecuda_dnn, duplicate_identifier_aborts, .signal = SIGABRT) {
    cudnnBackendDescriptor_t of;
    graph(FORWARD, &shapes[0], FAKE_F32, X, &of);
}

Test(fakecuda_dnn, short_workspace_is_named) {
    cudnnBackendDescriptor_t plan = plan_of_engine(FORWARD, 4);
    struct memory memory;
    fill(&shapes[0], FAKE_F32, &memory);
    fakecuda_record_violations(true);
    memory.workspace = (char *)memory.workspace + 256;
    cr_assert_neq(execute(plan, &memory, TENSORS), CUDNN_STATUS_SUCCESS);
    const char *text = fakecuda_violation();
    cr_assert(text && strstr(text, "cuDNN forward") && strstr(text, "65536"), "%s", text);
}

Test(fakecuda_dnn, attribute_of_another_type_or_kind_is_refused) {
    cudnnBackendDescriptor_t blank;
    int64_t number = 1;
    FINE(create(CUDNN_BACKEND_TENSOR_DESCRIPTOR, &blank));
    cr_assert_neq(
        cudnnBackendSetAttribute(blank, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_FLOAT, 1, &number),
        CUDNN_STATUS_SUCCESS);
    cr_assert_neq(
        cudnnBackendSetAttribute(blank, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_INT64, 1, &number),
        CUDNN_STATUS_SUCCESS);
    FINE(
        cudnnBackendSetAttribute(blank, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, &number));
    cr_assert_neq(cudnnBackendFinalize(blank), CUDNN_STATUS_SUCCESS, "it is not complete");
}

Test(fakecuda_dnn, tensor_without_a_pointer_is_refused) {
    cudnnBackendDescriptor_t plan = plan_of_engine(FORWARD, 3);
    struct memory memory;
    fill(&shapes[0], FAKE_F32, &memory);
    cr_assert_eq(execute(plan, &memory, 2), CUDNN_STATUS_BAD_PARAM);
}

Test(fakecuda_dnn, channels_of_16_bit_types_come_in_eights) {
    cudnnBackendDescriptor_t of;
    struct shape odd = shapes[0];
    odd.c = 3;
    cr_assert_neq(graph(FORWARD, &odd, FAKE_BF16, Y, &of), CUDNN_STATUS_SUCCESS);
    char words[256];
    cudnnGetLastErrorString(words, sizeof words);
    cr_assert(strstr(words, "multiples of 8"), "%s", words);
}

Test(fakecuda_dnn, engine_can_be_made_to_fail) {
    cudnnBackendDescriptor_t plan = plan_of_engine(FORWARD, 3);
    struct memory memory;
    fill(&shapes[0], FAKE_F32, &memory);
    fakecuda_configure("faults=engine 3:0:fail");
    cr_assert_eq(execute(plan, &memory, TENSORS), CUDNN_STATUS_EXECUTION_FAILED);
}

Test(fakecuda_dnn, description_without_a_key_is_refused_by_its_name) {
    cudnnBackendDescriptor_t properties;
    char words[256];
    const char *text = "{\"deviceVer\":800}";
    const struct attribute rows[] = {{CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR,
                                      (int64_t)strlen(text) + 1, text}};
    cr_assert_eq(TRY(CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR, rows, &properties),
                 CUDNN_STATUS_BAD_PARAM);
    cudnnGetLastErrorString(words, sizeof words);
    cr_assert(strstr(words, "maxGridSize"), "%s", words);
}
