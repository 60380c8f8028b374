/* SPDX-License-Identifier: Apache-2.0 */
/* From a sample's bytes to its pixels in the ring: decode, augment, resize, store. */
#ifndef NNC_LOADER_MAKER_H
#define NNC_LOADER_MAKER_H

#include "ipc/index.h"
#include "loader/augment.h"
#include "loader/image.h"
#include "loader/sampler.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct nnc_maker_params {
    uint64_t seed;
    struct nnc_augment augment[2]; /* by enum nnc_phase */
    uint32_t channels;             /* of the samples made, 1 or 3 */
    enum nnc_simd simd;            /* instructions for resizing */
    bool fast;                     /* let images be reduced while they are decoded */
    bool whole; /* look at every byte of an image, also where no pixel is needed */
};

/* What one sample cost. */
struct nnc_maker_cost {
    uint64_t decode_ns;
    uint64_t transform_ns; /* resize, crop, flip, store */
    uint32_t warnings;     /* faults in the image that do not make it bad */
};

/* How the last sample was cut out of its image. width 0: the image's size never became known. */
struct nnc_maker_cut {
    uint32_t width, height; /* of the image */
    struct nnc_view view;
};

struct nnc_maker;

/* Decoders, resizer and their buffers, for one sample after the other. Errors: -ENOMEM;
 * -NNC_E_USAGE this CPU lacks params->simd. */
int nnc_maker_create(const struct nnc_maker_params *params, struct nnc_maker **ret_maker);

/* Free it. Takes NULL. */
void nnc_maker_destroy(struct nnc_maker *maker);

/* From the head of an image of total bytes, which others its sample needs: see
 * nnc_image_find_slice(). Pure. Returns 1 with *ret_range, 0: read the whole image. */
int nnc_maker_find_slice(struct nnc_maker *maker, const struct nnc_sampler_place *place,
                         const struct nnc_image_part *head, uint64_t total,
                         struct nnc_image_range *ret_range);

/* The bytes of a sample as they were read. */
struct nnc_maker_bytes {
    const uint8_t *bytes; /* the file, or its head; NNC_IMAGE_ROW_SLACK readable ones follow */
    size_t size;
    const struct nnc_image_slice *slice; /* NULL: bytes are the whole file */
};

/* Make one sample of the bytes that were read.
 * Shape:  pixels u8 (size, size, channels) of the phase's recipe, rows packed. header: of the
 * sample's index: kind, and the shape of raw samples. Pure:   the pixels depend on (params, header,
 * place, bytes) alone. Errors: -NNC_E_FORMAT the sample is bad, pixels are then undefined; -ENOMEM.
 */
int nnc_maker_make(struct nnc_maker *maker, const struct nnc_index_header *header,
                   const struct nnc_sampler_place *place, const struct nnc_maker_bytes *bytes,
                   uint8_t *pixels);

/* What the last nnc_maker_make() cost. */
struct nnc_maker_cost nnc_maker_cost(const struct nnc_maker *maker);

/* The view that the last nnc_maker_make() drew, also of an image that turned out bad later. */
struct nnc_maker_cut nnc_maker_cut(const struct nnc_maker *maker);

/* Fill a sample that cannot be made with grey. */
void nnc_maker_grey(const struct nnc_maker *maker, enum nnc_phase phase, uint8_t *pixels);

#endif
