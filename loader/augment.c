/* SPDX-License-Identifier: Apache-2.0 */
/* torchvision's recipes as geometry.
 *
 *   RANDOM_RESIZED_CROP   crop at random -> size x size -> flip
 *   PADDED_CROP           size x size -> window that may hang over the edges -> flip
 *   EVAL                  resize the shorter side -> window in the middle
 *
 * 1. Each is one struct nnc_view, so crop, resize, padding and flip cost one pass over the pixels.
 * 2. Draws come in a fixed order from the sample's own stream: the view depends on nothing else.
 * 3. Rounding follows Python: round() is half to even, // rounds down, int() cuts.
 *
 * Does not: read pixels, choose samples. */
#include "loader/augment.h"

#include <assert.h>
#include <math.h>

enum {
    TRIES = 10, /* of RandomResizedCrop, before the central crop is taken */
};

struct nnc_augment nnc_augment_make(const struct nnc_config *config, enum nnc_phase phase) {
    bool train = phase == NNC_PHASE_TRAIN;
    return (struct nnc_augment){
        .transform = train ? (enum nnc_transform)config->train_transform : NNC_TRANSFORM_EVAL,
        .size = train ? config->train_crop_size : config->val_crop_size,
        .resize_size = config->val_resize_size,
        .padding = config->crop_padding,
        .hflip_prob = (float)config->hflip_prob,
        .scale_min = config->crop_scale_min,
        .scale_max = config->crop_scale_max,
        .ratio_min = config->crop_ratio_min,
        .ratio_max = config->crop_ratio_max,
    };
}

static float uniform_between(struct nnc_rng *rng, float low, float high) {
    return nnc_rng_uniform(rng) * (high - low) + low;
}

/* The crop when no try fits: as much of the middle as the bounds of the ratio allow. */
static struct nnc_box central_crop(const struct nnc_augment *augment, uint32_t width,
                                   uint32_t height) {
    double ratio = (double)width / height;
    double crop_width = width, crop_height = height;
    if (ratio < augment->ratio_min) {
        crop_height = rint(width / augment->ratio_min);
    } else if (ratio > augment->ratio_max) {
        crop_width = rint(height * augment->ratio_max);
    }
    /* Rounding can neither reach 0 nor leave the image for sane ratios; hold it there for all
     * others. */
    crop_width = fmin(fmax(crop_width, 1), width);
    crop_height = fmin(fmax(crop_height, 1), height);
    struct nnc_box box = {.width = (uint32_t)crop_width, .height = (uint32_t)crop_height};
    box.left = (width - box.width) / 2;
    box.top = (height - box.height) / 2;
    return box;
}

static struct nnc_box random_crop(const struct nnc_augment *augment, uint32_t width,
                                  uint32_t height, struct nnc_rng *rng) {
    double area = (double)width * height;
    float log_min = logf((float)augment->ratio_min), log_max = logf((float)augment->ratio_max);
    for (int i = 0; i < TRIES; i++) {
        double target =
            area * uniform_between(rng, (float)augment->scale_min, (float)augment->scale_max);
        double ratio = expf(uniform_between(rng, log_min, log_max));
        double crop_width = rint(sqrt(target * ratio));
        double crop_height = rint(sqrt(target / ratio));
        if (crop_width >= 1 && crop_width <= width && crop_height >= 1 && crop_height <= height) {
            struct nnc_box box = {.width = (uint32_t)crop_width, .height = (uint32_t)crop_height};
            box.top = nnc_rng_below(rng, height - box.height + 1);
            box.left = nnc_rng_below(rng, width - box.width + 1);
            return box;
        }
    }
    return central_crop(augment, width, height);
}

static struct nnc_view random_resized_crop(const struct nnc_augment *augment, uint32_t width,
                                           uint32_t height, struct nnc_rng *rng) {
    struct nnc_box crop = random_crop(augment, width, height, rng); /* draws before the flip does */
    return (struct nnc_view){
        .crop = crop,
        .width = augment->size,
        .height = augment->size,
        .out_width = augment->size,
        .out_height = augment->size,
        .flip = nnc_rng_uniform(rng) < augment->hflip_prob,
    };
}

static struct nnc_view padded_crop(const struct nnc_augment *augment, uint32_t width,
                                   uint32_t height, struct nnc_rng *rng) {
    int32_t padding = (int32_t)augment->padding;
    struct nnc_view view = {
        .crop = {.width = width, .height = height},
        .width = augment->size,
        .height = augment->size,
        .out_width = augment->size,
        .out_height = augment->size,
    };
    view.top = (int32_t)nnc_rng_below(rng, 2 * augment->padding + 1) - padding;
    view.left = (int32_t)nnc_rng_below(rng, 2 * augment->padding + 1) - padding;
    view.flip = nnc_rng_uniform(rng) < augment->hflip_prob;
    return view;
}

/* Place of a window of `size` in the middle of `length`; negative when it hangs over. */
static int32_t centre(uint32_t length, uint32_t size) {
    if (length >= size) {
        return (int32_t)rint(((double)length - size) / 2.0);
    }
    return -(int32_t)((size - length) / 2);
}

static struct nnc_view evaluation(const struct nnc_augment *augment, uint32_t width,
                                  uint32_t height) {
    uint32_t shorter = width <= height ? width : height;
    uint32_t longer = width <= height ? height : width;
    double product = (double)augment->resize_size * longer;
    uint32_t new_longer = (uint32_t)(product / shorter);
    struct nnc_view view = {
        .crop = {.width = width, .height = height},
        .width = width <= height ? augment->resize_size : new_longer,
        .height = width <= height ? new_longer : augment->resize_size,
        .out_width = augment->size,
        .out_height = augment->size,
    };
    view.left = centre(view.width, augment->size);
    view.top = centre(view.height, augment->size);
    return view;
}

struct nnc_view nnc_augment_view(const struct nnc_augment *augment, uint32_t width, uint32_t height,
                                 struct nnc_rng rng) {
    assert(width >= 1 && height >= 1 && augment->size >= 1);
    switch (augment->transform) {
    case NNC_TRANSFORM_RANDOM_RESIZED_CROP:
        return random_resized_crop(augment, width, height, &rng);
    case NNC_TRANSFORM_PADDED_CROP:
        return padded_crop(augment, width, height, &rng);
    case NNC_TRANSFORM_EVAL:
        break;
    }
    return evaluation(augment, width, height);
}
