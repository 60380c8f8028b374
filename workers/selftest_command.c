/* SPDX-License-Identifier: Apache-2.0 */
/* The verb selftest: which devices, in which precisions, and the table.
 *
 *   CPU     fp32, and with --cpu-ranks N the checks of N ranks
 *   GPUs    each chosen one in fp32 (TF32 products where the device has them) and in the 16-bit
 *           type that training takes, or in what --amp says alone; then the ranks together
 *
 * A table goes to standard output; with --json it goes to standard error. A device that hangs in a
 * case, or while devices are looked for, is named after --step-timeout, and nothing behind it is
 * checked. What is known by then is printed, by the thread of the watch: the lock of the report
 * keeps it whole. */
#include "base/err.h"
#include "base/model_dir.h"
#include "workers/probe_device.h"
#include "workers/selftest.h"
#include "workers/selftest_watch.h"

#include <inttypes.h>
#include <jansson.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#define MODEL "resnet50"

struct report {
    FILE *table; /* NULL: none */
    bool quiet;  /* only failures */
    uint64_t seed;
    struct nnc_selftest_watch *watch;
    char device[128];     /* whose lines come */
    pthread_mutex_t lock; /* of all below */
    const char *backend;  /* NULL: not opened yet */
    json_t *checks;       /* NULL: no JSON is wanted, or it is printed */
    uint32_t told, failed, skipped;
    char first[208]; /* that failed */
};

static const char *const status_names[] = {
    [NNC_SELFTEST_OK] = "ok", [NNC_SELFTEST_FAIL] = "FAIL", [NNC_SELFTEST_SKIPPED] = "skipped"};

static void print_line(const struct report *report, const struct nnc_selftest_line *line) {
    char figures[32] = "";
    if (line->limit >= 0) {
        snprintf(figures, sizeof(figures), "%9.1e  %7.1e", line->error, line->limit);
    }
    fprintf(report->table, "%-4s  %-36s %5" PRIu32 "  %-18s  %s\n",
            nnc_precision_name(line->precision), line->check, line->cases, figures,
            status_names[line->status]);
    if (line->text[0] != '\0') {
        fprintf(report->table, "      %s\n", line->text);
    }
    fflush(report->table);
}

static void keep_line(struct report *report, const struct nnc_selftest_line *line) {
    report->told++;
    report->skipped += line->status == NNC_SELFTEST_SKIPPED;
    if (line->status == NNC_SELFTEST_FAIL && report->failed++ == 0) {
        snprintf(report->first, sizeof(report->first), "%s, %s: %s", report->device,
                 nnc_precision_name(line->precision), line->check);
    }
    if (report->checks == NULL) {
        return;
    }
    json_t *entry =
        json_pack("{s:s, s:s, s:s, s:i, s:s, s:s}", "device", report->device, "precision",
                  nnc_precision_name(line->precision), "check", line->check, "cases",
                  (int)line->cases, "status", status_names[line->status], "text", line->text);
    if (line->limit >= 0) {
        json_object_set_new(entry, "error", json_real(line->error));
        json_object_set_new(entry, "limit", json_real(line->limit));
    }
    json_array_append_new(report->checks, entry);
}

static void on_line(void *context, const struct nnc_selftest_line *line) {
    struct report *report = context;
    pthread_mutex_lock(&report->lock);
    keep_line(report, line);
    pthread_mutex_unlock(&report->lock);
    if (report->table != NULL && (!report->quiet || line->status == NNC_SELFTEST_FAIL)) {
        print_line(report, line);
    }
}

static void on_case(void *context, enum nnc_precision precision, const char *name) {
    const struct report *report = context;
    char what[300];
    snprintf(what, sizeof(what), "%s, %s: %s", report->device, nnc_precision_name(precision), name);
    nnc_selftest_watch_case(report->watch, what);
}

static void announce(struct report *report, const char *device) {
    snprintf(report->device, sizeof(report->device), "%s", device);
    if (report->table != NULL && !report->quiet) {
        fprintf(report->table, "%s\n", device);
        fprintf(report->table, "      %-36s cases      error    limit\n", "check");
        fflush(report->table); /* a device that hangs ends the process without that */
    }
}

/* ---- devices and precisions ---- */

