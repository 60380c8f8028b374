/* SPDX-License-Identifier: Apache-2.0 */
/* Tags under a key: published values, one after the other from one state, in parts of any size. */
#include "base/err.h"
#include "base/hmac.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

/* RFC 4231, section 4. Keys shorter than a block are filled up with zeros, so those of 32 bytes
 * that end in zeros have the same tags. */
static const struct {
    uint8_t key[NNC_HMAC_KEY_BYTES];
    const char *message, *tag;
} rows[] = {
    {"\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b", "Hi There",
     "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"},
    {"Jefe", "what do ya want for nothing?",
     "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"},
};

static struct nnc_hmac *make(size_t row) {
    struct nnc_hmac *hmac;
    cr_assert_eq(nnc_hmac_create(rows[row].key, &hmac), 0, "%s", nnc_error_text());
    return hmac;
}

/* The row's message in two parts, cut at `cut`, with nothing between. */
static void cut_message(size_t row, size_t cut, struct iovec ret_parts[3]) {
    const char *message = rows[row].message;
    ret_parts[0] = (struct iovec){(void *)(uintptr_t)message, cut};
    ret_parts[1] = (struct iovec){NULL, 0};
    ret_parts[2] = (struct iovec){(void *)(uintptr_t)(message + cut), strlen(message) - cut};
}

Test(hmac, published_tags_come_out_each_time_and_however_a_message_is_cut) {
    for (size_t row = 0; row < sizeof(rows) / sizeof(rows[0]); row++) {
        struct nnc_hmac *hmac = make(row);
        for (size_t cut = 0; cut <= strlen(rows[row].message); cut++) {
            struct iovec parts[3];
            uint8_t tag[NNC_HMAC_TAG_BYTES];
            char text[2 * NNC_HMAC_TAG_BYTES + 1];
            cut_message(row, cut, parts);
            cr_assert_eq(nnc_hmac_tag(hmac, parts, 3, tag), 0);
            for (size_t i = 0; i < sizeof(tag); i++) {
                snprintf(text + 2 * i, 3, "%02x", tag[i]);
            }
            cr_assert_str_eq(text, rows[row].tag);
            cr_assert_eq(nnc_hmac_check(hmac, parts, 3, tag), 1);
        }
        nnc_hmac_destroy(hmac);
    }
}

Test(hmac, every_bit_of_a_tag_counts) {
    struct nnc_hmac *hmac = make(0);
    struct iovec parts[3];
    uint8_t tag[NNC_HMAC_TAG_BYTES];
    cut_message(0, 4, parts);
    cr_assert_eq(nnc_hmac_tag(hmac, parts, 3, tag), 0);
    for (size_t bit = 0; bit < 8 * sizeof(tag); bit++) {
        tag[bit / 8] ^= (uint8_t)(1 << bit % 8);
        cr_assert_eq(nnc_hmac_check(hmac, parts, 3, tag), 0, "bit %zu", bit);
        tag[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    cr_assert_eq(nnc_hmac_check(hmac, parts, 3, tag), 1);
    nnc_hmac_destroy(hmac);
    nnc_hmac_destroy(NULL);
}
