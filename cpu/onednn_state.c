/* SPDX-License-Identifier: Apache-2.0 */
/* Arenas of values, gradients and momentum; see onednn_state.h.
 *
 * Invariants: (1) offsets are multiples of 16 floats, one cache line, so that no two parameters
 * share one and a bucket is a contiguous run; (2) whatever lies between parameters and in the
 * padding of a layout is zero in every arena; (3) a value never changes without `version` growing.
 *
 * What it does not do: decide layouts (onednn_compile.c). */
#include "cpu/onednn_state.h"

#include <assert.h>
#include <errno.h>
#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/checked.h"
#include "base/err.h"
#include "cpu/onednn_parallel.h"

enum {
    LINE_FLOATS = 16,
    HUGE_PAGE = 2 << 20,
};

void *nnc_pages_alloc(size_t bytes) {
    size_t rounded;
    if (nnc_size_round_up(bytes > 0 ? bytes : 1, HUGE_PAGE, &rounded)) {
        return NULL;
    }
    void *pages = mmap(NULL, rounded, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (pages == MAP_FAILED) {
        return NULL;
    }
    madvise(pages, rounded, MADV_HUGEPAGE); /* a wish; small pages work too */
    return pages;
}

void nnc_pages_free(void *pages, size_t bytes) {
    size_t rounded;
    if (pages != NULL && !nnc_size_round_up(bytes > 0 ? bytes : 1, HUGE_PAGE, &rounded)) {
        munmap(pages, rounded);
    }
}

/* The plain layout with the dimensions of a parameter. */
static int plain_md(const struct nnc_param *param, nnc_md *ret_md) {
    static const dnnl_format_tag_t tags[] = {dnnl_a, dnnl_ab, dnnl_abc, dnnl_abcd};
    dnnl_dims_t dims = {0};
    assert(param->rank >= 1 && param->rank <= 4);
    for (uint32_t axis = 0; axis < param->rank; axis++) {
        dims[axis] = param->dims[axis];
    }
    return nnc_md_create((int)param->rank, dims, tags[param->rank - 1], ret_md);
}

static bool is_trained(const struct nnc_graph *graph, uint32_t param) {
    return graph->params[param].kind != NNC_PARAM_BUFFER;
}

/* Give a parameter the next place behind *count floats. */
static int place_param(struct nnc_dnn_param *param, size_t *count) {
    size_t rounded;
    param->offset = *count;
    param->count = nnc_md_bytes(param->md) / sizeof(float);
    if (nnc_size_round_up(param->count, LINE_FLOATS, &rounded) ||
        nnc_size_add(*count, rounded, count) || *count > SIZE_MAX / sizeof(float)) {
        return nnc_fail(-EOVERFLOW, "the model's parameters do not fit the address space");
    }
    return 0;
}

/* Offsets for all parameters: those of `order` first, then the trained ones it leaves out, then the
 * buffers. */
static int place_params(const struct nnc_graph *graph, struct nnc_dnn_param *params,
                        const uint32_t *order, uint32_t order_count, size_t *ret_trained,
                        size_t *ret_count) {
    bool *placed = calloc(graph->param_count + 1, sizeof(*placed));
    if (placed == NULL) {
        return nnc_fail(-ENOMEM, "no memory to place %u parameters", graph->param_count);
    }
    size_t count = 0;
    int rc = 0;
    for (uint32_t k = 0; rc == 0 && k < order_count; k++) {
        placed[order[k]] = true;
        rc = place_param(&params[order[k]], &count);
    }
    for (uint32_t p = 0; rc == 0 && p < graph->param_count; p++) {
        if (!placed[p] && is_trained(graph, p)) {
            placed[p] = true;
            rc = place_param(&params[p], &count);
        }
    }
    size_t trained = count;
    for (uint32_t p = 0; rc == 0 && p < graph->param_count; p++) {
        if (!placed[p]) {
            rc = place_param(&params[p], &count);
        }
    }
    free(placed);
    if (rc == 0) {
        *ret_trained = trained;
        *ret_count = count;
    }
    return rc;
}

int nnc_dnn_state_init(struct nnc_dnn_state *state, const struct nnc_graph *graph,
                       dnnl_engine_t engine, dnnl_stream_t stream) {
    *state = (struct nnc_dnn_state){.graph = graph, .engine = engine, .stream = stream};
    state->params = calloc(graph->param_count + 1, sizeof(*state->params));
    if (state->params == NULL) {
        return nnc_fail(-ENOMEM, "no memory for %u parameters", graph->param_count);
    }
    for (uint32_t p = 0; p < graph->param_count; p++) {
        int rc = plain_md(&graph->params[p], &state->params[p].md);
        if (rc < 0) {
            return rc;
        }
    }
    int rc =
        place_params(graph, state->params, NULL, 0, &state->trained_count, &state->value_count);
    if (rc < 0) {
        return rc;
    }
    state->value = nnc_pages_alloc(state->value_count * sizeof(float));
    if (state->value == NULL) {
        return nnc_fail(-ENOMEM, "no memory for the model's %zu values", state->value_count);
    }
    state->version = 1;
    state->generation = 1;
    return 0;
}

void nnc_dnn_state_finish(struct nnc_dnn_state *state) {
    for (uint32_t p = 0; state->params != NULL && p < state->graph->param_count; p++) {
        nnc_md_destroy(state->params[p].md);
    }
    free(state->params);
    free(state->buckets);
    free(state->order);
    nnc_pages_free(state->value, state->value_count * sizeof(float));
    nnc_pages_free(state->gradient, state->trained_count * sizeof(float));
    nnc_pages_free(state->momentum, state->trained_count * sizeof(float));
    *state = (struct nnc_dnn_state){0};
}

int nnc_dnn_copy(const struct nnc_dnn_state *state, nnc_const_md from_md, const float *from,
                 nnc_const_md to_md, float *to) {
    struct nnc_pd_site site = {.engine = state->engine};
    dnnl_primitive_desc_t pd = NULL;
    dnnl_primitive_t primitive = NULL;
    dnnl_memory_t memory[2] = {NULL, NULL};
    int rc = nnc_pd_reorder(&site, from_md, to_md, &pd);
    if (rc == 0) {
        rc = nnc_dnnl_check(dnnl_primitive_create(&primitive, pd), "reorder");
    }
    if (rc == 0) {
        /* The library takes writable addresses for what it only reads. */
        rc = nnc_dnnl_check(
            dnnl_memory_create(&memory[0], from_md, state->engine, (void *)(uintptr_t)from),
            "memory");
    }
    if (rc == 0) {
        rc = nnc_dnnl_check(dnnl_memory_create(&memory[1], to_md, state->engine, to), "memory");
    }
    if (rc == 0) {
        dnnl_exec_arg_t args[] = {{DNNL_ARG_FROM, memory[0]}, {DNNL_ARG_TO, memory[1]}};
        rc = nnc_dnnl_check(dnnl_primitive_execute(primitive, state->stream, 2, args), "reorder");
    }
    if (rc == 0) {
        rc = nnc_dnnl_check(dnnl_stream_wait(state->stream), "wait");
    }
    for (int k = 0; k < 2; k++) {
        if (memory[k] != NULL) {
            dnnl_memory_destroy(memory[k]);
        }
    }
    if (primitive != NULL) {
        dnnl_primitive_destroy(primitive);
    }
    nnc_pd_destroy(pd);
    return rc == -ENOTSUP ? nnc_fail(-EINVAL, "oneDNN cannot convert a parameter's layout") : rc;
}

/* Copy one parameter between two states. */
static int move_param(const struct nnc_dnn_state *state, const struct nnc_dnn_param *from,
                      const float *from_arena, const struct nnc_dnn_param *to, float *to_arena) {
    return nnc_dnn_copy(state, from->md, from_arena + from->offset, to->md, to_arena + to->offset);
}

/* The new state's layouts and arenas, still without values. */
static int arrange_empty(const struct nnc_dnn_state *old, nnc_md const *mds,
                         const struct nnc_program *program, struct nnc_dnn_state *ret_state) {
    const struct nnc_graph *graph = old->graph;
    struct nnc_dnn_state *state = ret_state;
    state->params = calloc(graph->param_count + 1, sizeof(*state->params));
    state->buckets = calloc(program->bucket_count + 1, sizeof(*state->buckets));
    state->order = calloc(program->order_count + 1, sizeof(*state->order));
    if (state->params == NULL || state->buckets == NULL || state->order == NULL) {
        return nnc_fail(-ENOMEM, "no memory to arrange %u parameters", graph->param_count);
    }
    memcpy(state->buckets, program->buckets, program->bucket_count * sizeof(*state->buckets));
    memcpy(state->order, program->order, program->order_count * sizeof(*state->order));
    state->bucket_count = program->bucket_count;
    state->order_count = program->order_count;
    for (uint32_t p = 0; p < graph->param_count; p++) {
        int rc = nnc_md_clone(mds[p] != NULL ? mds[p] : old->params[p].md, &state->params[p].md);
        if (rc < 0) {
            return rc;
        }
    }
    int rc = place_params(graph, state->params, state->order, state->order_count,
                          &state->trained_count, &state->value_count);
    if (rc < 0) {
        return rc;
    }
    state->value = nnc_pages_alloc(state->value_count * sizeof(float));
    state->gradient = nnc_pages_alloc(state->trained_count * sizeof(float));
    state->momentum = nnc_pages_alloc(state->trained_count * sizeof(float));
    if (state->value == NULL || state->gradient == NULL || state->momentum == NULL) {
        return nnc_fail(-ENOMEM, "no memory for values, gradients and momentum: 3 x %zu bytes",
                        state->value_count * sizeof(float));
    }
    return 0;
}

int nnc_dnn_state_arrange(struct nnc_dnn_state *state, nnc_md const *mds,
                          const struct nnc_program *program) {
    struct nnc_dnn_state next = {.graph = state->graph,
                                 .engine = state->engine,
                                 .stream = state->stream,
                                 .version = state->version + 1,
                                 .generation = state->generation + 1};
    int rc = arrange_empty(state, mds, program, &next);
    for (uint32_t p = 0; rc == 0 && p < state->graph->param_count; p++) {
        const struct nnc_dnn_param *from = &state->params[p];
        rc = move_param(state, from, state->value, &next.params[p], next.value);
        if (rc == 0 && state->gradient != NULL && is_trained(state->graph, p)) {
            rc = move_param(state, from, state->gradient, &next.params[p], next.gradient);
        }
        if (rc == 0 && state->momentum != NULL && is_trained(state->graph, p)) {
            rc = move_param(state, from, state->momentum, &next.params[p], next.momentum);
        }
    }
    if (rc < 0) {
        nnc_dnn_state_finish(&next);
        return rc;
    }
    nnc_dnn_state_finish(state);
    *state = next;
    return 0;
}

/* The arena of a kind of state; NULL when it does not exist (all zero). */
static float **arena_of(struct nnc_dnn_state *state, enum nnc_state which) {
    switch (which) {
    case NNC_STATE_VALUE:
        return &state->value;
    case NNC_STATE_GRADIENT:
        return &state->gradient;
    case NNC_STATE_MOMENTUM:
        return &state->momentum;
    }
    assert(false);
    return NULL;
}

int nnc_dnn_state_get(struct nnc_dnn_state *state, enum nnc_state which, uint32_t param,
                      float *ret_values) {
    assert(param < state->graph->param_count);
    const struct nnc_dnn_param *entry = &state->params[param];
    const float *arena = *arena_of(state, which);
    if (arena == NULL || (which != NNC_STATE_VALUE && !is_trained(state->graph, param))) {
        memset(ret_values, 0, state->graph->params[param].count * sizeof(float));
        return 0;
    }
    nnc_md plain = NULL;
    int rc = plain_md(&state->graph->params[param], &plain);
    if (rc == 0) {
        rc = nnc_dnn_copy(state, entry->md, arena + entry->offset, plain, ret_values);
    }
    nnc_md_destroy(plain);
    return rc;
}

int nnc_dnn_state_set(struct nnc_dnn_state *state, enum nnc_state which, uint32_t param,
                      const float *values) {
    assert(param < state->graph->param_count);
    const struct nnc_dnn_param *entry = &state->params[param];
    if (which != NNC_STATE_VALUE && !is_trained(state->graph, param)) {
        return 0;
    }
    float **arena = arena_of(state, which);
    if (*arena == NULL) {
        *arena = nnc_pages_alloc(state->trained_count * sizeof(float));
        if (*arena == NULL) {
            return nnc_fail(-ENOMEM, "no memory for %zu values of state", state->trained_count);
        }
    }
    nnc_md plain = NULL;
    int rc = plain_md(&state->graph->params[param], &plain);
    if (rc == 0) {
        rc = nnc_dnn_copy(state, plain, values, entry->md, *arena + entry->offset);
    }
    nnc_md_destroy(plain);
    state->version++;
    return rc;
}

struct update_job {
    atomic_uint diverged; /* lowest parameter with a value that is not finite; UINT32_MAX: none */
    const struct nnc_dnn_state *state;
    const struct nnc_kernels *kernels;
    const struct nnc_sgd *sgd;
};

/* One parameter's part of this thread's share [begin, end) of the arenas. */
static void update_part(struct update_job *job, uint32_t param, size_t begin, size_t end) {
    const struct nnc_dnn_state *state = job->state;
    const struct nnc_dnn_param *entry = &state->params[param];
    size_t from = entry->offset > begin ? entry->offset : begin;
    size_t to = entry->offset + entry->count < end ? entry->offset + entry->count : end;
    if (from >= to) {
        return;
    }
    struct nnc_sgd_run run = {
        .count = to - from,
        .value = state->value + from,
        .momentum_buffer = state->momentum + from,
        .gradient = state->gradient + from,
        .lr = job->sgd->lr,
        .momentum = job->sgd->momentum,
        .weight_decay = job->sgd->weight_decay[state->graph->params[param].kind],
        .nesterov = job->sgd->nesterov,
        .ratio = job->sgd->trust > 0 ? entry->ratio : 1,
    };
    if (!job->kernels->sgd(&run)) {
        /* Relaxed: the team's end orders it before the reader in nnc_dnn_state_update(). */
        unsigned lowest = atomic_load_explicit(&job->diverged, memory_order_relaxed);
        while (param < lowest &&
               !atomic_compare_exchange_weak_explicit(&job->diverged, &lowest, param,
                                                      memory_order_relaxed, memory_order_relaxed)) {
        }
    }
}

static double norm_of(const float *values, size_t count) {
    double sum = 0;
    for (size_t i = 0; i < count; i++) {
        sum += (double)values[i] * (double)values[i];
    }
    return sqrt(sum);
}

/* Ratios of this thread's share of the parameters. */
static void ratio_share(void *context, uint32_t thread, uint32_t threads) {
    struct update_job *job = context;
    const struct nnc_dnn_state *state = job->state;
    for (uint32_t p = thread; p < state->graph->param_count; p += threads) {
        struct nnc_dnn_param *entry = &state->params[p];
        if (is_trained(state->graph, p)) {
            entry->ratio = nnc_sgd_ratio(job->sgd, state->graph->params[p].kind,
                                         norm_of(state->value + entry->offset, entry->count),
                                         norm_of(state->gradient + entry->offset, entry->count));
        }
    }
}

static void update_share(void *context, uint32_t thread, uint32_t threads) {
    struct update_job *job = context;
    size_t begin;
    size_t end;
    nnc_share(job->state->trained_count, LINE_FLOATS, thread, threads, &begin, &end);
    for (uint32_t p = 0; p < job->state->graph->param_count; p++) {
        if (is_trained(job->state->graph, p)) {
            update_part(job, p, begin, end);
        }
    }
}

int nnc_dnn_state_update(struct nnc_dnn_state *state, const struct nnc_kernels *kernels,
                         uint32_t threads, const struct nnc_sgd *sgd) {
    if (state->gradient == NULL || state->momentum == NULL) {
        return nnc_fail(-EINVAL, "update before a training program was compiled");
    }
    struct update_job job = {.state = state, .kernels = kernels, .sgd = sgd};
    atomic_init(&job.diverged, UINT32_MAX);
    uint32_t team = nnc_team(threads, (double)state->trained_count);
    if (sgd->trust > 0) {
        nnc_parallel(team, ratio_share, &job);
    }
    nnc_parallel(team, update_share, &job);
    state->version++;
    unsigned diverged = atomic_load_explicit(&job.diverged, memory_order_relaxed);
    if (diverged != UINT32_MAX) {
        return nnc_fail(-NNC_E_NUMERIC,
                        "%s is not finite after the update: training diverged; a lower --lr or a "
                        "warm-up may help",
                        state->graph->params[diverged].name);
    }
    return 0;
}

int nnc_dnn_state_bucket(struct nnc_dnn_state *state, uint32_t bucket, float **ret_values,
                         size_t *ret_count) {
    if (bucket >= state->bucket_count || state->gradient == NULL) {
        return nnc_fail(-EINVAL, "reduction bucket %u of %u", bucket, state->bucket_count);
    }
    const struct nnc_bucket *entry = &state->buckets[bucket];
    assert(entry->count >= 1 && entry->first + entry->count <= state->order_count);
    const struct nnc_dnn_param *first = &state->params[state->order[entry->first]];
    const struct nnc_dnn_param *last =
        &state->params[state->order[entry->first + entry->count - 1]];
    *ret_values = state->gradient + first->offset;
    *ret_count = last->offset + last->count - first->offset;
    return 0;
}

size_t nnc_dnn_state_bytes(const struct nnc_dnn_state *state) {
    size_t count = state->value_count;
    count += state->gradient != NULL ? state->trained_count : 0;
    count += state->momentum != NULL ? state->trained_count : 0;
    return count * sizeof(float);
}
