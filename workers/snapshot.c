/* SPDX-License-Identifier: Apache-2.0 */
/* Two halves, each a header page and the tensors. The writer makes the half's sequence number odd,
 * fills it and makes it even again: a reader that saw an even number, and the same one after
 * reading, and whose bytes have the stored hash, has a whole snapshot. A writer killed in the
 * middle leaves an odd number; the other half is untouched.
 *
 * Bytes of a half (offset, size, meaning):
 *   0     8     magic
 *   8     4     version
 *   12    4     sequence: 0 never written, odd while being written
 *   16    8     bytes of the tensors
 *   24    8     XXH3-64 of the tensors
 *   32    8     XXH3-64 of bytes 16..32 and the state
 *   40    3656  struct nnc_train_state
 *   8188  4     holder: 0 nobody, ~0 the writer, else the pid of the saver that reads
 *   8192  ...   tensors, fp32: see nnc_state_floats()
 *
 * Invariants:
 *   1. Only rank 0 of the living generation writes; savers and restarted trainers read.
 *   2. A half that a living saver holds is not written; then the other one is, though it was not
 * saved. A holder that died is recognised by its pid: nobody waits for the dead.
 *   3. Whatever is read is input: numbers are copied once and checked, tensors are hashed.
 *
 * It does not know files (saver.c) or when to take a snapshot (train.c).
 *
 * Source: seqlock as in Boehm, "Can seqlocks get along with programming language memory models?",
 * MSPC 2012. */
#include "workers/snapshot.h"

#include "base/checked.h"
#include "base/clock.h"
#include "base/err.h"

#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#define SNAPSHOT_MAGIC   0x50414e5343434e4eull /* "NNCCSNAP" */
#define SNAPSHOT_VERSION 1u
#define HEADER_BYTES     8192

struct snapshot_header {
    uint64_t magic;
    uint32_t version;
    _Atomic uint32_t sequence;
    uint64_t tensor_bytes;
    uint64_t tensor_hash;
    uint64_t header_hash;
    struct nnc_train_state state;
    uint8_t unused[HEADER_BYTES - 44 - sizeof(struct nnc_train_state)];
    _Atomic uint32_t holder;
};
_Static_assert(offsetof(struct snapshot_header, state) == 40, "layout");
_Static_assert(offsetof(struct snapshot_header, holder) == HEADER_BYTES - 4, "layout");
_Static_assert(sizeof(struct snapshot_header) == HEADER_BYTES, "header is its pages");

#define HELD_BY_WRITER UINT32_MAX

static int half_bytes_of(const struct nnc_graph *graph, size_t *ret_floats, size_t *ret_bytes) {
    size_t floats = 0, bytes = 0;
    int code = nnc_state_floats(graph, &floats);
    if (code < 0) {
        return code;
    }
    if (nnc_size_mul(floats, sizeof(float), &bytes) || nnc_size_add(bytes, HEADER_BYTES, &bytes) ||
        nnc_size_round_up(bytes, 4096, &bytes)) {
        return nnc_fail(-EOVERFLOW, "the snapshot of %s does not fit memory", graph->name);
    }
    *ret_floats = floats;
    *ret_bytes = bytes;
    return 0;
}

int nnc_snapshot_bytes(const struct nnc_graph *graph, size_t *ret_bytes) {
    size_t floats = 0, bytes = 0;
    int code = half_bytes_of(graph, &floats, &bytes);
    if (code < 0) {
        return code;
    }
    if (nnc_size_mul(bytes, 2, &bytes)) {
        return nnc_fail(-EOVERFLOW, "the snapshots of %s do not fit memory", graph->name);
    }
    *ret_bytes = bytes;
    return 0;
}

int nnc_snapshot_attach(const struct nnc_graph *graph, void *memory, size_t bytes,
                        struct nnc_snapshot *ret_snapshot) {
    assert(memory != NULL);
    size_t floats = 0, half_bytes = 0;
    int code = half_bytes_of(graph, &floats, &half_bytes);
    if (code < 0) {
        return code;
    }
    if (bytes != 2 * half_bytes) {
        return nnc_fail(-NNC_E_FORMAT, "snapshot memory has %zu bytes, model %s needs %zu", bytes,
                        graph->name, 2 * half_bytes);
    }
    *ret_snapshot =
        (struct nnc_snapshot){.memory = memory, .half_bytes = half_bytes, .floats = floats};
    return 0;
}

