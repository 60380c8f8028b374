/* SPDX-License-Identifier: Apache-2.0 */
/* Running a case and comparing its results; the table itself is in backend_case_table.c.
 *
 * The bound. u is the unit roundoff of the type that tensors and sums have. A sum of L products in
 * that type has a relative error of about sqrt(L) u (random walk; L u at worst, which no
 * implementation with vector lanes comes near). Errors of successive operations add up, forward and
 * backward. So
 *
 *     bound = safety * u * sum over forward operations of (own + 2 sqrt(L)),   safety = 2
 *
 * with L the longest sum of the operation's three passes and `own` from the table below, where the
 * reason stands. Step 2 starts from weights that differ by the errors of step 1 times the learning
 * rate, which the safety factor covers. */
#include "tests/support/backend_cases.h"

#include "base/err.h"
#include "base/rng.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    BUCKETS_MAX = 128
};

/* Roundings of one value of an operation that are not in a sum. */
static const double own_errors[NNC_OP_COUNT] = {
    [NNC_OP_INPUT] = 3,  /* / 255, - mean, / std */
    [NNC_OP_CONV] = 2,   /* bias, store */
    [NNC_OP_LINEAR] = 2, /* the same */
    /* x - mean cancels up to a factor of about 4 where a channel's offset is some deviations; 6
     * roundings forward and backward each. */
    [NNC_OP_NORM] = 24,
    [NNC_OP_ACT] = 8, /* exp and tanh are good to some units in the last place */
    [NNC_OP_ADD] = 1,
    [NNC_OP_MAXPOOL] = 1, /* overlapping windows add gradients */
    [NNC_OP_AVGPOOL] = 2,
    [NNC_OP_DROPOUT] = 1,
    [NNC_OP_LOSS] = 8, /* exp and log; p - t cancels */
};

struct nnc_device_params case_device;

static double longest_sum(const struct nnc_program *program, const struct nnc_op *op) {
    if (op->kind == NNC_OP_INPUT || op->kind == NNC_OP_LOSS) {
        return 1;
    }
    struct nnc_shape in = program->tensors[op->x].shape;
    struct nnc_shape out = program->tensors[op->y].shape;
    double pixels = (double)program->batch * out.h * out.w;
    double taps = (double)op->window.r * op->window.s;
    switch (op->kind) {
    case NNC_OP_CONV:
        return fmax(pixels, taps * fmax(in.c, out.c));
    case NNC_OP_LINEAR:
        return fmax(program->batch, fmax(out.c, (double)in.c * in.h * in.w));
    case NNC_OP_NORM:
        return pixels;
    case NNC_OP_AVGPOOL:
        return op->adaptive ? (double)in.h * in.w : taps;
    default:
        return 1;
    }
}

double case_bound(const struct backend_case *row, double unit_roundoff) {
    struct nnc_graph *graph = graph_builder_make(row->input, row->rows);
    struct nnc_program *program = NULL;
    int rc = nnc_program_create(&(struct nnc_program_params){graph, row->batch, true, 0}, &program);
    cr_assert_eq(rc, 0, "%s: %s", row->name, nnc_error_text());
    double sum = 0;
    for (uint32_t number = 0; number < program->forward_count; number++) {
        const struct nnc_op *op = &program->ops[number];
        sum += own_errors[op->kind] + 2 * sqrt(longest_sum(program, op));
        sum += op->act != NNC_ACT_NONE ? own_errors[NNC_OP_ACT] : 0;
    }
    nnc_program_destroy(program);
    graph_builder_free(graph);
    return 2 * unit_roundoff * sum;
}

/* Weights of deviation sqrt(1 / inputs), so that logits stay near 1 and no loss saturates;
 * normalisation around 1, everything else small. */
