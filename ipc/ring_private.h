/* SPDX-License-Identifier: Apache-2.0 */
/* Inside of the ring: where its words lie, for ring*.c and their tests alone.
 *
 * Control memfd, offsets in bytes, every block aligned to 128 (two cache lines: neighbours are
 * fetched in pairs), little endian:
 *
 *   offset          size             meaning                                     written by
 *   0               8                magic                                       coordinator, once
 *   8               4                version of this layout                      coordinator, once
 *   12              4                generation of the process group             coordinator, once
 *   16              8                hash of all offsets below                   coordinator, once
 *   128             4                work generation: "look again, loaders"      trainer,
 * coordinator 256             4                ready generation: "look again, trainer"     loaders,
 * coordinator 384             4                1: stopped coordinator 512 + s*ctl_slot slot s: 0 8
 * seq: batch in the slot, UNUSED or CLOSED    trainer 8             8                seq of the
 * batch last acquired              trainer 128           4                cursor: hint, next sample
 * to try            all 256           8*done_words     done bits loaders set, trainer clears
 *     claim_offset  8*batch          (u32)seq << 32 | incarnation of the owner   all, by
 * compare-and-swap; trainer resets Data memfd, slot s at s*data_slot: 0             batch*sample
 * pixels, u8, each sample aligned to 64       owner of the claim label_offset  4*batch labels, i32
 * owner of the claim number_offset 4*batch          sample numbers, u32 owner of the claim
 *     status_offset 4*batch          enum nnc_sample_status, u32                 owner of the claim
 *
 * All offsets come from the geometry; none is stored. */
#ifndef NNC_IPC_RING_PRIVATE_H
#define NNC_IPC_RING_PRIVATE_H

#include "ipc/ring.h"

#include <assert.h>
#include <stdatomic.h>

#define RING_MAGIC   0x474e495243434e4eull /* "NNCCRING" */
#define RING_VERSION 1u

#define RING_BATCH_MAX 10000u
#define RING_SLOTS_MIN 2u
#define RING_SLOTS_MAX 64u

/* Value of seq in a slot that was never given a batch; NNC_RING_CLOSED in one that gets no more. */
#define RING_UNUSED (UINT64_MAX - 1)

/* Owner of the samples behind a short batch's end. */
#define RING_NOBODY UINT32_MAX

_Static_assert(ATOMIC_LLONG_LOCK_FREE == 2 && sizeof(_Atomic uint64_t) == 8,
               "shared memory needs 64-bit atomics without hidden locks");
_Static_assert(ATOMIC_INT_LOCK_FREE == 2 && sizeof(_Atomic uint32_t) == 4,
               "shared memory needs 32-bit atomics without hidden locks");

struct ring_header {
    uint64_t magic;
    uint32_t version;
    uint32_t generation;
    uint64_t layout_hash;
    _Alignas(128) _Atomic uint32_t work_generation;
    _Alignas(128) _Atomic uint32_t ready_generation;
    _Alignas(128) _Atomic uint32_t stopped;
};
_Static_assert(sizeof(struct ring_header) == 512, "ring header layout");
_Static_assert(offsetof(struct ring_header, work_generation) == 128, "ring header layout");
_Static_assert(offsetof(struct ring_header, ready_generation) == 256, "ring header layout");
_Static_assert(offsetof(struct ring_header, stopped) == 384, "ring header layout");

struct ring_slot {
    _Alignas(128) _Atomic uint64_t seq;
    _Atomic uint64_t taken;
    _Alignas(128) _Atomic uint32_t cursor;
    _Alignas(128) _Atomic uint64_t done[]; /* done_words of the layout, then the claims */
};
_Static_assert(sizeof(struct ring_slot) == 256, "ring slot layout");
_Static_assert(offsetof(struct ring_slot, cursor) == 128, "ring slot layout");
_Static_assert(offsetof(struct ring_slot, done) == 256, "ring slot layout");

/* Computed from the geometry alone; hashed into the header. */
struct ring_layout {
    size_t done_words;
    size_t claim_offset; /* in a control slot */
    size_t ctl_slot_bytes;
    size_t ctl_bytes;
    size_t sample_bytes;
    size_t label_offset; /* in a data slot */
    size_t number_offset;
    size_t status_offset;
    size_t data_slot_bytes;
    size_t data_bytes;
};

