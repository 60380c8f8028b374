/* SPDX-License-Identifier: Apache-2.0 */
/* The operations that kernels do, one or two calls each, and the table of all. What they compute is
 * in cpu/reference_*.c, what the calls promise in gpu/kernels.h.
 *
 * What it does not do: products (exec_product.c). */
#include "gpu/exec.h"

#include "base/config.h"
#include "base/err.h"
#include "workers/dropout.h"

#include <assert.h>
#include <errno.h>

static_assert((int)NNC_GPU_NONE == NNC_ACT_NONE && (int)NNC_GPU_RELU == NNC_ACT_RELU &&
                  (int)NNC_GPU_SIGMOID == NNC_ACT_SIGMOID && (int)NNC_GPU_TANH == NNC_ACT_TANH,
              "kernels and program name activations alike");

/* The saved memory of an operation, or of its forward one. */
static void *saved_of(const struct nnc_executable *exe, const struct nnc_op *op) {
    int64_t number = op->forward >= 0 ? op->forward : op - exe->program->ops;
    return nnc_exec_at(exe, exe->ops[number].saved);
}

static const struct nnc_node *node_of(const struct nnc_executable *exe, const struct nnc_op *op) {
    return &exe->program->graph->nodes[op->node];
}

static enum nnc_gpu_act act_of(const struct nnc_op *op) {
    return (enum nnc_gpu_act)op->act;
}

int nnc_exec_undo_act(const struct nnc_executable *exe, const struct nnc_op *op) {
    if (op->act == NNC_ACT_NONE) {
        return 0;
    }
    struct nnc_gpu_tensor shape = nnc_exec_shape(exe, op->dy);
    void *dy = nnc_exec_tensor(exe, op->dy);
    return nnc_gpu_act_backward(nnc_exec_stream(exe), &shape, act_of(op),
                                nnc_exec_tensor(exe, op->y), dy, false, dy);
}

/* ---- input ---- */

static int prepare_input(struct nnc_executable *exe, const struct nnc_op *op) {
    uint32_t channels = nnc_exec_shape(exe, op->y).channels;
    if (channels > 3) {
        return nnc_fail(-NNC_E_USAGE, "images of %u channels; the GPU takes 1 to 3", channels);
    }
    return 0;
}

/* Reads the place of the batch that the step took, see nnc_exec_step(). */
static int run_input(const struct nnc_executable *exe, const struct nnc_op *op) {
    const struct nnc_backend *backend = exe->backend;
    uint64_t batch = backend->feeds.taken - 1;
    struct nnc_gpu_input input = {
        .y = nnc_exec_shape(exe, op->y),
        .images = backend->feeds.place[batch % NNC_FEED_PLACES].images.memory,
        .sample_stride = exe->feed.sample_bytes,
    };
    for (uint32_t c = 0; c < input.y.channels; c++) {
        input.scale[c] = (float)(1 / (255 * backend->params.std[c]));
        input.shift[c] = (float)(-backend->params.mean[c] / backend->params.std[c]);
    }
    return nnc_gpu_input(nnc_exec_stream(exe), &input, nnc_exec_tensor(exe, op->y));
}

/* ---- activation, addition, dropout ---- */

static int run_pointwise(const struct nnc_executable *exe, const struct nnc_op *op) {
    struct nnc_gpu_tensor shape = nnc_exec_shape(exe, op->y);
    return nnc_gpu_pointwise(nnc_exec_stream(exe), &shape, act_of(op), nnc_exec_tensor(exe, op->x),
                             nnc_exec_tensor(exe, op->z), NULL, nnc_exec_tensor(exe, op->y));
}

static int run_act_backward(const struct nnc_executable *exe, const struct nnc_op *op) {
    if (op->dx < 0) {
        return 0;
    }
    struct nnc_gpu_tensor shape = nnc_exec_shape(exe, op->dy);
    return nnc_gpu_act_backward(nnc_exec_stream(exe), &shape, act_of(op),
                                nnc_exec_tensor(exe, op->y), nnc_exec_tensor(exe, op->dy),
                                op->dx_accumulate, nnc_exec_tensor(exe, op->dx));
}

/* Pass dy on to dx, which may be none. */
static int pass_on(const struct nnc_executable *exe, int32_t dy, int32_t dx, bool accumulate) {
    if (dx < 0) {
        return 0;
    }
    struct nnc_gpu_tensor shape = nnc_exec_shape(exe, dy);
    return nnc_gpu_accumulate(nnc_exec_stream(exe), &shape, nnc_exec_tensor(exe, dy), accumulate,
                              nnc_exec_tensor(exe, dx));
}

