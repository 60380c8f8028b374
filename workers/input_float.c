/* SPDX-License-Identifier: Apache-2.0 */
/* Bytes to normalised floats by a table of 256 values per channel: exactly the floats of
 * torchvision, whose two divisions per value are done once for each byte here.
 * Does not know about batches or slots. */
#include "workers/input_float.h"

#include <assert.h>

void nnc_float_table_init(const double mean[3], const double std[3],
                          struct nnc_float_table *ret_table) {
    for (int c = 0; c < 3; c++) {
        for (int v = 0; v < 256; v++) {
            ret_table->value[c][v] = ((float)v / 255.0f - (float)mean[c]) / (float)std[c];
        }
    }
}

void nnc_float_convert(const struct nnc_float_table *table, const uint8_t *pixels, size_t area,
                       uint32_t channels, float *ret_values) {
    assert(channels == 1 || channels == 3);
    for (uint32_t c = 0; c < channels; c++) {
        const float *value = table->value[c];
        float *to = ret_values + c * area;
        for (size_t i = 0; i < area; i++) {
            to[i] = value[pixels[i * channels + c]];
        }
    }
}
