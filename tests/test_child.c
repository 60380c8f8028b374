/* SPDX-License-Identifier: Apache-2.0 */
/* Children as real processes: states, orders, last words, refused setups, signals, and orphans. */
#include "base/clock.h"
#include "base/err.h"
#include "ipc/child.h"
#include "ipc/memfd.h"
#include "support/spawn.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define PATIENCE_MS 10000

/* A child and the coordinator's ends of what it shares with it. */
struct family {
    pid_t pid;
    struct nnc_channel *channel;
    struct nnc_child_page *page;
    int error_fd; /* what it writes on descriptor 2 */
};

static struct nnc_setup good_setup(enum nnc_role role) {
    struct nnc_setup setup = {
        .magic = NNC_SETUP_MAGIC,
        .version = NNC_SETUP_VERSION,
        .setup_bytes = sizeof(setup),
        .role = (int32_t)role,
        .number = 2,
        .incarnation = role == NNC_ROLE_LOADER ? 5 : 0,
        .generation = 3,
        .ranks = 4,
        .first_rank = 2,
        .local_ranks = 2,
        .parent_pid = getpid(),
    };
    snprintf(setup.build_id, sizeof(setup.build_id), "%s", nnc_build_id());
    return setup;
}

/* Start child_helper with a setup of `setup_bytes`, its standard error in a pipe. */
static struct family start_child(const struct nnc_setup *setup, size_t setup_bytes,
                                 const char *role, const char *behaviour) {
    struct family family = {0};
    int setup_fd, page_fd, ends[2], errors[2];
    cr_assert_eq(nnc_memfd_create("setup", setup_bytes, NNC_MEMFD_READONLY, setup, NULL, &setup_fd),
                 0);
    cr_assert_eq(nnc_memfd_create("page", NNC_PAGE_BYTES, NNC_MEMFD_SHARED, NULL, NULL, &page_fd),
                 0);
    void *address;
    cr_assert_eq(nnc_memfd_map(page_fd, NNC_PAGE_BYTES, 0, &address), 0);
    family.page = address;
    cr_assert_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
    cr_assert_eq(pipe2(errors, O_CLOEXEC), 0);
    int saved = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 50);
    dup2(errors[1], STDERR_FILENO);
    char program[] = "child_helper", role_text[16], behaviour_text[16];
    snprintf(role_text, sizeof(role_text), "%s", role);
    snprintf(behaviour_text, sizeof(behaviour_text), "%s", behaviour);
    char *argv[] = {program, role_text, behaviour_text, NULL};
    const int fds[] = {setup_fd, ends[1], page_fd};
    family.pid = test_spawn(NNC_TEST_CHILD_HELPER, argv, fds, 3);
    dup2(saved, STDERR_FILENO);
    close(saved);
    close(errors[1]);
    close(ends[1]);
    close(setup_fd);
    close(page_fd);
    cr_assert_gt(family.pid, 0);
    family.error_fd = errors[0];
    cr_assert_eq(nnc_channel_create(ends[0], setup->generation, &family.channel), 0);
    return family;
}

static void finish(struct family *family) {
    nnc_channel_destroy(family->channel);
    munmap(family->page, NNC_PAGE_BYTES);
    close(family->error_fd);
}

static struct family start_good(const char *role, const char *behaviour) {
    struct nnc_setup setup =
        good_setup(strcmp(role, "loader") == 0 ? NNC_ROLE_LOADER : NNC_ROLE_TRAINER);
    return start_child(&setup, sizeof(setup), role, behaviour);
}

/* The next message, which must have this type. */
static struct nnc_message expect(struct family *family, enum nnc_message_type type) {
    struct nnc_message message;
    struct pollfd ready = {.fd = nnc_channel_fd(family->channel), .events = POLLIN};
    cr_assert_eq(poll(&ready, 1, PATIENCE_MS), 1, "no message %d", (int)type);
    cr_assert_eq(nnc_channel_receive(family->channel, &message), 1, "%s", nnc_error_text());
    cr_assert_eq(message.header.type, type, "message %u instead of %d", message.header.type,
                 (int)type);
    return message;
}

static void order(struct family *family, enum nnc_message_type type) {
    cr_assert_eq(nnc_channel_send(family->channel, type, NULL, 0, 0), 0);
}

static void expect_exit(struct family *family, int exit_status) {
    int status = test_reap(family->pid, PATIENCE_MS);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == exit_status, "wait status %#x", status);
}

