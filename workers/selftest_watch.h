/* SPDX-License-Identifier: Apache-2.0 */
/* A thread that ends the process when a case of the self-test does not end: a device that hangs may
 * hold the thread that called its driver for ever, so nobody else could. */
#ifndef NNC_WORKERS_SELFTEST_WATCH_H
#define NNC_WORKERS_SELFTEST_WATCH_H

#include <stdint.h>

struct nnc_selftest_watch;

/* on_hang is called by the watch's thread, while the others go on, with the case that hangs, before
 * the process ends.
 * Errors: -ENOMEM; -EAGAIN: no thread. Owner: end with nnc_selftest_watch_stop(). */
int nnc_selftest_watch_start(uint32_t limit_s, void (*on_hang)(void *context, const char *what),
                             void *context, struct nnc_selftest_watch **ret_watch);

/* A case begins, and the one before it has ended. When this one has not within the limit, `what`
 * (copied, up to 300 bytes) is written to standard error, on_hang is called and the process ends
 * with status 1. */
void nnc_selftest_watch_case(struct nnc_selftest_watch *watch, const char *what);

/* The last case has ended. Takes NULL. */
void nnc_selftest_watch_stop(struct nnc_selftest_watch *watch);

#endif
