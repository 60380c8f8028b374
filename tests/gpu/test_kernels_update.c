/* SPDX-License-Identifier: Apache-2.0 */
/* The optimiser over arenas, against PyTorch's formulas in double. Parameters end in the middle of
 * a group, and what lies between them must stay as it was. */
#include "tests/gpu/device.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    CHUNKS_MAX = 16,
};

static const struct {
    uint32_t count, kind;
} params[] = {{2 * NNC_GPU_CHUNK + 5, 0}, {1, 1}, {64, 2}, {15, 0}, {NNC_GPU_CHUNK, 0}, {300, 1}};

enum {
    PARAM_COUNT = sizeof(params) / sizeof(params[0])
};

struct update_case {
    struct nnc_gpu_arena arena;
    struct nnc_gpu_chunk *chunks;
    struct nnc_gpu_range *ranges;
    struct nnc_gpu_step *step;
    struct nnc_gpu_scaler *scaler;
    void *gradients;
    float *sums, *norms;
    float *old_values, *old_momentum;
};

static void make_chunks(struct update_case *test) {
    struct nnc_gpu_chunk chunks[CHUNKS_MAX];
    uint32_t count = 0;
    uint64_t offset = 0;
    test->ranges = device_alloc(PARAM_COUNT * sizeof(*test->ranges));
    for (uint32_t param = 0; param < PARAM_COUNT; param++) {
        test->ranges[param].first = count;
        for (uint32_t done = 0; done < params[param].count; done += NNC_GPU_CHUNK) {
            uint32_t rest = params[param].count - done;
            chunks[count++] = (struct nnc_gpu_chunk){
                .offset = offset + done,
                .count = rest < NNC_GPU_CHUNK ? rest : NNC_GPU_CHUNK,
                .param = param,
                .kind = params[param].kind,
            };
        }
        test->ranges[param].count = count - test->ranges[param].first;
        test->arena.value_count = offset + params[param].count;
        offset += (params[param].count + 7) / 8 * 8;
    }
    test->chunks = device_alloc(count * sizeof(*chunks));
    memcpy(test->chunks, chunks, count * sizeof(*chunks));
    test->arena.chunks = test->chunks;
    test->arena.chunk_count = count;
    test->arena.param_count = PARAM_COUNT;
}

static float *copy_of(const float *values, size_t count) {
    float *copy = malloc(count * sizeof(*copy));
    cr_assert_not_null(copy);
    return memcpy(copy, values, count * sizeof(*copy));
}

static struct update_case make_case(enum nnc_gpu_type gradient, enum nnc_gpu_type copy) {
    struct update_case test = {.arena = {.gradient_type = gradient, .copy_type = copy}};
    make_chunks(&test);
    size_t count = test.arena.value_count;
    test.arena.values = floats_noise(count, 1, 0);
    test.arena.momentum = floats_noise(count, 2, 0);
    test.old_values = copy_of(test.arena.values, count);
    test.old_momentum = copy_of(test.arena.momentum, count);
    float *gradients = floats_noise(count, 3, 0);
    test.gradients = device_alloc(count * (gradient == NNC_GPU_F32 ? 4 : 2));
    for (size_t index = 0; index < count; index++) {
        device_set(gradient, test.gradients, index, 16 * (double)gradients[index]);
    }
    test.arena.gradients = test.gradients;
    test.arena.copy = device_alloc(count * (copy == NNC_GPU_F32 ? 4 : 2));
    test.step = device_alloc(sizeof(*test.step));
    *test.step = (struct nnc_gpu_step){
        .lr = 0.1f, .momentum = 0.9f, .weight_decay = {1e-2f, 0, 1e-3f}, .nesterov = 0};
    test.scaler = device_alloc(sizeof(*test.scaler));
    test.scaler->scale = 16;
    test.sums = floats_empty(2 * (size_t)test.arena.chunk_count);
    test.norms = floats_empty(2 * PARAM_COUNT);
    return test;
}

static void finish_case(struct update_case *test) {
    free(test->old_values);
    free(test->old_momentum);
    device_clear();
}

static double gradient_of(const struct update_case *test, size_t index) {
    return device_get(test->arena.gradient_type, test->gradients, index) /
           (double)test->scaler->scale;
}

/* ---- sums and norms ---- */

static int launch_sums(const void *context) {
    const struct update_case *test = context;
    return nnc_gpu_gradient_sums(NULL, &test->arena, test->scaler, test->sums);
}

static int launch_norms(const void *context) {
    const struct update_case *test = context;
    return nnc_gpu_norms(NULL, &test->arena, test->ranges, test->sums, test->norms);
}

