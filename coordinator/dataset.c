/* SPDX-License-Identifier: Apache-2.0 */
/* Opening a data set.
 *
 *   1. layouts of path and val_path, from names (dataset_layout.c);
 *   2. which source is which part;
 *   3. each part by itself, both in parallel: index from the cache, or scan and keep it;
 *   4. the parts against each other: same classes, same kind of pixels.
 *
 * Invariant: an index that left this file was opened with all checks of nnc_index_open(), whether
 * it was just built or read from the cache.
 *
 * IDX sets are not cached: their index is made from the labels in less time than a cache is
 * checked. */
#include "coordinator/dataset.h"

#include "base/err.h"
#include "base/log.h"
#include "base/text.h"
#include "coordinator/dataset_cache.h"
#include "coordinator/dataset_folder.h"
#include "coordinator/dataset_idx.h"
#include "coordinator/dataset_packed.h"
#include "coordinator/dataset_parallel.h"
#include "coordinator/dataset_source.h"
#include "coordinator/dataset_tar.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct opening {
    const struct nnc_dataset_params *params;
    uint32_t threads;
    struct nnc_layout first, second;          /* of path, of val_path */
    const struct nnc_data_source *sources[2]; /* by enum nnc_phase, into the layouts; NULL: none */
    struct nnc_dataset *dataset;
};

static int check_packed(const struct nnc_dataset_params *params);
static int find_sources(struct opening *opening);
static int open_part(void *context, size_t phase);
static int compare_parts(struct nnc_dataset *dataset);

static struct nnc_dataset *dataset_create(void) {
    struct nnc_dataset *dataset = calloc(1, sizeof(*dataset));
    for (int i = 0; dataset != NULL && i < 2; i++) {
        dataset->parts[i].raw_fd = -1;
    }
    return dataset;
}

int nnc_dataset_open(const struct nnc_dataset_params *params, struct nnc_dataset **ret_dataset) {
    const unsigned parts = NNC_DATASET_TRAIN | NNC_DATASET_VAL;
    assert((params->phases & ~(parts | NNC_DATASET_PARTIAL)) == 0 && (params->phases & parts) != 0);
    struct opening opening = {.params = params, .threads = nnc_scan_threads(params->threads)};
    opening.dataset = dataset_create();
    int code = opening.dataset == NULL ? nnc_fail(-ENOMEM, "no memory for a data set")
                                       : check_packed(params);
    code = code < 0 ? code : find_sources(&opening);
    if (code >= 0) {
        code = nnc_parallel_for(2, opening.threads, open_part, &opening);
    }
    if (code >= 0) {
        code = compare_parts(opening.dataset);
    }
    nnc_layout_finish(&opening.first);
    nnc_layout_finish(&opening.second);
    if (code < 0) {
        nnc_dataset_close(opening.dataset);
        return code;
    }
    *ret_dataset = opening.dataset;
    return 0;
}

/* The folder of the only class may be the data set that was meant: its images lie deeper than those
 * of a class mostly do. */
static bool is_one_too_high(const struct nnc_dataset *dataset) {
    const struct nnc_dataset_part *part = &dataset->parts[NNC_PHASE_TRAIN];
    part = part->samples != 0 ? part : &dataset->parts[NNC_PHASE_VAL];
    if (!dataset->is_plain || part->index.header->kind != NNC_INDEX_FOLDER) {
        return false;
    }
    const char *name = part->index.strings + part->index.samples[0].name;
    const char *inside = strchr(name, '/');
    return inside != NULL && strchr(inside + 1, '/') != NULL;
}

/* What is allowed, but seldom meant. */
static void advise(const struct nnc_config *config, unsigned phases,
                   const struct nnc_dataset *dataset) {
    if (dataset->is_plain && (phases & NNC_DATASET_TRAIN) == 0) {
        nnc_log(NNC_LOG_INFO,
                "%s has no validation set beside a training set: all its images are taken; "
                "--val-data names others",
                config->data);
    }
    if (dataset->classes != 1) {
        return;
    }
    char name[NNC_NAME_MAX], meant[NNC_PATH_MAX + NNC_NAME_MAX + 32] = "";
    nnc_text_escape(nnc_dataset_class_name(dataset, 0), name, sizeof(name));
    if (is_one_too_high(dataset)) {
        snprintf(meant, sizeof(meant), ": did you mean %s/%s?", config->data, name);
    }
    nnc_log(NNC_LOG_WARN, "%s has 1 class, %s%s", config->data, name, meant);
}

