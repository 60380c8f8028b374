/* SPDX-License-Identifier: Apache-2.0 */
/* The stand-in of NCCL, with processes as ranks. */
#include "tests/gpu/fakecuda/numbers.h"
#include "tests/gpu/fakecuda/testing.h"

#include <criterion/criterion.h>
#include <nccl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
    RANKS = 3,
    COUNT = 5000, /* more than the stand-in reduces at a time, and not a multiple */
};

/* What a child found, as its exit status. */
enum outcome {
    FINE,
    WRONG_VALUE,
    CALL_FAILED,
    ASYNC_ERROR,
    STUCK,
    RACE,
};

struct rank {
    ncclUniqueId id;
    int rank;
    const char *settings;
    ncclComm_t comm;
    cudaStream_t stream;
    cudaEvent_t event;
    float *values;
};

static void nap(void) {
    nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
}

static enum outcome settle(struct rank *rank) {
    ncclResult_t state = ncclInProgress;
    while (state == ncclInProgress) {
        if (ncclCommGetAsyncError(rank->comm, &state) != ncclSuccess) {
            return CALL_FAILED;
        }
        nap();
    }
    return state == ncclSuccess ? FINE : ASYNC_ERROR;
}

/* Poll the event for at most so many ms, and the communicator with it. */
static enum outcome poll_event(struct rank *rank, int ms) {
    for (int i = 0; i < ms * 10; i++) {
        ncclResult_t state = ncclSuccess;
        if (cudaEventQuery(rank->event) == cudaSuccess) {
            return FINE;
        }
        ncclCommGetAsyncError(rank->comm, &state);
        if (state != ncclSuccess && state != ncclInProgress) {
            return ASYNC_ERROR;
        }
        nap();
    }
    return STUCK;
}

static enum outcome join(struct rank *rank) {
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    fakecuda_configure(rank->settings);
    if (cudaSetDevice(rank->rank) ||
        cudaStreamCreateWithFlags(&rank->stream, cudaStreamNonBlocking) ||
        cudaEventCreateWithFlags(&rank->event, cudaEventDisableTiming) ||
        ncclMemAlloc((void **)&rank->values, COUNT * sizeof(float)) != ncclSuccess) {
        return CALL_FAILED;
    }
    float *values = fakecuda_peek(rank->values);
    for (int i = 0; i < COUNT; i++) {
        values[i] = (float)(rank->rank + 1) * (float)i;
    }
    ncclResult_t result = ncclCommInitRankConfig(&rank->comm, RANKS, rank->id, rank->rank, &config);
    return result == ncclInProgress || result == ncclSuccess ? settle(rank) : CALL_FAILED;
}

static enum outcome average(struct rank *rank, size_t count) {
    ncclResult_t result = ncclAllReduce(rank->values, rank->values, count, ncclFloat32, ncclAvg,
                                        rank->comm, rank->stream);
    if (result != ncclSuccess && result != ncclInProgress) {
        return CALL_FAILED;
    }
    enum outcome outcome = settle(rank);
    if (outcome == FINE && cudaEventRecord(rank->event, rank->stream) != cudaSuccess) {
        outcome = CALL_FAILED;
    }
    return outcome;
}

/* A process a rank; ret_outcomes: exit status, or minus the signal. */
static void run_ranks(const char *settings, enum outcome (*job)(struct rank *),
                      int ret_outcomes[RANKS]) {
    struct rank rank = {.settings = settings};
    pid_t children[RANKS];
    cr_assert_eq(ncclGetUniqueId(&rank.id), ncclSuccess);
    for (rank.rank = 0; rank.rank < RANKS; rank.rank++) {
        children[rank.rank] = fork();
        if (children[rank.rank] == 0) {
            alarm(20);
            enum outcome outcome = join(&rank);
            _exit((int)(outcome == FINE ? job(&rank) : outcome));
        }
    }
    for (int i = 0; i < RANKS; i++) {
        int status = 0;
        cr_assert_eq(waitpid(children[i], &status, 0), children[i]);
        ret_outcomes[i] = WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
    }
}

