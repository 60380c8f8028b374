/* SPDX-License-Identifier: Apache-2.0 */
/* See device.h.
 *
 * Bounds: u is half the distance from 1 to the next number of the type; below the smallest normal
 * number rounding is off by at most half the distance between subnormals.
 *
 *   type   digits   u        smallest normal
 *   f32    24       2^-24    2^-126
 *   bf16   8        2^-8     2^-126
 *   f16    11       2^-11    2^-14
 *
 * A result that went through k operations in fp32 whose operands and results are at most m was off
 * by k * 2^-24 * m before its own rounding (Higham, "Accuracy and stability", 2002, lemma 3.1, to
 * first order). */
#include "tests/gpu/device.h"

#include "base/rng.h"
#include "tests/gpu/cuhost.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    BUFFERS_MAX = 64,
    RANDOM_ORDERS = 3,
    GARBAGE = 0x5a,
    LARGE_BYTES = 1 << 20,
    LARGE_ROWS = 10000,
    LARGE_ROW_STEP = 101,
    UNIT_F32_LOG2 = -24,
};

static const struct {
    int digits, exponent_min, exponent_bits;
} formats[NNC_GPU_TYPE_COUNT] = {
    [NNC_GPU_F32] = {24, -126, 8},
    [NNC_GPU_BF16] = {8, -126, 8},
    [NNC_GPU_F16] = {11, -14, 5},
};

struct buffer {
    unsigned char *data, *before, *result, *first;
    size_t bytes;
};

static struct buffer buffers[BUFFERS_MAX];
static size_t buffer_count;
static bool counting;
static unsigned differences;

static void *must(void *memory) {
    cr_assert_not_null(memory);
    return memory;
}

void *device_alloc(size_t bytes) {
    cr_assert_lt(buffer_count, BUFFERS_MAX);
    struct buffer *buffer = &buffers[buffer_count++];
    *buffer = (struct buffer){.data = must(calloc(1, bytes)),
                              .before = must(malloc(bytes)),
                              .result = must(malloc(bytes)),
                              .first = must(malloc(bytes)),
                              .bytes = bytes};
    return buffer->data;
}

void device_clear(void) {
    for (size_t number = 0; number < buffer_count; number++) {
        free(buffers[number].data);
        free(buffers[number].before);
        free(buffers[number].result);
        free(buffers[number].first);
    }
    buffer_count = 0;
}

/* ---- launches ---- */

static bool declared(const struct cuhost_range *ranges, size_t count, const void *at, bool write) {
    for (size_t number = 0; number < count; number++) {
        const unsigned char *start = ranges[number].start;
        const unsigned char *byte = at;
        if (ranges[number].write == write && byte >= start && byte < start + ranges[number].bytes) {
            return true;
        }
    }
    return false;
}

static void check_ranges(const struct cuhost_range *ranges, size_t count, const char *kernel) {
    for (size_t range = 0; range < count; range++) {
        const unsigned char *start = ranges[range].start;
        bool inside = false;
        for (size_t number = 0; number < buffer_count; number++) {
            const struct buffer *buffer = &buffers[number];
            inside |= start >= buffer->data &&
                      start + ranges[range].bytes <= buffer->data + buffer->bytes;
        }
        cr_assert(inside, "%s declares %zu bytes that lie in no buffer", kernel,
                  ranges[range].bytes);
    }
}

/* After the second run: equal to the first, or untouched in both. */
static void check_buffer(const struct buffer *buffer, const struct cuhost_range *ranges,
                         size_t count, const char *kernel) {
    for (size_t byte = 0; byte < buffer->bytes; byte++) {
        const void *at = buffer->data + byte;
        bool changed = buffer->result[byte] != buffer->before[byte];
        bool write = declared(ranges, count, at, true);
        cr_assert(write || !changed, "%s writes what it does not declare", kernel);
        bool read = declared(ranges, count, at, false);
        unsigned char untouched = buffer->before[byte] ^ (read ? 0 : GARBAGE);
        bool same = write ? buffer->data[byte] == buffer->result[byte] ||
                                (!changed && buffer->data[byte] == untouched)
                          : buffer->data[byte] == untouched;
        cr_assert(same, "%s reads or writes what it does not declare", kernel);
    }
}

static void spoil_undeclared(const struct buffer *buffer, const struct cuhost_range *ranges,
                             size_t count) {
    for (size_t byte = 0; byte < buffer->bytes; byte++) {
        bool read = declared(ranges, count, buffer->data + byte, false);
        buffer->data[byte] = buffer->before[byte] ^ (read ? 0 : GARBAGE);
    }
}

static void run_twice(const struct cuhost_range *ranges, size_t count, void (*run)(void *),
                      void *closure) {
    check_ranges(ranges, count, cuhost_name(closure));
    for (size_t number = 0; number < buffer_count; number++) {
        memcpy(buffers[number].before, buffers[number].data, buffers[number].bytes);
    }
    run(closure);
    for (size_t number = 0; number < buffer_count; number++) {
        memcpy(buffers[number].result, buffers[number].data, buffers[number].bytes);
        spoil_undeclared(&buffers[number], ranges, count);
    }
    run(closure);
    for (size_t number = 0; number < buffer_count; number++) {
        check_buffer(&buffers[number], ranges, count, cuhost_name(closure));
        memcpy(buffers[number].data, buffers[number].result, buffers[number].bytes);
    }
}

