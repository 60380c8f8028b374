/* SPDX-License-Identifier: Apache-2.0 */
/* libnccl.so.2: communicators, their state, memory, words. Collectives: nccl_collective.c. */
#include "tests/gpu/fakecuda/nccl_world.h"

#include "tests/gpu/fakecuda/fakecuda.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

static char last_words[256];

ncclResult_t nccl_fail(struct ncclComm *comm, ncclResult_t code, const char *format, ...) {
    char *words = comm ? comm->words : last_words;
    va_list args;
    va_start(args, format);
    vsnprintf(words, sizeof last_words, format, args);
    va_end(args);
    fprintf(stderr, "fakenccl: %s\n", words);
    return code;
}

void nccl_release(struct ncclComm *comm) {
    if (--comm->uses == 0) {
        nccl_world_detach(comm->world);
        free(comm);
    }
}

/* ---- joining ---- */

ncclResult_t ncclGetVersion(int *version) {
    *version = NCCL_VERSION_CODE;
    return ncclSuccess;
}

ncclResult_t ncclGetUniqueId(ncclUniqueId *id) {
    return nccl_world_create(id) ? ncclSuccess
                                 : nccl_fail(NULL, ncclSystemError, "no memory for the ranks");
}

bool nccl_check_complete(struct ncclComm *comm) {
    if (!comm->complete && (int)atomic_load(&comm->world->joined) == comm->ranks) {
        comm->complete = true;
        nccl_world_complete(&comm->id);
    }
    return comm->complete;
}

static ncclResult_t join(struct ncclComm *comm) {
    int64_t ms = 0;
    comm->world = nccl_world_attach(&comm->id);
    if (!comm->world) {
        return nccl_fail(NULL, ncclSystemError, "rank %d: nobody has this unique id", comm->rank);
    }
    if (fake_take_fault(&ms) != FAKE_HANG) {
        atomic_fetch_add(&comm->world->joined, 1);
    }
    while (comm->blocking && !nccl_check_complete(comm)) {
        fake_nap();
    }
    return comm->blocking ? ncclSuccess : ncclInProgress;
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t *ret_comm, int ranks, ncclUniqueId id, int rank,
                                    ncclConfig_t *config) {
    cudaError_t code = fake_enter("ncclCommInitRank");
    ncclResult_t result = ncclUnhandledCudaError;
    struct ncclComm *comm = code ? NULL : calloc(1, sizeof *comm);
    *ret_comm = NULL;
    if (ranks < 1 || ranks > NCCL_RANKS_MAX || rank < 0 || rank >= ranks ||
        (config && config->magic != 0xcafebeef)) {
        result = nccl_fail(NULL, ncclInvalidArgument, "rank %d of %d", rank, ranks);
    } else if (comm) {
        *comm = (struct ncclComm){.uses = 1,
                                  .id = id,
                                  .rank = rank,
                                  .ranks = ranks,
                                  .device = fake_device(),
                                  .blocking = !config || config->blocking != 0};
        result = join(comm);
    }
    if (result == ncclSuccess || result == ncclInProgress) {
        *ret_comm = comm;
    } else {
        free(comm);
    }
    fake_leave(code);
    return result;
}

ncclResult_t ncclCommInitRank(ncclComm_t *comm, int ranks, ncclUniqueId id, int rank) {
    return ncclCommInitRankConfig(comm, ranks, id, rank, NULL);
}

/* ---- state and end ---- */

/* A thread of the library would be slower than the caller's first look. */
static void queue_held(struct ncclComm *comm) {
    if (comm->held_count == 0 || comm->polls++ == 0) {
        return;
    }
    unsigned count = comm->held_count;
    comm->held_count = 0;
    for (unsigned i = 0; i < count; i++) {
        ncclResult_t result = nccl_submit(comm->held[i]);
        comm->error = comm->error ? comm->error : result;
    }
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t *ret_state) {
    cudaError_t code = fake_enter("ncclCommGetAsyncError");
    int64_t ms = 0;
    if (!code && fake_take_fault(&ms) == FAKE_REMOTE) {
        comm->error = nccl_fail(comm, ncclRemoteError, "a remote rank failed");
    }
    if (code) {
        *ret_state = ncclUnhandledCudaError;
    } else {
        queue_held(comm);
        bool pending = !nccl_check_complete(comm) || comm->held_count > 0 ||
                       (comm->finalizing && (comm->done < comm->queued || comm->in_graphs > 0));
        *ret_state = comm->error ? comm->error : pending ? ncclInProgress : ncclSuccess;
    }
    fake_leave(code);
    return ncclSuccess;
}

