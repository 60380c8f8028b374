/* SPDX-License-Identifier: Apache-2.0 */
/* Random numbers as pure functions of (key, counter); see rng.h.
 *
 * Counter words of a draw, little end first:
 *
 *   word 0   number of the block of four draws, or a Feistel half
 *   word 1   major (epoch), or the Feistel round
 *   word 2   minor bits 0..31, or the epoch of a permutation
 *   word 3   minor bits 32..47 | use << 16
 *
 * 1. The 64-bit seed is the whole key; everything else is in the counter, so that two streams of
 * one seed never meet and a stream needs no set-up.
 * 2. `use` keeps the permutation's counters apart from those of the streams.
 * 3. Every function here gives the same bits on every machine, except nnc_rng_normal(), which goes
 *    through the C library's log and cos.
 *
 * It does not make secrets: Philox is no cipher.
 * Source: Salmon et al., SC 2011 (constants and rounds); Black, Rogaway, CT-RSA 2002 (cycle
 * walking); Lemire, "Fast random integer generation in an interval", 2019; Box, Muller, 1958. */
#include "base/rng.h"

#include <assert.h>
#include <math.h>

enum {
    PHILOX_ROUNDS = 10,
    /* Four rounds make a Feistel network a good permutation where halves are wide; data sets may be
     * small, and small halves need more rounds for all orders to be about equally likely. */
    FEISTEL_ROUNDS = 8,
    FEISTEL_HALF_BITS_MIN = 3,
    MINOR_BITS_MAX = 48,
    USE_SHIFT = 16,
    USE_MAX = 255,
};

struct nnc_philox_block nnc_philox(const uint32_t counter[4], const uint32_t key[2]) {
    uint32_t word[4] = {counter[0], counter[1], counter[2], counter[3]};
    uint32_t round_key[2] = {key[0], key[1]};
    for (int round = 0; round < PHILOX_ROUNDS; round++) {
        uint64_t product_0 = (uint64_t)0xD2511F53u * word[0];
        uint64_t product_1 = (uint64_t)0xCD9E8D57u * word[2];
        word[0] = (uint32_t)(product_1 >> 32) ^ word[1] ^ round_key[0];
        word[1] = (uint32_t)product_1;
        word[2] = (uint32_t)(product_0 >> 32) ^ word[3] ^ round_key[1];
        word[3] = (uint32_t)product_0;
        round_key[0] += 0x9E3779B9u;
        round_key[1] += 0xBB67AE85u;
    }
    return (struct nnc_philox_block){{word[0], word[1], word[2], word[3]}};
}

struct nnc_rng nnc_rng_make(uint64_t seed, enum nnc_rng_use use, uint32_t major, uint64_t minor) {
    assert(minor < (uint64_t)1 << MINOR_BITS_MAX);
    assert((unsigned)use <= USE_MAX);
    return (struct nnc_rng){
        .key = {(uint32_t)seed, (uint32_t)(seed >> 32)},
        .stream = {major, (uint32_t)minor, (uint32_t)(minor >> 32) | (uint32_t)use << USE_SHIFT},
    };
}

uint32_t nnc_rng_u32(struct nnc_rng *rng) {
    uint32_t lane = rng->next % 4;
    if (lane == 0) {
        const uint32_t counter[4] = {rng->next / 4, rng->stream[0], rng->stream[1], rng->stream[2]};
        rng->block = nnc_philox(counter, rng->key);
    }
    rng->next++;
    assert(rng->next != 0); /* a stream of 2^32 draws would start over */
    return rng->block.word[lane];
}

float nnc_rng_uniform(struct nnc_rng *rng) {
    return (float)(nnc_rng_u32(rng) >> 8) * 0x1p-24f;
}

uint32_t nnc_rng_below(struct nnc_rng *rng, uint32_t bound) {
    assert(bound >= 1);
    uint64_t product = (uint64_t)nnc_rng_u32(rng) * bound;
    if ((uint32_t)product < bound) {
        /* 2^32 is not a multiple of bound: reject the draws that some results have too many of. */
        uint32_t excess = (uint32_t)-bound % bound;
        while ((uint32_t)product < excess) {
            product = (uint64_t)nnc_rng_u32(rng) * bound;
        }
    }
    return (uint32_t)(product >> 32);
}

float nnc_rng_normal(struct nnc_rng *rng) {
    /* In (0, 1]: the logarithm of zero is never taken. */
    double radius = sqrt(-2.0 * log(((double)nnc_rng_u32(rng) + 1.0) * 0x1p-32));
    double angle = 2.0 * M_PI * 0x1p-32 * (double)nnc_rng_u32(rng);
    return (float)(radius * cos(angle));
}

struct nnc_permutation nnc_permutation_make(uint64_t seed, uint32_t epoch, uint64_t count) {
    assert(count >= 1);
    assert(count < (uint64_t)1 << MINOR_BITS_MAX);
    uint32_t half_bits = FEISTEL_HALF_BITS_MIN;
    while (((uint64_t)1 << (2 * half_bits)) < count) {
        half_bits++;
    }
    return (struct nnc_permutation){
        .count = count,
        .half_bits = half_bits,
        .key = {(uint32_t)seed, (uint32_t)(seed >> 32)},
        .epoch = epoch,
    };
}

/* One pass through the network: a permutation of [0, 2^(2*half_bits)). */
static uint64_t feistel(const struct nnc_permutation *permutation, uint64_t value) {
    uint32_t mask = ((uint32_t)1 << permutation->half_bits) - 1;
    uint32_t left = (uint32_t)(value >> permutation->half_bits);
    uint32_t right = (uint32_t)value & mask;
    for (uint32_t round = 0; round < FEISTEL_ROUNDS; round++) {
        const uint32_t counter[4] = {right, round, permutation->epoch,
                                     (uint32_t)NNC_RNG_PERMUTATION << USE_SHIFT};
        uint32_t mixed = nnc_philox(counter, permutation->key).word[0] & mask;
        uint32_t next = left ^ mixed;
        left = right;
        right = next;
    }
    return (uint64_t)left << permutation->half_bits | right;
}

uint64_t nnc_permutation_at(const struct nnc_permutation *permutation, uint64_t k) {
    assert(k < permutation->count);
    /* Walk the cycle of k until it is inside again; it comes back at k itself at the latest. */
    uint64_t value = feistel(permutation, k);
    while (value >= permutation->count) {
        value = feistel(permutation, value);
    }
    return value;
}
