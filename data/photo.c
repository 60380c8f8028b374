/* SPDX-License-Identifier: Apache-2.0 */
/* Photo-like images.
 *
 *   plan:   size, quality, colour resolution from tables of what ImageNet has
 *   paint:  for each row
 *               base colour with a gradient
 *             + coarse octaves of noise                     (light and shadow)
 *             , shapes over each other: colour, texture     (objects: edges, smooth and rough
 * areas)
 *             + fine octaves of noise times the texture
 *             + grain
 *
 * 1. Octaves are value noise: random numbers on a lattice, bilinear between. Equal amplitudes at
 *    cells of 256, 128, ... 1 pixels make the power fall with the square of the frequency, as it
 *    does in photographs; the decay per octave varies from image to image, and with it the size of
 *    the file.
 * 2. Sizes of shapes have a density of r^-2: small ones are many, and the large ones still cover
 * most.
 * 3. Each use has its own stream of random numbers, so that a change of one moves no other.
 * 4. Only +, -, * and / of floats in a fixed order, no contraction (meson.build): the same
 *    bits everywhere.
 *
 * Does not: depict anything. Source: Field, "Relations between the statistics of natural images
 * and the response properties of cortical cells", JOSA A 4, 1987 (spectrum); Lee, Mumford, Huang,
 * "Occlusion models for natural images", IJCV 41, 2001 (shapes). */
#include "data/photo.h"

#include "base/err.h"
#include "base/rng.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Streams of an image. */
enum {
    STREAM_PLAN,
    STREAM_SCENE,
    STREAM_GRAIN,
    STREAM_OCTAVE, /* and as many more as there are octaves */
};

enum {
    LUMA, /* planes that are painted: brightness and two differences of colour */
    BLUE,
    RED,
    PLANES,
    COARSE_SHIFT = 5, /* cells of 2^5 pixels and more are light and shadow, smaller ones texture */
    SHAPES_MAX = 80,
    SHAPE_RADIUS_MIN = 10,
};

/* ---- plan ---- */

/* A share of the images, in thousandths, and the range of their sizes. */
static const struct {
    uint32_t share, width_min, width_max, height_min, height_max;
} sizes[] = {
    {200, 500, 500, 375, 375},   {102, 500, 500, 333, 333},   {80, 375, 375, 500, 500},
    {46, 500, 500, 331, 336},    {44, 332, 335, 500, 500},    {12, 500, 500, 500, 500},
    {145, 500, 500, 240, 460},   {69, 280, 460, 500, 500},    {100, 220, 440, 160, 330},
    {50, 120, 330, 180, 440},    {18, 75, 160, 56, 160},      {30, 640, 640, 427, 480},
    {30, 600, 600, 400, 460},    {24, 800, 800, 534, 660},    {20, 501, 800, 380, 600},
    {11, 400, 800, 520, 1067},   {8, 1024, 1024, 683, 768},   {5, 900, 1280, 480, 960},
    {4, 1600, 1836, 1200, 1377}, {2, 2048, 2592, 1536, 1944},
};

static uint32_t draw_between(struct nnc_rng *rng, uint32_t low, uint32_t high) {
    return low + nnc_rng_below(rng, high - low + 1);
}

static void draw_size(struct nnc_rng *rng, struct nnc_photo *photo) {
    uint32_t at = nnc_rng_below(rng, 1000);
    size_t row = 0;
    while (at >= sizes[row].share) {
        at -= sizes[row].share;
        row++;
        assert(row < sizeof(sizes) / sizeof(sizes[0]));
    }
    photo->width = draw_between(rng, sizes[row].width_min, sizes[row].width_max);
    photo->height = draw_between(rng, sizes[row].height_min, sizes[row].height_max);
}

struct nnc_photo nnc_photo_plan(uint64_t seed, uint64_t number) {
    struct nnc_photo photo = {.seed = seed, .number = number, .channels = 3};
    struct nnc_rng rng = nnc_rng_make(seed, NNC_RNG_PHOTO, STREAM_PLAN, number);
    draw_size(&rng, &photo);
    if (nnc_rng_below(&rng, 1000) < 22) {
        photo.channels = 1;
    }
    bool is_fine = nnc_rng_below(&rng, 1000) < 690;
    photo.quality = (int)(is_fine ? 96 : draw_between(&rng, 70, 95));
    uint32_t full = is_fine ? 960 : 370; /* thousandths with all of their colour */
    uint32_t at = nnc_rng_below(&rng, 1000);
    photo.sampling = at < full ? NNC_JPEG_444 : at < 975 ? NNC_JPEG_420 : NNC_JPEG_422;
    return photo;
}

/* ---- scene ---- */

