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

void nnc_clock_sleep_ns(uint64_t ns) {
    struct timespec until;
    uint64_t end = nnc_clock_ns() + ns;
    until.tv_sec = (time_t)(end / 1000000000u);
    until.tv_nsec = (long)(end % 1000000000u);
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR) {
    }
}
