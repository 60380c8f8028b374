/* SPDX-License-Identifier: Apache-2.0 */
/* Kernels that handle each value alone, against plain C in double. Operations: each addition or
 * product is one; expf counts 4 and tanhf 5 (CUDA C++ Programming Guide, table of maximum errors; a
 * unit in the last place is two of ours). */
#include "base/rng.h"
#include "tests/gpu/device.h"
#include "workers/dropout.h"

#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

enum {
    EXP_OPERATIONS = 4,
    TANH_OPERATIONS = 5,
    SIGMOID_OPERATIONS = EXP_OPERATIONS + 3,
};

/* Everything that a test's launch and its reference see. */
struct pointwise_case {
    struct nnc_gpu_tensor shape;
    enum nnc_gpu_act act;
    bool accumulate;
    const void *x, *z, *y, *dy;
    const float *bias;
    void *out;
    const void *old; /* what `out` held before */
    const struct nnc_gpu_step *step;
    struct nnc_gpu_dropout dropout;
    struct nnc_dropout mask;
};

static double act_of(enum nnc_gpu_act act, double value) {
    switch (act) {
    case NNC_GPU_RELU:
        return value < 0 ? 0 : value;
    case NNC_GPU_SIGMOID:
        return 1 / (1 + exp(-value));
    case NNC_GPU_TANH:
        return tanh(value);
    case NNC_GPU_NONE:
        break;
    }
    return value;
}

static double slope_of(enum nnc_gpu_act act, double y) {
    switch (act) {
    case NNC_GPU_RELU:
        return y > 0;
    case NNC_GPU_SIGMOID:
        return y * (1 - y);
    case NNC_GPU_TANH:
        return 1 - y * y;
    case NNC_GPU_NONE:
        break;
    }
    return 1;
}

/* A copy of a tensor, on the device too. */
static void *copy_of(const struct nnc_gpu_tensor *shape, const void *values) {
    void *copy = tensor_empty(shape);
    return memcpy(copy, values, tensor_count(shape) * (shape->type == NNC_GPU_F32 ? 4 : 2));
}

static double old_at(const struct pointwise_case *test, size_t row, size_t channel) {
    return test->accumulate ? tensor_get(&test->shape, test->old, row, channel) : 0;
}

static int launch_pointwise(const void *context) {
    const struct pointwise_case *test = context;
    return nnc_gpu_pointwise(NULL, &test->shape, test->act, test->x, test->z, test->bias,
                             test->out);
}

static struct expected pointwise_at(const void *context, size_t row, size_t channel) {
    const struct pointwise_case *test = context;
    double x = tensor_get(&test->shape, test->old, row, channel);
    double z = test->z ? tensor_get(&test->shape, test->z, row, channel) : 0;
    double bias = test->bias ? (double)test->bias[channel] : 0;
    double magnitude = fabs(x) + fabs(z) + fabs(bias);
    return (struct expected){act_of(test->act, x + z + bias), magnitude + 1,
                             2 + SIGMOID_OPERATIONS};
}

static void check_pointwise(struct nnc_gpu_tensor shape, enum nnc_gpu_act act, unsigned parts) {
    struct pointwise_case test = {.shape = shape, .act = act};
    test.x = tensor_noise(&shape, 1, 0.5);
    test.old = copy_of(&shape, test.x);
    test.z = parts & 1 ? tensor_noise(&shape, 2, 0) : NULL;
    test.bias = parts & 2 ? floats_noise(shape.channels, 3, 0) : NULL;
    test.out = parts & 4 ? (void *)(uintptr_t)test.x : tensor_empty(&shape);
    device_run(launch_pointwise, &test);
    expect_tensor(&shape, test.out, pointwise_at, &test, "pointwise");
    device_clear();
}

