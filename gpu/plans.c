/* SPDX-License-Identifier: Apache-2.0 */
/* See plans.h. A key that has no plan is remembered too: the forward pass asks for fused ones
 * first.
 *
 * What it does not do: choose (dnn_select.c), keep (plan_cache.c). */
#include "gpu/plans.h"

#include "base/err.h"
#include "base/log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int nnc_gpu_plans_init(struct nnc_gpu_plans *plans, struct nnc_dnn_device *device,
                       const struct nnc_dnn_policy *policy, const char *cache_dir) {
    plans->device = device;
    plans->policy = *policy;
    char *properties = NULL;
    int rc = nnc_dnn_properties(device, &properties);
    if (rc == 0) {
        rc = nnc_plan_cache_open(cache_dir, nnc_dnn_version(), properties, &plans->cache);
    }
    if (rc == 0) {
        rc = nnc_plan_cache_open(NULL, nnc_dnn_version(), properties, &plans->told);
    }
    free(properties);
    return rc;
}

void nnc_gpu_plans_finish(struct nnc_gpu_plans *plans) {
    for (uint32_t number = 0; number < plans->count; number++) {
        nnc_dnn_plan_free(plans->rows[number].plan);
    }
    free(plans->rows);
    nnc_plan_cache_close(plans->cache);
    nnc_plan_cache_close(plans->told);
    *plans = (struct nnc_gpu_plans){0};
}

/* What rank 0 told comes before what this machine remembers. */
static int obey(struct nnc_gpu_plans *plans, const struct nnc_dnn_key *key) {
    const char *told = nnc_plan_cache_find(plans->told, key, &plans->policy);
    const char *kept = nnc_plan_cache_find(plans->cache, key, &plans->policy);
    if (told != NULL && told[0] == '\0') {
        return nnc_fail(-ENOTSUP, "cuDNN has no plan for this convolution on rank 0");
    }
    bool is_new = told != NULL && (kept == NULL || strcmp(told, kept) != 0);
    return is_new ? nnc_plan_cache_put(plans->cache, key, &plans->policy, told) : 0;
}

/* The first choice is run once, wherever it came from: an engine that fails only when it runs is
 * replaced by one that was seen to run. */
static int choose(struct nnc_gpu_plans *plans, const struct nnc_dnn_key *key,
                  const struct nnc_dnn_timer *timer, struct nnc_dnn_plan **ret_plan) {
    struct nnc_dnn_policy policy = plans->policy;
    int rc = obey(plans, key);
    if (rc == 0) {
        rc = nnc_plan_cache_select(plans->cache, plans->device, key, &policy, timer, ret_plan);
    }
    int64_t ran = rc < 0 ? rc : timer->time(timer->context, *ret_plan);
    if (rc < 0 || ran >= 0) {
        return rc;
    }
    int64_t engine = nnc_dnn_plan_engine(*ret_plan);
    nnc_dnn_plan_free(*ret_plan);
    *ret_plan = NULL;
    if (ran != -ENOTSUP) {
        return (int)ran;
    }
    nnc_log(NNC_LOG_WARN, "engine %lld of cuDNN does not run, the next one is taken: %s",
            (long long)engine, nnc_error_text());
    policy.autotune = policy.autotune < 2 ? 2 : policy.autotune;
    return nnc_dnn_select(plans->device, key, &policy, timer, ret_plan);
}

int nnc_gpu_plans_get(struct nnc_gpu_plans *plans, const struct nnc_dnn_key *key,
                      const struct nnc_dnn_timer *timer, const struct nnc_dnn_plan **ret_plan) {
    for (uint32_t number = 0; number < plans->count; number++) {
        if (memcmp(&plans->rows[number].key, key, sizeof(*key)) == 0) {
            *ret_plan = plans->rows[number].plan;
            return *ret_plan ? 0 : nnc_fail(-ENOTSUP, "cuDNN has no plan for this convolution");
        }
    }
    struct nnc_gpu_plan_row *rows = realloc(plans->rows, (plans->count + 1) * sizeof(*rows));
    if (!rows) {
        return nnc_fail(-ENOMEM, "no memory for %u plans", plans->count + 1);
    }
    plans->rows = rows;
    struct nnc_dnn_plan *plan = NULL;
    int rc = choose(plans, key, timer, &plan);
    if (rc == 0 || rc == -ENOTSUP) {
        rows[plans->count++] = (struct nnc_gpu_plan_row){*key, plan};
        *ret_plan = plan;
    }
    return rc;
}

int nnc_gpu_plans_tell(struct nnc_gpu_plans *plans, char **ret_content, size_t *ret_bytes) {
    int rc = 0;
    for (uint32_t number = 0; rc == 0 && number < plans->count; number++) {
        const struct nnc_gpu_plan_row *row = &plans->rows[number];
        char *text = NULL;
        rc = row->plan ? nnc_dnn_plan_text(row->plan, &text) : 0;
        if (rc == 0) {
            rc = nnc_plan_cache_put(plans->told, &row->key, &plans->policy, text ? text : "");
            rc = rc == -E2BIG ? 0 : rc; /* others choose for themselves then */
        }
        free(text);
    }
    return rc < 0 ? rc : nnc_plan_cache_write(plans->told, ret_content, ret_bytes);
}

void nnc_gpu_plans_hear(struct nnc_gpu_plans *plans, char *content, size_t bytes) {
    if (nnc_plan_cache_read(plans->told, content, bytes) < 0) {
        nnc_log(NNC_LOG_INFO, "rank 0's choice of algorithms is not for this GPU, which chooses "
                              "for itself");
        nnc_error_clear();
    } else if (!nnc_plan_cache_is_under(plans->told, &plans->policy)) {
        nnc_log(NNC_LOG_WARN, "rank 0 chose its algorithms under another --autotune, --workspace "
                              "or --deterministic than this rank, which chooses for itself");
    }
}

void nnc_gpu_plans_save(struct nnc_gpu_plans *plans) {
    if (nnc_plan_cache_save(plans->cache) < 0) {
        nnc_log(NNC_LOG_DEBUG, "convolution plans are not kept: %s", nnc_error_text());
    }
}
