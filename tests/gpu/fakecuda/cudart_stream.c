/* SPDX-License-Identifier: Apache-2.0 */
/* libcudart.so.13: streams, events, captures, launches. */
#include "tests/gpu/fakecuda/capture.h"

#include "tests/gpu/cuhost_hook.h"

#include <stdlib.h>

/* Enter, and find the stream; forbidden while it is captured. */
static cudaError_t enter_waiting(const char *function, cudaStream_t stream, cudaStream_t *ret) {
    cudaError_t code = fake_enter(function);
    *ret = code ? NULL : fake_stream_of(stream);
    if (!code && !*ret) {
        code = cudaErrorInvalidResourceHandle;
    }
    if (!code && (*ret)->capture) {
        fake_capture_forbids();
        code = cudaErrorStreamCaptureUnsupported;
    }
    return code ? code : fake_capture_forbids();
}

static cudaError_t enter_queueing(const char *function, cudaStream_t stream, cudaStream_t *ret) {
    cudaError_t code = fake_enter(function);
    *ret = code ? NULL : fake_stream_of(stream);
    return code || *ret ? code : cudaErrorInvalidResourceHandle;
}

cudaError_t cudaStreamCreateWithPriority(cudaStream_t *stream, unsigned flags, int priority) {
    (void)priority;
    cudaError_t code = fake_enter("cudaStreamCreate");
    if (!code && flags != cudaStreamNonBlocking) {
        fake_violation("cudaStreamCreate: the stand-in has no streams that wait for the default "
                       "stream: pass cudaStreamNonBlocking");
        code = cudaErrorNotSupported;
    }
    return fake_leave(code ? code : fake_stream_create(fake_device(), stream));
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags) {
    return cudaStreamCreateWithPriority(stream, flags, 0);
}

cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest) {
    cudaError_t code = fake_enter("cudaDeviceGetStreamPriorityRange");
    if (!code) {
        *least = 0;
        *greatest = -5;
    }
    return fake_leave(code);
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
    cudaStream_t real;
    cudaError_t code = enter_queueing("cudaStreamDestroy", stream, &real);
    if (!code) {
        fake_stream_destroy(real);
    }
    return fake_leave(code);
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
    cudaStream_t real;
    cudaError_t code = enter_waiting("cudaStreamSynchronize", stream, &real);
    if (!code) {
        fake_stream_finish(real);
        code = fake_broken();
    }
    return fake_leave(code);
}

cudaError_t cudaStreamQuery(cudaStream_t stream) {
    cudaStream_t real;
    cudaError_t code = enter_waiting("cudaStreamQuery", stream, &real);
    if (!code) {
        bool done = fake_stream_poll(real);
        code = fake_broken() ? fake_broken() : done ? cudaSuccess : cudaErrorNotReady;
    }
    return fake_leave(code);
}

cudaError_t cudaDeviceSynchronize(void) {
    cudaError_t code = fake_enter("cudaDeviceSynchronize");
    code = code ? code : fake_capture_forbids();
    if (!code) {
        fake_device_finish();
        code = fake_broken();
    }
    return fake_leave(code);
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags) {
    (void)flags;
    cudaStream_t real;
    cudaError_t code = enter_queueing("cudaStreamWaitEvent", stream, &real);
    struct fake_mark *mark = code ? NULL : event->mark;
    if (mark && (real->capture || mark->capture)) {
        code = fake_capture_wait(real, mark);
    } else if (mark) {
        fake_mark_wait(real, mark);
    }
    return fake_leave(code);
}

/* ---- events ---- */

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags) {
    cudaError_t code = fake_enter("cudaEventCreate");
    cudaEvent_t fresh = code ? NULL : calloc(1, sizeof *fresh);
    if (fresh) {
        fresh->flags = flags;
        *event = fresh;
    }
    return fake_leave(code || fresh ? code : cudaErrorMemoryAllocation);
}

cudaError_t cudaEventCreate(cudaEvent_t *event) {
    return cudaEventCreateWithFlags(event, cudaEventDefault);
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
    cudaError_t code = fake_enter("cudaEventDestroy");
    if (event) {
        fake_mark_release(event->mark);
    }
    free(event);
    return fake_leave(code);
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
    cudaStream_t real;
    cudaError_t code = enter_queueing("cudaEventRecord", stream, &real);
    if (!code && real->capture) {
        code = fake_capture_record(real, event);
    } else if (!code) {
        struct fake_mark *mark = fake_mark_record(real);
        fake_mark_release(event->mark);
        event->mark = mark;
        if (fake_settings()->schedule == FAKE_EAGER) {
            fake_schedule();
        }
    }
    return fake_leave(code);
}

