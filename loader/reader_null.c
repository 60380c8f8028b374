/* SPDX-License-Identifier: Apache-2.0 */
/* The reader that reads one image and hands it out again and again, in place of every other of the
 * same size: what loaders can do when reading is free. Images of other sizes are read plainly.
 *
 * 1. The image stays in memory that the caches hold, so that a loader of raw samples does nothing
 *    but copy them into the ring.
 * 2. Only `bench input` may ask for it: its samples are not those of the data set.
 *
 * Source: fio's engine "null", for the idea of taking a stage out to see what the others cost. */
#include "base/err.h"
#include "loader/image.h"
#include "loader/reader_slot.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct reader_null {
    struct nnc_reader base;
    struct nnc_read_queue queue;
    uint8_t *bytes; /* of the image; NULL: none yet */
    size_t size, room;
};

static int null_open(const struct nnc_reader_params *params, struct nnc_reader **ret_reader) {
    (void)params;
    struct reader_null *reader = calloc(1, sizeof(*reader));
    if (reader == NULL) {
        return nnc_fail(-ENOMEM, "no memory for a reader");
    }
    *ret_reader = &reader->base;
    return 0;
}

static void null_close(struct nnc_reader *base) {
    struct reader_null *reader = (struct reader_null *)base;
    nnc_read_slots_finish(base);
    free(reader->bytes);
    free(reader);
}

static void null_submit(struct nnc_reader *base, const struct nnc_read *read) {
    struct reader_null *reader = (struct reader_null *)base;
    nnc_read_slot_begin(base, read);
    nnc_read_queue_push(&reader->queue, read->tag);
}

/* Read all of the slot's sample and keep it. */
static void keep_image(struct reader_null *reader, struct nnc_read_slot *slot) {
    const struct nnc_read wanted = slot->read;
    const struct nnc_read whole = {
        .tag = wanted.tag, .phase = wanted.phase, .sample = wanted.sample};
    struct nnc_read_done done;
    nnc_read_slot_now(&reader->base, slot);
    if (wanted.bytes != 0 && slot->code == 0) {
        nnc_read_slot_end(&reader->base, slot, &done);
        nnc_read_slot_begin(&reader->base, &whole);
        nnc_read_slot_now(&reader->base, slot);
    }
    size_t size = slot->expect;
    if (slot->code == 0 && nnc_image_reserve(&reader->bytes, &reader->room, size) == 0) {
        memcpy(reader->bytes, slot->buffer + slot->place + slot->shift, size);
        reader->size = size;
    }
    if (wanted.bytes != 0 && slot->code == 0) {
        nnc_read_slot_end(&reader->base, slot, &done);
        nnc_read_slot_begin(&reader->base, &wanted);
    }
}

static int null_wait(struct nnc_reader *base, struct nnc_read_done *ret_done) {
    struct reader_null *reader = (struct reader_null *)base;
    uint32_t tag;
    if (!nnc_read_queue_pop(&reader->queue, &tag)) {
        return 0;
    }
    struct nnc_read_slot *slot = &base->slots[tag];
    if (reader->bytes == NULL && slot->code == 0 && slot->read.keep == 0) {
        keep_image(reader, slot);
    }
    bool is_kept = slot->code == 0 && slot->extent.bytes == reader->size;
    if (slot->code == 0 && !is_kept) {
        nnc_read_slot_now(base, slot);
    }
    nnc_read_slot_end(base, slot, ret_done);
    if (is_kept) {
        ret_done->bytes = reader->bytes + slot->read.first;
        ret_done->kept = slot->read.keep != 0 ? reader->bytes : NULL;
    }
    return 1;
}

const struct nnc_reader_ops nnc_reader_null = {
    .name = "null",
    .open = null_open,
    .close = null_close,
    .submit = null_submit,
    .wait = null_wait,
};
