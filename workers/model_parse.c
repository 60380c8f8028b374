/* SPDX-License-Identifier: Apache-2.0 */
/* Tokens of a model to a tree, by recursive descent with one token of lookahead.
 *
 *   file      = { "def" NAME "(" [param {"," param}] ")" "=" sum | "init" call | "input" call }
 * [sum] param     = NAME ["=" sum] sum       = product { ("+" | "-") product } product   = unary {
 * ("*" | "/" | "//") unary } unary     = "-" unary | primary primary   = NUMBER | NAME [call] | "("
 * sum ["," sum] ")" call      = "(" [arg {"," arg}] [","] ")" arg       = [NAME "="] sum
 *
 * Line ends have no meaning: a definition ends where its expression cannot go on.
 * Invariants: 1. recursion is bounded by NNC_MODEL_DEPTH_MAX here and by expr->height in later
 * walks;
 * 2. all memory hangs on file->memory, so that one loop frees a half-built tree.
 * Names get their meaning later, in model_value.c and model_expand.c. */
#include "workers/model_text.h"

#include "base/err.h"

#include <assert.h>
#include <errno.h>
#include <stdalign.h>
#include <stdlib.h>
#include <string.h>

#define CHUNK_BYTES 16384u

struct nnc_model_chunk {
    struct nnc_model_chunk *next;
    size_t used;
    alignas(max_align_t) unsigned char bytes[CHUNK_BYTES];
};

struct parser {
    struct nnc_lexer lexer;
    struct nnc_token token; /* the one looked at */
    struct nnc_model_file *file;
    uint32_t expr_count;
    uint32_t depth;
};

static int parse_sum(struct parser *parser, struct nnc_model_expr **ret_expr);

/* Zeroed memory that lives as long as the file; NULL when there is none. */
static void *allocate(struct nnc_model_file *file, size_t bytes) {
    size_t rounded = (bytes + alignof(max_align_t) - 1) & ~(alignof(max_align_t) - 1);
    assert(rounded <= CHUNK_BYTES);
    if (file->memory == NULL || CHUNK_BYTES - file->memory->used < rounded) {
        struct nnc_model_chunk *chunk = calloc(1, sizeof(*chunk));
        if (chunk == NULL) {
            return NULL;
        }
        chunk->next = file->memory;
        file->memory = chunk;
    }
    void *memory = file->memory->bytes + file->memory->used;
    file->memory->used += rounded;
    return memory;
}

static int out_of_memory(void) {
    return nnc_fail(-ENOMEM, "no memory for the model text");
}

static int fail_here(const struct parser *parser, const char *expected) {
    const struct nnc_token *token = &parser->token;
    if (token->kind == NNC_TOKEN_END) {
        return nnc_model_fail(parser->file->file, token->line, token->column,
                              "%s expected, the text ends", expected);
    }
    return nnc_model_fail(parser->file->file, token->line, token->column, "%s expected, not '%.*s'",
                          expected, (int)token->length, token->start);
}

static int advance(struct parser *parser) {
    return nnc_lexer_next(&parser->lexer, &parser->token);
}

static int expect(struct parser *parser, enum nnc_token_kind kind, const char *what) {
    return parser->token.kind == kind ? advance(parser) : fail_here(parser, what);
}

static bool at_word(const struct parser *parser, const char *word) {
    const struct nnc_token *token = &parser->token;
    return token->kind == NNC_TOKEN_NAME && token->length == strlen(word) &&
           memcmp(token->start, word, token->length) == 0;
}

/* Take the name looked at as a string of the file's memory. */
static int take_name(struct parser *parser, const char *what, const char **ret_name) {
    if (parser->token.kind != NNC_TOKEN_NAME) {
        return fail_here(parser, what);
    }
    char *name = allocate(parser->file, parser->token.length + 1);
    if (name == NULL) {
        return out_of_memory();
    }
    memcpy(name, parser->token.start, parser->token.length);
    int code = advance(parser);
    if (code < 0) {
        return code;
    }
    *ret_name = name;
    return 0;
}

