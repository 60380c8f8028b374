/* SPDX-License-Identifier: Apache-2.0 */
/* Where a trainer begins and what it leaves behind: starting weights, snapshots.
 *
 *   rank 0: seed + --weights | checkpoint | snapshot -> tensors and state -> broadcast -> all
 * engines all ranks: sums of the epoch so far -> rank 0: tensors and state -> free half of the
 * snapshot memory
 *
 * Invariants:
 *   1. A resumed run has the tensors, the place and every rank's sums of the run it continues, so
 * its weights and its epoch lines are the same bits.
 *   2. Halves are written in turn, but a half that is being saved is left alone.
 *   3. All ranks know alike which place is on disk, because all take part in a snapshot or none.
 *   4. Running statistics are rank 0's wherever they are used: validation, snapshots.
 *
 * It does not decide when (train.c) and writes no files (saver.c). */
#include "workers/train_private.h"

#include "base/err.h"
#include "base/log.h"
#include "workers/checkpoint.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool is_training(const struct nnc_trainer *trainer) {
    return trainer->setup->mode == NNC_MODE_TRAIN;
}

/* Memory for the largest buffer parameter. */
static int allocate_buffer(struct nnc_trainer *trainer) {
    const struct nnc_graph *graph = nnc_engine_model(trainer->params.engine);
    uint64_t largest = 1;
    for (uint32_t number = 0; number < graph->param_count; number++) {
        const struct nnc_param *param = &graph->params[number];
        if (!nnc_state_is_trained(param) && param->count > largest) {
            largest = param->count;
        }
    }
    trainer->buffer = malloc(largest * sizeof(float));
    return trainer->buffer != NULL ? 0 : nnc_fail(-ENOMEM, "no memory for the trainer");
}

int trainer_init_state(struct nnc_trainer *trainer) {
    const struct nnc_setup *setup = trainer->setup;
    const struct nnc_schedule *schedule = &setup->schedule;
    trainer->stored_step = UINT64_MAX;
    trainer->state = (struct nnc_train_state){
        .ranks = setup->ranks,
        .steps_per_epoch = nnc_schedule_train_steps(schedule),
        .seed = setup->config.seed,
        .train_samples = schedule->train_samples,
        .global_batch = (uint64_t)schedule->ranks * schedule->batch,
        .acc1 = -1,
        .best_acc1 = -1,
    };
    if (trainer->params.engine == NULL) {
        return 0;
    }
    trainer->state.param_hash = nnc_state_param_hash(nnc_engine_model(trainer->params.engine));
    return allocate_buffer(trainer);
}

/* ---- start ---- */

static int start_fresh(struct nnc_trainer *trainer, float *ret_tensors) {
    const struct nnc_config *config = &trainer->setup->config;
    nnc_engine_init(trainer->params.engine, config->seed, ret_tensors);
    if (config->weights[0] == '\0') {
        return 0;
    }
    char *report;
    int code = nnc_engine_load_weights(trainer->params.engine, trainer->params.vfs, config->weights,
                                       config->strict, ret_tensors, &report);
    if (code < 0) {
        return code;
    }
    if (report[0] != '\0') {
        nnc_log(NNC_LOG_WARN, "%s: %s", config->weights, report);
    }
    free(report);
    return 0;
}

/* The state must fit the run. A checkpoint must be the one that the coordinator planned with; which
 * snapshot is whole nobody knows before it was read. */
static int accept_state(struct nnc_trainer *trainer, const struct nnc_train_state *stored) {
    if (!is_training(trainer)) {
        return 0;
    }
    const struct nnc_setup *setup = trainer->setup;
    int code = nnc_state_check(stored, &trainer->state);
    if (code < 0) {
        return code;
    }
    bool is_planned = stored->epoch == setup->start_epoch && stored->step == setup->start_step;
    if (setup->start == NNC_START_CHECKPOINT && !is_planned) {
        return nnc_fail(-NNC_E_CHECKPOINT,
                        "%s has epoch %" PRIu32 ", step %" PRIu64 ", planned was epoch %" PRIu32
                        ", step %" PRIu64,
                        setup->start_path, stored->epoch + 1, stored->step, setup->start_epoch + 1,
                        setup->start_step);
    }
    trainer->state = *stored;
    return 0;
}