Test(update, sums_of_squares_and_norms_of_each_parameter) {
    for (unsigned type = 0; type < NNC_GPU_TYPE_COUNT; type++) {
        struct update_case test = make_case(type, type);
        device_run(launch_sums, &test);
        device_run(launch_norms, &test);
        double norms[2 * PARAM_COUNT] = {0};
        for (size_t number = 0; number < test.arena.chunk_count; number++) {
            struct nnc_gpu_chunk chunk = test.chunks[number];
            double sums[2] = {0};
            for (size_t index = chunk.offset; index < chunk.offset + chunk.count; index++) {
                sums[0] += pow(gradient_of(&test, index), 2);
                sums[1] += pow((double)test.arena.values[index], 2);
            }
            for (size_t which = 0; which < 2; which++) {
                struct expected wanted = {sums[which], sums[which], chunk.count + 3};
                expect_value(NNC_GPU_F32, (double)test.sums[2 * number + which], wanted, "sum");
                norms[2 * chunk.param + which] += sums[which];
            }
        }
        for (size_t which = 0; which < 2 * PARAM_COUNT; which++) {
            double norm = sqrt(norms[which]);
            struct expected wanted = {norm, norm, NNC_GPU_CHUNK + 3};
            expect_value(NNC_GPU_F32, (double)test.norms[which], wanted, "norm");
        }
        cr_assert_eq(test.scaler->nonfinite, 0);
        finish_case(&test);
    }
}

Test(update, a_gradient_that_is_not_finite_is_noticed_wherever_it_stands) {
    static const size_t places[] = {0, 8191, 8192, 16388};
    for (unsigned number = 0; number < 4 * NNC_GPU_TYPE_COUNT; number++) {
        struct update_case test = make_case(number % 3, number % 3);
        device_set(number % 3, test.gradients, places[number / 3], number & 1 ? NAN : -INFINITY);
        device_run(launch_sums, &test);
        cr_assert_eq(test.scaler->nonfinite, 1, "at %zu", places[number / 3]);
        finish_case(&test);
    }
}

/* ---- sgd ---- */

static int launch_sgd(const void *context) {
    const struct update_case *test = context;
    const float *norms = test->step->trust > 0 ? test->norms : NULL;
    return nnc_gpu_sgd(NULL, &test->arena, test->step, test->scaler, norms);
}

/* What a parameter's step is multiplied with, LARS where it has norms. */
static double ratio_of(const struct update_case *test, uint32_t param) {
    double decay = test->step->weight_decay[params[param].kind];
    double g = test->norms[2 * param];
    double w = test->norms[2 * param + 1];
    bool lars = test->step->trust > 0 && params[param].kind == 0 && g > 0 && w > 0;
    return lars ? (double)test->step->trust * w / (g + decay * w) : 1;
}

static void check_value(const struct update_case *test, uint32_t param, size_t index) {
    double mu = test->step->momentum;
    double decay = test->step->weight_decay[params[param].kind];
    double w = test->old_values[index];
    double ratio = ratio_of(test, param);
    double d = ratio * (gradient_of(test, index) + decay * w);
    double m = mu * (double)test->old_momentum[index] + d;
    double size = ratio * (fabs(gradient_of(test, index)) + fabs(decay * w)) +
                  fabs(mu * (double)test->old_momentum[index]);
    double move = test->step->nesterov ? d + mu * m : m;
    double rate = test->step->lr;
    struct expected momentum = {m, size, 9};
    struct expected value = {w - rate * move, fabs(w) + 2 * rate * size, 15};
    expect_value(NNC_GPU_F32, (double)test->arena.momentum[index], momentum, "momentum");
    expect_value(NNC_GPU_F32, (double)test->arena.values[index], value, "value");
    double copy = device_get(test->arena.copy_type, test->arena.copy, index);
    double rounded = device_round(test->arena.copy_type, (double)test->arena.values[index]);
    cr_assert_eq(copy, rounded, "the copy is not the value in its type");
}

static void check_all(const struct update_case *test) {
    size_t next = 0;
    for (size_t number = 0; number < test->arena.chunk_count; number++) {
        struct nnc_gpu_chunk chunk = test->chunks[number];
        for (; next < chunk.offset; next++) {
            cr_assert_eq(test->arena.values[next], test->old_values[next], "wrote into a gap");
        }
        for (; next < chunk.offset + chunk.count; next++) {
            check_value(test, chunk.param, next);
        }
    }
}

