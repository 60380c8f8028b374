/* SPDX-License-Identifier: Apache-2.0 */
/* Compile a program into an executable, and the executable's life.
 *
 *   1. lower    every operation into stages; layouts are decided on the way
 *   2. arrange  the first training program moves the state into the layouts it chose
 *   3. pack     tensors into the shared arena, by their sizes in these layouts
 *   4. grow     arena, temporaries and scratchpad that all executables share
 *
 * Addresses are taken when the executable next runs (nnc_executable_refresh), because step 4 of a
 * later program may move what is shared.
 *
 * What it does not do: lower operations (onednn_product.c, onednn_norm.c, ...). */
#include <assert.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/log.h"
#include "cpu/onednn_build.h"
#include "cpu/onednn_parallel.h"

/* Lowerings by kind and pass; NULL: nothing to do. */
static nnc_lowering *const lowerings[NNC_OP_COUNT][2] = {
    [NNC_OP_INPUT] = {NULL, NULL}, /* nnc_input_feed() writes it before the step */
    [NNC_OP_CONV] = {nnc_lower_product_forward, nnc_lower_product_backward},
    [NNC_OP_LINEAR] = {nnc_lower_product_forward, nnc_lower_product_backward},
    [NNC_OP_NORM] = {nnc_lower_norm_forward, nnc_lower_norm_backward},
    [NNC_OP_ACT] = {nnc_lower_act_forward, nnc_lower_act_backward},
    [NNC_OP_ADD] = {nnc_lower_add_forward, nnc_lower_add_backward},
    [NNC_OP_MAXPOOL] = {nnc_lower_pool_forward, nnc_lower_pool_backward},
    [NNC_OP_AVGPOOL] = {nnc_lower_pool_forward, nnc_lower_pool_backward},
    [NNC_OP_DROPOUT] = {nnc_lower_dropout_forward, nnc_lower_dropout_backward},
    [NNC_OP_LOSS] = {nnc_lower_loss_forward, nnc_lower_loss_backward},
};

static int builder_init(struct nnc_builder *builder, struct nnc_executable *executable) {
    const struct nnc_program *program = executable->program;
    const struct nnc_dnn_state *state = &executable->backend->state;
    uint32_t param_count = program->graph->param_count;
    *builder = (struct nnc_builder){
        .backend = executable->backend,
        .executable = executable,
        .program = program,
        .planned = calloc(param_count + 1, sizeof(*builder->planned)),
        .arranging = program->training && state->buckets == NULL,
        .forward_pds = calloc(program->op_count, sizeof(*builder->forward_pds)),
        .notes = calloc(program->op_count, sizeof(*builder->notes)),
        .act_undone = calloc(program->op_count, sizeof(*builder->act_undone)),
    };
    executable->tensors = calloc(program->tensor_count, sizeof(*executable->tensors));
    executable->offsets = calloc(program->tensor_count, sizeof(*executable->offsets));
    if (builder->planned == NULL || builder->forward_pds == NULL || builder->notes == NULL ||
        builder->act_undone == NULL || executable->tensors == NULL || executable->offsets == NULL) {
        return nnc_fail(-ENOMEM, "no memory to compile %u operations", program->op_count);
    }
    for (uint32_t t = 0; t < program->tensor_count; t++) {
        executable->tensors[t].place = (struct nnc_place){.kind = NNC_PLACE_TENSOR, .at = t};
    }
    for (uint32_t p = 0; p < param_count && !builder->arranging; p++) {
        builder->planned[p] = state->params[p].md;
    }
    return 0;
}

static void builder_finish(struct nnc_builder *builder) {
    uint32_t param_count = builder->program->graph->param_count;
    for (uint32_t p = 0; builder->arranging && builder->planned != NULL && p < param_count; p++) {
        nnc_md_destroy(builder->planned[p]);
    }
    for (uint32_t op = 0; builder->forward_pds != NULL && op < builder->program->op_count; op++) {
        nnc_pd_destroy(builder->forward_pds[op]);
    }
    free(builder->planned);
    free(builder->forward_pds);
    free(builder->notes);
    free(builder->act_undone);
}

static int lower_all(struct nnc_builder *builder) {
    const struct nnc_program *program = builder->program;
    for (uint32_t number = 0; number < program->op_count; number++) {
        const struct nnc_op *op = &program->ops[number];
        nnc_lowering *lower = lowerings[op->kind][op->pass];
        builder->op = number;
        builder->temp_used = 0;
        nnc_dnn_set_team(builder, INFINITY);
        int rc = lower != NULL ? lower(builder, op) : 0;
        if (rc < 0) {
            return nnc_dnn_fail(builder, rc);
        }
    }
    return 0;
}

