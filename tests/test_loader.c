/* SPDX-License-Identifier: Apache-2.0 */
/* nncoord-loader as real processes: what comes out of the ring depends on the data and the seed
 * alone. */
#include "base/err.h"
#include "support/loader_run.h"
#include "tests/support/command.h"
#include "tests/support/datasets.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* A data set of JPEG folders in a scratch folder. */
struct world {
    char *scratch;
    struct nnc_dataset *dataset;
};

static void spoil(const struct world *world, const char *name, long bytes) {
    char path[512];
    snprintf(path, sizeof(path), "%s/data/%s", world->scratch, name);
    cr_assert_eq(truncate(path, bytes), 0, "%s", path);
}

static struct world begin(bool raw, bool spoiled) {
    struct world world = {.scratch = scratch_make()};
    char folder[512];
    snprintf(folder, sizeof(folder), "%s/data", world.scratch);
    if (raw) {
        dataset_make_idx(folder, 100, 30);
    } else {
        dataset_make_jpeg(folder, 3, 20, 7, 40);
    }
    if (spoiled) {
        spoil(&world, "train/c00/0003.jpg", 500);
        spoil(&world, "train/c01/0011.jpg", 1);
        spoil(&world, "val/c02/0002.jpg", 700);
    }
    const struct nnc_dataset_params params = {
        .path = folder,
        .phases = NNC_DATASET_TRAIN | NNC_DATASET_VAL,
        .cache_dir = "",
        .threads = 1,
    };
    cr_assert_eq(nnc_dataset_open(&params, &world.dataset), 0, "%s", nnc_error_text());
    return world;
}

static void end(struct world *world) {
    nnc_dataset_close(world->dataset);
    scratch_remove(world->scratch);
}

static struct loader_run_params standard(const struct world *world) {
    struct loader_run_params params = {
        .dataset = world->dataset,
        .ranks = 1,
        .loaders = 1,
        .batch = 8,
        .slots = 4,
        .epochs = 2,
        .channels = 3,
    };
    nnc_config_defaults(&params.config);
    params.config.seed = 42;
    params.config.train_transform = NNC_TRANSFORM_RANDOM_RESIZED_CROP;
    params.config.train_crop_size = 24;
    params.config.val_resize_size = 32;
    params.config.val_crop_size = 28;
    params.config.hflip_prob = 0.5;
    return params;
}

Test(loader, bytes_do_not_depend_on_loaders_depth_or_reader) {
    static const struct {
        uint32_t loaders, slots;
        int32_t io;
    } rows[] = {
        {1, 4, NNC_IO_AUTO},  {3, 4, NNC_IO_AUTO}, {2, 2, NNC_IO_PREAD},
        {3, 8, NNC_IO_PREAD}, {7, 2, NNC_IO_AUTO},
    };
    struct world world = begin(false, true);
    uint64_t hash = 0;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct loader_run_params params = standard(&world);
        params.loaders = rows[i].loaders;
        params.slots = rows[i].slots;
        params.config.io = rows[i].io;
        struct loader_run_result result;
        loader_run(&params, &result);
        hash = i == 0 ? result.hash : hash;
        cr_expect_eq(result.hash, hash, "row %zu", i);
        cr_expect_eq(result.samples, 2 * (60 + 21));
        cr_expect_eq(result.wrong_labels, 0);
        cr_expect_eq(result.clean_exits, params.loaders);
        cr_expect_lt(result.end_ns, 1000000000ull, "row %zu: %g s to end", i, result.end_ns / 1e9);
        cr_expect(rows[i].io != NNC_IO_PREAD || result.uring_loaders == 0);
    }
    end(&world);
}

Test(loader, bad_files_are_replaced_in_training_and_left_out_in_validation) {
    struct world world = begin(false, true);
    struct loader_run_params params = standard(&world);
    params.loaders = 2;
    struct loader_run_result result;
    loader_run(&params, &result);
    cr_expect_eq(result.replaced, 2 * 2, "two bad training files, two epochs: %lu",
                 result.replaced);
    cr_expect_eq(result.bad, 2);
    cr_expect_eq(result.ok, 2 * 81 - 6);
    /* A substitute may be bad as well, which is one more message. */
    cr_expect_geq(result.bad_messages, 6);
    cr_expect_leq(result.bad_messages, 8);
    cr_expect_eq(result.wrong_labels, 0);
    cr_expect_neq(result.last_reason[0], '\0');
    end(&world);
}

