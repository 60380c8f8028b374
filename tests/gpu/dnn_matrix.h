/* SPDX-License-Identifier: Apache-2.0 */
/* The support matrix: what cuDNN says about every convolution on a described device. The test
 * compares it with what is expected, the program prints it. */
#ifndef NNC_TESTS_GPU_DNN_MATRIX_H
#define NNC_TESTS_GPU_DNN_MATRIX_H

#include "tests/gpu/dnn_cases.h"

#include <stdio.h>

#define DNN_WORKSPACE_CAP ((size_t)512 << 20)

/* About one convolution. */
struct dnn_answer {
    int code;           /* of nnc_dnn_select() */
    bool deterministic; /* a plan that is passes the policy too */
    uint32_t notes;     /* of the plan: NNC_DNN_* */
    size_t workspace;   /* of the larger of the two plans */
};

/* About all of them on one device in one type, at all batches. */
struct dnn_cell {
    uint32_t asked, planned, tensor_core;
    uint32_t deterministic, deterministic_first; /* first: of the plans without that policy */
    size_t workspace;                            /* the largest */
};

/* Called with each answer; the error text is the answer's when code < 0. */
typedef void dnn_visit(void *context, const struct nnc_dnn_key *key,
                       const struct dnn_answer *answer);

/* Ask about all cases at batches of 1, 7, 32 and 256, and add the answers to *cell. */
void dnn_matrix_ask(struct nnc_dnn_device *device, const struct dnn_cases *cases,
                    enum nnc_gpu_type type, dnn_visit *visit, void *context, struct dnn_cell *cell);

/* True for convolutions of 16-bit types that have to be on tensor cores, those of 1 GFLOP or more.
 * Smaller ones take microseconds, and cuDNN's choice among its engines may be as good without. */
bool dnn_needs_tensor_core(const struct nnc_dnn_key *key);

/* "cuDNN 9.19.0" */
void dnn_version_text(char *ret_text, size_t room);

/* Head and rows of the table, in Markdown. */
void dnn_matrix_print_head(FILE *file);
void dnn_matrix_print_row(FILE *file, const struct dnn_device *device, enum nnc_gpu_type type,
                          const struct dnn_cell *cell);

#endif
