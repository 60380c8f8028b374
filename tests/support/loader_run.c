/* SPDX-License-Identifier: Apache-2.0 */
/* The test's stand-in for coordinator and trainers: one thread that spawns loaders, answers their
 * messages and consumes all rings in order. */
#include "support/loader_run.h"

#include "base/clock.h"
#include "base/err.h"
#include "coordinator/process.h"
#include "ipc/memfd.h"
#include "ipc/ring.h"
#include "ipc/schedule.h"
#include "support/image_fixture.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define DEADLINE_NS 30000000000ull

struct run {
    const struct loader_run_params *params;
    struct loader_run_result *result;
    struct nnc_setup setup;
    struct nnc_fd_list fds;
    struct nnc_ring *rings[NNC_MAX_RANKS];     /* as the coordinator has them */
    struct nnc_ring *consumers[NNC_MAX_RANKS]; /* as the trainers have them */
    struct nnc_process loaders[LOADER_RUN_LOADERS_MAX];
    bool ready[LOADER_RUN_LOADERS_MAX];
    uint32_t next_incarnation;
    uint32_t kills, retires; /* so far; retired are the last ones */
    uint64_t deadline_ns;
};

/* ---- set-up ---- */

static void fill_schedule(struct run *run) {
    const struct loader_run_params *params = run->params;
    const struct nnc_dataset_part *parts = params->dataset->parts;
    run->setup.schedule = (struct nnc_schedule){
        .train_samples = params->no_training ? 0 : parts[NNC_PHASE_TRAIN].samples,
        .val_samples = parts[NNC_PHASE_VAL].samples,
        .ranks = params->ranks,
        .batch = params->batch,
        .epochs = params->epochs,
        .eval_every = 1,
    };
    cr_assert_eq(nnc_schedule_check(&run->setup.schedule), 0, "%s", nnc_error_text());
}

static void make_rings(struct run *run) {
    run->setup.quarantine_fd = -1;
    const struct loader_run_params *params = run->params;
    uint32_t train = params->config.train_crop_size, val = params->config.val_crop_size;
    uint32_t side = train > val ? train : val;
    run->setup.geometry = (struct nnc_ring_geometry){
        .batch = params->batch,
        .slots = params->slots,
        .height = side,
        .width = side,
        .channels = params->channels,
    };
    for (uint32_t rank = 0; rank < params->ranks; rank++) {
        cr_assert_eq(nnc_ring_create(&run->setup.geometry, 1, NULL, &run->rings[rank]), 0, "%s",
                     nnc_error_text());
        int ctl = nnc_ring_ctl_fd(run->rings[rank]), data = nnc_ring_data_fd(run->rings[rank]);
        cr_assert_eq(nnc_ring_attach(&run->setup.geometry, NNC_RING_TRAINER, ctl, data, 1, 0,
                                     &run->consumers[rank]),
                     0, "%s", nnc_error_text());
        run->setup.ring_ctl_fd[rank] = nnc_fd_list_add(&run->fds, ctl);
        run->setup.ring_data_fd[rank] = nnc_fd_list_add(&run->fds, data);
    }
}

static void make_data(struct run *run) {
    for (int phase = 0; phase < 2; phase++) {
        const struct nnc_dataset_part *part = &run->params->dataset->parts[phase];
        struct nnc_setup_data *data = &run->setup.data[phase];
        *data = (struct nnc_setup_data){.index_fd = -1, .raw_fd = -1};
        if (part->samples == 0) {
            continue;
        }
        int fd;
        cr_assert_eq(
            nnc_memfd_create("index", part->size, NNC_MEMFD_READONLY, part->bytes, NULL, &fd), 0);
        data->samples = part->samples;
        data->classes = run->params->dataset->classes;
        data->index_fd = nnc_fd_list_add(&run->fds, fd);
        data->raw_fd = nnc_fd_list_add(&run->fds, part->raw_fd);
        snprintf(data->root, sizeof(data->root), "%s", part->root);
    }
}

static void spawn(struct run *run, uint32_t number) {
    static char directory[512];
    snprintf(directory, sizeof(directory), "%s", NNC_TEST_BUILD_DIR);
    run->setup.role = NNC_ROLE_LOADER;
    run->setup.mode = run->params->check ? NNC_MODE_CHECK : NNC_MODE_BENCH_INPUT;
    run->setup.number = number;
    run->setup.incarnation = ++run->next_incarnation;
    run->setup.generation = 1;
    run->setup.ranks = run->setup.local_ranks = run->params->ranks;
    run->setup.loaders = run->params->loaders;
    run->setup.config = run->params->config;
    run->ready[number] = false;
    const struct nnc_process_params params = {
        .directory = directory,
        .setup = &run->setup,
        .fds = &run->fds,
    };
    cr_assert_eq(nnc_process_spawn(&params, &run->loaders[number]), 0, "%s", nnc_error_text());
}

/* ---- messages ---- */

