/* SPDX-License-Identifier: Apache-2.0 */
/* nncoord-trainer: one process of five kinds, told by its words or its setup.
 *
 *   --plan     answers what the coordinator must know before it starts anything   (plan.c)
 *   --devices  answers which GPUs there are                                       (plan.c)
 *   a verb     that nncoord handed over, with the whole command line     (selftest, bench_device)
 *   trainer    attach -> ATTACHED -> compile, join, load -> READY -> START -> loop (train.c)
 *   saver      map the snapshot -> save -> SAVED                                   (saver.c)
 *
 * Here alone is the wiring to the coordinator: descriptors, messages, the exit status. */
#include "base/clock.h"
#include "base/err.h"
#include "base/log.h"
#include "base/paths.h"
#include "ipc/child.h"
#include "ipc/memfd.h"
#include "workers/bench_device.h"
#include "workers/checkpoint.h"
#include "workers/plan.h"
#include "workers/saver.h"
#include "workers/selftest.h"
#include "workers/train.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

enum {
    SEND_WAIT_MS = 30000,
    COLLECTIVE_DEADLINE_MS = 600000, /* the first one waits for the slowest rank to compile */
    WIRE_QUEUE_BYTES = 1 << 20,
    SAVER_NICE = 10,
};

/* Everything a trainer process holds. */
struct process {
    struct nnc_child *child;
    const struct nnc_setup *setup;
    struct nnc_ring *ring;
    struct nnc_wire *wire[2]; /* to the first ranks of the machines before and behind */
    struct nnc_comm *comm;
    struct nnc_engine *engine;
    struct nnc_snapshot snapshot;
    void *snapshot_memory;
    struct nnc_trainer *trainer;
    int audit_fd;
};

/* ---- link ---- */

static void link_beat(void *context, enum nnc_activity activity) {
    nnc_child_beat(context, activity);
}

static void link_set(void *context, enum nnc_counter counter, uint64_t value) {
    nnc_child_set(context, counter, value);
}

static void link_progress(void *context, uint32_t phase, double loss_sum, double lr) {
    struct nnc_child_page *page = nnc_child_page(context);
    uint64_t loss_bits, lr_bits;
    memcpy(&loss_bits, &loss_sum, sizeof(loss_bits));
    memcpy(&lr_bits, &lr, sizeof(lr_bits));
    /* Relaxed: the coordinator prints them, nothing depends on their order. */
    atomic_store_explicit(&page->phase, phase, memory_order_relaxed);
    atomic_store_explicit(&page->loss_sum_bits, loss_bits, memory_order_relaxed);
    atomic_store_explicit(&page->lr_bits, lr_bits, memory_order_relaxed);
}

static int link_poll(void *context) {
    return nnc_child_poll(context);
}

static int link_send(void *context, enum nnc_message_type type, const void *body, size_t bytes,
                     const void *tail, size_t tail_bytes) {
    return nnc_channel_send2(nnc_child_channel(context), type, body, bytes, tail, tail_bytes,
                             SEND_WAIT_MS);
}

static const struct nnc_link_ops child_link = {
    .beat = link_beat,
    .set = link_set,
    .progress = link_progress,
    .poll = link_poll,
    .send = link_send,
};

/* A long wait for other ranks is still life, unless the device has failed meanwhile. */
static int comm_alive(void *context) {
    const struct process *process = context;
    nnc_child_beat(process->child, NNC_DOING_REDUCE);
    const struct nnc_device_ops *device =
        process->engine == NULL ? NULL : nnc_engine_ops(process->engine)->device;
    return device == NULL ? 0 : device->look(nnc_engine_backend(process->engine));
}

