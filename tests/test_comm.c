/* SPDX-License-Identifier: Apache-2.0 */
/* Collectives with threads as ranks (so that sanitizers see all sides) and with real processes. */
#include "workers/comm.h"

#include "base/clock.h"
#include "base/err.h"
#include "base/rng.h"
#include "ipc/memfd.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    CHUNK = 64 * 1024, /* of comm_shm.c: sizes around it are the interesting ones */
    RANKS_MAX = 4,
};

static const size_t sizes[] = {0,         1,
                               2,         31,
                               33,        1000,
                               CHUNK - 1, CHUNK,
                               CHUNK + 1, 2 * CHUNK + 17,
                               5 * CHUNK, 7 * CHUNK + 12345};

struct rank_job {
    pthread_t thread;
    uint32_t rank, ranks;
    int fd;
    int deadline_ms;
    int (*work)(struct rank_job *job, struct nnc_comm *comm);
    size_t count;
    float *values;
    int code;
    char text[NNC_ERROR_TEXT_MAX];
};

/* A value with many bits set, so that another order of summation shows. */
static float value_of(uint32_t rank, size_t i) {
    uint32_t counter[4] = {(uint32_t)i, rank, 0, 0}, key[2] = {7, 9};
    struct nnc_philox_block block = nnc_philox(counter, key);
    return ldexpf((float)(int32_t)block.word[0], (int)(block.word[1] % 40) - 50);
}

static int open_memory(uint32_t ranks) {
    int fd = -1;
    if (ranks > 1) {
        cr_assert_eq(
            nnc_memfd_create("comm", nnc_comm_shm_bytes(ranks), NNC_MEMFD_SHARED, NULL, NULL, &fd),
            0);
    }
    return fd;
}

static int run_rank(struct rank_job *job) {
    struct nnc_comm_params params = {.rank = job->rank,
                                     .ranks = job->ranks,
                                     .fd = job->fd,
                                     .deadline_ms = job->deadline_ms ? job->deadline_ms : 20000};
    struct nnc_comm *comm = NULL;
    int code = nnc_comm_create(&params, &comm);
    if (code == 0) {
        code = job->work(job, comm);
    }
    nnc_comm_destroy(comm);
    return code;
}

static void *thread_main(void *context) {
    struct rank_job *job = context;
    job->code = run_rank(job);
    strcpy(job->text, nnc_error_text());
    return NULL;
}

static void run_threads(struct rank_job *jobs, uint32_t ranks) {
    for (uint32_t rank = 0; rank < ranks; rank++) {
        cr_assert_eq(pthread_create(&jobs[rank].thread, NULL, thread_main, &jobs[rank]), 0);
    }
    for (uint32_t rank = 0; rank < ranks; rank++) {
        pthread_join(jobs[rank].thread, NULL);
    }
}

static void make_jobs(struct rank_job *jobs, uint32_t ranks, int fd, size_t count,
                      int (*work)(struct rank_job *, struct nnc_comm *)) {
    for (uint32_t rank = 0; rank < ranks; rank++) {
        jobs[rank] =
            (struct rank_job){.rank = rank, .ranks = ranks, .fd = fd, .work = work, .count = count};
        jobs[rank].values = malloc((count + 1) * sizeof(float));
        for (size_t i = 0; i < count; i++) {
            jobs[rank].values[i] = value_of(rank, i);
        }
        jobs[rank].values[count] = 1234.5f;
    }
}

static void free_jobs(struct rank_job *jobs, uint32_t ranks) {
    for (uint32_t rank = 0; rank < ranks; rank++) {
        free(jobs[rank].values);
    }
}

static int work_allreduce(struct rank_job *job, struct nnc_comm *comm) {
    return nnc_comm_allreduce(comm, job->values, job->count);
}

static float ordered_sum(uint32_t ranks, size_t i) {
    float sum = value_of(0, i);
    for (uint32_t rank = 1; rank < ranks; rank++) {
        sum += value_of(rank, i);
    }
    return sum;
}

static void check_ordered_sum(const struct rank_job *jobs, uint32_t ranks, size_t count) {
    for (uint32_t rank = 0; rank < ranks; rank++) {
        cr_assert_eq(jobs[rank].code, 0, "rank %u: %s", rank, jobs[rank].text);
        cr_assert_eq(jobs[rank].values[count], 1234.5f, "guard, count %zu", count);
        for (size_t i = 0; i < count; i++) {
            float want = ordered_sum(ranks, i);
            cr_assert(memcmp(&jobs[rank].values[i], &want, sizeof(want)) == 0,
                      "%u ranks, count %zu, rank %u, float %zu: %.9g, not %.9g", ranks, count, rank,
                      i, (double)jobs[rank].values[i], (double)want);
        }
    }
}

