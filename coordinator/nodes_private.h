/* SPDX-License-Identifier: Apache-2.0 */
/* The state of the coordinators' protocol, shared by nodes.c (who is there, what is told) and
 * nodes_hear.c (what comes in) and nothing else.
 *
 * Frames of the control connections, all fixed structs of one build (its id is compared first):
 *
 *   JOIN     to node 0    nodes_join, then the options' text
 *   BEGIN    from node 0  nodes_begin
 *   RESTART  both ways    nodes_word, then words; node 0 passes it on
 *   FAILED   both ways    likewise
 *   STOP     both ways    likewise
 *   CHILD    to node 0    nnc_message, as long as its body is
 *   BEAT     both ways    nnc_nodes_beat; from node 0 without a body
 *   KILL     from node 0  nodes_word, then words
 *   END      from node 0  likewise
 *   DONE     to node 0    nodes_word
 *
 * Invariants:
 *   1. peer[n] is the connection to node n: node 0 has one to each other node, they have peer[0].
 *   2. A peer that is gone has no wire, and was told of by one FAILED event, unless it had done its
 *      part.
 *   3. A body's bytes are another machine's word: every handler checks its length, and every number
 *      that is an index. */
#ifndef NNC_COORDINATOR_NODES_PRIVATE_H
#define NNC_COORDINATOR_NODES_PRIVATE_H

#include "coordinator/nodes.h"

#include <sys/types.h>

enum nodes_frame {
    FRAME_JOIN = 1,
    FRAME_BEGIN,
    FRAME_RESTART,
    FRAME_FAILED,
    FRAME_STOP,
    FRAME_CHILD,
    FRAME_BEAT,
    FRAME_KILL,
    FRAME_DONE,
    FRAME_END,
};

struct nodes_join {
    uint32_t generation, reserved;
    struct nnc_nodes_share share;
    struct nnc_address listener; /* for the node behind */
    char host[64];
};

struct nodes_begin {
    uint32_t generation, reserved;
    struct nnc_nodes_start start;
    struct nnc_address before; /* where the node before listens */
};

struct nodes_word {
    int32_t number; /* generation, code, signal or rank */
    uint32_t node;  /* it came from; set by node 0 */
};

struct nodes_peer {
    struct nnc_wire *wire; /* NULL: not there yet, or gone */
    bool heard;            /* a frame of it */
    bool done, gone;
    bool turned_away; /* it does not fit, and leaves its place when it was told */
    uint32_t joined;  /* generation */
    uint64_t heard_ns;
    struct nnc_address listener;
    char host[64];
};

struct nnc_nodes {
    struct nnc_nodes_params params;
    uint32_t node, count; /* this one, all */
    char name[96];        /* "node 1 (db8)": what this machine's words begin with */
    int epoll_fd;
    struct nnc_door *door; /* node 0's is the endpoint; the last node has none */
    struct nnc_call *control, *data;
    struct nodes_peer peer[NNC_MAX_NODES];
    struct nnc_nodes_link link[2]; /* to the node before, behind */
    uint32_t joined, begun;        /* generations, of this node */
    struct nnc_nodes_start start;
    uint64_t deadline_ns; /* of the generation that is being joined */
    uint64_t told_ns;     /* when waiting was last told of */
    bool failed, ended;
};

/* Whether this is node 0. */
static inline bool nodes_is_first(const struct nnc_nodes *nodes) {
    return nodes->node == 0;
}

/* Hand an event to the run. */
void nodes_emit(struct nnc_nodes *nodes, const struct nnc_nodes_event *event);

/* Send to a node, if there is a connection to it: a body, or a word with words. */
void nodes_send_to(struct nnc_nodes *nodes, uint32_t node, enum nodes_frame type, const void *body,
                   size_t bytes);
void nodes_send_word(struct nnc_nodes *nodes, uint32_t node, enum nodes_frame type,
                     const struct nodes_word *word, const char *words);

/* The same to all that this one has connections to, but one. */
void nodes_send_all(struct nnc_nodes *nodes, uint32_t but, enum nodes_frame type,
                    const struct nodes_word *word, const char *words);

/* Look at what sending returned: a connection that takes no more is found closed by who reads,
 * since what came before may say why. */
void nodes_check_sent(struct nnc_nodes *nodes, uint32_t node, ssize_t code);

/* The run cannot go on for a reason found here: this machine and all others are told. */
void nodes_fail(struct nnc_nodes *nodes, int code, const char *words);

/* A connection is over. */
void nodes_lose(struct nnc_nodes *nodes, uint32_t node, const char *why);

/* "node 2 (db9)", or "node 2" of one that never said its host's name. */
void nodes_name_peer(const struct nnc_nodes *nodes, uint32_t node, char *ret_name, size_t bytes);

/* What this machine says of itself. */
struct nnc_greeting nodes_own_greeting(const struct nnc_nodes *nodes, enum nnc_greeting_kind kind);

/* Listen, or call node 0. Errors: as nnc_nodes_open(). */
int nodes_reach(struct nnc_nodes *nodes);

/* Work on all that came from a node, and on what waits to go there (nodes_hear.c). */
void nodes_read_peer(struct nnc_nodes *nodes, uint32_t node, uint64_t now_ns);

#endif
