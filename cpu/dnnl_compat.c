/* SPDX-License-Identifier: Apache-2.0 */
/* One implementation of dnnl_compat.h for each major version of oneDNN.
 *
 * Version 2 keeps memory descriptors by value and makes a primitive descriptor in two calls, an
 * operation descriptor first; version 3 has handles and one call. Here the version 2 half puts the
 * value behind a pointer and joins the two calls.
 *
 * Source: oneDNN developer guide, "Transition from v2.x to v3.x". */
#include "cpu/dnnl_compat.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"

int nnc_dnnl_check(dnnl_status_t status, const char *what) {
    switch (status) {
    case dnnl_success:
        return 0;
    case dnnl_unimplemented:
        return -ENOTSUP;
    case dnnl_out_of_memory:
        return nnc_fail(-ENOMEM, "oneDNN: %s: out of memory", what);
    default:
        return nnc_fail(-EINVAL, "oneDNN: %s: status %d", what, (int)status);
    }
}

size_t nnc_md_bytes(nnc_const_md md) {
    return dnnl_memory_desc_get_size(md);
}

int nnc_attr_create(dnnl_alg_kind_t post, dnnl_primitive_attr_t *ret_attr) {
    dnnl_primitive_attr_t attr = NULL;
    dnnl_post_ops_t ops = NULL;
    dnnl_status_t status = dnnl_primitive_attr_create(&attr);
    if (status == dnnl_success) {
        status = dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user);
    }
    if (status == dnnl_success && post != dnnl_alg_kind_undef) {
        status = dnnl_post_ops_create(&ops);
        if (status == dnnl_success) {
#if DNNL_VERSION_MAJOR >= 3
            status = dnnl_post_ops_append_eltwise(ops, post, 0.0f, 0.0f);
#else
            status = dnnl_post_ops_append_eltwise(ops, 1.0f, post, 0.0f, 0.0f);
#endif
        }
        if (status == dnnl_success) {
            status = dnnl_primitive_attr_set_post_ops(attr, ops);
        }
        dnnl_post_ops_destroy(ops);
    }
    if (status != dnnl_success) {
        dnnl_primitive_attr_destroy(attr);
        return nnc_dnnl_check(status, "attributes");
    }
    *ret_attr = attr;
    return 0;
}

int nnc_pd_reorder(const struct nnc_pd_site *site, nnc_const_md from, nnc_const_md to,
                   dnnl_primitive_desc_t *ret_pd) {
    return nnc_dnnl_check(dnnl_reorder_primitive_desc_create(ret_pd, from, site->engine, to,
                                                             site->engine, site->attr),
                          "reorder");
}

const char *nnc_pd_name(const_dnnl_primitive_desc_t pd) {
    const char *name = NULL;
    if (dnnl_primitive_desc_query(pd, dnnl_query_impl_info_str, 0, &name) != dnnl_success ||
        name == NULL) {
        return "?";
    }
    return name;
}

void nnc_pd_destroy(dnnl_primitive_desc_t pd) {
    if (pd != NULL) {
        dnnl_primitive_desc_destroy(pd);
    }
}

#if DNNL_VERSION_MAJOR >= 3

static const dnnl_dims_t no_dilation;

int nnc_md_create(int ndims, const dnnl_dims_t dims, dnnl_format_tag_t tag, nnc_md *ret_md) {
    return nnc_dnnl_check(dnnl_memory_desc_create_with_tag(ret_md, ndims, dims, dnnl_f32, tag),
                          "memory descriptor");
}

int nnc_md_clone(nnc_const_md md, nnc_md *ret_md) {
    return nnc_dnnl_check(dnnl_memory_desc_clone(ret_md, md), "memory descriptor");
}

void nnc_md_destroy(nnc_md md) {
    if (md != NULL) {
        dnnl_memory_desc_destroy(md);
    }
}

static bool query_dims(nnc_const_md md, dnnl_query_t what, int count, dnnl_dims_t ret_dims) {
    dnnl_dims_t *dims = NULL;
    if (dnnl_memory_desc_query(md, what, &dims) != dnnl_success || dims == NULL) {
        return false;
    }
    memcpy(ret_dims, *dims, (size_t)count * sizeof((*dims)[0]));
    return true;
}

