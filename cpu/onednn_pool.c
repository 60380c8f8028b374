/* SPDX-License-Identifier: Apache-2.0 */
/* Pooling by the library where the windows are regular, by a loop of ours where they are not:
 * adaptive windows (AdaptiveAvgPool2d) of different sizes.
 *
 * The maximum's place is kept in the library's workspace, so the backward pass needs neither x nor
 * y.
 *
 * Source: oneDNN developer guide, "Pooling"; torch.nn.AdaptiveAvgPool2d: output row i has the input
 * rows floor(i*H/P) .. ceil((i+1)*H/P). */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/err.h"
#include "cpu/onednn_build.h"
#include "cpu/onednn_parallel.h"

/* What a pooling reads and writes, with its windows as the library wants them. */
struct pool {
    const struct nnc_op *op;
    struct nnc_shape in, out;
    dnnl_alg_kind_t algorithm;
    struct nnc_pd_window window;
    bool regular; /* all windows alike */
};

static struct pool pool_of(const struct nnc_builder *builder, const struct nnc_op *op) {
    const struct nnc_op *forward = op->forward >= 0 ? &builder->program->ops[op->forward] : op;
    const struct nnc_window *w = &op->window;
    struct pool pool = {
        .op = op,
        .in = builder->program->tensors[forward->x].shape,
        .out = builder->program->tensors[forward->y].shape,
        .algorithm =
            op->kind == NNC_OP_MAXPOOL ? dnnl_pooling_max : dnnl_pooling_avg_include_padding,
        .window = {.kernel = {w->r, w->s},
                   .stride = {w->stride_h, w->stride_w},
                   .pad = {w->pad_h, w->pad_w}},
        .regular = true,
    };
    if (op->adaptive) {
        dnnl_dim_t height = pool.in.h / pool.out.h;
        dnnl_dim_t width = pool.in.w / pool.out.w;
        pool.regular = pool.in.h % pool.out.h == 0 && pool.in.w % pool.out.w == 0;
        pool.window = (struct nnc_pd_window){.kernel = {height, width}, .stride = {height, width}};
    }
    return pool;
}

/* One execution of an adaptive pooling, either way. */
struct adaptive_job {
    struct nnc_dnn_layout in, out;
    struct nnc_shape in_shape, out_shape;
    const float *from;
    float *to;
    bool backward;
};

/* One plane: the window of each output value. */
static void adaptive_plane(const struct adaptive_job *job, size_t plane, uint32_t lane) {
    uint32_t inner = job->in.inner;
    struct nnc_shape in = job->in_shape;
    struct nnc_shape out = job->out_shape;
    size_t in_at = plane * job->in.positions * inner + lane;
    size_t out_at = plane * job->out.positions * inner + lane;
    for (uint32_t i = 0; i < out.h * out.w; i++) {
        uint32_t top = i / out.w * in.h / out.h;
        uint32_t bottom = ((i / out.w + 1) * in.h + out.h - 1) / out.h;
        uint32_t left = i % out.w * in.w / out.w;
        uint32_t right = ((i % out.w + 1) * in.w + out.w - 1) / out.w;
        float share = 1.0f / (float)((bottom - top) * (right - left));
        float sum = 0;
        for (uint32_t s = top * in.w; s < bottom * in.w; s++) {
            bool inside = s % in.w >= left && s % in.w < right;
            size_t at = in_at + (size_t)s * inner;
            if (inside && job->backward) {
                job->to[at] += share * job->from[out_at + (size_t)i * inner];
            } else if (inside) {
                sum += job->from[at];
            }
        }
        if (!job->backward) {
            job->to[out_at + (size_t)i * inner] = sum * share;
        }
    }
}

static void adaptive_share(void *context, uint32_t thread, uint32_t threads) {
    const struct adaptive_job *job = context;
    size_t plane_floats = job->in.positions * job->in.inner;
    size_t begin;
    size_t end;
    nnc_share((size_t)job->in.n * job->in.outer, 1, thread, threads, &begin, &end);
    for (size_t plane = begin; plane < end; plane++) {
        if (job->backward) {
            memset(job->to + plane * plane_floats, 0, plane_floats * sizeof(float));
        }
        for (uint32_t lane = 0; lane < job->in.inner; lane++) {
            adaptive_plane(job, plane, lane);
        }
    }
}

