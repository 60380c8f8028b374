/* SPDX-License-Identifier: Apache-2.0 */
/* Operations that handle each value alone: activation, addition, dropout, and the additions and
 * activation gradients that other operations need. All of them walk memory as it lies, padding
 * included, because both operands have one layout.
 *
 * Invariant: padded channels stay zero. Of the activations only the sigmoid does not map zero to
 * zero; it is followed by a pass that clears them.
 *
 * Source: workers/dropout.h for the mask. */
#include <math.h>
#include <string.h>

#include "cpu/onednn_build.h"
#include "cpu/onednn_parallel.h"
#include "workers/dropout.h"

enum {
    GRANULE = 1024, /* floats: threads never share a cache line */
};

/* A loop over `count` floats, and who runs it. */
struct loop {
    const struct nnc_kernels *kernels;
    enum nnc_act act;
    const float *left, *right;
    float *out;
    size_t count;
    bool relu;
};

static void add_share(void *context, uint32_t thread, uint32_t threads) {
    const struct loop *loop = context;
    size_t begin;
    size_t end;
    nnc_share(loop->count, GRANULE, thread, threads, &begin, &end);
    loop->kernels->add(loop->left + begin, loop->right + begin, loop->relu, loop->out + begin,
                       end - begin);
}

static void act_grad_share(void *context, uint32_t thread, uint32_t threads) {
    const struct loop *loop = context;
    size_t begin;
    size_t end;
    nnc_share(loop->count, GRANULE, thread, threads, &begin, &end);
    loop->kernels->act_grad(loop->act, loop->left + begin, loop->right + begin, loop->out + begin,
                            end - begin);
}

static void act_share(void *context, uint32_t thread, uint32_t threads) {
    const struct loop *loop = context;
    size_t begin;
    size_t end;
    nnc_share(loop->count, GRANULE, thread, threads, &begin, &end);
    for (size_t i = begin; i < end; i++) {
        float x = loop->left[i];
        switch (loop->act) {
        case NNC_ACT_NONE:
            loop->out[i] = x;
            break;
        case NNC_ACT_RELU:
            loop->out[i] = x <= 0 ? 0 : x; /* NaN stays */
            break;
        case NNC_ACT_SIGMOID:
            loop->out[i] = 1 / (1 + expf(-x));
            break;
        case NNC_ACT_TANH:
            loop->out[i] = tanhf(x);
            break;
        }
    }
}

static struct loop loop_of(const struct nnc_executable *executable, const struct nnc_stage *stage) {
    return (struct loop){.kernels = executable->backend->kernels,
                         .act = stage->act,
                         .count = nnc_layout_count(&stage->layout)};
}

static void run_loop(const struct nnc_executable *executable,
                     void (*share)(void *context, uint32_t thread, uint32_t threads),
                     struct loop *loop) {
    bool costly = share == act_share && loop->act != NNC_ACT_RELU;
    double ns = (costly ? 10 : 0.3) * (double)loop->count;
    nnc_parallel(nnc_team(executable->backend->params.threads, ns), share, loop);
}

/* Zero the channels beyond c. */
static void clear_padding(const struct nnc_dnn_layout *layout, float *values) {
    uint32_t first = layout->c - (layout->outer - 1) * layout->inner; /* padded lane */
    size_t plane = layout->positions * layout->inner;
    for (uint32_t n = 0; n < layout->n && first < layout->inner; n++) {
        float *last = values + ((size_t)(n + 1) * layout->outer - 1) * plane;
        for (size_t s = 0; s < layout->positions; s++) {
            memset(last + s * layout->inner + first, 0, (layout->inner - first) * sizeof(*last));
        }
    }
}

/* y = act(x); also in place. */
static int run_act(struct nnc_executable *executable, struct nnc_stage *stage) {
    struct loop loop = loop_of(executable, stage);
    loop.left = nnc_place_address(executable, stage->x);
    loop.out = nnc_place_address(executable, stage->y);
    run_loop(executable, act_share, &loop);
    if (stage->act == NNC_ACT_SIGMOID) {
        clear_padding(&stage->layout, loop.out);
    }
    return 0;
}

