/* SPDX-License-Identifier: Apache-2.0 */
/* Both kinds of readers deliver the same bytes, and the same verdict on files that are not as
 * indexed. */
#include "loader/reader.h"

#include "base/err.h"
#include "coordinator/index_build.h"
#include "ipc/memfd.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum {
    FILES = 40,
    SHARDS = 90, /* more than are kept open */
    SHARD_BYTES = 5000,
};

/* A directory with data, its index and the opened source. */
struct world {
    char root[64];
    struct nnc_index_builder *builder;
    struct nnc_source *source;
    int index_fd;
    bool direct; /* past the page cache */
};

static struct world begin(enum nnc_index_kind kind) {
    struct world world = {.root = "/tmp/nnc-reader-XXXXXX"};
    cr_assert_not_null(mkdtemp(world.root));
    world.builder = nnc_index_builder_create(kind);
    nnc_index_builder_add_class(world.builder, "thing");
    return world;
}

static const char *path_of(const struct world *world, const char *name) {
    static char path[256];
    snprintf(path, sizeof(path), "%s/%s", world->root, name);
    return path;
}

static uint8_t byte_at(uint32_t file, size_t place) {
    return (uint8_t)(file * 31 + place * 7 + place / 251);
}

static void write_file(const struct world *world, const char *name, uint32_t number, size_t size) {
    uint8_t *bytes = malloc(size + 1);
    for (size_t i = 0; i < size; i++) {
        bytes[i] = byte_at(number, i);
    }
    FILE *out = fopen(path_of(world, name), "wb");
    cr_assert_not_null(out);
    cr_assert_eq(fwrite(bytes, 1, size, out), size);
    fclose(out);
    free(bytes);
}

static void add_sample(struct world *world, const char *name, uint64_t offset, uint64_t size,
                       uint32_t file) {
    const struct nnc_index_entry entry = {
        .name = name, .offset = offset, .size = size, .file = file};
    nnc_index_builder_add_sample(world->builder, &entry);
}

static void open_source(struct world *world, int raw_fd) {
    void *bytes;
    size_t size;
    cr_assert_eq(nnc_index_builder_finish(world->builder, &bytes, &size), 0);
    cr_assert_eq(nnc_memfd_create("index", size, NNC_MEMFD_READONLY, bytes, NULL, &world->index_fd),
                 0);
    struct nnc_setup_data data = {.index_fd = world->index_fd, .raw_fd = raw_fd};
    snprintf(data.root, sizeof(data.root), "%s", world->root);
    cr_assert_eq(nnc_source_open(&data, world->direct, &world->source), 0, "%s", nnc_error_text());
    free(bytes);
}

static void end(struct world *world) {
    nnc_source_close(world->source);
    nnc_index_builder_destroy(world->builder);
    close(world->index_fd);
    char command[128];
    snprintf(command, sizeof(command), "rm -rf %s", world->root);
    cr_assert_eq(system(command), 0);
}

static const struct nnc_reader_ops *const kinds[] = {&nnc_reader_uring, &nnc_reader_pread};

/* Open a reader of a kind; NULL where io_uring is refused. */
static struct nnc_reader *open_reader(const struct world *world, size_t kind, uint32_t depth) {
    const struct nnc_reader_params params = {.sources = {world->source, NULL}, .depth = depth};
    char note[128];
    struct nnc_reader *reader = NULL;
    cr_assert_eq(nnc_reader_open(&params, kind == 0 ? NNC_IO_AUTO : NNC_IO_PREAD, note,
                                 sizeof(note), &reader),
                 0);
    if (strcmp(nnc_reader_name(reader), kinds[kind]->name) != 0) {
        nnc_reader_close(reader);
        return NULL;
    }
    return reader;
}

/* Read samples 0..count-1, keeping the reader full, and call check for each. */
static void read_all(struct nnc_reader *reader, uint32_t depth, uint64_t count,
                     void (*check)(uint64_t sample, const struct nnc_read_done *done)) {
    uint64_t sample_of[NNC_READER_DEPTH_MAX];
    uint64_t next = 0, done_count = 0;
    for (uint32_t tag = 0; tag < depth && next < count; tag++, next++) {
        sample_of[tag] = next;
        nnc_reader_submit(reader, &(struct nnc_read){tag, NNC_PHASE_TRAIN, next});
    }
    struct nnc_read_done done;
    while (nnc_reader_wait(reader, &done) == 1) {
        check(sample_of[done.tag], &done);
        done_count++;
        if (next < count) {
            sample_of[done.tag] = next;
            nnc_reader_submit(reader, &(struct nnc_read){done.tag, NNC_PHASE_TRAIN, next++});
        }
    }
    cr_assert_eq(done_count, count);
}

