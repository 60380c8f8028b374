/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/gpu/run_case.h"

#include "base/err.h"
#include "base/vfs.h"
#include "tests/support/datasets.h"
#include "workers/safetensors.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Below the build's folder, where programs find the models of the source tree. */
static char programs[400];

char *run_case_start(void) {
    char text[2000], folder[400];
    char *scratch = scratch_make();
    snprintf(programs, sizeof(programs), "%s/tests/gpu/programs-%d", NNC_TEST_BUILD_DIR, getpid());
    snprintf(text, sizeof(text),
             "mkdir %s && cp %s/nncoord %s/nncoord-trainer %s/nncoord-loader %s %s", programs,
             NNC_TEST_BUILD_DIR, NNC_TEST_BUILD_DIR, NNC_TEST_BUILD_DIR, NNC_TEST_FAKE_PLUGIN,
             programs);
    cr_assert_eq(system(text), 0, "%s", text);
    snprintf(folder, sizeof(folder), "%s/data", scratch);
    dataset_make_idx(folder, 640, 64);
    command_use_programs(programs);
    cr_assert_eq(setenv("LD_LIBRARY_PATH", NNC_TEST_FAKECUDA_DIR, 1), 0);
    run_case_fake("devices=4");
    return scratch;
}

void run_case_finish(char *scratch) {
    char text[450];
    snprintf(text, sizeof(text), "rm -r %s", programs);
    cr_expect_eq(system(text), 0, "%s", text);
    scratch_remove(scratch);
}

void run_case_fake(const char *settings) {
    cr_assert_eq(setenv("CUDA_FAKE", settings, 1), 0);
}

struct command run_case_train(const char *scratch, const char *out, const char *const *options) {
    static const char *const common[] = {"train",
                                         "data",
                                         "--lr",
                                         "0.01",
                                         "--epochs",
                                         "1",
                                         DATASET_IDX_OPTIONS,
                                         "--workers",
                                         "1",
                                         "--threads",
                                         "1",
                                         "--json",
                                         "--snapshot-interval",
                                         "1",
                                         "--global-batch",
                                         "32",
                                         "--deterministic",
                                         "--output-dir"};
    const char *arguments[62];
    size_t count = sizeof(common) / sizeof(common[0]);
    memcpy(arguments, common, sizeof(common));
    arguments[count++] = out;
    for (size_t i = 0; options[i] != NULL; i++) {
        cr_assert_lt(count, 60);
        arguments[count++] = options[i];
    }
    arguments[count] = NULL;
    return command_start(scratch, false, arguments);
}

struct command run_case_finished(const char *scratch, const char *out, int status,
                                 const char *const *options) {
    struct command command = run_case_train(scratch, out, options);
    command_wait(&command);
    cr_assert_eq(command.status, status, "%s: exit %d: %s", out, command.status, command.err);
    return command;
}

/* out/ckpt-.../model.safetensors of the newest checkpoint. */
static void find_weights(const char *scratch, const char *out, char *ret_path, size_t bytes) {
    char folder[600], newest[256] = "";
    snprintf(folder, sizeof(folder), "%s/%s", scratch, out);
    DIR *directory = opendir(folder);
    cr_assert_not_null(directory, "%s", folder);
    struct dirent *entry;
    while ((entry = readdir(directory)) != NULL) {
        if (strncmp(entry->d_name, "ckpt-", 5) == 0 && strcmp(entry->d_name, newest) > 0) {
            snprintf(newest, sizeof(newest), "%s", entry->d_name);
        }
    }
    closedir(directory);
    snprintf(ret_path, bytes, "%s/%s/model.safetensors", folder, newest);
}

float *run_case_weights(const char *scratch, const char *out, size_t *ret_count) {
    char path[1000];
    struct nnc_safetensors *file;
    find_weights(scratch, out, path, sizeof(path));
    cr_assert_eq(nnc_safetensors_open(nnc_vfs_real(), path, &file), 0, "%s: %s", path,
                 nnc_error_text());
    size_t count = 0, used = 0;
    for (uint32_t i = 0; i < file->count; i++) {
        count += file->tensors[i].count;
    }
    float *values = malloc((count + 1) * sizeof(*values));
    for (uint32_t i = 0; i < file->count; i++) {
        cr_assert_eq(nnc_safetensors_read(file, i, values + used), 0, "%s", nnc_error_text());
        used += file->tensors[i].count;
    }
    nnc_safetensors_close(file);
    *ret_count = count;
    return values;
}

double run_case_distance(const char *scratch, const char *left, const char *right,
                         const char *start) {
    const char *const names[3] = {left, right, start};
    float *values[3];
    size_t count[3];
    for (int i = 0; i < 3; i++) {
        values[i] = run_case_weights(scratch, names[i], &count[i]);
        cr_assert_eq(count[i], count[0]);
    }
    double apart = 0, moved = 0;
    for (size_t i = 0; i < count[0]; i++) {
        double off = (double)values[0][i] - (double)values[1][i];
        double way = (double)values[1][i] - (double)values[2][i];
        apart += off * off;
        moved += way * way;
    }
    for (int i = 0; i < 3; i++) {
        free(values[i]);
    }
    cr_assert_gt(moved, 0, "%s has not moved from %s", right, start);
    return sqrt(apart / moved);
}

bool run_case_same(const char *scratch, const char *left, const char *right) {
    size_t counts[2];
    float *one = run_case_weights(scratch, left, &counts[0]);
    float *two = run_case_weights(scratch, right, &counts[1]);
    bool same = counts[0] == counts[1] && memcmp(one, two, counts[0] * sizeof(*one)) == 0;
    free(one);
    free(two);
    return same;
}