static int start_from_checkpoint(struct nnc_trainer *trainer, float *ret_tensors) {
    struct nnc_checkpoint checkpoint;
    int code = nnc_checkpoint_open(trainer->params.vfs, trainer->setup->start_path, &checkpoint);
    code = code < 0 ? code
                    : nnc_checkpoint_load(trainer->params.vfs, &checkpoint,
                                          nnc_engine_model(trainer->params.engine), ret_tensors);
    code = code < 0 ? code : accept_state(trainer, &checkpoint.state);
    if (code == 0) {
        trainer->stored_epoch = checkpoint.state.epoch;
        trainer->stored_step = checkpoint.state.step;
    }
    return code;
}

/* The newest whole snapshot. A trainer that was killed while it wrote one left a torn half behind:
 * then the one before it, and when that is torn too, the newest checkpoint or the beginning. */
static int start_from_snapshot(struct nnc_trainer *trainer, float *ret_tensors) {
    const struct nnc_snapshot *snapshot = trainer->params.snapshot;
    const struct nnc_setup *setup = trainer->setup;
    uint32_t half;
    struct nnc_snapshot_info info;
    if (snapshot == NULL) {
        return nnc_fail(-NNC_E_FORMAT, "told to start from a snapshot that was not given");
    }
    if (nnc_snapshot_newest(snapshot, &half, &info) < 0) {
        bool has_checkpoint = setup->start_path[0] != '\0';
        nnc_log(NNC_LOG_WARN, "%s; going on from %s", nnc_error_text(),
                has_checkpoint ? setup->start_path : "the beginning");
        return has_checkpoint ? start_from_checkpoint(trainer, ret_tensors)
                              : start_fresh(trainer, ret_tensors);
    }
    if (info.state.epoch != setup->start_epoch || info.state.step != setup->start_step) {
        nnc_log(NNC_LOG_WARN,
                "the newest whole snapshot is of epoch %" PRIu32 ", step %" PRIu64
                ": going on from there",
                info.state.epoch + 1, info.state.step);
    }
    memcpy(ret_tensors, nnc_snapshot_tensors(snapshot, half), snapshot->floats * sizeof(float));
    trainer->half = 1 - half;
    return accept_state(trainer, &info.state);
}

static int start_rank_0(struct nnc_trainer *trainer, float *ret_tensors) {
    switch ((enum nnc_start)trainer->setup->start) {
    case NNC_START_FRESH:
        return start_fresh(trainer, ret_tensors);
    case NNC_START_CHECKPOINT:
        return start_from_checkpoint(trainer, ret_tensors);
    case NNC_START_SNAPSHOT:
        return start_from_snapshot(trainer, ret_tensors);
    }
    return nnc_fail(-NNC_E_FORMAT, "start %d is unknown", (int)trainer->setup->start);
}

/* Rank 0's state to all ranks, bit for bit. */
static int share_state(struct nnc_trainer *trainer) {
    float words[sizeof(trainer->state) / sizeof(float)];
    _Static_assert(sizeof(words) == sizeof(trainer->state), "the state is whole floats");
    memcpy(words, &trainer->state, sizeof(words));
    int code = nnc_comm_broadcast(trainer->params.comm, words, sizeof(words) / sizeof(words[0]));
    if (code == 0) {
        memcpy(&trainer->state, words, sizeof(words));
    }
    return code;
}

/* Each rank goes on with its own sums; when their number changed, rank 0 takes all. */
static void restore_sums(struct nnc_trainer *trainer) {
    const struct nnc_train_state *state = &trainer->state;
    if (state->ranks == trainer->setup->ranks) {
        trainer->sums = state->metrics[trainer->setup->number];
    } else if (trainer->setup->number == 0) {
        for (uint32_t rank = 0; rank < state->ranks; rank++) {
            const struct nnc_train_metrics *from = &state->metrics[rank];
            trainer->sums.loss_sum += from->loss_sum;
            trainer->sums.seconds = fmax(trainer->sums.seconds, from->seconds);
            trainer->sums.wait_seconds = fmax(trainer->sums.wait_seconds, from->wait_seconds);
            trainer->sums.count += from->count;
            trainer->sums.correct1 += from->correct1;
            trainer->sums.correct5 += from->correct5;
            trainer->sums.left_out += from->left_out;
        }
    }
    trainer->state.ranks = trainer->setup->ranks;
}

