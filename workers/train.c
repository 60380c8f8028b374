/* SPDX-License-Identifier: Apache-2.0 */
/* The trainer's loop over the schedule.
 *
 *   training batch:    wait -> feed -> give the slot back -> forward, backward -> sum gradients
 * over ranks -> agree -> update -> (snapshot) -> next validation batch:  wait -> feed -> give the
 * slot back -> forward -> agree -> (snapshot) -> next
 *
 * After each batch the ranks agree on the strongest wish among them (nothing, snapshot, stop,
 * fail), so that all of them act at the same step and none waits for a peer that has left. A rank
 * without samples in a step adds zero gradients and takes part.
 *
 * Invariants:
 *   1. Between two batches the state is complete: trainer->state says where, the engine holds the
 * tensors and trainer->sums the training phase so far. Snapshots are taken there only.
 *   2. Gradients are d(loss sum)/(samples of the step over all ranks), so the sum over ranks is the
 *      gradient of the mean loss, and no rank scales anything.
 *   3. Nothing is allocated between START and the end.
 *
 * It does not overlap the reduction with the backward pass, and writes no files but the audit.
 *
 * Source: Goyal et al., "Accurate, large minibatch SGD", arXiv 1706.02677, section 3 (scaling of
 * gradients over workers). */
#include "workers/train.h"

#include "base/clock.h"
#include "base/err.h"
#include "workers/lr.h"
#include "workers/train_private.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    WAIT_SLICE_MS = 100,
    COPY_SLICE_MS = 1, /* while a device is still copying batches */
    COPY_PAUSE_NS = 200000,
    AUDIT_LINE_MAX = 128,
};

/* ---- batches ---- */

static int write_audit(const struct nnc_trainer *trainer, const struct nnc_batch_place *place,
                       const struct nnc_batch *batch) {
    size_t used = 0;
    for (uint32_t i = 0; i < batch->count; i++) {
        used += (size_t)snprintf(
            trainer->audit + used, AUDIT_LINE_MAX,
            "%s %" PRIu32 " %" PRIu64 " %" PRIu32 " %" PRIu64 " %" PRIu32 " %" PRIu32 "\n",
            place->phase == NNC_PHASE_TRAIN ? "train" : "val", place->epoch, place->step,
            trainer->setup->number, place->first + i, batch->samples[i], batch->status[i]);
    }
    size_t done = 0;
    while (done < used) { /* one write appends atomically; a short one is a full disk */
        ssize_t put = write(trainer->params.audit_fd, trainer->audit + done, used - done);
        if (put < 0 && errno != EINTR) {
            return nnc_fail(-NNC_E_CHECKPOINT, "--audit %s cannot be written: %s",
                            trainer->setup->config.audit, strerror(errno));
        }
        done += put > 0 ? (size_t)put : 0;
    }
    return 0;
}

/* Give back the slots of batches that the device has copied. */
static int give_back_copied(struct nnc_trainer *trainer) {
    uint64_t copied = 0;
    uint32_t done = 0;
    if (trainer->held_count == 0) {
        return 0;
    }
    int code = trainer_device(trainer)->fed(nnc_engine_backend(trainer->params.engine), &copied);
    while (code == 0 && done < trainer->held_count && trainer->held[done].feed <= copied) {
        trainer_give_back(trainer, &trainer->held[done++].batch);
    }
    trainer->held_count -= done;
    memmove(trainer->held, trainer->held + done, trainer->held_count * sizeof(trainer->held[0]));
    return code;
}

/* The slot of the next batch is one that the device has copied. */
static int free_slot(struct nnc_trainer *trainer) {
    int code = give_back_copied(trainer);
    while (code == 0 && trainer->held_count == trainer->setup->geometry.slots) {
        nnc_clock_sleep_ns(COPY_PAUSE_NS);
        trainer_beat(trainer, NNC_DOING_DATA);
        code = give_back_copied(trainer);
    }
    return code;
}

