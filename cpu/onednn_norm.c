/* SPDX-License-Identifier: Apache-2.0 */
/* Batch norm with residual and ReLU, in as few passes over memory as there can be:
 *
 *   training   statistics (read x) | apply (read x, z; write y)
 *   backward   sums (read x, dy, y if there is a residual; write dz) | gradient (the same; write
 * dx) inference  apply
 *
 * A plane is one sample's part of one group of channels (onednn_kernels.h). Where there are groups
 * enough for all threads, a thread takes both passes of a group at once: what the first one read is
 * in the cache for the second. Otherwise planes are shared out, one pass after the other.
 *
 * Invariants: (1) sums are kept by plane and added in the order of the samples, so results do not
 * depend on the number of threads; (2) constants of padded channels are zero, so padding stays
 * zero.
 *
 * Math: see reference_norm.c. scale = weight / sqrt(var + eps), shift = bias - mean * scale;
 * dx = a*g + b*(x - mean) + c with a = scale, b = -scale * invstd^2 * sum(g*(x-mean)) / M,
 * c = -scale * sum(g) / M.
 * Source: Ioffe, Szegedy, arXiv:1502.03167; torch.nn.BatchNorm2d for the running statistics. */
#include <math.h>
#include <string.h>

#include "base/checked.h"
#include "base/err.h"
#include "cpu/onednn_build.h"
#include "cpu/onednn_parallel.h"

#include <assert.h>
#include <errno.h>

/* What forward leaves for backward, and both use as scratch; padded channels each, in this order.
 */
struct notes {
    float *scale, *shift, *mean, *invstd, *a, *b, *c;
    double *first, *second; /* by plane, then channel: mean and m2, or the two sums */
};

static size_t padded_channels(const struct nnc_dnn_layout *layout) {
    return (size_t)layout->outer * layout->inner;
}

static size_t notes_bytes(const struct nnc_dnn_layout *layout) {
    size_t channels = padded_channels(layout);
    return channels * (7 * sizeof(float)) + 64 + 2 * channels * layout->n * sizeof(double);
}

static struct notes notes_at(void *memory, const struct nnc_dnn_layout *layout) {
    size_t channels = padded_channels(layout);
    double *sums = memory; /* the stricter alignment first */
    float *constants = (float *)(sums + 2 * channels * layout->n);
    return (struct notes){
        .scale = constants,
        .shift = constants + channels,
        .mean = constants + 2 * channels,
        .invstd = constants + 3 * channels,
        .a = constants + 4 * channels,
        .b = constants + 5 * channels,
        .c = constants + 6 * channels,
        .first = sums,
        .second = sums + channels * layout->n,
    };
}

/* One execution of one stage. */
struct norm_job {
    const struct nnc_kernels *kernels;
    struct nnc_dnn_layout layout;
    struct notes notes;
    const struct nnc_stage *stage;
    const float *x, *z, *y_read, *dy;
    float *y, *dx, *dz;
    const float *weight, *bias;        /* NULL: 1 and 0 */
    float *running_mean, *running_var; /* NULL: none */
    float *weight_gradient, *bias_gradient;
    double eps, momentum;
    bool relu;
};

static size_t plane_at(const struct norm_job *job, uint32_t group, uint32_t n) {
    const struct nnc_dnn_layout *layout = &job->layout;
    return ((size_t)n * layout->outer + group) * layout->positions * layout->inner;
}

/* Sums of plane (group, n). */
static double *sums_at(const struct norm_job *job, double *sums, uint32_t group, uint32_t n) {
    return sums + ((size_t)group * job->layout.n + n) * job->layout.inner;
}

/* Channels of a group that are real. */
static uint32_t real_channels(const struct norm_job *job, uint32_t group) {
    uint32_t left = job->layout.c - group * job->layout.inner;
    return left < job->layout.inner ? left : job->layout.inner;
}

static double merge_planes(const struct norm_job *job, uint32_t group, uint32_t lane,
                           double *ret_mean) {
    double per_plane = (double)job->layout.positions;
    double mean = 0;
    double m2 = 0;
    for (uint32_t n = 0; n < job->layout.n; n++) {
        double delta = sums_at(job, job->notes.first, group, n)[lane] - mean;
        mean += delta / (n + 1);
        m2 += sums_at(job, job->notes.second, group, n)[lane] +
              delta * delta * (per_plane * n / (n + 1));
    }
    *ret_mean = mean;
    return m2;
}

