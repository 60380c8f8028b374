/* SPDX-License-Identifier: Apache-2.0 */
/* Rules of supervision, one function per event.
 *
 * Invariants
 *  1. set_state() is the only writer of child->state and asserts that the step is legal.
 *  2. A claim is freed (SWEEP) only in nnc_group_exit(), that is after the owner was reaped.
 *  3. An incarnation number is never used twice in a run.
 *  4. A retired loader is told to stop once and never comes back by itself; its claims are swept as
 *     those of any other, should it die on its way out.
 *  5. FINISH is emitted once, when no child lives any more.
 * Does not do: any system call, any allocation. Source: reliability rules 1, 3 and 9 in
 * docs/survival.md. */
#include "coordinator/group.h"

#include "base/err.h"
#include "base/log.h"

#include <assert.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#define SECOND_NS       1000000000ull
#define IDLE_DEATHS_MAX 8u

static const uint32_t successors[NNC_CHILD_STATE_COUNT] = {
    [NNC_CHILD_ABSENT] = 1u << NNC_CHILD_SPAWNED | 1u << NNC_CHILD_FAILED,
    [NNC_CHILD_SPAWNED] = 1u << NNC_CHILD_HELLO | 1u << NNC_CHILD_FAILED,
    [NNC_CHILD_HELLO] = 1u << NNC_CHILD_ATTACHED | 1u << NNC_CHILD_FAILED,
    [NNC_CHILD_ATTACHED] = 1u << NNC_CHILD_READY | 1u << NNC_CHILD_FAILED,
    [NNC_CHILD_READY] = 1u << NNC_CHILD_RUNNING | 1u << NNC_CHILD_FAILED | 1u << NNC_CHILD_EXITED,
    [NNC_CHILD_RUNNING] =
        1u << NNC_CHILD_DRAINING | 1u << NNC_CHILD_EXITED | 1u << NNC_CHILD_FAILED,
    [NNC_CHILD_DRAINING] = 1u << NNC_CHILD_EXITED | 1u << NNC_CHILD_FAILED,
    [NNC_CHILD_EXITED] = 1u << NNC_CHILD_ABSENT,
    [NNC_CHILD_FAILED] = 1u << NNC_CHILD_ABSENT,
};

/* How long a child may stay in a state, in seconds; 0: for ever. By role: loader, trainer. */
static const uint32_t state_seconds[NNC_CHILD_STATE_COUNT][2] = {
    [NNC_CHILD_SPAWNED] = {5, 5},
    [NNC_CHILD_HELLO] = {5, 60},
    [NNC_CHILD_ATTACHED] = {30, 300},
};

const char *nnc_child_state_name(enum nnc_child_state state) {
    switch (state) {
    case NNC_CHILD_ABSENT:
        return "absent";
    case NNC_CHILD_SPAWNED:
        return "spawned";
    case NNC_CHILD_HELLO:
        return "hello";
    case NNC_CHILD_ATTACHED:
        return "attached";
    case NNC_CHILD_READY:
        return "ready";
    case NNC_CHILD_RUNNING:
        return "running";
    case NNC_CHILD_DRAINING:
        return "draining";
    case NNC_CHILD_EXITED:
        return "exited";
    case NNC_CHILD_FAILED:
        return "failed";
    case NNC_CHILD_STATE_COUNT:
        break;
    }
    return "unknown";
}

bool nnc_group_child_live(const struct nnc_group_child *child) {
    return child->state >= NNC_CHILD_SPAWNED && child->state <= NNC_CHILD_DRAINING;
}

static void act(struct nnc_actions *actions, enum nnc_action_kind kind, uint32_t child,
                uint32_t argument) {
    assert(actions->count < NNC_GROUP_ACTIONS_MAX);
    actions->item[actions->count++] =
        (struct nnc_action){.kind = (uint16_t)kind, .child = (uint16_t)child, .argument = argument};
}

static const char *role_name(const struct nnc_group_child *child) {
    return child->role == NNC_ROLE_LOADER ? "loader" : "trainer";
}

