/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the CUDA backend share: its state and that of an executable.
 *
 *   plugin.c        the table, open and close
 *   exec_compile.c  memory of a program, its plans
 *   exec_ops.c      each operation: what it needs, what it queues
 *   exec_product.c  those that a library does
 *   exec.c          a step as a whole
 *
 * Addresses of tensors are offsets in one arena that all executables share, resolved when an
 * operation is queued: the arena may move when a larger program is compiled. */
#ifndef NNC_GPU_EXEC_H
#define NNC_GPU_EXEC_H

#include "gpu/comm.h"
#include "gpu/device.h"
#include "gpu/dnn.h"
#include "gpu/feed.h"
#include "gpu/linear.h"
#include "gpu/plans.h"
#include "gpu/state.h"

/* Queued work that the host will hear of: steps, evaluations, updates. Two of each may be under way
 * in training. */
#define NNC_FLIGHTS 4

/* Pinned memory of a flight: what it gives to the device and gets from it. */
struct nnc_flight_host {
    struct nnc_gpu_step step;
    struct nnc_gpu_metrics metrics;
    struct nnc_gpu_scaler scaler;
};

struct nnc_flight {
    struct nnc_flight_host *host;
    cudaEvent_t done;
    bool counted; /* metrics were copied */
    bool updated; /* the scaler was */
};

struct nnc_backend {
    struct nnc_backend_params params;
    enum nnc_gpu_type type; /* of tensors and products */
    struct nnc_device device;
    struct nnc_gpu_state state;
    struct nnc_dnn_device *dnn;
    struct nnc_gpu_plans plans;
    cublasLtHandle_t blas;
    struct nnc_nccl comm;
    struct nnc_feeds feeds;
    struct nnc_block arena, workspace;
    uint64_t generation; /* counts moves of arena and workspace: recorded graphs are stale then */
    struct nnc_executable *executables; /* all of them */
    uint32_t full_batch;                /* of the largest training program */
    /* struct nnc_gpu_step of steps and of updates, struct nnc_gpu_metrics. */
    struct nnc_block step_values, update_values, step_metrics;
    struct nnc_flight flight[NNC_FLIGHTS];
    uint64_t begun, ended; /* flights since open */
    struct nnc_metrics metrics;
    /* Matrix gradients of each bucket of the training programs, cut alike in all, then all vectors.
     */
    struct nnc_comm_slice *slices;
    uint32_t bucket_count;
    struct nnc_comm_counts *counts; /* of the communicator */
};

/* What an operation has beside its place in the program. */
struct nnc_exec_op {
    const struct nnc_dnn_plan *plan[2]; /* CONV: forward; or backward data, filter. Of `plans` */
    struct nnc_linear *linear[2];       /* LINEAR: the same */
    bool bias_done, act_done;           /* by the product itself */
    size_t saved;                       /* forward: offset of what its backward needs */
};

struct nnc_executable {
    struct nnc_backend *backend;
    const struct nnc_program *program;
    struct nnc_exec_op *ops; /* by operation */
    size_t *offset;          /* by tensor, in the arena */
    size_t labels, scratch;  /* in the arena */
    size_t arena_bytes, workspace_bytes;
    struct nnc_feed_shape feed;
    cudaGraphExec_t graph; /* of a whole step but its input; NULL: not recorded */
    uint64_t graph_generation;
    bool warm;                   /* a step that could have been recorded was queued */
    bool alone;                  /* the step that is queued now sums over no ranks */
    struct nnc_executable *next; /* of the backend's */
};

/* What one kind of operation does in one pass. All but run may be NULL. */
struct nnc_exec_kind {
    /* Bytes that live from the forward operation to its backward one, and only during one. */
    size_t (*saved)(const struct nnc_executable *exe, const struct nnc_op *op);
    size_t (*scratch)(const struct nnc_executable *exe, const struct nnc_op *op);
    /* Choose algorithms; refuse what cannot be done. */
    int (*prepare)(struct nnc_executable *exe, const struct nnc_op *op);
    /* Queue the operation on compute. */
    int (*run)(const struct nnc_executable *exe, const struct nnc_op *op);
};

/* The row of an operation. */
const struct nnc_exec_kind *nnc_exec_kind_of(const struct nnc_op *op);

/* Rows of exec_product.c. */
extern const struct nnc_exec_kind nnc_exec_conv, nnc_exec_conv_backward;
extern const struct nnc_exec_kind nnc_exec_linear, nnc_exec_linear_backward;

/* Shape of a tensor in memory, and its bytes. */
struct nnc_gpu_tensor nnc_exec_shape(const struct nnc_executable *exe, int32_t tensor);
size_t nnc_exec_bytes(const struct nnc_executable *exe, int32_t tensor);

/* Where a tensor, or an offset in the arena, is at present; NULL for tensor -1. */
void *nnc_exec_tensor(const struct nnc_executable *exe, int32_t tensor);
void *nnc_exec_at(const struct nnc_executable *exe, size_t offset);

/* The stream of all operations. */
cudaStream_t nnc_exec_stream(const struct nnc_executable *exe);

/* Multiply dy by the derivative of op's activation, in place: nobody else reads it (program.h,
 * rule 2). Nothing where there is none. */
int nnc_exec_undo_act(const struct nnc_executable *exe, const struct nnc_op *op);

/* A block of the backend that holds at least `bytes`; waits for the device when it must move. */
int nnc_exec_reserve(struct nnc_backend *backend, size_t bytes, const char *what,
                     struct nnc_block *block);

/* End the flights that are done, or wait for all there are. Metrics add up.
 * Errors: -NNC_E_NUMERIC a gradient was not finite, where no loss scale could be the reason. */
int nnc_exec_land(struct nnc_backend *backend, bool wait);

/* Functions that stand in the backend's table; see workers/backend.h. */
int nnc_exec_compile(struct nnc_backend *backend, const struct nnc_program *program,
                     struct nnc_executable **ret_executable);
void nnc_exec_release(struct nnc_executable *exe);
int nnc_exec_feed(struct nnc_executable *exe, const struct nnc_feed *feed);
int nnc_exec_step(struct nnc_executable *exe, const struct nnc_step_params *params);
int nnc_exec_evaluate(struct nnc_executable *exe);

/* Drop what was recorded: the communicator comes or goes. Each executable starts as if it had never
 * run. */
void nnc_exec_forget(struct nnc_backend *backend);
int nnc_exec_logits(struct nnc_executable *exe, float *ret_logits);
int nnc_exec_update(struct nnc_backend *backend, const struct nnc_sgd *sgd);
int nnc_exec_zero_gradients(struct nnc_backend *backend);

#endif
