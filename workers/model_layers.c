/* SPDX-License-Identifier: Apache-2.0 */
/* The layers of the model language: arguments and defaults as torch.nn has them, output shapes,
 * parameters in state_dict order, floating-point operations.
 *
 * One row and one add function a layer. An add function checks the input's shape, appends the node,
 * then its parameters. Operations are counted for Conv2d and Linear only (2 per multiply-add, no
 * bias), which is how the published figures of torchvision count. Source: the "Shape" sections of
 * torch.nn's reference. */
#include "workers/model_layers.h"

#include <stdio.h>
#include <string.h>

static int add_conv2d(struct nnc_layer_use *use, int32_t *ret_node);
static int add_linear(struct nnc_layer_use *use, int32_t *ret_node);
static int add_batchnorm2d(struct nnc_layer_use *use, int32_t *ret_node);
static int add_pool(struct nnc_layer_use *use, int32_t *ret_node);
static int add_adaptive_pool(struct nnc_layer_use *use, int32_t *ret_node);
static int add_flatten(struct nnc_layer_use *use, int32_t *ret_node);
static int add_dropout(struct nnc_layer_use *use, int32_t *ret_node);
static int add_elementwise(struct nnc_layer_use *use, int32_t *ret_node);
static int add_identity(struct nnc_layer_use *use, int32_t *ret_node);

#define POOL_ARGS                                                                                  \
    {                                                                                              \
        {.name = "kernel_size", .kind = NNC_ARG_WINDOW, .required = true},                         \
            {.name = "stride", .kind = NNC_ARG_STRIDE},                                            \
            {.name = "padding", .kind = NNC_ARG_PADDING, .def = 0},                                \
    }

static const struct nnc_layer_row rows[] = {
    {.name = "Conv2d",
     .layer = NNC_LAYER_CONV2D,
     .args = {{.name = "in_channels", .kind = NNC_ARG_COUNT, .required = true},
              {.name = "out_channels", .kind = NNC_ARG_COUNT, .required = true},
              {.name = "kernel_size", .kind = NNC_ARG_WINDOW, .required = true},
              {.name = "stride", .kind = NNC_ARG_WINDOW, .def = 1},
              {.name = "padding", .kind = NNC_ARG_PADDING, .def = 0},
              {.name = "bias", .kind = NNC_ARG_BOOL, .def = 1}},
     .add = add_conv2d},
    {.name = "Linear",
     .layer = NNC_LAYER_LINEAR,
     .args = {{.name = "in_features", .kind = NNC_ARG_COUNT, .required = true},
              {.name = "out_features", .kind = NNC_ARG_COUNT, .required = true},
              {.name = "bias", .kind = NNC_ARG_BOOL, .def = 1}},
     .add = add_linear},
    {.name = "BatchNorm2d",
     .layer = NNC_LAYER_BATCHNORM2D,
     .args = {{.name = "num_features", .kind = NNC_ARG_COUNT, .required = true},
              {.name = "eps", .kind = NNC_ARG_NUMBER, .def = 1e-5, .min = 1e-12, .max = 1},
              {.name = "momentum", .kind = NNC_ARG_NUMBER, .def = 0.1, .min = 0, .max = 1}},
     .add = add_batchnorm2d},
    {.name = "MaxPool2d", .layer = NNC_LAYER_MAXPOOL2D, .args = POOL_ARGS, .add = add_pool},
    {.name = "AvgPool2d", .layer = NNC_LAYER_AVGPOOL2D, .args = POOL_ARGS, .add = add_pool},
    {.name = "AdaptiveAvgPool2d",
     .layer = NNC_LAYER_ADAPTIVE_AVGPOOL2D,
     .args = {{.name = "output_size", .kind = NNC_ARG_WINDOW, .required = true}},
     .add = add_adaptive_pool},
    {.name = "Flatten", .layer = NNC_LAYER_FLATTEN, .add = add_flatten},
    {.name = "Dropout",
     .layer = NNC_LAYER_DROPOUT,
     .args = {{.name = "p", .kind = NNC_ARG_NUMBER, .def = 0.5, .min = 0, .max = 0.999}},
     .add = add_dropout},
    {.name = "ReLU",
     .layer = NNC_LAYER_RELU,
     .args = {{.name = "inplace", .kind = NNC_ARG_BOOL, .def = 0}},
     .add = add_elementwise},
    {.name = "Sigmoid", .layer = NNC_LAYER_SIGMOID, .add = add_elementwise},
    {.name = "Tanh", .layer = NNC_LAYER_TANH, .add = add_elementwise},
    {.name = "Identity", .layer = NNC_LAYER_COUNT, .add = add_identity},
};

