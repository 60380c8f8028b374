/* SPDX-License-Identifier: Apache-2.0 */
/* Known answers of Philox, independence of streams, and the permutation against its oracle. */
#include "base/rng.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Random123 1.14, tests/kat_vectors, rows "philox4x32 10". */
static const struct {
    uint32_t counter[4], key[2], want[4];
} known[] = {
    {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
    {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
     {0xffffffff, 0xffffffff},
     {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
    {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
     {0xa4093822, 0x299f31d0},
     {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
};

Test(rng, philox_gives_the_published_known_answers) {
    for (size_t row = 0; row < sizeof(known) / sizeof(known[0]); row++) {
        struct nnc_philox_block got = nnc_philox(known[row].counter, known[row].key);
        cr_assert_arr_eq(got.word, known[row].want, sizeof(got.word), "row %zu", row);
    }
}

Test(rng, a_stream_is_the_blocks_of_its_counter_in_order) {
    struct nnc_rng rng = nnc_rng_make(0x1122334455667788u, NNC_RNG_AUGMENT, 5, 0x9abcdef01234u);
    const uint32_t key[2] = {0x55667788u, 0x11223344u};
    for (uint32_t draw = 0; draw < 12; draw++) {
        const uint32_t counter[4] = {draw / 4, 5, 0xdef01234u, 0x9abcu | 2u << 16};
        cr_assert_eq(nnc_rng_u32(&rng), nnc_philox(counter, key).word[draw % 4], "draw %u", draw);
    }
}

Test(rng, each_part_of_a_streams_name_changes_its_numbers) {
    struct nnc_rng streams[] = {
        nnc_rng_make(1, NNC_RNG_AUGMENT, 2, 3),
        nnc_rng_make(2, NNC_RNG_AUGMENT, 2, 3),
        nnc_rng_make(1, NNC_RNG_DROPOUT, 2, 3),
        nnc_rng_make(1, NNC_RNG_AUGMENT, 3, 3),
        nnc_rng_make(1, NNC_RNG_AUGMENT, 2, 4),
        nnc_rng_make(1ull << 40, NNC_RNG_AUGMENT, 2, 3),
        nnc_rng_make(1, NNC_RNG_AUGMENT, 2, 3 + (1ull << 32)),
    };
    enum {
        STREAMS = sizeof(streams) / sizeof(streams[0])
    };
    uint32_t draws[STREAMS][4];
    for (int stream = 0; stream < STREAMS; stream++) {
        for (int draw = 0; draw < 4; draw++) {
            draws[stream][draw] = nnc_rng_u32(&streams[stream]);
        }
        for (int other = 0; other < stream; other++) {
            cr_assert(memcmp(draws[stream], draws[other], sizeof(draws[0])) != 0,
                      "streams %d and %d are equal", other, stream);
        }
    }
}

Test(rng, bounded_draws_are_uniform_and_in_range) {
    static const uint32_t bounds[] = {1, 2, 3, 7, 10, 100};
    for (size_t row = 0; row < sizeof(bounds) / sizeof(bounds[0]); row++) {
        struct nnc_rng rng = nnc_rng_make(42, NNC_RNG_SYNTHETIC, 0, row);
        uint32_t seen[100] = {0};
        const uint32_t draws = 100000;
        for (uint32_t draw = 0; draw < draws; draw++) {
            uint32_t value = nnc_rng_below(&rng, bounds[row]);
            cr_assert_lt(value, bounds[row]);
            seen[value]++;
        }
        double want = (double)draws / bounds[row], chi_square = 0;
        for (uint32_t value = 0; value < bounds[row]; value++) {
            chi_square += (seen[value] - want) * (seen[value] - want) / want;
        }
        /* Mean bound-1, standard deviation sqrt(2(bound-1)): five of them above the mean. */
        double freedom = bounds[row] - 1.0;
        cr_assert_leq(chi_square, freedom + 5 * sqrt(2 * freedom) + 5, "bound %u: chi square %g",
                      bounds[row], chi_square);
    }
}

Test(rng, a_bound_just_above_half_the_range_has_no_modulo_bias) {
    /* Without rejection four inputs share three results, and multiples of three come twice as
     * often. */
    struct nnc_rng rng = nnc_rng_make(7, NNC_RNG_SYNTHETIC, 0, 0);
    const uint32_t bound = 3u << 30;
    uint32_t rest[3] = {0};
    for (int draw = 0; draw < 90000; draw++) {
        rest[nnc_rng_below(&rng, bound) % 3]++;
    }
    for (int value = 0; value < 3; value++) {
        cr_assert(abs((int)rest[value] - 30000) < 900, "%d: %u", value, rest[value]);
    }
}

Test(rng, uniform_and_normal_have_their_moments) {
    struct nnc_rng rng = nnc_rng_make(3, NNC_RNG_INIT, 0, 0);
    const int draws = 200000;
    double sum[2] = {0}, square[2] = {0};
    for (int draw = 0; draw < draws; draw++) {
        double uniform = nnc_rng_uniform(&rng);
        cr_assert(uniform >= 0 && uniform < 1);
        double normal = nnc_rng_normal(&rng);
        sum[0] += uniform, square[0] += uniform * uniform;
        sum[1] += normal, square[1] += normal * normal;
    }
    cr_assert_float_eq(sum[0] / draws, 0.5, 0.005);
    cr_assert_float_eq(square[0] / draws, 1.0 / 3, 0.005);
    cr_assert_float_eq(sum[1] / draws, 0, 0.015);
    cr_assert_float_eq(square[1] / draws, 1, 0.02);
}

Test(rng, the_permutation_takes_every_value_once) {
    static const uint64_t counts[] = {1,  2,   3,   4,   5,    7,    16,   17,    63,   64,
                                      65, 255, 256, 257, 1000, 4095, 4097, 60000, 65537};
    for (size_t row = 0; row < sizeof(counts) / sizeof(counts[0]); row++) {
        struct nnc_permutation permutation = nnc_permutation_make(row, (uint32_t)row, counts[row]);
        char *seen = calloc(counts[row], 1);
        for (uint64_t k = 0; k < counts[row]; k++) {
            uint64_t value = nnc_permutation_at(&permutation, k);
            cr_assert_lt(value, counts[row], "count %zu", (size_t)counts[row]);
            cr_assert_not(seen[value], "count %zu: %zu twice", (size_t)counts[row], (size_t)value);
            seen[value] = 1;
        }
        free(seen);
    }
}

Test(rng, huge_permutations_stay_in_range) {
    const uint64_t count = (1ull << 48) - 1;
    struct nnc_permutation permutation = nnc_permutation_make(9, 0, count);
    for (uint64_t k = 0; k < 100; k++) {
        cr_assert_lt(nnc_permutation_at(&permutation, count - 1 - k), count);
    }
}

/* Places where both permutations of `count` have the same value. */
static int equal_places(struct nnc_permutation left, struct nnc_permutation right) {
    int equal = 0;
    for (uint64_t k = 0; k < left.count; k++) {
        equal += nnc_permutation_at(&left, k) == nnc_permutation_at(&right, k);
    }
    return equal;
}

Test(rng, epochs_and_seeds_give_different_orders) {
    struct nnc_permutation first = nnc_permutation_make(1, 0, 1000);
    /* Two random orders agree in one place on average, in ten hardly ever. */
    cr_assert_lt(equal_places(first, nnc_permutation_make(1, 1, 1000)), 10);
    cr_assert_lt(equal_places(first, nnc_permutation_make(2, 0, 1000)), 10);
    cr_assert_lt(equal_places(first, nnc_permutation_make(1 | 1ull << 32, 0, 1000)), 10);
    cr_assert_eq(equal_places(first, nnc_permutation_make(1, 0, 1000)), 1000);
}

/* The oracle: a Fisher-Yates shuffle of count numbers. */
static void shuffle(struct nnc_rng *rng, uint32_t count, uint32_t *ret_order) {
    for (uint32_t k = 0; k < count; k++) {
        uint32_t other = nnc_rng_below(rng, k + 1);
        ret_order[k] = ret_order[other];
        ret_order[other] = k;
    }
}

/* Chi square of "value v stands at place k" over `orders` orders of count; Fisher-Yates or Feistel.
 */
static double place_chi_square(uint32_t count, uint32_t orders, int use_oracle) {
    double *seen = calloc((size_t)count * count, sizeof(*seen));
    for (uint32_t number = 0; number < orders; number++) {
        struct nnc_permutation permutation = nnc_permutation_make(11, number, count);
        struct nnc_rng rng = nnc_rng_make(11, NNC_RNG_SYNTHETIC, number, 0);
        uint32_t order[16];
        shuffle(&rng, count, order);
        for (uint32_t k = 0; k < count; k++) {
            uint64_t value = use_oracle ? order[k] : nnc_permutation_at(&permutation, k);
            seen[(size_t)k * count + value]++;
        }
    }
    double want = (double)orders / count, chi_square = 0;
    for (size_t cell = 0; cell < (size_t)count * count; cell++) {
        chi_square += (seen[cell] - want) * (seen[cell] - want) / want;
    }
    free(seen);
    return chi_square;
}

Test(rng, places_are_as_uniform_as_fisher_yates_makes_them) {
    for (uint32_t count = 2; count <= 12; count++) {
        /* (count-1)^2 degrees of freedom; five standard deviations above their mean. */
        double freedom = (count - 1.0) * (count - 1.0);
        double bound = freedom + 5 * sqrt(2 * freedom) + 5;
        double oracle = place_chi_square(count, 3000, 1),
               feistel = place_chi_square(count, 3000, 0);
        cr_assert_leq(oracle, bound, "oracle, count %u: %g > %g", count, oracle, bound);
        cr_assert_leq(feistel, bound, "count %u: %g > %g", count, feistel, bound);
    }
}

Test(rng, all_orders_of_three_are_about_equally_likely) {
    int seen[27] = {0};
    for (uint32_t epoch = 0; epoch < 6000; epoch++) {
        struct nnc_permutation permutation = nnc_permutation_make(5, epoch, 3);
        uint64_t order = 0;
        for (uint64_t k = 0; k < 3; k++) {
            order = order * 3 + nnc_permutation_at(&permutation, k);
        }
        seen[order]++;
    }
    int orders = 0;
    for (int order = 0; order < 27; order++) {
        orders += seen[order] > 0;
        cr_assert(seen[order] == 0 || abs(seen[order] - 1000) < 160, "order %d: %d", order,
                  seen[order]);
    }
    cr_assert_eq(orders, 6);
}
