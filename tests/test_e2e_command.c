/* SPDX-License-Identifier: Apache-2.0 */
/* The verbs as a user types them: what they print, where, and with which exit status. */
#include "tests/support/command.h"
#include "tests/support/datasets.h"

#include <criterion/criterion.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char *scratch;
static char idx_path[300], jpeg_path[300];

static void set_up(void) {
    scratch = scratch_make();
    snprintf(idx_path, sizeof(idx_path), "%s/idx", scratch);
    snprintf(jpeg_path, sizeof(jpeg_path), "%s/jpeg", scratch);
    dataset_make_idx(idx_path, 600, 200);
    dataset_make_jpeg(jpeg_path, 3, 12, 5, 40);
}

static void tear_down(void) {
    cr_assert_eq(count_our_processes(scratch), 0, "processes are left behind");
    scratch_remove(scratch);
}

static struct command train_cnn(const char *out) {
    return command_run(scratch, "train", idx_path, "--model", "cnn", "--train-crop-size", "28",
                       "--val-crop-size", "28", "--val-resize-size", "28", "--train-transform",
                       "eval", "--hflip-prob", "0", "--mean", "0.5", "--std", "0.25", "--lr",
                       "0.05", "--lr-scheduler", "cosine", "--epochs", "3", "--batch-size", "32",
                       "--output-dir", out, "--json", NULL);
}

Test(command, training_learns_and_eval_predict_read_the_run, .init = set_up, .fini = tear_down,
     .timeout = 120) {
    char text[500];
    struct command train = train_cnn("run");
    cr_assert_eq(train.status, 0, "%s", train.err);
    cr_assert_gt(json_number(train.out, "acc1"), 0.9);
    cr_assert_eq(json_number(train.out, "epochs"), 3);
    cr_assert_eq(json_number(train.out, "steps"), 57);
    cr_assert_gt(json_number(train.out, "images_per_s"), 0);
    json_text(train.out, "run_dir", text, sizeof(text));
    static const char *const files[] = {"config.yaml", "metrics.jsonl", "LATEST", "classes.txt"};
    for (size_t i = 0; i < 4; i++) {
        char path[600];
        snprintf(path, sizeof(path), "%s/%s", text, files[i]);
        cr_assert_eq(access(path, R_OK), 0, "%s", path);
    }
    struct command eval = command_run(scratch, "eval", "--resume", text, "--json", NULL);
    cr_assert_eq(eval.status, 0, "%s", eval.err);
    cr_assert_eq(json_number(eval.out, "images"), 200);
    cr_assert_float_eq(json_number(eval.out, "acc1"), json_number(train.out, "acc1"), 1e-9);
    cr_assert_float_eq(json_number(eval.out, "loss"), json_number(train.out, "loss"), 1e-5);
    cr_assert_geq(json_number(eval.out, "acc5"), json_number(eval.out, "acc1"));
    struct command ranks =
        command_run(scratch, "eval", "--resume", text, "--cpu-ranks", "2", "--json", NULL);
    cr_assert_eq(ranks.status, 0, "%s", ranks.err);
    cr_assert_eq(json_number(ranks.out, "images"), 200);
    cr_assert_float_eq(json_number(ranks.out, "acc1"), json_number(eval.out, "acc1"), 1e-9);
    command_free(&train);
    command_free(&eval);
    command_free(&ranks);
}

Test(command, jpeg_folders_train_and_predict_prints_one_object_a_file, .init = set_up,
     .fini = tear_down, .timeout = 120) {
    struct command train = command_run(
        scratch, "train", jpeg_path, "--model", "resnet20", "--train-crop-size", "32",
        "--val-crop-size", "32", "--val-resize-size", "32", "--epochs", "2", "--batch-size", "8",
        "--lr", "0.05", "--output-dir", "jpeg-run", "--json", NULL);
    cr_assert_eq(train.status, 0, "%s", train.err);
    struct command predict =
        command_run(scratch, "predict", "--resume", "jpeg-run", "--json", "--logits", "--topk", "2",
                    "jpeg/val/c01/0000.jpg", "jpeg/val/c02", NULL);
    cr_assert_eq(predict.status, 0, "%s", predict.err);
    unsigned lines = 0;
    for (char *line = strtok(predict.out, "\n"); line != NULL; line = strtok(NULL, "\n")) {
        json_t *object = json_loads(line, 0, NULL);
        cr_assert_not_null(object, "%s", line);
        cr_assert(json_is_string(json_object_get(object, "path")));
        json_t *top = json_object_get(object, "top");
        cr_assert_eq(json_array_size(top), 2);
        const char *label = json_string_value(json_object_get(json_array_get(top, 0), "label"));
        cr_assert_eq(label[0], 'c');
        cr_assert_eq(json_array_size(json_object_get(object, "logits")), 3);
        json_decref(object);
        lines++;
    }
    cr_assert_eq(lines, 6);
    command_free(&train);
    command_free(&predict);
}

