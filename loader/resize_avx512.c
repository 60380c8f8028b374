/* SPDX-License-Identifier: Apache-2.0 */
/* Inner loops of the resizer for AVX-512 with VBMI and VNNI: four products of bytes are summed in
 * one instruction, and the bytes come to their places by one permutation.
 *
 *   64 bytes of the row --permute--> 16 lanes of 4 taps --3 dot products--> 16 sums --> 16 bytes
 *
 * 1. A weight of 22 bits is three signed digits to the base 256: w = a 65536 + b 256 + c. The dot
 *    product of unsigned pixels and signed digits is exact in 32 bits, so
 *    sum w p = ((sum a p) 256 + sum b p) 256 + sum c p, modulo 2^32, and the true sum fits. The
 *    bits are those of the plain loops.
 * 2. A lane is one channel of one output. 5 outputs of 3 channels or 16 of 1 share a window of 64
 *    bytes; where they lie too far apart for that (reduction beyond 4), the AVX2 loops are taken.
 * 3. A window may reach NNC_IMAGE_ROW_SLACK bytes behind the row. Stores end exactly: the last
 *    group is the last outputs, some of which the one before has made as well.
 * 4. Down, the taps of a column are brought side by side by unpacking four rows; packing restores
 *    the columns' order, since both work within 128 bits.
 *
 * Does not: decide weights. Source: Intel's instruction set reference, VPDPBUSD and VPERMB. */
#include "loader/resize_kernels.h"

#include <assert.h>
#include <immintrin.h>
#include <string.h>

enum {
    LANES = 16,
    QUAD = 4, /* taps of a dot product */
    WINDOW = 64,
};

/* Four taps of the outputs of one group. */
struct quad {
    uint8_t place[LANES][QUAD]; /* in the window */
    int8_t a[LANES][QUAD], b[LANES][QUAD], c[LANES][QUAD];
    uint32_t window; /* offset in the row */
    uint8_t pad[60];
};
_Static_assert(sizeof(struct quad) == 5 * WINDOW, "quads begin at multiples of 64");

static uint32_t quads_of(const struct nnc_taps *taps) {
    uint32_t most = 0;
    for (uint32_t i = 0; i < taps->count; i++) {
        most = taps->taps[i] > most ? taps->taps[i] : most;
    }
    return (most + QUAD - 1) / QUAD;
}

static uint32_t outputs_of_group(uint32_t channels) {
    return LANES / channels;
}

/* First output of group g: groups lie side by side, but the last one ends with the last output. */
static uint32_t first_of_group(const struct nnc_taps *taps, uint32_t g, uint32_t outputs) {
    uint32_t first = g * outputs;
    return first + outputs <= taps->count ? first : taps->count - outputs;
}

/* ---- laying weights out ---- */

/* Inputs [low, high] that taps [4 q, 4 q + 4) of a group's outputs touch. */
struct window {
    uint32_t low, high;
};

/* False: there are none. */
static bool find_window(const struct nnc_taps *taps, uint32_t first, uint32_t outputs, uint32_t q,
                        struct window *ret_window) {
    uint32_t low = UINT32_MAX, high = 0;
    for (uint32_t i = first; i < first + outputs; i++) {
        if (taps->taps[i] <= QUAD * q) {
            continue;
        }
        uint32_t from = taps->first[i] + QUAD * q;
        uint32_t rest = taps->taps[i] - QUAD * q;
        uint32_t to = from + (rest < QUAD ? rest : QUAD) - 1;
        low = from < low ? from : low;
        high = to > high ? to : high;
    }
    *ret_window = (struct window){.low = low, .high = high};
    return low <= high;
}