/* x and dx have stage->layout; y and dy the same with the output's positions. */
static int run_adaptive(struct nnc_executable *executable, struct nnc_stage *stage) {
    const struct nnc_program *program = executable->program;
    const struct nnc_op *op = &program->ops[stage->op];
    bool backward = op->pass == NNC_PASS_BACKWARD;
    const struct nnc_op *forward = backward ? &program->ops[op->forward] : op;
    struct adaptive_job job = {
        .in = stage->layout,
        .out = stage->layout,
        .in_shape = program->tensors[forward->x].shape,
        .out_shape = program->tensors[forward->y].shape,
        .from = nnc_place_address(executable, backward ? stage->dy : stage->x),
        .to = nnc_place_address(executable, backward ? stage->dx : stage->y),
        .backward = backward,
    };
    job.out.positions = (size_t)job.out_shape.h * job.out_shape.w;
    nnc_parallel(executable->backend->params.threads, adaptive_share, &job);
    return 0;
}

/* The output's descriptor in the input's layout, for loops of ours: plain in, plain out. */
static int lower_adaptive_forward(struct nnc_builder *builder, const struct nnc_op *op) {
    nnc_md in_md = NULL;
    nnc_md out_md = NULL;
    struct nnc_place x;
    struct nnc_stage *stage;
    int rc = nnc_dnn_plain_md(builder, op->x, &in_md);
    if (rc == 0) {
        rc = nnc_dnn_plain_md(builder, op->y, &out_md);
    }
    if (rc == 0) {
        rc = nnc_dnn_decide(builder, op->y, out_md);
    }
    if (rc == 0) {
        rc = nnc_dnn_source(builder, op->x, in_md, &x);
    }
    if (rc == 0) {
        rc = nnc_dnn_stage(builder, run_adaptive, "adaptive pool", &stage);
    }
    if (rc == 0 && nnc_layout_read(in_md, &stage->layout)) {
        stage->layout.outer = stage->layout.c; /* channels one by one, whatever their positions */
        stage->layout.inner = 1;
        stage->x = x;
        stage->y = nnc_dnn_tensor(builder, op->y)->place;
    }
    nnc_md_destroy(in_md);
    nnc_md_destroy(out_md);
    return rc;
}

static int lower_adaptive_backward(struct nnc_builder *builder, const struct nnc_op *op) {
    nnc_md in_md = NULL;
    struct nnc_target dx;
    struct nnc_stage *stage;
    int rc = nnc_dnn_plain_md(builder, op->dx, &in_md);
    if (rc == 0) {
        rc = nnc_dnn_target(builder, op->dx, in_md, op->dx_accumulate, &dx);
    }
    if (rc == 0) {
        rc = nnc_dnn_stage(builder, run_adaptive, "adaptive pool grad", &stage);
    }
    if (rc == 0 && nnc_layout_read(in_md, &stage->layout)) {
        stage->layout.outer = stage->layout.c;
        stage->layout.inner = 1;
        stage->dy = nnc_dnn_tensor(builder, op->dy)->place;
        stage->dx = dx.place;
        rc = nnc_dnn_target_done(builder, &dx);
    }
    nnc_md_destroy(in_md);
    return rc;
}

/* Forward descriptor: the result's layout open, else as the input lies. */
static int choose_forward(struct nnc_builder *builder, const struct pool *pool,
                          dnnl_primitive_desc_t *ret_pd) {
    struct nnc_pd_site site = {.engine = builder->backend->engine, .attr = builder->backend->attr};
    dnnl_prop_kind_t prop =
        builder->program->training ? dnnl_forward_training : dnnl_forward_inference;
    nnc_md any = NULL;
    int rc = nnc_dnn_any_md(builder, pool->op->y, &any);
    if (rc == 0) {
        struct nnc_pd_tensors tensors = {.src = nnc_dnn_tensor(builder, pool->op->x)->md,
                                         .dst = any};
        rc = nnc_pd_pool(&site, prop, pool->algorithm, &tensors, &pool->window, ret_pd);
    }
    nnc_md_destroy(any);
    return rc;
}

static int emit_forward(struct nnc_builder *builder, const struct nnc_op *op,
                        dnnl_primitive_desc_t pd) {
    nnc_const_md workspace = dnnl_primitive_desc_query_md(pd, dnnl_query_workspace_md, 0);
    size_t bytes = workspace != NULL ? nnc_md_bytes(workspace) : 0;
    struct nnc_place *notes = &builder->notes[builder->op];
    int rc = nnc_dnn_decide(builder, op->y, dnnl_primitive_desc_query_md(pd, dnnl_query_dst_md, 0));
    if (rc == 0 && bytes > 0) {
        rc = nnc_dnn_private(builder, bytes, notes);
    }
    if (rc == 0) {
        const struct nnc_dnn_arg args[] = {
            {DNNL_ARG_SRC, dnnl_query_src_md, 0, nnc_dnn_tensor(builder, op->x)->place},
            {DNNL_ARG_DST, dnnl_query_dst_md, 0, nnc_dnn_tensor(builder, op->y)->place},
            {DNNL_ARG_WORKSPACE, dnnl_query_workspace_md, 0, *notes},
        };
        rc = nnc_dnn_primitive(builder, "pool", pd, args, bytes > 0 ? 3 : 2);
    }
    return rc;
}

