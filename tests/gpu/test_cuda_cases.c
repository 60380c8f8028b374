/* SPDX-License-Identifier: Apache-2.0 */
/* The CUDA backend against the reference on every case, in each type and under each order of
 * execution that the device may choose.
 *
 * The bound in 16 bits. Sums are fp32, so their length does not count; what is rounded to 16 bits,
 * with unit roundoff u, is each tensor when it is stored and each weight when it is copied. With
 * roundings[] counting those of an operation, forward and backward, independent errors add up to
 *
 *     smooth = safety * u * sqrt(sum over operations of roundings),   safety = 4
 *
 * (safety: three deviations, and the size of values differs within a tensor). Where a value decides
 * which way a gradient goes, at the kink of a relu or the maximum of a window, values closer to the
 * kink than their error go the wrong way: of normal ones a part of 0.8 * smooth, each an error of
 * its own size. So each such operation adds sqrt(0.8 * smooth), in quadrature:
 *
 *     bound = smooth + sqrt(kinks * 0.8 * smooth)
 *
 * Which class is largest may differ where two are near: those counts are not compared. */
#include "tests/gpu/cuda_case.h"

#include "base/config.h"
#include "base/err.h"
#include "cpu/reference.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const double float_roundoff = 0x1p-24;

/* Roundings to 16 bits that a value meets in an operation. */
static const double roundings[NNC_OP_COUNT] = {
    [NNC_OP_INPUT] = 1,  /* store */
    [NNC_OP_CONV] = 5,   /* weight and y; weight and dx; dw */
    [NNC_OP_LINEAR] = 5, /* the same */
    /* y, dx, and x - mean, which cancels up to a factor of about 4, both ways: 4^2 each. */
    [NNC_OP_NORM] = 34,
    [NNC_OP_ACT] = 3, /* y, dx, derivative of a rounded y */
    [NNC_OP_ADD] = 3, /* y, dx, dz */
    [NNC_OP_MAXPOOL] = 1,
    [NNC_OP_AVGPOOL] = 2,
    [NNC_OP_DROPOUT] = 2,
    [NNC_OP_LOSS] = 4, /* dx; p - t cancels */
};

static double bound_16(const struct nnc_case *row, double unit_roundoff) {
    struct nnc_graph *graph = nnc_graph_of_rows(row->input, row->rows);
    struct nnc_program *program = NULL;
    cr_assert_eq(
        nnc_program_create(&(struct nnc_program_params){graph, row->batch, true, 0}, &program), 0);
    double sum = 0;
    double kinks = 0;
    for (uint32_t number = 0; number < program->forward_count; number++) {
        const struct nnc_op *op = &program->ops[number];
        sum += roundings[op->kind] + (op->act != NNC_ACT_NONE ? roundings[NNC_OP_ACT] : 0);
        kinks += (op->kind == NNC_OP_MAXPOOL) + (op->act == NNC_ACT_RELU);
    }
    nnc_program_destroy(program);
    nnc_graph_of_rows_free(graph);
    double smooth = 4 * unit_roundoff * sqrt(sum);
    return smooth + sqrt(kinks * 0.8 * smooth);
}

/* Both results' counts of correct answers become one. */
static void forget_ranks(const struct nnc_case_result *wanted, struct nnc_case_result *got) {
    for (size_t number = 0; number < got->count; number++) {
        if (strstr(got->vectors[number].name, "correct")) {
            got->vectors[number].values[0] = wanted->vectors[number].values[0];
        }
    }
}

/* The first loss scale overflows in networks as small as these, by design, and skips a step. */
static int open_with_small_scale(const struct nnc_backend_params *params,
                                 struct nnc_backend **ret_backend) {
    const struct nnc_loss_scale scale = {.scale = 256};
    int rc = nnc_backend_cuda.open(params, ret_backend);
    return rc < 0 ? rc : nnc_backend_cuda.device->set_scale(*ret_backend, &scale);
}