static void set_param(struct case_model *model, uint32_t number) {
    const struct nnc_param *param = &model->graph->params[number];
    struct nnc_rng rng = nnc_rng_make(11, NNC_RNG_INIT, number, 0);
    float *values = calloc(param->count, sizeof(*values));
    bool positive = strstr(param->name, "running_var") != NULL;
    double scale = 0.2;
    if (param->kind == NNC_PARAM_WEIGHT) {
        scale = sqrt(param->dims[0] / (double)param->count);
    }
    bool around_one = positive || strstr(param->name, "weight");
    double shift = around_one && param->kind != NNC_PARAM_WEIGHT ? 1 : 0;
    for (uint64_t place = 0; place < param->count; place++) {
        double draw = nnc_rng_normal(&rng);
        values[place] = (float)(shift + scale * (positive ? fabs(draw) : draw));
    }
    cr_assert_eq(model->ops->set(model->backend, NNC_STATE_VALUE, number, values), 0);
    free(values);
}

static void compile(struct case_model *model, enum case_program which, uint32_t batch) {
    const struct nnc_program_params params = {model->graph, batch, which != CASE_EVAL, 64};
    int rc = nnc_program_create(&params, &model->program[which]);
    if (rc < 0 && which == CASE_SMALL) {
        return;
    }
    cr_assert_eq(rc, 0, "%s: %s", model->row->name, nnc_error_text());
    rc = model->ops->compile(model->backend, model->program[which], &model->executable[which]);
    cr_assert_eq(rc, 0, "%s on %s: %s", model->row->name, model->ops->name, nnc_error_text());
}

static void make_samples(struct case_model *model) {
    const struct backend_case *row = model->row;
    struct nnc_rng rng = nnc_rng_make(12, NNC_RNG_SYNTHETIC, 0, 0);
    model->sample_stride = (size_t)row->input.c * row->input.h * row->input.w + 5;
    model->images = calloc(row->batch, model->sample_stride);
    model->labels = calloc(row->batch, sizeof(*model->labels));
    for (size_t place = 0; place < row->batch * model->sample_stride; place++) {
        model->images[place] = (uint8_t)nnc_rng_below(&rng, 256);
    }
    for (uint32_t n = 0; n < row->batch; n++) {
        bool left_out = row->unlabelled && n == 0;
        int32_t label = (int32_t)nnc_rng_below(&rng, model->graph->classes);
        model->labels[n] = left_out ? -1 : label;
    }
}

void case_model_open(const struct nnc_backend_ops *ops, const struct backend_case *row,
                     struct case_model *ret_model) {
    struct case_model model = {.ops = ops, .row = row};
    model.graph = graph_builder_make(row->input, row->rows);
    const struct nnc_backend_params params = {.graph = model.graph,
                                              .threads = 2,
                                              .ranks = 1,
                                              .device = case_device,
                                              .loss = row->loss,
                                              .label_smoothing = row->smoothing,
                                              .seed = 99,
                                              .mean = {0.5, 0.4, 0.45},
                                              .std = {0.25, 0.3, 0.2}};
    cr_assert_eq(ops->open(&params, &model.backend), 0, "%s", nnc_error_text());
    for (uint32_t number = 0; number < model.graph->param_count; number++) {
        set_param(&model, number);
    }
    compile(&model, CASE_WHOLE, row->batch);
    compile(&model, CASE_SMALL, row->batch > 1 ? row->batch - 1 : 1);
    compile(&model, CASE_EVAL, row->batch);
    make_samples(&model);
    *ret_model = model;
}

void case_model_close(struct case_model *model) {
    for (int which = 0; which < 3; which++) {
        model->ops->release(model->executable[which]);
        nnc_program_destroy(model->program[which]);
    }
    model->ops->close(model->backend);
    graph_builder_free(model->graph);
    free(model->images);
    free(model->labels);
}

/* Copies of the buckets as they were when announced. */
struct bucket_log {
    struct case_model *model;
    uint32_t announced;
    float *copies[BUCKETS_MAX];
    size_t counts[BUCKETS_MAX];
};

