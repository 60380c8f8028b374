/* SPDX-License-Identifier: Apache-2.0 */
/* Convolutions and linear layers: one lowering for both, as the library treats them alike.
 *
 * The library is asked with the layouts that the neighbours have already. Where that leaves only a
 * slow implementation it is asked again with every layout open, and what it then wants is reached
 * by reorders. Weights stay open always: the first training program's forward choice becomes the
 * layout of the state.
 *
 *   forward    y = act(x * w + b), activation as a post-op
 *   backward   dy = dy * act'(y) in place; dw, db; dx
 *
 * A linear layer reads a (N,C,H,W) value as it lies, with weights seen as (K,C,H,W); where the
 * features lie in C,H,W order anyway it is seen as (N, C*H*W).
 *
 * Source: oneDNN developer guide, "Convolution", "Inner Product", "Memory format propagation". */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/err.h"
#include "cpu/onednn_build.h"

/* Descriptors of one product, all owned. */
struct product {
    const struct nnc_op *op;
    int32_t x, y;
    nnc_md flat; /* linear: x with its features in C,H,W order; src is that memory as (N, C*H*W) */
    nnc_md src;  /* x as it lies; NULL: not decided */
    nnc_md dst;  /* y as it lies; NULL: not decided */
    nnc_md any_src, any_weights, any_dst, bias; /* any_src NULL: linear; bias NULL: none */
    struct nnc_pd_window window;
    dnnl_primitive_attr_t attr;
};

static dnnl_alg_kind_t post_op(enum nnc_act act) {
    switch (act) {
    case NNC_ACT_NONE:
        return dnnl_alg_kind_undef;
    case NNC_ACT_RELU:
        return dnnl_eltwise_relu;
    case NNC_ACT_SIGMOID:
        return dnnl_eltwise_logistic;
    case NNC_ACT_TANH:
        return dnnl_eltwise_tanh;
    }
    return dnnl_alg_kind_undef;
}

/* A linear layer reads features in C,H,W order: x as it lies if it lies so, else reordered. */
static int describe_features(struct nnc_builder *builder, struct product *product) {
    struct nnc_shape shape = builder->program->tensors[product->x].shape;
    dnnl_dims_t dims = {builder->program->batch, (dnnl_dim_t)shape.c * shape.h * shape.w};
    int rc = nnc_dnn_decide_plain(builder, product->x);
    if (rc < 0) {
        return rc;
    }
    const struct nnc_dnn_tensor *x = nnc_dnn_tensor(builder, product->x);
    rc = nnc_layout_is_flat(&x->layout) ? nnc_md_clone(x->md, &product->flat)
                                        : nnc_dnn_plain_md(builder, product->x, &product->flat);
    return rc < 0 ? rc : nnc_md_create(2, dims, dnnl_ab, &product->src);
}

static int describe_src(struct nnc_builder *builder, struct product *product) {
    if (product->op->kind == NNC_OP_LINEAR) {
        return describe_features(builder, product);
    }
    const struct nnc_dnn_tensor *x = nnc_dnn_tensor(builder, product->x);
    int rc = nnc_dnn_any_md(builder, product->x, &product->any_src);
    if (rc == 0 && x->md != NULL) {
        rc = nnc_md_clone(x->md, &product->src);
    }
    return rc;
}

static int describe_weights(struct nnc_builder *builder, struct product *product) {
    const struct nnc_param *weight = &builder->program->graph->params[product->op->weight];
    dnnl_dims_t dims = {weight->dims[0], weight->dims[1], weight->dims[2], weight->dims[3]};
    int rc = nnc_md_create((int)weight->rank, dims, dnnl_format_tag_any, &product->any_weights);
    if (rc == 0 && product->op->bias >= 0) {
        rc = nnc_md_create(1, dims, dnnl_a, &product->bias);
    }
    return rc;
}

/* Time of one pass on one thread at 100 floating-point operations a nanosecond. */
static double cost_of(const struct nnc_builder *builder, const struct nnc_op *op,
                      const struct product *product) {
    const struct nnc_param *weight = &builder->program->graph->params[op->weight];
    struct nnc_shape y = builder->program->tensors[product->y].shape;
    return 0.02 * (double)weight->count * builder->program->batch * y.h * y.w;
}

