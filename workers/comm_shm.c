/* SPDX-License-Identifier: Apache-2.0 */
/* All-reduce between processes of one machine through shared memory.
 *
 * A run of floats is cut into chunks of CHUNK floats and every chunk into P parts, one for each
 * rank to sum. Three counters per rank, each only ever written by it, say how far it is:
 *
 *   posted  chunks whose foreign parts lie in this rank's staging buffer
 *   summed  chunks whose own part is summed and lies in this rank's result buffer
 *   taken   chunks whose results this rank has copied out
 *
 *   chunk c on rank r:   post(c) ........ sum(c) ............ take(c)
 *                        needs taken > c-DEPTH   needs posted > c   needs summed > c   (of all
 * peers)
 *
 * The three run one and two chunks behind each other, so that a rank rarely waits for a peer that
 * is about as fast. A rank never stages the part that it sums itself: it reads it from its own
 * memory. So every float is written once to staging, once to a result and once to its place.
 *
 * Invariants:
 *   1. Counters count chunks since creation, over all operations; at the end of an operation the
 * three are equal on a rank, and equal on all ranks once all have left it.
 *   2. staging[r][c % DEPTH] is written by r only after all peers took chunk c - DEPTH; taking
 * comes after summing on each rank, so nobody reads it any more. The same holds for result[r][c %
 * DEPTH].
 *   3. Every element is summed over the ranks in rank order; where the chunk and part borders lie
 * does not change the result.
 *   4. No locks. A killed rank leaves nothing behind but counters that stand still.
 *
 * Waiting: spin for a few microseconds, then a futex on the peer's counter in slices of 100 ms,
 * with the stop word, the deadline and the caller's `alive` looked at in each slice. Wakes are
 * always sent, but need not arrive.
 *
 * Bytes (offset, size, meaning), all zero at first:
 *   0                                  4        stop word: not 0 ends all waits; anybody may set it
 *   128 + r * RANK_BYTES               4        posted of rank r
 *   256 + r * RANK_BYTES               4        summed
 *   384 + r * RANK_BYTES               4        taken
 *   512 + r * RANK_BYTES               2 x 256  gather blocks of even and odd chunks
 *   4096 * (1 + ...), BUFFER_BYTES per rank     DEPTH staging chunks, DEPTH result chunks
 *
 * It does not cross machines (comm_nodes.c), and does not reduce on its own thread.
 *
 * Source: Patarasuk, Yuan, "Bandwidth optimal all-reduce algorithms", JPDC 2009 (reduce-scatter and
 * all-gather); futex(2). */
#include "workers/comm.h"

#include "base/clock.h"
#include "base/config.h"
#include "base/err.h"
#include "ipc/futex.h"
#include "ipc/memfd.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum {
    CHUNK = 64 * 1024, /* floats; 256 KiB stays in the second-level cache */
    DEPTH = 4,
    ALIGN_FLOATS = 32, /* parts begin on cache-line pairs */
    SPINS = 2000,
};

struct rank_words {
    _Alignas(128) _Atomic uint32_t posted;
    _Alignas(128) _Atomic uint32_t summed;
    _Alignas(128) _Atomic uint32_t taken;
    _Alignas(128) uint8_t block[2][NNC_COMM_BLOCK_MAX];
};
_Static_assert(sizeof(struct rank_words) == 896, "layout of a rank's words");

struct control {
    _Alignas(128) _Atomic uint32_t stop;
    struct rank_words rank[NNC_MAX_RANKS];
};

struct rank_buffers {
    float staging[DEPTH][CHUNK];
    float result[DEPTH][CHUNK];
};

#define CONTROL_BYTES ((sizeof(struct control) + 4095) & ~(size_t)4095)

struct shm_comm {
    struct nnc_comm base;
    struct nnc_comm_params params;
    uint8_t *memory;
    size_t bytes;
    uint32_t done; /* chunks of the operations so far */
};

/* One operation: a run of floats in flight. */
struct run {
    float *values;
    size_t count;
    uint32_t chunks;
};

size_t nnc_comm_shm_bytes(uint32_t ranks) {
    assert(ranks >= 1 && ranks <= NNC_MAX_RANKS);
    return ranks == 1 ? 0 : CONTROL_BYTES + ranks * sizeof(struct rank_buffers);
}

static struct control *control_of(const struct shm_comm *shm) {
    return (struct control *)(void *)shm->memory;
}

static struct rank_words *words_of(const struct shm_comm *shm, uint32_t rank) {
    assert(rank < shm->base.ranks);
    return &control_of(shm)->rank[rank];
}

