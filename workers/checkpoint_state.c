/* SPDX-License-Identifier: Apache-2.0 */
/* run.json: the state of a run as text that people and other programs can read.
 *
 * 64-bit numbers that use all their bits (seed, hashes) are strings, because JSON readers take
 * numbers as doubles; counts are numbers. Doubles are printed with 17 digits and come back bit for
 * bit.
 *
 * It does not know where the file lies (checkpoint_save.c, checkpoint_find.c). Source: jansson's
 * manual. */
#include "workers/checkpoint.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FORMAT_NAME "nncoord-run 1"

static json_t *hex_text(uint64_t value) {
    char text[24];
    snprintf(text, sizeof(text), "%016" PRIx64, value);
    return json_string(text);
}

static json_t *decimal_text(uint64_t value) {
    char text[24];
    snprintf(text, sizeof(text), "%" PRIu64, value);
    return json_string(text);
}

static json_t *metrics_object(const struct nnc_train_metrics *metrics) {
    return json_pack("{s:f, s:I, s:I, s:I, s:I, s:f, s:f}", "loss_sum", metrics->loss_sum, "count",
                     (json_int_t)metrics->count, "correct1", (json_int_t)metrics->correct1,
                     "correct5", (json_int_t)metrics->correct5, "left_out",
                     (json_int_t)metrics->left_out, "seconds", metrics->seconds, "wait_seconds",
                     metrics->wait_seconds);
}

static json_t *state_object(const struct nnc_train_state *state, const char *model) {
    json_t *ranks = json_array();
    for (uint32_t rank = 0; rank < state->ranks; rank++) {
        json_array_append_new(ranks, metrics_object(&state->metrics[rank]));
    }
    return json_pack(
        "{s:s, s:s, s:I, s:I, s:I, s:I, s:o, s:I, s:I, s:o, s:f, s:f, s:f, s:I, s:o}", "format",
        FORMAT_NAME, "model", model, "epoch", (json_int_t)state->epoch, "step",
        (json_int_t)state->step, "global_step", (json_int_t)nnc_state_global_step(state),
        "steps_per_epoch", (json_int_t)state->steps_per_epoch, "seed", decimal_text(state->seed),
        "train_samples", (json_int_t)state->train_samples, "global_batch",
        (json_int_t)state->global_batch, "parameters_hash", hex_text(state->param_hash), "acc1",
        state->acc1, "best_acc1", state->best_acc1, "loss_scale", (double)state->loss_scale,
        "loss_scale_steps", (json_int_t)state->loss_scale_steps, "epoch_so_far", ranks);
}

int nnc_checkpoint_state_text(const struct nnc_train_state *state, const char *model,
                              char **ret_text) {
    json_t *root = state_object(state, model);
    char *text = root == NULL ? NULL : json_dumps(root, JSON_INDENT(2) | JSON_REAL_PRECISION(17));
    json_decref(root);
    if (text == NULL) {
        return nnc_fail(-ENOMEM, "run.json cannot be written: no memory, or a sum is not finite");
    }
    *ret_text = text;
    return 0;
}

static int parse_metrics(json_t *object, struct nnc_train_metrics *ret_metrics) {
    json_int_t count, correct1, correct5, left_out;
    double loss_sum, seconds, wait_seconds;
    json_error_t error;
    int code =
        json_unpack_ex(object, &error, 0, "{s:F, s:I, s:I, s:I, s:I, s:F, s:F}", "loss_sum",
                       &loss_sum, "count", &count, "correct1", &correct1, "correct5", &correct5,
                       "left_out", &left_out, "seconds", &seconds, "wait_seconds", &wait_seconds);
    if (code < 0) {
        return nnc_fail(-NNC_E_FORMAT, "run.json: epoch_so_far: %s", error.text);
    }
    if (count < 0 || correct1 < 0 || correct5 < 0 || left_out < 0) {
        return nnc_fail(-NNC_E_FORMAT, "run.json: epoch_so_far has a negative count");
    }
    *ret_metrics = (struct nnc_train_metrics){.loss_sum = loss_sum,
                                              .seconds = seconds,
                                              .wait_seconds = wait_seconds,
                                              .count = (uint64_t)count,
                                              .correct1 = (uint64_t)correct1,
                                              .correct5 = (uint64_t)correct5,
                                              .left_out = (uint64_t)left_out};
    return 0;
}

