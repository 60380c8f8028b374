/* SPDX-License-Identifier: Apache-2.0 */
/* The two places of batches; see feed.h.
 *
 * Invariants: (1) batch number b lies in place b % 2; (2) the copy of a batch waits, on the device,
 * for `consumed` of the batch before it in its place; (3) pinned memory of a place is written by
 * the host only after `copied` of its last batch.
 *
 * What it does not do: look at pixels. */
#include "gpu/feed.h"

#include "base/checked.h"
#include "base/err.h"
#include "base/log.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

int nnc_feeds_init(struct nnc_feeds *feeds, struct nnc_device *device) {
    feeds->device = device;
    for (int number = 0; number < NNC_FEED_PLACES; number++) {
        struct nnc_feed_place *place = &feeds->place[number];
        cudaError_t error = cudaEventCreateWithFlags(&place->copied, cudaEventDisableTiming);
        if (error == cudaSuccess) {
            error = cudaEventCreateWithFlags(&place->consumed, cudaEventDisableTiming);
        }
        int rc = nnc_device_check(error, "event of a batch");
        if (rc < 0) {
            return rc;
        }
    }
    return 0;
}

/* Give back a place's memory, not its events. */
static void empty_place(struct nnc_feeds *feeds, struct nnc_feed_place *place) {
    nnc_device_free(feeds->device, &place->images);
    nnc_device_free(feeds->device, &place->labels);
    cudaFreeHost(place->host_labels);
    cudaFreeHost(place->bounce);
    place->host_labels = NULL;
    place->bounce = NULL;
}

void nnc_feeds_finish(struct nnc_feeds *feeds) {
    for (int number = 0; feeds->device && number < NNC_FEED_PLACES; number++) {
        struct nnc_feed_place *place = &feeds->place[number];
        empty_place(feeds, place);
        if (place->copied) {
            cudaEventDestroy(place->copied);
        }
        if (place->consumed) {
            cudaEventDestroy(place->consumed);
        }
    }
    for (int number = 0; number < NNC_FEED_REGIONS_MAX; number++) {
        if (feeds->region[number].bytes > 0) {
            cudaHostUnregister((void *)(uintptr_t)feeds->region[number].memory);
        }
    }
    *feeds = (struct nnc_feeds){0};
}

static int make_place(struct nnc_feeds *feeds, struct nnc_feed_place *place) {
    size_t label_bytes = feeds->batch_max * sizeof(*place->host_labels);
    void *labels = NULL;
    int rc = nnc_device_reserve(feeds->device, feeds->image_bytes, "images", &place->images);
    if (rc == 0) {
        rc = nnc_device_reserve(feeds->device, label_bytes, "labels", &place->labels);
    }
    if (rc == 0) {
        rc = nnc_device_host_alloc(label_bytes, &labels);
        place->host_labels = labels;
    }
    return rc;
}

int nnc_feeds_reserve(struct nnc_feeds *feeds, const struct nnc_feed_shape *shape) {
    size_t bytes = 0;
    if (nnc_size_mul(shape->batch, shape->sample_bytes, &bytes)) {
        return nnc_fail(-EOVERFLOW, "a batch of %u does not fit the address space", shape->batch);
    }
    if (bytes <= feeds->image_bytes && shape->batch <= feeds->batch_max) {
        return 0;
    }
    if (feeds->fed != feeds->taken) {
        return nnc_fail(-EBUSY, "a larger program cannot be compiled while a batch is under way");
    }
    int rc = nnc_device_wait_all(feeds->device);
    if (rc < 0) {
        return rc;
    }
    feeds->image_bytes = bytes > feeds->image_bytes ? bytes : feeds->image_bytes;
    feeds->batch_max = shape->batch > feeds->batch_max ? shape->batch : feeds->batch_max;
    for (int number = 0; rc == 0 && number < NNC_FEED_PLACES; number++) {
        feeds->place[number].owner = NULL;
        empty_place(feeds, &feeds->place[number]);
        rc = make_place(feeds, &feeds->place[number]);
    }
    if (rc < 0) {
        feeds->image_bytes = 0;
        feeds->batch_max = 0;
        return rc;
    }
    /* The zeros of new memory are compute's, the first copy is not. */
    return nnc_device_wait_stream(feeds->device, NNC_STREAM_COMPUTE);
}

