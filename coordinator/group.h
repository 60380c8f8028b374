/* SPDX-License-Identifier: Apache-2.0 */
/* The supervision of one group of trainers and loaders, as a pure state machine: events and the
 * time go in, actions come out, nothing is touched. run.c performs the actions on real processes;
 * tests perform them on modelled ones.
 *
 *   SPAWNED -> HELLO -> ATTACHED -> READY -> RUNNING -> DRAINING -> EXITED      any live -> FAILED
 *
 * Loaders can be added to and retired from a running group: a retired one publishes what it has
 * claimed and exits by itself (RUNNING -> DRAINING -> EXITED), and its place waits ABSENT.
 *
 * A loader that dies is swept and respawned; a trainer that dies takes its group with it, which
 * starts again from the newest snapshot. A child that dies before it was READY the first time ends
 * the run. */
#ifndef NNC_COORDINATOR_GROUP_H
#define NNC_COORDINATOR_GROUP_H

#include "ipc/channel.h"
#include "ipc/setup.h"

#include <stdbool.h>
#include <stdint.h>

#define NNC_GROUP_LOADERS_MAX  128
#define NNC_GROUP_CHILDREN_MAX (NNC_MAX_RANKS + NNC_GROUP_LOADERS_MAX)
#define NNC_GROUP_ACTIONS_MAX  (4 * NNC_GROUP_CHILDREN_MAX)

enum nnc_child_state {
    NNC_CHILD_ABSENT, /* not running; a loader may be waiting for its respawn */
    NNC_CHILD_SPAWNED,
    NNC_CHILD_HELLO,
    NNC_CHILD_ATTACHED,
    NNC_CHILD_READY,
    NNC_CHILD_RUNNING,
    NNC_CHILD_DRAINING,
    NNC_CHILD_EXITED,
    NNC_CHILD_FAILED,
    NNC_CHILD_STATE_COUNT,
};

/* "ready", "running", ... as logged. */
const char *nnc_child_state_name(enum nnc_child_state state);

enum nnc_group_phase {
    NNC_GROUP_STARTING,
    NNC_GROUP_RUNNING,
    NNC_GROUP_STOPPING,   /* a signal came: trainers snapshot and end */
    NNC_GROUP_DRAINING,   /* trainers are done, loaders end */
    NNC_GROUP_RESTARTING, /* a trainer died: all are killed, then the next generation starts */
    NNC_GROUP_FAILING,    /* all are killed, then the run ends with group->code */
    NNC_GROUP_FINISHED,
};

struct nnc_group_child {
    enum nnc_role role;
    uint32_t number;
    enum nnc_child_state state;
    uint32_t incarnation;
    bool done;            /* trainer: said DONE */
    bool wanted;          /* false: a loader's place that is empty, or is to become so */
    bool extra;           /* a loader added to a running group, until it was READY once */
    bool was_ready;       /* since the run began, in any incarnation */
    uint64_t deadline_ns; /* of the state; UINT64_MAX: none */
    uint64_t respawn_ns;  /* ABSENT loader: when to start again; UINT64_MAX: not */
    uint32_t idle_deaths; /* in a row, of incarnations that gave the run nothing */
};

enum nnc_action_kind {
    NNC_ACTION_SPAWN,          /* start child with its new incarnation */
    NNC_ACTION_SEND,           /* message `argument` to child */
    NNC_ACTION_KILL,           /* signal `argument` to child */
    NNC_ACTION_SWEEP,          /* free the claims of incarnation `argument` in all rings */
    NNC_ACTION_STOP_RINGS,     /* every ring says EPIPE from now on */
    NNC_ACTION_NEW_GENERATION, /* all children are gone: make new rings, choose the start state */
    NNC_ACTION_FINISH,         /* the run is over; group->code says how */
};

/* Small, because lists of them lie on the stack, and on small ones several at a time. */
struct nnc_action {
    uint16_t kind; /* enum nnc_action_kind */
    uint16_t child;
    uint32_t argument;
};

struct nnc_actions {
    struct nnc_action item[NNC_GROUP_ACTIONS_MAX];
    uint32_t count;
};