const struct nnc_layer_row *nnc_layer_find(const char *name) {
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        if (strcmp(rows[i].name, name) == 0) {
            return &rows[i];
        }
    }
    return NULL;
}

/* Is the whole number in the range of its kind of argument? */
static bool whole_fits(enum nnc_layer_arg_kind kind, int64_t whole) {
    int64_t least = kind == NNC_ARG_PADDING ? 0 : 1;
    return whole >= least && whole <= (int64_t)NNC_GRAPH_DIM_MAX;
}

/* What an argument of that kind takes, in words. */
static const char *arg_words(enum nnc_layer_arg_kind kind) {
    switch (kind) {
    case NNC_ARG_COUNT:
        return "a whole number from 1 to 2147483648";
    case NNC_ARG_WINDOW:
    case NNC_ARG_STRIDE:
        return "a whole number from 1 or a pair (height, width)";
    case NNC_ARG_PADDING:
        return "a whole number from 0 or a pair (height, width)";
    case NNC_ARG_NUMBER:
        return "a number";
    case NNC_ARG_BOOL:
        return "True or False";
    }
    return "";
}

static bool value_fits(const struct nnc_layer_arg *arg, struct nnc_value *value) {
    switch (arg->kind) {
    case NNC_ARG_NUMBER:
        return (value->kind == NNC_VALUE_WHOLE || value->kind == NNC_VALUE_NUMBER) &&
               value->number >= arg->min && value->number <= arg->max;
    case NNC_ARG_BOOL:
        return value->kind == NNC_VALUE_BOOL;
    case NNC_ARG_COUNT:
        return value->kind == NNC_VALUE_WHOLE && whole_fits(arg->kind, value->whole[0]);
    case NNC_ARG_STRIDE:
        if (value->kind == NNC_VALUE_NONE) {
            return true;
        }
        break;
    case NNC_ARG_WINDOW:
    case NNC_ARG_PADDING:
        break;
    }
    return (value->kind == NNC_VALUE_WHOLE || value->kind == NNC_VALUE_PAIR) &&
           whole_fits(arg->kind, value->whole[0]) && whole_fits(arg->kind, value->whole[1]);
}

static struct nnc_value default_value(const struct nnc_layer_arg *arg) {
    switch (arg->kind) {
    case NNC_ARG_NUMBER:
        return (struct nnc_value){.kind = NNC_VALUE_NUMBER, .number = arg->def};
    case NNC_ARG_BOOL:
        return (struct nnc_value){.kind = NNC_VALUE_BOOL, .whole = {(int64_t)arg->def}};
    case NNC_ARG_STRIDE:
        return (struct nnc_value){.kind = NNC_VALUE_NONE};
    default:
        return nnc_value_whole((int64_t)arg->def);
    }
}

/* The checked value of one argument, or its default. */
static int take_value(struct nnc_value_context *context, const struct nnc_layer_use *use,
                      const struct nnc_layer_arg *arg, const struct nnc_model_expr *given,
                      const struct nnc_model_frame *frame, struct nnc_value *ret_value) {
    if (given == NULL) {
        *ret_value = default_value(arg);
        return arg->required ? nnc_build_fail(use->build, &use->node, "needs %s", arg->name) : 0;
    }
    int code = nnc_value_eval(context, given, frame, ret_value);
    if (code < 0 || value_fits(arg, ret_value)) {
        return code;
    }
    if (arg->kind == NNC_ARG_NUMBER) {
        return nnc_build_fail(use->build, &use->node, "takes a number from %g to %g as %s",
                              arg->min, arg->max, arg->name);
    }
    return nnc_build_fail(use->build, &use->node, "takes %s as %s", arg_words(arg->kind),
                          arg->name);
}

