/* SPDX-License-Identifier: Apache-2.0 */
/* Spawning and reaping.
 *
 * A child's descriptors are laid out by posix_spawn's dup2 actions. Sources are first lifted above
 * every target number, so that no dup2 overwrites a source that a later one needs. Everything else
 * is close-on-exec. Signals are reset and all blocked in the child by itself (child.c). */
#include "coordinator/process.h"

#include "base/clock.h"
#include "base/err.h"
#include "base/log.h"
#include "ipc/memfd.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define LIFTED_FD (NNC_FD_FIRST_OTHER + NNC_PROCESS_FDS_MAX)

/* Enough to hash a checkpoint of a hundred GB on a slow disk. */
#define ANSWER_SECONDS 600
#define ENTRIES_MAX    128

static const char *const role_names[] = {
    [NNC_ROLE_LOADER] = "loader", [NNC_ROLE_TRAINER] = "trainer", [NNC_ROLE_SAVER] = "saver"};
static const char *const role_programs[] = {[NNC_ROLE_LOADER] = "nncoord-loader",
                                            [NNC_ROLE_TRAINER] = "nncoord-trainer",
                                            [NNC_ROLE_SAVER] = "nncoord-trainer"};

int nnc_fd_list_add(struct nnc_fd_list *list, int fd) {
    if (fd < 0) {
        return -1;
    }
    assert(list->count < NNC_PROCESS_FDS_MAX);
    list->source[list->count] = fd;
    return NNC_FD_FIRST_OTHER + list->count++;
}

void nnc_process_name(const struct nnc_process *process, char *ret_name, size_t bytes) {
    if (process->role == NNC_ROLE_SAVER) {
        snprintf(ret_name, bytes, "saver");
    } else {
        snprintf(ret_name, bytes, "%s %" PRIu32, role_names[process->role], process->number);
    }
}

/* Environment of every child: fixed words, then what the list lets through. */
struct environment {
    char threads[32];
    char *entries[ENTRIES_MAX];
    int count;
};

static void fill_environment(struct environment *environment, uint32_t threads) {
    /* Sanitizers and the GPU's libraries read these; nothing of ours does. */
    static const char *const passed[] = {
        "PATH=",           "HOME=",           "TMPDIR=",       "ASAN_OPTIONS=",    "UBSAN_OPTIONS=",
        "LSAN_OPTIONS=",   "TSAN_OPTIONS=",   "CUDA_",         "CUDNN_",           "NCCL_",
        "XDG_CACHE_HOME=", "ONEDNN_VERBOSE=", "DNNL_VERBOSE=", "LD_LIBRARY_PATH=", "NVIDIA_"};
    static char fixed[][32] = {"LANG=C", "MALLOC_ARENA_MAX=2", "OMP_WAIT_POLICY=passive"};
    environment->count = 0;
    for (size_t i = 0; i < sizeof(fixed) / sizeof(fixed[0]); i++) {
        environment->entries[environment->count++] = fixed[i];
    }
    snprintf(environment->threads, sizeof(environment->threads), "OMP_NUM_THREADS=%" PRIu32,
             threads == 0 ? 1 : threads);
    environment->entries[environment->count++] = environment->threads;
    for (char **entry = environ; *entry != NULL; entry++) {
        for (size_t i = 0; i < sizeof(passed) / sizeof(passed[0]); i++) {
            if (strncmp(*entry, passed[i], strlen(passed[i])) == 0 &&
                environment->count < ENTRIES_MAX - 1) {
                environment->entries[environment->count++] = *entry;
            }
        }
    }
    environment->entries[environment->count] = NULL;
}

/* One dup2 action; the lifted copy is close-on-exec and closed by the caller after the spawn. */
static int add_descriptor(posix_spawn_file_actions_t *actions, int source, int target,
                          struct nnc_fd_list *lifted) {
    int copy = fcntl(source, F_DUPFD_CLOEXEC, LIFTED_FD);
    if (copy < 0) {
        struct rlimit limit = {0};
        getrlimit(RLIMIT_NOFILE, &limit);
        /* EINVAL: the lowest number wanted is beyond the limit; EMFILE: none is free below it. */
        return errno != EINVAL && errno != EMFILE
                   ? nnc_fail_errno("duplicate descriptor %d for a child", source)
                   : nnc_fail(-NNC_E_USAGE,
                              "%" PRIu64
                              " open files are too few to start a child; raise ulimit -n",
                              (uint64_t)limit.rlim_cur);
    }
    lifted->source[lifted->count++] = copy;
    int result = posix_spawn_file_actions_adddup2(actions, copy, target);
    return result == 0 ? 0 : nnc_fail(-result, "posix_spawn actions: %s", strerror(result));
}

