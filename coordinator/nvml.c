/* SPDX-License-Identifier: Apache-2.0 */
/* See nvml.h. One table of the functions that are used; a library that lacks one is refused, with
 * its name. */
#include "coordinator/nvml.h"

#include "base/config.h"
#include "base/err.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>

#define LIBRARY      "libnvidia-ml.so.1"
#define XID_CRITICAL 0x8ull
#define DRIVER_TEXT  96

/* NVML's types, as its header has them. */
typedef struct nvml_device *device_handle;
typedef struct nvml_event_set *event_set;

struct utilization {
    unsigned gpu, memory; /* percent */
};

struct memory_info {
    unsigned long long total, free, used; /* bytes */
};

struct event {
    device_handle device;
    unsigned long long type, data;
    unsigned gpu_instance, compute_instance;
};

struct functions {
    int (*init)(void);
    int (*shutdown)(void);
    const char *(*error_string)(int code);
    int (*driver_version)(char *text, unsigned bytes);
    int (*handle_by_bus)(const char *bus, device_handle *ret_handle);
    int (*utilization)(device_handle handle, struct utilization *ret_utilization);
    int (*memory)(device_handle handle, struct memory_info *ret_memory);
    int (*power)(device_handle handle, unsigned *ret_milliwatts);
    int (*event_create)(event_set *ret_set);
    int (*event_free)(event_set set);
    int (*event_register)(device_handle handle, unsigned long long types, event_set set);
    int (*event_wait)(event_set set, struct event *ret_event, unsigned timeout_ms);
};

static const struct {
    const char *name;
    size_t offset;
} table[] = {
    {"nvmlInit_v2", offsetof(struct functions, init)},
    {"nvmlShutdown", offsetof(struct functions, shutdown)},
    {"nvmlErrorString", offsetof(struct functions, error_string)},
    {"nvmlSystemGetDriverVersion", offsetof(struct functions, driver_version)},
    {"nvmlDeviceGetHandleByPciBusId_v2", offsetof(struct functions, handle_by_bus)},
    {"nvmlDeviceGetUtilizationRates", offsetof(struct functions, utilization)},
    {"nvmlDeviceGetMemoryInfo", offsetof(struct functions, memory)},
    {"nvmlDeviceGetPowerUsage", offsetof(struct functions, power)},
    {"nvmlEventSetCreate", offsetof(struct functions, event_create)},
    {"nvmlEventSetFree", offsetof(struct functions, event_free)},
    {"nvmlDeviceRegisterEvents", offsetof(struct functions, event_register)},
    {"nvmlEventSetWait_v2", offsetof(struct functions, event_wait)},
};

struct nnc_nvml {
    void *library;
    struct functions call;
    device_handle device[NNC_MAX_RANKS];
    uint32_t count;
    event_set events; /* NULL: errors are not told */
    char driver[DRIVER_TEXT];
};

static int find_functions(struct nnc_nvml *nvml) {
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        void *symbol = dlsym(nvml->library, table[i].name);
        if (symbol == NULL) {
            return nnc_fail(-ENOTSUP, "%s has no %s", LIBRARY, table[i].name);
        }
        *(void **)((char *)&nvml->call + table[i].offset) = symbol;
    }
    return 0;
}

int nnc_nvml_open(struct nnc_nvml **ret_nvml) {
    struct nnc_nvml *nvml = calloc(1, sizeof(*nvml));
    if (nvml == NULL) {
        return nnc_fail(-ENOMEM, "no memory for %s", LIBRARY);
    }
    nvml->library = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);
    int code = nvml->library == NULL ? nnc_fail(-ENOTSUP, "%s", dlerror()) : find_functions(nvml);
    if (code < 0) {
        goto out;
    }
    int status = nvml->call.init();
    if (status != 0) {
        code = nnc_fail(-ENOTSUP, "%s: %s", LIBRARY, nvml->call.error_string(status));
        goto out;
    }
    if (nvml->call.driver_version(nvml->driver, sizeof(nvml->driver)) != 0) {
        nvml->driver[0] = '\0';
    }
    if (nvml->call.event_create(&nvml->events) != 0) {
        nvml->events = NULL;
    }
    *ret_nvml = nvml;
    return 0;
out:
    if (nvml->library != NULL) {
        dlclose(nvml->library);
    }
    free(nvml);
    return code;
}

void nnc_nvml_close(struct nnc_nvml *nvml) {
    if (nvml == NULL) {
        return;
    }
    if (nvml->events != NULL) {
        nvml->call.event_free(nvml->events);
    }
    nvml->call.shutdown();
    dlclose(nvml->library);
    free(nvml);
}

int nnc_nvml_watch(struct nnc_nvml *nvml, const char *bus) {
    if (nvml->count == NNC_MAX_RANKS) {
        return nnc_fail(-ENOTSUP, "more than %d GPUs", NNC_MAX_RANKS);
    }
    device_handle handle;
    int status = nvml->call.handle_by_bus(bus, &handle);
    if (status != 0) {
        return nnc_fail(-ENOTSUP, "GPU at %s: %s", bus, nvml->call.error_string(status));
    }
    if (nvml->events != NULL) {
        nvml->call.event_register(handle, XID_CRITICAL, nvml->events); /* refused: none is told */
    }
    nvml->device[nvml->count++] = handle;
    return 0;
}

void nnc_nvml_read(const struct nnc_nvml *nvml, struct nnc_gpu_reading *ret_reading) {
    struct nnc_gpu_reading reading = {.count = 0};
    for (uint32_t i = 0; i < nvml->count; i++) {
        struct utilization utilization;
        struct memory_info memory;
        unsigned milliwatts;
        if (nvml->call.utilization(nvml->device[i], &utilization) == 0) {
            reading.busy += utilization.gpu / 100.0;
            reading.count++;
        }
        if (nvml->call.memory(nvml->device[i], &memory) == 0 && memory.used > reading.memory_used) {
            reading.memory_used = memory.used;
        }
        if (nvml->call.power(nvml->device[i], &milliwatts) == 0) {
            reading.watts += milliwatts / 1000.0;
        }
    }
    reading.busy = reading.count > 0 ? reading.busy / reading.count : 0;
    *ret_reading = reading;
}

int nnc_nvml_next_xid(const struct nnc_nvml *nvml, struct nnc_gpu_xid *ret_xid) {
    struct event event;
    if (nvml->events == NULL || nvml->call.event_wait(nvml->events, &event, 0) != 0 ||
        event.type != XID_CRITICAL) {
        return 0;
    }
    for (uint32_t i = 0; i < nvml->count; i++) {
        if (nvml->device[i] == event.device) {
            *ret_xid = (struct nnc_gpu_xid){.gpu = i, .number = event.data};
            return 1;
        }
    }
    return 0;
}

const char *nnc_nvml_driver(const struct nnc_nvml *nvml) {
    return nvml->driver;
}
