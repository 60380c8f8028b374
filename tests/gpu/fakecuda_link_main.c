/* SPDX-License-Identifier: Apache-2.0 */
/* Linked against the real libraries, run with the stand-in's: each symbol and each version must be
 * found there. Without a driver the real runtime has no device. */
#include <cublasLt.h>
#include <cudnn_graph.h>
#include <nccl.h>
#include <stdbool.h>
#include <stdio.h>

int main(void) {
    int count = 0;
    cudaStream_t stream;
    cudaEvent_t event;
    cublasLtHandle_t blas;
    cudnnHandle_t dnn;
    ncclUniqueId id;
    ncclComm_t comm;
    void *memory;
    bool fine = cudaGetDeviceCount(&count) == cudaSuccess && count == 3 &&
                cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) == cudaSuccess &&
                cudaEventCreateWithFlags(&event, cudaEventDisableTiming) == cudaSuccess &&
                cudaMalloc(&memory, 100) == cudaSuccess &&
                cudaMemsetAsync(memory, 0, 100, stream) == cudaSuccess &&
                cudaEventRecord(event, stream) == cudaSuccess &&
                cudaEventSynchronize(event) == cudaSuccess && cudaFree(memory) == cudaSuccess &&
                cublasLtCreate(&blas) == CUBLAS_STATUS_SUCCESS &&
                cublasLtDestroy(blas) == CUBLAS_STATUS_SUCCESS &&
                cudnnCreate(&dnn) == CUDNN_STATUS_SUCCESS &&
                cudnnDestroy(dnn) == CUDNN_STATUS_SUCCESS && ncclGetUniqueId(&id) == ncclSuccess &&
                ncclCommInitRank(&comm, 1, id, 0) == ncclSuccess &&
                ncclCommDestroy(comm) == ncclSuccess;
    printf("%d devices: %s\n", count, fine ? "fine" : "not as the stand-in");
    return fine ? 0 : 1;
}
