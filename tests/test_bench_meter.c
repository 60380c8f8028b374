/* SPDX-License-Identifier: Apache-2.0 */
/* Which batches count and what a simulated device does: times are numbers here, nothing is timed.
 */
#include "workers/bench_meter.h"

#include <criterion/criterion.h>

#define SECOND 1000000000ull
#define START  (500 * SECOND)

/* What came of a run whose batches come every batch_ns. */
struct outcome {
    uint64_t warm, measured, seconds;
};

static struct outcome run(const struct nnc_meter_params *params, uint64_t batch_ns) {
    struct nnc_meter meter = nnc_meter_start(params, START);
    struct outcome outcome = {0};
    uint64_t now_ns = START, from_ns = START;
    for (;;) {
        bool counts = meter.measuring;
        now_ns += batch_ns;
        enum nnc_meter_verdict verdict = nnc_meter_count(&meter, now_ns);
        outcome.warm += counts ? 0 : 1;
        outcome.measured += counts ? 1 : 0;
        from_ns = verdict == NNC_METER_BEGIN ? now_ns : from_ns;
        if (verdict == NNC_METER_END) {
            outcome.seconds = (now_ns - from_ns) / SECOND;
            return outcome;
        }
        cr_assert_lt(outcome.warm + outcome.measured, 10000000u, "it never ends");
    }
}

Test(bench_meter, what_counts_depends_on_passes_batches_and_time) {
    static const struct {
        const char *name;
        struct nnc_meter_params params;
        uint64_t batch_ns, warm, measured;
    } rows[] = {
        {"two passes after one", {.pass_batches = 8, .warm = true, .epochs = 2}, SECOND, 8, 16},
        {"two passes at any speed", {.pass_batches = 8, .warm = true, .epochs = 2}, 1000, 8, 16},
        {"cold has no warm-up", {.pass_batches = 8, .epochs = 1}, SECOND, 0, 8},
        {"a number of batches", {.pass_batches = 8, .warm = true, .steps = 3}, SECOND, 8, 3},
        {"batches beyond a pass", {.pass_batches = 8, .warm = true, .steps = 20}, 1000, 8, 20},
        {"the smaller of both",
         {.pass_batches = 8, .warm = true, .epochs = 3, .steps = 20},
         1000,
         8,
         20},
        {"a fast small set: whole passes for two seconds",
         {.pass_batches = 8, .warm = true},
         SECOND / 10,
         8,
         24},
        {"a pass of three seconds is measured once",
         {.pass_batches = 30, .warm = true},
         SECOND / 10,
         30,
         30},
        {"a huge set: ten seconds of warm-up and ten measured",
         {.pass_batches = 100000, .warm = true},
         SECOND / 10,
         100,
         100},
        {"a huge set, all of it asked for",
         {.pass_batches = 1000, .warm = true, .epochs = 1},
         SECOND,
         1000,
         1000},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct outcome outcome = run(&rows[i].params, rows[i].batch_ns);
        cr_expect_eq(outcome.warm, rows[i].warm, "%s: %lu warm", rows[i].name, outcome.warm);
        cr_expect_eq(outcome.measured, rows[i].measured, "%s: %lu measured", rows[i].name,
                     outcome.measured);
    }
}

Test(bench_meter, a_device_that_never_waits_is_busy_all_the_time) {
    struct nnc_device device = {.images_per_s = 1000};
    uint64_t now_ns = START;
    for (int i = 0; i < 100; i++) {
        uint64_t free_ns = nnc_device_feed(&device, now_ns, i > 0, 50);
        cr_assert_eq(free_ns, START + (uint64_t)(i + 1) * SECOND / 20, "batch %d", i);
        now_ns = free_ns + 3000000; /* each sleep ends three milliseconds late */
    }
    cr_assert_gt(nnc_device_utilisation(&device, now_ns), 0.999);
}

Test(bench_meter, a_device_that_waits_as_long_as_it_works_is_busy_for_half_of_the_time) {
    struct nnc_device device = {.images_per_s = 1000};
    uint64_t now_ns = START;
    for (int i = 0; i < 100; i++) {
        uint64_t free_ns = nnc_device_feed(&device, now_ns, false, 100);
        cr_assert_eq(free_ns, now_ns + SECOND / 10);
        now_ns = free_ns + SECOND / 10;
    }
    cr_assert_float_eq(nnc_device_utilisation(&device, now_ns), 0.5, 0.001);
}

Test(bench_meter, a_host_that_cannot_feed_the_device_shows_as_an_idle_device) {
    struct nnc_device device = {.images_per_s = 1000};
    uint64_t now_ns = START;
    for (int i = 0; i < 100; i++) {
        nnc_device_feed(&device, now_ns, true, 10);
        now_ns += SECOND / 20; /* the batch would take a fifth of that */
    }
    cr_assert_float_eq(nnc_device_utilisation(&device, now_ns), 0.2, 0.001);
}

Test(bench_meter, a_device_without_batches_was_not_busy) {
    struct nnc_device device = {.images_per_s = 1000, .began_ns = START, .free_ns = START};
    cr_assert_eq(nnc_device_utilisation(&device, START), 0.0);
}
