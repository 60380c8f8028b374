/* SPDX-License-Identifier: Apache-2.0 */
/* The table of layers of the model language. A new layer is a row here, a lowering rule in
 * program.c and a function in each backend. Internal to workers/model*.c. */
#ifndef NNC_WORKERS_MODEL_LAYERS_H
#define NNC_WORKERS_MODEL_LAYERS_H

#include "workers/graph_build.h"
#include "workers/model_value.h"

#define NNC_LAYER_ARGS_MAX 6

enum nnc_layer_arg_kind {
    NNC_ARG_COUNT,   /* whole, 1 ... 2^31 */
    NNC_ARG_WINDOW,  /* such a number for both directions, or a pair (height, width) */
    NNC_ARG_PADDING, /* the same from 0 */
    NNC_ARG_STRIDE,  /* as WINDOW, or None: the kernel's size */
    NNC_ARG_NUMBER,
    NNC_ARG_BOOL,
};

struct nnc_layer_arg {
    const char *name; /* torch's; NULL ends the list */
    enum nnc_layer_arg_kind kind;
    bool required;
    double def;
    double min, max; /* NUMBER */
};

/* One use of a layer: node has layer, place, path and input[0]; values are checked, in the row's
 * order. */
struct nnc_layer_use {
    struct nnc_graph_build *build;
    struct nnc_node node;
    struct nnc_value values[NNC_LAYER_ARGS_MAX];
};

struct nnc_layer_row {
    const char *name; /* torch's */
    enum nnc_layer layer;
    struct nnc_layer_arg args[NNC_LAYER_ARGS_MAX + 1];
    /* Check shapes, append node and parameters. Errors: -NNC_E_USAGE with place, path and shapes.
     */
    int (*add)(struct nnc_layer_use *use, int32_t *ret_node);
};

/* The row of that name, or NULL. */
const struct nnc_layer_row *nnc_layer_find(const char *name);

/* Add a layer called as `call` with input `node->input[0]`; *ret_node is its output.
 * Errors: -NNC_E_USAGE for wrong arguments and shapes that do not meet. */
int nnc_layer_add(struct nnc_value_context *context, struct nnc_graph_build *build,
                  const struct nnc_layer_row *row, const struct nnc_model_expr *call,
                  const struct nnc_model_frame *frame, const struct nnc_node *node,
                  int32_t *ret_node);

#endif
