/* SPDX-License-Identifier: Apache-2.0 */
/* Runs that start again, are refused, or have nothing to do, and what eval and predict take from
 * them: a run's directory stays what its training made of it. */
#include "tests/support/command.h"
#include "tests/support/datasets.h"

#include <criterion/criterion.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char *scratch;

/* Two data sets, of three and of four classes, in small and other. */
static void set_up(void) {
    char path[300];
    scratch = scratch_make();
    snprintf(path, sizeof(path), "%s/small", scratch);
    dataset_make_jpeg(path, 3, 16, 8, 40);
    snprintf(path, sizeof(path), "%s/other", scratch);
    dataset_make_jpeg(path, 4, 16, 8, 40);
}

static void tear_down(void) {
    cr_assert_eq(count_our_processes(scratch), 0, "processes are left behind");
    scratch_remove(scratch);
}

/* train DATA of one small epoch into OUT, with what `added` adds (NULL-ended). */
static struct command train(const char *data, const char *out, const char *const *added) {
    const char *arguments[40] = {"train",
                                 data,
                                 "--model",
                                 "cnn",
                                 "--train-crop-size",
                                 "28",
                                 "--val-crop-size",
                                 "28",
                                 "--lr",
                                 "0.01",
                                 "--batch-size",
                                 "16",
                                 "--val-resize-size",
                                 "32",
                                 "--mean",
                                 "0.5",
                                 "--std",
                                 "0.25",
                                 "--epochs",
                                 "1",
                                 "--json",
                                 "--output-dir",
                                 out};
    size_t count = 0;
    while (arguments[count] != NULL) {
        count++;
    }
    for (size_t i = 0; added[i] != NULL; i++) {
        arguments[count + i] = added[i];
    }
    struct command command = command_start(scratch, false, arguments);
    command_wait(&command);
    return command;
}

static void train_well(const char *data, const char *out, const char *const *added) {
    struct command command = train(data, out, added);
    cr_assert_eq(command.status, 0, "%s", command.err);
    command_free(&command);
}

/* The text of a file in the scratch folder; owned by the caller. */
static char *read_text(const char *name) {
    char path[400];
    snprintf(path, sizeof(path), "%s/%s", scratch, name);
    char *text = calloc(1, 1 << 16);
    FILE *file = fopen(path, "r");
    cr_assert_not_null(file, "%s", path);
    cr_assert_lt(fread(text, 1, (1 << 16) - 1, file), (1 << 16) - 1);
    fclose(file);
    return text;
}

Test(runs, a_refused_start_leaves_the_run_as_it_was, .init = set_up, .fini = tear_down,
     .timeout = 120) {
    static const char *const names[] = {"run/config.yaml", "run/model.nn", "run/classes.txt"};
    static const char *const rows[][5] = {
        {"--resume", "auto", NULL},
        {NULL},
        {"--model", "mlp", "--resume", "auto", NULL},
        {"--fresh", "--weights", "none.safetensors", NULL},
        {"--fresh", "--weights", "run/config.yaml", NULL},
    };
    char *before[3];
    train_well("small", "run", (const char *[]){NULL});
    for (size_t i = 0; i < 3; i++) {
        before[i] = read_text(names[i]);
    }
    for (size_t row = 0; row < sizeof(rows) / sizeof(rows[0]); row++) {
        struct command refused = train("other", "run", rows[row]);
        cr_assert_eq(refused.status, 2, "row %zu: %d: %s", row, refused.status, refused.err);
        for (size_t i = 0; i < 3; i++) {
            char *after = read_text(names[i]);
            cr_assert_str_eq(after, before[i], "row %zu: %s", row, names[i]);
            free(after);
        }
        command_free(&refused);
    }
    for (size_t i = 0; i < 3; i++) {
        free(before[i]);
    }
}

