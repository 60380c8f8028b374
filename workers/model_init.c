/* SPDX-License-Identifier: Apache-2.0 */
/* The init(...) statement: how weights and biases start.
 *
 *   init(conv_weight=kaiming_normal_fan_out, conv_bias=0, linear_weight=normal(0.01),
 * linear_bias=0)
 *
 * What is left out starts as PyTorch's layers do. A rule is a number (that constant), a name, or a
 * name with one number. Source: torch.nn.init. */
#include "workers/model_expand.h"

#include <string.h>

static const char *const slot_names[NNC_SLOT_COUNT] = {
    [NNC_SLOT_CONV_WEIGHT] = "conv_weight",
    [NNC_SLOT_CONV_BIAS] = "conv_bias",
    [NNC_SLOT_LINEAR_WEIGHT] = "linear_weight",
    [NNC_SLOT_LINEAR_BIAS] = "linear_bias",
};

static const struct {
    const char *name;
    enum nnc_init_rule_kind kind;
    bool takes_number;
} rule_rows[] = {
    {"default", NNC_RULE_DEFAULT, false},
    {"normal", NNC_RULE_NORMAL, true},
    {"uniform", NNC_RULE_UNIFORM, true},
    {"kaiming_normal_fan_in", NNC_RULE_KAIMING_NORMAL_FAN_IN, false},
    {"kaiming_normal_fan_out", NNC_RULE_KAIMING_NORMAL_FAN_OUT, false},
    {"xavier_uniform", NNC_RULE_XAVIER_UNIFORM, false},
};

static int fail_rule(const struct nnc_value_context *context, const struct nnc_model_expr *expr) {
    return nnc_model_fail(context->file, expr->line, expr->column,
                          "a rule of init is a number, default, normal(deviation), uniform(bound), "
                          "kaiming_normal_fan_in, kaiming_normal_fan_out or xavier_uniform");
}

static int eval_constant(struct nnc_value_context *context, const struct nnc_model_expr *expr,
                         double *ret_number) {
    struct nnc_value value;
    int code = nnc_value_eval(context, expr, NULL, &value);
    if (code < 0) {
        return code;
    }
    if (value.kind != NNC_VALUE_WHOLE && value.kind != NNC_VALUE_NUMBER) {
        return fail_rule(context, expr);
    }
    *ret_number = value.number;
    return 0;
}

static int read_rule(struct nnc_value_context *context, const struct nnc_model_expr *expr,
                     struct nnc_init_rule *rule) {
    if (expr->kind != NNC_EXPR_NAME && expr->kind != NNC_EXPR_CALL) {
        rule->kind = NNC_RULE_CONSTANT;
        return eval_constant(context, expr, &rule->a);
    }
    for (size_t i = 0; i < sizeof(rule_rows) / sizeof(rule_rows[0]); i++) {
        if (strcmp(rule_rows[i].name, expr->name) != 0) {
            continue;
        }
        const struct nnc_model_arg *arg = expr->args;
        bool one = arg != NULL && arg->next == NULL && arg->name == NULL;
        if (rule_rows[i].takes_number ? !one : expr->kind != NNC_EXPR_NAME) {
            return fail_rule(context, expr);
        }
        rule->kind = rule_rows[i].kind;
        return one ? eval_constant(context, arg->value, &rule->a) : 0;
    }
    return fail_rule(context, expr);
}

int nnc_model_init_rules(struct nnc_value_context *context, const struct nnc_model_expr *statement,
                         struct nnc_init_rule *rules) {
    const struct nnc_model_expr *given[NNC_SLOT_COUNT];
    memset(rules, 0, NNC_SLOT_COUNT * sizeof(rules[0]));
    if (statement == NULL) {
        return 0;
    }
    int code = nnc_value_match(context->file, statement, slot_names, NNC_SLOT_COUNT, given);
    for (uint32_t i = 0; i < NNC_SLOT_COUNT && code >= 0; i++) {
        if (given[i] != NULL) {
            code = read_rule(context, given[i], &rules[i]);
        }
    }
    return code;
}
