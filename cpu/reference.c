/* SPDX-License-Identifier: Apache-2.0 */
/* The reference backend: state of the model and the table.
 *
 * Every tensor has memory of its own, though the program's lifetimes would let them share:
 * sanitizers then see each overrun, and an error in the lifetimes cannot hide in the definition of
 * correct. Gradients are one run of floats in the order in which backward completes them, so that a
 * reduction bucket is a piece of it.
 *
 * Invariants: values, gradients and momentum are in plain layout. What it does not do: threads.
 * Source: the operations are PyTorch 2's, see the other reference_*.c. */
#include "cpu/reference.h"

#include "base/err.h"
#include "cpu/reference_ops.h"

#include <assert.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static bool is_trained(const struct nnc_param *param) {
    return param->kind != NNC_PARAM_BUFFER;
}

static void reference_close(struct nnc_backend *backend) {
    if (!backend) {
        return;
    }
    uint32_t count = backend->params.graph->param_count;
    for (uint32_t number = 0; number < count; number++) {
        if (backend->value) {
            free(backend->value[number]);
        }
        if (backend->momentum) {
            free(backend->momentum[number]);
        }
    }
    free(backend->value);
    free(backend->gradient);
    free(backend->momentum);
    free(backend->gradients);
    free(backend->bucket_end);
    free(backend);
}

/* Zeroed memory, counted. */
static float *make_floats(struct nnc_backend *backend, uint64_t count) {
    backend->bytes += count * sizeof(float);
    return calloc(count + 1, sizeof(float));
}

static int reference_open(const struct nnc_backend_params *params,
                          struct nnc_backend **ret_backend) {
    const struct nnc_graph *graph = params->graph;
    size_t count = (size_t)graph->param_count + 1;
    struct nnc_backend *backend = calloc(1, sizeof(*backend));
    if (!backend) {
        return nnc_fail(-ENOMEM, "no memory for the reference backend");
    }
    backend->params = *params;
    backend->value = calloc(count, sizeof(*backend->value));
    backend->gradient = calloc(count, sizeof(*backend->gradient));
    backend->momentum = calloc(count, sizeof(*backend->momentum));
    bool complete = backend->value && backend->gradient && backend->momentum;
    for (uint32_t number = 0; complete && number < graph->param_count; number++) {
        const struct nnc_param *param = &graph->params[number];
        backend->value[number] = make_floats(backend, param->count);
        complete = backend->value[number] != NULL;
        if (complete && is_trained(param)) {
            backend->momentum[number] = make_floats(backend, param->count);
            backend->gradient_count += param->count;
            complete = backend->momentum[number] != NULL;
        }
    }
    backend->gradients = complete ? make_floats(backend, backend->gradient_count) : NULL;
    if (!backend->gradients) {
        reference_close(backend);
        return nnc_fail(-ENOMEM, "no memory for the weights of model %s", graph->name);
    }
    uint64_t offset = 0;
    for (uint32_t number = 0; number < graph->param_count; number++) {
        if (is_trained(&graph->params[number])) {
            backend->gradient[number] = backend->gradients + offset;
            offset += graph->params[number].count;
        }
    }
    *ret_backend = backend;
    return 0;
}

int reference_order_gradients(struct nnc_backend *backend, const struct nnc_program *program) {
    if (backend->ordered) {
        return 0;
    }
    float *gradients = calloc(backend->gradient_count + 1, sizeof(*gradients));
    uint64_t *bucket_end = calloc((size_t)program->bucket_count + 1, sizeof(*bucket_end));
    if (!gradients || !bucket_end) {
        free(gradients);
        free(bucket_end);
        return nnc_fail(-ENOMEM, "no memory for the gradients");
    }
    uint64_t offset = 0;
    uint32_t bucket = 0;
    for (uint32_t place = 0; place < program->order_count; place++) {
        const struct nnc_bucket *last = &program->buckets[bucket];
        bucket += place == last->first + last->count;
        uint32_t number = program->order[place];
        uint64_t count = backend->params.graph->params[number].count;
        assert(backend->gradient[number] && offset + count <= backend->gradient_count);
        memcpy(gradients + offset, backend->gradient[number], count * sizeof(*gradients));
        backend->gradient[number] = gradients + offset;
        offset += count;
        bucket_end[bucket] = offset;
    }
    assert(offset == backend->gradient_count && bucket + 1 == program->bucket_count);
    free(backend->gradients);
    backend->gradients = gradients;
    backend->bucket_end = bucket_end;
    backend->bucket_count = program->bucket_count;
    backend->ordered = true;
    return 0;
}

