/* SPDX-License-Identifier: Apache-2.0 */
/* The CUDA backend: one GPU, one process. */
#ifndef NNC_GPU_PLUGIN_H
#define NNC_GPU_PLUGIN_H

#include "base/err.h"
#include "workers/backend.h"

extern const struct nnc_backend_ops nnc_backend_cuda;

/* What nncoord_cuda.so exports, as NNC_BACKEND_PLUGIN. */
extern NNC_EXPORT const struct nnc_backend_plugin nnc_backend_plugin;

#endif