static int product_init(struct nnc_builder *builder, const struct nnc_op *op,
                        struct product *ret_product) {
    const struct nnc_op *forward = op->forward >= 0 ? &builder->program->ops[op->forward] : op;
    const struct nnc_window *w = &op->window;
    *ret_product = (struct product){.op = op,
                                    .x = forward->x,
                                    .y = forward->y,
                                    .window = {.kernel = {w->r, w->s},
                                               .stride = {w->stride_h, w->stride_w},
                                               .pad = {w->pad_h, w->pad_w}}};
    nnc_dnn_set_team(builder, cost_of(builder, op, ret_product));
    int rc = describe_src(builder, ret_product);
    if (rc == 0) {
        rc = describe_weights(builder, ret_product);
    }
    if (rc == 0) {
        rc = nnc_dnn_any_md(builder, ret_product->y, &ret_product->any_dst);
    }
    const struct nnc_dnn_tensor *y = nnc_dnn_tensor(builder, ret_product->y);
    if (rc == 0 && y->md != NULL) {
        rc = nnc_md_clone(y->md, &ret_product->dst);
    }
    if (rc == 0) {
        rc = nnc_attr_create(post_op(op->pass == NNC_PASS_FORWARD ? op->act : NNC_ACT_NONE),
                             &ret_product->attr);
    }
    return rc;
}

static void product_finish(struct product *product) {
    nnc_md_destroy(product->flat);
    nnc_md_destroy(product->src);
    nnc_md_destroy(product->dst);
    nnc_md_destroy(product->any_src);
    nnc_md_destroy(product->any_weights);
    nnc_md_destroy(product->any_dst);
    nnc_md_destroy(product->bias);
    if (product->attr != NULL) {
        dnnl_primitive_attr_destroy(product->attr);
    }
}

/* Candidates for choose(): the preferred one first. */
struct candidates {
    struct nnc_pd_tensors tensors[3];
    int count;
};

/* Ask with each of the candidates; take the first one of the best rank. */
static int choose(struct nnc_builder *builder, const struct product *product, dnnl_prop_kind_t prop,
                  const struct candidates *candidates, dnnl_primitive_desc_t *ret_pd) {
    const struct nnc_op *op = product->op;
    struct nnc_pd_site site = {.engine = builder->backend->engine, .attr = product->attr};
    site.hint = op->forward >= 0 ? builder->forward_pds[op->forward] : NULL;
    dnnl_primitive_desc_t best = NULL;
    int best_rank = -1;
    int rc = -ENOTSUP;
    for (int k = 0; k < candidates->count && best_rank < 2; k++) {
        const struct nnc_pd_tensors *tensors = &candidates->tensors[k];
        dnnl_primitive_desc_t pd = NULL;
        int got = op->kind == NNC_OP_CONV ? nnc_pd_conv(&site, prop, tensors, &product->window, &pd)
                                          : nnc_pd_linear(&site, prop, tensors, &pd);
        int rank = got == 0 ? nnc_dnn_rank(pd) : -1;
        if (rank > best_rank) {
            nnc_pd_destroy(best);
            best = pd;
            best_rank = rank;
            rc = 0;
        } else {
            nnc_pd_destroy(pd);
            rc = best == NULL ? got : rc;
        }
    }
    if (rc == 0) {
        *ret_pd = best;
    }
    return rc;
}

/* Where the product reads a tensor, in the layout that its descriptor wants. */
static int source(struct nnc_builder *builder, const struct product *product, int32_t tensor,
                  nnc_const_md md, struct nnc_place *ret_place) {
    bool features = product->flat != NULL && tensor == product->x;
    return nnc_dnn_source(builder, tensor, features ? product->flat : md, ret_place);
}

/* Whether loops of ours can read what the forward pass reads and writes this way. */
static bool is_readable(const struct product *product, const_dnnl_primitive_desc_t pd) {
    struct nnc_dnn_layout layout;
    return nnc_layout_read(dnnl_primitive_desc_query_md(pd, dnnl_query_dst_md, 0), &layout) &&
           (product->src != NULL ||
            nnc_layout_read(dnnl_primitive_desc_query_md(pd, dnnl_query_src_md, 0), &layout));
}

/* Descriptor for the forward pass: neighbours' layouts first, then all open, then plain ones, which
 * loops of ours can read for sure. */
