/* SPDX-License-Identifier: Apache-2.0 */
/* doctor on machines with stand-ins for CUDA's libraries: what is missing is told, and stands in
 * the way of those alone who ask for it. */
#include "tests/gpu/run_case.h"

#include <criterion/criterion.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

static char *scratch;

static void set_up(void) {
    scratch = run_case_start();
}

static void tear_down(void) {
    run_case_finish(scratch);
}

/* gpus NULL: without --gpus. The caller drops the reference. */
static json_t *examine(const char *fake, const char *gpus, int status) {
    run_case_fake(fake);
    struct command command = gpus == NULL
                                 ? command_run(scratch, "doctor", "--json", NULL)
                                 : command_run(scratch, "doctor", "--json", "--gpus", gpus, NULL);
    cr_expect_eq(command.status, status, "%s, --gpus %s: exit %d: %s", fake, gpus ? gpus : "-",
                 command.status, command.err);
    cr_expect_eq(strstr(command.err, "stands in the way of --gpus") != NULL, status == 2, "%s",
                 command.err);
    json_t *findings = json_loads(command.out, 0, NULL);
    cr_assert_not_null(findings, "%s", command.out);
    command_free(&command);
    return findings;
}

static const char *text_of(json_t *findings, const char *name, const char *key) {
    const char *text = json_string_value(json_object_get(json_object_get(findings, name), key));
    return text == NULL ? "" : text;
}

static bool flag_of(json_t *findings, const char *name, const char *key) {
    json_t *flag = json_object_get(json_object_get(findings, name), key);
    cr_assert(json_is_boolean(flag), "%s has no %s", name, key);
    return json_is_true(flag);
}

struct patient {
    const char *fake, *gpus;
    int status;
    const char *name, *key, *says; /* a finding, and what is in it */
};

static const struct patient patients[] = {
    {"devices=1", NULL, 0, "gpus", "value", "1, the first: Stand-in A100"},
    {"devices=1", "1", 0, "gpus", "value", "1, the first: Stand-in A100"},
    {"devices=1", "2", 2, "gpus", "remedy", "`--gpus all` takes it"},
    {"devices=2", "0,5", 2, "gpus", "remedy", "there is no GPU 5"},
    {"driver=0", NULL, 0, "gpus", "value", "no NVIDIA driver is installed here"},
    {"driver=0", "0", 0, "gpus", "value", "no NVIDIA driver is installed here"},
    {"driver=0", "1", 2, "gpus", "value", "no NVIDIA driver is installed here"},
    {"driver=0", "1", 2, "cuda driver", "value", "none is installed"},
    {"driver=11080", "all", 2, "cuda driver", "value", "supports CUDA 11.8"},
    {"driver=11080", "all", 2, "cuda driver", "remedy", "newer driver"},
    {"faults=cudaGetDeviceCount:0:nodevice", "1", 2, "gpus", "value", "no CUDA-capable device"},
};

Test(cuda_doctor, what_is_asked_for_and_cannot_be_had_stands_in_the_way, .init = set_up,
     .fini = tear_down, .timeout = 60) {
    for (size_t i = 0; i < sizeof(patients) / sizeof(patients[0]); i++) {
        const struct patient *row = &patients[i];
        json_t *findings = examine(row->fake, row->gpus, row->status);
        const char *text = text_of(findings, row->name, row->key);
        cr_expect_not_null(strstr(text, row->says), "row %zu: %s", i, text);
        cr_expect_eq(flag_of(findings, row->name, "in_the_way"), row->status == 2, "row %zu", i);
        json_decref(findings);
    }
}

Test(cuda_doctor, versions_of_what_the_plug_in_runs_with_are_told, .init = set_up,
     .fini = tear_down, .timeout = 30) {
    static const char *const names[] = {"cuda driver", "cuda runtime", "cudnn",
                                        "nccl",        "gpu driver",   "nncoord_cuda.so"};
    json_t *findings = examine("devices=1,driver=13020", "1", 0);
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        cr_expect(flag_of(findings, names[i], "ok"), "%s", names[i]);
        cr_expect_not_null(strchr(text_of(findings, names[i], "value"), '.'), "%s", names[i]);
    }
    cr_expect_str_eq(text_of(findings, "cuda driver", "value"), "supports CUDA 13.2");
    json_decref(findings);
}

/* The finding about a plug-in that the shell command has changed; %s is its path. */
static void expect_plugin(const char *change, const char *says) {
    char text[2500];
    json_t *findings = examine("devices=1", NULL, 0);
    snprintf(text, sizeof(text), change, text_of(findings, "nncoord_cuda.so", "value"));
    json_decref(findings);
    cr_assert_eq(system(text), 0, "%s", text);
    for (int asked = 0; asked < 2; asked++) {
        findings = examine("devices=1", asked ? "1" : NULL, asked ? 2 : 0);
        const char *value = text_of(findings, "nncoord_cuda.so", "value");
        cr_expect_not_null(strstr(value, says), "%s", value);
        cr_expect_not(flag_of(findings, "nncoord_cuda.so", "ok"));
        cr_expect_eq(flag_of(findings, "nncoord_cuda.so", "in_the_way"), asked == 1);
        json_decref(findings);
    }
}

Test(cuda_doctor, a_plug_in_that_cannot_be_loaded_is_told_in_the_words_of_the_loader,
     .init = set_up, .fini = tear_down, .timeout = 30) {
    expect_plugin(": > %s", "nncoord_cuda.so: file too short");
}

Test(cuda_doctor, a_plug_in_that_is_not_there_is_missing, .init = set_up, .fini = tear_down,
     .timeout = 30) {
    expect_plugin("rm %s", "is missing");
}

/* Slower, and in nobody's way. */
Test(cuda_doctor, locked_memory_that_is_too_little_for_the_rings_is_told_who_wants_gpus,
     .init = set_up, .fini = tear_down, .timeout = 30) {
    const struct rlimit little = {.rlim_cur = 64 << 10, .rlim_max = 64 << 10};
    cr_assert_eq(setrlimit(RLIMIT_MEMLOCK, &little), 0);
    json_t *findings = examine("devices=1", NULL, 0);
    cr_expect(flag_of(findings, "locked memory", "ok"));
    json_decref(findings);
    findings = examine("devices=1", "1", 0);
    cr_expect_not(flag_of(findings, "locked memory", "ok"));
    cr_expect_not_null(strstr(text_of(findings, "locked memory", "remedy"), "pin rings"));
    json_decref(findings);
}