/* ---- folders ---- */

static size_t folder_size(uint64_t sample) {
    static const size_t sizes[] = {1, 100, 16383, 16384, 16385, 70000, 5000000, 3};
    return sizes[sample % 8];
}

static void check_folder(uint64_t sample, const struct nnc_read_done *done) {
    cr_assert_eq(done->code, 0, "sample %lu: %s", sample, nnc_error_text());
    cr_assert_eq(done->size, folder_size(sample));
    for (size_t i = 0; i < done->size; i += i < 100 ? 1 : 97) {
        cr_assert_eq(done->bytes[i], byte_at((uint32_t)sample, i), "sample %lu byte %zu", sample,
                     i);
    }
}

static void read_folder(bool direct) {
    struct world world = begin(NNC_INDEX_FOLDER);
    world.direct = direct;
    for (uint32_t i = 0; i < FILES; i++) {
        char name[32];
        snprintf(name, sizeof(name), "file-%u", i);
        write_file(&world, name, i, folder_size(i));
        add_sample(&world, name, 0, folder_size(i), 0);
    }
    open_source(&world, -1);
    static const uint32_t depths[] = {1, 2, 7, 16};
    for (size_t i = 0; i < 8; i++) {
        struct nnc_reader *reader = open_reader(&world, i / 4, depths[i % 4]);
        if (reader != NULL) {
            read_all(reader, depths[i % 4], FILES, check_folder);
            nnc_reader_close(reader);
        }
    }
    end(&world);
}

Test(reader, files_of_a_folder_arrive_whole_with_both_kinds_at_any_depth) {
    read_folder(false);
}

/* Where the file system of /tmp cannot do it, this is the fall-back. */
Test(reader, files_of_a_folder_arrive_whole_past_the_page_cache) {
    read_folder(true);
}

static const char *const trouble[] = {"missing",   "shrunk",  "grown",  "fifo",
                                      "directory", "outside", "climbs", "good"};

static int verdicts[2][8];

static void note_verdict_0(uint64_t sample, const struct nnc_read_done *done) {
    verdicts[0][sample] = done->code;
    cr_expect(done->code == 0 || nnc_error_text()[0] != '\0');
}

static void note_verdict_1(uint64_t sample, const struct nnc_read_done *done) {
    verdicts[1][sample] = done->code;
}

Test(reader, files_that_are_not_as_indexed_are_told_alike_by_both_kinds) {
    struct world world = begin(NNC_INDEX_FOLDER);
    write_file(&world, "shrunk", 1, 50);
    write_file(&world, "grown", 2, 150);
    write_file(&world, "good", 7, 100);
    cr_assert_eq(mkfifo(path_of(&world, "fifo"), 0600), 0);
    cr_assert_eq(mkdir(path_of(&world, "directory"), 0700), 0);
    cr_assert_eq(symlink("/etc/passwd", path_of(&world, "outside")), 0);
    cr_assert_eq(symlink("../../etc/passwd", path_of(&world, "climbs")), 0);
    for (size_t i = 0; i < 8; i++) {
        add_sample(&world, trouble[i], 0, 100, 0);
    }
    open_source(&world, -1);
    for (size_t kind = 0; kind < 2; kind++) {
        struct nnc_reader *reader = open_reader(&world, kind, 3);
        if (reader == NULL) {
            memset(verdicts[kind], 0, sizeof(verdicts[kind]));
            continue;
        }
        read_all(reader, 3, 8, kind == 0 ? note_verdict_0 : note_verdict_1);
        nnc_reader_close(reader);
        for (size_t i = 0; i < 8; i++) {
            cr_expect_eq(verdicts[kind][i] < 0, i < 7, "%s: %d", trouble[i], verdicts[kind][i]);
        }
        cr_expect_eq(verdicts[kind][0], -ENOENT);
        cr_expect_eq(verdicts[kind][1], -NNC_E_FORMAT);
        cr_expect_eq(verdicts[kind][5], -EXDEV);
    }
    end(&world);
}

