/* SPDX-License-Identifier: Apache-2.0 */
/* bench input: the loaders alone, with a consumer that only takes batches.
 *
 *   open data -> (cold: drop its files) -> run -> rate, cost, what bounds it -> (device: pass or
 * fail)
 *
 * Shares are parts of the loaders' wall time in the measured part, number of loaders times its
 * length; what no stage counts is "other": claiming, publishing, waiting for a CPU between two
 * stages.
 * Source of the 90 %: MLPerf Storage benchmark rules. */
#include "coordinator/verbs.h"

#include "base/err.h"
#include "base/text.h"
#include "coordinator/page_cache.h"
#include "coordinator/run.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#define GOAL      0.9 /* of the time a device shall be busy */
#define CONTENDED 0.8 /* of the time loaders wanted a CPU: less is worth a warning */
#define BRIEF_S   0.5 /* a shorter measurement is worth one too */

enum stage {
    STAGE_DECODE,
    STAGE_TRANSFORM,
    STAGE_READ,
    STAGE_WAIT,
    STAGE_COUNT,
};

static const struct {
    const char *name;
    enum nnc_counter counter;
} stages[STAGE_COUNT] = {
    [STAGE_DECODE] = {"decode", NNC_COUNT_NS_DECODE},
    [STAGE_TRANSFORM] = {"transform", NNC_COUNT_NS_TRANSFORM},
    [STAGE_READ] = {"read", NNC_COUNT_NS_READ},
    [STAGE_WAIT] = {"ring full", NNC_COUNT_NS_WAIT},
};

/* One measurement and what follows from it. */
struct outcome {
    const struct nnc_verb_context *context;
    struct nnc_run_result run;
    struct nnc_page_cache cache; /* --cache cold */
    uint64_t samples;            /* of the part that is read */
    double seconds, images_per_s, bytes_per_s, epochs, cpu_s_per_1000;
    double stage_s[STAGE_COUNT], other_s; /* summed over loaders */
    double share[STAGE_COUNT], other;     /* of the loaders' wall time, at most 1 in all */
    enum stage bound;
    bool passed; /* with a simulated device */
};

static const struct nnc_config *config_of(const struct outcome *outcome) {
    return &outcome->context->command->config;
}

/* ---- arithmetic ---- */

static double positive(double value) {
    return value > 0.0 ? value : 1e-9;
}

/* A stage is counted when it ends, so one that began before the measured part can push the sum over
 * the wall time by a little: shares are then of the sum. */
static void fill_shares(struct outcome *outcome) {
    const struct nnc_run_result *run = &outcome->run;
    double wall_s = (double)run->measured.at_ns * 1e-9 * run->plan.loaders, sum_s = 0.0;
    for (int i = 0; i < STAGE_COUNT; i++) {
        outcome->stage_s[i] = (double)run->measured.counter[stages[i].counter] * 1e-9;
        sum_s += outcome->stage_s[i];
        outcome->bound =
            outcome->stage_s[i] > outcome->stage_s[outcome->bound] ? (enum stage)i : outcome->bound;
    }
    wall_s = positive(wall_s > sum_s ? wall_s : sum_s);
    for (int i = 0; i < STAGE_COUNT; i++) {
        outcome->share[i] = outcome->stage_s[i] / wall_s;
    }
    outcome->other_s = wall_s - sum_s;
    outcome->other = outcome->other_s / wall_s;
}

static void fill_outcome(struct outcome *outcome, uint64_t samples) {
    const struct nnc_run_result *run = &outcome->run;
    uint64_t made = run->measured.counter[NNC_COUNT_SAMPLES];
    outcome->samples = samples;
    outcome->seconds = positive(run->trainer_seconds);
    outcome->images_per_s = (double)run->images / outcome->seconds;
    /* Of the images taken, not of all that were made: some of these only filled the ring. */
    double image_bytes =
        made == 0 ? 0.0 : (double)run->measured.counter[NNC_COUNT_BYTES_READ] / (double)made;
    outcome->bytes_per_s = image_bytes * outcome->images_per_s;
    outcome->epochs = samples == 0 ? 0.0 : (double)run->images / (double)samples;
    /* By the images that the loaders made meanwhile: that is what the time was spent on. */
    outcome->cpu_s_per_1000 = made == 0 ? 0.0 : 1000.0 * run->measured.cpu_seconds / (double)made;
    outcome->passed = run->utilisation > GOAL;
    fill_shares(outcome);
}

