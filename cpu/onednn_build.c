/* SPDX-License-Identifier: Apache-2.0 */
/* Places, layouts, reorders and stages while an executable is compiled; see onednn_build.h.
 *
 * Invariants: (1) a tensor's layout is decided once, by the operation that writes it first (the
 * input's by the operation that reads it first), and its gradient has the same one; (2) every
 * layout of a tensor is one that loops of ours can read, so an elementwise operation never needs a
 * reorder; (3) stages of one operation are neighbours. */
#include "cpu/onednn_build.h"
#include "cpu/onednn_parallel.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/err.h"

enum {
    ALIGNMENT = 64,
};

int nnc_dnn_fail(const struct nnc_builder *builder, int rc) {
    const struct nnc_op *op = &builder->program->ops[builder->op];
    const char *name = op->node >= 0 ? builder->program->graph->nodes[op->node].name : "loss";
    if (rc == -ENOTSUP) {
        return nnc_fail(-EINVAL,
                        "layer %s: this version of oneDNN has no implementation for its shape; "
                        "--backend reference can compute it",
                        name);
    }
    return rc < 0 ? nnc_fail_in(rc, "layer %s", name) : rc;
}

int nnc_dnn_rank(const_dnnl_primitive_desc_t pd) {
    const char *name = nnc_pd_name(pd);
    if (strstr(name, "ref") != NULL) {
        return 0;
    }
    return strstr(name, "gemm:") != NULL && strncmp(name, "brgemm", 6) != 0 ? 1 : 2;
}

bool nnc_layout_read(nnc_const_md md, struct nnc_dnn_layout *ret_layout) {
    struct nnc_md_view view;
    if (!nnc_md_get_view(md, &view) || (view.ndims != 2 && view.ndims != 4) ||
        view.inner_count > 1 || (view.inner_count == 1 && view.inner_dims[0] != 1) ||
        view.padded_dims[0] != view.dims[0]) {
        return false;
    }
    dnnl_dim_t channels = view.padded_dims[1];
    dnnl_dim_t height = view.ndims == 4 ? view.dims[2] : 1;
    dnnl_dim_t width = view.ndims == 4 ? view.dims[3] : 1;
    struct nnc_dnn_layout layout = {.n = (uint32_t)view.dims[0],
                                    .c = (uint32_t)view.dims[1],
                                    .positions = (size_t)(height * width)};
    dnnl_dim_t block = view.inner_count == 1 ? view.inner_blocks[0] : 1;
    bool channels_last = view.inner_count == 0 &&
                         (view.ndims == 2 || (view.strides[3] == channels && channels > 1) ||
                          (height * width == 1 && view.strides[1] == 1));
    layout.inner = (uint32_t)(channels_last ? channels : block);
    layout.outer = (uint32_t)(channels / layout.inner);
    /* Dense in the order n, outer, h, w, inner, or not ours to read. */
    bool dense = view.strides[0] == channels * height * width || view.dims[0] == 1;
    if (view.ndims == 4) {
        dense = dense && (width == 1 || view.strides[3] == layout.inner) &&
                (height == 1 || view.strides[2] == width * layout.inner) &&
                (layout.outer == 1 || view.strides[1] == height * width * layout.inner);
    }
    if (dense) {
        *ret_layout = layout;
    }
    return dense;
}

static int tensor_md(const struct nnc_builder *builder, int32_t tensor, bool any, nnc_md *ret_md) {
    const struct nnc_tensor *entry = &builder->program->tensors[tensor];
    dnnl_dims_t dims = {builder->program->batch, entry->shape.c, entry->shape.h, entry->shape.w};
    int ndims = entry->flat && entry->shape.h == 1 && entry->shape.w == 1 ? 2 : 4;
    dnnl_format_tag_t tag = any ? dnnl_format_tag_any : ndims == 2 ? dnnl_ab : dnnl_abcd;
    return nnc_md_create(ndims, dims, tag, ret_md);
}

int nnc_dnn_plain_md(const struct nnc_builder *builder, int32_t tensor, nnc_md *ret_md) {
    return tensor_md(builder, tensor, false, ret_md);
}

