/* SPDX-License-Identifier: Apache-2.0 */
/* The graph's memory, its making from a text, and how parameters start.
 *
 *   text --model_lex, model_parse--> tree --model_expand, model_layers--> nodes and params
 *
 * Invariants: 1. nodes are appended after their inputs, so the order is topological; 2. parameters
 * are appended in the order of the text, which is the state_dict's; 3. every product of sizes is
 * bounded here, so that later ones (times batch, times 4 bytes) fit 64 bits; 4. names of parameters
 * are unique. Does not know batch sizes, layouts or devices. Source: torch.nn.init for the starting
 * values. */
#include "workers/graph.h"

#include "base/err.h"
#include "base/rng.h"
#include "workers/graph_build.h"
#include "workers/model_expand.h"
#include "workers/model_text.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define INIT_BLOCK_VALUES ((size_t)1 << 20)

const char *nnc_layer_name(enum nnc_layer layer) {
    switch (layer) {
    case NNC_LAYER_INPUT:
        return "Input";
    case NNC_LAYER_CONV2D:
        return "Conv2d";
    case NNC_LAYER_LINEAR:
        return "Linear";
    case NNC_LAYER_BATCHNORM2D:
        return "BatchNorm2d";
    case NNC_LAYER_RELU:
        return "ReLU";
    case NNC_LAYER_SIGMOID:
        return "Sigmoid";
    case NNC_LAYER_TANH:
        return "Tanh";
    case NNC_LAYER_MAXPOOL2D:
        return "MaxPool2d";
    case NNC_LAYER_AVGPOOL2D:
        return "AvgPool2d";
    case NNC_LAYER_ADAPTIVE_AVGPOOL2D:
        return "AdaptiveAvgPool2d";
    case NNC_LAYER_FLATTEN:
        return "Flatten";
    case NNC_LAYER_DROPOUT:
        return "Dropout";
    case NNC_LAYER_ADD:
        return "Add";
    case NNC_LAYER_COUNT:
        break;
    }
    return "?";
}

const char *nnc_shape_text(const struct nnc_shape *shape, bool flat, char *text) {
    if (flat) {
        snprintf(text, NNC_SHAPE_TEXT_MAX, "%u", shape->c);
    } else {
        snprintf(text, NNC_SHAPE_TEXT_MAX, "%ux%ux%u", shape->c, shape->h, shape->w);
    }
    return text;
}

int nnc_build_fail(const struct nnc_graph_build *build, const struct nnc_node *node,
                   const char *format, ...) {
    char message[NNC_ERROR_TEXT_MAX];
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof(message), format, args);
    va_end(args);
    return nnc_model_fail(build->file, node->line, node->column, "%s%s%s %s", node->name,
                          node->name[0] != '\0' ? " " : "", nnc_layer_name(node->layer), message);
}

/* Make room for one more element; NULL when there is no memory (the old array stays). */
static void *grow(void *array, uint32_t count, uint32_t *capacity, size_t element_bytes) {
    if (count < *capacity) {
        return array;
    }
    uint32_t wanted = *capacity == 0 ? 64 : 2 * *capacity;
    void *larger = reallocarray(array, wanted, element_bytes);
    if (larger != NULL) {
        *capacity = wanted;
    }
    return larger;
}

/* Does one sample's output stay within NNC_GRAPH_COUNT_MAX values? */
static bool shape_fits(const struct nnc_shape *shape) {
    uint64_t count = (uint64_t)shape->c * shape->h; /* < 2^63: each is at most 2^31 */
    return shape->c >= 1 && shape->h >= 1 && shape->w >= 1 && shape->c <= NNC_GRAPH_DIM_MAX &&
           shape->h <= NNC_GRAPH_DIM_MAX && shape->w <= NNC_GRAPH_DIM_MAX &&
           count <= NNC_GRAPH_COUNT_MAX / shape->w;
}

int nnc_build_node(struct nnc_graph_build *build, const struct nnc_node *node,
                   int32_t *ret_number) {
    struct nnc_graph *graph = build->graph;
    if (graph->node_count >= NNC_GRAPH_NODES_MAX) {
        return nnc_build_fail(build, node, "is one too many: a model has at most %u layers",
                              NNC_GRAPH_NODES_MAX - 1);
    }
    if (!shape_fits(&node->shape)) {
        char text[NNC_SHAPE_TEXT_MAX];
        return nnc_build_fail(build, node, "has an output of %s, which is too large",
                              nnc_shape_text(&node->shape, node->flat, text));
    }
    struct nnc_node *nodes =
        grow(graph->nodes, graph->node_count, &build->node_capacity, sizeof(*nodes));
    if (nodes == NULL) {
        return nnc_fail(-ENOMEM, "no memory for the model's graph");
    }
    graph->nodes = nodes;
    nodes[graph->node_count] = *node;
    *ret_number = (int32_t)graph->node_count++;
    return 0;
}

