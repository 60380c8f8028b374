/* SPDX-License-Identifier: Apache-2.0 */
/* A step as a whole, all of it queued:
 *
 *   compute   step values | labels, INPUT | forward, loss, backward          | wait | metrics |
 *   comm                                      average of each bucket as it is final ^
 *   host      claims a flight                                                  lets it go
 *
 * A flight is one such piece of work. At most NNC_FLIGHTS are under way: the host runs ahead of the
 * device by two steps and their updates, no more. What comes back lies in the flight's own pinned
 * memory, and is added up when its event has happened.
 *
 * With `graphs` everything between INPUT and metrics is recorded at the second step of an
 * executable and queued as one graph from then on. What changes from step to step is in device
 * memory that the steps before it fill, so the recording holds for all.
 *
 * Several ranks record their averages with it, which they must do together or not at all (comm.c).
 * So they go by what all know alike: only steps in which every rank has its full batch are
 * recorded, the first such step is queued, the second recorded, the others are launched. Any other
 * step is queued by all, and so is one alone, which has no averages. For the same reason a rank
 * does not record a second time.
 *
 * Invariants: (1) a flight's memory is the device's from its claim until it has landed; (2) whether
 * a training step is queued, recorded or launched follows from what all ranks know of the steps:
 * their global counts, and which are alone. */
#include "gpu/exec.h"

#include "base/err.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- flights ---- */

static int land_one(struct nnc_backend *backend, const struct nnc_flight *flight) {
    const struct nnc_flight_host *host = flight->host;
    backend->ended++;
    if (flight->counted) {
        backend->metrics.loss_sum += host->metrics.loss_sum;
        backend->metrics.count += host->metrics.count;
        backend->metrics.left_out += host->metrics.left_out;
        backend->metrics.correct1 += host->metrics.correct1;
        backend->metrics.correct5 += host->metrics.correct5;
    }
    /* With a scale that moves, a gradient that is not finite is business as usual. */
    if (flight->updated && !host->scaler.dynamic && host->scaler.skipped > 0) {
        return nnc_fail(-NNC_E_NUMERIC, "a gradient is not finite: training diverged; a lower --lr "
                                        "or a --warmup may help");
    }
    return 0;
}

int nnc_exec_land(struct nnc_backend *backend, bool wait) {
    while (backend->ended < backend->begun) {
        const struct nnc_flight *flight = &backend->flight[backend->ended % NNC_FLIGHTS];
        int rc =
            wait ? nnc_device_wait(&backend->device, flight->done) : nnc_device_query(flight->done);
        if (rc < 0 || (rc == 0 && !wait)) {
            return rc;
        }
        rc = land_one(backend, flight);
        if (rc < 0) {
            return rc;
        }
    }
    return 0;
}

/* Claim the next flight, which waits for the oldest when all are under way. */
static int take_off(struct nnc_backend *backend, struct nnc_flight **ret_flight) {
    int rc = nnc_exec_land(backend, false);
    if (rc == 0 && backend->begun - backend->ended == NNC_FLIGHTS) {
        const struct nnc_flight *oldest = &backend->flight[backend->ended % NNC_FLIGHTS];
        rc = nnc_device_wait(&backend->device, oldest->done);
        if (rc == 0) {
            rc = land_one(backend, oldest);
        }
    }
    if (rc < 0) {
        return rc;
    }
    struct nnc_flight *flight = &backend->flight[backend->begun % NNC_FLIGHTS];
    flight->counted = false;
    flight->updated = false;
    *ret_flight = flight;
    return 0;
}

/* Compute has all the work of the flight. */
static int let_go(struct nnc_backend *backend, struct nnc_flight *flight) {
    int rc = nnc_device_check(
        cudaEventRecord(flight->done, backend->device.stream[NNC_STREAM_COMPUTE]), "end of a step");
    backend->begun += rc == 0;
    return rc;
}

/* Queue a copy on compute, between the device and a flight's memory. */
static int queue_copy(struct nnc_backend *backend, void *to, const void *from, size_t bytes) {
    return nnc_device_check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault,
                                            backend->device.stream[NNC_STREAM_COMPUTE]),
                            "values of a step");
}

/* ---- reductions ---- */

/* Average the slice of a bucket, or (bucket_count) of all vectors, once it is final; nothing before
 * the ranks have joined. */
static int reduce(struct nnc_backend *backend, uint32_t bucket) {
    const struct nnc_comm_slice *slice = &backend->slices[bucket];
    if (!backend->comm.device || slice->count == 0) {
        return 0;
    }
    return nnc_comm_average(&backend->comm, slice);
}

/* The buckets that are final after operation `op`; *next is the first one not yet reduced. */
static int reduce_after(struct nnc_executable *exe, uint32_t op, uint32_t *next) {
    const struct nnc_program *program = exe->program;
    int rc = 0;
    while (rc == 0 && *next < program->bucket_count && program->buckets[*next].after_op == op) {
        rc = reduce(exe->backend, (*next)++);
    }
    return rc;
}

