/* SPDX-License-Identifier: Apache-2.0 */
/* The loop of a run: one epoll over pidfds, channels, log pipes and signals; every event goes into
 * the group's state machine and its actions are performed here.
 *
 *   events: pidfd readable -> reap -> nnc_group_exit        channel -> nnc_group_message and
 * payloads log pipe -> stderr and last words               signalfd -> stop, checkpoint 100 ms tick
 * -> deadlines, hangs, progress, snapshots by time
 *
 * An executed action can make new events (a failed spawn): actions are therefore run from a queue
 * until it is empty. Owner of every process, descriptor and mapping of the run: struct
 * nnc_run_state. */
#include "coordinator/run_internal.h"

#include "base/clock.h"
#include "base/err.h"
#include "base/log.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <unistd.h>

#define TICK_MS       100
#define SAVER_HANG_NS (600ull * 1000000000ull)
#define SECOND_NS     1000000000ull

enum source {
    SOURCE_PIDFD,
    SOURCE_CHANNEL,
    SOURCE_LOG,
    SOURCE_SAVER_PIDFD,
    SOURCE_SAVER_CHANNEL,
    SOURCE_SAVER_LOG,
    SOURCE_SIGNAL,
    SOURCE_NODES,
};

static int watch(struct nnc_run_state *run, int fd, enum source source, uint32_t child) {
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = (uint64_t)source << 32 | child};
    if (epoll_ctl(run->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0) {
        return nnc_fail_errno("epoll_ctl");
    }
    return 0;
}

static int watch_process(struct nnc_run_state *run, const struct nnc_process *process, bool saver,
                         uint32_t child) {
    int result = watch(run, process->pidfd, saver ? SOURCE_SAVER_PIDFD : SOURCE_PIDFD, child);
    result = result < 0 ? result
                        : watch(run, nnc_channel_fd(process->channel),
                                saver ? SOURCE_SAVER_CHANNEL : SOURCE_CHANNEL, child);
    return result < 0 ? result
                      : watch(run, process->log_fd, saver ? SOURCE_SAVER_LOG : SOURCE_LOG, child);
}