struct nnc_group_params {
    uint32_t trainers, loaders;
    uint32_t first_rank;  /* of the trainers; they are numbered over all machines */
    uint32_t loaders_max; /* places for loaders; 0: as many as loaders */
    uint32_t max_restarts;
    uint64_t grace_ns;
};

struct nnc_group {
    struct nnc_group_params params;
    enum nnc_group_phase phase;
    struct nnc_group_child child[NNC_GROUP_CHILDREN_MAX]; /* trainers first */
    uint32_t children;
    uint32_t generation;
    uint32_t next_incarnation;
    uint32_t restarts;
    uint32_t loader_deaths, loader_respawns;
    uint32_t extra_failures; /* added loaders that could not be started */
    uint32_t stop_signals;
    uint64_t stop_deadline_ns;
    char cause[1100];   /* of the last restart */
    int code;           /* how the run ended: 0 or negative */
    char verdict[1200]; /* one sentence for code < 0 */
};

/* How a child ended, as run.c learned it. */
struct nnc_exit_event {
    bool signalled;
    int status;
    int32_t error_code; /* from its page, 0: none */
    bool progress;      /* loader: it published samples, or its sample was quarantined */
    const char *words;  /* one clause: "was killed by signal 9 (Killed)" */
};

/* All children are spawned by the first actions. */
void nnc_group_begin(struct nnc_group *group, const struct nnc_group_params *params,
                     uint64_t now_ns, struct nnc_actions *actions);

/* A message came. Types that do not belong to the child's state fail the child. */
void nnc_group_message(struct nnc_group *group, uint32_t child, enum nnc_message_type type,
                       uint64_t now_ns, struct nnc_actions *actions);

/* The child was reaped. */
void nnc_group_exit(struct nnc_group *group, uint32_t child, const struct nnc_exit_event *event,
                    uint64_t now_ns, struct nnc_actions *actions);

/* Starting a child was impossible; words say why. */
void nnc_group_spawn_failed(struct nnc_group *group, uint32_t child, const char *words,
                            uint64_t now_ns, struct nnc_actions *actions);

/* TERM, INT, USR1, USR2: stop after a snapshot; a second one: stop now. */
void nnc_group_stop_signal(struct nnc_group *group, int signal_number, uint64_t now_ns,
                           struct nnc_actions *actions);

/* A trainer of another machine died, and its group starts again, as this one has to: also when its
 * own trainers were through already. */
void nnc_group_restart_with(struct nnc_group *group, const char *words, uint64_t now_ns,
                            struct nnc_actions *actions);

/* End the run with this code: bad-sample budget, failed preparation of a generation. */
void nnc_group_abort(struct nnc_group *group, int code, const char *words, uint64_t now_ns,
                     struct nnc_actions *actions);

/* Loaders that the group is to have. */
uint32_t nnc_group_loaders(const struct nnc_group *group);

/* One more loader. It may fail to start: then the group goes on without it. Returns 1, or 0 when
 * the group is not RUNNING or has no free place. */
int nnc_group_add_loader(struct nnc_group *group, uint64_t now_ns, struct nnc_actions *actions);

/* One loader fewer, but never none: the last one is told to stop and ends by itself within
 * params.grace_ns. Returns 1, or 0 when the group is not RUNNING, has one loader, or the last one
 * is just starting. */
int nnc_group_retire_loader(struct nnc_group *group, uint64_t now_ns, struct nnc_actions *actions);

/* Time passed: deadlines and respawns. */
void nnc_group_tick(struct nnc_group *group, uint64_t now_ns, struct nnc_actions *actions);

/* After the executor made the new generation ready: spawn everybody. */
void nnc_group_start_generation(struct nnc_group *group, uint64_t now_ns,
                                struct nnc_actions *actions);

/* Whether a process of this child exists. */
bool nnc_group_child_live(const struct nnc_group_child *child);

/* The earliest time at which tick has something to do; UINT64_MAX: never. */
uint64_t nnc_group_next_tick(const struct nnc_group *group);

#endif
