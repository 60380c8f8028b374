/* SPDX-License-Identifier: Apache-2.0 */
/* Numbers in files, most significant byte first. */
#ifndef NNC_BASE_BYTES_H
#define NNC_BASE_BYTES_H

#include <stdint.h>

/* The number in two bytes. */
static inline uint32_t nnc_big16(const uint8_t *bytes) {
    return (uint32_t)bytes[0] << 8 | bytes[1];
}

/* The number in four bytes. */
static inline uint32_t nnc_big32(const uint8_t *bytes) {
    return nnc_big16(bytes) << 16 | nnc_big16(bytes + 2);
}

/* Write the low 16 bits of value to two bytes. */
static inline void nnc_put_big16(uint8_t *bytes, uint32_t value) {
    bytes[0] = (uint8_t)(value >> 8);
    bytes[1] = (uint8_t)value;
}

/* Write value to four bytes. */
static inline void nnc_put_big32(uint8_t *bytes, uint32_t value) {
    nnc_put_big16(bytes, value >> 16);
    nnc_put_big16(bytes + 2, value);
}

#endif
