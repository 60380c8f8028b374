/* SPDX-License-Identifier: Apache-2.0 */
/* The oneDNN backend's own loops, in every compilation that this processor can run, against plain
 * loops with doubles. Sizes stand around the vector width and the chunk; memory behind the results
 * is guarded.
 *
 * Bounds: u = 2^-24. A result of a handful of operations is off by a few u of its operands; sums
 * over M values are kept in lanes and chunks, off by at most sqrt(M) u of the sum of magnitudes. */
#include "base/rng.h"
#include "cpu/onednn_kernels.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    GUARD = 8
};

static const float guard_value = -12345.5f;
static const double u = 0x1p-24;

static const struct {
    size_t positions;
    uint32_t inner;
} planes[] = {{1, 1},    {7, 1},    {8, 1},  {9, 1},   {63, 1},  {4099, 1}, {9001, 1},
              {1, 8},    {3, 8},    {49, 8}, {600, 8}, {1, 16},  {5, 16},   {49, 16},
              {257, 16}, {800, 16}, {6, 24}, {49, 40}, {2, 4104}};

enum {
    PLANE_COUNT = sizeof(planes) / sizeof(planes[0])
};

/* `count` values with GUARD more behind; values of `offset` + noise. */
static float *make(size_t count, uint32_t stream, float offset) {
    float *values = malloc((count + GUARD) * sizeof(*values));
    cr_assert_not_null(values);
    struct nnc_rng rng = nnc_rng_make(5, NNC_RNG_SYNTHETIC, stream, 0);
    for (size_t k = 0; k < count; k++) {
        values[k] = offset + nnc_rng_normal(&rng);
    }
    for (size_t k = count; k < count + GUARD; k++) {
        values[k] = guard_value;
    }
    return values;
}

static void check_guard(const float *values, size_t count, const char *what) {
    for (size_t k = count; k < count + GUARD; k++) {
        cr_assert_eq(values[k], guard_value, "%s wrote behind its end", what);
    }
}

static void expect_near(double got, double wanted, double bound, const char *what) {
    cr_assert(fabs(got - wanted) <= bound, "%s: got %.9g, wanted %.9g, bound %.3g", what, got,
              wanted, bound);
}

static void check_stats(const struct nnc_kernels *kernels, size_t positions, uint32_t inner) {
    float *x = make(positions * inner, 1, 30);
    double *mean = calloc(inner, sizeof(*mean));
    double *m2 = calloc(inner, sizeof(*m2));
    kernels->stats(x, positions, inner, mean, m2);
    for (uint32_t c = 0; c < inner; c++) {
        double sum = 0;
        double squares = 0;
        for (size_t s = 0; s < positions; s++) {
            sum += (double)x[s * inner + c];
        }
        for (size_t s = 0; s < positions; s++) {
            squares += pow((double)x[s * inner + c] - sum / (double)positions, 2);
        }
        expect_near(mean[c], sum / (double)positions, 64 * u * 34, "mean");
        expect_near(m2[c], squares, 1e-5 * squares + 1e-9, "m2");
    }
    free(x);
    free(mean);
    free(m2);
}

Test(onednn_kernels, statistics_equal_plain_loops) {
    for (const struct nnc_kernels *const *k = nnc_kernels_all(); *k; k++) {
        for (int row = 0; row < PLANE_COUNT; row++) {
            check_stats(*k, planes[row].positions, planes[row].inner);
        }
    }
}

/* All operands of a norm on one plane. */
struct norm_data {
    size_t count;
    float *x, *z, *y, *dy, *dz, *dx;
    float *scale, *shift, *mean, *a, *b, *c;
    double *sum_g, *sum_gx;
};

static struct norm_data make_norm(size_t positions, uint32_t inner) {
    size_t count = positions * inner;
    return (struct norm_data){
        .count = count,
        .x = make(count, 1, 0.5f),
        .z = make(count, 2, 0),
        .y = make(count, 3, 0),
        .dy = make(count, 4, 0),
        .dz = make(count, 5, 0),
        .dx = make(count, 6, 0),
        .scale = make(inner, 7, 0),
        .shift = make(inner, 8, 0),
        .mean = make(inner, 9, 0),
        .a = make(inner, 10, 0),
        .b = make(inner, 11, 0),
        .c = make(inner, 12, 0),
        .sum_g = calloc(inner, sizeof(double)),
        .sum_gx = calloc(inner, sizeof(double)),
    };
}

