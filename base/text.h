/* SPDX-License-Identifier: Apache-2.0 */
/* Small helpers for text that people read. */
#ifndef NNC_BASE_TEXT_H
#define NNC_BASE_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Insertions, deletions, substitutions and swaps of neighbours that turn left into right. Only the
 * first 64 bytes of each count.
 * Source: optimal string alignment; Damerau, CACM 7(3), 1964. */
unsigned nnc_edit_distance(const char *left, const char *right);

/* The candidate closest to word, or NULL when none is close enough to be meant. candidates is
 * NULL-ended; '_' and '-' count as equal. */
const char *nnc_did_you_mean(const char *word, const char *const *candidates);

/* " (did you mean WORD?)" into ret_text, or "" when nothing is close. prefix goes before WORD, such
 * as
 * "--". Cut at room bytes. */
void nnc_did_you_mean_text(const char *word, const char *const *candidates, const char *prefix,
                           char *ret_text, size_t room);

/* "512 B", "1.5 KiB", "64.0 MiB" ... into ret_text; 16 bytes are always enough. */
void nnc_text_bytes(uint64_t bytes, char *ret_text, size_t room);

/* The ending of a counted noun, "s" but for 1: "%u loader%s". */
const char *nnc_text_s(uint64_t count);

/* "0.4s", "12s", "3m05s", "2h07m", "3d04h" into ret_text; 16 bytes are always enough. Negative and
 * unknown (NaN, infinite) are "-". Unit: seconds. */
void nnc_text_duration(double seconds, char *ret_text, size_t room);

/* True for valid UTF-8 without control characters, which includes "". */
bool nnc_text_is_plain(const char *text);

/* True for what may be a secret given in place of the file that has it: a word, not a path, with 32
 * or more hexadecimal digits in a row. No error text may repeat it. */
bool nnc_text_looks_secret(const char *text);

/* Copy a hostile name so that it can be printed: control bytes, DEL, backslash and bytes that are
 * not part of valid UTF-8 become \xNN. A text that does not fit ends in "...". room >= 4 (assert).
 */
void nnc_text_escape(const char *text, char *ret_text, size_t room);

#endif
