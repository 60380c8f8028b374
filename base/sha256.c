/* SPDX-License-Identifier: Apache-2.0 */
/* SHA-256 over libcrypto's EVP interface, which uses the processor's SHA instructions; see
 * sha256.h. Only this file and hmac.c include libcrypto, so that another library can take its
 * place. */
#include "base/sha256.h"

#include "base/err.h"

#include <errno.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

struct nnc_sha256 {
    EVP_MD_CTX *context;
};

int nnc_sha256_create(struct nnc_sha256 **ret_hash) {
    struct nnc_sha256 *hash = calloc(1, sizeof(*hash));
    if (hash == NULL) {
        return nnc_fail(-ENOMEM, "no memory for a SHA-256 state");
    }
    hash->context = EVP_MD_CTX_new();
    if (hash->context == NULL || EVP_DigestInit_ex(hash->context, EVP_sha256(), NULL) != 1) {
        nnc_sha256_destroy(hash);
        return nnc_fail(-ENOTSUP, "libcrypto does not provide SHA-256");
    }
    *ret_hash = hash;
    return 0;
}

void nnc_sha256_destroy(struct nnc_sha256 *hash) {
    if (hash != NULL) {
        EVP_MD_CTX_free(hash->context);
        free(hash);
    }
}

int nnc_sha256_update(struct nnc_sha256 *hash, const void *data, size_t bytes) {
    if (EVP_DigestUpdate(hash->context, data, bytes) != 1) {
        return nnc_fail(-EIO, "libcrypto failed to hash %zu bytes", bytes);
    }
    return 0;
}

int nnc_sha256_finish(struct nnc_sha256 *hash, uint8_t ret_digest[NNC_SHA256_BYTES]) {
    uint8_t digest[EVP_MAX_MD_SIZE];
    if (EVP_DigestFinal_ex(hash->context, digest, NULL) != 1) {
        return nnc_fail(-EIO, "libcrypto failed to end a hash");
    }
    memcpy(ret_digest, digest, NNC_SHA256_BYTES);
    return 0;
}

int nnc_sha256_hex(struct nnc_sha256 *hash, char ret_hex[NNC_SHA256_HEX_BYTES]) {
    uint8_t digest[NNC_SHA256_BYTES];
    int code = nnc_sha256_finish(hash, digest);
    if (code < 0) {
        return code;
    }
    static const char digits[] = "0123456789abcdef";
    for (size_t place = 0; place < sizeof(digest); place++) {
        ret_hex[2 * place] = digits[digest[place] >> 4];
        ret_hex[2 * place + 1] = digits[digest[place] & 15];
    }
    ret_hex[NNC_SHA256_HEX_BYTES - 1] = '\0';
    return 0;
}
