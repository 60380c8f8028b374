/* SPDX-License-Identifier: Apache-2.0 */
/* Batch normalisation and gradients of biases, against the formulas of cpu/reference_norm.c in
 * double. A sum of M values in fp32 is off by at most M * 2^-24 * the sum of their magnitudes,
 * whatever the order. */
#include "tests/gpu/device.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Of sums over many rows the order is what keeps the error small: a thread adds some rows, a block
 * its threads in a tree of 8 levels, and slabs are added in double. */
enum {
    LARGE_SUM_OPERATIONS = 3 + 8 + 2
};

static const float eps = 1e-5f;
static const float momentum = 0.1f;

struct norm_case {
    struct nnc_gpu_norm norm;
    enum nnc_gpu_act act;
    const void *x, *z;
    void *y, *dy, *dx, *dz;
    float *dweight, *dbias;
    struct nnc_gpu_norm_backward backward;
    const void *old_dx, *old_dz, *old_dy;
};

static double x_at(const struct norm_case *test, size_t row, size_t c) {
    return tensor_get(&test->norm.shape, test->x, row, c);
}

static double weight_at(const struct norm_case *test, size_t c) {
    return test->norm.weight ? (double)test->norm.weight[c] : 1;
}

static double bias_at(const struct norm_case *test, size_t c) {
    return test->norm.bias ? (double)test->norm.bias[c] : 0;
}

static struct norm_case make_case(struct nnc_gpu_tensor shape, bool affine, double mean) {
    struct norm_case test = {.norm = {.shape = shape, .eps = eps, .momentum = momentum}};
    if (affine) {
        test.norm.weight = floats_noise(shape.channels, 20, 1);
        test.norm.bias = floats_noise(shape.channels, 21, 0);
    }
    test.norm.running_mean = floats_noise(shape.channels, 22, 0);
    test.norm.running_var = floats_noise(shape.channels, 23, 9);
    test.norm.mean = floats_empty(shape.stride);
    test.norm.scale = floats_empty(shape.stride);
    test.norm.scratch = floats_empty(nnc_gpu_reduce_floats(&shape));
    test.norm.mask = device_alloc(tensor_rows(&shape) * shape.stride / 8);
    test.x = tensor_noise(&shape, 1, mean);
    return test;
}

/* Additions that a sum over all rows goes through at most. */
static double additions(const struct nnc_gpu_tensor *shape) {
    double rows = (double)tensor_rows(shape);
    return rows > 10000 ? LARGE_SUM_OPERATIONS : rows;
}

/* ---- statistics ---- */

static int launch_statistics(const void *context) {
    const struct norm_case *test = context;
    return nnc_gpu_norm_statistics(NULL, &test->norm, test->x);
}

static void moments_of(const struct norm_case *test, size_t c, double *ret_mean, double *ret_var) {
    double rows = (double)tensor_rows(&test->norm.shape);
    *ret_mean = 0;
    *ret_var = 0;
    for (size_t row = 0; row < (size_t)rows; row++) {
        *ret_mean += x_at(test, row, c) / rows;
    }
    for (size_t row = 0; row < (size_t)rows; row++) {
        double distance = x_at(test, row, c) - *ret_mean;
        *ret_var += distance * distance / rows;
    }
}

