/* SPDX-License-Identifier: Apache-2.0 */
/* Inner loops of the resizer, compiled once for each set of CPU instructions: the build defines
 * NNC_KERNELS (name of the table) and NNC_KERNELS_SIMD and gives the flags.
 *
 * 1. All arithmetic is in 32-bit integers, so every build of this file gives the same bits: weights
 * sum to about 2^22, pixels are below 2^8, and half a unit is added before the shift, which fits 31
 * bits.
 * 2. Rounded weights may sum to a little more than 2^22: results are cut at 255.
 * 3. With AVX2 four taps of three channels are mixed at once: rows have slack behind them for the
 * last load, and unused weights of a group of four are zero.
 *
 * Source: Pillow's 8-bit resampling, for the number of bits and the rounding. */
#include "loader/resize_kernels.h"

#include <string.h>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

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

#if defined(__AVX2__)

/* Four taps at a time: 16 bytes hold five pixels, of which four are spread over two vectors of two
 * pixels each, every channel in a lane of its own; the fourth lane of a pixel is not looked at. */
static __m128i mix4(const uint8_t *pixel, const int32_t *weights, uint32_t taps) {
    const __m256i low_pixels =
        _mm256_setr_epi8(0, -1, -1, -1, 1, -1, -1, -1, 2, -1, -1, -1, -1, -1, -1, -1, 3, -1, -1, -1,
                         4, -1, -1, -1, 5, -1, -1, -1, -1, -1, -1, -1);
    const __m256i high_pixels =
        _mm256_setr_epi8(6, -1, -1, -1, 7, -1, -1, -1, 8, -1, -1, -1, -1, -1, -1, -1, 9, -1, -1, -1,
                         10, -1, -1, -1, 11, -1, -1, -1, -1, -1, -1, -1);
    const __m256i low_weights = _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1);
    const __m256i high_weights = _mm256_setr_epi32(2, 2, 2, 2, 3, 3, 3, 3);
    __m256i low = _mm256_setzero_si256(), high = low;
    for (uint32_t k = 0; k < taps; k += 4) {
        __m256i bytes = _mm256_broadcastsi128_si256(
            _mm_loadu_si128((const __m128i *)(const void *)(pixel + (size_t)k * 3)));
        __m256i four = _mm256_broadcastsi128_si256(
            _mm_loadu_si128((const __m128i *)(const void *)(weights + k)));
        low = _mm256_add_epi32(low,
                               _mm256_mullo_epi32(_mm256_shuffle_epi8(bytes, low_pixels),
                                                  _mm256_permutevar8x32_epi32(four, low_weights)));
        high = _mm256_add_epi32(
            high, _mm256_mullo_epi32(_mm256_shuffle_epi8(bytes, high_pixels),
                                     _mm256_permutevar8x32_epi32(four, high_weights)));
    }
    __m256i both = _mm256_add_epi32(low, high);
    return _mm_add_epi32(_mm256_castsi256_si128(both), _mm256_extracti128_si256(both, 1));
}

/* Sum of output pixel i in its first three lanes. */
static __m128i mix_pixel(const uint8_t *row, const struct nnc_taps *taps, uint32_t i) {
    return mix4(row + (size_t)taps->first[i] * 3, taps->weights + (size_t)i * taps->stride,
                taps->taps[i]);
}

/* Four sums to 8 bits, cut at 255, and pushed together to twelve bytes. */
static __m128i pack4(const __m128i sum[4]) {
    const __m128i unit = _mm_set1_epi32(half);
    const __m128i places = _mm_setr_epi8(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, -1, -1, -1, -1);
    __m128i level[4];
    for (int i = 0; i < 4; i++) {
        level[i] = _mm_srai_epi32(_mm_add_epi32(sum[i], unit), NNC_RESIZE_BITS);
    }
    __m128i low = _mm_packus_epi32(level[0], level[1]);
    __m128i high = _mm_packus_epi32(level[2], level[3]);
    return _mm_shuffle_epi8(_mm_packus_epi16(low, high), places);
}

