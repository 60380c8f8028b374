/* SPDX-License-Identifier: Apache-2.0 */
/* Keys of a weights file against parameters of a graph.
 *
 * Other programs save under names with a wrapper's prefix (DataParallel "module.", compiled models
 * "_orig_mod.", Lightning "model."). A key that is a parameter's exact name always wins over one
 * that becomes it without a prefix, so a model whose own modules are called "model" works too.
 * Names in reports come from the file and are escaped. */
#include "workers/weights.h"

#include "base/err.h"
#include "base/text.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LIST_NAMES_MAX 4u
#define LIST_BYTES_MAX 280u
#define NAME_TEXT_MAX  64u

/* One of the three lists of the report: the first names and the count of all. */
struct list {
    char text[LIST_BYTES_MAX];
    size_t used;
    uint32_t count;
};

struct matching {
    const struct nnc_graph *graph;
    const struct nnc_safetensors *file;
    const struct nnc_param **sorted; /* by name */
    bool *used;                      /* tensors that found their parameter */
    int32_t head;                    /* node of the last layer with a weight */
    bool strict;
    struct list missing, unexpected, misshaped;
};

static void list_add(struct list *list, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static void list_add(struct list *list, const char *format, ...) {
    list->count++;
    if (list->count > LIST_NAMES_MAX || list->used >= LIST_BYTES_MAX) {
        return;
    }
    char text[LIST_BYTES_MAX];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    list->used += (size_t)snprintf(list->text + list->used, LIST_BYTES_MAX - list->used, "%s%s",
                                   list->count > 1 ? ", " : "", text);
}

static int compare_params(const void *left, const void *right) {
    const struct nnc_param *const *first = left, *const *second = right;
    return strcmp((*first)->name, (*second)->name);
}

static int compare_key(const void *key, const void *element) {
    const struct nnc_param *const *param = element;
    return strcmp(key, (*param)->name);
}

static int32_t find_param(const struct matching *matching, const char *name) {
    const struct nnc_param **found = bsearch(name, matching->sorted, matching->graph->param_count,
                                             sizeof(*matching->sorted), compare_key);
    return found != NULL ? (int32_t)(*found - matching->graph->params) : -1;
}

static const char *without_prefix(const char *name) {
    static const char *const prefixes[] = {"module.", "model.", "_orig_mod."};
    for (size_t i = 0; i < sizeof(prefixes) / sizeof(prefixes[0]); i++) {
        size_t length = strlen(prefixes[i]);
        if (strncmp(name, prefixes[i], length) == 0) {
            return name + length;
        }
    }
    return NULL;
}

static void match_names(struct matching *matching, struct nnc_weights *weights) {
    const struct nnc_safetensors *file = matching->file;
    for (uint32_t i = 0; i < file->count; i++) {
        int32_t param = find_param(matching, file->tensors[i].name);
        if (param >= 0) {
            weights->tensor_of_param[param] = (int32_t)i;
            matching->used[i] = true;
        }
    }
    for (uint32_t i = 0; i < file->count; i++) {
        const char *name = matching->used[i] ? NULL : without_prefix(file->tensors[i].name);
        for (; name != NULL; name = without_prefix(name)) {
            int32_t param = find_param(matching, name);
            if (param >= 0 && weights->tensor_of_param[param] < 0) {
                weights->tensor_of_param[param] = (int32_t)i;
                matching->used[i] = true;
                break;
            }
        }
    }
}

static void shape_text(uint32_t rank, const uint64_t *dims, char *text, size_t room) {
    size_t used = (size_t)snprintf(text, room, "%s", rank == 0 ? "scalar" : "");
    for (uint32_t i = 0; i < rank && used < room; i++) {
        used += (size_t)snprintf(text + used, room - used, "%s%llu", i > 0 ? "x" : "",
                                 (unsigned long long)dims[i]);
    }
}

static bool same_shape(const struct nnc_param *param, const struct nnc_safetensor *tensor) {
    bool same = param->rank == tensor->rank;
    for (uint32_t i = 0; i < param->rank && same; i++) {
        same = param->dims[i] == tensor->dims[i];
    }
    return same;
}

/* Note a parameter that is missing or mis-shaped. */
static void check_param(struct matching *matching, struct nnc_weights *weights, uint32_t number) {
    const struct nnc_param *param = &matching->graph->params[number];
    int32_t tensor = weights->tensor_of_param[number];
    if (tensor >= 0 && same_shape(param, &matching->file->tensors[tensor])) {
        return;
    }
    weights->tensor_of_param[number] = -1;
    if (!matching->strict && param->node == matching->head) {
        weights->head_skipped++;
        return;
    }
    if (tensor < 0) {
        list_add(&matching->missing, "%s", param->name);
        return;
    }
    const struct nnc_safetensor *given = &matching->file->tensors[tensor];
    uint64_t dims[4];
    for (uint32_t i = 0; i < param->rank; i++) {
        dims[i] = param->dims[i];
    }
    char wanted[NAME_TEXT_MAX], found[NAME_TEXT_MAX];
    shape_text(param->rank, dims, wanted, sizeof(wanted));
    shape_text(given->rank, given->dims, found, sizeof(found));
    list_add(&matching->misshaped, "%s (%s in the file, %s in the model)", param->name, found,
             wanted);
}

static bool is_counter(const char *name) {
    static const char suffix[] = "num_batches_tracked";
    size_t length = strlen(name), end = sizeof(suffix) - 1;
    return length >= end && strcmp(name + length - end, suffix) == 0;
}

static void check_all(struct matching *matching, struct nnc_weights *weights) {
    for (uint32_t i = 0; i < matching->graph->param_count; i++) {
        check_param(matching, weights, i);
    }
    for (uint32_t i = 0; i < matching->file->count; i++) {
        const char *name = matching->file->tensors[i].name;
        if (!matching->used[i] && !is_counter(name)) {
            char text[NAME_TEXT_MAX];
            nnc_text_escape(name, text, sizeof(text));
            list_add(&matching->unexpected, "%s", text);
        }
    }
}

/* The three lists as one text. */
static int make_report(const struct matching *matching, struct nnc_weights *weights) {
    const struct {
        const char *title;
        const struct list *list;
    } lists[] = {
        {"missing", &matching->missing},
        {"unexpected", &matching->unexpected},
        {"of another shape", &matching->misshaped},
    };
    char text[3 * (LIST_BYTES_MAX + 64)] = "";
    size_t used = 0;
    for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++) {
        const struct list *list = lists[i].list;
        if (list->count == 0) {
            continue;
        }
        used += (size_t)snprintf(text + used, sizeof(text) - used, "%s%u %s: %s",
                                 used > 0 ? "; " : "", list->count, lists[i].title, list->text);
        if (list->count > LIST_NAMES_MAX) {
            used += (size_t)snprintf(text + used, sizeof(text) - used, ", ...");
        }
    }
    weights->report = strdup(text);
    weights->missing = matching->missing.count;
    weights->unexpected = matching->unexpected.count;
    weights->misshaped = matching->misshaped.count;
    return weights->report != NULL ? 0 : -ENOMEM;
}

