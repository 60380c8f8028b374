/* SPDX-License-Identifier: Apache-2.0 */
/* Sleeping on a 32-bit word that several processes share.
 *
 * A generation word is read, the state is looked at, and the sleep happens only while the word
 * still has the value read. Wake-ups are hints: a killed process may lose one, so every sleep has a
 * deadline and the caller looks again afterwards, whatever the reason was.
 *
 * Source: futex(2) FUTEX_WAIT_BITSET; the kernel's Documentation/userspace-api/futex2.rst. */
#ifndef NNC_IPC_FUTEX_H
#define NNC_IPC_FUTEX_H

#include <stdatomic.h>
#include <stdint.h>

/* No sleep on shared memory is longer than this. */
#define NNC_FUTEX_SLEEP_MAX_NS 100000000ull

/* Words that one wait can watch. */
#define NNC_FUTEX_WORDS_MAX 64

/* Sleep until *word differs from `expected`, somebody wakes the word, or the absolute
 * CLOCK_MONOTONIC time deadline_ns, but at most NNC_FUTEX_SLEEP_MAX_NS. May return early. Never
 * fails. */
void nnc_futex_wait(_Atomic uint32_t *word, uint32_t expected, uint64_t deadline_ns);

/* The same for the first of `count` words to change, 1 <= count <= NNC_FUTEX_WORDS_MAX (assert).
 * Where the kernel has no such call (before 5.16) it sleeps 1 ms on the first word instead. */
void nnc_futex_wait_any(_Atomic uint32_t *const words[], const uint32_t expected[], unsigned count,
                        uint64_t deadline_ns);

/* Wake at most `sleepers` processes that sleep on word (INT_MAX: all). Never fails. */
void nnc_futex_wake(_Atomic uint32_t *word, int sleepers);

#endif