static int new_expr(struct parser *parser, enum nnc_expr_kind kind, const struct nnc_token *place,
                    struct nnc_model_expr **ret_expr) {
    if (++parser->expr_count > NNC_MODEL_EXPR_MAX) {
        return nnc_model_fail(parser->file->file, place->line, place->column,
                              "the text has more than %u expressions", NNC_MODEL_EXPR_MAX);
    }
    struct nnc_model_expr *expr = allocate(parser->file, sizeof(*expr));
    if (expr == NULL) {
        return out_of_memory();
    }
    expr->kind = kind;
    expr->line = place->line;
    expr->column = place->column;
    expr->height = 1;
    *ret_expr = expr;
    return 0;
}

static int raise_height(struct parser *parser, struct nnc_model_expr *expr,
                        const struct nnc_model_expr *child) {
    if (child->height >= expr->height) {
        expr->height = child->height + 1;
    }
    if (expr->height > NNC_MODEL_DEPTH_MAX) {
        return nnc_model_fail(parser->file->file, expr->line, expr->column,
                              "nested deeper than %u levels", NNC_MODEL_DEPTH_MAX);
    }
    return 0;
}

/* One argument; a name followed by "=" turns out to be the keyword of the value behind it. */
static int parse_arg(struct parser *parser, struct nnc_model_arg **ret_arg) {
    struct nnc_model_arg *arg = allocate(parser->file, sizeof(*arg));
    if (arg == NULL) {
        return out_of_memory();
    }
    arg->line = parser->token.line;
    arg->column = parser->token.column;
    struct nnc_model_expr *value = NULL;
    int code = parse_sum(parser, &value);
    if (code < 0) {
        return code;
    }
    if (parser->token.kind == NNC_TOKEN_EQUALS) {
        if (value->kind != NNC_EXPR_NAME) {
            return fail_here(parser, "a name before '='");
        }
        arg->name = value->name;
        code = advance(parser);
        if (code >= 0) {
            code = parse_sum(parser, &value);
        }
        if (code < 0) {
            return code;
        }
    }
    arg->value = value;
    *ret_arg = arg;
    return 0;
}

/* Arguments up to (not including) the token `end`, with an optional comma after the last. */
static int parse_args(struct parser *parser, enum nnc_token_kind end, struct nnc_model_expr *call) {
    const struct nnc_model_arg **tail = &call->args;
    while (parser->token.kind != end) {
        struct nnc_model_arg *arg = NULL;
        int code = parse_arg(parser, &arg);
        if (code >= 0) {
            code = raise_height(parser, call, arg->value);
        }
        if (code < 0) {
            return code;
        }
        *tail = arg;
        tail = &arg->next;
        if (parser->token.kind != NNC_TOKEN_COMMA) {
            break;
        }
        code = advance(parser);
        if (code < 0) {
            return code;
        }
    }
    return parser->token.kind == end ? 0 : fail_here(parser, "',' or the end of the arguments");
}

static int parse_call(struct parser *parser, struct nnc_model_expr *call) {
    int code = expect(parser, NNC_TOKEN_OPEN, "'('");
    if (code >= 0) {
        code = parse_args(parser, NNC_TOKEN_CLOSE, call);
    }
    if (code >= 0) {
        code = expect(parser, NNC_TOKEN_CLOSE, "')'");
    }
    return code;
}

static int parse_named(struct parser *parser, struct nnc_model_expr **ret_expr) {
    struct nnc_model_expr *expr = NULL;
    int code = new_expr(parser, NNC_EXPR_NAME, &parser->token, &expr);
    if (code >= 0) {
        code = take_name(parser, "a name", &expr->name);
    }
    if (code >= 0 && parser->token.kind == NNC_TOKEN_OPEN) {
        expr->kind = NNC_EXPR_CALL;
        code = parse_call(parser, expr);
    }
    if (code >= 0) {
        *ret_expr = expr;
    }
    return code;
}

