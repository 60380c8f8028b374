/* SPDX-License-Identifier: Apache-2.0 */
/* A run's part in one over several machines: what comes from the others is handed to the group, and
 * what the group does is told to them.
 *
 *   a trainer dies on any machine    all groups start again, each counting the same restarts
 *   a group fails, a machine is gone all runs fail, with the words of where it happened
 *   a signal to stop                 all groups stop; the trainers agree on the step
 *   sums, bad samples, images        go to node 0, which reports for all and writes the folder
 *   who stands still                 is node 0's to find among all ranks
 *
 * Machines other than node 0 wait at the end for how it ended, so that all end alike.
 *
 * It does not know how words travel (nodes.c) and decides nothing that one machine decides alone
 * (group.c). */
#include "coordinator/run_internal.h"

#include "base/clock.h"
#include "base/err.h"
#include "base/log.h"
#include "base/regular.h"
#include "ipc/secret.h"

#include <errno.h>
#include <inttypes.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <xxhash.h>

#define SECOND_NS 1000000000ull
#define LATE_NS   (3 * SECOND_NS) /* for a word that comes every second */

/* ---- what comes ---- */

static void on_begin(struct nnc_run_state *run, const struct nnc_nodes_event *event) {
    if (!nnc_run_leads(run)) {
        run->setup.start = NNC_START_FRESH; /* rank 0 alone reads a checkpoint, all get its state */
        run->setup.start_epoch = event->start.epoch;
        run->setup.start_step = event->start.step;
    }
    if (run->group.children == 0) {
        nnc_log(NNC_LOG_INFO,
                "all %" PRIu32 " machines are there; trainers %" PRIu32 " to %" PRIu32
                " of %" PRIu32 " run here",
                run->params->config->nnodes, run->plan.first_rank,
                run->plan.first_rank + run->plan.ranks - 1, run->plan.schedule.ranks);
    }
    nnc_run_begin_generation(run);
    nnc_nodes_forget_links(run->far.nodes); /* the first trainer has them */
}

static void on_restart(struct nnc_run_state *run, const struct nnc_nodes_event *event) {
    struct nnc_actions actions = {.count = 0};
    if (event->number != run->group.generation || run->group.code < 0) {
        return; /* of a generation that this machine has left already, or it ends itself */
    }
    nnc_report_clear(&run->report);
    run->finished = run->far.told_done = false; /* should its trainers have been through */
    nnc_group_restart_with(&run->group, event->words, nnc_clock_ns(), &actions);
    run->far.told_restarts = run->group.restarts;
    nnc_run_perform(run, &actions);
}

static void on_failed(struct nnc_run_state *run, const struct nnc_nodes_event *event) {
    struct nnc_actions actions = {.count = 0};
    run->far.code = event->code;
    snprintf(run->far.words, sizeof(run->far.words), "%s", event->words);
    nnc_group_abort(&run->group, event->code, event->words, nnc_clock_ns(), &actions);
    nnc_run_perform(run, &actions);
}

static void on_child(struct nnc_run_state *run, const struct nnc_nodes_event *event) {
    /* What a generation that all have left says of a phase will be said again. */
    if (event->message->header.generation == run->group.generation) {
        nnc_run_take_share(run, event->message);
    }
}

/* Ages become times of this machine's clock. */
static void on_beat(struct nnc_run_state *run, const struct nnc_nodes_event *event) {
    const struct nnc_nodes_beat *beat = event->beat;
    uint64_t now_ns = nnc_clock_ns();
    run->far.progress[event->node] = beat->progress;
    run->far.heard_ns[event->node] = now_ns;
    for (uint32_t i = 0; i < run->plan.ranks; i++) {
        struct nnc_stall_rank *rank = &run->far.rank[event->node * run->plan.ranks + i];
        *rank = beat->rank[i];
        rank->running = rank->running && beat->generation == run->group.generation;
        rank->beat_ns = rank->beat_ns < now_ns ? now_ns - rank->beat_ns : 0;
    }
}

static void on_kill(struct nnc_run_state *run, const struct nnc_nodes_event *event) {
    uint32_t child = event->number - run->plan.first_rank;
    if (event->number >= run->plan.first_rank && child < run->plan.ranks &&
        run->group.child[child].state == NNC_CHILD_RUNNING && !run->process[child].hung) {
        nnc_run_kill_hung(run, child, event->words);
    }
}

