/* SPDX-License-Identifier: Apache-2.0 */
/* Which view of an image becomes the sample: torchvision's transforms as pure functions of the
 * image's size and of random draws. Nothing here touches pixels. */
#ifndef NNC_LOADER_AUGMENT_H
#define NNC_LOADER_AUGMENT_H

#include "base/config.h"
#include "base/rng.h"
#include "ipc/schedule.h"
#include "loader/resize.h"

#include <stdint.h>

/* The recipe of one phase. */
struct nnc_augment {
    enum nnc_transform transform;
    uint32_t size;        /* height and width of the sample */
    uint32_t resize_size; /* EVAL: shorter side before the centre crop */
    uint32_t padding;     /* PADDED_CROP */
    float hflip_prob;
    double scale_min, scale_max; /* RANDOM_RESIZED_CROP: share of the area */
    double ratio_min, ratio_max; /* RANDOM_RESIZED_CROP: width / height */
};

/* The recipe that a configuration asks for in a phase. Validation is always EVAL. */
struct nnc_augment nnc_augment_make(const struct nnc_config *config, enum nnc_phase phase);

/* The view of an image of width x height (each >= 1). rng: the sample's own stream (seed, AUGMENT,
 * epoch, k), passed by value; EVAL draws nothing. Draws:  RANDOM_RESIZED_CROP: per try one uniform
 * for the area, one for the ratio; when the try fits, below() for the top, below() for the left.
 * PADDED_CROP: below() for the top, below() for the left. Both then one uniform for the flip. Math:
 * as torchvision 0.29: area in double times a float32 uniform; exp of a float32 uniform between the
 * logarithms of the ratios; sides rounded half to even; ten tries, then the central crop.
 *         PADDED_CROP: resize to size x size where the image is not that, then RandomCrop(size,
 * padding). EVAL: Resize(resize_size) with the longer side cut to an integer, then
 * CenterCrop(size). Source: torchvision/transforms: RandomResizedCrop.get_params, RandomCrop,
 * resize, center_crop. */
struct nnc_view nnc_augment_view(const struct nnc_augment *augment, uint32_t width, uint32_t height,
                                 struct nnc_rng rng);

#endif
