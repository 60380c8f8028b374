/* SPDX-License-Identifier: Apache-2.0 */
/* The ranks' communicator over NCCL: gradients are averaged in place, slice by slice, on a stream
 * of their own while the backward pass goes on.
 *
 *   compute  ... dW of bucket 0 | dW of bucket 1 ...                    | update
 *   comm           wait, average bucket 0 | wait, average bucket 1 | ->
 *
 * NCCL is never waited for inside its own calls (blocking = 0): every wait asks for its error. */
#ifndef NNC_GPU_COMM_H
#define NNC_GPU_COMM_H

#include "gpu/device.h"
#include "gpu/kernels.h"

#include <nccl.h>

/* So many of the latest reductions are told apart. */
#define NNC_COMM_RECENT 64

/* One slice of gradients. */
struct nnc_comm_slice {
    void *values;
    size_t count;
    enum nnc_gpu_type type;
};

struct nnc_nccl {
    struct nnc_device *device;
    ncclComm_t comm;    /* NULL: one rank, or aborted */
    void *registration; /* of the gradients; NULL: none */
    /* Entry r % NNC_COMM_RECENT is of reduction r: its slice is final, it is averaged. */
    cudaEvent_t ready[NNC_COMM_RECENT], done[NNC_COMM_RECENT];
    uint64_t queued; /* reductions since open */
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
 * to run. comm is zero-filled before.
 * Owner:  end with nnc_comm_finish(), after an error too.
 * Errors: -NNC_E_COMM, what alive says. */
int nnc_comm_init(struct nnc_nccl *comm, struct nnc_device *device,
                  const struct nnc_backend_params *params, const uint8_t id[NNC_COMM_ID_BYTES]);

/* Takes a half-built one; leaves the other ranks without a word when work is still queued. */
void nnc_comm_finish(struct nnc_nccl *comm);

/* Let NCCL know the memory of the gradients: a help, no need. Once. */
int nnc_comm_register(struct nnc_nccl *comm, const struct nnc_block *gradients);

/* Queue the average over all ranks of what compute has written into the slice by now.
 * Errors: -NNC_E_COMM, -NNC_E_HARDWARE. */
int nnc_comm_average(struct nnc_nccl *comm, const struct nnc_comm_slice *slice);

/* Let compute wait for all averages queued so far. */
int nnc_comm_join(struct nnc_nccl *comm);

/* Leave because a peer is gone. Does not wait; nothing is reduced any more. */
void nnc_comm_abort(struct nnc_nccl *comm);

/* Slices that are final, and those that are averaged, since open. Never waits. */
void nnc_comm_progress(const struct nnc_nccl *comm, uint64_t *ret_ready, uint64_t *ret_reduced);

#endif
