/* SPDX-License-Identifier: Apache-2.0 */
/* Uncompressed images: PNM (P5 grey, P6 RGB, 8 bits) and BMP (8-bit palette, 24 and 32 bits). */
#ifndef NNC_LOADER_BITMAP_H
#define NNC_LOADER_BITMAP_H

#include "loader/image.h"

struct nnc_bitmap;

/* A row buffer for one image after the other. Errors: -ENOMEM. */
int nnc_bitmap_create(struct nnc_bitmap **ret_bitmap);

/* Free it. Takes NULL. */
void nnc_bitmap_destroy(struct nnc_bitmap *bitmap);

/* 1 when the bytes begin as PNM or BMP, else 0. */
int nnc_bitmap_sniff(const uint8_t *bytes, size_t size);

/* As nnc_image_decode(), for PNM and BMP. Compressed BMP and maximum values other than 255 are
 * refused. Source: netpbm's ppm(5), pgm(5); the BITMAPINFOHEADER of Windows. */
int nnc_bitmap_decode(struct nnc_bitmap *bitmap, const struct nnc_image_job *job,
                      struct nnc_image_report *ret_report);

/* As nnc_image_find_slice(), for PNM. */
int nnc_bitmap_find_slice(const struct nnc_image_part *head, uint64_t total,
                          const struct nnc_image_asker *asker, struct nnc_image_range *ret_range);

#endif
