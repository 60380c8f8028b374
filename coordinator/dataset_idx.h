/* SPDX-License-Identifier: Apache-2.0 */
/* MNIST's IDX files to an index. */
#ifndef NNC_COORDINATOR_DATASET_IDX_H
#define NNC_COORDINATOR_DATASET_IDX_H

#include "coordinator/dataset_source.h"

/* An index of raw samples and the memory their pixels are in, when the file was zipped. */
struct nnc_idx_result {
    void *bytes; /* of the index */
    size_t size;
    int raw_fd; /* memfd with the whole inflated images file; -1: the file itself is read */
    size_t raw_bytes;
};

/* The two open files of a set. */
struct nnc_idx_files {
    const char *root; /* for errors */
    const char *images_name;
    const char *labels_name;
    int images_fd;
    int labels_fd;
    const char *shm_dir; /* for zipped images where memfds are forbidden; NULL or "": none */
};

/* Open the two files of source, check them against each other and make their index. Classes are
 * 0..largest label, named by their numbers. Zipped images are inflated into a memfd.
 * Owner:  bytes (free) and raw_fd (close) are the caller's.
 * Errors: the system's; -NNC_E_FORMAT naming file and fault. */
int nnc_idx_scan(const struct nnc_data_source *source, const char *shm_dir,
                 struct nnc_idx_result *ret_result);

/* The same of files that are open already; their descriptors stay the caller's. */
int nnc_idx_read(const struct nnc_idx_files *files, struct nnc_idx_result *ret_result);

#endif