static int run_add_backward(const struct nnc_executable *exe, const struct nnc_op *op) {
    int rc = nnc_exec_undo_act(exe, op);
    if (rc == 0) {
        rc = pass_on(exe, op->dy, op->dx, op->dx_accumulate);
    }
    return rc < 0 ? rc : pass_on(exe, op->dy, op->dz, op->dz_accumulate);
}

static int queue_dropout(const struct nnc_executable *exe, const struct nnc_op *op, int32_t from,
                         bool accumulate, int32_t to) {
    const struct nnc_backend *backend = exe->backend;
    struct nnc_dropout mask =
        nnc_dropout_make(backend->params.seed, 0, (uint32_t)op->node, node_of(exe, op)->dropout);
    const struct nnc_gpu_dropout dropout = {
        .key = {mask.key[0], mask.key[1]},
        .node = mask.node,
        .threshold = mask.threshold,
        .scale = mask.scale,
    };
    struct nnc_gpu_tensor shape = nnc_exec_shape(exe, to);
    return nnc_gpu_dropout(nnc_exec_stream(exe), &shape, &dropout, backend->step_values.memory,
                           nnc_exec_tensor(exe, from), accumulate, nnc_exec_tensor(exe, to));
}

static int run_dropout(const struct nnc_executable *exe, const struct nnc_op *op) {
    return queue_dropout(exe, op, op->x, false, op->y);
}

static int run_dropout_backward(const struct nnc_executable *exe, const struct nnc_op *op) {
    return op->dx < 0 ? 0 : queue_dropout(exe, op, op->dy, op->dx_accumulate, op->dx);
}

/* ---- batch normalisation ----
 * saved: mean, scale, dweight and dbias of layers without, `stride` floats each; the mask */

enum {
    NORM_VECTORS = 4
};

static size_t norm_saved(const struct nnc_executable *exe, const struct nnc_op *op) {
    struct nnc_gpu_tensor shape = nnc_exec_shape(exe, op->y);
    size_t values = (size_t)shape.n * shape.h * shape.w * shape.stride;
    size_t mask = op->act == NNC_ACT_RELU && exe->program->training ? (values + 31) / 32 : 0;
    return NORM_VECTORS * shape.stride * sizeof(float) + mask * sizeof(uint32_t);
}

static size_t norm_scratch(const struct nnc_executable *exe, const struct nnc_op *op) {
    struct nnc_gpu_tensor shape =
        nnc_exec_shape(exe, op->pass == NNC_PASS_FORWARD ? op->y : op->dy);
    return nnc_gpu_reduce_floats(&shape) * sizeof(float);
}

static struct nnc_gpu_norm norm_of(const struct nnc_executable *exe, const struct nnc_op *op) {
    const struct nnc_gpu_state *state = &exe->backend->state;
    struct nnc_gpu_tensor shape = nnc_exec_shape(exe, op->x);
    float *saved = saved_of(exe, op);
    bool masked = op->act == NNC_ACT_RELU && exe->program->training;
    return (struct nnc_gpu_norm){
        .shape = shape,
        .weight = nnc_gpu_state_value(state, op->weight),
        .bias = nnc_gpu_state_value(state, op->bias),
        .running_mean = nnc_gpu_state_value(state, op->mean),
        .running_var = nnc_gpu_state_value(state, op->var),
        .eps = (float)node_of(exe, op)->eps,
        .momentum = (float)node_of(exe, op)->momentum,
        .mean = saved,
        .scale = saved + shape.stride,
        .mask = masked ? (uint32_t *)(saved + NORM_VECTORS * (size_t)shape.stride) : NULL,
        .scratch = nnc_exec_at(exe, exe->scratch),
    };
}

/* The kernels fuse relu; what else there is follows on its own. */
static enum nnc_gpu_act fused_act(const struct nnc_op *op) {
    return op->act == NNC_ACT_RELU ? NNC_GPU_RELU : NNC_GPU_NONE;
}

static int run_norm(const struct nnc_executable *exe, const struct nnc_op *op) {
    cudaStream_t stream = nnc_exec_stream(exe);
    struct nnc_gpu_norm norm = norm_of(exe, op);
    const void *x = nnc_exec_tensor(exe, op->x);
    void *y = nnc_exec_tensor(exe, op->y);
    int rc = exe->program->training ? nnc_gpu_norm_statistics(stream, &norm, x)
                                    : nnc_gpu_norm_running(stream, &norm);
    if (rc == 0) {
        rc = nnc_gpu_norm_apply(stream, &norm, fused_act(op), x, nnc_exec_tensor(exe, op->z), y);
    }
    if (rc < 0 || op->act == NNC_ACT_NONE || op->act == NNC_ACT_RELU) {
        return rc;
    }
    return nnc_gpu_pointwise(stream, &norm.shape, act_of(op), y, NULL, NULL, y);
}

