/* SPDX-License-Identifier: Apache-2.0 */
/* Making and proving members.
 *
 *   JPEG, nothing to reduce, no quality   -> coefficients written again (jpeg_write.h), or kept as
 *                                            it is where that would change pixels
 *   PNG, likewise                         -> decoded once to see that it is whole, kept as it is
 *   anything else                         -> pixels -> reduced -> JPEG or PNM
 *
 * 1. Pixels are made by the loader's decoder and resizer, so that a packed image differs from the
 *    original by the reduction and by JPEG alone.
 * 2. A bad image is found by decoding it whole, as nncoord check does.
 * 3. The proof decodes the member as a loader would: once whole, once as a slice. Where pixels may
 *    differ from the original's, the member must have the bytes that the recipe makes of it again.
 *
 * Does not: read or write files. */
#include "data/pack_image.h"

#include "base/err.h"
#include "base/rng.h"
#include "data/jpeg_write.h"
#include "ipc/sliced.h"
#include "loader/image.h"
#include "loader/jpeg.h"
#include "loader/png.h"
#include "loader/resize.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    QUALITY_DEFAULT = 90, /* where something is lost anyway and no quality was given */
    PNM_HEADER_MAX = 40,
};

/* Decoded pixels u8 (height, width, channels). */
struct raster {
    uint8_t *bytes; /* room for a PNM header, then the pixels */
    size_t room, header;
    uint32_t width, height, channels;
};

struct nnc_packer {
    struct nnc_pack_recipe recipe;
    struct nnc_image *image;
    struct nnc_resizer *resizer;
    struct nnc_jpeg_writer *writer;
    struct raster made, member, part;
};

uint32_t nnc_pack_recipe_quality(const struct nnc_pack_recipe *recipe) {
    if (recipe->kind != NNC_PACK_JPEG) {
        return 0;
    }
    return recipe->quality == 0 && recipe->max_side != 0 ? QUALITY_DEFAULT : recipe->quality;
}

int nnc_packer_create(const struct nnc_pack_recipe *recipe, struct nnc_packer **ret_packer) {
    struct nnc_packer *packer = calloc(1, sizeof(*packer));
    if (packer == NULL) {
        return nnc_fail(-ENOMEM, "no memory for a packer");
    }
    packer->recipe = *recipe;
    int code = nnc_image_create(&packer->image);
    code = code < 0 ? code : nnc_resizer_create(NNC_SIMD_AUTO, &packer->resizer);
    code = code < 0 ? code : nnc_jpeg_writer_create(&packer->writer);
    if (code < 0) {
        nnc_packer_destroy(packer);
        return code;
    }
    *ret_packer = packer;
    return 0;
}

void nnc_packer_destroy(struct nnc_packer *packer) {
    if (packer == NULL) {
        return;
    }
    nnc_image_destroy(packer->image);
    nnc_resizer_destroy(packer->resizer);
    nnc_jpeg_writer_destroy(packer->writer);
    free(packer->made.bytes);
    free(packer->member.bytes);
    free(packer->part.bytes);
    free(packer);
}

/* ---- decoding ---- */

/* What is to be decoded into which raster. */
struct target {
    struct nnc_packer *packer;
    struct raster *raster;
    uint32_t channels;  /* of encoded images; raw ones have their own */
    uint32_t max_side;  /* 0: as it is */
    struct nnc_box box; /* width 0: all of the image */
};

static uint32_t reduce(uint32_t side, uint32_t longer, uint32_t max_side) {
    uint64_t reduced = ((uint64_t)side * max_side + longer / 2) / longer;
    return reduced < 1 ? 1 : (uint32_t)reduced;
}

