/* SPDX-License-Identifier: Apache-2.0 */
/* Proportional set sizes out of lists of mappings. */
#include "ipc/footprint.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static int list_of(const char *text, size_t bytes) {
    int fd = memfd_create("list", MFD_CLOEXEC);
    cr_assert_geq(fd, 0);
    cr_assert_eq(write(fd, text, bytes), (ssize_t)bytes);
    cr_assert_eq(lseek(fd, 0, SEEK_SET), 0);
    return fd;
}

Test(footprint, pages_of_all_mappings_but_rings_are_added_up) {
    static const char list[] =
        "55aa000-55ab000 r-xp 00000000 08:01 123                /usr/bin/nncoord-loader\n"
        "Size:                  8 kB\nRss:                   8 kB\nPss:                   3 kB\n"
        "Pss_Dirty:           900 kB\nVmFlags: rd ex mr mw me\n"
        "7f00000-7f99000 rw-s 00000000 00:01 7          /memfd:nncoord-ring-data-9000 (deleted)\n"
        "Pss:                5000 kB\n"
        "7f00000-7f99000 rw-s 00000000 00:01 8          /memfd:nncoord-index-100 (deleted)\n"
        "Pss:                  40 kB\n"
        "7fff000-8000000 rw-p 00000000 00:00 0          [stack]\n"
        "Pss:                 200 kB\n";
    uint64_t bytes = 1;
    int fd = list_of(list, strlen(list));
    cr_assert_eq(nnc_footprint_read(fd, &bytes), 0);
    cr_assert_eq(bytes, (3 + 40 + 200) * 1024);
    close(fd);
}

Test(footprint, a_list_longer_than_the_buffer_is_read_to_its_end) {
    size_t used = 0, room = 1 << 20;
    char *list = malloc(room);
    for (int i = 0; i < 3000; i++) {
        used += (size_t)snprintf(list + used, room - used,
                                 "7f%05d000-7f%05d000 r--p 0 00:00 0 /lib/name-of-length-%0*d\n"
                                 "Pss: 2 kB\n",
                                 i, i + 1, i % 90 + 1, i);
    }
    uint64_t bytes = 0;
    int fd = list_of(list, used);
    cr_assert_eq(nnc_footprint_read(fd, &bytes), 0);
    cr_assert_eq(bytes, 3000 * 2 * 1024);
    close(fd);
    free(list);
}

Test(footprint, a_line_without_end_is_refused) {
    char *list = malloc(40000);
    memset(list, 'a', 40000);
    uint64_t bytes = 77;
    int fd = list_of(list, 40000);
    cr_assert_eq(nnc_footprint_read(fd, &bytes), -EFBIG);
    cr_assert_eq(bytes, 77, "untouched on error");
    close(fd);
    free(list);
}

Test(footprint, memory_that_this_process_fills_shows_up) {
    struct nnc_footprint before = {0}, after = {0};
    uint64_t empty = nnc_footprint_own(&before);
    size_t bytes = 32u << 20;
    char *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    cr_assert_neq(memory, MAP_FAILED);
    memset(memory, 1, bytes);
    uint64_t full = nnc_footprint_own(&after);
    cr_assert_gt(empty, 0);
    cr_assert_geq(full, empty + bytes - (bytes >> 4));
    munmap(memory, bytes);
}

Test(footprint, it_is_not_measured_again_before_it_is_due) {
    struct nnc_footprint footprint = {.next_ns = UINT64_MAX, .bytes = 123};
    cr_assert_eq(nnc_footprint_own(&footprint), 123);
}
