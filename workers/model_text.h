/* SPDX-License-Identifier: Apache-2.0 */
/* The model text as a tree: what the parser makes and the expansion walks. Internal to
 * workers/model*.c; everybody else uses graph.h. The language is described in models/LANGUAGE.md.
 *
 * Limits: text 1 MiB, 200,000 expressions, 256 definitions of 32 parameters, nesting 64. */
#ifndef NNC_WORKERS_MODEL_TEXT_H
#define NNC_WORKERS_MODEL_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NNC_MODEL_TEXT_MAX   (1u << 20)
#define NNC_MODEL_EXPR_MAX   200000u
#define NNC_MODEL_DEFS_MAX   256u
#define NNC_MODEL_PARAMS_MAX 32u
#define NNC_MODEL_DEPTH_MAX  64u
#define NNC_MODEL_NAME_MAX   63u /* bytes of one identifier */

enum nnc_token_kind {
    NNC_TOKEN_END,
    NNC_TOKEN_NAME,
    NNC_TOKEN_NUMBER,
    NNC_TOKEN_OPEN,
    NNC_TOKEN_CLOSE,
    NNC_TOKEN_COMMA,
    NNC_TOKEN_EQUALS,
    NNC_TOKEN_PLUS,
    NNC_TOKEN_MINUS,
    NNC_TOKEN_TIMES,
    NNC_TOKEN_DIVIDE,
    NNC_TOKEN_FLOOR_DIVIDE,
};

struct nnc_token {
    enum nnc_token_kind kind;
    int32_t line, column; /* from 1; a column is a byte */
    const char *start;    /* into the text */
    size_t length;
    bool is_whole; /* NUMBER: written without point and exponent */
    int64_t whole;
    double number;
};

struct nnc_lexer {
    const char *file; /* named in errors */
    const char *text;
    size_t length, at;
    int32_t line, column;
};

enum nnc_expr_kind {
    NNC_EXPR_NUMBER,
    NNC_EXPR_NAME,   /* parameter, module name, True, False, None */
    NNC_EXPR_CALL,   /* name(args) */
    NNC_EXPR_PAIR,   /* (left, right) */
    NNC_EXPR_NEGATE, /* -left */
    NNC_EXPR_BINARY, /* left op right */
};

struct nnc_model_expr {
    enum nnc_expr_kind kind;
    int32_t line, column;
    uint32_t height;        /* of the tree below, bounds the recursion of every walk */
    enum nnc_token_kind op; /* BINARY */
    bool is_whole;          /* NUMBER */
    int64_t whole;
    double number;
    const char *name;                 /* NAME, CALL */
    const struct nnc_model_arg *args; /* CALL: list in the order of the text */
    const struct nnc_model_expr *left, *right;
};

struct nnc_model_arg {
    const char *name; /* keyword; NULL: positional */
    int32_t line, column;
    const struct nnc_model_expr *value;
    const struct nnc_model_arg *next;
};

struct nnc_model_def {
    const char *name;
    int32_t line, column;
    uint32_t param_count;
    const char *params[NNC_MODEL_PARAMS_MAX];
    const struct nnc_model_expr *defaults[NNC_MODEL_PARAMS_MAX]; /* NULL: must be given */
    const struct nnc_model_expr *body;
};

struct nnc_model_file {
    const char *file; /* borrowed, for errors */
    struct nnc_model_def *defs[NNC_MODEL_DEFS_MAX];
    uint32_t def_count;
    const struct nnc_model_expr *model; /* the bare expression at the end, or NULL */
    const struct nnc_model_expr *init;  /* the init(...) statement, or NULL */
    const struct nnc_model_expr *input; /* the input(...) statement, or NULL */
    const struct nnc_model_arg *args;   /* of nnc_model_parse_args() */
    struct nnc_model_chunk *memory;     /* everything above */
};

/* Read the next token. Errors: -NNC_E_USAGE with file:line:column. */
int nnc_lexer_next(struct nnc_lexer *lexer, struct nnc_token *ret_token);

/* Set the error text "file:line:column: message" and return -NNC_E_USAGE. */
int nnc_model_fail(const char *file, int32_t line, int32_t column, const char *format, ...)
    __attribute__((format(printf, 4, 5), cold));

/* Parse a whole file of definitions and statements. `file` and `text` are borrowed until the
 * destroy. Errors: -NNC_E_USAGE with file:line:column; -ENOMEM. */
int nnc_model_parse(const char *file, const char *text, size_t length,
                    struct nnc_model_file **ret_file);

/* Parse "name=value,name=value" (--model-args) into ret_file->args. Otherwise as nnc_model_parse().
 */
int nnc_model_parse_args(const char *file, const char *text, size_t length,
                         struct nnc_model_file **ret_file);

/* Takes NULL. */
void nnc_model_file_destroy(struct nnc_model_file *file);

/* The definition of that name, or NULL. */
const struct nnc_model_def *nnc_model_find_def(const struct nnc_model_file *file, const char *name);

#endif
