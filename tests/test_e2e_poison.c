/* SPDX-License-Identifier: Apache-2.0 */
/* Images that hang or crash whatever loader decodes them: the run takes them out and goes on. The
 * programs are the real ones but for a loader that is built to fall over marked files. */
#include "tests/support/command.h"
#include "tests/support/datasets.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char *scratch;

static void write_text(const char *name, const char *text) {
    char path[600];
    snprintf(path, sizeof(path), "%s/%s", scratch, name);
    FILE *file = fopen(path, "w");
    cr_assert_not_null(file, "%s", path);
    fputs(text, file);
    fclose(file);
}

/* Copies, because nncoord looks for the others beside its own file. */
static void set_up(void) {
    char text[2500], folder[400];
    scratch = scratch_make();
    snprintf(text, sizeof(text),
             "mkdir %s/programs && cp %s/nncoord %s/nncoord-trainer %s/programs && "
             "cp %s %s/programs/nncoord-loader",
             scratch, NNC_TEST_BUILD_DIR, NNC_TEST_BUILD_DIR, scratch, NNC_TEST_POISON_LOADER,
             scratch);
    cr_assert_eq(system(text), 0);
    snprintf(folder, sizeof(folder), "%s/data", scratch);
    dataset_make_jpeg(folder, 3, 20, 4, 24);
    write_text("tiny.nn", "input(3, 16, 16)\nSequential(Flatten(), Linear(768, 3))\n");
}

static void tear_down(void) {
    scratch_remove(scratch);
}

/* Train two epochs into `out`; the JSON result and messages go to files OUT.json and OUT.err.
 * Returns the exit status. */
static int train(const char *out, const char *options) {
    char text[2500];
    snprintf(text, sizeof(text),
             "cd %s && XDG_CACHE_HOME=%s timeout 60 programs/nncoord train data --model tiny.nn "
             "--train-crop-size 16 --val-crop-size 16 --val-resize-size 16 --epochs 2 "
             "--batch-size 8 --lr 0.01 --output-dir %s --sample-timeout 1 --json %s "
             ">%s.json 2>%s.err",
             scratch, scratch, out, options, out, out);
    int status = system(text);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static char *read_text(const char *out, const char *name) {
    static char text[20000];
    char path[600];
    snprintf(path, sizeof(path), "%s/%s%s", scratch, out, name);
    FILE *file = fopen(path, "r");
    cr_assert_not_null(file, "%s", path);
    text[fread(text, 1, sizeof(text) - 1, file)] = '\0';
    fclose(file);
    return text;
}

Test(poison, images_that_kill_their_loader_twice_are_quarantined_and_training_goes_on,
     .init = set_up, .fini = tear_down, .timeout = 200) {
    write_text("data/train/c00/0003.jpg", "poison: hang");
    write_text("data/train/c01/0004.jpg", "poison: crash");
    write_text("data/val/c02/0001.jpg", "poison: crash");
    char hash[2][100];
    static const char *const runs[2][2] = {{"one", "--max-bad 0.1 --workers 1"},
                                           {"three", "--max-bad 0.1 --workers 3 --io pread"}};
    for (int i = 0; i < 2; i++) {
        cr_assert_eq(train(runs[i][0], runs[i][1]), 0, "%s", read_text(runs[i][0], ".err"));
        const char *json = read_text(runs[i][0], ".json");
        cr_assert_eq(json_number(json, "bad_samples"), 3, "%s", json);
        cr_assert_geq(json_number(json, "loader_deaths"), 6, "%s", json);
        json_text(json, "weights_sha256", hash[i], sizeof(hash[i]));
        const char *bad = read_text(runs[i][0], "/bad-samples.jsonl");
        cr_assert(strstr(bad, "c00/0003.jpg") && strstr(bad, "c01/0004.jpg") &&
                      strstr(bad, "c02/0001.jpg") && strstr(bad, "quarantined"),
                  "%s", bad);
    }
    cr_assert_str_eq(hash[0], hash[1], "the same quarantine must give the same weights");
}

Test(poison, a_quarantined_image_counts_for_the_budget_of_bad_ones, .init = set_up,
     .fini = tear_down, .timeout = 100) {
    write_text("data/train/c01/0004.jpg", "poison: crash");
    cr_assert_eq(train("fail", "--on-bad fail"), 3, "%s", read_text("fail", ".err"));
    const char *err = read_text("fail", ".err");
    cr_assert(strstr(err, "c01/0004.jpg") && strstr(err, "quarantined"), "%s", err);
}
