/* SPDX-License-Identifier: Apache-2.0 */
/* Choice of the reader, and the plain way to read one sample, which every kind falls back to.
 *
 *   locate -> buffer -> (open) -> read until full -> (close) -> is it what the index says? ->
 * result
 *
 * 1. Whatever a fancier kind cannot finish (short reads, interrupted calls, odd errors) it gives to
 *    nnc_read_slot_now(), so that its own code has the straight path only and results are alike.
 * 2. A folder's file must have exactly the size that was indexed: it is asked for one byte more.
 * 3. Buffers grow and are kept, but a buffer larger than KEEP_BYTES is given back after use, so
 * that one huge image does not stay in memory for ever.
 *
 * Source: read(2), openat2(2). */
#include "loader/reader.h"

#include "base/err.h"
#include "loader/image.h"
#include "loader/reader_slot.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    RETRIES = 8,              /* of EINTR and EAGAIN */
    KEEP_BYTES = 4 * 1048576, /* a buffer of a slot */
    BUFFER_STEP = 16384,
};

const struct nnc_reader_ops *const nnc_reader_kinds[] = {
    &nnc_reader_uring,
    &nnc_reader_pread,
    &nnc_reader_null,
    NULL,
};

/* May a reader of this kind be taken? The null reader only when it is asked for. */
static bool is_wanted(const struct nnc_reader_ops *ops, enum nnc_io_method method) {
    switch (method) {
    case NNC_IO_PREAD:
        return ops == &nnc_reader_pread;
    case NNC_IO_NULL:
        return ops == &nnc_reader_null;
    case NNC_IO_AUTO:
    case NNC_IO_URING:
        break;
    }
    return ops != &nnc_reader_null;
}

int nnc_reader_open(const struct nnc_reader_params *params, enum nnc_io_method method,
                    char *ret_note, size_t note_bytes, struct nnc_reader **ret_reader) {
    assert(params->depth >= 1 && params->depth <= NNC_READER_DEPTH_MAX);
    int code = -ENOSYS;
    snprintf(ret_note, note_bytes, "%s", method == NNC_IO_PREAD ? "pread was asked for" : "");
    for (int i = 0; nnc_reader_kinds[i] != NULL; i++) {
        const struct nnc_reader_ops *ops = nnc_reader_kinds[i];
        if (!is_wanted(ops, method)) {
            continue;
        }
        code = ops->open(params, ret_reader);
        if (code >= 0) {
            (*ret_reader)->ops = ops;
            (*ret_reader)->params = *params;
            return 0;
        }
        snprintf(ret_note, note_bytes, "%s", nnc_error_text());
    }
    return code;
}

void nnc_reader_close(struct nnc_reader *reader) {
    if (reader != NULL) {
        reader->ops->close(reader);
    }
}

const char *nnc_reader_name(const struct nnc_reader *reader) {
    return reader->ops->name;
}

void nnc_reader_submit(struct nnc_reader *reader, const struct nnc_read *read) {
    assert(read->tag < reader->params.depth);
    reader->ops->submit(reader, read);
}

int nnc_reader_wait(struct nnc_reader *reader, struct nnc_read_done *ret_done) {
    return reader->ops->wait(reader, ret_done);
}

/* ---- advice ---- */

bool nnc_reader_advise(struct nnc_reader *reader, enum nnc_phase phase, uint64_t sample) {
    struct nnc_source *source = reader->params.sources[phase];
    struct nnc_extent extent;
    if (reader->ops->advise == NULL || nnc_source_locate(source, sample, &extent) < 0) {
        return false;
    }
    if (!extent.direct) {
        reader->ops->advise(reader, &extent);
    }
    nnc_source_release(source, sample);
    return !extent.direct;
}

void nnc_read_advise_now(struct nnc_reader *reader, const struct nnc_extent *extent) {
    (void)reader;
    int fd = extent->fd;
    if (extent->path != NULL) {
        fd = nnc_source_open_beneath(extent->fd, extent->path, false);
        if (fd < 0) {
            return;
        }
    }
    for (uint32_t at = 0; at < extent->bytes; at += NNC_READ_WINDOW) {
        uint32_t rest = extent->bytes - at;
        posix_fadvise(fd, (off_t)(extent->offset + at),
                      rest < NNC_READ_WINDOW ? rest : NNC_READ_WINDOW, POSIX_FADV_WILLNEED);
    }
    if (extent->path != NULL) {
        close(fd);
    }
}

