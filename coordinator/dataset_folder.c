/* SPDX-License-Identifier: Apache-2.0 */
/* The scan of class folders.
 *
 *   1. list the folder of classes, sort the names bytewise;
 *   2. walk each class, in parallel (dataset_walk.c);
 *   3. measure the files, in parallel: each stat waits for the disk alone, and one class may hold
 * all;
 *   4. join everything in the order of the classes.
 *
 * Invariant: the index does not depend on the number of threads.
 * Source: torchvision.datasets.folder (find_classes, make_dataset, ImageFolder). */
#include "coordinator/dataset_folder.h"

#include "base/err.h"
#include "base/log.h"
#include "coordinator/dataset_parallel.h"
#include "coordinator/index_build.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MEASURE_AT_ONCE 256u

struct class_folder {
    size_t name;   /* in the pool of names */
    size_t folder; /* relative to the root, links resolved */
    struct nnc_walk walk;
};

struct scan {
    const struct nnc_data_source *source;
    struct nnc_walk_root root;
    struct nnc_pool names;
    struct class_folder *classes;
    size_t class_count, class_capacity;
    int64_t mtime_ns; /* of the folder of classes */
};

struct measure {
    const struct nnc_walk_root *root;
    struct nnc_walk *walk;
};

static int list_classes(struct scan *scan);
static int walk_class(void *context, size_t i);
static int check_classes(const struct scan *scan);
static int measure_classes(struct scan *scan, uint32_t threads);
static int build_index(const struct scan *scan, void **ret_bytes, size_t *ret_size);

int nnc_folder_scan(const struct nnc_data_source *source, uint32_t threads, void **ret_bytes,
                    size_t *ret_size) {
    assert(source->kind == NNC_INDEX_FOLDER);
    struct scan scan = {.source = source, .root = {.path = source->root}};
    scan.root.fd = open(source->root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int code = scan.root.fd < 0 ? nnc_fail_errno("%s", source->root) : list_classes(&scan);
    if (code >= 0) {
        code = nnc_parallel_for(scan.class_count, threads, walk_class, &scan);
    }
    if (code >= 0) {
        code = check_classes(&scan);
    }
    if (code >= 0) {
        code = measure_classes(&scan, threads);
    }
    if (code >= 0) {
        code = build_index(&scan, ret_bytes, ret_size);
    }
    for (size_t i = 0; i < scan.class_count; i++) {
        nnc_walk_finish(&scan.classes[i].walk);
    }
    free(scan.classes);
    nnc_pool_finish(&scan.names);
    if (scan.root.fd >= 0) {
        close(scan.root.fd);
    }
    return code;
}

/* Append a class; `folder` is where its files really are. */
static int add_class(struct scan *scan, const char *name, const char *folder) {
    void *rows = scan->classes;
    if (!nnc_array_grow(&rows, scan->class_count, &scan->class_capacity, sizeof(*scan->classes))) {
        return nnc_fail(-ENOMEM, "%s: no memory for its classes", scan->root.path);
    }
    scan->classes = rows;
    if (scan->class_count >= NNC_INDEX_CLASSES_MAX) {
        return nnc_fail(-NNC_E_FORMAT, "%s/%s: more than %u classes", scan->root.path,
                        scan->source->folder, NNC_INDEX_CLASSES_MAX);
    }
    scan->classes[scan->class_count++] = (struct class_folder){
        .name = nnc_pool_add(&scan->names, name, strlen(name)),
        .folder = nnc_pool_add(&scan->names, folder, strlen(folder)),
    };
    return scan->names.failed ? nnc_fail(-ENOMEM, "%s: no memory for its classes", scan->root.path)
                              : 0;
}

/* Add the entry if it is a folder or a link to one, as Python's DirEntry.is_dir() sees it. */
static int consider_class(struct scan *scan, int fd, const struct dirent *entry) {
    const char *name = entry->d_name;
    struct stat status;
    if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0 ||
        (entry->d_type != DT_DIR && entry->d_type != DT_LNK && entry->d_type != DT_UNKNOWN) ||
        fstatat(fd, name, &status, 0) != 0 || !S_ISDIR(status.st_mode)) {
        return 0;
    }
    const char *base = scan->source->folder;
    char path[NNC_PATH_MAX + NAME_MAX + 2];
    char real[PATH_MAX];
    snprintf(path, sizeof(path), "%s%s%s", base, base[0] != '\0' ? "/" : "", name);
    if (entry->d_type == DT_DIR) {
        return add_class(scan, name, path);
    }
    int code = nnc_walk_resolve(&scan->root, path, real);
    if (code == -EXDEV) {
        return nnc_fail(-NNC_E_FORMAT,
                        "%s/%s: this class is a link out of the data set; links are followed "
                        "inside it only: move or bind-mount the folder there",
                        scan->root.path, path);
    }
    return code < 0 ? code : add_class(scan, name, real);
}

static int compare_classes(const void *left, const void *right, void *context) {
    const struct scan *scan = context;
    const struct class_folder *a = left;
    const struct class_folder *b = right;
    return strcmp(nnc_pool_at(&scan->names, a->name), nnc_pool_at(&scan->names, b->name));
}