static void take_message(struct run *run, uint32_t number, const struct nnc_message *message) {
    struct loader_run_result *result = run->result;
    if (message->header.type == NNC_MSG_READY) {
        struct nnc_msg_ready ready;
        memcpy(&ready, message->body, sizeof(ready));
        run->ready[number] = true;
        result->uring_loaders += ready.uses_uring;
        memcpy(result->note, ready.note, sizeof(result->note));
    } else if (message->header.type == NNC_MSG_BAD) {
        struct nnc_msg_bad bad;
        memcpy(&bad, message->body, sizeof(bad));
        result->bad_messages++;
        if (run->params->reported != NULL && bad.phase == NNC_PHASE_TRAIN) {
            cr_assert_lt(bad.sample, run->params->dataset->parts[NNC_PHASE_TRAIN].samples);
            run->params->reported[bad.sample]++;
        }
        cr_assert_eq(sizeof(bad) + bad.reason_bytes, message->header.bytes);
        snprintf(result->last_reason, sizeof(result->last_reason), "%.*s", (int)bad.reason_bytes,
                 (const char *)message->body + sizeof(bad));
    }
}

static uint32_t live_loaders(const struct run *run) {
    return run->params->loaders - run->retires;
}

/* Take all messages that are there. Before the last slot is closed no loader may be gone. */
static void pump(struct run *run, bool ending) {
    cr_assert_lt(nnc_clock_ns(), run->deadline_ns, "the loaders take too long");
    for (uint32_t i = 0; i < live_loaders(run); i++) {
        struct nnc_process *process = &run->loaders[i];
        nnc_process_read_log(process);
        struct nnc_message message;
        int code = nnc_channel_receive(process->channel, &message);
        while (code == 1) {
            take_message(run, i, &message);
            code = nnc_channel_receive(process->channel, &message);
        }
        cr_assert(code == 0 || (ending && code == -EPIPE), "loader %u is gone: %s", i,
                  process->last_words);
    }
}

static void start(struct run *run, uint32_t number) {
    while (!run->ready[number]) {
        pump(run, false);
        nnc_clock_sleep_ns(500000);
    }
    cr_assert_geq(nnc_channel_send(run->loaders[number].channel, NNC_MSG_START, NULL, 0, 1000), 0);
}

/* ---- consuming ---- */

static void give(struct run *run, uint32_t rank, uint64_t seq) {
    struct nnc_batch_place place;
    if (nnc_schedule_locate(&run->setup.schedule, rank, seq, &place) < 0) {
        nnc_ring_close_slot(run->consumers[rank], seq);
    } else {
        nnc_ring_recycle(run->consumers[rank], seq, place.count);
    }
}

static void mix(struct loader_run_result *result, const void *bytes, size_t size) {
    result->hash = result->hash * 0x9e3779b97f4a7c15ull + fixture_hash(bytes, size);
}

static void tell_sample(const struct run *run, const struct nnc_batch *batch,
                        const struct nnc_batch_place *place, uint32_t i, size_t bytes) {
    const struct loader_run_sample sample = {
        .phase = place->phase,
        .epoch = place->epoch,
        .k = place->first + i,
        .pixels = batch->images + i * batch->sample_bytes,
        .bytes = bytes,
        .label = batch->labels[i],
        .number = batch->samples[i],
        .status = batch->status[i],
    };
    if (run->params->on_sample != NULL) {
        run->params->on_sample(run->params->context, &sample);
    }
}

static void take_batch(struct run *run, const struct nnc_batch *batch,
                       const struct nnc_batch_place *place) {
    enum nnc_phase phase = place->phase;
    struct loader_run_result *result = run->result;
    const struct nnc_config *config = &run->params->config;
    const struct nnc_index *index = &run->params->dataset->parts[phase].index;
    size_t side = phase == NNC_PHASE_TRAIN ? config->train_crop_size : config->val_crop_size;
    for (uint32_t i = 0; i < batch->count; i++) {
        size_t bytes = side * side * run->params->channels;
        mix(result, batch->images + i * batch->sample_bytes, bytes);
        tell_sample(run, batch, place, i, bytes);
        cr_assert_lt(batch->samples[i], index->header->samples);
        bool bad = batch->status[i] == NNC_SAMPLE_BAD;
        result->wrong_labels +=
            batch->labels[i] != (bad ? -1 : index->samples[batch->samples[i]].label);
        result->ok += batch->status[i] == NNC_SAMPLE_OK;
        result->replaced += batch->status[i] == NNC_SAMPLE_REPLACED;
        result->bad += bad;
        if (run->params->delivered != NULL && phase == NNC_PHASE_TRAIN && !bad) {
            run->params->delivered[batch->samples[i]]++;
        }
    }
    mix(result, batch->labels, batch->count * sizeof(batch->labels[0]));
    mix(result, batch->samples, batch->count * sizeof(batch->samples[0]));
    mix(result, batch->status, batch->count * sizeof(batch->status[0]));
    result->samples += batch->count;
    result->batches++;
}

