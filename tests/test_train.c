/* SPDX-License-Identifier: Apache-2.0 */
/* The trainer's loop on the reference backend: learning, ranks, stops and resumes, modes. */
#include "tests/support/train_case.h"
#include "tests/support/vfs_sim.h"
#include "workers/checkpoint.h"
#include "workers/saver.h"
#include "workers/state.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static const char MLP[] = "Sequential(Flatten(), Linear(64, 12), ReLU(), Linear(12, 4))\n";
static const char CNN[] =
    "Sequential(Conv2d(1, 3, kernel_size=3, padding=1), BatchNorm2d(3), ReLU(), Dropout(0.2),\n"
    "    AdaptiveAvgPool2d(4), Flatten(), Linear(48, 4))\n";

static void check_codes(const struct train_case *train) {
    for (uint32_t rank = 0; rank < train->setup.ranks; rank++) {
        cr_assert_eq(train->log[rank].code, 0, "rank %u: %s", rank, train->log[rank].text);
        cr_assert_eq(train->log[rank].done_count, 1);
    }
}

Test(train, the_loss_falls_and_every_epoch_is_reported) {
    struct train_case train;
    train_case_init(&train, MLP);
    train.setup.config.epochs = 6;
    train_case_run(&train);
    check_codes(&train);
    const struct train_case_log *log = &train.log[0];
    cr_assert_eq(log->eval_count, 12);
    for (uint32_t i = 0; i < 12; i++) {
        const struct nnc_msg_eval *eval = &log->evals[i];
        cr_assert_eq(eval->phase, i % 2);
        cr_assert_eq(eval->epoch, i / 2);
        cr_assert_eq(eval->count, i % 2 == 0 ? 96 : 40, "%llu images",
                     (unsigned long long)eval->count);
    }
    const struct nnc_msg_eval *first = &log->evals[1], *last = &log->evals[11];
    cr_assert_lt(last->loss_sum, first->loss_sum * 0.5, "%g, then %g", first->loss_sum,
                 last->loss_sum);
    cr_assert_geq(last->correct1, 36, "%llu of 40", (unsigned long long)last->correct1);
    cr_assert_eq(log->done.steps, 36);
    cr_assert_eq(log->done.images, 6 * (96 + 40));
    cr_assert_eq(strlen(log->done.weights_sha256), 64);
    cr_assert_eq(log->snapshots, 6, "one after each epoch, the last one is the end: %u",
                 log->snapshots);
    cr_assert_eq(log->durable, 6);
    train_case_finish(&train);
}

Test(train, one_rank_of_64_and_two_of_32_agree_after_20_steps) {
    struct train_case one, two;
    train_case_init(&one, MLP);
    train_case_init(&two, MLP);
    struct train_case *both[] = {&one, &two};
    for (uint32_t ranks = 1; ranks <= 2; ranks++) {
        struct train_case *train = both[ranks - 1];
        train->setup.ranks = ranks;
        train->setup.config.batch_size = 64 / ranks;
        train->setup.schedule.train_samples = 20 * 64;
        train->setup.config.epochs = 1;
        train_case_run(train);
        check_codes(train);
        cr_assert_eq(train->log[0].done.steps, 20);
    }
    double largest = 0;
    for (size_t i = 0; i < one.floats; i++) {
        largest = fmax(largest, fabs((double)one.weights[i] - (double)two.weights[i]));
    }
    cr_assert_lt(largest, 1e-5, "they differ by %g", largest);
    train_case_finish(&one);
    train_case_finish(&two);
}

Test(train, results_do_not_depend_on_loaders_or_ring_depth) {
    char want[65] = "";
    static const struct { uint32_t loaders, slots; } rows[] = {{1, 2}, {2, 4}, {3, 8}};
    for (size_t row = 0; row < sizeof(rows) / sizeof(rows[0]); row++) {
        struct train_case train;
        train_case_init(&train, CNN);
        train.loaders = rows[row].loaders;
        train.setup.geometry.slots = rows[row].slots;
        train_case_run(&train);
        check_codes(&train);
        if (row == 0) {
            strcpy(want, train.log[0].done.weights_sha256);
        }
        cr_assert_str_eq(train.log[0].done.weights_sha256, want, "row %zu", row);
        train_case_finish(&train);
    }
}

