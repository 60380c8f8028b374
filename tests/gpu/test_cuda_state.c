/* SPDX-License-Identifier: Apache-2.0 */
/* Parameters, gradients, momentum and the loss scale of the CUDA backend: what goes in comes out,
 * padding is never touched, a step that cannot be made is not made. */
#include "tests/gpu/cuda_case.h"

#include "base/config.h"
#include "base/err.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const int32_t amps[] = {NNC_AMP_OFF, NNC_AMP_BF16, NNC_AMP_FP16};
static const char *const models[] = {"residual bottlenecks with projection",
                                     "linear on channels and pixels", "alexnet in small",
                                     "norm of the input"};

enum {
    AMPS = sizeof(amps) / sizeof(amps[0]),
    MODELS = sizeof(models) / sizeof(models[0]),
};

/* Values that each type holds exactly, times the loss scale too: 7 bits, below 1/2. */
static void fill(float *values, uint64_t count, uint32_t start) {
    for (uint64_t place = 0; place < count; place++) {
        values[place] = (float)((int32_t)((place * 37 + start) % 255) - 127) / 256;
    }
}

static void expect_kept(struct nnc_case_model *model, enum nnc_state state, uint32_t number) {
    const struct nnc_param *param = &model->graph->params[number];
    float *given = calloc(param->count, sizeof(*given));
    float *got = calloc(param->count, sizeof(*got));
    fill(given, param->count, number + (uint32_t)state);
    cr_assert_eq(model->ops->set(model->backend, state, number, given), 0, "%s", nnc_error_text());
    cr_assert_eq(model->ops->get(model->backend, state, number, got), 0, "%s", nnc_error_text());
    cr_expect_arr_eq(got, given, param->count * sizeof(*got), "%s, %s, state %d", model->row->name,
                     param->name, (int)state);
    free(given);
    free(got);
}

Test(cuda_state, what_is_set_is_what_is_got) {
    for (int number = 0; number < AMPS * MODELS; number++) {
        struct nnc_case_model model;
        cuda_case_configure("schedule=lazy", amps[number % AMPS]);
        case_model_open(&nnc_backend_cuda, cuda_case_row(models[number / AMPS]), &model);
        for (uint32_t param = 0; param < model.graph->param_count; param++) {
            bool trained = model.graph->params[param].kind != NNC_PARAM_BUFFER;
            expect_kept(&model, NNC_STATE_VALUE, param);
            if (trained) {
                expect_kept(&model, NNC_STATE_GRADIENT, param);
                expect_kept(&model, NNC_STATE_MOMENTUM, param);
            }
        }
        case_model_close(&model);
        cuda_case_expect_no_leak();
    }
}

Test(cuda_state, a_buffer_has_no_gradient_and_no_momentum) {
    struct nnc_case_model model;
    cuda_case_configure("schedule=eager", NNC_AMP_OFF);
    case_model_open(&nnc_backend_cuda, cuda_case_row("norm"), &model);
    int32_t number = -1;
    for (uint32_t param = 0; param < model.graph->param_count; param++) {
        number = model.graph->params[param].kind == NNC_PARAM_BUFFER ? (int32_t)param : number;
    }
    float values[64] = {1};
    cr_assert_geq(number, 0);
    cr_expect_eq(model.ops->set(model.backend, NNC_STATE_MOMENTUM, (uint32_t)number, values),
                 -EINVAL);
    cr_expect_eq(model.ops->get(model.backend, NNC_STATE_GRADIENT, (uint32_t)number, values), 0);
    cr_expect_eq(values[0], 0);
    case_model_close(&model);
}

/* Whether all of an arena but the parameters' own values is zero. */
static void expect_zero_between(struct nnc_case_model *model, const char *what,
                                enum nnc_gpu_type type, const void *values, uint64_t first,
                                uint64_t end) {
    struct nnc_gpu_state *state = &model->backend->state;
    uint64_t count = end - first;
    float *floats = calloc(count + 1, sizeof(*floats));
    cr_assert_eq(nnc_gpu_state_read(state, type, values, count, floats), 0);
    for (uint32_t number = 0; number < state->graph->param_count; number++) {
        const struct nnc_gpu_param *param = &state->params[number];
        if (param->offset < first || param->offset >= end) {
            continue;
        }
        float *own = floats + param->offset - first;
        for (uint64_t line = 0; line < (uint64_t)param->k * param->plane; line++) {
            memset(own + line * param->stride, 0, param->c * sizeof(*own));
        }
    }
    uint64_t wrong = 0;
    for (uint64_t place = 0; place < count; place++) {
        wrong += floats[place] != 0;
    }
    cr_expect_eq(wrong, 0, "%s: %llu values of padding in %s", model->row->name,
                 (unsigned long long)wrong, what);
    free(floats);
}

