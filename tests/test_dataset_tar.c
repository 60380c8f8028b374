/* SPDX-License-Identifier: Apache-2.0 */
/* Tar shards: the reader against libarchive, hostile archives, WebDataset's rules, class folders.
 */
#include "coordinator/dataset.h"

#include "base/err.h"
#include "coordinator/dataset_shard.h"
#include "coordinator/dataset_tar_reader.h"
#include "tests/support/fixture.h"

#include <archive.h>
#include <archive_entry.h>
#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

TestSuite(dataset_tar, .init = fixture_begin, .fini = fixture_end);

/* --- archives in memory --------------------------------------------------------------------------
 */

static ssize_t read_memory(void *context, void *data, size_t bytes, uint64_t offset) {
    const struct tar_image *tar = context;
    cr_assert_leq(offset, tar->size);
    size_t left = tar->size - offset;
    bytes = bytes < left ? bytes : left;
    memcpy(data, tar->bytes + offset, bytes);
    return (ssize_t)bytes;
}

static struct nnc_tar_source memory_source(struct tar_image *tar) {
    return (struct nnc_tar_source){
        .name = "t.tar", .size = tar->size, .read = read_memory, .context = tar};
}

/* Step through all members. Returns their number or the error; the last one's data in *ret_last. */
static int walk_members(struct tar_image *tar, struct nnc_tar_member *ret_last, char *last_name) {
    struct nnc_tar_source source = memory_source(tar);
    struct nnc_tar_reader *reader;
    cr_assert_eq(nnc_tar_open(&source, &reader), 0);
    struct nnc_tar_member member;
    int count = 0;
    int code;
    while ((code = nnc_tar_next(reader, &member)) > 0) {
        cr_assert_leq(member.offset, tar->size);
        cr_assert_leq(member.size, tar->size - member.offset);
        count++;
        if (ret_last != NULL) {
            *ret_last = member;
            strcpy(last_name, member.name);
        }
    }
    nnc_tar_close(reader);
    return code < 0 ? code : count;
}

/* --- libarchive as the oracle --------------------------------------------------------------------
 */

static void write_entry(struct archive *out, int type, const char *name, size_t size) {
    struct archive_entry *entry = archive_entry_new();
    archive_entry_set_pathname(entry, name);
    archive_entry_set_filetype(entry, (unsigned)type);
    archive_entry_set_perm(entry, 0644);
    archive_entry_set_size(entry, type == AE_IFREG ? (la_int64_t)size : 0);
    if (type == AE_IFLNK) {
        archive_entry_set_symlink(entry, "a.jpg");
    }
    cr_assert_eq(archive_write_header(out, entry), ARCHIVE_OK, "%s: %s", name,
                 archive_error_string(out));
    char *body = malloc(size + 1);
    for (size_t i = 0; i < size; i++) {
        body[i] = (char)(i * 31 + size);
    }
    if (type == AE_IFREG) {
        cr_assert_eq(archive_write_data(out, body, size), (la_ssize_t)size);
    }
    free(body);
    archive_entry_free(entry);
}

static void write_archive(int format, int longest, struct tar_image *tar) {
    static unsigned char room[8 << 20];
    static const size_t sizes[] = {0, 1, 511, 512, 513, 3000, 70000, 1300000};
    struct archive *out = archive_write_new();
    size_t used = 0;
    cr_assert_eq(archive_write_set_format(out, format), ARCHIVE_OK);
    cr_assert_eq(archive_write_open_memory(out, room, sizeof(room), &used), ARCHIVE_OK);
    write_entry(out, AE_IFDIR, "folder/", 0);
    write_entry(out, AE_IFLNK, "folder/link.jpg", 0);
    for (int length = 5; length <= longest; length += length < 110 ? 5 : 37) {
        char name[1200];
        memset(name, 'n', (size_t)length);
        memcpy(name + length - 4, ".jpg", 5);
        for (int i = 40; i < length - 10; i += 40) {
            name[i] = '/'; /* so that ustar can split it */
        }
        write_entry(out, AE_IFREG, name, sizes[length % 8]);
    }
    cr_assert_eq(archive_write_close(out), ARCHIVE_OK);
    archive_write_free(out);
    tar->bytes = room;
    tar->size = used;
}

static void compare_body(struct archive *in, const struct tar_image *tar,
                         const struct nnc_tar_member *member) {
    char *body = malloc(member->size + 1);
    cr_assert_eq(archive_read_data(in, body, member->size), (la_ssize_t)member->size);
    cr_expect_eq(memcmp(body, tar->bytes + member->offset, member->size), 0, "%s", member->name);
    free(body);
}

