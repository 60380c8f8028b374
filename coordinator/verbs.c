/* SPDX-License-Identifier: Apache-2.0 */
/* The table of verbs, and those that only hand over. */
#include "coordinator/verbs.h"

#include "base/err.h"
#include "base/paths.h"
#include "coordinator/process.h"
#include "coordinator/rundir.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const struct {
    const char *name;
    int (*execute)(const struct nnc_verb_context *context);
} verbs[] = {
    {"train", nnc_verb_train},       {"eval", nnc_verb_eval},   {"predict", nnc_verb_predict},
    {"check", nnc_verb_check},       {"bench", nnc_verb_bench}, {"models", nnc_verb_models},
    {"show", nnc_verb_data},         {"pack", nnc_verb_data},   {"doctor", nnc_verb_doctor},
    {"selftest", nnc_verb_selftest},
};

int nnc_verb_execute(const struct nnc_verb_context *context) {
    for (size_t i = 0; i < sizeof(verbs) / sizeof(verbs[0]); i++) {
        if (strcmp(verbs[i].name, context->command->verb) == 0) {
            return verbs[i].execute(context);
        }
    }
    return nnc_fail(-NNC_E_USAGE, "unknown verb %s", context->command->verb);
}

int nnc_verb_needs_weights(const struct nnc_verb_context *context, const char *call) {
    const struct nnc_config *config = &context->command->config;
    bool resumes = config->resume[0] != '\0' && strcmp(config->resume, "auto") != 0;
    if (!resumes && config->weights[0] == '\0') {
        return nnc_fail(-NNC_E_USAGE,
                        "%s%s needs trained weights: %s --resume RUN, or --weights FILE",
                        context->command->verb,
                        config->resume[0] != '\0' ? " has no run for --resume auto and" : "", call);
    }
    return resumes ? nnc_rundir_check_resume(config->resume) : 0;
}

json_t *nnc_verb_number(double value) {
    return isfinite(value) ? json_real(value) : json_null();
}

int nnc_verb_print_json(json_t *object) {
    if (object == NULL) {
        return nnc_fail(-NNC_E_FORMAT, "a result is no UTF-8 text and cannot be printed as JSON");
    }
    json_dumpf(object, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(10));
    putchar('\n');
    json_decref(object);
    return 0;
}

int nnc_verb_hand_over(const struct nnc_verb_context *context, const char *program) {
    char directory[NNC_PATH_MAX];
    char path[NNC_PATH_MAX + 32];
    int result = nnc_path_programs(directory, sizeof(directory));
    if (result < 0) {
        return result;
    }
    snprintf(path, sizeof(path), "%s/%s", directory, program);
    execv(path, context->argv);
    return nnc_fail_errno("start %s", path);
}

int nnc_verb_data(const struct nnc_verb_context *context) {
    return nnc_verb_hand_over(context, "nncoord-data");
}

int nnc_verb_selftest(const struct nnc_verb_context *context) {
    return nnc_verb_hand_over(context, "nncoord-trainer");
}

int nnc_verb_models(const struct nnc_verb_context *context) {
    return nnc_verb_hand_over(context, "nncoord-models");
}
