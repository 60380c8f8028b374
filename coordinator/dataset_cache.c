/* SPDX-License-Identifier: Apache-2.0 */
/* The index cache.
 *
 * Store: write to a temporary name beside the file, rename over it: a reader sees a whole index,
 * old or new. There is no fsync: after a power cut the hash tells damage, and the next run scans
 * again. Load: read, nnc_index_open() (all checks), compare the watch table with the file system:
 * one fstatat a folder, none a sample.
 *
 * Invariant: an index in the cache has no watched time within RACY_NS of the scan's start. A
 * folder's time has the grain of the kernel's tick; a file added in the tick of the scan would not
 * move it.
 *
 * It does not notice an image rewritten in place in an unchanged folder: the loader meets another
 * size then and handles the sample as bad. A shard rewritten in place moves at least its ctime.
 * Source: git's "racy git" note has the same reasoning. */
#include "coordinator/dataset_cache.h"

#include "base/err.h"
#include "base/log.h"
#include "base/paths.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <xxhash.h>

#define SCAN_VERSION                                                                               \
    3 /* what the scanners find in a data set; another number voids all indexes                    \
       */
#define RACY_NS      50000000ll
#define INDEX_MAX    ((off_t)64 << 30)
#define SECOND_NS    1000000000ll
#define READ_AT_ONCE ((size_t)1 << 30)

int64_t nnc_cache_now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return now.tv_sec * SECOND_NS + now.tv_nsec;
}

/* False when no directory is known. */
static bool cache_directory(const char *wanted, char directory[PATH_MAX]) {
    if (wanted != NULL) {
        return wanted[0] != '\0' && snprintf(directory, PATH_MAX, "%s", wanted) < PATH_MAX;
    }
    return nnc_path_cache("index", directory, PATH_MAX) == 0;
}

static uint64_t source_hash(const struct nnc_data_source *source) {
    const uint32_t kind[3] = {source->kind, NNC_INDEX_VERSION, SCAN_VERSION};
    uint64_t hash = XXH3_64bits(kind, sizeof(kind));
    hash = XXH3_64bits_withSeed(source->root, strlen(source->root) + 1, hash);
    hash = XXH3_64bits_withSeed(source->folder, strlen(source->folder) + 1, hash);
    for (size_t i = 0; i < source->name_count; i++) {
        const char *name = nnc_data_source_name(source, i);
        hash = XXH3_64bits_withSeed(name, strlen(name) + 1, hash);
    }
    return hash;
}

bool nnc_cache_path(const char *wanted_dir, const struct nnc_data_source *source,
                    char ret_path[PATH_MAX]) {
    char directory[PATH_MAX];
    return cache_directory(wanted_dir, directory) &&
           snprintf(ret_path, PATH_MAX, "%.*s/%016" PRIx64 ".index", PATH_MAX - 32, directory,
                    source_hash(source)) < PATH_MAX;
}

static bool read_all(int fd, char *bytes, size_t size) {
    size_t at = 0;
    while (at < size) {
        size_t wanted = size - at < READ_AT_ONCE ? size - at : READ_AT_ONCE;
        ssize_t got = pread(fd, bytes + at, wanted, (off_t)at);
        if (got <= 0 && !(got < 0 && errno == EINTR)) {
            return false;
        }
        at += got > 0 ? (size_t)got : 0;
    }
    return true;
}

static bool read_file(const char *path, void **ret_bytes, size_t *ret_size) {
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    struct stat status;
    char *bytes = NULL;
    bool good = fd >= 0 && fstat(fd, &status) == 0 && S_ISREG(status.st_mode) &&
                status.st_size > 0 && status.st_size <= INDEX_MAX;
    if (good) {
        bytes = malloc((size_t)status.st_size);
        good = bytes != NULL && read_all(fd, bytes, (size_t)status.st_size);
    }
    if (fd >= 0) {
        close(fd);
    }
    if (!good) {
        free(bytes);
        return false;
    }
    *ret_bytes = bytes;
    *ret_size = (size_t)status.st_size;
    return true;
}

static int64_t to_ns(struct timespec time) {
    return time.tv_sec * SECOND_NS + time.tv_nsec;
}

struct nnc_index_watch nnc_cache_watch_file(const struct stat *status) {
    return (struct nnc_index_watch){.mtime_ns = to_ns(status->st_mtim),
                                    .ctime_ns = to_ns(status->st_ctim),
                                    .inode = status->st_ino,
                                    .size = (uint64_t)status->st_size};
}

