/* SPDX-License-Identifier: Apache-2.0 */
/* What the machines of a training must have alike: every option of train whose row does not say
 * .local, as lines "name: value" in the table's order, printed as everywhere else (option.c).
 *
 * Machine 0 compares the lines of another machine with its own, one by one. Both are of one build,
 * which is proved before; so a line that is not there or has another name is no difference between
 * versions but nonsense, and is called that.
 *
 * Invariant: nothing of the other machine's text is trusted: it is read within its bytes, and shown
 * cut and escaped. */
#include "base/config_table.h"

#include "base/err.h"
#include "base/text.h"

#include <errno.h>
#include <string.h>

enum {
    VALUE_BYTES = NNC_PATH_MAX + 16,
    SHOWN_BYTES = 96, /* of a value in words */
};

static bool is_shared(const struct nnc_option *option) {
    return (option->verbs & NNC_VERB_TRAIN) != 0 && !option->local;
}

ssize_t nnc_config_print_shared(const struct nnc_config *config, char *ret_text, size_t room) {
    size_t used = 0;
    for (size_t row = 0; row < nnc_config_option_count; row++) {
        const struct nnc_option *option = &nnc_config_options[row];
        if (!is_shared(option)) {
            continue;
        }
        char value[VALUE_BYTES];
        nnc_option_print(option, config, value, sizeof(value));
        int length = snprintf(ret_text + used, room - used, "%s: %s\n", option->name, value);
        if ((size_t)length >= room - used) {
            return nnc_fail(-ENOBUFS, "the options of a training do not fit into %zu bytes", room);
        }
        used += (size_t)length;
    }
    return (ssize_t)used;
}

/* The value in the line "name: value" at the beginning of text; NULL: it is no such line. */
static const char *find_value(const struct nnc_option *option, const char *text, size_t bytes) {
    size_t length = strlen(option->name);
    bool is_named = bytes >= length + 2 && memcmp(text, option->name, length) == 0 &&
                    memcmp(text + length, ": ", 2) == 0;
    return is_named ? text + length + 2 : NULL;
}

/* A value as it can be shown; an empty one has to be called something. */
static void show(const char *value, size_t bytes, char ret_text[SHOWN_BYTES]) {
    char copy[VALUE_BYTES];
    size_t kept = bytes < sizeof(copy) - 1 ? bytes : sizeof(copy) - 1;
    memcpy(copy, value, kept);
    copy[kept] = '\0';
    nnc_text_escape(bytes == 0 ? "not given" : copy, ret_text, SHOWN_BYTES);
}

int nnc_config_compare_shared(const struct nnc_config *own, const char *other, size_t bytes,
                              char *ret_words, size_t room) {
    const char *at = other, *end = other + bytes;
    for (size_t row = 0; row < nnc_config_option_count; row++) {
        const struct nnc_option *option = &nnc_config_options[row];
        if (!is_shared(option)) {
            continue;
        }
        size_t left = (size_t)(end - at);
        const char *line_end = left > 0 ? memchr(at, '\n', left) : NULL;
        const char *value =
            line_end != NULL ? find_value(option, at, (size_t)(line_end - at)) : NULL;
        if (value == NULL) {
            snprintf(ret_words, room, "its options are not told as they should be, at --%s",
                     option->name);
            return 1;
        }
        char here[VALUE_BYTES], shown_here[SHOWN_BYTES], shown_there[SHOWN_BYTES];
        size_t length = (size_t)(line_end - value);
        nnc_option_print(option, own, here, sizeof(here));
        if (strlen(here) != length || memcmp(here, value, length) != 0) {
            show(value, length, shown_there);
            show(here, strlen(here), shown_here);
            snprintf(ret_words, room, "--%s is %s there and %s on node 0", option->name,
                     shown_there, shown_here);
            return 1;
        }
        at = line_end + 1;
    }
    if (at != end) {
        snprintf(ret_words, room, "its options are followed by something else");
        return 1;
    }
    return 0;
}