/* bench input of the training images in batches of four, with what the row adds. */
static struct command bench_input(const char *const *added) {
    const char *arguments[24] = {
        "bench", "input",        jpeg_path, "--workers", "2", "--train-crop-size",
        "32",    "--batch-size", "4",       "--json"};
    for (size_t i = 0; added[i] != NULL; i++) {
        arguments[10 + i] = added[i];
    }
    struct command bench = command_start(scratch, false, arguments);
    command_wait(&bench);
    return bench;
}

Test(command, bench_input_reports_rate_stages_and_what_bounds_it, .init = set_up, .fini = tear_down,
     .timeout = 60) {
    struct command bench = bench_input((const char *[]){"--bench-epochs", "2", NULL});
    char text[64];
    cr_assert_eq(bench.status, 0, "%s", bench.err);
    static const char *const numbers[] = {"images_per_s", "bytes_per_s", "cpu_s_per_1000",
                                          "peak_memory_bytes", "bytes_read"};
    for (size_t i = 0; i < 5; i++) {
        cr_assert_gt(json_number(bench.out, numbers[i]), 0, "%s", numbers[i]);
    }
    cr_assert_eq(json_number(bench.out, "workers"), 2);
    cr_assert_eq(json_number(bench.out, "images"), 72);
    cr_assert_eq(json_number(bench.out, "epochs"), 2);
    cr_assert_eq(json_number(bench.out, "warm_images"), 36);
    cr_assert_str_eq(json_text(bench.out, "cache", text, sizeof(text)), "warm");
    cr_assert_str_eq(json_text(bench.out, "consumer", text, sizeof(text)), "none");
    json_text(bench.out, "bound_by", text, sizeof(text));
    cr_assert_not_null(strstr(bench.err, "bound by "), "%s", bench.err);
    cr_assert_null(strstr(bench.out, "\"au\""), "no device was simulated");
    command_free(&bench);
}

Test(command, loaders_that_ended_well_have_no_last_words, .init = set_up, .fini = tear_down,
     .timeout = 60) {
    struct command bench = bench_input((const char *[]){"--bench-steps", "3", "-vv", NULL});
    cr_assert_eq(bench.status, 0, "%s", bench.err);
    cr_assert_not_null(strstr(bench.err, "exited with status 0"), "%s", bench.err);
    cr_assert_null(strstr(bench.err, "last words"), "%s", bench.err);
    command_free(&bench);
}

Test(command, bench_input_shares_sum_to_one_hundred_percent, .init = set_up, .fini = tear_down,
     .timeout = 60) {
    struct command bench = bench_input((const char *[]){"--bench-epochs", "5", NULL});
    static const char *const names[] = {"decode ", "transform ", "read ", "ring full ", "other "};
    const char *at = strstr(bench.err, "bound by ");
    double sum = 0.0;
    cr_assert_eq(bench.status, 0, "%s", bench.err);
    cr_assert_not_null(at, "%s", bench.err);
    at = strchr(at, ':');
    for (size_t i = 0; i < 5; i++) {
        const char *share = strstr(at, names[i]);
        cr_assert_not_null(share, "%s in %s", names[i], bench.err);
        sum += strtod(share + strlen(names[i]), NULL);
    }
    cr_assert(sum >= 97 && sum <= 103, "%g %% after rounding: %s", sum, bench.err);
    command_free(&bench);
}

