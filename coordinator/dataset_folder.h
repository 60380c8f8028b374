/* SPDX-License-Identifier: Apache-2.0 */
/* Class folders to an index: torchvision's ImageFolder. */
#ifndef NNC_COORDINATOR_DATASET_FOLDER_H
#define NNC_COORDINATOR_DATASET_FOLDER_H

#include "coordinator/dataset_source.h"
#include "coordinator/dataset_walk.h"

/* Read the class folders of source and make their index. Classes are the folders' names, sorted
 * bytewise; samples are in torchvision's order.
 * Owner:  *ret_bytes is the caller's, free() it.
 * Errors: the system's; -NNC_E_FORMAT a class without images, or no class at all. */
int nnc_folder_scan(const struct nnc_data_source *source, uint32_t threads, void **ret_bytes,
                    size_t *ret_size);

/* Fill in the sizes of all files of *walk, on several threads. */
int nnc_walk_measure_all(const struct nnc_walk_root *root, struct nnc_walk *walk, uint32_t threads);

#endif
