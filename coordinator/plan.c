/* SPDX-License-Identifier: Apache-2.0 */
/* Every decision about numbers of processes and sizes, in one pure place.
 *
 * CPU shares: where the trainers compute on CPUs the loaders' work is small beside it, so trainers
 * get all CPUs of the budget and loaders one process per four CPUs, which the kernel's scheduler
 * squeezes in. That is where a training starts; adapt.h says where it goes from there. Where GPUs
 * compute, and in `bench input` and `check`, which have no compute, loaders get all CPUs. */
#include "coordinator/plan.h"

#include "base/checked.h"
#include "base/err.h"
#include "coordinator/group.h"
#include "ipc/gpus.h"

#include <assert.h>
#include <inttypes.h>
#include <string.h>

/* The consumer of bench input decides when enough is measured: loaders have always more to do. */
#define BENCH_PASSES 1000000u

static bool is_input_only(enum nnc_mode mode) {
    return mode == NNC_MODE_BENCH_INPUT || mode == NNC_MODE_CHECK;
}

/* How many loaders a training may come to have: a number that the user gave stays, else up to one
 * for each CPU of the budget. */
static void choose_growth(const struct nnc_plan_input *input, struct nnc_plan *plan) {
    const struct nnc_config *config = input->config;
    plan->loaders_adapt =
        input->mode == NNC_MODE_TRAIN && config->workers == 0 && config->workers_interval > 0.0;
    uint32_t most =
        input->machine->cpus < NNC_GROUP_LOADERS_MAX ? input->machine->cpus : NNC_GROUP_LOADERS_MAX;
    plan->loaders_max = plan->loaders_adapt && most > plan->loaders ? most : plan->loaders;
}

/* Samples of the null reader are not those of the data set. */
static int refuse_null_reader(const struct nnc_plan_input *input) {
    if (input->config->io != NNC_IO_NULL || input->mode == NNC_MODE_BENCH_INPUT) {
        return 0;
    }
    return nnc_fail(-NNC_E_USAGE, "--io null measures loaders and is of bench input alone");
}

/* One rank a GPU, or as many on the CPUs as asked for. */
static int choose_ranks(const struct nnc_plan_input *input, struct nnc_plan *plan) {
    const struct nnc_config *config = input->config;
    bool single = is_input_only(input->mode) || input->mode == NNC_MODE_PREDICT;
    plan->ranks = config->cpu_ranks == 0 ? 1 : config->cpu_ranks;
    if (plan->ranks > NNC_MAX_RANKS) {
        return nnc_fail(-NNC_E_USAGE, "--cpu-ranks %" PRIu32 ": at most %d on one machine",
                        plan->ranks, NNC_MAX_RANKS);
    }
    for (int rank = 0; rank < NNC_MAX_RANKS; rank++) {
        plan->device[rank] = -1;
    }
    if (nnc_gpus_wanted(config) && !is_input_only(input->mode)) {
        int count = nnc_gpus_choose(config, input->devices, plan->device);
        if (count < 0) {
            return count;
        }
        plan->ranks = (uint32_t)count;
    }
    plan->ranks = single ? 1 : plan->ranks;
    return 0;
}

/* Threads and loaders. A trainer on a GPU keeps one CPU busy with queueing at most. */
static int share_cpus(const struct nnc_plan_input *input, struct nnc_plan *plan) {
    const struct nnc_config *config = input->config;
    uint32_t cpus = input->machine->cpus;
    bool computes_here = !is_input_only(input->mode) && plan->device[0] < 0;
    plan->threads = config->threads != 0 ? config->threads : cpus / plan->ranks;
    plan->threads = plan->threads == 0 || plan->device[0] >= 0 ? 1 : plan->threads;
    uint32_t automatic = computes_here ? (cpus + 3) / 4 : cpus;
    automatic = automatic < NNC_GROUP_LOADERS_MAX ? automatic : NNC_GROUP_LOADERS_MAX;
    plan->loaders = config->workers != 0 ? config->workers : automatic;
    if (plan->loaders > NNC_GROUP_LOADERS_MAX) {
        return nnc_fail(-NNC_E_USAGE, "--workers %" PRIu32 ": at most %d on one machine",
                        plan->loaders, NNC_GROUP_LOADERS_MAX);
    }
    choose_growth(input, plan);
    return 0;
}

/* Samples per rank and step. */
static int choose_batch(const struct nnc_config *config, uint32_t ranks, uint32_t *ret_batch) {
    if (config->global_batch == 0) {
        *ret_batch = config->batch_size;
        return 0;
    }
    if (config->global_batch % ranks != 0) {
        return nnc_fail(-NNC_E_USAGE,
                        "--global-batch %" PRIu32 " does not divide over %" PRIu32 " ranks",
                        config->global_batch, ranks);
    }
    *ret_batch = config->global_batch / ranks;
    return 0;
}

