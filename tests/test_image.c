/* SPDX-License-Identifier: Apache-2.0 */
/* Decoding of good images: equal to PIL's on files that PIL decoded, equal to libjpeg's and
 * libspng's own full decode on files made here, and the same whether all of an image is decoded or
 * a part. */
#include "loader/image.h"

#include "base/err.h"
#include "base/rng.h"
#include "support/image_fixture.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>

/* Written and decoded by Pillow 13 (libjpeg-turbo 3.2); hashes of convert("RGB") and convert("L").
 */
static const struct {
    const char *name;
    uint32_t width, height;
    uint64_t rgb, grey;
} golden[] = {
    {"jpeg-420.jpg", 19, 13, 0x8ce66e8d55e0ab42ull, 0xadd5d53b91ba098dull},
    {"jpeg-grey.jpg", 11, 9, 0x03ef3f33da1a19e5ull, 0x92e3df0a18456d65ull},
    {"jpeg-cmyk.jpg", 9, 7, 0x13bf69066b86d090ull, 0xacc51e5b33b4d861ull},
    {"jpeg-progressive.jpg", 19, 13, 0x4aeda5b87b3bf389ull, 0x809facfa42178640ull},
    {"png-palette.png", 19, 13, 0xd8d60365736cfda2ull, 0x1085b635e78064feull},
    {"png-rgba.png", 7, 5, 0xe7707ba8bc4c7bfaull, 0xffbcc95eb34912baull},
    {"png-grey-alpha.png", 6, 5, 0x4b1bf75f6fa9545dull, 0x26bdb2a34a928715ull},
    {"png-bits.png", 21, 4, 0x64554e44b23d0fbbull, 0x6e70bf43a80ffe27ull},
    {"bmp-rgb.bmp", 5, 3, 0xab1dc57d5feca0abull, 0x0630d80b4e97bcd9ull},
    {"ppm.ppm", 5, 3, 0xab1dc57d5feca0abull, 0x0630d80b4e97bcd9ull},
};

static struct nnc_image *create(void) {
    struct nnc_image *image = NULL;
    cr_assert_eq(nnc_image_create(&image), 0);
    return image;
}

Test(image, pixels_equal_those_of_pil) {
    struct nnc_image *image = create();
    struct fixture_pixels pixels = {0};
    for (size_t i = 0; i < sizeof(golden) / sizeof(golden[0]); i++) {
        char path[512];
        snprintf(path, sizeof(path), "%s/tests/golden/image/%s", NNC_TEST_SOURCE_DIR,
                 golden[i].name);
        struct fixture_file file = fixture_file_read(path);
        for (uint32_t channels = 1; channels <= 3; channels += 2) {
            pixels.box.width = 0;
            pixels.channels = channels;
            cr_assert_eq(fixture_decode(image, &file, false, &pixels), 0, "%s: %s", golden[i].name,
                         nnc_error_text());
            cr_assert_eq(pixels.image_width, golden[i].width, "%s", golden[i].name);
            cr_assert_eq(pixels.image_height, golden[i].height, "%s", golden[i].name);
            uint64_t hash =
                fixture_hash(pixels.data, (size_t)golden[i].width * golden[i].height * channels);
            cr_expect_eq(hash, channels == 3 ? golden[i].rgb : golden[i].grey, "%s, %u channels",
                         golden[i].name, channels);
        }
        fixture_free(&file);
    }
    free(pixels.data);
    nnc_image_destroy(image);
}

/* What libjpeg makes of a file by itself, RGB for all but four components, which stay CMYK. */
static uint8_t *decode_plainly(const struct fixture_file *file, int *ret_components) {
    struct jpeg_decompress_struct cinfo;
    struct jpeg_error_mgr errors;
    cinfo.err = jpeg_std_error(&errors);
    jpeg_create_decompress(&cinfo);
    jpeg_mem_src(&cinfo, file->bytes, file->size);
    jpeg_read_header(&cinfo, TRUE);
    cinfo.out_color_space = cinfo.num_components == 4 ? JCS_CMYK : JCS_RGB;
    jpeg_start_decompress(&cinfo);
    size_t stride = (size_t)cinfo.output_width * (size_t)cinfo.output_components;
    uint8_t *all = malloc(stride * cinfo.output_height);
    while (cinfo.output_scanline < cinfo.output_height) {
        uint8_t *row = all + stride * cinfo.output_scanline;
        jpeg_read_scanlines(&cinfo, &row, 1);
    }
    *ret_components = cinfo.output_components;
    jpeg_finish_decompress(&cinfo);
    jpeg_destroy_decompress(&cinfo);
    return all;
}

