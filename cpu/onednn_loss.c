/* SPDX-License-Identifier: Apache-2.0 */
/* Losses, counts and the gradient of the logits, one sample at a time; see reference_loss.c for the
 * formulas. Everything is small here and in double.
 *
 * The forward stage also keeps a plain copy of the logits, which nnc_backend_ops.logits gives out:
 * the tensor's memory may belong to another tensor by then.
 *
 * Invariant: sums over samples are made by one thread in the order of the samples, so metrics do
 * not depend on the number of threads. */
#include <assert.h>
#include <math.h>
#include <string.h>

#include "cpu/onednn_build.h"
#include "cpu/onednn_parallel.h"

/* What is known of one sample after the forward stage. */
struct sample {
    double loss;
    double log_sum; /* log of the sum of exp(logit) */
    uint32_t rank;  /* classes before the label by logit */
    uint32_t labelled;
};

struct loss_job {
    const struct nnc_backend_params *params;
    const struct nnc_dnn_layout *layout;
    const float *x; /* logits, as the tensor lies */
    float *logits;  /* plain */
    float *dx;      /* as the tensor lies */
    const int32_t *labels;
    struct sample *samples;
    uint32_t classes;
    uint32_t global_count;
};

static double log_sum_exp(const float *logits, uint32_t classes) {
    double largest = (double)logits[0];
    for (uint32_t k = 1; k < classes; k++) {
        largest = (double)logits[k] > largest ? (double)logits[k] : largest;
    }
    double sum = 0;
    for (uint32_t k = 0; k < classes; k++) {
        sum += exp((double)logits[k] - largest);
    }
    return largest + log(sum);
}

static double cross_entropy(const struct loss_job *job, const float *logits, int32_t label,
                            double log_sum) {
    double smoothing = job->params->label_smoothing;
    double loss = (1 - smoothing) * (log_sum - (double)logits[label]);
    if (smoothing > 0) {
        double sum = 0;
        for (uint32_t k = 0; k < job->classes; k++) {
            sum += log_sum - (double)logits[k];
        }
        loss += smoothing / job->classes * sum;
    }
    return loss;
}

static double squared_error(const struct loss_job *job, const float *logits, int32_t label) {
    double loss = 0;
    for (uint32_t k = 0; k < job->classes; k++) {
        double distance = (double)logits[k] - ((int32_t)k == label);
        loss += distance * distance;
    }
    return loss;
}

/* Classes before the label when sorted by logit: ties count for the lower class, a label whose
 * logit is NaN comes last. */
static uint32_t rank_of(const float *logits, uint32_t classes, int32_t label) {
    float own = logits[label];
    uint32_t rank = 0;
    for (uint32_t k = 0; k < classes; k++) {
        bool behind = logits[k] < own || (logits[k] == own && (int32_t)k >= label);
        rank += !behind;
    }
    return rank;
}

static void forward_sample(const struct loss_job *job, uint32_t n) {
    const struct nnc_dnn_layout *layout = job->layout;
    float *logits = job->logits + (size_t)n * job->classes;
    size_t stride = (size_t)layout->outer * layout->positions * layout->inner;
    for (uint32_t k = 0; k < job->classes; k++) {
        logits[k] = job->x[n * stride + nnc_layout_at(layout, k)];
    }
    struct sample *sample = &job->samples[n];
    int32_t label = job->labels[n];
    *sample = (struct sample){.labelled = label >= 0};
    if (label < 0) {
        return;
    }
    sample->rank = rank_of(logits, job->classes, label);
    if (job->params->loss == NNC_LOSS_MSE) {
        sample->loss = squared_error(job, logits, label);
    } else {
        sample->log_sum = log_sum_exp(logits, job->classes);
        sample->loss = cross_entropy(job, logits, label, sample->log_sum);
    }
}

static void backward_sample(const struct loss_job *job, uint32_t n) {
    const struct nnc_dnn_layout *layout = job->layout;
    const float *logits = job->logits + (size_t)n * job->classes;
    size_t stride = (size_t)layout->outer * layout->positions * layout->inner;
    float *dx = job->dx + n * stride;
    int32_t label = job->labels[n];
    double smoothing = job->params->label_smoothing;
    memset(dx, 0, stride * sizeof(*dx)); /* padding, and samples without label */
    for (uint32_t k = 0; k < job->classes && label >= 0; k++) {
        double onehot = (int32_t)k == label;
        double gradient;
        if (job->params->loss == NNC_LOSS_MSE) {
            gradient = 2 * ((double)logits[k] - onehot);
        } else {
            double target = (1 - smoothing) * onehot + smoothing / job->classes;
            gradient = exp((double)logits[k] - job->samples[n].log_sum) - target;
        }
        dx[nnc_layout_at(layout, k)] = (float)(gradient / job->global_count);
    }
}

