/* SPDX-License-Identifier: Apache-2.0 */
/* The whole program: results do not depend on the machinery. Loaders, ring depth, read method,
 * kills and resumes leave the weights bit for bit as they are; ranks leave them equal within
 * rounding. */
#include "base/rng.h"
#include "base/vfs.h"
#include "tests/support/command.h"
#include "tests/support/datasets.h"
#include "workers/safetensors.h"

#include <criterion/criterion.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *const model_text = "input(1, 28, 28)\n"
                                      "Sequential(Conv2d(1, 4, kernel_size=5, stride=3), ReLU(),\n"
                                      "    Flatten(), Linear(256, 10))\n";

static char *scratch;
static char model_path[300], data_path[300];

/* A data set of 500 training images does not divide by the batch: each epoch has a short last step.
 */
static void set_up(void) {
    scratch = scratch_make();
    snprintf(model_path, sizeof(model_path), "%s/tiny.nn", scratch);
    snprintf(data_path, sizeof(data_path), "%s/data", scratch);
    FILE *file = fopen(model_path, "w");
    fputs(model_text, file);
    fclose(file);
    dataset_make_idx(data_path, 500, 130);
}

static void tear_down(void) {
    cr_assert_eq(count_our_processes(scratch), 0, "processes are left behind");
    scratch_remove(scratch);
}

struct options {
    const char *out; /* folder of the run */
    const char *extra[24];
};

static struct command start(const struct options *options) {
    static char crop[] = "28";
    const char *arguments[60] = {"train",
                                 data_path,
                                 "--model",
                                 model_path,
                                 "--train-crop-size",
                                 crop,
                                 "--val-crop-size",
                                 crop,
                                 "--val-resize-size",
                                 crop,
                                 "--train-transform",
                                 "padded-crop",
                                 "--crop-padding",
                                 "2",
                                 "--mean",
                                 "0.5",
                                 "--std",
                                 "0.25",
                                 "--lr",
                                 "0.02",
                                 "--lr-scheduler",
                                 "constant",
                                 "--threads",
                                 "1",
                                 "--json",
                                 "--quiet",
                                 "--output-dir",
                                 options->out};
    size_t count = 0;
    while (arguments[count] != NULL) {
        count++;
    }
    for (size_t i = 0; options->extra[i] != NULL; i++) {
        arguments[count++] = options->extra[i];
        cr_assert_lt(count, 59);
    }
    return command_start(scratch, false, arguments);
}

/* Run to the end and return the SHA-256 of the final weights. */
static void finish(struct command *command, char ret_hash[65]) {
    command_wait(command);
    cr_assert_eq(command->status, 0, "exit %d: %s", command->status, command->err);
    json_text(command->out, "weights_sha256", ret_hash, 65);
    cr_assert_eq(strlen(ret_hash), 64);
    command_free(command);
}

static void run(const struct options *options, char ret_hash[65]) {
    struct command command = start(options);
    finish(&command, ret_hash);
}

Test(identity, loaders_depth_and_read_method_do_not_change_the_weights, .init = set_up,
     .fini = tear_down, .timeout = 240) {
    static const char *const loaders[] = {"1", "2", "3", "7"};
    static const char *const depths[] = {"2", "4", "8"};
    static const char *const methods[] = {"uring", "pread"};
    char first[65] = "", hash[65], out[32];
    for (int i = 0; i < 24; i++) {
        snprintf(out, sizeof(out), "out-%d", i);
        const struct options options = {.out = out,
                                        .extra = {"--epochs", "1", "--batch-size", "48",
                                                  "--workers", loaders[i % 4], "--ring-depth",
                                                  depths[i / 4 % 3], "--io", methods[i / 12]}};
        run(&options, hash);
        if (i == 0) {
            strcpy(first, hash);
        }
        cr_assert_str_eq(hash, first, "loaders %s, depth %s, %s", loaders[i % 4], depths[i / 4 % 3],
                         methods[i / 12]);
    }
}

Test(identity, another_seed_gives_other_weights, .init = set_up, .fini = tear_down, .timeout = 60) {
    char one[65], two[65];
    const struct options first = {.out = "a", .extra = {"--epochs", "1", "--seed", "1"}};
    const struct options second = {.out = "b", .extra = {"--epochs", "1", "--seed", "2"}};
    run(&first, one);
    run(&second, two);
    cr_assert_str_neq(one, two);
}

