/* SPDX-License-Identifier: Apache-2.0 */
/* Cutting a restart-indexed JPEG.
 *
 *        columns of MCUs, in pieces of `mcus`
 *      +----+----+----+----+----+
 *      |    |    |    |    |    |      needed: the rows and columns of MCUs that the rectangle
 *      +----+====+====+----+----+      touches, and MARGIN pixels around it, because fancy
 *      |    |    |    |    |    |      upsampling of colours looks one sample to each side
 *      +----+====+====+----+----+
 *
 *   header, with width and height replaced and without the index
 *   | pieces of row 1 | RSTn | pieces of row 2 | RSTn | ... | EOI     markers numbered from 0
 *
 * 1. At an edge of the small image libjpeg takes the edge's own samples for the missing neighbours.
 *    That changes at most the outermost pixel there, which MARGIN keeps out of the rectangle; where
 *    the small image's edge is the large one's, it is what a full decode does too.
 * 2. A piece begins with predictions of zero, as every piece behind a marker does, so its place in
 *    the small image does not matter. Only the number in the marker behind it does.
 * 3. Offsets come from sums of the sizes in the index; each sum was checked against the file's size
 *    when the head was parsed, so no offset leaves the file. That the marker is there is checked
 *    where one is used.
 * 4. libjpeg does not interpolate the colours of an image that has two columns of them or fewer. So
 *    the small image never consists of a part of an MCU alone, unless the large one does.
 *
 * Source: ITU-T T.81, B.1.1.3 and B.2.1 (markers), E.1.4 (restarts); jdsample.c's description in
 * libjpeg.txt for the neighbours. */
#include "loader/jpeg_restart.h"

#include "base/bytes.h"
#include "base/err.h"
#include "ipc/sliced.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
    MARGIN = 2, /* pixels */
    EOI = 0xd9,
    RST0 = 0xd0,
    SOF0 = 0xc0,
    SOF1 = 0xc1,
    DHT = 0xc4,
    SOS = 0xda,
    DQT = 0xdb,
    DRI = 0xdd,
    APP0 = 0xe0,
    APP15 = 0xef,
    COM = 0xfe,
    COMPONENTS_MAX = 4,
};

/* ---- the head ---- */

/* What the walk over the marker segments found. */
struct found {
    struct nnc_jpeg_restart restart;
    uint32_t components;
    uint32_t interval;    /* of DRI */
    uint32_t said_head;   /* header_bytes of the index */
    const uint8_t *sizes; /* of the pieces, NULL: no index */
};

/* Size and sampling of a baseline frame. body[0..size) is behind the length. */
static bool take_frame(struct found *found, const uint8_t *body, size_t size) {
    struct nnc_jpeg_restart *restart = &found->restart;
    if (size < 6 || body[0] != 8 || found->components != 0) {
        return false;
    }
    restart->height = nnc_big16(body + 1);
    restart->width = nnc_big16(body + 3);
    found->components = body[5];
    if (found->components < 1 || found->components > COMPONENTS_MAX ||
        size < 6 + 3 * (size_t)found->components) {
        return false;
    }
    uint32_t across = 1, down = 1;
    for (uint32_t i = 0; i < found->components; i++) {
        uint32_t sampling = body[6 + 3 * i + 1];
        across = sampling >> 4 > across ? sampling >> 4 : across;
        down = (sampling & 15) > down ? sampling & 15 : down;
    }
    /* The MCU of a scan with one component is one block, whatever its sampling says. */
    restart->mcu_width = found->components == 1 ? 8 : 8 * across;
    restart->mcu_height = found->components == 1 ? 8 : 8 * down;
    return across <= 4 && down <= 4 && restart->width >= 1 && restart->height >= 1;
}

static bool take_index(struct found *found, const uint8_t *body, size_t size) {
    if (size < NNC_RESTART_FIXED || memcmp(body, NNC_RESTART_ID, NNC_RESTART_ID_BYTES) != 0) {
        return true; /* somebody else's APP10 */
    }
    if (found->sizes != NULL) {
        return false; /* the sizes that are checked must be the ones that are used */
    }
    found->said_head = nnc_big32(body + 8);
    found->restart.mcus = nnc_big16(body + 12);
    found->restart.pieces = nnc_big32(body + 16);
    found->sizes = body + NNC_RESTART_FIXED;
    return found->restart.pieces <= NNC_RESTART_PIECES_MAX &&
           size == NNC_RESTART_FIXED + 2 * (size_t)found->restart.pieces;
}