/* The memory is only read, and may be mapped so; not every platform can pin such. */
static unsigned pin_flags(const struct nnc_feeds *feeds) {
    int supported = 0;
    cudaDeviceGetAttribute(&supported, cudaDevAttrHostRegisterReadOnlySupported,
                           feeds->device->ordinal);
    return cudaHostRegisterPortable | (supported ? cudaHostRegisterReadOnly : 0);
}

int nnc_feeds_pin(struct nnc_feeds *feeds, void *memory, size_t bytes) {
    for (int number = 0; number < NNC_FEED_REGIONS_MAX; number++) {
        if (feeds->region[number].bytes > 0) {
            continue;
        }
        cudaError_t error = cudaHostRegister(memory, bytes, pin_flags(feeds));
        int rc = nnc_device_check(error, "the memory of batches cannot be pinned");
        if (rc < 0) {
            return nnc_fail_in(-ENOTSUP, "GPU %d", feeds->device->ordinal);
        }
        feeds->region[number].memory = memory;
        feeds->region[number].bytes = bytes;
        return 0;
    }
    return nnc_fail(-ENOTSUP, "no more than %d regions are pinned", NNC_FEED_REGIONS_MAX);
}

void nnc_feeds_unpin(struct nnc_feeds *feeds, void *memory) {
    for (int number = 0; number < NNC_FEED_REGIONS_MAX; number++) {
        if (feeds->region[number].bytes > 0 && feeds->region[number].memory == memory) {
            cudaHostUnregister(memory);
            feeds->region[number].bytes = 0;
        }
    }
}

static bool is_pinned(const struct nnc_feeds *feeds, const uint8_t *images, size_t bytes) {
    uintptr_t first = (uintptr_t)images;
    for (int number = 0; number < NNC_FEED_REGIONS_MAX; number++) {
        uintptr_t start = (uintptr_t)feeds->region[number].memory;
        size_t size = feeds->region[number].bytes;
        if (size >= bytes && first >= start && first - start <= size - bytes) {
            return true;
        }
    }
    return false;
}

static int check_labels(const struct nnc_feed_shape *shape, const int32_t *labels) {
    for (uint32_t n = 0; n < shape->batch; n++) {
        if (labels[n] < -1 || labels[n] >= (int64_t)shape->classes) {
            return nnc_fail(-NNC_E_FORMAT,
                            "label %" PRId32 " of sample %u of the batch lies outside 0..%u; the "
                            "model has %u classes",
                            labels[n], n, shape->classes - 1, shape->classes);
        }
    }
    return 0;
}

/* Copy the batch into pinned memory of the place's own, packed. */
static int bounce(struct nnc_feeds *feeds, struct nnc_feed_place *place,
                  const struct nnc_feed_shape *shape, const struct nnc_feed *feed) {
    if (!place->bounce) {
        void *memory = NULL;
        int rc = nnc_device_host_alloc(feeds->image_bytes, &memory);
        if (rc < 0) {
            return rc;
        }
        place->bounce = memory;
        nnc_log(NNC_LOG_DEBUG, "batches come from memory that is not pinned: one copy more each");
    }
    for (uint32_t n = 0; n < shape->batch; n++) {
        memcpy(place->bounce + n * shape->sample_bytes, feed->images + n * feed->sample_stride,
               shape->sample_bytes);
    }
    return 0;
}

/* Queue both copies behind whoever read the place last. */
static int queue_copies(struct nnc_feeds *feeds, struct nnc_feed_place *place,
                        const struct nnc_feed_shape *shape, const struct nnc_feed *feed) {
    cudaStream_t stream = feeds->device->stream[NNC_STREAM_COPY];
    size_t label_bytes = shape->batch * sizeof(*feed->labels);
    cudaError_t error = cudaStreamWaitEvent(stream, place->consumed, 0);
    if (error == cudaSuccess && feed->sample_stride == shape->sample_bytes) {
        error = cudaMemcpyAsync(place->images.memory, feed->images,
                                shape->batch * shape->sample_bytes, cudaMemcpyHostToDevice, stream);
    } else if (error == cudaSuccess) {
        error = cudaMemcpy2DAsync(place->images.memory, shape->sample_bytes, feed->images,
                                  feed->sample_stride, shape->sample_bytes, shape->batch,
                                  cudaMemcpyHostToDevice, stream);
    }
    if (error == cudaSuccess) {
        error = cudaMemcpyAsync(place->labels.memory, place->host_labels, label_bytes,
                                cudaMemcpyHostToDevice, stream);
    }
    if (error == cudaSuccess) {
        error = cudaEventRecord(place->copied, stream);
    }
    return nnc_device_check(error, "copy of a batch");
}

