/* SPDX-License-Identifier: Apache-2.0 */
/* The coordinator's side of the ring: what a dead loader held is put back.
 *
 *   pidfd readable -> waitid (reaped: no instruction of it can run any more) -> sweep
 *
 * Invariants:
 *   1. Only samples whose done bit is clear are put back: a bit is a promise that the sample is
 * complete.
 *   2. The claim is read before the bit and exchanged behind it. When the trainer recycles the slot
 * in between, the claim has changed and the exchange fails.
 *   3. Everybody is woken, whether or not something was put back: the dead loader may have
 * completed a batch and died before it woke the trainer.
 *
 * Does not decide that a loader is dead, and must not be called for one that may still run. */
#include "ipc/ring_private.h"
#include "ipc/ring_steps.h"

/* Is sample `index` claimed by this incarnation and not done? Leaves the claim word. */
static bool is_held(const struct nnc_ring *ring, uint32_t slot, uint32_t index,
                    uint32_t incarnation, uint64_t *ret_word) {
    /* Acquire: pairs with the release part of the loader's compare-and-swap. */
    ring_step(RING_STEP_SWEEP_CLAIM);
    uint64_t word = atomic_load_explicit(&ring_claims(ring, slot)[index], memory_order_acquire);
    if ((uint32_t)word != incarnation) {
        return false;
    }
    /* Acquire: pairs with the fetch_or in publish and with the release store in nnc_ring_recycle().
     */
    ring_step(RING_STEP_SWEEP_DONE);
    uint64_t done =
        atomic_load_explicit(&ring_slot(ring, slot)->done[index / 64], memory_order_acquire);
    if (done >> (index % 64) & 1) {
        return false;
    }
    *ret_word = word;
    return true;
}

static unsigned sweep_slot(struct nnc_ring *ring, uint32_t slot, uint32_t incarnation) {
    unsigned freed = 0;
    for (uint32_t index = 0; index < ring->geometry.batch; index++) {
        uint64_t word;
        if (!is_held(ring, slot, index, incarnation, &word)) {
            continue;
        }
        ring_step(RING_STEP_SWEEP_FREE);
        /* Release: pairs with the acquire of the loader that claims the sample next. */
        freed += atomic_compare_exchange_strong_explicit(
            &ring_claims(ring, slot)[index], &word, word & ~(uint64_t)UINT32_MAX,
            memory_order_release, memory_order_relaxed);
    }
    if (freed > 0) {
        /* Relaxed: a hint. */
        atomic_store_explicit(&ring_slot(ring, slot)->cursor, 0, memory_order_relaxed);
    }
    return freed;
}

unsigned nnc_ring_sweep(struct nnc_ring *ring, uint32_t incarnation) {
    assert(ring->role == NNC_RING_COORDINATOR);
    assert(incarnation != 0 && incarnation != RING_NOBODY);
    unsigned freed = 0;
    for (uint32_t slot = 0; slot < ring->geometry.slots; slot++) {
        freed += sweep_slot(ring, slot, incarnation);
    }
    ring_step(RING_STEP_SWEEP_WAKE);
    ring_wake_loaders(ring);
    ring_wake_trainer(ring);
    return freed;
}

int nnc_ring_find_claim(const struct nnc_ring *ring, uint32_t incarnation,
                        struct nnc_claim *ret_claim) {
    assert(incarnation != 0 && incarnation != RING_NOBODY);
    for (uint32_t slot = 0; slot < ring->geometry.slots; slot++) {
        /* Acquire: pairs with the release of seq in nnc_ring_recycle(). */
        uint64_t seq = atomic_load_explicit(&ring_slot(ring, slot)->seq, memory_order_acquire);
        for (uint32_t index = 0; index < ring->geometry.batch; index++) {
            uint64_t word;
            if (!is_held(ring, slot, index, incarnation, &word)) {
                continue;
            }
            /* Again, behind the acquire of the done word: when the slot was recycled in between,
             * the clear bit is the next batch's and the claim has changed. */
            uint64_t now =
                atomic_load_explicit(&ring_claims(ring, slot)[index], memory_order_relaxed);
            if (now == word && ring_is_open(ring, slot, seq) &&
                ring_claim_word(seq, incarnation) == word) {
                *ret_claim = (struct nnc_claim){.seq = seq, .slot = slot, .index = index};
                return 1;
            }
        }
    }
    return 0;
}
