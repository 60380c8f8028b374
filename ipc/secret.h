/* SPDX-License-Identifier: Apache-2.0 */
/* The secret that the machines of one run share, from where its user keeps it. */
#ifndef NNC_IPC_SECRET_H
#define NNC_IPC_SECRET_H

#include "ipc/handshake.h"

#include <stdint.h>

/* Read 64 hexadecimal digits, which only white space may follow.
 * where: a file of the effective user or of root that nobody else may read, or "fd:N", an inherited
 *        descriptor, which is closed unless it is a standard one: a pipe, a file without a name, or
 *        one as above.
 * May wait for a pipe's writer, but not longer than 10 s. Owner: the caller wipes ret_secret.
 * Errors: -NNC_E_USAGE, for whatever reason; the text tells the remedy and nothing of the content.
 */
int nnc_secret_read(const char *where, uint8_t ret_secret[NNC_SECRET_BYTES]);

#endif
