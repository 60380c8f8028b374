/* SPDX-License-Identifier: Apache-2.0 */
/* Opening what must be a file, where the name may lead to anything. */
#ifndef NNC_BASE_REGULAR_H
#define NNC_BASE_REGULAR_H

#include <stdio.h>

/* Open a regular file for reading and nothing else: a pipe without a writer would be waited for.
 * Owner:  caller closes the descriptor, which is close-on-exec.
 * Errors: of open(2); -NNC_E_FORMAT there is something else. Both name the file. */
int nnc_regular_open(const char *path, int *ret_fd);

/* As nnc_regular_open(), as a stream that the caller closes. Errors: -ENOMEM too. */
int nnc_regular_open_stream(const char *path, FILE **ret_file);

#endif
