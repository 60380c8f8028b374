/* SPDX-License-Identifier: Apache-2.0 */
/* A compiled program: a list of stages, each a primitive of oneDNN or a loop of ours, whose
 * operands are "places". A place is named, not addressed: memory that several executables share may
 * move while another one is compiled, and addresses are taken anew when it did.
 *
 *   TENSOR    the shared arena, at the offset that nnc_program_pack() gave the tensor
 *   TEMP      shared, within one operation: reordered operands, gradients to be added
 *   SCRATCH   shared, within one primitive: the library's own scratchpad
 *   PRIVATE   this executable's: pooling indices, norm statistics, weights in another layout, input
 *   VALUE, GRADIENT   a parameter in the state's arenas */
#ifndef NNC_CPU_ONEDNN_EXECUTABLE_H
#define NNC_CPU_ONEDNN_EXECUTABLE_H

#include <stdio.h>

#include "cpu/onednn_state.h"

enum nnc_place_kind {
    NNC_PLACE_NONE,
    NNC_PLACE_TENSOR,
    NNC_PLACE_TEMP,
    NNC_PLACE_SCRATCH,
    NNC_PLACE_PRIVATE,
    NNC_PLACE_VALUE,
    NNC_PLACE_GRADIENT,
};

struct nnc_place {
    enum nnc_place_kind kind;
    size_t at; /* tensor or parameter number, or offset in bytes */
};

/* How a tensor lies in memory: float [n][outer][positions][inner], outer * inner >= c channels, the
 * ones beyond c being zero. NCHW has inner 1, NHWC outer 1, nChw16c inner 16; (N,C) has
 * positions 1. */
struct nnc_dnn_layout {
    uint32_t n, c, outer, inner;
    size_t positions; /* h * w */
};

/* Floats of a tensor, padding included. */
static inline size_t nnc_layout_count(const struct nnc_dnn_layout *layout) {
    return (size_t)layout->n * layout->outer * layout->positions * layout->inner;
}

/* Whether the features of a sample lie in C,H,W order. */
static inline bool nnc_layout_is_flat(const struct nnc_dnn_layout *layout) {
    return layout->outer * layout->inner == layout->c &&
           (layout->inner == 1 || layout->positions == 1);
}

/* Place of feature f (in C,H,W order) within its sample. */
static inline size_t nnc_layout_at(const struct nnc_dnn_layout *layout, size_t feature) {
    size_t channel = feature / layout->positions;
    size_t position = feature % layout->positions;
    return (channel / layout->inner * layout->positions + position) * layout->inner +
           channel % layout->inner;
}

struct nnc_dnn_tensor {
    nnc_md md; /* owned; NULL until decided */
    struct nnc_dnn_layout layout;
    struct nnc_place place;
};

enum {
    NNC_STAGE_ARGS = 8,
};

struct nnc_executable;

struct nnc_stage {
    int (*run)(struct nnc_executable *executable, struct nnc_stage *stage);
    char name[64];
    uint32_t op; /* operation number */
    /* A primitive of the library: */
    dnnl_primitive_t primitive;
    dnnl_exec_arg_t args[NNC_STAGE_ARGS];
    struct nnc_place arg_places[NNC_STAGE_ARGS];
    int arg_count;
    uint32_t team; /* threads it was made for and runs with */
    /* A loop of ours: */
    struct nnc_dnn_layout layout; /* of what it reads and, if nothing else is said, writes */
    struct nnc_dnn_layout to;     /* dropout: of what it writes */
    struct nnc_place x, z, y, dx, dz, dy;
    struct nnc_place notes; /* what the forward stage leaves for the backward stage */
    bool dx_accumulate, dz_accumulate;
    enum nnc_act act;
    uint32_t param;   /* weights in another layout: whose */
    uint64_t version; /* ... and of which state version the copy is */
    uint64_t best_ns; /* shortest run so far; 0: none */
};

struct nnc_executable {
    struct nnc_backend *backend;
    const struct nnc_program *program;
    struct nnc_dnn_tensor *tensors; /* tensor_count */
    size_t *offsets;                /* of tensors in the arena, bytes */
    struct nnc_stage *stages;
    uint32_t stage_count, stage_capacity;
    void *private_memory;
    size_t private_bytes, arena_bytes, temp_bytes, scratch_bytes;
    uint32_t reorder_count; /* activations that change their layout on the way, per step */
    uint64_t addresses;     /* backend->addresses when the primitives' addresses were taken */
    uint64_t generation;    /* state generation this was compiled for */
    /* The batch: */
    struct nnc_place input, labels, logits, losses;
    bool fed;
    struct nnc_step_params step;
};

struct nnc_backend {
    struct nnc_backend_params params;
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    dnnl_primitive_attr_t attr;
    const struct nnc_kernels *kernels;
    struct nnc_dnn_state state;
    void *arena, *temp, *scratch; /* shared by the executables */
    size_t arena_bytes, temp_bytes, scratch_bytes;
    size_t private_bytes; /* of all executables together */
    uint64_t addresses;   /* grows whenever one of them, or the state, moves */
    struct nnc_metrics metrics;
};

/* The address of a place now. NULL for NNC_PLACE_NONE. */
static inline void *nnc_place_address(const struct nnc_executable *executable,
                                      struct nnc_place place) {
    const struct nnc_backend *backend = executable->backend;
    const struct nnc_dnn_state *state = &backend->state;
    switch (place.kind) {
    case NNC_PLACE_NONE:
        return NULL;
    case NNC_PLACE_TENSOR:
        return (char *)backend->arena + executable->offsets[place.at];
    case NNC_PLACE_TEMP:
        return (char *)backend->temp + place.at;
    case NNC_PLACE_SCRATCH:
        return backend->scratch;
    case NNC_PLACE_PRIVATE:
        return (char *)executable->private_memory + place.at;
    case NNC_PLACE_VALUE:
        return state->value + state->params[place.at].offset;
    case NNC_PLACE_GRADIENT:
        return state->gradient + state->params[place.at].offset;
    }
    return NULL;
}

/* Compile `program` into a zeroed executable of `backend`. Errors: text names layer and reason; the
 * caller destroys the executable. */
int nnc_executable_compile(struct nnc_backend *backend, const struct nnc_program *program,
                           struct nnc_executable *executable);

/* Free everything but the struct itself, which is zeroed. */
void nnc_executable_finish(struct nnc_executable *executable);

/* Make ready to be fed or run: compile again if parameters moved to other layouts, take addresses
 * if shared memory moved. */
int nnc_executable_refresh(struct nnc_executable *executable);

/* Convert a batch into the first operation's source. */
void nnc_input_feed(struct nnc_executable *executable, const struct nnc_feed *feed);

/* Run all stages, calling step.bucket_ready in between. */
int nnc_executable_run(struct nnc_executable *executable);

/* Write a table of stages and their shortest times to `out` as text lines, dearest first. */
int nnc_executable_report(const struct nnc_executable *executable, FILE *out);

#endif
