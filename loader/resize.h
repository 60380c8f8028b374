/* SPDX-License-Identifier: Apache-2.0 */
/* From the rows of an image to a sample in the ring: crop, bilinear resize with antialiasing,
 * window, zero padding and horizontal flip in one streaming pass. */
#ifndef NNC_LOADER_RESIZE_H
#define NNC_LOADER_RESIZE_H

#include "base/config.h"
#include "loader/image.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What becomes of an image, as geometry alone:
 *
 *   image -- crop --> crop.width x crop.height -- resize --> width x height -- window --> out
 *
 * The window's place may be negative and it may reach over the edges: pixels outside are 0. */
struct nnc_view {
    struct nnc_box crop;    /* inside the image; the filter does not look outside of it */
    uint32_t width, height; /* resized to; equal to the crop's: no resampling on that axis */
    int32_t left, top;      /* of the window, in resized pixels */
    uint32_t out_width, out_height;
    bool flip; /* the window's columns from right to left */
};

struct nnc_resizer;

/* A resizer for one image after the other; its buffers grow to the largest it has seen.
 * simd: instructions that the inner loops use. Errors: -ENOMEM; -NNC_E_USAGE this CPU lacks them.
 */
int nnc_resizer_create(enum nnc_simd simd, struct nnc_resizer **ret_resizer);

/* Free it. Takes NULL. */
void nnc_resizer_destroy(struct nnc_resizer *resizer);

/* Which part of the image a view is made of: what nnc_resizer_begin() answers, without planning. */
struct nnc_box nnc_resizer_need(const struct nnc_view *view);

/* Begin an image: plan the view, clear what it does not cover, and say which part of the image is
 * needed. Shape:  out u8 (view->out_height, view->out_width, channels), channels 1 or 3, rows
 * packed. Math:   PIL's: weights max(0, 1 - |x|) over a support that grows with the reduction, in
 * doubles, normalised, then rounded to 22 bits; one axis to u8, then the other to u8. Bit for bit
 * that of Image.crop(...).resize(..., BILINEAR).crop(window) of Pillow 13, within one grey level of
 * older ones. Owner:  out stays the caller's and is written until the last needed row was given.
 * Errors: -ENOMEM.
 * Source: Pillow, "Concepts: filters" and the behaviour of Image.resize. */
int nnc_resizer_begin(struct nnc_resizer *resizer, const struct nnc_view *view, uint32_t channels,
                      uint8_t *out, struct nnc_box *ret_need);

/* Give rows of the needed rectangle, top to bottom, each once; see struct nnc_image_sink's rows. */
void nnc_resizer_rows(struct nnc_resizer *resizer, uint32_t first, uint32_t count,
                      const uint8_t *pixels, size_t stride);

/* 1 when every output row is written, 0 while rows are missing. */
int nnc_resizer_done(const struct nnc_resizer *resizer);

#endif
