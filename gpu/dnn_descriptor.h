/* SPDX-License-Identifier: Apache-2.0 */
/* cuDNN's descriptors as tables: one row an attribute, made and finalised in one call.
 *
 * cuDNN has no other objects: a tensor, an operation, a graph, a configuration, a plan and a list
 * of pointers are all descriptors. Only the seven functions of its backend API are used. */
#ifndef NNC_GPU_DNN_DESCRIPTOR_H
#define NNC_GPU_DNN_DESCRIPTOR_H

#include <cudnn_backend.h>
#include <stddef.h>
#include <stdint.h>

struct nnc_dnn_attribute {
    cudnnBackendAttributeName_t name;
    cudnnBackendAttributeType_t type;
    int64_t count;
    const void *values; /* copied by cuDNN */
};

/* 0 for success, else the error text "cuDNN: WHAT: STATUS: its own words" and a code.
 * Errors: -ENOTSUP for the statuses "not supported", -ENOMEM, else -NNC_E_HARDWARE. */
int nnc_dnn_check(cudnnStatus_t status, const char *what);

/* A finalised descriptor with these attributes. what: for the error text.
 * Owner: free with nnc_dnn_descriptor_free(). Errors: as nnc_dnn_check(). */
int nnc_dnn_descriptor_create(cudnnBackendDescriptorType_t kind, const char *what,
                              const struct nnc_dnn_attribute *rows, size_t count,
                              cudnnBackendDescriptor_t *ret_descriptor);

/* An empty one for cuDNN to write into. Owner and errors: as nnc_dnn_descriptor_create(). */
int nnc_dnn_descriptor_blank(cudnnBackendDescriptorType_t kind,
                             cudnnBackendDescriptor_t *ret_descriptor);

/* Takes NULL. */
void nnc_dnn_descriptor_free(cudnnBackendDescriptor_t descriptor);

/* Read up to count values into ret_values; how many there are is the result.
 * Errors: as nnc_dnn_check(). */
int64_t nnc_dnn_descriptor_read(cudnnBackendDescriptor_t descriptor, const char *what,
                                cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
                                int64_t count, void *ret_values);

/* The text of an attribute of type CHAR. Owner: caller frees. Errors: as above, -ENOMEM. */
int nnc_dnn_descriptor_text(cudnnBackendDescriptor_t descriptor, const char *what,
                            cudnnBackendAttributeName_t name, char **ret_text);

#endif
