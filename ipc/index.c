/* SPDX-License-Identifier: Apache-2.0 */
/* Opening and naming for the index of a data set (layout in ipc/index.h).
 *
 * The bytes come from a cache file or another process, so opening them is a parse of hostile input:
 *   1. header: magic, version, kind, reserved fields zero, shape fits the kind;
 *   2. tables: the five counts, multiplied with overflow checks, must fill the given size exactly;
 *   3. hash of everything after the header;
 *   4. each file, class, watch and sample row: offsets, labels, sizes and names in range.
 * A hash is no proof against malice (whoever writes the bytes can also write the hash), so step 4
 * trusts nothing that step 3 passed.
 *
 * Invariants after success: every string offset is < string_bytes and the last string byte is zero;
 * no name is absolute, empty where one is needed, longer than NAME_BYTES_MAX or has a ".."
 * component; a sample of a tar or IDX file lies inside the size its file had.
 *
 * It does not look at the file system: whether the files still are what the index says is found out
 * by the reader of a sample and by the watch table's owner (coordinator/dataset_cache.c). */
#include "ipc/index.h"

#include "base/checked.h"
#include "base/err.h"
#include "base/text.h"

#include <assert.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <xxhash.h>

/* Longest name in an index, without its zero: what Linux takes as a path. */
#define NAME_BYTES_MAX 4095u

/* Rows and widths of raw images are bounded so that a sample's size cannot overflow. */
#define RAW_SIDE_MAX 65535u

static int check_header(const struct nnc_index_header *header, size_t size);
static int place_tables(struct nnc_index *index, size_t size);
static int check_files(const struct nnc_index *index);
static int check_classes(const struct nnc_index *index);
static int check_watched(const struct nnc_index *index);
static int check_samples(const struct nnc_index *index);

int nnc_index_open(const void *bytes, size_t size, struct nnc_index *ret_index) {
    assert(bytes != NULL && ret_index != NULL);
    assert(((uintptr_t)bytes & 7) == 0);
    struct nnc_index index = {.header = bytes};
    int code = check_header(index.header, size);
    if (code >= 0) {
        code = place_tables(&index, size);
    }
    if (code >= 0) {
        code = check_files(&index);
    }
    if (code >= 0) {
        code = check_classes(&index);
    }
    if (code >= 0) {
        code = check_watched(&index);
    }
    if (code >= 0) {
        code = check_samples(&index);
    }
    if (code >= 0) {
        *ret_index = index;
    }
    return code;
}

const char *nnc_index_sample_path(const struct nnc_index *index, uint64_t sample, char *buffer,
                                  size_t buffer_bytes) {
    assert(sample < index->header->samples);
    const struct nnc_index_sample *row = &index->samples[sample];
    const char *name = index->strings + row->name;
    char path[2 * (NAME_BYTES_MAX + 1) + 32];
    switch (index->header->kind) {
    case NNC_INDEX_TAR: {
        const char *shard = index->strings + index->files[row->file].name;
        snprintf(path, sizeof(path), "%s/%s", shard, name);
        break;
    }
    case NNC_INDEX_IDX:
        snprintf(path, sizeof(path), "%s[%" PRIu64 "]", name[0] != '\0' ? name : "images", sample);
        break;
    default:
        snprintf(path, sizeof(path), "%s", name);
        break;
    }
    nnc_text_escape(path, buffer, buffer_bytes);
    return buffer;
}

const char *nnc_index_class_name(const struct nnc_index *index, uint64_t class_number) {
    assert(class_number < index->header->classes);
    return index->strings + index->classes[class_number];
}

static bool shape_fits_kind(const struct nnc_index_header *header) {
    if (header->kind != NNC_INDEX_IDX) {
        return header->height == 0 && header->width == 0 && header->channels == 0;
    }
    return header->height >= 1 && header->height <= RAW_SIDE_MAX && header->width >= 1 &&
           header->width <= RAW_SIDE_MAX && (header->channels == 1 || header->channels == 3);
}

static bool is_zero(const uint8_t *bytes, size_t count) {
    uint8_t seen = 0;
    for (size_t i = 0; i < count; i++) {
        seen |= bytes[i];
    }
    return seen == 0;
}

