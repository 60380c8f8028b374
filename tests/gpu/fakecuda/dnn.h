/* SPDX-License-Identifier: Apache-2.0 */
/* libcudnn_graph.so.9: descriptors with attributes, and what the graph of one convolution says. */
#ifndef NNC_TESTS_FAKECUDA_DNN_H
#define NNC_TESTS_FAKECUDA_DNN_H

#include "tests/gpu/fakecuda/numbers.h"

#include <cudnn_graph.h>
#include <stdbool.h>
#include <stdint.h>

/* The header marks several attributes deprecated that have no successor in a test. */
typedef cudnnBackendAttributeName_t dnn_name;

enum dnn_op {
    DNN_FORWARD,
    DNN_BACKWARD_DATA,
    DNN_BACKWARD_FILTER,
};

enum dnn_tensor {
    DNN_X,
    DNN_W,
    DNN_Y,
    DNN_BIAS,
    DNN_TENSORS,
};

/* What a graph computes, and the identifiers of its tensors. */
struct dnn_problem {
    enum dnn_op op;
    bool bias, relu;
    enum fake_type type;
    int64_t n, c, h, w, k, r, s, p, q; /* p x q: height and width of y */
    int64_t stride[2], pad[2];
    int64_t uid[DNN_TENSORS];
};

struct dnn_attribute {
    dnn_name name;
    int64_t count;
    void *values;
};

enum {
    DNN_ATTRIBUTES_MAX = 12,
};

struct dnn_descriptor {
    uint32_t magic;
    unsigned uses; /* the caller's and those of attributes that hold it */
    cudnnBackendDescriptorType_t kind;
    bool finalized;
    unsigned count;
    struct dnn_attribute attributes[DNN_ATTRIBUTES_MAX];
    struct dnn_problem problem; /* graph, configuration, engine, plan */
    int64_t engine;             /* configuration, engine, plan */
};

/* Say why, for cudnnGetLastErrorString(); gives the status back. */
cudnnStatus_t dnn_fail(cudnnStatus_t status, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* The values of an attribute, NULL when it is not set. */
const void *dnn_values(const struct dnn_descriptor *descriptor, dnn_name name);
int64_t dnn_count(const struct dnn_descriptor *descriptor, dnn_name name);
int64_t dnn_number(const struct dnn_descriptor *descriptor, dnn_name name, int64_t fallback);
struct dnn_descriptor *dnn_child(const struct dnn_descriptor *descriptor, dnn_name name,
                                 int64_t number);

/* Checks of a descriptor that is complete (dnn_graph.c); the graph's fills problem. */
cudnnStatus_t dnn_check_tensor(const struct dnn_descriptor *tensor);
cudnnStatus_t dnn_check_window(const struct dnn_descriptor *window);
cudnnStatus_t dnn_check_graph(struct dnn_descriptor *graph);

/* Of dnn_engine.c. fill: what the caller's blank descriptors become. */
cudnnStatus_t dnn_check_properties(const struct dnn_descriptor *properties);
cudnnStatus_t dnn_check_plan(struct dnn_descriptor *plan);
cudnnStatus_t dnn_computed(const struct dnn_descriptor *descriptor, dnn_name name, int64_t room,
                           int64_t *ret_count, void *ret_values);

/* The convolution, in memory that the host can touch: y, dx or dw is written, rounded once.
 * rotation is where each sum begins: another one, another rounding. */
void dnn_convolve(const struct dnn_problem *problem, uint64_t rotation,
                  void *const memory[DNN_TENSORS]);

/* Values of one of its tensors. */
int64_t dnn_tensor_count(const struct dnn_problem *problem, enum dnn_tensor tensor);

#endif