static int emit_library_backward(struct nnc_builder *builder, const struct nnc_op *op,
                                 dnnl_primitive_desc_t pd) {
    struct nnc_target dx;
    nnc_const_md src = dnnl_primitive_desc_query_md(pd, dnnl_query_diff_src_md, 0);
    struct nnc_place notes = builder->notes[op->forward];
    int rc = nnc_dnn_target(builder, op->dx, src, op->dx_accumulate, &dx);
    if (rc == 0) {
        const struct nnc_dnn_arg args[] = {
            {DNNL_ARG_DIFF_DST, dnnl_query_diff_dst_md, 0, nnc_dnn_tensor(builder, op->dy)->place},
            {DNNL_ARG_DIFF_SRC, dnnl_query_diff_src_md, 0, dx.place},
            {DNNL_ARG_WORKSPACE, dnnl_query_workspace_md, 0, notes},
        };
        int count = notes.kind != NNC_PLACE_NONE ? 3 : 2;
        rc = nnc_dnn_primitive(builder, "pool grad", pd, args, count);
    }
    if (rc == 0) {
        rc = nnc_dnn_target_done(builder, &dx);
    }
    return rc;
}

/* Planes of one max pooling; bases of tensors, to be moved to each plane. */
struct max_job {
    const struct nnc_kernels *kernels;
    struct nnc_pool_plane base;
    size_t planes;
    bool backward;
};

static void max_share(void *context, uint32_t thread, uint32_t threads) {
    const struct max_job *job = context;
    const struct nnc_pool_plane *base = &job->base;
    size_t in_floats = (size_t)base->in.h * base->in.w * base->inner;
    size_t out_floats = (size_t)base->out.h * base->out.w * base->inner;
    size_t begin;
    size_t end;
    nnc_share(job->planes, 1, thread, threads, &begin, &end);
    for (size_t k = begin; k < end; k++) {
        struct nnc_pool_plane plane = *base;
        plane.chosen = base->chosen != NULL ? base->chosen + k * out_floats : NULL;
        if (job->backward) {
            plane.dy = base->dy + k * out_floats;
            plane.dx = base->dx + k * in_floats;
            job->kernels->pool_grad(&plane);
        } else {
            plane.x = base->x + k * in_floats;
            plane.y = base->y + k * out_floats;
            job->kernels->pool(&plane);
        }
    }
}

/* Either way; stage->layout is x's, stage->act the ReLU to be undone in passing. */
static int run_max(struct nnc_executable *executable, struct nnc_stage *stage) {
    const struct nnc_program *program = executable->program;
    const struct nnc_op *op = &program->ops[stage->op];
    bool backward = op->pass == NNC_PASS_BACKWARD;
    const struct nnc_op *forward = backward ? &program->ops[op->forward] : op;
    struct max_job job = {
        .kernels = executable->backend->kernels,
        .base = {.in = program->tensors[forward->x].shape,
                 .out = program->tensors[forward->y].shape,
                 .window = op->window,
                 .inner = stage->layout.inner,
                 .relu = stage->act == NNC_ACT_RELU,
                 .x = nnc_place_address(executable, stage->x),
                 .y = nnc_place_address(executable, stage->y),
                 .chosen = nnc_place_address(executable, stage->notes),
                 .dy = nnc_place_address(executable, stage->dy),
                 .dx = nnc_place_address(executable, stage->dx),
                 .dx_accumulate = stage->dx_accumulate},
        .planes = (size_t)stage->layout.n * stage->layout.outer,
        .backward = backward,
    };
    size_t values = nnc_layout_count(&stage->layout);
    nnc_parallel(nnc_team(executable->backend->params.threads, 0.7 * (double)values), max_share,
                 &job);
    return 0;
}

static bool is_own(const struct nnc_builder *builder, const struct pool *pool, int32_t x) {
    const struct nnc_window *w = &pool->op->window;
    return pool->op->kind == NNC_OP_MAXPOOL && nnc_dnn_tensor(builder, x)->layout.inner % 8 == 0 &&
           (uint64_t)w->r * w->s < NNC_POOL_NONE;
}

/* The forward operation whose ReLU wrote x for this pooling alone, or -1. */
static int32_t relu_before(const struct nnc_builder *builder, int32_t x) {
    const struct nnc_program *program = builder->program;
    int32_t writer = -1;
    uint32_t readers = program->logits == x;
    for (uint32_t k = 0; k < program->forward_count; k++) {
        const struct nnc_op *op = &program->ops[k];
        writer = op->y == x ? (int32_t)k : writer;
        readers += (op->x == x) + (op->z == x);
    }
    bool relu = writer >= 0 && program->ops[writer].act == NNC_ACT_RELU;
    return relu && readers == 1 ? writer : -1;
}

