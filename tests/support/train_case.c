/* SPDX-License-Identifier: Apache-2.0 */
/* Threads in the places of processes; see train_case.h. */
#include "tests/support/train_case.h"

#include "base/err.h"
#include "base/rng.h"
#include "ipc/memfd.h"
#include "ipc/ring.h"
#include "workers/plan.h"

#include <assert.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static void must(int code, const char *what) {
    if (code < 0) {
        fprintf(stderr, "%s: %s\n", what, nnc_error_text());
        abort();
    }
}

void train_case_init(struct train_case *ret_case, const char *model) {
    *ret_case = (struct train_case){.loaders = 1,
                                    .audit_fd = -1,
                                    .bad_sample = UINT64_MAX,
                                    .odd_label_sample = UINT64_MAX,
                                    .vfs = nnc_vfs_real()};
    strcpy(ret_case->model_path, "/tmp/nncoord-test-XXXXXX");
    int fd = mkstemp(ret_case->model_path);
    assert(fd >= 0);
    ssize_t put = write(fd, model, strlen(model));
    assert(put == (ssize_t)strlen(model));
    close(fd);
    struct nnc_setup *setup = &ret_case->setup;
    nnc_config_defaults(&setup->config);
    struct nnc_config *config = &setup->config;
    config->backend = NNC_BACKEND_REFERENCE;
    config->train_crop_size = config->val_crop_size = 8;
    config->epochs = 2;
    config->seed = 42;
    config->lr = 0.05;
    config->momentum = 0.9;
    config->batch_size = 16;
    config->save_every = 1;
    config->lr_scheduler = NNC_LR_COSINE;
    setup->ranks = setup->local_ranks = 1;
    setup->classes = 4;
    setup->threads = 1;
    setup->generation = 1;
    setup->comm_fd = setup->device = -1;
    setup->snapshot_fd = 0; /* there is one; the memory is handed over directly */
    setup->geometry =
        (struct nnc_ring_geometry){.slots = 3, .height = 8, .width = 8, .channels = 1};
    setup->schedule =
        (struct nnc_schedule){.train_samples = 96, .val_samples = 40, .eval_every = 1};
    strcpy(setup->model_path, ret_case->model_path);
}

void train_case_finish(struct train_case *train) {
    unlink(train->model_path);
    if (train->snapshot != NULL) {
        munmap(train->snapshot, train->setup.snapshot_bytes);
    }
    free(train->weights);
}

/* ---- loaders ---- */

struct loader {
    pthread_t thread;
    const struct train_case *train;
    struct nnc_ring *ring;
    uint32_t rank;
};

/* Class patterns with noise. */
static void make_sample(const struct train_case *train, const struct nnc_batch_place *place,
                        uint32_t index, uint8_t *pixels, struct nnc_sample_result *ret_result) {
    const struct nnc_config *config = &train->setup.config;
    uint64_t k = place->first + index;
    uint64_t sample = k;
    if (place->phase == NNC_PHASE_TRAIN) {
        struct nnc_permutation order =
            nnc_permutation_make(config->seed, place->epoch, train->setup.schedule.train_samples);
        sample = nnc_permutation_at(&order, k);
    }
    uint32_t crop =
        place->phase == NNC_PHASE_TRAIN ? config->train_crop_size : config->val_crop_size;
    uint32_t label = (uint32_t)(sample % train->setup.classes);
    struct nnc_rng rng = nnc_rng_make(1, NNC_RNG_SYNTHETIC, (uint32_t)place->phase, sample);
    for (uint32_t i = 0; i < crop * crop; i++) {
        pixels[i] = (uint8_t)(nnc_rng_below(&rng, 128) + (i % train->setup.classes == label) * 100);
    }
    *ret_result = (struct nnc_sample_result){
        .status = NNC_SAMPLE_OK, .label = (int32_t)label, .sample = (uint32_t)sample};
    if (sample == train->bad_sample) {
        ret_result->status = NNC_SAMPLE_BAD;
        ret_result->label = -1;
    }
    if (sample == train->odd_label_sample) {
        ret_result->label = (int32_t)train->setup.classes;
    }
}

static void *loader_main(void *context) {
    struct loader *loader = context;
    int got;
    do {
        uint32_t generation = nnc_ring_work_generation(loader->ring);
        struct nnc_claim claim;
        got = nnc_ring_claim(loader->ring, &claim);
        if (got == 0) {
            nnc_ring_wait_work(loader->ring, generation);
        } else if (got == 1) {
            struct nnc_batch_place place;
            struct nnc_sample_result result;
            int code = nnc_schedule_locate(&loader->train->setup.schedule, loader->rank, claim.seq,
                                           &place);
            assert(code == 0);
            make_sample(loader->train, &place, claim.index,
                        nnc_ring_claim_pixels(loader->ring, &claim), &result);
            nnc_ring_publish(loader->ring, &claim, &result);
        }
    } while (got >= 0);
    return NULL;
}

