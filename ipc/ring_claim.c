/* SPDX-License-Identifier: Apache-2.0 */
/* The loader's side of the ring: claim a sample, make it, publish it.
 *
 *   claim:    oldest open batch first; cursor as a hint, then a scan; one compare-and-swap takes
 * the sample publish:  result words -> fence -> fetch_or of the done bit -> look whether the batch
 * is complete
 *
 * Invariants:
 *   1. The compare-and-swap names batch and owner: it fails when the slot was given to another
 * batch since seq was read, so a slow loader cannot take a sample of a batch it has not seen.
 *   2. The fetch_or is the only commit point. A loader killed before it has published nothing,
 * killed behind it everything; the wake-up that may be lost then is repaired by the sweep.
 *   3. Behind the fetch_or this loader writes nothing into the slot.
 *
 * Does not retry or wait: the caller sleeps with nnc_ring_wait_work() when there is nothing. */
#include "base/clock.h"
#include "ipc/futex.h"
#include "ipc/ring_private.h"
#include "ipc/ring_steps.h"

#include <errno.h>
#include <stddef.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

/* Take sample `index` of batch `seq`, if it is free. */
static bool try_claim(const struct nnc_ring *ring, uint32_t slot, uint64_t seq, uint32_t index) {
    _Atomic uint64_t *claim = &ring_claims(ring, slot)[index];
    uint64_t free_word = ring_claim_word(seq, 0);
    ring_step(RING_STEP_CLAIM_TRY);
    if (atomic_load_explicit(claim, memory_order_relaxed) != free_word) {
        return false;
    }
    /* Acquire: pairs with the release in nnc_ring_sweep(), whose freed sample this may be. Release:
     * lets the sweep that reads our name see what we saw. */
    bool taken = atomic_compare_exchange_strong_explicit(
        claim, &free_word, ring_claim_word(seq, ring->incarnation), memory_order_acq_rel,
        memory_order_relaxed);
    if (taken) {
        ring_step(RING_STEP_CLAIM_HELD);
    }
    return taken;
}

/* A free sample of batch `seq`, or -1. */
static int64_t find_free(const struct nnc_ring *ring, uint32_t slot, uint64_t seq) {
    struct ring_slot *words = ring_slot(ring, slot);
    uint32_t batch = ring->geometry.batch;
    /* Relaxed: the cursor only says where to try first, the claim word decides. */
    ring_step(RING_STEP_CLAIM_CURSOR);
    while (atomic_load_explicit(&words->cursor, memory_order_relaxed) < batch) {
        uint32_t index = atomic_fetch_add_explicit(&words->cursor, 1, memory_order_relaxed);
        if (index < batch && try_claim(ring, slot, seq, index)) {
            return index;
        }
    }
    /* A used-up hint does not mean used-up work: its taker may have died before it claimed. */
    for (uint32_t index = 0; index < batch; index++) {
        if (try_claim(ring, slot, seq, index)) {
            return index;
        }
    }
    return -1;
}

/* Claim in one slot. `generation` is the work generation from before anything was looked at. */
static bool claim_in_slot(struct nnc_ring *ring, uint32_t slot, uint32_t generation,
                          struct nnc_claim *ret_claim) {
    const struct ring_slot *words = ring_slot(ring, slot);
    struct ring_memo *memo = &ring->memo[slot];
    for (;;) {
        /* Acquire: pairs with the release of seq in nnc_ring_recycle(): claims and bits are reset.
         */
        ring_step(RING_STEP_CLAIM_READ_SEQ);
        uint64_t seq = atomic_load_explicit(&words->seq, memory_order_acquire);
        if (!ring_is_open(ring, slot, seq)) {
            return false;
        }
        if (memo->valid && memo->seq == seq && memo->work_generation == generation) {
            return false;
        }
        int64_t index = find_free(ring, slot, seq);
        if (index >= 0) {
            *ret_claim = (struct nnc_claim){.seq = seq, .slot = slot, .index = (uint32_t)index};
            return true;
        }
        /* Acquire as above: when the slot was recycled under us, its new batch is worth a look. */
        if (atomic_load_explicit(&words->seq, memory_order_acquire) == seq) {
            *memo = (struct ring_memo){.seq = seq, .work_generation = generation, .valid = true};
            return false;
        }
    }
}

/* The slot of the open batch with the lowest number: 1 and *ret_slot; 0 none; -EPIPE all are
 * closed. */
static int find_oldest(const struct nnc_ring *ring, uint32_t *ret_slot) {
    uint32_t closed = 0;
    uint64_t lowest = RING_UNUSED;
    for (uint32_t slot = 0; slot < ring->geometry.slots; slot++) {
        /* Relaxed: only the order of trying depends on it; claim_in_slot() reads it again. */
        uint64_t seq = atomic_load_explicit(&ring_slot(ring, slot)->seq, memory_order_relaxed);
        closed += seq == NNC_RING_CLOSED;
        if (ring_is_open(ring, slot, seq) && seq < lowest) {
            lowest = seq;
            *ret_slot = slot;
        }
    }
    if (closed == ring->geometry.slots) {
        return -EPIPE;
    }
    return lowest < RING_UNUSED ? 1 : 0;
}

