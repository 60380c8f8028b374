/* SPDX-License-Identifier: Apache-2.0 */
/* NCCL without ever waiting inside it; see comm.h.
 *
 * Invariants: (1) after each call the communicator is settled, NCCL's word for "no longer in
 * progress", before the next call; (2) all ranks queue the same slices in the same order; (3) after
 * an error only abort and finish are called.
 *
 * What it does not do: recover. The coordinator restarts all ranks.
 * Source: NCCL user guide, "Fault tolerance", "User buffer registration". */
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
    cudaError_t error = cudaSuccess;
    for (int number = 0; error == cudaSuccess && number < NNC_COMM_RECENT; number++) {
        error = cudaEventCreateWithFlags(&comm->ready[number], cudaEventDisableTiming);
        if (error == cudaSuccess) {
            error = cudaEventCreateWithFlags(&comm->done[number], cudaEventDisableTiming);
        }
    }
    return nnc_device_check(error, "events of the communicator");
}

int nnc_comm_init(struct nnc_nccl *comm, struct nnc_device *device,
                  const struct nnc_backend_params *params, const uint8_t id[NNC_COMM_ID_BYTES]) {
    assert(params->rank < params->ranks && !comm->comm);
    comm->device = device;
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
    for (int number = 0; number < NNC_COMM_RECENT; number++) {
        if (comm->ready[number]) {
            cudaEventDestroy(comm->ready[number]);
        }
        if (comm->done[number]) {
            cudaEventDestroy(comm->done[number]);
        }
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
    cudaStream_t stream = comm->device->stream[NNC_STREAM_COMM];
    uint32_t place = comm->queued % NNC_COMM_RECENT;
    int rc =
        nnc_device_order(comm->device, NNC_STREAM_COMM, NNC_STREAM_COMPUTE, comm->ready[place]);
    if (rc < 0) {
        return rc;
    }
    ncclResult_t result = ncclAllReduce(slice->values, slice->values, slice->count,
                                        types[slice->type], ncclAvg, comm->comm, stream);
    rc = settle(comm, result, "average of gradients");
    if (rc == 0) {
        rc = nnc_device_check(cudaEventRecord(comm->done[place], stream), "end of a reduction");
    }
    comm->queued += rc == 0;
    return rc;
}

int nnc_comm_join(struct nnc_nccl *comm) {
    if (!comm->comm || comm->queued == 0) {
        return 0;
    }
    cudaEvent_t last = comm->done[(comm->queued - 1) % NNC_COMM_RECENT];
    return nnc_device_check(cudaStreamWaitEvent(comm->device->stream[NNC_STREAM_COMPUTE], last, 0),
                            "end of a reduction");
}

/* How many of the recordings have happened. They do in order: from the newest back, up to one that
 * has. */
static uint64_t happened(const cudaEvent_t events[NNC_COMM_RECENT], uint64_t queued) {
    uint64_t pending = 0;
    while (pending < NNC_COMM_RECENT && pending < queued &&
           cudaEventQuery(events[(queued - 1 - pending) % NNC_COMM_RECENT]) != cudaSuccess) {
        cudaGetLastError();
        pending++;
    }
    return queued - pending;
}

void nnc_comm_progress(const struct nnc_nccl *comm, uint64_t *ret_ready, uint64_t *ret_reduced) {
    *ret_ready = happened(comm->ready, comm->queued);
    *ret_reduced = happened(comm->done, comm->queued);
}
