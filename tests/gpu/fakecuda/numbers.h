/* SPDX-License-Identifier: Apache-2.0 */
/* The three types of numbers, as floats and back. */
#ifndef NNC_TESTS_FAKECUDA_NUMBERS_H
#define NNC_TESTS_FAKECUDA_NUMBERS_H

#include <stddef.h>

enum fake_type {
    FAKE_F32,
    FAKE_BF16,
    FAKE_F16,
    FAKE_NO_TYPE,
};

/* Bytes of one number. */
size_t fake_type_bytes(enum fake_type type);

/* floats = values, exactly. */
void fake_to_float(enum fake_type type, const void *values, size_t count, float *ret_floats);

/* values = floats, rounded to nearest, ties to even; NaN stays NaN. */
void fake_from_float(enum fake_type type, const float *floats, size_t count, void *ret_values);

#endif
