/* SPDX-License-Identifier: Apache-2.0 */
/* One training step of a whole network against the reference: small images and two samples, so that
 * plain C takes seconds. What cases in small cannot show: channel counts of real layers, many
 * layers in a row, one arena for all of them.
 *
 * A deep network of random weights is chaotic: with the branches of its sums as large as their
 * shortcuts, weights that change by a thousandth give other gradients altogether. So branches are
 * scaled down, as trainings from zero do ("zero-init residual"). Even so the gradients of a step in
 * 16 bits say little more than their direction, and the limit is half their length.
 *
 * Source: Goyal et al., arXiv 1706.02677, 5.1 (the last norm of a branch starts small). */
#include "base/err.h"
#include "workers/selftest_private.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    SIDE = 64,
    BATCH = 2,
};

static const double widest_gradient = 0.5;
static const float branch_scale = 0.1f;

static const struct nnc_case one_step = {
    .name = "one step", .batch = BATCH, .loss = NNC_LOSS_CROSS_ENTROPY};

struct pair {
    struct nnc_case_model wanted, got;
    struct nnc_metrics wanted_metrics, got_metrics;
    struct nnc_case_limits limits;
};

/* Make the branch of every sum small beside its shortcut. */
static int calm_branches(const struct nnc_case_model *model) {
    const struct nnc_graph *graph = model->graph;
    int code = 0;
    for (uint32_t number = 0; code >= 0 && number < graph->node_count; number++) {
        const struct nnc_node *node = &graph->nodes[number];
        if (node->layer != NNC_LAYER_ADD ||
            graph->nodes[node->input[0]].layer != NNC_LAYER_BATCHNORM2D) {
            continue;
        }
        uint32_t param = (uint32_t)graph->nodes[node->input[0]].weight;
        uint64_t count = graph->params[param].count;
        float *values = malloc(count * sizeof(*values));
        if (values == NULL) {
            return nnc_fail(-ENOMEM, "no memory for a parameter");
        }
        code = nnc_case_get(model, NNC_STATE_VALUE, param, values);
        for (uint64_t place = 0; place < count; place++) {
            values[place] *= branch_scale;
        }
        code = code < 0 ? code : model->ops->set(model->backend, NNC_STATE_VALUE, param, values);
        free(values);
    }
    return code;
}

static int step_both(const struct nnc_selftest_params *params, const struct nnc_graph *graph,
                     struct pair *pair) {
    struct nnc_case_params tested = selftest_case_params(params);
    tested.graph = graph;
    tested.whole_only = true;
    struct nnc_case_params reference = tested;
    reference.ops = params->reference;
    int code = nnc_case_open(&reference, &one_step, &pair->wanted);
    code = code < 0 ? code : nnc_case_open(&tested, &one_step, &pair->got);
    code = code < 0 ? code : calm_branches(&pair->wanted);
    code = code < 0 ? code : calm_branches(&pair->got);
    code = code < 0 ? code : nnc_case_step(&pair->wanted, NNC_CASE_WHOLE, 1, &pair->wanted_metrics);
    code = code < 0 ? code : nnc_case_step(&pair->got, NNC_CASE_WHOLE, 1, &pair->got_metrics);
    if (code >= 0) {
        nnc_case_limits(pair->wanted.program[NNC_CASE_WHOLE], params->precision, &pair->limits);
        pair->limits.gradient = fmin(pair->limits.gradient, widest_gradient);
    }
    return code;
}

static int compare_logits(const struct pair *pair, struct nnc_selftest_line *line) {
    size_t count = (size_t)BATCH * pair->got.graph->classes;
    float *values = calloc(2 * count, sizeof(*values));
    if (values == NULL) {
        return nnc_fail(-ENOMEM, "no memory for logits");
    }
    int code = pair->wanted.ops->logits(pair->wanted.executable[NNC_CASE_WHOLE], values);
    code = code < 0 ? code
                    : pair->got.ops->logits(pair->got.executable[NNC_CASE_WHOLE], values + count);
    if (code >= 0) {
        double norm = nnc_case_norm(values, NULL, count);
        selftest_measure(line, nnc_case_norm(values + count, values, count) / norm,
                         pair->limits.value, "logits differ");
    }
    free(values);
    return code;
}

static void compare_loss(const struct pair *pair, struct nnc_selftest_line *line) {
    double wanted = pair->wanted_metrics.loss_sum, got = pair->got_metrics.loss_sum;
    char text[96];
    snprintf(text, sizeof(text), "loss: wanted %.9g, got %.9g", wanted, got);
    selftest_measure(line, fabs(got - wanted) / fabs(wanted), pair->limits.value, text);
}

/* The relative error of the gradient of all parameters together. */
static int compare_gradients(const struct pair *pair, struct nnc_selftest_line *line) {
    const struct nnc_graph *graph = pair->got.graph;
    double error = 0, norm = 0;
    int code = 0;
    for (uint32_t param = 0; code >= 0 && param < graph->param_count; param++) {
        uint64_t count = graph->params[param].count;
        float *values = malloc(2 * count * sizeof(*values));
        if (values == NULL) {
            return nnc_fail(-ENOMEM, "no memory for gradients");
        }
        code = nnc_case_get(&pair->wanted, NNC_STATE_GRADIENT, param, values);
        code =
            code < 0 ? code : nnc_case_get(&pair->got, NNC_STATE_GRADIENT, param, values + count);
        if (code >= 0) {
            error += pow(nnc_case_norm(values + count, values, count), 2);
            norm += pow(nnc_case_norm(values, NULL, count), 2);
        }
        free(values);
    }
    if (code >= 0) {
        selftest_measure(line, sqrt(error / norm), pair->limits.gradient, "gradients differ");
    }
    return code;
}

uint32_t selftest_model(const struct nnc_selftest_params *params) {
    struct nnc_graph *graph = NULL;
    struct pair pair = {.limits = {0}};
    const struct nnc_graph_params text = {.path = params->model_path,
                                          .input = {.c = 3, .h = SIDE, .w = SIDE}};
    struct nnc_selftest_line value = selftest_line(params, "a whole network: loss and logits");
    struct nnc_selftest_line gradient = selftest_line(params, "a whole network: gradients");
    int code = nnc_graph_create(&text, &graph);
    selftest_begin(params, "one step of a whole network");
    if (code >= 0) {
        snprintf(value.check, sizeof(value.check), "one step of %.16s: loss, logits", graph->name);
        snprintf(gradient.check, sizeof(gradient.check), "one step of %.16s: gradients",
                 graph->name);
        code = step_both(params, graph, &pair);
    }
    if (code >= 0) {
        compare_loss(&pair, &value);
        code = compare_logits(&pair, &value);
        code = code < 0 ? code : compare_gradients(&pair, &gradient);
    }
    if (code < 0) {
        selftest_error(&value, "one step");
        gradient.status = NNC_SELFTEST_SKIPPED;
        snprintf(gradient.text, sizeof(gradient.text), "there was no step");
    }
    value.cases = gradient.cases = 1;
    nnc_case_close(&pair.got);
    nnc_case_close(&pair.wanted);
    nnc_graph_destroy(graph);
    return selftest_tell(params, &value) + selftest_tell(params, &gradient);
}