/* Wait until a counter of the page has a value. */
static void expect_counter(const struct family *family, enum nnc_counter counter, uint64_t value) {
    for (int i = 0; i < PATIENCE_MS && family->page->counter[counter] != value; i++) {
        nnc_clock_sleep_ns(1000000);
    }
    cr_assert_eq(family->page->counter[counter], value);
}

Test(child, a_child_reports_its_states_and_obeys) {
    static const char *const roles[] = {"loader", "trainer"};
    for (int i = 0; i < 2; i++) {
        struct family family = start_good(roles[i], "obey");
        struct nnc_message message = expect(&family, NNC_MSG_HELLO);
        struct nnc_msg_hello hello;
        memcpy(&hello, message.body, sizeof(hello));
        cr_assert_str_eq(hello.build_id, nnc_build_id());
        cr_assert_eq(hello.pid, (uint32_t)family.pid);
        cr_assert_eq(message.header.generation, 3);
        expect(&family, NNC_MSG_ATTACHED);
        message = expect(&family, NNC_MSG_READY);
        struct nnc_msg_ready ready;
        memcpy(&ready, message.body, sizeof(ready));
        cr_assert_eq(ready.parameters, 42);
        order(&family, NNC_MSG_START);
        order(&family, NNC_MSG_SNAP);
        order(&family, NNC_MSG_SNAP);
        expect_counter(&family, NNC_COUNT_STEP, 2);
        expect_counter(&family, NNC_COUNT_EPOCH, 9);
        cr_assert_eq(family.page->activity, NNC_DOING_FORWARD);
        uint64_t age_ns = nnc_clock_ns() - family.page->heartbeat_ns;
        cr_assert_lt(age_ns, 1000000ull * 2 * PATIENCE_MS);
        order(&family, NNC_MSG_STOP);
        expect_exit(&family, 0);
        cr_assert_eq(family.page->error_code, 0);
        finish(&family);
    }
}

Test(child, last_words_stay_on_the_page) {
    struct family family = start_good("trainer", "fail");
    expect_exit(&family, NNC_EXIT_CHECKPOINT);
    cr_assert_eq(family.page->error_code, -NNC_E_CHECKPOINT);
    cr_assert_str_eq(family.page->error_text, "disk full");
    finish(&family);
}

Test(child, stop_before_start_ends_a_child) {
    struct family family = start_good("loader", "obey");
    order(&family, NNC_MSG_STOP);
    expect_exit(&family, NNC_EXIT_INTERNAL);
    cr_assert_eq(family.page->error_code, -EPIPE);
    finish(&family);
}

Test(child, a_closed_channel_ends_a_child) {
    struct family family = start_good("trainer", "obey");
    expect(&family, NNC_MSG_HELLO);
    nnc_channel_destroy(family.channel);
    family.channel = NULL;
    expect_exit(&family, NNC_EXIT_INTERNAL);
    finish(&family);
}

Test(child, signals_of_others_change_nothing) {
    struct family family = start_good("trainer", "obey");
    expect(&family, NNC_MSG_HELLO);
    for (int signal = 1; signal < 32; signal++) {
        if (signal != SIGKILL && signal != SIGSTOP && signal != SIGCONT) {
            cr_assert_eq(kill(family.pid, signal), 0);
        }
    }
    order(&family, NNC_MSG_START);
    order(&family, NNC_MSG_SNAP);
    expect_counter(&family, NNC_COUNT_STEP, 1);
    order(&family, NNC_MSG_STOP);
    expect_exit(&family, 0);
    finish(&family);
}

/* One change of a good setup, and words of the refusal. */
static void spoil(struct nnc_setup *setup, int row) {
    switch (row) {
    case 0:
        setup->magic++;
        break;
    case 1:
        setup->version++;
        break;
    case 2:
        setup->setup_bytes--;
        break;
    case 3:
        setup->build_id[0]++;
        break;
    case 4:
        setup->role = NNC_ROLE_LOADER;
        break;
    case 5:
        setup->ranks = NNC_MAX_RANKS + 1;
        break;
    case 6:
        setup->local_ranks = 3;
        break;
    case 7:
        setup->number = 1;
        break;
    default:
        setup->parent_pid = 1;
        break;
    }
}

