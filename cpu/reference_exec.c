/* SPDX-License-Identifier: Apache-2.0 */
/* The reference backend's driver: memory of a program and the loop over its operations.
 *
 *   step:      forward operations, backward operations; after the last one of a bucket,
 * bucket_ready evaluate:  forward operations of an inference program
 *
 * What it does not do: anything that depends on the kind of an operation beyond the table below. */
#include "base/checked.h"
#include "base/err.h"
#include "cpu/reference_ops.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static reference_function *const functions[NNC_OP_COUNT][2] = {
    [NNC_OP_INPUT] = {reference_input, NULL},
    [NNC_OP_CONV] = {reference_conv_forward, reference_conv_backward},
    [NNC_OP_LINEAR] = {reference_linear_forward, reference_linear_backward},
    [NNC_OP_NORM] = {reference_norm_forward, reference_norm_backward},
    [NNC_OP_ACT] = {reference_act_forward, reference_act_backward},
    [NNC_OP_ADD] = {reference_add_forward, reference_add_backward},
    [NNC_OP_MAXPOOL] = {reference_maxpool_forward, reference_maxpool_backward},
    [NNC_OP_AVGPOOL] = {reference_avgpool_forward, reference_avgpool_backward},
    [NNC_OP_DROPOUT] = {reference_dropout_forward, reference_dropout_backward},
    [NNC_OP_LOSS] = {reference_loss_forward, reference_loss_backward},
};

/* Zeroed memory for N samples of `features` values of `size` bytes, counted in the backend. NULL
 * when there is none or the product does not fit. */
static void *make_values(struct nnc_executable *exe, size_t features, size_t size) {
    size_t bytes = 0;
    if (nnc_size_mul(exe->program->batch, features, &bytes) || nnc_size_mul(bytes, size, &bytes)) {
        return NULL;
    }
    exe->backend->bytes += bytes;
    return calloc(1, bytes > 0 ? bytes : 1);
}

/* What an operation keeps beside its tensors: places of maxima, mean and 1/deviation. */
static bool make_saved(struct nnc_executable *exe, uint32_t number) {
    const struct nnc_op *op = &exe->program->ops[number];
    if (op->kind == NNC_OP_MAXPOOL) {
        size_t features = reference_features(exe, op->y);
        exe->saved[number] = make_values(exe, features, sizeof(uint32_t));
        return exe->saved[number] != NULL;
    }
    if (op->kind == NNC_OP_NORM) {
        size_t channels = exe->program->tensors[op->y].shape.c;
        exe->saved[number] = calloc(2 * channels, sizeof(double));
        return exe->saved[number] != NULL;
    }
    return true;
}

static int make_memory(struct nnc_executable *exe) {
    const struct nnc_program *program = exe->program;
    struct nnc_shape input = program->graph->input;
    exe->tensor = calloc(program->tensor_count, sizeof(*exe->tensor));
    exe->saved = calloc(program->forward_count, sizeof(*exe->saved));
    exe->images = make_values(exe, (size_t)input.c * input.h * input.w, sizeof(*exe->images));
    exe->labels = make_values(exe, 1, sizeof(*exe->labels));
    bool complete = exe->tensor && exe->saved && exe->images && exe->labels;
    for (uint32_t number = 0; complete && number < program->tensor_count; number++) {
        size_t features = reference_features(exe, (int32_t)number);
        exe->tensor[number] = make_values(exe, features, sizeof(**exe->tensor));
        complete = exe->tensor[number] != NULL;
    }
    for (uint32_t number = 0; complete && number < program->forward_count; number++) {
        complete = make_saved(exe, number);
    }
    if (!complete) {
        return nnc_fail(-ENOMEM, "no memory for batches of %u of model %s; use a smaller batch",
                        program->batch, program->graph->name);
    }
    return 0;
}

int reference_compile(struct nnc_backend *backend, const struct nnc_program *program,
                      struct nnc_executable **ret_executable) {
    assert(program->graph->param_count == backend->params.graph->param_count);
    if (program->training) {
        int rc = reference_order_gradients(backend, program);
        if (rc < 0) {
            return rc;
        }
    }
    size_t bytes_before = backend->bytes;
    struct nnc_executable *exe = calloc(1, sizeof(*exe));
    if (!exe) {
        return nnc_fail(-ENOMEM, "no memory for an executable");
    }
    exe->backend = backend;
    exe->program = program;
    int rc = make_memory(exe);
    exe->bytes = backend->bytes - bytes_before;
    if (rc < 0) {
        reference_release(exe);
        return rc;
    }
    *ret_executable = exe;
    return 0;
}

