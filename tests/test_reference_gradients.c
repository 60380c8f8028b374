/* SPDX-License-Identifier: Apache-2.0 */
/* The reference's gradients against finite differences, on every backend case.
 *
 * This test links the reference built with doubles. For a parameter w with gradient g and a
 * direction d of random signs, (loss(w + h d) - loss(w - h d)) must equal g . (2 h d), the right
 * side taken with the floats that w really moved by. Bounds:
 *
 *   truncation   h^2 times third derivatives: 2^-32 at h = 2^-16
 *   rounding     2^-52 of the loss over h: 2^-31 at h = 2^-21
 *   gradients    leave the backend as floats: 2^-24 |g| |d|
 *
 * so 2^-21 |g| |2 h d| + 2^-44 loss holds with room. ReLU and max pooling have kinks: a step over
 * one gives an error that does not depend on h but on luck, and a smaller h misses it. A wrong
 * gradient fails at each h. */
#include "base/rng.h"
#include "cpu/reference.h"
#include "tests/support/backend_cases.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>

enum {
    DIRECTIONS = 3
};

static const double steps[] = {0x1p-16, 0x1p-19, 0x1p-21};

/* One parameter under test. */
struct probe {
    struct nnc_case_model *model;
    uint32_t param;
    uint64_t count;
    float *value, *gradient, *moved[2];
    double norm; /* of the gradient */
};

/* Loss as the gradients see it: sum over labelled samples / global count. */
static double loss_at(struct probe *probe, const float *value) {
    const struct nnc_case_model *model = probe->model;
    cr_assert_eq(model->ops->set(model->backend, NNC_STATE_VALUE, probe->param, value), 0);
    struct nnc_metrics metrics = case_model_step(probe->model, NNC_CASE_WHOLE, 7);
    return metrics.loss_sum / (model->row->batch + 3);
}

/* |finite difference - g . d| over its bound; <= 1 is right. */
static double error_along(struct probe *probe, uint32_t direction, double step) {
    struct nnc_rng rng = nnc_rng_make(13, NNC_RNG_SYNTHETIC, direction, probe->param);
    double predicted = 0;
    double length = 0;
    for (uint64_t place = 0; place < probe->count; place++) {
        double signed_step = nnc_rng_u32(&rng) & 1 ? step : -step;
        probe->moved[0][place] = (float)(probe->value[place] - signed_step);
        probe->moved[1][place] = (float)(probe->value[place] + signed_step);
        double moved = (double)probe->moved[1][place] - probe->moved[0][place];
        predicted += moved * probe->gradient[place];
        length += moved * moved;
    }
    double low = loss_at(probe, probe->moved[0]);
    double high = loss_at(probe, probe->moved[1]);
    double bound = 0x1p-21 * probe->norm * sqrt(length) + 0x1p-44 * (1 + fabs(high));
    return fabs(high - low - predicted) / bound;
}

static void check_param(struct nnc_case_model *model, uint32_t param) {
    struct probe probe = {.model = model, .param = param};
    probe.count = model->graph->params[param].count;
    float *memory = calloc(4 * probe.count, sizeof(*memory));
    probe.value = memory;
    probe.gradient = memory + probe.count;
    probe.moved[0] = memory + 2 * probe.count;
    probe.moved[1] = memory + 3 * probe.count;
    model->ops->get(model->backend, NNC_STATE_VALUE, param, probe.value);
    loss_at(&probe, probe.value);
    model->ops->get(model->backend, NNC_STATE_GRADIENT, param, probe.gradient);
    for (uint64_t place = 0; place < probe.count; place++) {
        probe.norm += (double)probe.gradient[place] * probe.gradient[place];
    }
    probe.norm = sqrt(probe.norm);
    for (uint32_t direction = 0; direction < DIRECTIONS; direction++) {
        double best = INFINITY;
        for (size_t number = 0; number < sizeof(steps) / sizeof(steps[0]) && best > 1; number++) {
            best = fmin(best, error_along(&probe, direction, steps[number]));
        }
        cr_expect(best <= 1, "%s, %s, direction %u: error is %.3g times the bound, |g| %.3g",
                  model->row->name, model->graph->params[param].name, direction, best, probe.norm);
    }
    model->ops->set(model->backend, NNC_STATE_VALUE, param, probe.value);
    free(memory);
}

Test(reference_gradients, equal_finite_differences_for_every_case_and_parameter, .timeout = 120) {
    for (const struct nnc_case *row = nnc_cases; row->name; row++) {
        struct nnc_case_model model;
        case_model_open(&nnc_backend_reference, row, &model);
        for (uint32_t param = 0; param < model.graph->param_count; param++) {
            if (model.graph->params[param].kind != NNC_PARAM_BUFFER) {
                check_param(&model, param);
            }
        }
        case_model_close(&model);
    }
}
