/* SPDX-License-Identifier: Apache-2.0 */
/* Writing of JPEG files through libjpeg(-turbo). */
#ifndef NNC_DATA_JPEG_WRITE_H
#define NNC_DATA_JPEG_WRITE_H

#include "data/photo.h"

#include <stddef.h>
#include <stdint.h>

/* Encode pixels, u8 (height, width, channels), as baseline JPEG with the accurate integer DCT: one
 * version of the library gives the same bytes on every machine.
 * Owner:  *ret_bytes is the caller's, to be freed. Errors: -ENOMEM, the only way this can fail. */
int nnc_jpeg_write(const struct nnc_photo *photo, const uint8_t *pixels, uint8_t **ret_bytes,
                   size_t *ret_size);

#endif
