/* SPDX-License-Identifier: Apache-2.0 */
/* Data sets as users have them: which layouts are found, what is in their index, what is refused.
 */
#include "coordinator/dataset.h"

#include "base/clock.h"
#include "base/err.h"
#include "coordinator/dataset_parallel.h"
#include "tests/support/fixture.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

TestSuite(dataset, .init = fixture_begin, .fini = fixture_end);

#define BOTH (NNC_DATASET_TRAIN | NNC_DATASET_VAL)

static int open_path(const char *path, unsigned phases, struct nnc_dataset **ret_dataset) {
    struct nnc_dataset_params params = {
        .path = path, .phases = phases, .cache_dir = "", .threads = 2};
    return nnc_dataset_open(&params, ret_dataset);
}

static struct nnc_dataset *open_good(const char *name, unsigned phases) {
    struct nnc_dataset *dataset = NULL;
    int code = open_path(fixture_path(name), phases, &dataset);
    cr_assert_eq(code, 0, "%s: %s", name, nnc_error_text());
    return dataset;
}

/* "path label size" of each sample of a part, one a line. */
static const char *describe(const struct nnc_dataset_part *part) {
    static char text[4096];
    size_t at = 0;
    text[0] = '\0';
    for (uint64_t i = 0; i < part->samples; i++) {
        char path[256];
        nnc_dataset_sample_path(part, i, path, sizeof(path));
        at += (size_t)snprintf(text + at, sizeof(text) - at, "%s %d %u\n", path,
                               part->index.samples[i].label, part->index.samples[i].size);
    }
    return text;
}

static const struct nnc_dataset_part *train_of(const struct nnc_dataset *dataset) {
    return &dataset->parts[NNC_PHASE_TRAIN];
}

static const struct nnc_dataset_part *val_of(const struct nnc_dataset *dataset) {
    return &dataset->parts[NNC_PHASE_VAL];
}

static void expect_failure(const char *name, unsigned phases, int code, const char *text) {
    struct nnc_dataset *dataset = NULL;
    int got = open_path(fixture_path(name), phases, &dataset);
    cr_expect_eq(got, code, "%s: %d, %s", name, got, nnc_error_text());
    cr_expect_not_null(strstr(nnc_error_text(), text), "\"%s\" is not in: %s", text,
                       nnc_error_text());
    cr_expect_null(dataset);
}

/* --- class folders -------------------------------------------------------------------------------
 */

Test(dataset, class_folders_come_in_torchvisions_order) {
    /* sorted(os.walk()) compares whole folder paths, so "b c" is before "b/..." ('' < ' ' < '/'),
     * and "b/x/y" comes after "b" and before "b0". */
    fixture_text("data/train/cat/z.jpg", "1");
    fixture_text("data/train/cat/b/1.PNG", "22");
    fixture_text("data/train/cat/b/x/y.jpeg", "333");
    fixture_text("data/train/cat/b c/2.jpg", "4444");
    fixture_text("data/train/cat/b0/3.jpg", "55555");
    fixture_text("data/train/cat/B.JPG", "666666");
    fixture_text("data/train/cat/notes.txt", "no image");
    fixture_text("data/train/Dog/.jpg", "a");
    fixture_text("data/train/Dog/a.webp", "bb");
    fixture_text("data/train/readme.jpg", "not in a class");
    struct nnc_dataset *dataset = open_good("data", BOTH);
    cr_expect_str_eq(describe(train_of(dataset)), "train/Dog/.jpg 0 1\n"
                                                  "train/Dog/a.webp 0 2\n"
                                                  "train/cat/B.JPG 1 6\n"
                                                  "train/cat/z.jpg 1 1\n"
                                                  "train/cat/b/1.PNG 1 2\n"
                                                  "train/cat/b c/2.jpg 1 4\n"
                                                  "train/cat/b/x/y.jpeg 1 3\n"
                                                  "train/cat/b0/3.jpg 1 5\n");
    cr_expect_eq(dataset->classes, 2);
    cr_expect_str_eq(nnc_dataset_class_name(dataset, 0), "Dog");
    cr_expect_eq(val_of(dataset)->samples, 0);
    cr_expect_eq(val_of(dataset)->raw_fd, -1);
    nnc_dataset_close(dataset);
}

