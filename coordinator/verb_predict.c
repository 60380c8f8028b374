/* SPDX-License-Identifier: Apache-2.0 */
/* predict: files and folders in, the most likely classes of each out, in the order given. Class
 * names come from the run that trained the weights (classes.txt in its folder); without it they are
 * numbers. */
#include "coordinator/verbs.h"

#include "base/err.h"
#include "base/model_dir.h"
#include "coordinator/classes.h"
#include "coordinator/run.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Logits come in chunks of one sample after the other. */
struct predictions {
    const struct nnc_config *config;
    const struct nnc_dataset_part *part;
    const struct nnc_classes *classes;
    float *logits; /* of the sample being received */
    uint32_t class_count, received;
    uint64_t printed, unreadable;
    int code; /* first failure while printing */
};

static double softmax_sum(const float *logits, uint32_t count, float *ret_max) {
    float max = -INFINITY;
    for (uint32_t i = 0; i < count; i++) {
        max = logits[i] > max ? logits[i] : max;
    }
    double sum = 0.0;
    for (uint32_t i = 0; i < count; i++) {
        sum += exp((double)logits[i] - (double)max);
    }
    *ret_max = max;
    return sum;
}

/* The class with the highest logit that is not taken yet; ties go to the lower class. */
static uint32_t next_best(const float *logits, uint32_t count, const bool *taken) {
    uint32_t best = count;
    for (uint32_t i = 0; i < count; i++) {
        if (!taken[i] && (best == count || logits[i] > logits[best])) {
            best = i;
        }
    }
    return best;
}

static json_t *one_class(const struct predictions *predictions, uint32_t number,
                         double probability) {
    char digits[16];
    return json_pack("{s:s, s:i, s:o}", "label",
                     nnc_classes_name(predictions->classes, number, digits, sizeof(digits)),
                     "class", (int)number, "probability", nnc_verb_number(probability));
}

static json_t *top_classes(const struct predictions *predictions) {
    uint32_t count = predictions->class_count;
    bool *taken = calloc(count, sizeof(bool));
    json_t *top = json_array();
    float max;
    double sum = softmax_sum(predictions->logits, count, &max);
    uint32_t wanted = predictions->config->topk < count ? predictions->config->topk : count;
    for (uint32_t i = 0; taken != NULL && i < wanted; i++) {
        uint32_t best = next_best(predictions->logits, count, taken);
        taken[best] = true;
        double probability = exp((double)predictions->logits[best] - (double)max) / sum;
        json_array_append_new(top, one_class(predictions, best, probability));
    }
    free(taken);
    return top;
}

static void print_text(const char *path, json_t *top) {
    printf("%s", path);
    size_t i;
    json_t *entry;
    json_array_foreach(top, i, entry) {
        json_t *probability = json_object_get(entry, "probability");
        printf("\t%s %.4f", json_string_value(json_object_get(entry, "label")),
               json_is_number(probability) ? json_number_value(probability) : (double)NAN);
    }
    putchar('\n');
}

/* The path itself, so that a program can open it; as escaped for people when it is no UTF-8. */
static json_t *path_string(const struct nnc_dataset_part *part, uint64_t sample,
                           const char *escaped) {
    const char *name = part->index.strings + part->index.samples[sample].name;
    char path[PATH_MAX + 1];
    int length =
        snprintf(path, sizeof(path), "%s%s", strcmp(part->root, "/") == 0 ? "/" : "", name);
    json_t *exact = (size_t)length < sizeof(path) ? json_string(path) : NULL;
    return exact != NULL ? exact : json_string(escaped);
}