static void free_norm(struct norm_data *d) {
    float *all[] = {d->x,     d->z,     d->y,    d->dy, d->dz, d->dx,
                    d->scale, d->shift, d->mean, d->a,  d->b,  d->c};
    for (size_t k = 0; k < sizeof(all) / sizeof(all[0]); k++) {
        free(all[k]);
    }
    free(d->sum_g);
    free(d->sum_gx);
}

static void check_norm(const struct nnc_kernels *kernels, int row, bool residual, bool relu) {
    uint32_t inner = planes[row].inner;
    struct norm_data d = make_norm(planes[row].positions, inner);
    struct nnc_norm_plane plane = {.positions = planes[row].positions,
                                   .inner = inner,
                                   .x = d.x,
                                   .z = residual ? d.z : NULL,
                                   .y = d.y,
                                   .scale = d.scale,
                                   .shift = d.shift,
                                   .relu = relu};
    kernels->norm(&plane);
    for (size_t k = 0; k < d.count; k++) {
        double product = (double)d.x[k] * (double)d.scale[k % inner];
        double wanted = product + (double)d.shift[k % inner] + (residual ? (double)d.z[k] : 0);
        wanted = relu && wanted < 0 ? 0 : wanted;
        expect_near((double)d.y[k], wanted, 8 * u * (fabs(product) + 8), kernels->name);
    }
    check_guard(d.y, d.count, "norm");
    free_norm(&d);
}

Test(onednn_kernels, norm_equals_plain_loops) {
    for (const struct nnc_kernels *const *k = nnc_kernels_all(); *k; k++) {
        for (int row = 0; row < PLANE_COUNT; row++) {
            for (int flags = 0; flags < 4; flags++) {
                check_norm(*k, row, flags & 1, flags & 2);
            }
        }
    }
}

static struct nnc_norm_grad_plane grad_plane(const struct norm_data *d, int row,
                                             enum nnc_mask mask) {
    return (struct nnc_norm_grad_plane){.positions = planes[row].positions,
                                        .inner = planes[row].inner,
                                        .mask = mask,
                                        .x = d->x,
                                        .y = d->y,
                                        .dy = d->dy,
                                        .scale = d->scale,
                                        .shift = d->shift,
                                        .mean = d->mean,
                                        .sum_g = d->sum_g,
                                        .sum_gx = d->sum_gx,
                                        .a = d->a,
                                        .b = d->b,
                                        .c = d->c};
}

/* dy where the mask lets it through. Where x decides, y holds the forward pass's result. */
static double masked(const struct norm_data *d, enum nnc_mask mask, size_t k) {
    return mask == NNC_MASK_NONE || d->y[k] > 0 ? (double)d->dy[k] : 0;
}

static void check_sums(const struct nnc_kernels *kernels, int row, enum nnc_mask mask, int dz) {
    uint32_t inner = planes[row].inner;
    struct norm_data d = make_norm(planes[row].positions, inner);
    struct nnc_norm_plane forward = {.positions = planes[row].positions,
                                     .inner = inner,
                                     .x = d.x,
                                     .y = d.y,
                                     .scale = d.scale,
                                     .shift = d.shift};
    kernels->norm(&forward);
    float *old_dz = make(d.count, 5, 0);
    struct nnc_norm_grad_plane plane = grad_plane(&d, row, mask);
    plane.dz = dz > 0 ? d.dz : NULL;
    plane.dz_accumulate = dz == 2;
    kernels->norm_sums(&plane);
    for (uint32_t c = 0; c < inner; c++) {
        double sums[4] = {0}; /* g, g*x, and of their magnitudes */
        for (size_t k = c; k < d.count; k += inner) {
            double g = masked(&d, mask, k);
            double gx = g * ((double)d.x[k] - (double)d.mean[c]);
            sums[0] += g;
            sums[1] += gx;
            sums[2] += fabs(g);
            sums[3] += fabs(gx);
        }
        expect_near(d.sum_g[c], sums[0], 16 * u * sums[2], "sum of g");
        expect_near(d.sum_gx[c], sums[1], 32 * u * sums[3], "sum of g*x");
    }
    for (size_t k = 0; dz > 0 && k < d.count; k++) {
        float old = dz == 2 ? old_dz[k] : 0;
        cr_assert_eq(d.dz[k], old + (float)masked(&d, mask, k), "dz");
    }
    check_guard(d.dz, d.count, "norm_sums");
    free(old_dz);
    free_norm(&d);
}

