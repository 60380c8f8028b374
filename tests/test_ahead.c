/* SPDX-License-Identifier: Apache-2.0 */
/* When fetching ahead begins, how long it goes on, and that it never does where reads are quick. */
#include "loader/ahead.h"

#include <criterion/criterion.h>

/* So many waits, each followed by so much other work; awake: a CPU was waited for, not storage. */
static uint32_t wait_how(struct nnc_ahead *ahead, uint32_t count, uint64_t wait_ns,
                         uint64_t work_ns, bool awake) {
    static uint64_t now_ns, sleeps;
    uint32_t begun = 0;
    for (uint32_t i = 0; i < count; i++) {
        now_ns += wait_ns + work_ns;
        sleeps += awake ? 0 : 1;
        if (nnc_ahead_waited(ahead, wait_ns)) {
            begun += nnc_ahead_judge(ahead, now_ns, sleeps) ? 1 : 0;
        }
    }
    return begun;
}

static uint32_t wait_often(struct nnc_ahead *ahead, uint32_t count, uint64_t wait_ns,
                           uint64_t work_ns) {
    return wait_how(ahead, count, wait_ns, work_ns, false);
}

static uint32_t claims_left(struct nnc_ahead *ahead) {
    uint32_t count = 0;
    while (nnc_ahead_claim(ahead)) {
        count++;
    }
    return count;
}

Test(ahead, slow_reads_switch_it_on_once_for_a_number_of_claims) {
    struct nnc_ahead ahead = {0};
    cr_assert_eq(wait_often(&ahead, NNC_AHEAD_READS - 1, 500000, 800000), 0);
    cr_assert_not(nnc_ahead_claim(&ahead), "too few reads to tell");
    cr_assert_eq(wait_often(&ahead, 1 + 5 * NNC_AHEAD_READS, 500000, 800000), 1);
    cr_assert_eq(claims_left(&ahead), NNC_AHEAD_CLAIMS);
    cr_assert_eq(wait_often(&ahead, 2 * NNC_AHEAD_READS, 500000, 800000), 1, "and again");
}

Test(ahead, quick_reads_neither_switch_it_on_nor_off) {
    struct nnc_ahead ahead = {0};
    wait_often(&ahead, 1, 10000, 800000);
    cr_assert_eq(wait_often(&ahead, 10 * NNC_AHEAD_READS, 30000, 800000), 0, "photographs, warm");
    cr_assert_eq(wait_often(&ahead, 10 * NNC_AHEAD_READS, 6000, 6000), 0, "tiny images, warm");
    cr_assert_eq(wait_often(&ahead, 10 * NNC_AHEAD_READS, 2000000, 90000000), 0, "huge, warm");
    cr_assert_eq(claims_left(&ahead), 0);
    wait_often(&ahead, 2 * NNC_AHEAD_READS, 5000000, 800000);
    wait_often(&ahead, 10 * NNC_AHEAD_READS, 30000, 800000);
    cr_assert_eq(claims_left(&ahead), NNC_AHEAD_CLAIMS, "it is quick because of what was fetched");
}

Test(ahead, a_busy_machine_does_not_look_like_slow_storage) {
    struct nnc_ahead ahead = {0};
    cr_assert_eq(wait_how(&ahead, 10 * NNC_AHEAD_READS, 900000, 800000, true), 0);
    cr_assert_eq(claims_left(&ahead), 0);
}
