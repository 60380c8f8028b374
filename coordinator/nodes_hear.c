/* SPDX-License-Identifier: Apache-2.0 */
/* What comes from other machines' coordinators; see nodes.h and nodes_private.h. */
#include "coordinator/nodes_private.h"

#include "base/clock.h"
#include "base/err.h"
#include "base/log.h"
#include "base/text.h"
#include "coordinator/nodes_fit.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define SECOND_NS 1000000000ull
#define DEAD_NS   (10 * SECOND_NS)
#define LINK_NS   (30 * SECOND_NS)

/* A machine that cannot take part: it may be one of another run, so this one goes on waiting for
 * its own. Once that has begun all have fitted. */
static void turn_away(struct nnc_nodes *nodes, uint32_t node, const char *words) {
    if (nodes->begun != 0) {
        nodes_fail(nodes, -NNC_E_USAGE, words);
        return;
    }
    const struct nodes_word word = {.number = -NNC_E_USAGE, .node = nodes->node};
    nnc_log(NNC_LOG_WARN, "%s; still waiting for a node %" PRIu32 " that fits", words, node);
    nodes_send_word(nodes, node, FRAME_FAILED, &word, words);
    nodes->peer[node].joined = 0;
    nodes->peer[node].turned_away = true;
}

static void on_join(struct nnc_nodes *nodes, uint32_t node, const struct nnc_wire_frame *frame) {
    struct nodes_peer *peer = &nodes->peer[node];
    struct nodes_join join;
    char words[600], whole[800];
    memcpy(&join, frame->body, sizeof(join));
    if (join.listener.bytes > sizeof(join.listener.storage)) {
        nodes_lose(nodes, node, "its address is damaged");
        return;
    }
    join.host[sizeof(join.host) - 1] = '\0';
    nnc_text_escape(join.host, peer->host, sizeof(peer->host));
    peer->listener = join.listener;
    peer->joined = join.generation;
    peer->done = false;
    char name[128];
    nodes_name_peer(nodes, node, name, sizeof(name));
    if (nnc_config_compare_shared(nodes->params.config, (const char *)frame->body + sizeof(join),
                                  frame->bytes - sizeof(join), words, sizeof(words)) != 0) {
        snprintf(whole, sizeof(whole), "node 0 says that %s differs: %s", name, words);
        turn_away(nodes, node, whole);
    } else if (!nnc_nodes_share_fits(&nodes->params.share, &join.share, words, sizeof(words))) {
        snprintf(whole, sizeof(whole), "%s %s", name, words);
        turn_away(nodes, node, whole);
    }
}

static void on_begin(struct nnc_nodes *nodes, const struct nnc_wire_frame *frame) {
    struct nodes_begin begin;
    memcpy(&begin, frame->body, sizeof(begin));
    if (begin.generation < nodes->joined) {
        return; /* it has passed: the JOIN of the next is on its way */
    }
    if (begin.generation != nodes->joined || begin.generation == nodes->begun ||
        begin.before.bytes > sizeof(begin.before.storage)) {
        nodes_lose(nodes, 0, "it begins a generation that this machine has not joined");
        return;
    }
    nodes->begun = begin.generation;
    nodes->start = begin.start;
    char what[64];
    snprintf(what, sizeof(what), "the trainer of node %" PRIu32, nodes->node - 1);
    const struct nnc_greeting greeting = nodes_own_greeting(nodes, NNC_GREETING_DATA);
    if (nnc_call_begin(&begin.before, 1, what, nodes->params.secret, &greeting, nodes->epoll_fd,
                       nnc_clock_ns() + LINK_NS, &nodes->data) < 0) {
        nodes_fail(nodes, -NNC_E_COMM, nnc_error_text());
    }
}

