/* SPDX-License-Identifier: Apache-2.0 */
/* For the files that are compiled once per instruction set, and no others: names that differ in
 * each compilation, and the vectors they are written with. */
#ifndef NNC_CPU_ONEDNN_KERNELS_OWN_H
#define NNC_CPU_ONEDNN_KERNELS_OWN_H

#include "cpu/onednn_kernels.h"

/* NNC_OWN(pool) is nnc_kernels_avx2_pool in the compilation whose table is nnc_kernels_avx2. */
#define NNC_OWN_JOIN(table, name) table##_##name
#define NNC_OWN_NAME(table, name) NNC_OWN_JOIN(table, name)
#define NNC_OWN(name)             NNC_OWN_NAME(NNC_KERNELS, name)

enum {
    WIDTH = 8, /* of a vector, in floats */
};

/* Vectors of gcc and clang, which map them to what the instruction set has. They travel by address:
 * passed by value they would have another ABI in each compilation. */
typedef float vec __attribute__((vector_size(4 * WIDTH), aligned(4), may_alias));
typedef int32_t mask __attribute__((vector_size(4 * WIDTH), aligned(4), may_alias));
typedef uint8_t bytes __attribute__((vector_size(WIDTH), aligned(1), may_alias));

#define INLINE static inline __attribute__((always_inline))

/* See struct nnc_kernels. */
void NNC_OWN(pool)(const struct nnc_pool_plane *plane);
void NNC_OWN(pool_grad)(const struct nnc_pool_plane *plane);
void NNC_OWN(dropout)(const struct nnc_dropout *dropout, uint32_t sample, size_t count,
                      float *ret_factors);

#endif