static void assert_all(const char *settings, enum outcome (*job)(struct rank *), int want) {
    int outcomes[RANKS];
    run_ranks(settings, job, outcomes);
    for (int i = 0; i < RANKS; i++) {
        cr_assert_eq(outcomes[i], want, "%s: rank %d: %d, not %d", settings, i, outcomes[i], want);
    }
}

static enum outcome average_thrice(struct rank *rank) {
    const float *values = fakecuda_peek(rank->values);
    enum outcome outcome = FINE;
    for (int round = 0; round < 3 && outcome == FINE; round++) {
        outcome = average(rank, COUNT);
    }
    outcome = outcome == FINE ? poll_event(rank, 5000) : outcome;
    for (int i = 0; i < COUNT && outcome == FINE; i++) {
        /* 1, 2, 3 times i: the mean is 2 i, and stays. */
        outcome = values[i] == 2 * (float)i ? FINE : WRONG_VALUE;
    }
    if (outcome == FINE && ncclCommDestroy(rank->comm) != ncclSuccess) {
        outcome = CALL_FAILED;
    }
    return outcome;
}

Test(fakecuda_nccl, ranks_average_under_every_schedule) {
    static const char *const schedules[] = {"devices=3,schedule=eager", "devices=3,schedule=lazy",
                                            "devices=3,schedule=random,seed=4"};
    for (size_t i = 0; i < sizeof schedules / sizeof schedules[0]; i++) {
        assert_all(schedules[i], average_thrice, FINE);
    }
}

static enum outcome broadcast(struct rank *rank) {
    const float *values = fakecuda_peek(rank->values);
    ncclGroupStart();
    for (int i = 0; i < 2; i++) {
        ncclBroadcast(rank->values + i * 10, rank->values + i * 10, 10, ncclFloat32, 1 + i,
                      rank->comm, rank->stream);
    }
    ncclGroupEnd();
    enum outcome outcome = settle(rank);
    cudaEventRecord(rank->event, rank->stream);
    outcome = outcome == FINE ? poll_event(rank, 5000) : outcome;
    return outcome != FINE                                ? outcome
           : values[3] == 2 * 3.0f && values[13] == 39.0f ? FINE
                                                          : WRONG_VALUE;
}

Test(fakecuda_nccl, group_of_broadcasts_brings_the_roots_values) {
    assert_all("devices=3,schedule=lazy", broadcast, FINE);
    assert_all("devices=3", broadcast, FINE);
}

static enum outcome differ(struct rank *rank) {
    enum outcome outcome = average(rank, COUNT);
    outcome = outcome == FINE ? poll_event(rank, 5000) : outcome;
    outcome = outcome == FINE ? average(rank, rank->rank == 1 ? 7 : 8) : outcome;
    outcome = outcome == FINE ? poll_event(rank, 5000) : outcome;
    const char *words = ncclGetLastError(rank->comm);
    if (outcome == ASYNC_ERROR &&
        (!strstr(words, "call 2") || !strstr(words, "rank 1 all-reduce of 7 float32, average"))) {
        return WRONG_VALUE;
    }
    ncclCommAbort(rank->comm);
    if (outcome == ASYNC_ERROR && cudaStreamSynchronize(rank->stream) == cudaSuccess) {
        return FINE;
    }
    return outcome == FINE ? WRONG_VALUE : outcome;
}

Test(fakecuda_nccl, mismatch_is_named_instead_of_hanging) {
    assert_all("devices=3", differ, FINE);
}

static enum outcome lose_a_rank(struct rank *rank) {
    enum outcome outcome = average(rank, COUNT);
    outcome = outcome == FINE ? poll_event(rank, 200) : outcome;
    if (outcome == STUCK) { /* as it should; abort ends it */
        ncclCommAbort(rank->comm);
        return cudaStreamSynchronize(rank->stream) == cudaSuccess ? FINE : CALL_FAILED;
    }
    return outcome == FINE ? WRONG_VALUE : outcome;
}

