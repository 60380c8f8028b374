/* SPDX-License-Identifier: Apache-2.0 */
/* The whole program under kills, signals, bad files and missing memory: what is left behind, what
 * it says and how it ends. */
#include "base/rng.h"
#include "tests/support/command.h"
#include "tests/support/datasets.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char *scratch;
static char model_path[300], data_path[300];

static void set_up(void) {
    scratch = scratch_make();
    snprintf(model_path, sizeof(model_path), "%s/tiny.nn", scratch);
    snprintf(data_path, sizeof(data_path), "%s/data", scratch);
    FILE *file = fopen(model_path, "w");
    fputs("input(1, 28, 28)\nSequential(Flatten(), Linear(784, 10))\n", file);
    fclose(file);
    dataset_make_idx(data_path, 1000, 100);
}

static void tear_down(void) {
    scratch_remove(scratch);
}

/* A long run of 2 ranks and 2 loaders. */
static struct command start_long(const char *out) {
    const char *const arguments[] = {"train",
                                     data_path,
                                     "--model",
                                     model_path,
                                     DATASET_IDX_OPTIONS,
                                     "--lr",
                                     "0.01",
                                     "--epochs",
                                     "100000",
                                     "--batch-size",
                                     "10",
                                     "--cpu-ranks",
                                     "2",
                                     "--workers",
                                     "2",
                                     "--threads",
                                     "1",
                                     "--quiet",
                                     "--output-dir",
                                     out,
                                     "--keep",
                                     "1",
                                     "--save-every",
                                     "1000",
                                     "--snapshot-interval",
                                     "1",
                                     "--step-timeout",
                                     "2",
                                     NULL};
    return command_start(scratch, false, arguments);
}

/* Shared memory in use on the machine, in kB (Shmem of /proc/meminfo). */
static long shmem_kb(void) {
    FILE *file = fopen("/proc/meminfo", "r");
    char line[128];
    long value = -1;
    while (fgets(line, sizeof(line), file) != NULL) {
        sscanf(line, "Shmem: %ld kB", &value);
    }
    fclose(file);
    return value;
}

/* Up to one second for every process of this test to be gone. */
static bool all_gone(void) {
    for (int i = 0; i < 100; i++) {
        if (count_our_processes(scratch) == 0) {
            return true;
        }
        usleep(10000);
    }
    return false;
}

static void wait_for_processes(const struct command *command, size_t count) {
    pid_t pids[16];
    for (int i = 0; i < 1000 && find_descendants(command->pid, "nncoord", pids, 16) < count; i++) {
        usleep(5000);
    }
}

Test(survival, twenty_killed_coordinators_leave_no_process_and_no_memory, .init = set_up,
     .fini = tear_down, .timeout = 120) {
    struct nnc_rng rng = nnc_rng_make(1, NNC_RNG_SYNTHETIC, 5, 0);
    long before = shmem_kb();
    unsigned with_children = 0;
    for (int i = 0; i < 20; i++) {
        char out[32];
        pid_t pids[16];
        snprintf(out, sizeof(out), "killed-%d", i);
        struct command command = start_long(out);
        if (i % 2 == 0) {
            wait_for_processes(&command, 4);
        }
        usleep(nnc_rng_below(&rng, 200000));
        with_children += find_descendants(command.pid, "nncoord", pids, 16) > 0 ? 1 : 0;
        kill(command.pid, SIGKILL);
        command_wait(&command);
        cr_assert(all_gone(), "run %d: %zu processes are left after 1 s", i,
                  count_our_processes(scratch));
        command_free(&command);
    }
    cr_assert_geq(with_children, 10, "only %u kills hit a run with children", with_children);
    for (int i = 0; i < 100 && shmem_kb() - before > 1024; i++) {
        usleep(10000);
    }
    cr_assert_leq(shmem_kb() - before, 1024, "shared memory grew by %ld kB", shmem_kb() - before);
}