static void on_bucket(void *context, uint32_t bucket) {
    struct bucket_log *log = context;
    cr_assert_eq(bucket, log->announced, "buckets come in order");
    cr_assert_lt(bucket, BUCKETS_MAX);
    float *values = NULL;
    size_t count = 0;
    cr_assert_eq(log->model->ops->bucket(log->model->backend, bucket, &values, &count), 0);
    log->copies[bucket] = malloc(count * sizeof(*values));
    memcpy(log->copies[bucket], values, count * sizeof(*values));
    log->counts[bucket] = count;
    log->announced++;
}

static void check_buckets(struct bucket_log *log, const struct nnc_program *program) {
    cr_assert_eq(log->announced, program->bucket_count, "each bucket is announced once");
    for (uint32_t bucket = 0; bucket < log->announced; bucket++) {
        float *values = NULL;
        size_t count = 0;
        cr_assert_eq(log->model->ops->bucket(log->model->backend, bucket, &values, &count), 0);
        cr_assert_eq(count, log->counts[bucket]);
        cr_assert_eq(memcmp(values, log->copies[bucket], count * sizeof(*values)), 0,
                     "%s: bucket %u changed after it was announced", log->model->row->name, bucket);
        free(log->copies[bucket]);
    }
}

struct nnc_metrics case_model_step(struct case_model *model, enum case_program which,
                                   uint64_t step) {
    const struct nnc_backend_ops *ops = model->ops;
    struct nnc_executable *exe = model->executable[which];
    const struct nnc_feed feed = {model->images, model->sample_stride, model->labels};
    cr_assert_eq(ops->feed(exe, &feed), 0, "%s", nnc_error_text());
    if (which == CASE_EVAL) {
        cr_assert_eq(ops->evaluate(exe), 0, "%s", nnc_error_text());
    } else {
        struct bucket_log log = {.model = model};
        const struct nnc_step_params params = {.step = step,
                                               .first = 5,
                                               .global_count = model->row->batch + 3,
                                               .bucket_ready = ops->bucket ? on_bucket : NULL,
                                               .context = &log};
        cr_assert_eq(ops->step(exe, &params), 0, "%s", nnc_error_text());
        if (ops->bucket) {
            check_buckets(&log, model->program[which]);
        }
    }
    if (ops->device) {
        cr_assert_eq(ops->device->finish(model->backend), 0, "%s", nnc_error_text());
    }
    struct nnc_metrics metrics;
    cr_assert_eq(ops->poll(model->backend, &metrics), 0, "%s", nnc_error_text());
    return metrics;
}

float *case_record(struct case_result *result, int group, size_t count, const char *title,
                   const char *name) {
    if (result->count == result->capacity) {
        result->capacity = 2 * result->capacity + 64;
        result->vectors = realloc(result->vectors, result->capacity * sizeof(*result->vectors));
        cr_assert_not_null(result->vectors);
    }
    struct case_vector *vector = &result->vectors[result->count++];
    *vector = (struct case_vector){.group = group, .count = count};
    snprintf(vector->name, sizeof(vector->name), "%s %s", title, name);
    vector->values = calloc(count, sizeof(*vector->values));
    cr_assert_not_null(vector->values);
    return vector->values;
}

static void record_step(struct case_model *model, enum case_program which,
                        struct case_result *result) {
    static const char *const titles[3] = {"step 1", "step 2", "evaluation"};
    static const char *const names[4] = {"count", "left out", "correct1", "correct5"};
    struct nnc_metrics metrics = case_model_step(model, which, 7 + (uint64_t)which);
    size_t count = (size_t)model->program[which]->batch * model->graph->classes;
    int group = 10 * (int)which;
    float *logits = case_record(result, group++, count, titles[which], "logits");
    cr_assert_eq(model->ops->logits(model->executable[which], logits), 0);
    *case_record(result, group++, 1, titles[which], "loss") = (float)metrics.loss_sum;
    const uint64_t counts[4] = {metrics.count, metrics.left_out, metrics.correct1,
                                metrics.correct5};
    for (int number = 0; number < 4; number++) {
        *case_record(result, group++, 1, titles[which], names[number]) = (float)counts[number];
    }
}