/* An ellipse or a box, turned and with a soft edge. */
struct shape {
    float x, y, cosine, sine;
    float inverse_x, inverse_y; /* of its radii */
    float sharpness;            /* how fast the edge goes from 0 to 1 */
    bool is_box;
    uint32_t left, top, right, bottom; /* beyond these it covers nothing; right, bottom exclusive */
    float colour[PLANES];
    float texture;
};

/* Random numbers on a lattice over the image. */
struct octave {
    uint32_t shift;              /* cells of 2^shift pixels */
    uint32_t offset_x, offset_y; /* of the image's corner in its cell: blocks of JPEG must not meet
                                    cells */
    uint32_t columns, rows;
    float amplitude;
    uint8_t *values; /* (rows, columns) */
};

enum {
    OCTAVE_SHIFT_MAX = 8,
    LUMA_OCTAVES = OCTAVE_SHIFT_MAX + 1, /* shifts 8, 7, ... 0 */
    COLOUR_OCTAVES = 3,                  /* shifts 7, 5, 3 */
    OCTAVES = LUMA_OCTAVES + 2 * COLOUR_OCTAVES,
};

struct scene {
    const struct nnc_photo *photo;
    float base[PLANES];
    float slope_x[PLANES], slope_y[PLANES]; /* per pixel */
    float texture;
    float grain;
    struct octave octaves[OCTAVES];
    struct shape shapes[SHAPES_MAX];
    uint32_t shape_count;
    struct nnc_rng grain_rng;
    float *floats;               /* all rows below */
    float *plane[PLANES];        /* (width) the row in hand */
    float *fine, *gain, *column; /* (width), (width), (columns of the largest lattice) */
    uint8_t *noise;              /* (width) */
};

static float draw_float(struct nnc_rng *rng, float low, float high) {
    return low + (high - low) * nnc_rng_uniform(rng);
}

static void draw_colour(struct nnc_rng *rng, float *ret_colour) {
    ret_colour[LUMA] = draw_float(rng, 25, 225);
    /* The product of two draws is mostly small: most surfaces are nearly grey. */
    ret_colour[BLUE] = draw_float(rng, -1, 1) * draw_float(rng, 0, 45);
    ret_colour[RED] = draw_float(rng, -1, 1) * draw_float(rng, 0, 45);
}

/* Where the shape ends, from its place and its larger radius. */
static void bound_shape(struct shape *shape, float reach, uint32_t width, uint32_t height) {
    float left = shape->x - reach, top = shape->y - reach;
    float right = shape->x + reach + 1, bottom = shape->y + reach + 1;
    shape->left = left <= 0 ? 0 : left >= (float)width ? width : (uint32_t)left;
    shape->top = top <= 0 ? 0 : top >= (float)height ? height : (uint32_t)top;
    shape->right = right >= (float)width ? width : right <= 0 ? 0 : (uint32_t)right;
    shape->bottom = bottom >= (float)height ? height : bottom <= 0 ? 0 : (uint32_t)bottom;
}

static void draw_shape(struct nnc_rng *rng, uint32_t width, uint32_t height, struct shape *shape) {
    float side = (float)(width < height ? width : height);
    float ratio = SHAPE_RADIUS_MIN / (0.6f * side);
    float radius = SHAPE_RADIUS_MIN / (nnc_rng_uniform(rng) + ratio);
    float other = radius * draw_float(rng, 0.3f, 1);
    float turn = draw_float(rng, -1, 1), edge = draw_float(rng, 0.6f, 3);
    shape->x = draw_float(rng, 0, (float)width);
    shape->y = draw_float(rng, 0, (float)height);
    /* A rotation without sine and cosine, whose last bits differ between libraries. */
    shape->cosine = (1 - turn * turn) / (1 + turn * turn);
    shape->sine = 2 * turn / (1 + turn * turn);
    shape->inverse_x = 1 / radius;
    shape->inverse_y = 1 / other;
    shape->sharpness = other / (2 * edge);
    shape->is_box = nnc_rng_below(rng, 3) == 0;
    draw_colour(rng, shape->colour);
    float rough = nnc_rng_uniform(rng);
    shape->texture = 0.1f + 1.9f * rough * rough;
    bound_shape(shape, radius * 1.5f, width, height);
}