static void set_state(struct nnc_group_child *child, enum nnc_child_state state, uint64_t now_ns,
                      const char *why) {
    assert((successors[child->state] >> state & 1u) != 0);
    nnc_log(NNC_LOG_DEBUG, "%s %" PRIu32 ": %s -> %s (%s)", role_name(child), child->number,
            nnc_child_state_name(child->state), nnc_child_state_name(state), why);
    child->state = state;
    uint32_t seconds = state_seconds[state][child->role == NNC_ROLE_LOADER ? 0 : 1];
    child->deadline_ns = seconds == 0 ? UINT64_MAX : now_ns + seconds * SECOND_NS;
}

static void spawn(struct nnc_group *group, uint32_t number, uint64_t now_ns,
                  struct nnc_actions *actions) {
    struct nnc_group_child *child = &group->child[number];
    child->respawn_ns = UINT64_MAX;
    child->done = false;
    child->incarnation = child->role == NNC_ROLE_LOADER ? group->next_incarnation++ : 0;
    set_state(child, NNC_CHILD_SPAWNED, now_ns, "spawn");
    act(actions, NNC_ACTION_SPAWN, number, child->incarnation);
}

static uint32_t count_live(const struct nnc_group *group) {
    uint32_t live = 0;
    for (uint32_t i = 0; i < group->children; i++) {
        live += nnc_group_child_live(&group->child[i]) ? 1 : 0;
    }
    return live;
}

static void signal_all(struct nnc_group *group, int signal_number, struct nnc_actions *actions) {
    for (uint32_t i = 0; i < group->children; i++) {
        if (nnc_group_child_live(&group->child[i])) {
            act(actions, NNC_ACTION_KILL, i, (uint32_t)signal_number);
        }
        group->child[i].respawn_ns = UINT64_MAX;
    }
}

/* Phase changes that end with everybody gone: take the last step when that is so. */
static void settle(struct nnc_group *group, struct nnc_actions *actions) {
    if (count_live(group) != 0 || group->phase == NNC_GROUP_FINISHED) {
        return;
    }
    if (group->phase == NNC_GROUP_RESTARTING) {
        group->generation++;
        act(actions, NNC_ACTION_NEW_GENERATION, 0, group->generation);
    } else if (group->phase == NNC_GROUP_FAILING || group->phase == NNC_GROUP_DRAINING) {
        group->phase = NNC_GROUP_FINISHED;
        act(actions, NNC_ACTION_FINISH, 0, 0);
    }
}

void nnc_group_abort(struct nnc_group *group, int code, const char *words, uint64_t now_ns,
                     struct nnc_actions *actions) {
    assert(code < 0);
    (void)now_ns;
    if (group->phase == NNC_GROUP_FAILING || group->phase == NNC_GROUP_FINISHED) {
        return; /* the first failure is the one that is told */
    }
    group->phase = NNC_GROUP_FAILING;
    group->code = code;
    snprintf(group->verdict, sizeof(group->verdict), "%s", words);
    act(actions, NNC_ACTION_STOP_RINGS, 0, 0);
    signal_all(group, SIGKILL, actions);
    settle(group, actions);
}

/* abort with "loader 2 WORDS". */
static void fail_for(struct nnc_group *group, uint32_t number, int code, const char *words,
                     uint64_t now_ns, struct nnc_actions *actions) {
    char text[sizeof(group->verdict)];
    snprintf(text, sizeof(text), "%s %" PRIu32 " %s", role_name(&group->child[number]),
             group->child[number].number, words);
    nnc_group_abort(group, code, text, now_ns, actions);
}

void nnc_group_begin(struct nnc_group *group, const struct nnc_group_params *params,
                     uint64_t now_ns, struct nnc_actions *actions) {
    assert(params->trainers >= 1 && params->trainers <= NNC_MAX_RANKS);
    memset(group, 0, sizeof(*group));
    group->params = *params;
    uint32_t places = params->loaders_max > params->loaders ? params->loaders_max : params->loaders;
    assert(places <= NNC_GROUP_LOADERS_MAX);
    group->params.loaders_max = places;
    group->next_incarnation = 1;
    group->generation = 1;
    group->children = params->trainers + places;
    for (uint32_t i = 0; i < group->children; i++) {
        bool loader = i >= params->trainers;
        group->child[i] = (struct nnc_group_child){
            .role = loader ? NNC_ROLE_LOADER : NNC_ROLE_TRAINER,
            .number = loader ? i - params->trainers : params->first_rank + i,
            .wanted = i < params->trainers + params->loaders,
            .deadline_ns = UINT64_MAX,
            .respawn_ns = UINT64_MAX,
        };
    }
    nnc_group_start_generation(group, now_ns, actions);
}

