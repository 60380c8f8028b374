/* SPDX-License-Identifier: Apache-2.0 */
/* Reading through io_uring: all reads of a round begin with one system call.
 *
 *   folder, direct   openat2 into a file slot -> read -> close, linked: three entries, no
 * descriptor folder, plain    openat2 -> (descriptor) -> read -> (close) shard            read at
 * an offset
 *
 * 1. The target of every read is memory of this process alone, never the shared ring: a read that
 * the kernel finishes after our death must not write into a slot that somebody else owns by then.
 * 2. open -> read is a soft link (a failed open cancels the read); read -> close is a hard link,
 * since a read that ends early, as the last byte asked for must, breaks soft links.
 * 3. Whatever does not go straight (short reads, interrupted calls, odd errors) is done again by
 *    nnc_read_slot_now(), whose results define ours. When links with file slots are what fails
 * (kernels before 5.18 look the slot up too early), direct opening is given up for good.
 * 4. At most three entries a read and six a piece of advice are in flight, for which both queues
 * have room; nothing can overflow.
 * 5. Set-up flags are tried from newest to oldest. Refusal is no error: the caller takes the other
 * reader.
 * 6. A folder's file that is to be fetched ahead is opened, advised and closed by linked entries
 * through a file slot of its own, since to open it here could take a round trip to a server. They
 * are silent but for the last, which frees the slot; advice that fails does not keep it from
 * coming. An open that fails does: it silences the entries linked behind it, and frees the slot
 * itself.
 *
 * Does not: register buffers (they grow; measured, it saves nothing: docs/loaders.md), use SQPOLL
 * (it would take a core). Source: io_uring_setup(2), io_uring_enter(2); liburing 2.3. */
#include "base/err.h"
#include "loader/reader_slot.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <linux/openat2.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum operation {
    OP_OPEN,
    OP_READ,
    OP_CLOSE,
    OP_COUNT,
    OP_ADVICE_OPEN = OP_COUNT, /* told only when it failed, and then nothing else is */
    OP_ADVICE,                 /* told only when it failed, which nobody minds */
    OP_ADVICE_END,
};

enum {
    ADVICE_MAX = 16,    /* files fetched ahead at a time; more advice is not given */
    ADVICE_WINDOWS = 4, /* of a file; the rest is left to its read */
    ENTRIES = NNC_READER_DEPTH_MAX * OP_COUNT + ADVICE_MAX * (ADVICE_WINDOWS + 2),
    WORKERS = 4, /* kernel threads for what would block */
};

/* What a slot waits for. */
struct flight {
    bool active, direct;
    uint32_t pending; /* completions */
    int opened;       /* result of the open; plain: the descriptor */
    int got;          /* result of the read */
};

struct reader_uring {
    struct nnc_reader base;
    struct io_uring ring;
    bool ring_ready, direct;
    struct flight flights[NNC_READER_DEPTH_MAX];
    uint32_t done[NNC_READER_DEPTH_MAX]; /* tags whose result is ready */
    uint32_t done_first, done_count;
    uint32_t in_flight; /* submitted and not handed out */
    bool advising[ADVICE_MAX];
};

enum {
    OPEN_FLAGS = O_RDONLY | O_NONBLOCK | O_NOCTTY,
    RESOLVE_FLAGS = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS,
};

static struct open_how how = {.flags = OPEN_FLAGS | O_CLOEXEC, .resolve = RESOLVE_FLAGS};
static struct open_how how_uncached = {.flags = OPEN_FLAGS | O_CLOEXEC | O_DIRECT,
                                       .resolve = RESOLVE_FLAGS};

/* Descriptors in file slots have no close-on-exec flag; the kernel refuses it there. */
static struct open_how how_slot = {.flags = OPEN_FLAGS, .resolve = RESOLVE_FLAGS};
static struct open_how how_slot_uncached = {.flags = OPEN_FLAGS | O_DIRECT,
                                            .resolve = RESOLVE_FLAGS};

/* ---- life ---- */

static int setup_ring(struct io_uring *ring) {
    static const unsigned ladder[] = {
        IORING_SETUP_SUBMIT_ALL | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN,
        IORING_SETUP_SUBMIT_ALL | IORING_SETUP_COOP_TASKRUN,
        IORING_SETUP_SUBMIT_ALL,
        0,
    };
    int code = -EINVAL;
    for (size_t i = 0; i < sizeof(ladder) / sizeof(ladder[0]) && code == -EINVAL; i++) {
        code = io_uring_queue_init(ENTRIES, ring, ladder[i]);
    }
    return code < 0 ? nnc_fail(code, "io_uring_setup: %s", strerror(-code)) : 0;
}

static int check_operations(struct io_uring *ring) {
    struct io_uring_probe *probe = io_uring_get_probe_ring(ring);
    bool good = probe != NULL && io_uring_opcode_supported(probe, IORING_OP_OPENAT2) &&
                io_uring_opcode_supported(probe, IORING_OP_READ) &&
                io_uring_opcode_supported(probe, IORING_OP_CLOSE);
    io_uring_free_probe(probe);
    return good ? 0 : nnc_fail(-ENOSYS, "this kernel's io_uring cannot open and read files");
}

