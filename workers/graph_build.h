/* SPDX-License-Identifier: Apache-2.0 */
/* A graph under construction: what the expansion of a model text adds to. Internal to
 * workers/model*.c and graph.c. */
#ifndef NNC_WORKERS_GRAPH_BUILD_H
#define NNC_WORKERS_GRAPH_BUILD_H

#include "workers/graph.h"

#define NNC_GRAPH_NODES_MAX 10001u       /* 10,000 layers and the input */
#define NNC_GRAPH_DIM_MAX   (1u << 31)   /* of any dimension */
#define NNC_GRAPH_COUNT_MAX (1ull << 40) /* values of one parameter, or of one sample's output */
#define NNC_GRAPH_FLOPS_MAX (1ull << 48) /* of one layer and sample: sums over layers fit u64 */

/* A rule of the init(...) statement: how a kind of parameter starts. */
enum nnc_init_rule_kind {
    NNC_RULE_DEFAULT, /* PyTorch's layers: uniform in +-1/sqrt(fan_in) */
    NNC_RULE_CONSTANT,
    NNC_RULE_NORMAL,
    NNC_RULE_UNIFORM,
    NNC_RULE_KAIMING_NORMAL_FAN_IN,  /* standard deviation sqrt(2 / fan_in) */
    NNC_RULE_KAIMING_NORMAL_FAN_OUT, /* sqrt(2 / fan_out) */
    NNC_RULE_XAVIER_UNIFORM,         /* in +-sqrt(6 / (fan_in + fan_out)) */
};

struct nnc_init_rule {
    enum nnc_init_rule_kind kind;
    double a;
};

/* Rules of a text, in the order of the arguments of init(...). */
enum nnc_init_slot {
    NNC_SLOT_CONV_WEIGHT,
    NNC_SLOT_CONV_BIAS,
    NNC_SLOT_LINEAR_WEIGHT,
    NNC_SLOT_LINEAR_BIAS,
    NNC_SLOT_COUNT,
};

struct nnc_graph_build {
    struct nnc_graph *graph;
    uint32_t node_capacity, param_capacity;
    const char *file; /* of the text, for errors */
    struct nnc_init_rule rules[NNC_SLOT_COUNT];
};

/* How a layer of this fan starts by a rule. */
struct nnc_init_fan {
    uint64_t in, out;
};

/* Append a copy of the node. Errors: -NNC_E_USAGE beyond 10,000 layers or when the output's size
 * overflows; -ENOMEM. */
int nnc_build_node(struct nnc_graph_build *build, const struct nnc_node *node, int32_t *ret_number);

/* Append a copy of the parameter for the node (already appended). param->name holds the last part
 * of the name ("weight"); the node's path is put before it. count is computed from dims. Errors: as
 * nnc_build_node(). */
int nnc_build_param(struct nnc_graph_build *build, int32_t node, const struct nnc_param *param,
                    int32_t *ret_number);

/* Set param->init and init_a by the rule of a slot. */
void nnc_build_rule(const struct nnc_graph_build *build, enum nnc_init_slot slot,
                    const struct nnc_init_fan *fan, struct nnc_param *param);

/* Error text "file:line:column: PATH LAYER message" for a node under construction; -NNC_E_USAGE. */
int nnc_build_fail(const struct nnc_graph_build *build, const struct nnc_node *node,
                   const char *format, ...) __attribute__((format(printf, 3, 4), cold));

/* Write "64x56x56", or "512" for a flat shape. Returns text. */
#define NNC_SHAPE_TEXT_MAX 40
const char *nnc_shape_text(const struct nnc_shape *shape, bool flat, char *text);

#endif
