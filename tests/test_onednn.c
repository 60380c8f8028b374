/* SPDX-License-Identifier: Apache-2.0 */
/* What the table of backend cases (test_backends.c) cannot see of the oneDNN backend: that results
 * are the same bits in every run and whatever shared memory held, the order of compilations,
 * layouts on the way in and out, and refusals. */
#include "base/err.h"
#include "cpu/onednn.h"
#include "cpu/reference.h"
#include "tests/support/backend_cases.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Channels on both sides of the vector width, an uneven image, everything that has memory of its
 * own. */
static const struct nnc_case mixed = {
    "mixed",
    {3, 9, 7},
    5,
    NNC_LOSS_CROSS_ENTROPY,
    .rows = {CONV(10, 3, 1, 1, true), RELU, MAXPOOL(2, 2, 0), CONV(17, 3, 1, 1, false), BATCHNORM,
             RELU, CONV(17, 3, 1, 1, false), BATCHNORM, ADD(3), RELU, FLATTEN, DROPOUT(0.3),
             LINEAR(21, true), SIGMOID, LINEAR(4, true)}};

/* Sizes at which every kind of operation is worth a team of threads; the table's cases are not. */
static const struct nnc_case large[] = {
    {"large",
     {3, 33, 31},
     8,
     NNC_LOSS_CROSS_ENTROPY,
     .smoothing = 0.1,
     .rows = {CONV(40, 3, 1, 1, true), RELU, MAXPOOL(2, 2, 0), CONV(40, 3, 1, 1, false), BATCHNORM,
              RELU, CONV(40, 3, 1, 1, false), BATCHNORM, ADD(3), RELU, AVGPOOL(3, 1, 1), TANH,
              CONV(64, 1, 1, 0, false), BATCHNORM, RELU, DROPOUT(0.3), LINEAR(64, true), SIGMOID,
              LINEAR(600, true)}},
    {"large images",
     {3, 121, 120},
     5,
     NNC_LOSS_MSE,
     .rows = {CONV(16, 11, 4, 2, true), RELU, BATCHNORM, MAXPOOL(3, 2, 0), LINEAR(4, true)}},
};

Test(onednn, teams_of_threads_equal_the_reference_and_themselves, .timeout = 120) {
    for (size_t k = 0; k < sizeof(large) / sizeof(large[0]); k++) {
        struct nnc_case_result wanted;
        struct nnc_case_result first;
        struct nnc_case_result second;
        char text[400];
        case_run(&nnc_backend_reference, &large[k], &wanted);
        case_run(&nnc_backend_onednn, &large[k], &first);
        case_run(&nnc_backend_onednn, &large[k], &second);
        double bound = case_bound(&large[k], 0x1p-24);
        bool agree = case_results_agree(&wanted, &first, bound, text, sizeof(text));
        cr_expect(agree, "%s: %s", large[k].name, text);
        agree = case_results_agree(&first, &second, 0, text, sizeof(text));
        cr_expect(agree, "%s, repeated: %s", large[k].name, text);
        case_result_free(&wanted);
        case_result_free(&first);
        case_result_free(&second);
    }
}

Test(onednn, two_runs_give_the_same_bits_on_every_case, .timeout = 120) {
    for (const struct nnc_case *row = nnc_cases; row->name; row++) {
        struct nnc_case_result first;
        struct nnc_case_result second;
        char text[400];
        case_run(&nnc_backend_onednn, row, &first);
        case_run(&nnc_backend_onednn, row, &second);
        bool agree = case_results_agree(&first, &second, 0, text, sizeof(text));
        cr_expect(agree, "%s: %s", row->name, text);
        case_result_free(&first);
        case_result_free(&second);
    }
}

static float *get(const struct nnc_case_model *model, enum nnc_state state, uint32_t param) {
    float *values = malloc(model->graph->params[param].count * sizeof(*values));
    cr_assert_not_null(values);
    cr_assert_eq(model->ops->get(model->backend, state, param, values), 0, "%s", nnc_error_text());
    return values;
}

/* Whether a state of two models is the same bits in all parameters. */
static void expect_equal(const struct nnc_case_model *left, const struct nnc_case_model *right,
                         enum nnc_state state, const char *what) {
    for (uint32_t p = 0; p < left->graph->param_count; p++) {
        const struct nnc_param *param = &left->graph->params[p];
        float *a = get(left, state, p);
        float *b = get(right, state, p);
        cr_expect(memcmp(a, b, param->count * sizeof(*a)) == 0, "%s, %s: %s differs",
                  left->row->name, what, param->name);
        free(a);
        free(b);
    }
}

