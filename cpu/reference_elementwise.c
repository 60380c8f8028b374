/* SPDX-License-Identifier: Apache-2.0 */
/* Operations that handle each value alone: input, activation, addition, dropout. The activation
 * itself is the driver's (reference_exec.c), so ACT only copies.
 *
 * Source: torchvision's ToTensor and Normalize for INPUT; workers/dropout.h. */
#include "cpu/reference_ops.h"
#include "workers/dropout.h"

void reference_input(struct nnc_executable *exe, const struct nnc_op *op) {
    struct nnc_shape shape = exe->program->tensors[op->y].shape;
    const struct nnc_backend_params *params = &exe->backend->params;
    size_t count = reference_count(exe, op->y);
    for (size_t index = 0; index < count; index++) {
        struct reference_place at = reference_place(shape, index);
        size_t pixel = (size_t)((at.n * shape.h + at.h) * shape.w + at.w);
        double value = exe->images[pixel * shape.c + (size_t)at.c] / 255.0;
        exe->tensor[op->y][index] = (nnc_real)((value - params->mean[at.c]) / params->std[at.c]);
    }
}

void reference_act_forward(struct nnc_executable *exe, const struct nnc_op *op) {
    size_t count = reference_count(exe, op->y);
    for (size_t place = 0; place < count; place++) {
        exe->tensor[op->y][place] = exe->tensor[op->x][place];
    }
}

/* A gradient that passes unchanged to `dx`, which may be -1. */
static void pass_on(struct nnc_executable *exe, int32_t dy, int32_t dx, bool accumulate) {
    size_t count = dx >= 0 ? reference_count(exe, dx) : 0;
    for (size_t place = 0; place < count; place++) {
        reference_store(&exe->tensor[dx][place], exe->tensor[dy][place], accumulate);
    }
}

void reference_act_backward(struct nnc_executable *exe, const struct nnc_op *op) {
    pass_on(exe, op->dy, op->dx, op->dx_accumulate);
}

void reference_add_forward(struct nnc_executable *exe, const struct nnc_op *op) {
    size_t count = reference_count(exe, op->y);
    for (size_t place = 0; place < count; place++) {
        exe->tensor[op->y][place] = exe->tensor[op->x][place] + exe->tensor[op->z][place];
    }
}

void reference_add_backward(struct nnc_executable *exe, const struct nnc_op *op) {
    pass_on(exe, op->dy, op->dx, op->dx_accumulate);
    pass_on(exe, op->dy, op->dz, op->dz_accumulate);
}

/* What the mask multiplies value `index` of a tensor of `features` values a sample with. */
static double mask_at(const struct nnc_executable *exe, const struct nnc_dropout *dropout,
                      size_t features, size_t index) {
    uint32_t sample = exe->step.first + (uint32_t)(index / features);
    bool keep = nnc_dropout_keep(dropout, sample, (uint32_t)(index % features));
    return keep ? dropout->scale : 0;
}

static struct nnc_dropout dropout_of(const struct nnc_executable *exe, const struct nnc_op *op) {
    return nnc_dropout_make(exe->backend->params.seed, exe->step.step, (uint32_t)op->node,
                            exe->program->graph->nodes[op->node].dropout);
}

void reference_dropout_forward(struct nnc_executable *exe, const struct nnc_op *op) {
    struct nnc_dropout dropout = dropout_of(exe, op);
    size_t features = reference_features(exe, op->y);
    for (size_t index = 0; index < exe->program->batch * features; index++) {
        double mask = mask_at(exe, &dropout, features, index);
        exe->tensor[op->y][index] = (nnc_real)(exe->tensor[op->x][index] * mask);
    }
}

void reference_dropout_backward(struct nnc_executable *exe, const struct nnc_op *op) {
    if (op->dx < 0) {
        return;
    }
    struct nnc_dropout dropout = dropout_of(exe, op);
    size_t features = reference_features(exe, op->dy);
    for (size_t index = 0; index < exe->program->batch * features; index++) {
        double gradient = exe->tensor[op->dy][index] * mask_at(exe, &dropout, features, index);
        reference_store(&exe->tensor[op->dx][index], gradient, op->dx_accumulate);
    }
}
