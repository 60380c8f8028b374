/* SPDX-License-Identifier: Apache-2.0 */
/* SHA-256 of bytes that arrive in pieces. Source: FIPS 180-4, through libcrypto. */
#ifndef NNC_BASE_SHA256_H
#define NNC_BASE_SHA256_H

#include <stddef.h>
#include <stdint.h>

#define NNC_SHA256_BYTES 32
/* Lower-case hexadecimal digits and the terminating zero. */
#define NNC_SHA256_HEX_BYTES 65

struct nnc_sha256;

/* Start a hash. Owner: the caller, until nnc_sha256_destroy().
 * Errors: -ENOMEM; -ENOTSUP when libcrypto refuses the algorithm. */
int nnc_sha256_create(struct nnc_sha256 **ret_hash);

/* Free it. NULL is fine. */
void nnc_sha256_destroy(struct nnc_sha256 *hash);

/* Add bytes. Errors: -EIO when libcrypto fails, which it does not for a software hash. */
int nnc_sha256_update(struct nnc_sha256 *hash, const void *data, size_t bytes);

/* End: the digest of all bytes so far. Nothing may be added after. Errors: as update. */
int nnc_sha256_finish(struct nnc_sha256 *hash, uint8_t ret_digest[NNC_SHA256_BYTES]);

/* As nnc_sha256_finish(), in text. Errors: as update. */
int nnc_sha256_hex(struct nnc_sha256 *hash, char ret_hex[NNC_SHA256_HEX_BYTES]);

#endif
