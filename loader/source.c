/* SPDX-License-Identifier: Apache-2.0 */
/* Data set, index, directory and shards of a loader.
 *
 * 1. Folders: every sample is a file of its own, opened by the reader relative to the directory.
 * 2. Shards (tar, IDX) are opened at their first use and stay open, at most OPEN_MAX at a time;
 * when there are more, a clock hand looks for one that no read in flight uses.
 * 3. The directory is opened once with O_PATH; names are resolved beneath it (openat2), so that
 * neither
 *    ".." nor a link in a hostile data set reaches other files. Kernels without openat2 get plain
 * openat, with ".." refused by hand.
 *
 * Does not: read. Invariant: open_count shards have fd >= 0, users > 0 implies fd >= 0. */
#include "loader/source.h"

#include "base/err.h"
#include "ipc/memfd.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum {
    OPEN_MAX = 64, /* shards open at a time */
};

struct shard {
    int fd;
    uint32_t users; /* reads in flight */
};

struct nnc_source {
    struct nnc_index index;
    void *map;
    size_t map_bytes;
    int root_fd;
    int raw_fd; /* the caller's; -1: none */
    bool direct;
    struct shard *shards;
    uint32_t open_count;
    uint64_t hand;
};

static int open_index(struct nnc_source *source, int fd) {
    size_t bytes;
    int code = nnc_memfd_size(fd, &bytes);
    if (code >= 0) {
        code = nnc_memfd_map(fd, bytes, 0, &source->map);
    }
    if (code < 0) {
        return nnc_fail_in(code, "mapping the index");
    }
    source->map_bytes = bytes;
    return nnc_index_open(source->map, bytes, &source->index);
}

