/* SPDX-License-Identifier: Apache-2.0 */
/* Lowering and packing: what is fused, what lives how long, what is reduced when. */
#include "base/err.h"
#include "workers/graph_rows.h"
#include "workers/program.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

static struct nnc_program *lower(const struct nnc_graph *graph, bool training,
                                 size_t bucket_bytes) {
    struct nnc_program *program = NULL;
    int rc = nnc_program_create(&(struct nnc_program_params){graph, 4, training, bucket_bytes},
                                &program);
    cr_assert_eq(rc, 0, "%s", nnc_error_text());
    return program;
}

static void expect_text(const struct nnc_layer_row *rows, bool training, const char *wanted) {
    struct nnc_graph *graph = nnc_graph_of_rows((struct nnc_shape){3, 8, 8}, rows);
    struct nnc_program *program = lower(graph, training, 200);
    char *text = nnc_program_describe(program);
    cr_assert_str_eq(text, wanted, "got:\n%s", text);
    free(text);
    nnc_program_destroy(program);
    nnc_graph_of_rows_free(graph);
}

static const struct nnc_layer_row residual[] = {CONV(4, 3, 1, 1, false),
                                                BATCHNORM,
                                                RELU, /* 1 2 3 */
                                                CONV(4, 3, 1, 1, false),
                                                BATCHNORM,
                                                ADD(2),
                                                RELU, /* 4 5 6 7 */
                                                ADAPTIVE(1, 1),
                                                FLATTEN,
                                                DROPOUT(0.5),
                                                LINEAR(3, true),
                                                {0}}; /* 8 9 10 11 */

Test(program, training_fuses_reverses_accumulates_and_buckets) {
    expect_text(residual, true,
                "training, batch 4\n"
                "  0 INPUT: -> t0\n"
                "  1 CONV n1 3x3 stride 1x1 pad 1x1: t0 -> t1\n"
                "  2 NORM n2: t1 -> t2 relu\n"
                "  3 CONV n4 3x3 stride 1x1 pad 1x1: t2 -> t3\n"
                "  4 NORM n5: t3 + t2 -> t4 relu\n"
                "  5 AVGPOOL n8 adaptive: t4 -> t5\n"
                "  6 DROPOUT n10: t5 -> t6\n"
                "  7 LINEAR n11: t6 -> t7\n"
                "  8 LOSS: t7\n"
                "  9 LOSS': x t7 -> dx t8\n"
                " 10 LINEAR' n11: x t6 dy t8 -> dx t9\n"
                " 11 DROPOUT' n10: dy t9 -> dx t10\n"
                " 12 AVGPOOL' n8: dy t10 -> dx t11\n"
                " 13 NORM' n5: x t3 y t4 dy t11 -> dx t12 dz t13 relu\n"
                " 14 CONV' n4: x t2 dy t12 -> dx t13+\n"
                " 15 NORM' n2: x t1 y t2 dy t13 -> dx t14 relu\n"
                " 16 CONV' n1: x t0 dy t14\n"
                "t0 3x8x8 ops 0..16\n"
                "t1 4x8x8 ops 1..15 grad t14\n"
                "t2 4x8x8 ops 2..15 grad t13\n"
                "t3 4x8x8 ops 3..13 grad t12\n"
                "t4 4x8x8 ops 4..13 grad t11\n"
                "t5 4x1x1 ops 5..6 grad t10\n"
                "t6 4x1x1 ops 6..10 grad t9\n"
                "t7 3x1x1 flat ops 7..16 grad t8\n"
                "t8 3x1x1 flat gradient ops 9..10\n"
                "t9 4x1x1 gradient ops 10..11\n"
                "t10 4x1x1 gradient ops 11..12\n"
                "t11 4x8x8 gradient ops 12..13\n"
                "t12 4x8x8 gradient ops 13..14\n"
                "t13 4x8x8 gradient ops 13..15\n"
                "t14 4x8x8 gradient ops 15..16\n"
                "bucket 0 after 13: n11.weight n11.bias n5.weight n5.bias\n"
                "bucket 1 after 14: n4.weight\n"
                "bucket 2 after 15: n2.weight n2.bias\n"
                "bucket 3 after 16: n1.weight\n");
}

