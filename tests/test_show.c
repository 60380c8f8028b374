/* SPDX-License-Identifier: Apache-2.0 */
/* What `nncoord show` writes is what a trainer gets from a real loader's ring, and can be read by
 * others. */
#include "base/err.h"
#include "base/output.h"
#include "data/font.h"
#include "data/npy.h"
#include "data/sheet.h"
#include "data/stop.h"
#include "data/verbs.h"
#include "ipc/ring.h"
#include "support/image_fixture.h"
#include "support/loader_run.h"
#include "tests/support/command.h"
#include "tests/support/datasets.h"
#include "tests/support/vfs_fault.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

enum {
    SAMPLES_MAX = 128,
    SAMPLE_BYTES_MAX = 28 * 28 * 3,
};

/* What a trainer got, by position. */
struct delivered {
    uint64_t count, bytes;
    enum nnc_phase phase;
    uint8_t pixels[SAMPLES_MAX][SAMPLE_BYTES_MAX];
    int32_t labels[SAMPLES_MAX];
    uint32_t numbers[SAMPLES_MAX], statuses[SAMPLES_MAX];
};

/* A data set, and what its loader delivers of one part. */
struct world {
    char *scratch;
    char folder[400];
    struct nnc_dataset *dataset;
    struct delivered delivered;
};

static char *scratch;

static void set_up(void) {
    scratch = scratch_make();
}

static void tear_down(void) {
    cr_assert_eq(count_our_processes(scratch), 0, "processes are left behind");
    scratch_remove(scratch);
}

static void spoil(const char *folder, const char *name, long bytes) {
    char path[512];
    snprintf(path, sizeof(path), "%s/%s", folder, name);
    cr_assert_eq(truncate(path, bytes), 0, "%s", path);
}

/* A data set with five bad files; returns the folder (static). */
static const char *make_jpegs(void) {
    static char folder[400];
    snprintf(folder, sizeof(folder), "%s/data", scratch);
    dataset_make_jpeg(folder, 3, 20, 7, 40);
    spoil(folder, "train/c00/0003.jpg", 500);
    spoil(folder, "train/c01/0011.jpg", 1);
    spoil(folder, "train/c01/0012.jpg", 300);
    spoil(folder, "train/c02/0000.jpg", 0);
    spoil(folder, "val/c02/0002.jpg", 700);
    return folder;
}

static void keep_sample(void *context, const struct loader_run_sample *sample) {
    struct delivered *delivered = context;
    if (sample->phase != delivered->phase || sample->epoch != 0) {
        return;
    }
    cr_assert(sample->k < SAMPLES_MAX && sample->bytes <= SAMPLE_BYTES_MAX);
    memcpy(delivered->pixels[sample->k], sample->pixels, sample->bytes);
    delivered->labels[sample->k] = sample->label;
    delivered->numbers[sample->k] = sample->number;
    delivered->statuses[sample->k] = sample->status;
    delivered->bytes = sample->bytes;
    delivered->count++;
}

/* Run two real loaders over the data set with the options of show_arguments. */
static void deliver(struct world *world, uint32_t channels) {
    const struct nnc_dataset_params opening = {
        .path = world->folder,
        .phases = NNC_DATASET_TRAIN | NNC_DATASET_VAL,
        .cache_dir = "",
        .threads = 1,
    };
    cr_assert_eq(nnc_dataset_open(&opening, &world->dataset), 0, "%s", nnc_error_text());
    struct loader_run_params params = {
        .dataset = world->dataset,
        .ranks = 2,
        .loaders = 2,
        .batch = 7,
        .slots = 3,
        .epochs = 1,
        .channels = channels,
        .on_sample = keep_sample,
        .context = &world->delivered,
    };
    nnc_config_defaults(&params.config);
    params.config.seed = 42;
    params.config.train_crop_size = 24;
    params.config.val_resize_size = 32;
    params.config.val_crop_size = 28;
    struct loader_run_result result;
    loader_run(&params, &result);
}

static struct fixture_file read_scratch(const char *name) {
    char path[512];
    snprintf(path, sizeof(path), "%s/%s", scratch, name);
    return fixture_file_read(path);
}

