/* SPDX-License-Identifier: Apache-2.0 */
/* The state of one run, shared by run.c (loop), run_prepare.c (memory and setups),
 * run_measure.c (what it costs), run_adapt.c (how many loaders it has), run_watch.c (who hangs, who
 * is to blame), run_nodes.c (other machines) and nothing else. */
#ifndef NNC_COORDINATOR_RUN_INTERNAL_H
#define NNC_COORDINATOR_RUN_INTERNAL_H

#include "coordinator/adapt.h"
#include "coordinator/bad.h"
#include "coordinator/group.h"
#include "coordinator/nodes.h"
#include "coordinator/process.h"
#include "coordinator/run.h"
#include "coordinator/saving.h"
#include "coordinator/stall.h"
#include "coordinator/strikes.h"
#include "coordinator/usage.h"
#include "ipc/footprint.h"

/* What one tick saw. */
struct nnc_run_look {
    uint64_t at_ns;
    uint32_t generation;
    bool training, rings_full;
    struct nnc_progress progress;
    double cpu_seconds; /* of all children so far */
};

/* Sums over the ticks of one window of training. */
struct nnc_run_window {
    uint64_t ns, wait_ns, images;
    double cpu_seconds;
    uint32_t looks, full_looks;
};

/* What a run knows of its other machines; nodes is NULL where there are none. */
struct nnc_run_nodes {
    struct nnc_nodes *nodes;
    struct nnc_stall_rank rank[NNC_MAX_RANKS];   /* at node 0: where other machines' ranks are */
    struct nnc_progress progress[NNC_MAX_NODES]; /* at node 0 */
    uint64_t heard_ns[NNC_MAX_NODES];            /* at node 0 */
    uint32_t killed;                             /* generation in which one of them was killed */
    uint64_t beat_ns;                            /* when this machine last said that it lives */
    uint32_t told_restarts;
    uint32_t signals[NNC_MAX_NODES]; /* that asked each machine to stop */
    bool told_done;
    int code; /* how node 0 ended, or the run elsewhere */
    char words[NNC_NODES_WORDS_MAX];
};

struct nnc_run_state {
    const struct nnc_run_params *params;
    struct nnc_run_result *result;
    uint64_t started_ns, running_since_ns, done_ns;
    char directory[NNC_PATH_MAX]; /* of the binaries */
    struct nnc_plan plan;
    struct nnc_plan_answer answer; /* zero for modes without a model */
    bool has_model;
    struct nnc_setup setup;       /* template of every child's */
    struct nnc_setup child_setup; /* of the child that is being started: too large for the stack */
    struct nnc_ring *ring[NNC_MAX_RANKS];
    int index_fd[2];
    int comm_fd, snapshot_fd;
    struct nnc_group group;
    struct nnc_process process[NNC_GROUP_CHILDREN_MAX];
    struct nnc_saving saving;
    struct nnc_report report;
    struct nnc_bad_ledger bad;
    struct nnc_strikes strikes;
    uint64_t next_snapshot_ns;
    struct nnc_usage ended;         /* of loaders that are gone */
    struct nnc_usage measured_from; /* of all, when the measured part began */
    struct nnc_footprint footprint; /* of the coordinator */
    struct nnc_stall stall;
    struct nnc_nvml *nvml; /* NULL: nothing is told about GPUs */
    uint64_t gpus_read_ns;
    double peak_flops;   /* of the GPUs together, a second */
    uint64_t put_off_ns; /* when a trainer's end was first put off; 0: none is */
    struct nnc_adapt adapt;
    struct nnc_run_look look; /* of the last tick */
    struct nnc_run_window window;
    uint32_t extra_failures; /* of the group, heard of so far */
    uint32_t signals;        /* that ask to stop: of several machines, the most that one had */
    uint64_t signal_ns;      /* of the first */
    uint64_t failed_ns;      /* when the group had failed but a saver still ran; 0: not so */
    bool uring_note_logged;
    int epoll_fd, signal_fd;
    bool finished;
    struct nnc_run_nodes far;
};

/* Whether this is the only machine of the run, or node 0, which alone reports, saves and judges. */
static inline bool nnc_run_leads(const struct nnc_run_state *run) {
    return run->plan.first_rank == 0;
}

/* Plan the run and make everything that outlives a generation: index memfds, snapshot, plan, memory
 * check. */
int nnc_run_prepare(struct nnc_run_state *run);

/* Open report and ledger and write what the run's folder says of it: once it is certain that the
 * run starts, since what was refused before must leave an older run as it was. */
