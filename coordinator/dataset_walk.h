/* SPDX-License-Identifier: Apache-2.0 */
/* Finding the image files beneath one folder, in torchvision's order. */
#ifndef NNC_COORDINATOR_DATASET_WALK_H
#define NNC_COORDINATOR_DATASET_WALK_H

#include "coordinator/dataset_pool.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A file that was found. Symbolic links on the way are resolved: the name goes through none. */
struct nnc_walk_file {
    size_t name;   /* in the pool: path relative to the root */
    uint64_t size; /* bytes; 0 until nnc_walk_measure() */
};

/* A folder that was read. */
struct nnc_walk_dir {
    size_t name;      /* in the pool: path relative to the root, links resolved */
    int64_t mtime_ns; /* before it was read */
};

/* What was left out or will not load, with the first example of each kind. */
struct nnc_walk_notes {
    uint64_t outside;     /* links that lead out of the root */
    uint64_t broken;      /* links to nothing, to an enclosing folder, or files that vanished */
    uint64_t special;     /* devices, pipes, sockets with an image's name */
    uint64_t undecodable; /* indexed, but of a format no loader decodes */
    char first_outside[128], first_broken[128], first_special[128], first_undecodable[128];
};

/* The result of walks. Zero is a ready, empty one. */
struct nnc_walk {
    struct nnc_pool names;
    struct nnc_walk_file *files;
    size_t file_count, file_capacity;
    struct nnc_walk_dir *dirs;
    size_t dir_count, dir_capacity;
    struct nnc_walk_notes notes;
};

/* The directory all names are relative to. */
struct nnc_walk_root {
    const char *path; /* as realpath(3) gives it */
    int fd;           /* open on it */
};

/* True when torchvision would take the file for an image: its name's ending, in any case. */
bool nnc_walk_is_image(const char *name);

/* Where the link or plain file `name` (relative to the root) really is.
 * Owner: real, PATH_MAX bytes, gets the path relative to the root, "" for the root itself.
 * Errors: -ENOENT leads nowhere; -EXDEV leads out of the root. The text is set in both cases. */
int nnc_walk_resolve(const struct nnc_walk_root *root, const char *name, char *real);

/* Append all image files beneath the folder `name` (relative to the root, no links in it) to
 * *walk, in the order of torchvision's `for root, _, names in sorted(os.walk(folder)): for name in
 * sorted(names)`. Links are followed inside the root only, never to an enclosing folder, 64 levels
 * deep at most.
 * Errors: the system's, naming the folder; -NNC_E_FORMAT too deep or too many folders. */
int nnc_walk_folder(const struct nnc_walk_root *root, const char *name, struct nnc_walk *walk);

/* Fill in the sizes of files first..first+count-1. A file that vanished or is no regular one any
 * more gets size 0 and is found bad by the loader. */
void nnc_walk_measure(const struct nnc_walk_root *root, struct nnc_walk *walk, size_t first,
                      size_t count);

/* Log one warning for each kind of note. place: the folder in words. */
void nnc_walk_warn(const struct nnc_walk_notes *notes, const char *place);

/* Add the counts of *from to *notes. */
void nnc_walk_notes_add(struct nnc_walk_notes *notes, const struct nnc_walk_notes *from);

/* Free what a walk holds. */
void nnc_walk_finish(struct nnc_walk *walk);

#endif
