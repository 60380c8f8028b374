/* SPDX-License-Identifier: Apache-2.0 */
/* Identity of a run's state: which tensors, which place, and whether a run may go on from it.
 *
 * Pure functions over the graph; no files, no processes. The weights' SHA-256 is taken over names
 * and values and not over a file, so that it does not change when a format's header does. */
#include "workers/state.h"

#include "base/checked.h"
#include "base/err.h"
#include "base/sha256.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <xxhash.h>

uint64_t nnc_state_global_step(const struct nnc_train_state *state) {
    return state->epoch * state->steps_per_epoch + state->step;
}

int nnc_state_is_trained(const struct nnc_param *param) {
    return param->kind != NNC_PARAM_BUFFER;
}

uint64_t nnc_state_param_hash(const struct nnc_graph *graph) {
    uint64_t hash = 0;
    for (uint32_t number = 0; number < graph->param_count; number++) {
        const struct nnc_param *param = &graph->params[number];
        uint64_t words[6] = {(uint64_t)param->kind, param->rank};
        for (uint32_t axis = 0; axis < param->rank; axis++) {
            words[2 + axis] = param->dims[axis];
        }
        hash = XXH3_64bits_withSeed(param->name, strlen(param->name), hash);
        hash = XXH3_64bits_withSeed(words, sizeof(words), hash);
    }
    return hash;
}

static int add_floats(const struct nnc_graph *graph, int only_trained, size_t *floats) {
    for (uint32_t number = 0; number < graph->param_count; number++) {
        const struct nnc_param *param = &graph->params[number];
        if (only_trained && !nnc_state_is_trained(param)) {
            continue;
        }
        if (nnc_size_add(*floats, param->count, floats)) {
            return nnc_fail(-EOVERFLOW, "the tensors of %s do not fit memory", graph->name);
        }
    }
    return 0;
}

int nnc_state_floats(const struct nnc_graph *graph, size_t *ret_floats) {
    size_t floats = 0;
    int code = add_floats(graph, 0, &floats);
    code = code < 0 ? code : add_floats(graph, 1, &floats);
    if (code == 0) {
        *ret_floats = floats;
    }
    return code;
}

size_t nnc_state_value_floats(const struct nnc_graph *graph) {
    size_t floats = 0;
    int code = add_floats(graph, 0, &floats);
    assert(code == 0);
    return floats;
}

int nnc_state_weights_sha256(const struct nnc_graph *graph, const float *values, char ret_hex[65]) {
    struct nnc_sha256 *hash = NULL;
    int code = nnc_sha256_create(&hash);
    for (uint32_t number = 0; code == 0 && number < graph->param_count; number++) {
        const struct nnc_param *param = &graph->params[number];
        code = nnc_sha256_update(hash, param->name, strlen(param->name) + 1);
        if (code == 0) {
            code = nnc_sha256_update(hash, values, param->count * sizeof(float));
        }
        values += param->count;
    }
    code = code < 0 ? code : nnc_sha256_hex(hash, ret_hex);
    nnc_sha256_destroy(hash);
    return code;
}

int nnc_state_check(const struct nnc_train_state *state, const struct nnc_train_state *run) {
    const struct {
        const char *what, *option;
        uint64_t stored, now;
    } rows[] = {
        {"the seed", "--seed", state->seed, run->seed},
        {"the global batch", "--global-batch", state->global_batch, run->global_batch},
        {"the number of training samples", "the data set", state->train_samples,
         run->train_samples},
        {"the number of steps per epoch", "--drop-last or --limit-train-batches",
         state->steps_per_epoch, run->steps_per_epoch},
    };
    for (size_t row = 0; row < sizeof(rows) / sizeof(rows[0]); row++) {
        if (rows[row].stored != rows[row].now) {
            return nnc_fail(-NNC_E_USAGE,
                            "%s was %" PRIu64 " and is now %" PRIu64
                            ": a run continues only with the same (%s), or start anew with --fresh "
                            "or take the weights alone with --weights",
                            rows[row].what, rows[row].stored, rows[row].now, rows[row].option);
        }
    }
    if (state->param_hash != run->param_hash) {
        return nnc_fail(-NNC_E_USAGE,
                        "the checkpoint belongs to a model with other parameters (see "
                        "--model and --model-args)");
    }
    if (state->step > state->steps_per_epoch) {
        return nnc_fail(-NNC_E_FORMAT, "step %" PRIu64 " of %" PRIu64 " per epoch", state->step,
                        state->steps_per_epoch);
    }
    return 0;
}