/* y = x + z, then ReLU where asked for. */
static int run_add(struct nnc_executable *executable, struct nnc_stage *stage) {
    struct loop loop = loop_of(executable, stage);
    loop.left = nnc_place_address(executable, stage->x);
    loop.right = nnc_place_address(executable, stage->z);
    loop.out = nnc_place_address(executable, stage->y);
    loop.relu = stage->act == NNC_ACT_RELU;
    run_loop(executable, add_share, &loop);
    return 0;
}

/* dx = dy * act'(y). */
static int run_act_grad(struct nnc_executable *executable, struct nnc_stage *stage) {
    struct loop loop = loop_of(executable, stage);
    loop.left = nnc_place_address(executable, stage->y);
    loop.right = nnc_place_address(executable, stage->dy);
    loop.out = nnc_place_address(executable, stage->dx);
    run_loop(executable, act_grad_share, &loop);
    return 0;
}

int nnc_dnn_accumulate(struct nnc_builder *builder, struct nnc_place from, int32_t tensor) {
    const struct nnc_dnn_tensor *entry = nnc_dnn_tensor(builder, tensor);
    struct nnc_stage *stage;
    int rc = nnc_dnn_stage(builder, run_add, "accumulate", &stage);
    if (rc == 0) {
        stage->layout = entry->layout;
        stage->x = entry->place;
        stage->z = from;
        stage->y = entry->place;
    }
    return rc;
}

int nnc_dnn_undo_act(struct nnc_builder *builder, const struct nnc_op *op) {
    if (op->act == NNC_ACT_NONE || builder->act_undone[op->forward]) {
        return 0;
    }
    const struct nnc_dnn_tensor *y = nnc_dnn_tensor(builder, op->y);
    struct nnc_stage *stage;
    int rc = nnc_dnn_stage(builder, run_act_grad, "act grad", &stage);
    if (rc == 0) {
        stage->layout = y->layout;
        stage->act = op->act;
        stage->y = y->place;
        stage->dy = nnc_dnn_tensor(builder, op->dy)->place;
        stage->dx = stage->dy;
    }
    return rc;
}

int nnc_dnn_act(struct nnc_builder *builder, enum nnc_act act, struct nnc_place from,
                int32_t tensor) {
    const struct nnc_dnn_tensor *entry = nnc_dnn_tensor(builder, tensor);
    struct nnc_stage *stage;
    int rc = nnc_dnn_stage(builder, run_act, "act", &stage);
    if (rc == 0) {
        stage->layout = entry->layout;
        stage->act = act;
        stage->x = from;
        stage->y = entry->place;
    }
    return rc;
}

int nnc_lower_act_forward(struct nnc_builder *builder, const struct nnc_op *op) {
    int rc = nnc_dnn_decide_plain(builder, op->x);
    if (rc == 0) {
        rc = nnc_dnn_decide(builder, op->y, nnc_dnn_tensor(builder, op->x)->md);
    }
    if (rc == 0) {
        rc = nnc_dnn_act(builder, op->act, nnc_dnn_tensor(builder, op->x)->place, op->y);
    }
    return rc;
}

/* Bring dy, activation undone, to the gradient of an operand. */
static int pass_on(struct nnc_builder *builder, const struct nnc_op *op, int32_t grad,
                   bool accumulate) {
    const struct nnc_dnn_tensor *dy = nnc_dnn_tensor(builder, op->dy);
    struct nnc_target target;
    struct nnc_stage *stage;
    if (grad < 0) {
        return 0;
    }
    if (accumulate && dnnl_memory_desc_equal(nnc_dnn_tensor(builder, grad)->md, dy->md)) {
        return nnc_dnn_accumulate(builder, dy->place, grad);
    }
    int rc = nnc_dnn_target(builder, grad, dy->md, accumulate, &target);
    if (rc == 0) {
        rc = nnc_dnn_stage(builder, run_act_grad, "copy", &stage);
    }
    if (rc == 0) {
        stage->layout = dy->layout;
        stage->act = NNC_ACT_NONE;
        stage->y = dy->place;
        stage->dy = dy->place;
        stage->dx = target.place;
        rc = nnc_dnn_target_done(builder, &target);
    }
    return rc;
}

