/* SPDX-License-Identifier: Apache-2.0 */
/* Time since boot; see clock.h. */
#include "base/clock.h"

#include <errno.h>
#include <time.h>

uint64_t nnc_clock_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

void nnc_clock_sleep_until_ns(uint64_t ns) {
    const struct timespec until = {.tv_sec = (time_t)(ns / 1000000000u),
                                   .tv_nsec = (long)(ns % 1000000000u)};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR) {
    }
}

void nnc_clock_sleep_ns(uint64_t ns) {
    nnc_clock_sleep_until_ns(nnc_clock_ns() + ns);
}