int nnc_layer_add(struct nnc_value_context *context, struct nnc_graph_build *build,
                  const struct nnc_layer_row *row, const struct nnc_model_expr *call,
                  const struct nnc_model_frame *frame, const struct nnc_node *node,
                  int32_t *ret_node) {
    const char *names[NNC_LAYER_ARGS_MAX] = {NULL};
    const struct nnc_model_expr *given[NNC_LAYER_ARGS_MAX];
    uint32_t count = 0;
    while (row->args[count].name != NULL) {
        names[count] = row->args[count].name;
        count++;
    }
    int code = nnc_value_match(context->file, call, names, count, given);
    struct nnc_layer_use use = {.build = build, .node = *node};
    use.node.layer = row->layer;
    for (uint32_t i = 0; i < count && code >= 0; i++) {
        code = take_value(context, &use, &row->args[i], given[i], frame, &use.values[i]);
    }
    return code < 0 ? code : row->add(&use, ret_node);
}

static const struct nnc_node *input_of(const struct nnc_layer_use *use) {
    return &use->build->graph->nodes[use->node.input[0]];
}

/* Errors unless the input is an image with that many channels (0: any). */
static int need_image(const struct nnc_layer_use *use, uint32_t channels) {
    const struct nnc_node *input = input_of(use);
    char text[NNC_SHAPE_TEXT_MAX];
    nnc_shape_text(&input->shape, input->flat, text);
    if (input->flat) {
        return nnc_build_fail(use->build, &use->node,
                              "expects an image (CxHxW), its input is flat with %s features", text);
    }
    if (channels != 0 && input->shape.c != channels) {
        return nnc_build_fail(use->build, &use->node, "expects %u channels, its input is %s",
                              channels, text);
    }
    return 0;
}

/* Output size of windows over one direction, floor((in + 2 pad - kernel) / stride) + 1. */
static bool window_extent(uint32_t in, uint32_t kernel, uint32_t stride, uint32_t pad,
                          uint32_t *ret_extent) {
    uint64_t padded = (uint64_t)in + 2 * (uint64_t)pad;
    if (padded < kernel) {
        return false;
    }
    uint64_t extent = (padded - kernel) / stride + 1;
    if (extent > NNC_GRAPH_DIM_MAX) {
        return false;
    }
    *ret_extent = (uint32_t)extent;
    return true;
}

/* Fill window and the output's height and width. stride None means the kernel's size. */
static int set_window(struct nnc_layer_use *use, const struct nnc_value *kernel,
                      const struct nnc_value *stride, const struct nnc_value *pad) {
    const struct nnc_value *step = stride->kind == NNC_VALUE_NONE ? kernel : stride;
    const struct nnc_shape *in = &input_of(use)->shape;
    struct nnc_window window = {
        .r = (uint32_t)kernel->whole[0],
        .s = (uint32_t)kernel->whole[1],
        .stride_h = (uint32_t)step->whole[0],
        .stride_w = (uint32_t)step->whole[1],
        .pad_h = (uint32_t)pad->whole[0],
        .pad_w = (uint32_t)pad->whole[1],
    };
    struct nnc_shape *out = &use->node.shape;
    if (!window_extent(in->h, window.r, window.stride_h, window.pad_h, &out->h) ||
        !window_extent(in->w, window.s, window.stride_w, window.pad_w, &out->w)) {
        char text[NNC_SHAPE_TEXT_MAX];
        return nnc_build_fail(use->build, &use->node,
                              "has a %ux%u window with padding %ux%u, which does not fit its "
                              "input %s",
                              window.r, window.s, window.pad_h, window.pad_w,
                              nnc_shape_text(in, false, text));
    }
    use->node.window = window;
    return 0;
}

/* node->flops = 2 * weights * places, each weight being used once a place. */
static int set_flops(struct nnc_layer_use *use, uint64_t weights, uint64_t places) {
    uint64_t flops;
    if (__builtin_mul_overflow(weights, places, &flops) || flops > NNC_GRAPH_FLOPS_MAX / 2) {
        return nnc_build_fail(use->build, &use->node, "is too large to compute");
    }
    use->node.flops = 2 * flops;
    return 0;
}

