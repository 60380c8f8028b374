/* SPDX-License-Identifier: Apache-2.0 */
/* Two ranks, each a process with a GPU of its own: what they reduce, and how they part. */
#include "tests/gpu/cuda_case.h"

#include "base/clock.h"
#include "base/config.h"
#include "base/err.h"
#include "workers/choices.h"

#include <assert.h>
#include <criterion/criterion.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    RANKS = 2
};

/* What the processes of a test share. */
struct shared {
    uint8_t id[NNC_COMM_ID_BYTES];
    _Atomic int named;
    float gradients[RANKS][1 << 14];
    char choices[RANKS][1 << 16]; /* as text */
};

static struct shared *shared;
static uint32_t own_rank;
static uint64_t deadline_ns; /* of waits */

/* Criterion's assertions belong to its own process: one of a rank says in words what failed, and
 * ends. */
static void must(int rc, const char *what) {
    if (rc < 0) {
        fprintf(stderr, "rank %u: %s: %s\n", own_rank, what, nnc_error_text());
        _exit(1);
    }
}

/* Asks how far the device is in each wait, as a trainer does. */
static struct nnc_backend *watched;

static int before_deadline(void *context) {
    uint64_t ready, reduced;
    (void)context;
    if (watched) {
        nnc_backend_cuda.device->progress(watched, &ready, &reduced);
    }
    return nnc_clock_ns() < deadline_ns ? 0 : -NNC_E_STOPPED;
}

/* `open` of one rank among two. */
static int open_rank(const struct nnc_backend_params *params, struct nnc_backend **ret_backend) {
    struct nnc_backend_params own = *params;
    own.rank = own_rank;
    own.ranks = RANKS;
    own.alive = before_deadline;
    return nnc_backend_cuda.open(&own, ret_backend);
}

static void join(struct nnc_case_model *model) {
    const struct nnc_device_ops *device = model->ops->device;
    if (own_rank == 0) {
        must(device->comm_id(shared->id), "name of the communicator");
        shared->named = 1;
    }
    while (!shared->named) {
        must(before_deadline(NULL), "waiting for the communicator's name");
        nnc_clock_sleep_ns(100000);
    }
    must(device->comm_open(model->backend, shared->id), "communicator");
}

/* Wait for all ranks. One that a violation ended takes the others with it: they wait for it. */
static void wait_ranks(const pid_t child[RANKS], int ret_status[RANKS]) {
    for (uint32_t ended = 0; ended < RANKS; ended++) {
        int status = 0;
        pid_t pid = waitpid(-1, &status, 0);
        cr_assert_gt(pid, 0);
        for (uint32_t rank = 0; rank < RANKS; rank++) {
            if (child[rank] == pid) {
                ret_status[rank] = status;
            } else if (ended == 0 && WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT) {
                kill(child[rank], SIGKILL);
            }
        }
    }
}

/* Start `run` in a process for each rank; returns their statuses. */
static void run_ranks(int (*run)(void), int ret_status[RANKS]) {
    pid_t child[RANKS];
    shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    for (uint32_t rank = 0; rank < RANKS; rank++) {
        child[rank] = fork();
        if (child[rank] == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL); /* when Criterion ends the test */
            own_rank = rank;
            deadline_ns = nnc_clock_ns() + 15ull * 1000 * 1000 * 1000;
            _exit(run());
        }
    }
    wait_ranks(child, ret_status);
}

static const char usual[] = "devices=2,schedule=random,seed=4";
static bool records; /* steps, as --cuda-graphs does */

static void open_model(const struct nnc_backend_ops *ops, int32_t amp, const char *fake,
                       struct nnc_case_model *model) {
    cuda_case_configure(fake, amp);
    case_device.ordinal = own_rank;
    case_device.graphs = records;
    const struct nnc_case_params params = {.ops = ops, .device = case_device};
    must(nnc_case_open(&params, cuda_case_row("vgg in small"), model), "model");
}