static int parse_number(struct parser *parser, struct nnc_model_expr **ret_expr) {
    struct nnc_model_expr *expr = NULL;
    int code = new_expr(parser, NNC_EXPR_NUMBER, &parser->token, &expr);
    if (code < 0) {
        return code;
    }
    expr->is_whole = parser->token.is_whole;
    expr->whole = parser->token.whole;
    expr->number = parser->token.number;
    *ret_expr = expr;
    return advance(parser);
}

/* "(" has been seen: a group, or a pair when a comma follows. */
static int parse_group(struct parser *parser, struct nnc_model_expr **ret_expr) {
    struct nnc_token open = parser->token;
    struct nnc_model_expr *left = NULL, *right = NULL, *pair = NULL;
    int code = advance(parser);
    if (code >= 0) {
        code = parse_sum(parser, &left);
    }
    if (code >= 0 && parser->token.kind == NNC_TOKEN_COMMA) {
        code = advance(parser);
        if (code >= 0) {
            code = parse_sum(parser, &right);
        }
    }
    if (code >= 0) {
        code = expect(parser, NNC_TOKEN_CLOSE, "')'");
    }
    if (code < 0 || right == NULL) {
        *ret_expr = left;
        return code;
    }
    code = new_expr(parser, NNC_EXPR_PAIR, &open, &pair);
    if (code < 0) {
        return code;
    }
    pair->left = left;
    pair->right = right;
    *ret_expr = pair;
    code = raise_height(parser, pair, left);
    return code < 0 ? code : raise_height(parser, pair, right);
}

static int parse_unary(struct parser *parser, struct nnc_model_expr **ret_expr);

static int parse_negation(struct parser *parser, struct nnc_model_expr **ret_expr) {
    struct nnc_model_expr *expr = NULL, *operand = NULL;
    int code = new_expr(parser, NNC_EXPR_NEGATE, &parser->token, &expr);
    if (code >= 0) {
        code = advance(parser);
    }
    if (code >= 0) {
        code = parse_unary(parser, &operand);
    }
    if (code < 0) {
        return code;
    }
    expr->left = operand;
    *ret_expr = expr;
    return raise_height(parser, expr, operand);
}

/* Every recursion of the grammar passes here, so this is where depth is counted. */
static int parse_unary(struct parser *parser, struct nnc_model_expr **ret_expr) {
    if (parser->depth >= NNC_MODEL_DEPTH_MAX) {
        return nnc_model_fail(parser->file->file, parser->token.line, parser->token.column,
                              "nested deeper than %u levels", NNC_MODEL_DEPTH_MAX);
    }
    parser->depth++;
    int code;
    switch ((int)parser->token.kind) {
    case NNC_TOKEN_MINUS:
        code = parse_negation(parser, ret_expr);
        break;
    case NNC_TOKEN_NUMBER:
        code = parse_number(parser, ret_expr);
        break;
    case NNC_TOKEN_NAME:
        code = parse_named(parser, ret_expr);
        break;
    case NNC_TOKEN_OPEN:
        code = parse_group(parser, ret_expr);
        break;
    default:
        code = fail_here(parser, "a module or a value");
        break;
    }
    parser->depth--;
    return code;
}

static bool is_operator(enum nnc_token_kind kind, bool sums) {
    return sums ? kind == NNC_TOKEN_PLUS || kind == NNC_TOKEN_MINUS
                : kind == NNC_TOKEN_TIMES || kind == NNC_TOKEN_DIVIDE ||
                      kind == NNC_TOKEN_FLOOR_DIVIDE;
}

