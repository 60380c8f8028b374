/* SPDX-License-Identifier: Apache-2.0 */
/* From a program to an executable: where everything lies, and which algorithms run.
 *
 *   arena:  tensors, packed by lifetime | saved, one place an operation | scratch | labels
 *
 *   1. lay out      offsets of all that, in bytes
 *   2. reserve      the arena, the places of batches, the arenas of the state: all memory of a step
 *   3. prepare      each operation chooses its algorithms; convolutions may be run for that, in the
 *                   memory they will have. The workspace grows with what was chosen.
 *
 * Compiling a training program sets the gradients to zero and may move the arena: what a step
 * before it left there is gone.
 *
 * Invariants: nothing is allocated once compile has returned (but a bounce buffer, at the first
 * batch that needs one). What it does not do: know operations (exec_ops.c). */
#include "gpu/exec.h"

#include "base/checked.h"
#include "base/err.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct nnc_gpu_tensor nnc_exec_shape(const struct nnc_executable *exe, int32_t tensor) {
    struct nnc_shape shape = exe->program->tensors[tensor].shape;
    return (struct nnc_gpu_tensor){.type = exe->backend->type,
                                   .n = exe->program->batch,
                                   .h = shape.h,
                                   .w = shape.w,
                                   .channels = shape.c,
                                   .stride = nnc_gpu_padded(shape.c)};
}

size_t nnc_exec_bytes(const struct nnc_executable *exe, int32_t tensor) {
    struct nnc_gpu_tensor shape = nnc_exec_shape(exe, tensor);
    size_t bytes = nnc_gpu_type_bytes(shape.type);
    const size_t factors[] = {shape.n, shape.h, shape.w, shape.stride};
    for (size_t number = 0; number < sizeof(factors) / sizeof(factors[0]); number++) {
        if (nnc_size_mul(bytes, factors[number], &bytes)) {
            return SIZE_MAX; /* nnc_program_pack() and grow() refuse it */
        }
    }
    return bytes;
}

void *nnc_exec_at(const struct nnc_executable *exe, size_t offset) {
    return (char *)exe->backend->arena.memory + offset;
}

void *nnc_exec_tensor(const struct nnc_executable *exe, int32_t tensor) {
    return tensor < 0 ? NULL : nnc_exec_at(exe, exe->offset[tensor]);
}

cudaStream_t nnc_exec_stream(const struct nnc_executable *exe) {
    return exe->backend->device.stream[NNC_STREAM_COMPUTE];
}

int nnc_exec_reserve(struct nnc_backend *backend, size_t bytes, const char *what,
                     struct nnc_block *block) {
    if (block->memory && bytes <= block->bytes) {
        return 0;
    }
    int rc = nnc_device_wait_all(&backend->device);
    if (rc == 0) {
        backend->generation++;
        rc = nnc_device_reserve(&backend->device, bytes, what, block);
    }
    return rc;
}

static size_t tensor_bytes(void *context, uint32_t tensor) {
    return nnc_exec_bytes(context, (int32_t)tensor);
}

/* Append `bytes` to the arena; *ret_offset is where. */
static int append(struct nnc_executable *exe, size_t bytes, size_t *ret_offset) {
    size_t end;
    if (nnc_size_add(exe->arena_bytes, bytes, &end) ||
        nnc_size_round_up(end, NNC_DEVICE_ALIGNMENT, &end)) {
        return nnc_fail(-EOVERFLOW, "a batch of %u does not fit the address space",
                        exe->program->batch);
    }
    *ret_offset = exe->arena_bytes;
    exe->arena_bytes = end;
    return 0;
}

static int lay_out(struct nnc_executable *exe) {
    const struct nnc_program *program = exe->program;
    size_t scratch = 0;
    int rc = nnc_program_pack(program, tensor_bytes, exe, NNC_DEVICE_ALIGNMENT, exe->offset,
                              &exe->arena_bytes);
    for (uint32_t number = 0; rc == 0 && number < program->op_count; number++) {
        const struct nnc_op *op = &program->ops[number];
        const struct nnc_exec_kind *kind = nnc_exec_kind_of(op);
        if (kind->saved) {
            rc = append(exe, kind->saved(exe, op), &exe->ops[number].saved);
        }
        size_t bytes = kind->scratch ? kind->scratch(exe, op) : 0;
        scratch = bytes > scratch ? bytes : scratch;
    }
    if (rc == 0) {
        rc = append(exe, scratch, &exe->scratch);
    }
    return rc < 0 ? rc : append(exe, program->batch * sizeof(int32_t), &exe->labels);
}

/* The run of matrix gradients that a bucket has; its matrices follow each other in the arena. */
static struct nnc_comm_slice slice_of(const struct nnc_gpu_state *state,
                                      const struct nnc_program *program,
                                      const struct nnc_bucket *bucket) {
    struct nnc_comm_slice slice = {.type = state->type};
    uint64_t first = 0;
    for (uint32_t place = 0; place < bucket->count; place++) {
        uint32_t number = program->order[bucket->first + place];
        const struct nnc_gpu_param *param = &state->params[number];
        if (state->graph->params[number].kind != NNC_PARAM_WEIGHT) {
            continue;
        }
        if (!slice.values) {
            slice.values = nnc_gpu_state_gradient(state, (int32_t)number);
            first = param->offset;
        }
        slice.count = param->offset + param->count - first;
    }
    return slice;
}

