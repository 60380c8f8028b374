/* SPDX-License-Identifier: Apache-2.0 */
/* What finite differences and golden numbers cannot see of the reference: counts, ties, refusals,
 * masks, and the state functions. */
#include "base/config.h"
#include "base/err.h"
#include "cpu/reference.h"
#include "tests/support/backend_cases.h"
#include "workers/dropout.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const struct nnc_backend_ops *const ops = &nnc_backend_reference;

static const struct nnc_case bias_only = {
    "bias only", {1, 1, 1}, 2, .loss = NNC_LOSS_CROSS_ENTROPY, .rows = {LINEAR(7, true)}};

struct ranking {
    const char *what;
    float logits[7];
    int32_t label;
    uint64_t correct1, correct5;
};

static const struct ranking rankings[] = {
    {"largest", {0, 1, 2, 3, 4, 5, 6}, 6, 1, 1},
    {"second", {0, 1, 2, 3, 4, 5, 6}, 5, 0, 1},
    {"fifth", {0, 1, 2, 3, 4, 5, 6}, 2, 0, 1},
    {"sixth", {0, 1, 2, 3, 4, 5, 6}, 1, 0, 0},
    {"lower class of a tie", {3, 3, 0, 0, 0, 0, 0}, 0, 1, 1},
    {"higher class of a tie", {3, 3, 0, 0, 0, 0, 0}, 1, 0, 1},
    {"all equal, fifth class", {0, 0, 0, 0, 0, 0, 0}, 4, 0, 1},
    {"all equal, sixth class", {0, 0, 0, 0, 0, 0, 0}, 5, 0, 0},
    {"not a number", {0, 0, 0, NAN, 0, 0, 0}, 3, 0, 0},
    {"infinite", {0, 0, 0, INFINITY, 0, 0, 0}, 3, 1, 1},
};

Test(reference, ties_count_for_the_lower_class_and_nan_for_none) {
    for (size_t row = 0; row < sizeof(rankings) / sizeof(rankings[0]); row++) {
        const struct ranking *ranking = &rankings[row];
        const float weight[7] = {0};
        struct nnc_case_model model;
        case_model_open(ops, &bias_only, &model);
        ops->set(model.backend, NNC_STATE_VALUE, 0, weight);
        ops->set(model.backend, NNC_STATE_VALUE, 1, ranking->logits);
        model.labels[0] = ranking->label;
        model.labels[1] = -1;
        struct nnc_metrics metrics = case_model_step(&model, NNC_CASE_EVAL, 0);
        cr_expect_eq(metrics.correct1, ranking->correct1, "%s", ranking->what);
        cr_expect_eq(metrics.correct5, ranking->correct5, "%s", ranking->what);
        cr_expect_eq(metrics.count, 1);
        cr_expect_eq(metrics.left_out, 1);
        case_model_close(&model);
    }
}

/* Weights {3, 4, 0...} of norm 5, gradients {0, 6, 8, 0...} of norm 10, decay 0.5: the ratio is
 * 0.1 * 5 / (10 + 0.5 * 5) = 0.04. */
Test(reference, lars_scales_the_step_of_weights_and_leaves_biases_alone) {
    const float weight[7] = {3, 4}, gradient[7] = {0, 6, 8}, bias[7] = {1}, zero[7] = {0};
    const struct nnc_sgd sgd = {.lr = 2, .trust = 0.1f, .weight_decay = {0.5f, 0.5f, 0.5f}};
    float values[2][7];
    struct nnc_case_model model;
    case_model_open(ops, &bias_only, &model);
    case_model_step(&model, NNC_CASE_WHOLE, 0); /* makes the momentum */
    for (uint32_t param = 0; param < 2; param++) {
        ops->set(model.backend, NNC_STATE_VALUE, param, param == 0 ? weight : bias);
        ops->set(model.backend, NNC_STATE_GRADIENT, param, gradient);
        ops->set(model.backend, NNC_STATE_MOMENTUM, param, zero);
    }
    cr_assert_eq(ops->update(model.backend, &sgd), 0);
    for (uint32_t param = 0; param < 2; param++) {
        ops->get(model.backend, NNC_STATE_VALUE, param, values[param]);
    }
    for (int place = 0; place < 7; place++) {
        float step = gradient[place] + 0.5f * weight[place];
        cr_expect_float_eq(values[0][place], weight[place] - 2 * 0.04f * step, 1e-6f);
        step = gradient[place] + 0.5f * bias[place];
        cr_expect_float_eq(values[1][place], bias[place] - 2 * step, 1e-6f);
    }
    case_model_close(&model);
}