static void forward_share(void *context, uint32_t thread, uint32_t threads) {
    const struct loss_job *job = context;
    size_t begin;
    size_t end;
    nnc_share(job->layout->n, 1, thread, threads, &begin, &end);
    for (size_t n = begin; n < end; n++) {
        forward_sample(job, (uint32_t)n);
    }
}

static void backward_share(void *context, uint32_t thread, uint32_t threads) {
    const struct loss_job *job = context;
    size_t begin;
    size_t end;
    nnc_share(job->layout->n, 1, thread, threads, &begin, &end);
    for (size_t n = begin; n < end; n++) {
        backward_sample(job, (uint32_t)n);
    }
}

static struct loss_job job_of(const struct nnc_executable *executable,
                              const struct nnc_stage *stage) {
    const struct nnc_dnn_layout *layout = &stage->layout;
    return (struct loss_job){
        .params = &executable->backend->params,
        .layout = layout,
        .x = nnc_place_address(executable, stage->x),
        .logits = nnc_place_address(executable, executable->logits),
        .dx = nnc_place_address(executable, stage->dx),
        .labels = nnc_place_address(executable, executable->labels),
        .samples = nnc_place_address(executable, executable->losses),
        .classes = (uint32_t)(layout->c * layout->positions),
        .global_count = executable->step.global_count,
    };
}

/* An exponential or two for each logit. */
static uint32_t team_of(const struct loss_job *job) {
    return nnc_team(job->params->threads, 12.0 * job->classes * job->layout->n);
}

static int run_forward(struct nnc_executable *executable, struct nnc_stage *stage) {
    struct loss_job job = job_of(executable, stage);
    struct nnc_metrics *metrics = &executable->backend->metrics;
    nnc_parallel(team_of(&job), forward_share, &job);
    for (uint32_t n = 0; n < stage->layout.n; n++) {
        const struct sample *sample = &job.samples[n];
        metrics->left_out += !sample->labelled;
        metrics->count += sample->labelled;
        metrics->loss_sum += sample->loss;
        metrics->correct1 += sample->labelled && sample->rank < 1;
        metrics->correct5 += sample->labelled && sample->rank < 5;
    }
    return 0;
}

static int run_backward(struct nnc_executable *executable, struct nnc_stage *stage) {
    struct loss_job job = job_of(executable, stage);
    assert(job.global_count >= 1);
    nnc_parallel(team_of(&job), backward_share, &job);
    return 0;
}

int nnc_lower_loss_forward(struct nnc_builder *builder, const struct nnc_op *op) {
    struct nnc_executable *executable = builder->executable;
    uint32_t batch = builder->program->batch;
    struct nnc_stage *stage;
    int rc = nnc_dnn_decide_plain(builder, op->x);
    const struct nnc_dnn_tensor *x = nnc_dnn_tensor(builder, op->x);
    size_t features = x->layout.c * x->layout.positions;
    if (rc == 0) {
        rc = nnc_dnn_private(builder, batch * sizeof(int32_t), &executable->labels);
    }
    if (rc == 0) {
        rc = nnc_dnn_private(builder, batch * features * sizeof(float), &executable->logits);
    }
    if (rc == 0) {
        rc = nnc_dnn_private(builder, batch * sizeof(struct sample), &executable->losses);
    }
    if (rc == 0) {
        rc = nnc_dnn_stage(builder, run_forward, "loss", &stage);
    }
    if (rc == 0) {
        stage->layout = x->layout;
        stage->x = x->place;
    }
    return rc;
}

int nnc_lower_loss_backward(struct nnc_builder *builder, const struct nnc_op *op) {
    const struct nnc_op *forward = &builder->program->ops[op->forward];
    const struct nnc_dnn_tensor *x = nnc_dnn_tensor(builder, forward->x);
    struct nnc_target dx;
    struct nnc_stage *stage;
    int rc = nnc_dnn_target(builder, op->dx, x->md, op->dx_accumulate, &dx);
    if (rc == 0) {
        rc = nnc_dnn_stage(builder, run_backward, "loss grad", &stage);
    }
    if (rc == 0) {
        stage->layout = x->layout;
        stage->dx = dx.place;
        rc = nnc_dnn_target_done(builder, &dx);
    }
    return rc;
}