static void make_step(struct nnc_case_model *model, uint64_t number) {
    struct nnc_metrics metrics;
    must(nnc_case_step(model, NNC_CASE_WHOLE, number, &metrics), "step");
}

/* Each rank's labels are its own. */
static void choose_labels(struct nnc_case_model *model, uint32_t rank) {
    for (uint32_t n = 0; n < model->row->batch; n++) {
        model->labels[n] = (int32_t)((n + 3 * rank) % model->graph->classes);
    }
}

/* All gradients, one after the other; returns how many. */
static size_t get_gradients(struct nnc_case_model *model, float *ret_values) {
    size_t count = 0;
    for (uint32_t number = 0; number < model->graph->param_count; number++) {
        must(model->ops->get(model->backend, NNC_STATE_GRADIENT, number, ret_values + count),
             "gradients");
        count += model->graph->params[number].count;
        assert(count <= sizeof(shared->gradients[0]) / sizeof(float));
    }
    return count;
}

/* The sum over the first ranks, each computed alone. */
static size_t expected_gradients(int32_t amp, uint32_t ranks, float *ret_sum) {
    static float part[1 << 14];
    size_t count = 0;
    for (uint32_t rank = 0; rank < ranks; rank++) {
        struct nnc_case_model model;
        open_model(&nnc_backend_cuda, amp, usual, &model);
        choose_labels(&model, rank);
        make_step(&model, 1);
        count = get_gradients(&model, part);
        for (size_t place = 0; place < count; place++) {
            ret_sum[place] += part[place];
        }
        nnc_case_close(&model);
    }
    return count;
}

/* Largest distance, relative to the largest value. */
static double distance(const float *left, const float *right, size_t count) {
    double largest = 0;
    double worst = 0;
    for (size_t place = 0; place < count; place++) {
        largest = fmax(largest, fabs((double)left[place]));
        worst = fmax(worst, fabs((double)left[place] - right[place]));
    }
    return worst / largest;
}

static int32_t amp_of_run;

static int sum_over_ranks(void) {
    static float expected[1 << 14];
    struct nnc_backend_ops ops = nnc_backend_cuda;
    struct nnc_case_model model;
    uint64_t ready = 0;
    uint64_t reduced = 0;
    ops.open = open_rank;
    size_t count = expected_gradients(amp_of_run, RANKS, expected);
    open_model(&ops, amp_of_run, usual, &model);
    join(&model);
    choose_labels(&model, own_rank);
    make_step(&model, 1);
    get_gradients(&model, shared->gradients[own_rank]);
    ops.device->progress(model.backend, &ready, &reduced);
    nnc_case_close(&model);
    double error = distance(expected, shared->gradients[own_rank], count);
    /* Each sum of two is rounded once, times 2 and halved again without error. */
    double roundoff = amp_of_run == NNC_AMP_OFF ? 0x1p-24 : 0x1p-8;
    bool good = error < 4 * roundoff && reduced >= 4 && ready == reduced;
    if (!good) {
        fprintf(stderr, "rank %u: error %g, %llu reductions\n", own_rank, error,
                (unsigned long long)reduced);
    }
    return good ? 0 : 1;
}

Test(cuda_comm, ranks_sum_their_gradients_and_get_equal_bytes, .timeout = 60) {
    static const int32_t amps[] = {NNC_AMP_OFF, NNC_AMP_BF16};
    for (size_t number = 0; number < sizeof(amps) / sizeof(amps[0]); number++) {
        int status[RANKS];
        amp_of_run = amps[number];
        run_ranks(sum_over_ranks, status);
        cr_expect_eq(status[0], 0);
        cr_expect_eq(status[1], 0);
        cr_expect_arr_eq(shared->gradients[0], shared->gradients[1], sizeof(shared->gradients[0]));
        cr_expect_neq(shared->gradients[0][0], 0);
    }
}

static int queue_alone(struct nnc_executable *exe, const struct nnc_step_params *params) {
    struct nnc_step_params own = *params;
    own.alone = true;
    return nnc_backend_cuda.step(exe, &own);
}