static size_t count_files(const char *ending) {
    DIR *directory = opendir(scratch);
    size_t count = 0;
    for (struct dirent *entry; (entry = readdir(directory)) != NULL;) {
        size_t length = strlen(entry->d_name), tail = strlen(ending);
        count += length >= tail && strcmp(entry->d_name + length - tail, ending) == 0;
    }
    closedir(directory);
    return count;
}

static struct command show_array(const char *folder, const char *split, const char *count) {
    return command_run(scratch, "show", folder, "--npy", "x.npy", "--count", count, "--split",
                       split, "--seed", "42", "--train-crop-size", "24", "--val-resize-size", "32",
                       "--val-crop-size", "28", "--json", NULL);
}

/* The header's length after checking what NumPy checks. */
static size_t check_header(const struct fixture_file *file, uint64_t count, unsigned side,
                           unsigned channels) {
    char want[128];
    cr_assert_gt(file->size, 64);
    cr_assert_eq(memcmp(file->bytes, "\x93NUMPY\x01\x00", 8), 0);
    size_t length = 10 + (file->bytes[8] | (size_t)file->bytes[9] << 8);
    cr_assert_eq(length % 64, 0);
    cr_assert_eq(file->bytes[length - 1], '\n');
    snprintf(want, sizeof(want),
             "{'descr': '|u1', 'fortran_order': False, 'shape': (%lu, %u, %u, %u), }", count, side,
             side, channels);
    cr_assert_eq(memcmp(file->bytes + 10, want, strlen(want)), 0, "%.*s", (int)length - 11,
                 (const char *)file->bytes + 10);
    cr_assert_eq(file->size, length + count * side * side * channels);
    return length;
}

/* The line of position k agrees with what was delivered. */
static void check_line(const struct world *world, json_t *line, uint64_t k) {
    static const char *const names[] = {
        [NNC_SAMPLE_OK] = "ok", [NNC_SAMPLE_REPLACED] = "replaced", [NNC_SAMPLE_BAD] = "bad"};
    const struct delivered *delivered = &world->delivered;
    char path[512];
    nnc_dataset_sample_path(&world->dataset->parts[delivered->phase], delivered->numbers[k], path,
                            sizeof(path));
    cr_assert_str_eq(json_string_value(json_object_get(line, "path")), path, "position %lu", k);
    cr_assert_str_eq(json_string_value(json_object_get(line, "status")),
                     names[delivered->statuses[k]], "position %lu", k);
    cr_assert_eq(json_integer_value(json_object_get(line, "class")), delivered->labels[k]);
    cr_assert_eq(json_integer_value(json_object_get(line, "position")), (json_int_t)k);
    bool bad = delivered->statuses[k] == NNC_SAMPLE_BAD;
    cr_assert_eq(json_array_size(json_object_get(line, "crop")), bad ? 0 : 4);
    cr_assert_eq(json_array_size(json_object_get(line, "size")), bad ? 0 : 2);
    cr_assert(json_is_boolean(json_object_get(line, "flip")));
    cr_assert(
        bad ? json_is_null(json_object_get(line, "label"))
            : strcmp(json_string_value(json_object_get(line, "label")),
                     nnc_dataset_class_name(world->dataset, (uint32_t)delivered->labels[k])) == 0);
}

static void check_lines(const struct world *world) {
    struct fixture_file file = read_scratch("x.npy.jsonl");
    char *text = strndup((const char *)file.bytes, file.size), *rest = text;
    uint64_t k = 0;
    for (char *row; (row = strsep(&rest, "\n")) != NULL && *row != '\0'; k++) {
        json_t *line = json_loads(row, 0, NULL);
        cr_assert_not_null(line, "%s", row);
        check_line(world, line, k);
        json_decref(line);
    }
    cr_assert_eq(k, world->delivered.count);
    free(text);
    fixture_free(&file);
}