Test(survival, twenty_killed_trainers_restart_the_group_or_end_it_clean, .init = set_up,
     .fini = tear_down, .timeout = 180) {
    struct nnc_rng rng = nnc_rng_make(2, NNC_RNG_SYNTHETIC, 6, 0);
    unsigned kills = 0, restarts = 0;
    for (int run = 0; kills < 20 && run < 12; run++) {
        char out[32];
        snprintf(out, sizeof(out), "run-%d", run);
        struct command command = start_long(out);
        for (int i = 0; i < 2; i++) {
            pid_t pids[16];
            wait_for_processes(&command, 4);
            usleep(300000 + nnc_rng_below(&rng, 300000));
            size_t count = find_descendants(command.pid, "nncoord-trainer", pids, 16);
            if (count > 0) {
                kills += kill(pids[nnc_rng_below(&rng, (uint32_t)count)], SIGKILL) == 0 ? 1 : 0;
            }
            usleep(400000);
        }
        kill(command.pid, SIGTERM);
        command_wait(&command);
        cr_assert(command.status == 75 || command.status == 1 || command.status == 4, "exit %d: %s",
                  command.status, command.err);
        for (const char *at = command.err; (at = strstr(at, "the group starts again")) != NULL;
             at++) {
            restarts++;
        }
        cr_assert(all_gone(), "run %d: processes are left", run);
        command_free(&command);
    }
    cr_assert_geq(kills, 20, "only %u kills", kills);
    cr_assert_geq(restarts, 10, "only %u restarts", restarts);
}

Test(survival, a_stopped_trainer_is_named_with_its_place_and_the_run_goes_on, .init = set_up,
     .fini = tear_down, .timeout = 60) {
    struct command command = start_long("stopped");
    pid_t pids[16];
    wait_for_processes(&command, 4);
    usleep(1500000); /* a snapshot is there */
    cr_assert_eq(find_descendants(command.pid, "nncoord-trainer", pids, 16), 2);
    cr_assert_eq(kill(pids[1], SIGSTOP), 0);
    usleep(4000000);
    kill(command.pid, SIGTERM);
    command_wait(&command);
    char named[64];
    snprintf(named, sizeof(named), "(pid %d) has not moved for 2 s in ", (int)pids[1]);
    cr_expect_eq(command.status, 75, "exit %d: %s", command.status, command.err);
    static const char *const said[] = {", step ", " all-reduces; killing it",
                                       "was killed by signal 9 (Killed) (in ",
                                       "the group starts again (1 of "};
    cr_expect_not_null(strstr(command.err, named), "%s", command.err);
    for (size_t i = 0; i < sizeof(said) / sizeof(said[0]); i++) {
        cr_expect_not_null(strstr(command.err, said[i]), "%s: %s", said[i], command.err);
    }
    cr_expect(all_gone());
    command_free(&command);
}

Test(survival, a_stop_signal_leaves_a_durable_checkpoint_and_exit_status_75, .init = set_up,
     .fini = tear_down, .timeout = 60) {
    static const int signals[] = {SIGTERM, SIGINT, SIGUSR1, SIGUSR2};
    for (size_t i = 0; i < 4; i++) {
        char out[32], path[400];
        snprintf(out, sizeof(out), "stopped-%zu", i);
        struct command command = start_long(out);
        wait_for_processes(&command, 4);
        usleep(500000);
        kill(command.pid, signals[i]);
        command_wait(&command);
        cr_assert_eq(command.status, 75, "signal %d: exit %d: %s", signals[i], command.status,
                     command.err);
        snprintf(path, sizeof(path), "%s/%s/LATEST", scratch, out);
        cr_assert_eq(access(path, R_OK), 0, "%s", path);
        cr_assert(all_gone());
        command_free(&command);
    }
}

Test(survival, memory_that_will_not_suffice_is_refused_with_the_numbers, .init = set_up,
     .fini = tear_down, .timeout = 30) {
    struct command command =
        command_run(scratch, "train", data_path, "--model", "resnet20", "--train-crop-size", "2000",
                    "--val-crop-size", "2000", "--val-resize-size", "2000", "--batch-size", "10000",
                    "--ring-depth", "64", NULL);
    cr_assert_eq(command.status, 2, "exit %d: %s", command.status, command.err);
    cr_assert_not_null(strstr(command.err, "need"), "%s", command.err);
    cr_assert_not_null(strstr(command.err, "MiB"), "%s", command.err);
    command_free(&command);
}

Test(survival, gpus_where_there_are_none_end_at_once_with_the_line_that_works, .init = set_up,
     .fini = tear_down, .timeout = 30) {
    struct command command = command_run(scratch, "--gpus", "1", NULL);
    cr_assert_eq(command.status, 2);
    cr_assert_not_null(strstr(command.err, "--gpus 0"), "%s", command.err);
    cr_assert_str_empty(command.out);
    command_free(&command);
}

static void append_text(const char *path, const char *text) {
    FILE *file = fopen(path, "w");
    cr_assert_not_null(file, "%s", path);
    fputs(text, file);
    fclose(file);
}