int nnc_dnn_any_md(const struct nnc_builder *builder, int32_t tensor, nnc_md *ret_md) {
    return tensor_md(builder, tensor, true, ret_md);
}

static int decide_one(struct nnc_builder *builder, int32_t tensor, nnc_const_md md) {
    struct nnc_dnn_tensor *entry = nnc_dnn_tensor(builder, tensor);
    assert(entry->md == NULL);
    if (!nnc_layout_read(md, &entry->layout)) {
        return nnc_fail(-EINVAL, "oneDNN: a tensor's layout cannot be read");
    }
    return nnc_md_clone(md, &entry->md);
}

int nnc_dnn_decide(struct nnc_builder *builder, int32_t tensor, nnc_const_md md) {
    int rc = decide_one(builder, tensor, md);
    int32_t grad = builder->program->tensors[tensor].grad;
    if (rc == 0 && grad >= 0) {
        rc = decide_one(builder, grad, md);
    }
    if (rc == 0 && builder->program->ops[0].y == tensor) {
        /* The input is fed before a step and must outlive whatever runs in between. */
        rc = nnc_dnn_private(builder, nnc_md_bytes(md), &nnc_dnn_tensor(builder, tensor)->place);
        builder->executable->input = nnc_dnn_tensor(builder, tensor)->place;
    }
    return rc;
}

int nnc_dnn_decide_plain(struct nnc_builder *builder, int32_t tensor) {
    if (nnc_dnn_tensor(builder, tensor)->md != NULL) {
        return 0;
    }
    nnc_md md = NULL;
    int rc = nnc_dnn_plain_md(builder, tensor, &md);
    if (rc == 0) {
        rc = nnc_dnn_decide(builder, tensor, md);
    }
    nnc_md_destroy(md);
    return rc;
}

/* Take `bytes` behind *used. */
static int take(size_t *used, size_t bytes, size_t *ret_at) {
    size_t rounded;
    size_t next;
    if (nnc_size_round_up(bytes, ALIGNMENT, &rounded) || nnc_size_add(*used, rounded, &next)) {
        return nnc_fail(-EOVERFLOW, "the program's memory does not fit the address space");
    }
    *ret_at = *used;
    *used = next;
    return 0;
}

int nnc_dnn_private(struct nnc_builder *builder, size_t bytes, struct nnc_place *ret_place) {
    ret_place->kind = NNC_PLACE_PRIVATE;
    return take(&builder->executable->private_bytes, bytes, &ret_place->at);
}

int nnc_dnn_temp(struct nnc_builder *builder, size_t bytes, struct nnc_place *ret_place) {
    ret_place->kind = NNC_PLACE_TEMP;
    int rc = take(&builder->temp_used, bytes, &ret_place->at);
    if (rc == 0 && builder->temp_used > builder->executable->temp_bytes) {
        builder->executable->temp_bytes = builder->temp_used;
    }
    return rc;
}

int nnc_dnn_stage(struct nnc_builder *builder,
                  int (*run)(struct nnc_executable *executable, struct nnc_stage *stage),
                  const char *name, struct nnc_stage **ret_stage) {
    struct nnc_executable *executable = builder->executable;
    if (executable->stage_count == executable->stage_capacity) {
        uint32_t capacity = 2 * executable->stage_capacity + 64;
        struct nnc_stage *stages = realloc(executable->stages, capacity * sizeof(*stages));
        if (stages == NULL) {
            return nnc_fail(-ENOMEM, "no memory for %u stages", capacity);
        }
        executable->stages = stages;
        executable->stage_capacity = capacity;
    }
    struct nnc_stage *stage = &executable->stages[executable->stage_count++];
    *stage = (struct nnc_stage){.run = run, .op = builder->op};
    snprintf(stage->name, sizeof(stage->name), "%s", name);
    *ret_stage = stage;
    return 0;
}

void nnc_dnn_set_team(struct nnc_builder *builder, double ns) {
    builder->team = nnc_team(builder->backend->params.threads, ns);
    nnc_parallel_init(builder->team);
}

