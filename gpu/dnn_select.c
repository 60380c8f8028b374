/* SPDX-License-Identifier: Apache-2.0 */
/* The choice of a plan.
 *
 *   key -> operation graph -> configurations, best first (mode A, then FALLBACK)
 *       -> without those that compile at run time, and where asked the nondeterministic ones
 *       -> finalised one by one, without those that need too much workspace
 *       -> the first; or, with autotune, the fastest of the first N that run
 *
 * Which device supports what is asked of cuDNN each time; no table of devices is kept here.
 * Source: cuDNN 9 backend API reference, "CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR". Counting only plans
 * that run: as PyTorch's benchmark mode does (its issues 77002 and 91032). */
#include "base/err.h"
#include "gpu/dnn_descriptor.h"
#include "gpu/dnn_graph.h"
#include "gpu/dnn_plan.h"

#include <assert.h>
#include <errno.h>

#define ROWS(rows)   (rows), sizeof(rows) / sizeof((rows)[0])
#define CONFIGS_MAX  64 /* of one mode; mode A gives about 40 */
#define TIMES_A_PLAN 3

struct selection {
    struct nnc_dnn_device *device;
    const struct nnc_dnn_key *key;
    const struct nnc_dnn_policy *policy;
    const struct nnc_dnn_timer *timer; /* NULL: the first plan is taken */
    uint32_t timed;                    /* plans that ran */
    int64_t best_ns;
    struct nnc_dnn_plan *best;
    /* Configurations by what became of them, for the error text. */
    uint32_t offered, compiling, nondeterministic, refused, too_large, not_running;
};

/* Median of the times of a plan, negative when one of its executions fails. */
static int64_t median_time(const struct nnc_dnn_timer *timer, const struct nnc_dnn_plan *plan) {
    int64_t times[TIMES_A_PLAN];
    for (int round = 0; round < TIMES_A_PLAN; round++) {
        int64_t time = timer->time(timer->context, plan);
        if (time < 0) {
            return time;
        }
        int place = round;
        for (; place > 0 && times[place - 1] > time; place--) {
            times[place] = times[place - 1];
        }
        times[place] = time;
    }
    return times[TIMES_A_PLAN / 2];
}

/* Compare a plan with the best so far; takes it. 1: the search is over; 0: go on.
 * Errors: of the timer but -ENOTSUP. */
static int consider(struct selection *selection, struct nnc_dnn_plan *plan) {
    if (plan->workspace > selection->policy->workspace_cap) {
        selection->too_large++;
        nnc_dnn_plan_free(plan);
        return 0;
    }
    if (selection->timer == NULL) {
        selection->best = plan;
        return 1;
    }
    int64_t time_ns = median_time(selection->timer, plan);
    if (time_ns < 0) {
        selection->not_running++;
        nnc_dnn_plan_free(plan);
        return time_ns == -ENOTSUP ? 0 : (int)time_ns;
    }
    if (selection->best == NULL || time_ns < selection->best_ns) {
        struct nnc_dnn_plan *slower = selection->best;
        selection->best = plan;
        selection->best_ns = time_ns;
        plan = slower;
    }
    nnc_dnn_plan_free(plan);
    return ++selection->timed == selection->policy->autotune;
}

/* Try a configuration. 1: the search is over; 0: go on. *config becomes NULL when it is used up.
 * Errors: of nnc_dnn_check() and of the timer but -ENOTSUP. */
static int try_config(struct selection *selection, cudnnBackendDescriptor_t *config) {
    struct nnc_dnn_facts facts;
    int code = nnc_dnn_facts_read(*config, &facts);
    if (code < 0) {
        return code;
    }
    selection->offered++;
    if ((facts.notes & NNC_DNN_COMPILED) != 0) {
        selection->compiling++;
        return 0;
    }
    if (selection->policy->deterministic && (facts.notes & NNC_DNN_NONDETERMINISTIC) != 0) {
        selection->nondeterministic++;
        return 0;
    }
    struct nnc_dnn_plan *plan = NULL;
    code = nnc_dnn_plan_create(selection->device, selection->key, *config, &facts, &plan);
    if (code == -ENOMEM) {
        return code;
    }
    /* Whatever else cuDNN says against a configuration, the next one may do. */
    if (code < 0) {
        selection->refused++;
        return 0;
    }
    *config = NULL;
    return consider(selection, plan);
}

/* The configurations of one mode. Returns how many; none is no error.
 * Owner: the caller frees all of configs, CONFIGS_MAX entries that start NULL. */
