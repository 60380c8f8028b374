/* SPDX-License-Identifier: Apache-2.0 */
/* bench comm, in each rank:
 *
 *   all-reduces of growing size     of the host's communicator; a device's takes gradients alone
 *   steps alone                     feed, forward, backward, update; no rank waits for another
 *   (devices join)
 *   steps together                  the same with the sums, as a training has them
 *   the sums of all gradients       with nothing beside them
 *
 * Every repeat begins when all ranks are there, and counts as long as the slowest rank took. The
 * median over the repeats goes to the coordinator, from rank 0.
 *
 * It judges nothing: what the figures mean is said in docs/selftest.md. */
#include "base/clock.h"
#include "base/err.h"
#include "workers/train_private.h"

#include <errno.h>
#include <stdlib.h>

enum {
    WARMUP = 2,
    REPEATS = 10, /* when the configuration leaves it open */
    REPEATS_MAX = 1000,
    SMALLEST_FLOATS = 1024,
    LARGEST_FLOATS = 16 << 20,
    STEP_UP = 4, /* from one size to the next */
};

struct bench {
    struct nnc_trainer *trainer;
    const struct nnc_feed *feed;
    float *values; /* LARGEST_FLOATS; NULL in device backends */
    size_t count;  /* of them to be summed now */
    uint32_t repeats;
};

/* ---- what is timed ---- */

static int finish(const struct bench *bench) {
    const struct nnc_backend_ops *ops = nnc_engine_ops(bench->trainer->params.engine);
    struct nnc_backend *backend = nnc_engine_backend(bench->trainer->params.engine);
    return ops->device == NULL ? 0 : ops->device->finish(backend);
}

static int sum_values(struct bench *bench) {
    trainer_beat(bench->trainer, NNC_DOING_REDUCE);
    return nnc_comm_allreduce(bench->trainer->params.comm, bench->values, bench->count);
}

static int sum_gradients(struct bench *bench) {
    const struct nnc_backend_ops *ops = nnc_engine_ops(bench->trainer->params.engine);
    if (ops->device == NULL) {
        return trainer_reduce(bench->trainer);
    }
    int code = ops->zero_gradients(nnc_engine_backend(bench->trainer->params.engine));
    return code < 0 ? code : finish(bench);
}

static int step(struct bench *bench, bool together) {
    struct nnc_trainer *trainer = bench->trainer;
    const struct nnc_backend_ops *ops = nnc_engine_ops(trainer->params.engine);
    uint32_t batch = trainer->setup->schedule.batch;
    struct nnc_executable *executable =
        nnc_engine_executable(trainer->params.engine, NNC_PHASE_TRAIN, batch);
    const struct nnc_step_params params = {.step = trainer->steps,
                                           .first = trainer->setup->number * batch,
                                           .global_count = trainer->setup->ranks * batch};
    trainer_beat(trainer, NNC_DOING_FORWARD);
    int code = ops->feed(executable, bench->feed);
    code = code < 0 ? code : ops->step(executable, &params);
    if (code >= 0 && together) {
        code = trainer_reduce(trainer); /* a device does so within its step */
    }
    code = code < 0 ? code : trainer_update(trainer, 0);
    trainer->steps++;
    return code < 0 ? code : finish(bench);
}

static int step_alone(struct bench *bench) {
    return step(bench, false);
}

static int step_together(struct bench *bench) {
    return step(bench, true);
}

/* ---- timing ---- */

static int by_value(const void *left, const void *right) {
    const double *a = left, *b = right;
    return (*a > *b) - (*a < *b);
}

/* One repeat of all ranks: *ret_seconds of the slowest. */
static int time_once(struct bench *bench, int (*work)(struct bench *), double *ret_seconds) {
    struct nnc_trainer *trainer = bench->trainer;
    double all[NNC_MAX_RANKS];
    uint32_t wish = WISH_NOTHING;
    int code = trainer_agree(trainer, WISH_NOTHING, &wish); /* all begin together */
    uint64_t began_ns = nnc_clock_ns();
    code = code < 0 ? code : work(bench);
    double seconds = (double)(nnc_clock_ns() - began_ns) * 1e-9;
    code = code < 0 ? code : nnc_comm_gather(trainer->params.comm, &seconds, sizeof(seconds), all);
    if (code < 0) {
        return code;
    }
    for (uint32_t rank = 0; rank < trainer->setup->ranks; rank++) {
        seconds = all[rank] > seconds ? all[rank] : seconds;
    }
    trainer->stopping = trainer->stopping || wish == WISH_STOP;
    *ret_seconds = seconds;
    return 0;
}

