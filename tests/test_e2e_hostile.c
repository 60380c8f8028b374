/* SPDX-License-Identifier: Apache-2.0 */
/* The whole program on hundreds of hostile files: in a folder, packed, and in tar shards. */
#include "tests/support/command.h"
#include "tests/support/datasets.h"
#include "tests/support/fixture.h"
#include "tests/support/hostile.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    CLASSES = 2,
    GOOD = 400,
    RSS_MAX_KB = 768 * 1024, /* of the largest process; the bombs ask for gigabytes */
};

static char *scratch;
static struct hostile_count count;

static void set_up(void) {
    char path[600];
    scratch = scratch_make();
    snprintf(path, sizeof(path), "%s/tiny.nn", scratch);
    FILE *file = fopen(path, "w");
    fputs("input(3, 16, 16)\n"
          "def tiny(num_classes=2) = Sequential(Flatten(), Linear(768, num_classes))\n",
          file);
    fclose(file);
    snprintf(path, sizeof(path), "%s/data", scratch);
    dataset_make_jpeg(path, CLASSES, GOOD, 0, 12);
    snprintf(path, sizeof(path), "%s/data/train/c01", scratch);
    hostile_make(path, &count);
    /* Only training images: no validation folder of empty classes. */
    for (int i = 0; i <= CLASSES; i++) {
        snprintf(path, sizeof(path), i < CLASSES ? "%s/data/val/c%02d" : "%s/data/val", scratch, i);
        cr_assert_eq(rmdir(path), 0);
    }
}

static void tear_down(void) {
    cr_assert_eq(count_our_processes(scratch), 0, "processes are left behind");
    scratch_remove(scratch);
}

TestSuite(e2e_hostile, .init = set_up, .fini = tear_down, .timeout = 300);

static struct command train(const char *data, const char *out) {
    return command_run(scratch, "train", data, "--model", "tiny.nn", "--train-crop-size", "16",
                       "--epochs", "1", "--batch-size", "16", "--lr", "0.01", "--max-bad", "1",
                       "--backend", "reference", "--workers", "2", "--output-dir", out, "--quiet",
                       "--json", NULL);
}

/* --- the list -------------------------------------------------------------------------------- */

struct list {
    char **lines; /* sorted: loaders report in any order */
    size_t count;
};

static int compare_lines(const void *left, const void *right) {
    return strcmp(*(char *const *)left, *(char *const *)right);
}

static struct list read_list(const char *out) {
    char path[600], line[2000];
    struct list list = {.lines = calloc(4096, sizeof(char *))};
    snprintf(path, sizeof(path), "%s/%s/bad-samples.jsonl", scratch, out);
    FILE *file = fopen(path, "r");
    cr_assert_not_null(file, "%s", path);
    while (fgets(line, sizeof(line), file) != NULL) {
        cr_assert_lt(list.count, 4096);
        list.lines[list.count++] = strdup(line);
    }
    fclose(file);
    qsort(list.lines, list.count, sizeof(char *), compare_lines);
    return list;
}

static void free_list(struct list *list) {
    for (size_t i = 0; i < list->count; i++) {
        free(list->lines[i]);
    }
    free(list->lines);
}

/* Every line names a hostile file and a reason, and each file that is bad for sure has a line. */
static void assert_complete(const struct list *list, unsigned wanted) {
    unsigned bad = 0;
    for (size_t i = 0; i < list->count; i++) {
        char path[600], reason[600];
        json_text(list->lines[i], "path", path, sizeof(path));
        json_text(list->lines[i], "reason", reason, sizeof(reason));
        cr_assert_str_not_empty(reason);
        cr_assert(strstr(path, "bad-") || strstr(path, "odd-"), "a good file is listed: %s", path);
        bad += strstr(path, "bad-") != NULL;
    }
    cr_assert_eq(bad, wanted);
}

static void assert_equal_lists(const struct list *left, const struct list *right) {
    cr_assert_eq(left->count, right->count);
    for (size_t i = 0; i < left->count; i++) {
        cr_assert_str_eq(left->lines[i], right->lines[i]);
    }
}

/* Train twice on a data set: same list, same weights, bounded memory. */
static void train_twice(const char *data, unsigned bad) {
    char hash[2][65], out[64];
    struct list lists[2];
    for (int i = 0; i < 2; i++) {
        snprintf(out, sizeof(out), "run-%d", i);
        struct command command = train(data, out);
        cr_assert_eq(command.status, 0, "exit %d: %s", command.status, command.err);
        cr_assert_eq(json_number(command.out, "loader_deaths"), 0);
        json_text(command.out, "weights_sha256", hash[i], 65);
        lists[i] = read_list(out);
        cr_assert_eq(json_number(command.out, "bad_samples"), lists[i].count);
        command_free(&command);
    }
    struct rusage usage;
    getrusage(RUSAGE_CHILDREN, &usage);
    cr_assert_lt(usage.ru_maxrss, RSS_MAX_KB, "a process had %ld kB", usage.ru_maxrss);
    assert_complete(&lists[0], bad);
    assert_equal_lists(&lists[0], &lists[1]);
    cr_assert_str_eq(hash[0], hash[1]);
    free_list(&lists[0]);
    free_list(&lists[1]);
}