/* One segment in front of the scan; false when such a file cannot be cut. */
static bool take_segment(struct found *found, const uint8_t *head, size_t at, size_t size) {
    const uint8_t *body = head + at + 4;
    switch (head[at + 1]) {
    case SOF0:
    case SOF1:
        found->restart.frame_at = at;
        return take_frame(found, body, size);
    case NNC_RESTART_MARKER:
        if (found->sizes == NULL) {
            found->restart.segment_at = at;
            found->restart.segment_size = size + 4;
        }
        return take_index(found, body, size);
    case DRI:
        found->interval = size >= 2 ? nnc_big16(body) : 0;
        return size == 2;
    case DHT:
    case DQT:
    case COM:
        return true;
    default:
        /* Other frames have no pieces. Markers without a length, and fill bytes, could make libjpeg
         * see other segments than we do. */
        return head[at + 1] >= APP0 && head[at + 1] <= APP15;
    }
}

/* Walk over the segments up to and with the start of the scan. */
static bool walk(struct found *found, const uint8_t *head, size_t size) {
    if (size < 4 || head[0] != 0xff || head[1] != 0xd8) {
        return false;
    }
    size_t at = 2;
    while (size - at >= 4 && head[at] == 0xff) {
        size_t length = nnc_big16(head + at + 2);
        if (length < 2 || length > size - at - 2) {
            return false;
        }
        if (head[at + 1] == SOS) {
            found->restart.head_size = at + 2 + length;
            return length >= 3 && head[at + 4] == found->components;
        }
        if (!take_segment(found, head, at, length - 2)) {
            return false;
        }
        at += 2 + length;
    }
    return false;
}

/* Does the index fit the image and the file? */
static bool fits(const struct found *found, uint64_t total) {
    const struct nnc_jpeg_restart *restart = &found->restart;
    if (found->sizes == NULL || restart->mcus == 0 || restart->mcus != found->interval ||
        found->said_head != restart->head_size || restart->columns % restart->mcus != 0 ||
        (uint64_t)restart->row_pieces * restart->rows != restart->pieces) {
        return false;
    }
    uint64_t end = restart->head_size + 2 * (uint64_t)restart->pieces;
    for (uint32_t i = 0; i < restart->pieces; i++) {
        end += nnc_big16(found->sizes + 2 * (size_t)i);
    }
    return end == total;
}

int nnc_jpeg_restart_parse(const uint8_t *head, size_t size, uint64_t total,
                           struct nnc_jpeg_restart *ret_restart) {
    struct found found = {.restart.head = head};
    struct nnc_jpeg_restart *restart = &found.restart;
    if (!walk(&found, head, size) || found.components == 0) {
        return 0;
    }
    restart->columns = (restart->width + restart->mcu_width - 1) / restart->mcu_width;
    restart->rows = (restart->height + restart->mcu_height - 1) / restart->mcu_height;
    restart->row_pieces = restart->mcus == 0 ? 0 : restart->columns / restart->mcus;
    if (!fits(&found, total)) {
        return 0;
    }
    *ret_restart = *restart;
    return 1;
}

/* ---- which pieces ---- */

/* Rows of MCUs [top, bottom) and pieces of a row [left, right). */
struct cut {
    uint32_t top, bottom, left, right;
};

static struct cut cut_around(const struct nnc_jpeg_restart *restart, const struct nnc_box *need) {
    uint32_t piece_width = restart->mcu_width * restart->mcus;
    uint32_t top = need->top > MARGIN ? need->top - MARGIN : 0;
    uint32_t left = need->left > MARGIN ? need->left - MARGIN : 0;
    uint32_t bottom = need->top + need->height + MARGIN;
    uint32_t right = need->left + need->width + MARGIN;
    struct cut cut = {
        .top = top / restart->mcu_height,
        .bottom = (bottom + restart->mcu_height - 1) / restart->mcu_height,
        .left = left / piece_width,
        .right = (right + piece_width - 1) / piece_width,
    };
    cut.bottom = cut.bottom < restart->rows ? cut.bottom : restart->rows;
    cut.right = cut.right < restart->row_pieces ? cut.right : restart->row_pieces;
    if (cut.left > 0 && restart->width - cut.left * piece_width < restart->mcu_width) {
        cut.left--; /* step 4 */
    }
    return cut;
}

static uint32_t size_of(const struct nnc_jpeg_restart *restart, uint32_t piece) {
    return nnc_big16(restart->head + restart->segment_at + 4 + NNC_RESTART_FIXED +
                     2 * (size_t)piece);
}