/* Channel c of a plainly decoded pixel as RGB; inverted CMYK by real numbers. */
static double expected(const uint8_t *pixel, int components, int c) {
    if (components == 3) {
        return pixel[c];
    }
    return pixel[3] * (pixel[c] / 255.0);
}

static void compare(const struct fixture_jpeg *how, const struct fixture_pixels *pixels,
                    const uint8_t *all, int components, const char *kind) {
    double bound = components == 3 ? 0 : 1; /* rounded product against a real one */
    const struct nnc_box *box = &pixels->box;
    cr_assert_eq(pixels->rows, box->height, "%s", kind);
    for (uint32_t i = 0; i < box->height * box->width * 3; i++) {
        uint32_t x = i / 3 % box->width + box->left, y = i / 3 / box->width + box->top;
        const uint8_t *pixel = all + ((size_t)y * how->width + x) * (size_t)components;
        double error = pixels->data[i] - expected(pixel, components, (int)(i % 3));
        cr_assert(
            error <= bound && error >= -bound,
            "%s of %ux%u colour %d samples %dx%d progressive %d restart %d: x %u y %u c %u: %d "
            "is off by %g",
            kind, how->width, how->height, how->colour, how->h_samples, how->v_samples,
            how->progressive, how->restart_rows, x, y, i % 3, pixels->data[i], error);
    }
}

static void check_jpeg(struct nnc_image *image, const struct fixture_jpeg *how,
                       struct nnc_rng *rng) {
    struct fixture_file file = fixture_jpeg_write(how);
    int components;
    uint8_t *all = decode_plainly(&file, &components);
    struct fixture_pixels pixels = {.channels = 3};
    for (int part = 0; part < 8; part++) {
        pixels.box = (struct nnc_box){0};
        if (part > 1) {
            pixels.box.width = 1 + nnc_rng_below(rng, how->width);
            pixels.box.height = 1 + nnc_rng_below(rng, how->height);
            pixels.box.left = nnc_rng_below(rng, how->width - pixels.box.width + 1);
            pixels.box.top = nnc_rng_below(rng, how->height - pixels.box.height + 1);
        }
        bool whole = part % 2 == 0;
        cr_assert_eq(fixture_decode(image, &file, whole, &pixels), 0, "%s", nnc_error_text());
        compare(how, &pixels, all, components, whole ? "whole" : "part");
    }
    free(pixels.data);
    free(all);
    fixture_free(&file);
}

Test(image, any_part_of_a_jpeg_equals_that_part_of_a_full_decode) {
    static const uint32_t sizes[][2] = {{1, 1},   {1, 40},  {40, 1},  {2, 3},    {7, 9},    {8, 8},
                                        {16, 16}, {17, 33}, {33, 17}, {100, 63}, {131, 150}};
    static const struct {
        enum fixture_colour colour;
        int h, v;
    } kinds[] = {
        {FIXTURE_GREY, 1, 1}, {FIXTURE_YCC, 1, 1},  {FIXTURE_YCC, 2, 1}, {FIXTURE_YCC, 2, 2},
        {FIXTURE_YCC, 1, 2},  {FIXTURE_YCC, 4, 1},  {FIXTURE_RGB, 1, 1}, {FIXTURE_CMYK, 1, 1},
        {FIXTURE_YCCK, 1, 1}, {FIXTURE_YCCK, 2, 2},
    };
    struct nnc_image *image = create();
    struct nnc_rng rng = nnc_rng_make(7, NNC_RNG_AUGMENT, 0, 0);
    for (size_t s = 0; s < sizeof(sizes) / sizeof(sizes[0]); s++) {
        for (size_t k = 0; k < sizeof(kinds) / sizeof(kinds[0]); k++) {
            for (int variant = 0; variant < 4; variant++) {
                const struct fixture_jpeg how = {
                    .width = sizes[s][0],
                    .height = sizes[s][1],
                    .colour = kinds[k].colour,
                    .h_samples = kinds[k].h,
                    .v_samples = kinds[k].v,
                    .progressive = variant % 2 == 1,
                    .restart_rows = variant / 2,
                };
                check_jpeg(image, &how, &rng);
            }
        }
    }
    nnc_image_destroy(image);
}

/* Sample s of a stored row, as libspng's formats define 8 bits of it. */
static uint32_t png_sample(const uint8_t *row, uint32_t s, uint32_t depth, bool scale) {
    if (depth == 16) {
        uint16_t value; /* rows were given to the encoder in the host's order */
        memcpy(&value, row + (size_t)s * 2, 2);
        return value >> 8;
    }
    if (depth == 8) {
        return row[s];
    }
    uint32_t per_byte = 8 / depth, mask = (1u << depth) - 1;
    uint32_t value = row[s / per_byte] >> (8 - depth * (s % per_byte + 1)) & mask;
    return scale ? value * 255 / mask : value;
}

