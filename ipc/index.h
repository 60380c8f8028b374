/* SPDX-License-Identifier: Apache-2.0 */
/* The index of a data set: where each sample's bytes lie and which label it has. Made once by the
 * coordinator (coordinator/dataset.h), kept in a cache file, given to the loaders in a sealed
 * memfd, read through the functions here. The bytes are hostile: opening checks every number in
 * them.
 *
 * Bytes, little endian, each table aligned to 8:
 *   0    header   struct nnc_index_header, 128 bytes
 *   then samples  struct nnc_index_sample [samples]
 *   then files    struct nnc_index_file [files]
 *   then classes  u64 [classes], offsets of class names into the strings
 *   then watched  struct nnc_index_watch [watched], directories and files that must not change
 *   then strings  zero-ended UTF-8 */
#ifndef NNC_IPC_INDEX_H
#define NNC_IPC_INDEX_H

#include <stddef.h>
#include <stdint.h>

#define NNC_INDEX_MAGIC   0x5844494343434e4eull /* "NNCCCIDX" */
#define NNC_INDEX_VERSION 3u

/* More classes than any data set has; larger numbers in labels are taken for damage. */
#define NNC_INDEX_CLASSES_MAX (1u << 20)

/* Size written for a sample larger than any reader takes: it is bad without being read. */
#define NNC_INDEX_SIZE_HUGE UINT32_MAX

enum nnc_index_kind {
    NNC_INDEX_FOLDER = 1, /* one file a sample, encoded image */
    NNC_INDEX_TAR = 2,    /* member of a tar shard, encoded image */
    NNC_INDEX_IDX = 3,    /* raw pixels inside a file or memfd */
};

struct nnc_index_header {
    uint64_t magic;
    uint32_t version;
    uint32_t kind;
    uint64_t total_bytes;
    uint64_t samples, files, classes, watched, string_bytes;
    uint32_t height, width, channels; /* of raw samples; 0 for encoded ones */
    uint32_t reserved;
    uint64_t data_bytes; /* sum of sample sizes, huge ones left out */
    uint64_t hash;       /* XXH3-64 of everything after the header */
    uint8_t pad[32];
};
_Static_assert(sizeof(struct nnc_index_header) == 128, "index header layout");

struct nnc_index_sample {
    uint64_t offset; /* of the sample's bytes in its file; 0 for FOLDER */
    uint64_t name;   /* offset into the strings: path relative to the root, or tar member, or "" */
    uint32_t size;   /* bytes, or NNC_INDEX_SIZE_HUGE */
    uint32_t file;   /* number in the file table; FOLDER: 0 and the path is `name` */
    int32_t label;   /* class number; -1 unknown: counts for nothing in loss and accuracy */
    uint32_t head; /* TAR: so many first bytes say which others are needed (ipc/sliced.h); else 0 */
};
_Static_assert(sizeof(struct nnc_index_sample) == 32, "index sample layout");

struct nnc_index_file {
    uint64_t name; /* offset into the strings, relative to the root; "" means the passed memfd */
    uint64_t size;
    int64_t mtime_ns;
};

struct nnc_index_watch {
    uint64_t name; /* relative to the root, "" is the root itself */
    int64_t mtime_ns;
    int64_t ctime_ns; /* of a file; 0 for directories, which nobody rewrites in place */
    uint64_t inode;   /* likewise */
    uint64_t size; /* of a file; 0 for directories; NNC_INDEX_WATCH_ABSENT: nothing of that name */
};

#define NNC_INDEX_WATCH_ABSENT UINT64_MAX

/* An opened index: read-only view on memory that the caller keeps. */
struct nnc_index {
    const struct nnc_index_header *header;
    const struct nnc_index_sample *samples;
    const struct nnc_index_file *files;
    const uint64_t *classes;
    const struct nnc_index_watch *watched;
    const char *strings;
};

/* Check all of bytes[0..size) and fill *ret_index with pointers into it. Every offset, label and
 * size is in range afterwards, every string ends inside; names of files and of folder samples are
 * relative paths without a ".." component.
 * Owner:  bytes stay the caller's, must outlive *ret_index and be aligned to 8.
 * Errors: -NNC_E_FORMAT naming the first fault; *ret_index is untouched then. */
int nnc_index_open(const void *bytes, size_t size, struct nnc_index *ret_index);

/* Hash of what the samples are, the same for each copy of a data set: shape, class names, and of
 * each sample in order its size, its label and, where it is a file or a tar's member, its name. Not
 * what it is kept in, when that changed, nor its bytes. */
uint64_t nnc_index_content_hash(const struct nnc_index *index);

/* Path of a sample as users know it: "train/CLASS/x.jpg" (relative to the root),
 * "shard.tar/key.jpg", "train-images-idx3-ubyte[17]". For messages, not for opening: it went
 * through nnc_text_escape(). buffer_bytes >= 4. Returns buffer. */
const char *nnc_index_sample_path(const struct nnc_index *index, uint64_t sample, char *buffer,
                                  size_t buffer_bytes);

/* Name of a class; classes are 0..header->classes-1. */
const char *nnc_index_class_name(const struct nnc_index *index, uint64_t class_number);

#endif