Test(dataset, every_name_of_a_validation_folder_is_found) {
    const char *names[] = {"val", "valid", "validation", "test"};
    for (size_t i = 0; i < 4; i++) {
        char name[64];
        snprintf(name, sizeof(name), "set%zu/train/a/1.jpg", i);
        fixture_text(name, "x");
        snprintf(name, sizeof(name), "set%zu/%s/a/2.jpg", i, names[i]);
        fixture_text(name, "xy");
        snprintf(name, sizeof(name), "set%zu", i);
        struct nnc_dataset *dataset = open_good(name, BOTH);
        char expected[64];
        snprintf(expected, sizeof(expected), "%s/a/2.jpg 0 2\n", names[i]);
        cr_expect_str_eq(describe(val_of(dataset)), expected);
        cr_expect_str_eq(val_of(dataset)->root, fixture_path(name));
        nnc_dataset_close(dataset);
    }
}

Test(dataset, a_folder_of_classes_is_train_or_val_as_asked) {
    fixture_text("data/train/1.jpg", "a class that is called train");
    fixture_text("data/plane/2.jpg", "x");
    struct nnc_dataset *dataset = open_good("data", BOTH);
    cr_expect_eq(train_of(dataset)->samples, 2);
    cr_expect_eq(val_of(dataset)->samples, 0);
    nnc_dataset_close(dataset);
    dataset = open_good("data", NNC_DATASET_VAL);
    cr_expect_eq(train_of(dataset)->samples, 0);
    cr_expect_str_eq(describe(val_of(dataset)), "plane/2.jpg 0 1\ntrain/1.jpg 1 28\n");
    nnc_dataset_close(dataset);
}

Test(dataset, a_validation_set_can_lie_elsewhere) {
    fixture_text("data/train/a/1.jpg", "x");
    fixture_text("data/val/a/2.jpg", "x");
    fixture_text("other/a/3.jpg", "x");
    struct nnc_dataset *dataset = NULL;
    struct nnc_dataset_params params = {.path = fixture_path("data"),
                                        .val_path = fixture_path("other"),
                                        .phases = BOTH,
                                        .cache_dir = ""};
    cr_assert_eq(nnc_dataset_open(&params, &dataset), 0, "%s", nnc_error_text());
    cr_expect_str_eq(describe(val_of(dataset)), "a/3.jpg 0 1\n");
    nnc_dataset_close(dataset);
}

