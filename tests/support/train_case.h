/* SPDX-License-Identifier: Apache-2.0 */
/* A whole training run inside one process: ranks and loaders are threads, rings and snapshot are
 * the real ones, the coordinator is a log of messages. Data is synthetic and learnable: a function
 * of the sample's number alone. */
#ifndef NNC_TESTS_SUPPORT_TRAIN_CASE_H
#define NNC_TESTS_SUPPORT_TRAIN_CASE_H

#include "workers/train.h"

#include <stdbool.h>

enum {
    TRAIN_CASE_RANKS = 4,
    TRAIN_CASE_EVALS = 64,
    TRAIN_CASE_LOGITS = 256,
};

/* What one rank told the coordinator. */
struct train_case_log {
    struct nnc_msg_eval evals[TRAIN_CASE_EVALS];
    uint32_t eval_count;
    struct nnc_msg_snapshot newest;
    uint32_t snapshots, durable;
    uint32_t measures; /* MEASURE messages */
    struct nnc_msg_done done;
    uint32_t done_count;
    struct nnc_msg_logits logits[TRAIN_CASE_LOGITS]; /* first message of each sample */
    float first_logit[TRAIN_CASE_LOGITS];
    uint32_t logit_count;
    int code; /* of the rank */
    char text[1024];
};

struct train_case {
    struct nnc_setup setup;    /* the test fills in what it wants after init */
    uint32_t loaders;          /* threads per ring */
    uint64_t stop_at, snap_at; /* ask when that many polls were made by rank 0; 0: never */
    uint64_t bad_sample;       /* comes as BAD; UINT64_MAX: none */
    uint64_t odd_label_sample; /* comes with a label out of range; UINT64_MAX: none */
    int audit_fd;
    struct nnc_vfs *vfs;
    void *snapshot; /* memory, made by the first run, kept for the next */
    struct train_case_log log[TRAIN_CASE_RANKS];
    char model_path[64];
    float *weights; /* of rank 0 after the run */
    size_t floats;
};

/* Reference backend, batch 16, 96 training and 40 validation images of 8x8, 2 epochs. model is the
 * text of a model. Aborts when that fails. */
void train_case_init(struct train_case *ret_case, const char *model);

/* Free and remove everything. */
void train_case_finish(struct train_case *train);

/* Make schedule and geometry follow setup.config, then run all ranks to their end. The logs start
 * anew. */
void train_case_run(struct train_case *train);

/* Go on from the newest snapshot that rank 0 announced. */
void train_case_resume(struct train_case *train);

#endif
