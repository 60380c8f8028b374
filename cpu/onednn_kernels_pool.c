/* SPDX-License-Identifier: Apache-2.0 */
/* Max pooling and the dropout mask, compiled once per instruction set (onednn_kernels_own.h).
 *
 * Pooling keeps, per output value, which value of its window was the largest, in one byte. The
 * backward pass goes over the inputs and adds up the windows that chose them: every gradient is
 * written once, in order, and none needs to be cleared before. Where the pooled values come out of
 * a ReLU and the largest is zero, the byte says that no value was chosen: the gradient is then the
 * one before the ReLU, and nobody has to read the unpooled values again to mask it.
 *
 * Invariants: (1) the first of equal values is chosen, NaN is larger than any number
 * (torch.nn.MaxPool2d); (2) the mask is workers/dropout.h's, bit for bit.
 *
 * Source: Salmon et al., SC 2011 (Philox4x32-10), as base/rng.c. */
#include <string.h>

#include "cpu/onednn_kernels_own.h"

enum {
    LANES = 16, /* Philox counters at a time */
};

/* Rows or columns [*ret_begin, *ret_end) of the window at output place `out`, inside the input. */
INLINE void window_of(uint32_t out, uint32_t stride, uint32_t pad, uint32_t kernel, uint32_t limit,
                      uint32_t *ret_begin, uint32_t *ret_end) {
    uint32_t start = out * stride; /* + pad, so that it is not negative */
    *ret_begin = start < pad ? 0 : start - pad;
    uint32_t end = start + kernel - pad; /* kernel > pad */
    *ret_end = end < limit ? end : limit;
}

INLINE void pool_eight(const struct nnc_pool_plane *p, uint32_t oh, uint32_t ow, uint32_t j) {
    const struct nnc_window *w = &p->window;
    uint32_t inner = p->inner;
    uint32_t h0;
    uint32_t h1;
    uint32_t w0;
    uint32_t w1;
    window_of(oh, w->stride_h, w->pad_h, w->r, p->in.h, &h0, &h1);
    window_of(ow, w->stride_w, w->pad_w, w->s, p->in.w, &w0, &w1);
    uint32_t top = oh * w->stride_h;
    uint32_t left = ow * w->stride_w;
    vec best = *(const vec *)(p->x + ((size_t)h0 * p->in.w + w0) * inner + j);
    mask chosen = {0};
    chosen += (int32_t)((h0 + w->pad_h - top) * w->s + (w0 + w->pad_w - left));
    for (uint32_t h = h0; h < h1; h++) {
        for (uint32_t v = w0; v < w1; v++) {
            vec value = *(const vec *)(p->x + ((size_t)h * p->in.w + v) * inner + j);
            mask take = ~(value <= best) & ((best == best) | (value != value));
            int32_t place = (int32_t)((h + w->pad_h - top) * w->s + (v + w->pad_w - left));
            best = (vec)((take & (mask)value) | (~take & (mask)best));
            chosen = (take & place) | (~take & chosen);
        }
    }
    size_t at = ((size_t)oh * p->out.w + ow) * inner + j;
    *(vec *)(p->y + at) = best;
    if (p->chosen != NULL) {
        if (p->relu) {
            chosen |= best <= 0;
        }
        chosen &= NNC_POOL_NONE;
        *(bytes *)(p->chosen + at) = __builtin_convertvector(chosen, bytes);
    }
}

void NNC_OWN(pool)(const struct nnc_pool_plane *plane) {
    for (uint32_t oh = 0; oh < plane->out.h; oh++) {
        for (uint32_t ow = 0; ow < plane->out.w; ow++) {
            for (uint32_t j = 0; j < plane->inner; j += WIDTH) {
                pool_eight(plane, oh, ow, j);
            }
        }
    }
}

/* Output rows or columns [*ret_begin, *ret_end) whose windows hold input place `in`. */
INLINE void windows_over(uint32_t in, uint32_t stride, uint32_t pad, uint32_t kernel,
                         uint32_t limit, uint32_t *ret_begin, uint32_t *ret_end) {
    uint32_t place = in + pad;
    *ret_begin = place < kernel ? 0 : (place - kernel) / stride + 1;
    uint32_t end = place / stride + 1;
    *ret_end = end < limit ? end : limit;
}

/* One input place: the windows [h0,h1) x [w0,w1) hold it. */
struct input_place {
    uint32_t h, w, h0, h1, w0, w1;
};

