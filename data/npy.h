/* SPDX-License-Identifier: Apache-2.0 */
/* The head of NumPy's array files. */
#ifndef NNC_DATA_NPY_H
#define NNC_DATA_NPY_H

#include <stddef.h>
#include <stdint.h>

/* Longest header, a multiple of 64. */
#define NNC_NPY_HEADER_MAX 192

/* Write the header of format 1.0 for a C-ordered uint8 array (N, H, W, C); the array's bytes follow
 * it directly. Returns its length, a multiple of 64.
 * Bytes:  0   6  "\x93NUMPY"
 *         6   2  1, 0: the version
 *         8   2  length of the rest, little endian
 *         10  -  a Python dictionary as text, filled up with spaces, then a newline
 * Source: NumPy, numpy.lib.format. */
size_t nnc_npy_header(const uint64_t shape[4], uint8_t ret_header[NNC_NPY_HEADER_MAX]);

#endif
