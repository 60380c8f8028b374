/* SPDX-License-Identifier: Apache-2.0 */
/* Decoding of compressed images, whatever their format: the first bytes decide, never the file's
 * name.
 *
 * A decoder pushes rows into a sink, so that no full-size copy of the image exists: the sink is
 * told the size, answers which rectangle it needs, and receives the rows of that rectangle from top
 * to bottom. */
#ifndef NNC_LOADER_IMAGE_H
#define NNC_LOADER_IMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Larger images are refused before any of their pixels is decoded. */
#define NNC_IMAGE_MAX_SIDE   65500u
#define NNC_IMAGE_MAX_PIXELS 128000000u

/* Bytes that may be read behind the last pixel of a row, so that inner loops need no special end.
 */
#define NNC_IMAGE_ROW_SLACK 64u

/* A rectangle of pixels; width and height are at least 1. */
struct nnc_box {
    uint32_t left, top, width, height;
};

/* Bytes [first, first + bytes) of an image's file. */
struct nnc_image_range {
    uint64_t first;
    size_t bytes;
};

/* A part of an image's file in memory: the bytes from `first` on. */
struct nnc_image_part {
    const uint8_t *bytes;
    size_t size;
    uint64_t first;
};

/* Who wants the pixels. */
struct nnc_image_sink {
    /* By how much an image of this size may be reduced while it is decoded, where its format can:
     * 1, 2, 4 or 8. Its size is then divided by that and rounded up. NULL: by nothing. */
    uint32_t (*shrink)(void *context, uint32_t width, uint32_t height);
    /* The image has this size, reduced; put the rectangle that is needed into *ret_need, inside the
     * image. Called again, with the same size, when decoding begins anew: rows that came before
     * count no more. Errors: negative ends the decoding with that code. */
    int (*begin)(void *context, uint32_t width, uint32_t height, struct nnc_box *ret_need);
    /* Rows [first, first + count) of the image, which lie inside the rectangle: pixels points at
     * the one in column need.left, u8 (count, need.width, channels), consecutive rows are stride
     * bytes apart and NNC_IMAGE_ROW_SLACK bytes behind each may be read, of whatever value. Owner:
     * the memory stays the decoder's and is valid during the call only. */
    void (*rows)(void *context, uint32_t first, uint32_t count, const uint8_t *pixels,
                 size_t stride);
    void *context;
};

/* Who knows which rectangle of an image will be needed. */
struct nnc_image_asker {
    int (*box)(void *context, uint32_t width, uint32_t height, struct nnc_box *ret_need);
    void *context;
};

/* An image of which only the slice that is needed was read. */
struct nnc_image_slice {
    struct nnc_image_part rest; /* what nnc_image_find_slice() asked for */
    uint64_t total;             /* size of the file */
};

/* One image to decode. */
struct nnc_image_job {
    const uint8_t *bytes; /* the file, or its head when there is a slice; hostile */
    size_t size;
    uint32_t channels; /* 3: RGB; 1: grey, colours by PIL's ITU-R 601 weights */
    bool whole;        /* decode everything, even what the sink does not need: finds every fault */
    const struct nnc_image_sink *sink;
    const struct nnc_image_slice *slice; /* NULL: bytes are the whole file */
};

/* What else is to be said of a decoded image. */
struct nnc_image_report {
    uint32_t warnings; /* faults that libjpeg repaired and that PIL tolerates too */
};

struct nnc_image;

/* A decoder for any number of images, one after the other. Errors: -ENOMEM. */
int nnc_image_create(struct nnc_image **ret_image);

/* Free it. Takes NULL. */
void nnc_image_destroy(struct nnc_image *image);

/* Decode one image: JPEG, PNG, PNM (P5, P6) or BMP. The pixels equal those of PIL's
 * Image.open(...).convert("RGB" or "L"), save that 16-bit PNG keeps its high byte; EXIF is ignored.
 * When `whole` is false and the image is damaged outside the needed rectangle the damage may go
 * unseen. A restart index that does not fit the image makes a slice bad, but not the whole file.
 * Errors: -NNC_E_FORMAT the image is bad (the text says why, without a path); -ENOMEM; or what
 * sink->begin said. Some rows may have been delivered before the error. */
int nnc_image_decode(struct nnc_image *image, const struct nnc_image_job *job,
                     struct nnc_image_report *ret_report);

/* Find out from the head of a file of total bytes which others are needed for a rectangle (see
 * ipc/sliced.h for the formats in which a head tells). box answers as a sink's begin does, and must
 * do so again when the image is decoded. Returns 1 with *ret_range (at least one byte, behind the
 * head, inside the file), 0 when the head does not tell: then the whole file is to be read, and
 * what is wrong with it, if anything, is found by decoding it. */
int nnc_image_find_slice(const struct nnc_image_part *head, uint64_t total,
                         const struct nnc_image_asker *asker, struct nnc_image_range *ret_range);

/* 0 when an image of this size may be decoded, else -NNC_E_FORMAT with the text. */
int nnc_image_check_size(uint64_t width, uint64_t height);

/* count RGB pixels to grey, in place allowed.
 * Math:   (19595 R + 38470 G + 7471 B + 32768) >> 16, exact in u32.
 * Source: PIL, convert("L"), ITU-R 601-2. */
void nnc_image_rgb_to_grey(const uint8_t *rgb, size_t count, uint8_t *ret_grey);

/* Make *buffer at least `bytes` long, and NNC_IMAGE_ROW_SLACK more; grows only and does not keep
 * the contents. Errors: -ENOMEM. */
int nnc_image_reserve(uint8_t **buffer, size_t *buffer_bytes, size_t bytes);

#endif
