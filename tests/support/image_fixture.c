/* SPDX-License-Identifier: Apache-2.0 */
/* Encoders and a decoding sink for the tests of images. */
#include "tests/support/image_fixture.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>
#include <spng.h>

uint8_t fixture_pattern(uint32_t x, uint32_t y, uint32_t c) {
    uint32_t value = (x * x * 3 + y * 7 + c * 40) / 4 + (x * y) / 3 + ((x / 5 + y / 3) % 2) * 60;
    return (uint8_t)(value % 256);
}

struct fixture_file fixture_file_copy(const uint8_t *bytes, size_t size) {
    struct fixture_file file = {.bytes = malloc(size + NNC_IMAGE_ROW_SLACK), .size = size};
    assert(file.bytes != NULL);
    memcpy(file.bytes, bytes, size);
    memset(file.bytes + size, 0, NNC_IMAGE_ROW_SLACK);
    return file;
}

void fixture_free(struct fixture_file *file) {
    free(file->bytes);
    file->bytes = NULL;
}

struct fixture_file fixture_file_read(const char *path) {
    FILE *in = fopen(path, "rb");
    assert(in != NULL);
    static uint8_t buffer[1 << 20];
    size_t size = fread(buffer, 1, sizeof(buffer), in);
    fclose(in);
    return fixture_file_copy(buffer, size);
}

/* ---- JPEG ---- */

static void set_colours(struct jpeg_compress_struct *cinfo, const struct fixture_jpeg *how) {
    static const struct {
        int components;
        J_COLOR_SPACE given, stored;
    } rows[] = {
        [FIXTURE_GREY] = {1, JCS_GRAYSCALE, JCS_GRAYSCALE},
        [FIXTURE_YCC] = {3, JCS_RGB, JCS_YCbCr},
        [FIXTURE_RGB] = {3, JCS_RGB, JCS_RGB},
        [FIXTURE_CMYK] = {4, JCS_CMYK, JCS_CMYK},
        [FIXTURE_YCCK] = {4, JCS_CMYK, JCS_YCCK},
    };
    cinfo->input_components = rows[how->colour].components;
    cinfo->in_color_space = rows[how->colour].given;
    jpeg_set_defaults(cinfo);
    jpeg_set_colorspace(cinfo, rows[how->colour].stored);
    cinfo->comp_info[0].h_samp_factor = how->h_samples;
    cinfo->comp_info[0].v_samp_factor = how->v_samples;
    if (how->colour == FIXTURE_YCCK) {
        cinfo->comp_info[3].h_samp_factor = how->h_samples;
        cinfo->comp_info[3].v_samp_factor = how->v_samples;
    }
}

struct fixture_file fixture_jpeg_write(const struct fixture_jpeg *how) {
    struct jpeg_compress_struct cinfo;
    struct jpeg_error_mgr errors;
    cinfo.err = jpeg_std_error(&errors);
    jpeg_create_compress(&cinfo);
    unsigned char *bytes = NULL;
    unsigned long size = 0;
    jpeg_mem_dest(&cinfo, &bytes, &size);
    cinfo.image_width = how->width;
    cinfo.image_height = how->height;
    set_colours(&cinfo, how);
    jpeg_set_quality(&cinfo, 75, TRUE);
    if (how->progressive) {
        jpeg_simple_progression(&cinfo);
    }
    cinfo.restart_in_rows = how->restart_rows;
    jpeg_start_compress(&cinfo, TRUE);
    uint32_t channels = (uint32_t)cinfo.input_components;
    uint8_t *row = malloc((size_t)how->width * channels);
    assert(row != NULL);
    for (uint32_t y = 0; y < how->height; y++) {
        for (uint32_t i = 0; i < how->width * channels; i++) {
            row[i] = fixture_pattern(i / channels, y, i % channels);
        }
        jpeg_write_scanlines(&cinfo, &row, 1);
    }
    jpeg_finish_compress(&cinfo);
    jpeg_destroy_compress(&cinfo);
    free(row);
    struct fixture_file file = fixture_file_copy(bytes, size);
    free(bytes);
    return file;
}

/* ---- PNG ---- */

