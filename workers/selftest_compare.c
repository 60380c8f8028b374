/* SPDX-License-Identifier: Apache-2.0 */
/* How far two results of a case may be apart.
 *
 * The tight bound, of the tests. u is the unit roundoff of the type that tensors and sums have. A
 * sum of L products in that type has a relative error of about sqrt(L) u (random walk; L u at
 * worst, which no implementation with vector lanes comes near). Errors of successive operations add
 * up, forward and backward. So
 *
 *     bound = safety * u * sum over forward operations of (own + 2 sqrt(L)),   safety = 2
 *
 * with L the longest sum of the operation's three passes and `own` from the table below, where the
 * reason stands. Step 2 starts from weights that differ by the errors of step 1 times the learning
 * rate, which the safety factor covers.
 *
 * The limits, of `nncoord selftest`. A device may keep tensors in 16 bits and sum in 32, in any
 * order, so the tight bound does not fit it. One operation is allowed a relative error of 1e-4
 * (fp32), 1e-3 (TF32) or 1e-2 (16 bits): about five to ten roundings of bf16, and a wrong operation
 * is wrong by far more. Errors of F operations are independent and add as squares:
 *
 *     value    = base * sqrt(F)
 *     gradient = sqrt(base^2 * 2 F + sum over ReLU and max pooling of 2 f / n)
 *
 * The second term: where a number is as close to zero, or to the other of two maxima, as its own
 * error e, the backward pass of two right backends takes different ways. That befalls f = 1 + 2 e n
 * of the n outputs when 2 e n is not small (one of them is then likely), each with the whole of its
 * gradient, in a vector where half of the n carry one. e = 2 u sqrt(operations before).
 *
 * Source: Higham, "Accuracy and stability of numerical algorithms", 2nd ed., 2.8 (random walk). */
#include "workers/selftest_case.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* Roundings of one value of an operation that are not in a sum. */
static const double own_errors[NNC_OP_COUNT] = {
    [NNC_OP_INPUT] = 3,  /* / 255, - mean, / std */
    [NNC_OP_CONV] = 2,   /* bias, store */
    [NNC_OP_LINEAR] = 2, /* the same */
    /* x - mean cancels up to a factor of about 4 where a channel's offset is some deviations; 6
     * roundings forward and backward each. */
    [NNC_OP_NORM] = 24,
    [NNC_OP_ACT] = 8, /* exp and tanh are good to some units in the last place */
    [NNC_OP_ADD] = 1,
    [NNC_OP_MAXPOOL] = 1, /* overlapping windows add gradients */
    [NNC_OP_AVGPOOL] = 2,
    [NNC_OP_DROPOUT] = 1,
    [NNC_OP_LOSS] = 8, /* exp and log; p - t cancels */
};

static const struct {
    const char *name;
    double base, unit_roundoff;
} precisions[] = {
    [NNC_PRECISION_FP32] = {"fp32", 1e-4, 0x1p-24},
    [NNC_PRECISION_TF32] = {"tf32", 1e-3, 0x1p-11},
    [NNC_PRECISION_BF16] = {"bf16", 1e-2, 0x1p-8},
    [NNC_PRECISION_FP16] = {"fp16", 1e-2, 0x1p-11},
};

/* Below so many expected kinks none is allowed for. */
static const double rare = 0.01;

const char *nnc_precision_name(enum nnc_precision precision) {
    return precisions[precision].name;
}

static double longest_sum(const struct nnc_program *program, const struct nnc_op *op) {
    if (op->kind == NNC_OP_INPUT || op->kind == NNC_OP_LOSS) {
        return 1;
    }
    struct nnc_shape in = program->tensors[op->x].shape;
    struct nnc_shape out = program->tensors[op->y].shape;
    double pixels = (double)program->batch * out.h * out.w;
    double taps = (double)op->window.r * op->window.s;
    switch (op->kind) {
    case NNC_OP_CONV:
        return fmax(pixels, taps * fmax(in.c, out.c));
    case NNC_OP_LINEAR:
        return fmax(program->batch, fmax(out.c, (double)in.c * in.h * in.w));
    case NNC_OP_NORM:
        return pixels;
    case NNC_OP_AVGPOOL:
        return op->adaptive ? (double)in.h * in.w : taps;
    default:
        return 1;
    }
}

double nnc_case_bound(const struct nnc_program *program, double unit_roundoff) {
    double sum = 0;
    for (uint32_t number = 0; number < program->forward_count; number++) {
        const struct nnc_op *op = &program->ops[number];
        sum += own_errors[op->kind] + 2 * sqrt(longest_sum(program, op));
        sum += op->act != NNC_ACT_NONE ? own_errors[NNC_OP_ACT] : 0;
    }
    return 2 * unit_roundoff * sum;
}

/* What undecided units of one operation may add to the square of a gradient's relative error. */
static double kinks_of(const struct nnc_program *program, uint32_t number, double unit_roundoff) {
    const struct nnc_op *op = &program->ops[number];
    if (op->act != NNC_ACT_RELU && op->kind != NNC_OP_MAXPOOL) {
        return 0;
    }
    struct nnc_shape out = program->tensors[op->y].shape;
    double units = (double)program->batch * out.c * out.h * out.w;
    double expected = 2 * (2 * unit_roundoff * sqrt(number + 1.0)) * units;
    return expected < rare ? 0 : 2 * (1 + expected) / units;
}

