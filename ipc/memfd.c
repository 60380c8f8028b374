/* SPDX-License-Identifier: Apache-2.0 */
/* Making and mapping shared memory that has no name.
 *
 *   create: descriptor -> allocate every page -> copy the filling -> seal
 *   map:    size as agreed -> cannot shrink -> mmap
 *
 * Invariants:
 *   1. All pages exist before the descriptor is handed out: a full machine or control group refuses
 * here with a text, and no process meets SIGBUS later.
 *   2. Nobody can shrink a sealed memfd under another process's mapping, or grow it past what it
 * checked.
 *   3. Nothing is left behind: memory without a name goes with its last holder, however that one
 * dies.
 *
 * The fall-back, an unlinked file for systems that forbid memfd_create, keeps 1 and 3 but knows no
 * seals; there the processes of one run trust each other not to truncate. Read-only memory is given
 * out there as a descriptor that was opened for reading.
 *
 * Does not decide how much memory a run may have: that is the plan's preflight, which compares with
 * what is available and with the control group's limit before anything is made here. Only what is
 * larger than the whole machine is refused here.
 *
 * Source: memfd_create(2), fcntl(2) "File sealing", open(2) O_TMPFILE. */
#include "ipc/memfd.h"

#include "base/err.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>
#include <unistd.h>

/* Linux 6.3; Debian 12's header is older. */
#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif

#define SIZE_SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)

/* A fresh sealable descriptor, or -1 with errno. */
static int open_memfd(const char *name) {
    int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);
    if (fd < 0) {
        /* Kernels before 6.3 do not know the flag. */
        fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    }
    return fd;
}

static int open_unlinked(const char *role, const char *directory, int memfd_errno, int *ret_fd) {
    if (directory == NULL || directory[0] == '\0') {
        errno = memfd_errno;
        return nnc_fail_errno("memory for %s: memfd_create; give --shm-dir DIR to use a file",
                              role);
    }
    int fd = open(directory, O_TMPFILE | O_EXCL | O_RDWR | O_CLOEXEC, 0600);
    if (fd < 0) {
        return nnc_fail_errno("memory for %s: memfd_create is refused here and %s takes no unnamed "
                              "file; give --shm-dir a directory on tmpfs, ext4 or xfs",
                              role, directory);
    }
    *ret_fd = fd;
    return 0;
}

/* All pages at once; posix_fallocate() returns its error. A memfd has no limit of its own, the
 * kernel would allocate until it kills somebody: what cannot ever fit is not tried. */
static int allocate_pages(int fd, size_t bytes) {
    struct sysinfo machine;
    if (sysinfo(&machine) == 0 && bytes / machine.mem_unit > machine.totalram + machine.freeswap) {
        return -ENOMEM;
    }
    int error;
    do {
        error = posix_fallocate(fd, 0, (off_t)bytes);
    } while (error == EINTR);
    return -error;
}

static int write_fill(int fd, const char *fill, size_t bytes) {
    size_t done = 0;
    while (done < bytes) {
        ssize_t moved = pwrite(fd, fill + done, bytes - done, (off_t)done);
        if (moved < 0 && errno != EINTR) {
            return -errno;
        }
        done += moved > 0 ? (size_t)moved : 0;
    }
    return 0;
}

/* Only for unnamed files: exchange the descriptor for one that cannot write. */
static int reopen_for_reading(int *fd) {
    char path[64];
    snprintf(path, sizeof(path), "/proc/self/fd/%d", *fd);
    int reading = open(path, O_RDONLY | O_CLOEXEC);
    if (reading < 0) {
        return -errno;
    }
    close(*fd);
    *fd = reading;
    return 0;
}

