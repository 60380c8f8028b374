/* SPDX-License-Identifier: Apache-2.0 */
/* Synthetic data sets: the same for the same seed, readable, of the sizes that they promise, and
 * never written over anything. */
#include "base/err.h"
#include "data/jpeg_write.h"
#include "data/photo.h"
#include "support/image_fixture.h"
#include "tests/support/command.h"

#include <criterion/criterion.h>
#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char *scratch;

static void set_up(void) {
    scratch = scratch_make();
}

static void tear_down(void) {
    cr_assert_eq(count_our_processes(scratch), 0, "processes are left behind");
    scratch_remove(scratch);
}

/* ---- what is in a folder ---- */

static struct {
    size_t jpegs, others;
    uint64_t hash; /* of all JPEGs with their names, in any order */
} found;

static size_t root_bytes;

static int visit(const char *path, const struct stat *status, int type, struct FTW *ftw) {
    (void)status;
    (void)ftw;
    if (type != FTW_F) {
        return 0;
    }
    size_t length = strlen(path);
    if (length < 4 || strcmp(path + length - 4, ".jpg") != 0) {
        found.others++;
        return 0;
    }
    struct fixture_file file = fixture_file_read(path);
    const char *name = path + root_bytes;
    found.hash += fixture_hash(file.bytes, file.size) ^
                  (fixture_hash((const uint8_t *)name, strlen(name)) * 31);
    found.jpegs++;
    fixture_free(&file);
    return 0;
}

static void look(const char *name) {
    char path[400];
    snprintf(path, sizeof(path), "%s/%s", scratch, name);
    memset(&found, 0, sizeof(found));
    root_bytes = strlen(path);
    nftw(path, visit, 16, FTW_PHYS);
}

static struct nnc_photo tiny_photo(uint32_t channels, enum nnc_jpeg_sampling sampling) {
    return (struct nnc_photo){.seed = 3,
                              .number = 5,
                              .width = 67,
                              .height = 45,
                              .channels = channels,
                              .quality = 96,
                              .sampling = sampling};
}

/* ---- images ---- */

Test(synth, pixels_are_a_function_of_seed_and_number) {
    static uint8_t pixels[4][67 * 45 * 3];
    struct nnc_photo photo = tiny_photo(3, NNC_JPEG_444);
    for (int i = 0; i < 4; i++) {
        photo.seed = i == 2 ? 4 : 3;
        photo.number = i == 3 ? 6 : 5;
        cr_assert_eq(nnc_photo_paint(&photo, pixels[i]), 0);
    }
    cr_expect_eq(memcmp(pixels[0], pixels[1], sizeof(pixels[0])), 0);
    cr_expect_neq(memcmp(pixels[0], pixels[2], sizeof(pixels[0])), 0);
    cr_expect_neq(memcmp(pixels[0], pixels[3], sizeof(pixels[0])), 0);
    /* Made once; another value means that data sets of other versions cannot be compared. */
    cr_expect_eq(fixture_hash(pixels[0], sizeof(pixels[0])), 0x1d47364d8050f840ull,
                 "the pixels are now %#lx", fixture_hash(pixels[0], sizeof(pixels[0])));
}

Test(synth, every_kind_of_file_opens_and_is_near_its_pixels) {
    static const struct {
        uint32_t channels;
        enum nnc_jpeg_sampling sampling;
    } rows[] = {{3, NNC_JPEG_444}, {3, NNC_JPEG_420}, {3, NNC_JPEG_422}, {1, NNC_JPEG_444}};
    struct nnc_image *image;
    struct nnc_jpeg_writer *writer;
    cr_assert_eq(nnc_image_create(&image), 0);
    cr_assert_eq(nnc_jpeg_writer_create(&writer), 0);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct nnc_photo photo = tiny_photo(rows[i].channels, rows[i].sampling);
        static uint8_t pixels[67 * 45 * 3];
        struct nnc_jpeg_file made;
        cr_assert_eq(nnc_photo_paint(&photo, pixels), 0);
        const struct nnc_jpeg_pixels picture = nnc_photo_picture(&photo, pixels);
        cr_assert_eq(nnc_jpeg_encode(writer, &picture, &made), 0);
        struct fixture_file file = fixture_file_copy(made.bytes, made.size);
        struct fixture_pixels decoded = {.channels = photo.channels};
        cr_assert_eq(fixture_decode(image, &file, true, &decoded), 0, "row %zu: %s", i,
                     nnc_error_text());
        cr_assert(decoded.image_width == 67 && decoded.image_height == 45);
        double sum = 0;
        for (size_t at = 0; at < 67u * 45 * photo.channels; at++) {
            sum += abs(decoded.data[at] - pixels[at]);
        }
        cr_expect_lt(sum / (67.0 * 45 * photo.channels), 6.0, "row %zu: %g levels", i, sum);
        free(decoded.data);
        fixture_free(&file);
    }
    nnc_image_destroy(image);
    nnc_jpeg_writer_destroy(writer);
}