/* A word with its words, as an event; node 0 passes three of them on. */
static void on_word(struct nnc_nodes *nodes, uint32_t from, const struct nnc_wire_frame *frame) {
    static const enum nnc_nodes_event_kind kinds[] = {[FRAME_RESTART] = NNC_NODES_RESTART,
                                                      [FRAME_FAILED] = NNC_NODES_FAILED,
                                                      [FRAME_STOP] = NNC_NODES_STOP,
                                                      [FRAME_KILL] = NNC_NODES_KILL,
                                                      [FRAME_END] = NNC_NODES_END};
    struct nodes_word word;
    char words[NNC_NODES_WORDS_MAX];
    memcpy(&word, frame->body, sizeof(word));
    snprintf(words, sizeof(words), "%.*s", (int)(frame->bytes - sizeof(word)),
             (const char *)frame->body + sizeof(word));
    word.node = nodes_is_first(nodes) ? from : word.node;
    if (word.node >= nodes->count) {
        nodes_lose(nodes, from, "it speaks of a machine that is none of this run");
        return;
    }
    nodes->failed = nodes->failed || frame->type == FRAME_FAILED;
    nodes->ended = nodes->ended || frame->type == FRAME_END;
    bool has_code = frame->type == FRAME_FAILED || frame->type == FRAME_END;
    if (frame->type == FRAME_FAILED && word.number >= 0) {
        word.number = -NNC_E_COMM; /* whatever it means, it is no success */
    }
    if (nodes_is_first(nodes)) {
        nodes_send_all(nodes, from, (enum nodes_frame)frame->type, &word, words);
    }
    nodes_emit(nodes, &(struct nnc_nodes_event){.kind = kinds[frame->type],
                                                .node = word.node,
                                                .code = has_code ? word.number : 0,
                                                .number = has_code ? 0 : (uint32_t)word.number,
                                                .words = words});
}

static void on_child(struct nnc_nodes *nodes, uint32_t node, const struct nnc_wire_frame *frame) {
    struct nnc_message message = {{0}, {0}};
    if (frame->bytes > sizeof(message)) {
        nodes_lose(nodes, node, "a message of its trainers is too long");
        return;
    }
    memcpy(&message, frame->body, frame->bytes);
    if (nnc_message_check(&message, frame->bytes) < 0) {
        nodes_lose(nodes, node, "a message of its trainers is damaged");
        return;
    }
    nodes_emit(nodes, &(struct nnc_nodes_event){
                          .kind = NNC_NODES_CHILD, .node = node, .message = &message});
}

/* Any other byte than 0 and 1 in a bool is undefined to read. */
static bool is_flag(const bool *flag) {
    uint8_t byte;
    memcpy(&byte, flag, 1);
    return byte <= 1;
}

static bool beat_is_sound(const struct nnc_nodes_beat *beat) {
    for (uint32_t rank = 0; rank < NNC_MAX_RANKS; rank++) {
        if (!is_flag(&beat->rank[rank].running) || !is_flag(&beat->rank[rank].on_device)) {
            return false;
        }
    }
    return true;
}

static void on_beat(struct nnc_nodes *nodes, uint32_t node, const struct nnc_wire_frame *frame) {
    struct nnc_nodes_beat beat;
    if (!nodes_is_first(nodes)) {
        return; /* that it came is all */
    }
    memcpy(&beat, frame->body, frame->bytes == sizeof(beat) ? sizeof(beat) : 0);
    if (frame->bytes != sizeof(beat) || !beat_is_sound(&beat)) {
        nodes_lose(nodes, node, "its heartbeat is damaged");
        return;
    }
    if (beat.ranks == nodes->params.share.ranks) {
        nodes_emit(nodes,
                   &(struct nnc_nodes_event){.kind = NNC_NODES_BEAT, .node = node, .beat = &beat});
    }
}

/* Who may send a type, and the least bytes of its body. */
static const struct {
    bool to_first, to_others;
    size_t bytes;
} frames[] = {
    [FRAME_JOIN] = {true, false, sizeof(struct nodes_join)},
    [FRAME_BEGIN] = {false, true, sizeof(struct nodes_begin)},
    [FRAME_RESTART] = {true, true, sizeof(struct nodes_word)},
    [FRAME_FAILED] = {true, true, sizeof(struct nodes_word)},
    [FRAME_STOP] = {true, true, sizeof(struct nodes_word)},
    [FRAME_CHILD] = {true, false, sizeof(struct nnc_message_header)},
    [FRAME_BEAT] = {true, true, 0},
    [FRAME_KILL] = {false, true, sizeof(struct nodes_word)},
    [FRAME_DONE] = {true, false, sizeof(struct nodes_word)},
    [FRAME_END] = {false, true, sizeof(struct nodes_word)},
};