Test(reference, large_logits_neither_overflow_nor_vanish) {
    const float weight[7] = {0};
    const float bias[7] = {1000, -1000, 0, 0, 0, 0, 0};
    struct nnc_case_model model;
    case_model_open(ops, &bias_only, &model);
    ops->set(model.backend, NNC_STATE_VALUE, 0, weight);
    ops->set(model.backend, NNC_STATE_VALUE, 1, bias);
    model.labels[0] = 0;
    model.labels[1] = 1;
    struct nnc_metrics metrics = case_model_step(&model, NNC_CASE_WHOLE, 0);
    cr_assert_float_eq(metrics.loss_sum, 2000, 1e-6);
    case_model_close(&model);
}

Test(reference, a_label_outside_the_classes_is_refused_by_number) {
    struct nnc_case_model model;
    case_model_open(ops, &bias_only, &model);
    const int32_t bad[] = {7, -2, INT32_MAX, INT32_MIN};
    for (size_t row = 0; row < sizeof(bad) / sizeof(bad[0]); row++) {
        model.labels[1] = bad[row];
        const struct nnc_feed feed = {model.images, model.sample_stride, model.labels};
        cr_assert_eq(ops->feed(model.executable[NNC_CASE_EVAL], &feed), -NNC_E_FORMAT);
        cr_assert(strstr(nnc_error_text(), "of sample 1 "), "%s", nnc_error_text());
    }
    case_model_close(&model);
}

Test(reference, the_first_of_equal_maxima_gets_the_gradient) {
    /* Weight 0 makes all values of a window equal; the weight's gradient is dy times the pixel that
     * won, and dy is the linear weight's share. */
    static const struct nnc_case row = {
        "ties",
        {1, 2, 2},
        1,
        .loss = NNC_LOSS_MSE,
        .rows = {CONV(1, 1, 1, 0, false), MAXPOOL(2, 2, 0), LINEAR(1, false)}};
    struct nnc_case_model model;
    case_model_open(ops, &row, &model);
    const float zero = 0;
    const float one = 1;
    ops->set(model.backend, NNC_STATE_VALUE, 0, &zero);
    ops->set(model.backend, NNC_STATE_VALUE, 1, &one);
    const uint8_t image[4] = {51, 102, 153, 204};
    memcpy(model.images, image, sizeof(image));
    model.labels[0] = 0;
    case_model_step(&model, NNC_CASE_WHOLE, 0);
    float gradient = 0;
    ops->get(model.backend, NNC_STATE_GRADIENT, 0, &gradient);
    double first_pixel = (51 / 255.0 - 0.5) / 0.25;
    cr_assert_float_eq(gradient, 2 * (0 - 1) * first_pixel / (row.batch + 3), 1e-6);
    case_model_close(&model);
}

static const struct nnc_case masked = {
    "masked",
    {1, 4, 5},
    4,
    .loss = NNC_LOSS_CROSS_ENTROPY,
    .rows = {FLATTEN, LINEAR(33, true), TANH, DROPOUT(0.4), LINEAR(5, true)}};

/* Step samples first .. first + count - 1 of `images` in the executable that holds so many. */
static void step_slice(struct nnc_case_model *model, enum nnc_case_program which, uint32_t first) {
    const struct nnc_feed feed = {model->images + first * model->sample_stride,
                                  model->sample_stride, model->labels + first};
    const struct nnc_step_params params = {.step = 3, .first = first, .global_count = 4};
    cr_assert_eq(ops->feed(model->executable[which], &feed), 0);
    cr_assert_eq(ops->step(model->executable[which], &params), 0);
}

Test(reference, a_slice_of_the_batch_gives_its_slice_of_logits_and_gradients) {
    struct nnc_case_model model;
    case_model_open(ops, &masked, &model);
    float whole[20];
    float part[15];
    float whole_gradient[33 * 20];
    float parts_gradient[33 * 20];
    step_slice(&model, NNC_CASE_WHOLE, 0);
    ops->logits(model.executable[NNC_CASE_WHOLE], whole);
    ops->get(model.backend, NNC_STATE_GRADIENT, 0, whole_gradient);
    step_slice(&model, NNC_CASE_SMALL, 1); /* three samples, from the second on */
    ops->logits(model.executable[NNC_CASE_SMALL], part);
    cr_assert_eq(memcmp(part, whole + 5, sizeof(part)), 0, "logits depend on the slice");
    ops->get(model.backend, NNC_STATE_GRADIENT, 0, parts_gradient);
    for (uint32_t n = 1; n < 4; n++) {
        model.labels[n] = -1; /* what is left is the first sample's gradient */
    }
    float first_gradient[33 * 20];
    step_slice(&model, NNC_CASE_WHOLE, 0);
    ops->get(model.backend, NNC_STATE_GRADIENT, 0, first_gradient);
    for (size_t place = 0; place < 33 * 20; place++) {
        float sum = parts_gradient[place] + first_gradient[place];
        cr_assert_float_eq(sum, whole_gradient[place], 1e-6, "place %zu", place);
    }
    case_model_close(&model);
}

