/* SPDX-License-Identifier: Apache-2.0 */
/* A thread that ends this process when its parent is gone, for processes whose main thread may not
 * look at its channel for a long time. */
#ifndef NNC_IPC_WATCHDOG_H
#define NNC_IPC_WATCHDOG_H

#include <stdint.h>

struct nnc_watchdog;

/* Start watching; parent_pid must be the parent now. From then on the process ends with status
 * NNC_EXIT_INTERNAL, without clean-up, within milliseconds of the parent's death (a second where
 * the kernel has no pidfd_open). Signals must be blocked before, the thread inherits the mask.
 * Errors: -EPIPE the parent is gone already; -EAGAIN no thread, -ENOMEM. */
int nnc_watchdog_start(int32_t parent_pid, struct nnc_watchdog **ret_watchdog);

/* End the thread. Takes NULL. */
void nnc_watchdog_stop(struct nnc_watchdog *watchdog);

#endif
