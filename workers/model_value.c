/* SPDX-License-Identifier: Apache-2.0 */
/* Expressions of the model language to values.
 *
 * Arithmetic is Python's: whole numbers stay whole under + - * and //, "/" of whole numbers is
 * whole when it divides evenly, else a number with a fraction. Overflow, division by zero and
 * results that are not finite are errors at the operator's place. Recursion is bounded by
 * expr->height, the whole work by context->steps_left. */
#include "workers/model_value.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* Whole numbers stay where a double is exact. */
#define WHOLE_MAX ((int64_t)1 << 53)

struct nnc_value nnc_value_whole(int64_t whole) {
    return (struct nnc_value){
        .kind = NNC_VALUE_WHOLE, .whole = {whole, whole}, .number = (double)whole};
}

static struct nnc_value number_value(double number) {
    return (struct nnc_value){.kind = NNC_VALUE_NUMBER, .number = number};
}

int nnc_value_step(struct nnc_value_context *context, const struct nnc_model_expr *expr) {
    if (context->steps_left == 0) {
        return nnc_model_fail(context->file, expr->line, expr->column,
                              "expanding the model takes more than %u steps", NNC_MODEL_STEPS_MAX);
    }
    context->steps_left--;
    return 0;
}

const struct nnc_value *nnc_frame_find(const struct nnc_model_frame *frame, const char *name) {
    for (uint32_t i = 0; frame != NULL && i < frame->bound; i++) {
        if (strcmp(frame->def->params[i], name) == 0) {
            return &frame->values[i];
        }
    }
    return NULL;
}

static int eval_name(struct nnc_value_context *context, const struct nnc_model_expr *expr,
                     const struct nnc_model_frame *frame, struct nnc_value *ret_value) {
    const struct nnc_value *bound = nnc_frame_find(frame, expr->name);
    if (bound != NULL) {
        *ret_value = *bound;
    } else if (strcmp(expr->name, "True") == 0 || strcmp(expr->name, "False") == 0) {
        *ret_value = (struct nnc_value){.kind = NNC_VALUE_BOOL, .whole = {expr->name[0] == 'T'}};
    } else if (strcmp(expr->name, "None") == 0) {
        *ret_value = (struct nnc_value){.kind = NNC_VALUE_NONE};
    } else if (context->is_module(context->context, expr->name)) {
        *ret_value = (struct nnc_value){.kind = NNC_VALUE_MODULE, .module = expr->name};
    } else {
        return nnc_model_fail(context->file, expr->line, expr->column,
                              "%s is neither a parameter nor a module", expr->name);
    }
    return 0;
}

static int eval_number(struct nnc_value_context *context, const struct nnc_model_expr *expr,
                       const struct nnc_model_frame *frame, struct nnc_value *ret_value) {
    int code = nnc_value_eval(context, expr, frame, ret_value);
    if (code >= 0 && ret_value->kind != NNC_VALUE_WHOLE && ret_value->kind != NNC_VALUE_NUMBER) {
        code = nnc_model_fail(context->file, expr->line, expr->column, "a number is needed here");
    }
    return code;
}

/* True when the operation on whole numbers has a whole result within bounds. */
static bool whole_result(enum nnc_token_kind op, int64_t left, int64_t right, int64_t *ret_whole) {
    int64_t whole = 0;
    bool overflow = false;
    switch ((int)op) {
    case NNC_TOKEN_PLUS:
        overflow = __builtin_add_overflow(left, right, &whole);
        break;
    case NNC_TOKEN_MINUS:
        overflow = __builtin_sub_overflow(left, right, &whole);
        break;
    case NNC_TOKEN_TIMES:
        overflow = __builtin_mul_overflow(left, right, &whole);
        break;
    case NNC_TOKEN_DIVIDE:
        overflow = right == 0 || left % right != 0;
        whole = overflow ? 0 : left / right;
        break;
    default: /* floor division */
        overflow = right == 0;
        whole = overflow ? 0 : left / right - (left % right != 0 && (left < 0) != (right < 0));
        break;
    }
    if (overflow || whole > WHOLE_MAX || whole < -WHOLE_MAX) {
        return false;
    }
    *ret_whole = whole;
    return true;
}

static double number_result(enum nnc_token_kind op, double left, double right) {
    switch ((int)op) {
    case NNC_TOKEN_PLUS:
        return left + right;
    case NNC_TOKEN_MINUS:
        return left - right;
    case NNC_TOKEN_TIMES:
        return left * right;
    case NNC_TOKEN_DIVIDE:
        return left / right;
    default:
        return floor(left / right);
    }
}

