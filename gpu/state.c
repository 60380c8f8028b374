/* SPDX-License-Identifier: Apache-2.0 */
/* Arenas of parameters: where each lies, and how they are updated; see state.h.
 *
 * Invariants: (1) offsets are multiples of 256 bytes in every arena, so that libraries find the
 * alignment they like best; (2) padding and the gaps between parameters are zero in every arena;
 * (3) whatever changes a value changes its copy.
 *
 * What it does not do: reduce gradients (comm.c), talk to the host (state_plain.c). */
#include "gpu/state.h"

#include "base/checked.h"
#include "base/err.h"
#include "gpu/comm.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
    ALIGN_VALUES = NNC_DEVICE_ALIGNMENT / 2
};

/* Where loss scaling starts, as torch.amp.GradScaler. */
static const float first_scale = 65536;

static bool is_matrix(const struct nnc_param *param) {
    return param->kind == NNC_PARAM_WEIGHT;
}

/* Channels of the tensor that a linear layer reads: those of the layer behind Flatten and whatever
 * keeps a tensor as it is (program.h, rule 1). */
static uint32_t channels_read(const struct nnc_graph *graph, const struct nnc_node *linear) {
    const struct nnc_node *node = &graph->nodes[linear->input[0]];
    for (;;) {
        switch (node->layer) {
        case NNC_LAYER_FLATTEN:
        case NNC_LAYER_RELU:
        case NNC_LAYER_SIGMOID:
        case NNC_LAYER_TANH:
        case NNC_LAYER_DROPOUT:
        case NNC_LAYER_ADD:
            node = &graph->nodes[node->input[0]];
            break;
        default:
            return node->shape.c;
        }
    }
}

static struct nnc_gpu_param shape_of(const struct nnc_graph *graph, const struct nnc_param *param) {
    struct nnc_gpu_param shape = {.k = 1, .c = param->dims[0], .plane = 1};
    if (is_matrix(param)) {
        const struct nnc_node *node = &graph->nodes[param->node];
        bool conv = node->layer == NNC_LAYER_CONV2D;
        shape.k = param->dims[0];
        shape.c = conv ? param->dims[1] : channels_read(graph, node);
        shape.plane = conv ? param->dims[2] * param->dims[3] : param->dims[1] / shape.c;
    }
    shape.stride = nnc_gpu_padded(shape.c);
    assert((uint64_t)shape.k * shape.c * shape.plane == param->count);
    return shape;
}

/* The parameters in order of backward completion, which no batch size and no cut into buckets
 * changes; as the graph has them where it cannot be trained. */
static int completion_order(const struct nnc_graph *graph, uint32_t *ret_order,
                            uint32_t *ret_count) {
    const struct nnc_program_params params = {.graph = graph, .batch = 2, .training = true};
    struct nnc_program *program = NULL;
    uint32_t count = 0;
    int rc = nnc_program_create(&params, &program);
    if (rc == -ENOMEM) {
        return rc;
    }
    if (rc == 0) {
        count = program->order_count;
        memcpy(ret_order, program->order, count * sizeof(*ret_order));
    } else {
        for (uint32_t number = 0; number < graph->param_count; number++) {
            if (graph->params[number].kind != NNC_PARAM_BUFFER) {
                ret_order[count++] = number;
            }
        }
    }
    nnc_program_destroy(program);
    *ret_count = count;
    return 0;
}

/* Give a parameter the next place behind *offset values. */
static int place(struct nnc_gpu_param *param, uint64_t *offset) {
    size_t k = param->k > 1 ? nnc_gpu_padded(param->k) : 1;
    size_t count = 0;
    size_t end = 0;
    if (nnc_size_mul(k, (size_t)param->plane * param->stride, &count) ||
        nnc_size_add(*offset, count, &end) || nnc_size_round_up(end, ALIGN_VALUES, &end) ||
        end > SIZE_MAX / sizeof(float)) {
        return nnc_fail(-EOVERFLOW, "the model's parameters do not fit the address space");
    }
    param->offset = *offset;
    param->count = count;
    *offset = end;
    return 0;
}