/* dx and dz at once; one after the other where they are one tensor. */
static int norm_gradients(const struct nnc_executable *exe, const struct nnc_op *op,
                          const struct nnc_gpu_norm *norm, struct nnc_gpu_norm_backward *backward) {
    cudaStream_t stream = nnc_exec_stream(exe);
    void *dz = backward->dz;
    bool shared = op->dx >= 0 && op->dx == op->dz;
    if (shared) {
        backward->dz = NULL;
        int rc = nnc_gpu_norm_backward(stream, norm, backward);
        if (rc < 0) {
            return rc;
        }
        backward->dx = NULL;
        backward->dz = dz;
    }
    return nnc_gpu_norm_backward(stream, norm, backward);
}

static int run_norm_backward(const struct nnc_executable *exe, const struct nnc_op *op) {
    const struct nnc_gpu_state *state = &exe->backend->state;
    struct nnc_gpu_norm norm = norm_of(exe, op);
    int rc = op->act == NNC_ACT_RELU ? 0 : nnc_exec_undo_act(exe, op);
    if (rc < 0) {
        return rc;
    }
    float *own = norm.mean + 2 * (size_t)norm.shape.stride;
    float *dweight = op->weight >= 0 ? nnc_gpu_state_gradient(state, op->weight) : own;
    float *dbias =
        op->bias >= 0 ? nnc_gpu_state_gradient(state, op->bias) : own + norm.shape.stride;
    struct nnc_gpu_norm_backward backward = {
        .act = fused_act(op),
        .x = nnc_exec_tensor(exe, op->x),
        .dy = nnc_exec_tensor(exe, op->dy),
        .dweight = dweight,
        .dbias = dbias,
        .dx = nnc_exec_tensor(exe, op->dx),
        .dz = nnc_exec_tensor(exe, op->dz),
        .dx_accumulate = op->dx_accumulate,
        .dz_accumulate = op->dz_accumulate,
    };
    rc = nnc_gpu_norm_backward_sums(nnc_exec_stream(exe), &norm, backward.act, backward.x,
                                    backward.dy, dweight, dbias);
    if (rc < 0 || (op->dx < 0 && op->dz < 0)) {
        return rc;
    }
    return norm_gradients(exe, op, &norm, &backward);
}

/* ---- pooling ---- */

static struct nnc_gpu_pool pool_of(const struct nnc_executable *exe, const struct nnc_op *op) {
    const struct nnc_op *forward = op->forward >= 0 ? &exe->program->ops[op->forward] : op;
    return (struct nnc_gpu_pool){
        .x = nnc_exec_shape(exe, forward->x),
        .y = nnc_exec_shape(exe, forward->y),
        .r = op->window.r,
        .s = op->window.s,
        .stride_h = op->window.stride_h,
        .stride_w = op->window.stride_w,
        .pad_h = op->window.pad_h,
        .pad_w = op->window.pad_w,
        .adaptive = op->adaptive,
    };
}

/* One byte a value: its place in the window. */
static size_t maxpool_saved(const struct nnc_executable *exe, const struct nnc_op *op) {
    return exe->program->training
               ? nnc_exec_bytes(exe, op->y) / nnc_gpu_type_bytes(exe->backend->type)
               : 0;
}

static int prepare_maxpool(struct nnc_executable *exe, const struct nnc_op *op) {
    (void)exe;
    if ((uint64_t)op->window.r * op->window.s > 256) {
        return nnc_fail(-NNC_E_USAGE, "a maximum over %u x %u values; the GPU takes up to 256",
                        op->window.r, op->window.s);
    }
    return 0;
}

static int run_maxpool(const struct nnc_executable *exe, const struct nnc_op *op) {
    struct nnc_gpu_pool pool = pool_of(exe, op);
    return nnc_gpu_maxpool(nnc_exec_stream(exe), &pool, nnc_exec_tensor(exe, op->x),
                           exe->program->training ? saved_of(exe, op) : NULL,
                           nnc_exec_tensor(exe, op->y));
}

static int run_maxpool_backward(const struct nnc_executable *exe, const struct nnc_op *op) {
    if (op->dx < 0) {
        return 0;
    }
    struct nnc_gpu_pool pool = pool_of(exe, op);
    return nnc_gpu_maxpool_backward(nnc_exec_stream(exe), &pool, saved_of(exe, op),
                                    nnc_exec_tensor(exe, op->dy), op->dx_accumulate,
                                    nnc_exec_tensor(exe, op->dx));
}

