/* SPDX-License-Identifier: Apache-2.0 */
/* What a trainer does beside training and evaluating: predictions, loaders alone, a backend alone.
 *
 *   PREDICT       validation batches as in train.c; the logits of each sample go to the coordinator
 *   CHECK         take each batch and give it back; BENCH_INPUT does more, in bench_input.c
 *   BENCH_TRAIN   one synthetic batch, stepped over and over: what the backend can do when data is
 * free
 *
 * It times nothing in BENCH_TRAIN before the third step: the first ones build and warm up. */
#include "workers/train_private.h"

#include "base/clock.h"
#include "base/err.h"
#include "base/rng.h"

#include <errno.h>
#include <stdlib.h>

enum {
    LOGITS_PER_MESSAGE = 1000,
    WARMUP_STEPS = 3,
    BENCH_STEPS = 30, /* when the configuration leaves it open */
};

/* ---- PREDICT ---- */

void trainer_keep_numbers(struct nnc_trainer *trainer, const struct nnc_batch *batch) {
    for (uint32_t i = 0; i < batch->count; i++) {
        trainer->kept_samples[i] = batch->samples[i];
        trainer->kept_status[i] = batch->status[i];
    }
}

/* The logits of one sample, in as many messages as they need. */
static int send_sample(struct nnc_trainer *trainer, uint32_t i, uint32_t classes) {
    const struct nnc_link *link = &trainer->params.link;
    const float *logits = trainer->logits + (size_t)i * classes;
    struct nnc_msg_logits message = {.sample = trainer->kept_samples[i], .classes = classes};
    if (trainer->kept_status[i] == NNC_SAMPLE_BAD) {
        message.bad = 1;
        return trainer_send(trainer, NNC_MSG_LOGITS, &message, sizeof(message));
    }
    for (uint32_t first = 0; first < classes; first += LOGITS_PER_MESSAGE) {
        message.first = first;
        message.count = classes - first;
        message.count = message.count < LOGITS_PER_MESSAGE ? message.count : LOGITS_PER_MESSAGE;
        int code = link->ops->send(link->context, NNC_MSG_LOGITS, &message, sizeof(message),
                                   logits + first, message.count * sizeof(float));
        if (code < 0) {
            return code;
        }
    }
    return 0;
}

int trainer_send_logits(struct nnc_trainer *trainer, struct nnc_executable *executable,
                        uint32_t count) {
    uint32_t classes = nnc_engine_model(trainer->params.engine)->classes;
    int code = nnc_engine_ops(trainer->params.engine)->logits(executable, trainer->logits);
    for (uint32_t i = 0; code == 0 && i < count; i++) {
        code = send_sample(trainer, i, classes);
    }
    return code;
}

/* ---- CHECK ---- */

int trainer_is_told_to_stop(struct nnc_trainer *trainer) {
    int asked = trainer->params.link.ops->poll(trainer->params.link.context);
    if (asked < 0) {
        return nnc_fail(asked, "the coordinator is gone");
    }
    return asked == NNC_MSG_STOP;
}

int trainer_run_check(struct nnc_trainer *trainer) {
    int told = 0;
    trainer_open_slots(trainer);
    while (trainer->seq < trainer->total && told == 0) {
        struct nnc_batch_place place;
        struct nnc_batch batch;
        int code = trainer_take_batch(trainer, &place, &batch);
        if (code < 0) {
            return code;
        }
        trainer_give_back(trainer, &batch);
        trainer->seq++;
        trainer_set(trainer, NNC_COUNT_SAMPLES, trainer->images);
        trainer_set(trainer, NNC_COUNT_PHASE_SAMPLES, trainer->images);
        trainer_set(trainer, NNC_COUNT_NS_WAIT, trainer->wait_ns);
        told = trainer_is_told_to_stop(trainer);
    }
    double seconds = (double)(nnc_clock_ns() - trainer->began_ns) * 1e-9;
    return told < 0 ? told : trainer_send_done(trainer, seconds);
}

/* ---- BENCH_TRAIN ---- */

