/* SPDX-License-Identifier: Apache-2.0 */
/* nncoord-data: the verbs that look at or make data sets. The coordinator touches no pixels, so it
 * executes this program with its own command line, which is parsed here once more.
 *
 * Exit status: enum nnc_exit. Results go to stdout, everything else to stderr. */
#include "base/err.h"
#include "base/log.h"
#include "base/output.h"
#include "base/paths.h"
#include "data/stop.h"
#include "data/verbs.h"

#include <stdio.h>
#include <string.h>

static const struct {
    const char *verb, *subverb;
    int (*execute)(const struct nnc_command *command, json_t **ret_result);
} verbs[] = {
    {"show", "", nnc_data_show},
    {"pack", "", nnc_data_pack},
    {"bench", "synth", nnc_data_synth},
};

static int execute(const struct nnc_command *command, json_t **ret_result) {
    for (size_t i = 0; i < sizeof(verbs) / sizeof(verbs[0]); i++) {
        if (strcmp(verbs[i].verb, command->verb) == 0 &&
            strcmp(verbs[i].subverb, command->subverb) == 0) {
            return verbs[i].execute(command, ret_result);
        }
    }
    return nnc_fail(-NNC_E_USAGE, "nncoord-data has no verb %s: start nncoord instead",
                    command->verb);
}

static int print_result(json_t *result) {
    if (result == NULL) {
        return nnc_fail(-NNC_E_FORMAT, "a result is no UTF-8 text and cannot be printed as JSON");
    }
    json_dumpf(result, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(10));
    putchar('\n');
    return 0;
}

static int run(const struct nnc_command *command) {
    const struct nnc_config *config = &command->config;
    json_t *result = NULL;
    nnc_log_init("nncoord", config->verbose > 0 ? NNC_LOG_DEBUG
                            : config->quiet     ? NNC_LOG_WARN
                                                : NNC_LOG_INFO);
    nnc_stop_install();
    int code = execute(command, &result);
    if (code >= 0 && config->json) {
        code = print_result(result);
    }
    json_decref(result);
    return code;
}

int main(int argc, char **argv) {
    char recipes[NNC_PATH_MAX];
    static struct nnc_command command;
    bool done = false;
    int code = nnc_path_data("models/recipes", recipes, sizeof(recipes));
    if (code >= 0) {
        code = nnc_command_parse(argc, argv, recipes, &command, &done);
    }
    if (code >= 0 && !done) {
        code = run(&command);
    }
    if (code >= 0) {
        code = nnc_output_flush(stdout, "standard output");
    }
    if (code < 0) {
        bool stopped = code == -NNC_E_STOPPED;
        fprintf(stderr, "nncoord: %s%s\n", stopped ? "" : "error: ", nnc_error_text());
    }
    nnc_stop_finish();
    return nnc_error_exit_status(code);
}
