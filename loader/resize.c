/* SPDX-License-Identifier: Apache-2.0 */
/* The streaming resizer.
 *
 *   row of the image --across--> line in a ring of as many lines as the filter is high --down-->
 * out
 *
 * 1. Results are those of PIL: one axis, rounded to 8 bits, then the other, rounded again. Doing it
 * row by row changes the order of the work only.
 * 2. Which axis comes first changes the bits. Up to version 12 Pillow goes across first; version 13
 * goes down first where that takes away many more rows than columns (down_comes_first, found by
 * experiment and checked on 2,600 sizes). Then lines hold image rows as they came and are mixed
 * before they go across.
 * 3. Weights are made for the visible columns and rows only: a window of a very wide resized image
 * costs no more than the window.
 * 4. An output row is made as soon as its last input line is there; lines are kept in place
 *    (input row) % lines, and no output row needs more than `lines` of them.
 * 5. Flipping is an order of columns, so it is done to the weights (or while copying), never as a
 * pass.
 * 6. Doubles are used for weights only, in an order that every compiler keeps (no contraction).
 *
 * Does not: know where rows come from, or choose the view (loader/augment.h).
 * Source: Pillow, behaviour of Image.resize(BILINEAR). */
#include "loader/resize.h"

#include "base/checked.h"
#include "base/err.h"
#include "loader/resize_kernels.h"

#include <assert.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    LINE_ALIGN = 64,
};

/* Which part of one axis is seen, and what it is made of. */
struct span {
    uint32_t first_output; /* first visible output */
    uint32_t out_first;    /* its place in the window, before flipping */
    uint32_t out_count;    /* visible outputs */
    uint32_t in_first;     /* first needed input, within the crop */
    uint32_t in_count;
};

/* One axis of the view: which outputs can be seen and how they are made. */
struct axis {
    struct span span;
    struct nnc_taps taps; /* arrays grow only */
    double *scratch;      /* weights of one output before rounding */
    size_t first_room, taps_room, weights_room, scratch_room, packed_room;
    bool copy; /* no resampling: output i is input i */
};

struct nnc_resizer {
    const struct nnc_resize_kernels *kernels;
    struct axis x, y;
    uint32_t channels;
    bool flip;
    bool down_first;
    uint8_t *out; /* first visible pixel in memory */
    size_t out_stride;
    uint32_t image_top; /* row of the image that is the first needed one */
    uint32_t rows_in;   /* needed rows that were given */
    uint32_t rows_out;  /* visible rows that were written */
    uint8_t *lines;
    size_t lines_bytes, line_bytes;
    size_t line_stride; /* lines begin at multiples of a cache line */
    uint8_t *mixed;     /* down_first: one mixed line that still has to go across */
    size_t mixed_bytes;
    const uint8_t **line_list; /* the lines of one output row, in order */
    size_t line_list_room;
};

static const struct nnc_resize_kernels *const all_kernels[] = {
#if NNC_HAVE_AVX512
    &nnc_resize_kernels_avx512,
#endif
#if NNC_HAVE_AVX2
    &nnc_resize_kernels_avx2,
#endif
    &nnc_resize_kernels_c,
    NULL,
};

static bool cpu_has(enum nnc_simd simd) {
    switch (simd) {
#if NNC_HAVE_AVX2
    case NNC_SIMD_AVX2:
        return __builtin_cpu_supports("avx2");
#endif
#if NNC_HAVE_AVX512
    case NNC_SIMD_AVX512:
        return __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
               __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512vnni");
#endif
    default:
        return simd == NNC_SIMD_C;
    }
}

