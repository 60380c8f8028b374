/* SPDX-License-Identifier: Apache-2.0 */
/* What libjpeg-turbo alone can do with a folder of JPEGs: the yardstick of every input pipeline.
 *
 *   bench_jpeg full|crop DIR [PROCESSES [SECONDS]]           default 2 processes, 5 s
 *
 * All files lie in memory before timing; nothing is resized, stored or handed on. "full" decodes
 * every pixel. "crop" decodes what RandomResizedCrop needs of the image, with jpeg_crop_scanline
 * and jpeg_skip_scanlines: the views are drawn as nncoord's loaders draw them, and the few rows and
 * columns beyond a view that an exact result needs at its edges are left out, so a loader that
 * decodes ordinary files can come close to this figure and not reach it. RGB, accurate integer DCT,
 * fancy upsampling, as PIL.
 *
 * Source: libjpeg.txt of libjpeg-turbo 2.1. */
#include "bench/parallel.h"

#include "base/rng.h"
#include "loader/augment.h"

#include <ftw.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>

enum {
    DESCRIPTORS = 32,
    SIDE = 224,
    CHUNK_ROWS = 16
};

struct file {
    uint8_t *bytes;
    unsigned long size;
};

struct corpus {
    struct file *files;
    size_t count, space;
};

/* nftw() hands no context to its callback; the parent fills this before it forks. */
static struct corpus corpus;

struct decoder {
    struct jpeg_decompress_struct cinfo;
    struct jpeg_error_mgr errors;
    bool crop;
    uint8_t *rows;
    size_t rows_bytes;
};

static const struct nnc_augment augment = {.transform = NNC_TRANSFORM_RANDOM_RESIZED_CROP,
                                           .size = SIDE,
                                           .hflip_prob = 0.5f,
                                           .scale_min = 0.08,
                                           .scale_max = 1.0,
                                           .ratio_min = 3.0 / 4.0,
                                           .ratio_max = 4.0 / 3.0};

/* ---- files ---- */

static uint8_t *read_file(const char *path, size_t size) {
    uint8_t *bytes = malloc(size);
    FILE *stream = fopen(path, "rb");
    if (bytes != NULL && (stream == NULL || fread(bytes, 1, size, stream) != size)) {
        free(bytes);
        bytes = NULL;
    }
    if (stream != NULL) {
        fclose(stream);
    }
    return bytes;
}

static int add_file(const char *path, const struct stat *status, int kind, struct FTW *place) {
    (void)place;
    if (kind != FTW_F || status->st_size < 4) {
        return 0;
    }
    if (corpus.count == corpus.space) {
        corpus.space = corpus.space == 0 ? 1024 : 2 * corpus.space;
        struct file *files = realloc(corpus.files, corpus.space * sizeof(*files));
        if (files == NULL) {
            return -1;
        }
        corpus.files = files;
    }
    uint8_t *bytes = read_file(path, (size_t)status->st_size);
    if (bytes == NULL) {
        fprintf(stderr, "bench_jpeg: %s: cannot be read\n", path);
        return -1;
    }
    if (bytes[0] != 0xff || bytes[1] != 0xd8 || bytes[2] != 0xff) {
        free(bytes);
        return 0;
    }
    corpus.files[corpus.count++] =
        (struct file){.bytes = bytes, .size = (unsigned long)status->st_size};
    return 0;
}

/* ---- decoding ---- */

static void on_output(j_common_ptr cinfo) {
    (void)cinfo; /* warnings about odd files are known and repaired; they would fill the screen */
}

static void *open_decoder(void *shared) {
    struct decoder *decoder = calloc(1, sizeof(*decoder));
    if (decoder == NULL) {
        return NULL;
    }
    decoder->crop = *(bool *)shared;
    decoder->cinfo.err = jpeg_std_error(&decoder->errors);
    decoder->errors.output_message = on_output;
    jpeg_create_decompress(&decoder->cinfo);
    return decoder;
}

static int reserve(struct decoder *decoder, size_t bytes) {
    if (bytes > decoder->rows_bytes) {
        free(decoder->rows);
        decoder->rows = malloc(bytes);
        decoder->rows_bytes = decoder->rows == NULL ? 0 : bytes;
    }
    return decoder->rows == NULL ? -1 : 0;
}

/* Decode rows up to row `end`; all go to the same few rows of memory, which stay in the cache. */
static void read_rows(struct decoder *decoder, uint32_t end) {
    struct jpeg_decompress_struct *cinfo = &decoder->cinfo;
    size_t stride = (size_t)cinfo->output_width * (size_t)cinfo->output_components;
    JSAMPROW rows[CHUNK_ROWS];
    for (size_t i = 0; i < CHUNK_ROWS; i++) {
        rows[i] = decoder->rows + i * stride;
    }
    while (cinfo->output_scanline < end) {
        uint32_t left = end - cinfo->output_scanline;
        jpeg_read_scanlines(cinfo, rows, left < CHUNK_ROWS ? left : CHUNK_ROWS);
    }
}

/* libjpeg's own error handler ends the process, and with it the measurement. */
static int decode_sample(void *own, uint64_t number) {
    struct decoder *decoder = own;
    struct jpeg_decompress_struct *cinfo = &decoder->cinfo;
    const struct file *file = &corpus.files[number % corpus.count];
    jpeg_mem_src(cinfo, file->bytes, file->size);
    jpeg_read_header(cinfo, TRUE);
    if (cinfo->num_components <= 3) {
        cinfo->out_color_space = JCS_RGB;
    }
    jpeg_start_decompress(cinfo);
    if (reserve(decoder, (size_t)cinfo->output_width * 4 * CHUNK_ROWS) < 0) {
        return -1;
    }
    uint32_t end = cinfo->output_height;
    if (decoder->crop) {
        struct nnc_rng rng = nnc_rng_make(0, NNC_RNG_AUGMENT, (uint32_t)(number / corpus.count),
                                          number % corpus.count);
        const struct nnc_box box =
            nnc_augment_view(&augment, cinfo->image_width, cinfo->image_height, rng).crop;
        JDIMENSION left = box.left, width = box.width;
        jpeg_crop_scanline(cinfo, &left, &width);
        if (box.top > 0) {
            jpeg_skip_scanlines(cinfo, box.top);
        }
        end = box.top + box.height;
    }
    read_rows(decoder, end);
    jpeg_abort_decompress(cinfo);
    return 0;
}

int main(int argc, char **argv) {
    bool crop = argc > 1 && strcmp(argv[1], "crop") == 0;
    if (argc < 3 || argc > 5 || (!crop && strcmp(argv[1], "full") != 0)) {
        fprintf(stderr, "usage: bench_jpeg full|crop DIR [PROCESSES [SECONDS]]\n");
        return 2;
    }
    uint32_t processes = argc > 3 ? (uint32_t)strtoul(argv[3], NULL, 10) : 2;
    double seconds = argc > 4 ? strtod(argv[4], NULL) : 5.0;
    if (nftw(argv[2], add_file, DESCRIPTORS, 0) != 0 || corpus.count == 0) {
        fprintf(stderr, "bench_jpeg: %s: no JPEGs, or not readable\n", argv[2]);
        return 1;
    }
    const struct bench_work work = {.open = open_decoder,
                                    .sample = decode_sample,
                                    .shared = &crop,
                                    .warmup = corpus.count < 500 ? corpus.count : 500};
    struct bench_total total;
    if (bench_parallel(&work, processes, seconds, &total) < 0) {
        return 1;
    }
    bench_print(&total);
    return 0;
}
