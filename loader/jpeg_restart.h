/* SPDX-License-Identifier: Apache-2.0 */
/* Restart-indexed JPEG (ipc/sliced.h): from the pieces that cover a rectangle to a smaller JPEG
 * whose pixels there are those of the whole image, bit for bit. Nothing is decoded here. */
#ifndef NNC_LOADER_JPEG_RESTART_H
#define NNC_LOADER_JPEG_RESTART_H

#include "loader/image.h"

#include <stddef.h>
#include <stdint.h>

/* The head of a restart-indexed JPEG, checked: every number fits the others and the file's size. */
struct nnc_jpeg_restart {
    uint32_t width, height;         /* of the image, in pixels */
    uint32_t mcu_width, mcu_height; /* in pixels */
    uint32_t columns, rows;         /* of MCUs */
    uint32_t mcus;                  /* in a piece */
    uint32_t row_pieces;            /* columns / mcus */
    uint32_t pieces;
    size_t frame_at;     /* offset of the frame header's marker */
    size_t segment_at;   /* offset of the index's marker */
    size_t segment_size; /* with its marker */
    size_t head_size;    /* offset of the first entropy-coded byte */
    const uint8_t *head;
};

/* Read the head of a file of total bytes. head[0..size): hostile. Owner: *ret_restart points into
 * head. Returns 1, or 0 when these bytes are no complete head with a sound index (an ordinary JPEG,
 * or a damaged index). Allocates nothing. */
int nnc_jpeg_restart_parse(const uint8_t *head, size_t size, uint64_t total,
                           struct nnc_jpeg_restart *ret_restart);

/* The bytes of the file that hold all pieces in the rows of MCUs that need touches. */
struct nnc_image_range nnc_jpeg_restart_range(const struct nnc_jpeg_restart *restart,
                                              const struct nnc_box *need);

/* A JPEG that was put together; its pixel (0, 0) is the image's (left, top). Its header comes from
 * a hostile file: whoever decodes it compares the size that the decoder sees with width and height.
 */
struct nnc_jpeg_stitched {
    uint8_t *bytes; /* grows only; the caller frees */
    size_t room, size;
    uint32_t left, top, width, height;
};

/* Put the pieces that cover need together behind a header of their own. data[0..data_size) are the
 * file's bytes from data_first on and cover nnc_jpeg_restart_range(). Errors: -NNC_E_FORMAT when
 * the markers are not where the index says; -ENOMEM. */
int nnc_jpeg_restart_stitch(const struct nnc_jpeg_restart *restart, const struct nnc_box *need,
                            const struct nnc_image_part *part, struct nnc_jpeg_stitched *stitched);

#endif