/* Product of dimensions, or an error beyond NNC_GRAPH_COUNT_MAX. */
static int product(const struct nnc_layer_use *use, const uint32_t *dims, uint32_t rank,
                   uint64_t *ret_count) {
    uint64_t count = 1;
    for (uint32_t i = 0; i < rank; i++) {
        if (__builtin_mul_overflow(count, (uint64_t)dims[i], &count) ||
            count > NNC_GRAPH_COUNT_MAX) {
            return nnc_build_fail(use->build, &use->node, "has too many weights");
        }
    }
    *ret_count = count;
    return 0;
}

/* Append the node with weight (and bias) of Conv2d and Linear. */
static int add_weighted(struct nnc_layer_use *use, const struct nnc_param *weight, bool with_bias,
                        enum nnc_init_slot weight_slot, int32_t *ret_node) {
    /* fan_in = C R S, fan_out = K R S: products of fewer factors than count, which is checked. */
    uint64_t per_output = 1, window = 1;
    for (uint32_t i = 1; i < weight->rank; i++) {
        per_output *= weight->dims[i];
        window *= i > 1 ? weight->dims[i] : 1;
    }
    struct nnc_init_fan fan = {.in = per_output, .out = window * weight->dims[0]};
    int32_t number;
    int code = nnc_build_node(use->build, &use->node, &number);
    if (code < 0) {
        return code;
    }
    struct nnc_node *node = &use->build->graph->nodes[number];
    struct nnc_param param = *weight;
    memcpy(param.name, "weight", sizeof("weight"));
    param.kind = NNC_PARAM_WEIGHT;
    nnc_build_rule(use->build, weight_slot, &fan, &param);
    code = nnc_build_param(use->build, number, &param, &node->weight);
    if (code >= 0 && with_bias) {
        struct nnc_param bias = {
            .name = "bias", .kind = NNC_PARAM_BIAS, .rank = 1, .dims = {weight->dims[0]}};
        nnc_build_rule(use->build, weight_slot + 1, &fan, &bias);
        code = nnc_build_param(use->build, number, &bias, &node->bias);
    }
    if (code >= 0) {
        *ret_node = number;
    }
    return code;
}

static int add_conv2d(struct nnc_layer_use *use, int32_t *ret_node) {
    const struct nnc_value *values = use->values;
    int code = need_image(use, (uint32_t)values[0].whole[0]);
    if (code >= 0) {
        code = set_window(use, &values[2], &values[3], &values[4]);
    }
    struct nnc_param weight = {
        .rank = 4,
        .dims = {(uint32_t)values[1].whole[0], (uint32_t)values[0].whole[0], use->node.window.r,
                 use->node.window.s},
    };
    uint64_t count = 0;
    if (code >= 0) {
        code = product(use, weight.dims, weight.rank, &count);
    }
    if (code >= 0) {
        use->node.shape.c = weight.dims[0];
        code = set_flops(use, count, (uint64_t)use->node.shape.h * use->node.shape.w);
    }
    return code < 0 ? code
                    : add_weighted(use, &weight, values[5].whole[0] != 0, NNC_SLOT_CONV_WEIGHT,
                                   ret_node);
}

static int add_linear(struct nnc_layer_use *use, int32_t *ret_node) {
    const struct nnc_node *input = input_of(use);
    struct nnc_param weight = {
        .rank = 2,
        .dims = {(uint32_t)use->values[1].whole[0], (uint32_t)use->values[0].whole[0]},
    };
    char text[NNC_SHAPE_TEXT_MAX];
    nnc_shape_text(&input->shape, input->flat, text);
    if (!input->flat) {
        return nnc_build_fail(use->build, &use->node,
                              "expects %u features, its input is an image %s: put Flatten() before",
                              weight.dims[1], text);
    }
    if (input->shape.c != weight.dims[1]) {
        return nnc_build_fail(use->build, &use->node, "expects %u features, its input has %s",
                              weight.dims[1], text);
    }
    uint64_t count = 0;
    int code = product(use, weight.dims, weight.rank, &count);
    if (code >= 0) {
        use->node.shape = (struct nnc_shape){.c = weight.dims[0], .h = 1, .w = 1};
        use->node.flat = true;
        code = set_flops(use, count, 1);
    }
    return code < 0 ? code
                    : add_weighted(use, &weight, use->values[2].whole[0] != 0,
                                   NNC_SLOT_LINEAR_WEIGHT, ret_node);
}