/* Declarations are the same in every order, so they are checked in one. */
static bool checking;

void cuhost_submit(void *stream, const struct cuhost_range *ranges, size_t count,
                   void (*run)(void *), void *closure) {
    (void)stream;
    if (checking) {
        run_twice(ranges, count, run, closure);
    } else {
        run(closure);
    }
    free(closure);
}

void *cuhost_translate(const void *device) {
    return (void *)(uintptr_t)device;
}

static void compare_to_first(const char *order) {
    for (size_t number = 0; number < buffer_count; number++) {
        const struct buffer *buffer = &buffers[number];
        bool same = memcmp(buffer->data, buffer->first, buffer->bytes) == 0;
        differences += !same;
        cr_assert(same || counting, "buffer %zu differs when threads run in %s order", number,
                  order);
    }
}

static bool is_large(void) {
    size_t bytes = 0;
    for (size_t number = 0; number < buffer_count; number++) {
        bytes += buffers[number].bytes;
    }
    return bytes > LARGE_BYTES;
}

void device_run(int (*launch)(const void *context), const void *context) {
    unsigned char *start[BUFFERS_MAX];
    bool large = is_large();
    for (size_t number = 0; number < buffer_count; number++) {
        start[number] = must(malloc(buffers[number].bytes));
        memcpy(start[number], buffers[number].data, buffers[number].bytes);
    }
    for (int order = 0; order < (large ? 2 : 2 + RANDOM_ORDERS); order++) {
        for (size_t number = 0; number < buffer_count; number++) {
            memcpy(buffers[number].data, start[number], buffers[number].bytes);
        }
        cuhost_set_schedule(order < 2 ? (enum cuhost_order)order : CUHOST_RANDOM, (uint64_t)order);
        checking = order == 0 && !counting && !large;
        int code = launch(context);
        cr_assert(code == 0 || counting);
        for (size_t number = 0; order == 0 && number < buffer_count; number++) {
            memcpy(buffers[number].first, buffers[number].data, buffers[number].bytes);
        }
        compare_to_first(order == 1 ? "reverse" : "random");
    }
    for (size_t number = 0; number < buffer_count; number++) {
        memcpy(buffers[number].data, buffers[number].first, buffers[number].bytes);
        free(start[number]);
    }
}

void device_count_differences(void) {
    counting = true;
    differences = 0;
}

unsigned device_differences(void) {
    return differences;
}

/* ---- values ---- */

double device_round(enum nnc_gpu_type type, double value) {
    if (value == 0 || !isfinite(value)) {
        return value;
    }
    int exponent = ilogb(value);
    exponent = exponent < formats[type].exponent_min ? formats[type].exponent_min : exponent;
    int shift = formats[type].digits - 1 - exponent;
    double rounded = ldexp(nearbyint(ldexp(value, shift)), -shift);
    int limit = 1 - formats[type].exponent_min;
    return fabs(rounded) >= ldexp(1, limit) ? copysign(INFINITY, value) : rounded;
}

double device_get(enum nnc_gpu_type type, const void *values, size_t index) {
    if (type == NNC_GPU_F32) {
        return ((const float *)values)[index];
    }
    uint16_t bits = ((const uint16_t *)values)[index];
    int mantissa_bits = formats[type].digits - 1;
    int exponent_max = (1 << formats[type].exponent_bits) - 1;
    int exponent = bits >> mantissa_bits & exponent_max;
    double mantissa = bits & ((1 << mantissa_bits) - 1);
    double sign = bits >> 15 ? -1 : 1;
    if (exponent == exponent_max) {
        return mantissa != 0 ? NAN : sign * INFINITY;
    }
    mantissa += exponent > 0 ? 1 << mantissa_bits : 0;
    exponent = exponent > 0 ? exponent : 1;
    return sign * ldexp(mantissa, exponent - 1 + formats[type].exponent_min - mantissa_bits);
}

void device_set(enum nnc_gpu_type type, void *values, size_t index, double value) {
    if (type == NNC_GPU_F32) {
        ((float *)values)[index] = (float)value;
        return;
    }
    int mantissa_bits = formats[type].digits - 1;
    int infinity = ((1 << formats[type].exponent_bits) - 1) << mantissa_bits;
    double rounded = fabs(device_round(type, value));
    int bits = 0;
    if (isnan(value)) {
        bits = infinity | 1 << (mantissa_bits - 1);
    } else if (isinf(rounded)) {
        bits = infinity;
    } else if (rounded >= ldexp(1, formats[type].exponent_min)) {
        int exponent = ilogb(rounded);
        bits = (exponent - formats[type].exponent_min) << mantissa_bits;
        bits += (int)ldexp(rounded, mantissa_bits - exponent);
    } else {
        bits = (int)ldexp(rounded, mantissa_bits - formats[type].exponent_min);
    }
    ((uint16_t *)values)[index] = (uint16_t)(bits | (signbit(value) ? 0x8000 : 0));
}

