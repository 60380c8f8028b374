/* SPDX-License-Identifier: Apache-2.0 */
/* The reference backend: every operation in plain C loops over (N,C,H,W) floats, one thread, sums
 * in double. It is the definition of correct for the other backends, and slow. */
#ifndef NNC_CPU_REFERENCE_H
#define NNC_CPU_REFERENCE_H

#include "workers/backend.h"

extern const struct nnc_backend_ops nnc_backend_reference;

#endif
