/* SPDX-License-Identifier: Apache-2.0 */
/* The verbs of the command line, one function each, in one table. */
#ifndef NNC_COORDINATOR_VERBS_H
#define NNC_COORDINATOR_VERBS_H

#include "base/config.h"
#include "coordinator/dataset.h"
#include "coordinator/machine.h"

#include <jansson.h>
#include <stdint.h>

struct nnc_verb_context {
    const struct nnc_command *command;
    struct nnc_machine machine;
    uint64_t started_ns;
    char **argv; /* as given to main, for verbs that another program executes */
};

/* Execute command->verb. Returns 0 or a negative code with text. */
int nnc_verb_execute(const struct nnc_verb_context *context);

/* Open config->data (phases: NNC_DATASET_*). Errors: -NNC_E_USAGE with the line that would work
 * when no data set was given; else as nnc_dataset_open(). */
int nnc_verb_open_data(const struct nnc_config *config, unsigned phases,
                       struct nnc_dataset **ret_dataset);

/* Print one JSON object on stdout and release it. NULL (text that is no UTF-8) is an error. */
int nnc_verb_print_json(json_t *object);

/* One per verb; the table is in verbs.c. */
int nnc_verb_train(const struct nnc_verb_context *context);
int nnc_verb_eval(const struct nnc_verb_context *context);
int nnc_verb_predict(const struct nnc_verb_context *context);
int nnc_verb_check(const struct nnc_verb_context *context);
int nnc_verb_bench(const struct nnc_verb_context *context);
int nnc_verb_bench_input(const struct nnc_verb_context *context); /* called by bench */
int nnc_verb_models(const struct nnc_verb_context *context);
int nnc_verb_doctor(const struct nnc_verb_context *context);

#endif
