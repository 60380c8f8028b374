/* SPDX-License-Identifier: Apache-2.0 */
/* The ledger of samples that could not be made: each is named once, counted, written to
 * bad-samples.jsonl, and held against the budget. */
#ifndef NNC_COORDINATOR_BAD_H
#define NNC_COORDINATOR_BAD_H

#include "ipc/channel.h"
#include "ipc/index.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

struct nnc_bad_ledger {
    FILE *file;        /* borrowed; NULL: not written */
    uint64_t *seen[2]; /* bit per sample, by phase */
    uint64_t samples[2];
    const struct nnc_index *index[2]; /* borrowed; NULL when there is none */
    uint64_t count;                   /* different bad samples */
    uint64_t budget;                  /* more than this end the run */
    int fail_at_once;                 /* --on-bad fail */
    bool names_all;                   /* in the log, not only the first ten */
    json_t *list;                     /* borrowed array that gets {"path", "reason"} of each, up to
                                         NNC_BAD_LISTED of them; NULL: none */
};

#define NNC_BAD_LISTED 1000u

/* max_bad: fraction of all samples of both sets; where it is above 0, one bad sample of several is
 * always allowed. */
int nnc_bad_open(const struct nnc_index *const index[2], double max_bad, int fail_at_once,
                 FILE *file, struct nnc_bad_ledger *ret_ledger);
void nnc_bad_close(struct nnc_bad_ledger *ledger);

/* A bad sample of a phase, which exists (assert), and why it is one. Returns 0, or
 * -NNC_E_DATA_BUDGET with text when the run has to end. */
int nnc_bad_add(struct nnc_bad_ledger *ledger, uint32_t phase, uint64_t sample, const char *reason);

/* A loader's report. Returns 0; -NNC_E_DATA_BUDGET with text when the run has to end; -NNC_E_FORMAT
 * when the message makes no sense. */
int nnc_bad_report(struct nnc_bad_ledger *ledger, const struct nnc_message *message);

#endif
