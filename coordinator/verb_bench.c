/* SPDX-License-Identifier: Apache-2.0 */
/* bench input (loaders alone), bench train (a trainer alone), check (every image once). */
#include "coordinator/verbs.h"

#include "base/err.h"
#include "base/model_dir.h"
#include "coordinator/run.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

/* Where the loaders' time went, as shares of their wall time. */
struct stage {
    const char *name;
    enum nnc_counter counter;
    const char *remedy;
};

static const struct stage stages[] = {
    {"decode", NNC_COUNT_NS_DECODE, "more --workers, or smaller images"},
    {"transform", NNC_COUNT_NS_TRANSFORM, "more --workers, or a smaller crop"},
    {"read", NNC_COUNT_NS_READ, "faster storage, or more memory for the page cache"},
    {"ring full", NNC_COUNT_NS_WAIT, "the consumer is the limit; fewer --workers would do"},
};
#define STAGE_COUNT (sizeof(stages) / sizeof(stages[0]))

static double loader_seconds(const struct nnc_run_result *result) {
    double sum = (double)result->measured.counter[NNC_COUNT_NS_OTHER];
    for (size_t i = 0; i < STAGE_COUNT; i++) {
        sum += (double)result->measured.counter[stages[i].counter];
    }
    return sum > 0.0 ? sum * 1e-9 : 1e-9;
}

static const struct stage *largest_stage(const struct nnc_run_result *result) {
    const struct stage *best = &stages[0];
    for (size_t i = 1; i < STAGE_COUNT; i++) {
        if (result->measured.counter[stages[i].counter] > result->measured.counter[best->counter]) {
            best = &stages[i];
        }
    }
    return best;
}

static void format_bound(const struct nnc_run_result *result, char *ret_text, size_t bytes) {
    double seconds = loader_seconds(result);
    size_t used = 0;
    ret_text[0] = '\0';
    for (size_t i = 0; i < STAGE_COUNT && used < bytes; i++) {
        double share = (double)result->measured.counter[stages[i].counter] * 1e-9 / seconds;
        used += (size_t)snprintf(ret_text + used, bytes - used, "%s%s %.0f %%", i == 0 ? "" : ", ",
                                 stages[i].name, 100.0 * share);
    }
}

static json_t *input_object(const struct nnc_run_result *result) {
    double seconds = result->trainer_seconds > 0.0 ? result->trainer_seconds : 1e-9;
    json_t *stage_object = json_object();
    for (size_t i = 0; i < STAGE_COUNT; i++) {
        json_object_set_new(stage_object, stages[i].name,
                            json_real((double)result->measured.counter[stages[i].counter] * 1e-9));
    }
    return json_pack(
        "{s:f, s:f, s:i, s:f, s:I, s:s, s:o, s:I, s:f, s:I, s:I, s:b, s:f}", "images_per_s",
        (double)result->images / seconds, "bytes_per_s",
        (double)result->measured.counter[NNC_COUNT_BYTES_READ] / seconds, "workers",
        (int)result->plan.loaders, "cpu_s_per_1000",
        result->images == 0 ? 0.0 : 1000.0 * result->measured.cpu_seconds / (double)result->images,
        "peak_memory_bytes", (json_int_t)result->peak_memory_bytes, "bound_by",
        largest_stage(result)->name, "stage_s", stage_object, "images", (json_int_t)result->images,
        "seconds", seconds, "ring_bytes", (json_int_t)result->ring_bytes, "bad_samples",
        (json_int_t)result->bad_samples, "io_uring", (int)result->uses_uring, "first_batch_s",
        result->first_batch_seconds);
}

static void print_input(const struct nnc_run_result *result) {
    double seconds = result->trainer_seconds > 0.0 ? result->trainer_seconds : 1e-9;
    char bound[256];
    format_bound(result, bound, sizeof(bound));
    fprintf(stderr,
            "%.0f images/s, %.1f MB/s read, %" PRIu32
            " loaders (%s), %.2f CPU s per 1,000 images, %.1f MB beside the ring\n",
            (double)result->images / seconds,
            (double)result->measured.counter[NNC_COUNT_BYTES_READ] / seconds * 1e-6,
            result->plan.loaders, result->uses_uring ? "io_uring" : "pread",
            result->images == 0 ? 0.0
                                : 1000.0 * result->measured.cpu_seconds / (double)result->images,
            (double)result->peak_memory_bytes * 1e-6);
    fprintf(stderr, "bound by %s: %s; %s\n", largest_stage(result)->name, bound,
            largest_stage(result)->remedy);
}

