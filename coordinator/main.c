/* SPDX-License-Identifier: Apache-2.0 */
/* nncoord: the coordinator and the command line. Reads options, runs a verb, turns the result into
 * an exit status and one sentence. Links no JPEG, no oneDNN, no CUDA. */
#include "coordinator/launcher.h"
#include "coordinator/verbs.h"

#include "base/clock.h"
#include "base/err.h"
#include "base/log.h"
#include "base/output.h"
#include "base/paths.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Numbers 0 to 2 must be taken: else the first files opened get them, and what is meant for stderr
 * is written into a file of the run. Standard output becomes one that refuses, so that a result
 * nobody can get is an error. */
static void fill_standard_descriptors(void) {
    for (int fd = 0; fd < 3; fd++) {
        if (fcntl(fd, F_GETFD) < 0 && errno == EBADF) {
            /* The lowest free number is taken, and that is fd. */
            (void)!open("/dev/null", fd == STDERR_FILENO ? O_WRONLY : O_RDONLY);
        }
    }
}

/* Descriptors that our own parent forgot must not reach our children, and there must be enough for
 * all children; a grandchild whose parent dies must come to us. */
static void prepare_process(void) {
    fill_standard_descriptors();
#if defined(SYS_close_range)
    syscall(SYS_close_range, 3u, ~0u, 4u /* CLOSE_RANGE_CLOEXEC */);
#endif
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN);
}

/* Parse the command line. Parsing reorders the words, and the command points into them: *ret_words
 * is a copy, owned by the caller. */
static int read_command(int argc, char **argv, struct nnc_command *ret_command, bool *ret_done,
                        char ***ret_words) {
    char recipes[NNC_PATH_MAX];
    int result = nnc_path_data("models/recipes", recipes, sizeof(recipes));
    if (result < 0) {
        return result;
    }
    char **words = calloc((size_t)argc + 1, sizeof(*words));
    if (words == NULL) {
        return nnc_fail(-ENOMEM, "command line: out of memory");
    }
    memcpy(words, argv, (size_t)argc * sizeof(*words));
    *ret_words = words;
    return nnc_command_parse(argc, words, recipes, ret_command, ret_done);
}

/* End as the signal that stopped the verb would have ended us, so that a shell's loop stops too. */
static void end_by_signal(int number) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, number);
    signal(number, SIG_DFL);
    sigprocmask(SIG_UNBLOCK, &set, NULL);
    raise(number);
}

int main(int argc, char **argv) {
    struct nnc_verb_context context = {.started_ns = nnc_clock_ns(), .argv = argv};
    prepare_process();
    static struct nnc_command command;
    bool done = false;
    char **words = NULL;
    int result = read_command(argc, argv, &command, &done, &words);
    if (result >= 0 && !done) {
        const struct nnc_config *config = &command.config;
        nnc_log_init("nncoord", config->verbose > 0 ? NNC_LOG_DEBUG
                                : config->quiet     ? NNC_LOG_WARN
                                                    : NNC_LOG_INFO);
        nnc_machine_probe(&context.machine);
        context.command = &command;
        result = nnc_launcher_apply(&command);
        result = result < 0 ? result : nnc_verb_execute(&context);
    }
    if (result >= 0) {
        result = nnc_output_flush(stdout, "standard output");
    }
    if (result < 0) {
        bool stopped = result == -NNC_E_STOPPED || nnc_error_signal(result) != 0;
        fprintf(stderr, "nncoord: %s%s\n", stopped ? "" : "error: ", nnc_error_text());
    }
    free(words);
    if (nnc_error_signal(result) != 0) {
        end_by_signal(nnc_error_signal(result));
    }
    return nnc_error_exit_status(result);
}