int nnc_resizer_create(enum nnc_simd simd, struct nnc_resizer **ret_resizer) {
    const struct nnc_resize_kernels *chosen = NULL;
    for (int i = 0; all_kernels[i] != NULL && chosen == NULL; i++) {
        bool wanted = simd == NNC_SIMD_AUTO || simd == all_kernels[i]->simd;
        chosen = wanted && cpu_has(all_kernels[i]->simd) ? all_kernels[i] : NULL;
    }
    if (chosen == NULL) {
        return nnc_fail(-NNC_E_USAGE,
                        "--simd %s: this CPU does not have these instructions; without the option "
                        "the fastest are taken that it has",
                        simd == NNC_SIMD_AVX512 ? "avx512" : "avx2");
    }
    struct nnc_resizer *resizer = calloc(1, sizeof(*resizer));
    if (resizer == NULL) {
        return nnc_fail(-ENOMEM, "no memory for a resizer");
    }
    resizer->kernels = chosen;
    *ret_resizer = resizer;
    return 0;
}

static void axis_finish(struct axis *axis) {
    free(axis->taps.first);
    free(axis->taps.taps);
    free(axis->taps.weights);
    free(axis->taps.packed);
    free(axis->scratch);
}

void nnc_resizer_destroy(struct nnc_resizer *resizer) {
    if (resizer == NULL) {
        return;
    }
    axis_finish(&resizer->x);
    axis_finish(&resizer->y);
    free(resizer->lines);
    free(resizer->mixed);
    free(resizer->line_list);
    free(resizer);
}

/* ---- weights ---- */

/* Make an array at least `count` elements long without keeping its contents. */
static int reserve(void **array, size_t *room, size_t count, size_t element_bytes) {
    if (count <= *room) {
        return 0;
    }
    size_t bytes;
    free(*array);
    *room = 0;
    *array = nnc_size_mul(count, element_bytes, &bytes) ? NULL : malloc(bytes);
    if (*array == NULL) {
        return nnc_fail(-ENOMEM, "no memory for %zu resize weights", count);
    }
    *room = count;
    return 0;
}

static int reserve_taps(struct axis *axis, uint32_t count, uint32_t stride) {
    struct nnc_taps *taps = &axis->taps;
    size_t weights;
    if (nnc_size_mul(count, stride, &weights)) {
        return nnc_fail(-ENOMEM, "no memory for %u x %u resize weights", count, stride);
    }
    int code = reserve((void **)&taps->first, &axis->first_room, count, sizeof(uint32_t));
    if (code >= 0) {
        code = reserve((void **)&taps->taps, &axis->taps_room, count, sizeof(uint32_t));
    }
    if (code >= 0) {
        code = reserve((void **)&taps->weights, &axis->weights_room, weights, sizeof(int32_t));
    }
    if (code >= 0) {
        code = reserve((void **)&axis->scratch, &axis->scratch_room, stride, sizeof(double));
    }
    taps->count = count;
    taps->stride = stride;
    return code;
}

/* How an axis that shrinks or stretches `in` to `size` is filtered. */
struct filter {
    double scale, support;
    uint32_t in;
};

static struct filter filter_make(uint32_t in, uint32_t size) {
    double scale = (double)in / size;
    return (struct filter){.scale = scale, .support = scale < 1.0 ? 1.0 : scale, .in = in};
}

/* Centre of an output in inputs, and the inputs [*ret_first, *ret_end) it is made of. */
static double filter_reach(const struct filter *filter, uint32_t output, uint32_t *ret_first,
                           uint32_t *ret_end) {
    double centre = ((double)output + 0.5) * filter->scale;
    double low = centre - filter->support + 0.5;
    uint32_t end = (uint32_t)(centre + filter->support + 0.5);
    *ret_first = low > 0 ? (uint32_t)low : 0;
    *ret_end = end < filter->in ? end : filter->in;
    return centre;
}