/* ---- tensors ---- */

size_t tensor_rows(const struct nnc_gpu_tensor *shape) {
    return (size_t)shape->n * shape->h * shape->w;
}

size_t tensor_count(const struct nnc_gpu_tensor *shape) {
    return tensor_rows(shape) * shape->stride;
}

struct nnc_gpu_tensor tensor_shape(enum nnc_gpu_type type, uint32_t n, uint32_t h, uint32_t w,
                                   uint32_t channels) {
    return (struct nnc_gpu_tensor){type, n, h, w, channels, (channels + 7) / 8 * 8};
}

void *tensor_empty(const struct nnc_gpu_tensor *shape) {
    size_t bytes = tensor_count(shape) * (shape->type == NNC_GPU_F32 ? 4 : 2);
    return memset(device_alloc(bytes), 0xff, bytes);
}

void *tensor_noise(const struct nnc_gpu_tensor *shape, uint32_t stream, double mean) {
    void *values = tensor_empty(shape);
    struct nnc_rng rng = nnc_rng_make(11, NNC_RNG_SYNTHETIC, stream, 0);
    for (size_t index = 0; index < tensor_count(shape); index++) {
        bool real = index % shape->stride < shape->channels;
        device_set(shape->type, values, index, real ? mean + (double)nnc_rng_normal(&rng) : 0);
    }
    return values;
}

double tensor_get(const struct nnc_gpu_tensor *shape, const void *values, size_t row,
                  size_t channel) {
    return device_get(shape->type, values, row * shape->stride + channel);
}

float *floats_empty(size_t count) {
    return memset(device_alloc(count * sizeof(float)), 0xff, count * sizeof(float));
}

float *floats_noise(size_t count, uint32_t stream, double mean) {
    float *values = floats_empty(count);
    struct nnc_rng rng = nnc_rng_make(13, NNC_RNG_SYNTHETIC, stream, 0);
    for (size_t index = 0; index < count; index++) {
        values[index] = (float)mean + nnc_rng_normal(&rng);
    }
    return values;
}

/* ---- bounds ---- */

static double bound_of(enum nnc_gpu_type type, struct expected wanted) {
    double inside = ldexp(wanted.operations, UNIT_F32_LOG2) * wanted.magnitude;
    double last = ldexp(fabs(wanted.value) + inside, -formats[type].digits);
    return inside + last + ldexp(1, formats[type].exponent_min - formats[type].digits);
}

void expect_value(enum nnc_gpu_type type, double got, struct expected wanted, const char *what) {
    if (isnan(wanted.value)) {
        cr_assert(isnan(got), "%s: got %g, wanted NaN", what, got);
        return;
    }
    double bound = bound_of(type, wanted);
    bool infinite = isinf(device_round(type, wanted.value));
    cr_assert(
        infinite ? got == device_round(type, wanted.value) : fabs(got - wanted.value) <= bound,
        "%s: got %.9g, wanted %.9g, bound %.3g, type %d", what, got, wanted.value, bound, type);
}

void expect_tensor(const struct nnc_gpu_tensor *shape, const void *got,
                   struct expected (*of)(const void *context, size_t row, size_t channel),
                   const void *context, const char *what) {
    size_t step = tensor_rows(shape) > LARGE_ROWS ? LARGE_ROW_STEP : 1;
    for (size_t row = 0; row < tensor_rows(shape); row += step) {
        for (size_t channel = 0; channel < shape->stride; channel++) {
            double value = tensor_get(shape, got, row, channel);
            if (channel < shape->channels) {
                expect_value(shape->type, value, of(context, row, channel), what);
            } else {
                cr_assert(value == 0, "%s: padding is %g", what, value);
            }
        }
    }
}

void expect_zero_tail(const float *values, const struct nnc_gpu_tensor *shape, const char *what) {
    for (size_t channel = shape->channels; channel < shape->stride; channel++) {
        cr_assert(values[channel] == 0, "%s: padding is %g", what, (double)values[channel]);
    }
}

struct nnc_gpu_tensor shape_number(enum nnc_gpu_type type, unsigned number) {
    static const struct {
        uint32_t n, h, w, channels;
    } shapes[SHAPE_COUNT] = {
        {1, 1, 1, 1},   {1, 3, 5, 3},   {2, 7, 7, 8},   {3, 5, 4, 13},   {2, 3, 3, 64},
        {1, 1, 1, 100}, {5, 1, 1, 300}, {4, 17, 19, 8}, {2, 11, 13, 72},
    };
    cr_assert_lt(number, SHAPE_COUNT);
    return tensor_shape(type, shapes[number].n, shapes[number].h, shapes[number].w,
                        shapes[number].channels);
}

struct nnc_gpu_tensor shape_large(enum nnc_gpu_type type) {
    return tensor_shape(type, 2, 514, 515, 3);
}
