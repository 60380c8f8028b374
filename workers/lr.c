/* SPDX-License-Identifier: Apache-2.0 */
/* Learning-rate schedules in closed form. PyTorch's schedulers multiply the rate up step by step;
 * the closed forms agree with them at whole epochs and interpolate per step in between (warm-up,
 * cosine). Nothing is stored: resuming in the middle of an epoch needs only the place.
 *
 * Source: see lr.h. */
#include "workers/lr.h"

#include <assert.h>
#include <math.h>

static const double PI = 3.14159265358979323846;

static double warmup_lr(const struct nnc_config *config, double t) {
    double decay = config->lr_warmup_decay;
    if (config->lr_warmup_method == NNC_WARMUP_CONSTANT) {
        return config->lr * decay;
    }
    return config->lr * (decay + (1.0 - decay) * t / config->lr_warmup_epochs);
}

static double step_lr(const struct nnc_config *config, double t_main) {
    double every = config->lr_step_size > 0 ? config->lr_step_size : 1;
    return config->lr * pow(config->lr_gamma, floor(floor(t_main) / every));
}

static double cosine_lr(const struct nnc_config *config, double t_main) {
    double length = config->epochs - config->lr_warmup_epochs;
    double share = fmin(t_main / length, 1.0);
    return config->lr_min + (config->lr - config->lr_min) * (1.0 + cos(PI * share)) / 2.0;
}

double nnc_lr_at(const struct nnc_config *config, uint32_t epoch, uint64_t step,
                 uint64_t steps_per_epoch) {
    assert(config != NULL);
    assert(steps_per_epoch >= 1);
    double t = epoch + (double)step / (double)steps_per_epoch;
    if (t < config->lr_warmup_epochs) {
        return warmup_lr(config, t);
    }
    double t_main = t - config->lr_warmup_epochs;
    switch ((enum nnc_lr_scheduler)config->lr_scheduler) {
    case NNC_LR_CONSTANT:
        return config->lr;
    case NNC_LR_STEP:
        return step_lr(config, t_main);
    case NNC_LR_COSINE:
        return cosine_lr(config, t_main);
    }
    assert(!"unknown schedule");
    return config->lr;
}