static void set_channel(const struct norm_job *job, uint32_t channel, double mean, double var) {
    double invstd = 1 / sqrt(var + job->eps);
    double weight = job->weight != NULL ? (double)job->weight[channel] : 1;
    double bias = job->bias != NULL ? (double)job->bias[channel] : 0;
    job->notes.mean[channel] = (float)mean;
    job->notes.invstd[channel] = (float)invstd;
    job->notes.scale[channel] = (float)(weight * invstd);
    job->notes.shift[channel] = (float)(bias - mean * weight * invstd);
}

static void move_running(float *running, uint32_t channel, double momentum, double value) {
    if (running != NULL) {
        running[channel] = (float)((1 - momentum) * (double)running[channel] + momentum * value);
    }
}

/* Constants of a group from the statistics of its planes. */
static void finish_statistics(const struct norm_job *job, uint32_t group) {
    double count = (double)job->layout.positions * job->layout.n;
    for (uint32_t lane = 0; lane < real_channels(job, group); lane++) {
        uint32_t channel = group * job->layout.inner + lane;
        double mean;
        double m2 = merge_planes(job, group, lane, &mean);
        set_channel(job, channel, mean, m2 / count);
        move_running(job->running_mean, channel, job->momentum, mean);
        move_running(job->running_var, channel, job->momentum, m2 / (count > 1 ? count - 1 : 1));
    }
}

static void stats_plane(const struct norm_job *job, uint32_t group, uint32_t n) {
    job->kernels->stats(job->x + plane_at(job, group, n), job->layout.positions, job->layout.inner,
                        sums_at(job, job->notes.first, group, n),
                        sums_at(job, job->notes.second, group, n));
}

static void apply_plane(const struct norm_job *job, uint32_t group, uint32_t n) {
    size_t at = plane_at(job, group, n);
    size_t channel = (size_t)group * job->layout.inner;
    struct nnc_norm_plane plane = {
        .positions = job->layout.positions,
        .inner = job->layout.inner,
        .x = job->x + at,
        .z = job->z != NULL ? job->z + at : NULL,
        .y = job->y + at,
        .scale = job->notes.scale + channel,
        .shift = job->notes.shift + channel,
        .relu = job->relu,
    };
    job->kernels->norm(&plane);
}

static struct nnc_norm_grad_plane grad_plane(const struct norm_job *job, uint32_t group,
                                             uint32_t n) {
    const struct notes *notes = &job->notes;
    size_t at = plane_at(job, group, n);
    size_t channel = (size_t)group * job->layout.inner;
    bool residual = job->y_read != NULL;
    return (struct nnc_norm_grad_plane){
        .positions = job->layout.positions,
        .inner = job->layout.inner,
        .mask = !job->relu ? NNC_MASK_NONE
                : residual ? NNC_MASK_Y
                           : NNC_MASK_X,
        .x = job->x + at,
        .y = residual ? job->y_read + at : NULL,
        .dy = job->dy + at,
        .scale = notes->scale + channel,
        .shift = notes->shift + channel,
        .mean = notes->mean + channel,
        .a = notes->a + channel,
        .b = notes->b + channel,
        .c = notes->c + channel,
    };
}

static void sums_plane(const struct norm_job *job, uint32_t group, uint32_t n) {
    struct nnc_norm_grad_plane plane = grad_plane(job, group, n);
    plane.dz = job->dz != NULL ? job->dz + plane_at(job, group, n) : NULL;
    plane.dz_accumulate = job->stage->dz_accumulate;
    plane.sum_g = sums_at(job, job->notes.first, group, n);
    plane.sum_gx = sums_at(job, job->notes.second, group, n);
    job->kernels->norm_sums(&plane);
}

static void gradient_plane(const struct norm_job *job, uint32_t group, uint32_t n) {
    struct nnc_norm_grad_plane plane = grad_plane(job, group, n);
    size_t at = plane_at(job, group, n);
    plane.dx = job->dx + at;
    plane.dx_accumulate = job->stage->dx_accumulate;
    if (job->dz != NULL && !job->stage->dz_accumulate) {
        plane.dy = job->dz + at; /* is dy with the mask applied */
        plane.mask = NNC_MASK_NONE;
    }
    job->kernels->norm_grad(&plane);
}

