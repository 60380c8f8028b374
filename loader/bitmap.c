/* SPDX-License-Identifier: Apache-2.0 */
/* PNM and BMP by hand: a header gives where the first row lies, how far the next one is and how a
 * pixel is stored; one loop makes RGB or grey rows of that.
 *
 * 1. All pixels must lie inside the bytes; this is checked once, before the sink is asked.
 * 2. BMP rows are usually stored from the bottom up; row_bytes is then negative.
 *
 * Does not: RLE, bit fields, 1 and 4 bits, ASCII PNM, 16-bit PNM, PAM.
 * Source: ppm(5), pgm(5); BITMAPFILEHEADER and BITMAPINFOHEADER. */
#include "loader/bitmap.h"

#include "base/checked.h"
#include "base/err.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct nnc_bitmap {
    uint8_t *row;
    size_t row_bytes;
};

enum layout {
    LAYOUT_GREY,
    LAYOUT_RGB,
    LAYOUT_BGR,
    LAYOUT_BGRX,
    LAYOUT_PALETTE, /* B, G, R, 0 a colour */
};

/* Where the pixels are. */
struct raster {
    uint32_t width, height;
    enum layout layout;
    size_t first; /* offset of the top row */
    size_t row_bytes;
    bool bottom_up; /* the top row is the last one stored */
    const uint8_t *palette;
    uint32_t colours;
};

int nnc_bitmap_create(struct nnc_bitmap **ret_bitmap) {
    struct nnc_bitmap *bitmap = calloc(1, sizeof(*bitmap));
    if (bitmap == NULL) {
        return nnc_fail(-ENOMEM, "no memory for a bitmap decoder");
    }
    *ret_bitmap = bitmap;
    return 0;
}

void nnc_bitmap_destroy(struct nnc_bitmap *bitmap) {
    if (bitmap == NULL) {
        return;
    }
    free(bitmap->row);
    free(bitmap);
}

static bool is_pnm(const uint8_t *bytes, size_t size) {
    return size >= 3 && bytes[0] == 'P' && (bytes[1] == '5' || bytes[1] == '6') &&
           (bytes[2] == ' ' || bytes[2] == '\t' || bytes[2] == '\n' || bytes[2] == '\r' ||
            bytes[2] == '#');
}

int nnc_bitmap_sniff(const uint8_t *bytes, size_t size) {
    return is_pnm(bytes, size) || (size >= 2 && bytes[0] == 'B' && bytes[1] == 'M');
}

/* ---- PNM ---- */

static bool is_space(uint8_t c) {
    return c == ' ' || (c >= '\t' && c <= '\r');
}

/* Read one decimal number after white space and comments; *place ends behind its last digit. */
static int read_number(const uint8_t *bytes, size_t size, size_t *place, uint32_t *ret_number) {
    size_t i = *place;
    while (i < size && (is_space(bytes[i]) || bytes[i] == '#')) {
        if (bytes[i] == '#') {
            while (i < size && bytes[i] != '\n') {
                i++;
            }
        } else {
            i++;
        }
    }
    uint32_t number = 0;
    size_t first = i;
    for (; i < size && bytes[i] >= '0' && bytes[i] <= '9' && i - first < 9; i++) {
        number = number * 10 + (uint32_t)(bytes[i] - '0');
    }
    if (i == first) {
        return nnc_fail(-NNC_E_FORMAT, "PNM: the header does not parse");
    }
    *place = i;
    *ret_number = number;
    return 0;
}

static int parse_pnm(const uint8_t *bytes, size_t size, struct raster *ret_raster) {
    size_t place = 2;
    uint32_t number[3]; /* width, height, maximum */
    for (int i = 0; i < 3; i++) {
        int code = read_number(bytes, size, &place, &number[i]);
        if (code < 0) {
            return code;
        }
    }
    if (number[2] != 255 || place >= size || !is_space(bytes[place])) {
        return nnc_fail(-NNC_E_FORMAT, "PNM: only 8 bits a channel (maximum 255) are supported");
    }
    bool grey = bytes[1] == '5';
    *ret_raster = (struct raster){
        .width = number[0],
        .height = number[1],
        .layout = grey ? LAYOUT_GREY : LAYOUT_RGB,
        .first = place + 1,
        .row_bytes = (size_t)number[0] * (grey ? 1 : 3),
    };
    return 0;
}

