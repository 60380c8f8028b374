/* SPDX-License-Identifier: Apache-2.0 */
/* The writer of the bytes that ipc/index.c reads: five growing arrays, joined at the end.
 *
 * Invariants: offset 0 of the strings is "", so a zero name is an empty one; each table is an array
 * of the row type of ipc/index.h, so joining is copying; a builder that failed once stays failed.
 *
 * It does not judge what it is given: nnc_index_open() does, and whoever builds an index opens it
 * before use. Source: ipc/index.h, "Bytes". */
#include "coordinator/index_build.h"

#include "base/checked.h"
#include "base/err.h"

#include <assert.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

/* A growing array of equal rows. */
struct table {
    char *rows;
    size_t count;
    size_t capacity;
    size_t row_bytes;
};

struct nnc_index_builder {
    struct nnc_index_header header;
    struct table samples, files, classes, watched, strings;
    bool failed;
    uint64_t last_name; /* string of the newest sample */
};

static void table_append(struct nnc_index_builder *builder, struct table *table, const void *rows,
                         size_t count);
static uint64_t add_string(struct nnc_index_builder *builder, const char *text);

struct nnc_index_builder *nnc_index_builder_create(enum nnc_index_kind kind) {
    struct nnc_index_builder *builder = calloc(1, sizeof(*builder));
    if (builder == NULL) {
        return NULL;
    }
    builder->header.magic = NNC_INDEX_MAGIC;
    builder->header.version = NNC_INDEX_VERSION;
    builder->header.kind = kind;
    builder->samples.row_bytes = sizeof(struct nnc_index_sample);
    builder->files.row_bytes = sizeof(struct nnc_index_file);
    builder->classes.row_bytes = sizeof(uint64_t);
    builder->watched.row_bytes = sizeof(struct nnc_index_watch);
    builder->strings.row_bytes = 1;
    add_string(builder, "");
    return builder;
}

void nnc_index_builder_destroy(struct nnc_index_builder *builder) {
    if (builder == NULL) {
        return;
    }
    free(builder->samples.rows);
    free(builder->files.rows);
    free(builder->classes.rows);
    free(builder->watched.rows);
    free(builder->strings.rows);
    free(builder);
}

void nnc_index_builder_add_class(struct nnc_index_builder *builder, const char *name) {
    if (builder != NULL) {
        uint64_t row = add_string(builder, name);
        table_append(builder, &builder->classes, &row, 1);
    }
}

uint32_t nnc_index_builder_add_file(struct nnc_index_builder *builder, const char *name,
                                    uint64_t size, int64_t mtime_ns) {
    if (builder == NULL) {
        return 0;
    }
    struct nnc_index_file row = {
        .name = add_string(builder, name), .size = size, .mtime_ns = mtime_ns};
    assert(builder->files.count < UINT32_MAX);
    uint32_t number = (uint32_t)builder->files.count;
    table_append(builder, &builder->files, &row, 1);
    return number;
}

void nnc_index_builder_add_watch(struct nnc_index_builder *builder, const char *name,
                                 const struct nnc_index_watch *state) {
    if (builder != NULL) {
        struct nnc_index_watch row = *state;
        row.name = add_string(builder, name);
        table_append(builder, &builder->watched, &row, 1);
    }
}

void nnc_index_builder_add_sample(struct nnc_index_builder *builder,
                                  const struct nnc_index_entry *entry) {
    if (builder == NULL || builder->failed) {
        return;
    }
    /* Raw samples all have the name of their file. */
    if (strcmp(builder->strings.rows + builder->last_name, entry->name) != 0) {
        builder->last_name = add_string(builder, entry->name);
    }
    bool huge = entry->size >= NNC_INDEX_SIZE_HUGE;
    struct nnc_index_sample row = {
        .offset = entry->offset,
        .name = builder->last_name,
        .size = huge ? NNC_INDEX_SIZE_HUGE : (uint32_t)entry->size,
        .file = entry->file,
        .label = entry->label,
        .head = huge ? 0 : entry->head,
    };
    builder->header.data_bytes += huge ? 0 : row.size;
    table_append(builder, &builder->samples, &row, 1);
}

void nnc_index_builder_set_shape(struct nnc_index_builder *builder, uint32_t height, uint32_t width,
                                 uint32_t channels) {
    if (builder != NULL) {
        assert(builder->header.kind == NNC_INDEX_IDX);
        builder->header.height = height;
        builder->header.width = width;
        builder->header.channels = channels;
    }
}

int nnc_index_builder_finish(struct nnc_index_builder *builder, void **ret_bytes,
                             size_t *ret_size) {
    if (builder == NULL || builder->failed) {
        return nnc_fail(-ENOMEM, "no memory for the index of the data set");
    }
    const struct table *order[] = {&builder->samples, &builder->files, &builder->classes,
                                   &builder->watched, &builder->strings};
    size_t tables = sizeof(order) / sizeof(order[0]);
    /* No overflow: each table is in memory now. */
    size_t size = sizeof(builder->header);
    for (size_t i = 0; i < tables; i++) {
        size += order[i]->count * order[i]->row_bytes;
    }
    char *bytes = malloc(size);
    if (bytes == NULL) {
        return nnc_fail(-ENOMEM, "no memory for an index of %zu bytes", size);
    }
    size_t at = sizeof(builder->header);
    for (size_t i = 0; i < tables; i++) {
        size_t table_bytes = order[i]->count * order[i]->row_bytes;
        if (table_bytes > 0) {
            memcpy(bytes + at, order[i]->rows, table_bytes);
        }
        at += table_bytes;
    }
    struct nnc_index_header *header = &builder->header;
    header->total_bytes = size;
    header->samples = builder->samples.count;
    header->files = builder->files.count;
    header->classes = builder->classes.count;
    header->watched = builder->watched.count;
    header->string_bytes = builder->strings.count;
    header->hash = XXH3_64bits(bytes + sizeof(*header), size - sizeof(*header));
    memcpy(bytes, header, sizeof(*header));
    *ret_bytes = bytes;
    *ret_size = size;
    return 0;
}

static void table_append(struct nnc_index_builder *builder, struct table *table, const void *rows,
                         size_t count) {
    if (builder->failed) {
        return;
    }
    size_t needed = table->count + count;
    if (needed > table->capacity) {
        size_t capacity = needed + table->capacity / 2 + 64;
        size_t bytes;
        char *grown =
            nnc_size_mul(capacity, table->row_bytes, &bytes) ? NULL : realloc(table->rows, bytes);
        if (grown == NULL) {
            builder->failed = true;
            return;
        }
        table->rows = grown;
        table->capacity = capacity;
    }
    memcpy(table->rows + table->count * table->row_bytes, rows, count * table->row_bytes);
    table->count = needed;
}

/* Append text with its zero and return its offset; "" is offset 0 once that is there. */
static uint64_t add_string(struct nnc_index_builder *builder, const char *text) {
    if (text[0] == '\0' && builder->strings.count > 0) {
        return 0;
    }
    uint64_t offset = builder->strings.count;
    table_append(builder, &builder->strings, text, strlen(text) + 1);
    return offset;
}
