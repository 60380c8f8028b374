/* SPDX-License-Identifier: Apache-2.0 */
/* Why there is no GPU.
 *
 * cudaGetDeviceCount() says cudaErrorInsufficientDriver of a driver that is too old and of one that
 * is not there at all; cudaDriverGetVersion() tells them apart, it gives 0 where there is none.
 *
 * What it does not do: list devices (device.c).
 * Source: CUDA Runtime API reference, "Version Management"; CUDA Compatibility, "Minor Version
 * Compatibility": a runtime needs a driver of its own major version, whatever the minor one is. */
#include "gpu/driver.h"

#include "base/err.h"
#include "gpu/dnn.h"

#include <cuda_runtime_api.h>
#include <nccl.h>
#include <stdio.h>
#include <unistd.h>

/* What container programs leave in the root of their containers. */
static const struct {
    const char *file, *start;
} containers[] = {
    {"/.dockerenv", "docker run --gpus all"},
    {"/run/.containerenv", "podman run --device nvidia.com/gpu=all"},
    {"/.singularity.d", "apptainer run --nv"},
};

const char *nnc_driver_container(const char *root) {
    for (size_t number = 0; number < sizeof(containers) / sizeof(containers[0]); number++) {
        char path[256];
        snprintf(path, sizeof(path), "%s%s", root, containers[number].file);
        if (access(path, F_OK) == 0) {
            return containers[number].start;
        }
    }
    return NULL;
}

/* CUDA's 1000 * major + 10 * minor as all others count. */
static uint32_t version_of_cuda(int version) {
    uint32_t number = version < 0 ? 0 : (uint32_t)version;
    return number / 1000 * 10000 + number % 1000 / 10 * 100;
}

void nnc_driver_versions(struct nnc_device_versions *ret_versions) {
    int driver = 0, runtime = 0, nccl = 0;
    cudaDriverGetVersion(&driver);
    cudaRuntimeGetVersion(&runtime);
    cudaGetLastError();
    ncclGetVersion(&nccl);
    *ret_versions = (struct nnc_device_versions){.driver = version_of_cuda(driver),
                                                 .runtime = version_of_cuda(runtime),
                                                 .cudnn = nnc_dnn_version(),
                                                 .nccl = nccl < 0 ? 0 : (uint32_t)nccl};
}

/* The way out of a container that was started without its GPUs; "" elsewhere. */
static const char *container_hint(char *text, size_t bytes) {
    const char *start = nnc_driver_container("");
    text[0] = '\0';
    if (start != NULL) {
        snprintf(text, bytes, "; this is a container: start it with its GPUs (%s)", start);
    }
    return text;
}

static int fail_count(cudaError_t error) {
    char hint[128];
    const char *words = cudaGetErrorString(error);
    struct nnc_device_versions have;
    nnc_driver_versions(&have);
    if (have.driver == 0) {
        return nnc_fail(-NNC_E_HARDWARE, "no NVIDIA driver is installed here (CUDA says: %s)%s",
                        words, container_hint(hint, sizeof(hint)));
    }
    if (error == cudaErrorInsufficientDriver) {
        return nnc_fail(-NNC_E_HARDWARE,
                        "the NVIDIA driver is too old: it supports CUDA %u.%u, and the runtime of "
                        "CUDA %u.%u needs one that supports %u.0 or later (CUDA says: %s)",
                        have.driver / 10000, have.driver / 100 % 100, have.runtime / 10000,
                        have.runtime / 100 % 100, have.runtime / 10000, words);
    }
    if (error == cudaErrorNoDevice) {
        return nnc_fail(-NNC_E_HARDWARE,
                        "the NVIDIA driver finds no GPU, or CUDA_VISIBLE_DEVICES hides it (CUDA "
                        "says: %s)%s",
                        words, container_hint(hint, sizeof(hint)));
    }
    return nnc_fail(-NNC_E_HARDWARE, "the GPUs cannot be counted (CUDA says: %s)", words);
}

int nnc_driver_count(int *ret_count) {
    int count = 0;
    cudaError_t error = cudaGetDeviceCount(&count);
    if (error != cudaSuccess) {
        cudaGetLastError();
        return fail_count(error);
    }
    *ret_count = count;
    return 0;
}
