/* SPDX-License-Identifier: Apache-2.0 */
/* The shared decision of Dropout: rates, limits, and what it depends on. */
#include "workers/dropout.h"

#include <criterion/criterion.h>
#include <math.h>

enum {
    SAMPLES = 64,
    FEATURES = 1001
};

static uint32_t count_kept(const struct nnc_dropout *dropout) {
    uint32_t kept = 0;
    for (uint32_t sample = 0; sample < SAMPLES; sample++) {
        for (uint32_t feature = 0; feature < FEATURES; feature++) {
            kept += nnc_dropout_keep(dropout, sample, feature);
        }
    }
    return kept;
}

Test(dropout, keeps_its_share_and_scales_by_its_inverse) {
    static const double rates[] = {0.1, 0.25, 0.5, 0.9};
    for (size_t row = 0; row < sizeof(rates) / sizeof(rates[0]); row++) {
        double p = rates[row];
        struct nnc_dropout dropout = nnc_dropout_make(5, 17, 3, p);
        double total = SAMPLES * FEATURES;
        double deviation = sqrt(total * p * (1 - p));
        cr_assert_float_eq((double)count_kept(&dropout), total * (1 - p), 5 * deviation, "p %g", p);
        cr_assert_float_eq(dropout.scale * (1 - p), 1, 1e-6);
    }
}

Test(dropout, zero_keeps_all_and_one_keeps_nothing) {
    struct nnc_dropout none = nnc_dropout_make(5, 17, 3, 0);
    struct nnc_dropout all = nnc_dropout_make(5, 17, 3, 1);
    cr_assert_eq(count_kept(&none), SAMPLES * FEATURES);
    cr_assert_eq(none.scale, 1);
    cr_assert_eq(count_kept(&all), 0);
    cr_assert_eq(all.scale, 0);
}

Test(dropout, seed_step_node_sample_and_feature_each_matter) {
    struct nnc_dropout base = nnc_dropout_make(5, 17, 3, 0.5);
    const struct nnc_dropout others[] = {
        nnc_dropout_make(6, 17, 3, 0.5), nnc_dropout_make(5 + ((uint64_t)1 << 40), 17, 3, 0.5),
        nnc_dropout_make(5, 18, 3, 0.5), nnc_dropout_make(5, 17, 4, 0.5)};
    for (size_t row = 0; row < sizeof(others) / sizeof(others[0]); row++) {
        double equal = 0;
        for (uint32_t feature = 0; feature < 4000; feature++) {
            equal +=
                nnc_dropout_keep(&base, 9, feature) == nnc_dropout_keep(&others[row], 9, feature);
        }
        cr_assert_float_eq(equal, 2000, 5 * sqrt(1000), "row %zu: masks are alike", row);
    }
    double equal = 0;
    for (uint32_t feature = 0; feature < 4000; feature++) {
        equal += nnc_dropout_keep(&base, 9, feature) == nnc_dropout_keep(&base, 10, feature);
    }
    cr_assert_float_eq(equal, 2000, 5 * sqrt(1000), "samples have masks alike");
}

/* Written down so that no change of the counter's layout goes unnoticed: a resumed run would
 * differ. */
Test(dropout, the_mask_of_a_seed_never_changes) {
    struct nnc_dropout dropout = nnc_dropout_make(1, 2, 3, 0.5);
    uint64_t mask = 0;
    for (uint32_t feature = 0; feature < 64; feature++) {
        mask |= (uint64_t)nnc_dropout_keep(&dropout, 4, feature) << feature;
    }
    cr_assert_eq(mask, 0xd574fdef9ee9a76d, "%#lx", mask);
}
