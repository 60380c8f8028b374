/* SPDX-License-Identifier: Apache-2.0 */
/* Convolutions and linear layers: products of a library, and what it does not fuse by kernels.
 *
 *   forward   y = x w          with + bias and relu where the library has them in one
 *             y = act(y + bias)  what is left
 *   backward  dy *= act'(y);  dw = x dy;  dbias = sum dy;  dx (+)= dy w
 *
 * cuDNN cannot add to dx: it then writes scratch, which is added.
 *
 * Source: docs/gpu.md, "cuDNN from C" and "Linear layers". */
#include "gpu/exec.h"

#include "base/err.h"

#include <assert.h>
#include <errno.h>

/* How much of act(x w + bias) one call may do, most first. */
struct fusion {
    bool bias, relu;
    enum nnc_dnn_op conv;
    enum nnc_linear_op linear;
};

static const struct fusion fusions[] = {
    {true, true, NNC_DNN_FORWARD_BIAS_RELU, NNC_LINEAR_FORWARD_BIAS_RELU},
    {true, false, NNC_DNN_FORWARD_BIAS, NNC_LINEAR_FORWARD_BIAS},
    {false, false, NNC_DNN_FORWARD, NNC_LINEAR_FORWARD},
};

enum {
    FUSIONS = sizeof(fusions) / sizeof(fusions[0]),
    DATA = 0,   /* place of dx in plan[] and linear[] */
    WEIGHT = 1, /* of dw */
};

/* Whether the operation has all that the fusion does. */
static bool fits(const struct fusion *fusion, const struct nnc_op *op) {
    return fusion->bias <= (op->bias >= 0) && fusion->relu <= (op->act == NNC_ACT_RELU);
}

static struct nnc_exec_op *place_of(const struct nnc_executable *exe, const struct nnc_op *op) {
    return &exe->ops[op - exe->program->ops];
}

/* Bias and activation, as far as the product has not done them. */
static int complete(const struct nnc_executable *exe, const struct nnc_op *op) {
    const struct nnc_exec_op *place = place_of(exe, op);
    struct nnc_gpu_tensor shape = nnc_exec_shape(exe, op->y);
    const float *bias =
        place->bias_done ? NULL : nnc_gpu_state_value(&exe->backend->state, op->bias);
    enum nnc_act act = place->act_done ? NNC_ACT_NONE : op->act;
    if (!bias && act == NNC_ACT_NONE) {
        return 0;
    }
    void *y = nnc_exec_tensor(exe, op->y);
    return nnc_gpu_pointwise(nnc_exec_stream(exe), &shape, (enum nnc_gpu_act)act, y, NULL, bias, y);
}

static int bias_gradient(const struct nnc_executable *exe, const struct nnc_op *op) {
    if (op->bias < 0) {
        return 0;
    }
    struct nnc_gpu_tensor shape = nnc_exec_shape(exe, op->dy);
    return nnc_gpu_bias_gradient(nnc_exec_stream(exe), &shape, nnc_exec_tensor(exe, op->dy),
                                 nnc_exec_at(exe, exe->scratch),
                                 nnc_gpu_state_gradient(&exe->backend->state, op->bias));
}

static size_t bias_scratch(const struct nnc_executable *exe, const struct nnc_op *op) {
    struct nnc_gpu_tensor shape = nnc_exec_shape(exe, op->dy);
    return op->bias < 0 ? 0 : nnc_gpu_reduce_floats(&shape) * sizeof(float);
}

static const struct nnc_op *forward_of(const struct nnc_executable *exe, const struct nnc_op *op) {
    return op->forward >= 0 ? &exe->program->ops[op->forward] : op;
}

static void need_workspace(struct nnc_executable *exe, size_t bytes) {
    exe->workspace_bytes = bytes > exe->workspace_bytes ? bytes : exe->workspace_bytes;
}

/* ---- convolution ---- */

