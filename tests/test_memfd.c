/* SPDX-License-Identifier: Apache-2.0 */
/* Shared memory: contents, seals, refusals, and the fall-back where memfd_create is forbidden. */
#include "ipc/memfd.h"

#include "base/err.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define BYTES 10000

/* Make memfd_create answer ENOSYS in this test's process from now on. */
static void forbid_memfd(void) {
    struct sock_filter program[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_memfd_create, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog filter = {.len = sizeof(program) / sizeof(program[0]), .filter = program};
    cr_assert_eq(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) != 0) {
        cr_skip_test("seccomp filters are not available here");
    }
}

Test(memfd, shared_memory_is_one_for_all_holders_and_cannot_change_its_size) {
    int fd;
    cr_assert_eq(nnc_memfd_create("test", BYTES, NNC_MEMFD_SHARED, NULL, NULL, &fd), 0, "%s",
                 nnc_error_text());
    void *left, *right;
    cr_assert_eq(nnc_memfd_map(fd, BYTES, 1, &left), 0);
    cr_assert_eq(nnc_memfd_map(fd, BYTES, 0, &right), 0);
    memcpy((char *)left + BYTES - 5, "hello", 5);
    cr_assert_eq(memcmp((char *)right + BYTES - 5, "hello", 5), 0);

    cr_assert(ftruncate(fd, BYTES - 1) < 0 && errno == EPERM);
    cr_assert(ftruncate(fd, BYTES + 1) < 0 && errno == EPERM);
    cr_assert(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE) < 0 && errno == EPERM);
    cr_assert(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    struct stat status;
    cr_assert_eq(fstat(fd, &status), 0);
    cr_assert_geq(status.st_blocks * 512, BYTES, "pages are not allocated");
}

Test(memfd, read_only_memory_keeps_its_filling) {
    char fill[BYTES];
    memset(fill, 7, sizeof(fill));
    int fd;
    cr_assert_eq(nnc_memfd_create("test", BYTES, NNC_MEMFD_READONLY, fill, NULL, &fd), 0, "%s",
                 nnc_error_text());
    void *address;
    cr_assert_eq(nnc_memfd_map(fd, BYTES, 1, &address), -NNC_E_FORMAT);
    cr_assert_eq(nnc_memfd_map(fd, BYTES, 0, &address), 0, "%s", nnc_error_text());
    cr_assert_eq(memcmp(address, fill, BYTES), 0);
    cr_assert_lt(pwrite(fd, "x", 1, 0), 0);
    size_t bytes = 0;
    cr_assert_eq(nnc_memfd_size(fd, &bytes), 0);
    cr_assert_eq(bytes, BYTES);
}

Test(memfd, memory_of_another_size_or_without_seals_is_refused) {
    int sealed;
    void *address = &sealed;
    cr_assert_eq(nnc_memfd_create("test", BYTES, NNC_MEMFD_SHARED, NULL, NULL, &sealed), 0);
    cr_assert_eq(nnc_memfd_map(sealed, BYTES + 1, 0, &address), -NNC_E_FORMAT);
    int open_ended = memfd_create("open", MFD_ALLOW_SEALING);
    cr_assert_eq(ftruncate(open_ended, BYTES), 0);
    cr_assert_eq(nnc_memfd_map(open_ended, BYTES, 0, &address), -NNC_E_FORMAT);
    cr_assert_eq(fcntl(open_ended, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SEAL), 0);
    cr_assert_eq(nnc_memfd_map(open_ended, BYTES, 0, &address), -NNC_E_FORMAT);
    int ends[2];
    cr_assert_eq(pipe(ends), 0);
    cr_assert_eq(nnc_memfd_map(ends[0], BYTES, 0, &address), -NNC_E_FORMAT);
    cr_assert_lt(nnc_memfd_map(-1, BYTES, 0, &address), 0);
    cr_assert_eq(address, &sealed, "outputs stay untouched");
}

Test(memfd, more_memory_than_the_machine_has_is_refused_in_words) {
    /* Without a limit a mistake here would take all memory of the machine. */
    struct rlimit file_size = {1 << 20, 1 << 20};
    cr_assert_eq(setrlimit(RLIMIT_FSIZE, &file_size), 0);
    int fd = -7;
    int code = nnc_memfd_create("ring data", (size_t)1 << 60, NNC_MEMFD_SHARED, NULL, NULL, &fd);
    cr_assert_lt(code, 0);
    cr_assert_eq(fd, -7);
    cr_assert_not_null(strstr(nnc_error_text(), "ring data: 1152921504606846976 bytes"), "%s",
                       nnc_error_text());
}

Test(memfd, an_unnamed_file_stands_in_where_memfd_is_forbidden) {
    forbid_memfd();
    int fd;
    cr_assert_eq(nnc_memfd_create("test", BYTES, NNC_MEMFD_SHARED, NULL, NULL, &fd), -ENOSYS);
    cr_assert_not_null(strstr(nnc_error_text(), "--shm-dir"), "%s", nnc_error_text());
    cr_assert_lt(nnc_memfd_create("test", BYTES, NNC_MEMFD_SHARED, NULL, "/proc", &fd), 0);

    char fill[BYTES];
    memset(fill, 9, sizeof(fill));
    const char *directory = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
    cr_assert_eq(nnc_memfd_create("test", BYTES, NNC_MEMFD_READONLY, fill, directory, &fd), 0, "%s",
                 nnc_error_text());
    void *address;
    cr_assert_eq(nnc_memfd_map(fd, BYTES, 0, &address), 0, "%s", nnc_error_text());
    cr_assert_eq(memcmp(address, fill, BYTES), 0);
    cr_assert_lt(pwrite(fd, "x", 1, 0), 0);
    cr_assert_lt(nnc_memfd_map(fd, BYTES, 1, &address), 0);

    cr_assert_eq(nnc_memfd_create("test", BYTES, NNC_MEMFD_SHARED, NULL, directory, &fd), 0);
    cr_assert_eq(nnc_memfd_map(fd, BYTES, 1, &address), 0, "%s", nnc_error_text());
    cr_assert_eq(nnc_memfd_map(fd, BYTES - 1, 1, &address), -NNC_E_FORMAT);
}
