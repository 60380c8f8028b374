/* SPDX-License-Identifier: Apache-2.0 */
/* The convolution itself: direct loops in fp32, inner loops over the channels that lie side by
 * side.
 *
 *   y[n,p,q,k]  = sum over r,s,c of x[n, p*stride-pad+r, q*stride-pad+s, c] * w[k,r,s,c]
 *
 * Each element is one sum in a fixed order, which begins at `rotation` and wraps around. */
#include "tests/gpu/fakecuda/dnn.h"

#include <stdlib.h>
#include <string.h>

int64_t dnn_tensor_count(const struct dnn_problem *problem, enum dnn_tensor tensor) {
    const struct dnn_problem *g = problem;
    switch (tensor) {
    case DNN_X:
        return g->n * g->h * g->w * g->c;
    case DNN_W:
        return g->k * g->r * g->s * g->c;
    case DNN_Y:
        return g->n * g->p * g->q * g->k;
    case DNN_BIAS:
    case DNN_TENSORS:
        break;
    }
    return g->k;
}

static float *make(size_t count) {
    float *floats = calloc(count, sizeof *floats);
    if (!floats) {
        abort();
    }
    return floats;
}

/* w as (R,S,C,K), for inner loops over K. */
static float *transpose(const struct dnn_problem *g, const float *w) {
    float *turned = make((size_t)dnn_tensor_count(g, DNN_W));
    for (int64_t k = 0; k < g->k; k++) {
        for (int64_t i = 0; i < g->r * g->s * g->c; i++) {
            turned[i * g->k + k] = w[k * g->r * g->s * g->c + i];
        }
    }
    return turned;
}

/* One place of the window over one output pixel: where it reads, and its part of the filter. */
struct place {
    int64_t x; /* pixel n, h, w */
    int64_t rs;
};

/* The place number i of the window over the pixel (n, p, q); false: in the padding. */
static bool find_place(const struct dnn_problem *g, const int64_t pixel[3], int64_t i,
                       struct place *ret_place) {
    int64_t h = pixel[1] * g->stride[0] - g->pad[0] + i / g->s;
    int64_t w = pixel[2] * g->stride[1] - g->pad[1] + i % g->s;
    *ret_place = (struct place){.x = (pixel[0] * g->h + h) * g->w + w, .rs = i};
    return h >= 0 && h < g->h && w >= 0 && w < g->w;
}

/* to[i] += scale * from[i] */
static void add(float *restrict to, float scale, const float *restrict from, int64_t count) {
    for (int64_t i = 0; i < count; i++) {
        to[i] += scale * from[i];
    }
}

static void forward_pixel(const struct dnn_problem *g, uint64_t rotation, const int64_t pixel[3],
                          const float *x, const float *turned, float *y) {
    struct place place;
    for (int64_t i = 0; i < g->r * g->s; i++) {
        if (!find_place(g, pixel, i, &place)) {
            continue;
        }
        for (int64_t k = 0; k < g->c; k++) {
            int64_t c = (int64_t)(((uint64_t)k + rotation) % (uint64_t)g->c);
            add(y, x[place.x * g->c + c], turned + (place.rs * g->c + c) * g->k, g->k);
        }
    }
}

static void data_pixel(const struct dnn_problem *g, uint64_t rotation, const int64_t pixel[3],
                       const float *w, const float *y, float *x) {
    struct place place;
    for (int64_t i = 0; i < g->r * g->s; i++) {
        if (!find_place(g, pixel, i, &place)) {
            continue;
        }
        for (int64_t j = 0; j < g->k; j++) {
            int64_t k = (int64_t)(((uint64_t)j + rotation) % (uint64_t)g->k);
            add(x + place.x * g->c, y[k], w + (k * g->r * g->s + place.rs) * g->c, g->c);
        }
    }
}

static void filter_pixel(const struct dnn_problem *g, const int64_t pixel[3], const float *x,
                         const float *y, float *w) {
    struct place place;
    for (int64_t i = 0; i < g->r * g->s; i++) {
        if (!find_place(g, pixel, i, &place)) {
            continue;
        }
        for (int64_t k = 0; k < g->k; k++) {
            add(w + (k * g->r * g->s + place.rs) * g->c, y[k], x + place.x * g->c, g->c);
        }
    }
}

static void each_pixel(const struct dnn_problem *g, uint64_t rotation, float *const *f) {
    int64_t pixels = g->n * g->p * g->q;
    /* A filter's gradient sums over pixels: there the rotation is of these. */
    uint64_t first = g->op == DNN_BACKWARD_FILTER ? rotation : 0;
    float *turned = g->op == DNN_FORWARD ? transpose(g, f[DNN_W]) : NULL;
    for (int64_t i = 0; i < pixels; i++) {
        int64_t number = (int64_t)(((uint64_t)i + first) % (uint64_t)pixels);
        int64_t pixel[3] = {number / (g->p * g->q), number / g->q % g->p, number % g->q};
        float *y = f[DNN_Y] + number * g->k;
        if (g->op == DNN_FORWARD) {
            forward_pixel(g, rotation, pixel, f[DNN_X], turned, y);
        } else if (g->op == DNN_BACKWARD_DATA) {
            data_pixel(g, rotation, pixel, f[DNN_W], y, f[DNN_X]);
        } else {
            filter_pixel(g, pixel, f[DNN_X], y, f[DNN_W]);
        }
    }
    free(turned);
}

static void finish(const struct dnn_problem *g, const float *bias, float *y) {
    for (int64_t i = 0; i < g->n * g->p * g->q * g->k && g->bias; i++) {
        y[i] += bias[i % g->k];
        /* Like the device's maximum, NaN stays. */
        y[i] = g->relu && y[i] < 0 ? 0 : y[i];
    }
}

void dnn_convolve(const struct dnn_problem *problem, uint64_t rotation,
                  void *const memory[DNN_TENSORS]) {
    static const enum dnn_tensor outputs[] = {DNN_Y, DNN_X, DNN_W};
    enum dnn_tensor output = outputs[problem->op];
    float *floats[DNN_TENSORS];
    for (int i = 0; i < DNN_TENSORS; i++) {
        size_t count = (size_t)dnn_tensor_count(problem, (enum dnn_tensor)i);
        floats[i] = make(count);
        if (i != (int)output && memory[i]) {
            fake_to_float(problem->type, memory[i], count, floats[i]);
        }
    }
    each_pixel(problem, rotation, floats);
    finish(problem, floats[DNN_BIAS], floats[DNN_Y]);
    fake_from_float(problem->type, floats[output], (size_t)dnn_tensor_count(problem, output),
                    memory[output]);
    for (int i = 0; i < DNN_TENSORS; i++) {
        free(floats[i]);
    }
}
