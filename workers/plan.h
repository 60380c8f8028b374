/* SPDX-License-Identifier: Apache-2.0 */
/* What the coordinator must know before it starts anything, found out by a process that may look
 * into models, checkpoints and devices: `nncoord-trainer --plan` and `--devices`. */
#ifndef NNC_WORKERS_PLAN_H
#define NNC_WORKERS_PLAN_H

#include "base/vfs.h"
#include "ipc/setup.h"

/* Answer for a setup: sizes of the model, and where the run starts. Every failure is in the answer
 * (status and text); *ret_warning (owner: caller frees; may be NULL) names checkpoints that were
 * passed over because they are damaged.
 *
 * Start, in training: config.fresh: from zero. config.resume "": from zero, an error when the run
 * directory holds checkpoints. "auto": the newest valid one of the run directory, from zero when it
 * has none. Else a checkpoint directory or a run directory that must have one. Other modes:
 * config.resume alone counts. */
void nnc_plan_answer_setup(struct nnc_vfs *vfs, const struct nnc_setup *setup,
                           struct nnc_plan_answer *ret_answer, char **ret_warning);

/* The whole process: setup from NNC_FD_SETUP, answer to NNC_FD_CHANNEL. Returns the code of what
 * went wrong, with text, when not even an answer could be given; a warning goes to *ret_warning as
 * above. */
int nnc_plan_main(char **ret_warning);

/* `nncoord-trainer --devices`: load the plug-in for GPUs and answer with what it finds, to
 * NNC_FD_CHANNEL. Returns as nnc_plan_main(). */
int nnc_plan_devices_main(void);

#endif