void nnc_case_limits(const struct nnc_program *program, enum nnc_precision precision,
                     struct nnc_case_limits *ret_limits) {
    double base = precisions[precision].base;
    double square = base * base * 2 * program->forward_count;
    for (uint32_t number = 0; number < program->forward_count; number++) {
        square += kinks_of(program, number, precisions[precision].unit_roundoff);
    }
    *ret_limits = (struct nnc_case_limits){.value = base * sqrt(program->forward_count),
                                           .gradient = sqrt(square),
                                           .ranking = precision == NNC_PRECISION_FP32 ? 0 : 1};
}

double nnc_case_norm(const float *left, const float *right, size_t count) {
    double sum = 0;
    for (size_t place = 0; place < count; place++) {
        double distance = (double)left[place] - (right != NULL ? right[place] : 0);
        sum += distance * distance;
    }
    return sqrt(sum);
}

/* A gradient that is zero in theory (a bias before batch normalisation) consists of the rounding
 * errors of large terms; so none is judged on a smaller scale than a tenth of the largest one. */
static double group_norm(const struct nnc_case_result *result, int group) {
    double largest = 0;
    for (size_t number = 0; number < result->count; number++) {
        const struct nnc_case_vector *vector = &result->vectors[number];
        double norm =
            vector->group == group ? nnc_case_norm(vector->values, NULL, vector->count) : 0;
        largest = norm > largest ? norm : largest;
    }
    return largest;
}

static double limit_of(const struct nnc_case_limits *limits, enum nnc_case_kind kind,
                       double scale) {
    switch (kind) {
    case NNC_CASE_VALUE:
        return limits->value;
    case NNC_CASE_GRADIENT:
        return limits->gradient;
    case NNC_CASE_COUNT:
        return 0;
    case NNC_CASE_RANKING:
        return scale > 0 ? limits->ranking / scale : limits->ranking;
    }
    return 0;
}

/* Error of one vector and what it may be, both relative. */
static void judge(const struct nnc_case_result *wanted, size_t number,
                  const struct nnc_case_vector *got, const struct nnc_case_limits *limits,
                  struct nnc_case_verdict *ret_verdict) {
    const struct nnc_case_vector *left = &wanted->vectors[number];
    double norm = nnc_case_norm(left->values, NULL, left->count);
    double scale = fmax(norm, group_norm(wanted, left->group) / 10);
    double error = nnc_case_norm(got->values, left->values, left->count);
    double limit = limit_of(limits, left->kind, scale);
    /* A count of none that should be some, and an error of something that is zero, have no scale.
     */
    double relative = scale > 0 ? error / scale : error;
    *ret_verdict =
        (struct nnc_case_verdict){.agree = relative <= limit, .error = relative, .limit = limit};
    snprintf(ret_verdict->text, sizeof(ret_verdict->text),
             "%s: |got - wanted| = %.3g, limit %.3g = %.3g * scale %.3g (first values: wanted "
             "%.9g, got %.9g)",
             left->name, error, limit * scale, limit, scale, (double)left->values[0],
             (double)got->values[0]);
}

/* How much of its limit an error takes; not a number: all. */
static double used(const struct nnc_case_verdict *verdict) {
    if (!(verdict->error > 0)) {
        return verdict->error == 0 ? 0 : INFINITY;
    }
    return verdict->limit > 0 ? verdict->error / verdict->limit : INFINITY;
}

void nnc_case_compare(const struct nnc_case_result *wanted, const struct nnc_case_result *got,
                      const struct nnc_case_limits *limits, struct nnc_case_verdict *ret_verdict) {
    struct nnc_case_verdict worst = {.agree = false, .error = NAN};
    snprintf(worst.text, sizeof(worst.text), "%zu quantities instead of %zu", got->count,
             wanted->count);
    bool same_shape = wanted->count == got->count && wanted->count > 0;
    for (size_t number = 0; same_shape && number < wanted->count; number++) {
        struct nnc_case_verdict verdict;
        if (wanted->vectors[number].count != got->vectors[number].count) {
            worst = (struct nnc_case_verdict){.agree = false, .error = NAN};
            snprintf(worst.text, sizeof(worst.text), "%s has %zu values instead of %zu",
                     wanted->vectors[number].name, got->vectors[number].count,
                     wanted->vectors[number].count);
            break;
        }
        judge(wanted, number, &got->vectors[number], limits, &verdict);
        /* The first that is wrong has the cause: all later ones follow from it. */
        if (number == 0 || (worst.agree && (!verdict.agree || used(&verdict) > used(&worst)))) {
            worst = verdict;
        }
    }
    *ret_verdict = worst;
}

bool nnc_case_equal(const struct nnc_case_result *left, const struct nnc_case_result *right,
                    const char **ret_name) {
    bool same_shape = left->count == right->count;
    for (size_t number = 0; same_shape && number < left->count; number++) {
        const struct nnc_case_vector *a = &left->vectors[number];
        const struct nnc_case_vector *b = &right->vectors[number];
        if (a->count != b->count ||
            memcmp(a->values, b->values, a->count * sizeof(*a->values)) != 0) {
            *ret_name = a->name;
            return false;
        }
    }
    if (!same_shape) {
        *ret_name = "the number of quantities";
    }
    return same_shape;
}