Test(pointwise, adds_shortcut_and_bias_and_applies_the_activation_also_in_place) {
    for (unsigned number = 0; number < NNC_GPU_TYPE_COUNT * SHAPE_COUNT; number++) {
        struct nnc_gpu_tensor shape =
            shape_number(number % NNC_GPU_TYPE_COUNT, number / NNC_GPU_TYPE_COUNT);
        for (unsigned act = NNC_GPU_NONE; act <= NNC_GPU_TANH; act++) {
            check_pointwise(shape, act, number + act);
            check_pointwise(shape, act, number + act + 4);
        }
    }
}

Test(pointwise, keeps_not_a_number) {
    for (unsigned type = 0; type < NNC_GPU_TYPE_COUNT; type++) {
        struct pointwise_case test = {.shape = tensor_shape(type, 1, 1, 1, 3)};
        void *x = tensor_noise(&test.shape, 1, 0);
        device_set(type, x, 1, NAN);
        test.x = x;
        test.act = NNC_GPU_RELU;
        test.out = tensor_empty(&test.shape);
        device_run(launch_pointwise, &test);
        cr_assert(isnan(tensor_get(&test.shape, test.out, 0, 1)));
        cr_assert_not(isnan(tensor_get(&test.shape, test.out, 0, 0)));
        device_clear();
    }
}

static int launch_act_backward(const void *context) {
    const struct pointwise_case *test = context;
    return nnc_gpu_act_backward(NULL, &test->shape, test->act, test->y, test->dy, test->accumulate,
                                test->out);
}

static struct expected act_backward_at(const void *context, size_t row, size_t channel) {
    const struct pointwise_case *test = context;
    double dy = tensor_get(&test->shape, test->dy, row, channel);
    double y = tensor_get(&test->shape, test->y, row, channel);
    double old = old_at(test, row, channel);
    return (struct expected){dy * slope_of(test->act, y) + old, fabs(dy) * (1 + y * y) + fabs(old),
                             4};
}

static void check_act_backward(struct nnc_gpu_tensor shape, enum nnc_gpu_act act, bool accumulate) {
    struct pointwise_case test = {.shape = shape, .act = act, .accumulate = accumulate};
    test.y = tensor_noise(&shape, 1, 0);
    test.dy = tensor_noise(&shape, 2, 0);
    test.out = tensor_noise(&shape, 3, 0);
    test.old = copy_of(&shape, test.out);
    device_run(launch_act_backward, &test);
    expect_tensor(&shape, test.out, act_backward_at, &test, "act_backward");
    device_clear();
}

Test(pointwise, undoes_the_activation_and_adds_where_asked) {
    for (unsigned number = 0; number < NNC_GPU_TYPE_COUNT * SHAPE_COUNT; number++) {
        struct nnc_gpu_tensor shape =
            shape_number(number % NNC_GPU_TYPE_COUNT, number / NNC_GPU_TYPE_COUNT);
        for (unsigned act = NNC_GPU_NONE; act <= NNC_GPU_TANH; act++) {
            check_act_backward(shape, act, number & 1);
            check_act_backward(shape, act, !(number & 1));
        }
    }
}

Test(pointwise, undoes_the_activation_in_place) {
    struct nnc_gpu_tensor shape = tensor_shape(NNC_GPU_BF16, 2, 3, 3, 13);
    struct pointwise_case test = {.shape = shape, .act = NNC_GPU_TANH};
    test.y = tensor_noise(&shape, 1, 0);
    test.out = tensor_noise(&shape, 2, 0);
    const void *dy = copy_of(&shape, test.out);
    test.dy = test.out;
    device_run(launch_act_backward, &test);
    test.dy = dy;
    expect_tensor(&shape, test.out, act_backward_at, &test, "act_backward in place");
    device_clear();
}

static int launch_accumulate(const void *context) {
    const struct pointwise_case *test = context;
    return nnc_gpu_accumulate(NULL, &test->shape, test->dy, test->accumulate, test->out);
}