static void unwatch(struct nnc_run_state *run, int fd) {
    epoll_ctl(run->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
}

static void refuse_spawn(struct nnc_run_state *run, uint32_t number, const char *words) {
    struct nnc_actions actions = {.count = 0};
    nnc_group_spawn_failed(&run->group, number, words, nnc_clock_ns(), &actions);
    nnc_run_perform(run, &actions);
}

static void spawn_child(struct nnc_run_state *run, uint32_t number) {
    if (run->group.phase == NNC_GROUP_FAILING) {
        refuse_spawn(run, number, "was not started"); /* another one of this batch failed */
        return;
    }
    struct nnc_fd_list fds;
    nnc_run_child_setup(run, &run->group.child[number], &run->child_setup, &fds);
    const struct nnc_process_params params = {
        .directory = run->directory, .setup = &run->child_setup, .fds = &fds};
    struct nnc_process *process = &run->process[number];
    int result = nnc_process_spawn(&params, process);
    if (result >= 0 && watch_process(run, process, false, number) >= 0) {
        return;
    }
    if (result >= 0) {
        struct nnc_process_end end;
        nnc_process_kill(process, SIGKILL);
        nnc_process_reap(process, &end);
        nnc_process_finish(process);
    }
    refuse_spawn(run, number, nnc_error_text());
}

void nnc_run_begin_generation(struct nnc_run_state *run) {
    const struct nnc_group_params group = {
        .trainers = run->plan.ranks,
        .first_rank = run->plan.first_rank,
        .loaders = run->plan.loaders,
        .loaders_max = run->plan.loaders_max,
        .max_restarts = run->params->mode == NNC_MODE_TRAIN ? run->params->config->max_restarts : 0,
        .grace_ns = run->params->config->grace * SECOND_NS};
    struct nnc_actions actions = {.count = 0};
    int result = run->group.children == 0 ? nnc_run_open_records(run) : 0;
    result = result < 0 ? result : nnc_run_prepare_generation(run);
    if (result < 0) {
        nnc_group_abort(&run->group, result, nnc_error_text(), nnc_clock_ns(), &actions);
    } else if (run->group.children == 0) {
        nnc_group_begin(&run->group, &group, nnc_clock_ns(), &actions);
    } else {
        nnc_group_start_generation(&run->group, nnc_clock_ns(), &actions);
    }
    nnc_run_perform(run, &actions);
}

/* All children are gone, or there were none yet. */
static void new_generation(struct nnc_run_state *run) {
    nnc_report_restart(&run->report);
    run->put_off_ns = 0;
    run->stall = (struct nnc_stall){.last = {{.running = false}}};
    nnc_run_choose_start(run);
    if (run->far.nodes != NULL) {
        nnc_run_nodes_join(run);
    } else {
        nnc_run_begin_generation(run);
    }
}

static void for_all_rings(struct nnc_run_state *run, const struct nnc_action *action) {
    for (uint32_t rank = 0; rank < run->plan.ranks; rank++) {
        if (run->ring[rank] == NULL) {
            continue;
        }
        if (action->kind == NNC_ACTION_SWEEP) {
            nnc_ring_sweep(run->ring[rank], action->argument);
        } else {
            nnc_ring_stop(run->ring[rank]);
        }
    }
}

static void send_message(struct nnc_run_state *run, const struct nnc_action *action) {
    if (action->argument == NNC_MSG_START && run->running_since_ns == 0) {
        run->running_since_ns = nnc_clock_ns();
        run->next_snapshot_ns =
            run->running_since_ns + run->params->config->snapshot_interval * SECOND_NS;
        nnc_run_measure_begin(run);
    }
    /* A child that cannot take it is dying or hung: its exit or its deadline tells. */
    nnc_channel_send(run->process[action->child].channel, (enum nnc_message_type)action->argument,
                     NULL, 0, 1000);
}

void nnc_run_perform(struct nnc_run_state *run, struct nnc_actions *actions) {
    for (uint32_t i = 0; i < actions->count; i++) {
        const struct nnc_action *action = &actions->item[i];
        switch ((enum nnc_action_kind)action->kind) {
        case NNC_ACTION_SPAWN:
            spawn_child(run, action->child);
            break;
        case NNC_ACTION_SEND:
            send_message(run, action);
            break;
        case NNC_ACTION_KILL:
            nnc_process_kill(&run->process[action->child], (int)action->argument);
            break;
        case NNC_ACTION_SWEEP:
        case NNC_ACTION_STOP_RINGS:
            for_all_rings(run, action);
            break;
        case NNC_ACTION_NEW_GENERATION:
            new_generation(run);
            break;
        case NNC_ACTION_FINISH:
            run->finished = true;
            break;
        }
    }
}

static void abort_run(struct nnc_run_state *run, int code) {
    struct nnc_actions actions = {.count = 0};
    nnc_group_abort(&run->group, code, nnc_error_text(), nnc_clock_ns(), &actions);
    nnc_run_perform(run, &actions);
}

static void on_phase_end(struct nnc_run_state *run, const struct nnc_message *message) {
    struct nnc_msg_eval eval;
    memcpy(&eval, message->body, sizeof(eval));
    if (!nnc_report_phase(&run->report, &eval, nnc_clock_ns())) {
        return;
    }
    struct nnc_report *report = &run->report;
    double loss = nnc_sums_loss(&report->last[eval.phase]);
    if (run->params->mode == NNC_MODE_TRAIN && !isfinite(loss)) {
        nnc_fail(-NNC_E_NUMERIC,
                 "the %s loss of epoch %" PRIu32
                 " is not a finite number; a lower --lr, warm-up or "
                 "other initial weights may help",
                 eval.phase == NNC_PHASE_VAL ? "validation" : "training", eval.epoch + 1);
        run->saving.enabled = false; /* the weights of this moment are of no use */
        abort_run(run, -NNC_E_NUMERIC);
        return;
    }
    if (eval.phase == NNC_PHASE_VAL) {
        double acc1 = nnc_sums_acc1(&report->last[NNC_PHASE_VAL]);
        report->best_acc1 = acc1 > report->best_acc1 ? acc1 : report->best_acc1;
    } else {
        run->result->epochs = eval.epoch + 1;
    }
}

static void on_done(struct nnc_run_state *run, const struct nnc_message *message, uint32_t rank) {
    struct nnc_msg_done done;
    memcpy(&done, message->body, sizeof(done));
    struct nnc_run_result *result = run->result;
    run->done_ns = nnc_clock_ns();
    nnc_run_measure_end(run);
    result->warm_images = done.warm_images;
    result->utilisation = done.utilisation;
    if (rank == 0) {
        /* Of the whole training, also when this process only resumed it; 0 when it ran no step. */
        uint64_t steps = atomic_load_explicit(&run->process[rank].page->counter[NNC_COUNT_STEP],
                                              memory_order_relaxed);
        result->steps = steps > result->steps ? steps : result->steps;
        memcpy(result->weights_sha256, done.weights_sha256, 64);
        result->weights_sha256[64] = '\0';
    }
}

static void on_ready(struct nnc_run_state *run, const struct nnc_message *message, uint32_t child) {
    struct nnc_msg_ready ready;
    memcpy(&ready, message->body, sizeof(ready));
    ready.note[sizeof(ready.note) - 1] = '\0';
    if (run->group.child[child].role == NNC_ROLE_TRAINER) {
        run->report.sample_flops = 3.0 * (double)ready.sample_flops; /* backward is twice forward */
        snprintf(run->result->backend_note, sizeof(run->result->backend_note), "%s", ready.note);
        return;
    }
    run->result->uses_uring = ready.uses_uring != 0;
    int32_t io = run->params->config->io;
    bool wanted = io == NNC_IO_AUTO || io == NNC_IO_URING;
    if (wanted && !ready.uses_uring && !run->uring_note_logged) {
        run->uring_note_logged = true;
        nnc_log(NNC_LOG_INFO, "io_uring refused (%s): reading with pread instead", ready.note);
    }
}

static void on_logits(struct nnc_run_state *run, const struct nnc_message *message) {
    struct nnc_msg_logits logits;
    memcpy(&logits, message->body, sizeof(logits));
    size_t there = (message->header.bytes - sizeof(logits)) / sizeof(float);
    if (run->params->on_logits == NULL || logits.count > there || logits.count > 1000) {
        return;
    }
    float values[1000];
    memcpy(values, message->body + sizeof(logits), logits.count * sizeof(float));
    run->params->on_logits(run->params->context, &logits, values);
}

static void on_comm(struct nnc_run_state *run, const struct nnc_message *message) {
    struct nnc_msg_comm comm;
    memcpy(&comm, message->body, sizeof(comm));
    if (run->params->on_comm != NULL && comm.figure < NNC_COMM_FIGURES) {
        nnc_report_clear(&run->report); /* it may print */
        run->params->on_comm(run->params->context, &comm);
    }
}

void nnc_run_take_share(struct nnc_run_state *run, const struct nnc_message *message) {
    struct nnc_msg_done done;
    if (message->header.type == NNC_MSG_BAD &&
        nnc_bad_report(&run->bad, message) == -NNC_E_DATA_BUDGET) {
        abort_run(run, -NNC_E_DATA_BUDGET);
    } else if (message->header.type == NNC_MSG_EVAL) {
        on_phase_end(run, message);
    } else if (message->header.type == NNC_MSG_DONE) {
        memcpy(&done, message->body, sizeof(done));
        run->result->images += done.images;
        run->result->trainer_seconds = fmax(done.seconds, run->result->trainer_seconds);
    }
}

/* Node 0 adds the shares of all machines up. */
static void give_share(struct nnc_run_state *run, const struct nnc_message *message) {
    if (nnc_run_leads(run)) {
        nnc_run_take_share(run, message);
    } else {
        nnc_nodes_tell_child(run->far.nodes, message);
    }
}

/* The payload of a message, before the state machine hears of it. */
static void take_payload(struct nnc_run_state *run, uint32_t child,
                         const struct nnc_message *message) {
    bool trainer = run->group.child[child].role == NNC_ROLE_TRAINER;
    struct nnc_msg_snapshot snapshot;
    switch (message->header.type) {
    case NNC_MSG_READY:
        on_ready(run, message, child);
        break;
    case NNC_MSG_BAD:
        give_share(run, message);
        break;
    case NNC_MSG_EVAL:
        if (trainer) {
            give_share(run, message);
        }
        break;
    case NNC_MSG_SNAPSHOT:
        memcpy(&snapshot, message->body, sizeof(snapshot));
        if (trainer && child == 0) {
            nnc_saving_snapshot(&run->saving, &snapshot);
        }
        break;
    case NNC_MSG_LOGITS:
        on_logits(run, message);
        break;
    case NNC_MSG_COMM:
        if (trainer && child == 0) {
            on_comm(run, message);
        }
        break;
    case NNC_MSG_MEASURE:
        if (trainer) {
            nnc_run_measure_begin(run);
        }
        break;
    case NNC_MSG_DONE:
        if (trainer) {
            give_share(run, message);
            on_done(run, message, run->group.child[child].number);
        }
        break;
    default:
        break;
    }
}

static void read_channel(struct nnc_run_state *run, uint32_t child) {
    struct nnc_message message;
    for (;;) {
        struct nnc_process *process = &run->process[child];
        if (process->channel == NULL) {
            return; /* reaped while its messages were worked on */
        }
        int got = nnc_channel_receive(process->channel, &message);
        if (got == 0) {
            return;
        }
        if (got < 0) {
            unwatch(run, nnc_channel_fd(process->channel));
            if (got != -EPIPE) {
                nnc_log(NNC_LOG_WARN, "%s; killing the child", nnc_error_text());
                nnc_process_kill(process, SIGKILL);
            }
            return;
        }
        struct nnc_actions actions = {.count = 0};
        take_payload(run, child, &message);
        if (nnc_group_child_live(&run->group.child[child])) {
            nnc_group_message(&run->group, child, (enum nnc_message_type)message.header.type,
                              nnc_clock_ns(), &actions);
        }
        nnc_run_perform(run, &actions);
    }
}

/* A loader was reaped: whether what it died of is in quarantine from now on. */
static bool count_strike(struct nnc_run_state *run, const struct nnc_process *process,
                         const struct nnc_process_end *end) {
    struct nnc_strike strike;
    char reason[256];
    if (nnc_strikes_count(&run->strikes, process, end, &strike, reason, sizeof(reason)) == 0) {
        return false;
    }
    /* As if it had said so itself. */
    const struct nnc_msg_bad bad = {
        .phase = strike.phase, .sample = strike.sample, .reason_bytes = (uint32_t)strlen(reason)};
    struct nnc_message message = {{0}, {0}};
    if (nnc_message_make(NNC_MSG_BAD, run->group.generation, 0, &bad, sizeof(bad), reason,
                         bad.reason_bytes, &message) == 0) {
        give_share(run, &message);
    }
    return true;
}

/* Whether a reaped loader has given the run anything. */
static bool has_published(const struct nnc_process *process) {
    return atomic_load_explicit(&process->page->counter[NNC_COUNT_SAMPLES], memory_order_relaxed) !=
           0;
}

static void reap_child(struct nnc_run_state *run, uint32_t child) {
    struct nnc_process *process = &run->process[child];
    struct nnc_process_end end;
    if (process->pid == 0) {
        return; /* an event of the same batch, already worked on */
    }
    if (nnc_run_puts_off(run, child)) {
        return; /* its pidfd stays readable */
    }
    nnc_report_clear(&run->report);
    read_channel(run, child); /* what it said before it ended counts */
    if (nnc_process_reap(process, &end) < 0) {
        return;
    }
    char words[1024];
    nnc_process_describe_end(process, &end, words, sizeof(words));
    nnc_run_add_place(run, child, words, sizeof(words));
    nnc_run_measure_ended(run, process, &end);
    bool progress = count_strike(run, process, &end) || has_published(process);
    nnc_process_finish(process);
    const struct nnc_exit_event event = {.signalled = end.signalled,
                                         .status = end.status,
                                         .error_code = end.error_code,
                                         .progress = progress,
                                         .words = words};
    struct nnc_actions actions = {.count = 0};
    nnc_group_exit(&run->group, child, &event, nnc_clock_ns(), &actions);
    nnc_run_perform(run, &actions);
}

void nnc_run_stop(struct nnc_run_state *run, int number) {
    run->signal_ns = run->signals++ == 0 ? nnc_clock_ns() : run->signal_ns;
    bool waiting = run->group.children == 0; /* for other machines */
    bool saves = run->params->mode == NNC_MODE_TRAIN && !waiting;
    nnc_log(NNC_LOG_INFO, "%s: %s", strsignal(number),
            run->signals == 1 && saves
                ? "stopping at the next step, with a checkpoint (again: stop now)"
                : "stopping now");
    struct nnc_actions actions = {.count = 0};
    if (!saves) {
        int code =
            nnc_fail(-(NNC_E_SIGNAL + number), "stopped by %s%s", strsignal(number),
                     waiting ? " while not all machines were there; nothing was trained" : "");
        nnc_group_abort(&run->group, code, nnc_error_text(), nnc_clock_ns(), &actions);
    } else {
        nnc_group_stop_signal(&run->group, number, nnc_clock_ns(), &actions);
    }
    nnc_run_perform(run, &actions);
}

static void on_signal(struct nnc_run_state *run) {
    struct signalfd_siginfo info;
    while (read(run->signal_fd, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
        int number = (int)info.ssi_signo;
        nnc_report_clear(&run->report);
        if (number == SIGHUP) {
            nnc_log(NNC_LOG_INFO, "SIGHUP: snapshot at the next step");
            run->next_snapshot_ns = 0;
            continue;
        }
        if (run->far.nodes != NULL) {
            nnc_run_nodes_stop(run, number);
        } else {
            nnc_run_stop(run, number);
        }
    }
}

/* A run that failed says so at once, also when a checkpoint is still being written. */
static void tell_failure(struct nnc_run_state *run, uint64_t now_ns) {
    if (run->failed_ns != 0 || run->group.code == 0 || !run->saving.running) {
        return;
    }
    run->failed_ns = now_ns;
    nnc_report_clear(&run->report);
    nnc_log(NNC_LOG_WARN, "%s; waiting at most %" PRIu32 " s for the checkpoint under way",
            run->group.verdict, run->params->config->grace);
}

/* When the saver is killed. A stop signal and a failed run leave it --grace. */
static uint64_t saver_limit_ns(const struct nnc_run_state *run) {
    uint64_t started = run->saving.saver.started_ns;
    uint64_t limit = started + SAVER_HANG_NS;
    uint64_t since = run->signals != 0 ? run->signal_ns : run->failed_ns;
    if (since != 0) {
        uint64_t from = since > started ? since : started;
        uint64_t grace = from + run->params->config->grace * SECOND_NS;
        limit = grace < limit ? grace : limit;
    }
    return limit;
}

/* The same for the saver. A second stop signal leaves it nothing. */
static void find_hung_saver(struct nnc_run_state *run, uint64_t now_ns) {
    struct nnc_saving *saving = &run->saving;
    if (!saving->running || (now_ns < saver_limit_ns(run) && run->signals < 2)) {
        return;
    }
    nnc_report_clear(&run->report);
    nnc_log(NNC_LOG_WARN, "saver (pid %d) is still writing after %" PRIu64 " s; killing it",
            (int)saving->saver.pid, (uint64_t)((now_ns - saving->saver.started_ns) / SECOND_NS));
    nnc_process_kill(&saving->saver, SIGKILL);
}

/* Ask for a snapshot when the interval has passed. */
static void ask_snapshot(struct nnc_run_state *run, uint64_t now_ns) {
    bool wanted = run->params->mode == NNC_MODE_TRAIN && run->group.phase == NNC_GROUP_RUNNING &&
                  nnc_run_leads(run) && run->params->config->snapshot_interval != 0;
    if (!wanted || now_ns < run->next_snapshot_ns || run->saving.running) {
        return;
    }
    run->next_snapshot_ns = now_ns + run->params->config->snapshot_interval * SECOND_NS;
    for (uint32_t i = 0; i < run->plan.ranks; i++) {
        if (run->group.child[i].state == NNC_CHILD_RUNNING) { /* some may be done and gone */
            nnc_channel_send(run->process[i].channel, NNC_MSG_SNAP, NULL, 0, 0);
        }
    }
}

/* Start a saver when a snapshot waits. */
static void start_saving(struct nnc_run_state *run) {
    if (!run->saving.have_waiting || run->saving.running) {
        return;
    }
    run->child_setup = run->setup;
    const struct nnc_process_params params = {.directory = run->directory};
    int result = nnc_saving_start(&run->saving, &params, &run->child_setup, run->snapshot_fd);
    if (result == 1) {
        result = watch_process(run, &run->saving.saver, true, 0);
    }
    if (result < 0) {
        nnc_log(NNC_LOG_WARN, "%s", nnc_error_text());
    }
}

void nnc_run_collect(const struct nnc_run_state *run, struct nnc_progress *ret_progress) {
    struct nnc_child_page *pages[NNC_MAX_RANKS];
    uint32_t count = 0;
    for (uint32_t i = 0; i < run->plan.ranks; i++) {
        if (run->process[i].page != NULL) {
            pages[count++] = run->process[i].page;
        }
    }
    nnc_report_collect(pages, count, ret_progress);
}

/* Whether the first trainer has taken its first batch: it computes, or has already counted one. */
static bool has_batch(const struct nnc_run_state *run, const struct nnc_progress *progress) {
    struct nnc_child_page *page = run->process[0].page;
    return progress->samples != 0 ||
           (page != NULL &&
            atomic_load_explicit(&page->activity, memory_order_relaxed) >= NNC_DOING_FORWARD);
}

static void tick(struct nnc_run_state *run) {
    uint64_t now_ns = nnc_clock_ns();
    struct nnc_actions actions = {.count = 0};
    nnc_group_tick(&run->group, now_ns, &actions);
    nnc_run_perform(run, &actions);
    nnc_run_nodes_work(run);
    nnc_run_find_hangs(run, now_ns);
    tell_failure(run, now_ns);
    find_hung_saver(run, now_ns);
    ask_snapshot(run, now_ns);
    start_saving(run);
    struct nnc_progress progress;
    nnc_run_collect(run, &progress);
    if (run->result->first_batch_seconds < 0.0 && has_batch(run, &progress)) {
        run->result->first_batch_seconds = (double)(now_ns - run->started_ns) * 1e-9;
    }
    nnc_run_weigh(run);
    nnc_run_read_gpus(run, now_ns);
    actions.count = 0;
    if (nnc_run_adapt(run, &progress, now_ns, &actions) == 1) {
        nnc_run_perform(run, &actions);
    }
    nnc_run_nodes_add_progress(run, &progress);
    if (run->group.phase == NNC_GROUP_RUNNING && run->has_model) {
        nnc_report_progress(&run->report, &progress, now_ns);
    }
}

static void on_saver(struct nnc_run_state *run, enum source source) {
    nnc_report_clear(&run->report);
    if (source == SOURCE_SAVER_PIDFD) {
        nnc_saving_exit(&run->saving);
    } else if (source == SOURCE_SAVER_LOG) {
        if (!nnc_process_read_log(&run->saving.saver)) {
            unwatch(run, run->saving.saver.log_fd);
        }
    } else {
        nnc_saving_message(&run->saving);
        if (run->saving.saved_reported) {
            unwatch(run, nnc_channel_fd(run->saving.saver.channel));
        }
    }
}

static void dispatch(struct nnc_run_state *run, uint64_t tag) {
    enum source source = (enum source)(tag >> 32);
    uint32_t child = (uint32_t)tag;
    switch (source) {
    case SOURCE_PIDFD:
        reap_child(run, child);
        break;
    case SOURCE_CHANNEL:
        read_channel(run, child);
        break;
    case SOURCE_LOG:
        nnc_report_clear(&run->report);
        if (run->process[child].log_fd >= 0 && !nnc_process_read_log(&run->process[child])) {
            unwatch(run, run->process[child].log_fd);
        }
        break;
    case SOURCE_SAVER_PIDFD:
    case SOURCE_SAVER_CHANNEL:
    case SOURCE_SAVER_LOG:
        if (run->saving.running) {
            on_saver(run, source);
        }
        break;
    case SOURCE_SIGNAL:
        on_signal(run);
        break;
    case SOURCE_NODES:
        break; /* below */
    }
    nnc_run_nodes_work(run);
}

/* Milliseconds epoll may sleep: to the next tick or the group's next deadline. */
static int sleep_ms(const struct nnc_run_state *run, uint64_t next_tick_ns) {
    uint64_t next = nnc_group_next_tick(&run->group);
    next = next < next_tick_ns ? next : next_tick_ns;
    uint64_t now_ns = nnc_clock_ns();
    return next <= now_ns ? 0 : (int)((next - now_ns) / 1000000 + 1);
}

static void loop(struct nnc_run_state *run) {
    uint64_t next_tick_ns = 0;
    while (!run->finished || !nnc_saving_idle(&run->saving) || !nnc_run_nodes_idle(run)) {
        struct epoll_event events[32];
        int count = epoll_wait(run->epoll_fd, events, 32, sleep_ms(run, next_tick_ns));
        for (int i = 0; i < count; i++) {
            dispatch(run, events[i].data.u64);
        }
        if (nnc_clock_ns() >= next_tick_ns || nnc_group_next_tick(&run->group) <= nnc_clock_ns()) {
            tick(run);
            bool waiting = run->result->first_batch_seconds < 0.0; /* that moment is measured */
            next_tick_ns = nnc_clock_ns() + (waiting ? TICK_MS / 20 : TICK_MS) * 1000000ull;
        }
        if (run->finished) {
            start_saving(run);
        }
    }
    nnc_report_clear(&run->report);
}

static int open_events(struct nnc_run_state *run) {
    static const int signals[] = {SIGTERM, SIGINT, SIGUSR1, SIGUSR2, SIGHUP};
    sigset_t set;
    sigemptyset(&set);
    for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++) {
        sigaddset(&set, signals[i]);
    }
    sigprocmask(SIG_BLOCK, &set, NULL);
    run->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    run->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (run->signal_fd < 0 || run->epoll_fd < 0) {
        return nnc_fail_errno("signalfd or epoll");
    }
    int result = watch(run, run->signal_fd, SOURCE_SIGNAL, 0);
    return result < 0 || run->far.nodes == NULL
               ? result
               : watch(run, nnc_nodes_fd(run->far.nodes), SOURCE_NODES, 0);
}

/* The code the run ends with, and its sentence. */
static int conclude(struct nnc_run_state *run) {
    struct nnc_run_result *result = run->result;
    for (int phase = 0; phase < 2; phase++) {
        *(phase == 0 ? &result->train : &result->val) = run->report.last[phase];
        *(phase == 0 ? &result->have_train : &result->have_val) = run->report.have_last[phase];
    }
    result->best_acc1 = run->report.best_acc1;
    result->bad_samples = run->bad.count;
    result->loader_deaths = run->group.loader_deaths;
    result->restarts = run->group.restarts;
    result->loaders = nnc_group_loaders(&run->group);
    result->seconds = run->running_since_ns != 0 && run->done_ns > run->running_since_ns
                          ? (double)(run->done_ns - run->running_since_ns) * 1e-9
                          : 0.0;
    if (run->saving.newest_path[0] != '\0') {
        snprintf(result->checkpoint, sizeof(result->checkpoint), "%s", run->saving.newest_path);
    }
    if (run->group.code == -NNC_E_COMM && run->far.nodes != NULL && result->checkpoint[0] != '\0') {
        return nnc_fail(run->group.code,
                        "%s; checkpoint %s is durable: start all machines again with --resume %s",
                        run->group.verdict, result->checkpoint, run->setup.run_dir);
    }
    if (run->group.code < 0) {
        return nnc_fail(run->group.code, "%s", run->group.verdict);
    }
    if (run->far.code < 0) {
        return nnc_fail(run->far.code, "%s", run->far.words);
    }
    if (run->saving.failures != 0) {
        return nnc_fail(-NNC_E_CHECKPOINT, "%" PRIu32 " checkpoints could not be written: %s",
                        run->saving.failures, run->saving.failure);
    }
    if (run->group.stop_signals != 0 && run->params->mode == NNC_MODE_TRAIN && nnc_run_leads(run)) {
        return nnc_fail(-NNC_E_STOPPED,
                        "stopped by a signal; checkpoint %s is durable, --resume %s goes on",
                        result->checkpoint, run->setup.run_dir);
    }
    return 0;
}

int nnc_run(const struct nnc_run_params *params, uint64_t started_ns,
            struct nnc_run_result *ret_result) {
    struct nnc_run_state *run = calloc(1, sizeof(*run));
    if (run == NULL) {
        return nnc_fail(-ENOMEM, "run: out of memory");
    }
    memset(ret_result, 0, sizeof(*ret_result));
    ret_result->first_batch_seconds = -1.0;
    ret_result->best_acc1 = -1.0;
    ret_result->utilisation = -1.0;
    run->params = params;
    run->result = ret_result;
    run->started_ns = started_ns;
    run->epoll_fd = run->signal_fd = -1;
    run->group.generation = 1;
    run->adapt = nnc_adapt_start();
    int result = nnc_run_prepare(run);
    result = result < 0 ? result : nnc_run_nodes_open(run);
    result = result < 0 ? result : open_events(run);
    if (result >= 0) {
        new_generation(run);
        loop(run);
        result = conclude(run);
    }
    char words[NNC_ERROR_TEXT_MAX]; /* telling the others may fail with words of its own */
    snprintf(words, sizeof(words), "%s", result < 0 ? nnc_error_text() : "");
    nnc_nodes_close(run->far.nodes, result, words);
    nnc_run_release(run);
    free(run);
    return result < 0 ? nnc_fail(result, "%s", words) : result;
}