/* So is one for the device, whatever it does; how far it is tells whether it hangs. */
static int device_alive(void *context) {
    const struct process *process = context;
    struct nnc_child_page *page = nnc_child_page(process->child);
    uint32_t doing = atomic_load_explicit(&page->activity, memory_order_relaxed);
    nnc_child_beat(process->child, (enum nnc_activity)doing);
    if (process->engine != NULL) {
        uint64_t ready, reduced;
        nnc_engine_ops(process->engine)
            ->device->progress(nnc_engine_backend(process->engine), &ready, &reduced);
        nnc_child_set(process->child, NNC_COUNT_READY, ready);
        nnc_child_set(process->child, NNC_COUNT_COLLECTIVES, reduced);
    }
    return 0;
}

/* ---- trainer ---- */

static bool has_model(const struct nnc_setup *setup) {
    return setup->mode != NNC_MODE_BENCH_INPUT && setup->mode != NNC_MODE_CHECK;
}

static int attach_ring(struct process *process) {
    const struct nnc_setup *setup = process->setup;
    uint32_t ring = setup->number - setup->first_rank;
    int ctl_fd = setup->ring_ctl_fd[ring], data_fd = setup->ring_data_fd[ring];
    if (nnc_mode_is_synthetic(setup->mode)) {
        return 0;
    }
    int code = nnc_ring_attach(&setup->geometry, NNC_RING_TRAINER, ctl_fd, data_fd,
                               setup->generation, 0, &process->ring);
    close(ctl_fd);
    close(data_fd);
    return code;
}

/* The coordinators have found each other, and proved that they know the run's secret. */
static int attach_wires(struct process *process) {
    const struct nnc_setup *setup = process->setup;
    int code = 0;
    for (int side = 0; side < 2 && code == 0; side++) {
        if (setup->link_fd[side] >= 0) {
            code = nnc_wire_create(setup->link_fd[side], &setup->link_keys[side], WIRE_QUEUE_BYTES,
                                   &process->wire[side]);
        }
    }
    return code;
}

static int attach_comm(struct process *process) {
    const struct nnc_setup *setup = process->setup;
    if (!has_model(setup)) {
        return 0;
    }
    int code = attach_wires(process);
    const struct nnc_comm_params params = {.rank = setup->number,
                                           .ranks = setup->ranks,
                                           .first = setup->first_rank,
                                           .local_ranks = setup->local_ranks,
                                           .node = setup->first_rank / setup->local_ranks,
                                           .nodes = setup->ranks / setup->local_ranks,
                                           .before = process->wire[0],
                                           .after = process->wire[1],
                                           .fd = setup->comm_fd,
                                           .deadline_ms = COLLECTIVE_DEADLINE_MS,
                                           .alive = comm_alive,
                                           .context = process};
    code = code < 0 ? code : nnc_comm_create(&params, &process->comm);
    if (setup->comm_fd >= 0) {
        close(setup->comm_fd);
    }
    return code;
}

/* Rank 0 alone touches the snapshot memory; what it must hold is checked when the model is built.
 */
static int attach_snapshot(struct process *process) {
    const struct nnc_setup *setup = process->setup;
    if (setup->snapshot_fd < 0) {
        return 0;
    }
    int code = 0;
    if (setup->number == 0) {
        code =
            nnc_memfd_map(setup->snapshot_fd, setup->snapshot_bytes, 1, &process->snapshot_memory);
    }
    close(setup->snapshot_fd);
    return code;
}

static int open_audit(struct process *process) {
    const char *path = process->setup->config.audit;
    if (path[0] == '\0') {
        return 0;
    }
    process->audit_fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    return process->audit_fd >= 0 ? 0
                                  : nnc_fail(-NNC_E_CHECKPOINT, "--audit %s cannot be written: %s",
                                             path, strerror(errno));
}

static int attach(struct process *process) {
    int code = attach_ring(process);
    code = code < 0 ? code : attach_comm(process);
    code = code < 0 ? code : attach_snapshot(process);
    code = code < 0 ? code : open_audit(process);
    return code < 0 ? code : nnc_child_attached(process->child);
}

