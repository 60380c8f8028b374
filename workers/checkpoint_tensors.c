/* SPDX-License-Identifier: Apache-2.0 */
/* The tensor lists of a checkpoint's files; see checkpoint_tensors.h. num_batches_tracked is there
 * so that PyTorch's load_state_dict(strict=True) takes the file; nothing here reads it back. */
#include "workers/checkpoint_tensors.h"

#include "base/err.h"
#include "workers/state.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char MEAN_SUFFIX[] = ".running_mean";

/* 1 when the parameter is the running mean of a BatchNorm2d, of which there is one each. */
static int is_running_mean(const struct nnc_param *param) {
    size_t length = strlen(param->name), suffix = strlen(MEAN_SUFFIX);
    return param->kind == NNC_PARAM_BUFFER && length > suffix &&
           strcmp(param->name + length - suffix, MEAN_SUFFIX) == 0;
}

static struct nnc_safetensors_item *add_item(struct nnc_tensor_list *list, uint32_t param) {
    uint32_t number = list->count++;
    list->params[number] = param;
    list->items[number].name = list->names[number];
    return &list->items[number];
}

static void add_counter(struct nnc_tensor_list *list, const struct nnc_graph *graph,
                        uint32_t number) {
    const char *mean = graph->params[number].name;
    int stem = (int)(strlen(mean) - strlen(MEAN_SUFFIX));
    snprintf(list->names[list->count], sizeof(list->names[0]), "%.*s.num_batches_tracked", stem,
             mean);
    add_item(list, number)->dtype = NNC_DTYPE_I64;
    list->counters++;
}

static void add_tensor(struct nnc_tensor_list *list, const struct nnc_graph *graph, uint32_t number,
                       const char *prefix) {
    const struct nnc_param *param = &graph->params[number];
    snprintf(list->names[list->count], sizeof(list->names[0]), "%s%s", prefix, param->name);
    struct nnc_safetensors_item *item = add_item(list, number);
    item->dtype = NNC_DTYPE_F32;
    item->rank = param->rank;
    for (uint32_t axis = 0; axis < param->rank; axis++) {
        item->dims[axis] = param->dims[axis];
    }
}

int nnc_tensor_list_make(const struct nnc_graph *graph, enum nnc_tensor_file_kind kind,
                         struct nnc_tensor_list *ret_list) {
    size_t room = 2 * (size_t)graph->param_count + 1;
    struct nnc_tensor_list list = {.items = calloc(room, sizeof(*list.items)),
                                   .params = calloc(room, sizeof(*list.params)),
                                   .names = calloc(room, sizeof(*list.names))};
    if (list.items == NULL || list.params == NULL || list.names == NULL) {
        nnc_tensor_list_finish(&list);
        return nnc_fail(-ENOMEM, "no memory for the list of tensors");
    }
    int is_model = kind == NNC_TENSOR_FILE_MODEL;
    for (uint32_t number = 0; is_model && number < graph->param_count; number++) {
        if (is_running_mean(&graph->params[number])) {
            add_counter(&list, graph, number);
        }
    }
    for (uint32_t number = 0; number < graph->param_count; number++) {
        if (is_model || nnc_state_is_trained(&graph->params[number])) {
            add_tensor(&list, graph, number, is_model ? "" : "momentum_buffer.");
        }
    }
    assert(list.count <= room);
    *ret_list = list;
    return 0;
}

void nnc_tensor_list_finish(struct nnc_tensor_list *list) {
    free(list->items);
    free(list->params);
    free(list->names);
    *list = (struct nnc_tensor_list){0};
}
