/* SPDX-License-Identifier: Apache-2.0 */
/* Sizes are multiplied and added only through these: a hostile dimension must never wrap around.
 * Each returns true on overflow and leaves *ret_value untouched. */
#ifndef NNC_BASE_CHECKED_H
#define NNC_BASE_CHECKED_H

#include <stdbool.h>
#include <stddef.h>

/* *ret_value = left * right, or true when the product does not fit size_t. */
static inline bool nnc_size_mul(size_t left, size_t right, size_t *ret_value) {
    size_t value;
    if (__builtin_mul_overflow(left, right, &value)) {
        return true;
    }
    *ret_value = value;
    return false;
}

/* *ret_value = left + right, or true when the sum does not fit size_t. */
static inline bool nnc_size_add(size_t left, size_t right, size_t *ret_value) {
    size_t value;
    if (__builtin_add_overflow(left, right, &value)) {
        return true;
    }
    *ret_value = value;
    return false;
}

/* *ret_value = value rounded up to a multiple of the power of two `multiple`; true on overflow. */
static inline bool nnc_size_round_up(size_t value, size_t multiple, size_t *ret_value) {
    size_t sum;
    if (nnc_size_add(value, multiple - 1, &sum)) {
        return true;
    }
    *ret_value = sum & ~(multiple - 1);
    return false;
}

#endif
