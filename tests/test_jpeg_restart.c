/* SPDX-License-Identifier: Apache-2.0 */
/* Restart-indexed JPEG: whatever crop is asked for, its pixels are those of a full decode of the
 * original, from the whole file and from the slice of it that the crop needs. */
#include "data/jpeg_write.h"
#include "loader/jpeg.h"
#include "loader/jpeg_restart.h"

#include "base/bytes.h"
#include "base/err.h"
#include "base/rng.h"
#include "ipc/sliced.h"
#include "tests/support/image_fixture.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

static const struct fixture_jpeg rows[] = {
    {.width = 1, .height = 1, .colour = FIXTURE_YCC, .h_samples = 2, .v_samples = 2},
    {.width = 17, .height = 9, .colour = FIXTURE_YCC, .h_samples = 2, .v_samples = 2},
    {.width = 500, .height = 375, .colour = FIXTURE_YCC, .h_samples = 2, .v_samples = 2},
    {.width = 333, .height = 251, .colour = FIXTURE_YCC, .h_samples = 2, .v_samples = 1},
    {.width = 331, .height = 254, .colour = FIXTURE_YCC, .h_samples = 1, .v_samples = 2},
    {.width = 259, .height = 177, .colour = FIXTURE_YCC, .h_samples = 1, .v_samples = 1},
    {.width = 401, .height = 143, .colour = FIXTURE_YCC, .h_samples = 4, .v_samples = 1},
    {.width = 310, .height = 205, .colour = FIXTURE_GREY, .h_samples = 1, .v_samples = 1},
    {.width = 310, .height = 205, .colour = FIXTURE_GREY, .h_samples = 2, .v_samples = 2},
    {.width = 231, .height = 198, .colour = FIXTURE_RGB, .h_samples = 1, .v_samples = 1},
    {.width = 200, .height = 150, .colour = FIXTURE_CMYK, .h_samples = 1, .v_samples = 1},
    {.width = 200, .height = 150, .colour = FIXTURE_YCCK, .h_samples = 2, .v_samples = 2},
    {.width = 321,
     .height = 240,
     .colour = FIXTURE_YCC,
     .h_samples = 2,
     .v_samples = 2,
     .progressive = true},
    {.width = 321,
     .height = 240,
     .colour = FIXTURE_YCC,
     .h_samples = 2,
     .v_samples = 2,
     .restart_rows = 1},
};
#define ROWS (sizeof(rows) / sizeof(rows[0]))

static struct nnc_image *image;
static struct nnc_jpeg_writer *writer;
static unsigned slices; /* that were decoded */

static void set_up(void) {
    cr_assert_eq(nnc_image_create(&image), 0);
    cr_assert_eq(nnc_jpeg_writer_create(&writer), 0);
}

static void tear_down(void) {
    nnc_image_destroy(image);
    nnc_jpeg_writer_destroy(writer);
}

TestSuite(jpeg_restart, .init = set_up, .fini = tear_down);

/* The file with slack behind it, transcoded. */
static struct fixture_file transcode(const struct fixture_file *file, uint32_t *ret_pieces) {
    struct nnc_jpeg_file made;
    cr_assert_eq(nnc_jpeg_transcode(writer, file->bytes, file->size, &made), 0, "%s",
                 nnc_error_text());
    *ret_pieces = made.pieces;
    return fixture_file_copy(made.bytes, made.size);
}

static struct nnc_box random_box(struct nnc_rng *rng, uint32_t width, uint32_t height) {
    struct nnc_box box = {.width = 1 + nnc_rng_below(rng, width),
                          .height = 1 + nnc_rng_below(rng, height)};
    box.left = nnc_rng_below(rng, width - box.width + 1);
    box.top = nnc_rng_below(rng, height - box.height + 1);
    return box;
}

/* Does the decoded box equal its place in the decoded whole? */
static bool equals(const struct fixture_pixels *part, const struct fixture_pixels *whole) {
    size_t row_bytes = (size_t)part->box.width * part->channels;
    for (uint32_t y = 0; y < part->box.height; y++) {
        const uint8_t *there =
            whole->data +
            ((size_t)(part->box.top + y) * whole->image_width + part->box.left) * whole->channels;
        if (memcmp(part->data + y * row_bytes, there, row_bytes) != 0) {
            return false;
        }
    }
    return part->rows == part->box.height;
}

