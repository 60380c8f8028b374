/* SPDX-License-Identifier: Apache-2.0 */
/* The verb bench gpu: ceilings of each device, then each model's operations and whole step, as text
 * or as JSON. What others published is marked so, and stands apart from what was measured. */
#include "base/err.h"
#include "base/model_dir.h"
#include "workers/bench_device.h"
#include "workers/probe_device.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    REPEATS = 10, /* when the configuration leaves it open */
    BUCKET_BYTES = 8 << 20,
};

/* One model on one device. */
struct outcome {
    const char *model;
    const struct nnc_graph *graph;
    uint32_t batch;
    struct nnc_bench_times times;
    struct nnc_bench_op *ops;
    uint32_t op_count;
    double images_per_s;
    double step_flops;    /* a second, of multiplications in the model's layers */
    double mfu;           /* share of the device's peak; < 0: the peak is not known */
    double ceiling_share; /* of the matrix ceiling */
};

struct report {
    const struct nnc_config *config;
    const struct nnc_probe *probe;
    uint32_t number; /* of the device */
    enum nnc_precision precision;
    struct nnc_bench_target target;
    struct nnc_bench_ceilings ceilings;
    FILE *table;
    json_t *models; /* NULL without --json */
};

/* ---- text ---- */

static void print_ceilings(const struct report *report) {
    fprintf(report->table,
            "%s, %s\n"
            "ceilings: feeding %.2f GB/s, copying %.2f GB/s, multiplying %.3f TFLOP/s\n",
            report->probe->title[report->number], nnc_precision_name(report->precision),
            report->ceilings.feed * 1e-9, report->ceilings.copy * 1e-9,
            report->ceilings.matrix * 1e-12);
}

static void print_ops(const struct report *report, const struct outcome *outcome) {
    double sum = 0;
    fprintf(report->table, "%-52s %5s %10s %10s %7s %7s\n", "operation", "count", "each ms",
            "floor ms", "x floor", "of step");
    for (uint32_t i = 0; i < outcome->op_count; i++) {
        const struct nnc_bench_op *op = &outcome->ops[i];
        double all = op->seconds * op->count;
        fprintf(report->table, "%-52s %5" PRIu32 " %10.3f %10.3f %7.1f %6.1f%%\n", op->name,
                op->count, op->seconds * 1e3, op->floor * 1e3, op->seconds / op->floor,
                100 * all / outcome->times.step);
        sum += all;
    }
    fprintf(report->table, "%-52s %5s %10.3f %28.1f%%\n", "sum", "", sum * 1e3,
            100 * sum / outcome->times.step);
}

static void print_whole(const struct report *report, const struct outcome *outcome) {
    const struct nnc_bench_times *times = &outcome->times;
    fprintf(report->table,
            "%s, batch %" PRIu32 ": %.1f images/s; one batch: feed %.3f ms, step %.3f ms, update "
            "%.3f ms; %.3f TFLOP/s, %.1f %% of the matrix ceiling",
            outcome->model, outcome->batch, outcome->images_per_s, times->feed * 1e3,
            times->step * 1e3, times->update * 1e3, outcome->step_flops * 1e-12,
            100 * outcome->ceiling_share);
    if (outcome->mfu >= 0) {
        fprintf(report->table, ", MFU %.1f %%", 100 * outcome->mfu);
    }
    fprintf(report->table, "; memory %.2f GiB\n", (double)times->memory / (1 << 30));
}

/* ---- what others published ---- */

static bool matches(const struct nnc_published *row, const struct report *report,
                    const char *model) {
    return report->probe->on_device && strcmp(row->model, model) == 0 &&
           nnc_published_is_of(row, report->probe->info[report->number].name);
}

