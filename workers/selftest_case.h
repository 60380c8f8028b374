/* SPDX-License-Identifier: Apache-2.0 */
/* One table of small networks that between them hold every operation with every attribute, and what
 * a backend makes of each. `nncoord selftest` compares a backend with the reference on it, and so
 * do the tests; the tests also compare the reference with finite differences.
 *
 * A run: step 1 with the whole batch, update, step 2 with a smaller batch in a second executable of
 * the same state, update, evaluation. Everything a caller can see is recorded as named vectors.
 * Whatever a backend must write is filled with NaN before. */
#ifndef NNC_WORKERS_SELFTEST_CASE_H
#define NNC_WORKERS_SELFTEST_CASE_H

#include "workers/backend.h"
#include "workers/graph_rows.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct nnc_case {
    const char *name;
    struct nnc_shape input;
    uint32_t batch;
    int32_t loss;     /* enum nnc_loss */
    double smoothing; /* of labels */
    bool unlabelled;  /* sample 0 has label -1 */
    float trust;      /* LARS; 0: plain SGD */
    struct nnc_layer_row rows[28];
};

/* Ends with a row without name. */
extern const struct nnc_case nnc_cases[];

/* Cases that stand together in the table: from the one with this name to the next group's. */
struct nnc_case_group {
    const char *title; /* NULL ends the table */
    const char *first;
};

extern const struct nnc_case_group nnc_case_groups[];

/* What a model is made on. */
struct nnc_case_params {
    const struct nnc_backend_ops *ops;
    struct nnc_device_params device; /* of device backends */
    uint32_t threads;                /* 0: 2 */
    uint32_t rank, ranks;            /* ranks 0: 1; ranks have the same weights, not samples */
    uint64_t seed;                   /* of weights and samples */
    const struct nnc_graph *graph;   /* instead of the case's rows; borrowed */
    bool whole_only;                 /* no program but NNC_CASE_WHOLE */
    bool calm_scale;                 /* fp16: a loss scale with which no case overflows */
    int (*alive)(void *context);     /* as struct nnc_backend_params has it */
    void *context;
};

enum nnc_case_program {
    NNC_CASE_WHOLE, /* the whole batch */
    NNC_CASE_SMALL, /* one sample less; NULL where batch normalisation forbids it */
    NNC_CASE_EVAL,
    NNC_CASE_PROGRAMS,
};

/* A model of a case on a backend, ready to step. */
struct nnc_case_model {
    const struct nnc_backend_ops *ops;
    const struct nnc_case *row;
    const struct nnc_graph *graph;
    struct nnc_graph *own_graph; /* NULL: graph is borrowed */
    struct nnc_backend *backend;
    struct nnc_program *program[NNC_CASE_PROGRAMS];
    struct nnc_executable *executable[NNC_CASE_PROGRAMS];
    uint8_t *images; /* with gaps between samples */
    size_t sample_stride;
    int32_t *labels;
};

/* Build the graph, set reproducible weights, compile. *ret_model is zero on failure.
 * Owner:  nnc_case_close().
 * Errors: -ENOMEM; what the backend says. */
int nnc_case_open(const struct nnc_case_params *params, const struct nnc_case *row,
                  struct nnc_case_model *ret_model);

/* Takes a model of zeros, and half-built ones. */
void nnc_case_close(struct nnc_case_model *model);

/* Feed and step (or evaluate) one program with step number `step`, and wait for it. Gradients are
 * NaN before a step.
 * Errors: -EPROTO: buckets are not announced in order, once and final; what the backend says. */
int nnc_case_step(struct nnc_case_model *model, enum nnc_case_program which, uint64_t step,
                  struct nnc_metrics *ret_metrics);

/* A parameter's state in ret_values, which is filled with NaN before. Errors: the backend's. */
int nnc_case_get(const struct nnc_case_model *model, enum nnc_state state, uint32_t param,
                 float *ret_values);

/* How a recorded quantity is judged. */
enum nnc_case_kind {
    NNC_CASE_VALUE,    /* a continuous function of inputs and weights */
    NNC_CASE_GRADIENT, /* jumps where a ReLU or a maximum is undecided */
    NNC_CASE_COUNT,    /* exact */
    NNC_CASE_RANKING,  /* a count that a close tie of logits may change by one */
};

/* One recorded quantity: "gradient 1 n3.weight". Vectors of one group are judged on one scale. */
struct nnc_case_vector {
    char name[NNC_GRAPH_NAME_MAX + 40];
    enum nnc_case_kind kind;
    int group;
    float *values;
    size_t count;
};

struct nnc_case_result {
    struct nnc_case_vector *vectors;
    size_t count, capacity;
};

/* Run the case and record logits, losses, gradients, weights, momentum, running statistics.
 * Owner:  nnc_case_result_free(), of *ret_result after a failure too. Errors: as nnc_case_step();
 *         -ENOMEM. */
int nnc_case_run(const struct nnc_case_params *params, const struct nnc_case *row,
                 struct nnc_case_result *ret_result);
void nnc_case_result_free(struct nnc_case_result *result);

/* Append a vector of `count` NaNs named "TITLE NAME"; returns its values, to be filled, or NULL
 * when memory is out. */
float *nnc_case_record(struct nnc_case_result *result, int group, size_t count, const char *title,
                       const char *name);

/* ---- comparing (selftest_compare.c) ---- */

enum nnc_precision {
    NNC_PRECISION_FP32,
    NNC_PRECISION_TF32, /* fp32 whose products are of TF32 */
    NNC_PRECISION_BF16,
    NNC_PRECISION_FP16,
};

/* "fp32", "tf32", "bf16", "fp16". */
const char *nnc_precision_name(enum nnc_precision precision);

/* Relative bounds by kind of quantity; counts are exact. */
struct nnc_case_limits {
    double value, gradient;
    uint32_t ranking; /* by how much a count of right answers may differ */
};

/* Limits for a backend that computes in this precision; derived in selftest_compare.c. */
void nnc_case_limits(const struct nnc_program *program, enum nnc_precision precision,
                     struct nnc_case_limits *ret_limits);

/* The relative bound for a backend that computes in a type with this unit roundoff (2^-24 for
 * float) and rounds as an exact one would; tighter than nnc_case_limits(). */
double nnc_case_bound(const struct nnc_program *program, double unit_roundoff);

/* The training program of a case, to ask for its limits.
 * Owner:  *ret_graph with nnc_graph_of_rows_free(), then *ret_program. Errors: -ENOMEM. */
int nnc_case_lower(const struct nnc_case *row, struct nnc_graph **ret_graph,
                   struct nnc_program **ret_program);

struct nnc_case_verdict {
    bool agree;
    double error, limit; /* of the vector that comes nearest to its limit, or passes it most */
    char text[400];      /* which one that is, with figures */
};

/* Compare |got - wanted| <= limit * max(|wanted|, |largest of the group| / 10) in the 2-norm, for
 * every vector. */
void nnc_case_compare(const struct nnc_case_result *wanted, const struct nnc_case_result *got,
                      const struct nnc_case_limits *limits, struct nnc_case_verdict *ret_verdict);

/* Whether two results are the same bits; else *ret_name is the first vector that is not. */
bool nnc_case_equal(const struct nnc_case_result *left, const struct nnc_case_result *right,
                    const char **ret_name);

/* |left - right|, or |left| when right is NULL. */
double nnc_case_norm(const float *left, const float *right, size_t count);

#endif