/* Gradients of weight and bias, and the constants of the second pass. */
static void finish_sums(const struct norm_job *job, uint32_t group) {
    const struct notes *notes = &job->notes;
    double count = (double)job->layout.positions * job->layout.n;
    for (uint32_t lane = 0; lane < real_channels(job, group); lane++) {
        uint32_t channel = group * job->layout.inner + lane;
        double sum_g = 0;
        double sum_gx = 0;
        for (uint32_t n = 0; n < job->layout.n; n++) {
            sum_g += sums_at(job, notes->first, group, n)[lane];
            sum_gx += sums_at(job, notes->second, group, n)[lane];
        }
        double invstd = (double)notes->invstd[channel];
        double scale = (double)notes->scale[channel];
        if (job->weight_gradient != NULL) {
            job->weight_gradient[channel] = (float)(sum_gx * invstd);
        }
        if (job->bias_gradient != NULL) {
            job->bias_gradient[channel] = (float)sum_g;
        }
        notes->a[channel] = (float)scale;
        notes->b[channel] = (float)(-scale * invstd * invstd * sum_gx / count);
        notes->c[channel] = (float)(-scale * sum_g / count);
    }
}

/* Two passes with something in between, over all groups and planes. */
struct passes {
    const struct norm_job *job;
    void (*first)(const struct norm_job *job, uint32_t group, uint32_t n);
    void (*between)(const struct norm_job *job, uint32_t group);
    void (*second)(const struct norm_job *job, uint32_t group, uint32_t n);
};

/* A thread's groups, both passes of each. The second pass goes backwards: the planes read last are
 * still in the cache. */
static void share_groups(void *context, uint32_t thread, uint32_t threads) {
    const struct passes *passes = context;
    size_t begin;
    size_t end;
    nnc_share(passes->job->layout.outer, 1, thread, threads, &begin, &end);
    for (uint32_t group = (uint32_t)begin; group < end; group++) {
        for (uint32_t n = 0; n < passes->job->layout.n; n++) {
            passes->first(passes->job, group, n);
        }
        passes->between(passes->job, group);
        for (uint32_t n = passes->job->layout.n; passes->second != NULL && n-- > 0;) {
            passes->second(passes->job, group, n);
        }
    }
}

static void share_planes(const struct passes *passes, uint32_t thread, uint32_t threads,
                         void (*pass)(const struct norm_job *job, uint32_t group, uint32_t n)) {
    size_t begin;
    size_t end;
    uint32_t batch = passes->job->layout.n;
    nnc_share((size_t)passes->job->layout.outer * batch, 1, thread, threads, &begin, &end);
    for (size_t plane = begin; plane < end; plane++) {
        pass(passes->job, (uint32_t)(plane / batch), (uint32_t)(plane % batch));
    }
}

static void share_first(void *context, uint32_t thread, uint32_t threads) {
    const struct passes *passes = context;
    share_planes(passes, thread, threads, passes->first);
}

static void share_second(void *context, uint32_t thread, uint32_t threads) {
    const struct passes *passes = context;
    share_planes(passes, thread, threads, passes->second);
}

/* Two passes over a few tensors. */
static uint32_t team_of(const struct nnc_executable *executable, const struct norm_job *job) {
    return nnc_team(executable->backend->params.threads, (double)nnc_layout_count(&job->layout));
}

static void run_passes(const struct passes *passes, uint32_t threads) {
    uint32_t groups = passes->job->layout.outer;
    if (groups % threads == 0 || groups >= 8 * threads) {
        nnc_parallel(threads, share_groups, (void *)(uintptr_t)passes);
        return;
    }
    nnc_parallel(threads, share_first, (void *)(uintptr_t)passes);
    for (uint32_t group = 0; group < groups; group++) {
        passes->between(passes->job, group);
    }
    if (passes->second != NULL) {
        nnc_parallel(threads, share_second, (void *)(uintptr_t)passes);
    }
}

static float *param_address(const struct nnc_executable *executable, enum nnc_place_kind kind,
                            int32_t param) {
    struct nnc_place place = {.kind = kind, .at = (size_t)param};
    return param < 0 ? NULL : nnc_place_address(executable, place);
}