static size_t packed_bytes(const struct nnc_taps *taps, uint32_t channels) {
    uint32_t outputs = outputs_of_group(channels), quads = quads_of(taps);
    uint32_t groups = (taps->count + outputs - 1) / outputs;
    for (uint32_t g = 0; taps->count >= outputs && g < groups; g++) {
        uint32_t first = first_of_group(taps, g, outputs);
        for (uint32_t q = 0; q < quads; q++) {
            struct window window;
            if (find_window(taps, first, outputs, q, &window) &&
                (window.high - window.low + 1) * channels > WINDOW) {
                return 0;
            }
        }
    }
    return taps->count < outputs ? 0 : (size_t)groups * quads * sizeof(struct quad);
}

/* The digits of a weight. */
static void split(int32_t weight, int8_t *ret_a, int8_t *ret_b, int8_t *ret_c) {
    int8_t c = (int8_t)(weight & 255);
    int32_t rest = (weight - c) >> 8;
    int8_t b = (int8_t)(rest & 255);
    *ret_a = (int8_t)((rest - b) >> 8);
    *ret_b = b;
    *ret_c = c;
}

/* Taps [4 q, 4 q + 4) of output i into the lanes of its channels. */
static void pack_output(const struct nnc_taps *taps, uint32_t i, uint32_t q, uint32_t channels,
                        uint32_t low, uint32_t lane, struct quad *quad) {
    const int32_t *weights = taps->weights + (size_t)i * taps->stride;
    for (uint32_t t = 0; t < QUAD && QUAD * q + t < taps->taps[i]; t++) {
        uint32_t place = (taps->first[i] + QUAD * q + t - low) * channels;
        split(weights[QUAD * q + t], &quad->a[lane][t], &quad->b[lane][t], &quad->c[lane][t]);
        for (uint32_t c = 0; c < channels; c++) {
            quad->place[lane + c][t] = (uint8_t)(place + c);
            quad->a[lane + c][t] = quad->a[lane][t];
            quad->b[lane + c][t] = quad->b[lane][t];
            quad->c[lane + c][t] = quad->c[lane][t];
        }
    }
}

static void pack(struct nnc_taps *taps, uint32_t channels) {
    uint32_t outputs = outputs_of_group(channels), quads = quads_of(taps);
    uint32_t groups = (taps->count + outputs - 1) / outputs;
    struct quad *quad = taps->packed;
    taps->quads = quads;
    for (uint32_t g = 0; g < groups; g++) {
        uint32_t first = first_of_group(taps, g, outputs);
        for (uint32_t q = 0; q < quads; q++, quad++) {
            struct window window;
            memset(quad, 0, sizeof(*quad));
            if (!find_window(taps, first, outputs, q, &window)) {
                continue;
            }
            quad->window = window.low * channels;
            for (uint32_t i = 0; i < outputs; i++) {
                pack_output(taps, first + i, q, channels, window.low, i * channels, quad);
            }
        }
    }
}

/* ---- across ---- */

static __m512i load(const void *bytes) {
    return _mm512_load_si512(bytes);
}

/* Half a unit of the result, as the sum of first digits begins with it. */
#define HALF_DIGIT (1 << (NNC_RESIZE_BITS - 1 - 16))

#define INLINE __attribute__((always_inline)) static inline

/* The pixels of a quad's taps, four to a lane. */
INLINE __m512i pixels_of(const uint8_t *row, const struct quad *quad) {
    return _mm512_permutexvar_epi8(load(quad->place), _mm512_loadu_si512(row + quad->window));
}

/* The 16 lanes of one group, by Horner's rule over the digits. Where quads is a constant the
 * compiler unrolls the loops and makes the pixels once. */