/* Left-associative chain of one precedence: sums of products, or products of unaries. */
static int parse_chain(struct parser *parser, bool sums, struct nnc_model_expr **ret_expr) {
    struct nnc_model_expr *left = NULL;
    int code = sums ? parse_chain(parser, false, &left) : parse_unary(parser, &left);
    while (code >= 0 && is_operator(parser->token.kind, sums)) {
        struct nnc_model_expr *expr = NULL, *right = NULL;
        code = new_expr(parser, NNC_EXPR_BINARY, &parser->token, &expr);
        if (code < 0) {
            return code;
        }
        expr->op = parser->token.kind;
        code = advance(parser);
        if (code >= 0) {
            code = sums ? parse_chain(parser, false, &right) : parse_unary(parser, &right);
        }
        if (code < 0) {
            return code;
        }
        expr->left = left;
        expr->right = right;
        code = raise_height(parser, expr, left);
        code = code < 0 ? code : raise_height(parser, expr, right);
        left = expr;
    }
    if (code >= 0) {
        *ret_expr = left;
    }
    return code;
}

static int parse_sum(struct parser *parser, struct nnc_model_expr **ret_expr) {
    return parse_chain(parser, true, ret_expr);
}

/* Copy the parsed argument list of "def NAME(...)" into the definition. */
static int set_params(struct parser *parser, struct nnc_model_def *def,
                      const struct nnc_model_expr *call) {
    for (const struct nnc_model_arg *arg = call->args; arg != NULL; arg = arg->next) {
        bool plain = arg->name == NULL && arg->value->kind == NNC_EXPR_NAME;
        if (arg->name == NULL && !plain) {
            return nnc_model_fail(parser->file->file, arg->line, arg->column,
                                  "a parameter is a name, or a name = a default value");
        }
        if (def->param_count == NNC_MODEL_PARAMS_MAX) {
            return nnc_model_fail(parser->file->file, arg->line, arg->column,
                                  "a definition has at most %u parameters", NNC_MODEL_PARAMS_MAX);
        }
        const char *name = plain ? arg->value->name : arg->name;
        for (uint32_t i = 0; i < def->param_count; i++) {
            if (strcmp(def->params[i], name) == 0) {
                return nnc_model_fail(parser->file->file, arg->line, arg->column,
                                      "two parameters are called %s", name);
            }
        }
        def->params[def->param_count] = name;
        def->defaults[def->param_count] = plain ? NULL : arg->value;
        def->param_count++;
    }
    return 0;
}

static int add_def(struct parser *parser, struct nnc_model_def *def) {
    struct nnc_model_file *file = parser->file;
    const struct nnc_model_def *before = nnc_model_find_def(file, def->name);
    if (before != NULL) {
        return nnc_model_fail(file->file, def->line, def->column,
                              "%s is defined already in line %d", def->name, before->line);
    }
    if (file->def_count == NNC_MODEL_DEFS_MAX) {
        return nnc_model_fail(file->file, def->line, def->column,
                              "a file has at most %u definitions", NNC_MODEL_DEFS_MAX);
    }
    file->defs[file->def_count++] = def;
    return 0;
}

/* "def" has been seen: NAME "(" params ")" "=" body. */
static int parse_def(struct parser *parser) {
    struct nnc_model_def *def = allocate(parser->file, sizeof(*def));
    struct nnc_model_expr *call = NULL, *body = NULL;
    if (def == NULL) {
        return out_of_memory();
    }
    int code = advance(parser);
    if (code < 0) {
        return code;
    }
    def->line = parser->token.line;
    def->column = parser->token.column;
    code = new_expr(parser, NNC_EXPR_CALL, &parser->token, &call);
    if (code >= 0) {
        code = take_name(parser, "the name of the definition", &def->name);
    }
    if (code >= 0) {
        code = parse_call(parser, call);
    }
    if (code >= 0) {
        code = set_params(parser, def, call);
    }
    if (code >= 0) {
        code = add_def(parser, def);
    }
    if (code >= 0) {
        code = expect(parser, NNC_TOKEN_EQUALS, "'='");
    }
    if (code >= 0) {
        code = parse_sum(parser, &body);
    }
    def->body = body;
    return code;
}

