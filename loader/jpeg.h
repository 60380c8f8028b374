/* SPDX-License-Identifier: Apache-2.0 */
/* JPEG through libjpeg(-turbo): baseline, extended and progressive; grey, RGB, YCbCr, CMYK, YCCK.
 */
#ifndef NNC_LOADER_JPEG_H
#define NNC_LOADER_JPEG_H

#include "loader/image.h"

/* A progressive file may repeat its pixels in this many scans, and pixels times scans is bounded
 * too. */
#define NNC_JPEG_MAX_SCANS       100
#define NNC_JPEG_MAX_SCAN_PIXELS 2000000000ull

struct nnc_jpeg;

/* 0 when a file of so many scans of width x height pixels may be read on, else -NNC_E_FORMAT with
 * the text. */
int nnc_jpeg_check_scans(int scans, uint32_t width, uint32_t height);

/* A decoder to be used for one image after the other. Errors: -ENOMEM. */
int nnc_jpeg_create(struct nnc_jpeg **ret_jpeg);

/* Free it. Takes NULL. */
void nnc_jpeg_destroy(struct nnc_jpeg *jpeg);

/* 1 when the bytes begin as a JPEG, else 0. */
int nnc_jpeg_sniff(const uint8_t *bytes, size_t size);

/* As nnc_image_decode(), for JPEG. Pixels equal libjpeg's accurate integer DCT with fancy
 * upsampling; CMYK is taken as Adobe writes it (inverted), as PIL does. Math:   R = clip(n -
 * round(C n / 255)), n = 255 - K, likewise G of M, B of Y. Source: libjpeg.txt of
 * libjpeg-turbo 2.1; PIL's Convert.c for the colours. */
int nnc_jpeg_decode(struct nnc_jpeg *jpeg, const struct nnc_image_job *job,
                    struct nnc_image_report *ret_report);

/* As nnc_image_find_slice(), for restart-indexed JPEG. */
int nnc_jpeg_find_slice(const struct nnc_image_part *head, uint64_t total,
                        const struct nnc_image_asker *asker, struct nnc_image_range *ret_range);

#endif
