/* SPDX-License-Identifier: Apache-2.0 */
/* The kernels for the host, in one library; see cuhost.h. meson knows no .cu without a CUDA
 * compiler. */
#include "gpu/kernels_loss.cu"
#include "gpu/kernels_norm.cu"
#include "gpu/kernels_pointwise.cu"
#include "gpu/kernels_pool.cu"
#include "gpu/kernels_update.cu"