static void compare_with_libarchive(struct tar_image *tar, const char *format) {
    struct archive *in = archive_read_new();
    archive_read_support_format_tar(in);
    cr_assert_eq(archive_read_open_memory(in, tar->bytes, tar->size), ARCHIVE_OK);
    struct nnc_tar_source source = memory_source(tar);
    struct nnc_tar_reader *reader;
    cr_assert_eq(nnc_tar_open(&source, &reader), 0);
    struct archive_entry *entry;
    struct nnc_tar_member member;
    int members = 0;
    while (archive_read_next_header(in, &entry) == ARCHIVE_OK) {
        cr_assert_eq(nnc_tar_next(reader, &member), 1, "%s: %s", format, nnc_error_text());
        cr_expect_str_eq(member.name, archive_entry_pathname(entry), "%s", format);
        cr_expect_eq(member.size, (uint64_t)archive_entry_size(entry), "%s", member.name);
        cr_expect_eq(member.is_regular, archive_entry_filetype(entry) == AE_IFREG);
        compare_body(in, tar, &member);
        members++;
    }
    cr_expect_eq(nnc_tar_next(reader, &member), 0);
    cr_expect_gt(members, 15);
    nnc_tar_close(reader);
    archive_read_free(in);
}

Test(dataset_tar, members_are_where_libarchive_finds_them) {
    struct {
        int format;
        int longest;
        const char *name;
    } rows[] = {
        {ARCHIVE_FORMAT_TAR_USTAR, 230, "ustar"},
        {ARCHIVE_FORMAT_TAR_PAX_INTERCHANGE, 1100, "pax"},
        {ARCHIVE_FORMAT_TAR_PAX_RESTRICTED, 1100, "restricted pax"},
        {ARCHIVE_FORMAT_TAR_GNUTAR, 1100, "gnu"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct tar_image tar = {0};
        write_archive(rows[i].format, rows[i].longest, &tar);
        compare_with_libarchive(&tar, rows[i].name);
    }
}

/* --- hostile archives ----------------------------------------------------------------------------
 */

enum damage {
    CHECKSUM,
    NEGATIVE_SIZE,
    GARBAGE_SIZE,
    SIZE_BEYOND,
    ABSOLUTE_NAME,
    PARENT_NAME,
    PAX_SIZE_BEYOND,
    PAX_SIZE_GARBAGE,
    PAX_PARENT_NAME,
    PAX_ZERO_IN_NAME,
    PAX_NO_NEWLINE,
    PAX_ZERO_LENGTH,
    PAX_LENGTH_BEYOND,
    PAX_TOO_LARGE,
    PAX_SPARSE,
    GNU_NAME_TOO_LONG,
    GNU_SPARSE,
    ENDLESS_EXTENSIONS,
    BODY_CUT,
    PADDING_CUT,
    HEADER_CUT,
    DAMAGE_COUNT,
};

/* Append an entry with this damage. */
static void add_damage(struct tar_image *tar, enum damage damage) {
    static const char zeros[70000];
    size_t at = tar->size;
    switch (damage) {
    case CHECKSUM:
        tar_text(tar, "x.jpg", "x");
        tar->bytes[at + 3] ^= 1;
        break;
    case NEGATIVE_SIZE:
        tar_header(tar, '0', "x.jpg", 0);
        memset(tar->bytes + at + 124, 0xff, 12);
        tar_fix_checksum(tar, at);
        break;
    case GARBAGE_SIZE:
        tar_header(tar, '0', "x.jpg", 0);
        memcpy(tar->bytes + at + 124, "12x4", 4);
        tar_fix_checksum(tar, at);
        break;
    case SIZE_BEYOND:
        tar_header(tar, '0', "x.jpg", 077777777777);
        break;
    case ABSOLUTE_NAME:
        tar_text(tar, "/etc/x.jpg", "x");
        break;
    case PARENT_NAME:
        tar_text(tar, "./a/../../x.jpg", "x");
        break;
    case PAX_SIZE_BEYOND:
        tar_pax(tar, "size", "999999999999");
        tar_text(tar, "x.jpg", "x");
        break;
    case PAX_SIZE_GARBAGE:
        tar_pax(tar, "size", "-1");
        tar_text(tar, "x.jpg", "x");
        break;
    case PAX_PARENT_NAME:
        tar_pax(tar, "path", "a/..");
        tar_text(tar, "x.jpg", "x");
        break;
    case PAX_ZERO_IN_NAME:
        tar_entry(tar, 'x', "pax", "12 path=a\0b\n", 12);
        tar_text(tar, "x.jpg", "x");
        break;
    case PAX_NO_NEWLINE:
        tar_entry(tar, 'x', "pax", "10 path=ab", 10);
        tar_text(tar, "x.jpg", "x");
        break;
    case PAX_ZERO_LENGTH:
        tar_entry(tar, 'x', "pax", "0 path=a\n", 9);
        tar_text(tar, "x.jpg", "x");
        break;
    case PAX_LENGTH_BEYOND:
        tar_entry(tar, 'x', "pax", "99 path=a\n", 10);
        tar_text(tar, "x.jpg", "x");
        break;
    case PAX_TOO_LARGE:
        tar_entry(tar, 'x', "pax", zeros, 65537);
        tar_text(tar, "x.jpg", "x");
        break;
    case PAX_SPARSE:
        tar_pax(tar, "GNU.sparse.major", "1");
        tar_text(tar, "x.jpg", "x");
        break;
    case GNU_NAME_TOO_LONG:
        tar_entry(tar, 'L', "././@LongLink", zeros, 4097);
        tar_text(tar, "x.jpg", "x");
        break;
    case GNU_SPARSE:
        tar_entry(tar, 'S', "x.jpg", "x", 1);
        break;
    case ENDLESS_EXTENSIONS:
        for (int i = 0; i < 17; i++) {
            tar_pax(tar, "comment", "x");
        }
        tar_text(tar, "x.jpg", "x");
        break;
    case BODY_CUT:
        tar_entry(tar, '0', "x.jpg", zeros, 1000);
        tar->size -= 100; /* padding is 24 bytes */
        break;
    case PADDING_CUT:
        tar_entry(tar, '0', "x.jpg", zeros, 1000);
        tar->size -= 10;
        break;
    case HEADER_CUT:
        tar_text(tar, "x.jpg", "x");
        tar->size = at + 511;
        break;
    case DAMAGE_COUNT:
        break;
    }
}

Test(dataset_tar, each_damage_is_refused_with_its_offset) {
    for (int damage = 0; damage < DAMAGE_COUNT; damage++) {
        struct tar_image tar = {0};
        tar_text(&tar, "good.jpg", "x");
        add_damage(&tar, (enum damage)damage);
        if (damage != BODY_CUT && damage != PADDING_CUT && damage != HEADER_CUT) {
            tar_end(&tar);
        }
        int code = walk_members(&tar, NULL, NULL);
        cr_expect_eq(code, -NNC_E_FORMAT, "damage %d: %d", damage, code);
        cr_expect_not_null(strstr(nnc_error_text(), "t.tar: offset "), "%s", nnc_error_text());
        tar_free(&tar);
    }
}

Test(dataset_tar, archives_that_end_early_give_their_first_members_or_an_error) {
    struct tar_image tar = {0};
    char long_name[300];
    memset(long_name, 'n', sizeof(long_name) - 1);
    long_name[sizeof(long_name) - 1] = '\0';
    tar_text(&tar, "a/1.jpg", "first");
    tar_pax(&tar, "path", long_name);
    tar_text(&tar, "short", "second");
    tar_entry(&tar, 'L', "././@LongLink", long_name, sizeof(long_name));
    tar_entry(&tar, '0', "third", long_name, sizeof(long_name));
    size_t entries = tar.size;
    tar_end(&tar);
    size_t whole = tar.size;
    int before = 0;
    for (size_t size = 0; size <= whole; size += size % 512 == 511 || size % 512 == 0 ? 1 : 170) {
        tar.size = size;
        int count = walk_members(&tar, NULL, NULL);
        if (count >= 0) {
            cr_expect_geq(count, before, "%zu bytes", size);
            before = count;
        }
        cr_expect(size < entries || count == 3, "%zu bytes: %d", size, count);
    }
    cr_expect_eq(before, 3);
    tar.size = whole;
    tar_free(&tar);
}

Test(dataset_tar, an_archive_cut_between_members_lacks_its_end) {
    struct tar_image tar = {0};
    tar_text(&tar, "1.jpg", "first");
    size_t first = tar.size;
    tar_text(&tar, "2.jpg", "second");
    size_t second = tar.size;
    tar_end(&tar);
    const struct {
        size_t size, images;
        bool lacks_end;
    } rows[] = {{first, 1, true},
                {second, 2, true},
                {second + 100, 2, false}, /* zeros enough to see that nothing follows */
                {second + 512, 2, false},
                {tar.size, 2, false}};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct nnc_shard shard;
        tar.size = rows[i].size;
        struct nnc_tar_source source = memory_source(&tar);
        cr_expect_eq(nnc_shard_scan(&source, &shard), 0, "row %zu: %s", i, nnc_error_text());
        cr_expect_eq(shard.image_count, rows[i].images, "row %zu", i);
        cr_expect_eq(shard.lacks_end, rows[i].lacks_end, "row %zu", i);
        nnc_shard_finish(&shard);
    }
    tar_free(&tar);
}

