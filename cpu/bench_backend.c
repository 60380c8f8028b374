/* SPDX-License-Identifier: Apache-2.0 */
/* A tool for those who tune a backend: train or evaluate one model on random images, without
 * loaders, processes or files, and say where the time went.
 *
 *   bench_backend models/resnet50.nn -i 3x224x224 -b 32 -n 5 -k onednn -t 2 -r
 *
 * One line on stdout: images/s of the median step, of the best one, and the loss of the last step
 * (equal numbers mean equal arithmetic). `nncoord bench train` is the number for users; this one
 * has no rings and no checks. */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/rng.h"
#include "workers/backend.h"
#if NNC_HAVE_ONEDNN
#include "cpu/onednn.h"
#endif

struct options {
    const char *model;
    struct nnc_shape input;
    uint32_t batch, steps, threads;
    int32_t backend;
    bool evaluate, report;
};

struct bench {
    struct options options;
    struct nnc_graph *graph;
    struct nnc_program *program;
    const struct nnc_backend_ops *ops;
    struct nnc_backend *backend;
    struct nnc_executable *executable;
    uint8_t *images;
    int32_t *labels;
    uint64_t *times_ns;
    uint64_t feed_ns, update_ns; /* shortest so far */
};

static int parse_options(int argc, char **argv, struct options *ret_options) {
    struct options options = {.input = {3, 224, 224}, .batch = 32, .steps = 5, .threads = 1};
    int option;
    while ((option = getopt(argc, argv, "i:b:n:k:t:er")) != -1) {
        switch (option) {
        case 'i':
            if (sscanf(optarg, "%ux%ux%u", &options.input.c, &options.input.h, &options.input.w) !=
                3) {
                return nnc_fail(-NNC_E_USAGE, "-i %s: not CxHxW", optarg);
            }
            break;
        case 'b':
            options.batch = (uint32_t)strtoul(optarg, NULL, 10);
            break;
        case 'n':
            options.steps = (uint32_t)strtoul(optarg, NULL, 10);
            break;
        case 'k':
            options.backend =
                strcmp(optarg, "reference") == 0 ? NNC_BACKEND_REFERENCE : NNC_BACKEND_ONEDNN;
            break;
        case 't':
            options.threads = (uint32_t)strtoul(optarg, NULL, 10);
            break;
        case 'e':
            options.evaluate = true;
            break;
        case 'r':
            options.report = true;
            break;
        default:
            return nnc_fail(-NNC_E_USAGE, "usage: bench_backend MODEL.nn [-i CxHxW] [-b BATCH] "
                                          "[-n STEPS] [-k onednn|reference] [-t THREADS] "
                                          "[-e (evaluate)] [-r (report stages)]");
        }
    }
    if (optind + 1 != argc || options.batch == 0 || options.steps == 0 || options.threads == 0) {
        return nnc_fail(-NNC_E_USAGE, "one model text, and numbers above 0");
    }
    options.model = argv[optind];
    *ret_options = options;
    return 0;
}

/* Weights as the model starts with, images and labels at random, the same in every run. */
static int fill(struct bench *bench) {
    const struct nnc_graph *graph = bench->graph;
    size_t sample = (size_t)graph->input.c * graph->input.h * graph->input.w;
    size_t bytes = sample * bench->options.batch;
    bench->images = malloc(bytes);
    bench->labels = malloc(bench->options.batch * sizeof(*bench->labels));
    bench->times_ns = malloc(bench->options.steps * sizeof(*bench->times_ns));
    if (bench->images == NULL || bench->labels == NULL || bench->times_ns == NULL) {
        return nnc_fail(-1, "no memory for a batch");
    }
    struct nnc_rng rng = nnc_rng_make(1, NNC_RNG_SYNTHETIC, 0, 0);
    for (size_t k = 0; k < bytes; k++) {
        bench->images[k] = (uint8_t)nnc_rng_below(&rng, 256);
    }
    for (uint32_t n = 0; n < bench->options.batch; n++) {
        bench->labels[n] = (int32_t)nnc_rng_below(&rng, graph->classes);
    }
    for (uint32_t p = 0; p < graph->param_count; p++) {
        float *values = malloc(graph->params[p].count * sizeof(*values));
        if (values == NULL) {
            return nnc_fail(-1, "no memory for a parameter");
        }
        nnc_graph_init_param(graph, p, 1, values);
        int rc = bench->ops->set(bench->backend, NNC_STATE_VALUE, p, values);
        free(values);
        if (rc < 0) {
            return rc;
        }
    }
    return 0;
}

