/* SPDX-License-Identifier: Apache-2.0 */
/* Batches on their way to the device: order, reuse of memory, what is refused. */
#include "tests/gpu/cuda_case.h"

#include "base/config.h"
#include "base/err.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static struct nnc_case_model model;

static void open_model(const char *fake) {
    cuda_case_configure(fake, NNC_AMP_OFF);
    case_model_open(&nnc_backend_cuda, cuda_case_row("conv 3x3 relu"), &model);
}

static void close_model(void) {
    case_model_close(&model);
    cuda_case_expect_no_leak();
}

static size_t image_bytes(void) {
    return model.row->batch * model.sample_stride;
}

static int feed(const uint8_t *images) {
    const struct nnc_feed batch = {images, model.sample_stride, model.labels};
    return model.ops->feed(model.executable[NNC_CASE_EVAL], &batch);
}

static uint64_t fed(void) {
    uint64_t count = 0;
    cr_assert_eq(model.ops->device->fed(model.backend, &count), 0, "%s", nnc_error_text());
    return count;
}

/* Logits of the batch that was fed. */
static float *evaluate(void) {
    size_t count = (size_t)model.row->batch * model.graph->classes;
    float *logits = calloc(count, sizeof(*logits));
    cr_assert_eq(model.ops->evaluate(model.executable[NNC_CASE_EVAL]), 0, "%s", nnc_error_text());
    cr_assert_eq(model.ops->logits(model.executable[NNC_CASE_EVAL], logits), 0);
    return logits;
}

static void expect_logits(const float *wanted) {
    float *got = evaluate();
    cr_expect_arr_eq(got, wanted, model.row->batch * model.graph->classes * sizeof(*got));
    free(got);
}

/* Images that differ from the model's by `shift` in each byte. */
static uint8_t *shifted_images(uint8_t shift) {
    uint8_t *images = calloc(1, image_bytes());
    for (size_t place = 0; place < image_bytes(); place++) {
        images[place] = (uint8_t)(model.images[place] + shift);
    }
    return images;
}

Test(cuda_feed, memory_that_is_not_pinned_is_free_at_once) {
    open_model("schedule=lazy");
    uint8_t *images = shifted_images(0);
    cr_assert_eq(feed(model.images), 0);
    float *wanted = evaluate();
    cr_assert_eq(feed(images), 0);
    cr_expect_eq(fed(), 2);
    memset(images, 0, image_bytes());
    expect_logits(wanted);
    free(wanted);
    free(images);
    close_model();
}

Test(cuda_feed, pinned_memory_is_copied_from_as_it_lies) {
    open_model("schedule=lazy");
    cr_assert_eq(feed(model.images), 0);
    float *wanted = evaluate();
    const struct nnc_device_ops *device = model.ops->device;
    cr_assert_eq(device->pin(model.backend, model.images, image_bytes()), 0);
    cr_assert_eq(feed(model.images), 0);
    while (fed() < 2) {
    }
    fakecuda_host_access(model.images, image_bytes(), true);
    expect_logits(wanted);
    cr_assert_eq(device->finish(model.backend), 0);
    device->unpin(model.backend, model.images);
    free(wanted);
    close_model();
}

Test(cuda_feed, a_platform_that_refuses_to_pin_trains_all_the_same) {
    open_model("faults=cudaHostRegister:0:refuse");
    cr_expect_eq(model.ops->device->pin(model.backend, model.images, image_bytes()), -ENOTSUP);
    cr_assert_eq(feed(model.images), 0, "%s", nnc_error_text());
    cr_expect_eq(fed(), 1);
    free(evaluate());
    close_model();
}

