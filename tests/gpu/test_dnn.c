/* SPDX-License-Identifier: Apache-2.0 */
/* The choice of a plan, with the real cuDNN and described devices. */
#include "base/err.h"
#include "gpu/plan_cache.h"
#include "tests/gpu/dnn_cases.h"
#include "tests/support/fixture.h"

#include <criterion/criterion.h>
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
    T4,
    A100,
};

static const struct nnc_dnn_policy usual = {.workspace_cap = (size_t)512 << 20};

/* VGG16's third convolution on smaller images; its gradient has many plans. */
static const struct nnc_dnn_key vgg = {
    .op = NNC_DNN_BACKWARD_FILTER,
    .type = NNC_GPU_F32,
    .n = 32,
    .c = 64,
    .h = 56,
    .w = 56,
    .k = 128,
    .r = 3,
    .s = 3,
    .stride_h = 1,
    .stride_w = 1,
    .pad_h = 1,
    .pad_w = 1,
};

static struct nnc_dnn_device *device_of(int number) {
    struct nnc_dnn_device *device = NULL;
    if (dlopen("libcudnn_engines_precompiled.so.9", RTLD_LAZY) == NULL) {
        cr_skip_test("cuDNN's engines cannot be loaded: %s", dlerror());
    }
    int code = dnn_device_load(&dnn_devices[number], &device);
    cr_assert_eq(code, 0, "%s", nnc_error_text());
    return device;
}

static struct nnc_dnn_plan *select_plan(struct nnc_dnn_device *device,
                                        const struct nnc_dnn_key *key,
                                        const struct nnc_dnn_policy *policy,
                                        const struct nnc_dnn_timer *timer) {
    struct nnc_dnn_plan *plan = NULL;
    int code = nnc_dnn_select(device, key, policy, timer, &plan);
    cr_assert_eq(code, 0, "%s", nnc_error_text());
    return plan;
}

Test(dnn, a_description_without_a_key_is_refused_by_its_name) {
    struct nnc_dnn_device *device = NULL;
    cr_assert_eq(nnc_dnn_describe("{\"deviceVer\": 800}", &device), -NNC_E_FORMAT);
    cr_expect_not_null(strstr(nnc_error_text(), "maxGridSize"), "%s", nnc_error_text());
    cr_assert_eq(nnc_dnn_describe("", &device), -NNC_E_FORMAT);
    cr_assert_null(device);
}

Test(dnn, a_device_that_is_not_there_is_not_opened) {
    struct nnc_dnn_device *device = NULL;
    cr_assert_eq(nnc_dnn_open(99, &device), -NNC_E_HARDWARE);
    cr_expect_not_null(strstr(nnc_error_text(), "device 99"), "%s", nnc_error_text());
    cr_assert_null(device);
    nnc_dnn_close(NULL);
    nnc_dnn_plan_free(NULL);
}

Test(dnn, properties_describe_the_same_device_again) {
    struct nnc_dnn_device *device = device_of(A100);
    struct nnc_dnn_device *again = NULL;
    char *json = NULL;
    char *json_again = NULL;
    cr_assert_eq(nnc_dnn_properties(device, &json), 0);
    cr_assert_eq(nnc_dnn_describe(json, &again), 0, "%s", nnc_error_text());
    cr_assert_eq(nnc_dnn_properties(again, &json_again), 0);
    cr_assert_str_eq(json, json_again);
    free(json);
    free(json_again);
    nnc_dnn_close(device);
    nnc_dnn_close(again);
}

Test(dnn, a_small_workspace_gives_another_plan) {
    struct nnc_dnn_device *device = device_of(A100);
    struct nnc_dnn_plan *plan = select_plan(device, &vgg, &usual, NULL);
    struct nnc_dnn_policy small = usual;
    small.workspace_cap = nnc_dnn_plan_workspace(plan) - 1;
    cr_assert_gt(nnc_dnn_plan_workspace(plan), 0);
    nnc_dnn_plan_free(plan);
    plan = select_plan(device, &vgg, &small, NULL);
    cr_expect_leq(nnc_dnn_plan_workspace(plan), small.workspace_cap);
    nnc_dnn_plan_free(plan);
    nnc_dnn_close(device);
}

Test(dnn, deterministic_plans_are_deterministic) {
    struct nnc_dnn_device *device = device_of(T4);
    struct nnc_dnn_policy deterministic = usual;
    deterministic.deterministic = true;
    /* AlexNet's second convolution: its first plan adds with atomics. */
    struct nnc_dnn_key key = vgg;
    key.h = key.w = 27;
    key.k = 192;
    key.r = key.s = 5;
    key.pad_h = key.pad_w = 2;
    struct nnc_dnn_plan *plan = select_plan(device, &key, &usual, NULL);
    cr_assert(nnc_dnn_plan_notes(plan) & NNC_DNN_NONDETERMINISTIC,
              "the test wants a key whose first plan is nondeterministic");
    nnc_dnn_plan_free(plan);
    plan = select_plan(device, &key, &deterministic, NULL);
    cr_expect_eq(nnc_dnn_plan_notes(plan) & NNC_DNN_NONDETERMINISTIC, 0);
    nnc_dnn_plan_free(plan);
    nnc_dnn_close(device);
}

