/* SPDX-License-Identifier: Apache-2.0 */
/* Help texts for a terminal, made from the tables of options and verbs; see config_table.h.
 * 80 columns: the option on the left, what it does, its default and its unit on the right. */
#include "base/config_table.h"

#include <stdio.h>
#include <string.h>

enum {
    WIDTH = 80,
    INDENT = 28, /* where explanations start */
    NOTE_BYTES = 160,
};

static size_t print_choices(const struct nnc_option *option, const char *separator, char *ret_text,
                            size_t room) {
    size_t used = 0;
    for (const struct nnc_choice *choice = option->choices; choice->name != NULL; choice++) {
        bool is_first = true; /* of its value's names */
        for (const struct nnc_choice *other = option->choices; other < choice; other++) {
            is_first = is_first && other->value != choice->value;
        }
        if (is_first && used + 1 < room) {
            used += (size_t)snprintf(ret_text + used, room - used, "%s%s",
                                     used > 0 ? separator : "", choice->name);
        }
    }
    return used;
}

void nnc_config_value_name(const struct nnc_option *option, char *ret_text, size_t room) {
    size_t used = 0;
    ret_text[0] = '\0';
    switch (option->type) {
    case NNC_OPTION_BOOL:
    case NNC_OPTION_LEVEL:
        return;
    case NNC_OPTION_STRING:
        snprintf(ret_text, room, "%s", option->unit);
        return;
    case NNC_OPTION_ENUM:
        print_choices(option, "|", ret_text, room);
        return;
    case NNC_OPTION_DOUBLES:
        snprintf(ret_text, room, "X,X,X");
        return;
    default:
        used = (size_t)snprintf(ret_text, room, option->type == NNC_OPTION_DOUBLE ? "X" : "N");
        if (option->choices != NULL && used + 1 < room) {
            ret_text[used++] = '|';
            print_choices(option, "|", ret_text + used, room - used);
        }
    }
}

void nnc_config_value_note(const struct nnc_option *option, char *ret_text, size_t room) {
    bool is_told = option->def[0] != '\0' && option->type != NNC_OPTION_LEVEL;
    if (option->type == NNC_OPTION_BOOL) {
        is_told = strcmp(option->def, "true") == 0;
    }
    bool is_number = option->def[0] >= '0' && option->def[0] <= '9' && option->unit[0] != '\0';
    ret_text[0] = '\0';
    if (is_told) {
        snprintf(ret_text, room, "default %s%s%s", option->def, is_number ? " " : "",
                 is_number ? option->unit : "");
    }
}

/* Print words from column `column` on, in lines that start at column `indent`. */
static void print_wrapped(FILE *out, const char *text, size_t column, size_t indent) {
    const char *at = text;
    while (*at != '\0') {
        size_t length = strcspn(at, " ");
        if (column > indent && column + 1 + length > WIDTH) {
            fprintf(out, "\n");
            column = 0;
        }
        if (column < indent) {
            fprintf(out, "%*s", (int)(indent - column), "");
            column = indent;
        } else if (column > indent) {
            fprintf(out, " ");
            column++;
        }
        fprintf(out, "%.*s", (int)length, at);
        column += length;
        at += length;
        at += strspn(at, " ");
    }
    fprintf(out, "\n");
}

/* "  -j, --workers N|auto" and the explanation beside it, or below where it is too long. */
static void print_entry(FILE *out, const char *left, const char *text) {
    size_t length = strlen(left);
    fprintf(out, "%s", left);
    if (length + 2 > INDENT) {
        fprintf(out, "\n");
        length = 0;
    }
    print_wrapped(out, text, length, INDENT);
}

static void print_option(FILE *out, const struct nnc_option *option) {
    char left[160], value[120], note[NOTE_BYTES], text[512];
    nnc_config_value_name(option, value, sizeof(value));
    nnc_config_value_note(option, note, sizeof(note));
    char flag[8] = "    ";
    if (option->flag != 0) {
        snprintf(flag, sizeof(flag), "-%c, ", option->flag);
    }
    const char *no = option->type == NNC_OPTION_BOOL ? "[no-]" : "";
    snprintf(left, sizeof(left), "  %s--%s%s%s%s", flag, no, option->name,
             value[0] != '\0' ? " " : "", value);
    size_t used = (size_t)snprintf(text, sizeof(text), "%s%s%s%s", option->help,
                                   note[0] != '\0' ? " (" : "", note, note[0] != '\0' ? ")" : "");
    for (const char *const *alias = option->aliases; *alias != NULL && used < sizeof(text);
         alias++) {
        used += (size_t)snprintf(text + used, sizeof(text) - used, "%s--%s",
                                 alias == option->aliases ? "; also " : ", ", *alias);
    }
    print_entry(out, left, text);
}

