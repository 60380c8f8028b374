/* SPDX-License-Identifier: Apache-2.0 */
/* Stream capture and graphs.
 *
 * A capture is a list of entries in the order of the calls: work, marks, waits, each with its lane,
 * the number of the stream it went to. Lane 0 is where the capture began; a stream becomes a lane
 * when it waits for an event of the capture. A launch queues the entries again, lane 0 to the
 * stream of the launch, the others to streams of the executable graph: a replay is checked for
 * order and memory like anything else.
 *
 * joined[i][j] counts how much work of lane j precedes the end of lane i; the capture may end when
 * lane 0 has seen all work of all lanes. */
#include "tests/gpu/fakecuda/capture.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum {
    LANES_MAX = 8,
};

enum entry_kind {
    ENTRY_WORK,
    ENTRY_RECORD,
    ENTRY_WAIT,
};

struct entry {
    enum entry_kind kind;
    unsigned lane, number; /* of the mark */
    struct fake_work work;
    struct fake_range *ranges; /* what work.ranges is */
};

struct seen {
    unsigned of[LANES_MAX];
};

struct fake_capture {
    unsigned uses;   /* the capturing streams together, marks, graphs, executables, launches */
    unsigned graphs; /* graphs and executables alone */
    bool active, invalid;
    enum cudaStreamCaptureMode mode;
    pthread_t thread;
    cudaStream_t lanes[LANES_MAX];
    struct seen joined[LANES_MAX];
    unsigned lane_count;
    struct entry *entries;
    size_t entry_count, entry_room;
    struct seen *marks;
    unsigned mark_count, mark_room;
};

struct CUgraph_st {
    struct fake_capture *capture;
};

struct CUgraphExec_st {
    struct fake_capture *capture;
    cudaStream_t lanes[LANES_MAX]; /* [0] unused */
};

static struct fake_capture *active; /* one at a time */

static void *grow(void *array, size_t count, size_t size) {
    array = realloc(array, count * size);
    if (!array) {
        abort();
    }
    return array;
}

void fake_capture_release(struct fake_capture *capture) {
    if (--capture->uses > 0) {
        return;
    }
    for (size_t i = 0; i < capture->entry_count; i++) {
        struct fake_work *work = &capture->entries[i].work;
        if (work->done) {
            work->done(work->closure);
        }
        free(capture->entries[i].ranges);
    }
    free(capture->entries);
    free(capture->marks);
    free(capture);
}

/* The program has let go of a graph; one that is queued still runs. */
static void forget(struct fake_capture *capture) {
    if (--capture->graphs > 0) {
        return;
    }
    for (size_t i = 0; i < capture->entry_count; i++) {
        const struct fake_work *work = &capture->entries[i].work;
        if (work->forgotten) {
            work->forgotten(work->closure);
        }
    }
}

static struct entry *add_entry(cudaStream_t stream, enum entry_kind kind) {
    struct fake_capture *capture = stream->capture;
    if (capture->entry_count == capture->entry_room) {
        capture->entry_room = 2 * capture->entry_room + 64;
        capture->entries = grow(capture->entries, capture->entry_room, sizeof(struct entry));
    }
    struct entry *entry = &capture->entries[capture->entry_count++];
    *entry = (struct entry){.kind = kind, .lane = stream->lane};
    return entry;
}

cudaError_t fake_capture_forbids(void) {
    if (!active || active->mode == cudaStreamCaptureModeRelaxed ||
        (active->mode == cudaStreamCaptureModeThreadLocal &&
         !pthread_equal(active->thread, pthread_self()))) {
        return cudaSuccess;
    }
    active->invalid = true;
    return cudaErrorStreamCaptureUnsupported;
}

cudaError_t fake_capture_work(cudaStream_t stream, const struct fake_work *work) {
    if (stream->capture->invalid) {
        return cudaErrorStreamCaptureInvalidated;
    }
    struct entry *entry = add_entry(stream, ENTRY_WORK);
    struct fake_range *ranges = calloc(work->count + 1, sizeof *ranges);
    if (!ranges) {
        abort();
    }
    if (work->count) {
        memcpy(ranges, work->ranges, work->count * sizeof *ranges);
    }
    entry->work = *work;
    entry->work.ranges = entry->ranges = ranges;
    stream->capture->joined[stream->lane].of[stream->lane]++;
    return cudaSuccess;
}

cudaError_t fake_capture_record(cudaStream_t stream, cudaEvent_t event) {
    struct fake_capture *capture = stream->capture;
    struct fake_mark *mark = calloc(1, sizeof *mark);
    if (!mark || capture->invalid) {
        free(mark);
        return mark ? cudaErrorStreamCaptureInvalidated : cudaErrorMemoryAllocation;
    }
    if (capture->mark_count == capture->mark_room) {
        capture->mark_room = 2 * capture->mark_room + 64;
        capture->marks = grow(capture->marks, capture->mark_room, sizeof *capture->marks);
    }
    capture->marks[capture->mark_count] = capture->joined[stream->lane];
    add_entry(stream, ENTRY_RECORD)->number = capture->mark_count;
    *mark = (struct fake_mark){
        .uses = 1, .stream = stream, .capture = capture, .number = capture->mark_count++};
    capture->uses++;
    fake_mark_release(event->mark);
    event->mark = mark;
    return cudaSuccess;
}

