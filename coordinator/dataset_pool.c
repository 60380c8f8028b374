/* SPDX-License-Identifier: Apache-2.0 */
/* Growing arrays and strings by offset. Capacity grows by half, so adding n rows copies O(n) bytes.
 * Invariant: every string in the pool ends with a zero, so each offset handed out is a C string. */
#include "coordinator/dataset_pool.h"

#include "base/checked.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

static bool grow_to(void **rows, size_t needed, size_t *capacity, size_t row_bytes) {
    if (needed <= *capacity) {
        return true;
    }
    size_t rows_new;
    size_t bytes;
    if (nnc_size_add(needed, needed / 2 + 16, &rows_new) ||
        nnc_size_mul(rows_new, row_bytes, &bytes)) {
        return false;
    }
    void *grown = realloc(*rows, bytes);
    if (grown == NULL) {
        return false;
    }
    *rows = grown;
    *capacity = rows_new;
    return true;
}

bool nnc_array_grow(void **rows, size_t count, size_t *capacity, size_t row_bytes) {
    assert(count <= *capacity);
    return grow_to(rows, count + 1, capacity, row_bytes);
}

size_t nnc_pool_add(struct nnc_pool *pool, const char *text, size_t length) {
    void *rows = pool->text;
    if (pool->failed || !grow_to(&rows, pool->used + length + 1, &pool->capacity, 1)) {
        pool->failed = true;
        return 0;
    }
    pool->text = rows;
    size_t offset = pool->used;
    memcpy(pool->text + offset, text, length);
    pool->text[offset + length] = '\0';
    pool->used += length + 1;
    return offset;
}

const char *nnc_pool_at(const struct nnc_pool *pool, size_t offset) {
    if (pool->failed) {
        return "";
    }
    assert(offset < pool->used);
    return pool->text + offset;
}

void nnc_pool_finish(struct nnc_pool *pool) {
    free(pool->text);
    *pool = (struct nnc_pool){0};
}