static int add_batchnorm2d(struct nnc_layer_use *use, int32_t *ret_node) {
    uint32_t channels = (uint32_t)use->values[0].whole[0];
    int32_t number = -1;
    int code = need_image(use, channels);
    if (code >= 0) {
        use->node.shape = input_of(use)->shape;
        use->node.eps = use->values[1].number;
        use->node.momentum = use->values[2].number;
        code = nnc_build_node(use->build, &use->node, &number);
    }
    if (code < 0) {
        return code;
    }
    struct nnc_node *node = &use->build->graph->nodes[number];
    const struct {
        const char *name;
        enum nnc_param_kind kind;
        double start;
        int32_t *slot;
    } params[] = {
        {"weight", NNC_PARAM_NORM, 1, &node->weight},
        {"bias", NNC_PARAM_NORM, 0, &node->bias},
        {"running_mean", NNC_PARAM_BUFFER, 0, &node->running_mean},
        {"running_var", NNC_PARAM_BUFFER, 1, &node->running_var},
    };
    for (size_t i = 0; i < sizeof(params) / sizeof(params[0]) && code >= 0; i++) {
        struct nnc_param param = {.kind = params[i].kind,
                                  .init = NNC_INIT_CONSTANT,
                                  .init_a = params[i].start,
                                  .rank = 1,
                                  .dims = {channels}};
        snprintf(param.name, sizeof(param.name), "%s", params[i].name);
        code = nnc_build_param(use->build, number, &param, params[i].slot);
    }
    if (code >= 0) {
        *ret_node = number;
    }
    return code;
}

static int add_pool(struct nnc_layer_use *use, int32_t *ret_node) {
    int code = need_image(use, 0);
    if (code >= 0) {
        code = set_window(use, &use->values[0], &use->values[1], &use->values[2]);
    }
    if (code < 0) {
        return code;
    }
    const struct nnc_window *window = &use->node.window;
    /* PyTorch's rule; it also keeps a window from lying in the padding alone. */
    if (window->pad_h > window->r / 2 || window->pad_w > window->s / 2) {
        return nnc_build_fail(use->build, &use->node,
                              "may be padded by at most half its window (%ux%u)", window->r,
                              window->s);
    }
    use->node.shape.c = input_of(use)->shape.c;
    return nnc_build_node(use->build, &use->node, ret_node);
}

static int add_adaptive_pool(struct nnc_layer_use *use, int32_t *ret_node) {
    int code = need_image(use, 0);
    if (code < 0) {
        return code;
    }
    use->node.shape = (struct nnc_shape){.c = input_of(use)->shape.c,
                                         .h = (uint32_t)use->values[0].whole[0],
                                         .w = (uint32_t)use->values[0].whole[1]};
    return nnc_build_node(use->build, &use->node, ret_node);
}

static int add_flatten(struct nnc_layer_use *use, int32_t *ret_node) {
    const struct nnc_shape *in = &input_of(use)->shape;
    /* At most NNC_GRAPH_COUNT_MAX, as the input's node was checked. */
    uint64_t features = (uint64_t)in->c * in->h * in->w;
    if (features > NNC_GRAPH_DIM_MAX) {
        char text[NNC_SHAPE_TEXT_MAX];
        return nnc_build_fail(use->build, &use->node, "gives more than 2^31 features from %s",
                              nnc_shape_text(in, false, text));
    }
    use->node.shape = (struct nnc_shape){.c = (uint32_t)features, .h = 1, .w = 1};
    use->node.flat = true;
    return nnc_build_node(use->build, &use->node, ret_node);
}

static int add_elementwise(struct nnc_layer_use *use, int32_t *ret_node) {
    use->node.shape = input_of(use)->shape;
    use->node.flat = input_of(use)->flat;
    return nnc_build_node(use->build, &use->node, ret_node);
}

static int add_dropout(struct nnc_layer_use *use, int32_t *ret_node) {
    use->node.dropout = use->values[0].number;
    return add_elementwise(use, ret_node);
}

/* A wire: takes a place in the count of children and nothing else. */
static int add_identity(struct nnc_layer_use *use, int32_t *ret_node) {
    *ret_node = use->node.input[0];
    return 0;
}
