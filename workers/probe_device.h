/* SPDX-License-Identifier: Apache-2.0 */
/* What selftest and bench gpu work on: the backend of the configuration, the devices that --gpus
 * chooses, and the precisions. They run in a trainer that no coordinator started. */
#ifndef NNC_WORKERS_PROBE_DEVICE_H
#define NNC_WORKERS_PROBE_DEVICE_H

#include "base/config.h"
#include "ipc/device.h"
#include "workers/backend.h"
#include "workers/selftest_case.h"

struct nnc_probe {
    const struct nnc_config *config; /* borrowed */
    const struct nnc_backend_ops *ops;
    bool on_device; /* else one CPU, and info is zero */
    uint32_t count; /* devices; 1 on a CPU */
    uint32_t ranks; /* that would train together: devices, or --cpu-ranks */
    struct nnc_device_info info[NNC_MAX_RANKS];
    char title[NNC_MAX_RANKS][128]; /* "GPU 0: NVIDIA H100 80GB HBM3, 79 GiB, sm_90" */
    char cache_dir[NNC_PATH_MAX];   /* "": none */
};

/* Find the backend and choose the devices. *config must outlive *ret_probe.
 * Errors: -NNC_E_USAGE in the words of driver or loader. */
int nnc_probe_open(const struct nnc_config *config, struct nnc_probe *ret_probe);

/* The values of --amp to try on a device, at most 2: what --amp says; for auto fp32 first, then
 * the type that training takes. Returns how many. */
uint32_t nnc_probe_amps(const struct nnc_probe *probe, uint32_t number, int32_t ret_amps[2]);

/* What computes with that --amp. */
enum nnc_precision nnc_probe_precision(const struct nnc_probe *probe, uint32_t number, int32_t amp);

/* How to open the backend on a device; zero on a CPU. */
struct nnc_device_params nnc_probe_params(const struct nnc_probe *probe, uint32_t number,
                                          int32_t amp);

#endif