/* A later training program must reduce the same gradients in the same order. */
static int check_order(const struct nnc_dnn_state *state, const struct nnc_program *program) {
    bool equal =
        state->order_count == program->order_count &&
        state->bucket_count == program->bucket_count &&
        memcmp(state->order, program->order, program->order_count * sizeof(*state->order)) == 0;
    for (uint32_t k = 0; equal && k < program->bucket_count; k++) {
        equal = state->buckets[k].first == program->buckets[k].first &&
                state->buckets[k].count == program->buckets[k].count;
    }
    if (!equal) {
        return nnc_fail(-EINVAL, "training programs of one model must share their reduction "
                                 "buckets: lower them with the same bucket size");
    }
    return 0;
}

static size_t tensor_bytes(void *context, uint32_t tensor) {
    const struct nnc_executable *executable = context;
    const struct nnc_dnn_tensor *entry = &executable->tensors[tensor];
    bool in_arena = entry->md != NULL && entry->place.kind == NNC_PLACE_TENSOR;
    return in_arena ? nnc_md_bytes(entry->md) : 0;
}

/* Make shared memory at least `bytes` long; what was in it is lost. */
static int grow(struct nnc_backend *backend, size_t bytes, void **memory, size_t *have_bytes) {
    if (bytes <= *have_bytes) {
        return 0;
    }
    nnc_pages_free(*memory, *have_bytes);
    *have_bytes = 0;
    backend->addresses++;
    *memory = nnc_pages_alloc(bytes);
    if (*memory == NULL) {
        return nnc_fail(-ENOMEM,
                        "no memory for %zu bytes of activations; a smaller --batch-size needs less",
                        bytes);
    }
    *have_bytes = bytes;
    return 0;
}

static int allocate(struct nnc_executable *executable) {
    struct nnc_backend *backend = executable->backend;
    int rc = nnc_program_pack(executable->program, tensor_bytes, executable, 64,
                              executable->offsets, &executable->arena_bytes);
    if (rc == 0) {
        rc = grow(backend, executable->arena_bytes, &backend->arena, &backend->arena_bytes);
    }
    if (rc == 0) {
        rc = grow(backend, executable->temp_bytes, &backend->temp, &backend->temp_bytes);
    }
    if (rc == 0) {
        rc = grow(backend, executable->scratch_bytes, &backend->scratch, &backend->scratch_bytes);
    }
    if (rc == 0) {
        executable->private_memory = nnc_pages_alloc(executable->private_bytes);
        if (executable->private_memory == NULL) {
            rc = nnc_fail(-ENOMEM, "no memory for %zu bytes of a program's own",
                          executable->private_bytes);
        } else {
            backend->private_bytes += executable->private_bytes;
        }
    }
    return rc;
}

int nnc_executable_compile(struct nnc_backend *backend, const struct nnc_program *program,
                           struct nnc_executable *executable) {
    *executable = (struct nnc_executable){.backend = backend, .program = program};
    nnc_parallel_init(backend->params.threads);
    struct nnc_builder builder;
    int rc = builder_init(&builder, executable);
    if (rc == 0 && program->training && !builder.arranging) {
        rc = check_order(&backend->state, program);
    }
    if (rc == 0) {
        rc = lower_all(&builder);
    }
    if (rc == 0) {
        rc = allocate(executable);
    }
    if (rc == 0 && builder.arranging) {
        rc = nnc_dnn_state_arrange(&backend->state, builder.planned, program);
        backend->addresses++;
    }
    builder_finish(&builder);
    executable->generation = backend->state.generation;
    if (rc == 0) {
        nnc_log(NNC_LOG_DEBUG,
                "oneDNN: %s, batch %u: %u stages, %u activation reorders, %zu bytes shared, "
                "%zu private",
                program->training ? "training" : "evaluation", program->batch,
                executable->stage_count, executable->reorder_count,
                executable->arena_bytes + executable->temp_bytes + executable->scratch_bytes,
                executable->private_bytes);
    }
    return rc;
}

