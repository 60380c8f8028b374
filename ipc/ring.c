/* SPDX-License-Identifier: Apache-2.0 */
/* Life of a ring: layout, create, attach, stop, and the two words that processes sleep on.
 *
 *        loaders                    slot                      trainer
 *   nnc_ring_claim    ------->  FREE samples   <-------  nnc_ring_recycle
 *   nnc_ring_publish  ------->  DONE samples   ------->  nnc_ring_acquire, nnc_ring_release
 *        coordinator, after reaping a loader:  nnc_ring_sweep: CLAIMED -> FREE
 *
 * ring_claim.c is the loader's side, ring_batch.c the trainer's, ring_sweep.c the coordinator's;
 * ring_private.h has the table of all bytes.
 *
 * Invariants of the whole:
 *   1. A sample's done bit is set only by the owner of its claim, once per batch; a batch is
 * delivered when all its bits are set, and its slot is reset only by the trainer, later.
 *   2. A claim changes hands only after its owner was reaped and only while its done bit is clear.
 *   3. Generations, cursors and wake-ups are hints: a killed process may lose one, every sleep ends
 * after 100 ms, and the state is derived again from claims and bits.
 *   4. No address comes out of shared memory: a hostile loader can spoil pixels, nothing else.
 *
 * Does not know what a batch means (ipc/schedule.h) or what is in a sample.
 *
 * Source: docs/memory.md. */
#include "ipc/ring.h"

#include "base/checked.h"
#include "base/clock.h"
#include "base/err.h"
#include "ipc/futex.h"
#include "ipc/memfd.h"
#include "ipc/ring_private.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <xxhash.h>

#define BLOCK_BYTES  128
#define SAMPLE_ALIGN 64
#define PAGE_BYTES   4096

static int check_geometry(const struct nnc_ring_geometry *geometry) {
    if (geometry->batch < 1 || geometry->batch > RING_BATCH_MAX) {
        return nnc_fail(-NNC_E_USAGE, "ring: batches of %" PRIu32 " samples; 1 to %u are possible",
                        geometry->batch, RING_BATCH_MAX);
    }
    if (geometry->slots < RING_SLOTS_MIN || geometry->slots > RING_SLOTS_MAX) {
        return nnc_fail(-NNC_E_USAGE, "ring: %" PRIu32 " slots; %u to %u are possible",
                        geometry->slots, RING_SLOTS_MIN, RING_SLOTS_MAX);
    }
    if (geometry->height < 1 || geometry->width < 1 ||
        (geometry->channels != 1 && geometry->channels != 3)) {
        return nnc_fail(-NNC_E_USAGE,
                        "ring: samples of %" PRIu32 "x%" PRIu32 "x%" PRIu32
                        " (height, width, channels) are not possible",
                        geometry->height, geometry->width, geometry->channels);
    }
    return 0;
}

/* Append a table of count * each bytes at *end, in whole blocks; true on overflow. */
static bool append(size_t *end, size_t count, size_t each) {
    size_t bytes, sum;
    if (nnc_size_mul(count, each, &bytes) || nnc_size_add(*end, bytes, &sum)) {
        return true;
    }
    return nnc_size_round_up(sum, BLOCK_BYTES, end);
}

static bool make_ctl(const struct nnc_ring_geometry *geometry, struct ring_layout *layout) {
    layout->done_words = (geometry->batch + 63) / 64;
    size_t end = sizeof(struct ring_slot);
    bool wraps = append(&end, layout->done_words, sizeof(uint64_t));
    layout->claim_offset = end;
    wraps = wraps || append(&end, geometry->batch, sizeof(uint64_t));
    layout->ctl_slot_bytes = end;
    layout->ctl_bytes = sizeof(struct ring_header);
    return wraps || append(&layout->ctl_bytes, geometry->slots, layout->ctl_slot_bytes);
}

static bool make_data(const struct nnc_ring_geometry *geometry, struct ring_layout *layout) {
    size_t pixels, bytes;
    if (nnc_size_mul(geometry->height, geometry->width, &pixels) ||
        nnc_size_mul(pixels, geometry->channels, &bytes) ||
        nnc_size_round_up(bytes, SAMPLE_ALIGN, &layout->sample_bytes)) {
        return true;
    }
    size_t end = 0;
    bool wraps = append(&end, geometry->batch, layout->sample_bytes);
    layout->label_offset = end;
    wraps = wraps || append(&end, geometry->batch, sizeof(int32_t));
    layout->number_offset = end;
    wraps = wraps || append(&end, geometry->batch, sizeof(uint32_t));
    layout->status_offset = end;
    wraps = wraps || append(&end, geometry->batch, sizeof(uint32_t));
    wraps = wraps || nnc_size_round_up(end, PAGE_BYTES, &layout->data_slot_bytes);
    layout->data_bytes = 0;
    return wraps || append(&layout->data_bytes, geometry->slots, layout->data_slot_bytes) ||
           layout->data_bytes > INT64_MAX;
}

