/* SPDX-License-Identifier: Apache-2.0 */
/* libcublasLt.so.13: what its opaque structs hold, and one product. */
#ifndef NNC_TESTS_FAKECUDA_CUBLASLT_H
#define NNC_TESTS_FAKECUDA_CUBLASLT_H

#include "tests/gpu/fakecuda/numbers.h"

#include <cublasLt.h>
#include <stdbool.h>

/* The opaque structs of the header are containers for these. */
struct layout {
    uint32_t type, order;
    uint64_t rows, cols;
    int64_t ld;
};

struct description {
    uint32_t compute, scale, epilogue;
    int32_t transpose[2];
    const void *bias;
    int32_t bias_type; /* -1: as D */
};

struct preference {
    uint64_t workspace;
    uint32_t reduction, alignment[4]; /* of A, B, C, D */
};

struct algorithm {
    uint32_t magic, scrambled, alignment[4];
    uint64_t workspace;
};

struct matmul {
    struct description description;
    struct layout a, b, c, d;
    const void *pa, *pb, *pc;
    void *pd, *workspace;
    float alpha, beta;
    struct algorithm algorithm;
};

enum fake_type lt_type(uint32_t type);
enum fake_type lt_bias_type(const struct matmul *matmul);
bool lt_has_bias(const struct matmul *matmul);

/* How many products each element sums. */
uint64_t lt_sums(const struct matmul *matmul);

/* Run the product; closure is a struct matmul. */
void lt_run(void *closure);

#endif
