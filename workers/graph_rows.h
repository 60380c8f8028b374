/* SPDX-License-Identifier: Apache-2.0 */
/* Small graphs from rows of a table, for checks that need an operation and no model text.
 *
 *   static const struct nnc_layer_row rows[] = {CONV(8, 3, 1, 1, true), BATCHNORM, RELU, LINEAR(10,
 * true), {0}};
 *
 * Each row reads the row before it, the first the input; ADD reads that and another, counted back.
 * Node n is named "n<number>", its parameters "n<number>.weight" and so on. */
#ifndef NNC_WORKERS_GRAPH_ROWS_H
#define NNC_WORKERS_GRAPH_ROWS_H

#include "workers/graph.h"

struct nnc_layer_row {
    enum nnc_layer layer;  /* NNC_LAYER_INPUT ends the table */
    uint32_t features;     /* output channels or features */
    uint32_t out_h, out_w; /* ADAPTIVE */
    struct nnc_window window;
    bool bias;
    double dropout;
    uint32_t back;  /* rows between this one and its input; 0: the row before */
    uint32_t other; /* ADD: rows between this one and the second input */
};

/* clang-format off */
#define WINDOW(r, s, stride_h, stride_w, pad_h, pad_w)                                             \
    .window = {(r), (s), (stride_h), (stride_w), (pad_h), (pad_w)}
#define SQUARE(kernel, stride, pad) WINDOW(kernel, kernel, stride, stride, pad, pad)
#define CONV(k, kernel, stride, pad, with_bias)                                                    \
    {.layer = NNC_LAYER_CONV2D, .features = (k), SQUARE(kernel, stride, pad), .bias = (with_bias)}
/* The same without bias, reading the value `rows` rows further back. */
#define CONV_BACK(k, kernel, stride, pad, rows)                                                    \
    {.layer = NNC_LAYER_CONV2D, .features = (k), SQUARE(kernel, stride, pad), .back = (rows)}
#define CONV_WINDOW(k, with_bias, ...)                                                             \
    {.layer = NNC_LAYER_CONV2D, .features = (k), WINDOW(__VA_ARGS__), .bias = (with_bias)}
#define LINEAR(k, with_bias) {.layer = NNC_LAYER_LINEAR, .features = (k), .bias = (with_bias)}
#define BATCHNORM {.layer = NNC_LAYER_BATCHNORM2D}
#define RELU {.layer = NNC_LAYER_RELU}
#define SIGMOID {.layer = NNC_LAYER_SIGMOID}
#define TANH {.layer = NNC_LAYER_TANH}
#define MAXPOOL(kernel, stride, pad) {.layer = NNC_LAYER_MAXPOOL2D, SQUARE(kernel, stride, pad)}
#define MAXPOOL_WINDOW(...) {.layer = NNC_LAYER_MAXPOOL2D, WINDOW(__VA_ARGS__)}
#define AVGPOOL(kernel, stride, pad) {.layer = NNC_LAYER_AVGPOOL2D, SQUARE(kernel, stride, pad)}
#define AVGPOOL_WINDOW(...) {.layer = NNC_LAYER_AVGPOOL2D, WINDOW(__VA_ARGS__)}
#define ADAPTIVE(h, w) {.layer = NNC_LAYER_ADAPTIVE_AVGPOOL2D, .out_h = (h), .out_w = (w)}
#define FLATTEN {.layer = NNC_LAYER_FLATTEN}
#define DROPOUT(p) {.layer = NNC_LAYER_DROPOUT, .dropout = (p)}
/* Adds the row before and the row `rows` further back. */
#define ADD(rows) {.layer = NNC_LAYER_ADD, .other = (rows)}
/* A layer without arguments, reading the value `rows` rows further back. */
#define BACK(kind, rows) {.layer = NNC_LAYER_##kind, .back = (rows)}
/* clang-format on */

/* Build the graph. Rows end with {0}. Asserts on rows that make no sense; NULL when memory is out.
 * Owner: free with nnc_graph_of_rows_free(), not nnc_graph_destroy(). */
struct nnc_graph *nnc_graph_of_rows(struct nnc_shape input, const struct nnc_layer_row *rows);

/* Takes NULL. */
void nnc_graph_of_rows_free(struct nnc_graph *graph);

#endif