Test(synth, sizes_and_settings_are_spread_as_in_imagenet) {
    double width = 0, height = 0;
    uint32_t usual = 0, grey = 0, full = 0, large = 0;
    enum {
        COUNT = 20000,
    };
    for (uint64_t number = 0; number < COUNT; number++) {
        struct nnc_photo photo = nnc_photo_plan(1, number);
        width += photo.width;
        height += photo.height;
        usual += photo.width == 500 || photo.height == 500;
        grey += photo.channels == 1;
        full += photo.sampling == NNC_JPEG_444;
        large += photo.width > 1000;
        cr_assert(photo.quality >= 70 && photo.quality <= 96);
    }
    /* Means of the sample of 500 that the tables were counted in: 470 x 405. */
    cr_expect_float_eq(width / COUNT, 468, 8, "%g", width / COUNT);
    cr_expect_float_eq(height / COUNT, 401, 8, "%g", height / COUNT);
    cr_expect_float_eq((double)usual / COUNT, 0.70, 0.03);
    cr_expect_float_eq((double)grey / COUNT, 0.022, 0.005);
    cr_expect_float_eq((double)full / COUNT, 0.777, 0.03);
    cr_expect_gt(large, COUNT / 200);
}

/* ---- the command ---- */

Test(synth, the_same_seed_gives_the_same_files, .init = set_up, .fini = tear_down) {
    static const char *const seeds[] = {"7", "7", "8"};
    uint64_t hashes[3];
    for (int i = 0; i < 3; i++) {
        char name[8];
        snprintf(name, sizeof(name), "d%d", i);
        struct command synth = command_run(scratch, "bench", "synth", name, "--count", "12",
                                           "--classes", "5", "--seed", seeds[i], "--json", NULL);
        cr_assert_eq(synth.status, 0, "%s", synth.err);
        look(name);
        cr_assert_eq(found.jpegs, 12);
        cr_assert_eq(found.others, 1, "synth.json");
        hashes[i] = found.hash;
        cr_expect_eq(json_number(synth.out, "images"), 12);
        cr_expect_gt(json_number(synth.out, "bytes"), 12 * 5000);
        cr_expect_gt(json_number(synth.out, "mean_width"), 100);
        cr_expect_gt(json_number(synth.out, "mean_height"), 100);
        command_free(&synth);
    }
    cr_expect_eq(hashes[0], hashes[1]);
    cr_expect_neq(hashes[0], hashes[2]);
}

Test(synth, the_set_is_one_that_check_and_bench_input_read, .init = set_up, .fini = tear_down) {
    struct command synth =
        command_run(scratch, "bench", "synth", "new/set", "--count", "8", "--classes", "100", NULL);
    cr_assert_eq(synth.status, 0, "%s", synth.err);
    cr_expect_str_empty(synth.out);
    char path[400];
    snprintf(path, sizeof(path), "%s/new/set/train/c007/000007.jpg", scratch);
    cr_expect_eq(access(path, R_OK), 0);
    struct command check = command_run(scratch, "check", "new/set", NULL);
    cr_expect_eq(check.status, 0, "%s", check.err);
    cr_expect_not_null(strstr(check.err, "8 images checked, 0 bad"), "%s", check.err);
    struct command bench = command_run(scratch, "bench", "input", "new/set", "--workers", "1",
                                       "--batch-size", "4", "--bench-epochs", "1", "--json", NULL);
    cr_expect_eq(bench.status, 0, "%s", bench.err);
    cr_expect_eq(json_number(bench.out, "images"), 8);
    command_free(&synth);
    command_free(&check);
    command_free(&bench);
}

static void expect_refused(const char *directory, const char *seed, const char *count,
                           const char *said) {
    look(directory);
    uint64_t before = found.hash;
    struct command command =
        command_run(scratch, "bench", "synth", directory, "--count", count, "--seed", seed, NULL);
    cr_expect_eq(command.status, 2, "%s", command.err);
    cr_expect_not_null(strstr(command.err, said), "%s", command.err);
    look(directory);
    cr_expect_eq(found.hash, before);
    command_free(&command);
}

