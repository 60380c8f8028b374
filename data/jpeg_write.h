/* SPDX-License-Identifier: Apache-2.0 */
/* Writing JPEG: restart-indexed (ipc/sliced.h) from another JPEG without loss or from pixels, and
 * plain from pixels. */
#ifndef NNC_DATA_JPEG_WRITE_H
#define NNC_DATA_JPEG_WRITE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct nnc_jpeg_writer;

/* A JPEG file that was made; the bytes are the writer's and stay until its next call. */
struct nnc_jpeg_file {
    const uint8_t *bytes;
    size_t size;
    uint32_t pieces; /* 0: without restart index, since it would not fit into one segment */
};

/* Colour resolution of a JPEG. */
enum nnc_jpeg_sampling {
    NNC_JPEG_420,
    NNC_JPEG_422,
    NNC_JPEG_444,
};

/* Pixels to encode. */
struct nnc_jpeg_pixels {
    const uint8_t *pixels; /* u8 (height, width, channels), rows packed */
    uint32_t width, height;
    uint32_t channels; /* 1 or 3 */
    int quality;       /* 1..100, libjpeg's scale */
    enum nnc_jpeg_sampling sampling;
    bool plain; /* as most programs write: standard Huffman tables, no restarts, no index */
};

/* A writer for one image after the other. Errors: -ENOMEM. */
int nnc_jpeg_writer_create(struct nnc_jpeg_writer **ret_writer);

/* Free it. Takes NULL. */
void nnc_jpeg_writer_destroy(struct nnc_jpeg_writer *writer);

/* Write the coefficients of a JPEG again, bit for bit the same, in one baseline scan with optimised
 * Huffman tables, restart markers and the index. EXIF, colour profiles and comments are left out.
 * bytes[0..size): hostile.
 * Errors: -NNC_E_FORMAT the image is bad, judged as the loader does, or its pixels would not stay
 * the same, or its coefficients do not fit into one baseline scan; -ENOMEM. */
int nnc_jpeg_transcode(struct nnc_jpeg_writer *writer, const uint8_t *bytes, size_t size,
                       struct nnc_jpeg_file *ret_file);

/* Encode pixels with the accurate integer DCT: one version of the library gives the same bytes on
 * every machine. Errors: -ENOMEM. */
int nnc_jpeg_encode(struct nnc_jpeg_writer *writer, const struct nnc_jpeg_pixels *pixels,
                    struct nnc_jpeg_file *ret_file);

#endif
