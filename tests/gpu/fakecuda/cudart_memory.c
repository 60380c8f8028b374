/* SPDX-License-Identifier: Apache-2.0 */
/* libcudart.so.13: memory and copies.
 *
 * Pageable host memory (neither allocated nor registered here) behaves as CUDA documents: a copy to
 * the device has read its source when the call returns, a copy to the host is complete. */
#include "tests/gpu/fakecuda/capture.h"

#include <stdlib.h>
#include <string.h>

struct copy {
    void *to;
    const void *from;
    size_t to_pitch, from_pitch, width, height;
    unsigned char staged[]; /* pageable source */
};

cudaError_t cudaMalloc(void **memory, size_t bytes) {
    cudaError_t code = fake_enter("cudaMalloc");
    code = code ? code : fake_capture_forbids();
    return fake_leave(code ? code : fake_memory_allocate(fake_device(), bytes, memory));
}

cudaError_t cudaFree(void *memory) {
    cudaError_t code = fake_enter("cudaFree");
    code = code || !memory ? code : fake_capture_forbids();
    return fake_leave(code ? code : fake_memory_free(memory));
}

cudaError_t cudaHostAlloc(void **memory, size_t bytes, unsigned flags) {
    cudaError_t code = fake_enter("cudaHostAlloc");
    code = code ? code : fake_capture_forbids();
    return fake_leave(code ? code : fake_host_pin(NULL, bytes, flags, memory));
}

cudaError_t cudaMallocHost(void **memory, size_t bytes) {
    return cudaHostAlloc(memory, bytes, cudaHostAllocDefault);
}

cudaError_t cudaFreeHost(void *memory) {
    cudaError_t code = fake_enter("cudaFreeHost");
    return fake_leave(code || !memory ? code : fake_host_unpin(memory, true));
}

cudaError_t cudaHostRegister(void *memory, size_t bytes, unsigned flags) {
    cudaError_t code = fake_enter("cudaHostRegister");
    if (!code && (flags & cudaHostRegisterReadOnly) && !fake_settings()->read_only_register) {
        code = cudaErrorNotSupported;
    }
    if (!code && !memory) {
        code = cudaErrorInvalidValue;
    }
    return fake_leave(code ? code : fake_host_pin(memory, bytes, flags, &memory));
}

cudaError_t cudaHostUnregister(void *memory) {
    cudaError_t code = fake_enter("cudaHostUnregister");
    return fake_leave(code ? code : fake_host_unpin(memory, false));
}

cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total_bytes) {
    cudaError_t code = fake_enter("cudaMemGetInfo");
    if (!code) {
        *total_bytes = fake_settings()->memory;
        *free_bytes = *total_bytes - fake_memory_used();
    }
    return fake_leave(code);
}

/* ---- copies ---- */

static void run_copy(void *closure) {
    const struct copy *copy = closure;
    unsigned char *to = fake_translate(copy->to);
    const unsigned char *from = fake_translate(copy->from);
    for (size_t row = 0; row < copy->height; row++) {
        memmove(to + row * copy->to_pitch, from + row * copy->from_pitch, copy->width);
    }
}

/* What a copy of the rows spans. */
static size_t span(size_t pitch, const struct copy *copy) {
    return (copy->height - 1) * pitch + copy->width;
}

static bool kind_fits(enum cudaMemcpyKind kind, const void *to, const void *from) {
    bool to_device = fake_memory_is_device(to), from_device = fake_memory_is_device(from);
    switch (kind) {
    case cudaMemcpyHostToHost:
        return !to_device && !from_device;
    case cudaMemcpyHostToDevice:
        return to_device && !from_device;
    case cudaMemcpyDeviceToHost:
        return !to_device && from_device;
    case cudaMemcpyDeviceToDevice:
        return to_device && from_device;
    case cudaMemcpyDefault:
        return true;
    }
    return false;
}

static bool is_pageable(const void *memory, size_t bytes) {
    return !fake_memory_is_device(memory) && !fake_memory_is_pinned(memory, bytes);
}

