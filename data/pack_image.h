/* SPDX-License-Identifier: Apache-2.0 */
/* One image on its way into a shard: from the bytes of its file to those of a member, and the proof
 * that both show the same. */
#ifndef NNC_DATA_PACK_IMAGE_H
#define NNC_DATA_PACK_IMAGE_H

#include "base/config.h"
#include "ipc/index.h"

#include <stddef.h>
#include <stdint.h>

/* What members are made of. */
struct nnc_pack_recipe {
    enum nnc_pack_kind kind;
    uint32_t max_side; /* longer sides are reduced to this; 0: none */
    uint32_t quality;  /* of JPEG; 0: without loss, where max_side leaves that possible */
    uint32_t channels; /* of pixels that are stored anew: 1 or 3 */
};

/* The quality that JPEGs are encoded anew with; 0: none is, pixels are stored or nothing is lost.
 */
uint32_t nnc_pack_recipe_quality(const struct nnc_pack_recipe *recipe);

/* A file's bytes, or a member's. For IDX they are the pixels that the index's header describes. */
struct nnc_pack_source {
    const struct nnc_index_header *header; /* NULL: an encoded image */
    const uint8_t *bytes;                  /* NNC_IMAGE_ROW_SLACK readable ones follow; hostile */
    size_t size;
};

/* A member; the bytes are the packer's and stay until its next call. */
struct nnc_pack_member {
    const char *extension; /* "jpg", "png", "ppm" or "pgm" */
    const uint8_t *bytes;
    size_t size;
};

struct nnc_packer;

/* A packer for one image after the other. Errors: -ENOMEM. */
int nnc_packer_create(const struct nnc_pack_recipe *recipe, struct nnc_packer **ret_packer);

/* Free it. Takes NULL. */
void nnc_packer_destroy(struct nnc_packer *packer);

/* Make the member of a source. Lossless JPEG: the same coefficients, restart-indexed; PNG stays as
 * it is; other images become PNM. Else pixels are decoded, reduced with the loader's antialiased
 * filter and stored as restart-indexed JPEG or as PNM.
 * Errors: -NNC_E_FORMAT the image is bad; -ENOMEM. */
int nnc_packer_make(struct nnc_packer *packer, const struct nnc_pack_source *source,
                    struct nnc_pack_member *ret_member);

/* Decode source and member whole and compare them: pixel by pixel where nothing may be lost; else
 * make the member of the source again and compare the bytes. Then decode a part of the member,
 * chosen by `number`, from the slice that it needs, and compare that with the whole. Errors:
 * -NNC_E_FORMAT they differ, or the member cannot be decoded; -ENOMEM. */
int nnc_packer_verify(struct nnc_packer *packer, const struct nnc_pack_source *source,
                      const struct nnc_pack_source *member, uint64_t number);

#endif
