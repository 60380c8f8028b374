/* SPDX-License-Identifier: Apache-2.0 */
/* bfloat16: the upper half of a float. float16: 1 sign, 5 exponent, 10 fraction bits.
 * Source: IEEE 754-2019, sections 3.4 and 4.3. */
#include "tests/gpu/fakecuda/numbers.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

size_t fake_type_bytes(enum fake_type type) {
    return type == FAKE_F32 ? 4 : 2;
}

static uint32_t bits_of(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static float float_of(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static uint16_t to_bf16(float value) {
    uint32_t bits = bits_of(value);
    if (value != value) {
        return (uint16_t)(bits >> 16 | 0x40);
    }
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

static float from_f16(uint16_t half) {
    uint32_t sign = (uint32_t)(half & 0x8000) << 16, rest = half & 0x7fff;
    if (rest >= 0x7c00) { /* infinity, NaN */
        return float_of(sign | 0x7f800000 | rest << 13);
    }
    if (rest < 0x0400) { /* subnormal: a multiple of 2^-24 */
        return float_of(sign | bits_of((float)rest * 0x1p-24f));
    }
    return float_of(sign | ((rest << 13) + ((127 - 15) << 23)));
}

static uint16_t to_f16(float value) {
    uint32_t bits = bits_of(value), sign = bits >> 16 & 0x8000, rest = bits & 0x7fffffff;
    if (rest > 0x7f800000) {
        return (uint16_t)(sign | 0x7e00);
    }
    if (rest >= 0x477ff000) { /* rounds to 2^16 or more */
        return (uint16_t)(sign | 0x7c00);
    }
    if (rest < 0x38800000) { /* below 2^-14: a multiple of 2^-24 */
        return (uint16_t)(sign | (uint32_t)rintf(float_of(rest) * 0x1p24f));
    }
    rest -= (127 - 15) << 23;
    return (uint16_t)(sign | (rest + 0xfff + (rest >> 13 & 1)) >> 13);
}

void fake_to_float(enum fake_type type, const void *values, size_t count, float *ret_floats) {
    const uint16_t *half = values;
    if (type == FAKE_F32) {
        memcpy(ret_floats, values, count * sizeof(float));
    }
    for (size_t i = 0; i < count && type == FAKE_BF16; i++) {
        ret_floats[i] = float_of((uint32_t)half[i] << 16);
    }
    for (size_t i = 0; i < count && type == FAKE_F16; i++) {
        ret_floats[i] = from_f16(half[i]);
    }
}

void fake_from_float(enum fake_type type, const float *floats, size_t count, void *ret_values) {
    uint16_t *half = ret_values;
    if (type == FAKE_F32) {
        memcpy(ret_values, floats, count * sizeof(float));
    }
    for (size_t i = 0; i < count && type == FAKE_BF16; i++) {
        half[i] = to_bf16(floats[i]);
    }
    for (size_t i = 0; i < count && type == FAKE_F16; i++) {
        half[i] = to_f16(floats[i]);
    }
}