Test(onednn_kernels, sums_of_the_norm_gradient_equal_plain_loops) {
    for (const struct nnc_kernels *const *k = nnc_kernels_all(); *k; k++) {
        for (int row = 0; row < PLANE_COUNT; row++) {
            for (int dz = 0; dz < 3; dz++) {
                check_sums(*k, row, NNC_MASK_NONE, dz);
                check_sums(*k, row, NNC_MASK_Y, dz);
            }
            check_sums(*k, row, NNC_MASK_X, 0);
        }
    }
}

static void check_grad(const struct nnc_kernels *kernels, int row, enum nnc_mask mask,
                       bool accumulate) {
    uint32_t inner = planes[row].inner;
    struct norm_data d = make_norm(planes[row].positions, inner);
    struct nnc_norm_plane forward = {.positions = planes[row].positions,
                                     .inner = inner,
                                     .x = d.x,
                                     .y = d.y,
                                     .scale = d.scale,
                                     .shift = d.shift};
    kernels->norm(&forward);
    float *old = make(d.count, 6, 0);
    struct nnc_norm_grad_plane plane = grad_plane(&d, row, mask);
    plane.dx = d.dx;
    plane.dx_accumulate = accumulate;
    kernels->norm_grad(&plane);
    for (size_t k = 0; k < d.count; k++) {
        uint32_t c = (uint32_t)(k % inner);
        double wanted = (double)d.a[c] * masked(&d, mask, k) +
                        (double)d.b[c] * ((double)d.x[k] - (double)d.mean[c]) + (double)d.c[c] +
                        (accumulate ? (double)old[k] : 0);
        expect_near((double)d.dx[k], wanted, 8 * u * 40, "dx");
    }
    check_guard(d.dx, d.count, "norm_grad");
    free(old);
    free_norm(&d);
}

Test(onednn_kernels, norm_gradient_equals_plain_loops) {
    for (const struct nnc_kernels *const *k = nnc_kernels_all(); *k; k++) {
        for (int row = 0; row < PLANE_COUNT; row++) {
            for (int mask = NNC_MASK_NONE; mask <= NNC_MASK_X; mask++) {
                check_grad(*k, row, (enum nnc_mask)mask, false);
                check_grad(*k, row, (enum nnc_mask)mask, true);
            }
        }
    }
}

Test(onednn_kernels, sums_and_activations_equal_plain_loops) {
    static const size_t counts[] = {0, 1, 7, 8, 9, 31, 1000};
    for (const struct nnc_kernels *const *k = nnc_kernels_all(); *k; k++) {
        for (size_t row = 0; row < sizeof(counts) / sizeof(counts[0]); row++) {
            size_t count = counts[row];
            float *a = make(count, 1, 0);
            float *b = make(count, 2, 0);
            float *out = make(count, 3, 0);
            (*k)->add(a, b, true, out, count);
            for (size_t i = 0; i < count; i++) {
                cr_assert_eq(out[i], fmaxf(a[i] + b[i], 0));
            }
            for (int act = NNC_ACT_NONE; act <= NNC_ACT_TANH; act++) {
                (*k)->act_grad((enum nnc_act)act, a, b, out, count);
                const double y0 = count > 0 ? (double)a[count - 1] : 0;
                const double factors[] = {1, y0 > 0, y0 * (1 - y0), 1 - y0 * y0};
                if (count > 0) {
                    expect_near((double)out[count - 1], factors[act] * (double)b[count - 1],
                                8 * u * 20, "act_grad");
                }
            }
            check_guard(out, count, "add, act_grad");
            free(a);
            free(b);
            free(out);
        }
    }
}

Test(onednn_kernels, a_relu_passes_nan_on) {
    for (const struct nnc_kernels *const *k = nnc_kernels_all(); *k; k++) {
        float x[8] = {NAN, -1, 2, NAN, 0, -0.0f, 1, 3};
        float ones[8] = {1, 1, 1, 1, 1, 1, 1, 1};
        float zeros[8] = {0};
        float y[8];
        struct nnc_norm_plane plane = {.positions = 1,
                                       .inner = 8,
                                       .x = x,
                                       .y = y,
                                       .scale = ones,
                                       .shift = zeros,
                                       .relu = true};
        (*k)->norm(&plane);
        cr_assert(y[0] != y[0] && y[3] != y[3] && y[1] == 0 && y[2] == 2);
        (*k)->add(x, zeros, true, y, 8);
        cr_assert(y[0] != y[0] && y[3] != y[3] && y[1] == 0 && y[2] == 2);
    }
}