uint32_t nnc_process_open_files(uint32_t ranks, uint32_t loaders) {
    const uint32_t other = 32; /* data set, files of the run, epoll, ... */
    const uint32_t per_child = 4;
    uint32_t for_one = 2 * ranks + 16; /* lifted copies of what the child gets */
    uint32_t held = other + 2 * ranks + per_child * (ranks + loaders + 1);
    return (held > LIFTED_FD ? held : LIFTED_FD) + for_one;
}

struct launch {
    const char *program;
    char *const *argv;
    uint32_t threads;
    int std_out;  /* 1 and 2; 0 becomes /dev/null */
    int fixed[3]; /* for NNC_FD_SETUP, NNC_FD_CHANNEL, NNC_FD_PAGE; -1: none */
    const struct nnc_fd_list *others;
};

static int add_all_descriptors(const struct launch *launch, posix_spawn_file_actions_t *actions,
                               struct nnc_fd_list *lifted) {
    posix_spawn_file_actions_addopen(actions, 0, "/dev/null", O_RDONLY, 0);
    int result = add_descriptor(actions, launch->std_out, 1, lifted);
    result = result < 0 ? result : add_descriptor(actions, launch->std_out, 2, lifted);
    for (int i = 0; result >= 0 && i < 3; i++) {
        if (launch->fixed[i] >= 0) {
            result = add_descriptor(actions, launch->fixed[i], NNC_FD_SETUP + i, lifted);
        }
    }
    for (int i = 0; result >= 0 && launch->others != NULL && i < launch->others->count; i++) {
        result = add_descriptor(actions, launch->others->source[i], NNC_FD_FIRST_OTHER + i, lifted);
    }
    return result;
}

/* exec program with these descriptors; returns 0 with *ret_pid or a negative code. */
static int launch_program(const struct launch *launch, pid_t *ret_pid) {
    struct environment environment;
    fill_environment(&environment, launch->threads);
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    posix_spawn_file_actions_init(&actions);
    posix_spawnattr_init(&attributes);
    /* Blocked from the first instruction on, own process group: Ctrl-C reaches the coordinator
     * alone. */
    sigset_t all;
    sigfillset(&all);
    posix_spawnattr_setsigmask(&attributes, &all);
    posix_spawnattr_setpgroup(&attributes, 0);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETPGROUP);
    struct nnc_fd_list lifted = {.count = 0};
    int result = add_all_descriptors(launch, &actions, &lifted);
    if (result >= 0) {
        int error = posix_spawn(ret_pid, launch->program, &actions, &attributes, launch->argv,
                                environment.entries);
        result =
            error == 0 ? 0 : nnc_fail(-error, "start %s: %s", launch->program, strerror(error));
    }
    for (int i = 0; i < lifted.count; i++) {
        close(lifted.source[i]);
    }
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
    return result;
}

/* The setup memfd of one child. */
static int make_setup(const struct nnc_setup *template, int *ret_fd) {
    struct nnc_setup *setup = malloc(sizeof(*setup)); /* large for a stack */
    if (setup == NULL) {
        return nnc_fail(-ENOMEM, "setup of a child: out of memory");
    }
    *setup = *template;
    setup->magic = NNC_SETUP_MAGIC;
    setup->version = NNC_SETUP_VERSION;
    setup->setup_bytes = sizeof(*setup);
    setup->parent_pid = (int32_t)getpid();
    snprintf(setup->build_id, sizeof(setup->build_id), "%s", nnc_build_id());
    int result = nnc_memfd_create("setup", sizeof(*setup), NNC_MEMFD_READONLY, setup,
                                  setup->config.shm_dir, ret_fd);
    free(setup);
    return result;
}

/* Descriptors made for one child; ours and the child's ends. */
struct spawn_ends {
    int setup, channel[2], log[2];
};

