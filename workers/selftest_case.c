/* SPDX-License-Identifier: Apache-2.0 */
/* Running a case on a backend; the table is in selftest_table.c, comparing in selftest_compare.c.
 *
 *   open -> step (whole) -> update -> step (small) -> update -> evaluate -> close, recording
 *
 * It judges nothing but what is wrong whatever the numbers are: buckets out of order, or changed
 * after they were announced. */
#include "workers/selftest_case.h"

#include "base/err.h"
#include "base/rng.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    BUCKETS_MAX = 128,
    SMALL_BUCKET = 64, /* bytes: a case has many */
    LARGE_BUCKET = 8 << 20,
    SAMPLE_GAP = 5,
};

/* fp16 gradients of the cases neither vanish nor overflow with it. */
static const struct nnc_loss_scale calm_scale = {.scale = 1024};

static int no_memory(void) {
    return nnc_fail(-ENOMEM, "no memory for a check");
}

static float *nan_floats(size_t count) {
    float *values = malloc((count > 0 ? count : 1) * sizeof(*values));
    for (size_t place = 0; values != NULL && place < count; place++) {
        values[place] = NAN;
    }
    return values;
}

/* ---- the model ---- */

/* Weights of deviation sqrt(1 / inputs), so that logits stay near 1 and no loss saturates;
 * normalisation around 1, everything else small. */
static int set_param(struct nnc_case_model *model, uint32_t number, uint64_t seed) {
    const struct nnc_param *param = &model->graph->params[number];
    struct nnc_rng rng = nnc_rng_make(11 + seed, NNC_RNG_INIT, number, 0);
    float *values = nan_floats(param->count);
    if (values == NULL) {
        return no_memory();
    }
    bool positive = strstr(param->name, "running_var") != NULL;
    double scale = 0.2;
    if (param->kind == NNC_PARAM_WEIGHT) {
        scale = sqrt(param->dims[0] / (double)param->count);
    }
    bool around_one = positive || strstr(param->name, "weight") != NULL;
    double shift = around_one && param->kind != NNC_PARAM_WEIGHT ? 1 : 0;
    for (uint64_t place = 0; place < param->count; place++) {
        double draw = nnc_rng_normal(&rng);
        values[place] = (float)(shift + scale * (positive ? fabs(draw) : draw));
    }
    int code = model->ops->set(model->backend, NNC_STATE_VALUE, number, values);
    free(values);
    return code;
}

static int compile(struct nnc_case_model *model, enum nnc_case_program which, uint32_t batch) {
    const struct nnc_program_params params = {model->graph, batch, which != NNC_CASE_EVAL,
                                              model->own_graph != NULL ? SMALL_BUCKET
                                                                       : LARGE_BUCKET};
    int code = nnc_program_create(&params, &model->program[which]);
    if (code == -NNC_E_USAGE && which == NNC_CASE_SMALL) {
        return 0; /* batch normalisation of one value */
    }
    return code < 0 ? code
                    : model->ops->compile(model->backend, model->program[which],
                                          &model->executable[which]);
}

static int compile_all(struct nnc_case_model *model, bool whole_only) {
    uint32_t batch = model->row->batch;
    int code = compile(model, NNC_CASE_WHOLE, batch);
    if (code < 0 || whole_only) {
        return code;
    }
    code = compile(model, NNC_CASE_SMALL, batch > 1 ? batch - 1 : 1);
    return code < 0 ? code : compile(model, NNC_CASE_EVAL, batch);
}

static int make_samples(struct nnc_case_model *model, uint64_t seed, uint32_t rank) {
    const struct nnc_case *row = model->row;
    struct nnc_shape input = model->graph->input;
    struct nnc_rng rng = nnc_rng_make(12 + seed, NNC_RNG_SYNTHETIC, rank, 0);
    model->sample_stride = (size_t)input.c * input.h * input.w + SAMPLE_GAP;
    model->images = calloc(row->batch, model->sample_stride);
    model->labels = calloc(row->batch, sizeof(*model->labels));
    if (model->images == NULL || model->labels == NULL) {
        return no_memory();
    }
    for (size_t place = 0; place < row->batch * model->sample_stride; place++) {
        model->images[place] = (uint8_t)nnc_rng_below(&rng, 256);
    }
    for (uint32_t n = 0; n < row->batch; n++) {
        bool left_out = row->unlabelled && n == 0;
        int32_t label = (int32_t)nnc_rng_below(&rng, model->graph->classes);
        model->labels[n] = left_out ? -1 : label;
    }
    return 0;
}