Test(dataset, layouts_that_do_not_fit_are_refused_with_what_was_sought) {
    fixture_folder("empty");
    fixture_text("images/1.jpg", "x");
    fixture_text("file.txt", "x");
    fixture_text("hollow/a/1.jpg", "x");
    fixture_folder("hollow/b");
    fixture_text("val_only/val/a/1.jpg", "x");
    fixture_text("train_only/train/a/1.jpg", "x");
    fixture_text("differ/train/a/1.jpg", "x");
    fixture_text("differ/train/b/1.jpg", "x");
    fixture_text("differ/val/a/1.jpg", "x");
    fixture_text("differ/val/c/1.jpg", "x");
    struct {
        const char *name;
        unsigned phases;
        int code;
        const char *text;
    } rows[] = {
        {"missing", BOTH, -ENOENT, "No such file"},
        {"empty", BOTH, -NNC_E_USAGE, "no class folders, no *.tar, no *-images-idx3-ubyte"},
        {"images", BOTH, -NNC_E_USAGE, "0 folders and 1 files (1.jpg)"},
        {"file.txt", BOTH, -NNC_E_USAGE, "neither a directory nor a .tar file"},
        {"hollow", BOTH, -NNC_E_FORMAT, "hollow/b: a class folder without images"},
        {"val_only", BOTH, -NNC_E_USAGE, "no training set"},
        {"train_only", NNC_DATASET_VAL, -NNC_E_USAGE, "--val-data"},
        {"differ", BOTH, -NNC_E_FORMAT, "1 only in training (b), 1 only in validation (c)"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        expect_failure(rows[i].name, rows[i].phases, rows[i].code, rows[i].text);
    }
}

Test(dataset, links_are_followed_inside_the_data_set_only) {
    fixture_text("outside/secret.jpg", "x");
    fixture_text("data2/secret.jpg", "a name that begins as the data set's does");
    fixture_text("data/2/secret.jpg", "what is left of that name without the data set's");
    fixture_link("../../../data2/secret.jpg", "data/train/a/out2.jpg");
    fixture_text("data/all/1.jpg", "1");
    fixture_text("data/all/deep/2.jpg", "22");
    fixture_link("../../all/1.jpg", "data/train/a/file.jpg");
    fixture_link("../../all/deep", "data/train/a/folder");
    fixture_link("../../../outside/secret.jpg", "data/train/a/out.jpg");
    fixture_link("../../../outside", "data/train/a/out");
    fixture_link("nowhere", "data/train/a/broken.jpg");
    fixture_link("../a", "data/train/a/loop");
    fixture_link("loop2", "data/train/a/loop2");
    fixture_link(fixture_path("data/all"), "data/train/b");
    struct nnc_dataset *dataset = open_good("data", BOTH);
    cr_expect_str_eq(describe(train_of(dataset)), "all/1.jpg 0 1\n"
                                                  "all/deep/2.jpg 0 2\n"
                                                  "all/1.jpg 1 1\n"
                                                  "all/deep/2.jpg 1 2\n");
    nnc_dataset_close(dataset);
}

Test(dataset, a_class_that_is_a_link_out_is_refused) {
    fixture_text("outside/1.jpg", "x");
    fixture_text("data/a/1.jpg", "x");
    fixture_link("../outside", "data/b");
    expect_failure("data", BOTH, -NNC_E_FORMAT, "data/b: this class is a link out");
}

Test(dataset, a_split_that_is_a_link_has_its_own_root) {
    fixture_text("store/a/1.jpg", "x");
    fixture_link("../store", "data/train");
    struct nnc_dataset *dataset = open_good("data", BOTH);
    cr_expect_str_eq(describe(train_of(dataset)), "a/1.jpg 0 1\n");
    cr_expect_str_eq(train_of(dataset)->root, fixture_path("store"));
    nnc_dataset_close(dataset);
}

Test(dataset, pipes_are_left_out_and_deep_folders_refused) {
    fixture_text("data/a/1.jpg", "x");
    cr_assert_eq(mkfifo(fixture_path("data/a/2.jpg"), 0600), 0);
    struct nnc_dataset *dataset = open_good("data", BOTH);
    cr_expect_eq(train_of(dataset)->samples, 1);
    nnc_dataset_close(dataset);
    char name[512] = "data/a";
    for (int i = 0; i < 65; i++) {
        strcat(name, "/d");
    }
    strcat(name, "/1.jpg");
    fixture_text(name, "x");
    expect_failure("data", BOTH, -NNC_E_FORMAT, "deeper than 64");
}

/* --- the cache -----------------------------------------------------------------------------------
 */

static struct nnc_dataset *open_cached(bool reindex) {
    struct nnc_dataset *dataset = NULL;
    struct nnc_dataset_params params = {.path = fixture_path("data"),
                                        .phases = BOTH,
                                        .cache_dir = fixture_path("cache/index"),
                                        .reindex = reindex};
    cr_assert_eq(nnc_dataset_open(&params, &dataset), 0, "%s", nnc_error_text());
    return dataset;
}

static void expect_cached(bool cached, uint64_t samples, const char *when) {
    struct nnc_dataset *dataset = open_cached(false);
    cr_expect_eq(train_of(dataset)->is_from_cache, cached, "%s", when);
    cr_expect_eq(train_of(dataset)->samples, samples, "%s", when);
    nnc_dataset_close(dataset);
}

Test(dataset, the_cache_is_used_until_a_folder_changes) {
    fixture_text("data/train/a/1.jpg", "x");
    fixture_text("data/train/b/sub/1.jpg", "x");
    fixture_age();
    expect_cached(false, 2, "first");
    expect_cached(true, 2, "second");
    fixture_text("data/train/b/sub/2.jpg", "x");
    expect_cached(false, 3, "file added");
    expect_cached(false, 3, "changed just now, so it was not kept");
    fixture_age();
    expect_cached(false, 3, "aged");
    expect_cached(true, 3, "kept");
    cr_assert_eq(unlink(fixture_path("data/train/b/sub/2.jpg")), 0);
    expect_cached(false, 2, "file removed");
    fixture_text("data/train/c/1.jpg", "x");
    expect_cached(false, 3, "class added");
    fixture_age();
    expect_cached(false, 3, "aged again");
    struct nnc_dataset *dataset = open_cached(true);
    cr_expect_not(train_of(dataset)->is_from_cache);
    nnc_dataset_close(dataset);
}

/* The one file in the cache. */
static const char *cache_file(void) {
    static char path[1024];
    char command[1200];
    snprintf(command, sizeof(command), "ls %s/*", fixture_path("cache/index"));
    FILE *list = popen(command, "r");
    cr_assert_not_null(list);
    cr_assert_not_null(fgets(path, sizeof(path), list));
    char rest[16];
    cr_assert_null(fgets(rest, sizeof(rest), list), "more than one file in the cache");
    pclose(list);
    path[strcspn(path, "\n")] = '\0';
    return path;
}

Test(dataset, a_damaged_cache_is_made_again) {
    fixture_text("data/train/a/1.jpg", "x");
    fixture_age();
    expect_cached(false, 1, "first");
    struct stat status;
    cr_assert_eq(stat(cache_file(), &status), 0);
    cr_expect_eq(status.st_mode & 0777, 0600);
    for (off_t at = 0; at < status.st_size; at += 61) {
        int fd = open(cache_file(), O_RDWR | O_CLOEXEC);
        unsigned char byte;
        cr_assert_eq(pread(fd, &byte, 1, at), 1);
        byte ^= 0x10;
        cr_assert_eq(pwrite(fd, &byte, 1, at), 1);
        close(fd);
        expect_cached(false, 1, "damaged");
    }
    cr_assert_eq(truncate(cache_file(), 100), 0);
    expect_cached(false, 1, "cut");
    expect_cached(true, 1, "made again");
}

Test(dataset, a_cache_that_cannot_be_written_is_done_without) {
    fixture_text("data/train/a/1.jpg", "x");
    fixture_text("cache", "a file where a directory should be");
    fixture_age();
    expect_cached(false, 1, "first");
    expect_cached(false, 1, "second");
}

Test(dataset, the_cache_lies_where_the_environment_says) {
    struct {
        const char *xdg, *home, *expected;
    } rows[] = {
        {"xdg", "home", "xdg/nncoord/index"},
        {NULL, "home", "home/.cache/nncoord/index"},
        {NULL, NULL, NULL},
    };
    fixture_text("data/train/a/1.jpg", "x");
    fixture_age();
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        const char *xdg = rows[i].xdg != NULL ? fixture_path(rows[i].xdg) : "";
        const char *home = rows[i].home != NULL ? fixture_path(rows[i].home) : "";
        cr_assert_eq(setenv("XDG_CACHE_HOME", xdg, 1) + setenv("HOME", home, 1), 0);
        for (int round = 0; round < 2; round++) {
            struct nnc_dataset *dataset = NULL;
            struct nnc_dataset_params params = {.path = fixture_path("data"), .phases = BOTH};
            cr_assert_eq(nnc_dataset_open(&params, &dataset), 0, "%s", nnc_error_text());
            bool cached = round == 1 && rows[i].expected != NULL;
            cr_expect_eq(train_of(dataset)->is_from_cache, cached, "row %zu", i);
            nnc_dataset_close(dataset);
        }
        if (rows[i].expected != NULL) {
            cr_expect_eq(access(fixture_path(rows[i].expected), X_OK), 0, "row %zu", i);
        }
    }
}