int nnc_feeds_push(struct nnc_feeds *feeds, const void *owner, const struct nnc_feed_shape *shape,
                   const struct nnc_feed *feed) {
    assert(feed->sample_stride >= shape->sample_bytes && shape->batch <= feeds->batch_max);
    if (feeds->fed - feeds->taken == NNC_FEED_PLACES) {
        return nnc_fail(-EBUSY, "%d batches are fed and wait for a step", NNC_FEED_PLACES);
    }
    struct nnc_feed_place *place = &feeds->place[feeds->fed % NNC_FEED_PLACES];
    int rc = check_labels(shape, feed->labels);
    if (rc == 0) {
        rc = nnc_device_wait(feeds->device, place->copied);
    }
    if (rc < 0) {
        return rc;
    }
    uint64_t reusable;
    rc = nnc_feeds_reusable(feeds, &reusable);
    if (rc < 0) {
        return rc;
    }
    memcpy(place->host_labels, feed->labels, shape->batch * sizeof(*feed->labels));
    size_t bytes = (shape->batch - 1) * feed->sample_stride + shape->sample_bytes;
    struct nnc_feed from = *feed;
    place->borrowed = is_pinned(feeds, feed->images, bytes);
    if (!place->borrowed) {
        rc = bounce(feeds, place, shape, feed);
        from.images = place->bounce;
        from.sample_stride = shape->sample_bytes;
    }
    if (rc == 0) {
        rc = queue_copies(feeds, place, shape, &from);
    }
    if (rc == 0) {
        place->owner = owner;
        feeds->fed++;
    }
    return rc;
}

int nnc_feeds_take(struct nnc_feeds *feeds, const void *owner,
                   const struct nnc_feed_place **ret_place) {
    bool fresh = feeds->taken < feeds->fed;
    uint64_t batch = fresh ? feeds->taken : feeds->taken - 1;
    const struct nnc_feed_place *place = &feeds->place[batch % NNC_FEED_PLACES];
    if (batch == UINT64_MAX || place->owner != owner) {
        return nnc_fail(-EINVAL, "a step without a batch that was fed for it");
    }
    int rc = nnc_device_check(
        cudaStreamWaitEvent(feeds->device->stream[NNC_STREAM_COMPUTE], place->copied, 0),
        "wait for a batch");
    if (rc == 0) {
        feeds->taken += fresh;
        *ret_place = place;
    }
    return rc;
}

int nnc_feeds_release(struct nnc_feeds *feeds, const struct nnc_feed_place *place) {
    return nnc_device_check(
        cudaEventRecord(place->consumed, feeds->device->stream[NNC_STREAM_COMPUTE]),
        "end of a batch");
}

void nnc_feeds_forget(struct nnc_feeds *feeds, const void *owner) {
    while (feeds->taken < feeds->fed &&
           feeds->place[feeds->taken % NNC_FEED_PLACES].owner == owner) {
        feeds->taken++;
    }
    for (int number = 0; number < NNC_FEED_PLACES; number++) {
        if (feeds->place[number].owner == owner) {
            feeds->place[number].owner = NULL;
        }
    }
}

int nnc_feeds_reusable(struct nnc_feeds *feeds, uint64_t *ret_feeds) {
    while (feeds->reusable < feeds->fed) {
        const struct nnc_feed_place *place = &feeds->place[feeds->reusable % NNC_FEED_PLACES];
        int state = place->borrowed ? nnc_device_query(place->copied) : 1;
        if (state < 0) {
            return state;
        }
        if (state == 0) {
            break;
        }
        feeds->reusable++;
    }
    *ret_feeds = feeds->reusable;
    return 0;
}
