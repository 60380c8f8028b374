/* SPDX-License-Identifier: Apache-2.0 */
/* Indexes kept between runs, one file a source: DIR/HASH.index, DIR is $XDG_CACHE_HOME or ~/.cache,
 * then nncoord/index. An index is taken back only when every folder and shard in its watch table
 * still is what it was: a folder by its time, a file by its times, size and inode. A cache that
 * cannot be read or written costs time, never an error. */
#ifndef NNC_COORDINATOR_DATASET_CACHE_H
#define NNC_COORDINATOR_DATASET_CACHE_H

#include "coordinator/dataset_source.h"

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

/* Write the path of the source's cache file. wanted_dir: the directory, NULL = from the
 * environment,
 * "" = no cache. False when there is to be no cache or no place for one. */
bool nnc_cache_path(const char *wanted_dir, const struct nnc_data_source *source,
                    char ret_path[PATH_MAX]);

/* Take the index of source from the file at path. False when there is none or it is out of date.
 * Owner: *ret_bytes is the caller's, free() it. */
bool nnc_cache_load(const char *path, const struct nnc_data_source *source, void **ret_bytes,
                    size_t *ret_size);

/* What to watch of a regular file: all but its name. ctime moves also when somebody puts mtime back
 * after rewriting the file, and the inode is another when a copy took its place. */
struct nnc_index_watch nnc_cache_watch_file(const struct stat *status);

/* Keep an index that was scanned from started_ns (CLOCK_REALTIME) on. Nothing is kept when a folder
 * or shard had changed just before, since a second change within the clock's grain would go unseen.
 */
void nnc_cache_store(const char *path, const struct nnc_index *index, int64_t started_ns);

/* Now, for started_ns. */
int64_t nnc_cache_now_ns(void);

#endif
