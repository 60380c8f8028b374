/* SPDX-License-Identifier: Apache-2.0 */
/* Which compilations of onednn_kernels.c there are, and which of them this processor can run. */
#include <assert.h>

#include "cpu/onednn_kernels.h"

extern const struct nnc_kernels nnc_kernels_baseline;
#if NNC_KERNELS_X86
extern const struct nnc_kernels nnc_kernels_avx2;
extern const struct nnc_kernels nnc_kernels_avx512;
#endif

const struct nnc_kernels *const *nnc_kernels_all(void) {
    static const struct nnc_kernels *const tables[] = {
#if NNC_KERNELS_X86
        &nnc_kernels_avx512,
        &nnc_kernels_avx2,
#endif
        &nnc_kernels_baseline,
        NULL,
    };
    uint32_t skip = 0;
#if NNC_KERNELS_X86
    bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
                  __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq");
    skip = avx512 ? 0 : avx2 ? 1 : 2;
#endif
    return tables + skip;
}

const struct nnc_kernels *nnc_kernels_best(void) {
    return nnc_kernels_all()[0];
}