Test(dataset, the_index_does_not_depend_on_the_number_of_threads) {
    for (int i = 0; i < 300; i++) {
        char name[64];
        snprintf(name, sizeof(name), "data/%c/%d/%d.jpg", 'a' + i % 7, i % 3, i);
        fixture_text(name, "x");
    }
    struct nnc_dataset *first = NULL;
    for (uint32_t threads = 1; threads <= 8; threads++) {
        struct nnc_dataset *dataset = NULL;
        struct nnc_dataset_params params = {
            .path = fixture_path("data"), .phases = BOTH, .cache_dir = "", .threads = threads};
        cr_assert_eq(nnc_dataset_open(&params, &dataset), 0, "%s", nnc_error_text());
        if (first == NULL) {
            first = dataset;
            continue;
        }
        cr_assert_eq(train_of(first)->size, train_of(dataset)->size);
        cr_expect_eq(
            memcmp(train_of(first)->bytes, train_of(dataset)->bytes, train_of(first)->size), 0,
            "%u threads", threads);
        nnc_dataset_close(dataset);
    }
    nnc_dataset_close(first);
}

static int fail_from_seven(void *context, size_t turn) {
    atomic_uint *runs = context;
    atomic_fetch_add_explicit(&runs[turn], 1, memory_order_relaxed);
    if (turn == 7) {
        nnc_clock_sleep_ns(20000000); /* later turns fail before it */
    }
    return turn >= 7 ? nnc_fail(-NNC_E_FORMAT, "turn %zu", turn) : 0;
}

