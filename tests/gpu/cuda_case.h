/* SPDX-License-Identifier: Apache-2.0 */
/* The CUDA backend on the stand-ins for its libraries (fakecuda/), and what tests of it share. */
#ifndef NNC_TESTS_GPU_CUDA_CASE_H
#define NNC_TESTS_GPU_CUDA_CASE_H

#include "gpu/exec.h"
#include "gpu/plugin.h"
#include "tests/gpu/fakecuda/testing.h"
#include "tests/support/backend_cases.h"

/* Set the stand-ins (CUDA_FAKE's words) and the device for the models that follow. */
void cuda_case_configure(const char *fake, int32_t amp);

/* The case of that name. */
const struct backend_case *cuda_case_row(const char *name);

/* Feed, step and update `steps` times with the whole batch. Asserts. */
void cuda_case_train(struct case_model *model, uint32_t steps);

/* Nothing of the model before is left on the device. */
void cuda_case_expect_no_leak(void);

#endif
