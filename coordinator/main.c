/* SPDX-License-Identifier: Apache-2.0 */
/* nncoord: the coordinator and the command line. Reads options, runs a verb, turns the result into
 * an exit status and one sentence. Links no JPEG, no oneDNN, no CUDA. */
#include "coordinator/verbs.h"

#include "base/clock.h"
#include "base/err.h"
#include "base/log.h"
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

/* The command line as it is parsed: parsing reorders the words, and the command points into them.
 */
struct command_line {
    char **words[2]; /* as given; with the run's own configuration. Owned: main frees them */
    char option[NNC_PATH_MAX + 64];
    struct nnc_command command;
    bool done;
};

/* argv with one more word before place `place` (NULL: none). Owned by the caller. */
static char **copy_arguments(int argc, char **argv, int place, char *word) {
    char **copy = calloc((size_t)argc + 2, sizeof(*copy));
    for (int i = 0, to = 0; copy != NULL && i <= argc; i++) {
        if (word != NULL && i == place) {
            copy[to++] = word;
        }
        copy[to++] = argv[i];
    }
    return copy;
}

/* config.yaml of the run that --resume names, or of the run that its checkpoint lies in; "" if
 * none. */
static void find_run_config(const char *resume, char *ret_path, size_t bytes) {
    snprintf(ret_path, bytes, "%s/config.yaml", resume);
    if (access(ret_path, R_OK) != 0) {
        snprintf(ret_path, bytes, "%s/../config.yaml", resume);
    }
    if (access(ret_path, R_OK) != 0) {
        ret_path[0] = '\0';
    }
}

/* eval and predict of a run take that run's own configuration (model, arguments, crops) as their
 * lowest layer: the command line is read again with --config RUN/config.yaml behind the verb. */
static int adopt_run_config(int argc, char **argv, const char *recipes, struct command_line *line) {
    const struct nnc_command *command = &line->command;
    bool reads = strcmp(command->verb, "eval") == 0 || strcmp(command->verb, "predict") == 0;
    char path[NNC_PATH_MAX + 32];
    if (!reads || command->config.resume[0] == '\0') {
        return 0;
    }
    find_run_config(command->config.resume, path, sizeof(path));
    if (path[0] == '\0') {
        return 0;
    }
    snprintf(line->option, sizeof(line->option), "--config=%s", path);
    line->words[1] = copy_arguments(argc, argv, argv[1][0] == '-' ? 1 : 2, line->option);
    if (line->words[1] == NULL) {
        return nnc_fail(-ENOMEM, "command line: out of memory");
    }
    return nnc_command_parse(argc + 1, line->words[1], recipes, &line->command, &line->done);
}

/* Parse the command line, the run's own configuration included. */
static int read_command(int argc, char **argv, struct command_line *line) {
    char recipes[NNC_PATH_MAX];
    int result = nnc_path_data("models/recipes", recipes, sizeof(recipes));
    if (result < 0) {
        return result;
    }
    line->words[0] = copy_arguments(argc, argv, 0, NULL);
    if (line->words[0] == NULL) {
        return nnc_fail(-ENOMEM, "command line: out of memory");
    }
    result = nnc_command_parse(argc, line->words[0], recipes, &line->command, &line->done);
    return result < 0 || line->done ? result : adopt_run_config(argc, argv, recipes, line);
}

int main(int argc, char **argv) {
    struct nnc_verb_context context = {.started_ns = nnc_clock_ns(), .argv = argv};
    prepare_process();
    static struct command_line line;
    int result = read_command(argc, argv, &line);
    if (result >= 0 && !line.done) {
        const struct nnc_config *config = &line.command.config;
        nnc_log_init("nncoord", config->verbose > 0 ? NNC_LOG_DEBUG
                                : config->quiet     ? NNC_LOG_WARN
                                                    : NNC_LOG_INFO);
        nnc_machine_probe(&context.machine);
        context.command = &line.command;
        result = nnc_verb_execute(&context);
    }
    if (fflush(stdout) != 0 && result >= 0) {
        result = nnc_fail_errno("write to standard output");
    }
    if (result < 0) {
        bool stopped = result == -NNC_E_STOPPED;
        fprintf(stderr, "nncoord: %s%s\n", stopped ? "" : "error: ", nnc_error_text());
    }
    free(line.words[0]);
    free(line.words[1]);
    return nnc_error_exit_status(result);
}