ncclResult_t ncclCommFinalize(ncclComm_t comm) {
    cudaError_t code = fake_enter("ncclCommFinalize");
    comm->finalizing = true;
    while (!code && comm->blocking && comm->done < comm->queued && !comm->error) {
        fake_nap();
        fake_schedule();
    }
    fake_leave(code);
    return code ? ncclUnhandledCudaError : comm->blocking ? ncclSuccess : ncclInProgress;
}

static void drop_held(struct ncclComm *comm) {
    for (unsigned i = 0; i < comm->held_count; i++) {
        nccl_drop(comm->held[i]);
    }
    comm->held_count = 0;
}

/* The library waits for the end of each graph that it was recorded in. */
static void check_graphs(const char *function, const struct ncclComm *comm) {
    if (comm->in_graphs > 0) {
        fake_violation("%s: %u collectives are in graphs that were not destroyed: it would not "
                       "return",
                       function, comm->in_graphs);
    }
}

ncclResult_t ncclCommDestroy(ncclComm_t comm) {
    cudaError_t code = fake_enter("ncclCommDestroy");
    check_graphs("ncclCommDestroy", comm);
    drop_held(comm);
    nccl_release(comm);
    fake_leave(code);
    return code ? ncclUnhandledCudaError : ncclSuccess;
}

ncclResult_t ncclCommAbort(ncclComm_t comm) {
    cudaError_t code = fake_enter("ncclCommAbort");
    check_graphs("ncclCommAbort", comm);
    comm->aborted = true;
    drop_held(comm);
    nccl_release(comm);
    fake_leave(code);
    return ncclSuccess;
}

ncclResult_t ncclCommCount(const ncclComm_t comm, int *count) {
    *count = comm->ranks;
    return ncclSuccess;
}

ncclResult_t ncclCommUserRank(const ncclComm_t comm, int *rank) {
    *rank = comm->rank;
    return ncclSuccess;
}

ncclResult_t ncclCommCuDevice(const ncclComm_t comm, int *device) {
    *device = comm->device;
    return ncclSuccess;
}

/* ---- memory ---- */

ncclResult_t ncclMemAlloc(void **memory, size_t bytes) {
    return cudaMalloc(memory, bytes) == cudaSuccess ? ncclSuccess : ncclUnhandledCudaError;
}

ncclResult_t ncclMemFree(void *memory) {
    return cudaFree(memory) == cudaSuccess ? ncclSuccess : ncclUnhandledCudaError;
}

ncclResult_t ncclCommRegister(const ncclComm_t comm, void *memory, size_t bytes, void **handle) {
    cudaError_t code = fake_enter("ncclCommRegister");
    bool live = fake_memory_check("ncclCommRegister", comm->device, memory, bytes);
    *handle = live && !code ? memory : NULL;
    fake_leave(code);
    return *handle ? ncclSuccess : ncclInvalidArgument;
}

ncclResult_t ncclCommDeregister(const ncclComm_t comm, void *handle) {
    return comm && handle ? ncclSuccess : ncclInvalidArgument;
}

/* ---- words ---- */

const char *ncclGetErrorString(ncclResult_t code) {
    static const char *const texts[ncclNumResults] = {
        [ncclSuccess] = "no error",
        [ncclUnhandledCudaError] = "unhandled cuda error",
        [ncclSystemError] = "unhandled system error",
        [ncclInternalError] = "internal error",
        [ncclInvalidArgument] = "invalid argument",
        [ncclInvalidUsage] = "invalid usage",
        [ncclRemoteError] = "remote process exited or there was a network error",
        [ncclInProgress] = "NCCL operation in progress",
    };
    return code < ncclNumResults ? texts[code] : "unknown result code";
}

const char *ncclGetLastError(ncclComm_t comm) {
    return comm ? comm->words : last_words;
}