static bool watch_holds(int root_fd, const char *name, const struct nnc_index_watch *watch) {
    struct stat status;
    int result = fstatat(root_fd, name[0] != '\0' ? name : ".", &status, AT_SYMLINK_NOFOLLOW);
    if (watch->size == NNC_INDEX_WATCH_ABSENT) {
        return result != 0 && errno == ENOENT;
    }
    if (result != 0) {
        return false;
    }
    if (S_ISDIR(status.st_mode)) {
        return to_ns(status.st_mtim) == watch->mtime_ns;
    }
    const struct nnc_index_watch now = nnc_cache_watch_file(&status);
    return S_ISREG(status.st_mode) && now.mtime_ns == watch->mtime_ns &&
           now.ctime_ns == watch->ctime_ns && now.inode == watch->inode && now.size == watch->size;
}

/* NULL when the index still describes what is in the root, else the name that changed. */
static const char *find_change(const struct nnc_index *index, const char *root) {
    int fd = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        return root;
    }
    const char *changed = index->header->watched == 0 ? "nothing watched" : NULL;
    for (uint64_t i = 0; changed == NULL && i < index->header->watched; i++) {
        const char *name = index->strings + index->watched[i].name;
        changed = watch_holds(fd, name, &index->watched[i]) ? NULL : name;
    }
    close(fd);
    return changed;
}

bool nnc_cache_load(const char *path, const struct nnc_data_source *source, void **ret_bytes,
                    size_t *ret_size) {
    void *bytes;
    size_t size;
    if (!read_file(path, &bytes, &size)) {
        nnc_log(NNC_LOG_DEBUG, "no index of %s/%s in the cache", source->root, source->folder);
        return false;
    }
    struct nnc_index index;
    const char *fault = NULL;
    if (nnc_index_open(bytes, size, &index) < 0) {
        fault = nnc_error_text();
    } else if (index.header->kind != source->kind) {
        fault = "another kind of data";
    } else {
        fault = find_change(&index, source->root);
    }
    if (fault != NULL) {
        nnc_log(NNC_LOG_DEBUG, "%s: out of date, scanning again (%s)", path, fault);
        nnc_error_clear();
        free(bytes);
        return false;
    }
    *ret_bytes = bytes;
    *ret_size = size;
    return true;
}

/* mkdir -p of all but the last component. */
static void make_directories(char *path) {
    for (char *slash = strchr(path + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        mkdir(path, 0700); /* a failure shows when the file is made */
        *slash = '/';
    }
}

static bool write_all(int fd, const char *bytes, size_t size) {
    size_t at = 0;
    while (at < size) {
        size_t wanted = size - at < READ_AT_ONCE ? size - at : READ_AT_ONCE;
        ssize_t put = write(fd, bytes + at, wanted);
        if (put < 0 && errno != EINTR) {
            return false;
        }
        at += put > 0 ? (size_t)put : 0;
    }
    return true;
}

static bool is_racy(const struct nnc_index *index, int64_t started_ns) {
    /* Times ahead of now are a clock that is ahead, not a change during the scan. */
    int64_t ended_ns = nnc_cache_now_ns();
    for (uint64_t i = 0; i < index->header->watched; i++) {
        int64_t mtime_ns = index->watched[i].mtime_ns;
        if (mtime_ns > started_ns - RACY_NS && mtime_ns < ended_ns + RACY_NS) {
            return true;
        }
    }
    return false;
}

void nnc_cache_store(const char *path, const struct nnc_index *index, int64_t started_ns) {
    if (is_racy(index, started_ns)) {
        nnc_log(NNC_LOG_DEBUG, "%s: the data set changed just now, not kept", path);
        return;
    }
    char temporary[PATH_MAX + 16];
    snprintf(temporary, sizeof(temporary), "%s.XXXXXX", path);
    make_directories(temporary);
    int fd = mkostemp(temporary, O_CLOEXEC); /* makes it with mode 0600 */
    bool good = fd >= 0 && write_all(fd, (const char *)index->header, index->header->total_bytes);
    int error = errno;
    if (fd >= 0) {
        good = close(fd) == 0 && good;
        good = good && rename(temporary, path) == 0;
    }
    if (!good) {
        nnc_log(NNC_LOG_DEBUG, "%s: the index cannot be kept: %s", path, strerror(error));
        if (fd >= 0) {
            unlink(temporary);
        }
    }
}