static int open_backend(const struct nnc_case_params *params, struct nnc_case_model *model) {
    const struct nnc_case *row = model->row;
    const struct nnc_backend_params backend = {.graph = model->graph,
                                               .threads = params->threads > 0 ? params->threads : 2,
                                               .loss = row->loss,
                                               .label_smoothing = row->smoothing,
                                               .seed = 99,
                                               .mean = {0.5, 0.4, 0.45},
                                               .std = {0.25, 0.3, 0.2},
                                               .rank = params->rank,
                                               .ranks = params->ranks > 0 ? params->ranks : 1,
                                               .device = params->device,
                                               .alive = params->alive,
                                               .context = params->context};
    return model->ops->open(&backend, &model->backend);
}

static int calm_loss_scale(struct nnc_case_model *model) {
    struct nnc_loss_scale scale = {.scale = 1};
    int code = model->ops->device->get_scale(model->backend, &scale);
    if (code < 0 || scale.scale == 1) {
        return code;
    }
    return model->ops->device->set_scale(model->backend, &calm_scale);
}

int nnc_case_open(const struct nnc_case_params *params, const struct nnc_case *row,
                  struct nnc_case_model *ret_model) {
    struct nnc_case_model model = {.ops = params->ops, .row = row};
    int code = 0;
    *ret_model = (struct nnc_case_model){0};
    model.graph = params->graph;
    if (model.graph == NULL) {
        model.graph = model.own_graph = nnc_graph_of_rows(row->input, row->rows);
    }
    code = model.graph == NULL ? no_memory() : open_backend(params, &model);
    for (uint32_t number = 0; code >= 0 && number < model.graph->param_count; number++) {
        code = set_param(&model, number, params->seed);
    }
    code = code < 0 ? code : compile_all(&model, params->whole_only);
    code = code < 0 ? code : make_samples(&model, params->seed, params->rank);
    if (code >= 0 && params->calm_scale && model.ops->device != NULL) {
        code = calm_loss_scale(&model);
    }
    if (code < 0) {
        nnc_case_close(&model);
        return code;
    }
    *ret_model = model;
    return 0;
}

void nnc_case_close(struct nnc_case_model *model) {
    for (int which = 0; which < NNC_CASE_PROGRAMS; which++) {
        if (model->executable[which] != NULL) {
            model->ops->release(model->executable[which]);
        }
        nnc_program_destroy(model->program[which]);
    }
    if (model->backend != NULL) {
        model->ops->close(model->backend);
    }
    nnc_graph_of_rows_free(model->own_graph);
    free(model->images);
    free(model->labels);
}

int nnc_case_lower(const struct nnc_case *row, struct nnc_graph **ret_graph,
                   struct nnc_program **ret_program) {
    struct nnc_graph *graph = nnc_graph_of_rows(row->input, row->rows);
    if (graph == NULL) {
        return no_memory();
    }
    const struct nnc_program_params params = {graph, row->batch, true, 0};
    int code = nnc_program_create(&params, ret_program);
    if (code < 0) {
        nnc_graph_of_rows_free(graph);
        return code;
    }
    *ret_graph = graph;
    return 0;
}

/* ---- a step ---- */

/* Copies of the buckets as they were when announced. */
struct bucket_log {
    struct nnc_case_model *model;
    int code; /* of the first thing that went wrong */
    uint32_t announced;
    float *copies[BUCKETS_MAX];
    size_t counts[BUCKETS_MAX];
};

static int copy_bucket(struct bucket_log *log, uint32_t bucket) {
    float *values = NULL;
    size_t count = 0;
    if (bucket != log->announced || bucket >= BUCKETS_MAX) {
        return nnc_fail(-EPROTO, "bucket %u was announced instead of %u", bucket, log->announced);
    }
    int code = log->model->ops->bucket(log->model->backend, bucket, &values, &count);
    if (code < 0) {
        return code;
    }
    log->copies[bucket] = malloc((count > 0 ? count : 1) * sizeof(*values));
    if (log->copies[bucket] == NULL) {
        return no_memory();
    }
    memcpy(log->copies[bucket], values, count * sizeof(*values));
    log->counts[bucket] = count;
    log->announced++;
    return 0;
}

static void on_bucket(void *context, uint32_t bucket) {
    struct bucket_log *log = context;
    log->code = log->code < 0 ? log->code : copy_bucket(log, bucket);
}