int nnc_run_open_records(struct nnc_run_state *run);

/* Choose where the next generation starts from. */
void nnc_run_choose_start(struct nnc_run_state *run);

/* Make what a generation shares: rings and the all-reduce memory. */
int nnc_run_prepare_generation(struct nnc_run_state *run);

/* Setup and descriptors of one child of the present generation. */
void nnc_run_child_setup(struct nnc_run_state *run, const struct nnc_group_child *child,
                         struct nnc_setup *ret_setup, struct nnc_fd_list *ret_fds);

/* The measured part begins now. */
void nnc_run_measure_begin(struct nnc_run_state *run);

/* The measured part ended just now; result->measured is complete. */
void nnc_run_measure_end(struct nnc_run_state *run);

/* Keep what an ended loader did; its page is still mapped. */
void nnc_run_measure_ended(struct nnc_run_state *run, const struct nnc_process *process,
                           const struct nnc_process_end *end);

/* Look at the memory that the processes take together right now. */
void nnc_run_weigh(struct nnc_run_state *run);

/* Look at the training and judge a complete window. Returns 1 when *actions, which were empty, are
 * to be performed. */
int nnc_run_adapt(struct nnc_run_state *run, const struct nnc_progress *progress, uint64_t now_ns,
                  struct nnc_actions *actions);

/* Kill what has not moved for too long; what follows is as after any death. */
void nnc_run_find_hangs(struct nnc_run_state *run, uint64_t now_ns);

/* Whether this ended trainer failed only because another one did, which is about to end and is to
 * be blamed first. */
bool nnc_run_puts_off(struct nnc_run_state *run, uint32_t child);

/* Add where a trainer was to the words on its end: "in backward, step 12, after 37 all-reduces".
 * Its page is still mapped. */
void nnc_run_add_place(const struct nnc_run_state *run, uint32_t child, char *words, size_t bytes);

/* Begin to watch the GPUs that the plan takes. Without the driver's library the run knows less. */
void nnc_run_watch_gpus(struct nnc_run_state *run, const struct nnc_devices *devices);

/* Read the GPUs once a second for the progress line, and tell of their errors. */
void nnc_run_read_gpus(struct nnc_run_state *run, uint64_t now_ns);

/* Kill a child that hangs, saying why; what follows is as after any death. */
void nnc_run_kill_hung(struct nnc_run_state *run, uint32_t child, const char *words);

/* Where a rank of this machine is. */
struct nnc_stall_rank nnc_run_look_at(const struct nnc_run_state *run, uint32_t rank);

/* What the pages of this machine's trainers say. */
void nnc_run_collect(const struct nnc_run_state *run, struct nnc_progress *ret_progress);

/* A new generation can begin here: spawn its children (in run.c, as are the next two). */
void nnc_run_begin_generation(struct nnc_run_state *run);

/* A signal that asks to stop came, to this machine or another. */
void nnc_run_stop(struct nnc_run_state *run, int number);

/* Carry out what the group decided. */
void nnc_run_perform(struct nnc_run_state *run, struct nnc_actions *actions);

/* A message of a trainer or loader of any machine: sums, counts, bad samples. */
void nnc_run_take_share(struct nnc_run_state *run, const struct nnc_message *message);

/* Whether these are several machines' runs. */
bool nnc_run_spans_machines(const struct nnc_run_params *params);

/* Take part in a run over several machines: listen, or call node 0. Does nothing for one machine.
 */
int nnc_run_nodes_open(struct nnc_run_state *run);

/* Ask the others whether a generation can begin; nnc_run_begin_generation() follows. */
void nnc_run_nodes_join(struct nnc_run_state *run);

/* Work on what came from other machines, and tell them what is new here. */
void nnc_run_nodes_work(struct nnc_run_state *run);

/* A signal asks this machine to stop: all do. */
void nnc_run_nodes_stop(struct nnc_run_state *run, int number);

/* Whether it is known where the ranks of other machines are: all have just said that they live. */
bool nnc_run_nodes_heard(const struct nnc_run_state *run, uint64_t now_ns);

/* Kill a rank of another machine, which hangs. */
void nnc_run_nodes_kill(struct nnc_run_state *run, uint32_t rank, const char *words);

/* Add what other machines' trainers do to *progress. */
void nnc_run_nodes_add_progress(const struct nnc_run_state *run, struct nnc_progress *progress);

/* Whether nothing is expected from other machines any more. */
bool nnc_run_nodes_idle(const struct nnc_run_state *run);

/* Close and unmap everything prepared. */
void nnc_run_release(struct nnc_run_state *run);

#endif
