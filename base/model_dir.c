/* SPDX-License-Identifier: Apache-2.0 */
/* The folder of model texts: names to files, and the list of names. A name is looked up there only,
 * a file is taken as it is, so that no name of the working directory can shadow a model. */
#include "base/model_dir.h"

#include "base/err.h"
#include "base/paths.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SUFFIX         ".nn"
#define NAMES_TEXT_MAX 400

static bool ends_with_suffix(const char *name) {
    size_t length = strlen(name), suffix = strlen(SUFFIX);
    return length > suffix && strcmp(name + length - suffix, SUFFIX) == 0;
}

/* models_dir, or the program's own folder put into own[PATH_MAX]. */
static int folder(const char *models_dir, char *own, const char **ret_folder) {
    int code = models_dir == NULL ? nnc_path_data("models", own, PATH_MAX) : 0;
    if (code >= 0) {
        *ret_folder = models_dir != NULL ? models_dir : own;
    }
    return code;
}

static int compare_names(const void *left, const void *right) {
    const char *const *first = left, *const *second = right;
    return strcmp(*first, *second);
}

/* Append the name of one directory entry, without its suffix. */
static int append_name(const char *entry, char ***names, size_t *count) {
    char **larger = reallocarray(*names, *count + 1, sizeof(**names));
    if (larger == NULL) {
        return nnc_fail(-ENOMEM, "no memory for the names of models");
    }
    *names = larger;
    char *name = strndup(entry, strlen(entry) - strlen(SUFFIX));
    if (name == NULL) {
        return nnc_fail(-ENOMEM, "no memory for the names of models");
    }
    larger[(*count)++] = name;
    return 0;
}

int nnc_model_names(const char *models_dir, char ***ret_names, size_t *ret_count) {
    char own[PATH_MAX];
    const char *path = NULL;
    int code = folder(models_dir, own, &path);
    if (code < 0) {
        return code;
    }
    DIR *directory = opendir(path);
    if (directory == NULL) {
        return nnc_fail_errno("folder of models %s", path);
    }
    char **names = NULL;
    size_t count = 0;
    for (struct dirent *entry = readdir(directory); entry != NULL && code >= 0;
         entry = readdir(directory)) {
        if (ends_with_suffix(entry->d_name) && entry->d_name[0] != '.') {
            code = append_name(entry->d_name, &names, &count);
        }
    }
    closedir(directory);
    if (code < 0) {
        nnc_model_names_free(names, count);
        return code;
    }
    if (count > 0) {
        qsort(names, count, sizeof(*names), compare_names);
    }
    *ret_names = names;
    *ret_count = count;
    return 0;
}

void nnc_model_names_free(char **names, size_t count) {
    for (size_t i = 0; i < count; i++) {
        free(names[i]);
    }
    free(names);
}

static int fail_unknown(const char *name, const char *path) {
    char **names = NULL;
    size_t count = 0, used = 0;
    int code = nnc_model_names(path, &names, &count);
    if (code < 0) {
        return code;
    }
    char text[NAMES_TEXT_MAX] = "";
    for (size_t i = 0; i < count && used < sizeof(text); i++) {
        used +=
            (size_t)snprintf(text + used, sizeof(text) - used, "%s%s", i > 0 ? ", " : "", names[i]);
    }
    nnc_model_names_free(names, count);
    return nnc_fail(-NNC_E_USAGE,
                    "no model is called %s; there are %s (%s); a file of your own is given with "
                    "its .nn",
                    name, count > 0 ? text : "none", path);
}

int nnc_model_resolve(const char *name_or_file, const char *models_dir, char *ret_path,
                      size_t path_bytes) {
    char own[PATH_MAX], path[PATH_MAX];
    const char *root = NULL;
    bool is_file = strchr(name_or_file, '/') != NULL || ends_with_suffix(name_or_file);
    int code = is_file ? 0 : folder(models_dir, own, &root);
    if (code < 0) {
        return code;
    }
    int length = is_file ? snprintf(path, sizeof(path), "%s", name_or_file)
                         : snprintf(path, sizeof(path), "%s/%s" SUFFIX, root, name_or_file);
    if (length < 0 || (size_t)length >= sizeof(path) || (size_t)length >= path_bytes) {
        return nnc_fail(-ENAMETOOLONG, "the path of model %.100s is too long", name_or_file);
    }
    if (!is_file && access(path, F_OK) < 0) {
        return fail_unknown(name_or_file, root);
    }
    memcpy(ret_path, path, (size_t)length + 1);
    return 0;
}