static int check_bucket(const struct bucket_log *log, uint32_t bucket) {
    float *values = NULL;
    size_t count = 0;
    int code = log->model->ops->bucket(log->model->backend, bucket, &values, &count);
    if (code >= 0 && (count != log->counts[bucket] ||
                      memcmp(values, log->copies[bucket], count * sizeof(*values)) != 0)) {
        return nnc_fail(-EPROTO, "bucket %u changed after it was announced", bucket);
    }
    return code;
}

static int check_buckets(const struct bucket_log *log, const struct nnc_program *program) {
    int code = log->code;
    if (code >= 0 && log->announced != program->bucket_count) {
        return nnc_fail(-EPROTO, "%u of %u buckets were announced", log->announced,
                        program->bucket_count);
    }
    for (uint32_t bucket = 0; code >= 0 && bucket < log->announced; bucket++) {
        code = check_bucket(log, bucket);
    }
    return code;
}

/* A step writes all gradients, so what they were before may not matter. */
static int spoil_gradients(struct nnc_case_model *model) {
    int code = 0;
    for (uint32_t number = 0; code >= 0 && number < model->graph->param_count; number++) {
        const struct nnc_param *param = &model->graph->params[number];
        if (param->kind == NNC_PARAM_BUFFER) {
            continue;
        }
        float *values = nan_floats(param->count);
        code = values == NULL ? no_memory()
                              : model->ops->set(model->backend, NNC_STATE_GRADIENT, number, values);
        free(values);
    }
    return code;
}

static int step(struct nnc_case_model *model, enum nnc_case_program which, uint64_t number) {
    struct bucket_log log = {.model = model};
    bool has_buckets = model->ops->bucket != NULL;
    const struct nnc_step_params params = {.step = number,
                                           .first = 5,
                                           .global_count = model->row->batch + 3,
                                           .bucket_ready = has_buckets ? on_bucket : NULL,
                                           .context = &log};
    int code = model->ops->step(model->executable[which], &params);
    if (code >= 0 && has_buckets) {
        code = check_buckets(&log, model->program[which]);
    }
    for (uint32_t bucket = 0; bucket < BUCKETS_MAX; bucket++) {
        free(log.copies[bucket]);
    }
    return code;
}

int nnc_case_step(struct nnc_case_model *model, enum nnc_case_program which, uint64_t number,
                  struct nnc_metrics *ret_metrics) {
    const struct nnc_backend_ops *ops = model->ops;
    const struct nnc_feed feed = {model->images, model->sample_stride, model->labels};
    int code = which == NNC_CASE_EVAL ? 0 : spoil_gradients(model);
    code = code < 0 ? code : ops->feed(model->executable[which], &feed);
    if (code >= 0) {
        code = which == NNC_CASE_EVAL ? ops->evaluate(model->executable[which])
                                      : step(model, which, number);
    }
    if (code >= 0 && ops->device != NULL) {
        code = ops->device->finish(model->backend);
    }
    return code < 0 ? code : ops->poll(model->backend, ret_metrics);
}

int nnc_case_get(const struct nnc_case_model *model, enum nnc_state state, uint32_t param,
                 float *ret_values) {
    for (uint64_t place = 0; place < model->graph->params[param].count; place++) {
        ret_values[place] = NAN;
    }
    return model->ops->get(model->backend, state, param, ret_values);
}

/* ---- recording ---- */

float *nnc_case_record(struct nnc_case_result *result, int group, size_t count, const char *title,
                       const char *name) {
    if (result->count == result->capacity) {
        size_t capacity = 2 * result->capacity + 64;
        struct nnc_case_vector *vectors =
            realloc(result->vectors, capacity * sizeof(*result->vectors));
        if (vectors == NULL) {
            no_memory();
            return NULL;
        }
        result->vectors = vectors;
        result->capacity = capacity;
    }
    float *values = nan_floats(count);
    if (values == NULL) {
        no_memory();
        return NULL;
    }
    struct nnc_case_vector *vector = &result->vectors[result->count++];
    *vector = (struct nnc_case_vector){.group = group, .count = count, .values = values};
    snprintf(vector->name, sizeof(vector->name), "%s %s", title, name);
    return values;
}

static int record_number(struct nnc_case_result *result, enum nnc_case_kind kind, int group,
                         double number, const char *title, const char *name) {
    float *value = nnc_case_record(result, group, 1, title, name);
    if (value == NULL) {
        return -ENOMEM;
    }
    result->vectors[result->count - 1].kind = kind;
    *value = (float)number;
    return 0;
}

