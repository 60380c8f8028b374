/* SPDX-License-Identifier: Apache-2.0 */
/* A model on a backend: graphs, backend, programs for all batch counts that a schedule has, and the
 * weights as one run of floats. Knows no processes, rings or files but weights files. */
#ifndef NNC_WORKERS_ENGINE_H
#define NNC_WORKERS_ENGINE_H

#include "base/vfs.h"
#include "ipc/setup.h"
#include "workers/backend.h"
#include "workers/comm.h"

#include <stddef.h>
#include <stdint.h>

struct nnc_engine;

/* The model of a setup as a graph for one phase: its channels and crop, the data set's classes. In
 * synthetic modes config.input counts first.
 * Owner:  free with nnc_graph_destroy(). Errors: as nnc_graph_create(). */
int nnc_engine_graph(const struct nnc_setup *setup, enum nnc_phase phase,
                     struct nnc_graph **ret_graph);

struct nnc_engine_params {
    const struct nnc_setup *setup; /* borrowed for the engine's life */
    /* Through it rank 0 tells the others which algorithms their devices are to run: then all ranks
     * create at the same time. NULL: each chooses for itself. */
    struct nnc_comm *comm;
    /* Called while a device is waited for, as struct nnc_backend_params has it. May be NULL. */
    int (*alive)(void *context);
    void *context;
};

/* Build graphs, open the backend and compile a program for every number of samples that this rank's
 * batches have. Weights are zero. The backend is CUDA where the setup gives this rank a device.
 * Owner:  free with nnc_engine_destroy().
 * Errors: -NNC_E_USAGE model or backend; -ENOMEM; what the backend says. */
int nnc_engine_create(const struct nnc_engine_params *params, struct nnc_engine **ret_engine);

/* Takes NULL. */
void nnc_engine_destroy(struct nnc_engine *engine);

/* The training graph (the validation graph where nothing is trained); parameters are the same in
 * both. */
const struct nnc_graph *nnc_engine_model(const struct nnc_engine *engine);

/* The backend's table and state; they stay the engine's. */
const struct nnc_backend_ops *nnc_engine_ops(const struct nnc_engine *engine);
struct nnc_backend *nnc_engine_backend(const struct nnc_engine *engine);

/* Input of a phase: what one sample in the ring must have. */
struct nnc_shape nnc_engine_input(const struct nnc_engine *engine, enum nnc_phase phase);

/* The executable for a batch of `count` samples, count >= 1; it was compiled by create (assert). */
struct nnc_executable *nnc_engine_executable(const struct nnc_engine *engine, enum nnc_phase phase,
                                             uint32_t count);

/* Reduction buckets of the training programs, all of the same cut. 0 without training. */
uint32_t nnc_engine_bucket_count(const struct nnc_engine *engine);

/* Floats of the state: nnc_state_floats() of the model. */
size_t nnc_engine_floats(const struct nnc_engine *engine);

/* Copy values, buffers and momentum out of or into the backend, order of nnc_state_floats().
 * Errors: what the backend says. */
int nnc_engine_get(const struct nnc_engine *engine, float *ret_tensors);
int nnc_engine_set(const struct nnc_engine *engine, const float *tensors);

/* Starting values from the seed, momentum zero. */
void nnc_engine_init(const struct nnc_engine *engine, uint64_t seed, float *ret_tensors);

/* Whether nnc_engine_load_weights() would find a file that fits; reads no values. Errors: its. */
int nnc_engine_check_weights(const struct nnc_graph *graph, struct nnc_vfs *vfs, const char *path,
                             bool strict);

/* Put the weights of a safetensors file over tensors[]; momentum stays. *ret_report (owner: caller
 * frees) tells what was left out, "" when nothing. Errors: -NNC_E_USAGE with the report when the
 * file does not fit; -NNC_E_FORMAT. */
int nnc_engine_load_weights(const struct nnc_engine *engine, struct nnc_vfs *vfs, const char *path,
                            bool strict, float *tensors, char **ret_report);

/* SHA-256 of the values in the backend. Errors: -ENOMEM; what the backend says. */
int nnc_engine_weights_sha256(const struct nnc_engine *engine, char ret_hex[65]);

/* Bytes that one trainer of this setup will need, before anything is built: parameters, gradients,
 * momentum and activations of the largest programs. An estimate for refusing runs that cannot fit.
 */
int nnc_engine_estimate(const struct nnc_setup *setup, uint64_t *ret_bytes);

#endif