/* ---- queue ---- */

void nnc_read_queue_push(struct nnc_read_queue *queue, uint32_t tag) {
    assert(queue->count < NNC_READER_DEPTH_MAX);
    queue->tags[(queue->first + queue->count) % NNC_READER_DEPTH_MAX] = tag;
    queue->count++;
}

bool nnc_read_queue_pop(struct nnc_read_queue *queue, uint32_t *ret_tag) {
    if (queue->count == 0) {
        return false;
    }
    *ret_tag = queue->tags[queue->first];
    queue->first = (queue->first + 1) % NNC_READER_DEPTH_MAX;
    queue->count--;
    return true;
}

/* ---- slots ---- */

int nnc_read_slot_fail(struct nnc_read_slot *slot, int code) {
    slot->code = code;
    snprintf(slot->text, sizeof(slot->text), "%s", nnc_error_text());
    return code;
}

/* Fail with the system's words. */
static int fail_system(struct nnc_read_slot *slot, const char *what, int code) {
    if (code == -EXDEV || code == -ELOOP) {
        return nnc_read_slot_fail(slot, nnc_fail(code, "a link leads outside the data directory"));
    }
    return nnc_read_slot_fail(slot, nnc_fail(code, "%s: %s", what, strerror(-code)));
}

/* Where the bytes lie and where they go. Past the page cache the kernel wants offset, length and
 * memory aligned. */
static void plan_read(struct nnc_read_slot *slot) {
    const struct nnc_read *read = &slot->read;
    const struct nnc_extent *extent = &slot->extent;
    bool whole = read->bytes == 0, folder = extent->path != NULL;
    assert(whole ||
           (!folder && read->first <= extent->bytes && read->bytes <= extent->bytes - read->first));
    size_t grain = extent->direct ? NNC_READER_ALIGN : 1;
    uint64_t offset = extent->offset + (whole ? 0 : read->first);
    slot->expect = whole ? extent->bytes : read->bytes;
    slot->offset = offset / grain * grain;
    slot->shift = (size_t)(offset - slot->offset);
    slot->want = slot->shift + slot->expect + (folder ? 1 : 0);
    slot->want = (slot->want + grain - 1) / grain * grain;
    /* Behind what is kept, aligned in any case: it costs a few bytes. */
    size_t kept = read->keep == 0 ? 0 : slot->head_place + read->keep;
    slot->place = (kept + NNC_READER_ALIGN - 1) / NNC_READER_ALIGN * NNC_READER_ALIGN;
    slot->head_place = read->keep == 0 ? slot->shift : slot->head_place;
}

/* Room for all of the sample, also when a part of it is read: what is kept must not move when more
 * is. */
static int reserve_aligned(struct nnc_read_slot *slot) {
    size_t room = (size_t)slot->extent.bytes + 4 * NNC_READER_ALIGN + NNC_IMAGE_ROW_SLACK;
    room = (room + BUFFER_STEP - 1) / BUFFER_STEP * BUFFER_STEP;
    assert(slot->place + slot->want + NNC_IMAGE_ROW_SLACK <= room);
    if (room <= slot->buffer_bytes) {
        return 0;
    }
    assert(slot->read.keep == 0);
    free(slot->buffer);
    slot->buffer_bytes = 0;
    slot->buffer = aligned_alloc(NNC_READER_ALIGN, room);
    if (slot->buffer == NULL) {
        return nnc_fail(-ENOMEM, "no memory for %zu bytes", room);
    }
    slot->buffer_bytes = room;
    return 0;
}

int nnc_read_slot_begin(struct nnc_reader *reader, const struct nnc_read *read) {
    struct nnc_read_slot *slot = &reader->slots[read->tag];
    slot->read = *read;
    slot->code = 0;
    slot->located = false;
    if (slot->buffer_bytes > KEEP_BYTES && read->keep == 0) {
        free(slot->buffer);
        slot->buffer = NULL;
        slot->buffer_bytes = 0;
    }
    struct nnc_source *source = reader->params.sources[read->phase];
    int code = nnc_source_locate(source, read->sample, &slot->extent);
    if (code < 0) {
        return nnc_read_slot_fail(slot, code);
    }
    slot->located = true;
    plan_read(slot);
    code = reserve_aligned(slot);
    return code < 0 ? nnc_read_slot_fail(slot, code) : 0;
}

