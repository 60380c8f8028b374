/* SPDX-License-Identifier: Apache-2.0 */
/* NCCL without ever waiting inside it; see comm.h.
 *
 * Invariants: (1) after each call the communicator is settled, NCCL's word for "no longer in
 * progress", before the next call; (2) all ranks queue the same slices in the same order, and
 * record the same; (3) after an error only abort and finish are called; (4) graphs with averages in
 * them are destroyed before the communicator.
 *
 * Recorded averages rest on this:
 *   - Recording a collective, and launching its graph, is something that all ranks of the
 *     communicator do or none does; the graphs come of the same recording. (NCCL user guide, "Using
 *     NCCL with CUDA Graphs".) exec.c sees to it.
 *   - Recorded and queued collectives may follow each other (the same page;
 * NCCL_GRAPH_MIXING_SUPPORT is on unless someone turns it off, and here they never overlap). Graphs
 * of several communicators launched by one thread may deadlock: a process has one.
 *   - A communicator that does not block calls CUDA from a thread of its own, whose calls end up in
 *     the capture that the stream is in. A thread-local capture forbids that thread nothing, and
 *     its last call has come when the communicator is settled: (1) keeps the recording in order.
 *     (CUDA Runtime API, cudaStreamBeginCapture, cudaThreadExchangeStreamCaptureMode.)
 *   - Memory that the communicator knows (ncclCommRegister) may be recorded; what NCCL itself
 *     registers for a graph lives as long as the graph. (The guide, "User Buffer Registration".)
 *   - Each recorded collective holds the communicator: finalize, destroy and abort wait for the
 *     graph's end (localPersistentRefs in NCCL's init.cc and enqueue.cc). An executable graph that
 *     is destroyed while it runs is freed when it ends (CUDA Runtime API, cudaGraphExecDestroy),
 *     which an abort brings about, as it stops kernels first. So graphs go first, in any case.
 *
 * What it does not do: recover. The coordinator restarts all ranks.
 * Source: NCCL user guide, "Fault tolerance", "User buffer registration", "Using NCCL with CUDA
 * Graphs"; NCCL 2.28, src/init.cc, src/enqueue.cc. */
#include "gpu/comm.h"

#include "base/clock.h"
#include "base/err.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static_assert(NNC_COMM_ID_BYTES == NCCL_UNIQUE_ID_BYTES, "an id is NCCL's");

enum {
    /* Thread blocks that a reduction takes from the backward pass. */
    CTAS_MAX = 8,
    PAUSE_NS = 200 * 1000,
};

/* For the other ranks to say goodbye too. */
static const uint64_t leave_ns = 2ull * 1000 * 1000 * 1000;

int nnc_comm_memory(struct nnc_device *device, bool collective, size_t bytes, const char *what,
                    struct nnc_block *block) {
    if (!collective) {
        return nnc_device_reserve(device, bytes, what, block);
    }
    void *memory = NULL;
    ncclResult_t result = ncclMemAlloc(&memory, bytes > 0 ? bytes : 1);
    if (result != ncclSuccess) {
        return nnc_fail(-ENOMEM,
                        "no room on GPU %d for %zu bytes of %s (%s); a smaller "
                        "--batch-size needs less",
                        device->ordinal, bytes, what, ncclGetErrorString(result));
    }
    *block = (struct nnc_block){memory, bytes};
    device->bytes += bytes;
    return 0;
}

void nnc_comm_memory_free(struct nnc_device *device, bool collective, struct nnc_block *block) {
    if (!collective || !block->memory) {
        nnc_device_free(device, block);
        return;
    }
    ncclMemFree(block->memory);
    device->bytes -= block->bytes;
    *block = (struct nnc_block){0};
}

static int fail_nccl(ncclComm_t comm, ncclResult_t result, const char *what) {
    const char *detail = ncclGetLastError(comm);
    return nnc_fail(-NNC_E_COMM, "%s: NCCL says %s%s%s", what, ncclGetErrorString(result),
                    detail && *detail ? ": " : "", detail ? detail : "");
}

int nnc_comm_name(uint8_t ret_id[NNC_COMM_ID_BYTES]) {
    ncclUniqueId id;
    ncclResult_t result = ncclGetUniqueId(&id);
    if (result != ncclSuccess) {
        return fail_nccl(NULL, result, "name of a communicator");
    }
    memcpy(ret_id, &id, sizeof(id));
    return 0;
}

/* What the communicator says: 0 fine, 1 in progress, or an error. */
static int look(const struct nnc_nccl *comm) {
    ncclResult_t state = ncclSuccess;
    ncclResult_t result = ncclCommGetAsyncError(comm->comm, &state);
    if (result != ncclSuccess || (state != ncclSuccess && state != ncclInProgress)) {
        return fail_nccl(comm->comm, result != ncclSuccess ? result : state,
                         "a rank or the way to it failed");
    }
    return state == ncclInProgress;
}

/* `peers` of the device. */
static int ask_peers(void *context) {
    const struct nnc_nccl *comm = context;
    return comm->comm ? look(comm) : 0;
}

/* Wait until the last call, which gave `result`, is no longer in progress. */
static int settle(const struct nnc_nccl *comm, ncclResult_t result, const char *what) {
    const struct nnc_device *device = comm->device;
    if (result != ncclSuccess && result != ncclInProgress) {
        return fail_nccl(comm->comm, result, what);
    }
    int state = look(comm);
    while (state == 1) {
        int rc = device->alive ? device->alive(device->context) : 0;
        if (rc < 0) {
            return rc;
        }
        nnc_clock_sleep_ns(PAUSE_NS);
        state = look(comm);
    }
    return state < 0 ? nnc_fail_in(state, "%s", what) : 0;
}

