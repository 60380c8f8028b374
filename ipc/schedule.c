/* SPDX-License-Identifier: Apache-2.0 */
/* Arithmetic of the schedule: which batch number means which samples.
 *
 * With T training steps an epoch, V steps a validation and E(e) validations before epoch e, the
 * batches of epoch e begin at number
 *
 *   base(e) = e * T + E(e) * V
 *
 * and are numbered training first, validation behind it. locate() searches the epoch by bisection
 * on base(), which never decreases.
 *
 * Invariants:
 *   1. Over all ranks, the slices of one phase of one epoch tile [0, min(samples, steps * G))
 * without gap or overlap: each sample exactly once at any number of ranks.
 *   2. locate(seq(epoch, step)) is (epoch, step) again for every training step.
 *   3. No product overflows in a schedule that nnc_schedule_check() has passed; the others assert
 * it.
 *
 * Does not know about permutations: k is a place in the epoch, the sampler turns it into a sample.
 */
#include "ipc/schedule.h"

#include "base/config.h"
#include "base/err.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>

/* Largest batch of a ring (ipc/ring.h). */
#define BATCH_MAX 10000u

static uint64_t minimum(uint64_t left, uint64_t right) {
    return left < right ? left : right;
}

static uint64_t global_batch(const struct nnc_schedule *schedule) {
    assert(schedule->ranks >= 1 && schedule->batch >= 1);
    return (uint64_t)schedule->ranks * schedule->batch;
}

/* Steps that `samples` make, the last one short unless it is dropped. */
static uint64_t count_steps(const struct nnc_schedule *schedule, uint64_t samples,
                            uint32_t drop_last, uint32_t limit) {
    uint64_t global = global_batch(schedule);
    uint64_t steps = samples / global;
    if (samples % global != 0 && !drop_last) {
        steps++;
    }
    return limit == 0 ? steps : minimum(steps, limit);
}

/* Steps of one validation, whether or not an epoch has it. */
static uint64_t validation_steps(const struct nnc_schedule *schedule) {
    return count_steps(schedule, schedule->val_samples, 0, schedule->limit_val_steps);
}

/* Validations of all epochs below `epoch`. */
static uint64_t validations_before(const struct nnc_schedule *schedule, uint32_t epoch) {
    assert(epoch <= schedule->epochs);
    uint64_t regular = schedule->eval_every == 0 ? 0 : epoch / schedule->eval_every;
    bool last_is_extra = schedule->eval_every == 0 || schedule->epochs % schedule->eval_every != 0;
    return epoch == schedule->epochs && last_is_extra ? regular + 1 : regular;
}

/* Number of the first batch of an epoch; the total for epoch == epochs. */
static uint64_t base_of(const struct nnc_schedule *schedule, uint32_t epoch) {
    return epoch * nnc_schedule_train_steps(schedule) +
           validations_before(schedule, epoch) * validation_steps(schedule);
}

/* The largest epoch whose batches begin at or below seq. */
static uint32_t epoch_of(const struct nnc_schedule *schedule, uint64_t seq) {
    uint32_t low = 0;
    uint32_t high = schedule->epochs;
    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;
        if (base_of(schedule, middle) <= seq) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return low;
}

uint64_t nnc_schedule_train_steps(const struct nnc_schedule *schedule) {
    return count_steps(schedule, schedule->train_samples, schedule->drop_last,
                       schedule->limit_train_steps);
}

uint64_t nnc_schedule_val_steps(const struct nnc_schedule *schedule, uint32_t epoch) {
    if (epoch >= schedule->epochs) {
        return 0;
    }
    bool has_one = validations_before(schedule, epoch + 1) > validations_before(schedule, epoch);
    return has_one ? validation_steps(schedule) : 0;
}

uint64_t nnc_schedule_total(const struct nnc_schedule *schedule) {
    return base_of(schedule, schedule->epochs);
}

