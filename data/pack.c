/* SPDX-License-Identifier: Apache-2.0 */
/* The verb pack: a data set becomes WebDataset shards.
 *
 *   open data set -> DST/pack.json, DST/classes.txt -> shards, several at a time
 *   a shard: read source -> make member -> append, ... -> [read back and compare] -> rename
 *
 *   DST/train-000000.tar, val-000000.tar   (data-000000.tar where the set says neither)
 *   DST/train-000000.idx ...               offsets, for other programs
 *   DST/classes.txt                        names of the classes, line number = label
 *   DST/pack.json                          what was packed and how
 *   in a shard: NUMBER_NAME.EXTENSION, NUMBER_NAME.cls    NUMBER: the sample's in its part
 *
 * 1. A shard under its final name is complete and durable. So an interrupted run goes on by making
 *    the shards that are missing; pack.json keeps that from mixing two data sets or two recipes.
 * 2. A shard's contents depend on the source and the recipe alone, not on threads or interruptions.
 * 3. A bad image is left out, logged and counted; more than --max-bad of them end the run.
 *
 * Does not: delete or overwrite finished shards. */
#include "data/verbs.h"

#include "base/clock.h"
#include "base/err.h"
#include "base/log.h"
#include "base/text.h"
#include "coordinator/dataset.h"
#include "coordinator/dataset_parallel.h"
#include "data/pack_dir.h"
#include "data/pack_shard.h"
#include "data/stop.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PROGRESS_NS 200000000ull

struct pack {
    const struct nnc_config *config;
    struct nnc_dataset *dataset;
    struct nnc_pack_dir *dir;
    struct nnc_pack_recipe recipe;
    const char *part_name[2]; /* by enum nnc_phase */
    uint64_t shards[2];       /* of each part */
    uint64_t samples;         /* of both */
    uint64_t start_ns;
    bool on_terminal;
    _Atomic uint64_t done, bad, bytes_before, bytes_after, skipped;
    _Atomic uint64_t shards_done;
    _Atomic uint64_t next_line_ns; /* of the progress line; whoever moves it prints */
};

/* ---- progress ---- */

static void print_progress(struct pack *pack, uint64_t now_ns) {
    char before[16], after[16], rest[16];
    uint64_t done = atomic_load_explicit(&pack->done, memory_order_relaxed);
    double seconds = (double)(now_ns - pack->start_ns) * 1e-9;
    double rate = seconds > 0 ? (double)done / seconds : 0;
    nnc_text_bytes(atomic_load_explicit(&pack->bytes_before, memory_order_relaxed), before,
                   sizeof(before));
    nnc_text_bytes(atomic_load_explicit(&pack->bytes_after, memory_order_relaxed), after,
                   sizeof(after));
    nnc_text_duration(rate > 0 ? (double)(pack->samples - done) / rate : -1, rest, sizeof(rest));
    int bar = pack->samples == 0 ? 20 : (int)(20 * done / pack->samples);
    fprintf(stderr, "\r[%.*s%.*s] %" PRIu64 "/%" PRIu64 " images  %.0f/s  %s -> %s  eta %s \033[K",
            bar, "####################", 20 - bar, "....................", done, pack->samples,
            rate, before, after, rest);
}

static void note_progress(void *context, const struct nnc_pack_step *step) {
    struct pack *pack = context;
    atomic_fetch_add_explicit(&pack->done, step->samples, memory_order_relaxed);
    atomic_fetch_add_explicit(&pack->bad, step->bad, memory_order_relaxed);
    atomic_fetch_add_explicit(&pack->bytes_before, step->bytes_before, memory_order_relaxed);
    atomic_fetch_add_explicit(&pack->bytes_after, step->bytes_after, memory_order_relaxed);
    atomic_fetch_add_explicit(&pack->skipped, step->was_there ? step->samples : 0,
                              memory_order_relaxed);
    uint64_t now = nnc_clock_ns();
    uint64_t next = atomic_load_explicit(&pack->next_line_ns, memory_order_relaxed);
    if (pack->on_terminal && now >= next &&
        atomic_compare_exchange_strong_explicit(&pack->next_line_ns, &next, now + PROGRESS_NS,
                                                memory_order_relaxed, memory_order_relaxed)) {
        print_progress(pack, now);
    }
}

/* ---- the work ---- */

static int check_budget(const struct pack *pack) {
    uint64_t bad = atomic_load_explicit(&pack->bad, memory_order_relaxed);
    uint64_t budget = (uint64_t)(pack->config->max_bad * (double)pack->samples);
    /* As in a training run, one bad image ends no small set unless none is allowed or it is all. */
    budget = budget == 0 && pack->config->max_bad > 0 && pack->samples > 1 ? 1 : budget;
    if (bad <= budget) {
        return 0;
    }
    const char *more = (double)bad < 0.05 * (double)pack->samples ? "0.05" : "1";
    return nnc_fail(-NNC_E_DATA_BUDGET,
                    "%" PRIu64 " bad images are more than --max-bad %g of %" PRIu64
                    " allows: remove them (`nncoord check` lists them all) or pass --max-bad %s",
                    bad, pack->config->max_bad, pack->samples, more);
}

