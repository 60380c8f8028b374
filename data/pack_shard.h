/* SPDX-License-Identifier: Apache-2.0 */
/* One shard of a data set that is being packed. */
#ifndef NNC_DATA_PACK_SHARD_H
#define NNC_DATA_PACK_SHARD_H

#include "coordinator/dataset.h"
#include "data/pack_image.h"

#include <stdbool.h>
#include <stdint.h>

/* What was done since the last call. */
struct nnc_pack_step {
    uint64_t samples, bad;
    uint64_t bytes_before; /* of the images' files, bad ones too */
    uint64_t bytes_after;  /* of the images in the shard, without the archive around them */
    bool was_there;        /* made by an earlier run */
};

struct nnc_pack_shard {
    const struct nnc_dataset_part *part;
    uint64_t first, count; /* samples of the part */
    const char *path;      /* without ".tar" */
    const struct nnc_pack_recipe *recipe;
    bool verify; /* read back and compare */
    const char *shm_dir;
    /* Called after each image, from the thread that makes the shard. */
    void (*on_step)(void *context, const struct nnc_pack_step *step);
    void *context;
};

/* Make the shard, or leave it as it is when it is there, and verify it when asked to. Bad images
 * are logged and left out. A shard that was there must have the size that its index tells of.
 * Errors: of reading the source, which end the run rather than make an image bad unless its bytes
 * are what is wrong; of writing the shard; -NNC_E_STOPPED; -NNC_E_FORMAT the shard that
 * was there is damaged, with the remedy; it does not show what its sources show, or has not each
 * good one once, naming shard and member. Nothing half-written stays. */
int nnc_pack_shard_make(const struct nnc_pack_shard *shard);

#endif
