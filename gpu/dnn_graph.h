/* SPDX-License-Identifier: Apache-2.0 */
/* A convolution as a cuDNN operation graph: what is computed, nothing about how or where. */
#ifndef NNC_GPU_DNN_GRAPH_H
#define NNC_GPU_DNN_GRAPH_H

#include "gpu/dnn.h"

#include <cudnn_backend.h>

/* Names of the tensors that lie in memory, for the list of pointers of an execution. */
enum nnc_dnn_uid {
    NNC_DNN_UID_X = 1,
    NNC_DNN_UID_W,
    NNC_DNN_UID_Y,
    NNC_DNN_UID_BIAS,
    NNC_DNN_UID_PRODUCT, /* inside the graph: before the bias */
    NNC_DNN_UID_SUM,     /* inside the graph: before the activation */
    NNC_DNN_UID_COUNT,
};

#define NNC_DNN_PARTS_MAX 13

struct nnc_dnn_graph {
    cudnnBackendDescriptor_t parts[NNC_DNN_PARTS_MAX]; /* the last one is the operation graph */
    uint32_t part_count;
};

/* Owner: finish with nnc_dnn_graph_finish().
 * Errors: -ENOTSUP, -NNC_E_HARDWARE with cuDNN's words, -ENOMEM; nothing is left to finish then. */
int nnc_dnn_graph_init(const struct nnc_dnn_key *key, struct nnc_dnn_graph *ret_graph);

/* Takes one of zeros. */
void nnc_dnn_graph_finish(struct nnc_dnn_graph *graph);

/* The descriptor of the whole. */
cudnnBackendDescriptor_t nnc_dnn_graph_whole(const struct nnc_dnn_graph *graph);

#endif