int nnc_lower_act_backward(struct nnc_builder *builder, const struct nnc_op *op) {
    int rc = nnc_dnn_undo_act(builder, op);
    if (rc == 0) {
        rc = pass_on(builder, op, op->dx, op->dx_accumulate);
    }
    return rc;
}

int nnc_lower_add_forward(struct nnc_builder *builder, const struct nnc_op *op) {
    struct nnc_place z;
    struct nnc_stage *stage;
    int rc = nnc_dnn_decide_plain(builder, op->x);
    if (rc == 0) {
        rc = nnc_dnn_decide_plain(builder, op->z);
    }
    const struct nnc_dnn_tensor *x = nnc_dnn_tensor(builder, op->x);
    if (rc == 0) {
        rc = nnc_dnn_decide(builder, op->y, x->md);
    }
    if (rc == 0) {
        rc = nnc_dnn_source(builder, op->z, x->md, &z);
    }
    if (rc == 0) {
        rc = nnc_dnn_stage(builder, run_add, "add", &stage);
    }
    if (rc == 0) {
        stage->layout = x->layout;
        stage->act = op->act;
        stage->x = x->place;
        stage->z = z;
        stage->y = nnc_dnn_tensor(builder, op->y)->place;
    }
    if (rc == 0 && op->act != NNC_ACT_NONE && op->act != NNC_ACT_RELU) {
        rc = nnc_dnn_act(builder, op->act, nnc_dnn_tensor(builder, op->y)->place, op->y);
    }
    return rc;
}

int nnc_lower_add_backward(struct nnc_builder *builder, const struct nnc_op *op) {
    int rc = nnc_dnn_undo_act(builder, op);
    if (rc == 0) {
        rc = pass_on(builder, op, op->dx, op->dx_accumulate);
    }
    if (rc == 0) {
        rc = pass_on(builder, op, op->dz, op->dz_accumulate);
    }
    return rc;
}

struct dropout_job {
    const struct nnc_kernels *kernels;
    struct nnc_dropout mask;
    const struct nnc_dnn_layout *from_layout, *to_layout;
    const float *from;
    float *to;
    float *factors; /* (N, features), kept from the forward pass for the backward pass */
    bool draw;      /* forward: make the factors */
    uint32_t first; /* sample of the global batch */
};

/* Multiply a sample by factors in C,H,W order, channel by channel: either side may be blocked. */
static void multiply_sample(const struct dropout_job *job, const float *from, const float *factors,
                            float *to) {
    size_t positions = job->from_layout->positions;
    size_t from_step = job->from_layout->inner;
    size_t to_step = job->to_layout->inner;
    for (size_t c = 0; c < job->from_layout->c; c++) {
        const float *x = from + nnc_layout_at(job->from_layout, c * positions);
        float *y = to + nnc_layout_at(job->to_layout, c * positions);
        for (size_t s = 0; s < positions; s++) {
            y[s * to_step] = x[s * from_step] * factors[c * positions + s];
        }
    }
}

static void multiply_flat(const float *from, const float *factors, size_t count, float *to) {
    for (size_t f = 0; f < count; f++) {
        to[f] = from[f] * factors[f];
    }
}

static size_t sample_floats(const struct nnc_dnn_layout *layout) {
    return (size_t)layout->outer * layout->positions * layout->inner;
}

static void drop_share(void *context, uint32_t thread, uint32_t threads) {
    const struct dropout_job *job = context;
    size_t features = job->from_layout->c * job->from_layout->positions;
    size_t to_floats = sample_floats(job->to_layout);
    bool flat = nnc_layout_is_flat(job->from_layout) && nnc_layout_is_flat(job->to_layout);
    size_t begin;
    size_t end;
    nnc_share(job->from_layout->n, 1, thread, threads, &begin, &end);
    for (size_t n = begin; n < end; n++) {
        const float *from = job->from + n * sample_floats(job->from_layout);
        float *to = job->to + n * to_floats;
        float *factors = job->factors + n * features;
        if (job->draw) {
            job->kernels->dropout(&job->mask, job->first + (uint32_t)n, features, factors);
        }
        if (flat) {
            multiply_flat(from, factors, features, to);
            continue;
        }
        if (features < to_floats) {
            memset(to, 0, to_floats * sizeof(*to)); /* padding */
        }
        multiply_sample(job, from, factors, to);
    }
}