/* Bytes of pieces [first, end) with the markers behind them. */
static size_t sum_of(const struct nnc_jpeg_restart *restart, uint32_t first, uint32_t end) {
    size_t sum = 2 * (size_t)(end - first);
    for (uint32_t i = first; i < end; i++) {
        sum += size_of(restart, i);
    }
    return sum;
}

struct nnc_image_range nnc_jpeg_restart_range(const struct nnc_jpeg_restart *restart,
                                              const struct nnc_box *need) {
    struct cut cut = cut_around(restart, need);
    uint32_t first = cut.top * restart->row_pieces, end = cut.bottom * restart->row_pieces;
    return (struct nnc_image_range){
        .first = restart->head_size + sum_of(restart, 0, first),
        .bytes = sum_of(restart, first, end),
    };
}

/* ---- putting together ---- */

/* The header without the index and with the size of the small image. Returns its bytes. */
static size_t put_header(const struct nnc_jpeg_restart *restart, const struct cut *cut,
                         struct nnc_jpeg_stitched *stitched) {
    uint8_t *out = stitched->bytes;
    size_t behind = restart->segment_at + restart->segment_size;
    memcpy(out, restart->head, restart->segment_at);
    memcpy(out + restart->segment_at, restart->head + behind, restart->head_size - behind);
    uint8_t *frame = out + restart->frame_at;
    frame -= restart->frame_at > restart->segment_at ? restart->segment_size : 0;
    uint32_t top = cut->top * restart->mcu_height;
    uint32_t left = cut->left * restart->mcus * restart->mcu_width;
    uint32_t bottom = cut->bottom * restart->mcu_height;
    uint32_t right = cut->right * restart->mcus * restart->mcu_width;
    bottom = bottom < restart->height ? bottom : restart->height;
    right = right < restart->width ? right : restart->width;
    stitched->left = left;
    stitched->top = top;
    stitched->width = right - left;
    stitched->height = bottom - top;
    nnc_put_big16(frame + 5, stitched->height);
    nnc_put_big16(frame + 7, stitched->width);
    return restart->head_size - restart->segment_size;
}

/* Copy the pieces of one row of MCUs, their markers numbered on from *number. at points at the
 * first of them. Returns 0, or negative when a marker is not where the index says. */
static int put_row(const struct nnc_jpeg_restart *restart, uint32_t first, uint32_t end,
                   const uint8_t *at, struct nnc_jpeg_stitched *stitched, uint32_t *number) {
    uint8_t *out = stitched->bytes + stitched->size;
    size_t bytes = sum_of(restart, first, end);
    memcpy(out, at, bytes);
    for (uint32_t i = first; i < end; i++) {
        out += size_of(restart, i);
        bool last = i + 1 == restart->pieces;
        if (out[0] != 0xff || (last ? out[1] != EOI : (out[1] & 0xf8) != RST0)) {
            return nnc_fail(-NNC_E_FORMAT,
                            "JPEG: the restart index does not fit the data; pack the image again");
        }
        out[1] = (uint8_t)(RST0 + (*number)++ % 8);
        out += 2;
    }
    stitched->size += bytes;
    return 0;
}

int nnc_jpeg_restart_stitch(const struct nnc_jpeg_restart *restart, const struct nnc_box *need,
                            const struct nnc_image_part *part, struct nnc_jpeg_stitched *stitched) {
    struct cut cut = cut_around(restart, need);
    struct nnc_image_range range = nnc_jpeg_restart_range(restart, need);
    assert(cut.top < cut.bottom && cut.left < cut.right);
    if (range.first < part->first || range.bytes > part->size ||
        range.first - part->first > part->size - range.bytes) {
        return nnc_fail(-NNC_E_FORMAT, "JPEG: the bytes of the needed rows are missing");
    }
    int code =
        nnc_image_reserve(&stitched->bytes, &stitched->room, restart->head_size + range.bytes);
    if (code < 0) {
        return code;
    }
    stitched->size = put_header(restart, &cut, stitched);
    const uint8_t *at = part->bytes + (range.first - part->first);
    uint32_t number = 0;
    for (uint32_t row = cut.top; row < cut.bottom && code >= 0; row++) {
        uint32_t start = row * restart->row_pieces;
        at += sum_of(restart, start, start + cut.left);
        code = put_row(restart, start + cut.left, start + cut.right, at, stitched, &number);
        at += sum_of(restart, start + cut.left, start + restart->row_pieces);
    }
    stitched->bytes[stitched->size - 1] = EOI;
    return code;
}
