/* SPDX-License-Identifier: Apache-2.0 */
/* The consumer of `bench input`: takes batches and gives them back, as fast as they come or at the
 * pace of a simulated device.
 *
 *   warm-up pass -> MEASURE to the coordinator -> measured batches -> DONE
 *   each batch:  take -> (convert to floats) -> give back -> (sleep until the device is free)
 *
 * 1. The warm-up takes batches as fast as they come, also with a simulated device.
 * 2. Converting is work of the host: it goes on while the device computes, and only what it takes
 *    longer than the device does is time in which the device waits.
 * 3. A cold run has no warm-up, and its schedule ends after one pass.
 * Does not train; which batches count is bench_meter.h's. */
#include "base/clock.h"
#include "base/err.h"
#include "ipc/footprint.h"
#include "workers/bench_meter.h"
#include "workers/input_float.h"
#include "workers/train_private.h"

#include <errno.h>
#include <stdlib.h>

#define SLEEP_SLICE_NS 100000000ull /* between two signs of life */

struct consumer {
    struct nnc_trainer *trainer;
    struct nnc_meter meter;
    struct nnc_device device; /* images_per_s 0: none */
    struct nnc_footprint footprint;
    struct nnc_float_table table;
    float *values;        /* f32 (N,C,H,W); NULL: batches are not converted */
    uint64_t warm_images; /* taken before the measured part */
    uint64_t began_ns, warm_wait_ns;
    bool over; /* enough is measured, or somebody said stop */
};

static int init_consumer(struct consumer *consumer, struct nnc_trainer *trainer) {
    const struct nnc_setup *setup = trainer->setup;
    const struct nnc_config *config = &setup->config;
    const struct nnc_ring_geometry *geometry = &setup->geometry;
    uint64_t now_ns = nnc_clock_ns();
    uint64_t pass = nnc_schedule_total(&setup->schedule) / setup->schedule.epochs;
    const struct nnc_meter_params meter = {.pass_batches = pass > 0 ? pass : 1,
                                           .warm = config->cache == NNC_CACHE_WARM,
                                           .epochs = config->bench_epochs,
                                           .steps = config->bench_steps};
    *consumer = (struct consumer){.trainer = trainer,
                                  .meter = nnc_meter_start(&meter, now_ns),
                                  .device = {.images_per_s = config->simulate_gpu},
                                  .began_ns = now_ns};
    if (config->consumer != NNC_CONSUMER_FLOAT) {
        return 0;
    }
    nnc_float_table_init(config->mean, config->std, &consumer->table);
    size_t sample = (size_t)geometry->height * geometry->width * geometry->channels;
    consumer->values = calloc(geometry->batch * sample, sizeof(*consumer->values));
    return consumer->values != NULL ? 0 : nnc_fail(-ENOMEM, "no memory for a batch of floats");
}

static void convert(struct consumer *consumer, const struct nnc_batch_place *place,
                    const struct nnc_batch *batch) {
    const struct nnc_setup *setup = consumer->trainer->setup;
    const struct nnc_config *config = &setup->config;
    size_t side = place->phase == NNC_PHASE_TRAIN ? config->train_crop_size : config->val_crop_size;
    uint32_t channels = setup->geometry.channels;
    trainer_beat(consumer->trainer, NNC_DOING_FORWARD);
    for (uint32_t i = 0; i < batch->count; i++) {
        nnc_float_convert(&consumer->table, batch->images + i * batch->sample_bytes, side * side,
                          channels, consumer->values + i * side * side * channels);
    }
}

/* Sleep until the device is free; a device that waited for the conversion goes on from now. */
static void wait_for_device(struct consumer *consumer, uint64_t free_ns) {
    uint64_t now_ns = nnc_clock_ns();
    if (consumer->values != NULL && now_ns > free_ns) {
        consumer->device.free_ns = now_ns;
    }
    while (now_ns < free_ns) {
        trainer_beat(consumer->trainer, NNC_DOING_FORWARD);
        uint64_t slice_ns = now_ns + SLEEP_SLICE_NS;
        nnc_clock_sleep_until_ns(slice_ns < free_ns ? slice_ns : free_ns);
        now_ns = nnc_clock_ns();
    }
}

/* Take one batch, do with it what is to be done, give it back. */
static int consume(struct consumer *consumer) {
    struct nnc_trainer *trainer = consumer->trainer;
    struct nnc_batch_place place;
    struct nnc_batch batch;
    int code = trainer_take_batch(trainer, &place, &batch);
    if (code < 0) {
        return code;
    }
    bool simulates = consumer->device.images_per_s > 0.0 && consumer->meter.measuring;
    uint64_t free_ns = 0;
    if (simulates) {
        free_ns =
            nnc_device_feed(&consumer->device, nnc_clock_ns(), trainer->was_ready, batch.count);
    }
    if (consumer->values != NULL) {
        convert(consumer, &place, &batch);
    }
    trainer_give_back(trainer, &batch);
    trainer->seq++;
    if (simulates) {
        wait_for_device(consumer, free_ns);
    }
    return 0;
}

/* What the coordinator sees while this goes on. */
static void show(struct consumer *consumer) {
    struct nnc_trainer *trainer = consumer->trainer;
    trainer_set(trainer, NNC_COUNT_SAMPLES, trainer->images);
    trainer_set(trainer, NNC_COUNT_PHASE_SAMPLES, trainer->images);
    trainer_set(trainer, NNC_COUNT_NS_WAIT, trainer->wait_ns);
    trainer_set(trainer, NNC_COUNT_PSS_BYTES, nnc_footprint_own(&consumer->footprint));
}

/* What follows the batch that was just consumed. */
static int count_batch(struct consumer *consumer) {
    struct nnc_trainer *trainer = consumer->trainer;
    int told = trainer_is_told_to_stop(trainer);
    if (told < 0) {
        return told;
    }
    enum nnc_meter_verdict verdict = nnc_meter_count(&consumer->meter, nnc_clock_ns());
    consumer->over = verdict == NNC_METER_END || told != 0;
    if (verdict != NNC_METER_BEGIN) {
        return 0;
    }
    consumer->began_ns = consumer->meter.began_ns;
    consumer->warm_images = trainer->images;
    consumer->warm_wait_ns = trainer->wait_ns;
    return trainer_send(trainer, NNC_MSG_MEASURE, NULL, 0);
}

static int send_done(struct consumer *consumer) {
    const struct nnc_trainer *trainer = consumer->trainer;
    uint64_t now_ns = nnc_clock_ns();
    const struct nnc_msg_done done = {
        .images = trainer->images - consumer->warm_images,
        .seconds = (double)(now_ns - consumer->began_ns) * 1e-9,
        .wait_seconds = (double)(trainer->wait_ns - consumer->warm_wait_ns) * 1e-9,
        .warm_images = consumer->warm_images,
        .utilisation = consumer->device.images_per_s > 0.0
                           ? nnc_device_utilisation(&consumer->device, now_ns)
                           : -1.0};
    return trainer_send(consumer->trainer, NNC_MSG_DONE, &done, sizeof(done));
}

int trainer_run_bench_input(struct nnc_trainer *trainer) {
    struct consumer consumer;
    int code = init_consumer(&consumer, trainer);
    if (code == 0) {
        trainer_open_slots(trainer);
    }
    while (code == 0 && !consumer.over && trainer->seq < trainer->total) {
        code = consume(&consumer);
        code = code < 0 ? code : count_batch(&consumer);
        show(&consumer);
    }
    code = code < 0 ? code : send_done(&consumer);
    free(consumer.values);
    return code;
}