/* The whole image, reduced, or a box of it as it is. */
static struct nnc_view view_of(const struct target *target, uint32_t width, uint32_t height) {
    struct nnc_view view = {.crop = {.width = width, .height = height},
                            .width = width,
                            .height = height,
                            .out_width = width,
                            .out_height = height};
    uint32_t longer = width > height ? width : height;
    if (target->box.width != 0) {
        view.left = (int32_t)target->box.left;
        view.top = (int32_t)target->box.top;
        view.out_width = target->box.width;
        view.out_height = target->box.height;
    } else if (target->max_side != 0 && longer > target->max_side) {
        view.width = view.out_width = reduce(width, longer, target->max_side);
        view.height = view.out_height = reduce(height, longer, target->max_side);
    }
    return view;
}

static int on_begin(void *context, uint32_t width, uint32_t height, struct nnc_box *ret_need) {
    struct target *target = context;
    struct raster *raster = target->raster;
    struct nnc_view view = view_of(target, width, height);
    char header[PNM_HEADER_MAX];
    raster->width = view.out_width;
    raster->height = view.out_height;
    int length = snprintf(header, sizeof(header), "P%c\n%u %u\n255\n",
                          raster->channels == 1 ? '5' : '6', raster->width, raster->height);
    raster->header = (size_t)length;
    size_t pixels = (size_t)raster->width * raster->height * raster->channels;
    int code = nnc_image_reserve(&raster->bytes, &raster->room, raster->header + pixels);
    if (code < 0) {
        return code;
    }
    memcpy(raster->bytes, header, raster->header);
    return nnc_resizer_begin(target->packer->resizer, &view, raster->channels,
                             raster->bytes + raster->header, ret_need);
}

static void on_rows(void *context, uint32_t first, uint32_t count, const uint8_t *pixels,
                    size_t stride) {
    const struct target *target = context;
    nnc_resizer_rows(target->packer->resizer, first, count, pixels, stride);
}

/* Pixels of an IDX sample are rows already. */
static int take_raw(struct target *target, const struct nnc_pack_source *source) {
    const struct nnc_index_header *header = source->header;
    size_t row_bytes = (size_t)header->width * header->channels;
    struct nnc_box need;
    if (source->size != row_bytes * header->height) {
        return nnc_fail(-NNC_E_FORMAT, "raw sample of %zu bytes is not %u x %u x %u", source->size,
                        header->height, header->width, header->channels);
    }
    target->raster->channels = header->channels;
    int code = on_begin(target, header->width, header->height, &need);
    if (code >= 0) {
        const uint8_t *first = source->bytes + need.top * row_bytes;
        on_rows(target, need.top, need.height, first + (size_t)need.left * header->channels,
                row_bytes);
    }
    return code;
}

static int decode(struct target *target, const struct nnc_pack_source *source,
                  const struct nnc_image_slice *slice) {
    if (source->header != NULL && source->header->kind == NNC_INDEX_IDX) {
        return take_raw(target, source);
    }
    target->raster->channels = target->channels;
    const struct nnc_image_sink sink = {.begin = on_begin, .rows = on_rows, .context = target};
    const struct nnc_image_job job = {
        .bytes = source->bytes,
        .size = source->size,
        .channels = target->raster->channels,
        .whole = slice == NULL,
        .sink = &sink,
        .slice = slice,
    };
    struct nnc_image_report report;
    int code = nnc_image_decode(target->packer->image, &job, &report);
    if (code >= 0 && !nnc_resizer_done(target->packer->resizer)) {
        code = nnc_fail(-NNC_E_FORMAT, "the decoder gave too few rows");
    }
    return code;
}

/* ---- making ---- */

/* Where a source's pixels go, reduced as the recipe says. */
static struct target made_target(struct nnc_packer *packer) {
    return (struct target){.packer = packer,
                           .raster = &packer->made,
                           .channels = packer->recipe.channels,
                           .max_side = packer->recipe.max_side};
}

/* Can the source be kept without decoding it to pixels? */
static bool is_lossless(const struct nnc_packer *packer) {
    return packer->recipe.kind == NNC_PACK_JPEG && nnc_pack_recipe_quality(&packer->recipe) == 0;
}