static struct snapshot_header *header_of(const struct nnc_snapshot *snapshot, uint32_t half) {
    assert(half < 2);
    assert(snapshot->memory != NULL);
    return (struct snapshot_header *)(void *)(snapshot->memory + half * snapshot->half_bytes);
}

static float *tensors_of(const struct nnc_snapshot *snapshot, uint32_t half) {
    return (float *)(void *)((uint8_t *)header_of(snapshot, half) + HEADER_BYTES);
}

static uint64_t header_hash(uint64_t tensor_bytes, uint64_t tensor_hash,
                            const struct nnc_train_state *state) {
    uint64_t seed = XXH3_64bits(state, sizeof(*state));
    const uint64_t words[2] = {tensor_bytes, tensor_hash};
    return XXH3_64bits_withSeed(words, sizeof(words), seed);
}

/* Make the writer the holder. 0, or -EBUSY while a living saver reads the half. */
static int take_for_writing(const struct nnc_snapshot *snapshot, uint32_t half) {
    _Atomic uint32_t *holder = &header_of(snapshot, half)->holder;
    uint32_t found = atomic_load_explicit(holder, memory_order_acquire);
    bool is_free =
        found == 0 || found == HELD_BY_WRITER || (kill((pid_t)found, 0) < 0 && errno == ESRCH);
    /* Acquire: pairs with the release in let_go; the saver's reads are over. */
    if (!is_free ||
        !atomic_compare_exchange_strong_explicit(holder, &found, HELD_BY_WRITER,
                                                 memory_order_acq_rel, memory_order_relaxed)) {
        return -EBUSY;
    }
    return 0;
}

uint32_t nnc_snapshot_choose(const struct nnc_snapshot *snapshot, uint32_t preferred) {
    assert(preferred < 2);
    for (uint32_t half = preferred;; half = 1 - half) {
        if (take_for_writing(snapshot, half) == 0) {
            return half;
        }
        /* Both only for an instant: one saver lives at a time and lets go of one half first. */
        nnc_clock_sleep_ns(half == preferred ? 0 : 1000000);
    }
}

int nnc_snapshot_hold(const struct nnc_snapshot *snapshot, uint32_t half, int timeout_ms) {
    _Atomic uint32_t *holder = &header_of(snapshot, half)->holder;
    uint64_t deadline_ns = nnc_clock_ns() + (uint64_t)timeout_ms * 1000000u;
    for (;;) {
        uint32_t found = atomic_load_explicit(holder, memory_order_relaxed);
        bool is_writer = found == HELD_BY_WRITER;
        /* Acquire: pairs with the release in commit. A pid here is a dead saver's. */
        if (!is_writer &&
            atomic_compare_exchange_strong_explicit(holder, &found, (uint32_t)getpid(),
                                                    memory_order_acq_rel, memory_order_relaxed)) {
            return 0;
        }
        if (nnc_clock_ns() >= deadline_ns) {
            return nnc_fail(-EBUSY, "snapshot half %u was left half-written", half);
        }
        nnc_clock_sleep_ns(2000000);
    }
}

void nnc_snapshot_let_go(const struct nnc_snapshot *snapshot, uint32_t half) {
    uint32_t own = (uint32_t)getpid();
    /* Release: pairs with the acquire in take_for_writing(). */
    atomic_compare_exchange_strong_explicit(&header_of(snapshot, half)->holder, &own, 0,
                                            memory_order_acq_rel, memory_order_relaxed);
}

float *nnc_snapshot_begin(const struct nnc_snapshot *snapshot, uint32_t half) {
    struct snapshot_header *header = header_of(snapshot, half);
    uint32_t sequence = atomic_load_explicit(&header->sequence, memory_order_relaxed);
    /* A half left odd by a killed writer stays odd: + 2 keeps readers of the old number out. */
    uint32_t odd = sequence % 2 == 1 ? sequence + 2 : sequence + 1;
    atomic_store_explicit(&header->sequence, odd, memory_order_relaxed);
    /* The tensors must not be written before the odd number is seen; pairs with the fence in look.
     */
    atomic_thread_fence(memory_order_seq_cst);
    header->magic = SNAPSHOT_MAGIC;
    header->version = SNAPSHOT_VERSION;
    return tensors_of(snapshot, half);
}