bool nnc_md_get_view(nnc_const_md md, struct nnc_md_view *ret_view) {
    struct nnc_md_view view = {0};
    dnnl_format_kind_t kind = dnnl_format_kind_undef;
    if (dnnl_memory_desc_query(md, dnnl_query_format_kind, &kind) != dnnl_success ||
        kind != dnnl_blocked ||
        dnnl_memory_desc_query(md, dnnl_query_ndims_s32, &view.ndims) != dnnl_success ||
        dnnl_memory_desc_query(md, dnnl_query_inner_nblks_s32, &view.inner_count) != dnnl_success) {
        return false;
    }
    bool good = query_dims(md, dnnl_query_dims, view.ndims, view.dims) &&
                query_dims(md, dnnl_query_padded_dims, view.ndims, view.padded_dims) &&
                query_dims(md, dnnl_query_strides, view.ndims, view.strides);
    if (good && view.inner_count > 0) {
        good = query_dims(md, dnnl_query_inner_blks, view.inner_count, view.inner_blocks) &&
               query_dims(md, dnnl_query_inner_idxs, view.inner_count, view.inner_dims);
    }
    if (good) {
        *ret_view = view;
    }
    return good;
}

int nnc_pd_conv(const struct nnc_pd_site *site, dnnl_prop_kind_t prop,
                const struct nnc_pd_tensors *t, const struct nnc_pd_window *w,
                dnnl_primitive_desc_t *ret_pd) {
    dnnl_status_t status;
    if (prop == dnnl_backward_data) {
        status = dnnl_convolution_backward_data_primitive_desc_create(
            ret_pd, site->engine, dnnl_convolution_direct, t->src, t->weights, t->dst, w->stride,
            no_dilation, w->pad, w->pad, site->hint, site->attr);
    } else if (prop == dnnl_backward_weights) {
        status = dnnl_convolution_backward_weights_primitive_desc_create(
            ret_pd, site->engine, dnnl_convolution_direct, t->src, t->weights, t->bias, t->dst,
            w->stride, no_dilation, w->pad, w->pad, site->hint, site->attr);
    } else {
        status = dnnl_convolution_forward_primitive_desc_create(
            ret_pd, site->engine, prop, dnnl_convolution_direct, t->src, t->weights, t->bias,
            t->dst, w->stride, no_dilation, w->pad, w->pad, site->attr);
    }
    return nnc_dnnl_check(status, "convolution");
}

int nnc_pd_linear(const struct nnc_pd_site *site, dnnl_prop_kind_t prop,
                  const struct nnc_pd_tensors *t, dnnl_primitive_desc_t *ret_pd) {
    dnnl_status_t status;
    if (prop == dnnl_backward_data) {
        status = dnnl_inner_product_backward_data_primitive_desc_create(
            ret_pd, site->engine, t->src, t->weights, t->dst, site->hint, site->attr);
    } else if (prop == dnnl_backward_weights) {
        status = dnnl_inner_product_backward_weights_primitive_desc_create(
            ret_pd, site->engine, t->src, t->weights, t->bias, t->dst, site->hint, site->attr);
    } else {
        status = dnnl_inner_product_forward_primitive_desc_create(
            ret_pd, site->engine, prop, t->src, t->weights, t->bias, t->dst, site->attr);
    }
    return nnc_dnnl_check(status, "inner product");
}

int nnc_pd_pool(const struct nnc_pd_site *site, dnnl_prop_kind_t prop, dnnl_alg_kind_t algorithm,
                const struct nnc_pd_tensors *t, const struct nnc_pd_window *w,
                dnnl_primitive_desc_t *ret_pd) {
    dnnl_status_t status;
    if (prop == dnnl_backward_data) {
        status = dnnl_pooling_backward_primitive_desc_create(
            ret_pd, site->engine, algorithm, t->src, t->dst, w->stride, w->kernel, no_dilation,
            w->pad, w->pad, site->hint, site->attr);
    } else {
        status = dnnl_pooling_forward_primitive_desc_create(
            ret_pd, site->engine, prop, algorithm, t->src, t->dst, w->stride, w->kernel,
            no_dilation, w->pad, w->pad, site->attr);
    }
    return nnc_dnnl_check(status, "pooling");
}

#else

int nnc_md_create(int ndims, const dnnl_dims_t dims, dnnl_format_tag_t tag, nnc_md *ret_md) {
    nnc_md md = calloc(1, sizeof(*md));
    if (md == NULL) {
        return nnc_fail(-ENOMEM, "oneDNN: memory descriptor: out of memory");
    }
    int rc =
        nnc_dnnl_check(dnnl_memory_desc_init_by_tag(md, ndims, dims, dnnl_f32, tag), "descriptor");
    if (rc < 0) {
        free(md);
        return rc;
    }
    *ret_md = md;
    return 0;
}