static int allocate(struct matching *matching, struct nnc_weights *weights) {
    uint32_t count = matching->graph->param_count;
    weights->param_count = count;
    weights->tensor_of_param = malloc((count + 1) * sizeof(*weights->tensor_of_param));
    matching->sorted = calloc(count + 1, sizeof(*matching->sorted));
    matching->used = calloc(matching->file->count + 1, sizeof(*matching->used));
    if (weights->tensor_of_param == NULL || matching->sorted == NULL || matching->used == NULL) {
        return -ENOMEM;
    }
    for (uint32_t i = 0; i < count; i++) {
        weights->tensor_of_param[i] = -1;
        matching->sorted[i] = &matching->graph->params[i];
    }
    qsort(matching->sorted, count, sizeof(*matching->sorted), compare_params);
    return 0;
}

static int32_t find_head(const struct nnc_graph *graph) {
    int32_t node = (int32_t)graph->node_count - 1;
    while (node >= 0 && graph->nodes[node].weight < 0) {
        node--;
    }
    return node;
}

int nnc_weights_match(const struct nnc_graph *graph, const struct nnc_safetensors *file,
                      bool strict, struct nnc_weights **ret_weights) {
    struct matching *matching = calloc(1, sizeof(*matching));
    struct nnc_weights *weights = calloc(1, sizeof(*weights));
    int code = matching == NULL || weights == NULL ? -ENOMEM : 0;
    if (code >= 0) {
        *matching = (struct matching){
            .graph = graph, .file = file, .head = find_head(graph), .strict = strict};
        code = allocate(matching, weights);
    }
    if (code >= 0) {
        match_names(matching, weights);
        check_all(matching, weights);
        code = make_report(matching, weights);
    }
    if (matching != NULL) {
        free(matching->sorted);
        free(matching->used);
        free(matching);
    }
    if (code < 0) {
        nnc_weights_destroy(weights);
        return nnc_fail(code, "no memory to match weights");
    }
    *ret_weights = weights;
    return weights->report[0] == '\0'
               ? 0
               : nnc_fail(-NNC_E_USAGE, "the weights do not fit the model: %s", weights->report);
}

void nnc_weights_destroy(struct nnc_weights *weights) {
    if (weights == NULL) {
        return;
    }
    free(weights->tensor_of_param);
    free(weights->report);
    free(weights);
}