/* The files of show hold what a ring delivered, byte for byte. */
static void compare(struct world *world, unsigned side, unsigned channels) {
    const struct delivered *delivered = &world->delivered;
    bool val = delivered->phase == NNC_PHASE_VAL;
    struct command show = show_array(world->folder, val ? "val" : "train", "1000");
    cr_assert_eq(show.status, 0, "%s", show.err);
    struct fixture_file file = read_scratch("x.npy");
    size_t header = check_header(&file, delivered->count, side, channels);
    cr_assert_eq(delivered->bytes, (size_t)side * side * channels);
    uint64_t replaced = 0, bad = 0;
    for (uint64_t k = 0; k < delivered->count; k++) {
        cr_assert_eq(memcmp(file.bytes + header + k * delivered->bytes, delivered->pixels[k],
                            delivered->bytes),
                     0, "position %lu", k);
        replaced += delivered->statuses[k] == NNC_SAMPLE_REPLACED;
        bad += delivered->statuses[k] == NNC_SAMPLE_BAD;
    }
    check_lines(world);
    cr_expect_eq(json_number(show.out, "count"), (double)delivered->count);
    cr_expect_eq(json_number(show.out, "replaced"), (double)replaced);
    cr_expect_eq(json_number(show.out, "bad"), (double)bad);
    cr_expect_eq(count_files(".png") + count_files(".tmp"), 0);
    fixture_free(&file);
    command_free(&show);
}

static struct world *begin(const char *folder, enum nnc_phase phase, uint32_t channels) {
    static struct world world;
    world.delivered.phase = phase;
    snprintf(world.folder, sizeof(world.folder), "%s", folder);
    deliver(&world, channels);
    return &world;
}

Test(show, training_samples_are_those_that_a_ring_delivers, .init = set_up, .fini = tear_down) {
    struct world *world = begin(make_jpegs(), NNC_PHASE_TRAIN, 3);
    uint64_t replaced = 0;
    cr_assert_eq(world->delivered.count, 60);
    for (uint64_t k = 0; k < 60; k++) {
        replaced += world->delivered.statuses[k] == NNC_SAMPLE_REPLACED;
    }
    cr_assert_eq(replaced, 4, "each bad file is replaced in the run");
    compare(world, 24, 3);
    nnc_dataset_close(world->dataset);
}

Test(show, validation_samples_are_those_that_a_ring_delivers, .init = set_up, .fini = tear_down) {
    struct world *world = begin(make_jpegs(), NNC_PHASE_VAL, 3);
    cr_assert_eq(world->delivered.count, 21);
    compare(world, 28, 3);
    nnc_dataset_close(world->dataset);
}

Test(show, raw_grey_samples_are_those_that_a_ring_delivers, .init = set_up, .fini = tear_down) {
    char folder[400];
    snprintf(folder, sizeof(folder), "%s/idx", scratch);
    dataset_make_idx(folder, 100, 30);
    struct world *world = begin(folder, NNC_PHASE_TRAIN, 1);
    compare(world, 24, 1);
    nnc_dataset_close(world->dataset);
}

Test(show, the_picture_opens_and_has_a_tile_for_each_sample, .init = set_up, .fini = tear_down) {
    struct command show = command_run(scratch, "show", make_jpegs(), "--count", "10",
                                      "--train-crop-size", "24", "--json", NULL);
    cr_assert_eq(show.status, 0, "%s", show.err);
    struct nnc_sheet_layout layout;
    cr_assert_eq(nnc_sheet_lay_out(10, 24, 3, &layout), 0);
    cr_expect_eq(layout.columns, 4);
    cr_expect_eq(layout.enlarge, 3);
    struct nnc_image *image;
    struct fixture_file file = read_scratch("show.png");
    struct fixture_pixels pixels = {.channels = 3};
    cr_assert_eq(nnc_image_create(&image), 0);
    cr_assert_eq(fixture_decode(image, &file, true, &pixels), 0, "%s", nnc_error_text());
    cr_expect_eq(pixels.image_width, layout.width);
    cr_expect_eq(pixels.image_height, layout.height);
    free(pixels.data);
    nnc_image_destroy(image);
    fixture_free(&file);
    command_free(&show);
}

Test(show, picture_and_array_can_be_had_together, .init = set_up, .fini = tear_down) {
    struct command show = command_run(scratch, "show", make_jpegs(), "--count", "3", "--output",
                                      "a.png", "--npy", "a.npy", "--train-crop-size", "24", NULL);
    cr_assert_eq(show.status, 0, "%s", show.err);
    cr_expect_str_empty(show.out);
    cr_expect_eq(count_files("a.png") + count_files("a.npy") + count_files("a.npy.jsonl"), 3);
    command_free(&show);
}