int nnc_md_clone(nnc_const_md md, nnc_md *ret_md) {
    nnc_md copy = malloc(sizeof(*copy));
    if (copy == NULL) {
        return nnc_fail(-ENOMEM, "oneDNN: memory descriptor: out of memory");
    }
    *copy = *md;
    *ret_md = copy;
    return 0;
}

void nnc_md_destroy(nnc_md md) {
    free(md);
}

bool nnc_md_get_view(nnc_const_md md, struct nnc_md_view *ret_view) {
    if (md->format_kind != dnnl_blocked) {
        return false;
    }
    const dnnl_blocking_desc_t *blocking = &md->format_desc.blocking;
    *ret_view = (struct nnc_md_view){.ndims = md->ndims, .inner_count = blocking->inner_nblks};
    memcpy(ret_view->dims, md->dims, sizeof(md->dims));
    memcpy(ret_view->padded_dims, md->padded_dims, sizeof(md->padded_dims));
    memcpy(ret_view->strides, blocking->strides, sizeof(blocking->strides));
    memcpy(ret_view->inner_blocks, blocking->inner_blks, sizeof(blocking->inner_blks));
    memcpy(ret_view->inner_dims, blocking->inner_idxs, sizeof(blocking->inner_idxs));
    return true;
}

/* The second of version 2's two calls. */
static int describe(const struct nnc_pd_site *site, dnnl_status_t status, const_dnnl_op_desc_t desc,
                    const char *what, dnnl_primitive_desc_t *ret_pd) {
    if (status == dnnl_success) {
        status = dnnl_primitive_desc_create(ret_pd, desc, site->attr, site->engine, site->hint);
    }
    return nnc_dnnl_check(status, what);
}

int nnc_pd_conv(const struct nnc_pd_site *site, dnnl_prop_kind_t prop,
                const struct nnc_pd_tensors *t, const struct nnc_pd_window *w,
                dnnl_primitive_desc_t *ret_pd) {
    dnnl_convolution_desc_t desc;
    dnnl_status_t status;
    if (prop == dnnl_backward_data) {
        status = dnnl_convolution_backward_data_desc_init(
            &desc, dnnl_convolution_direct, t->src, t->weights, t->dst, w->stride, w->pad, w->pad);
    } else if (prop == dnnl_backward_weights) {
        status = dnnl_convolution_backward_weights_desc_init(&desc, dnnl_convolution_direct, t->src,
                                                             t->weights, t->bias, t->dst, w->stride,
                                                             w->pad, w->pad);
    } else {
        status = dnnl_convolution_forward_desc_init(&desc, prop, dnnl_convolution_direct, t->src,
                                                    t->weights, t->bias, t->dst, w->stride, w->pad,
                                                    w->pad);
    }
    return describe(site, status, &desc, "convolution", ret_pd);
}

int nnc_pd_linear(const struct nnc_pd_site *site, dnnl_prop_kind_t prop,
                  const struct nnc_pd_tensors *t, dnnl_primitive_desc_t *ret_pd) {
    dnnl_inner_product_desc_t desc;
    dnnl_status_t status;
    if (prop == dnnl_backward_data) {
        status = dnnl_inner_product_backward_data_desc_init(&desc, t->src, t->weights, t->dst);
    } else if (prop == dnnl_backward_weights) {
        status = dnnl_inner_product_backward_weights_desc_init(&desc, t->src, t->weights, t->bias,
                                                               t->dst);
    } else {
        status =
            dnnl_inner_product_forward_desc_init(&desc, prop, t->src, t->weights, t->bias, t->dst);
    }
    return describe(site, status, &desc, "inner product", ret_pd);
}

int nnc_pd_pool(const struct nnc_pd_site *site, dnnl_prop_kind_t prop, dnnl_alg_kind_t algorithm,
                const struct nnc_pd_tensors *t, const struct nnc_pd_window *w,
                dnnl_primitive_desc_t *ret_pd) {
    dnnl_pooling_desc_t desc;
    dnnl_status_t status;
    if (prop == dnnl_backward_data) {
        status = dnnl_pooling_backward_desc_init(&desc, algorithm, t->src, t->dst, w->stride,
                                                 w->kernel, w->pad, w->pad);
    } else {
        status = dnnl_pooling_forward_desc_init(&desc, prop, algorithm, t->src, t->dst, w->stride,
                                                w->kernel, w->pad, w->pad);
    }
    return describe(site, status, &desc, "pooling", ret_pd);
}

#endif
