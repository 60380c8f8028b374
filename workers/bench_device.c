/* SPDX-License-Identifier: Apache-2.0 */
/* Timing a graph on a backend, and the ceilings.
 *
 *   times      feed | step | update, each between two finish(); then all of them in a row
 *   ceilings   a step with many equal operations minus a step with few of them, by their number:
 *              what both have in common (input, loss, launches) falls out; shortest times, for
 *              a ceiling is what can be had
 *
 * Bytes and operations of one more ReLU and one more linear layer in a training step:
 *
 *   ReLU     forward reads x and writes y, backward reads y and dy and writes dx: 5 tensors
 *   linear   three products of 2 N C K operations
 *
 * It does not know the device: a figure holds for what the backend makes of the graph. */
#include "workers/bench_device.h"

#include "base/clock.h"
#include "base/err.h"
#include "workers/selftest_case.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    WARMUP = 3,
    REPEATS_MAX = 1000,
    ROUNDS = 3,
    CHAIN = 8, /* operations that the long chain has more than the short one */
};

static const struct nnc_case timed = {.name = "bench", .loss = NNC_LOSS_CROSS_ENTROPY};
static const struct nnc_sgd sgd = {.lr = 0, .momentum = 0.9f};

/* ---- times ---- */

static int by_value(const void *left, const void *right) {
    const double *a = left, *b = right;
    return (*a > *b) - (*a < *b);
}

static double median(double *values, uint32_t count) {
    qsort(values, count, sizeof(*values), by_value);
    return values[count / 2];
}

static int finish(const struct nnc_case_model *model) {
    const struct nnc_device_ops *device = model->ops->device;
    return device == NULL ? 0 : device->finish(model->backend);
}

static int feed(const struct nnc_case_model *model) {
    const struct nnc_feed batch = {model->images, model->sample_stride, model->labels};
    return model->ops->feed(model->executable[NNC_CASE_WHOLE], &batch);
}

static int step(const struct nnc_case_model *model) {
    const struct nnc_step_params params = {.global_count = model->row->batch};
    return model->ops->step(model->executable[NNC_CASE_WHOLE], &params);
}

static int update(const struct nnc_case_model *model) {
    return model->ops->update(model->backend, &sgd);
}

static int time_one(const struct nnc_case_model *model, int (*work)(const struct nnc_case_model *),
                    double *ret_seconds) {
    uint64_t began_ns = nnc_clock_ns();
    int code = work(model);
    code = code < 0 ? code : finish(model);
    *ret_seconds = (double)(nnc_clock_ns() - began_ns) * 1e-9;
    return code;
}

static int time_parts(const struct nnc_case_model *model, uint32_t repeats,
                      struct nnc_bench_times *times) {
    int (*const work[3])(const struct nnc_case_model *) = {feed, step, update};
    double seconds[3][REPEATS_MAX];
    struct nnc_metrics metrics;
    for (uint32_t i = 0; i < WARMUP + repeats; i++) {
        uint32_t place = i < WARMUP ? 0 : i - WARMUP;
        int code = 0;
        for (int part = 0; part < 3 && code >= 0; part++) {
            code = time_one(model, work[part], &seconds[part][place]);
        }
        code = code < 0 ? code : model->ops->poll(model->backend, &metrics);
        if (code < 0) {
            return code;
        }
    }
    times->feed = median(seconds[0], repeats);
    times->step = median(seconds[1], repeats);
    times->best_feed = seconds[0][0]; /* sorted */
    times->best_step = seconds[1][0];
    times->update = median(seconds[2], repeats);
    return 0;
}

/* Batches in a row, as a training without waiting for data has them. */
static int time_whole(const struct nnc_case_model *model, uint32_t repeats,
                      struct nnc_bench_times *times) {
    uint64_t began_ns = nnc_clock_ns();
    int code = 0;
    for (uint32_t i = 0; code >= 0 && i < repeats; i++) {
        code = feed(model);
        code = code < 0 ? code : step(model);
        code = code < 0 ? code : update(model);
    }
    code = code < 0 ? code : finish(model);
    times->whole = (double)(nnc_clock_ns() - began_ns) * 1e-9 / repeats;
    return code;
}

