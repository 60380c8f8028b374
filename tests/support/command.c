/* SPDX-License-Identifier: Apache-2.0 */
/* Processes of a test are recognised by the scratch folder in their environment (XDG_CACHE_HOME,
 * which children inherit) so that tests that run side by side do not count each other's. */
#include "tests/support/command.h"

#include <criterion/criterion.h>
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <jansson.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

char *scratch_make(void) {
    const char *base = getenv("TMPDIR");
    char path[200];
    snprintf(path, sizeof(path), "%s/nnc-test-XXXXXX", base != NULL ? base : "/tmp");
    cr_assert_not_null(mkdtemp(path));
    return strdup(path);
}

static int remove_entry(const char *path, const struct stat *status, int type, struct FTW *ftw) {
    (void)status;
    (void)type;
    (void)ftw;
    return remove(path);
}

void scratch_remove(char *scratch) {
    nftw(scratch, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
    free(scratch);
}

static char *read_file(const char *path) {
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        return strdup("");
    }
    fseek(file, 0, SEEK_END);
    long bytes = ftell(file);
    rewind(file);
    char *text = calloc(1, (size_t)bytes + 1);
    size_t got = fread(text, 1, (size_t)bytes, file);
    text[got] = '\0';
    fclose(file);
    return text;
}

static void refuse_uring(void) {
    struct sock_filter program[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog filter = {.len = 4, .filter = program};
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) != 0) {
        _exit(99);
    }
}

static const char *programs = NNC_TEST_BUILD_DIR;

void command_use_programs(const char *directory) {
    programs = directory;
}

