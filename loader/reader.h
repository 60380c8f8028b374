/* SPDX-License-Identifier: Apache-2.0 */
/* Reading of compressed samples: several in flight, each into a buffer of this process. The bytes
 * are the same whichever kind of reader is used. One file a kind; the kinds are rows of
 * nnc_reader_kinds. */
#ifndef NNC_LOADER_READER_H
#define NNC_LOADER_READER_H

#include "loader/source.h"

#include <stddef.h>
#include <stdint.h>

/* Most reads in flight of one reader. */
#define NNC_READER_DEPTH_MAX 16

/* Of offsets, lengths and memory of reads past the page cache: no device wants more. */
#define NNC_READER_ALIGN 4096u

struct nnc_reader;

struct nnc_reader_params {
    struct nnc_source *sources[2]; /* by enum nnc_phase; NULL: there is none */
    uint32_t depth;                /* reads in flight, 1..NNC_READER_DEPTH_MAX */
};

/* A read to do. Its tag names the buffer, which is overwritten: tags of reads in flight are
 * distinct. */
struct nnc_read {
    uint32_t tag; /* below depth */
    enum nnc_phase phase;
    uint64_t sample;
    uint32_t first, bytes; /* of the sample, inside it; bytes 0: all of it. Of shards only */
    uint32_t keep; /* bytes of the tag's last read, of the same sample, that stay in front */
};

/* A read that is done. */
struct nnc_read_done {
    uint32_t tag;
    int code;             /* 0, or why there are no bytes; then nnc_error_text() says it in words */
    const uint8_t *bytes; /* what was read, then slack (NNC_IMAGE_ROW_SLACK) */
    size_t size;
    const uint8_t *kept; /* of the read before, NULL: nothing was to be kept */
    size_t kept_size;
};

/* One kind of reader. */
struct nnc_reader_ops {
    const char *name; /* "io_uring", "pread", "null" */
    /* Errors: negative with the reason why this kind cannot be used here. */
    int (*open)(const struct nnc_reader_params *params, struct nnc_reader **ret_reader);
    void (*close)(struct nnc_reader *reader);
    void (*submit)(struct nnc_reader *reader, const struct nnc_read *read);
    int (*wait)(struct nnc_reader *reader, struct nnc_read_done *ret_done);
    /* NULL: this kind reads nothing that could be fetched. */
    void (*advise)(struct nnc_reader *reader, const struct nnc_extent *extent);
};

extern const struct nnc_reader_ops nnc_reader_uring;
extern const struct nnc_reader_ops nnc_reader_pread;
extern const struct nnc_reader_ops nnc_reader_null;

/* All kinds, NULL-ended, the preferred first. */
extern const struct nnc_reader_ops *const nnc_reader_kinds[];

/* Open the first kind that works, or only pread or null when method says so. *ret_note (of
 * note_bytes) tells why io_uring is not used, "" when it is. Errors: -ENOMEM. */
int nnc_reader_open(const struct nnc_reader_params *params, enum nnc_io_method method,
                    char *ret_note, size_t note_bytes, struct nnc_reader **ret_reader);

/* Wait for nothing, drop what is in flight and free everything. Takes NULL. */
void nnc_reader_close(struct nnc_reader *reader);

/* "io_uring" or "pread". */
const char *nnc_reader_name(const struct nnc_reader *reader);

/* Begin a read. It starts at the latest in the next nnc_reader_wait(). Never fails: what goes wrong
 * is told with the read's result. */
void nnc_reader_submit(struct nnc_reader *reader, const struct nnc_read *read);

/* Have the kernel fetch a sample into the page cache, since it will be read soon. Takes no tag and
 * waits for no storage but an open's. Advice that cannot be given or followed is forgotten, and
 * there is none where reads go past the page cache. Returns whether it was given. */
bool nnc_reader_advise(struct nnc_reader *reader, enum nnc_phase phase, uint64_t sample);

/* Take a finished read, in any order, sleeping until there is one. Returns 1 with *ret_done, 0 when
 * nothing is in flight. The bytes stay valid until the tag is submitted again. Errors: negative:
 * the reader is broken. */
int nnc_reader_wait(struct nnc_reader *reader, struct nnc_read_done *ret_done);

#endif