static struct norm_job job_of(const struct nnc_executable *executable,
                              const struct nnc_stage *stage) {
    const struct nnc_op *op = &executable->program->ops[stage->op];
    const struct nnc_node *node = &executable->program->graph->nodes[op->node];
    void *notes = nnc_place_address(executable, stage->notes);
    return (struct norm_job){
        .kernels = executable->backend->kernels,
        .layout = stage->layout,
        .notes = notes_at(notes, &stage->layout),
        .stage = stage,
        .x = nnc_place_address(executable, stage->x),
        .weight = param_address(executable, NNC_PLACE_VALUE, op->weight),
        .bias = param_address(executable, NNC_PLACE_VALUE, op->bias),
        .running_mean = param_address(executable, NNC_PLACE_VALUE, op->mean),
        .running_var = param_address(executable, NNC_PLACE_VALUE, op->var),
        .eps = node->eps,
        .momentum = node->momentum,
        .relu = stage->act == NNC_ACT_RELU,
    };
}

static int run_forward(struct nnc_executable *executable, struct nnc_stage *stage) {
    struct norm_job job = job_of(executable, stage);
    job.z = nnc_place_address(executable, stage->z);
    job.y = nnc_place_address(executable, stage->y);
    struct passes passes = {&job, stats_plane, finish_statistics, apply_plane};
    run_passes(&passes, team_of(executable, &job));
    return 0;
}

static int run_inference(struct nnc_executable *executable, struct nnc_stage *stage) {
    struct norm_job job = job_of(executable, stage);
    job.z = nnc_place_address(executable, stage->z);
    job.y = nnc_place_address(executable, stage->y);
    for (uint32_t c = 0; c < job.layout.c; c++) {
        double mean = job.running_mean != NULL ? (double)job.running_mean[c] : 0;
        double var = job.running_var != NULL ? (double)job.running_var[c] : 1;
        set_channel(&job, c, mean, var);
    }
    struct passes passes = {.job = &job, .second = apply_plane};
    nnc_parallel(team_of(executable, &job), share_second, &passes);
    return 0;
}

static int run_backward(struct nnc_executable *executable, struct nnc_stage *stage) {
    const struct nnc_op *op = &executable->program->ops[stage->op];
    struct norm_job job = job_of(executable, stage);
    job.y_read = nnc_place_address(executable, stage->y);
    job.dy = nnc_place_address(executable, stage->dy);
    job.dx = nnc_place_address(executable, stage->dx);
    job.dz = nnc_place_address(executable, stage->dz);
    job.weight_gradient = param_address(executable, NNC_PLACE_GRADIENT, op->weight);
    job.bias_gradient = param_address(executable, NNC_PLACE_GRADIENT, op->bias);
    struct passes passes = {&job, sums_plane, finish_sums, job.dx != NULL ? gradient_plane : NULL};
    run_passes(&passes, team_of(executable, &job));
    return 0;
}

/* The layout of x, if the kernels take it, else the plain one. */
static int choose_md(struct nnc_builder *builder, int32_t tensor, nnc_md *ret_md) {
    const struct nnc_dnn_tensor *x = nnc_dnn_tensor(builder, tensor);
    if (x->layout.inner == 1 || x->layout.inner % 8 == 0) {
        return nnc_md_clone(x->md, ret_md);
    }
    return nnc_dnn_plain_md(builder, tensor, ret_md);
}

static int make_notes(struct nnc_builder *builder, nnc_const_md md,
                      struct nnc_dnn_layout *ret_layout) {
    if (!nnc_layout_read(md, ret_layout)) {
        return nnc_fail(-EINVAL, "oneDNN: a tensor's layout cannot be read");
    }
    if (ret_layout->inner != 1 && ret_layout->inner % 8 != 0) {
        ret_layout->outer = ret_layout->c; /* plain with one position: channels one by one */
        ret_layout->inner = 1;
    }
    return nnc_dnn_private(builder, notes_bytes(ret_layout), &builder->notes[builder->op]);
}