/* Weights of one output: a triangle around its centre, cut at the input's ends and normalised. */
static uint32_t make_weights(const struct filter *filter, uint32_t output, uint32_t *ret_first,
                             int32_t *ret_weights, double *scratch) {
    uint32_t first, end;
    double centre = filter_reach(filter, output, &first, &end);
    double sum = 0;
    for (uint32_t i = first; i < end; i++) {
        double distance = fabs(((double)i - centre + 0.5) * (1.0 / filter->support));
        double weight = distance < 1.0 ? 1.0 - distance : 0.0;
        scratch[i - first] = weight;
        sum += weight;
    }
    for (uint32_t i = first; i < end; i++) {
        double weight = sum != 0 ? scratch[i - first] / sum : scratch[i - first];
        ret_weights[i - first] = (int32_t)(0.5 + weight * (1 << NNC_RESIZE_BITS));
    }
    for (uint32_t i = end - first; i % NNC_RESIZE_GROUP != 0; i++) {
        ret_weights[i] = 0;
    }
    *ret_first = first;
    return end - first;
}

/* Fill the weights of the visible outputs, the first of which is `first_output`. Their inputs are
 * counted from span->in_first on. */
static int axis_resample(struct axis *axis, uint32_t in, uint32_t size, uint32_t first_output) {
    const struct filter filter = filter_make(in, size);
    uint32_t most = (uint32_t)ceil(filter.support) * 2 + 1;
    uint32_t stride = (most + NNC_RESIZE_GROUP - 1) / NNC_RESIZE_GROUP * NNC_RESIZE_GROUP;
    int code = reserve_taps(axis, axis->span.out_count, stride);
    if (code < 0) {
        return code;
    }
    struct nnc_taps *taps = &axis->taps;
    for (uint32_t i = 0; i < taps->count; i++) {
        taps->taps[i] = make_weights(&filter, first_output + i, &taps->first[i],
                                     taps->weights + (size_t)i * stride, axis->scratch);
        assert(taps->taps[i] >= 1 && taps->taps[i] <= stride);
        assert(taps->first[i] >= axis->span.in_first);
        taps->first[i] -= axis->span.in_first;
    }
    return 0;
}

/* Lay the window [place, place + window) over [0, size): what can be seen, and which of the `in`
 * inputs it is made of. Where nothing can be seen one input is needed, so that no image is without
 * rows. */
static struct span span_make(uint32_t in, uint32_t size, int32_t place, uint32_t window) {
    assert(in >= 1 && size >= 1 && window >= 1);
    int64_t first = place > 0 ? place : 0;
    int64_t end = (int64_t)place + window;
    end = end < size ? end : size;
    if (end <= first) {
        return (struct span){.in_count = 1};
    }
    struct span span = {
        .first_output = (uint32_t)first,
        .out_first = (uint32_t)(first - place),
        .out_count = (uint32_t)(end - first),
        .in_first = (uint32_t)first,
        .in_count = (uint32_t)(end - first),
    };
    if (in != size) {
        const struct filter filter = filter_make(in, size);
        uint32_t unused, in_end;
        filter_reach(&filter, span.first_output, &span.in_first, &unused);
        filter_reach(&filter, (uint32_t)end - 1, &unused, &in_end);
        span.in_count = in_end - span.in_first;
    }
    return span;
}

static int axis_plan(struct axis *axis, uint32_t in, uint32_t size, int32_t place,
                     uint32_t window) {
    axis->span = span_make(in, size, place, window);
    axis->copy = in == size;
    bool nothing = axis->copy || axis->span.out_count == 0;
    return nothing ? 0 : axis_resample(axis, in, size, axis->span.first_output);
}

struct nnc_box nnc_resizer_need(const struct nnc_view *view) {
    struct span x = span_make(view->crop.width, view->width, view->left, view->out_width);
    struct span y = span_make(view->crop.height, view->height, view->top, view->out_height);
    return (struct nnc_box){
        .left = view->crop.left + x.in_first,
        .top = view->crop.top + y.in_first,
        .width = x.in_count,
        .height = y.in_count,
    };
}