Test(reader, links_inside_of_the_directory_are_followed) {
    struct world world = begin(NNC_INDEX_FOLDER);
    cr_assert_eq(mkdir(path_of(&world, "class"), 0700), 0);
    write_file(&world, "real", 0, 1);
    cr_assert_eq(symlink("../real", path_of(&world, "class/link")), 0);
    add_sample(&world, "class/link", 0, 1, 0);
    open_source(&world, -1);
    for (size_t kind = 0; kind < 2; kind++) {
        struct nnc_reader *reader = open_reader(&world, kind, 1);
        if (reader != NULL) {
            read_all(reader, 1, 1, check_folder);
            nnc_reader_close(reader);
        }
    }
    end(&world);
}

/* ---- shards ---- */

static void check_shard(uint64_t sample, const struct nnc_read_done *done) {
    uint32_t shard = (uint32_t)(sample * 37 % SHARDS);
    cr_assert_eq(done->code, 0, "sample %lu: %s", sample, nnc_error_text());
    cr_assert_eq(done->size, 1000 + sample % 50);
    for (size_t i = 0; i < done->size; i++) {
        cr_assert_eq(done->bytes[i], byte_at(shard, sample * 11 % 3000 + i), "sample %lu byte %zu",
                     sample, i);
    }
}

static void read_shards(bool direct) {
    struct world world = begin(NNC_INDEX_TAR);
    world.direct = direct;
    for (uint32_t i = 0; i < SHARDS; i++) {
        char name[32];
        snprintf(name, sizeof(name), "shard-%u.tar", i);
        write_file(&world, name, i, SHARD_BYTES);
        nnc_index_builder_add_file(world.builder, name, SHARD_BYTES, 0);
    }
    for (uint64_t s = 0; s < 400; s++) {
        add_sample(&world, "member", s * 11 % 3000, 1000 + s % 50, (uint32_t)(s * 37 % SHARDS));
    }
    open_source(&world, -1);
    for (size_t kind = 0; kind < 2; kind++) {
        struct nnc_reader *reader = open_reader(&world, kind, 16);
        if (reader != NULL) {
            read_all(reader, 16, 400, check_shard);
            nnc_reader_close(reader);
        }
    }
    char fds[64];
    int open_fds = 0;
    for (int fd = 0; fd < 512; fd++) {
        snprintf(fds, sizeof(fds), "/proc/self/fd/%d", fd);
        open_fds += access(fds, F_OK) == 0;
    }
    cr_expect_lt(open_fds, SHARDS);
    end(&world);
}

Test(reader, members_of_more_shards_than_may_be_open_arrive_whole) {
    read_shards(false);
}

Test(reader, members_of_shards_arrive_whole_past_the_page_cache) {
    read_shards(true);
}

enum {
    SLICE_HEAD = 77,
    SLICE_FIRST = 1234,
    SLICE_BYTES = 20000,
    SLICE_SAMPLE = 50000,
    SLICE_OFFSET = 600,
};

/* Head, then a slice with the head kept. */
static void read_slice(struct nnc_reader *reader) {
    struct nnc_read_done done;
    struct nnc_read read = {.tag = 1, .bytes = SLICE_HEAD};
    nnc_reader_submit(reader, &read);
    cr_assert_eq(nnc_reader_wait(reader, &done), 1);
    cr_assert(done.code == 0 && done.size == SLICE_HEAD && done.kept == NULL);
    read.first = SLICE_FIRST;
    read.bytes = SLICE_BYTES;
    read.keep = SLICE_HEAD;
    nnc_reader_submit(reader, &read);
    cr_assert_eq(nnc_reader_wait(reader, &done), 1);
    cr_assert(done.code == 0 && done.size == SLICE_BYTES && done.kept_size == SLICE_HEAD);
    for (size_t i = 0; i < SLICE_HEAD; i++) {
        cr_assert_eq(done.kept[i], byte_at(9, SLICE_OFFSET + i));
    }
    for (size_t i = 0; i < SLICE_BYTES; i++) {
        cr_assert_eq(done.bytes[i], byte_at(9, SLICE_OFFSET + SLICE_FIRST + i));
    }
}