/* Place the parameters of one kind in order: matrices or vectors of order[], or the buffers. */
static int place_part(struct nnc_gpu_state *state, enum nnc_gpu_part part, const uint32_t *order,
                      uint32_t count) {
    int rc = 0;
    for (uint32_t number = 0; rc == 0 && number < count; number++) {
        uint32_t param = order[number];
        if (is_matrix(&state->graph->params[param]) == (part == NNC_GPU_MATRICES)) {
            state->order[state->order_count++] = param;
            state->matrix_count += part == NNC_GPU_MATRICES;
            rc = place(&state->params[param], &state->value_count);
        }
    }
    state->part_first[part + 1] = state->value_count;
    return rc;
}

static int lay_out(struct nnc_gpu_state *state) {
    const struct nnc_graph *graph = state->graph;
    uint32_t count = 0;
    uint32_t *order = calloc((size_t)graph->param_count + 1, sizeof(*order));
    state->params = calloc((size_t)graph->param_count + 1, sizeof(*state->params));
    state->order = calloc((size_t)graph->param_count + 1, sizeof(*state->order));
    int rc = order && state->params && state->order
                 ? completion_order(graph, order, &count)
                 : nnc_fail(-ENOMEM, "no memory for %u parameters", graph->param_count);
    for (uint32_t param = 0; rc == 0 && param < graph->param_count; param++) {
        state->params[param] = shape_of(graph, &graph->params[param]);
    }
    for (int part = 0; rc == 0 && part < NNC_GPU_PART_COUNT; part++) {
        rc = place_part(state, (enum nnc_gpu_part)part, order, count);
    }
    for (uint32_t param = 0; rc == 0 && param < graph->param_count; param++) {
        if (graph->params[param].kind == NNC_PARAM_BUFFER) {
            rc = place(&state->params[param], &state->value_count);
        }
    }
    free(order);
    return rc;
}

static int start_scaler(struct nnc_gpu_state *state) {
    bool dynamic = state->type == NNC_GPU_F16;
    const struct nnc_gpu_scaler scaler = {.scale = dynamic ? first_scale : 1, .dynamic = dynamic};
    int rc = nnc_device_reserve(state->device, sizeof(scaler), "loss scale", &state->scaler);
    return rc < 0 ? rc
                  : nnc_device_copy(state->device, state->scaler.memory, &scaler, sizeof(scaler));
}

int nnc_gpu_state_init(struct nnc_gpu_state *state, const struct nnc_graph *graph,
                       enum nnc_gpu_type type, uint32_t ranks, struct nnc_device *device) {
    state->graph = graph;
    state->device = device;
    state->type = type;
    state->collective = ranks > 1;
    int rc = lay_out(state);
    if (rc == 0) {
        rc = nnc_device_reserve(device, state->value_count * sizeof(float), "weights",
                                &state->values);
    }
    if (rc == 0 && type != NNC_GPU_F32) {
        rc = nnc_device_reserve(device,
                                state->part_first[NNC_GPU_PART_COUNT] * nnc_gpu_type_bytes(type),
                                "weights in 16 bits", &state->copy);
    }
    if (rc == 0) {
        rc = nnc_device_reserve(device, NNC_GPU_STAGING * sizeof(float), "conversion buffer",
                                &state->staging);
    }
    return rc < 0 ? rc : start_scaler(state);
}

void nnc_gpu_state_finish(struct nnc_gpu_state *state) {
    if (state->device) {
        nnc_device_free(state->device, &state->values);
        nnc_device_free(state->device, &state->copy);
        nnc_device_free(state->device, &state->momentum);
        nnc_comm_memory_free(state->device, state->collective, &state->gradients);
        nnc_device_free(state->device, &state->chunks);
        nnc_device_free(state->device, &state->ranges);
        nnc_device_free(state->device, &state->sums);
        nnc_device_free(state->device, &state->norms);
        nnc_device_free(state->device, &state->scaler);
        nnc_device_free(state->device, &state->staging);
    }
    free(state->params);
    free(state->order);
    *state = (struct nnc_gpu_state){0};
}

static uint32_t chunks_of(const struct nnc_gpu_param *param) {
    return (uint32_t)((param->count + NNC_GPU_CHUNK - 1) / NNC_GPU_CHUNK);
}

