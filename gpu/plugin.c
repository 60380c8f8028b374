/* SPDX-License-Identifier: Apache-2.0 */
/* The backend's table and what a plug-in exports.
 *
 *   open    device, state, cuDNN, cuBLASLt, places of batches, flights
 *   close   waits some seconds for the device; memory that it may still use is left to the end of
 *           the process, because freeing it would wait without end
 *
 * What it does not do: decide when a plug-in is loaded (the trainer does). */
#include "gpu/plugin.h"
#include "base/config.h"
#include "base/err.h"
#include "gpu/exec.h"
#include "ipc/setup.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void cuda_close(struct nnc_backend *backend);

/* The last one whose device did not get idle: what it owns is still in use, not lost. */
static struct nnc_backend *volatile abandoned;

/* The type that tensors have under an --amp. */
static int choose_type(const struct nnc_device *device, int32_t amp, enum nnc_gpu_type *ret_type) {
    static const enum nnc_gpu_type types[] = {
        [NNC_AMP_AUTO] = NNC_GPU_BF16,
        [NNC_AMP_OFF] = NNC_GPU_F32,
        [NNC_AMP_BF16] = NNC_GPU_BF16,
        [NNC_AMP_FP16] = NNC_GPU_F16,
    };
    assert(amp >= 0 && (size_t)amp < sizeof(types) / sizeof(types[0]));
    bool has_bf16 = device->capability >= NNC_DEVICE_CAPABILITY_BF16;
    if (amp == NNC_AMP_BF16 && !has_bf16) {
        return nnc_fail(-NNC_E_USAGE,
                        "GPU %d has compute capability %u.%u and no bf16 (8.0 has): use --amp fp16",
                        device->ordinal, device->capability / 10, device->capability % 10);
    }
    *ret_type = amp == NNC_AMP_AUTO && !has_bf16 ? NNC_GPU_F16 : types[amp];
    return 0;
}

static int open_libraries(struct nnc_backend *backend) {
    const struct nnc_device_params *params = &backend->params.device;
    const struct nnc_dnn_policy policy = {
        .deterministic = params->deterministic,
        .workspace_cap = params->workspace_bytes,
        .autotune = params->autotune,
    };
    int rc = nnc_dnn_open(backend->device.ordinal, &backend->dnn);
    if (rc == 0) {
        rc = nnc_gpu_plans_init(&backend->plans, backend->dnn, &policy, params->cache_dir);
    }
    return rc < 0 ? rc : nnc_linear_check(cublasLtCreate(&backend->blas), "cuBLASLt");
}

static int make_flights(struct nnc_backend *backend) {
    struct nnc_device *device = &backend->device;
    int rc = nnc_device_reserve(device, sizeof(struct nnc_gpu_step), "step values",
                                &backend->step_values);
    if (rc == 0) {
        rc = nnc_device_reserve(device, sizeof(struct nnc_gpu_step), "step values",
                                &backend->update_values);
    }
    if (rc == 0) {
        rc = nnc_device_reserve(device, sizeof(struct nnc_gpu_metrics), "metrics",
                                &backend->step_metrics);
    }
    for (int number = 0; rc == 0 && number < NNC_FLIGHTS; number++) {
        struct nnc_flight *flight = &backend->flight[number];
        void *host = NULL;
        rc = nnc_device_host_alloc(sizeof(*flight->host), &host);
        flight->host = host;
        if (rc == 0) {
            rc = nnc_device_check(cudaEventCreateWithFlags(&flight->done, cudaEventDisableTiming),
                                  "event of a step");
        }
    }
    return rc;
}

static int make_counts(struct nnc_backend *backend) {
    void *counts = NULL;
    int rc = nnc_device_host_alloc(sizeof(*backend->counts), &counts);
    backend->counts = counts;
    return rc;
}

static int build(struct nnc_backend *backend) {
    const struct nnc_backend_params *params = &backend->params;
    int rc = nnc_device_init(&backend->device, params);
    if (rc == 0) {
        rc = choose_type(&backend->device, params->device.amp, &backend->type);
    }
    if (rc == 0) {
        rc = nnc_gpu_state_init(&backend->state, params->graph, backend->type, params->ranks,
                                &backend->device);
    }
    if (rc == 0) {
        rc = open_libraries(backend);
    }
    if (rc == 0) {
        rc = nnc_feeds_init(&backend->feeds, &backend->device);
    }
    if (rc == 0) {
        rc = make_flights(backend);
    }
    return rc < 0 ? rc : make_counts(backend);
}

