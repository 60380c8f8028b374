/* SPDX-License-Identifier: Apache-2.0 */
/* The accelerators of a machine, as `nncoord-trainer --devices` finds them: it alone loads what
 * talks to them. */
#ifndef NNC_IPC_DEVICE_H
#define NNC_IPC_DEVICE_H

#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

#define NNC_DEVICES_MAX 64

/* One device, as found. */
struct nnc_device_info {
    uint32_t ordinal;    /* number on this machine, as the driver counts */
    uint32_t capability; /* 10 * major + minor: 90 */
    uint64_t memory;     /* bytes */
    uint32_t bf16;       /* 1: --amp bf16 can be had; fp16 always can */
    uint32_t reserved;
    double peak_flops; /* of 16-bit matrix products with fp32 sums, dense, a second; 0: unknown */
    char bus[16];      /* "0000:3b:00.0": its PCI address */
    char name[64];     /* "NVIDIA H100 80GB HBM3" */
};

/* Versions of what talks to the devices, 10000 * major + 100 * minor + patch; 0: there is none. */
struct nnc_device_versions {
    uint32_t driver; /* the CUDA that it supports */
    uint32_t runtime, cudnn, nccl;
};

/* What `nncoord-trainer --devices` answers on NNC_FD_CHANNEL (a pipe there). */
struct nnc_devices {
    uint32_t count;
    uint32_t loaded; /* 1: the plug-in for devices was loaded; 0: why says why not */
    struct nnc_device_versions versions;
    struct nnc_device_info item[NNC_DEVICES_MAX];
    char why[NNC_ERROR_TEXT_MAX]; /* none were found: the cause, with the words of driver or loader
                                   */
};

#endif