/* Cut one parameter into chunks; `first` is where its part begins. */
static void cut(const struct nnc_gpu_state *state, uint32_t number, uint64_t first,
                struct nnc_gpu_chunk *ret_chunks) {
    const struct nnc_gpu_param *param = &state->params[state->order[number]];
    for (uint32_t chunk = 0; chunk < chunks_of(param); chunk++) {
        uint64_t done = (uint64_t)chunk * NNC_GPU_CHUNK;
        uint64_t left = param->count - done;
        ret_chunks[chunk] = (struct nnc_gpu_chunk){
            .offset = param->offset - first + done,
            .count = (uint32_t)(left < NNC_GPU_CHUNK ? left : NNC_GPU_CHUNK),
            .param = number,
            .kind = state->graph->params[state->order[number]].kind,
        };
    }
}

/* Copy a table to a new block of the device. */
static int put_table(struct nnc_gpu_state *state, const void *table, size_t bytes,
                     struct nnc_block *block) {
    int rc = nnc_device_reserve(state->device, bytes, "tables of parameters", block);
    return rc < 0 ? rc : nnc_device_copy(state->device, block->memory, table, bytes);
}

/* Both parts' chunks, and the ranges of the matrices. Neither array is empty, even where a part
 * is. */
static void fill_tables(struct nnc_gpu_state *state, struct nnc_gpu_chunk *chunks,
                        struct nnc_gpu_range *ranges) {
    uint32_t total = 0;
    for (uint32_t number = 0; number < state->order_count; number++) {
        int part = number < state->matrix_count ? NNC_GPU_MATRICES : NNC_GPU_VECTORS;
        uint32_t count = chunks_of(&state->params[state->order[number]]);
        cut(state, number, state->part_first[part], chunks + total);
        ranges[number] = (struct nnc_gpu_range){total, count};
        state->chunk_count[part] += count;
        total += count;
    }
}

static int make_tables(struct nnc_gpu_state *state) {
    size_t total = 0;
    for (uint32_t number = 0; number < state->order_count; number++) {
        total += chunks_of(&state->params[state->order[number]]);
    }
    struct nnc_gpu_chunk *chunks = calloc(total + 1, sizeof(*chunks));
    struct nnc_gpu_range *ranges = calloc((size_t)state->order_count + 1, sizeof(*ranges));
    int rc = chunks && ranges ? 0 : nnc_fail(-ENOMEM, "no memory for the tables of parameters");
    if (rc == 0) {
        fill_tables(state, chunks, ranges);
        rc = put_table(state, chunks, total * sizeof(*chunks), &state->chunks);
    }
    if (rc == 0) {
        rc = put_table(state, ranges, state->order_count * sizeof(*ranges), &state->ranges);
    }
    if (rc == 0) {
        rc = nnc_device_reserve(state->device, 2 * total * sizeof(float), "sums", &state->sums);
    }
    if (rc == 0) {
        rc = nnc_device_reserve(state->device, 2 * state->order_count * sizeof(float), "norms",
                                &state->norms);
    }
    free(chunks);
    free(ranges);
    return rc;
}

/* Where the vectors' gradients start in `gradients`. */
static size_t vector_bytes_first(const struct nnc_gpu_state *state) {
    return state->part_first[NNC_GPU_VECTORS] * nnc_gpu_type_bytes(state->type);
}

static size_t gradient_bytes(const struct nnc_gpu_state *state) {
    uint64_t vectors = state->part_first[NNC_GPU_PART_COUNT] - state->part_first[NNC_GPU_VECTORS];
    return vector_bytes_first(state) + vectors * sizeof(float);
}

int nnc_gpu_state_train(struct nnc_gpu_state *state) {
    if (state->gradients.memory) {
        return 0;
    }
    int rc = make_tables(state);
    if (rc == 0) {
        rc =
            nnc_device_reserve(state->device, state->part_first[NNC_GPU_PART_COUNT] * sizeof(float),
                               "momentum", &state->momentum);
    }
    if (rc == 0) {
        rc = nnc_comm_memory(state->device, state->collective, gradient_bytes(state), "gradients",
                             &state->gradients);
    }
    return rc < 0 ? rc : nnc_gpu_state_clear(state);
}

