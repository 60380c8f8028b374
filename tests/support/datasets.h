/* SPDX-License-Identifier: Apache-2.0 */
/* Small data sets that tests make themselves; learnable, so that a falling loss means something. */
#ifndef NNC_TESTS_DATASETS_H
#define NNC_TESTS_DATASETS_H

#include <stdint.h>

/* MNIST-like IDX files in `folder` (made): `train` and `val` images of 28 x 28 grey, 10 classes,
 * each class a blurred bar at its own place plus noise. */
void dataset_make_idx(const char *folder, uint32_t train, uint32_t val);

/* Options of a training on them. */
#define DATASET_IDX_OPTIONS                                                                        \
    "--train-crop-size", "28", "--val-crop-size", "28", "--val-resize-size", "28",                 \
        "--train-transform", "padded-crop", "--mean", "0.5", "--std", "0.25"

/* Class folders folder/{train,val}/cN/ with JPEGs of varying size around `side`; per_class images
 * each. */
void dataset_make_jpeg(const char *folder, uint32_t classes, uint32_t train_per_class,
                       uint32_t val_per_class, uint32_t side);

#endif