Test(train, every_image_counts_once_at_any_number_of_ranks) {
    for (uint32_t ranks = 1; ranks <= 4; ranks++) {
        /* 91 and 37 leave tails that some ranks have no part in. */
        struct train_case train;
        train_case_init(&train, CNN);
        train.setup.ranks = ranks;
        train.setup.schedule.train_samples = 91;
        train.setup.schedule.val_samples = 37;
        train.setup.config.epochs = 1;
        train_case_run(&train);
        check_codes(&train);
        uint64_t counts[2] = {0};
        for (uint32_t rank = 0; rank < ranks; rank++) {
            counts[0] += train.log[rank].evals[0].count;
            counts[1] += train.log[rank].evals[1].count;
        }
        cr_assert(counts[0] == 91 && counts[1] == 37, "%u ranks: %llu and %llu", ranks,
                  (unsigned long long)counts[0], (unsigned long long)counts[1]);
        train_case_finish(&train);
    }
}

/* ---- stops, snapshots, resumes ---- */

/* The reported sums of the epochs must be the same bits. */
static void check_evals(const struct train_case *want, const struct train_case *got, uint32_t rank,
                        uint64_t stop_at) {
    const struct train_case_log *all = &want->log[rank], *rest = &got->log[rank];
    cr_assert_leq(rest->eval_count, all->eval_count);
    uint32_t skipped = all->eval_count - rest->eval_count;
    for (uint32_t i = 0; i < rest->eval_count; i++) {
        const struct nnc_msg_eval *a = &all->evals[skipped + i], *b = &rest->evals[i];
        cr_assert(a->phase == b->phase && a->epoch == b->epoch && a->count == b->count &&
                      a->correct1 == b->correct1 && a->loss_sum == b->loss_sum,
                  "stop %llu, rank %u, report %u: %llu %.17g, not %llu %.17g",
                  (unsigned long long)stop_at, rank, i, (unsigned long long)b->count, b->loss_sum,
                  (unsigned long long)a->count, a->loss_sum);
    }
}

static void check_resumes(uint32_t ranks, uint64_t stop_step) {
    struct train_case whole;
    train_case_init(&whole, CNN);
    whole.setup.ranks = ranks;
    whole.setup.config.batch_size = 16 / ranks;
    whole.setup.schedule.train_samples = 90;
    train_case_run(&whole);
    check_codes(&whole);
    for (uint64_t stop_at = 1; stop_at <= 18; stop_at += stop_step) {
        struct train_case train;
        train_case_init(&train, CNN);
        train.setup.ranks = ranks;
        train.setup.config.batch_size = 16 / ranks;
        train.setup.schedule.train_samples = 90;
        train.stop_at = stop_at;
        train_case_run(&train);
        check_codes(&train);
        cr_assert(train.log[0].newest.for_stop && train.log[0].newest.durable);
        train.stop_at = 2; /* a second stop soon after the first */
        train_case_resume(&train);
        check_codes(&train);
        train.stop_at = 0;
        train_case_resume(&train);
        check_codes(&train);
        cr_assert_str_eq(train.log[0].done.weights_sha256, whole.log[0].done.weights_sha256,
                         "%u ranks, stopped at batch %llu", ranks, (unsigned long long)stop_at);
        cr_assert_eq(memcmp(train.weights, whole.weights, whole.floats * sizeof(float)), 0,
                     "momentum too");
        for (uint32_t rank = 0; rank < ranks; rank++) {
            check_evals(&whole, &train, rank, stop_at);
        }
        train_case_finish(&train);
    }
    train_case_finish(&whole);
}

