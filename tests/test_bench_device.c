/* SPDX-License-Identifier: Apache-2.0 */
/* What bench gpu makes of a program: which operations there are, what they must do, and whose
 * published figures are shown. Speeds themselves are nobody's to test. */
#include "base/err.h"
#include "cpu/reference.h"
#include "workers/bench_device.h"
#include "workers/graph_rows.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

static const struct nnc_bench_ceilings ceilings = {.feed = 1e9, .copy = 1e9, .matrix = 1e9};

static const struct nnc_bench_target target = {
    .ops = &nnc_backend_reference, .value_bytes = 4, .repeats = 1};

/* Every kind of operation that a program has, some of them twice. */
static const struct nnc_layer_row rows[] = {CONV(4, 3, 1, 1, true),
                                            RELU,
                                            CONV(4, 3, 1, 1, false),
                                            BATCHNORM,
                                            ADD(2),
                                            RELU,
                                            CONV(4, 3, 1, 1, false),
                                            BATCHNORM,
                                            ADD(2),
                                            RELU,
                                            MAXPOOL(2, 2, 0),
                                            TANH,
                                            AVGPOOL(2, 2, 0),
                                            ADD(0),
                                            FLATTEN,
                                            LINEAR(6, true),
                                            SIGMOID,
                                            DROPOUT(0.5),
                                            LINEAR(3, true),
                                            {0}};

static void measure(struct nnc_bench_op **ret_ops, uint32_t *ret_count) {
    struct nnc_graph *graph = nnc_graph_of_rows((struct nnc_shape){3, 8, 8}, rows);
    const struct nnc_program_params params = {graph, 2, true, 0};
    struct nnc_program *program;
    cr_assert_eq(nnc_program_create(&params, &program), 0, "%s", nnc_error_text());
    cr_assert_eq(nnc_bench_ops(&target, program, &ceilings, ret_ops, ret_count), 0, "%s",
                 nnc_error_text());
    nnc_program_destroy(program);
    nnc_graph_of_rows_free(graph);
}

static const struct nnc_bench_op *find(const struct nnc_bench_op *ops, uint32_t count,
                                       const char *name) {
    for (uint32_t i = 0; i < count; i++) {
        if (strcmp(ops[i].name, name) == 0) {
            return &ops[i];
        }
    }
    cr_assert(false, "there is no %s", name);
    return NULL;
}

Test(bench_device, each_operation_is_measured_once_and_counted, .timeout = 60) {
    struct nnc_bench_op *ops;
    uint32_t count;
    measure(&ops, &count);
    cr_expect_eq(count, 10);
    cr_expect_eq(find(ops, count, "CONV 3x3/1 4x8x8 -> 4x8x8")->count, 2);
    cr_expect_eq(find(ops, count, "NORM 4x8x8 -> 4x8x8 +z relu")->count, 2);
    cr_expect_eq(find(ops, count, "CONV 3x3/1 3x8x8 -> 4x8x8 relu")->count, 1);
    for (uint32_t i = 0; i < count; i++) {
        cr_expect_geq(ops[i].seconds, 0, "%s", ops[i].name);
        cr_expect_gt(ops[i].floor, 0, "%s", ops[i].name);
    }
    free(ops);
}

Test(bench_device, floors_count_products_and_tensors, .timeout = 60) {
    struct nnc_bench_op *ops;
    uint32_t count;
    measure(&ops, &count);
    /* Of 2 samples. The first convolution needs no gradient of the image: two products. */
    const struct nnc_bench_op *first = find(ops, count, "CONV 3x3/1 3x8x8 -> 4x8x8 relu");
    const struct nnc_bench_op *inner = find(ops, count, "CONV 3x3/1 4x8x8 -> 4x8x8");
    const struct nnc_bench_op *norm = find(ops, count, "NORM 4x8x8 -> 4x8x8 +z relu");
    cr_expect_eq(first->flops, 2 * 2.0 * 2 * 64 * 4 * 27);
    cr_expect_eq(inner->flops, 3 * 2.0 * 2 * 64 * 4 * 36);
    cr_expect_eq(first->bytes, 4.0 * (2 * 2 * 64 * 3 + 3 * 2 * 64 * 4 + 3 * 4 * 27));
    cr_expect_eq(inner->bytes, 4.0 * (6 * 2 * 64 * 4 + 3 * 4 * 36));
    cr_expect_eq(norm->bytes, 4.0 * 10 * 2 * 64 * 4);
    cr_expect_float_eq(inner->floor, inner->flops / 1e9, 1e-12);
    cr_expect_float_eq(norm->floor, norm->bytes / 1e9, 1e-12);
    free(ops);
}

Test(bench_device, times_of_a_graph_are_positive, .timeout = 60) {
    struct nnc_graph *graph = nnc_graph_of_rows((struct nnc_shape){3, 8, 8}, rows);
    struct nnc_bench_times times;
    cr_assert_eq(nnc_bench_graph(&target, graph, 2, &times), 0, "%s", nnc_error_text());
    cr_expect(times.feed > 0 && times.step > 0 && times.update > 0 && times.whole > 0);
    cr_expect_gt(times.memory, 0);
    nnc_graph_of_rows_free(graph);
}

Test(bench_device, published_figures_are_of_the_very_device) {
    static const struct {
        const char *name;
        bool is_3090, is_a100;
    } names[] = {
        {"NVIDIA GeForce RTX 3090", true, false},
        {"NVIDIA GeForce RTX 3090 Ti", false, false},
        {"NVIDIA GeForce RTX 3090 Laptop GPU", false, false},
        {"NVIDIA A100-SXM4-40GB", false, true},
        {"NVIDIA A100 80GB PCIe", false, true},
        {"NVIDIA A100X", false, false},
    };
    const struct nnc_published rtx3090 = {.device = "RTX 3090"}, a100 = {.device = "A100"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        cr_expect_eq(nnc_published_is_of(&rtx3090, names[i].name), names[i].is_3090, "%s",
                     names[i].name);
        cr_expect_eq(nnc_published_is_of(&a100, names[i].name), names[i].is_a100, "%s",
                     names[i].name);
    }
}

Test(bench_device, every_published_figure_says_whose_it_is) {
    for (const struct nnc_published *row = nnc_published; row->device != NULL; row++) {
        cr_expect(row->lowest > 0 && row->highest >= row->lowest, "%s", row->device);
        cr_expect(row->source[0] != '\0' && row->model[0] != '\0', "%s", row->device);
    }
}
