/* SPDX-License-Identifier: Apache-2.0 */
/* --gpus: nothing or 0 is the CPU, N the first N devices, "all" all of them, "0,2" and "2," these.
 * A device is named by the driver's number; CUDA_VISIBLE_DEVICES has done its part before. */
#include "ipc/gpus.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool nnc_gpus_wanted(const struct nnc_config *config) {
    return config->backend == NNC_BACKEND_CUDA ||
           (config->gpus[0] != '\0' && strcmp(config->gpus, "0") != 0);
}

/* The words that asked for GPUs. */
static const char *asked_by(const struct nnc_config *config, char text[NNC_NAME_MAX + 16]) {
    if (config->gpus[0] == '\0' || strcmp(config->gpus, "0") == 0) {
        return "--backend cuda";
    }
    snprintf(text, NNC_NAME_MAX + 16, "--gpus %s", config->gpus);
    return text;
}

static int check_possible(const struct nnc_config *config, const struct nnc_devices *devices) {
    char text[NNC_NAME_MAX + 16];
    const char *asked = asked_by(config, text);
    if (config->backend == NNC_BACKEND_CUDA && strcmp(config->gpus, "0") == 0) {
        return nnc_fail(-NNC_E_USAGE,
                        "--backend cuda and --gpus 0 contradict each other; leave one "
                        "of them out");
    }
    if (config->backend != NNC_BACKEND_AUTO && config->backend != NNC_BACKEND_CUDA) {
        return nnc_fail(-NNC_E_USAGE,
                        "%s: GPUs compute with --backend cuda alone; leave --backend "
                        "out",
                        asked);
    }
    if (config->cpu_ranks > 1) {
        return nnc_fail(-NNC_E_USAGE,
                        "%s and --cpu-ranks %" PRIu32 ": a run computes on GPUs or on "
                        "CPUs; leave one of them out",
                        asked, config->cpu_ranks);
    }
    if (devices->count == 0) {
        bool by_number = strncmp(asked, "--gpus", 6) == 0;
        return nnc_fail(-NNC_E_USAGE, "%s: no GPU can be used: %s; `%s` computes on the CPU", asked,
                        devices->why, by_number ? "--gpus 0" : "--backend auto");
    }
    return 0;
}

static int take_first(const struct nnc_devices *devices, uint32_t count, int32_t *ret_ordinals) {
    if (count > devices->count) {
        return nnc_fail(-NNC_E_USAGE,
                        "--gpus %" PRIu32 ": this machine has %" PRIu32 "; `--gpus all` takes %s",
                        count, devices->count, devices->count == 1 ? "it" : "them all");
    }
    for (uint32_t i = 0; i < count; i++) {
        ret_ordinals[i] = (int32_t)devices->item[i].ordinal;
    }
    return (int)count;
}

static int take_listed(const struct nnc_devices *devices, const char *list, int32_t *ret_ordinals) {
    int count = 0;
    for (const char *at = list; *at != '\0'; at += *at == ',') {
        char *end;
        unsigned long number = strtoul(at, &end, 10);
        assert(end != at && count < NNC_MAX_RANKS); /* the option's check saw to it */
        if (nnc_gpus_find(devices, (int32_t)number) == NULL) {
            return nnc_fail(-NNC_E_USAGE,
                            "--gpus %s: there is no GPU %lu; this machine has 0 to %" PRIu32, list,
                            number, devices->count - 1);
        }
        ret_ordinals[count++] = (int32_t)number;
        at = end;
    }
    return count;
}

int nnc_gpus_choose(const struct nnc_config *config, const struct nnc_devices *devices,
                    int32_t *ret_ordinals) {
    int code = check_possible(config, devices);
    if (code < 0) {
        return code;
    }
    if (config->gpus[0] == '\0') {
        return take_first(devices, 1, ret_ordinals);
    }
    if (strcmp(config->gpus, "all") == 0) {
        return take_first(devices, devices->count, ret_ordinals);
    }
    if (strchr(config->gpus, ',') == NULL) {
        return take_first(devices, (uint32_t)atoi(config->gpus), ret_ordinals);
    }
    return take_listed(devices, config->gpus, ret_ordinals);
}

const struct nnc_device_info *nnc_gpus_find(const struct nnc_devices *devices, int32_t ordinal) {
    for (uint32_t i = 0; i < devices->count; i++) {
        if ((int32_t)devices->item[i].ordinal == ordinal) {
            return &devices->item[i];
        }
    }
    return NULL;
}

void nnc_gpus_describe(const struct nnc_device_info *device, char *ret_text, size_t bytes) {
    snprintf(ret_text, bytes, "%s, %" PRIu64 " GiB, sm_%" PRIu32, device->name,
             device->memory >> 30, device->capability);
}
