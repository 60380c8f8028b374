/* SPDX-License-Identifier: Apache-2.0 */
/* Whether a machine fits into a run on several: what node 0 compares with its own, but for the
 * options (nnc_config_compare_shared()). Pure. */
#ifndef NNC_COORDINATOR_NODES_FIT_H
#define NNC_COORDINATOR_NODES_FIT_H

#include "coordinator/nodes.h"

#include <stdbool.h>
#include <stddef.h>

/* Whether a machine that knows the secret is one of the run with node 0's options; if not, words
 * that say why, "it has --nnodes 4 and node 0 --nnodes 3". */
bool nnc_nodes_greeting_fits(const struct nnc_config *config, const struct nnc_greeting *greeting,
                             char *ret_words, size_t bytes);

/* Whether a machine can do its share beside node 0's; if not, words that go on from its name, "has
 * another model than node 0 under the same name". */
bool nnc_nodes_share_fits(const struct nnc_nodes_share *own, const struct nnc_nodes_share *other,
                          char *ret_words, size_t bytes);

#endif
