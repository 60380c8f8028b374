/* SPDX-License-Identifier: Apache-2.0 */
/* Who hangs, and who is to blame: what the pages of the children say, made into kills and words.
 *
 * It decides nothing about what follows (group.c) and nothing about ranks among each other
 * (stall.c). */
#include "coordinator/run_internal.h"

#include "base/clock.h"
#include "base/err.h"
#include "base/log.h"
#include "ipc/gpus.h"

#include <assert.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#define SECOND_NS   1000000000ull
#define PUT_OFF_MAX (2 * SECOND_NS)
#define EXIT_MAX    (10 * SECOND_NS)

static uint64_t counter_of(const struct nnc_process *process, enum nnc_counter counter) {
    return atomic_load_explicit(&process->page->counter[counter], memory_order_relaxed);
}

static int32_t error_of(const struct nnc_process *process) {
    /* Acquire: pairs with the release in nnc_child_fail(). */
    return process->page == NULL
               ? 0
               : atomic_load_explicit(&process->page->error_code, memory_order_acquire);
}

/* Relaxed throughout: a look that mixes two moments is put right by the next one. */
struct nnc_stall_rank nnc_run_look_at(const struct nnc_run_state *run, uint32_t rank) {
    const struct nnc_process *process = &run->process[rank];
    struct nnc_stall_rank look = {.running = run->group.child[rank].state == NNC_CHILD_RUNNING &&
                                             process->page != NULL && error_of(process) == 0,
                                  .on_device = run->plan.device[rank] >= 0};
    if (process->page == NULL) {
        return look;
    }
    look.beat_ns = atomic_load_explicit(&process->page->heartbeat_ns, memory_order_relaxed);
    look.activity = atomic_load_explicit(&process->page->activity, memory_order_relaxed);
    look.seq = counter_of(process, NNC_COUNT_SEQ);
    look.step = counter_of(process, NNC_COUNT_STEP);
    look.ready = counter_of(process, NNC_COUNT_READY);
    look.reduced = counter_of(process, NNC_COUNT_COLLECTIVES);
    return look;
}

void nnc_run_kill_hung(struct nnc_run_state *run, uint32_t child, const char *words) {
    struct nnc_process *process = &run->process[child];
    char name[64];
    nnc_process_name(process, name, sizeof(name));
    nnc_report_clear(&run->report);
    nnc_log(NNC_LOG_WARN, "%s (pid %d) %s; killing it", name, (int)process->pid, words);
    process->hung = true;
    nnc_process_kill(process, SIGKILL);
}

static void find_hung_loaders(struct nnc_run_state *run, uint64_t now_ns) {
    uint64_t limit_ns = run->params->config->sample_timeout * SECOND_NS;
    for (uint32_t i = run->plan.ranks; i < run->group.children; i++) {
        const struct nnc_process *process = &run->process[i];
        if (run->group.child[i].state != NNC_CHILD_RUNNING || process->page == NULL) {
            continue;
        }
        uint64_t beat = atomic_load_explicit(&process->page->heartbeat_ns, memory_order_relaxed);
        uint32_t doing = atomic_load_explicit(&process->page->activity, memory_order_relaxed);
        if (beat == 0 || now_ns < beat || now_ns - beat < limit_ns || process->hung) {
            continue;
        }
        char words[128];
        snprintf(words, sizeof(words), "has not moved for %" PRIu64 " s in %s",
                 (uint64_t)((now_ns - beat) / SECOND_NS),
                 doing < NNC_DOING_COUNT ? nnc_activity_name((enum nnc_activity)doing) : "?");
        nnc_run_kill_hung(run, i, words);
    }
}

/* A trainer that has left its error on its page is on its way out; a driver may keep it for ever.
 */
static void find_stuck_exits(struct nnc_run_state *run, uint64_t now_ns) {
    for (uint32_t rank = 0; rank < run->plan.ranks; rank++) {
        struct nnc_process *process = &run->process[rank];
        if (process->pid == 0 || error_of(process) == 0) {
            continue;
        }
        process->failed_ns = process->failed_ns == 0 ? now_ns : process->failed_ns;
        if (now_ns - process->failed_ns > EXIT_MAX && !process->hung) {
            nnc_run_kill_hung(run, rank, "has failed and does not end");
        }
    }
}

