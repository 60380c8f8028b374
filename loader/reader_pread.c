/* SPDX-License-Identifier: Apache-2.0 */
/* The plain reader: open, pread, close, one sample after the other, in the order of submission.
 *
 * 1. Nothing happens in submit; wait does the oldest read. The kernel's read-ahead is what
 * overlaps.
 * 2. It is the definition of what a reader delivers: the others are compared with it.
 *
 * Source: openat2(2), pread(2). */
#include "base/err.h"
#include "loader/reader_slot.h"

#include <errno.h>
#include <stdlib.h>

struct reader_pread {
    struct nnc_reader base;
    struct nnc_read_queue queue;
};

static int pread_open(const struct nnc_reader_params *params, struct nnc_reader **ret_reader) {
    (void)params;
    struct reader_pread *reader = calloc(1, sizeof(*reader));
    if (reader == NULL) {
        return nnc_fail(-ENOMEM, "no memory for a reader");
    }
    *ret_reader = &reader->base;
    return 0;
}

static void pread_close(struct nnc_reader *base) {
    struct reader_pread *reader = (struct reader_pread *)base;
    nnc_read_slots_finish(base);
    free(reader);
}

static void pread_submit(struct nnc_reader *base, const struct nnc_read *read) {
    struct reader_pread *reader = (struct reader_pread *)base;
    nnc_read_slot_begin(base, read);
    nnc_read_queue_push(&reader->queue, read->tag);
}

static int pread_wait(struct nnc_reader *base, struct nnc_read_done *ret_done) {
    struct reader_pread *reader = (struct reader_pread *)base;
    uint32_t tag;
    if (!nnc_read_queue_pop(&reader->queue, &tag)) {
        return 0;
    }
    struct nnc_read_slot *slot = &base->slots[tag];
    if (slot->code == 0) {
        nnc_read_slot_now(base, slot);
    }
    nnc_read_slot_end(base, slot, ret_done);
    return 1;
}

const struct nnc_reader_ops nnc_reader_pread = {
    .name = "pread",
    .open = pread_open,
    .close = pread_close,
    .submit = pread_submit,
    .wait = pread_wait,
    .advise = nnc_read_advise_now,
};
