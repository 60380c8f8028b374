/* SPDX-License-Identifier: Apache-2.0 */
/* One GPU: its streams, its memory and the only way to wait for it.
 *
 * A wait asks the device again and again, with sleeps in between, and each time asks the caller's
 * `alive` and the communicator whether waiting still makes sense. Nothing here blocks in the
 * driver while work is queued: a collective whose peer has died would never let it return. */
#ifndef NNC_GPU_DEVICE_H
#define NNC_GPU_DEVICE_H

#include "workers/backend.h"

#include <cuda_runtime_api.h>

/* Compute capabilities, 10 * major + minor: the least that kernels are built for, and with bf16. */
#define NNC_DEVICE_CAPABILITY_MIN  75
#define NNC_DEVICE_CAPABILITY_BF16 80

/* Offsets of whatever libraries read are multiples of this: what cuBLASLt assumes. */
#define NNC_DEVICE_ALIGNMENT 256

enum nnc_stream {
    NNC_STREAM_COMPUTE, /* everything that has no stream of its own */
    NNC_STREAM_COPY,    /* batches to the device */
    NNC_STREAM_COMM,    /* reductions, before all else */
    NNC_STREAM_COUNT,
};

struct nnc_device {
    int ordinal;
    uint32_t capability; /* 10 * major + minor */
    cudaStream_t stream[NNC_STREAM_COUNT];
    cudaEvent_t mark[NNC_STREAM_COUNT]; /* for waits for a whole stream */
    size_t bytes;                       /* of device memory in use */
    int (*alive)(void *context);        /* as in struct nnc_backend_params */
    void *context;
    /* Asked in every slice of a wait too: what the communicator has to say. May be NULL. */
    int (*peers)(void *peers_context);
    void *peers_context;
};

/* Device memory. */
struct nnc_block {
    void *memory; /* NULL: none */
    size_t bytes;
};

/* The devices of this machine that can be used; see struct nnc_device_ops. */
void nnc_device_list(struct nnc_devices *ret_devices);

/* 0, or -NNC_E_HARDWARE (-ENOMEM where memory is out) with `what` and CUDA's name and words. */
int nnc_device_check(cudaError_t error, const char *what);

/* Take the device that params name, with its streams.
 * Owner:  end with nnc_device_finish(), after an error too; device is zero-filled before.
 * Errors: -NNC_E_USAGE no such device; -NNC_E_HARDWARE. */
int nnc_device_init(struct nnc_device *device, const struct nnc_backend_params *params);

/* Takes a half-built one. All blocks were freed before. */
void nnc_device_finish(struct nnc_device *device);

/* Zeroed device memory, at least one byte; `what` names it in errors. A block that exists and is
 * large enough stays as it is, another one is freed first: nothing may use it any more.
 * Errors: -ENOMEM, naming what would help; -NNC_E_HARDWARE. */
int nnc_device_reserve(struct nnc_device *device, size_t bytes, const char *what,
                       struct nnc_block *block);

/* Takes an empty block. Nothing may use it any more. */
void nnc_device_free(struct nnc_device *device, struct nnc_block *block);

/* Zeroed host memory that the device copies from and to without waiting. Owner: cudaFreeHost(). */
int nnc_device_host_alloc(size_t bytes, void **ret_memory);

/* 1: the event has happened, 0: not yet; or what went wrong on the device. Never waits. */
int nnc_device_query(cudaEvent_t event);

/* Wait for the event. Errors: -NNC_E_HARDWARE; what alive or the communicator says. */
int nnc_device_wait(struct nnc_device *device, cudaEvent_t event);

/* Wait for one stream, or for all. Errors: as nnc_device_wait(). */
int nnc_device_wait_stream(struct nnc_device *device, enum nnc_stream stream);
int nnc_device_wait_all(struct nnc_device *device);

/* Ask all streams and the peers without waiting; not while a stream is recorded. Errors: of what
 * was queued; of a peer. */
int nnc_device_look(struct nnc_device *device);

/* Whether freeing memory cannot block: the device gets idle, or fails, within some seconds,
 * whatever alive says. */
bool nnc_device_drain(struct nnc_device *device);

/* Let `stream` wait for what `on` has been given so far; `event` is recorded for that. Never waits
 * itself. */
int nnc_device_order(struct nnc_device *device, enum nnc_stream stream, enum nnc_stream on,
                     cudaEvent_t event);

/* Copy between host and device when all that was queued for compute is done. */
int nnc_device_copy(struct nnc_device *device, void *to, const void *from, size_t bytes);

#endif
