/* SPDX-License-Identifier: Apache-2.0 */
/* Shared by the files selftest*.c. A check fills in a line; whatever fails becomes a FAIL. */
#ifndef NNC_WORKERS_SELFTEST_PRIVATE_H
#define NNC_WORKERS_SELFTEST_PRIVATE_H

#include "workers/selftest.h"

/* A line of this name that is OK, and has measured nothing yet. */
struct nnc_selftest_line selftest_line(const struct nnc_selftest_params *params, const char *check);

/* A case of a check begins: every piece of work on a device that may hang. */
void selftest_begin(const struct nnc_selftest_params *params, const char *name);

/* A check failed with an error: FAIL with this thread's error text. */
void selftest_error(struct nnc_selftest_line *line, const char *where);

/* Hand the line out; returns 1 when it is a FAIL. */
uint32_t selftest_tell(const struct nnc_selftest_params *params,
                       const struct nnc_selftest_line *line);

/* Parameters of a case on the backend under test, on device[0]. */
struct nnc_case_params selftest_case_params(const struct nnc_selftest_params *params);

/* The same with algorithms that give the same bits each time. */
struct nnc_case_params selftest_exact_params(const struct nnc_selftest_params *params);

/* The case with this name (assert). */
const struct nnc_case *selftest_case(const char *name);

/* Take a figure into the line if it is nearer to its limit than the one there. */
void selftest_measure(struct nnc_selftest_line *line, double error, double limit, const char *text);

/* ---- selftest_device.c ---- */

/* Pinned memory, recorded steps: of device backends. Returns how many checks failed. */
uint32_t selftest_device_only(const struct nnc_selftest_params *params);

/* ---- selftest_model.c ---- */

/* One step of params->model_path against the reference. Returns how many checks failed. */
uint32_t selftest_model(const struct nnc_selftest_params *params);

#endif
