/* SPDX-License-Identifier: Apache-2.0 */
/* Engines, plans, execution. The list that the heuristics give begins with what a careful caller
 * leaves out:
 *
 *   0 compiled at run time       3 deterministic, sums from the front; may be made to fail
 *   1 2 GiB of workspace         4 deterministic, sums from elsewhere, 64 KiB of workspace
 *   2 not deterministic          5 does not finalise
 *                                6 deterministic, fp32 units only; the fallback list
 *
 * Faults may name them: "engine 3". To run engine 0 is a violation. Engine 2 gives other bits each
 * time; 3 and 4 differ from each other, so ranks that run different engines show. Workspaces are
 * overwritten with NaN, so two users of one at a time show. */
#include "tests/gpu/fakecuda/dnn.h"
#include "tests/gpu/fakecuda/fakecuda.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    TEXT_MAX = 4096,
    ENGINES = 7,
};

struct engine {
    bool compiled, tensor_core, nondeterministic, broken, fallback;
    size_t workspace;
    uint64_t rotation;
};

static const struct engine engines[ENGINES] = {
    {.compiled = true, .tensor_core = true},
    {.tensor_core = true, .workspace = (size_t)2 << 30},
    {.tensor_core = true, .nondeterministic = true},
    {.tensor_core = true},
    {.tensor_core = true, .workspace = 65536, .rotation = 5},
    {.tensor_core = true, .broken = true},
    {.fallback = true, .rotation = 3},
};
static const int64_t listed[] = {0, 1, 5, 2, 3, 4};

/* In the order in which they are missed. */
static const char *const device_keys[] = {"maxGridSize",
                                          "deviceVer",
                                          "multiProcessorCount",
                                          "warpSize",
                                          "maxSharedMemoryPerBlock",
                                          "maxSharedMemoryPerBlockOptin",
                                          "reservedSharedMemoryPerBlock",
                                          "maxRegistersPerSM",
                                          "maxCtasPerSM",
                                          "maxThreadsPerBlock",
                                          "maxThreadsPerSM",
                                          "regsPerBlock",
                                          "totalGlobalMem",
                                          "smClockRateKHz",
                                          "l2CacheSize",
                                          "maxBlockSize",
                                          "memClockRateKHz",
                                          "supportCoopLaunch",
                                          "pciDeviceId",
                                          "isTccDriver",
                                          "cudaDeviceId",
                                          "driverVer",
                                          "deviceName"};

/* ---- device properties ---- */

cudnnStatus_t dnn_check_properties(const struct dnn_descriptor *properties) {
    const char *text = dnn_values(properties, CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION);
    int64_t device = dnn_number(properties, CUDNN_ATTR_DEVICEPROP_DEVICE_ID, -1);
    if (!text && !dnn_values(properties, CUDNN_ATTR_DEVICEPROP_HANDLE) &&
        (device < 0 || device >= fake_settings()->devices)) {
        return dnn_fail(CUDNN_STATUS_BAD_PARAM, "device properties: of which device?");
    }
    for (size_t i = 0; text && i < sizeof device_keys / sizeof device_keys[0]; i++) {
        char quoted[64];
        snprintf(quoted, sizeof quoted, "\"%s\"", device_keys[i]);
        if (!strstr(text, quoted)) {
            return dnn_fail(CUDNN_STATUS_BAD_PARAM, "device properties: %s is missing",
                            device_keys[i]);
        }
    }
    return CUDNN_STATUS_SUCCESS;
}

/* The settings' description, or one made up in its likeness, where each device has its number. */
static void describe(int device, char text[TEXT_MAX]) {
    size_t used = 0;
    const char *json = fake_device_json(device);
    if (json[0]) {
        snprintf(text, TEXT_MAX, "%s", json);
        return;
    }
    for (size_t i = 0; i < sizeof device_keys / sizeof device_keys[0]; i++) {
        const char *key = device_keys[i];
        char number[12];
        snprintf(number, sizeof number, "%d", device);
        const char *value = !strcmp(key, "deviceVer")    ? "800"
                            : !strcmp(key, "deviceName") ? "\"Stand-in A100\""
                            : strstr(key, "DeviceId")    ? number
                            : !strncmp(key, "maxBlockS", 9) || !strncmp(key, "maxGrid", 7)
                                ? "[1024,1024,64]"
                                : "32";
        used += (size_t)snprintf(text + used, TEXT_MAX - used, "%s\"%s\":%s", i ? "," : "{", key,
                                 value);
    }
    snprintf(text + used, TEXT_MAX - used, "}");
}

