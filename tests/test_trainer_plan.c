/* SPDX-License-Identifier: Apache-2.0 */
/* The planning trainer: sizes of the model, mistakes in it, and which checkpoint a run starts from.
 */
#include "tests/support/train_case.h"
#include "tests/support/vfs_sim.h"
#include "workers/plan.h"
#include "workers/saver.h"

#include "base/err.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char MLP[] = "Sequential(Flatten(), Linear(64, 12), ReLU(), Linear(12, 4))\n";

/* A run that was stopped after `stop_at` batches and saved in "run" of a simulated disk. */
struct fixture {
    struct train_case train;
    struct vfs_sim *sim;
};

static void save_newest(struct fixture *fixture) {
    struct nnc_checkpoint_saved saved;
    uint64_t step;
    fixture->train.setup.save_half = fixture->train.log[0].newest.half;
    cr_assert_eq(nnc_saver_save(fixture->train.vfs, &fixture->train.setup, fixture->train.snapshot,
                                &saved, &step),
                 0, "%s", nnc_error_text());
}

static void setup(struct fixture *fixture, uint64_t stop_at) {
    train_case_init(&fixture->train, MLP);
    fixture->sim = vfs_sim_create();
    fixture->train.vfs = vfs_sim_vfs(fixture->sim);
    snprintf(fixture->train.setup.run_dir, NNC_PATH_MAX, "run");
    cr_assert_eq(nnc_vfs_make_dirs(fixture->train.vfs, "run", 0700), 0);
    if (stop_at > 0) {
        fixture->train.stop_at = stop_at;
        train_case_run(&fixture->train);
        cr_assert_eq(fixture->train.log[0].code, 0, "%s", fixture->train.log[0].text);
        save_newest(fixture);
    } else {
        train_case_run(&fixture->train); /* makes schedule and memory */
    }
}

static void teardown(struct fixture *fixture) {
    train_case_finish(&fixture->train);
    vfs_sim_destroy(fixture->sim);
}

static struct nnc_plan_answer ask(struct fixture *fixture, const char *resume, char **ret_warning) {
    struct nnc_plan_answer answer;
    char *warning;
    snprintf(fixture->train.setup.config.resume, NNC_PATH_MAX, "%s", resume);
    nnc_plan_answer_setup(fixture->train.vfs, &fixture->train.setup, &answer, &warning);
    if (ret_warning != NULL) {
        *ret_warning = warning;
    } else {
        free(warning);
    }
    return answer;
}

Test(trainer_plan, the_sizes_are_those_of_the_model) {
    struct fixture fixture;
    setup(&fixture, 0);
    struct nnc_plan_answer answer = ask(&fixture, "", NULL);
    cr_assert_eq(answer.status, 0, "%s", answer.error_text);
    cr_assert_eq(answer.parameters, 64 * 12 + 12 + 12 * 4 + 4);
    cr_assert_eq(answer.classes, 4);
    cr_assert_eq(answer.model_channels, 1);
    cr_assert_eq(answer.comm_bytes, 0);
    cr_assert_eq(answer.start, NNC_START_FRESH);
    cr_assert_lt(answer.best_acc1, 0);
    cr_assert_gt(answer.snapshot_bytes, 2 * 2 * answer.parameters * 4);
    cr_assert_gt(answer.device_bytes, 3 * answer.parameters * 4);
    fixture.train.setup.ranks = fixture.train.setup.local_ranks = 2;
    cr_assert_gt(ask(&fixture, "", NULL).comm_bytes, 0);
    teardown(&fixture);
}

Test(trainer_plan, a_mistake_in_the_model_is_the_answer) {
    struct fixture fixture;
    setup(&fixture, 0);
    fixture.train.setup.config.train_crop_size = 9;
    struct nnc_plan_answer answer = ask(&fixture, "", NULL);
    cr_assert_eq(answer.status, -NNC_E_USAGE);
    cr_assert_not_null(strstr(answer.error_text, "Linear"), "%s", answer.error_text);
    teardown(&fixture);
}

Test(trainer_plan, the_newest_checkpoint_is_found_by_all_three_ways_to_name_it) {
    struct fixture fixture;
    setup(&fixture, 4);
    static const char *const names[] = {"auto", "run", "run/ckpt-000000000004"};
    for (size_t row = 0; row < sizeof(names) / sizeof(names[0]); row++) {
        struct nnc_plan_answer answer = ask(&fixture, names[row], NULL);
        cr_assert_eq(answer.status, 0, "%s: %s", names[row], answer.error_text);
        cr_assert_eq(answer.start, NNC_START_CHECKPOINT, "%s", names[row]);
        cr_assert(answer.start_epoch == 0 && answer.start_step == 4, "%s", names[row]);
        cr_assert_str_eq(answer.start_path, "run/ckpt-000000000004");
    }
    teardown(&fixture);
}