cudaError_t fake_capture_wait(cudaStream_t stream, struct fake_mark *mark) {
    struct fake_capture *capture = mark->capture;
    if (!capture) { /* an event of outside */
        stream->capture->invalid = true;
        return cudaErrorStreamCaptureIsolation;
    }
    if (!capture->active || (stream->capture && stream->capture != capture)) {
        return cudaErrorCapturedEvent;
    }
    if (!stream->capture) {
        if (capture->lane_count == LANES_MAX) {
            return cudaErrorNotSupported;
        }
        stream->capture = capture;
        stream->lane = capture->lane_count++;
        capture->lanes[stream->lane] = stream;
    }
    add_entry(stream, ENTRY_WAIT)->number = mark->number;
    for (unsigned lane = 0; lane < LANES_MAX; lane++) {
        unsigned *of = &capture->joined[stream->lane].of[lane];
        unsigned marked = capture->marks[mark->number].of[lane];
        *of = *of > marked ? *of : marked;
    }
    return cudaSuccess;
}

cudaError_t fake_capture_begin(cudaStream_t stream, enum cudaStreamCaptureMode mode) {
    struct fake_capture *capture = active ? NULL : calloc(1, sizeof *capture);
    if (!capture) {
        return active ? cudaErrorIllegalState : cudaErrorMemoryAllocation;
    }
    *capture = (struct fake_capture){.uses = 1,
                                     .active = true,
                                     .mode = mode,
                                     .thread = pthread_self(),
                                     .lanes = {stream},
                                     .lane_count = 1};
    active = stream->capture = capture;
    stream->lane = 0;
    return cudaSuccess;
}

cudaError_t fake_capture_end(cudaStream_t stream, cudaGraph_t *ret_graph) {
    struct fake_capture *capture = stream->capture;
    if (!capture || capture->lanes[0] != stream) {
        return capture ? cudaErrorStreamCaptureUnmatched : cudaErrorIllegalState;
    }
    cudaError_t code = capture->invalid ? cudaErrorStreamCaptureInvalidated : cudaSuccess;
    for (unsigned lane = 0; lane < capture->lane_count; lane++) {
        capture->lanes[lane]->capture = NULL;
        if (!code && capture->joined[0].of[lane] != capture->joined[lane].of[lane]) {
            code = cudaErrorStreamCaptureUnjoined;
        }
    }
    capture->active = false;
    active = NULL;
    cudaGraph_t graph = code ? NULL : calloc(1, sizeof *graph);
    capture->graphs = 1;
    if (graph) {
        graph->capture = capture;
    } else {
        forget(capture);
        fake_capture_release(capture);
    }
    *ret_graph = graph;
    return code;
}

enum cudaStreamCaptureStatus fake_capture_status(cudaStream_t stream) {
    if (!stream->capture) {
        return cudaStreamCaptureStatusNone;
    }
    return stream->capture->invalid ? cudaStreamCaptureStatusInvalidated
                                    : cudaStreamCaptureStatusActive;
}

cudaError_t fake_graph_instantiate(cudaGraph_t graph, cudaGraphExec_t *ret_exec) {
    cudaGraphExec_t exec = calloc(1, sizeof *exec);
    if (!exec) {
        return cudaErrorMemoryAllocation;
    }
    exec->capture = graph->capture;
    exec->capture->uses++;
    exec->capture->graphs++;
    cudaError_t code = cudaSuccess;
    for (unsigned lane = 1; lane < exec->capture->lane_count && !code; lane++) {
        code = fake_stream_create(fake_device(), &exec->lanes[lane]);
    }
    *ret_exec = exec;
    return code;
}

static cudaError_t replay(const struct CUgraphExec_st *exec, cudaStream_t stream,
                          struct fake_mark **marks) {
    const struct fake_capture *capture = exec->capture;
    cudaError_t code = cudaSuccess;
    for (size_t i = 0; i < capture->entry_count && !code; i++) {
        const struct entry *entry = &capture->entries[i];
        cudaStream_t lane = entry->lane ? exec->lanes[entry->lane] : stream;
        if (entry->kind == ENTRY_RECORD) {
            marks[entry->number] = fake_mark_record(lane);
        } else if (entry->kind == ENTRY_WAIT) {
            fake_mark_wait(lane, marks[entry->number]);
        } else {
            struct fake_work work = entry->work;
            work.done = NULL; /* the graph's */
            code = fake_submit(lane, &work);
        }
    }
    return code;
}

static void nothing(void *capture) {
    (void)capture;
}

static void let_go(void *capture) {
    fake_capture_release(capture);
}

/* The graph may be destroyed while a launch is queued: its end holds the capture. */
static void hold_until_here(struct fake_capture *capture, cudaStream_t stream) {
    struct fake_work end = {
        .name = "end of graph", .run = nothing, .done = let_go, .closure = capture};
    capture->uses++;
    fake_submit(stream, &end);
}

/* Every lane begins with a wait for a mark of lane 0, or of one that does, and all work of all
 * lanes precedes the end of lane 0: nothing else ties the launch together. */
cudaError_t fake_graph_launch(cudaGraphExec_t exec, cudaStream_t stream) {
    struct fake_capture *capture = exec->capture;
    struct fake_mark **marks = calloc(capture->mark_count + 1, sizeof *marks);
    if (!marks) {
        abort();
    }
    cudaError_t code = replay(exec, stream, marks);
    for (unsigned i = 0; i < capture->mark_count; i++) {
        fake_mark_release(marks[i]);
    }
    free(marks);
    hold_until_here(capture, stream);
    return code;
}

void fake_graph_exec_destroy(cudaGraphExec_t exec) {
    for (unsigned lane = 1; lane < LANES_MAX; lane++) {
        if (exec->lanes[lane]) {
            fake_stream_destroy(exec->lanes[lane]);
        }
    }
    forget(exec->capture);
    fake_capture_release(exec->capture);
    free(exec);
}

void fake_graph_destroy(cudaGraph_t graph) {
    forget(graph->capture);
    fake_capture_release(graph->capture);
    free(graph);
}