static void draw_scene(struct scene *scene) {
    const struct nnc_photo *photo = scene->photo;
    struct nnc_rng rng = nnc_rng_make(photo->seed, NNC_RNG_PHOTO, STREAM_SCENE, photo->number);
    draw_colour(&rng, scene->base);
    for (int plane = 0; plane < PLANES; plane++) {
        float most = plane == LUMA ? 80.0f : 12.0f;
        scene->slope_x[plane] = draw_float(&rng, -most, most) / (float)photo->width;
        scene->slope_y[plane] = draw_float(&rng, -most, most) / (float)photo->height;
    }
    float rough = nnc_rng_uniform(&rng);
    scene->texture = 0.25f + 1.75f * rough * rough;
    scene->grain = draw_float(&rng, 0, 1);
    scene->grain *= scene->grain * 6;
    float contrast = draw_float(&rng, 15, 42), decay = draw_float(&rng, 0.78f, 1.08f);
    float amplitude = contrast;
    for (int i = 0; i < OCTAVES; i++) {
        struct octave *octave = &scene->octaves[i];
        bool is_luma = i < LUMA_OCTAVES;
        octave->shift = (uint32_t)(is_luma ? OCTAVE_SHIFT_MAX - i
                                           : 7 - 2 * ((i - LUMA_OCTAVES) % COLOUR_OCTAVES));
        octave->amplitude = is_luma ? amplitude : contrast * (float)(octave->shift + 1) / 40;
        amplitude *= decay;
    }
    scene->shape_count = draw_between(&rng, 12, SHAPES_MAX);
    for (uint32_t i = 0; i < scene->shape_count; i++) {
        draw_shape(&rng, photo->width, photo->height, &scene->shapes[i]);
    }
    scene->grain_rng = nnc_rng_make(photo->seed, NNC_RNG_PHOTO, STREAM_GRAIN, photo->number);
}

/* ---- noise ---- */

static void fill_bytes(struct nnc_rng *rng, uint8_t *bytes, size_t count) {
    for (size_t i = 0; i < count; i += 4) {
        uint32_t word = nnc_rng_u32(rng);
        for (size_t j = i; j < count && j < i + 4; j++) {
            bytes[j] = (uint8_t)word;
            word >>= 8;
        }
    }
}

static int make_octave(struct scene *scene, uint32_t number) {
    const struct nnc_photo *photo = scene->photo;
    struct octave *octave = &scene->octaves[number];
    struct nnc_rng rng =
        nnc_rng_make(photo->seed, NNC_RNG_PHOTO, STREAM_OCTAVE + number, photo->number);
    octave->offset_x = nnc_rng_below(&rng, 1u << octave->shift);
    octave->offset_y = nnc_rng_below(&rng, 1u << octave->shift);
    octave->columns = ((photo->width + octave->offset_x) >> octave->shift) + 2;
    octave->rows = ((photo->height + octave->offset_y) >> octave->shift) + 2;
    size_t count = (size_t)octave->columns * octave->rows;
    octave->values = malloc(count);
    if (octave->values == NULL) {
        return nnc_fail(-ENOMEM, "no memory for an image");
    }
    fill_bytes(&rng, octave->values, count);
    return 0;
}

/* Add the octave's noise in row y to the row. */
static void add_octave(const struct scene *scene, const struct octave *octave, uint32_t y,
                       float *row) {
    uint32_t cell = 1u << octave->shift, place_y = y + octave->offset_y;
    const uint8_t *above = octave->values + (size_t)(place_y >> octave->shift) * octave->columns;
    const uint8_t *below = above + octave->columns;
    float weight = (float)(place_y & (cell - 1)) / (float)cell;
    float scale = octave->amplitude / 127.5f;
    for (uint32_t i = 0; i < octave->columns; i++) {
        float value = (float)above[i] + ((float)below[i] - (float)above[i]) * weight;
        scene->column[i] = value * scale - octave->amplitude;
    }
    uint32_t width = scene->photo->width;
    for (uint32_t i = 0, x = 0; x < width; i++) {
        float from = scene->column[i], step = (scene->column[i + 1] - from) / (float)cell;
        uint32_t place = i == 0 ? octave->offset_x : 0;
        uint32_t count = cell - place < width - x ? cell - place : width - x;
        for (uint32_t j = 0; j < count; j++) {
            row[x + j] += from + step * (float)(place + j);
        }
        x += count;
    }
}

/* ---- painting ---- */

static float clamp(float value, float low, float high) {
    return value < low ? low : value > high ? high : value;
}

/* Lay the shape over the row. */
static void add_shape(struct scene *scene, const struct shape *shape, uint32_t y) {
    float away_y = (float)y - shape->y;
    for (uint32_t x = shape->left; x < shape->right; x++) {
        float away_x = (float)x - shape->x;
        float u = (away_x * shape->cosine + away_y * shape->sine) * shape->inverse_x;
        float v = (away_y * shape->cosine - away_x * shape->sine) * shape->inverse_y;
        float square_u = u * u, square_v = v * v;
        float larger = square_u > square_v ? square_u : square_v;
        float distance = shape->is_box ? larger : square_u + square_v;
        float cover = clamp((1 - distance) * shape->sharpness + 0.5f, 0, 1);
        for (int plane = 0; plane < PLANES; plane++) {
            scene->plane[plane][x] += (shape->colour[plane] - scene->plane[plane][x]) * cover;
        }
        scene->gain[x] += (shape->texture - scene->gain[x]) * cover;
    }
}