Test(show, mistakes_exit_with_2_and_a_remedy, .init = set_up, .fini = tear_down) {
    const char *folder = make_jpegs();
    const struct {
        const char *arguments[8];
        const char *said;
    } rows[] = {
        {{"show", NULL}, "needs DATA"},
        {{"show", "/nonexistent/data", NULL}, "/nonexistent/data"},
        {{"show", folder, "--output", "no/such/x.png", NULL}, "give another place"},
        {{"show", folder, "--npy", "no/such/x.npy", NULL}, "give another place"},
        {{"show", folder, "--output", ".", NULL}, "is a directory: give the name of a file"},
        {{"show", folder, "--output", "x", "--npy", "x", NULL}, "give two names"},
        {{"show", folder, "--output", "x.JPG", NULL}, "a name that ends in .png"},
        {{"show", folder, "--output", "x.jsonl", "--npy", "x", NULL}, "give two names"},
        {{"show", folder, "--split", "test", NULL}, "none of train, val"},
        {{"show", folder, "--train-crop-size", "8192", "--count", "60", NULL}, "give --count"},
        {{"show", folder, "--count", "0", NULL}, "1 to 100000000 images or auto expected"},
        {{"train", folder, "--output", "x", NULL}, "is --output-dir"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct command command = command_start(scratch, false, rows[i].arguments);
        command_wait(&command);
        cr_expect_eq(command.status, 2, "row %zu: exit %d: %s", i, command.status, command.err);
        cr_expect_not_null(strstr(command.err, rows[i].said), "row %zu: %s", i, command.err);
        cr_expect_str_empty(command.out);
        command_free(&command);
    }
    cr_expect_eq(count_files(".tmp") + count_files(".png"), 0);
}

Test(show, a_link_stays_and_the_file_is_made_where_it_leads, .init = set_up, .fini = tear_down) {
    const char *folder = make_jpegs();
    struct stat status;
    char link_path[400], file_path[400];
    snprintf(link_path, sizeof(link_path), "%s/link.png", scratch);
    snprintf(file_path, sizeof(file_path), "%s/sub", scratch);
    cr_assert_eq(mkdir(file_path, 0700), 0);
    snprintf(file_path, sizeof(file_path), "%s/sub/real.png", scratch);
    FILE *file = fopen(file_path, "w");
    cr_assert_not_null(file);
    fclose(file);
    cr_assert_eq(symlink("sub/real.png", link_path), 0);
    struct command show =
        command_run(scratch, "show", folder, "--count", "3", "--output", "link.png", NULL);
    cr_expect_eq(show.status, 0, "%s", show.err);
    cr_expect(lstat(link_path, &status) == 0 && S_ISLNK(status.st_mode));
    cr_expect(lstat(file_path, &status) == 0 && S_ISREG(status.st_mode) && status.st_size > 100);
    command_free(&show);
    show = command_run(scratch, "show", folder, "--count", "3", "--output", "link.png", "--npy",
                       "sub/real.png", NULL);
    cr_expect_eq(show.status, 2);
    cr_expect_not_null(strstr(show.err, "give two names"), "%s", show.err);
    command_free(&show);
}

Test(show, what_is_no_file_stays_and_is_refused, .init = set_up, .fini = tear_down) {
    const char *folder = make_jpegs();
    char path[400];
    snprintf(path, sizeof(path), "%s/pipe", scratch);
    cr_assert_eq(mkfifo(path, 0600), 0);
    snprintf(path, sizeof(path), "%s/to-pipe", scratch);
    cr_assert_eq(symlink("pipe", path), 0);
    snprintf(path, sizeof(path), "%s/nowhere", scratch);
    cr_assert_eq(symlink("missing/file", path), 0);
    snprintf(path, sizeof(path), "%s/full", scratch);
    bool may_make = mknod(path, S_IFCHR | 0666, makedev(1, 7)) == 0;
    static const struct {
        const char *name, *said;
        mode_t kind;
    } rows[] = {{"pipe", "is a device, a pipe or a socket", S_IFIFO},
                {"to-pipe", "is a device, a pipe or a socket", S_IFLNK},
                {"nowhere", "is a link that leads nowhere", S_IFLNK},
                {"full", "is a device, a pipe or a socket", S_IFCHR}};
    for (size_t i = 0; i < (may_make ? 4 : 3); i++) {
        struct stat status;
        struct command show =
            command_run(scratch, "show", folder, "--count", "3", "--output", rows[i].name, NULL);
        cr_expect_eq(show.status, 2, "%s: exit %d", rows[i].name, show.status);
        cr_expect_not_null(strstr(show.err, rows[i].said), "%s: %s", rows[i].name, show.err);
        snprintf(path, sizeof(path), "%s/%s", scratch, rows[i].name);
        cr_expect(lstat(path, &status) == 0 && (status.st_mode & S_IFMT) == rows[i].kind, "%s",
                  path);
        command_free(&show);
    }
    cr_expect_eq(count_files(".tmp"), 0);
}

Test(show, a_full_device_exits_with_74_and_leaves_nothing, .init = set_up, .fini = tear_down) {
    const char *folder = make_jpegs();
    struct rlimit limit;
    cr_assert_eq(getrlimit(RLIMIT_FSIZE, &limit), 0);
    limit.rlim_cur = 20000; /* of the 100 kB that the array needs */
    cr_assert_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
    struct command show = show_array(folder, "train", "60");
    cr_expect_eq(show.status, 74, "%s", show.err);
    cr_expect_not_null(strstr(show.err, "error: x.npy cannot be written"), "%s", show.err);
    cr_expect_str_empty(show.out);
    cr_expect_eq(count_files(".npy") + count_files(".jsonl") + count_files(".tmp"), 0);
    command_free(&show);
}

Test(show, a_signal_leaves_no_file_behind, .init = set_up, .fini = tear_down) {
    static struct nnc_command command;
    json_t *result = NULL;
    nnc_config_defaults(&command.config);
    snprintf(command.config.data, sizeof(command.config.data), "%s", make_jpegs());
    snprintf(command.config.npy, sizeof(command.config.npy), "%s/x.npy", scratch);
    snprintf(command.config.output, sizeof(command.config.output), "%s/x.png", scratch);
    nnc_stop_install();
    raise(SIGINT);
    cr_expect_eq(nnc_data_show(&command, &result), -NNC_E_STOPPED, "%s", nnc_error_text());
    cr_expect_null(result);
    cr_expect_eq(count_files(".npy") + count_files(".jsonl") + count_files(".png"), 0);
    cr_expect_eq(count_files(".tmp"), 0);
}

/* Kill a run that writes an array of some size. */
static void kill_while_writing(const char *folder) {
    const char *const arguments[] = {"show", folder, "--npy", "x.npy", "--train-crop-size",
                                     "600",  NULL};
    struct command command = command_start(scratch, false, arguments);
    for (int i = 0; i < 5000 && count_files(".tmp") < 2; i++) {
        usleep(1000);
    }
    pid_t child;
    kill(find_descendants(command.pid, "", &child, 1) > 0 ? child : command.pid, SIGKILL);
    kill(command.pid, SIGKILL);
    command_wait(&command);
    command_free(&command);
}

Test(show, what_a_killed_run_left_goes_with_the_next_and_what_another_one_writes_stays,
     .init = set_up, .fini = tear_down) {
    const char *folder = make_jpegs();
    char path[400];
    for (int i = 0; i < 20 && count_files(".tmp") < 2; i++) {
        kill_while_writing(folder);
    }
    cr_assert_geq(count_files(".tmp"), 2, "no run was killed in time");
    struct nnc_output writing;
    snprintf(path, sizeof(path), "%s/x.npy", scratch);
    cr_assert_eq(nnc_output_open(nnc_vfs_real(), path, &writing), 0);
    struct command command =
        command_run(scratch, "show", folder, "--npy", "x.npy", "--count", "3", NULL);
    cr_assert_eq(command.status, 0, "%s", command.err);
    cr_assert_eq(count_files(".tmp"), 1, "that of the output that is open");
    cr_assert_eq(nnc_output_commit(&writing, false), 0, "%s", nnc_error_text());
    command_free(&command);
}

Test(show, a_file_is_whole_or_not_there_whichever_call_fails, .init = set_up, .fini = tear_down) {
    char path[400];
    struct vfs_fault fault;
    uint64_t wrong = 0, at = 1;
    snprintf(path, sizeof(path), "%s/out.bin", scratch);
    vfs_fault_init(&fault, nnc_vfs_real());
    do {
        struct nnc_output output = {0};
        vfs_fault_arm(&fault, VFS_FAULT_ALL, at, ENOSPC);
        int code = nnc_output_open(&fault.base, path, &output);
        code = code < 0 ? code : nnc_output_write(&output, "abc", 3);
        code = code < 0 ? code : nnc_output_write(&output, "def", 3);
        code = code < 0 ? code : nnc_output_commit(&output, true);
        nnc_output_abandon(&output);
        bool there = access(path, F_OK) == 0;
        struct fixture_file file = {0};
        if (there) {
            file = fixture_file_read(path);
            wrong += file.size != 6 || memcmp(file.bytes, "abcdef", 6) != 0;
            fixture_free(&file);
            unlink(path);
        }
        wrong += count_files(".tmp") != 0 || (code >= 0 && !there);
        wrong += code < 0 && strstr(nnc_error_text(), "out.bin") == NULL;
        wrong += code < 0 && code != -NNC_E_USAGE && code != -NNC_E_CHECKPOINT;
        cr_assert_eq(wrong, 0, "call %lu failed: %d %s", at, code, nnc_error_text());
        at++;
    } while (fault.faults != 0);
    cr_expect_gt(at, 7);
}

Test(show, headers_are_aligned_for_every_size) {
    static const uint64_t shapes[][4] = {
        {1, 1, 1, 1}, {0, 224, 224, 3}, {1281167, 224, 224, 3}, {UINT64_MAX, UINT32_MAX, 1, 3}};
    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
        uint8_t header[NNC_NPY_HEADER_MAX];
        size_t length = nnc_npy_header(shapes[i], header);
        cr_expect_eq(length % 64, 0);
        cr_expect_eq(header[8] + 256 * header[9] + 10, (int)length);
        cr_expect_eq(header[length - 1], '\n');
    }
}