static int prepare(struct bench *bench) {
    const struct options *options = &bench->options;
    struct nnc_graph_params graph = {.path = options->model, .input = options->input};
    int rc = nnc_graph_create(&graph, &bench->graph);
    if (rc < 0) {
        return rc;
    }
    struct nnc_program_params program = {.graph = bench->graph,
                                         .batch = options->batch,
                                         .training = !options->evaluate,
                                         .bucket_bytes = 25 << 20};
    rc = nnc_program_create(&program, &bench->program);
    if (rc < 0) {
        return rc;
    }
    rc = nnc_backend_find(options->backend, &bench->ops);
    if (rc < 0) {
        return rc;
    }
    struct nnc_backend_params params = {
        .graph = bench->graph,
        .threads = options->threads,
        .mean = {0.485, 0.456, 0.406},
        .std = {0.229, 0.224, 0.225},
    };
    rc = bench->ops->open(&params, &bench->backend);
    if (rc < 0) {
        return rc;
    }
    rc = bench->ops->compile(bench->backend, bench->program, &bench->executable);
    return rc < 0 ? rc : fill(bench);
}

/* Time since begin_ns, if it is the shortest. */
static void keep_shortest(uint64_t begin_ns, uint64_t *shortest_ns) {
    uint64_t ns = nnc_clock_ns() - begin_ns;
    *shortest_ns = *shortest_ns == 0 || ns < *shortest_ns ? ns : *shortest_ns;
}

static int run_step(struct bench *bench, uint32_t number) {
    const struct nnc_backend_ops *ops = bench->ops;
    const struct nnc_graph *graph = bench->graph;
    struct nnc_feed feed = {.images = bench->images,
                            .sample_stride =
                                (size_t)graph->input.c * graph->input.h * graph->input.w,
                            .labels = bench->labels};
    uint64_t begin_ns = nnc_clock_ns();
    int rc = ops->feed(bench->executable, &feed);
    keep_shortest(begin_ns, &bench->feed_ns);
    if (rc < 0 || bench->options.evaluate) {
        return rc < 0 ? rc : ops->evaluate(bench->executable);
    }
    struct nnc_step_params step = {.step = number, .global_count = bench->options.batch};
    struct nnc_sgd sgd = {.lr = 0.01f, .momentum = 0.9f, .weight_decay = {1e-4f, 1e-4f, 1e-4f}};
    rc = ops->step(bench->executable, &step);
    begin_ns = nnc_clock_ns();
    rc = rc < 0 ? rc : ops->update(bench->backend, &sgd);
    keep_shortest(begin_ns, &bench->update_ns);
    return rc;
}

static int by_value(const void *left, const void *right) {
    const uint64_t *a = left;
    const uint64_t *b = right;
    return (*a > *b) - (*a < *b);
}

static int measure(struct bench *bench) {
    struct nnc_metrics metrics;
    uint32_t steps = bench->options.steps;
    int rc = 0;
    for (uint32_t number = 0; rc >= 0 && number < 2 + steps; number++) {
        uint64_t begin_ns = nnc_clock_ns();
        rc = run_step(bench, number);
        if (number >= 2) { /* two to warm up */
            bench->times_ns[number - 2] = nnc_clock_ns() - begin_ns;
        }
        if (rc >= 0) {
            rc = bench->ops->poll(bench->backend, &metrics);
        }
    }
    if (rc < 0) {
        return rc;
    }
    qsort(bench->times_ns, steps, sizeof(*bench->times_ns), by_value);
    double images = 1e9 * bench->options.batch;
    printf("%s %s batch %u threads %u: %.1f images/s median, %.1f best, loss %.6f, %zu MB\n",
           bench->graph->name, bench->ops->name, bench->options.batch, bench->options.threads,
           images / (double)bench->times_ns[steps / 2], images / (double)bench->times_ns[0],
           metrics.loss_sum / (double)metrics.count, bench->ops->memory(bench->backend) >> 20);
#if NNC_HAVE_ONEDNN
    if (bench->options.report && bench->ops == &nnc_backend_onednn) {
        printf("%9.3f ms  feed\n%9.3f ms  update\n", 1e-6 * (double)bench->feed_ns,
               1e-6 * (double)bench->update_ns);
        return nnc_onednn_report(bench->executable, stdout);
    }
#endif
    return 0;
}

int main(int argc, char **argv) {
    struct bench bench = {0};
    int rc = parse_options(argc, argv, &bench.options);
    if (rc >= 0) {
        rc = prepare(&bench);
    }
    if (rc >= 0) {
        rc = measure(&bench);
    }
    if (rc < 0) {
        fprintf(stderr, "bench_backend: %s\n", nnc_error_text());
    }
    if (bench.ops != NULL) {
        bench.ops->release(bench.executable);
        bench.ops->close(bench.backend);
    }
    nnc_program_destroy(bench.program);
    nnc_graph_destroy(bench.graph);
    free(bench.images);
    free(bench.labels);
    free(bench.times_ns);
    return nnc_error_exit_status(rc);
}
