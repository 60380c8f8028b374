/* SPDX-License-Identifier: Apache-2.0 */
/* Pooling, against the loops of cpu/reference_pool.c over NHWC in double. Backward, the test
 * scatters what the kernels gather. */
#include "tests/gpu/device.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>

struct pool_case {
    struct nnc_gpu_pool pool;
    const void *x, *dy;
    void *y, *dx;
    uint8_t *place;
    bool accumulate;
    double *wanted, *magnitude; /* of dx, without padding */
    double operations;
};

/* Half-open. */
struct window {
    int64_t h0, h1, w0, w1;
    double divisor;
};

static int64_t max_of(int64_t a, int64_t b) {
    return a > b ? a : b;
}

static int64_t min_of(int64_t a, int64_t b) {
    return a < b ? a : b;
}

static struct window window_of(const struct nnc_gpu_pool *pool, int64_t p, int64_t q) {
    const struct nnc_gpu_tensor *in = &pool->x;
    const struct nnc_gpu_tensor *out = &pool->y;
    struct window window;
    if (pool->adaptive) {
        window.h0 = p * in->h / out->h;
        window.h1 = ((p + 1) * in->h + out->h - 1) / out->h;
        window.w0 = q * in->w / out->w;
        window.w1 = ((q + 1) * in->w + out->w - 1) / out->w;
    } else {
        window.h0 = p * pool->stride_h - pool->pad_h;
        window.h1 = window.h0 + pool->r;
        window.w0 = q * pool->stride_w - pool->pad_w;
        window.w1 = window.w0 + pool->s;
    }
    window.divisor = (double)((window.h1 - window.h0) * (window.w1 - window.w0));
    window.h0 = max_of(window.h0, 0);
    window.w0 = max_of(window.w0, 0);
    window.h1 = min_of(window.h1, in->h);
    window.w1 = min_of(window.w1, in->w);
    return window;
}

/* The output place of a row. */
static struct window window_of_row(const struct nnc_gpu_pool *pool, size_t row) {
    return window_of(pool, (int64_t)(row / pool->y.w % pool->y.h), (int64_t)(row % pool->y.w));
}

/* The row of x in the image that output `row` belongs to. */
static size_t input_row(const struct nnc_gpu_pool *pool, size_t row, int64_t h, int64_t w) {
    size_t n = row / pool->y.w / pool->y.h;
    return (n * pool->x.h + (size_t)h) * pool->x.w + (size_t)w;
}

/* The row of x with the maximum: a later one must be larger, or NaN. */
static size_t maximum_of(const struct pool_case *test, size_t row, size_t c) {
    const struct nnc_gpu_pool *pool = &test->pool;
    struct window window = window_of_row(pool, row);
    size_t best = input_row(pool, row, window.h0, window.w0);
    for (int64_t h = window.h0; h < window.h1; h++) {
        for (int64_t w = window.w0; w < window.w1; w++) {
            double value = tensor_get(&pool->x, test->x, input_row(pool, row, h, w), c);
            if (value > tensor_get(&pool->x, test->x, best, c) || isnan(value)) {
                best = input_row(pool, row, h, w);
            }
        }
    }
    return best;
}

static struct expected maximum_at(const void *context, size_t row, size_t c) {
    const struct pool_case *test = context;
    size_t best = maximum_of(test, row, c);
    return (struct expected){tensor_get(&test->pool.x, test->x, best, c), 0, 0};
}

static struct expected mean_at(const void *context, size_t row, size_t c) {
    const struct pool_case *test = context;
    const struct nnc_gpu_pool *pool = &test->pool;
    struct window window = window_of_row(pool, row);
    struct expected wanted = {0, 0, window.divisor + 1};
    for (int64_t h = window.h0; h < window.h1; h++) {
        for (int64_t w = window.w0; w < window.w1; w++) {
            double value = tensor_get(&pool->x, test->x, input_row(pool, row, h, w), c);
            wanted.value += value / window.divisor;
            wanted.magnitude += fabs(value) / window.divisor;
        }
    }
    return wanted;
}