static int64_t device_version(const struct dnn_descriptor *properties) {
    const char *text =
        properties ? dnn_values(properties, CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION) : NULL;
    const char *found = text ? strstr(text, "\"deviceVer\"") : NULL;
    found = found ? strchr(found, ':') : NULL;
    int64_t device = properties ? dnn_number(properties, CUDNN_ATTR_DEVICEPROP_DEVICE_ID, 0) : 0;
    return found ? strtoll(found + 1, NULL, 10) : fake_device_number((int)device, "deviceVer", 800);
}

/* ---- what is computed when it is read ---- */

static cudnnStatus_t give(const void *values, size_t size, int64_t count, int64_t room,
                          int64_t *ret_count, void *ret_values) {
    *ret_count = count;
    if (ret_values) {
        memcpy(ret_values, values, size * (size_t)(room < count ? room : count));
    }
    return CUDNN_STATUS_SUCCESS;
}

/* Make a blank descriptor of the caller one of an engine. */
static cudnnStatus_t fill(struct dnn_descriptor *blank, cudnnBackendDescriptorType_t kind,
                          const struct dnn_problem *problem, int64_t engine) {
    if (!blank || blank->kind != kind) {
        return dnn_fail(CUDNN_STATUS_BAD_PARAM, "the descriptor to fill is of another kind");
    }
    blank->problem = *problem;
    blank->engine = engine;
    blank->finalized = true;
    return CUDNN_STATUS_SUCCESS;
}

static cudnnStatus_t give_results(const struct dnn_descriptor *heuristics, int64_t room,
                                  int64_t *ret_count, void *ret_values) {
    const struct dnn_problem *problem =
        &dnn_child(heuristics, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, 0)->problem;
    int64_t sm = device_version(dnn_child(heuristics, CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, 0));
    int64_t mode = dnn_number(heuristics, CUDNN_ATTR_ENGINEHEUR_MODE, -1);
    static const int64_t fallback[] = {6};
    const int64_t *list = mode == CUDNN_HEUR_MODE_FALLBACK ? fallback : listed;
    int64_t count = mode == CUDNN_HEUR_MODE_FALLBACK ? 1 : (int64_t)(sizeof listed / 8);
    if (problem->type == FAKE_NO_TYPE || (problem->type == FAKE_BF16 && sm < 800)) {
        count = 0;
    }
    struct dnn_descriptor *const *blanks = ret_values;
    cudnnStatus_t status = CUDNN_STATUS_SUCCESS;
    for (int64_t i = 0; i < count && i < room && blanks && status == CUDNN_STATUS_SUCCESS; i++) {
        status = fill(blanks[i], CUDNN_BACKEND_ENGINECFG_DESCRIPTOR, problem, list[i]);
    }
    *ret_count = blanks && room < count ? room : count;
    return status;
}

static void write_plan(const struct dnn_descriptor *plan, char text[TEXT_MAX]) {
    const struct dnn_problem *g = &plan->problem;
    snprintf(text, TEXT_MAX,
             "{\"standIn\":1,\"engine\":%" PRId64 ",\"op\":%d,\"bias\":%d,\"relu\":%d,\"type\":%d,"
             "\"shape\":[%" PRId64 ",%" PRId64 ",%" PRId64 ",%" PRId64 ",%" PRId64 ",%" PRId64
             ",%" PRId64 ",%" PRId64 ",%" PRId64 "],\"window\":[%" PRId64 ",%" PRId64 ",%" PRId64
             ",%" PRId64 "],\"uids\":[%" PRId64 ",%" PRId64 ",%" PRId64 ",%" PRId64 "]}",
             plan->engine, g->op, g->bias, g->relu, g->type, g->n, g->c, g->h, g->w, g->k, g->r,
             g->s, g->p, g->q, g->stride[0], g->stride[1], g->pad[0], g->pad[1], g->uid[0],
             g->uid[1], g->uid[2], g->uid[3]);
}