/* ---- link ---- */

struct rank {
    pthread_t thread;
    struct train_case *train;
    struct train_case_log *log;
    uint32_t number;
    struct nnc_setup setup;
    struct nnc_ring *owner; /* as the coordinator holds it */
    int comm_fd;
    uint64_t polls;
    struct loader loader[4];
};

static void link_beat(void *context, enum nnc_activity activity) {
    (void)context, (void)activity;
}

static void link_set(void *context, enum nnc_counter counter, uint64_t value) {
    (void)context, (void)counter, (void)value;
}

static void link_progress(void *context, uint32_t phase, double loss_sum, double lr) {
    (void)context, (void)phase, (void)loss_sum, (void)lr;
}

static int link_poll(void *context) {
    struct rank *rank = context;
    rank->polls++;
    if (rank->number != 0) {
        return 0; /* the ranks must agree though only one was asked */
    }
    if (rank->polls == rank->train->stop_at) {
        return NNC_MSG_STOP;
    }
    return rank->polls == rank->train->snap_at ? NNC_MSG_SNAP : 0;
}

static void log_logits(struct train_case_log *log, const void *body, const void *tail) {
    struct nnc_msg_logits message;
    memcpy(&message, body, sizeof(message));
    if (message.first == 0 && log->logit_count < TRAIN_CASE_LOGITS) {
        log->logits[log->logit_count] = message;
        if (message.count > 0) {
            memcpy(&log->first_logit[log->logit_count], tail, sizeof(float));
        }
        log->logit_count++;
    }
}

static int link_send(void *context, enum nnc_message_type type, const void *body, size_t bytes,
                     const void *tail, size_t tail_bytes) {
    struct train_case_log *log = ((struct rank *)context)->log;
    (void)tail_bytes;
    switch (type) {
    case NNC_MSG_EVAL:
        assert(bytes == sizeof(log->evals[0]) && log->eval_count < TRAIN_CASE_EVALS);
        memcpy(&log->evals[log->eval_count++], body, bytes);
        break;
    case NNC_MSG_SNAPSHOT:
        memcpy(&log->newest, body, bytes);
        log->snapshots++;
        log->durable += log->newest.durable;
        break;
    case NNC_MSG_LOGITS:
        log_logits(log, body, tail);
        break;
    case NNC_MSG_MEASURE:
        log->measures++;
        break;
    case NNC_MSG_DONE:
        memcpy(&log->done, body, bytes);
        log->done_count++;
        break;
    default:
        assert(!"no such message from a trainer");
    }
    return 0;
}

static const struct nnc_link_ops test_link = {
    .beat = link_beat,
    .set = link_set,
    .progress = link_progress,
    .poll = link_poll,
    .send = link_send,
};

/* ---- ranks ---- */

static bool has_model(const struct nnc_setup *setup) {
    return setup->mode != NNC_MODE_BENCH_INPUT && setup->mode != NNC_MODE_CHECK;
}

static int run_trainer(struct rank *rank, struct nnc_trainer_params *params) {
    struct nnc_snapshot snapshot;
    struct nnc_trainer *trainer = NULL;
    const struct nnc_engine_params engine = {.setup = &rank->setup};
    int code = has_model(&rank->setup) ? nnc_engine_create(&engine, &params->engine) : 0;
    if (code == 0 && rank->number == 0 && rank->train->snapshot != NULL) {
        code = nnc_snapshot_attach(nnc_engine_model(params->engine), rank->train->snapshot,
                                   rank->setup.snapshot_bytes, &snapshot);
        params->snapshot = &snapshot;
    }
    code = code < 0 ? code : nnc_trainer_create(params, &trainer);
    code = code < 0 ? code : nnc_trainer_load(trainer);
    code = code < 0 ? code : nnc_trainer_run(trainer);
    if (code == 0 && rank->number == 0 && params->engine != NULL) {
        rank->train->floats = nnc_engine_floats(params->engine);
        rank->train->weights = realloc(rank->train->weights, rank->train->floats * sizeof(float));
        code = nnc_engine_get(params->engine, rank->train->weights);
    }
    nnc_trainer_destroy(trainer);
    nnc_engine_destroy(params->engine);
    return code;
}

