/* SPDX-License-Identifier: Apache-2.0 */
/* Tables and JSON about models.
 *
 * Everything is measured on the graph alone: no weights are made, no program is lowered. Parameters
 * are the trained ones (running statistics are buffers and do not count), as in PyTorch's numel()
 * sums. */
#include "workers/report.h"

#include "base/err.h"
#include "base/model_dir.h"
#include "base/output.h"
#include "workers/graph_build.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#define COUNT_TEXT_MAX 32
#define LINE_MAX_BYTES 256

/* "25,557,032" into text[COUNT_TEXT_MAX]. Returns text. */
static const char *count_text(uint64_t count, char *text) {
    char digits[24];
    int length = snprintf(digits, sizeof(digits), "%" PRIu64, count);
    char *out = text;
    for (int i = 0; i < length; i++) {
        if (i > 0 && (length - i) % 3 == 0) {
            *out++ = ',';
        }
        *out++ = digits[i];
    }
    *out = '\0';
    return text;
}

static int flush(FILE *out) {
    return nnc_output_flush(out, "the report");
}

/* Print and free a JSON value; NULL means that there was no memory for it. */
static int print_json(json_t *value, FILE *out) {
    int code = 0;
    if (value == NULL) {
        code = nnc_fail(-ENOMEM, "no memory for the report");
    } else if (json_dumpf(value, out, JSON_COMPACT) < 0 || fputc('\n', out) == EOF) {
        code = nnc_fail(-EIO, "the report cannot be written");
    }
    json_decref(value);
    return code < 0 ? code : flush(out);
}

static uint64_t total_flops(const struct nnc_graph *graph) {
    uint64_t flops = 0;
    for (uint32_t i = 0; i < graph->node_count; i++) {
        flops += graph->nodes[i].flops; /* 10,000 layers of at most 2^48 */
    }
    return flops;
}

static uint64_t param_count(const struct nnc_graph *graph, int32_t number) {
    return number >= 0 ? graph->params[number].count : 0;
}

static uint64_t node_parameters(const struct nnc_graph *graph, const struct nnc_node *node) {
    return param_count(graph, node->weight) + param_count(graph, node->bias);
}

static json_t *shape_json(const struct nnc_shape *shape, bool flat) {
    return flat ? json_pack("[I]", (json_int_t)shape->c)
                : json_pack("[I, I, I]", (json_int_t)shape->c, (json_int_t)shape->h,
                            (json_int_t)shape->w);
}

static json_t *layer_json(const struct nnc_graph *graph, const struct nnc_node *node) {
    return json_pack("{s:s, s:s, s:o, s:I, s:I}", "name", node->name, "type",
                     nnc_layer_name(node->layer), "output", shape_json(&node->shape, node->flat),
                     "parameters", (json_int_t)node_parameters(graph, node), "flops",
                     (json_int_t)node->flops);
}

static json_t *layers_json(const struct nnc_graph *graph) {
    json_t *layers = json_array();
    for (uint32_t i = 1; i < graph->node_count; i++) {
        if (json_array_append_new(layers, layer_json(graph, &graph->nodes[i])) < 0) {
            json_decref(layers);
            return NULL;
        }
    }
    uint64_t flops = total_flops(graph);
    return json_pack("{s:s, s:o, s:I, s:I, s:I, s:I, s:o}", "model", graph->name, "input",
                     shape_json(&graph->input, false), "classes", (json_int_t)graph->classes,
                     "parameters", (json_int_t)nnc_graph_parameter_count(graph), "flops",
                     (json_int_t)flops, "macs", (json_int_t)(flops / 2), "layers", layers);
}

/* Width of the column of module paths. */
static int name_width(const struct nnc_graph *graph) {
    size_t width = strlen("layer");
    for (uint32_t i = 1; i < graph->node_count; i++) {
        size_t length = strlen(graph->nodes[i].name);
        width = length > width ? length : width;
    }
    return (int)width;
}