/* ---- words ---- */

static const char *remedy(const struct outcome *outcome) {
    bool cpus_left = outcome->run.plan.loaders < outcome->context->machine.cpus;
    switch (outcome->bound) {
    case STAGE_DECODE:
        return cpus_left ? "more --workers have CPUs left, or store smaller images"
                         : "more CPUs, or store smaller images";
    case STAGE_TRANSFORM:
        return cpus_left ? "more --workers have CPUs left, or take a smaller crop"
                         : "more CPUs, or take a smaller crop";
    case STAGE_READ:
        return "faster storage, more memory for the page cache, or more --workers, which read "
               "ahead more";
    case STAGE_WAIT:
    case STAGE_COUNT:
        break;
    }
    return "the consumer is the limit; fewer --workers would do";
}

/* "decode 71 %, transform 9 %, read 4 %, ring full 12 %, other 4 %" */
static void format_shares(const struct outcome *outcome, char *ret_text, size_t bytes) {
    size_t used = 0;
    for (int i = 0; i < STAGE_COUNT && used < bytes; i++) {
        used += (size_t)snprintf(ret_text + used, bytes - used, "%s %.0f %%, ", stages[i].name,
                                 100.0 * outcome->share[i]);
    }
    if (used < bytes) {
        snprintf(ret_text + used, bytes - used, "other %.0f %%", 100.0 * outcome->other);
    }
}

/* Bytes of files of which the kernel tells what is in memory. */
static uint64_t seen_bytes(const struct nnc_page_cache *cache) {
    return cache->bytes - cache->hidden_bytes;
}

static bool is_all_hidden(const struct nnc_page_cache *cache) {
    return cache->hidden_bytes != 0 && seen_bytes(cache) == 0;
}

static void print_dropped(const struct nnc_page_cache *cache) {
    fprintf(stderr, "cold: %" PRIu64 " files of %.1f MB dropped from the page cache", cache->files,
            (double)cache->bytes * 1e-6);
    if (!is_all_hidden(cache)) {
        fprintf(stderr, ", %.1f MB of them are still in memory",
                (double)cache->resident_bytes * 1e-6);
    }
    fputc('\n', stderr);
}

static void print_cache(const struct nnc_page_cache *cache, bool quiet) {
    if (!quiet) {
        print_dropped(cache);
    }
    if (cache->resident_bytes > cache->bytes / 10) {
        fprintf(stderr, "the file system keeps them there (tmpfs has no other place): these are "
                        "figures of a warm cache\n");
    }
    if (cache->hidden_bytes != 0) {
        fprintf(stderr,
                "%.1f MB belong to another user: what of them is in memory cannot be seen\n",
                (double)cache->hidden_bytes * 1e-6);
    }
    if (cache->memory_bytes != 0) {
        fprintf(stderr, "%.1f MB of zipped pixels were inflated into memory, they cannot be cold\n",
                (double)cache->memory_bytes * 1e-6);
    }
}

/* Decoding, transforming and the rest need a CPU all the time; reading may wait for other reasons.
 */
static void print_contention(const struct outcome *outcome) {
    double wanted_s =
        outcome->stage_s[STAGE_DECODE] + outcome->stage_s[STAGE_TRANSFORM] + outcome->other_s;
    double had_s = outcome->run.measured.cpu_seconds;
    if (had_s < CONTENDED * wanted_s) {
        fprintf(stderr,
                "other programs use this machine: the loaders had a CPU for %.0f %% of the time "
                "they wanted one, the figures are too low\n",
                100.0 * had_s / positive(wanted_s));
    }
}

