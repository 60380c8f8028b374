/* SPDX-License-Identifier: Apache-2.0 */
/* The command line's own parser as a program: `generate_docs config man` is `nncoord config man`.
 * It needs nothing but base/, so that the documents can be made before anything else is built. */
#include "base/config.h"
#include "base/err.h"

#include <stdio.h>

int main(int argc, char **argv) {
    struct nnc_command command;
    bool done = false;
    int code = nnc_command_parse(argc, argv, NULL, &command, &done);
    if (code < 0) {
        fprintf(stderr, "generate_docs: %s\n", nnc_error_text());
    } else if (!done) {
        fprintf(stderr, "generate_docs: verb %s is not made here\n", command.verb);
        code = -NNC_E_USAGE;
    }
    return nnc_error_exit_status(code);
}
