/* SPDX-License-Identifier: Apache-2.0 */
/* The ring between the loaders and one trainer: `slots` batches in shared memory. Loaders claim and
 * publish single samples, the trainer acquires, releases and recycles whole batches.
 *
 * Two memfds: control (claims, completion bits, sequence numbers) and data (pixels, labels, sample
 * numbers). No pointer, offset or length is stored in either; all addresses come from the geometry
 * that every process was given before it attached. Protocol: docs/memory.md. */
#ifndef NNC_IPC_RING_H
#define NNC_IPC_RING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Batch number that stands for "this slot gets nothing any more". The number below it stands for
 * "no batch yet" (a fresh ring), so the batches of a run end at UINT64_MAX - 2. */
#define NNC_RING_CLOSED UINT64_MAX

/* Agreed before attach; equal in all processes. */
struct nnc_ring_geometry {
    uint32_t batch;  /* samples per slot, 1..10,000 */
    uint32_t slots;  /* 2..64 */
    uint32_t height; /* of one sample in memory, the larger of train and val crop */
    uint32_t width;
    uint32_t channels; /* 1 or 3 */
};

/* Bytes of both memfds. Errors: -NNC_E_USAGE impossible geometry or overflow. */
int nnc_ring_bytes(const struct nnc_ring_geometry *geometry, size_t *ret_ctl_bytes,
                   size_t *ret_data_bytes);

struct nnc_ring;

enum nnc_ring_role {
    NNC_RING_COORDINATOR, /* maps control only */
    NNC_RING_LOADER,      /* maps both for writing */
    NNC_RING_TRAINER,     /* maps data read-only */
};

/* Create both memfds, pre-faulted and sealed, no slot used yet; the caller holds the descriptors
 * through the ring. Coordinator only. Errors: -ENOMEM, -NNC_E_USAGE. */
int nnc_ring_create(const struct nnc_ring_geometry *geometry, uint32_t generation,
                    const char *shm_dir, struct nnc_ring **ret_ring);

/* Descriptors to hand to children; they stay the ring's. */
int nnc_ring_ctl_fd(const struct nnc_ring *ring);
int nnc_ring_data_fd(const struct nnc_ring *ring);

/* The mapped pixels of all slots, for page-locking them. Loader or trainer. */
void nnc_ring_pixels(const struct nnc_ring *ring, void **ret_memory, size_t *ret_bytes);

/* Attach in a child. Checks seals, sizes, magic, layout hash and generation. The descriptors may be
 * closed afterwards. incarnation: non-zero and unique among all loaders that ever live (loaders
 * only, others pass 0). Errors: -NNC_E_FORMAT with the mismatch. */
int nnc_ring_attach(const struct nnc_ring_geometry *geometry, enum nnc_ring_role role, int ctl_fd,
                    int data_fd, uint32_t generation, uint32_t incarnation,
                    struct nnc_ring **ret_ring);

/* Another user of the mappings of `ring` in this process, for threads: each thread needs its own.
 * The original must outlive it and must have been attached with rights for the role. incarnation as
 * in attach; threads of one loader share it. Errors: -ENOMEM. */
int nnc_ring_clone(const struct nnc_ring *ring, enum nnc_ring_role role, uint32_t incarnation,
                   struct nnc_ring **ret_ring);

/* Unmap and close. Takes NULL. */
void nnc_ring_destroy(struct nnc_ring *ring);

/* ---- loader ---- */

struct nnc_claim {
    uint64_t seq; /* batch number */
    uint32_t slot;
    uint32_t index; /* sample within the batch */
};

/* Claim one free sample, in the open batch with the lowest number, or none. Never sleeps.
 * Returns 1 with *ret_claim, 0 when there is nothing to claim now, -EPIPE when all slots are closed
 * or the ring was stopped. */
int nnc_ring_claim(struct nnc_ring *ring, struct nnc_claim *ret_claim);

/* Where the claimed sample's pixels go: u8 (height, width, channels) of the geometry, this loader's
 * alone until publish. */
