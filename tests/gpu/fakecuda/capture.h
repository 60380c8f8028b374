/* SPDX-License-Identifier: Apache-2.0 */
/* Stream captures and the graphs that come of them. Called with the lock held. */
#ifndef NNC_TESTS_FAKECUDA_CAPTURE_H
#define NNC_TESTS_FAKECUDA_CAPTURE_H

#include "tests/gpu/fakecuda/fakecuda.h"

/* Put work, a mark or a wait into the capture; a stream that waits for a mark of one joins it. */
cudaError_t fake_capture_work(cudaStream_t stream, const struct fake_work *work);
cudaError_t fake_capture_record(cudaStream_t stream, cudaEvent_t event);
cudaError_t fake_capture_wait(cudaStream_t stream, struct fake_mark *mark);

/* An error when a call that a capture forbids is made during one, which then is invalid. */
cudaError_t fake_capture_forbids(void);

/* Drop a reference to the capture: a mark's, a graph's. */
void fake_capture_release(struct fake_capture *capture);

cudaError_t fake_capture_begin(cudaStream_t stream, enum cudaStreamCaptureMode mode);
cudaError_t fake_capture_end(cudaStream_t stream, cudaGraph_t *ret_graph);
enum cudaStreamCaptureStatus fake_capture_status(cudaStream_t stream);

cudaError_t fake_graph_instantiate(cudaGraph_t graph, cudaGraphExec_t *ret_exec);
cudaError_t fake_graph_launch(cudaGraphExec_t exec, cudaStream_t stream);
void fake_graph_exec_destroy(cudaGraphExec_t exec);
void fake_graph_destroy(cudaGraph_t graph);

#endif
