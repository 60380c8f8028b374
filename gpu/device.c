/* SPDX-License-Identifier: Apache-2.0 */
/* Streams, memory and waits; see device.h.
 *
 * Invariants: (1) the error that CUDA keeps for each thread is cleared wherever one was seen, so
 * that no later launch takes it for its own; (2) device memory is counted where it is taken.
 *
 * What it does not do: know what is computed.
 * Source: CUDA Runtime API reference, "Stream management", "Event management". */
#include "gpu/device.h"

#include "base/clock.h"
#include "base/err.h"
#include "gpu/driver.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    PAUSE_FIRST_NS = 20 * 1000,
    PAUSE_LAST_NS = 1000 * 1000,
    MIB = 1 << 20,
};

static const uint64_t drain_ns = 5ull * 1000 * 1000 * 1000;

int nnc_device_check(cudaError_t error, const char *what) {
    if (error == cudaSuccess) {
        return 0;
    }
    cudaGetLastError();
    int code = error == cudaErrorMemoryAllocation ? -ENOMEM : -NNC_E_HARDWARE;
    return nnc_fail(code, "%s: CUDA says %s (%s)", what, cudaGetErrorName(error),
                    cudaGetErrorString(error));
}

/* 16-bit multiply-adds with fp32 sums, times 2, of one multiprocessor in one clock. Source:
 * NVIDIA's white papers of the architectures; GeForce cards do half of it. */
static const struct {
    uint32_t capability, flops;
} rates[] = {{75, 1024}, {80, 2048}, {86, 1024}, {89, 1024}, {90, 4096}, {100, 8192}, {120, 1024}};

static double peak_flops(const struct nnc_device_info *info, int processors) {
    int kilohertz = 0;
    bool known =
        cudaDeviceGetAttribute(&kilohertz, cudaDevAttrClockRate, (int)info->ordinal) == cudaSuccess;
    double share = strstr(info->name, "GeForce") ? 0.5 : 1;
    for (size_t number = 0; known && number < sizeof(rates) / sizeof(rates[0]); number++) {
        if (rates[number].capability == info->capability) {
            return share * rates[number].flops * processors * kilohertz * 1e3;
        }
    }
    return 0;
}

static int describe(int ordinal, struct nnc_device_info *ret_info) {
    struct cudaDeviceProp properties;
    struct nnc_device_info info = {.ordinal = (uint32_t)ordinal};
    int rc = nnc_device_check(cudaGetDeviceProperties(&properties, ordinal), "device properties");
    if (rc < 0) {
        return rc;
    }
    info.capability = (uint32_t)(10 * properties.major + properties.minor);
    info.memory = properties.totalGlobalMem;
    info.bf16 = info.capability >= NNC_DEVICE_CAPABILITY_BF16;
    snprintf(info.name, sizeof(info.name), "%.63s", properties.name);
    info.peak_flops = peak_flops(&info, properties.multiProcessorCount);
    rc =
        nnc_device_check(cudaDeviceGetPCIBusId(info.bus, sizeof(info.bus), ordinal), "PCI address");
    *ret_info = info;
    return rc;
}

/* Add a device to the list, or the reason why not. */
static void list_one(int ordinal, struct nnc_devices *devices) {
    struct nnc_device_info info;
    if (describe(ordinal, &info) < 0) {
        snprintf(devices->why, sizeof(devices->why), "%s", nnc_error_text());
    } else if (info.capability < NNC_DEVICE_CAPABILITY_MIN) {
        snprintf(devices->why, sizeof(devices->why),
                 "GPU %d (%s) has compute capability %u.%u; %u.%u is the least", ordinal, info.name,
                 info.capability / 10, info.capability % 10, NNC_DEVICE_CAPABILITY_MIN / 10,
                 NNC_DEVICE_CAPABILITY_MIN % 10);
    } else if (devices->count < NNC_DEVICES_MAX) {
        devices->item[devices->count++] = info;
    }
}