static const struct {
    uint32_t in_h, in_w;
    struct nnc_window window;
} pools[] = {{7, 8, {2, 2, 2, 2, 0, 0}},   {9, 7, {3, 3, 2, 2, 1, 1}}, {6, 6, {3, 3, 1, 1, 1, 1}},
             {7, 9, {2, 3, 1, 2, 1, 0}},   {5, 5, {5, 5, 1, 1, 2, 2}}, {1, 1, {1, 1, 1, 1, 0, 0}},
             {11, 13, {3, 3, 3, 3, 0, 1}}, {6, 7, {1, 2, 3, 2, 0, 0}}};

/* Feature (h, w) of lane c. */
static float at(const float *values, uint32_t width, uint32_t inner, int64_t h, int64_t w,
                uint32_t c) {
    return values[((size_t)h * width + (size_t)w) * inner + c];
}

/* The window's first maximum of output (oh, ow), lane c, as an input position; NaN is largest. */
static size_t find_max(const struct nnc_pool_plane *p, uint32_t oh, uint32_t ow, uint32_t c) {
    const struct nnc_window *w = &p->window;
    int64_t best = -1;
    for (int64_t k = 0; k < (int64_t)w->r * w->s; k++) {
        int64_t ih = (int64_t)oh * w->stride_h - w->pad_h + k / w->s;
        int64_t iw = (int64_t)ow * w->stride_w - w->pad_w + k % w->s;
        if (ih < 0 || iw < 0 || ih >= p->in.h || iw >= p->in.w) {
            continue;
        }
        float value = at(p->x, p->in.w, p->inner, ih, iw, c);
        int64_t place = ih * p->in.w + iw;
        if (best < 0 || value > p->x[(size_t)best * p->inner + c] || value != value) {
            best = place;
        }
    }
    return (size_t)best;
}

static void check_pool(const struct nnc_kernels *kernels, size_t row, uint32_t inner, bool relu) {
    const struct nnc_window *w = &pools[row].window;
    struct nnc_shape in = {inner, pools[row].in_h, pools[row].in_w};
    struct nnc_shape out = {inner, (in.h + 2 * w->pad_h - w->r) / w->stride_h + 1,
                            (in.w + 2 * w->pad_w - w->s) / w->stride_w + 1};
    size_t in_count = (size_t)in.h * in.w * inner;
    size_t out_count = (size_t)out.h * out.w * inner;
    float *x = make(in_count, 1, 0);
    float *y = make(out_count, 2, 0);
    float *dy = make(out_count, 3, 0);
    float *dx = make(in_count, 4, 0);
    float *wanted = calloc(in_count, sizeof(*wanted));
    uint8_t *chosen = malloc(out_count);
    for (size_t k = 0; k < in_count; k++) {
        x[k] = roundf(x[k]); /* many equal values */
        x[k] = relu && x[k] < 0 ? 0 : x[k];
    }
    struct nnc_pool_plane plane = {.in = in,
                                   .out = out,
                                   .window = *w,
                                   .inner = inner,
                                   .relu = relu,
                                   .x = x,
                                   .y = y,
                                   .chosen = chosen};
    kernels->pool(&plane);
    for (size_t k = 0; k < out_count; k++) {
        uint32_t c = (uint32_t)(k % inner);
        size_t place =
            find_max(&plane, (uint32_t)(k / inner / out.w), (uint32_t)(k / inner % out.w), c);
        float max = x[place * inner + c];
        cr_assert_eq(y[k], max, "pool row %d", (int)row);
        wanted[place * inner + c] += relu && max == 0 ? 0 : dy[k];
    }
    plane.dy = dy;
    plane.dx = dx;
    kernels->pool_grad(&plane);
    for (size_t k = 0; k < in_count; k++) {
        expect_near((double)dx[k], (double)wanted[k], 32 * u * 5, "pool_grad");
    }
    plane.dx_accumulate = true;
    kernels->pool_grad(&plane);
    for (size_t k = 0; k < in_count; k++) {
        expect_near((double)dx[k], 2 * (double)wanted[k], 64 * u * 5, "pool_grad added");
    }
    check_guard(y, out_count, "pool");
    check_guard(dx, in_count, "pool_grad");
    float *all[] = {x, y, dy, dx, wanted};
    for (size_t k = 0; k < sizeof(all) / sizeof(all[0]); k++) {
        free(all[k]);
    }
    free(chosen);
}

