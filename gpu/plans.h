/* SPDX-License-Identifier: Apache-2.0 */
/* The convolution plans of a backend: each shape is chosen once, however many layers and
 * executables have it, and remembered on disk.
 *
 * Ranks with the same kind of device run the same plans: rank 0 tells what it chose, and the others
 * hear that before they ask for plans. */
#ifndef NNC_GPU_PLANS_H
#define NNC_GPU_PLANS_H

#include "gpu/dnn.h"
#include "gpu/plan_cache.h"

struct nnc_gpu_plan_row {
    struct nnc_dnn_key key;
    struct nnc_dnn_plan *plan; /* NULL: this key has none */
};

struct nnc_gpu_plans {
    struct nnc_dnn_device *device; /* borrowed */
    struct nnc_dnn_policy policy;
    struct nnc_plan_cache *cache;
    struct nnc_plan_cache *told; /* by rank 0; an empty text: it has no plan for this key */
    struct nnc_gpu_plan_row *rows;
    uint32_t count;
};

/* plans is zero-filled before. cache_dir NULL: nothing is kept.
 * Owner: end with nnc_gpu_plans_finish(), after an error too. Errors: -ENOMEM, -NNC_E_HARDWARE. */
int nnc_gpu_plans_init(struct nnc_gpu_plans *plans, struct nnc_dnn_device *device,
                       const struct nnc_dnn_policy *policy, const char *cache_dir);
void nnc_gpu_plans_finish(struct nnc_gpu_plans *plans);

/* The plan for a key, which the timer ran. Errors: as nnc_dnn_select(). */
int nnc_gpu_plans_get(struct nnc_gpu_plans *plans, const struct nnc_dnn_key *key,
                      const struct nnc_dnn_timer *timer, const struct nnc_dnn_plan **ret_plan);

/* All that was chosen, and nothing else, as bytes for the plans of another process; and what it
 * does with them. content[bytes] is 0, and what is heard is written over. Plans of another kind of
 * device, another cuDNN or another policy go unheard, with a line in the log.
 * Owner: caller frees the content. Errors: -ENOMEM. */
int nnc_gpu_plans_tell(struct nnc_gpu_plans *plans, char **ret_content, size_t *ret_bytes);
void nnc_gpu_plans_hear(struct nnc_gpu_plans *plans, char *content, size_t bytes);

/* Write what is new to disk, which may fail without harm. */
void nnc_gpu_plans_save(struct nnc_gpu_plans *plans);

#endif