int nnc_build_param(struct nnc_graph_build *build, int32_t node, const struct nnc_param *param,
                    int32_t *ret_number) {
    struct nnc_graph *graph = build->graph;
    const struct nnc_node *owner = &graph->nodes[node];
    struct nnc_param *params =
        grow(graph->params, graph->param_count, &build->param_capacity, sizeof(*params));
    if (params == NULL) {
        return nnc_fail(-ENOMEM, "no memory for the model's graph");
    }
    graph->params = params;
    struct nnc_param *added = &params[graph->param_count];
    *added = *param;
    int length = snprintf(added->name, sizeof(added->name), "%s%s%s", owner->name,
                          owner->name[0] != '\0' ? "." : "", param->name);
    if (length < 0 || (size_t)length >= sizeof(added->name)) {
        return nnc_build_fail(build, owner, "has a path too long for its %s", param->name);
    }
    added->node = node;
    added->count = 1;
    for (uint32_t i = 0; i < added->rank; i++) {
        bool overflow =
            __builtin_mul_overflow(added->count, (uint64_t)added->dims[i], &added->count);
        if (overflow || added->count > NNC_GRAPH_COUNT_MAX) {
            return nnc_build_fail(build, owner, "has too many values in its %s", param->name);
        }
    }
    *ret_number = (int32_t)graph->param_count++;
    return 0;
}

void nnc_build_rule(const struct nnc_graph_build *build, enum nnc_init_slot slot,
                    const struct nnc_init_fan *fan, struct nnc_param *param) {
    const struct nnc_init_rule *rule = &build->rules[slot];
    double fan_in = (double)fan->in, fan_out = (double)fan->out;
    param->init = NNC_INIT_UNIFORM;
    param->init_a = rule->a;
    switch (rule->kind) {
    case NNC_RULE_DEFAULT:
        param->init_a = 1 / sqrt(fan_in);
        break;
    case NNC_RULE_CONSTANT:
        param->init = NNC_INIT_CONSTANT;
        break;
    case NNC_RULE_NORMAL:
        param->init = NNC_INIT_NORMAL;
        break;
    case NNC_RULE_UNIFORM:
        break;
    case NNC_RULE_KAIMING_NORMAL_FAN_IN:
        param->init = NNC_INIT_NORMAL;
        param->init_a = sqrt(2 / fan_in);
        break;
    case NNC_RULE_KAIMING_NORMAL_FAN_OUT:
        param->init = NNC_INIT_NORMAL;
        param->init_a = sqrt(2 / fan_out);
        break;
    case NNC_RULE_XAVIER_UNIFORM:
        param->init_a = sqrt(6 / (fan_in + fan_out));
        break;
    }
}

static int compare_names(const void *left, const void *right) {
    const struct nnc_param *const *first = left, *const *second = right;
    return strcmp((*first)->name, (*second)->name);
}

/* Invariant 4. Two unnamed Residuals in one Sequential are the usual way to break it. */
static int check_names(const struct nnc_graph_build *build) {
    const struct nnc_graph *graph = build->graph;
    const struct nnc_param **sorted = calloc(graph->param_count + 1, sizeof(*sorted));
    if (sorted == NULL) {
        return nnc_fail(-ENOMEM, "no memory for the model's graph");
    }
    for (uint32_t i = 0; i < graph->param_count; i++) {
        sorted[i] = &graph->params[i];
    }
    qsort(sorted, graph->param_count, sizeof(*sorted), compare_names);
    int code = 0;
    for (uint32_t i = 1; i < graph->param_count && code >= 0; i++) {
        if (strcmp(sorted[i - 1]->name, sorted[i]->name) == 0) {
            code = nnc_build_fail(build, &graph->nodes[sorted[i]->node],
                                  "gives the name %s to a second parameter: give one of the "
                                  "modules a name of its own (NAME=...)",
                                  sorted[i]->name);
        }
    }
    free(sorted);
    return code;
}