static int choose_forward(struct nnc_builder *builder, const struct product *product,
                          dnnl_primitive_desc_t *ret_pd) {
    dnnl_prop_kind_t prop =
        builder->program->training ? dnnl_forward_training : dnnl_forward_inference;
    nnc_const_md src = product->src != NULL ? product->src : product->any_src;
    nnc_const_md any_src = product->any_src != NULL ? product->any_src : src;
    struct candidates open = {
        .tensors = {{src, product->any_weights, product->bias, product->any_dst},
                    {any_src, product->any_weights, product->bias, product->any_dst}},
        .count = 2,
    };
    dnnl_primitive_desc_t pd = NULL;
    int rc = choose(builder, product, prop, &open, &pd);
    if (rc == 0 && is_readable(product, pd)) {
        *ret_pd = pd;
        return 0;
    }
    nnc_pd_destroy(pd);
    nnc_md plain_src = NULL;
    nnc_md plain_dst = NULL;
    rc = nnc_dnn_plain_md(builder, product->y, &plain_dst);
    if (rc == 0 && product->flat == NULL) {
        rc = nnc_dnn_plain_md(builder, product->x, &plain_src);
    }
    if (rc == 0) {
        struct candidates plain = {
            .tensors = {{plain_src != NULL ? plain_src : src, product->any_weights, product->bias,
                         plain_dst}},
            .count = 1,
        };
        rc = choose(builder, product, prop, &plain, ret_pd);
    }
    nnc_md_destroy(plain_src);
    nnc_md_destroy(plain_dst);
    return rc;
}

static int emit_forward(struct nnc_builder *builder, const struct product *product,
                        dnnl_primitive_desc_t pd) {
    const struct nnc_op *op = product->op;
    nnc_const_md src = dnnl_primitive_desc_query_md(pd, dnnl_query_src_md, 0);
    nnc_const_md weights = dnnl_primitive_desc_query_md(pd, dnnl_query_weights_md, 0);
    nnc_const_md dst = dnnl_primitive_desc_query_md(pd, dnnl_query_dst_md, 0);
    struct nnc_place x;
    struct nnc_place w;
    int rc = product->src == NULL ? nnc_dnn_decide(builder, product->x, src) : 0;
    if (rc == 0) {
        rc = source(builder, product, product->x, src, &x);
    }
    if (rc == 0) {
        rc = nnc_dnn_weight(builder, (uint32_t)op->weight, weights, &w);
    }
    if (rc == 0) {
        rc = nnc_dnn_decide(builder, product->y, dst);
    }
    if (rc == 0) {
        struct nnc_place y = nnc_dnn_tensor(builder, product->y)->place;
        struct nnc_place b = {.kind = NNC_PLACE_VALUE, .at = (size_t)op->bias};
        const struct nnc_dnn_arg args[] = {
            {DNNL_ARG_SRC, dnnl_query_src_md, 0, x},
            {DNNL_ARG_WEIGHTS, dnnl_query_weights_md, 0, w},
            {DNNL_ARG_DST, dnnl_query_dst_md, 0, y},
            {DNNL_ARG_BIAS, dnnl_query_weights_md, 1, b},
        };
        rc = nnc_dnn_primitive(builder, "product", pd, args, op->bias >= 0 ? 4 : 3);
    }
    return rc;
}

int nnc_lower_product_forward(struct nnc_builder *builder, const struct nnc_op *op) {
    struct product product;
    dnnl_primitive_desc_t pd = NULL;
    int rc = product_init(builder, op, &product);
    if (rc == 0) {
        rc = choose_forward(builder, &product, &pd);
    }
    if (rc == 0) {
        builder->forward_pds[builder->op] = pd;
        rc = emit_forward(builder, &product, pd);
    }
    product_finish(&product);
    return rc;
}

