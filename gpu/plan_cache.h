/* SPDX-License-Identifier: Apache-2.0 */
/* Plans kept between runs as text, one file for a kind of device and a version of cuDNN.
 *
 * A cache that cannot be read, or not written, costs the time of making its plans again, and is
 * never an error: a file that is damaged counts as absent and is replaced by the next save.
 *
 *     nnc_dnn_properties(device, &properties);
 *     nnc_plan_cache_open(directory, nnc_dnn_version(), properties, &cache);
 *     nnc_plan_cache_select(cache, device, &key, &policy, &timer, &plan); for each key
 *     nnc_plan_cache_save(cache); */
#ifndef NNC_GPU_PLAN_CACHE_H
#define NNC_GPU_PLAN_CACHE_H

#include "gpu/dnn.h"

struct nnc_plan_cache;

/* What directory holds for devices of this kind: properties as nnc_dnn_properties() gives them.
 * directory NULL: nothing is read or saved. Owner: close with nnc_plan_cache_close().
 * Errors: -ENOMEM; errors of the hash. */
int nnc_plan_cache_open(const char *directory, uint32_t cudnn_version, const char *properties,
                        struct nnc_plan_cache **ret_cache);

/* Does not save. Takes NULL. */
void nnc_plan_cache_close(struct nnc_plan_cache *cache);

/* The text of the plan that was selected for the key under the policy, or NULL.
 * Owner: the cache, until the next put or close. */
const char *nnc_plan_cache_find(const struct nnc_plan_cache *cache, const struct nnc_dnn_key *key,
                                const struct nnc_dnn_policy *policy);

/* Whether all plans that are there were selected under the policy. */
bool nnc_plan_cache_is_under(const struct nnc_plan_cache *cache,
                             const struct nnc_dnn_policy *policy);

/* Keep a copy of the text, instead of the one that was there. The oldest plans go when there are
 * too many. Errors: -ENOMEM; -E2BIG: this text is too long to be kept. */
int nnc_plan_cache_put(struct nnc_plan_cache *cache, const struct nnc_dnn_key *key,
                       const struct nnc_dnn_policy *policy, const char *text);

/* nnc_dnn_select(), with a look into the cache first; a plan that had to be chosen is put. A text
 * that cuDNN refuses is a miss. Owner and errors: as nnc_dnn_select(). */
int nnc_plan_cache_select(struct nnc_plan_cache *cache, struct nnc_dnn_device *device,
                          const struct nnc_dnn_key *key, const struct nnc_dnn_policy *policy,
                          const struct nnc_dnn_timer *timer, struct nnc_dnn_plan **ret_plan);

/* All plans as bytes, and back, beside those that are there: for another process with a device of
 * the same kind. content[bytes] is 0, and what is read is written over.
 * Owner: caller frees the content. Errors: -ENOMEM; errors of the hash; read: -NNC_E_FORMAT: of
 * another kind of device or version, or damaged: the cache is then empty. */
int nnc_plan_cache_write(const struct nnc_plan_cache *cache, char **ret_content, size_t *ret_bytes);
int nnc_plan_cache_read(struct nnc_plan_cache *cache, char *content, size_t bytes);

/* Write the file if anything was put; another process' file of the same name is replaced.
 * Errors: of nnc_vfs_make_dirs() and nnc_output_save(), for the log. */
int nnc_plan_cache_save(struct nnc_plan_cache *cache);

#endif