/* Wait for batch trainer->seq. */
static int acquire(struct nnc_trainer *trainer, struct nnc_batch *ret_batch) {
    struct nnc_ring *ring = trainer->params.ring;
    int code = free_slot(trainer);
    code = code < 0 ? code : nnc_ring_acquire(ring, trainer->seq, 0, ret_batch);
    trainer->was_ready = code == 0;
    while (code == -ETIMEDOUT) {
        trainer_beat(trainer, NNC_DOING_DATA);
        code = give_back_copied(trainer);
        int slice_ms = trainer->held_count > 0 ? COPY_SLICE_MS : WAIT_SLICE_MS;
        code = code < 0 ? code : nnc_ring_acquire(ring, trainer->seq, slice_ms, ret_batch);
    }
    return code;
}

int trainer_take_batch(struct nnc_trainer *trainer, struct nnc_batch_place *ret_place,
                       struct nnc_batch *ret_batch) {
    struct nnc_batch_place place;
    const struct nnc_setup *setup = trainer->setup;
    int code = nnc_schedule_locate(&setup->schedule, setup->number, trainer->seq, &place);
    if (code < 0) {
        return code;
    }
    uint64_t began_ns = nnc_clock_ns();
    trainer_set(trainer, NNC_COUNT_SEQ, trainer->seq);
    trainer_beat(trainer, NNC_DOING_DATA);
    code = acquire(trainer, ret_batch);
    uint64_t waited_ns = nnc_clock_ns() - began_ns;
    trainer->wait_ns += waited_ns;
    trainer->sums.wait_seconds += (double)waited_ns * 1e-9;
    if (code < 0) {
        return code;
    }
    *ret_place = place;
    return trainer->params.audit_fd >= 0 ? write_audit(trainer, &place, ret_batch) : 0;
}

/* Give the slot of batch seq - slots to batch seq, or close it when there is none. */
static void open_slot(struct nnc_trainer *trainer, uint64_t seq) {
    struct nnc_batch_place place;
    const struct nnc_setup *setup = trainer->setup;
    if (seq >= trainer->total) {
        nnc_ring_close_slot(trainer->params.ring, seq);
        return;
    }
    int code = nnc_schedule_locate(&setup->schedule, setup->number, seq, &place);
    assert(code == 0);
    nnc_ring_recycle(trainer->params.ring, seq, place.count);
}

void trainer_open_slots(struct nnc_trainer *trainer) {
    for (uint32_t slot = 0; slot < trainer->setup->geometry.slots; slot++) {
        open_slot(trainer, trainer->seq + slot);
    }
}

void trainer_give_back(struct nnc_trainer *trainer, const struct nnc_batch *batch) {
    nnc_ring_release(trainer->params.ring, batch->seq);
    open_slot(trainer, batch->seq + trainer->setup->geometry.slots);
    trainer->images += batch->count;
}

/* In the order of batches; feed 0: the batch was not fed. */
static int give_back_fed(struct nnc_trainer *trainer, const struct nnc_batch *batch,
                         uint64_t feed) {
    if (trainer_device(trainer) == NULL) {
        trainer_give_back(trainer, batch);
        return 0;
    }
    assert(trainer->held_count < TRAINER_HELD_MAX);
    trainer->held[trainer->held_count++] = (struct trainer_held){.batch = *batch, .feed = feed};
    return give_back_copied(trainer);
}

static int check_labels(const struct nnc_trainer *trainer, const struct nnc_batch *batch) {
    int64_t classes = nnc_engine_model(trainer->params.engine)->classes;
    for (uint32_t i = 0; i < batch->count; i++) {
        if (batch->labels[i] < -1 || batch->labels[i] >= classes) {
            return nnc_fail(-NNC_E_FORMAT,
                            "sample %" PRIu32 " has label %" PRId32
                            ", but the model has classes 0 to %" PRId64,
                            batch->samples[i], batch->labels[i], classes - 1);
        }
    }
    return 0;
}

