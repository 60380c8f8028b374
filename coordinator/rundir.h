/* SPDX-License-Identifier: Apache-2.0 */
/* The folder of a run: lock, effective configuration, model text, metrics.jsonl, bad-samples.jsonl;
 * checkpoints are put there by the saver. One running coordinator per folder. */
#ifndef NNC_COORDINATOR_RUNDIR_H
#define NNC_COORDINATOR_RUNDIR_H

#include "base/config.h"
#include "ipc/index.h"

#include <stdbool.h>
#include <stdio.h>

struct nnc_rundir {
    char path[NNC_PATH_MAX]; /* absolute */
    int lock_fd;
    FILE *metrics;   /* metrics.jsonl, appended to */
    FILE *bad;       /* bad-samples.jsonl, appended to */
    bool takes_back; /* the lock was made here and nothing is recorded yet */
    unsigned made;   /* directories of the path's end that were not there before */
};

/* Create (mode 0700) or reuse config->output_dir, or runs/<model>-<time> when that is empty, and
 * take its lock; nothing else in it changes. --resume of a run directory or a checkpoint in one
 * means that run goes on there when no output directory is given. Errors: -NNC_E_USAGE when another
 * run holds the lock (names host and pid), and of nnc_rundir_check_resume(), before anything is
 * made; -NNC_E_CHECKPOINT when directory or lock cannot be made. */
int nnc_rundir_open(const struct nnc_config *config, struct nnc_rundir *ret_rundir);

/* Whether --resume names a checkpoint or a directory that holds some; "" and "auto" name none and
 * pass. Whether they are valid is the trainer's to find out. Errors: -NNC_E_USAGE. */
int nnc_rundir_check_resume(const char *resume);

/* Save config.yaml, model.nn and classes.txt, each whole and durable, and open the line files: once
 * it is certain that the run starts. Errors: -NNC_E_CHECKPOINT; of fopen for the model; -ENOMEM. */
int nnc_rundir_record(struct nnc_rundir *rundir, const struct nnc_config *config,
                      const char *model_path, const struct nnc_index *classes);

/* Release the lock and close the files; where nothing was recorded, remove what opening has made.
 * Takes an unopened (zeroed, lock_fd -1) struct. */
void nnc_rundir_close(struct nnc_rundir *rundir);

#endif
