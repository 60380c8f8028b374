/* SPDX-License-Identifier: Apache-2.0 */
/* The differences between oneDNN 2 and oneDNN 3, in one place. Everything else in cpu/ is written
 * as for version 3: memory descriptors are handles that are created and destroyed, and a primitive
 * descriptor is made in one call from tensors, attributes and the forward descriptor ("hint").
 *
 * Owner: whoever gets a ret_ handle destroys it. Errors everywhere: -ENOTSUP when the library has
 * no implementation for the request (no text, the caller tries something else), -ENOMEM or -EINVAL
 * with text for anything else. */
#ifndef NNC_CPU_DNNL_COMPAT_H
#define NNC_CPU_DNNL_COMPAT_H

#include <oneapi/dnnl/dnnl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#if DNNL_VERSION_MAJOR >= 3
typedef dnnl_memory_desc_t nnc_md;
typedef const_dnnl_memory_desc_t nnc_const_md;
#else
typedef dnnl_memory_desc_t *nnc_md;
typedef const dnnl_memory_desc_t *nnc_const_md;
#endif

/* Turn a status of the library into a code of ours; `what` names the call. dnnl_success gives 0. */
int nnc_dnnl_check(dnnl_status_t status, const char *what);

/* A float32 descriptor; dnnl_format_tag_any leaves the layout to the primitive. */
int nnc_md_create(int ndims, const dnnl_dims_t dims, dnnl_format_tag_t tag, nnc_md *ret_md);

/* A copy, e.g. of a descriptor that a primitive descriptor owns. */
int nnc_md_clone(nnc_const_md md, nnc_md *ret_md);

/* Takes NULL. */
void nnc_md_destroy(nnc_md md);

/* Bytes that a tensor of this layout takes, padding included. */
size_t nnc_md_bytes(nnc_const_md md);

/* What a blocked layout looks like inside; arrays have ndims (inner_*: inner_count) entries. */
struct nnc_md_view {
    int ndims, inner_count;
    dnnl_dims_t dims, padded_dims, strides, inner_blocks, inner_dims;
};

/* False when the descriptor is not of the blocked kind (which includes the plain layouts). */
bool nnc_md_get_view(nnc_const_md md, struct nnc_md_view *ret_view);

/* Attributes of every primitive here: scratchpad given by the caller, and an element-wise function
 * applied to the result unless `post` is dnnl_alg_kind_undef. */
int nnc_attr_create(dnnl_alg_kind_t post, dnnl_primitive_attr_t *ret_attr);

/* What every descriptor is made with. */
struct nnc_pd_site {
    dnnl_engine_t engine;
    const_dnnl_primitive_attr_t attr;
    const_dnnl_primitive_desc_t
        hint; /* forward descriptor of the same operation, in backward passes */
};

/* Tensors of a convolution or an inner product by their role. In backward passes src, weights, bias
 * and dst are the gradients where the pass computes or reads gradients. bias may be NULL. */
struct nnc_pd_tensors {
    nnc_const_md src, weights, bias, dst;
};

/* Window in two dimensions: height, width. */
struct nnc_pd_window {
    dnnl_dims_t kernel, stride, pad;
};

/* Convolution without groups or dilation; prop is one of dnnl_forward_training, forward_inference,
 * backward_data and backward_weights. */
int nnc_pd_conv(const struct nnc_pd_site *site, dnnl_prop_kind_t prop,
                const struct nnc_pd_tensors *tensors, const struct nnc_pd_window *window,
                dnnl_primitive_desc_t *ret_pd);

/* Inner product: dst (N,K) = src (N,...) weights (K,...)^T + bias; prop as for nnc_pd_conv(). */
int nnc_pd_linear(const struct nnc_pd_site *site, dnnl_prop_kind_t prop,
                  const struct nnc_pd_tensors *tensors, dnnl_primitive_desc_t *ret_pd);

/* Pooling; prop is forward_training, forward_inference or dnnl_backward_data; weights and bias of
 * `tensors` are not looked at. */
int nnc_pd_pool(const struct nnc_pd_site *site, dnnl_prop_kind_t prop, dnnl_alg_kind_t algorithm,
                const struct nnc_pd_tensors *tensors, const struct nnc_pd_window *window,
                dnnl_primitive_desc_t *ret_pd);

/* Copy from one layout to another. site->hint is not looked at. */
int nnc_pd_reorder(const struct nnc_pd_site *site, nnc_const_md from, nnc_const_md to,
                   dnnl_primitive_desc_t *ret_pd);

/* The library's name for the implementation it chose, "jit:avx512_core" for one. Never NULL. */
const char *nnc_pd_name(const_dnnl_primitive_desc_t pd);

/* Takes NULL. */
void nnc_pd_destroy(dnnl_primitive_desc_t pd);

#endif
