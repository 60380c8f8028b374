/* SPDX-License-Identifier: Apache-2.0 */
/* Guesses, sizes, durations, escaping and hashing. */
#include "base/sha256.h"
#include "base/text.h"

#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

Test(text, the_edit_distance_counts_each_kind_of_slip_once) {
    static const struct {
        const char *left, *right;
        unsigned want;
    } rows[] = {
        {"", "", 0},
        {"a", "", 1},
        {"", "abc", 3},
        {"batch", "batch", 0},
        {"bacth", "batch", 1},
        {"batc", "batch", 1},
        {"baatch", "batch", 1},
        {"bitch", "batch", 1},
        {"a_b", "a-b", 0},
        {"kitten", "sitting", 3},
    };
    for (size_t row = 0; row < sizeof(rows) / sizeof(rows[0]); row++) {
        cr_expect_eq(nnc_edit_distance(rows[row].left, rows[row].right), rows[row].want, "%s %s",
                     rows[row].left, rows[row].right);
        cr_expect_eq(nnc_edit_distance(rows[row].right, rows[row].left), rows[row].want);
    }
    char huge[1000];
    memset(huge, 'x', sizeof(huge) - 1);
    huge[sizeof(huge) - 1] = '\0';
    cr_expect_eq(nnc_edit_distance(huge, "x"), 63);
}

Test(text, only_a_near_word_is_proposed) {
    static const char *const words[] = {"train", "eval", "batch-size", "lr", NULL};
    static const struct {
        const char *word, *want;
    } rows[] = {
        {"trian", "train"},
        {"batchsize", "batch-size"},
        {"batch", "batch-size"},
        {"x", NULL},
        {"zzzzzz", NULL},
        {"evla", "eval"},
        {"", NULL},
        {"l", NULL},
    };
    for (size_t row = 0; row < sizeof(rows) / sizeof(rows[0]); row++) {
        const char *got = nnc_did_you_mean(rows[row].word, words);
        cr_expect_eq(got == NULL, rows[row].want == NULL, "%s: %s", rows[row].word, got);
        if (got != NULL && rows[row].want != NULL) {
            cr_expect_str_eq(got, rows[row].want);
        }
    }
    char text[64];
    nnc_did_you_mean_text("trian", words, "--", text, sizeof(text));
    cr_expect_str_eq(text, " (did you mean --train?)");
    nnc_did_you_mean_text("zzzz", words, "--", text, sizeof(text));
    cr_expect_str_eq(text, "");
}

Test(text, sizes_and_durations_are_short) {
    static const struct {
        uint64_t bytes;
        const char *want;
    } sizes[] = {
        {0, "0 B"},           {1023, "1023 B"},        {1024, "1.0 KiB"},        {1536, "1.5 KiB"},
        {1048575, "1.0 MiB"}, {1ull << 40, "1.0 TiB"}, {UINT64_MAX, "16.0 EiB"},
    };
    static const struct {
        double seconds;
        const char *want;
    } times[] = {
        {0, "0.0s"},     {0.44, "0.4s"}, {9.97, "10s"},   {59.4, "59s"},
        {59.6, "1m00s"}, {185, "3m05s"}, {7620, "2h07m"}, {273600, "3d04h"},
        {-1, "-"},       {NAN, "-"},     {INFINITY, "-"},
    };
    char text[16];
    for (size_t row = 0; row < sizeof(sizes) / sizeof(sizes[0]); row++) {
        nnc_text_bytes(sizes[row].bytes, text, sizeof(text));
        cr_expect_str_eq(text, sizes[row].want);
    }
    for (size_t row = 0; row < sizeof(times) / sizeof(times[0]); row++) {
        nnc_text_duration(times[row].seconds, text, sizeof(text));
        cr_expect_str_eq(text, times[row].want);
    }
}

Test(text, hostile_names_are_escaped) {
    static const struct {
        const char *text, *want;
    } rows[] = {
        {"plain name.jpg", "plain name.jpg"},
        {"caf\xc3\xa9", "caf\xc3\xa9"},
        {"\x1b[2J", "\\x1b[2J"},
        {"a\nb\\c\x7f", "a\\x0ab\\x5cc\\x7f"},
        {"\xff\xc3", "\\xff\\xc3"},
        {"\xc0\x80", "\\xc0\\x80"},          /* overlong */
        {"\xed\xa0\x80", "\\xed\\xa0\\x80"}, /* surrogate */
        {"\xe2\x80\xae", "\\xe2\\x80\\xae"}, /* right-to-left override */
        {"\xc2\x9b", "\\xc2\\x9b"},          /* C1 control: CSI */
        {"0123456789012345678901234567890123456789", "0123456789012345678901234567..."},
        {"0123456789012345678901234567\x01", "0123456789012345678901234567..."},
        {"0123456789012345678901234567890", "0123456789012345678901234567890"},
    };
    for (size_t row = 0; row < sizeof(rows) / sizeof(rows[0]); row++) {
        char text[32];
        nnc_text_escape(rows[row].text, text, sizeof(text));
        cr_expect_str_eq(text, rows[row].want, "row %zu: %s", row, text);
    }
}

Test(sha256, the_standards_examples_come_out) {
    /* FIPS 180-4 examples: "abc", the empty message, and a million times "a". */
    char hex[NNC_SHA256_HEX_BYTES];
    struct nnc_sha256 *hash = NULL;
    cr_assert_eq(nnc_sha256_create(&hash), 0);
    cr_assert_eq(nnc_sha256_hex(hash, hex), 0);
    cr_expect_str_eq(hex, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    nnc_sha256_destroy(hash);
    cr_assert_eq(nnc_sha256_create(&hash), 0);
    cr_assert_eq(nnc_sha256_update(hash, "a", 1), 0);
    cr_assert_eq(nnc_sha256_update(hash, "bc", 2), 0);
    cr_assert_eq(nnc_sha256_hex(hash, hex), 0);
    cr_expect_str_eq(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    nnc_sha256_destroy(hash);
    cr_assert_eq(nnc_sha256_create(&hash), 0);
    char block[1000];
    memset(block, 'a', sizeof(block));
    for (int number = 0; number < 1000; number++) {
        cr_assert_eq(nnc_sha256_update(hash, block, sizeof(block)), 0);
    }
    cr_assert_eq(nnc_sha256_hex(hash, hex), 0);
    cr_expect_str_eq(hex, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    nnc_sha256_destroy(hash);
    nnc_sha256_destroy(NULL);
}

Test(text, one_of_a_thing_has_no_plural) {
    cr_expect_str_eq(nnc_text_s(0), "s");
    cr_expect_str_eq(nnc_text_s(1), "");
    cr_expect_str_eq(nnc_text_s(2), "s");
}