static int emit_weights(struct nnc_builder *builder, const struct product *product,
                        dnnl_primitive_desc_t pd) {
    const struct nnc_op *op = product->op;
    nnc_const_md src = dnnl_primitive_desc_query_md(pd, dnnl_query_src_md, 0);
    nnc_const_md dst = dnnl_primitive_desc_query_md(pd, dnnl_query_diff_dst_md, 0);
    nnc_const_md weights = dnnl_primitive_desc_query_md(pd, dnnl_query_diff_weights_md, 0);
    struct nnc_place x;
    struct nnc_place dy;
    struct nnc_place dw;
    int rc = source(builder, product, product->x, src, &x);
    if (rc == 0) {
        rc = source(builder, product, op->dy, dst, &dy);
    }
    if (rc == 0) {
        rc = nnc_dnn_gradient(builder, (uint32_t)op->weight, weights, &dw);
    }
    if (rc == 0) {
        struct nnc_place db = {.kind = NNC_PLACE_GRADIENT, .at = (size_t)op->bias};
        const struct nnc_dnn_arg args[] = {
            {DNNL_ARG_SRC, dnnl_query_src_md, 0, x},
            {DNNL_ARG_DIFF_DST, dnnl_query_diff_dst_md, 0, dy},
            {DNNL_ARG_DIFF_WEIGHTS, dnnl_query_diff_weights_md, 0, dw},
            {DNNL_ARG_DIFF_BIAS, dnnl_query_diff_weights_md, 1, db},
        };
        rc = nnc_dnn_primitive(builder, "product dw", pd, args, op->bias >= 0 ? 4 : 3);
    }
    if (rc == 0) {
        rc = nnc_dnn_gradient_done(builder, (uint32_t)op->weight, weights, dw);
    }
    return rc;
}

static int lower_weights(struct nnc_builder *builder, const struct product *product) {
    nnc_const_md any_src = product->any_src != NULL ? product->any_src : product->src;
    struct candidates candidates = {
        .tensors = {{product->src, builder->planned[product->op->weight], product->bias,
                     product->dst},
                    {product->src, product->any_weights, product->bias, product->dst},
                    {any_src, product->any_weights, product->bias, product->any_dst}},
        .count = 3,
    };
    dnnl_primitive_desc_t pd = NULL;
    int rc = choose(builder, product, dnnl_backward_weights, &candidates, &pd);
    if (rc == 0) {
        rc = emit_weights(builder, product, pd);
    }
    nnc_pd_destroy(pd);
    return rc;
}

static int emit_data(struct nnc_builder *builder, const struct product *product,
                     dnnl_primitive_desc_t pd) {
    const struct nnc_op *op = product->op;
    nnc_const_md src = dnnl_primitive_desc_query_md(pd, dnnl_query_diff_src_md, 0);
    nnc_const_md dst = dnnl_primitive_desc_query_md(pd, dnnl_query_diff_dst_md, 0);
    nnc_const_md weights = dnnl_primitive_desc_query_md(pd, dnnl_query_weights_md, 0);
    struct nnc_place dy;
    struct nnc_place w;
    struct nnc_target dx;
    int rc = source(builder, product, op->dy, dst, &dy);
    if (rc == 0) {
        rc = nnc_dnn_weight(builder, (uint32_t)op->weight, weights, &w);
    }
    if (rc == 0) {
        rc = nnc_dnn_target(builder, op->dx, product->flat != NULL ? product->flat : src,
                            op->dx_accumulate, &dx);
    }
    if (rc == 0) {
        const struct nnc_dnn_arg args[] = {
            {DNNL_ARG_DIFF_DST, dnnl_query_diff_dst_md, 0, dy},
            {DNNL_ARG_WEIGHTS, dnnl_query_weights_md, 0, w},
            {DNNL_ARG_DIFF_SRC, dnnl_query_diff_src_md, 0, dx.place},
        };
        rc = nnc_dnn_primitive(builder, "product dx", pd, args, 3);
    }
    if (rc == 0) {
        rc = nnc_dnn_target_done(builder, &dx);
    }
    return rc;
}

static int lower_data(struct nnc_builder *builder, const struct product *product) {
    nnc_const_md any_src = product->any_src != NULL ? product->any_src : product->src;
    struct candidates candidates = {
        .tensors = {{product->src, builder->planned[product->op->weight], NULL, product->dst},
                    {product->src, product->any_weights, NULL, product->dst},
                    {any_src, product->any_weights, NULL, product->any_dst}},
        .count = 3,
    };
    dnnl_primitive_desc_t pd = NULL;
    int rc = choose(builder, product, dnnl_backward_data, &candidates, &pd);
    if (rc == 0) {
        rc = emit_data(builder, product, pd);
    }
    nnc_pd_destroy(pd);
    return rc;
}

int nnc_lower_product_backward(struct nnc_builder *builder, const struct nnc_op *op) {
    struct product product;
    int rc = product_init(builder, op, &product);
    if (rc == 0) {
        rc = nnc_dnn_undo_act(builder, op);
    }
    if (rc == 0) {
        rc = lower_weights(builder, &product);
    }
    if (rc == 0 && op->dx >= 0) {
        rc = lower_data(builder, &product);
    }
    product_finish(&product);
    return rc;
}