int ring_layout_make(const struct nnc_ring_geometry *geometry, struct ring_layout *ret_layout) {
    int code = check_geometry(geometry);
    if (code < 0) {
        return code;
    }
    struct ring_layout layout = {0};
    if (make_ctl(geometry, &layout) || make_data(geometry, &layout)) {
        return nnc_fail(-NNC_E_USAGE,
                        "ring: %" PRIu32 " batches of %" PRIu32 " samples of %" PRIu32 "x%" PRIu32
                        " do not fit any memory",
                        geometry->slots, geometry->batch, geometry->height, geometry->width);
    }
    *ret_layout = layout;
    return 0;
}

int nnc_ring_bytes(const struct nnc_ring_geometry *geometry, size_t *ret_ctl_bytes,
                   size_t *ret_data_bytes) {
    struct ring_layout layout;
    int code = ring_layout_make(geometry, &layout);
    if (code < 0) {
        return code;
    }
    *ret_ctl_bytes = layout.ctl_bytes;
    *ret_data_bytes = layout.data_bytes;
    return 0;
}

/* Differs between any two geometries and between builds that lay the same geometry out differently.
 */
static uint64_t layout_hash(const struct nnc_ring *ring) {
    uint64_t seed = XXH3_64bits(&ring->geometry, sizeof(ring->geometry));
    return XXH3_64bits_withSeed(&ring->layout, sizeof(ring->layout), seed);
}

static int make_ring(const struct nnc_ring_geometry *geometry, enum nnc_ring_role role,
                     struct nnc_ring **ret_ring) {
    struct ring_layout layout;
    int code = ring_layout_make(geometry, &layout);
    if (code < 0) {
        return code;
    }
    struct nnc_ring *ring = calloc(1, sizeof(*ring));
    if (ring == NULL) {
        return nnc_fail(-ENOMEM, "ring: no memory");
    }
    ring->geometry = *geometry;
    ring->layout = layout;
    ring->role = role;
    ring->ctl_fd = -1;
    ring->data_fd = -1;
    if (role == NNC_RING_TRAINER) {
        ring->results = calloc((size_t)geometry->slots * geometry->batch, 3 * sizeof(uint32_t));
        if (ring->results == NULL) {
            nnc_ring_destroy(ring);
            return nnc_fail(-ENOMEM, "ring: no memory for results");
        }
    }
    *ret_ring = ring;
    return 0;
}

static int map_region(int fd, size_t bytes, int writable, uint8_t **ret_base) {
    void *address;
    int code = nnc_memfd_map(fd, bytes, writable, &address);
    if (code < 0) {
        return code;
    }
    *ret_base = address;
    return 0;
}

/* First contents of the control memfd; nobody else can see it yet. */
static void write_header(struct nnc_ring *ring, uint32_t generation) {
    struct ring_header *header = ring_header(ring);
    header->magic = RING_MAGIC;
    header->version = RING_VERSION;
    header->generation = generation;
    header->layout_hash = layout_hash(ring);
    for (uint32_t slot = 0; slot < ring->geometry.slots; slot++) {
        struct ring_slot *words = ring_slot(ring, slot);
        atomic_init(&words->seq, RING_UNUSED);
        atomic_init(&words->taken, RING_UNUSED);
    }
}

static int check_header(const struct nnc_ring *ring, uint32_t generation) {
    const struct ring_header *header = ring_header(ring);
    if (header->magic != RING_MAGIC || header->version != RING_VERSION) {
        return nnc_fail(-NNC_E_FORMAT, "ring: this is no ring of version %u", RING_VERSION);
    }
    if (header->generation != generation) {
        return nnc_fail(-NNC_E_FORMAT, "ring: generation %" PRIu32 " instead of %" PRIu32,
                        header->generation, generation);
    }
    if (header->layout_hash != layout_hash(ring)) {
        return nnc_fail(-NNC_E_FORMAT,
                        "ring: layout hash differs; coordinator and children are different builds");
    }
    return 0;
}

int nnc_ring_create(const struct nnc_ring_geometry *geometry, uint32_t generation,
                    const char *shm_dir, struct nnc_ring **ret_ring) {
    struct nnc_ring *ring = NULL;
    int code = make_ring(geometry, NNC_RING_COORDINATOR, &ring);
    if (code < 0) {
        goto out;
    }
    code = nnc_memfd_create("ring-ctl", ring->layout.ctl_bytes, NNC_MEMFD_SHARED, NULL, shm_dir,
                            &ring->ctl_fd);
    if (code < 0) {
        goto out;
    }
    code = nnc_memfd_create("ring-data", ring->layout.data_bytes, NNC_MEMFD_SHARED, NULL, shm_dir,
                            &ring->data_fd);
    if (code < 0) {
        goto out;
    }
    code = map_region(ring->ctl_fd, ring->layout.ctl_bytes, 1, &ring->ctl);
    if (code < 0) {
        goto out;
    }
    write_header(ring, generation);
    *ret_ring = ring;
    ring = NULL;
out:
    nnc_ring_destroy(ring);
    return code;
}