static void *rank_main(void *context) {
    struct rank *rank = context;
    struct nnc_trainer_params params = {.setup = &rank->setup,
                                        .link = {&test_link, rank},
                                        .audit_fd = rank->train->audit_fd,
                                        .vfs = rank->train->vfs};
    const struct nnc_comm_params comm = {.rank = rank->number,
                                         .ranks = rank->setup.ranks,
                                         .fd = rank->comm_fd,
                                         .deadline_ms = 60000};
    must(nnc_comm_create(&comm, &params.comm), "comm");
    if (rank->owner != NULL) {
        must(nnc_ring_attach(&rank->setup.geometry, NNC_RING_TRAINER, nnc_ring_ctl_fd(rank->owner),
                             nnc_ring_data_fd(rank->owner), 1, 0, &params.ring),
             "attach");
    }
    rank->log->code = run_trainer(rank, &params);
    snprintf(rank->log->text, sizeof(rank->log->text), "%s", nnc_error_text());
    if (rank->log->code < 0) {
        nnc_comm_stop(params.comm);
    }
    nnc_ring_destroy(params.ring);
    nnc_comm_destroy(params.comm);
    return NULL;
}

static void start_loaders(struct rank *rank) {
    for (uint32_t number = 0; rank->owner != NULL && number < rank->train->loaders; number++) {
        struct loader *loader = &rank->loader[number];
        *loader = (struct loader){.train = rank->train, .rank = rank->number};
        must(nnc_ring_attach(&rank->setup.geometry, NNC_RING_LOADER, nnc_ring_ctl_fd(rank->owner),
                             nnc_ring_data_fd(rank->owner), 1, number + 1, &loader->ring),
             "attach loader");
        pthread_create(&loader->thread, NULL, loader_main, loader);
    }
}

static void stop_loaders(struct rank *rank) {
    for (uint32_t number = 0; rank->owner != NULL && number < rank->train->loaders; number++) {
        pthread_join(rank->loader[number].thread, NULL);
        nnc_ring_destroy(rank->loader[number].ring);
    }
}

/* What the coordinator's plan does. */
static void plan(struct train_case *train) {
    struct nnc_setup *setup = &train->setup;
    struct nnc_schedule *schedule = &setup->schedule;
    schedule->ranks = setup->ranks;
    schedule->batch = setup->config.batch_size;
    bool endless = setup->mode == NNC_MODE_BENCH_INPUT && setup->config.cache == NNC_CACHE_WARM;
    schedule->epochs = endless ? 1000 : setup->mode == NNC_MODE_TRAIN ? setup->config.epochs : 1;
    schedule->drop_last = setup->config.drop_last;
    setup->geometry.batch = schedule->batch;
    must(nnc_schedule_check(schedule), "schedule");
    if (train->snapshot == NULL && setup->mode == NNC_MODE_TRAIN) {
        struct nnc_plan_answer answer;
        char *warning;
        nnc_plan_answer_setup(train->vfs, setup, &answer, &warning);
        must(answer.status, "plan");
        free(warning);
        setup->snapshot_bytes = answer.snapshot_bytes;
        train->snapshot = mmap(NULL, setup->snapshot_bytes, PROT_READ | PROT_WRITE,
                               MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        assert(train->snapshot != MAP_FAILED);
    }
}

void train_case_run(struct train_case *train) {
    struct rank ranks[TRAIN_CASE_RANKS] = {0};
    int comm_fd = -1;
    plan(train);
    uint32_t count = train->setup.ranks;
    memset(train->log, 0, sizeof(train->log));
    if (count > 1) {
        must(nnc_memfd_create("comm", nnc_comm_shm_bytes(count), NNC_MEMFD_SHARED, NULL, NULL,
                              &comm_fd),
             "comm memory");
    }
    for (uint32_t number = 0; number < count; number++) {
        struct rank *rank = &ranks[number];
        *rank = (struct rank){
            .train = train, .log = &train->log[number], .number = number, .comm_fd = comm_fd};
        rank->setup = train->setup;
        rank->setup.number = number;
        if (train->setup.mode != NNC_MODE_BENCH_TRAIN) {
            must(nnc_ring_create(&train->setup.geometry, 1, NULL, &rank->owner), "ring");
        }
        start_loaders(rank);
        pthread_create(&rank->thread, NULL, rank_main, rank);
    }
    for (uint32_t number = 0; number < count; number++) {
        pthread_join(ranks[number].thread, NULL);
        if (ranks[number].owner != NULL) {
            nnc_ring_stop(ranks[number].owner);
        }
        stop_loaders(&ranks[number]);
        nnc_ring_destroy(ranks[number].owner);
    }
    if (comm_fd >= 0) {
        close(comm_fd);
    }
}

void train_case_resume(struct train_case *train) {
    train->setup.start = NNC_START_SNAPSHOT;
    train->setup.start_epoch = train->log[0].newest.epoch;
    train->setup.start_step = train->log[0].newest.step;
    train_case_run(train);
}