static int answer(void *context, uint32_t width, uint32_t height, struct nnc_box *ret_need) {
    (void)width;
    (void)height;
    *ret_need = *(const struct nnc_box *)context;
    return 0;
}

/* Decode a box from the head and the slice that it asks for, in memory of exactly their size. */
static int decode_slice(const struct fixture_file *file, struct fixture_pixels *pixels) {
    size_t head_size = nnc_sliced_head(
        file->bytes, file->size < NNC_SLICED_PEEK ? file->size : NNC_SLICED_PEEK, file->size);
    cr_assert_gt(head_size, 0);
    struct fixture_file head = fixture_file_copy(file->bytes, head_size);
    const struct nnc_image_part part = {.bytes = head.bytes, .size = head.size};
    const struct nnc_image_asker asker = {.box = answer, .context = &pixels->box};
    struct nnc_image_range range;
    cr_assert_eq(nnc_image_find_slice(&part, file->size, &asker, &range), 1);
    struct fixture_file rest = fixture_file_copy(file->bytes + range.first, range.bytes);
    const struct nnc_image_slice slice = {
        .rest = {.bytes = rest.bytes, .size = rest.size, .first = range.first},
        .total = file->size};
    int code = fixture_decode_slice(image, &head, &slice, pixels);
    fixture_free(&head);
    fixture_free(&rest);
    return code;
}

static void try_boxes(const struct fixture_file *file, const struct fixture_pixels *whole,
                      uint32_t channels, struct nnc_rng *rng) {
    for (int turn = 0; turn < 25; turn++) {
        struct nnc_box box = random_box(rng, whole->image_width, whole->image_height);
        struct fixture_pixels part = {.box = box, .channels = channels};
        cr_assert_eq(fixture_decode(image, file, false, &part), 0, "%s", nnc_error_text());
        cr_assert(equals(&part, whole), "box %u,%u %ux%u", box.left, box.top, box.width,
                  box.height);
        free(part.data);
        if (file->size < NNC_SLICED_MIN) {
            continue;
        }
        slices++;
        struct fixture_pixels slice = {.box = box, .channels = channels};
        cr_assert_eq(decode_slice(file, &slice), 0, "%s", nnc_error_text());
        cr_assert(equals(&slice, whole), "slice for box %u,%u %ux%u", box.left, box.top, box.width,
                  box.height);
        free(slice.data);
    }
}

Test(jpeg_restart, crops_of_transcoded_images_equal_a_full_decode_of_the_original) {
    struct nnc_rng rng = nnc_rng_make(5, NNC_RNG_SYNTHETIC, 0, 0);
    for (size_t i = 0; i < ROWS; i++) {
        struct fixture_file file = fixture_jpeg_write(&rows[i]);
        uint32_t pieces;
        struct fixture_file made = transcode(&file, &pieces);
        cr_assert_gt(pieces, 0, "row %zu", i);
        for (uint32_t channels = 1; channels <= 3; channels += 2) {
            struct fixture_pixels whole = {.channels = channels};
            cr_assert_eq(fixture_decode(image, &file, true, &whole), 0, "%s", nnc_error_text());
            try_boxes(&made, &whole, channels, &rng);
            free(whole.data);
        }
        fixture_free(&file);
        fixture_free(&made);
    }
    cr_assert_gt(slices, 100);
}

/* Every box of a column or two, at both edges of the image and of each MCU. */
static void try_columns(const struct fixture_file *file, const struct fixture_pixels *whole) {
    for (uint32_t left = 0; left < whole->image_width; left++) {
        for (uint32_t width = 1; width <= 2 && left + width <= whole->image_width; width++) {
            struct nnc_box box = {
                .left = left, .top = 3, .width = width, .height = whole->image_height - 3};
            struct fixture_pixels part = {.box = box, .channels = 3};
            cr_assert_eq(fixture_decode(image, file, false, &part), 0, "%s", nnc_error_text());
            cr_assert(equals(&part, whole), "%u x %u: columns %u to %u", whole->image_width,
                      whole->image_height, left, left + width);
            free(part.data);
        }
    }
}

