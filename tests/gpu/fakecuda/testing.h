/* SPDX-License-Identifier: Apache-2.0 */
/* What tests may ask of the stand-in beyond CUDA's own functions; libfakecuda.so has them. */
#ifndef NNC_TESTS_FAKECUDA_TESTING_H
#define NNC_TESTS_FAKECUDA_TESTING_H

#include <stdbool.h>
#include <stddef.h>

/* Settings as the variable CUDA_FAKE has them, in its place; calls are counted anew. The arena
 * keeps its size once it was used. */
void fakecuda_configure(const char *settings);

/* The host reads or writes these bytes now: a violation while an operation that is not known to be
 * over still uses them. */
void fakecuda_host_access(const void *memory, size_t bytes, bool write);

/* The alias of device memory, through which a test looks at it; host memory itself. */
void *fakecuda_peek(const void *memory);

/* Keep violations instead of aborting. The operation that caused one is dropped when its memory is
 * wrong, and goes on when only its order is. */
void fakecuda_record_violations(bool record);

/* The first one since the last call, or NULL. */
const char *fakecuda_violation(void);

/* Blocks of device and pinned memory that were not freed. */
size_t fakecuda_live_blocks(void);

#endif
