/* SPDX-License-Identifier: Apache-2.0 */
/* Fuzz target: any bytes as a safetensors file, in memory. What is accepted must lie inside the
 * file, and every tensor must be readable. */
#include "workers/safetensors.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

struct memory {
    struct nnc_vfs base;
    const uint8_t *data;
    size_t bytes;
};

static int memory_open(struct nnc_vfs *vfs, const char *path, int flags, unsigned mode) {
    (void)vfs, (void)path, (void)flags, (void)mode;
    return 3;
}

static int memory_close(struct nnc_vfs *vfs, int fd) {
    (void)vfs, (void)fd;
    return 0;
}

static ssize_t memory_pread(struct nnc_vfs *vfs, int fd, void *data, size_t bytes,
                            uint64_t offset) {
    const struct memory *memory = (const struct memory *)vfs;
    (void)fd;
    if (offset >= memory->bytes) {
        return 0;
    }
    size_t left = memory->bytes - (size_t)offset;
    size_t count = bytes < left ? bytes : left;
    memcpy(data, memory->data + offset, count);
    return (ssize_t)count;
}

static int64_t memory_size(struct nnc_vfs *vfs, int fd) {
    (void)fd;
    return (int64_t)((const struct memory *)vfs)->bytes;
}

static const struct nnc_vfs_ops ops = {
    .name = "memory",
    .open = memory_open,
    .close = memory_close,
    .pread = memory_pread,
    .size = memory_size,
};

static void read_all(const struct nnc_safetensors *file, size_t bytes) {
    for (uint32_t i = 0; i < file->count; i++) {
        const struct nnc_safetensor *tensor = &file->tensors[i];
        assert(tensor->offset <= bytes && tensor->bytes <= bytes - tensor->offset);
        assert(tensor->bytes == tensor->count * nnc_dtype_bytes(tensor->dtype));
        float *values = malloc(tensor->count * sizeof(*values) + 1);
        if (values != NULL) {
            assert(nnc_safetensors_read(file, i, values) == 0);
        }
        free(values);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    struct memory memory = {.base = {.ops = &ops}, .data = data, .bytes = bytes};
    struct nnc_safetensors *file = NULL;
    if (nnc_safetensors_open(&memory.base, "fuzz.safetensors", &file) >= 0) {
        read_all(file, bytes);
        (void)nnc_safetensors_metadata(file, "format");
        nnc_safetensors_close(file);
    }
    return 0;
}