Test(program, inference_has_no_dropout_no_gradients_and_short_lives) {
    expect_text(residual, false,
                "inference, batch 4\n"
                "  0 INPUT: -> t0\n"
                "  1 CONV n1 3x3 stride 1x1 pad 1x1: t0 -> t1\n"
                "  2 NORM n2: t1 -> t2 relu\n"
                "  3 CONV n4 3x3 stride 1x1 pad 1x1: t2 -> t3\n"
                "  4 NORM n5: t3 + t2 -> t4 relu\n"
                "  5 AVGPOOL n8 adaptive: t4 -> t5\n"
                "  6 LINEAR n11: t5 -> t6\n"
                "  7 LOSS: t6\n"
                "t0 3x8x8 ops 0..1\n"
                "t1 4x8x8 ops 1..2\n"
                "t2 4x8x8 ops 2..4\n"
                "t3 4x8x8 ops 3..4\n"
                "t4 4x8x8 ops 4..5\n"
                "t5 4x1x1 ops 5..6\n"
                "t6 3x1x1 flat ops 6..7\n");
}

Test(program, a_value_with_two_readers_is_not_overwritten_by_fusion) {
    static const struct nnc_layer_row rows[] = {
        CONV(4, 1, 1, 0, true), RELU,    ADD(1),           BATCHNORM, TANH, ADD(1), ADD(0), SIGMOID,
        ADAPTIVE(8, 8),         FLATTEN, LINEAR(2, false), {0}};
    expect_text(rows, false,
                "inference, batch 4\n"
                "  0 INPUT: -> t0\n"
                "  1 CONV n1 1x1 stride 1x1 pad 0x0: t0 -> t1\n"
                "  2 ACT n2: t1 -> t2 relu\n"
                "  3 ADD n3: t2 + t1 -> t3\n"
                "  4 NORM n4: t3 -> t4\n"
                "  5 ACT n5: t4 -> t5 tanh\n"
                "  6 ADD n6: t5 + t4 -> t6\n"
                "  7 ADD n7: t6 + t6 -> t7 sigmoid\n"
                "  8 LINEAR n11: t7 -> t8\n"
                "  9 LOSS: t8\n"
                "t0 3x8x8 ops 0..1\n"
                "t1 4x8x8 ops 1..3\n"
                "t2 4x8x8 ops 2..3\n"
                "t3 4x8x8 ops 3..4\n"
                "t4 4x8x8 ops 4..6\n"
                "t5 4x8x8 ops 5..6\n"
                "t6 4x8x8 ops 6..7\n"
                "t7 4x8x8 ops 7..8\n"
                "t8 2x1x1 flat ops 8..9\n");
}

Test(program, a_norm_before_an_addition_waits_for_the_projected_shortcut) {
    static const struct nnc_layer_row rows[] = {CONV(4, 1, 1, 0, false),
                                                CONV(8, 3, 2, 1, false),
                                                BATCHNORM, /* 1 2 3 */
                                                CONV_BACK(8, 1, 2, 0, 2),
                                                BATCHNORM,
                                                ADD(2),
                                                RELU, /* 4 5 6 7 */
                                                LINEAR(2, false),
                                                {0}};
    struct nnc_graph *graph = nnc_graph_of_rows((struct nnc_shape){3, 8, 8}, rows);
    graph->nodes[6].input[0] = 3; /* body first, as ResNet writes it */
    graph->nodes[6].input[1] = 5;
    struct nnc_program *program = lower(graph, true, 0);
    cr_assert_eq(program->ops[5].kind, NNC_OP_NORM);
    cr_assert_eq(program->ops[5].node, 3, "the body's batch normalisation takes the addition");
    cr_assert_eq(program->ops[5].z, program->ops[4].y);
    cr_assert_eq(program->ops[5].act, NNC_ACT_RELU);
    cr_assert_eq(program->bucket_count, 1);
    cr_assert_eq(program->order_count, 8);
    nnc_program_destroy(program);
    nnc_graph_of_rows_free(graph);
}

