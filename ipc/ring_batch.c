/* SPDX-License-Identifier: Apache-2.0 */
/* The trainer's side of the ring: give slots to batches, take complete batches, give them back.
 *
 *   slot in the trainer's notes:  FREE -recycle-> FILLING -acquire-> READING -release-> FREE
 *                                 FREE -close_slot-> CLOSED
 *
 * Invariants:
 *   1. Recycling resets claims, then done bits, then publishes seq. Claims come first: a sweep that
 * sees a cleared bit of the next batch must find that the claim has changed too, else it would free
 * a finished sample of the previous batch and a slow loader could take it.
 *   2. Pixels are read in place; labels, numbers and status are copied once into private memory and
 *      checked there, so nobody can change them after the check.
 *   3. No loader writes a slot between the last done bit and the next seq: all its samples are
 * published.
 *
 * Does not check labels against the number of classes; the caller knows it. */
#include "base/clock.h"
#include "base/err.h"
#include "ipc/futex.h"
#include "ipc/ring_private.h"
#include "ipc/ring_steps.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#define NS_PER_MS 1000000ull

static struct ring_slot_note *note_of(struct nnc_ring *ring, uint64_t seq) {
    assert(ring->role == NNC_RING_TRAINER && seq < RING_UNUSED);
    return &ring->note[seq % ring->geometry.slots];
}

/* Bits of done word `word` that no loader will set, because the batch has only `count` samples. */
static uint64_t preset_bits(size_t word, uint32_t count) {
    size_t first = word * 64;
    if (count <= first) {
        return UINT64_MAX;
    }
    return count - first >= 64 ? 0 : UINT64_MAX << (count - first);
}

void nnc_ring_recycle(struct nnc_ring *ring, uint64_t seq, uint32_t count) {
    struct ring_slot_note *note = note_of(ring, seq);
    assert(note->use == RING_USE_FREE);
    assert(count <= ring->geometry.batch);
    uint32_t slot = (uint32_t)(seq % ring->geometry.slots);
    struct ring_slot *words = ring_slot(ring, slot);
    _Atomic uint64_t *claims = ring_claims(ring, slot);
    for (uint32_t i = 0; i < ring->geometry.batch; i++) {
        ring_step(RING_STEP_RECYCLE_CLAIM);
        uint64_t word = ring_claim_word(seq, i < count ? 0 : RING_NOBODY);
        atomic_store_explicit(&claims[i], word, memory_order_relaxed);
    }
    for (size_t i = 0; i < ring->layout.done_words; i++) {
        ring_step(RING_STEP_RECYCLE_DONE);
        /* Release: pairs with the acquire of the done word in the sweep, which then sees the new
         * claims. */
        atomic_store_explicit(&words->done[i], preset_bits(i, count), memory_order_release);
    }
    atomic_store_explicit(&words->cursor, 0, memory_order_relaxed);
    ring_step(RING_STEP_RECYCLE_SEQ);
    /* Release: pairs with the acquire in nnc_ring_claim(); publishes the reset and, to the next
     * writers of the pixels, that our reads are over. */
    atomic_store_explicit(&words->seq, seq, memory_order_release);
    *note = (struct ring_slot_note){.use = RING_USE_FILLING, .seq = seq, .count = count};
    ring_step(RING_STEP_RECYCLE_WAKE);
    ring_wake_loaders(ring);
}

void nnc_ring_close_slot(struct nnc_ring *ring, uint64_t seq) {
    struct ring_slot_note *note = note_of(ring, seq);
    assert(note->use == RING_USE_FREE || note->use == RING_USE_CLOSED);
    uint32_t slot = (uint32_t)(seq % ring->geometry.slots);
    note->use = RING_USE_CLOSED;
    /* Release: pairs with the acquire in nnc_ring_claim(). */
    atomic_store_explicit(&ring_slot(ring, slot)->seq, NNC_RING_CLOSED, memory_order_release);
    ring_wake_loaders(ring);
}

/* Private copies of a slot's result arrays. */
struct result_copy {
    uint32_t *labels, *numbers, *status;
};

