/* SPDX-License-Identifier: Apache-2.0 */
/* The state of a model in the oneDNN backend: values, gradients and momentum of all parameters,
 * each in one flat arena.
 *
 *   value     [ trained parameters, in order of backward completion | buffers ]
 *   gradient  [ trained parameters, the same offsets                 ]
 *   momentum  [ trained parameters, the same offsets                 ]
 *
 * A parameter lies in the layout that the first training executable's primitives want (its md),
 * padded as the library pads it, so an update is one elementwise pass over the arenas. Padding is
 * zero in all three and SGD keeps it zero. Before that executable exists every layout is plain. */
#ifndef NNC_CPU_ONEDNN_STATE_H
#define NNC_CPU_ONEDNN_STATE_H

#include "cpu/dnnl_compat.h"
#include "cpu/onednn_kernels.h"
#include "workers/backend.h"

struct nnc_dnn_param {
    nnc_md md;     /* owned */
    size_t offset; /* floats, in each arena */
    size_t count;  /* floats, with padding */
    float ratio;   /* of its step, in an update by LARS */
};

struct nnc_dnn_state {
    const struct nnc_graph *graph;
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    struct nnc_dnn_param *params;
    float *value, *gradient, *momentum; /* gradient, momentum: NULL until they are needed */
    size_t value_count, trained_count;  /* floats */
    struct nnc_bucket *buckets;         /* of the first training program; NULL before */
    uint32_t *order;
    uint32_t bucket_count, order_count;
    uint64_t version;    /* grows whenever a value changes */
    uint64_t generation; /* grows whenever layouts change: addresses are stale */
};

/* Zeroed memory in whole pages, huge ones where the system gives them. NULL when there is none. */
void *nnc_pages_alloc(size_t bytes);

/* Takes NULL; bytes as given to nnc_pages_alloc(). */
void nnc_pages_free(void *pages, size_t bytes);

/* All values zero, plain layouts. engine and stream are borrowed. Errors: -ENOMEM, -EOVERFLOW. */
int nnc_dnn_state_init(struct nnc_dnn_state *state, const struct nnc_graph *graph,
                       dnnl_engine_t engine, dnnl_stream_t stream);

/* Takes a zeroed or half-built state. */
void nnc_dnn_state_finish(struct nnc_dnn_state *state);

/* Move everything into new layouts: parameter p as mds[p] (NULL: as it is), trained parameters in
 * the order and buckets of `program`. Allocates gradient and momentum. On error nothing has
 * changed. */
int nnc_dnn_state_arrange(struct nnc_dnn_state *state, nnc_md const *mds,
                          const struct nnc_program *program);

/* Read or write one parameter in plain layout; see backend.h. */
int nnc_dnn_state_get(struct nnc_dnn_state *state, enum nnc_state which, uint32_t param,
                      float *ret_values);
int nnc_dnn_state_set(struct nnc_dnn_state *state, enum nnc_state which, uint32_t param,
                      const float *values);

/* One step of SGD over all trained parameters on `threads` threads; see backend.h.
 * Errors: -NNC_E_NUMERIC when a value is not finite afterwards. The library's ReLU turns NaN into
 * 0, so a diverged run need not show in its loss: it shows here. -EINVAL before any training
 * program. */
int nnc_dnn_state_update(struct nnc_dnn_state *state, const struct nnc_kernels *kernels,
                         uint32_t threads, const struct nnc_sgd *sgd);

/* See backend.h. Errors: -EINVAL before the first training executable. */
int nnc_dnn_state_bucket(struct nnc_dnn_state *state, uint32_t bucket, float **ret_values,
                         size_t *ret_count);

/* Copy between two layouts of the same dimensions, now. May allocate: not for the step loop. */
int nnc_dnn_copy(const struct nnc_dnn_state *state, nnc_const_md from_md, const float *from,
                 nnc_const_md to_md, float *to);

/* Bytes of the three arenas. */
size_t nnc_dnn_state_bytes(const struct nnc_dnn_state *state);

#endif
