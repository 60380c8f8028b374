/* SPDX-License-Identifier: Apache-2.0 */
/* One communicator for the ranks of several machines: a chain of machines, each with a communicator
 * of its own ranks (comm_null.c, comm_shm.c) and wires from its first rank, its leader, to those of
 * the machine before and the machine behind.
 *
 *   machine 0          machine 1                machine 2
 *   v0 + v1   ------>  + v2 + v3   ---------->  + v4 + v5      up: the sum so far
 *   total     <------  total       <----------  = total        down: the total
 *
 * A leader adds the sum of the machines before to its own values and lets its machine sum them: it
 * is the first in the order of the machine, so the sum goes on where it stood. A run of floats is
 * cut into segments, which follow one another through the chain in both directions at once:
 *
 *   tick i:  sum segment i on the machine; share the total of segment i - lag on the machine
 *
 * All ranks of a machine do the same at the same tick; the leader waits for the network in front of
 * it. The lag is as long as the way to the end of the chain and back, so that nobody on it waits.
 *
 * Invariants:
 *   1. A frame carries kind, size and number of its operation, and is the next piece of it: wires
 * keep order. Frames of a later operation stay in the wire until this one is over.
 *   2. What arrives is added to, or copied into its final place at once: no buffers, so a leader
 * can always receive what its operation still expects while it waits to send. A total is taken only
 * after the sum for it was sent.
 *   3. A leader leaves an operation when all it had to send is with the kernel: its neighbours need
 * nothing more of it.
 *   4. A rank that fails stops the ranks of its machine.
 *
 * It does not connect, and does not tell other machines why it fails: they see the connection
 * close.
 *
 * Source: Watts, van de Geijn, "A pipelined broadcast for multidimensional meshes", Parallel
 * Processing Letters 1995 (segments along a chain). */
#include "workers/comm.h"

#include "base/clock.h"
#include "base/config.h"
#include "base/err.h"
#include "ipc/wire.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "floats travel little endian");

/* In front of the piece in each body; the wire's type is the kind. */
struct piece_header {
    uint64_t operation; /* counts from 0 */
    uint64_t bytes;     /* of the operation, not of the piece */
};
_Static_assert(sizeof(struct piece_header) == 16, "layout of a piece");

#define PIECE_BYTES (NNC_WIRE_BODY_MAX - sizeof(struct piece_header))

enum {
    SEGMENT = 4 * PIECE_BYTES / sizeof(float), /* floats; whole pieces, a chunk of comm_shm.c */
    SLICE_MS = 100,
    LEADER_MS = 1000, /* a leader knows more, so it shall be the first to give up */
};
_Static_assert(SEGMENT * sizeof(float) % PIECE_BYTES == 0, "segments are whole pieces");
_Static_assert(NNC_MAX_RANKS *NNC_COMM_BLOCK_MAX <= PIECE_BYTES, "a gather is one piece");

enum kind {
    KIND_SUM = 1,
    KIND_BROADCAST,
    KIND_GATHER,
};

struct nodes_comm {
    struct nnc_comm base;
    struct nnc_comm_params params;
    struct nnc_comm *local;
    _Atomic int stopped;
    uint64_t operation;
    uint8_t body[NNC_WIRE_BODY_MAX]; /* where a frame is put together */
    float blocks[NNC_MAX_RANKS * NNC_COMM_BLOCK_MAX / sizeof(float)];
};

/* One direction of an operation, in bytes. Without a wire all of it has arrived, or has gone. */
struct flow {
    struct nnc_wire *in, *out;
    size_t got;          /* taken from `in` */
    size_t sent;         /* given to `out` */
    size_t gone;         /* of these, with the kernel */
    const size_t *ready; /* may be sent */
};

/* One operation of a leader; on other ranks it has no wires, and nothing ever waits. */
struct run {
    enum kind kind;
    uint8_t *values;
    size_t bytes;
    size_t kept;   /* of what comes up, the first so many bytes count */
    size_t summed; /* bytes that this machine has put its own values into */
    struct flow up, down;
};