/* A step with the others before and behind it. */
static int step_alone(void) {
    static float expected[1 << 14];
    static float values[1 << 14];
    struct nnc_backend_ops ops = nnc_backend_cuda;
    struct nnc_case_model model;
    uint64_t ready[3], reduced[3];
    ops.open = open_rank;
    open_model(&nnc_backend_cuda, NNC_AMP_OFF, usual, &model);
    choose_labels(&model, own_rank);
    make_step(&model, 1);
    size_t count = get_gradients(&model, expected);
    nnc_case_close(&model);
    open_model(&ops, NNC_AMP_OFF, usual, &model);
    join(&model);
    choose_labels(&model, own_rank);
    for (int number = 0; number < 3; number++) {
        model.ops = &ops;
        ops.step = number == 1 ? queue_alone : nnc_backend_cuda.step;
        make_step(&model, 1);
        get_gradients(&model, number == 1 ? values : shared->gradients[own_rank]);
        ops.device->progress(model.backend, &ready[number], &reduced[number]);
    }
    nnc_case_close(&model);
    /* Ranks average, so a gradient alone is scaled by their number. */
    for (size_t place = 0; place < count; place++) {
        values[place] /= RANKS;
    }
    double error = distance(expected, values, count);
    bool good = error < 4 * 0x1p-24 && reduced[0] == reduced[1] && reduced[1] < reduced[2];
    if (!good) {
        fprintf(stderr, "rank %u: error %g, %llu %llu %llu reductions\n", own_rank, error,
                (unsigned long long)reduced[0], (unsigned long long)reduced[1],
                (unsigned long long)reduced[2]);
    }
    return good ? 0 : 1;
}

Test(cuda_comm, step_alone_sums_over_no_ranks_and_the_next_one_does_again, .timeout = 60) {
    int status[RANKS];
    run_ranks(step_alone, status);
    cr_expect_eq(status[0], 0);
    cr_expect_eq(status[1], 0);
    cr_expect_arr_eq(shared->gradients[0], shared->gradients[1], sizeof(shared->gradients[0]));
}

/* The second step has samples on rank 0 alone. */
static int add_nothing(void) {
    static float expected[1 << 14];
    struct nnc_backend_ops ops = nnc_backend_cuda;
    struct nnc_case_model model;
    ops.open = open_rank;
    size_t count = expected_gradients(NNC_AMP_OFF, 1, expected);
    open_model(&ops, NNC_AMP_OFF, usual, &model);
    join(&model);
    choose_labels(&model, own_rank);
    make_step(&model, 1);
    if (own_rank == 0) {
        make_step(&model, 1);
    } else if (ops.zero_gradients(model.backend) < 0) {
        return 1;
    }
    get_gradients(&model, shared->gradients[own_rank]);
    nnc_case_close(&model);
    double error = distance(expected, shared->gradients[own_rank], count);
    if (error >= 4 * 0x1p-24) {
        fprintf(stderr, "rank %u: error %g\n", own_rank, error);
        return 1;
    }
    return 0;
}

Test(cuda_comm, a_rank_without_samples_adds_nothing, .timeout = 60) {
    int status[RANKS];
    run_ranks(add_nothing, status);
    cr_expect_eq(status[0], 0);
    cr_expect_eq(status[1], 0);
}

/* Steps and updates, nothing of which is waited for. */
static int queue_all(void) {
    const struct nnc_sgd sgd = {.lr = 0.01f, .momentum = 0.9f};
    const struct nnc_step_params params = {.global_count = 4};
    struct nnc_backend_ops ops = nnc_backend_cuda;
    struct nnc_case_model model;
    ops.open = open_rank;
    open_model(&ops, NNC_AMP_BF16, usual, &model);
    const struct nnc_feed feed = {model.images, model.sample_stride, model.labels};
    join(&model);
    choose_labels(&model, own_rank);
    int rc = 0;
    for (int step = 0; rc == 0 && step < 4; step++) {
        rc = ops.feed(model.executable[NNC_CASE_WHOLE], &feed);
        rc = rc < 0 ? rc : ops.step(model.executable[NNC_CASE_WHOLE], &params);
        rc = rc < 0 ? rc : ops.update(model.backend, &sgd);
    }
    rc = rc < 0 ? rc : ops.device->finish(model.backend);
    get_gradients(&model, shared->gradients[own_rank]);
    nnc_case_close(&model);
    return rc < 0 ? 1 : 0;
}

