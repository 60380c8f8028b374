/* SPDX-License-Identifier: Apache-2.0 */
/* The futex system calls, always without the PRIVATE flag: the words lie in memory that processes
 * share, at different addresses.
 *
 * Invariants:
 *   1. No sleep is longer than NNC_FUTEX_SLEEP_MAX_NS, so a lost wake-up costs that much and no
 * more.
 *   2. Errors need no handling: EAGAIN (the word changed) and ETIMEDOUT mean "look again", which
 * the caller does anyway; EINTR cannot lengthen a sleep because deadlines are absolute. */
#include "ipc/futex.h"

#include "base/clock.h"

#include <assert.h>
#include <errno.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define NS_PER_SECOND 1000000000ull
#define POLL_NS       1000000ull

static struct timespec capped_deadline(uint64_t deadline_ns, uint64_t longest_ns) {
    uint64_t cap = nnc_clock_ns() + longest_ns;
    uint64_t at = deadline_ns < cap ? deadline_ns : cap;
    return (struct timespec){.tv_sec = (time_t)(at / NS_PER_SECOND),
                             .tv_nsec = (long)(at % NS_PER_SECOND)};
}

static void wait_one(_Atomic uint32_t *word, uint32_t expected, const struct timespec *deadline) {
    while (syscall(SYS_futex, word, FUTEX_WAIT_BITSET, expected, deadline, NULL,
                   FUTEX_BITSET_MATCH_ANY) < 0 &&
           errno == EINTR) {
    }
}

void nnc_futex_wait(_Atomic uint32_t *word, uint32_t expected, uint64_t deadline_ns) {
    struct timespec deadline = capped_deadline(deadline_ns, NNC_FUTEX_SLEEP_MAX_NS);
    wait_one(word, expected, &deadline);
}

void nnc_futex_wait_any(_Atomic uint32_t *const words[], const uint32_t expected[], unsigned count,
                        uint64_t deadline_ns) {
    assert(count >= 1 && count <= NNC_FUTEX_WORDS_MAX);
    struct futex_waitv waiters[NNC_FUTEX_WORDS_MAX];
    for (unsigned i = 0; i < count; i++) {
        waiters[i] = (struct futex_waitv){
            .val = expected[i], .uaddr = (uintptr_t)words[i], .flags = FUTEX_32};
    }
    struct timespec deadline = capped_deadline(deadline_ns, NNC_FUTEX_SLEEP_MAX_NS);
    long woken;
    do {
        woken = syscall(SYS_futex_waitv, waiters, count, 0, &deadline, CLOCK_MONOTONIC);
    } while (woken < 0 && errno == EINTR);
    if (woken < 0 && errno != EAGAIN && errno != ETIMEDOUT) {
        /* Not available here: look again soon, the other words cannot wake us. */
        deadline = capped_deadline(deadline_ns, POLL_NS);
        wait_one(words[0], expected[0], &deadline);
    }
}

void nnc_futex_wake(_Atomic uint32_t *word, int sleepers) {
    syscall(SYS_futex, word, FUTEX_WAKE, sleepers, NULL, NULL, 0);
}