static void print_actions(FILE *out) {
    fprintf(out, "\nGeneral:\n");
    for (size_t row = 0; row < NNC_ACTION_COUNT; row++) {
        const struct nnc_action *action = &nnc_config_actions[row];
        char left[80], flag[8] = "    ";
        if (action->flag != 0) {
            snprintf(flag, sizeof(flag), "-%c, ", action->flag);
        }
        snprintf(left, sizeof(left), "  %s--%s%s%s", flag, action->name,
                 action->argument[0] != '\0' ? " " : "", action->argument);
        print_entry(out, left, action->help);
    }
}

static void print_options(FILE *out, uint32_t mask) {
    for (unsigned group = 0; group < NNC_GROUP_COUNT; group++) {
        bool has_title = false;
        for (size_t row = 0; row < nnc_config_option_count; row++) {
            const struct nnc_option *option = &nnc_config_options[row];
            bool is_shown = (option->verbs & mask) != 0 || (mask & NNC_VERB_CONFIG) != 0;
            if (option->group != group || !is_shown) {
                continue;
            }
            if (!has_title) {
                fprintf(out, "\n%s:\n", nnc_config_group_title((enum nnc_config_group)group));
                has_title = true;
            }
            print_option(out, option);
        }
    }
    print_actions(out);
}

static void verb_left(const struct nnc_verb *verb, char *ret_text, size_t room) {
    snprintf(ret_text, room, "  %s%s%s%s%s", verb->name, verb->subverb != NULL ? " " : "",
             verb->subverb != NULL ? verb->subverb : "", verb->words_name[0] != '\0' ? " " : "",
             verb->words_name);
}

static void write_overview(FILE *out) {
    fprintf(out, "nncoord %s: train image classifiers, each part a process of its own\n\n",
            nnc_version());
    fprintf(out, "Usage: nncoord [VERB] [OPTION]... [WORD]...\n\n");
    for (const struct nnc_verb *verb = nnc_config_verbs; verb->name != NULL; verb++) {
        char left[80];
        verb_left(verb, left, sizeof(left));
        print_entry(out, left, verb->help);
    }
    print_actions(out);
    fprintf(out, "\n");
    print_wrapped(out,
                  "Without a verb nncoord trains; without data too, it takes the recipe "
                  "fashion-mnist. nncoord VERB --help lists the verb's options. Options may also "
                  "stand in a YAML file (--config) or in the environment (NNCOORD_BATCH_SIZE=64); "
                  "the command line wins over the environment, and that over the file.",
                  0, 0);
    fprintf(out, "\nExit status:\n");
    print_wrapped(out,
                  "0 done; 1 internal error; 2 wrong usage or refused before the start; 3 too many "
                  "bad images; 4 hardware or repeated crash; 5 communication; 6 not a number; 74 "
                  "checkpoint or output not written; 75 stopped by a signal after a durable "
                  "checkpoint, run again "
                  "with --resume auto; 77 sandbox unavailable; 128+N ended by signal N (any verb "
                  "but a training)",
                  0, 2);
}

/* Does the row belong to the verb, and to its subverb unless that is NULL? */
static bool is_row_of(const struct nnc_verb *row, const char *verb, const char *subverb) {
    bool is_subverb =
        subverb == NULL || (row->subverb != NULL && strcmp(row->subverb, subverb) == 0);
    return strcmp(row->name, verb) == 0 && is_subverb;
}

void nnc_config_write_help(FILE *out, const char *verb, const char *subverb) {
    if (verb == NULL) {
        write_overview(out);
        return;
    }
    uint32_t mask = 0;
    bool is_alike = true; /* do all rows take the same options? */
    for (const struct nnc_verb *row = nnc_config_verbs; row->name != NULL; row++) {
        if (!is_row_of(row, verb, subverb)) {
            continue;
        }
        char left[80];
        verb_left(row, left, sizeof(left));
        fprintf(out, "%s nncoord%s [OPTION]...\n", mask == 0 ? "Usage:" : "      ", left + 1);
        is_alike = is_alike && (mask == 0 || mask == row->mask);
        mask |= row->mask;
    }
    for (const struct nnc_verb *row = nnc_config_verbs; row->name != NULL; row++) {
        if (is_row_of(row, verb, subverb)) {
            fprintf(out, "\n");
            if (!is_alike) {
                fprintf(out, "%s %s:\n", verb, row->subverb);
            }
            print_wrapped(out, row->text, 0, 0);
        }
    }
    if (is_alike) {
        print_options(out, mask);
    } else {
        print_actions(out);
        fprintf(out, "\nThe options of each: nncoord %s NAME --help\n", verb);
    }
}