/* One row of the table, without blanks at its end. */
static void print_layer(const struct nnc_graph *graph, const struct nnc_node *node, int width,
                        FILE *out) {
    char shape[NNC_SHAPE_TEXT_MAX], count[COUNT_TEXT_MAX] = "", flops[COUNT_TEXT_MAX] = "";
    char line[LINE_MAX_BYTES + NNC_GRAPH_NAME_MAX];
    uint64_t parameters = node_parameters(graph, node);
    if (parameters > 0) {
        count_text(parameters, count);
    }
    if (node->flops > 0) {
        snprintf(flops, sizeof(flops), "%.2f", (double)node->flops / 1e6);
    }
    snprintf(line, sizeof(line), "%-*s  %-17s  %-13s  %12s  %10s", width, node->name,
             nnc_layer_name(node->layer), nnc_shape_text(&node->shape, node->flat, shape), count,
             flops);
    size_t length = strlen(line);
    while (length > 0 && line[length - 1] == ' ') {
        length--;
    }
    fprintf(out, "%.*s\n", (int)length, line);
}

static void print_layers(const struct nnc_graph *graph, FILE *out) {
    char text[NNC_SHAPE_TEXT_MAX];
    int width = name_width(graph);
    uint64_t flops = total_flops(graph);
    fprintf(out, "%s, input %s, %u classes\n\n", graph->name,
            nnc_shape_text(&graph->input, false, text), graph->classes);
    fprintf(out, "%-*s  %-17s  %-13s  %12s  %10s\n", width, "layer", "type", "output", "parameters",
            "MFLOPs");
    for (uint32_t i = 1; i < graph->node_count; i++) {
        print_layer(graph, &graph->nodes[i], width, out);
    }
    fprintf(out, "\nparameters  %s\n", count_text(nnc_graph_parameter_count(graph), text));
    fprintf(out, "GMACs       %.3f  (multiply-adds of one image forward; what papers call FLOPs)\n",
            (double)flops / 2e9);
    fprintf(out, "GFLOPs      %.3f  (2 for each multiply-add)\n", (double)flops / 1e9);
}

int nnc_report_layers(const struct nnc_graph *graph, bool json, FILE *out) {
    if (json) {
        return print_json(layers_json(graph), out);
    }
    print_layers(graph, out);
    return flush(out);
}

/* The text of the first comment line, "" when the file begins otherwise. */
static void first_comment(const char *path, char *ret_line, size_t bytes) {
    ret_line[0] = '\0';
    FILE *file = fopen(path, "re");
    if (file == NULL) {
        return;
    }
    char line[LINE_MAX_BYTES];
    if (fgets(line, sizeof(line), file) != NULL && line[0] == '#') {
        line[strcspn(line, "\r\n")] = '\0';
        snprintf(ret_line, bytes, "%s", line + 1 + strspn(line + 1, " "));
    }
    fclose(file);
}

/* One model of the list; graph is NULL when its text has a mistake. */
struct entry {
    const char *name;
    const struct nnc_graph *graph;
    char description[LINE_MAX_BYTES];
};

static json_t *entry_json(const struct entry *entry) {
    const struct nnc_graph *graph = entry->graph;
    if (graph == NULL) {
        return json_pack("{s:s, s:s}", "name", entry->name, "error", nnc_error_text());
    }
    return json_pack("{s:s, s:I, s:I, s:o, s:s}", "name", entry->name, "parameters",
                     (json_int_t)nnc_graph_parameter_count(graph), "flops",
                     (json_int_t)total_flops(graph), "input", shape_json(&graph->input, false),
                     "description", entry->description);
}

static void print_entry(const struct entry *entry, FILE *out) {
    if (entry->graph == NULL) {
        fprintf(out, "%-10s  mistake: %s\n", entry->name, nnc_error_text());
        return;
    }
    char count[COUNT_TEXT_MAX], shape[NNC_SHAPE_TEXT_MAX];
    fprintf(out, "%-10s  %12s  %8.3f  %-11s  %s\n", entry->name,
            count_text(nnc_graph_parameter_count(entry->graph), count),
            (double)total_flops(entry->graph) / 2e9,
            nnc_shape_text(&entry->graph->input, false, shape), entry->description);
}

