/* SPDX-License-Identifier: Apache-2.0 */
/* The self-test of the CUDA backend on the stand-ins: green in each type, and its limits hold with
 * real roundings to 16 bits. */
#include "tests/gpu/cuda_case.h"

#include "base/config.h"
#include "cpu/reference.h"
#include "workers/selftest.h"

#include <criterion/criterion.h>

static void expect_green(void *context, const struct nnc_selftest_line *line) {
    uint32_t *lines = context;
    cr_expect_eq(line->status, NNC_SELFTEST_OK, "%s: %s", line->check, line->text);
    (*lines)++;
}

static uint32_t check(int32_t amp, enum nnc_precision precision, uint32_t ranks) {
    uint32_t lines = 0;
    struct nnc_selftest_params params = {.ops = &nnc_backend_cuda,
                                         .reference = &nnc_backend_reference,
                                         .ranks = ranks,
                                         .precision = precision,
                                         .on_line = expect_green,
                                         .context = &lines};
    for (uint32_t rank = 0; rank < ranks; rank++) {
        params.device[rank] =
            (struct nnc_device_params){.ordinal = rank, .amp = amp, .workspace_bytes = 64 << 20};
    }
    fakecuda_configure("schedule=lazy,devices=2");
    cr_expect_eq(ranks > 1 ? nnc_selftest_ranks(&params) : nnc_selftest_device(&params), 0);
    return lines;
}

/* The stand-ins multiply in fp32, so the narrow limits hold. */
Test(cuda_selftest, is_green_in_fp32, .timeout = 300) {
    cr_expect_gt(check(NNC_AMP_OFF, NNC_PRECISION_FP32, 1), 12);
}

Test(cuda_selftest, is_green_in_bf16, .timeout = 300) {
    cr_expect_gt(check(NNC_AMP_BF16, NNC_PRECISION_BF16, 1), 12);
}

Test(cuda_selftest, is_green_in_fp16, .timeout = 300) {
    cr_expect_gt(check(NNC_AMP_FP16, NNC_PRECISION_FP16, 1), 12);
}

Test(cuda_selftest, of_two_devices_sums_and_survives_one_that_gives_nothing, .timeout = 120) {
    cr_expect_eq(check(NNC_AMP_OFF, NNC_PRECISION_FP32, 2), 2);
    cr_expect_eq(check(NNC_AMP_BF16, NNC_PRECISION_BF16, 2), 2);
}
