/* SPDX-License-Identifier: Apache-2.0 */
/* A backend executes training programs on one device: a table of functions at the level of a whole
 * program. cpu/reference.c is the definition of correct, cpu/onednn*.c the fast one for CPUs, a
 * plug-in the one for GPUs. Whatever knows an operation lives behind this table, whatever knows
 * epochs, ranks, schedules or files lives in front of it.
 *
 * A host backend works on return; a device backend queues, and has a second table for that.
 *
 * One backend holds the state of one model: weights, gradients, momentum, buffers. Several
 * executables (training with the full batch, with the short last one, evaluation) share that state
 * and one arena. One thread calls everything. All functions return >= 0 or a negative code. */
#ifndef NNC_WORKERS_BACKEND_H
#define NNC_WORKERS_BACKEND_H

#include "base/config.h"
#include "ipc/device.h"
#include "workers/program.h"

struct nnc_backend;
struct nnc_executable;

/* What a device backend does with its device; host backends have none. */
struct nnc_device_params {
    uint32_t ordinal;       /* number on this machine, as the driver counts */
    int32_t amp;            /* enum nnc_amp */
    bool deterministic;     /* only algorithms that give the same bits each time */
    bool graphs;            /* queue a step as one recorded graph */
    uint32_t autotune;      /* algorithms to time for each convolution; 0: take the first */
    size_t workspace_bytes; /* at most so much scratch memory for one operation */
    const char *cache_dir;  /* where chosen algorithms are kept; NULL: nowhere */
};

/* Loss scaling of a run in fp16, part of its state; scale 1 and 0 steps elsewhere. */
struct nnc_loss_scale {
    float scale;
    uint32_t good_steps; /* since it last changed */
};

/* What a device computes in, for ranks to compare. */
struct nnc_device_type {
    int32_t amp;   /* enum nnc_amp, never AUTO */
    char name[64]; /* of the device: "NVIDIA H100 80GB HBM3" */
};

#define NNC_COMM_ID_BYTES 128

struct nnc_backend_params {
    const struct nnc_graph *graph; /* borrowed for the backend's life */
    uint32_t threads;              /* compute threads; >= 1 */
    int32_t loss;                  /* enum nnc_loss */
    double label_smoothing;        /* cross-entropy: (1-s) onehot + s/K, as PyTorch */
    uint64_t seed;                 /* dropout key */
    double mean[3], std[3];        /* INPUT */
    uint32_t rank, ranks;          /* ranks >= 1; of the communicator */
    struct nnc_device_params device;
    /* Called in every slice of a wait for the device (at most 10 ms apart); negative ends the wait
     * with that code. May be NULL. */
    int (*alive)(void *context);
    void *context;
};

/* One batch as it lies in the ring. */
struct nnc_feed {
    const uint8_t *images; /* u8; sample i at images + i * sample_stride, (H,W,C) packed */
    size_t sample_stride;  /* bytes */
    const int32_t *labels; /* i32 (N); -1: sample without label, adds neither loss nor gradient */
};

struct nnc_step_params {
    uint64_t step;  /* global training step: dropout counter */
    uint32_t first; /* place of this rank's first sample in the global batch: dropout counter */
    /* Samples of this step over all ranks: gradients are d(loss sum) / global_count. */
    uint32_t global_count;
    bool alone; /* sum over no ranks, as if none had been joined */
    /* Called as soon as the gradients of a reduction bucket are final (backward still going on);
     * may be NULL. */
    void (*bucket_ready)(void *context, uint32_t bucket);
    void *context;
};

/* Sums over the batches since the last poll. */
struct nnc_metrics {
    double loss_sum;   /* of per-sample losses (labelled samples) */
    uint64_t count;    /* labelled samples */
    uint64_t left_out; /* samples with label -1 */
    /* Label among the 1 or 5 highest logits; ties count for the lower class. */
    uint64_t correct1, correct5;
};

struct nnc_sgd {
    float lr, momentum;
    bool nesterov;
    /* Weight decay by enum nnc_param_kind (WEIGHT, BIAS, NORM). */
    float weight_decay[3];
    float trust; /* LARS coefficient; 0: plain SGD */
};