size_t nnc_read_slot_useful(const struct nnc_read_slot *slot, size_t got) {
    size_t useful = got > slot->shift ? got - slot->shift : 0;
    /* A shard goes on behind the sample; a file that does has grown. */
    bool folder = slot->extent.path != NULL;
    return folder || useful < slot->expect ? useful : slot->expect;
}

void nnc_read_slot_got(struct nnc_read_slot *slot, size_t bytes) {
    slot->code = 0;
    if (bytes < slot->expect) {
        nnc_read_slot_fail(slot,
                           nnc_fail(-NNC_E_FORMAT,
                                    "has %zu bytes where %zu were indexed: changed since, run "
                                    "with --reindex",
                                    bytes, slot->expect));
    } else if (bytes > slot->expect) {
        nnc_read_slot_fail(slot, nnc_fail(-NNC_E_FORMAT,
                                          "has more than the %zu bytes that were indexed: changed "
                                          "since, run with --reindex",
                                          slot->expect));
    }
}

/* pread until slot->want bytes are in or the file ends. Returns bytes or -errno. */
static ssize_t read_all(struct nnc_read_slot *slot, int fd) {
    size_t got = 0;
    int retries = 0, input_errors = 0;
    while (got < slot->want) {
        ssize_t part = pread(fd, slot->buffer + slot->place + got, slot->want - got,
                             (off_t)(slot->offset + got));
        if (part == 0) {
            break;
        }
        if (part > 0) {
            got += (size_t)part;
            if (slot->extent.direct && got % NNC_READER_ALIGN != 0) {
                break; /* the end of the file: no aligned read could go on */
            }
            continue;
        }
        bool again = (errno == EINTR || errno == EAGAIN) && retries++ < RETRIES;
        again = again || (errno == EIO && input_errors++ < 1);
        if (!again) {
            return -errno;
        }
    }
    return (ssize_t)got;
}

void nnc_read_slot_now(struct nnc_reader *reader, struct nnc_read_slot *slot) {
    (void)reader;
    int fd = slot->extent.fd;
    if (slot->extent.path != NULL) {
        fd = nnc_source_open_beneath(slot->extent.fd, slot->extent.path, slot->extent.direct);
        if (fd < 0) {
            fail_system(slot, "open", fd);
            return;
        }
    }
    struct stat status;
    if (slot->extent.path != NULL && (fstat(fd, &status) < 0 || !S_ISREG(status.st_mode))) {
        nnc_read_slot_fail(slot, nnc_fail(-NNC_E_FORMAT, "is not a regular file"));
    } else {
        ssize_t got = read_all(slot, fd);
        if (got < 0) {
            fail_system(slot, "read", (int)got);
        } else {
            nnc_read_slot_got(slot, nnc_read_slot_useful(slot, (size_t)got));
        }
    }
    if (slot->extent.path != NULL) {
        close(fd);
    }
}

void nnc_read_slot_end(struct nnc_reader *reader, struct nnc_read_slot *slot,
                       struct nnc_read_done *ret_done) {
    if (slot->located) {
        nnc_source_release(reader->params.sources[slot->read.phase], slot->read.sample);
    }
    *ret_done = (struct nnc_read_done){.tag = slot->read.tag, .code = slot->code};
    if (slot->code < 0) {
        nnc_fail(slot->code, "%s", slot->text);
        return;
    }
    ret_done->bytes = slot->buffer + slot->place + slot->shift;
    ret_done->size = slot->expect;
    if (slot->read.keep != 0) {
        ret_done->kept = slot->buffer + slot->head_place;
        ret_done->kept_size = slot->read.keep;
    }
}

void nnc_read_slots_finish(struct nnc_reader *reader) {
    for (uint32_t i = 0; i < NNC_READER_DEPTH_MAX; i++) {
        free(reader->slots[i].buffer);
    }
}