static int make_events(struct nnc_nccl *comm) {
    cudaError_t error = cudaEventCreateWithFlags(&comm->ready, cudaEventDisableTiming);
    if (error == cudaSuccess) {
        error = cudaEventCreateWithFlags(&comm->done, cudaEventDisableTiming);
    }
    return nnc_device_check(error, "events of the communicator");
}

int nnc_comm_init(struct nnc_nccl *comm, struct nnc_device *device,
                  const struct nnc_backend_params *params, const uint8_t id[NNC_COMM_ID_BYTES],
                  struct nnc_comm_counts *counts) {
    assert(params->rank < params->ranks && !comm->comm);
    comm->device = device;
    comm->counts = counts;
    if (params->device.deterministic) {
        /* Sums inside a switch have no fixed order. Whoever set it knows better. */
        setenv("NCCL_ALGO", "^NVLS", 0);
    }
    ncclUniqueId name;
    memcpy(&name, id, sizeof(name));
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    config.maxCTAs = CTAS_MAX;
    int rc = make_events(comm);
    if (rc < 0) {
        return rc;
    }
    ncclResult_t result =
        ncclCommInitRankConfig(&comm->comm, (int)params->ranks, name, (int)params->rank, &config);
    if (!comm->comm) {
        return fail_nccl(NULL, result, "the ranks cannot join");
    }
    rc = settle(comm, result, "the ranks cannot join");
    if (rc == 0) {
        device->peers = ask_peers;
        device->peers_context = comm;
    }
    return rc;
}

void nnc_comm_abort(struct nnc_nccl *comm) {
    if (comm->comm) {
        ncclCommAbort(comm->comm);
        comm->comm = NULL;
    }
}

/* Leave in good order: true when all ranks did so in time. */
static bool leave(struct nnc_nccl *comm) {
    if (comm->registration) {
        ncclCommDeregister(comm->comm, comm->registration);
    }
    uint64_t deadline = nnc_clock_ns() + leave_ns;
    ncclResult_t result = ncclCommFinalize(comm->comm);
    int state = result == ncclSuccess || result == ncclInProgress ? look(comm) : -NNC_E_COMM;
    while (state == 1 && nnc_clock_ns() < deadline) {
        nnc_clock_sleep_ns(PAUSE_NS);
        state = look(comm);
    }
    return state == 0 && ncclCommDestroy(comm->comm) == ncclSuccess;
}

void nnc_comm_finish(struct nnc_nccl *comm) {
    if (comm->comm && leave(comm)) {
        comm->comm = NULL;
    }
    nnc_comm_abort(comm);
    if (comm->ready) {
        cudaEventDestroy(comm->ready);
    }
    if (comm->done) {
        cudaEventDestroy(comm->done);
    }
    *comm = (struct nnc_nccl){0};
}

int nnc_comm_register(struct nnc_nccl *comm, const struct nnc_block *gradients) {
    if (!comm->comm || comm->registration || !gradients->memory) {
        return 0;
    }
    ncclResult_t result =
        ncclCommRegister(comm->comm, gradients->memory, gradients->bytes, &comm->registration);
    if (result != ncclSuccess && result != ncclInProgress) {
        comm->registration = NULL; /* other transports copy once more */
        return 0;
    }
    return settle(comm, result, "registration of the gradients");
}

int nnc_comm_average(struct nnc_nccl *comm, const struct nnc_comm_slice *slice) {
    static const ncclDataType_t types[NNC_GPU_TYPE_COUNT] = {
        [NNC_GPU_F32] = ncclFloat32,
        [NNC_GPU_BF16] = ncclBfloat16,
        [NNC_GPU_F16] = ncclFloat16,
    };
    if (!comm->comm) {
        return nnc_fail(-NNC_E_COMM, "the communicator was left");
    }
    struct nnc_device *device = comm->device;
    cudaStream_t stream = device->stream[NNC_STREAM_COMM];
    int rc = nnc_gpu_count(device->stream[NNC_STREAM_COMPUTE], &comm->counts->ready);
    if (rc == 0) {
        rc = nnc_device_order(device, NNC_STREAM_COMM, NNC_STREAM_COMPUTE, comm->ready);
    }
    if (rc < 0) {
        return rc;
    }
    ncclResult_t result = ncclAllReduce(slice->values, slice->values, slice->count,
                                        types[slice->type], ncclAvg, comm->comm, stream);
    rc = settle(comm, result, "average of gradients");
    if (rc == 0) {
        rc = nnc_gpu_count(stream, &comm->counts->reduced);
    }
    if (rc == 0) {
        rc = nnc_device_check(cudaEventRecord(comm->done, stream), "end of a reduction");
    }
    comm->apart = true;
    return rc;
}

int nnc_comm_join(struct nnc_nccl *comm) {
    /* An event of a recording must not be waited for outside of it, nor the other way round: only
     * what was averaged since the last time. */
    if (!comm->comm || !comm->apart) {
        return 0;
    }
    comm->apart = false;
    cudaStream_t compute = comm->device->stream[NNC_STREAM_COMPUTE];
    return nnc_device_check(cudaStreamWaitEvent(compute, comm->done, 0), "end of a reduction");
}

void nnc_comm_progress(const struct nnc_nccl *comm, uint64_t *ret_ready, uint64_t *ret_reduced) {
    /* Relaxed: the numbers alone count. */
    *ret_ready = comm->counts ? __atomic_load_n(&comm->counts->ready, __ATOMIC_RELAXED) : 0;
    *ret_reduced = comm->counts ? __atomic_load_n(&comm->counts->reduced, __ATOMIC_RELAXED) : 0;
}
