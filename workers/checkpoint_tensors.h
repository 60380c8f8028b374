/* SPDX-License-Identifier: Apache-2.0 */
/* Which tensors stand in the two safetensors files of a checkpoint, and in which order. Internal to
 * checkpoint_save.c and checkpoint_load.c.
 *
 * model.safetensors: first one I64 num_batches_tracked for each BatchNorm2d (they need 8-byte
 * alignment), then all parameters and buffers in state_dict order. state.safetensors: the momentum
 * of the trained parameters as momentum_buffer.NAME. */
#ifndef NNC_WORKERS_CHECKPOINT_TENSORS_H
#define NNC_WORKERS_CHECKPOINT_TENSORS_H

#include "workers/graph.h"
#include "workers/safetensors.h"

#include <stddef.h>
#include <stdint.h>

#define NNC_CHECKPOINT_MODEL_FILE "model.safetensors"
#define NNC_CHECKPOINT_STATE_FILE "state.safetensors"

enum nnc_tensor_file_kind {
    NNC_TENSOR_FILE_MODEL,
    NNC_TENSOR_FILE_STATE,
};

/* The tensors of one file. Items have no data. */
struct nnc_tensor_list {
    struct nnc_safetensors_item *items;
    uint32_t *params;  /* graph parameter of each item; of the BatchNorm2d for a counter */
    uint32_t counters; /* items at the front that are I64 counters */
    uint32_t count;
    char (*names)[NNC_GRAPH_NAME_MAX + 32]; /* what the items' names point to */
};

/* List them for a graph. Free with nnc_tensor_list_finish(). Errors: -ENOMEM. */
int nnc_tensor_list_make(const struct nnc_graph *graph, enum nnc_tensor_file_kind kind,
                         struct nnc_tensor_list *ret_list);

/* Free the list's arrays. Takes a zeroed one. */
void nnc_tensor_list_finish(struct nnc_tensor_list *list);

#endif
