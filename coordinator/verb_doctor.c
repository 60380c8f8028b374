/* SPDX-License-Identifier: Apache-2.0 */
/* doctor: what this machine offers and what stands in the way, one line a finding, each with its
 * remedy. */
#include "coordinator/verbs.h"

#include "base/err.h"
#include "base/paths.h"
#include "coordinator/nvml.h"
#include "coordinator/process.h"
#include "ipc/gpus.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

struct finding {
    const char *name;
    char value[160];
    const char *remedy; /* NULL: all is well */
};

#define FINDINGS_MAX 16

struct findings {
    struct finding item[FINDINGS_MAX];
    int count;
};

static struct finding *add(struct findings *findings, const char *name, const char *remedy) {
    struct finding *item = &findings->item[findings->count++];
    item->name = name;
    item->remedy = remedy;
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
    bool unlimited = machine->memlock_soft == (uint64_t)RLIM_INFINITY;
    SAY(add(findings, "locked memory", NULL), unlimited ? "unlimited%s" : "%s%" PRIu64 " KiB",
        unlimited ? "" : "", machine->memlock_soft >> 10);
}

static void look_at_gpus(struct findings *findings) {
    char directory[NNC_PATH_MAX] = "";
    struct nnc_devices devices = {.count = 0};
    nnc_path_programs(directory, sizeof(directory));
    if (nnc_process_devices(directory, &devices) < 0) {
        snprintf(devices.why, sizeof(devices.why), "%s", nnc_error_text());
    }
    if (devices.count == 0) {
        SAY(add(findings, "gpus", "`--gpus 0` trains on the CPU"), "none: %.140s", devices.why);
        return;
    }
    struct nnc_nvml *nvml = NULL;
    bool watched = nnc_nvml_open(&nvml) == 0;
    SAY(add(findings, "gpu driver", watched ? NULL : "load and memory of GPUs will not be shown"),
        "%.150s", watched ? nnc_nvml_driver(nvml) : nnc_error_text());
    nnc_nvml_close(nvml);
    char text[128];
    nnc_gpus_describe(&devices.item[0], text, sizeof(text));
    SAY(add(findings, "gpus", NULL), "%" PRIu32 ", the first: %s", devices.count, text);
}

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
            "%.120s%s", path, there ? "" : " is missing");
    }
    char models[NNC_PATH_MAX];
    bool found = nnc_path_data("models", models, sizeof(models)) >= 0 && access(models, R_OK) == 0;
    SAY(add(findings, "models", found ? NULL : "install the models folder"), "%.150s",
        found ? models : "not found");
}

static int print_findings_json(const struct findings *findings) {
    json_t *object = json_object();
    for (int i = 0; i < findings->count; i++) {
        const struct finding *item = &findings->item[i];
        json_t *entry = json_pack("{s:s, s:b}", "value", item->value, "ok", item->remedy == NULL);
        if (item->remedy != NULL) {
            json_object_set_new(entry, "remedy", json_string(item->remedy));
        }
        json_object_set_new(object, item->name, entry);
    }
    json_dumpf(object, stdout, JSON_INDENT(2));
    putchar('\n');
    json_decref(object);
    return 0;
}

int nnc_verb_doctor(const struct nnc_verb_context *context) {
    struct findings findings = {.count = 0};
    look_at_machine(&context->machine, &findings);
    look_at_gpus(&findings);
    look_at_installation(&findings);
    if (context->command->config.json) {
        return print_findings_json(&findings);
    }
    for (int i = 0; i < findings.count; i++) {
        const struct finding *item = &findings.item[i];
        printf("%-16s %s%s%s\n", item->name, item->value, item->remedy != NULL ? " -> " : "",
               item->remedy != NULL ? item->remedy : "");
    }
    return 0;
}
