/* SPDX-License-Identifier: Apache-2.0 */
/* Inner loops of the resizer, compiled once for each set of CPU instructions: the build defines
 * NNC_KERNELS (name of the table), NNC_KERNELS_NAME and NNC_KERNELS_CPU and gives the flags.
 *
 * 1. All arithmetic is in 32-bit integers, so every build of this file gives the same bits: weights
 * sum to about 2^22, pixels are below 2^8, and half a unit is added before the shift, which fits 31
 * bits.
 * 2. Rounded weights may sum to a little more than 2^22: results are cut at 255.
 * 3. A pixel of three channels is read as four bytes; the fourth lane is thrown away. Rows have
 * slack behind them for the last read.
 *
 * Source: Pillow's 8-bit resampling, for the number of bits and the rounding. */
#include "loader/resize_kernels.h"

#include <string.h>

typedef int32_t lanes __attribute__((vector_size(16)));
typedef uint8_t bytes4 __attribute__((vector_size(4)));

static const int32_t half = 1 << (NNC_RESIZE_BITS - 1);

static uint8_t round_cut(int32_t sum) {
    int32_t value = sum >> NNC_RESIZE_BITS;
    return (uint8_t)(value > 255 ? 255 : value);
}

static void across1(const uint8_t *row, const struct nnc_taps *taps, uint8_t *ret_out) {
    for (uint32_t i = 0; i < taps->count; i++) {
        const uint8_t *pixel = row + taps->first[i];
        const int32_t *weights = taps->weights + (size_t)i * taps->stride;
        int32_t sum = half;
        for (uint32_t k = 0; k < taps->taps[i]; k++) {
            sum += weights[k] * pixel[k];
        }
        ret_out[i] = round_cut(sum);
    }
}

static void across3(const uint8_t *row, const struct nnc_taps *taps, uint8_t *ret_out) {
    for (uint32_t i = 0; i < taps->count; i++) {
        const uint8_t *pixel = row + (size_t)taps->first[i] * 3;
        const int32_t *weights = taps->weights + (size_t)i * taps->stride;
        lanes sum = {half, half, half, half};
        for (uint32_t k = 0; k < taps->taps[i]; k++) {
            bytes4 packed;
            memcpy(&packed, pixel + (size_t)k * 3, 4);
            sum += __builtin_convertvector(packed, lanes) * weights[k];
        }
        for (int c = 0; c < 3; c++) {
            ret_out[(size_t)i * 3 + (size_t)c] = round_cut(sum[c]);
        }
    }
}

enum {
    BLOCK = 32, /* output bytes at a time: their sums stay in registers */
};

static void down(const uint8_t *const *rows, const int32_t *weights, uint32_t taps, size_t count,
                 uint8_t *ret_out) {
    size_t x = 0;
    for (; x + BLOCK <= count; x += BLOCK) {
        int32_t sum[BLOCK];
        for (int i = 0; i < BLOCK; i++) {
            sum[i] = half;
        }
        for (uint32_t k = 0; k < taps; k++) {
            const uint8_t *row = rows[k] + x;
            for (int i = 0; i < BLOCK; i++) {
                sum[i] += weights[k] * row[i];
            }
        }
        for (int i = 0; i < BLOCK; i++) {
            ret_out[x + (size_t)i] = round_cut(sum[i]);
        }
    }
    for (; x < count; x++) {
        int32_t sum = half;
        for (uint32_t k = 0; k < taps; k++) {
            sum += weights[k] * rows[k][x];
        }
        ret_out[x] = round_cut(sum);
    }
}

const struct nnc_resize_kernels NNC_KERNELS = {
    .name = NNC_KERNELS_NAME,
    .cpu = NNC_KERNELS_CPU,
    .across1 = across1,
    .across3 = across3,
    .down = down,
};