/* libjpeg upsamples colours of images with few columns in another way. */
Test(jpeg_restart, crops_at_a_narrow_rest_of_an_mcu_equal_a_full_decode, .timeout = 60) {
    static const int sampling[][2] = {{2, 2}, {2, 1}, {1, 2}, {4, 1}, {4, 2}};
    for (size_t s = 0; s < sizeof(sampling) / sizeof(sampling[0]); s++) {
        for (uint32_t rest = 1; rest <= 9; rest++) {
            uint32_t mcu = 8 * (uint32_t)sampling[s][0];
            const struct fixture_jpeg how = {.width = 4 * mcu + rest, /* 5 columns: pieces of 1 */
                                             .height = 16 + rest,
                                             .colour = FIXTURE_YCC,
                                             .h_samples = sampling[s][0],
                                             .v_samples = sampling[s][1]};
            struct fixture_file file = fixture_jpeg_write(&how);
            uint32_t pieces;
            struct fixture_file made = transcode(&file, &pieces);
            cr_assert_gt(pieces, 0);
            struct fixture_pixels whole = {.channels = 3};
            cr_assert_eq(fixture_decode(image, &file, true, &whole), 0, "%s", nnc_error_text());
            try_columns(&made, &whole);
            try_columns(&file, &whole); /* columns are left out there too */
            free(whole.data);
            fixture_free(&file);
            fixture_free(&made);
        }
    }
}

Test(jpeg_restart, the_interval_divides_a_row_and_the_index_tells_every_piece) {
    for (size_t i = 0; i < ROWS; i++) {
        struct fixture_file file = fixture_jpeg_write(&rows[i]);
        uint32_t pieces;
        struct fixture_file made = transcode(&file, &pieces);
        struct nnc_jpeg_restart restart;
        cr_assert_eq(nnc_jpeg_restart_parse(made.bytes, made.size, made.size, &restart), 1);
        cr_assert_eq(restart.pieces, pieces);
        cr_assert_eq(restart.width, rows[i].width);
        cr_assert_leq(restart.mcus, 4);
        cr_assert_eq(restart.columns % restart.mcus, 0);
        const struct nnc_box all = {.width = restart.width, .height = restart.height};
        struct nnc_image_range range = nnc_jpeg_restart_range(&restart, &all);
        cr_assert_eq(range.first, restart.head_size);
        cr_assert_eq(range.first + range.bytes, made.size);
        cr_assert_eq(nnc_jpeg_restart_parse(file.bytes, file.size, file.size, &restart), 0);
        fixture_free(&file);
        fixture_free(&made);
    }
}

Test(jpeg_restart, encoded_pixels_are_indexed_too) {
    enum {
        WIDTH = 203,
        HEIGHT = 155
    };
    for (uint32_t channels = 1; channels <= 3; channels += 2) {
        static uint8_t pixels[WIDTH * HEIGHT * 3];
        for (uint32_t i = 0; i < WIDTH * HEIGHT * channels; i++) {
            pixels[i] = fixture_pattern(i / channels % WIDTH, i / channels / WIDTH, i % channels);
        }
        const struct nnc_jpeg_pixels how = {.pixels = pixels,
                                            .width = WIDTH,
                                            .height = HEIGHT,
                                            .channels = channels,
                                            .quality = 90};
        struct nnc_jpeg_file made;
        cr_assert_eq(nnc_jpeg_encode(writer, &how, &made), 0, "%s", nnc_error_text());
        cr_assert_gt(made.pieces, 0);
        struct fixture_file file = fixture_file_copy(made.bytes, made.size);
        struct fixture_pixels whole = {.channels = channels};
        cr_assert_eq(fixture_decode(image, &file, true, &whole), 0, "%s", nnc_error_text());
        struct nnc_rng rng = nnc_rng_make(6, NNC_RNG_SYNTHETIC, 0, channels);
        try_boxes(&file, &whole, channels, &rng);
        free(whole.data);
        fixture_free(&file);
    }
}

