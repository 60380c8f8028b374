/* SPDX-License-Identifier: Apache-2.0 */
/* Runs the built programs as a user would, and looks at what they leave behind. */
#ifndef NNC_TESTS_COMMAND_H
#define NNC_TESTS_COMMAND_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* One running or finished command: stdout and stderr go to files in the scratch folder. */
struct command {
    pid_t pid;
    int status;      /* exit status, or 128 + signal */
    char *out, *err; /* whole text after command_wait(); owned, command_free() */
    char out_path[256], err_path[256];
};

/* A fresh folder under $TMPDIR or /tmp, removed by scratch_remove(). Owned by the caller: free().
 */
char *scratch_make(void);
void scratch_remove(char *scratch);

/* Take the programs from this folder (kept by the caller) instead of the build's from now on. */
void command_use_programs(const char *directory);

/* Start nncoord with these arguments (NULL-ended, without argv[0]) in the scratch folder as
 * working directory, XDG_CACHE_HOME set to it. deny_uring: io_uring_setup answers EPERM by a
 * seccomp filter. */
struct command command_start(const char *scratch, bool deny_uring, const char *const *arguments);

/* Wait for the end and read both outputs. */
void command_wait(struct command *command);
void command_free(struct command *command);

/* command_start + command_wait; arguments as variadic strings ended by NULL. */
struct command command_run(const char *scratch, ...) __attribute__((sentinel));

/* Value of a key of a JSON object in text: number, or string (copied into buffer). Fails the test
 * when it is not there. */
double json_number(const char *text, const char *key);
const char *json_text(const char *text, const char *key, char *buffer, size_t bytes);

/* Pids of live descendants of pid (not zombies), by walking /proc; at most max. role "" takes all,
 * else only programs of that name ("nncoord-loader"). */
size_t find_descendants(pid_t pid, const char *role, pid_t *ret_pids, size_t max);

/* Live processes whose program is one of ours and whose command line or environment names the
 * scratch folder, orphaned or not. */
size_t count_our_processes(const char *scratch);

#endif
