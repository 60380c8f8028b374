/* SPDX-License-Identifier: Apache-2.0 */
/* Whether all shards are there that `nncoord pack` was to write into a directory. */
#ifndef NNC_COORDINATOR_DATASET_PACKED_H
#define NNC_COORDINATOR_DATASET_PACKED_H

/* Compare the shards in the directory path with the pack.json beside them, where there is one.
 * phases: NNC_DATASET_* of the parts that matter. Any other path, and a pack.json that pack did not
 * write, is as good as whole: nobody says then how much there must be.
 * Errors: -NNC_E_USAGE shards are missing, with how many samples and the remedy. */
int nnc_packed_check(const char *path, unsigned phases);

#endif