static int bench_step(struct nnc_trainer *trainer, struct nnc_executable *executable,
                      const struct nnc_feed *feed) {
    const struct nnc_backend_ops *ops = nnc_engine_ops(trainer->params.engine);
    uint32_t batch = trainer->setup->schedule.batch;
    const struct nnc_step_params params = {.step = trainer->steps,
                                           .first = trainer->setup->number * batch,
                                           .global_count = trainer->setup->ranks * batch};
    trainer_beat(trainer, NNC_DOING_FORWARD);
    struct nnc_metrics metrics;
    uint32_t wish = WISH_NOTHING;
    int code = ops->feed(executable, feed);
    code = code < 0 ? code : ops->step(executable, &params);
    code = code < 0 ? code : ops->poll(nnc_engine_backend(trainer->params.engine), &metrics);
    code = code < 0 ? code : trainer_reduce(trainer);
    code = code < 0 ? code : trainer_agree(trainer, WISH_NOTHING, &wish);
    /* The same work as any update, but random labels can be learnt for ever without diverging. */
    code = code < 0 ? code : trainer_update(trainer, 0);
    trainer->stopping = wish == WISH_STOP;
    trainer->steps++;
    return code;
}

static int bench_steps(struct nnc_trainer *trainer, const struct nnc_feed *feed) {
    uint32_t batch = trainer->setup->schedule.batch;
    struct nnc_executable *executable =
        nnc_engine_executable(trainer->params.engine, NNC_PHASE_TRAIN, batch);
    uint32_t timed = trainer->setup->config.bench_steps;
    timed = timed > 0 ? timed : BENCH_STEPS;
    uint64_t began_ns = 0;
    for (uint32_t step = 0; step < WARMUP_STEPS + timed && !trainer->stopping; step++) {
        if (step == WARMUP_STEPS) {
            began_ns = nnc_clock_ns();
            trainer->images = 0;
            trainer->steps = 0;
        }
        int code = bench_step(trainer, executable, feed);
        if (code < 0) {
            return code;
        }
        trainer->images += batch;
        trainer_set(trainer, NNC_COUNT_SAMPLES, trainer->images);
        trainer_set(trainer, NNC_COUNT_STEP, trainer->steps);
    }
    return trainer_send_done(trainer, (double)(nnc_clock_ns() - began_ns) * 1e-9);
}

int trainer_make_synthetic(const struct nnc_trainer *trainer, struct trainer_synthetic *ret_batch) {
    uint32_t batch = trainer->setup->schedule.batch;
    struct nnc_shape input = nnc_engine_input(trainer->params.engine, NNC_PHASE_TRAIN);
    uint32_t classes = nnc_engine_model(trainer->params.engine)->classes;
    size_t sample_bytes = (size_t)input.c * input.h * input.w;
    uint8_t *images = malloc(batch * sample_bytes);
    int32_t *labels = malloc(batch * sizeof(*labels));
    *ret_batch = (struct trainer_synthetic){{images, sample_bytes, labels}, images, labels};
    if (images == NULL || labels == NULL) {
        return nnc_fail(-ENOMEM, "no memory for a synthetic batch");
    }
    struct nnc_rng rng =
        nnc_rng_make(trainer->setup->config.seed, NNC_RNG_SYNTHETIC, trainer->setup->number, 0);
    for (size_t i = 0; i < batch * sample_bytes; i++) {
        images[i] = (uint8_t)nnc_rng_u32(&rng);
    }
    for (uint32_t i = 0; i < batch; i++) {
        labels[i] = (int32_t)nnc_rng_below(&rng, classes);
    }
    return 0;
}

void trainer_free_synthetic(struct trainer_synthetic *batch) {
    free(batch->images);
    free(batch->labels);
}

int trainer_run_bench(struct nnc_trainer *trainer) {
    struct trainer_synthetic batch;
    int code = trainer_make_synthetic(trainer, &batch);
    code = code < 0 ? code : bench_steps(trainer, &batch.feed);
    trainer_free_synthetic(&batch);
    return code;
}