Test(cuda_comm, updates_are_queued_behind_the_reductions, .timeout = 60) {
    int status[RANKS];
    run_ranks(queue_all, status);
    cr_expect_eq(status[0], 0);
    cr_expect_eq(status[1], 0);
    cr_expect_arr_eq(shared->gradients[0], shared->gradients[1], sizeof(shared->gradients[0]));
    cr_expect_neq(shared->gradients[0][0], 0);
}

static int only_rank_0_has_samples(void) {
    const struct nnc_sgd sgd = {.lr = 0.01f, .momentum = 0.9f};
    struct nnc_backend_ops ops = nnc_backend_cuda;
    struct nnc_case_model model;
    int rc = 0;
    ops.open = open_rank;
    open_model(&ops, NNC_AMP_BF16, usual, &model);
    join(&model);
    for (uint64_t step = 0; rc == 0 && step < 5; step++) {
        if (own_rank == 0 || step % 2 == 0) {
            make_step(&model, step);
        } else {
            rc = ops.zero_gradients(model.backend);
        }
        rc = rc < 0 ? rc : ops.update(model.backend, &sgd);
    }
    get_gradients(&model, shared->gradients[own_rank]);
    nnc_case_close(&model);
    return rc < 0 ? 1 : 0;
}

Test(cuda_comm, a_rank_without_samples_takes_part, .timeout = 60) {
    int status[RANKS];
    run_ranks(only_rank_0_has_samples, status);
    cr_expect_eq(status[0], 0);
    cr_expect_eq(status[1], 0);
    cr_expect_arr_eq(shared->gradients[0], shared->gradients[1], sizeof(shared->gradients[0]));
    cr_expect_neq(shared->gradients[0][0], 0);
}

/* What the network says of a peer while its gradients are awaited. */
static int hear_of_a_failure(void) {
    const struct nnc_step_params params = {.global_count = 4};
    struct nnc_backend_ops ops = nnc_backend_cuda;
    struct nnc_case_model model;
    ops.open = open_rank;
    open_model(&ops, NNC_AMP_OFF, "devices=2,schedule=lazy,faults=ncclAllReduce:3:remote", &model);
    const struct nnc_feed feed = {model.images, model.sample_stride, model.labels};
    join(&model);
    deadline_ns = nnc_clock_ns() + 20ull * 1000 * 1000 * 1000;
    int rc = ops.feed(model.executable[NNC_CASE_WHOLE], &feed);
    if (rc == 0) {
        rc = ops.step(model.executable[NNC_CASE_WHOLE], &params);
    }
    if (rc == 0) {
        rc = ops.device->finish(model.backend);
    }
    bool told = strstr(nnc_error_text(), "the way to it failed: NCCL says") != NULL;
    ops.device->comm_abort(model.backend);
    nnc_case_close(&model);
    if (rc != -NNC_E_COMM || !told) {
        fprintf(stderr, "%d: %s\n", rc, nnc_error_text());
        return 1;
    }
    return 0;
}

Test(cuda_comm, a_failure_of_a_peer_is_told_in_words, .timeout = 60) {
    int status[RANKS];
    run_ranks(hear_of_a_failure, status);
    cr_expect_eq(status[0], 0);
    cr_expect_eq(status[1], 0);
}