static struct nnc_dnn_key conv_key(const struct nnc_executable *exe, const struct nnc_op *op,
                                   enum nnc_dnn_op which) {
    const struct nnc_op *forward = forward_of(exe, op);
    struct nnc_gpu_tensor x = nnc_exec_shape(exe, forward->x);
    struct nnc_gpu_tensor y = nnc_exec_shape(exe, forward->y);
    return (struct nnc_dnn_key){
        .op = which,
        .type = x.type,
        .n = x.n,
        .c = x.stride,
        .h = x.h,
        .w = x.w,
        .k = y.stride,
        .r = op->window.r,
        .s = op->window.s,
        .stride_h = op->window.stride_h,
        .stride_w = op->window.stride_w,
        .pad_h = op->window.pad_h,
        .pad_w = op->window.pad_w,
    };
}

static struct nnc_dnn_memory conv_memory(const struct nnc_executable *exe, const struct nnc_op *op,
                                         enum nnc_dnn_op which) {
    const struct nnc_gpu_state *state = &exe->backend->state;
    struct nnc_dnn_memory memory = {
        .x = nnc_exec_tensor(exe, op->x),
        .w = nnc_gpu_state_weight(state, op->weight),
        .y = nnc_exec_tensor(exe, op->pass == NNC_PASS_FORWARD ? op->y : op->dy),
        .workspace = exe->backend->workspace.memory,
    };
    if (which == NNC_DNN_BACKWARD_DATA) {
        memory.x =
            op->dx_accumulate ? nnc_exec_at(exe, exe->scratch) : nnc_exec_tensor(exe, op->dx);
    } else if (which == NNC_DNN_BACKWARD_FILTER) {
        memory.w = nnc_gpu_state_gradient(state, op->weight);
    } else if (which != NNC_DNN_FORWARD) {
        memory.bias = nnc_gpu_state_weight(state, op->bias);
    }
    return memory;
}

/* An operation whose plans are tried. */
struct trial {
    struct nnc_executable *exe;
    const struct nnc_op *op;
    enum nnc_dnn_op which;
    cudaEvent_t start, end;
};

static int execute(const struct trial *trial, const struct nnc_dnn_plan *plan) {
    struct nnc_backend *backend = trial->exe->backend;
    int rc =
        nnc_exec_reserve(backend, nnc_dnn_plan_workspace(plan), "workspace", &backend->workspace);
    cudaStream_t stream = nnc_exec_stream(trial->exe);
    struct nnc_dnn_memory memory = conv_memory(trial->exe, trial->op, trial->which);
    if (rc == 0) {
        rc = nnc_device_check(cudaEventRecord(trial->start, stream), "start of a trial");
    }
    if (rc == 0 && nnc_dnn_execute(backend->dnn, plan, stream, &memory) < 0) {
        return -ENOTSUP;
    }
    if (rc == 0) {
        rc = nnc_device_check(cudaEventRecord(trial->end, stream), "end of a trial");
    }
    return rc < 0 ? rc : nnc_device_wait(&backend->device, trial->end);
}

/* `time` of struct nnc_dnn_timer. */
static int64_t run_trial(void *context, const struct nnc_dnn_plan *plan) {
    const struct trial *trial = context;
    float ms = 0;
    int rc = execute(trial, plan);
    if (rc == 0) {
        rc = nnc_device_check(cudaEventElapsedTime(&ms, trial->start, trial->end),
                              "time of a trial");
    }
    return rc < 0 ? rc : (int64_t)((double)ms * 1e6);
}

static int find_plan(struct nnc_executable *exe, const struct nnc_op *op, enum nnc_dnn_op which,
                     const struct nnc_dnn_plan **ret_plan) {
    struct trial trial = {.exe = exe, .op = op, .which = which};
    const struct nnc_dnn_timer timer = {run_trial, &trial};
    struct nnc_dnn_key key = conv_key(exe, op, which);
    int rc = nnc_device_check(cudaEventCreate(&trial.start), "event of a trial");
    if (rc == 0) {
        rc = nnc_device_check(cudaEventCreate(&trial.end), "event of a trial");
    }
    if (rc == 0) {
        rc = nnc_gpu_plans_get(&exe->backend->plans, &key, &timer, ret_plan);
    }
    if (rc == 0) {
        need_workspace(exe, nnc_dnn_plan_workspace(*ret_plan));
    }
    if (trial.start) {
        cudaEventDestroy(trial.start);
    }
    if (trial.end) {
        cudaEventDestroy(trial.end);
    }
    return rc;
}