static int check_header(const struct nnc_index_header *header, size_t size) {
    if (size < sizeof(*header)) {
        return nnc_fail(-NNC_E_FORMAT, "index: %zu bytes are shorter than its header", size);
    }
    if (header->magic != NNC_INDEX_MAGIC || header->version != NNC_INDEX_VERSION) {
        return nnc_fail(-NNC_E_FORMAT, "index: not an index of version %u", NNC_INDEX_VERSION);
    }
    if (header->total_bytes != size) {
        return nnc_fail(-NNC_E_FORMAT, "index: says %" PRIu64 " bytes, has %zu",
                        header->total_bytes, size);
    }
    if (header->kind < NNC_INDEX_FOLDER || header->kind > NNC_INDEX_IDX) {
        return nnc_fail(-NNC_E_FORMAT, "index: unknown kind %" PRIu32, header->kind);
    }
    if (!shape_fits_kind(header)) {
        return nnc_fail(-NNC_E_FORMAT, "index: kind %" PRIu32 " with images of %ux%ux%u",
                        header->kind, header->height, header->width, header->channels);
    }
    if (header->reserved != 0 || !is_zero(header->pad, sizeof(header->pad))) {
        return nnc_fail(-NNC_E_FORMAT, "index: reserved header bytes are not zero");
    }
    return 0;
}

/* Move *at past a table of count rows; false when it does not fit the size. */
static bool take_table(size_t *at, size_t size, uint64_t count, size_t row_bytes) {
    size_t table_bytes;
    size_t end;
    if (nnc_size_mul(count, row_bytes, &table_bytes) || nnc_size_add(*at, table_bytes, &end) ||
        end > size) {
        return false;
    }
    *at = end;
    return true;
}

static int place_tables(struct nnc_index *index, size_t size) {
    const struct nnc_index_header *header = index->header;
    const char *base = (const char *)header;
    size_t samples = sizeof(*header);
    size_t files = samples;
    bool fits = take_table(&files, size, header->samples, sizeof(*index->samples));
    size_t classes = files;
    fits = fits && take_table(&classes, size, header->files, sizeof(*index->files));
    size_t watched = classes;
    fits = fits && take_table(&watched, size, header->classes, sizeof(*index->classes));
    size_t strings = watched;
    fits = fits && take_table(&strings, size, header->watched, sizeof(*index->watched));
    size_t end = strings;
    fits = fits && take_table(&end, size, header->string_bytes, 1);
    if (!fits || end != size) {
        return nnc_fail(-NNC_E_FORMAT, "index: its tables do not fill its %zu bytes", size);
    }
    if (header->string_bytes == 0 || base[size - 1] != '\0') {
        return nnc_fail(-NNC_E_FORMAT, "index: the last string does not end");
    }
    if (XXH3_64bits(base + sizeof(*header), size - sizeof(*header)) != header->hash) {
        return nnc_fail(-NNC_E_FORMAT, "index: hash differs, the bytes are damaged");
    }
    index->samples = (const void *)(base + samples);
    index->files = (const void *)(base + files);
    index->classes = (const void *)(base + classes);
    index->watched = (const void *)(base + watched);
    index->strings = base + strings;
    return 0;
}

static bool has_parent_component(const char *name) {
    for (const char *at = name; (at = strstr(at, "..")) != NULL; at += 2) {
        bool starts = at == name || at[-1] == '/';
        if (starts && (at[2] == '/' || at[2] == '\0')) {
            return true;
        }
    }
    return false;
}

/* The string at an offset, or NULL when it is out of range or longer than any path. */
static const char *string_at(const struct nnc_index *index, uint64_t offset) {
    if (offset >= index->header->string_bytes) {
        return NULL;
    }
    const char *text = index->strings + offset;
    return strnlen(text, NAME_BYTES_MAX + 1) <= NAME_BYTES_MAX ? text : NULL;
}

/* As string_at(), and the text stays beneath the root when it is used as a path. */
static const char *path_at(const struct nnc_index *index, uint64_t offset) {
    const char *path = string_at(index, offset);
    return path == NULL || path[0] == '/' || has_parent_component(path) ? NULL : path;
}

static int check_files(const struct nnc_index *index) {
    const struct nnc_index_header *header = index->header;
    if (header->kind == NNC_INDEX_FOLDER && header->files != 0) {
        return nnc_fail(-NNC_E_FORMAT, "index: a folder index has a file table");
    }
    for (uint64_t i = 0; i < header->files; i++) {
        const char *path = path_at(index, index->files[i].name);
        if (path == NULL || (path[0] == '\0' && header->kind != NNC_INDEX_IDX)) {
            return nnc_fail(-NNC_E_FORMAT, "index: name of file %" PRIu64 " is not a path", i);
        }
        if (index->files[i].size > INT64_MAX) {
            return nnc_fail(-NNC_E_FORMAT, "index: size of file %" PRIu64 " is negative", i);
        }
    }
    return 0;
}

