/* SPDX-License-Identifier: Apache-2.0 */
/* A batch of the ring as other loaders hand theirs over: normalised float32, channels first. Only
 * `bench input --consumer float` makes it; backends convert for themselves. */
#ifndef NNC_WORKERS_INPUT_FLOAT_H
#define NNC_WORKERS_INPUT_FLOAT_H

#include <stddef.h>
#include <stdint.h>

/* Value of each byte, by channel. */
struct nnc_float_table {
    float value[3][256];
};

/* Math:   value[c][v] = (v / 255 - mean[c]) / std[c] in float32, each step rounded.
 * Source: torchvision ToTensor and Normalize. */
void nnc_float_table_init(const double mean[3], const double std[3],
                          struct nnc_float_table *ret_table);

/* Convert one sample.
 * Shape:  pixels u8 (height, width, channels) packed; ret_values f32 (channels, height, width).
 *         area = height * width; channels 1 or 3. */
void nnc_float_convert(const struct nnc_float_table *table, const uint8_t *pixels, size_t area,
                       uint32_t channels, float *ret_values);

#endif
