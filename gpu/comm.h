/* SPDX-License-Identifier: Apache-2.0 */
/* The ranks' communicator over NCCL: gradients are averaged in place, slice by slice, on a stream
 * of their own while the backward pass goes on.
 *
 *   compute  ... dW of bucket 0 | dW of bucket 1 ...                    | update
 *   comm           wait, average bucket 0 | wait, average bucket 1 | ->
 *
 * NCCL is never waited for inside its own calls (blocking = 0): every wait asks for its error.
 *
 * Averages may be recorded: called while compute is captured they become part of its graph, once
 * for all launches. How far the device is, is therefore counted on the device: the event of a
 * recording says nothing of a launch, and must not be asked during a capture. */
#ifndef NNC_GPU_COMM_H
#define NNC_GPU_COMM_H

#include "gpu/device.h"
#include "gpu/kernels.h"

#include <nccl.h>

/* One slice of gradients. */
struct nnc_comm_slice {
    void *values;
    size_t count;
    enum nnc_gpu_type type;
};

/* Slices that are final, and those that are averaged, since open. Pinned memory, written by the
 * device: `ready` from compute, `reduced` from comm. */
struct nnc_comm_counts {
    uint64_t ready, reduced;
};

struct nnc_nccl {
    struct nnc_device *device;
    ncclComm_t comm;                /* NULL: one rank, or aborted */
    void *registration;             /* of the gradients; NULL: none */
    struct nnc_comm_counts *counts; /* borrowed; outlives all queued work */
    cudaEvent_t ready, done;        /* the last slice is final, is averaged */
    bool apart;                     /* compute does not wait for the last averages yet */
};

/* Device memory that a communicator may reduce in place: `collective` asks NCCL for it, which falls
 * back to CUDA's. As nnc_device_reserve(), but not zeroed. */
int nnc_comm_memory(struct nnc_device *device, bool collective, size_t bytes, const char *what,
                    struct nnc_block *block);

/* Takes an empty block. */
void nnc_comm_memory_free(struct nnc_device *device, bool collective, struct nnc_block *block);

/* A new communicator's name. Errors: -NNC_E_COMM. */
int nnc_comm_name(uint8_t ret_id[NNC_COMM_ID_BYTES]);

/* Join, which waits for all ranks. deterministic: leave out algorithms whose bits differ from run
 * to run. comm is zero-filled before, and so are the counts, pinned memory.
 * Owner:  end with nnc_comm_finish(), after an error too.
 * Errors: -NNC_E_COMM, what alive says. */
int nnc_comm_init(struct nnc_nccl *comm, struct nnc_device *device,
                  const struct nnc_backend_params *params, const uint8_t id[NNC_COMM_ID_BYTES],
                  struct nnc_comm_counts *counts);

/* Takes a half-built one; leaves the other ranks without a word when work is still queued. No graph
 * that averages were recorded in is left: NCCL waits for the end of those, without end. */
void nnc_comm_finish(struct nnc_nccl *comm);

/* Let NCCL know the memory of the gradients: a help, no need. Once. */
int nnc_comm_register(struct nnc_nccl *comm, const struct nnc_block *gradients);

/* Queue the average over all ranks of what compute has written into the slice by now.
 * Errors: -NNC_E_COMM, -NNC_E_HARDWARE. */
int nnc_comm_average(struct nnc_nccl *comm, const struct nnc_comm_slice *slice);

/* Let compute wait for all averages queued so far. */
int nnc_comm_join(struct nnc_nccl *comm);

/* Leave because a peer is gone. Does not wait; nothing is reduced any more. No graph is left, as
 * above. */
void nnc_comm_abort(struct nnc_nccl *comm);

/* Slices that are final, and those that are averaged, since open. Never waits, and calls nothing:
 * it may be asked during a capture. */
void nnc_comm_progress(const struct nnc_nccl *comm, uint64_t *ret_ready, uint64_t *ret_reduced);

#endif