Test(comm, a_sum_is_the_ordered_sum_bit_for_bit_at_any_size_and_number_of_ranks) {
    for (uint32_t ranks = 1; ranks <= RANKS_MAX; ranks++) {
        for (size_t row = 0; row < sizeof(sizes) / sizeof(sizes[0]); row++) {
            struct rank_job jobs[RANKS_MAX];
            int fd = open_memory(ranks);
            make_jobs(jobs, ranks, fd, sizes[row], work_allreduce);
            run_threads(jobs, ranks);
            check_ordered_sum(jobs, ranks, sizes[row]);
            free_jobs(jobs, ranks);
            close(fd);
        }
    }
}

/* Operations of all kinds and sizes after one another, each checked by its rank. */
static int work_mixture(struct rank_job *job, struct nnc_comm *comm) {
    for (uint32_t round = 0; round < 200; round++) {
        uint32_t word = 0, mine = job->rank == round % job->ranks ? round + 1 : 0;
        int code = nnc_comm_agree(comm, mine, &word);
        if (code < 0 || word != round + 1) {
            return code < 0 ? code : nnc_fail(-NNC_E_FORMAT, "round %u agreed on %u", round, word);
        }
        float sums[70];
        size_t count = 1 + round % 70;
        for (size_t i = 0; i < count; i++) {
            sums[i] = (float)(job->rank + 1);
        }
        code = nnc_comm_allreduce(comm, sums, count);
        if (code < 0 || sums[count - 1] != (float)(job->ranks * (job->ranks + 1) / 2)) {
            return code < 0 ? code : nnc_fail(-NNC_E_FORMAT, "round %u: wrong sum", round);
        }
        for (uint32_t again = 0; again < round % 7; again++) {
            float value = job->rank == 0 ? (float)(round * 10 + again) : -1.0f;
            code = nnc_comm_broadcast(comm, &value, 1);
            if (code < 0 || value != (float)(round * 10 + again)) {
                return code < 0 ? code : nnc_fail(-NNC_E_FORMAT, "round %u: broadcast", round);
            }
        }
    }
    return 0;
}

Test(comm, operations_of_all_kinds_follow_one_another) {
    for (uint32_t ranks = 1; ranks <= RANKS_MAX; ranks++) {
        struct rank_job jobs[RANKS_MAX];
        int fd = open_memory(ranks);
        make_jobs(jobs, ranks, fd, 1, work_mixture);
        run_threads(jobs, ranks);
        for (uint32_t rank = 0; rank < ranks; rank++) {
            cr_assert_eq(jobs[rank].code, 0, "%u ranks, rank %u: %s", ranks, rank, jobs[rank].text);
        }
        free_jobs(jobs, ranks);
        close(fd);
    }
}

static int work_broadcast(struct rank_job *job, struct nnc_comm *comm) {
    return nnc_comm_broadcast(comm, job->values, job->count);
}

Test(comm, a_broadcast_copies_the_bits_of_rank_0) {
    for (size_t row = 0; row < sizeof(sizes) / sizeof(sizes[0]); row++) {
        struct rank_job jobs[3];
        int fd = open_memory(3);
        make_jobs(jobs, 3, fd, sizes[row], work_broadcast);
        if (sizes[row] > 0) {
            jobs[0].values[0] = -0.0f;
        }
        run_threads(jobs, 3);
        for (uint32_t rank = 0; rank < 3; rank++) {
            cr_assert_eq(jobs[rank].code, 0, "%s", jobs[rank].text);
            cr_assert(memcmp(jobs[rank].values, jobs[0].values, sizes[row] * sizeof(float)) == 0,
                      "size %zu, rank %u", sizes[row], rank);
        }
        free_jobs(jobs, 3);
        close(fd);
    }
}

static int work_gather(struct rank_job *job, struct nnc_comm *comm) {
    for (uint32_t round = 0; round < 50; round++) {
        size_t bytes = 1 + (round * 37) % NNC_COMM_BLOCK_MAX;
        uint8_t block[NNC_COMM_BLOCK_MAX], blocks[RANKS_MAX * NNC_COMM_BLOCK_MAX];
        memset(block, (int)(job->rank * 60 + round), bytes);
        int code = nnc_comm_gather(comm, block, bytes, blocks);
        if (code < 0) {
            return code;
        }
        for (size_t at = 0; at < job->ranks * bytes; at++) {
            if (blocks[at] != (uint8_t)(at / bytes * 60 + round)) {
                return nnc_fail(-NNC_E_FORMAT, "round %u, byte %zu", round, at);
            }
        }
    }
    return 0;
}

Test(comm, a_gather_gives_every_rank_all_blocks_in_rank_order) {
    for (uint32_t ranks = 1; ranks <= RANKS_MAX; ranks++) {
        struct rank_job jobs[RANKS_MAX];
        int fd = open_memory(ranks);
        make_jobs(jobs, ranks, fd, 1, work_gather);
        run_threads(jobs, ranks);
        for (uint32_t rank = 0; rank < ranks; rank++) {
            cr_assert_eq(jobs[rank].code, 0, "%u ranks: %s", ranks, jobs[rank].text);
        }
        free_jobs(jobs, ranks);
        close(fd);
    }
}

/* Rank 0 never comes. */
static int work_stays_away(struct rank_job *job, struct nnc_comm *comm) {
    return job->rank == 0 ? 0 : nnc_comm_allreduce(comm, job->values, job->count);
}

