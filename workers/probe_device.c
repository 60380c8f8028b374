/* SPDX-License-Identifier: Apache-2.0 */
/* Devices and precisions of the verbs that look at a backend without a run. */
#include "workers/probe_device.h"

#include "base/paths.h"
#include "ipc/gpus.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum {
    TF32_CAPABILITY = 80, /* the first that has it */
};

static int open_gpus(const struct nnc_config *config, struct nnc_probe *probe) {
    struct nnc_devices devices = {.count = 0};
    int32_t ordinals[NNC_MAX_RANKS];
    int code = nnc_backend_find(NNC_BACKEND_CUDA, &probe->ops);
    if (code < 0) {
        return code;
    }
    probe->ops->device->list(&devices);
    int count = nnc_gpus_choose(config, &devices, ordinals);
    if (count < 0) {
        return count;
    }
    probe->on_device = true;
    probe->count = probe->ranks = (uint32_t)count;
    for (uint32_t number = 0; number < probe->count; number++) {
        char words[80];
        probe->info[number] = *nnc_gpus_find(&devices, ordinals[number]);
        nnc_gpus_describe(&probe->info[number], words, sizeof(words));
        snprintf(probe->title[number], sizeof(probe->title[number]), "GPU %" PRId32 ": %s",
                 ordinals[number], words);
    }
    return 0;
}

int nnc_probe_open(const struct nnc_config *config, struct nnc_probe *ret_probe) {
    memset(ret_probe, 0, sizeof(*ret_probe));
    ret_probe->config = config;
    if (nnc_path_cache("plans", ret_probe->cache_dir, sizeof(ret_probe->cache_dir)) < 0) {
        ret_probe->cache_dir[0] = '\0';
    }
    if (nnc_gpus_wanted(config)) {
        return open_gpus(config, ret_probe);
    }
    int code = nnc_backend_find(config->backend, &ret_probe->ops);
    if (code < 0) {
        return code;
    }
    ret_probe->count = 1;
    ret_probe->ranks = config->cpu_ranks;
    snprintf(ret_probe->title[0], sizeof(ret_probe->title[0]), "%s: %.80s", ret_probe->ops->name,
             ret_probe->ops->description);
    return 0;
}

uint32_t nnc_probe_amps(const struct nnc_probe *probe, uint32_t number, int32_t ret_amps[2]) {
    int32_t amp = probe->config->amp;
    ret_amps[0] = NNC_AMP_OFF;
    if (!probe->on_device) {
        return 1;
    }
    if (amp != NNC_AMP_AUTO) {
        ret_amps[0] = amp;
        return 1;
    }
    ret_amps[1] = probe->info[number].bf16 != 0 ? NNC_AMP_BF16 : NNC_AMP_FP16;
    return 2;
}

enum nnc_precision nnc_probe_precision(const struct nnc_probe *probe, uint32_t number,
                                       int32_t amp) {
    if (amp == NNC_AMP_BF16 || amp == NNC_AMP_FP16) {
        return amp == NNC_AMP_BF16 ? NNC_PRECISION_BF16 : NNC_PRECISION_FP16;
    }
    return probe->info[number].capability >= TF32_CAPABILITY ? NNC_PRECISION_TF32
                                                             : NNC_PRECISION_FP32;
}

struct nnc_device_params nnc_probe_params(const struct nnc_probe *probe, uint32_t number,
                                          int32_t amp) {
    const struct nnc_config *config = probe->config;
    if (!probe->on_device) {
        return (struct nnc_device_params){0};
    }
    return (struct nnc_device_params){.ordinal = probe->info[number].ordinal,
                                      .amp = amp,
                                      .deterministic = config->deterministic,
                                      .graphs = config->cuda_graphs,
                                      .autotune = config->autotune,
                                      .workspace_bytes = (size_t)config->workspace << 20,
                                      .cache_dir =
                                          probe->cache_dir[0] != '\0' ? probe->cache_dir : NULL};
}
