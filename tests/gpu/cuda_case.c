/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/gpu/cuda_case.h"

#include "base/err.h"

#include <criterion/criterion.h>
#include <string.h>

void cuda_case_configure(const char *fake, int32_t amp) {
    fakecuda_configure(fake);
    case_device =
        (struct nnc_device_params){.amp = amp, .deterministic = true, .workspace_bytes = 64 << 20};
}

const struct nnc_case *cuda_case_row(const char *name) {
    for (const struct nnc_case *row = nnc_cases; row->name; row++) {
        if (strcmp(row->name, name) == 0) {
            return row;
        }
    }
    cr_assert(false, "there is no case '%s'", name);
    return NULL;
}

void cuda_case_train(struct nnc_case_model *model, uint32_t steps) {
    const struct nnc_sgd sgd = {.lr = 0.01f, .momentum = 0.9f, .weight_decay = {0.01f, 0, 0}};
    for (uint32_t step = 0; step < steps; step++) {
        case_model_step(model, NNC_CASE_WHOLE, step);
        cr_assert_eq(model->ops->update(model->backend, &sgd), 0, "%s", nnc_error_text());
    }
}

void cuda_case_expect_no_leak(void) {
    cr_expect_eq(fakecuda_live_blocks(), 0, "%zu blocks are left", fakecuda_live_blocks());
}
