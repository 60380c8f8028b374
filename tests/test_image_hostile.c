/* SPDX-License-Identifier: Apache-2.0 */
/* Decoding of bad images: an error or the right pixels, never a crash, never grey that nobody
 * notices. The same decoder goes on to the next image each time. */
#include "loader/image.h"
#include "loader/jpeg.h"

#include "base/err.h"
#include "base/rng.h"
#include "support/image_fixture.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct nnc_image *create(void) {
    struct nnc_image *image = NULL;
    cr_assert_eq(nnc_image_create(&image), 0);
    return image;
}

/* A few good files of each kind. */
static struct fixture_file make_file(uint32_t number) {
    static const struct fixture_jpeg jpegs[] = {
        {61, 47, FIXTURE_YCC, 2, 2, false, 0},  {61, 47, FIXTURE_YCC, 2, 2, true, 0},
        {40, 40, FIXTURE_GREY, 1, 1, false, 1}, {33, 21, FIXTURE_CMYK, 1, 1, false, 0},
        {33, 21, FIXTURE_YCCK, 2, 1, true, 1},
    };
    static const struct fixture_png pngs[] = {
        {61, 47, 8, 2},
        {40, 40, 2, 3},
        {33, 21, 16, 6},
    };
    if (number % 8 < 5) {
        return fixture_jpeg_write(&jpegs[number % 8]);
    }
    return fixture_png_write(&pngs[number % 8 - 5]);
}

enum {
    KINDS = 8,
};

Test(image_hostile, a_truncated_file_is_an_error_or_decodes_right) {
    struct nnc_image *image = create();
    for (uint32_t kind = 0; kind < KINDS; kind++) {
        struct fixture_file file = make_file(kind);
        struct fixture_pixels good = {.channels = 3};
        cr_assert_eq(fixture_decode(image, &file, true, &good), 0, "%s", nnc_error_text());
        size_t bytes = (size_t)good.image_width * good.image_height * 3;
        uint32_t errors = 0;
        for (size_t size = 0; size < file.size; size += size < 64 ? 7 : 64) {
            struct fixture_file cut = fixture_file_copy(file.bytes, size);
            struct fixture_pixels pixels = {.channels = 3};
            int code = fixture_decode(image, &cut, false, &pixels);
            errors += code < 0;
            cr_assert(code == -NNC_E_FORMAT || code == 0, "kind %u cut at %zu: %d", kind, size,
                      code);
            cr_assert(code < 0 || memcmp(pixels.data, good.data, bytes) == 0,
                      "kind %u cut at %zu of %zu decodes to other pixels", kind, size, file.size);
            free(pixels.data);
            fixture_free(&cut);
        }
        cr_assert_gt(errors, 0);
        free(good.data);
        fixture_free(&file);
    }
    nnc_image_destroy(image);
}

Test(image_hostile, a_file_without_its_end_is_bad_even_when_only_the_top_is_needed) {
    const struct fixture_jpeg how = {200, 200, FIXTURE_YCC, 2, 2, false, 0};
    struct fixture_file file = fixture_jpeg_write(&how);
    struct nnc_image *image = create();
    struct fixture_pixels pixels = {.channels = 3, .box = {0, 0, 50, 10}};
    cr_expect_eq(fixture_decode(image, &file, false, &pixels), 0);
    file.size = file.size * 3 / 4;
    cr_expect_eq(fixture_decode(image, &file, false, &pixels), -NNC_E_FORMAT);
    cr_expect_not_null(strstr(nnc_error_text(), "remature end"), "%s", nnc_error_text());
    free(pixels.data);
    fixture_free(&file);
    nnc_image_destroy(image);
}

