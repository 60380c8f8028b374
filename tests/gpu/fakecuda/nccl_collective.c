/* SPDX-License-Identifier: Apache-2.0 */
/* libnccl.so.2. A collective is an operation in its stream that is ready when all ranks have called
 * the same one; polled, so it blocks nobody. Where ranks disagree, the real library hangs; here the
 * communicator's error says so, with both calls in words. A rank that died is as in the real one:
 * what waits for it never ends, until the communicator is aborted.
 *
 * A non-blocking communicator queues a collective from a thread of its own, after the call returned
 * ncclInProgress. Under the schedules lazy and random it is queued when the caller asks for the
 * state: an event that was recorded before that does not cover it, and shows as a race.
 *
 * A collective that is called while its stream is captured is recorded, and is called at each
 * launch of the graph. All ranks must have recorded it, as the same call in their order of
 * recording: to queue it on one of them, or to record it there anew, is a difference like any
 * other.
 *
 * Invariants: 1. Calls of a communicator run in the order of their queueing, whatever the streams.
 *             2. A communicator lives until the last of its operations is gone. */
#include "tests/gpu/fakecuda/nccl_world.h"

#include "tests/gpu/fakecuda/fakecuda.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static _Thread_local int group_depth;
static _Thread_local struct collective *group[HELD_MAX];
static _Thread_local unsigned group_count;

ncclResult_t ncclGroupStart(void); /* the header has no prototypes of these */
ncclResult_t ncclGroupEnd(void);

static void describe(int rank, const struct nccl_call *call, size_t room, char *text) {
    static const char *const ops[] = {"sum", "product", "maximum", "minimum", "average"};
    static const char *const types[] = {"int8",   "uint8",   "int32",   "uint32",  "int64",
                                        "uint64", "float16", "float32", "float64", "bfloat16"};
    unsigned long long count = call->count;
    if (call->kind == NCCL_BROADCAST) {
        snprintf(text, room, "rank %d broadcast of %llu %s from rank %d", rank, count,
                 types[call->type], call->root);
    } else {
        snprintf(text, room, "rank %d all-reduce of %llu %s, %s", rank, count, types[call->type],
                 ops[call->op]);
    }
    size_t length = strlen(text);
    if (call->recorded > 0) {
        snprintf(text + length, room - length, ", recorded as number %llu",
                 (unsigned long long)call->recorded);
    }
}

static bool agree(const struct nccl_call *a, const struct nccl_call *b) {
    return a->kind == b->kind && a->count == b->count && a->type == b->type && a->op == b->op &&
           a->root == b->root && a->recorded == b->recorded;
}

static uint64_t begin(void *closure) {
    struct collective *collective = closure;
    return ++collective->comm->queued;
}

/* Contribute, once everybody is through with the call before. */
static bool publish(struct collective *collective, uint64_t number) {
    struct ncclComm *comm = collective->comm;
    struct nccl_rank *mine = &comm->world->ranks[comm->rank];
    for (int rank = 0; rank < comm->ranks; rank++) {
        /* Pairs with the release in run(): the area is read no more. */
        if (atomic_load_explicit(&comm->world->ranks[rank].finished, memory_order_acquire) + 1 <
            number) {
            return false;
        }
    }
    memcpy(nccl_world_area(comm->world, comm->rank), fake_translate(collective->send),
           collective->call.count * nccl_type_bytes(collective->call.type));
    mine->call = collective->call;
    comm->published = number;
    /* Pairs with the acquire in ready(): call and area are written. */
    atomic_store_explicit(&mine->published, number, memory_order_release);
    return true;
}

static bool ready(void *closure, uint64_t number) {
    struct collective *collective = closure;
    struct ncclComm *comm = collective->comm;
    if (comm->aborted) {
        return true;
    }
    if (collective->hang || comm->error != ncclSuccess || comm->done + 1 != number ||
        (comm->published < number && !publish(collective, number))) {
        return false;
    }
    int there = 0;
    for (int rank = 0; rank < comm->ranks; rank++) {
        struct nccl_rank *peer = &comm->world->ranks[rank];
        if (atomic_load_explicit(&peer->published, memory_order_acquire) < number) {
            continue;
        }
        there++;
        if (!agree(&peer->call, &collective->call)) {
            char mine[120], other[120];
            describe(comm->rank, &collective->call, sizeof mine, mine);
            describe(rank, &peer->call, sizeof other, other);
            comm->error = nccl_fail(comm, ncclInvalidUsage, "call %llu differs: %s; %s",
                                    (unsigned long long)number, mine, other);
            return false;
        }
    }
    return there == comm->ranks;
}

static void run(void *closure) {
    struct collective *collective = closure;
    struct ncclComm *comm = collective->comm;
    if (comm->aborted) {
        return;
    }
    nccl_world_result(comm->world, comm->ranks, &collective->call,
                      fake_translate(collective->recv));
    comm->done++;
    atomic_store_explicit(&comm->world->ranks[comm->rank].finished, comm->done,
                          memory_order_release);
}

void nccl_drop(void *closure) {
    struct collective *collective = closure;
    nccl_release(collective->comm);
    free(collective);
}

/* The graphs that it was recorded in are gone. */
static void forgotten(void *closure) {
    struct collective *collective = closure;
    collective->comm->in_graphs--;
}

