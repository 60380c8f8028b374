/* SPDX-License-Identifier: Apache-2.0 */
/* The reference against PyTorch: golden/reference.txt holds what golden/reference.py computed in
 * float64 for the networks below. Three SGD steps and an evaluation each; both files know the
 * formulas of weights, images and labels, so that results alone are stored. */
#include "base/config.h"
#include "cpu/reference.h"
#include "tests/support/backend_cases.h"

#include <criterion/criterion.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct golden_case {
    struct nnc_case row;
    struct nnc_sgd sgd;
};

#define CE  .loss = NNC_LOSS_CROSS_ENTROPY
#define MSE .loss = NNC_LOSS_MSE

/* clang-format off */
static const struct golden_case golden_cases[] = {
    {{"residual", {3, 9, 8}, 4, CE, .smoothing = 0.1,
      .rows = {CONV(3, 3, 1, 1, false), BATCHNORM, RELU, MAXPOOL(3, 2, 1),
               CONV(3, 3, 1, 1, false), BATCHNORM, RELU, CONV(4, 3, 2, 1, false), BATCHNORM,
               CONV_BACK(4, 1, 2, 0, 5), BATCHNORM, ADD(2), RELU,
               ADAPTIVE(1, 1), FLATTEN, LINEAR(6, true)}},
     {0.1f, 0.9f, true, {0.01f, 0, 0.002f}}},
    {{"sigmoid squares", {1, 5, 4}, 5, MSE, .unlabelled = true,
      .rows = {FLATTEN, LINEAR(7, true), SIGMOID, LINEAR(7, false), TANH, LINEAR(5, true)}},
     {0.05f, 0.9f, false, {0, 0.1f, 0}}},
    {{"pools", {1, 11, 10}, 1, CE,
      .rows = {CONV_WINDOW(4, true, 2, 3, 1, 2, 0, 1), TANH, AVGPOOL_WINDOW(3, 2, 2, 1, 1, 1),
               ADAPTIVE(3, 4), MAXPOOL_WINDOW(2, 3, 1, 1, 1, 0), LINEAR(3, true)}},
     {0.1f, 0, false, {0, 0, 0}}},
    {{"unlabelled and smoothed", {3, 4, 4}, 3, CE, .smoothing = 0.3, .unlabelled = true,
      .rows = {CONV(2, 3, 1, 1, true), RELU, LINEAR(7, true)}},
     {0.1f, 0.5f, false, {0.1f, 0.1f, 0}}},
};
/* clang-format on */

/* The weights, images and labels of reference.py. */
static void set_by_formula(struct nnc_case_model *model) {
    for (uint32_t number = 0; number < model->graph->param_count; number++) {
        const struct nnc_param *param = &model->graph->params[number];
        bool weight = param->kind == NNC_PARAM_NORM && strstr(param->name, "weight");
        double shift = weight || strstr(param->name, "running_var") ? 1 : 0;
        float *values = calloc(param->count, sizeof(*values));
        for (uint64_t place = 0; place < param->count; place++) {
            uint64_t draw = (number * 7919u + place * 104729u + 13) % 1009;
            values[place] = (float)((double)draw / 1009.0 - 0.5 + shift);
        }
        model->ops->set(model->backend, NNC_STATE_VALUE, number, values);
        free(values);
    }
    const struct nnc_case *row = model->row;
    size_t bytes = (size_t)row->input.c * row->input.h * row->input.w;
    for (uint32_t n = 0; n < row->batch; n++) {
        for (size_t place = 0; place < bytes; place++) {
            size_t byte = (n * 131 + place * 89 + place * place * 7) % 256;
            model->images[n * model->sample_stride + place] = (uint8_t)byte;
        }
        bool left_out = row->unlabelled && n == 0;
        model->labels[n] = left_out ? -1 : (int32_t)((3 * n + 1) % model->graph->classes);
    }
}

static void record_step(struct nnc_case_model *model, enum nnc_case_program which,
                        const char *title, struct nnc_case_result *result) {
    struct nnc_metrics metrics = case_model_step(model, which, 0);
    cr_assert_eq(metrics.left_out, model->row->unlabelled);
    cr_assert_eq(metrics.count + metrics.left_out, model->row->batch);
    size_t count = (size_t)model->row->batch * model->graph->classes;
    float *logits = case_record(result, 0, count, title, "logits");
    model->ops->logits(model->executable[which], logits);
    *case_record(result, 1, 1, title, "loss") = (float)metrics.loss_sum;
}

static void record_params(struct nnc_case_model *model, enum nnc_state state, const char *title,
                          struct nnc_case_result *result) {
    for (uint32_t number = 0; number < model->graph->param_count; number++) {
        const struct nnc_param *param = &model->graph->params[number];
        float *values = case_record(result, 2 + (int)state, param->count, title, param->name);
        model->ops->get(model->backend, state, number, values);
    }
}

static void run_golden(const struct golden_case *golden, struct nnc_case_result *ret_result) {
    static const char *const titles[] = {"step 0", "step 1", "step 2"};
    struct nnc_case_model model;
    *ret_result = (struct nnc_case_result){0};
    case_model_open(&nnc_backend_reference, &golden->row, &model);
    set_by_formula(&model);
    for (int step = 0; step < 3; step++) {
        record_step(&model, NNC_CASE_WHOLE, titles[step], ret_result);
        if (step == 0) {
            record_params(&model, NNC_STATE_GRADIENT, "gradient", ret_result);
        }
        model.ops->update(model.backend, &golden->sgd);
    }
    record_params(&model, NNC_STATE_VALUE, "weight", ret_result);
    record_step(&model, NNC_CASE_EVAL, "evaluation", ret_result);
    case_model_close(&model);
}

/* Read the next line of golden values into a vector like `like`. */
static void read_golden(FILE *file, const char *case_name, const struct nnc_case_vector *like,
                        struct nnc_case_result *result) {
    char name[64];
    char what[64];
    size_t count = 0;
    cr_assert_eq(fscanf(file, " %63[^\t]\t%63[^\t]\t%zu", name, what, &count), 3);
    cr_assert_str_eq(name, case_name);
    cr_assert_str_eq(what, like->name);
    cr_assert_eq(count, like->count, "%s %s", name, what);
    float *values = case_record(result, like->group, count, what, "");
    for (size_t place = 0; place < count; place++) {
        cr_assert_eq(fscanf(file, "%f", &values[place]), 1);
    }
}

Test(reference_golden, equals_pytorch_after_three_steps) {
    FILE *file = fopen(NNC_TEST_SOURCE_DIR "/tests/golden/reference.txt", "r");
    cr_assert_not_null(file);
    cr_assert_eq(fscanf(file, "%*[^\n]\n%*[^\n]"), 0);
    for (size_t number = 0; number < sizeof(golden_cases) / sizeof(golden_cases[0]); number++) {
        const struct golden_case *golden = &golden_cases[number];
        struct nnc_case_result got;
        struct nnc_case_result wanted = {0};
        char text[400];
        run_golden(golden, &got);
        for (size_t vector = 0; vector < got.count; vector++) {
            read_golden(file, golden->row.name, &got.vectors[vector], &wanted);
        }
        double bound = case_bound(&golden->row, 0x1p-24);
        bool agree = case_results_agree(&wanted, &got, bound, text, sizeof(text));
        cr_expect(agree, "%s: %s", golden->row.name, text);
        case_result_free(&got);
        case_result_free(&wanted);
    }
    fclose(file);
}
