/* SPDX-License-Identifier: Apache-2.0 */
/* Which sample a claim stands for. */
#include "loader/sampler.h"

#include "base/err.h"

#include <criterion/criterion.h>
#include <string.h>

static const struct nnc_sampler sampler = {
    .schedule = {.train_samples = 103,
                 .val_samples = 41,
                 .ranks = 2,
                 .batch = 8,
                 .epochs = 3,
                 .eval_every = 1},
    .seed = 77,
};

/* Visit all places of one epoch; count how often each sample of each phase is met. */
static void count_epoch(uint32_t epoch, uint32_t seen[2][128]) {
    memset(seen, 0, 2 * 128 * sizeof(uint32_t));
    uint64_t total = nnc_schedule_total(&sampler.schedule);
    for (uint64_t seq = 0; seq < total; seq++) {
        for (uint32_t rank = 0; rank < 2; rank++) {
            struct nnc_batch_place batch;
            cr_assert_eq(nnc_schedule_locate(&sampler.schedule, rank, seq, &batch), 0);
            for (uint32_t i = 0; batch.epoch == epoch && i < batch.count; i++) {
                struct nnc_claim claim = {.seq = seq, .index = i};
                struct nnc_sampler_place place;
                cr_assert_eq(nnc_sampler_locate(&sampler, rank, &claim, &place), 0);
                cr_assert(place.phase == batch.phase && place.k == batch.first + i);
                seen[place.phase][place.sample]++;
            }
        }
    }
}

Test(sampler, every_sample_comes_exactly_once_in_each_epoch_and_phase) {
    for (uint32_t epoch = 0; epoch < 3; epoch++) {
        uint32_t seen[2][128];
        count_epoch(epoch, seen);
        for (uint32_t i = 0; i < 128; i++) {
            cr_expect_eq(seen[NNC_PHASE_TRAIN][i], i < 103, "epoch %u sample %u", epoch, i);
            cr_expect_eq(seen[NNC_PHASE_VAL][i], i < 41, "epoch %u sample %u", epoch, i);
        }
    }
}

Test(sampler, a_ring_stands_for_the_rank_that_it_has_over_all_machines) {
    struct nnc_sampler second = sampler;
    second.first_rank = 1;
    const struct nnc_claim claim = {.seq = 3, .index = 5};
    struct nnc_sampler_place here, there;
    cr_assert_eq(nnc_sampler_locate(&sampler, 1, &claim, &here), 0);
    cr_assert_eq(nnc_sampler_locate(&second, 0, &claim, &there), 0);
    cr_assert(here.k == there.k && here.sample == there.sample);
    cr_assert_eq(nnc_sampler_locate(&sampler, 0, &claim, &there), 0);
    cr_assert_neq(here.k, there.k);
}

Test(sampler, the_order_of_training_differs_between_epochs_and_validation_is_in_order) {
    uint32_t same = 0;
    uint64_t second = nnc_schedule_seq(&sampler.schedule, 1, 0);
    uint64_t validation =
        nnc_schedule_seq(&sampler.schedule, 0, nnc_schedule_train_steps(&sampler.schedule));
    for (uint32_t i = 0; i < 8; i++) {
        struct nnc_sampler_place place[3];
        const struct nnc_claim claims[3] = {
            {.seq = 0, .index = i}, {.seq = second, .index = i}, {.seq = validation, .index = i}};
        for (int c = 0; c < 3; c++) {
            cr_assert_eq(nnc_sampler_locate(&sampler, 0, &claims[c], &place[c]), 0);
        }
        same += place[0].sample == place[1].sample;
        cr_expect_eq(place[2].sample, i);
        cr_expect_eq(place[2].phase, NNC_PHASE_VAL);
    }
    cr_expect_lt(same, 4);
}

Test(sampler, a_claim_outside_the_schedule_is_an_error) {
    const struct nnc_claim claims[] = {
        {.seq = nnc_schedule_total(&sampler.schedule), .index = 0},
        {.seq = UINT64_MAX - 1, .index = 0},
        {.seq = 0, .index = 8},
    };
    for (size_t i = 0; i < sizeof(claims) / sizeof(claims[0]); i++) {
        struct nnc_sampler_place place;
        cr_expect_eq(nnc_sampler_locate(&sampler, 0, &claims[i], &place), -NNC_E_FORMAT, "row %zu",
                     i);
    }
}

Test(sampler, substitutes_are_the_same_for_everybody_and_differ_between_attempts) {
    struct nnc_sampler_place place = {.phase = NNC_PHASE_TRAIN, .epoch = 2, .k = 55, .sample = 3};
    uint32_t distinct = 0;
    for (uint32_t attempt = 0; attempt < NNC_SAMPLER_SUBSTITUTES; attempt++) {
        uint64_t sample = nnc_sampler_substitute(&sampler, &place, attempt);
        cr_assert_lt(sample, 103);
        cr_expect_eq(sample, nnc_sampler_substitute(&sampler, &place, attempt));
        distinct += attempt == 0 || sample != nnc_sampler_substitute(&sampler, &place, attempt - 1);
    }
    cr_expect_geq(distinct, 6);
    uint64_t first = nnc_sampler_substitute(&sampler, &place, 0);
    place.k = 56;
    uint64_t other = nnc_sampler_substitute(&sampler, &place, 0);
    place.epoch = 1;
    uint64_t third = nnc_sampler_substitute(&sampler, &place, 0);
    cr_expect(first != other || other != third, "substitutes do not depend on the place");
}

Test(sampler, a_bad_place_in_training_gets_all_substitutes_and_one_in_validation_none) {
    struct nnc_sampler_place place = {.phase = NNC_PHASE_TRAIN, .epoch = 2, .k = 55, .sample = 3};
    const struct nnc_sampler_place first = place;
    uint32_t attempt = 0;
    while (attempt < NNC_SAMPLER_SUBSTITUTES) {
        uint64_t sample = nnc_sampler_substitute(&sampler, &first, attempt);
        cr_assert(nnc_sampler_replace(&sampler, &attempt, &place));
        cr_assert_eq(place.sample, sample);
        cr_assert_eq(place.k, 55);
    }
    cr_assert_not(nnc_sampler_replace(&sampler, &attempt, &place));
    place.phase = NNC_PHASE_VAL;
    attempt = 0;
    cr_assert_not(nnc_sampler_replace(&sampler, &attempt, &place));
    cr_assert_eq(attempt, 0);
}
