/* SPDX-License-Identifier: Apache-2.0 */
/* All content is a function of the sample's number: two runs make the same bytes. */
#include "tests/support/datasets.h"

#include "base/rng.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <jpeglib.h>

#define SIDE 28

static void put_be32(FILE *file, uint32_t value) {
    const uint8_t bytes[4] = {(uint8_t)(value >> 24), (uint8_t)(value >> 16), (uint8_t)(value >> 8),
                              (uint8_t)value};
    fwrite(bytes, 1, 4, file);
}

static void put_image(FILE *file, struct nnc_rng *rng, uint32_t label) {
    uint8_t pixels[SIDE * SIDE];
    for (uint32_t y = 0; y < SIDE; y++) {
        for (uint32_t x = 0; x < SIDE; x++) {
            int on = label < 5 ? y / 6 == label : x / 6 == label - 5;
            pixels[y * SIDE + x] = (uint8_t)(nnc_rng_below(rng, 100) + (on ? 120 : 0));
        }
    }
    fwrite(pixels, 1, sizeof(pixels), file);
}

static void make_idx_part(const char *folder, const char *name, uint32_t count, uint64_t seed) {
    char path[512];
    snprintf(path, sizeof(path), "%s/%s-images-idx3-ubyte", folder, name);
    FILE *images = fopen(path, "wb");
    snprintf(path, sizeof(path), "%s/%s-labels-idx1-ubyte", folder, name);
    FILE *labels = fopen(path, "wb");
    cr_assert(images != NULL && labels != NULL);
    put_be32(images, 0x803);
    put_be32(images, count);
    put_be32(images, SIDE);
    put_be32(images, SIDE);
    put_be32(labels, 0x801);
    put_be32(labels, count);
    struct nnc_rng rng = nnc_rng_make(seed, NNC_RNG_SYNTHETIC, 1, 0);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t label = i % 10;
        put_image(images, &rng, label);
        fputc((int)label, labels);
    }
    fclose(images);
    fclose(labels);
}

void dataset_make_idx(const char *folder, uint32_t train, uint32_t val) {
    mkdir(folder, 0700);
    make_idx_part(folder, "train", train, 1);
    make_idx_part(folder, "t10k", val, 2);
}

static void write_jpeg(const char *path, uint32_t label, uint32_t width, uint32_t height,
                       struct nnc_rng *rng) {
    FILE *file = fopen(path, "wb");
    cr_assert_not_null(file, "%s", path);
    struct jpeg_compress_struct info;
    struct jpeg_error_mgr errors;
    info.err = jpeg_std_error(&errors);
    jpeg_create_compress(&info);
    jpeg_stdio_dest(&info, file);
    info.image_width = width;
    info.image_height = height;
    info.input_components = 3;
    info.in_color_space = JCS_RGB;
    jpeg_set_defaults(&info);
    jpeg_set_quality(&info, 90, TRUE);
    jpeg_start_compress(&info, TRUE);
    uint8_t *row = malloc((size_t)width * 3);
    for (uint32_t y = 0; y < height; y++) {
        for (uint32_t x = 0; x < width; x++) {
            for (uint32_t c = 0; c < 3; c++) {
                uint32_t base = label % 3 == c ? 160 : 40 + 40 * (label / 3 % 3);
                row[x * 3 + c] = (uint8_t)(base + nnc_rng_below(rng, 40) + (x + y) % 16);
            }
        }
        jpeg_write_scanlines(&info, &row, 1);
    }
    jpeg_finish_compress(&info);
    jpeg_destroy_compress(&info);
    free(row);
    fclose(file);
}

void dataset_make_jpeg(const char *folder, uint32_t classes, uint32_t train_per_class,
                       uint32_t val_per_class, uint32_t side) {
    char path[512];
    mkdir(folder, 0700);
    for (int part = 0; part < 2; part++) {
        const char *name = part == 0 ? "train" : "val";
        uint32_t count = part == 0 ? train_per_class : val_per_class;
        snprintf(path, sizeof(path), "%s/%s", folder, name);
        mkdir(path, 0700);
        for (uint32_t label = 0; label < classes; label++) {
            snprintf(path, sizeof(path), "%s/%s/c%02u", folder, name, label);
            mkdir(path, 0700);
            struct nnc_rng rng = nnc_rng_make((uint64_t)part, NNC_RNG_SYNTHETIC, 2, label);
            for (uint32_t i = 0; i < count; i++) {
                snprintf(path, sizeof(path), "%s/%s/c%02u/%04u.jpg", folder, name, label, i);
                uint32_t width = side + nnc_rng_below(&rng, side);
                write_jpeg(path, label, width, side + nnc_rng_below(&rng, side), &rng);
            }
        }
    }
}