/* y = x * mask / (1 - p); the backward pass is the same with dy and dx. */
static int run_dropout(struct nnc_executable *executable, struct nnc_stage *stage) {
    const struct nnc_backend_params *params = &executable->backend->params;
    const struct nnc_op *op = &executable->program->ops[stage->op];
    double p = executable->program->graph->nodes[op->node].dropout;
    struct dropout_job job = {
        .kernels = executable->backend->kernels,
        .mask = nnc_dropout_make(params->seed, executable->step.step, (uint32_t)op->node, p),
        .from_layout = &stage->layout,
        .to_layout = &stage->to,
        .from = nnc_place_address(executable, stage->x),
        .to = nnc_place_address(executable, stage->y),
        .factors = nnc_place_address(executable, stage->notes),
        .draw = op->pass == NNC_PASS_FORWARD,
        .first = executable->step.first,
    };
    nnc_parallel(nnc_team(params->threads, 3.0 * (double)nnc_layout_count(&stage->layout)),
                 drop_share, &job);
    return 0;
}

static int add_dropout(struct nnc_builder *builder, const struct nnc_dnn_tensor *from,
                       const struct nnc_dnn_layout *to_layout, struct nnc_place to) {
    const struct nnc_op *op = &builder->program->ops[builder->op];
    struct nnc_stage *stage;
    int rc = nnc_dnn_stage(builder, run_dropout, "dropout", &stage);
    if (rc == 0) {
        stage->layout = from->layout;
        stage->to = *to_layout;
        stage->x = from->place;
        stage->y = to;
        stage->notes = builder->notes[op->forward >= 0 ? (uint32_t)op->forward : builder->op];
    }
    return rc;
}

/* Whether only linear layers read a tensor: they want its features in C,H,W order. */
static bool is_for_linear(const struct nnc_program *program, int32_t tensor) {
    for (uint32_t k = 0; k < program->forward_count; k++) {
        const struct nnc_op *op = &program->ops[k];
        if ((op->x == tensor || op->z == tensor) && op->kind != NNC_OP_LINEAR) {
            return false;
        }
    }
    return true;
}

int nnc_lower_dropout_forward(struct nnc_builder *builder, const struct nnc_op *op) {
    int rc = nnc_dnn_decide_plain(builder, op->x);
    const struct nnc_dnn_tensor *x = nnc_dnn_tensor(builder, op->x);
    const struct nnc_dnn_tensor *y = nnc_dnn_tensor(builder, op->y);
    if (rc == 0) {
        bool plain = !nnc_layout_is_flat(&x->layout) && is_for_linear(builder->program, op->y);
        rc = plain ? nnc_dnn_decide_plain(builder, op->y) : nnc_dnn_decide(builder, op->y, x->md);
    }
    if (rc == 0) {
        size_t factors = (size_t)x->layout.n * x->layout.c * x->layout.positions;
        rc = nnc_dnn_private(builder, factors * sizeof(float), &builder->notes[builder->op]);
    }
    if (rc == 0) {
        rc = add_dropout(builder, x, &y->layout, y->place);
    }
    return rc;
}

int nnc_lower_dropout_backward(struct nnc_builder *builder, const struct nnc_op *op) {
    struct nnc_target dx;
    if (op->dx < 0) {
        return 0;
    }
    const struct nnc_dnn_tensor *x = nnc_dnn_tensor(builder, op->dx);
    int rc = nnc_dnn_target(builder, op->dx, x->md, op->dx_accumulate, &dx);
    if (rc == 0) {
        rc = add_dropout(builder, nnc_dnn_tensor(builder, op->dy), &x->layout, dx.place);
    }
    if (rc == 0) {
        rc = nnc_dnn_target_done(builder, &dx);
    }
    return rc;
}
