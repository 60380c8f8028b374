/* SPDX-License-Identifier: Apache-2.0 */
/* The schedule: each sample exactly once at any number of ranks, numbers without holes, refusals.
 */
#include "ipc/schedule.h"

#include "base/err.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* Rows of the exactly-once test, crossed with 1..5 ranks. */
static const struct {
    uint64_t train, val;
    uint32_t batch, epochs, eval_every, drop_last, limit_train, limit_val;
} rows[] = {
    {100, 37, 8, 3, 1, 0, 0, 0}, {100, 37, 8, 3, 1, 1, 0, 0},  {1, 1, 1, 1, 1, 0, 0, 0},
    {1, 1, 64, 2, 0, 0, 0, 0},   {64, 0, 4, 4, 1, 0, 0, 0},    {0, 101, 7, 1, 1, 0, 0, 0},
    {96, 5, 4, 5, 2, 1, 0, 0},   {97, 5, 4, 5, 2, 0, 3, 0},    {97, 41, 4, 7, 3, 0, 0, 2},
    {97, 41, 1, 6, 3, 0, 11, 1}, {500, 10, 25, 2, 9, 1, 1, 1}, {63, 63, 2, 4, 4, 0, 1000, 1000},
};

static struct nnc_schedule make_row(size_t row, uint32_t ranks) {
    return (struct nnc_schedule){
        .train_samples = rows[row].train,
        .val_samples = rows[row].val,
        .ranks = ranks,
        .batch = rows[row].batch,
        .epochs = rows[row].epochs,
        .eval_every = rows[row].eval_every,
        .drop_last = rows[row].drop_last,
        .limit_train_steps = rows[row].limit_train,
        .limit_val_steps = rows[row].limit_val,
    };
}

/* Samples of one phase and epoch that must be seen: all, less the dropped and the limited ones. */
static uint64_t expected_samples(const struct nnc_schedule *schedule, enum nnc_phase phase) {
    uint64_t global = (uint64_t)schedule->ranks * schedule->batch;
    bool training = phase == NNC_PHASE_TRAIN;
    uint64_t samples = training ? schedule->train_samples : schedule->val_samples;
    uint32_t limit = training ? schedule->limit_train_steps : schedule->limit_val_steps;
    if (training && schedule->drop_last) {
        samples -= samples % global;
    }
    return limit != 0 && samples > limit * global ? limit * global : samples;
}

static bool has_validation(const struct nnc_schedule *schedule, uint32_t epoch) {
    bool regular = schedule->eval_every != 0 && (epoch + 1) % schedule->eval_every == 0;
    return schedule->val_samples > 0 && (regular || epoch + 1 == schedule->epochs);
}

/* Mark a rank's samples of one batch; each may be marked once. */
static void mark(uint8_t *seen, const struct nnc_batch_place *place, size_t row) {
    for (uint32_t i = 0; i < place->count; i++) {
        cr_assert_eq(seen[place->first + i]++, 0, "row %zu: sample %" PRIu64 " seen twice", row,
                     place->first + i);
    }
}

/* Walk the batches of one phase of one epoch from *seq on and check that they tile its samples. */
static void walk_phase(const struct nnc_schedule *schedule, enum nnc_phase phase, uint32_t epoch,
                       uint64_t *seq, size_t row) {
    uint64_t expected = expected_samples(schedule, phase);
    uint8_t *seen = calloc(expected + 1, 1);
    uint64_t delivered = 0;
    uint64_t step = 0;
    for (bool last = false; !last; ++*seq, step++) {
        uint64_t in_step = 0;
        uint32_t global_count = 0;
        for (uint32_t rank = 0; rank < schedule->ranks; rank++) {
            struct nnc_batch_place place;
            cr_assert_eq(nnc_schedule_locate(schedule, rank, *seq, &place), 0, "row %zu", row);
            cr_assert(place.phase == phase && place.epoch == epoch && place.step == step,
                      "row %zu ranks %u seq %" PRIu64 ": phase %d epoch %u step %" PRIu64, row,
                      schedule->ranks, *seq, (int)place.phase, place.epoch, place.step);
            mark(seen, &place, row);
            in_step += place.count;
            global_count = place.global_count;
            last = place.is_last;
        }
        cr_assert_eq(in_step, global_count, "row %zu: %" PRIu64 " of %u", row, in_step,
                     global_count);
        cr_assert_geq(global_count, 1);
        delivered += in_step;
    }
    cr_assert_eq(delivered, expected, "row %zu: %" PRIu64 " of %" PRIu64, row, delivered, expected);
    free(seen);
}

Test(schedule, each_sample_comes_exactly_once_at_any_number_of_ranks) {
    for (size_t row = 0; row < sizeof(rows) / sizeof(rows[0]); row++) {
        for (uint32_t ranks = 1; ranks <= 5; ranks++) {
            struct nnc_schedule schedule = make_row(row, ranks);
            uint64_t seq = 0;
            cr_assert_eq(nnc_schedule_check(&schedule), 0, "row %zu: %s", row, nnc_error_text());
            for (uint32_t epoch = 0; epoch < schedule.epochs; epoch++) {
                if (schedule.train_samples > 0) {
                    walk_phase(&schedule, NNC_PHASE_TRAIN, epoch, &seq, row);
                }
                if (has_validation(&schedule, epoch)) {
                    walk_phase(&schedule, NNC_PHASE_VAL, epoch, &seq, row);
                }
            }
            cr_assert_eq(seq, nnc_schedule_total(&schedule), "row %zu ranks %u", row, ranks);
            struct nnc_batch_place place;
            cr_assert_eq(nnc_schedule_locate(&schedule, 0, seq, &place), -ENOENT);
        }
    }
}

