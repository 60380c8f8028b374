/* SPDX-License-Identifier: Apache-2.0 */
/* Whole runs of nncoord on GPUs that are not there: the real programs, the plug-in with the host's
 * kernels, and stand-ins for CUDA's libraries (fakecuda/). */
#ifndef NNC_TESTS_GPU_RUN_CASE_H
#define NNC_TESTS_GPU_RUN_CASE_H

#include "tests/support/command.h"

#include <stddef.h>

/* A scratch folder with data (28 x 28 grey, 10 classes) and nothing else, and the programs beside
 * the plug-in; to be used with command_start(). Owner: run_case_finish(). */
char *run_case_start(void);
void run_case_finish(char *scratch);

/* What the stand-ins are told (fakecuda/settings.c), for all commands from now on. */
void run_case_fake(const char *settings);

/* Start `nncoord train` of a small run into folder `out`; options end with NULL and win. */
struct command run_case_train(const char *scratch, const char *out, const char *const *options);

/* The same, until it ends; fails the test when its exit status is not `status`. The caller frees
 * the command. */
struct command run_case_finished(const char *scratch, const char *out, int status,
                                 const char *const *options);

/* Values of all tensors of a run's newest weights, one after the other. Owner: caller frees. */
float *run_case_weights(const char *scratch, const char *out, size_t *ret_count);

/* |left - right| / |right - start|, Euclidean: how much of the way from the start is off. */
double run_case_distance(const char *scratch, const char *left, const char *right,
                         const char *start);

/* Whether two runs have the same weights, bit for bit. */
bool run_case_same(const char *scratch, const char *left, const char *right);

#endif