/* So short a time is made of its ends, and a ring's worth of images may have lain ready. */
static void print_brevity(const struct outcome *outcome) {
    const struct nnc_run_result *run = &outcome->run;
    uint64_t ring = (uint64_t)config_of(outcome)->ring_depth * run->plan.schedule.batch *
                    (run->plan.ranks != 0 ? run->plan.ranks : 1);
    if (outcome->seconds >= BRIEF_S && run->images >= ring) {
        return;
    }
    fprintf(stderr,
            "measured too little to say much: %" PRIu64 " images in %.2f s, and the ring holds "
            "%" PRIu64 "; %s\n",
            run->images, outcome->seconds, ring,
            config_of(outcome)->cache == NNC_CACHE_COLD
                ? "take a larger data set, of which one pass takes longer"
                : "give more --bench-epochs or --bench-steps, or neither");
}

/* Bad images cost less than good ones: the figures are not those of the set that was meant. */
static void print_bad(const struct outcome *outcome) {
    if (outcome->run.bad_samples != 0) {
        fprintf(stderr,
                "%" PRIu64 " of %" PRIu64 " images are bad: the figures count what stood in for "
                "them; `nncoord check` lists them all\n",
                outcome->run.bad_samples, outcome->samples);
    }
}

static const char *reader_name(const struct outcome *outcome) {
    bool none = config_of(outcome)->io == NNC_IO_NULL;
    return none ? "no reading" : outcome->run.uses_uring ? "io_uring" : "pread";
}

/* What the time went into. Of a device that was not kept busy judge() tells it. */
static void print_bound(const struct outcome *outcome) {
    const struct nnc_config *config = config_of(outcome);
    char shares[256];
    format_shares(outcome, shares, sizeof(shares));
    if (config->simulate_gpu <= 0.0 && !config->quiet) {
        fprintf(stderr, "bound by %s: %s; %s\n", stages[outcome->bound].name, shares,
                remedy(outcome));
    }
    if (config->simulate_gpu > 0.0 && outcome->passed && !config->quiet) {
        fprintf(stderr, "the device is the limit: %s\n", shares);
    }
    if (config->simulate_gpu > 0.0 && outcome->passed) {
        fprintf(stderr, "pass: the simulated device of %g images/s was busy %.1f %% of the time\n",
                config->simulate_gpu, 100.0 * outcome->run.utilisation);
    }
}

static void print_outcome(const struct outcome *outcome) {
    const struct nnc_run_result *run = &outcome->run;
    const struct nnc_config *config = config_of(outcome);
    bool cold = config->cache == NNC_CACHE_COLD;
    if (cold) {
        print_cache(&outcome->cache, config->quiet);
    }
    fprintf(stderr,
            "%.0f images/s, %.1f MB/s read, %" PRIu32
            " loader%s (%s), %.2f CPU s per 1,000 images, %.1f MB beside the ring\n",
            outcome->images_per_s, outcome->bytes_per_s * 1e-6, run->plan.loaders,
            nnc_text_s(run->plan.loaders), reader_name(outcome), outcome->cpu_s_per_1000,
            (double)run->peak_memory_bytes * 1e-6);
    if (!config->quiet) {
        fprintf(stderr,
                "measured: %" PRIu64 " images (%.2f passes) in %.2f s after %" PRIu64
                " of warm-up; cache %s, consumer %s\n",
                run->images, outcome->epochs, outcome->seconds, run->warm_images,
                cold ? "cold" : "warm", config->consumer == NNC_CONSUMER_FLOAT ? "float" : "none");
    }
    print_bad(outcome);
    print_contention(outcome);
    print_brevity(outcome);
    print_bound(outcome);
}

static json_t *known_bytes(bool known, uint64_t bytes) {
    return known ? json_integer((json_int_t)bytes) : json_null();
}

/* What print_cache() says. Pages are counted whole, so a little more may be in memory than files
 * have. */
static void add_cache(json_t *object, const struct nnc_page_cache *cache) {
    bool known = !is_all_hidden(cache);
    uint64_t seen = seen_bytes(cache), resident = cache->resident_bytes;
    json_object_set_new(object, "dropped_bytes",
                        known_bytes(known, resident < seen ? seen - resident : 0));
    json_object_set_new(object, "resident_bytes", known_bytes(known, resident));
    json_object_set_new(object, "hidden_bytes", known_bytes(true, cache->hidden_bytes));
    json_object_set_new(object, "memory_bytes", known_bytes(true, cache->memory_bytes));
}

