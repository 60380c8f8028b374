/* SPDX-License-Identifier: Apache-2.0 */
/* Convolution and linear layer. Every value is one sum, taken in double and rounded once:
 *
 *   y[n,k,p,q]  = bias[k] + sum over c,r,s of x[n,c,p*stride+r-pad,q*stride+s-pad] * w[k,c,r,s]
 *   dx[n,c,h,w] = sum over k,r,s of dy[n,k,p,q] * w[k,c,r,s]   where p*stride + r - pad = h, ...
 *   dw[k,c,r,s] = sum over n,p,q of dy[n,k,p,q] * x[n,c,p*stride+r-pad,q*stride+s-pad]
 *
 * Source: torch.nn.Conv2d, torch.nn.Linear. */
#include "cpu/reference_ops.h"

#include <assert.h>

/* One convolution: shapes and arrays under their letters. */
struct conv {
    struct nnc_shape in, out;
    struct nnc_window win;
    uint32_t batch;
    const nnc_real *x, *dy;
    const float *weight;
};

static struct conv conv_of(const struct nnc_executable *exe, const struct nnc_op *op) {
    const struct nnc_program *program = exe->program;
    const struct nnc_op *forward = op->forward >= 0 ? &program->ops[op->forward] : op;
    return (struct conv){
        .in = program->tensors[forward->x].shape,
        .out = program->tensors[forward->y].shape,
        .win = op->window,
        .batch = program->batch,
        .x = exe->tensor[op->x],
        .dy = op->dy >= 0 ? exe->tensor[op->dy] : NULL,
        .weight = exe->backend->value[op->weight],
    };
}

/* The input at a place that may lie in the padding. */
static double input_at(const struct conv *conv, struct reference_place at) {
    bool inside = at.h >= 0 && at.h < conv->in.h && at.w >= 0 && at.w < conv->in.w;
    return inside ? conv->x[reference_index(conv->in, at)] : 0;
}

static double weight_at(const struct conv *conv, int64_t k, struct reference_place crs) {
    const struct nnc_shape kernel = {conv->in.c, conv->win.r, conv->win.s};
    crs.n = k;
    return conv->weight[reference_index(kernel, crs)];
}

static double output_value(const struct conv *conv, struct reference_place out) {
    double sum = 0;
    for (int64_t c = 0; c < conv->in.c; c++) {
        for (int64_t r = 0; r < conv->win.r; r++) {
            for (int64_t s = 0; s < conv->win.s; s++) {
                const struct reference_place at = {
                    out.n, c, out.h * conv->win.stride_h + r - conv->win.pad_h,
                    out.w * conv->win.stride_w + s - conv->win.pad_w};
                sum += input_at(conv, at) *
                       weight_at(conv, out.c, (struct reference_place){0, c, r, s});
            }
        }
    }
    return sum;
}

/* The output row (or column) that reads input place `at` through kernel place `tap`, or -1. */
static int64_t reader_of(int64_t at, int64_t tap, uint32_t stride, uint32_t pad, uint32_t out) {
    int64_t distance = at + pad - tap;
    if (distance < 0 || distance % stride != 0 || distance / stride >= out) {
        return -1;
    }
    return distance / stride;
}

static double input_gradient(const struct conv *conv, struct reference_place in) {
    const struct nnc_window *win = &conv->win;
    double sum = 0;
    for (int64_t r = 0; r < win->r; r++) {
        int64_t p = reader_of(in.h, r, win->stride_h, win->pad_h, conv->out.h);
        for (int64_t s = 0; p >= 0 && s < win->s; s++) {
            int64_t q = reader_of(in.w, s, win->stride_w, win->pad_w, conv->out.w);
            for (int64_t k = 0; q >= 0 && k < conv->out.c; k++) {
                size_t out = reference_index(conv->out, (struct reference_place){in.n, k, p, q});
                sum += conv->dy[out] *
                       (double)weight_at(conv, k, (struct reference_place){0, in.c, r, s});
            }
        }
    }
    return sum;
}

