/* SPDX-License-Identifier: Apache-2.0 */
/* The scan of shards.
 *
 *   1. each shard by itself, in parallel (dataset_shard.c);
 *   2. all together: does any sample have a label? then numbered classes, which get names where a
 *      classes.txt lies beside the first shard, else classes by folder;
 *   3. the index, in the order of shards and members.
 *
 * Invariant: the index does not depend on the number of threads. */
#include "coordinator/dataset_tar.h"

#include "base/err.h"
#include "base/log.h"
#include "base/text.h"
#include "coordinator/dataset_cache.h"
#include "coordinator/dataset_classes.h"
#include "coordinator/dataset_parallel.h"
#include "coordinator/dataset_shard.h"
#include "coordinator/index_build.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct shard_file {
    struct nnc_shard shard;
    struct nnc_index_watch state; /* when it was scanned */
};

struct scan {
    const struct nnc_data_source *source;
    int root_fd;
    struct shard_file *files;
    size_t count;
    bool is_labelled;
    const char **classes; /* names into the shards' pools; only without labels */
    size_t class_count;
    struct nnc_classes names;           /* of classes.txt; only with labels */
    char names_path[NNC_PATH_MAX + 16]; /* of classes.txt, relative to the root */
    struct stat names_status;
    uint64_t unlabelled;
    char first_unlabelled[256];
};

static int scan_shard(void *context, size_t i);
static int decide_classes(struct scan *scan);
static int build_index(struct scan *scan, void **ret_bytes, size_t *ret_size);