static void check_statistics(struct nnc_gpu_tensor shape, double mean) {
    struct norm_case test = make_case(shape, true, mean);
    float *old_mean = malloc(shape.channels * sizeof(float));
    float *old_var = malloc(shape.channels * sizeof(float));
    memcpy(old_mean, test.norm.running_mean, shape.channels * sizeof(float));
    memcpy(old_var, test.norm.running_var, shape.channels * sizeof(float));
    device_run(launch_statistics, &test);
    double rows = (double)tensor_rows(&shape);
    double lossy = additions(&shape) + 1;
    for (size_t c = 0; c < shape.channels; c++) {
        double m;
        double var;
        moments_of(&test, c, &m, &var);
        /* The shift is a value of the channel; distances to it are at most `far`, their squares
         * sum to at most far^2 * M, of which (additions + 1) * 2^-24 is lost. */
        double shift = x_at(&test, (size_t)rows / 2, c);
        double far = 0;
        for (size_t row = 0; row < (size_t)rows; row++) {
            far = fmax(far, fabs(x_at(&test, row, c) - shift));
        }
        expect_value(NNC_GPU_F32, (double)test.norm.mean[c], (struct expected){m, far, lossy},
                     "mean");
        double scale = 1 / sqrt(var + (double)eps);
        double lost = far * far * scale * scale; /* relative to var + eps; the root halves it */
        expect_value(NNC_GPU_F32, (double)test.norm.scale[c],
                     (struct expected){scale, scale * lost, 2 * lossy}, "scale");
        double moved = (1 - (double)momentum) * (double)old_mean[c] + (double)momentum * m;
        expect_value(NNC_GPU_F32, (double)test.norm.running_mean[c],
                     (struct expected){moved, far, lossy}, "running mean");
        double unbiased = rows > 1 ? var * rows / (rows - 1) : var;
        moved = (1 - (double)momentum) * (double)old_var[c] + (double)momentum * unbiased;
        expect_value(NNC_GPU_F32, (double)test.norm.running_var[c],
                     (struct expected){moved, far * far, 2 * lossy}, "running variance");
    }
    expect_zero_tail(test.norm.mean, &shape, "mean");
    expect_zero_tail(test.norm.scale, &shape, "scale");
    free(old_mean);
    free(old_var);
    device_clear();
}

Test(norm, statistics_of_the_batch_move_the_running_ones) {
    for (unsigned number = 0; number < NNC_GPU_TYPE_COUNT * SHAPE_COUNT; number++) {
        check_statistics(shape_number(number % NNC_GPU_TYPE_COUNT, number / NNC_GPU_TYPE_COUNT),
                         0.5);
    }
}

Test(norm, a_large_mean_costs_no_digits_of_the_variance) {
    check_statistics(tensor_shape(NNC_GPU_F32, 4, 17, 19, 11), 1e5);
    check_statistics(tensor_shape(NNC_GPU_BF16, 4, 17, 19, 11), 300);
}

Test(norm, what_is_not_finite_reaches_the_statistics) {
    struct norm_case test = make_case(tensor_shape(NNC_GPU_F16, 3, 3, 3, 5), true, 0);
    device_set(NNC_GPU_F16, (void *)(uintptr_t)test.x, 8 * 4 + 2, NAN);
    device_set(NNC_GPU_F16, (void *)(uintptr_t)test.x, 8 * 3 + 4, INFINITY);
    device_run(launch_statistics, &test);
    cr_assert(isnan(test.norm.mean[2]) && isnan(test.norm.scale[2]));
    cr_assert(isinf(test.norm.mean[4]) && isnan(test.norm.scale[4]));
    cr_assert_not(isnan(test.norm.mean[1]) || isnan(test.norm.scale[3]));
    device_clear();
}

static int launch_running(const void *context) {
    const struct norm_case *test = context;
    return nnc_gpu_norm_running(NULL, &test->norm);
}

Test(norm, inference_takes_the_running_statistics_or_none) {
    for (unsigned number = 0; number < 2 * SHAPE_COUNT; number++) {
        struct nnc_gpu_tensor shape = shape_number(NNC_GPU_BF16, number / 2);
        struct norm_case test = make_case(shape, true, 0);
        bool none = number % 2;
        test.norm.running_mean = none ? NULL : test.norm.running_mean;
        test.norm.running_var = none ? NULL : test.norm.running_var;
        device_run(launch_running, &test);
        for (size_t c = 0; c < shape.channels; c++) {
            double var = none ? 1 : (double)test.norm.running_var[c];
            double scale = 1 / sqrt(var + (double)eps);
            cr_assert_eq(test.norm.mean[c], none ? 0 : test.norm.running_mean[c]);
            expect_value(NNC_GPU_F32, (double)test.norm.scale[c],
                         (struct expected){scale, scale, 3}, "scale");
        }
        expect_zero_tail(test.norm.mean, &shape, "mean");
        expect_zero_tail(test.norm.scale, &shape, "scale");
        device_clear();
    }
}

/* ---- forward ---- */

static int launch_apply(const void *context) {
    const struct norm_case *test = context;
    return nnc_gpu_norm_apply(NULL, &test->norm, test->act, test->x, test->z, test->y);
}