Test(program, layers_before_the_first_parameter_have_no_backward) {
    static const struct nnc_layer_row rows[] = {
        MAXPOOL(2, 2, 0), SIGMOID, FLATTEN, LINEAR(2, false), {0}};
    struct nnc_graph *graph = nnc_graph_of_rows((struct nnc_shape){1, 4, 4}, rows);
    struct nnc_program *program = lower(graph, true, 0);
    cr_assert_eq(program->op_count - program->forward_count, 2);
    const struct nnc_op *last = &program->ops[program->op_count - 1];
    cr_assert_eq(last->kind, NNC_OP_LINEAR);
    cr_assert_eq(last->dx, -1);
    cr_assert_eq(program->tensors[last->x].shape.h, 2, "Linear reads the unflattened tensor");
    nnc_program_destroy(program);
    nnc_graph_of_rows_free(graph);
}

struct refusal {
    const char *what;
    struct nnc_shape input;
    bool training;
    const char *text;
    struct nnc_layer_row rows[6];
};

static const struct refusal refusals[] = {
    {"unread value",
     {3, 4, 4},
     false,
     "used by no other layer",
     {CONV(2, 1, 1, 0, false), CONV_BACK(2, 1, 1, 0, 1), LINEAR(2, false)}},
    {"spatial layer after Flatten",
     {3, 4, 4},
     false,
     "cannot follow Flatten",
     {FLATTEN, BATCHNORM, LINEAR(2, false)}},
    {"flattened plus unflattened",
     {3, 4, 4},
     false,
     "flattened value",
     {FLATTEN, LINEAR(48, false), ADD(1), LINEAR(2, false)}},
    {"no parameters", {3, 4, 4}, true, "no parameters", {ADAPTIVE(1, 1), FLATTEN}},
    {"image as logits", {3, 4, 4}, true, "one value per class", {CONV(2, 1, 1, 0, false)}},
};

Test(program, graphs_that_cannot_run_are_refused_with_the_layer) {
    for (size_t row = 0; row < sizeof(refusals) / sizeof(refusals[0]); row++) {
        const struct refusal *refusal = &refusals[row];
        struct nnc_graph *graph = nnc_graph_of_rows(refusal->input, refusal->rows);
        struct nnc_program *program = NULL;
        int rc = nnc_program_create(&(struct nnc_program_params){graph, 1, refusal->training, 0},
                                    &program);
        cr_assert_eq(rc, -NNC_E_USAGE, "%s", refusal->what);
        cr_assert_null(program, "%s", refusal->what);
        cr_assert(strstr(nnc_error_text(), refusal->text), "%s: %s", refusal->what,
                  nnc_error_text());
        nnc_graph_of_rows_free(graph);
    }
}

Test(program, one_value_per_channel_cannot_be_normalised_in_training) {
    static const struct nnc_layer_row rows[] = {BATCHNORM, LINEAR(2, false), {0}};
    struct nnc_graph *graph = nnc_graph_of_rows((struct nnc_shape){3, 1, 1}, rows);
    struct nnc_program *program = NULL;
    struct nnc_program_params params = {graph, 1, true, 0};
    cr_assert_eq(nnc_program_create(&params, &program), -NNC_E_USAGE);
    params.batch = 2;
    cr_assert_eq(nnc_program_create(&params, &program), 0, "%s", nnc_error_text());
    nnc_program_destroy(program);
    nnc_graph_of_rows_free(graph);
}
