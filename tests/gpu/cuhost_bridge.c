/* SPDX-License-Identifier: Apache-2.0 */
/* Kernels of the host build (cuhost.h) on streams of the stand-in runtime (cuhost_hook.h). */
#include "tests/gpu/cuhost.h"
#include "tests/gpu/cuhost_hook.h"

#include <assert.h>
#include <stdlib.h>

enum {
    RANGES_MAX = 32
};

void cuhost_submit(void *stream, const struct cuhost_range *ranges, size_t count,
                   void (*run)(void *closure), void *closure) {
    struct fakecuda_range copies[RANGES_MAX];
    assert(count <= RANGES_MAX);
    for (size_t number = 0; number < count; number++) {
        copies[number] = (struct fakecuda_range){.memory = ranges[number].start,
                                                 .bytes = ranges[number].bytes,
                                                 .write = ranges[number].write,
                                                 .kernel = cuhost_name(closure)};
    }
    fakecuda_submit(stream, copies, count, run, free, closure);
}

void *cuhost_translate(const void *device) {
    return fakecuda_translate(device);
}
