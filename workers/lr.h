/* SPDX-License-Identifier: Apache-2.0 */
/* The learning rate as a pure function of the place in training, so that a resumed run has the same
 * one without any stored scheduler state. */
#ifndef NNC_WORKERS_LR_H
#define NNC_WORKERS_LR_H

#include "base/config.h"

#include <stdint.h>

/* Learning rate of training step `step` of `epoch`.
 * Math:   t = epoch + step / steps_per_epoch, w = lr_warmup_epochs, E = epochs, d =
 * lr_warmup_decay. t < w:    lr * (d + (1 - d) t / w) for linear, lr * d for constant warm-up; t >=
 * w:   constant  lr step      lr * gamma^floor(floor(t - w) / lr_step_size) cosine    lr_min + (lr
 * - lr_min) (1 + cos(pi (t - w) / (E - w))) / 2 The cosine reaches lr_min at t = E, the end of the
 * last epoch. As in torchvision's reference scripts the main schedule starts to count when the
 * warm-up is over. Units:  epochs and steps count from 0; steps_per_epoch >= 1 (assert). Source:
 * torch.optim.lr_scheduler LinearLR, ConstantLR, StepLR, CosineAnnealingLR, SequentialLR. */
double nnc_lr_at(const struct nnc_config *config, uint32_t epoch, uint64_t step,
                 uint64_t steps_per_epoch);

#endif