static int eval_binary(struct nnc_value_context *context, const struct nnc_model_expr *expr,
                       const struct nnc_model_frame *frame, struct nnc_value *ret_value) {
    struct nnc_value left, right;
    int code = eval_number(context, expr->left, frame, &left);
    if (code >= 0) {
        code = eval_number(context, expr->right, frame, &right);
    }
    if (code < 0) {
        return code;
    }
    bool whole = left.kind == NNC_VALUE_WHOLE && right.kind == NNC_VALUE_WHOLE;
    int64_t result = 0;
    if (whole && whole_result(expr->op, left.whole[0], right.whole[0], &result)) {
        *ret_value = nnc_value_whole(result);
        return 0;
    }
    double number = number_result(expr->op, left.number, right.number);
    if (!isfinite(number) || fabs(number) > (double)WHOLE_MAX) {
        return nnc_model_fail(context->file, expr->line, expr->column,
                              "the result of the arithmetic is out of range");
    }
    *ret_value = number_value(number);
    return 0;
}

static int eval_negate(struct nnc_value_context *context, const struct nnc_model_expr *expr,
                       const struct nnc_model_frame *frame, struct nnc_value *ret_value) {
    struct nnc_value value;
    int code = eval_number(context, expr->left, frame, &value);
    if (code >= 0) {
        *ret_value = value.kind == NNC_VALUE_WHOLE ? nnc_value_whole(-value.whole[0])
                                                   : number_value(-value.number);
    }
    return code;
}

static int eval_pair(struct nnc_value_context *context, const struct nnc_model_expr *expr,
                     const struct nnc_model_frame *frame, struct nnc_value *ret_value) {
    struct nnc_value left, right;
    int code = nnc_value_eval(context, expr->left, frame, &left);
    if (code >= 0) {
        code = nnc_value_eval(context, expr->right, frame, &right);
    }
    if (code < 0) {
        return code;
    }
    if (left.kind != NNC_VALUE_WHOLE || right.kind != NNC_VALUE_WHOLE) {
        return nnc_model_fail(context->file, expr->line, expr->column,
                              "a pair holds two whole numbers");
    }
    *ret_value =
        (struct nnc_value){.kind = NNC_VALUE_PAIR, .whole = {left.whole[0], right.whole[0]}};
    return 0;
}

static int eval_literal(const struct nnc_value_context *context, const struct nnc_model_expr *expr,
                        struct nnc_value *ret_value) {
    if (expr->is_whole && expr->whole > WHOLE_MAX) {
        return nnc_model_fail(context->file, expr->line, expr->column, "the number is too large");
    }
    *ret_value = expr->is_whole ? nnc_value_whole(expr->whole) : number_value(expr->number);
    return 0;
}

int nnc_value_eval(struct nnc_value_context *context, const struct nnc_model_expr *expr,
                   const struct nnc_model_frame *frame, struct nnc_value *ret_value) {
    int code = nnc_value_step(context, expr);
    if (code < 0) {
        return code;
    }
    switch (expr->kind) {
    case NNC_EXPR_NUMBER:
        return eval_literal(context, expr, ret_value);
    case NNC_EXPR_NAME:
        return eval_name(context, expr, frame, ret_value);
    case NNC_EXPR_PAIR:
        return eval_pair(context, expr, frame, ret_value);
    case NNC_EXPR_NEGATE:
        return eval_negate(context, expr, frame, ret_value);
    case NNC_EXPR_BINARY:
        return eval_binary(context, expr, frame, ret_value);
    case NNC_EXPR_CALL:
        break;
    }
    return nnc_model_fail(context->file, expr->line, expr->column,
                          "%s(...) is a module; a value is needed here (name modules without "
                          "parentheses)",
                          expr->name);
}

static int fail_unknown(const char *file, const struct nnc_model_expr *call,
                        const struct nnc_model_arg *arg, const char *const *names, uint32_t count) {
    char list[400] = "";
    size_t used = 0;
    for (uint32_t i = 0; i < count && used < sizeof(list); i++) {
        used +=
            (size_t)snprintf(list + used, sizeof(list) - used, "%s%s", i > 0 ? ", " : "", names[i]);
    }
    return nnc_model_fail(file, arg->line, arg->column, "%s has no argument %s (it has: %s)",
                          call->name, arg->name, count > 0 ? list : "none");
}

int nnc_value_match(const char *file, const struct nnc_model_expr *call, const char *const *names,
                    uint32_t count, const struct nnc_model_expr **ret_matched) {
    for (uint32_t i = 0; i < count; i++) {
        ret_matched[i] = NULL;
    }
    uint32_t position = 0;
    for (const struct nnc_model_arg *arg = call->args; arg != NULL; arg = arg->next) {
        uint32_t place = arg->name == NULL ? position++ : 0;
        while (arg->name != NULL && place < count && strcmp(names[place], arg->name) != 0) {
            place++;
        }
        if (place >= count && arg->name != NULL) {
            return fail_unknown(file, call, arg, names, count);
        }
        if (place >= count) {
            return nnc_model_fail(file, arg->line, arg->column, "%s takes %u arguments at most",
                                  call->name, count);
        }
        if (ret_matched[place] != NULL) {
            return nnc_model_fail(file, arg->line, arg->column, "%s is given twice to %s",
                                  names[place], call->name);
        }
        ret_matched[place] = arg->value;
    }
    return 0;
}