Test(image_hostile, flipped_bytes_never_crash) {
    struct nnc_image *image = create();
    struct nnc_rng rng = nnc_rng_make(99, NNC_RNG_SYNTHETIC, 0, 0);
    uint32_t errors = 0;
    for (uint32_t kind = 0; kind < KINDS; kind++) {
        struct fixture_file file = make_file(kind);
        for (int trial = 0; trial < 150; trial++) {
            struct fixture_file hurt = fixture_file_copy(file.bytes, file.size);
            uint32_t flips = 1 + nnc_rng_below(&rng, 8);
            for (uint32_t i = 0; i < flips; i++) {
                /* Half of the damage goes to the headers, where it does most. */
                uint32_t range = nnc_rng_below(&rng, 2) ? (uint32_t)file.size : 200;
                range = range < file.size ? range : (uint32_t)file.size;
                hurt.bytes[nnc_rng_below(&rng, range)] = (uint8_t)nnc_rng_u32(&rng);
            }
            struct fixture_pixels pixels = {.channels = trial % 2 ? 3 : 1};
            int code = fixture_decode(image, &hurt, trial % 4 < 2, &pixels);
            cr_assert(code == 0 || code == -NNC_E_FORMAT || code == -ENOMEM, "kind %u trial %d: %d",
                      kind, trial, code);
            errors += code < 0;
            free(pixels.data);
            fixture_free(&hurt);
        }
        fixture_free(&file);
    }
    cr_assert_gt(errors, 100, "only %u of the hurt files were refused", errors);
    nnc_image_destroy(image);
}

/* Decode hurt files with a decoder that has seen others and with a fresh one. */
static void compare_decoders(struct nnc_image *used, const struct fixture_file *hurt, bool whole,
                             const char *what) {
    struct nnc_image *fresh = create();
    struct fixture_pixels one = {.channels = 3}, two = {.channels = 3};
    int first = fixture_decode(used, hurt, whole, &one);
    int second = fixture_decode(fresh, hurt, whole, &two);
    cr_assert_eq(first, second, "%s: %d after others, %d alone: %s", what, first, second,
                 nnc_error_text());
    cr_assert(first < 0 || one.image_width == two.image_width, "%s", what);
    cr_assert(first < 0 ||
                  memcmp(one.data, two.data, (size_t)one.image_width * one.image_height * 3) == 0,
              "%s decodes to other pixels after others", what);
    free(one.data);
    free(two.data);
    nnc_image_destroy(fresh);
}

/* libjpeg keeps the tables of an image for the next one, unless it is told not to. */
Test(image_hostile, an_image_without_its_tables_does_not_get_those_of_the_one_before) {
    struct nnc_image *used = create();
    for (uint32_t kind = 0; kind < 5; kind++) {
        for (uint32_t other = 0; other < 5; other++) {
            struct fixture_file file = make_file(kind), before = make_file(other);
            struct fixture_pixels pixels = {.channels = 3};
            cr_assert_eq(fixture_decode(used, &before, true, &pixels), 0);
            for (size_t i = 0; i + 1 < file.size; i++) {
                bool is_table = file.bytes[i] == 0xff &&
                                (file.bytes[i + 1] == 0xc4 || file.bytes[i + 1] == 0xdb);
                if (is_table) {
                    uint8_t marker = file.bytes[i + 1];
                    char what[64];
                    snprintf(what, sizeof(what), "kind %u after %u without table at %zu", kind,
                             other, i);
                    file.bytes[i + 1] = 0xfe; /* a comment now */
                    compare_decoders(used, &file, true, what);
                    file.bytes[i + 1] = marker;
                }
            }
            free(pixels.data);
            fixture_free(&file);
            fixture_free(&before);
        }
    }
    nnc_image_destroy(used);
}

Test(image_hostile, what_a_hurt_file_decodes_to_does_not_depend_on_the_files_before) {
    struct nnc_image *used = create();
    struct nnc_rng rng = nnc_rng_make(98, NNC_RNG_SYNTHETIC, 0, 0);
    for (uint32_t trial = 0; trial < 1500; trial++) {
        struct fixture_file hurt = make_file(nnc_rng_below(&rng, KINDS));
        for (uint32_t i = 0; i <= nnc_rng_below(&rng, 4); i++) {
            uint32_t range = nnc_rng_below(&rng, 2) ? (uint32_t)hurt.size : 200;
            range = range < hurt.size ? range : (uint32_t)hurt.size;
            hurt.bytes[nnc_rng_below(&rng, range)] ^= (uint8_t)(1u << nnc_rng_below(&rng, 8));
        }
        char what[32];
        snprintf(what, sizeof(what), "trial %u", trial);
        compare_decoders(used, &hurt, trial % 2 == 0, what);
        fixture_free(&hurt);
    }
    nnc_image_destroy(used);
}

