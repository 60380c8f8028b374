/* SPDX-License-Identifier: Apache-2.0 */
/* Where the program's own files are looked for. */
#include "base/err.h"
#include "base/paths.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

Test(paths, an_executable_in_the_build_directory_uses_the_source_tree) {
    char path[1024];
    cr_assert_geq(nnc_path_data("models", path, sizeof(path)), 0, "%s", nnc_error_text());
    cr_expect_str_eq(path, NNC_TEST_SOURCE_DIR "/models");
}

Test(paths, any_other_executable_uses_the_installed_data) {
    char path[1024];
    cr_assert_geq(nnc_path_data_for("/opt/x/bin/nncoord", "models/recipes", path, sizeof(path)), 0);
    const char *end = "/nncoord/models/recipes";
    cr_assert_gt(strlen(path), strlen(end));
    cr_expect_str_eq(path + strlen(path) - strlen(end), end);
    cr_expect_eq(strncmp(path, NNC_TEST_SOURCE_DIR, strlen(NNC_TEST_SOURCE_DIR)) == 0 &&
                     path[strlen(NNC_TEST_SOURCE_DIR)] == '/',
                 false, "%s", path);
}

Test(paths, a_path_that_does_not_fit_is_an_error) {
    char path[8] = "kept";
    cr_expect_eq(nnc_path_data("models", path, sizeof(path)), -ENAMETOOLONG);
    cr_expect_str_eq(path, "kept");
}
