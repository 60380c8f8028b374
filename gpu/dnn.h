/* SPDX-License-Identifier: Apache-2.0 */
/* Convolutions by cuDNN's graph API: from a shape to a finalised execution plan and its execution.
 * Plans can be made for a device that is not there, from a description of its properties: that is
 * how the support of every convolution on every device is checked (tests/gpu/test_dnn_matrix.c).
 *
 * Tensors are NHWC; filters are KRSC; c and k are multiples of 8 (pad them). Accumulation is fp32.
 * Only precompiled engines are taken: nothing is compiled at run time.
 *
 * Source: cuDNN 9 backend API reference; rules of the choice: docs/gpu.md, "cuDNN from C". */
#ifndef NNC_GPU_DNN_H
#define NNC_GPU_DNN_H

#include "gpu/kernels.h"

enum nnc_dnn_op {
    NNC_DNN_FORWARD,           /* y = conv(x, w) */
    NNC_DNN_FORWARD_BIAS,      /* y = conv(x, w) + bias */
    NNC_DNN_FORWARD_BIAS_RELU, /* y = relu(conv(x, w) + bias) */
    NNC_DNN_BACKWARD_DATA,     /* x = dx of y = dy: overwrites */
    NNC_DNN_BACKWARD_FILTER,   /* w = dw of x and y = dy: overwrites */
    NNC_DNN_OP_COUNT,
};

/* What a plan is for; plain data, compared as bytes: zero it first. */
struct nnc_dnn_key {
    uint32_t op;   /* enum nnc_dnn_op */
    uint32_t type; /* enum nnc_gpu_type of x, w, bias and y */
    uint32_t n, c, h, w, k;
    uint32_t r, s, stride_h, stride_w, pad_h, pad_w;
};

struct nnc_dnn_policy {
    bool deterministic;   /* only engines that give the same bits each time */
    size_t workspace_cap; /* bytes; configurations that need more are left out */
    uint32_t autotune; /* time so many plans and take the fastest; 0 or 1: the first that works */
};

/* Facts about an engine, from cuDNN's notes. */
enum {
    NNC_DNN_TENSOR_CORE = 1 << 0,
    NNC_DNN_NONDETERMINISTIC = 1 << 1,
    NNC_DNN_COMPILED = 1 << 2, /* at run time: never selected */
};

struct nnc_dnn_device;
struct nnc_dnn_plan;

/* cuDNN's version, 91900 for 9.19.0: plans of one version are no good to another. */
uint32_t nnc_dnn_version(void);

#define NNC_DNN_KEY_TEXT_MAX 192

/* "bf16 forward: x (32,64,56,56), w (64,64,3,3), stride 1x1, padding 1x1" into ret_text;
 * NNC_DNN_KEY_TEXT_MAX bytes are always enough. */
void nnc_dnn_key_text(const struct nnc_dnn_key *key, char *ret_text, size_t room);

/* The properties of CUDA device `ordinal`, and a handle to execute on it. The caller has made it
 * the current device: the handle belongs to that one.
 * Owner: close with nnc_dnn_close(). Errors: -NNC_E_HARDWARE with cuDNN's words; -ENOMEM. */
int nnc_dnn_open(int ordinal, struct nnc_dnn_device **ret_device);

/* A device that is described by JSON text (tests/devices/): plans can be made, not executed.
 * Errors: -NNC_E_FORMAT with cuDNN's words, which name the key that is wrong. */
int nnc_dnn_describe(const char *json, struct nnc_dnn_device **ret_device);

/* Takes NULL. Plans first. */
void nnc_dnn_close(struct nnc_dnn_device *device);

/* The properties as JSON text, for the plan cache's key and for keeping.
 * Owner: caller frees. Errors: -ENOMEM, -NNC_E_HARDWARE. */
int nnc_dnn_properties(const struct nnc_dnn_device *device, char **ret_json);

/* Runs a plan once, in the memory that it will have; nanoseconds, or what went wrong: -ENOTSUP:
 * this plan does not run, another may; all else ends the search. */
struct nnc_dnn_timer {
    int64_t (*time)(void *context, const struct nnc_dnn_plan *plan);
    void *context;
};

/* The best plan for the key. timer may be NULL where policy->autotune < 2.
 * Owner: free with nnc_dnn_plan_free().
 * Errors: -ENOTSUP when no configuration passes the policy, naming shape, type and what would work;
 *         -NNC_E_HARDWARE, -ENOMEM; those of the timer. */
int nnc_dnn_select(struct nnc_dnn_device *device, const struct nnc_dnn_key *key,
                   const struct nnc_dnn_policy *policy, const struct nnc_dnn_timer *timer,
                   struct nnc_dnn_plan **ret_plan);

/* Takes NULL. */
void nnc_dnn_plan_free(struct nnc_dnn_plan *plan);

size_t nnc_dnn_plan_workspace(const struct nnc_dnn_plan *plan); /* bytes */
uint32_t nnc_dnn_plan_notes(const struct nnc_dnn_plan *plan);   /* NNC_DNN_* bits */
int64_t nnc_dnn_plan_engine(const struct nnc_dnn_plan *plan);   /* cuDNN's global index */

/* A plan as text, and back: the plan cache, and how all ranks run the same engines.
 * key: the one that the text was made for. Nobody compares them: cuDNN does not tell the shape of a
 * plan, so whoever keeps texts keeps them with their keys (plan_cache.h).
 * Owner: caller frees the text. Errors: -NNC_E_FORMAT when cuDNN refuses the text, as it does those
 * of another version or device; -ENOMEM. */
int nnc_dnn_plan_text(const struct nnc_dnn_plan *plan, char **ret_text);
int nnc_dnn_plan_load(struct nnc_dnn_device *device, const struct nnc_dnn_key *key,
                      const char *text, struct nnc_dnn_plan **ret_plan);

/* Device memory of one execution; bias and workspace NULL where unused. */
struct nnc_dnn_memory {
    void *x, *w, *y;
    const void *bias; /* k values of the key's type */
    void *workspace;  /* nnc_dnn_plan_workspace() bytes */
};

/* Queue the plan on the stream. Errors: -NNC_E_HARDWARE with cuDNN's words. */
int nnc_dnn_execute(struct nnc_dnn_device *device, const struct nnc_dnn_plan *plan,
                    cudaStream_t stream, const struct nnc_dnn_memory *memory);

#endif