Test(command, a_bench_without_reading_is_not_told_of_io_uring, .init = set_up, .fini = tear_down,
     .timeout = 60) {
    struct command bench =
        bench_input((const char *[]){"--io", "null", "--bench-epochs", "1", NULL});
    cr_assert_eq(bench.status, 0, "%s", bench.err);
    cr_expect_null(strstr(bench.err, "io_uring"), "%s", bench.err);
    cr_expect_not_null(strstr(bench.err, "2 loaders (no reading)"), "%s", bench.err);
    command_free(&bench);
}

static unsigned count_words(const char *text, const char *word) {
    unsigned count = 0;
    for (const char *at = text; (at = strstr(at, word)) != NULL; at++) {
        count++;
    }
    return count;
}

Test(command, a_bench_that_measured_too_little_says_so, .init = set_up, .fini = tear_down,
     .timeout = 60) {
    static const struct {
        const char *added[3];
        bool is_brief;
    } rows[] = {{{"--bench-steps", "3", NULL}, true}, {{NULL}, false}};
    for (size_t i = 0; i < 2; i++) {
        struct command bench = bench_input(rows[i].added);
        cr_assert_eq(bench.status, 0, "%s", bench.err);
        cr_expect_eq(count_words(bench.err, "measured too little"), rows[i].is_brief, "%s",
                     bench.err);
        command_free(&bench);
    }
}

Test(command, a_quiet_bench_prints_one_line_and_a_failed_one_tells_the_reason_once, .init = set_up,
     .fini = tear_down, .timeout = 60) {
    struct command quiet = bench_input((const char *[]){"-q", NULL});
    cr_assert_eq(quiet.status, 0, "%s", quiet.err);
    cr_expect_eq(count_words(quiet.err, "images/s"), 1, "%s", quiet.err);
    cr_expect_eq(count_words(quiet.err, "measured"), 0, "%s", quiet.err);
    cr_expect_eq(count_words(quiet.err, "bound by"), 0, "%s", quiet.err);
    struct command failed =
        bench_input((const char *[]){"--simulate-gpu", "1e9", "--bench-epochs", "1", NULL});
    cr_assert_eq(failed.status, 1, "%s", failed.err);
    cr_expect_eq(count_words(failed.err, "bound by"), 1, "%s", failed.err);
    cr_expect_eq(count_words(failed.err, "transform "), 1, "%s", failed.err);
    command_free(&quiet);
    command_free(&failed);
}

/* Wait until the command's loaders run, then stop it. */
static void stop_running(struct command *command, int number) {
    pid_t child;
    for (int i = 0; i < 5000 && find_descendants(command->pid, "loader", &child, 1) == 0; i++) {
        usleep(1000);
    }
    usleep(20000);
    kill(command->pid, number);
    command_wait(command);
}

Test(command, a_verb_without_a_checkpoint_ends_as_the_signal_that_stopped_it, .init = set_up,
     .fini = tear_down, .timeout = 60) {
    static const int signals[] = {SIGINT, SIGTERM};
    const char *const arguments[] = {"bench", "input",     jpeg_path, "--simulate-gpu",
                                     "1",     "--workers", "1",       "--bench-epochs",
                                     "9",     NULL};
    for (size_t i = 0; i < 2; i++) {
        struct command bench = command_start(scratch, false, arguments);
        stop_running(&bench, signals[i]);
        cr_expect_eq(bench.status, 128 + signals[i], "exit %d: %s", bench.status, bench.err);
        cr_expect_not_null(strstr(bench.err, "nncoord: stopped by "), "%s", bench.err);
        command_free(&bench);
    }
}

Test(command, a_cold_bench_drops_the_files_and_reads_each_once, .init = set_up, .fini = tear_down,
     .timeout = 60) {
    struct command bench = bench_input((const char *[]){"--cache", "cold", NULL});
    char text[64];
    cr_assert_eq(bench.status, 0, "%s", bench.err);
    cr_assert_eq(json_number(bench.out, "images"), 36);
    cr_assert_eq(json_number(bench.out, "epochs"), 1);
    cr_assert_eq(json_number(bench.out, "warm_images"), 0);
    cr_assert_str_eq(json_text(bench.out, "cache", text, sizeof(text)), "cold");
    cr_assert_geq(json_number(bench.out, "resident_bytes"), 0);
    cr_assert_geq(json_number(bench.out, "dropped_bytes"), 0);
    cr_assert_eq(json_number(bench.out, "hidden_bytes"), 0, "the files are ours");
    cr_assert_eq(json_number(bench.out, "memory_bytes"), 0);
    cr_assert_not_null(strstr(bench.err, "cold: 36 files of"), "%s", bench.err);
    cr_assert_not_null(strstr(bench.err, "still in memory"), "%s", bench.err);
    command_free(&bench);
}