/* Give the batch to the executable and its slot back to the loaders, as soon as it may be. */
static int feed_batch(struct nnc_trainer *trainer, struct nnc_executable *executable,
                      const struct nnc_batch *batch) {
    int code = check_labels(trainer, batch);
    if (code < 0) {
        return code;
    }
    for (uint32_t i = 0; i < batch->count; i++) {
        trainer->bad += batch->status[i] == NNC_SAMPLE_BAD;
    }
    const struct nnc_feed feed = {
        .images = batch->images, .sample_stride = batch->sample_bytes, .labels = batch->labels};
    code = nnc_engine_ops(trainer->params.engine)->feed(executable, &feed);
    trainer->feeds++;
    if (code < 0) {
        return code;
    }
    return give_back_fed(trainer, batch, trainer->feeds);
}

/* ---- steps ---- */

int trainer_reduce(struct nnc_trainer *trainer) {
    const struct nnc_backend_ops *ops = nnc_engine_ops(trainer->params.engine);
    struct nnc_backend *backend = nnc_engine_backend(trainer->params.engine);
    bool sums_here = trainer->setup->ranks > 1 && ops->device == NULL;
    uint32_t buckets = sums_here ? nnc_engine_bucket_count(trainer->params.engine) : 0;
    trainer_beat(trainer, NNC_DOING_REDUCE);
    for (uint32_t bucket = 0; bucket < buckets; bucket++) {
        float *values;
        size_t count;
        int code = ops->bucket(backend, bucket, &values, &count);
        code = code < 0 ? code : nnc_comm_allreduce(trainer->params.comm, values, count);
        if (code < 0) {
            return nnc_fail_in(code, "gradient bucket %" PRIu32, bucket);
        }
        trainer->collectives++;
    }
    if (ops->device == NULL) { /* a device's are counted while it is waited for */
        trainer_set(trainer, NNC_COUNT_COLLECTIVES, trainer->collectives);
    }
    return 0;
}

int trainer_agree(struct nnc_trainer *trainer, uint32_t own_wish, uint32_t *ret_wish) {
    int asked;
    while ((asked = trainer->params.link.ops->poll(trainer->params.link.context)) > 0) {
        uint32_t wish = asked == NNC_MSG_STOP ? WISH_STOP : WISH_SNAPSHOT;
        trainer->wish = wish > trainer->wish ? wish : trainer->wish;
    }
    if (asked < 0) {
        return nnc_fail(asked, "the coordinator is gone");
    }
    uint32_t wish = own_wish > trainer->wish ? own_wish : trainer->wish;
    int code = nnc_comm_agree(trainer->params.comm, wish, &wish);
    if (code < 0) {
        return code;
    }
    trainer->wish = WISH_NOTHING; /* granted: the agreed wish is at least as strong */
    *ret_wish = wish;
    return 0;
}

static struct nnc_sgd sgd_of(const struct nnc_config *config, double lr) {
    double decay = config->weight_decay;
    double bias = config->bias_weight_decay < 0 ? decay : config->bias_weight_decay;
    double norm = config->norm_weight_decay < 0 ? decay : config->norm_weight_decay;
    struct nnc_sgd sgd = {.lr = (float)lr,
                          .momentum = (float)config->momentum,
                          .nesterov = config->nesterov,
                          .trust = (float)config->lars};
    sgd.weight_decay[NNC_PARAM_WEIGHT] = (float)decay;
    sgd.weight_decay[NNC_PARAM_BIAS] = (float)bias;
    sgd.weight_decay[NNC_PARAM_NORM] = (float)norm;
    return sgd;
}

int trainer_update(struct nnc_trainer *trainer, double lr) {
    const struct nnc_sgd sgd = sgd_of(&trainer->setup->config, lr);
    trainer->lr = lr;
    trainer_beat(trainer, NNC_DOING_UPDATE);
    return nnc_engine_ops(trainer->params.engine)
        ->update(nnc_engine_backend(trainer->params.engine), &sgd);
}

