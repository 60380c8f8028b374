/* SPDX-License-Identifier: Apache-2.0 */
/* The training program: a graph lowered once, for one batch size, into operations in forward and
 * backward order. It knows fusion, gradient flow, buffer lifetimes and reduction order, and no
 * device. A backend (backend.h) compiles it.
 *
 *   graph:    conv -> bn -> relu -> conv -> bn -> add(shortcut) -> relu -> ... -> linear
 *   program:  INPUT  CONV  NORM(act)  CONV  NORM(add, act) ... LINEAR  LOSS | backward, reversed
 *
 * Tensors hold one value per (n, c, h, w); their layout in memory is the backend's own business.
 * The gradient of tensor t is tensor `grad` of t. When a tensor feeds two operations, the backward
 * operation that writes its gradient second has `accumulate` set for it: it adds instead of
 * storing.
 *
 * Rules a backend may rely on:
 *  1. One operation writes each tensor that is no gradient. Flatten makes none, nor does Dropout in
 *     inference.
 *  2. Only the backward operation of t's writer reads the gradient of t: it may destroy its dy.
 *  3. A backward operation names the x and y it needs and no others; all else is dead by then. So
 *     MAXPOOL must remember the places of its maxima, NORM its mean and variance; DROPOUT draws
 *     its mask again.
 *  4. x and z of an ADD may be one tensor: then dx and dz are one too, dx is written first.
 *  5. The logits live to the end of the program. */
#ifndef NNC_WORKERS_PROGRAM_H
#define NNC_WORKERS_PROGRAM_H

#include "workers/graph.h"

enum nnc_op_kind {
    NNC_OP_INPUT,   /* y = (u8 / 255 - mean) / std, NHWC bytes to a tensor */
    NNC_OP_CONV,    /* y = act(conv(x, weight) + bias) */
    NNC_OP_LINEAR,  /* y = act(x weight^T + bias); x may be (N,C,H,W), flattened in C,H,W order */
    NNC_OP_NORM,    /* y = act(batchnorm(x) + z); z optional */
    NNC_OP_ACT,     /* y = act(x) */
    NNC_OP_ADD,     /* y = act(x + z) */
    NNC_OP_MAXPOOL, /* y = max over windows */
    NNC_OP_AVGPOOL, /* y = mean over windows; adaptive pooling too (window list is PyTorch's) */
    NNC_OP_DROPOUT, /* y = x * mask / (1 - p) */
    NNC_OP_LOSS,    /* x = logits; loss sum, top-1 and top-5 counts, and in training dlogits */
    NNC_OP_COUNT,
};

enum nnc_act {
    NNC_ACT_NONE,
    NNC_ACT_RELU,
    NNC_ACT_SIGMOID,
    NNC_ACT_TANH,
};

enum nnc_pass {
    NNC_PASS_FORWARD,
    NNC_PASS_BACKWARD,
};

struct nnc_op {
    enum nnc_op_kind kind;
    enum nnc_pass pass;
    int32_t node;     /* graph node it came from (attributes: eps, dropout, ...); LOSS: -1 */
    int32_t forward;  /* backward: number of its forward operation; forward: -1 */
    enum nnc_act act; /* fused activation, of the output; backward uses y to undo it */
    /* Tensors, -1: none. Backward: the forward operation's x where it is needed (CONV, LINEAR,
     * NORM, LOSS) and y where there is an act, else -1; z is always -1. */
    int32_t x, z, y;
    /* Backward only: gradients. dx, dz: -1: not needed (dx of the first layer). LOSS: dy is -1. */
    int32_t dx, dz, dy;
    bool dx_accumulate, dz_accumulate;
    int32_t weight, bias, mean, var; /* parameter numbers, -1: none */
    struct nnc_window window;        /* CONV, MAXPOOL, AVGPOOL */
    bool adaptive; /* AVGPOOL over PyTorch's adaptive windows, output shape in y */
};

struct nnc_tensor {
    struct nnc_shape shape; /* one sample; Flatten leaves it as it was */
    int32_t grad;           /* tensor with this one's gradient; -1: none */
    /* Written first, read last: the lifetime in operation numbers, both ends included. */
    int32_t first_op, last_op;
    bool is_grad;
    bool flat; /* (N, C), h = w = 1: written by LINEAR, or elementwise from such a one */
};

/* Parameters whose gradients are final after operation `after_op`: reduced together. */
struct nnc_bucket {
    uint32_t first, count; /* in program->order */
    uint32_t after_op;
};

struct nnc_program {
    const struct nnc_graph *graph; /* borrowed, must outlive the program */
    uint32_t batch;                /* N */
    bool training;      /* false: forward and loss only, BatchNorm2d with running statistics */
    struct nnc_op *ops; /* all forward, then all backward */
    struct nnc_tensor *tensors;
    struct nnc_bucket *buckets;
    uint32_t *order; /* trained parameters in order of backward completion */
    uint32_t op_count, forward_count, tensor_count, bucket_count, order_count;
    int32_t logits; /* tensor (N, classes) */
};

/* "CONV", "relu", ... as nnc_program_describe() writes them. */
const char *nnc_op_name(enum nnc_op_kind kind);
const char *nnc_act_name(enum nnc_act act);

struct nnc_program_params {
    const struct nnc_graph *graph;
    uint32_t batch;
    bool training;
    size_t bucket_bytes; /* reduction bucket size aimed at (fp32 gradients); 0: one bucket */
};

/* Lower.
 * Owner:  free with nnc_program_destroy().
 * Errors: -NNC_E_USAGE for graphs that cannot be run or trained, naming the layer: a value nobody
 *         reads, a spatial layer after Flatten, no parameters, BatchNorm2d of one value. */
int nnc_program_create(const struct nnc_program_params *params, struct nnc_program **ret_program);

/* Takes NULL. */
void nnc_program_destroy(struct nnc_program *program);

/* One line per operation, tensor and bucket, for debugging and golden tests.
 * Owner: caller frees. NULL when memory is out. */
char *nnc_program_describe(const struct nnc_program *program);

/* Pack tensors into one arena: two tensors overlap only if their lifetimes do not.
 * bytes_of gives each tensor's size in the backend's layout (0: the tensor needs no memory).
 * Offsets are multiples of `alignment` (a power of two). ret_offsets has tensor_count entries.
 * Errors: -EOVERFLOW, -ENOMEM. */
int nnc_program_pack(const struct nnc_program *program,
                     size_t (*bytes_of)(void *context, uint32_t tensor), void *context,
                     size_t alignment, size_t *ret_offsets, size_t *ret_arena_bytes);

#endif
