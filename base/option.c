/* SPDX-License-Identifier: Apache-2.0 */
/* Values of options to and from text; see option.h.
 *
 * 1. Text is hostile: command line, environment and files go through the same functions. Length,
 *    sign, range, finiteness and encoding are checked before anything is stored.
 * 2. parse(print(x)) == x, bit for bit, for every value that parse can make.
 * 3. A failed parse leaves the struct as it was.
 *
 * It does not know where the text came from: the caller adds option, file and line to the error. */
#include "base/option.h"

#include "base/err.h"
#include "base/text.h"

#include <assert.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    SHOWN_BYTES = 80,       /* of a wrong value in an error text */
    CHOICES_MAX = 32,       /* names in one row */
    DOUBLE_TEXT_BYTES = 32, /* longest text of a double is 24 bytes */
};

struct shown {
    char text[SHOWN_BYTES];
};

static struct shown show(const char *text) {
    struct shown shown;
    nnc_text_escape(nnc_text_looks_secret(text) ? "..." : text, shown.text, sizeof(shown.text));
    return shown;
}

static const struct nnc_choice *find_choice(const struct nnc_choice *choices, const char *text) {
    for (; choices != NULL && choices->name != NULL; choices++) {
        if (nnc_edit_distance(choices->name, text) == 0 && strlen(choices->name) == strlen(text)) {
            return choices;
        }
    }
    return NULL;
}

static const char *choice_name(const struct nnc_choice *choices, int64_t value) {
    for (; choices != NULL && choices->name != NULL; choices++) {
        if (choices->value == value) {
            return choices->name;
        }
    }
    return NULL;
}

/* "a, b or c" of the first name of each value. */
static void list_choices(const struct nnc_choice *choices, char *ret_text, size_t room) {
    size_t used = 0;
    ret_text[0] = '\0';
    for (const struct nnc_choice *choice = choices; choice->name != NULL && used < room; choice++) {
        if (choice_name(choices, choice->value) == choice->name) {
            used += (size_t)snprintf(ret_text + used, room - used, "%s%s", used > 0 ? ", " : "",
                                     choice->name);
        }
    }
}

static int fail_choice(const struct nnc_option *option, const char *text) {
    const char *names[CHOICES_MAX + 1] = {NULL};
    for (size_t row = 0; option->choices[row].name != NULL; row++) {
        assert(row < CHOICES_MAX);
        names[row] = option->choices[row].name;
    }
    char list[256], meant[128];
    list_choices(option->choices, list, sizeof(list));
    nnc_did_you_mean_text(text, names, "", meant, sizeof(meant));
    return nnc_fail(-NNC_E_USAGE, "\"%s\" is none of %s%s", show(text).text, list, meant);
}

/* "is not WHAT", with the range and the named values. */
static int fail_number(const struct nnc_option *option, const char *text, const char *what) {
    char names[256] = "", unit[64] = "";
    if (option->choices != NULL) {
        char list[200];
        list_choices(option->choices, list, sizeof(list));
        snprintf(names, sizeof(names), " or %s", list);
    }
    if (option->unit[0] != '\0') {
        snprintf(unit, sizeof(unit), " %s", option->unit);
    }
    return nnc_fail(-NNC_E_USAGE, "\"%s\" %s; %.15g to %.15g%s%s expected", show(text).text, what,
                    option->min, option->max, unit, names);
}

static int parse_string(const struct nnc_option *option, const char *text, void *field) {
    size_t length = strlen(text);
    if (length >= option->bytes) {
        return nnc_fail(-NNC_E_USAGE, "\"%s\" has %zu bytes, at most %zu fit", show(text).text,
                        length, option->bytes - 1);
    }
    if (!nnc_text_is_plain(text)) {
        return nnc_fail(-NNC_E_USAGE, "\"%s\" has control characters or is not UTF-8",
                        show(text).text);
    }
    memset(field, 0, option->bytes);
    memcpy(field, text, length);
    return 0;
}

