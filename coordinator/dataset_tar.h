/* SPDX-License-Identifier: Apache-2.0 */
/* Tar shards to an index. */
#ifndef NNC_COORDINATOR_DATASET_TAR_H
#define NNC_COORDINATOR_DATASET_TAR_H

#include "coordinator/dataset_source.h"

/* Read the headers of all shards of source and make their index. When any sample has a KEY.cls or
 * KEY.json with a label, the set is WebDataset's: classes are 0..largest label, named by their
 * numbers, or the lines of a classes.txt beside the first shard. Otherwise the last folder of each
 * image's name is its class, sorted bytewise. Images without a label get -1 and are counted in a
 * warning. Owner: *ret_bytes is the caller's, free() it. Errors: the system's; -NNC_E_FORMAT a
 * damaged shard (with offset), a sample with a duplicate member, no images, no labels of either
 * kind (naming the first member and what is wrong with it), or a classes.txt that is no list of
 * names or lacks one (with its line). */
int nnc_tar_scan(const struct nnc_data_source *source, uint32_t threads, void **ret_bytes,
                 size_t *ret_size);

#endif
