/* SPDX-License-Identifier: Apache-2.0 */
/* The data set of a run: found, scanned once and indexed, before any other process exists.
 *
 *     struct nnc_dataset_params params = {.path = "DIR", .phases = NNC_DATASET_TRAIN |
 * NNC_DATASET_VAL}; struct nnc_dataset *dataset; int code = nnc_dataset_open(&params, &dataset);
 *     ... dataset->parts[NNC_PHASE_TRAIN].bytes go to the loaders in a sealed memfd ...
 *     nnc_dataset_close(dataset);
 *
 * Layouts: class folders (torchvision's ImageFolder), tar shards (WebDataset, or class folders in a
 * tar) and IDX (MNIST); docs in coordinator/dataset_layout.c. */
#ifndef NNC_COORDINATOR_DATASET_H
#define NNC_COORDINATOR_DATASET_H

#include "base/config.h"
#include "ipc/index.h"
#include "ipc/schedule.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Parts to open, one bit a phase, and what of a set that is not whole. */
enum {
    NNC_DATASET_TRAIN = 1 << NNC_PHASE_TRAIN,
    NNC_DATASET_VAL = 1 << NNC_PHASE_VAL,
    NNC_DATASET_PARTIAL = 1 << 2, /* a half-packed set is worth a warning, not an error */
};

struct nnc_dataset_params {
    const char *path;            /* directory, .tar file or pattern name-{000..146}.tar */
    const char *val_path;        /* validation set elsewhere; NULL or "": beside the training set */
    enum nnc_data_format format; /* AUTO takes what fits */
    unsigned phases;             /* NNC_DATASET_* */
    const char *cache_dir;       /* NULL: $XDG_CACHE_HOME or ~/.cache, in nncoord/index; "": none */
    const char *shm_dir;         /* where memfds are forbidden; NULL or "": none */
    bool reindex;                /* scan although the cache is up to date */
    uint32_t threads;            /* of the scan; 0: one per usable CPU, at most 8 */
};

/* One indexed set. samples 0: there is none; all other fields are zero then, but raw_fd is -1. */
struct nnc_dataset_part {
    uint64_t samples;
    struct nnc_index index; /* view on bytes */
    void *bytes;            /* of the index, as nnc_index_open() takes them */
    size_t size;
    char root[NNC_PATH_MAX]; /* absolute; names in the index are relative to it */
    int raw_fd;              /* sealed memfd with a zipped IDX file's inflated bytes; -1: none */
    size_t raw_bytes;
    bool is_from_cache;
};

struct nnc_dataset {
    struct nnc_dataset_part parts[2]; /* by enum nnc_phase */
    uint32_t classes;                 /* of all parts; 0 for nnc_dataset_from_files() */
    bool is_plain;                    /* the set says neither train nor val and is taken as asked */
};

/* Find, scan and index the wanted parts. With TRAIN, a training set must be there; a validation
 * set may be absent unless val_path names it. With VAL alone a set that says neither train nor val
 * is taken for validation. Both must have the same classes; numbered ones (IDX, KEY.cls) may be
 * fewer in one part.
 * Owner: *ret_dataset is the caller's, nnc_dataset_close() it.
 * Errors: the system's; -NNC_E_USAGE no such layout or part, or shards are missing that a pack.json
 * beside them tells of; -NNC_E_FORMAT damaged shards or IDX
 * files, empty classes, different classes. The text names the place and the remedy. */
int nnc_dataset_open(const struct nnc_dataset_params *params, struct nnc_dataset **ret_dataset);

/* The same for the data set that a configuration names (phases: NNC_DATASET_*). Logs what is seldom
 * meant: a single class, training images in place of validation images. Errors also:
 * -NNC_E_USAGE with the line that would work when none was given or its path is not there. */
int nnc_dataset_open_config(const struct nnc_config *config, unsigned phases,
                            struct nnc_dataset **ret_dataset);

/* Colour channels of the samples that are made: wanted where that is not 0, else those of raw
 * pixels, else 3. dataset may be NULL: no data. */
uint32_t nnc_dataset_channels(const struct nnc_dataset *dataset, uint32_t wanted);

/* Index images without labels as the VAL part: each path is an image file or a folder that is
 * searched for images. Samples come in the order of paths, a folder's in torchvision's order. Root
 * is the working directory when everything is beneath it, else "/"; symbolic links are resolved.
 * paths[0..count). Owner and errors as nnc_dataset_open(); -NNC_E_USAGE a path without any image.
 */
int nnc_dataset_from_files(const char *const *paths, size_t count, uint32_t threads,
                           struct nnc_dataset **ret_dataset);

/* Path of a sample for messages, as nnc_index_sample_path() has it, but absolute where the root is
 * "/". Owner: text is in buffer, buffer_bytes >= 5. Returns buffer. */
const char *nnc_dataset_sample_path(const struct nnc_dataset_part *part, uint64_t sample,
                                    char *buffer, size_t buffer_bytes);

/* Name of class 0..dataset->classes-1. */
const char *nnc_dataset_class_name(const struct nnc_dataset *dataset, uint32_t class_number);

/* Free everything; takes NULL. */
void nnc_dataset_close(struct nnc_dataset *dataset);

#endif