/* Do the pixels of members differ from those they are made of? */
static bool is_lossy(const struct nnc_packer *packer) {
    return nnc_pack_recipe_quality(&packer->recipe) != 0;
}

static int make_pnm(struct nnc_packer *packer, struct nnc_pack_member *ret_member) {
    const struct raster *made = &packer->made;
    *ret_member = (struct nnc_pack_member){
        .extension = made->channels == 1 ? "pgm" : "ppm",
        .bytes = made->bytes,
        .size = made->header + (size_t)made->width * made->height * made->channels};
    return 0;
}

static int make_jpeg(struct nnc_packer *packer, struct nnc_pack_member *ret_member) {
    const struct raster *made = &packer->made;
    const struct nnc_jpeg_pixels pixels = {.pixels = made->bytes + made->header,
                                           .width = made->width,
                                           .height = made->height,
                                           .channels = made->channels,
                                           .quality =
                                               (int)nnc_pack_recipe_quality(&packer->recipe)};
    struct nnc_jpeg_file file;
    int code = nnc_jpeg_encode(packer->writer, &pixels, &file);
    if (code >= 0) {
        *ret_member =
            (struct nnc_pack_member){.extension = "jpg", .bytes = file.bytes, .size = file.size};
    }
    return code;
}

/* What cannot be written again is either bad, which decoding tells, or unusual and kept. */
static int keep_jpeg(struct nnc_packer *packer, const struct nnc_pack_source *source,
                     struct nnc_pack_member *ret_member) {
    struct nnc_jpeg_file file = {.bytes = source->bytes, .size = source->size};
    int code = nnc_jpeg_transcode(packer->writer, source->bytes, source->size, &file);
    if (code == -NNC_E_FORMAT) {
        struct target target = made_target(packer);
        code = decode(&target, source, NULL);
    }
    if (code >= 0) {
        *ret_member =
            (struct nnc_pack_member){.extension = "jpg", .bytes = file.bytes, .size = file.size};
    }
    return code;
}

int nnc_packer_make(struct nnc_packer *packer, const struct nnc_pack_source *source,
                    struct nnc_pack_member *ret_member) {
    bool encoded = source->header == NULL || source->header->kind != NNC_INDEX_IDX;
    bool lossless = is_lossless(packer);
    if (encoded && lossless && nnc_jpeg_sniff(source->bytes, source->size)) {
        return keep_jpeg(packer, source, ret_member);
    }
    struct target target = made_target(packer);
    int code = decode(&target, source, NULL);
    if (code < 0) {
        return code;
    }
    if (encoded && lossless && nnc_png_sniff(source->bytes, source->size)) {
        *ret_member = (struct nnc_pack_member){
            .extension = "png", .bytes = source->bytes, .size = source->size};
        return 0;
    }
    return is_lossy(packer) ? make_jpeg(packer, ret_member) : make_pnm(packer, ret_member);
}

/* ---- proving ---- */

/* JPEG loses something, so the pixels cannot tell. The encoder makes the same bytes of the same
 * pixels each time. */
static int compare_encoded(struct nnc_packer *packer, const struct nnc_pack_source *member) {
    struct nnc_pack_member wanted;
    int code = make_jpeg(packer, &wanted);
    if (code < 0) {
        return code;
    }
    return wanted.size == member->size && memcmp(wanted.bytes, member->bytes, wanted.size) == 0
               ? 0
               : nnc_fail(-NNC_E_FORMAT, "has other bytes than its original makes: it was changed, "
                                         "or another version of libjpeg made it");
}