void nnc_group_start_generation(struct nnc_group *group, uint64_t now_ns,
                                struct nnc_actions *actions) {
    assert(count_live(group) == 0);
    if (group->phase == NNC_GROUP_FAILING || group->phase == NNC_GROUP_FINISHED) {
        return;
    }
    group->phase = NNC_GROUP_STARTING;
    for (uint32_t i = 0; i < group->children; i++) {
        if (group->child[i].state != NNC_CHILD_ABSENT) {
            set_state(&group->child[i], NNC_CHILD_ABSENT, now_ns, "new generation");
        }
        group->child[i].extra = false; /* the new generation starts with all that are wanted */
        if (group->child[i].wanted) {
            spawn(group, i, now_ns, actions);
        }
    }
}

static void start_child(struct nnc_group *group, uint32_t number, uint64_t now_ns,
                        struct nnc_actions *actions) {
    set_state(&group->child[number], NNC_CHILD_RUNNING, now_ns, "start");
    act(actions, NNC_ACTION_SEND, number, NNC_MSG_START);
}

/* READY -> RUNNING: all together at first, one by one for loaders that come back later. */
static void on_ready(struct nnc_group *group, uint32_t number, uint64_t now_ns,
                     struct nnc_actions *actions) {
    set_state(&group->child[number], NNC_CHILD_READY, now_ns, "READY");
    group->child[number].was_ready = true;
    group->child[number].extra = false;
    if (group->phase != NNC_GROUP_STARTING) {
        start_child(group, number, now_ns, actions);
        return;
    }
    for (uint32_t i = 0; i < group->children; i++) {
        if (group->child[i].wanted && group->child[i].state != NNC_CHILD_READY) {
            return;
        }
    }
    group->phase = NNC_GROUP_RUNNING;
    for (uint32_t i = 0; i < group->children; i++) {
        if (group->child[i].wanted) {
            start_child(group, i, now_ns, actions);
        }
    }
}

static void on_done(struct nnc_group *group, uint32_t number, uint64_t now_ns,
                    struct nnc_actions *actions) {
    group->child[number].done = true;
    set_state(&group->child[number], NNC_CHILD_DRAINING, now_ns, "DONE");
    group->child[number].deadline_ns = now_ns + group->params.grace_ns;
    if (group->phase == NNC_GROUP_FAILING || group->phase == NNC_GROUP_RESTARTING) {
        return; /* said before it was killed: what the group does is decided */
    }
    for (uint32_t i = 0; i < group->params.trainers; i++) {
        if (!group->child[i].done) {
            return;
        }
    }
    group->phase = NNC_GROUP_DRAINING;
    act(actions, NNC_ACTION_STOP_RINGS, 0, 0);
    for (uint32_t i = group->params.trainers; i < group->children; i++) {
        struct nnc_group_child *loader = &group->child[i];
        loader->respawn_ns = UINT64_MAX;
        if (loader->state == NNC_CHILD_RUNNING) {
            set_state(loader, NNC_CHILD_DRAINING, now_ns, "trainers are done");
            loader->deadline_ns = now_ns + group->params.grace_ns;
        } else if (nnc_group_child_live(loader) && loader->state != NNC_CHILD_DRAINING) {
            act(actions, NNC_ACTION_KILL, i, SIGKILL); /* respawned too late to be of use */
        }
    }
    settle(group, actions);
}

