/* SPDX-License-Identifier: Apache-2.0 */
/* Text of a model to tokens.
 *
 * Space, tab and line ends separate; "#" starts a comment up to the end of its line; names are
 * [A-Za-z_][A-Za-z0-9_]*; numbers are 12, 0.5, 1e-5. Every other byte, zero included, is an error
 * at its line and column. The text is never read past `length`. */
#include "workers/model_text.h"

#include "base/err.h"

#include <assert.h>
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NUMBER_BYTES_MAX 40

int nnc_model_fail(const char *file, int32_t line, int32_t column, const char *format, ...) {
    char message[NNC_ERROR_TEXT_MAX];
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof(message), format, args);
    va_end(args);
    return nnc_fail(-NNC_E_USAGE, "%s:%d:%d: %s", file, line, column, message);
}

/* Own classification: that of <ctype.h> follows the locale. */
static bool is_digit(int byte) {
    return byte >= '0' && byte <= '9';
}

static bool is_name_byte(int byte) {
    return (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z') || byte == '_' ||
           is_digit(byte);
}

/* The byte `ahead` places on, or -1 behind the end. */
static int peek(const struct nnc_lexer *lexer, size_t ahead) {
    size_t left = lexer->length - lexer->at;
    return ahead < left ? (unsigned char)lexer->text[lexer->at + ahead] : -1;
}

static void advance(struct nnc_lexer *lexer) {
    assert(lexer->at < lexer->length);
    bool line_end = lexer->text[lexer->at] == '\n';
    lexer->at++;
    lexer->column = line_end ? 1 : lexer->column + 1;
    lexer->line += line_end ? 1 : 0;
}

static void skip_blank(struct nnc_lexer *lexer) {
    bool comment = false;
    for (int byte = peek(lexer, 0); byte >= 0; byte = peek(lexer, 0)) {
        bool blank = byte == ' ' || byte == '\t' || byte == '\r' || byte == '\n';
        comment = byte == '#' || (comment && byte != '\n');
        if (!blank && !comment) {
            return;
        }
        advance(lexer);
    }
}

/* Length of the number at the cursor: digits [. digits] [e [sign] digits]. */
static size_t number_length(const struct nnc_lexer *lexer, bool *ret_is_whole) {
    size_t length = 0;
    *ret_is_whole = true;
    while (is_digit(peek(lexer, length))) {
        length++;
    }
    if (peek(lexer, length) == '.') {
        *ret_is_whole = false;
        length++;
        while (is_digit(peek(lexer, length))) {
            length++;
        }
    }
    if (peek(lexer, length) == 'e' || peek(lexer, length) == 'E') {
        *ret_is_whole = false;
        length++;
        length += peek(lexer, length) == '+' || peek(lexer, length) == '-';
        while (is_digit(peek(lexer, length))) {
            length++;
        }
    }
    return length;
}

static int read_number(const struct nnc_lexer *lexer, struct nnc_token *token) {
    token->kind = NNC_TOKEN_NUMBER;
    token->length = number_length(lexer, &token->is_whole);
    char digits[NUMBER_BYTES_MAX + 1];
    bool glued = is_name_byte(peek(lexer, token->length));
    if (token->length > NUMBER_BYTES_MAX || glued) {
        return nnc_model_fail(lexer->file, token->line, token->column, "not a number");
    }
    memcpy(digits, token->start, token->length);
    digits[token->length] = '\0';
    char *end = NULL;
    token->number = strtod(digits, &end);
    if (*end != '\0' || !isfinite(token->number)) {
        return nnc_model_fail(lexer->file, token->line, token->column, "%s is not a number",
                              digits);
    }
    errno = 0;
    token->whole = token->is_whole ? strtoll(digits, NULL, 10) : 0;
    if (errno != 0) {
        return nnc_model_fail(lexer->file, token->line, token->column, "%s is too large", digits);
    }
    return 0;
}

static int read_name(const struct nnc_lexer *lexer, struct nnc_token *token) {
    token->kind = NNC_TOKEN_NAME;
    while (is_name_byte(peek(lexer, token->length))) {
        token->length++;
    }
    if (token->length > NNC_MODEL_NAME_MAX) {
        return nnc_model_fail(lexer->file, token->line, token->column,
                              "a name has at most %u bytes", NNC_MODEL_NAME_MAX);
    }
    return 0;
}

static int read_sign(const struct nnc_lexer *lexer, struct nnc_token *token) {
    static const struct {
        char sign;
        enum nnc_token_kind kind;
    } rows[] = {
        {'(', NNC_TOKEN_OPEN},   {')', NNC_TOKEN_CLOSE},  {',', NNC_TOKEN_COMMA},
        {'=', NNC_TOKEN_EQUALS}, {'+', NNC_TOKEN_PLUS},   {'-', NNC_TOKEN_MINUS},
        {'*', NNC_TOKEN_TIMES},  {'/', NNC_TOKEN_DIVIDE},
    };
    int byte = peek(lexer, 0);
    token->length = 1;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        if (byte == rows[i].sign) {
            bool twice = byte == '/' && peek(lexer, 1) == '/';
            token->kind = twice ? NNC_TOKEN_FLOOR_DIVIDE : rows[i].kind;
            token->length = twice ? 2 : 1;
            return 0;
        }
    }
    bool printable = byte > ' ' && byte < 127;
    return printable ? nnc_model_fail(lexer->file, token->line, token->column,
                                      "'%c' has no meaning here", byte)
                     : nnc_model_fail(lexer->file, token->line, token->column,
                                      "byte 0x%02x has no meaning here", (unsigned)byte);
}

int nnc_lexer_next(struct nnc_lexer *lexer, struct nnc_token *ret_token) {
    skip_blank(lexer);
    struct nnc_token token = {
        .kind = NNC_TOKEN_END,
        .line = lexer->line,
        .column = lexer->column,
        .start = lexer->text + lexer->at,
    };
    int byte = peek(lexer, 0);
    int code = 0;
    if (is_digit(byte) || (byte == '.' && is_digit(peek(lexer, 1)))) {
        code = read_number(lexer, &token);
    } else if (is_name_byte(byte)) {
        code = read_name(lexer, &token);
    } else if (byte >= 0) {
        code = read_sign(lexer, &token);
    }
    if (code < 0) {
        return code;
    }
    for (size_t i = 0; i < token.length; i++) {
        advance(lexer);
    }
    *ret_token = token;
    return 0;
}
