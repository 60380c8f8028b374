/* SPDX-License-Identifier: Apache-2.0 */
/* What lies between the backend and its GPUs: the driver, CUDA's libraries, a container's walls. */
#ifndef NNC_GPU_DRIVER_H
#define NNC_GPU_DRIVER_H

#include "workers/backend.h"

/* How many GPUs CUDA sees.
 * Errors: -NNC_E_HARDWARE: none, with the cause (no driver, a container without its GPUs, a driver
 *         that is too old, no device) and CUDA's own words behind it. */
int nnc_driver_count(int *ret_count);

/* Versions of the driver and of the libraries that this process runs with. */
void nnc_driver_versions(struct nnc_device_versions *ret_versions);

/* The command that starts a container of this kind with its GPUs; NULL: this is none. `root` is put
 * in front of the paths that tell: "" for this machine. The text lives as long as the program. */
const char *nnc_driver_container(const char *root);

#endif
