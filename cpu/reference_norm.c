/* SPDX-License-Identifier: Apache-2.0 */
/* Batch normalisation per channel, M = N*H*W values each:
 *
 *   training:  mean, var of the batch (var over M);  xhat = (x - mean) / sqrt(var + eps)
 *              running = (1 - momentum) * running + momentum * (mean, var * M / (M-1))
 *   inference: the running mean and variance
 *   y = weight * xhat + bias + z
 *   dbias = sum dy;  dweight = sum dy*xhat
 *   dx = weight / sqrt(var + eps) * (dy - dbias/M - xhat*dweight/M);  dz = dy
 *
 * Sums in double, two passes for the variance.
 * Source: Ioffe, Szegedy, arXiv:1502.03167; torch.nn.BatchNorm2d for the running statistics. */
#include "cpu/reference_ops.h"

#include <assert.h>
#include <math.h>

/* One channel of x: value number i of it. */
struct channel {
    struct nnc_shape shape;
    uint32_t c;
    size_t count; /* M */
};

static size_t place_in(const struct channel *channel, size_t number) {
    size_t plane = (size_t)channel->shape.h * channel->shape.w;
    size_t n = number / plane;
    return (n * channel->shape.c + channel->c) * plane + number % plane;
}

static struct channel channel_of(const struct nnc_executable *exe, const struct nnc_op *op,
                                 uint32_t c) {
    struct nnc_shape shape = exe->program->tensors[op->x].shape;
    return (struct channel){shape, c, (size_t)exe->program->batch * shape.h * shape.w};
}

static void move_running(struct nnc_executable *exe, const struct nnc_op *op, uint32_t c,
                         const double mean_var[2]) {
    double momentum = exe->program->graph->nodes[op->node].momentum;
    const int32_t params[2] = {op->mean, op->var};
    for (int which = 0; which < 2; which++) {
        if (params[which] >= 0) {
            float *running = &exe->backend->value[params[which]][c];
            *running = (float)((1 - momentum) * *running + momentum * mean_var[which]);
        }
    }
}

static void batch_statistics(struct nnc_executable *exe, const struct nnc_op *op,
                             const struct channel *channel, double ret_mean_var[2]) {
    const nnc_real *x = exe->tensor[op->x];
    double mean = 0;
    for (size_t number = 0; number < channel->count; number++) {
        mean += x[place_in(channel, number)];
    }
    mean /= (double)channel->count;
    double squares = 0;
    for (size_t number = 0; number < channel->count; number++) {
        double distance = x[place_in(channel, number)] - mean;
        squares += distance * distance;
    }
    ret_mean_var[0] = mean;
    ret_mean_var[1] = squares / (double)channel->count;
    assert(channel->count > 1);
    const double unbiased[2] = {mean, squares / (double)(channel->count - 1)};
    move_running(exe, op, channel->c, unbiased);
}

static double param_or(const struct nnc_executable *exe, int32_t param, uint32_t c, double other) {
    return param >= 0 ? exe->backend->value[param][c] : other;
}

void reference_norm_forward(struct nnc_executable *exe, const struct nnc_op *op) {
    const nnc_real *x = exe->tensor[op->x];
    double *saved = exe->saved[op - exe->program->ops];
    for (uint32_t c = 0; c < exe->program->tensors[op->x].shape.c; c++) {
        struct channel channel = channel_of(exe, op, c);
        double mean_var[2] = {param_or(exe, op->mean, c, 0), param_or(exe, op->var, c, 1)};
        if (exe->program->training) {
            batch_statistics(exe, op, &channel, mean_var);
        }
        double scale = 1 / sqrt(mean_var[1] + exe->program->graph->nodes[op->node].eps);
        double weight = param_or(exe, op->weight, c, 1);
        double bias = param_or(exe, op->bias, c, 0);
        saved[2 * c] = mean_var[0];
        saved[2 * c + 1] = scale;
        for (size_t number = 0; number < channel.count; number++) {
            size_t place = place_in(&channel, number);
            double shortcut = op->z >= 0 ? exe->tensor[op->z][place] : 0;
            double value = weight * ((x[place] - mean_var[0]) * scale) + bias + shortcut;
            exe->tensor[op->y][place] = (nnc_real)value;
        }
    }
}

static void channel_backward(struct nnc_executable *exe, const struct nnc_op *op, uint32_t c) {
    const double *saved = exe->saved[op->forward];
    double mean = saved[2 * c];
    double scale = saved[2 * c + 1];
    const nnc_real *x = exe->tensor[op->x];
    const nnc_real *dy = exe->tensor[op->dy];
    struct channel channel = channel_of(exe, op, c);
    double dweight = 0;
    double dbias = 0;
    for (size_t number = 0; number < channel.count; number++) {
        size_t place = place_in(&channel, number);
        dbias += dy[place];
        dweight += dy[place] * ((x[place] - mean) * scale);
    }
    if (op->weight >= 0) {
        exe->backend->gradient[op->weight][c] = (float)dweight;
    }
    if (op->bias >= 0) {
        exe->backend->gradient[op->bias][c] = (float)dbias;
    }
    double factor = param_or(exe, op->weight, c, 1) * scale;
    double values = (double)channel.count;
    for (size_t number = 0; op->dx >= 0 && number < channel.count; number++) {
        size_t place = place_in(&channel, number);
        double xhat = (x[place] - mean) * scale;
        double gradient = factor * (dy[place] - dbias / values - xhat * dweight / values);
        reference_store(&exe->tensor[op->dx][place], gradient, op->dx_accumulate);
    }
}

void reference_norm_backward(struct nnc_executable *exe, const struct nnc_op *op) {
    for (uint32_t c = 0; c < exe->program->tensors[op->x].shape.c; c++) {
        channel_backward(exe, op, c);
    }
    size_t count = op->dz >= 0 ? reference_count(exe, op->dz) : 0;
    for (size_t place = 0; place < count; place++) {
        double gradient = exe->tensor[op->dy][place];
        reference_store(&exe->tensor[op->dz][place], gradient, op->dz_accumulate);
    }
}