Test(comm, a_missing_rank_ends_in_an_error_at_the_deadline) {
    struct rank_job jobs[2];
    int fd = open_memory(2);
    make_jobs(jobs, 2, fd, 100, work_stays_away);
    jobs[1].deadline_ms = 250;
    run_threads(jobs, 2);
    cr_assert_eq(jobs[1].code, -NNC_E_COMM);
    cr_assert_not_null(strstr(jobs[1].text, "rank 0"), "%s", jobs[1].text);
    free_jobs(jobs, 2);
    close(fd);
}

/* Rank 0 stops the group instead of coming. */
static int work_stopped(struct rank_job *job, struct nnc_comm *comm) {
    if (job->rank == 0) {
        nnc_clock_sleep_ns(30000000);
        nnc_comm_stop(comm);
        return 0;
    }
    uint64_t began_ns = nnc_clock_ns();
    int code = nnc_comm_allreduce(comm, job->values, job->count);
    job->values[0] = (float)(nnc_clock_ns() - began_ns) / 1e9f;
    return code;
}

Test(comm, the_stop_word_ends_all_waits) {
    struct rank_job jobs[RANKS_MAX];
    int fd = open_memory(RANKS_MAX);
    make_jobs(jobs, RANKS_MAX, fd, 100, work_stopped);
    run_threads(jobs, RANKS_MAX);
    for (uint32_t rank = 1; rank < RANKS_MAX; rank++) {
        cr_assert_eq(jobs[rank].code, -NNC_E_COMM);
        cr_assert_lt(jobs[rank].values[0], 5.0f, "rank %u took %g s", rank,
                     (double)jobs[rank].values[0]);
    }
    free_jobs(jobs, RANKS_MAX);
    close(fd);
}

static int refuse(void *context) {
    (void)context;
    return nnc_fail(-EPIPE, "the coordinator is gone");
}

Test(comm, the_callers_own_check_ends_a_wait) {
    int fd = open_memory(2);
    struct nnc_comm_params params = {
        .rank = 0, .ranks = 2, .fd = fd, .deadline_ms = 20000, .alive = refuse};
    struct nnc_comm *comm;
    cr_assert_eq(nnc_comm_create(&params, &comm), 0);
    float value = 1;
    cr_assert_eq(nnc_comm_allreduce(comm, &value, 1), -EPIPE);
    nnc_comm_destroy(comm);
    close(fd);
}

Test(comm, shared_memory_of_the_wrong_size_is_refused) {
    int fd = open_memory(3);
    struct nnc_comm_params params = {.rank = 0, .ranks = 2, .fd = fd, .deadline_ms = 1};
    struct nnc_comm *comm;
    cr_assert_lt(nnc_comm_create(&params, &comm), 0);
    close(fd);
}

/* A rank as a process: sums until killed or stopped. Exit status 0: right sums and then an error.
 */
static int process_rank(int fd, uint32_t rank, uint32_t ranks) {
    struct nnc_comm_params params = {.rank = rank, .ranks = ranks, .fd = fd, .deadline_ms = 20000};
    struct nnc_comm *comm;
    if (nnc_comm_create(&params, &comm) < 0) {
        return 10;
    }
    static float values[3 * CHUNK + 5];
    const size_t count = sizeof(values) / sizeof(values[0]);
    for (uint32_t round = 0; round < 1000000; round++) {
        for (size_t i = 0; i < count; i++) {
            values[i] = (float)(i % 1000 + rank);
        }
        int code = nnc_comm_allreduce(comm, values, count);
        if (code < 0) {
            return code == -NNC_E_COMM ? 0 : 11;
        }
        for (size_t i = 0; i < count; i++) {
            if (values[i] != (float)(ranks * (i % 1000) + ranks * (ranks - 1) / 2)) {
                return 12;
            }
        }
    }
    return 13;
}

Test(comm, a_killed_process_leaves_the_others_an_error_once_the_stop_word_is_set) {
    enum {
        RANKS = 3
    };
    int fd = open_memory(RANKS);
    pid_t pids[RANKS];
    for (uint32_t rank = 0; rank < RANKS; rank++) {
        pids[rank] = fork();
        cr_assert_geq(pids[rank], 0);
        if (pids[rank] == 0) {
            _exit(process_rank(fd, rank, RANKS));
        }
    }
    nnc_clock_sleep_ns(100000000);
    kill(pids[1], SIGKILL);
    const uint32_t stop = 1; /* the first word of the memory, as the coordinator sets it */
    cr_assert_eq(pwrite(fd, &stop, sizeof(stop), 0), (ssize_t)sizeof(stop));
    for (uint32_t rank = 0; rank < RANKS; rank++) {
        int status;
        cr_assert_eq(waitpid(pids[rank], &status, 0), pids[rank]);
        if (rank == 1) {
            cr_assert(WIFSIGNALED(status));
        } else {
            cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "rank %u: status %x", rank,
                      status);
        }
    }
    close(fd);
}