static void record_state(struct case_model *model, enum nnc_state state, int group,
                         const char *title, struct case_result *result) {
    for (uint32_t number = 0; number < model->graph->param_count; number++) {
        const struct nnc_param *param = &model->graph->params[number];
        float *values = case_record(result, group, param->count, title, param->name);
        cr_assert_eq(model->ops->get(model->backend, state, number, values), 0);
    }
}

void case_run(const struct nnc_backend_ops *ops, const struct backend_case *row,
              struct case_result *ret_result) {
    const struct nnc_sgd sgd = {.lr = 0.001f,
                                .momentum = 0.9f,
                                .nesterov = true,
                                .weight_decay = {0.01f, 0.0f, 0.002f},
                                .trust = row->trust};
    struct case_model model;
    case_model_open(ops, row, &model);
    *ret_result = (struct case_result){0};
    record_step(&model, CASE_WHOLE, ret_result);
    record_state(&model, NNC_STATE_GRADIENT, 100, "gradient 1", ret_result);
    record_state(&model, NNC_STATE_VALUE, 101, "before update", ret_result);
    cr_assert_eq(ops->update(model.backend, &sgd), 0);
    if (model.executable[CASE_SMALL]) {
        record_step(&model, CASE_SMALL, ret_result);
        record_state(&model, NNC_STATE_GRADIENT, 102, "gradient 2", ret_result);
        cr_assert_eq(ops->update(model.backend, &sgd), 0);
    }
    record_state(&model, NNC_STATE_VALUE, 103, "updated", ret_result);
    record_state(&model, NNC_STATE_MOMENTUM, 104, "momentum", ret_result);
    record_step(&model, CASE_EVAL, ret_result);
    case_model_close(&model);
}

void case_result_free(struct case_result *result) {
    for (size_t number = 0; number < result->count; number++) {
        free(result->vectors[number].values);
    }
    free(result->vectors);
}

/* |left - right|, or |left| when right is NULL. */
static double norm_of(const float *left, const float *right, size_t count) {
    double sum = 0;
    for (size_t place = 0; place < count; place++) {
        double distance = (double)left[place] - (right ? right[place] : 0);
        sum += distance * distance;
    }
    return sqrt(sum);
}

/* A gradient that is zero in theory (a bias before batch normalisation) consists of the rounding
 * errors of large terms; so none is judged on a smaller scale than a tenth of the largest one. */
static double group_norm(const struct case_result *result, int group) {
    double largest = 0;
    for (size_t number = 0; number < result->count; number++) {
        const struct case_vector *vector = &result->vectors[number];
        double norm = vector->group == group ? norm_of(vector->values, NULL, vector->count) : 0;
        largest = norm > largest ? norm : largest;
    }
    return largest;
}

bool case_results_agree(const struct case_result *wanted, const struct case_result *got,
                        double bound, char *ret_text, size_t bytes) {
    cr_assert_eq(wanted->count, got->count);
    for (size_t number = 0; number < wanted->count; number++) {
        const struct case_vector *left = &wanted->vectors[number];
        const struct case_vector *right = &got->vectors[number];
        cr_assert_eq(left->count, right->count);
        double norm = norm_of(left->values, NULL, left->count);
        double scale = fmax(norm, group_norm(wanted, left->group) / 10);
        double error = norm_of(right->values, left->values, left->count);
        if (!(error <= bound * scale)) {
            snprintf(ret_text, bytes,
                     "%s: |got - wanted| = %.3g > %.3g = bound %.3g * scale %.3g (first values: "
                     "wanted %.9g, got %.9g)",
                     left->name, error, bound * scale, bound, scale, left->values[0],
                     right->values[0]);
            return false;
        }
    }
    return true;
}
