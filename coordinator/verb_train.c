/* SPDX-License-Identifier: Apache-2.0 */
/* train and eval: open the data set, run the processes, say what came out. Text goes to stderr, the
 * JSON object to stdout. */
#include "coordinator/verbs.h"

#include "base/err.h"
#include "base/log.h"
#include "base/model_dir.h"
#include "base/text.h"
#include "coordinator/run.h"

#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* "images 60000 train + 10000 val, 10 classes; ..." before anything is spawned. */
static void print_header(const struct nnc_verb_context *context,
                         const struct nnc_dataset *dataset) {
    const struct nnc_config *config = &context->command->config;
    bool limited = context->machine.cpus < context->machine.cpus_online;
    nnc_log(NNC_LOG_INFO,
            "%s: %" PRIu64 " training and %" PRIu64 " validation images, %" PRIu32
            " %s; model %s; %" PRIu32 " CPU%s%s%s",
            config->data, dataset->parts[NNC_PHASE_TRAIN].samples,
            dataset->parts[NNC_PHASE_VAL].samples, dataset->classes,
            dataset->classes == 1 ? "class" : "classes", config->model, context->machine.cpus,
            nnc_text_s(context->machine.cpus), limited ? " by " : "",
            limited ? context->machine.cpus_limit : "");
}

/* A figure of a phase: null when there was none, as in a run that only found itself done. */
static json_t *figure(double (*of)(const struct nnc_phase_sums *), bool have,
                      const struct nnc_phase_sums *sums) {
    return have ? nnc_verb_number(of(sums)) : json_null();
}

static json_t *train_object(const struct nnc_run_result *result, const struct nnc_rundir *rundir) {
    const struct nnc_phase_sums *sums = result->have_val ? &result->val : &result->train;
    bool have = result->have_val || result->have_train;
    double seconds = result->trainer_seconds > 0.0 ? result->trainer_seconds : 1e-9;
    json_t *object =
        json_pack("{s:i, s:I, s:o, s:o, s:o, s:o, s:f, s:s, s:s, s:o, s:f, s:I, s:I, s:i, s:i}",
                  "epochs", (int)result->epochs, "steps", (json_int_t)result->steps, "loss",
                  figure(nnc_sums_loss, have, sums), "acc1", figure(nnc_sums_acc1, have, sums),
                  "acc5", figure(nnc_sums_acc5, have, sums), "train_loss",
                  figure(nnc_sums_loss, result->have_train, &result->train), "images_per_s",
                  (double)result->images / seconds, "weights_sha256", result->weights_sha256,
                  "run_dir", rundir->path, "checkpoint",
                  result->checkpoint[0] != '\0' ? json_string(result->checkpoint) : json_null(),
                  "seconds", result->seconds, "bad_samples", (json_int_t)result->bad_samples,
                  "parameters", (json_int_t)result->parameters, "loader_deaths",
                  (int)result->loader_deaths, "restarts", (int)result->restarts);
    if (object == NULL) {
        return NULL;
    }
    json_object_set_new(object, "best_acc1",
                        result->best_acc1 < 0.0 ? json_null() : json_real(result->best_acc1));
    json_object_set_new(object, "first_batch_s",
                        result->first_batch_seconds < 0.0 ? json_null()
                                                          : json_real(result->first_batch_seconds));
    json_object_set_new(object, "loaders_and_coordinator_bytes",
                        json_integer((json_int_t)result->peak_memory_bytes));
    json_object_set_new(object, "workers", json_integer(result->loaders));
    json_object_set_new(object, "workers_changes", json_integer(result->loader_changes));
    json_object_set_new(object, "ring_bytes", json_integer((json_int_t)result->ring_bytes));
    return object;
}

/* The end of the line: how many images were not what the data set promises. */
static void print_bad(const struct nnc_run_result *result) {
    if (result->bad_samples != 0) {
        fprintf(stderr, ", %" PRIu64 " bad images replaced or left out (bad-samples.jsonl)",
                result->bad_samples);
    }
    fputc('\n', stderr);
}

static void print_train(const struct nnc_run_result *result, const struct nnc_rundir *rundir) {
    if (result->have_val) {
        fprintf(stderr,
                "done: test accuracy %.2f %% (best %.2f %%), loss %.4f, %" PRIu32
                " epoch%s, %" PRIu64 " step%s, %.1f s",
                100.0 * nnc_sums_acc1(&result->val), 100.0 * result->best_acc1,
                nnc_sums_loss(&result->val), result->epochs, nnc_text_s(result->epochs),
                result->steps, nnc_text_s(result->steps), result->seconds);
        print_bad(result);
    } else if (!result->have_train) {
        fprintf(stderr, "nothing left to do after %" PRIu32 " epoch%s; --epochs asks for more\n",
                result->epochs, nnc_text_s(result->epochs));
    } else {
        fprintf(stderr, "done: training loss %.4f, %" PRIu32 " epoch%s, %" PRIu64 " step%s, %.1f s",
                nnc_sums_loss(&result->train), result->epochs, nnc_text_s(result->epochs),
                result->steps, nnc_text_s(result->steps), result->seconds);
        print_bad(result);
    }
    fprintf(stderr, "files of this run: %s\n", rundir->path);
}

