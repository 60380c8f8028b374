/* SPDX-License-Identifier: Apache-2.0 */
/* bench comm: what the ranks measured, as bandwidths.
 *
 *   algorithm = bytes / seconds              what a caller gets
 *   bus       = algorithm * 2 (n-1) / n      what each rank's link carries, whatever n is
 *   overlap   = 1 - (step together - step alone) / sums of the gradients, see overlap.h
 *
 * Lines are printed as they are measured: large models take minutes.
 *
 * Source: nccl-tests, doc/PERFORMANCE.md (algorithm and bus bandwidth of AllReduce). */
#include "coordinator/verbs.h"

#include "base/err.h"
#include "base/model_dir.h"
#include "coordinator/overlap.h"
#include "coordinator/run.h"
#include "ipc/gpus.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

enum {
    SIZES_MAX = 32,
};

struct figures {
    const struct nnc_config *config;
    struct nnc_run_result result; /* its plan and backend are known before the first figure */
    struct nnc_msg_comm size[SIZES_MAX];
    uint32_t size_count;
    struct nnc_msg_comm other[NNC_COMM_FIGURES]; /* by enum nnc_comm_figure; repeats 0: none */
    bool begun;                                  /* the heading is printed */
};

static double algorithm_rate(const struct nnc_msg_comm *figure) {
    return (double)figure->bytes / (figure->seconds + 1e-12);
}

static double bus_rate(const struct nnc_msg_comm *figure, uint32_t ranks) {
    return algorithm_rate(figure) * 2 * (ranks - 1) / ranks;
}

static struct nnc_overlap overlap_of(const struct figures *figures) {
    return nnc_overlap_of(&figures->other[NNC_COMM_ALONE], &figures->other[NNC_COMM_TOGETHER],
                          &figures->other[NNC_COMM_GRADIENTS]);
}

/* ---- lines ---- */

static void print_size(const struct nnc_msg_comm *figure, uint32_t ranks, const char *note) {
    fprintf(stderr, "%12" PRIu64 "  %10.1f us  %9.2f GB/s  %9.2f GB/s%s\n", figure->bytes,
            figure->seconds * 1e6, algorithm_rate(figure) * 1e-9, bus_rate(figure, ranks) * 1e-9,
            note);
}

static void print_heading(const struct figures *figures) {
    const struct nnc_schedule *schedule = &figures->result.plan.schedule;
    fprintf(stderr, "%s, %" PRIu32 " ranks, batch %" PRIu32 ", %s\n", figures->config->model,
            schedule->ranks, schedule->batch, figures->result.backend_note);
    fprintf(stderr, "%12s  %13s  %14s  %14s\n", "bytes", "time", "algorithm", "bus");
}

static void print_steps(const struct figures *figures, uint32_t ranks) {
    struct nnc_overlap overlap = overlap_of(figures);
    double sums_ms = figures->other[NNC_COMM_GRADIENTS].seconds * 1e3;
    fprintf(stderr,
            "a step takes %.2f ms alone and %.2f ms with %" PRIu32 " ranks, the sums alone %.2f "
            "ms\n",
            figures->other[NNC_COMM_ALONE].seconds * 1e3,
            figures->other[NNC_COMM_TOGETHER].seconds * 1e3, ranks, sums_ms);
    if (overlap.known) {
        fprintf(stderr, "overlap: %.0f %% (a step varies by %.2f ms)\n", 100 * overlap.share,
                overlap.varies * 1e3);
    } else if (figures->other[NNC_COMM_TOGETHER].repeats < 2) {
        fputs("overlap: not measurable with one step; --bench-steps 10\n", stderr);
    } else {
        fprintf(stderr,
                "overlap: not measurable, a step varies by %.2f ms and the sums take %.2f ms\n",
                overlap.varies * 1e3, sums_ms);
    }
}

/* Every figure but those of steps is a line of the table; they come last, the one together behind
 * the one alone. */
