/* SPDX-License-Identifier: Apache-2.0 */
/* The one clock of the program. */
#ifndef NNC_BASE_CLOCK_H
#define NNC_BASE_CLOCK_H

#include <stdint.h>

/* CLOCK_MONOTONIC in nanoseconds. Comparable between processes of one machine. */
uint64_t nnc_clock_ns(void);

/* Sleep until the clock shows at least ns, over interruptions by signals: late wake-ups do not add
 * up. */
void nnc_clock_sleep_until_ns(uint64_t ns);

/* Sleep at least ns nanoseconds, over interruptions by signals. */
void nnc_clock_sleep_ns(uint64_t ns);

#endif