/* Shard i of both parts in a row. */
static int pack_shard(void *context, size_t i) {
    struct pack *pack = context;
    int phase = i < pack->shards[NNC_PHASE_TRAIN] ? NNC_PHASE_TRAIN : NNC_PHASE_VAL;
    uint64_t number = phase == NNC_PHASE_TRAIN ? i : i - pack->shards[NNC_PHASE_TRAIN];
    const struct nnc_dataset_part *part = &pack->dataset->parts[phase];
    uint64_t size = pack->config->shard_samples;
    uint64_t first = number * size;
    uint64_t rest = part->samples - first;
    char path[NNC_PATH_MAX];
    int code = nnc_pack_dir_shard(pack->dir, pack->part_name[phase], number, path);
    const struct nnc_pack_shard shard = {.part = part,
                                         .first = first,
                                         .count = rest < size ? rest : size,
                                         .path = path,
                                         .recipe = &pack->recipe,
                                         .verify = pack->config->verify,
                                         .shm_dir = pack->config->shm_dir,
                                         .on_step = note_progress,
                                         .context = pack};
    code = code < 0 ? code : nnc_pack_shard_make(&shard);
    if (code < 0) {
        return code;
    }
    atomic_fetch_add_explicit(&pack->shards_done, 1, memory_order_relaxed);
    return check_budget(pack);
}

static int run(struct pack *pack) {
    for (int phase = 0; phase < 2; phase++) {
        uint64_t samples = pack->dataset->parts[phase].samples;
        uint64_t size = pack->config->shard_samples;
        pack->shards[phase] = (samples + size - 1) / size;
        pack->samples += samples;
    }
    int code = nnc_pack_dir_foreign(pack->dir, pack->part_name, pack->shards);
    if (code < 0) {
        return code;
    }
    pack->start_ns = nnc_clock_ns();
    code = nnc_parallel_for(pack->shards[0] + pack->shards[1],
                            nnc_scan_threads(pack->config->workers), pack_shard, pack);
    if (pack->on_terminal) {
        print_progress(pack, nnc_clock_ns());
        fputc('\n', stderr);
    }
    return code;
}

/* ---- around it ---- */

static int open_pack(struct pack *pack, const struct nnc_config *config, const char *to) {
    int code = nnc_pack_dir_apart(config->data, to);
    code = code < 0 ? code : nnc_pack_dir_apart(config->val_data, to);
    code = code < 0 ? code
                    : nnc_dataset_open_config(config, NNC_DATASET_TRAIN | NNC_DATASET_VAL,
                                              &pack->dataset);
    if (code < 0) {
        return code;
    }
    pack->part_name[NNC_PHASE_TRAIN] = pack->dataset->is_plain ? "data" : "train";
    pack->part_name[NNC_PHASE_VAL] = "val";
    pack->recipe =
        (struct nnc_pack_recipe){.kind = (enum nnc_pack_kind)config->kind,
                                 .max_side = config->max_side,
                                 .quality = config->quality,
                                 .channels = nnc_dataset_channels(pack->dataset, config->channels)};
    return nnc_pack_dir_open(to, pack->dataset, config, &pack->dir);
}

static json_t *result_object(const struct pack *pack, const char *to) {
    return json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:b}", "directory", to, "images",
                     (json_int_t)(pack->done - pack->bad), "bad", (json_int_t)pack->bad, "shards",
                     (json_int_t)(pack->shards[0] + pack->shards[1]), "bytes_before",
                     (json_int_t)pack->bytes_before, "bytes_after", (json_int_t)pack->bytes_after,
                     "images_that_were_there", (json_int_t)pack->skipped, "verified",
                     (int)pack->config->verify);
}

static void report(const struct pack *pack, const char *to) {
    char before[16], after[16], there[48] = "";
    uint64_t shards = pack->shards[0] + pack->shards[1];
    if (pack->skipped != 0) {
        snprintf(there, sizeof(there), " (%" PRIu64 " were there)", pack->skipped);
    }
    nnc_text_bytes(pack->bytes_before, before, sizeof(before));
    nnc_text_bytes(pack->bytes_after, after, sizeof(after));
    double share = pack->bytes_before == 0
                       ? 0
                       : 100.0 * (double)pack->bytes_after / (double)pack->bytes_before;
    nnc_log(NNC_LOG_INFO,
            "%" PRIu64 " image%s%s in %" PRIu64 " shard%s in %s: %s before, %s after (%.1f %%)%s, "
            "%" PRIu64 " bad left out, %.1f s",
            pack->done - pack->bad, nnc_text_s(pack->done - pack->bad), there, shards,
            nnc_text_s(shards), to, before, after, share, pack->config->verify ? ", verified" : "",
            pack->bad, (double)(nnc_clock_ns() - pack->start_ns) * 1e-9);
}

int nnc_data_pack(const struct nnc_command *command, json_t **ret_result) {
    if (command->arg_count != 2) {
        return nnc_fail(-NNC_E_USAGE, "pack needs a data set and a directory to write: "
                                      "nncoord pack photos packed");
    }
    struct nnc_config config = command->config;
    const char *to = command->args[1];
    int length = snprintf(config.data, sizeof(config.data), "%s", command->args[0]);
    if (length < 0 || (size_t)length >= sizeof(config.data)) {
        return nnc_fail(-NNC_E_USAGE, "pack: the path of the data set is too long");
    }
    struct pack pack = {.config = &config,
                        .on_terminal = isatty(STDERR_FILENO) != 0 && !config.quiet};
    int code = open_pack(&pack, &config, to);
    code = code < 0 ? code : run(&pack);
    if (code >= 0) {
        report(&pack, to);
        *ret_result = result_object(&pack, to);
    } else if (code == -NNC_E_STOPPED) {
        nnc_fail(code,
                 "interrupted: %" PRIu64 " of %" PRIu64
                 " shards are done; run the same command to continue",
                 pack.shards_done, pack.shards[0] + pack.shards[1]);
    }
    nnc_pack_dir_close(pack.dir);
    nnc_dataset_close(pack.dataset);
    return code;
}
