/* SPDX-License-Identifier: Apache-2.0 */
/* bench comm, in each rank:
 *
 *   all-reduces of growing size     of the host's communicator; a device's takes gradients alone
 *   the sums of all gradients       with nothing beside them
 *   steps alone                     feed, forward, backward, update; no rank waits for another
 *   steps together                  the same with the sums, as a training has them
 *
 * Every repeat begins when all ranks are there, and counts as long as the slowest rank took. Steps
 * alone and together take turns, and the turn's first changes: what comes and goes on the machine,
 * or comes with time, meets both alike. Median and quartiles over the repeats go to the
 * coordinator, from rank 0, as soon as they are known.
 *
 * It judges nothing: what the figures mean is said in docs/selftest.md. */
#include "base/clock.h"
#include "base/err.h"
#include "workers/train_private.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

enum {
    WARMUP = 2,
    REPEATS = 10, /* when the configuration leaves it open */
    REPEATS_MAX = 1000,
    SMALLEST_FLOATS = 1024,
    LARGEST_FLOATS = 16 << 20,
    STEP_UP = 4, /* from one size to the next */
    TURNS_MAX = 2,
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
                                           .global_count = trainer->setup->ranks * batch,
                                           .alone = !together};
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

/* What is timed; several take turns. */
struct work {
    enum nnc_comm_figure figure;
    int (*run)(struct bench *bench);
    uint64_t bytes;
};

/* Sorts the values. */
static int tell(struct bench *bench, const struct work *work, double *seconds) {
    uint32_t count = bench->repeats;
    qsort(seconds, count, sizeof(seconds[0]), by_value);
    const struct nnc_msg_comm message = {.figure = work->figure,
                                         .repeats = count,
                                         .bytes = work->bytes,
                                         .seconds = seconds[count / 2],
                                         .spread =
                                             seconds[(size_t)count * 3 / 4] - seconds[count / 4]};
    return trainer_send(bench->trainer, NNC_MSG_COMM, &message, sizeof(message));
}

/* One turn of each, forwards and backwards by turns. */
static int take_turns(struct bench *bench, const struct work *works, uint32_t count, uint32_t round,
                      double ret_seconds[TURNS_MAX]) {
    int code = 0;
    for (uint32_t i = 0; code >= 0 && i < count; i++) {
        uint32_t turn = round % 2 == 0 ? i : count - 1 - i;
        code = time_once(bench, works[turn].run, &ret_seconds[turn]);
    }
    return code;
}

static int measure(struct bench *bench, const struct work *works, uint32_t count) {
    double seconds[TURNS_MAX][REPEATS_MAX], once[TURNS_MAX];
    assert(count <= TURNS_MAX);
    int code = 0;
    for (uint32_t i = 0; i < WARMUP + bench->repeats && !bench->trainer->stopping; i++) {
        code = take_turns(bench, works, count, i, once);
        if (code < 0) {
            return code;
        }
        for (uint32_t turn = 0; i >= WARMUP && turn < count; turn++) {
            seconds[turn][i - WARMUP] = once[turn];
        }
    }
    if (bench->trainer->stopping || bench->trainer->setup->number != 0) {
        return 0;
    }
    for (uint32_t turn = 0; code >= 0 && turn < count; turn++) {
        code = tell(bench, &works[turn], seconds[turn]);
    }
    return code;
}

static int measure_sizes(struct bench *bench) {
    int code = 0;
    for (bench->count = SMALLEST_FLOATS; code >= 0 && bench->count <= LARGEST_FLOATS;
         bench->count *= STEP_UP) {
        const struct work sum = {NNC_COMM_SUM, sum_values, bench->count * sizeof(float)};
        code = measure(bench, &sum, 1);
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
    uint64_t bytes = gradient_bytes(bench);
    const struct work sums = {NNC_COMM_GRADIENTS, sum_gradients, bytes};
    const struct work steps[] = {{NNC_COMM_ALONE, step_alone, 0},
                                 {NNC_COMM_TOGETHER, step_together, bytes}};
    int code = trainer_device(bench->trainer) == NULL ? measure_sizes(bench) : 0;
    code = code < 0 ? code : measure(bench, &sums, 1);
    return code < 0 ? code : measure(bench, steps, 2);
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
