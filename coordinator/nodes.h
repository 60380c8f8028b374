/* SPDX-License-Identifier: Apache-2.0 */
/* The coordinators of a run on several machines: who is there, when a generation begins, and what
 * one of them has to tell the others.
 *
 *   node 1 --control--> node 0 <--control-- node 2        a star: node 0 hears all, passes on
 *   node 0 <--data-- node 1 <--data-- node 2              a chain: for the trainers' sums
 *
 * Each generation begins with a barrier: all nodes join it, node 0 says BEGIN, and each node calls
 * the one before it for the connection that its first trainer inherits. After that a node that says
 * nothing for 10 s, or closes its connection, is gone, and with it the run: its ranks cannot be
 * replaced. What a machine does with all this is run_nodes.c's.
 *
 * It starts no process and decides nothing about ranks. */
#ifndef NNC_COORDINATOR_NODES_H
#define NNC_COORDINATOR_NODES_H

#include "coordinator/rendezvous.h"
#include "coordinator/report.h"
#include "coordinator/stall.h"
#include "ipc/channel.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NNC_NODES_WORDS_MAX 1024

struct nnc_nodes;

/* Where all ranks start from; node 0 decides. */
struct nnc_nodes_start {
    int32_t start; /* enum nnc_start */
    uint32_t epoch;
    uint64_t step;
};

/* What a machine does for the run and works on; node 0 compares. */
struct nnc_nodes_share {
    uint32_t ranks;        /* here */
    uint32_t on_gpus;      /* 1, or 0: they compute on CPUs */
    uint64_t model_hash;   /* of the model's text */
    uint64_t data_hash[2]; /* nnc_index_content_hash(), by enum nnc_phase; 0: no such data */
};

/* What node 0 is told every second of each machine, and the coordinators' heartbeat. Times are
 * ages: machines' clocks differ. */
struct nnc_nodes_beat {
    uint32_t generation;
    uint32_t ranks;
    struct nnc_progress progress;
    struct nnc_stall_rank rank[NNC_MAX_RANKS]; /* beat_ns: how long ago */
};

/* What came from another machine. */
enum nnc_nodes_event_kind {
    NNC_NODES_BEGIN,   /* this generation begins: start; the links are there */
    NNC_NODES_RESTART, /* another machine's group starts again: generation, words */
    NNC_NODES_FAILED,  /* the run has failed elsewhere, or a machine is gone: code, words */
    NNC_NODES_STOP,    /* another machine was told to stop by a signal: number */
    NNC_NODES_CHILD,   /* at node 0: a message of another machine's child */
    NNC_NODES_BEAT,    /* at node 0 */
    NNC_NODES_KILL,    /* a rank of this machine is to be killed: number, words */
    NNC_NODES_END,     /* node 0 has ended: code, words */
};

struct nnc_nodes_event {
    enum nnc_nodes_event_kind kind;
    uint32_t node; /* it came from */
    int32_t code;
    uint32_t number;   /* generation, signal or rank */
    const char *words; /* ends with a zero; "" where there are none */
    struct nnc_nodes_start start;
    const struct nnc_message *message;
    const struct nnc_nodes_beat *beat;
};

struct nnc_nodes_params {
    const struct nnc_config *config; /* borrowed: nodes, rendezvous, and what must be alike */
    uint8_t secret[NNC_SECRET_BYTES];
    struct nnc_nodes_share share;
    /* Called in nnc_nodes_work() for all that comes; may call everything here but close. */
    void (*on_event)(void *context, const struct nnc_nodes_event *event);
    void *context;
};

/* A link of this machine's first trainer to that of a neighbour; fd < 0: there is none. */
struct nnc_nodes_link {
    int fd;
    struct nnc_wire_keys keys;
};

/* Node 0 begins to listen, others begin to call it. params is copied.
 * Owner:  nnc_nodes_close(). Errors: -NNC_E_USAGE endpoint that is not this machine's or in use;
 * -NNC_E_COMM; -ENOMEM. */
int nnc_nodes_open(const struct nnc_nodes_params *params, struct nnc_nodes **ret_nodes);

/* Becomes readable when nnc_nodes_work() has something to do; it also wants to be called every 100
 * ms. */
int nnc_nodes_fd(const struct nnc_nodes *nodes);

/* This machine is ready for a generation; NNC_NODES_BEGIN follows when all are. start: node 0's. */
void nnc_nodes_join(struct nnc_nodes *nodes, uint32_t generation,
                    const struct nnc_nodes_start *start);

/* Do what there is to do without waiting; calls on_event. */
void nnc_nodes_work(struct nnc_nodes *nodes, uint64_t now_ns);

/* The links of the generation that began, to the machine before and behind; they stay the nodes'
 * until forgotten. */
const struct nnc_nodes_link *nnc_nodes_links(const struct nnc_nodes *nodes);

/* Close this process's ends of the links: the trainer has its own now. */
void nnc_nodes_forget_links(struct nnc_nodes *nodes);

/* Tell the others; node 0 tells all, others node 0, which passes it on. */
void nnc_nodes_tell_restart(struct nnc_nodes *nodes, uint32_t generation, const char *words);
void nnc_nodes_tell_failure(struct nnc_nodes *nodes, int code, const char *words);
void nnc_nodes_tell_stop(struct nnc_nodes *nodes, int signal_number);

/* To node 0 alone; nothing where this is node 0. */
void nnc_nodes_tell_child(struct nnc_nodes *nodes, const struct nnc_message *message);
void nnc_nodes_tell_beat(struct nnc_nodes *nodes, const struct nnc_nodes_beat *beat);

/* From node 0: kill this rank, which is of another node. */
void nnc_nodes_tell_kill(struct nnc_nodes *nodes, uint32_t node, uint32_t rank, const char *words);

/* This machine has done its part. Others wait then for NNC_NODES_END, node 0 for all of them. */
void nnc_nodes_tell_done(struct nnc_nodes *nodes);

/* Node 0: whether all others have done theirs, or are gone. Others: whether node 0 has ended. */
bool nnc_nodes_are_done(const struct nnc_nodes *nodes);

/* End: node 0 tells all how the run ended (code 0: well). Waits a few seconds at most until that is
 * sent. Takes NULL. */
void nnc_nodes_close(struct nnc_nodes *nodes, int code, const char *words);

#endif