Test(command, a_cold_bench_does_not_say_what_is_in_memory_of_files_that_do_not_let_it_see,
     .init = set_up, .fini = tear_down, .timeout = 60) {
    char opening[600];
    if (geteuid() != 0) {
        cr_skip_test("only root can leave files to somebody else");
    }
    snprintf(opening, sizeof(opening), "chmod -R a+rX %s && chmod a+w %s", scratch, scratch);
    cr_assert_eq(system(opening), 0);
    cr_assert_eq(setresuid(65534, 65534, 0), 0);
    bool may_run = access(NNC_TEST_BUILD_DIR "/nncoord", X_OK) == 0;
    struct command bench = {.pid = 0};
    if (may_run) {
        bench = bench_input((const char *[]){"--cache", "cold", NULL});
    }
    cr_assert_eq(setresuid(0, 0, 0), 0);
    if (!may_run) {
        cr_skip_test("nobody may not run the programs in this place");
    }
    cr_assert_eq(bench.status, 0, "%s", bench.err);
    cr_assert_not_null(strstr(bench.out, "\"resident_bytes\": null"), "%s", bench.out);
    cr_assert_not_null(strstr(bench.out, "\"dropped_bytes\": null"), "%s", bench.out);
    cr_assert_gt(json_number(bench.out, "hidden_bytes"), 0);
    cr_assert_null(strstr(bench.err, "still in memory"), "%s", bench.err);
    command_free(&bench);
}

Test(command, a_bench_with_floats_measures_the_batches_it_was_told, .init = set_up,
     .fini = tear_down, .timeout = 60) {
    struct command bench =
        bench_input((const char *[]){"--consumer", "float", "--bench-steps", "3", NULL});
    char text[64];
    cr_assert_eq(bench.status, 0, "%s", bench.err);
    cr_assert_eq(json_number(bench.out, "images"), 12);
    cr_assert_str_eq(json_text(bench.out, "consumer", text, sizeof(text)), "float");
    command_free(&bench);
}

Test(command, a_simulated_device_passes_when_it_is_slow_and_fails_when_nobody_could_feed_it,
     .init = set_up, .fini = tear_down, .timeout = 60) {
    struct command slow =
        bench_input((const char *[]){"--simulate-gpu", "10", "--bench-steps", "3", NULL});
    cr_assert_eq(slow.status, 0, "%s", slow.err);
    cr_assert_not_null(strstr(slow.out, "\"passed\": true"), "%s", slow.out);
    cr_assert_gt(json_number(slow.out, "au"), 0.9);
    cr_assert_not_null(strstr(slow.err, "pass: "), "%s", slow.err);
    struct command fast =
        bench_input((const char *[]){"--simulate-gpu", "1e9", "--bench-epochs", "1", NULL});
    cr_assert_eq(fast.status, 1, "%s", fast.err);
    cr_assert_not_null(strstr(fast.out, "\"passed\": false"), "%s", fast.out);
    cr_assert_lt(json_number(fast.out, "au"), 0.9);
    cr_assert_not_null(strstr(fast.err, "FAIL: the simulated device was busy"), "%s", fast.err);
    cr_assert_not_null(strstr(fast.err, "bound by"), "%s", fast.err);
    command_free(&slow);
    command_free(&fast);
}

/* Mean size of the training images' files. */
static double mean_file_bytes(void) {
    double sum = 0;
    for (unsigned i = 0; i < 36; i++) {
        char path[600];
        struct stat status;
        snprintf(path, sizeof(path), "%s/train/c%02u/%04u.jpg", jpeg_path, i / 12, i % 12);
        cr_assert_eq(stat(path, &status), 0, "%s", path);
        sum += (double)status.st_size;
    }
    return sum / 36;
}