Test(dataset_tar, a_pax_size_holds_for_the_member_not_for_headers_between) {
    /* Readers that gave the size to the next header of any type could be shown other members. */
    struct tar_image tar = {0};
    static const char body[1000] = "body";
    tar_pax(&tar, "size", "1000");
    tar_entry(&tar, 'L', "././@LongLink", "long.jpg", 9);
    tar_header(&tar, '0', "short.jpg", 0);
    struct tar_image rest = {0};
    tar_entry(&rest, '0', "x", body, sizeof(body));
    tar.bytes = realloc(tar.bytes, tar.size + 1024);
    memcpy(tar.bytes + tar.size, rest.bytes + 512, 1024);
    tar.size += 1024;
    tar_free(&rest);
    tar_end(&tar);
    struct nnc_tar_member member;
    char name[256];
    cr_assert_eq(walk_members(&tar, &member, name), 1, "%s", nnc_error_text());
    cr_expect_str_eq(name, "long.jpg");
    cr_expect_eq(member.size, 1000);
    cr_expect_eq(memcmp(tar.bytes + member.offset, body, 1000), 0);
    tar.size -= 1024; /* the end */
    tar_text(&tar, "plain.jpg", "abc");
    cr_assert_eq(walk_members(&tar, &member, name), 2, "%s", nnc_error_text());
    cr_expect_str_eq(name, "plain.jpg", "the name before holds for one member only");
    cr_expect_eq(member.size, 3);
    tar_free(&tar);
}

