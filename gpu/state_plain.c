/* SPDX-License-Identifier: Apache-2.0 */
/* Parameters between the arenas and the plain layout of workers/backend.h:
 *
 *   plain [k][c][plane] <-> padded fp32 on the host [k][plane][c] <-> staging <-> 16 bits
 *
 * fp32 goes to and from its arena directly. Every function waits for what was queued; none is
 * called between two steps but by tests.
 *
 * Invariant: padding is written as zero. */
#include "gpu/state.h"

#include "base/err.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

int nnc_gpu_state_read(struct nnc_gpu_state *state, enum nnc_gpu_type type, const void *values,
                       size_t count, float *ret_floats) {
    struct nnc_device *device = state->device;
    if (type == NNC_GPU_F32) {
        return nnc_device_copy(device, ret_floats, values, count * sizeof(float));
    }
    const char *from = values;
    int rc = 0;
    for (size_t done = 0; rc == 0 && done < count; done += NNC_GPU_STAGING) {
        size_t part = count - done < NNC_GPU_STAGING ? count - done : NNC_GPU_STAGING;
        rc = nnc_gpu_to_float(device->stream[NNC_STREAM_COMPUTE], type,
                              from + done * nnc_gpu_type_bytes(type), part, state->staging.memory);
        if (rc == 0) {
            rc = nnc_device_copy(device, ret_floats + done, state->staging.memory,
                                 part * sizeof(float));
        }
    }
    return rc;
}

/* The inverse of nnc_gpu_state_read(). */
static int write_values(struct nnc_gpu_state *state, enum nnc_gpu_type type, const float *floats,
                        size_t count, void *ret_values) {
    struct nnc_device *device = state->device;
    if (type == NNC_GPU_F32) {
        return nnc_device_copy(device, ret_values, floats, count * sizeof(float));
    }
    char *to = ret_values;
    int rc = 0;
    for (size_t done = 0; rc == 0 && done < count; done += NNC_GPU_STAGING) {
        size_t part = count - done < NNC_GPU_STAGING ? count - done : NNC_GPU_STAGING;
        rc = nnc_device_copy(device, state->staging.memory, floats + done, part * sizeof(float));
        if (rc == 0) {
            rc = nnc_gpu_cast(device->stream[NNC_STREAM_COMPUTE], type, state->staging.memory, part,
                              to + done * nnc_gpu_type_bytes(type));
        }
    }
    return rc;
}

/* Where a kind of state of a parameter lies, and in which type. NULL: all zero. */
static void *find_state(const struct nnc_gpu_state *state, enum nnc_state which, uint32_t param,
                        enum nnc_gpu_type *ret_type) {
    *ret_type = NNC_GPU_F32;
    if (which == NNC_STATE_VALUE) {
        return nnc_gpu_state_value(state, (int32_t)param);
    }
    if (state->graph->params[param].kind == NNC_PARAM_BUFFER || !state->gradients.memory) {
        return NULL;
    }
    if (which == NNC_STATE_MOMENTUM) {
        return (float *)state->momentum.memory + state->params[param].offset;
    }
    *ret_type = state->graph->params[param].kind == NNC_PARAM_WEIGHT ? state->type : NNC_GPU_F32;
    return nnc_gpu_state_gradient(state, (int32_t)param);
}

/* Convert between the plain layout and the device's, whichever way; `scale` multiplies. */
static void convert(const struct nnc_gpu_param *param, bool to_plain, float scale, float *plain,
                    float *padded) {
    for (uint64_t k = 0; k < param->k; k++) {
        for (uint64_t p = 0; p < param->plane; p++) {
            float *line = padded + (k * param->plane + p) * param->stride;
            for (uint64_t c = 0; c < param->c; c++) {
                float *value = plain + (k * param->c + c) * param->plane + p;
                if (to_plain) {
                    *value = line[c] * scale;
                } else {
                    line[c] = *value * scale;
                }
            }
        }
    }
}

/* What the gradients are multiplied with at present. */
static int current_scale(const struct nnc_gpu_state *state, enum nnc_state which,
                         float *ret_scale) {
    struct nnc_gpu_scaler scaler = {.scale = 1};
    int rc = 0;
    if (which == NNC_STATE_GRADIENT) {
        rc = nnc_device_copy(state->device, &scaler, state->scaler.memory, sizeof(scaler));
    }
    *ret_scale = scaler.scale;
    return rc;
}

static float *make_padded(const struct nnc_gpu_state *state, uint32_t param) {
    float *padded = calloc(state->params[param].count, sizeof(*padded));
    if (!padded) {
        nnc_fail(-ENOMEM, "no memory for a copy of %s", state->graph->params[param].name);
    }
    return padded;
}

int nnc_gpu_state_get(struct nnc_gpu_state *state, enum nnc_state which, uint32_t param,
                      float *ret_values) {
    assert(param < state->graph->param_count);
    enum nnc_gpu_type type;
    const void *values = find_state(state, which, param, &type);
    if (!values) {
        memset(ret_values, 0, state->graph->params[param].count * sizeof(*ret_values));
        return 0;
    }
    float scale = 1;
    float *padded = make_padded(state, param);
    if (!padded) {
        return -ENOMEM;
    }
    int rc = current_scale(state, which, &scale);
    if (rc == 0) {
        rc = nnc_gpu_state_read(state, type, values, state->params[param].count, padded);
    }
    if (rc == 0) {
        convert(&state->params[param], true, 1 / scale, ret_values, padded);
    }
    free(padded);
    return rc;
}

/* Write the padded values, and of a value the copy too. */
static int set_padded(struct nnc_gpu_state *state, enum nnc_state which, uint32_t param,
                      const float *padded) {
    enum nnc_gpu_type type;
    size_t count = state->params[param].count;
    void *values = find_state(state, which, param, &type);
    int rc = write_values(state, type, padded, count, values);
    bool copied = which == NNC_STATE_VALUE && state->copy.memory &&
                  state->graph->params[param].kind != NNC_PARAM_BUFFER;
    if (rc == 0 && copied) {
        rc = nnc_gpu_cast(state->device->stream[NNC_STREAM_COMPUTE], state->type, values, count,
                          nnc_gpu_state_weight(state, (int32_t)param));
    }
    return rc;
}

int nnc_gpu_state_set(struct nnc_gpu_state *state, enum nnc_state which, uint32_t param,
                      const float *values) {
    assert(param < state->graph->param_count);
    if (which != NNC_STATE_VALUE && state->graph->params[param].kind == NNC_PARAM_BUFFER) {
        return nnc_fail(-EINVAL, "%s is a buffer: it has no gradient and no momentum",
                        state->graph->params[param].name);
    }
    int rc = which == NNC_STATE_VALUE ? 0 : nnc_gpu_state_train(state);
    float scale = 1;
    if (rc == 0) {
        rc = current_scale(state, which, &scale);
    }
    if (rc < 0) {
        return rc;
    }
    float *padded = make_padded(state, param);
    if (!padded) {
        return -ENOMEM;
    }
    /* convert() takes both sides writable, as it goes both ways; it does not write to values. */
    convert(&state->params[param], false, scale, (float *)(uintptr_t)values, padded);
    rc = set_padded(state, which, param, padded);
    free(padded);
    return rc;
}