/* Largest difference of any tensor of two model.safetensors, relative to the largest value in it.
 */
static double compare_weights(const char *left_path, const char *right_path) {
    struct nnc_safetensors *left = NULL, *right = NULL;
    cr_assert_eq(nnc_safetensors_open(nnc_vfs_real(), left_path, &left), 0);
    cr_assert_eq(nnc_safetensors_open(nnc_vfs_real(), right_path, &right), 0);
    double worst = 0.0;
    for (uint32_t i = 0; i < left->count; i++) {
        int32_t other = nnc_safetensors_find(right, left->tensors[i].name);
        cr_assert_geq(other, 0, "%s", left->tensors[i].name);
        uint64_t count = left->tensors[i].count;
        float *a = malloc(count * sizeof(float)), *b = malloc(count * sizeof(float));
        cr_assert_eq(nnc_safetensors_read(left, i, a), 0);
        cr_assert_eq(nnc_safetensors_read(right, (uint32_t)other, b), 0);
        double difference = 0.0, scale = 1e-12;
        for (uint64_t j = 0; j < count; j++) {
            difference = fmax(difference, fabs((double)a[j] - (double)b[j]));
            scale = fmax(scale, fabs((double)b[j]));
        }
        worst = fmax(worst, difference / scale);
        free(a);
        free(b);
    }
    nnc_safetensors_close(left);
    nnc_safetensors_close(right);
    return worst;
}

/* model.safetensors of the checkpoint that RUN/LATEST names. */
static void newest_weights(const char *out, char *ret_path, size_t bytes) {
    char path[400], name[100];
    snprintf(path, sizeof(path), "%s/%s/LATEST", scratch, out);
    FILE *file = fopen(path, "r");
    cr_assert_not_null(file, "%s", path);
    cr_assert_eq(fscanf(file, "%99s", name), 1);
    fclose(file);
    snprintf(ret_path, bytes, "%s/%s/%s/model.safetensors", scratch, out, name);
}

Test(identity, two_ranks_of_32_equal_one_of_64_after_20_steps, .init = set_up, .fini = tear_down,
     .timeout = 60) {
    char hash[65], one[700], two[700];
    const struct options single = {.out = "one",
                                   .extra = {"--epochs", "1", "--limit-train-batches", "20",
                                             "--global-batch", "64", "--cpu-ranks", "1"}};
    const struct options pair = {.out = "two",
                                 .extra = {"--epochs", "1", "--limit-train-batches", "20",
                                           "--global-batch", "64", "--cpu-ranks", "2"}};
    run(&single, hash);
    run(&pair, hash);
    newest_weights("one", one, sizeof(one));
    newest_weights("two", two, sizeof(two));
    double difference = compare_weights(one, two);
    cr_assert_leq(difference, 1e-5, "relative difference %g", difference);
}

/* Lines of the audit file as a bit per (epoch, sample) of training; every one exactly once. */
static void check_audit(const char *name, uint32_t epochs, uint32_t samples) {
    char path[400], line[256];
    snprintf(path, sizeof(path), "%s/%s", scratch, name);
    FILE *file = fopen(path, "r");
    cr_assert_not_null(file);
    uint8_t *seen = calloc(epochs * samples, 1);
    while (fgets(line, sizeof(line), file) != NULL) {
        char phase[16];
        unsigned epoch, step, rank, k, sample;
        if (sscanf(line, "%15s %u %u %u %u %u", phase, &epoch, &step, &rank, &k, &sample) == 6 &&
            strcmp(phase, "train") == 0) {
            cr_assert(epoch < epochs && sample < samples);
            seen[epoch * samples + sample]++;
        }
    }
    fclose(file);
    for (uint32_t i = 0; i < epochs * samples; i++) {
        cr_assert_eq(seen[i], 1, "epoch %u sample %u was delivered %u times", i / samples,
                     i % samples, seen[i]);
    }
    free(seen);
}

static bool is_running(const struct command *command) {
    return kill(command->pid, 0) == 0 &&
           find_descendants(command->pid, "nncoord-trainer", (pid_t[4]){0}, 4) > 0;
}

