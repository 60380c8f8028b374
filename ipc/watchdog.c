/* SPDX-License-Identifier: Apache-2.0 */
/* The watchdog sleeps on two descriptors: the parent's pidfd and an eventfd that ends it.
 *
 * PDEATHSIG does the same job in the kernel; this is the second line for the cases it does not
 * cover: it is cleared when a process changes its credentials, and it follows the thread that
 * spawned us, not the process.
 *
 * Invariant: the pidfd is opened first and the parent's pid compared behind it, so that a pid used
 * again cannot be watched by mistake.
 *
 * Does not clean up or report: the coordinator that would read a report is dead.
 *
 * Source: pidfd_open(2): readable when the process has ended. */
#include "ipc/watchdog.h"

#include "base/err.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Without pidfd the parent's pid is compared this often. */
#define FALLBACK_MS 1000

struct nnc_watchdog {
    pthread_t thread;
    int32_t parent_pid;
    int parent_fd; /* -1: no pidfd_open here; poll() skips negative descriptors */
    int stop_fd;
};

static void *watch(void *context) {
    const struct nnc_watchdog *watchdog = context;
    struct pollfd sources[] = {{.fd = watchdog->stop_fd, .events = POLLIN},
                               {.fd = watchdog->parent_fd, .events = POLLIN}};
    for (;;) {
        int timeout_ms = watchdog->parent_fd < 0 ? FALLBACK_MS : -1;
        poll(sources, 2, timeout_ms);
        if (sources[0].revents != 0) {
            return NULL;
        }
        if (sources[1].revents != 0 || getppid() != watchdog->parent_pid) {
            _exit(NNC_EXIT_INTERNAL);
        }
    }
}

static void release(struct nnc_watchdog *watchdog) {
    if (watchdog->parent_fd >= 0) {
        close(watchdog->parent_fd);
    }
    if (watchdog->stop_fd >= 0) {
        close(watchdog->stop_fd);
    }
    free(watchdog);
}

static int start_thread(struct nnc_watchdog *watchdog) {
    watchdog->parent_fd = (int)syscall(SYS_pidfd_open, watchdog->parent_pid, 0);
    if (getppid() != watchdog->parent_pid) {
        return nnc_fail(-EPIPE, "child: the coordinator is gone");
    }
    watchdog->stop_fd = eventfd(0, EFD_CLOEXEC);
    if (watchdog->stop_fd < 0) {
        return nnc_fail_errno("child: watchdog eventfd");
    }
    int error = pthread_create(&watchdog->thread, NULL, watch, watchdog);
    if (error != 0) {
        errno = error;
        return nnc_fail_errno("child: watchdog thread");
    }
    return 0;
}

int nnc_watchdog_start(int32_t parent_pid, struct nnc_watchdog **ret_watchdog) {
    struct nnc_watchdog *watchdog = calloc(1, sizeof(*watchdog));
    if (watchdog == NULL) {
        return nnc_fail(-ENOMEM, "child: no memory for the watchdog");
    }
    watchdog->parent_pid = parent_pid;
    watchdog->parent_fd = -1;
    watchdog->stop_fd = -1;
    int code = start_thread(watchdog);
    if (code < 0) {
        release(watchdog);
        return code;
    }
    *ret_watchdog = watchdog;
    return 0;
}

void nnc_watchdog_stop(struct nnc_watchdog *watchdog) {
    if (watchdog == NULL) {
        return;
    }
    uint64_t one = 1;
    while (write(watchdog->stop_fd, &one, sizeof(one)) < 0 && errno == EINTR) {
    }
    pthread_join(watchdog->thread, NULL);
    release(watchdog);
}