static void compare(const struct nnc_case *row, double bound, bool ranks) {
    struct nnc_backend_ops small_scale = nnc_backend_cuda;
    struct nnc_case_result wanted;
    struct nnc_case_result got;
    char text[400];
    small_scale.open = open_with_small_scale;
    case_run(&nnc_backend_reference, row, &wanted);
    case_run(&small_scale, row, &got);
    if (!ranks) {
        forget_ranks(&wanted, &got);
    }
    bool agree = case_results_agree(&wanted, &got, bound, text, sizeof(text));
    cr_expect(agree, "%s: %s", row->name, text);
    case_result_free(&wanted);
    case_result_free(&got);
    cuda_case_expect_no_leak();
}

Test(cuda_cases, each_equals_the_reference_in_fp32, .timeout = 300) {
    for (const struct nnc_case *row = nnc_cases; row->name; row++) {
        cuda_case_configure("schedule=lazy", NNC_AMP_OFF);
        compare(row, case_bound(row, float_roundoff), true);
    }
}

Test(cuda_cases, each_equals_the_reference_in_bf16, .timeout = 300) {
    for (const struct nnc_case *row = nnc_cases; row->name; row++) {
        cuda_case_configure("schedule=lazy", NNC_AMP_BF16);
        compare(row, bound_16(row, 0x1p-8), false);
    }
}

Test(cuda_cases, each_equals_the_reference_in_fp16, .timeout = 300) {
    for (const struct nnc_case *row = nnc_cases; row->name; row++) {
        cuda_case_configure("schedule=lazy", NNC_AMP_FP16);
        compare(row, bound_16(row, 0x1p-11), false);
    }
}

/* Libraries that offer less: no algorithm with an epilogue, engines that fail when they run. */
Test(cuda_cases, what_libraries_do_not_offer_is_done_without, .timeout = 300) {
    static const char *const fakes[] = {"heuristic=plain", "faults=engine 0:0:fail",
                                        "faults=engine 2:0:fail"};
    for (size_t number = 0; number < sizeof(fakes) / sizeof(fakes[0]); number++) {
        const struct nnc_case *row = cuda_case_row("vgg in small");
        cuda_case_configure(fakes[number], NNC_AMP_OFF);
        compare(row, case_bound(row, float_roundoff), true);
    }
}

/* Algorithms are timed in the memory of the model, kept, and found again. */
Test(cuda_cases, timed_and_kept_algorithms_compute_the_same, .timeout = 300) {
    char directory[] = "/tmp/nncoord-plans-XXXXXX";
    char command[sizeof(directory) + 16];
    cr_assert_not_null(mkdtemp(directory));
    for (int round = 0; round < 2; round++) {
        const struct nnc_case *row = cuda_case_row("residual bottlenecks with projection");
        cuda_case_configure("schedule=lazy", NNC_AMP_OFF);
        case_device.autotune = 3;
        case_device.deterministic = false;
        case_device.cache_dir = directory;
        compare(row, case_bound(row, float_roundoff), true);
    }
    snprintf(command, sizeof(command), "rm -r %s/*", directory);
    cr_expect_eq(system(command), 0, "something was kept");
    cr_expect_eq(rmdir(directory), 0);
}

static void run_under(const char *fake, bool graphs, const struct nnc_case *row,
                      struct nnc_case_result *ret_result) {
    cuda_case_configure(fake, NNC_AMP_BF16);
    case_device.graphs = graphs;
    struct nnc_case_model model;
    case_model_open(&nnc_backend_cuda, row, &model);
    *ret_result = (struct nnc_case_result){0};
    cuda_case_train(&model, 4);
    for (uint32_t number = 0; number < model.graph->param_count; number++) {
        const struct nnc_param *param = &model.graph->params[number];
        float *values = case_record(ret_result, 0, param->count, "trained", param->name);
        cr_assert_eq(model.ops->get(model.backend, NNC_STATE_VALUE, number, values), 0);
    }
    case_model_close(&model);
    cuda_case_expect_no_leak();
}

/* The device runs what was queued at once, as late as it may, or in any order that events allow;
 * and a recorded step is the step. */
Test(cuda_cases, the_same_bits_in_every_order_and_with_graphs, .timeout = 600) {
    static const char *const rows[] = {"residual bottlenecks with projection", "alexnet in small"};
    static const char *const fakes[] = {"schedule=eager", "schedule=random,seed=1",
                                        "schedule=random,seed=2", "schedule=random,seed=3"};
    for (size_t which = 0; which < 2; which++) {
        struct nnc_case_result wanted;
        const struct nnc_case *row = cuda_case_row(rows[which]);
        run_under("schedule=lazy", false, row, &wanted);
        for (size_t number = 0; number < 8; number++) {
            struct nnc_case_result got;
            char text[400];
            run_under(fakes[number / 2], number % 2, row, &got);
            cr_expect(case_results_agree(&wanted, &got, 0, text, sizeof(text)), "%s, %s: %s",
                      row->name, fakes[number / 2], text);
            case_result_free(&got);
        }
        case_result_free(&wanted);
    }
}

