/* SPDX-License-Identifier: Apache-2.0 */
/* The second half of lowering: the forward operations reversed, as far down as gradients are
 * needed; then how long each tensor lives, in which order gradients are complete, and the reduction
 * buckets.
 *
 *   forward   t0 -> A -> t1 -> B -> t2        t1 is read by B and C: C' stores its gradient,
 *                        t1 -> C -> t3        B' comes later and accumulates
 *
 * Invariants: the rules of program.h. What it does not do: see program.c. */
#include "workers/program_lower.h"

#include "base/err.h"

#include <assert.h>

/* The gradient that a backward operation writes for `tensor`, -1 when none is needed. The first
 * writer makes it, later ones accumulate. */
static int32_t grad_to_write(struct nnc_lowering *low, int32_t tensor, bool *ret_accumulate) {
    if (tensor < 0 || !low->needs_grad[tensor]) {
        return -1;
    }
    struct nnc_program *program = low->program;
    *ret_accumulate = program->tensors[tensor].grad >= 0;
    if (!*ret_accumulate) {
        int32_t grad = nnc_lower_tensor(low, program->tensors[tensor].shape);
        program->tensors[grad].is_grad = true;
        program->tensors[grad].flat = program->tensors[tensor].flat;
        program->tensors[tensor].grad = grad;
    }
    return program->tensors[tensor].grad;
}

static bool backward_reads_x(enum nnc_op_kind kind) {
    return kind == NNC_OP_CONV || kind == NNC_OP_LINEAR || kind == NNC_OP_NORM ||
           kind == NNC_OP_LOSS;
}

int nnc_lower_backward(struct nnc_lowering *low) {
    struct nnc_program *program = low->program;
    if (!low->needs_grad[program->logits]) {
        return nnc_fail(-NNC_E_USAGE, "model %s has no parameters to train", low->graph->name);
    }
    for (int32_t number = (int32_t)program->forward_count - 1; number >= 0; number--) {
        const struct nnc_op *forward = &program->ops[number];
        if (forward->y >= 0 && !low->needs_grad[forward->y]) {
            continue;
        }
        struct nnc_op *op = nnc_lower_op(low, forward->kind, NNC_PASS_BACKWARD);
        int32_t dy = forward->y >= 0 ? program->tensors[forward->y].grad : -1;
        assert(dy >= 0 || forward->kind == NNC_OP_LOSS);
        *op = *forward;
        op->pass = NNC_PASS_BACKWARD;
        op->forward = number;
        op->dy = dy;
        op->dx = grad_to_write(low, forward->x, &op->dx_accumulate);
        op->dz = grad_to_write(low, forward->z, &op->dz_accumulate);
        op->x = backward_reads_x(op->kind) ? forward->x : -1;
        op->y = op->act != NNC_ACT_NONE ? forward->y : -1;
        op->z = -1;
    }
    return 0;
}

static void touch(struct nnc_program *program, int32_t tensor, int32_t op) {
    if (tensor < 0) {
        return;
    }
    if (program->tensors[tensor].first_op < 0) {
        program->tensors[tensor].first_op = op;
    }
    program->tensors[tensor].last_op = op;
}

void nnc_lower_lifetimes(struct nnc_program *program) {
    for (uint32_t number = 0; number < program->tensor_count; number++) {
        program->tensors[number].first_op = -1;
    }
    for (int32_t number = 0; number < (int32_t)program->op_count; number++) {
        const struct nnc_op *op = &program->ops[number];
        const int32_t used[] = {op->x, op->z, op->y, op->dx, op->dz, op->dy};
        for (size_t place = 0; place < sizeof(used) / sizeof(used[0]); place++) {
            touch(program, used[place], number);
        }
    }
    touch(program, program->logits, (int32_t)program->op_count - 1);
}

/* Append a parameter whose gradient is final after operation `op`; it opens a new bucket when it
 * does not fit the last one. */
static void append_parameter(struct nnc_program *program, int32_t param, uint32_t op,
                             size_t bucket_bytes, size_t *bytes) {
    if (param < 0) {
        return;
    }
    size_t own_bytes = program->graph->params[param].count * sizeof(float);
    bool first = program->bucket_count == 0;
    if (first || (bucket_bytes > 0 && *bytes + own_bytes > bucket_bytes)) {
        program->buckets[program->bucket_count++].first = program->order_count;
        *bytes = 0;
    }
    assert(program->order_count < program->graph->param_count);
    program->order[program->order_count++] = (uint32_t)param;
    struct nnc_bucket *bucket = &program->buckets[program->bucket_count - 1];
    bucket->count++;
    bucket->after_op = op;
    *bytes += own_bytes;
}

void nnc_lower_order(struct nnc_program *program, size_t bucket_bytes) {
    size_t bytes = 0;
    for (uint32_t number = program->forward_count; number < program->op_count; number++) {
        const struct nnc_op *op = &program->ops[number];
        append_parameter(program, op->weight, number, bucket_bytes, &bytes);
        append_parameter(program, op->bias, number, bucket_bytes, &bytes);
    }
}
