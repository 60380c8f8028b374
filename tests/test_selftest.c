/* SPDX-License-Identifier: Apache-2.0 */
/* The self-test must be green on a right backend and name what is wrong with a wrong one. Wrong
 * backends are the reference with one function of its table exchanged. */
#include "base/err.h"
#include "cpu/reference.h"
#include "workers/selftest.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
    LINES_MAX = 32,
    PROGRAMS_MAX = 1024,
};

static const struct nnc_backend_ops *const right = &nnc_backend_reference;

struct lines {
    struct nnc_selftest_line item[LINES_MAX];
    uint32_t count;
};

static void keep_line(void *context, const struct nnc_selftest_line *line) {
    struct lines *lines = context;
    cr_assert_lt(lines->count, LINES_MAX);
    lines->item[lines->count++] = *line;
}

static struct nnc_selftest_params params_of(const struct nnc_backend_ops *ops,
                                            struct lines *lines) {
    *lines = (struct lines){.count = 0};
    return (struct nnc_selftest_params){
        .ops = ops, .reference = right, .ranks = 1, .on_line = keep_line, .context = lines};
}

static const struct nnc_selftest_line *find(const struct lines *lines, const char *check) {
    for (uint32_t i = 0; i < lines->count; i++) {
        if (strcmp(lines->item[i].check, check) == 0) {
            return &lines->item[i];
        }
    }
    cr_assert(false, "there is no line '%s'", check);
    return NULL;
}

static void expect(const struct lines *lines, const char *check, enum nnc_selftest_status status) {
    const struct nnc_selftest_line *line = find(lines, check);
    cr_expect_eq(line->status, status, "%s: status %d: %s", check, (int)line->status, line->text);
}

/* ---- a right backend ---- */

Test(selftest, is_green_on_the_reference, .timeout = 120) {
    struct lines lines;
    struct nnc_selftest_params params = params_of(right, &lines);
    uint32_t cases = 0, groups = 0, rows = 0;
    cr_assert_eq(nnc_selftest_device(&params), 0);
    for (; nnc_case_groups[groups].title != NULL; groups++) {
        cr_expect_str_eq(lines.item[groups].check, nnc_case_groups[groups].title);
        cr_expect_eq(lines.item[groups].error, 0);
        cr_expect_gt(lines.item[groups].limit, 0);
        cases += lines.item[groups].cases;
    }
    while (nnc_cases[rows].name != NULL) {
        rows++;
    }
    cr_expect_eq(cases, rows, "every case stands in a group");
    cr_expect_eq(lines.count, groups + 2);
}

Test(selftest, limits_grow_with_coarser_types_and_count_exactly_in_fp32) {
    struct nnc_graph *graph;
    struct nnc_program *program;
    struct nnc_case_limits last = {0};
    cr_assert_eq(nnc_case_lower(&nnc_cases[0], &graph, &program), 0);
    for (int precision = NNC_PRECISION_FP32; precision <= NNC_PRECISION_BF16; precision++) {
        struct nnc_case_limits limits;
        nnc_case_limits(program, (enum nnc_precision)precision, &limits);
        cr_expect_gt(limits.value, last.value);
        cr_expect_gt(limits.gradient, last.gradient);
        cr_expect_eq(limits.ranking, precision == NNC_PRECISION_FP32 ? 0 : 1);
        last = limits;
    }
    nnc_program_destroy(program);
    nnc_graph_of_rows_free(graph);
}

/* ---- one wrong operation ---- */

static struct nnc_program *spoiled[PROGRAMS_MAX];
static struct nnc_op *spoiled_ops[PROGRAMS_MAX];
static uint32_t spoiled_count;

/* Max pooling takes the mean, forward and backward. */
static int compile_means(struct nnc_backend *backend, const struct nnc_program *program,
                         struct nnc_executable **ret_executable) {
    cr_assert_lt(spoiled_count, PROGRAMS_MAX);
    struct nnc_program *copy = malloc(sizeof(*copy));
    struct nnc_op *ops = malloc(program->op_count * sizeof(*ops));
    cr_assert(copy != NULL && ops != NULL);
    memcpy(ops, program->ops, program->op_count * sizeof(*ops));
    for (uint32_t number = 0; number < program->op_count; number++) {
        if (ops[number].kind == NNC_OP_MAXPOOL) {
            ops[number].kind = NNC_OP_AVGPOOL;
        }
    }
    *copy = *program;
    copy->ops = ops;
    spoiled[spoiled_count] = copy;
    spoiled_ops[spoiled_count++] = ops;
    return right->compile(backend, copy, ret_executable);
}