Test(onednn, results_do_not_depend_on_what_shared_memory_held, .timeout = 120) {
    static const enum nnc_case_program programs[] = {NNC_CASE_WHOLE, NNC_CASE_SMALL, NNC_CASE_EVAL,
                                                     NNC_CASE_WHOLE};
    for (const struct nnc_case *row = nnc_cases; row->name; row++) {
        struct nnc_case_model clean;
        struct nnc_case_model dirty;
        case_model_open(&nnc_backend_onednn, row, &clean);
        case_model_open(&nnc_backend_onednn, row, &dirty);
        for (uint64_t k = 0; k < sizeof(programs) / sizeof(programs[0]); k++) {
            if (!clean.executable[programs[k]]) {
                continue;
            }
            nnc_onednn_scribble(clean.backend, 0);
            nnc_onednn_scribble(dirty.backend, 0xff); /* every float a NaN */
            struct nnc_metrics a = case_model_step(&clean, programs[k], k);
            struct nnc_metrics b = case_model_step(&dirty, programs[k], k);
            cr_expect(memcmp(&a, &b, sizeof(a)) == 0, "%s, step %d: metrics differ", row->name,
                      (int)k);
            expect_equal(&clean, &dirty, NNC_STATE_GRADIENT, "gradient");
            expect_equal(&clean, &dirty, NNC_STATE_VALUE, "value");
        }
        case_model_close(&clean);
        case_model_close(&dirty);
    }
}

/* Values that no two parameters share. */
static float *numbered(const struct nnc_param *param, uint32_t number, enum nnc_state state) {
    float *values = malloc(param->count * sizeof(*values));
    cr_assert_not_null(values);
    for (uint64_t k = 0; k < param->count; k++) {
        values[k] = (float)(k + 1) + 0.001f * (float)number + 0.25f * (float)state;
    }
    return values;
}

static void check_round_trip(struct nnc_case_model *model, bool write, const char *when) {
    for (int state = NNC_STATE_VALUE; state <= NNC_STATE_MOMENTUM; state++) {
        for (uint32_t p = 0; p < model->graph->param_count; p++) {
            const struct nnc_param *param = &model->graph->params[p];
            bool zero = param->kind == NNC_PARAM_BUFFER && state != NNC_STATE_VALUE;
            float *wanted = numbered(param, p, (enum nnc_state)state);
            if (write) {
                cr_assert_eq(model->ops->set(model->backend, (enum nnc_state)state, p, wanted), 0);
            }
            float *got = get(model, (enum nnc_state)state, p);
            for (uint64_t k = 0; k < param->count; k++) {
                cr_assert_eq(got[k], zero ? 0 : wanted[k], "%s: state %d of %s, value %d", when,
                             state, param->name, (int)k);
            }
            free(wanted);
            free(got);
        }
    }
}

Test(onednn, what_is_set_is_got_also_through_a_change_of_layouts) {
    struct nnc_case_model model = {.ops = &nnc_backend_onednn, .row = &mixed};
    model.graph = model.own_graph = nnc_graph_of_rows(mixed.input, mixed.rows);
    struct nnc_backend_params params = {.graph = model.graph, .threads = 2, .std = {1, 1, 1}};
    cr_assert_eq(model.ops->open(&params, &model.backend), 0);
    check_round_trip(&model, true, "before");
    struct nnc_program_params whole = {model.graph, mixed.batch, true, 0};
    cr_assert_eq(nnc_program_create(&whole, &model.program[0]), 0);
    cr_assert_eq(model.ops->compile(model.backend, model.program[0], &model.executable[0]), 0);
    check_round_trip(&model, false, "after");
    check_round_trip(&model, true, "again");
    case_model_close(&model);
}

/* Logits of the evaluation program. */
static void evaluate(struct nnc_case_model *model, float *ret_logits) {
    case_model_step(model, NNC_CASE_EVAL, 0);
    cr_assert_eq(model->ops->logits(model->executable[NNC_CASE_EVAL], ret_logits), 0);
}

Test(onednn, an_evaluation_compiled_before_training_follows_the_parameters) {
    float wanted[5 * 4];
    float before[5 * 4];
    float after[5 * 4];
    struct nnc_case_model model;
    case_model_open(&nnc_backend_onednn, &mixed, &model);
    evaluate(&model, wanted);
    struct nnc_case_model late = model;
    struct nnc_backend_params params = {.graph = model.graph,
                                        .threads = 2,
                                        .seed = 99,
                                        .mean = {0.5, 0.4, 0.45},
                                        .std = {0.25, 0.3, 0.2}};
    cr_assert_eq(late.ops->open(&params, &late.backend), 0);
    for (uint32_t p = 0; p < model.graph->param_count; p++) {
        float *values = get(&model, NNC_STATE_VALUE, p);
        cr_assert_eq(late.ops->set(late.backend, NNC_STATE_VALUE, p, values), 0);
        free(values);
    }
    cr_assert_eq(late.ops->compile(late.backend, late.program[NNC_CASE_EVAL],
                                   &late.executable[NNC_CASE_EVAL]),
                 0);
    evaluate(&late, before);
    cr_assert_eq(late.ops->compile(late.backend, late.program[NNC_CASE_WHOLE],
                                   &late.executable[NNC_CASE_WHOLE]),
                 0);
    evaluate(&late, after);
    for (size_t k = 0; k < sizeof(wanted) / sizeof(wanted[0]); k++) {
        cr_expect_float_eq(before[k], wanted[k], 1e-5f);
        cr_expect_float_eq(after[k], wanted[k], 1e-5f);
    }
    late.ops->release(late.executable[NNC_CASE_WHOLE]);
    late.ops->release(late.executable[NNC_CASE_EVAL]);
    late.ops->close(late.backend);
    case_model_close(&model);
}

