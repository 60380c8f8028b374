/* SPDX-License-Identifier: Apache-2.0 */
/* Where the program's own files lie.
 *
 * The build passes three absolute paths: NNC_BUILD_DIR, NNC_SOURCE_DIR and NNC_DATA_DIR (the place
 * of `ninja install`). An executable below NNC_BUILD_DIR is one under development and uses the
 * source tree, so that an edited model text counts at once; every other one uses what was installed
 * with it. */
#include "base/paths.h"

#include "base/config.h"
#include "base/err.h"

#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static bool is_below(const char *path, const char *directory) {
    size_t length = strlen(directory);
    return strncmp(path, directory, length) == 0 && path[length] == '/';
}

int nnc_path_data_for(const char *exe, const char *name, char *ret_path, size_t path_bytes) {
    const char *root = is_below(exe, NNC_BUILD_DIR) ? NNC_SOURCE_DIR : NNC_DATA_DIR;
    char path[PATH_MAX];
    int length = snprintf(path, sizeof(path), "%s/%s", root, name);
    if (length < 0 || (size_t)length >= sizeof(path) || (size_t)length >= path_bytes) {
        return nnc_fail(-ENAMETOOLONG, "the path of %s below %s is too long", name, root);
    }
    memcpy(ret_path, path, (size_t)length + 1);
    return 0;
}

static int executable(char ret_path[PATH_MAX]) {
    ssize_t length = readlink("/proc/self/exe", ret_path, PATH_MAX - 1);
    if (length < 0) {
        return nnc_fail_errno("reading /proc/self/exe");
    }
    ret_path[length] = '\0';
    return 0;
}

int nnc_path_data(const char *name, char *ret_path, size_t path_bytes) {
    char exe[PATH_MAX];
    int code = executable(exe);
    return code < 0 ? code : nnc_path_data_for(exe, name, ret_path, path_bytes);
}

int nnc_path_programs(char *ret_path, size_t path_bytes) {
    char exe[PATH_MAX];
    int code = executable(exe);
    if (code < 0) {
        return code;
    }
    *strrchr(exe, '/') = '\0';
    if (strlen(exe) >= path_bytes) {
        return nnc_fail(-ENAMETOOLONG, "%s: path of the executable is too long", exe);
    }
    memcpy(ret_path, exe, strlen(exe) + 1);
    return 0;
}

int nnc_path_cache(const char *name, char *ret_path, size_t path_bytes) {
    const char *cache = nnc_env("XDG_CACHE_HOME");
    const char *below = "";
    if (cache == NULL || cache[0] != '/') {
        cache = nnc_env("HOME");
        below = "/.cache";
    }
    if (cache == NULL || cache[0] != '/') {
        return -ENOENT;
    }
    int length = snprintf(ret_path, path_bytes, "%s%s/nncoord/%s", cache, below, name);
    return length > 0 && (size_t)length < path_bytes ? 0 : -ENOENT;
}