Test(fakecuda_nccl, dead_rank_leaves_the_others_waiting_until_they_abort) {
    int outcomes[RANKS];
    run_ranks("devices=3,faults=ncclAllReduce:1:kill@2", lose_a_rank, outcomes);
    cr_assert_eq(outcomes[0], FINE);
    cr_assert_eq(outcomes[1], FINE);
    cr_assert_eq(outcomes[2], -SIGKILL);
}

Test(fakecuda_nccl, hanging_rank_holds_up_all) {
    assert_all("devices=3,faults=ncclAllReduce:1:hang@1", lose_a_rank, FINE);
}

static enum outcome see_remote_error(struct rank *rank) {
    enum outcome outcome = average(rank, COUNT);
    outcome = outcome == FINE ? poll_event(rank, 5000) : outcome;
    return outcome == ASYNC_ERROR ? FINE : outcome == FINE ? WRONG_VALUE : outcome;
}

Test(fakecuda_nccl, remote_error_shows_in_the_state) {
    assert_all("devices=3,faults=ncclAllReduce:1:remote", see_remote_error, FINE);
}

/* Record an average of so many values into a graph. */
static enum outcome record(struct rank *rank, size_t count, cudaGraphExec_t *ret_exec) {
    cudaGraph_t graph;
    if (cudaStreamBeginCapture(rank->stream, cudaStreamCaptureModeThreadLocal) != cudaSuccess) {
        return CALL_FAILED;
    }
    ncclAllReduce(rank->values, rank->values, count, ncclFloat32, ncclAvg, rank->comm,
                  rank->stream);
    enum outcome outcome = settle(rank);
    if (cudaStreamEndCapture(rank->stream, &graph) != cudaSuccess ||
        cudaGraphInstantiate(ret_exec, graph, 0) != cudaSuccess) {
        return CALL_FAILED;
    }
    cudaGraphDestroy(graph);
    return outcome;
}

static enum outcome launch(struct rank *rank, cudaGraphExec_t exec) {
    if (cudaGraphLaunch(exec, rank->stream) != cudaSuccess ||
        cudaEventRecord(rank->event, rank->stream) != cudaSuccess) {
        return CALL_FAILED;
    }
    return poll_event(rank, 5000);
}

/* Recorded, it runs not at all; launched, each time; and queued calls may come in between. */
static enum outcome average_by_graph(struct rank *rank) {
    float *values = fakecuda_peek(rank->values);
    cudaGraphExec_t exec = NULL;
    enum outcome outcome = record(rank, COUNT, &exec);
    if (outcome == FINE && values[1] != (float)(rank->rank + 1)) {
        outcome = WRONG_VALUE;
    }
    for (int round = 0; round < 3 && outcome == FINE; round++) {
        values[1] = (float)((round + 1) * (rank->rank + 1));
        outcome = launch(rank, exec);
        if (outcome == FINE && values[1] != (float)(2 * (round + 1))) {
            outcome = WRONG_VALUE;
        }
        outcome = outcome == FINE ? average(rank, 9) : outcome;
        outcome = outcome == FINE ? poll_event(rank, 5000) : outcome;
    }
    cudaGraphExecDestroy(exec);
    if (outcome == FINE && ncclCommDestroy(rank->comm) != ncclSuccess) {
        outcome = CALL_FAILED;
    }
    return outcome;
}

Test(fakecuda_nccl, a_recorded_average_is_one_at_each_launch) {
    assert_all("devices=3,schedule=eager", average_by_graph, FINE);
    assert_all("devices=3,schedule=lazy", average_by_graph, FINE);
    assert_all("devices=3,schedule=random,seed=6", average_by_graph, FINE);
}

