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

/* Whether weights are asked for, and those of --resume are there; call: the verb with its words,
 * for the line that would work. Errors: -NNC_E_USAGE. */
int nnc_verb_needs_weights(const struct nnc_verb_context *context, const char *call);

/* A number for a JSON object: null when it is not finite, which JSON has no word for. */
json_t *nnc_verb_number(double value);

/* Print one JSON object on stdout and release it. NULL (text that is no UTF-8) is an error. */
int nnc_verb_print_json(json_t *object);

/* Become another of our programs, which reads the same command line again: the coordinator knows no
 * models and touches no pixels. Returns only on failure, with the negative code. */
int nnc_verb_hand_over(const struct nnc_verb_context *context, const char *program);

/* One per verb; the table is in verbs.c. */
int nnc_verb_train(const struct nnc_verb_context *context);
int nnc_verb_eval(const struct nnc_verb_context *context);
int nnc_verb_predict(const struct nnc_verb_context *context);
int nnc_verb_check(const struct nnc_verb_context *context);
int nnc_verb_bench(const struct nnc_verb_context *context);
int nnc_verb_data(const struct nnc_verb_context *context);
int nnc_verb_bench_input(const struct nnc_verb_context *context); /* called by bench */
int nnc_verb_bench_comm(const struct nnc_verb_context *context);  /* the same */
int nnc_verb_models(const struct nnc_verb_context *context);
int nnc_verb_selftest(const struct nnc_verb_context *context);
int nnc_verb_doctor(const struct nnc_verb_context *context);

#endif
