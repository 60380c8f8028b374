/* SPDX-License-Identifier: Apache-2.0 */
/* The planning trainer: builds the graph, adds up sizes, looks for the checkpoint to resume or the
 * weights to start from, answers with one struct and ends. It runs before any other process, so
 * that mistakes in a model text or in --resume are told at once, and the coordinator can make its
 * shared memory in the right size.
 *
 * It changes nothing on disk, opens no backend and starts no threads. */
#include "workers/plan.h"

#include "base/err.h"
#include "ipc/memfd.h"
#include "workers/checkpoint.h"
#include "workers/comm.h"
#include "workers/engine.h"
#include "workers/snapshot.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* ---- the model ---- */

static enum nnc_phase model_phase(const struct nnc_setup *setup) {
    bool trains = nnc_mode_is_synthetic(setup->mode) || setup->schedule.train_samples > 0;
    return trains ? NNC_PHASE_TRAIN : NNC_PHASE_VAL;
}

static int fill_sizes(const struct nnc_setup *setup, const struct nnc_graph *graph,
                      struct nnc_plan_answer *answer) {
    size_t snapshot_bytes = 0;
    int code = nnc_snapshot_bytes(graph, &snapshot_bytes);
    code = code < 0 ? code : nnc_engine_estimate(setup, &answer->device_bytes);
    if (code < 0) {
        return code;
    }
    answer->classes = graph->classes;
    answer->model_channels = graph->input.c;
    answer->parameters = nnc_graph_parameter_count(graph);
    answer->snapshot_bytes = snapshot_bytes;
    answer->comm_bytes = nnc_comm_shm_bytes(setup->local_ranks);
    return 0;
}

/* ---- the start ---- */

static int take_checkpoint(const struct nnc_setup *setup, const struct nnc_graph *graph,
                           const struct nnc_checkpoint *checkpoint,
                           struct nnc_plan_answer *answer) {
    const struct nnc_schedule *schedule = &setup->schedule;
    const struct nnc_train_state run = {
        .seed = setup->config.seed,
        .global_batch = (uint64_t)schedule->ranks * schedule->batch,
        .train_samples = schedule->train_samples,
        .steps_per_epoch = nnc_schedule_train_steps(schedule),
        .param_hash = nnc_state_param_hash(graph),
    };
    const struct nnc_train_state *state = &checkpoint->state;
    if (strlen(checkpoint->path) >= sizeof(answer->start_path)) {
        return nnc_fail(-ENAMETOOLONG, "path %.200s... is too long", checkpoint->path);
    }
    if (setup->mode == NNC_MODE_TRAIN) {
        int code = nnc_state_check(state, &run);
        if (code < 0) {
            return nnc_fail_in(code, "cannot resume from %s", checkpoint->path);
        }
        if (state->epoch > schedule->epochs) {
            return nnc_fail(-NNC_E_USAGE,
                            "%s has %" PRIu32 " epochs already, --epochs asks for %" PRIu32,
                            checkpoint->path, state->epoch, schedule->epochs);
        }
    } else if (state->param_hash != run.param_hash) {
        return nnc_fail(-NNC_E_USAGE, "%s belongs to a model with other parameters than --model %s",
                        checkpoint->path, setup->config.model);
    }
    answer->start = NNC_START_CHECKPOINT;
    answer->start_epoch = state->epoch;
    answer->start_step = state->step;
    answer->best_acc1 = state->best_acc1;
    memcpy(answer->start_path, checkpoint->path, strlen(checkpoint->path) + 1);
    return 0;
}

static int warn_of_damage(const struct nnc_checkpoint *checkpoint, char **ret_warning) {
    if (checkpoint->skipped == 0) {
        return 0;
    }
    if (asprintf(ret_warning,
                 "%" PRIu32 " newer checkpoint%s damaged and passed over; going back to %s; the "
                 "newest: %s",
                 checkpoint->skipped, checkpoint->skipped == 1 ? " is" : "s are", checkpoint->path,
                 checkpoint->why) < 0) {
        *ret_warning = NULL;
        return nnc_fail(-ENOMEM, "no memory for a warning");
    }
    return 0;
}

