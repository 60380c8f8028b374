/* SPDX-License-Identifier: Apache-2.0 */
/* The index of a data set: what the builder writes, the reader reads; damaged bytes never get in.
 */
#include "ipc/index.h"

#include "base/err.h"
#include "coordinator/index_build.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

struct blob {
    void *bytes;
    size_t size;
};

static struct blob finish(struct nnc_index_builder *builder) {
    struct blob blob;
    cr_assert_eq(nnc_index_builder_finish(builder, &blob.bytes, &blob.size), 0);
    nnc_index_builder_destroy(builder);
    return blob;
}

static struct blob folder_blob(void) {
    struct nnc_index_builder *builder = nnc_index_builder_create(NNC_INDEX_FOLDER);
    nnc_index_builder_add_class(builder, "cat");
    nnc_index_builder_add_class(builder, "dog");
    nnc_index_builder_add_watch(builder, "", &(struct nnc_index_watch){.mtime_ns = 5});
    nnc_index_builder_add_watch(builder, "cat", &(struct nnc_index_watch){.mtime_ns = 6});
    nnc_index_builder_add_sample(
        builder, &(struct nnc_index_entry){.name = "cat/a..b.jpg", .size = 10, .label = 0});
    nnc_index_builder_add_sample(
        builder, &(struct nnc_index_entry){.name = "dog/b\n.jpg", .size = 20, .label = 1});
    nnc_index_builder_add_sample(
        builder, &(struct nnc_index_entry){.name = "dog/c.jpg", .size = 1ull << 40, .label = -1});
    return finish(builder);
}

static struct blob tar_blob(void) {
    struct nnc_index_builder *builder = nnc_index_builder_create(NNC_INDEX_TAR);
    nnc_index_builder_add_class(builder, "0");
    uint32_t file = nnc_index_builder_add_file(builder, "a.tar", 4096, 7);
    nnc_index_builder_add_sample(
        builder,
        &(struct nnc_index_entry){.name = "k.jpg", .offset = 512, .size = 100, .file = file});
    return finish(builder);
}

static struct blob idx_blob(void) {
    struct nnc_index_builder *builder = nnc_index_builder_create(NNC_INDEX_IDX);
    nnc_index_builder_add_class(builder, "0");
    uint32_t file = nnc_index_builder_add_file(builder, "", 16 + 2 * 12, 0);
    nnc_index_builder_set_shape(builder, 3, 4, 1);
    for (uint64_t i = 0; i < 2; i++) {
        nnc_index_builder_add_sample(
            builder, &(struct nnc_index_entry){
                         .name = "images", .offset = 16 + 12 * i, .size = 12, .file = file});
    }
    return finish(builder);
}

/* Open a copy that ends exactly where the memory ends, so that ASan sees a read beyond it. */
static int open_copy(const void *bytes, size_t size, struct nnc_index *ret_index) {
    void *copy = malloc(size > 0 ? size : 1);
    cr_assert_not_null(copy);
    memcpy(copy, bytes, size);
    int code = nnc_index_open(copy, size, ret_index);
    if (code >= 0) {
        char path[64];
        for (uint64_t i = 0; i < ret_index->header->samples; i++) {
            nnc_index_sample_path(ret_index, i, path, sizeof(path));
        }
    }
    free(copy);
    return code;
}

static void rehash(struct blob *blob) {
    struct nnc_index_header *header = blob->bytes;
    const char *rest = (const char *)blob->bytes + sizeof(*header);
    header->hash = XXH3_64bits(rest, blob->size - sizeof(*header));
}

Test(index, what_was_built_is_read_back) {
    struct blob blob = folder_blob();
    struct nnc_index index;
    cr_assert_eq(nnc_index_open(blob.bytes, blob.size, &index), 0);
    cr_assert_eq(index.header->samples, 3);
    cr_assert_eq(index.header->data_bytes, 30);
    cr_assert_eq(index.samples[2].size, NNC_INDEX_SIZE_HUGE);
    cr_assert_eq(index.samples[2].label, -1);
    cr_assert_str_eq(nnc_index_class_name(&index, 1), "dog");
    cr_assert_str_eq(index.strings + index.watched[1].name, "cat");
    cr_assert_eq(index.watched[1].mtime_ns, 6);
    free(blob.bytes);
}