Test(runs, resuming_what_is_no_run_makes_nothing_there, .init = set_up, .fini = tear_down,
     .timeout = 60) {
    char path[400];
    snprintf(path, sizeof(path), "%s/empty", scratch);
    cr_assert_eq(mkdir(path, 0700), 0);
    static const char *const rows[] = {"empty", "nowhere", "small/val/c00/0000.jpg"};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct command command =
            command_run(scratch, "train", "small", "--model", "cnn", "--resume", rows[i], NULL);
        cr_assert_eq(command.status, 2, "row %zu: %d: %s", i, command.status, command.err);
        cr_assert_not_null(strstr(command.err, rows[i]), "%s", command.err);
        command_free(&command);
    }
    cr_assert_eq(rmdir(path), 0, "the directory is no longer empty");
    snprintf(path, sizeof(path), "%s/runs", scratch);
    cr_assert_neq(access(path, F_OK), 0, "a run was begun");
}

Test(runs, a_start_that_is_refused_leaves_nothing_behind, .init = set_up, .fini = tear_down,
     .timeout = 60) {
    char path[400], kept[400];
    snprintf(kept, sizeof(kept), "%s/empty", scratch);
    cr_assert_eq(mkdir(kept, 0700), 0);
    static const char *const rows[][3] = {
        {NULL, "runs", NULL}, {"deep/er/run", "deep", NULL}, {"empty", "empty/run.lock", NULL}};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct command command = command_run(
            scratch, "train", "small", "--model", "cnn", "--model-args", "num_classes=2",
            rows[i][0] != NULL ? "--output-dir" : NULL, rows[i][0], NULL);
        cr_expect_eq(command.status, 2, "row %zu: %d: %s", i, command.status, command.err);
        snprintf(path, sizeof(path), "%s/%s", scratch, rows[i][1]);
        cr_expect_neq(access(path, F_OK), 0, "%s stays", rows[i][1]);
        command_free(&command);
    }
    cr_expect_eq(access(kept, F_OK), 0, "it was there before");
}

Test(runs, eval_and_predict_adopt_network_and_input_and_nothing_else, .init = set_up,
     .fini = tear_down, .timeout = 120) {
    train_well("small", "run",
               (const char *[]){"--limit-val-batches", "1", "--fresh", "--audit", "audit.txt",
                                "--loss", "mse", NULL});
    char *before = read_text("audit.txt");
    struct command eval = command_run(scratch, "eval", "--resume", "run", "--json", NULL);
    cr_assert_eq(eval.status, 0, "%s", eval.err);
    cr_assert_eq(json_number(eval.out, "images"), 24, "the limit of the training holds");
    struct command elsewhere = command_run(scratch, "eval", "other", "--resume", "run",
                                           "--model-args", "num_classes=4", NULL);
    cr_assert_eq(elsewhere.status, 2, "%s", elsewhere.err);
    cr_assert_not_null(strstr(elsewhere.err, "other parameters"), "%s", elsewhere.err);
    struct command predict =
        command_run(scratch, "predict", "--resume", "run", "small/val/c00", NULL);
    cr_assert_eq(predict.status, 0, "%s", predict.err);
    cr_assert_neq(predict.out[0], '{', "%s", predict.out);
    cr_assert_null(strstr(predict.err, "epoch"), "%s", predict.err);
    cr_assert_null(strstr(predict.err, "unreadable"), "%s", predict.err);
    cr_assert_not_null(strstr(predict.err, "weights of "), "%s", predict.err);
    char *after = read_text("audit.txt");
    cr_assert_str_eq(after, before, "the audit of the training was appended to");
    free(before);
    free(after);
    command_free(&eval);
    command_free(&elsewhere);
    command_free(&predict);
}

Test(runs, a_validation_loss_that_is_no_number_ends_with_6, .init = set_up, .fini = tear_down,
     .timeout = 60) {
    struct command command = train(
        "small", "run",
        (const char *[]){"--lr", "1e5", "--momentum", "0", "--limit-train-batches", "2", NULL});
    cr_assert_eq(command.status, 6, "%d: %s", command.status, command.err);
    cr_assert_not_null(strstr(command.err, "validation loss of epoch 1 is not a finite number"),
                       "%s", command.err);
    char *metrics = read_text("run/metrics.jsonl");
    for (char *line = strtok(metrics, "\n"); line != NULL; line = strtok(NULL, "\n")) {
        json_t *object = json_loads(line, 0, NULL);
        cr_assert_not_null(object, "%s", line);
        json_decref(object);
    }
    char path[400];
    snprintf(path, sizeof(path), "%s/run/LATEST", scratch);
    cr_assert_neq(access(path, F_OK), 0, "weights of no use were saved");
    free(metrics);
    command_free(&command);
}