static void print_sample(struct predictions *predictions, uint64_t sample, bool bad) {
    char path[NNC_PATH_MAX];
    nnc_dataset_sample_path(predictions->part, sample, path, sizeof(path));
    predictions->printed++;
    predictions->unreadable += bad ? 1 : 0;
    json_t *top = bad ? json_array() : top_classes(predictions);
    if (!predictions->config->json) {
        if (bad) {
            printf("%s\tcannot be read\n", path);
        } else {
            print_text(path, top);
        }
        json_decref(top);
        return;
    }
    json_t *object =
        json_pack("{s:o, s:o}", "path", path_string(predictions->part, sample, path), "top", top);
    if (object == NULL) {
        predictions->code = nnc_fail(-NNC_E_FORMAT, "a path or class name is no UTF-8 text");
        return;
    }
    if (bad) {
        json_object_set_new(object, "error", json_string("the image cannot be read"));
    } else if (predictions->config->logits) {
        json_t *values = json_array();
        for (uint32_t i = 0; i < predictions->class_count; i++) {
            json_array_append_new(values, nnc_verb_number((double)predictions->logits[i]));
        }
        json_object_set_new(object, "logits", values);
    }
    json_dumpf(object, stdout, JSON_COMPACT | JSON_REAL_PRECISION(9));
    putchar('\n');
    json_decref(object);
}

/* One chunk of a sample's logits; each chunk says how many there are in all. */
static void on_logits(void *context, const struct nnc_msg_logits *message, const float *values) {
    struct predictions *predictions = context;
    if (message->sample >= predictions->part->samples || predictions->code < 0) {
        return;
    }
    if (message->bad) {
        print_sample(predictions, message->sample, true);
        return;
    }
    uint64_t end = (uint64_t)message->first + message->count;
    if (message->first != predictions->received || end > message->classes ||
        message->classes > (1u << 24)) {
        predictions->code = nnc_fail(-NNC_E_FORMAT, "a trainer sent logits out of order");
        return;
    }
    if (message->first == 0) {
        float *logits = realloc(predictions->logits, message->classes * sizeof(float));
        if (logits == NULL) {
            predictions->code = nnc_fail(-ENOMEM, "predict: out of memory");
            return;
        }
        predictions->logits = logits;
        predictions->class_count = message->classes;
    }
    memcpy(predictions->logits + message->first, values, message->count * sizeof(float));
    predictions->received = (uint32_t)end;
    if (end == predictions->class_count) {
        print_sample(predictions, message->sample, false);
        predictions->received = 0;
    }
}

int nnc_verb_predict(const struct nnc_verb_context *context) {
    const struct nnc_config *config = &context->command->config;
    if (context->command->arg_count == 0) {
        return nnc_fail(-NNC_E_USAGE, "predict needs image files or folders: "
                                      "nncoord predict --resume runs/NAME x.jpg");
    }
    struct nnc_dataset *dataset = NULL;
    struct nnc_classes classes = {0};
    struct predictions predictions = {.config = config, .classes = &classes};
    struct nnc_run_result result;
    struct nnc_run_params params = {.config = config,
                                    .mode = NNC_MODE_PREDICT,
                                    .machine = &context->machine,
                                    .on_logits = on_logits,
                                    .context = &predictions};
    int code = nnc_verb_needs_weights(context, "nncoord predict FILE");
    code = code < 0 ? code
                    : nnc_model_resolve(config->model, NULL, params.model_path,
                                        sizeof(params.model_path));
    code = code < 0 ? code
                    : nnc_dataset_from_files((const char *const *)context->command->args,
                                             (size_t)context->command->arg_count, 0, &dataset);
    code = code < 0 ? code : nnc_classes_load(config->resume, &classes);
    if (code < 0) {
        goto out;
    }
    params.dataset = dataset;
    params.classes = classes.count;
    predictions.part = &dataset->parts[NNC_PHASE_VAL];
    code = nnc_run(&params, context->started_ns, &result);
    code = code < 0 ? code : predictions.code;
    if (code >= 0 && predictions.printed != predictions.part->samples) {
        code = nnc_fail(-NNC_E_CHILD, "predictions of %" PRIu64 " images are missing",
                        predictions.part->samples - predictions.printed);
    }
    if (code >= 0 && predictions.unreadable != 0) {
        code = nnc_fail(-NNC_E_DATA_BUDGET, "%" PRIu64 " of %" PRIu64 " images cannot be read",
                        predictions.unreadable, predictions.printed);
    }
out:
    free(predictions.logits);
    nnc_classes_free(&classes);
    nnc_dataset_close(dataset);
    return code;
}
