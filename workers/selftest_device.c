/* SPDX-License-Identifier: Apache-2.0 */
/* What only devices have: memory that is pinned for copies, and steps that are recorded once and
 * replayed. Both must change no bit. Each check trains a small network for some steps, every step
 * on samples of its own, and compares losses, weights and momentum.
 *
 * Samples lie in two slots as in the ring: a slot is written again when fed() has counted it. */
#include "base/clock.h"
#include "base/err.h"
#include "workers/selftest_private.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    STEPS = 6,
    SLOTS = 2,
    PAGE = 4096,
};

struct training {
    struct nnc_case_params params;
    bool pins;
    bool pinned; /* the platform allowed it */
    struct nnc_case_result result;
};

static void fill_slot(uint8_t *slot, size_t bytes, uint32_t step) {
    for (size_t place = 0; place < bytes; place++) {
        slot[place] = (uint8_t)((place + 1) * (2654435761u + 97u * step) >> 13);
    }
}

/* A slot whose samples the device has: the feed of SLOTS steps before is over. */
static int wait_for_slot(const struct nnc_case_model *model, uint32_t step) {
    uint64_t fed = 0;
    int code = model->ops->device->fed(model->backend, &fed);
    while (code >= 0 && step >= SLOTS && fed + SLOTS <= step) {
        nnc_clock_sleep_ns(100000);
        code = model->ops->device->fed(model->backend, &fed);
    }
    return code;
}

static int train_step(const struct nnc_case_model *model, uint8_t *slot, uint32_t number) {
    const struct nnc_sgd sgd = {.lr = 0.01f, .momentum = 0.9f, .weight_decay = {0.01f, 0, 0}};
    const struct nnc_feed feed = {slot, model->sample_stride, model->labels};
    const struct nnc_step_params params = {.step = number, .global_count = model->row->batch};
    struct nnc_executable *executable = model->executable[NNC_CASE_WHOLE];
    int code = wait_for_slot(model, number);
    if (code < 0) {
        return code;
    }
    fill_slot(slot, model->row->batch * model->sample_stride, number);
    code = model->ops->feed(executable, &feed);
    code = code < 0 ? code : model->ops->step(executable, &params);
    return code < 0 ? code : model->ops->update(model->backend, &sgd);
}

static int record(const struct nnc_case_model *model, struct nnc_case_result *result) {
    struct nnc_metrics metrics;
    int code = model->ops->device->finish(model->backend);
    code = code < 0 ? code : model->ops->poll(model->backend, &metrics);
    float *loss = code < 0 ? NULL : nnc_case_record(result, 0, 1, "sum of", "losses");
    if (loss == NULL) {
        return code < 0 ? code : -ENOMEM;
    }
    *loss = (float)metrics.loss_sum;
    for (int state = NNC_STATE_VALUE; state <= NNC_STATE_MOMENTUM; state++) {
        for (uint32_t param = 0; code >= 0 && param < model->graph->param_count; param++) {
            const struct nnc_param *about = &model->graph->params[param];
            float *values = nnc_case_record(result, 1, about->count, "state of", about->name);
            code = values == NULL ? -ENOMEM
                                  : nnc_case_get(model, (enum nnc_state)state, param, values);
        }
    }
    return code;
}

static int train_from(struct training *training, struct nnc_case_model *model, uint8_t *memory,
                      size_t slot_bytes) {
    if (training->pins) {
        int code = model->ops->device->pin(model->backend, memory, SLOTS * slot_bytes);
        if (code < 0 && code != -ENOTSUP) {
            return code;
        }
        training->pinned = code >= 0;
    }
    int code = 0;
    for (uint32_t step = 0; code >= 0 && step < STEPS; step++) {
        code = train_step(model, memory + step % SLOTS * slot_bytes, step);
    }
    code = code < 0 ? code : record(model, &training->result);
    if (training->pinned) {
        model->ops->device->unpin(model->backend, memory);
    }
    return code;
}

static int train(struct training *training, const struct nnc_case *row) {
    struct nnc_case_model model;
    void *memory = NULL;
    int code = nnc_case_open(&training->params, row, &model);
    if (code < 0) {
        return code;
    }
    size_t slot_bytes = (row->batch * model.sample_stride + PAGE - 1) / PAGE * PAGE;
    if (posix_memalign(&memory, PAGE, SLOTS * slot_bytes) != 0) {
        code = nnc_fail(-ENOMEM, "no memory for samples");
    }
    code = code < 0 ? code : train_from(training, &model, memory, slot_bytes);
    nnc_case_close(&model);
    free(memory);
    return code;
}

/* Train both ways and expect the same bits. */
static void compare(const struct nnc_selftest_params *params, struct training *plain,
                    struct training *special, struct nnc_selftest_line *line) {
    static const char *const names[] = {"residual bottlenecks with projection", "alexnet in small"};
    for (size_t i = 0; i < 2 && line->status == NNC_SELFTEST_OK; i++) {
        const char *name = "";
        selftest_begin(params, names[i]);
        int code = train(plain, selftest_case(names[i]));
        code = code < 0 ? code : train(special, selftest_case(names[i]));
        if (code < 0) {
            selftest_error(line, names[i]);
        } else if (!nnc_case_equal(&plain->result, &special->result, &name)) {
            line->status = NNC_SELFTEST_FAIL;
            snprintf(line->text, sizeof(line->text), "%s: %s differs", names[i], name);
        } else if (special->pins && !special->pinned) {
            line->status = NNC_SELFTEST_SKIPPED;
            snprintf(line->text, sizeof(line->text), "refused by the platform: %s",
                     nnc_error_text());
        }
        nnc_case_result_free(&plain->result);
        nnc_case_result_free(&special->result);
        line->cases++;
    }
}

uint32_t selftest_device_only(const struct nnc_selftest_params *params) {
    struct nnc_selftest_line pin = selftest_line(params, "pinned memory gives the same bits");
    struct nnc_selftest_line graphs = selftest_line(params, "recorded steps give the same bits");
    struct training plain = {.params = selftest_exact_params(params)};
    plain.params.device.graphs = false;
    struct training pinned = plain, recorded = plain;
    pinned.pins = true;
    recorded.params.device.graphs = true;
    compare(params, &plain, &pinned, &pin);
    compare(params, &plain, &recorded, &graphs);
    return selftest_tell(params, &pin) + selftest_tell(params, &graphs);
}