static struct expected gradient_at(const void *context, size_t row, size_t c) {
    const struct pool_case *test = context;
    size_t index = row * test->pool.x.channels + c;
    return (struct expected){test->wanted[index], test->magnitude[index], test->operations};
}

static void add_gradient(struct pool_case *test, size_t row, size_t c, double gradient) {
    test->wanted[row * test->pool.x.channels + c] += gradient;
    test->magnitude[row * test->pool.x.channels + c] += fabs(gradient);
}

/* What accumulates, from the tensor's old values on. */
static void start_gradient(struct pool_case *test) {
    const struct nnc_gpu_tensor *in = &test->pool.x;
    test->dx = tensor_noise(in, 3, 0);
    test->wanted = calloc(tensor_rows(in) * in->channels, sizeof(double));
    test->magnitude = calloc(tensor_rows(in) * in->channels, sizeof(double));
    for (size_t row = 0; test->accumulate && row < tensor_rows(in); row++) {
        for (size_t c = 0; c < in->channels; c++) {
            add_gradient(test, row, c, tensor_get(in, test->dx, row, c));
        }
    }
}

static void scatter_maximum(struct pool_case *test, size_t row, size_t c, double dy) {
    add_gradient(test, maximum_of(test, row, c), c, dy);
}

static void scatter_mean(struct pool_case *test, size_t row, size_t c, double dy) {
    struct window window = window_of_row(&test->pool, row);
    for (int64_t h = window.h0; h < window.h1; h++) {
        for (int64_t w = window.w0; w < window.w1; w++) {
            add_gradient(test, input_row(&test->pool, row, h, w), c, dy / window.divisor);
        }
    }
}

static void scatter_all(struct pool_case *test,
                        void (*scatter)(struct pool_case *, size_t, size_t, double)) {
    const struct nnc_gpu_tensor *out = &test->pool.y;
    for (size_t row = 0; row < tensor_rows(out); row++) {
        for (size_t c = 0; c < out->channels; c++) {
            scatter(test, row, c, tensor_get(out, test->dy, row, c));
        }
    }
}

static int launch_max(const void *context) {
    const struct pool_case *test = context;
    return nnc_gpu_maxpool(NULL, &test->pool, test->x, test->place, test->y);
}

static int launch_max_backward(const void *context) {
    const struct pool_case *test = context;
    return nnc_gpu_maxpool_backward(NULL, &test->pool, test->place, test->dy, test->accumulate,
                                    test->dx);
}

static int launch_mean(const void *context) {
    const struct pool_case *test = context;
    return nnc_gpu_avgpool(NULL, &test->pool, test->x, test->y);
}

static int launch_mean_backward(const void *context) {
    const struct pool_case *test = context;
    return nnc_gpu_avgpool_backward(NULL, &test->pool, test->dy, test->accumulate, test->dx);
}

/* Windows that overlap, that leave gaps, that reach into the padding; and adaptive ones. */
static const struct {
    uint32_t n, h, w, channels, r, s, stride_h, stride_w, pad_h, pad_w;
    uint32_t p, q; /* adaptive output; 0: by the window */
} rows[] = {
    {1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0},
    {2, 7, 9, 3, 3, 3, 2, 2, 1, 1, 0, 0},
    {1, 8, 6, 13, 2, 2, 2, 2, 0, 0, 0, 0},
    {2, 9, 5, 64, 3, 2, 3, 1, 0, 1, 0, 0},
    {3, 11, 4, 8, 2, 1, 4, 3, 1, 0, 0, 0},
    {1, 6, 6, 300, 5, 4, 1, 2, 2, 2, 0, 0},
    {4, 17, 16, 8, 3, 3, 1, 1, 1, 1, 0, 0},
    {2, 7, 7, 72, 0, 0, 0, 0, 0, 0, 1, 1},
    {1, 13, 11, 5, 0, 0, 0, 0, 0, 0, 6, 6},
    {2, 5, 3, 9, 0, 0, 0, 0, 0, 0, 7, 7},
    /* Threads take several places. */
    {2, 514, 515, 3, 2, 2, 1, 1, 1, 1, 0, 0},
};

enum {
    ROW_COUNT = sizeof(rows) / sizeof(rows[0])
};