Test(update, sgd_with_momentum_and_decay_in_all_pairs_of_types) {
    for (unsigned number = 0; number < 2 * NNC_GPU_TYPE_COUNT * NNC_GPU_TYPE_COUNT; number++) {
        struct update_case test = make_case(number % 3, number / 3 % 3);
        test.step->nesterov = number / 9;
        device_run(launch_sgd, &test);
        check_all(&test);
        finish_case(&test);
    }
}

Test(update, lars_scales_the_step_of_weights_alone) {
    struct update_case test = make_case(NNC_GPU_BF16, NNC_GPU_BF16);
    test.step->trust = 0.02f;
    device_run(launch_sums, &test);
    device_run(launch_norms, &test);
    test.norms[2 * 3] = 0; /* a parameter without gradient: the plain step */
    cr_assert_lt(ratio_of(&test, 0), 0.5);
    cr_assert_eq(ratio_of(&test, 3), 1);
    device_run(launch_sgd, &test);
    check_all(&test);
    finish_case(&test);
}

Test(update, no_copy_is_written_where_none_is_kept) {
    struct update_case test = make_case(NNC_GPU_F32, NNC_GPU_F32);
    void *copy = test.arena.copy;
    test.arena.copy = NULL;
    device_run(launch_sgd, &test);
    test.arena.copy = memcpy(copy, test.arena.values, test.arena.value_count * sizeof(float));
    check_all(&test);
    finish_case(&test);
}

Test(update, nothing_moves_after_a_gradient_that_is_not_finite) {
    struct update_case test = make_case(NNC_GPU_F16, NNC_GPU_F16);
    size_t bytes = test.arena.value_count * sizeof(float);
    test.scaler->nonfinite = 1;
    device_run(launch_sgd, &test);
    cr_assert_arr_eq(test.arena.values, test.old_values, bytes);
    cr_assert_arr_eq(test.arena.momentum, test.old_momentum, bytes);
    cr_assert_eq(device_get(NNC_GPU_F16, test.arena.copy, 0), 0);
    finish_case(&test);
}

/* ---- scaler ---- */

static int launch_scaler(const void *context) {
    return nnc_gpu_scaler_update(NULL, (struct nnc_gpu_scaler *)(uintptr_t)context);
}

static struct nnc_gpu_scaler update_of(struct nnc_gpu_scaler before) {
    struct nnc_gpu_scaler *scaler = device_alloc(sizeof(*scaler));
    *scaler = before;
    device_run(launch_scaler, scaler);
    struct nnc_gpu_scaler after = *scaler;
    device_clear();
    return after;
}

Test(update, the_loss_scale_halves_after_a_bad_step_but_not_below_one) {
    struct nnc_gpu_scaler bad = {.scale = 1024, .good_steps = 7, .nonfinite = 1, .dynamic = 1};
    struct nnc_gpu_scaler after = update_of(bad);
    cr_assert_eq(after.scale, 512);
    cr_assert_eq(after.good_steps, 0);
    cr_assert_eq(after.nonfinite, 0);
    cr_assert_eq(after.skipped, 1);
    bad.scale = 1;
    cr_assert_eq(update_of(bad).scale, 1);
}

Test(update, the_loss_scale_doubles_after_two_thousand_good_steps) {
    struct nnc_gpu_scaler good = {.scale = 1024, .good_steps = 1998, .dynamic = 1, .skipped = 3};
    struct nnc_gpu_scaler after = update_of(good);
    cr_assert_eq(after.scale, 1024);
    cr_assert_eq(after.good_steps, 1999);
    after = update_of(after);
    cr_assert_eq(after.scale, 2048);
    cr_assert_eq(after.good_steps, 0);
    cr_assert_eq(after.skipped, 3);
    good.scale = 16777216;
    good.good_steps = 1999;
    cr_assert_eq(update_of(good).scale, 16777216);
}

static int launch_count(const void *context) {
    return nnc_gpu_count(NULL, *(uint64_t *const *)context);
}

Test(update, a_count_goes_up_by_one) {
    uint64_t *counter = device_alloc(sizeof(*counter));
    *counter = 0xffffffff;
    device_run(launch_count, &counter);
    cr_expect_eq(*counter, 0x100000000);
    device_run(launch_count, &counter);
    cr_expect_eq(*counter, 0x100000001);
    device_clear();
}

Test(update, a_fixed_loss_scale_stays_but_bad_steps_count) {
    struct nnc_gpu_scaler fixed = {.scale = 1, .nonfinite = 1, .skipped = 4};
    struct nnc_gpu_scaler after = update_of(fixed);
    cr_assert_eq(after.scale, 1);
    cr_assert_eq(after.nonfinite, 0);
    cr_assert_eq(after.skipped, 5);
}