static void paint_surfaces(struct scene *scene, uint32_t y) {
    uint32_t width = scene->photo->width;
    for (int plane = 0; plane < PLANES; plane++) {
        float left = scene->base[plane] + scene->slope_y[plane] * (float)y;
        for (uint32_t x = 0; x < width; x++) {
            scene->plane[plane][x] = left + scene->slope_x[plane] * (float)x;
        }
    }
    for (uint32_t x = 0; x < width; x++) {
        scene->gain[x] = 1;
        scene->fine[x] = 0;
    }
    for (uint32_t i = 0; i < scene->shape_count; i++) {
        if (y >= scene->shapes[i].top && y < scene->shapes[i].bottom) {
            add_shape(scene, &scene->shapes[i], y);
        }
    }
}

static void paint_noise(struct scene *scene, uint32_t y) {
    uint32_t width = scene->photo->width;
    for (uint32_t i = 0; i < OCTAVES; i++) {
        const struct octave *octave = &scene->octaves[i];
        uint32_t plane = i < LUMA_OCTAVES ? LUMA : BLUE + (i - LUMA_OCTAVES) / COLOUR_OCTAVES;
        bool is_fine = plane == LUMA && octave->shift < COARSE_SHIFT;
        add_octave(scene, octave, y, is_fine ? scene->fine : scene->plane[plane]);
    }
    fill_bytes(&scene->grain_rng, scene->noise, width);
    for (uint32_t x = 0; x < width; x++) {
        float grain = ((float)scene->noise[x] - 127.5f) / 127.5f * scene->grain;
        scene->plane[LUMA][x] += scene->fine[x] * scene->gain[x] * scene->texture + grain;
    }
}

static uint8_t to_byte(float value) {
    return (uint8_t)(clamp(value, 0, 255) + 0.5f);
}

/* Math: JFIF's, R = Y + 1.402 Cr, G = Y - 0.344136 Cb - 0.714136 Cr, B = Y + 1.772 Cb. */
static void store_row(const struct scene *scene, uint8_t *row) {
    uint32_t width = scene->photo->width;
    const float *luma = scene->plane[LUMA], *blue = scene->plane[BLUE], *red = scene->plane[RED];
    for (uint32_t x = 0; x < width && scene->photo->channels == 1; x++) {
        row[x] = to_byte(luma[x]);
    }
    for (uint32_t x = 0; x < width && scene->photo->channels == 3; x++) {
        row[3 * x] = to_byte(luma[x] + 1.402f * red[x]);
        row[3 * x + 1] = to_byte(luma[x] - 0.344136f * blue[x] - 0.714136f * red[x]);
        row[3 * x + 2] = to_byte(luma[x] + 1.772f * blue[x]);
    }
}

static int make_rows(struct scene *scene) {
    size_t width = scene->photo->width;
    size_t columns = width + 3; /* of the finest lattice */
    scene->floats = malloc(((PLANES + 2) * width + columns) * sizeof(float));
    scene->noise = malloc(width);
    if (scene->floats == NULL || scene->noise == NULL) {
        return nnc_fail(-ENOMEM, "no memory for an image");
    }
    for (int plane = 0; plane < PLANES; plane++) {
        scene->plane[plane] = scene->floats + (size_t)plane * width;
    }
    scene->fine = scene->floats + PLANES * width;
    scene->gain = scene->fine + width;
    scene->column = scene->gain + width;
    int code = 0;
    for (uint32_t i = 0; i < OCTAVES && code >= 0; i++) {
        code = make_octave(scene, i);
    }
    return code;
}

int nnc_photo_paint(const struct nnc_photo *photo, uint8_t *pixels) {
    struct scene scene = {.photo = photo};
    draw_scene(&scene);
    int code = make_rows(&scene);
    for (uint32_t y = 0; y < photo->height && code >= 0; y++) {
        paint_surfaces(&scene, y);
        paint_noise(&scene, y);
        store_row(&scene, pixels + (size_t)y * photo->width * photo->channels);
    }
    for (uint32_t i = 0; i < OCTAVES; i++) {
        free(scene.octaves[i].values);
    }
    free(scene.floats);
    free(scene.noise);
    return code;
}

struct nnc_jpeg_pixels nnc_photo_picture(const struct nnc_photo *photo, const uint8_t *pixels) {
    return (struct nnc_jpeg_pixels){.pixels = pixels,
                                    .width = photo->width,
                                    .height = photo->height,
                                    .channels = photo->channels,
                                    .quality = photo->quality,
                                    .sampling = photo->sampling,
                                    .plain = true};
}