Test(jpeg_restart, a_file_that_ends_early_is_not_transcoded) {
    struct fixture_file file = fixture_jpeg_write(&rows[2]);
    for (size_t size = 0; size + 2 < file.size; size += 997) {
        struct nnc_jpeg_file made;
        cr_assert_lt(nnc_jpeg_transcode(writer, file.bytes, size, &made), 0, "%zu bytes", size);
        cr_assert_neq(strlen(nnc_error_text()), 0);
    }
    fixture_free(&file);
}

Test(jpeg_restart, damaged_heads_and_data_end_in_an_error_or_pixels_and_nothing_else,
     .timeout = 60) {
    struct fixture_file file = fixture_jpeg_write(&rows[3]);
    uint32_t pieces;
    struct fixture_file made = transcode(&file, &pieces);
    struct nnc_rng rng = nnc_rng_make(7, NNC_RNG_SYNTHETIC, 0, 0);
    unsigned refused = 0;
    for (int turn = 0; turn < 4000; turn++) {
        struct fixture_file copy = fixture_file_copy(made.bytes, made.size);
        /* Most damage where numbers are: in the head. */
        uint32_t reach = turn % 4 != 0 ? 1500 : (uint32_t)made.size;
        for (uint32_t i = 0; i <= nnc_rng_below(&rng, 3); i++) {
            copy.bytes[nnc_rng_below(&rng, reach)] = (uint8_t)nnc_rng_below(&rng, 256);
        }
        struct fixture_pixels part = {.box = random_box(&rng, 100, 100), .channels = 3};
        refused += fixture_decode(image, &copy, false, &part) < 0 ? 1 : 0;
        free(part.data);
        fixture_free(&copy);
    }
    cr_assert_gt(refused, 100);
    fixture_free(&file);
    fixture_free(&made);
}

Test(jpeg_restart, of_two_indexes_none_is_used) {
    struct fixture_file file = fixture_jpeg_write(&rows[2]);
    uint32_t pieces;
    struct fixture_file made = transcode(&file, &pieces);
    struct nnc_jpeg_restart restart;
    cr_assert_eq(nnc_jpeg_restart_parse(made.bytes, made.size, made.size, &restart), 1);
    /* The same index twice, the first with sizes that lead far out of the file. */
    size_t at = restart.segment_at, size = restart.segment_size;
    struct fixture_file twice = fixture_file_copy(made.bytes, made.size);
    twice.bytes = realloc(twice.bytes, made.size + size + NNC_IMAGE_ROW_SLACK);
    cr_assert_not_null(twice.bytes);
    twice.size += size;
    memcpy(twice.bytes + at + size, made.bytes + at, made.size - at);
    memset(twice.bytes + at + 4 + NNC_RESTART_FIXED, 0xff, size - 4 - NNC_RESTART_FIXED);
    nnc_put_big32(twice.bytes + at + size + 12, (uint32_t)(restart.head_size + size));
    const struct nnc_image_part head = {.bytes = twice.bytes, .size = restart.head_size + size};
    struct nnc_box box = {.left = 300, .top = 200, .width = 10, .height = 10};
    const struct nnc_image_asker asker = {.box = answer, .context = &box};
    struct nnc_image_range range;
    cr_assert_eq(nnc_image_find_slice(&head, twice.size, &asker, &range), 0);
    struct fixture_pixels part = {.box = box, .channels = 3}, whole = {.channels = 3};
    cr_assert_eq(fixture_decode(image, &twice, false, &part), 0, "%s", nnc_error_text());
    cr_assert_eq(fixture_decode(image, &made, true, &whole), 0);
    cr_assert(equals(&part, &whole));
    free(part.data);
    free(whole.data);
    fixture_free(&file);
    fixture_free(&made);
    fixture_free(&twice);
}

Test(jpeg_restart, an_index_that_does_not_fit_the_file_is_not_used) {
    struct fixture_file file = fixture_jpeg_write(&rows[2]);
    uint32_t pieces;
    struct fixture_file made = transcode(&file, &pieces);
    struct nnc_jpeg_restart restart;
    cr_assert_eq(nnc_jpeg_restart_parse(made.bytes, made.size, made.size, &restart), 1);
    size_t body = restart.segment_at + 4;
    static const size_t places[] = {11, 13, 19, 21, 40}; /* header_bytes, mcus, pieces, two sizes */
    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
        made.bytes[body + places[i]] ^= 1;
        cr_assert_eq(nnc_jpeg_restart_parse(made.bytes, made.size, made.size, &restart), 0,
                     "byte %zu", places[i]);
        made.bytes[body + places[i]] ^= 1;
    }
    cr_assert_eq(nnc_jpeg_restart_parse(made.bytes, made.size, made.size + 1, &restart), 0);
    cr_assert_eq(nnc_jpeg_restart_parse(made.bytes, restart.head_size - 1, made.size, &restart), 0);
    fixture_free(&file);
    fixture_free(&made);
}

