/* SPDX-License-Identifier: Apache-2.0 */
/* Fuzz target: any bytes as the index of a data set, as they are and with a right size and hash,
 * which a fuzzer would hardly ever guess. What is accepted must be safe to use everywhere. */
#include "ipc/index.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static void use(const struct nnc_index *index) {
    const struct nnc_index_header *header = index->header;
    char path[64];
    size_t sum = 0;
    for (uint64_t i = 0; i < header->samples; i++) {
        sum += strlen(nnc_index_sample_path(index, i, path, sizeof(path)));
        assert(index->samples[i].label < (int64_t)header->classes);
        assert(header->kind == NNC_INDEX_FOLDER || index->samples[i].file < header->files);
    }
    for (uint64_t i = 0; i < header->classes; i++) {
        sum += strlen(nnc_index_class_name(index, i));
    }
    for (uint64_t i = 0; i < header->files; i++) {
        assert(index->strings[index->files[i].name] != '/');
        sum += strlen(index->strings + index->files[i].name);
    }
    for (uint64_t i = 0; i < header->watched; i++) {
        sum += strlen(index->strings + index->watched[i].name);
    }
    assert(sum < SIZE_MAX);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    /* A copy: aligned, writable, and with its end where the sanitizer sees it. */
    uint8_t *copy = malloc(bytes > 0 ? bytes : 1);
    if (copy == NULL) {
        return 0;
    }
    memcpy(copy, data, bytes);
    struct nnc_index index;
    if (nnc_index_open(copy, bytes, &index) >= 0) {
        use(&index);
    }
    struct nnc_index_header header;
    if (bytes >= sizeof(header)) {
        memcpy(&header, copy, sizeof(header));
        header.total_bytes = bytes;
        header.hash = XXH3_64bits(copy + sizeof(header), bytes - sizeof(header));
        memcpy(copy, &header, sizeof(header));
        if (nnc_index_open(copy, bytes, &index) >= 0) {
            use(&index);
        }
    }
    free(copy);
    return 0;
}