static int check_classes(const struct nnc_index *index) {
    if (index->header->classes > NNC_INDEX_CLASSES_MAX) {
        return nnc_fail(-NNC_E_FORMAT, "index: %" PRIu64 " classes", index->header->classes);
    }
    for (uint64_t i = 0; i < index->header->classes; i++) {
        const char *name = string_at(index, index->classes[i]);
        if (name == NULL || name[0] == '\0') {
            return nnc_fail(-NNC_E_FORMAT, "index: class %" PRIu64 " has no name", i);
        }
    }
    return 0;
}

static int check_watched(const struct nnc_index *index) {
    for (uint64_t i = 0; i < index->header->watched; i++) {
        if (path_at(index, index->watched[i].name) == NULL) {
            return nnc_fail(-NNC_E_FORMAT, "index: name of watch %" PRIu64 " is not a path", i);
        }
    }
    return 0;
}

/* What a sample breaks, or NULL. */
static const char *sample_fault(const struct nnc_index *index,
                                const struct nnc_index_sample *sample) {
    const struct nnc_index_header *header = index->header;
    if (sample->label < -1 || sample->label >= (int64_t)header->classes) {
        return "label out of range";
    }
    if (sample->head != 0 && (header->kind != NNC_INDEX_TAR || sample->head >= sample->size)) {
        return "head is not a part of it";
    }
    if (header->kind == NNC_INDEX_FOLDER) {
        const char *path = path_at(index, sample->name);
        bool is_path = path != NULL && path[0] != '\0';
        return !is_path                                   ? "name is not a path"
               : sample->offset != 0 || sample->file != 0 ? "offset in a folder"
                                                          : NULL;
    }
    if (string_at(index, sample->name) == NULL) {
        return "name out of range";
    }
    if (sample->file >= header->files) {
        return "file number out of range";
    }
    uint64_t raw_bytes = (uint64_t)header->height * header->width * header->channels;
    if (header->kind == NNC_INDEX_IDX &&
        (sample->size != raw_bytes || raw_bytes >= NNC_INDEX_SIZE_HUGE)) {
        return "wrong size";
    }
    uint64_t file_bytes = index->files[sample->file].size;
    uint64_t size = sample->size == NNC_INDEX_SIZE_HUGE ? 0 : sample->size;
    bool inside = sample->offset <= file_bytes && size <= file_bytes - sample->offset;
    return inside ? NULL : "bytes outside its file";
}

static int check_samples(const struct nnc_index *index) {
    uint64_t data_bytes = 0;
    for (uint64_t i = 0; i < index->header->samples; i++) {
        const char *fault = sample_fault(index, &index->samples[i]);
        if (fault != NULL) {
            return nnc_fail(-NNC_E_FORMAT, "index: sample %" PRIu64 ": %s", i, fault);
        }
        uint32_t size = index->samples[i].size;
        data_bytes += size == NNC_INDEX_SIZE_HUGE ? 0 : size;
    }
    if (data_bytes != index->header->data_bytes) {
        return nnc_fail(-NNC_E_FORMAT, "index: sum of sample sizes differs from the header");
    }
    return 0;
}

uint64_t nnc_index_content_hash(const struct nnc_index *index) {
    const struct nnc_index_header *header = index->header;
    const uint64_t shape[] = {header->samples, header->classes, header->height, header->width,
                              header->channels};
    uint64_t hash = XXH3_64bits(shape, sizeof(shape));
    for (uint64_t class_number = 0; class_number < header->classes; class_number++) {
        const char *name = nnc_index_class_name(index, class_number);
        hash = XXH3_64bits_withSeed(name, strlen(name), hash);
    }
    for (uint64_t i = 0; i < header->samples; i++) {
        const struct nnc_index_sample *sample = &index->samples[i];
        const uint32_t numbers[] = {sample->size, (uint32_t)sample->label};
        const char *name = header->kind == NNC_INDEX_IDX ? "" : index->strings + sample->name;
        hash = XXH3_64bits_withSeed(numbers, sizeof(numbers), hash);
        hash = XXH3_64bits_withSeed(name, strlen(name), hash);
    }
    return hash;
}