Test(command, bytes_read_in_a_second_are_those_of_the_images_taken_not_of_filling_the_ring,
     .init = set_up, .fini = tear_down, .timeout = 60) {
    struct command bench =
        bench_input((const char *[]){"--simulate-gpu", "20", "--bench-steps", "3", NULL});
    cr_assert_eq(bench.status, 0, "%s", bench.err);
    double bytes = json_number(bench.out, "bytes_per_s") / json_number(bench.out, "images_per_s");
    cr_assert(bytes > 0.9 * mean_file_bytes() && bytes < 1.1 * mean_file_bytes(),
              "%.0f bytes an image: %s", bytes, bench.out);
    command_free(&bench);
}

/* Make the first files of a class bad. */
static void spoil(const char *folder, unsigned count) {
    for (unsigned i = 0; i < count; i++) {
        char path[600];
        snprintf(path, sizeof(path), "%s/train/%s/%04u.jpg", jpeg_path, folder, i);
        cr_assert_eq(truncate(path, 10), 0, "%s", path);
    }
}

Test(command, a_bench_tells_of_bad_images_and_ends_with_3_when_they_are_too_many, .init = set_up,
     .fini = tear_down, .timeout = 60) {
    static const struct {
        unsigned bad;
        const char *max_bad, *said;
        int status;
    } rows[] = {{1, "0.001", "1 of 36 images are bad", 0},
                {12, "0.1", "--max-bad allows 3", 3},
                {12, "0.5", "12 of 36 images are bad", 0}};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        spoil("c01", rows[i].bad);
        struct command bench = bench_input(
            (const char *[]){"--bench-epochs", "1", "--max-bad", rows[i].max_bad, NULL});
        cr_expect_eq(bench.status, rows[i].status, "row %zu: exit %d", i, bench.status);
        cr_expect_not_null(strstr(bench.err, rows[i].said), "row %zu: %s", i, bench.err);
        command_free(&bench);
    }
}

Test(command, a_bench_of_nothing_but_one_bad_image_ends_with_3, .init = set_up, .fini = tear_down,
     .timeout = 60) {
    spoil("c01", 1);
    char path[600];
    snprintf(path, sizeof(path), "%s/train/c01/0000.jpg", jpeg_path);
    char folder[600], single[700];
    snprintf(folder, sizeof(folder), "%s/single", scratch);
    cr_assert_eq(mkdir(folder, 0700), 0);
    snprintf(folder, sizeof(folder), "%s/single/class", scratch);
    cr_assert_eq(mkdir(folder, 0700), 0);
    snprintf(single, sizeof(single), "%s/x.jpg", folder);
    cr_assert_eq(rename(path, single), 0);
    struct command bench =
        command_run(scratch, "bench", "input", "single", "--bench-epochs", "1", NULL);
    cr_expect_eq(bench.status, 3, "exit %d: %s", bench.status, bench.err);
    cr_expect_not_null(strstr(bench.err, "x.jpg"), "%s", bench.err);
    command_free(&bench);
}

Test(command, bench_comm_measures_sums_by_size_and_a_step_with_and_without, .init = set_up,
     .fini = tear_down, .timeout = 120) {
    struct command bench =
        command_run(scratch, "bench", "comm", "--cpu-ranks", "3", "--model", "mlp", "--batch-size",
                    "4", "--bench-steps", "3", "--json", NULL);
    cr_assert_eq(bench.status, 0, "%s", bench.err);
    cr_assert_eq(json_number(bench.out, "ranks"), 3);
    cr_assert_gt(json_number(bench.out, "step_seconds"), 0);
    cr_assert_gt(json_number(bench.out, "step_alone_seconds"), 0);
    json_error_t error;
    json_t *result = json_loads(bench.out, 0, &error);
    json_t *sizes = json_object_get(result, "sizes"), *size;
    size_t at;
    double last = 0;
    cr_assert_geq(json_array_size(sizes), 4);
    json_array_foreach(sizes, at, size) {
        double bytes = json_number_value(json_object_get(size, "bytes"));
        double rate = json_number_value(json_object_get(size, "algorithm_bytes_per_s"));
        double bus = json_number_value(json_object_get(size, "bus_bytes_per_s"));
        cr_expect_gt(bytes, last);
        cr_expect_gt(rate, 0);
        cr_expect_float_eq(bus / rate, 4.0 / 3.0, 1e-6, "2 (n-1) / n of three ranks");
        last = bytes;
    }
    /* 814,090 parameters of 4 bytes. */
    cr_expect_eq(json_integer_value(json_object_get(json_object_get(result, "gradients"), "bytes")),
                 3256360);
    json_decref(result);
    command_free(&bench);
}

