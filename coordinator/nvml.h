/* SPDX-License-Identifier: Apache-2.0 */
/* What NVIDIA's management library says of GPUs: load, memory, power and errors. The library comes
 * with the driver and is loaded when it is asked for; without it a run goes on and knows less.
 *
 * Source: NVML API reference. Its few types are declared here anew, because nvml.h comes with the
 * CUDA toolkit and not with the driver. */
#ifndef NNC_COORDINATOR_NVML_H
#define NNC_COORDINATOR_NVML_H

#include <stddef.h>
#include <stdint.h>

struct nnc_nvml;

/* Of all watched GPUs together. */
struct nnc_gpu_reading {
    uint32_t count;       /* GPUs that answered; 0: nothing is known */
    double busy;          /* share of time in which a kernel ran, mean; 0..1 */
    uint64_t memory_used; /* bytes, of the fullest one */
    double watts;         /* sum */
};

/* A critical error that a driver reported. */
struct nnc_gpu_xid {
    uint32_t gpu;    /* place among the watched ones */
    uint64_t number; /* NVIDIA's "Xid" number; 79: fell off the bus */
};

/* Load the library and start it. Owner: nnc_nvml_close().
 * Errors: -ENOTSUP with the loader's or the library's words. */
int nnc_nvml_open(struct nnc_nvml **ret_nvml);

/* Takes NULL. */
void nnc_nvml_close(struct nnc_nvml *nvml);

/* Watch the GPU at this PCI address, "0000:3b:00.0". Errors: -ENOTSUP with the library's words. */
int nnc_nvml_watch(struct nnc_nvml *nvml, const char *bus);

/* Read all watched GPUs. What one of them does not tell is left out. Takes some milliseconds. */
void nnc_nvml_read(const struct nnc_nvml *nvml, struct nnc_gpu_reading *ret_reading);

/* The next error that was not yet told: 1, or 0. Never waits. */
int nnc_nvml_next_xid(const struct nnc_nvml *nvml, struct nnc_gpu_xid *ret_xid);

/* Version of the driver, "580.95.05"; "" when it is not told. */
const char *nnc_nvml_driver(const struct nnc_nvml *nvml);

#endif