int nnc_lower_norm_forward(struct nnc_builder *builder, const struct nnc_op *op) {
    nnc_md md = NULL;
    struct nnc_dnn_layout layout;
    struct nnc_place x;
    struct nnc_place z = {.kind = NNC_PLACE_NONE};
    struct nnc_stage *stage;
    int rc = nnc_dnn_decide_plain(builder, op->x);
    if (rc == 0) {
        rc = choose_md(builder, op->x, &md);
    }
    if (rc == 0) {
        rc = make_notes(builder, md, &layout);
    }
    if (rc == 0) {
        rc = nnc_dnn_decide(builder, op->y, md);
    }
    if (rc == 0) {
        rc = nnc_dnn_source(builder, op->x, md, &x);
    }
    if (rc == 0 && op->z >= 0) {
        rc = nnc_dnn_decide_plain(builder, op->z);
        rc = rc == 0 ? nnc_dnn_source(builder, op->z, md, &z) : rc;
    }
    if (rc == 0) {
        rc = nnc_dnn_stage(builder, builder->program->training ? run_forward : run_inference,
                           "norm", &stage);
    }
    if (rc == 0) {
        stage->layout = layout;
        stage->act = op->act;
        stage->x = x;
        stage->z = z;
        stage->y = nnc_dnn_tensor(builder, op->y)->place;
        stage->notes = builder->notes[builder->op];
    }
    if (rc == 0 && op->act != NNC_ACT_NONE && op->act != NNC_ACT_RELU) {
        rc = nnc_dnn_act(builder, op->act, nnc_dnn_tensor(builder, op->y)->place, op->y);
    }
    nnc_md_destroy(md);
    return rc;
}

/* Where a gradient is written: in place when it lies as y does, the kernels accumulating
 * themselves. */
static int grad_target(struct nnc_builder *builder, int32_t grad, nnc_const_md md, bool *accumulate,
                       struct nnc_target *ret_target) {
    *ret_target = (struct nnc_target){.tensor = -1};
    if (grad < 0) {
        return 0;
    }
    const struct nnc_dnn_tensor *entry = nnc_dnn_tensor(builder, grad);
    if (dnnl_memory_desc_equal(entry->md, md)) {
        ret_target->place = entry->place;
        return 0;
    }
    int rc = nnc_dnn_target(builder, grad, md, *accumulate, ret_target);
    *accumulate = false;
    return rc;
}

static int targets_done(struct nnc_builder *builder, const struct nnc_target *dx,
                        const struct nnc_target *dz) {
    int rc = dx->tensor >= 0 ? nnc_dnn_target_done(builder, dx) : 0;
    if (rc == 0 && dz->tensor >= 0) {
        rc = nnc_dnn_target_done(builder, dz);
    }
    return rc;
}

int nnc_lower_norm_backward(struct nnc_builder *builder, const struct nnc_op *op) {
    const struct nnc_op *forward = &builder->program->ops[op->forward];
    const struct nnc_dnn_tensor *y = nnc_dnn_tensor(builder, forward->y);
    bool dx_accumulate = op->dx_accumulate;
    bool dz_accumulate = op->dz_accumulate;
    bool relu = op->act == NNC_ACT_RELU && !builder->act_undone[op->forward];
    struct nnc_dnn_layout layout;
    struct nnc_place x;
    struct nnc_target dx;
    struct nnc_target dz;
    struct nnc_stage *stage;
    int rc = relu ? 0 : nnc_dnn_undo_act(builder, op);
    if (rc == 0) {
        rc = nnc_dnn_source(builder, forward->x, y->md, &x);
    }
    if (rc == 0) {
        rc = grad_target(builder, op->dx, y->md, &dx_accumulate, &dx);
    }
    if (rc == 0) {
        rc = grad_target(builder, op->dz, y->md, &dz_accumulate, &dz);
    }
    if (rc == 0) {
        rc = nnc_dnn_stage(builder, run_backward, "norm grad", &stage);
    }
    if (rc < 0) {
        return rc;
    }
    layout = y->layout;
    if (layout.inner != 1 && layout.inner % 8 != 0) {
        layout.outer = layout.c;
        layout.inner = 1;
    }
    stage->layout = layout;
    stage->act = relu ? NNC_ACT_RELU : NNC_ACT_NONE;
    stage->x = x;
    stage->y = relu && forward->z >= 0 ? y->place : (struct nnc_place){.kind = NNC_PLACE_NONE};
    stage->dy = nnc_dnn_tensor(builder, op->dy)->place;
    stage->dx = dx.place;
    stage->dz = dz.place;
    stage->dx_accumulate = dx_accumulate;
    stage->dz_accumulate = dz_accumulate;
    stage->notes = builder->notes[op->forward];
    return targets_done(builder, &dx, &dz);
}