/* Where the run goes on. */
static int find_place(struct nnc_trainer *trainer) {
    const struct nnc_schedule *schedule = &trainer->setup->schedule;
    struct nnc_train_state *state = &trainer->state;
    if (!is_training(trainer)) {
        trainer->phase = schedule->train_samples > 0 ? NNC_PHASE_TRAIN : NNC_PHASE_VAL;
        return 0;
    }
    if (state->epoch > schedule->epochs) {
        return nnc_fail(-NNC_E_USAGE,
                        "the checkpoint has %" PRIu32 " epochs already, --epochs asks for %" PRIu32,
                        state->epoch, schedule->epochs);
    }
    trainer->phase = NNC_PHASE_TRAIN;
    if (state->epoch < schedule->epochs && state->step == state->steps_per_epoch) {
        if (nnc_schedule_val_steps(schedule, state->epoch) == 0) {
            state->epoch++;
            state->step = 0;
        } else {
            trainer->phase = NNC_PHASE_VAL;
        }
    }
    trainer->seq = nnc_schedule_seq(schedule, state->epoch, state->step);
    return 0;
}

static int restore_loss_scale(struct nnc_trainer *trainer) {
    const struct nnc_device_ops *device = trainer_device(trainer);
    const struct nnc_loss_scale scale = {.scale = trainer->state.loss_scale,
                                         .good_steps = trainer->state.loss_scale_steps};
    return device == NULL || scale.scale == 0
               ? 0
               : device->set_scale(nnc_engine_backend(trainer->params.engine), &scale);
}

/* What rank 0 tells of its start; others have nothing to tell. */
enum start_word {
    START_LOADED,
    START_STORED, /* and that place is on disk already */
    START_FAILED,
};

static int load_tensors(struct nnc_trainer *trainer, float *tensors) {
    int mine = trainer->setup->number == 0 ? start_rank_0(trainer, tensors) : 0;
    bool stored = trainer->stored_step != UINT64_MAX;
    uint32_t word = START_LOADED;
    char text[NNC_ERROR_TEXT_MAX];
    snprintf(text, sizeof(text), "%s", nnc_error_text());
    int code = nnc_comm_agree(trainer->params.comm,
                              mine < 0 ? START_FAILED
                              : stored ? START_STORED
                                       : START_LOADED,
                              &word);
    if (mine < 0) {
        return nnc_fail(mine, "%s", text);
    }
    if (code == 0 && word == START_FAILED) {
        code = nnc_fail(-NNC_E_COMM, "rank 0 could not load the weights");
    }
    if (code < 0) {
        return code;
    }
    size_t floats = nnc_engine_floats(trainer->params.engine);
    code = nnc_comm_broadcast(trainer->params.comm, tensors, floats);
    code = code < 0 ? code : share_state(trainer);
    if (code == 0 && word == START_STORED) {
        trainer->stored_epoch = trainer->state.epoch;
        trainer->stored_step = trainer->state.step;
    }
    code = code < 0 ? code : nnc_engine_set(trainer->params.engine, tensors);
    return code < 0 ? code : restore_loss_scale(trainer);
}

/* The ranks' devices find each other: rank 0's name for the communicator goes to all. All ranks
 * call it. */
static int join_devices(struct nnc_trainer *trainer, const struct nnc_device_ops *device) {
    uint8_t id[NNC_COMM_ID_BYTES] = {0};
    uint8_t all[NNC_MAX_RANKS][NNC_COMM_ID_BYTES];
    int code = trainer->setup->number == 0 ? device->comm_id(id) : 0;
    int told = nnc_comm_gather(trainer->params.comm, id, sizeof(id), all);
    code = code < 0 ? code : told;
    return code < 0 ? code : device->comm_open(nnc_engine_backend(trainer->params.engine), all[0]);
}

static int prepare_device(struct nnc_trainer *trainer) {
    const struct nnc_device_ops *device = trainer_device(trainer);
    struct nnc_backend *backend = nnc_engine_backend(trainer->params.engine);
    if (device == NULL) {
        return 0;
    }
    if (trainer->params.ring != NULL) {
        void *memory;
        size_t bytes;
        nnc_ring_pixels(trainer->params.ring, &memory, &bytes);
        int code = device->pin(backend, memory, bytes);
        if (code == -ENOTSUP) {
            nnc_log(NNC_LOG_INFO, "%s; batches are copied once more", nnc_error_text());
        } else if (code < 0) {
            return code;
        } else {
            trainer->pinned = memory;
        }
    }
    return trainer->setup->ranks > 1 ? join_devices(trainer, device) : 0;
}

