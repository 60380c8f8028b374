/* SPDX-License-Identifier: Apache-2.0 */
/* Which GPUs a run takes: --gpus against what there is. Pure. */
#ifndef NNC_IPC_GPUS_H
#define NNC_IPC_GPUS_H

#include "base/config.h"
#include "ipc/device.h"

#include <stdbool.h>
#include <stdint.h>

/* Whether the configuration asks for GPUs at all. */
bool nnc_gpus_wanted(const struct nnc_config *config);

/* The numbers of the devices to use in ret_ordinals[NNC_MAX_RANKS], in the order of ranks; returns
 * how many, >= 1. The configuration asks for some.
 * Errors: -NNC_E_USAGE: none can be used (in the words of driver or loader), more are asked for
 *         than there are, --backend is another one; with the line that would work. */
int nnc_gpus_choose(const struct nnc_config *config, const struct nnc_devices *devices,
                    int32_t *ret_ordinals);

/* The device with this number, or NULL. It stays the list's. */
const struct nnc_device_info *nnc_gpus_find(const struct nnc_devices *devices, int32_t ordinal);

/* "NVIDIA H100 80GB HBM3, 79 GiB, sm_90": what people want to know of one. */
void nnc_gpus_describe(const struct nnc_device_info *device, char *ret_text, size_t bytes);

#endif