/* A scheduler's signal comes to all machines at once, and each tells the others of it. It is one
 * signal, and not the second one that would end the run without a checkpoint. */
static void count_signal(struct nnc_run_state *run, uint32_t node, int number) {
    if (++run->far.signals[node] > run->signals) {
        nnc_run_stop(run, number);
    }
}

static void on_event(void *context, const struct nnc_nodes_event *event) {
    struct nnc_run_state *run = context;
    switch (event->kind) {
    case NNC_NODES_BEGIN:
        on_begin(run, event);
        break;
    case NNC_NODES_RESTART:
        on_restart(run, event);
        break;
    case NNC_NODES_FAILED:
        on_failed(run, event);
        break;
    case NNC_NODES_STOP:
        count_signal(run, event->node, (int)event->number);
        break;
    case NNC_NODES_CHILD:
        on_child(run, event);
        break;
    case NNC_NODES_BEAT:
        on_beat(run, event);
        break;
    case NNC_NODES_KILL:
        on_kill(run, event);
        break;
    case NNC_NODES_END:
        if (event->code >= 0) {
            nnc_log(NNC_LOG_INFO, "done; node 0 has the result");
        }
        run->far.code = event->code;
        snprintf(run->far.words, sizeof(run->far.words), "%s", event->words);
        break;
    }
}

/* ---- what is told ---- */

static void say_that_we_live(struct nnc_run_state *run, uint64_t now_ns) {
    struct nnc_nodes_beat beat = {.generation = run->group.generation, .ranks = run->plan.ranks};
    if (now_ns - run->far.beat_ns < SECOND_NS) {
        return;
    }
    run->far.beat_ns = now_ns;
    nnc_run_collect(run, &beat.progress);
    for (uint32_t rank = 0; rank < run->plan.ranks; rank++) {
        beat.rank[rank] = nnc_run_look_at(run, rank);
        uint64_t at_ns = beat.rank[rank].beat_ns;
        beat.rank[rank].beat_ns = at_ns == 0 ? UINT64_MAX : now_ns > at_ns ? now_ns - at_ns : 0;
    }
    nnc_nodes_tell_beat(run->far.nodes, &beat);
}

static void tell_news(struct nnc_run_state *run) {
    struct nnc_run_nodes *far = &run->far;
    const struct nnc_group *group = &run->group;
    if (far->told_restarts < group->restarts) {
        far->told_restarts = group->restarts;
        /* The group may have come to the next generation already, when its last child was gone. */
        bool is_next = group->phase != NNC_GROUP_RESTARTING;
        nnc_nodes_tell_restart(far->nodes, group->generation - (is_next ? 1 : 0), group->cause);
    }
    if (group->code < 0) {
        nnc_nodes_tell_failure(far->nodes, group->code, group->verdict);
    } else if (run->finished && !far->told_done) {
        far->told_done = true;
        nnc_nodes_tell_done(far->nodes);
    }
}

void nnc_run_nodes_work(struct nnc_run_state *run) {
    if (run->far.nodes == NULL) {
        return;
    }
    uint64_t now_ns = nnc_clock_ns();
    tell_news(run);
    nnc_nodes_work(run->far.nodes, now_ns);
    tell_news(run);
    say_that_we_live(run, now_ns);
}

void nnc_run_nodes_stop(struct nnc_run_state *run, int number) {
    nnc_nodes_tell_stop(run->far.nodes, number);
    count_signal(run, run->params->config->node_rank, number);
}

bool nnc_run_nodes_heard(const struct nnc_run_state *run, uint64_t now_ns) {
    uint32_t nodes = run->far.nodes == NULL ? 1 : run->params->config->nnodes;
    for (uint32_t node = 1; node < nodes; node++) {
        if (now_ns - run->far.heard_ns[node] > LATE_NS) {
            return false; /* its own silence is judged in nodes.c */
        }
    }
    return true;
}

void nnc_run_nodes_kill(struct nnc_run_state *run, uint32_t rank, const char *words) {
    if (run->far.killed == run->group.generation) {
        return;
    }
    run->far.killed = run->group.generation;
    nnc_report_clear(&run->report);
    nnc_log(NNC_LOG_WARN, "trainer %" PRIu32 " on node %" PRIu32 " %s; killing it", rank,
            rank / run->plan.ranks, words);
    nnc_nodes_tell_kill(run->far.nodes, rank / run->plan.ranks, rank, words);
}