/* Node 0 looks at the ranks of all machines, because all of them wait for the one that hangs. */
static void find_hung_trainer(struct nnc_run_state *run, uint64_t now_ns) {
    struct nnc_stall_rank ranks[NNC_MAX_RANKS];
    char words[256];
    if (!nnc_run_leads(run) || !nnc_run_nodes_heard(run, now_ns)) {
        return;
    }
    memcpy(ranks, run->far.rank, sizeof(ranks));
    for (uint32_t rank = 0; rank < run->plan.ranks; rank++) {
        ranks[rank] = nnc_run_look_at(run, rank);
    }
    int rank = nnc_stall_look(&run->stall, ranks, run->plan.schedule.ranks, now_ns,
                              run->params->config->step_timeout * SECOND_NS, words, sizeof(words));
    if (rank >= (int)run->plan.ranks) {
        nnc_run_nodes_kill(run, (uint32_t)rank, words);
    } else if (rank >= 0 && !run->process[rank].hung) {
        nnc_run_kill_hung(run, (uint32_t)rank, words);
    }
}

void nnc_run_find_hangs(struct nnc_run_state *run, uint64_t now_ns) {
    find_hung_loaders(run, now_ns);
    find_stuck_exits(run, now_ns);
    find_hung_trainer(run, now_ns);
}

bool nnc_run_puts_off(struct nnc_run_state *run, uint32_t child) {
    bool consequence = child < run->plan.ranks && error_of(&run->process[child]) == -NNC_E_COMM;
    bool cause = false;
    for (uint32_t rank = 0; consequence && rank < run->plan.ranks; rank++) {
        int32_t error = error_of(&run->process[rank]);
        cause = cause ||
                (rank != child && run->process[rank].pid != 0 && error < 0 && error != -NNC_E_COMM);
    }
    /* The cause may be on another machine: it is told then, and this group starts again with it. */
    cause =
        cause || (consequence && run->far.nodes != NULL && run->group.phase < NNC_GROUP_RESTARTING);
    uint64_t now_ns = nnc_clock_ns();
    if (!cause) {
        run->put_off_ns = 0;
        return false;
    }
    run->put_off_ns = run->put_off_ns == 0 ? now_ns : run->put_off_ns;
    return now_ns - run->put_off_ns < PUT_OFF_MAX;
}

void nnc_run_add_place(const struct nnc_run_state *run, uint32_t child, char *words, size_t bytes) {
    if (child >= run->plan.ranks || run->group.child[child].state != NNC_CHILD_RUNNING ||
        !run->has_model) {
        return;
    }
    const struct nnc_stall_rank look = nnc_run_look_at(run, child);
    char place[128];
    nnc_stall_place(&look, place, sizeof(place));
    size_t used = strlen(words);
    snprintf(words + used, bytes - used, " (%s)", place);
}

void nnc_run_watch_gpus(struct nnc_run_state *run, const struct nnc_devices *devices) {
    if (run->plan.device[0] < 0) {
        return;
    }
    if (nnc_nvml_open(&run->nvml) < 0) {
        nnc_log(NNC_LOG_INFO, "load and memory of GPUs are not shown: %s", nnc_error_text());
    }
    for (uint32_t rank = 0; rank < run->plan.ranks; rank++) {
        const struct nnc_device_info *device = nnc_gpus_find(devices, run->plan.device[rank]);
        assert(device != NULL); /* the plan chose among these */
        run->peak_flops += device->peak_flops;
        if (run->nvml != NULL && nnc_nvml_watch(run->nvml, device->bus) < 0) {
            nnc_log(NNC_LOG_INFO, "not shown: %s", nnc_error_text());
        }
    }
}

void nnc_run_read_gpus(struct nnc_run_state *run, uint64_t now_ns) {
    struct nnc_gpu_xid xid;
    if (run->nvml == NULL || now_ns - run->gpus_read_ns < SECOND_NS) {
        return;
    }
    run->gpus_read_ns = now_ns;
    nnc_nvml_read(run->nvml, &run->report.gpu);
    while (nnc_nvml_next_xid(run->nvml, &xid) == 1) {
        nnc_report_clear(&run->report);
        nnc_log(NNC_LOG_WARN, "the driver reports Xid %" PRIu64 " of the GPU of trainer %" PRIu32,
                xid.number, xid.gpu);
    }
}