/* Rank 1 dies between two steps; rank 0 hears of it from `alive`, as from a coordinator. */
static int survive(void) {
    const struct nnc_step_params params = {.global_count = 4};
    struct nnc_backend_ops ops = nnc_backend_cuda;
    struct nnc_case_model model;
    ops.open = open_rank;
    open_model(&ops, NNC_AMP_OFF, usual, &model);
    const struct nnc_feed feed = {model.images, model.sample_stride, model.labels};
    join(&model);
    make_step(&model, 1);
    if (own_rank == 1) {
        raise(SIGKILL);
    }
    deadline_ns = nnc_clock_ns() + 300 * 1000 * 1000;
    int rc = ops.feed(model.executable[NNC_CASE_WHOLE], &feed);
    if (rc == 0) {
        rc = ops.step(model.executable[NNC_CASE_WHOLE], &params);
    }
    if (rc == 0) {
        rc = ops.device->finish(model.backend);
    }
    ops.device->comm_abort(model.backend);
    nnc_case_close(&model);
    if (rc != -NNC_E_STOPPED && rc != -NNC_E_COMM) {
        fprintf(stderr, "%d: %s\n", rc, nnc_error_text());
        return 1;
    }
    return 0;
}

Test(cuda_comm, a_dead_peer_ends_the_wait_not_the_process, .timeout = 60) {
    int status[RANKS];
    run_ranks(survive, status);
    cr_expect_eq(status[0], 0);
    cr_expect(WIFSIGNALED(status[1]) && WTERMSIG(status[1]) == SIGKILL);
}

/* ---- recorded steps ---- */

/* Samples of a rank in a step. Rank 0 always has a whole batch and cannot tell from it that rank 1
 * has one sample less in step 4 and none in step 6. */
static uint32_t samples_in(const struct nnc_case_model *model, int step, uint32_t rank) {
    uint32_t batch = model->row->batch;
    return rank == 0 || (step != 4 && step != 6) ? batch : step == 4 ? batch - 1 : 0;
}

/* Queue one step of this rank, without its update. */
static int queue_step(struct nnc_case_model *model, int step) {
    const struct nnc_feed feed = {model->images, model->sample_stride, model->labels};
    uint32_t own = samples_in(model, step, own_rank);
    struct nnc_executable *exe =
        model->executable[own == model->row->batch ? NNC_CASE_WHOLE : NNC_CASE_SMALL];
    const struct nnc_step_params params = {.step = (uint64_t)step,
                                           .first = own_rank * model->row->batch,
                                           .global_count = samples_in(model, step, 0) +
                                                           samples_in(model, step, 1)};
    if (own == 0) {
        return model->ops->zero_gradients(model->backend);
    }
    int rc = model->ops->feed(exe, &feed);
    return rc < 0 ? rc : model->ops->step(exe, &params);
}

/* Steps and updates, nothing of which is waited for. */
static int queue_steps(struct nnc_case_model *model, int from, int to) {
    const struct nnc_sgd sgd = {.lr = 0.01f, .momentum = 0.9f};
    int rc = 0;
    for (int step = from; rc == 0 && step < to; step++) {
        rc = queue_step(model, step);
        rc = rc < 0 ? rc : model->ops->update(model->backend, &sgd);
    }
    return rc;
}

/* All values, one after the other, and the loss scale behind them. */
static void get_values(struct nnc_case_model *model, float *ret_values) {
    struct nnc_loss_scale scale;
    size_t count = 0;
    for (uint32_t number = 0; number < model->graph->param_count; number++) {
        must(model->ops->get(model->backend, NNC_STATE_VALUE, number, ret_values + count),
             "values");
        count += model->graph->params[number].count;
        assert(count < sizeof(shared->gradients[0]) / sizeof(float));
    }
    must(model->ops->device->get_scale(model->backend, &scale), "loss scale");
    ret_values[count] = scale.scale;
    if (scale.scale >= 0x1p24f) {
        fprintf(stderr, "rank %u: the loss scale is still %g\n", own_rank, (double)scale.scale);
        _exit(1);
    }
}

static const char *fake_of_run;

