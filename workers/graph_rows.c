/* SPDX-License-Identifier: Apache-2.0 */
/* Rows to a graph: shapes by PyTorch's formulas, parameters in node order. */
#include "workers/graph_rows.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

static int32_t add_param(struct nnc_graph *graph, int32_t node, const char *suffix,
                         enum nnc_param_kind kind, const uint32_t dims[4]) {
    struct nnc_param *param = &graph->params[graph->param_count];
    *param = (struct nnc_param){.kind = kind, .node = node, .count = 1};
    for (uint32_t place = 0; place < 4 && dims[place] > 0; place++) {
        param->dims[place] = dims[place];
        param->count *= dims[place];
        param->rank++;
    }
    snprintf(param->name, sizeof(param->name), "n%d.%s", (int)node, suffix);
    return (int32_t)graph->param_count++;
}

static uint32_t window_out(uint32_t in, uint32_t kernel, uint32_t stride, uint32_t pad) {
    assert(kernel > 0 && stride > 0 && in + 2 * pad >= kernel);
    return (in + 2 * pad - kernel) / stride + 1;
}

static struct nnc_shape shape_of(const struct nnc_layer_row *row, struct nnc_shape in) {
    const struct nnc_window *win = &row->window;
    switch (row->layer) {
    case NNC_LAYER_CONV2D:
    case NNC_LAYER_MAXPOOL2D:
    case NNC_LAYER_AVGPOOL2D:
        return (struct nnc_shape){row->layer == NNC_LAYER_CONV2D ? row->features : in.c,
                                  window_out(in.h, win->r, win->stride_h, win->pad_h),
                                  window_out(in.w, win->s, win->stride_w, win->pad_w)};
    case NNC_LAYER_ADAPTIVE_AVGPOOL2D:
        return (struct nnc_shape){in.c, row->out_h, row->out_w};
    case NNC_LAYER_LINEAR:
        return (struct nnc_shape){row->features, 1, 1};
    case NNC_LAYER_FLATTEN:
        return (struct nnc_shape){in.c * in.h * in.w, 1, 1};
    default:
        return in;
    }
}

static void add_params(struct nnc_graph *graph, int32_t number, const struct nnc_layer_row *row,
                       struct nnc_shape in) {
    struct nnc_node *node = &graph->nodes[number];
    const uint32_t conv[4] = {row->features, in.c, row->window.r, row->window.s};
    const uint32_t linear[4] = {row->features, in.c * in.h * in.w};
    const uint32_t features[4] = {row->features};
    const uint32_t channels[4] = {in.c};
    if (row->layer == NNC_LAYER_CONV2D || row->layer == NNC_LAYER_LINEAR) {
        node->weight = add_param(graph, number, "weight", NNC_PARAM_WEIGHT,
                                 row->layer == NNC_LAYER_CONV2D ? conv : linear);
        if (row->bias) {
            node->bias = add_param(graph, number, "bias", NNC_PARAM_BIAS, features);
        }
    }
    if (row->layer == NNC_LAYER_BATCHNORM2D) {
        node->weight = add_param(graph, number, "weight", NNC_PARAM_NORM, channels);
        node->bias = add_param(graph, number, "bias", NNC_PARAM_NORM, channels);
        node->running_mean = add_param(graph, number, "running_mean", NNC_PARAM_BUFFER, channels);
        node->running_var = add_param(graph, number, "running_var", NNC_PARAM_BUFFER, channels);
    }
}

static void fill_node(struct nnc_graph *graph, uint32_t number, const struct nnc_layer_row *rows) {
    struct nnc_node *node = &graph->nodes[number];
    *node = (struct nnc_node){.input = {-1, -1},
                              .weight = -1,
                              .bias = -1,
                              .running_mean = -1,
                              .running_var = -1,
                              .shape = graph->input,
                              .eps = 1e-5,
                              .momentum = 0.1,
                              .line = (int32_t)number};
    if (number == 0) {
        return;
    }
    const struct nnc_layer_row *row = &rows[number - 1];
    assert(row->back < number && row->other < number);
    snprintf(node->name, sizeof(node->name), "n%u", number);
    node->layer = row->layer;
    node->input[0] = (int32_t)(number - 1 - row->back);
    node->input[1] = row->layer == NNC_LAYER_ADD ? (int32_t)(number - 1 - row->other) : -1;
    node->window = row->window;
    node->dropout = row->dropout;
    node->shape = shape_of(row, graph->nodes[node->input[0]].shape);
    add_params(graph, (int32_t)number, row, graph->nodes[node->input[0]].shape);
}

struct nnc_graph *nnc_graph_of_rows(struct nnc_shape input, const struct nnc_layer_row *rows) {
    uint32_t count = 1;
    while (rows[count - 1].layer != NNC_LAYER_INPUT) {
        count++;
    }
    struct nnc_graph *graph = calloc(1, sizeof(*graph));
    if (graph == NULL) {
        return NULL;
    }
    graph->nodes = calloc(count, sizeof(*graph->nodes));
    graph->params = calloc(4 * (size_t)count, sizeof(*graph->params));
    if (graph->nodes == NULL || graph->params == NULL) {
        nnc_graph_of_rows_free(graph);
        return NULL;
    }
    graph->node_count = count;
    graph->input = input;
    snprintf(graph->name, sizeof(graph->name), "rows");
    for (uint32_t number = 0; number < count; number++) {
        fill_node(graph, number, rows);
    }
    struct nnc_shape last = graph->nodes[count - 1].shape;
    graph->classes = last.c * last.h * last.w;
    return graph;
}

void nnc_graph_of_rows_free(struct nnc_graph *graph) {
    if (graph != NULL) {
        free(graph->nodes);
        free(graph->params);
        free(graph);
    }
}