static const struct {
    const char *text;
    int exit_status;
} refusals[] = {
    {"holds no setup", NNC_EXIT_USAGE},
    {"holds no setup", NNC_EXIT_USAGE},
    {"holds no setup", NNC_EXIT_USAGE},
    {"install both from one build", NNC_EXIT_USAGE},
    {"given to a trainer", NNC_EXIT_USAGE},
    {"65 ranks", NNC_EXIT_USAGE},
    {"3 of them here", NNC_EXIT_USAGE},
    {"rank 1, which is not of this machine", NNC_EXIT_USAGE},
    {"(pid 1) is gone", NNC_EXIT_INTERNAL},
};

static void expect_refusal(struct family *family, const char *text, int exit_status) {
    char words[512] = "";
    ssize_t length = read(family->error_fd, words, sizeof(words) - 1);
    cr_assert_gt(length, 0);
    cr_assert_not_null(strstr(words, text), "'%s' does not say '%s'", words, text);
    expect_exit(family, exit_status);
    struct nnc_message message;
    cr_assert_eq(nnc_channel_receive(family->channel, &message), -EPIPE, "it must not say HELLO");
    finish(family);
}

Test(child, setups_that_are_not_for_it_are_refused) {
    for (int row = 0; row < (int)(sizeof(refusals) / sizeof(refusals[0])); row++) {
        struct nnc_setup setup = good_setup(NNC_ROLE_TRAINER);
        spoil(&setup, row);
        struct family family = start_child(&setup, sizeof(setup), "trainer", "obey");
        expect_refusal(&family, refusals[row].text, refusals[row].exit_status);
    }
    struct nnc_setup setup = good_setup(NNC_ROLE_TRAINER);
    struct family family = start_child(&setup, sizeof(setup) - 8, "trainer", "obey");
    expect_refusal(&family, "different builds", NNC_EXIT_USAGE);
}

Test(child, a_trainer_program_takes_the_setup_of_a_saver) {
    struct nnc_setup setup = good_setup(NNC_ROLE_SAVER);
    struct family family = start_child(&setup, sizeof(setup), "trainer", "obey");
    expect(&family, NNC_MSG_HELLO);
    order(&family, NNC_MSG_STOP);
    expect_exit(&family, NNC_EXIT_INTERNAL);
    finish(&family);
}

/* Be a coordinator in a process of its own: start the child, tell its pid, wait to be killed. */
static void be_coordinator(const char *role, const char *behaviour, int pid_fd) {
    struct family family = start_good(role, behaviour);
    expect(&family, NNC_MSG_HELLO);
    cr_assert_eq(write(pid_fd, &family.pid, sizeof(family.pid)), (ssize_t)sizeof(family.pid));
    for (;;) {
        pause();
    }
}

/* The child must be gone soon after its coordinator was killed. A pipe that both hold tells it. */
static void expect_no_orphan(const char *role, const char *behaviour) {
    int pids[2], alive[2];
    cr_assert_eq(pipe2(pids, O_CLOEXEC), 0);
    cr_assert_eq(pipe(alive), 0);
    fcntl(alive[0], F_SETFD, FD_CLOEXEC);
    pid_t coordinator = fork();
    if (coordinator == 0) {
        be_coordinator(role, behaviour, pids[1]);
    }
    close(alive[1]);
    pid_t child = 0;
    cr_assert_eq(read(pids[0], &child, sizeof(child)), (ssize_t)sizeof(child));
    struct pollfd end = {.fd = alive[0], .events = POLLIN};
    cr_assert_eq(poll(&end, 1, 50), 0, "%s is gone too early", role);
    kill(coordinator, SIGKILL);
    cr_assert_eq(waitpid(coordinator, NULL, 0), coordinator);
    cr_assert_eq(poll(&end, 1, PATIENCE_MS), 1, "%s %s outlives its coordinator", role, behaviour);
    close(alive[0]);
    close(pids[0]);
    close(pids[1]);
}

Test(child, nobody_outlives_a_killed_coordinator, .timeout = 60) {
    expect_no_orphan("loader", "obey");
    expect_no_orphan("trainer", "obey");
    expect_no_orphan("trainer", "compute");
}

Test(child, every_activity_has_a_name) {
    for (int i = 0; i < NNC_DOING_COUNT; i++) {
        cr_assert_str_neq(nnc_activity_name((enum nnc_activity)i), "unknown", "activity %d", i);
    }
    cr_assert_str_eq(nnc_activity_name((enum nnc_activity)12345), "unknown");
}

Test(child, build_id_names_version_and_layout) {
    cr_assert_not_null(strchr(nnc_build_id(), '-'));
    cr_assert_lt(strlen(nnc_build_id()), 64);
    cr_assert_str_eq(nnc_build_id(), nnc_build_id());
}