static void become_program(const struct command *command, const char *scratch, bool deny_uring,
                           const char *const *arguments) {
    char path[600];
    snprintf(path, sizeof(path), "%s/nncoord", programs);
    const char *argv[64] = {path};
    size_t count = 1;
    while (arguments[count - 1] != NULL && count < 63) {
        argv[count] = arguments[count - 1];
        count++;
    }
    int out = open(command->out_path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    int err = open(command->err_path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    dup2(out, 1);
    dup2(err, 2);
    if (chdir(scratch) != 0) {
        _exit(98);
    }
    setenv("XDG_CACHE_HOME", scratch, 1);
    if (deny_uring) {
        refuse_uring();
    }
    execv(argv[0], (char *const *)(uintptr_t)argv);
    _exit(97);
}

struct command command_start(const char *scratch, bool deny_uring, const char *const *arguments) {
    static unsigned number;
    struct command command = {.status = -1};
    number++;
    snprintf(command.out_path, sizeof(command.out_path), "%s/.out-%u", scratch, number);
    snprintf(command.err_path, sizeof(command.err_path), "%s/.err-%u", scratch, number);
    command.pid = fork();
    cr_assert(command.pid >= 0);
    if (command.pid == 0) {
        become_program(&command, scratch, deny_uring, arguments);
    }
    return command;
}

void command_wait(struct command *command) {
    int status;
    while (waitpid(command->pid, &status, 0) < 0 && errno == EINTR) {
    }
    command->status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    command->out = read_file(command->out_path);
    command->err = read_file(command->err_path);
}

void command_free(struct command *command) {
    free(command->out);
    free(command->err);
    command->out = command->err = NULL;
}

struct command command_run(const char *scratch, ...) {
    const char *arguments[62];
    size_t count = 0;
    va_list list;
    va_start(list, scratch);
    while ((arguments[count] = va_arg(list, const char *)) != NULL) {
        count++;
        cr_assert_lt(count, 61);
    }
    va_end(list);
    struct command command = command_start(scratch, false, arguments);
    command_wait(&command);
    return command;
}

static json_t *load_object(const char *text) {
    json_error_t error;
    json_t *object = json_loads(text, 0, &error);
    cr_assert_not_null(object, "no JSON (%s): %s", error.text, text);
    return object;
}

double json_number(const char *text, const char *key) {
    json_t *object = load_object(text);
    json_t *value = json_object_get(object, key);
    cr_assert(json_is_number(value), "no number %s in %s", key, text);
    double number = json_number_value(value);
    json_decref(object);
    return number;
}

const char *json_text(const char *text, const char *key, char *buffer, size_t bytes) {
    json_t *object = load_object(text);
    const char *value = json_string_value(json_object_get(object, key));
    cr_assert_not_null(value, "no string %s in %s", key, text);
    snprintf(buffer, bytes, "%s", value);
    json_decref(object);
    return buffer;
}

/* Name, state and parent from /proc/PID/stat. */
static bool read_stat(pid_t pid, char *ret_name, size_t bytes, char *ret_state, pid_t *ret_parent) {
    char path[64];
    snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    FILE *file = fopen(path, "r");
    if (file == NULL) {
        return false;
    }
    char line[512];
    char *text = fgets(line, sizeof(line), file);
    fclose(file);
    if (text == NULL) {
        return false;
    }
    char *open = strchr(line, '('), *close = strrchr(line, ')');
    if (open == NULL || close == NULL) {
        return false;
    }
    snprintf(ret_name, bytes, "%.*s", (int)(close - open - 1), open + 1);
    int parent;
    if (sscanf(close + 1, " %c %d", ret_state, &parent) != 2) {
        return false;
    }
    *ret_parent = parent;
    return true;
}

static bool is_descendant(pid_t pid, pid_t ancestor) {
    char name[64], state;
    for (int depth = 0; depth < 16 && pid > 1; depth++) {
        pid_t parent;
        if (!read_stat(pid, name, sizeof(name), &state, &parent)) {
            return false;
        }
        if (parent == ancestor) {
            return true;
        }
        pid = parent;
    }
    return false;
}

size_t find_descendants(pid_t pid, const char *role, pid_t *ret_pids, size_t max) {
    DIR *directory = opendir("/proc");
    size_t count = 0;
    struct dirent *entry;
    while (directory != NULL && count < max && (entry = readdir(directory)) != NULL) {
        if (!isdigit((unsigned char)entry->d_name[0])) {
            continue;
        }
        pid_t candidate = (pid_t)atoi(entry->d_name), parent;
        char name[64], state;
        /* The kernel keeps 15 characters of a program's name. */
        if (read_stat(candidate, name, sizeof(name), &state, &parent) && state != 'Z' &&
            strncmp(name, role, strlen(role) < 15 ? strlen(role) : 15) == 0 &&
            is_descendant(candidate, pid)) {
            ret_pids[count++] = candidate;
        }
    }
    if (directory != NULL) {
        closedir(directory);
    }
    return count;
}

static bool environment_names(pid_t pid, const char *scratch) {
    char path[64];
    static char text[1 << 17];
    snprintf(path, sizeof(path), "/proc/%d/environ", (int)pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return false;
    }
    ssize_t bytes = read(fd, text, sizeof(text) - 1);
    close(fd);
    for (ssize_t at = 0; at < bytes; at += (ssize_t)strlen(text + at) + 1) {
        text[bytes] = '\0';
        if (strstr(text + at, scratch) != NULL) {
            return true;
        }
    }
    return false;
}

size_t count_our_processes(const char *scratch) {
    DIR *directory = opendir("/proc");
    size_t count = 0;
    struct dirent *entry;
    while (directory != NULL && (entry = readdir(directory)) != NULL) {
        pid_t pid = (pid_t)atoi(entry->d_name), parent;
        char name[64], state;
        if (isdigit((unsigned char)entry->d_name[0]) &&
            read_stat(pid, name, sizeof(name), &state, &parent) && state != 'Z' &&
            strncmp(name, "nncoord", 7) == 0 && environment_names(pid, scratch)) {
            count++;
        }
    }
    if (directory != NULL) {
        closedir(directory);
    }
    return count;
}
