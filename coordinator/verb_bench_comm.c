/* SPDX-License-Identifier: Apache-2.0 */
/* bench comm: what the ranks measured, as bandwidths.
 *
 *   algorithm = bytes / seconds              what a caller gets
 *   bus       = algorithm * 2 (n-1) / n      what each rank's link carries, whatever n is
 *   overlap   = 1 - (step together - step alone) / sums of the gradients
 *
 * Source: nccl-tests, doc/PERFORMANCE.md (algorithm and bus bandwidth of AllReduce). */
#include "coordinator/verbs.h"

#include "base/err.h"
#include "base/model_dir.h"
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
    struct nnc_msg_comm size[SIZES_MAX];
    uint32_t size_count;
    struct nnc_msg_comm other[NNC_COMM_FIGURES]; /* by enum nnc_comm_figure; repeats 0: none */
};

static void on_comm(void *context, const struct nnc_msg_comm *message) {
    struct figures *figures = context;
    if (message->figure != NNC_COMM_SUM) {
        figures->other[message->figure] = *message;
    } else if (figures->size_count < SIZES_MAX) {
        figures->size[figures->size_count++] = *message;
    }
}

static double algorithm_rate(const struct nnc_msg_comm *figure) {
    return (double)figure->bytes / (figure->seconds + 1e-12);
}

static double bus_rate(const struct nnc_msg_comm *figure, uint32_t ranks) {
    return algorithm_rate(figure) * 2 * (ranks - 1) / ranks;
}

static double overlap_of(const struct figures *figures) {
    double longer =
        figures->other[NNC_COMM_TOGETHER].seconds - figures->other[NNC_COMM_ALONE].seconds;
    return 1 - longer / (figures->other[NNC_COMM_GRADIENTS].seconds + 1e-12);
}

static void print_size(const struct nnc_msg_comm *figure, uint32_t ranks, const char *note) {
    fprintf(stderr, "%12" PRIu64 "  %10.1f us  %9.2f GB/s  %9.2f GB/s%s\n", figure->bytes,
            figure->seconds * 1e6, algorithm_rate(figure) * 1e-9, bus_rate(figure, ranks) * 1e-9,
            note);
}

static void print_table(const struct figures *figures, const struct nnc_run_result *result) {
    uint32_t ranks = result->plan.schedule.ranks;
    fprintf(stderr, "%12s  %13s  %14s  %14s\n", "bytes", "time", "algorithm", "bus");
    for (uint32_t i = 0; i < figures->size_count; i++) {
        print_size(&figures->size[i], ranks, "");
    }
    print_size(&figures->other[NNC_COMM_GRADIENTS], ranks, "  all gradients");
    fprintf(stderr,
            "a step takes %.2f ms alone and %.2f ms with %" PRIu32
            " ranks, the sums alone %.2f ms: overlap %.0f %%\n",
            figures->other[NNC_COMM_ALONE].seconds * 1e3,
            figures->other[NNC_COMM_TOGETHER].seconds * 1e3, ranks,
            figures->other[NNC_COMM_GRADIENTS].seconds * 1e3, 100 * overlap_of(figures));
}

static json_t *size_json(const struct nnc_msg_comm *figure, uint32_t ranks) {
    return json_pack("{s:I, s:f, s:f, s:f, s:i}", "bytes", (json_int_t)figure->bytes, "seconds",
                     figure->seconds, "algorithm_bytes_per_s", algorithm_rate(figure),
                     "bus_bytes_per_s", bus_rate(figure, ranks), "repeats", (int)figure->repeats);
}

static int print_json(const struct nnc_config *config, const struct figures *figures,
                      const struct nnc_run_result *result) {
    uint32_t ranks = result->plan.schedule.ranks;
    json_t *sizes = json_array();
    for (uint32_t i = 0; i < figures->size_count; i++) {
        json_array_append_new(sizes, size_json(&figures->size[i], ranks));
    }
    return nnc_verb_print_json(json_pack(
        "{s:s, s:s, s:i, s:i, s:o, s:o, s:f, s:f, s:f}", "model", config->model, "backend",
        result->backend_note, "ranks", (int)ranks, "batch_size", (int)result->plan.schedule.batch,
        "sizes", sizes, "gradients", size_json(&figures->other[NNC_COMM_GRADIENTS], ranks),
        "step_alone_seconds", figures->other[NNC_COMM_ALONE].seconds, "step_seconds",
        figures->other[NNC_COMM_TOGETHER].seconds, "overlap", overlap_of(figures)));
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
    struct figures figures = {.size_count = 0};
    struct nnc_run_result result;
    struct nnc_run_params params = {.config = config,
                                    .mode = NNC_MODE_BENCH_COMM,
                                    .machine = &context->machine,
                                    .on_comm = on_comm,
                                    .context = &figures};
    int code = check_ranks(config);
    code = code < 0 ? code
                    : nnc_model_resolve(config->model, NULL, params.model_path,
                                        sizeof(params.model_path));
    code = code < 0 ? code : nnc_run(&params, context->started_ns, &result);
    if (code < 0 || config->node_rank != 0) {
        return code; /* node 0 has the figures */
    }
    if (result.plan.schedule.ranks < 2) {
        return nnc_fail(-NNC_E_USAGE, "bench comm measures between ranks, and one GPU is one");
    }
    if (figures.other[NNC_COMM_GRADIENTS].repeats == 0) {
        return nnc_fail(-NNC_E_CHILD, "the ranks stopped before all was measured");
    }
    fprintf(stderr, "%s, %" PRIu32 " ranks, batch %" PRIu32 ", %s\n", config->model,
            result.plan.schedule.ranks, result.plan.schedule.batch, result.backend_note);
    print_table(&figures, &result);
    return config->json ? print_json(config, &figures, &result) : 0;
}