static void expect_clean_padding(struct nnc_case_model *model) {
    const struct nnc_gpu_state *state = &model->backend->state;
    uint64_t vectors = state->part_first[NNC_GPU_VECTORS];
    uint64_t buffers = state->part_first[NNC_GPU_PART_COUNT];
    const void *vector_gradients = nnc_gpu_state_arena(state, NNC_GPU_VECTORS).gradients;
    expect_zero_between(model, "values", NNC_GPU_F32, state->values.memory, 0, state->value_count);
    expect_zero_between(model, "momentum", NNC_GPU_F32, state->momentum.memory, 0, buffers);
    expect_zero_between(model, "matrix gradients", state->type, state->gradients.memory, 0,
                        vectors);
    expect_zero_between(model, "vector gradients", NNC_GPU_F32, vector_gradients, vectors, buffers);
    if (state->copy.memory) {
        expect_zero_between(model, "copy", state->type, state->copy.memory, 0, buffers);
    }
}

Test(cuda_state, padding_stays_zero_while_training) {
    for (int number = 0; number < AMPS * MODELS; number++) {
        struct nnc_case_model model;
        cuda_case_configure("schedule=lazy", amps[number % AMPS]);
        case_model_open(&nnc_backend_cuda, cuda_case_row(models[number / AMPS]), &model);
        cuda_case_train(&model, 3);
        expect_clean_padding(&model);
        case_model_close(&model);
    }
}

/* Set a trained parameter's gradient to infinity. */
static void spoil_gradient(struct nnc_case_model *model, uint32_t number) {
    const struct nnc_param *param = &model->graph->params[number];
    float *values = calloc(param->count, sizeof(*values));
    values[param->count / 2] = INFINITY;
    cr_assert_eq(model->ops->set(model->backend, NNC_STATE_GRADIENT, number, values), 0);
    free(values);
}

static float first_value(struct nnc_case_model *model) {
    float *values = calloc(model->graph->params[0].count, sizeof(*values));
    cr_assert_eq(model->ops->get(model->backend, NNC_STATE_VALUE, 0, values), 0);
    float value = values[0];
    free(values);
    return value;
}

Test(cuda_state, an_overflow_in_fp16_skips_the_step_and_halves_the_scale) {
    const struct nnc_sgd sgd = {.lr = 1, .weight_decay = {1, 1, 1}};
    struct nnc_loss_scale scale;
    struct nnc_case_model model;
    cuda_case_configure("schedule=random,seed=3", NNC_AMP_FP16);
    case_model_open(&nnc_backend_cuda, cuda_case_row("conv 3x3 relu"), &model);
    const struct nnc_device_ops *device = model.ops->device;
    cr_assert_eq(device->get_scale(model.backend, &scale), 0);
    cr_expect_eq(scale.scale, 65536);
    float before = first_value(&model);
    case_model_step(&model, NNC_CASE_WHOLE, 1);
    spoil_gradient(&model, 0);
    cr_assert_eq(model.ops->update(model.backend, &sgd), 0);
    cr_assert_eq(device->finish(model.backend), 0);
    cr_assert_eq(device->get_scale(model.backend, &scale), 0);
    cr_expect_eq(scale.scale, 32768);
    cr_expect_eq(first_value(&model), before);
    scale = (struct nnc_loss_scale){.scale = 1024, .good_steps = 17};
    cr_assert_eq(device->set_scale(model.backend, &scale), 0);
    case_model_step(&model, NNC_CASE_WHOLE, 2);
    cr_assert_eq(model.ops->update(model.backend, &sgd), 0);
    cr_assert_eq(device->get_scale(model.backend, &scale), 0);
    cr_expect_eq(scale.scale, 1024);
    cr_expect_eq(scale.good_steps, 18);
    cr_expect_neq(first_value(&model), before);
    case_model_close(&model);
}

Test(cuda_state, an_overflow_in_any_parameter_skips_all_of_them) {
    const struct nnc_sgd sgd = {.lr = 1, .weight_decay = {1, 1, 1}};
    struct nnc_case_model model;
    cuda_case_configure("schedule=lazy", NNC_AMP_FP16);
    case_model_open(&nnc_backend_cuda, cuda_case_row(models[0]), &model);
    float before = first_value(&model);
    for (uint32_t param = 0; param < model.graph->param_count; param++) {
        if (model.graph->params[param].kind != NNC_PARAM_BUFFER) {
            cr_assert_eq(model.ops->zero_gradients(model.backend), 0);
            spoil_gradient(&model, param);
            cr_assert_eq(model.ops->update(model.backend, &sgd), 0);
            cr_expect_eq(first_value(&model), before, "%s", model.graph->params[param].name);
        }
    }
    case_model_close(&model);
}