Test(cuda_feed, a_batch_may_be_fed_before_the_last_one_is_done) {
    open_model("schedule=lazy");
    uint8_t *other = shifted_images(91);
    cr_assert_eq(feed(model.images), 0);
    float *wanted = evaluate();
    cr_assert_eq(feed(other), 0);
    float *wanted_other = evaluate();
    for (int round = 0; round < 5; round++) {
        cr_assert_eq(feed(model.images), 0);
        cr_assert_eq(feed(other), 0);
        expect_logits(wanted);
        expect_logits(wanted_other);
    }
    free(wanted);
    free(wanted_other);
    free(other);
    close_model();
}

/* Metrics of the model's images with labels that begin at `first`; waited for where asked. */
static void evaluate_labels(int32_t first, bool wait, struct nnc_metrics *ret_sum) {
    uint8_t *images = shifted_images((uint8_t)(50 * first));
    struct nnc_metrics metrics = {0};
    for (uint32_t n = 0; n < model.row->batch; n++) {
        model.labels[n] = (int32_t)((n + (uint32_t)first) % model.graph->classes);
    }
    cr_assert_eq(feed(images), 0, "%s", nnc_error_text());
    cr_assert_eq(model.ops->evaluate(model.executable[NNC_CASE_EVAL]), 0, "%s", nnc_error_text());
    if (wait) {
        cr_assert_eq(model.ops->device->finish(model.backend), 0);
        cr_assert_eq(model.ops->poll(model.backend, &metrics), 0);
    }
    ret_sum->loss_sum += metrics.loss_sum;
    ret_sum->correct1 += metrics.correct1;
    free(images);
}

Test(cuda_feed, a_place_is_filled_again_only_after_its_last_copy) {
    static const char *const fakes[] = {"schedule=lazy", "schedule=random,seed=6"};
    for (size_t which = 0; which < 2; which++) {
        struct nnc_metrics wanted = {0};
        struct nnc_metrics got = {0};
        open_model(fakes[which]);
        for (int32_t batch = 0; batch < 9; batch++) {
            evaluate_labels(batch, true, &wanted);
        }
        for (int32_t batch = 0; batch < 9; batch++) {
            evaluate_labels(batch, false, &got);
        }
        cr_assert_eq(model.ops->device->finish(model.backend), 0);
        cr_assert_eq(model.ops->poll(model.backend, &got), 0);
        cr_expect_float_eq(got.loss_sum, wanted.loss_sum, 1e-9 * wanted.loss_sum);
        cr_expect_eq(got.correct1, wanted.correct1);
        close_model();
    }
}

Test(cuda_feed, a_third_batch_waits_for_a_step) {
    open_model("schedule=random,seed=5");
    cr_assert_eq(feed(model.images), 0);
    cr_assert_eq(feed(model.images), 0);
    cr_expect_eq(feed(model.images), -EBUSY);
    free(evaluate());
    cr_expect_eq(feed(model.images), 0, "%s", nnc_error_text());
    close_model();
}

Test(cuda_feed, a_batch_may_be_used_again_but_only_by_its_own_program) {
    open_model("schedule=lazy");
    cr_expect_eq(model.ops->evaluate(model.executable[NNC_CASE_EVAL]), -EINVAL);
    cr_assert_eq(feed(model.images), 0);
    float *wanted = evaluate();
    expect_logits(wanted);
    const struct nnc_step_params params = {.global_count = 1};
    cr_expect_eq(model.ops->step(model.executable[NNC_CASE_WHOLE], &params), -EINVAL);
    free(wanted);
    close_model();
}

Test(cuda_feed, a_label_outside_the_classes_is_refused_by_name) {
    open_model("schedule=lazy");
    model.labels[1] = (int32_t)model.graph->classes;
    cr_expect_eq(feed(model.images), -NNC_E_FORMAT);
    cr_expect(strstr(nnc_error_text(), "sample 1 "), "%s", nnc_error_text());
    model.labels[1] = -2;
    cr_expect_eq(feed(model.images), -NNC_E_FORMAT);
    model.labels[1] = -1;
    cr_expect_eq(feed(model.images), 0);
    close_model();
}