Test(identity, thirty_killed_loaders_lose_and_duplicate_nothing, .init = set_up, .fini = tear_down,
     .timeout = 240) {
    char golden[65], hash[65];
    const struct options quiet = {
        .out = "golden", .extra = {"--epochs", "200", "--batch-size", "20", "--workers", "3"}};
    run(&quiet, golden);
    struct nnc_rng rng = nnc_rng_make(42, NNC_RNG_SYNTHETIC, 3, 0);
    unsigned kills = 0;
    for (int attempt = 0; kills < 30 && attempt < 12; attempt++) {
        char out[32], audit[32];
        snprintf(out, sizeof(out), "killed-%d", attempt);
        snprintf(audit, sizeof(audit), "audit-%d", attempt);
        const struct options options = {
            .out = out,
            .extra = {"--epochs", "200", "--batch-size", "20", "--workers", "3", "--audit", audit}};
        struct command command = start(&options);
        usleep(80000);
        for (int i = 0; i < 6; i++) {
            pid_t pids[8];
            size_t count = find_descendants(command.pid, "nncoord-loader", pids, 8);
            if (count > 0 && is_running(&command)) {
                kills += kill(pids[nnc_rng_below(&rng, (uint32_t)count)], SIGKILL) == 0 ? 1 : 0;
            }
            usleep(15000 + nnc_rng_below(&rng, 40000));
        }
        finish(&command, hash);
        cr_assert_str_eq(hash, golden, "attempt %d", attempt);
        check_audit(audit, 200, 500);
    }
    cr_assert_geq(kills, 30, "only %u kills: the test did not test", kills);
}

/* CPUs that nncoord may use here, from `doctor`. */
static unsigned usable_cpus(void) {
    struct command doctor = command_run(scratch, "doctor", "--json", NULL);
    const char *end = strstr(doctor.out, " CPUs to use");
    unsigned cpus = 0;
    cr_assert_not_null(end, "%s", doctor.out);
    while (end > doctor.out && end[-1] >= '0' && end[-1] <= '9') {
        end--;
    }
    cr_assert_eq(sscanf(end, "%u", &cpus), 1);
    command_free(&doctor);
    return cpus;
}

/* Photographs that take a hundred times as long to decode as the network computes on them. */
static struct command train_on_photographs(const char *out, const char *const *extra) {
    static const char text[] = "input(3, 32, 32)\nSequential(Flatten(), Linear(3072, 2))\n";
    char photographs[400], network[400];
    snprintf(photographs, sizeof(photographs), "%s/photographs", scratch);
    snprintf(network, sizeof(network), "%s/linear.nn", scratch);
    if (access(photographs, R_OK) != 0) {
        dataset_make_jpeg(photographs, 2, 20, 2, 700);
        FILE *file = fopen(network, "w");
        fputs(text, file);
        fclose(file);
    }
    const char *arguments[40] = {"train",
                                 photographs,
                                 "--model",
                                 network,
                                 "--train-crop-size",
                                 "32",
                                 "--val-crop-size",
                                 "32",
                                 "--val-resize-size",
                                 "32",
                                 "--lr",
                                 "0.001",
                                 "--threads",
                                 "1",
                                 "--epochs",
                                 "40",
                                 "--eval-every",
                                 "0",
                                 "--batch-size",
                                 "8",
                                 "--json",
                                 "--output-dir",
                                 out};
    size_t count = 23;
    for (size_t i = 0; extra[i] != NULL; i++) {
        arguments[count++] = extra[i];
    }
    return command_start(scratch, false, arguments);
}

Test(identity, loaders_that_come_and_go_while_training_do_not_change_the_weights, .init = set_up,
     .fini = tear_down, .timeout = 120) {
    char golden[65], hash[65];
    if (usable_cpus() < 2) {
        cr_skip_test("with one CPU there is never a second loader");
    }
    struct command fixed = train_on_photographs("fixed", (const char *[]){"--workers", "1", NULL});
    finish(&fixed, golden);
    struct command follows = train_on_photographs(
        "auto", (const char *[]){"--workers-interval", "0.2", "--audit", "audit", NULL});
    command_wait(&follows);
    cr_assert_eq(follows.status, 0, "%s", follows.err);
    cr_assert_not_null(strstr(follows.err, " loaders: trainers waited "), "%s", follows.err);
    cr_assert_geq(json_number(follows.out, "workers_changes"), 1, "%s", follows.err);
    json_text(follows.out, "weights_sha256", hash, sizeof(hash));
    cr_assert_str_eq(hash, golden, "%s", follows.err);
    check_audit("audit", 40, 40);
    command_free(&follows);
}