static int bench_input(const struct nnc_verb_context *context) {
    const struct nnc_config *config = &context->command->config;
    bool val = strcmp(config->bench_split, "val") == 0;
    struct nnc_dataset *dataset = NULL;
    struct nnc_run_result result;
    int code = nnc_verb_open_data(config, val ? NNC_DATASET_VAL : NNC_DATASET_TRAIN, &dataset);
    if (code < 0) {
        return code;
    }
    const struct nnc_run_params params = {.config = config,
                                          .mode = NNC_MODE_BENCH_INPUT,
                                          .machine = &context->machine,
                                          .dataset = dataset};
    code = nnc_run(&params, context->started_ns, &result);
    nnc_dataset_close(dataset);
    if (code < 0) {
        return code;
    }
    print_input(&result);
    return config->json ? nnc_verb_print_json(input_object(&result)) : 0;
}

static int bench_train(const struct nnc_verb_context *context) {
    const struct nnc_config *config = &context->command->config;
    struct nnc_run_result result;
    struct nnc_run_params params = {
        .config = config, .mode = NNC_MODE_BENCH_TRAIN, .machine = &context->machine};
    int code = nnc_model_resolve(config->model, NULL, params.model_path, sizeof(params.model_path));
    code = code < 0 ? code : nnc_run(&params, context->started_ns, &result);
    if (code < 0) {
        return code;
    }
    double rate = (double)result.images / (result.trainer_seconds + 1e-9);
    fprintf(stderr, "%s, batch %" PRIu32 ", %" PRIu32 " threads, %s: %.1f images/s\n",
            config->model, result.plan.schedule.batch, result.plan.threads, result.backend_note,
            rate);
    if (!config->json) {
        return 0;
    }
    return nnc_verb_print_json(json_pack(
        "{s:f, s:s, s:i, s:i, s:i, s:I, s:f, s:s}", "images_per_s", rate, "model", config->model,
        "batch_size", (int)result.plan.schedule.batch, "ranks", (int)result.plan.ranks, "threads",
        (int)result.plan.threads, "images", (json_int_t)result.images, "seconds",
        result.trainer_seconds, "backend", result.backend_note));
}

int nnc_verb_bench(const struct nnc_verb_context *context) {
    bool train = strcmp(context->command->subverb, "train") == 0;
    return train ? bench_train(context) : bench_input(context);
}

/* Check one part by giving it the place of the validation set: in order, without randomness. */
static int check_part(const struct nnc_verb_context *context, const struct nnc_dataset *dataset,
                      enum nnc_phase phase, struct nnc_run_result *sum) {
    if (dataset->parts[phase].samples == 0) {
        return 0;
    }
    struct nnc_dataset view = {.classes = dataset->classes};
    view.parts[NNC_PHASE_VAL] = dataset->parts[phase];
    struct nnc_run_result result;
    const struct nnc_run_params params = {.config = &context->command->config,
                                          .mode = NNC_MODE_CHECK,
                                          .machine = &context->machine,
                                          .dataset = &view};
    int code = nnc_run(&params, context->started_ns, &result);
    sum->images += result.images;
    sum->bad_samples += result.bad_samples;
    return code;
}

int nnc_verb_check(const struct nnc_verb_context *context) {
    const struct nnc_config *config = &context->command->config;
    struct nnc_dataset *dataset = NULL;
    struct nnc_run_result sum = {.images = 0};
    int code = nnc_verb_open_data(config, NNC_DATASET_TRAIN | NNC_DATASET_VAL, &dataset);
    code = code < 0 ? code : check_part(context, dataset, NNC_PHASE_TRAIN, &sum);
    code = code < 0 ? code : check_part(context, dataset, NNC_PHASE_VAL, &sum);
    nnc_dataset_close(dataset);
    if (code < 0) {
        return code;
    }
    fprintf(stderr, "%" PRIu64 " images checked, %" PRIu64 " bad\n", sum.images, sum.bad_samples);
    if (config->json) {
        code = nnc_verb_print_json(json_pack("{s:I, s:I}", "images", (json_int_t)sum.images, "bad",
                                             (json_int_t)sum.bad_samples));
    }
    if (code >= 0 && sum.bad_samples != 0) {
        code = nnc_fail(-NNC_E_DATA_BUDGET, "%" PRIu64 " images cannot be read", sum.bad_samples);
    }
    return code;
}