ncclResult_t nccl_submit(struct collective *collective) {
    struct ncclComm *comm = collective->comm;
    size_t bytes = collective->call.count * nccl_type_bytes(collective->call.type);
    const struct fake_range ranges[] = {
        {.memory = collective->send, .bytes = bytes},
        {.memory = collective->recv, .bytes = bytes, .write = true},
    };
    struct fake_work work = {.name = collective->call.kind == NCCL_BROADCAST ? "ncclBroadcast"
                                                                             : "ncclAllReduce",
                             .ranges = ranges,
                             .count = bytes ? 2 : 0,
                             .begin = begin,
                             .ready = ready,
                             .run = run,
                             .done = nccl_drop,
                             .forgotten = forgotten,
                             .closure = collective};
    cudaStream_t real = fake_stream_of(collective->stream);
    if (!real) {
        nccl_drop(collective);
        return ncclInvalidArgument;
    }
    bool records = real->capture != NULL;
    if (records) {
        collective->call.recorded = ++comm->recorded;
    }
    bool taken = fake_submit(real, &work) == cudaSuccess;
    if (records && taken) {
        comm->in_graphs++;
    }
    return taken ? ncclSuccess : ncclUnhandledCudaError;
}

/* Queue now, or hold it back as a thread of the library would. */
static ncclResult_t dispatch(struct collective *collective) {
    struct ncclComm *comm = collective->comm;
    enum fake_schedule schedule = fake_settings()->schedule;
    int64_t ms = 0;
    enum fake_action fault = fake_take_fault(&ms);
    collective->hang = fault == FAKE_HANG; /* until an abort, which no other operation has */
    if (fault != FAKE_HANG && fault != FAKE_REMOTE) {
        fake_put_fault(fault, ms);
    }
    if (fault == FAKE_REMOTE) {
        comm->error = nccl_fail(comm, ncclRemoteError, "a remote rank failed");
    }
    bool later = !comm->blocking && fault == FAKE_NONE &&
                 (schedule == FAKE_LAZY || (schedule == FAKE_RANDOM && fake_random() % 2));
    if (!later || comm->held_count == HELD_MAX) {
        return nccl_submit(collective);
    }
    comm->held[comm->held_count++] = collective;
    comm->polls = 0;
    return ncclInProgress;
}

static ncclResult_t check_call(struct ncclComm *comm, const struct nccl_call *call) {
    size_t bytes = nccl_type_bytes(call->type);
    bool small = call->kind == NCCL_ALL_REDUCE && bytes == 1;
    if (!comm || bytes == 0 || small || call->op > ncclAvg || call->root >= comm->ranks ||
        call->count > NCCL_AREA_BYTES / bytes) {
        return nccl_fail(comm, ncclInvalidArgument, "type, operation, root or count");
    }
    if (!nccl_check_complete(comm) || comm->error != ncclSuccess) {
        return nccl_fail(comm, ncclInvalidUsage, "the communicator is not ready");
    }
    if (comm->held_count > 0 && group_depth == 0) {
        return nccl_fail(comm, ncclInvalidUsage, "the call before is still in progress");
    }
    return ncclSuccess;
}

static ncclResult_t collect(const struct collective *params) {
    ncclResult_t result = check_call(params->comm, &params->call);
    struct collective *collective = result ? NULL : malloc(sizeof *collective);
    if (!collective) {
        return result ? result : ncclSystemError;
    }
    *collective = *params;
    collective->comm->uses++;
    if (group_depth > 0 && group_count < HELD_MAX) {
        group[group_count++] = collective;
        return ncclSuccess;
    }
    return dispatch(collective);
}

ncclResult_t ncclAllReduce(const void *send, void *recv, size_t count, ncclDataType_t type,
                           ncclRedOp_t op, ncclComm_t comm, cudaStream_t stream) {
    cudaError_t code = fake_enter("ncclAllReduce");
    struct collective params = {
        .comm = comm,
        .call = {.count = count, .kind = NCCL_ALL_REDUCE, .type = type, .op = op},
        .send = send,
        .recv = recv,
        .stream = stream};
    ncclResult_t result = code ? ncclUnhandledCudaError : collect(&params);
    fake_leave(code);
    return result;
}

ncclResult_t ncclBroadcast(const void *send, void *recv, size_t count, ncclDataType_t type,
                           int root, ncclComm_t comm, cudaStream_t stream) {
    cudaError_t code = fake_enter("ncclBroadcast");
    struct collective params = {
        .comm = comm,
        .call = {.count = count, .kind = NCCL_BROADCAST, .type = type, .root = root},
        .send = comm && comm->rank == root ? send : recv, /* send is the root's alone */
        .recv = recv,
        .stream = stream};
    ncclResult_t result = code ? ncclUnhandledCudaError : collect(&params);
    fake_leave(code);
    return result;
}

ncclResult_t ncclGroupStart(void) {
    group_depth++;
    return ncclSuccess;
}

ncclResult_t ncclGroupEnd(void) {
    cudaError_t code = fake_enter("ncclGroupEnd");
    ncclResult_t result = group_depth > 0 ? ncclSuccess : ncclInvalidUsage;
    group_depth -= group_depth > 0;
    for (unsigned i = 0; i < group_count && group_depth == 0; i++) {
        ncclResult_t one = dispatch(group[i]);
        result = one == ncclSuccess ? result : one;
    }
    group_count = group_depth == 0 ? 0 : group_count;
    fake_leave(code);
    return result;
}
