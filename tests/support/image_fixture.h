/* SPDX-License-Identifier: Apache-2.0 */
/* Images for tests: a pattern, encoders, and a sink that keeps what it gets. */
#ifndef NNC_TESTS_IMAGE_FIXTURE_H
#define NNC_TESTS_IMAGE_FIXTURE_H

#include "loader/image.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Colours of a JPEG as stored. */
enum fixture_colour {
    FIXTURE_GREY,
    FIXTURE_YCC,
    FIXTURE_RGB,
    FIXTURE_CMYK,
    FIXTURE_YCCK,
};

/* How to write a JPEG. */
struct fixture_jpeg {
    uint32_t width, height;
    enum fixture_colour colour;
    int h_samples, v_samples; /* of the first component; 2, 2 is 4:2:0 */
    bool progressive;
    int restart_rows; /* 0: no restart markers */
};

/* How to write a PNG; colour types and depths are those of its header. */
struct fixture_png {
    uint32_t width, height;
    uint8_t depth, colour_type, interlaced;
};

/* Bytes of a file, followed by readable slack; free with fixture_free(). */
struct fixture_file {
    uint8_t *bytes;
    size_t size;
};

/* Value of channel c of the pixel in row y, column x: gradients, curves and squares. */
uint8_t fixture_pattern(uint32_t x, uint32_t y, uint32_t c);

/* Encode the pattern. Abort the test when the library refuses. */
struct fixture_file fixture_jpeg_write(const struct fixture_jpeg *how);
struct fixture_file fixture_png_write(const struct fixture_png *how);
struct fixture_file fixture_file_read(const char *path);
/* A copy in a block of exactly that size and the slack, so that ASan sees what reads over its end.
 */
struct fixture_file fixture_file_copy(const uint8_t *bytes, size_t size);
void fixture_free(struct fixture_file *file);

/* A decoded image, or the wanted part of it. */
struct fixture_pixels {
    uint32_t image_width, image_height;
    struct nnc_box box; /* width 0: take the whole image */
    uint32_t channels;
    uint32_t rows; /* received */
    uint8_t *data; /* u8 (box.height, box.width, channels), made in begin */
    size_t data_bytes;
};

/* Decode file into *pixels (box and channels set by the caller). Returns nnc_image_decode()'s code.
 */
int fixture_decode(struct nnc_image *image, const struct fixture_file *file, bool whole,
                   struct fixture_pixels *pixels);

/* The same from a file's head and a slice of the rest. */
int fixture_decode_slice(struct nnc_image *image, const struct fixture_file *head,
                         const struct nnc_image_slice *slice, struct fixture_pixels *pixels);

/* FNV-1a, 64 bits. */
uint64_t fixture_hash(const uint8_t *bytes, size_t size);

#endif