INLINE __m128i mix_group(const uint8_t *row, const struct quad *quad, uint32_t quads) {
    __m512i sum = _mm512_set1_epi32(HALF_DIGIT);
    for (uint32_t q = 0; q < quads; q++) {
        sum = _mm512_dpbusd_epi32(sum, pixels_of(row, quad + q), load(quad[q].a));
    }
    sum = _mm512_slli_epi32(sum, 8);
    for (uint32_t q = 0; q < quads; q++) {
        sum = _mm512_dpbusd_epi32(sum, pixels_of(row, quad + q), load(quad[q].b));
    }
    sum = _mm512_slli_epi32(sum, 8);
    for (uint32_t q = 0; q < quads; q++) {
        sum = _mm512_dpbusd_epi32(sum, pixels_of(row, quad + q), load(quad[q].c));
    }
    return _mm512_cvtusepi32_epi8(_mm512_srli_epi32(sum, NNC_RESIZE_BITS));
}

/* Fifteen bytes, by two stores of eight. */
static void store15(uint8_t *out, __m128i lanes) {
    _mm_storel_epi64((__m128i *)(void *)out, lanes);
    _mm_storel_epi64((__m128i *)(void *)(out + 7), _mm_srli_si128(lanes, 7));
}

static void across1(const uint8_t *row, const struct nnc_taps *taps, uint8_t *ret_out) {
    const struct quad *quad = taps->packed;
    if (taps->quads == 0) {
        nnc_resize_kernels_avx2.across1(row, taps, ret_out);
        return;
    }
    size_t last = taps->count - LANES;
    for (size_t x = 0; x < taps->count; x += LANES, quad += taps->quads) {
        uint8_t *out = ret_out + (x < last ? x : last);
        _mm_storeu_si128((__m128i *)(void *)out, mix_group(row, quad, taps->quads));
    }
}

INLINE void across3_by(const uint8_t *row, const struct nnc_taps *taps, uint32_t quads,
                       uint8_t *ret_out) {
    const struct quad *quad = taps->packed;
    size_t last = (size_t)taps->count * 3 - 15;
    for (size_t x = 0; x < last; x += 15, quad += quads) {
        /* The sixteenth byte is the next group's first, which follows. */
        _mm_storeu_si128((__m128i *)(void *)(ret_out + x), mix_group(row, quad, quads));
    }
    store15(ret_out + last, mix_group(row, quad, quads));
}

static void across3(const uint8_t *row, const struct nnc_taps *taps, uint8_t *ret_out) {
    switch (taps->quads) {
    case 0:
        nnc_resize_kernels_avx2.across3(row, taps, ret_out);
        break;
    case 1:
        across3_by(row, taps, 1, ret_out);
        break;
    case 2:
        across3_by(row, taps, 2, ret_out);
        break;
    default:
        across3_by(row, taps, taps->quads, ret_out);
        break;
    }
}

/* ---- down ---- */

enum {
    DOWN_QUADS = 16, /* digits on the stack */
};

/* The taps of an output row: digits of each quad, repeated over all lanes, and the rows. */
struct mix {
    __m512i a[DOWN_QUADS], b[DOWN_QUADS], c[DOWN_QUADS];
    const uint8_t *rows[DOWN_QUADS * QUAD];
};

/* Weights of four taps; rows behind the last tap repeat it, with weight 0. */
static void plan_quad(struct mix *mix, uint32_t q, const uint8_t *const *rows,
                      const int32_t *weights, uint32_t taps) {
    int8_t a[QUAD] = {0}, b[QUAD] = {0}, c[QUAD] = {0};
    int32_t word[3];
    for (uint32_t t = 0; t < QUAD; t++) {
        uint32_t tap = QUAD * q + t;
        mix->rows[tap] = rows[tap < taps ? tap : taps - 1];
        if (tap < taps) {
            split(weights[tap], &a[t], &b[t], &c[t]);
        }
    }
    memcpy(&word[0], a, sizeof(a));
    memcpy(&word[1], b, sizeof(b));
    memcpy(&word[2], c, sizeof(c));
    mix->a[q] = _mm512_set1_epi32(word[0]);
    mix->b[q] = _mm512_set1_epi32(word[1]);
    mix->c[q] = _mm512_set1_epi32(word[2]);
}