int nnc_dataset_open_config(const struct nnc_config *config, unsigned phases,
                            struct nnc_dataset **ret_dataset) {
    if (config->data[0] == '\0') {
        return nnc_fail(-NNC_E_USAGE,
                        "no data set given: put its folder or tar file behind the verb, "
                        "or --data-path DIR");
    }
    const struct nnc_dataset_params params = {.path = config->data,
                                              .val_path = config->val_data,
                                              .format = (enum nnc_data_format)config->format,
                                              .phases = phases,
                                              .shm_dir = config->shm_dir,
                                              .reindex = config->reindex};
    int code = nnc_dataset_open(&params, ret_dataset);
    if (code >= 0) {
        advise(config, phases, *ret_dataset);
    }
    /* A path that is not there or not ours to read is the user's to mend. */
    bool mistyped = code == -ENOENT || code == -ENOTDIR || code == -EACCES;
    return mistyped ? nnc_fail(-NNC_E_USAGE, "data set %s", nnc_error_text()) : code;
}

uint32_t nnc_dataset_channels(const struct nnc_dataset *dataset, uint32_t wanted) {
    for (int phase = 0; dataset != NULL && phase < 2 && wanted == 0; phase++) {
        const struct nnc_dataset_part *part = &dataset->parts[phase];
        if (part->samples != 0 && part->index.header->kind == NNC_INDEX_IDX) {
            wanted = part->index.header->channels;
        }
    }
    return wanted == 0 ? 3 : wanted;
}

void nnc_dataset_close(struct nnc_dataset *dataset) {
    for (int i = 0; dataset != NULL && i < 2; i++) {
        free(dataset->parts[i].bytes);
        if (dataset->parts[i].raw_fd >= 0) {
            close(dataset->parts[i].raw_fd);
        }
    }
    free(dataset);
}

const char *nnc_dataset_class_name(const struct nnc_dataset *dataset, uint32_t class_number) {
    assert(class_number < dataset->classes);
    const struct nnc_index *train = &dataset->parts[NNC_PHASE_TRAIN].index;
    bool in_train = train->header != NULL && class_number < train->header->classes;
    const struct nnc_index *index = in_train ? train : &dataset->parts[NNC_PHASE_VAL].index;
    return nnc_index_class_name(index, class_number);
}

const char *nnc_dataset_sample_path(const struct nnc_dataset_part *part, uint64_t sample,
                                    char *buffer, size_t buffer_bytes) {
    bool is_absolute = strcmp(part->root, "/") == 0;
    buffer[0] = '/';
    nnc_index_sample_path(&part->index, sample, buffer + is_absolute, buffer_bytes - is_absolute);
    return buffer;
}

/* --- which source is which part ------------------------------------------------------------------
 */

static bool is_given(const char *path) {
    return path != NULL && path[0] != '\0';
}

/* A set that pack was stopped in the middle of looks like a smaller one. */
static int check_packed(const struct nnc_dataset_params *params) {
    bool has_val_path = is_given(params->val_path);
    unsigned first = has_val_path ? params->phases & ~(unsigned)NNC_DATASET_VAL : params->phases;
    int code = nnc_packed_check(params->path, first);
    if (code >= 0 && has_val_path && (params->phases & NNC_DATASET_VAL) != 0) {
        code = nnc_packed_check(params->val_path, NNC_DATASET_VAL);
    }
    if (code == -NNC_E_USAGE && (params->phases & NNC_DATASET_PARTIAL) != 0) {
        nnc_log(NNC_LOG_WARN, "%s", nnc_error_text());
        nnc_error_clear();
        return 0;
    }
    return code;
}

/* A source, or NULL when it is absent. */
static const struct nnc_data_source *present(const struct nnc_data_source *source) {
    return source->kind != 0 ? source : NULL;
}

static int find_val_elsewhere(struct opening *opening) {
    const struct nnc_dataset_params *params = opening->params;
    int code = nnc_layout_find(params->val_path, params->format, &opening->second);
    if (code < 0) {
        return code;
    }
    const struct nnc_data_source *val = present(&opening->second.val);
    val = val != NULL ? val : present(&opening->second.plain);
    opening->sources[NNC_PHASE_VAL] = val;
    return val != NULL ? 0
                       : nnc_fail(-NNC_E_USAGE, "%s: holds a training set only, no validation set",
                                  params->val_path);
}

