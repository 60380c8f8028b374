/* SPDX-License-Identifier: Apache-2.0 */
/* An index of images named one by one, for prediction.
 *
 *   1. each path made real; a folder is walked as a class folder would be (dataset_walk.c);
 *   2. sizes measured;
 *   3. the root is the working directory when all names are beneath it, else "/".
 *
 * Step 1 works from "/", so that each name is its absolute path without the first slash; step 3
 * only cuts their common beginning. */
#include "coordinator/dataset.h"

#include "base/err.h"
#include "coordinator/dataset_folder.h"
#include "coordinator/dataset_parallel.h"
#include "coordinator/dataset_walk.h"
#include "coordinator/index_build.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int add_path(const struct nnc_walk_root *root, const char *path, struct nnc_walk *walk);
static void choose_root(const struct nnc_walk *walk, char ret_root[PATH_MAX]);
static int build_part(const struct nnc_walk *walk, const char *root, struct nnc_dataset_part *part);

int nnc_dataset_from_files(const char *const *paths, size_t count, uint32_t threads,
                           struct nnc_dataset **ret_dataset) {
    struct nnc_walk walk = {0};
    struct nnc_walk_root root = {.path = "/"};
    struct nnc_dataset *dataset = calloc(1, sizeof(*dataset));
    char common[PATH_MAX];
    root.fd = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int code = dataset == NULL ? nnc_fail(-ENOMEM, "no memory for a data set")
               : root.fd < 0   ? nnc_fail_errno("/")
                               : 0;
    for (size_t i = 0; code >= 0 && i < count; i++) {
        code = add_path(&root, paths[i], &walk);
    }
    if (code >= 0) {
        nnc_walk_warn(&walk.notes, "images");
        code = nnc_walk_measure_all(&root, &walk, nnc_scan_threads(threads));
    }
    if (code >= 0) {
        dataset->parts[NNC_PHASE_TRAIN].raw_fd = -1;
        dataset->parts[NNC_PHASE_VAL].raw_fd = -1;
        choose_root(&walk, common);
        code = build_part(&walk, common, &dataset->parts[NNC_PHASE_VAL]);
    }
    if (code >= 0) {
        *ret_dataset = dataset;
    } else if (dataset != NULL) {
        free(dataset->parts[NNC_PHASE_VAL].bytes);
        free(dataset);
    }
    if (root.fd >= 0) {
        close(root.fd);
    }
    nnc_walk_finish(&walk);
    return code;
}

static int add_file(const char *name, struct nnc_walk *walk) {
    void *rows = walk->files;
    if (!nnc_array_grow(&rows, walk->file_count, &walk->file_capacity, sizeof(*walk->files))) {
        return nnc_fail(-ENOMEM, "no memory for the names of images");
    }
    walk->files = rows;
    walk->files[walk->file_count++] =
        (struct nnc_walk_file){.name = nnc_pool_add(&walk->names, name, strlen(name))};
    return walk->names.failed ? nnc_fail(-ENOMEM, "no memory for the names of images") : 0;
}

static int add_path(const struct nnc_walk_root *root, const char *path, struct nnc_walk *walk) {
    char real[PATH_MAX];
    struct stat status;
    if (realpath(path, real) == NULL || stat(real, &status) != 0) {
        return nnc_fail(-NNC_E_USAGE, "%s: %s; give image files or folders of them", path,
                        strerror(errno));
    }
    if (S_ISREG(status.st_mode)) {
        return add_file(real + 1, walk);
    }
    if (!S_ISDIR(status.st_mode)) {
        return nnc_fail(-NNC_E_USAGE, "%s: neither an image file nor a folder", path);
    }
    size_t before = walk->file_count;
    int code = nnc_walk_folder(root, real + 1, walk);
    if (code >= 0 && walk->file_count == before) {
        code = nnc_fail(-NNC_E_USAGE, "%s: no images (.jpg .jpeg .png ...) in this folder", path);
    }
    return code;
}

static void choose_root(const struct nnc_walk *walk, char ret_root[PATH_MAX]) {
    char here[PATH_MAX];
    bool inside = getcwd(here, sizeof(here)) != NULL && strlen(here) < NNC_PATH_MAX;
    size_t length = inside ? strlen(here) - 1 : 0;
    for (size_t i = 0; inside && length > 0 && i < walk->file_count; i++) {
        const char *name = nnc_pool_at(&walk->names, walk->files[i].name);
        inside = strncmp(name, here + 1, length) == 0 && name[length] == '/';
    }
    snprintf(ret_root, PATH_MAX, "%s", inside ? here : "/");
}

static int build_part(const struct nnc_walk *walk, const char *root,
                      struct nnc_dataset_part *part) {
    struct nnc_index_builder *builder = nnc_index_builder_create(NNC_INDEX_FOLDER);
    size_t cut = strcmp(root, "/") == 0 ? 0 : strlen(root);
    for (size_t i = 0; i < walk->file_count; i++) {
        const char *name = nnc_pool_at(&walk->names, walk->files[i].name) + cut;
        nnc_index_builder_add_sample(
            builder,
            &(struct nnc_index_entry){.name = name, .size = walk->files[i].size, .label = -1});
    }
    int code = nnc_index_builder_finish(builder, &part->bytes, &part->size);
    nnc_index_builder_destroy(builder);
    if (code >= 0) {
        code = nnc_index_open(part->bytes, part->size, &part->index);
    }
    if (code >= 0) {
        part->samples = part->index.header->samples;
        snprintf(part->root, sizeof(part->root), "%s", root);
    }
    return code;
}
