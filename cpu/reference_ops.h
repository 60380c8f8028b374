/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the reference backend share: its state and the signature of an operation.
 *
 * An activation is no concern of the operations: the driver applies it to y after the forward
 * function, and multiplies dy by its derivative before the backward function. */
#ifndef NNC_CPU_REFERENCE_OPS_H
#define NNC_CPU_REFERENCE_OPS_H

#include "workers/backend.h"

/* Tests build the backend a second time with doubles, so that finite differences are exact enough
 * to prove gradients; weights, gradients and images stay as they are. */
#ifndef NNC_REFERENCE_DOUBLE
#define NNC_REFERENCE_DOUBLE 0
#endif
#if NNC_REFERENCE_DOUBLE
typedef double nnc_real;
#else
typedef float nnc_real;
#endif

struct nnc_backend {
    struct nnc_backend_params params;
    float **value;    /* by parameter */
    float **gradient; /* by parameter, into `gradients`; NULL for buffers */
    float **momentum; /* by parameter; NULL for buffers */
    float *gradients; /* one run, in the order of the first training program */
    uint64_t gradient_count;
    uint64_t *bucket_end; /* where each bucket of that program ends in `gradients` */
    uint32_t bucket_count;
    bool ordered; /* that program was seen */
    struct nnc_metrics metrics;
    size_t bytes; /* of everything above and of the executables' tensors */
};

struct nnc_executable {
    struct nnc_backend *backend;
    const struct nnc_program *program;
    nnc_real **tensor; /* by tensor, (N,C,H,W) */
    void **saved;      /* by forward operation: what its backward needs beside tensors */
    uint8_t *images;   /* (N,H,W,C) of the fed batch */
    int32_t *labels;
    bool fed;
    size_t bytes;                /* its share of the backend's */
    struct nnc_step_params step; /* of the running step */
};

/* Run one operation. */
typedef void reference_function(struct nnc_executable *exe, const struct nnc_op *op);

reference_function reference_input;
reference_function reference_conv_forward, reference_conv_backward;
reference_function reference_linear_forward, reference_linear_backward;
reference_function reference_norm_forward, reference_norm_backward;
reference_function reference_act_forward, reference_act_backward;
reference_function reference_add_forward, reference_add_backward;
reference_function reference_maxpool_forward, reference_maxpool_backward;
reference_function reference_avgpool_forward, reference_avgpool_backward;
reference_function reference_dropout_forward, reference_dropout_backward;
reference_function reference_loss_forward, reference_loss_backward;

/* The functions of the executable that stand in the backend's table; see backend.h. */
int reference_compile(struct nnc_backend *backend, const struct nnc_program *program,
                      struct nnc_executable **ret_executable);
void reference_release(struct nnc_executable *exe);
int reference_feed(struct nnc_executable *exe, const struct nnc_feed *feed);
int reference_step(struct nnc_executable *exe, const struct nnc_step_params *params);
int reference_evaluate(struct nnc_executable *exe);
int reference_logits(struct nnc_executable *exe, float *ret_logits);

/* Lay the gradients out in the program's order, if no program has done so before.
 * Errors: -ENOMEM. */
int reference_order_gradients(struct nnc_backend *backend, const struct nnc_program *program);

/* Values of one sample of tensor `tensor`. */
static inline size_t reference_features(const struct nnc_executable *exe, int32_t tensor) {
    struct nnc_shape shape = exe->program->tensors[tensor].shape;
    return (size_t)shape.c * shape.h * shape.w;
}

/* Values of a whole tensor. */
static inline size_t reference_count(const struct nnc_executable *exe, int32_t tensor) {
    return exe->program->batch * reference_features(exe, tensor);
}

/* A place in a tensor, and the way between it and the index of its value. */
struct reference_place {
    int64_t n, c, h, w;
};

/* Where element `index` of a plain NCHW tensor lies. */
static inline struct reference_place reference_place(struct nnc_shape shape, size_t index) {
    struct reference_place place;
    place.w = (int64_t)(index % shape.w);
    place.h = (int64_t)(index / shape.w % shape.h);
    place.c = (int64_t)(index / shape.w / shape.h % shape.c);
    place.n = (int64_t)(index / shape.w / shape.h / shape.c);
    return place;
}

/* The index of that place: inverse of reference_place(). */
static inline size_t reference_index(struct nnc_shape shape, struct reference_place place) {
    return (size_t)(((place.n * shape.c + place.c) * shape.h + place.h) * shape.w + place.w);
}

/* Write a gradient value, or add it to what is there. */
static inline void reference_store(nnc_real *place, double value, bool accumulate) {
    *place = (nnc_real)(accumulate ? *place + value : value);
}

#endif
