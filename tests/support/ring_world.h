/* SPDX-License-Identifier: Apache-2.0 */
/* What test_ring_process.c and its loader program (ring_loader.c) agree on. */
#ifndef NNC_TESTS_RING_WORLD_H
#define NNC_TESTS_RING_WORLD_H

#include "ipc/ring.h"
#include "ipc/ring_steps.h"

#define WORLD_PIXEL_BYTES (9 * 11 * 3)

static const struct nnc_ring_geometry world_geometry = {
    .batch = 20, .slots = 4, .height = 9, .width = 11, .channels = 3};

/* Descriptors of the loader program. */
enum {
    WORLD_FD_CTL = 3,
    WORLD_FD_DATA = 4,
};

/* A step of the loader itself, between the ring's: half of the pixels are written. */
#define WORLD_STEP_MID_WRITE RING_STEP_COUNT

/* No planned death. */
#define WORLD_STEP_NONE (RING_STEP_COUNT + 1)

#endif
