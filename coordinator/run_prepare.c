/* SPDX-License-Identifier: Apache-2.0 */
/* What a run needs before its first process starts: the plan, the sizes of the model (asked of a
 * trainer that only plans), the memory check, and all shared memory. Whatever would not fit is
 * refused here with the numbers, never found later by a killed process. */
#include "coordinator/run_internal.h"

#include "base/clock.h"
#include "base/err.h"
#include "base/log.h"
#include "base/paths.h"
#include "ipc/gpus.h"
#include "ipc/memfd.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* The data of a phase, or NULL. */
static const struct nnc_dataset_part *part_of(const struct nnc_run_state *run, int phase) {
    const struct nnc_dataset *dataset = run->params->dataset;
    return dataset == NULL || dataset->parts[phase].samples == 0 ? NULL : &dataset->parts[phase];
}

static int make_plan(struct nnc_run_state *run) {
    struct nnc_devices devices = {.count = 0};
    if (nnc_gpus_wanted(run->params->config)) {
        int result = nnc_process_devices(run->directory, &devices);
        if (result < 0) {
            return result;
        }
    }
    bool spans = nnc_run_spans_machines(run->params);
    struct nnc_plan_input input = {
        .config = run->params->config,
        .machine = run->params->machine,
        .devices = &devices,
        .mode = run->params->mode,
        .nodes = spans ? run->params->config->nnodes : 1,
        .node = spans ? run->params->config->node_rank : 0,
        .channels = nnc_dataset_channels(run->params->dataset, run->params->config->channels)};
    for (int phase = 0; phase < 2; phase++) {
        const struct nnc_dataset_part *part = part_of(run, phase);
        input.samples[phase] = part == NULL ? 0 : part->index.header->samples;
    }
    int result = nnc_plan_make(&input, &run->plan);
    if (result >= 0) {
        nnc_run_watch_gpus(run, &devices);
    }
    return result;
}

static int make_index_memfds(struct nnc_run_state *run) {
    for (int phase = 0; phase < 2; phase++) {
        const struct nnc_dataset_part *part = part_of(run, phase);
        if (part == NULL) {
            continue;
        }
        int result = nnc_memfd_create("index", part->size, NNC_MEMFD_READONLY, part->bytes,
                                      run->params->config->shm_dir, &run->index_fd[phase]);
        if (result < 0) {
            return result;
        }
    }
    return 0;
}

static int make_strikes(struct nnc_run_state *run) {
    const uint64_t samples[2] = {run->setup.data[0].samples, run->setup.data[1].samples};
    return nnc_strikes_open(samples, run->params->config->shm_dir, &run->strikes);
}

static void fill_data(struct nnc_run_state *run) {
    for (int phase = 0; phase < 2; phase++) {
        const struct nnc_dataset_part *part = part_of(run, phase);
        struct nnc_setup_data *data = &run->setup.data[phase];
        *data = (struct nnc_setup_data){.index_fd = -1, .raw_fd = -1};
        if (part == NULL) {
            continue;
        }
        data->samples = part->index.header->samples;
        data->classes = (uint32_t)part->index.header->classes;
        snprintf(data->root, sizeof(data->root), "%s", part->root);
    }
}

