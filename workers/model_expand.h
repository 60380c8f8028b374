/* SPDX-License-Identifier: Apache-2.0 */
/* From the tree of a model text to nodes. Internal to workers/model*.c and graph.c. */
#ifndef NNC_WORKERS_MODEL_EXPAND_H
#define NNC_WORKERS_MODEL_EXPAND_H

#include "workers/graph_build.h"
#include "workers/model_value.h"

/* Expand the file's model with params->model_args, params->input and params->classes into
 * build->graph, whose input, classes, nodes and params are set.
 * Errors: -NNC_E_USAGE with place, path and shapes; -ENOMEM. */
int nnc_model_expand(const struct nnc_model_file *file, const struct nnc_graph_params *params,
                     struct nnc_graph_build *build);

/* Read the init(...) statement (NULL: all rules default) into rules[NNC_SLOT_COUNT].
 * Errors: -NNC_E_USAGE with its place. */
int nnc_model_init_rules(struct nnc_value_context *context, const struct nnc_model_expr *statement,
                         struct nnc_init_rule *rules);

#endif
