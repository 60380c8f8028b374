/* SPDX-License-Identifier: Apache-2.0 */
/* The verb `models` of the real programs: what goes to stdout, and exit statuses. */
#include "base/err.h"

#include <criterion/criterion.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

/* Run nncoord with these words and a redirection; its output goes to text. Returns the exit status.
 */
static int run(const char *words, char *text, size_t bytes) {
    char command[1024];
    snprintf(command, sizeof(command), NNC_TEST_NNCOORD " %s", words);
    FILE *output = popen(command, "re");
    cr_assert_not_null(output);
    text[fread(text, 1, bytes - 1, output)] = '\0';
    int status = pclose(output);
    cr_assert(WIFEXITED(status), "%s", words);
    return WEXITSTATUS(status);
}

Test(models_program, json_is_one_object_with_parameters_flops_and_layers) {
    char text[65536];
    cr_assert_eq(run("models show resnet50 --input 3x224x224 --json", text, sizeof(text)), 0);
    json_t *json = json_loads(text, 0, NULL);
    cr_assert_not_null(json, "%s", text);
    cr_expect_eq(json_integer_value(json_object_get(json, "parameters")), 25557032);
    cr_expect_eq(json_integer_value(json_object_get(json, "flops")), 8178368512);
    cr_expect_gt(json_array_size(json_object_get(json, "layers")), 100);
    json_decref(json);
}

Test(models_program, the_list_names_the_models) {
    char text[4096];
    cr_assert_eq(run("models", text, sizeof(text)), 0);
    cr_expect_not_null(strstr(text, "\nresnet20 "), "%s", text);
}

Test(models_program, mistakes_exit_2_and_leave_stdout_empty) {
    static const struct {
        const char *words, *said;
    } rows[] = {
        {"models show nosuch", "no model is called nosuch"},
        {"models show ./nosuch.nn", "nosuch.nn"},
        {"models show alexnet --input 3x32x32", "features.12 MaxPool2d"},
        {"models show cnn --input 3x32", "--input"},
        {"models show cnn --model-args wide=3", "wide"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char words[256], text[4096];
        snprintf(words, sizeof(words), "%s 2>/dev/null", rows[i].words);
        cr_expect_eq(run(words, text, sizeof(text)), NNC_EXIT_USAGE, "%s", words);
        cr_expect_str_eq(text, "", "%s", words);
        snprintf(words, sizeof(words), "%s 2>&1", rows[i].words);
        run(words, text, sizeof(text));
        cr_expect_not_null(strstr(text, rows[i].said), "%s: %s", words, text);
    }
}

Test(models_program, a_full_disk_is_no_success) {
    char text[16];
    cr_expect_eq(run("models >/dev/full 2>/dev/null", text, sizeof(text)), NNC_EXIT_CHECKPOINT);
}
