/* SPDX-License-Identifier: Apache-2.0 */
/* One data set as a loader sees it: the index, the directory its names are relative to, and the
 * open shards. Answers where the bytes of a sample are. */
#ifndef NNC_LOADER_SOURCE_H
#define NNC_LOADER_SOURCE_H

#include "ipc/index.h"
#include "ipc/setup.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A sample's file may be this large; what is larger is no image to train on. */
#define NNC_SOURCE_MAX_BYTES (256u * 1048576u)

struct nnc_source;

/* Where a sample's bytes are. */
struct nnc_extent {
    int fd;           /* folder: the data directory; else the shard */
    const char *path; /* folder: relative to fd; else NULL: read fd itself */
    uint64_t offset;
    uint32_t bytes;
    bool direct; /* read past the page cache, aligned */
};

/* Map the index, check it, and open the data directory. direct: files are to be read past the page
 * cache, where their file system can. The descriptors in data stay open and the caller's. Errors:
 * -NNC_E_FORMAT bad index; errno of the directory. */
int nnc_source_open(const struct nnc_setup_data *data, bool direct, struct nnc_source **ret_source);

/* Close everything but the caller's descriptors. Takes NULL. */
void nnc_source_close(struct nnc_source *source);

/* The checked index; stays the source's. */
const struct nnc_index *nnc_source_index(const struct nnc_source *source);

/* Say where sample's bytes are and keep its shard open until nnc_source_release(). sample < samples
 * of the index (assert). Opens the shard when it is not open, closing one that nobody reads if
 * there are too many. Errors: -NNC_E_FORMAT shard is no regular file, has changed, or the sample is
 * too large; errno of open. */
int nnc_source_locate(struct nnc_source *source, uint64_t sample, struct nnc_extent *ret_extent);

/* The reading of a located sample is over. */
void nnc_source_release(struct nnc_source *source, uint64_t sample);

/* Open a file beneath a directory for reading, never waiting for a FIFO's writer and never leaving
 * the directory through links; with direct past the page cache, where the file system can. Returns
 * the descriptor. Errors: errno; -EXDEV: a link leads outside.
 */
int nnc_source_open_beneath(int directory, const char *path, bool direct);

#endif
