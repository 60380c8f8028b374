/* SPDX-License-Identifier: Apache-2.0 */
/* Growing arrays and a pool of strings for the scanners: millions of names in one block of memory.
 * Strings are named by their offset, since the block moves when it grows. One thread a pool. */
#ifndef NNC_COORDINATOR_DATASET_POOL_H
#define NNC_COORDINATOR_DATASET_POOL_H

#include <stdbool.h>
#include <stddef.h>

/* Zero is a ready, empty pool. A pool that had no memory once stays failed. */
struct nnc_pool {
    char *text;
    size_t used;
    size_t capacity;
    bool failed;
};

/* Append a zero-ended string of length bytes and return its offset; 0 when there is no memory. */
size_t nnc_pool_add(struct nnc_pool *pool, const char *text, size_t length);

/* The string at an offset returned before, valid until the next add; "" in a failed pool. */
const char *nnc_pool_at(const struct nnc_pool *pool, size_t offset);

/* Free the strings; the pool is empty again. */
void nnc_pool_finish(struct nnc_pool *pool);

/* Make room for one more row in the array *rows of count rows of row_bytes bytes each.
 * false when there is no memory; *rows is as before then. */
bool nnc_array_grow(void **rows, size_t count, size_t *capacity, size_t row_bytes);

#endif