Test(e2e_hostile, a_folder_trains_and_lists_each_bad_file) {
    train_twice("data", count.bad);
}

Test(e2e_hostile, packing_leaves_the_bad_files_out) {
    char path[600], name[200];
    unsigned bad = 0, listed = 0;
    struct command pack = command_run(scratch, "pack", "data", "packed", "--max-bad", "1",
                                      "--verify", "--json", NULL);
    cr_assert_eq(pack.status, 0, "exit %d: %s", pack.status, pack.err);
    double images = json_number(pack.out, "images");
    cr_assert_eq(images + json_number(pack.out, "bad"), CLASSES * GOOD + count.files);
    cr_assert_geq(images, CLASSES * GOOD);
    for (const char *at = pack.err; (at = strstr(at, " is left out: ")) != NULL; at++) {
        listed++;
    }
    cr_assert_eq(listed, json_number(pack.out, "bad"));
    for (int shard = 0; shard < 2; shard++) {
        snprintf(path, sizeof(path), "%s/packed/train-%06d.idx", scratch, shard);
        FILE *file = fopen(path, "r");
        while (file != NULL && fscanf(file, "%199s", name) == 1) {
            bad += strstr(name, "bad-") != NULL;
        }
        if (file != NULL) {
            fclose(file);
        }
    }
    cr_assert_eq(bad, 0, "%u bad files are in shards", bad);
    struct command command = train("packed", "from-packed");
    cr_assert_eq(command.status, 0, "exit %d: %s", command.status, command.err);
    cr_assert_eq(json_number(command.out, "bad_samples"), 0);
    command_free(&command);
    command_free(&pack);
}

/* --- shards ---------------------------------------------------------------------------------- */

static int is_file(const struct dirent *entry) {
    return entry->d_name[0] != '.' && strncmp(entry->d_name, "not-", 4) != 0;
}

/* Every file of a class as a member of a shard, with a label; some labels are no numbers. Returns
 * how many of the members are bad images: BMP is no image of a shard. */
static unsigned add_class(struct tar_image *tar, const char *class_name, const char *label) {
    static const char *const odd_labels[] = {"cat", "", "-1", "99999999999999999999", "1 2"};
    char folder[600], path[900], name[300];
    struct dirent **entries;
    unsigned bad = 0;
    snprintf(folder, sizeof(folder), "%s/data/train/%s", scratch, class_name);
    int files = scandir(folder, &entries, is_file, alphasort);
    cr_assert_gt(files, 0);
    uint8_t *bytes = malloc(8 << 20);
    for (int i = 0; i < files; i++) {
        snprintf(path, sizeof(path), "%s/%s", folder, entries[i]->d_name);
        int fd = open(path, O_RDONLY | O_NOFOLLOW);
        ssize_t size = read(fd, bytes, 8 << 20);
        cr_assert_geq(size, 0, "%s", path);
        close(fd);
        snprintf(name, sizeof(name), "%s-%s", class_name, entries[i]->d_name);
        tar_entry(tar, '0', name, bytes, (size_t)size);
        snprintf(strchr(name, '.'), 8, ".cls");
        bool is_odd = strncmp(entries[i]->d_name, "odd-", 4) == 0 && i % 7 == 0;
        bad += strncmp(entries[i]->d_name, "bad-", 4) == 0 &&
               strstr(entries[i]->d_name, ".bmp") == NULL;
        tar_text(tar, name, is_odd ? odd_labels[i % 5] : label);
        free(entries[i]);
    }
    free(entries);
    free(bytes);
    return bad;
}

Test(e2e_hostile, shards_of_the_same_files_train_and_list_each_bad_member) {
    struct tar_image tar = {0};
    char path[600];
    cr_assert_eq(add_class(&tar, "c00", "0"), 0);
    unsigned bad = add_class(&tar, "c01", "1");
    cr_assert_gt(bad, 200);
    tar_end(&tar);
    snprintf(path, sizeof(path), "%s/shards", scratch);
    cr_assert_eq(mkdir(path, 0700), 0);
    snprintf(path, sizeof(path), "%s/shards/train-0.tar", scratch);
    FILE *file = fopen(path, "wb");
    cr_assert_eq(fwrite(tar.bytes, 1, tar.size, file), tar.size);
    fclose(file);
    tar_free(&tar);
    train_twice("shards", bad);
}