static void uring_close(struct nnc_reader *base) {
    struct reader_uring *reader = (struct reader_uring *)base;
    for (uint32_t i = 0; i < NNC_READER_DEPTH_MAX; i++) {
        if (reader->flights[i].pending > 0) {
            /* The kernel may still write here after the ring is gone: this memory is never used
             * again. */
            base->slots[i].buffer = NULL;
        }
    }
    if (reader->ring_ready) {
        io_uring_queue_exit(&reader->ring);
    }
    nnc_read_slots_finish(base);
    free(reader);
}

static int uring_open(const struct nnc_reader_params *params, struct nnc_reader **ret_reader) {
    struct reader_uring *reader = calloc(1, sizeof(*reader));
    if (reader == NULL) {
        return nnc_fail(-ENOMEM, "no memory for a reader");
    }
    int code = setup_ring(&reader->ring);
    if (code >= 0) {
        reader->ring_ready = true;
        code = check_operations(&reader->ring);
    }
    if (code < 0) {
        uring_close(&reader->base);
        return code;
    }
    unsigned workers[2] = {WORKERS, WORKERS};
    io_uring_register_iowq_max_workers(&reader->ring,
                                       workers); /* an older kernel has its own limit */
    reader->direct = io_uring_register_files_sparse(&reader->ring, params->depth + ADVICE_MAX) == 0;
    *ret_reader = &reader->base;
    return 0;
}

/* ---- submission ---- */

static struct io_uring_sqe *get_entry(struct reader_uring *reader) {
    struct io_uring_sqe *sqe = io_uring_get_sqe(&reader->ring);
    assert(sqe != NULL); /* invariant 4 */
    return sqe;
}

static struct io_uring_sqe *take_entry(struct reader_uring *reader, uint32_t tag) {
    struct io_uring_sqe *sqe = get_entry(reader);
    reader->flights[tag].pending++;
    return sqe;
}

/* Preparing an entry clears its name and flags, so they are set afterwards. */
static void name_entry(struct io_uring_sqe *sqe, uint32_t tag, enum operation op, unsigned flags) {
    io_uring_sqe_set_data64(sqe, (uint64_t)tag << 8 | op);
    io_uring_sqe_set_flags(sqe, flags);
}

static void submit_read(struct reader_uring *reader, uint32_t tag, int fd, unsigned flags) {
    struct nnc_read_slot *slot = &reader->base.slots[tag];
    struct io_uring_sqe *sqe = take_entry(reader, tag);
    io_uring_prep_read(sqe, fd, slot->buffer + slot->place, (unsigned)slot->want, slot->offset);
    name_entry(sqe, tag, OP_READ, flags);
}

static void submit_direct(struct reader_uring *reader, uint32_t tag) {
    const struct nnc_extent *extent = &reader->base.slots[tag].extent;
    struct io_uring_sqe *sqe = take_entry(reader, tag);
    io_uring_prep_openat2_direct(sqe, extent->fd, extent->path,
                                 extent->direct ? &how_slot_uncached : &how_slot, tag);
    name_entry(sqe, tag, OP_OPEN, IOSQE_IO_LINK);
    submit_read(reader, tag, (int)tag, IOSQE_FIXED_FILE | IOSQE_IO_HARDLINK);
    sqe = take_entry(reader, tag);
    io_uring_prep_close_direct(sqe, tag);
    name_entry(sqe, tag, OP_CLOSE, 0);
}

static void submit_open(struct reader_uring *reader, uint32_t tag) {
    const struct nnc_extent *extent = &reader->base.slots[tag].extent;
    struct io_uring_sqe *sqe = take_entry(reader, tag);
    io_uring_prep_openat2(sqe, extent->fd, extent->path, extent->direct ? &how_uncached : &how);
    name_entry(sqe, tag, OP_OPEN, 0);
}

static void push_done(struct reader_uring *reader, uint32_t tag) {
    assert(reader->done_count < NNC_READER_DEPTH_MAX);
    reader->flights[tag].active = false;
    reader->done[(reader->done_first + reader->done_count) % NNC_READER_DEPTH_MAX] = tag;
    reader->done_count++;
}

static void uring_submit(struct nnc_reader *base, const struct nnc_read *read) {
    struct reader_uring *reader = (struct reader_uring *)base;
    struct flight *flight = &reader->flights[read->tag];
    assert(!flight->active && flight->pending == 0);
    reader->in_flight++;
    *flight = (struct flight){.active = true};
    if (nnc_read_slot_begin(base, read) < 0) {
        push_done(reader, read->tag);
        return;
    }
    const struct nnc_extent *extent = &base->slots[read->tag].extent;
    if (extent->path == NULL) {
        submit_read(reader, read->tag, extent->fd, 0);
    } else if (reader->direct) {
        flight->direct = true;
        submit_direct(reader, read->tag);
    } else {
        submit_open(reader, read->tag);
    }
}

/* ---- advice ---- */