Test(train, a_run_stopped_at_any_batch_and_resumed_twice_is_bit_identical) {
    check_resumes(1, 1);
}

Test(train, so_is_one_with_two_ranks) {
    check_resumes(2, 5);
}

Test(train, a_snapshot_on_request_changes_nothing_and_is_not_for_the_disk) {
    struct train_case plain, asked;
    train_case_init(&plain, CNN);
    train_case_init(&asked, CNN);
    asked.snap_at = 4;
    train_case_run(&plain);
    train_case_run(&asked);
    check_codes(&asked);
    cr_assert_eq(asked.log[0].snapshots, plain.log[0].snapshots + 1);
    cr_assert_eq(asked.log[0].durable, plain.log[0].durable);
    cr_assert_str_eq(asked.log[0].done.weights_sha256, plain.log[0].done.weights_sha256);
    train_case_finish(&plain);
    train_case_finish(&asked);
}

Test(train, save_every_counts_in_epochs_and_parts_of_them) {
    static const struct {
        double every;
        uint32_t durable;
    } rows[] = {{0, 1}, {1, 3}, {2, 2}, {0.5, 6}, {5, 1}};
    for (size_t row = 0; row < sizeof(rows) / sizeof(rows[0]); row++) {
        struct train_case train;
        train_case_init(&train, MLP);
        train.setup.config.epochs = 3;
        train.setup.config.save_every = rows[row].every;
        train_case_run(&train);
        check_codes(&train);
        cr_assert_eq(train.log[0].durable, rows[row].durable, "every %g: %u", rows[row].every,
                     train.log[0].durable);
        cr_assert(train.log[0].newest.epoch == 3 && train.log[0].newest.step == 0);
        train_case_finish(&train);
    }
}

Test(train, a_checkpoint_written_by_the_saver_continues_bit_for_bit) {
    struct train_case whole, train;
    train_case_init(&whole, CNN);
    train_case_init(&train, CNN);
    struct vfs_sim *sim = vfs_sim_create();
    train.vfs = vfs_sim_vfs(sim);
    cr_assert_eq(nnc_vfs_make_dirs(train.vfs, "run", 0700), 0);
    strcpy(train.setup.run_dir, "run");
    train_case_run(&whole);
    train.stop_at = 9; /* in the middle of the second epoch */
    train_case_run(&train);
    check_codes(&train);
    train.setup.save_half = train.log[0].newest.half;
    struct nnc_checkpoint_saved saved;
    uint64_t step;
    cr_assert_eq(nnc_saver_save(train.vfs, &train.setup, train.snapshot, &saved, &step), 0, "%s",
                 nnc_error_text());
    cr_assert_str_eq(saved.weights_sha256, train.log[0].done.weights_sha256);
    train.setup.start = NNC_START_CHECKPOINT;
    strcpy(train.setup.start_path, saved.path);
    train.setup.start_epoch = train.log[0].newest.epoch;
    train.setup.start_step = train.log[0].newest.step;
    train.stop_at = 0;
    train_case_run(&train);
    check_codes(&train);
    cr_assert_str_eq(train.log[0].done.weights_sha256, whole.log[0].done.weights_sha256);
    check_evals(&whole, &train, 0, 9);
    vfs_sim_destroy(sim);
    train_case_finish(&whole);
    train_case_finish(&train);
}

/* Leave a half of the snapshot as a writer that was killed leaves it: its sequence number is odd.
 */
static void tear(struct train_case *train, uint32_t half) {
    uint8_t *memory = train->snapshot;
    memory[half * (train->setup.snapshot_bytes / 2) + 12] |= 1;
}

