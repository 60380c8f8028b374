/* SPDX-License-Identifier: Apache-2.0 */
/* libnvidia-ml.so.1: what a monitor asks of a device. The toolkit has no header of it here;
 * prototypes are from NVML's reference, "NVML API Reference Guide", R580. Device i is busy 50 + i
 * percent. */
#include "tests/gpu/fakecuda/fakecuda.h"

#include <stdio.h>
#include <string.h>

typedef struct nvmlDevice_st *nvmlDevice_t;
typedef struct nvmlEventSet_st *nvmlEventSet_t;

typedef enum {
    NVML_SUCCESS = 0,
    NVML_ERROR_UNINITIALIZED = 1,
    NVML_ERROR_INVALID_ARGUMENT = 2,
    NVML_ERROR_NOT_FOUND = 6,
    NVML_ERROR_DRIVER_NOT_LOADED = 9,
    NVML_ERROR_TIMEOUT = 10,
} nvmlReturn_t;

typedef struct {
    unsigned gpu, memory; /* percent */
} nvmlUtilization_t;

typedef struct {
    unsigned long long total, free, used; /* bytes */
} nvmlMemory_t;

typedef struct {
    nvmlDevice_t device;
    unsigned long long eventType, eventData;
    unsigned gpuInstanceId, computeInstanceId;
} nvmlEventData_t;

nvmlReturn_t nvmlInit_v2(void);
nvmlReturn_t nvmlShutdown(void);
const char *nvmlErrorString(nvmlReturn_t code);
nvmlReturn_t nvmlSystemGetDriverVersion(char *version, unsigned length);
nvmlReturn_t nvmlDeviceGetCount_v2(unsigned *count);
nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned index, nvmlDevice_t *device);
nvmlReturn_t nvmlDeviceGetHandleByPciBusId_v2(const char *bus, nvmlDevice_t *device);
nvmlReturn_t nvmlDeviceGetName(nvmlDevice_t device, char *name, unsigned length);
nvmlReturn_t nvmlDeviceGetUtilizationRates(nvmlDevice_t device, nvmlUtilization_t *rates);
nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t device, nvmlMemory_t *memory);
nvmlReturn_t nvmlDeviceGetPowerUsage(nvmlDevice_t device, unsigned *milliwatts);
nvmlReturn_t nvmlDeviceGetTemperature(nvmlDevice_t device, int sensor, unsigned *celsius);
nvmlReturn_t nvmlEventSetCreate(nvmlEventSet_t *set);
nvmlReturn_t nvmlEventSetFree(nvmlEventSet_t set);
nvmlReturn_t nvmlDeviceRegisterEvents(nvmlDevice_t device, unsigned long long types,
                                      nvmlEventSet_t set);
nvmlReturn_t nvmlEventSetWait_v2(nvmlEventSet_t set, nvmlEventData_t *data, unsigned timeout_ms);

struct nvmlDevice_st {
    unsigned index;
};

static struct nvmlDevice_st devices[FAKE_DEVICES_MAX];
static int opened;

/* Faults know these calls as any other; every error is "driver not loaded" here. */
static nvmlReturn_t enter(const char *function) {
    cudaError_t code = fake_enter(function);
    int64_t ms = 0;
    fake_take_fault(&ms);
    fake_leave(cudaSuccess);
    return code ? NVML_ERROR_DRIVER_NOT_LOADED : opened ? NVML_SUCCESS : NVML_ERROR_UNINITIALIZED;
}

nvmlReturn_t nvmlInit_v2(void) {
    opened++;
    nvmlReturn_t code = enter("nvmlInit_v2");
    opened -= code != NVML_SUCCESS;
    return code;
}

nvmlReturn_t nvmlShutdown(void) {
    nvmlReturn_t code = enter("nvmlShutdown");
    opened -= opened > 0;
    return code;
}

const char *nvmlErrorString(nvmlReturn_t code) {
    switch (code) {
    case NVML_SUCCESS:
        return "Success";
    case NVML_ERROR_UNINITIALIZED:
        return "Uninitialized";
    case NVML_ERROR_INVALID_ARGUMENT:
        return "Invalid Argument";
    case NVML_ERROR_NOT_FOUND:
        return "Not Found";
    case NVML_ERROR_DRIVER_NOT_LOADED:
        return "Driver Not Loaded";
    case NVML_ERROR_TIMEOUT:
        return "Timeout";
    }
    return "Unknown Error";
}

