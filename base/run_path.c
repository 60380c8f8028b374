/* SPDX-License-Identifier: Apache-2.0 */
/* Resolution of names by looking at the file system; bytes of the small files are hostile: only a
 * plain name of a checkpoint is taken out of them. */
#include "base/run_path.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

static bool is_directory(const char *path) {
    struct stat status;
    return stat(path, &status) == 0 && S_ISDIR(status.st_mode);
}

static bool is_file(const char *path) {
    struct stat status;
    return stat(path, &status) == 0 && S_ISREG(status.st_mode);
}

/* The checkpoint that a pointer file names, as a path beside the file. */
static bool follow(const char *pointer, char ret_path[NNC_PATH_MAX]) {
    char name[64] = "";
    FILE *file = is_file(pointer) ? fopen(pointer, "re") : NULL;
    if (file == NULL) {
        return false;
    }
    bool good = fscanf(file, "%63s", name) == 1 && strncmp(name, "ckpt-", 5) == 0 &&
                strchr(name, '/') == NULL;
    fclose(file);
    const char *slash = strrchr(pointer, '/');
    int folder = slash == NULL ? 0 : (int)(slash - pointer) + 1;
    int length = snprintf(ret_path, NNC_PATH_MAX, "%.*s%s", folder, pointer, name);
    return good && length < NNC_PATH_MAX && is_directory(ret_path);
}

void nnc_run_path_resolve(char path[NNC_PATH_MAX]) {
    const char *slash = strrchr(path, '/');
    const char *last = slash == NULL ? path : slash + 1;
    char found[NNC_PATH_MAX];
    bool is_pointer = strcmp(last, "best") == 0 || strcmp(last, "LATEST") == 0;
    if (is_pointer && follow(path, found)) {
        snprintf(path, NNC_PATH_MAX, "%s", found);
    }
}

/* path/name when it is short enough, else "". */
static void join(const char *path, const char *name, char ret_path[NNC_PATH_MAX]) {
    int length = snprintf(ret_path, NNC_PATH_MAX, "%s/%s", path, name);
    if (length >= NNC_PATH_MAX) {
        ret_path[0] = '\0';
    }
}

void nnc_run_path_weights(char path[NNC_PATH_MAX]) {
    char inside[NNC_PATH_MAX], found[NNC_PATH_MAX];
    nnc_run_path_resolve(path);
    if (!is_directory(path)) {
        return;
    }
    join(path, "best", inside);
    if (follow(inside, found)) {
        snprintf(path, NNC_PATH_MAX, "%s", found);
    }
    join(path, "model.safetensors", inside);
    if (is_file(inside)) {
        snprintf(path, NNC_PATH_MAX, "%s", inside);
    }
}
