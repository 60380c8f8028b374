/* SPDX-License-Identifier: Apache-2.0 */
/* Which batches of `bench input` count, and the device that it may simulate. Pure: batches and the
 * time go in, what follows comes out. */
#ifndef NNC_WORKERS_BENCH_METER_H
#define NNC_WORKERS_BENCH_METER_H

#include <stdbool.h>
#include <stdint.h>

struct nnc_meter_params {
    uint64_t pass_batches; /* of one pass over the data, >= 1 */
    bool warm;             /* a first pass is not measured */
    uint32_t epochs;       /* measured passes; 0: as many as the time asks for */
    uint32_t steps;        /* measured batches at most; 0: no limit */
};

struct nnc_meter {
    struct nnc_meter_params params;
    uint64_t began_ns; /* of warm-up, then of the measured part */
    uint64_t batches;  /* of warm-up, then of the measured part */
    bool measuring;
};

enum nnc_meter_verdict {
    NNC_METER_GO_ON,
    NNC_METER_BEGIN, /* the warm-up is over: the next batch is the first that counts */
    NNC_METER_END,   /* enough is measured, this batch included */
};

/* Start at now_ns with warm-up, or at once with the measured part. */
struct nnc_meter nnc_meter_start(const struct nnc_meter_params *params, uint64_t now_ns);

/* A batch was consumed at now_ns. The warm-up is one pass; where nothing says how long to measure,
 * it is cut after ten seconds, and measured are whole passes until two seconds are over, but never
 * much more than ten seconds. */
enum nnc_meter_verdict nnc_meter_count(struct nnc_meter *meter, uint64_t now_ns);

/* A device that takes a batch and is busy for images / images_per_s seconds. */
struct nnc_device {
    double images_per_s;
    uint64_t began_ns; /* when it took its first batch; 0: not yet */
    uint64_t free_ns;  /* when it can take the next */
    double busy_ns;
};

/* The device gets a batch at now_ns. was_ready: the batch was complete when it was asked for, so
 * the device went on without a pause, however late the sleeper woke. Returns the time until which
 * the device is busy. */
uint64_t nnc_device_feed(struct nnc_device *device, uint64_t now_ns, bool was_ready,
                         uint32_t images);

/* Share of the time from the first batch to now_ns in which the device was busy, 0..1. */
double nnc_device_utilisation(const struct nnc_device *device, uint64_t now_ns);

#endif
