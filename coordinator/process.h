/* SPDX-License-Identifier: Apache-2.0 */
/* One child process as the coordinator holds it: pidfd, channel, page, log pipe and last words.
 * Children are exec'ed with exactly the descriptors they are given and a small environment; nothing
 * is inherited.
 *
 * Only the coordinator's main thread may spawn: a child asks for SIGKILL when its parent *thread*
 * ends. */
#ifndef NNC_COORDINATOR_PROCESS_H
#define NNC_COORDINATOR_PROCESS_H

#include "ipc/child.h"
#include "ipc/device.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define NNC_PROCESS_FDS_MAX (2 * NNC_MAX_RANKS + 16)

/* Descriptors a child gets beside the fixed ones; child number = NNC_FD_FIRST_OTHER + place. */
struct nnc_fd_list {
    int source[NNC_PROCESS_FDS_MAX];
    int count;
};

/* Add a descriptor (-1 adds nothing) and return the number it will have in the child, or -1. */
int nnc_fd_list_add(struct nnc_fd_list *list, int fd);

/* How a process ended. */
struct nnc_process_end {
    bool signalled;
    int status;         /* exit status or signal number */
    int32_t error_code; /* from its page; 0: it left none */
    uint64_t peak_rss_bytes;
    double cpu_seconds;
};

struct nnc_process {
    enum nnc_role role;
    uint32_t number;
    uint32_t incarnation;
    pid_t pid; /* 0: not running */
    int pidfd, log_fd, page_fd;
    struct nnc_channel *channel;
    struct nnc_child_page *page;
    char last_words[1024]; /* end of what it logged */
    uint32_t last_length;
    bool hung;          /* was killed because it did not move */
    uint64_t failed_ns; /* when it was first seen to have left an error; 0: it has not */
    uint64_t started_ns;
};

struct nnc_process_params {
    const char *directory;         /* where the binaries are */
    const struct nnc_setup *setup; /* complete but for build id, parent and sizes */
    const struct nnc_fd_list *fds;
};

/* "loader 2", "trainer 0", "saver". Owned by a static table per call: copy if kept. */
void nnc_process_name(const struct nnc_process *process, char *ret_name, size_t bytes);

/* Start the program that setup->role names. Errors: negative with text; *ret_process stays unused.
 */
int nnc_process_spawn(const struct nnc_process_params *params, struct nnc_process *ret_process);

/* Send a signal through the pidfd; a process that is gone is no error. */
void nnc_process_kill(const struct nnc_process *process, int signal_number);

/* Reap an ended process (its pidfd is readable) and keep how it ended. Drains its log. */
int nnc_process_reap(struct nnc_process *process, struct nnc_process_end *ret_end);

/* Copy new log text to stderr and into last_words. Returns false at end of file. */
bool nnc_process_read_log(struct nnc_process *process);

/* Close descriptors and mappings; the process must have been reaped. */
void nnc_process_finish(struct nnc_process *process);

/* One sentence: "was killed by signal 9 (Killed)", "failed: text from its page". Of a process that
 * failed without leaving a text also the last line that it logged. */
void nnc_process_describe_end(const struct nnc_process *process, const struct nnc_process_end *end,
                              char *ret_text, size_t bytes);

/* Open files that the coordinator needs for a run with so many children. */
uint32_t nnc_process_open_files(uint32_t ranks, uint32_t loaders);

/* Run `nncoord-trainer --plan` with this setup and read its answer. */
int nnc_process_plan(const struct nnc_process_params *params, struct nnc_plan_answer *ret_answer);

/* Run `nncoord-trainer --devices` and read its answer: the GPUs that can be used, or why there are
 * none. Errors: as for any child that cannot be started or dies; none found is no error. */
int nnc_process_devices(const char *directory, struct nnc_devices *ret_devices);

#endif
