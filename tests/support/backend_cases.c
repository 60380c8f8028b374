/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/backend_cases.h"

#include "base/err.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

struct nnc_device_params case_device;

static struct nnc_case_params params_of(const struct nnc_backend_ops *ops) {
    return (struct nnc_case_params){.ops = ops, .device = case_device};
}

void case_model_open(const struct nnc_backend_ops *ops, const struct nnc_case *row,
                     struct nnc_case_model *ret_model) {
    const struct nnc_case_params params = params_of(ops);
    cr_assert_eq(nnc_case_open(&params, row, ret_model), 0, "%s on %s: %s", row->name, ops->name,
                 nnc_error_text());
}

void case_model_close(struct nnc_case_model *model) {
    nnc_case_close(model);
}

struct nnc_metrics case_model_step(struct nnc_case_model *model, enum nnc_case_program which,
                                   uint64_t step) {
    struct nnc_metrics metrics;
    cr_assert_eq(nnc_case_step(model, which, step, &metrics), 0, "%s on %s: %s", model->row->name,
                 model->ops->name, nnc_error_text());
    return metrics;
}

void case_run(const struct nnc_backend_ops *ops, const struct nnc_case *row,
              struct nnc_case_result *ret_result) {
    const struct nnc_case_params params = params_of(ops);
    cr_assert_eq(nnc_case_run(&params, row, ret_result), 0, "%s on %s: %s", row->name, ops->name,
                 nnc_error_text());
}

void case_result_free(struct nnc_case_result *result) {
    nnc_case_result_free(result);
}

float *case_record(struct nnc_case_result *result, int group, size_t count, const char *title,
                   const char *name) {
    float *values = nnc_case_record(result, group, count, title, name);
    cr_assert_not_null(values);
    memset(values, 0, count * sizeof(*values));
    return values;
}

double case_bound(const struct nnc_case *row, double unit_roundoff) {
    struct nnc_graph *graph;
    struct nnc_program *program;
    cr_assert_eq(nnc_case_lower(row, &graph, &program), 0, "%s: %s", row->name, nnc_error_text());
    double bound = nnc_case_bound(program, unit_roundoff);
    nnc_program_destroy(program);
    nnc_graph_of_rows_free(graph);
    return bound;
}

bool case_results_agree(const struct nnc_case_result *wanted, const struct nnc_case_result *got,
                        double bound, char *ret_text, size_t bytes) {
    const struct nnc_case_limits limits = {.value = bound, .gradient = bound};
    struct nnc_case_verdict verdict;
    nnc_case_compare(wanted, got, &limits, &verdict);
    snprintf(ret_text, bytes, "%s", verdict.text);
    return verdict.agree;
}