Test(onednn, a_batch_outlives_steps_of_other_executables) {
    struct nnc_case_model model;
    struct nnc_case_model other;
    case_model_open(&nnc_backend_onednn, &mixed, &model);
    case_model_open(&nnc_backend_onednn, &mixed, &other);
    const struct nnc_feed feed = {model.images, model.sample_stride, model.labels};
    const struct nnc_step_params step = {.step = 3, .first = 5, .global_count = mixed.batch + 3};
    cr_assert_eq(model.ops->feed(model.executable[NNC_CASE_WHOLE], &feed), 0);
    case_model_step(&model, NNC_CASE_EVAL, 0);
    cr_assert_eq(model.ops->step(model.executable[NNC_CASE_WHOLE], &step), 0);
    case_model_step(&other, NNC_CASE_WHOLE, 3);
    expect_equal(&model, &other, NNC_STATE_GRADIENT, "gradient");
    case_model_close(&model);
    case_model_close(&other);
}

Test(onednn, a_step_needs_a_batch_and_labels_need_classes) {
    struct nnc_case_model model;
    case_model_open(&nnc_backend_onednn, &mixed, &model);
    const struct nnc_step_params step = {.global_count = 1};
    cr_assert_eq(model.ops->step(model.executable[NNC_CASE_WHOLE], &step), -EINVAL);
    model.labels[2] = 4;
    const struct nnc_feed feed = {model.images, model.sample_stride, model.labels};
    cr_assert_eq(model.ops->feed(model.executable[NNC_CASE_WHOLE], &feed), -NNC_E_FORMAT);
    cr_assert(strstr(nnc_error_text(), "label 4 of sample 2"), "%s", nnc_error_text());
    case_model_close(&model);
}

Test(onednn, update_and_buckets_need_a_training_program) {
    struct nnc_graph *graph = nnc_graph_of_rows(mixed.input, mixed.rows);
    struct nnc_backend_params params = {.graph = graph, .threads = 1, .std = {1, 1, 1}};
    struct nnc_backend *backend = NULL;
    float *values = NULL;
    size_t count = 0;
    cr_assert_eq(nnc_backend_onednn.open(&params, &backend), 0);
    cr_assert_eq(nnc_backend_onednn.update(backend, &(struct nnc_sgd){0}), -EINVAL);
    cr_assert_eq(nnc_backend_onednn.bucket(backend, 0, &values, &count), -EINVAL);
    cr_assert_null(values);
    cr_assert_eq(nnc_backend_onednn.zero_gradients(backend), 0);
    nnc_backend_onednn.close(backend);
    nnc_graph_of_rows_free(graph);
}

Test(onednn, programs_with_other_buckets_are_refused) {
    struct nnc_case_model model;
    case_model_open(&nnc_backend_onednn, &mixed, &model);
    struct nnc_program *program = NULL;
    struct nnc_executable *executable = NULL;
    cr_assert_eq(
        nnc_program_create(&(struct nnc_program_params){model.graph, 3, true, 0}, &program), 0);
    cr_assert_eq(model.ops->compile(model.backend, program, &executable), -EINVAL);
    cr_assert(strstr(nnc_error_text(), "bucket"), "%s", nnc_error_text());
    cr_assert_null(executable);
    nnc_program_destroy(program);
    case_model_close(&model);
}

Test(onednn, zeroed_gradients_are_zero) {
    struct nnc_case_model model;
    case_model_open(&nnc_backend_onednn, &mixed, &model);
    case_model_step(&model, NNC_CASE_WHOLE, 0);
    cr_assert_eq(model.ops->zero_gradients(model.backend), 0);
    for (uint32_t p = 0; p < model.graph->param_count; p++) {
        float *values = get(&model, NNC_STATE_GRADIENT, p);
        for (uint64_t k = 0; k < model.graph->params[p].count; k++) {
            cr_assert_eq(values[k], 0);
        }
        free(values);
    }
    case_model_close(&model);
}

Test(onednn, an_update_that_leaves_no_finite_weights_names_them) {
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    for (int row = 0; row < 3; row++) {
        struct nnc_case_model model;
        case_model_open(&nnc_backend_onednn, &mixed, &model);
        float *values = get(&model, NNC_STATE_VALUE, 0);
        values[model.graph->params[0].count - 1] = bad[row];
        cr_assert_eq(model.ops->set(model.backend, NNC_STATE_VALUE, 0, values), 0);
        case_model_step(&model, NNC_CASE_WHOLE, 0);
        const struct nnc_sgd sgd = {.lr = 0.01f, .momentum = 0.9f};
        cr_assert_eq(model.ops->update(model.backend, &sgd), -NNC_E_NUMERIC);
        cr_assert(strstr(nnc_error_text(), model.graph->params[0].name), "%s", nnc_error_text());
        free(values);
        case_model_close(&model);
    }
}
