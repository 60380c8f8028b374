/* SPDX-License-Identifier: Apache-2.0 */
/* Proportional set size without the rings, from /proc/self/smaps.
 *
 *   header of a mapping:  7f12a000-7f12b000 rw-s 00000000 00:01 2053  /memfd:nncoord-ring-data-...
 *   its fields:           Pss:                 124 kB
 *
 * smaps_rollup would be one block instead of many, but it adds the rings in, which can be larger
 * than everything else. A process may always read its own list, whatever it forbids others.
 *
 * Where memfd_create is refused, all shared memory is unnamed files and the index cannot be told
 * from the rings: both are left out.
 * Source: proc_pid_smaps(5). */
#include "ipc/footprint.h"

#include "base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define FIRST_PAUSE_NS 10000000ull
#define LAST_PAUSE_NS  1000000000ull
#define PAUSE_PER_COST 400 /* a pause is so many times as long as a measurement took */

struct scan {
    bool in_ring; /* the mapping whose fields follow */
    uint64_t kib;
};

static bool is_ring(const char *header) {
    bool unnamed = strstr(header, "/#") != NULL && strstr(header, "(deleted)") != NULL;
    return unnamed || strstr(header, "/memfd:nncoord-ring") != NULL;
}

/* One line, ended by a zero. Names of fields begin with a capital, headers with a digit of an
 * address. */
static void take_line(struct scan *scan, const char *line) {
    uint64_t kib;
    bool is_field = line[0] >= 'A' && line[0] <= 'Z';
    if (!is_field) {
        scan->in_ring = is_ring(line);
    } else if (!scan->in_ring && sscanf(line, "Pss: %" SCNu64, &kib) == 1) {
        scan->kib += kib;
    }
}

/* Take all complete lines of text[0..used); returns how many bytes of an incomplete one were moved
 * to the front. */
static size_t take_lines(struct scan *scan, char *text, size_t used) {
    size_t begin = 0;
    char *end;
    while ((end = memchr(text + begin, '\n', used - begin)) != NULL) {
        *end = '\0';
        take_line(scan, text + begin);
        begin = (size_t)(end - text) + 1;
    }
    memmove(text, text + begin, used - begin);
    return used - begin;
}

int nnc_footprint_read(int fd, uint64_t *ret_bytes) {
    char text[16384]; /* longer than any line: a path has 4,096 bytes at most */
    struct scan scan = {.kib = 0};
    size_t used = 0;
    for (;;) {
        ssize_t got = read(fd, text + used, sizeof(text) - used);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got < 0) {
            return -errno;
        }
        used = take_lines(&scan, text, used + (size_t)got);
        if (used == sizeof(text)) {
            return -EFBIG; /* one line without an end: no such list */
        }
        if (got == 0) {
            *ret_bytes = scan.kib * 1024;
            return 0;
        }
    }
}

static uint64_t maximum(uint64_t left, uint64_t right) {
    return left > right ? left : right;
}

uint64_t nnc_footprint_own(struct nnc_footprint *footprint) {
    uint64_t began_ns = nnc_clock_ns();
    if (began_ns < footprint->next_ns) {
        return footprint->bytes;
    }
    int fd = open("/proc/self/smaps", O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        nnc_footprint_read(fd, &footprint->bytes);
        close(fd);
    }
    uint64_t now_ns = nnc_clock_ns();
    footprint->pause_ns = maximum(2 * footprint->pause_ns, FIRST_PAUSE_NS);
    footprint->pause_ns = footprint->pause_ns < LAST_PAUSE_NS ? footprint->pause_ns : LAST_PAUSE_NS;
    footprint->next_ns =
        now_ns + maximum(footprint->pause_ns, PAUSE_PER_COST * (now_ns - began_ns));
    return footprint->bytes;
}
