/* SPDX-License-Identifier: Apache-2.0 */
/* The inside of devices and plans, for the files gpu/dnn*.c alone. */
#ifndef NNC_GPU_DNN_PLAN_H
#define NNC_GPU_DNN_PLAN_H

#include "gpu/dnn.h"

#include <cudnn_backend.h>

struct nnc_dnn_device {
    cudnnBackendDescriptor_t properties;
    cudnnHandle_t handle; /* NULL: described, not there */
};

struct nnc_dnn_plan {
    cudnnBackendDescriptor_t plan;
    cudnnBackendDescriptor_t config; /* what it was made of */
    struct nnc_dnn_key key;
    size_t workspace; /* bytes */
    uint32_t notes;   /* NNC_DNN_* */
    int64_t engine;
};

/* Facts about a configuration that cost no plan. */
struct nnc_dnn_facts {
    uint32_t notes; /* NNC_DNN_* */
    int64_t engine;
};

/* Errors: of nnc_dnn_check(). */
int nnc_dnn_facts_read(cudnnBackendDescriptor_t config, struct nnc_dnn_facts *ret_facts);

/* Finalise a plan for the configuration.
 * Owner: the plan takes config on success; free with nnc_dnn_plan_free().
 * Errors: -ENOTSUP: not this configuration; else of nnc_dnn_check(), -ENOMEM. */
int nnc_dnn_plan_create(const struct nnc_dnn_device *device, const struct nnc_dnn_key *key,
                        cudnnBackendDescriptor_t config, const struct nnc_dnn_facts *facts,
                        struct nnc_dnn_plan **ret_plan);

#endif