Test(loader, several_ranks_share_the_loaders) {
    struct world world = begin(false, false);
    struct loader_run_result results[2];
    for (uint32_t i = 0; i < 2; i++) {
        struct loader_run_params params = standard(&world);
        params.ranks = 3;
        params.batch = 5;
        params.loaders = 1 + 2 * i;
        loader_run(&params, &results[i]);
        cr_expect_eq(results[i].samples, 2 * 81);
        cr_expect_eq(results[i].ok, 2 * 81);
        cr_expect_eq(results[i].clean_exits, params.loaders);
    }
    cr_expect_eq(results[0].hash, results[1].hash);
    end(&world);
}

Test(loader, killed_loaders_lose_nothing_and_change_nothing) {
    struct world world = begin(false, true);
    struct loader_run_params params = standard(&world);
    params.ranks = 2;
    params.batch = 16;
    params.slots = 2;
    params.loaders = 2;
    params.epochs = 16;
    params.config.train_crop_size = 128;
    struct loader_run_result quiet, chaos;
    loader_run(&params, &quiet);
    params.kills = 24;
    uint64_t requeued = 0;
    /* On a machine with other work all kills of a run may hit loaders that wait. */
    for (int attempt = 0; attempt < 10 && requeued == 0; attempt++) {
        loader_run(&params, &chaos);
        cr_expect_eq(chaos.hash, quiet.hash);
        cr_expect_eq(chaos.samples, quiet.samples);
        cr_expect_eq(chaos.clean_exits, 2);
        requeued += chaos.requeued;
    }
    cr_expect_gt(requeued, 0, "no kill hit a loader that held a claim");
    end(&world);
}

Test(loader, retired_loaders_publish_what_they_hold_and_change_nothing) {
    struct world world = begin(false, true);
    struct loader_run_params params = standard(&world);
    params.ranks = 2;
    params.batch = 16;
    params.slots = 2;
    params.loaders = 4;
    params.epochs = 8;
    params.config.train_crop_size = 128;
    struct loader_run_result all, fewer;
    loader_run(&params, &all);
    params.retires = 3;
    loader_run(&params, &fewer);
    cr_expect_eq(fewer.hash, all.hash);
    cr_expect_eq(fewer.samples, all.samples);
    cr_expect_eq(fewer.retired, 3, "they end with status 0");
    cr_expect_eq(fewer.left_behind, 0);
    cr_expect_eq(fewer.clean_exits, 1);
    end(&world);
}

Test(loader, raw_samples_come_grey_or_spread_to_three_channels) {
    struct world world = begin(true, false);
    uint64_t hashes[4];
    for (uint32_t i = 0; i < 4; i++) {
        struct loader_run_params params = standard(&world);
        params.channels = i < 2 ? 1 : 3;
        params.loaders = 1 + i % 2;
        params.config.train_transform = NNC_TRANSFORM_PADDED_CROP;
        params.config.crop_padding = 3;
        params.config.train_crop_size = 28;
        params.config.val_resize_size = 28;
        params.config.val_crop_size = 28;
        struct loader_run_result result;
        loader_run(&params, &result);
        hashes[i] = result.hash;
        cr_expect_eq(result.ok, 2 * 130);
        cr_expect_eq(result.bad_messages, 0);
        cr_expect_eq(result.wrong_labels, 0);
    }
    cr_expect_eq(hashes[0], hashes[1]);
    cr_expect_eq(hashes[2], hashes[3]);
    cr_expect_neq(hashes[0], hashes[2]);
    end(&world);
}

Test(loader, a_check_reads_each_image_once_and_finds_every_bad_one) {
    struct world world = begin(false, true);
    struct loader_run_params params = standard(&world);
    params.check = true;
    params.no_training = true;
    params.epochs = 1;
    struct loader_run_result result;
    loader_run(&params, &result);
    cr_expect_eq(result.samples, 21);
    cr_expect_eq(result.bad, 1);
    cr_expect_eq(result.bad_messages, 1);
    end(&world);
}

Test(loader, memory_stays_small) {
#if defined(__SANITIZE_ADDRESS__)
    cr_skip_test("sanitizers need memory of their own");
#endif
    struct world world = begin(false, false);
    struct loader_run_params params = standard(&world);
    params.epochs = 6;
    struct loader_run_result result;
    loader_run(&params, &result);
    cr_expect_lt(result.peak_rss_bytes, 30ull << 20, "%g MiB", result.peak_rss_bytes / 1048576.0);
    end(&world);
}