Test(trainer_plan, a_directory_with_checkpoints_is_not_trained_into_by_accident) {
    struct fixture fixture;
    setup(&fixture, 4);
    struct nnc_plan_answer answer = ask(&fixture, "", NULL);
    cr_assert_eq(answer.status, -NNC_E_USAGE);
    cr_assert_not_null(strstr(answer.error_text, "--resume auto"), "%s", answer.error_text);
    fixture.train.setup.config.fresh = true;
    answer = ask(&fixture, "", NULL);
    cr_assert(answer.status == 0 && answer.start == NNC_START_FRESH, "%s", answer.error_text);
    teardown(&fixture);
}

Test(trainer_plan, resuming_needs_something_to_resume_unless_it_is_auto) {
    struct fixture fixture;
    setup(&fixture, 0);
    struct nnc_plan_answer answer = ask(&fixture, "auto", NULL);
    cr_assert(answer.status == 0 && answer.start == NNC_START_FRESH, "%s", answer.error_text);
    answer = ask(&fixture, "elsewhere", NULL);
    cr_assert_eq(answer.status, -NNC_E_USAGE);
    cr_assert_not_null(strstr(answer.error_text, "elsewhere"), "%s", answer.error_text);
    teardown(&fixture);
}

Test(trainer_plan, other_numbers_than_the_checkpoints_are_refused_with_both) {
    struct fixture fixture;
    setup(&fixture, 4);
    fixture.train.setup.schedule.train_samples = 80;
    struct nnc_plan_answer answer = ask(&fixture, "auto", NULL);
    cr_assert_eq(answer.status, -NNC_E_USAGE);
    cr_assert(strstr(answer.error_text, "96") && strstr(answer.error_text, "80"), "%s",
              answer.error_text);
    fixture.train.setup.schedule.train_samples = 96;
    fixture.train.setup.config.seed++;
    cr_assert_eq(ask(&fixture, "auto", NULL).status, -NNC_E_USAGE);
    teardown(&fixture);
}

Test(trainer_plan, evaluation_takes_a_checkpoint_whatever_it_was_trained_on) {
    struct fixture fixture;
    setup(&fixture, 4);
    fixture.train.setup.mode = NNC_MODE_EVAL;
    fixture.train.setup.schedule.train_samples = 0;
    fixture.train.setup.config.seed++;
    struct nnc_plan_answer answer = ask(&fixture, "run", NULL);
    cr_assert(answer.status == 0 && answer.start == NNC_START_CHECKPOINT, "%s", answer.error_text);
    answer = ask(&fixture, "", NULL);
    cr_assert(answer.status == 0 && answer.start == NNC_START_FRESH, "%s", answer.error_text);
    teardown(&fixture);
}

static void damage(struct nnc_vfs *vfs, const char *path) {
    int fd = vfs->ops->open(vfs, path, O_RDWR, 0);
    cr_assert_geq(fd, 0);
    cr_assert_eq(vfs->ops->pwrite(vfs, fd, "#", 1, 30), 1);
    vfs->ops->close(vfs, fd);
}

Test(trainer_plan, damage_is_warned_of_and_never_a_fresh_start) {
    struct fixture fixture;
    setup(&fixture, 4);
    fixture.train.stop_at = 1;
    train_case_resume(&fixture.train);
    save_newest(&fixture);
    damage(fixture.train.vfs, "run/ckpt-000000000005/model.safetensors");
    char *warning;
    struct nnc_plan_answer answer = ask(&fixture, "auto", &warning);
    cr_assert(answer.status == 0 && answer.start_step == 4, "%s", answer.error_text);
    cr_assert_not_null(warning);
    cr_assert_not_null(strstr(warning, "ckpt-000000000005"), "%s", warning);
    free(warning);
    damage(fixture.train.vfs, "run/ckpt-000000000004/MANIFEST");
    answer = ask(&fixture, "auto", NULL);
    cr_assert_eq(answer.status, -NNC_E_CHECKPOINT);
    cr_assert_eq(nnc_error_exit_status(answer.status), NNC_EXIT_CHECKPOINT);
    teardown(&fixture);
}

Test(trainer_plan, the_same_state_is_not_saved_twice) {
    struct fixture fixture;
    setup(&fixture, 4);
    save_newest(&fixture);
    struct nnc_checkpoint_entry *entries;
    size_t count;
    cr_assert_eq(nnc_checkpoint_list(fixture.train.vfs, "run", &entries, &count), 0);
    cr_assert_eq(count, 1);
    free(entries);
    teardown(&fixture);
}
