/* SPDX-License-Identifier: Apache-2.0 */
/* Everything a child process is told at its birth: one struct without pointers, in a sealed
 * read-only memfd at descriptor NNC_FD_SETUP. The numbers of its other descriptors are in it. */
#ifndef NNC_IPC_SETUP_H
#define NNC_IPC_SETUP_H

#include "base/config.h"
#include "ipc/ring.h"
#include "ipc/schedule.h"
#include "ipc/wire.h"

#include <stdint.h>

#define NNC_SETUP_MAGIC   0x5055544553434e4eull /* "NNCSETUP" */
#define NNC_SETUP_VERSION 1u

/* Fixed descriptors of every child: 0 is /dev/null, 1 and 2 the log pipe. */
enum {
    NNC_FD_SETUP = 3,
    NNC_FD_CHANNEL = 4,
    NNC_FD_PAGE = 5,
    NNC_FD_FIRST_OTHER = 6,
};

enum nnc_role {
    NNC_ROLE_LOADER,
    NNC_ROLE_TRAINER,
    NNC_ROLE_SAVER, /* a trainer binary that only writes one snapshot to disk */
};

enum nnc_mode {
    NNC_MODE_TRAIN,
    NNC_MODE_EVAL,
    NNC_MODE_PREDICT,
    NNC_MODE_BENCH_INPUT, /* the trainer only gives batches back */
    NNC_MODE_BENCH_TRAIN, /* synthetic batches, no loaders, no ring */
    NNC_MODE_CHECK,       /* as BENCH_INPUT over each image once, in order */
    NNC_MODE_BENCH_COMM,  /* synthetic batches as in BENCH_TRAIN; the reductions are measured */
};

/* Whether a mode trains on synthetic batches: without loaders, rings and data. */
static inline bool nnc_mode_is_synthetic(int32_t mode) {
    return mode == NNC_MODE_BENCH_TRAIN || mode == NNC_MODE_BENCH_COMM;
}

/* One data set as the loaders see it. */
struct nnc_setup_data {
    uint64_t samples; /* 0: there is none */
    uint32_t classes;
    int32_t index_fd; /* sealed memfd with the index; -1: none */
    int32_t raw_fd;   /* memfd with inflated pixels of a .gz; -1: none */
    uint32_t reserved;
    char root[NNC_PATH_MAX]; /* directory that names in the index are relative to */
};

/* Where a trainer's weights come from. */
enum nnc_start {
    NNC_START_FRESH,      /* initialised from the seed, then config.weights if given */
    NNC_START_CHECKPOINT, /* start_path is a committed checkpoint directory */
    NNC_START_SNAPSHOT, /* newest whole state in the snapshot memfd, else start_path, else fresh */
};

struct nnc_setup {
    uint64_t magic;
    uint32_t version;
    uint32_t setup_bytes; /* sizeof(struct nnc_setup): catches mixed builds */
    char build_id[64];    /* as nnc_build_id(); must be equal in all processes */
    int32_t role;         /* enum nnc_role */
    int32_t mode;         /* enum nnc_mode */
    uint32_t number;      /* loader number on this machine, or rank in the run */
    uint32_t incarnation; /* of a loader: non-zero, never used twice; 0 for others */
    uint32_t generation;  /* of the group: counts restarts, in every message */
    uint32_t ranks;       /* of the run */
    uint32_t first_rank;  /* this machine has ranks first_rank .. first_rank + local_ranks - 1 */
    uint32_t local_ranks;
    uint32_t loaders;   /* of this machine, as all below */
    uint32_t threads;   /* compute threads of this trainer */
    uint32_t classes;   /* of the model */
    int32_t parent_pid; /* the coordinator's: a child checks that it is not orphaned */
    struct nnc_config config;
    struct nnc_schedule schedule;
    struct nnc_ring_geometry geometry;
    struct nnc_setup_data data[2]; /* by enum nnc_phase */
    /* By rank - first_rank. Loader: all of this machine; trainer: its own rank's; else -1. */
    int32_t ring_ctl_fd[NNC_MAX_RANKS];
    int32_t ring_data_fd[NNC_MAX_RANKS];
    int32_t comm_fd;       /* shared memory of the all-reduce here; -1: one rank */
    int32_t link_fd[2];    /* first trainer: to those of the machines before, behind; -1: none */
    int32_t snapshot_fd;   /* -1: none */
    int32_t quarantine_fd; /* of loaders (ipc/quarantine.h); -1: none */
    int32_t device;        /* trainer: number of its accelerator; -1: it computes on the CPU */
    struct nnc_wire_keys link_keys[2];
    uint64_t comm_bytes, snapshot_bytes;
    int32_t start;       /* enum nnc_start */
    uint32_t save_half;  /* saver: which half of the snapshot */
    uint64_t start_step; /* first training step to run, within start_epoch */
    uint32_t start_epoch;
    uint32_t reserved_end;
    char start_path[NNC_PATH_MAX];
    char run_dir[NNC_PATH_MAX];    /* "" when nothing is written */
    char model_path[NNC_PATH_MAX]; /* resolved file of config.model */
};

/* What `nncoord-trainer --plan` answers on NNC_FD_CHANNEL (a pipe there): it builds the graph and
 * looks for the checkpoint to resume, and runs nothing. The coordinator cannot: it knows no models.
 */
struct nnc_plan_answer {
    int32_t status; /* 0, or the negative code; error_text is its text */
    uint32_t classes;
    uint32_t model_channels; /* of the model's input */
    int32_t start;           /* enum nnc_start: FRESH or CHECKPOINT */
    uint64_t parameters;
    uint64_t snapshot_bytes; /* of the whole snapshot memfd, both halves */
    uint64_t device_bytes;   /* estimate for one rank: weights, gradients, momentum, activations */
    uint64_t comm_bytes;     /* of the all-reduce memfd; 0 for one rank */
    uint64_t start_step;     /* training steps already done in start_epoch */
    uint32_t start_epoch;
    uint32_t reserved;
    double best_acc1; /* of the checkpoints so far; < 0: none */
    char start_path[NNC_PATH_MAX];
    char error_text[1024];
};

/* Identifies the build of the running program: version and a hash of the shared headers' layout. */
const char *nnc_build_id(void);

#endif