static json_t *outcome_object(const struct outcome *outcome) {
    const struct nnc_run_result *run = &outcome->run;
    const struct nnc_config *config = config_of(outcome);
    bool cold = config->cache == NNC_CACHE_COLD;
    json_t *stage_object = json_object();
    for (int i = 0; i < STAGE_COUNT; i++) {
        json_object_set_new(stage_object, stages[i].name, json_real(outcome->stage_s[i]));
    }
    json_object_set_new(stage_object, "other", json_real(outcome->other_s));
    json_t *object = json_pack(
        "{s:f, s:f, s:i, s:f, s:I, s:s, s:o, s:I, s:f, s:I, s:I, s:b, s:f}", "images_per_s",
        outcome->images_per_s, "bytes_per_s", outcome->bytes_per_s, "workers",
        (int)run->plan.loaders, "cpu_s_per_1000", outcome->cpu_s_per_1000, "peak_memory_bytes",
        (json_int_t)run->peak_memory_bytes, "bound_by", stages[outcome->bound].name, "stage_s",
        stage_object, "images", (json_int_t)run->images, "seconds", outcome->seconds, "ring_bytes",
        (json_int_t)run->ring_bytes, "bad_samples", (json_int_t)run->bad_samples, "io_uring",
        (int)run->uses_uring, "first_batch_s", run->first_batch_seconds);
    json_object_set_new(object, "cache", json_string(cold ? "cold" : "warm"));
    json_object_set_new(object, "consumer",
                        json_string(config->consumer == NNC_CONSUMER_FLOAT ? "float" : "none"));
    json_object_set_new(object, "epochs", json_real(outcome->epochs));
    json_object_set_new(object, "warm_images", json_integer((json_int_t)run->warm_images));
    json_object_set_new(object, "bytes_read",
                        json_integer((json_int_t)run->measured.counter[NNC_COUNT_BYTES_READ]));
    if (cold) {
        add_cache(object, &outcome->cache);
    }
    if (config->simulate_gpu > 0.0) {
        json_object_set_new(object, "au", json_real(run->utilisation));
        json_object_set_new(object, "passed", json_boolean(outcome->passed));
    }
    return object;
}

/* ---- the verb ---- */

static int judge(const struct outcome *outcome) {
    if (config_of(outcome)->simulate_gpu <= 0.0 || outcome->passed) {
        return 0;
    }
    char shares[256];
    format_shares(outcome, shares, sizeof(shares));
    return nnc_fail(-NNC_E_GOAL,
                    "FAIL: the simulated device was busy %.1f %% of the time, the goal is more "
                    "than %.0f %%; bound by %s (%s): %s",
                    100.0 * outcome->run.utilisation, 100.0 * GOAL, stages[outcome->bound].name,
                    shares, remedy(outcome));
}

int nnc_verb_bench_input(const struct nnc_verb_context *context) {
    const struct nnc_config *config = &context->command->config;
    enum nnc_phase phase = config->split == NNC_SPLIT_VAL ? NNC_PHASE_VAL : NNC_PHASE_TRAIN;
    struct outcome outcome = {.context = context};
    struct nnc_dataset *dataset = NULL;
    int code = nnc_dataset_open_config(config, 1u << phase | NNC_DATASET_PARTIAL, &dataset);
    if (code < 0) {
        return code;
    }
    const struct nnc_dataset_part *part = &dataset->parts[phase];
    if (config->cache == NNC_CACHE_COLD) {
        code = nnc_page_cache_drop(part, &outcome.cache);
    }
    const struct nnc_run_params params = {.config = config,
                                          .mode = NNC_MODE_BENCH_INPUT,
                                          .machine = &context->machine,
                                          .dataset = dataset};
    code = code < 0 ? code : nnc_run(&params, context->started_ns, &outcome.run);
    if (code >= 0) {
        fill_outcome(&outcome, part->samples);
        print_outcome(&outcome);
        code = config->json ? nnc_verb_print_json(outcome_object(&outcome)) : 0;
    }
    nnc_dataset_close(dataset);
    return code < 0 ? code : judge(&outcome);
}
