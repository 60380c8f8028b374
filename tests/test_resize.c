/* SPDX-License-Identifier: Apache-2.0 */
/* The resizer against Pillow's results, against convolution in doubles, and against itself. */
#include "loader/resize.h"

#include "base/err.h"
#include "base/rng.h"
#include "support/image_fixture.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    GUARD = 64, /* bytes around the output that must stay as they are */
    MARK = 0xa5,
};

/* An image in memory, with slack behind it. */
struct source {
    uint32_t width, height, channels;
    uint8_t *data;
};

static struct source make_source(uint32_t width, uint32_t height, uint32_t channels) {
    struct source source = {width, height, channels, NULL};
    size_t bytes = (size_t)width * height * channels;
    source.data = malloc(bytes + NNC_IMAGE_ROW_SLACK);
    for (size_t i = 0; i < bytes; i++) {
        size_t pixel = i / channels;
        source.data[i] = fixture_pattern((uint32_t)(pixel % width), (uint32_t)(pixel / width),
                                         (uint32_t)(i % channels));
    }
    memset(source.data + bytes, 0xff, NNC_IMAGE_ROW_SLACK);
    return source;
}

/* Resize with rows given `chunk` at a time; the caller frees the result. */
static uint8_t *resize(struct nnc_resizer *resizer, const struct source *source,
                       const struct nnc_view *view, uint32_t chunk) {
    size_t bytes = (size_t)view->out_width * view->out_height * source->channels;
    uint8_t *block = malloc(bytes + 2 * GUARD);
    memset(block, MARK, bytes + 2 * GUARD);
    struct nnc_box need;
    cr_assert_eq(nnc_resizer_begin(resizer, view, source->channels, block + GUARD, &need), 0);
    cr_assert(need.width >= 1 && need.height >= 1);
    cr_assert_leq(need.left + need.width, source->width);
    cr_assert_leq(need.top + need.height, source->height);
    size_t stride = (size_t)source->width * source->channels;
    for (uint32_t y = 0; y < need.height; y += chunk) {
        uint32_t count = need.height - y < chunk ? need.height - y : chunk;
        nnc_resizer_rows(resizer, need.top + y, count,
                         source->data + (need.top + y) * stride + need.left * source->channels,
                         stride);
    }
    cr_assert(nnc_resizer_done(resizer));
    for (int i = 0; i < GUARD; i++) {
        cr_assert(block[i] == MARK && block[GUARD + bytes + (size_t)i] == MARK, "guard byte %d", i);
    }
    memmove(block, block + GUARD, bytes);
    return block;
}

static const char *const kernel_names[] = {"c", "avx2", "avx512"};
static const enum nnc_simd kernel_simds[] = {NNC_SIMD_C, NNC_SIMD_AVX2, NNC_SIMD_AVX512};
#define KERNELS (sizeof(kernel_names) / sizeof(kernel_names[0]))

/* A resizer with the n-th kernels, or NULL when this CPU lacks them. */
static struct nnc_resizer *create(size_t kernels) {
    struct nnc_resizer *resizer = NULL;
    if (nnc_resizer_create(kernel_simds[kernels], &resizer) < 0) {
        cr_assert_neq(kernels, 0, "the plain kernels are always there");
        cr_assert_not_null(strstr(nnc_error_text(), "this CPU does not have"));
        return NULL;
    }
    return resizer;
}