uint8_t *nnc_ring_claim_pixels(const struct nnc_ring *ring, const struct nnc_claim *claim);

/* Result of one sample. */
enum nnc_sample_status {
    NNC_SAMPLE_OK = 1,
    NNC_SAMPLE_REPLACED = 2, /* pixels and label are a substitute's */
    NNC_SAMPLE_BAD = 3,      /* pixels are undefined grey, label is -1: leave it out of metrics */
};

struct nnc_sample_result {
    enum nnc_sample_status status;
    int32_t label;   /* class, or -1 */
    uint32_t sample; /* number of the sample in its data set's index */
};

/* Publish the sample: one atomic fetch_or of its bit, the only commit point. The claim is spent. */
void nnc_ring_publish(struct nnc_ring *ring, const struct nnc_claim *claim,
                      const struct nnc_sample_result *result);

/* Sleep until something may have changed since `ret_generation` was read, at most 100 ms.
 * Use: g = nnc_ring_work_generation(r); if (nothing to claim) nnc_ring_wait_work(r, g). */
uint32_t nnc_ring_work_generation(const struct nnc_ring *ring);
void nnc_ring_wait_work(struct nnc_ring *ring, uint32_t generation);

/* The same for several rings at once: a loader serves all ranks of its node. generations[i] was
 * read from rings[i]; 1 <= count <= 64 (assert). */
void nnc_ring_wait_any(struct nnc_ring *const rings[], const uint32_t generations[],
                       unsigned count);

/* ---- trainer ---- */

/* Give slot seq % slots to batch `seq` with `count` samples (0..batch). Only for a slot that was
 * never used or whose previous batch was released (assert). Batches are recycled in ascending
 * order; the first may be any number. */
void nnc_ring_recycle(struct nnc_ring *ring, uint64_t seq, uint32_t count);

/* Close slot seq % slots for good; allowed where recycle is. A loader's claim returns -EPIPE once
 * all slots are closed. */
void nnc_ring_close_slot(struct nnc_ring *ring, uint64_t seq);

struct nnc_batch {
    uint64_t seq;
    uint32_t count;
    const uint8_t *images; /* u8, sample i at images + i * sample_bytes, (H,W,C) */
    size_t sample_bytes; /* of the geometry; the phase's own H and W may be smaller, rows packed */
    const int32_t *labels;   /* i32 (count), >= -1; the caller compares with its classes */
    const uint32_t *samples; /* u32 (count) */
    const uint32_t *status;  /* enum nnc_sample_status (count) */
};

/* Take batch `seq` once all its samples are done, waiting at most timeout_ms (0 polls).
 * Owner:  memory stays the ring's, readable until nnc_ring_release(). Untouched on error. Images
 * are shared memory, the other arrays are private copies that were checked: nobody changes them any
 * more. Errors: -ETIMEDOUT not complete; -EPIPE ring stopped; -EBADMSG a result word failed its
 * check. */
int nnc_ring_acquire(struct nnc_ring *ring, uint64_t seq, int timeout_ms,
                     struct nnc_batch *ret_batch);

/* Done reading batch `seq`; its slot may be recycled. */
void nnc_ring_release(struct nnc_ring *ring, uint64_t seq);

/* ---- coordinator ---- */

/* Free every claim of a loader incarnation that was reaped and never published. Wakes everybody.
 * Returns the number of samples put back. */
unsigned nnc_ring_sweep(struct nnc_ring *ring, uint32_t incarnation);

/* Any one sample that this incarnation holds; returns 1 or 0. Before the sweep. For tests: which of
 * its samples a loader worked on is told by its page (ipc/child.h). */
int nnc_ring_find_claim(const struct nnc_ring *ring, uint32_t incarnation,
                        struct nnc_claim *ret_claim);

/* Make every wait and claim of this ring return -EPIPE from now on. */
void nnc_ring_stop(struct nnc_ring *ring);

/* Complete, unread batches right now: the ring's filling level, for statistics. */
unsigned nnc_ring_ready_batches(const struct nnc_ring *ring);

#endif
