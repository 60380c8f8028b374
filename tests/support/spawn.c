/* SPDX-License-Identifier: Apache-2.0 */
#include "spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

/* Descriptors are first copied up here, so that a target number cannot destroy a source. */
#define FAR_FD 100

pid_t test_spawn(const char *program, char *const argv[], const int fds[], unsigned count) {
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    int copies[8] = {-1, -1, -1, -1, -1, -1, -1, -1};
    for (unsigned i = 0; i < count && i < 8; i++) {
        copies[i] = fcntl(fds[i], F_DUPFD_CLOEXEC, FAR_FD);
        posix_spawn_file_actions_adddup2(&actions, copies[i], 3 + (int)i);
    }
    pid_t pid = -1;
    int error = posix_spawn(&pid, program, &actions, NULL, argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    for (unsigned i = 0; i < 8; i++) {
        if (copies[i] >= 0) {
            close(copies[i]);
        }
    }
    errno = error;
    return error == 0 ? pid : -1;
}

int test_reap(pid_t pid, int timeout_ms) {
    int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    struct pollfd end = {.fd = pidfd, .events = POLLIN};
    int ready = pidfd < 0 ? 0 : poll(&end, 1, timeout_ms);
    if (pidfd >= 0) {
        close(pidfd);
    }
    int status = -1;
    if (ready == 1 && waitpid(pid, &status, 0) != pid) {
        return -1;
    }
    return ready == 1 ? status : -1;
}
