/* SPDX-License-Identifier: Apache-2.0 */
/* cuDNN's descriptors: create, set each attribute, finalise; and its statuses as codes with text.
 * Source: cuDNN 9 backend API reference, "cudnnBackendSetAttribute()", "cudnnStatus_t". */
#include "gpu/dnn_descriptor.h"

#include "base/err.h"

#include <errno.h>
#include <stdlib.h>

int nnc_dnn_check(cudnnStatus_t status, const char *what) {
    if (status == CUDNN_STATUS_SUCCESS) {
        return 0;
    }
    char words[512] = "";
    cudnnGetLastErrorString(words, sizeof(words));
    int code = -NNC_E_HARDWARE;
    if (CUDNN_STATUS_CATEGORY(status) == CUDNN_STATUS_NOT_SUPPORTED) {
        code = -ENOTSUP;
    } else if (status == CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED ||
               status == CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED) {
        code = -ENOMEM;
    }
    return nnc_fail(code, "cuDNN: %s: %s: %s", what, cudnnGetErrorString(status), words);
}

int nnc_dnn_descriptor_blank(cudnnBackendDescriptorType_t kind,
                             cudnnBackendDescriptor_t *ret_descriptor) {
    return nnc_dnn_check(cudnnBackendCreateDescriptor(kind, ret_descriptor), "new descriptor");
}

int nnc_dnn_descriptor_create(cudnnBackendDescriptorType_t kind, const char *what,
                              const struct nnc_dnn_attribute *rows, size_t count,
                              cudnnBackendDescriptor_t *ret_descriptor) {
    cudnnBackendDescriptor_t descriptor = NULL;
    cudnnStatus_t status = cudnnBackendCreateDescriptor(kind, &descriptor);
    for (size_t row = 0; row < count && status == CUDNN_STATUS_SUCCESS; row++) {
        status = cudnnBackendSetAttribute(descriptor, rows[row].name, rows[row].type,
                                          rows[row].count, rows[row].values);
    }
    if (status == CUDNN_STATUS_SUCCESS) {
        status = cudnnBackendFinalize(descriptor);
    }
    int code = nnc_dnn_check(status, what);
    if (code < 0) {
        nnc_dnn_descriptor_free(descriptor);
        return code;
    }
    *ret_descriptor = descriptor;
    return 0;
}

void nnc_dnn_descriptor_free(cudnnBackendDescriptor_t descriptor) {
    if (descriptor != NULL) {
        cudnnBackendDestroyDescriptor(descriptor);
    }
}

int64_t nnc_dnn_descriptor_read(cudnnBackendDescriptor_t descriptor, const char *what,
                                cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
                                int64_t count, void *ret_values) {
    int64_t there = 0;
    int code = nnc_dnn_check(
        cudnnBackendGetAttribute(descriptor, name, type, count, &there, ret_values), what);
    return code < 0 ? code : there;
}

int nnc_dnn_descriptor_text(cudnnBackendDescriptor_t descriptor, const char *what,
                            cudnnBackendAttributeName_t name, char **ret_text) {
    int64_t bytes = nnc_dnn_descriptor_read(descriptor, what, name, CUDNN_TYPE_CHAR, 0, NULL);
    if (bytes < 0) {
        return (int)bytes;
    }
    /* One more: whether cuDNN counts the final zero is not documented. */
    char *text = calloc((size_t)bytes + 1, 1);
    if (text == NULL) {
        return nnc_fail(-ENOMEM, "%s: no memory for %lld bytes", what, (long long)bytes);
    }
    int64_t got = nnc_dnn_descriptor_read(descriptor, what, name, CUDNN_TYPE_CHAR, bytes, text);
    if (got < 0) {
        free(text);
        return (int)got;
    }
    *ret_text = text;
    return 0;
}
