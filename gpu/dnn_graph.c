/* SPDX-License-Identifier: Apache-2.0 */
/* Building the operation graph of a convolution.
 *
 *   forward             x, w -> CONV -> y
 *   forward bias        x, w -> CONV -> product, bias -> ADD -> y
 *   forward bias relu   x, w -> CONV -> product, bias -> ADD -> sum -> RELU -> y
 *   backward data       y, w -> CONV' -> x
 *   backward filter     x, y -> CONV' -> w
 *
 * Invariants: (1) no two tensors of a graph have one number: cuDNN would take it and read the wrong
 * memory; (2) what lies between two operations is virtual and fp32: it is never in memory.
 * Source: cuDNN 9 backend API reference, "CUDNN_BACKEND_OPERATION_*_DESCRIPTOR"; developer guide,
 * "Supported graph patterns", precompiled single and fused engines. */
#include "gpu/dnn_graph.h"

#include "gpu/dnn_descriptor.h"

#include <assert.h>

#define ROWS(rows)    (rows), sizeof(rows) / sizeof((rows)[0])
#define TENSOR_ALIGNS 16 /* bytes */

static const cudnnDataType_t data_types[NNC_GPU_TYPE_COUNT] = {
    [NNC_GPU_F32] = CUDNN_DATA_FLOAT,
    [NNC_GPU_BF16] = CUDNN_DATA_BFLOAT16,
    [NNC_GPU_F16] = CUDNN_DATA_HALF,
};

/* The three directions have the same attributes under other names. */
struct direction {
    cudnnBackendDescriptorType_t kind;
    cudnnBackendAttributeName_t window, x, w, y, alpha, beta;
};

static const struct direction forward = {
    CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR,
    CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC,
    CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X,
    CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W,
    CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y,
    CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA,
    CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA,
};

static const struct direction backward_data = {
    CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR,
    CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC,
    CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX,
    CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W,
    CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY,
    CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA,
    CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA,
};

static const struct direction backward_filter = {
    CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR,
    CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC,
    CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X,
    CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW,
    CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY,
    CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA,
    CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA,
};

/* One row an operation: which direction, and what comes after it. */
static const struct {
    const struct direction *direction;
    bool bias, relu;
} operations[NNC_DNN_OP_COUNT] = {
    [NNC_DNN_FORWARD] = {&forward, false, false},
    [NNC_DNN_FORWARD_BIAS] = {&forward, true, false},
    [NNC_DNN_FORWARD_BIAS_RELU] = {&forward, true, true},
    [NNC_DNN_BACKWARD_DATA] = {&backward_data, false, false},
    [NNC_DNN_BACKWARD_FILTER] = {&backward_filter, false, false},
};

/* A graph that grows. After the first failure nothing more is made and code stays what it is. */
struct builder {
    struct nnc_dnn_graph *graph;
    const struct nnc_dnn_key *key;
    uint32_t uids; /* bit u: number u is taken */
    int code;
};

static cudnnBackendDescriptor_t make(struct builder *builder, cudnnBackendDescriptorType_t kind,
                                     const char *what, const struct nnc_dnn_attribute *rows,
                                     size_t count) {
    cudnnBackendDescriptor_t part = NULL;
    if (builder->code >= 0) {
        builder->code = nnc_dnn_descriptor_create(kind, what, rows, count, &part);
    }
    if (builder->code >= 0) {
        assert(builder->graph->part_count < NNC_DNN_PARTS_MAX);
        builder->graph->parts[builder->graph->part_count++] = part;
    }
    return part;
}

/* dims as (N,C,H,W), whatever the letters stand for; NHWC in memory. */
static cudnnBackendDescriptor_t make_tensor(struct builder *builder, enum nnc_dnn_uid uid,
                                            const int64_t dims[4]) {
    assert((builder->uids & 1u << uid) == 0);
    builder->uids |= 1u << uid;
    const int64_t number = uid;
    const int64_t alignment = TENSOR_ALIGNS;
    const int64_t strides[4] = {dims[1] * dims[2] * dims[3], 1, dims[1] * dims[3], dims[1]};
    const bool is_virtual = uid >= NNC_DNN_UID_PRODUCT;
    const cudnnDataType_t type = is_virtual ? CUDNN_DATA_FLOAT : data_types[builder->key->type];
    const struct nnc_dnn_attribute rows[] = {
        {CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, &number},
        {CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &type},
        {CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, 1, &alignment},
        {CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 4, dims},
        {CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, 4, strides},
        {CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, 1, &is_virtual},
    };
    return make(builder, CUDNN_BACKEND_TENSOR_DESCRIPTOR, "tensor", ROWS(rows));
}

static cudnnBackendDescriptor_t make_window(struct builder *builder) {
    const struct nnc_dnn_key *key = builder->key;
    const cudnnDataType_t sums = CUDNN_DATA_FLOAT;
    const cudnnConvolutionMode_t mode = CUDNN_CROSS_CORRELATION;
    const int64_t spatial_dims = 2;
    const int64_t dilations[2] = {1, 1};
    const int64_t strides[2] = {key->stride_h, key->stride_w};
    const int64_t padding[2] = {key->pad_h, key->pad_w};
    const struct nnc_dnn_attribute rows[] = {
        {CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, CUDNN_TYPE_INT64, 1, &spatial_dims},
        {CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &sums},
        {CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, 1, &mode},
        {CUDNN_ATTR_CONVOLUTION_DILATIONS, CUDNN_TYPE_INT64, 2, dilations},
        {CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, CUDNN_TYPE_INT64, 2, strides},
        {CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, CUDNN_TYPE_INT64, 2, padding},
        {CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, CUDNN_TYPE_INT64, 2, padding},
    };
    return make(builder, CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR, "window", ROWS(rows));
}