static double number_in(json_t *object, const char *key) {
    json_t *value = json_object_get(object, key);
    cr_assert(json_is_number(value), "%s", key);
    return json_number_value(value);
}

Test(command, bench_gpu_measures_ceilings_operations_and_a_step_on_a_cpu_too, .init = set_up,
     .fini = tear_down, .timeout = 240) {
    struct command bench = command_run(scratch, "bench", "gpu", "--model", "cnn", "--batch-size",
                                       "4", "--bench-steps", "3", "--compare", "--json", NULL);
    cr_assert_eq(bench.status, 0, "%s", bench.err);
    json_error_t error;
    json_t *result = json_loads(bench.out, 0, &error), *op;
    json_t *device = json_array_get(json_object_get(result, "devices"), 0);
    json_t *ceilings = json_object_get(device, "ceilings");
    json_t *model = json_array_get(json_object_get(device, "models"), 0);
    json_t *ops = json_object_get(model, "operations");
    double copy = number_in(ceilings, "copy_bytes_per_s"),
           matrix = number_in(ceilings, "matrix_flops_per_s");
    size_t at;
    cr_expect(copy > 0 && matrix > 0 && number_in(ceilings, "feed_bytes_per_s") > 0);
    cr_expect_gt(number_in(model, "images_per_s"), 0);
    cr_expect_gt(number_in(model, "memory_bytes"), 0);
    cr_expect_float_eq(number_in(model, "flops_per_s") / matrix,
                       number_in(model, "matrix_ceiling_share"), 1e-6);
    cr_expect(json_is_null(json_object_get(model, "mfu")), "nobody knows the peak of a CPU");
    cr_assert_eq(json_array_size(ops), 8, "cnn has two convolutions, two linear layers, ...");
    json_array_foreach(ops, at, op) {
        double by_bytes = number_in(op, "bytes") / copy, by_flops = number_in(op, "flops") / matrix;
        cr_expect_float_eq(number_in(op, "floor_seconds"),
                           by_bytes > by_flops ? by_bytes : by_flops, 1e-9);
        cr_expect_geq(number_in(op, "seconds"), 0);
    }
    cr_expect_eq(json_array_size(json_object_get(model, "published_not_measured")), 0);
    cr_expect_not_null(strstr(bench.err, "published: nothing is known"), "%s", bench.err);
    json_decref(result);
    command_free(&bench);
}

Test(command, selftest_is_green_on_this_machine, .init = set_up, .fini = tear_down,
     .timeout = 280) {
    struct command selftest =
        command_run(scratch, "selftest", "--cpu-ranks", "2", "--seed", "3", "--json", NULL);
    cr_assert_eq(selftest.status, 0, "%s", selftest.err);
    cr_expect_eq(json_number(selftest.out, "failed"), 0);
    cr_expect_eq(json_number(selftest.out, "seed"), 3);
    cr_expect_not_null(strstr(selftest.err, "checks are well"), "%s", selftest.err);
    cr_expect_not_null(strstr(selftest.err, "one step of resnet50"), "%s", selftest.err);
    cr_expect_not_null(strstr(selftest.err, "2 ranks of"), "%s", selftest.err);
    command_free(&selftest);
}

Test(command, selftest_of_a_gpu_that_is_not_there_says_why, .init = set_up, .fini = tear_down,
     .timeout = 60) {
    struct command selftest = command_run(scratch, "selftest", "--gpus", "64", NULL);
    cr_expect_eq(selftest.status, 2);
    cr_expect_not_null(strstr(selftest.err, "nncoord: "), "%s", selftest.err);
    command_free(&selftest);
}