static void free_spoiled(void) {
    for (uint32_t i = 0; i < spoiled_count; i++) {
        free(spoiled[i]);
        free(spoiled_ops[i]);
    }
}

Test(selftest, fails_and_names_the_operator_that_is_wrong, .timeout = 120) {
    struct nnc_backend_ops wrong = *right;
    struct lines lines;
    struct nnc_selftest_params params = params_of(&wrong, &lines);
    wrong.compile = compile_means;
    cr_assert_gt(nnc_selftest_device(&params), 0);
    expect(&lines, "max pooling", NNC_SELFTEST_FAIL);
    const struct nnc_selftest_line *line = find(&lines, "max pooling");
    cr_expect_not_null(strstr(line->text, "maxpool 2: step 1 logits"), "%s", line->text);
    cr_expect_gt(line->error, line->limit);
    cr_expect_eq(line->cases, 4, "the other cases are still run");
    expect(&lines, "convolutions", NNC_SELFTEST_OK);
    expect(&lines, "batch normalisation", NNC_SELFTEST_OK);
    expect(&lines, "average pooling", NNC_SELFTEST_OK);
    expect(&lines, "two runs give the same bits", NNC_SELFTEST_OK);
    free_spoiled();
}

/* In 16 bits a wrong operation must still be far outside of the limits. */
Test(selftest, sees_a_wrong_operator_at_the_limits_of_every_precision, .timeout = 120) {
    struct nnc_backend_ops wrong = *right;
    struct lines lines;
    struct nnc_selftest_params params = params_of(&wrong, &lines);
    wrong.compile = compile_means;
    params.precision = NNC_PRECISION_BF16;
    cr_assert_gt(nnc_selftest_device(&params), 0);
    expect(&lines, "max pooling", NNC_SELFTEST_FAIL);
    expect(&lines, "convolutions", NNC_SELFTEST_OK);
    free_spoiled();
}

/* ---- other faults ---- */

static int update_without_momentum(struct nnc_backend *backend, const struct nnc_sgd *sgd) {
    struct nnc_sgd plain = *sgd;
    plain.momentum = 0;
    return right->update(backend, &plain);
}

static int silent_get(struct nnc_backend *backend, enum nnc_state state, uint32_t param,
                      float *ret_values) {
    return state == NNC_STATE_GRADIENT ? 0 : right->get(backend, state, param, ret_values);
}

static int drifting_get(struct nnc_backend *backend, enum nnc_state state, uint32_t param,
                        float *ret_values) {
    static uint32_t calls;
    int code = right->get(backend, state, param, ret_values);
    ret_values[0] *= 1 + 1e-7f * (float)(calls++ % 2);
    return code;
}

static int set_but_momentum(struct nnc_backend *backend, enum nnc_state state, uint32_t param,
                            const float *values) {
    return state == NNC_STATE_MOMENTUM ? 0 : right->set(backend, state, param, values);
}

static int failing_update(struct nnc_backend *backend, const struct nnc_sgd *sgd) {
    (void)backend;
    (void)sgd;
    return nnc_fail(-NNC_E_HARDWARE, "the device fell off the bus");
}

Test(selftest, each_fault_fails_its_check, .timeout = 240) {
    struct nnc_backend_ops wrong[5] = {*right, *right, *right, *right, *right};
    static const char *const checks[5] = {"linear layers, losses", "linear layers, losses",
                                          "two runs give the same bits",
                                          "weights and momentum go in and out", "convolutions"};
    static const char *const said[5] = {"step 2", "gradient 1", "differs", "state 2",
                                        "off the bus"};
    wrong[0].update = update_without_momentum;
    wrong[1].get = silent_get;
    wrong[2].get = drifting_get;
    wrong[3].set = set_but_momentum;
    wrong[4].update = failing_update;
    for (int i = 0; i < 5; i++) {
        struct lines lines;
        struct nnc_selftest_params params = params_of(&wrong[i], &lines);
        cr_expect_gt(nnc_selftest_device(&params), 0, "%s", said[i]);
        expect(&lines, checks[i], NNC_SELFTEST_FAIL);
        const char *text = find(&lines, checks[i])->text;
        cr_expect_not_null(strstr(text, said[i]), "%s is not in: %s", said[i], text);
    }
}