void nnc_group_message(struct nnc_group *group, uint32_t number, enum nnc_message_type type,
                       uint64_t now_ns, struct nnc_actions *actions) {
    assert(number < group->children);
    struct nnc_group_child *child = &group->child[number];
    enum nnc_child_state state = child->state;
    if (type == NNC_MSG_HELLO && state == NNC_CHILD_SPAWNED) {
        set_state(child, NNC_CHILD_HELLO, now_ns, "HELLO");
    } else if (type == NNC_MSG_ATTACHED && state == NNC_CHILD_HELLO) {
        set_state(child, NNC_CHILD_ATTACHED, now_ns, "ATTACHED");
    } else if (type == NNC_MSG_READY && state == NNC_CHILD_ATTACHED) {
        on_ready(group, number, now_ns, actions);
    } else if (type == NNC_MSG_DONE && state == NNC_CHILD_RUNNING &&
               child->role == NNC_ROLE_TRAINER) {
        on_done(group, number, now_ns, actions);
    } else if (type <= NNC_MSG_READY || type == NNC_MSG_DONE || type >= NNC_MSG_START) {
        /* Another process's word against the protocol: it is broken, and its end is handled as any.
         */
        nnc_log(NNC_LOG_WARN, "%s %" PRIu32 ": message %d in state %s; killing it",
                role_name(child), child->number, (int)type, nnc_child_state_name(state));
        act(actions, NNC_ACTION_KILL, number, SIGKILL);
    }
}

/* When a loader starts again: at once, then with growing pauses. */
static uint64_t respawn_delay_ns(uint32_t deaths) {
    static const uint64_t delays_ms[] = {0, 100, 400, 1600, 5000};
    uint32_t last = sizeof(delays_ms) / sizeof(delays_ms[0]) - 1;
    uint32_t place = deaths > 0 ? deaths - 1 : 0;
    return delays_ms[place < last ? place : last] * 1000000ull;
}

/* A loader that publishes between its deaths does its work, and a sample that was taken away cannot
 * kill again; only deaths that change nothing would go on for ever. */
static void count_death(struct nnc_group_child *child, const struct nnc_exit_event *event) {
    child->idle_deaths = event->progress ? 1 : child->idle_deaths + 1;
}

/* An error a child reported by itself would come again: no restart helps. A crash has no code, and
 * a lost peer is the consequence of somebody else's crash. */
static bool is_final(const struct nnc_exit_event *event) {
    return event->error_code < 0 && event->error_code != -NNC_E_COMM &&
           event->error_code != -NNC_E_HARDWARE;
}

/* An added loader never became READY, or could not be started at all. What was trained so far shows
 * that the others do. */
static void give_up_extra(struct nnc_group *group, uint32_t number, const char *words) {
    struct nnc_group_child *child = &group->child[number];
    child->wanted = child->extra = false;
    group->extra_failures++;
    nnc_log(NNC_LOG_WARN, "loader %" PRIu32 ", which was to be added, %s; the run goes on without",
            child->number, words);
}

static void loader_died(struct nnc_group *group, uint32_t number,
                        const struct nnc_exit_event *event, uint64_t now_ns,
                        struct nnc_actions *actions) {
    struct nnc_group_child *child = &group->child[number];
    if (child->extra) {
        give_up_extra(group, number, event->words);
        return;
    }
    bool first_start = !child->was_ready && group->generation == 1;
    if (first_start || is_final(event)) {
        fail_for(group, number, event->error_code < 0 ? event->error_code : -NNC_E_CHILD,
                 event->words, now_ns, actions);
        return;
    }
    group->loader_deaths++;
    if (!child->wanted) {
        nnc_log(NNC_LOG_WARN,
                "loader %" PRIu32 ", on its way out, %s; its samples go to the others",
                child->number, event->words);
        return;
    }
    count_death(child, event);
    if (child->idle_deaths > IDLE_DEATHS_MAX) {
        char words[1000];
        snprintf(words, sizeof(words),
                 "died %" PRIu32 " times without making a sample between; the last time it %s",
                 child->idle_deaths, event->words);
        fail_for(group, number, -NNC_E_HARDWARE, words, now_ns, actions);
        return;
    }
    nnc_log(NNC_LOG_WARN, "loader %" PRIu32 " %s; its samples go to the others, it starts again",
            child->number, event->words);
    set_state(child, NNC_CHILD_ABSENT, now_ns, "waits for respawn");
    child->respawn_ns = now_ns + respawn_delay_ns(child->idle_deaths);
}

/* All are killed, and the next generation goes on from the last snapshot. */
static void restart(struct nnc_group *group, const char *words, struct nnc_actions *actions) {
    group->restarts++;
    group->phase = NNC_GROUP_RESTARTING;
    snprintf(group->cause, sizeof(group->cause), "%s", words);
    nnc_log(NNC_LOG_WARN, "%s; the group starts again (%" PRIu32 " of %" PRIu32 ")", words,
            group->restarts, group->params.max_restarts);
    act(actions, NNC_ACTION_STOP_RINGS, 0, 0);
    signal_all(group, SIGKILL, actions);
    settle(group, actions);
}