void nnc_executable_finish(struct nnc_executable *executable) {
    for (uint32_t s = 0; s < executable->stage_count; s++) {
        struct nnc_stage *stage = &executable->stages[s];
        for (int k = 0; k < stage->arg_count; k++) {
            dnnl_memory_destroy(stage->args[k].memory);
        }
        if (stage->primitive != NULL) {
            dnnl_primitive_destroy(stage->primitive);
        }
    }
    uint32_t tensor_count = executable->tensors != NULL ? executable->program->tensor_count : 0;
    for (uint32_t t = 0; t < tensor_count; t++) {
        nnc_md_destroy(executable->tensors[t].md);
    }
    free(executable->stages);
    free(executable->tensors);
    free(executable->offsets);
    if (executable->private_memory != NULL) {
        executable->backend->private_bytes -= executable->private_bytes;
        nnc_pages_free(executable->private_memory, executable->private_bytes);
    }
    *executable = (struct nnc_executable){0};
}

static int take_addresses(struct nnc_executable *executable) {
    for (uint32_t s = 0; s < executable->stage_count; s++) {
        struct nnc_stage *stage = &executable->stages[s];
        for (int k = 0; k < stage->arg_count; k++) {
            void *address = nnc_place_address(executable, stage->arg_places[k]);
            int rc = nnc_dnnl_check(dnnl_memory_set_data_handle(stage->args[k].memory, address),
                                    "operand");
            if (rc < 0) {
                return rc;
            }
        }
    }
    executable->addresses = executable->backend->addresses;
    return 0;
}

int nnc_executable_refresh(struct nnc_executable *executable) {
    struct nnc_backend *backend = executable->backend;
    nnc_parallel_init(backend->params.threads);
    if (executable->generation != backend->state.generation) {
        /* Parameters moved into the layouts of a training program compiled since. */
        const struct nnc_program *program = executable->program;
        nnc_executable_finish(executable);
        int rc = nnc_executable_compile(backend, program, executable);
        if (rc < 0) {
            return rc;
        }
    }
    return executable->addresses != backend->addresses ? take_addresses(executable) : 0;
}

/* Tell about the buckets whose gradients are final before operation `op` starts. */
static void announce(const struct nnc_executable *executable, uint32_t op, uint32_t *bucket) {
    const struct nnc_program *program = executable->program;
    const struct nnc_step_params *step = &executable->step;
    while (*bucket < program->bucket_count && program->buckets[*bucket].after_op < op) {
        if (step->bucket_ready != NULL) {
            step->bucket_ready(step->context, *bucket);
        }
        (*bucket)++;
    }
}

int nnc_executable_run(struct nnc_executable *executable) {
    uint32_t bucket = 0;
    for (uint32_t s = 0; s < executable->stage_count; s++) {
        struct nnc_stage *stage = &executable->stages[s];
        announce(executable, stage->op, &bucket);
        uint64_t begin_ns = nnc_clock_ns();
        int rc = stage->run(executable, stage);
        if (rc < 0) {
            return rc;
        }
        uint64_t ns = nnc_clock_ns() - begin_ns;
        stage->best_ns = stage->best_ns == 0 || ns < stage->best_ns ? ns : stage->best_ns;
    }
    announce(executable, executable->program->op_count, &bucket);
    return 0;
}

static int by_time(const void *left, const void *right) {
    const struct nnc_stage *const *a = left;
    const struct nnc_stage *const *b = right;
    return ((*a)->best_ns < (*b)->best_ns) - ((*a)->best_ns > (*b)->best_ns);
}

int nnc_executable_report(const struct nnc_executable *executable, FILE *out) {
    const struct nnc_stage **sorted = calloc(executable->stage_count + 1, sizeof(*sorted));
    if (sorted == NULL) {
        return nnc_fail(-ENOMEM, "no memory to report %u stages", executable->stage_count);
    }
    for (uint32_t s = 0; s < executable->stage_count; s++) {
        sorted[s] = &executable->stages[s];
    }
    qsort(sorted, executable->stage_count, sizeof(*sorted), by_time);
    for (uint32_t s = 0; s < executable->stage_count; s++) {
        const struct nnc_stage *stage = sorted[s];
        const struct nnc_op *op = &executable->program->ops[stage->op];
        fprintf(out, "%9.3f ms  %s  op %3u  %-36s %s\n", 1e-6 * (double)stage->best_ns,
                op->pass == NNC_PASS_FORWARD ? "forward " : "backward", stage->op, stage->name,
                op->node >= 0 ? executable->program->graph->nodes[op->node].name : "loss");
    }
    free(sorted);
    return 0;
}