static struct rank_buffers *buffers_of(const struct shm_comm *shm, uint32_t rank) {
    assert(rank < shm->base.ranks);
    return (struct rank_buffers *)(void *)(shm->memory + CONTROL_BYTES) + rank;
}

/* Publish a counter: pairs with the acquire loads in wait_for(). */
static void advance(_Atomic uint32_t *word, uint32_t value) {
    atomic_store_explicit(word, value, memory_order_release);
    nnc_futex_wake(word, INT_MAX);
}

static void relax(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#else
    atomic_signal_fence(memory_order_seq_cst);
#endif
}

/* 1 when `value` has reached `target`; counters wrap around. */
static int reached(uint32_t value, uint32_t target) {
    return (int32_t)(value - target) >= 0;
}

static int shm_stopped(const struct nnc_comm *comm) {
    const struct shm_comm *shm = (const struct shm_comm *)comm;
    return atomic_load_explicit(&control_of(shm)->stop, memory_order_acquire) != 0;
}

/* Errors name ranks by their numbers in the run: first is 0 when there are no other machines. */
static int check_slice(const struct shm_comm *shm, uint32_t peer, uint64_t began_ns) {
    uint32_t first = shm->params.first;
    if (shm_stopped(&shm->base)) {
        return nnc_fail(-NNC_E_COMM, "rank %u: the group was stopped during a collective",
                        first + shm->base.rank);
    }
    uint64_t waited_ms = (nnc_clock_ns() - began_ns) / 1000000u;
    if (waited_ms >= (uint64_t)shm->params.deadline_ms) {
        return nnc_fail(-NNC_E_COMM, "rank %u waited %.1f s for rank %u in a collective",
                        first + shm->base.rank, (double)waited_ms / 1000, first + peer);
    }
    return shm->params.alive != NULL ? shm->params.alive(shm->params.context) : 0;
}

static int wait_slowly(const struct shm_comm *shm, uint32_t peer, _Atomic uint32_t *word,
                       uint32_t target) {
    uint64_t began_ns = nnc_clock_ns();
    for (;;) {
        uint32_t seen = atomic_load_explicit(word, memory_order_acquire);
        if (reached(seen, target)) {
            return 0;
        }
        int code = check_slice(shm, peer, began_ns);
        if (code < 0) {
            return code;
        }
        nnc_futex_wait(word, seen, UINT64_MAX);
    }
}

/* Wait until a peer's counter is at least target. */
static int wait_for(const struct shm_comm *shm, uint32_t peer, _Atomic uint32_t *word,
                    uint32_t target) {
    for (int spin = 0; spin < SPINS; spin++) {
        if (reached(atomic_load_explicit(word, memory_order_acquire), target)) {
            return 0;
        }
        relax();
    }
    return wait_slowly(shm, peer, word, target);
}

enum word {
    WORD_POSTED,
    WORD_SUMMED,
    WORD_TAKEN,
};

static _Atomic uint32_t *word_of(const struct shm_comm *shm, uint32_t rank, enum word word) {
    struct rank_words *words = words_of(shm, rank);
    switch (word) {
    case WORD_POSTED:
        return &words->posted;
    case WORD_SUMMED:
        return &words->summed;
    case WORD_TAKEN:
        return &words->taken;
    }
    assert(!"no such word");
    return NULL;
}

static int wait_for_peers(const struct shm_comm *shm, enum word word, uint32_t target) {
    for (uint32_t rank = 0; rank < shm->base.ranks; rank++) {
        if (rank == shm->base.rank) {
            continue;
        }
        int code = wait_for(shm, rank, word_of(shm, rank, word), target);
        if (code < 0) {
            return code;
        }
    }
    return 0;
}

static size_t chunk_floats(const struct run *run, uint32_t chunk) {
    size_t first = (size_t)chunk * CHUNK;
    assert(first < run->count);
    return run->count - first < CHUNK ? run->count - first : CHUNK;
}

/* First float of a rank's part of a chunk; part_begin(.., ranks) is the chunk's end. */
static size_t part_begin(size_t floats, uint32_t rank, uint32_t ranks) {
    if (rank == ranks) {
        return floats;
    }
    size_t begin = floats * rank / ranks;
    return begin - begin % ALIGN_FLOATS;
}