static bool is_last(const struct nodes_comm *nodes) {
    return nodes->params.node + 1 == nodes->params.nodes;
}

static struct flow flow_between(struct nnc_wire *in, struct nnc_wire *out, size_t bytes) {
    return (struct flow){.in = in,
                         .out = out,
                         .got = in == NULL ? bytes : 0,
                         .sent = out == NULL ? bytes : 0,
                         .gone = out == NULL ? bytes : 0};
}

static void begin(const struct nodes_comm *nodes, enum kind kind, void *values, size_t bytes,
                  struct run *ret_run) {
    struct nnc_wire *before = nodes->params.before, *after = nodes->params.after;
    bool back = kind != KIND_BROADCAST;
    *ret_run = (struct run){.kind = kind, .values = values, .bytes = bytes, .kept = bytes};
    ret_run->up = flow_between(before, after, bytes);
    ret_run->down = flow_between(back ? after : NULL, back ? before : NULL, bytes);
    ret_run->up.ready = back ? &ret_run->summed : &ret_run->up.got;
    ret_run->down.ready = is_last(nodes) ? &ret_run->summed : &ret_run->down.got;
}

static const char *kind_name(uint32_t kind) {
    switch ((enum kind)kind) {
    case KIND_SUM:
        return "a sum";
    case KIND_BROADCAST:
        return "a broadcast";
    case KIND_GATHER:
        return "a gather";
    }
    return "something unknown";
}

/* Put the neighbour on a wire in front of what happened. What it sent wrong is a cause; that it is
 * gone or late may be the consequence of one. */
static int fail_at(const struct nodes_comm *nodes, const struct nnc_wire *wire, int code) {
    bool is_before = wire == nodes->params.before;
    uint32_t node = is_before ? nodes->params.node - 1 : nodes->params.node + 1;
    const char *where = is_before ? "before" : "behind";
    if (code == -EPIPE) {
        return nnc_fail(-NNC_E_COMM,
                        "the machine %s (node %u) closed the connection during a collective", where,
                        node);
    }
    return nnc_fail_in(code == -NNC_E_FORMAT ? -NNC_E_HARDWARE : -NNC_E_COMM,
                       "the machine %s (node %u)", where, node);
}

/* Is the frame the next piece of this run? Frames are another machine's word. */
static int check_piece(const struct nodes_comm *nodes, const struct run *run,
                       const struct nnc_wire_frame *frame, size_t got) {
    struct piece_header header;
    if (frame->bytes < sizeof(header)) {
        return nnc_fail(-NNC_E_FORMAT, "it sent a piece of %u bytes", frame->bytes);
    }
    memcpy(&header, frame->body, sizeof(header));
    if (header.operation != nodes->operation || frame->type != run->kind ||
        header.bytes != run->bytes) {
        return nnc_fail(-NNC_E_FORMAT,
                        "it is at collective %" PRIu64 ", %s of %" PRIu64
                        " bytes; this machine is at collective %" PRIu64 ", %s of %zu bytes",
                        header.operation, kind_name(frame->type), header.bytes, nodes->operation,
                        kind_name(run->kind), run->bytes);
    }
    size_t left = run->bytes - got, piece = frame->bytes - sizeof(header);
    if (piece != (left < PIECE_BYTES ? left : PIECE_BYTES)) {
        return nnc_fail(-NNC_E_FORMAT, "it sent a piece of %zu bytes where %zu are left", piece,
                        left);
    }
    return 0;
}

/* Put a piece that came up to its place: sums go on from it, anything else is copied. */
static void take_up(const struct run *run, const uint8_t *piece, size_t at, size_t bytes) {
    if (run->kind != KIND_SUM) {
        size_t kept = run->kept - at < bytes ? run->kept - at : bytes;
        memcpy(run->values + at, piece, kept);
        return;
    }
    const float *restrict prefix = (const float *)(const void *)piece;
    float *restrict own = (float *)(void *)(run->values + at);
    for (size_t i = 0; i < bytes / sizeof(float); i++) {
        own[i] = prefix[i] + own[i];
    }
}