int nnc_tar_scan(const struct nnc_data_source *source, uint32_t threads, void **ret_bytes,
                 size_t *ret_size) {
    assert(source->kind == NNC_INDEX_TAR);
    struct scan scan = {.source = source, .root_fd = -1, .count = source->name_count};
    int code = 0;
    scan.files = calloc(scan.count > 0 ? scan.count : 1, sizeof(*scan.files));
    if (scan.files == NULL) {
        code = nnc_fail(-ENOMEM, "%s: no memory for %zu shards", source->root, scan.count);
        goto out;
    }
    scan.root_fd = open(source->root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (scan.root_fd < 0) {
        code = nnc_fail_errno("%s", source->root);
        goto out;
    }
    code = nnc_parallel_for(scan.count, threads, scan_shard, &scan);
    if (code >= 0) {
        code = decide_classes(&scan);
    }
    if (code >= 0) {
        code = build_index(&scan, ret_bytes, ret_size);
    }
out:
    for (size_t i = 0; scan.files != NULL && i < scan.count; i++) {
        nnc_shard_finish(&scan.files[i].shard);
    }
    free(scan.files);
    free(scan.classes);
    nnc_classes_free(&scan.names);
    if (scan.root_fd >= 0) {
        close(scan.root_fd);
    }
    return code;
}

static ssize_t read_fd(void *context, void *data, size_t bytes, uint64_t offset) {
    return pread(*(const int *)context, data, bytes, (off_t)offset);
}

static int scan_shard(void *context, size_t i) {
    struct scan *scan = context;
    struct shard_file *file = &scan->files[i];
    const char *name = nnc_data_source_name(scan->source, i);
    char path[2 * NNC_PATH_MAX];
    snprintf(path, sizeof(path), "%s/%s", scan->source->root, name);
    int fd = openat(scan->root_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    struct stat status;
    if (fd < 0 || fstat(fd, &status) != 0) {
        int code = nnc_fail_errno("%s", path);
        if (fd >= 0) {
            close(fd);
        }
        return code;
    }
    int code = S_ISREG(status.st_mode) ? 0 : nnc_fail(-NNC_E_FORMAT, "%s: not a file", path);
    if (code >= 0) {
        file->state = nnc_cache_watch_file(&status);
        const struct nnc_tar_source source = {
            .name = path, .size = file->state.size, .read = read_fd, .context = &fd};
        code = nnc_shard_scan(&source, &file->shard);
    }
    close(fd);
    return code;
}

static int compare_names(const void *left, const void *right) {
    return strcmp(*(const char *const *)left, *(const char *const *)right);
}

static size_t count_images(const struct scan *scan) {
    size_t count = 0;
    for (size_t i = 0; i < scan->count; i++) {
        count += scan->files[i].shard.image_count;
    }
    return count;
}

/* Does a member lie in a class folder below a folder of this name? A class may have it too. */
static bool lies_below(const char *member, const char *folder) {
    size_t length = strlen(folder);
    for (const char *at = member; at != NULL; at = strchr(at, '/')) {
        at += *at == '/';
        if (strncmp(at, folder, length) == 0 && at[length] == '/' &&
            strchr(at + length + 1, '/') != NULL) {
            return true;
        }
    }
    return false;
}

/* A tar made of the folder above train/ and val/ would mix both into one part. */
static int refuse_both_parts(const struct scan *scan) {
    bool has_train = false, has_val = false;
    for (size_t i = 0; i < scan->count; i++) {
        const struct nnc_shard *shard = &scan->files[i].shard;
        for (size_t k = 0; k < shard->image_count && !(has_train && has_val); k++) {
            const char *name = nnc_pool_at(&shard->names, shard->images[k].name);
            has_train = has_train || lies_below(name, "train");
            for (const char *const *val = nnc_layout_val_folders; *val != NULL; val++) {
                has_val = has_val || lies_below(name, *val);
            }
        }
    }
    if (!has_train || !has_val) {
        return 0;
    }
    return nnc_fail(-NNC_E_USAGE,
                    "%s/%s holds training and validation folders, but a tar is one part: make "
                    "train.tar and val.tar in a directory, or give --val-data",
                    scan->source->root, nnc_data_source_name(scan->source, 0));
}

/* All different folders, sorted. No shard's pool grows any more, so pointers into them hold. */
static int collect_folders(struct scan *scan) {
    size_t images = count_images(scan);
    scan->classes = calloc(images > 0 ? images : 1, sizeof(*scan->classes));
    if (scan->classes == NULL) {
        return nnc_fail(-ENOMEM, "%s: no memory for its classes", scan->source->root);
    }
    size_t count = 0;
    for (size_t i = 0; i < scan->count; i++) {
        const struct nnc_shard *shard = &scan->files[i].shard;
        size_t last = NNC_SHARD_NO_FOLDER;
        for (size_t k = 0; k < shard->image_count; k++) {
            size_t folder = shard->images[k].folder;
            if (folder != NNC_SHARD_NO_FOLDER && folder != last) {
                scan->classes[count++] = nnc_pool_at(&shard->names, folder);
            }
            last = folder;
        }
    }
    qsort(scan->classes, count, sizeof(*scan->classes), compare_names);
    for (size_t i = 0; i < count; i++) {
        if (i == 0 || strcmp(scan->classes[i], scan->classes[scan->class_count - 1]) != 0) {
            scan->classes[scan->class_count++] = scan->classes[i];
        }
    }
    return 0;
}

/* Names for the numbered classes, if somebody left them beside the shards. */
static int read_names(struct scan *scan) {
    char path[2 * NNC_PATH_MAX + 32];
    const char *shard = nnc_data_source_name(scan->source, 0);
    const char *slash = strrchr(shard, '/');
    snprintf(scan->names_path, sizeof(scan->names_path), "%.*sclasses.txt",
             slash != NULL ? (int)(slash - shard) + 1 : 0, shard);
    snprintf(path, sizeof(path), "%s/%s", scan->source->root, scan->names_path);
    int fd =
        openat(scan->root_fd, scan->names_path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0) {
        return errno == ENOENT ? 0 : nnc_fail_errno("%s", path);
    }
    int code = fstat(fd, &scan->names_status) != 0 ? nnc_fail_errno("%s", path)
                                                   : nnc_classes_read(fd, path, &scan->names);
    close(fd);
    if (code >= 0 && scan->names.count < scan->class_count) {
        code = nnc_fail(-NNC_E_FORMAT, "%s:%u: no name for class %zu, which is a label in a shard",
                        path, (unsigned)scan->names.count, scan->class_count - 1);
    }
    scan->class_count = code >= 0 ? scan->names.count : scan->class_count;
    return code;
}

/* "; SHARD: MEMBER and what is wrong with it" of the first label that reaches no image, or "". */
static void explain_labels(const struct scan *scan, char *ret_text, size_t room) {
    ret_text[0] = '\0';
    for (int bare = 0; bare < 2; bare++) {
        for (size_t i = 0; i < scan->count; i++) {
            const struct nnc_shard *shard = &scan->files[i].shard;
            const char *reason = bare ? shard->first_bare : shard->first_lost;
            if (reason[0] != '\0') {
                snprintf(ret_text, room, "; %.80s: %s", nnc_data_source_name(scan->source, i),
                         reason);
                return;
            }
        }
    }
}

/* What the set as a whole says, and the faults that only count in the light of it. */
static int decide_classes(struct scan *scan) {
    const char *root = scan->source->root;
    if (count_images(scan) == 0) {
        return nnc_fail(-NNC_E_FORMAT, "%s/%s: no images (.jpg .jpeg .png) in %zu shards", root,
                        nnc_data_source_name(scan->source, 0), scan->count);
    }
    for (size_t i = 0; i < scan->count; i++) {
        int32_t label_max = scan->files[i].shard.label_max;
        if (label_max != NNC_SHARD_NO_LABEL) {
            scan->is_labelled = true;
            size_t classes = (size_t)label_max + 1;
            scan->class_count = classes > scan->class_count ? classes : scan->class_count;
        }
    }
    for (size_t i = 0; scan->is_labelled && i < scan->count; i++) {
        if (scan->files[i].shard.duplicate[0] != '\0') {
            return nnc_fail(-NNC_E_FORMAT, "%s/%s: %s", root, nnc_data_source_name(scan->source, i),
                            scan->files[i].shard.duplicate);
        }
    }
    int code = scan->is_labelled ? read_names(scan) : refuse_both_parts(scan);
    code = code < 0 || scan->is_labelled ? code : collect_folders(scan);
    if (code >= 0 && (scan->class_count == 0 || scan->class_count > NNC_INDEX_CLASSES_MAX)) {
        char reason[NNC_SHARD_FAULT_BYTES + 96];
        explain_labels(scan, reason, sizeof(reason));
        code = nnc_fail(-NNC_E_FORMAT,
                        "%s/%s: %zu classes: images need a label in KEY.cls or KEY.json, or class "
                        "folders in their names%s",
                        root, nnc_data_source_name(scan->source, 0), scan->class_count, reason);
    }
    return code;
}

/* The class of an image without labels, by its folder. */
static int32_t folder_label(const struct scan *scan, const struct nnc_shard *shard,
                            const struct nnc_shard_image *image) {
    if (image->folder == NNC_SHARD_NO_FOLDER) {
        return NNC_SHARD_NO_LABEL;
    }
    const char *name = nnc_pool_at(&shard->names, image->folder);
    const char **found =
        bsearch(&name, scan->classes, scan->class_count, sizeof(*scan->classes), compare_names);
    assert(found != NULL);
    return (int32_t)(found - scan->classes);
}

static void add_samples(struct scan *scan, size_t number, struct nnc_index_builder *builder) {
    const struct nnc_shard *shard = &scan->files[number].shard;
    for (size_t i = 0; i < shard->image_count; i++) {
        const struct nnc_shard_image *image = &shard->images[i];
        if (scan->is_labelled && !image->is_sample) {
            continue;
        }
        const char *name = nnc_pool_at(&shard->names, image->name);
        int32_t label = scan->is_labelled ? image->label : folder_label(scan, shard, image);
        if (label == NNC_SHARD_NO_LABEL && scan->unlabelled++ == 0) {
            char printable[160];
            nnc_text_escape(name, printable, sizeof(printable));
            snprintf(scan->first_unlabelled, sizeof(scan->first_unlabelled), "%.80s/%s",
                     nnc_data_source_name(scan->source, number), printable);
        }
        nnc_index_builder_add_sample(builder, &(struct nnc_index_entry){.name = name,
                                                                        .offset = image->offset,
                                                                        .size = image->size,
                                                                        .file = (uint32_t)number,
                                                                        .label = label,
                                                                        .head = image->head});
    }
}

static void add_classes(const struct scan *scan, struct nnc_index_builder *builder) {
    for (size_t i = 0; i < scan->class_count; i++) {
        char number[24];
        snprintf(number, sizeof(number), "%zu", i);
        const char *labelled = i < scan->names.count ? scan->names.name[i] : number;
        nnc_index_builder_add_class(builder, scan->is_labelled ? labelled : scan->classes[i]);
    }
}

/* A classes.txt that is changed, removed or added makes another index. */
static void watch_names(const struct scan *scan, struct nnc_index_builder *builder) {
    bool is_there = scan->names.text != NULL;
    const struct nnc_index_watch state =
        is_there ? nnc_cache_watch_file(&scan->names_status)
                 : (struct nnc_index_watch){.size = NNC_INDEX_WATCH_ABSENT};
    if (scan->is_labelled) {
        nnc_index_builder_add_watch(builder, scan->names_path, &state);
    }
}

static int build_index(struct scan *scan, void **ret_bytes, size_t *ret_size) {
    struct nnc_index_builder *builder = nnc_index_builder_create(NNC_INDEX_TAR);
    add_classes(scan, builder);
    watch_names(scan, builder);
    for (size_t i = 0; i < scan->count; i++) {
        const struct shard_file *file = &scan->files[i];
        const char *name = nnc_data_source_name(scan->source, i);
        nnc_index_builder_add_file(builder, name, file->state.size, file->state.mtime_ns);
        nnc_index_builder_add_watch(builder, name, &file->state);
        add_samples(scan, i, builder);
        if (file->shard.lacks_end) {
            nnc_log(NNC_LOG_WARN,
                    "%s/%s: the archive lacks its end: what lay behind may have been cut off",
                    scan->source->root, name);
        }
        if (file->shard.lost_labels > 0) {
            nnc_log(NNC_LOG_WARN, "%s/%s: %" PRIu64 " labels reach no image%s, the first: %s",
                    scan->source->root, name, file->shard.lost_labels,
                    scan->is_labelled ? "" : " and the folders are the classes",
                    file->shard.first_lost);
        }
    }
    if (scan->unlabelled > 0) {
        nnc_log(NNC_LOG_WARN,
                "%s: %" PRIu64
                " images have no label and count for nothing in loss and accuracy, the first is %s",
                scan->source->root, scan->unlabelled, scan->first_unlabelled);
    }
    int code = nnc_index_builder_finish(builder, ret_bytes, ret_size);
    nnc_index_builder_destroy(builder);
    return code;
}
