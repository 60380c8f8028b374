/* SPDX-License-Identifier: Apache-2.0 */
/* Decoding for fuzz targets that compare pixels. */
#ifndef NNC_TESTS_FUZZ_PIXELS_TARGET_H
#define NNC_TESTS_FUZZ_PIXELS_TARGET_H

#include "loader/image.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Pixels u8 (box.height, box.width, 3) of a part of an image. */
struct pixels_target {
    bool whole; /* all of it */
    uint8_t
        part[4]; /* else left, top, width and height of the wanted part in 256ths of what is left */
    struct nnc_box box;
    uint32_t width, height; /* of the image */
    uint32_t warnings;
    uint8_t *data; /* free() it */
};

/* The box that part[] means in an image of this size; never empty, always inside. */
struct nnc_box pixels_target_box(const uint8_t part[4], uint32_t width, uint32_t height);

/* Decode bytes (copied to a block of exactly their size and the slack) into *target, whose part[]
 * the caller set. Returns nnc_image_decode()'s code; -E2BIG for images too large to try many. */
int pixels_target_decode(const uint8_t *bytes, size_t size, bool whole,
                         const struct nnc_image_slice *slice, struct pixels_target *target);

/* Abort unless the part has the pixels that the whole has there. */
void pixels_target_compare(const struct pixels_target *part, const struct pixels_target *whole);

#endif
