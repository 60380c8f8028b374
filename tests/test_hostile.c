/* SPDX-License-Identifier: Apache-2.0 */
/* Hundreds of hostile files among good ones: what comes out of the ring is made of good files, and
 * each bad one is reported. */
#include "base/err.h"
#include "tests/support/command.h"
#include "tests/support/datasets.h"
#include "tests/support/hostile.h"
#include "tests/support/loader_run.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    CLASSES = 3,
    GOOD = 500, /* in each class: eight substitutes in a row are hardly ever all bad */
    RSS_MAX = 512 * 1048576,
};

static bool is_named(const char *name, const char *prefix) {
    const char *slash = strrchr(name, '/');
    return strncmp(slash + 1, prefix, strlen(prefix)) == 0;
}

static struct nnc_dataset *open_dataset(const char *folder) {
    const struct nnc_dataset_params params = {
        .path = folder, .phases = NNC_DATASET_TRAIN, .cache_dir = "", .threads = 1};
    struct nnc_dataset *dataset = NULL;
    cr_assert_eq(nnc_dataset_open(&params, &dataset), 0, "%s", nnc_error_text());
    return dataset;
}

static void run(const struct nnc_dataset *dataset, bool raw_reader, uint8_t *delivered,
                uint8_t *reported, struct loader_run_result *ret_result) {
    struct loader_run_params params = {.dataset = dataset,
                                       .ranks = 1,
                                       .loaders = 2,
                                       .batch = 16,
                                       .slots = 4,
                                       .epochs = 1,
                                       .channels = 3,
                                       .delivered = delivered,
                                       .reported = reported};
    nnc_config_defaults(&params.config);
    params.config.seed = 3;
    params.config.io = raw_reader ? NNC_IO_PREAD : NNC_IO_AUTO;
    params.config.train_transform = NNC_TRANSFORM_RANDOM_RESIZED_CROP;
    params.config.train_crop_size = 24;
    loader_run(&params, ret_result);
}

Test(hostile, only_good_files_are_delivered_and_each_bad_one_is_reported, .timeout = 200) {
    char folder[600], class_folder[700];
    struct hostile_count count;
    char *scratch = scratch_make();
    snprintf(folder, sizeof(folder), "%s/data", scratch);
    dataset_make_jpeg(folder, CLASSES, GOOD, 0, 12);
    snprintf(class_folder, sizeof(class_folder), "%s/train/c01", folder);
    hostile_make(class_folder, &count);
    struct nnc_dataset *dataset = open_dataset(folder);
    const struct nnc_dataset_part *part = &dataset->parts[NNC_PHASE_TRAIN];
    cr_assert_eq(part->samples, CLASSES * GOOD + count.files);
    uint8_t *delivered = calloc(part->samples, 1), *reported = calloc(part->samples, 1);
    struct loader_run_result result, again;
    run(dataset, false, delivered, reported, &result);
    unsigned bad = 0;
    for (uint64_t i = 0; i < part->samples; i++) {
        const char *name = part->index.strings + part->index.samples[i].name;
        bool is_bad = is_named(name, "bad-"), is_odd = is_named(name, "odd-");
        bad += is_bad;
        cr_expect(!is_bad || (delivered[i] == 0 && reported[i] > 0), "%s", name);
        cr_expect(is_bad || is_odd || (delivered[i] > 0 && reported[i] == 0), "%s", name);
        cr_expect(!is_odd || delivered[i] + reported[i] > 0, "%s", name);
        cr_assert_null(strstr(name, "not-"), "%s", name);
    }
    cr_assert_eq(bad, count.bad);
    cr_assert_eq(result.samples, part->samples);
    cr_assert_eq(result.bad, 0, "%lu places were given up", result.bad);
    cr_assert_geq(result.replaced, count.bad);
    cr_assert_eq(result.wrong_labels, 0);
    cr_assert_eq(result.clean_exits, 2);
    cr_assert_lt(result.peak_rss_bytes, RSS_MAX, "%lu bytes", result.peak_rss_bytes);
    run(dataset, true, NULL, NULL, &again);
    cr_assert_eq(again.hash, result.hash, "another reader gives other samples");
    free(delivered);
    free(reported);
    nnc_dataset_close(dataset);
    scratch_remove(scratch);
}
