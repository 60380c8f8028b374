/* SPDX-License-Identifier: Apache-2.0 */
/* Streams are queues of operations, and a scheduler runs their heads.
 *
 *   eager    whatever can run runs at each call
 *   lazy     nothing runs until somebody waits or asks, and then only what that needs
 *   random   at each call up to two heads run, drawn by the seed
 *
 * An operation is work, the recording of a mark (an event's current recording) or the wait for one.
 * Order (order.c) is settled when an operation is queued; the schedule only changes what a program
 * that is wrong computes.
 *
 * Invariants: 1. A stream runs its operations in the order of the queue.
 *             2. A wait at the head of a queue leaves when its mark is done.
 *             3. A stream that was destroyed lives on, `closing`, until its queue is empty. */
#include "tests/gpu/fakecuda/capture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum op_kind {
    OP_WORK,
    OP_RECORD,
    OP_WAIT,
};

struct fake_op {
    struct fake_op *next;
    enum op_kind kind;
    struct fake_mark *mark;    /* RECORD, WAIT */
    struct fake_work work;     /* WORK */
    struct fake_range *ranges; /* what work.ranges is */
    uint64_t token;
    bool hang, late;
    int64_t not_before_ns;
};

static cudaStream_t streams[FAKE_ACTORS]; /* by actor; [0] is the host's place */
static cudaStream_t defaults[FAKE_DEVICES_MAX];
static uint64_t last_tick[FAKE_ACTORS]; /* of streams that had the place before */
static struct fake_clock host_clock;

static int64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

const struct fake_clock *fake_host_clock(void) {
    return &host_clock;
}

static void host_follows(const struct fake_clock *clock) {
    fake_clock_join(&host_clock, clock);
    fake_order_prune(&host_clock);
}

/* ---- streams ---- */

cudaError_t fake_stream_create(int device, cudaStream_t *ret_stream) {
    for (unsigned actor = 1; actor < FAKE_ACTORS; actor++) {
        if (streams[actor]) {
            continue;
        }
        cudaStream_t stream = calloc(1, sizeof *stream);
        if (!stream) {
            return cudaErrorMemoryAllocation;
        }
        stream->actor = actor;
        stream->device = device;
        stream->tail = &stream->head;
        stream->clock.tick[actor] = last_tick[actor];
        streams[actor] = stream;
        *ret_stream = stream;
        return cudaSuccess;
    }
    return cudaErrorMemoryAllocation;
}

static void stream_free(cudaStream_t stream) {
    last_tick[stream->actor] = stream->clock.tick[stream->actor];
    streams[stream->actor] = NULL;
    free(stream);
}

void fake_stream_destroy(cudaStream_t stream) {
    stream->closing = true;
    if (!stream->head) {
        stream_free(stream);
    }
}

static bool is_live(cudaStream_t stream) {
    for (unsigned actor = 1; actor < FAKE_ACTORS; actor++) {
        if (streams[actor] == stream) {
            return !stream->closing;
        }
    }
    return false;
}

cudaStream_t fake_stream_of(cudaStream_t stream) {
    if (stream && stream != cudaStreamLegacy) {
        if (!is_live(stream)) {
            fake_violation("%p is not a live stream", (void *)stream);
            return NULL;
        }
        return stream;
    }
    cudaStream_t *standard = &defaults[fake_device()];
    if (!*standard && fake_stream_create(fake_device(), standard) != cudaSuccess) {
        return NULL;
    }
    return *standard;
}

/* ---- marks ---- */

void fake_mark_release(struct fake_mark *mark) {
    if (mark && --mark->uses == 0) {
        if (mark->capture) {
            fake_capture_release(mark->capture);
        }
        free(mark);
    }
}

static struct fake_op *append(cudaStream_t stream, enum op_kind kind) {
    struct fake_op *op = calloc(1, sizeof *op);
    if (!op) {
        abort();
    }
    op->kind = kind;
    *stream->tail = op;
    stream->tail = &op->next;
    fake_clock_join(&stream->clock, &host_clock);
    stream->clock.tick[stream->actor]++;
    return op;
}

struct fake_mark *fake_mark_record(cudaStream_t stream) {
    struct fake_mark *mark = calloc(1, sizeof *mark);
    if (!mark) {
        abort();
    }
    append(stream, OP_RECORD)->mark = mark;
    mark->uses = 2; /* the operation's and the caller's */
    mark->stream = stream;
    mark->clock = stream->clock;
    return mark;
}

void fake_mark_wait(cudaStream_t stream, struct fake_mark *mark) {
    append(stream, OP_WAIT)->mark = mark;
    mark->uses++;
    fake_clock_join(&stream->clock, &mark->clock);
}

/* ---- operations ---- */

static void op_free(struct fake_op *op) {
    if (op->work.done) {
        op->work.done(op->work.closure);
    }
    fake_mark_release(op->mark);
    free(op->ranges);
    free(op);
}

static bool op_ready(const struct fake_op *op) {
    if (op->hang || (op->not_before_ns && now_ns() < op->not_before_ns)) {
        return false;
    }
    if (op->kind == OP_WAIT) {
        return op->mark->done;
    }
    return !op->work.ready || op->work.ready(op->work.closure, op->token);
}

