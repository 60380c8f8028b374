/* SPDX-License-Identifier: Apache-2.0 */
/* One WebDataset shard being written: NAME.tar, and NAME.idx in the format of DALI's wds2idx. */
#ifndef NNC_DATA_SHARD_WRITE_H
#define NNC_DATA_SHARD_WRITE_H

#include "base/output.h"
#include "data/pack_image.h"

#include <stdint.h>
#include <stdio.h>

/* All zero: closed. */
struct nnc_shard_writer {
    struct nnc_output tar, idx;
    char *lines; /* of the index: its first line has the number of samples */
    size_t lines_bytes, lines_room;
    uint64_t samples;
};

/* Room for the name of a member, with its end. */
#define NNC_SHARD_NAME_MAX 100

/* Where the index says that a member lies. */
struct nnc_shard_place {
    uint64_t offset, size;
    char name[NNC_SHARD_NAME_MAX];
};

/* A line of the index: an image, and its label where it has one. */
struct nnc_shard_line {
    uint32_t places;
    struct nnc_shard_place place[2];
};

/* An index being read. All zero: closed. */
struct nnc_shard_index {
    FILE *file;
    uint64_t samples, lines; /* by its first line, read so far */
    char name[NNC_PATH_MAX + 32];
};

/* What the index says of its shard. */
struct nnc_shard_summary {
    uint64_t samples;
    uint64_t image_bytes; /* of the images alone */
    uint64_t tar_bytes;   /* of the whole archive */
};

/* Begin PATH.tar. Errors: as nnc_output_open(). */
int nnc_shard_writer_open(const char *path, struct nnc_shard_writer *ret_writer);

/* Append a sample: KEY.EXTENSION, and KEY.cls when label >= 0. key: at most 90 bytes without dots
 * and slashes. Errors: as nnc_output_write(); -ENOMEM. */
int nnc_shard_writer_add(struct nnc_shard_writer *writer, const char *key,
                         const struct nnc_pack_member *member, int32_t label);

/* End the archive; writer->tar.temp can be read from now on. Errors: as nnc_output_write(). */
int nnc_shard_writer_finish(struct nnc_shard_writer *writer);

/* Give both files of a finished shard their names, the index first: where a shard is, it is
 * complete. Errors: as nnc_output_commit(). */
int nnc_shard_writer_commit(struct nnc_shard_writer *writer);

/* Open the index NAME. Errors: of nnc_regular_open_stream(); -NNC_E_FORMAT it is none of ours. */
int nnc_shard_index_open(const char *name, struct nnc_shard_index *ret_index);

/* Its next line. Returns 1, or 0 behind the last one.
 * Errors: -NNC_E_FORMAT it is cut or is none of ours, naming it. */
int nnc_shard_index_next(struct nnc_shard_index *index, struct nnc_shard_line *ret_line);

/* Takes a closed one too. */
void nnc_shard_index_close(struct nnc_shard_index *index);

/* Read PATH.idx as a writer left it.
 * Errors: of nnc_regular_open_stream(); -NNC_E_FORMAT it is cut or is none of ours. Both name it.
 */
int nnc_shard_index_read(const char *path, struct nnc_shard_summary *ret_summary);

/* Remove what was written and free everything; does nothing but freeing after a commit. */
void nnc_shard_writer_abandon(struct nnc_shard_writer *writer);

#endif
