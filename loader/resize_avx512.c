/* SPDX-License-Identifier: Apache-2.0 */
/* Inner loops of the resizer for AVX-512 with VBMI and VNNI: four products of bytes are summed in
 * one instruction, and the bytes come to their places by one permutation.
 *
 *   64 bytes of the row --permute--> 16 lanes of 4 taps --3 dot products--> 16 sums --> 16 bytes
 *
 * 1. A weight of 22 bits is three signed digits to the base 256: w = a 65536 + b 256 + c. The dot
 *    product of unsigned pixels and signed digits is exact in 32 bits, so
 *    sum w p = 65536 sum a p + 256 sum b p + sum c p, modulo 2^32, and the true sum fits. The bits
 *    are those of the plain loops.
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

static const int32_t half = 1 << (NNC_RESIZE_BITS - 1);

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

/* Sums of digits to bytes. */
static __m512i combine(__m512i a, __m512i b, __m512i c) {
    __m512i sum =
        _mm512_add_epi32(_mm512_add_epi32(_mm512_slli_epi32(a, 16), c), _mm512_slli_epi32(b, 8));
    return _mm512_srli_epi32(sum, NNC_RESIZE_BITS);
}

/* The 16 lanes of one group. */
static inline __m128i mix_group(const uint8_t *row, const struct quad *quad, uint32_t quads) {
    __m512i a = _mm512_setzero_si512(), b = a, c = _mm512_set1_epi32(half);
    for (uint32_t q = 0; q < quads; q++, quad++) {
        __m512i window = _mm512_loadu_si512(row + quad->window);
        __m512i pixels = _mm512_permutexvar_epi8(load(quad->place), window);
        a = _mm512_dpbusd_epi32(a, pixels, load(quad->a));
        b = _mm512_dpbusd_epi32(b, pixels, load(quad->b));
        c = _mm512_dpbusd_epi32(c, pixels, load(quad->c));
    }
    return _mm512_cvtusepi32_epi8(combine(a, b, c));
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

static void across3(const uint8_t *row, const struct nnc_taps *taps, uint8_t *ret_out) {
    const struct quad *quad = taps->packed;
    if (taps->quads == 0) {
        nnc_resize_kernels_avx2.across3(row, taps, ret_out);
        return;
    }
    size_t last = (size_t)taps->count * 3 - 15;
    for (size_t x = 0; x < last; x += 15, quad += taps->quads) {
        /* The sixteenth byte is the next group's first, which follows. */
        _mm_storeu_si128((__m128i *)(void *)(ret_out + x), mix_group(row, quad, taps->quads));
    }
    store15(ret_out + last, mix_group(row, quad, taps->quads));
}

/* ---- down ---- */

/* Digits of four taps, repeated over all lanes. */
struct digits {
    __m512i a, b, c;
};

static struct digits split_quad(const int32_t *weights, uint32_t taps) {
    int8_t a[QUAD] = {0}, b[QUAD] = {0}, c[QUAD] = {0};
    int32_t word[3];
    for (uint32_t t = 0; t < QUAD && t < taps; t++) {
        split(weights[t], &a[t], &b[t], &c[t]);
    }
    memcpy(&word[0], a, sizeof(a));
    memcpy(&word[1], b, sizeof(b));
    memcpy(&word[2], c, sizeof(c));
    return (struct digits){.a = _mm512_set1_epi32(word[0]),
                           .b = _mm512_set1_epi32(word[1]),
                           .c = _mm512_set1_epi32(word[2])};
}

/* Sums of 64 columns, 16 a vector, as unpacking puts them. */
struct columns {
    __m512i a[4], b[4], c[4];
};

/* Add four rows; those behind the last tap repeat it, with weight 0. */
static inline void add_rows(struct columns *sum, const uint8_t *const *rows, uint32_t taps,
                            size_t x, const struct digits *digits) {
    __m512i row[QUAD], column[4];
    for (uint32_t t = 0; t < QUAD; t++) {
        row[t] = _mm512_loadu_si512(rows[t < taps ? t : taps - 1] + x);
    }
    __m512i low01 = _mm512_unpacklo_epi8(row[0], row[1]);
    __m512i high01 = _mm512_unpackhi_epi8(row[0], row[1]);
    __m512i low23 = _mm512_unpacklo_epi8(row[2], row[3]);
    __m512i high23 = _mm512_unpackhi_epi8(row[2], row[3]);
    column[0] = _mm512_unpacklo_epi16(low01, low23);
    column[1] = _mm512_unpackhi_epi16(low01, low23);
    column[2] = _mm512_unpacklo_epi16(high01, high23);
    column[3] = _mm512_unpackhi_epi16(high01, high23);
    for (int i = 0; i < 4; i++) {
        sum->a[i] = _mm512_dpbusd_epi32(sum->a[i], column[i], digits->a);
        sum->b[i] = _mm512_dpbusd_epi32(sum->b[i], column[i], digits->b);
        sum->c[i] = _mm512_dpbusd_epi32(sum->c[i], column[i], digits->c);
    }
}

static inline __m512i mix_columns(const uint8_t *const *rows, const struct digits *digits,
                                  uint32_t taps, size_t x) {
    struct columns sum;
    for (int i = 0; i < 4; i++) {
        sum.a[i] = sum.b[i] = _mm512_setzero_si512();
        sum.c[i] = _mm512_set1_epi32(half);
    }
    for (uint32_t k = 0; k < taps; k += QUAD, digits++) {
        add_rows(&sum, rows + k, taps - k, x, digits);
    }
    __m512i level[4];
    for (int i = 0; i < 4; i++) {
        level[i] = combine(sum.a[i], sum.b[i], sum.c[i]);
    }
    return _mm512_packus_epi16(_mm512_packus_epi32(level[0], level[1]),
                               _mm512_packus_epi32(level[2], level[3]));
}

enum {
    DOWN_QUADS = 16, /* digits on the stack */
};

static void down(const uint8_t *const *rows, const int32_t *weights, uint32_t taps, size_t count,
                 uint8_t *ret_out) {
    struct digits digits[DOWN_QUADS];
    if (taps > DOWN_QUADS * QUAD || count < WINDOW) {
        nnc_resize_kernels_avx2.down(rows, weights, taps, count, ret_out);
        return;
    }
    for (uint32_t k = 0; k < taps; k += QUAD) {
        digits[k / QUAD] = split_quad(weights + k, taps - k);
    }
    size_t last = count - WINDOW;
    for (size_t x = 0; x < count; x += WINDOW) {
        size_t place = x < last ? x : last; /* the last columns twice, rather than in part */
        _mm512_storeu_si512(ret_out + place, mix_columns(rows, digits, taps, place));
    }
}

const struct nnc_resize_kernels nnc_resize_kernels_avx512 = {
    .name = "avx512",
    .cpu = NNC_RESIZE_CPU_AVX512,
    .across1 = across1,
    .across3 = across3,
    .packed_bytes = packed_bytes,
    .pack = pack,
    .down = down,
};