/* ---- devices ---- */

static bool opened_with_graphs, pin_is_refused;
static uint64_t feeds;

static int open_device(const struct nnc_backend_params *params, struct nnc_backend **ret_backend) {
    opened_with_graphs = params->device.graphs;
    feeds = 0;
    return right->open(params, ret_backend);
}

static int feed_device(struct nnc_executable *executable, const struct nnc_feed *feed) {
    feeds++;
    return right->feed(executable, feed);
}

static int update_stale_graph(struct nnc_backend *backend, const struct nnc_sgd *sgd) {
    struct nnc_sgd stale = *sgd;
    stale.lr *= opened_with_graphs ? 1.5f : 1;
    return right->update(backend, &stale);
}

static int device_pin(struct nnc_backend *backend, void *memory, size_t bytes) {
    (void)backend;
    (void)memory;
    (void)bytes;
    return pin_is_refused ? nnc_fail(-ENOTSUP, "pages stay where they are") : 0;
}

static void device_unpin(struct nnc_backend *backend, void *memory) {
    (void)backend;
    (void)memory;
}

static int device_fed(struct nnc_backend *backend, uint64_t *ret_feeds) {
    (void)backend;
    *ret_feeds = feeds;
    return 0;
}

static int device_finish(struct nnc_backend *backend) {
    (void)backend;
    return 0;
}

static int device_get_scale(struct nnc_backend *backend, struct nnc_loss_scale *ret_scale) {
    (void)backend;
    *ret_scale = (struct nnc_loss_scale){.scale = 1};
    return 0;
}

static const struct nnc_device_ops device = {.pin = device_pin,
                                             .unpin = device_unpin,
                                             .fed = device_fed,
                                             .finish = device_finish,
                                             .get_scale = device_get_scale};

static struct nnc_backend_ops device_backend(void) {
    struct nnc_backend_ops ops = *right;
    ops.open = open_device;
    ops.feed = feed_device;
    ops.bucket = NULL;
    ops.device = &device;
    return ops;
}

Test(selftest, of_a_device_pins_memory_and_replays_steps, .timeout = 120) {
    struct nnc_backend_ops ops = device_backend();
    struct lines lines;
    struct nnc_selftest_params params = params_of(&ops, &lines);
    cr_expect_eq(nnc_selftest_device(&params), 0);
    expect(&lines, "pinned memory gives the same bits", NNC_SELFTEST_OK);
    expect(&lines, "recorded steps give the same bits", NNC_SELFTEST_OK);
    pin_is_refused = true;
    ops.update = update_stale_graph;
    params = params_of(&ops, &lines);
    cr_expect_eq(nnc_selftest_device(&params), 1);
    expect(&lines, "pinned memory gives the same bits", NNC_SELFTEST_SKIPPED);
    expect(&lines, "recorded steps give the same bits", NNC_SELFTEST_FAIL);
    cr_expect_not_null(strstr(find(&lines, "pinned memory gives the same bits")->text,
                              "pages stay where they are"));
}

/* ---- ranks ---- */

/* A bucket whose last value is forgotten. */
static int short_bucket(struct nnc_backend *backend, uint32_t bucket, float **ret_values,
                        size_t *ret_count) {
    int code = right->bucket(backend, bucket, ret_values, ret_count);
    *ret_count -= code >= 0 && *ret_count > 1;
    return code;
}

Test(selftest, of_ranks_sums_and_survives_one_that_gives_nothing, .timeout = 120) {
    struct lines lines;
    struct nnc_selftest_params params = params_of(right, &lines);
    params.ranks = 3;
    cr_expect_eq(nnc_selftest_ranks(&params), 0);
    expect(&lines, "sums over ranks", NNC_SELFTEST_OK);
    expect(&lines, "ranks leave when one gives nothing", NNC_SELFTEST_OK);
}

Test(selftest, of_ranks_fails_when_a_sum_lacks_values, .timeout = 120) {
    struct nnc_backend_ops wrong = *right;
    struct lines lines;
    struct nnc_selftest_params params = params_of(&wrong, &lines);
    params.ranks = 2;
    wrong.bucket = short_bucket;
    cr_expect_eq(nnc_selftest_ranks(&params), 1);
    expect(&lines, "sums over ranks", NNC_SELFTEST_FAIL);
    cr_expect_not_null(strstr(find(&lines, "sums over ranks")->text, "gradient"));
}
