/* SPDX-License-Identifier: Apache-2.0 */
/* What the two halves of lowering share: program.c (resolve, forward) and program_backward.c. */
#ifndef NNC_WORKERS_PROGRAM_LOWER_H
#define NNC_WORKERS_PROGRAM_LOWER_H

#include "workers/program.h"

/* Scratch of one lowering. Arrays by node, except needs_grad by tensor. */
struct nnc_lowering {
    const struct nnc_graph *graph;
    struct nnc_program *program;
    int32_t *source;    /* the node whose operation writes this node's value */
    uint32_t *uses;     /* readers of the value */
    int32_t *waits_for; /* BatchNorm2d: the addition it is computed with; -1: none */
    int32_t *tensor;    /* tensor with the value */
    int32_t *op;        /* forward operation that writes it */
    bool *needs_grad;
};

/* Add a tensor of this shape to the program; returns its number. Room for all was made before. */
int32_t nnc_lower_tensor(struct nnc_lowering *low, struct nnc_shape shape);

/* Add an operation with all numbers -1. Owner: the program's; valid as long as that lives. */
struct nnc_op *nnc_lower_op(struct nnc_lowering *low, enum nnc_op_kind kind, enum nnc_pass pass);

/* Add the backward operations. Errors: -NNC_E_USAGE when nothing can be trained. */
int nnc_lower_backward(struct nnc_lowering *low);

/* Set first_op and last_op of every tensor. */
void nnc_lower_lifetimes(struct nnc_program *program);

/* Fill order and buckets; bucket_bytes as in struct nnc_program_params. */
void nnc_lower_order(struct nnc_program *program, size_t bucket_bytes);

#endif