int nnc_trainer_load(struct nnc_trainer *trainer) {
    if (trainer->params.engine == NULL) {
        return 0;
    }
    int prepared = prepare_device(trainer);
    if (prepared < 0) {
        return prepared;
    }
    size_t floats = nnc_engine_floats(trainer->params.engine);
    float *tensors = calloc(floats + 1, sizeof(float));
    if (tensors == NULL) {
        return nnc_fail(-ENOMEM, "no memory for %zu starting values", floats);
    }
    int code = load_tensors(trainer, tensors);
    free(tensors);
    if (code < 0) {
        return code;
    }
    restore_sums(trainer);
    return find_place(trainer);
}

/* ---- snapshots ---- */

bool trainer_is_due(const struct nnc_trainer *trainer, uint64_t before, uint64_t after) {
    double every = trainer->setup->config.save_every;
    double steps = (double)trainer->state.steps_per_epoch;
    if (every <= 0 || steps == 0) {
        return false;
    }
    /* The small number makes 3 * 0.1 epochs count as 0.3 of them. */
    return floor((double)after / steps / every + 1e-9) >
           floor((double)before / steps / every + 1e-9);
}

bool trainer_is_stored(const struct nnc_trainer *trainer) {
    return trainer->stored_step == trainer->state.step &&
           trainer->stored_epoch == trainer->state.epoch;
}

/* Loss scaling belongs to the state of a run on a device. */
static int keep_loss_scale(struct nnc_trainer *trainer) {
    const struct nnc_device_ops *device = trainer_device(trainer);
    struct nnc_loss_scale scale;
    if (device == NULL) {
        return 0;
    }
    int code = device->get_scale(nnc_engine_backend(trainer->params.engine), &scale);
    if (code == 0) {
        trainer->state.loss_scale = scale.scale;
        trainer->state.loss_scale_steps = scale.good_steps;
    }
    return code;
}

/* Rank 0: tensors and state into the free half, then tell the coordinator. */
static int store_snapshot(struct nnc_trainer *trainer, bool durable, bool for_stop) {
    const struct nnc_snapshot *snapshot = trainer->params.snapshot;
    if (snapshot == NULL) {
        return 0;
    }
    uint32_t half = nnc_snapshot_choose(snapshot, trainer->half);
    int code = nnc_engine_get(trainer->params.engine, nnc_snapshot_begin(snapshot, half));
    if (code < 0) {
        return code;
    }
    const struct nnc_msg_snapshot message = {
        .half = half,
        .epoch = trainer->state.epoch,
        .step = trainer->state.step,
        .hash = nnc_snapshot_commit(snapshot, half, &trainer->state),
        .for_stop = for_stop,
        .durable = durable,
    };
    trainer->half = 1 - half;
    return trainer_send(trainer, NNC_MSG_SNAPSHOT, &message, sizeof(message));
}

int trainer_snapshot(struct nnc_trainer *trainer, bool durable, bool for_stop) {
    trainer_beat(trainer, NNC_DOING_SNAPSHOT);
    int code = trainer_settle(trainer);
    code = code < 0 ? code : trainer_check_finite(trainer);
    code = code < 0 ? code : keep_loss_scale(trainer);
    if (code < 0) {
        return code;
    }
    struct nnc_train_metrics own = trainer_training_sums(trainer);
    code = nnc_comm_gather(trainer->params.comm, &own, sizeof(own), trainer->state.metrics);
    if (code == 0 && trainer->setup->number == 0) {
        code = store_snapshot(trainer, durable, for_stop);
    }
    if (code == 0 && durable) {
        trainer->stored_epoch = trainer->state.epoch;
        trainer->stored_step = trainer->state.step;
    }
    return code;
}

int trainer_share_buffers(struct nnc_trainer *trainer) {
    if (trainer->setup->ranks == 1) {
        return 0;
    }
    const struct nnc_graph *graph = nnc_engine_model(trainer->params.engine);
    const struct nnc_backend_ops *ops = nnc_engine_ops(trainer->params.engine);
    struct nnc_backend *backend = nnc_engine_backend(trainer->params.engine);
    for (uint32_t number = 0; number < graph->param_count; number++) {
        const struct nnc_param *param = &graph->params[number];
        if (nnc_state_is_trained(param)) {
            continue;
        }
        int code = ops->get(backend, NNC_STATE_VALUE, number, trainer->buffer);
        code = code < 0 ? code
                        : nnc_comm_broadcast(trainer->params.comm, trainer->buffer, param->count);
        code = code < 0 ? code : ops->set(backend, NNC_STATE_VALUE, number, trainer->buffer);
        if (code < 0) {
            return nnc_fail_in(code, "%s", param->name);
        }
    }
    return 0;
}
