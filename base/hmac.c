/* SPDX-License-Identifier: Apache-2.0 */
/* HMAC-SHA256 over libcrypto's EVP_MAC interface, which uses the processor's SHA instructions; see
 * hmac.h. The key is digested once, in create: what a tag costs is its bytes. */
#include "base/hmac.h"

#include "base/err.h"

#include <errno.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/params.h>
#include <stdlib.h>
#include <string.h>

struct nnc_hmac {
    EVP_MAC_CTX *context;
};

/* A context with the key in it, or NULL. */
static EVP_MAC_CTX *make_context(const uint8_t *key) {
    char digest[] = "SHA256";
    const OSSL_PARAM params[] = {
        OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0),
        OSSL_PARAM_construct_end(),
    };
    EVP_MAC *algorithm = EVP_MAC_fetch(NULL, "HMAC", NULL);
    /* The context holds a reference of its own. */
    EVP_MAC_CTX *context = algorithm == NULL ? NULL : EVP_MAC_CTX_new(algorithm);
    EVP_MAC_free(algorithm);
    if (context != NULL && EVP_MAC_init(context, key, NNC_HMAC_KEY_BYTES, params) != 1) {
        EVP_MAC_CTX_free(context);
        return NULL;
    }
    return context;
}

int nnc_hmac_create(const uint8_t key[NNC_HMAC_KEY_BYTES], struct nnc_hmac **ret_hmac) {
    struct nnc_hmac *hmac = calloc(1, sizeof(*hmac));
    if (hmac == NULL) {
        return nnc_fail(-ENOMEM, "no memory for an HMAC state");
    }
    hmac->context = make_context(key);
    if (hmac->context == NULL) {
        free(hmac);
        return nnc_fail(-ENOTSUP, "libcrypto does not provide HMAC-SHA256");
    }
    *ret_hmac = hmac;
    return 0;
}

void nnc_hmac_destroy(struct nnc_hmac *hmac) {
    if (hmac != NULL) {
        /* Wipes what it frees. */
        EVP_MAC_CTX_free(hmac->context);
        free(hmac);
    }
}

int nnc_hmac_tag(struct nnc_hmac *hmac, const struct iovec *parts, unsigned count,
                 uint8_t ret_tag[NNC_HMAC_TAG_BYTES]) {
    /* Without a key: the one it has, whose digest it kept. */
    int done = EVP_MAC_init(hmac->context, NULL, 0, NULL);
    for (unsigned i = 0; i < count && done == 1; i++) {
        if (parts[i].iov_len > 0) {
            done = EVP_MAC_update(hmac->context, parts[i].iov_base, parts[i].iov_len);
        }
    }
    uint8_t tag[NNC_HMAC_TAG_BYTES];
    size_t bytes = 0;
    if (done != 1 || EVP_MAC_final(hmac->context, tag, &bytes, sizeof(tag)) != 1 ||
        bytes != sizeof(tag)) {
        return nnc_fail(-EIO, "libcrypto failed to make a tag");
    }
    memcpy(ret_tag, tag, sizeof(tag));
    return 0;
}

int nnc_hmac_check(struct nnc_hmac *hmac, const struct iovec *parts, unsigned count,
                   const uint8_t tag[NNC_HMAC_TAG_BYTES]) {
    uint8_t right[NNC_HMAC_TAG_BYTES];
    int code = nnc_hmac_tag(hmac, parts, count, right);
    if (code < 0) {
        return code;
    }
    int differs = CRYPTO_memcmp(right, tag, sizeof(right));
    /* The right tag of a forged frame is what its forger wants to know. */
    OPENSSL_cleanse(right, sizeof(right));
    return differs == 0;
}
