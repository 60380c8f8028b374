/* SPDX-License-Identifier: Apache-2.0 */
/* Losses, against the formulas of cpu/reference_loss.c in double. expf and logf count 4 operations,
 * as in test_kernels_pointwise.c; with x the largest logit in magnitude, K classes:
 *
 *   sum of exp     K additions of terms that are off by 4 and by the rounded exponent, x each
 *   loss           log of it, three more additions, and K additions of differences of logits */
#include "tests/gpu/device.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

struct loss_case {
    struct nnc_gpu_loss loss;
    void *logits, *dlogits;
    int32_t *labels;
    struct nnc_gpu_metrics *metrics;
};

/* One row in double. */
struct row {
    double largest, log_sum, magnitude;
    int32_t label;
};

static double logit(const struct loss_case *test, size_t row, size_t k) {
    return tensor_get(&test->loss.logits, test->logits, row, k);
}

static struct row row_of(const struct loss_case *test, size_t number) {
    struct row row = {.largest = -INFINITY, .label = test->labels[number]};
    double sum = 0;
    for (size_t k = 0; k < test->loss.logits.channels; k++) {
        row.largest = fmax(row.largest, logit(test, number, k));
        row.magnitude = fmax(row.magnitude, fabs(logit(test, number, k)));
    }
    for (size_t k = 0; k < test->loss.logits.channels; k++) {
        sum += exp(logit(test, number, k) - row.largest);
    }
    row.log_sum = row.largest + log(sum);
    return row;
}

static double target_of(const struct loss_case *test, const struct row *row, size_t k) {
    double onehot = (int32_t)k == row->label;
    double smoothing = test->loss.smoothing;
    double smooth = (1 - smoothing) * onehot + smoothing / test->loss.logits.channels;
    return test->loss.squared ? onehot : smooth;
}

static struct expected loss_of(const struct loss_case *test, size_t number) {
    struct row row = row_of(test, number);
    double classes = test->loss.logits.channels;
    double loss = 0;
    for (size_t k = 0; k < test->loss.logits.channels; k++) {
        double target = target_of(test, &row, k);
        double distance = logit(test, number, k) - target;
        loss += test->loss.squared ? distance * distance
                                   : target * (row.log_sum - logit(test, number, k));
    }
    double size = row.magnitude + 1;
    double largest = test->loss.squared ? loss + size : 2 * size + log(classes);
    return (struct expected){loss, largest, 2 * classes + 16};
}

static bool ranks_below(const struct loss_case *test, size_t number, uint32_t places) {
    int32_t label = test->labels[number];
    double own = logit(test, number, (size_t)label);
    uint32_t before = 0;
    for (size_t k = 0; k < test->loss.logits.channels; k++) {
        double value = logit(test, number, k);
        before += !(value < own || (value == own && (int32_t)k >= label));
    }
    return before < places;
}

static int launch_loss(const void *context) {
    const struct loss_case *test = context;
    return nnc_gpu_loss(NULL, &test->loss, test->logits, test->metrics);
}

static int launch_backward(const void *context) {
    const struct loss_case *test = context;
    return nnc_gpu_loss_backward(NULL, &test->loss, test->logits, test->dlogits);
}

static struct loss_case make_case(enum nnc_gpu_type type, uint32_t n, uint32_t classes) {
    struct loss_case test = {.loss.logits = tensor_shape(type, n, 1, 1, classes)};
    struct nnc_gpu_step *step = device_alloc(sizeof(*step));
    struct nnc_gpu_scaler *scaler = device_alloc(sizeof(*scaler));
    step->gradient_scale = 0.03125f;
    scaler->scale = 8;
    test.labels = device_alloc(n * sizeof(*test.labels));
    for (uint32_t row = 0; row < n; row++) {
        test.labels[row] = row % 7 == 3 ? -1 : (int32_t)(row * 31 % classes);
    }
    test.metrics = device_alloc(sizeof(*test.metrics));
    *test.metrics = (struct nnc_gpu_metrics){0.5, 10, 20, 30, 40};
    test.loss.labels = test.labels;
    test.loss.step = step;
    test.loss.scaler = scaler;
    test.loss.scratch = floats_empty(4 * (size_t)n);
    test.logits = tensor_noise(&test.loss.logits, 1, 0.5);
    test.dlogits = tensor_empty(&test.loss.logits);
    return test;
}

static void check_metrics(const struct loss_case *test) {
    struct nnc_gpu_metrics wanted = {0.5, 10, 20, 30, 40};
    struct expected sum = {0.5, 0.5, 1};
    for (size_t row = 0; row < test->loss.logits.n; row++) {
        bool labelled = test->labels[row] >= 0;
        wanted.count += labelled;
        wanted.left_out += !labelled;
        if (labelled) {
            struct expected loss = loss_of(test, row);
            sum.value += loss.value;
            sum.magnitude += loss.magnitude;
            sum.operations = loss.operations;
            wanted.correct1 += ranks_below(test, row, 1);
            wanted.correct5 += ranks_below(test, row, 5);
        }
    }
    expect_value(NNC_GPU_F32, test->metrics->loss_sum, sum, "loss");
    cr_assert_eq(test->metrics->count, wanted.count);
    cr_assert_eq(test->metrics->left_out, wanted.left_out);
    cr_assert_eq(test->metrics->correct1, wanted.correct1);
    cr_assert_eq(test->metrics->correct5, wanted.correct5);
}