/* crop, resize(BILINEAR), crop and flip by Pillow 13, hashes of RGB and grey. */
static const struct {
    struct nnc_view view;
    uint64_t rgb, grey;
} golden[] = {
    {{{0, 0, 61, 47}, 61, 47, 0, 0, 61, 47, false}, 0xe18913a6013ad512ull, 0x98c1f10a43e51846ull},
    {{{5, 3, 40, 30}, 32, 32, 0, 0, 32, 32, false}, 0x63ceac553a8f1b8eull, 0xb2879e2bb828f6efull},
    {{{5, 3, 40, 30}, 32, 32, 0, 0, 32, 32, true}, 0x5dd59a45a3de29d0ull, 0xb2507eda4f5cb133ull},
    {{{20, 1, 9, 45}, 24, 24, 0, 0, 24, 24, false}, 0x6d14cb4e6e52a3c8ull, 0x68020ada3f4cb59full},
    {{{30, 0, 20, 47}, 18, 11, 0, 0, 18, 11, true}, 0x2a450adfcfee42e0ull, 0x2c833fc38d47f818ull},
    {{{0, 0, 61, 47}, 83, 64, 9, 0, 64, 64, false}, 0x28e5b88d26d05566ull, 0x46f48f7284ef5464ull},
    {{{0, 0, 61, 47}, 29, 22, -2, -5, 32, 32, true}, 0x9d30af575dd64b02ull, 0x261d2711c2a02dd6ull},
    {{{7, 9, 1, 1}, 5, 4, 0, 0, 5, 4, false}, 0xbcce1d179f8f06b1ull, 0x4f742adbb6dfe179ull},
    {{{0, 0, 61, 47}, 61, 20, 0, 0, 61, 20, false}, 0x9aeece22eeadb63eull, 0x24a0068348af224dull},
    {{{0, 0, 61, 47}, 20, 47, 3, 4, 10, 30, false}, 0x1d814394a8a45b40ull, 0xa4452ca3f5ae1d03ull},
    {{{2, 2, 50, 40}, 130, 7, 50, 1, 60, 5, true}, 0xc6f45cc821d690b9ull, 0xba9047dc92aeb40eull},
    {{{0, 0, 61, 47}, 1, 1, 0, 0, 1, 1, false}, 0x9486e119678556b4ull, 0xaf63f04c86020e88ull},
};

Test(resize, results_equal_those_of_pillow) {
    for (size_t kernels = 0; kernels < KERNELS; kernels++) {
        struct nnc_resizer *resizer = create(kernels);
        for (size_t i = 0; resizer != NULL && i < sizeof(golden) / sizeof(golden[0]); i++) {
            for (uint32_t channels = 1; channels <= 3; channels += 2) {
                const struct nnc_view *view = &golden[i].view;
                struct source source = make_source(61, 47, channels);
                uint8_t *out = resize(resizer, &source, view, 16);
                uint64_t hash =
                    fixture_hash(out, (size_t)view->out_width * view->out_height * channels);
                cr_expect_eq(hash, channels == 3 ? golden[i].rgb : golden[i].grey,
                             "row %zu, %u channels, kernels %s", i, channels,
                             kernel_names[kernels]);
                free(out);
                free(source.data);
            }
        }
        nnc_resizer_destroy(resizer);
    }
}

/* Weight of input i for output o of an axis, unnormalised, in doubles. */
static double triangle(uint32_t i, uint32_t o, double scale) {
    double support = scale > 1 ? scale : 1;
    double distance = fabs((i + 0.5) - (o + 0.5) * scale) / support;
    return distance < 1 ? 1 - distance : 0;
}

/* One output pixel without any rounding. */
static double exact(const struct source *source, const struct nnc_view *view, uint32_t x,
                    uint32_t y, uint32_t c) {
    const struct nnc_box *crop = &view->crop;
    double scale_x = (double)crop->width / view->width,
           scale_y = (double)crop->height / view->height;
    double sum = 0, weights = 0;
    for (uint32_t j = 0; j < crop->height; j++) {
        double down = triangle(j, y, scale_y);
        for (uint32_t i = 0; down > 0 && i < crop->width; i++) {
            double weight = down * triangle(i, x, scale_x);
            size_t place = (size_t)(crop->top + j) * source->width + crop->left + i;
            sum += weight * source->data[place * source->channels + c];
            weights += weight;
        }
    }
    return sum / weights;
}

/* What the view makes of output pixel (x, y), or 0 outside of the resized image. */
static double oracle(const struct source *source, const struct nnc_view *view, uint32_t x,
                     uint32_t y, uint32_t c) {
    int64_t column = (int64_t)(view->flip ? view->out_width - 1 - x : x) + view->left;
    int64_t row = (int64_t)y + view->top;
    if (column < 0 || row < 0 || column >= view->width || row >= view->height) {
        return 0;
    }
    return exact(source, view, (uint32_t)column, (uint32_t)row, c);
}