Test(command, bench_comm_of_one_rank_is_refused_with_the_line_that_would_work, .init = set_up,
     .fini = tear_down, .timeout = 60) {
    struct command bench = command_run(scratch, "bench", "comm", "--model", "mlp", NULL);
    cr_expect_eq(bench.status, 2);
    cr_expect_not_null(strstr(bench.err, "--cpu-ranks 2"), "%s", bench.err);
    command_free(&bench);
}

Test(command, bench_train_measures_without_data, .init = set_up, .fini = tear_down, .timeout = 60) {
    struct command bench = command_run(scratch, "bench", "train", "--model", "cnn", "--batch-size",
                                       "16", "--bench-steps", "3", "--json", NULL);
    cr_assert_eq(bench.status, 0, "%s", bench.err);
    cr_assert_gt(json_number(bench.out, "images_per_s"), 0);
    command_free(&bench);
}

Test(command, check_names_what_cannot_be_read, .init = set_up, .fini = tear_down, .timeout = 60) {
    struct command good = command_run(scratch, "check", jpeg_path, NULL);
    cr_assert_eq(good.status, 0, "%s", good.err);
    cr_assert_not_null(strstr(good.err, "51 images checked, 0 bad"), "%s", good.err);
    char path[400];
    snprintf(path, sizeof(path), "%s/val/c00/0002.jpg", jpeg_path);
    cr_assert_eq(truncate(path, 100), 0);
    struct command bad = command_run(scratch, "check", jpeg_path, "--json", NULL);
    cr_assert_eq(bad.status, 3, "%s", bad.err);
    cr_assert_eq(json_number(bad.out, "bad"), 1);
    cr_assert_not_null(strstr(bad.err, "c00/0002.jpg"), "%s", bad.err);
    json_t *object = json_loads(bad.out, 0, NULL);
    const json_t *file = json_array_get(json_object_get(object, "bad_files"), 0);
    cr_expect_eq(json_array_size(json_object_get(object, "bad_files")), 1);
    cr_expect_str_eq(json_string_value(json_object_get(file, "path")), "val/c00/0002.jpg");
    cr_expect_not_null(strstr(json_string_value(json_object_get(file, "reason")), "JPEG"));
    json_decref(object);
    command_free(&good);
    command_free(&bad);
}

Test(command, check_names_more_bad_images_than_a_training_would, .init = set_up, .fini = tear_down,
     .timeout = 60) {
    spoil("c01", 12);
    struct command bad = command_run(scratch, "check", jpeg_path, "--json", NULL);
    cr_assert_eq(bad.status, 3, "%s", bad.err);
    cr_expect_eq(count_words(bad.err, "bad sample "), 12, "%s", bad.err);
    cr_expect_eq(count_words(bad.out, "\"reason\""), 12, "%s", bad.out);
    command_free(&bad);
}

Test(command, classes_whose_names_are_no_text_are_predicted_like_others, .init = set_up,
     .fini = tear_down, .timeout = 120) {
    static const char *const names[][2] = {{"c00", "new\nline"}, {"c01", "\xff"}};
    for (size_t i = 0; i < 4; i++) {
        char from[600], to[600];
        const char *part = i < 2 ? "train" : "val";
        snprintf(from, sizeof(from), "%s/%s/%s", jpeg_path, part, names[i % 2][0]);
        snprintf(to, sizeof(to), "%s/%s/%s", jpeg_path, part, names[i % 2][1]);
        cr_assert_eq(rename(from, to), 0, "%s", from);
    }
    struct command train =
        command_run(scratch, "train", jpeg_path, "--model", "resnet20", "--train-crop-size", "32",
                    "--val-crop-size", "32", "--val-resize-size", "32", "--epochs", "1",
                    "--batch-size", "8", "--output-dir", "named-run", "--quiet", NULL);
    cr_assert_eq(train.status, 0, "%s", train.err);
    struct command predict = command_run(scratch, "predict", "--resume", "named-run", "--json",
                                         "--topk", "3", "jpeg/val/c02/0000.jpg", NULL);
    cr_assert_eq(predict.status, 0, "%s", predict.err);
    static const char *const labels[] = {"\"new\\\\x0aline\"", "\"\\\\xff\"", "\"c02\""};
    for (size_t i = 0; i < 3; i++) {
        cr_expect_not_null(strstr(predict.out, labels[i]), "%s in %s", labels[i], predict.out);
    }
    command_free(&train);
    command_free(&predict);
}