static int record_metrics(const struct nnc_metrics *metrics, int group, const char *title,
                          struct nnc_case_result *result) {
    const struct {
        const char *name;
        double value;
        enum nnc_case_kind kind;
    } rows[] = {
        {"loss", metrics->loss_sum, NNC_CASE_VALUE},
        {"count", (double)metrics->count, NNC_CASE_COUNT},
        {"left out", (double)metrics->left_out, NNC_CASE_COUNT},
        {"correct1", (double)metrics->correct1, NNC_CASE_RANKING},
        {"correct5", (double)metrics->correct5, NNC_CASE_RANKING},
    };
    int code = 0;
    for (size_t i = 0; code >= 0 && i < sizeof(rows) / sizeof(rows[0]); i++) {
        code =
            record_number(result, rows[i].kind, group + (int)i, rows[i].value, title, rows[i].name);
    }
    return code;
}

static int record_step(struct nnc_case_model *model, enum nnc_case_program which,
                       struct nnc_case_result *result) {
    static const char *const titles[] = {"step 1", "step 2", "evaluation"};
    struct nnc_metrics metrics;
    int code = nnc_case_step(model, which, 7 + (uint64_t)which, &metrics);
    if (code < 0) {
        return nnc_fail_in(code, "%s", titles[which]);
    }
    size_t count = (size_t)model->program[which]->batch * model->graph->classes;
    int group = 10 * (int)which;
    float *logits = nnc_case_record(result, group, count, titles[which], "logits");
    code = logits == NULL ? -ENOMEM : model->ops->logits(model->executable[which], logits);
    return code < 0 ? code : record_metrics(&metrics, group + 1, titles[which], result);
}

static int record_state(struct nnc_case_model *model, enum nnc_state state, int group,
                        const char *title, struct nnc_case_result *result) {
    int code = 0;
    for (uint32_t number = 0; code >= 0 && number < model->graph->param_count; number++) {
        const struct nnc_param *param = &model->graph->params[number];
        float *values = nnc_case_record(result, group, param->count, title, param->name);
        if (values == NULL) {
            return -ENOMEM;
        }
        result->vectors[result->count - 1].kind =
            state == NNC_STATE_VALUE ? NNC_CASE_VALUE : NNC_CASE_GRADIENT;
        code = nnc_case_get(model, state, number, values);
    }
    return code;
}

static int run(struct nnc_case_model *model, struct nnc_case_result *result) {
    const struct nnc_sgd sgd = {.lr = 0.001f,
                                .momentum = 0.9f,
                                .nesterov = true,
                                .weight_decay = {0.01f, 0.0f, 0.002f},
                                .trust = model->row->trust};
    const struct nnc_backend_ops *ops = model->ops;
    int code = record_step(model, NNC_CASE_WHOLE, result);
    code = code < 0 ? code : record_state(model, NNC_STATE_GRADIENT, 100, "gradient 1", result);
    code = code < 0 ? code : record_state(model, NNC_STATE_VALUE, 101, "before update", result);
    code = code < 0 ? code : ops->update(model->backend, &sgd);
    if (code >= 0 && model->executable[NNC_CASE_SMALL] != NULL) {
        code = record_step(model, NNC_CASE_SMALL, result);
        code = code < 0 ? code : record_state(model, NNC_STATE_GRADIENT, 102, "gradient 2", result);
        code = code < 0 ? code : ops->update(model->backend, &sgd);
    }
    code = code < 0 ? code : record_state(model, NNC_STATE_VALUE, 103, "updated", result);
    code = code < 0 ? code : record_state(model, NNC_STATE_MOMENTUM, 104, "momentum", result);
    return code < 0 ? code : record_step(model, NNC_CASE_EVAL, result);
}

int nnc_case_run(const struct nnc_case_params *params, const struct nnc_case *row,
                 struct nnc_case_result *ret_result) {
    struct nnc_case_model model;
    *ret_result = (struct nnc_case_result){0};
    int code = nnc_case_open(params, row, &model);
    code = code < 0 ? code : run(&model, ret_result);
    nnc_case_close(&model);
    return code;
}

void nnc_case_result_free(struct nnc_case_result *result) {
    for (size_t number = 0; number < result->count; number++) {
        free(result->vectors[number].values);
    }
    free(result->vectors);
    *result = (struct nnc_case_result){0};
}
