/* SPDX-License-Identifier: Apache-2.0 */
/* The directory that a data set is packed into: what belongs to it, and whether it may be gone on
 * with. */
#ifndef NNC_DATA_PACK_DIR_H
#define NNC_DATA_PACK_DIR_H

#include "base/config.h"
#include "coordinator/dataset.h"

#include <stdint.h>

struct nnc_pack_dir;

/* Whether the directory `to`, which need not exist, and the data set `from` lie apart: shards among
 * class folders would be taken for all of the set. A path that is not there is left to others.
 * Errors: -NNC_E_USAGE one lies in the other. */
int nnc_pack_dir_apart(const char *from, const char *to);

/* Make or go on with the directory: lock it, compare DST/pack.json with this data set and recipe or
 * write it, write DST/classes.txt, remove what a killed run left half-written.
 * Errors: -NNC_E_USAGE the directory holds something else, belongs to another data set or recipe,
 * cannot be made or is in use; -NNC_E_CHECKPOINT the device is full. */
int nnc_pack_dir_open(const char *path, const struct nnc_dataset *dataset,
                      const struct nnc_config *config, struct nnc_pack_dir **ret_dir);

/* Path of a shard without its ending, "DST/train-000000". Errors: -NNC_E_USAGE it is too long. */
int nnc_pack_dir_shard(const struct nnc_pack_dir *dir, const char *part, uint64_t number,
                       char ret_path[NNC_PATH_MAX]);

/* Look for archives in the directory that are none of the pack's: shards 0..counts[i]-1 of
 * parts[i]. Whoever reads the set would read them too. Errors: -NNC_E_USAGE naming one. */
int nnc_pack_dir_foreign(const struct nnc_pack_dir *dir, const char *const parts[2],
                         const uint64_t counts[2]);

/* Unlock and free. Takes NULL. */
void nnc_pack_dir_close(struct nnc_pack_dir *dir);

#endif
