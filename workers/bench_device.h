/* SPDX-License-Identifier: Apache-2.0 */
/* `nncoord bench gpu`: how fast a backend's operations are, beside what the device could do.
 * docs/selftest.md says what the figures mean and do not mean. Host clocks alone, around work that
 * is finished: any backend can be measured. */
#ifndef NNC_WORKERS_BENCH_DEVICE_H
#define NNC_WORKERS_BENCH_DEVICE_H

#include "base/config.h"
#include "workers/backend.h"

/* What is measured on. */
struct nnc_bench_target {
    const struct nnc_backend_ops *ops;
    struct nnc_device_params device;
    uint32_t threads;
    uint32_t value_bytes; /* of a number in a tensor: 2 in mixed precision, else 4 */
    uint32_t repeats;     /* >= 1, of which the median counts */
    bool large;           /* ceilings with tensors for a GPU, not for a CPU */
};

struct nnc_bench_times {
    double feed, step, update;   /* each finished before the next, seconds */
    double best_feed, best_step; /* the shortest ones */
    double whole;                /* all three, one batch after the other */
    size_t memory;               /* of the backend, bytes */
};

/* Train a graph on one random batch. Errors: -ENOMEM; what the backend says. */
int nnc_bench_graph(const struct nnc_bench_target *target, const struct nnc_graph *graph,
                    uint32_t batch, struct nnc_bench_times *ret_times);

/* What the device does when nothing else is asked of it. */
struct nnc_bench_ceilings {
    double feed;   /* bytes of images a second from host memory into the backend */
    double copy;   /* bytes read and written a second by ReLUs of large tensors */
    double matrix; /* floating-point operations a second of large linear layers */
};

/* Errors: as nnc_bench_graph(). */
int nnc_bench_ceilings(const struct nnc_bench_target *target,
                       struct nnc_bench_ceilings *ret_ceilings);

/* One kind of operation of a program, with one shape. */
struct nnc_bench_op {
    char name[96];  /* "CONV 3x3 /2 64x56x56 -> 128x28x28 relu" */
    uint32_t count; /* how often the program has it */
    double seconds; /* forward and backward, of one; >= 0 */
    double floor;   /* the least it can take at the ceilings */
    double flops, bytes;
};

/* Measure each different operation of a training program (INPUT and LOSS left out) in a small graph
 * of its own: what a step takes longer with it than without it.
 * Owner:  *ret_ops with free(). Errors: as nnc_bench_graph(). */
int nnc_bench_ops(const struct nnc_bench_target *target, const struct nnc_program *program,
                  const struct nnc_bench_ceilings *ceilings, struct nnc_bench_op **ret_ops,
                  uint32_t *ret_count);

/* A figure that somebody published. */
struct nnc_published {
    const char *device;     /* part of the driver's name */
    const char *model;      /* as --model names it */
    const char *precision;  /* "mixed", "tf32", "fp32" */
    double lowest, highest; /* images a second, of one device */
    const char *source;
};

/* Ends with a row without device. From bench_published.c. */
extern const struct nnc_published nnc_published[];

/* Whether the row is of the device with this name of the driver's: "NVIDIA A100-SXM4-40GB" is an
 * A100, "NVIDIA GeForce RTX 3090 Ti" is no RTX 3090. */
bool nnc_published_is_of(const struct nnc_published *row, const char *name);

/* The verb. Errors: -NNC_E_USAGE: no such model, backend or device; as nnc_bench_graph(). */
int nnc_bench_device_command(const struct nnc_config *config);

#endif
