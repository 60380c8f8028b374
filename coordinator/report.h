/* SPDX-License-Identifier: Apache-2.0 */
/* What the user sees while a run goes on: one live line on a terminal, plain lines elsewhere (both
 * on stderr), metrics.jsonl, and sums over ranks of what trainers report at the end of a phase. */
#ifndef NNC_COORDINATOR_REPORT_H
#define NNC_COORDINATOR_REPORT_H

#include "coordinator/nvml.h"
#include "ipc/child.h"
#include "ipc/schedule.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/* Sums of one phase over all ranks. */
struct nnc_phase_sums {
    enum nnc_phase phase;
    uint32_t epoch;
    uint32_t ranks; /* that have reported */
    uint64_t step;
    uint64_t count, correct1, correct5;
    uint64_t left_out, bad; /* without a label; those of them that could not be read */
    double loss_sum;
    double seconds, wait_seconds; /* of the slowest rank */
};

struct nnc_report {
    const struct nnc_config *config;
    const struct nnc_schedule *schedule;
    FILE *metrics; /* may be NULL; borrowed */
    bool silent;   /* nothing is learnt or scored (predict): no lines on phases and progress */
    bool terminal; /* live line possible */
    bool line_shown;
    struct nnc_phase_sums sums[2]; /* being collected, by phase */
    struct nnc_phase_sums last[2]; /* complete ones, by phase */
    bool have_last[2];
    double best_acc1; /* of validation; < 0: none yet */
    uint32_t best_epoch;
    uint64_t printed_step;
    /* images/s over the last seconds */
    uint64_t window_ns, window_samples, window_wait_ns;
    double images_per_s, wait_share;
    /* of runs on GPUs; zero elsewhere */
    struct nnc_gpu_reading gpu;
    double peak_flops;   /* of all of them together, a second */
    double sample_flops; /* of one training sample, forward and backward */
};

/* What the pages of all trainers say right now, added up. */
struct nnc_progress {
    uint32_t phase, epoch;
    uint64_t step;    /* training steps since the run's start */
    uint64_t samples; /* of all phases, all ranks */
    uint64_t phase_samples, correct1;
    uint64_t wait_ns; /* mean over ranks */
    double loss_sum, lr;
};

/* Start a report; metrics (NULL: none) stays the caller's. */
void nnc_report_init(struct nnc_report *report, const struct nnc_config *config,
                     const struct nnc_schedule *schedule, FILE *metrics);

/* Add the pages of `count` trainers up. */
void nnc_report_collect(struct nnc_child_page *const *pages, uint32_t count,
                        struct nnc_progress *ret_progress);

/* Show progress: rewrites the live line, or prints a plain one each config->print_freq steps. */
void nnc_report_progress(struct nnc_report *report, const struct nnc_progress *progress,
                         uint64_t now_ns);

/* Remove the live line so that other text can be printed. */
void nnc_report_clear(struct nnc_report *report);

/* One rank's phase ended. Returns true when it was the last rank: the sums are in
 * report->last[phase], printed and in metrics.jsonl. */
bool nnc_report_phase(struct nnc_report *report, const struct nnc_msg_eval *message,
                      uint64_t now_ns);

/* The group starts again: what some ranks have reported of a phase that others have not ended is
 * void, since all will report it again. */
void nnc_report_restart(struct nnc_report *report);

/* One line of metrics.jsonl: a JSON object from a printf format, without newline. */
void nnc_report_metric(struct nnc_report *report, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Model FLOPs utilisation: the share of the GPUs' peak that training takes at images_per_s; < 0:
 * not known. Source: Chowdhery et al., "PaLM", 2022, appendix B, without the attention term. */
double nnc_report_mfu(const struct nnc_report *report, double images_per_s);

/* Mean loss, accuracies in 0..1; 0 for empty sums. */
double nnc_sums_loss(const struct nnc_phase_sums *sums);
double nnc_sums_acc1(const struct nnc_phase_sums *sums);
double nnc_sums_acc5(const struct nnc_phase_sums *sums);

#endif
