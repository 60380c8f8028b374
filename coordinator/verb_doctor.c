/* SPDX-License-Identifier: Apache-2.0 */
/* doctor: what this machine offers and what stands in the way, one line a finding, each with its
 * remedy.
 *
 * What is missing is told, and is no error, unless it was asked for: with --gpus the program ends
 * with status 2 where a training with the same --gpus would. Of CUDA it knows what
 * `nncoord-trainer --devices` answers; it links none of it. */
#include "coordinator/verbs.h"

#include "base/err.h"
#include "base/paths.h"
#include "coordinator/nvml.h"
#include "coordinator/process.h"
#include "ipc/gpus.h"

#include <assert.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define PLUGIN "nncoord_cuda.so"

struct finding {
    const char *name;
    char value[NNC_PATH_MAX + 128];
    char remedy[NNC_ERROR_TEXT_MAX]; /* "": all is well */
    bool in_the_way;                 /* of what the options ask for */
};

#define FINDINGS_MAX 32

struct findings {
    struct finding item[FINDINGS_MAX];
    int count;
};

/* remedy NULL: all is well. */
static struct finding *add(struct findings *findings, const char *name, const char *remedy) {
    assert(findings->count < FINDINGS_MAX);
    struct finding *item = &findings->item[findings->count++];
    item->name = name;
    item->in_the_way = false;
    snprintf(item->remedy, sizeof(item->remedy), "%s", remedy != NULL ? remedy : "");
    return item;
}

#define SAY(finding, ...) snprintf((finding)->value, sizeof((finding)->value), __VA_ARGS__)

static void look_at_machine(const struct nnc_machine *machine, struct findings *findings) {
    SAY(add(findings, "cpu", NULL), "%s, %" PRIu32 " CPUs to use (%s)", machine->cpu_name,
        machine->cpus, machine->cpus_limit);
    SAY(add(findings, "kernel", NULL), "%s", machine->kernel);
    bool limited = machine->memory_cgroup < machine->memory_available;
    SAY(add(findings, "memory", NULL), "%" PRIu64 " MiB to use (%s)", machine->memory >> 20,
        limited ? "cgroup memory.max" : "MemAvailable");
    SAY(add(findings, "io_uring",
            machine->uring_errno == 0 ? NULL
                                      : "reading falls back to pread; allow io_uring_setup, "
                                        "io_uring_enter and io_uring_register to gain speed"),
        "%s", nnc_machine_uring_reason(machine->uring_errno));
    SAY(add(findings, "open files",
            machine->nofile_hard < 1024 ? "raise `ulimit -Hn` to 1024" : NULL),
        "%" PRIu64 " (hard limit %" PRIu64 ")", machine->nofile_soft, machine->nofile_hard);
}

/* A training goes on when its rings cannot be pinned, and copies each batch once more: slower, but
 * in nobody's way. The rings are those of the default options. */
static void look_at_locked_memory(const struct nnc_machine *machine,
                                  const struct nnc_config *config, uint32_t gpus,
                                  struct findings *findings) {
    uint64_t image = (uint64_t)config->train_crop_size * config->train_crop_size * 3;
    uint64_t rings = image * config->batch_size * config->ring_depth * gpus;
    bool unlimited = machine->memlock_soft == (uint64_t)RLIM_INFINITY;
    bool small = !unlimited && machine->memlock_soft < rings;
    char remedy[160];
    snprintf(remedy, sizeof(remedy),
             "the system may refuse to pin rings of %" PRIu64 " MiB, batches are then copied once "
             "more; `ulimit -l unlimited`, docker run --ulimit memlock=-1",
             rings >> 20);
    struct finding *finding = add(findings, "locked memory", small ? remedy : NULL);
    if (unlimited) {
        SAY(finding, "unlimited");
    } else {
        SAY(finding, "%" PRIu64 " KiB", machine->memlock_soft >> 10);
    }
}

/* ---- GPUs ---- */

static struct nnc_devices ask_devices(void) {
    char directory[NNC_PATH_MAX] = "";
    struct nnc_devices devices = {.count = 0};
    nnc_path_programs(directory, sizeof(directory));
    if (nnc_process_devices(directory, &devices) < 0) {
        snprintf(devices.why, sizeof(devices.why), "%s", nnc_error_text());
    }
    return devices;
}

static void look_at_plugin(const struct nnc_devices *devices, bool wanted,
                           struct findings *findings) {
    char path[NNC_PATH_MAX + 64] = "";
    nnc_path_programs(path, NNC_PATH_MAX);
    snprintf(path + strlen(path), 64, "/" PLUGIN);
    bool there = access(path, F_OK) == 0;
    const char *remedy = !there ? "build with CUDA (-Dcuda=enabled) to compute on GPUs"
                                : "install what the loader names, or its folder in LD_LIBRARY_PATH";
    struct finding *finding = add(findings, PLUGIN, devices->loaded ? NULL : remedy);
    finding->in_the_way = wanted && !devices->loaded;
    if (devices->loaded) {
        SAY(finding, "%s", path);
    } else if (there) {
        SAY(finding, "cannot be loaded: %s", devices->why);
    } else {
        SAY(finding, "%s is missing", path);
    }
}

