/* SPDX-License-Identifier: Apache-2.0 */
/* Names of the classes, kept with a run as classes.txt: one name a line, line number = class. */
#ifndef NNC_COORDINATOR_CLASSES_H
#define NNC_COORDINATOR_CLASSES_H

#include "ipc/index.h"

#include <stddef.h>
#include <stdint.h>

struct nnc_classes {
    char *text;  /* whole file, newlines replaced by zeros */
    char **name; /* into text */
    uint32_t count;
};

/* Write RUN/classes.txt from an index. Errors: as the file calls. */
int nnc_classes_save(const struct nnc_index *index, const char *run_dir);

/* Read classes.txt of a run directory, or of the run a checkpoint directory lies in. A path that is
 * empty or has none gives no classes and no error. Free with nnc_classes_free(). */
int nnc_classes_load(const char *run_or_checkpoint, struct nnc_classes *ret_classes);
void nnc_classes_free(struct nnc_classes *classes);

/* Name of a class, or its number in buffer when there is no name. */
const char *nnc_classes_name(const struct nnc_classes *classes, uint32_t number, char *buffer,
                             size_t bytes);

#endif
