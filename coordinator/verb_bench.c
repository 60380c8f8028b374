/* SPDX-License-Identifier: Apache-2.0 */
/* bench train (a trainer alone), check (every image once); bench input and bench comm
 * are in verb_bench_*.c, bench synth and bench gpu are other programs'. */
#include "coordinator/verbs.h"

#include "base/err.h"
#include "base/log.h"
#include "base/model_dir.h"
#include "base/text.h"
#include "coordinator/run.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

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
    const char *subverb = context->command->subverb;
    if (strcmp(subverb, "synth") == 0) {
        return nnc_verb_hand_over(context, "nncoord-data");
    }
    if (strcmp(subverb, "gpu") == 0) {
        return nnc_verb_hand_over(context, "nncoord-trainer");
    }
    if (strcmp(subverb, "comm") == 0) {
        return nnc_verb_bench_comm(context);
    }
    return strcmp(subverb, "train") == 0 ? bench_train(context) : nnc_verb_bench_input(context);
}

/* Check one part by giving it the place of the validation set: in order, without randomness. */
static int check_part(const struct nnc_verb_context *context, const struct nnc_dataset *dataset,
                      enum nnc_phase phase, json_t *bad_list, struct nnc_run_result *sum) {
    if (dataset->parts[phase].samples == 0) {
        return 0;
    }
    struct nnc_dataset view = {.classes = dataset->classes};
    view.parts[NNC_PHASE_VAL] = dataset->parts[phase];
    struct nnc_run_result result;
    const struct nnc_run_params params = {.config = &context->command->config,
                                          .mode = NNC_MODE_CHECK,
                                          .machine = &context->machine,
                                          .dataset = &view,
                                          .bad_list = bad_list};
    int code = nnc_run(&params, context->started_ns, &result);
    sum->images += result.images;
    sum->bad_samples += result.bad_samples;
    return code;
}

int nnc_verb_check(const struct nnc_verb_context *context) {
    const struct nnc_config *config = &context->command->config;
    struct nnc_dataset *dataset = NULL;
    struct nnc_run_result sum = {.images = 0};
    json_t *bad_list = json_array();
    int code = nnc_dataset_open_config(config, NNC_DATASET_TRAIN | NNC_DATASET_VAL, &dataset);
    if (code >= 0) {
        nnc_log(NNC_LOG_INFO,
                "%s: %" PRIu64 " training and %" PRIu64 " validation images, %" PRIu32 " %s",
                config->data, dataset->parts[NNC_PHASE_TRAIN].samples,
                dataset->parts[NNC_PHASE_VAL].samples, dataset->classes,
                dataset->classes == 1 ? "class" : "classes");
    }
    code = code < 0 ? code : check_part(context, dataset, NNC_PHASE_TRAIN, bad_list, &sum);
    code = code < 0 ? code : check_part(context, dataset, NNC_PHASE_VAL, bad_list, &sum);
    nnc_dataset_close(dataset);
    if (code < 0) {
        json_decref(bad_list);
        return code;
    }
    fprintf(stderr, "%" PRIu64 " image%s checked, %" PRIu64 " bad\n", sum.images,
            nnc_text_s(sum.images), sum.bad_samples);
    if (config->json) {
        code = nnc_verb_print_json(json_pack("{s:I, s:I, s:O}", "images", (json_int_t)sum.images,
                                             "bad", (json_int_t)sum.bad_samples, "bad_files",
                                             bad_list));
    }
    json_decref(bad_list);
    if (code >= 0 && sum.bad_samples != 0) {
        code = nnc_fail(-NNC_E_DATA_BUDGET, "%" PRIu64 " image%s cannot be read", sum.bad_samples,
                        nnc_text_s(sum.bad_samples));
    }
    return code;
}