/* Open the reader that bench input may ask for. */
static struct nnc_reader *open_null(const struct world *world) {
    const struct nnc_reader_params params = {.sources = {world->source, NULL}, .depth = 2};
    struct nnc_reader *reader = NULL;
    char note[128];
    cr_assert_eq(nnc_reader_open(&params, NNC_IO_NULL, note, sizeof(note), &reader), 0);
    cr_assert_str_eq(nnc_reader_name(reader), "null");
    return reader;
}

Test(reader, the_null_reader_gives_one_image_for_all_of_its_size) {
    struct world world = begin(NNC_INDEX_TAR);
    write_file(&world, "shard.tar", 9, 60000);
    nnc_index_builder_add_file(world.builder, "shard.tar", 60000, 0);
    add_sample(&world, "first", 100, 5000, 0);
    add_sample(&world, "second", 7000, 5000, 0);
    add_sample(&world, "other", 20000, 4999, 0);
    open_source(&world, -1);
    struct nnc_reader *reader = open_null(&world);
    static const uint64_t offsets[] = {100, 100, 20000};
    for (uint64_t sample = 0; sample < 3; sample++) {
        struct nnc_read_done done;
        nnc_reader_submit(reader, &(struct nnc_read){.tag = 1, .sample = sample});
        cr_assert_eq(nnc_reader_wait(reader, &done), 1);
        cr_assert_eq(done.size, sample == 2 ? 4999 : 5000);
        for (size_t i = 0; i < done.size; i += 11) {
            cr_assert_eq(done.bytes[i], byte_at(9, offsets[sample] + i), "sample %lu", sample);
        }
    }
    nnc_reader_close(reader);
    end(&world);
}

Test(reader, the_null_reader_gives_slices_too) {
    struct world world = begin(NNC_INDEX_TAR);
    write_file(&world, "shard.tar", 9, 60000);
    nnc_index_builder_add_file(world.builder, "shard.tar", 60000, 0);
    add_sample(&world, "member", SLICE_OFFSET, SLICE_SAMPLE, 0);
    open_source(&world, -1);
    struct nnc_reader *reader = open_null(&world);
    read_slice(reader);
    read_slice(reader);
    nnc_reader_close(reader);
    end(&world);
}

Test(reader, a_slice_comes_behind_the_head_that_is_kept) {
    for (int direct = 0; direct < 2; direct++) {
        struct world world = begin(NNC_INDEX_TAR);
        world.direct = direct == 1;
        write_file(&world, "shard.tar", 9, 60000);
        nnc_index_builder_add_file(world.builder, "shard.tar", 60000, 0);
        add_sample(&world, "member", SLICE_OFFSET, SLICE_SAMPLE, 0);
        open_source(&world, -1);
        for (size_t kind = 0; kind < 2; kind++) {
            struct nnc_reader *reader = open_reader(&world, kind, 2);
            if (reader != NULL) {
                read_slice(reader);
                nnc_reader_close(reader);
            }
        }
        end(&world);
    }
}

static void check_raw(uint64_t sample, const struct nnc_read_done *done) {
    cr_assert_eq(done->code, 0, "%s", nnc_error_text());
    cr_assert_eq(done->size, 64);
    for (size_t i = 0; i < 64; i++) {
        cr_assert_eq(done->bytes[i], byte_at(5, 16 + sample * 64 + i));
    }
}

Test(reader, raw_samples_of_a_passed_memory_file_arrive_whole) {
    struct world world = begin(NNC_INDEX_IDX);
    uint8_t bytes[16 + 64 * 30];
    for (size_t i = 0; i < sizeof(bytes); i++) {
        bytes[i] = byte_at(5, i);
    }
    int raw_fd;
    cr_assert_eq(nnc_memfd_create("raw", sizeof(bytes), NNC_MEMFD_READONLY, bytes, NULL, &raw_fd),
                 0);
    nnc_index_builder_add_file(world.builder, "", sizeof(bytes), 0);
    nnc_index_builder_set_shape(world.builder, 8, 8, 1);
    for (uint64_t s = 0; s < 30; s++) {
        add_sample(&world, "", 16 + s * 64, 64, 0);
    }
    open_source(&world, raw_fd);
    for (size_t kind = 0; kind < 2; kind++) {
        struct nnc_reader *reader = open_reader(&world, kind, 8);
        if (reader != NULL) {
            read_all(reader, 8, 30, check_raw);
            nnc_reader_close(reader);
        }
    }
    close(raw_fd);
    end(&world);
}