Test(dnn, bf16_on_a_device_without_it_names_fp16) {
    struct nnc_dnn_device *device = device_of(T4);
    struct nnc_dnn_key key = vgg;
    key.type = NNC_GPU_BF16;
    struct nnc_dnn_plan *plan = NULL;
    cr_assert_eq(nnc_dnn_select(device, &key, &usual, NULL, &plan), -ENOTSUP);
    cr_expect_not_null(strstr(nnc_error_text(), "--amp fp16"), "%s", nnc_error_text());
    cr_expect_not_null(strstr(nnc_error_text(), "(32,64,56,56)"), "%s", nnc_error_text());
    cr_assert_null(plan);
    nnc_dnn_close(device);
}

/* Times from a list: one number a call, three calls a plan. Then it repeats the last. */
struct clock_list {
    const int64_t *times;
    uint32_t count, calls;
    int64_t engines[64]; /* of each call */
};

static int64_t listed_time(void *context, const struct nnc_dnn_plan *plan) {
    struct clock_list *list = context;
    cr_assert_lt(list->calls, 64);
    list->engines[list->calls] = nnc_dnn_plan_engine(plan);
    uint32_t place = list->calls < list->count ? list->calls : list->count - 1;
    list->calls++;
    return list->times[place];
}

Test(dnn, autotune_takes_the_smallest_median_of_the_plans_that_run) {
    struct nnc_dnn_device *device = device_of(A100);
    static const int64_t times[] = {
        50,       40, 45, /* 45 */
        -ENOTSUP,         /* does not run: counts for nothing */
        1,        90, 90, /* 90, however fast it was once */
        44,       10, 99, /* 44: the best */
        60,       60, 60, /* the fourth that runs ends the search */
    };
    struct clock_list list = {times, sizeof(times) / sizeof(times[0]), 0, {0}};
    const struct nnc_dnn_timer timer = {listed_time, &list};
    struct nnc_dnn_policy policy = usual;
    policy.autotune = 4;
    struct nnc_dnn_plan *plan = select_plan(device, &vgg, &policy, &timer);
    cr_expect_eq(list.calls, list.count);
    cr_expect_eq(nnc_dnn_plan_engine(plan), list.engines[7]);
    nnc_dnn_plan_free(plan);
    nnc_dnn_close(device);
}

Test(dnn, plans_that_all_fail_to_run_are_no_plan) {
    struct nnc_dnn_device *device = device_of(A100);
    static const int64_t times[] = {-ENOTSUP};
    struct clock_list list = {times, 1, 0, {0}};
    const struct nnc_dnn_timer timer = {listed_time, &list};
    struct nnc_dnn_policy policy = usual;
    policy.autotune = 2;
    struct nnc_dnn_plan *plan = NULL;
    cr_assert_eq(nnc_dnn_select(device, &vgg, &policy, &timer, &plan), -ENOTSUP);
    cr_expect_not_null(strstr(nnc_error_text(), "do not run"), "%s", nnc_error_text());
    cr_expect_gt(list.calls, 1);
    nnc_dnn_close(device);
}

Test(dnn, what_else_goes_wrong_with_a_plan_ends_the_search) {
    struct nnc_dnn_device *device = device_of(A100);
    static const int64_t times[] = {50, 50, 50, -NNC_E_STOPPED};
    struct clock_list list = {times, 4, 0, {0}};
    const struct nnc_dnn_timer timer = {listed_time, &list};
    struct nnc_dnn_policy policy = usual;
    policy.autotune = 4;
    struct nnc_dnn_plan *plan = NULL;
    cr_assert_eq(nnc_dnn_select(device, &vgg, &policy, &timer, &plan), -NNC_E_STOPPED);
    cr_expect_null(plan);
    cr_expect_eq(list.calls, 4);
    nnc_dnn_close(device);
}

Test(dnn, without_autotune_no_plan_is_timed) {
    struct nnc_dnn_device *device = device_of(A100);
    static const int64_t times[] = {1};
    struct clock_list list = {times, 1, 0, {0}};
    const struct nnc_dnn_timer timer = {listed_time, &list};
    nnc_dnn_plan_free(select_plan(device, &vgg, &usual, &timer));
    cr_expect_eq(list.calls, 0);
    nnc_dnn_close(device);
}