nvmlReturn_t nvmlSystemGetDriverVersion(char *version, unsigned length) {
    nvmlReturn_t code = enter("nvmlSystemGetDriverVersion");
    snprintf(version, length, "580.65.06");
    return code;
}

nvmlReturn_t nvmlDeviceGetCount_v2(unsigned *count) {
    nvmlReturn_t code = enter("nvmlDeviceGetCount_v2");
    *count = (unsigned)fake_settings()->devices;
    return code;
}

nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned index, nvmlDevice_t *device) {
    nvmlReturn_t code = enter("nvmlDeviceGetHandleByIndex_v2");
    if (code == NVML_SUCCESS && index >= (unsigned)fake_settings()->devices) {
        return NVML_ERROR_INVALID_ARGUMENT;
    }
    devices[index].index = index;
    *device = &devices[index];
    return code;
}

/* As cudaDeviceGetPCIBusId() has them; NVML writes the domain with eight digits. */
nvmlReturn_t nvmlDeviceGetHandleByPciBusId_v2(const char *bus, nvmlDevice_t *device) {
    unsigned domain = 0, number = 0;
    if (sscanf(bus, "%x:%x:", &domain, &number) != 2 || domain != 0 || number < 16) {
        return NVML_ERROR_NOT_FOUND;
    }
    return nvmlDeviceGetHandleByIndex_v2(number - 16, device);
}

nvmlReturn_t nvmlDeviceGetName(nvmlDevice_t device, char *name, unsigned length) {
    fake_device_text((int)device->index, "deviceName", "Stand-in A100", length, name);
    return enter("nvmlDeviceGetName");
}

nvmlReturn_t nvmlDeviceGetUtilizationRates(nvmlDevice_t device, nvmlUtilization_t *rates) {
    *rates = (nvmlUtilization_t){.gpu = 50 + device->index, .memory = 25};
    return enter("nvmlDeviceGetUtilizationRates");
}

nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t device, nvmlMemory_t *memory) {
    (void)device;
    nvmlReturn_t code = enter("nvmlDeviceGetMemoryInfo");
    memory->total = fake_settings()->memory;
    memory->used = fake_memory_used();
    memory->free = memory->total - memory->used;
    return code;
}

nvmlReturn_t nvmlDeviceGetPowerUsage(nvmlDevice_t device, unsigned *milliwatts) {
    *milliwatts = 250000 + device->index;
    return enter("nvmlDeviceGetPowerUsage");
}

nvmlReturn_t nvmlDeviceGetTemperature(nvmlDevice_t device, int sensor, unsigned *celsius) {
    (void)sensor;
    *celsius = 60 + device->index;
    return enter("nvmlDeviceGetTemperature");
}

/* ---- events: one when the sticky error is set, as of an XID ---- */

struct nvmlEventSet_st {
    nvmlDevice_t device;
    bool told;
};

static struct nvmlEventSet_st the_set;

nvmlReturn_t nvmlEventSetCreate(nvmlEventSet_t *set) {
    the_set = (struct nvmlEventSet_st){0};
    *set = &the_set;
    return enter("nvmlEventSetCreate");
}

nvmlReturn_t nvmlEventSetFree(nvmlEventSet_t set) {
    return set == &the_set ? NVML_SUCCESS : NVML_ERROR_INVALID_ARGUMENT;
}

nvmlReturn_t nvmlDeviceRegisterEvents(nvmlDevice_t device, unsigned long long types,
                                      nvmlEventSet_t set) {
    (void)types;
    set->device = device;
    return enter("nvmlDeviceRegisterEvents");
}

nvmlReturn_t nvmlEventSetWait_v2(nvmlEventSet_t set, nvmlEventData_t *data, unsigned timeout_ms) {
    fake_lock();
    bool broken = fake_broken() != cudaSuccess && !set->told;
    for (unsigned i = 0; !broken && i < timeout_ms * 20; i++) {
        fake_nap();
        broken = fake_broken() != cudaSuccess && !set->told;
    }
    fake_unlock();
    if (!broken) {
        return NVML_ERROR_TIMEOUT;
    }
    set->told = true;
    *data = (nvmlEventData_t){.device = set->device, .eventType = 8, .eventData = 48};
    return NVML_SUCCESS;
}