/* The output is overwritten: alpha 1, beta 0. */
static cudnnBackendDescriptor_t make_convolution(struct builder *builder,
                                                 const cudnnBackendDescriptor_t x,
                                                 const cudnnBackendDescriptor_t w,
                                                 const cudnnBackendDescriptor_t y) {
    const struct direction *direction = operations[builder->key->op].direction;
    const cudnnBackendDescriptor_t window = make_window(builder);
    const float one = 1;
    const float zero = 0;
    const struct nnc_dnn_attribute rows[] = {
        {direction->window, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &window},
        {direction->x, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &x},
        {direction->w, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &w},
        {direction->y, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &y},
        {direction->alpha, CUDNN_TYPE_FLOAT, 1, &one},
        {direction->beta, CUDNN_TYPE_FLOAT, 1, &zero},
    };
    return make(builder, direction->kind, "convolution", ROWS(rows));
}

/* y = mode(x), or mode(x, other) where other is not NULL. */
static cudnnBackendDescriptor_t make_pointwise(struct builder *builder, cudnnPointwiseMode_t mode,
                                               const cudnnBackendDescriptor_t x,
                                               const cudnnBackendDescriptor_t other,
                                               const cudnnBackendDescriptor_t y) {
    const cudnnDataType_t precision = CUDNN_DATA_FLOAT;
    const struct nnc_dnn_attribute what[] = {
        {CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, 1, &mode},
        {CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_TYPE_DATA_TYPE, 1, &precision},
    };
    const cudnnBackendDescriptor_t pointwise =
        make(builder, CUDNN_BACKEND_POINTWISE_DESCRIPTOR, "pointwise", ROWS(what));
    const struct nnc_dnn_attribute rows[] = {
        {CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1,
         &pointwise},
        {CUDNN_ATTR_OPERATION_POINTWISE_XDESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &x},
        {CUDNN_ATTR_OPERATION_POINTWISE_YDESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &y},
        {CUDNN_ATTR_OPERATION_POINTWISE_BDESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &other},
    };
    const size_t count = sizeof(rows) / sizeof(rows[0]) - (other == NULL);
    return make(builder, CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR, "pointwise operation", rows,
                count);
}

static void build(struct builder *builder) {
    const struct nnc_dnn_key *key = builder->key;
    const bool bias = operations[key->op].bias;
    const bool relu = operations[key->op].relu;
    const int64_t x_dims[4] = {key->n, key->c, key->h, key->w};
    const int64_t w_dims[4] = {key->k, key->c, key->r, key->s};
    const int64_t y_dims[4] = {key->n, key->k,
                               (key->h + 2 * key->pad_h - key->r) / key->stride_h + 1,
                               (key->w + 2 * key->pad_w - key->s) / key->stride_w + 1};
    const int64_t bias_dims[4] = {1, key->k, 1, 1};
    cudnnBackendDescriptor_t chain[3];
    int64_t length = 0;
    cudnnBackendDescriptor_t x = make_tensor(builder, NNC_DNN_UID_X, x_dims);
    cudnnBackendDescriptor_t w = make_tensor(builder, NNC_DNN_UID_W, w_dims);
    cudnnBackendDescriptor_t y = make_tensor(builder, NNC_DNN_UID_Y, y_dims);
    cudnnBackendDescriptor_t product = bias ? make_tensor(builder, NNC_DNN_UID_PRODUCT, y_dims) : y;
    chain[length++] = make_convolution(builder, x, w, product);
    if (bias) {
        cudnnBackendDescriptor_t added = make_tensor(builder, NNC_DNN_UID_BIAS, bias_dims);
        cudnnBackendDescriptor_t sum = relu ? make_tensor(builder, NNC_DNN_UID_SUM, y_dims) : y;
        chain[length++] = make_pointwise(builder, CUDNN_POINTWISE_ADD, product, added, sum);
        if (relu) {
            chain[length++] = make_pointwise(builder, CUDNN_POINTWISE_RELU_FWD, sum, NULL, y);
        }
    }
    const struct nnc_dnn_attribute rows[] = {
        {CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, length, chain},
    };
    make(builder, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR, "operation graph", ROWS(rows));
}

int nnc_dnn_graph_init(const struct nnc_dnn_key *key, struct nnc_dnn_graph *ret_graph) {
    assert(key->op < NNC_DNN_OP_COUNT && key->type < NNC_GPU_TYPE_COUNT);
    assert(key->n > 0 && key->c % 8 == 0 && key->k % 8 == 0 && key->stride_h * key->stride_w > 0);
    assert(key->r <= key->h + 2 * key->pad_h && key->s <= key->w + 2 * key->pad_w);
    struct nnc_dnn_graph graph = {0};
    struct builder builder = {.graph = &graph, .key = key};
    build(&builder);
    if (builder.code < 0) {
        nnc_dnn_graph_finish(&graph);
        return builder.code;
    }
    *ret_graph = graph;
    return 0;
}

void nnc_dnn_graph_finish(struct nnc_dnn_graph *graph) {
    while (graph->part_count > 0) {
        nnc_dnn_descriptor_free(graph->parts[--graph->part_count]);
    }
}

cudnnBackendDescriptor_t nnc_dnn_graph_whole(const struct nnc_dnn_graph *graph) {
    assert(graph->part_count > 0);
    return graph->parts[graph->part_count - 1];
}