/* Take one piece, when one is there and expected: 1, or 0. */
static int take_piece(const struct nodes_comm *nodes, const struct run *run, struct flow *flow) {
    struct nnc_wire_frame frame = {0};
    int code = flow->got < run->bytes ? nnc_wire_receive(flow->in, &frame) : 0;
    if (code == 0) {
        return 0;
    }
    code = code < 0 ? code : check_piece(nodes, run, &frame, flow->got);
    size_t bytes = code < 0 ? 0 : frame.bytes - sizeof(struct piece_header);
    const uint8_t *piece = code < 0 ? NULL : frame.body + sizeof(struct piece_header);
    bool early = flow == &run->down && flow->got + bytes > run->up.sent;
    if (code >= 0 && early) {
        code = nnc_fail(-NNC_E_FORMAT, "it sent a total before it got the sum");
    }
    if (code < 0) {
        return fail_at(nodes, flow->in, code);
    }
    if (flow == &run->up) {
        take_up(run, piece, flow->got, bytes);
    } else {
        memcpy(run->values + flow->got, piece, bytes);
    }
    flow->got += bytes;
    return 1;
}

/* Give the wire what is ready, as far as it takes it: 1 when it took some, or 0. */
static int send_pieces(struct nodes_comm *nodes, const struct run *run, struct flow *flow) {
    const struct piece_header header = {.operation = nodes->operation, .bytes = run->bytes};
    size_t before = flow->sent;
    int code = 0;
    while (flow->sent < *flow->ready) {
        size_t left = *flow->ready - flow->sent;
        size_t bytes = left < PIECE_BYTES ? left : PIECE_BYTES;
        memcpy(nodes->body, &header, sizeof(header));
        memcpy(nodes->body + sizeof(header), run->values + flow->sent, bytes);
        code = nnc_wire_send(flow->out, run->kind, nodes->body, sizeof(header) + bytes);
        if (code < 0) {
            break;
        }
        flow->sent += bytes;
    }
    ssize_t waiting = 0;
    if (flow->gone < flow->sent && (code == 0 || code == -ENOBUFS)) {
        waiting = nnc_wire_flush(flow->out);
        code = waiting < 0 ? (int)waiting : 0;
        flow->gone = waiting == 0 ? flow->sent : flow->gone;
    }
    return code < 0 ? fail_at(nodes, flow->out, code) : flow->sent > before;
}

/* All that goes without waiting, but one piece from each side at most: the machine's own work must
 * not stand back behind a fast neighbour. 1 when something moved. */
static int move(struct nodes_comm *nodes, struct run *run) {
    int moved = 0;
    struct flow *flows[] = {&run->up, &run->down};
    for (int i = 0; i < 2; i++) {
        int code = take_piece(nodes, run, flows[i]);
        if (code < 0) {
            return code;
        }
        moved |= code;
    }
    for (int i = 0; i < 2; i++) {
        int code = send_pieces(nodes, run, flows[i]);
        if (code < 0) {
            return code;
        }
        moved |= code;
    }
    return moved;
}

/* What to wait for on a neighbour's wire: room for what waits there, pieces that are expected. What
 * is not would wake us for nothing, and poll() passes over -1. */
static struct pollfd source_of(const struct nnc_wire *wire, bool expected) {
    short events = wire == NULL ? 0 : nnc_wire_events(wire);
    events = expected ? events : (short)(events & ~POLLIN);
    return (struct pollfd){.fd = events == 0 ? -1 : nnc_wire_fd(wire), .events = events};
}

