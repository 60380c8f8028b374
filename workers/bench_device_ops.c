/* SPDX-License-Identifier: Apache-2.0 */
/* Operations one by one. For each different operation of the program two small graphs are timed:
 *
 *   without   INPUT -> a convolution that makes x -> mean -> a small linear layer -> loss
 *   with      the same with the operation behind that convolution
 *
 * (flat tensors: a linear layer makes x, and there is no mean; the first convolution reads INPUT)
 *
 * and their difference is the operation's time, corrected by what the mean takes longer or shorter
 * because y has another size than x (at the copy ceiling; at most half of the difference).
 * Operations with the same kind, shapes, window and activation are one.
 *
 * The least that an operation must do, forward and backward, in tensors X and Y:
 *
 *   CONV, LINEAR   3 products (2 where x needs no gradient); x twice, dx, y, dy twice, weights
 * thrice NORM           x twice for statistics and values, y; dy and x twice, dx [+ z and dz] ACT
 * x, y; y, dy, dx           ADD       x, z, y; dy, dx, dz MAXPOOL, AVGPOOL, DROPOUT x, y; dy, dx
 *
 * floor = max(bytes / copy ceiling, operations / matrix ceiling). */
#include "base/err.h"
#include "workers/bench_device.h"
#include "workers/selftest_case.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    ROWS_MAX = 10,
    INPUT_CHANNELS = 3,
};

static double values_of(struct nnc_shape shape, uint32_t batch) {
    return (double)batch * shape.c * shape.h * shape.w;
}

static const struct nnc_op *backward_of(const struct nnc_program *program, uint32_t number) {
    for (uint32_t i = program->forward_count; i < program->op_count; i++) {
        if (program->ops[i].forward == (int32_t)number) {
            return &program->ops[i];
        }
    }
    return NULL;
}

/* ---- what an operation must do ---- */

static double tensors_moved(const struct nnc_op *op, double in, double out, bool has_dx) {
    double residual = op->z >= 0 ? 2 * out : 0;
    switch (op->kind) {
    case NNC_OP_CONV:
    case NNC_OP_LINEAR:
        return (has_dx ? 3 : 2) * in + 3 * out;
    case NNC_OP_NORM:
        return 8 * in + residual;
    case NNC_OP_ACT:
        return 5 * in;
    case NNC_OP_ADD:
        return 6 * in;
    default:
        return 2 * in + 2 * out;
    }
}

static void fill_work(const struct nnc_program *program, uint32_t number, uint32_t value_bytes,
                      struct nnc_bench_op *ret_op) {
    const struct nnc_op *op = &program->ops[number];
    const struct nnc_op *backward = backward_of(program, number);
    double in = values_of(program->tensors[op->x].shape, program->batch);
    double out = values_of(program->tensors[op->y].shape, program->batch);
    bool multiplies = op->kind == NNC_OP_CONV || op->kind == NNC_OP_LINEAR;
    bool has_dx = backward != NULL && backward->dx >= 0;
    ret_op->bytes = tensors_moved(op, in, out, has_dx) * value_bytes;
    if (multiplies) {
        const struct nnc_param *weight = &program->graph->params[op->weight];
        double per_output = 2.0 * (double)weight->count / weight->dims[0];
        ret_op->flops = (has_dx ? 3 : 2) * per_output * out;
        ret_op->bytes += 3.0 * (double)weight->count * value_bytes;
    }
}

/* ---- its small graph ---- */

static struct nnc_layer_row act_row(enum nnc_act act) {
    static const enum nnc_layer layers[] = {
        [NNC_ACT_RELU] = NNC_LAYER_RELU,
        [NNC_ACT_SIGMOID] = NNC_LAYER_SIGMOID,
        [NNC_ACT_TANH] = NNC_LAYER_TANH,
    };
    return (struct nnc_layer_row){.layer = layers[act]};
}

/* The operation itself behind a row that made its x; returns how many rows. */
static uint32_t op_rows(const struct nnc_program *program, const struct nnc_op *op,
                        struct nnc_layer_row *rows) {
    const struct nnc_node *node = &program->graph->nodes[op->node];
    struct nnc_shape out = program->tensors[op->y].shape;
    struct nnc_layer_row row = {.window = op->window, .bias = op->bias >= 0, .features = out.c};
    uint32_t used = 0;
    switch (op->kind) {
    case NNC_OP_CONV:
        row.layer = NNC_LAYER_CONV2D;
        break;
    case NNC_OP_LINEAR:
        row.layer = NNC_LAYER_LINEAR;
        break;
    case NNC_OP_NORM:
        row.layer = NNC_LAYER_BATCHNORM2D;
        break;
    case NNC_OP_MAXPOOL:
        row.layer = NNC_LAYER_MAXPOOL2D;
        break;
    case NNC_OP_AVGPOOL:
        row.layer = op->adaptive ? NNC_LAYER_ADAPTIVE_AVGPOOL2D : NNC_LAYER_AVGPOOL2D;
        row.out_h = out.h;
        row.out_w = out.w;
        break;
    case NNC_OP_DROPOUT:
        row.layer = NNC_LAYER_DROPOUT;
        row.dropout = node->dropout;
        break;
    default: /* ACT alone, ADD: below */
        break;
    }
    if (op->kind != NNC_OP_ACT && op->kind != NNC_OP_ADD) {
        rows[used++] = row;
    }
    if (op->z >= 0) {
        /* x itself for an ADD, what lies before the operation for a NORM. */
        rows[used] = (struct nnc_layer_row){.layer = NNC_LAYER_ADD, .other = used};
        used++;
    }
    if (op->act != NNC_ACT_NONE) {
        rows[used++] = act_row(op->act);
    }
    return used;
}