Test(synth, a_directory_that_holds_something_else_is_refused, .init = set_up, .fini = tear_down) {
    char record[400];
    struct command first = command_run(scratch, "bench", "synth", "d", "--count", "2", NULL);
    cr_assert_eq(first.status, 0, "%s", first.err);
    expect_refused("d", "1", "3", "with --seed 0 --classes 100 --count 2: the same command");
    expect_refused("d", "0", "1", "--count 2");
    snprintf(record, sizeof(record), "%s/d/synth.json", scratch);
    cr_assert_eq(truncate(record, 5), 0);
    expect_refused("d", "0", "2", "synth.json is damaged: `rm -r d`");
    cr_assert_eq(unlink(record), 0);
    expect_refused("d", "0", "2", "d already holds train: give a new or empty directory");
    command_free(&first);
}

Test(synth, the_same_command_makes_what_is_missing_or_not_whole, .init = set_up,
     .fini = tear_down) {
    char path[3][400];
    uint64_t whole = 0;
    static const char *const names[] = {"c000/000002.jpg", "c001/000001.jpg",
                                        "c000/000004.jpg.7.tmp"};
    for (int turn = 0; turn < 2; turn++) {
        struct command synth = command_run(scratch, "bench", "synth", "d", "--count", "5",
                                           "--classes", "2", "--json", NULL);
        cr_assert_eq(synth.status, 0, "%s", synth.err);
        cr_expect_eq(json_number(synth.out, "images"), 5);
        cr_expect_eq(strstr(synth.err, "3 images were there") != NULL, turn == 1, "%s", synth.err);
        look("d");
        cr_expect_eq(found.jpegs, 5);
        cr_expect_eq(found.others, 1, "synth.json");
        cr_expect(turn == 0 || found.hash == whole);
        whole = found.hash;
        for (int i = 0; i < 3; i++) {
            snprintf(path[i], sizeof(path[i]), "%s/d/train/%s", scratch, names[i]);
        }
        cr_assert_eq(truncate(path[0], 2000), 0);
        cr_assert_eq(unlink(path[1]), 0);
        fclose(fopen(path[2], "w"));
        command_free(&synth);
    }
}

Test(synth, mistakes_exit_with_2_and_a_remedy, .init = set_up, .fini = tear_down) {
    char file[400];
    snprintf(file, sizeof(file), "%s/file", scratch);
    fclose(fopen(file, "w"));
    const struct {
        const char *arguments[7];
        const char *said;
    } rows[] = {
        {{"bench", "synth", NULL}, "needs DIR"},
        {{"bench", "synth", "a", "b", NULL}, "takes one directory"},
        {{"bench", "synth", "file", NULL}, "file"},
        {{"bench", "synth", "/proc/nothing", NULL}, "/proc/nothing"},
        {{"bench", "synth", "d", "--classes", "0", NULL}, "--classes"},
        {{"bench", "synth", "d", "--classes", "1001", NULL}, "1 to 1000"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct command command = command_start(scratch, false, rows[i].arguments);
        command_wait(&command);
        cr_expect_eq(command.status, 2, "row %zu: exit %d: %s", i, command.status, command.err);
        cr_expect_not_null(strstr(command.err, rows[i].said), "row %zu: %s", i, command.err);
        cr_expect_str_empty(command.out);
        command_free(&command);
    }
}

Test(synth, an_interrupted_one_leaves_only_whole_files, .init = set_up, .fini = tear_down,
     .timeout = 60) {
    static const char *const arguments[] = {"bench", "synth",     "d", "--count", "1000000",
                                            "-q",    "--classes", "2", NULL};
    struct command synth = command_start(scratch, false, arguments);
    do {
        usleep(20000);
        look("d");
    } while (found.jpegs < 3 && kill(synth.pid, 0) == 0);
    cr_assert_eq(kill(synth.pid, SIGINT), 0);
    command_wait(&synth);
    cr_expect_eq(synth.status, 128 + SIGINT, "%s", synth.err);
    cr_expect_not_null(strstr(synth.err, "images are in d; run the same command to continue"), "%s",
                       synth.err);
    look("d");
    cr_expect_geq(found.jpegs, 3);
    cr_expect_eq(found.others, 1, "synth.json");
    struct command check = command_run(scratch, "check", "d", NULL);
    cr_expect_eq(check.status, 0, "%s", check.err);
    command_free(&synth);
    command_free(&check);
}
