/* SPDX-License-Identifier: Apache-2.0 */
/* How many loaders a training gets: windows of plain numbers in, decisions out. */
#include "coordinator/adapt.h"

#include <criterion/criterion.h>
#include <string.h>

static const struct nnc_adapt_limits limits = {.most = 8, .cpus = 8};

static struct nnc_adapt_window window_of(uint32_t loaders) {
    return (struct nnc_adapt_window){.seconds = 5,
                                     .loaders = loaders,
                                     .wait_share = 0.02,
                                     .full_share = 0.3,
                                     .images_per_s = 1000,
                                     .cpus_used = 4};
}

static struct nnc_adapt_window hungry(uint32_t loaders) {
    struct nnc_adapt_window window = window_of(loaders);
    window.wait_share = 0.18;
    window.full_share = 0.0;
    return window;
}

static struct nnc_adapt_window full(uint32_t loaders) {
    struct nnc_adapt_window window = window_of(loaders);
    window.wait_share = 0.0;
    window.full_share = 1.0;
    return window;
}

static enum nnc_adapt_verdict decide(struct nnc_adapt *adapt,
                                     const struct nnc_adapt_window *window) {
    char reason[128];
    enum nnc_adapt_verdict verdict =
        nnc_adapt_decide(adapt, &limits, window, reason, sizeof(reason));
    cr_assert_eq(verdict == NNC_ADAPT_KEEP, reason[0] == '\0', "a change has a reason: %s", reason);
    return verdict;
}

/* A rule past its first window. */
static struct nnc_adapt started(void) {
    struct nnc_adapt adapt = nnc_adapt_start();
    struct nnc_adapt_window first = hungry(2);
    cr_assert_eq(decide(&adapt, &first), NNC_ADAPT_KEEP, "the first window measures starting");
    return adapt;
}

Test(adapt, waiting_trainers_get_one_more_loader_and_the_log_a_reason) {
    struct nnc_adapt adapt = started();
    struct nnc_adapt_window window = hungry(2);
    char reason[128];
    cr_assert_eq(nnc_adapt_decide(&adapt, &limits, &window, reason, sizeof(reason)), NNC_ADAPT_ADD);
    cr_assert_str_eq(reason, "trainers waited 18 % of the last 5 s");
}

Test(adapt, one_window_decides_over_one_loader) {
    static const struct {
        const char *name;
        uint32_t loaders;
        double wait_share, full_share, cpus_used;
        enum nnc_adapt_verdict verdict;
    } rows[] = {
        {"they wait", 2, 0.18, 0.0, 4, NNC_ADAPT_ADD},
        {"they hardly wait", 2, 0.04, 0.0, 4, NNC_ADAPT_KEEP},
        {"they wait though batches are ready", 2, 0.18, 0.8, 4, NNC_ADAPT_KEEP},
        {"there are as many as there may be", 8, 0.18, 0.0, 4, NNC_ADAPT_KEEP},
        {"trainers and loaders use all CPUs", 2, 0.18, 0.0, 7.9, NNC_ADAPT_KEEP},
        {"the ring is full for one window", 4, 0.0, 1.0, 4, NNC_ADAPT_KEEP},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct nnc_adapt adapt = started();
        struct nnc_adapt_window window = window_of(rows[i].loaders);
        window.wait_share = rows[i].wait_share;
        window.full_share = rows[i].full_share;
        window.cpus_used = rows[i].cpus_used;
        cr_expect_eq(decide(&adapt, &window), rows[i].verdict, "%s", rows[i].name);
    }
}

Test(adapt, the_window_of_a_change_is_left_out) {
    struct nnc_adapt adapt = started();
    struct nnc_adapt_window two = hungry(2), three = hungry(3);
    three.images_per_s = 1300;
    cr_assert_eq(decide(&adapt, &two), NNC_ADAPT_ADD);
    cr_assert_eq(decide(&adapt, &three), NNC_ADAPT_KEEP, "the new one was starting");
    cr_assert_eq(decide(&adapt, &three), NNC_ADAPT_ADD, "it helped, and they still wait");
}

