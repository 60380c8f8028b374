/* SPDX-License-Identifier: Apache-2.0 */
/* See nodes_fit.h. The first difference is told, and each with its remedy where it has one. */
#include "coordinator/nodes_fit.h"

#include "ipc/setup.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

bool nnc_nodes_greeting_fits(const struct nnc_config *config, const struct nnc_greeting *greeting,
                             char *ret_words, size_t bytes) {
    if (strcmp(greeting->build_id, nnc_build_id()) != 0) {
        snprintf(ret_words, bytes, "it is build %s and node 0 is %s; install one build everywhere",
                 greeting->build_id, nnc_build_id());
    } else if (strcmp(greeting->job, config->rdzv_id) != 0) {
        snprintf(ret_words, bytes, "it belongs to the run \"%s\" and node 0 to \"%s\" (--rdzv-id)",
                 greeting->job, config->rdzv_id);
    } else if (greeting->nodes != config->nnodes) {
        snprintf(ret_words, bytes, "it has --nnodes %" PRIu32 " and node 0 --nnodes %" PRIu32,
                 greeting->nodes, config->nnodes);
    } else if (greeting->node == 0 || greeting->node >= config->nnodes) {
        snprintf(ret_words, bytes, "--node-rank %" PRIu32 " is %s", greeting->node,
                 greeting->node == 0 ? "already there" : "none of this run");
    } else {
        return true;
    }
    return false;
}

bool nnc_nodes_share_fits(const struct nnc_nodes_share *own, const struct nnc_nodes_share *other,
                          char *ret_words, size_t bytes) {
    if (other->ranks != own->ranks) {
        snprintf(ret_words, bytes,
                 "has %" PRIu32 " trainer%s and node 0 has %" PRIu32
                 "; all machines need as many (--gpus or --cpu-ranks)",
                 other->ranks, other->ranks == 1 ? "" : "s", own->ranks);
        return false;
    }
    if (other->on_gpus != own->on_gpus) {
        snprintf(ret_words, bytes, "trains on %s and node 0 on %s; all machines need the same",
                 other->on_gpus != 0 ? "GPUs" : "CPUs", own->on_gpus != 0 ? "GPUs" : "CPUs");
        return false;
    }
    for (int phase = 0; phase < 2; phase++) {
        if (other->data_hash[phase] != own->data_hash[phase]) {
            snprintf(ret_words, bytes,
                     "has another %s set than node 0: all machines need the same files",
                     phase == NNC_PHASE_TRAIN ? "training" : "validation");
            return false;
        }
    }
    if (other->model_hash != own->model_hash) {
        snprintf(ret_words, bytes, "has another model than node 0 under the same name");
        return false;
    }
    return true;
}
