/* SPDX-License-Identifier: Apache-2.0 */
/* Every backend that was built against the reference, on the table of backend cases. */
#include "base/err.h"
#include "cpu/reference.h"
#include "tests/support/backend_cases.h"

#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

static const double float_roundoff = 0x1p-24;

static void compare_backend(const struct nnc_backend_ops *ops) {
    for (const struct nnc_case *row = nnc_cases; row->name; row++) {
        struct nnc_case_result wanted;
        struct nnc_case_result got;
        char text[400];
        case_run(&nnc_backend_reference, row, &wanted);
        case_run(ops, row, &got);
        double bound = case_bound(row, float_roundoff);
        bool agree = case_results_agree(&wanted, &got, bound, text, sizeof(text));
        cr_expect(agree, "%s, %s: %s", ops->name, row->name, text);
        case_result_free(&wanted);
        case_result_free(&got);
    }
}

Test(backends, each_equals_the_reference_on_every_case, .timeout = 300) {
    int compared = 0;
    for (size_t number = 0; nnc_backends[number]; number++) {
        if (nnc_backends[number] != &nnc_backend_reference) {
            compare_backend(nnc_backends[number]);
            compared++;
        }
    }
    if (compared == 0) {
        cr_skip_test("only the reference backend was built");
    }
}

/* A saturated loss has gradients of nothing but rounding errors and would prove nothing. */
Test(backends, no_case_saturates_its_loss) {
    for (const struct nnc_case *row = nnc_cases; row->name; row++) {
        struct nnc_case_result result;
        case_run(&nnc_backend_reference, row, &result);
        for (size_t number = 0; number < result.count; number++) {
            const struct nnc_case_vector *vector = &result.vectors[number];
            if (strstr(vector->name, " loss")) {
                cr_expect(vector->values[0] > 0.05 && vector->values[0] < 100, "%s, %s: %g",
                          row->name, vector->name, (double)vector->values[0]);
            }
        }
        case_result_free(&result);
    }
}

Test(backends, the_reference_repeats_itself_and_an_error_is_seen) {
    const struct nnc_case *row = &nnc_cases[0];
    struct nnc_case_result first;
    struct nnc_case_result second;
    char text[400];
    case_run(&nnc_backend_reference, row, &first);
    case_run(&nnc_backend_reference, row, &second);
    cr_assert(case_results_agree(&first, &second, 0, text, sizeof(text)), "%s", text);
    for (size_t number = 0; number < second.count; number++) {
        float *value = &second.vectors[number].values[0];
        float kept = *value;
        *value += 1e-3f * fmaxf(1, fabsf(kept));
        cr_assert_not(case_results_agree(&first, &second, 1e-5, text, sizeof(text)), "%s",
                      second.vectors[number].name);
        cr_assert(strstr(text, second.vectors[number].name));
        *value = NAN;
        cr_assert_not(case_results_agree(&first, &second, 1e-5, text, sizeof(text)));
        *value = kept;
    }
    case_result_free(&first);
    case_result_free(&second);
}

Test(backends, the_kind_chooses_and_a_missing_one_is_explained) {
    const struct nnc_backend_ops *ops = NULL;
    cr_assert_eq(nnc_backend_find(NNC_BACKEND_AUTO, &ops), 0);
    cr_assert_eq(ops, nnc_backends[0]);
    cr_assert_eq(nnc_backend_find(NNC_BACKEND_REFERENCE, &ops), 0);
    cr_assert_eq(ops, &nnc_backend_reference);
    ops = NULL;
    cr_assert_eq(nnc_backend_find(NNC_BACKEND_CUDA, &ops), -NNC_E_USAGE);
    cr_assert_null(ops);
    cr_assert(strstr(nnc_error_text(), "--gpus 0"));
}