static int wait_slice(const struct nodes_comm *nodes, const struct run *run,
                      const struct nnc_wire *awaited, uint64_t began_ns) {
    if (atomic_load_explicit(&nodes->stopped, memory_order_acquire) != 0 ||
        nnc_comm_stopped(nodes->local)) {
        return nnc_fail(-NNC_E_COMM, "rank %u: the group was stopped during a collective",
                        nodes->base.rank);
    }
    uint64_t waited_ms = (nnc_clock_ns() - began_ns) / 1000000u;
    if (waited_ms >= (uint64_t)nodes->params.deadline_ms) {
        nnc_fail(-NNC_E_COMM, "it kept this machine waiting for %.1f s in a collective",
                 (double)waited_ms / 1000);
        return fail_at(nodes, awaited, -NNC_E_COMM);
    }
    int code = nodes->params.alive != NULL ? nodes->params.alive(nodes->params.context) : 0;
    if (code < 0) {
        return code;
    }
    struct pollfd sources[] = {source_of(nodes->params.before, run->up.got < run->bytes),
                               source_of(nodes->params.after, run->down.got < run->bytes)};
    if (poll(sources, 2, SLICE_MS) < 0 && errno != EINTR) {
        return nnc_fail_errno("poll for the neighbours of this machine");
    }
    return 0;
}

/* Wait until *word is at least target; `awaited` is the neighbour it hangs on. */
static int wait_for(struct nodes_comm *nodes, struct run *run, const struct nnc_wire *awaited,
                    const size_t *word, size_t target) {
    uint64_t began_ns = nnc_clock_ns();
    for (;;) {
        int code = move(nodes, run);
        if (code < 0 || *word >= target) {
            return code < 0 ? code : 0;
        }
        code = code > 0 ? 0 : wait_slice(nodes, run, awaited, began_ns);
        if (code < 0) {
            return code;
        }
    }
}

/* The end of an operation, well or not. */
static int finish(struct nodes_comm *nodes, struct run *run, int code) {
    struct flow *flows[] = {&run->up, &run->down};
    for (int i = 0; i < 2 && code >= 0; i++) {
        code = wait_for(nodes, run, flows[i]->in, &flows[i]->got, run->bytes);
        code = code < 0 ? code : wait_for(nodes, run, flows[i]->out, &flows[i]->gone, run->bytes);
    }
    nodes->operation++;
    if (code < 0) {
        nnc_comm_stop(nodes->local);
    }
    return code;
}

static size_t segment_end(size_t segment, size_t count) {
    return count / SEGMENT > segment ? (segment + 1) * SEGMENT : count;
}

static size_t segments_of(size_t count) {
    return count / SEGMENT + (count % SEGMENT > 0);
}

static int sum_segment(struct nodes_comm *nodes, struct run *run, float *values, size_t first,
                       size_t end) {
    int code = wait_for(nodes, run, run->up.in, &run->up.got, end * sizeof(float));
    code = code < 0 ? code : nnc_comm_allreduce(nodes->local, values + first, end - first);
    run->summed = end * sizeof(float);
    return code;
}

static int share_segment(struct nodes_comm *nodes, struct run *run, struct flow *flow,
                         float *values, size_t first, size_t end) {
    int code = wait_for(nodes, run, flow->in, &flow->got, end * sizeof(float));
    return code < 0 ? code : nnc_comm_broadcast(nodes->local, values + first, end - first);
}

static int nodes_allreduce(struct nnc_comm *comm, float *values, size_t count) {
    struct nodes_comm *nodes = (struct nodes_comm *)comm;
    size_t segments = segments_of(count);
    /* The sums of the last machine are totals, which all of its ranks have. */
    size_t shared = is_last(nodes) ? 0 : segments;
    size_t lag = 2 * (size_t)(nodes->params.nodes - nodes->params.node);
    struct run run;
    begin(nodes, KIND_SUM, values, count * sizeof(float), &run);
    int code = 0;
    for (size_t tick = 0; code >= 0 && tick < segments + lag; tick++) {
        if (tick < segments) {
            code = sum_segment(nodes, &run, values, tick * SEGMENT, segment_end(tick, count));
        }
        if (code >= 0 && tick >= lag && tick - lag < shared) {
            code = share_segment(nodes, &run, &run.down, values, (tick - lag) * SEGMENT,
                                 segment_end(tick - lag, count));
        }
    }
    return finish(nodes, &run, code);
}