/* Rows that make x of an image, with the operation or without it. */
static struct nnc_shape build_rows(const struct nnc_program *program, const struct nnc_op *op,
                                   bool with, struct nnc_layer_row rows[ROWS_MAX]) {
    const struct nnc_tensor *x = &program->tensors[op->x];
    bool is_flat = op->kind == NNC_OP_LINEAR || x->flat;
    bool is_image = program->ops[0].y == op->x && op->kind == NNC_OP_CONV;
    uint32_t features = x->shape.c * x->shape.h * x->shape.w;
    uint32_t used = 0;
    memset(rows, 0, ROWS_MAX * sizeof(*rows));
    if (is_flat) {
        rows[used++] = (struct nnc_layer_row)LINEAR(features, false);
    } else if (!is_image) {
        rows[used++] = (struct nnc_layer_row)CONV(x->shape.c, 1, 1, 0, false);
    }
    if (op->kind == NNC_OP_ACT) {
        rows[used++] = (struct nnc_layer_row)RELU; /* fused; the next one stands alone */
    }
    if (with) {
        used += op_rows(program, op, &rows[used]);
    }
    if (!is_flat) {
        rows[used++] = (struct nnc_layer_row)ADAPTIVE(1, 1);
        rows[used++] = (struct nnc_layer_row)FLATTEN;
    }
    rows[used++] = (struct nnc_layer_row)LINEAR(10, false);
    return is_flat
               ? (struct nnc_shape){1, 4, 4}
               : (struct nnc_shape){is_image ? x->shape.c : INPUT_CHANNELS, x->shape.h, x->shape.w};
}

static int time_rows(const struct nnc_bench_target *target, const struct nnc_program *program,
                     const struct nnc_op *op, bool with, double *ret_seconds) {
    struct nnc_layer_row rows[ROWS_MAX];
    struct nnc_bench_times times = {.step = 0};
    struct nnc_shape input = build_rows(program, op, with, rows);
    struct nnc_graph *graph = nnc_graph_of_rows(input, rows);
    int code = graph == NULL ? nnc_fail(-ENOMEM, "no memory for a graph")
                             : nnc_bench_graph(target, graph, program->batch, &times);
    nnc_graph_of_rows_free(graph);
    *ret_seconds = times.step;
    return code;
}

static int time_op(const struct nnc_bench_target *target, const struct nnc_program *program,
                   uint32_t number, const struct nnc_bench_ceilings *ceilings,
                   struct nnc_bench_op *bench) {
    const struct nnc_op *op = &program->ops[number];
    double without, with;
    int code = time_rows(target, program, op, false, &without);
    code = code < 0 ? code : time_rows(target, program, op, true, &with);
    if (code < 0) {
        return nnc_fail_in(code, "%s", bench->name);
    }
    double in = values_of(program->tensors[op->x].shape, program->batch);
    double out = values_of(program->tensors[op->y].shape, program->batch);
    double mean = 2 * (out - in) * target->value_bytes / ceilings->copy;
    double longer = fmax(with - without, 0);
    bench->seconds = mean > 0 ? fmax(longer - mean, longer / 2) : longer - mean;
    bench->floor = fmax(bench->bytes / ceilings->copy, bench->flops / ceilings->matrix);
    return 0;
}

/* ---- all of them ---- */

static void name_op(const struct nnc_program *program, const struct nnc_op *op, char *ret_name,
                    size_t bytes) {
    struct nnc_shape in = program->tensors[op->x].shape, out = program->tensors[op->y].shape;
    char window[32] = "";
    if (op->window.r > 0) {
        snprintf(window, sizeof(window), " %ux%u/%u", op->window.r, op->window.s,
                 op->window.stride_h);
    }
    snprintf(ret_name, bytes, "%s%s %ux%ux%u -> %ux%ux%u%s%s%s", nnc_op_name(op->kind), window,
             in.c, in.h, in.w, out.c, out.h, out.w, op->z >= 0 ? " +z" : "",
             op->act != NNC_ACT_NONE ? " " : "",
             op->act != NNC_ACT_NONE ? nnc_act_name(op->act) : "");
}

static struct nnc_bench_op *find_op(struct nnc_bench_op *ops, uint32_t count, const char *name) {
    for (uint32_t i = 0; i < count; i++) {
        if (strcmp(ops[i].name, name) == 0) {
            return &ops[i];
        }
    }
    return NULL;
}

int nnc_bench_ops(const struct nnc_bench_target *target, const struct nnc_program *program,
                  const struct nnc_bench_ceilings *ceilings, struct nnc_bench_op **ret_ops,
                  uint32_t *ret_count) {
    struct nnc_bench_op *ops = calloc(program->forward_count, sizeof(*ops));
    uint32_t count = 0;
    int code = ops == NULL ? nnc_fail(-ENOMEM, "no memory for operations") : 0;
    for (uint32_t number = 0; code >= 0 && number < program->forward_count; number++) {
        const struct nnc_op *op = &program->ops[number];
        char name[sizeof(ops->name)];
        if (op->kind == NNC_OP_INPUT || op->kind == NNC_OP_LOSS) {
            continue;
        }
        name_op(program, op, name, sizeof(name));
        struct nnc_bench_op *known = find_op(ops, count, name);
        if (known != NULL) {
            known->count++;
            continue;
        }
        memcpy(ops[count].name, name, sizeof(name));
        ops[count].count = 1;
        fill_work(program, number, target->value_bytes, &ops[count]);
        code = time_op(target, program, number, ceilings, &ops[count++]);
    }
    if (code < 0) {
        free(ops);
        return code;
    }
    *ret_ops = ops;
    *ret_count = count;
    return 0;
}
