/* SPDX-License-Identifier: Apache-2.0 */
/* A plan from the cache or, where that has none that works, from cuDNN. */
#include "base/err.h"
#include "base/log.h"
#include "gpu/plan_cache.h"

#include <stdlib.h>

/* Whatever goes wrong costs the next run some time. */
static void keep(struct nnc_plan_cache *cache, const struct nnc_dnn_key *key,
                 const struct nnc_dnn_policy *policy, const struct nnc_dnn_plan *plan) {
    char *text = NULL;
    int code = nnc_dnn_plan_text(plan, &text);
    code = code < 0 ? code : nnc_plan_cache_put(cache, key, policy, text);
    if (code < 0) {
        nnc_log(NNC_LOG_DEBUG, "a plan is not kept: %s", nnc_error_text());
        nnc_error_clear();
    }
    free(text);
}

int nnc_plan_cache_select(struct nnc_plan_cache *cache, struct nnc_dnn_device *device,
                          const struct nnc_dnn_key *key, const struct nnc_dnn_policy *policy,
                          const struct nnc_dnn_timer *timer, struct nnc_dnn_plan **ret_plan) {
    const char *text = nnc_plan_cache_find(cache, key, policy);
    if (text != NULL && nnc_dnn_plan_load(device, key, text, ret_plan) == 0) {
        return 0;
    }
    if (text != NULL) {
        nnc_log(NNC_LOG_DEBUG, "a plan of the cache is chosen again: %s", nnc_error_text());
    }
    int code = nnc_dnn_select(device, key, policy, timer, ret_plan);
    if (code == 0) {
        keep(cache, key, policy, *ret_plan);
    }
    return code;
}