Test(onednn_kernels, max_pooling_equals_plain_loops) {
    for (const struct nnc_kernels *const *k = nnc_kernels_all(); *k; k++) {
        for (size_t row = 0; row < sizeof(pools) / sizeof(pools[0]); row++) {
            check_pool(*k, row, 8, false);
            check_pool(*k, row, 16, true);
            check_pool(*k, row, 40, false);
        }
    }
}

Test(onednn_kernels, max_pooling_takes_nan_for_the_largest) {
    for (const struct nnc_kernels *const *k = nnc_kernels_all(); *k; k++) {
        float x[4 * 8];
        float y[8];
        uint8_t chosen[8];
        for (int place = 0; place < 4; place++) {
            for (int c = 0; c < 8; c++) {
                x[place * 8 + c] = place == c ? NAN : (float)place;
            }
        }
        struct nnc_pool_plane plane = {.in = {8, 2, 2},
                                       .out = {8, 1, 1},
                                       .window = {2, 2, 2, 2, 0, 0},
                                       .inner = 8,
                                       .relu = true,
                                       .x = x,
                                       .y = y,
                                       .chosen = chosen};
        (*k)->pool(&plane);
        for (int c = 0; c < 8; c++) {
            cr_assert_eq(y[c] != y[c], c < 4, "%s, lane %d", (*k)->name, c);
            cr_assert_eq(chosen[c], c < 4 ? c : 3, "%s, lane %d", (*k)->name, c);
        }
    }
}

Test(onednn_kernels, dropout_factors_are_those_of_the_rule) {
    static const double rates[] = {0, 0.25, 0.5, 0.999, 1};
    static const size_t counts[] = {1, 3, 4, 63, 64, 65, 1000};
    for (const struct nnc_kernels *const *k = nnc_kernels_all(); *k; k++) {
        for (size_t row = 0; row < sizeof(rates) / sizeof(rates[0]); row++) {
            struct nnc_dropout dropout = nnc_dropout_make(77, 12 + row, 3, rates[row]);
            size_t count = counts[row];
            float *factors = make(count, 1, 0);
            (*k)->dropout(&dropout, 41, count, factors);
            for (size_t f = 0; f < count; f++) {
                bool keep = nnc_dropout_keep(&dropout, 41, (uint32_t)f);
                cr_assert_eq(factors[f], keep ? dropout.scale : 0, "%s, p %g, feature %d",
                             (*k)->name, rates[row], (int)f);
            }
            check_guard(factors, count, "dropout");
            free(factors);
        }
    }
}

Test(onednn_kernels, sgd_equals_plain_loops) {
    for (const struct nnc_kernels *const *k = nnc_kernels_all(); *k; k++) {
        for (size_t count = 1; count < 40; count += 6) {
            float *w = make(count, 1, 0);
            float *m = make(count, 2, 0);
            float *g = make(count, 3, 0);
            float *old_w = make(count, 1, 0);
            float *old_m = make(count, 2, 0);
            struct nnc_sgd_run run = {.count = count,
                                      .value = w,
                                      .momentum_buffer = m,
                                      .gradient = g,
                                      .lr = 0.1f,
                                      .momentum = 0.9f,
                                      .weight_decay = 0.01f,
                                      .ratio = count % 3 == 1 ? 1 : 0.3f,
                                      .nesterov = count % 4 == 1};
            cr_assert((*k)->sgd(&run));
            for (size_t i = 0; i < count; i++) {
                double d = (double)run.ratio * ((double)g[i] + 0.01 * (double)old_w[i]);
                double moved = 0.9 * (double)old_m[i] + d;
                double step = run.nesterov ? d + 0.9 * moved : moved;
                expect_near((double)m[i], moved, 8 * u * 10, "momentum");
                expect_near((double)w[i], (double)old_w[i] - 0.1 * step, 8 * u * 10, "value");
            }
            w[count / 2] = NAN;
            cr_assert_not((*k)->sgd(&run), "%s, count %d", (*k)->name, (int)count);
            check_guard(w, count, "sgd");
            check_guard(m, count, "sgd");
            free(w);
            free(m);
            free(g);
            free(old_w);
            free(old_m);
        }
    }
}
