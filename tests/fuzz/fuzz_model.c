/* SPDX-License-Identifier: Apache-2.0 */
/* Fuzz target: any bytes as a model text. The first line ends the --model-args when it begins with
 * "@". A text that is accepted must give a graph whose nodes refer backwards and whose parameters
 * have owners. */
#include "workers/graph.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static void check(const struct nnc_graph *graph) {
    for (uint32_t i = 0; i < graph->node_count; i++) {
        const struct nnc_node *node = &graph->nodes[i];
        assert(node->input[0] < (int32_t)i && node->input[1] < (int32_t)i);
        assert(node->shape.c > 0 && node->shape.h > 0 && node->shape.w > 0);
        assert(node->weight < (int32_t)graph->param_count);
        assert(!node->flat || (node->shape.h == 1 && node->shape.w == 1));
    }
    for (uint32_t i = 0; i < graph->param_count; i++) {
        assert(graph->params[i].node >= 0 && graph->params[i].node < (int32_t)graph->node_count);
        assert(graph->params[i].count > 0 &&
               nnc_graph_find_param(graph, graph->params[i].name) >= 0);
    }
    assert(graph->classes == graph->nodes[graph->node_count - 1].shape.c);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    char *text = malloc(bytes + 1);
    if (text == NULL) {
        return 0;
    }
    memcpy(text, data, bytes);
    text[bytes] = '\0';
    char *model = text, *args = NULL;
    char *line_end = text[0] == '@' ? strchr(text, '\n') : NULL;
    if (line_end != NULL) {
        *line_end = '\0';
        args = text + 1;
        model = line_end + 1;
    }
    struct nnc_graph *graph = NULL;
    if (nnc_graph_create(
            &(struct nnc_graph_params){.path = "fuzz.nn", .text = model, .model_args = args},
            &graph) >= 0) {
        check(graph);
        nnc_graph_destroy(graph);
    }
    free(text);
    return 0;
}