/* A loss scale that is too large at first: steps are skipped on all ranks. */
static int train_recorded(void) {
    const struct nnc_loss_scale scale = {.scale = 0x1p24f};
    struct nnc_backend_ops ops = nnc_backend_cuda;
    struct nnc_case_model model;
    uint64_t ready = 0;
    uint64_t reduced = 0;
    ops.open = open_rank;
    open_model(&ops, amp_of_run, fake_of_run, &model);
    choose_labels(&model, own_rank);
    /* What is recorded alone is not what is launched together. */
    must(queue_step(&model, 0), "step alone");
    must(queue_step(&model, 1), "step alone");
    must(ops.device->finish(model.backend), "end of the steps alone");
    join(&model);
    watched = model.backend;
    must(ops.device->set_scale(model.backend, &scale), "loss scale");
    must(queue_steps(&model, 0, 10), "steps");
    must(ops.device->finish(model.backend), "end of the steps");
    get_values(&model, shared->gradients[own_rank]);
    ops.device->progress(model.backend, &ready, &reduced);
    bool recorded = model.executable[NNC_CASE_WHOLE]->graph != NULL &&
                    model.executable[NNC_CASE_SMALL]->graph == NULL;
    watched = NULL;
    nnc_case_close(&model);
    if (recorded != records || ready != reduced || reduced == 0 || reduced % 10 != 0) {
        fprintf(stderr, "rank %u: recorded: %d; %llu and %llu reductions of 10 steps\n", own_rank,
                recorded, (unsigned long long)ready, (unsigned long long)reduced);
        return 1;
    }
    return 0;
}

static void expect_the_bits_of_queued_steps(int32_t amp) {
    static const char *const fakes[] = {"devices=2,schedule=eager", "devices=2,schedule=lazy",
                                        "devices=2,schedule=random,seed=7",
                                        "devices=2,schedule=random,seed=8"};
    static float queued[1 << 14];
    amp_of_run = amp;
    for (int number = -1; number < 4; number++) {
        int status[RANKS];
        records = number >= 0;
        fake_of_run = fakes[number < 0 ? 0 : number];
        run_ranks(train_recorded, status);
        cr_assert_eq(status[0], 0, "%s", fake_of_run);
        cr_assert_eq(status[1], 0, "%s", fake_of_run);
        if (!records) {
            memcpy(queued, shared->gradients[0], sizeof(queued));
        }
        for (uint32_t rank = 0; rank < RANKS; rank++) {
            cr_expect_arr_eq(shared->gradients[rank], queued, sizeof(queued), "rank %u, %s", rank,
                             fake_of_run);
        }
    }
    cr_expect_neq(queued[0], 0);
}

Test(cuda_comm, recorded_steps_of_ranks_give_the_bits_of_queued_ones, .timeout = 120) {
    expect_the_bits_of_queued_steps(NNC_AMP_BF16);
}

Test(cuda_comm, recorded_steps_of_ranks_skip_as_queued_ones_do, .timeout = 120) {
    expect_the_bits_of_queued_steps(NNC_AMP_FP16);
}

/* The number of reductions when all that was queued is over. */
static uint64_t reductions_so_far(struct nnc_case_model *model) {
    uint64_t ready = 0;
    uint64_t reduced = 0;
    must(model->ops->device->finish(model->backend), "end of the steps");
    model->ops->device->progress(model->backend, &ready, &reduced);
    return reduced;
}

