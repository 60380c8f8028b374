/* SPDX-License-Identifier: Apache-2.0 */
/* Plans: from a configuration or a text, what they need, and how they run.
 * Source: cuDNN 9 backend API reference, "CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR",
 * "CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR". */
#include "gpu/dnn_plan.h"

#include "base/err.h"
#include "gpu/dnn_descriptor.h"
#include "gpu/dnn_graph.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define ROWS(rows) (rows), sizeof(rows) / sizeof((rows)[0])

static int read_notes(cudnnBackendDescriptor_t engine, struct nnc_dnn_facts *facts) {
    cudnnBackendNumericalNote_t numerical[CUDNN_NUMERICAL_NOTE_TYPE_COUNT];
    int64_t count = nnc_dnn_descriptor_read(
        engine, "numerical notes", CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, CUDNN_TYPE_NUMERICAL_NOTE,
        CUDNN_NUMERICAL_NOTE_TYPE_COUNT, numerical);
    for (int64_t note = 0; note < count; note++) {
        facts->notes |= numerical[note] == CUDNN_NUMERICAL_NOTE_TENSOR_CORE ? NNC_DNN_TENSOR_CORE
                        : numerical[note] == CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC
                            ? NNC_DNN_NONDETERMINISTIC
                            : 0;
    }
    if (count < 0) {
        return (int)count;
    }
    cudnnBackendBehaviorNote_t behavior[CUDNN_BEHAVIOR_NOTE_TYPE_COUNT];
    count =
        nnc_dnn_descriptor_read(engine, "behaviour notes", CUDNN_ATTR_ENGINE_BEHAVIOR_NOTE,
                                CUDNN_TYPE_BEHAVIOR_NOTE, CUDNN_BEHAVIOR_NOTE_TYPE_COUNT, behavior);
    for (int64_t note = 0; note < count; note++) {
        facts->compiles |= behavior[note] == CUDNN_BEHAVIOR_NOTE_RUNTIME_COMPILATION;
    }
    return count < 0 ? (int)count : 0;
}

int nnc_dnn_facts_read(cudnnBackendDescriptor_t config, struct nnc_dnn_facts *ret_facts) {
    struct nnc_dnn_facts facts = {0};
    cudnnBackendDescriptor_t engine = NULL;
    int64_t code = nnc_dnn_descriptor_blank(CUDNN_BACKEND_ENGINE_DESCRIPTOR, &engine);
    if (code >= 0) {
        code = nnc_dnn_descriptor_read(config, "engine", CUDNN_ATTR_ENGINECFG_ENGINE,
                                       CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &engine);
    }
    if (code >= 0) {
        code = nnc_dnn_descriptor_read(engine, "engine number", CUDNN_ATTR_ENGINE_GLOBAL_INDEX,
                                       CUDNN_TYPE_INT64, 1, &facts.engine);
    }
    if (code >= 0) {
        code = read_notes(engine, &facts);
    }
    nnc_dnn_descriptor_free(engine);
    if (code < 0) {
        return (int)code;
    }
    *ret_facts = facts;
    return 0;
}

/* A plan around a finalised descriptor, which it takes on success. */
static int wrap(const struct nnc_dnn_key *key, cudnnBackendDescriptor_t descriptor,
                const struct nnc_dnn_facts *facts, struct nnc_dnn_plan **ret_plan) {
    int64_t workspace = 0;
    int64_t code =
        nnc_dnn_descriptor_read(descriptor, "workspace", CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE,
                                CUDNN_TYPE_INT64, 1, &workspace);
    if (code < 0) {
        return (int)code;
    }
    struct nnc_dnn_plan *plan = malloc(sizeof(*plan));
    if (plan == NULL || workspace < 0) {
        free(plan);
        return plan == NULL ? nnc_fail(-ENOMEM, "no memory for a plan")
                            : nnc_fail(-NNC_E_HARDWARE, "cuDNN: a workspace of %lld bytes",
                                       (long long)workspace);
    }
    *plan = (struct nnc_dnn_plan){.plan = descriptor,
                                  .key = *key,
                                  .workspace = (size_t)workspace,
                                  .notes = facts->notes,
                                  .engine = facts->engine};
    *ret_plan = plan;
    return 0;
}