static int build(struct process *process) {
    const struct nnc_setup *setup = process->setup;
    struct nnc_trainer_params params = {.setup = setup,
                                        .link = {&child_link, process->child},
                                        .ring = process->ring,
                                        .comm = process->comm,
                                        .audit_fd = process->audit_fd,
                                        .vfs = nnc_vfs_real()};
    const struct nnc_engine_params engine = {
        .setup = setup, .comm = process->comm, .alive = device_alive, .context = process};
    int code = has_model(setup) ? nnc_engine_create(&engine, &process->engine) : 0;
    if (code == 0 && process->snapshot_memory != NULL) {
        code = nnc_snapshot_attach(nnc_engine_model(process->engine), process->snapshot_memory,
                                   setup->snapshot_bytes, &process->snapshot);
        params.snapshot = &process->snapshot;
    }
    params.engine = process->engine;
    code = code < 0 ? code : nnc_trainer_create(&params, &process->trainer);
    return code < 0 ? code : nnc_trainer_load(process->trainer);
}

static int report_ready(struct process *process) {
    struct nnc_msg_ready ready = {0};
    if (process->engine != NULL) {
        const struct nnc_graph *graph = nnc_engine_model(process->engine);
        const struct nnc_backend_ops *ops = nnc_engine_ops(process->engine);
        size_t snapshot_bytes = 0;
        int code = nnc_snapshot_bytes(graph, &snapshot_bytes);
        if (code < 0) {
            return code;
        }
        ready.parameters = nnc_graph_parameter_count(graph);
        ready.snapshot_bytes = snapshot_bytes / 2;
        for (uint32_t node = 0; node < graph->node_count; node++) {
            ready.sample_flops += graph->nodes[node].flops;
        }
        ready.device_bytes = ops->memory(nnc_engine_backend(process->engine));
        snprintf(ready.note, sizeof(ready.note), "%s: %.100s", ops->name, ops->description);
    }
    return nnc_child_ready(process->child, &ready);
}

/* --fresh: what another run left in this directory must not be taken for this one's. */
static int prepare_run_dir(const struct nnc_setup *setup) {
    if (setup->number != 0 || setup->mode != NNC_MODE_TRAIN || setup->run_dir[0] == '\0') {
        return 0;
    }
    int code = nnc_checkpoint_clean(nnc_vfs_real(), setup->run_dir);
    if (code == 0 && setup->config.fresh && setup->start == NNC_START_FRESH &&
        setup->generation <= 1) {
        code = nnc_checkpoint_discard(nnc_vfs_real(), setup->run_dir);
    }
    return code;
}

static int run_trainer(struct nnc_child *child) {
    struct process process = {.child = child, .setup = nnc_child_setup(child), .audit_fd = -1};
    int code = attach(&process);
    code = code < 0 ? code : build(&process);
    code = code < 0 ? code : report_ready(&process);
    code = code < 0 ? code : nnc_child_wait_start(child);
    code = code < 0 ? code : prepare_run_dir(process.setup);
    code = code < 0 ? code : nnc_trainer_run(process.trainer);
    if (code < 0) {
        nnc_child_fail(child, code); /* the cause, before the peers fail of it */
    }
    if (code < 0 && process.comm != NULL) {
        nnc_comm_stop(process.comm);
    }
    nnc_trainer_destroy(process.trainer); /* unpins the ring */
    nnc_engine_destroy(process.engine);
    nnc_comm_destroy(process.comm);
    nnc_wire_destroy(process.wire[0]);
    nnc_wire_destroy(process.wire[1]);
    nnc_ring_destroy(process.ring);
    if (process.snapshot_memory != NULL) {
        munmap(process.snapshot_memory, process.setup->snapshot_bytes);
    }
    if (process.audit_fd >= 0) {
        close(process.audit_fd);
    }
    return code;
}

/* ---- saver ---- */

static int report_saved(struct nnc_child *child, const struct nnc_msg_saved *saved,
                        const char *text) {
    struct nnc_msg_saved message = *saved;
    message.path_bytes = (uint32_t)strlen(text);
    return nnc_channel_send2(nnc_child_channel(child), NNC_MSG_SAVED, &message, sizeof(message),
                             text, message.path_bytes, SEND_WAIT_MS);
}

