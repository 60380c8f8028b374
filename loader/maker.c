/* SPDX-License-Identifier: Apache-2.0 */
/* One sample: the decoder pushes rows into the resizer, which stores into the ring slot.
 *
 *   bytes -> decoder -> begin: size known, view drawn, resizer planned -> rows -> resizer -> pixels
 *
 * 1. No full-size image exists, and in the steady state nothing is allocated by us.
 * 2. The view is drawn when the size is known, from the stream (seed, AUGMENT, epoch, k): a
 *    substitute in the same place gets the same draws.
 * 3. Raw samples (IDX) are rows already: the same sink gets them without a decoder. Grey ones are
 *    spread to three channels where the ring has three.
 *
 * Does not: read, claim, publish. */
#include "loader/maker.h"

#include "base/clock.h"
#include "base/err.h"
#include "loader/image.h"
#include "loader/resize.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
    GREY = 128,
    FAST_MARGIN = 24, /* 8 pixels of a crop widened to the grid of 1/8, and 16 for upsampling */
};

struct nnc_maker {
    struct nnc_maker_params params;
    struct nnc_image *image;
    struct nnc_resizer *resizer;
    uint8_t *row; /* a raw row with its channels changed */
    size_t row_bytes;
    /* of the sample in hand */
    struct nnc_sampler_place place;
    uint8_t *pixels;
    uint32_t shrink; /* of the image while it is decoded */
    struct nnc_maker_cost cost;
    struct nnc_maker_cut cut;
};

int nnc_maker_create(const struct nnc_maker_params *params, struct nnc_maker **ret_maker) {
    struct nnc_maker *maker = calloc(1, sizeof(*maker));
    if (maker == NULL) {
        return nnc_fail(-ENOMEM, "no memory for a sample maker");
    }
    maker->params = *params;
    int code = nnc_image_create(&maker->image);
    if (code >= 0) {
        code = nnc_resizer_create(params->simd, &maker->resizer);
    }
    if (code < 0) {
        nnc_maker_destroy(maker);
        return code;
    }
    *ret_maker = maker;
    return 0;
}

void nnc_maker_destroy(struct nnc_maker *maker) {
    if (maker == NULL) {
        return;
    }
    nnc_image_destroy(maker->image);
    nnc_resizer_destroy(maker->resizer);
    free(maker->row);
    free(maker);
}

/* ---- the sink ---- */

static struct nnc_view draw_view(const struct nnc_maker *maker,
                                 const struct nnc_sampler_place *place, uint32_t width,
                                 uint32_t height) {
    struct nnc_rng rng = nnc_rng_make(maker->params.seed, NNC_RNG_AUGMENT, place->epoch, place->k);
    return nnc_augment_view(&maker->params.augment[place->phase], width, height, rng);
}

/* The largest reduction that leaves the crop as large as what it becomes. */
static uint32_t on_shrink(void *context, uint32_t width, uint32_t height) {
    struct nnc_maker *maker = context;
    maker->cut = (struct nnc_maker_cut){
        .width = width, .height = height, .view = draw_view(maker, &maker->place, width, height)};
    const struct nnc_view *view = &maker->cut.view;
    while (maker->shrink < 8 && view->crop.width / (2 * maker->shrink) >= view->width &&
           view->crop.height / (2 * maker->shrink) >= view->height) {
        maker->shrink *= 2;
    }
    return maker->shrink;
}

/* The view of a reduced image: the crop's edges go to the nearest pixel outwards. */
static struct nnc_view shrink_view(struct nnc_view view, uint32_t shrink) {
    struct nnc_box *crop = &view.crop;
    uint32_t right = (crop->left + crop->width + shrink - 1) / shrink;
    uint32_t bottom = (crop->top + crop->height + shrink - 1) / shrink;
    crop->left /= shrink;
    crop->top /= shrink;
    crop->width = right - crop->left;
    crop->height = bottom - crop->top;
    return view;
}

static int on_begin(void *context, uint32_t width, uint32_t height, struct nnc_box *ret_need) {
    struct nnc_maker *maker = context;
    const struct nnc_sampler_place *place = &maker->place;
    uint64_t start = nnc_clock_ns();
    if (maker->shrink == 1) {
        maker->cut = (struct nnc_maker_cut){
            .width = width, .height = height, .view = draw_view(maker, place, width, height)};
    }
    struct nnc_view view = shrink_view(maker->cut.view, maker->shrink);
    int code =
        nnc_resizer_begin(maker->resizer, &view, maker->params.channels, maker->pixels, ret_need);
    maker->cost.transform_ns += nnc_clock_ns() - start;
    return code;
}

static void on_rows(void *context, uint32_t first, uint32_t count, const uint8_t *pixels,
                    size_t stride) {
    struct nnc_maker *maker = context;
    uint64_t start = nnc_clock_ns();
    nnc_resizer_rows(maker->resizer, first, count, pixels, stride);
    maker->cost.transform_ns += nnc_clock_ns() - start;
}

/* ---- slices ---- */

struct asking {
    const struct nnc_maker *maker;
    const struct nnc_sampler_place *place;
};