/* Three steps together are queued, recorded and launched; one alone leaves the graph as it is. */
static int step_alone_beside_a_graph(void) {
    struct nnc_backend_ops ops = nnc_backend_cuda;
    struct nnc_case_model model;
    uint64_t reduced[3];
    ops.open = open_rank;
    open_model(&ops, NNC_AMP_OFF, usual, &model);
    model.ops = &ops;
    join(&model);
    choose_labels(&model, own_rank);
    for (int step = 0; step < 3; step++) {
        must(queue_step(&model, step), "step");
    }
    reduced[0] = reductions_so_far(&model);
    ops.step = queue_alone;
    must(queue_step(&model, 3), "step alone");
    reduced[1] = reductions_so_far(&model);
    ops.step = nnc_backend_cuda.step;
    must(queue_step(&model, 4), "step");
    reduced[2] = reductions_so_far(&model);
    bool recorded = model.executable[NNC_CASE_WHOLE]->graph != NULL;
    nnc_case_close(&model);
    if (!recorded || reduced[1] != reduced[0] || reduced[2] * 3 != reduced[0] * 4) {
        fprintf(stderr, "rank %u: recorded: %d; %llu %llu %llu reductions\n", own_rank, recorded,
                (unsigned long long)reduced[0], (unsigned long long)reduced[1],
                (unsigned long long)reduced[2]);
        return 1;
    }
    return 0;
}

Test(cuda_comm, step_alone_is_queued_where_those_together_are_launched, .timeout = 60) {
    int status[RANKS];
    records = true;
    run_ranks(step_alone_beside_a_graph, status);
    cr_expect_eq(status[0], 0);
    cr_expect_eq(status[1], 0);
}

/* Rank 1 dies at its second launch; rank 0 waits inside a graph, and gets out of it. */
static int survive_in_a_graph(void) {
    struct nnc_backend_ops ops = nnc_backend_cuda;
    struct nnc_case_model model;
    ops.open = open_rank;
    open_model(&ops, NNC_AMP_OFF, "devices=2,faults=cudaGraphLaunch:2:kill@1", &model);
    join(&model);
    must(queue_steps(&model, 0, 2), "steps");
    must(ops.device->finish(model.backend), "end of the steps");
    deadline_ns = nnc_clock_ns() + 300 * 1000 * 1000;
    int rc = queue_steps(&model, 2, 3);
    rc = rc < 0 ? rc : ops.device->finish(model.backend);
    bool recorded = model.executable[NNC_CASE_WHOLE]->graph != NULL;
    ops.device->comm_abort(model.backend);
    nnc_case_close(&model);
    if (rc != -NNC_E_STOPPED || !recorded) {
        fprintf(stderr, "%d: %s\n", rc, nnc_error_text());
        return 1;
    }
    return 0;
}

Test(cuda_comm, a_dead_peer_ends_the_wait_for_a_graph_not_the_process, .timeout = 60) {
    int status[RANKS];
    records = true;
    run_ranks(survive_in_a_graph, status);
    cr_expect_eq(status[0], 0);
    cr_expect(WIFSIGNALED(status[1]) && WTERMSIG(status[1]) == SIGKILL);
}

/* The other ranks would not know of it. */
static int record_again(void) {
    struct nnc_backend_ops ops = nnc_backend_cuda;
    struct nnc_case_model model;
    struct nnc_program *program = NULL;
    struct nnc_executable *larger = NULL;
    ops.open = open_rank;
    open_model(&ops, NNC_AMP_OFF, usual, &model);
    join(&model);
    must(queue_steps(&model, 0, 2), "steps");
    const struct nnc_program_params params = {model.graph, 8 * model.row->batch, false, 0};
    must(nnc_program_create(&params, &program), "larger program");
    must(ops.compile(model.backend, program, &larger), "larger program");
    int rc = queue_steps(&model, 2, 3);
    bool told = strstr(nnc_error_text(), "--cuda-graphs") != NULL;
    ops.release(larger);
    ops.device->comm_abort(model.backend);
    nnc_case_close(&model);
    nnc_program_destroy(program);
    if (rc != -NNC_E_COMM || !told) {
        fprintf(stderr, "%d: %s\n", rc, nnc_error_text());
        return 1;
    }
    return 0;
}

Test(cuda_comm, ranks_refuse_to_record_a_second_time, .timeout = 60) {
    int status[RANKS];
    records = true;
    run_ranks(record_again, status);
    cr_expect_eq(status[0], 0);
    cr_expect_eq(status[1], 0);
}

/* ---- what rank 0 chose ---- */