void nnc_device_list(struct nnc_devices *ret_devices) {
    int found = 0;
    memset(ret_devices, 0, sizeof(*ret_devices));
    nnc_driver_versions(&ret_devices->versions);
    if (nnc_driver_count(&found) < 0) {
        snprintf(ret_devices->why, sizeof(ret_devices->why), "%s", nnc_error_text());
        return;
    }
    for (int ordinal = 0; ordinal < found; ordinal++) {
        list_one(ordinal, ret_devices);
    }
}

static int make_streams(struct nnc_device *device) {
    int least = 0;
    int greatest = 0;
    int rc = nnc_device_check(cudaDeviceGetStreamPriorityRange(&least, &greatest), "priorities");
    for (int which = 0; rc == 0 && which < NNC_STREAM_COUNT; which++) {
        int priority = which == NNC_STREAM_COMM ? greatest : least;
        rc = nnc_device_check(
            cudaStreamCreateWithPriority(&device->stream[which], cudaStreamNonBlocking, priority),
            "stream");
        if (rc == 0) {
            rc = nnc_device_check(
                cudaEventCreateWithFlags(&device->mark[which], cudaEventDisableTiming), "event");
        }
    }
    return rc;
}

int nnc_device_init(struct nnc_device *device, const struct nnc_backend_params *params) {
    int found = 0;
    int ordinal = (int)params->device.ordinal;
    device->alive = params->alive;
    device->context = params->context;
    int rc = nnc_driver_count(&found);
    if (rc < 0) {
        return rc;
    }
    if (ordinal >= found) {
        return nnc_fail(-NNC_E_USAGE, "there is no GPU %d: CUDA sees %d, counted from 0", ordinal,
                        found);
    }
    struct nnc_device_info info;
    device->ordinal = ordinal;
    rc = nnc_device_check(cudaSetDevice(ordinal), "the GPU cannot be taken");
    if (rc == 0) {
        rc = describe(ordinal, &info);
    }
    if (rc < 0) {
        return nnc_fail_in(rc, "GPU %d", ordinal);
    }
    device->capability = info.capability;
    return make_streams(device);
}

void nnc_device_finish(struct nnc_device *device) {
    for (int which = 0; which < NNC_STREAM_COUNT; which++) {
        if (device->mark[which]) {
            cudaEventDestroy(device->mark[which]);
        }
        if (device->stream[which]) {
            cudaStreamDestroy(device->stream[which]);
        }
    }
    *device = (struct nnc_device){0};
}

static int fail_memory(const struct nnc_device *device, size_t bytes, const char *what) {
    size_t unused = 0;
    size_t total = 0;
    cudaMemGetInfo(&unused, &total);
    return nnc_fail(-ENOMEM,
                    "no room on GPU %d for %zu MiB of %s: %zu of %zu MiB are free; a smaller "
                    "--batch-size needs less",
                    device->ordinal, bytes / MIB + 1, what, unused / MIB, total / MIB);
}

int nnc_device_reserve(struct nnc_device *device, size_t bytes, const char *what,
                       struct nnc_block *block) {
    if (block->memory && block->bytes >= bytes) {
        return 0;
    }
    nnc_device_free(device, block);
    bytes = bytes > 0 ? bytes : 1;
    cudaError_t error = cudaMalloc(&block->memory, bytes);
    if (error == cudaErrorMemoryAllocation) {
        cudaGetLastError();
        block->memory = NULL;
        return fail_memory(device, bytes, what);
    }
    int rc = nnc_device_check(error, what);
    if (rc < 0) {
        block->memory = NULL;
        return rc;
    }
    block->bytes = bytes;
    device->bytes += bytes;
    cudaStream_t stream = device->stream[NNC_STREAM_COMPUTE];
    return nnc_device_check(cudaMemsetAsync(block->memory, 0, bytes, stream), what);
}

void nnc_device_free(struct nnc_device *device, struct nnc_block *block) {
    if (block->memory) {
        cudaFree(block->memory);
        device->bytes -= block->bytes;
    }
    *block = (struct nnc_block){0};
}

int nnc_device_host_alloc(size_t bytes, void **ret_memory) {
    void *memory = NULL;
    int rc = nnc_device_check(cudaHostAlloc(&memory, bytes, cudaHostAllocPortable),
                              "host memory for copies");
    if (rc == 0) {
        memset(memory, 0, bytes);
        *ret_memory = memory;
    }
    return rc;
}