Test(index, sample_paths_are_as_users_know_them) {
    struct {
        struct blob blob;
        uint64_t sample;
        size_t room;
        const char *path;
    } rows[] = {
        {folder_blob(), 0, 64, "cat/a..b.jpg"}, {folder_blob(), 1, 64, "dog/b\\x0a.jpg"},
        {folder_blob(), 0, 8, "cat/..."},       {tar_blob(), 0, 64, "a.tar/k.jpg"},
        {idx_blob(), 1, 64, "images[1]"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct nnc_index index;
        char buffer[64];
        cr_assert_eq(nnc_index_open(rows[i].blob.bytes, rows[i].blob.size, &index), 0);
        const char *path = nnc_index_sample_path(&index, rows[i].sample, buffer, rows[i].room);
        cr_expect_str_eq(path, rows[i].path, "row %zu: %s", i, path);
        free(rows[i].blob.bytes);
    }
}

static uint64_t hash_of(const struct blob *blob) {
    struct nnc_index index;
    cr_assert_eq(nnc_index_open(blob->bytes, blob->size, &index), 0);
    return nnc_index_content_hash(&index);
}

/* A folder of one file, as it was at a time. */
static struct blob one_file(const char *name, uint32_t size, int32_t label, int64_t time) {
    struct nnc_index_builder *builder = nnc_index_builder_create(NNC_INDEX_FOLDER);
    nnc_index_builder_add_class(builder, "cat");
    nnc_index_builder_add_class(builder, "dog");
    nnc_index_builder_add_watch(builder, "", &(struct nnc_index_watch){.mtime_ns = time});
    nnc_index_builder_add_sample(
        builder, &(struct nnc_index_entry){.name = name, .size = size, .label = label});
    return finish(builder);
}

Test(index, copies_of_a_data_set_have_one_hash_and_other_sets_have_others) {
    struct blob blobs[] = {one_file("cat/a.jpg", 10, 0, 1), one_file("cat/a.jpg", 10, 0, 2),
                           one_file("cat/b.jpg", 10, 0, 1), one_file("cat/a.jpg", 11, 0, 1),
                           one_file("cat/a.jpg", 10, 1, 1)};
    cr_expect_eq(hash_of(&blobs[1]), hash_of(&blobs[0]), "copied later");
    for (size_t i = 2; i < sizeof(blobs) / sizeof(blobs[0]); i++) {
        cr_expect_neq(hash_of(&blobs[i]), hash_of(&blobs[0]), "row %zu", i);
    }
    for (size_t i = 0; i < sizeof(blobs) / sizeof(blobs[0]); i++) {
        free(blobs[i].bytes);
    }
}

Test(index, each_truncation_is_refused) {
    struct blob blobs[] = {folder_blob(), tar_blob(), idx_blob()};
    for (size_t i = 0; i < 3; i++) {
        for (size_t size = 0; size < blobs[i].size; size++) {
            struct nnc_index index;
            cr_assert_eq(open_copy(blobs[i].bytes, size, &index), -NNC_E_FORMAT, "%zu/%zu", i,
                         size);
        }
        free(blobs[i].bytes);
    }
}

Test(index, each_flipped_byte_is_refused) {
    struct blob blobs[] = {folder_blob(), tar_blob(), idx_blob()};
    for (size_t i = 0; i < 3; i++) {
        unsigned char *bytes = blobs[i].bytes;
        for (size_t at = 0; at < blobs[i].size; at++) {
            struct nnc_index index;
            bytes[at] ^= 0x41;
            cr_assert_eq(open_copy(bytes, blobs[i].size, &index), -NNC_E_FORMAT, "%zu/%zu", i, at);
            bytes[at] ^= 0x41;
        }
        free(blobs[i].bytes);
    }
}

/* The hash is right here, as an attacker would make it: what gets through must still be safe to
 * use. */
Test(index, forged_bytes_with_a_right_hash_do_no_harm) {
    struct blob blobs[] = {folder_blob(), tar_blob(), idx_blob()};
    const unsigned char values[] = {0x00, 0x01, 0x2f, 0x2e, 0x7f, 0x80, 0xff};
    for (size_t i = 0; i < 3; i++) {
        unsigned char *bytes = blobs[i].bytes;
        for (size_t at = 0; at < blobs[i].size; at++) {
            unsigned char kept = bytes[at];
            for (size_t v = 0; v < sizeof(values); v++) {
                struct nnc_index index;
                bytes[at] = values[v];
                rehash(&blobs[i]);
                open_copy(bytes, blobs[i].size, &index);
            }
            bytes[at] = kept;
        }
        free(blobs[i].bytes);
    }
}

enum forged_field {
    SAMPLE_OFFSET,
    SAMPLE_SIZE,
    SAMPLE_FILE,
    SAMPLE_NAME,
    SAMPLE_LABEL,
    FILE_NAME,
    FILE_SIZE,
    CLASS_NAME,
    CLASS_COUNT,
};

static void forge(struct blob *blob, enum forged_field field, uint64_t value) {
    struct nnc_index_header *header = blob->bytes;
    char *at = (char *)blob->bytes + sizeof(*header);
    struct nnc_index_sample *sample = (void *)at;
    struct nnc_index_file *file = (void *)(at + header->samples * sizeof(*sample));
    uint64_t *classes = (void *)((char *)file + header->files * sizeof(*file));
    switch (field) {
    case SAMPLE_OFFSET:
        sample->offset = value;
        break;
    case SAMPLE_SIZE:
        header->data_bytes += value - sample->size;
        sample->size = (uint32_t)value;
        break;
    case SAMPLE_FILE:
        sample->file = (uint32_t)value;
        break;
    case SAMPLE_NAME:
        sample->name = value;
        break;
    case SAMPLE_LABEL:
        sample->label = (int32_t)value;
        break;
    case FILE_NAME:
        file->name = value;
        break;
    case FILE_SIZE:
        file->size = value;
        break;
    case CLASS_NAME:
        classes[0] = value;
        break;
    case CLASS_COUNT:
        header->classes = value;
        break;
    }
    rehash(blob);
}

Test(index, each_number_out_of_range_is_refused) {
    struct {
        struct blob blob;
        enum forged_field field;
        uint64_t value;
    } rows[] = {
        {tar_blob(), SAMPLE_OFFSET, 4096 - 99},
        {tar_blob(), SAMPLE_OFFSET, UINT64_MAX - 50},
        {tar_blob(), SAMPLE_SIZE, 4096 - 511},
        {tar_blob(), SAMPLE_FILE, 1},
        {tar_blob(), SAMPLE_NAME, UINT64_MAX},
        {tar_blob(), SAMPLE_LABEL, 1},
        {tar_blob(), SAMPLE_LABEL, (uint64_t)-2},
        {tar_blob(), FILE_NAME, 0},
        {tar_blob(), FILE_NAME, 1000},
        {tar_blob(), FILE_SIZE, 600},
        {tar_blob(), FILE_SIZE, UINT64_MAX},
        {tar_blob(), CLASS_NAME, 0},
        {tar_blob(), CLASS_NAME, 1000},
        {tar_blob(), CLASS_COUNT, UINT64_MAX / 8},
        {idx_blob(), SAMPLE_SIZE, 11},
        {idx_blob(), FILE_SIZE, 15},
        {folder_blob(), SAMPLE_OFFSET, 1},
        {folder_blob(), SAMPLE_FILE, 1},
        {folder_blob(), SAMPLE_NAME, 0},
        {folder_blob(), SAMPLE_LABEL, 2},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct nnc_index index;
        forge(&rows[i].blob, rows[i].field, rows[i].value);
        int code = nnc_index_open(rows[i].blob.bytes, rows[i].blob.size, &index);
        cr_expect_eq(code, -NNC_E_FORMAT, "row %zu was accepted", i);
        free(rows[i].blob.bytes);
    }
}

Test(index, a_last_string_without_an_end_is_refused) {
    struct blob blob = folder_blob();
    struct nnc_index index;
    ((char *)blob.bytes)[blob.size - 1] = 'x';
    rehash(&blob);
    cr_expect_eq(open_copy(blob.bytes, blob.size, &index), -NNC_E_FORMAT);
    free(blob.bytes);
}

Test(index, names_that_leave_the_root_are_refused) {
    const char *names[] = {"/etc/passwd", "..", "../x.jpg", "a/../../x.jpg", "a/.."};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        struct nnc_index_builder *builder = nnc_index_builder_create(NNC_INDEX_FOLDER);
        nnc_index_builder_add_sample(builder,
                                     &(struct nnc_index_entry){.name = names[i], .label = -1});
        struct blob blob = finish(builder);
        struct nnc_index index;
        cr_expect_eq(nnc_index_open(blob.bytes, blob.size, &index), -NNC_E_FORMAT, "%s", names[i]);
        free(blob.bytes);
    }
}

Test(index, random_bytes_behind_a_right_header_do_no_harm) {
    struct blob blob = tar_blob();
    unsigned char *bytes = blob.bytes;
    uint64_t state = 88172645463325252ull;
    for (int round = 0; round < 20000; round++) {
        for (size_t at = sizeof(struct nnc_index_header); at < blob.size; at++) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            bytes[at] = (unsigned char)((state & 0xff00) == 0 ? state : bytes[at]);
        }
        bytes[blob.size - 1] = 0;
        rehash(&blob);
        struct nnc_index index;
        open_copy(bytes, blob.size, &index);
    }
    free(blob.bytes);
}
