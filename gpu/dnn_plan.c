/* SPDX-License-Identifier: Apache-2.0 */
/* Plans: from a configuration or a text, what they need, and how they run.
 *
 * A plan keeps the configuration it was made of; the operation graph may go once it is finalised.
 * One execution makes a list of pointers, which costs a few allocations inside cuDNN: with a
 * captured graph of CUDA it happens once. Source: cuDNN 9 backend API reference,
 * "CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR", "CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR". */
#include "gpu/dnn_plan.h"

#include "base/err.h"
#include "gpu/dnn_descriptor.h"
#include "gpu/dnn_graph.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define ROWS(rows) (rows), sizeof(rows) / sizeof((rows)[0])

/* The error text with the shape in front. */
static int fail_for(int code, const struct nnc_dnn_key *key) {
    char shape[NNC_DNN_KEY_TEXT_MAX];
    nnc_dnn_key_text(key, shape, sizeof(shape));
    return nnc_fail_in(code, "%s", shape);
}

/* Collect those of cuDNN's two lists of notes that matter here. */
static int read_notes(cudnnBackendDescriptor_t engine, uint32_t *ret_notes) {
    cudnnBackendNumericalNote_t numerical[CUDNN_NUMERICAL_NOTE_TYPE_COUNT];
    cudnnBackendBehaviorNote_t behavior[CUDNN_BEHAVIOR_NOTE_TYPE_COUNT];
    int64_t numericals = nnc_dnn_descriptor_read(
        engine, "numerical notes", CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, CUDNN_TYPE_NUMERICAL_NOTE,
        CUDNN_NUMERICAL_NOTE_TYPE_COUNT, numerical);
    int64_t behaviors =
        nnc_dnn_descriptor_read(engine, "behaviour notes", CUDNN_ATTR_ENGINE_BEHAVIOR_NOTE,
                                CUDNN_TYPE_BEHAVIOR_NOTE, CUDNN_BEHAVIOR_NOTE_TYPE_COUNT, behavior);
    if (numericals < 0 || behaviors < 0) {
        return (int)(numericals < 0 ? numericals : behaviors);
    }
    uint32_t notes = 0;
    for (int64_t place = 0; place < numericals; place++) {
        if (numerical[place] == CUDNN_NUMERICAL_NOTE_TENSOR_CORE) {
            notes |= NNC_DNN_TENSOR_CORE;
        } else if (numerical[place] == CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC) {
            notes |= NNC_DNN_NONDETERMINISTIC;
        }
    }
    for (int64_t place = 0; place < behaviors; place++) {
        if (behavior[place] == CUDNN_BEHAVIOR_NOTE_RUNTIME_COMPILATION) {
            notes |= NNC_DNN_COMPILED;
        }
    }
    *ret_notes = notes;
    return 0;
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
        code = read_notes(engine, &facts.notes);
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
    if (workspace < 0) {
        return nnc_fail(-NNC_E_HARDWARE, "cuDNN: a workspace of %lld bytes", (long long)workspace);
    }
    struct nnc_dnn_plan *plan = malloc(sizeof(*plan));
    if (plan == NULL) {
        return nnc_fail(-ENOMEM, "no memory for a plan");
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

/* The configuration of a plan that came from text. Owner: caller frees. */
static int read_config(cudnnBackendDescriptor_t descriptor, cudnnBackendDescriptor_t *ret_config) {
    cudnnBackendDescriptor_t config = NULL;
    int64_t code = nnc_dnn_descriptor_blank(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR, &config);
    if (code >= 0) {
        code = nnc_dnn_descriptor_read(descriptor, "configuration",
                                       CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG,
                                       CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &config);
    }
    if (code < 0) {
        nnc_dnn_descriptor_free(config);
        return (int)code;
    }
    *ret_config = config;
    return 0;
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
    cudnnBackendDescriptor_t config = NULL;
    struct nnc_dnn_facts facts;
    int code = nnc_dnn_descriptor_create(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR, "plan from text",
                                         ROWS(rows), &descriptor);
    code = code < 0 ? code : read_config(descriptor, &config);
    code = code < 0 ? code : nnc_dnn_facts_read(config, &facts);
    code = code < 0 ? code : wrap(key, descriptor, &facts, ret_plan);
    if (code < 0) {
        nnc_dnn_descriptor_free(config);
        nnc_dnn_descriptor_free(descriptor);
        return fail_for(code == -ENOMEM ? code : -NNC_E_FORMAT, key);
    }
    (*ret_plan)->config = config;
    return 0;
}

/* The list of pointers of one execution. Owner: caller frees. */
static int pack(const struct nnc_dnn_plan *plan, const struct nnc_dnn_memory *memory,
                cudnnBackendDescriptor_t *ret_pointers) {
    const bool bias =
        plan->key.op == NNC_DNN_FORWARD_BIAS || plan->key.op == NNC_DNN_FORWARD_BIAS_RELU;
    assert(!bias || memory->bias != NULL);
    assert(plan->workspace == 0 || memory->workspace != NULL);
    const int64_t uids[] = {NNC_DNN_UID_X, NNC_DNN_UID_W, NNC_DNN_UID_Y, NNC_DNN_UID_BIAS};
    const void *const pointers[] = {memory->x, memory->w, memory->y, memory->bias};
    const int64_t count = bias ? 4 : 3;
    const struct nnc_dnn_attribute rows[] = {
        {CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, count, uids},
        {CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, count, pointers},
        {CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1, &memory->workspace},
    };
    return nnc_dnn_descriptor_create(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, "pointers", ROWS(rows),
                                     ret_pointers);
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
    return code < 0 ? fail_for(-NNC_E_HARDWARE, &plan->key) : 0;
}