static cudaError_t enter_event(const char *function, cudaEvent_t event) {
    cudaError_t code = fake_enter(function);
    code = code ? code : fake_capture_forbids();
    return !code && event->mark && event->mark->capture ? cudaErrorCapturedEvent : code;
}

cudaError_t cudaEventQuery(cudaEvent_t event) {
    cudaError_t code = enter_event("cudaEventQuery", event);
    if (!code && event->mark) {
        bool done = fake_mark_poll(event->mark);
        code = fake_broken() ? fake_broken() : done ? cudaSuccess : cudaErrorNotReady;
    }
    return fake_leave(code);
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
    cudaError_t code = enter_event("cudaEventSynchronize", event);
    if (!code && event->mark) {
        fake_mark_finish(event->mark);
        code = fake_broken();
    }
    return fake_leave(code);
}

cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t start, cudaEvent_t end) {
    cudaError_t code = fake_enter("cudaEventElapsedTime");
    if (!code &&
        (!start->mark || !end->mark || ((start->flags | end->flags) & cudaEventDisableTiming))) {
        code = cudaErrorInvalidResourceHandle;
    }
    if (!code && !(start->mark->done && end->mark->done)) {
        code = cudaErrorNotReady;
    }
    if (!code) {
        *ms = (float)(end->mark->time_ns - start->mark->time_ns) * 1e-6f;
    }
    return fake_leave(code);
}

/* ---- captures and graphs ---- */

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, enum cudaStreamCaptureMode mode) {
    cudaStream_t real;
    cudaError_t code = enter_queueing("cudaStreamBeginCapture", stream, &real);
    if (!code && (!stream || stream == cudaStreamLegacy)) {
        code = cudaErrorStreamCaptureUnsupported;
    }
    return fake_leave(code ? code : fake_capture_begin(real, mode));
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph) {
    cudaStream_t real;
    cudaError_t code = enter_queueing("cudaStreamEndCapture", stream, &real);
    return fake_leave(code ? code : fake_capture_end(real, graph));
}

cudaError_t cudaStreamIsCapturing(cudaStream_t stream, enum cudaStreamCaptureStatus *status) {
    cudaStream_t real;
    cudaError_t code = enter_queueing("cudaStreamIsCapturing", stream, &real);
    if (!code) {
        *status = fake_capture_status(real);
    }
    return fake_leave(code);
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *exec, cudaGraph_t graph,
                                 unsigned long long flags) {
    (void)flags;
    cudaError_t code = fake_enter("cudaGraphInstantiate");
    return fake_leave(code ? code : fake_graph_instantiate(graph, exec));
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
    cudaStream_t real;
    cudaError_t code = enter_queueing("cudaGraphLaunch", stream, &real);
    if (!code && real->capture) {
        code = cudaErrorStreamCaptureUnsupported;
    }
    return fake_leave(code ? code : fake_graph_launch(exec, real));
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
    cudaError_t code = fake_enter("cudaGraphExecDestroy");
    fake_graph_exec_destroy(exec);
    return fake_leave(code);
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
    cudaError_t code = fake_enter("cudaGraphDestroy");
    fake_graph_destroy(graph);
    return fake_leave(code);
}

/* ---- kernels compiled for the host ---- */

void *fakecuda_translate(const void *memory) {
    return fake_translate(memory);
}

/* Faults know a launch by the kernel's name. */
void fakecuda_submit(void *stream, const struct fakecuda_range *ranges, size_t count,
                     void (*run)(void *closure), void (*done)(void *closure), void *closure) {
    const char *name = count ? ranges[0].kernel : "kernel";
    cudaStream_t real;
    cudaError_t code = enter_queueing(name, stream, &real);
    fake_check_launch(name);
    struct fake_range *copy = calloc(count + 1, sizeof *copy);
    size_t kept = 0;
    for (size_t i = 0; i < count && copy; i++) {
        if (ranges[i].bytes) {
            copy[kept++] = (struct fake_range){.memory = ranges[i].memory,
                                               .bytes = ranges[i].bytes,
                                               .write = ranges[i].write != 0};
        }
    }
    struct fake_work work = {
        .name = name, .ranges = copy, .count = kept, .run = run, .done = done, .closure = closure};
    if (code || !copy) {
        done(closure);
    } else {
        code = fake_submit(real, &work);
    }
    free(copy);
    fake_leave(copy || code ? code : cudaErrorMemoryAllocation);
}
