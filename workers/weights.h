/* SPDX-License-Identifier: Apache-2.0 */
/* Which tensor of a foreign file is which parameter of a graph. */
#ifndef NNC_WORKERS_WEIGHTS_H
#define NNC_WORKERS_WEIGHTS_H

#include <stdbool.h>
#include <stdint.h>

#include "workers/graph.h"
#include "workers/safetensors.h"

struct nnc_weights {
    int32_t *tensor_of_param; /* [graph->param_count]; -1: nothing fits */
    uint32_t param_count;
    uint32_t missing, unexpected, misshaped; /* counts of keys */
    uint32_t head_skipped; /* parameters left as they are because strict is false */
    char *report;          /* for people: the three lists, shortened; "" when everything fits */
};

/* Match by name, first exactly, then with any of the prefixes "module.", "model." and "_orig_mod."
 * taken off; keys that end in num_batches_tracked are passed over. With strict, everything must
 * fit; without, the last layer's parameters (the head) may be missing or of another shape, nothing
 * else. Owner:  free with nnc_weights_destroy(), also after -NNC_E_USAGE. Errors: -NNC_E_USAGE when
 * the file does not fit, the text being the report; *ret_weights is set then too. -ENOMEM. */
int nnc_weights_match(const struct nnc_graph *graph, const struct nnc_safetensors *file,
                      bool strict, struct nnc_weights **ret_weights);

/* Takes NULL. */
void nnc_weights_destroy(struct nnc_weights *weights);

#endif