/* init(...) and input(...): each at most once. */
static int parse_statement(struct parser *parser, const struct nnc_model_expr **slot) {
    struct nnc_token place = parser->token;
    struct nnc_model_expr *call = NULL;
    int code = parse_named(parser, &call);
    if (code < 0) {
        return code;
    }
    if (*slot != NULL) {
        return nnc_model_fail(parser->file->file, place.line, place.column,
                              "%s stands in line %d already", call->name, (*slot)->line);
    }
    if (call->kind != NNC_EXPR_CALL) {
        return nnc_model_fail(parser->file->file, place.line, place.column,
                              "%s needs arguments in parentheses", call->name);
    }
    *slot = call;
    return 0;
}

static int parse_file(struct parser *parser) {
    int code = 0;
    struct nnc_model_expr *model = NULL;
    while (code >= 0 && parser->token.kind != NNC_TOKEN_END && model == NULL) {
        if (at_word(parser, "def")) {
            code = parse_def(parser);
        } else if (at_word(parser, "init")) {
            code = parse_statement(parser, &parser->file->init);
        } else if (at_word(parser, "input")) {
            code = parse_statement(parser, &parser->file->input);
        } else {
            code = parse_sum(parser, &model);
        }
    }
    if (code < 0) {
        return code;
    }
    parser->file->model = model;
    if (parser->token.kind != NNC_TOKEN_END) {
        return fail_here(parser, "the end of the text (the model stands last)");
    }
    if (model == NULL && parser->file->def_count == 0) {
        return fail_here(parser, "a definition or a module");
    }
    return 0;
}

static int parse_arg_text(struct parser *parser) {
    struct nnc_model_expr *call = NULL;
    int code = new_expr(parser, NNC_EXPR_CALL, &parser->token, &call);
    if (code >= 0) {
        code = parse_args(parser, NNC_TOKEN_END, call);
    }
    if (code >= 0) {
        parser->file->args = call->args;
    }
    return code;
}

static int parse_with(int (*parse)(struct parser *), const char *path, const char *text,
                      size_t length, struct nnc_model_file **ret_file) {
    if (length > NNC_MODEL_TEXT_MAX) {
        return nnc_fail(-NNC_E_USAGE, "%s: a model text has at most %u bytes", path,
                        NNC_MODEL_TEXT_MAX);
    }
    struct nnc_model_file *file = calloc(1, sizeof(*file));
    if (file == NULL) {
        return out_of_memory();
    }
    file->file = path;
    struct parser parser = {
        .lexer = {.file = path, .text = text, .length = length, .line = 1, .column = 1},
        .file = file,
    };
    int code = advance(&parser);
    if (code >= 0) {
        code = parse(&parser);
    }
    if (code < 0) {
        nnc_model_file_destroy(file);
        return code;
    }
    *ret_file = file;
    return 0;
}

int nnc_model_parse(const char *file, const char *text, size_t length,
                    struct nnc_model_file **ret_file) {
    return parse_with(parse_file, file, text, length, ret_file);
}

int nnc_model_parse_args(const char *file, const char *text, size_t length,
                         struct nnc_model_file **ret_file) {
    return parse_with(parse_arg_text, file, text, length, ret_file);
}

void nnc_model_file_destroy(struct nnc_model_file *file) {
    if (file == NULL) {
        return;
    }
    while (file->memory != NULL) {
        struct nnc_model_chunk *next = file->memory->next;
        free(file->memory);
        file->memory = next;
    }
    free(file);
}

const struct nnc_model_def *nnc_model_find_def(const struct nnc_model_file *file,
                                               const char *name) {
    for (uint32_t i = 0; i < file->def_count; i++) {
        if (strcmp(file->defs[i]->name, name) == 0) {
            return file->defs[i];
        }
    }
    return NULL;
}