Test(pointwise, accumulate_copies_or_adds) {
    for (unsigned number = 0; number < NNC_GPU_TYPE_COUNT * SHAPE_COUNT; number++) {
        struct nnc_gpu_tensor shape =
            shape_number(number % NNC_GPU_TYPE_COUNT, number / NNC_GPU_TYPE_COUNT);
        for (int accumulate = 0; accumulate < 2; accumulate++) {
            struct pointwise_case test = {.shape = shape, .accumulate = accumulate};
            test.dy = tensor_noise(&shape, 2, 0);
            test.y = test.dy;
            test.out = tensor_noise(&shape, 3, 0);
            test.old = copy_of(&shape, test.out);
            device_run(launch_accumulate, &test);
            expect_tensor(&shape, test.out, act_backward_at, &test, "accumulate");
            device_clear();
        }
    }
}

static int launch_dropout(const void *context) {
    const struct pointwise_case *test = context;
    return nnc_gpu_dropout(NULL, &test->shape, &test->dropout, test->step, test->x,
                           test->accumulate, test->out);
}

static struct expected dropout_at(const void *context, size_t row, size_t channel) {
    const struct pointwise_case *test = context;
    size_t plane = (size_t)test->shape.h * test->shape.w;
    uint32_t feature = (uint32_t)(channel * plane + row % plane);
    uint32_t sample = test->step->first + (uint32_t)(row / plane);
    bool keep = nnc_dropout_keep(&test->mask, sample, feature);
    double x = tensor_get(&test->shape, test->x, row, channel);
    double old = old_at(test, row, channel);
    double value = keep ? x * (double)test->mask.scale : 0;
    return (struct expected){value + old, fabs(value) + fabs(old), test->accumulate ? 2 : 1};
}

static void check_dropout(struct nnc_gpu_tensor shape, double p, bool accumulate) {
    struct pointwise_case test = {.shape = shape, .accumulate = accumulate};
    struct nnc_gpu_step *step = device_alloc(sizeof(*step));
    *step = (struct nnc_gpu_step){.step = 77, .first = 1000003};
    test.step = step;
    test.mask = nnc_dropout_make(0x123456789abcdef, step->step, 9, p);
    test.dropout = (struct nnc_gpu_dropout){.key = {test.mask.key[0], test.mask.key[1]},
                                            .node = test.mask.node,
                                            .threshold = test.mask.threshold,
                                            .scale = test.mask.scale};
    test.x = tensor_noise(&shape, 1, 3);
    test.out = tensor_noise(&shape, 2, 0);
    test.old = copy_of(&shape, test.out);
    device_run(launch_dropout, &test);
    expect_tensor(&shape, test.out, dropout_at, &test, "dropout");
    for (size_t row = 0; !accumulate && row < tensor_rows(&shape); row++) {
        for (size_t channel = 0; channel < shape.channels; channel++) {
            bool kept = tensor_get(&shape, test.out, row, channel) != 0;
            bool wanted = dropout_at(&test, row, channel).value != 0;
            cr_assert_eq(kept, wanted, "dropout decides otherwise in row %zu", row);
        }
    }
    device_clear();
}

Test(pointwise, dropout_keeps_what_all_backends_keep) {
    static const double rates[] = {0, 0.3, 0.5, 1};
    for (unsigned number = 0; number < NNC_GPU_TYPE_COUNT * SHAPE_COUNT; number++) {
        struct nnc_gpu_tensor shape =
            shape_number(number % NNC_GPU_TYPE_COUNT, number / NNC_GPU_TYPE_COUNT);
        check_dropout(shape, rates[number % 4], false);
        check_dropout(shape, rates[(number + 2) % 4], true);
    }
}

Test(pointwise, threads_take_several_rows) {
    check_pointwise(shape_large(NNC_GPU_BF16), NNC_GPU_RELU, 3);
    check_act_backward(shape_large(NNC_GPU_F16), NNC_GPU_SIGMOID, true);
    check_dropout(shape_large(NNC_GPU_BF16), 0.5, false);
}