static int cuda_open(const struct nnc_backend_params *params, struct nnc_backend **ret_backend) {
    struct nnc_backend *backend = calloc(1, sizeof(*backend));
    if (!backend) {
        return nnc_fail(-ENOMEM, "no memory for the CUDA backend");
    }
    backend->params = *params;
    int rc = build(backend);
    if (rc < 0) {
        cuda_close(backend);
        return rc;
    }
    *ret_backend = backend;
    return 0;
}

static void free_memory(struct nnc_backend *backend) {
    struct nnc_device *device = &backend->device;
    struct nnc_block *const blocks[] = {&backend->arena, &backend->workspace, &backend->step_values,
                                        &backend->update_values, &backend->step_metrics};
    nnc_feeds_finish(&backend->feeds);
    nnc_gpu_state_finish(&backend->state);
    for (size_t number = 0; number < sizeof(blocks) / sizeof(blocks[0]); number++) {
        nnc_device_free(device, blocks[number]);
    }
    for (int number = 0; number < NNC_FLIGHTS; number++) {
        cudaFreeHost(backend->flight[number].host);
        if (backend->flight[number].done) {
            cudaEventDestroy(backend->flight[number].done);
        }
    }
    cudaFreeHost(backend->counts);
    nnc_device_finish(device);
}

static void cuda_close(struct nnc_backend *backend) {
    if (!backend) {
        return;
    }
    bool idle = nnc_device_drain(&backend->device);
    nnc_comm_finish(&backend->comm);
    nnc_gpu_plans_finish(&backend->plans);
    if (!idle) {
        abandoned = backend;
        return;
    }
    if (backend->blas) {
        cublasLtDestroy(backend->blas);
    }
    nnc_dnn_close(backend->dnn);
    free_memory(backend);
    free(backend->slices);
    free(backend);
}

static int cuda_poll(struct nnc_backend *backend, struct nnc_metrics *ret_metrics) {
    int rc = nnc_exec_land(backend, false);
    if (rc == 0) {
        *ret_metrics = backend->metrics;
        backend->metrics = (struct nnc_metrics){0};
    }
    return rc;
}

static int cuda_get(struct nnc_backend *backend, enum nnc_state state, uint32_t param,
                    float *ret_values) {
    return nnc_gpu_state_get(&backend->state, state, param, ret_values);
}

static int cuda_set(struct nnc_backend *backend, enum nnc_state state, uint32_t param,
                    const float *values) {
    return nnc_gpu_state_set(&backend->state, state, param, values);
}

static size_t cuda_memory(const struct nnc_backend *backend) {
    return backend->device.bytes;
}

/* ---- what only devices have ---- */

static int cuda_pin(struct nnc_backend *backend, void *memory, size_t bytes) {
    return nnc_feeds_pin(&backend->feeds, memory, bytes);
}

static void cuda_unpin(struct nnc_backend *backend, void *memory) {
    nnc_feeds_unpin(&backend->feeds, memory);
}

static int cuda_fed(struct nnc_backend *backend, uint64_t *ret_feeds) {
    return nnc_feeds_reusable(&backend->feeds, ret_feeds);
}

static int cuda_finish(struct nnc_backend *backend) {
    int rc = nnc_device_wait_all(&backend->device);
    return rc < 0 ? rc : nnc_exec_land(backend, true);
}

static int cuda_get_type(const struct nnc_backend *backend, struct nnc_device_type *ret_type) {
    static const int32_t amps[NNC_GPU_TYPE_COUNT] = {
        [NNC_GPU_F32] = NNC_AMP_OFF,
        [NNC_GPU_BF16] = NNC_AMP_BF16,
        [NNC_GPU_F16] = NNC_AMP_FP16,
    };
    struct cudaDeviceProp properties;
    int rc = nnc_device_check(cudaGetDeviceProperties(&properties, backend->device.ordinal),
                              "device properties");
    if (rc == 0) {
        *ret_type = (struct nnc_device_type){.amp = amps[backend->type]};
        snprintf(ret_type->name, sizeof(ret_type->name), "%.63s", properties.name);
    }
    return rc;
}