static struct nnc_view random_view(struct nnc_rng *rng, const struct source *source) {
    struct nnc_view view = {0};
    view.crop.width = 1 + nnc_rng_below(rng, source->width);
    view.crop.height = 1 + nnc_rng_below(rng, source->height);
    view.crop.left = nnc_rng_below(rng, source->width - view.crop.width + 1);
    view.crop.top = nnc_rng_below(rng, source->height - view.crop.height + 1);
    view.width = nnc_rng_below(rng, 4) ? 1 + nnc_rng_below(rng, 60) : view.crop.width;
    view.height = nnc_rng_below(rng, 4) ? 1 + nnc_rng_below(rng, 60) : view.crop.height;
    view.left = (int32_t)nnc_rng_below(rng, 20) - 8;
    view.top = (int32_t)nnc_rng_below(rng, 20) - 8;
    view.out_width = 1 + nnc_rng_below(rng, 50);
    view.out_height = 1 + nnc_rng_below(rng, 50);
    view.flip = nnc_rng_below(rng, 2) == 1;
    return view;
}

Test(resize, results_are_within_one_level_of_exact_convolution) {
    struct nnc_rng rng = nnc_rng_make(5, NNC_RNG_SYNTHETIC, 0, 0);
    struct nnc_resizer *resizer = create(0);
    for (int trial = 0; trial < 120; trial++) {
        uint32_t width = 1 + nnc_rng_below(&rng, 80), height = 1 + nnc_rng_below(&rng, 80);
        struct source source = make_source(width, height, trial % 2 ? 3 : 1);
        struct nnc_view view = random_view(&rng, &source);
        uint8_t *out = resize(resizer, &source, &view, 7);
        for (uint32_t i = 0; i < view.out_width * view.out_height * source.channels; i += 3) {
            uint32_t c = i % source.channels, x = i / source.channels % view.out_width;
            uint32_t y = i / source.channels / view.out_width;
            /* Half a level for each of two roundings, and the rounding of weights. */
            double error = fabs(out[i] - oracle(&source, &view, x, y, c));
            cr_assert_lt(error, 1.001,
                         "%ux%u crop %u,%u %ux%u to %ux%u window %d,%d %ux%u flip %d: x %u y %u is "
                         "off by %g",
                         width, height, view.crop.left, view.crop.top, view.crop.width,
                         view.crop.height, view.width, view.height, view.left, view.top,
                         view.out_width, view.out_height, view.flip, x, y, error);
        }
        free(out);
        free(source.data);
    }
    nnc_resizer_destroy(resizer);
}

/* Sides of up to 3 or 60 times the other, so that all ways through the kernels are taken. */
static void compare_with_plain(size_t kernels, struct nnc_resizer *fast) {
    struct nnc_rng rng = nnc_rng_make(6, NNC_RNG_SYNTHETIC, 0, (uint32_t)kernels);
    struct nnc_resizer *plain = create(0);
    for (int trial = 0; trial < 400; trial++) {
        uint32_t width = 1 + nnc_rng_below(&rng, 300), height = 1 + nnc_rng_below(&rng, 200);
        struct source source = make_source(width, height, trial % 2 ? 3 : 1);
        struct nnc_view view = random_view(&rng, &source);
        uint8_t *first = resize(plain, &source, &view, 1);
        uint8_t *second = resize(fast, &source, &view, 1 + nnc_rng_below(&rng, 40));
        size_t bytes = (size_t)view.out_width * view.out_height * source.channels;
        cr_assert_eq(memcmp(first, second, bytes), 0, "kernels %s, trial %d", kernel_names[kernels],
                     trial);
        free(first);
        free(second);
        free(source.data);
    }
    nnc_resizer_destroy(plain);
}

Test(resize, kernels_and_chunks_make_no_difference) {
    for (size_t kernels = 1; kernels < KERNELS; kernels++) {
        struct nnc_resizer *fast = create(kernels);
        if (fast != NULL) {
            compare_with_plain(kernels, fast);
        }
        nnc_resizer_destroy(fast);
    }
}

Test(resize, white_stays_white_however_many_weights_are_summed) {
    struct nnc_resizer *resizer = create(0);
    struct source source = {30011, 3, 1, malloc(30011 * 3 + NNC_IMAGE_ROW_SLACK)};
    memset(source.data, 255, 30011 * 3 + NNC_IMAGE_ROW_SLACK);
    const struct nnc_view view = {{0, 0, 30011, 3}, 7, 2, 0, 0, 7, 2, false};
    uint8_t *out = resize(resizer, &source, &view, 3);
    for (int i = 0; i < 14; i++) {
        cr_expect_geq(out[i], 254);
    }
    free(out);
    free(source.data);
    nnc_resizer_destroy(resizer);
}
