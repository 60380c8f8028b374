/* SPDX-License-Identifier: Apache-2.0 */
/* Reading a run's secret; see secret.h. Neither a command line nor an environment shows it to other
 * users of the machine, so it comes from a file or through a descriptor.
 *
 * Invariants:
 *   1. What has a name must be private: who could open it could join the run.
 *   2. What was read is wiped here, whatever comes of it, and no error text shows any of it, nor a
 *      name that may be the secret itself. */
#include "ipc/secret.h"

#include "base/clock.h"
#include "base/err.h"
#include "base/regular.h"
#include "base/text.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define DIGITS       (2 * NNC_SECRET_BYTES)
#define CONTENT_MAX  (DIGITS + 64) /* digits and white space */
#define PIPE_WAIT_NS 10000000000ull

/* What makes one. */
#define HOW_TO_MAKE "make one with (umask 077; openssl rand -hex 32 > FILE)"

static bool is_descriptor(const char *where) {
    return strncmp(where, "fd:", 3) == 0;
}

/* The number in "fd:N", or -1. */
static int named_descriptor(const char *where) {
    char *end = NULL;
    if (!is_descriptor(where) || where[3] < '0' || where[3] > '9') {
        return -1;
    }
    errno = 0;
    long fd = strtol(where + 3, &end, 10);
    return errno == 0 && *end == '\0' && fd <= INT_MAX ? (int)fd : -1;
}

/* Is it what nobody else can open by a name? */
static int check_privacy(int fd, const char *where) {
    struct stat status;
    if (fstat(fd, &status) < 0) {
        nnc_fail_errno("secret: %s", where);
        return nnc_fail(-NNC_E_USAGE, "%s", nnc_error_text());
    }
    /* Pipes and memory files have no name, and bits that mean nothing. */
    if (!S_ISREG(status.st_mode) || status.st_nlink == 0) {
        return 0;
    }
    if (status.st_uid != geteuid() && status.st_uid != 0) {
        return nnc_fail(-NNC_E_USAGE,
                        "secret: %s belongs to user %u, who can change it; it must belong to the "
                        "user who runs this: " HOW_TO_MAKE,
                        where, status.st_uid);
    }
    if (status.st_mode & 077) {
        return nnc_fail(-NNC_E_USAGE,
                        "secret: others may open %s (mode %04o): chmod 600 %s, or make a new one "
                        "if somebody may have read it",
                        where, status.st_mode & 07777, is_descriptor(where) ? "FILE" : where);
    }
    return 0;
}

/* Until something comes; false when it takes too long. */
static bool wait_for_bytes(int fd, uint64_t deadline_ns) {
    struct pollfd poller = {.fd = fd, .events = POLLIN};
    int ready;
    do {
        uint64_t now_ns = nnc_clock_ns();
        uint64_t left_ns = now_ns < deadline_ns ? deadline_ns - now_ns : 0;
        ready = poll(&poller, 1, (int)(left_ns / 1000000));
    } while (ready < 0 && errno == EINTR);
    return ready > 0;
}

/* Up to `room` bytes, until the end: how many, or negative. */
static ssize_t read_all(int fd, const char *where, char *content, size_t room) {
    uint64_t deadline_ns = nnc_clock_ns() + PIPE_WAIT_NS;
    size_t done = 0;
    while (done < room) {
        if (!wait_for_bytes(fd, deadline_ns)) {
            return nnc_fail(-NNC_E_USAGE, "secret: %s: nothing came, or no end", where);
        }
        ssize_t came = read(fd, content + done, room - done);
        if (came == 0) {
            break;
        }
        if (came < 0 && errno != EINTR && errno != EAGAIN) {
            nnc_fail_errno("secret: %s", where);
            return nnc_fail(-NNC_E_USAGE, "%s", nnc_error_text());
        }
        done += came > 0 ? (size_t)came : 0;
    }
    return (ssize_t)done;
}

/* The value of a hexadecimal digit, or -1. */
static int digit_value(char digit) {
    if (digit >= '0' && digit <= '9') {
        return digit - '0';
    }
    char lower = (char)(digit | 0x20);
    return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

static bool parse(const char *content, size_t bytes, uint8_t ret_secret[NNC_SECRET_BYTES]) {
    if (bytes < DIGITS || bytes > CONTENT_MAX) {
        return false;
    }
    for (size_t i = 0; i < NNC_SECRET_BYTES; i++) {
        int high = digit_value(content[2 * i]), low = digit_value(content[2 * i + 1]);
        if (high < 0 || low < 0) {
            return false;
        }
        ret_secret[i] = (uint8_t)(high << 4 | low);
    }
    for (size_t i = DIGITS; i < bytes; i++) {
        if (memchr(" \t\r\n", content[i], 4) == NULL) {
            return false;
        }
    }
    return true;
}

static int read_secret(int fd, const char *where, uint8_t ret_secret[NNC_SECRET_BYTES]) {
    char content[CONTENT_MAX + 1];
    uint8_t secret[NNC_SECRET_BYTES];
    int code = check_privacy(fd, where);
    ssize_t bytes = code < 0 ? code : read_all(fd, where, content, sizeof(content));
    if (bytes < 0) {
        code = (int)bytes;
    } else if (parse(content, (size_t)bytes, secret)) {
        memcpy(ret_secret, secret, sizeof(secret));
    } else {
        code = nnc_fail(
            -NNC_E_USAGE,
            "secret: %s does not hold %d hexadecimal digits and nothing else; " HOW_TO_MAKE, where,
            DIGITS);
    }
    explicit_bzero(content, sizeof(content));
    explicit_bzero(secret, sizeof(secret));
    return code;
}

int nnc_secret_read(const char *where, uint8_t ret_secret[NNC_SECRET_BYTES]) {
    if (nnc_text_looks_secret(where)) {
        return nnc_fail(-NNC_E_USAGE, "secret: a file has it, not the option itself; " HOW_TO_MAKE);
    }
    int fd = named_descriptor(where);
    if (fd < 0 && is_descriptor(where)) {
        return nnc_fail(-NNC_E_USAGE, "secret: %s names no descriptor; fd:3 would", where);
    }
    if (fd < 0 && nnc_regular_open(where, &fd) < 0) {
        return nnc_fail(-NNC_E_USAGE, "secret: %s; " HOW_TO_MAKE, nnc_error_text());
    }
    int code = read_secret(fd, where, ret_secret);
    if (fd > STDERR_FILENO) {
        close(fd);
    }
    return code;
}