static void resume_finished(const char *out, const char *ranks) {
    char path[500], checkpoint[500];
    struct command first = train("small", out, (const char *[]){"--cpu-ranks", ranks, NULL});
    cr_assert_eq(first.status, 0, "%s", first.err);
    struct command again =
        train("small", out, (const char *[]){"--cpu-ranks", ranks, "--resume", "auto", NULL});
    cr_assert_eq(again.status, 0, "%s", again.err);
    cr_assert_not_null(strstr(again.err, "nothing left to do after 1 epoch;"), "%s", again.err);
    static const char *const same[] = {"epochs", "steps", "best_acc1"};
    for (size_t i = 0; i < sizeof(same) / sizeof(same[0]); i++) {
        cr_assert_eq(json_number(again.out, same[i]), json_number(first.out, same[i]), "%s: %s",
                     same[i], again.out);
    }
    json_text(first.out, "checkpoint", path, sizeof(path));
    json_text(again.out, "checkpoint", checkpoint, sizeof(checkpoint));
    cr_assert_str_eq(checkpoint, path);
    json_t *object = json_loads(again.out, 0, NULL);
    static const char *const unknown[] = {"loss", "acc1", "acc5", "train_loss"};
    for (size_t i = 0; i < sizeof(unknown) / sizeof(unknown[0]); i++) {
        cr_assert(json_is_null(json_object_get(object, unknown[i])), "%s: %s", unknown[i],
                  again.out);
    }
    json_decref(object);
    command_free(&first);
    command_free(&again);
}

Test(runs, a_finished_run_says_what_it_has_and_invents_nothing, .init = set_up, .fini = tear_down,
     .timeout = 60) {
    resume_finished("one", "1");
    resume_finished("three", "3");
}

Test(runs, eval_and_predict_without_weights_are_refused_with_the_line_that_works, .init = set_up,
     .fini = tear_down, .timeout = 60) {
    static const struct {
        const char *arguments[7];
        const char *said;
    } rows[] = {
        {{"eval", "small", "--model", "cnn", NULL}, "nncoord eval DATA --resume RUN"},
        {{"predict", "--model", "cnn", "small/val/c00", NULL}, "nncoord predict FILE --resume RUN"},
        {{"eval", "small", "--resume", "auto", NULL}, "--resume RUN"},
        {{"eval", "small", "--resume", "small", NULL}, "there is no checkpoint"},
        {{"eval", "small", "--weights", "none.safetensors", NULL}, "none.safetensors"},
        {{"train", "small", "--weights", "none.safetensors", NULL}, "none.safetensors"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct command command = command_start(scratch, false, rows[i].arguments);
        command_wait(&command);
        cr_assert_eq(command.status, 2, "row %zu: %d: %s", i, command.status, command.err);
        cr_assert_not_null(strstr(command.err, rows[i].said), "row %zu: %s", i, command.err);
        cr_assert_str_empty(command.out);
        command_free(&command);
    }
}

/* Exit status of `nncoord WORDS` under a shell, which can redirect. */
static int shell(const char *words) {
    char line[1000];
    snprintf(line, sizeof(line), "cd %s && XDG_CACHE_HOME=%s %s/nncoord %s 2>err.txt", scratch,
             scratch, NNC_TEST_BUILD_DIR, words);
    int status = system(line);
    cr_assert(WIFEXITED(status), "%s", line);
    return WEXITSTATUS(status);
}

#define OPTIONS                                                                                    \
    "--model cnn --train-crop-size 28 --val-resize-size 32 --val-crop-size 28 --epochs 1 "         \
    "--limit-train-batches 1 "
#define SMALL "small " OPTIONS

Test(runs, an_output_that_cannot_be_written_ends_with_74, .init = set_up, .fini = tear_down,
     .timeout = 120) {
    static const char *const rows[] = {
        "train " SMALL "--output-dir a --json >/dev/full",
        "eval small --resume run --json >/dev/full",
        "eval small --resume run --json >&-",
        "predict small/val/c00 --resume run >/dev/full",
        "config dump >/dev/full",
        "doctor --json >/dev/full",
        "models --json >/dev/full",
        "--help >/dev/full",
        "train " SMALL "--output-dir b --audit /dev/full",
        "train " SMALL "--output-dir c --audit nowhere/audit",
        "train " SMALL "--output-dir file/d",
        "train " SMALL "--output-dir /proc/nncoord",
    };
    cr_assert_eq(shell("train " SMALL "--output-dir run && touch file"), 0);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        int status = shell(rows[i]);
        char *text = read_text("err.txt");
        cr_expect_eq(status, 74, "%s: %d: %s", rows[i], status, text);
        cr_expect_not_null(strstr(text, "cannot be written"), "%s: %s", rows[i], text);
        free(text);
    }
}