/* Open a folder's file into a file slot, advise, and close it, without waiting for any of it. */
static void advise_file(struct reader_uring *reader, uint32_t place,
                        const struct nnc_extent *extent) {
    const unsigned file = reader->base.params.depth + place;
    struct io_uring_sqe *sqe = get_entry(reader);
    io_uring_prep_openat2_direct(sqe, extent->fd, extent->path, &how_slot, file);
    name_entry(sqe, place, OP_ADVICE_OPEN, IOSQE_IO_LINK | IOSQE_CQE_SKIP_SUCCESS);
    for (uint32_t i = 0; i < ADVICE_WINDOWS && i * NNC_READ_WINDOW < extent->bytes; i++) {
        sqe = get_entry(reader);
        io_uring_prep_fadvise(sqe, (int)file, i * NNC_READ_WINDOW, NNC_READ_WINDOW,
                              POSIX_FADV_WILLNEED);
        name_entry(sqe, place, OP_ADVICE,
                   IOSQE_FIXED_FILE | IOSQE_IO_HARDLINK | IOSQE_CQE_SKIP_SUCCESS);
    }
    sqe = get_entry(reader);
    io_uring_prep_close_direct(sqe, file);
    name_entry(sqe, place, OP_ADVICE_END, 0);
    reader->advising[place] = true;
}

static void uring_advise(struct nnc_reader *base, const struct nnc_extent *extent) {
    struct reader_uring *reader = (struct reader_uring *)base;
    if (extent->path == NULL) {
        nnc_read_advise_now(base, extent);
        return;
    }
    for (uint32_t place = 0; place < ADVICE_MAX && reader->direct; place++) {
        if (!reader->advising[place]) {
            advise_file(reader, place, extent);
            return;
        }
    }
}

/* ---- completion ---- */

/* All completions of a read are in: judge it, or read it again the plain way. */
static void finish(struct reader_uring *reader, uint32_t tag) {
    struct nnc_read_slot *slot = &reader->base.slots[tag];
    struct flight *flight = &reader->flights[tag];
    bool opened_here = slot->extent.path != NULL;
    bool refused = flight->opened == -EINVAL && !slot->extent.direct;
    if (flight->direct && (refused || flight->got == -EBADF)) {
        reader->direct = false; /* this kernel cannot link through a file slot */
    }
    if (opened_here && !flight->direct && flight->opened >= 0) {
        close(flight->opened);
    }
    bool read = flight->opened >= 0 && flight->got >= 0;
    if (read && nnc_read_slot_useful(slot, (size_t)flight->got) == slot->expect) {
        nnc_read_slot_got(slot, slot->expect);
    } else {
        nnc_read_slot_now(&reader->base, slot);
    }
    push_done(reader, tag);
}

static void complete(struct reader_uring *reader, const struct io_uring_cqe *cqe) {
    uint32_t tag = (uint32_t)(cqe->user_data >> 8);
    enum operation op = (enum operation)(cqe->user_data & 0xff);
    if (op >= OP_ADVICE_OPEN) {
        assert(tag < ADVICE_MAX);
        reader->advising[tag] = reader->advising[tag] && op == OP_ADVICE;
        return;
    }
    assert(tag < reader->base.params.depth && op < OP_COUNT);
    struct flight *flight = &reader->flights[tag];
    assert(flight->active && flight->pending > 0);
    flight->pending--;
    if (op == OP_OPEN) {
        flight->opened = cqe->res;
        if (!flight->direct && cqe->res >= 0) {
            submit_read(reader, tag, cqe->res, 0);
        }
    } else if (op == OP_READ) {
        flight->got = cqe->res;
    }
    if (flight->pending == 0) {
        finish(reader, tag);
    }
}

static void drain(struct reader_uring *reader) {
    struct io_uring_cqe *cqe;
    while (io_uring_peek_cqe(&reader->ring, &cqe) == 0) {
        struct io_uring_cqe copy = *cqe;
        io_uring_cqe_seen(&reader->ring, cqe);
        complete(reader, &copy);
    }
}

static int uring_wait(struct nnc_reader *base, struct nnc_read_done *ret_done) {
    struct reader_uring *reader = (struct reader_uring *)base;
    drain(reader);
    while (reader->done_count == 0 && reader->in_flight > 0) {
        int code = io_uring_submit_and_wait(&reader->ring, 1);
        if (code < 0 && code != -EINTR && code != -EAGAIN && code != -EBUSY) {
            return nnc_fail(code, "io_uring: %s", strerror(-code));
        }
        drain(reader);
    }
    if (reader->in_flight == 0) {
        return 0;
    }
    if (io_uring_sq_ready(&reader->ring) > 0) {
        io_uring_submit(&reader->ring); /* what is refused now is submitted by the next wait */
    }
    uint32_t tag = reader->done[reader->done_first];
    reader->done_first = (reader->done_first + 1) % NNC_READER_DEPTH_MAX;
    reader->done_count--;
    reader->in_flight--;
    nnc_read_slot_end(base, &base->slots[tag], ret_done);
    return 1;
}

const struct nnc_reader_ops nnc_reader_uring = {
    .name = "io_uring",
    .open = uring_open,
    .close = uring_close,
    .submit = uring_submit,
    .wait = uring_wait,
    .advise = uring_advise,
};