/* Feed, step and update without waiting for anything. */
static void queue_steps(struct nnc_case_model *model, uint64_t first, uint32_t count) {
    const struct nnc_sgd sgd = {.lr = 0.01f, .momentum = 0.9f};
    const struct nnc_feed feed = {model->images, model->sample_stride, model->labels};
    struct nnc_executable *exe = model->executable[NNC_CASE_WHOLE];
    for (uint64_t step = first; step < first + count; step++) {
        const struct nnc_step_params params = {.step = step, .global_count = model->row->batch};
        cr_assert_eq(model->ops->feed(exe, &feed), 0, "%s", nnc_error_text());
        cr_assert_eq(model->ops->step(exe, &params), 0, "%s", nnc_error_text());
        cr_assert_eq(model->ops->update(model->backend, &sgd), 0, "%s", nnc_error_text());
    }
}

/* Compiling tries algorithms, which write weight gradients: none is left. */
static void expect_no_gradients(struct nnc_case_model *model) {
    for (uint32_t number = 0; number < model->graph->param_count; number++) {
        const struct nnc_param *param = &model->graph->params[number];
        float *values = calloc(param->count, sizeof(*values));
        cr_assert_eq(model->ops->get(model->backend, NNC_STATE_GRADIENT, number, values), 0);
        for (uint64_t place = 0; place < param->count; place++) {
            cr_assert_eq(values[place], 0, "a gradient of %s is left", param->name);
        }
        free(values);
    }
}

/* Steps, queued all at once; then a larger program is compiled, which moves the arena; then steps
 * of the first program again. */
static void run_with_larger_program(bool graphs, struct nnc_case_result *ret_result) {
    cuda_case_configure("schedule=lazy", NNC_AMP_OFF);
    case_device.graphs = graphs;
    struct nnc_case_model model;
    struct nnc_program *program = NULL;
    struct nnc_executable *larger = NULL;
    case_model_open(&nnc_backend_cuda, cuda_case_row("alexnet in small"), &model);
    const struct nnc_program_params params = {model.graph, 4 * model.row->batch, true, 0};
    *ret_result = (struct nnc_case_result){0};
    cr_assert_eq(nnc_program_create(&params, &program), 0);
    queue_steps(&model, 0, 4);
    cr_assert_eq(model.ops->compile(model.backend, program, &larger), 0, "%s", nnc_error_text());
    expect_no_gradients(&model);
    queue_steps(&model, 4, 4);
    struct nnc_metrics metrics;
    cr_assert_eq(model.ops->device->finish(model.backend), 0, "%s", nnc_error_text());
    cr_assert_eq(model.ops->poll(model.backend, &metrics), 0, "%s", nnc_error_text());
    cr_expect_eq(metrics.count + metrics.left_out, 8 * model.row->batch);
    *case_record(ret_result, 0, 1, "sum", "loss") = (float)metrics.loss_sum;
    for (uint32_t number = 0; number < model.graph->param_count; number++) {
        const struct nnc_param *param = &model.graph->params[number];
        float *values = case_record(ret_result, 1, param->count, "trained", param->name);
        cr_assert_eq(model.ops->get(model.backend, NNC_STATE_VALUE, number, values), 0);
    }
    model.ops->release(larger);
    nnc_program_destroy(program);
    case_model_close(&model);
    cuda_case_expect_no_leak();
}

Test(cuda_cases, a_larger_program_may_be_compiled_while_steps_are_under_way, .timeout = 120) {
    struct nnc_case_result wanted;
    struct nnc_case_result got;
    char text[400];
    run_with_larger_program(false, &wanted);
    run_with_larger_program(true, &got);
    cr_expect(case_results_agree(&wanted, &got, 0, text, sizeof(text)), "%s", text);
    case_result_free(&wanted);
    case_result_free(&got);
}