/* ---- BMP ---- */

static uint32_t little32(const uint8_t *bytes) {
    return (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 |
           (uint32_t)bytes[3] << 24;
}

static int parse_bmp(const uint8_t *bytes, size_t size, struct raster *ret_raster) {
    if (size < 54 || little32(bytes + 14) < 40) {
        return nnc_fail(-NNC_E_FORMAT, "BMP: the header is incomplete or of the oldest kind");
    }
    uint32_t header_bytes = little32(bytes + 14);
    int32_t height = (int32_t)little32(bytes + 22);
    uint32_t bits = (uint32_t)bytes[28] | (uint32_t)bytes[29] << 8;
    if (little32(bytes + 30) != 0 || (bits != 8 && bits != 24 && bits != 32)) {
        return nnc_fail(-NNC_E_FORMAT, "BMP: only uncompressed 8, 24 and 32 bits are supported");
    }
    struct raster raster = {
        .width = little32(bytes + 18),
        .height = height < 0 ? 0u - (uint32_t)height : (uint32_t)height,
        .layout = bits == 8    ? LAYOUT_PALETTE
                  : bits == 24 ? LAYOUT_BGR
                               : LAYOUT_BGRX,
        .first = little32(bytes + 10),
        .row_bytes = ((size_t)little32(bytes + 18) * (bits / 8) + 3) / 4 * 4,
        .bottom_up = height > 0,
    };
    if (bits == 8) {
        uint32_t colours = little32(bytes + 46);
        raster.colours = colours == 0 || colours > 256 ? 256 : colours;
        size_t place = 14 + (size_t)header_bytes;
        if (place > size || size - place < (size_t)raster.colours * 4) {
            return nnc_fail(-NNC_E_FORMAT, "BMP: the palette lies outside the file");
        }
        raster.palette = bytes + place;
    }
    *ret_raster = raster;
    return 0;
}

/* ---- rows ---- */

static int check_raster(const struct raster *raster, uint64_t size) {
    int code = nnc_image_check_size(raster->width, raster->height);
    if (code < 0) {
        return code;
    }
    size_t bytes;
    if (nnc_size_mul(raster->row_bytes, raster->height, &bytes) || raster->first > size ||
        size - raster->first < bytes) {
        return nnc_fail(-NNC_E_FORMAT, "the file ends before the last row of %u x %u pixels",
                        raster->width, raster->height);
    }
    return 0;
}

/* One stored pixel to RGB; a colour outside the palette is black. */
static void read_pixel(const struct raster *raster, const uint8_t *row, uint32_t x,
                       uint8_t *ret_rgb) {
    const uint8_t *bgr = row;
    switch (raster->layout) {
    case LAYOUT_GREY:
        memset(ret_rgb, row[x], 3);
        return;
    case LAYOUT_RGB:
        memcpy(ret_rgb, row + (size_t)x * 3, 3);
        return;
    case LAYOUT_BGR:
        bgr = row + (size_t)x * 3;
        break;
    case LAYOUT_BGRX:
        bgr = row + (size_t)x * 4;
        break;
    case LAYOUT_PALETTE:
        if (row[x] >= raster->colours) {
            memset(ret_rgb, 0, 3);
            return;
        }
        bgr = raster->palette + (size_t)row[x] * 4;
        break;
    }
    ret_rgb[0] = bgr[2];
    ret_rgb[1] = bgr[1];
    ret_rgb[2] = bgr[0];
}

/* Rows that are stored as the sink wants them go out as they lie, all at once. */
static bool deliver_stored(const struct nnc_image_job *job, const struct raster *raster,
                           const struct nnc_image_part *part, const struct nnc_box *need) {
    enum layout wanted = job->channels == 3 ? LAYOUT_RGB : LAYOUT_GREY;
    uint64_t first = raster->first + (uint64_t)need->top * raster->row_bytes;
    if (raster->layout != wanted || raster->bottom_up) {
        return false;
    }
    const uint8_t *row = part->bytes + (first - part->first);
    job->sink->rows(job->sink->context, need->top, need->height,
                    row + (size_t)need->left * job->channels, raster->row_bytes);
    return true;
}

static void deliver(struct nnc_bitmap *bitmap, const struct nnc_image_job *job,
                    const struct raster *raster, const struct nnc_image_part *part,
                    const struct nnc_box *need) {
    for (uint32_t y = need->top; y < need->top + need->height; y++) {
        uint32_t stored = raster->bottom_up ? raster->height - 1 - y : y;
        uint64_t place = raster->first + (uint64_t)stored * raster->row_bytes;
        const uint8_t *row = part->bytes + (place - part->first);
        for (uint32_t x = 0; x < need->width; x++) {
            read_pixel(raster, row, need->left + x, bitmap->row + (size_t)x * 3);
        }
        if (job->channels == 1) {
            nnc_image_rgb_to_grey(bitmap->row, need->width, bitmap->row);
        }
        job->sink->rows(job->sink->context, y, 1, bitmap->row, (size_t)need->width * job->channels);
    }
}

/* Bytes of the file from the first needed row to the last. */
static struct nnc_image_range range_of(const struct raster *raster, const struct nnc_box *need) {
    uint32_t first = raster->bottom_up ? raster->height - need->top - need->height : need->top;
    return (struct nnc_image_range){
        .first = raster->first + (uint64_t)first * raster->row_bytes,
        .bytes = need->height * raster->row_bytes,
    };
}

/* Does the part have all of the range? */
static bool covers(const struct nnc_image_part *part, const struct nnc_image_range *range) {
    return range->first >= part->first && range->bytes <= part->size &&
           range->first - part->first <= part->size - range->bytes;
}

int nnc_bitmap_decode(struct nnc_bitmap *bitmap, const struct nnc_image_job *job,
                      struct nnc_image_report *ret_report) {
    const struct nnc_image_part file = {.bytes = job->bytes, .size = job->size};
    const struct nnc_image_part *part = job->slice != NULL ? &job->slice->rest : &file;
    struct raster raster = {0};
    int code = is_pnm(job->bytes, job->size) ? parse_pnm(job->bytes, job->size, &raster)
                                             : parse_bmp(job->bytes, job->size, &raster);
    if (code >= 0) {
        code = check_raster(&raster, job->slice != NULL ? job->slice->total : job->size);
    }
    struct nnc_box need;
    if (code >= 0) {
        code = job->sink->begin(job->sink->context, raster.width, raster.height, &need);
    }
    if (code >= 0) {
        code = nnc_image_reserve(&bitmap->row, &bitmap->row_bytes, (size_t)need.width * 3);
    }
    if (code < 0) {
        return code;
    }
    const struct nnc_image_range range = range_of(&raster, &need);
    if (!covers(part, &range)) {
        return nnc_fail(-NNC_E_FORMAT, "the bytes of the needed rows are missing");
    }
    if (!deliver_stored(job, &raster, part, &need)) {
        deliver(bitmap, job, &raster, part, &need);
    }
    ret_report->warnings = 0;
    return 0;
}

int nnc_bitmap_find_slice(const struct nnc_image_part *head, uint64_t total,
                          const struct nnc_image_asker *asker, struct nnc_image_range *ret_range) {
    struct raster raster = {0};
    struct nnc_box need;
    if (!is_pnm(head->bytes, head->size) || parse_pnm(head->bytes, head->size, &raster) < 0 ||
        check_raster(&raster, total) < 0 ||
        asker->box(asker->context, raster.width, raster.height, &need) < 0) {
        return 0;
    }
    *ret_range = range_of(&raster, &need);
    return 1;
}
