/* SPDX-License-Identifier: Apache-2.0 */
/* What a graph of descriptors computes, and whether it is one that is supported:
 *
 *   convolution | convolution + bias | relu(convolution + bias) | dgrad | wgrad
 *
 * with tensors in NHWC, filters in KRSC, virtual tensors between the operations. cuDNN takes graphs
 * whose tensors share an identifier and computes something; here that aborts. */
#include "tests/gpu/fakecuda/dnn.h"
#include "tests/gpu/fakecuda/fakecuda.h"

struct direction {
    cudnnBackendDescriptorType_t kind;
    dnn_name window, alpha, beta, tensor[3];
};

static const struct direction directions[] = {
    [DNN_FORWARD] = {CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR,
                     CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC,
                     CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA,
                     CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA,
                     {CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X,
                      CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W,
                      CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y}},
    [DNN_BACKWARD_DATA] = {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR,
                           CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC,
                           CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA,
                           CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA,
                           {CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX,
                            CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W,
                            CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY}},
    [DNN_BACKWARD_FILTER] = {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR,
                             CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC,
                             CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA,
                             CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA,
                             {CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X,
                              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW,
                              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY}},
};

static enum fake_type type_of(const struct dnn_descriptor *tensor) {
    switch ((int)dnn_number(tensor, CUDNN_ATTR_TENSOR_DATA_TYPE, -1)) {
    case CUDNN_DATA_FLOAT:
        return FAKE_F32;
    case CUDNN_DATA_BFLOAT16:
        return FAKE_BF16;
    case CUDNN_DATA_HALF:
        return FAKE_F16;
    default:
        return FAKE_NO_TYPE;
    }
}

static const int64_t *dims_of(const struct dnn_descriptor *tensor) {
    return dnn_values(tensor, CUDNN_ATTR_TENSOR_DIMENSIONS);
}

static int64_t uid_of(const struct dnn_descriptor *tensor) {
    return dnn_number(tensor, CUDNN_ATTR_TENSOR_UNIQUE_ID, 0);
}

static bool is_virtual(const struct dnn_descriptor *tensor) {
    return dnn_number(tensor, CUDNN_ATTR_TENSOR_IS_VIRTUAL, 0);
}