static int compare_whole(const struct nnc_packer *packer) {
    const struct raster *made = &packer->made, *member = &packer->member;
    if (made->width != member->width || made->height != member->height ||
        made->channels != member->channels) {
        return nnc_fail(-NNC_E_FORMAT, "packed as %u x %u x %u, should be %u x %u x %u",
                        member->width, member->height, member->channels, made->width, made->height,
                        made->channels);
    }
    size_t pixels = (size_t)made->width * made->height * made->channels;
    if (!is_lossy(packer) &&
        memcmp(made->bytes + made->header, member->bytes + member->header, pixels) != 0) {
        return nnc_fail(-NNC_E_FORMAT, "the packed pixels differ from the original's");
    }
    return 0;
}

static struct nnc_box choose_box(const struct raster *whole, uint64_t number) {
    struct nnc_rng rng = nnc_rng_make(number, NNC_RNG_SYNTHETIC, 0, 0);
    struct nnc_box box = {.width = 1 + nnc_rng_below(&rng, whole->width),
                          .height = 1 + nnc_rng_below(&rng, whole->height)};
    box.left = nnc_rng_below(&rng, whole->width - box.width + 1);
    box.top = nnc_rng_below(&rng, whole->height - box.height + 1);
    return box;
}

static int compare_part(const struct nnc_packer *packer, const struct nnc_box *box) {
    const struct raster *whole = &packer->member, *part = &packer->part;
    size_t channels = whole->channels;
    for (uint32_t y = 0; y < box->height; y++) {
        const uint8_t *there = whole->bytes + whole->header +
                               ((size_t)(box->top + y) * whole->width + box->left) * channels;
        const uint8_t *here = part->bytes + part->header + (size_t)y * box->width * channels;
        if (memcmp(here, there, box->width * channels) != 0) {
            return nnc_fail(-NNC_E_FORMAT, "a slice of the packed image differs from the whole");
        }
    }
    return 0;
}

static int answer_box(void *context, uint32_t width, uint32_t height, struct nnc_box *ret_need) {
    const struct target *target = context;
    struct nnc_view view = view_of(target, width, height);
    *ret_need = nnc_resizer_need(&view);
    return 0;
}

/* Decode the box from its slice; members that cannot be cut are decoded from all bytes. */
static int decode_part(struct nnc_packer *packer, const struct nnc_pack_source *member,
                       const struct nnc_box *box) {
    struct target target = {.packer = packer,
                            .raster = &packer->part,
                            .channels = packer->member.channels,
                            .box = *box};
    size_t peek = member->size < NNC_SLICED_PEEK ? member->size : NNC_SLICED_PEEK;
    uint32_t head_size = nnc_sliced_head(member->bytes, peek, member->size);
    const struct nnc_image_part head = {.bytes = member->bytes, .size = head_size};
    const struct nnc_image_asker asker = {.box = answer_box, .context = &target};
    struct nnc_image_range range;
    if (head_size == 0 || nnc_image_find_slice(&head, member->size, &asker, &range) == 0) {
        return decode(&target, member, NULL);
    }
    const struct nnc_image_slice slice = {
        .rest = {.bytes = member->bytes + range.first, .size = range.bytes, .first = range.first},
        .total = member->size};
    const struct nnc_pack_source cut = {.bytes = member->bytes, .size = head_size};
    return decode(&target, &cut, &slice);
}

int nnc_packer_verify(struct nnc_packer *packer, const struct nnc_pack_source *source,
                      const struct nnc_pack_source *member, uint64_t number) {
    struct target made = made_target(packer);
    int code = decode(&made, source, NULL);
    struct target whole = {
        .packer = packer, .raster = &packer->member, .channels = packer->made.channels};
    code = code < 0 ? code : decode(&whole, member, NULL);
    code = code < 0 ? code : compare_whole(packer);
    code = code >= 0 && is_lossy(packer) ? compare_encoded(packer, member) : code;
    if (code >= 0) {
        struct nnc_box box = choose_box(&packer->member, number);
        code = decode_part(packer, member, &box);
        code = code < 0 ? code : compare_part(packer, &box);
    }
    return code;
}