static void compare(const struct report *report, const char *model, json_t *object) {
    json_t *list = json_array();
    for (const struct nnc_published *row = nnc_published; row->device != NULL; row++) {
        if (!matches(row, report, model)) {
            continue;
        }
        fprintf(report->table, "published, not measured here: %s %s %s: %g", row->device,
                row->model, row->precision, row->lowest);
        if (row->highest > row->lowest) {
            fprintf(report->table, " to %g", row->highest);
        }
        fprintf(report->table, " images/s (%s)\n", row->source);
        json_array_append_new(list, json_pack("{s:s, s:s, s:f, s:f, s:s}", "device", row->device,
                                              "precision", row->precision, "lowest_images_per_s",
                                              row->lowest, "highest_images_per_s", row->highest,
                                              "source", row->source));
    }
    if (json_array_size(list) == 0) {
        fprintf(report->table, "published: nothing is known for %s on this device\n", model);
    }
    if (object != NULL) {
        json_object_set_new(object, "published_not_measured", list);
    } else {
        json_decref(list);
    }
}

/* ---- JSON ---- */

static json_t *ops_json(const struct outcome *outcome) {
    json_t *list = json_array();
    for (uint32_t i = 0; i < outcome->op_count; i++) {
        const struct nnc_bench_op *op = &outcome->ops[i];
        json_array_append_new(list,
                              json_pack("{s:s, s:i, s:f, s:f, s:f, s:f}", "name", op->name, "count",
                                        (int)op->count, "seconds", op->seconds, "floor_seconds",
                                        op->floor, "flops", op->flops, "bytes", op->bytes));
    }
    return list;
}

static json_t *outcome_json(const struct outcome *outcome) {
    const struct nnc_bench_times *times = &outcome->times;
    json_t *mfu = outcome->mfu < 0 ? json_null() : json_real(outcome->mfu);
    return json_pack(
        "{s:s, s:i, s:f, s:f, s:f, s:f, s:f, s:f, s:o, s:I, s:o}", "model", outcome->model,
        "batch_size", (int)outcome->batch, "images_per_s", outcome->images_per_s, "feed_seconds",
        times->feed, "step_seconds", times->step, "update_seconds", times->update, "flops_per_s",
        outcome->step_flops, "matrix_ceiling_share", outcome->ceiling_share, "mfu", mfu,
        "memory_bytes", (json_int_t)times->memory, "operations", ops_json(outcome));
}

static json_t *device_json(const struct report *report) {
    return json_pack("{s:s, s:s, s:s, s:{s:f, s:f, s:f}, s:O}", "device",
                     report->probe->title[report->number], "backend", report->probe->ops->name,
                     "precision", nnc_precision_name(report->precision), "ceilings",
                     "feed_bytes_per_s", report->ceilings.feed, "copy_bytes_per_s",
                     report->ceilings.copy, "matrix_flops_per_s", report->ceilings.matrix, "models",
                     report->models);
}

/* ---- measuring ---- */

static void rate(const struct report *report, struct outcome *outcome) {
    double peak = report->probe->info[report->number].peak_flops;
    bool is_mixed = report->target.value_bytes == 2; /* the peak is of such products */
    double forward = 0;
    for (uint32_t node = 0; node < outcome->graph->node_count; node++) {
        forward += (double)outcome->graph->nodes[node].flops;
    }
    outcome->images_per_s = outcome->batch / outcome->times.whole;
    outcome->step_flops = 3 * forward * outcome->images_per_s; /* backward is twice forward */
    outcome->ceiling_share = outcome->step_flops / report->ceilings.matrix;
    outcome->mfu = peak > 0 && is_mixed ? outcome->step_flops / peak : -1;
}

static int measure(const struct report *report, struct outcome *outcome) {
    struct nnc_program *program;
    const struct nnc_program_params params = {outcome->graph, outcome->batch, true, BUCKET_BYTES};
    int code = nnc_program_create(&params, &program);
    if (code < 0) {
        return code;
    }
    code = nnc_bench_graph(&report->target, outcome->graph, outcome->batch, &outcome->times);
    code = code < 0 ? code
                    : nnc_bench_ops(&report->target, program, &report->ceilings, &outcome->ops,
                                    &outcome->op_count);
    nnc_program_destroy(program);
    return code;
}

