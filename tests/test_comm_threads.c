/* SPDX-License-Identifier: Apache-2.0 */
/* Ranks as threads of one process over one mapping, so that a thread sanitizer sees every access of
 * the all-reduce. Each round sums runs of random lengths, broadcasts, gathers, and checks what
 * comes out. */
#include "base/err.h"
#include "base/rng.h"
#include "workers/comm.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    RANKS = 3,
    ROUNDS = 60,
    FLOATS_MAX = 300000, /* several chunks */
};

struct rank {
    pthread_t thread;
    uint32_t number;
    void *memory;
    float *values;
    char failure[NNC_ERROR_TEXT_MAX];
};

static int fail(struct rank *rank, uint32_t round, const char *what) {
    snprintf(rank->failure, sizeof(rank->failure), "rank %u, round %u: %s: %.200s", rank->number,
             round, what, nnc_error_text());
    return -1;
}

/* Small integers: their sum is exact. */
static float value_of(uint32_t rank, uint32_t round, size_t i) {
    return (float)((i * 7 + round * 13 + rank * 29) % 1000);
}

static int sum_round(struct rank *rank, struct nnc_comm *comm, uint32_t round, size_t count) {
    for (size_t i = 0; i < count; i++) {
        rank->values[i] = value_of(rank->number, round, i);
    }
    if (nnc_comm_allreduce(comm, rank->values, count) < 0) {
        return fail(rank, round, "all-reduce");
    }
    for (size_t i = 0; i < count; i++) {
        float want = 0;
        for (uint32_t other = 0; other < RANKS; other++) {
            want += value_of(other, round, i);
        }
        if (rank->values[i] != want) {
            return fail(rank, round, "wrong sum");
        }
    }
    return 0;
}

static int share_round(struct rank *rank, struct nnc_comm *comm, uint32_t round, size_t count) {
    for (size_t i = 0; i < count; i++) {
        rank->values[i] = rank->number == 0 ? value_of(0, round, i) : -1.0f;
    }
    uint32_t word = 0;
    if (nnc_comm_broadcast(comm, rank->values, count) < 0 ||
        nnc_comm_agree(comm, rank->number == round % RANKS ? round : 0, &word) < 0) {
        return fail(rank, round, "broadcast or agreement");
    }
    if (word != round || (count > 0 && rank->values[count - 1] != value_of(0, round, count - 1))) {
        return fail(rank, round, "wrong broadcast or agreement");
    }
    return 0;
}

/* Agreements with one broadcast between them: rank 0 may be far ahead of the others. */
static int hurry_round(struct rank *rank, struct nnc_comm *comm, uint32_t round) {
    for (uint32_t again = 0; again < 50; again++) {
        uint32_t mine = round * 100 + again + rank->number, word = 0;
        float value = rank->number == 0 ? (float)mine : -1.0f;
        if (nnc_comm_agree(comm, mine, &word) < 0 || nnc_comm_broadcast(comm, &value, 1) < 0) {
            return fail(rank, round, "agreement or broadcast");
        }
        if (word != round * 100 + again + RANKS - 1 || value != (float)(round * 100 + again)) {
            return fail(rank, round, "wrong agreement or broadcast in a hurry");
        }
    }
    return 0;
}

static void *rank_main(void *context) {
    struct rank *rank = context;
    const struct nnc_comm_params params = {.rank = rank->number,
                                           .ranks = RANKS,
                                           .fd = -1,
                                           .memory = rank->memory,
                                           .deadline_ms = 60000};
    struct nnc_comm *comm = NULL;
    if (nnc_comm_create(&params, &comm) < 0) {
        fail(rank, 0, "create");
        return NULL;
    }
    struct nnc_rng rng = nnc_rng_make(5, NNC_RNG_SYNTHETIC, 0, 0); /* equal on all ranks */
    int code = 0;
    for (uint32_t round = 0; code == 0 && round < ROUNDS; round++) {
        uint32_t largest = round % 10 == 9 ? FLOATS_MAX : 3000;
        code = sum_round(rank, comm, round, nnc_rng_below(&rng, largest));
        code = code < 0 ? code : hurry_round(rank, comm, round);
        code = code < 0 ? code : share_round(rank, comm, round, nnc_rng_below(&rng, largest));
    }
    if (code < 0) {
        nnc_comm_stop(comm);
    }
    nnc_comm_destroy(comm);
    return NULL;
}

int main(void) {
    struct rank ranks[RANKS] = {0};
    size_t bytes = nnc_comm_shm_bytes(RANKS);
    void *memory = aligned_alloc(4096, bytes);
    int failures = 0;
    if (memory == NULL) {
        return 1;
    }
    memset(memory, 0, bytes);
    printf("1..%d\n", RANKS);
    for (uint32_t number = 0; number < RANKS; number++) {
        ranks[number].number = number;
        ranks[number].memory = memory;
        ranks[number].values = calloc(FLOATS_MAX, sizeof(float));
        if (ranks[number].values == NULL ||
            pthread_create(&ranks[number].thread, NULL, rank_main, &ranks[number]) != 0) {
            return 1;
        }
    }
    for (uint32_t number = 0; number < RANKS; number++) {
        pthread_join(ranks[number].thread, NULL);
        int failed = ranks[number].failure[0] != '\0';
        printf("%sok %u - rank %u sums, shares and agrees %s\n", failed ? "not " : "", number + 1,
               number, ranks[number].failure);
        failures += failed;
        free(ranks[number].values);
    }
    free(memory);
    return failures > 0;
}
