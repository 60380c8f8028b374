/* SPDX-License-Identifier: Apache-2.0 */
/* What the lowering of one operation (onednn_conv.c, onednn_norm.c, ...) needs while an executable
 * is being compiled: places, layouts, reorders where layouts do not meet, stages. All functions
 * return 0 or a negative code with text. */
#ifndef NNC_CPU_ONEDNN_BUILD_H
#define NNC_CPU_ONEDNN_BUILD_H

#include "cpu/onednn_executable.h"

struct nnc_builder {
    struct nnc_backend *backend;
    struct nnc_executable *executable;
    const struct nnc_program *program;
    uint32_t op;      /* being lowered */
    uint32_t team;    /* threads of this operation's primitives */
    size_t temp_used; /* by this operation */
    nnc_md *planned;  /* parameter layouts; the state's, or the ones this program is choosing */
    bool arranging;   /* this program chooses */
    dnnl_primitive_desc_t *forward_pds; /* by forward operation: hints of the backward passes */
    struct nnc_place *notes;            /* by forward operation: what backward needs of it */
    bool *act_undone; /* by forward operation: whoever wrote dy has undone the activation */
};

/* The lowering of one operation kind in one pass: appends its stages. */
typedef int nnc_lowering(struct nnc_builder *builder, const struct nnc_op *op);

/* CONV and LINEAR (onednn_product.c). */
nnc_lowering nnc_lower_product_forward, nnc_lower_product_backward;
/* NORM (onednn_norm.c). */
nnc_lowering nnc_lower_norm_forward, nnc_lower_norm_backward;
/* MAXPOOL and AVGPOOL (onednn_pool.c). */
nnc_lowering nnc_lower_pool_forward, nnc_lower_pool_backward;
/* ACT, ADD and DROPOUT (onednn_pointwise.c). */
nnc_lowering nnc_lower_act_forward, nnc_lower_act_backward;
nnc_lowering nnc_lower_add_forward, nnc_lower_add_backward;
nnc_lowering nnc_lower_dropout_forward, nnc_lower_dropout_backward;
/* LOSS (onednn_loss.c). */
nnc_lowering nnc_lower_loss_forward, nnc_lower_loss_backward;

/* The tensor's layout as loops of ours see it; false when they cannot (blocks of samples, holes).
 */
bool nnc_layout_read(nnc_const_md md, struct nnc_dnn_layout *ret_layout);

/* An NCHW descriptor (N,C,H,W), or (N,C) when the shape is flat. */
int nnc_dnn_plain_md(const struct nnc_builder *builder, int32_t tensor, nnc_md *ret_md);

/* A descriptor of the same dimensions that leaves the layout open. */
int nnc_dnn_any_md(const struct nnc_builder *builder, int32_t tensor, nnc_md *ret_md);

/* Decide the layout of a tensor (and of its gradient). md is copied. */
int nnc_dnn_decide(struct nnc_builder *builder, int32_t tensor, nnc_const_md md);

/* Decide that a tensor which nobody has laid out yet (the input) is plain. */
int nnc_dnn_decide_plain(struct nnc_builder *builder, int32_t tensor);

/* The tensor's layout and place. */
static inline struct nnc_dnn_tensor *nnc_dnn_tensor(const struct nnc_builder *builder,
                                                    int32_t tensor) {
    return &builder->executable->tensors[tensor];
}

/* Memory of this executable, or of this operation; 64-byte aligned. */
int nnc_dnn_private(struct nnc_builder *builder, size_t bytes, struct nnc_place *ret_place);
int nnc_dnn_temp(struct nnc_builder *builder, size_t bytes, struct nnc_place *ret_place);

/* Append a stage for the current operation. The pointer is good until the next stage is appended.
 */
int nnc_dnn_stage(struct nnc_builder *builder,
                  int (*run)(struct nnc_executable *executable, struct nnc_stage *stage),
                  const char *name, struct nnc_stage **ret_stage);

/* Where tensor `tensor` can be read in layout md: itself, or a copy that a reorder stage makes. */
int nnc_dnn_source(struct nnc_builder *builder, int32_t tensor, nnc_const_md md,
                   struct nnc_place *ret_place);

/* Where to write the value of `tensor` in layout md. nnc_dnn_target_done(), called after the
 * stage that writes, appends what brings it to the tensor: a reorder, an addition, or nothing. */
struct nnc_target {
    int32_t tensor;
    bool accumulate;
    nnc_const_md md; /* borrowed until done */
    struct nnc_place place;
};
int nnc_dnn_target(struct nnc_builder *builder, int32_t tensor, nnc_const_md md, bool accumulate,
                   struct nnc_target *ret_target);
int nnc_dnn_target_done(struct nnc_builder *builder, const struct nnc_target *target);

/* A stage that runs a primitive. `pd` is borrowed. The scratchpad is added. */
struct nnc_dnn_arg {
    int slot;           /* DNNL_ARG_... */
    dnnl_query_t query; /* dnnl_query_src_md, ...: which descriptor of pd it has */
    int index;          /* of that descriptor: 1 for a bias beside its weights */
    struct nnc_place place;
};
int nnc_dnn_primitive(struct nnc_builder *builder, const char *name, dnnl_primitive_desc_t pd,
                      const struct nnc_dnn_arg *args, int arg_count);

/* A stage that copies between layouts. */
int nnc_dnn_reorder(struct nnc_builder *builder, const char *name, nnc_const_md from_md,
                    struct nnc_place from, nnc_const_md to_md, struct nnc_place to);

/* Where to read parameter `param` in layout md: in the state's arena, or in a copy that a stage
 * renews whenever the values changed. While arranging, the first layout asked for becomes the
 * state's. */
int nnc_dnn_weight(struct nnc_builder *builder, uint32_t param, nnc_const_md md,
                   struct nnc_place *ret_place);

/* Where to write the gradient of `param` in layout md; `done` appends the reorder if there is one.
 */
int nnc_dnn_gradient(struct nnc_builder *builder, uint32_t param, nnc_const_md md,
                     struct nnc_place *ret_place);
int nnc_dnn_gradient_done(struct nnc_builder *builder, uint32_t param, nnc_const_md md,
                          struct nnc_place place);

/* A stage that adds `from`, which lies as the tensor does, to the tensor. */
int nnc_dnn_accumulate(struct nnc_builder *builder, struct nnc_place from, int32_t tensor);

/* A stage that writes act(from) to a tensor, `from` lying as the tensor does. */
int nnc_dnn_act(struct nnc_builder *builder, enum nnc_act act, struct nnc_place from,
                int32_t tensor);

/* A stage that undoes the activation of op in place: dy = dy * act'(y). Nothing for NNC_ACT_NONE.
 */
int nnc_dnn_undo_act(struct nnc_builder *builder, const struct nnc_op *op);

/* Set the threads of the current operation's primitives, from its cost on one thread. To be called
 * before their descriptors are made. */
void nnc_dnn_set_team(struct nnc_builder *builder, double ns);

/* Add an error's place: "layer NAME: ...". -ENOTSUP without text becomes an error with one. */
int nnc_dnn_fail(const struct nnc_builder *builder, int rc);

/* How good an implementation is: 0 plain loops, 1 by matrix multiplication, 2 made for the job. */
int nnc_dnn_rank(const_dnnl_primitive_desc_t pd);

#endif