static void trainer_died(struct nnc_group *group, uint32_t number,
                         const struct nnc_exit_event *event, uint64_t now_ns,
                         struct nnc_actions *actions) {
    struct nnc_group_child *child = &group->child[number];
    int code = event->error_code < 0 ? event->error_code : -NNC_E_CHILD;
    bool never_ready = !child->was_ready;
    if (never_ready || is_final(event) || group->phase == NNC_GROUP_STOPPING) {
        fail_for(group, number, code, event->words, now_ns, actions);
        return;
    }
    if (group->restarts >= group->params.max_restarts) {
        char words[1000];
        snprintf(words, sizeof(words), "%s, and the budget of %" PRIu32 " restarts is spent",
                 event->words, group->params.max_restarts);
        fail_for(group, number, event->error_code == 0 ? -NNC_E_HARDWARE : code, words, now_ns,
                 actions);
        return;
    }
    char words[sizeof(group->cause)];
    snprintf(words, sizeof(words), "trainer %" PRIu32 " %s", child->number, event->words);
    restart(group, words, actions);
}

void nnc_group_restart_with(struct nnc_group *group, const char *words, uint64_t now_ns,
                            struct nnc_actions *actions) {
    if (group->phase == NNC_GROUP_RESTARTING || group->code < 0) {
        return; /* for the same reason, or for one that weighs more */
    }
    if (group->phase == NNC_GROUP_STOPPING) {
        nnc_group_abort(group, -NNC_E_CHILD, words, now_ns, actions);
        return;
    }
    restart(group, words, actions);
}

void nnc_group_exit(struct nnc_group *group, uint32_t number, const struct nnc_exit_event *event,
                    uint64_t now_ns, struct nnc_actions *actions) {
    assert(number < group->children && nnc_group_child_live(&group->child[number]));
    struct nnc_group_child *child = &group->child[number];
    bool loader = child->role == NNC_ROLE_LOADER;
    bool clean = !event->signalled && event->status == 0;
    bool expected = loader ? group->phase == NNC_GROUP_DRAINING || (clean && child->was_ready)
                           : child->done && clean;
    expected = expected && child->state >= NNC_CHILD_READY;
    set_state(child, expected ? NNC_CHILD_EXITED : NNC_CHILD_FAILED, now_ns, event->words);
    if (loader) {
        act(actions, NNC_ACTION_SWEEP, number, child->incarnation);
    }
    bool ending = group->phase == NNC_GROUP_FAILING || group->phase == NNC_GROUP_RESTARTING ||
                  group->phase == NNC_GROUP_DRAINING;
    if (expected || (ending && (loader || group->phase != NNC_GROUP_DRAINING))) {
        settle(group, actions);
    } else if (loader) {
        loader_died(group, number, event, now_ns, actions);
    } else {
        trainer_died(group, number, event, now_ns, actions);
    }
}

void nnc_group_spawn_failed(struct nnc_group *group, uint32_t number, const char *words,
                            uint64_t now_ns, struct nnc_actions *actions) {
    set_state(&group->child[number], NNC_CHILD_FAILED, now_ns, "spawn failed");
    if (group->child[number].extra) {
        give_up_extra(group, number, words);
        return;
    }
    fail_for(group, number, -NNC_E_CHILD, words, now_ns, actions);
    settle(group, actions); /* the last of several that could not be started */
}