/* Write output pixels from right to left by turning the columns of the weights around. */
static void flip_taps(struct nnc_taps *taps) {
    for (uint32_t i = 0, j = taps->count - 1; i < j; i++, j--) {
        uint32_t first = taps->first[i], count = taps->taps[i];
        taps->first[i] = taps->first[j];
        taps->taps[i] = taps->taps[j];
        taps->first[j] = first;
        taps->taps[j] = count;
        int32_t *left = taps->weights + (size_t)i * taps->stride;
        int32_t *right = taps->weights + (size_t)j * taps->stride;
        for (uint32_t k = 0; k < taps->stride; k++) {
            int32_t weight = left[k];
            left[k] = right[k];
            right[k] = weight;
        }
    }
}

/* Lay the weights out as the kernels want them, once they are final. */
static int pack_taps(const struct nnc_resize_kernels *kernels, struct axis *axis,
                     uint32_t channels) {
    struct nnc_taps *taps = &axis->taps;
    taps->quads = 0;
    size_t bytes = kernels->pack == NULL ? 0 : kernels->packed_bytes(taps, channels);
    if (bytes == 0) {
        return 0;
    }
    if (bytes > axis->packed_room) {
        free(taps->packed);
        axis->packed_room = 0;
        taps->packed = aligned_alloc(64, bytes); /* a multiple of 64 */
        if (taps->packed == NULL) {
            return nnc_fail(-ENOMEM, "no memory for %zu bytes of resize weights", bytes);
        }
        axis->packed_room = bytes;
    }
    kernels->pack(taps, channels);
    return 0;
}

/* Pillow 13's choice. Where an axis is not resampled the order makes no difference. */
static bool down_comes_first(const struct nnc_view *view) {
    int64_t rows = (int64_t)view->crop.height - view->height;
    int64_t columns = (int64_t)view->crop.width - view->width;
    return rows > 0 && columns != 0 && rows > 2 * columns;
}

/* ---- rows ---- */

static int reserve_lines(struct nnc_resizer *resizer) {
    if (resizer->y.copy || resizer->y.span.out_count == 0) {
        return 0;
    }
    size_t stride = resizer->y.taps.stride;
    uint32_t pixels = resizer->down_first ? resizer->x.span.in_count : resizer->x.span.out_count;
    resizer->line_bytes = (size_t)pixels * resizer->channels;
    size_t bytes;
    resizer->line_stride = (resizer->line_bytes + LINE_ALIGN - 1) / LINE_ALIGN * LINE_ALIGN;
    if (nnc_size_mul(resizer->line_stride, stride + 1, &bytes) ||
        nnc_image_reserve(&resizer->lines, &resizer->lines_bytes, bytes) < 0 ||
        nnc_image_reserve(&resizer->mixed, &resizer->mixed_bytes, resizer->line_bytes) < 0) {
        return nnc_fail(-ENOMEM, "no memory for %zu lines of the resizer", stride);
    }
    return reserve((void **)&resizer->line_list, &resizer->line_list_room, stride,
                   sizeof(resizer->line_list[0]));
}

int nnc_resizer_begin(struct nnc_resizer *resizer, const struct nnc_view *view, uint32_t channels,
                      uint8_t *out, struct nnc_box *ret_need) {
    assert(channels == 1 || channels == 3);
    struct axis *x = &resizer->x, *y = &resizer->y;
    int code = axis_plan(x, view->crop.width, view->width, view->left, view->out_width);
    if (code >= 0) {
        code = axis_plan(y, view->crop.height, view->height, view->top, view->out_height);
    }
    if (x->span.out_count == 0) {
        y->span.out_count = 0;
    }
    resizer->channels = channels;
    resizer->down_first = down_comes_first(view);
    if (code >= 0) {
        code = reserve_lines(resizer);
    }
    if (code < 0) {
        return code;
    }
    if (!x->copy && x->span.out_count > 0) {
        if (view->flip) {
            flip_taps(&x->taps);
        }
        code = pack_taps(resizer->kernels, x, channels);
        if (code < 0) {
            return code;
        }
    }
    size_t row_bytes = (size_t)view->out_width * channels;
    if (x->span.out_count < view->out_width || y->span.out_count < view->out_height) {
        memset(out, 0, row_bytes * view->out_height);
    }
    uint32_t column =
        view->flip ? view->out_width - x->span.out_first - x->span.out_count : x->span.out_first;
    resizer->flip = view->flip;
    resizer->out = out + y->span.out_first * row_bytes + (size_t)column * channels;
    resizer->out_stride = row_bytes;
    resizer->image_top = view->crop.top + y->span.in_first;
    resizer->rows_in = 0;
    resizer->rows_out = 0;
    *ret_need = nnc_resizer_need(view);
    return 0;
}

