/* SPDX-License-Identifier: Apache-2.0 */
/* Devices, there or described. After the first descriptor both are the same to all other code.
 * Source: cuDNN 9 backend API reference, "CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR". */
#include "gpu/dnn.h"

#include "base/err.h"
#include "gpu/dnn_descriptor.h"
#include "gpu/dnn_plan.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const op_names[NNC_DNN_OP_COUNT] = {
    [NNC_DNN_FORWARD] = "forward",
    [NNC_DNN_FORWARD_BIAS] = "forward+bias",
    [NNC_DNN_FORWARD_BIAS_RELU] = "forward+bias+relu",
    [NNC_DNN_BACKWARD_DATA] = "backward data",
    [NNC_DNN_BACKWARD_FILTER] = "backward filter",
};

static const char *const type_names[NNC_GPU_TYPE_COUNT] = {
    [NNC_GPU_F32] = "fp32",
    [NNC_GPU_BF16] = "bf16",
    [NNC_GPU_F16] = "fp16",
};

uint32_t nnc_dnn_version(void) {
    return (uint32_t)cudnnGetVersion();
}

void nnc_dnn_key_text(const struct nnc_dnn_key *key, char *ret_text, size_t room) {
    snprintf(ret_text, room, "%s %s: x (%u,%u,%u,%u), w (%u,%u,%u,%u), stride %ux%u, padding %ux%u",
             type_names[key->type], op_names[key->op], key->n, key->c, key->h, key->w, key->k,
             key->c, key->r, key->s, key->stride_h, key->stride_w, key->pad_h, key->pad_w);
}

static int device_create(const struct nnc_dnn_attribute *row, struct nnc_dnn_device **ret_device) {
    struct nnc_dnn_device *device = calloc(1, sizeof(*device));
    if (device == NULL) {
        return nnc_fail(-ENOMEM, "no memory for a device");
    }
    int code = nnc_dnn_descriptor_create(CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR, "device properties",
                                         row, 1, &device->properties);
    if (code < 0) {
        nnc_dnn_close(device);
        return code;
    }
    *ret_device = device;
    return 0;
}

int nnc_dnn_open(int ordinal, struct nnc_dnn_device **ret_device) {
    const int32_t number = ordinal;
    const struct nnc_dnn_attribute row = {CUDNN_ATTR_DEVICEPROP_DEVICE_ID, CUDNN_TYPE_INT32, 1,
                                          &number};
    struct nnc_dnn_device *device = NULL;
    int code = device_create(&row, &device);
    code = code < 0 ? code : nnc_dnn_check(cudnnCreate(&device->handle), "handle");
    if (code < 0) {
        nnc_dnn_close(device);
        return nnc_fail_in(code == -ENOMEM ? code : -NNC_E_HARDWARE, "device %d", ordinal);
    }
    *ret_device = device;
    return 0;
}

int nnc_dnn_describe(const char *json, struct nnc_dnn_device **ret_device) {
    const struct nnc_dnn_attribute row = {CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION,
                                          CUDNN_TYPE_CHAR, (int64_t)strlen(json) + 1, json};
    int code = device_create(&row, ret_device);
    return code == 0 || code == -ENOMEM ? code : nnc_fail_in(-NNC_E_FORMAT, "description");
}

void nnc_dnn_close(struct nnc_dnn_device *device) {
    if (device != NULL) {
        if (device->handle != NULL) {
            cudnnDestroy(device->handle);
        }
        nnc_dnn_descriptor_free(device->properties);
        free(device);
    }
}

int nnc_dnn_properties(const struct nnc_dnn_device *device, char **ret_json) {
    return nnc_dnn_descriptor_text(device->properties, "device properties",
                                   CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, ret_json);
}