Test(identity, a_number_of_loaders_that_was_given_stays, .init = set_up, .fini = tear_down,
     .timeout = 120) {
    struct command fixed = train_on_photographs(
        "fixed", (const char *[]){"--workers", "1", "--workers-interval", "0.1", NULL});
    command_wait(&fixed);
    cr_assert_eq(fixed.status, 0, "%s", fixed.err);
    cr_assert_eq(json_number(fixed.out, "workers"), 1);
    cr_assert_eq(json_number(fixed.out, "workers_changes"), 0);
    cr_assert_null(strstr(fixed.err, " loaders: "), "%s", fixed.err);
    command_free(&fixed);
}

static const char *const simd_levels[] = {"auto", "avx512", "avx2", "c"};
#define SIMD_LEVELS (sizeof(simd_levels) / sizeof(simd_levels[0]))

/* Bytes of the samples that `show` makes of photographs, or NULL where the CPU refuses the level.
 */
static char *shown_pixels(const char *folder, const char *level, const char *method,
                          size_t *ret_bytes) {
    struct command show =
        command_run(scratch, "show", folder, "--train-crop-size", "96", "--count", "30", "--simd",
                    level, "--io", method, "--npy", "pixels.npy", NULL);
    bool refused = show.status == 2;
    cr_assert(refused || show.status == 0, "%s: exit %d: %s", level, show.status, show.err);
    cr_assert(!refused || strstr(show.err, "this CPU does not have") != NULL, "%s", show.err);
    command_free(&show);
    if (refused) {
        return NULL;
    }
    char path[300];
    snprintf(path, sizeof(path), "%s/pixels.npy", scratch);
    FILE *file = fopen(path, "rb");
    cr_assert_not_null(file);
    const size_t room = 1 << 20;
    char *bytes = malloc(room);
    *ret_bytes = fread(bytes, 1, room, file);
    cr_assert(*ret_bytes > 30 * 96 * 96 * 3 && *ret_bytes < room);
    fclose(file);
    return bytes;
}

/* JSIMD_FORCENONE is libjpeg-turbo's own switch to plain C. */
Test(identity, shown_pixels_are_the_same_bytes_with_any_cpu_instructions_and_read_method,
     .init = set_up, .fini = tear_down, .timeout = 120) {
    static const char *const methods[] = {"uring", "pread"};
    char folder[400];
    snprintf(folder, sizeof(folder), "%s/photographs", scratch);
    dataset_make_jpeg(folder, 2, 20, 2, 250);
    size_t first_bytes, bytes;
    char *first = shown_pixels(folder, "c", "pread", &first_bytes);
    cr_assert_not_null(first, "plain C is always there");
    for (size_t i = 0; i < 4 * SIMD_LEVELS; i++) {
        const char *level = simd_levels[i / 4], *method = methods[i % 2];
        bool plain_jpeg = i / 2 % 2 == 1;
        cr_assert_eq(plain_jpeg ? setenv("JSIMD_FORCENONE", "1", 1) : unsetenv("JSIMD_FORCENONE"),
                     0);
        char *pixels = shown_pixels(folder, level, method, &bytes);
        if (pixels != NULL) {
            cr_assert_eq(bytes, first_bytes);
            cr_assert_eq(memcmp(pixels, first, bytes), 0, "--simd %s, --io %s, %s", level, method,
                         plain_jpeg ? "plain libjpeg" : "libjpeg as it likes");
        }
        free(pixels);
    }
    free(first);
}