/* What the trainer knows about its slots, in its own memory. */
enum ring_use {
    RING_USE_FREE,    /* never used, or released */
    RING_USE_FILLING, /* recycled, loaders at work */
    RING_USE_READING, /* acquired */
    RING_USE_CLOSED,
};

struct ring_slot_note {
    enum ring_use use;
    uint64_t seq;
    uint32_t count;
};

/* A loader's memory of a slot without free samples: not worth a scan while neither changed. */
struct ring_memo {
    uint64_t seq;
    uint32_t work_generation;
    bool valid;
};

struct nnc_ring {
    struct nnc_ring_geometry geometry;
    struct ring_layout layout;
    enum nnc_ring_role role;
    uint32_t incarnation;
    uint8_t *ctl;
    uint8_t *data; /* NULL: not mapped */
    bool is_clone; /* the mappings are another ring's */
    int ctl_fd;    /* coordinator only, else -1 */
    int data_fd;
    struct ring_memo memo[RING_SLOTS_MAX];      /* loader */
    struct ring_slot_note note[RING_SLOTS_MAX]; /* trainer */
    uint32_t *results; /* trainer: private copies per slot of labels, numbers, status */
};

/* The layout of a geometry. Errors: -NNC_E_USAGE impossible geometry or overflow. */
int ring_layout_make(const struct nnc_ring_geometry *geometry, struct ring_layout *ret_layout);

/* Start of the control memfd. */
static inline struct ring_header *ring_header(const struct nnc_ring *ring) {
    return (struct ring_header *)(void *)ring->ctl;
}

/* Control words of a slot; slot < slots (assert). */
static inline struct ring_slot *ring_slot(const struct nnc_ring *ring, uint32_t slot) {
    assert(slot < ring->geometry.slots);
    size_t offset = sizeof(struct ring_header) + slot * ring->layout.ctl_slot_bytes;
    return (struct ring_slot *)(void *)(ring->ctl + offset);
}

/* Claim words of a slot, one a sample. */
static inline _Atomic uint64_t *ring_claims(const struct nnc_ring *ring, uint32_t slot) {
    uint8_t *base = (uint8_t *)ring_slot(ring, slot);
    return (_Atomic uint64_t *)(void *)(base + ring->layout.claim_offset);
}

/* Start of a slot's part of the data memfd. */
static inline uint8_t *ring_data(const struct nnc_ring *ring, uint32_t slot) {
    assert(slot < ring->geometry.slots && ring->data != NULL);
    return ring->data + slot * ring->layout.data_slot_bytes;
}

/* One of the slot's arrays of 32-bit words, at an offset of the layout. */
static inline uint32_t *ring_words(const struct nnc_ring *ring, uint32_t slot, size_t offset) {
    return (uint32_t *)(void *)(ring_data(ring, slot) + offset);
}

/* A claim word: batch and owner; owner 0 is a free sample. */
static inline uint64_t ring_claim_word(uint64_t seq, uint32_t owner) {
    return (uint64_t)(uint32_t)seq << 32 | owner;
}

/* Does a slot's seq name a batch that belongs there? */
static inline bool ring_is_open(const struct nnc_ring *ring, uint32_t slot, uint64_t seq) {
    return seq < RING_UNUSED && seq % ring->geometry.slots == slot;
}

/* Are all samples of the slot done? Acquire loads: pair with the fetch_or in nnc_ring_publish(). */
static inline bool ring_is_complete(const struct nnc_ring *ring, uint32_t slot) {
    const struct ring_slot *words = ring_slot(ring, slot);
    for (size_t word = 0; word < ring->layout.done_words; word++) {
        if (atomic_load_explicit(&words->done[word], memory_order_acquire) != UINT64_MAX) {
            return false;
        }
    }
    return true;
}

/* Tell all loaders, or the trainer, to look again. */
void ring_wake_loaders(const struct nnc_ring *ring);
void ring_wake_trainer(const struct nnc_ring *ring);

#endif