/* The versions that the plug-in runs with; nothing is known of them without it. */
static void look_at_versions(const struct nnc_device_versions *versions, bool wanted,
                             struct findings *findings) {
    bool old = versions->driver / 10000 < versions->runtime / 10000;
    struct finding *driver =
        add(findings, "cuda driver",
            !old                    ? NULL
            : versions->driver == 0 ? "install NVIDIA's driver; start a container with its GPUs"
                                    : "install a newer driver");
    driver->in_the_way = wanted && old;
    if (versions->driver == 0) {
        SAY(driver, "none is installed");
    } else {
        SAY(driver, "supports CUDA %u.%u", versions->driver / 10000, versions->driver / 100 % 100);
    }
    SAY(add(findings, "cuda runtime", NULL), "%u.%u", versions->runtime / 10000,
        versions->runtime / 100 % 100);
    SAY(add(findings, "cudnn", NULL), "%u.%u.%u", versions->cudnn / 10000,
        versions->cudnn / 100 % 100, versions->cudnn % 100);
    SAY(add(findings, "nccl", NULL), "%u.%u.%u", versions->nccl / 10000, versions->nccl / 100 % 100,
        versions->nccl % 100);
}

static void look_at_monitor(struct findings *findings) {
    struct nnc_nvml *nvml = NULL;
    bool watched = nnc_nvml_open(&nvml) == 0;
    SAY(add(findings, "gpu driver", watched ? NULL : "load and memory of GPUs will not be shown"),
        "%s", watched ? nnc_nvml_driver(nvml) : nnc_error_text());
    nnc_nvml_close(nvml);
}

/* Returns how many GPUs a training with these options takes; 1 where it asks for GPUs in vain. */
static uint32_t look_at_gpus(const struct nnc_config *config, struct findings *findings) {
    struct nnc_devices devices = ask_devices();
    int32_t ordinals[NNC_MAX_RANKS];
    bool wanted = nnc_gpus_wanted(config);
    look_at_plugin(&devices, wanted, findings);
    if (devices.loaded) {
        look_at_versions(&devices.versions, wanted, findings);
    }
    if (devices.count == 0) {
        struct finding *none = add(findings, "gpus", "`--gpus 0` trains on the CPU");
        none->in_the_way = wanted;
        SAY(none, "none: %s", devices.loaded ? devices.why : PLUGIN " is not loaded");
        return wanted;
    }
    look_at_monitor(findings);
    int taken = wanted ? nnc_gpus_choose(config, &devices, ordinals) : 0;
    struct finding *gpus = add(findings, "gpus", taken < 0 ? nnc_error_text() : NULL);
    char text[128];
    nnc_gpus_describe(&devices.item[0], text, sizeof(text));
    SAY(gpus, "%" PRIu32 ", the first: %s", devices.count, text);
    gpus->in_the_way = taken < 0;
    return taken < 0 ? 1 : (uint32_t)taken;
}

/* ---- the installation ---- */

static void look_at_installation(struct findings *findings) {
    static const char *const programs[] = {"nncoord-loader", "nncoord-trainer", "nncoord-models",
                                           "nncoord-data"};
    char directory[NNC_PATH_MAX] = "";
    nnc_path_programs(directory, sizeof(directory));
    for (size_t i = 0; i < sizeof(programs) / sizeof(programs[0]); i++) {
        char path[NNC_PATH_MAX + 64];
        snprintf(path, sizeof(path), "%s/%s", directory, programs[i]);
        bool there = access(path, X_OK) == 0;
        SAY(add(findings, programs[i],
                there ? NULL : "install the whole build, not one file of it"),
            "%s%s", path, there ? "" : " is missing");
    }
    char models[NNC_PATH_MAX];
    bool found = nnc_path_data("models", models, sizeof(models)) >= 0 && access(models, R_OK) == 0;
    SAY(add(findings, "models", found ? NULL : "install the models folder"), "%s",
        found ? models : "not found");
}

/* ---- telling ---- */

static void print_findings_json(const struct findings *findings) {
    json_t *object = json_object();
    for (int i = 0; i < findings->count; i++) {
        const struct finding *item = &findings->item[i];
        bool well = item->remedy[0] == '\0';
        json_t *entry = json_pack("{s:s, s:b, s:b}", "value", item->value, "ok", well, "in_the_way",
                                  item->in_the_way);
        if (!well) {
            json_object_set_new(entry, "remedy", json_string(item->remedy));
        }
        json_object_set_new(object, item->name, entry);
    }
    json_dumpf(object, stdout, JSON_INDENT(2));
    putchar('\n');
    json_decref(object);
}

static void print_findings(const struct findings *findings) {
    for (int i = 0; i < findings->count; i++) {
        const struct finding *item = &findings->item[i];
        printf("%-16s %s%s%s%s\n", item->name, item->value, item->remedy[0] != '\0' ? " -> " : "",
               item->in_the_way ? "stands in the way: " : "", item->remedy);
    }
}

/* 0, or the findings by name that what was asked for fails of. */
static int judge(const struct nnc_config *config, const struct findings *findings) {
    char names[256] = "";
    for (int i = 0; i < findings->count; i++) {
        const struct finding *item = &findings->item[i];
        if (item->in_the_way) {
            size_t used = strlen(names);
            snprintf(names + used, sizeof(names) - used, "%s%s", used == 0 ? "" : ", ", item->name);
        }
    }
    return names[0] == '\0' ? 0
                            : nnc_fail(-NNC_E_USAGE, "what stands in the way of --gpus %s: %s",
                                       config->gpus, names);
}

int nnc_verb_doctor(const struct nnc_verb_context *context) {
    struct findings findings = {.count = 0};
    const struct nnc_config *config = &context->command->config;
    look_at_machine(&context->machine, &findings);
    uint32_t gpus = look_at_gpus(config, &findings);
    look_at_locked_memory(&context->machine, config, gpus, &findings);
    look_at_installation(&findings);
    if (config->json) {
        print_findings_json(&findings);
    } else {
        print_findings(&findings);
    }
    return judge(config, &findings);
}