static struct expected gradient_at(const void *context, size_t number, size_t k) {
    const struct loss_case *test = context;
    struct row row = row_of(test, number);
    double factor = (double)test->loss.step->gradient_scale * (double)test->loss.scaler->scale;
    double x = logit(test, number, k);
    double target = target_of(test, &row, k);
    if (row.label < 0) {
        return (struct expected){0, 0, 0};
    }
    if (test->loss.squared) {
        return (struct expected){2 * (x - target) * factor, 2 * (fabs(x) + 1) * factor, 3};
    }
    double p = exp(x - row.log_sum);
    /* p is as relatively exact as the exponents and the sum are, and no larger than 1. */
    double operations = test->loss.logits.channels + 16 + 4 * row.magnitude;
    return (struct expected){(p - target) * factor, (p + target) * factor, operations};
}

static void check_case(struct loss_case *test, bool squared, float smoothing) {
    test->loss.squared = squared;
    test->loss.smoothing = smoothing;
    device_run(launch_loss, test);
    check_metrics(test);
    device_run(launch_backward, test);
    expect_tensor(&test->loss.logits, test->dlogits, gradient_at, test, "dlogits");
    device_clear();
}

static const uint32_t sizes[][2] = {{1, 1},  {1, 10},  {7, 10}, {9, 13},
                                    {33, 8}, {4, 257}, {70, 3}, {5, 1000}};

Test(loss, cross_entropy_with_and_without_smoothing) {
    for (unsigned number = 0; number < 8 * NNC_GPU_TYPE_COUNT; number++) {
        const uint32_t *size = sizes[number / 3];
        struct loss_case test = make_case(number % 3, size[0], size[1]);
        check_case(&test, false, 0);
        test = make_case(number % 3, size[0], size[1]);
        check_case(&test, false, 0.1f);
    }
}

Test(loss, squared_error_against_onehot) {
    for (unsigned number = 0; number < 8 * NNC_GPU_TYPE_COUNT; number++) {
        const uint32_t *size = sizes[number / 3];
        struct loss_case test = make_case(number % 3, size[0], size[1]);
        check_case(&test, true, 0);
    }
}

Test(loss, large_logits_do_not_overflow) {
    for (unsigned type = 0; type < NNC_GPU_TYPE_COUNT; type++) {
        struct loss_case test = make_case(type, 3, 10);
        device_set(type, test.logits, 4, 30000);
        device_set(type, test.logits, 5, -30000);
        check_case(&test, false, 0.1f);
    }
}

Test(loss, ties_count_for_the_lower_class) {
    struct loss_case test = make_case(NNC_GPU_BF16, 10, 10);
    for (size_t row = 0; row < 10; row++) {
        test.labels[row] = (int32_t)row;
        for (size_t k = 0; k < 10; k++) {
            device_set(NNC_GPU_BF16, test.logits, row * 16 + k, 2);
        }
    }
    *test.metrics = (struct nnc_gpu_metrics){0};
    device_run(launch_loss, &test);
    cr_assert_eq(test.metrics->correct1, 1);
    cr_assert_eq(test.metrics->correct5, 5);
    device_clear();
}

Test(loss, not_a_number_at_the_label_ranks_last_and_shows_in_the_loss) {
    for (unsigned type = 0; type < NNC_GPU_TYPE_COUNT; type++) {
        struct loss_case test = make_case(type, 1, 3);
        test.labels[0] = 1;
        device_set(type, test.logits, 1, NAN);
        *test.metrics = (struct nnc_gpu_metrics){0};
        device_run(launch_loss, &test);
        cr_assert(isnan(test.metrics->loss_sum));
        cr_assert_eq(test.metrics->count, 1);
        cr_assert_eq(test.metrics->correct1, 0);
        cr_assert_eq(test.metrics->correct5, 1);
        device_run(launch_backward, &test);
        cr_assert(isnan(tensor_get(&test.loss.logits, test.dlogits, 0, 0)));
        device_clear();
    }
}

Test(loss, a_batch_without_labels_adds_nothing) {
    struct loss_case test = make_case(NNC_GPU_F16, 5, 10);
    memset(test.labels, 0xff, 5 * sizeof(*test.labels));
    device_set(NNC_GPU_F16, test.logits, 3, NAN);
    device_run(launch_loss, &test);
    check_metrics(&test);
    device_run(launch_backward, &test);
    for (size_t index = 0; index < tensor_count(&test.loss.logits); index++) {
        cr_assert_eq(device_get(NNC_GPU_F16, test.dlogits, index), 0);
    }
    device_clear();
}