/* krs: the weight's place, k in n. */
static double weight_gradient(const struct conv *conv, struct reference_place krs) {
    double sum = 0;
    for (int64_t n = 0; n < conv->batch; n++) {
        for (int64_t p = 0; p < conv->out.h; p++) {
            for (int64_t q = 0; q < conv->out.w; q++) {
                const struct reference_place at = {
                    n, krs.c, p * conv->win.stride_h + krs.h - conv->win.pad_h,
                    q * conv->win.stride_w + krs.w - conv->win.pad_w};
                size_t out = reference_index(conv->out, (struct reference_place){n, krs.n, p, q});
                sum += conv->dy[out] * input_at(conv, at);
            }
        }
    }
    return sum;
}

/* Sum of dy over everything but channel c, for every layer with a bias. */
static void bias_gradient(struct nnc_executable *exe, const struct nnc_op *op) {
    if (op->bias < 0) {
        return;
    }
    struct nnc_shape out = exe->program->tensors[op->dy].shape;
    size_t plane = (size_t)out.h * out.w;
    for (uint32_t c = 0; c < out.c; c++) {
        double sum = 0;
        for (size_t place = 0; place < exe->program->batch * plane; place++) {
            size_t n = place / plane;
            sum += exe->tensor[op->dy][(n * out.c + c) * plane + place % plane];
        }
        exe->backend->gradient[op->bias][c] = (float)sum;
    }
}

void reference_conv_forward(struct nnc_executable *exe, const struct nnc_op *op) {
    struct conv conv = conv_of(exe, op);
    const float *bias = op->bias >= 0 ? exe->backend->value[op->bias] : NULL;
    size_t count = reference_count(exe, op->y);
    for (size_t index = 0; index < count; index++) {
        struct reference_place out = reference_place(conv.out, index);
        double start = bias ? bias[out.c] : 0;
        exe->tensor[op->y][index] = (nnc_real)(start + output_value(&conv, out));
    }
}

void reference_conv_backward(struct nnc_executable *exe, const struct nnc_op *op) {
    struct conv conv = conv_of(exe, op);
    const struct nnc_shape kernel = {conv.in.c, conv.win.r, conv.win.s};
    uint64_t weights = exe->program->graph->params[op->weight].count;
    for (uint64_t index = 0; index < weights; index++) {
        struct reference_place krs = reference_place(kernel, index);
        exe->backend->gradient[op->weight][index] = (float)weight_gradient(&conv, krs);
    }
    bias_gradient(exe, op);
    size_t count = op->dx >= 0 ? reference_count(exe, op->dx) : 0;
    for (size_t index = 0; index < count; index++) {
        double gradient = input_gradient(&conv, reference_place(conv.in, index));
        reference_store(&exe->tensor[op->dx][index], gradient, op->dx_accumulate);
    }
}

void reference_linear_forward(struct nnc_executable *exe, const struct nnc_op *op) {
    size_t in = reference_features(exe, op->x);
    size_t out = reference_features(exe, op->y);
    const float *weight = exe->backend->value[op->weight];
    const float *bias = op->bias >= 0 ? exe->backend->value[op->bias] : NULL;
    for (size_t index = 0; index < exe->program->batch * out; index++) {
        size_t n = index / out;
        size_t k = index % out;
        double sum = bias ? bias[k] : 0;
        for (size_t c = 0; c < in; c++) {
            sum += (double)exe->tensor[op->x][n * in + c] * weight[k * in + c];
        }
        exe->tensor[op->y][index] = (nnc_real)sum;
    }
}

void reference_linear_backward(struct nnc_executable *exe, const struct nnc_op *op) {
    size_t in = reference_features(exe, op->x);
    size_t out = reference_features(exe, op->dy);
    size_t batch = exe->program->batch;
    const nnc_real *dy = exe->tensor[op->dy];
    const float *weight = exe->backend->value[op->weight];
    for (size_t index = 0; index < out * in; index++) {
        double sum = 0;
        for (size_t n = 0; n < batch; n++) {
            sum += (double)dy[n * out + index / in] * exe->tensor[op->x][n * in + index % in];
        }
        exe->backend->gradient[op->weight][index] = (float)sum;
    }
    bias_gradient(exe, op);
    for (size_t index = 0; op->dx >= 0 && index < batch * in; index++) {
        double sum = 0;
        for (size_t k = 0; k < out; k++) {
            sum += (double)dy[index / in * out + k] * weight[k * in + index % in];
        }
        reference_store(&exe->tensor[op->dx][index], sum, op->dx_accumulate);
    }
}