/* The output's descriptor: like the input's, with the output's height and width. */
static int own_md(struct nnc_builder *builder, const struct nnc_op *op, nnc_md *ret_md) {
    const struct nnc_dnn_layout *x = &nnc_dnn_tensor(builder, op->x)->layout;
    struct nnc_shape out = builder->program->tensors[op->y].shape;
    dnnl_dims_t dims = {x->n, x->c, out.h, out.w};
    dnnl_format_tag_t tag = dnnl_nhwc;
    if (x->outer > 1 || x->inner != x->c) {
        tag = x->inner == 8 ? dnnl_nChw8c : x->inner == 16 ? dnnl_nChw16c : dnnl_format_tag_undef;
    }
    return tag == dnnl_format_tag_undef ? -ENOTSUP : nnc_md_create(4, dims, tag, ret_md);
}

static int lower_own_forward(struct nnc_builder *builder, const struct nnc_op *op) {
    const struct nnc_dnn_tensor *x = nnc_dnn_tensor(builder, op->x);
    struct nnc_place *chosen = &builder->notes[builder->op];
    nnc_md md = NULL;
    struct nnc_stage *stage;
    int rc = own_md(builder, op, &md);
    if (rc == 0) {
        rc = nnc_dnn_decide(builder, op->y, md);
    }
    if (rc == 0 && builder->program->training) {
        rc = nnc_dnn_private(builder, nnc_md_bytes(md) / sizeof(float), chosen);
    }
    if (rc == 0) {
        rc = nnc_dnn_stage(builder, run_max, "max pool", &stage);
    }
    if (rc == 0) {
        int32_t relu = relu_before(builder, op->x);
        stage->layout = x->layout;
        stage->act = relu >= 0 ? NNC_ACT_RELU : NNC_ACT_NONE;
        stage->x = x->place;
        stage->y = nnc_dnn_tensor(builder, op->y)->place;
        stage->notes = *chosen;
        if (relu >= 0) {
            builder->act_undone[relu] = true;
        }
    }
    nnc_md_destroy(md);
    return rc;
}

static int lower_own_backward(struct nnc_builder *builder, const struct nnc_op *op) {
    const struct nnc_op *forward = &builder->program->ops[op->forward];
    struct nnc_stage *stage;
    int rc = nnc_dnn_stage(builder, run_max, "max pool grad", &stage);
    if (rc == 0) {
        stage->layout = nnc_dnn_tensor(builder, forward->x)->layout;
        stage->dy = nnc_dnn_tensor(builder, op->dy)->place;
        stage->dx = nnc_dnn_tensor(builder, op->dx)->place;
        stage->dx_accumulate = op->dx_accumulate;
        stage->notes = builder->notes[op->forward];
    }
    return rc;
}

int nnc_lower_pool_forward(struct nnc_builder *builder, const struct nnc_op *op) {
    struct pool pool = pool_of(builder, op);
    int rc = nnc_dnn_decide_plain(builder, op->x);
    if (rc < 0) {
        return rc;
    }
    if (!pool.regular) {
        return lower_adaptive_forward(builder, op);
    }
    if (is_own(builder, &pool, op->x)) {
        return lower_own_forward(builder, op);
    }
    dnnl_primitive_desc_t pd = NULL;
    rc = choose_forward(builder, &pool, &pd);
    if (rc == 0) {
        builder->forward_pds[builder->op] = pd;
        rc = emit_forward(builder, op, pd);
    }
    return rc;
}

int nnc_lower_pool_backward(struct nnc_builder *builder, const struct nnc_op *op) {
    struct pool pool = pool_of(builder, op);
    const struct nnc_op *forward = &builder->program->ops[op->forward];
    if (op->dx < 0) {
        return 0;
    }
    if (!pool.regular) {
        return lower_adaptive_backward(builder, op);
    }
    if (is_own(builder, &pool, forward->x)) {
        return lower_own_backward(builder, op);
    }
    struct nnc_pd_site site = {.engine = builder->backend->engine,
                               .attr = builder->backend->attr,
                               .hint = builder->forward_pds[op->forward]};
    struct nnc_pd_tensors tensors = {.src = nnc_dnn_tensor(builder, forward->x)->md,
                                     .dst = nnc_dnn_tensor(builder, forward->y)->md};
    dnnl_primitive_desc_t pd = NULL;
    int rc = nnc_pd_pool(&site, dnnl_backward_data, pool.algorithm, &tensors, &pool.window, &pd);
    if (rc == 0) {
        rc = emit_library_backward(builder, op, pd);
    }
    nnc_pd_destroy(pd);
    return rc;
}