int nnc_bench_graph(const struct nnc_bench_target *target, const struct nnc_graph *graph,
                    uint32_t batch, struct nnc_bench_times *ret_times) {
    const struct nnc_case_params params = {.ops = target->ops,
                                           .device = target->device,
                                           .threads = target->threads,
                                           .graph = graph,
                                           .whole_only = true,
                                           .calm_scale = true};
    uint32_t repeats = target->repeats < REPEATS_MAX ? target->repeats : REPEATS_MAX;
    struct nnc_bench_times times;
    struct nnc_case_model model;
    struct nnc_case row = timed;
    row.batch = batch;
    int code = nnc_case_open(&params, &row, &model);
    code = code < 0 ? code : time_parts(&model, repeats, &times);
    code = code < 0 ? code : time_whole(&model, repeats, &times);
    if (code >= 0) {
        times.memory = target->ops->memory(model.backend);
        *ret_times = times;
    }
    nnc_case_close(&model);
    return code;
}

/* ---- ceilings ---- */

/* Step time of `first`, then `count` times `repeated`, then `last`. */
static int time_chain(const struct nnc_bench_target *target, struct nnc_shape input, uint32_t batch,
                      const struct nnc_layer_row *repeated, uint32_t count,
                      struct nnc_bench_times *ret_times) {
    static const struct nnc_layer_row tail[] = {ADAPTIVE(1, 1), FLATTEN};
    struct nnc_layer_row rows[CHAIN + 8] = {{0}};
    uint32_t used = 0;
    bool is_linear = repeated->layer == NNC_LAYER_LINEAR;
    if (!is_linear) {
        rows[used++] = (struct nnc_layer_row)CONV(16, 1, 1, 0, true);
    }
    for (uint32_t i = 0; i <= count; i++) { /* the first is fused, or has no input gradient */
        rows[used++] = *repeated;
    }
    if (!is_linear) {
        memcpy(&rows[used], tail, sizeof(tail));
    }
    struct nnc_graph *graph = nnc_graph_of_rows(input, rows);
    int code = graph == NULL ? nnc_fail(-ENOMEM, "no memory for a graph")
                             : nnc_bench_graph(target, graph, batch, ret_times);
    nnc_graph_of_rows_free(graph);
    return code;
}

/* Seconds that one more operation takes: long and short chains by turns, the best of each, so that
 * a machine that is busy for a while spoils none. *ret_few: times of the short one. */
static int time_operation(const struct nnc_bench_target *target, struct nnc_shape input,
                          uint32_t batch, const struct nnc_layer_row *row, double *ret_seconds,
                          struct nnc_bench_times *ret_few) {
    double many_best = INFINITY, few_best = INFINITY;
    for (int round = 0; round < ROUNDS; round++) {
        struct nnc_bench_times many;
        int code = time_chain(target, input, batch, row, 1, ret_few);
        code = code < 0 ? code : time_chain(target, input, batch, row, 1 + CHAIN, &many);
        if (code < 0) {
            return code;
        }
        many_best = fmin(many_best, many.best_step);
        few_best = fmin(few_best, ret_few->best_step);
    }
    /* Noise must not give a rate without bounds. */
    *ret_seconds = fmax(many_best - few_best, many_best / 100) / CHAIN;
    return 0;
}

int nnc_bench_ceilings(const struct nnc_bench_target *target,
                       struct nnc_bench_ceilings *ret_ceilings) {
    const struct nnc_layer_row relu = RELU;
    uint32_t side = target->large ? 224 : 64, batch = target->large ? 64 : 32;
    uint32_t features = target->large ? 4096 : 512, rows = target->large ? 8192 : 256;
    const struct nnc_layer_row linear = LINEAR(features, false);
    struct nnc_bench_times times;
    double copy, product;
    int code =
        time_operation(target, (struct nnc_shape){3, side, side}, batch, &relu, &copy, &times);
    double pixels = (double)batch * side * side;
    if (code >= 0) {
        ret_ceilings->feed = pixels * 3 / times.best_feed;
        ret_ceilings->copy = 5 * pixels * 16 * target->value_bytes / copy;
        code = time_operation(target, (struct nnc_shape){1, 8, 8}, rows, &linear, &product, &times);
    }
    if (code >= 0) {
        ret_ceilings->matrix = 3 * 2.0 * rows * features * features / product;
    }
    return code;
}