static int cut_slices(struct nnc_backend *backend, const struct nnc_program *program) {
    const struct nnc_gpu_state *state = &backend->state;
    if (backend->slices) {
        return 0;
    }
    backend->slices = calloc((size_t)program->bucket_count + 1, sizeof(*backend->slices));
    if (!backend->slices) {
        return nnc_fail(-ENOMEM, "no memory for %u reduction buckets", program->bucket_count);
    }
    for (uint32_t bucket = 0; bucket < program->bucket_count; bucket++) {
        backend->slices[bucket] = slice_of(state, program, &program->buckets[bucket]);
    }
    struct nnc_gpu_arena vectors = nnc_gpu_state_arena(state, NNC_GPU_VECTORS);
    backend->slices[program->bucket_count] = (struct nnc_comm_slice){
        .values = (void *)(uintptr_t)vectors.gradients,
        .count = state->part_first[NNC_GPU_PART_COUNT] - state->part_first[NNC_GPU_VECTORS],
        .type = NNC_GPU_F32,
    };
    backend->bucket_count = program->bucket_count;
    return 0;
}

static int reserve(struct nnc_executable *exe) {
    struct nnc_backend *backend = exe->backend;
    int rc = 0;
    if (exe->program->training) {
        rc = nnc_gpu_state_train(&backend->state);
        if (rc == 0) {
            rc = cut_slices(backend, exe->program);
        }
        if (rc == 0) {
            rc = nnc_comm_register(&backend->comm, &backend->state.gradients);
        }
    }
    if (rc == 0) {
        rc = nnc_exec_reserve(backend, exe->arena_bytes, "activations", &backend->arena);
    }
    return rc < 0 ? rc : nnc_feeds_reserve(&backend->feeds, &exe->feed);
}

static int prepare(struct nnc_executable *exe) {
    struct nnc_backend *backend = exe->backend;
    int rc = 0;
    for (uint32_t number = 0; rc == 0 && number < exe->program->op_count; number++) {
        const struct nnc_op *op = &exe->program->ops[number];
        const struct nnc_exec_kind *kind = nnc_exec_kind_of(op);
        rc = kind->prepare ? kind->prepare(exe, op) : 0;
        if (rc < 0 && op->node >= 0) {
            rc = nnc_fail_in(rc, "layer %s", exe->program->graph->nodes[op->node].name);
        }
    }
    nnc_gpu_plans_save(&backend->plans);
    if (rc == 0) {
        rc = nnc_exec_reserve(backend, exe->workspace_bytes, "workspace", &backend->workspace);
    }
    /* Weight gradients may have been written while algorithms were tried. */
    if (rc == 0 && exe->program->training) {
        rc = nnc_gpu_state_clear(&backend->state);
    }
    return rc < 0 ? rc : nnc_device_wait_all(&backend->device);
}

static int make(const struct nnc_program *program, struct nnc_executable *exe) {
    const struct nnc_graph *graph = program->graph;
    exe->program = program;
    exe->feed = (struct nnc_feed_shape){
        .batch = program->batch,
        .classes = graph->classes,
        .sample_bytes = (size_t)graph->input.c * graph->input.h * graph->input.w,
    };
    exe->ops = calloc(program->op_count, sizeof(*exe->ops));
    exe->offset = calloc(program->tensor_count, sizeof(*exe->offset));
    if (!exe->ops || !exe->offset) {
        return nnc_fail(-ENOMEM, "no memory for a program of %u operations", program->op_count);
    }
    int rc = lay_out(exe);
    if (rc == 0) {
        rc = reserve(exe);
    }
    return rc < 0 ? rc : prepare(exe);
}

int nnc_exec_compile(struct nnc_backend *backend, const struct nnc_program *program,
                     struct nnc_executable **ret_executable) {
    assert(program->graph->param_count == backend->params.graph->param_count);
    assert(program->ops[0].kind == NNC_OP_INPUT);
    struct nnc_executable *exe = calloc(1, sizeof(*exe));
    if (!exe) {
        return nnc_fail(-ENOMEM, "no memory for an executable");
    }
    exe->backend = backend; /* release() needs it */
    exe->next = backend->executables;
    backend->executables = exe;
    int rc = make(program, exe);
    if (rc < 0) {
        nnc_exec_release(exe);
        return rc;
    }
    if (program->training && program->batch > backend->full_batch) {
        backend->full_batch = program->batch;
    }
    *ret_executable = exe;
    return 0;
}

void nnc_exec_release(struct nnc_executable *exe) {
    if (!exe) {
        return;
    }
    nnc_feeds_forget(&exe->backend->feeds, exe);
    for (uint32_t number = 0; exe->ops && number < exe->program->op_count; number++) {
        nnc_linear_free(exe->ops[number].linear[0]);
        nnc_linear_free(exe->ops[number].linear[1]);
    }
    if (exe->graph) {
        cudaGraphExecDestroy(exe->graph);
    }
    struct nnc_executable **place = &exe->backend->executables;
    while (*place != exe) {
        place = &(*place)->next;
    }
    *place = exe->next;
    free(exe->ops);
    free(exe->offset);
    free(exe);
}
