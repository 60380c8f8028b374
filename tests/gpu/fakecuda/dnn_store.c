/* SPDX-License-Identifier: Apache-2.0 */
/* Descriptors of the graph API: one table says which attributes a kind has, of which type, and
 * which it must have.
 *
 * Invariants: 1. A descriptor that the caller destroyed lives on in attributes that hold it.
 *             2. A finalised descriptor does not change. */
#include "tests/gpu/fakecuda/dnn.h"

#include <stdlib.h>
#include <string.h>

enum {
    MAGIC = 0x646e6e31,
};

struct rule {
    cudnnBackendDescriptorType_t kind;
    dnn_name name;
    cudnnBackendAttributeType_t type;
    int64_t min, max; /* elements; min 0: may be left out */
};

#define ONE  1, 1
#define TWO  2, 2
#define FOUR 4, 4
#define OPT  0, 1

#define CONVOLUTION(kind, prefix, x, w, y)                                                         \
    {kind, prefix##_CONV_DESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, ONE},                                \
        {kind, x, CUDNN_TYPE_BACKEND_DESCRIPTOR, ONE},                                             \
        {kind, w, CUDNN_TYPE_BACKEND_DESCRIPTOR, ONE},                                             \
        {kind, y, CUDNN_TYPE_BACKEND_DESCRIPTOR, ONE},                                             \
        {kind, prefix##_ALPHA, CUDNN_TYPE_FLOAT, ONE}, {                                           \
        kind, prefix##_BETA, CUDNN_TYPE_FLOAT, ONE                                                 \
    }

static const struct rule rules[] = {
    {CUDNN_BACKEND_TENSOR_DESCRIPTOR, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, ONE},
    {CUDNN_BACKEND_TENSOR_DESCRIPTOR, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, ONE},
    {CUDNN_BACKEND_TENSOR_DESCRIPTOR, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, ONE},
    {CUDNN_BACKEND_TENSOR_DESCRIPTOR, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, FOUR},
    {CUDNN_BACKEND_TENSOR_DESCRIPTOR, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, FOUR},
    {CUDNN_BACKEND_TENSOR_DESCRIPTOR, CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, OPT},
    {CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR, CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, CUDNN_TYPE_INT64,
     ONE},
    {CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR, CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE,
     ONE},
    {CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR, CUDNN_ATTR_CONVOLUTION_CONV_MODE,
     CUDNN_TYPE_CONVOLUTION_MODE, ONE},
    {CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR, CUDNN_ATTR_CONVOLUTION_DILATIONS, CUDNN_TYPE_INT64, TWO},
    {CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, CUDNN_TYPE_INT64,
     TWO},
    {CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, CUDNN_TYPE_INT64,
     TWO},
    {CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR, CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, CUDNN_TYPE_INT64,
     TWO},
    CONVOLUTION(
        CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR,
        CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X,
        CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y),
    CONVOLUTION(
        CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR,
        CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX,
        CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY),
    CONVOLUTION(CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR,
                CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER,
                CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X,
                CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW,
                CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY),
    {CUDNN_BACKEND_POINTWISE_DESCRIPTOR, CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, ONE},
    {CUDNN_BACKEND_POINTWISE_DESCRIPTOR, CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_TYPE_DATA_TYPE, ONE},
    {CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR,
     CUDNN_TYPE_BACKEND_DESCRIPTOR, ONE},
    {CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR, CUDNN_ATTR_OPERATION_POINTWISE_XDESC,
     CUDNN_TYPE_BACKEND_DESCRIPTOR, ONE},
    {CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR, CUDNN_ATTR_OPERATION_POINTWISE_BDESC,
     CUDNN_TYPE_BACKEND_DESCRIPTOR, OPT},
    {CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR, CUDNN_ATTR_OPERATION_POINTWISE_YDESC,
     CUDNN_TYPE_BACKEND_DESCRIPTOR, ONE},
    {CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR, CUDNN_ATTR_OPERATIONGRAPH_OPS,
     CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, 16},
    {CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR, (dnn_name)800 /* handle */, CUDNN_TYPE_HANDLE, OPT},
    {CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH,
     CUDNN_TYPE_BACKEND_DESCRIPTOR, ONE},
    {CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, ONE},
    {CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR, CUDNN_ATTR_ENGINEHEUR_DEVICEPROP,
     CUDNN_TYPE_BACKEND_DESCRIPTOR, OPT},
    {CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG,
     CUDNN_TYPE_BACKEND_DESCRIPTOR, OPT},
    {CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR, CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP,
     CUDNN_TYPE_BACKEND_DESCRIPTOR, OPT},
    {CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR, (dnn_name)400 /* handle */, CUDNN_TYPE_HANDLE, OPT},
    {CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR, CUDNN_ATTR_EXECUTION_PLAN_JSON_REPRESENTATION,
     CUDNN_TYPE_CHAR, 0, 1 << 20},
    {CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, 1,
     16},
    {CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS,
     CUDNN_TYPE_VOID_PTR, 1, 16},
    {CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR,
     OPT},
    {CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR, CUDNN_ATTR_DEVICEPROP_DEVICE_ID, CUDNN_TYPE_INT32, OPT},
    {CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR, CUDNN_ATTR_DEVICEPROP_HANDLE, CUDNN_TYPE_HANDLE, OPT},
    {CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR, CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION,
     CUDNN_TYPE_CHAR, 0, 1 << 16},
};

static size_t type_bytes(cudnnBackendAttributeType_t type) {
    switch (type) {
    case CUDNN_TYPE_HANDLE:
    case CUDNN_TYPE_INT64:
    case CUDNN_TYPE_DOUBLE:
    case CUDNN_TYPE_VOID_PTR:
    case CUDNN_TYPE_BACKEND_DESCRIPTOR:
        return 8;
    case CUDNN_TYPE_BOOLEAN:
    case CUDNN_TYPE_CHAR:
        return 1;
    default: /* enumerations, float, int32 */
        return 4;
    }
}

static const struct rule *find_rule(cudnnBackendDescriptorType_t kind, dnn_name name) {
    for (size_t i = 0; i < sizeof rules / sizeof rules[0]; i++) {
        if (rules[i].kind == kind && rules[i].name == name) {
            return &rules[i];
        }
    }
    return NULL;
}

/* ---- reading ---- */

static const struct dnn_attribute *find(const struct dnn_descriptor *descriptor, dnn_name name) {
    for (unsigned i = 0; i < descriptor->count; i++) {
        if (descriptor->attributes[i].name == name) {
            return &descriptor->attributes[i];
        }
    }
    return NULL;
}

const void *dnn_values(const struct dnn_descriptor *descriptor, dnn_name name) {
    const struct dnn_attribute *attribute = find(descriptor, name);
    return attribute ? attribute->values : NULL;
}

int64_t dnn_count(const struct dnn_descriptor *descriptor, dnn_name name) {
    const struct dnn_attribute *attribute = find(descriptor, name);
    return attribute ? attribute->count : 0;
}

int64_t dnn_number(const struct dnn_descriptor *descriptor, dnn_name name, int64_t fallback) {
    const void *values = dnn_values(descriptor, name);
    const struct rule *rule = find_rule(descriptor->kind, name);
    if (!values || !rule) {
        return fallback;
    }
    switch (type_bytes(rule->type)) {
    case 8:
        return *(const int64_t *)values;
    case 1:
        return *(const bool *)values;
    default:
        return *(const int32_t *)values;
    }
}

struct dnn_descriptor *dnn_child(const struct dnn_descriptor *descriptor, dnn_name name,
                                 int64_t number) {
    struct dnn_descriptor *const *children = dnn_values(descriptor, name);
    return children ? children[number] : NULL;
}

/* ---- descriptors ---- */

static struct dnn_descriptor *live(cudnnBackendDescriptor_t handle) {
    struct dnn_descriptor *descriptor = handle;
    return descriptor && descriptor->magic == MAGIC ? descriptor : NULL;
}

static void release(struct dnn_descriptor *descriptor) {
    if (--descriptor->uses > 0) {
        return;
    }
    for (unsigned i = 0; i < descriptor->count; i++) {
        struct dnn_attribute *attribute = &descriptor->attributes[i];
        const struct rule *rule = find_rule(descriptor->kind, attribute->name);
        for (int64_t k = 0; rule->type == CUDNN_TYPE_BACKEND_DESCRIPTOR && k < attribute->count;
             k++) {
            release(dnn_child(descriptor, attribute->name, k));
        }
        free(attribute->values);
    }
    descriptor->magic = 0;
    free(descriptor);
}

cudnnStatus_t cudnnBackendCreateDescriptor(cudnnBackendDescriptorType_t kind,
                                           cudnnBackendDescriptor_t *ret) {
    struct dnn_descriptor *descriptor = calloc(1, sizeof *descriptor);
    if (!descriptor) {
        return dnn_fail(CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED, "no memory");
    }
    *descriptor = (struct dnn_descriptor){.magic = MAGIC, .uses = 1, .kind = kind, .engine = -1};
    *ret = descriptor;
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendDestroyDescriptor(cudnnBackendDescriptor_t handle) {
    struct dnn_descriptor *descriptor = live(handle);
    if (!descriptor) {
        return dnn_fail(CUDNN_STATUS_BAD_PARAM, "not a descriptor");
    }
    release(descriptor);
    return CUDNN_STATUS_SUCCESS;
}

/* Take references to the descriptors among the values. */
static cudnnStatus_t adopt(const struct rule *rule, int64_t count, const void *values) {
    cudnnBackendDescriptor_t const *children = values;
    if (rule->type != CUDNN_TYPE_BACKEND_DESCRIPTOR) {
        return CUDNN_STATUS_SUCCESS;
    }
    for (int64_t i = 0; i < count; i++) {
        struct dnn_descriptor *child = live(children[i]);
        if (!child || !child->finalized) {
            return dnn_fail(CUDNN_STATUS_BAD_PARAM_NOT_FINALIZED,
                            "attribute %d: element %lld is no finalised descriptor", rule->name,
                            (long long)i);
        }
    }
    for (int64_t i = 0; i < count; i++) {
        live(children[i])->uses++;
    }
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendSetAttribute(cudnnBackendDescriptor_t handle, dnn_name name,
                                       cudnnBackendAttributeType_t type, int64_t count,
                                       const void *values) {
    struct dnn_descriptor *descriptor = live(handle);
    const struct rule *rule = descriptor ? find_rule(descriptor->kind, name) : NULL;
    if (!descriptor || descriptor->finalized || !values) {
        return dnn_fail(CUDNN_STATUS_BAD_PARAM, "attribute %d: no descriptor that can be set",
                        name);
    }
    if (!rule) {
        return dnn_fail(CUDNN_STATUS_NOT_SUPPORTED, "descriptor %d has no attribute %d",
                        descriptor->kind, name);
    }
    if (rule->type != type) {
        return dnn_fail(CUDNN_STATUS_BAD_PARAM_ATTRIBUTE_TYPE, "attribute %d is of type %d, not %d",
                        name, rule->type, type);
    }
    if (count < 1 || count < rule->min || count > rule->max || find(descriptor, name)) {
        return dnn_fail(CUDNN_STATUS_BAD_PARAM, "attribute %d: %lld elements, or set twice", name,
                        (long long)count);
    }
    cudnnStatus_t status = adopt(rule, count, values);
    if (status != CUDNN_STATUS_SUCCESS) {
        return status;
    }
    size_t bytes = (size_t)count * type_bytes(type);
    void *copy = malloc(bytes + 1);
    if (!copy) {
        abort();
    }
    memcpy(copy, values, bytes);
    ((char *)copy)[bytes] = 0; /* text */
    descriptor->attributes[descriptor->count++] = (struct dnn_attribute){name, count, copy};
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendGetAttribute(cudnnBackendDescriptor_t const handle, dnn_name name,
                                       cudnnBackendAttributeType_t type, int64_t room,
                                       int64_t *ret_count, void *ret_values) {
    const struct dnn_descriptor *descriptor = live(handle);
    if (!descriptor || !descriptor->finalized) {
        return dnn_fail(CUDNN_STATUS_BAD_PARAM_NOT_FINALIZED, "attribute %d: not finalised", name);
    }
    const struct rule *rule = find_rule(descriptor->kind, name);
    const struct dnn_attribute *attribute = find(descriptor, name);
    int64_t count = 0;
    cudnnStatus_t status = CUDNN_STATUS_SUCCESS;
    if (attribute && rule->type == type && type != CUDNN_TYPE_BACKEND_DESCRIPTOR) {
        count = attribute->count;
        if (ret_values) {
            memcpy(ret_values, attribute->values,
                   (size_t)(room < count ? room : count) * type_bytes(type));
        }
    } else {
        status = dnn_computed(descriptor, name, room, &count, ret_values);
    }
    if (status == CUDNN_STATUS_SUCCESS && ret_count) {
        *ret_count = count;
    }
    return status;
}

static cudnnStatus_t check_complete(const struct dnn_descriptor *descriptor) {
    for (size_t i = 0; i < sizeof rules / sizeof rules[0]; i++) {
        if (rules[i].kind == descriptor->kind && rules[i].min > 0 &&
            !find(descriptor, rules[i].name)) {
            return dnn_fail(CUDNN_STATUS_BAD_PARAM, "attribute %d is missing", rules[i].name);
        }
    }
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendFinalize(cudnnBackendDescriptor_t handle) {
    struct dnn_descriptor *descriptor = live(handle);
    cudnnStatus_t status = descriptor && !descriptor->finalized
                               ? check_complete(descriptor)
                               : dnn_fail(CUDNN_STATUS_BAD_PARAM, "no descriptor to finalise");
    if (status != CUDNN_STATUS_SUCCESS) {
        return status;
    }
    switch ((int)descriptor->kind) {
    case CUDNN_BACKEND_TENSOR_DESCRIPTOR:
        status = dnn_check_tensor(descriptor);
        break;
    case CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR:
        status = dnn_check_window(descriptor);
        break;
    case CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR:
        status = dnn_check_graph(descriptor);
        break;
    case CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR:
        status = dnn_check_properties(descriptor);
        break;
    case CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR:
        status = dnn_check_plan(descriptor);
        break;
    default:
        break;
    }
    descriptor->finalized = status == CUDNN_STATUS_SUCCESS;
    return status;
}