Test(train, a_restart_goes_back_to_what_is_whole_when_the_newest_snapshot_is_torn) {
    struct train_case train;
    train_case_init(&train, CNN);
    train.setup.config.save_every = 1;
    train_case_run(&train);
    check_codes(&train);
    char want[65];
    strcpy(want, train.log[0].done.weights_sha256);
    const struct nnc_msg_snapshot newest = train.log[0].newest;
    tear(&train, newest.half);
    train_case_resume(&train);
    check_codes(&train);
    cr_assert_eq(train.log[0].done.steps, 6, "one of two epochs was to be done again");
    cr_assert_str_eq(train.log[0].done.weights_sha256, want);
    tear(&train, 0);
    tear(&train, 1);
    train_case_run(&train);
    check_codes(&train);
    cr_assert_eq(train.log[0].done.steps, 12, "without a snapshot or checkpoint all begins anew");
    cr_assert_str_eq(train.log[0].done.weights_sha256, want);
    train_case_finish(&train);
}

Test(train, a_restart_without_a_whole_snapshot_goes_on_from_the_newest_checkpoint) {
    struct train_case train;
    train_case_init(&train, CNN);
    struct vfs_sim *sim = vfs_sim_create();
    train.vfs = vfs_sim_vfs(sim);
    cr_assert_eq(nnc_vfs_make_dirs(train.vfs, "run", 0700), 0);
    strcpy(train.setup.run_dir, "run");
    train.stop_at = 9;
    train_case_run(&train);
    check_codes(&train);
    train.setup.save_half = train.log[0].newest.half;
    struct nnc_checkpoint_saved saved;
    uint64_t step;
    cr_assert_eq(nnc_saver_save(train.vfs, &train.setup, train.snapshot, &saved, &step), 0, "%s",
                 nnc_error_text());
    tear(&train, 0);
    tear(&train, 1);
    strcpy(train.setup.start_path, saved.path);
    uint64_t before = train.log[0].done.steps;
    train.stop_at = 0;
    train_case_resume(&train);
    check_codes(&train);
    cr_assert_eq(before + train.log[0].done.steps, 12);
    vfs_sim_destroy(sim);
    train_case_finish(&train);
}

Test(train, a_finished_run_that_is_resumed_has_nothing_to_do) {
    struct train_case train;
    train_case_init(&train, MLP);
    train_case_run(&train);
    char want[65];
    strcpy(want, train.log[0].done.weights_sha256);
    train_case_resume(&train);
    check_codes(&train);
    cr_assert_eq(train.log[0].done.steps, 0);
    cr_assert_str_eq(train.log[0].done.weights_sha256, want);
    train_case_finish(&train);
}

/* ---- failures ---- */

Test(train, a_loss_that_is_not_finite_ends_all_ranks_and_names_the_step) {
    struct train_case train;
    train_case_init(&train, MLP);
    train.setup.ranks = 2;
    train.setup.config.lr = 1e30;
    train_case_run(&train);
    for (uint32_t rank = 0; rank < 2; rank++) {
        cr_assert_eq(train.log[rank].code, -NNC_E_NUMERIC, "rank %u: %d %s", rank,
                     train.log[rank].code, train.log[rank].text);
        cr_assert_not_null(strstr(train.log[rank].text, "epoch 1, step "), "%s",
                           train.log[rank].text);
    }
    train_case_finish(&train);
}

Test(train, a_label_out_of_range_names_the_sample) {
    struct train_case train;
    train_case_init(&train, MLP);
    train.odd_label_sample = 55;
    train_case_run(&train);
    cr_assert_eq(train.log[0].code, -NNC_E_FORMAT);
    cr_assert_not_null(strstr(train.log[0].text, "sample 55 has label 4"), "%s", train.log[0].text);
    train_case_finish(&train);
}

Test(train, a_bad_sample_is_left_out_and_counted) {
    struct train_case train;
    train_case_init(&train, MLP);
    train.bad_sample = 7;
    train.setup.config.epochs = 1;
    train_case_run(&train);
    check_codes(&train);
    cr_assert_eq(train.log[0].evals[0].count, 95);
    cr_assert_eq(train.log[0].evals[0].left_out, 1);
    cr_assert_eq(train.log[0].evals[1].left_out, 1);
    cr_assert_eq(train.log[0].evals[0].bad, 1);
    cr_assert_eq(train.log[0].evals[1].bad, 1);
    train_case_finish(&train);
}

