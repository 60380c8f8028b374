/* SPDX-License-Identifier: Apache-2.0 */
/* The engine of the option table: what a row is, and one parse and one print function per type. It
 * knows no option by name; the table itself is in base/config.c. */
#ifndef NNC_BASE_OPTION_H
#define NNC_BASE_OPTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct nnc_config;

enum nnc_option_type {
    NNC_OPTION_STRING,  /* char[bytes]: UTF-8 without control characters */
    NNC_OPTION_BOOL,    /* bool: true/false, yes/no, on/off, 1/0 */
    NNC_OPTION_LEVEL,   /* uint32_t that each bare mention on the command line raises by one */
    NNC_OPTION_U32,     /* uint32_t, decimal, or the name of a choice */
    NNC_OPTION_U64,     /* uint64_t, likewise */
    NNC_OPTION_ENUM,    /* int32_t, the name of a choice */
    NNC_OPTION_DOUBLE,  /* finite double, or the name of a choice */
    NNC_OPTION_DOUBLES, /* double[bytes / 8], comma-separated; a single one fills all */
    NNC_OPTION_TYPE_COUNT,
};

/* A name for a value. Of several names for one value the first is printed. */
struct nnc_choice {
    const char *name;
    int64_t value;
};

/* One row. Numbers are checked against [min, max], both included; choices may lie outside. */
struct nnc_option {
    const char *name; /* long name, with dashes; also the YAML key */
    char flag;        /* short name, 0: none */
    enum nnc_option_type type;
    size_t offset, bytes; /* of the field in the struct */
    const char *unit;     /* of numbers; what to write for strings ("DIR"); "" for pure numbers */
    double min, max;
    const char *def;                  /* as on the command line; "" for an empty string */
    const struct nnc_choice *choices; /* ended by a NULL name; NULL: none */
    const char *help;                 /* lower case, no full stop */
    unsigned group;
    int (*check)(const struct nnc_config *config); /* between options, after all are set; NULL */
    const char *aliases[4];                        /* more long names, ended by NULL */
    uint32_t verbs;                                /* mask of the verbs that use it */
    bool adopts; /* defines network or input: eval and predict take it from the run of --resume */
    bool local;  /* the machines of a training may each have their own; all others must be equal */
};

/* Parse text into the option's field of *base.
 * Errors: -NNC_E_USAGE with what is wrong with the text (the caller puts option, file and line in
 * front of it); *base is untouched then. */
int nnc_option_parse(const struct nnc_option *option, const char *text, void *base);

/* Print the option's field of *base so that nnc_option_parse() gives the same value again. Doubles
 * take the fewest digits that do. Cut at room; the longest string field and 16 bytes are enough. */
void nnc_option_print(const struct nnc_option *option, const void *base, char *ret_text,
                      size_t room);

/* True when both structs have the same value in the option's field. */
bool nnc_option_equal(const struct nnc_option *option, const void *left, const void *right);

#endif