static int prepare_conv(struct nnc_executable *exe, const struct nnc_op *op) {
    struct nnc_exec_op *place = place_of(exe, op);
    int rc = -ENOTSUP;
    for (size_t number = 0; rc == -ENOTSUP && number < FUSIONS; number++) {
        const struct fusion *fusion = &fusions[number];
        if (fits(fusion, op)) {
            rc = find_plan(exe, op, fusion->conv, &place->plan[0]);
            place->bias_done = fusion->bias;
            place->act_done = fusion->relu;
        }
    }
    return rc;
}

static int prepare_conv_backward(struct nnc_executable *exe, const struct nnc_op *op) {
    struct nnc_exec_op *place = place_of(exe, op);
    int rc = find_plan(exe, op, NNC_DNN_BACKWARD_FILTER, &place->plan[WEIGHT]);
    if (rc == 0 && op->dx >= 0) {
        rc = find_plan(exe, op, NNC_DNN_BACKWARD_DATA, &place->plan[DATA]);
    }
    return rc;
}

static int run_plan(const struct nnc_executable *exe, const struct nnc_op *op,
                    const struct nnc_dnn_plan *plan, enum nnc_dnn_op which) {
    struct nnc_dnn_memory memory = conv_memory(exe, op, which);
    return nnc_dnn_execute(exe->backend->dnn, plan, nnc_exec_stream(exe), &memory);
}

static int run_conv(const struct nnc_executable *exe, const struct nnc_op *op) {
    const struct nnc_exec_op *place = place_of(exe, op);
    int rc = run_plan(exe, op, place->plan[0],
                      place->bias_done ? NNC_DNN_FORWARD_BIAS : NNC_DNN_FORWARD);
    return rc < 0 ? rc : complete(exe, op);
}

static int run_conv_backward(const struct nnc_executable *exe, const struct nnc_op *op) {
    const struct nnc_exec_op *place = place_of(exe, op);
    int rc = nnc_exec_undo_act(exe, op);
    if (rc == 0) {
        rc = run_plan(exe, op, place->plan[WEIGHT], NNC_DNN_BACKWARD_FILTER);
    }
    if (rc == 0) {
        rc = bias_gradient(exe, op);
    }
    if (rc < 0 || op->dx < 0) {
        return rc;
    }
    rc = run_plan(exe, op, place->plan[DATA], NNC_DNN_BACKWARD_DATA);
    if (rc < 0 || !op->dx_accumulate) {
        return rc;
    }
    struct nnc_gpu_tensor shape = nnc_exec_shape(exe, op->dx);
    return nnc_gpu_accumulate(nnc_exec_stream(exe), &shape, nnc_exec_at(exe, exe->scratch), true,
                              nnc_exec_tensor(exe, op->dx));
}

static size_t conv_scratch(const struct nnc_executable *exe, const struct nnc_op *op) {
    size_t bias = bias_scratch(exe, op);
    size_t data = op->dx_accumulate ? nnc_exec_bytes(exe, op->dx) : 0;
    return bias > data ? bias : data;
}

const struct nnc_exec_kind nnc_exec_conv = {.prepare = prepare_conv, .run = run_conv};
const struct nnc_exec_kind nnc_exec_conv_backward = {
    .scratch = conv_scratch, .prepare = prepare_conv_backward, .run = run_conv_backward};

/* ---- linear layer ---- */

