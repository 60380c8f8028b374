/* SPDX-License-Identifier: Apache-2.0 */
/* The MANIFEST of a checkpoint: written last, it names every file with its size and hashes, and
 * ends with its own hash. A directory whose files agree with its manifest is whole.
 *
 * Text:
 *   nncoord-ckpt 1
 *   file NAME SIZE XXH3-128            one for each file, followed by
 *   block XXH3-64                      one for each 1 MiB of it, the last one shorter
 *   end XXH3-64                        of all bytes before this line */
#ifndef NNC_WORKERS_MANIFEST_H
#define NNC_WORKERS_MANIFEST_H

#include "base/vfs.h"

#include <stddef.h>
#include <stdint.h>

#define NNC_MANIFEST_NAME  "MANIFEST"
#define NNC_MANIFEST_BLOCK (1u << 20)
#define NNC_MANIFEST_FILES 8

/* The text while it is being made. Zero it before the first use. */
struct nnc_manifest {
    char *text;
    size_t bytes, room;
};

/* Free the text. Takes a zeroed one. */
void nnc_manifest_finish(struct nnc_manifest *manifest);

/* Add the closing line; the text is complete then. Returns the hash that stands in it in *ret_hash.
 * Errors: -ENOMEM. */
int nnc_manifest_close(struct nnc_manifest *manifest, uint64_t *ret_hash);

/* A file that is hashed while it is written: bytes go to a private block first, and what is hashed
 * is exactly what is written. */
struct nnc_manifest_file;

/* Create dir/name, which must not exist, with `size` bytes reserved.
 * Owner:  end with nnc_manifest_file_commit() or _abort().
 * Errors: those of the file system, -ENOSPC among them; -ENOMEM. */
int nnc_manifest_file_create(struct nnc_vfs *vfs, const char *dir, const char *name, uint64_t size,
                             struct nnc_manifest_file **ret_file);

/* Room in the private block: *ret_space points to *ret_bytes >= 1 free bytes. Copy there, then
 * nnc_manifest_file_advance(). */
void nnc_manifest_file_space(struct nnc_manifest_file *file, void **ret_space, size_t *ret_bytes);

/* `bytes` were put into the space; full blocks are hashed and written. Errors: as pwrite. */
int nnc_manifest_file_advance(struct nnc_manifest_file *file, size_t bytes);

/* Copy bytes into the file. Errors: as pwrite. */
int nnc_manifest_file_append(struct nnc_manifest_file *file, const void *data, size_t bytes);

/* Write the rest, sync and close, and add the file's lines to the manifest. Frees the file in any
 * case. Errors: -EIO and friends; -NNC_E_FORMAT when other than `size` bytes were appended. */
int nnc_manifest_file_commit(struct nnc_manifest_file *file, struct nnc_manifest *manifest);

/* Close and free without a promise. Takes NULL. */
void nnc_manifest_file_abort(struct nnc_manifest_file *file);

/* Check every file of dir against its manifest, block by block.
 * Errors: -NNC_E_FORMAT naming file and block; -ENOENT and friends. *ret_hash is the manifest's. */
int nnc_manifest_verify(struct nnc_vfs *vfs, const char *dir, uint64_t *ret_hash);

/* Join dir and name in ret_path[room]. Errors: -ENAMETOOLONG. */
int nnc_path_join(const char *dir, const char *name, char *ret_path, size_t room);

#endif