Test(adapt, a_loader_that_brings_nothing_goes_again_and_is_not_tried_again) {
    struct nnc_adapt adapt = started();
    struct nnc_adapt_window two = hungry(2), three = hungry(3);
    three.images_per_s = 1010; /* one percent */
    char reason[128];
    cr_assert_eq(decide(&adapt, &two), NNC_ADAPT_ADD);
    cr_assert_eq(decide(&adapt, &three), NNC_ADAPT_KEEP);
    cr_assert_eq(nnc_adapt_decide(&adapt, &limits, &three, reason, sizeof(reason)),
                 NNC_ADAPT_RETIRE);
    cr_assert_str_eq(reason, "1000 images/s with 2, 1010 with 3");
    for (int i = 0; i < 100; i++) {
        cr_assert_eq(decide(&adapt, &two), NNC_ADAPT_KEEP, "window %d", i);
    }
}

Test(adapt, a_ring_that_stays_full_lets_one_loader_go_but_never_the_last) {
    struct nnc_adapt adapt = started();
    uint32_t loaders = 3, changes = 0;
    for (int i = 0; i < 60; i++) {
        struct nnc_adapt_window window = full(loaders);
        enum nnc_adapt_verdict verdict = decide(&adapt, &window);
        cr_assert_neq(verdict, NNC_ADAPT_ADD);
        loaders -= verdict == NNC_ADAPT_RETIRE ? 1 : 0;
        changes += verdict == NNC_ADAPT_RETIRE ? 1 : 0;
        cr_assert(i >= 5 || changes == 0, "six windows in a row are needed: %d", i);
    }
    cr_assert_eq(loaders, 1);
    cr_assert_eq(changes, 2);
}

Test(adapt, a_single_window_that_is_not_full_starts_the_count_again) {
    struct nnc_adapt adapt = started();
    for (int i = 0; i < 50; i++) {
        struct nnc_adapt_window window = i % 6 == 5 ? window_of(4) : full(4);
        cr_assert_eq(decide(&adapt, &window), NNC_ADAPT_KEEP, "window %d", i);
    }
}

/* A world in which `enough` loaders are needed: fewer leave trainers waiting, more fill the ring.
 */
static struct nnc_adapt_window world_of(uint32_t loaders, uint32_t enough) {
    struct nnc_adapt_window window = loaders < enough ? hungry(loaders) : full(loaders);
    window.images_per_s = loaders < enough ? 100.0 * loaders : 100.0 * enough;
    return window;
}

Test(adapt, it_settles_from_everywhere_and_does_not_flap) {
    for (uint32_t enough = 1; enough <= 8; enough++) {
        for (uint32_t start = 1; start <= 8; start++) {
            struct nnc_adapt adapt = nnc_adapt_start();
            uint32_t loaders = start, changes = 0, last = 0;
            for (uint32_t i = 0; i < 119; i++) {
                struct nnc_adapt_window window = world_of(loaders, enough);
                enum nnc_adapt_verdict verdict = decide(&adapt, &window);
                loaders += verdict == NNC_ADAPT_ADD ? 1 : 0;
                loaders -= verdict == NNC_ADAPT_RETIRE ? 1 : 0;
                changes += verdict == NNC_ADAPT_KEEP ? 0 : 1;
                last = verdict == NNC_ADAPT_KEEP ? last : i;
            }
            cr_assert_eq(loaders, enough, "from %u to %u: %u", start, enough, loaders);
            cr_assert_leq(changes, 9, "from %u to %u: %u changes", start, enough, changes);
            cr_assert_lt(last, 70, "from %u to %u: changed in window %u", start, enough, last);
        }
    }
}

Test(adapt, what_was_learnt_is_forgotten_after_a_long_quiet_time) {
    struct nnc_adapt adapt = started();
    struct nnc_adapt_window two = hungry(2), three = hungry(3);
    cr_assert_eq(decide(&adapt, &two), NNC_ADAPT_ADD);
    decide(&adapt, &three);
    cr_assert_eq(decide(&adapt, &three), NNC_ADAPT_RETIRE);
    unsigned windows = 0;
    while (decide(&adapt, &two) == NNC_ADAPT_KEEP && windows < 1000) {
        windows++;
    }
    cr_assert(windows > 100 && windows < 1000, "tried again after %u windows", windows);
}

Test(adapt, a_loader_that_could_not_be_started_is_not_asked_for_again) {
    struct nnc_adapt adapt = started();
    struct nnc_adapt_window two = hungry(2);
    cr_assert_eq(decide(&adapt, &two), NNC_ADAPT_ADD);
    nnc_adapt_refused(&adapt, 2);
    for (int i = 0; i < 50; i++) {
        cr_assert_eq(decide(&adapt, &two), NNC_ADAPT_KEEP, "window %d", i);
    }
}
