/* SPDX-License-Identifier: Apache-2.0 */
/* Samples as a loader makes them, without rings and processes.
 *
 *   k -> claim of a schedule with one rank and batches of one -> place -> read -> make
 *                                                                  ^--- substitute of a bad one
 *
 * 1. What a sample is does not depend on ranks and batches, so the smallest schedule has the same
 *    samples at the same positions as any other.
 * 2. The order, the view, the pixels and the substitutes come from loader/: nothing is decided
 *    here.
 *
 * Does not: overlap reads; this is for looking, not for speed. */
#include "data/samples.h"

#include "base/err.h"
#include "base/log.h"
#include "ipc/memfd.h"
#include "loader/reader.h"
#include "loader/source.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

struct nnc_samples {
    struct nnc_dataset *dataset;
    struct nnc_sampler sampler;
    struct nnc_samples_info info;
    int index_fd; /* -1: none */
    struct nnc_source *source;
    struct nnc_reader *reader;
    struct nnc_maker *maker;
};

static int open_source(struct nnc_samples *samples, const struct nnc_config *config) {
    const struct nnc_dataset_part *part = &samples->dataset->parts[samples->info.phase];
    int code = nnc_memfd_create("index", part->size, NNC_MEMFD_READONLY, part->bytes,
                                config->shm_dir, &samples->index_fd);
    if (code < 0) {
        return code;
    }
    struct nnc_setup_data data = {
        .samples = part->samples,
        .classes = samples->dataset->classes,
        .index_fd = samples->index_fd,
        .raw_fd = part->raw_fd,
    };
    snprintf(data.root, sizeof(data.root), "%s", part->root);
    return nnc_source_open(&data, config->direct_io, &samples->source);
}

static int open_reader(struct nnc_samples *samples, const struct nnc_config *config) {
    struct nnc_reader_params params = {.depth = 1};
    char note[128];
    params.sources[samples->info.phase] = samples->source;
    if (config->io == NNC_IO_NULL) {
        return nnc_fail(-NNC_E_USAGE, "--io null measures loaders and is of bench input alone");
    }
    return nnc_reader_open(&params, (enum nnc_io_method)config->io, note, sizeof(note),
                           &samples->reader);
}

static int create_maker(struct nnc_samples *samples, const struct nnc_config *config) {
    const struct nnc_maker_params params = {
        .seed = config->seed,
        .augment = {nnc_augment_make(config, NNC_PHASE_TRAIN),
                    nnc_augment_make(config, NNC_PHASE_VAL)},
        .channels = samples->info.channels,
        .simd = (enum nnc_simd)config->simd,
        .fast = config->decode == NNC_DECODE_FAST,
    };
    samples->info.side = params.augment[samples->info.phase].size;
    return nnc_maker_create(&params, &samples->maker);
}

static struct nnc_schedule make_schedule(const struct nnc_samples_info *info) {
    bool trains = info->phase == NNC_PHASE_TRAIN;
    return (struct nnc_schedule){
        .train_samples = trains ? info->count : 0,
        .val_samples = trains ? 0 : info->count,
        .ranks = 1,
        .batch = 1,
        .epochs = 1,
    };
}

static int open_all(struct nnc_samples *samples, const struct nnc_config *config) {
    bool val = config->split == NNC_SPLIT_VAL;
    struct nnc_samples_info *info = &samples->info;
    unsigned phases = (val ? NNC_DATASET_VAL : NNC_DATASET_TRAIN) | NNC_DATASET_PARTIAL;
    int code = nnc_dataset_open_config(config, phases, &samples->dataset);
    if (code < 0) {
        return code;
    }
    info->phase = val ? NNC_PHASE_VAL : NNC_PHASE_TRAIN;
    info->dataset = samples->dataset;
    info->count = samples->dataset->parts[info->phase].samples;
    info->channels = nnc_dataset_channels(samples->dataset, config->channels);
    samples->sampler = (struct nnc_sampler){.schedule = make_schedule(info), .seed = config->seed};
    code = nnc_schedule_check(&samples->sampler.schedule);
    code = code < 0 ? code : open_source(samples, config);
    code = code < 0 ? code : open_reader(samples, config);
    return code < 0 ? code : create_maker(samples, config);
}

int nnc_samples_open(const struct nnc_config *config, struct nnc_samples **ret_samples) {
    struct nnc_samples *samples = calloc(1, sizeof(*samples));
    if (samples == NULL) {
        return nnc_fail(-ENOMEM, "no memory for samples");
    }
    samples->index_fd = -1;
    int code = open_all(samples, config);
    if (code < 0) {
        nnc_samples_close(samples);
        return code;
    }
    *ret_samples = samples;
    return 0;
}

void nnc_samples_close(struct nnc_samples *samples) {
    if (samples == NULL) {
        return;
    }
    nnc_reader_close(samples->reader);
    nnc_maker_destroy(samples->maker);
    nnc_source_close(samples->source);
    if (samples->index_fd >= 0) {
        close(samples->index_fd);
    }
    nnc_dataset_close(samples->dataset);
    free(samples);
}

struct nnc_samples_info nnc_samples_info(const struct nnc_samples *samples) {
    return samples->info;
}

/* ---- one sample ---- */

/* Read and make what the place asks for now. Returns 1, 0 when that sample is bad, or the error of
 * a reader that is broken. */
static int try_place(struct nnc_samples *samples, const struct nnc_sampler_place *place,
                     uint8_t *pixels) {
    const struct nnc_read read = {.phase = place->phase, .sample = place->sample};
    struct nnc_read_done done;
    nnc_reader_submit(samples->reader, &read);
    int code = nnc_reader_wait(samples->reader, &done);
    if (code <= 0) {
        assert(code < 0); /* a read is in flight */
        return code;
    }
    const struct nnc_index_header *header = nnc_source_index(samples->source)->header;
    const struct nnc_maker_bytes bytes = {.bytes = done.bytes, .size = done.size};
    code =
        done.code < 0 ? done.code : nnc_maker_make(samples->maker, header, place, &bytes, pixels);
    if (code >= 0) {
        return 1;
    }
    char path[NNC_PATH_MAX];
    nnc_dataset_sample_path(&samples->dataset->parts[place->phase], place->sample, path,
                            sizeof(path));
    nnc_log(NNC_LOG_WARN, "position %" PRIu64 ": %s is bad: %s", place->k, path, nnc_error_text());
    return 0;
}

int nnc_samples_make(struct nnc_samples *samples, uint64_t k, uint8_t *pixels,
                     struct nnc_sample *ret_sample) {
    assert(k < samples->info.count);
    const struct nnc_claim claim = {.seq = k};
    struct nnc_sampler_place place;
    uint32_t attempt = 0;
    int code = nnc_sampler_locate(&samples->sampler, 0, &claim, &place);
    if (code < 0) {
        return code;
    }
    do {
        code = try_place(samples, &place, pixels);
    } while (code == 0 && nnc_sampler_replace(&samples->sampler, &attempt, &place));
    if (code < 0) {
        return code;
    }
    struct nnc_sample sample = {
        .k = k, .number = place.sample, .status = NNC_SAMPLE_BAD, .label = -1};
    if (code == 0) {
        nnc_maker_grey(samples->maker, place.phase, pixels);
    } else {
        sample.status = attempt == 0 ? NNC_SAMPLE_OK : NNC_SAMPLE_REPLACED;
        sample.label = nnc_source_index(samples->source)->samples[place.sample].label;
        sample.cut = nnc_maker_cut(samples->maker);
    }
    *ret_sample = sample;
    return 0;
}
