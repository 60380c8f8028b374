/* SPDX-License-Identifier: Apache-2.0 */
/* The life of a child process from its first instruction to its last words.
 *
 *   signals blocked -> dies with its parent -> setup checked -> page mapped -> log named -> channel
 *   -> watchdog (trainer, saver) -> HELLO
 *
 * Invariants:
 *   1. Only the coordinator reads signals: whatever a terminal or a batch system sends to the whole
 * group, a child goes on until the coordinator says STOP or kills it.
 *   2. No child outlives its coordinator: the kernel kills it (PDEATHSIG, set behind exec, then
 * checked against the parent's pid, because the parent may have died in between); the channel ends;
 * and in processes whose main thread may sit in a long computation a watchdog thread watches the
 * parent.
 *   3. The last words are complete before their code is stored: who reads a code may read the text.
 *   4. The setup is trusted when it is sealed, ours and of this build; nothing else is checked
 * field by field here.
 *
 * Does not attach rings, does not shut a sandbox, never exits by itself (except the watchdog).
 *
 * Source: prctl(2), pidfd_open(2). */
#include "ipc/child.h"

#include "base/clock.h"
#include "base/err.h"
#include "base/log.h"
#include "ipc/memfd.h"
#include "ipc/watchdog.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

/* How long a message to the coordinator may wait for room. */
#define SEND_WAIT_MS 5000

#if defined(__SANITIZE_ADDRESS__)
#define NEEDS_PTRACE 1 /* the leak checker stops and reads its own process */
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define NEEDS_PTRACE 1
#endif
#endif
#if !defined(NEEDS_PTRACE)
#define NEEDS_PTRACE 0
#endif

struct nnc_child {
    const struct nnc_setup *setup;
    struct nnc_child_page *page;
    struct nnc_channel *channel;
    struct nnc_watchdog *watchdog; /* trainer and saver */
};

const char *nnc_activity_name(enum nnc_activity activity) {
    switch (activity) {
    case NNC_DOING_SETUP:
        return "setup";
    case NNC_DOING_DATA:
        return "data wait";
    case NNC_DOING_READ:
        return "read";
    case NNC_DOING_DECODE:
        return "decode";
    case NNC_DOING_FORWARD:
        return "forward";
    case NNC_DOING_BACKWARD:
        return "backward";
    case NNC_DOING_REDUCE:
        return "reduce";
    case NNC_DOING_UPDATE:
        return "update";
    case NNC_DOING_EVAL:
        return "eval";
    case NNC_DOING_SNAPSHOT:
        return "snapshot";
    case NNC_DOING_SAVE:
        return "save";
    case NNC_DOING_COUNT:
        break;
    }
    /* A page is another process's memory: any number can be in it. */
    return "unknown";
}

static const char *role_name(enum nnc_role role) {
    switch (role) {
    case NNC_ROLE_LOADER:
        return "loader";
    case NNC_ROLE_TRAINER:
        return "trainer";
    case NNC_ROLE_SAVER:
        return "saver";
    }
    return "child";
}

/* What needs no setup. PDEATHSIG counts from here on; check_parent() catches what came before. */
static int shield_process(enum nnc_role role) {
    sigset_t all;
    sigfillset(&all);
    int error = pthread_sigmask(SIG_SETMASK, &all, NULL);
    if (error != 0) {
        errno = error;
        return nnc_fail_errno("child: block signals");
    }
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN);
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0) {
        return nnc_fail_errno("child: PR_SET_PDEATHSIG");
    }
    /* What a loader decodes is untrusted; nobody shall read its memory or dump it. */
    if (role == NNC_ROLE_LOADER && !NEEDS_PTRACE && prctl(PR_SET_DUMPABLE, 0) < 0) {
        return nnc_fail_errno("child: PR_SET_DUMPABLE");
    }
    umask(077);
    return 0;
}

static int map_setup(const struct nnc_setup **ret_setup) {
    size_t bytes;
    int code = nnc_memfd_size(NNC_FD_SETUP, &bytes);
    if (code < 0) {
        return nnc_fail_in(code, "child: this program is started by nncoord alone");
    }
    if (bytes != sizeof(struct nnc_setup)) {
        return nnc_fail(-NNC_E_FORMAT,
                        "child: setup of %zu bytes instead of %zu; nncoord and this program are "
                        "different builds",
                        bytes, sizeof(struct nnc_setup));
    }
    void *address;
    code = nnc_memfd_map(NNC_FD_SETUP, bytes, 0, &address);
    if (code < 0) {
        return nnc_fail_in(code, "child: setup");
    }
    *ret_setup = address;
    return 0;
}

