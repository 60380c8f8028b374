/* SPDX-License-Identifier: Apache-2.0 */
/* Making samples: what --decode fast changes, and what it does not. */
#include "data/jpeg_write.h"
#include "loader/maker.h"

#include "base/err.h"
#include "tests/support/image_fixture.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

enum {
    SIDE = 56,
    BYTES = SIDE * SIDE * 3,
};

static const struct nnc_index_header folder = {.kind = NNC_INDEX_FOLDER};

static struct nnc_maker *create(bool fast) {
    const struct nnc_augment train = {.transform = NNC_TRANSFORM_RANDOM_RESIZED_CROP,
                                      .size = SIDE,
                                      .hflip_prob = 0.5f,
                                      .scale_min = 0.08,
                                      .scale_max = 1,
                                      .ratio_min = 0.75,
                                      .ratio_max = 4.0 / 3.0};
    const struct nnc_augment val = {
        .transform = NNC_TRANSFORM_EVAL, .size = SIDE, .resize_size = SIDE + 8};
    const struct nnc_maker_params params = {
        .seed = 3, .augment = {train, val}, .channels = 3, .fast = fast};
    struct nnc_maker *maker = NULL;
    cr_assert_eq(nnc_maker_create(&params, &maker), 0);
    return maker;
}

static void make(struct nnc_maker *maker, const struct fixture_file *file,
                 const struct nnc_sampler_place *place, uint8_t *ret_pixels) {
    const struct nnc_maker_bytes bytes = {.bytes = file->bytes, .size = file->size};
    cr_assert_eq(nnc_maker_make(maker, &folder, place, &bytes, ret_pixels), 0, "%s",
                 nnc_error_text());
}

/* Mean difference in levels. */
static double difference(const uint8_t *left, const uint8_t *right) {
    double sum = 0;
    for (int i = 0; i < BYTES; i++) {
        sum += abs(left[i] - right[i]);
    }
    return sum / BYTES;
}

static struct fixture_file picture(uint32_t width, uint32_t height, bool indexed) {
    const struct fixture_jpeg how = {
        .width = width, .height = height, .colour = FIXTURE_YCC, .h_samples = 2, .v_samples = 2};
    struct fixture_file file = fixture_jpeg_write(&how);
    if (!indexed) {
        return file;
    }
    struct nnc_jpeg_writer *writer;
    struct nnc_jpeg_file made;
    cr_assert_eq(nnc_jpeg_writer_create(&writer), 0);
    cr_assert_eq(nnc_jpeg_transcode(writer, file.bytes, file.size, &made), 0);
    struct fixture_file copy = fixture_file_copy(made.bytes, made.size);
    nnc_jpeg_writer_destroy(writer);
    fixture_free(&file);
    return copy;
}

Test(maker, decoding_fast_draws_the_same_views_and_nearly_the_same_pixels) {
    struct nnc_maker *exact = create(false), *fast = create(true);
    static uint8_t left[BYTES], right[BYTES];
    unsigned changed = 0;
    for (int indexed = 0; indexed < 2; indexed++) {
        struct fixture_file file = picture(701, 530, indexed == 1);
        for (uint64_t k = 0; k < 60; k++) {
            const struct nnc_sampler_place place = {
                .phase = k % 3 == 0 ? NNC_PHASE_VAL : NNC_PHASE_TRAIN, .k = k};
            make(exact, &file, &place, left);
            make(fast, &file, &place, right);
            struct nnc_maker_cut one = nnc_maker_cut(exact), two = nnc_maker_cut(fast);
            cr_assert_eq(memcmp(&one.view.crop, &two.view.crop, sizeof(one.view.crop)), 0);
            cr_assert_eq(one.view.flip, two.view.flip);
            changed += memcmp(left, right, BYTES) != 0 ? 1 : 0;
            cr_assert_lt(difference(left, right), 12.0, "sample %lu", (unsigned long)k);
        }
        fixture_free(&file);
    }
    cr_assert_gt(changed, 60, "nothing was decoded at a smaller size");
    nnc_maker_destroy(exact);
    nnc_maker_destroy(fast);
}

Test(maker, decoding_fast_changes_nothing_where_nothing_is_halved) {
    struct nnc_maker *exact = create(false), *fast = create(true);
    static uint8_t left[BYTES], right[BYTES];
    struct fixture_file file = picture(2 * SIDE - 1, 2 * SIDE - 1, false);
    for (uint64_t k = 0; k < 20; k++) {
        const struct nnc_sampler_place place = {.phase = NNC_PHASE_TRAIN, .k = k};
        make(exact, &file, &place, left);
        make(fast, &file, &place, right);
        cr_assert_eq(memcmp(left, right, BYTES), 0, "sample %lu", (unsigned long)k);
    }
    fixture_free(&file);
    nnc_maker_destroy(exact);
    nnc_maker_destroy(fast);
}

Test(maker, a_slice_decoded_fast_equals_the_file_decoded_fast) {
    struct nnc_maker *fast = create(true);
    static uint8_t left[BYTES], right[BYTES];
    struct fixture_file file = picture(997, 1203, true);
    for (uint64_t k = 0; k < 40; k++) {
        const struct nnc_sampler_place place = {.phase = NNC_PHASE_TRAIN, .k = k};
        make(fast, &file, &place, left);
        const struct nnc_image_part head = {.bytes = file.bytes, .size = 10000};
        struct nnc_image_range range;
        cr_assert_eq(nnc_maker_find_slice(fast, &place, &head, file.size, &range), 1);
        const struct nnc_image_slice slice = {
            .rest = {.bytes = file.bytes + range.first, .size = range.bytes, .first = range.first},
            .total = file.size};
        const struct nnc_maker_bytes bytes = {
            .bytes = file.bytes, .size = head.size, .slice = &slice};
        cr_assert_eq(nnc_maker_make(fast, &folder, &place, &bytes, right), 0, "%s",
                     nnc_error_text());
        cr_assert_eq(memcmp(left, right, BYTES), 0, "sample %lu", (unsigned long)k);
    }
    fixture_free(&file);
    nnc_maker_destroy(fast);
}