int nnc_schedule_locate(const struct nnc_schedule *schedule, uint32_t rank, uint64_t seq,
                        struct nnc_batch_place *ret_place) {
    assert(rank < schedule->ranks);
    uint64_t total = nnc_schedule_total(schedule);
    if (seq >= total) {
        return nnc_fail(-ENOENT, "schedule: there is no batch %" PRIu64 ", the last is %" PRIu64,
                        seq, total - 1);
    }
    uint32_t epoch = epoch_of(schedule, seq);
    uint64_t train_steps = nnc_schedule_train_steps(schedule);
    uint64_t in_epoch = seq - base_of(schedule, epoch);
    bool training = in_epoch < train_steps;
    uint64_t step = training ? in_epoch : in_epoch - train_steps;
    uint64_t steps = training ? train_steps : validation_steps(schedule);
    uint64_t samples = training ? schedule->train_samples : schedule->val_samples;
    uint64_t global = global_batch(schedule);
    uint64_t first = step * global + (uint64_t)rank * schedule->batch;
    assert(step < steps && step * global < samples);

    *ret_place = (struct nnc_batch_place){
        .phase = training ? NNC_PHASE_TRAIN : NNC_PHASE_VAL,
        .epoch = epoch,
        .step = step,
        .first = first,
        .count = first < samples ? (uint32_t)minimum(schedule->batch, samples - first) : 0,
        .global_count = (uint32_t)minimum(global, samples - step * global),
        .is_last = step + 1 == steps,
    };
    return 0;
}

uint64_t nnc_schedule_seq(const struct nnc_schedule *schedule, uint32_t epoch, uint64_t step) {
    assert(epoch < schedule->epochs || (epoch == schedule->epochs && step == 0));
    assert(step <= nnc_schedule_train_steps(schedule));
    return base_of(schedule, epoch) + step;
}

/* Ranges of the single fields. */
static int check_fields(const struct nnc_schedule *schedule) {
    if (schedule->ranks < 1 || schedule->ranks > NNC_MAX_RANKS) {
        return nnc_fail(-NNC_E_USAGE, "schedule: %" PRIu32 " ranks; 1 to %d are possible",
                        schedule->ranks, NNC_MAX_RANKS);
    }
    if (schedule->batch < 1 || schedule->batch > BATCH_MAX) {
        return nnc_fail(-NNC_E_USAGE, "schedule: batches of %" PRIu32 "; 1 to %u are possible",
                        schedule->batch, BATCH_MAX);
    }
    if (schedule->epochs < 1) {
        return nnc_fail(-NNC_E_USAGE, "schedule: no epochs; give --epochs 1 or more");
    }
    if (schedule->train_samples == 0 && schedule->val_samples == 0) {
        return nnc_fail(-NNC_E_USAGE, "schedule: the data set has no samples");
    }
    /* Sample numbers travel as 32 bits in the ring. */
    if (schedule->train_samples > UINT32_MAX || schedule->val_samples > UINT32_MAX) {
        return nnc_fail(-NNC_E_USAGE, "schedule: a data set has more than %" PRIu32 " samples",
                        UINT32_MAX);
    }
    return 0;
}

int nnc_schedule_check(const struct nnc_schedule *schedule) {
    int code = check_fields(schedule);
    if (code < 0) {
        return code;
    }
    uint64_t train_steps = nnc_schedule_train_steps(schedule);
    if (schedule->train_samples > 0 && train_steps == 0) {
        return nnc_fail(-NNC_E_USAGE,
                        "schedule: %" PRIu64 " training samples do not fill one global batch of "
                        "%" PRIu64 "; make the batch smaller or leave --drop-last out",
                        schedule->train_samples, global_batch(schedule));
    }
    /* At most 2^32 each, so the sum is exact; UINT64_MAX itself means "closed" in the ring. */
    uint64_t per_epoch = train_steps + validation_steps(schedule);
    if (per_epoch > (UINT64_MAX - 1) / schedule->epochs) {
        return nnc_fail(-NNC_E_USAGE,
                        "schedule: %" PRIu32 " epochs of %" PRIu64 " batches cannot be counted; "
                        "give fewer --epochs",
                        schedule->epochs, per_epoch);
    }
    return 0;
}