Test(train, a_state_of_another_run_is_refused) {
    struct train_case train;
    train_case_init(&train, MLP);
    train.stop_at = 3;
    train_case_run(&train);
    check_codes(&train);
    train.stop_at = 0;
    train.setup.config.seed = 43;
    train_case_resume(&train);
    cr_assert_eq(train.log[0].code, -NNC_E_USAGE);
    cr_assert_not_null(strstr(train.log[0].text, "seed"), "%s", train.log[0].text);
    train_case_finish(&train);
}

/* ---- modes ---- */

Test(train, validation_at_another_crop_size_uses_the_same_weights) {
    struct train_case train;
    train_case_init(&train, CNN);
    train.setup.config.val_crop_size = 12;
    train.setup.geometry.height = train.setup.geometry.width = 12;
    train_case_run(&train);
    check_codes(&train);
    cr_assert_eq(train.log[0].evals[1].count, 40);
    train_case_finish(&train);
}

Test(train, a_model_that_depends_on_the_crop_size_is_refused_with_both_sizes) {
    struct train_case train;
    train_case_init(&train, MLP);
    train_case_run(&train); /* makes the snapshot memory */
    train.setup.config.val_crop_size = 12;
    train.setup.geometry.height = train.setup.geometry.width = 12;
    train_case_run(&train);
    cr_assert_eq(train.log[0].code, -NNC_E_USAGE, "%d", train.log[0].code);
    train_case_finish(&train);
}

Test(train, evaluation_of_a_snapshot_repeats_the_last_validation) {
    struct train_case train;
    train_case_init(&train, CNN);
    train_case_run(&train);
    check_codes(&train);
    struct nnc_msg_eval want = train.log[0].evals[train.log[0].eval_count - 1];
    train.setup.mode = NNC_MODE_EVAL;
    train.setup.schedule.train_samples = 0;
    train_case_resume(&train);
    check_codes(&train);
    cr_assert_eq(train.log[0].eval_count, 1);
    cr_assert_eq(train.log[0].evals[0].correct1, want.correct1);
    cr_assert_float_eq(train.log[0].evals[0].loss_sum, want.loss_sum, 1e-12);
    cr_assert_eq(train.log[0].snapshots, 0);
    train_case_finish(&train);
}

Test(train, predictions_come_in_sample_order_and_bad_images_say_so) {
    struct train_case train;
    train_case_init(&train, MLP);
    train.setup.mode = NNC_MODE_PREDICT;
    train.setup.snapshot_fd = -1;
    train.setup.schedule.train_samples = 0;
    train.setup.schedule.val_samples = 37;
    train.bad_sample = 20;
    train.loaders = 2;
    train_case_run(&train);
    check_codes(&train);
    cr_assert_eq(train.log[0].logit_count, 37);
    for (uint32_t i = 0; i < 37; i++) {
        cr_assert_eq(train.log[0].logits[i].sample, i);
        cr_assert_eq(train.log[0].logits[i].bad, i == 20);
        cr_assert_eq(train.log[0].logits[i].count, i == 20 ? 0 : 4);
        cr_assert(isfinite(train.log[0].first_logit[i]));
    }
    train_case_finish(&train);
}

Test(train, a_cold_loaders_bench_measures_each_image_once) {
    struct train_case train;
    train_case_init(&train, MLP);
    train.setup.mode = NNC_MODE_BENCH_INPUT;
    train.setup.config.cache = NNC_CACHE_COLD;
    train.setup.ranks = 2;
    train_case_run(&train);
    check_codes(&train);
    cr_assert_eq(train.log[0].done.images + train.log[1].done.images, 96 + 40);
    cr_assert_eq(train.log[0].measures, 0, "there is no warm-up");
    cr_assert_eq(train.log[0].done.utilisation, -1.0, "no device is simulated");
    train_case_finish(&train);
}