static int cuda_comm_open(struct nnc_backend *backend, const uint8_t id[NNC_COMM_ID_BYTES]) {
    if (backend->params.ranks < 2) {
        return 0;
    }
    nnc_exec_forget(backend); /* what was recorded averages nothing */
    int rc = nnc_comm_init(&backend->comm, &backend->device, &backend->params, id, backend->counts);
    return rc < 0 ? rc : nnc_comm_register(&backend->comm, &backend->state.gradients);
}

static void cuda_comm_abort(struct nnc_backend *backend) {
    nnc_exec_forget(backend);
    nnc_comm_abort(&backend->comm);
}

static int cuda_look(struct nnc_backend *backend) {
    return nnc_device_look(&backend->device);
}

static void cuda_progress(const struct nnc_backend *backend, uint64_t *ret_ready,
                          uint64_t *ret_reduced) {
    nnc_comm_progress(&backend->comm, ret_ready, ret_reduced);
}

static int cuda_get_choices(struct nnc_backend *backend, char **ret_choices, size_t *ret_bytes) {
    return nnc_gpu_plans_tell(&backend->plans, ret_choices, ret_bytes);
}

static void cuda_set_choices(struct nnc_backend *backend, char *choices, size_t bytes) {
    nnc_gpu_plans_hear(&backend->plans, choices, bytes);
}

static int cuda_get_scale(struct nnc_backend *backend, struct nnc_loss_scale *ret_scale) {
    struct nnc_gpu_scaler scaler;
    int rc =
        nnc_device_copy(&backend->device, &scaler, backend->state.scaler.memory, sizeof(scaler));
    if (rc == 0) {
        *ret_scale = (struct nnc_loss_scale){scaler.scale, scaler.dynamic ? scaler.good_steps : 0};
    }
    return rc;
}

static int cuda_set_scale(struct nnc_backend *backend, const struct nnc_loss_scale *scale) {
    void *memory = backend->state.scaler.memory;
    struct nnc_gpu_scaler scaler;
    int rc = nnc_device_copy(&backend->device, &scaler, memory, sizeof(scaler));
    if (rc < 0 || !scaler.dynamic) {
        return rc; /* it stays 1 where gradients keep their range */
    }
    if (!(scale->scale >= 1)) {
        return nnc_fail(-EINVAL, "a loss scale of %g; it is 1 or more", (double)scale->scale);
    }
    scaler.scale = scale->scale;
    scaler.good_steps = scale->good_steps;
    return nnc_device_copy(&backend->device, memory, &scaler, sizeof(scaler));
}

static const struct nnc_device_ops device_ops = {
    .list = nnc_device_list,
    .pin = cuda_pin,
    .unpin = cuda_unpin,
    .fed = cuda_fed,
    .finish = cuda_finish,
    .get_type = cuda_get_type,
    .comm_id = nnc_comm_name,
    .comm_open = cuda_comm_open,
    .comm_abort = cuda_comm_abort,
    .look = cuda_look,
    .progress = cuda_progress,
    .get_choices = cuda_get_choices,
    .set_choices = cuda_set_choices,
    .get_scale = cuda_get_scale,
    .set_scale = cuda_set_scale,
};

const struct nnc_backend_ops nnc_backend_cuda = {
    .name = "cuda",
    .description = "cuDNN, cuBLASLt and kernels of our own on an NVIDIA GPU",
    .open = cuda_open,
    .close = cuda_close,
    .compile = nnc_exec_compile,
    .release = nnc_exec_release,
    .feed = nnc_exec_feed,
    .step = nnc_exec_step,
    .evaluate = nnc_exec_evaluate,
    .logits = nnc_exec_logits,
    .poll = cuda_poll,
    .update = nnc_exec_update,
    .zero_gradients = nnc_exec_zero_gradients,
    .get = cuda_get,
    .set = cuda_set,
    .memory = cuda_memory,
    .device = &device_ops,
};

NNC_EXPORT const struct nnc_backend_plugin nnc_backend_plugin = {
    .build_id = nnc_build_id,
    .ops = &nnc_backend_cuda,
};