/* ---- input ---- */

static int launch_input(const void *context) {
    const struct nnc_gpu_input *params = ((const void *const *)context)[0];
    return nnc_gpu_input(NULL, params, ((void *const *)context)[1]);
}

static struct expected pixel_at(const void *context, size_t row, size_t channel) {
    const struct nnc_gpu_input *params = context;
    size_t plane = (size_t)params->y.h * params->y.w;
    size_t index = row / plane * params->sample_stride + row % plane * params->y.channels + channel;
    double product = params->images[index] * (double)params->scale[channel];
    double shift = params->shift[channel];
    return (struct expected){product + shift, fabs(product) + fabs(shift), 2};
}

/* gap: bytes between samples. */
static void check_input(struct nnc_gpu_tensor shape, size_t gap) {
    struct nnc_gpu_input params = {
        .y = shape,
        .scale = {0.017f, 0.018f, 0.0171f, 0.5f},
        .shift = {-2.1f, -2.0f, -1.8f, 0.25f},
    };
    size_t sample = (size_t)shape.h * shape.w * shape.channels;
    params.sample_stride = sample + gap;
    size_t bytes = (shape.n - 1) * params.sample_stride + sample;
    uint8_t *images = device_alloc(bytes);
    struct nnc_rng rng = nnc_rng_make(3, NNC_RNG_SYNTHETIC, 0, 0);
    for (size_t index = 0; index < bytes; index++) {
        images[index] = (uint8_t)nnc_rng_u32(&rng);
    }
    params.images = images;
    void *y = tensor_empty(&shape);
    device_run(launch_input, (const void *const[]){&params, y});
    expect_tensor(&shape, y, pixel_at, &params, "input");
    device_clear();
}

Test(input, scales_bytes_of_one_to_four_channels) {
    for (unsigned number = 0; number < 4 * NNC_GPU_TYPE_COUNT; number++) {
        check_input(tensor_shape(number % NNC_GPU_TYPE_COUNT, 3, 7, 5, 1 + number / 3), number);
    }
}

Test(input, threads_take_several_pixels) {
    check_input(shape_large(NNC_GPU_BF16), 5);
}

/* ---- types ---- */

struct cast_case {
    enum nnc_gpu_type type;
    size_t count;
    float *floats;
    void *values;
    bool back;
};

static int launch_cast(const void *context) {
    const struct cast_case *test = context;
    if (test->back) {
        return nnc_gpu_to_float(NULL, test->type, test->values, test->count, test->floats);
    }
    return nnc_gpu_cast(NULL, test->type, test->floats, test->count, test->values);
}

Test(cast, rounds_to_the_nearest_value_and_reads_it_back) {
    /* The last: more than a grid has threads. */
    static const size_t counts[] = {1, 7, 8, 9, 2049, 2048 * 2048 + 13};
    for (unsigned number = 0; number < 6 * NNC_GPU_TYPE_COUNT; number++) {
        struct cast_case test = {.type = number % 3, .count = counts[number / 3]};
        test.floats = floats_noise(test.count, number, 0);
        if (test.count > 8) {
            memcpy(test.floats, (const float[]){NAN, INFINITY, -0.0f, 1e-6f, 70000, 3e-8f}, 24);
        }
        test.values = device_alloc(test.count * (test.type == NNC_GPU_F32 ? 4 : 2));
        device_run(launch_cast, &test);
        float *back = floats_empty(test.count);
        struct cast_case read = {test.type, test.count, back, test.values, true};
        device_run(launch_cast, &read);
        for (size_t index = 0; index < test.count; index++) {
            double wanted = device_round(test.type, (double)test.floats[index]);
            bool same = isnan(wanted) ? isnan(back[index]) : (double)back[index] == wanted;
            cr_assert(same, "%g became %g", (double)test.floats[index], (double)back[index]);
        }
        device_clear();
    }
}