/* JPEG folders with some files broken in different ways. */
static void make_damaged(const char *folder) {
    char path[600];
    dataset_make_jpeg(folder, 3, 20, 4, 24);
    snprintf(path, sizeof(path), "%s/train/c00/0003.jpg", folder);
    append_text(path, "this is no image");
    snprintf(path, sizeof(path), "%s/train/c01/0004.jpg", folder);
    append_text(path, "");
    snprintf(path, sizeof(path), "%s/val/c02/0001.jpg", folder);
    cr_assert_eq(truncate(path, 200), 0);
}

static struct command run_damaged(const char *out, const char *on_bad, const char *max_bad) {
    char folder[400];
    snprintf(folder, sizeof(folder), "%s/damaged", scratch);
    return command_run(scratch, "train", folder, "--model", "resnet20", "--model-args",
                       "num_classes=3", "--train-crop-size", "16", "--val-crop-size", "16",
                       "--val-resize-size", "16", "--epochs", "1", "--batch-size", "8",
                       "--output-dir", out, "--on-bad", on_bad, "--max-bad", max_bad, "--backend",
                       "reference", "--json", NULL);
}

Test(survival, bad_images_are_replaced_and_listed_unless_the_budget_ends, .init = set_up,
     .fini = tear_down, .timeout = 120) {
    char folder[400], path[400], line[1024];
    snprintf(folder, sizeof(folder), "%s/damaged", scratch);
    make_damaged(folder);
    struct command command = run_damaged("replaced", "replace", "0.1");
    cr_assert_eq(command.status, 0, "%s", command.err);
    cr_assert_eq(json_number(command.out, "bad_samples"), 3);
    cr_assert_not_null(strstr(strstr(command.err, "done: "), ", 3 bad images"), "%s", command.err);
    command_free(&command);
    snprintf(path, sizeof(path), "%s/replaced/bad-samples.jsonl", scratch);
    FILE *file = fopen(path, "r");
    unsigned lines = 0;
    while (fgets(line, sizeof(line), file) != NULL) {
        char text[500];
        json_text(line, "path", text, sizeof(text));
        cr_assert(strstr(text, "0003.jpg") || strstr(text, "0004.jpg") || strstr(text, "0001.jpg"));
        json_text(line, "reason", text, sizeof(text));
        cr_assert_str_not_empty(text);
        lines++;
    }
    fclose(file);
    cr_assert_eq(lines, 3);
    command = run_damaged("budget", "replace", "0.01");
    cr_assert_eq(command.status, 3, "exit %d: %s", command.status, command.err);
    command_free(&command);
    command = run_damaged("fail", "fail", "0.1");
    cr_assert_eq(command.status, 3, "exit %d: %s", command.status, command.err);
    cr_assert_not_null(strstr(command.err, ".jpg"), "%s", command.err);
    command_free(&command);
}

Test(survival, two_runs_in_one_folder_are_refused, .init = set_up, .fini = tear_down,
     .timeout = 30) {
    struct command first = start_long("shared");
    wait_for_processes(&first, 4);
    struct command second =
        command_run(scratch, "train", data_path, "--model", model_path, "--train-crop-size", "28",
                    "--val-crop-size", "28", "--output-dir", "shared", NULL);
    cr_assert_eq(second.status, 2, "%s", second.err);
    cr_assert_not_null(strstr(second.err, "in use"), "%s", second.err);
    command_free(&second);
    kill(first.pid, SIGKILL);
    command_wait(&first);
    command_free(&first);
    cr_assert(all_gone());
}

Test(survival, with_closed_output_no_file_of_the_run_takes_its_place, .init = set_up,
     .fini = tear_down, .timeout = 30) {
    char text[1500];
    snprintf(text, sizeof(text),
             "cd %s && %s/nncoord train %s --model %s --train-crop-size 28 --val-crop-size 28 "
             "--epochs 1 --output-dir closed 2>&- && grep -q '^host ' closed/run.lock && "
             "test $(wc -l <closed/run.lock) = 1",
             scratch, NNC_TEST_BUILD_DIR, data_path, model_path);
    cr_assert_eq(system(text), 0);
}

/* The saver: of all trainer programs beside the one trainer the youngest; 0: none runs. */
static pid_t find_saver(pid_t coordinator) {
    pid_t pids[16];
    size_t count = find_descendants(coordinator, "nncoord-trainer", pids, 16);
    pid_t youngest = 0;
    for (size_t i = 0; i < count && count == 2; i++) {
        youngest = pids[i] > youngest ? pids[i] : youngest;
    }
    return youngest;
}

