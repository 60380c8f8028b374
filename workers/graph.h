/* SPDX-License-Identifier: Apache-2.0 */
/* The graph of a model: what the text says, with names, shapes and parameters, before any decision
 * on how to compute it. Nodes are in topological order, node 0 is the input. Names and shapes of
 * parameters equal torchvision's state_dict.
 *
 * Shape letters: N batch, C channels, H, W, K output channels, R x S kernel. */
#ifndef NNC_WORKERS_GRAPH_H
#define NNC_WORKERS_GRAPH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NNC_GRAPH_NAME_MAX 160

enum nnc_layer {
    NNC_LAYER_INPUT,
    NNC_LAYER_CONV2D,
    NNC_LAYER_LINEAR,
    NNC_LAYER_BATCHNORM2D,
    NNC_LAYER_RELU,
    NNC_LAYER_SIGMOID,
    NNC_LAYER_TANH,
    NNC_LAYER_MAXPOOL2D,
    NNC_LAYER_AVGPOOL2D,
    NNC_LAYER_ADAPTIVE_AVGPOOL2D,
    NNC_LAYER_FLATTEN,
    NNC_LAYER_DROPOUT,
    NNC_LAYER_ADD, /* two inputs: body, shortcut */
    NNC_LAYER_COUNT,
};

/* "Conv2d", "Linear", ... as the text writes it. */
const char *nnc_layer_name(enum nnc_layer layer);

/* Shape of one sample. After Flatten (or Linear) h = w = 1 and c is the number of features. */
struct nnc_shape {
    uint32_t c, h, w;
};

/* Window of a convolution or pooling. Padding is zeros (Conv2d), -inf (MaxPool2d) or counted zeros
 * (AvgPool2d, count_include_pad as in PyTorch's default). */
struct nnc_window {
    uint32_t r, s; /* kernel height, width */
    uint32_t stride_h, stride_w;
    uint32_t pad_h, pad_w;
};

struct nnc_node {
    enum nnc_layer layer;
    int32_t input[2];       /* node numbers; -1: none */
    struct nnc_shape shape; /* of the output */
    bool flat;              /* the output is (N, C), after Flatten or Linear; else (N, C, H, W) */
    struct nnc_window window;
    int32_t weight, bias; /* parameter numbers; -1: none */
    int32_t running_mean, running_var;
    double eps, momentum; /* BatchNorm2d, PyTorch's meaning */
    double dropout;       /* probability of zero */
    uint64_t flops;       /* multiply-adds times 2 of one sample's forward pass; Conv2d, Linear */
    int32_t line, column; /* where the text says it */
    char name[NNC_GRAPH_NAME_MAX]; /* module path, "layer1.0.conv1" */
};

enum nnc_param_kind {
    NNC_PARAM_WEIGHT, /* Conv2d (K,C,R,S) or Linear (K,C) */
    NNC_PARAM_BIAS,   /* (K) */
    NNC_PARAM_NORM,   /* BatchNorm2d weight or bias (C) */
    NNC_PARAM_BUFFER, /* running_mean, running_var: not trained */
};

/* How a parameter starts, as torchvision's model of that name does it. All draws are from
 * nnc_rng_make(seed, NNC_RNG_INIT, parameter number, block), a block being 2^20 values. */
enum nnc_init {
    NNC_INIT_CONSTANT, /* value a */
    NNC_INIT_UNIFORM,  /* in [-a, a] */
    NNC_INIT_NORMAL,   /* mean 0, standard deviation a */
};

struct nnc_param {
    char name[NNC_GRAPH_NAME_MAX]; /* "layer1.0.conv1.weight" */
    enum nnc_param_kind kind;
    enum nnc_init init;
    double init_a;
    uint32_t rank; /* of dims */
    uint32_t dims[4];
    uint64_t count; /* product of dims */
    int32_t node;
};

struct nnc_graph {
    struct nnc_node *nodes;
    struct nnc_param *params; /* in state_dict order */
    uint32_t node_count, param_count;
    struct nnc_shape input;
    uint32_t classes; /* features of the last node */
    char name[64];    /* of the model */
};

struct nnc_graph_params {
    const char *path;       /* file of the model text */
    const char *text;       /* its bytes, zero-ended; NULL: read path */
    const char *model_args; /* "hidden=512,activation=Tanh" */
    struct nnc_shape input; /* c = 0: the text's input(...) statement */
    uint32_t classes;       /* given to the definition's num_classes; 0: the text's default */
};

/* Parse the text, expand definitions, infer shapes and name parameters. The last definition's
 * parameters num_classes, in_channels, in_features, in_height and in_width are given from classes
 * and input unless model_args says otherwise. Owner:  free with nnc_graph_destroy(). Errors:
 * -NNC_E_USAGE "file:line:column: layer NAME: ..." with the shapes that do not meet; also when the
 * model's output does not have `classes` features (classes != 0). */
int nnc_graph_create(const struct nnc_graph_params *params, struct nnc_graph **ret_graph);

/* Takes NULL. */
void nnc_graph_destroy(struct nnc_graph *graph);

/* Fill values[param->count] with the starting values of parameter `number`. */
void nnc_graph_init_param(const struct nnc_graph *graph, uint32_t number, uint64_t seed,
                          float *ret_values);

/* Sum of counts of trained parameters (torch's p.numel() over parameters()). */
uint64_t nnc_graph_parameter_count(const struct nnc_graph *graph);

/* Number of the parameter with this name, or -1. */
int32_t nnc_graph_find_param(const struct nnc_graph *graph, const char *name);

#endif