/* What LARS multiplies a parameter's step with, from the Euclidean norms of its values and its
 * gradient: WEIGHTs alone are scaled, and none whose norms have nothing to say.
 * Math:   trust * |w| / (|g| + decay * |w|)
 * Source: You, Gitman, Ginsburg, "Large batch training of convolutional networks", arXiv
 *         1708.03888, equation 6. */
static inline float nnc_sgd_ratio(const struct nnc_sgd *sgd, enum nnc_param_kind kind,
                                  double value_norm, double gradient_norm) {
    double below = gradient_norm + (double)sgd->weight_decay[kind] * value_norm;
    bool scales = sgd->trust > 0 && kind == NNC_PARAM_WEIGHT && value_norm > 0 && gradient_norm > 0;
    return scales ? (float)((double)sgd->trust * value_norm / below) : 1;
}

enum nnc_state {
    NNC_STATE_VALUE, /* weights; buffers too */
    NNC_STATE_GRADIENT,
    NNC_STATE_MOMENTUM, /* zero for buffers */
};

struct nnc_backend_ops {
    const char *name;        /* "reference", "onednn", "cuda" */
    const char *description; /* one line for doctor */

    /* Create the state for a graph: values and momentum zero. */
    int (*open)(const struct nnc_backend_params *params, struct nnc_backend **ret_backend);
    void (*close)(struct nnc_backend *backend); /* takes NULL; executables first */

    /* Compile a program of the backend's graph, or of another one with the same parameters (the
     * same model at another image size). The program is borrowed for the executable's life. The
     * first training executable may fix the layout of the state; later ones follow it. */
    int (*compile)(struct nnc_backend *backend, const struct nnc_program *program,
                   struct nnc_executable **ret_executable);
    void (*release)(struct nnc_executable *executable); /* takes NULL */

    /* Take a batch of exactly program->batch samples. The memory may be reused on return, or, in a
     * device backend, when fed() has counted the batch.
     * Errors: -NNC_E_FORMAT for a label outside -1 .. classes - 1, naming sample and label. */
    int (*feed)(struct nnc_executable *executable, const struct nnc_feed *feed);

    /* Forward, loss and backward of the fed batch by a training program: gradients overwrite the
     * old ones, metrics add up, running statistics move. */
    int (*step)(struct nnc_executable *executable, const struct nnc_step_params *params);

    /* Forward and loss of the fed batch by an inference program, which has running statistics and
     * no dropout; metrics add up. */
    int (*evaluate)(struct nnc_executable *executable);

    /* Logits of the last evaluate or step, plain (N, classes). */
    int (*logits)(struct nnc_executable *executable, float *ret_logits);

    /* Metrics since the last poll, and reset them. Device backends give the steps that are done and
     * wait for none: finish() first where all must be in. */
    int (*poll)(struct nnc_backend *backend, struct nnc_metrics *ret_metrics);

    /* w <- w - lr * (...), PyTorch's SGD: d = ratio * (g + wd*w) with nnc_sgd_ratio(); m =
     * momentum*m + d (m = d at first, which equals m = 0 before); w -= lr * (nesterov ? d +
     * momentum*m : m). */
    int (*update)(struct nnc_backend *backend, const struct nnc_sgd *sgd);

    /* Set all gradients to zero (a rank without samples in a step). With a communicator of the
     * backend's own this rank takes part in the step's reductions. */
    int (*zero_gradients)(struct nnc_backend *backend);

    /* A parameter's value, gradient or momentum in plain layout: (K,C,R,S), (K,C), (C). Gradient
     * and momentum of a buffer are got as zeros and cannot be set (-EINVAL). */
    int (*get)(struct nnc_backend *backend, enum nnc_state state, uint32_t param,
               float *ret_values);
    int (*set)(struct nnc_backend *backend, enum nnc_state state, uint32_t param,
               const float *values);

    /* The gradients of a reduction bucket as one flat run of host floats in the backend's own
     * layout, for reduction in place. NULL in device backends: they have a communicator. */
    int (*bucket)(struct nnc_backend *backend, uint32_t bucket, float **ret_values,
                  size_t *ret_count);

    /* Bytes of weights + gradients + momentum + arena. */
    size_t (*memory)(const struct nnc_backend *backend);