Test(survival, a_stopped_saver_does_not_outlive_the_second_signal, .init = set_up,
     .fini = tear_down, .timeout = 60) {
    const char *const arguments[] = {
        "train",        data_path, "--model",  model_path, "--train-crop-size", "28",
        "--lr",         "0.001",   "--epochs", "100000",   "--val-crop-size",   "28",
        "--save-every", "1",       "--grace",  "25",       "--quiet",           "--output-dir",
        "stopped",      NULL};
    struct command command = command_start(scratch, false, arguments);
    bool caught = false;
    for (int i = 0; i < 2000 && !caught; i++) {
        pid_t saver = find_saver(command.pid);
        caught = saver != 0 && kill(saver, SIGSTOP) == 0;
    }
    kill(command.pid, SIGTERM);
    usleep(100000);
    kill(command.pid, SIGTERM);
    command_wait(&command);
    cr_assert(caught, "no saver was seen: %s", command.err);
    cr_assert_neq(command.status, 0);
    cr_assert(all_gone());
    command_free(&command);
}

static char *error_so_far(const struct command *command) {
    static char text[4096];
    FILE *file = fopen(command->err_path, "r");
    text[file == NULL ? 0 : fread(text, 1, sizeof(text) - 1, file)] = '\0';
    if (file != NULL) {
        fclose(file);
    }
    return text;
}

Test(survival, a_failed_run_says_why_at_once_and_leaves_a_stopped_saver_the_grace_alone,
     .init = set_up, .fini = tear_down, .timeout = 60) {
    const char *const arguments[] = {"train",
                                     data_path,
                                     "--model",
                                     model_path,
                                     "--train-crop-size",
                                     "28",
                                     "--lr",
                                     "0.001",
                                     "--epochs",
                                     "100000",
                                     "--val-crop-size",
                                     "28",
                                     "--save-every",
                                     "1",
                                     "--grace",
                                     "3",
                                     "--quiet",
                                     "--output-dir",
                                     "failed",
                                     "--max-restarts",
                                     "0",
                                     NULL};
    struct command command = command_start(scratch, false, arguments);
    pid_t saver = 0, pids[16];
    for (int i = 0; i < 2000 && saver == 0; i++) {
        saver = find_saver(command.pid);
        saver = saver != 0 && kill(saver, SIGSTOP) == 0 ? saver : 0;
    }
    size_t count = find_descendants(command.pid, "nncoord-trainer", pids, 16);
    for (size_t i = 0; i < count; i++) {
        kill(pids[i], pids[i] == saver ? SIGSTOP : SIGKILL);
    }
    bool told = false;
    for (int i = 0; i < 100 && !told; i++) {
        usleep(20000);
        told = strstr(error_so_far(&command), "budget of 0 restarts") != NULL;
    }
    cr_assert(saver != 0 && count == 2, "no saver was seen: %s", error_so_far(&command));
    cr_assert(told, "%s", error_so_far(&command));
    cr_assert_eq(count_our_processes(scratch), 2, "the saver has its grace");
    command_wait(&command);
    cr_assert_eq(command.status, 4, "exit %d: %s", command.status, command.err);
    cr_assert_not_null(strstr(command.err, "still writing after"), "%s", command.err);
    cr_assert(all_gone());
    command_free(&command);
}

/* A short training run that leaves one checkpoint in `out`, or goes on with it. */
static struct command run_short(const char *out, const char *resume) {
    return command_run(scratch, "train", data_path, "--model", model_path, "--train-crop-size",
                       "28", "--val-crop-size", "28", "--lr", "0.001", "--epochs", "1", "--keep",
                       "1", "--output-dir", out, resume,
                       strcmp(resume, "--resume") == 0 ? "auto" : NULL, NULL);
}

Test(survival, a_pipe_in_the_place_of_a_checkpoint_file_is_damage_and_is_not_waited_for,
     .init = set_up, .fini = tear_down, .timeout = 60) {
    struct command command = run_short("piped", "--fresh");
    cr_assert_eq(command.status, 0, "%s", command.err);
    command_free(&command);
    static const char *const files[] = {"model.safetensors", "run.json", "MANIFEST"};
    for (size_t i = 0; i < 3; i++) {
        char text[1000];
        snprintf(text, sizeof(text), "cd %s/piped/ckpt-* && mv %s ../kept && mkfifo %s", scratch,
                 files[i], files[i]);
        cr_assert_eq(system(text), 0);
        command = run_short("piped", "--resume");
        cr_assert_eq(command.status, 74, "%s: exit %d: %s", files[i], command.status, command.err);
        cr_assert_not_null(strstr(command.err, files[i]), "%s", command.err);
        command_free(&command);
        snprintf(text, sizeof(text), "cd %s/piped/ckpt-* && mv ../kept %s", scratch, files[i]);
        cr_assert_eq(system(text), 0);
    }
}