Test(command, models_are_listed_and_shown, .init = set_up, .fini = tear_down, .timeout = 30) {
    struct command list = command_run(scratch, "models", NULL);
    cr_assert_eq(list.status, 0, "%s", list.err);
    static const char *const names[] = {"alexnet",  "cnn",      "mlp",  "resnet18",
                                        "resnet20", "resnet50", "vgg16"};
    for (size_t i = 0; i < 7; i++) {
        cr_assert_not_null(strstr(list.out, names[i]), "%s", names[i]);
    }
    struct command show =
        command_run(scratch, "models", "show", "resnet50", "--input", "3x224x224", "--json", NULL);
    cr_assert_eq(show.status, 0, "%s", show.err);
    cr_assert_eq(json_number(show.out, "parameters"), 25557032);
    command_free(&list);
    command_free(&show);
}

Test(command, a_mistake_in_a_model_names_file_line_and_shapes, .init = set_up, .fini = tear_down,
     .timeout = 30) {
    char path[400];
    snprintf(path, sizeof(path), "%s/wrong.nn", scratch);
    FILE *file = fopen(path, "w");
    fputs("Sequential(\n    Conv2d(1, 8, 3), ReLU(),\n    Conv2d(16, 8, 3), Flatten(), Linear(10, "
          "10))\n",
          file);
    fclose(file);
    struct command train = command_run(scratch, "train", idx_path, "--model", path,
                                       "--train-crop-size", "28", "--val-crop-size", "28", NULL);
    cr_assert_eq(train.status, 2, "%s", train.err);
    cr_assert_not_null(strstr(train.err, "wrong.nn:3"), "%s", train.err);
    cr_assert_not_null(strstr(train.err, "8"), "%s", train.err);
    command_free(&train);
}

Test(command, doctor_and_config_answer, .init = set_up, .fini = tear_down, .timeout = 30) {
    struct command doctor = command_run(scratch, "doctor", "--json", NULL);
    cr_assert_eq(doctor.status, 0, "%s", doctor.err);
    json_t *object = json_loads(doctor.out, 0, NULL);
    cr_assert(json_is_object(json_object_get(object, "io_uring")));
    json_decref(object);
    /* More than any machine has. */
    struct command greedy = command_run(scratch, "doctor", "--gpus", "64", NULL);
    cr_assert_eq(greedy.status, 2, "%s", greedy.err);
    cr_assert_not_null(strstr(greedy.err, "stands in the way of --gpus 64: "), "%s", greedy.err);
    cr_assert_not_null(strstr(greedy.out, "nncoord_cuda.so"), "%s", greedy.out);
    command_free(&greedy);
    struct command config = command_run(scratch, "config", "dump", "--lr", "0.25", NULL);
    cr_assert_eq(config.status, 0, "%s", config.err);
    cr_assert_not_null(strstr(config.out, "lr: 0.25"), "%s", config.out);
    command_free(&doctor);
    command_free(&config);
}

Test(command, usage_errors_exit_with_2_and_a_remedy, .init = set_up, .fini = tear_down,
     .timeout = 60) {
    static const struct {
        const char *arguments[4];
        const char *said;
    } rows[] = {
        {{"train", "--epohcs", "3", NULL}, "--epochs"},
        {{"train", "/nonexistent/data", NULL, NULL}, "/nonexistent/data"},
        {{"trian", NULL, NULL, NULL}, "train"},
        {{"train", "--lr", "abc", NULL}, "lr"},
        {{"bench", "input", NULL, NULL}, "DATA"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct command command = command_start(scratch, false, rows[i].arguments);
        command_wait(&command);
        cr_assert_eq(command.status, 2, "row %zu: exit %d: %s", i, command.status, command.err);
        cr_assert_not_null(strstr(command.err, rows[i].said), "row %zu: %s", i, command.err);
        cr_assert_str_empty(command.out);
        command_free(&command);
    }
}