/* The median of the repeats, told to the coordinator. */
static int measure(struct bench *bench, enum nnc_comm_figure figure, int (*work)(struct bench *),
                   uint64_t bytes) {
    double seconds[REPEATS_MAX];
    int code = 0;
    for (uint32_t i = 0; i < WARMUP + bench->repeats && !bench->trainer->stopping; i++) {
        double once;
        code = time_once(bench, work, &once);
        if (code < 0) {
            return code;
        }
        if (i >= WARMUP) {
            seconds[i - WARMUP] = once;
        }
    }
    if (bench->trainer->stopping || bench->trainer->setup->number != 0) {
        return 0;
    }
    qsort(seconds, bench->repeats, sizeof(seconds[0]), by_value);
    const struct nnc_msg_comm message = {.figure = figure,
                                         .repeats = bench->repeats,
                                         .bytes = bytes,
                                         .seconds = seconds[bench->repeats / 2]};
    return trainer_send(bench->trainer, NNC_MSG_COMM, &message, sizeof(message));
}

static int measure_sizes(struct bench *bench) {
    int code = 0;
    for (bench->count = SMALLEST_FLOATS; code >= 0 && bench->count <= LARGEST_FLOATS;
         bench->count *= STEP_UP) {
        code = measure(bench, NNC_COMM_SUM, sum_values, bench->count * sizeof(float));
    }
    return code;
}

/* Bytes of all gradients; devices hold 16-bit ones where they compute so. */
static uint64_t gradient_bytes(const struct bench *bench) {
    const struct nnc_engine *engine = bench->trainer->params.engine;
    uint64_t count = nnc_graph_parameter_count(nnc_engine_model(engine));
    bool halves =
        nnc_engine_ops(engine)->device != NULL && bench->trainer->setup->config.amp != NNC_AMP_OFF;
    return count * (halves ? 2 : sizeof(float));
}

static int measure_all(struct bench *bench) {
    const struct nnc_device_ops *device = trainer_device(bench->trainer);
    uint64_t bytes = gradient_bytes(bench);
    int code = device == NULL ? measure_sizes(bench) : 0;
    code = code < 0 ? code : measure(bench, NNC_COMM_ALONE, step_alone, 0);
    if (code >= 0 && device != NULL) {
        code = trainer_join_devices(bench->trainer, device);
    }
    code = code < 0 ? code : measure(bench, NNC_COMM_TOGETHER, step_together, bytes);
    return code < 0 ? code : measure(bench, NNC_COMM_GRADIENTS, sum_gradients, bytes);
}

int trainer_run_bench_comm(struct nnc_trainer *trainer) {
    struct trainer_synthetic batch;
    struct bench bench = {.trainer = trainer, .repeats = trainer->setup->config.bench_steps};
    bool on_host = trainer_device(trainer) == NULL;
    uint64_t began_ns = nnc_clock_ns();
    bench.repeats = bench.repeats == 0 ? REPEATS : bench.repeats;
    bench.repeats = bench.repeats < REPEATS_MAX ? bench.repeats : REPEATS_MAX;
    int code = trainer_make_synthetic(trainer, &batch);
    if (code >= 0 && on_host) {
        bench.values = calloc(LARGEST_FLOATS, sizeof(*bench.values));
        code = bench.values == NULL ? nnc_fail(-ENOMEM, "no memory for sums") : 0;
    }
    bench.feed = &batch.feed;
    code = code < 0 ? code : measure_all(&bench);
    free(bench.values);
    trainer_free_synthetic(&batch);
    trainer->images = (uint64_t)trainer->steps * trainer->setup->schedule.batch;
    double seconds = (double)(nnc_clock_ns() - began_ns) * 1e-9;
    return code < 0 ? code : trainer_send_done(trainer, seconds);
}