static int make_linear(struct nnc_executable *exe, const struct nnc_op *op,
                       enum nnc_linear_op which, struct nnc_linear **ret_linear) {
    const struct nnc_backend *backend = exe->backend;
    const struct nnc_op *forward = forward_of(exe, op);
    struct nnc_gpu_tensor x = nnc_exec_shape(exe, forward->x);
    const struct nnc_gpu_param *weight = &backend->state.params[op->weight];
    assert(weight->stride == x.stride && weight->plane == x.h * x.w);
    const struct nnc_linear_params params = {
        .op = which,
        .type = backend->type,
        .batch = x.n,
        .outputs = nnc_exec_shape(exe, forward->y).stride,
        .features = (uint64_t)x.h * x.w * x.stride,
        .accumulate = which == NNC_LINEAR_BACKWARD_DATA && op->dx_accumulate,
        .deterministic = backend->params.device.deterministic,
        .workspace_cap = backend->params.device.workspace_bytes,
        .bias = nnc_gpu_state_weight(&backend->state, op->bias),
    };
    int rc = nnc_linear_create(backend->blas, &params, ret_linear);
    if (rc == 0) {
        need_workspace(exe, nnc_linear_workspace(*ret_linear));
    }
    return rc;
}

static int prepare_linear(struct nnc_executable *exe, const struct nnc_op *op) {
    struct nnc_exec_op *place = place_of(exe, op);
    int rc = -ENOTSUP;
    for (size_t number = 0; rc == -ENOTSUP && number < FUSIONS; number++) {
        const struct fusion *fusion = &fusions[number];
        if (fits(fusion, op)) {
            rc = make_linear(exe, op, fusion->linear, &place->linear[0]);
            place->bias_done = fusion->bias;
            place->act_done = fusion->relu;
        }
    }
    return rc;
}

static int prepare_linear_backward(struct nnc_executable *exe, const struct nnc_op *op) {
    struct nnc_exec_op *place = place_of(exe, op);
    int rc = make_linear(exe, op, NNC_LINEAR_BACKWARD_WEIGHT, &place->linear[WEIGHT]);
    if (rc == 0 && op->dx >= 0) {
        rc = make_linear(exe, op, NNC_LINEAR_BACKWARD_DATA, &place->linear[DATA]);
    }
    return rc;
}

static int run_linear(const struct nnc_executable *exe, const struct nnc_op *op) {
    const struct nnc_linear_memory memory = {
        .x = nnc_exec_tensor(exe, op->x),
        .w = nnc_gpu_state_weight(&exe->backend->state, op->weight),
        .y = nnc_exec_tensor(exe, op->y),
        .workspace = exe->backend->workspace.memory,
    };
    int rc = nnc_linear_run(place_of(exe, op)->linear[0], nnc_exec_stream(exe), &memory);
    return rc < 0 ? rc : complete(exe, op);
}

static int run_linear_backward(const struct nnc_executable *exe, const struct nnc_op *op) {
    const struct nnc_exec_op *place = place_of(exe, op);
    struct nnc_linear_memory memory = {
        .x = nnc_exec_tensor(exe, op->x),
        .w = nnc_gpu_state_gradient(&exe->backend->state, op->weight),
        .y = nnc_exec_tensor(exe, op->dy),
        .workspace = exe->backend->workspace.memory,
    };
    int rc = nnc_exec_undo_act(exe, op);
    if (rc == 0) {
        rc = nnc_linear_run(place->linear[WEIGHT], nnc_exec_stream(exe), &memory);
    }
    if (rc == 0) {
        rc = bias_gradient(exe, op);
    }
    if (rc < 0 || op->dx < 0) {
        return rc;
    }
    memory.x = nnc_exec_tensor(exe, op->dx);
    memory.w = nnc_gpu_state_weight(&exe->backend->state, op->weight);
    return nnc_linear_run(place->linear[DATA], nnc_exec_stream(exe), &memory);
}

const struct nnc_exec_kind nnc_exec_linear = {.prepare = prepare_linear, .run = run_linear};
const struct nnc_exec_kind nnc_exec_linear_backward = {
    .scratch = bias_scratch, .prepare = prepare_linear_backward, .run = run_linear_backward};