float *nnc_gpu_state_value(const struct nnc_gpu_state *state, int32_t param) {
    return param < 0 ? NULL : (float *)state->values.memory + state->params[param].offset;
}

void *nnc_gpu_state_weight(const struct nnc_gpu_state *state, int32_t param) {
    if (param < 0 || state->type == NNC_GPU_F32) {
        return nnc_gpu_state_value(state, param);
    }
    return (uint16_t *)state->copy.memory + state->params[param].offset;
}

void *nnc_gpu_state_gradient(const struct nnc_gpu_state *state, int32_t param) {
    if (param < 0) {
        return NULL;
    }
    uint64_t offset = state->params[param].offset;
    uint64_t vectors = state->part_first[NNC_GPU_VECTORS];
    char *gradients = state->gradients.memory;
    return offset < vectors
               ? gradients + offset * nnc_gpu_type_bytes(state->type)
               : gradients + vector_bytes_first(state) + (offset - vectors) * sizeof(float);
}

struct nnc_gpu_arena nnc_gpu_state_arena(const struct nnc_gpu_state *state,
                                         enum nnc_gpu_part part) {
    bool vectors = part == NNC_GPU_VECTORS;
    uint64_t first = state->part_first[part];
    char *copy = state->copy.memory;
    return (struct nnc_gpu_arena){
        .chunks = (const struct nnc_gpu_chunk *)state->chunks.memory +
                  (vectors ? state->chunk_count[NNC_GPU_MATRICES] : 0),
        .chunk_count = state->chunk_count[part],
        .gradient_type = vectors ? NNC_GPU_F32 : state->type,
        .copy_type = state->type,
        .gradients = (char *)state->gradients.memory + (vectors ? vector_bytes_first(state) : 0),
        .values = (float *)state->values.memory + first,
        .momentum = (float *)state->momentum.memory + first,
        .copy = copy ? copy + first * nnc_gpu_type_bytes(state->type) : NULL,
        .value_count = state->part_first[part + 1] - first,
        .param_count = vectors ? state->order_count : state->matrix_count,
    };
}

/* One kernel over all gradients of a part. */
static int queue_part(struct nnc_gpu_state *state, enum nnc_gpu_part part, bool sums,
                      const struct nnc_gpu_step *step) {
    cudaStream_t stream = state->device->stream[NNC_STREAM_COMPUTE];
    struct nnc_gpu_arena arena = nnc_gpu_state_arena(state, part);
    size_t first = part == NNC_GPU_MATRICES ? 0 : state->chunk_count[NNC_GPU_MATRICES];
    if (arena.chunk_count == 0) {
        return 0;
    }
    return sums ? nnc_gpu_gradient_sums(stream, &arena, state->scaler.memory,
                                        (float *)state->sums.memory + 2 * first)
                : nnc_gpu_sgd(stream, &arena, step, state->scaler.memory, state->norms.memory);
}

int nnc_gpu_state_update(struct nnc_gpu_state *state, const struct nnc_gpu_step *step, bool norms) {
    cudaStream_t stream = state->device->stream[NNC_STREAM_COMPUTE];
    struct nnc_gpu_arena matrices = nnc_gpu_state_arena(state, NNC_GPU_MATRICES);
    /* All gradients are looked at before any value moves. */
    int rc = queue_part(state, NNC_GPU_MATRICES, true, NULL);
    if (rc == 0) {
        rc = queue_part(state, NNC_GPU_VECTORS, true, NULL);
    }
    if (rc == 0 && norms && state->matrix_count > 0) {
        rc = nnc_gpu_norms(stream, &matrices, state->ranges.memory, state->sums.memory,
                           state->norms.memory);
    }
    if (rc == 0) {
        rc = queue_part(state, NNC_GPU_MATRICES, false, step);
    }
    if (rc == 0) {
        rc = queue_part(state, NNC_GPU_VECTORS, false, step);
    }
    return rc < 0 ? rc : nnc_gpu_scaler_update(stream, state->scaler.memory);
}

int nnc_gpu_state_clear(struct nnc_gpu_state *state) {
    return nnc_device_check(cudaMemsetAsync(state->gradients.memory, 0, gradient_bytes(state),
                                            state->device->stream[NNC_STREAM_COMPUTE]),
                            "zeros for the gradients");
}
