/* SPDX-License-Identifier: Apache-2.0 */
/* Lowering of a graph to a training program.
 *
 *   1. resolve   which nodes write nothing (Flatten, Dropout in inference), how often each value is
 *                read, which BatchNorm2d waits for the addition that follows it
 *   2. forward   one operation per fusion group, in node order
 *   3. backward, lifetimes, order of the parameters, buckets: program_backward.c
 *
 * Fusion: an activation joins the CONV, LINEAR, NORM or ADD before it, and an addition joins a
 * BatchNorm2d before it, when nobody else reads the value in between. Such a NORM stands at the
 * place of the addition, because the shortcut may be computed after the BatchNorm2d.
 *
 * Invariants: the rules of program.h. What it does not do: choose layouts, algorithms or memory.
 * Source: the fusion groups are those of He et al., "Deep residual learning", fig. 2 and 5. */
#include "base/err.h"
#include "workers/program_lower.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

static int lowering_init(struct nnc_lowering *low, const struct nnc_program_params *params);
static void lowering_finish(struct nnc_lowering *low);
static int resolve(struct nnc_lowering *low);
static int lower_forward(struct nnc_lowering *low);

int nnc_program_create(const struct nnc_program_params *params, struct nnc_program **ret_program) {
    assert(params->graph && params->graph->node_count >= 1 && params->batch >= 1);
    struct nnc_lowering low;
    int rc = lowering_init(&low, params);
    if (rc < 0) {
        goto out;
    }
    rc = resolve(&low);
    if (rc < 0) {
        goto out;
    }
    rc = lower_forward(&low);
    if (rc < 0) {
        goto out;
    }
    if (params->training) {
        rc = nnc_lower_backward(&low);
        if (rc < 0) {
            goto out;
        }
    }
    nnc_lower_lifetimes(low.program);
    nnc_lower_order(low.program, params->bucket_bytes);
    *ret_program = low.program;
    low.program = NULL;
out:
    lowering_finish(&low);
    return rc;
}

void nnc_program_destroy(struct nnc_program *program) {
    if (!program) {
        return;
    }
    free(program->ops);
    free(program->tensors);
    free(program->buckets);
    free(program->order);
    free(program);
}

static int lowering_init(struct nnc_lowering *low, const struct nnc_program_params *params) {
    const struct nnc_graph *graph = params->graph;
    size_t nodes = graph->node_count;
    *low = (struct nnc_lowering){
        .graph = graph,
        .program = calloc(1, sizeof(*low->program)),
        .source = calloc(nodes, sizeof(*low->source)),
        .uses = calloc(nodes, sizeof(*low->uses)),
        .waits_for = calloc(nodes, sizeof(*low->waits_for)),
        .tensor = calloc(nodes, sizeof(*low->tensor)),
        .op = calloc(nodes, sizeof(*low->op)),
        .needs_grad = calloc(2 * nodes, sizeof(*low->needs_grad)),
    };
    if (!low->program || !low->source || !low->uses || !low->waits_for || !low->tensor ||
        !low->op || !low->needs_grad) {
        return nnc_fail(-ENOMEM, "no memory to lower a model of %u layers", graph->node_count);
    }
    struct nnc_program *program = low->program;
    program->graph = graph;
    program->batch = params->batch;
    program->training = params->training;
    /* Each node makes at most one operation and one tensor, the loss one more operation; backward
     * at most doubles both. */
    program->ops = calloc(2 * (nodes + 1), sizeof(*program->ops));
    program->tensors = calloc(2 * nodes, sizeof(*program->tensors));
    program->order = calloc((size_t)graph->param_count + 1, sizeof(*program->order));
    program->buckets = calloc((size_t)graph->param_count + 1, sizeof(*program->buckets));
    if (!program->ops || !program->tensors || !program->order || !program->buckets) {
        return nnc_fail(-ENOMEM, "no memory for the program of %u layers", graph->node_count);
    }
    return 0;
}

