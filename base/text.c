/* SPDX-License-Identifier: Apache-2.0 */
/* Text for people: guesses at what was meant, sizes, durations, names that cannot harm a terminal.
 * Nothing here allocates or fails; what does not fit is cut. See text.h. */
#include "base/text.h"

#include <assert.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

enum {
    WORD_MAX = 64,      /* bytes of a word that count for its distance */
    SECRET_DIGITS = 32, /* half a secret of a run is one too */
};

static unsigned min_unsigned(unsigned left, unsigned right) {
    return left < right ? left : right;
}

static char fold_dash(char letter) {
    return letter == '_' ? '-' : letter;
}

unsigned nnc_edit_distance(const char *left, const char *right) {
    size_t rows = strnlen(left, WORD_MAX), columns = strnlen(right, WORD_MAX);
    /* Three rows of the table: the one being made and the two before it. */
    unsigned table[3][WORD_MAX + 1];
    for (size_t row = 0; row <= rows; row++) {
        unsigned *now = table[row % 3], *last = table[(row + 2) % 3], *older = table[(row + 1) % 3];
        now[0] = (unsigned)row;
        for (size_t column = 1; column <= columns; column++) {
            if (row == 0) {
                now[column] = (unsigned)column;
                continue;
            }
            char a = fold_dash(left[row - 1]), b = fold_dash(right[column - 1]);
            unsigned best = min_unsigned(last[column], now[column - 1]) + 1;
            best = min_unsigned(best, last[column - 1] + (a != b));
            if (row > 1 && column > 1 && a == fold_dash(right[column - 2]) &&
                b == fold_dash(left[row - 2])) {
                best = min_unsigned(best, older[column - 2] + 1);
            }
            now[column] = best;
        }
    }
    return table[rows % 3][columns];
}

const char *nnc_did_you_mean(const char *word, const char *const *candidates) {
    const char *best = NULL;
    /* A third of the word may be wrong, but a single letter is no evidence. */
    unsigned best_distance = (unsigned)strnlen(word, WORD_MAX) / 3 + 1;
    const char *longer = NULL; /* starts with word: "batch" for "batch-size" */
    size_t length = strlen(word);
    for (; *candidates != NULL; candidates++) {
        unsigned distance = nnc_edit_distance(word, *candidates);
        if (distance < best_distance && distance < strlen(*candidates)) {
            best = *candidates;
            best_distance = distance;
        }
        if (longer == NULL && length >= 3 && strncmp(word, *candidates, length) == 0) {
            longer = *candidates;
        }
    }
    return best != NULL ? best : longer;
}

void nnc_did_you_mean_text(const char *word, const char *const *candidates, const char *prefix,
                           char *ret_text, size_t room) {
    const char *meant = nnc_did_you_mean(word, candidates);
    if (meant == NULL) {
        ret_text[0] = '\0';
        return;
    }
    snprintf(ret_text, room, " (did you mean %s%s?)", prefix, meant);
}

void nnc_text_bytes(uint64_t bytes, char *ret_text, size_t room) {
    static const char *const units[] = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    if (bytes < 1024) {
        snprintf(ret_text, room, "%u B", (unsigned)bytes);
        return;
    }
    double value = (double)bytes / 1024;
    size_t unit = 0;
    while (value >= 1023.95 && unit + 1 < sizeof(units) / sizeof(units[0])) {
        value /= 1024;
        unit++;
    }
    snprintf(ret_text, room, "%.1f %s", value, units[unit]);
}

const char *nnc_text_s(uint64_t count) {
    return count == 1 ? "" : "s";
}

void nnc_text_duration(double seconds, char *ret_text, size_t room) {
    if (!isfinite(seconds) || seconds < 0 || seconds > 1e10) {
        snprintf(ret_text, room, "-");
        return;
    }
    unsigned long whole = (unsigned long)(seconds + 0.5);
    if (seconds < 9.95) {
        snprintf(ret_text, room, "%.1fs", seconds);
    } else if (whole < 60) {
        snprintf(ret_text, room, "%lus", whole);
    } else if (whole < 3600) {
        snprintf(ret_text, room, "%lum%02lus", whole / 60, whole % 60);
    } else if (whole < 86400) {
        snprintf(ret_text, room, "%luh%02lum", whole / 3600, whole / 60 % 60);
    } else {
        snprintf(ret_text, room, "%lud%02luh", whole / 86400, whole / 3600 % 24);
    }
}

/* Length of the printable UTF-8 character at text, 0 when there is none. */
static size_t printable_bytes(const unsigned char *text) {
    unsigned char first = text[0];
    if (first < 0x80) {
        return first >= 0x20 && first != 0x7f;
    }
    size_t length = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
    if (first < 0xc2 || first > 0xf4) {
        return 0;
    }
    uint32_t point = first & (0xffu >> (length + 1));
    for (size_t place = 1; place < length; place++) {
        if ((text[place] & 0xc0) != 0x80) {
            return 0;
        }
        point = point << 6 | (text[place] & 0x3f);
    }
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    bool is_control = point < 0xa0;
    bool is_direction = (point >= 0x200e && point <= 0x200f) ||
                        (point >= 0x2028 && point <= 0x202e) ||
                        (point >= 0x2066 && point <= 0x2069);
    bool is_valid =
        point >= least[length] && point <= 0x10ffff && (point < 0xd800 || point > 0xdfff);
    return is_valid && !is_control && !is_direction ? length : 0;
}

bool nnc_text_looks_secret(const char *text) {
    size_t longest = 0;
    for (const char *at = text; *at != '\0';) {
        size_t digits = strspn(at, "0123456789abcdefABCDEF");
        longest = digits > longest ? digits : longest;
        at += digits > 0 ? digits : 1;
    }
    return longest >= SECRET_DIGITS && strchr(text, '/') == NULL;
}

bool nnc_text_is_plain(const char *text) {
    while (*text != '\0') {
        size_t length = printable_bytes((const unsigned char *)text);
        if (length == 0) {
            return false;
        }
        text += length;
    }
    return true;
}

void nnc_text_escape(const char *text, char *ret_text, size_t room) {
    assert(room >= 4);
    size_t used = 0, cut = 0; /* cut: where "..." still fits */
    while (*text != '\0') {
        char piece[8];
        size_t length = *text == '\\' ? 0 : printable_bytes((const unsigned char *)text);
        if (length > 0) {
            memcpy(piece, text, length);
            text += length;
        } else {
            length = (size_t)snprintf(piece, sizeof(piece), "\\x%02x", (unsigned char)*text++);
        }
        if (used + length + 1 > room) {
            memcpy(ret_text + cut, "...", 4);
            return;
        }
        memcpy(ret_text + used, piece, length);
        used += length;
        cut = used + 4 <= room ? used : cut;
    }
    ret_text[used] = '\0';
}
