/* SPDX-License-Identifier: Apache-2.0 */
/* containers/seccomp.json as Docker applies it: its rules become a filter, as for a container
 * without added capabilities, and nncoord trains under it. Without the three calls of io_uring,
 * which is Docker's own profile, it reads otherwise, says so, and learns the same weights.
 *
 * What differs from Docker: it drops capabilities and makes namespaces too; rules for other
 * machines than the one at hand are left out.
 *
 * Source: Docker's documentation of seccomp profiles; seccomp_rule_add(3). */
#include "tests/support/command.h"
#include "tests/support/datasets.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <seccomp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#if defined(__x86_64__)
#define MACHINE "amd64"
#elif defined(__aarch64__)
#define MACHINE "arm64"
#else
#define MACHINE "other"
#endif

static char *scratch;
static char data_path[300];

static void set_up(void) {
    scratch = scratch_make();
    snprintf(data_path, sizeof(data_path), "%s/jpeg", scratch);
    dataset_make_jpeg(data_path, 3, 12, 5, 40);
}

static void tear_down(void) {
    cr_assert_eq(count_our_processes(scratch), 0, "processes are left behind");
    scratch_remove(scratch);
}

static bool lists(const json_t *array, const char *word) {
    size_t i;
    json_t *value;
    json_array_foreach((json_t *)(uintptr_t)array, i, value) {
        if (strcmp(json_string_value(value), word) == 0) {
            return true;
        }
    }
    return false;
}

/* Whether Docker takes a rule on this machine for a container with its default capabilities, of
 * which only CAP_SYS_CHROOT is named by a rule. */
static bool applies(const json_t *rule) {
    const json_t *include = json_object_get(rule, "includes");
    const json_t *exclude = json_object_get(rule, "excludes");
    const json_t *machines = json_object_get(include, "arches");
    const json_t *capabilities = json_object_get(include, "caps");
    return (json_array_size(machines) == 0 || lists(machines, MACHINE)) &&
           (json_array_size(capabilities) == 0 || lists(capabilities, "CAP_SYS_CHROOT")) &&
           !lists(json_object_get(exclude, "arches"), MACHINE) &&
           !lists(json_object_get(exclude, "caps"), "CAP_SYS_CHROOT");
}

static uint32_t action_of(const json_t *rule) {
    const char *name = json_string_value(json_object_get(rule, "action"));
    if (strcmp(name, "SCMP_ACT_ALLOW") == 0) {
        return SCMP_ACT_ALLOW;
    }
    cr_assert_str_eq(name, "SCMP_ACT_ERRNO");
    const json_t *number = json_object_get(rule, "errnoRet");
    return SCMP_ACT_ERRNO(json_is_integer(number) ? (uint32_t)json_integer_value(number) : EPERM);
}

static struct scmp_arg_cmp comparison(const json_t *argument) {
    static const struct {
        const char *name;
        enum scmp_compare compare;
    } operators[] = {
        {"SCMP_CMP_NE", SCMP_CMP_NE},
        {"SCMP_CMP_LT", SCMP_CMP_LT},
        {"SCMP_CMP_LE", SCMP_CMP_LE},
        {"SCMP_CMP_EQ", SCMP_CMP_EQ},
        {"SCMP_CMP_GE", SCMP_CMP_GE},
        {"SCMP_CMP_GT", SCMP_CMP_GT},
        {"SCMP_CMP_MASKED_EQ", SCMP_CMP_MASKED_EQ},
    };
    const char *name = json_string_value(json_object_get(argument, "op"));
    struct scmp_arg_cmp compare = {
        .arg = (unsigned)json_integer_value(json_object_get(argument, "index")),
        .datum_a = (scmp_datum_t)json_integer_value(json_object_get(argument, "value")),
        .datum_b = (scmp_datum_t)json_integer_value(json_object_get(argument, "valueTwo")),
    };
    for (size_t i = 0; i < sizeof(operators) / sizeof(operators[0]); i++) {
        if (strcmp(name, operators[i].name) == 0) {
            compare.op = operators[i].compare;
            return compare;
        }
    }
    cr_assert_fail("unknown comparison %s", name);
    return compare;
}