static cudaError_t queue_copy(const struct copy *params, cudaStream_t stream) {
    size_t from_bytes = span(params->from_pitch, params), to_bytes = span(params->to_pitch, params);
    bool from_pageable = is_pageable(params->from, from_bytes);
    bool to_pageable = is_pageable(params->to, to_bytes);
    struct copy *copy = malloc(sizeof *copy + (from_pageable ? from_bytes : 0));
    if (!copy || (stream->capture && (from_pageable || to_pageable))) {
        free(copy);
        return copy ? cudaErrorStreamCaptureUnsupported : cudaErrorMemoryAllocation;
    }
    *copy = *params;
    struct fake_range ranges[2];
    size_t count = 0;
    if (from_pageable) {
        memcpy(copy->staged, params->from, from_bytes);
        copy->from = copy->staged;
    } else {
        ranges[count++] = (struct fake_range){.memory = params->from, .bytes = from_bytes};
    }
    if (!to_pageable) {
        ranges[count++] =
            (struct fake_range){.memory = params->to, .bytes = to_bytes, .write = true};
    }
    struct fake_work work = {.name = "cudaMemcpyAsync",
                             .ranges = ranges,
                             .count = count,
                             .run = run_copy,
                             .done = free,
                             .closure = copy};
    cudaError_t code = fake_submit(stream, &work);
    if (!code && to_pageable) {
        fake_stream_finish(stream);
        code = fake_broken();
    }
    return code;
}

cudaError_t cudaMemcpy2DAsync(void *to, size_t to_pitch, const void *from, size_t from_pitch,
                              size_t width, size_t height, enum cudaMemcpyKind kind,
                              cudaStream_t stream) {
    cudaError_t code = fake_enter("cudaMemcpyAsync");
    struct copy copy = {.to = to,
                        .from = from,
                        .to_pitch = to_pitch,
                        .from_pitch = from_pitch,
                        .width = width,
                        .height = height};
    cudaStream_t real = code ? NULL : fake_stream_of(stream);
    if (!code && (!real || !kind_fits(kind, to, from))) {
        code = real ? cudaErrorInvalidMemcpyDirection : cudaErrorInvalidResourceHandle;
    }
    if (!code && width && height) {
        code = queue_copy(&copy, real);
    }
    return fake_leave(code);
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind,
                            cudaStream_t stream) {
    return cudaMemcpy2DAsync(to, bytes, from, bytes, bytes, 1, kind, stream);
}

cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind) {
    cudaError_t code = fake_enter("cudaMemcpy");
    code = fake_leave(code ? code : fake_capture_forbids());
    code = code ? code : cudaMemcpyAsync(to, from, bytes, kind, NULL);
    return code ? code : cudaStreamSynchronize(NULL);
}

/* ---- memset ---- */

struct fill {
    void *to;
    int value;
    size_t bytes;
};

static void run_fill(void *closure) {
    const struct fill *fill = closure;
    memset(fake_translate(fill->to), fill->value, fill->bytes);
}

cudaError_t cudaMemsetAsync(void *to, int value, size_t bytes, cudaStream_t stream) {
    cudaError_t code = fake_enter("cudaMemsetAsync");
    cudaStream_t real = code ? NULL : fake_stream_of(stream);
    struct fill *fill = real ? malloc(sizeof *fill) : NULL;
    if (fill && bytes) {
        *fill = (struct fill){.to = to, .value = value, .bytes = bytes};
        struct fake_range range = {.memory = to, .bytes = bytes, .write = true};
        struct fake_work work = {.name = "cudaMemsetAsync",
                                 .ranges = &range,
                                 .count = 1,
                                 .run = run_fill,
                                 .done = free,
                                 .closure = fill};
        code = fake_submit(real, &work);
    } else {
        free(fill);
        code = code || fill ? code : cudaErrorInvalidResourceHandle;
    }
    return fake_leave(code);
}
