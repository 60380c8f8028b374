/* SPDX-License-Identifier: Apache-2.0 */
/* Pooling. Max: the first maximum in row-major order gets the gradient; NaN counts as largest;
 * padding never wins. Mean: divided by the whole window, padding included (count_include_pad=True);
 * adaptive windows are floor(i*H/P) .. ceil((i+1)*H/P) and hold no padding.
 *
 * Source: torch.nn.MaxPool2d, AvgPool2d, AdaptiveAvgPool2d. */
#include "cpu/reference_ops.h"

#include <math.h>
#include <string.h>

/* Rows and columns [h0,h1) x [w0,w1) of the input under one output value, inside the image. */
struct pool_window {
    int64_t h0, h1, w0, w1;
    double divisor;
};

/* Cut [start, end) to the part inside [0, limit). */
static void clip(int64_t *start, int64_t *end, int64_t limit) {
    *start = *start < 0 ? 0 : *start;
    *end = *end > limit ? limit : *end;
}

static struct pool_window window_of(const struct nnc_op *op, struct nnc_shape in,
                                    struct nnc_shape out, struct reference_place at) {
    struct pool_window window;
    if (op->adaptive) {
        window.h0 = at.h * in.h / out.h;
        window.h1 = ((at.h + 1) * in.h + out.h - 1) / out.h;
        window.w0 = at.w * in.w / out.w;
        window.w1 = ((at.w + 1) * in.w + out.w - 1) / out.w;
    } else {
        window.h0 = at.h * op->window.stride_h - op->window.pad_h;
        window.h1 = window.h0 + op->window.r;
        window.w0 = at.w * op->window.stride_w - op->window.pad_w;
        window.w1 = window.w0 + op->window.s;
    }
    window.divisor = (double)(window.h1 - window.h0) * (double)(window.w1 - window.w0);
    clip(&window.h0, &window.h1, in.h);
    clip(&window.w0, &window.w1, in.w);
    return window;
}

/* Index in x of the window's maximum. */
static size_t find_max(const nnc_real *x, struct nnc_shape in, struct reference_place at,
                       const struct pool_window *window) {
    at.h = window->h0;
    at.w = window->w0;
    size_t best = reference_index(in, at);
    for (int64_t h = window->h0; h < window->h1; h++) {
        for (int64_t w = window->w0; w < window->w1; w++) {
            size_t index = reference_index(in, (struct reference_place){at.n, at.c, h, w});
            if (x[index] > x[best] || isnan(x[index])) {
                best = index;
            }
        }
    }
    return best;
}

void reference_maxpool_forward(struct nnc_executable *exe, const struct nnc_op *op) {
    struct nnc_shape in = exe->program->tensors[op->x].shape;
    struct nnc_shape out = exe->program->tensors[op->y].shape;
    uint32_t *saved = exe->saved[op - exe->program->ops];
    size_t plane = (size_t)in.h * in.w;
    size_t count = reference_count(exe, op->y);
    for (size_t index = 0; index < count; index++) {
        struct reference_place at = reference_place(out, index);
        struct pool_window window = window_of(op, in, out, at);
        size_t best = find_max(exe->tensor[op->x], in, at, &window);
        exe->tensor[op->y][index] = exe->tensor[op->x][best];
        saved[index] = (uint32_t)(best % plane);
    }
}

static void clear_unless_accumulating(struct nnc_executable *exe, const struct nnc_op *op) {
    if (!op->dx_accumulate) {
        memset(exe->tensor[op->dx], 0, reference_count(exe, op->dx) * sizeof(**exe->tensor));
    }
}

void reference_maxpool_backward(struct nnc_executable *exe, const struct nnc_op *op) {
    if (op->dx < 0) {
        return;
    }
    const uint32_t *saved = exe->saved[op->forward];
    struct nnc_shape in = exe->program->tensors[op->dx].shape;
    struct nnc_shape out = exe->program->tensors[op->dy].shape;
    size_t count = reference_count(exe, op->dy);
    clear_unless_accumulating(exe, op);
    for (size_t index = 0; index < count; index++) {
        size_t channel = index / ((size_t)out.h * out.w);
        size_t place = channel * in.h * in.w + saved[index];
        reference_store(&exe->tensor[op->dx][place], exe->tensor[op->dy][index], true);
    }
}

void reference_avgpool_forward(struct nnc_executable *exe, const struct nnc_op *op) {
    struct nnc_shape in = exe->program->tensors[op->x].shape;
    struct nnc_shape out = exe->program->tensors[op->y].shape;
    size_t count = reference_count(exe, op->y);
    for (size_t index = 0; index < count; index++) {
        struct reference_place at = reference_place(out, index);
        struct pool_window window = window_of(op, in, out, at);
        double sum = 0;
        for (at.h = window.h0; at.h < window.h1; at.h++) {
            for (at.w = window.w0; at.w < window.w1; at.w++) {
                sum += exe->tensor[op->x][reference_index(in, at)];
            }
        }
        exe->tensor[op->y][index] = (nnc_real)(sum / window.divisor);
    }
}

void reference_avgpool_backward(struct nnc_executable *exe, const struct nnc_op *op) {
    if (op->dx < 0) {
        return;
    }
    struct nnc_shape in = exe->program->tensors[op->dx].shape;
    struct nnc_shape out = exe->program->tensors[op->dy].shape;
    size_t count = reference_count(exe, op->dy);
    clear_unless_accumulating(exe, op);
    for (size_t index = 0; index < count; index++) {
        struct reference_place at = reference_place(out, index);
        struct pool_window window = window_of(op, in, out, at);
        double share = exe->tensor[op->dy][index] / window.divisor;
        for (at.h = window.h0; at.h < window.h1; at.h++) {
            for (at.w = window.w0; at.w < window.w1; at.w++) {
                reference_store(&exe->tensor[op->dx][reference_index(in, at)], share, true);
            }
        }
    }
}
