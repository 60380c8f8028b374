/* SPDX-License-Identifier: Apache-2.0 */
/* The cases of workers/selftest_case.h for Criterion: whatever fails there fails the test here. */
#ifndef NNC_TESTS_SUPPORT_BACKEND_CASES_H
#define NNC_TESTS_SUPPORT_BACKEND_CASES_H

#include "workers/selftest_case.h"

/* What device backends are opened with; zero at first. */
extern struct nnc_device_params case_device;

/* As nnc_case_open() and nnc_case_close(). */
void case_model_open(const struct nnc_backend_ops *ops, const struct nnc_case *row,
                     struct nnc_case_model *ret_model);
void case_model_close(struct nnc_case_model *model);

/* As nnc_case_step(); returns the metrics. */
struct nnc_metrics case_model_step(struct nnc_case_model *model, enum nnc_case_program which,
                                   uint64_t step);

/* As nnc_case_run(). Owner: case_result_free(). */
void case_run(const struct nnc_backend_ops *ops, const struct nnc_case *row,
              struct nnc_case_result *ret_result);
void case_result_free(struct nnc_case_result *result);

/* As nnc_case_record(), but zeros. */
float *case_record(struct nnc_case_result *result, int group, size_t count, const char *title,
                   const char *name);

/* nnc_case_bound() of the case's training program. */
double case_bound(const struct nnc_case *row, double unit_roundoff);

/* Whether all quantities agree within the bound; else ret_text (bytes long) names the first that
 * does not, with figures. */
bool case_results_agree(const struct nnc_case_result *wanted, const struct nnc_case_result *got,
                        double bound, char *ret_text, size_t bytes);

#endif
