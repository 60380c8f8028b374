/* SPDX-License-Identifier: Apache-2.0 */
/* Bytes of the ring as normalised floats, channels first. */
#include "workers/input_float.h"

#include <criterion/criterion.h>
#include <math.h>

static const double mean[3] = {0.485, 0.456, 0.406}, std[3] = {0.229, 0.224, 0.225};

Test(input_float, each_byte_becomes_the_float_of_to_tensor_and_normalize) {
    struct nnc_float_table table;
    nnc_float_table_init(mean, std, &table);
    for (int c = 0; c < 3; c++) {
        for (int v = 0; v < 256; v++) {
            float want = ((float)v / 255.0f - (float)mean[c]) / (float)std[c];
            cr_assert_eq(table.value[c][v], want, "channel %d, byte %d", c, v);
        }
    }
    /* As torch.float32 prints them. */
    cr_assert_float_eq(table.value[0][0], -2.1179039f, 1e-6);
    cr_assert_float_eq(table.value[2][255], 2.6399999f, 1e-6);
}

Test(input_float, channels_come_apart_and_nothing_is_written_behind_the_sample) {
    struct nnc_float_table table;
    nnc_float_table_init(mean, std, &table);
    static const size_t areas[] = {1, 7, 9, 33, 224};
    static const uint32_t channels[] = {1, 3};
    for (int row = 0; row < 10; row++) {
        size_t area = areas[row / 2];
        uint32_t count = channels[row % 2];
        uint8_t pixels[3 * 224];
        float values[3 * 224 + 1];
        for (size_t i = 0; i < sizeof(pixels); i++) {
            pixels[i] = (uint8_t)(i * 37 + 11);
        }
        values[count * area] = 1234.0f;
        nnc_float_convert(&table, pixels, area, count, values);
        for (size_t i = 0; i < area; i++) {
            for (uint32_t c = 0; c < count; c++) {
                cr_assert_eq(values[c * area + i], table.value[c][pixels[i * count + c]],
                             "area %zu, channel %u of %u, pixel %zu", area, c, count, i);
            }
        }
        cr_assert_eq(values[count * area], 1234.0f, "area %zu, %u channels", area, count);
    }
}