static void on_frame(struct nnc_nodes *nodes, uint32_t node, const struct nnc_wire_frame *frame) {
    bool known = frame->type >= FRAME_JOIN && frame->type <= FRAME_END;
    bool allowed = known && (nodes_is_first(nodes) ? frames[frame->type].to_first
                                                   : frames[frame->type].to_others);
    if (!allowed || frame->bytes < frames[frame->type].bytes) {
        nodes_lose(nodes, node, "it speaks another protocol");
        return;
    }
    switch ((enum nodes_frame)frame->type) {
    case FRAME_JOIN:
        on_join(nodes, node, frame);
        break;
    case FRAME_BEGIN:
        on_begin(nodes, frame);
        break;
    case FRAME_RESTART:
    case FRAME_FAILED:
    case FRAME_STOP:
    case FRAME_KILL:
    case FRAME_END:
        on_word(nodes, node, frame);
        break;
    case FRAME_CHILD:
        on_child(nodes, node, frame);
        break;
    case FRAME_BEAT:
        on_beat(nodes, node, frame);
        break;
    case FRAME_DONE:
        nodes->peer[node].done = true;
        break;
    }
}

/* Node 0 hung up without a word: it may not have got this machine's proof in time. */
static void call_again(struct nnc_nodes *nodes) {
    nnc_log(NNC_LOG_INFO, "node 0 hung up before it said anything; calling again");
    nodes->peer[0].turned_away = true;
    int code = nodes_reach(nodes);
    if (code < 0) {
        nodes_fail(nodes, code, nnc_error_text());
    }
}

/* A machine went away. Before the run has begun another one can take its place. */
static void leave(struct nnc_nodes *nodes, uint32_t node, const char *why) {
    struct nodes_peer *peer = &nodes->peer[node];
    bool is_waiting = nodes->begun == 0 && !nodes->failed && !nodes->ended;
    if (is_waiting && !nodes_is_first(nodes) && !peer->heard &&
        nnc_clock_ns() < nodes->deadline_ns) {
        call_again(nodes);
        return;
    }
    if (!is_waiting || !nodes_is_first(nodes)) {
        nodes_lose(nodes, node, why);
        return;
    }
    char name[128];
    nodes_name_peer(nodes, node, name, sizeof(name));
    nnc_log(NNC_LOG_WARN, "%s has left: %s; still waiting for it", name, why);
    peer->joined = 0;
    peer->turned_away = true;
}

static bool is_here(const struct nodes_peer *peer) {
    return peer->wire != NULL && !peer->gone && !peer->turned_away;
}

void nodes_read_peer(struct nnc_nodes *nodes, uint32_t node, uint64_t now_ns) {
    struct nodes_peer *peer = &nodes->peer[node];
    struct nnc_wire_frame frame;
    int got = 0;
    while (is_here(peer) && (got = nnc_wire_receive(peer->wire, &frame)) == 1) {
        peer->heard_ns = now_ns;
        peer->heard = true;
        on_frame(nodes, node, &frame);
    }
    if (is_here(peer) && got == -EPIPE) {
        leave(nodes, node, "it closed the connection");
    } else if (is_here(peer) && got < 0) {
        nodes_lose(nodes, node, nnc_error_text());
    }
    if (is_here(peer)) {
        nodes_check_sent(nodes, node, nnc_wire_flush(peer->wire));
    }
    if (is_here(peer) && now_ns > peer->heard_ns && now_ns - peer->heard_ns > DEAD_NS) {
        leave(nodes, node, "it has said nothing for 10 s");
    }
    if (peer->wire != NULL && !is_here(peer)) {
        nnc_wire_destroy(peer->wire);
        peer->wire = NULL;
    }
    if (peer->turned_away) {
        *peer = (struct nodes_peer){.wire = NULL}; /* its place is free */
    }
}