static int on_ask(void *context, uint32_t width, uint32_t height, struct nnc_box *ret_need) {
    const struct asking *asking = context;
    struct nnc_view view = draw_view(asking->maker, asking->place, width, height);
    struct nnc_box need = nnc_resizer_need(&view);
    /* Rows around it that a reduced decode may touch. */
    uint32_t more = asking->maker->params.fast ? FAST_MARGIN : 0;
    uint32_t bottom = need.top + need.height + more;
    need.top = need.top > more ? need.top - more : 0;
    need.height = (bottom < height ? bottom : height) - need.top;
    *ret_need = need;
    return 0;
}

int nnc_maker_find_slice(struct nnc_maker *maker, const struct nnc_sampler_place *place,
                         const struct nnc_image_part *head, uint64_t total,
                         struct nnc_image_range *ret_range) {
    if (maker->params.whole) {
        return 0;
    }
    struct asking asking = {.maker = maker, .place = place};
    const struct nnc_image_asker asker = {.box = on_ask, .context = &asking};
    return nnc_image_find_slice(head, total, &asker, ret_range);
}

/* ---- samples ---- */

static int make_encoded(struct nnc_maker *maker, const struct nnc_maker_bytes *bytes) {
    const struct nnc_image_sink sink = {.shrink = maker->params.fast ? on_shrink : NULL,
                                        .begin = on_begin,
                                        .rows = on_rows,
                                        .context = maker};
    const struct nnc_image_job job = {
        .bytes = bytes->bytes,
        .size = bytes->size,
        .channels = maker->params.channels,
        .whole = maker->params.whole,
        .sink = &sink,
        .slice = bytes->slice,
    };
    struct nnc_image_report report = {0};
    int code = nnc_image_decode(maker->image, &job, &report);
    maker->cost.warnings = report.warnings;
    return code;
}

/* Bring a raw row from `from` channels to the maker's. */
static const uint8_t *convert_row(struct nnc_maker *maker, const uint8_t *row, uint32_t width,
                                  uint32_t from) {
    if (from == maker->params.channels) {
        return row;
    }
    if (from == 3) {
        nnc_image_rgb_to_grey(row, width, maker->row);
        return maker->row;
    }
    for (uint32_t x = 0; x < width; x++) {
        memset(maker->row + (size_t)x * 3, row[x], 3);
    }
    return maker->row;
}

static int make_raw(struct nnc_maker *maker, const struct nnc_index_header *header,
                    const uint8_t *bytes, size_t size) {
    int code = nnc_image_check_size(header->width, header->height);
    if (code < 0) {
        return code;
    }
    size_t row_bytes = (size_t)header->width * header->channels;
    bool known = header->channels == 1 || header->channels == 3;
    if (!known || size != row_bytes * header->height) {
        return nnc_fail(-NNC_E_FORMAT, "raw sample of %zu bytes is not %u x %u x %u", size,
                        header->height, header->width, header->channels);
    }
    struct nnc_box need = {0};
    code = nnc_image_reserve(&maker->row, &maker->row_bytes, (size_t)header->width * 3);
    if (code >= 0) {
        code = on_begin(maker, header->width, header->height, &need);
    }
    for (uint32_t y = 0; code >= 0 && y < need.height; y++) {
        const uint8_t *row =
            bytes + (need.top + y) * row_bytes + (size_t)need.left * header->channels;
        nnc_resizer_rows(maker->resizer, need.top + y, 1,
                         convert_row(maker, row, need.width, header->channels), 0);
    }
    return code;
}

int nnc_maker_make(struct nnc_maker *maker, const struct nnc_index_header *header,
                   const struct nnc_sampler_place *place, const struct nnc_maker_bytes *bytes,
                   uint8_t *pixels) {
    uint64_t start = nnc_clock_ns();
    maker->place = *place;
    maker->pixels = pixels;
    maker->shrink = 1;
    maker->cost = (struct nnc_maker_cost){0};
    maker->cut = (struct nnc_maker_cut){0};
    bool raw = header->kind == NNC_INDEX_IDX;
    int code =
        raw ? make_raw(maker, header, bytes->bytes, bytes->size) : make_encoded(maker, bytes);
    uint64_t all_ns = nnc_clock_ns() - start;
    if (raw) {
        maker->cost.transform_ns = all_ns; /* there is nothing to decode */
    } else {
        maker->cost.decode_ns = all_ns - maker->cost.transform_ns;
    }
    if (code >= 0 && !nnc_resizer_done(maker->resizer)) {
        return nnc_fail(-NNC_E_FORMAT, "the decoder gave too few rows");
    }
    return code;
}

struct nnc_maker_cost nnc_maker_cost(const struct nnc_maker *maker) {
    return maker->cost;
}

struct nnc_maker_cut nnc_maker_cut(const struct nnc_maker *maker) {
    return maker->cut;
}

void nnc_maker_grey(const struct nnc_maker *maker, enum nnc_phase phase, uint8_t *pixels) {
    size_t side = maker->params.augment[phase].size;
    memset(pixels, GREY, side * side * maker->params.channels);
}