Test(survival, a_pipe_is_no_configuration, .init = set_up, .fini = tear_down, .timeout = 30) {
    char path[400];
    snprintf(path, sizeof(path), "%s/pipe.yaml", scratch);
    cr_assert_eq(mkfifo(path, 0600), 0);
    struct command command = command_run(scratch, "train", data_path, "--config", path, NULL);
    cr_assert_eq(command.status, 2, "%s", command.err);
    cr_assert_not_null(strstr(command.err, "not a regular file"), "%s", command.err);
    command_free(&command);
}

/* Start a run and stop its planning trainer at some moment; 0: it was too quick. */
static pid_t stop_plan(const struct command *command) {
    pid_t pid = 0;
    for (int i = 0; i < 400; i++) {
        if (find_descendants(command->pid, "nncoord-trainer", &pid, 1) == 1) {
            return kill(pid, SIGSTOP) == 0 ? pid : 0;
        }
    }
    return 0;
}

Test(survival, a_planning_trainer_does_not_outlive_its_coordinator, .init = set_up,
     .fini = tear_down, .timeout = 120) {
    unsigned died_with_it = 0;
    for (int i = 0; i < 40 && died_with_it < 3; i++) {
        struct command command = start_long("planned");
        pid_t plan = stop_plan(&command);
        kill(command.pid, SIGTERM);
        command_wait(&command);
        if (plan != 0 && command.status == 128 + SIGTERM) {
            /* One that was stopped before it could ask to be killed ends when it goes on. */
            died_with_it += all_gone() ? 1 : 0;
            kill(plan, SIGCONT);
        }
        cr_assert(all_gone(), "attempt %d: %zu processes are left", i,
                  count_our_processes(scratch));
        command_free(&command);
    }
    cr_assert_geq(died_with_it, 1, "no planning trainer was stopped in its work");
}

/* A short run under `limit`, a line of shell; what it says goes to limited.err. Returns its exit
 * status as the shell sees it. */
static int run_limited(const char *limit) {
    char text[2500];
    snprintf(text, sizeof(text),
             "cd %s && %s && XDG_CACHE_HOME=%s %s/nncoord train %s --model %s --train-crop-size 28 "
             "--val-crop-size 28 --lr 0.001 --epochs 1 --fresh --output-dir limited "
             ">limited.out 2>limited.err; exit $?",
             scratch, limit, scratch, NNC_TEST_BUILD_DIR, data_path, model_path);
    int status = system(text);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static bool limited_says(const char *words) {
    char text[1000];
    snprintf(text, sizeof(text), "grep -q '%s' %s/limited.err", words, scratch);
    return system(text) == 0;
}

Test(survival, too_few_open_files_are_refused_with_the_number_that_is_needed, .init = set_up,
     .fini = tear_down, .timeout = 60) {
    cr_assert_eq(run_limited("ulimit -n 64"), 2);
    cr_assert(limited_says("needs 1[0-9][0-9] open files and ulimit -n allows 64"));
}

Test(survival, a_small_stack_is_enough_for_the_coordinator, .init = set_up, .fini = tear_down,
     .timeout = 60) {
    int status = run_limited("ulimit -s 64");
    cr_assert_lt(status, 128, "the coordinator was killed by signal %d", status - 128);
}

Test(survival, a_planning_trainer_that_is_killed_is_named_with_its_signal, .init = set_up,
     .fini = tear_down, .timeout = 60) {
    bool caught = false;
    for (int i = 0; i < 40 && !caught; i++) {
        struct command command = start_long("killed-plan");
        pid_t plan = stop_plan(&command);
        kill(plan != 0 ? plan : command.pid, SIGKILL);
        usleep(300000);
        kill(command.pid, SIGKILL);
        command_wait(&command);
        caught = strstr(command.err, "--plan was killed by signal 9") != NULL;
        cr_assert(!caught || command.status == 1, "exit %d: %s", command.status, command.err);
        command_free(&command);
        cr_assert(all_gone());
    }
    cr_assert(caught, "no planning trainer was killed in its work");
}