static void print_figure(const struct figures *figures, const struct nnc_msg_comm *figure) {
    uint32_t ranks = figures->result.plan.schedule.ranks;
    switch ((enum nnc_comm_figure)figure->figure) {
    case NNC_COMM_SUM:
        print_size(figure, ranks, "");
        break;
    case NNC_COMM_GRADIENTS:
        print_size(figure, ranks, "  all gradients");
        fprintf(stderr,
                "%" PRIu32 " steps alone and %" PRIu32 " with %" PRIu32 " ranks, in turns ...\n",
                figure->repeats, figure->repeats, ranks);
        break;
    case NNC_COMM_TOGETHER:
        print_steps(figures, ranks);
        break;
    case NNC_COMM_ALONE:
    case NNC_COMM_FIGURES:
        break;
    }
}

static void on_comm(void *context, const struct nnc_msg_comm *message) {
    struct figures *figures = context;
    if (figures->result.plan.schedule.ranks < 2) {
        return; /* refused at the end of the run */
    }
    if (!figures->begun) {
        print_heading(figures);
        figures->begun = true;
    }
    if (message->figure != NNC_COMM_SUM) {
        figures->other[message->figure] = *message;
    } else if (figures->size_count < SIZES_MAX) {
        figures->size[figures->size_count++] = *message;
    }
    print_figure(figures, message);
}

/* ---- JSON ---- */

static json_t *size_json(const struct nnc_msg_comm *figure, uint32_t ranks) {
    return json_pack("{s:I, s:f, s:f, s:f, s:i}", "bytes", (json_int_t)figure->bytes, "seconds",
                     figure->seconds, "algorithm_bytes_per_s", algorithm_rate(figure),
                     "bus_bytes_per_s", bus_rate(figure, ranks), "repeats", (int)figure->repeats);
}

static int print_json(const struct figures *figures) {
    const struct nnc_schedule *schedule = &figures->result.plan.schedule;
    const struct nnc_msg_comm *other = figures->other;
    struct nnc_overlap overlap = overlap_of(figures);
    json_t *sizes = json_array();
    for (uint32_t i = 0; i < figures->size_count; i++) {
        json_array_append_new(sizes, size_json(&figures->size[i], schedule->ranks));
    }
    return nnc_verb_print_json(
        json_pack("{s:s, s:s, s:i, s:i, s:o, s:o, s:f, s:f, s:f, s:o}", "model",
                  figures->config->model, "backend", figures->result.backend_note, "ranks",
                  (int)schedule->ranks, "batch_size", (int)schedule->batch, "sizes", sizes,
                  "gradients", size_json(&other[NNC_COMM_GRADIENTS], schedule->ranks),
                  "step_alone_seconds", other[NNC_COMM_ALONE].seconds, "step_seconds",
                  other[NNC_COMM_TOGETHER].seconds, "step_varies_seconds", overlap.varies,
                  "overlap", overlap.known ? json_real(overlap.share) : json_null()));
}

static int check_ranks(const struct nnc_config *config) {
    if (nnc_gpus_wanted(config) || config->cpu_ranks >= 2 || config->nnodes >= 2) {
        return 0;
    }
    return nnc_fail(-NNC_E_USAGE,
                    "bench comm measures between ranks: give --gpus all, --cpu-ranks 2 or "
                    "--nnodes 2");
}

int nnc_verb_bench_comm(const struct nnc_verb_context *context) {
    const struct nnc_config *config = &context->command->config;
    struct figures figures = {.config = config};
    struct nnc_run_params params = {.config = config,
                                    .mode = NNC_MODE_BENCH_COMM,
                                    .machine = &context->machine,
                                    .on_comm = on_comm,
                                    .context = &figures};
    int code = check_ranks(config);
    code = code < 0 ? code
                    : nnc_model_resolve(config->model, NULL, params.model_path,
                                        sizeof(params.model_path));
    code = code < 0 ? code : nnc_run(&params, context->started_ns, &figures.result);
    if (code < 0 || config->node_rank != 0) {
        return code; /* node 0 has the figures */
    }
    if (figures.result.plan.schedule.ranks < 2) {
        return nnc_fail(-NNC_E_USAGE, "bench comm measures between ranks, and one GPU is one");
    }
    if (figures.other[NNC_COMM_TOGETHER].repeats == 0) {
        return nnc_fail(-NNC_E_CHILD, "the ranks stopped before all was measured");
    }
    return config->json ? print_json(&figures) : 0;
}
