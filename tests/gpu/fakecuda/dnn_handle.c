/* SPDX-License-Identifier: Apache-2.0 */
/* libcudnn_graph.so.9: the handle, versions, words. */
#include "tests/gpu/fakecuda/dnn.h"
#include "tests/gpu/fakecuda/fakecuda.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

struct cudnnContext {
    cudaStream_t stream;
};

static _Thread_local char last_words[256];

cudnnStatus_t dnn_fail(cudnnStatus_t status, const char *format, ...) {
    va_list args;
    va_start(args, format);
    vsnprintf(last_words, sizeof last_words, format, args);
    va_end(args);
    return status;
}

cudnnStatus_t cudnnCreate(cudnnHandle_t *handle) {
    cudaError_t code = fake_enter("cudnnCreate");
    *handle = code || fake_settings()->devices == 0 ? NULL : calloc(1, sizeof **handle);
    fake_leave(code);
    return *handle ? CUDNN_STATUS_SUCCESS : dnn_fail(CUDNN_STATUS_NOT_INITIALIZED, "no device");
}

cudnnStatus_t cudnnDestroy(cudnnHandle_t handle) {
    free(handle);
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnSetStream(cudnnHandle_t handle, cudaStream_t stream) {
    handle->stream = stream;
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnGetStream(cudnnHandle_t handle, cudaStream_t *stream) {
    *stream = handle->stream;
    return CUDNN_STATUS_SUCCESS;
}

size_t cudnnGetVersion(void) {
    return CUDNN_VERSION;
}

size_t cudnnGetCudartVersion(void) {
    return CUDART_VERSION;
}

const char *cudnnGetErrorString(cudnnStatus_t status) {
    switch ((int)CUDNN_STATUS_CATEGORY(status)) {
    case 0:
        return "CUDNN_STATUS_SUCCESS";
    case 1000:
        return "CUDNN_STATUS_NOT_INITIALIZED";
    case 2000:
        return "CUDNN_STATUS_BAD_PARAM";
    case 3000:
        return "CUDNN_STATUS_NOT_SUPPORTED";
    case 4000:
        return "CUDNN_STATUS_INTERNAL_ERROR";
    default:
        return "CUDNN_STATUS_EXECUTION_FAILED";
    }
}

void cudnnGetLastErrorString(char *message, size_t room) {
    snprintf(message, room, "%s", last_words);
    last_words[0] = 0;
}