Test(train, a_warm_loaders_bench_measures_the_passes_behind_the_first) {
    static const int32_t consumers[] = {NNC_CONSUMER_NONE, NNC_CONSUMER_FLOAT};
    for (size_t row = 0; row < 2; row++) {
        struct train_case train;
        train_case_init(&train, MLP);
        train.setup.mode = NNC_MODE_BENCH_INPUT;
        train.setup.config.bench_epochs = 2;
        train.setup.config.consumer = consumers[row];
        train_case_run(&train);
        check_codes(&train);
        cr_assert_eq(train.log[0].measures, 1);
        cr_assert_eq(train.log[0].done.warm_images, 96 + 40);
        cr_assert_eq(train.log[0].done.images, 2 * (96 + 40));
        cr_assert_gt(train.log[0].done.seconds, 0);
        train_case_finish(&train);
    }
}

Test(train, a_simulated_device_takes_as_many_batches_as_it_was_told) {
    struct train_case train;
    train_case_init(&train, MLP);
    train.setup.mode = NNC_MODE_BENCH_INPUT;
    train.setup.config.bench_steps = 5;
    train.setup.config.simulate_gpu = 1000;
    train_case_run(&train);
    check_codes(&train);
    const struct nnc_msg_done *done = &train.log[0].done;
    cr_assert_eq(done->images, 5 * train.setup.config.batch_size);
    cr_assert_geq(done->seconds, (double)done->images / 1000, "it is not faster than the device");
    cr_assert(done->utilisation > 0 && done->utilisation <= 1, "%g", done->utilisation);
    train_case_finish(&train);
}

Test(train, the_training_bench_times_the_steps_it_was_told) {
    struct train_case train;
    train_case_init(&train, CNN);
    train.setup.mode = NNC_MODE_BENCH_TRAIN;
    train.setup.ranks = 2;
    strcpy(train.setup.config.input, "1x8x8");
    train.setup.config.bench_steps = 5;
    train_case_run(&train);
    check_codes(&train);
    cr_assert_eq(train.log[0].done.steps, 5);
    cr_assert_eq(train.log[1].done.images, 5 * 16);
    cr_assert_gt(train.log[0].done.seconds, 0);
    train_case_finish(&train);
}

Test(train, the_audit_has_every_sample_once) {
    struct train_case train;
    train_case_init(&train, MLP);
    train.setup.ranks = 2;
    train.setup.schedule.train_samples = 91;
    train.audit_fd = memfd_create("audit", 0);
    /* As trainers open theirs: without it, two ranks may write at the same place of a memfd. */
    cr_assert_eq(fcntl(train.audit_fd, F_SETFL, O_APPEND), 0);
    train_case_run(&train);
    check_codes(&train);
    uint32_t seen[2][2][91] = {0}, lines = 0;
    FILE *file = fdopen(train.audit_fd, "r");
    rewind(file);
    char phase[8];
    unsigned epoch, step, rank, k, sample, status;
    while (fscanf(file, "%7s %u %u %u %u %u %u", phase, &epoch, &step, &rank, &k, &sample,
                  &status) == 7) {
        cr_assert(epoch < 2 && sample < 91 && status == NNC_SAMPLE_OK);
        seen[strcmp(phase, "val") == 0][epoch][sample]++;
        lines++;
    }
    fclose(file);
    cr_assert_eq(lines, 2 * (91 + 40));
    for (uint32_t i = 0; i < 2 * 2 * 91; i++) {
        uint32_t is_val = i / 182, place = i % 91;
        uint32_t want = !is_val || place < 40;
        cr_assert_eq(seen[is_val][i / 91 % 2][place], want, "phase %u, sample %u", is_val, place);
    }
    train_case_finish(&train);
}
