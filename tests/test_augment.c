/* SPDX-License-Identifier: Apache-2.0 */
/* Views: bounds and distributions of the random ones, torchvision's numbers for the evaluation. */
#include "loader/augment.h"

#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

static struct nnc_rng stream(uint64_t k) {
    return nnc_rng_make(1234, NNC_RNG_AUGMENT, 0, k);
}

static struct nnc_augment recipe(enum nnc_transform transform) {
    return (struct nnc_augment){
        .transform = transform,
        .size = 224,
        .resize_size = 256,
        .padding = 4,
        .hflip_prob = 0.5f,
        .scale_min = 0.08,
        .scale_max = 1.0,
        .ratio_min = 3.0 / 4.0,
        .ratio_max = 4.0 / 3.0,
    };
}

Test(augment, random_resized_crops_stay_inside_and_keep_their_bounds) {
    const struct nnc_augment augment = recipe(NNC_TRANSFORM_RANDOM_RESIZED_CROP);
    double area_sum = 0, log_ratio_sum = 0;
    uint32_t flips = 0, draws = 20000;
    for (uint32_t k = 0; k < draws; k++) {
        struct nnc_view view = nnc_augment_view(&augment, 1000, 1000, stream(k));
        const struct nnc_box *crop = &view.crop;
        cr_assert_leq(crop->left + crop->width, 1000);
        cr_assert_leq(crop->top + crop->height, 1000);
        double area = (double)crop->width * crop->height / 1e6;
        double ratio = (double)crop->width / crop->height;
        cr_assert(area > 0.078 && area <= 1.0, "k %u: area %g", k, area);
        cr_assert(ratio > 0.745 && ratio < 1.345, "k %u: ratio %g", k, ratio);
        cr_assert(view.width == 224 && view.height == 224 && view.left == 0 && view.top == 0);
        area_sum += area;
        log_ratio_sum += log(ratio);
        flips += view.flip;
    }
    /* Large areas are drawn again when they do not fit; torchvision has 0.476 on as many draws. */
    cr_expect(area_sum / draws > 0.47 && area_sum / draws < 0.487, "mean area %g",
              area_sum / draws);
    cr_expect(fabs(log_ratio_sum / draws) < 0.01, "mean log ratio %g", log_ratio_sum / draws);
    cr_expect(flips > draws * 0.48 && flips < draws * 0.52, "%u flips", flips);
}

Test(augment, an_image_too_narrow_for_any_try_gets_the_central_crop) {
    const struct nnc_augment augment = recipe(NNC_TRANSFORM_RANDOM_RESIZED_CROP);
    static const struct {
        uint32_t width, height;
        struct nnc_box crop;
    } rows[] = {
        /* torchvision: w = width, h = round(w / (3/4)), centred with // */
        {3, 1000, {0, 498, 3, 4}},
        {1000, 3, {498, 0, 4, 3}},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        uint32_t central = 0;
        for (uint64_t k = 0; k < 200; k++) {
            struct nnc_view view =
                nnc_augment_view(&augment, rows[i].width, rows[i].height, stream(k));
            central += memcmp(&view.crop, &rows[i].crop, sizeof(view.crop)) == 0;
        }
        cr_expect_gt(central, 190, "row %zu: %u", i, central);
    }
}

Test(augment, tiny_images_and_odd_bounds_never_leave_the_image) {
    struct nnc_augment augment = recipe(NNC_TRANSFORM_RANDOM_RESIZED_CROP);
    static const double ratios[][2] = {{0.01, 0.02}, {50, 100}, {1, 1}, {0.75, 4.0 / 3.0}};
    for (size_t r = 0; r < sizeof(ratios) / sizeof(ratios[0]); r++) {
        augment.ratio_min = ratios[r][0];
        augment.ratio_max = ratios[r][1];
        for (uint32_t size = 0; size < 64; size++) {
            uint32_t width = size % 8 + 1, height = size / 8 + 1;
            struct nnc_view view = nnc_augment_view(&augment, width, height, stream(size));
            cr_assert(view.crop.width >= 1 && view.crop.left + view.crop.width <= width);
            cr_assert(view.crop.height >= 1 && view.crop.top + view.crop.height <= height);
        }
    }
}

Test(augment, padded_crops_use_every_place_equally) {
    struct nnc_augment augment = recipe(NNC_TRANSFORM_PADDED_CROP);
    augment.size = 32;
    uint32_t seen[9][9] = {{0}};
    uint32_t draws = 81 * 200;
    for (uint32_t k = 0; k < draws; k++) {
        struct nnc_view view = nnc_augment_view(&augment, 32, 32, stream(k));
        cr_assert(view.left >= -4 && view.left <= 4 && view.top >= -4 && view.top <= 4);
        cr_assert(view.width == 32 && view.height == 32 && view.crop.width == 32);
        seen[view.top + 4][view.left + 4]++;
    }
    for (int i = 0; i < 81; i++) {
        cr_expect(seen[i / 9][i % 9] > 140 && seen[i / 9][i % 9] < 260, "place %d: %u", i,
                  seen[i / 9][i % 9]);
    }
}

Test(augment, evaluation_has_the_numbers_of_torchvision) {
    /* Resize(resize) of a width x height image, then CenterCrop(size): resized size and window, by
     * torchvision 0.29 (functional.resize, functional.center_crop). */
    static const struct {
        uint32_t width, height, resize, size, new_width, new_height;
        int32_t left, top;
    } rows[] = {
        {500, 375, 256, 224, 341, 256, 58, 16}, {375, 500, 256, 224, 256, 341, 16, 58},
        {500, 333, 256, 224, 384, 256, 80, 16}, {331, 500, 256, 224, 256, 386, 16, 81},
        {28, 28, 28, 28, 28, 28, 0, 0},         {32, 32, 32, 28, 32, 32, 2, 2},
        {100, 101, 50, 47, 50, 50, 2, 2},       {10, 10, 10, 15, 10, 10, -2, -2},
        {40, 10, 10, 15, 40, 10, 12, -2},       {41, 10, 10, 16, 41, 10, 12, -3},
        {43, 10, 10, 16, 43, 10, 14, -3},       {1, 65500, 2, 2, 2, 131000, 0, 65499},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct nnc_augment augment = recipe(NNC_TRANSFORM_EVAL);
        augment.resize_size = rows[i].resize;
        augment.size = rows[i].size;
        struct nnc_view view = nnc_augment_view(&augment, rows[i].width, rows[i].height, stream(i));
        cr_expect(view.width == rows[i].new_width && view.height == rows[i].new_height,
                  "row %zu: %u x %u", i, view.width, view.height);
        cr_expect(view.left == rows[i].left && view.top == rows[i].top, "row %zu: %d, %d", i,
                  view.left, view.top);
        cr_expect(!view.flip && view.crop.width == rows[i].width);
    }
}

Test(augment, validation_is_always_the_evaluation_recipe) {
    struct nnc_config config;
    memset(&config, 0, sizeof(config));
    config.train_transform = NNC_TRANSFORM_PADDED_CROP;
    config.train_crop_size = 32;
    config.val_crop_size = 30;
    config.val_resize_size = 36;
    struct nnc_augment train = nnc_augment_make(&config, NNC_PHASE_TRAIN);
    struct nnc_augment val = nnc_augment_make(&config, NNC_PHASE_VAL);
    cr_expect(train.transform == NNC_TRANSFORM_PADDED_CROP && train.size == 32);
    cr_expect(val.transform == NNC_TRANSFORM_EVAL && val.size == 30 && val.resize_size == 36);
}