static int find_sources(struct opening *opening) {
    const struct nnc_dataset_params *params = opening->params;
    bool wants_train = (params->phases & NNC_DATASET_TRAIN) != 0;
    bool wants_val = (params->phases & NNC_DATASET_VAL) != 0;
    int code = wants_val && is_given(params->val_path) ? find_val_elsewhere(opening) : 0;
    bool needs_first = wants_train || opening->sources[NNC_PHASE_VAL] == NULL;
    if (code < 0 || !needs_first) {
        return code;
    }
    code = nnc_layout_find(params->path, params->format, &opening->first);
    if (code < 0) {
        return code;
    }
    const struct nnc_data_source *plain = present(&opening->first.plain);
    const struct nnc_data_source *train = present(&opening->first.train);
    const struct nnc_data_source *val = present(&opening->first.val);
    if (wants_train) {
        opening->sources[NNC_PHASE_TRAIN] = train != NULL ? train : plain;
        opening->dataset->is_plain = train == NULL;
    } else if (val == NULL) {
        val = plain;
        opening->dataset->is_plain = opening->sources[NNC_PHASE_VAL] == NULL && plain != NULL;
    }
    if (wants_val && opening->sources[NNC_PHASE_VAL] == NULL) {
        opening->sources[NNC_PHASE_VAL] = val;
    }
    if (wants_train && opening->sources[NNC_PHASE_TRAIN] == NULL) {
        return nnc_fail(-NNC_E_USAGE, "%s: holds a validation set only, no training set (train/)",
                        params->path);
    }
    if (!wants_train && opening->sources[NNC_PHASE_VAL] == NULL) {
        return nnc_fail(-NNC_E_USAGE,
                        "%s: holds a training set only; a validation set would be in val, valid, "
                        "validation or test there, or is named by --val-data",
                        params->path);
    }
    return 0;
}

/* --- one part ------------------------------------------------------------------------------------
 */

/* Check bytes that were just made or read and show them through *part, which owns them from here.
 */
static int adopt(struct nnc_dataset_part *part, const struct nnc_data_source *source, void *bytes,
                 size_t size) {
    part->bytes = bytes;
    part->size = size;
    int code = nnc_index_open(bytes, size, &part->index);
    if (code < 0) {
        return nnc_fail_in(code, "%s", source->root);
    }
    part->samples = part->index.header->samples;
    snprintf(part->root, sizeof(part->root), "%s", source->root);
    return part->samples > 0 ? 0 : nnc_fail(-NNC_E_FORMAT, "%s: no images in it", source->root);
}

static int scan_idx(const struct opening *opening, const struct nnc_data_source *source,
                    struct nnc_dataset_part *part) {
    struct nnc_idx_result result;
    int code = nnc_idx_scan(source, opening->params->shm_dir, &result);
    if (code < 0) {
        return code;
    }
    part->raw_fd = result.raw_fd;
    part->raw_bytes = result.raw_bytes;
    return adopt(part, source, result.bytes, result.size);
}

static int scan_part(const struct opening *opening, const struct nnc_data_source *source,
                     const char *cache_path, struct nnc_dataset_part *part) {
    int64_t started_ns = nnc_cache_now_ns();
    void *bytes;
    size_t size;
    int code = source->kind == NNC_INDEX_FOLDER
                   ? nnc_folder_scan(source, opening->threads, &bytes, &size)
                   : nnc_tar_scan(source, opening->threads, &bytes, &size);
    if (code >= 0) {
        code = adopt(part, source, bytes, size);
    }
    if (code >= 0 && cache_path != NULL) {
        nnc_cache_store(cache_path, &part->index, started_ns);
    }
    return code;
}

static int open_part(void *context, size_t phase) {
    struct opening *opening = context;
    const struct nnc_data_source *source = opening->sources[phase];
    struct nnc_dataset_part *part = &opening->dataset->parts[phase];
    if (source == NULL) {
        return 0;
    }
    if (source->kind == NNC_INDEX_IDX) {
        return scan_idx(opening, source, part);
    }
    char cache_path[PATH_MAX];
    bool has_cache = nnc_cache_path(opening->params->cache_dir, source, cache_path);
    void *bytes;
    size_t size;
    if (has_cache && !opening->params->reindex &&
        nnc_cache_load(cache_path, source, &bytes, &size)) {
        part->is_from_cache = true;
        return adopt(part, source, bytes, size);
    }
    return scan_part(opening, source, has_cache ? cache_path : NULL, part);
}

/* --- the parts against each other ----------------------------------------------------------------
 */

/* The names of the classes, sorted. */
struct names {
    const char **name;
    uint64_t count;
};

static int compare_names(const void *left, const void *right) {
    return strcmp(*(const char *const *)left, *(const char *const *)right);
}

static int sort_names(const struct nnc_index *index, struct names *ret_names) {
    struct names names = {.count = index->header->classes};
    names.name = calloc(names.count + 1, sizeof(*names.name));
    if (names.name == NULL) {
        return nnc_fail(-ENOMEM, "no memory to compare the classes");
    }
    for (uint64_t i = 0; i < names.count; i++) {
        names.name[i] = nnc_index_class_name(index, i);
    }
    qsort(names.name, names.count, sizeof(*names.name), compare_names);
    *ret_names = names;
    return 0;
}

