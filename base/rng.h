/* SPDX-License-Identifier: Apache-2.0 */
/* Random numbers without state: every draw is a function of a key and a counter.
 *
 * Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011
 * (Philox4x32-10). */
#ifndef NNC_BASE_RNG_H
#define NNC_BASE_RNG_H

#include <stdint.h>

struct nnc_philox_block {
    uint32_t word[4];
};

/* Philox4x32-10 of a 128-bit counter under a 64-bit key. Equal to Random123's known answers. */
struct nnc_philox_block nnc_philox(const uint32_t counter[4], const uint32_t key[2]);

/* What a stream of draws is for; part of the counter, so that two uses never share numbers. */
enum nnc_rng_use {
    NNC_RNG_PERMUTATION = 1,
    NNC_RNG_AUGMENT = 2,
    NNC_RNG_DROPOUT = 3,
    NNC_RNG_INIT = 4,
    NNC_RNG_SUBSTITUTE = 5,
    NNC_RNG_SYNTHETIC = 6,
    NNC_RNG_PHOTO = 7,
};

/* A stream for (seed, use, major, minor), e.g. (seed, AUGMENT, epoch, k). Draws are numbered. */
struct nnc_rng {
    uint32_t key[2];
    uint32_t stream[3]; /* counter words 1..3: major, minor, upper minor with use */
    uint32_t next;      /* number of the next 32-bit draw */
    struct nnc_philox_block block;
};

/* Start the stream. minor takes 48 bits, major 32, use 8; more is a caller bug (assert). */
struct nnc_rng nnc_rng_make(uint64_t seed, enum nnc_rng_use use, uint32_t major, uint64_t minor);

/* Next 32 uniform bits. */
uint32_t nnc_rng_u32(struct nnc_rng *rng);

/* Uniform in [0, 1), 24 bits of resolution. */
float nnc_rng_uniform(struct nnc_rng *rng);

/* Uniform integer in [0, bound), bound >= 1, without modulo bias (Lemire, 2019). */
uint32_t nnc_rng_below(struct nnc_rng *rng, uint32_t bound);

/* Standard normal (Box-Muller, one value per two draws). */
float nnc_rng_normal(struct nnc_rng *rng);

/* An index-addressed keyed permutation of [0, count): a Feistel network on Philox over the next
 * even power of two (64 at least), cycle-walked back into the range. O(1) state, no array. Source:
 * Black, Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002. */
struct nnc_permutation {
    uint64_t count;
    uint32_t half_bits;
    uint32_t key[2];
    uint32_t epoch;
};

/* The permutation of one epoch. count >= 1 (assert), below 2^48. */
struct nnc_permutation nnc_permutation_make(uint64_t seed, uint32_t epoch, uint64_t count);

/* The element at place k, k < count (assert). */
uint64_t nnc_permutation_at(const struct nnc_permutation *permutation, uint64_t k);

#endif