/* Write a 16-bit number as JPEG does. */
static void put16(uint8_t *bytes, uint32_t value) {
    bytes[0] = (uint8_t)(value >> 8);
    bytes[1] = (uint8_t)value;
}

/* Place of a two-byte marker. */
static size_t find_marker(const struct fixture_file *file, uint8_t marker) {
    for (size_t i = 0; i + 1 < file->size; i++) {
        if (file->bytes[i] == 0xff && file->bytes[i + 1] == marker) {
            return i;
        }
    }
    cr_assert_fail("no marker %02x", marker);
    return 0;
}

Test(image_hostile, a_bomb_of_dimensions_is_refused_before_its_pixels) {
    static const uint32_t sizes[][2] = {{65501, 1}, {65535, 65535}, {12000, 12000}};
    const struct fixture_jpeg how = {16, 16, FIXTURE_YCC, 1, 1, false, 0};
    struct nnc_image *image = create();
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        struct fixture_file file = fixture_jpeg_write(&how);
        size_t frame = find_marker(&file, 0xc0);
        put16(file.bytes + frame + 5, sizes[i][1]);
        put16(file.bytes + frame + 7, sizes[i][0]);
        struct fixture_pixels pixels = {.channels = 3};
        cr_expect_eq(fixture_decode(image, &file, false, &pixels), -NNC_E_FORMAT);
        cr_expect_eq(pixels.image_width, 0, "the sink was asked about %u x %u", sizes[i][0],
                     sizes[i][1]);
        fixture_free(&file);
    }
    nnc_image_destroy(image);
}

Test(image_hostile, a_bomb_of_scans_is_refused) {
    const struct fixture_jpeg how = {64, 64, FIXTURE_GREY, 1, 1, true, 0};
    struct fixture_file file = fixture_jpeg_write(&how);
    /* Repeat the last scan: it refines what it refined before, which libjpeg only warns about. */
    size_t last = 0;
    for (size_t i = 0; i + 1 < file.size; i++) {
        last = file.bytes[i] == 0xff && file.bytes[i + 1] == 0xda ? i : last;
    }
    size_t scan_bytes = file.size - 2 - last;
    size_t copies = NNC_JPEG_MAX_SCANS + 1;
    uint8_t *bomb = malloc(file.size + copies * scan_bytes);
    memcpy(bomb, file.bytes, file.size - 2);
    for (size_t i = 0; i < copies; i++) {
        memcpy(bomb + file.size - 2 + i * scan_bytes, file.bytes + last, scan_bytes);
    }
    memcpy(bomb + file.size - 2 + copies * scan_bytes, "\xff\xd9", 2);
    struct fixture_file long_file = fixture_file_copy(bomb, file.size + copies * scan_bytes);
    struct nnc_image *image = create();
    struct fixture_pixels pixels = {.channels = 3};
    cr_expect_eq(fixture_decode(image, &file, false, &pixels), 0);
    cr_expect_eq(fixture_decode(image, &long_file, false, &pixels), -NNC_E_FORMAT);
    cr_expect_not_null(strstr(nnc_error_text(), "scans"), "%s", nnc_error_text());
    free(pixels.data);
    free(bomb);
    fixture_free(&file);
    fixture_free(&long_file);
    nnc_image_destroy(image);
}

Test(image_hostile, a_wrong_checksum_makes_a_png_bad) {
    const struct fixture_png how = {33, 21, 8, 2};
    struct fixture_file file = fixture_png_write(&how);
    struct nnc_image *image = create();
    struct fixture_pixels pixels = {.channels = 3};
    cr_expect_eq(fixture_decode(image, &file, false, &pixels), 0);
    file.bytes[29] ^= 1; /* the checksum of IHDR */
    cr_expect_eq(fixture_decode(image, &file, false, &pixels), -NNC_E_FORMAT);
    free(pixels.data);
    fixture_free(&file);
    nnc_image_destroy(image);
}