static void fill_setup(struct nnc_run_state *run) {
    struct nnc_setup *setup = &run->setup;
    setup->mode = run->params->mode;
    setup->ranks = run->plan.schedule.ranks;
    setup->first_rank = run->plan.first_rank;
    setup->local_ranks = run->plan.ranks;
    setup->loaders = run->plan.loaders;
    setup->threads = run->plan.threads;
    setup->device = run->plan.device[0];
    setup->config = *run->params->config;
    setup->schedule = run->plan.schedule;
    setup->geometry = run->plan.geometry;
    setup->comm_fd = -1;
    setup->link_fd[0] = setup->link_fd[1] = -1;
    setup->snapshot_fd = -1;
    setup->quarantine_fd = -1;
    setup->generation = 1;
    fill_data(run);
    uint32_t train_classes = setup->data[NNC_PHASE_TRAIN].classes;
    setup->classes = train_classes != 0 ? train_classes : setup->data[NNC_PHASE_VAL].classes;
    setup->classes = setup->classes != 0 ? setup->classes : run->params->classes;
    snprintf(setup->model_path, sizeof(setup->model_path), "%s", run->params->model_path);
    if (run->params->rundir != NULL) {
        snprintf(setup->run_dir, sizeof(setup->run_dir), "%s", run->params->rundir->path);
    }
    for (int i = 0; i < NNC_MAX_RANKS; i++) {
        setup->ring_ctl_fd[i] = setup->ring_data_fd[i] = -1;
    }
}

/* Sizes of the model and the place to start from. */
static int ask_trainer(struct nnc_run_state *run) {
    const struct nnc_process_params params = {.directory = run->directory, .setup = &run->setup};
    run->setup.role = NNC_ROLE_TRAINER;
    int result = nnc_process_plan(&params, &run->answer);
    if (result < 0) {
        return result;
    }
    struct nnc_setup *setup = &run->setup;
    setup->classes = run->answer.classes;
    setup->comm_bytes = run->answer.comm_bytes;
    setup->snapshot_bytes = run->answer.snapshot_bytes;
    setup->start = run->answer.start;
    setup->start_epoch = run->answer.start_epoch;
    setup->start_step = run->answer.start_step;
    snprintf(setup->start_path, sizeof(setup->start_path), "%s", run->answer.start_path);
    run->result->parameters = run->answer.parameters;
    /* What the run has before its first step; each epoch and the end of the run write over it. */
    run->result->epochs = setup->start_epoch;
    run->result->steps = setup->start_step +
                         (uint64_t)setup->start_epoch * nnc_schedule_train_steps(&setup->schedule);
    snprintf(run->result->checkpoint, sizeof(run->result->checkpoint), "%s", setup->start_path);
    if (setup->start == NNC_START_CHECKPOINT && setup->mode != NNC_MODE_TRAIN) {
        nnc_log(NNC_LOG_INFO, "weights of %s", setup->start_path);
    } else if (setup->start == NNC_START_CHECKPOINT) {
        nnc_log(NNC_LOG_INFO, "resuming from %s: epoch %" PRIu32 ", step %" PRIu64,
                setup->start_path, setup->start_epoch + 1, setup->start_step);
    }
    return 0;
}

static int check_open_files(const struct nnc_run_state *run) {
    uint32_t need = nnc_process_open_files(run->plan.ranks, run->plan.loaders);
    uint64_t allowed = run->params->machine->nofile_soft;
    return allowed >= need
               ? 0
               : nnc_fail(-NNC_E_USAGE,
                          "this run needs %" PRIu32 " open files and ulimit -n allows %" PRIu64
                          "; raise it (ulimit -n %" PRIu32 ")",
                          need, allowed, need);
}

static int check_memory(struct nnc_run_state *run) {
    const struct nnc_memory_need need = {
        .rings = (uint64_t)run->plan.ring_bytes * run->plan.ranks,
        .comm = run->answer.comm_bytes,
        .snapshot = run->params->mode == NNC_MODE_TRAIN ? run->answer.snapshot_bytes : 0,
        .trainers = run->answer.device_bytes * run->plan.ranks,
        .loaders = (uint64_t)run->plan.loaders * NNC_PLAN_LOADER_BYTES,
    };
    nnc_plan_limit_loaders(&need, run->params->machine, &run->plan);
    return nnc_plan_check_memory(&need, run->params->machine);
}