/* ---- a step ---- */

static int run_op(const struct nnc_executable *exe, uint32_t number) {
    const struct nnc_op *op = &exe->program->ops[number];
    return nnc_exec_kind_of(op)->run(exe, op);
}

/* Everything behind INPUT. */
static int run_body(struct nnc_executable *exe) {
    struct nnc_backend *backend = exe->backend;
    uint32_t bucket = 0;
    int rc = nnc_device_check(cudaMemsetAsync(backend->step_metrics.memory, 0,
                                              sizeof(struct nnc_gpu_metrics), nnc_exec_stream(exe)),
                              "zeros for the metrics");
    for (uint32_t number = 1; rc == 0 && number < exe->program->op_count; number++) {
        rc = run_op(exe, number);
        if (rc == 0 && !exe->alone) {
            rc = reduce_after(exe, number, &bucket);
        }
    }
    if (rc == 0 && exe->program->training && !exe->alone) {
        rc = reduce(backend, backend->bucket_count);
    }
    /* Here, not behind the metrics: a recording ends where all its streams have come together. */
    return rc < 0 ? rc : nnc_comm_join(&backend->comm);
}

/* Record the body. It cannot be run at the same time: recording queues nothing. */
static int record(struct nnc_executable *exe) {
    cudaStream_t stream = nnc_exec_stream(exe);
    cudaGraph_t graph = NULL;
    int rc = nnc_device_check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal),
                              "recording of a step");
    if (rc < 0) {
        return rc;
    }
    rc = run_body(exe);
    /* Ends in any case, or the stream would stay unusable. */
    cudaError_t ended = cudaStreamEndCapture(stream, &graph);
    if (rc == 0) {
        rc = nnc_device_check(ended, "end of a recording");
    }
    if (rc == 0) {
        /* Each kernel keeps the priority of the stream that it was recorded on: averages come
         * first. (CUDA Runtime API, cudaGraphInstantiateFlagUseNodePriority.) */
        rc = nnc_device_check(
            cudaGraphInstantiate(&exe->graph, graph, cudaGraphInstantiateFlagUseNodePriority),
            "graph of a step");
    }
    if (graph) {
        cudaGraphDestroy(graph);
    }
    exe->graph_generation = exe->backend->generation;
    return rc;
}

static void drop_graph(struct nnc_executable *exe) {
    if (exe->graph) {
        cudaGraphExecDestroy(exe->graph);
        exe->graph = NULL;
    }
}

void nnc_exec_forget(struct nnc_backend *backend) {
    for (struct nnc_executable *exe = backend->executables; exe; exe = exe->next) {
        drop_graph(exe);
        exe->warm = false;
    }
}

/* Whether every rank has its full batch, as every rank knows. The full one: a rank whose short
 * batch happens to be the mean of all must not take the step for such. */
static bool is_whole(const struct nnc_backend *backend, uint32_t global_count) {
    uint32_t ranks = backend->params.ranks;
    return ranks == 1 || global_count == (uint64_t)ranks * backend->full_batch;
}

/* Drop a graph that is no longer right. Errors: -NNC_E_COMM: it may not be made anew. */
static int check_graph(struct nnc_executable *exe) {
    if (!exe->graph || exe->graph_generation == exe->backend->generation) {
        return 0;
    }
    if (exe->program->training && exe->backend->comm.comm) {
        return nnc_fail(-NNC_E_COMM, "a step cannot be recorded a second time, the other ranks do "
                                     "not: memory has moved since; leave --cuda-graphs out");
    }
    drop_graph(exe);
    return 0;
}

/* The body, as a graph where that is wanted and possible and the executable has run once: libraries
 * load code at their first call, and NCCL connects ranks, which cannot be recorded. */
static int queue_body(struct nnc_executable *exe, bool whole) {
    if (!exe->backend->params.device.graphs || !whole || !exe->warm) {
        exe->warm = exe->warm || whole;
        return run_body(exe);
    }
    int rc = check_graph(exe);
    if (rc == 0 && !exe->graph) {
        rc = record(exe);
    }
    return rc < 0 ? rc
                  : nnc_device_check(cudaGraphLaunch(exe->graph, nnc_exec_stream(exe)),
                                     "launch of a step");
}

/* Labels and images of the next batch; they are read here and nowhere else. */
static int queue_input(struct nnc_executable *exe) {
    struct nnc_backend *backend = exe->backend;
    const struct nnc_feed_place *place = NULL;
    int rc = nnc_feeds_take(&backend->feeds, exe, &place);
    if (rc == 0) {
        rc = queue_copy(backend, nnc_exec_at(exe, exe->labels), place->labels.memory,
                        exe->program->batch * sizeof(int32_t));
    }
    if (rc == 0) {
        rc = run_op(exe, 0);
    }
    return rc < 0 ? rc : nnc_feeds_release(&backend->feeds, place);
}

