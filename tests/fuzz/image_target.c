/* SPDX-License-Identifier: Apache-2.0 */
/* The loader's whole way from hostile bytes to pixels: decoder, view, resizer. One decoder serves
 * all inputs of the process, as in a loader, so that damage left behind by one shows in the next.
 */
#include "tests/fuzz/image_target.h"

#include "base/err.h"
#include "loader/augment.h"
#include "loader/image.h"
#include "loader/resize.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
    SIDE = 24,
    PIXELS_MAX = 4000000, /* larger images are legal, but too slow to try millions of */
};

struct sample {
    struct nnc_resizer *resizer;
    uint32_t channels;
    uint64_t k;
    uint8_t pixels[SIDE * SIDE * 3];
};

static int on_begin(void *context, uint32_t width, uint32_t height, struct nnc_box *ret_need) {
    struct sample *sample = context;
    if ((uint64_t)width * height > PIXELS_MAX) {
        return -E2BIG;
    }
    const struct nnc_augment augment = {
        .transform = NNC_TRANSFORM_RANDOM_RESIZED_CROP,
        .size = SIDE,
        .hflip_prob = 0.5f,
        .scale_min = 0.08,
        .scale_max = 1,
        .ratio_min = 0.75,
        .ratio_max = 4.0 / 3.0,
    };
    struct nnc_rng rng = nnc_rng_make(1, NNC_RNG_AUGMENT, 0, sample->k);
    struct nnc_view view = nnc_augment_view(&augment, width, height, rng);
    return nnc_resizer_begin(sample->resizer, &view, sample->channels, sample->pixels, ret_need);
}

static void on_rows(void *context, uint32_t first, uint32_t count, const uint8_t *pixels,
                    size_t stride) {
    const struct sample *sample = context;
    nnc_resizer_rows(sample->resizer, first, count, pixels, stride);
}

void image_target_run(const uint8_t *data, size_t bytes) {
    static struct nnc_image *image;
    static struct sample sample;
    if (image == NULL &&
        (nnc_image_create(&image) < 0 || nnc_resizer_create(NNC_SIMD_AUTO, &sample.resizer) < 0)) {
        abort();
    }
    uint8_t *copy = malloc(bytes + NNC_IMAGE_ROW_SLACK);
    assert(copy != NULL);
    memcpy(copy, data, bytes);
    memset(copy + bytes, 0, NNC_IMAGE_ROW_SLACK);
    for (int turn = 0; turn < 4; turn++) {
        const struct nnc_image_sink sink = {.begin = on_begin, .rows = on_rows, .context = &sample};
        sample.channels = turn % 2 == 0 ? 3 : 1;
        sample.k = bytes;
        const struct nnc_image_job job = {copy, bytes, sample.channels, turn < 2, &sink};
        struct nnc_image_report report;
        int code = nnc_image_decode(image, &job, &report);
        assert(code == 0 || code == -NNC_E_FORMAT || code == -ENOMEM || code == -E2BIG);
        assert(code < 0 || nnc_resizer_done(sample.resizer));
    }
    free(copy);
}