void nnc_run_nodes_add_progress(const struct nnc_run_state *run, struct nnc_progress *progress) {
    if (run->far.nodes == NULL) {
        return;
    }
    uint32_t nodes = run->params->config->nnodes;
    for (uint32_t node = 1; node < nodes; node++) {
        const struct nnc_progress *other = &run->far.progress[node];
        progress->samples += other->samples;
        progress->wait_ns += other->wait_ns;
        if (other->phase == progress->phase && other->epoch == progress->epoch) {
            progress->phase_samples += other->phase_samples;
            progress->correct1 += other->correct1;
            progress->loss_sum += other->loss_sum;
        }
    }
    progress->wait_ns /= nodes;
}

/* ---- begin and end ---- */

bool nnc_run_spans_machines(const struct nnc_run_params *params) {
    bool meets = params->mode == NNC_MODE_TRAIN || params->mode == NNC_MODE_BENCH_COMM;
    return meets && params->config->nnodes > 1;
}

static int hash_file(const char *path, uint64_t *ret_hash) {
    FILE *file;
    int code = nnc_regular_open_stream(path, &file);
    XXH3_state_t *state = code < 0 ? NULL : XXH3_createState();
    if (code < 0 || state == NULL) {
        return code < 0 ? code : nnc_fail(-ENOMEM, "hash of %s: out of memory", path);
    }
    char bytes[4096];
    size_t length;
    XXH3_64bits_reset(state);
    while ((length = fread(bytes, 1, sizeof(bytes), file)) > 0) {
        XXH3_64bits_update(state, bytes, length);
    }
    code = ferror(file) ? nnc_fail(-EIO, "read model %s", path) : 0;
    *ret_hash = XXH3_64bits_digest(state);
    XXH3_freeState(state);
    fclose(file);
    return code;
}

static int fill_share(const struct nnc_run_state *run, struct nnc_nodes_share *ret_share) {
    const struct nnc_dataset *dataset = run->params->dataset; /* NULL: synthetic images */
    *ret_share =
        (struct nnc_nodes_share){.ranks = run->plan.ranks, .on_gpus = run->plan.device[0] >= 0};
    for (int phase = 0; phase < 2; phase++) {
        bool is_there = dataset != NULL && dataset->parts[phase].samples != 0;
        ret_share->data_hash[phase] =
            is_there ? nnc_index_content_hash(&dataset->parts[phase].index) : 0;
    }
    return hash_file(run->params->model_path, &ret_share->model_hash);
}

int nnc_run_nodes_open(struct nnc_run_state *run) {
    const struct nnc_config *config = run->params->config;
    if (!nnc_run_spans_machines(run->params)) {
        return 0;
    }
    struct nnc_nodes_params params = {.config = config, .on_event = on_event, .context = run};
    int code = fill_share(run, &params.share);
    if (code == 0) {
        prctl(PR_SET_DUMPABLE, 0); /* no core file, no debugger of the same user gets the secret */
        code = nnc_secret_read(config->rdzv_secret, params.secret);
        code = code < 0 ? nnc_fail_in(code, "--rdzv-secret")
                        : nnc_nodes_open(&params, &run->far.nodes);
    }
    OPENSSL_cleanse(params.secret, sizeof(params.secret));
    if (code == 0) {
        nnc_log(NNC_LOG_INFO, "node %" PRIu32 " of %" PRIu32 ": %s %s", config->node_rank,
                config->nnodes, config->node_rank == 0 ? "waiting for the others at" : "calling",
                config->rdzv_endpoint);
    }
    return code;
}

void nnc_run_nodes_join(struct nnc_run_state *run) {
    const struct nnc_nodes_start start = {
        .start = run->setup.start, .epoch = run->setup.start_epoch, .step = run->setup.start_step};
    memset(run->far.rank, 0, sizeof(run->far.rank));
    memset(run->far.progress, 0, sizeof(run->far.progress));
    nnc_nodes_join(run->far.nodes, run->group.generation, &start);
}

bool nnc_run_nodes_idle(const struct nnc_run_state *run) {
    return run->far.nodes == NULL || run->group.code < 0 || nnc_nodes_are_done(run->far.nodes);
}
