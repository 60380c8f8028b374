/* SPDX-License-Identifier: Apache-2.0 */
/* nncoord-models: the verb `models`. The coordinator knows no models, so it executes this program
 * with its own command line, which is parsed here once more.
 *
 * Exit status: enum nnc_exit; a mistake in a model text is 2. Results go to stdout, errors to
 * stderr. */
#include "base/err.h"
#include "base/paths.h"
#include "workers/report.h"

#include <stdio.h>

int main(int argc, char **argv) {
    char recipes[NNC_PATH_MAX];
    struct nnc_command command = {.verb = ""};
    bool done = false;
    int code = nnc_path_data("models/recipes", recipes, sizeof(recipes));
    if (code >= 0) {
        code = nnc_command_parse(argc, argv, recipes, &command, &done);
    }
    if (code >= 0 && !done) {
        code = nnc_report_command(&command, NULL, stdout);
    }
    if (code < 0) {
        fprintf(stderr, "nncoord: %s\n", nnc_error_text());
    }
    return nnc_error_exit_status(code);
}
