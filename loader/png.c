/* SPDX-License-Identifier: Apache-2.0 */
/* PNG decoding with libspng.
 *
 *   context -> limits -> header -> sink says what it needs -> rows one by one, or all when
 * interlaced
 *
 * 1. libspng makes any PNG into 8-bit RGB; grey is made from that, which is exact for grey images.
 * 2. The size is checked before a buffer for pixels exists; chunks that libspng would keep are
 * bounded.
 * 3. libspng has no way to reuse a context, so one is made for each image; pixels go to a buffer of
 * ours.
 *
 * Does not: apply gamma, colour profiles, transparency or animation.
 * Source: libspng 0.7 documentation. */
#include "loader/png.h"

#include "base/checked.h"
#include "base/err.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <spng.h>

enum {
    CHUNK_BYTES_MAX = 8 * 1048576,   /* one text or profile chunk */
    CHUNKS_BYTES_MAX = 32 * 1048576, /* all of them */
    KEEP_BYTES = 4 * 1048576,        /* of pixels, from one image to the next */
};

struct nnc_png {
    uint8_t *pixels; /* one row, or the whole image when it is interlaced */
    size_t pixels_bytes;
};

int nnc_png_create(struct nnc_png **ret_png) {
    struct nnc_png *png = calloc(1, sizeof(*png));
    if (png == NULL) {
        return nnc_fail(-ENOMEM, "no memory for a PNG decoder");
    }
    *ret_png = png;
    return 0;
}

void nnc_png_destroy(struct nnc_png *png) {
    if (png == NULL) {
        return;
    }
    free(png->pixels);
    free(png);
}

int nnc_png_sniff(const uint8_t *bytes, size_t size) {
    static const uint8_t magic[8] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};
    return size >= sizeof(magic) && memcmp(bytes, magic, sizeof(magic)) == 0;
}

static int fail_spng(int status) {
    return nnc_fail(status == SPNG_EMEM ? -ENOMEM : -NNC_E_FORMAT, "PNG: %s",
                    spng_strerror(status));
}

static void deliver_row(const struct nnc_image_job *job, const struct nnc_box *need, uint32_t y,
                        uint8_t *row) {
    if (y < need->top || y >= need->top + need->height) {
        return;
    }
    uint8_t *first = row + (size_t)need->left * 3;
    if (job->channels == 1) {
        nnc_image_rgb_to_grey(first, need->width, first);
    }
    job->sink->rows(job->sink->context, y, 1, first, (size_t)need->width * job->channels);
}

/* Rows arrive in order: one is in memory at a time, and those below the rectangle are left out. */
static int decode_rows(struct nnc_png *png, spng_ctx *ctx, const struct nnc_image_job *job,
                       const struct spng_ihdr *header, const struct nnc_box *need) {
    size_t row_bytes = (size_t)header->width * 3;
    if (nnc_image_reserve(&png->pixels, &png->pixels_bytes, row_bytes) < 0) {
        return -ENOMEM;
    }
    int status = spng_decode_image(ctx, NULL, 0, SPNG_FMT_RGB8, SPNG_DECODE_PROGRESSIVE);
    uint32_t end = job->whole ? header->height : need->top + need->height;
    for (uint32_t y = 0; status == 0 && y < end; y++) {
        status = spng_decode_row(ctx, png->pixels, row_bytes);
        if (status == 0 || status == SPNG_EOI) {
            deliver_row(job, need, y, png->pixels);
        }
        if (status == SPNG_EOI && y + 1 == header->height) {
            return 0;
        }
    }
    return status == 0 ? 0 : fail_spng(status);
}

/* The passes of an interlaced image touch all rows, so it is decoded as a whole. */
static int decode_interlaced(struct nnc_png *png, spng_ctx *ctx, const struct nnc_image_job *job,
                             const struct spng_ihdr *header, const struct nnc_box *need) {
    size_t row_bytes = (size_t)header->width * 3;
    size_t bytes;
    if (nnc_size_mul(row_bytes, header->height, &bytes) ||
        nnc_image_reserve(&png->pixels, &png->pixels_bytes, bytes) < 0) {
        return nnc_fail(-ENOMEM, "PNG: no memory for %u x %u pixels", header->width,
                        header->height);
    }
    int status = spng_decode_image(ctx, png->pixels, bytes, SPNG_FMT_RGB8, 0);
    if (status != 0) {
        return fail_spng(status);
    }
    for (uint32_t y = need->top; y < need->top + need->height; y++) {
        deliver_row(job, need, y, png->pixels + y * row_bytes);
    }
    return 0;
}

static int decode(struct nnc_png *png, spng_ctx *ctx, const struct nnc_image_job *job) {
    spng_set_crc_action(ctx, SPNG_CRC_ERROR, SPNG_CRC_ERROR);
    spng_set_image_limits(ctx, NNC_IMAGE_MAX_SIDE, NNC_IMAGE_MAX_SIDE);
    spng_set_chunk_limits(ctx, CHUNK_BYTES_MAX, CHUNKS_BYTES_MAX);
    int status = spng_set_png_buffer(ctx, job->bytes, job->size);
    struct spng_ihdr header;
    if (status == 0) {
        status = spng_get_ihdr(ctx, &header);
    }
    if (status != 0) {
        return fail_spng(status);
    }
    int code = nnc_image_check_size(header.width, header.height);
    struct nnc_box need;
    if (code >= 0) {
        code = job->sink->begin(job->sink->context, header.width, header.height, &need);
    }
    if (code < 0) {
        return code;
    }
    return header.interlace_method == SPNG_INTERLACE_NONE
               ? decode_rows(png, ctx, job, &header, &need)
               : decode_interlaced(png, ctx, job, &header, &need);
}

int nnc_png_decode(struct nnc_png *png, const struct nnc_image_job *job,
                   struct nnc_image_report *ret_report) {
    spng_ctx *ctx = spng_ctx_new(0);
    if (ctx == NULL) {
        return nnc_fail(-ENOMEM, "PNG: no memory for a decoder");
    }
    int code = decode(png, ctx, job);
    spng_ctx_free(ctx);
    if (png->pixels_bytes > KEEP_BYTES) {
        free(png->pixels);
        png->pixels = NULL;
        png->pixels_bytes = 0;
    }
    if (code >= 0) {
        ret_report->warnings = 0;
    }
    return code;
}
