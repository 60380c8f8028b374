/* SPDX-License-Identifier: Apache-2.0 */
/* Which keys of a file are which parameters. */
#include "base/err.h"
#include "workers/weights.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

static const char text[] = "input(1, 4, 4)\n"
                           "Sequential(model=Sequential(conv=Conv2d(1, 2, 3, bias=False),\n"
                           "    bn=BatchNorm2d(2)), Flatten(), fc=Linear(8, 3))";

static struct nnc_graph *graph;

static void make_graph(void) {
    int code =
        nnc_graph_create(&(struct nnc_graph_params){.path = "test.nn", .text = text}, &graph);
    cr_assert_eq(code, 0, "%s", nnc_error_text());
}

static void free_graph(void) {
    nnc_graph_destroy(graph);
}

TestSuite(weights, .init = make_graph, .fini = free_graph);

#define CONV                                                                                       \
    {                                                                                              \
        .rank = 4, .dims = { 2, 1, 3, 3 }                                                          \
    }
#define TWO                                                                                        \
    {                                                                                              \
        .rank = 1, .dims = { 2 }                                                                   \
    }

/* The tensors that fit, and room for more. */
struct fixture {
    struct nnc_safetensor tensors[16];
    struct nnc_safetensors file;
};

static struct fixture fitting(void) {
    struct fixture made = {.tensors = {CONV,
                                       TWO,
                                       TWO,
                                       TWO,
                                       TWO,
                                       {.rank = 0},
                                       {.rank = 2, .dims = {3, 8}},
                                       {.rank = 1, .dims = {3}}}};
    static const char *const names[] = {"model.conv.weight",
                                        "model.bn.weight",
                                        "model.bn.bias",
                                        "model.bn.running_mean",
                                        "model.bn.running_var",
                                        "model.bn.num_batches_tracked",
                                        "fc.weight",
                                        "fc.bias"};
    for (size_t i = 0; i < 8; i++) {
        made.tensors[i].name = names[i];
    }
    made.file.count = 8;
    return made;
}

static int match(struct fixture *fixture, bool strict, struct nnc_weights **ret_weights) {
    fixture->file.tensors = fixture->tensors;
    return nnc_weights_match(graph, &fixture->file, strict, ret_weights);
}

Test(weights, every_parameter_finds_its_tensor) {
    struct fixture fixture = fitting();
    struct nnc_weights *weights = NULL;
    cr_assert_eq(match(&fixture, true, &weights), 0, "%s", nnc_error_text());
    for (uint32_t i = 0; i < graph->param_count; i++) {
        int32_t tensor = weights->tensor_of_param[i];
        cr_assert_geq(tensor, 0);
        cr_expect_str_eq(fixture.tensors[tensor].name, graph->params[i].name);
    }
    cr_expect_str_eq(weights->report, "");
    nnc_weights_destroy(weights);
}

Test(weights, prefixes_of_wrappers_are_taken_off_in_any_order) {
    static const char *const prefixes[] = {"module.", "_orig_mod.", "model.", "module._orig_mod.",
                                           "_orig_mod.module.model."};
    for (size_t p = 0; p < sizeof(prefixes) / sizeof(prefixes[0]); p++) {
        struct fixture fixture = fitting();
        char names[8][96];
        for (size_t i = 0; i < 8; i++) {
            snprintf(names[i], sizeof(names[i]), "%s%s", prefixes[p], fixture.tensors[i].name);
            fixture.tensors[i].name = names[i];
        }
        struct nnc_weights *weights = NULL;
        cr_expect_eq(match(&fixture, true, &weights), 0, "%s: %s", prefixes[p], nnc_error_text());
        nnc_weights_destroy(weights);
    }
}

Test(weights, an_exact_name_wins_over_a_stripped_one) {
    struct fixture fixture = fitting();
    fixture.tensors[8] = fixture.tensors[6];
    fixture.tensors[6].name = "module.fc.weight";
    fixture.file.count = 9;
    struct nnc_weights *weights = NULL;
    cr_expect_eq(match(&fixture, true, &weights), -NNC_E_USAGE);
    cr_assert_not_null(weights);
    cr_expect_eq(weights->tensor_of_param[nnc_graph_find_param(graph, "fc.weight")], 8);
    cr_expect_str_eq(weights->report, "1 unexpected: module.fc.weight");
    nnc_weights_destroy(weights);
}

Test(weights, what_does_not_fit_is_listed_in_three_lists) {
    struct fixture fixture = fitting();
    fixture.tensors[0].name = "model.conf.weight\x1b[2J";
    fixture.tensors[1].dims[0] = 5;
    fixture.tensors[7].rank = 0;
    struct nnc_weights *weights = NULL;
    cr_expect_eq(match(&fixture, true, &weights), -NNC_E_USAGE);
    cr_assert_not_null(weights);
    cr_expect_eq(weights->missing, 1);
    cr_expect_eq(weights->unexpected, 1);
    cr_expect_eq(weights->misshaped, 2);
    cr_expect_str_eq(weights->report,
                     "1 missing: model.conv.weight; 1 unexpected: model.conf.weight\\x1b[2J; "
                     "2 of another shape: model.bn.weight (5 in the file, 2 in the model), "
                     "fc.bias (scalar in the file, 3 in the model)");
    cr_expect_not_null(strstr(nnc_error_text(), weights->report));
    nnc_weights_destroy(weights);
}

Test(weights, long_lists_are_cut_and_counted) {
    struct fixture fixture = fitting();
    fixture.file.count = 1;
    struct nnc_weights *weights = NULL;
    cr_expect_eq(match(&fixture, true, &weights), -NNC_E_USAGE);
    cr_expect_str_eq(weights->report, "6 missing: model.bn.weight, model.bn.bias, "
                                      "model.bn.running_mean, model.bn.running_var, ...");
    nnc_weights_destroy(weights);
}

Test(weights, only_the_head_may_differ_when_not_strict) {
    struct fixture fixture = fitting();
    fixture.tensors[6].dims[0] = fixture.tensors[7].dims[0] = 1000;
    struct nnc_weights *weights = NULL;
    cr_expect_eq(match(&fixture, true, &weights), -NNC_E_USAGE);
    nnc_weights_destroy(weights);
    cr_expect_eq(match(&fixture, false, &weights), 0, "%s", nnc_error_text());
    cr_expect_eq(weights->head_skipped, 2);
    cr_expect_eq(weights->tensor_of_param[nnc_graph_find_param(graph, "fc.weight")], -1);
    cr_expect_geq(weights->tensor_of_param[0], 0);
    nnc_weights_destroy(weights);
    fixture.tensors[1].dims[0] = 5;
    cr_expect_eq(match(&fixture, false, &weights), -NNC_E_USAGE);
    cr_expect_eq(weights->misshaped, 1);
    nnc_weights_destroy(weights);
}