INLINE void grad_eight(const struct nnc_pool_plane *p, const struct input_place *in, uint32_t j) {
    const struct nnc_window *w = &p->window;
    uint32_t inner = p->inner;
    vec sum = {0};
    for (uint32_t oh = in->h0; oh < in->h1; oh++) {
        for (uint32_t ow = in->w0; ow < in->w1; ow++) {
            size_t at = ((size_t)oh * p->out.w + ow) * inner + j;
            int32_t place = (int32_t)((in->h + w->pad_h - oh * w->stride_h) * w->s +
                                      (in->w + w->pad_w - ow * w->stride_w));
            mask chosen = __builtin_convertvector(*(const bytes *)(p->chosen + at), mask);
            sum += (vec)((chosen == place) & *(const mask *)(p->dy + at));
        }
    }
    vec *dx = (vec *)(p->dx + ((size_t)in->h * p->in.w + in->w) * inner + j);
    if (p->dx_accumulate) {
        sum += *dx;
    }
    *dx = sum;
}

void NNC_OWN(pool_grad)(const struct nnc_pool_plane *plane) {
    const struct nnc_window *w = &plane->window;
    struct input_place in;
    for (in.h = 0; in.h < plane->in.h; in.h++) {
        windows_over(in.h, w->stride_h, w->pad_h, w->r, plane->out.h, &in.h0, &in.h1);
        for (in.w = 0; in.w < plane->in.w; in.w++) {
            windows_over(in.w, w->stride_w, w->pad_w, w->s, plane->out.w, &in.w0, &in.w1);
            for (uint32_t j = 0; j < plane->inner; j += WIDTH) {
                grad_eight(plane, &in, j);
            }
        }
    }
}

/* High and low half of counter * factor, lane by lane. */
INLINE void multiply(const uint32_t *counter, uint32_t factor, uint32_t *ret_high,
                     uint32_t *ret_low) {
    for (int k = 0; k < LANES; k++) {
        uint64_t product = (uint64_t)counter[k] * factor;
        ret_high[k] = (uint32_t)(product >> 32);
        ret_low[k] = (uint32_t)product;
    }
}

/* The words of LANES quarters beginning with `quarter`: word[w][lane]. */
INLINE void philox_lanes(const struct nnc_dropout *dropout, uint32_t sample, uint32_t quarter,
                         uint32_t word[4][LANES]) {
    uint32_t key0 = dropout->key[0];
    uint32_t key1 = dropout->key[1];
    for (uint32_t k = 0; k < LANES; k++) {
        word[0][k] = dropout->step;
        word[1][k] = dropout->node;
        word[2][k] = sample;
        word[3][k] = quarter + k;
    }
    for (int round = 0; round < 10; round++) {
        uint32_t high[2][LANES];
        uint32_t low[2][LANES];
        multiply(word[0], 0xD2511F53u, high[0], low[0]);
        multiply(word[2], 0xCD9E8D57u, high[1], low[1]);
        for (int k = 0; k < LANES; k++) {
            word[0][k] = high[1][k] ^ word[1][k] ^ key0;
            word[1][k] = low[1][k];
            word[2][k] = high[0][k] ^ word[3][k] ^ key1;
            word[3][k] = low[0][k];
        }
        key0 += 0x9E3779B9u;
        key1 += 0xBB67AE85u;
    }
}

void NNC_OWN(dropout)(const struct nnc_dropout *dropout, uint32_t sample, size_t count,
                      float *ret_factors) {
    /* The threshold 2^32 keeps nothing; the scale is 0 then, so 2^32 - 1 does as well. */
    uint32_t threshold =
        dropout->threshold > UINT32_MAX ? UINT32_MAX : (uint32_t)dropout->threshold;
    float scale = dropout->scale;
    uint32_t word[4][LANES];
    float kept[4][LANES];
    float factors[LANES][4];
    for (size_t f = 0; f < count; f += 4 * LANES) {
        philox_lanes(dropout, sample, (uint32_t)(f / 4), word);
        for (int w = 0; w < 4; w++) {
            for (int k = 0; k < LANES; k++) {
                kept[w][k] = word[w][k] >= threshold ? scale : 0;
            }
        }
        for (int k = 0; k < LANES; k++) {
            for (int w = 0; w < 4; w++) {
                factors[k][w] = kept[w][k];
            }
        }
        size_t left = count - f < 4 * LANES ? count - f : 4 * LANES;
        memcpy(ret_factors + f, factors, left * sizeof(float));
    }
}