/* 64 columns of four rows: the taps of a column side by side, 16 columns a vector. */
struct columns {
    __m512i at[4];
};

INLINE struct columns unpack(const uint8_t *const *rows, size_t x) {
    __m512i row[QUAD];
    for (uint32_t t = 0; t < QUAD; t++) {
        row[t] = _mm512_loadu_si512(rows[t] + x);
    }
    __m512i low01 = _mm512_unpacklo_epi8(row[0], row[1]);
    __m512i high01 = _mm512_unpackhi_epi8(row[0], row[1]);
    __m512i low23 = _mm512_unpacklo_epi8(row[2], row[3]);
    __m512i high23 = _mm512_unpackhi_epi8(row[2], row[3]);
    return (struct columns){
        .at = {_mm512_unpacklo_epi16(low01, low23), _mm512_unpackhi_epi16(low01, low23),
               _mm512_unpacklo_epi16(high01, high23), _mm512_unpackhi_epi16(high01, high23)}};
}

/* One digit of all taps onto the sums, which first make room for it. */
INLINE void add_digit(__m512i *sum, const struct mix *mix, const __m512i *digit, uint32_t quads,
                      size_t x) {
    for (uint32_t q = 0; q < quads; q++) {
        struct columns columns = unpack(mix->rows + (size_t)q * QUAD, x);
        for (int i = 0; i < 4; i++) {
            __m512i shifted = q == 0 ? _mm512_slli_epi32(sum[i], 8) : sum[i];
            sum[i] = _mm512_dpbusd_epi32(shifted, columns.at[i], digit[q]);
        }
    }
}

INLINE __m512i mix_columns(const struct mix *mix, uint32_t quads, size_t x) {
    __m512i sum[4];
    for (int i = 0; i < 4; i++) {
        sum[i] = _mm512_setzero_si512();
    }
    add_digit(sum, mix, mix->a, quads, x);
    for (int i = 0; i < 4; i++) {
        sum[i] = _mm512_add_epi32(sum[i], _mm512_set1_epi32(HALF_DIGIT));
    }
    add_digit(sum, mix, mix->b, quads, x);
    add_digit(sum, mix, mix->c, quads, x);
    for (int i = 0; i < 4; i++) {
        sum[i] = _mm512_srli_epi32(sum[i], NNC_RESIZE_BITS);
    }
    return _mm512_packus_epi16(_mm512_packus_epi32(sum[0], sum[1]),
                               _mm512_packus_epi32(sum[2], sum[3]));
}

INLINE void down_by(const struct mix *mix, uint32_t quads, size_t count, uint8_t *ret_out) {
    size_t last = count - WINDOW;
    for (size_t x = 0; x < count; x += WINDOW) {
        size_t place = x < last ? x : last; /* the last columns twice, rather than in part */
        _mm512_storeu_si512(ret_out + place, mix_columns(mix, quads, place));
    }
}

static void down(const uint8_t *const *rows, const int32_t *weights, uint32_t taps, size_t count,
                 uint8_t *ret_out) {
    struct mix mix;
    uint32_t quads = (taps + QUAD - 1) / QUAD;
    if (quads > DOWN_QUADS || count < WINDOW) {
        nnc_resize_kernels_avx2.down(rows, weights, taps, count, ret_out);
        return;
    }
    for (uint32_t q = 0; q < quads; q++) {
        plan_quad(&mix, q, rows, weights, taps);
    }
    switch (quads) {
    case 1:
        down_by(&mix, 1, count, ret_out);
        break;
    case 2:
        down_by(&mix, 2, count, ret_out);
        break;
    default:
        down_by(&mix, quads, count, ret_out);
        break;
    }
}

const struct nnc_resize_kernels nnc_resize_kernels_avx512 = {
    .simd = NNC_SIMD_AVX512,
    .across1 = across1,
    .across3 = across3,
    .packed_bytes = packed_bytes,
    .pack = pack,
    .down = down,
};