int nnc_ring_ctl_fd(const struct nnc_ring *ring) {
    return ring->ctl_fd;
}

int nnc_ring_data_fd(const struct nnc_ring *ring) {
    return ring->data_fd;
}

void nnc_ring_pixels(const struct nnc_ring *ring, void **ret_memory, size_t *ret_bytes) {
    assert(ring->data != NULL);
    *ret_memory = ring->data;
    *ret_bytes = ring->layout.data_bytes;
}

int nnc_ring_attach(const struct nnc_ring_geometry *geometry, enum nnc_ring_role role, int ctl_fd,
                    int data_fd, uint32_t generation, uint32_t incarnation,
                    struct nnc_ring **ret_ring) {
    assert(role == NNC_RING_LOADER ? incarnation != 0 && incarnation != RING_NOBODY
                                   : incarnation == 0);
    struct nnc_ring *ring = NULL;
    int code = make_ring(geometry, role, &ring);
    if (code < 0) {
        goto out;
    }
    ring->incarnation = incarnation;
    code = map_region(ctl_fd, ring->layout.ctl_bytes, 1, &ring->ctl);
    if (code < 0) {
        goto out;
    }
    code = check_header(ring, generation);
    if (code < 0) {
        goto out;
    }
    if (role != NNC_RING_COORDINATOR) {
        code = map_region(data_fd, ring->layout.data_bytes, role == NNC_RING_LOADER, &ring->data);
    }
    if (code >= 0) {
        *ret_ring = ring;
        ring = NULL;
    }
out:
    nnc_ring_destroy(ring);
    return code < 0 ? nnc_fail_in(code, "attaching to a ring") : 0;
}

int nnc_ring_clone(const struct nnc_ring *ring, enum nnc_ring_role role, uint32_t incarnation,
                   struct nnc_ring **ret_ring) {
    assert(role == NNC_RING_COORDINATOR || ring->data != NULL);
    struct nnc_ring *clone;
    int code = make_ring(&ring->geometry, role, &clone);
    if (code < 0) {
        return code;
    }
    clone->incarnation = incarnation;
    clone->ctl = ring->ctl;
    clone->data = ring->data;
    clone->is_clone = true;
    *ret_ring = clone;
    return 0;
}

void nnc_ring_destroy(struct nnc_ring *ring) {
    if (ring == NULL) {
        return;
    }
    if (ring->ctl != NULL && !ring->is_clone) {
        munmap(ring->ctl, ring->layout.ctl_bytes);
    }
    if (ring->data != NULL && !ring->is_clone) {
        munmap(ring->data, ring->layout.data_bytes);
    }
    if (ring->ctl_fd >= 0) {
        close(ring->ctl_fd);
    }
    if (ring->data_fd >= 0) {
        close(ring->data_fd);
    }
    free(ring->results);
    free(ring);
}

void ring_wake_loaders(const struct nnc_ring *ring) {
    _Atomic uint32_t *word = &ring_header(ring)->work_generation;
    /* Release: pairs with the acquire in nnc_ring_work_generation() and nnc_ring_claim(); who sees
     * the new number sees what there is to claim. */
    atomic_fetch_add_explicit(word, 1, memory_order_release);
    nnc_futex_wake(word, INT_MAX);
}

void ring_wake_trainer(const struct nnc_ring *ring) {
    _Atomic uint32_t *word = &ring_header(ring)->ready_generation;
    /* Release: pairs with the acquire in nnc_ring_acquire(). */
    atomic_fetch_add_explicit(word, 1, memory_order_release);
    nnc_futex_wake(word, INT_MAX);
}

void nnc_ring_stop(struct nnc_ring *ring) {
    /* Release: pairs with the acquire loads of `stopped` in claim and acquire. */
    atomic_store_explicit(&ring_header(ring)->stopped, 1, memory_order_release);
    ring_wake_loaders(ring);
    ring_wake_trainer(ring);
}

unsigned nnc_ring_ready_batches(const struct nnc_ring *ring) {
    unsigned ready = 0;
    for (uint32_t slot = 0; slot < ring->geometry.slots; slot++) {
        const struct ring_slot *words = ring_slot(ring, slot);
        /* Acquire: pairs with the release of seq in nnc_ring_recycle(), else old done bits count.
         */
        uint64_t seq = atomic_load_explicit(&words->seq, memory_order_acquire);
        bool unread = atomic_load_explicit(&words->taken, memory_order_relaxed) != seq;
        ready += ring_is_open(ring, slot, seq) && unread && ring_is_complete(ring, slot);
    }
    return ready;
}