Test(dataset_tar, links_have_no_body_whatever_their_size_says) {
    struct tar_image tar = {0};
    tar_text(&tar, "a.jpg", "x");
    for (char type = '1'; type <= '6'; type++) {
        tar_header(&tar, type, "link.jpg", 512);
    }
    tar_text(&tar, "b.jpg", "xyz");
    tar_end(&tar);
    struct nnc_tar_member member;
    char name[256];
    cr_assert_eq(walk_members(&tar, &member, name), 8, "%s", nnc_error_text());
    cr_expect_str_eq(name, "b.jpg");
    cr_expect_eq(memcmp(tar.bytes + member.offset, "xyz", 3), 0);
    tar_free(&tar);
}

/* A huge archive of which only the first header and the one at `second` exist. */
struct vast {
    struct tar_image headers;
    uint64_t second;
};

static ssize_t read_vast(void *context, void *data, size_t bytes, uint64_t offset) {
    const struct vast *vast = context;
    memset(data, 0, bytes);
    for (int i = 0; i < 2; i++) {
        uint64_t at = i == 0 ? 0 : vast->second;
        if (offset == at && bytes >= 512) {
            memcpy(data, vast->headers.bytes + 512 * i, 512);
        }
    }
    return (ssize_t)bytes;
}

Test(dataset_tar, sizes_beyond_eight_gibibytes_are_read) {
    const uint64_t size = 9ull << 30;
    struct vast vast = {.second = 512 + size};
    tar_header(&vast.headers, '0', "huge.jpg", 0);
    memset(vast.headers.bytes + 124, 0, 12);
    vast.headers.bytes[124] = 0x80; /* base 256 */
    for (int i = 0; i < 8; i++) {
        vast.headers.bytes[135 - i] = (unsigned char)(size >> 8 * i);
    }
    tar_fix_checksum(&vast.headers, 0);
    tar_header(&vast.headers, '0', "small.jpg", 5);
    struct nnc_tar_source source = {
        .name = "vast", .size = size + 4096, .read = read_vast, .context = &vast};
    struct nnc_shard shard;
    cr_assert_eq(nnc_shard_scan(&source, &shard), 0, "%s", nnc_error_text());
    cr_assert_eq(shard.image_count, 2);
    cr_expect_eq(shard.images[0].size, size);
    cr_expect_eq(shard.images[1].offset, 512 + size + 512);
    nnc_shard_finish(&shard);
    tar_free(&vast.headers);
}

Test(dataset_tar, random_changes_do_no_harm) {
    struct tar_image tar = {0};
    tar_text(&tar, "a/1.jpg", "first");
    tar_text(&tar, "a/1.cls", "3");
    tar_pax(&tar, "path", "a/2.jpg");
    tar_text(&tar, "short", "second");
    tar_text(&tar, "a/2.json", "{\"label\": 4}");
    tar_entry(&tar, 'L', "././@LongLink", "b/3.jpg", 8);
    tar_text(&tar, "third", "third");
    tar_end(&tar);
    unsigned char *kept = malloc(tar.size);
    memcpy(kept, tar.bytes, tar.size);
    uint64_t state = 88172645463325252ull;
    int good = 0;
    for (int round = 0; round < 30000; round++) {
        for (int i = 0; i < 3; i++) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            tar.bytes[state % tar.size] = (unsigned char)(state >> 32);
        }
        for (size_t at = 0; at < tar.size - 1024; at += 512) {
            if (kept[at + 257] == 'u') {
                tar_fix_checksum(&tar, at);
            }
        }
        struct nnc_tar_source source = memory_source(&tar);
        struct nnc_shard shard;
        good += nnc_shard_scan(&source, &shard) >= 0;
        nnc_shard_finish(&shard);
        memcpy(tar.bytes, kept, tar.size);
    }
    cr_expect_gt(good, 1000, "too few archives got past the header");
    free(kept);
    tar_free(&tar);
}