static void lowering_finish(struct nnc_lowering *low) {
    nnc_program_destroy(low->program);
    free(low->source);
    free(low->uses);
    free(low->waits_for);
    free(low->tensor);
    free(low->op);
    free(low->needs_grad);
}

/* An error about a layer, with the place in the model text. */
static int fail_at(const struct nnc_node *node, const char *reason) {
    return nnc_fail(-NNC_E_USAGE, "model line %d, layer %s: %s", (int)node->line, node->name,
                    reason);
}

static bool shapes_equal(struct nnc_shape left, struct nnc_shape right) {
    return left.c == right.c && left.h == right.h && left.w == right.w;
}

/* Whether the node's value is its input's, so that no operation is needed. AlexNet and VGG at their
 * own image size contain an AdaptiveAvgPool2d that changes nothing. */
static bool writes_nothing(const struct nnc_lowering *low, const struct nnc_node *node) {
    switch (node->layer) {
    case NNC_LAYER_FLATTEN:
        return true;
    case NNC_LAYER_DROPOUT:
        return !low->program->training || node->dropout == 0;
    case NNC_LAYER_ADAPTIVE_AVGPOOL2D:
        return shapes_equal(node->shape, low->graph->nodes[node->input[0]].shape);
    default:
        return false;
    }
}

/* Let the BatchNorm2d in front of an addition wait for it, when the addition alone reads it. */
static void let_norm_wait(struct nnc_lowering *low, int32_t add) {
    const struct nnc_node *node = &low->graph->nodes[add];
    for (int side = 0; side < 2; side++) {
        int32_t source = low->source[node->input[side]];
        if (low->graph->nodes[source].layer == NNC_LAYER_BATCHNORM2D && low->uses[source] == 1) {
            low->waits_for[source] = add;
            return;
        }
    }
}

static int resolve(struct nnc_lowering *low) {
    const struct nnc_graph *graph = low->graph;
    int32_t count = (int32_t)graph->node_count;
    for (int32_t number = 0; number < count; number++) {
        const struct nnc_node *node = &graph->nodes[number];
        low->waits_for[number] = -1;
        if (writes_nothing(low, node)) {
            low->source[number] = low->source[node->input[0]];
            continue;
        }
        low->source[number] = number;
        for (int side = 0; side < 2 && node->input[side] >= 0; side++) {
            assert(node->input[side] < number);
            low->uses[low->source[node->input[side]]]++;
        }
    }
    low->uses[low->source[count - 1]]++; /* by the loss */
    for (int32_t number = 0; number < count; number++) {
        if (low->source[number] == number && low->uses[number] == 0) {
            return fail_at(&graph->nodes[number], "its output is used by no other layer");
        }
        if (graph->nodes[number].layer == NNC_LAYER_ADD) {
            let_norm_wait(low, number);
        }
    }
    return 0;
}

int32_t nnc_lower_tensor(struct nnc_lowering *low, struct nnc_shape shape) {
    struct nnc_program *program = low->program;
    assert(program->tensor_count < 2 * low->graph->node_count);
    program->tensors[program->tensor_count] = (struct nnc_tensor){.shape = shape, .grad = -1};
    return (int32_t)program->tensor_count++;
}

struct nnc_op *nnc_lower_op(struct nnc_lowering *low, enum nnc_op_kind kind, enum nnc_pass pass) {
    struct nnc_program *program = low->program;
    assert(program->op_count < 2 * (low->graph->node_count + 1));
    struct nnc_op *op = &program->ops[program->op_count++];
    *op = (struct nnc_op){.kind = kind,
                          .pass = pass,
                          .node = -1,
                          .forward = -1,
                          .x = -1,
                          .z = -1,
                          .y = -1,
                          .dx = -1,
                          .dz = -1,
                          .dy = -1,
                          .weight = -1,
                          .bias = -1,
                          .mean = -1,
                          .var = -1};
    return op;
}

static int32_t tensor_of(const struct nnc_lowering *low, int32_t node) {
    return low->tensor[low->source[node]];
}

/* Operation kind of each layer that makes an operation of its own; additions and activations see
 * lower_add() and lower_act(). */