/* Put the parts that others will sum into this rank's staging buffer. */
static int post_chunk(struct shm_comm *shm, const struct run *run, uint32_t chunk) {
    uint32_t number = shm->done + chunk;
    int code = wait_for_peers(shm, WORD_TAKEN, number + 1 - DEPTH);
    if (code < 0) {
        return code;
    }
    size_t floats = chunk_floats(run, chunk);
    size_t begin = part_begin(floats, shm->base.rank, shm->base.ranks);
    size_t end = part_begin(floats, shm->base.rank + 1, shm->base.ranks);
    const float *from = run->values + (size_t)chunk * CHUNK;
    float *to = buffers_of(shm, shm->base.rank)->staging[number % DEPTH];
    memcpy(to, from, begin * sizeof(float));
    memcpy(to + end, from + end, (floats - end) * sizeof(float));
    advance(word_of(shm, shm->base.rank, WORD_POSTED), number + 1);
    return 0;
}

static void add_into(float *restrict sum, const float *restrict values, size_t count) {
    for (size_t i = 0; i < count; i++) {
        sum[i] += values[i];
    }
}

/* Sum this rank's part of the chunk over all ranks, in rank order, in pieces that stay in the
 * first-level cache. */
static int sum_chunk(struct shm_comm *shm, const struct run *run, uint32_t chunk) {
    enum {
        PIECE = 2048
    };
    uint32_t number = shm->done + chunk;
    int code = wait_for_peers(shm, WORD_POSTED, number + 1);
    if (code < 0) {
        return code;
    }
    size_t floats = chunk_floats(run, chunk);
    size_t begin = part_begin(floats, shm->base.rank, shm->base.ranks);
    size_t end = part_begin(floats, shm->base.rank + 1, shm->base.ranks);
    float *own = run->values + (size_t)chunk * CHUNK;
    float *result = buffers_of(shm, shm->base.rank)->result[number % DEPTH];
    for (size_t at = begin; at < end; at += PIECE) {
        size_t count = end - at < PIECE ? end - at : PIECE;
        for (uint32_t rank = 0; rank < shm->base.ranks; rank++) {
            const float *staged = buffers_of(shm, rank)->staging[number % DEPTH];
            const float *from = rank == shm->base.rank ? own : staged;
            if (rank == 0) {
                memcpy(result + at, from + at, count * sizeof(float));
            } else {
                add_into(result + at, from + at, count);
            }
        }
        memcpy(own + at, result + at, count * sizeof(float));
    }
    advance(word_of(shm, shm->base.rank, WORD_SUMMED), number + 1);
    return 0;
}

/* Copy the sums of the other ranks' parts to their place. */
static int take_chunk(struct shm_comm *shm, const struct run *run, uint32_t chunk) {
    uint32_t number = shm->done + chunk;
    size_t floats = chunk_floats(run, chunk);
    float *to = run->values + (size_t)chunk * CHUNK;
    for (uint32_t rank = 0; rank < shm->base.ranks; rank++) {
        if (rank == shm->base.rank) {
            continue;
        }
        int code = wait_for(shm, rank, word_of(shm, rank, WORD_SUMMED), number + 1);
        if (code < 0) {
            return code;
        }
        size_t begin = part_begin(floats, rank, shm->base.ranks);
        size_t end = part_begin(floats, rank + 1, shm->base.ranks);
        const float *from = buffers_of(shm, rank)->result[number % DEPTH];
        memcpy(to + begin, from + begin, (end - begin) * sizeof(float));
    }
    advance(word_of(shm, shm->base.rank, WORD_TAKEN), number + 1);
    return 0;
}

static int run_of(float *values, size_t count, struct run *ret_run) {
    size_t chunks = (count + CHUNK - 1) / CHUNK;
    if (chunks > INT32_MAX / 2) {
        return nnc_fail(-NNC_E_USAGE, "%zu floats are too many for one all-reduce", count);
    }
    *ret_run = (struct run){.values = values, .count = count, .chunks = (uint32_t)chunks};
    return 0;
}

static int shm_allreduce(struct nnc_comm *comm, float *values, size_t count) {
    struct shm_comm *shm = (struct shm_comm *)comm;
    struct run run = {0};
    int code = run_of(values, count, &run);
    for (uint32_t tick = 0; code == 0 && tick < run.chunks + 2 && run.chunks > 0; tick++) {
        if (tick < run.chunks) {
            code = post_chunk(shm, &run, tick);
        }
        if (code == 0 && tick >= 1 && tick - 1 < run.chunks) {
            code = sum_chunk(shm, &run, tick - 1);
        }
        if (code == 0 && tick >= 2) {
            code = take_chunk(shm, &run, tick - 2);
        }
    }
    if (code == 0) {
        shm->done += run.chunks;
    }
    return code;
}