    /* NULL in host backends, where every function above has done its work on return. In a device
     * backend feed, step, evaluate, update and zero_gradients only queue it, and what went wrong
     * may be told by a later call; get, set and logits wait. */
    const struct nnc_device_ops *device;
};

/* The part of a table that only devices have. A wait ends early with what params.alive says. After
 * -NNC_E_HARDWARE or -NNC_E_COMM only abort, release and close may be called. */
struct nnc_device_ops {
    /* Devices that can be used, and versions. None at all is no error: ret_devices->why says why,
     * with the words of the driver. ret_devices->loaded is left to the caller. */
    void (*list)(struct nnc_devices *ret_devices);

    /* Make the memory that feeds come from fast to copy from. Errors: -ENOTSUP: the platform
     * refuses; feeds work all the same, through memory of the backend's own. */
    int (*pin)(struct nnc_backend *backend, void *memory, size_t bytes);
    void (*unpin)(struct nnc_backend *backend, void *memory);

    /* Feeds since open whose memory may be reused. Never waits. */
    int (*fed)(struct nnc_backend *backend, uint64_t *ret_feeds);

    /* Wait for everything that was queued. */
    int (*finish)(struct nnc_backend *backend);

    /* The type that tensors and gradients have, which AUTO leaves to the device; the same on all
     * ranks, or their sums are sums of nothing. Errors: -NNC_E_HARDWARE. */
    int (*get_type)(const struct nnc_backend *backend, struct nnc_device_type *ret_type);

    /* A communicator's name, made by rank 0 and told to all; then every rank joins, which waits for
     * all. From then on steps (but those alone) and zero_gradients sum the gradients over the
     * ranks, bucket by bucket, while the backward pass goes on. One rank needs none.
     * Errors: -NNC_E_COMM. */
    int (*comm_id)(uint8_t ret_id[NNC_COMM_ID_BYTES]);
    int (*comm_open)(struct nnc_backend *backend, const uint8_t id[NNC_COMM_ID_BYTES]);

    /* Leave the communicator because a peer is gone; does not wait. */
    void (*comm_abort)(struct nnc_backend *backend);

    /* Tell of an error of what was queued, or of a peer. Never waits; not within a step. */
    int (*look)(struct nnc_backend *backend);

    /* Gradient buckets that are computed, and those that are summed over the ranks, since open: for
     * the diagnosis of a hang. Never waits; may be called from params.alive. */
    void (*progress)(const struct nnc_backend *backend, uint64_t *ret_ready, uint64_t *ret_reduced);

    /* The algorithms that this backend's executables run, as bytes for one that has compiled
     * nothing yet and will run the same, if its device is of the same kind. choices[bytes] is 0,
     * and what is set is written over. Owner: caller frees. Errors: -ENOMEM. */
    int (*get_choices)(struct nnc_backend *backend, char **ret_choices, size_t *ret_bytes);
    void (*set_choices)(struct nnc_backend *backend, char *choices, size_t bytes);

    int (*get_scale)(struct nnc_backend *backend, struct nnc_loss_scale *ret_scale);
    int (*set_scale)(struct nnc_backend *backend, const struct nnc_loss_scale *scale);
};

/* What a plug-in exports under NNC_BACKEND_PLUGIN; it calls nnc_fail() of who loads it. */
struct nnc_backend_plugin {
    const char *(*build_id)(void); /* nnc_build_id() of its build must be that of the program */
    const struct nnc_backend_ops *ops;
};

#define NNC_BACKEND_PLUGIN "nnc_backend_plugin"

/* NULL-ended, best first; what was built in. */
extern const struct nnc_backend_ops *const nnc_backends[];

/* The backend of that kind (enum nnc_device_backend), or an error that says how to get it. CUDA is
 * a plug-in and is never what AUTO means here. */
int nnc_backend_find(int32_t kind, const struct nnc_backend_ops **ret_ops);

/* Load the plug-in "nncoord_NAME.so" that lies beside the running executable. It stays loaded.
 * Errors: -NNC_E_USAGE: it is not there, it needs a library that is not there (in the loader's
 *         words), or it comes from another build. */
int nnc_backend_load(const char *name, const struct nnc_backend_ops **ret_ops);

#endif
