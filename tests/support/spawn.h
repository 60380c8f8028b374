/* SPDX-License-Identifier: Apache-2.0 */
/* Starting a helper program with exactly the descriptors it is to have. */
#ifndef NNC_TESTS_SPAWN_H
#define NNC_TESTS_SPAWN_H

#include <sys/types.h>

/* Exec program with argv; fds[i] becomes its descriptor 3 + i, 0 to 2 stay. Every other descriptor
 * must be close-on-exec. Returns the pid, or -1 (then errno). */
pid_t test_spawn(const char *program, char *const argv[], const int fds[], unsigned count);

/* Wait at most timeout_ms for the end of pid, reap it, and return its wait status; -1 when it still
 * runs (it is not reaped then). */
int test_reap(pid_t pid, int timeout_ms);

#endif
