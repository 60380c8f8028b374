/* SPDX-License-Identifier: Apache-2.0 */
/* A child process for test_child.c: child_helper ROLE BEHAVIOUR.
 *   loader | trainer     what it takes itself for
 *   obey                 attach, ready, start, orders until STOP; each SNAP counts one step
 *   fail                 leave last words
 *   compute              never look at the channel again */
#include "base/err.h"
#include "base/log.h"
#include "ipc/child.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

static int obey(struct nnc_child *child) {
    struct nnc_msg_ready ready = {.parameters = 42, .note = "test"};
    int code = nnc_child_attached(child);
    code = code < 0 ? code : nnc_child_ready(child, &ready);
    code = code < 0 ? code : nnc_child_wait_start(child);
    if (code < 0) {
        return code;
    }
    nnc_child_beat(child, NNC_DOING_FORWARD);
    for (;;) {
        int order = nnc_child_poll(child);
        if (order < 0) {
            return order;
        }
        if (order == NNC_MSG_STOP) {
            return 0;
        }
        if (order == NNC_MSG_SNAP) {
            nnc_child_count(child, NNC_COUNT_STEP, 1);
            nnc_child_set(child, NNC_COUNT_EPOCH, 9);
        }
        struct pollfd ready_fd = {.fd = nnc_channel_fd(nnc_child_channel(child)), .events = POLLIN};
        poll(&ready_fd, 1, 1000);
    }
}

/* Blind to everything; the parent's death must end it all the same. */
static _Noreturn void compute(void) {
    /* Without the kernel's help, so that the watchdog alone can end us. */
    prctl(PR_SET_PDEATHSIG, 0);
    for (;;) {
        pause();
    }
}

int main(int argc, char **argv) {
    if (argc != 3) {
        return NNC_EXIT_USAGE;
    }
    enum nnc_role role = strcmp(argv[1], "loader") == 0 ? NNC_ROLE_LOADER : NNC_ROLE_TRAINER;
    struct nnc_child *child = NULL;
    int code = nnc_child_begin(role, &child);
    if (code < 0) {
        nnc_log(NNC_LOG_ERROR, "%s", nnc_error_text());
        return nnc_error_exit_status(code);
    }
    if (strcmp(argv[2], "obey") == 0) {
        code = obey(child);
    } else if (strcmp(argv[2], "fail") == 0) {
        code = nnc_fail(-NNC_E_CHECKPOINT, "disk %s", "full");
    } else {
        compute();
    }
    return nnc_child_end(child, code);
}