Test(cuda_state, without_a_scale_a_gradient_that_is_not_finite_ends_the_run) {
    const struct nnc_sgd sgd = {.lr = 1};
    struct nnc_loss_scale scale = {.scale = 8};
    struct nnc_case_model model;
    cuda_case_configure("schedule=lazy", NNC_AMP_BF16);
    case_model_open(&nnc_backend_cuda, cuda_case_row("conv 3x3 relu"), &model);
    cr_assert_eq(model.ops->device->set_scale(model.backend, &scale), 0);
    cr_assert_eq(model.ops->device->get_scale(model.backend, &scale), 0);
    cr_expect_eq(scale.scale, 1, "bf16 needs none");
    case_model_step(&model, NNC_CASE_WHOLE, 1);
    spoil_gradient(&model, 0);
    float before = first_value(&model);
    cr_expect_eq(model.ops->update(model.backend, &sgd), 0, "it is only queued");
    cr_expect_eq(model.ops->device->finish(model.backend), -NNC_E_NUMERIC);
    cr_expect(strstr(nnc_error_text(), "--lr"), "%s", nnc_error_text());
    cr_expect_eq(first_value(&model), before);
    case_model_close(&model);
}

static int open_on(const char *device, int32_t amp, enum nnc_gpu_type *ret_type) {
    char fake[512];
    struct nnc_graph *graph =
        nnc_graph_of_rows((struct nnc_shape){3, 4, 4}, cuda_case_row("norm relu")->rows);
    struct nnc_backend *backend = NULL;
    snprintf(fake, sizeof(fake), "device_json=%s/tests/devices/%s.json", NNC_TEST_SOURCE_DIR,
             device);
    cuda_case_configure(fake, amp);
    const struct nnc_backend_params params = {.graph = graph, .ranks = 1, .device = case_device};
    int rc = nnc_backend_cuda.open(&params, &backend);
    if (rc == 0) {
        *ret_type = backend->type;
        nnc_backend_cuda.close(backend);
    }
    nnc_graph_of_rows_free(graph);
    return rc;
}

Test(cuda_state, the_type_follows_the_device) {
    enum nnc_gpu_type type = NNC_GPU_F32;
    cr_expect_eq(open_on("a100", NNC_AMP_AUTO, &type), 0, "%s", nnc_error_text());
    cr_expect_eq(type, NNC_GPU_BF16);
    cr_expect_eq(open_on("t4", NNC_AMP_AUTO, &type), 0, "%s", nnc_error_text());
    cr_expect_eq(type, NNC_GPU_F16);
    cr_expect_eq(open_on("t4", NNC_AMP_OFF, &type), 0, "%s", nnc_error_text());
    cr_expect_eq(type, NNC_GPU_F32);
    cr_expect_eq(open_on("t4", NNC_AMP_BF16, &type), -NNC_E_USAGE);
    cr_expect(strstr(nnc_error_text(), "--amp fp16"), "%s", nnc_error_text());
    cuda_case_expect_no_leak();
}

/* What a backend that caps its workspace at `bytes` says when it hears the choices. */
static void hear(size_t bytes, char *choices, size_t size, char *ret_words, size_t room) {
    struct nnc_case_model model;
    FILE *file = tmpfile();
    int kept = dup(STDERR_FILENO);
    cuda_case_configure("schedule=lazy", NNC_AMP_OFF);
    case_device.workspace_bytes = bytes;
    case_model_open(&nnc_backend_cuda, cuda_case_row("conv 3x3 relu"), &model);
    fflush(stderr);
    dup2(fileno(file), STDERR_FILENO);
    model.ops->device->set_choices(model.backend, choices, size);
    fflush(stderr);
    dup2(kept, STDERR_FILENO);
    close(kept);
    rewind(file);
    ret_words[fread(ret_words, 1, room - 1, file)] = '\0';
    fclose(file);
    case_model_close(&model);
}

Test(cuda_state, choices_under_another_policy_are_not_left_in_silence) {
    static const char words[] = "under another --autotune, --workspace or --deterministic";
    for (int i = 0; i < 2; i++) {
        struct nnc_case_model model;
        char *choices = NULL, said[1024];
        size_t size = 0;
        cuda_case_configure("schedule=lazy", NNC_AMP_OFF);
        size_t bytes = case_device.workspace_bytes;
        case_model_open(&nnc_backend_cuda, cuda_case_row("conv 3x3 relu"), &model);
        case_model_step(&model, NNC_CASE_WHOLE, 1);
        cr_assert_eq(model.ops->device->get_choices(model.backend, &choices, &size), 0);
        case_model_close(&model);
        hear(i == 0 ? bytes : bytes / 2, choices, size, said, sizeof(said));
        cr_expect_eq(strstr(said, words) != NULL, i == 1, "%s", said);
        free(choices);
    }
}