static void check_changed(uint64_t sample, const struct nnc_read_done *done) {
    (void)sample;
    cr_expect_eq(done->code, -NNC_E_FORMAT);
    cr_expect_not_null(strstr(nnc_error_text(), "changed"), "%s", nnc_error_text());
}

Test(reader, a_shard_of_another_size_than_indexed_is_refused) {
    struct world world = begin(NNC_INDEX_TAR);
    write_file(&world, "a.tar", 0, 999);
    nnc_index_builder_add_file(world.builder, "a.tar", 1000, 0);
    add_sample(&world, "member", 0, 100, 0);
    open_source(&world, -1);
    struct nnc_reader *reader = open_reader(&world, 1, 1);
    read_all(reader, 1, 1, check_changed);
    nnc_reader_close(reader);
    end(&world);
}

/* ---- advice ---- */

enum {
    ADVISED_FILE = 8 << 20,
    ADVISED_OFFSET = (4 << 20) + 100,
    ADVISED_BYTES = 300000, /* more than the kernel fetches for one piece of advice */
    ADVISED_MARGIN = 2 << 20,
};

/* Pages of a part of a file that are in memory. */
static size_t resident(const char *path, size_t offset, size_t bytes) {
    static unsigned char pages[ADVISED_FILE / 4096 + 2];
    int fd = open(path, O_RDONLY);
    size_t first = offset / 4096 * 4096, count = (offset + bytes - first + 4095) / 4096, found = 0;
    void *map = mmap(NULL, offset + bytes - first, PROT_READ, MAP_SHARED, fd, (off_t)first);
    cr_assert_neq(map, MAP_FAILED);
    cr_assert_eq(mincore(map, offset + bytes - first, pages), 0);
    for (size_t i = 0; i < count; i++) {
        found += pages[i] & 1;
    }
    munmap(map, offset + bytes - first);
    close(fd);
    return found;
}

/* Drop a file from the page cache; false where the file system keeps it. */
static bool drop(const char *path) {
    int fd = open(path, O_RDWR);
    cr_assert_eq(fsync(fd), 0);
    posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    close(fd);
    return resident(path, 0, ADVISED_FILE) == 0;
}

/* Sample 0 is a part of "file", 1 is "other", and 2 cannot be had. */
static struct world make_advised(bool folder, bool direct) {
    struct world world = begin(folder ? NNC_INDEX_FOLDER : NNC_INDEX_TAR);
    static const char *const names[] = {"file", "other", "missing"};
    world.direct = direct;
    write_file(&world, "file", 3, ADVISED_FILE);
    write_file(&world, "other", 4, ADVISED_BYTES);
    for (uint32_t i = 0; i < 3 && !folder; i++) {
        nnc_index_builder_add_file(world.builder, names[i], i == 0 ? ADVISED_FILE : ADVISED_BYTES,
                                   0);
    }
    for (uint32_t i = 0; i < 3; i++) {
        add_sample(&world, names[i], i == 0 && !folder ? ADVISED_OFFSET : 0, ADVISED_BYTES,
                   folder ? 0 : i);
    }
    open_source(&world, -1);
    return world;
}

/* Read sample 1: the reader goes on with advice while it waits for reads. */
static void read_other(struct nnc_reader *reader) {
    struct nnc_read_done done;
    nnc_reader_submit(reader, &(struct nnc_read){.sample = 1});
    cr_assert_eq(nnc_reader_wait(reader, &done), 1);
    cr_assert(done.code == 0 && done.size == ADVISED_BYTES);
    for (size_t i = 0; i < done.size; i += 97) {
        cr_assert_eq(done.bytes[i], byte_at(4, i));
    }
}

