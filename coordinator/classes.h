/* SPDX-License-Identifier: Apache-2.0 */
/* Names of the classes, kept with a run as classes.txt (rundir.h). */
#ifndef NNC_COORDINATOR_CLASSES_H
#define NNC_COORDINATOR_CLASSES_H

#include "coordinator/dataset_classes.h"

#include <stddef.h>
#include <stdint.h>

/* Read classes.txt of a run directory, or of the run a checkpoint directory lies in. A path that is
 * empty or has none gives no classes and no error. Free with nnc_classes_free(). Errors: of
 * nnc_classes_read(). */
int nnc_classes_load(const char *run_or_checkpoint, struct nnc_classes *ret_classes);

/* Name of a class, or its number in buffer when there is no name. */
const char *nnc_classes_name(const struct nnc_classes *classes, uint32_t number, char *buffer,
                             size_t bytes);

#endif
