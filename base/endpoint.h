/* SPDX-License-Identifier: Apache-2.0 */
/* Where a machine can be reached, HOST:PORT. Text only: no name is looked up here. */
#ifndef NNC_BASE_ENDPOINT_H
#define NNC_BASE_ENDPOINT_H

#include "base/config.h"

#include <stdint.h>

#define NNC_HOST_MAX     256
#define NNC_DEFAULT_PORT 29500 /* torchrun's */

struct nnc_endpoint {
    char host[NNC_HOST_MAX]; /* name or address, an IPv6 address without brackets */
    uint16_t port;           /* >= 1 */
};

/* Read "HOST", "HOST:PORT", "[IPv6]" or "[IPv6]:PORT"; without a port it is NNC_DEFAULT_PORT.
 * Errors: -NNC_E_USAGE with what is wrong; the caller puts in front where it stands. */
int nnc_endpoint_parse(const char *text, struct nnc_endpoint *ret_endpoint);

/* Write it so that nnc_endpoint_parse() reads the same. */
void nnc_endpoint_print(const struct nnc_endpoint *endpoint, char ret_text[NNC_ENDPOINT_MAX]);

#endif