/* Input, body and metrics. */
static int queue_batch(struct nnc_executable *exe, bool whole, struct nnc_flight *flight) {
    struct nnc_backend *backend = exe->backend;
    int rc = queue_input(exe);
    if (rc == 0) {
        rc = queue_body(exe, whole);
    }
    if (rc == 0) {
        rc = queue_copy(backend, &flight->host->metrics, backend->step_metrics.memory,
                        sizeof(flight->host->metrics));
    }
    flight->counted = rc == 0;
    return rc;
}

static void announce(const struct nnc_program *program, const struct nnc_step_params *params) {
    for (uint32_t bucket = 0; params->bucket_ready && bucket < program->bucket_count; bucket++) {
        params->bucket_ready(params->context, bucket);
    }
}

int nnc_exec_feed(struct nnc_executable *exe, const struct nnc_feed *feed) {
    return nnc_feeds_push(&exe->backend->feeds, exe, &exe->feed, feed);
}

int nnc_exec_step(struct nnc_executable *exe, const struct nnc_step_params *params) {
    struct nnc_backend *backend = exe->backend;
    struct nnc_flight *flight = NULL;
    assert(exe->program->training && params->global_count >= 1 && params->step <= UINT32_MAX);
    int rc = take_off(backend, &flight);
    if (rc < 0) {
        return rc;
    }
    flight->host->step = (struct nnc_gpu_step){
        .step = (uint32_t)params->step,
        .first = params->first,
        /* Ranks average their gradients. */
        .gradient_scale = (float)((double)backend->params.ranks / params->global_count),
    };
    rc = queue_copy(backend, backend->step_values.memory, &flight->host->step,
                    sizeof(flight->host->step));
    exe->alone = params->alone;
    if (rc == 0) {
        /* A step alone is none of those that are recorded. */
        rc = queue_batch(exe, is_whole(backend, params->global_count) && !exe->alone, flight);
    }
    if (rc < 0) {
        return rc;
    }
    announce(exe->program, params);
    return let_go(backend, flight);
}

int nnc_exec_evaluate(struct nnc_executable *exe) {
    struct nnc_flight *flight = NULL;
    assert(!exe->program->training);
    int rc = take_off(exe->backend, &flight);
    if (rc == 0) {
        rc = queue_batch(exe, true, flight); /* no rank hears of it */
    }
    return rc < 0 ? rc : let_go(exe->backend, flight);
}

int nnc_exec_logits(struct nnc_executable *exe, float *ret_logits) {
    int32_t tensor = exe->program->logits;
    struct nnc_gpu_tensor shape = nnc_exec_shape(exe, tensor);
    size_t count = (size_t)shape.n * shape.stride;
    float *padded = malloc(count * sizeof(*padded));
    if (!padded) {
        return nnc_fail(-ENOMEM, "no memory for %zu logits", count);
    }
    int rc = nnc_gpu_state_read(&exe->backend->state, shape.type, nnc_exec_tensor(exe, tensor),
                                count, padded);
    for (uint32_t n = 0; rc == 0 && n < shape.n; n++) {
        memcpy(ret_logits + (size_t)n * shape.channels, padded + (size_t)n * shape.stride,
               shape.channels * sizeof(*padded));
    }
    free(padded);
    return rc;
}

int nnc_exec_update(struct nnc_backend *backend, const struct nnc_sgd *sgd) {
    struct nnc_flight *flight = NULL;
    if (!backend->state.gradients.memory) {
        return nnc_fail(-EINVAL, "update before a training program was compiled");
    }
    int rc = take_off(backend, &flight);
    if (rc < 0) {
        return rc;
    }
    flight->host->step = (struct nnc_gpu_step){
        .lr = sgd->lr, .momentum = sgd->momentum, .nesterov = sgd->nesterov, .trust = sgd->trust};
    memcpy(flight->host->step.weight_decay, sgd->weight_decay, sizeof(sgd->weight_decay));
    rc = queue_copy(backend, backend->update_values.memory, &flight->host->step,
                    sizeof(flight->host->step));
    if (rc == 0) {
        rc = nnc_gpu_state_update(&backend->state, backend->update_values.memory, sgd->trust > 0);
    }
    if (rc == 0) {
        rc = queue_copy(backend, &flight->host->scaler, backend->state.scaler.memory,
                        sizeof(flight->host->scaler));
    }
    flight->updated = rc == 0;
    return rc < 0 ? rc : let_go(backend, flight);
}

int nnc_exec_zero_gradients(struct nnc_backend *backend) {
    if (!backend->state.gradients.memory) {
        return 0;
    }
    int rc = nnc_gpu_state_clear(&backend->state);
    for (uint32_t bucket = 0; rc == 0 && backend->slices && bucket <= backend->bucket_count;
         bucket++) {
        rc = reduce(backend, bucket);
    }
    return rc < 0 ? rc : nnc_comm_join(&backend->comm);
}