/* --- WebDataset ----------------------------------------------------------------------------------
 */

static void put_tar(struct tar_image *tar, const char *name) {
    tar_end(tar);
    fixture_file(name, tar->bytes, tar->size);
    tar_free(tar);
}

static int open_path(const char *path, unsigned phases, struct nnc_dataset **ret_dataset) {
    struct nnc_dataset_params params = {
        .path = path, .phases = phases, .cache_dir = fixture_path("cache"), .threads = 2};
    return nnc_dataset_open(&params, ret_dataset);
}

static struct nnc_dataset *open_good(const char *name) {
    struct nnc_dataset *dataset = NULL;
    int code = open_path(fixture_path(name), NNC_DATASET_TRAIN | NNC_DATASET_VAL, &dataset);
    cr_assert_eq(code, 0, "%s: %s", name, nnc_error_text());
    return dataset;
}

/* "path label size" of each sample, one a line; checks that the bytes are in the shard. */
static const char *describe(const struct nnc_dataset_part *part) {
    static char text[4096];
    size_t at = 0;
    text[0] = '\0';
    for (uint64_t i = 0; i < part->samples; i++) {
        char path[256];
        nnc_index_sample_path(&part->index, i, path, sizeof(path));
        at += (size_t)snprintf(text + at, sizeof(text) - at, "%s %d %u\n", path,
                               part->index.samples[i].label, part->index.samples[i].size);
    }
    return text;
}

static void expect_part(const struct nnc_dataset *dataset, enum nnc_phase phase,
                        const char *expected) {
    const char *text = describe(&dataset->parts[phase]);
    cr_expect_str_eq(text, expected, "got:\n%s", text);
}

Test(dataset_tar, samples_are_grouped_as_webdataset_does) {
    struct tar_image tar = {0};
    tar_entry(&tar, '5', "d/", NULL, 0);
    tar_text(&tar, "./d/0001.JPG", "image");
    tar_text(&tar, "d/0001.cls", " 7\n");
    tar_text(&tar, "d/0001.seg.png", "mask");
    tar_text(&tar, "d/0002.cls", "2");
    tar_text(&tar, "d/0002.png", "png");
    tar_text(&tar, "d/0002.jpg", "second image of the sample");
    tar_text(&tar, "__index__.json", "{\"label\": 9}");
    tar_text(&tar, ".hidden.jpg", "x");
    tar_text(&tar, "nodot", "x");
    tar_text(&tar, "d.with.dots/0003.jpeg", "abc");
    tar_text(&tar, "d.with.dots/0003.json", "{\"caption\": \"x\", \"label\": 5}");
    tar_text(&tar, "0004.json", "{\"cls\": 4}");
    tar_text(&tar, "0004.jpg", "abcd");
    tar_text(&tar, "0004.cls", "3");
    tar_text(&tar, "0005.txt", "no image");
    tar_text(&tar, "0006.jpg", "bad label");
    tar_text(&tar, "0006.cls", "cat");
    tar_text(&tar, "0007.jpg", "no label");
    tar_text(&tar, "0008.jpg", "label too large");
    tar_text(&tar, "0008.cls", "99999999999999999999");
    tar_text(&tar, "0009.cls", "6");
    tar_text(&tar, "0009.json", "{\"label\": 1}");
    tar_text(&tar, "0009.jpg", "the label is that of .cls");
    put_tar(&tar, "s.tar");
    struct nnc_dataset *dataset = open_good("s.tar");
    expect_part(dataset, NNC_PHASE_TRAIN,
                "s.tar/d/0001.JPG 7 5\n"
                "s.tar/d/0002.png 2 3\n"
                "s.tar/d.with.dots/0003.jpeg 5 3\n"
                "s.tar/0004.jpg 3 4\n"
                "s.tar/0006.jpg -1 9\n"
                "s.tar/0007.jpg -1 8\n"
                "s.tar/0008.jpg -1 15\n"
                "s.tar/0009.jpg 6 25\n");
    cr_expect_eq(dataset->classes, 8);
    cr_expect_str_eq(nnc_dataset_class_name(dataset, 7), "7");
    nnc_dataset_close(dataset);
}

Test(dataset_tar, a_duplicate_in_a_sample_names_shard_offset_and_key) {
    struct tar_image tar = {0};
    tar_text(&tar, "a.jpg", "x");
    tar_text(&tar, "a.cls", "1");
    tar_text(&tar, "a.JPG", "x");
    put_tar(&tar, "s.tar");
    struct nnc_dataset *dataset = NULL;
    int code = open_path(fixture_path("s.tar"), NNC_DATASET_TRAIN, &dataset);
    cr_expect_eq(code, -NNC_E_FORMAT);
    cr_expect_not_null(strstr(nnc_error_text(), "s.tar: offset 2048: key a has .jpg twice"), "%s",
                       nnc_error_text());
}

