/* SPDX-License-Identifier: Apache-2.0 */
/* When bench comm may say how much of the sums hides behind a step, and when it may not. */
#include "coordinator/overlap.h"

#include <criterion/criterion.h>

/* Seconds; spread is between quartiles. */
struct row {
    uint32_t repeats;
    double alone, alone_spread, together, together_spread, sums;
    bool known;
    double share;
};

static const struct row rows[] = {
    /* hidden, half hidden, on top, worse */
    {10, 1.0, 0.01, 1.0, 0.01, 0.5, true, 1.0},
    {10, 1.0, 0.01, 1.25, 0.01, 0.5, true, 0.5},
    {10, 1.0, 0.01, 1.5, 0.01, 0.5, true, 0.0},
    {10, 1.0, 0.01, 2.0, 0.01, 0.5, true, -1.0},
    /* noise of either kind of step: -96 % and 10931 % without the rule */
    {10, 0.50, 0.10, 0.502, 0.01, 0.001, false, 0},
    {10, 0.61, 0.01, 0.50, 0.10, 0.001, false, 0},
    {10, 0.50, 0.10, 0.50, 0.10, 0.10, false, 0},
    {10, 0.50, 0.10, 0.55, 0.10, 0.101, true, 1 - 0.05 / 0.101},
    /* what one step varies by is not known; nor is anything of sums that take no time */
    {1, 1.0, 0, 1.0, 0, 0.5, false, 0},
    {2, 1.0, 0, 1.0, 0, 0.5, true, 1.0},
    {10, 1.0, 0, 1.0, 0, 0, false, 0},
};

Test(overlap, is_told_only_where_the_sums_take_longer_than_a_step_varies) {
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        const struct row *row = &rows[i];
        const struct nnc_msg_comm alone = {
            .repeats = row->repeats, .seconds = row->alone, .spread = row->alone_spread};
        const struct nnc_msg_comm together = {
            .repeats = row->repeats, .seconds = row->together, .spread = row->together_spread};
        const struct nnc_msg_comm sums = {.repeats = row->repeats, .seconds = row->sums};
        struct nnc_overlap overlap = nnc_overlap_of(&alone, &together, &sums);
        cr_expect_eq(overlap.known, row->known, "row %zu", i);
        cr_expect_float_eq(overlap.share, row->share, 1e-9, "row %zu: %g", i, overlap.share);
        double varies =
            row->alone_spread > row->together_spread ? row->alone_spread : row->together_spread;
        cr_expect_eq(overlap.varies, varies, "row %zu", i);
    }
}
