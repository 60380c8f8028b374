/* SPDX-License-Identifier: Apache-2.0 */
/* Reading the tensors of a checkpoint that was found and verified. Every tensor must be there under
 * its name with the graph's shape: resuming is all or nothing. Weights of other origin come through
 * --weights instead.
 *
 * It does not verify hashes: checkpoint_find.c did. */
#include "workers/checkpoint.h"

#include "workers/checkpoint_tensors.h"
#include "workers/manifest.h"

#include <errno.h>
#include <string.h>

static int same_shape(const struct nnc_safetensors_item *item,
                      const struct nnc_safetensor *tensor) {
    if (tensor->dtype != item->dtype || tensor->rank != item->rank) {
        return 0;
    }
    return memcmp(tensor->dims, item->dims, item->rank * sizeof(item->dims[0])) == 0;
}

static int load_tensor(const struct nnc_safetensors *file, const struct nnc_safetensors_item *item,
                       float *ret_floats) {
    int32_t number = nnc_safetensors_find(file, item->name);
    if (number < 0) {
        return nnc_fail(-NNC_E_CHECKPOINT, "tensor %s is missing", item->name);
    }
    if (!same_shape(item, &file->tensors[number])) {
        return nnc_fail(-NNC_E_CHECKPOINT, "tensor %s has another shape than this model's",
                        item->name);
    }
    return nnc_safetensors_read(file, (uint32_t)number, ret_floats);
}

/* Read all floats of one file; *ret_floats advances behind them. */
static int load_file(struct nnc_vfs *vfs, const char *dir, const struct nnc_graph *graph,
                     enum nnc_tensor_file_kind kind, float **floats) {
    const char *name =
        kind == NNC_TENSOR_FILE_MODEL ? NNC_CHECKPOINT_MODEL_FILE : NNC_CHECKPOINT_STATE_FILE;
    char path[NNC_CHECKPOINT_PATH_MAX];
    struct nnc_safetensors *file = NULL;
    struct nnc_tensor_list list = {0};
    int code = nnc_path_join(dir, name, path, sizeof(path));
    code = code < 0 ? code : nnc_tensor_list_make(graph, kind, &list);
    code = code < 0 ? code : nnc_safetensors_open(vfs, path, &file);
    for (uint32_t number = list.counters; code == 0 && number < list.count; number++) {
        code = load_tensor(file, &list.items[number], *floats);
        *floats += graph->params[list.params[number]].count;
    }
    nnc_safetensors_close(file);
    nnc_tensor_list_finish(&list);
    return code < 0 ? nnc_fail_in(code, "%s", path) : 0;
}

int nnc_checkpoint_load(struct nnc_vfs *vfs, const struct nnc_checkpoint *checkpoint,
                        const struct nnc_graph *graph, float *ret_tensors) {
    float *floats = ret_tensors;
    int code = load_file(vfs, checkpoint->path, graph, NNC_TENSOR_FILE_MODEL, &floats);
    code =
        code < 0 ? code : load_file(vfs, checkpoint->path, graph, NNC_TENSOR_FILE_STATE, &floats);
    return code < 0 ? nnc_fail_in(-NNC_E_CHECKPOINT, "checkpoint cannot be loaded") : 0;
}