static int run_primitive(struct nnc_executable *executable, struct nnc_stage *stage) {
    nnc_parallel_init(stage->team);
    return nnc_dnnl_check(dnnl_primitive_execute(stage->primitive, executable->backend->stream,
                                                 stage->arg_count, stage->args),
                          stage->name);
}

/* One more operand; its address comes when the executable takes addresses. */
static int add_arg(struct nnc_builder *builder, struct nnc_stage *stage, int slot, nnc_const_md md,
                   struct nnc_place place) {
    assert(stage->arg_count < NNC_STAGE_ARGS);
    dnnl_memory_t memory = NULL;
    int rc = nnc_dnnl_check(
        dnnl_memory_create(&memory, md, builder->backend->engine, DNNL_MEMORY_NONE), "memory");
    if (rc == 0) {
        stage->args[stage->arg_count] = (dnnl_exec_arg_t){.arg = slot, .memory = memory};
        stage->arg_places[stage->arg_count] = place;
        stage->arg_count++;
    }
    return rc;
}

int nnc_dnn_primitive(struct nnc_builder *builder, const char *name, dnnl_primitive_desc_t pd,
                      const struct nnc_dnn_arg *args, int arg_count) {
    struct nnc_stage *stage;
    int rc = nnc_dnn_stage(builder, run_primitive, name, &stage);
    if (rc < 0) {
        return rc;
    }
    snprintf(stage->name, sizeof(stage->name), "%s %s", name, nnc_pd_name(pd));
    stage->team = builder->team;
    rc = nnc_dnnl_check(dnnl_primitive_create(&stage->primitive, pd), name);
    for (int k = 0; rc == 0 && k < arg_count; k++) {
        nnc_const_md md = dnnl_primitive_desc_query_md(pd, args[k].query, args[k].index);
        rc = add_arg(builder, stage, args[k].slot, md, args[k].place);
    }
    nnc_const_md scratch = dnnl_primitive_desc_query_md(pd, dnnl_query_scratchpad_md, 0);
    size_t bytes = scratch != NULL ? nnc_md_bytes(scratch) : 0;
    if (rc == 0 && bytes > 0) {
        if (bytes > builder->executable->scratch_bytes) {
            builder->executable->scratch_bytes = bytes;
        }
        rc = add_arg(builder, stage, DNNL_ARG_SCRATCHPAD, scratch,
                     (struct nnc_place){.kind = NNC_PLACE_SCRATCH});
    }
    return rc;
}

int nnc_dnn_reorder(struct nnc_builder *builder, const char *name, nnc_const_md from_md,
                    struct nnc_place from, nnc_const_md to_md, struct nnc_place to) {
    struct nnc_pd_site site = {.engine = builder->backend->engine, .attr = builder->backend->attr};
    dnnl_primitive_desc_t pd = NULL;
    int rc = nnc_pd_reorder(&site, from_md, to_md, &pd);
    if (rc == 0) {
        const struct nnc_dnn_arg args[] = {{DNNL_ARG_FROM, dnnl_query_src_md, 0, from},
                                           {DNNL_ARG_TO, dnnl_query_dst_md, 0, to}};
        rc = nnc_dnn_primitive(builder, name, pd, args, 2);
    }
    nnc_pd_destroy(pd);
    return rc;
}

int nnc_dnn_source(struct nnc_builder *builder, int32_t tensor, nnc_const_md md,
                   struct nnc_place *ret_place) {
    const struct nnc_dnn_tensor *entry = nnc_dnn_tensor(builder, tensor);
    assert(entry->md != NULL);
    if (dnnl_memory_desc_equal(entry->md, md)) {
        *ret_place = entry->place;
        return 0;
    }
    struct nnc_place copy;
    int rc = nnc_dnn_temp(builder, nnc_md_bytes(md), &copy);
    if (rc == 0) {
        rc = nnc_dnn_reorder(builder, "reorder", entry->md, entry->place, md, copy);
    }
    if (rc == 0) {
        builder->executable->reorder_count++;
        *ret_place = copy;
    }
    return rc;
}

