/* SPDX-License-Identifier: Apache-2.0 */
/* The members of a tar archive, one after another: where their bytes lie. Nothing is extracted. */
#ifndef NNC_COORDINATOR_DATASET_TAR_READER_H
#define NNC_COORDINATOR_DATASET_TAR_READER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define NNC_TAR_NAME_MAX 4095u

/* Largest body that nnc_tar_read() gives. */
#define NNC_TAR_BODY_MAX (1u << 20)

/* Where an archive's bytes come from. */
struct nnc_tar_source {
    const char *name; /* for errors */
    uint64_t size;    /* bytes in all */
    /* As pread(2): up to bytes at offset into data; < 0 sets errno. */
    ssize_t (*read)(void *context, void *data, size_t bytes, uint64_t offset);
    void *context;
};

struct nnc_tar_member {
    const char *name;       /* without leading "./"; valid until the next member */
    uint64_t header_offset; /* of the member's own header */
    uint64_t offset;        /* of its bytes */
    uint64_t size;
    bool is_regular;
};

struct nnc_tar_reader;

/* Start reading. The source is borrowed until close.
 * Errors: -ENOMEM. */
int nnc_tar_open(const struct nnc_tar_source *source, struct nnc_tar_reader **ret_reader);

/* Step to the next member. Names longer than the old 100 bytes (ustar prefix, pax, GNU) come whole.
 * Returns 1 with *ret_member filled, 0 at the end of the archive.
 * Errors: the system's; -NNC_E_FORMAT naming archive, offset and fault: wrong header checksum, a
 * size that is negative or beyond the archive, a cut in a member, a name that is absolute or has
 * "..", sparse members. */
int nnc_tar_next(struct nnc_tar_reader *reader, struct nnc_tar_member *ret_member);

/* After nnc_tar_next() returned 0: whether the archive is ended by zeros as it should be. Else it
 * was cut between two members, or made by a program that leaves them out. */
bool nnc_tar_has_end(const struct nnc_tar_reader *reader);

/* Bytes of a member just stepped to.
 * Owner: the reader's, valid until its next call. size <= NNC_TAR_BODY_MAX.
 * Errors: the system's; -NNC_E_FORMAT the archive ends before. */
int nnc_tar_read(struct nnc_tar_reader *reader, uint64_t offset, size_t size,
                 const unsigned char **ret_data);

/* End reading; takes NULL. The source stays open. */
void nnc_tar_close(struct nnc_tar_reader *reader);

#endif