int nnc_ring_claim(struct nnc_ring *ring, struct nnc_claim *ret_claim) {
    assert(ring->role == NNC_RING_LOADER && ring->incarnation != 0);
    /* Acquire: pairs with the release in nnc_ring_stop(). */
    if (atomic_load_explicit(&ring_header(ring)->stopped, memory_order_acquire)) {
        return -EPIPE;
    }
    /* Read before looking: a sample put back later changes it and so voids the memos made now. */
    uint32_t generation = nnc_ring_work_generation(ring);
    uint32_t oldest = 0;
    int found = find_oldest(ring, &oldest);
    if (found <= 0) {
        return found;
    }
    /* Batches follow each other slot by slot, so round from the oldest is ascending order. */
    uint32_t slots = ring->geometry.slots;
    for (uint32_t i = 0; i < slots; i++) {
        if (claim_in_slot(ring, (oldest + i) % slots, generation, ret_claim)) {
            return 1;
        }
    }
    return 0;
}

uint8_t *nnc_ring_claim_pixels(const struct nnc_ring *ring, const struct nnc_claim *claim) {
    assert(ring->role == NNC_RING_LOADER);
    assert(claim->index < ring->geometry.batch);
    return ring_data(ring, claim->slot) + claim->index * ring->layout.sample_bytes;
}

/* Non-temporal stores, which the pixels may have been written with, are not ordered by release on
 * x86. */
static void nt_fence(void) {
#if defined(__x86_64__)
    _mm_sfence();
#endif
}

/* As ring_is_complete(), in the one total order of the commits: of two loaders that finish a batch
 * in different words at the same time, at least one sees both bits. */
static bool is_complete_now(const struct nnc_ring *ring, uint32_t slot) {
    const struct ring_slot *words = ring_slot(ring, slot);
    for (size_t word = 0; word < ring->layout.done_words; word++) {
        /* Sequentially consistent: pairs with the fetch_or below in other loaders. */
        if (atomic_load_explicit(&words->done[word], memory_order_seq_cst) != UINT64_MAX) {
            return false;
        }
    }
    return true;
}

void nnc_ring_publish(struct nnc_ring *ring, const struct nnc_claim *claim,
                      const struct nnc_sample_result *result) {
    assert(ring->role == NNC_RING_LOADER);
    uint32_t slot = claim->slot;
    uint32_t index = claim->index;
    assert(index < ring->geometry.batch);
    /* Relaxed: our own word, nobody else changes it while we live. */
    assert(atomic_load_explicit(&ring_claims(ring, slot)[index], memory_order_relaxed) ==
           ring_claim_word(claim->seq, ring->incarnation));
    ring_step(RING_STEP_PUBLISH_RESULT);
    ring_words(ring, slot, ring->layout.label_offset)[index] = (uint32_t)result->label;
    ring_words(ring, slot, ring->layout.number_offset)[index] = result->sample;
    ring_words(ring, slot, ring->layout.status_offset)[index] = result->status;
    nt_fence();
    ring_step(RING_STEP_PUBLISH_COMMIT);
    /* Release part: pairs with the acquire loads in nnc_ring_acquire(). The word is changed by such
     * operations alone since the reset, so the trainer's load of the last value synchronises with
     * every loader that set a bit. */
    uint64_t bit = 1ull << (index % 64);
    uint64_t before = atomic_fetch_or_explicit(&ring_slot(ring, slot)->done[index / 64], bit,
                                               memory_order_seq_cst);
    assert((before & bit) == 0);
    ring_step(RING_STEP_PUBLISH_LOOK);
    if (is_complete_now(ring, slot)) {
        ring_step(RING_STEP_PUBLISH_WAKE);
        ring_wake_trainer(ring);
    }
}

uint32_t nnc_ring_work_generation(const struct nnc_ring *ring) {
    /* Acquire: pairs with the release in ring_wake_loaders(). */
    return atomic_load_explicit(&ring_header(ring)->work_generation, memory_order_acquire);
}

void nnc_ring_wait_work(struct nnc_ring *ring, uint32_t generation) {
    struct nnc_ring *const rings[] = {ring};
    nnc_ring_wait_any(rings, &generation, 1);
}

void nnc_ring_wait_any(struct nnc_ring *const rings[], const uint32_t generations[],
                       unsigned count) {
    assert(count >= 1 && count <= NNC_FUTEX_WORDS_MAX);
    _Atomic uint32_t *words[NNC_FUTEX_WORDS_MAX];
    for (unsigned i = 0; i < count; i++) {
        words[i] = &ring_header(rings[i])->work_generation;
    }
    uint64_t deadline_ns = nnc_clock_ns() + NNC_FUTEX_SLEEP_MAX_NS;
    if (count == 1) {
        nnc_futex_wait(words[0], generations[0], deadline_ns);
    } else {
        nnc_futex_wait_any(words, generations, count, deadline_ns);
    }
    /* Whatever was lost is looked for again after a sleep. */
    for (unsigned i = 0; i < count; i++) {
        for (uint32_t slot = 0; slot < rings[i]->geometry.slots; slot++) {
            rings[i]->memo[slot].valid = false;
        }
    }
}
