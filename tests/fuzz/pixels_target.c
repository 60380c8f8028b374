/* SPDX-License-Identifier: Apache-2.0 */
/* A sink that keeps the wanted part of an image (pixels_target.h). */
#include "tests/fuzz/pixels_target.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
    PIXELS_MAX = 500000, /* larger images are legal, but too slow to try millions of */
};

static uint32_t scale(uint32_t part, uint32_t range) {
    return (uint32_t)((uint64_t)part * range / 256);
}

struct nnc_box pixels_target_box(const uint8_t part[4], uint32_t width, uint32_t height) {
    struct nnc_box box = {.left = scale(part[0], width), .top = scale(part[1], height)};
    box.width = 1 + scale(part[2], width - box.left);
    box.height = 1 + scale(part[3], height - box.top);
    assert(box.left + box.width <= width && box.top + box.height <= height);
    return box;
}

static int on_begin(void *context, uint32_t width, uint32_t height, struct nnc_box *ret_need) {
    struct pixels_target *target = context;
    if ((uint64_t)width * height > PIXELS_MAX) {
        return -E2BIG;
    }
    target->width = width;
    target->height = height;
    target->box = target->whole ? (struct nnc_box){.width = width, .height = height}
                                : pixels_target_box(target->part, width, height);
    free(target->data);
    target->data = calloc((size_t)target->box.width * target->box.height, 3);
    assert(target->data != NULL);
    *ret_need = target->box;
    return 0;
}

static void on_rows(void *context, uint32_t first, uint32_t count, const uint8_t *pixels,
                    size_t stride) {
    struct pixels_target *target = context;
    size_t row_bytes = (size_t)target->box.width * 3;
    assert(first >= target->box.top && count <= target->box.top + target->box.height - first);
    for (uint32_t i = 0; i < count; i++) {
        memcpy(target->data + (first - target->box.top + i) * row_bytes, pixels + i * stride,
               row_bytes);
    }
}

int pixels_target_decode(const uint8_t *bytes, size_t size, bool whole,
                         const struct nnc_image_slice *slice, struct pixels_target *target) {
    static struct nnc_image *image;
    if (image == NULL && nnc_image_create(&image) < 0) {
        abort();
    }
    uint8_t *copy = calloc(1, size + NNC_IMAGE_ROW_SLACK);
    assert(copy != NULL);
    memcpy(copy, bytes, size);
    const struct nnc_image_sink sink = {.begin = on_begin, .rows = on_rows, .context = target};
    const struct nnc_image_job job = {copy, size, 3, whole, &sink, slice};
    struct nnc_image_report report = {0};
    int code = nnc_image_decode(image, &job, &report);
    target->warnings = report.warnings;
    free(copy);
    return code;
}

void pixels_target_compare(const struct pixels_target *part, const struct pixels_target *whole) {
    assert(part->width == whole->width && part->height == whole->height);
    assert(whole->box.width == whole->width && whole->box.height == whole->height);
    size_t row_bytes = (size_t)part->box.width * 3;
    for (uint32_t y = 0; y < part->box.height; y++) {
        const uint8_t *there =
            whole->data + ((size_t)(part->box.top + y) * whole->width + part->box.left) * 3;
        assert(memcmp(part->data + y * row_bytes, there, row_bytes) == 0);
    }
}