Test(schedule, seq_is_the_inverse_of_locate) {
    for (size_t row = 0; row < sizeof(rows) / sizeof(rows[0]); row++) {
        struct nnc_schedule schedule = make_row(row, 2);
        for (uint64_t seq = 0; seq < nnc_schedule_total(&schedule); seq++) {
            struct nnc_batch_place place;
            cr_assert_eq(nnc_schedule_locate(&schedule, 1, seq, &place), 0);
            uint64_t step = place.step;
            if (place.phase == NNC_PHASE_VAL) {
                step = nnc_schedule_train_steps(&schedule);
            }
            uint64_t back = nnc_schedule_seq(&schedule, place.epoch, step);
            uint64_t expected = place.phase == NNC_PHASE_VAL ? seq - place.step : seq;
            cr_assert_eq(back, expected, "row %zu seq %" PRIu64 ": %" PRIu64, row, seq, back);
        }
        cr_assert_eq(nnc_schedule_seq(&schedule, schedule.epochs, 0),
                     nnc_schedule_total(&schedule));
    }
}

Test(schedule, step_behind_the_last_names_validation_or_next_epoch) {
    struct nnc_schedule schedule = {.train_samples = 10,
                                    .val_samples = 3,
                                    .ranks = 1,
                                    .batch = 4,
                                    .epochs = 4,
                                    .eval_every = 2};
    struct nnc_batch_place place;
    cr_assert_eq(nnc_schedule_locate(&schedule, 0, nnc_schedule_seq(&schedule, 0, 3), &place), 0);
    cr_assert(place.phase == NNC_PHASE_TRAIN && place.epoch == 1 && place.step == 0);
    cr_assert_eq(nnc_schedule_locate(&schedule, 0, nnc_schedule_seq(&schedule, 1, 3), &place), 0);
    cr_assert(place.phase == NNC_PHASE_VAL && place.epoch == 1 && place.step == 0);
    cr_assert_eq(nnc_schedule_val_steps(&schedule, 0), 0);
    cr_assert_eq(nnc_schedule_val_steps(&schedule, 1), 1);
    cr_assert_eq(nnc_schedule_val_steps(&schedule, 4), 0);
}

Test(schedule, a_step_has_the_same_samples_at_any_number_of_ranks_with_one_global_batch) {
    struct nnc_schedule one = {.train_samples = 1000, .ranks = 1, .batch = 12, .epochs = 1};
    struct nnc_schedule four = one;
    four.ranks = 4;
    four.batch = 3;
    cr_assert_eq(nnc_schedule_total(&one), nnc_schedule_total(&four));
    for (uint64_t seq = 0; seq < nnc_schedule_total(&one); seq++) {
        struct nnc_batch_place whole, slice;
        cr_assert_eq(nnc_schedule_locate(&one, 0, seq, &whole), 0);
        uint64_t next = whole.first;
        for (uint32_t rank = 0; rank < 4; rank++) {
            cr_assert_eq(nnc_schedule_locate(&four, rank, seq, &slice), 0);
            cr_assert(slice.count == 0 || slice.first == next);
            next += slice.count;
        }
        cr_assert_eq(next, whole.first + whole.count);
    }
}

Test(schedule, largest_numbers_are_located_without_overflow) {
    struct nnc_schedule schedule = {.train_samples = UINT32_MAX,
                                    .val_samples = UINT32_MAX,
                                    .ranks = 64,
                                    .batch = 10000,
                                    .epochs = UINT32_MAX,
                                    .eval_every = 1};
    cr_assert_eq(nnc_schedule_check(&schedule), 0);
    uint64_t total = nnc_schedule_total(&schedule);
    struct nnc_batch_place place;
    cr_assert_eq(nnc_schedule_locate(&schedule, 0, total - 1, &place), 0);
    cr_assert(place.epoch == UINT32_MAX - 1 && place.phase == NNC_PHASE_VAL && place.is_last);
    cr_assert_eq(place.global_count, UINT32_MAX % 640000);
}

Test(schedule, impossible_numbers_are_refused_with_a_reason) {
    static const struct {
        struct nnc_schedule schedule;
        const char *text;
    } bad[] = {
        {{.train_samples = 9, .ranks = 0, .batch = 1, .epochs = 1}, "ranks"},
        {{.train_samples = 9, .ranks = 65, .batch = 1, .epochs = 1}, "ranks"},
        {{.train_samples = 9, .ranks = 1, .batch = 0, .epochs = 1}, "batches of 0"},
        {{.train_samples = 9, .ranks = 1, .batch = 10001, .epochs = 1}, "10001"},
        {{.train_samples = 9, .ranks = 1, .batch = 1, .epochs = 0}, "--epochs"},
        {{.ranks = 1, .batch = 1, .epochs = 1}, "no samples"},
        {{.train_samples = 1ull << 32, .ranks = 1, .batch = 1, .epochs = 1}, "more than"},
        {{.val_samples = UINT64_MAX, .ranks = 1, .batch = 1, .epochs = 1}, "more than"},
        {{.train_samples = 9, .ranks = 2, .batch = 5, .epochs = 1, .drop_last = 1}, "--drop-last"},
        {{.train_samples = UINT32_MAX,
          .val_samples = UINT32_MAX,
          .ranks = 1,
          .batch = 1,
          .epochs = UINT32_MAX,
          .eval_every = 1},
         "cannot be counted"},
    };
    for (size_t row = 0; row < sizeof(bad) / sizeof(bad[0]); row++) {
        cr_assert_eq(nnc_schedule_check(&bad[row].schedule), -NNC_E_USAGE, "row %zu", row);
        cr_assert_not_null(strstr(nnc_error_text(), bad[row].text), "row %zu: %s", row,
                           nnc_error_text());
    }
}