static void consume(struct run *run, uint32_t rank, uint64_t seq) {
    struct nnc_batch_place place;
    cr_assert_eq(nnc_schedule_locate(&run->setup.schedule, rank, seq, &place), 0);
    struct nnc_batch batch;
    int code = -ETIMEDOUT;
    while (code == -ETIMEDOUT) {
        pump(run, false);
        code = nnc_ring_acquire(run->consumers[rank], seq, 20, &batch);
    }
    cr_assert_eq(code, 0, "%s", nnc_error_text());
    cr_assert_eq(batch.count, place.count);
    take_batch(run, &batch, &place);
    nnc_ring_release(run->consumers[rank], seq);
    give(run, rank, seq + run->params->slots);
}

/* ---- ends ---- */

static void reap(struct run *run, uint32_t number, struct nnc_process_end *ret_end) {
    struct nnc_process *process = &run->loaders[number];
    struct pollfd wait = {.fd = process->pidfd, .events = POLLIN};
    cr_assert_eq(poll(&wait, 1, 10000), 1, "loader %u does not end", number);
    cr_assert_geq(nnc_process_reap(process, ret_end), 0);
    if (ret_end->peak_rss_bytes > run->result->peak_rss_bytes) {
        run->result->peak_rss_bytes = ret_end->peak_rss_bytes;
    }
    nnc_process_finish(process);
}

/* Kill one loader the hard way, put its claims back, start another in its place. */
static void kill_one(struct run *run) {
    uint32_t number = run->kills % live_loaders(run);
    uint32_t incarnation = run->loaders[number].incarnation;
    pump(run, false);
    /* The ring was just given work: let the loaders wake and claim, differently long each time. */
    nnc_clock_sleep_ns(run->kills++ * 40000);
    nnc_process_kill(&run->loaders[number], SIGKILL);
    struct nnc_process_end end;
    reap(run, number, &end);
    cr_assert(end.signalled && end.status == SIGKILL);
    for (uint32_t rank = 0; rank < run->params->ranks; rank++) {
        run->result->requeued += nnc_ring_sweep(run->rings[rank], incarnation);
    }
    spawn(run, number);
    start(run, number);
}

/* Tell the last loader to stop: it ends though there is work, and leaves nothing half done. */
static void retire_one(struct run *run) {
    uint32_t number = live_loaders(run) - 1;
    uint32_t incarnation = run->loaders[number].incarnation;
    pump(run, false);
    nnc_clock_sleep_ns(run->retires * 300000); /* it holds other claims each time */
    run->retires++;
    cr_assert_geq(nnc_channel_send(run->loaders[number].channel, NNC_MSG_STOP, NULL, 0, 1000), 0);
    struct nnc_process_end end;
    reap(run, number, &end);
    run->result->retired += !end.signalled && end.status == 0;
    for (uint32_t rank = 0; rank < run->params->ranks; rank++) {
        run->result->left_behind += nnc_ring_sweep(run->rings[rank], incarnation);
    }
}

static void end_all(struct run *run) {
    uint64_t closed_ns = nnc_clock_ns();
    for (uint32_t i = 0; i < live_loaders(run); i++) {
        struct pollfd wait = {.fd = run->loaders[i].pidfd, .events = POLLIN};
        cr_assert_eq(poll(&wait, 1, 10000), 1, "loader %u does not end", i);
    }
    pump(run, true);
    for (uint32_t i = 0; i < live_loaders(run); i++) {
        struct nnc_process_end end;
        reap(run, i, &end);
        run->result->clean_exits += !end.signalled && end.status == 0;
    }
    run->result->end_ns = nnc_clock_ns() - closed_ns;
    for (uint32_t rank = 0; rank < run->params->ranks; rank++) {
        nnc_ring_destroy(run->consumers[rank]);
        nnc_ring_destroy(run->rings[rank]);
    }
    for (int phase = 0; phase < 2; phase++) {
        if (run->setup.data[phase].index_fd >= 0) {
            close(run->fds.source[run->setup.data[phase].index_fd - NNC_FD_FIRST_OTHER]);
        }
    }
}

void loader_run(const struct loader_run_params *params, struct loader_run_result *ret_result) {
    static struct run run; /* too large for the stack */
    memset(&run, 0, sizeof(run));
    memset(ret_result, 0, sizeof(*ret_result));
    run.params = params;
    run.result = ret_result;
    run.deadline_ns = nnc_clock_ns() + DEADLINE_NS;
    fill_schedule(&run);
    make_rings(&run);
    make_data(&run);
    for (uint32_t i = 0; i < params->loaders; i++) {
        spawn(&run, i);
    }
    for (uint32_t i = 0; i < params->loaders; i++) {
        start(&run, i);
    }
    for (uint32_t rank = 0; rank < params->ranks; rank++) {
        for (uint64_t seq = 0; seq < params->slots; seq++) {
            give(&run, rank, seq);
        }
    }
    uint64_t total = nnc_schedule_total(&run.setup.schedule);
    for (uint64_t seq = 0; seq < total; seq++) {
        for (uint32_t rank = 0; rank < params->ranks; rank++) {
            consume(&run, rank, seq);
        }
        if (run.kills < params->kills && seq + params->slots < total &&
            seq * params->kills >= run.kills * total) {
            kill_one(&run);
        }
        if (run.retires < params->retires &&
            seq * (params->retires + 1) >= (run.retires + 1) * total) {
            retire_one(&run);
        }
    }
    end_all(&run);
}
