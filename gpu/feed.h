/* SPDX-License-Identifier: Apache-2.0 */
/* Batches on their way to the device: two places there, filled by a stream of their own, in turn.
 *
 *   copy     batch 0 | batch 1 |   wait for consumed 0, batch 2 | ...
 *   compute            wait for copied 0, step 0 | wait for copied 1, step 1 | ...
 *
 * Memory that was pinned is copied from as it lies; any other goes through pinned memory of our own
 * and may be reused at once. */
#ifndef NNC_GPU_FEED_H
#define NNC_GPU_FEED_H

#include "gpu/device.h"

enum {
    NNC_FEED_PLACES = 2,
    NNC_FEED_REGIONS_MAX = 16,
};

struct nnc_feed_place {
    struct nnc_block images, labels; /* device */
    int32_t *host_labels;            /* pinned */
    uint8_t *bounce;                 /* pinned; NULL until it is needed */
    cudaEvent_t copied;              /* the batch is on the device */
    cudaEvent_t consumed;            /* and was read */
    const void *owner;               /* executable that it was fed to */
    bool borrowed;                   /* copied from the caller's memory */
};

struct nnc_feeds {
    struct nnc_device *device;
    struct nnc_feed_place place[NNC_FEED_PLACES];
    size_t image_bytes; /* of the largest batch */
    uint32_t batch_max;
    uint64_t fed, taken, reusable; /* batches since open; fed >= taken, fed >= reusable */
    struct {
        const char *memory;
        size_t bytes;
    } region[NNC_FEED_REGIONS_MAX]; /* pinned; bytes 0: free */
};

/* What a program feeds. */
struct nnc_feed_shape {
    uint32_t batch, classes;
    size_t sample_bytes;
};

/* feeds is zero-filled before. Owner: end with nnc_feeds_finish(), after an error too. */
int nnc_feeds_init(struct nnc_feeds *feeds, struct nnc_device *device);
void nnc_feeds_finish(struct nnc_feeds *feeds);

/* Make room for batches of this shape. Waits for the device when places must grow; no batch may be
 * under way then (-EBUSY). */
int nnc_feeds_reserve(struct nnc_feeds *feeds, const struct nnc_feed_shape *shape);

/* See pin and unpin in workers/backend.h. */
int nnc_feeds_pin(struct nnc_feeds *feeds, void *memory, size_t bytes);
void nnc_feeds_unpin(struct nnc_feeds *feeds, void *memory);

/* Queue the copy of a batch for `owner`. Waits while the place's last copy is under way.
 * Errors: -NNC_E_FORMAT a label outside the classes; -EBUSY both places hold batches that no step
 * has taken; -NNC_E_HARDWARE; what alive says. */
int nnc_feeds_push(struct nnc_feeds *feeds, const void *owner, const struct nnc_feed_shape *shape,
                   const struct nnc_feed *feed);

/* The owner's next batch, or its last one again when no newer one was fed: compute waits for it.
 * Errors: -EINVAL none was fed. */
int nnc_feeds_take(struct nnc_feeds *feeds, const void *owner,
                   const struct nnc_feed_place **ret_place);

/* Compute has been given all that reads the batch. */
int nnc_feeds_release(struct nnc_feeds *feeds, const struct nnc_feed_place *place);

/* Forget an owner's batches; it is about to go. */
void nnc_feeds_forget(struct nnc_feeds *feeds, const void *owner);

/* Batches whose memory the caller may reuse. Never waits. */
int nnc_feeds_reusable(struct nnc_feeds *feeds, uint64_t *ret_feeds);

#endif