static int run_saver(struct nnc_child *child) {
    const struct nnc_setup *setup = nnc_child_setup(child);
    struct nnc_checkpoint_saved saved;
    struct nnc_msg_saved message = {0};
    void *memory = NULL;
    uint64_t began_ns = nnc_clock_ns();
    nnc_child_beat(child, NNC_DOING_SAVE);
    setpriority(PRIO_PROCESS, 0, SAVER_NICE); /* training goes first; not allowed is no error */
    int code = nnc_memfd_map(setup->snapshot_fd, setup->snapshot_bytes, 1, &memory);
    if (code == 0) {
        code = nnc_saver_save(nnc_vfs_real(), setup, memory, &saved, &message.step);
        munmap(memory, setup->snapshot_bytes);
    }
    message.status = code;
    message.seconds = (double)(nnc_clock_ns() - began_ns) * 1e-9;
    if (code == 0) {
        memcpy(message.weights_sha256, saved.weights_sha256, sizeof(message.weights_sha256));
    }
    int sent = report_saved(child, &message, code == 0 ? saved.path : nnc_error_text());
    return code < 0 ? code : sent;
}

/* ---- main ---- */

/* A program that only answers talks to nobody, so it needs no order to end: it goes with the
 * coordinator, and by a signal. Whether the coordinator ended before is checked in plan.c. */
static int answer(bool devices) {
    char *warning = NULL;
    sigset_t none;
    sigemptyset(&none);
    nnc_log_init("nncoord", NNC_LOG_INFO);
    int code = prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 ? nnc_fail_errno("PR_SET_PDEATHSIG") : 0;
    sigprocmask(SIG_SETMASK, &none, NULL);
    if (code == 0) {
        code = devices ? nnc_plan_devices_main() : nnc_plan_main(&warning);
    }
    if (warning != NULL) {
        nnc_log(NNC_LOG_WARN, "%s", warning);
    }
    free(warning);
    if (code < 0) {
        nnc_log(NNC_LOG_ERROR, "%s", nnc_error_text());
    }
    return nnc_error_exit_status(code);
}

/* A command line that nncoord handed over, with its verb. */
static int execute(int argc, char **argv) {
    char recipes[NNC_PATH_MAX];
    struct nnc_command command = {.verb = ""};
    bool done = false;
    nnc_log_init("nncoord", NNC_LOG_INFO);
    int code = nnc_path_data("models/recipes", recipes, sizeof(recipes));
    code = code < 0 ? code : nnc_command_parse(argc, argv, recipes, &command, &done);
    if (code >= 0 && !done) {
        bool is_bench = strcmp(command.verb, "bench") == 0 && strcmp(command.subverb, "gpu") == 0;
        bool is_selftest = strcmp(command.verb, "selftest") == 0;
        code = is_bench      ? nnc_bench_device_command(&command.config)
               : is_selftest ? nnc_selftest_command(&command.config)
                             : nnc_fail(-NNC_E_USAGE, "%s: nncoord does that", command.verb);
    }
    if (code < 0) {
        fprintf(stderr, "nncoord: %s\n", nnc_error_text());
    }
    return nnc_error_exit_status(code);
}

int main(int argc, char **argv) {
    if (argc == 2 && (strcmp(argv[1], "--plan") == 0 || strcmp(argv[1], "--devices") == 0)) {
        return answer(strcmp(argv[1], "--devices") == 0);
    }
    if (argc > 1) {
        return execute(argc, argv);
    }
    struct nnc_child *child = NULL;
    int code = nnc_child_begin(NNC_ROLE_TRAINER, &child);
    if (code < 0) {
        fprintf(stderr, "nncoord-trainer: %s\n", nnc_error_text());
        return nnc_error_exit_status(code);
    }
    code = nnc_child_setup(child)->role == NNC_ROLE_SAVER ? run_saver(child) : run_trainer(child);
    return nnc_child_end(child, code);
}
