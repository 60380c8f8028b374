/* SPDX-License-Identifier: Apache-2.0 */
/* Choice of the decoder by the first bytes, and what the decoders share.
 *
 * 1. The table of formats is walked in order; the first whose magic fits decodes.
 * 2. Formats that are known but have no decoder here get a reason that names them, so that a list
 * of bad samples says what to convert.
 *
 * Does not: look at names, extensions or EXIF. */
#include "loader/image.h"

#include "base/err.h"
#include "loader/bitmap.h"
#include "loader/jpeg.h"
#include "loader/png.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct nnc_image {
    struct nnc_jpeg *jpeg;
    struct nnc_png *png;
    struct nnc_bitmap *bitmap;
};

int nnc_image_create(struct nnc_image **ret_image) {
    struct nnc_image *image = calloc(1, sizeof(*image));
    if (image == NULL) {
        return nnc_fail(-ENOMEM, "no memory for an image decoder");
    }
    int code = nnc_jpeg_create(&image->jpeg);
    if (code >= 0) {
        code = nnc_png_create(&image->png);
    }
    if (code >= 0) {
        code = nnc_bitmap_create(&image->bitmap);
    }
    if (code < 0) {
        nnc_image_destroy(image);
        return code;
    }
    *ret_image = image;
    return 0;
}

void nnc_image_destroy(struct nnc_image *image) {
    if (image == NULL) {
        return;
    }
    nnc_jpeg_destroy(image->jpeg);
    nnc_png_destroy(image->png);
    nnc_bitmap_destroy(image->bitmap);
    free(image);
}

/* Formats that are recognised only to be refused by name. */
static int refuse(const uint8_t *bytes, size_t size) {
    static const struct {
        const char *name;
        size_t offset, bytes;
        char magic[9];
    } known[] = {
        {"WebP", 8, 4, "WEBP"},        {"TIFF", 0, 4, "II*\0"},        {"TIFF", 0, 4, "MM\0*"},
        {"GIF", 0, 4, "GIF8"},         {"AVIF or HEIF", 4, 4, "ftyp"}, {"JPEG 2000", 4, 4, "jP  "},
        {"JPEG XL", 0, 2, "\xff\x0a"}, {"PSD", 0, 4, "8BPS"},
    };
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        if (size >= known[i].offset + known[i].bytes &&
            memcmp(bytes + known[i].offset, known[i].magic, known[i].bytes) == 0) {
            return nnc_fail(-NNC_E_FORMAT, "format not supported: %s; convert it to JPEG or PNG",
                            known[i].name);
        }
    }
    return nnc_fail(-NNC_E_FORMAT,
                    size == 0 ? "the file is empty" : "not an image of a known format");
}

int nnc_image_decode(struct nnc_image *image, const struct nnc_image_job *job,
                     struct nnc_image_report *ret_report) {
    assert(job->channels == 1 || job->channels == 3);
    if (nnc_jpeg_sniff(job->bytes, job->size)) {
        return nnc_jpeg_decode(image->jpeg, job, ret_report);
    }
    if (nnc_png_sniff(job->bytes, job->size)) {
        return nnc_png_decode(image->png, job, ret_report);
    }
    if (nnc_bitmap_sniff(job->bytes, job->size)) {
        return nnc_bitmap_decode(image->bitmap, job, ret_report);
    }
    return refuse(job->bytes, job->size);
}

int nnc_image_find_slice(const struct nnc_image_part *head, uint64_t total,
                         const struct nnc_image_asker *asker, struct nnc_image_range *ret_range) {
    assert(head->first == 0);
    struct nnc_image_range range;
    int found = 0;
    if (nnc_jpeg_sniff(head->bytes, head->size)) {
        found = nnc_jpeg_find_slice(head, total, asker, &range);
    } else if (nnc_bitmap_sniff(head->bytes, head->size)) {
        found = nnc_bitmap_find_slice(head, total, asker, &range);
    }
    if (found != 1) {
        return 0;
    }
    assert(range.bytes >= 1 && range.first + range.bytes <= total);
    *ret_range = range;
    return 1;
}

int nnc_image_check_size(uint64_t width, uint64_t height) {
    if (width == 0 || height == 0) {
        return nnc_fail(-NNC_E_FORMAT, "the image has no pixels");
    }
    if (width > NNC_IMAGE_MAX_SIDE || height > NNC_IMAGE_MAX_SIDE ||
        width * height > NNC_IMAGE_MAX_PIXELS) {
        return nnc_fail(-NNC_E_FORMAT,
                        "%llu x %llu pixels exceed the limit of %u a side, %u in all",
                        (unsigned long long)width, (unsigned long long)height, NNC_IMAGE_MAX_SIDE,
                        NNC_IMAGE_MAX_PIXELS);
    }
    return 0;
}

void nnc_image_rgb_to_grey(const uint8_t *rgb, size_t count, uint8_t *ret_grey) {
    for (size_t i = 0; i < count; i++) {
        uint32_t sum = 19595u * rgb[3 * i] + 38470u * rgb[3 * i + 1] + 7471u * rgb[3 * i + 2];
        ret_grey[i] = (uint8_t)((sum + 32768u) >> 16);
    }
}

int nnc_image_reserve(uint8_t **buffer, size_t *buffer_bytes, size_t bytes) {
    if (bytes <= *buffer_bytes) {
        return 0;
    }
    /* The old contents are not wanted: free first, so that both are never in memory. */
    free(*buffer);
    *buffer_bytes = 0;
    *buffer = malloc(bytes + NNC_IMAGE_ROW_SLACK);
    if (*buffer == NULL) {
        return nnc_fail(-ENOMEM, "no memory for %zu bytes", bytes);
    }
    *buffer_bytes = bytes;
    return 0;
}