/* 1 done, 0 not yet, or an error, of what a query says. */
static int judge_query(cudaError_t state) {
    if (state == cudaErrorNotReady) {
        cudaGetLastError(); /* or the next launch takes it for its own */
        return 0;
    }
    int rc = nnc_device_check(state, "work on the GPU failed");
    return rc < 0 ? rc : 1;
}

int nnc_device_query(cudaEvent_t event) {
    return judge_query(cudaEventQuery(event));
}

static int may_wait(const struct nnc_device *device) {
    int rc = device->alive ? device->alive(device->context) : 0;
    if (rc >= 0 && device->peers) {
        rc = device->peers(device->peers_context);
    }
    return rc < 0 ? rc : 0;
}

int nnc_device_wait(struct nnc_device *device, cudaEvent_t event) {
    /* Each pause is a fifth of what was waited so far: late by no more than that, or 1 ms. */
    uint64_t pause_ns = PAUSE_FIRST_NS;
    for (;;) {
        int rc = nnc_device_query(event);
        if (rc != 0) {
            return rc < 0 ? rc : 0;
        }
        rc = may_wait(device);
        if (rc < 0) {
            return rc;
        }
        nnc_clock_sleep_ns(pause_ns);
        pause_ns += pause_ns / 4;
        pause_ns = pause_ns < PAUSE_LAST_NS ? pause_ns : PAUSE_LAST_NS;
    }
}

int nnc_device_look(struct nnc_device *device) {
    for (int stream = 0; stream < NNC_STREAM_COUNT; stream++) {
        int rc = judge_query(cudaStreamQuery(device->stream[stream]));
        if (rc < 0) {
            return rc;
        }
    }
    int rc = device->peers ? device->peers(device->peers_context) : 0;
    return rc < 0 ? rc : 0;
}

int nnc_device_wait_stream(struct nnc_device *device, enum nnc_stream stream) {
    cudaEvent_t mark = device->mark[stream];
    int rc = nnc_device_check(cudaEventRecord(mark, device->stream[stream]), "mark of a stream");
    return rc < 0 ? rc : nnc_device_wait(device, mark);
}

int nnc_device_wait_all(struct nnc_device *device) {
    int rc = 0;
    for (int stream = 0; rc == 0 && stream < NNC_STREAM_COUNT; stream++) {
        rc = nnc_device_wait_stream(device, (enum nnc_stream)stream);
    }
    return rc;
}

/* `alive` of nnc_device_drain(): until the deadline. */
static int before_deadline(void *context) {
    return nnc_clock_ns() < *(const uint64_t *)context ? 0 : -ETIMEDOUT;
}

bool nnc_device_drain(struct nnc_device *device) {
    if (!device->mark[NNC_STREAM_COUNT - 1]) {
        return true;
    }
    uint64_t deadline = nnc_clock_ns() + drain_ns;
    device->alive = before_deadline;
    device->context = &deadline;
    device->peers = NULL;
    int rc = nnc_device_wait_all(device);
    device->alive = NULL;
    return rc != -ETIMEDOUT;
}

int nnc_device_order(struct nnc_device *device, enum nnc_stream stream, enum nnc_stream on,
                     cudaEvent_t event) {
    cudaError_t error = cudaEventRecord(event, device->stream[on]);
    if (error == cudaSuccess) {
        error = cudaStreamWaitEvent(device->stream[stream], event, 0);
    }
    return nnc_device_check(error, "order of streams");
}

int nnc_device_copy(struct nnc_device *device, void *to, const void *from, size_t bytes) {
    /* A copy from or to pageable memory holds the caller until it is done: only then does it come,
     * when nothing is left that it could have to wait for. */
    int rc = nnc_device_wait_stream(device, NNC_STREAM_COMPUTE);
    if (rc == 0) {
        rc = nnc_device_check(
            cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, device->stream[NNC_STREAM_COMPUTE]),
            "copy between host and GPU");
    }
    return rc < 0 ? rc : nnc_device_wait_stream(device, NNC_STREAM_COMPUTE);
}