int nnc_dnn_plan_create(const struct nnc_dnn_device *device, const struct nnc_dnn_key *key,
                        cudnnBackendDescriptor_t config, const struct nnc_dnn_facts *facts,
                        struct nnc_dnn_plan **ret_plan) {
    const struct nnc_dnn_attribute rows[] = {
        {CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &config},
        {CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1,
         &device->properties},
    };
    cudnnBackendDescriptor_t descriptor = NULL;
    int code = nnc_dnn_descriptor_create(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR, "plan",
                                         ROWS(rows), &descriptor);
    code = code < 0 ? code : wrap(key, descriptor, facts, ret_plan);
    if (code < 0) {
        nnc_dnn_descriptor_free(descriptor);
        return code;
    }
    (*ret_plan)->config = config;
    return 0;
}

void nnc_dnn_plan_free(struct nnc_dnn_plan *plan) {
    if (plan != NULL) {
        nnc_dnn_descriptor_free(plan->plan);
        nnc_dnn_descriptor_free(plan->config);
        free(plan);
    }
}

size_t nnc_dnn_plan_workspace(const struct nnc_dnn_plan *plan) {
    return plan->workspace;
}

uint32_t nnc_dnn_plan_notes(const struct nnc_dnn_plan *plan) {
    return plan->notes;
}

int64_t nnc_dnn_plan_engine(const struct nnc_dnn_plan *plan) {
    return plan->engine;
}

int nnc_dnn_plan_text(const struct nnc_dnn_plan *plan, char **ret_text) {
    return nnc_dnn_descriptor_text(plan->plan, "plan as text",
                                   CUDNN_ATTR_EXECUTION_PLAN_JSON_REPRESENTATION, ret_text);
}

int nnc_dnn_plan_load(struct nnc_dnn_device *device, const struct nnc_dnn_key *key,
                      const char *text, struct nnc_dnn_plan **ret_plan) {
    const struct nnc_dnn_attribute rows[] = {
        {CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1,
         &device->properties},
        {CUDNN_ATTR_EXECUTION_PLAN_JSON_REPRESENTATION, CUDNN_TYPE_CHAR, (int64_t)strlen(text) + 1,
         text},
    };
    cudnnBackendDescriptor_t descriptor = NULL;
    int code = nnc_dnn_descriptor_create(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR, "plan from text",
                                         ROWS(rows), &descriptor);
    if (code < 0) {
        return code == -ENOMEM ? code : -NNC_E_FORMAT;
    }
    cudnnBackendDescriptor_t config = NULL;
    struct nnc_dnn_facts facts = {0};
    code = nnc_dnn_descriptor_blank(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR, &config);
    if (code >= 0) {
        int64_t got = nnc_dnn_descriptor_read(descriptor, "configuration",
                                              CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG,
                                              CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &config);
        code = got < 0 ? (int)got : 0;
    }
    code = code < 0 ? code : nnc_dnn_facts_read(config, &facts);
    code = code < 0 ? code : wrap(key, descriptor, &facts, ret_plan);
    if (code < 0) {
        nnc_dnn_descriptor_free(config);
        nnc_dnn_descriptor_free(descriptor);
        return code;
    }
    (*ret_plan)->config = config;
    return 0;
}

static int pack(const struct nnc_dnn_plan *plan, const struct nnc_dnn_memory *memory,
                cudnnBackendDescriptor_t *ret_pack) {
    const bool bias = memory->bias != NULL;
    const int64_t uids[] = {NNC_DNN_UID_X, NNC_DNN_UID_W, NNC_DNN_UID_Y, NNC_DNN_UID_BIAS};
    const void *const pointers[] = {memory->x, memory->w, memory->y, memory->bias};
    const int64_t count = bias ? 4 : 3;
    const struct nnc_dnn_attribute rows[] = {
        {CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, count, uids},
        {CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, count, pointers},
        {CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1, &memory->workspace},
    };
    return nnc_dnn_descriptor_create(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, "pointers", rows,
                                     plan->workspace > 0 ? 3 : 2, ret_pack);
}

int nnc_dnn_execute(struct nnc_dnn_device *device, const struct nnc_dnn_plan *plan,
                    cudaStream_t stream, const struct nnc_dnn_memory *memory) {
    assert(device->handle != NULL);
    cudnnBackendDescriptor_t pointers = NULL;
    int code = nnc_dnn_check(cudnnSetStream(device->handle, stream), "stream");
    code = code < 0 ? code : pack(plan, memory, &pointers);
    if (code >= 0) {
        code = nnc_dnn_check(cudnnBackendExecute(device->handle, plan->plan, pointers), "execute");
    }
    nnc_dnn_descriptor_free(pointers);
    return code == 0 || code == -ENOMEM ? code : -NNC_E_HARDWARE;
}