cudnnStatus_t dnn_check_tensor(const struct dnn_descriptor *tensor) {
    const int64_t *dims = dims_of(tensor);
    const int64_t *strides = dnn_values(tensor, CUDNN_ATTR_TENSOR_STRIDES);
    const int64_t want[4] = {dims[1] * dims[2] * dims[3], 1, dims[1] * dims[3], dims[1]};
    int64_t alignment = dnn_number(tensor, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, 0);
    if (alignment < 1 || (alignment & (alignment - 1))) {
        return dnn_fail(CUDNN_STATUS_BAD_PARAM, "tensor %lld: alignment %lld",
                        (long long)uid_of(tensor), (long long)alignment);
    }
    for (int i = 0; i < 4; i++) {
        /* The stride of an extent of 1 means nothing. */
        if (dims[i] < 1 || (strides[i] != want[i] && dims[i] > 1)) {
            return dnn_fail(dims[i] < 1 ? CUDNN_STATUS_BAD_PARAM
                                        : CUDNN_STATUS_NOT_SUPPORTED_LAYOUT,
                            "tensor %lld: dimension %d is %lld, stride %lld, NHWC has %lld",
                            (long long)uid_of(tensor), i, (long long)dims[i], (long long)strides[i],
                            (long long)want[i]);
        }
    }
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t dnn_check_window(const struct dnn_descriptor *window) {
    const int64_t *dilation = dnn_values(window, CUDNN_ATTR_CONVOLUTION_DILATIONS);
    const int64_t *stride = dnn_values(window, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES);
    const int64_t *pad = dnn_values(window, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS);
    const int64_t *post = dnn_values(window, CUDNN_ATTR_CONVOLUTION_POST_PADDINGS);
    for (int i = 0; i < 2; i++) {
        if (dilation[i] != 1 || stride[i] < 1 || pad[i] < 0 || pad[i] != post[i]) {
            return dnn_fail(CUDNN_STATUS_NOT_SUPPORTED, "window: dilation, stride or padding");
        }
    }
    if (dnn_number(window, CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, 0) != 2 ||
        dnn_number(window, CUDNN_ATTR_CONVOLUTION_COMP_TYPE, -1) != CUDNN_DATA_FLOAT ||
        dnn_number(window, CUDNN_ATTR_CONVOLUTION_CONV_MODE, -1) != CUDNN_CROSS_CORRELATION) {
        return dnn_fail(CUDNN_STATUS_NOT_SUPPORTED, "window: spatial dimensions, type or mode");
    }
    return CUDNN_STATUS_SUCCESS;
}

/* ---- the graph ---- */

static const struct dnn_descriptor *find_convolution(const struct dnn_descriptor *graph,
                                                     enum dnn_op *ret_op) {
    for (int64_t i = 0; i < dnn_count(graph, CUDNN_ATTR_OPERATIONGRAPH_OPS); i++) {
        const struct dnn_descriptor *op = dnn_child(graph, CUDNN_ATTR_OPERATIONGRAPH_OPS, i);
        for (enum dnn_op k = DNN_FORWARD; k <= DNN_BACKWARD_FILTER; k++) {
            if (op->kind == directions[k].kind) {
                *ret_op = k;
                return op;
            }
        }
    }
    return NULL;
}

/* The pointwise operation that reads the tensor; NULL: none. */
static const struct dnn_descriptor *find_reader(const struct dnn_descriptor *graph,
                                                const struct dnn_descriptor *tensor) {
    for (int64_t i = 0; i < dnn_count(graph, CUDNN_ATTR_OPERATIONGRAPH_OPS); i++) {
        const struct dnn_descriptor *op = dnn_child(graph, CUDNN_ATTR_OPERATIONGRAPH_OPS, i);
        if (op->kind == CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR &&
            dnn_child(op, CUDNN_ATTR_OPERATION_POINTWISE_XDESC, 0) == tensor) {
            return op;
        }
    }
    return NULL;
}

static int64_t mode_of(const struct dnn_descriptor *op) {
    return dnn_number(dnn_child(op, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, 0),
                      CUDNN_ATTR_POINTWISE_MODE, -1);
}

static bool same_dims(const struct dnn_descriptor *a, const struct dnn_descriptor *b) {
    for (int i = 0; i < 4; i++) {
        if (dims_of(a)[i] != dims_of(b)[i]) {
            return false;
        }
    }
    return true;
}

/* Follow the chain behind the convolution: tensor[DNN_Y] becomes its end. */
static cudnnStatus_t follow(struct dnn_descriptor *graph, const struct dnn_descriptor **tensor,
                            int64_t *ret_ops) {
    const struct dnn_descriptor *op = find_reader(graph, tensor[DNN_Y]);
    for (*ret_ops = 1; op; ++*ret_ops) {
        const struct dnn_descriptor *y = dnn_child(op, CUDNN_ATTR_OPERATION_POINTWISE_YDESC, 0);
        const struct dnn_descriptor *b = dnn_child(op, CUDNN_ATTR_OPERATION_POINTWISE_BDESC, 0);
        bool add = mode_of(op) == CUDNN_POINTWISE_ADD && b && !graph->problem.bias;
        bool relu = mode_of(op) == CUDNN_POINTWISE_RELU_FWD && !b && graph->problem.bias &&
                    !graph->problem.relu;
        if (!add && !relu) {
            return dnn_fail(CUDNN_STATUS_NOT_SUPPORTED_GRAPH_PATTERN, "graph: no such pattern");
        }
        if (!is_virtual(tensor[DNN_Y]) || !same_dims(tensor[DNN_Y], y)) {
            return dnn_fail(CUDNN_STATUS_BAD_PARAM,
                            "graph: tensor %lld should be virtual, and of "
                            "the shape of %lld",
                            (long long)uid_of(tensor[DNN_Y]), (long long)uid_of(y));
        }
        graph->problem.bias |= add;
        graph->problem.relu |= relu;
        tensor[DNN_BIAS] = add ? b : tensor[DNN_BIAS];
        tensor[DNN_Y] = y;
        op = find_reader(graph, y);
    }
    return CUDNN_STATUS_SUCCESS;
}

static cudnnStatus_t check_shape(const struct dnn_problem *problem, const int64_t *w,
                                 const int64_t *y, const struct dnn_descriptor *bias) {
    int64_t p = (problem->h + 2 * problem->pad[0] - problem->r) / problem->stride[0] + 1;
    int64_t q = (problem->w + 2 * problem->pad[1] - problem->s) / problem->stride[1] + 1;
    if (w[1] != problem->c || y[0] != problem->n || y[1] != problem->k || y[2] != p || y[3] != q) {
        return dnn_fail(CUDNN_STATUS_BAD_PARAM_SHAPE_MISMATCH,
                        "y is (%lld,%lld,%lld,%lld), the convolution gives (%lld,%lld,%lld,%lld)",
                        (long long)y[0], (long long)y[1], (long long)y[2], (long long)y[3],
                        (long long)problem->n, (long long)problem->k, (long long)p, (long long)q);
    }
    if (bias && (dims_of(bias)[0] != 1 || dims_of(bias)[1] != problem->k || dims_of(bias)[2] != 1 ||
                 dims_of(bias)[3] != 1)) {
        return dnn_fail(CUDNN_STATUS_BAD_PARAM_SHAPE_MISMATCH, "bias is not (1,K,1,1)");
    }
    if (problem->type != FAKE_F32 && (problem->c % 8 || problem->k % 8)) {
        return dnn_fail(CUDNN_STATUS_NOT_SUPPORTED_SHAPE,
                        "channels %lld and %lld are not multiples of 8", (long long)problem->c,
                        (long long)problem->k);
    }
    return CUDNN_STATUS_SUCCESS;
}

static void check_uids(const struct dnn_problem *problem) {
    for (int i = 0; i < DNN_TENSORS; i++) {
        for (int k = 0; k < i; k++) {
            if (problem->uid[i] == problem->uid[k] && (i != DNN_BIAS || problem->bias)) {
                fake_violation("cuDNN: two tensors of a graph have the unique id %lld",
                               (long long)problem->uid[i]);
            }
        }
    }
}

static void read_shape(struct dnn_problem *problem, const struct dnn_descriptor **tensor,
                       const struct dnn_descriptor *window) {
    const int64_t *x = dims_of(tensor[DNN_X]), *w = dims_of(tensor[DNN_W]);
    const int64_t *y = dims_of(tensor[DNN_Y]);
    const int64_t *stride = dnn_values(window, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES);
    const int64_t *pad = dnn_values(window, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS);
    problem->n = x[0], problem->c = x[1], problem->h = x[2], problem->w = x[3];
    problem->k = w[0], problem->r = w[2], problem->s = w[3];
    problem->p = y[2], problem->q = y[3];
    problem->type = type_of(tensor[DNN_X]);
    for (int i = 0; i < 2; i++) {
        problem->stride[i] = stride[i];
        problem->pad[i] = pad[i];
    }
    for (int i = 0; i < DNN_TENSORS; i++) {
        problem->uid[i] = tensor[i] ? uid_of(tensor[i]) : INT64_MIN;
        /* A mixture is no error: there is no engine for it. */
        if (tensor[i] && type_of(tensor[i]) != problem->type) {
            problem->type = FAKE_NO_TYPE;
        }
    }
}

cudnnStatus_t dnn_check_graph(struct dnn_descriptor *graph) {
    struct dnn_problem *problem = &graph->problem;
    const struct dnn_descriptor *op = find_convolution(graph, &problem->op), *tensor[4] = {0};
    if (!op) {
        return dnn_fail(CUDNN_STATUS_NOT_SUPPORTED_GRAPH_PATTERN, "graph: no convolution");
    }
    const struct direction *direction = &directions[problem->op];
    const float *alpha = dnn_values(op, direction->alpha), *beta = dnn_values(op, direction->beta);
    for (int i = 0; i < 3; i++) {
        tensor[i] = dnn_child(op, direction->tensor[i], 0);
    }
    int64_t ops = 0;
    cudnnStatus_t status = follow(graph, tensor, &ops);
    if (status != CUDNN_STATUS_SUCCESS) {
        return status;
    }
    if (ops != dnn_count(graph, CUDNN_ATTR_OPERATIONGRAPH_OPS) || *alpha != 1 || *beta != 0 ||
        (ops > 1 && problem->op != DNN_FORWARD)) {
        return dnn_fail(CUDNN_STATUS_NOT_SUPPORTED_GRAPH_PATTERN,
                        "graph: operations left over, alpha or beta");
    }
    read_shape(problem, tensor, dnn_child(op, direction->window, 0));
    check_uids(problem);
    return check_shape(problem, dims_of(tensor[DNN_W]), dims_of(tensor[DNN_Y]), tensor[DNN_BIAS]);
}
