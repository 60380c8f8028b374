/* SPDX-License-Identifier: Apache-2.0 */
/* The images in one tar shard with what can be their labels. */
#ifndef NNC_COORDINATOR_DATASET_SHARD_H
#define NNC_COORDINATOR_DATASET_SHARD_H

#include "coordinator/dataset_pool.h"
#include "coordinator/dataset_tar_reader.h"

/* A label no file gave. */
#define NNC_SHARD_NO_LABEL (-1)

/* Room for a member's name and what is wrong with it. */
#define NNC_SHARD_FAULT_BYTES 512

struct nnc_shard_image {
    size_t name;   /* member, in the pool */
    size_t folder; /* last folder of the name, in the pool; NNC_SHARD_NO_FOLDER: none */
    uint64_t offset, size;
    uint32_t head;  /* as in struct nnc_index_sample */
    int32_t label;  /* from KEY.cls or KEY.json, or NNC_SHARD_NO_LABEL */
    bool is_sample; /* the image of a WebDataset sample; others count in class folders only */
};

#define NNC_SHARD_NO_FOLDER SIZE_MAX

/* Zero is a ready, empty one. */
struct nnc_shard {
    struct nnc_pool names;
    struct nnc_shard_image *images;
    size_t image_count, image_capacity;
    uint64_t lost_labels;                   /* that are there and reach no image */
    char first_lost[NNC_SHARD_FAULT_BYTES]; /* which member and why, printable; "" when none */
    char first_bare[256]; /* the first KEY.json that has no label at all, likewise */
    char duplicate[256];  /* the first member that is twice in a sample, "" when none */
    bool lacks_end;       /* of nnc_tar_has_end(): members may be missing */
    int32_t label_max;    /* largest label; NNC_SHARD_NO_LABEL: no sample has one */
};

/* Read all headers of a shard. Labels are decided by the caller, who sees all shards.
 * Owner:  the caller frees with nnc_shard_finish(), also after an error.
 * Errors: of nnc_tar_next(); -ENOMEM. */
int nnc_shard_scan(const struct nnc_tar_source *source, struct nnc_shard *ret_shard);

/* Free what a shard holds. */
void nnc_shard_finish(struct nnc_shard *shard);

#endif