static int parse_ranks(json_t *ranks, struct nnc_train_state *state) {
    size_t count = json_array_size(ranks);
    if (count < 1 || count > NNC_MAX_RANKS) {
        return nnc_fail(-NNC_E_FORMAT, "run.json: epoch_so_far has %zu ranks", count);
    }
    state->ranks = (uint32_t)count;
    for (size_t rank = 0; rank < count; rank++) {
        int code = parse_metrics(json_array_get(ranks, rank), &state->metrics[rank]);
        if (code < 0) {
            return code;
        }
    }
    return 0;
}

static int parse_number(const char *key, const char *text, int base, uint64_t *ret_value) {
    char *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, base);
    if (errno != 0 || *end != '\0' || text[0] < '0') {
        return nnc_fail(-NNC_E_FORMAT, "run.json: %s is \"%.40s\"", key, text);
    }
    *ret_value = value;
    return 0;
}

static int parse_root(json_t *root, struct nnc_train_state *ret_state) {
    struct nnc_train_state state = {0};
    const char *format, *seed, *param_hash;
    json_int_t epoch, step, steps, samples, batch, scale_steps = 0;
    double scale = 0; /* records without one are of runs that had none */
    json_t *ranks;
    json_error_t error;
    int code = json_unpack_ex(
        root, &error, 0, "{s:s, s:I, s:I, s:I, s:s, s:I, s:I, s:s, s:F, s:F, s?F, s?I, s:o}",
        "format", &format, "epoch", &epoch, "step", &step, "steps_per_epoch", &steps, "seed", &seed,
        "train_samples", &samples, "global_batch", &batch, "parameters_hash", &param_hash, "acc1",
        &state.acc1, "best_acc1", &state.best_acc1, "loss_scale", &scale, "loss_scale_steps",
        &scale_steps, "epoch_so_far", &ranks);
    if (code < 0) {
        return nnc_fail(-NNC_E_FORMAT, "run.json: %s", error.text);
    }
    if (strcmp(format, FORMAT_NAME) != 0) {
        return nnc_fail(-NNC_E_FORMAT, "run.json has format \"%.40s\", not \"" FORMAT_NAME "\"",
                        format);
    }
    if (epoch < 0 || epoch > UINT32_MAX || step < 0 || steps < 1 || step > steps || samples < 0 ||
        batch < 1) {
        return nnc_fail(-NNC_E_FORMAT, "run.json: epoch, step or batch is out of range");
    }
    if (!(scale >= 0 && scale <= 0x1p24) || scale_steps < 0 || scale_steps > UINT32_MAX) {
        return nnc_fail(-NNC_E_FORMAT, "run.json: loss_scale is out of range");
    }
    state.loss_scale = (float)scale;
    state.loss_scale_steps = (uint32_t)scale_steps;
    state.epoch = (uint32_t)epoch;
    state.step = (uint64_t)step;
    state.steps_per_epoch = (uint64_t)steps;
    state.train_samples = (uint64_t)samples;
    state.global_batch = (uint64_t)batch;
    code = parse_number("seed", seed, 10, &state.seed);
    code = code < 0 ? code : parse_number("parameters_hash", param_hash, 16, &state.param_hash);
    code = code < 0 ? code : parse_ranks(ranks, &state);
    if (code == 0) {
        *ret_state = state;
    }
    return code;
}

int nnc_checkpoint_state_parse(const char *text, size_t bytes, struct nnc_train_state *ret_state) {
    json_error_t error;
    json_t *root = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, &error);
    if (root == NULL) {
        return nnc_fail(-NNC_E_FORMAT, "run.json, line %d: %s", error.line, error.text);
    }
    int code = parse_root(root, ret_state);
    json_decref(root);
    return code;
}