void nnc_group_stop_signal(struct nnc_group *group, int signal_number, uint64_t now_ns,
                           struct nnc_actions *actions) {
    bool ends_anyway = group->phase == NNC_GROUP_DRAINING || group->phase == NNC_GROUP_FINISHED;
    if (ends_anyway && group->stop_signals == 0) {
        return; /* all is trained: this run was not stopped */
    }
    group->stop_signals++;
    char words[128];
    if (group->stop_signals > 1 || group->phase == NNC_GROUP_STARTING ||
        group->phase == NNC_GROUP_RESTARTING) {
        snprintf(words, sizeof(words),
                 "stopped by %s before a checkpoint of this moment was durable",
                 strsignal(signal_number));
        nnc_group_abort(group, -NNC_E_CHILD, words, now_ns, actions);
        return;
    }
    if (group->phase != NNC_GROUP_RUNNING) {
        return; /* already ending by itself */
    }
    group->phase = NNC_GROUP_STOPPING;
    group->stop_deadline_ns = now_ns + group->params.grace_ns;
    for (uint32_t i = 0; i < group->params.trainers; i++) {
        if (group->child[i].state == NNC_CHILD_RUNNING) {
            act(actions, NNC_ACTION_SEND, i, NNC_MSG_STOP);
        }
    }
}

uint32_t nnc_group_loaders(const struct nnc_group *group) {
    uint32_t loaders = 0;
    for (uint32_t i = group->params.trainers; i < group->children; i++) {
        loaders += group->child[i].wanted ? 1 : 0;
    }
    return loaders;
}

int nnc_group_add_loader(struct nnc_group *group, uint64_t now_ns, struct nnc_actions *actions) {
    for (uint32_t i = group->params.trainers; i < group->children; i++) {
        struct nnc_group_child *place = &group->child[i];
        if (group->phase != NNC_GROUP_RUNNING || place->wanted || nnc_group_child_live(place)) {
            continue;
        }
        if (place->state != NNC_CHILD_ABSENT) {
            set_state(place, NNC_CHILD_ABSENT, now_ns, "empty place");
        }
        place->wanted = place->extra = true;
        place->idle_deaths = 0;
        spawn(group, i, now_ns, actions);
        return 1;
    }
    return 0;
}

int nnc_group_retire_loader(struct nnc_group *group, uint64_t now_ns, struct nnc_actions *actions) {
    uint32_t last = group->children - 1;
    while (last > group->params.trainers && !group->child[last].wanted) {
        last--;
    }
    struct nnc_group_child *loader = &group->child[last];
    bool starting = nnc_group_child_live(loader) && loader->state != NNC_CHILD_RUNNING;
    if (group->phase != NNC_GROUP_RUNNING || starting || nnc_group_loaders(group) < 2) {
        return 0;
    }
    loader->wanted = false;
    loader->respawn_ns = UINT64_MAX;
    if (loader->state == NNC_CHILD_RUNNING) {
        set_state(loader, NNC_CHILD_DRAINING, now_ns, "retired");
        loader->deadline_ns = now_ns + group->params.grace_ns;
        act(actions, NNC_ACTION_SEND, last, NNC_MSG_STOP);
    }
    return 1;
}

void nnc_group_tick(struct nnc_group *group, uint64_t now_ns, struct nnc_actions *actions) {
    for (uint32_t i = 0; i < group->children; i++) {
        struct nnc_group_child *child = &group->child[i];
        if (child->state == NNC_CHILD_ABSENT && child->respawn_ns <= now_ns) {
            group->loader_respawns++;
            spawn(group, i, now_ns, actions);
        } else if (nnc_group_child_live(child) && child->deadline_ns <= now_ns) {
            nnc_log(NNC_LOG_WARN, "%s %" PRIu32 " stayed too long in state %s; killing it",
                    role_name(child), child->number, nnc_child_state_name(child->state));
            child->deadline_ns = UINT64_MAX;
            act(actions, NNC_ACTION_KILL, i, SIGKILL);
        }
    }
    if (group->phase == NNC_GROUP_STOPPING && group->stop_deadline_ns <= now_ns) {
        nnc_group_abort(group, -NNC_E_CHILD, "no checkpoint within --grace after the stop signal",
                        now_ns, actions);
    }
}

uint64_t nnc_group_next_tick(const struct nnc_group *group) {
    uint64_t next = group->phase == NNC_GROUP_STOPPING ? group->stop_deadline_ns : UINT64_MAX;
    for (uint32_t i = 0; i < group->children; i++) {
        const struct nnc_group_child *child = &group->child[i];
        uint64_t due = child->state == NNC_CHILD_ABSENT ? child->respawn_ns
                       : nnc_group_child_live(child)    ? child->deadline_ns
                                                        : UINT64_MAX;
        next = due < next ? due : next;
    }
    return next;
}
