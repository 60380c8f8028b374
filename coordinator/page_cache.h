/* SPDX-License-Identifier: Apache-2.0 */
/* The data set's files in the kernel's page cache: dropping them, so that a run reads from the
 * storage. Needs no privileges and touches no other files. */
#ifndef NNC_COORDINATOR_PAGE_CACHE_H
#define NNC_COORDINATOR_PAGE_CACHE_H

#include "coordinator/dataset.h"

#include <stdint.h>

struct nnc_page_cache {
    uint64_t files, bytes;   /* looked at */
    uint64_t resident_bytes; /* still in memory afterwards, in whole pages */
    uint64_t hidden_bytes;   /* of files of which the kernel does not tell us what is in memory */
    uint64_t memory_bytes;   /* of raw pixels that were inflated into memory: never cold */
};

/* Drop all files of one part. What is dirty is written first, since only clean pages can go. Names,
 * sizes and directories stay cached: the kernel lets only root drop them.
 * Errors: the system's, naming the file. */
int nnc_page_cache_drop(const struct nnc_dataset_part *part, struct nnc_page_cache *ret_report);

#endif
