/* SPDX-License-Identifier: Apache-2.0 */
/* Tags that only who has the key can make: HMAC-SHA256. Source: RFC 2104, FIPS 180-4, through
 * libcrypto. */
#ifndef NNC_BASE_HMAC_H
#define NNC_BASE_HMAC_H

#include <stdint.h>
#include <sys/uio.h>

#define NNC_HMAC_KEY_BYTES 32
#define NNC_HMAC_TAG_BYTES 32

struct nnc_hmac;

/* Set up for one key, which is copied; any number of tags can be made, one after the other.
 * Owner: the caller, until nnc_hmac_destroy().
 * Errors: -ENOMEM; -ENOTSUP when libcrypto refuses the algorithm. */
int nnc_hmac_create(const uint8_t key[NNC_HMAC_KEY_BYTES], struct nnc_hmac **ret_hmac);

/* Wipe the key and free. NULL is fine. */
void nnc_hmac_destroy(struct nnc_hmac *hmac);

/* The tag of the `count` parts as one message; empty parts are fine.
 * Errors: -EIO when libcrypto fails, which it does not for a software hash. */
int nnc_hmac_tag(struct nnc_hmac *hmac, const struct iovec *parts, unsigned count,
                 uint8_t ret_tag[NNC_HMAC_TAG_BYTES]);

/* Is tag that of the parts? 1 yes, 0 no; how long the compare takes does not tell how much of it is
 * right. Errors: as nnc_hmac_tag(). */
int nnc_hmac_check(struct nnc_hmac *hmac, const struct iovec *parts, unsigned count,
                   const uint8_t tag[NNC_HMAC_TAG_BYTES]);

#endif