Test(dnn, a_plan_is_the_same_after_its_text) {
    struct nnc_dnn_device *device = device_of(A100);
    for (uint32_t op = 0; op < NNC_DNN_OP_COUNT; op++) {
        struct nnc_dnn_key key = vgg;
        key.op = op;
        struct nnc_dnn_plan *plan = select_plan(device, &key, &usual, NULL);
        struct nnc_dnn_plan *loaded = NULL;
        char *text = NULL;
        char *loaded_text = NULL;
        cr_assert_eq(nnc_dnn_plan_text(plan, &text), 0);
        cr_assert_eq(nnc_dnn_plan_load(device, &key, text, &loaded), 0, "%s", nnc_error_text());
        cr_assert_eq(nnc_dnn_plan_text(loaded, &loaded_text), 0);
        cr_expect_str_eq(text, loaded_text, "operation %u", op);
        cr_expect_eq(nnc_dnn_plan_engine(plan), nnc_dnn_plan_engine(loaded));
        cr_expect_eq(nnc_dnn_plan_notes(plan), nnc_dnn_plan_notes(loaded));
        cr_expect_eq(nnc_dnn_plan_workspace(plan), nnc_dnn_plan_workspace(loaded));
        free(text);
        free(loaded_text);
        nnc_dnn_plan_free(plan);
        nnc_dnn_plan_free(loaded);
    }
    nnc_dnn_close(device);
}

Test(dnn, a_text_that_is_no_plan_of_this_device_is_refused) {
    struct nnc_dnn_device *t4 = device_of(T4);
    struct nnc_dnn_device *a100 = device_of(A100);
    struct nnc_dnn_plan *plan = select_plan(a100, &vgg, &usual, NULL);
    struct nnc_dnn_plan *loaded = NULL;
    char *text = NULL;
    cr_assert_eq(nnc_dnn_plan_text(plan, &text), 0);
    cr_expect_eq(nnc_dnn_plan_load(t4, &vgg, text, &loaded), -NNC_E_FORMAT);
    cr_expect_eq(nnc_dnn_plan_load(a100, &vgg, "", &loaded), -NNC_E_FORMAT);
    cr_expect_eq(nnc_dnn_plan_load(a100, &vgg, "{\"cudnnVersion\":1}", &loaded), -NNC_E_FORMAT);
    text[strlen(text) / 2] = '\0';
    cr_expect_eq(nnc_dnn_plan_load(a100, &vgg, text, &loaded), -NNC_E_FORMAT);
    cr_expect_null(loaded);
    free(text);
    nnc_dnn_plan_free(plan);
    nnc_dnn_close(a100);
    nnc_dnn_close(t4);
}

static struct nnc_plan_cache *cache_of(const struct nnc_dnn_device *device) {
    struct nnc_plan_cache *cache = NULL;
    char *properties = NULL;
    cr_assert_eq(nnc_dnn_properties(device, &properties), 0);
    cr_assert_eq(nnc_plan_cache_open(fixture_path("plans"), nnc_dnn_version(), properties, &cache),
                 0);
    free(properties);
    return cache;
}

/* Select through the cache; the number of plans that were timed for it. */
static uint32_t timed_plans(struct nnc_plan_cache *cache, struct nnc_dnn_device *device,
                            int64_t *ret_engine) {
    static const int64_t times[] = {9, 9, 9, 5, 5, 5, 7, 7, 7};
    struct clock_list list = {times, 9, 0, {0}};
    const struct nnc_dnn_timer timer = {listed_time, &list};
    struct nnc_dnn_policy policy = usual;
    policy.autotune = 3;
    struct nnc_dnn_plan *plan = NULL;
    cr_assert_eq(nnc_plan_cache_select(cache, device, &vgg, &policy, &timer, &plan), 0, "%s",
                 nnc_error_text());
    *ret_engine = nnc_dnn_plan_engine(plan);
    nnc_dnn_plan_free(plan);
    return list.calls / 3;
}

Test(dnn, plans_are_timed_in_the_first_run_only, .init = fixture_begin, .fini = fixture_end) {
    struct nnc_dnn_device *a100 = device_of(A100);
    struct nnc_dnn_device *t4 = device_of(T4);
    int64_t chosen, engine;
    struct nnc_plan_cache *cache = cache_of(a100);
    cr_expect_eq(timed_plans(cache, a100, &chosen), 3);
    cr_expect_eq(timed_plans(cache, a100, &engine), 0);
    cr_assert_eq(nnc_plan_cache_save(cache), 0, "%s", nnc_error_text());
    nnc_plan_cache_close(cache);
    cache = cache_of(a100);
    cr_expect_eq(timed_plans(cache, a100, &engine), 0);
    cr_expect_eq(engine, chosen);
    /* A text that cuDNN refuses is replaced; here because it is of another device. */
    cr_expect_eq(timed_plans(cache, t4, &engine), 3);
    cr_expect_eq(timed_plans(cache, t4, &engine), 0);
    nnc_plan_cache_close(cache);
    cache = cache_of(t4);
    cr_expect_eq(timed_plans(cache, t4, &engine), 3);
    nnc_plan_cache_close(cache);
    nnc_dnn_close(a100);
    nnc_dnn_close(t4);
}
