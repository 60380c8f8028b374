/* SPDX-License-Identifier: Apache-2.0 */
/* What people call a checkpoint by: its directory, a run's directory, or RUN/best and RUN/LATEST,
 * small files whose first word is the name of a checkpoint beside them. */
#ifndef NNC_BASE_RUN_PATH_H
#define NNC_BASE_RUN_PATH_H

#include "base/config.h"

/* Where path is RUN/best or RUN/LATEST, make it RUN/CHECKPOINT; else leave it as it is, also when
 * nothing is there: whoever opens it says so. */
void nnc_run_path_resolve(char path[NNC_PATH_MAX]);

/* The same, and then from a run's directory to its best checkpoint, and from a checkpoint's
 * directory to the file of its weights. A file stays as it is. */
void nnc_run_path_weights(char path[NNC_PATH_MAX]);

#endif
