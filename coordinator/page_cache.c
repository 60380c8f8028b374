/* SPDX-License-Identifier: Apache-2.0 */
/* Dropping files from the page cache.
 *
 *   each file:  open -> fdatasync -> POSIX_FADV_DONTNEED -> map -> mincore -> unmap -> close
 *
 * 1. The advice may be ignored: tmpfs keeps everything, others keep pages that somebody maps or
 *    that are being written. Therefore the pages still there are counted and reported.
 * 2. mincore() tells the truth only to who could write the file or owns it, and says "resident" to
 *    all others. Such files are counted as hidden instead.
 * 3. Mapping and mincore() read nothing: no page comes back by looking.
 * Does not drop directories and inodes. Source: posix_fadvise(2), mincore(2). */
#include "coordinator/page_cache.h"

#include "base/err.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    WINDOW_PAGES = 4096, /* looked at by one call of mincore() */
};

/* Count the pages of bytes[0..size) that are in memory. */
static int count_resident(char *bytes, size_t size, struct nnc_page_cache *report) {
    unsigned char in_memory[WINDOW_PAGES];
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    for (size_t at = 0; at < size; at += WINDOW_PAGES * page) {
        size_t window = size - at < WINDOW_PAGES * page ? size - at : WINDOW_PAGES * page;
        if (mincore(bytes + at, window, in_memory) < 0) {
            return -errno;
        }
        for (size_t i = 0; i < (window + page - 1) / page; i++) {
            report->resident_bytes += in_memory[i] & 1 ? page : 0;
        }
    }
    return 0;
}

static bool may_look(int fd, const struct stat *status) {
    char path[32];
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    return status->st_uid == geteuid() || geteuid() == 0 || access(path, W_OK) == 0;
}

static int look(int fd, const struct stat *status, struct nnc_page_cache *report) {
    size_t size = (size_t)status->st_size;
    report->files++;
    report->bytes += size;
    if (size == 0) {
        return 0;
    }
    void *bytes =
        may_look(fd, status) ? mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0) : MAP_FAILED;
    if (bytes == MAP_FAILED) { /* also on file systems that map nothing */
        report->hidden_bytes += size;
        return 0;
    }
    int code = count_resident(bytes, size, report);
    munmap(bytes, size);
    return code;
}

static int drop_file(int root_fd, const char *name, struct nnc_page_cache *report) {
    /* NONBLOCK: what calls itself an image may be a pipe without a writer. */
    int fd = openat(root_fd, name, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0) {
        /* The loaders will report what cannot be read; there is nothing to drop. */
        return errno == EMFILE || errno == ENFILE ? nnc_fail_errno("%s", name) : 0;
    }
    struct stat status;
    int code = fstat(fd, &status) < 0 ? nnc_fail_errno("%s", name) : 0;
    if (code == 0 && S_ISREG(status.st_mode)) {
        fdatasync(fd); /* refused by read-only file systems, which have nothing to write */
        posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
        code = look(fd, &status, report);
        code = code < 0 ? nnc_fail(code, "%s: mincore: %s", name, strerror(-code)) : 0;
    }
    close(fd);
    return code;
}

int nnc_page_cache_drop(const struct nnc_dataset_part *part, struct nnc_page_cache *ret_report) {
    const struct nnc_index *index = &part->index;
    struct nnc_page_cache report = {.memory_bytes = part->raw_fd >= 0 ? part->raw_bytes : 0};
    bool folder = index->header->kind == NNC_INDEX_FOLDER;
    uint64_t count = folder ? index->header->samples : index->header->files;
    int root_fd = open(part->root, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (root_fd < 0) {
        return nnc_fail_errno("data directory %s", part->root);
    }
    int code = 0;
    for (uint64_t i = 0; code == 0 && i < count; i++) {
        const char *name =
            index->strings + (folder ? index->samples[i].name : index->files[i].name);
        code = name[0] == '\0' ? 0 : drop_file(root_fd, name, &report);
    }
    close(root_fd);
    if (code == 0) {
        *ret_report = report;
    }
    return code;
}
