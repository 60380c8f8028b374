/* SPDX-License-Identifier: Apache-2.0 */
/* Names of classes beside tar shards: what is taken, what is refused and where the text says so. */
#include "coordinator/dataset_classes.h"

#include "base/err.h"
#include "coordinator/dataset.h"
#include "ipc/index.h"
#include "tests/support/fixture.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

TestSuite(dataset_classes, .init = fixture_begin, .fini = fixture_end);

/* A shard of one image for each of these labels. */
static void put_shard(const char *name, const char *const *labels, size_t count) {
    struct tar_image tar = {0};
    for (size_t i = 0; i < count; i++) {
        char member[32];
        snprintf(member, sizeof(member), "%04zu.jpg", i);
        tar_text(&tar, member, "x");
        snprintf(member, sizeof(member), "%04zu.cls", i);
        tar_text(&tar, member, labels[i]);
    }
    tar_end(&tar);
    fixture_file(name, tar.bytes, tar.size);
    tar_free(&tar);
}

static const char *const three[] = {"0", "2", "1"};

static int open_set(const char *path, const char *val, const char *cache,
                    struct nnc_dataset **ret_dataset) {
    const struct nnc_dataset_params params = {.path = fixture_path(path),
                                              .val_path = val != NULL ? fixture_path(val) : NULL,
                                              .phases = NNC_DATASET_TRAIN | NNC_DATASET_VAL,
                                              .cache_dir = cache};
    return nnc_dataset_open(&params, ret_dataset);
}

static void expect_classes(const char *const *names, uint32_t count) {
    struct nnc_dataset *dataset = NULL;
    cr_assert_eq(open_set("d", NULL, "", &dataset), 0, "%s", nnc_error_text());
    cr_assert_eq(dataset->classes, count);
    for (uint32_t i = 0; i < count; i++) {
        cr_assert_str_eq(nnc_dataset_class_name(dataset, i), names[i]);
    }
    nnc_dataset_close(dataset);
}

Test(dataset_classes, line_number_is_label_and_the_order_stays) {
    static const char *const names[] = {"zebra", "Ähre \xe2\x82\xac", "cat", "no such image"};
    put_shard("d/train-0.tar", three, 3);
    fixture_text("d/classes.txt", "zebra\nÄhre \xe2\x82\xac\ncat\nno such image");
    expect_classes(names, 4);
}

Test(dataset_classes, without_the_file_numbers_are_names) {
    static const char *const names[] = {"0", "1", "2"};
    put_shard("d/train-0.tar", three, 3);
    expect_classes(names, 3);
}

Test(dataset_classes, folders_in_shards_need_no_names) {
    static const char *const names[] = {"bird", "cat"};
    struct tar_image tar = {0};
    tar_text(&tar, "cat/1.jpg", "x");
    tar_text(&tar, "bird/1.jpg", "x");
    tar_end(&tar);
    fixture_file("d/train-0.tar", tar.bytes, tar.size);
    tar_free(&tar);
    fixture_text("d/classes.txt", "one\ntwo\nthree\n");
    expect_classes(names, 2);
}

Test(dataset_classes, a_bad_file_is_an_error_that_names_file_and_line) {
    static const struct {
        const char *text;
        size_t size;
        const char *said;
    } rows[] = {
        {"a\nb\n", 4, "classes.txt:2: no name for class 2"},
        {"", 0, "classes.txt:0: no name for class 2"},
        {"a\n\nc\n", 5, "classes.txt:2: the name of class 1 is empty"},
        {"a\r\nb\r\nc\r\n", 9, "classes.txt:1: the name of class 0 is no plain UTF-8 text"},
        {"a\nb\n\xff\xfe\n", 7, "classes.txt:3: the name of class 2 is no plain UTF-8 text"},
        {"a\nb\0b\nc\n", 8, "classes.txt:2: the name of class 1 is no plain UTF-8 text"},
        {"a\nb\n\033[31m\n", 10, "classes.txt:3: the name of class 2 is no plain UTF-8 text"},
    };
    put_shard("d/train-0.tar", three, 3);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct nnc_dataset *dataset = NULL;
        fixture_file("d/classes.txt", rows[i].text, rows[i].size);
        cr_assert_eq(open_set("d", NULL, "", &dataset), -NNC_E_FORMAT, "row %zu", i);
        cr_assert_not_null(strstr(nnc_error_text(), rows[i].said), "row %zu: %s", i,
                           nnc_error_text());
    }
}