static int reference_poll(struct nnc_backend *backend, struct nnc_metrics *ret_metrics) {
    *ret_metrics = backend->metrics;
    backend->metrics = (struct nnc_metrics){0};
    return 0;
}

/* One parameter's step. Math: float, in the order of torch.optim.sgd's single-tensor loop. */
static double norm_of(const float *values, uint64_t count) {
    double sum = 0;
    for (uint64_t place = 0; place < count; place++) {
        sum += (double)values[place] * values[place];
    }
    return sqrt(sum);
}

static void update_param(struct nnc_backend *backend, uint32_t number, const struct nnc_sgd *sgd) {
    const struct nnc_param *param = &backend->params.graph->params[number];
    float decay = sgd->weight_decay[param->kind];
    float ratio = nnc_sgd_ratio(sgd, param->kind, norm_of(backend->value[number], param->count),
                                norm_of(backend->gradient[number], param->count));
    for (uint64_t place = 0; place < param->count; place++) {
        float *weight = &backend->value[number][place];
        float *momentum = &backend->momentum[number][place];
        float step = ratio * (backend->gradient[number][place] + decay * *weight);
        *momentum = sgd->momentum * *momentum + step;
        *weight -= sgd->lr * (sgd->nesterov ? step + sgd->momentum * *momentum : *momentum);
    }
}

static int reference_update(struct nnc_backend *backend, const struct nnc_sgd *sgd) {
    for (uint32_t number = 0; number < backend->params.graph->param_count; number++) {
        if (is_trained(&backend->params.graph->params[number])) {
            update_param(backend, number, sgd);
        }
    }
    return 0;
}

static int reference_zero_gradients(struct nnc_backend *backend) {
    memset(backend->gradients, 0, backend->gradient_count * sizeof(*backend->gradients));
    return 0;
}

/* NULL: a buffer has no gradient and no momentum. */
static float *state_of(struct nnc_backend *backend, enum nnc_state state, uint32_t param) {
    assert(param < backend->params.graph->param_count);
    switch (state) {
    case NNC_STATE_GRADIENT:
        return backend->gradient[param];
    case NNC_STATE_MOMENTUM:
        return backend->momentum[param];
    case NNC_STATE_VALUE:
        break;
    }
    return backend->value[param];
}

static int reference_get(struct nnc_backend *backend, enum nnc_state state, uint32_t param,
                         float *ret_values) {
    const float *values = state_of(backend, state, param);
    size_t bytes = backend->params.graph->params[param].count * sizeof(*ret_values);
    if (values) {
        memcpy(ret_values, values, bytes);
    } else {
        memset(ret_values, 0, bytes);
    }
    return 0;
}

static int reference_set(struct nnc_backend *backend, enum nnc_state state, uint32_t param,
                         const float *values) {
    float *place = state_of(backend, state, param);
    if (!place) {
        return nnc_fail(-EINVAL, "%s is a buffer: it has no gradient and no momentum",
                        backend->params.graph->params[param].name);
    }
    memcpy(place, values, backend->params.graph->params[param].count * sizeof(*values));
    return 0;
}

static int reference_bucket(struct nnc_backend *backend, uint32_t bucket, float **ret_values,
                            size_t *ret_count) {
    assert(backend->ordered && bucket < backend->bucket_count);
    uint64_t first = bucket > 0 ? backend->bucket_end[bucket - 1] : 0;
    *ret_values = backend->gradients + first;
    *ret_count = backend->bucket_end[bucket] - first;
    return 0;
}

static size_t reference_memory(const struct nnc_backend *backend) {
    return backend->bytes;
}

const struct nnc_backend_ops nnc_backend_reference = {
    .name = "reference",
    .description = "plain C loops on one thread: the definition of correct, slow",
    .open = reference_open,
    .close = reference_close,
    .compile = reference_compile,
    .release = reference_release,
    .feed = reference_feed,
    .step = reference_step,
    .evaluate = reference_evaluate,
    .logits = reference_logits,
    .poll = reference_poll,
    .update = reference_update,
    .zero_gradients = reference_zero_gradients,
    .get = reference_get,
    .set = reference_set,
    .bucket = reference_bucket,
    .memory = reference_memory,
};
