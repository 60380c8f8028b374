/* SPDX-License-Identifier: Apache-2.0 */
/* Dropping a data set from the page cache: what is reported, and that nothing is lost. Whether the
 * pages really go is the file system's business. */
#include "coordinator/page_cache.h"

#include "base/err.h"
#include "tests/support/command.h"
#include "tests/support/datasets.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char *scratch;
static struct nnc_dataset *dataset;

static void set_up(void) {
    scratch = scratch_make();
}

static void tear_down(void) {
    nnc_dataset_close(dataset);
    scratch_remove(scratch);
}

static const struct nnc_dataset_part *open_set(void) {
    char path[400];
    snprintf(path, sizeof(path), "%s/data", scratch);
    const struct nnc_dataset_params params = {
        .path = path, .phases = NNC_DATASET_TRAIN, .cache_dir = "", .threads = 1};
    cr_assert_eq(nnc_dataset_open(&params, &dataset), 0, "%s", nnc_error_text());
    return &dataset->parts[NNC_PHASE_TRAIN];
}

static void make_folders(void) {
    char path[400];
    snprintf(path, sizeof(path), "%s/data", scratch);
    dataset_make_jpeg(path, 2, 5, 1, 40);
}

Test(page_cache, each_file_of_a_folder_is_looked_at_once, .init = set_up, .fini = tear_down) {
    make_folders();
    const struct nnc_dataset_part *part = open_set();
    struct nnc_page_cache report;
    cr_assert_eq(nnc_page_cache_drop(part, &report), 0, "%s", nnc_error_text());
    cr_assert_eq(report.files, 10);
    cr_assert_eq(report.bytes, part->index.header->data_bytes);
    cr_assert_eq(report.hidden_bytes, 0, "the files are ours");
    cr_assert_eq(report.memory_bytes, 0);
    cr_assert_leq(report.resident_bytes, 10 * (uint64_t)sysconf(_SC_PAGESIZE));
}

Test(page_cache, shards_are_dropped_as_files_and_inflated_ones_are_in_memory, .init = set_up,
     .fini = tear_down) {
    char path[400], command[900];
    snprintf(path, sizeof(path), "%s/data", scratch);
    dataset_make_idx(path, 64, 8);
    const struct nnc_dataset_part *part = open_set();
    struct nnc_page_cache report;
    cr_assert_eq(nnc_page_cache_drop(part, &report), 0, "%s", nnc_error_text());
    cr_assert_eq(report.files, 1, "%lu", report.files);
    cr_assert_geq(report.bytes, 64 * 28 * 28);
    nnc_dataset_close(dataset);
    snprintf(command, sizeof(command), "gzip %s/*", path);
    cr_assert_eq(system(command), 0);
    part = open_set();
    cr_assert_eq(nnc_page_cache_drop(part, &report), 0, "%s", nnc_error_text());
    cr_assert_eq(report.files, 0);
    cr_assert_geq(report.memory_bytes, 64 * 28 * 28);
}

Test(page_cache, bytes_just_written_are_not_lost, .init = set_up, .fini = tear_down) {
    make_folders();
    const struct nnc_dataset_part *part = open_set();
    char path[500], seen[16] = "";
    snprintf(path, sizeof(path), "%s/data/train/c00/0000.jpg", scratch);
    int fd = open(path, O_RDWR);
    cr_assert_geq(fd, 0);
    cr_assert_eq(pwrite(fd, "freshly written", 15, 0), 15);
    struct nnc_page_cache report;
    cr_assert_eq(nnc_page_cache_drop(part, &report), 0, "%s", nnc_error_text());
    cr_assert_eq(pread(fd, seen, 15, 0), 15);
    cr_assert_str_eq(seen, "freshly written");
    close(fd);
}

Test(page_cache, a_missing_file_and_a_pipe_stop_nothing, .init = set_up, .fini = tear_down,
     .timeout = 10) {
    make_folders();
    const struct nnc_dataset_part *part = open_set();
    char path[500];
    snprintf(path, sizeof(path), "%s/data/train/c00/0000.jpg", scratch);
    cr_assert_eq(unlink(path), 0);
    snprintf(path, sizeof(path), "%s/data/train/c00/0001.jpg", scratch);
    cr_assert_eq(unlink(path), 0);
    cr_assert_eq(mkfifo(path, 0600), 0);
    struct nnc_page_cache report;
    cr_assert_eq(nnc_page_cache_drop(part, &report), 0, "%s", nnc_error_text());
    cr_assert_eq(report.files, 8);
}
