/* SPDX-License-Identifier: Apache-2.0 */
/* A place for tests to let a decoder hang or crash in chosen samples: files that really do it are
 * mended as soon as they are known. In programs compiled with -DNNC_LOADER_POISON=1 the bytes of
 * every sample go through loader_poison() first; everywhere else the call is nothing. */
#ifndef NNC_LOADER_POISON_H
#define NNC_LOADER_POISON_H

#include <stddef.h>
#include <stdint.h>

#if !defined(NNC_LOADER_POISON)
#define NNC_LOADER_POISON 0
#endif

#if NNC_LOADER_POISON
/* Provided by the test; may never return. */
void loader_poison(const uint8_t *bytes, size_t size);
#else
static inline void loader_poison(const uint8_t *bytes, size_t size) {
    (void)bytes;
    (void)size;
}
#endif

#endif
