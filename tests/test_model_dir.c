/* SPDX-License-Identifier: Apache-2.0 */
/* Names of models to files. */
#include "base/err.h"
#include "base/model_dir.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

Test(model_dir, a_name_is_a_text_of_the_folder_and_a_file_is_itself) {
    const struct {
        const char *given, *path;
    } rows[] = {
        {"resnet18", NNC_TEST_SOURCE_DIR "/models/resnet18.nn"},
        {"mine.nn", "mine.nn"},
        {"folder/mine", "folder/mine"},
        {"./resnet18", "./resnet18"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char path[1024];
        int code = nnc_model_resolve(rows[i].given, NULL, path, sizeof(path));
        cr_expect_eq(code, 0, "%s: %s", rows[i].given, nnc_error_text());
        cr_expect_str_eq(path, rows[i].path);
    }
}

Test(model_dir, an_unknown_name_is_answered_with_the_names_there_are) {
    char path[1024] = "kept";
    cr_expect_eq(nnc_model_resolve("resnet5", NULL, path, sizeof(path)), -NNC_E_USAGE);
    cr_expect_not_null(strstr(nnc_error_text(), "alexnet, cnn, mlp, resnet18, resnet20, "), "%s",
                       nnc_error_text());
    cr_expect_str_eq(path, "kept");
}

Test(model_dir, a_missing_folder_is_named) {
    char path[1024];
    cr_expect_lt(nnc_model_resolve("cnn", "/nonexistent", path, sizeof(path)), 0);
    cr_expect_not_null(strstr(nnc_error_text(), "/nonexistent"), "%s", nnc_error_text());
}

Test(model_dir, names_are_sorted) {
    char **names = NULL;
    size_t count = 0;
    cr_assert_geq(nnc_model_names(NULL, &names, &count), 0, "%s", nnc_error_text());
    cr_assert_geq(count, 7);
    for (size_t i = 1; i < count; i++) {
        cr_expect_lt(strcmp(names[i - 1], names[i]), 0);
    }
    nnc_model_names_free(names, count);
}