static int make_ends(const struct nnc_setup *setup, struct nnc_process *process,
                     struct spawn_ends *ends) {
    int result = make_setup(setup, &ends->setup);
    if (result < 0) {
        return result;
    }
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends->channel) < 0) {
        return nnc_fail_errno("socketpair");
    }
    if (pipe2(ends->log, O_CLOEXEC | O_NONBLOCK) < 0) {
        return nnc_fail_errno("pipe");
    }
    result = nnc_memfd_create("page", NNC_PAGE_BYTES, NNC_MEMFD_SHARED, NULL, setup->config.shm_dir,
                              &process->page_fd);
    if (result < 0) {
        return result;
    }
    void *page;
    result = nnc_memfd_map(process->page_fd, NNC_PAGE_BYTES, 1, &page);
    if (result >= 0) {
        process->page = page;
    }
    return result;
}

static void close_ends(struct spawn_ends *ends) {
    const int all[] = {ends->setup, ends->channel[0], ends->channel[1], ends->log[0], ends->log[1]};
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        if (all[i] >= 0) {
            close(all[i]);
        }
    }
}

/* Take over our ends of a started child. */
static int adopt(struct nnc_process *process, struct spawn_ends *ends, uint32_t generation) {
    process->pidfd = (int)syscall(SYS_pidfd_open, process->pid, 0);
    if (process->pidfd < 0) {
        return nnc_fail_errno("pidfd_open");
    }
    process->log_fd = ends->log[0];
    ends->log[0] = -1;
    int result = nnc_channel_create(ends->channel[0], generation, &process->channel);
    if (result >= 0) {
        ends->channel[0] = -1;
    }
    return result;
}

int nnc_process_spawn(const struct nnc_process_params *params, struct nnc_process *ret_process) {
    const struct nnc_setup *setup = params->setup;
    struct nnc_process process = {.role = (enum nnc_role)setup->role,
                                  .number = setup->number,
                                  .incarnation = setup->incarnation,
                                  .pidfd = -1,
                                  .log_fd = -1,
                                  .page_fd = -1,
                                  .started_ns = nnc_clock_ns()};
    struct spawn_ends ends = {.setup = -1, .channel = {-1, -1}, .log = {-1, -1}};
    int result = make_ends(setup, &process, &ends);
    if (result < 0) {
        goto out;
    }
    char program[PATH_MAX];
    snprintf(program, sizeof(program), "%s/%s", params->directory, role_programs[process.role]);
    char *argv[] = {program, NULL};
    const struct launch launch = {.program = program,
                                  .argv = argv,
                                  .threads = process.role == NNC_ROLE_TRAINER ? setup->threads : 1,
                                  .std_out = ends.log[1],
                                  .fixed = {ends.setup, ends.channel[1], process.page_fd},
                                  .others = params->fds};
    result = launch_program(&launch, &process.pid);
    if (result < 0) {
        goto out;
    }
    result = adopt(&process, &ends, setup->generation);
    if (result < 0) {
        kill(process.pid, SIGKILL);
        waitpid(process.pid, NULL, 0);
    }
out:
    close_ends(&ends);
    if (result < 0) {
        nnc_process_finish(&process);
        return result;
    }
    *ret_process = process;
    return 0;
}

void nnc_process_kill(const struct nnc_process *process, int signal_number) {
    if (process->pid != 0) {
        syscall(SYS_pidfd_send_signal, process->pidfd, signal_number, NULL, 0);
    }
}

/* Keep the end of the text: last words are what matters. */
static void remember_words(struct nnc_process *process, const char *text, size_t bytes) {
    size_t room = sizeof(process->last_words) - 1;
    if (bytes > room) {
        text += bytes - room;
        bytes = room;
    }
    size_t keep = process->last_length + bytes > room ? room - bytes : process->last_length;
    memmove(process->last_words, process->last_words + process->last_length - keep, keep);
    memcpy(process->last_words + keep, text, bytes);
    process->last_length = (uint32_t)(keep + bytes);
    process->last_words[process->last_length] = '\0';
}

bool nnc_process_read_log(struct nnc_process *process) {
    char text[4096];
    for (;;) {
        ssize_t bytes = read(process->log_fd, text, sizeof(text));
        if (bytes > 0) {
            remember_words(process, text, (size_t)bytes);
            if (write(STDERR_FILENO, text, (size_t)bytes) < 0) {
                continue; /* a closed stderr must not stop the run */
            }
        } else if (bytes == 0) {
            return false;
        } else if (errno != EINTR) {
            return errno == EAGAIN;
        }
    }
}

