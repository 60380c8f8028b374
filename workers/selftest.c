/* SPDX-License-Identifier: Apache-2.0 */
/* The checks of one device that every backend can have:
 *
 *   each group of cases   against the reference, forward, backward, update, evaluation
 *   repetition            a case run twice on the same device gives the same bits
 *   state                 what is set is got, through all programs of a case
 *
 * then those of selftest_device.c and selftest_model.c. A check that cannot be made because the
 * backend returns an error has failed. */
#include "base/err.h"
#include "workers/selftest_private.h"

#include <assert.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- lines ---- */

struct nnc_selftest_line selftest_line(const struct nnc_selftest_params *params,
                                       const char *check) {
    struct nnc_selftest_line line = {
        .precision = params->precision, .error = -1, .limit = -1, .status = NNC_SELFTEST_OK};
    snprintf(line.check, sizeof(line.check), "%s", check);
    return line;
}

void selftest_begin(const struct nnc_selftest_params *params, const char *name) {
    if (params->on_case != NULL) {
        params->on_case(params->context, params->precision, name);
    }
}

void selftest_error(struct nnc_selftest_line *line, const char *where) {
    line->status = NNC_SELFTEST_FAIL;
    snprintf(line->text, sizeof(line->text), "%.120s: %.380s", where, nnc_error_text());
}

uint32_t selftest_tell(const struct nnc_selftest_params *params,
                       const struct nnc_selftest_line *line) {
    params->on_line(params->context, line);
    return line->status == NNC_SELFTEST_FAIL ? 1 : 0;
}

void selftest_measure(struct nnc_selftest_line *line, double error, double limit,
                      const char *text) {
    bool failed = !(error <= limit);
    if (line->status == NNC_SELFTEST_FAIL) {
        return; /* the first failure stays */
    }
    bool nearer = line->limit < 0 || error * line->limit >= line->error * limit;
    if (failed || nearer) {
        line->error = error;
        line->limit = limit;
    }
    if (failed) {
        line->status = NNC_SELFTEST_FAIL;
        snprintf(line->text, sizeof(line->text), "%s", text);
    }
}

struct nnc_case_params selftest_case_params(const struct nnc_selftest_params *params) {
    return (struct nnc_case_params){.ops = params->ops,
                                    .device = params->device[0],
                                    .threads = params->threads,
                                    .seed = params->seed,
                                    .calm_scale = true};
}

struct nnc_case_params selftest_exact_params(const struct nnc_selftest_params *params) {
    struct nnc_case_params exact = selftest_case_params(params);
    exact.device.deterministic = true;
    return exact;
}

const struct nnc_case *selftest_case(const char *name) {
    const struct nnc_case *row = nnc_cases;
    while (row->name != NULL && strcmp(row->name, name) != 0) {
        row++;
    }
    assert(row->name != NULL);
    return row;
}

/* ---- against the reference ---- */

static int limits_of(const struct nnc_case *row, enum nnc_precision precision,
                     struct nnc_case_limits *ret_limits) {
    struct nnc_graph *graph;
    struct nnc_program *program;
    int code = nnc_case_lower(row, &graph, &program);
    if (code < 0) {
        return code;
    }
    nnc_case_limits(program, precision, ret_limits);
    nnc_program_destroy(program);
    nnc_graph_of_rows_free(graph);
    return 0;
}

static void check_case(const struct nnc_selftest_params *params, const struct nnc_case *row,
                       struct nnc_selftest_line *line) {
    const struct nnc_case_params tested = selftest_case_params(params);
    struct nnc_case_params reference = tested;
    struct nnc_case_result wanted = {0}, got = {0};
    struct nnc_case_limits limits;
    reference.ops = params->reference;
    selftest_begin(params, row->name);
    int code = limits_of(row, params->precision, &limits);
    code = code < 0 ? code : nnc_case_run(&reference, row, &wanted);
    code = code < 0 ? code : nnc_case_run(&tested, row, &got);
    if (code >= 0) {
        struct nnc_case_verdict verdict;
        char text[512];
        nnc_case_compare(&wanted, &got, &limits, &verdict);
        snprintf(text, sizeof(text), "%.80s: %s", row->name, verdict.text);
        selftest_measure(line, verdict.error, verdict.limit, text);
    } else if (line->status != NNC_SELFTEST_FAIL) {
        selftest_error(line, row->name);
    }
    nnc_case_result_free(&wanted);
    nnc_case_result_free(&got);
    line->cases++;
}

static uint32_t check_groups(const struct nnc_selftest_params *params) {
    const struct nnc_case_group *group = nnc_case_groups;
    const struct nnc_case *row = nnc_cases;
    uint32_t failed = 0;
    for (; group->title != NULL; group++) {
        struct nnc_selftest_line line = selftest_line(params, group->title);
        const char *next = group[1].first;
        assert(strcmp(row->name, group->first) == 0);
        while (row->name != NULL && (next == NULL || strcmp(row->name, next) != 0)) {
            check_case(params, row++, &line);
        }
        failed += selftest_tell(params, &line);
    }
    return failed;
}