static uint32_t png_expected(const struct fixture_png *how, uint32_t x, uint32_t y, uint32_t c) {
    static const uint32_t channels_of[] = {1, 0, 3, 1, 2, 0, 4};
    uint32_t channels = channels_of[how->colour_type];
    size_t row_bytes = ((size_t)how->width * channels * how->depth + 7) / 8;
    uint8_t row[4096];
    for (size_t i = 0; i < row_bytes; i++) {
        row[i] = fixture_pattern((uint32_t)i, y, 0);
    }
    if (how->colour_type == 3) {
        uint32_t entry = png_sample(row, x, how->depth, false);
        return c == 0 ? entry * 7 % 256 : c == 1 ? 255 - entry : entry * 31 % 256;
    }
    uint32_t in_pixel = channels >= 3 ? c : 0;
    return png_sample(row, x * channels + in_pixel, how->depth, true);
}

Test(image, every_colour_type_of_png_becomes_rgb_without_alpha) {
    static const struct fixture_png kinds[] = {
        {37, 5, 1, 0},    {37, 5, 2, 0},  {37, 5, 4, 0},  {37, 5, 8, 0},     {37, 5, 16, 0},
        {37, 5, 8, 2},    {37, 5, 16, 2}, {37, 5, 1, 3},  {37, 5, 2, 3},     {37, 5, 4, 3},
        {37, 5, 8, 3},    {37, 5, 8, 4},  {37, 5, 16, 4}, {37, 5, 8, 6},     {37, 5, 16, 6},
        {1, 1, 8, 2},     {1, 9, 1, 0},   {300, 2, 8, 6}, {37, 15, 8, 2, 1}, {37, 15, 4, 3, 1},
        {3, 2, 16, 0, 1},
    };
    struct nnc_image *image = create();
    struct fixture_pixels pixels = {.channels = 3};
    for (size_t k = 0; k < sizeof(kinds) / sizeof(kinds[0]); k++) {
        const struct fixture_png *how = &kinds[k];
        struct fixture_file file = fixture_png_write(how);
        for (int part = 0; part < 2; part++) {
            pixels.box = (struct nnc_box){0};
            if (part == 1) {
                pixels.box = (struct nnc_box){how->width / 3, how->height / 3,
                                              how->width - how->width / 3, how->height / 3 + 1};
            }
            cr_assert_eq(fixture_decode(image, &file, part == 0, &pixels), 0, "%s",
                         nnc_error_text());
            for (uint32_t i = 0; i < pixels.box.width * pixels.box.height * 3; i++) {
                uint32_t x = i / 3 % pixels.box.width + pixels.box.left;
                uint32_t y = i / 3 / pixels.box.width + pixels.box.top;
                cr_assert_eq(pixels.data[i], png_expected(how, x, y, i % 3),
                             "depth %u type %u x %u y %u c %u: %u", how->depth, how->colour_type, x,
                             y, i % 3, pixels.data[i]);
            }
        }
        fixture_free(&file);
    }
    free(pixels.data);
    nnc_image_destroy(image);
}

Test(image, what_is_not_supported_is_named) {
    static const struct {
        const char *bytes;
        size_t size;
        const char *word;
    } rows[] = {
        {"", 0, "empty"},
        {"hello, world", 12, "not an image"},
        {"RIFF\0\0\0\0WEBPVP8 ", 16, "WebP"},
        {"II*\0\0\0\0\0", 8, "TIFF"},
        {"GIF89a\0\0", 8, "GIF"},
        {"\0\0\0\x1c"
         "ftypavif",
         12, "AVIF"},
        {"P6 2 2 65535 ", 13, "8 bits"},
        {"P5 9 9 255 ", 11, "ends before"},
        {"P6 70000 1 255 ", 15, "exceed"},
        {"BM", 2, "header"},
    };
    struct nnc_image *image = create();
    struct fixture_pixels pixels = {.channels = 3};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct fixture_file file = fixture_file_copy((const uint8_t *)rows[i].bytes, rows[i].size);
        cr_expect_eq(fixture_decode(image, &file, false, &pixels), -NNC_E_FORMAT, "row %zu", i);
        cr_expect_not_null(strstr(nnc_error_text(), rows[i].word), "row %zu: %s", i,
                           nnc_error_text());
        fixture_free(&file);
    }
    free(pixels.data);
    nnc_image_destroy(image);
}
