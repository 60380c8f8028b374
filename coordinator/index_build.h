/* SPDX-License-Identifier: Apache-2.0 */
/* Putting the bytes of an index (ipc/index.h) together in memory. One thread.
 *
 * Failure is sticky: the add functions never report it, nnc_index_builder_finish() does. So a
 * scanner is a loop of plain calls and one check at its end. */
#ifndef NNC_COORDINATOR_INDEX_BUILD_H
#define NNC_COORDINATOR_INDEX_BUILD_H

#include "ipc/index.h"

struct nnc_index_builder;

/* One sample as the scanner found it; `size` may exceed what a row can hold, it is then recorded as
 * NNC_INDEX_SIZE_HUGE. */
struct nnc_index_entry {
    const char *name; /* path relative to the root, or tar member; copied */
    uint64_t offset;
    uint64_t size;
    uint32_t file; /* as nnc_index_builder_add_file() returned it; 0 for folders */
    int32_t label;
    uint32_t head; /* as in struct nnc_index_sample */
};

/* A new, empty index of a kind. NULL when there is no memory, which finish and the add functions
 * take as an index that failed. */
struct nnc_index_builder *nnc_index_builder_create(enum nnc_index_kind kind);

/* Free the builder; takes NULL. */
void nnc_index_builder_destroy(struct nnc_index_builder *builder);

/* Append a class; the first one is class 0. */
void nnc_index_builder_add_class(struct nnc_index_builder *builder, const char *name);

/* Append a file and return its number for nnc_index_entry.file. size in bytes. */
uint32_t nnc_index_builder_add_file(struct nnc_index_builder *builder, const char *name,
                                    uint64_t size, int64_t mtime_ns);

/* Append a directory or file whose change voids the index. state: all but its name. */
void nnc_index_builder_add_watch(struct nnc_index_builder *builder, const char *name,
                                 const struct nnc_index_watch *state);

/* Append a sample. A name equal to the one before is stored once. */
void nnc_index_builder_add_sample(struct nnc_index_builder *builder,
                                  const struct nnc_index_entry *entry);

/* Say what raw samples look like; only for NNC_INDEX_IDX.
 * Shape: (height, width, channels). */
void nnc_index_builder_set_shape(struct nnc_index_builder *builder, uint32_t height, uint32_t width,
                                 uint32_t channels);

/* Make the index's bytes.
 * Owner: *ret_bytes is the caller's, free() it; aligned to 16.
 * Errors: -ENOMEM, also for a failure of any call before. */
int nnc_index_builder_finish(struct nnc_index_builder *builder, void **ret_bytes, size_t *ret_size);

#endif