/* Append the classes that a has and b has not to text. Returns their number. */
static uint64_t list_missing(const struct names *a, const struct names *b, char *text,
                             size_t text_bytes) {
    uint64_t missing = 0;
    uint64_t in_b = 0;
    size_t at = 0;
    text[0] = '\0';
    for (uint64_t i = 0; i < a->count; i++) {
        while (in_b < b->count && strcmp(b->name[in_b], a->name[i]) < 0) {
            in_b++;
        }
        if (in_b < b->count && strcmp(b->name[in_b], a->name[i]) == 0) {
            continue;
        }
        if (missing++ < 5) {
            at += (size_t)snprintf(text + at, text_bytes - at, "%s%.40s", at > 0 ? ", " : "",
                                   a->name[i]);
        }
    }
    if (missing > 5) {
        snprintf(text + at, text_bytes - at, ", ...");
    }
    return missing;
}

/* True when the class names are the numbers 0, 1, 2, ... as labels in files give them. */
static bool is_numbered(const struct nnc_index *index) {
    for (uint64_t i = 0; i < index->header->classes; i++) {
        char number[24];
        snprintf(number, sizeof(number), "%" PRIu64, i);
        if (strcmp(number, nnc_index_class_name(index, i)) != 0) {
            return false;
        }
    }
    return true;
}

/* Are the classes of one part numbers in shards, which the other part has names for? */
static bool names_numbers(const struct nnc_index *names, const struct nnc_index *numbers) {
    return numbers->header->kind == NNC_INDEX_TAR && is_numbered(numbers) &&
           numbers->header->classes <= names->header->classes;
}

/* Equal names, but do they have equal numbers? Names from a file come in any order. */
static int compare_order(const struct nnc_index *train, const struct nnc_index *val) {
    uint64_t a = train->header->classes, b = val->header->classes;
    for (uint64_t i = 0; i < a && i < b; i++) {
        const char *in_train = nnc_index_class_name(train, i);
        const char *in_val = nnc_index_class_name(val, i);
        if (strcmp(in_train, in_val) != 0) {
            return nnc_fail(-NNC_E_FORMAT,
                            "class %" PRIu64 " is %.80s in the training set and %.80s in the "
                            "validation set: their classes must have the same order",
                            i, in_train, in_val);
        }
    }
    return 0;
}

static int compare_sorted(const struct names *train, const struct names *val) {
    char only_train[256];
    char only_val[256];
    uint64_t in_train = list_missing(train, val, only_train, sizeof(only_train));
    uint64_t in_val = list_missing(val, train, only_val, sizeof(only_val));
    if (in_train == 0 && in_val == 0) {
        return 0;
    }
    return nnc_fail(-NNC_E_FORMAT,
                    "training and validation set have different classes: %" PRIu64
                    " only in training (%s), %" PRIu64 " only in validation (%s)",
                    in_train, only_train, in_val, only_val);
}

static int compare_classes(const struct nnc_index *train, const struct nnc_index *val) {
    if (is_numbered(train) && is_numbered(val)) {
        return 0; /* the largest label decides */
    }
    if (names_numbers(train, val) || names_numbers(val, train)) {
        return 0;
    }
    struct names train_names = {0}, val_names = {0};
    int code = sort_names(train, &train_names);
    code = code < 0 ? code : sort_names(val, &val_names);
    code = code < 0 ? code : compare_sorted(&train_names, &val_names);
    code = code < 0 ? code : compare_order(train, val);
    free(train_names.name);
    free(val_names.name);
    return code;
}

static int compare_parts(struct nnc_dataset *dataset) {
    const struct nnc_index_header *train = dataset->parts[NNC_PHASE_TRAIN].index.header;
    const struct nnc_index_header *val = dataset->parts[NNC_PHASE_VAL].index.header;
    uint64_t train_classes = train != NULL ? train->classes : 0;
    uint64_t val_classes = val != NULL ? val->classes : 0;
    dataset->classes = (uint32_t)(train_classes > val_classes ? train_classes : val_classes);
    if (train == NULL || val == NULL) {
        return 0;
    }
    if (train->height != val->height || train->width != val->width ||
        train->channels != val->channels) {
        return nnc_fail(-NNC_E_FORMAT,
                        "training images are %ux%ux%u and validation images %ux%ux%u (height, "
                        "width, channels; 0x0x0 are encoded ones): they must be of one kind",
                        train->height, train->width, train->channels, val->height, val->width,
                        val->channels);
    }
    return compare_classes(&dataset->parts[NNC_PHASE_TRAIN].index,
                           &dataset->parts[NNC_PHASE_VAL].index);
}
