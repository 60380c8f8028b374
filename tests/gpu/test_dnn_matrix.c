/* SPDX-License-Identifier: Apache-2.0 */
/* Every convolution of every model, forward and backward, has a plan on every kind of device, in
 * every type and at small and large batches: the real cuDNN is asked, no GPU is needed. One process
 * a device. */
#include "base/err.h"
#include "tests/gpu/dnn_matrix.h"

#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Devices without a type: nothing runs there, and the error says what would. */
static const struct {
    const char *device;
    enum nnc_gpu_type type;
    const char *advice;
} unsupported[] = {
    {"t4", NNC_GPU_BF16, "--amp fp16"},
};

/* Convolutions that have to be on tensor cores but whose first choice is not (cuDNN 9.19), at one
 * batch at least. */
static const struct {
    const char *device;
    enum nnc_gpu_type type;
    uint32_t op, c, k, r;
} exceptions[] = {
    /* AlexNet's first */
    {"t4", NNC_GPU_F16, NNC_DNN_FORWARD_BIAS_RELU, 8, 64, 11},
    {"a100", NNC_GPU_BF16, NNC_DNN_FORWARD_BIAS_RELU, 8, 64, 11},
    {"a100", NNC_GPU_F16, NNC_DNN_FORWARD_BIAS_RELU, 8, 64, 11},
    /* VGG16's first */
    {"rtx4090", NNC_GPU_BF16, NNC_DNN_FORWARD_BIAS_RELU, 8, 64, 3},
    /* ResNet-18's first shortcut */
    {"h100", NNC_GPU_BF16, NNC_DNN_FORWARD, 64, 128, 1},
    {"h100", NNC_GPU_F16, NNC_DNN_FORWARD, 64, 128, 1},
};

struct visit {
    const struct dnn_device *device;
    uint32_t failures;
};

static const char *advice_for(const struct dnn_device *device, enum nnc_gpu_type type) {
    for (size_t row = 0; row < sizeof(unsupported) / sizeof(unsupported[0]); row++) {
        if (strcmp(unsupported[row].device, device->name) == 0 && unsupported[row].type == type) {
            return unsupported[row].advice;
        }
    }
    return NULL;
}

static bool is_exception(const struct dnn_device *device, const struct nnc_dnn_key *key) {
    for (size_t row = 0; row < sizeof(exceptions) / sizeof(exceptions[0]); row++) {
        if (strcmp(exceptions[row].device, device->name) == 0 &&
            exceptions[row].type == key->type && exceptions[row].op == key->op &&
            exceptions[row].c == key->c && exceptions[row].k == key->k &&
            exceptions[row].r == key->r) {
            return true;
        }
    }
    return false;
}

/* What is wrong with an answer, or NULL. */
static const char *fault(const struct dnn_device *device, const struct nnc_dnn_key *key,
                         const struct dnn_answer *answer) {
    const char *advice = advice_for(device, key->type);
    if (advice != NULL) {
        bool refused = answer->code == -ENOTSUP && strstr(nnc_error_text(), advice) != NULL;
        return refused ? NULL : "not refused with the advice";
    }
    if (answer->code < 0) {
        return nnc_error_text();
    }
    if (answer->workspace > DNN_WORKSPACE_CAP) {
        return "workspace above the cap";
    }
    if ((answer->notes & NNC_DNN_COMPILED) != 0) {
        return "compiled at run time";
    }
    if (!answer->deterministic) {
        return "no deterministic plan";
    }
    bool lacks_tensor_core =
        dnn_needs_tensor_core(key) && (answer->notes & NNC_DNN_TENSOR_CORE) == 0;
    return lacks_tensor_core && !is_exception(device, key) ? "not on tensor cores" : NULL;
}

static void check(void *context, const struct nnc_dnn_key *key, const struct dnn_answer *answer) {
    struct visit *visit = context;
    const char *text = fault(visit->device, key, answer);
    if (text != NULL) {
        char shape[NNC_DNN_KEY_TEXT_MAX];
        nnc_dnn_key_text(key, shape, sizeof(shape));
        fprintf(stderr, "%s, %s: %s\n", visit->device->name, shape, text);
        visit->failures++;
    }
}

/* docs/gpu-support.md. Valid until the next call. */
static const char *read_docs(void) {
    static char docs[65536];
    FILE *file = fopen(NNC_TEST_SOURCE_DIR "/docs/gpu-support.md", "re");
    cr_assert_not_null(file);
    docs[fread(docs, 1, sizeof(docs) - 1, file)] = '\0';
    fclose(file);
    return docs;
}

/* Print the row of the table. It is in the documentation, as far as that is about this cuDNN. */
static void check_row(const struct dnn_device *device, enum nnc_gpu_type type,
                      const struct dnn_cell *cell) {
    char row[256], version[32];
    FILE *stream = fmemopen(row, sizeof(row), "w");
    cr_assert_not_null(stream);
    dnn_matrix_print_row(stream, device, type, cell);
    fclose(stream);
    fputs(row, stderr);
    dnn_version_text(version, sizeof(version));
    const char *docs = read_docs();
    if (strstr(docs, version) != NULL) {
        cr_expect_not_null(strstr(docs, row), "not in docs/gpu-support.md: %s", row);
    }
}

ParameterizedTestParameters(dnn_matrix, every_convolution_has_a_plan) {
    static int numbers[16];
    size_t count = 0;
    for (; dnn_devices[count].name != NULL; count++) {
        numbers[count] = (int)count;
    }
    return cr_make_param_array(int, numbers, count);
}

ParameterizedTest(int *number, dnn_matrix, every_convolution_has_a_plan, .timeout = 240) {
    static struct dnn_cases cases;
    struct visit visit = {.device = &dnn_devices[*number]};
    struct nnc_dnn_device *device = NULL;
    if (dlopen("libcudnn_engines_precompiled.so.9", RTLD_LAZY) == NULL) {
        cr_skip_test("cuDNN's engines cannot be loaded: %s", dlerror());
    }
    cr_assert_eq(dnn_cases_load(&cases), 0, "%s", nnc_error_text());
    cr_assert_gt(cases.count, 100);
    cr_assert_eq(dnn_device_load(visit.device, &device), 0, "%s", nnc_error_text());
    for (int type = 0; type < NNC_GPU_TYPE_COUNT; type++) {
        struct dnn_cell cell = {0};
        dnn_matrix_ask(device, &cases, (enum nnc_gpu_type)type, check, &visit, &cell);
        check_row(visit.device, (enum nnc_gpu_type)type, &cell);
    }
    nnc_dnn_close(device);
    cr_expect_eq(visit.failures, 0, "%s: %u convolutions, listed above", visit.device->name,
                 visit.failures);
}
