/* SPDX-License-Identifier: Apache-2.0 */
/* Fuzz target: any bytes as a tar shard, in memory. Every image found must lie inside the shard and
 * have a name and a label in range. Each input is tried as it is and with right checksums, which a
 * fuzzer would hardly ever guess. */
#include "coordinator/dataset_shard.h"

#include "ipc/index.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

struct memory {
    const uint8_t *data;
    size_t bytes;
};

static ssize_t read_memory(void *context, void *data, size_t bytes, uint64_t offset) {
    const struct memory *memory = context;
    assert(offset <= memory->bytes);
    size_t left = memory->bytes - (size_t)offset;
    size_t count = bytes < left ? bytes : left;
    memcpy(data, memory->data + offset, count);
    return (ssize_t)count;
}

static void scan(const uint8_t *data, size_t bytes) {
    struct memory memory = {.data = data, .bytes = bytes};
    const struct nnc_tar_source source = {
        .name = "fuzz.tar", .size = bytes, .read = read_memory, .context = &memory};
    struct nnc_shard shard;
    if (nnc_shard_scan(&source, &shard) >= 0) {
        for (size_t i = 0; i < shard.image_count; i++) {
            const struct nnc_shard_image *image = &shard.images[i];
            assert(image->offset <= bytes && image->size <= bytes - image->offset);
            assert(image->label >= -1 && image->label < (int32_t)NNC_INDEX_CLASSES_MAX);
            assert(strlen(nnc_pool_at(&shard.names, image->name)) <= NNC_TAR_NAME_MAX);
        }
    }
    nnc_shard_finish(&shard);
}

/* Write right checksums into all blocks that look like headers. */
static void fix_checksums(uint8_t *data, size_t bytes) {
    for (size_t at = 0; at + 512 <= bytes; at += 512) {
        uint8_t *block = data + at;
        if (memcmp(block + 257, "ustar", 5) != 0) {
            continue;
        }
        unsigned sum = 0;
        memset(block + 148, ' ', 8);
        for (int i = 0; i < 512; i++) {
            sum += block[i];
        }
        char text[8];
        snprintf(text, sizeof(text), "%06o", sum & 0777777);
        memcpy(block + 148, text, 7);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    scan(data, bytes);
    uint8_t *fixed = malloc(bytes + 1);
    if (fixed != NULL) {
        memcpy(fixed, data, bytes);
        fix_checksums(fixed, bytes);
        scan(fixed, bytes);
    }
    free(fixed);
    return 0;
}