/* Machines other than node 0 get their weights from it, and it alone writes and tells. */
static void follow_node_0(struct nnc_config *config, struct nnc_run_params *params) {
    config->weights[0] = config->resume[0] = config->output_dir[0] = '\0';
    config->json = false;
    params->rundir = NULL;
}

int nnc_verb_train(const struct nnc_verb_context *context) {
    const struct nnc_config *config = &context->command->config;
    static struct nnc_config effective; /* too large for a small stack */
    struct nnc_dataset *dataset = NULL;
    struct nnc_rundir rundir = {.lock_fd = -1};
    struct nnc_run_result result;
    struct nnc_run_params params = {.config = &effective,
                                    .mode = NNC_MODE_TRAIN,
                                    .machine = &context->machine,
                                    .rundir = &rundir};
    bool leads = config->node_rank == 0;
    if (leads && strcmp(config->resume, "auto") == 0 && config->output_dir[0] == '\0') {
        return nnc_fail(-NNC_E_USAGE, "--resume auto looks in --output-dir, which is not given; or "
                                      "name the run: --resume runs/NAME");
    }
    effective = *config;
    int code = nnc_model_resolve(config->model, NULL, params.model_path, sizeof(params.model_path));
    code = code < 0
               ? code
               : nnc_dataset_open_config(config, NNC_DATASET_TRAIN | NNC_DATASET_VAL, &dataset);
    if (code < 0) {
        goto out;
    }
    print_header(context, dataset);
    if (dataset->parts[NNC_PHASE_VAL].samples == 0) {
        nnc_log(NNC_LOG_INFO,
                "no validation set: nothing will tell how well other images are classified; "
                "--val-data DIR names one");
    }
    params.dataset = dataset;
    /* What auto means here goes into the run's record: other images shall not change it. */
    effective.channels = nnc_dataset_channels(dataset, config->channels);
    if (leads) {
        code = nnc_rundir_open(&effective, &rundir);
    } else {
        follow_node_0(&effective, &params);
    }
    code = code < 0 ? code : nnc_run(&params, context->started_ns, &result);
    if (code < 0 || !leads) {
        goto out;
    }
    print_train(&result, &rundir);
    if (config->json) {
        code = nnc_verb_print_json(train_object(&result, &rundir));
    }
out:
    nnc_rundir_close(&rundir);
    nnc_dataset_close(dataset);
    return code;
}

static int print_eval(const struct nnc_run_result *result, bool json) {
    const struct nnc_phase_sums *val = &result->val;
    double loss = nnc_sums_loss(val);
    fprintf(stderr, "%" PRIu64 " images: loss %.4f  acc1 %.2f%%  acc5 %.2f%%\n", val->count, loss,
            100.0 * nnc_sums_acc1(val), 100.0 * nnc_sums_acc5(val));
    int code = 0;
    if (json) {
        code = nnc_verb_print_json(
            json_pack("{s:I, s:o, s:f, s:f, s:I, s:f}", "images", (json_int_t)val->count, "loss",
                      nnc_verb_number(loss), "acc1", nnc_sums_acc1(val), "acc5", nnc_sums_acc5(val),
                      "unreadable", (json_int_t)val->bad, "images_per_s",
                      (double)result->images / (result->trainer_seconds + 1e-9)));
    }
    return code < 0 || isfinite(loss)
               ? code
               : nnc_fail(-NNC_E_NUMERIC, "the loss over these images is not a finite number: the "
                                          "weights are of a training that diverged");
}

int nnc_verb_eval(const struct nnc_verb_context *context) {
    const struct nnc_config *config = &context->command->config;
    struct nnc_dataset *dataset = NULL;
    struct nnc_run_result result;
    struct nnc_run_params params = {
        .config = config, .mode = NNC_MODE_EVAL, .machine = &context->machine};
    int code = nnc_verb_needs_weights(context, "nncoord eval DATA");
    code = code < 0 ? code
                    : nnc_model_resolve(config->model, NULL, params.model_path,
                                        sizeof(params.model_path));
    code = code < 0 ? code : nnc_dataset_open_config(config, NNC_DATASET_VAL, &dataset);
    if (code < 0) {
        goto out;
    }
    print_header(context, dataset);
    params.dataset = dataset;
    code = nnc_run(&params, context->started_ns, &result);
    if (code < 0) {
        goto out;
    }
    code = print_eval(&result, config->json);
out:
    nnc_dataset_close(dataset);
    return code;
}