/* Whether the communicator says in words that ranks differ; ends the communicator. */
static enum outcome is_told(struct rank *rank, enum outcome outcome, const char *wanted) {
    bool told = strstr(ncclGetLastError(rank->comm), wanted) != NULL;
    ncclCommAbort(rank->comm);
    return outcome != ASYNC_ERROR ? outcome == FINE ? WRONG_VALUE : outcome
           : told                 ? FINE
                                  : WRONG_VALUE;
}

static enum outcome record_on_one_rank(struct rank *rank) {
    cudaGraphExec_t exec = NULL;
    enum outcome outcome = FINE;
    if (rank->rank == 1) {
        outcome = record(rank, COUNT, &exec);
        outcome = outcome == FINE ? launch(rank, exec) : outcome;
        cudaGraphExecDestroy(exec);
    } else {
        outcome = average(rank, COUNT);
        outcome = outcome == FINE ? poll_event(rank, 5000) : outcome;
    }
    return is_told(rank, outcome, "recorded as number 1");
}

Test(fakecuda_nccl, a_call_recorded_on_one_rank_and_queued_on_others_is_named) {
    assert_all("devices=3", record_on_one_rank, FINE);
    assert_all("devices=3,schedule=lazy", record_on_one_rank, FINE);
}

static enum outcome record_twice_on_one_rank(struct rank *rank) {
    cudaGraphExec_t exec[2] = {NULL, NULL};
    enum outcome outcome = record(rank, COUNT, &exec[0]);
    outcome = outcome == FINE ? launch(rank, exec[0]) : outcome;
    if (outcome == FINE && rank->rank == 1) {
        outcome = record(rank, COUNT, &exec[1]);
    }
    outcome = outcome == FINE ? launch(rank, exec[rank->rank == 1]) : outcome;
    cudaGraphExecDestroy(exec[0]);
    if (exec[1]) {
        cudaGraphExecDestroy(exec[1]);
    }
    return is_told(rank, outcome, "recorded as number 2");
}

Test(fakecuda_nccl, a_call_recorded_anew_on_one_rank_is_named) {
    assert_all("devices=3", record_twice_on_one_rank, FINE);
}

static enum outcome abort_under_a_graph(struct rank *rank) {
    cudaGraphExec_t exec = NULL;
    enum outcome outcome = record(rank, COUNT, &exec);
    fakecuda_record_violations(true);
    ncclCommAbort(rank->comm);
    const char *text = fakecuda_violation();
    bool told = text && strstr(text, "ncclCommAbort: 1 collectives are in graphs");
    return outcome != FINE ? outcome : told ? FINE : WRONG_VALUE;
}

Test(fakecuda_nccl, a_communicator_must_not_end_before_the_graphs_it_is_in) {
    assert_all("devices=3,schedule=lazy", abort_under_a_graph, FINE);
}

static enum outcome record_too_early(struct rank *rank) {
    fakecuda_record_violations(true);
    ncclAllReduce(rank->values, rank->values, COUNT, ncclFloat32, ncclSum, rank->comm,
                  rank->stream);
    cudaStream_t other;
    cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking);
    cudaEventRecord(rank->event, rank->stream); /* before the communicator settled */
    cudaStreamWaitEvent(other, rank->event, 0);
    settle(rank);
    cudaMemsetAsync(rank->values, 0, 4, other);
    const char *text = fakecuda_violation();
    _exit(text && strstr(text, "ncclAllReduce") ? RACE : FINE);
}

Test(fakecuda_nccl, event_recorded_before_the_call_settled_does_not_cover_it) {
    assert_all("devices=3,schedule=lazy", record_too_early, RACE);
}

Test(fakecuda_nccl, unknown_id_is_refused) {
    ncclUniqueId id = {.internal = "nobody"};
    ncclComm_t comm;
    cr_assert_neq(ncclCommInitRank(&comm, 1, id, 0), ncclSuccess);
    cr_assert_null(comm);
}