static void op_run(struct fake_op *op) {
    if (op->kind == OP_RECORD) {
        op->mark->done = true;
        op->mark->time_ns = now_ns();
    } else if (op->kind == OP_WORK && op->late) {
        fake_break(cudaErrorLaunchFailure);
    } else if (op->kind == OP_WORK) {
        op->work.run(op->work.closure);
        for (size_t i = 0; i < op->work.count; i++) {
            fake_memory_zones(op->work.name, op->work.ranges[i].memory);
        }
    }
}

/* Run the head of the stream if it can run. */
static bool stream_step(cudaStream_t stream) {
    struct fake_op *op = stream->head;
    if (!op || fake_broken() || !op_ready(op)) {
        return false;
    }
    stream->head = op->next;
    stream->tail = stream->head ? stream->tail : &stream->head;
    op_run(op);
    op_free(op);
    if (stream->closing && !stream->head) {
        stream_free(stream);
    }
    return true;
}

/* One step that this stream needs: of itself, or of the stream that its head waits for. */
static bool stream_push(cudaStream_t stream) {
    struct fake_op *op = stream->head;
    if (op && op->kind == OP_WAIT && !op->mark->done) {
        return stream_push(op->mark->stream);
    }
    return stream_step(stream);
}

/* One step of any stream. */
static bool step_any(void) {
    unsigned first = fake_settings()->schedule == FAKE_RANDOM ? (unsigned)fake_random() : 0;
    for (unsigned i = 0; i < FAKE_ACTORS; i++) {
        cudaStream_t stream = streams[(first + i) % FAKE_ACTORS];
        if (stream && stream_step(stream)) {
            return true;
        }
    }
    return false;
}

static bool step_towards(cudaStream_t stream) {
    return fake_settings()->schedule == FAKE_LAZY ? stream_push(stream) : step_any();
}

void fake_schedule(void) {
    enum fake_schedule schedule = fake_settings()->schedule;
    uint64_t steps = schedule == FAKE_EAGER ? UINT64_MAX : 0;
    if (schedule == FAKE_RANDOM) {
        steps = fake_random() % 3;
    }
    while (steps-- > 0 && step_any()) {
    }
}

/* ---- waiting ---- */

void fake_stream_finish(cudaStream_t stream) {
    while (stream->head && !fake_broken()) {
        if (!step_towards(stream)) {
            fake_nap();
        }
    }
    host_follows(&stream->clock);
}

void fake_mark_finish(struct fake_mark *mark) {
    mark->uses++; /* the event may be recorded anew while the lock is not held */
    while (!mark->done && !fake_broken()) {
        if (!step_towards(mark->stream)) {
            fake_nap();
        }
    }
    host_follows(&mark->clock);
    fake_mark_release(mark);
}

/* Streams that were destroyed are waited for as well, and those that had their place before. */
void fake_device_finish(void) {
    for (unsigned actor = 1; actor < FAKE_ACTORS; actor++) {
        while (streams[actor] && streams[actor]->head && !fake_broken()) {
            if (!step_towards(streams[actor])) {
                fake_nap();
            }
        }
        host_clock.tick[actor] =
            streams[actor] ? streams[actor]->clock.tick[actor] : last_tick[actor];
    }
    fake_order_prune(&host_clock);
    fake_memory_zones("cudaDeviceSynchronize", NULL);
}

bool fake_stream_poll(cudaStream_t stream) {
    if (stream->head) {
        step_towards(stream);
    }
    if (stream->head) {
        return false;
    }
    host_follows(&stream->clock);
    return true;
}

bool fake_mark_poll(struct fake_mark *mark) {
    if (!mark->done) {
        step_towards(mark->stream);
    }
    if (!mark->done) {
        return false;
    }
    host_follows(&mark->clock);
    return true;
}

/* ---- queueing ---- */

static void take_faults(struct fake_op *op) {
    int64_t ms = 0;
    enum fake_action action = fake_take_fault(&ms);
    op->hang = action == FAKE_HANG;
    op->late = action == FAKE_LATE;
    if (action == FAKE_SLOW) {
        op->not_before_ns = now_ns() + ms * 1000000;
    }
}

static void queue(cudaStream_t stream, const struct fake_work *work) {
    struct fake_op *op = append(stream, OP_WORK);
    struct fake_range *ranges = calloc(work->count + 1, sizeof *ranges);
    if (!ranges) {
        abort();
    }
    op->work = *work;
    op->work.ranges = op->ranges = ranges;
    if (work->count) {
        memcpy(ranges, work->ranges, work->count * sizeof *ranges);
    }
    op->token = work->begin ? work->begin(work->closure) : 0;
    take_faults(op);
    for (size_t i = 0; i < work->count; i++) {
        fake_order_access(&stream->clock, stream->actor, work->name, &ranges[i]);
    }
    if (fake_settings()->schedule == FAKE_EAGER) {
        fake_schedule();
    }
}

cudaError_t fake_submit(cudaStream_t stream, const struct fake_work *work) {
    cudaError_t code = cudaSuccess;
    for (size_t i = 0; i < work->count; i++) {
        const struct fake_range *range = &work->ranges[i];
        if (!fake_memory_check(work->name, stream->device, range->memory, range->bytes)) {
            code = cudaErrorIllegalAddress;
        }
    }
    if (code == cudaSuccess && stream->capture) {
        code = fake_capture_work(stream, work);
    } else if (code == cudaSuccess) {
        queue(stream, work);
    }
    if (code != cudaSuccess && work->done) {
        work->done(work->closure);
    }
    return code;
}