Test(runs, predict_prints_every_image_and_ends_with_3_when_one_is_unreadable, .init = set_up,
     .fini = tear_down, .timeout = 60) {
    char path[400];
    train_well("small", "run", (const char *[]){NULL});
    snprintf(path, sizeof(path), "%s/small/val/c00/0003.jpg", scratch);
    cr_assert_eq(truncate(path, 60), 0);
    struct command predict =
        command_run(scratch, "predict", "--resume", "run", "--json", "small/val/c00", NULL);
    cr_assert_eq(predict.status, 3, "%d: %s", predict.status, predict.err);
    cr_assert_not_null(strstr(predict.err, "1 of 8 images cannot be read"), "%s", predict.err);
    unsigned lines = 0;
    for (const char *at = predict.out; *at != '\0'; at++) {
        lines += *at == '\n';
    }
    cr_assert_eq(lines, 8, "%s", predict.out);
    command_free(&predict);
    struct command missing = command_run(scratch, "predict", "--resume", "run", "none.jpg", NULL);
    cr_assert_eq(missing.status, 2, "%d: %s", missing.status, missing.err);
    cr_assert_not_null(strstr(missing.err, "give image files"), "%s", missing.err);
    command_free(&missing);
}

Test(runs, the_path_in_json_is_the_path_itself, .init = set_up, .fini = tear_down, .timeout = 60) {
    static const char name[] = "small/val/back\\slash and \xc3\xa4.jpg";
    char from[400], to[400];
    train_well("small", "run", (const char *[]){NULL});
    snprintf(from, sizeof(from), "%s/small/val/c00/0000.jpg", scratch);
    snprintf(to, sizeof(to), "%s/%s", scratch, name);
    cr_assert_eq(rename(from, to), 0);
    struct command predict =
        command_run(scratch, "predict", "--resume", "run", "--json", name, NULL);
    cr_assert_eq(predict.status, 0, "%s", predict.err);
    json_text(predict.out, "path", from, sizeof(from));
    cr_assert_str_eq(from, name);
    command_free(&predict);
}

Test(runs, a_backend_that_is_not_there_is_refused_by_its_own_option, .init = set_up,
     .fini = tear_down, .timeout = 60) {
    struct command command = train("small", "run", (const char *[]){"--backend", "cuda", NULL});
    cr_assert_eq(command.status, 2, "%s", command.err);
    cr_assert_not_null(strstr(command.err, "--backend cuda"), "%s", command.err);
    cr_assert_null(strstr(command.err, "--gpus 0"), "%s", command.err);
    command_free(&command);
}

