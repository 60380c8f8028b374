/* SPDX-License-Identifier: Apache-2.0 */
/* What `nncoord models` prints: the list of models, and the layers of one, as text for people or
 * JSON for programs. */
#ifndef NNC_WORKERS_REPORT_H
#define NNC_WORKERS_REPORT_H

#include <stdbool.h>
#include <stdio.h>

#include "base/config.h"
#include "workers/graph.h"

/* Print one line a model of models_dir (NULL: the program's own): name, parameters, GFLOPs, input,
 * first comment of its text. JSON: {"models": [{"name", "parameters", "flops", "input": [C, H, W],
 * "description"}, ...]}. A text with a mistake is listed with the mistake ("error" in JSON).
 * Errors: as nnc_model_names(); -ENOMEM; -EIO when out cannot be written. */
int nnc_report_models(const char *models_dir, bool json, FILE *out);

/* Print a table of the layers: path, type, output shape, parameters, FLOPs; and their sums. FLOPs
 * are those of one image's forward pass, 2 for each multiply-add (MAC); papers call the MACs FLOPs.
 * JSON: {"model", "input": [C, H, W], "classes", "parameters", "flops", "macs", "layers": [{"name",
 * "type", "output": [C, H, W] or [C], "parameters", "flops"}, ...]}.
 * Errors: -ENOMEM; -EIO when out cannot be written. */
int nnc_report_layers(const struct nnc_graph *graph, bool json, FILE *out);

/* Carry out `models` (the list) or `models show NAME...`: one table or JSON object for each name;
 * with no name that of --model. --input and --model-args count for each. Errors: -NNC_E_USAGE for
 * names, --input and mistakes in texts; as the functions above. */
int nnc_report_command(const struct nnc_command *command, const char *models_dir, FILE *out);

/* "3x224x224" to a shape. Errors: -NNC_E_USAGE. */
int nnc_report_parse_input(const char *text, struct nnc_shape *ret_shape);

#endif