static enum nnc_op_kind kind_of(enum nnc_layer layer) {
    static const enum nnc_op_kind kinds[NNC_LAYER_COUNT] = {
        [NNC_LAYER_INPUT] = NNC_OP_INPUT,       [NNC_LAYER_CONV2D] = NNC_OP_CONV,
        [NNC_LAYER_LINEAR] = NNC_OP_LINEAR,     [NNC_LAYER_BATCHNORM2D] = NNC_OP_NORM,
        [NNC_LAYER_RELU] = NNC_OP_ACT,          [NNC_LAYER_SIGMOID] = NNC_OP_ACT,
        [NNC_LAYER_TANH] = NNC_OP_ACT,          [NNC_LAYER_MAXPOOL2D] = NNC_OP_MAXPOOL,
        [NNC_LAYER_AVGPOOL2D] = NNC_OP_AVGPOOL, [NNC_LAYER_ADAPTIVE_AVGPOOL2D] = NNC_OP_AVGPOOL,
        [NNC_LAYER_DROPOUT] = NNC_OP_DROPOUT,   [NNC_LAYER_ADD] = NNC_OP_ADD,
    };
    assert(layer < NNC_LAYER_COUNT && layer != NNC_LAYER_FLATTEN);
    return kinds[layer];
}

static enum nnc_act act_of(enum nnc_layer layer) {
    switch (layer) {
    case NNC_LAYER_RELU:
        return NNC_ACT_RELU;
    case NNC_LAYER_SIGMOID:
        return NNC_ACT_SIGMOID;
    case NNC_LAYER_TANH:
        return NNC_ACT_TANH;
    default:
        return NNC_ACT_NONE;
    }
}

static bool is_elementwise(enum nnc_op_kind kind) {
    return kind == NNC_OP_ACT || kind == NNC_OP_ADD || kind == NNC_OP_DROPOUT;
}

/* Add the operation of node `number`, which reads tensors x and z (-1: none), and the tensor that
 * it writes. An elementwise operation keeps the shape of its tensor, also behind Flatten. */
static struct nnc_op *emit(struct nnc_lowering *low, int32_t number, int32_t x, int32_t z) {
    const struct nnc_node *node = &low->graph->nodes[number];
    struct nnc_program *program = low->program;
    int32_t op_number = (int32_t)program->op_count;
    struct nnc_op *op = nnc_lower_op(low, kind_of(node->layer), NNC_PASS_FORWARD);
    op->node = number;
    op->act = act_of(node->layer);
    op->x = x;
    op->z = z;
    op->weight = node->weight;
    op->bias = node->bias;
    op->mean = node->running_mean;
    op->var = node->running_var;
    op->window = node->window;
    op->adaptive = node->layer == NNC_LAYER_ADAPTIVE_AVGPOOL2D;
    bool elementwise = is_elementwise(op->kind);
    op->y = nnc_lower_tensor(low, elementwise ? program->tensors[x].shape : node->shape);
    program->tensors[op->y].flat =
        op->kind == NNC_OP_LINEAR || (elementwise && program->tensors[x].flat);
    low->needs_grad[op->y] = op->weight >= 0 || op->bias >= 0 || (x >= 0 && low->needs_grad[x]) ||
                             (z >= 0 && low->needs_grad[z]);
    low->tensor[number] = op->y;
    low->op[number] = op_number;
    return op;
}

/* Spatial layers cannot see through Flatten; BatchNorm2d needs two values to have a variance. */
static int check_layer(const struct nnc_lowering *low, const struct nnc_node *node, int32_t x) {
    enum nnc_op_kind kind = kind_of(node->layer);
    struct nnc_shape shape = low->program->tensors[x].shape;
    if (kind != NNC_OP_LINEAR && !is_elementwise(kind) &&
        !shapes_equal(shape, low->graph->nodes[node->input[0]].shape)) {
        return fail_at(node, "cannot follow Flatten; only Linear, activations and Dropout can");
    }
    if (kind == NNC_OP_NORM && low->program->training &&
        (uint64_t)low->program->batch * shape.h * shape.w == 1) {
        return fail_at(node, "batch normalisation of one value per channel has no variance; train "
                             "with larger batches (and --drop-last) or larger images");
    }
    return 0;
}