static int make_ledger(struct nnc_run_state *run) {
    const struct nnc_index *index[2] = {NULL, NULL};
    for (int phase = 0; phase < 2; phase++) {
        const struct nnc_dataset_part *part = part_of(run, phase);
        index[phase] = part == NULL ? NULL : &part->index;
    }
    const struct nnc_config *config = run->params->config;
    bool counts = run->params->mode != NNC_MODE_CHECK && run->params->mode != NNC_MODE_PREDICT;
    FILE *file = run->params->rundir == NULL ? NULL : run->params->rundir->bad;
    int result = nnc_bad_open(index, counts ? config->max_bad : 1.0,
                              counts && config->on_bad == NNC_ON_BAD_FAIL, file, &run->bad);
    run->bad.names_all = run->params->mode == NNC_MODE_CHECK;
    run->bad.list = run->params->bad_list;
    return result;
}

int nnc_run_prepare(struct nnc_run_state *run) {
    run->index_fd[0] = run->index_fd[1] = run->comm_fd = run->snapshot_fd = -1;
    run->strikes.fd = -1;
    int result = nnc_path_programs(run->directory, sizeof(run->directory));
    result = result < 0 ? result : make_plan(run);
    result = result < 0 ? result : check_open_files(run);
    if (result < 0) {
        return result;
    }
    fill_setup(run);
    run->has_model = run->params->model_path[0] != '\0';
    if (run->has_model) {
        result = ask_trainer(run);
    }
    result = result < 0 ? result : check_memory(run);
    result = result < 0 ? result : make_index_memfds(run);
    result = result < 0 ? result : make_strikes(run);
    if (result >= 0 && run->params->mode == NNC_MODE_TRAIN) {
        result = nnc_memfd_create("snapshot", run->setup.snapshot_bytes, NNC_MEMFD_SHARED, NULL,
                                  run->setup.config.shm_dir, &run->snapshot_fd);
    }
    run->saving.enabled = run->params->rundir != NULL;
    run->result->plan = run->plan;
    run->result->ring_bytes = (uint64_t)run->plan.ring_bytes * run->plan.ranks;
    return result;
}

int nnc_run_open_records(struct nnc_run_state *run) {
    int result = 0;
    if (run->params->rundir != NULL) {
        result = nnc_rundir_record(run->params->rundir, run->params->config,
                                   run->params->model_path, &part_of(run, NNC_PHASE_TRAIN)->index);
    }
    result = result < 0 ? result : make_ledger(run);
    if (result < 0) {
        return result;
    }
    FILE *metrics = run->params->rundir == NULL ? NULL : run->params->rundir->metrics;
    nnc_report_init(&run->report, run->params->config, &run->plan.schedule, metrics);
    run->report.peak_flops = run->peak_flops;
    run->report.silent = run->params->mode == NNC_MODE_PREDICT || !nnc_run_leads(run);
    run->report.best_acc1 = run->has_model ? run->answer.best_acc1 : -1.0;
    return 0;
}

static void release_generation(struct nnc_run_state *run) {
    for (uint32_t rank = 0; rank < NNC_MAX_RANKS; rank++) {
        nnc_ring_destroy(run->ring[rank]);
        run->ring[rank] = NULL;
    }
    if (run->comm_fd >= 0) {
        close(run->comm_fd);
        run->comm_fd = -1;
    }
}

void nnc_run_choose_start(struct nnc_run_state *run) {
    if (run->saving.have_newest && run->group.generation > 1) {
        run->setup.start = NNC_START_SNAPSHOT;
        run->setup.start_epoch = run->saving.newest.epoch;
        run->setup.start_step = run->saving.newest.step;
        if (run->saving.newest_path[0] != '\0') { /* should no snapshot be whole */
            snprintf(run->setup.start_path, sizeof(run->setup.start_path), "%s",
                     run->saving.newest_path);
        }
        nnc_log(NNC_LOG_INFO,
                "the group goes on from its snapshot: epoch %" PRIu32 ", step %" PRIu64,
                run->setup.start_epoch + 1, run->setup.start_step);
    }
}