static struct pool_case make_case(enum nnc_gpu_type type, unsigned number) {
    struct nnc_gpu_pool pool = {
        .x = tensor_shape(type, rows[number].n, rows[number].h, rows[number].w,
                          rows[number].channels),
        .r = rows[number].r,
        .s = rows[number].s,
        .stride_h = rows[number].stride_h,
        .stride_w = rows[number].stride_w,
        .pad_h = rows[number].pad_h,
        .pad_w = rows[number].pad_w,
        .adaptive = rows[number].p > 0,
    };
    pool.y = pool.x;
    if (pool.adaptive) {
        pool.y.h = rows[number].p;
        pool.y.w = rows[number].q;
    } else {
        pool.y.h = (pool.x.h + 2 * pool.pad_h - pool.r) / pool.stride_h + 1;
        pool.y.w = (pool.x.w + 2 * pool.pad_w - pool.s) / pool.stride_w + 1;
    }
    struct pool_case test = {.pool = pool};
    test.x = tensor_noise(&pool.x, 1, 0);
    test.y = tensor_empty(&pool.y);
    test.dy = tensor_noise(&pool.y, 2, 0);
    return test;
}

static void finish_case(struct pool_case *test) {
    free(test->wanted);
    free(test->magnitude);
    device_clear();
}

static void check_max(struct pool_case *test) {
    test->place = device_alloc(tensor_count(&test->pool.y));
    device_run(launch_max, test);
    expect_tensor(&test->pool.y, test->y, maximum_at, test, "maxpool");
    start_gradient(test);
    /* A value is the maximum of at most every window that holds it. */
    test->operations = test->pool.r * test->pool.s + 1;
    device_run(launch_max_backward, test);
    scatter_all(test, scatter_maximum);
    expect_tensor(&test->pool.x, test->dx, gradient_at, test, "maxpool_backward");
    finish_case(test);
}

Test(pool, maximum_and_the_place_it_came_from) {
    for (unsigned number = 0; number < ROW_COUNT * NNC_GPU_TYPE_COUNT; number++) {
        struct pool_case test = make_case(number % 3, number / 3);
        test.accumulate = number & 1;
        if (test.pool.adaptive) {
            device_clear();
        } else {
            check_max(&test);
        }
    }
}

/* Half of the values are one of three, so that most windows have ties, and some NaN or -inf. */
Test(pool, the_first_of_equal_maxima_wins_and_not_a_number_above_all) {
    for (unsigned type = 0; type < NNC_GPU_TYPE_COUNT; type++) {
        struct pool_case test = make_case(type, 1);
        void *x = (void *)(uintptr_t)test.x;
        for (size_t row = 0; row < tensor_rows(&test.pool.x); row++) {
            size_t index = row * test.pool.x.stride;
            device_set(type, x, index, (double)(row * 7 % 3));
            device_set(type, x, index + 1, row % 11 == 0 ? NAN : (double)(row % 2));
            device_set(type, x, index + 2, -INFINITY);
        }
        check_max(&test);
    }
}

Test(pool, inference_keeps_no_places) {
    struct pool_case test = make_case(NNC_GPU_F16, 1);
    device_run(launch_max, &test);
    expect_tensor(&test.pool.y, test.y, maximum_at, &test, "maxpool");
    finish_case(&test);
}

Test(pool, mean_over_windows_and_adaptive_windows) {
    for (unsigned number = 0; number < ROW_COUNT * NNC_GPU_TYPE_COUNT; number++) {
        struct pool_case test = make_case(number % 3, number / 3);
        test.accumulate = number & 1;
        device_run(launch_mean, &test);
        expect_tensor(&test.pool.y, test.y, mean_at, &test, "avgpool");
        start_gradient(&test);
        /* Each window gives a rounded share and a product, and is added. */
        uint32_t windows =
            test.pool.adaptive ? test.pool.y.h * test.pool.y.w : test.pool.r * test.pool.s;
        test.operations = 3 * (double)windows + 1;
        device_run(launch_mean_backward, &test);
        scatter_all(&test, scatter_mean);
        expect_tensor(&test.pool.x, test.dx, gradient_at, &test, "avgpool_backward");
        finish_case(&test);
    }
}