int nnc_process_reap(struct nnc_process *process, struct nnc_process_end *ret_end) {
    assert(process->pid != 0);
    int status;
    struct rusage usage;
    pid_t pid;
    do {
        pid = wait4(process->pid, &status, 0, &usage);
    } while (pid < 0 && errno == EINTR);
    if (pid != process->pid) {
        return nnc_fail_errno("wait for pid %d", (int)process->pid);
    }
    nnc_process_read_log(process);
    struct nnc_process_end end = {.signalled = WIFSIGNALED(status)};
    end.status = end.signalled ? WTERMSIG(status) : WEXITSTATUS(status);
    end.error_code = atomic_load_explicit(&process->page->error_code, memory_order_acquire);
    end.peak_rss_bytes = (uint64_t)usage.ru_maxrss * 1024;
    end.cpu_seconds = (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
                      (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1e-6;
    process->pid = 0;
    *ret_end = end;
    return 0;
}

void nnc_process_finish(struct nnc_process *process) {
    nnc_channel_destroy(process->channel);
    process->channel = NULL;
    if (process->page != NULL) {
        munmap(process->page, NNC_PAGE_BYTES);
        process->page = NULL;
    }
    int *const all[] = {&process->pidfd, &process->log_fd, &process->page_fd};
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        if (*all[i] >= 0) {
            close(*all[i]);
            *all[i] = -1;
        }
    }
}

/* Last line a process logged, without its newline. */
static const char *last_line(struct nnc_process *process) {
    char *words = process->last_words;
    size_t length = strlen(words);
    while (length > 0 && words[length - 1] == '\n') {
        words[--length] = '\0';
    }
    char *newline = strrchr(words, '\n');
    return newline != NULL ? newline + 1 : words;
}

void nnc_process_describe_end(const struct nnc_process *process, const struct nnc_process_end *end,
                              char *ret_text, size_t bytes) {
    struct nnc_process copy = *process;
    const char *words = last_line(&copy);
    if (end->error_code < 0) { /* also when it had to be killed because it could not end */
        /* Another process's memory: take a copy that surely ends. */
        char text[sizeof(process->page->error_text)];
        memcpy(text, process->page->error_text, sizeof(text));
        text[sizeof(text) - 1] = '\0';
        snprintf(ret_text, bytes, "failed: %s", text);
    } else if (end->signalled) {
        snprintf(ret_text, bytes, "was killed by signal %d (%s)%s%s", end->status,
                 strsignal(end->status), words[0] != '\0' ? "; its last words: " : "", words);
    } else {
        bool failed = end->status != 0;
        snprintf(ret_text, bytes, "exited with status %d%s%s", end->status,
                 failed && words[0] != '\0' ? "; its last words: " : "", failed ? words : "");
    }
}

/* A question to nncoord-trainer: an option, perhaps a setup, and room for the answer. */
struct question {
    const char *directory;
    const char *option;            /* "--plan" */
    const struct nnc_setup *setup; /* NULL: none is needed */
    void *answer;
    size_t bytes;
};

/* Sleep until the answer can be read or its time is over. Signals are let in meanwhile, also where
 * a run before has blocked them: there is nothing yet that they would have to wait for. */
static int wait_for_answer(const struct question *question, int fd, uint64_t deadline_ns) {
    struct pollfd wait = {.fd = fd, .events = POLLIN};
    sigset_t none;
    sigemptyset(&none);
    uint64_t now_ns = nnc_clock_ns();
    uint64_t left_ns = deadline_ns > now_ns ? deadline_ns - now_ns : 0;
    const struct timespec left = {.tv_sec = (time_t)(left_ns / 1000000000u),
                                  .tv_nsec = (long)(left_ns % 1000000000u)};
    int ready = ppoll(&wait, 1, &left, &none);
    if (ready == 0) {
        return nnc_fail(-NNC_E_CHILD, "nncoord-trainer %s gave no answer within %d s",
                        question->option, ANSWER_SECONDS);
    }
    return ready < 0 && errno != EINTR ? nnc_fail_errno("poll") : 0;
}

/* Read the answer from the pipe. Returns 1, or 0 when the pipe ends before. */
static int read_answer(const struct question *question, int fd) {
    size_t used = 0;
    uint64_t deadline_ns = nnc_clock_ns() + ANSWER_SECONDS * 1000000000ull;
    while (used < question->bytes) {
        int code = wait_for_answer(question, fd, deadline_ns);
        if (code < 0) {
            return code;
        }
        ssize_t bytes = read(fd, (char *)question->answer + used, question->bytes - used);
        if (bytes < 0 && (errno == EINTR || errno == EAGAIN)) {
            continue;
        }
        if (bytes < 0) {
            return nnc_fail_errno("answer of nncoord-trainer %s", question->option);
        }
        if (bytes == 0) {
            return 0;
        }
        used += (size_t)bytes;
    }
    return 1;
}

/* Reap the trainer that was asked. It has ended, or it is of no use any more and is killed. Returns
 * 0 when it gave an answer, else the failure with how it ended. */
static int end_question(const struct question *question, pid_t pid, int answered) {
    int status = 0;
    if (answered < 0) {
        kill(pid, SIGKILL);
    }
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    if (answered != 0) {
        return answered < 0 ? answered : 0;
    }
    if (WIFSIGNALED(status)) {
        return nnc_fail(-NNC_E_CHILD,
                        "nncoord-trainer %s was killed by signal %d (%s) before it answered",
                        question->option, WTERMSIG(status), strsignal(WTERMSIG(status)));
    }
    return nnc_fail(-NNC_E_CHILD, "nncoord-trainer %s exited with status %d without an answer",
                    question->option, WEXITSTATUS(status));
}

static int ask(const struct question *question) {
    int setup_fd = -1;
    int answer_pipe[2] = {-1, -1};
    pid_t pid = 0;
    int result = question->setup == NULL ? 0 : make_setup(question->setup, &setup_fd);
    if (result >= 0 && pipe2(answer_pipe, O_CLOEXEC) < 0) {
        result = nnc_fail_errno("pipe");
    }
    if (result < 0) {
        goto out;
    }
    char program[PATH_MAX];
    char option[32];
    snprintf(program, sizeof(program), "%s/nncoord-trainer", question->directory);
    snprintf(option, sizeof(option), "%s", question->option);
    char *argv[] = {program, option, NULL};
    const struct launch launch = {.program = program,
                                  .argv = argv,
                                  .threads = 1,
                                  .std_out = STDERR_FILENO,
                                  .fixed = {setup_fd, answer_pipe[1], -1},
                                  .others = NULL};
    result = launch_program(&launch, &pid);
    close(answer_pipe[1]);
    answer_pipe[1] = -1;
    if (result >= 0) {
        result = end_question(question, pid, read_answer(question, answer_pipe[0]));
    }
out:
    for (int i = 0; i < 2; i++) {
        if (answer_pipe[i] >= 0) {
            close(answer_pipe[i]);
        }
    }
    if (setup_fd >= 0) {
        close(setup_fd);
    }
    return result;
}

int nnc_process_plan(const struct nnc_process_params *params, struct nnc_plan_answer *ret_answer) {
    struct nnc_plan_answer answer;
    const struct question question = {.directory = params->directory,
                                      .option = "--plan",
                                      .setup = params->setup,
                                      .answer = &answer,
                                      .bytes = sizeof(answer)};
    int result = ask(&question);
    if (result < 0) {
        return result;
    }
    answer.error_text[sizeof(answer.error_text) - 1] = '\0';
    answer.start_path[sizeof(answer.start_path) - 1] = '\0';
    *ret_answer = answer;
    return answer.status < 0 ? nnc_fail(answer.status, "%s", answer.error_text) : 0;
}

int nnc_process_devices(const char *directory, struct nnc_devices *ret_devices) {
    struct nnc_devices devices;
    const struct question question = {.directory = directory,
                                      .option = "--devices",
                                      .answer = &devices,
                                      .bytes = sizeof(devices)};
    int result = ask(&question);
    if (result < 0) {
        return result;
    }
    devices.count = devices.count < NNC_DEVICES_MAX ? devices.count : NNC_DEVICES_MAX;
    devices.why[sizeof(devices.why) - 1] = '\0';
    for (uint32_t i = 0; i < devices.count; i++) {
        devices.item[i].name[sizeof(devices.item[i].name) - 1] = '\0';
    }
    *ret_devices = devices;
    return 0;
}
