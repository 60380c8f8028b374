/* SPDX-License-Identifier: Apache-2.0 */
/* One WebDataset shard being written: NAME.tar, and NAME.idx in the format of DALI's wds2idx. */
#ifndef NNC_DATA_SHARD_WRITE_H
#define NNC_DATA_SHARD_WRITE_H

#include "base/output.h"
#include "data/pack_image.h"

#include <stdint.h>

/* All zero: closed. */
struct nnc_shard_writer {
    struct nnc_output tar, idx;
    char *lines; /* of the index: its first line has the number of samples */
    size_t lines_bytes, lines_room;
    uint64_t samples;
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

/* Read PATH.idx as a writer left it.
 * Errors: of nnc_regular_open(); -NNC_E_FORMAT it is cut or is none of ours. Both name it. */
int nnc_shard_index_read(const char *path, struct nnc_shard_summary *ret_summary);

/* Remove what was written and free everything; does nothing but freeing after a commit. */
void nnc_shard_writer_abandon(struct nnc_shard_writer *writer);

#endif