static int check_setup(const struct nnc_setup *setup, enum nnc_role role) {
    if (setup->magic != NNC_SETUP_MAGIC || setup->version != NNC_SETUP_VERSION ||
        setup->setup_bytes != sizeof(*setup)) {
        return nnc_fail(-NNC_E_FORMAT, "child: descriptor %d holds no setup of version %u",
                        NNC_FD_SETUP, NNC_SETUP_VERSION);
    }
    if (strncmp(setup->build_id, nnc_build_id(), sizeof(setup->build_id)) != 0) {
        return nnc_fail(-NNC_E_FORMAT,
                        "child: nncoord is build %.63s, this program %s; install both "
                        "from one build",
                        setup->build_id, nnc_build_id());
    }
    bool is_role =
        setup->role == (int32_t)role || (role == NNC_ROLE_TRAINER && setup->role == NNC_ROLE_SAVER);
    if (!is_role) {
        return nnc_fail(-NNC_E_FORMAT, "child: setup of role %" PRId32 " given to a %s",
                        setup->role, role_name(role));
    }
    bool fits = setup->ranks <= NNC_MAX_RANKS && setup->local_ranks >= 1 &&
                setup->local_ranks <= setup->ranks &&
                setup->first_rank <= setup->ranks - setup->local_ranks;
    if (!fits) {
        return nnc_fail(-NNC_E_FORMAT,
                        "child: setup with %" PRIu32 " ranks, %" PRIu32
                        " of them here from %" PRIu32 " on",
                        setup->ranks, setup->local_ranks, setup->first_rank);
    }
    bool is_ours = setup->number >= setup->first_rank &&
                   setup->number - setup->first_rank < setup->local_ranks;
    if (setup->role == NNC_ROLE_TRAINER && !is_ours) {
        return nnc_fail(-NNC_E_FORMAT,
                        "child: setup of rank %" PRIu32 ", which is not of this machine",
                        setup->number);
    }
    return 0;
}

static int check_parent(const struct nnc_setup *setup) {
    if (getppid() != setup->parent_pid) {
        return nnc_fail(-EPIPE, "child: the coordinator (pid %" PRId32 ") is gone",
                        setup->parent_pid);
    }
    return 0;
}

static void name_log(const struct nnc_setup *setup) {
    char prefix[32];
    snprintf(prefix, sizeof(prefix), "%s %" PRIu32, role_name((enum nnc_role)setup->role),
             setup->number);
    enum nnc_log_level level = setup->config.verbose > 0 ? NNC_LOG_DEBUG
                               : setup->config.quiet     ? NNC_LOG_WARN
                                                         : NNC_LOG_INFO;
    nnc_log_init(prefix, level);
}

static int map_page(struct nnc_child_page **ret_page) {
    void *address;
    int code = nnc_memfd_map(NNC_FD_PAGE, NNC_PAGE_BYTES, 1, &address);
    if (code < 0) {
        return nnc_fail_in(code, "child: page");
    }
    *ret_page = address;
    return 0;
}

static int send_hello(struct nnc_child *child) {
    struct nnc_msg_hello hello = {.pid = (uint32_t)getpid(),
                                  .setup_bytes = sizeof(struct nnc_setup)};
    snprintf(hello.build_id, sizeof(hello.build_id), "%s", nnc_build_id());
    return nnc_channel_send(child->channel, NNC_MSG_HELLO, &hello, sizeof(hello), SEND_WAIT_MS);
}

/* Everything that needs the setup. */
static int open_child(struct nnc_child *child, enum nnc_role role) {
    int code = map_setup(&child->setup);
    if (code < 0) {
        return code;
    }
    code = check_setup(child->setup, role);
    if (code < 0) {
        return code;
    }
    code = check_parent(child->setup);
    if (code < 0) {
        return code;
    }
    name_log(child->setup);
    code = map_page(&child->page);
    if (code < 0) {
        return code;
    }
    code = nnc_channel_create(NNC_FD_CHANNEL, child->setup->generation, &child->channel);
    if (code < 0) {
        return code;
    }
    if (child->setup->role != NNC_ROLE_LOADER) {
        code = nnc_watchdog_start(child->setup->parent_pid, &child->watchdog);
        if (code < 0) {
            return code;
        }
    }
    close(NNC_FD_SETUP);
    close(NNC_FD_PAGE);
    nnc_child_beat(child, NNC_DOING_SETUP);
    return send_hello(child);
}

static void release_child(struct nnc_child *child) {
    if (child == NULL) {
        return;
    }
    nnc_watchdog_stop(child->watchdog);
    nnc_channel_destroy(child->channel);
    if (child->page != NULL) {
        munmap(child->page, NNC_PAGE_BYTES);
    }
    if (child->setup != NULL) {
        /* munmap() takes the address without looking at what it points to. */
        munmap((void *)(uintptr_t)child->setup, sizeof(*child->setup));
    }
    free(child);
}