static int parse_bool(const struct nnc_option *option, const char *text, void *field) {
    (void)option;
    static const struct nnc_choice words[] = {{"true", 1}, {"yes", 1},   {"on", 1},
                                              {"1", 1},    {"false", 0}, {"no", 0},
                                              {"off", 0},  {"0", 0},     {NULL, 0}};
    const struct nnc_choice *word = find_choice(words, text);
    if (word == NULL) {
        return nnc_fail(-NNC_E_USAGE, "\"%s\" is neither true nor false", show(text).text);
    }
    *(bool *)field = word->value != 0;
    return 0;
}

/* A whole number within the row's range. */
static int parse_whole(const struct nnc_option *option, const char *text, uint64_t *ret_value) {
    const struct nnc_choice *choice = find_choice(option->choices, text);
    if (choice != NULL) {
        assert(choice->value >= 0);
        *ret_value = (uint64_t)choice->value;
        return 0;
    }
    if (text[0] == '-') {
        return fail_number(option, text, "is negative");
    }
    if (text[0] == '\0' || strspn(text, "0123456789") != strlen(text)) {
        return fail_number(option, text, "is not a whole number");
    }
    errno = 0;
    unsigned long long value = strtoull(text, NULL, 10);
    if (errno == ERANGE || (double)value < option->min || (double)value > option->max) {
        return fail_number(option, text, "is out of range");
    }
    *ret_value = value;
    return 0;
}

static int parse_u32(const struct nnc_option *option, const char *text, void *field) {
    uint64_t value;
    int code = parse_whole(option, text, &value);
    if (code == 0) {
        assert(value <= UINT32_MAX); /* the row's max is within the type */
        *(uint32_t *)field = (uint32_t)value;
    }
    return code;
}

static int parse_u64(const struct nnc_option *option, const char *text, void *field) {
    uint64_t value;
    int code = parse_whole(option, text, &value);
    if (code == 0) {
        *(uint64_t *)field = value;
    }
    return code;
}

static int parse_enum(const struct nnc_option *option, const char *text, void *field) {
    const struct nnc_choice *choice = find_choice(option->choices, text);
    if (choice == NULL) {
        return fail_choice(option, text);
    }
    *(int32_t *)field = (int32_t)choice->value;
    return 0;
}

static int parse_double(const struct nnc_option *option, const char *text, void *field) {
    const struct nnc_choice *choice = find_choice(option->choices, text);
    if (choice != NULL) {
        *(double *)field = (double)choice->value;
        return 0;
    }
    char *end = NULL;
    /* strtod would also take white space, hexadecimal, "inf" and "nan". */
    bool is_plain = strspn(text, "0123456789.eE+-") == strlen(text);
    double value = is_plain ? strtod(text, &end) : 0;
    if (!is_plain || end == text || *end != '\0') {
        return fail_number(option, text, "is not a number");
    }
    if (!isfinite(value) || value < option->min || value > option->max) {
        return fail_number(option, text, "is out of range");
    }
    *(double *)field = value + 0.0; /* never -0, which prints as 0 */
    return 0;
}

static int parse_doubles(const struct nnc_option *option, const char *text, void *field) {
    double values[8];
    size_t room = option->bytes / sizeof(double), count = 0;
    assert(room <= sizeof(values) / sizeof(values[0]));
    for (const char *at = text;; at++) {
        char item[64];
        size_t length = strcspn(at, ",");
        if (count == room || length >= sizeof(item)) {
            return nnc_fail(-NNC_E_USAGE, "\"%s\" is not a list of 1 or %zu numbers",
                            show(text).text, room);
        }
        memcpy(item, at, length);
        item[length] = '\0';
        int code = parse_double(option, item, &values[count++]);
        if (code < 0) {
            return code;
        }
        at += length;
        if (*at == '\0') {
            break;
        }
    }
    if (count != 1 && count != room) {
        return nnc_fail(-NNC_E_USAGE, "\"%s\" has %zu numbers, 1 or %zu expected", show(text).text,
                        count, room);
    }
    for (size_t place = count; place < room; place++) {
        values[place] = values[0];
    }
    memcpy(field, values, option->bytes);
    return 0;
}