/* ---- repetition ---- */

static void repeat_case(const struct nnc_selftest_params *params, const struct nnc_case *row,
                        struct nnc_selftest_line *line) {
    const struct nnc_case_params exact = selftest_exact_params(params);
    struct nnc_case_result first = {0}, second = {0};
    const char *name = "";
    selftest_begin(params, row->name);
    int code = nnc_case_run(&exact, row, &first);
    code = code < 0 ? code : nnc_case_run(&exact, row, &second);
    if (code < 0) {
        selftest_error(line, row->name);
    } else if (!nnc_case_equal(&first, &second, &name)) {
        line->status = NNC_SELFTEST_FAIL;
        snprintf(line->text, sizeof(line->text), "%s: %s differs", row->name, name);
    }
    nnc_case_result_free(&first);
    nnc_case_result_free(&second);
    line->cases++;
}

static uint32_t check_repetition(const struct nnc_selftest_params *params) {
    struct nnc_selftest_line line = selftest_line(params, "two runs give the same bits");
    for (const struct nnc_case *row = nnc_cases;
         row->name != NULL && line.status != NNC_SELFTEST_FAIL; row++) {
        repeat_case(params, row, &line);
    }
    return selftest_tell(params, &line);
}

/* ---- state ---- */

/* Numbers that every type holds exactly, and no two neighbours share: of 7 bits, over 64. */
static float exact_number(uint64_t place, uint32_t param, int state) {
    return (float)((int32_t)((place * 37 + param * 11 + (uint32_t)state) % 255) - 127) / 64;
}

static int set_numbers(const struct nnc_case_model *model, uint32_t param, int state,
                       float *scratch) {
    for (uint64_t place = 0; place < model->graph->params[param].count; place++) {
        scratch[place] = exact_number(place, param, state);
    }
    return model->ops->set(model->backend, (enum nnc_state)state, param, scratch);
}

static int expect_numbers(const struct nnc_case_model *model, uint32_t param, int state,
                          float *scratch) {
    int code = nnc_case_get(model, (enum nnc_state)state, param, scratch);
    for (uint64_t place = 0; code >= 0 && place < model->graph->params[param].count; place++) {
        float wanted = exact_number(place, param, state);
        if (scratch[place] != wanted) {
            return nnc_fail(-EPROTO, "state %d of %s: value %u was set to %g and is %g", state,
                            model->graph->params[param].name, (unsigned)place, (double)wanted,
                            (double)scratch[place]);
        }
    }
    return code;
}

/* All states of all parameters are set, then all are got. */
static int round_trip(const struct nnc_case_model *model) {
    uint64_t largest = 1;
    for (uint32_t param = 0; param < model->graph->param_count; param++) {
        uint64_t count = model->graph->params[param].count;
        largest = count > largest ? count : largest;
    }
    float *scratch = malloc(largest * sizeof(*scratch));
    int code = scratch == NULL ? nnc_fail(-ENOMEM, "no memory for a check") : 0;
    for (int pass = 0; pass < 2; pass++) {
        for (int state = NNC_STATE_VALUE; state <= NNC_STATE_MOMENTUM; state++) {
            for (uint32_t param = 0; code >= 0 && param < model->graph->param_count; param++) {
                bool buffer = model->graph->params[param].kind == NNC_PARAM_BUFFER;
                if (buffer && state != NNC_STATE_VALUE) {
                    continue;
                }
                code = pass == 0 ? set_numbers(model, param, state, scratch)
                                 : expect_numbers(model, param, state, scratch);
            }
        }
    }
    free(scratch);
    return code;
}

static uint32_t check_state(const struct nnc_selftest_params *params) {
    struct nnc_selftest_line line = selftest_line(params, "weights and momentum go in and out");
    const struct nnc_case_params tested = selftest_case_params(params);
    for (const struct nnc_case *row = nnc_cases;
         row->name != NULL && line.status != NNC_SELFTEST_FAIL; row++) {
        struct nnc_case_model model;
        selftest_begin(params, row->name);
        int code = nnc_case_open(&tested, row, &model);
        code = code < 0 ? code : round_trip(&model);
        if (code < 0) {
            selftest_error(&line, row->name);
        }
        nnc_case_close(&model);
        line.cases++;
    }
    return selftest_tell(params, &line);
}

uint32_t nnc_selftest_device(const struct nnc_selftest_params *params) {
    uint32_t failed = check_groups(params);
    failed += check_repetition(params);
    failed += check_state(params);
    if (params->ops->device != NULL) {
        failed += selftest_device_only(params);
    }
    if (params->model_path != NULL) {
        failed += selftest_model(params);
    }
    return failed;
}
