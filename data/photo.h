/* SPDX-License-Identifier: Apache-2.0 */
/* Photo-like images as pure functions of (seed, number): sizes, settings of the encoder and pixels
 * whose statistics are near those of ImageNet, where it matters for reading and decoding. */
#ifndef NNC_DATA_PHOTO_H
#define NNC_DATA_PHOTO_H

#include "data/jpeg_write.h"

#include <stdbool.h>
#include <stdint.h>

/* Everything about an image but its pixels. */
struct nnc_photo {
    uint64_t seed, number;
    uint32_t width, height;
    uint32_t channels; /* 1: grey */
    int quality;       /* libjpeg's scale */
    enum nnc_jpeg_sampling sampling;
};

/* The image with this number, below 2^48. Pure. Source: sizes, qualities, sampling and the share of
 * grey were counted in a random sample of 500 training images of ImageNet. */
struct nnc_photo nnc_photo_plan(uint64_t seed, uint64_t number);

/* Its pixels: u8 (height, width, channels). Pure: the same bits on every machine with IEEE floats.
 * Errors: -ENOMEM. */
int nnc_photo_paint(const struct nnc_photo *photo, uint8_t *pixels);

/* How its pixels are to be encoded. They stay the caller's. */
struct nnc_jpeg_pixels nnc_photo_picture(const struct nnc_photo *photo, const uint8_t *pixels);

#endif