Test(dataset_tar, folders_in_a_tar_are_classes_where_no_sample_has_a_label) {
    struct tar_image tar = {0};
    tar_text(&tar, "set/dog/n01.0001.jpg", "x");
    tar_text(&tar, "set/dog/n01.0002.JPEG", "xy");
    tar_text(&tar, "set/cat/1.png", "xyz");
    tar_text(&tar, "set/readme.txt", "x");
    tar_text(&tar, "set/dog/3.jpg", "xyz");
    put_tar(&tar, "a.tar");
    tar_text(&tar, "set/bird/1.jpg", "x");
    put_tar(&tar, "b.tar");
    struct nnc_dataset *dataset = open_good("");
    expect_part(dataset, NNC_PHASE_TRAIN,
                "a.tar/set/dog/n01.0001.jpg 2 1\n"
                "a.tar/set/dog/n01.0002.JPEG 2 2\n"
                "a.tar/set/cat/1.png 1 3\n"
                "a.tar/set/dog/3.jpg 2 3\n"
                "b.tar/set/bird/1.jpg 0 1\n");
    cr_expect_str_eq(nnc_dataset_class_name(dataset, 0), "bird");
    nnc_dataset_close(dataset);
}

static void put_sample(const char *shard, const char *key, const char *label) {
    struct tar_image tar = {0};
    char name[64];
    snprintf(name, sizeof(name), "%s.jpg", key);
    tar_text(&tar, name, key);
    snprintf(name, sizeof(name), "%s.cls", key);
    tar_text(&tar, name, label);
    put_tar(&tar, shard);
}

Test(dataset_tar, shards_are_split_by_their_names_or_folders) {
    const char *train[] = {"train-1.tar", "imagenet1k-train-0001.tar", "x0.tar", "train/x1.tar",
                           "train0.tar"};
    const char *val[] = {"val-1.tar", "imagenet1k-validation-00.tar", "val000.tar", "val/y.tar",
                         "test.tar"};
    for (size_t i = 0; i < 5; i++) {
        char name[128];
        char expected[128];
        snprintf(name, sizeof(name), "set%zu/%s", i, train[i]);
        put_sample(name, "a", "1");
        snprintf(name, sizeof(name), "set%zu/%s", i, val[i]);
        put_sample(name, "b", "3");
        snprintf(name, sizeof(name), "set%zu", i);
        struct nnc_dataset *dataset = open_good(name);
        const char *base = strrchr(train[i], '/');
        snprintf(expected, sizeof(expected), "%s/a.jpg 1 1\n", base ? base + 1 : train[i]);
        expect_part(dataset, NNC_PHASE_TRAIN, expected);
        base = strrchr(val[i], '/');
        snprintf(expected, sizeof(expected), "%s/b.jpg 3 1\n", base ? base + 1 : val[i]);
        expect_part(dataset, NNC_PHASE_VAL, expected);
        cr_expect_eq(dataset->classes, 4);
        nnc_dataset_close(dataset);
    }
}

Test(dataset_tar, a_brace_pattern_names_shards) {
    put_sample("s-008.tar", "a", "0");
    put_sample("s-009.tar", "b", "1");
    put_sample("s-010.tar", "c", "0");
    struct nnc_dataset *dataset = open_good("s-{008..010}.tar");
    expect_part(dataset, NNC_PHASE_TRAIN,
                "s-008.tar/a.jpg 0 1\ns-009.tar/b.jpg 1 1\ns-010.tar/c.jpg 0 1\n");
    nnc_dataset_close(dataset);
    const char *bad[] = {"s-{008..011}.tar", "s-{010..008}.tar", "s-{a..b}.tar", "s-{008..009.tar"};
    for (size_t i = 0; i < 4; i++) {
        cr_expect_lt(open_path(fixture_path(bad[i]), NNC_DATASET_TRAIN, &dataset), 0, "%s", bad[i]);
    }
}

Test(dataset_tar, shards_that_are_links_elsewhere_have_a_common_root) {
    put_sample("a/blob", "a", "0");
    put_sample("ab/1.tar", "c", "0");
    fixture_link("../a/blob", "ab/2.tar");
    struct nnc_dataset *dataset = open_good("ab");
    expect_part(dataset, NNC_PHASE_TRAIN, "ab/1.tar/c.jpg 0 1\na/blob/a.jpg 0 1\n");
    nnc_dataset_close(dataset);
}