static int nodes_broadcast(struct nnc_comm *comm, float *values, size_t count) {
    struct nodes_comm *nodes = (struct nodes_comm *)comm;
    struct run run;
    begin(nodes, KIND_BROADCAST, values, count * sizeof(float), &run);
    int code = 0;
    for (size_t segment = 0; code >= 0 && segment < segments_of(count); segment++) {
        size_t end = segment_end(segment, count);
        code = share_segment(nodes, &run, &run.up, values, segment * SEGMENT, end);
        /* Not further ahead of the machine behind: each wait shall be for one segment. */
        code =
            code < 0 ? code : wait_for(nodes, &run, run.up.out, &run.up.sent, end * sizeof(float));
    }
    return finish(nodes, &run, code);
}

/* Each machine fills in the blocks of its ranks on the way up. */
static int nodes_gather(struct nnc_comm *comm, const void *block, size_t bytes, void *ret_blocks) {
    struct nodes_comm *nodes = (struct nodes_comm *)comm;
    size_t total = comm->ranks * bytes, first = nodes->params.first * bytes;
    struct run run;
    memset(nodes->blocks, 0, sizeof(nodes->blocks));
    begin(nodes, KIND_GATHER, nodes->blocks, total, &run);
    run.kept = first;
    int code = nnc_comm_gather(nodes->local, block, bytes, run.values + first);
    code = code < 0 ? code : wait_for(nodes, &run, run.up.in, &run.up.got, total);
    run.summed = total;
    code = code < 0 ? code : wait_for(nodes, &run, run.down.in, &run.down.got, total);
    size_t floats = (total + sizeof(float) - 1) / sizeof(float);
    code = code < 0 ? code : nnc_comm_broadcast(nodes->local, nodes->blocks, floats);
    code = finish(nodes, &run, code);
    if (code >= 0) {
        memcpy(ret_blocks, nodes->blocks, total);
    }
    return code;
}

static void nodes_stop(struct nnc_comm *comm) {
    struct nodes_comm *nodes = (struct nodes_comm *)comm;
    atomic_store_explicit(&nodes->stopped, 1, memory_order_release);
    nnc_comm_stop(nodes->local);
}

static int nodes_stopped(const struct nnc_comm *comm) {
    const struct nodes_comm *nodes = (const struct nodes_comm *)comm;
    return atomic_load_explicit(&nodes->stopped, memory_order_acquire) != 0 ||
           nnc_comm_stopped(nodes->local);
}

static void nodes_destroy(struct nnc_comm *comm) {
    struct nodes_comm *nodes = (struct nodes_comm *)comm;
    nnc_comm_destroy(nodes->local);
    free(nodes);
}

static const struct nnc_comm_ops nodes_ops = {
    .name = "nodes",
    .destroy = nodes_destroy,
    .allreduce = nodes_allreduce,
    .broadcast = nodes_broadcast,
    .gather = nodes_gather,
    .stop = nodes_stop,
    .stopped = nodes_stopped,
};

/* The communicator of this machine's ranks. */
static int create_local(struct nodes_comm *nodes) {
    struct nnc_comm_params local = nodes->params;
    local.rank -= local.first;
    local.ranks = local.local_ranks;
    local.local_ranks = 0;
    if (local.rank > 0 && local.deadline_ms < INT_MAX - LEADER_MS) {
        local.deadline_ms += LEADER_MS;
    }
    return nnc_comm_create(&local, &nodes->local);
}

int nnc_comm_nodes_create(const struct nnc_comm_params *params, struct nnc_comm **ret_comm) {
    bool leads = params->rank == params->first;
    assert(params->ranks <= NNC_MAX_RANKS && params->node < params->nodes);
    assert(params->rank >= params->first && params->rank - params->first < params->local_ranks);
    assert((params->before != NULL) == (leads && params->node > 0));
    assert((params->after != NULL) == (leads && params->node + 1 < params->nodes));
    struct nodes_comm *nodes = calloc(1, sizeof(*nodes));
    if (nodes == NULL) {
        return nnc_fail(-ENOMEM, "no memory for the communicator");
    }
    nodes->base = (struct nnc_comm){&nodes_ops, params->rank, params->ranks};
    nodes->params = *params;
    int code = create_local(nodes);
    if (code < 0) {
        nodes_destroy(&nodes->base);
        return code;
    }
    *ret_comm = &nodes->base;
    return 0;
}