static void across3(const uint8_t *row, const struct nnc_taps *taps, uint8_t *ret_out) {
    uint32_t i = 0;
    for (; i + 4 <= taps->count; i += 4) {
        __m128i sum[4];
        for (uint32_t j = 0; j < 4; j++) {
            sum[j] = mix_pixel(row, taps, i + j);
        }
        __m128i packed = pack4(sum);
        memcpy(ret_out + (size_t)i * 3, &packed, 12);
    }
    for (; i < taps->count; i++) {
        const __m128i sum[4] = {mix_pixel(row, taps, i)};
        __m128i packed = pack4(sum);
        memcpy(ret_out + (size_t)i * 3, &packed, 3);
    }
}

#else

static void across3(const uint8_t *row, const struct nnc_taps *taps, uint8_t *ret_out) {
    for (uint32_t i = 0; i < taps->count; i++) {
        const uint8_t *pixel = row + (size_t)taps->first[i] * 3;
        const int32_t *weights = taps->weights + (size_t)i * taps->stride;
        int32_t sum[3] = {half, half, half};
        for (uint32_t k = 0; k < taps->taps[i]; k++) {
            for (size_t c = 0; c < 3; c++) {
                sum[c] += weights[k] * pixel[(size_t)k * 3 + c];
            }
        }
        for (size_t c = 0; c < 3; c++) {
            ret_out[(size_t)i * 3 + c] = round_cut(sum[c]);
        }
    }
}

#endif

/* One output byte of a mix of rows. */
static uint8_t down_one(const uint8_t *const *rows, const int32_t *weights, uint32_t taps,
                        size_t x) {
    int32_t sum = half;
    for (uint32_t k = 0; k < taps; k++) {
        sum += weights[k] * rows[k][x];
    }
    return round_cut(sum);
}

#if defined(__AVX2__)

/* 32 output bytes: four vectors of sums stay in registers over all taps. */
static __m256i down_block(const uint8_t *const *rows, const int32_t *weights, uint32_t taps,
                          size_t x) {
    __m256i sum[4];
    for (int i = 0; i < 4; i++) {
        sum[i] = _mm256_set1_epi32(half);
    }
    for (uint32_t k = 0; k < taps; k++) {
        const __m256i weight = _mm256_set1_epi32(weights[k]);
        for (int i = 0; i < 4; i++) {
            const void *eight = rows[k] + x + 8 * i;
            __m256i level = _mm256_cvtepu8_epi32(_mm_loadl_epi64(eight));
            sum[i] = _mm256_add_epi32(sum[i], _mm256_mullo_epi32(level, weight));
        }
    }
    for (int i = 0; i < 4; i++) {
        sum[i] = _mm256_srai_epi32(sum[i], NNC_RESIZE_BITS);
    }
    /* Packing works within halves of 128 bits, so groups of four bytes come out of order. */
    __m256i packed = _mm256_packus_epi16(_mm256_packus_epi32(sum[0], sum[1]),
                                         _mm256_packus_epi32(sum[2], sum[3]));
    return _mm256_permutevar8x32_epi32(packed, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}

static void down(const uint8_t *const *rows, const int32_t *weights, uint32_t taps, size_t count,
                 uint8_t *ret_out) {
    size_t x = 0;
    for (; x + 32 <= count; x += 32) {
        __m256i block = down_block(rows, weights, taps, x);
        memcpy(ret_out + x, &block, 32);
    }
    for (; x < count; x++) {
        ret_out[x] = down_one(rows, weights, taps, x);
    }
}

#else

static void down(const uint8_t *const *rows, const int32_t *weights, uint32_t taps, size_t count,
                 uint8_t *ret_out) {
    for (size_t x = 0; x < count; x++) {
        ret_out[x] = down_one(rows, weights, taps, x);
    }
}

#endif

const struct nnc_resize_kernels NNC_KERNELS = {
    .simd = NNC_KERNELS_SIMD,
    .across1 = across1,
    .across3 = across3,
    .down = down,
};
