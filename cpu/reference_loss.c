/* SPDX-License-Identifier: Apache-2.0 */
/* Losses and counts. K classes, t the target distribution, p = softmax(x), s the label smoothing:
 *
 *   cross-entropy  t = (1-s)*onehot + s/K;  loss = -sum t*log p;  dx = (p - t) / global_count
 *   MSE            loss = sum (x - onehot)^2;  dx = 2*(x - onehot) / global_count
 *
 * A sample with label -1 adds nothing and gets gradient 0. All in double.
 * Source: torch.nn.CrossEntropyLoss with class indices. */
#include "base/config.h"
#include "cpu/reference_ops.h"

#include <assert.h>
#include <math.h>

/* One sample's logits and label. */
struct sample {
    const nnc_real *x;
    uint32_t classes;
    int32_t label;
};

static struct sample sample_of(const struct nnc_executable *exe, const struct nnc_op *op,
                               uint32_t n) {
    uint32_t classes = (uint32_t)reference_features(exe, op->x);
    return (struct sample){exe->tensor[op->x] + (size_t)n * classes, classes, exe->labels[n]};
}

/* log(sum(exp(x))), shifted by the largest x so that nothing overflows. */
static double log_sum_exp(const struct sample *sample) {
    double largest = sample->x[0];
    for (uint32_t k = 1; k < sample->classes; k++) {
        largest = sample->x[k] > largest ? sample->x[k] : largest;
    }
    double sum = 0;
    for (uint32_t k = 0; k < sample->classes; k++) {
        sum += exp(sample->x[k] - largest);
    }
    return largest + log(sum);
}

static double target_at(const struct nnc_backend_params *params, const struct sample *sample,
                        uint32_t k) {
    double onehot = (int32_t)k == sample->label;
    if (params->loss == NNC_LOSS_MSE) {
        return onehot;
    }
    double smoothing = params->label_smoothing;
    return (1 - smoothing) * onehot + smoothing / sample->classes;
}

static double sample_loss(const struct nnc_backend_params *params, const struct sample *sample) {
    double log_sum = params->loss == NNC_LOSS_CROSS_ENTROPY ? log_sum_exp(sample) : 0;
    double loss = 0;
    for (uint32_t k = 0; k < sample->classes; k++) {
        double target = target_at(params, sample, k);
        double distance = sample->x[k] - target;
        bool squared = params->loss == NNC_LOSS_MSE;
        loss += squared ? distance * distance : target * (log_sum - sample->x[k]);
    }
    return loss;
}

/* Classes that come before the label when sorted by logit; ties count for the lower class, a label
 * whose logit is NaN comes last. */
static uint32_t rank_of(const struct sample *sample) {
    double own = sample->x[sample->label];
    uint32_t rank = 0;
    for (uint32_t k = 0; k < sample->classes; k++) {
        bool behind = sample->x[k] < own || (sample->x[k] == own && (int32_t)k >= sample->label);
        rank += !behind;
    }
    return rank;
}

void reference_loss_forward(struct nnc_executable *exe, const struct nnc_op *op) {
    struct nnc_metrics *metrics = &exe->backend->metrics;
    for (uint32_t n = 0; n < exe->program->batch; n++) {
        struct sample sample = sample_of(exe, op, n);
        if (sample.label < 0) {
            metrics->left_out++;
            continue;
        }
        uint32_t rank = rank_of(&sample);
        metrics->loss_sum += sample_loss(&exe->backend->params, &sample);
        metrics->count++;
        metrics->correct1 += rank < 1;
        metrics->correct5 += rank < 5;
    }
}

static double logit_gradient(const struct nnc_backend_params *params, const struct sample *sample,
                             uint32_t k, double log_sum) {
    double target = target_at(params, sample, k);
    if (params->loss == NNC_LOSS_MSE) {
        return 2 * (sample->x[k] - target);
    }
    return exp(sample->x[k] - log_sum) - target;
}

void reference_loss_backward(struct nnc_executable *exe, const struct nnc_op *op) {
    const struct nnc_backend_params *params = &exe->backend->params;
    assert(!op->dx_accumulate);
    for (uint32_t n = 0; n < exe->program->batch; n++) {
        struct sample sample = sample_of(exe, op, n);
        double log_sum = log_sum_exp(&sample);
        nnc_real *dx = exe->tensor[op->dx] + (size_t)n * sample.classes;
        for (uint32_t k = 0; k < sample.classes; k++) {
            double gradient = sample.label < 0 ? 0 : logit_gradient(params, &sample, k, log_sum);
            dx[k] = (nnc_real)(gradient / exe->step.global_count);
        }
    }
}
