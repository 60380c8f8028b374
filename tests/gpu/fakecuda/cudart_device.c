/* SPDX-License-Identifier: Apache-2.0 */
/* libcudart.so.13: devices, versions, errors. What a device is like comes from the JSON text that
 * describes one to cuDNN as well; without it, it is like an A100. */
#include "tests/gpu/fakecuda/fakecuda.h"

#include <stdio.h>
#include <string.h>

struct word {
    cudaError_t code;
    const char *name, *text;
};

#define WORD(code, text)                                                                           \
    { code, #code, text }

static const struct word words[] = {
    WORD(cudaSuccess, "no error"),
    WORD(cudaErrorInvalidValue, "invalid argument"),
    WORD(cudaErrorMemoryAllocation, "out of memory"),
    WORD(cudaErrorInvalidMemcpyDirection, "invalid copy direction for memcpy"),
    WORD(cudaErrorInsufficientDriver, "CUDA driver version is insufficient for CUDA runtime "
                                      "version"),
    WORD(cudaErrorNoDevice, "no CUDA-capable device is detected"),
    WORD(cudaErrorInvalidDevice, "invalid device ordinal"),
    WORD(cudaErrorECCUncorrectable, "uncorrectable ECC error encountered"),
    WORD(cudaErrorInvalidResourceHandle, "invalid resource handle"),
    WORD(cudaErrorIllegalState, "the operation cannot be performed in the present state"),
    WORD(cudaErrorNotReady, "device not ready"),
    WORD(cudaErrorIllegalAddress, "an illegal memory access was encountered"),
    WORD(cudaErrorHostMemoryAlreadyRegistered, "part or all of the requested memory range is "
                                               "already mapped"),
    WORD(cudaErrorHostMemoryNotRegistered, "pointer does not correspond to a registered memory "
                                           "region"),
    WORD(cudaErrorLaunchFailure, "unspecified launch failure"),
    WORD(cudaErrorNotSupported, "operation not supported"),
    WORD(cudaErrorStreamCaptureUnsupported, "operation not permitted when stream is capturing"),
    WORD(cudaErrorStreamCaptureInvalidated, "operation failed due to a previous error during "
                                            "capture"),
    WORD(cudaErrorStreamCaptureUnmatched, "operation would result in a merge of separate capture "
                                          "sequences"),
    WORD(cudaErrorStreamCaptureUnjoined, "capturing stream has unjoined work"),
    WORD(cudaErrorStreamCaptureIsolation, "dependency created on uncaptured work in another "
                                          "stream"),
    WORD(cudaErrorCapturedEvent, "operation not permitted on an event last recorded in a "
                                 "capturing stream"),
    WORD(cudaErrorUnknown, "unknown error"),
};

static const struct word *find_word(cudaError_t code) {
    size_t last = sizeof words / sizeof words[0] - 1;
    for (size_t i = 0; i < last; i++) {
        if (words[i].code == code) {
            return &words[i];
        }
    }
    return &words[last];
}

const char *cudaGetErrorName(cudaError_t code) {
    return find_word(code)->name;
}

const char *cudaGetErrorString(cudaError_t code) {
    return find_word(code)->text;
}

cudaError_t cudaGetLastError(void) {
    return fake_last_error(true);
}

cudaError_t cudaPeekAtLastError(void) {
    return fake_last_error(false);
}

/* A version needs no device. */
cudaError_t cudaRuntimeGetVersion(int *version) {
    *version = CUDART_VERSION;
    return cudaSuccess;
}

static int driver_version(void) {
    int driver = fake_settings()->driver;
    return driver >= 0 ? driver : (int)fake_device_number(0, "driverVer", CUDART_VERSION);
}

/* 0 and no error where no driver is installed. */
cudaError_t cudaDriverGetVersion(int *version) {
    *version = driver_version();
    return cudaSuccess;
}

/* One word for a driver of an older major version and for none at all. */
cudaError_t cudaGetDeviceCount(int *count) {
    cudaError_t code = fake_enter("cudaGetDeviceCount");
    if (!code && driver_version() < CUDART_VERSION / 1000 * 1000) {
        code = cudaErrorInsufficientDriver;
    }
    *count = code ? 0 : fake_settings()->devices;
    return fake_leave(code || *count ? code : cudaErrorNoDevice);
}

static cudaError_t check_device(int device) {
    return device >= 0 && device < fake_settings()->devices ? cudaSuccess : cudaErrorInvalidDevice;
}

cudaError_t cudaSetDevice(int device) {
    cudaError_t code = fake_enter("cudaSetDevice");
    code = code ? code : check_device(device);
    if (!code) {
        fake_device_choose(device);
    }
    return fake_leave(code);
}

cudaError_t cudaGetDevice(int *device) {
    *device = fake_device();
    return cudaSuccess;
}

static void describe(int device, struct cudaDeviceProp *properties) {
    int64_t version = fake_device_number(device, "deviceVer", 800);
    *properties = (struct cudaDeviceProp){
        .totalGlobalMem = (size_t)fake_device_number(device, "totalGlobalMem", 42331013120),
        .sharedMemPerBlock = (size_t)fake_device_number(device, "maxSharedMemoryPerBlock", 49152),
        .regsPerBlock = (int)fake_device_number(device, "regsPerBlock", 65536),
        .warpSize = 32,
        .maxThreadsPerBlock = 1024,
        .maxThreadsDim = {1024, 1024, 64},
        .maxGridSize = {2147483647, 65535, 65535},
        .major = (int)(version / 100),
        .minor = (int)(version % 100 / 10),
        .multiProcessorCount = (int)fake_device_number(device, "multiProcessorCount", 108),
        .canMapHostMemory = 1,
        .concurrentKernels = 1,
        .pciBusID = 16 + device,
        .asyncEngineCount = 2,
        .unifiedAddressing = 1,
        .l2CacheSize = (int)fake_device_number(device, "l2CacheSize", 41943040),
        .maxThreadsPerMultiProcessor = (int)fake_device_number(device, "maxThreadsPerSM", 2048),
        .streamPrioritiesSupported = 1,
        .regsPerMultiprocessor = (int)fake_device_number(device, "maxRegistersPerSM", 65536),
        .cooperativeLaunch = 1,
        .sharedMemPerBlockOptin =
            (size_t)fake_device_number(device, "maxSharedMemoryPerBlockOptin", 166912),
        .maxBlocksPerMultiProcessor = (int)fake_device_number(device, "maxCtasPerSM", 32),
        .reservedSharedMemPerBlock = 1024,
        .hostRegisterSupported = 1,
        .hostRegisterReadOnlySupported = fake_settings()->read_only_register,
    };
    fake_device_text(device, "deviceName", "Stand-in A100", sizeof properties->name,
                     properties->name);
    snprintf(properties->uuid.bytes, sizeof properties->uuid.bytes, "fake-device-%d", device);
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *properties, int device) {
    cudaError_t code = fake_enter("cudaGetDeviceProperties");
    code = code ? code : check_device(device);
    if (!code) {
        describe(device, properties);
    }
    return fake_leave(code);
}

cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr attribute, int device) {
    cudaError_t code = fake_enter("cudaDeviceGetAttribute");
    struct cudaDeviceProp properties;
    code = code ? code : check_device(device);
    if (code) {
        return fake_leave(code);
    }
    describe(device, &properties);
    const struct {
        enum cudaDeviceAttr attribute;
        int value;
    } rows[] = {
        {cudaDevAttrMaxThreadsPerBlock, properties.maxThreadsPerBlock},
        {cudaDevAttrMaxSharedMemoryPerBlock, (int)properties.sharedMemPerBlock},
        {cudaDevAttrMaxSharedMemoryPerBlockOptin, (int)properties.sharedMemPerBlockOptin},
        {cudaDevAttrWarpSize, properties.warpSize},
        {cudaDevAttrMultiProcessorCount, properties.multiProcessorCount},
        {cudaDevAttrL2CacheSize, properties.l2CacheSize},
        {cudaDevAttrMaxThreadsPerMultiProcessor, properties.maxThreadsPerMultiProcessor},
        {cudaDevAttrComputeCapabilityMajor, properties.major},
        {cudaDevAttrComputeCapabilityMinor, properties.minor},
        {cudaDevAttrPciBusId, properties.pciBusID},
        {cudaDevAttrPciDeviceId, properties.pciDeviceID},
        {cudaDevAttrPciDomainId, properties.pciDomainID},
        {cudaDevAttrClockRate, (int)fake_device_number(device, "smClockRateKHz", 1410000)},
        {cudaDevAttrMemoryClockRate, (int)fake_device_number(device, "memClockRateKHz", 1215000)},
        {cudaDevAttrHostRegisterSupported, properties.hostRegisterSupported},
        {cudaDevAttrHostRegisterReadOnlySupported, properties.hostRegisterReadOnlySupported},
        {cudaDevAttrMaxBlocksPerMultiprocessor, properties.maxBlocksPerMultiProcessor},
    };
    code = cudaErrorInvalidValue;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        if (rows[i].attribute == attribute) {
            *value = rows[i].value;
            code = cudaSuccess;
        }
    }
    return fake_leave(code);
}

cudaError_t cudaDeviceGetPCIBusId(char *text, int length, int device) {
    cudaError_t code = fake_enter("cudaDeviceGetPCIBusId");
    code = code ? code : check_device(device);
    if (!code) {
        snprintf(text, (size_t)length, "0000:%02X:00.0", 16 + device);
    }
    return fake_leave(code);
}

/* The sticky error stays: a process that had one is to end. */
cudaError_t cudaDeviceReset(void) {
    return fake_leave(fake_enter("cudaDeviceReset"));
}

cudaError_t cudaFuncGetAttributes(struct cudaFuncAttributes *attributes, const void *function) {
    (void)function;
    cudaError_t code = fake_enter("cudaFuncGetAttributes");
    *attributes = (struct cudaFuncAttributes){.maxThreadsPerBlock = 1024, .numRegs = 32};
    return fake_leave(code);
}

cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, const void *function,
                                                          int block_size, size_t shared_bytes) {
    (void)function;
    (void)shared_bytes;
    cudaError_t code = fake_enter("cudaOccupancyMaxActiveBlocksPerMultiprocessor");
    *blocks = block_size > 0 ? 2048 / block_size : 0;
    return fake_leave(code);
}