static struct result_copy copy_results(const struct nnc_ring *ring, uint32_t slot, uint32_t count) {
    size_t batch = ring->geometry.batch;
    uint32_t *base = ring->results + 3 * batch * slot;
    struct result_copy copy = {base, base + batch, base + 2 * batch};
    const struct ring_layout *layout = &ring->layout;
    size_t bytes = count * sizeof(uint32_t);
    memcpy(copy.labels, ring_words(ring, slot, layout->label_offset), bytes);
    memcpy(copy.numbers, ring_words(ring, slot, layout->number_offset), bytes);
    memcpy(copy.status, ring_words(ring, slot, layout->status_offset), bytes);
    return copy;
}

/* Another process wrote these words: anything can be in them. */
static int check_results(const struct result_copy *copy, uint64_t seq, uint32_t count) {
    for (uint32_t i = 0; i < count; i++) {
        uint32_t status = copy->status[i];
        int32_t label = (int32_t)copy->labels[i];
        bool known = status >= NNC_SAMPLE_OK && status <= NNC_SAMPLE_BAD;
        if (!known || label < -1 || (status == NNC_SAMPLE_BAD && label != -1)) {
            return nnc_fail(-EBADMSG,
                            "ring: batch %" PRIu64 " sample %" PRIu32 ": status %" PRIu32
                            " with label %" PRId32 "; a loader has spoilt its memory",
                            seq, i, status, label);
        }
    }
    return 0;
}

/* Complete: make the caller's view. */
static int take_batch(struct nnc_ring *ring, struct ring_slot_note *note,
                      struct nnc_batch *ret_batch) {
    uint32_t slot = (uint32_t)(note->seq % ring->geometry.slots);
    ring_step(RING_STEP_ACQUIRE_TAKE);
    struct result_copy copy = copy_results(ring, slot, note->count);
    int code = check_results(&copy, note->seq, note->count);
    if (code < 0) {
        return code;
    }
    note->use = RING_USE_READING;
    /* Relaxed: only statistics read it. */
    atomic_store_explicit(&ring_slot(ring, slot)->taken, note->seq, memory_order_relaxed);
    *ret_batch = (struct nnc_batch){
        .seq = note->seq,
        .count = note->count,
        .images = ring_data(ring, slot),
        .sample_bytes = ring->layout.sample_bytes,
        .labels = (const int32_t *)copy.labels,
        .samples = copy.numbers,
        .status = copy.status,
    };
    return 0;
}

int nnc_ring_acquire(struct nnc_ring *ring, uint64_t seq, int timeout_ms,
                     struct nnc_batch *ret_batch) {
    struct ring_slot_note *note = note_of(ring, seq);
    assert(note->use == RING_USE_FILLING && note->seq == seq);
    assert(timeout_ms >= 0);
    struct ring_header *header = ring_header(ring);
    uint64_t deadline_ns = nnc_clock_ns() + (uint64_t)timeout_ms * NS_PER_MS;
    for (;;) {
        /* Acquire: pairs with the release in nnc_ring_stop(). */
        if (atomic_load_explicit(&header->stopped, memory_order_acquire)) {
            return nnc_fail(-EPIPE, "ring: stopped while batch %" PRIu64 " was waited for", seq);
        }
        /* Acquire, before looking: pairs with the release in ring_wake_trainer(); a batch completed
         * after the look changes it and ends the sleep. */
        uint32_t generation = atomic_load_explicit(&header->ready_generation, memory_order_acquire);
        ring_step(RING_STEP_ACQUIRE_LOOK);
        if (ring_is_complete(ring, (uint32_t)(seq % ring->geometry.slots))) {
            return take_batch(ring, note, ret_batch);
        }
        if (nnc_clock_ns() >= deadline_ns) {
            return nnc_fail(-ETIMEDOUT, "ring: batch %" PRIu64 " is not complete after %d ms", seq,
                            timeout_ms);
        }
        nnc_futex_wait(&header->ready_generation, generation, deadline_ns);
    }
}

void nnc_ring_release(struct nnc_ring *ring, uint64_t seq) {
    struct ring_slot_note *note = note_of(ring, seq);
    assert(note->use == RING_USE_READING && note->seq == seq);
    note->use = RING_USE_FREE;
}