static struct expected applied_at(const void *context, size_t row, size_t c) {
    const struct norm_case *test = context;
    double xhat = (x_at(test, row, c) - (double)test->norm.mean[c]) * (double)test->norm.scale[c];
    double z = test->z ? tensor_get(&test->norm.shape, test->z, row, c) : 0;
    double value = weight_at(test, c) * xhat + bias_at(test, c) + z;
    double magnitude = fabs(weight_at(test, c) * xhat) + fabs(bias_at(test, c)) + fabs(z);
    return (struct expected){test->act == NNC_GPU_RELU && value < 0 ? 0 : value, magnitude, 5};
}

static void make_moments(struct norm_case *test) {
    const struct nnc_gpu_tensor *shape = &test->norm.shape;
    test->norm.mean = floats_noise(shape->stride, 30, 0);
    test->norm.scale = floats_noise(shape->stride, 31, 1);
    for (size_t c = shape->channels; c < shape->stride; c++) {
        test->norm.mean[c] = 0;
        test->norm.scale[c] = 0;
    }
}

static bool mask_at(const struct norm_case *test, size_t row, size_t c) {
    size_t index = row * test->norm.shape.stride + c;
    /* The last word may reach behind the mask: read its byte. */
    return ((const uint8_t *)test->norm.mask)[index / 8] >> index % 8 & 1;
}

static void check_apply(struct nnc_gpu_tensor shape, unsigned parts) {
    struct norm_case test = make_case(shape, parts & 1, 0);
    make_moments(&test);
    test.act = parts & 2 ? NNC_GPU_RELU : NNC_GPU_NONE;
    test.z = parts & 4 ? tensor_noise(&shape, 3, 0) : NULL;
    test.norm.mask = parts & 8 ? NULL : test.norm.mask;
    test.y = tensor_empty(&shape);
    device_run(launch_apply, &test);
    expect_tensor(&shape, test.y, applied_at, &test, "norm_apply");
    for (size_t row = 0; test.act && test.norm.mask && row < tensor_rows(&shape); row++) {
        for (size_t c = 0; c < shape.stride; c++) {
            bool positive = tensor_get(&shape, test.y, row, c) > 0;
            cr_assert_eq(mask_at(&test, row, c), positive, "mask of row %zu", row);
        }
    }
    device_clear();
}

Test(norm, apply_normalises_adds_the_shortcut_and_notes_where_y_is_positive) {
    for (unsigned number = 0; number < NNC_GPU_TYPE_COUNT * SHAPE_COUNT; number++) {
        for (unsigned parts = number & 1; parts < 16; parts += 2) {
            check_apply(shape_number(number % NNC_GPU_TYPE_COUNT, number / NNC_GPU_TYPE_COUNT),
                        parts);
        }
    }
}

/* ---- backward ---- */

/* The gradient behind the activation. */
static double d_at(const struct norm_case *test, size_t row, size_t c) {
    double dy = tensor_get(&test->norm.shape, test->old_dy, row, c);
    return test->act == NNC_GPU_RELU && !mask_at(test, row, c) ? 0 : dy;
}

static int launch_sums(const void *context) {
    const struct norm_case *test = context;
    return nnc_gpu_norm_backward_sums(NULL, &test->norm, test->act, test->x, test->dy,
                                      test->dweight, test->dbias);
}

static void fill_mask(struct norm_case *test) {
    size_t bytes = tensor_count(&test->norm.shape) / 8;
    for (size_t byte = 0; byte < bytes; byte++) {
        ((uint8_t *)test->norm.mask)[byte] = (uint8_t)(byte * 37 + 11);
    }
}

static struct norm_case backward_case(struct nnc_gpu_tensor shape, unsigned parts) {
    struct norm_case test = make_case(shape, parts & 1, 0.5);
    make_moments(&test);
    test.act = parts & 2 ? NNC_GPU_RELU : NNC_GPU_NONE;
    fill_mask(&test);
    test.dy = tensor_noise(&shape, 4, 0);
    test.old_dy = tensor_noise(&shape, 4, 0);
    return test;
}