Test(identity, a_training_has_the_same_weights_with_any_cpu_instructions_of_the_loaders,
     .init = set_up, .fini = tear_down, .timeout = 120) {
    static const char *const loaders[] = {"1", "2", "3"};
    static const char *const methods[] = {"uring", "pread"};
    char first[65] = "", hash[65], out[32];
    for (size_t i = 0; i < 2 * SIMD_LEVELS; i++) {
        const char *level = simd_levels[SIMD_LEVELS - 1 - i / 2];
        snprintf(out, sizeof(out), "out-%zu", i);
        struct command command = train_on_photographs(
            out, (const char *[]){"--epochs", "2", "--simd", level, "--workers", loaders[i % 3],
                                  "--io", methods[i % 2], NULL});
        command_wait(&command);
        bool refused = command.status == 2;
        cr_assert(refused ? strstr(command.err, "this CPU does not have") != NULL
                          : command.status == 0,
                  "--simd %s: exit %d: %s", level, command.status, command.err);
        if (!refused) {
            json_text(command.out, "weights_sha256", hash, sizeof(hash));
            if (i == 0) {
                strcpy(first, hash);
            }
            cr_assert_str_eq(hash, first, "--simd %s, %s loaders, %s", level, loaders[i % 3],
                             methods[i % 2]);
        }
        command_free(&command);
    }
}

/* Stop a run at a random moment; exit 75 and a durable checkpoint are expected when it was running.
 */
static bool interrupt(struct command *command, struct nnc_rng *rng) {
    usleep(60000 + nnc_rng_below(rng, 250000));
    kill(command->pid, SIGTERM);
    command_wait(command);
    bool stopped = command->status == 75;
    /* 128 + SIGTERM: the signal came before there was anything to stop. */
    cr_assert(stopped || command->status == 0 || command->status == 128 + SIGTERM ||
                  strstr(command->err, "before a checkpoint") != NULL,
              "exit %d: %s", command->status, command->err);
    command_free(command);
    return stopped;
}

Test(identity, twenty_interrupted_runs_resume_bit_for_bit, .init = set_up, .fini = tear_down,
     .timeout = 240) {
    char golden[65], hash[65];
    const char *const base[] = {"--epochs", "200", "--batch-size", "20", "--keep", "2"};
    struct options plain = {.out = "golden"};
    memcpy(plain.extra, base, sizeof(base));
    run(&plain, golden);
    struct nnc_rng rng = nnc_rng_make(43, NNC_RNG_SYNTHETIC, 4, 0);
    unsigned stops = 0;
    for (int attempt = 0; stops < 20 && attempt < 25; attempt++) {
        char out[32];
        snprintf(out, sizeof(out), "resumed-%d", attempt);
        struct options options = {.out = out};
        memcpy(options.extra, base, sizeof(base));
        options.extra[6] = "--resume";
        options.extra[7] = "auto";
        for (int i = 0; i < 3; i++) { /* several times, so that some epochs are interrupted twice */
            struct command command = start(&options);
            stops += interrupt(&command, &rng) ? 1 : 0;
        }
        run(&options, hash);
        cr_assert_str_eq(hash, golden, "attempt %d after %u stops", attempt, stops);
    }
    cr_assert_geq(stops, 20, "only %u stops: the test did not test", stops);
}

Test(identity, refused_io_uring_is_one_line_and_changes_nothing, .init = set_up, .fini = tear_down,
     .timeout = 60) {
    char golden[65], hash[65];
    const struct options plain = {.out = "golden", .extra = {"--epochs", "1"}};
    run(&plain, golden);
    const char *const arguments[] = {
        "train",    data_path,   "--model", model_path,       DATASET_IDX_OPTIONS, "--crop-padding",
        "2",        "--lr",      "0.02",    "--lr-scheduler", "constant",          "--threads",
        "1",        "--workers", "3",       "--json",         "--output-dir",      "denied",
        "--epochs", "1",         NULL};
    struct command command = command_start(scratch, true, arguments);
    command_wait(&command);
    cr_assert_eq(command.status, 0, "%s", command.err);
    unsigned lines = 0;
    for (const char *at = command.err; (at = strstr(at, "io_uring refused")) != NULL; at++) {
        lines++;
    }
    cr_assert_eq(lines, 1, "%s", command.err);
    json_text(command.out, "weights_sha256", hash, sizeof(hash));
    cr_assert_str_eq(hash, golden);
    command_free(&command);
}