static int64_t list_configs(const struct selection *selection, cudnnBackendDescriptor_t graph,
                            cudnnBackendHeurMode_t mode, cudnnBackendDescriptor_t *configs) {
    const struct nnc_dnn_attribute rows[] = {
        {CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &graph},
        {CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode},
        {CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1,
         &selection->device->properties},
    };
    cudnnBackendDescriptor_t heuristic = NULL;
    int64_t count = nnc_dnn_descriptor_create(CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR, "heuristics",
                                              ROWS(rows), &heuristic);
    if (count >= 0) {
        count = nnc_dnn_descriptor_read(heuristic, "heuristics", CUDNN_ATTR_ENGINEHEUR_RESULTS,
                                        CUDNN_TYPE_BACKEND_DESCRIPTOR, 0, NULL);
    }
    int64_t room = count < CONFIGS_MAX ? count : CONFIGS_MAX;
    for (int64_t number = 0; number < room && count > 0; number++) {
        int code = nnc_dnn_descriptor_blank(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR, &configs[number]);
        count = code < 0 ? code : count;
    }
    if (count > 0) {
        count = nnc_dnn_descriptor_read(heuristic, "heuristics", CUDNN_ATTR_ENGINEHEUR_RESULTS,
                                        CUDNN_TYPE_BACKEND_DESCRIPTOR, room, configs);
    }
    nnc_dnn_descriptor_free(heuristic);
    return count;
}

/* 1: the search is over; 0: go on. */
static int try_mode(struct selection *selection, cudnnBackendDescriptor_t graph,
                    cudnnBackendHeurMode_t mode) {
    cudnnBackendDescriptor_t configs[CONFIGS_MAX] = {NULL};
    int64_t count = list_configs(selection, graph, mode, configs);
    int code = count == -ENOTSUP || count >= 0 ? 0 : (int)count;
    for (int64_t number = 0; number < count && code == 0; number++) {
        code = try_config(selection, &configs[number]);
    }
    for (size_t number = 0; number < CONFIGS_MAX; number++) {
        nnc_dnn_descriptor_free(configs[number]);
    }
    return code;
}

/* Why there is no plan. Any shape has one that is deterministic and needs no workspace
 * (cuDNN 9.19), so that what is left is a type that the device cannot compute in, or plans that do
 * not run. */
static int no_plan(const struct selection *selection) {
    char shape[NNC_DNN_KEY_TEXT_MAX];
    nnc_dnn_key_text(selection->key, shape, sizeof(shape));
    const char *advice = "";
    if (selection->key->type == NNC_GPU_BF16 && selection->not_running == 0) {
        advice = "; try --amp fp16";
    }
    return nnc_fail(-ENOTSUP,
                    "cuDNN has no plan on this device for %s (of %u engines %u compile at run "
                    "time, %u are nondeterministic, %u refuse, %u need too much workspace, %u do "
                    "not run)%s",
                    shape, selection->offered, selection->compiling, selection->nondeterministic,
                    selection->refused, selection->too_large, selection->not_running, advice);
}

int nnc_dnn_select(struct nnc_dnn_device *device, const struct nnc_dnn_key *key,
                   const struct nnc_dnn_policy *policy, const struct nnc_dnn_timer *timer,
                   struct nnc_dnn_plan **ret_plan) {
    static const cudnnBackendHeurMode_t modes[] = {CUDNN_HEUR_MODE_A, CUDNN_HEUR_MODE_FALLBACK};
    assert(policy->autotune < 2 || timer != NULL);
    struct selection selection = {.device = device,
                                  .key = key,
                                  .policy = policy,
                                  .timer = policy->autotune < 2 ? NULL : timer};
    struct nnc_dnn_graph graph = {0};
    int code = nnc_dnn_graph_init(key, &graph);
    for (size_t mode = 0; mode < sizeof(modes) / sizeof(modes[0]) && code == 0; mode++) {
        code = try_mode(&selection, nnc_dnn_graph_whole(&graph), modes[mode]);
    }
    nnc_dnn_graph_finish(&graph);
    if (code < 0) {
        nnc_dnn_plan_free(selection.best);
        char shape[NNC_DNN_KEY_TEXT_MAX];
        nnc_dnn_key_text(key, shape, sizeof(shape));
        return nnc_fail_in(code, "%s", shape);
    }
    if (selection.best == NULL) {
        return no_plan(&selection);
    }
    nnc_error_clear();
    *ret_plan = selection.best;
    return 0;
}
