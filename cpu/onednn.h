/* SPDX-License-Identifier: Apache-2.0 */
/* The fast backend for CPUs: matrix work by oneDNN in the layouts it likes best, everything else by
 * loops of ours over the same layouts (cpu/README.md). */
#ifndef NNC_CPU_ONEDNN_H
#define NNC_CPU_ONEDNN_H

#include <stdio.h>

#include "workers/backend.h"

extern const struct nnc_backend_ops nnc_backend_onednn;

/* Write where the time of an executable of this backend went, one line a stage, dearest first.
 * Errors: -ENOMEM. */
int nnc_onednn_report(const struct nnc_executable *executable, FILE *out);

/* Fill the memory that executables share with a byte pattern. No result may depend on what it held
 * before a step; tests prove that. */
void nnc_onednn_scribble(struct nnc_backend *backend, int byte);

#endif