/* Add the backend's metrics to the phase's sums: those of the steps that are done. */
static int add_metrics(struct nnc_trainer *trainer) {
    struct nnc_metrics metrics;
    int code = nnc_engine_ops(trainer->params.engine)
                   ->poll(nnc_engine_backend(trainer->params.engine), &metrics);
    if (code < 0) {
        return code;
    }
    trainer->sums.loss_sum += metrics.loss_sum;
    trainer->sums.count += metrics.count;
    trainer->sums.left_out += metrics.left_out;
    trainer->sums.correct1 += metrics.correct1;
    trainer->sums.correct5 += metrics.correct5;
    return 0;
}

static void show_progress(struct nnc_trainer *trainer, const struct nnc_batch_place *place) {
    uint64_t now_ns = nnc_clock_ns();
    trainer_set(trainer, NNC_COUNT_SAMPLES, trainer->images);
    trainer_set(trainer, NNC_COUNT_PHASE_SAMPLES, trainer->sums.count);
    trainer_set(trainer, NNC_COUNT_CORRECT1, trainer->sums.correct1);
    trainer_set(trainer, NNC_COUNT_STEP, nnc_state_global_step(&trainer->state));
    trainer_set(trainer, NNC_COUNT_EPOCH, place->epoch);
    trainer_set(trainer, NNC_COUNT_NS_WAIT, trainer->wait_ns);
    trainer_set(trainer, NNC_COUNT_NS_BUSY, now_ns - trainer->began_ns - trainer->wait_ns);
    trainer->params.link.ops->progress(trainer->params.link.context, place->phase,
                                       trainer->sums.loss_sum, trainer->lr);
}

/* A sign of life in a long backward pass. */
static void on_bucket(void *context, uint32_t bucket) {
    (void)bucket;
    trainer_beat(context, NNC_DOING_BACKWARD);
}

/* Forward and backward of this rank's samples; *ret_wish is WISH_FAIL when the loss is not finite.
 */
static int compute_gradients(struct nnc_trainer *trainer, const struct nnc_batch_place *place,
                             const struct nnc_batch *batch, uint32_t *ret_wish) {
    const struct nnc_backend_ops *ops = nnc_engine_ops(trainer->params.engine);
    if (batch->count == 0) {
        int code = give_back_fed(trainer, batch, 0);
        return code < 0 ? code : ops->zero_gradients(nnc_engine_backend(trainer->params.engine));
    }
    struct nnc_executable *executable =
        nnc_engine_executable(trainer->params.engine, NNC_PHASE_TRAIN, batch->count);
    uint64_t global_first = place->step * trainer->state.global_batch;
    const struct nnc_step_params params = {.step = nnc_state_global_step(&trainer->state),
                                           .first = (uint32_t)(place->first - global_first),
                                           .global_count = place->global_count,
                                           .bucket_ready = on_bucket,
                                           .context = trainer};
    trainer_beat(trainer, NNC_DOING_FORWARD);
    int code = feed_batch(trainer, executable, batch);
    code = code < 0 ? code : ops->step(executable, &params);
    code = code < 0 ? code : add_metrics(trainer);
    if (code == 0 && !isfinite(trainer->sums.loss_sum)) {
        *ret_wish = WISH_FAIL;
    }
    return code;
}

/* ---- phases ---- */

/* Sums of this rank's current phase with the time until now. */
static struct nnc_train_metrics sums_now(const struct nnc_trainer *trainer) {
    struct nnc_train_metrics sums = trainer->sums;
    sums.seconds += (double)(nnc_clock_ns() - trainer->phase_began_ns) * 1e-9;
    return sums;
}

struct nnc_train_metrics trainer_training_sums(const struct nnc_trainer *trainer) {
    return trainer->phase == NNC_PHASE_TRAIN ? sums_now(trainer) : (struct nnc_train_metrics){0};
}

int trainer_settle(struct nnc_trainer *trainer) {
    const struct nnc_device_ops *device = trainer_device(trainer);
    if (device == NULL) {
        return 0;
    }
    int code = device->finish(nnc_engine_backend(trainer->params.engine));
    code = code < 0 ? code : add_metrics(trainer);
    return code < 0 ? code : give_back_copied(trainer);
}