int nnc_dnn_target(struct nnc_builder *builder, int32_t tensor, nnc_const_md md, bool accumulate,
                   struct nnc_target *ret_target) {
    const struct nnc_dnn_tensor *entry = nnc_dnn_tensor(builder, tensor);
    assert(entry->md != NULL);
    *ret_target = (struct nnc_target){
        .tensor = tensor, .accumulate = accumulate, .md = md, .place = entry->place};
    if (!accumulate && dnnl_memory_desc_equal(entry->md, md)) {
        return 0;
    }
    return nnc_dnn_temp(builder, nnc_md_bytes(md), &ret_target->place);
}

int nnc_dnn_target_done(struct nnc_builder *builder, const struct nnc_target *target) {
    const struct nnc_dnn_tensor *entry = nnc_dnn_tensor(builder, target->tensor);
    struct nnc_place from = target->place;
    int rc = 0;
    if (from.kind != NNC_PLACE_TEMP) {
        return 0;
    }
    if (!dnnl_memory_desc_equal(entry->md, target->md)) {
        struct nnc_place to = entry->place;
        if (target->accumulate) {
            rc = nnc_dnn_temp(builder, nnc_md_bytes(entry->md), &to);
        }
        if (rc == 0) {
            rc = nnc_dnn_reorder(builder, "reorder", target->md, from, entry->md, to);
        }
        builder->executable->reorder_count++;
        from = to;
    }
    if (rc == 0 && target->accumulate) {
        rc = nnc_dnn_accumulate(builder, from, target->tensor);
    }
    return rc;
}

/* Renew a copy of weights in another layout if they changed since. */
static int run_weights(struct nnc_executable *executable, struct nnc_stage *stage) {
    uint64_t version = executable->backend->state.version;
    if (stage->version == version) {
        return 0;
    }
    stage->version = version;
    return run_primitive(executable, stage);
}

int nnc_dnn_weight(struct nnc_builder *builder, uint32_t param, nnc_const_md md,
                   struct nnc_place *ret_place) {
    struct nnc_executable *executable = builder->executable;
    struct nnc_md_view view;
    if (builder->planned[param] == NULL && nnc_md_get_view(md, &view)) {
        assert(builder->arranging);
        int rc = nnc_md_clone(md, &builder->planned[param]);
        if (rc < 0) {
            return rc;
        }
    }
    nnc_const_md own = builder->planned[param];
    if (own == NULL) {
        return nnc_fail(-EINVAL, "oneDNN: weights in a layout that cannot be read");
    }
    struct nnc_place value = {.kind = NNC_PLACE_VALUE, .at = param};
    if (dnnl_memory_desc_equal(own, md)) {
        *ret_place = value;
        return 0;
    }
    struct nnc_place copy;
    int rc = nnc_dnn_private(builder, nnc_md_bytes(md), &copy);
    if (rc == 0) {
        rc = nnc_dnn_reorder(builder, "weights", own, value, md, copy);
    }
    if (rc == 0) {
        executable->stages[executable->stage_count - 1].run = run_weights;
        *ret_place = copy;
    }
    return rc;
}

int nnc_dnn_gradient(struct nnc_builder *builder, uint32_t param, nnc_const_md md,
                     struct nnc_place *ret_place) {
    assert(builder->planned[param] != NULL);
    if (dnnl_memory_desc_equal(builder->planned[param], md)) {
        *ret_place = (struct nnc_place){.kind = NNC_PLACE_GRADIENT, .at = param};
        return 0;
    }
    return nnc_dnn_temp(builder, nnc_md_bytes(md), ret_place);
}

int nnc_dnn_gradient_done(struct nnc_builder *builder, uint32_t param, nnc_const_md md,
                          struct nnc_place place) {
    if (place.kind == NNC_PLACE_GRADIENT) {
        return 0;
    }
    struct nnc_place gradient = {.kind = NNC_PLACE_GRADIENT, .at = param};
    return nnc_dnn_reorder(builder, "gradient", md, place, builder->planned[param], gradient);
}
