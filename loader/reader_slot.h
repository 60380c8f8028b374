/* SPDX-License-Identifier: Apache-2.0 */
/* What the kinds of readers share: a buffer for each read in flight, and reading one sample the
 * plain way. */
#ifndef NNC_LOADER_READER_SLOT_H
#define NNC_LOADER_READER_SLOT_H

#include "loader/reader.h"

#include <stdbool.h>

/* One read in flight. */
struct nnc_read_slot {
    struct nnc_read read;
    struct nnc_extent extent;
    bool located; /* to be released when done */
    uint8_t *buffer;
    size_t buffer_bytes;
    uint64_t offset; /* in the file, where reading begins */
    size_t place;    /* in the buffer, where it goes */
    size_t shift;    /* bytes in front of the wanted ones, read for the sake of alignment */
    size_t expect;   /* bytes that the index says are there */
    size_t want; /* bytes to ask for; a folder's file is asked for one more, to see that it has not
                    grown */
    size_t head_place; /* in the buffer, of the first read of a sample */
    int code;          /* of the result */
    char text[192];    /* why, when code < 0 */
};

/* The kernel fetches no more than a read-ahead window for one piece of advice: this is the smallest
 * that devices have unless they are told otherwise. */
#define NNC_READ_WINDOW 131072u

/* First member of every reader. */
struct nnc_reader {
    const struct nnc_reader_ops *ops;
    struct nnc_reader_params params;
    struct nnc_read_slot slots[NNC_READER_DEPTH_MAX];
};

/* Tags in the order of submission; zero is empty. */
struct nnc_read_queue {
    uint32_t tags[NNC_READER_DEPTH_MAX];
    uint32_t first, count;
};

/* Append a tag. There is room for as many as may be in flight. */
void nnc_read_queue_push(struct nnc_read_queue *queue, uint32_t tag);

/* Take the oldest tag; false when there is none. */
bool nnc_read_queue_pop(struct nnc_read_queue *queue, uint32_t *ret_tag);

/* Locate the sample and make its buffer large enough. Returns 0 or the code, which is in slot->code
 * too. */
int nnc_read_slot_begin(struct nnc_reader *reader, const struct nnc_read *read);

/* Read the slot's sample with openat2, pread and close, now. Interrupted and refused calls are
 * repeated eight times at most, input errors once. The result is in slot->code. */
void nnc_read_slot_now(struct nnc_reader *reader, struct nnc_read_slot *slot);

/* Keep the code and the present error text as the slot's result. Returns code. */
int nnc_read_slot_fail(struct nnc_read_slot *slot, int code);

/* The kernel gave so many of the bytes that were asked for: how many of them are the sample's. */
size_t nnc_read_slot_useful(const struct nnc_read_slot *slot, size_t got);

/* The slot got so many useful bytes: set its result. */
void nnc_read_slot_got(struct nnc_read_slot *slot, size_t bytes);

/* Advise the kernel to fetch an extent, now: a folder's file is opened and closed for it. */
void nnc_read_advise_now(struct nnc_reader *reader, const struct nnc_extent *extent);

/* Hand the slot's result out and release its sample. A failed one gets its text here. */
void nnc_read_slot_end(struct nnc_reader *reader, struct nnc_read_slot *slot,
                       struct nnc_read_done *ret_done);

/* Free the buffers. */
void nnc_read_slots_finish(struct nnc_reader *reader);

#endif