/* Report the phase's sums and begin the next phase with none. *ret_sums: what was reported. */
static int end_phase(struct nnc_trainer *trainer, const struct nnc_batch_place *place,
                     struct nnc_train_metrics *ret_sums) {
    int code = trainer_settle(trainer);
    if (code < 0) {
        return code;
    }
    struct nnc_train_metrics sums = sums_now(trainer);
    const struct nnc_msg_eval eval = {.phase = place->phase,
                                      .epoch = place->epoch,
                                      .step = trainer->state.step,
                                      .count = sums.count,
                                      .correct1 = sums.correct1,
                                      .correct5 = sums.correct5,
                                      .left_out = sums.left_out,
                                      .bad = trainer->bad,
                                      .loss_sum = sums.loss_sum,
                                      .seconds = sums.seconds,
                                      .wait_seconds = sums.wait_seconds};
    trainer->sums = (struct nnc_train_metrics){0};
    trainer->bad = 0;
    trainer->phase_began_ns = nnc_clock_ns();
    *ret_sums = sums;
    return trainer_send(trainer, NNC_MSG_EVAL, &eval, sizeof(eval));
}

/* The epoch and all its validation are over. */
static void end_epoch(struct nnc_trainer *trainer) {
    trainer->phase = NNC_PHASE_TRAIN;
    trainer->state.epoch++;
    trainer->state.step = 0;
}

/* Validation accuracy over all ranks. */
static int note_accuracy(struct nnc_trainer *trainer, const struct nnc_train_metrics *own) {
    struct nnc_train_metrics all[NNC_MAX_RANKS];
    int code = nnc_comm_gather(trainer->params.comm, own, sizeof(*own), all);
    if (code < 0) {
        return code;
    }
    uint64_t count = 0, correct = 0;
    for (uint32_t rank = 0; rank < trainer->setup->ranks; rank++) {
        count += all[rank].count;
        correct += all[rank].correct1;
    }
    struct nnc_train_state *state = &trainer->state;
    state->acc1 = count > 0 ? (double)correct / (double)count : 0;
    state->best_acc1 = state->acc1 > state->best_acc1 ? state->acc1 : state->best_acc1;
    return 0;
}

/* What follows the last training batch of an epoch. */
static int end_training(struct nnc_trainer *trainer, const struct nnc_batch_place *place) {
    struct nnc_train_metrics sums;
    int code = end_phase(trainer, place, &sums);
    if (code < 0) {
        return code;
    }
    if (nnc_schedule_val_steps(&trainer->setup->schedule, place->epoch) == 0) {
        end_epoch(trainer);
        return 0;
    }
    trainer->phase = NNC_PHASE_VAL;
    return trainer_share_buffers(trainer);
}

/* Take the snapshot that the wish, --save-every or the end of the epoch calls for: one at most. */
static int serve_wish(struct nnc_trainer *trainer, uint32_t wish, bool is_due) {
    if (trainer->setup->mode != NNC_MODE_TRAIN) {
        trainer->stopping = wish == WISH_STOP;
        return 0;
    }
    if (wish == WISH_STOP) {
        trainer->stopping = true;
        return trainer_snapshot(trainer, true, true);
    }
    if (wish == WISH_SNAPSHOT || is_due) {
        return trainer_snapshot(trainer, is_due, false);
    }
    return 0;
}

static int fail_numeric(uint32_t epoch, uint64_t step, double lr) {
    return nnc_fail(-NNC_E_NUMERIC,
                    "the loss is not finite in epoch %" PRIu32 ", step %" PRIu64
                    " (learning rate %g): try a smaller --lr or a longer --lr-warmup-epochs",
                    epoch + 1, step, lr);
}

int trainer_check_finite(const struct nnc_trainer *trainer) {
    const struct nnc_train_state *state = &trainer->state;
    return isfinite(trainer->sums.loss_sum) ? 0
                                            : fail_numeric(state->epoch, state->step, trainer->lr);
}