/* Fill, then forbid what this kind of memory forbids. */
static int finish(int *fd, bool sealable, size_t bytes, enum nnc_memfd_access access,
                  const void *fill) {
    int code = allocate_pages(*fd, bytes);
    if (code == 0 && fill != NULL) {
        code = write_fill(*fd, fill, bytes);
    }
    if (code < 0) {
        return code;
    }
    if (!sealable) {
        return access == NNC_MEMFD_READONLY ? reopen_for_reading(fd) : 0;
    }
    int seals = SIZE_SEALS | (access == NNC_MEMFD_READONLY ? F_SEAL_WRITE : 0);
    return fcntl(*fd, F_ADD_SEALS, seals) < 0 ? -errno : 0;
}

int nnc_memfd_create(const char *role, size_t bytes, enum nnc_memfd_access access, const void *fill,
                     const char *fallback_dir, int *ret_fd) {
    assert(role != NULL && bytes > 0 && bytes <= INT64_MAX);
    assert(access == NNC_MEMFD_SHARED || fill != NULL);
    char name[128];
    snprintf(name, sizeof(name), "nncoord-%s-%zu", role, bytes);
    int fd = open_memfd(name);
    bool sealable = fd >= 0;
    if (!sealable) {
        int code = open_unlinked(role, fallback_dir, errno, &fd);
        if (code < 0) {
            return code;
        }
    }
    int code = finish(&fd, sealable, bytes, access, fill);
    if (code < 0) {
        close(fd);
        errno = -code;
        return nnc_fail_errno("memory for %s: %zu bytes", role, bytes);
    }
    *ret_fd = fd;
    return 0;
}

/* The seals of fd; those of a descriptor that cannot have any count as complete. */
static int check_seals(int fd, int *ret_seals) {
    int seals = fcntl(fd, F_GET_SEALS);
    if (seals < 0 && errno != EINVAL) {
        return nnc_fail_errno("shared memory: F_GET_SEALS");
    }
    /* EINVAL: a file system without seals. F_SEAL_SEAL alone: a file on tmpfs, which never gets
     * any. */
    bool unsealable = seals < 0 || seals == F_SEAL_SEAL;
    if (!unsealable && (seals & SIZE_SEALS) != SIZE_SEALS) {
        return nnc_fail(-NNC_E_FORMAT, "shared memory: seals %#x, its size can change", seals);
    }
    *ret_seals = unsealable ? 0 : seals;
    return 0;
}

int nnc_memfd_map(int fd, size_t bytes, int writable, void **ret_address) {
    assert(bytes > 0);
    size_t actual;
    int code = nnc_memfd_size(fd, &actual);
    if (code < 0) {
        return code;
    }
    if (actual != bytes) {
        return nnc_fail(-NNC_E_FORMAT, "shared memory: %zu bytes instead of %zu", actual, bytes);
    }
    int seals;
    code = check_seals(fd, &seals);
    if (code < 0) {
        return code;
    }
    if (writable && (seals & F_SEAL_WRITE)) {
        return nnc_fail(-NNC_E_FORMAT, "shared memory: %zu bytes are sealed against writing",
                        bytes);
    }
    /* Kernels before 6.7 refuse shared mappings of write-sealed memory even for reading; what
     * nobody can write is the same in a private one. */
    int kind = seals & F_SEAL_WRITE ? MAP_PRIVATE : MAP_SHARED;
    void *address = mmap(NULL, bytes, PROT_READ | (writable ? PROT_WRITE : 0), kind, fd, 0);
    if (address == MAP_FAILED) {
        return nnc_fail_errno("shared memory: mapping %zu bytes", bytes);
    }
    *ret_address = address;
    return 0;
}

int nnc_memfd_size(int fd, size_t *ret_bytes) {
    struct stat status;
    if (fstat(fd, &status) < 0) {
        return nnc_fail_errno("shared memory: descriptor %d", fd);
    }
    if (!S_ISREG(status.st_mode) || status.st_size <= 0) {
        return nnc_fail(-NNC_E_FORMAT, "shared memory: descriptor %d is no memory region", fd);
    }
    *ret_bytes = (size_t)status.st_size;
    return 0;
}
