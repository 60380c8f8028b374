/* SPDX-License-Identifier: Apache-2.0 */
/* Which deaths of loaders count against the sample they had in hand. */
#include "coordinator/strikes.h"

#include "base/err.h"

#include <criterion/criterion.h>
#include <signal.h>
#include <string.h>

static const uint64_t samples[2] = {1000, 64};

/* A loader with a page of its own. */
struct loader {
    struct nnc_child_page page;
    struct nnc_process process;
};

static struct nnc_strikes begin(struct loader *ret_loader) {
    struct nnc_strikes strikes;
    cr_assert_eq(nnc_strikes_open(samples, NULL, &strikes), 0, "%s", nnc_error_text());
    memset(ret_loader, 0, sizeof(*ret_loader));
    ret_loader->process.role = NNC_ROLE_LOADER;
    ret_loader->process.page = &ret_loader->page;
    return strikes;
}

static void hold(struct loader *loader, uint64_t phase, uint64_t sample) {
    atomic_store(&loader->page.hand, (phase << 32 | sample) + 1);
}

static int die(struct nnc_strikes *strikes, const struct loader *loader, bool signalled,
               int status) {
    struct nnc_strike strike;
    char reason[256];
    const struct nnc_process_end end = {.signalled = signalled, .status = status};
    return nnc_strikes_count(strikes, &loader->process, &end, &strike, reason, sizeof(reason));
}

Test(strikes, two_crashes_in_a_sample_quarantine_it_and_no_other) {
    static const int signals[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGSYS, SIGXCPU};
    struct loader loader;
    struct nnc_strikes strikes = begin(&loader);
    for (uint32_t i = 0; i < 7; i++) {
        uint32_t phase = i % 2;
        hold(&loader, phase, 57 + i);
        cr_assert_eq(die(&strikes, &loader, true, signals[i]), 0, "signal %d", signals[i]);
        cr_assert(!nnc_quarantine_has(&strikes.quarantine, phase, 57 + i));
        cr_assert_eq(die(&strikes, &loader, true, signals[i]), 1, "signal %d", signals[i]);
        cr_assert(nnc_quarantine_has(&strikes.quarantine, phase, 57 + i));
        cr_assert(!nnc_quarantine_has(&strikes.quarantine, 1 - phase, 57 + i));
        cr_assert_eq(die(&strikes, &loader, true, signals[i]), 0, "it is in already");
    }
    nnc_strikes_close(&strikes);
}

Test(strikes, a_kill_counts_only_when_it_was_ours_for_a_sample_that_took_too_long) {
    struct loader loader;
    struct nnc_strikes strikes = begin(&loader);
    hold(&loader, 0, 3);
    for (int i = 0; i < 10; i++) {
        cr_assert_eq(die(&strikes, &loader, true, SIGKILL), 0);
        cr_assert_eq(die(&strikes, &loader, false, 1), 0);
    }
    loader.process.hung = true;
    cr_assert_eq(die(&strikes, &loader, true, SIGKILL), 0);
    cr_assert_eq(die(&strikes, &loader, true, SIGSEGV), 1, "hangs and crashes count together");
    nnc_strikes_close(&strikes);
}

Test(strikes, a_page_that_names_no_sample_counts_against_none) {
    static const uint64_t hands[][2] = {{0, 1000}, {1, 64}, {2, 0}, {UINT32_MAX, UINT32_MAX}};
    struct loader loader;
    struct nnc_strikes strikes = begin(&loader);
    for (int i = 0; i < 5; i++) {
        cr_assert_eq(die(&strikes, &loader, true, SIGSEGV), 0, "nothing in hand");
    }
    for (size_t row = 0; row < sizeof(hands) / sizeof(hands[0]); row++) {
        hold(&loader, hands[row][0], hands[row][1]);
        for (int i = 0; i < 5; i++) {
            cr_assert_eq(die(&strikes, &loader, true, SIGSEGV), 0, "row %zu", row);
        }
    }
    cr_assert_eq(strikes.count, 0);
    nnc_strikes_close(&strikes);
}
