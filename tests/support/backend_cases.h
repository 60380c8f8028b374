/* SPDX-License-Identifier: Apache-2.0 */
/* One table of small networks that between them hold every operation with every attribute, and what
 * a backend makes of each. Backends are compared with the reference on it (test_backends.c), the
 * reference with finite differences (test_reference.c).
 *
 * A run: step 1 with the whole batch, update, step 2 with a smaller batch in a second executable of
 * the same state, update, evaluation. Everything a caller can see is recorded as named vectors. */
#ifndef NNC_TESTS_SUPPORT_BACKEND_CASES_H
#define NNC_TESTS_SUPPORT_BACKEND_CASES_H

#include "tests/support/graph_builder.h"
#include "workers/backend.h"

struct backend_case {
    const char *name;
    struct nnc_shape input;
    uint32_t batch;
    int32_t loss;     /* enum nnc_loss */
    double smoothing; /* of labels */
    bool unlabelled;  /* sample 0 has label -1 */
    float trust;      /* LARS; 0: plain SGD */
    struct layer_row rows[28];
};

/* Ends with a row without name. */
extern const struct backend_case backend_cases[];

enum case_program {
    CASE_WHOLE, /* the whole batch */
    CASE_SMALL, /* one sample less; NULL where batch normalisation forbids it */
    CASE_EVAL,
};

/* A model of a case on a backend, ready to step. */
struct case_model {
    const struct nnc_backend_ops *ops;
    const struct backend_case *row;
    struct nnc_graph *graph;
    struct nnc_backend *backend;
    struct nnc_program *program[3];       /* by enum case_program */
    struct nnc_executable *executable[3]; /* of those */
    uint8_t *images;                      /* with gaps between samples */
    size_t sample_stride;
    int32_t *labels;
};

/* What device backends are opened with; zero at first. */
extern struct nnc_device_params case_device;

/* Build the graph, set reproducible weights, compile. Asserts on failure. */
void case_model_open(const struct nnc_backend_ops *ops, const struct backend_case *row,
                     struct case_model *ret_model);
void case_model_close(struct case_model *model);

/* Feed and step (or evaluate) one program with step number `step`; returns the metrics. Asserts
 * that buckets are announced in order, once and final. */
struct nnc_metrics case_model_step(struct case_model *model, enum case_program which,
                                   uint64_t step);

/* One recorded quantity: "gradient 1 n3.weight". Vectors of one group are judged on one scale. */
struct case_vector {
    char name[NNC_GRAPH_NAME_MAX + 40];
    int group;
    float *values;
    size_t count;
};

struct case_result {
    struct case_vector *vectors;
    size_t count, capacity;
};

/* Run the case on a backend and record logits, losses, gradients, weights, momentum, running
 * statistics. Owner: case_result_free(). */
void case_run(const struct nnc_backend_ops *ops, const struct backend_case *row,
              struct case_result *ret_result);
void case_result_free(struct case_result *result);

/* Append a vector of `count` zeros named "TITLE NAME"; returns its values to be filled. */
float *case_record(struct case_result *result, int group, size_t count, const char *title,
                   const char *name);

/* The relative bound for a backend that computes in a type with this unit roundoff (2^-24 for
 * float); derived in backend_cases.c. */
double case_bound(const struct backend_case *row, double unit_roundoff);

/* Compare |got - wanted| <= bound * max(|wanted|, |largest of the group| / 10) in the 2-norm.
 * True when all agree; else ret_text (bytes long) names the first that does not, with figures. */
bool case_results_agree(const struct case_result *wanted, const struct case_result *got,
                        double bound, char *ret_text, size_t bytes);

#endif