static int read_input(const struct nnc_config *config, struct nnc_shape *ret_input) {
    struct nnc_shape input = {.c = 0}; /* as the model's text has it */
    if (config->input[0] != '\0' && sscanf(config->input, "%" SCNu32 "x%" SCNu32 "x%" SCNu32,
                                           &input.c, &input.h, &input.w) != 3) {
        return nnc_fail(-NNC_E_USAGE, "--input %s: write CHANNELSxHEIGHTxWIDTH", config->input);
    }
    *ret_input = input;
    return 0;
}

static int bench_model(struct report *report, const char *model) {
    char path[NNC_PATH_MAX];
    struct nnc_graph *graph = NULL;
    struct outcome outcome = {.model = model, .batch = report->config->batch_size};
    struct nnc_graph_params text = {.path = path, .model_args = report->config->model_args};
    int code = read_input(report->config, &text.input);
    code = code < 0 ? code : nnc_model_resolve(model, NULL, path, sizeof(path));
    code = code < 0 ? code : nnc_graph_create(&text, &graph);
    outcome.graph = graph;
    code = code < 0 ? code : measure(report, &outcome);
    if (code >= 0) {
        json_t *object = NULL;
        rate(report, &outcome);
        print_ops(report, &outcome);
        print_whole(report, &outcome);
        if (report->models != NULL) {
            object = outcome_json(&outcome);
            json_array_append_new(report->models, object);
        }
        if (report->config->compare) {
            compare(report, model, object);
        }
    }
    free(outcome.ops);
    nnc_graph_destroy(graph);
    return code < 0 ? nnc_fail_in(code, "%s", model) : 0;
}

static int bench_models(struct report *report) {
    char **names = NULL;
    size_t count = 0;
    if (strcmp(report->config->model, "all") != 0) {
        return bench_model(report, report->config->model);
    }
    int code = nnc_model_names(NULL, &names, &count);
    for (size_t i = 0; code >= 0 && i < count; i++) {
        code = bench_model(report, names[i]);
    }
    nnc_model_names_free(names, count);
    return code;
}

static int bench_device(struct report *report) {
    const struct nnc_probe *probe = report->probe;
    const struct nnc_config *config = report->config;
    int32_t amps[2];
    int32_t amp = amps[nnc_probe_amps(probe, report->number, amps) - 1];
    report->precision = nnc_probe_precision(probe, report->number, amp);
    bool is_mixed =
        report->precision == NNC_PRECISION_BF16 || report->precision == NNC_PRECISION_FP16;
    report->target = (struct nnc_bench_target){
        .ops = probe->ops,
        .device = nnc_probe_params(probe, report->number, amp),
        .threads = config->threads,
        .value_bytes = is_mixed ? 2 : 4,
        .repeats = config->bench_steps > 0 ? config->bench_steps : REPEATS,
        .large = probe->on_device};
    int code = nnc_bench_ceilings(&report->target, &report->ceilings);
    if (code < 0) {
        return code;
    }
    print_ceilings(report);
    return bench_models(report);
}

int nnc_bench_device_command(const struct nnc_config *config) {
    struct nnc_probe probe;
    struct report report = {
        .config = config, .probe = &probe, .table = config->json ? stderr : stdout};
    json_t *devices = config->json ? json_array() : NULL;
    int code = nnc_probe_open(config, &probe);
    for (uint32_t number = 0; code >= 0 && number < probe.count; number++) {
        report.number = number;
        report.models = config->json ? json_array() : NULL;
        code = bench_device(&report);
        if (code >= 0 && config->json) {
            json_array_append_new(devices, device_json(&report));
        }
        json_decref(report.models);
    }
    if (code >= 0 && config->json) {
        json_t *object = json_pack("{s:O}", "devices", devices);
        json_dumpf(object, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(10));
        putchar('\n');
        json_decref(object);
    }
    json_decref(devices);
    return code;
}
