/* SPDX-License-Identifier: Apache-2.0 */
/* Learning-rate schedules against closed forms and values of PyTorch's schedulers. */
#include "workers/lr.h"

#include <criterion/criterion.h>
#include <math.h>

static struct nnc_config config_of(int scheduler, uint32_t epochs, double lr) {
    return (struct nnc_config){.lr_scheduler = scheduler, .epochs = epochs, .lr = lr};
}

Test(lr, constant_stays) {
    struct nnc_config config = config_of(NNC_LR_CONSTANT, 3, 0.25);
    cr_assert_eq(nnc_lr_at(&config, 0, 0, 7), 0.25);
    cr_assert_eq(nnc_lr_at(&config, 2, 6, 7), 0.25);
}

Test(lr, step_falls_at_whole_epochs_only) {
    struct nnc_config config = config_of(NNC_LR_STEP, 90, 0.1);
    config.lr_step_size = 30;
    config.lr_gamma = 0.1;
    /* torch StepLR(step_size=30, gamma=0.1) at epochs 0, 29, 30, 59, 60, 89. */
    static const struct {
        uint32_t epoch;
        double want;
    } rows[] = {{0, 0.1}, {29, 0.1}, {30, 0.01}, {59, 0.01}, {60, 0.001}, {89, 0.001}};
    for (size_t row = 0; row < sizeof(rows) / sizeof(rows[0]); row++) {
        for (uint64_t step = 0; step < 10; step++) {
            double got = nnc_lr_at(&config, rows[row].epoch, step, 10);
            cr_assert_float_eq(got, rows[row].want, 1e-15, "epoch %u: %g", rows[row].epoch, got);
        }
    }
}

Test(lr, cosine_has_the_values_of_cosine_annealing) {
    struct nnc_config config = config_of(NNC_LR_COSINE, 10, 0.2);
    config.lr_min = 0.01;
    /* torch CosineAnnealingLR(T_max=10, eta_min=0.01), base 0.2, at epochs 0, 1, 2, 5, 9. */
    static const struct {
        uint32_t epoch;
        double want;
    } rows[] = {{0, 0.2},
                {1, 0.1953503690480396},
                {2, 0.18185661446562001},
                {5, 0.105},
                {9, 0.014649630951960414}};
    for (size_t row = 0; row < sizeof(rows) / sizeof(rows[0]); row++) {
        double got = nnc_lr_at(&config, rows[row].epoch, 0, 100);
        cr_assert_float_eq(got, rows[row].want, 1e-12, "epoch %u: %.17g", rows[row].epoch, got);
    }
    cr_assert_float_eq(nnc_lr_at(&config, 10, 0, 100), 0.01, 1e-15);
    double last = nnc_lr_at(&config, 9, 99, 100);
    cr_assert(last > 0.01 && last < 0.01001, "%g", last);
}

Test(lr, cosine_falls_with_every_step) {
    struct nnc_config config = config_of(NNC_LR_COSINE, 3, 1.0);
    double before = 2;
    for (uint64_t step = 0; step < 21; step++) {
        double got = nnc_lr_at(&config, (uint32_t)(step / 7), step % 7, 7);
        cr_assert_lt(got, before);
        before = got;
    }
}

Test(lr, linear_warmup_rises_per_step_and_ends_at_the_full_rate) {
    struct nnc_config config = config_of(NNC_LR_CONSTANT, 10, 0.5);
    config.lr_warmup_method = NNC_WARMUP_LINEAR;
    config.lr_warmup_epochs = 5;
    config.lr_warmup_decay = 0.01;
    /* torch LinearLR(start_factor=0.01, total_iters=5) at epochs 0..5. */
    static const double want[] = {0.005, 0.104, 0.203, 0.302, 0.401, 0.5};
    for (uint32_t epoch = 0; epoch <= 5; epoch++) {
        cr_assert_float_eq(nnc_lr_at(&config, epoch, 0, 4), want[epoch], 1e-12, "%u", epoch);
    }
    cr_assert_float_eq(nnc_lr_at(&config, 0, 2, 4), (0.005 + 0.104) / 2, 1e-12);
}

Test(lr, constant_warmup_holds_the_reduced_rate) {
    struct nnc_config config = config_of(NNC_LR_CONSTANT, 4, 0.5);
    config.lr_warmup_method = NNC_WARMUP_CONSTANT;
    config.lr_warmup_epochs = 0.5;
    config.lr_warmup_decay = 0.1;
    cr_assert_float_eq(nnc_lr_at(&config, 0, 0, 10), 0.05, 1e-15);
    cr_assert_float_eq(nnc_lr_at(&config, 0, 4, 10), 0.05, 1e-15);
    cr_assert_float_eq(nnc_lr_at(&config, 0, 5, 10), 0.5, 1e-15);
}

Test(lr, the_main_schedule_counts_from_the_end_of_the_warmup) {
    struct nnc_config config = config_of(NNC_LR_STEP, 20, 1.0);
    config.lr_step_size = 2;
    config.lr_gamma = 0.5;
    config.lr_warmup_epochs = 3;
    cr_assert_float_eq(nnc_lr_at(&config, 4, 9, 10), 1.0, 1e-15);
    cr_assert_float_eq(nnc_lr_at(&config, 5, 0, 10), 0.5, 1e-15);
    config.lr_scheduler = NNC_LR_COSINE;
    config.epochs = 13;
    cr_assert_float_eq(nnc_lr_at(&config, 3, 0, 10), 1.0, 1e-15);
    cr_assert_float_eq(nnc_lr_at(&config, 8, 0, 10), 0.5, 1e-12);
}

Test(lr, a_warmup_longer_than_the_run_never_divides_by_zero) {
    struct nnc_config config = config_of(NNC_LR_COSINE, 2, 1.0);
    config.lr_warmup_epochs = 2;
    for (uint64_t step = 0; step < 8; step++) {
        double got = nnc_lr_at(&config, (uint32_t)(step / 4), step % 4, 4);
        cr_assert(isfinite(got) && got <= 1.0, "%g", got);
    }
}