static void print_string(const struct nnc_option *option, const void *field, char *ret_text,
                         size_t room) {
    snprintf(ret_text, room, "%.*s", (int)option->bytes, (const char *)field);
}

static void print_bool(const struct nnc_option *option, const void *field, char *ret_text,
                       size_t room) {
    (void)option;
    snprintf(ret_text, room, "%s", *(const bool *)field ? "true" : "false");
}

static void print_u64(const struct nnc_option *option, const void *field, char *ret_text,
                      size_t room) {
    uint64_t value =
        option->type == NNC_OPTION_U64 ? *(const uint64_t *)field : *(const uint32_t *)field;
    const char *name = value <= INT64_MAX ? choice_name(option->choices, (int64_t)value) : NULL;
    if (name != NULL) {
        snprintf(ret_text, room, "%s", name);
    } else {
        snprintf(ret_text, room, "%llu", (unsigned long long)value);
    }
}

static void print_enum(const struct nnc_option *option, const void *field, char *ret_text,
                       size_t room) {
    const char *name = choice_name(option->choices, *(const int32_t *)field);
    assert(name != NULL);
    snprintf(ret_text, room, "%s", name);
}

static void print_double(const struct nnc_option *option, const void *field, char *ret_text,
                         size_t room) {
    double value = *(const double *)field;
    int64_t whole = fabs(value) < 1e15 ? (int64_t)value : 0;
    const char *name = (double)whole == value ? choice_name(option->choices, whole) : NULL;
    if (name != NULL) {
        snprintf(ret_text, room, "%s", name);
        return;
    }
    char text[DOUBLE_TEXT_BYTES];
    for (int digits = 6; digits <= 17; digits++) {
        snprintf(text, sizeof(text), "%.*g", digits, value);
        if (strtod(text, NULL) == value) {
            break;
        }
    }
    snprintf(ret_text, room, "%s", text);
}

static void print_doubles(const struct nnc_option *option, const void *field, char *ret_text,
                          size_t room) {
    size_t used = 0;
    for (size_t place = 0; place < option->bytes / sizeof(double) && used + 1 < room; place++) {
        char text[DOUBLE_TEXT_BYTES];
        print_double(option, (const double *)field + place, text, sizeof(text));
        used += (size_t)snprintf(ret_text + used, room - used, "%s%s", used > 0 ? "," : "", text);
    }
}

struct type_functions {
    int (*parse)(const struct nnc_option *option, const char *text, void *field);
    void (*print)(const struct nnc_option *option, const void *field, char *ret_text, size_t room);
};

static const struct type_functions types[] = {
    [NNC_OPTION_STRING] = {.parse = parse_string, .print = print_string},
    [NNC_OPTION_BOOL] = {.parse = parse_bool, .print = print_bool},
    [NNC_OPTION_LEVEL] = {.parse = parse_u32, .print = print_u64},
    [NNC_OPTION_U32] = {.parse = parse_u32, .print = print_u64},
    [NNC_OPTION_U64] = {.parse = parse_u64, .print = print_u64},
    [NNC_OPTION_ENUM] = {.parse = parse_enum, .print = print_enum},
    [NNC_OPTION_DOUBLE] = {.parse = parse_double, .print = print_double},
    [NNC_OPTION_DOUBLES] = {.parse = parse_doubles, .print = print_doubles},
};
_Static_assert(sizeof(types) / sizeof(types[0]) == NNC_OPTION_TYPE_COUNT, "a type has no row");

int nnc_option_parse(const struct nnc_option *option, const char *text, void *base) {
    return types[option->type].parse(option, text, (char *)base + option->offset);
}

void nnc_option_print(const struct nnc_option *option, const void *base, char *ret_text,
                      size_t room) {
    types[option->type].print(option, (const char *)base + option->offset, ret_text, room);
}

bool nnc_option_equal(const struct nnc_option *option, const void *left, const void *right) {
    const char *one = (const char *)left + option->offset;
    const char *two = (const char *)right + option->offset;
    if (option->type == NNC_OPTION_STRING) {
        return strncmp(one, two, option->bytes) == 0;
    }
    return memcmp(one, two, option->bytes) == 0;
}