int nnc_run_prepare_generation(struct nnc_run_state *run) {
    release_generation(run);
    run->setup.generation = run->group.generation;
    bool rings = !nnc_mode_is_synthetic(run->params->mode);
    for (uint32_t rank = 0; rings && rank < run->plan.ranks; rank++) {
        int result = nnc_ring_create(&run->plan.geometry, run->setup.generation,
                                     run->setup.config.shm_dir, &run->ring[rank]);
        if (result < 0) {
            return result;
        }
    }
    if (run->plan.ranks > 1 && run->setup.comm_bytes != 0) {
        return nnc_memfd_create("comm", run->setup.comm_bytes, NNC_MEMFD_SHARED, NULL,
                                run->setup.config.shm_dir, &run->comm_fd);
    }
    return 0;
}

static void add_data(struct nnc_run_state *run, struct nnc_setup *setup, struct nnc_fd_list *fds) {
    for (int phase = 0; phase < 2; phase++) {
        const struct nnc_dataset_part *part = part_of(run, phase);
        setup->data[phase].index_fd = nnc_fd_list_add(fds, run->index_fd[phase]);
        setup->data[phase].raw_fd = part == NULL ? -1 : nnc_fd_list_add(fds, part->raw_fd);
    }
}

static void add_ring(struct nnc_run_state *run, uint32_t rank, struct nnc_setup *setup,
                     struct nnc_fd_list *fds) {
    if (run->ring[rank] != NULL) {
        setup->ring_ctl_fd[rank] = nnc_fd_list_add(fds, nnc_ring_ctl_fd(run->ring[rank]));
        setup->ring_data_fd[rank] = nnc_fd_list_add(fds, nnc_ring_data_fd(run->ring[rank]));
    }
}

void nnc_run_child_setup(struct nnc_run_state *run, const struct nnc_group_child *child,
                         struct nnc_setup *ret_setup, struct nnc_fd_list *ret_fds) {
    *ret_setup = run->setup;
    *ret_fds = (struct nnc_fd_list){.count = 0};
    ret_setup->role = child->role;
    ret_setup->number = child->number;
    ret_setup->incarnation = child->incarnation;
    if (child->role == NNC_ROLE_LOADER) {
        ret_setup->loaders = nnc_group_loaders(&run->group); /* shares claims with so many */
        add_data(run, ret_setup, ret_fds);
        ret_setup->quarantine_fd = nnc_fd_list_add(ret_fds, run->strikes.fd);
        for (uint32_t rank = 0; rank < run->plan.ranks; rank++) {
            add_ring(run, rank, ret_setup, ret_fds);
        }
        return;
    }
    uint32_t rank = child->number - run->plan.first_rank;
    ret_setup->device = run->plan.device[rank];
    add_ring(run, rank, ret_setup, ret_fds);
    ret_setup->comm_fd = nnc_fd_list_add(ret_fds, run->comm_fd);
    if (rank == 0 && run->far.nodes != NULL) {
        const struct nnc_nodes_link *links = nnc_nodes_links(run->far.nodes);
        for (int side = 0; side < 2; side++) {
            ret_setup->link_fd[side] = nnc_fd_list_add(ret_fds, links[side].fd);
            ret_setup->link_keys[side] = links[side].keys;
        }
    }
    ret_setup->snapshot_fd = nnc_fd_list_add(ret_fds, run->snapshot_fd);
}

void nnc_run_release(struct nnc_run_state *run) {
    release_generation(run);
    nnc_nvml_close(run->nvml);
    nnc_bad_close(&run->bad);
    nnc_strikes_close(&run->strikes);
    int *const all[] = {&run->index_fd[0], &run->index_fd[1], &run->snapshot_fd, &run->epoll_fd,
                        &run->signal_fd};
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        if (*all[i] >= 0) {
            close(*all[i]);
            *all[i] = -1;
        }
    }
}