/* How the ranks' devices differ. */
struct difference {
    const char *fake[RANKS];
    uint32_t autotune;
    bool shares, same_choices;
};
static const struct difference *difference;
static void *comm_memory;

/* Rank 0's choices to rank 1; the communicator is all they have in common. */
static void share(struct nnc_backend *backend) {
    struct nnc_comm *comm = NULL;
    const struct nnc_comm_params params = {
        .rank = own_rank, .ranks = RANKS, .fd = -1, .memory = comm_memory, .deadline_ms = 15000};
    if (difference->shares) {
        must(nnc_comm_create(&params, &comm), "communicator");
        must(nnc_choices_share(nnc_backend_cuda.device, backend, comm), "choices");
        nnc_comm_destroy(comm);
    }
}

static int open_and_hear(const struct nnc_backend_params *params,
                         struct nnc_backend **ret_backend) {
    int rc = nnc_backend_cuda.open(params, ret_backend);
    if (rc == 0 && own_rank != 0) {
        share(*ret_backend);
    }
    return rc;
}

/* Open the same model, keep what was chosen for it and what it computes. */
static int choose(void) {
    struct nnc_backend_ops ops = nnc_backend_cuda;
    struct nnc_case_model model;
    char *choices = NULL;
    size_t bytes = 0;
    ops.open = open_and_hear;
    cuda_case_configure(difference->fake[own_rank], NNC_AMP_OFF);
    case_device.ordinal = own_rank;
    case_device.autotune = difference->autotune;
    const struct nnc_case_params params = {.ops = &ops, .device = case_device};
    must(nnc_case_open(&params, cuda_case_row("vgg in small"), &model), "model");
    if (own_rank == 0) {
        share(model.backend);
    }
    make_step(&model, 1);
    get_gradients(&model, shared->gradients[own_rank]);
    must(ops.device->get_choices(model.backend, &choices, &bytes), "choices");
    assert(bytes < sizeof(shared->choices[0]));
    memcpy(shared->choices[own_rank], choices, bytes);
    free(choices);
    nnc_case_close(&model);
    return 0;
}

#define T4 "devices=2,device_json=" NNC_TEST_SOURCE_DIR "/tests/devices/t4.json"

/* Without a choice by time, the first engine that runs is taken: 3, and 4 where that fails. */
static const struct difference differences[] = {
    {{"devices=2", "devices=2"}, 0, false, true},
    {{"devices=2,faults=engine 3:0:fail", "devices=2"}, 0, false, false},
    {{"devices=2,faults=engine 3:0:fail", "devices=2"}, 0, true, true},
    {{"devices=2,faults=engine 3:0:slow=5", "devices=2,faults=engine 4:0:slow=5"}, 2, true, true},
    {{"devices=2,faults=engine 4:0:slow=5", "devices=2,faults=engine 3:0:slow=5"}, 2, true, true},
    {{"devices=2,faults=engine 3:0:fail", T4}, 0, true, false},
};

Test(cuda_comm, ranks_run_what_rank_0_chose_where_their_gpus_are_of_one_kind, .timeout = 120) {
    size_t bytes = nnc_comm_shm_bytes(RANKS);
    for (size_t row = 0; row < sizeof(differences) / sizeof(differences[0]); row++) {
        int status[RANKS];
        difference = &differences[row];
        comm_memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        run_ranks(choose, status);
        cr_assert_eq(status[0], 0, "row %zu", row);
        cr_assert_eq(status[1], 0, "row %zu", row);
        bool same_choices = strcmp(shared->choices[0], shared->choices[1]) == 0;
        bool same_bits =
            memcmp(shared->gradients[0], shared->gradients[1], sizeof(shared->gradients[0])) == 0;
        cr_expect_eq(same_choices, difference->same_choices, "row %zu: %s%s", row,
                     shared->choices[0], shared->choices[1]);
        cr_expect_eq(same_bits, difference->same_choices, "row %zu", row);
        cr_expect_gt(shared->choices[0][0], 0, "row %zu", row);
        munmap(comm_memory, bytes);
    }
}