static void choose_phases(const struct nnc_plan_input *input, struct nnc_schedule *schedule) {
    const struct nnc_config *config = input->config;
    bool bench_val = config->split == NNC_SPLIT_VAL;
    switch (input->mode) {
    case NNC_MODE_TRAIN:
        schedule->train_samples = input->samples[NNC_PHASE_TRAIN];
        schedule->val_samples = input->samples[NNC_PHASE_VAL];
        schedule->epochs = config->epochs;
        schedule->eval_every = config->eval_every;
        break;
    case NNC_MODE_BENCH_INPUT:
        schedule->train_samples = bench_val ? 0 : input->samples[NNC_PHASE_TRAIN];
        schedule->val_samples = bench_val ? input->samples[NNC_PHASE_VAL] : 0;
        schedule->epochs = config->cache == NNC_CACHE_COLD ? 1 : BENCH_PASSES;
        schedule->eval_every = 1;
        break;
    case NNC_MODE_BENCH_TRAIN:
    case NNC_MODE_BENCH_COMM:
        schedule->train_samples = config->batch_size;
        schedule->epochs = 1;
        break;
    case NNC_MODE_EVAL:
    case NNC_MODE_PREDICT:
    case NNC_MODE_CHECK:
        schedule->val_samples = input->samples[NNC_PHASE_VAL];
        schedule->epochs = 1;
        break;
    }
    schedule->drop_last = config->drop_last ? 1 : 0;
    schedule->limit_train_steps = config->limit_train_batches;
    schedule->limit_val_steps = input->mode == NNC_MODE_PREDICT ? 0 : config->limit_val_batches;
}

static struct nnc_ring_geometry choose_geometry(const struct nnc_plan_input *input,
                                                const struct nnc_schedule *schedule) {
    const struct nnc_config *config = input->config;
    uint32_t side = 0;
    if (schedule->train_samples != 0) {
        side = config->train_crop_size;
    }
    if (schedule->val_samples != 0 && config->val_crop_size > side) {
        side = config->val_crop_size;
    }
    return (struct nnc_ring_geometry){
        .batch = schedule->batch,
        .slots = config->ring_depth,
        .height = side,
        .width = side,
        .channels = input->channels,
    };
}

int nnc_plan_make(const struct nnc_plan_input *input, struct nnc_plan *ret_plan) {
    assert(input->config != NULL && input->machine != NULL);
    assert(input->devices != NULL || !nnc_gpus_wanted(input->config));
    assert(input->node < input->nodes);
    struct nnc_plan plan = {0};
    int result = refuse_null_reader(input);
    result = result < 0 ? result : choose_ranks(input, &plan);
    result = result < 0 ? result : share_cpus(input, &plan);
    if (result < 0) {
        return result;
    }
    plan.first_rank = input->node * plan.ranks;
    plan.schedule.ranks = input->nodes * plan.ranks;
    result = choose_batch(input->config, plan.schedule.ranks, &plan.schedule.batch);
    if (result < 0) {
        return result;
    }
    choose_phases(input, &plan.schedule);
    result = nnc_schedule_check(&plan.schedule);
    if (result < 0) {
        return result;
    }
    plan.geometry = choose_geometry(input, &plan.schedule);
    size_t ctl_bytes, data_bytes;
    result = nnc_ring_bytes(&plan.geometry, &ctl_bytes, &data_bytes);
    if (result < 0) {
        return result;
    }
    plan.ring_bytes = ctl_bytes + data_bytes;
    plan.loaders = nnc_mode_is_synthetic(input->mode) ? 0 : plan.loaders;
    plan.loaders_max = nnc_mode_is_synthetic(input->mode) ? 0 : plan.loaders_max;
    *ret_plan = plan;
    return 0;
}

static uint64_t sum_of(const struct nnc_memory_need *need) {
    return need->rings + need->comm + need->snapshot + need->trainers + need->loaders;
}

void nnc_plan_limit_loaders(const struct nnc_memory_need *need, const struct nnc_machine *machine,
                            struct nnc_plan *plan) {
    uint64_t sum = sum_of(need);
    uint64_t left = machine->memory > sum ? machine->memory - sum : 0;
    uint64_t more = left / NNC_PLAN_LOADER_BYTES;
    if (more < plan->loaders_max - plan->loaders) {
        plan->loaders_max = plan->loaders + (uint32_t)more;
    }
}

int nnc_plan_check_memory(const struct nnc_memory_need *need, const struct nnc_machine *machine) {
    uint64_t sum = sum_of(need);
    if (sum <= machine->memory) {
        return 0;
    }
    const char *remedy = need->rings > need->trainers
                             ? "a smaller --batch-size or --ring-depth needs less"
                             : "a smaller --batch-size or fewer --cpu-ranks need less";
    return nnc_fail(-NNC_E_USAGE,
                    "not enough memory: need %" PRIu64 " MiB (rings %" PRIu64 ", trainers %" PRIu64
                    ", snapshot %" PRIu64 ", all-reduce %" PRIu64 ", loaders %" PRIu64
                    "), have %" PRIu64 " MiB (%s); %s",
                    sum >> 20, need->rings >> 20, need->trainers >> 20, need->snapshot >> 20,
                    need->comm >> 20, need->loaders >> 20, machine->memory >> 20,
                    machine->memory == machine->memory_available ? "MemAvailable"
                                                                 : "cgroup memory.max",
                    remedy);
}