int nnc_source_open(const struct nnc_setup_data *data, bool direct,
                    struct nnc_source **ret_source) {
    struct nnc_source *source = calloc(1, sizeof(*source));
    if (source == NULL) {
        return nnc_fail(-ENOMEM, "no memory for a data set");
    }
    source->root_fd = -1;
    source->raw_fd = data->raw_fd;
    source->direct = direct;
    int code = open_index(source, data->index_fd);
    if (code < 0) {
        goto out;
    }
    uint64_t files = source->index.header->files;
    source->shards = calloc(files > 0 ? files : 1, sizeof(source->shards[0]));
    if (source->shards == NULL) {
        code = nnc_fail(-ENOMEM, "no memory for %llu shards", (unsigned long long)files);
        goto out;
    }
    for (uint64_t i = 0; i < files; i++) {
        source->shards[i].fd = -1;
    }
    source->root_fd = open(data->root, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (source->root_fd < 0) {
        code = nnc_fail_errno("data directory %s", data->root);
    }
out:
    if (code < 0) {
        nnc_source_close(source);
        return code;
    }
    *ret_source = source;
    return 0;
}

void nnc_source_close(struct nnc_source *source) {
    if (source == NULL) {
        return;
    }
    for (uint64_t i = 0; source->shards != NULL && i < source->index.header->files; i++) {
        if (source->shards[i].fd >= 0) {
            close(source->shards[i].fd);
        }
    }
    free(source->shards);
    if (source->map != NULL) {
        munmap(source->map, source->map_bytes);
    }
    if (source->root_fd >= 0) {
        close(source->root_fd);
    }
    free(source);
}

const struct nnc_index *nnc_source_index(const struct nnc_source *source) {
    return &source->index;
}

/* ---- opening beneath the directory ---- */

static bool climbs(const char *path) {
    if (path[0] == '/') {
        return true;
    }
    for (const char *part = path; part != NULL; part = strchr(part, '/')) {
        part += *part == '/';
        if (part[0] == '.' && part[1] == '.' && (part[2] == '/' || part[2] == '\0')) {
            return true;
        }
    }
    return false;
}

static int open_beneath(int directory, const char *path, int flags) {
    struct open_how how = {
        .flags = (uint64_t)flags,
        .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS,
    };
    int fd = (int)syscall(SYS_openat2, directory, path, &how, sizeof(how));
    if (fd < 0 && (errno == ENOSYS || errno == EINVAL || errno == EPERM)) {
        /* An old kernel, or a filter that does not know the call. */
        if (climbs(path)) {
            return -EXDEV;
        }
        fd = openat(directory, path, flags);
    }
    return fd >= 0 ? fd : -errno;
}

int nnc_source_open_beneath(int directory, const char *path, bool direct) {
    const int flags = O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY;
    int fd = direct ? open_beneath(directory, path, flags | O_DIRECT) : -EINVAL;
    /* A file system that cannot do it refuses the flag. */
    return fd == -EINVAL ? open_beneath(directory, path, flags) : fd;
}

/* ---- shards ---- */

static void close_unused_shard(struct nnc_source *source) {
    uint64_t files = source->index.header->files;
    for (uint64_t tries = 0; tries < files; tries++) {
        struct shard *shard = &source->shards[source->hand];
        source->hand = (source->hand + 1) % files;
        if (shard->fd >= 0 && shard->users == 0) {
            close(shard->fd);
            shard->fd = -1;
            source->open_count--;
            return;
        }
    }
}

static int open_shard(struct nnc_source *source, uint32_t number) {
    const struct nnc_index_file *file = &source->index.files[number];
    const char *name = source->index.strings + file->name;
    if (source->open_count >= OPEN_MAX) {
        close_unused_shard(source);
    }
    int fd = nnc_source_open_beneath(source->root_fd, name, source->direct);
    if (fd < 0) {
        return nnc_fail(fd, "%s: %s", name, strerror(-fd));
    }
    struct stat status;
    if (fstat(fd, &status) < 0) {
        int code = nnc_fail_errno("%s", name);
        close(fd);
        return code;
    }
    if (!S_ISREG(status.st_mode) || (uint64_t)status.st_size != file->size) {
        close(fd);
        return nnc_fail(-NNC_E_FORMAT, "%s changed since it was indexed; run with --reindex", name);
    }
    source->shards[number].fd = fd;
    source->open_count++;
    return 0;
}

int nnc_source_locate(struct nnc_source *source, uint64_t sample, struct nnc_extent *ret_extent) {
    assert(sample < source->index.header->samples);
    const struct nnc_index_sample *entry = &source->index.samples[sample];
    if (entry->size > NNC_SOURCE_MAX_BYTES) {
        return nnc_fail(-NNC_E_FORMAT, "is larger than the limit of %u bytes",
                        NNC_SOURCE_MAX_BYTES);
    }
    struct nnc_extent extent = {.bytes = entry->size, .offset = entry->offset};
    if (source->index.header->kind == NNC_INDEX_FOLDER) {
        extent.fd = source->root_fd;
        extent.path = source->index.strings + entry->name;
        extent.direct = source->direct;
        *ret_extent = extent;
        return 0;
    }
    struct shard *shard = &source->shards[entry->file];
    bool raw = source->index.strings[source->index.files[entry->file].name] == '\0';
    if (raw && source->raw_fd < 0) {
        return nnc_fail(-NNC_E_FORMAT, "the index names a memory file that was not passed");
    }
    if (!raw && shard->fd < 0) {
        int code = open_shard(source, entry->file);
        if (code < 0) {
            return code;
        }
    }
    shard->users += raw ? 0 : 1;
    extent.fd = raw ? source->raw_fd : shard->fd;
    extent.direct = source->direct && !raw;
    *ret_extent = extent;
    return 0;
}

void nnc_source_release(struct nnc_source *source, uint64_t sample) {
    assert(sample < source->index.header->samples);
    const struct nnc_index_sample *entry = &source->index.samples[sample];
    if (source->index.header->kind == NNC_INDEX_FOLDER) {
        return;
    }
    struct shard *shard = &source->shards[entry->file];
    if (shard->fd >= 0) {
        assert(shard->users > 0);
        shard->users--;
    }
}