static bool comes_into_memory(struct nnc_reader *reader, const char *path, size_t offset) {
    size_t pages = (offset + ADVISED_BYTES + 4095) / 4096 - offset / 4096;
    for (int i = 0; i < 500 && resident(path, offset, ADVISED_BYTES) < pages; i++) {
        read_other(reader);
        usleep(10000);
    }
    return resident(path, offset, ADVISED_BYTES) == pages;
}

Test(reader, advice_brings_exactly_the_bytes_of_the_sample_into_memory) {
    for (size_t i = 0; i < 4; i++) {
        bool folder = i / 2 == 1;
        struct world world = make_advised(folder, false);
        const char *path = path_of(&world, "file");
        size_t offset = folder ? 0 : ADVISED_OFFSET;
        struct nnc_reader *reader = open_reader(&world, i % 2, 2);
        bool drops = drop(path);
        if (reader != NULL && drops) {
            cr_expect(nnc_reader_advise(reader, NNC_PHASE_TRAIN, 0));
            cr_expect(comes_into_memory(reader, path, offset), "kind %zu, folder %d", i % 2,
                      folder);
            cr_expect(folder || resident(path, 0, ADVISED_MARGIN) == 0);
            cr_expect_eq(resident(path, ADVISED_FILE - ADVISED_MARGIN, ADVISED_MARGIN), 0);
        }
        nnc_reader_close(reader);
        end(&world);
        if (!drops) {
            cr_skip_test("this file system keeps files in memory");
        }
    }
}

Test(reader, advice_past_the_page_cache_is_none) {
    for (size_t i = 0; i < 4; i++) {
        struct world world = make_advised(i / 2 == 1, true);
        struct nnc_reader *reader = open_reader(&world, i % 2, 2);
        bool drops = drop(path_of(&world, "file"));
        if (reader != NULL) {
            cr_expect_not(nnc_reader_advise(reader, NNC_PHASE_TRAIN, 0));
            read_other(reader);
            usleep(50000);
            cr_expect(!drops || resident(path_of(&world, "file"), 0, ADVISED_FILE) == 0);
        }
        nnc_reader_close(reader);
        end(&world);
    }
}

Test(reader, advice_that_nobody_can_follow_is_forgotten_and_the_next_is_followed) {
    for (size_t i = 0; i < 4; i++) {
        bool folder = i / 2 == 1;
        struct world world = make_advised(folder, false);
        const char *path = path_of(&world, "file");
        struct nnc_reader *reader = open_reader(&world, i % 2, 2);
        for (int turn = 0; reader != NULL && turn < 40; turn++) {
            nnc_reader_advise(reader, NNC_PHASE_TRAIN, 2);
            read_other(reader);
            usleep(1000);
        }
        bool drops = drop(path);
        if (reader != NULL && drops) {
            read_other(reader);
            nnc_reader_advise(reader, NNC_PHASE_TRAIN, 0);
            cr_expect(comes_into_memory(reader, path, folder ? 0 : ADVISED_OFFSET),
                      "kind %zu, folder %d", i % 2, folder);
        }
        nnc_reader_close(reader);
        end(&world);
        if (!drops) {
            cr_skip_test("this file system keeps files in memory");
        }
    }
}

/* ---- refusal ---- */

/* Let io_uring_setup fail with EPERM, as Docker's default profile does. */
static void forbid_uring(void) {
    struct sock_filter rules[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {.len = sizeof(rules) / sizeof(rules[0]), .filter = rules};
    cr_assert_eq(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
    cr_assert_eq(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program), 0);
}

Test(reader, where_io_uring_is_refused_pread_takes_over_and_says_why) {
    struct world world = begin(NNC_INDEX_FOLDER);
    write_file(&world, "file", 0, folder_size(0));
    add_sample(&world, "file", 0, folder_size(0), 0);
    open_source(&world, -1);
    forbid_uring();
    const struct nnc_reader_params params = {.sources = {world.source, NULL}, .depth = 4};
    char note[128];
    struct nnc_reader *reader = NULL;
    cr_assert_eq(nnc_reader_open(&params, NNC_IO_AUTO, note, sizeof(note), &reader), 0);
    cr_expect_str_eq(nnc_reader_name(reader), "pread");
    cr_expect_not_null(strstr(note, "Operation not permitted"), "%s", note);
    read_all(reader, 4, 1, check_folder);
    nnc_reader_close(reader);
    end(&world);
}