Test(dataset_classes, endless_lists_and_names_are_refused) {
    size_t lines = NNC_INDEX_CLASSES_MAX + 1;
    char *text = malloc(2 * lines + 1);
    struct nnc_classes classes;
    for (size_t i = 0; i < lines; i++) {
        memcpy(text + 2 * i, "x\n", 2);
    }
    cr_assert_eq(nnc_classes_parse("c", text, 2 * lines, &classes), -NNC_E_FORMAT);
    text = malloc(2 * lines + 1);
    memset(text, 'x', 2 * lines);
    text[NNC_CLASS_NAME_MAX] = '\n';
    cr_assert_eq(nnc_classes_parse("c", text, 2 * lines, &classes), -NNC_E_FORMAT);
    cr_assert_not_null(strstr(nnc_error_text(), "c:2:"), "%s", nnc_error_text());
    text = malloc(2 * lines + 1);
    memset(text, 'x', NNC_CLASS_NAME_MAX + 1);
    cr_assert_eq(nnc_classes_parse("c", text, NNC_CLASS_NAME_MAX, &classes), 0);
    cr_assert_eq(classes.count, 1);
    nnc_classes_free(&classes);
}

Test(dataset_classes, what_is_no_file_is_refused_without_waiting, .timeout = 20) {
    struct nnc_dataset *dataset = NULL;
    put_shard("d/train-0.tar", three, 3);
    cr_assert_eq(mkfifo(fixture_path("d/classes.txt"), 0600), 0);
    cr_assert_eq(open_set("d", NULL, "", &dataset), -NNC_E_FORMAT);
    cr_assert_eq(unlink(fixture_path("d/classes.txt")), 0);
    fixture_text("names", "a\nb\nc\n");
    fixture_link(fixture_path("names"), "d/classes.txt");
    cr_assert_lt(open_set("d", NULL, "", &dataset), 0);
    cr_assert_not_null(strstr(nnc_error_text(), "classes.txt"), "%s", nnc_error_text());
}

static void expect_cached(const char *first, bool cached, const char *when) {
    struct nnc_dataset *dataset = NULL;
    cr_assert_eq(open_set("d", NULL, fixture_path("cache"), &dataset), 0, "%s", nnc_error_text());
    cr_assert_eq(dataset->parts[NNC_PHASE_TRAIN].is_from_cache, cached, "%s", when);
    cr_assert_str_eq(nnc_dataset_class_name(dataset, 0), first, "%s", when);
    nnc_dataset_close(dataset);
}

Test(dataset_classes, a_file_that_comes_changes_or_goes_voids_the_cached_index) {
    put_shard("d/train-0.tar", three, 3);
    fixture_age();
    expect_cached("0", false, "new");
    expect_cached("0", true, "kept");
    fixture_text("d/classes.txt", "a\nb\nc\n");
    expect_cached("a", false, "names came");
    fixture_age();
    expect_cached("a", false, "aged");
    expect_cached("a", true, "kept with names");
    fixture_text("d/classes.txt", "x\nb\nc\n");
    expect_cached("x", false, "names changed");
    fixture_age();
    expect_cached("x", false, "aged again");
    expect_cached("x", true, "kept with other names");
    cr_assert_eq(unlink(fixture_path("d/classes.txt")), 0);
    expect_cached("0", false, "names went");
}

Test(dataset_classes, training_and_validation_must_agree_on_the_order) {
    struct nnc_dataset *dataset = NULL;
    put_shard("t/train-0.tar", three, 3);
    put_shard("v/val-0.tar", three, 3);
    fixture_text("t/classes.txt", "b\na\nc\n");
    cr_assert_eq(open_set("t", "v", "", &dataset), 0, "numbers have no order of their own: %s",
                 nnc_error_text());
    cr_assert_str_eq(nnc_dataset_class_name(dataset, 0), "b");
    nnc_dataset_close(dataset);
    fixture_text("v/classes.txt", "b\na\nc\n");
    cr_assert_eq(open_set("t", "v", "", &dataset), 0, "%s", nnc_error_text());
    nnc_dataset_close(dataset);
    fixture_text("v/classes.txt", "a\nb\nc\n");
    cr_assert_eq(open_set("t", "v", "", &dataset), -NNC_E_FORMAT);
    cr_assert_not_null(strstr(nnc_error_text(), "class 0 is b"), "%s", nnc_error_text());
    fixture_text("v/classes.txt", "b\na\nd\n");
    cr_assert_eq(open_set("t", "v", "", &dataset), -NNC_E_FORMAT);
    cr_assert_not_null(strstr(nnc_error_text(), "only in training (c)"), "%s", nnc_error_text());
}

Test(dataset_classes, a_line_can_be_written_for_any_name_and_read_again) {
    static const char *const names[] = {"plain", "back\\slash", "new\nline", "\xff\xfe", "Größe"};
    static const char *const lines[] = {"plain", "back\\slash", "new\\x0aline", "\\xff\\xfe",
                                        "Größe"};
    char line[NNC_CLASS_NAME_MAX + 1];
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        nnc_classes_line(names[i], line);
        cr_assert_str_eq(line, lines[i]);
        struct nnc_classes classes;
        char *text = malloc(strlen(line) + 1);
        memcpy(text, line, strlen(line));
        cr_assert_eq(nnc_classes_parse("c", text, strlen(line), &classes), 0);
        cr_assert_eq(classes.count, 1);
        nnc_classes_free(&classes);
    }
}