/* List one model: into the array, or as a line when the array is NULL. */
static int report_entry(const char *name, const char *models_dir, json_t *array, FILE *out) {
    char path[NNC_PATH_MAX];
    struct entry entry = {.name = name};
    struct nnc_graph *graph = NULL;
    int code = nnc_model_resolve(name, models_dir, path, sizeof(path));
    if (code < 0) {
        return code;
    }
    first_comment(path, entry.description, sizeof(entry.description));
    code = nnc_graph_create(&(struct nnc_graph_params){.path = path}, &graph);
    entry.graph = code >= 0 ? graph : NULL;
    code = code == -ENOMEM ? code : 0;
    if (code >= 0 && array == NULL) {
        print_entry(&entry, out);
    } else if (code >= 0 && json_array_append_new(array, entry_json(&entry)) < 0) {
        code = nnc_fail(-ENOMEM, "no memory for the report");
    }
    nnc_graph_destroy(graph);
    return code;
}

int nnc_report_models(const char *models_dir, bool json, FILE *out) {
    char **names = NULL;
    size_t count = 0;
    int code = nnc_model_names(models_dir, &names, &count);
    if (code < 0) {
        return code;
    }
    json_t *array = json ? json_array() : NULL;
    if (json && array == NULL) {
        code = nnc_fail(-ENOMEM, "no memory for the report");
    } else if (!json) {
        fprintf(out, "%-10s  %12s  %8s  %s\n", "model", "parameters", "GMACs", "input");
    }
    for (size_t i = 0; i < count && code >= 0; i++) {
        code = report_entry(names[i], models_dir, array, out);
    }
    nnc_model_names_free(names, count);
    if (code >= 0 && json) {
        return print_json(json_pack("{s:o}", "models", array), out);
    }
    json_decref(array);
    return code < 0 ? code : flush(out);
}

int nnc_report_parse_input(const char *text, struct nnc_shape *ret_shape) {
    struct nnc_shape shape;
    int used = 0;
    /* %9u: at most 9 digits, so no overflow. */
    if (sscanf(text, "%9ux%9ux%9u%n", &shape.c, &shape.h, &shape.w, &used) != 3 ||
        text[used] != '\0' || text[strspn(text, "0123456789x")] != '\0' || shape.c == 0 ||
        shape.h == 0 || shape.w == 0) {
        return nnc_fail(-NNC_E_USAGE,
                        "--input %.60s: channels x height x width expected, such as 3x224x224",
                        text);
    }
    *ret_shape = shape;
    return 0;
}

static int show_model(const struct nnc_config *config, const char *name, const char *models_dir,
                      FILE *out) {
    char path[NNC_PATH_MAX];
    struct nnc_graph *graph = NULL;
    struct nnc_graph_params params = {.path = path, .model_args = config->model_args};
    int code = nnc_model_resolve(name, models_dir, path, sizeof(path));
    if (code >= 0 && config->input[0] != '\0') {
        code = nnc_report_parse_input(config->input, &params.input);
    }
    if (code >= 0) {
        code = nnc_graph_create(&params, &graph);
    }
    if (code >= 0) {
        code = nnc_report_layers(graph, config->json, out);
    }
    nnc_graph_destroy(graph);
    return code;
}

int nnc_report_command(const struct nnc_command *command, const char *models_dir, FILE *out) {
    const struct nnc_config *config = &command->config;
    if (strcmp(command->subverb, "show") != 0) {
        return nnc_report_models(models_dir, config->json, out);
    }
    if (command->arg_count == 0) {
        return show_model(config, config->model, models_dir, out);
    }
    int code = 0;
    for (int i = 0; i < command->arg_count && code >= 0; i++) {
        if (i > 0 && !config->json) {
            fputc('\n', out);
        }
        code = show_model(config, command->args[i], models_dir, out);
    }
    return code;
}