Test(reference, dropout_keeps_what_the_shared_decision_keeps) {
    static const struct nnc_case row = {"visible mask",
                                        {1, 1, 64},
                                        2,
                                        .loss = NNC_LOSS_MSE,
                                        .rows = {DROPOUT(0.25), FLATTEN, LINEAR(1, false)}};
    struct nnc_case_model model;
    case_model_open(ops, &row, &model);
    float weight[64];
    for (uint32_t feature = 0; feature < 64; feature++) {
        memset(weight, 0, sizeof(weight));
        weight[feature] = 1;
        ops->set(model.backend, NNC_STATE_VALUE, 0, weight);
        case_model_step(&model, NNC_CASE_WHOLE, 21);
        float logits[2];
        ops->logits(model.executable[NNC_CASE_WHOLE], logits);
        struct nnc_dropout dropout = nnc_dropout_make(99, 21, 1, 0.25);
        for (uint32_t n = 0; n < 2; n++) {
            double pixel = model.images[n * model.sample_stride + feature] / 255.0;
            double value = (pixel - 0.5) / 0.25 / 0.75;
            bool keep = nnc_dropout_keep(&dropout, 5 + n, feature);
            cr_assert_float_eq(logits[n], keep ? value : 0, 1e-5, "sample %u, feature %u", n,
                               feature);
        }
    }
    case_model_close(&model);
}

static const struct nnc_case normed = {
    "normed",
    {3, 4, 4},
    3,
    .loss = NNC_LOSS_CROSS_ENTROPY,
    .rows = {CONV(4, 3, 1, 1, true), BATCHNORM, RELU, LINEAR(3, true)}};

Test(reference, state_is_what_was_set_and_buffers_have_no_gradient) {
    struct nnc_case_model model;
    case_model_open(ops, &normed, &model);
    for (uint32_t number = 0; number < model.graph->param_count; number++) {
        const struct nnc_param *param = &model.graph->params[number];
        for (int state = NNC_STATE_VALUE; state <= NNC_STATE_MOMENTUM; state++) {
            float values[256] = {0};
            float back[256];
            for (uint64_t place = 0; place < param->count; place++) {
                values[place] = (float)(number * 1000 + place) + (float)state / 4;
            }
            int rc = ops->set(model.backend, (enum nnc_state)state, number, values);
            bool refused = param->kind == NNC_PARAM_BUFFER && state != NNC_STATE_VALUE;
            cr_assert_eq(rc, refused ? -EINVAL : 0, "%s", param->name);
            ops->get(model.backend, (enum nnc_state)state, number, back);
            for (uint64_t place = 0; place < param->count; place++) {
                cr_assert_eq(back[place], refused ? 0 : values[place], "%s", param->name);
            }
        }
    }
    cr_assert_eq(ops->zero_gradients(model.backend), 0);
    float gradient[108];
    ops->get(model.backend, NNC_STATE_GRADIENT, 0, gradient);
    cr_assert_eq(gradient[107], 0);
    case_model_close(&model);
}

Test(reference, evaluation_leaves_weights_and_statistics_alone) {
    struct nnc_case_model model;
    case_model_open(ops, &normed, &model);
    float before[4];
    float after[4];
    uint32_t mean = 4; /* conv weight, bias, norm weight, bias, running_mean */
    ops->get(model.backend, NNC_STATE_VALUE, mean, before);
    case_model_step(&model, NNC_CASE_EVAL, 0);
    ops->get(model.backend, NNC_STATE_VALUE, mean, after);
    cr_assert_eq(memcmp(before, after, sizeof(before)), 0);
    case_model_step(&model, NNC_CASE_WHOLE, 0);
    ops->get(model.backend, NNC_STATE_VALUE, mean, after);
    cr_assert_neq(memcmp(before, after, sizeof(before)), 0);
    case_model_close(&model);
}

Test(reference, metrics_add_up_until_polled_and_memory_is_counted) {
    struct nnc_case_model model;
    case_model_open(ops, &normed, &model);
    const struct nnc_feed feed = {model.images, model.sample_stride, model.labels};
    struct nnc_metrics metrics;
    for (int times = 0; times < 3; times++) {
        ops->feed(model.executable[NNC_CASE_EVAL], &feed);
        ops->evaluate(model.executable[NNC_CASE_EVAL]);
    }
    ops->poll(model.backend, &metrics);
    cr_assert_eq(metrics.count, 9);
    ops->poll(model.backend, &metrics);
    cr_assert_eq(metrics.count, 0);
    cr_assert_eq(metrics.loss_sum, 0);
    size_t with = ops->memory(model.backend);
    ops->release(model.executable[NNC_CASE_WHOLE]);
    model.executable[NNC_CASE_WHOLE] = NULL;
    size_t without = ops->memory(model.backend);
    size_t values = 3 * (2 * 48 + 4 * 64 + 2 * 3); /* at least input, activations, logits */
    cr_assert_geq(with - without, values * sizeof(float) / 2);
    cr_assert_geq(without, 3 * 108 * sizeof(float), "weights, gradients, momentum");
    case_model_close(&model);
}