static int list_classes(struct scan *scan) {
    const char *folder = scan->source->folder[0] != '\0' ? scan->source->folder : ".";
    int fd = openat(scan->root.fd, folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct stat status;
    if (fd < 0 || fstat(fd, &status) != 0) {
        int code = nnc_fail_errno("%s/%s", scan->root.path, folder);
        if (fd >= 0) {
            close(fd);
        }
        return code;
    }
    scan->mtime_ns = status.st_mtim.tv_sec * 1000000000ll + status.st_mtim.tv_nsec;
    DIR *stream = fdopendir(fd);
    if (stream == NULL) {
        close(fd);
        return nnc_fail(-ENOMEM, "%s/%s: no memory to read it", scan->root.path, folder);
    }
    int code = 0;
    const struct dirent *entry;
    while (code >= 0 && (entry = readdir(stream)) != NULL) {
        code = consider_class(scan, fd, entry);
    }
    closedir(stream);
    if (code >= 0 && scan->class_count == 0) {
        code = nnc_fail(-NNC_E_FORMAT, "%s/%s: no class folders in it", scan->root.path, folder);
    }
    if (code >= 0) {
        qsort_r(scan->classes, scan->class_count, sizeof(*scan->classes), compare_classes, scan);
    }
    return code;
}

static int walk_class(void *context, size_t i) {
    struct scan *scan = context;
    const char *folder = nnc_pool_at(&scan->names, scan->classes[i].folder);
    return nnc_walk_folder(&scan->root, folder, &scan->classes[i].walk);
}

/* An empty class would make the model learn a class that does not exist; torchvision refuses too.
 */
static int check_classes(const struct scan *scan) {
    struct nnc_walk_notes notes = {0};
    char place[2 * NNC_PATH_MAX];
    snprintf(place, sizeof(place), "%s%s%s", scan->root.path,
             scan->source->folder[0] != '\0' ? "/" : "", scan->source->folder);
    for (size_t i = 0; i < scan->class_count; i++) {
        const struct class_folder *class = &scan->classes[i];
        nnc_walk_notes_add(&notes, &class->walk.notes);
        if (class->walk.file_count == 0) {
            nnc_walk_warn(&class->walk.notes, place);
            return nnc_fail(-NNC_E_FORMAT,
                            "%s/%s: a class folder without images (.jpg .jpeg .png ...): fill or "
                            "remove it; expected is %s/CLASS/image.jpg",
                            place, nnc_pool_at(&scan->names, class->name), place);
        }
    }
    nnc_walk_warn(&notes, place);
    return 0;
}

static int measure_some(void *context, size_t i) {
    const struct measure *measure = context;
    size_t first = i * MEASURE_AT_ONCE;
    size_t rest = measure->walk->file_count - first;
    nnc_walk_measure(measure->root, measure->walk, first,
                     rest < MEASURE_AT_ONCE ? rest : MEASURE_AT_ONCE);
    return 0;
}

int nnc_walk_measure_all(const struct nnc_walk_root *root, struct nnc_walk *walk,
                         uint32_t threads) {
    struct measure measure = {.root = root, .walk = walk};
    size_t turns = (walk->file_count + MEASURE_AT_ONCE - 1) / MEASURE_AT_ONCE;
    return nnc_parallel_for(turns, threads, measure_some, &measure);
}

static int measure_class(void *context, size_t i) {
    struct scan *scan = context;
    return nnc_walk_measure_all(&scan->root, &scan->classes[i].walk, 1);
}

/* Many classes: one a turn. Few: their files are shared out, so that no thread waits for a big one.
 */
static int measure_classes(struct scan *scan, uint32_t threads) {
    if (scan->class_count >= 4 * (size_t)threads) {
        return nnc_parallel_for(scan->class_count, threads, measure_class, scan);
    }
    int code = 0;
    for (size_t i = 0; code >= 0 && i < scan->class_count; i++) {
        code = nnc_walk_measure_all(&scan->root, &scan->classes[i].walk, threads);
    }
    return code;
}

static void add_class_rows(struct nnc_index_builder *builder, const struct nnc_walk *walk,
                           size_t label) {
    for (size_t i = 0; i < walk->dir_count; i++) {
        nnc_index_builder_add_watch(builder, nnc_pool_at(&walk->names, walk->dirs[i].name),
                                    &(struct nnc_index_watch){.mtime_ns = walk->dirs[i].mtime_ns});
    }
    for (size_t i = 0; i < walk->file_count; i++) {
        nnc_index_builder_add_sample(
            builder,
            &(struct nnc_index_entry){.name = nnc_pool_at(&walk->names, walk->files[i].name),
                                      .size = walk->files[i].size,
                                      .label = (int32_t)label});
    }
}

static int build_index(const struct scan *scan, void **ret_bytes, size_t *ret_size) {
    struct nnc_index_builder *builder = nnc_index_builder_create(NNC_INDEX_FOLDER);
    nnc_index_builder_add_watch(builder, scan->source->folder,
                                &(struct nnc_index_watch){.mtime_ns = scan->mtime_ns});
    for (size_t i = 0; i < scan->class_count; i++) {
        nnc_index_builder_add_class(builder, nnc_pool_at(&scan->names, scan->classes[i].name));
        add_class_rows(builder, &scan->classes[i].walk, i);
    }
    int code = nnc_index_builder_finish(builder, ret_bytes, ret_size);
    nnc_index_builder_destroy(builder);
    return code;
}