void reference_release(struct nnc_executable *exe) {
    if (!exe) {
        return;
    }
    for (uint32_t number = 0; exe->tensor && number < exe->program->tensor_count; number++) {
        free(exe->tensor[number]);
    }
    for (uint32_t number = 0; exe->saved && number < exe->program->forward_count; number++) {
        free(exe->saved[number]);
    }
    exe->backend->bytes -= exe->bytes;
    free(exe->tensor);
    free(exe->saved);
    free(exe->images);
    free(exe->labels);
    free(exe);
}

int reference_feed(struct nnc_executable *exe, const struct nnc_feed *feed) {
    const struct nnc_graph *graph = exe->program->graph;
    uint32_t batch = exe->program->batch;
    for (uint32_t n = 0; n < batch; n++) {
        int32_t label = feed->labels[n];
        if (label < -1 || label >= (int64_t)graph->classes) {
            return nnc_fail(-NNC_E_FORMAT,
                            "label %" PRId32 " of sample %u of the batch lies outside 0..%u; the "
                            "model has %u classes",
                            label, n, graph->classes - 1, graph->classes);
        }
    }
    size_t bytes = (size_t)graph->input.c * graph->input.h * graph->input.w;
    assert(feed->sample_stride >= bytes);
    for (uint32_t n = 0; n < batch; n++) {
        memcpy(exe->images + n * bytes, feed->images + n * feed->sample_stride, bytes);
    }
    memcpy(exe->labels, feed->labels, batch * sizeof(*exe->labels));
    exe->fed = true;
    return 0;
}

static void apply_act(struct nnc_executable *exe, const struct nnc_op *op) {
    nnc_real *y = exe->tensor[op->y];
    size_t count = reference_count(exe, op->y);
    for (size_t place = 0; place < count; place++) {
        double value = y[place];
        if (op->act == NNC_ACT_RELU) {
            /* NaN stays NaN, as in PyTorch: a broken run must show. */
            y[place] = (nnc_real)(value < 0 ? 0 : value);
        } else if (op->act == NNC_ACT_SIGMOID) {
            y[place] = (nnc_real)(1 / (1 + exp(-value)));
        } else {
            y[place] = (nnc_real)tanh(value);
        }
    }
}

/* dy times the activation's derivative, which is a function of its result y. */
static void undo_act(struct nnc_executable *exe, const struct nnc_op *op) {
    const nnc_real *y = exe->tensor[op->y];
    nnc_real *dy = exe->tensor[op->dy];
    size_t count = reference_count(exe, op->dy);
    for (size_t place = 0; place < count; place++) {
        double value = y[place];
        if (op->act == NNC_ACT_RELU) {
            dy[place] = value > 0 ? dy[place] : 0;
        } else if (op->act == NNC_ACT_SIGMOID) {
            dy[place] = (nnc_real)(dy[place] * value * (1 - value));
        } else {
            dy[place] = (nnc_real)(dy[place] * (1 - value * value));
        }
    }
}

static void run_op(struct nnc_executable *exe, uint32_t number) {
    const struct nnc_op *op = &exe->program->ops[number];
    reference_function *function = functions[op->kind][op->pass];
    assert(function);
    if (op->act != NNC_ACT_NONE && op->pass == NNC_PASS_BACKWARD) {
        undo_act(exe, op);
    }
    function(exe, op);
    if (op->act != NNC_ACT_NONE && op->pass == NNC_PASS_FORWARD) {
        apply_act(exe, op);
    }
}

int reference_step(struct nnc_executable *exe, const struct nnc_step_params *params) {
    const struct nnc_program *program = exe->program;
    assert(program->training && exe->fed && params->global_count >= 1);
    exe->step = *params;
    uint32_t bucket = 0;
    for (uint32_t number = 0; number < program->op_count; number++) {
        run_op(exe, number);
        bool final = bucket < program->bucket_count && program->buckets[bucket].after_op == number;
        while (final) {
            if (params->bucket_ready) {
                params->bucket_ready(params->context, bucket);
            }
            bucket++;
            final = bucket < program->bucket_count && program->buckets[bucket].after_op == number;
        }
    }
    return 0;
}

int reference_evaluate(struct nnc_executable *exe) {
    assert(!exe->program->training && exe->fed);
    for (uint32_t number = 0; number < exe->program->op_count; number++) {
        run_op(exe, number);
    }
    return 0;
}

int reference_logits(struct nnc_executable *exe, float *ret_logits) {
    size_t count = reference_count(exe, exe->program->logits);
    for (size_t place = 0; place < count; place++) {
        ret_logits[place] = (float)exe->tensor[exe->program->logits][place];
    }
    return 0;
}
