/* SPDX-License-Identifier: Apache-2.0 */
/* The coordinators of a run on several machines, all in one process and over real sockets of this
 * machine, with what each of them was told. The clock is the real one plus what a test adds. */
#ifndef NNC_TESTS_NODES_CASE_H
#define NNC_TESTS_NODES_CASE_H

#include "coordinator/nodes.h"

#define NODES_CASE_MAX  5
#define NODES_CASE_SEEN 24

/* An event as it came; what it points to is its own. */
struct nodes_case_event {
    struct nnc_nodes_event event;
    char words[NNC_NODES_WORDS_MAX];
    struct nnc_message message;
    struct nnc_nodes_beat beat;
};

struct nodes_case_machine {
    struct nnc_config config;
    struct nnc_nodes_params params;
    struct nnc_nodes *nodes; /* NULL: not open */
    bool asleep;             /* is not worked */
    struct nodes_case_event seen[NODES_CASE_SEEN];
    uint32_t count;
};

struct nodes_case {
    struct nodes_case_machine machine[NODES_CASE_MAX];
    uint32_t count;
    uint64_t ahead_ns; /* of the real clock */
};

/* What node 0 of every case starts from. */
extern const struct nnc_nodes_start nodes_case_start;

/* Machines that fit together, at a port of 127.0.0.1 that is free; none is open yet. */
void nodes_case_prepare(struct nodes_case *run, uint32_t count);

/* Open one, or all. */
void nodes_case_open(struct nodes_case *run, uint32_t node);
void nodes_case_open_all(struct nodes_case *run);

/* All that are open join a generation; nodes other than 0 with a start of their own. */
void nodes_case_join(struct nodes_case *run, uint32_t generation);

/* As prepare, open all, join generation 1, and wait until it has begun everywhere. */
void nodes_case_begin(struct nodes_case *run, uint32_t count);

/* Work all that are open and awake once, after waiting a little for something to do. */
void nodes_case_work(struct nodes_case *run);

/* How many events of a kind a machine has seen. */
uint32_t nodes_case_count(const struct nodes_case *run, uint32_t node,
                          enum nnc_nodes_event_kind kind);

/* Work until a machine has seen an event of that kind for the nth time, from 1. */
const struct nodes_case_event *nodes_case_wait(struct nodes_case *run, uint32_t node,
                                               enum nnc_nodes_event_kind kind, uint32_t nth);

/* Close one, or all that are open, as at the end of a run that went well. */
void nodes_case_close(struct nodes_case *run, uint32_t node);
void nodes_case_close_all(struct nodes_case *run);

/* "node 2 (HOST)", HOST being this machine. */
const char *nodes_case_name(uint32_t node);

#endif
