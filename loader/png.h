/* SPDX-License-Identifier: Apache-2.0 */
/* PNG through libspng: every colour type and bit depth, interlaced or not. */
#ifndef NNC_LOADER_PNG_H
#define NNC_LOADER_PNG_H

#include "loader/image.h"

struct nnc_png;

/* Buffers for one image after the other. Errors: -ENOMEM. */
int nnc_png_create(struct nnc_png **ret_png);

/* Free it. Takes NULL. */
void nnc_png_destroy(struct nnc_png *png);

/* 1 when the bytes begin as a PNG, else 0. */
int nnc_png_sniff(const uint8_t *bytes, size_t size);

/* As nnc_image_decode(), for PNG. 16 bits keep the high byte, palettes are looked up, alpha and
 * transparent colours are dropped without blending. A wrong CRC anywhere before the last pixel is
 * an error. Source: PNG specification, second edition; libspng 0.7. */
int nnc_png_decode(struct nnc_png *png, const struct nnc_image_job *job,
                   struct nnc_image_report *ret_report);

#endif
