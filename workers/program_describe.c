/* SPDX-License-Identifier: Apache-2.0 */
/* A program in words. One line per operation, tensor and reduction bucket:
 *
 *     1 CONV conv1 3x3 stride 2x2 pad 1x1: t0 -> t1 relu
 *     9 CONV' conv1: x t0 y t1 dy t7 -> dx t8+
 *    t1 16x14x14 ops 1..9 grad t7
 *
 * A stroke marks a backward operation, a plus a gradient that is added to. The text is for people
 * and golden tests; nothing parses it. */
#include "workers/program.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

const char *nnc_op_name(enum nnc_op_kind kind) {
    static const char *const names[] = {"INPUT", "CONV",    "LINEAR",  "NORM",    "ACT",
                                        "ADD",   "MAXPOOL", "AVGPOOL", "DROPOUT", "LOSS"};
    _Static_assert(sizeof(names) / sizeof(names[0]) == NNC_OP_COUNT, "one name per operation");
    assert(kind < NNC_OP_COUNT);
    return names[kind];
}

const char *nnc_act_name(enum nnc_act act) {
    static const char *const names[] = {"none", "relu", "sigmoid", "tanh"};
    _Static_assert(sizeof(names) / sizeof(names[0]) == NNC_ACT_TANH + 1, "one name per activation");
    assert(act <= NNC_ACT_TANH);
    return names[act];
}

static void print_tensor(FILE *out, const char *label, int32_t tensor) {
    if (tensor >= 0) {
        fprintf(out, " %s%st%" PRId32, label, label[0] ? " " : "", tensor);
    }
}

static void print_forward(FILE *out, const struct nnc_op *op) {
    const struct nnc_window *win = &op->window;
    bool windowed = op->kind == NNC_OP_CONV || op->kind == NNC_OP_MAXPOOL ||
                    (op->kind == NNC_OP_AVGPOOL && !op->adaptive);
    if (windowed) {
        fprintf(out, " %ux%u stride %ux%u pad %ux%u", win->r, win->s, win->stride_h, win->stride_w,
                win->pad_h, win->pad_w);
    }
    if (op->adaptive) {
        fputs(" adaptive", out);
    }
    fputc(':', out);
    print_tensor(out, "", op->x);
    print_tensor(out, "+", op->z);
    if (op->y >= 0) {
        print_tensor(out, "->", op->y);
    }
}

static void print_backward(FILE *out, const struct nnc_op *op) {
    fputc(':', out);
    print_tensor(out, "x", op->x);
    print_tensor(out, "y", op->y);
    print_tensor(out, "dy", op->dy);
    if (op->dx >= 0 || op->dz >= 0) {
        fputs(" ->", out);
    }
    print_tensor(out, "dx", op->dx);
    fputs(op->dx_accumulate ? "+" : "", out);
    print_tensor(out, "dz", op->dz);
    fputs(op->dz_accumulate ? "+" : "", out);
}

static void print_op(FILE *out, const struct nnc_program *program, uint32_t number) {
    const struct nnc_op *op = &program->ops[number];
    bool backward = op->pass == NNC_PASS_BACKWARD;
    fprintf(out, "%3u %s%s", number, nnc_op_name(op->kind), backward ? "'" : "");
    if (op->node >= 0 && program->graph->nodes[op->node].name[0]) {
        fprintf(out, " %s", program->graph->nodes[op->node].name);
    }
    if (backward) {
        print_backward(out, op);
    } else {
        print_forward(out, op);
    }
    if (op->act != NNC_ACT_NONE) {
        fprintf(out, " %s", nnc_act_name(op->act));
    }
    fputc('\n', out);
}

static void print_bucket(FILE *out, const struct nnc_program *program, uint32_t number) {
    const struct nnc_bucket *bucket = &program->buckets[number];
    fprintf(out, "bucket %u after %u:", number, bucket->after_op);
    for (uint32_t place = bucket->first; place < bucket->first + bucket->count; place++) {
        fprintf(out, " %s", program->graph->params[program->order[place]].name);
    }
    fputc('\n', out);
}

char *nnc_program_describe(const struct nnc_program *program) {
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);
    if (!out) {
        return NULL;
    }
    fprintf(out, "%s, batch %u\n", program->training ? "training" : "inference", program->batch);
    for (uint32_t number = 0; number < program->op_count; number++) {
        print_op(out, program, number);
    }
    for (uint32_t number = 0; number < program->tensor_count; number++) {
        const struct nnc_tensor *tensor = &program->tensors[number];
        fprintf(out, "t%u %ux%ux%u%s%s ops %" PRId32 "..%" PRId32, number, tensor->shape.c,
                tensor->shape.h, tensor->shape.w, tensor->flat ? " flat" : "",
                tensor->is_grad ? " gradient" : "", tensor->first_op, tensor->last_op);
        print_tensor(out, "grad", tensor->grad);
        fputc('\n', out);
    }
    for (uint32_t number = 0; number < program->bucket_count; number++) {
        print_bucket(out, program, number);
    }
    if (fclose(out) != 0) {
        free(text);
        return NULL;
    }
    return text;
}