Test(show, captions_are_printable_and_are_cut_to_the_tile) {
    char text[8];
    cr_expect_eq(nnc_font_text("a\tb\xc3\xa9~", text, sizeof(text)), 5);
    cr_expect_str_eq(text, "a?b?~");
    cr_expect_eq(nnc_font_text("0123456789", text, sizeof(text)), 7);
    struct nnc_sheet_layout layout;
    struct nnc_sheet *sheet;
    uint8_t pixels[64 * 64] = {0};
    uint8_t *bytes[2];
    size_t sizes[2];
    /* Ten letters of 6 pixels fit under 64 pixels: an eleventh changes nothing. */
    static const char *const captions[] = {"abcdefghij", "abcdefghijk"};
    for (int i = 0; i < 2; i++) {
        cr_assert_eq(nnc_sheet_lay_out(1, 64, 1, &layout), 0);
        cr_assert_eq(nnc_sheet_create(&layout, &sheet), 0);
        nnc_sheet_draw(sheet, 0, pixels, captions[i]);
        cr_assert_eq(nnc_sheet_encode(sheet, &bytes[i], &sizes[i]), 0);
        nnc_sheet_destroy(sheet);
    }
    cr_expect(sizes[0] == sizes[1] && memcmp(bytes[0], bytes[1], sizes[0]) == 0);
    free(bytes[0]);
    free(bytes[1]);
}

Test(show, every_letter_has_a_look_of_its_own) {
    for (char letter = ' '; letter <= '~'; letter++) {
        uint64_t look = 0;
        for (unsigned i = 0; i < NNC_FONT_WIDTH * NNC_FONT_HEIGHT; i++) {
            look |= (uint64_t)nnc_font_pixel(letter, i % NNC_FONT_WIDTH, i / NNC_FONT_WIDTH) << i;
        }
        for (char other = ' '; other < letter; other++) {
            uint64_t same = 0;
            for (unsigned i = 0; i < NNC_FONT_WIDTH * NNC_FONT_HEIGHT; i++) {
                same |= (uint64_t)nnc_font_pixel(other, i % NNC_FONT_WIDTH, i / NNC_FONT_WIDTH)
                        << i;
            }
            cr_expect_neq(same, look, "%c and %c", letter, other);
        }
    }
}