Test(dataset_tar, the_cache_is_void_when_a_shard_changes_but_for_its_size_and_its_time) {
    struct stat before;
    put_sample("set/0.tar", "a", "1");
    put_sample("set/1.tar", "b", "0");
    fixture_age();
    nnc_dataset_close(open_good("set"));
    cr_assert_eq(stat(fixture_path("set/0.tar"), &before), 0);
    usleep(50000); /* longer than the grain of the file system's clock */
    struct stat folder;
    cr_assert_eq(stat(fixture_path("set"), &folder), 0);
    put_sample("set/0.tar", "a", "0");
    const struct timespec times[2] = {before.st_atim, before.st_mtim};
    const struct timespec folder_times[2] = {folder.st_atim, folder.st_mtim};
    cr_assert_eq(utimensat(AT_FDCWD, fixture_path("set/0.tar"), times, 0), 0);
    cr_assert_eq(utimensat(AT_FDCWD, fixture_path("set"), folder_times, 0), 0);
    struct nnc_dataset *dataset = open_good("set");
    cr_expect_not(dataset->parts[0].is_from_cache);
    expect_part(dataset, NNC_PHASE_TRAIN, "0.tar/a.jpg 0 1\n1.tar/b.jpg 0 1\n");
    nnc_dataset_close(dataset);
}

Test(dataset_tar, the_cache_is_void_when_a_shard_changes) {
    put_sample("set/0.tar", "a", "0");
    put_sample("set/1.tar", "b", "0");
    fixture_age();
    for (int round = 0; round < 2; round++) {
        struct nnc_dataset *dataset = open_good("set");
        cr_expect_eq(dataset->parts[0].is_from_cache, round > 0);
        nnc_dataset_close(dataset);
    }
    put_sample("set/1.tar", "c", "0");
    struct nnc_dataset *dataset = open_good("set");
    cr_expect_not(dataset->parts[0].is_from_cache);
    expect_part(dataset, NNC_PHASE_TRAIN, "0.tar/a.jpg 0 1\n1.tar/c.jpg 0 1\n");
    nnc_dataset_close(dataset);
    put_sample("set/2.tar", "d", "0");
    dataset = open_good("set");
    cr_expect_eq(dataset->parts[0].samples, 3);
    nnc_dataset_close(dataset);
}

Test(dataset_tar, a_tar_of_train_and_val_folders_is_refused_with_a_remedy) {
    struct tar_image tar = {0};
    tar_text(&tar, "photos/train/dog/1.jpg", "x");
    tar_text(&tar, "photos/val/dog/1.jpg", "x");
    put_tar(&tar, "photos.tar");
    struct nnc_dataset *dataset = NULL;
    int code = open_path(fixture_path("photos.tar"), NNC_DATASET_TRAIN, &dataset);
    cr_expect_eq(code, -NNC_E_USAGE);
    cr_expect_not_null(strstr(nnc_error_text(), "train.tar and val.tar"), "%s", nnc_error_text());
    tar_text(&tar, "photos/train/1.jpg", "x"); /* classes may be called so */
    tar_text(&tar, "photos/test/1.jpg", "x");
    put_tar(&tar, "classes.tar");
    code = open_path(fixture_path("classes.tar"), NNC_DATASET_TRAIN, &dataset);
    cr_assert_eq(code, 0, "%s", nnc_error_text());
    cr_expect_eq(dataset->classes, 2);
    nnc_dataset_close(dataset);
}

Test(dataset_tar, sets_without_images_or_labels_are_refused) {
    struct tar_image tar = {0};
    tar_text(&tar, "a.txt", "x");
    put_tar(&tar, "empty.tar");
    tar_text(&tar, "a.jpg", "x");
    put_tar(&tar, "unlabelled.tar");
    fixture_text("none.tar", "");
    const char *names[] = {"empty.tar", "unlabelled.tar", "none.tar"};
    const char *texts[] = {"no images", "KEY.cls", "no images"};
    for (size_t i = 0; i < 3; i++) {
        struct nnc_dataset *dataset = NULL;
        int code = open_path(fixture_path(names[i]), NNC_DATASET_TRAIN, &dataset);
        cr_expect_eq(code, -NNC_E_FORMAT, "%s", names[i]);
        cr_expect_not_null(strstr(nnc_error_text(), texts[i]), "%s", nnc_error_text());
    }
}