/* 1 with a checkpoint, 0 start from zero, or negative. */
static int look_for_checkpoint(struct nnc_vfs *vfs, const struct nnc_setup *setup,
                               struct nnc_checkpoint *ret_checkpoint) {
    const char *resume = setup->config.resume;
    bool trains = setup->mode == NNC_MODE_TRAIN;
    if ((trains && setup->config.fresh) || (!trains && resume[0] == '\0')) {
        return 0;
    }
    if (resume[0] != '\0' && strcmp(resume, "auto") != 0) {
        if (nnc_checkpoint_is_one(vfs, resume)) {
            int code = nnc_checkpoint_open(vfs, resume, ret_checkpoint);
            return code < 0 ? code : 1;
        }
        int found = nnc_checkpoint_find(vfs, resume, ret_checkpoint);
        return found != 0 ? found
                          : nnc_fail(-NNC_E_USAGE, "--resume %s: there is no checkpoint", resume);
    }
    if (setup->run_dir[0] == '\0') {
        return 0;
    }
    int found = nnc_checkpoint_find(vfs, setup->run_dir, ret_checkpoint);
    if (found == 1 && resume[0] == '\0') {
        return nnc_fail(-NNC_E_USAGE,
                        "%s holds checkpoints already: --resume auto continues that run, --fresh "
                        "starts over",
                        setup->run_dir);
    }
    return found;
}

static int fill_start(struct nnc_vfs *vfs, const struct nnc_setup *setup,
                      const struct nnc_graph *graph, struct nnc_plan_answer *answer,
                      char **ret_warning) {
    answer->start = NNC_START_FRESH;
    answer->best_acc1 = -1;
    struct nnc_checkpoint *checkpoint = calloc(1, sizeof(*checkpoint));
    if (checkpoint == NULL) {
        return nnc_fail(-ENOMEM, "no memory to look for checkpoints");
    }
    int found = look_for_checkpoint(vfs, setup, checkpoint);
    int code = found;
    if (found == 1) {
        code = take_checkpoint(setup, graph, checkpoint, answer);
        code = code < 0 ? code : warn_of_damage(checkpoint, ret_warning);
    } else if (found == 0 && setup->config.weights[0] != '\0') {
        code = nnc_engine_check_weights(graph, vfs, setup->config.weights, setup->config.strict);
    }
    free(checkpoint);
    return code;
}

void nnc_plan_answer_setup(struct nnc_vfs *vfs, const struct nnc_setup *setup,
                           struct nnc_plan_answer *ret_answer, char **ret_warning) {
    struct nnc_plan_answer answer = {0};
    struct nnc_graph *graph = NULL;
    *ret_warning = NULL;
    int code = nnc_engine_graph(setup, model_phase(setup), &graph);
    code = code < 0 ? code : fill_sizes(setup, graph, &answer);
    code = code < 0 ? code : fill_start(vfs, setup, graph, &answer, ret_warning);
    nnc_graph_destroy(graph);
    if (code < 0) {
        answer.status = code;
        snprintf(answer.error_text, sizeof(answer.error_text), "%s", nnc_error_text());
    }
    *ret_answer = answer;
}

/* ---- the process ---- */

static int write_answer(const void *answer, size_t bytes) {
    const char *from = answer;
    size_t left = bytes;
    while (left > 0) {
        ssize_t put = write(NNC_FD_CHANNEL, from, left);
        if (put < 0 && errno != EINTR) {
            return nnc_fail_errno("answer to the coordinator");
        }
        left -= put > 0 ? (size_t)put : 0;
        from += put > 0 ? put : 0;
    }
    return 0;
}

int nnc_plan_main(char **ret_warning) {
    void *address;
    int code = nnc_memfd_map(NNC_FD_SETUP, sizeof(struct nnc_setup), 0, &address);
    if (code < 0) {
        return nnc_fail_in(code, "this program is started by nncoord");
    }
    const struct nnc_setup *setup = address;
    struct nnc_plan_answer answer;
    if (setup->magic != NNC_SETUP_MAGIC || setup->version != NNC_SETUP_VERSION ||
        strncmp(setup->build_id, nnc_build_id(), sizeof(setup->build_id)) != 0) {
        munmap(address, sizeof(struct nnc_setup));
        return nnc_fail(-NNC_E_FORMAT, "the setup comes from another build of nncoord");
    }
    if (getppid() != setup->parent_pid) {
        munmap(address, sizeof(struct nnc_setup));
        return nnc_fail(-EPIPE, "the coordinator is gone");
    }
    nnc_plan_answer_setup(nnc_vfs_real(), setup, &answer, ret_warning);
    munmap(address, sizeof(struct nnc_setup));
    return write_answer(&answer, sizeof(answer));
}

int nnc_plan_devices_main(void) {
    const struct nnc_backend_ops *ops;
    struct nnc_devices devices = {.count = 0};
    if (nnc_backend_load("cuda", &ops) < 0) {
        snprintf(devices.why, sizeof(devices.why), "%s", nnc_error_text());
    } else {
        ops->device->list(&devices);
        devices.loaded = 1;
    }
    return write_answer(&devices, sizeof(devices));
}
