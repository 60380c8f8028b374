/* SPDX-License-Identifier: Apache-2.0 */
/* Inner loops of the resizer: one table for each set of CPU instructions, all giving the same bits.
 */
#ifndef NNC_LOADER_RESIZE_KERNELS_H
#define NNC_LOADER_RESIZE_KERNELS_H

#include "base/config.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Weights are integers in units of 2^-NNC_RESIZE_BITS. */
#define NNC_RESIZE_BITS 22

/* Kernels may take so many weights at a time. */
#define NNC_RESIZE_GROUP 4u

/* Filter weights along one axis: output i = sum over k < taps[i] of weights[i * stride + k] *
 * input[first[i]
 * + k]. */
struct nnc_taps {
    uint32_t count;   /* output pixels */
    uint32_t stride;  /* weights kept for each output pixel, a multiple of NNC_RESIZE_GROUP */
    uint32_t *first;  /* (count) first input pixel, not decreasing */
    uint32_t *taps;   /* (count) weights used, 1..stride */
    int32_t *weights; /* (count, stride); 0 from taps to the end of its group */
    void *packed;     /* the same as the kernels' pack() laid it out, aligned to 64 */
    uint32_t quads;   /* of packed, for each group of outputs; 0: packed is not used */
};

/* One row of the table of kernels. */
struct nnc_resize_kernels {
    enum nnc_simd simd; /* what a CPU has to have; AVX512 with BW, VL, VBMI and VNNI */
    /* Resample a row of 1 or 3 channels: ret_out u8 (taps->count, channels). Reads up to
     * NNC_IMAGE_ROW_SLACK bytes behind the last input pixel. */
    void (*across1)(const uint8_t *row, const struct nnc_taps *taps, uint8_t *ret_out);
    void (*across3)(const uint8_t *row, const struct nnc_taps *taps, uint8_t *ret_out);
    /* Bytes that taps take when laid out for across1 (channels 1) or across3 (3), 0 when they
     * cannot be; and doing it, into taps->packed, with taps->quads. NULL: nothing is laid out. */
    size_t (*packed_bytes)(const struct nnc_taps *taps, uint32_t channels);
    void (*pack)(struct nnc_taps *taps, uint32_t channels);
    /* Mix rows: ret_out[x] = sum over k < taps of weights[k] * rows[k][x], x < count. */
    void (*down)(const uint8_t *const *rows, const int32_t *weights, uint32_t taps, size_t count,
                 uint8_t *ret_out);
};

/* Compiled from the same source with different flags. */
extern const struct nnc_resize_kernels nnc_resize_kernels_c;
extern const struct nnc_resize_kernels nnc_resize_kernels_avx2;

/* Of a source of its own. */
extern const struct nnc_resize_kernels nnc_resize_kernels_avx512;

#endif