static int train_batch(struct nnc_trainer *trainer, const struct nnc_batch_place *place,
                       const struct nnc_batch *batch) {
    uint32_t wish = WISH_NOTHING;
    int code = compute_gradients(trainer, place, batch, &wish);
    code = code < 0 ? code : trainer_reduce(trainer);
    code = code < 0 ? code : trainer_agree(trainer, wish, &wish);
    if (code < 0) {
        return code;
    }
    double lr = nnc_lr_at(&trainer->setup->config, place->epoch, place->step,
                          trainer->state.steps_per_epoch);
    if (wish == WISH_FAIL) {
        return fail_numeric(place->epoch, place->step, lr);
    }
    code = trainer_update(trainer, lr);
    if (code < 0) {
        return nnc_fail_in(code, "epoch %" PRIu32 ", step %" PRIu64, place->epoch + 1, place->step);
    }
    uint64_t before = nnc_state_global_step(&trainer->state);
    trainer->seq++;
    trainer->steps++;
    trainer->state.step = place->step + 1;
    trainer->state.acc1 = -1;
    show_progress(trainer, place);
    bool is_due = trainer_is_due(trainer, before, before + 1);
    if (place->is_last) {
        code = end_training(trainer, place);
        is_due = is_due && trainer->phase == NNC_PHASE_TRAIN; /* else after the validation */
    }
    return code < 0 ? code : serve_wish(trainer, wish, is_due);
}

static int evaluate_batch(struct nnc_trainer *trainer, const struct nnc_batch *batch) {
    struct nnc_executable *executable =
        nnc_engine_executable(trainer->params.engine, NNC_PHASE_VAL, batch->count);
    if (trainer->setup->mode == NNC_MODE_PREDICT) {
        trainer_keep_numbers(trainer, batch); /* the slot goes back before the logits are there */
    }
    int code = feed_batch(trainer, executable, batch);
    code = code < 0 ? code : nnc_engine_ops(trainer->params.engine)->evaluate(executable);
    code = code < 0 ? code : add_metrics(trainer);
    if (code == 0 && trainer->setup->mode == NNC_MODE_PREDICT) {
        code = trainer_send_logits(trainer, executable, batch->count);
    }
    return code;
}

static int validate_batch(struct nnc_trainer *trainer, const struct nnc_batch_place *place,
                          const struct nnc_batch *batch) {
    uint32_t wish = WISH_NOTHING;
    int code = 0;
    trainer_beat(trainer, NNC_DOING_EVAL);
    if (batch->count > 0) {
        code = evaluate_batch(trainer, batch);
    } else {
        code = give_back_fed(trainer, batch, 0);
    }
    code = code < 0 ? code : trainer_agree(trainer, WISH_NOTHING, &wish);
    if (code < 0) {
        return code;
    }
    trainer->seq++;
    show_progress(trainer, place);
    if (!place->is_last) {
        return serve_wish(trainer, wish, false);
    }
    struct nnc_train_metrics sums;
    uint64_t after = ((uint64_t)place->epoch + 1) * trainer->state.steps_per_epoch;
    code = end_phase(trainer, place, &sums);
    code = code < 0 ? code : note_accuracy(trainer, &sums);
    end_epoch(trainer);
    bool is_due = after > 0 && trainer_is_due(trainer, after - 1, after);
    return code < 0 ? code : serve_wish(trainer, wish, is_due);
}

/* ---- the run ---- */

static int run_batch(struct nnc_trainer *trainer) {
    struct nnc_batch_place place;
    struct nnc_batch batch;
    int code = trainer_take_batch(trainer, &place, &batch);
    if (code < 0) {
        return code;
    }
    return place.phase == NNC_PHASE_TRAIN ? train_batch(trainer, &place, &batch)
                                          : validate_batch(trainer, &place, &batch);
}