Test(dataset, a_parallel_loop_fails_as_a_plain_one_would) {
    for (uint32_t threads = 1; threads <= 4; threads++) {
        atomic_uint runs[64] = {0};
        cr_expect_eq(nnc_parallel_for(64, threads, fail_from_seven, runs), -NNC_E_FORMAT);
        cr_expect_str_eq(nnc_error_text(), "turn 7", "%u threads", threads);
        for (size_t i = 0; i < 64; i++) {
            cr_expect(i <= 7 ? runs[i] == 1 : runs[i] <= 1, "turn %zu ran %u times", i, runs[i]);
        }
        cr_expect_eq(runs[63], 0, "the loop did not stop");
    }
}

/* --- single files --------------------------------------------------------------------------------
 */

Test(dataset, files_and_folders_make_an_index_without_labels) {
    fixture_text("in/b.jpg", "x");
    fixture_text("in/sub/a.png", "xy");
    fixture_text("in/sub/notes.txt", "x");
    fixture_text("odd.name", "xyz");
    fixture_link("in/b.jpg", "link.jpg");
    const char *paths[] = {fixture_path("odd.name"), fixture_path("in"), fixture_path("link.jpg")};
    struct nnc_dataset *dataset = NULL;
    cr_assert_eq(chdir(fixture_path("")), 0);
    cr_assert_eq(nnc_dataset_from_files(paths, 3, 0, &dataset), 0, "%s", nnc_error_text());
    cr_expect_str_eq(describe(val_of(dataset)), "odd.name -1 3\n"
                                                "in/b.jpg -1 1\n"
                                                "in/sub/a.png -1 2\n"
                                                "in/b.jpg -1 1\n");
    nnc_dataset_close(dataset);
    cr_assert_eq(chdir(fixture_path("in/sub")), 0);
    cr_assert_eq(nnc_dataset_from_files(paths, 1, 0, &dataset), 0, "%s", nnc_error_text());
    cr_expect_str_eq(val_of(dataset)->root, "/");
    char expected[1100];
    snprintf(expected, sizeof(expected), "%s -1 3\n", fixture_path("odd.name"));
    cr_expect_str_eq(describe(val_of(dataset)), expected);
    nnc_dataset_close(dataset);
    cr_assert_eq(chdir("/"), 0);
}

Test(dataset, a_path_without_images_is_refused) {
    fixture_folder("empty");
    const char *empty = fixture_path("empty");
    const char *missing = fixture_path("missing.jpg");
    struct nnc_dataset *dataset = NULL;
    cr_expect_eq(nnc_dataset_from_files(&empty, 1, 0, &dataset), -NNC_E_USAGE);
    cr_expect_eq(nnc_dataset_from_files(&missing, 1, 0, &dataset), -NNC_E_USAGE);
    cr_expect_not_null(strstr(nnc_error_text(), "missing.jpg"));
}