Test(runs, a_run_is_continued_by_its_name_alone_and_its_best_checkpoint_has_one, .init = set_up,
     .fini = tear_down, .timeout = 90) {
    train_well("small", "run", (const char *const[]){"--seed", "7", NULL});
    struct command command =
        command_run(scratch, "--resume", "run", "--epochs", "2", "--json", NULL);
    cr_assert_eq(command.status, 0, "%s", command.err);
    cr_expect_eq(json_number(command.out, "epochs"), 2);
    cr_expect_null(strstr(command.err, "fashion-mnist"), "%s", command.err);
    command_free(&command);
    command = command_run(scratch, "eval", "--resume", "run/best", "--json", NULL);
    cr_assert_eq(command.status, 0, "%s", command.err);
    cr_expect_eq(json_number(command.out, "images"), 24);
    command_free(&command);
    command = command_run(scratch, "eval", "small", "--weights", "run", "--model", "cnn",
                          "--val-crop-size", "28", "--val-resize-size", "32", NULL);
    cr_expect_eq(command.status, 0, "%s", command.err);
    command_free(&command);
    command = command_run(scratch, "small", "--resume", "auto", NULL);
    cr_expect_eq(command.status, 2);
    cr_expect_not_null(strstr(command.err, "--output-dir"), "%s", command.err);
    command_free(&command);
}

Test(runs, a_network_of_grey_images_classifies_colour_photographs, .init = set_up,
     .fini = tear_down, .timeout = 90) {
    char path[400];
    snprintf(path, sizeof(path), "%s/digits", scratch);
    dataset_make_idx(path, 100, 20);
    train_well("digits", "run", (const char *const[]){NULL});
    struct command command =
        command_run(scratch, "predict", "--resume", "run", "small/val/c00/0000.jpg", NULL);
    cr_expect_eq(command.status, 0, "%s", command.err);
    cr_expect_neq(strlen(command.out), 0);
    command_free(&command);
}

Test(runs, weights_of_a_checkpoint_directory_evaluate_as_the_run_does, .init = set_up,
     .fini = tear_down, .timeout = 60) {
    char checkpoint[400];
    struct command first = train("small", "run", (const char *[]){NULL});
    cr_assert_eq(first.status, 0, "%s", first.err);
    json_text(first.out, "checkpoint", checkpoint, sizeof(checkpoint));
    struct command eval = command_run(scratch, "eval", "small", "--weights", checkpoint, "--model",
                                      "cnn", "--val-crop-size", "28", "--val-resize-size", "32",
                                      "--mean", "0.5", "--std", "0.25", "--json", NULL);
    cr_assert_eq(eval.status, 0, "%s", eval.err);
    cr_assert_float_eq(json_number(eval.out, "acc1"), json_number(first.out, "acc1"), 1e-9);
    command_free(&first);
    command_free(&eval);
}

Test(runs, what_is_seldom_meant_of_a_data_set_is_said_in_one_line, .init = set_up,
     .fini = tear_down, .timeout = 90) {
    static const struct {
        const char *words, *said;
        bool is_said;
    } rows[] = {
        {"check small", "small: 48 training and 24 validation images, 3 classes", true},
        {"check small", "has 1 class", false},
        {"check big", "big has 1 class, small: did you mean big/small?", true},
        {"check big", "72 training and 0 validation images, 1 class", true},
        {"check single", "single has 1 class, c00\n", true},
        {"train small/train " OPTIONS, "no validation set: ", true},
        {"train " SMALL, "no validation set: ", false},
        {"train small/train --val-data small/val " OPTIONS, "no validation set", false},
        {"eval small/train --resume run", "small/train has no validation set beside", true},
        {"eval small --resume run", "has no validation set", false},
        {"eval small/train --val-data small/val --resume run", "has no validation set", false},
        {"show small/train --split val --count 1", "has no validation set beside", true},
        {"show small/train --count 1", "has no validation set", false},
    };
    char line[1200];
    snprintf(line, sizeof(line),
             "cd %s && mkdir big single && cp -r small big/ && cp -r small/train/c00 single/",
             scratch);
    cr_assert_eq(system(line), 0);
    cr_assert_eq(shell("train " SMALL "--output-dir run"), 0);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        int status = shell(rows[i].words);
        char *text = read_text("err.txt");
        cr_expect_eq(status, 0, "%s: %d: %s", rows[i].words, status, text);
        cr_expect_eq(strstr(text, rows[i].said) != NULL, rows[i].is_said, "%s: %s", rows[i].words,
                     text);
        free(text);
    }
}