static void check_sums(struct nnc_gpu_tensor shape, unsigned parts) {
    struct norm_case test = backward_case(shape, parts);
    test.dweight = parts & 4 ? NULL : floats_empty(shape.stride);
    test.dbias = parts & 8 ? NULL : floats_empty(shape.stride);
    device_run(launch_sums, &test);
    size_t rows = tensor_rows(&shape);
    for (size_t c = 0; c < shape.channels; c++) {
        double sums[4] = {0};
        for (size_t row = 0; row < rows; row++) {
            double d = d_at(&test, row, c);
            double xhat =
                (x_at(&test, row, c) - (double)test.norm.mean[c]) * (double)test.norm.scale[c];
            sums[0] += d;
            sums[1] += d * xhat;
            sums[2] += fabs(d);
            sums[3] += fabs(d * xhat);
        }
        double operations = additions(&shape) + 4;
        if (test.dbias) {
            expect_value(NNC_GPU_F32, (double)test.dbias[c],
                         (struct expected){sums[0], sums[2], operations}, "dbias");
        }
        if (test.dweight) {
            expect_value(NNC_GPU_F32, (double)test.dweight[c],
                         (struct expected){sums[1], sums[3], operations}, "dweight");
        }
    }
    expect_zero_tail(test.dbias ? test.dbias : test.norm.scale, &shape, "dbias");
    expect_zero_tail(test.dweight ? test.dweight : test.norm.scale, &shape, "dweight");
    device_clear();
}

Test(norm, backward_sums_see_the_mask) {
    for (unsigned number = 0; number < NNC_GPU_TYPE_COUNT * SHAPE_COUNT; number++) {
        struct nnc_gpu_tensor shape =
            shape_number(number % NNC_GPU_TYPE_COUNT, number / NNC_GPU_TYPE_COUNT);
        check_sums(shape, number % 4);
        check_sums(shape, (number + 2) % 4 + (number % 3 + 1) * 4);
    }
}

static int launch_backward(const void *context) {
    const struct norm_case *test = context;
    return nnc_gpu_norm_backward(NULL, &test->norm, &test->backward);
}

static struct expected dx_at(const void *context, size_t row, size_t c) {
    const struct norm_case *test = context;
    double rows = (double)tensor_rows(&test->norm.shape);
    double scale = test->norm.scale[c];
    double xhat = (x_at(test, row, c) - (double)test->norm.mean[c]) * scale;
    double d = d_at(test, row, c);
    double average = (double)test->dbias[c] / rows;
    double slope = xhat * (double)test->dweight[c] / rows;
    double factor = weight_at(test, c) * scale;
    double old =
        test->backward.dx_accumulate ? tensor_get(&test->norm.shape, test->old_dx, row, c) : 0;
    double magnitude = fabs(factor) * (fabs(d) + fabs(average) + fabs(slope)) + fabs(old);
    return (struct expected){factor * (d - average - slope) + old, magnitude, 9};
}

static struct expected dz_at(const void *context, size_t row, size_t c) {
    const struct norm_case *test = context;
    double d = d_at(test, row, c);
    double old =
        test->backward.dz_accumulate ? tensor_get(&test->norm.shape, test->old_dz, row, c) : 0;
    return (struct expected){d + old, fabs(d) + fabs(old), 1};
}

/* parts: 4 and 8 accumulate, 16 no dz, 32 no dx, 64 dz is dy. */
static void check_backward(struct nnc_gpu_tensor shape, unsigned parts) {
    struct norm_case test = backward_case(shape, parts);
    test.dweight = floats_noise(shape.stride, 40, 0);
    test.dbias = floats_noise(shape.stride, 41, 0);
    for (size_t c = shape.channels; c < shape.stride; c++) {
        test.dweight[c] = 0;
        test.dbias[c] = 0;
    }
    test.dx = tensor_noise(&shape, 5, 0);
    test.old_dx = tensor_noise(&shape, 5, 0);
    test.dz = parts & 64 ? test.dy : tensor_noise(&shape, 6, 0);
    test.old_dz = parts & 64 ? test.old_dy : tensor_noise(&shape, 6, 0);
    test.backward = (struct nnc_gpu_norm_backward){
        .act = test.act,
        .x = test.x,
        .dy = test.dy,
        .dweight = test.dweight,
        .dbias = test.dbias,
        .dx = parts & 32 ? NULL : test.dx,
        .dz = parts & 16 ? NULL : test.dz,
        .dx_accumulate = parts & 4 && !(parts & 32),
        .dz_accumulate = parts & 8 && !(parts & (16 | 64)),
    };
    device_run(launch_backward, &test);
    if (test.backward.dx) {
        expect_tensor(&shape, test.dx, dx_at, &test, "dx");
    }
    if (test.backward.dz) {
        expect_tensor(&shape, test.dz, dz_at, &test, "dz");
    }
    device_clear();
}