static int lower_plain(struct nnc_lowering *low, int32_t number) {
    const struct nnc_node *node = &low->graph->nodes[number];
    int32_t x = tensor_of(low, node->input[0]);
    int rc = check_layer(low, node, x);
    if (rc < 0) {
        return rc;
    }
    emit(low, number, x, -1);
    return 0;
}

/* An activation joins the operation before it when nobody else reads that one's value. */
static int lower_act(struct nnc_lowering *low, int32_t number) {
    const struct nnc_node *node = &low->graph->nodes[number];
    int32_t source = low->source[node->input[0]];
    struct nnc_op *op = &low->program->ops[low->op[source]];
    bool joins = op->kind == NNC_OP_CONV || op->kind == NNC_OP_LINEAR || op->kind == NNC_OP_NORM ||
                 op->kind == NNC_OP_ADD;
    if (!joins || op->act != NNC_ACT_NONE || low->uses[source] != 1) {
        return lower_plain(low, number);
    }
    op->act = act_of(node->layer);
    low->tensor[number] = op->y;
    low->op[number] = low->op[source];
    return 0;
}

/* An addition becomes the z of the NORM that waited for it, or an operation of its own. */
static int lower_add(struct nnc_lowering *low, int32_t number) {
    const struct nnc_node *node = &low->graph->nodes[number];
    for (int side = 0; side < 2; side++) {
        int32_t source = low->source[node->input[side]];
        if (low->waits_for[source] != number) {
            continue;
        }
        const struct nnc_node *norm = &low->graph->nodes[source];
        int32_t x = tensor_of(low, norm->input[0]);
        int32_t z = tensor_of(low, node->input[1 - side]);
        int rc = check_layer(low, norm, x);
        if (rc < 0) {
            return rc;
        }
        if (!shapes_equal(norm->shape, low->program->tensors[z].shape)) {
            return fail_at(node, "cannot add a flattened value to one that is not");
        }
        struct nnc_op *op = emit(low, source, x, z);
        low->tensor[number] = op->y;
        low->op[number] = low->op[source];
        return 0;
    }
    int32_t x = tensor_of(low, node->input[0]);
    int32_t z = tensor_of(low, node->input[1]);
    if (!shapes_equal(low->program->tensors[x].shape, low->program->tensors[z].shape)) {
        return fail_at(node, "cannot add a flattened value to one that is not");
    }
    emit(low, number, x, z);
    return 0;
}

static int lower_node(struct nnc_lowering *low, int32_t number) {
    switch (low->graph->nodes[number].layer) {
    case NNC_LAYER_INPUT:
        emit(low, number, -1, -1);
        return 0;
    case NNC_LAYER_RELU:
    case NNC_LAYER_SIGMOID:
    case NNC_LAYER_TANH:
        return lower_act(low, number);
    case NNC_LAYER_ADD:
        return lower_add(low, number);
    default:
        return lower_plain(low, number);
    }
}

static int lower_forward(struct nnc_lowering *low) {
    struct nnc_program *program = low->program;
    int32_t count = (int32_t)low->graph->node_count;
    for (int32_t number = 0; number < count; number++) {
        if (low->source[number] != number || low->waits_for[number] >= 0) {
            continue;
        }
        int rc = lower_node(low, number);
        if (rc < 0) {
            return rc;
        }
    }
    program->logits = tensor_of(low, count - 1);
    struct nnc_shape shape = program->tensors[program->logits].shape;
    if (shape.h != 1 || shape.w != 1) {
        return fail_at(
            &low->graph->nodes[count - 1],
            "the model must end with one value per class: add Linear or a global pooling");
    }
    nnc_lower_op(low, NNC_OP_LOSS, NNC_PASS_FORWARD)->x = program->logits;
    program->forward_count = program->op_count;
    return 0;
}
