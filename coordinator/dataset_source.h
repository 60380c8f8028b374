/* SPDX-License-Identifier: Apache-2.0 */
/* Where one part (training or validation) of a data set lies, found by its layout alone: no image,
 * no shard has been opened yet. */
#ifndef NNC_COORDINATOR_DATASET_SOURCE_H
#define NNC_COORDINATOR_DATASET_SOURCE_H

#include "base/config.h"
#include "coordinator/dataset_pool.h"
#include "ipc/index.h"

#include <stddef.h>
#include <stdint.h>

/* kind 0 means: there is none. Zero is such a one. */
struct nnc_data_source {
    enum nnc_index_kind kind;
    char root[NNC_PATH_MAX];   /* absolute, without links; all names are relative to it */
    char folder[NNC_PATH_MAX]; /* FOLDER: where the classes are, "" is the root; no links in it */
    struct nnc_pool names;     /* TAR: shards in order; IDX: images, then labels */
    size_t *name_at;
    size_t name_count, name_capacity;
};

/* What a path offers. Each of the three may be absent. */
struct nnc_layout {
    struct nnc_data_source train;
    struct nnc_data_source val;
    struct nnc_data_source plain; /* a set that does not say which of the two it is */
};

/* Folders that hold a validation set, in the order in which they are looked for; NULL-ended. */
extern const char *const nnc_layout_val_folders[];

/* Find out what lies at path: class folders, a tar shard, a directory of shards, a brace pattern of
 * shards or IDX files. format AUTO takes what fits, others look for their own kind only.
 * Owner:  the caller frees with nnc_layout_finish(), also after an error.
 * Errors: the system's; -NNC_E_USAGE nothing fits, naming what was looked for and what is there. */
int nnc_layout_find(const char *path, enum nnc_data_format format, struct nnc_layout *ret_layout);

/* Free what a layout holds. */
void nnc_layout_finish(struct nnc_layout *layout);

/* Append a name; false when there is no memory. */
bool nnc_data_source_add(struct nnc_data_source *source, const char *name);

/* Name i of a source. */
const char *nnc_data_source_name(const struct nnc_data_source *source, size_t i);

/* Free what a source holds; it is absent afterwards. */
void nnc_data_source_finish(struct nnc_data_source *source);

#endif