Test(dataset_tar, shards_that_pack_json_tells_of_must_all_be_there) {
    static const char record[] = "{\"format\": 1, \"shard_samples\": 2, \"train\": {\"samples\": "
                                 "5}, \"val\": {\"samples\": 2}}";
    static const struct {
        const char *missing;
        unsigned phases;
        const char *said; /* NULL: it is opened */
    } rows[] = {
        {NULL, NNC_DATASET_TRAIN | NNC_DATASET_VAL, NULL},
        {"set/train-000002.tar", NNC_DATASET_TRAIN, "4 of 5 training samples"},
        {"set/train-000000.tar", NNC_DATASET_TRAIN | NNC_DATASET_VAL, "in 2 of 3 shards"},
        {"set/train-000000.tar", NNC_DATASET_TRAIN | NNC_DATASET_PARTIAL, NULL},
        {"set/train-000000.tar", NNC_DATASET_VAL, NULL},
        {"set/val-000000.tar", NNC_DATASET_VAL, "0 of 2 validation samples"},
        {"set/val-000000.tar", NNC_DATASET_TRAIN | NNC_DATASET_VAL, "`nncoord pack` again"},
        {"set/val-000000.tar", NNC_DATASET_TRAIN, NULL},
    };
    fixture_text("set/pack.json", record);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        put_sample("set/train-000000.tar", "a", "0");
        put_sample("set/train-000001.tar", "b", "0");
        put_sample("set/train-000002.tar", "c", "0");
        put_sample("set/val-000000.tar", "d", "0");
        if (rows[i].missing != NULL) {
            cr_assert_eq(unlink(fixture_path(rows[i].missing)), 0);
        }
        struct nnc_dataset *dataset = NULL;
        int code = open_path(fixture_path("set"), rows[i].phases, &dataset);
        cr_expect_eq(code, rows[i].said == NULL ? 0 : -NNC_E_USAGE, "row %zu: %s", i,
                     nnc_error_text());
        cr_expect(rows[i].said == NULL || strstr(nnc_error_text(), rows[i].said) != NULL,
                  "row %zu: %s", i, nnc_error_text());
        nnc_dataset_close(dataset);
    }
    static const char *const others[] = {"no JSON", "[]", "{}",
                                         "{\"format\": 1, \"shard_samples\": -1}",
                                         "{\"format\": 1, \"shard_samples\": 2, \"train\": 5}"};
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        fixture_text("set/pack.json", others[i]);
        nnc_dataset_close(open_good("set"));
    }
    fixture_text("set/pack.json", record);
    nnc_dataset_close(open_good("set/train-{000000..000001}.tar")); /* these alone were wanted */
}

Test(dataset_tar, a_set_whose_labels_reach_no_image_names_the_first_and_says_why) {
    static const struct {
        const char *members[8]; /* name, text */
        const char *said;
    } rows[] = {
        {{"a.jpg", "x", "b.jpg", "x", "a.cls", "1", "b.cls", "0"},
         "s.tar: a.cls has no image next to it: the members of a sample must follow each other"},
        {{"a.jpg", "x", "a.cls", "dog\n"}, "s.tar: a.cls holds \"dog\", no whole number"},
        {{"a.jpg", "x", "a.cls", "-1"}, "a.cls holds \"-1\""},
        {{"a.jpg", "x", "a.json", "{\"labels\": 1}"}, "a.json has none of \"label\", \"cls\" and"},
        {{"a.jpg", "x", "a.json", "{\"label\": \"dog\"}"}, "a.json has a label that is no whole"},
        {{"a.jpg", "x", "a.json", "1}"}, "a.json is no JSON"},
        {{"u1.img.jpg", "x", "u1.cls", "1"},
         "s.tar: u1.img.jpg is not the image of u1.cls: a key ends at the first dot"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct tar_image tar = {0};
        struct nnc_dataset *dataset = NULL;
        for (size_t k = 0; k < 8 && rows[i].members[k] != NULL; k += 2) {
            tar_text(&tar, rows[i].members[k], rows[i].members[k + 1]);
        }
        put_tar(&tar, "s.tar");
        int code = open_path(fixture_path("s.tar"), NNC_DATASET_TRAIN, &dataset);
        cr_expect_eq(code, -NNC_E_FORMAT, "row %zu", i);
        cr_expect_not_null(strstr(nnc_error_text(), rows[i].said), "row %zu: %s", i,
                           nnc_error_text());
    }
}

Test(dataset_tar, json_may_call_the_label_label_cls_or_class) {
    struct tar_image tar = {0};
    tar_text(&tar, "a.jpg", "x");
    tar_text(&tar, "a.json", "{\"class\": 1}");
    tar_text(&tar, "b.jpg", "x");
    tar_text(&tar, "b.json", "{\"class\": 1, \"cls\": 2}");
    tar_text(&tar, "c.jpg", "x");
    tar_text(&tar, "c.json", "{\"class\": \"dog\", \"cls\": 2, \"label\": 0}");
    put_tar(&tar, "s.tar");
    struct nnc_dataset *dataset = open_good("s.tar");
    expect_part(dataset, NNC_PHASE_TRAIN, "s.tar/a.jpg 1 1\ns.tar/b.jpg 2 1\ns.tar/c.jpg 0 1\n");
    nnc_dataset_close(dataset);
}