static int run_avgpool(const struct nnc_executable *exe, const struct nnc_op *op) {
    struct nnc_gpu_pool pool = pool_of(exe, op);
    return nnc_gpu_avgpool(nnc_exec_stream(exe), &pool, nnc_exec_tensor(exe, op->x),
                           nnc_exec_tensor(exe, op->y));
}

static int run_avgpool_backward(const struct nnc_executable *exe, const struct nnc_op *op) {
    if (op->dx < 0) {
        return 0;
    }
    struct nnc_gpu_pool pool = pool_of(exe, op);
    return nnc_gpu_avgpool_backward(nnc_exec_stream(exe), &pool, nnc_exec_tensor(exe, op->dy),
                                    op->dx_accumulate, nnc_exec_tensor(exe, op->dx));
}

/* ---- loss ---- */

static size_t loss_scratch(const struct nnc_executable *exe, const struct nnc_op *op) {
    (void)op;
    return 4 * (size_t)exe->program->batch * sizeof(float);
}

static struct nnc_gpu_loss loss_of(const struct nnc_executable *exe, const struct nnc_op *op) {
    const struct nnc_backend *backend = exe->backend;
    return (struct nnc_gpu_loss){
        .logits = nnc_exec_shape(exe, op->x),
        .squared = backend->params.loss == NNC_LOSS_MSE,
        .smoothing = (float)backend->params.label_smoothing,
        .labels = nnc_exec_at(exe, exe->labels),
        .step = backend->step_values.memory,
        .scaler = backend->state.scaler.memory,
        .scratch = nnc_exec_at(exe, exe->scratch),
    };
}

static int run_loss(const struct nnc_executable *exe, const struct nnc_op *op) {
    struct nnc_gpu_loss loss = loss_of(exe, op);
    return nnc_gpu_loss(nnc_exec_stream(exe), &loss, nnc_exec_tensor(exe, op->x),
                        exe->backend->step_metrics.memory);
}

static int run_loss_backward(const struct nnc_executable *exe, const struct nnc_op *op) {
    struct nnc_gpu_loss loss = loss_of(exe, op);
    assert(!op->dx_accumulate);
    return nnc_gpu_loss_backward(nnc_exec_stream(exe), &loss, nnc_exec_tensor(exe, op->x),
                                 nnc_exec_tensor(exe, op->dx));
}

/* ---- the table ---- */

static const struct nnc_exec_kind input = {.prepare = prepare_input, .run = run_input};
static const struct nnc_exec_kind pointwise = {.run = run_pointwise};
static const struct nnc_exec_kind act_backward = {.run = run_act_backward};
static const struct nnc_exec_kind add_backward = {.run = run_add_backward};
static const struct nnc_exec_kind dropout = {.run = run_dropout};
static const struct nnc_exec_kind dropout_backward = {.run = run_dropout_backward};
static const struct nnc_exec_kind norm = {
    .saved = norm_saved, .scratch = norm_scratch, .run = run_norm};
static const struct nnc_exec_kind norm_backward = {.scratch = norm_scratch,
                                                   .run = run_norm_backward};
static const struct nnc_exec_kind maxpool = {
    .saved = maxpool_saved, .prepare = prepare_maxpool, .run = run_maxpool};
static const struct nnc_exec_kind maxpool_backward = {.run = run_maxpool_backward};
static const struct nnc_exec_kind avgpool = {.run = run_avgpool};
static const struct nnc_exec_kind avgpool_backward = {.run = run_avgpool_backward};
static const struct nnc_exec_kind loss = {.scratch = loss_scratch, .run = run_loss};
static const struct nnc_exec_kind loss_backward = {.scratch = loss_scratch,
                                                   .run = run_loss_backward};

static const struct nnc_exec_kind *const kinds[NNC_OP_COUNT][2] = {
    [NNC_OP_INPUT] = {&input, NULL},
    [NNC_OP_CONV] = {&nnc_exec_conv, &nnc_exec_conv_backward},
    [NNC_OP_LINEAR] = {&nnc_exec_linear, &nnc_exec_linear_backward},
    [NNC_OP_NORM] = {&norm, &norm_backward},
    [NNC_OP_ACT] = {&pointwise, &act_backward},
    [NNC_OP_ADD] = {&pointwise, &add_backward},
    [NNC_OP_MAXPOOL] = {&maxpool, &maxpool_backward},
    [NNC_OP_AVGPOOL] = {&avgpool, &avgpool_backward},
    [NNC_OP_DROPOUT] = {&dropout, &dropout_backward},
    [NNC_OP_LOSS] = {&loss, &loss_backward},
};

const struct nnc_exec_kind *nnc_exec_kind_of(const struct nnc_op *op) {
    const struct nnc_exec_kind *kind = kinds[op->kind][op->pass];
    assert(kind);
    return kind;
}