struct fixture_file fixture_png_write(const struct fixture_png *how) {
    static const uint32_t channels_of[] = {1, 0, 3, 1, 2, 0, 4};
    spng_ctx *ctx = spng_ctx_new(SPNG_CTX_ENCODER);
    spng_set_option(ctx, SPNG_ENCODE_TO_BUFFER, 1);
    struct spng_ihdr header = {
        .width = how->width,
        .height = how->height,
        .bit_depth = how->depth,
        .color_type = how->colour_type,
        .interlace_method = how->interlaced,
    };
    spng_set_ihdr(ctx, &header);
    if (how->colour_type == 3) {
        struct spng_plte palette = {.n_entries = 1u << how->depth};
        for (uint32_t i = 0; i < palette.n_entries; i++) {
            palette.entries[i].red = (uint8_t)(i * 7);
            palette.entries[i].green = (uint8_t)(255 - i);
            palette.entries[i].blue = (uint8_t)(i * 31);
        }
        spng_set_plte(ctx, &palette);
    }
    size_t row_bytes = ((size_t)how->width * channels_of[how->colour_type] * how->depth + 7) / 8;
    uint8_t *pixels = malloc(row_bytes * how->height);
    assert(pixels != NULL);
    for (uint32_t y = 0; y < how->height; y++) {
        for (size_t i = 0; i < row_bytes; i++) {
            pixels[y * row_bytes + i] = fixture_pattern((uint32_t)i, y, 0);
        }
    }
    int status =
        spng_encode_image(ctx, pixels, row_bytes * how->height, SPNG_FMT_PNG, SPNG_ENCODE_FINALIZE);
    assert(status == 0);
    size_t size;
    uint8_t *bytes = spng_get_png_buffer(ctx, &size, &status);
    assert(bytes != NULL && status == 0);
    struct fixture_file file = fixture_file_copy(bytes, size);
    free(bytes);
    free(pixels);
    spng_ctx_free(ctx);
    return file;
}

/* ---- decoding ---- */

static int on_begin(void *context, uint32_t width, uint32_t height, struct nnc_box *ret_need) {
    struct fixture_pixels *pixels = context;
    pixels->image_width = width;
    pixels->image_height = height;
    pixels->rows = 0;
    if (pixels->box.width == 0) {
        pixels->box = (struct nnc_box){.width = width, .height = height};
    }
    size_t bytes = (size_t)pixels->box.width * pixels->box.height * pixels->channels;
    *ret_need = pixels->box;
    return nnc_image_reserve(&pixels->data, &pixels->data_bytes, bytes);
}

static void on_rows(void *context, uint32_t first, uint32_t count, const uint8_t *rows,
                    size_t stride) {
    struct fixture_pixels *pixels = context;
    size_t row_bytes = (size_t)pixels->box.width * pixels->channels;
    assert(first == pixels->box.top + pixels->rows);
    assert(count <= pixels->box.height - pixels->rows);
    for (uint32_t i = 0; i < count; i++) {
        volatile uint8_t slack = rows[i * stride + row_bytes + NNC_IMAGE_ROW_SLACK - 1];
        (void)slack; /* the promise of readable slack, seen by ASan */
        memcpy(pixels->data + (pixels->rows + i) * row_bytes, rows + i * stride, row_bytes);
    }
    pixels->rows += count;
}

static int decode(struct nnc_image *image, struct nnc_image_job job,
                  struct fixture_pixels *pixels) {
    const struct nnc_image_sink sink = {.begin = on_begin, .rows = on_rows, .context = pixels};
    struct nnc_image_report report;
    job.channels = pixels->channels;
    job.sink = &sink;
    return nnc_image_decode(image, &job, &report);
}

int fixture_decode(struct nnc_image *image, const struct fixture_file *file, bool whole,
                   struct fixture_pixels *pixels) {
    const struct nnc_image_job job = {.bytes = file->bytes, .size = file->size, .whole = whole};
    return decode(image, job, pixels);
}

int fixture_decode_slice(struct nnc_image *image, const struct fixture_file *head,
                         const struct nnc_image_slice *slice, struct fixture_pixels *pixels) {
    const struct nnc_image_job job = {.bytes = head->bytes, .size = head->size, .slice = slice};
    return decode(image, job, pixels);
}

uint64_t fixture_hash(const uint8_t *bytes, size_t size) {
    uint64_t hash = 0xcbf29ce484222325ull;
    for (size_t i = 0; i < size; i++) {
        hash = (hash ^ bytes[i]) * 0x100000001b3ull;
    }
    return hash;
}