static cudnnStatus_t read_plan(struct dnn_descriptor *plan, const char *text) {
    struct dnn_problem *g = &plan->problem;
    int op, bias, relu, type;
    int got = sscanf(
        text,
        "{\"standIn\":1,\"engine\":%" SCNd64 ",\"op\":%d,\"bias\":%d,\"relu\":%d,\"type\":%d,"
        "\"shape\":[%" SCNd64 ",%" SCNd64 ",%" SCNd64 ",%" SCNd64 ",%" SCNd64 ",%" SCNd64
        ",%" SCNd64 ",%" SCNd64 ",%" SCNd64 "],\"window\":[%" SCNd64 ",%" SCNd64 ",%" SCNd64
        ",%" SCNd64 "],\"uids\":[%" SCNd64 ",%" SCNd64 ",%" SCNd64 ",%" SCNd64 "]}",
        &plan->engine, &op, &bias, &relu, &type, &g->n, &g->c, &g->h, &g->w, &g->k, &g->r, &g->s,
        &g->p, &g->q, &g->stride[0], &g->stride[1], &g->pad[0], &g->pad[1], &g->uid[0], &g->uid[1],
        &g->uid[2], &g->uid[3]);
    if (got != 22 || plan->engine < 0 || plan->engine >= ENGINES) {
        return dnn_fail(CUDNN_STATUS_BAD_PARAM, "plan: the text is not one of a plan");
    }
    g->op = (enum dnn_op)op;
    g->type = (enum fake_type)type;
    g->bias = bias;
    g->relu = relu;
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t dnn_check_plan(struct dnn_descriptor *plan) {
    const char *text = dnn_values(plan, CUDNN_ATTR_EXECUTION_PLAN_JSON_REPRESENTATION);
    const struct dnn_descriptor *config =
        dnn_child(plan, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, 0);
    if (!dnn_values(plan, CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP) &&
        !dnn_values(plan, (dnn_name)400 /* handle */)) {
        return dnn_fail(CUDNN_STATUS_BAD_PARAM, "plan: for which device?");
    }
    if (text) {
        return read_plan(plan, text);
    }
    if (!config) {
        return dnn_fail(CUDNN_STATUS_BAD_PARAM, "plan: neither configuration nor text");
    }
    if (engines[config->engine].broken) {
        return dnn_fail(CUDNN_STATUS_NOT_SUPPORTED, "plan: engine %lld does not support this",
                        (long long)config->engine);
    }
    plan->problem = config->problem;
    plan->engine = config->engine;
    return CUDNN_STATUS_SUCCESS;
}

static cudnnStatus_t give_text(const struct dnn_descriptor *descriptor, int64_t room,
                               int64_t *ret_count, void *ret_values) {
    char text[TEXT_MAX];
    if (descriptor->kind == CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR) {
        int64_t device = dnn_number(descriptor, CUDNN_ATTR_DEVICEPROP_DEVICE_ID, fake_device());
        describe((int)device, text);
    } else {
        write_plan(descriptor, text);
    }
    return give(text, 1, (int64_t)strlen(text) + 1, room, ret_count, ret_values);
}

cudnnStatus_t dnn_computed(const struct dnn_descriptor *descriptor, dnn_name name, int64_t room,
                           int64_t *ret_count, void *ret_values) {
    const struct engine *engine = &engines[descriptor->engine < 0 ? 0 : descriptor->engine];
    struct dnn_descriptor *blank = ret_values && room > 0 ? *(void **)ret_values : NULL;
    int64_t workspace = (int64_t)engine->workspace;
    cudnnBackendNumericalNote_t notes[2];
    cudnnBackendBehaviorNote_t compiled = CUDNN_BEHAVIOR_NOTE_RUNTIME_COMPILATION;
    int64_t count = 0;
    *ret_count = 1;
    switch ((int)name) {
    case CUDNN_ATTR_ENGINEHEUR_RESULTS:
        return give_results(descriptor, room, ret_count, ret_values);
    case CUDNN_ATTR_ENGINECFG_ENGINE:
        return fill(blank, CUDNN_BACKEND_ENGINE_DESCRIPTOR, &descriptor->problem,
                    descriptor->engine);
    case CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG:
        return fill(blank, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR, &descriptor->problem,
                    descriptor->engine);
    case CUDNN_ATTR_ENGINE_GLOBAL_INDEX:
        return give(&descriptor->engine, 8, 1, room, ret_count, ret_values);
    case CUDNN_ATTR_ENGINECFG_WORKSPACE_SIZE:
    case CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE:
        return give(&workspace, 8, 1, room, ret_count, ret_values);
    case CUDNN_ATTR_ENGINE_NUMERICAL_NOTE:
        if (engine->tensor_core) {
            notes[count++] = CUDNN_NUMERICAL_NOTE_TENSOR_CORE;
        }
        if (engine->nondeterministic) {
            notes[count++] = CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC;
        }
        return give(notes, sizeof notes[0], count, room, ret_count, ret_values);
    case CUDNN_ATTR_ENGINE_BEHAVIOR_NOTE:
        return give(&compiled, sizeof compiled, engine->compiled, room, ret_count, ret_values);
    case CUDNN_ATTR_EXECUTION_PLAN_JSON_REPRESENTATION:
    case CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION:
        return give_text(descriptor, room, ret_count, ret_values);
    default:
        return dnn_fail(CUDNN_STATUS_NOT_SUPPORTED, "descriptor %d has no attribute %d to read",
                        descriptor->kind, name);
    }
}

/* ---- execution ---- */

struct execution {
    struct dnn_problem problem;
    const struct engine *engine;
    void *memory[DNN_TENSORS], *workspace;
};

static void run(void *closure) {
    struct execution *execution = closure;
    const struct engine *engine = execution->engine;
    static uint64_t runs;
    uint64_t rotation = engine->nondeterministic ? ++runs * 7 : engine->rotation;
    void *memory[DNN_TENSORS] = {0};
    for (int i = 0; i < DNN_TENSORS; i++) {
        memory[i] = execution->memory[i] ? fake_translate(execution->memory[i]) : NULL;
    }
    if (engine->workspace) {
        memset(fake_translate(execution->workspace), 0xff, engine->workspace);
    }
    dnn_convolve(&execution->problem, rotation, memory);
}

/* The pointers of the pack by the identifiers of the problem's tensors. */
static cudnnStatus_t find_pointers(const struct dnn_descriptor *pack, struct execution *execution) {
    const int64_t *uids = dnn_values(pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS);
    void *const *pointers = dnn_values(pack, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS);
    int64_t count = dnn_count(pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS);
    if (count != dnn_count(pack, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS)) {
        return dnn_fail(CUDNN_STATUS_BAD_PARAM, "variant pack: identifiers and pointers differ");
    }
    for (int i = 0; i < DNN_TENSORS - !execution->problem.bias; i++) {
        for (int64_t k = 0; k < count; k++) {
            if (uids[k] == execution->problem.uid[i]) {
                execution->memory[i] = pointers[k];
            }
        }
        if (!execution->memory[i]) {
            return dnn_fail(CUDNN_STATUS_BAD_PARAM, "variant pack: no pointer for tensor %lld",
                            (long long)execution->problem.uid[i]);
        }
        if ((uintptr_t)execution->memory[i] % 16) {
            fake_violation("cuDNN: tensor %lld at %p is not aligned to 16 bytes",
                           (long long)execution->problem.uid[i], execution->memory[i]);
        }
    }
    void *const *workspace = dnn_values(pack, CUDNN_ATTR_VARIANT_PACK_WORKSPACE);
    execution->workspace = workspace ? *workspace : NULL;
    return CUDNN_STATUS_SUCCESS;
}

static cudaError_t queue(cudaStream_t stream, struct execution *execution) {
    static const char *const names[] = {"cuDNN forward", "cuDNN backward data",
                                        "cuDNN backward filter"};
    static const enum dnn_tensor outputs[] = {DNN_Y, DNN_X, DNN_W};
    struct fake_range ranges[DNN_TENSORS + 1];
    size_t count = 0;
    for (int i = 0; i < DNN_TENSORS; i++) {
        if (execution->memory[i]) {
            ranges[count++] = (struct fake_range){
                .memory = execution->memory[i],
                .bytes = (size_t)dnn_tensor_count(&execution->problem, (enum dnn_tensor)i) *
                         fake_type_bytes(execution->problem.type),
                .write = i == (int)outputs[execution->problem.op]};
        }
    }
    if (execution->engine->workspace) {
        ranges[count++] = (struct fake_range){
            .memory = execution->workspace, .bytes = execution->engine->workspace, .write = true};
    }
    struct fake_work work = {.name = names[execution->problem.op],
                             .ranges = ranges,
                             .count = count,
                             .run = run,
                             .done = free,
                             .closure = execution};
    cudaStream_t real = fake_stream_of(stream);
    if (!real) {
        free(execution);
        return cudaErrorInvalidResourceHandle;
    }
    return fake_submit(real, &work);
}

/* A fault of an engine: its execution fails, or the work that it queues gets it. */
static cudnnStatus_t meet_fault(int64_t engine) {
    char name[FAKE_NAME_MAX];
    int64_t ms = 0;
    snprintf(name, sizeof name, "engine %" PRId64, engine);
    enum fake_action action = fake_fault(name, fake_device(), &ms);
    if (action == FAKE_FAIL) {
        return dnn_fail(CUDNN_STATUS_EXECUTION_FAILED, "%s cannot run here", name);
    }
    if (action != FAKE_NONE) {
        fake_put_fault(action, ms);
    }
    return CUDNN_STATUS_SUCCESS;
}

static cudnnStatus_t execute(cudnnHandle_t handle, const struct dnn_descriptor *plan,
                             const struct dnn_descriptor *pack) {
    struct execution *execution = calloc(1, sizeof *execution);
    cudaStream_t stream = NULL;
    if (!execution || !plan->finalized || !pack->finalized ||
        cudnnGetStream(handle, &stream) != CUDNN_STATUS_SUCCESS) {
        free(execution);
        return dnn_fail(CUDNN_STATUS_BAD_PARAM_NOT_FINALIZED, "execute: not finalised");
    }
    execution->problem = plan->problem;
    execution->engine = &engines[plan->engine];
    cudnnStatus_t status = find_pointers(pack, execution);
    if (status == CUDNN_STATUS_SUCCESS && engines[plan->engine].compiled) {
        fake_violation("cudnnBackendExecute: engine %d compiles at run time, for seconds",
                       (int)plan->engine);
    }
    status = status == CUDNN_STATUS_SUCCESS ? meet_fault(plan->engine) : status;
    if (status != CUDNN_STATUS_SUCCESS) {
        free(execution);
        return status;
    }
    cudaError_t code = queue(stream, execution);
    return code == cudaSuccess ? CUDNN_STATUS_SUCCESS
                               : dnn_fail(CUDNN_STATUS_EXECUTION_FAILED_CUDART, "CUDA: %d", code);
}

cudnnStatus_t cudnnBackendExecute(cudnnHandle_t handle, cudnnBackendDescriptor_t plan,
                                  cudnnBackendDescriptor_t pack) {
    cudaError_t code = fake_enter("cudnnBackendExecute");
    cudnnStatus_t status = code ? dnn_fail(CUDNN_STATUS_EXECUTION_FAILED_CUDART, "CUDA: %d", code)
                                : execute(handle, plan, pack);
    fake_leave(cudaSuccess);
    return status;
}