int trainer_send_done(struct nnc_trainer *trainer, double seconds) {
    struct nnc_msg_done done = {.steps = trainer->steps,
                                .images = trainer->images,
                                .seconds = seconds,
                                .wait_seconds = (double)trainer->wait_ns * 1e-9,
                                .utilisation = -1.0};
    if (trainer->params.engine != NULL && trainer->setup->number == 0) {
        int code = nnc_engine_weights_sha256(trainer->params.engine, done.weights_sha256);
        if (code < 0) {
            return code;
        }
    }
    return trainer_send(trainer, NNC_MSG_DONE, &done, sizeof(done));
}

static int run_schedule(struct nnc_trainer *trainer) {
    trainer_open_slots(trainer);
    int code = 0;
    while (code == 0 && trainer->seq < trainer->total && !trainer->stopping) {
        code = run_batch(trainer);
    }
    if (code == 0 && !trainer->stopping && trainer->setup->mode == NNC_MODE_TRAIN &&
        !trainer_is_stored(trainer)) {
        code = trainer_snapshot(trainer, true, false);
    }
    code = code < 0 ? code : trainer_settle(trainer);
    if (code < 0) {
        return code;
    }
    return trainer_send_done(trainer, (double)(nnc_clock_ns() - trainer->began_ns) * 1e-9);
}

int nnc_trainer_run(struct nnc_trainer *trainer) {
    trainer->began_ns = trainer->phase_began_ns = nnc_clock_ns();
    int code;
    switch ((enum nnc_mode)trainer->setup->mode) {
    case NNC_MODE_BENCH_INPUT:
        code = trainer_run_bench_input(trainer);
        break;
    case NNC_MODE_CHECK:
        code = trainer_run_check(trainer);
        break;
    case NNC_MODE_BENCH_TRAIN:
        code = trainer_run_bench(trainer);
        break;
    case NNC_MODE_BENCH_COMM:
        code = trainer_run_bench_comm(trainer);
        break;
    default:
        code = run_schedule(trainer);
        break;
    }
    return code;
}

/* ---- life ---- */

static int allocate(struct nnc_trainer *trainer) {
    size_t batch = trainer->setup->schedule.batch;
    if (trainer->params.audit_fd >= 0) {
        trainer->audit = malloc(batch * AUDIT_LINE_MAX + 1);
    }
    if (trainer->setup->mode == NNC_MODE_PREDICT) {
        size_t classes = nnc_engine_model(trainer->params.engine)->classes;
        trainer->logits = malloc(batch * classes * sizeof(float));
        trainer->kept_samples = calloc(batch, sizeof(*trainer->kept_samples));
        trainer->kept_status = calloc(batch, sizeof(*trainer->kept_status));
    }
    bool complete = trainer->params.audit_fd < 0 || trainer->audit != NULL;
    if (trainer->setup->mode == NNC_MODE_PREDICT) {
        complete = complete && trainer->logits != NULL && trainer->kept_samples != NULL &&
                   trainer->kept_status != NULL;
    }
    return complete ? 0 : nnc_fail(-ENOMEM, "no memory for the trainer");
}

int nnc_trainer_create(const struct nnc_trainer_params *params, struct nnc_trainer **ret_trainer) {
    struct nnc_trainer *trainer = calloc(1, sizeof(*trainer));
    if (trainer == NULL) {
        return nnc_fail(-ENOMEM, "no memory for the trainer");
    }
    trainer->params = *params;
    trainer->setup = params->setup;
    int code = allocate(trainer);
    code = code < 0 ? code : trainer_init_state(trainer);
    if (code < 0) {
        nnc_trainer_destroy(trainer);
        return code;
    }
    trainer->total = nnc_schedule_total(&trainer->setup->schedule);
    *ret_trainer = trainer;
    return 0;
}

void nnc_trainer_destroy(struct nnc_trainer *trainer) {
    if (trainer == NULL) {
        return;
    }
    if (trainer->pinned != NULL) {
        trainer_device(trainer)->unpin(nnc_engine_backend(trainer->params.engine), trainer->pinned);
    }
    free(trainer->audit);
    free(trainer->logits);
    free(trainer->kept_samples);
    free(trainer->kept_status);
    free(trainer->buffer);
    free(trainer);
}