/* Mark a chunk as posted, summed and taken at once, for operations that have fewer stages. */
static void finish_chunk(struct shm_comm *shm, uint32_t number) {
    for (int word = WORD_POSTED; word <= WORD_TAKEN; word++) {
        advance(word_of(shm, shm->base.rank, (enum word)word), number + 1);
    }
}

static int broadcast_chunk(struct shm_comm *shm, const struct run *run, uint32_t chunk) {
    uint32_t number = shm->done + chunk;
    float *values = run->values + (size_t)chunk * CHUNK;
    float *staging = buffers_of(shm, 0)->staging[number % DEPTH];
    size_t bytes = chunk_floats(run, chunk) * sizeof(float);
    int code = 0;
    if (shm->base.rank == 0) {
        code = wait_for_peers(shm, WORD_TAKEN, number + 1 - DEPTH);
        if (code == 0) {
            memcpy(staging, values, bytes);
        }
    } else {
        code = wait_for(shm, 0, word_of(shm, 0, WORD_POSTED), number + 1);
        if (code == 0) {
            memcpy(values, staging, bytes);
        }
    }
    if (code == 0) {
        finish_chunk(shm, number);
    }
    return code;
}

static int shm_broadcast(struct nnc_comm *comm, float *values, size_t count) {
    struct shm_comm *shm = (struct shm_comm *)comm;
    struct run run = {0};
    int code = run_of(values, count, &run);
    for (uint32_t chunk = 0; code == 0 && chunk < run.chunks; chunk++) {
        code = broadcast_chunk(shm, &run, chunk);
    }
    if (code == 0) {
        shm->done += run.chunks;
    }
    return code;
}

/* Blocks alternate between two places. A rank that leaves a gather early may begin the next one and
 * writes the other place; before it writes the same place again, all peers must be through with it.
 */
static int shm_gather(struct nnc_comm *comm, const void *block, size_t bytes, void *ret_blocks) {
    struct shm_comm *shm = (struct shm_comm *)comm;
    uint32_t number = shm->done;
    int code = wait_for_peers(shm, WORD_TAKEN, number - 1);
    if (code < 0) {
        return code;
    }
    memcpy(words_of(shm, comm->rank)->block[number % 2], block, bytes);
    advance(word_of(shm, comm->rank, WORD_POSTED), number + 1);
    code = wait_for_peers(shm, WORD_POSTED, number + 1);
    if (code < 0) {
        return code;
    }
    for (uint32_t rank = 0; rank < comm->ranks; rank++) {
        memcpy((uint8_t *)ret_blocks + rank * bytes, words_of(shm, rank)->block[number % 2], bytes);
    }
    finish_chunk(shm, number);
    shm->done++;
    return 0;
}

static void shm_stop(struct nnc_comm *comm) {
    struct shm_comm *shm = (struct shm_comm *)comm;
    atomic_store_explicit(&control_of(shm)->stop, 1, memory_order_release);
    for (uint32_t rank = 0; rank < comm->ranks; rank++) {
        for (int word = WORD_POSTED; word <= WORD_TAKEN; word++) {
            nnc_futex_wake(word_of(shm, rank, (enum word)word), INT_MAX);
        }
    }
}

static void shm_destroy(struct nnc_comm *comm) {
    struct shm_comm *shm = (struct shm_comm *)comm;
    if (shm->memory != NULL && shm->params.memory == NULL) {
        munmap(shm->memory, shm->bytes);
    }
    free(shm);
}

static const struct nnc_comm_ops shm_ops = {
    .name = "shm",
    .destroy = shm_destroy,
    .allreduce = shm_allreduce,
    .broadcast = shm_broadcast,
    .gather = shm_gather,
    .stop = shm_stop,
    .stopped = shm_stopped,
};

int nnc_comm_shm_create(const struct nnc_comm_params *params, struct nnc_comm **ret_comm) {
    assert(params->ranks <= NNC_MAX_RANKS && params->rank < params->ranks);
    struct shm_comm *shm = calloc(1, sizeof(*shm));
    if (shm == NULL) {
        return nnc_fail(-ENOMEM, "no memory for the communicator");
    }
    shm->base = (struct nnc_comm){&shm_ops, params->rank, params->ranks};
    shm->params = *params;
    shm->bytes = nnc_comm_shm_bytes(params->ranks);
    void *address = params->memory;
    int code = address != NULL ? 0 : nnc_memfd_map(params->fd, shm->bytes, 1, &address);
    if (code < 0) {
        shm_destroy(&shm->base);
        return nnc_fail_in(code, "shared memory of the all-reduce");
    }
    shm->memory = address;
    *ret_comm = &shm->base;
    return 0;
}