uint64_t nnc_snapshot_commit(const struct nnc_snapshot *snapshot, uint32_t half,
                             const struct nnc_train_state *state) {
    struct snapshot_header *header = header_of(snapshot, half);
    uint32_t sequence = atomic_load_explicit(&header->sequence, memory_order_relaxed);
    assert(sequence % 2 == 1);
    header->tensor_bytes = snapshot->floats * sizeof(float);
    header->tensor_hash = XXH3_64bits(tensors_of(snapshot, half), header->tensor_bytes);
    header->state = *state;
    header->header_hash = header_hash(header->tensor_bytes, header->tensor_hash, state);
    uint64_t hash = header->tensor_hash;
    /* Pairs with the acquire load in look. */
    atomic_store_explicit(&header->sequence, sequence + 1, memory_order_release);
    /* Release: pairs with the acquire in hold. */
    atomic_store_explicit(&header->holder, 0, memory_order_release);
    return hash;
}

int nnc_snapshot_look(const struct nnc_snapshot *snapshot, uint32_t half,
                      struct nnc_snapshot_info *ret_info) {
    struct snapshot_header *header = header_of(snapshot, half);
    uint32_t sequence = atomic_load_explicit(&header->sequence, memory_order_acquire);
    if (sequence == 0 || sequence % 2 == 1) {
        return nnc_fail(-NNC_E_FORMAT, "snapshot half %u is %s", half,
                        sequence == 0 ? "empty" : "incomplete");
    }
    struct snapshot_header copy;
    memcpy(&copy, header, offsetof(struct snapshot_header, unused));
    if (copy.magic != SNAPSHOT_MAGIC || copy.version != SNAPSHOT_VERSION ||
        copy.tensor_bytes != snapshot->floats * sizeof(float) ||
        copy.header_hash != header_hash(copy.tensor_bytes, copy.tensor_hash, &copy.state)) {
        return nnc_fail(-NNC_E_FORMAT, "snapshot half %u is damaged or of another model", half);
    }
    if (copy.state.ranks == 0 || copy.state.ranks > NNC_MAX_RANKS) {
        return nnc_fail(-NNC_E_FORMAT, "snapshot half %u names %u ranks", half, copy.state.ranks);
    }
    *ret_info = (struct nnc_snapshot_info){
        .sequence = sequence, .hash = copy.tensor_hash, .state = copy.state};
    return 0;
}

const float *nnc_snapshot_tensors(const struct nnc_snapshot *snapshot, uint32_t half) {
    return tensors_of(snapshot, half);
}

int nnc_snapshot_confirm(const struct nnc_snapshot *snapshot, uint32_t half,
                         const struct nnc_snapshot_info *info, uint64_t hash) {
    /* Reads of the tensors come before the second look at the number. */
    atomic_thread_fence(memory_order_seq_cst);
    uint32_t sequence =
        atomic_load_explicit(&header_of(snapshot, half)->sequence, memory_order_acquire);
    if (sequence != info->sequence) {
        return nnc_fail(-NNC_E_FORMAT, "snapshot half %u was overwritten while it was read", half);
    }
    if (hash != info->hash) {
        return nnc_fail(-NNC_E_FORMAT,
                        "snapshot half %u: its tensors have hash %016llx, not %016llx", half,
                        (unsigned long long)hash, (unsigned long long)info->hash);
    }
    return 0;
}

int nnc_snapshot_verify(const struct nnc_snapshot *snapshot, uint32_t half,
                        struct nnc_snapshot_info *ret_info) {
    struct nnc_snapshot_info info;
    int code = nnc_snapshot_look(snapshot, half, &info);
    if (code < 0) {
        return code;
    }
    const float *tensors = nnc_snapshot_tensors(snapshot, half);
    uint64_t hash = XXH3_64bits(tensors, snapshot->floats * sizeof(float));
    code = nnc_snapshot_confirm(snapshot, half, &info, hash);
    if (code == 0) {
        *ret_info = info;
    }
    return code;
}

static bool is_behind(const struct nnc_train_state *state, const struct nnc_train_state *other) {
    return state->epoch != other->epoch ? state->epoch < other->epoch : state->step < other->step;
}

int nnc_snapshot_newest(const struct nnc_snapshot *snapshot, uint32_t *ret_half,
                        struct nnc_snapshot_info *ret_info) {
    struct nnc_snapshot_info info[2];
    bool whole[2];
    for (uint32_t half = 0; half < 2; half++) {
        whole[half] = nnc_snapshot_verify(snapshot, half, &info[half]) == 0;
    }
    if (!whole[0] && !whole[1]) {
        return nnc_fail(-NNC_E_FORMAT, "there is no whole snapshot in memory");
    }
    uint32_t half = !whole[0] || (whole[1] && is_behind(&info[0].state, &info[1].state)) ? 1 : 0;
    *ret_half = half;
    *ret_info = info[half];
    return 0;
}