/* Sizes of pieces in another order keep their sum, so only the data tells that they are wrong. */
Test(jpeg_restart, an_image_whose_index_does_not_fit_its_data_decodes_as_if_it_had_none) {
    struct fixture_file file = fixture_jpeg_write(&rows[2]);
    uint32_t pieces;
    struct fixture_file made = transcode(&file, &pieces);
    struct nnc_jpeg_restart restart;
    cr_assert_eq(nnc_jpeg_restart_parse(made.bytes, made.size, made.size, &restart), 1);
    uint8_t *sizes = made.bytes + restart.segment_at + 4 + NNC_RESTART_FIXED;
    for (uint32_t i = 0; i < pieces / 2; i++) {
        uint32_t left = nnc_big16(sizes + 2 * (size_t)i);
        uint32_t right = nnc_big16(sizes + 2 * (size_t)(pieces - 1 - i));
        nnc_put_big16(sizes + 2 * (size_t)i, right);
        nnc_put_big16(sizes + 2 * (size_t)(pieces - 1 - i), left);
    }
    cr_assert_eq(nnc_jpeg_restart_parse(made.bytes, made.size, made.size, &restart), 1);
    const struct nnc_box box = {.left = 150, .top = 120, .width = 210, .height = 130};
    struct fixture_pixels slice = {.box = box, .channels = 3}, part = slice;
    struct fixture_pixels whole = {.channels = 3};
    cr_assert_eq(decode_slice(&made, &slice), -NNC_E_FORMAT, "the slice alone cannot be right");
    cr_assert_eq(fixture_decode(image, &made, false, &part), 0, "%s", nnc_error_text());
    cr_assert_eq(fixture_decode(image, &file, true, &whole), 0);
    cr_assert(equals(&part, &whole));
    free(slice.data);
    free(part.data);
    free(whole.data);
    fixture_free(&file);
    fixture_free(&made);
}

/* Where libjpeg sees a marker alone and a parser sees a segment, they would read other frame
 * headers behind it. */
Test(jpeg_restart, heads_that_could_be_read_in_two_ways_are_not_cut) {
    static const uint8_t markers[] = {0x00, 0x01, 0xc8, 0xcc, 0xd0, 0xd7, 0xd8, 0xd9, 0xdc, 0xff};
    struct fixture_file file = fixture_jpeg_write(&rows[2]);
    uint32_t pieces;
    struct fixture_file made = transcode(&file, &pieces);
    struct nnc_jpeg_restart restart;
    cr_assert_eq(nnc_jpeg_restart_parse(made.bytes, made.size, made.size, &restart), 1);
    enum {
        SEGMENT = 7, /* ff MARKER 00 05 and what hides the segment behind it from one reader */
    };
    for (size_t i = 0; i < sizeof(markers); i++) {
        const uint8_t segment[SEGMENT] = {0xff, markers[i], 0x00, 0x05, 0xff, 0xfe, 0x00};
        size_t at = restart.frame_at, body = restart.segment_at + 4;
        uint8_t *bytes = malloc(made.size + SEGMENT);
        memcpy(bytes, made.bytes, at);
        memcpy(bytes + at, segment, SEGMENT);
        memcpy(bytes + at + SEGMENT, made.bytes + at, made.size - at);
        nnc_put_big32(bytes + body + NNC_RESTART_ID_BYTES, (uint32_t)restart.head_size + SEGMENT);
        struct nnc_jpeg_restart other;
        cr_assert_eq(
            nnc_jpeg_restart_parse(bytes, made.size + SEGMENT, made.size + SEGMENT, &other), 0,
            "marker %02x", markers[i]);
        free(bytes);
    }
    fixture_free(&file);
    fixture_free(&made);
}
