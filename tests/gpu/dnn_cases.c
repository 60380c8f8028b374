/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/gpu/dnn_cases.h"

#include "base/err.h"
#include "base/model_dir.h"
#include "workers/program.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

const struct dnn_device dnn_devices[] = {
    {"t4", 75},   {"a100", 80},  {"a6000", 86},    {"rtx4090", 89},
    {"h100", 90}, {"b200", 100}, {"rtx5090", 120}, {NULL, 0},
};

static int add_case(struct dnn_cases *cases, const struct nnc_dnn_key *key) {
    for (uint32_t row = 0; row < cases->count; row++) {
        if (memcmp(&cases->rows[row], key, sizeof(*key)) == 0) {
            return 0;
        }
    }
    if (cases->count == DNN_CASES_MAX) {
        return nnc_fail(-EOVERFLOW, "more than %d convolutions", DNN_CASES_MAX);
    }
    cases->rows[cases->count++] = *key;
    return 0;
}

static uint32_t padded(uint32_t channels) {
    return (channels + 7) / 8 * 8;
}

static enum nnc_dnn_op forward_op(const struct nnc_op *op) {
    if (op->bias < 0) {
        return NNC_DNN_FORWARD;
    }
    return op->act == NNC_ACT_RELU ? NNC_DNN_FORWARD_BIAS_RELU : NNC_DNN_FORWARD_BIAS;
}

/* What one operation of a program asks of cuDNN; a backward one up to two things. */
static int add_op(struct dnn_cases *cases, const struct nnc_program *program,
                  const struct nnc_op *op) {
    const struct nnc_op *forward = op->pass == NNC_PASS_FORWARD ? op : &program->ops[op->forward];
    struct nnc_shape x = program->tensors[forward->x].shape;
    struct nnc_shape y = program->tensors[forward->y].shape;
    struct nnc_dnn_key key = {0};
    key.c = padded(x.c);
    key.h = x.h;
    key.w = x.w;
    key.k = padded(y.c);
    key.r = op->window.r;
    key.s = op->window.s;
    key.stride_h = op->window.stride_h;
    key.stride_w = op->window.stride_w;
    key.pad_h = op->window.pad_h;
    key.pad_w = op->window.pad_w;
    if (op->pass == NNC_PASS_FORWARD) {
        key.op = forward_op(op);
        return add_case(cases, &key);
    }
    key.op = NNC_DNN_BACKWARD_FILTER;
    int code = add_case(cases, &key);
    if (code == 0 && op->dx >= 0) {
        key.op = NNC_DNN_BACKWARD_DATA;
        code = add_case(cases, &key);
    }
    return code;
}

static int add_model(struct dnn_cases *cases, const char *name) {
    char path[4096];
    struct nnc_graph *graph = NULL;
    struct nnc_program *program = NULL;
    int code = nnc_model_resolve(name, NNC_TEST_SOURCE_DIR "/models", path, sizeof(path));
    if (code >= 0) {
        code = nnc_graph_create(&(struct nnc_graph_params){.path = path}, &graph);
    }
    if (code >= 0) {
        code = nnc_program_create(
            &(struct nnc_program_params){.graph = graph, .batch = 2, .training = true}, &program);
    }
    for (uint32_t number = 0; code >= 0 && number < program->op_count; number++) {
        if (program->ops[number].kind == NNC_OP_CONV) {
            code = add_op(cases, program, &program->ops[number]);
        }
    }
    nnc_program_destroy(program);
    nnc_graph_destroy(graph);
    return code;
}

int dnn_cases_load(struct dnn_cases *ret_cases) {
    char **names = NULL;
    size_t count = 0;
    ret_cases->count = 0;
    int code = nnc_model_names(NNC_TEST_SOURCE_DIR "/models", &names, &count);
    for (size_t number = 0; code >= 0 && number < count; number++) {
        code = add_model(ret_cases, names[number]);
    }
    nnc_model_names_free(names, count);
    return code;
}

int dnn_device_load(const struct dnn_device *device, struct nnc_dnn_device **ret_device) {
    char path[4096], json[4096];
    snprintf(path, sizeof(path), "%s/tests/devices/%s.json", NNC_TEST_SOURCE_DIR, device->name);
    FILE *file = fopen(path, "re");
    if (file == NULL) {
        return nnc_fail_errno("%s", path);
    }
    json[fread(json, 1, sizeof(json) - 1, file)] = '\0';
    fclose(file);
    return nnc_dnn_describe(json, ret_device);
}
