/* SPDX-License-Identifier: Apache-2.0 */
/* The folder of a run: lock, effective configuration, model text, metrics.jsonl, bad-samples.jsonl;
 * checkpoints are put there by the saver. One running coordinator per folder. */
#ifndef NNC_COORDINATOR_RUNDIR_H
#define NNC_COORDINATOR_RUNDIR_H

#include "base/config.h"

#include <stdio.h>

struct nnc_rundir {
    char path[NNC_PATH_MAX]; /* absolute */
    int lock_fd;
    FILE *metrics; /* metrics.jsonl, appended to */
    FILE *bad;     /* bad-samples.jsonl, appended to */
};

/* Create (mode 0700) or reuse config->output_dir, or runs/<model>-<time> when that is empty, take
 * its lock and write config.yaml and model.nn. --resume of a run directory or a checkpoint in one
 * means that run goes on there when no output directory is given. Errors: -NNC_E_USAGE when another
 * run holds the lock (names host and pid), else as the file calls. */
int nnc_rundir_open(const struct nnc_config *config, const char *model_path,
                    struct nnc_rundir *ret_rundir);

/* Release the lock and close the files. Takes an unopened (zeroed, lock_fd -1) struct. */
void nnc_rundir_close(struct nnc_rundir *rundir);

#endif