Test(norm, backward_writes_or_adds_both_gradients) {
    for (unsigned number = 0; number < NNC_GPU_TYPE_COUNT * SHAPE_COUNT; number++) {
        struct nnc_gpu_tensor shape =
            shape_number(number % NNC_GPU_TYPE_COUNT, number / NNC_GPU_TYPE_COUNT);
        for (unsigned parts = number % 3; parts < 128; parts += 5) {
            check_backward(shape, parts);
        }
    }
}

Test(norm, dx_and_dz_may_be_one_tensor) {
    struct nnc_gpu_tensor shape = tensor_shape(NNC_GPU_F32, 2, 5, 3, 13);
    struct norm_case test = backward_case(shape, 3);
    test.dweight = floats_noise(shape.stride, 40, 0);
    test.dbias = floats_noise(shape.stride, 41, 0);
    test.dx = tensor_empty(&shape);
    test.backward = (struct nnc_gpu_norm_backward){.act = test.act,
                                                   .x = test.x,
                                                   .dy = test.dy,
                                                   .dweight = test.dweight,
                                                   .dbias = test.dbias,
                                                   .dx = test.dx,
                                                   .dz = test.dx,
                                                   .dz_accumulate = true};
    device_run(launch_backward, &test);
    for (size_t row = 0; row < tensor_rows(&shape); row++) {
        for (size_t c = 0; c < shape.channels; c++) {
            struct expected wanted = dx_at(&test, row, c);
            double d = d_at(&test, row, c);
            wanted = (struct expected){wanted.value + d, wanted.magnitude + fabs(d), 11};
            expect_value(shape.type, tensor_get(&shape, test.dx, row, c), wanted, "dx and dz");
        }
    }
    device_clear();
}

Test(norm, threads_take_several_rows) {
    check_statistics(shape_large(NNC_GPU_BF16), 30);
    check_apply(shape_large(NNC_GPU_BF16), 7);
    check_sums(shape_large(NNC_GPU_F16), 3);
    check_backward(shape_large(NNC_GPU_BF16), 11);
}

/* ---- bias ---- */

static int launch_bias(const void *context) {
    const struct norm_case *test = context;
    return nnc_gpu_bias_gradient(NULL, &test->norm.shape, test->dy, test->norm.scratch,
                                 test->dbias);
}

Test(norm, bias_gradient_is_the_sum_over_rows) {
    for (unsigned number = 0; number < NNC_GPU_TYPE_COUNT * (SHAPE_COUNT + 1); number++) {
        enum nnc_gpu_type type = number % NNC_GPU_TYPE_COUNT;
        unsigned size = number / NNC_GPU_TYPE_COUNT;
        struct nnc_gpu_tensor shape =
            size < SHAPE_COUNT ? shape_number(type, size) : shape_large(type);
        struct norm_case test = {.norm.shape = shape};
        test.dy = tensor_noise(&shape, 4, 0);
        test.norm.scratch = floats_empty(nnc_gpu_reduce_floats(&shape));
        test.dbias = floats_empty(shape.stride);
        device_run(launch_bias, &test);
        for (size_t c = 0; c < shape.channels; c++) {
            struct expected wanted = {0, 0, additions(&shape)};
            for (size_t row = 0; row < tensor_rows(&shape); row++) {
                wanted.value += tensor_get(&shape, test.dy, row, c);
                wanted.magnitude += fabs(tensor_get(&shape, test.dy, row, c));
            }
            expect_value(NNC_GPU_F32, (double)test.dbias[c], wanted, "db");
        }
        expect_zero_tail(test.dbias, &shape, "db");
        device_clear();
    }
}