static void check_devices(const struct nnc_probe *probe, struct nnc_selftest_params *params,
                          struct report *report) {
    for (uint32_t number = 0; number < probe->count; number++) {
        int32_t amps[2];
        uint32_t amp_count = nnc_probe_amps(probe, number, amps);
        announce(report, probe->title[number]);
        for (uint32_t i = 0; i < amp_count; i++) {
            params->ranks = 1;
            params->device[0] = nnc_probe_params(probe, number, amps[i]);
            params->precision = nnc_probe_precision(probe, number, amps[i]);
            nnc_selftest_device(params);
        }
    }
}

static void check_ranks(const struct nnc_probe *probe, struct nnc_selftest_params *params,
                        struct report *report) {
    char title[64];
    int32_t amps[2];
    uint32_t last = nnc_probe_amps(probe, 0, amps) - 1; /* the one that training takes */
    params->ranks = probe->ranks;
    params->precision = nnc_probe_precision(probe, 0, amps[last]);
    for (uint32_t rank = 0; rank < probe->count; rank++) {
        params->device[rank] = nnc_probe_params(probe, rank, amps[last]);
    }
    snprintf(title, sizeof(title), "%" PRIu32 " ranks of %s", probe->ranks, probe->ops->name);
    announce(report, title);
    nnc_selftest_ranks(params);
}

/* ---- the end ---- */

/* hung: the case that did not end; NULL: all did. Once: the watch may come while it is printed. */
static int print_json(struct report *report, const char *hung) {
    int code = 0;
    pthread_mutex_lock(&report->lock);
    if (report->checks != NULL) {
        json_t *object = json_pack("{s:s?, s:I, s:i, s:O, s:s*}", "backend", report->backend,
                                   "seed", (json_int_t)report->seed, "failed", (int)report->failed,
                                   "checks", report->checks, "hung", hung);
        if (object != NULL) {
            json_dumpf(object, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(6));
            putchar('\n');
            fflush(stdout);
        } else {
            code =
                nnc_fail(-NNC_E_FORMAT, "a result is no UTF-8 text and cannot be printed as JSON");
        }
        json_decref(object);
        json_decref(report->checks);
        report->checks = NULL;
    }
    pthread_mutex_unlock(&report->lock);
    return code;
}

static void on_hang(void *context, const char *what) {
    print_json(context, what);
}

static int check_all(const struct nnc_config *config, struct report *report) {
    char model[NNC_PATH_MAX];
    struct nnc_probe probe;
    struct nnc_selftest_params params = {.threads = config->threads, .seed = config->seed};
    nnc_selftest_watch_case(report->watch, "opening the devices");
    int code = nnc_probe_open(config, &probe);
    code = code < 0 ? code : nnc_backend_find(NNC_BACKEND_REFERENCE, &params.reference);
    code = code < 0 ? code : nnc_model_resolve(MODEL, NULL, model, sizeof(model));
    if (code < 0) {
        return code;
    }
    pthread_mutex_lock(&report->lock);
    report->backend = probe.ops->name;
    pthread_mutex_unlock(&report->lock);
    params.ops = probe.ops;
    params.model_path = model;
    params.on_case = on_case;
    params.on_line = on_line;
    params.context = report;
    check_devices(&probe, &params, report);
    if (probe.ranks >= 2) {
        check_ranks(&probe, &params, report);
    }
    return 0;
}

int nnc_selftest_command(const struct nnc_config *config) {
    struct report report = {.table = config->json ? stderr : stdout,
                            .quiet = config->quiet,
                            .seed = config->seed,
                            .lock = PTHREAD_MUTEX_INITIALIZER,
                            .checks = config->json ? json_array() : NULL};
    int code = nnc_selftest_watch_start(config->step_timeout, on_hang, &report, &report.watch);
    code = code < 0 ? code : check_all(config, &report);
    nnc_selftest_watch_stop(report.watch);
    if (code >= 0) {
        code = print_json(&report, NULL);
    }
    json_decref(report.checks);
    if (code >= 0 && report.failed > 0) {
        code = nnc_fail(-NNC_E_GOAL, "%" PRIu32 " of %" PRIu32 " checks failed, the first: %s",
                        report.failed, report.told, report.first);
    }
    if (code >= 0) {
        fprintf(report.table, "all %" PRIu32 " checks are well, %" PRIu32 " skipped\n",
                report.told - report.skipped, report.skipped);
    }
    return code;
}