/* Read a regular file of at most NNC_MODEL_TEXT_MAX bytes. Owner: caller frees *ret_text. */
static int read_text(const char *path, char **ret_text, size_t *ret_length) {
    /* Not blocking: the name may be that of a pipe. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        /* The name is the user's: a wrong one is wrong usage, not a failure of the program. */
        return nnc_fail(-NNC_E_USAGE, "model text %s: %s", path, strerror(errno));
    }
    char *text = NULL;
    struct stat status;
    int code = fstat(fd, &status) < 0 ? nnc_fail_errno("model text %s", path) : 0;
    if (code >= 0 && !S_ISREG(status.st_mode)) {
        code = nnc_fail(-NNC_E_USAGE, "model text %s is not a regular file", path);
    }
    if (code >= 0 && (text = malloc(NNC_MODEL_TEXT_MAX + 2)) == NULL) {
        code = nnc_fail(-ENOMEM, "no memory for the model text");
    }
    size_t length = 0;
    while (code >= 0 && length <= NNC_MODEL_TEXT_MAX) {
        ssize_t got = read(fd, text + length, NNC_MODEL_TEXT_MAX + 1 - length);
        if (got < 0 && errno != EINTR) {
            code = nnc_fail_errno("model text %s", path);
        }
        if (got == 0) {
            break;
        }
        length += got > 0 ? (size_t)got : 0;
    }
    close(fd);
    if (code < 0) {
        free(text);
        return code;
    }
    *ret_text = text;
    *ret_length = length;
    return 0;
}

/* "models/resnet18.nn" names the model "resnet18". */
static void set_name(struct nnc_graph *graph, const char *path) {
    const char *slash = strrchr(path, '/');
    const char *base = slash != NULL ? slash + 1 : path;
    const char *dot = strrchr(base, '.');
    size_t length = dot != NULL && dot > base ? (size_t)(dot - base) : strlen(base);
    if (length >= sizeof(graph->name)) {
        length = sizeof(graph->name) - 1;
    }
    memcpy(graph->name, base, length);
}

static int make_graph(const struct nnc_graph_params *params, const struct nnc_model_file *file,
                      struct nnc_graph **ret_graph) {
    struct nnc_graph *graph = calloc(1, sizeof(*graph));
    if (graph == NULL) {
        return nnc_fail(-ENOMEM, "no memory for the model's graph");
    }
    set_name(graph, file->file);
    struct nnc_graph_build build = {.graph = graph, .file = file->file};
    int code = nnc_model_expand(file, params, &build);
    if (code >= 0) {
        code = check_names(&build);
    }
    if (code < 0) {
        nnc_graph_destroy(graph);
        return code;
    }
    *ret_graph = graph;
    return 0;
}

int nnc_graph_create(const struct nnc_graph_params *params, struct nnc_graph **ret_graph) {
    assert(params->text != NULL || params->path != NULL);
    const char *path = params->path != NULL ? params->path : "model";
    char *bytes = NULL;
    const char *text = params->text;
    size_t length = text != NULL ? strlen(text) : 0;
    struct nnc_model_file *file = NULL;
    int code = 0;
    if (text == NULL) {
        code = read_text(path, &bytes, &length);
        text = bytes;
    }
    if (code >= 0) {
        code = nnc_model_parse(path, text, length, &file);
    }
    if (code >= 0) {
        code = make_graph(params, file, ret_graph);
    }
    nnc_model_file_destroy(file);
    free(bytes);
    return code;
}

void nnc_graph_destroy(struct nnc_graph *graph) {
    if (graph == NULL) {
        return;
    }
    free(graph->nodes);
    free(graph->params);
    free(graph);
}

/* Starting values of one block, from a stream of its own. */
static void init_block(const struct nnc_param *param, struct nnc_rng rng, size_t count,
                       float *values) {
    float a = (float)param->init_a;
    for (size_t i = 0; i < count; i++) {
        switch (param->init) {
        case NNC_INIT_CONSTANT:
            values[i] = a;
            break;
        case NNC_INIT_UNIFORM:
            values[i] = a * (2 * nnc_rng_uniform(&rng) - 1);
            break;
        case NNC_INIT_NORMAL:
            values[i] = a * nnc_rng_normal(&rng);
            break;
        }
    }
}

void nnc_graph_init_param(const struct nnc_graph *graph, uint32_t number, uint64_t seed,
                          float *ret_values) {
    assert(number < graph->param_count);
    const struct nnc_param *param = &graph->params[number];
    /* One stream has 2^32 draws, a parameter may have more values. */
    for (uint64_t first = 0; first < param->count; first += INIT_BLOCK_VALUES) {
        uint64_t left = param->count - first;
        init_block(param, nnc_rng_make(seed, NNC_RNG_INIT, number, first / INIT_BLOCK_VALUES),
                   left < INIT_BLOCK_VALUES ? (size_t)left : INIT_BLOCK_VALUES, ret_values + first);
    }
}

uint64_t nnc_graph_parameter_count(const struct nnc_graph *graph) {
    uint64_t count = 0;
    for (uint32_t i = 0; i < graph->param_count; i++) {
        count += graph->params[i].kind != NNC_PARAM_BUFFER ? graph->params[i].count : 0;
    }
    return count;
}

int32_t nnc_graph_find_param(const struct nnc_graph *graph, const char *name) {
    for (uint32_t i = 0; i < graph->param_count; i++) {
        if (strcmp(graph->params[i].name, name) == 0) {
            return (int32_t)i;
        }
    }
    return -1;
}
