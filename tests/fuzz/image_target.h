/* SPDX-License-Identifier: Apache-2.0 */
/* What the fuzz targets of image formats share. */
#ifndef NNC_TESTS_FUZZ_IMAGE_TARGET_H
#define NNC_TESTS_FUZZ_IMAGE_TARGET_H

#include <stddef.h>
#include <stdint.h>

/* Decode the bytes as an image of whatever kind, whole and in part, through the resizer into a
 * small sample. Aborts when a good image leaves rows out or a code is not one of the documented
 * ones. */
void image_target_run(const uint8_t *data, size_t bytes);

#endif