static void add_rule(scmp_filter_ctx filter, const json_t *rule, bool allow_uring) {
    struct scmp_arg_cmp compare[6];
    const json_t *arguments = json_object_get(rule, "args");
    unsigned count = (unsigned)json_array_size(arguments);
    cr_assert_leq(count, 6);
    for (unsigned i = 0; i < count; i++) {
        compare[i] = comparison(json_array_get(arguments, i));
    }
    size_t i;
    json_t *name;
    json_array_foreach(json_object_get(rule, "names"), i, name) {
        int number = seccomp_syscall_resolve_name(json_string_value(name));
        bool uring = strncmp(json_string_value(name), "io_uring_", 9) == 0;
        /* Docker too passes over calls that this library does not know. */
        if (number == __NR_SCMP_ERROR || (uring && !allow_uring)) {
            continue;
        }
        cr_assert_eq(seccomp_rule_add_array(filter, action_of(rule), number, count, compare), 0,
                     "%s", json_string_value(name));
    }
}

static scmp_filter_ctx read_profile(bool allow_uring) {
    json_error_t error;
    json_t *profile = json_load_file(NNC_TEST_SOURCE_DIR "/containers/seccomp.json", 0, &error);
    cr_assert_not_null(profile, "line %d: %s", error.line, error.text);
    cr_assert_str_eq(json_string_value(json_object_get(profile, "defaultAction")),
                     "SCMP_ACT_ERRNO");
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ERRNO(EPERM));
    size_t i;
    json_t *rule;
    json_array_foreach(json_object_get(profile, "syscalls"), i, rule) {
        if (applies(rule)) {
            add_rule(filter, rule, allow_uring);
        }
    }
    json_decref(profile);
    return filter;
}

/* Train under the profile, in a child: a filter cannot be taken off. The outputs are the files out
 * and err of the scratch folder; the filter is in force before the program begins. */
static int train(bool allow_uring, const char *method, const char *run) {
    scmp_filter_ctx filter = read_profile(allow_uring);
    pid_t pid = fork();
    cr_assert_geq(pid, 0);
    if (pid == 0) {
        int out = open("out", O_WRONLY | O_CREAT | O_TRUNC, 0600);
        int err = open("err", O_WRONLY | O_CREAT | O_TRUNC, 0600);
        dup2(out, 1);
        dup2(err, 2);
        if (seccomp_load(filter) != 0 || syscall(SYS_unshare, 0x10000000) == 0 || errno != EPERM) {
            _exit(99); /* not in force: a new user namespace is what the profile refuses */
        }
        execl(NNC_TEST_BUILD_DIR "/nncoord", "nncoord", "train", data_path, "--model", "resnet20",
              "--train-crop-size", "32", "--val-crop-size", "32", "--val-resize-size", "32",
              "--epochs", "1", "--batch-size", "8", "--lr", "0.05", "--gpus", "0", "--io", method,
              "--output-dir", run, "--json", (char *)NULL);
        _exit(97);
    }
    seccomp_release(filter);
    int status;
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static const char *text_of(const char *path) {
    static char text[2][1 << 16];
    static unsigned turn;
    char *into = text[turn++ % 2];
    FILE *file = fopen(path, "r");
    cr_assert_not_null(file, "%s", path);
    into[fread(into, 1, sizeof(text[0]) - 1, file)] = '\0';
    fclose(file);
    return into;
}

Test(container_profile, training_reads_by_io_uring_and_without_its_calls_otherwise_and_says_so,
     .init = set_up, .fini = tear_down, .timeout = 120) {
    char with[80], without[80];
    cr_assert_eq(chdir(scratch), 0);
    cr_assert_eq(setenv("XDG_CACHE_HOME", scratch, 1), 0);
    int status = train(true, "uring", "with");
    cr_assert_eq(status, 0, "%d: %s", status, text_of("err"));
    cr_assert_null(strstr(text_of("err"), "refused"));
    json_text(text_of("out"), "weights_sha256", with, sizeof(with));
    status = train(false, "auto", "without");
    cr_assert_eq(status, 0, "%d: %s", status, text_of("err"));
    const char *said = strstr(text_of("err"), "io_uring refused");
    cr_assert_not_null(said, "it does not say that io_uring is refused: %s", text_of("err"));
    cr_assert_null(strstr(said + 1, "io_uring refused"), "it says so twice: %s", said);
    json_text(text_of("out"), "weights_sha256", without, sizeof(without));
    cr_assert_str_eq(with, without);
}