int nnc_child_begin(enum nnc_role role, struct nnc_child **ret_child) {
    int code = shield_process(role);
    if (code < 0) {
        return code;
    }
    struct nnc_child *child = calloc(1, sizeof(*child));
    if (child == NULL) {
        return nnc_fail(-ENOMEM, "child: no memory");
    }
    code = open_child(child, role);
    if (code < 0) {
        release_child(child);
        return code;
    }
    *ret_child = child;
    return 0;
}

const struct nnc_setup *nnc_child_setup(const struct nnc_child *child) {
    return child->setup;
}

struct nnc_channel *nnc_child_channel(struct nnc_child *child) {
    return child->channel;
}

struct nnc_child_page *nnc_child_page(struct nnc_child *child) {
    return child->page;
}

int nnc_child_attached(struct nnc_child *child) {
    return nnc_channel_send(child->channel, NNC_MSG_ATTACHED, NULL, 0, SEND_WAIT_MS);
}

int nnc_child_ready(struct nnc_child *child, const struct nnc_msg_ready *ready) {
    return nnc_channel_send(child->channel, NNC_MSG_READY, ready, sizeof(*ready), SEND_WAIT_MS);
}

/* Next message of the coordinator: its type; 0 none; negative. */
static int next_order(struct nnc_child *child) {
    struct nnc_message message;
    int code = nnc_channel_receive(child->channel, &message);
    return code == 1 ? message.header.type : code;
}

int nnc_child_wait_start(struct nnc_child *child) {
    for (;;) {
        int order = next_order(child);
        if (order < 0) {
            return order;
        }
        if (order == NNC_MSG_START) {
            return 0;
        }
        if (order == NNC_MSG_STOP) {
            return nnc_fail(-EPIPE, "child: stopped before the start");
        }
        struct pollfd ready = {.fd = nnc_channel_fd(child->channel), .events = POLLIN};
        if (order == 0 && poll(&ready, 1, -1) < 0 && errno != EINTR) {
            return nnc_fail_errno("child: wait for the start");
        }
    }
}

void nnc_child_hold(struct nnc_child *child, uint32_t phase, uint64_t sample) {
    /* Relaxed: read behind this process's end alone. */
    atomic_store_explicit(&child->page->hand, ((uint64_t)phase << 32 | (uint32_t)sample) + 1,
                          memory_order_relaxed);
    /* What follows may crash: the compiler must not move it up. */
    atomic_signal_fence(memory_order_seq_cst);
}

void nnc_child_hold_nothing(struct nnc_child *child) {
    atomic_signal_fence(memory_order_seq_cst);
    atomic_store_explicit(&child->page->hand, 0, memory_order_relaxed);
}

bool nnc_child_hand(const struct nnc_child_page *page, uint32_t *ret_phase, uint64_t *ret_sample) {
    uint64_t hand = atomic_load_explicit(&page->hand, memory_order_relaxed);
    if (hand == 0) {
        return false;
    }
    *ret_phase = (uint32_t)((hand - 1) >> 32);
    *ret_sample = (uint32_t)(hand - 1);
    return true;
}

void nnc_child_beat(struct nnc_child *child, enum nnc_activity activity) {
    /* Relaxed: the coordinator only compares them with its clock. */
    atomic_store_explicit(&child->page->activity, activity, memory_order_relaxed);
    atomic_store_explicit(&child->page->heartbeat_ns, nnc_clock_ns(), memory_order_relaxed);
}

void nnc_child_count(struct nnc_child *child, enum nnc_counter counter, uint64_t amount) {
    assert(counter < NNC_COUNT_MAX);
    /* Relaxed: statistics, no partner. An addition, because a child may count in several threads.
     */
    atomic_fetch_add_explicit(&child->page->counter[counter], amount, memory_order_relaxed);
}

void nnc_child_set(struct nnc_child *child, enum nnc_counter counter, uint64_t value) {
    assert(counter < NNC_COUNT_MAX);
    /* Relaxed: statistics, no partner. */
    atomic_store_explicit(&child->page->counter[counter], value, memory_order_relaxed);
}

int nnc_child_poll(struct nnc_child *child) {
    for (;;) {
        int order = next_order(child);
        if (order <= 0 || order == NNC_MSG_SNAP || order == NNC_MSG_STOP) {
            return order;
        }
    }
}

void nnc_child_fail(struct nnc_child *child, int code) {
    assert(code < 0);
    if (atomic_load_explicit(&child->page->error_code, memory_order_relaxed) != 0) {
        return;
    }
    snprintf(child->page->error_text, sizeof(child->page->error_text), "%s", nnc_error_text());
    /* Release: pairs with the coordinator's acquire load of error_code; the text is complete. */
    atomic_store_explicit(&child->page->error_code, code, memory_order_release);
}

int nnc_child_end(struct nnc_child *child, int code) {
    if (child != NULL && code < 0) {
        nnc_child_fail(child, code);
    }
    release_child(child);
    return nnc_error_exit_status(code);
}