static void copy_row(const struct nnc_resizer *resizer, const uint8_t *row, uint8_t *ret_line) {
    uint32_t count = resizer->x.span.out_count, channels = resizer->channels;
    if (!resizer->flip) {
        memcpy(ret_line, row, (size_t)count * channels);
        return;
    }
    for (uint32_t i = 0; i < count; i++) {
        for (uint32_t c = 0; c < channels; c++) {
            ret_line[(size_t)i * channels + c] = row[(size_t)(count - 1 - i) * channels + c];
        }
    }
}

static void make_line(const struct nnc_resizer *resizer, const uint8_t *row, uint8_t *ret_line) {
    if (resizer->x.copy) {
        copy_row(resizer, row, ret_line);
    } else if (resizer->channels == 1) {
        resizer->kernels->across1(row, &resizer->x.taps, ret_line);
    } else {
        resizer->kernels->across3(row, &resizer->x.taps, ret_line);
    }
}

static uint8_t *line_at(const struct nnc_resizer *resizer, uint32_t row) {
    uintptr_t base = ((uintptr_t)resizer->lines + LINE_ALIGN - 1) / LINE_ALIGN * LINE_ALIGN;
    return (uint8_t *)base + (row % resizer->y.taps.stride) * resizer->line_stride;
}

/* Write the output rows whose last line is there. */
static void mix_lines(struct nnc_resizer *resizer) {
    const struct nnc_taps *taps = &resizer->y.taps;
    while (resizer->rows_out < resizer->y.span.out_count) {
        uint32_t i = resizer->rows_out;
        if (taps->first[i] + taps->taps[i] > resizer->rows_in) {
            return;
        }
        for (uint32_t k = 0; k < taps->taps[i]; k++) {
            resizer->line_list[k] = line_at(resizer, taps->first[i] + k);
        }
        uint8_t *out = resizer->out + i * resizer->out_stride;
        resizer->kernels->down(resizer->line_list, taps->weights + (size_t)i * taps->stride,
                               taps->taps[i], resizer->line_bytes,
                               resizer->down_first ? resizer->mixed : out);
        if (resizer->down_first) {
            make_line(resizer, resizer->mixed, out);
        }
        resizer->rows_out++;
    }
}

void nnc_resizer_rows(struct nnc_resizer *resizer, uint32_t first, uint32_t count,
                      const uint8_t *pixels, size_t stride) {
    assert(first == resizer->image_top + resizer->rows_in);
    assert(count <= resizer->y.span.in_count - resizer->rows_in);
    if (resizer->y.span.out_count == 0) {
        resizer->rows_in += count;
        return;
    }
    for (uint32_t i = 0; i < count; i++) {
        const uint8_t *row = pixels + i * stride;
        if (resizer->y.copy) {
            make_line(resizer, row, resizer->out + resizer->rows_out * resizer->out_stride);
            resizer->rows_in++;
            resizer->rows_out++;
            continue;
        }
        uint8_t *line = line_at(resizer, resizer->rows_in);
        if (resizer->down_first) {
            memcpy(line, row, resizer->line_bytes);
        } else {
            make_line(resizer, row, line);
        }
        resizer->rows_in++;
        mix_lines(resizer);
    }
}

int nnc_resizer_done(const struct nnc_resizer *resizer) {
    return resizer->rows_out == resizer->y.span.out_count;
}
