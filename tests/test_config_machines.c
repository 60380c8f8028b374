/* SPDX-License-Identifier: Apache-2.0 */
/* The options of a training over several machines: their forms, what they need of each other, and
 * which options the machines must have alike. */
#include "base/config_table.h"
#include "base/endpoint.h"
#include "base/err.h"
#include "base/rng.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Parse "nncoord" and the words of line, separated by spaces. */
static int parse(const char *line, struct nnc_command *ret_command) {
    static char words[1024];
    char *argv[64];
    int argc = 0;
    bool done;
    snprintf(words, sizeof(words), "nncoord %s", line);
    char *rest = words;
    for (char *word; (word = strsep(&rest, " ")) != NULL;) {
        argv[argc++] = word;
    }
    argv[argc] = NULL;
    return nnc_command_parse(argc, argv, NNC_TEST_SOURCE_DIR "/models/recipes", ret_command, &done);
}

Test(config_machines, an_endpoint_is_read_and_printed) {
    static const struct {
        const char *text, *host;
        uint16_t port;
        const char *printed;
    } rows[] = {
        {"node0:29400", "node0", 29400, "node0:29400"},
        {"node-0.cluster_a.example", "node-0.cluster_a.example", 29500,
         "node-0.cluster_a.example:29500"},
        {"10.0.0.1:1", "10.0.0.1", 1, "10.0.0.1:1"},
        {"[::1]:65535", "::1", 65535, "[::1]:65535"},
        {"[fe80::1%eth0]", "fe80::1%eth0", 29500, "[fe80::1%eth0]:29500"},
    };
    for (size_t row = 0; row < sizeof(rows) / sizeof(rows[0]); row++) {
        struct nnc_endpoint endpoint;
        char printed[NNC_ENDPOINT_MAX];
        cr_assert_eq(nnc_endpoint_parse(rows[row].text, &endpoint), 0, "%s", nnc_error_text());
        cr_expect_str_eq(endpoint.host, rows[row].host);
        cr_expect_eq(endpoint.port, rows[row].port);
        nnc_endpoint_print(&endpoint, printed);
        cr_expect_str_eq(printed, rows[row].printed);
    }
}

Test(config_machines, the_longest_host_fits_and_a_longer_one_is_refused) {
    char text[NNC_HOST_MAX + 16];
    struct nnc_endpoint endpoint;
    char printed[NNC_ENDPOINT_MAX];
    memset(text, 'a', sizeof(text));
    strcpy(text + NNC_HOST_MAX - 1, ":65535");
    cr_assert_eq(nnc_endpoint_parse(text, &endpoint), 0, "%s", nnc_error_text());
    nnc_endpoint_print(&endpoint, printed);
    cr_expect_str_eq(printed, text);
    memset(text, 'a', sizeof(text));
    strcpy(text + NNC_HOST_MAX, ":65535");
    cr_expect_eq(nnc_endpoint_parse(text, &endpoint), -NNC_E_USAGE);
}

Test(config_machines, wrong_options_are_refused_with_a_sentence) {
    static const struct {
        const char *line, *want;
    } rows[] = {
        {"train d --rdzv-endpoint host:0", "--rdzv-endpoint: \"host:0\" is no HOST:PORT"},
        {"train d --rdzv-endpoint host:65536", "from 1 to 65535"},
        {"train d --rdzv-endpoint host:", "from 1 to 65535"},
        {"train d --rdzv-endpoint host:+1", "from 1 to 65535"},
        {"train d --rdzv-endpoint host:99999999999999999999", "from 1 to 65535"},
        {"train d --rdzv-endpoint ::1:29500", "in brackets, [::1]:29500"},
        {"train d --rdzv-endpoint [::1:29500", "in brackets"},
        {"train d --rdzv-endpoint [::1]29500", "from 1 to 65535"},
        {"train d --rdzv-endpoint []:1", "a name or an address"},
        {"train d --rdzv-endpoint :29500", "a name or an address"},
        {"train d --rdzv-endpoint tcp://host:29500", "in brackets"},
        {"train d --rdzv-endpoint a/b:1", "a name or an address"},
        {"train d --rdzv-id \xc3\xa9", "--rdzv-id"},
        {"train d --rdzv-secret fd:", "number of an open descriptor"},
        {"train d --rdzv-secret fd:3x", "given as ./fd:3x"},
        {"train d --rdzv-secret fd:-1", "number of an open descriptor"},
        {"train d --nnodes 0", "--nnodes: \"0\" is out of range; 1 to 64 machines"},
        {"train d --num-nodes 65", "out of range"},
        {"train d --node-rank 64", "out of range"},
        {"train d --rdzv-timeout 0", "out of range"},
        {"train d --rdzv-id "
         "0123456789012345678901234567890123456789012345678901234567890123",
         "--rdzv-id"},
        {"eval d --resume r --nnodes 2", "--nnodes is not an option of `nncoord eval`"},
        {"bench train --node-rank 1", "it is one of train"},
    };
    for (size_t row = 0; row < sizeof(rows) / sizeof(rows[0]); row++) {
        struct nnc_command command;
        cr_expect_eq(parse(rows[row].line, &command), -NNC_E_USAGE, "%s", rows[row].line);
        cr_expect(strstr(nnc_error_text(), rows[row].want) != NULL, "%s\n  said: %s",
                  rows[row].line, nnc_error_text());
    }
}

/* The secret of an error text would stand in a terminal, a log and a mail to a colleague. */
Test(config_machines, a_secret_in_place_of_its_file_is_refused_and_not_repeated) {
    static const char *const values[] = {
        "00112233445566778899aabbccddeeff00112233445566778899AABBCCDDEEFF",
        "0112233445566778899aabbccddeeff00112233445566778899AABBCCDDEEFF",
        "fd:00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff",
        "00112233445566778899aabbccddeeff",
        "x00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff\n",
    };
    for (size_t row = 0; row < sizeof(values) / sizeof(values[0]); row++) {
        struct nnc_command command;
        char line[160];
        snprintf(line, sizeof(line), "train d --nnodes 2 --rdzv-secret %s", values[row]);
        cr_expect_eq(parse(line, &command), -NNC_E_USAGE, "%s", line);
        cr_expect_null(strstr(nnc_error_text(), "112233"), "%s", nnc_error_text());
        cr_expect_not_null(strstr(nnc_error_text(), "--rdzv-secret"), "%s", nnc_error_text());
        setenv("NNCOORD_RDZV_SECRET", values[row], 1);
        cr_expect_eq(parse("train d", &command), -NNC_E_USAGE, "%s", line);
        cr_expect_null(strstr(nnc_error_text(), "112233"), "%s", nnc_error_text());
        unsetenv("NNCOORD_RDZV_SECRET");
    }
    struct nnc_command command;
    cr_expect_eq(parse("train d --rdzv-secret ./00112233445566778899aabbccddeeff", &command), 0);
    cr_expect_eq(parse("train d --rdzv-secret key-0011223344556677", &command), 0);
}

Test(config_machines, what_is_missing_is_named_with_the_way_to_get_it) {
    static const struct {
        const char *line, *want; /* "": all is well */
    } rows[] = {
        {"train d", ""},
        {"train d --nnodes 1 --node-rank 0", ""},
        {"train d --rdzv-endpoint h:1 --rdzv-secret s --rdzv-id x", ""},
        {"train d --nnodes 2 --rdzv-endpoint h --rdzv-secret fd:3", ""},
        {"train d --nnodes 64 --node-rank 63 --rdzv-endpoint h --rdzv-secret s", ""},
        {"train d --node-rank 1", "--node-rank 1 with --nnodes 1: machines are counted from 0"},
        {"train d --nnodes 2 --node-rank 2 --rdzv-endpoint h --rdzv-secret s", "so the last is 1"},
        {"train d --nnodes 2 --rdzv-secret s", "--nnodes 2 needs --rdzv-endpoint HOST:PORT"},
        {"train d --nnodes 2 --rdzv-endpoint h", "(umask 077; openssl rand -hex 32 > FILE)"},
    };
    for (size_t row = 0; row < sizeof(rows) / sizeof(rows[0]); row++) {
        struct nnc_command command;
        cr_assert_eq(parse(rows[row].line, &command), 0, "%s", nnc_error_text());
        int code = nnc_config_check_machines(&command.config);
        cr_expect_eq(code, rows[row].want[0] == '\0' ? 0 : -NNC_E_USAGE, "%s", rows[row].line);
        cr_expect(code == 0 || strstr(nnc_error_text(), rows[row].want) != NULL, "%s\n  said: %s",
                  rows[row].line, nnc_error_text());
    }
}

Test(config_machines, without_a_launcher_a_place_is_asked_for_and_nothing_is_given_in_vain) {
    static const struct {
        const char *line, *want; /* "": all is well */
    } rows[] = {
        {"train d", ""},
        {"train d --nnodes 1 --node-rank 0 --rdzv-timeout 5", ""},
        {"train d --nnodes 2 --node-rank 0 --rdzv-endpoint h --rdzv-secret s --rdzv-id x", ""},
        {"train d --nnodes 2 --node-rank 1", ""},
        {"train d --rdzv-endpoint h --rdzv-secret s",
         "--rdzv-endpoint has no effect on one machine: add --nnodes N --node-rank R"},
        {"train d --nnodes 1 --rdzv-endpoint h", "--rdzv-endpoint has no effect on one machine"},
        {"train d --node-rank 1 --rdzv-secret s", "--rdzv-secret has no effect on one machine"},
        {"train d --rdzv-id x", "--rdzv-id has no effect on one machine"},
        {"train d --nnodes 3",
         "--nnodes 3 needs --node-rank: 0 on the machine of --rdzv-endpoint, 1 to 2 on the others"},
    };
    for (size_t row = 0; row < sizeof(rows) / sizeof(rows[0]); row++) {
        struct nnc_command command;
        cr_assert_eq(parse(rows[row].line, &command), 0, "%s", nnc_error_text());
        int code = nnc_config_check_place(&command);
        cr_expect_eq(code, rows[row].want[0] == '\0' ? 0 : -NNC_E_USAGE, "%s", rows[row].line);
        cr_expect(code == 0 || strstr(nnc_error_text(), rows[row].want) != NULL, "%s\n  said: %s",
                  rows[row].line, nnc_error_text());
        cr_expect(code == 0 || strstr(nnc_error_text(), "unset") == NULL);
    }
}

Test(config_machines, a_variable_given_in_vain_is_named) {
    struct nnc_command command;
    setenv("NNCOORD_RDZV_SECRET", "s", 1);
    cr_assert_eq(parse("train d", &command), 0, "%s", nnc_error_text());
    cr_expect_eq(nnc_config_check_place(&command), -NNC_E_USAGE);
    cr_expect(strstr(nnc_error_text(), "or unset NNCOORD_RDZV_SECRET") != NULL, "%s",
              nnc_error_text());
}

/* A run's directory, as a machine of two left it, in ret_path. */
static void write_run(char ret_path[64]) {
    char path[80];
    struct nnc_config config;
    nnc_config_defaults(&config);
    config.nnodes = 2;
    config.epochs = 7;
    strcpy(config.rdzv_endpoint, "old:29500");
    strcpy(config.rdzv_id, "old");
    snprintf(ret_path, 64, "/tmp/nnc-machines-XXXXXX");
    cr_assert_not_null(mkdtemp(ret_path));
    snprintf(path, sizeof(path), "%s/config.yaml", ret_path);
    FILE *file = fopen(path, "we");
    cr_assert_eq(nnc_config_dump_yaml(&config, file), 0);
    fclose(file);
}

Test(config_machines, only_line_and_environment_give_a_place_and_a_run_gives_none) {
    char run[64], line[160], path[80];
    struct nnc_command command;
    write_run(run);
    snprintf(path, sizeof(path), "%s/config.yaml", run);
    snprintf(line, sizeof(line), "--resume %s", run);
    cr_assert_eq(parse(line, &command), 0, "%s", nnc_error_text());
    cr_expect_eq(command.config.epochs, 7);
    cr_expect_eq(command.config.nnodes, 1);
    cr_expect_str_eq(command.config.rdzv_endpoint, "");
    snprintf(line, sizeof(line), "train d --config %s", path);
    cr_assert_eq(parse(line, &command), 0, "%s", nnc_error_text());
    cr_expect_eq(command.config.nnodes, 2);
    cr_expect_str_eq(command.config.rdzv_id, "old");
    cr_expect(!command.given.nnodes && !command.given.node_rank);
    cr_expect(!command.given.endpoint && !command.given.id && !command.given.secret);
    cr_expect_eq(nnc_config_check_place(&command), -NNC_E_USAGE, "the record of machine 0");
    command.config.node_rank = 1;
    cr_expect_eq(nnc_config_check_place(&command), 0, "a file of machine 1 alone");
    snprintf(line, sizeof(line), "train d --nnodes 1 --config %s", path);
    cr_assert_eq(parse(line, &command), 0, "%s", nnc_error_text());
    cr_expect_str_eq(command.config.rdzv_endpoint, "old:29500");
    cr_expect_eq(nnc_config_check_place(&command), 0, "%s", nnc_error_text());
    cr_assert_eq(parse("train d --num_nodes 1 --rdzv-id x", &command), 0, "%s", nnc_error_text());
    cr_expect(command.given.nnodes && !command.given.node_rank);
    cr_expect(!command.given.endpoint && command.given.id && !command.given.secret);
    setenv("NNCOORD_NODE_RANK", "0", 1);
    setenv("NNCOORD_RDZV_ENDPOINT", "h:1", 1);
    cr_assert_eq(parse("train d", &command), 0, "%s", nnc_error_text());
    cr_expect(!command.given.nnodes && command.given.node_rank);
    cr_expect(command.given.endpoint && !command.given.id && !command.given.secret);
    unlink(path);
    rmdir(run);
}

/* What both must have alike */

/* Give the option another value than it has. */
static void change(const struct nnc_option *option, struct nnc_config *config) {
    char *field = (char *)config + option->offset;
    switch (option->type) {
    case NNC_OPTION_STRING:
        strcpy(field, "3"); /* plain in every form, --gpus too */
        return;
    case NNC_OPTION_BOOL:
        *(bool *)field = !*(bool *)field;
        return;
    case NNC_OPTION_ENUM:
        *(int32_t *)field = *(int32_t *)field == 0;
        return;
    case NNC_OPTION_DOUBLE:
    case NNC_OPTION_DOUBLES:
        *(double *)field += 0.125;
        return;
    default: /* the low half of a 64-bit number is as good */
        *(uint32_t *)field += 1;
    }
}

Test(config_machines, each_option_of_train_that_is_not_a_machines_own_must_be_alike) {
    struct nnc_config here, there;
    char text[NNC_SHARED_TEXT_MAX], words[256], want[80];
    nnc_config_defaults(&here);
    for (size_t row = 0; row < nnc_config_option_count; row++) {
        const struct nnc_option *option = &nnc_config_options[row];
        there = here;
        change(option, &there);
        ssize_t bytes = nnc_config_print_shared(&there, text, sizeof(text));
        cr_assert_gt(bytes, 0);
        bool differs = (option->verbs & NNC_VERB_TRAIN) != 0 && !option->local;
        int code = nnc_config_compare_shared(&here, text, (size_t)bytes, words, sizeof(words));
        cr_expect_eq(code, differs, "%s: %s", option->name, code != 0 ? words : "alike");
        snprintf(want, sizeof(want), "--%s is ", option->name);
        cr_expect(code == 0 || strncmp(words, want, strlen(want)) == 0, "%s", words);
    }
}

Test(config_machines, what_a_machine_may_have_of_its_own_is_decided) {
    static const char *const own[] = {"data",      "workers",    "gpus",          "threads",
                                      "node-rank", "output-dir", "rdzv-endpoint", "weights"};
    static const char *const alike[] = {"nnodes",   "rdzv-id",         "model",         "seed",
                                        "lr",       "batch-size",      "global-batch",  "max-bad",
                                        "amp",      "train-crop-size", "deterministic", "decode",
                                        "autotune", "workspace",       "cuda-graphs"};
    for (size_t i = 0; i < sizeof(own) / sizeof(own[0]); i++) {
        cr_expect(nnc_config_find(own[i])->local, "%s", own[i]);
    }
    for (size_t i = 0; i < sizeof(alike) / sizeof(alike[0]); i++) {
        cr_expect_not(nnc_config_find(alike[i])->local, "%s", alike[i]);
    }
}

Test(config_machines, the_first_difference_is_told_in_words) {
    struct nnc_config here, there;
    char text[NNC_SHARED_TEXT_MAX], words[256];
    nnc_config_defaults(&here);
    there = here;
    there.lr = 0.2;
    there.momentum = 0.5;
    ssize_t bytes = nnc_config_print_shared(&there, text, sizeof(text));
    cr_assert_eq(nnc_config_compare_shared(&here, text, (size_t)bytes, words, sizeof(words)), 1);
    cr_expect_str_eq(words, "--lr is 0.2 there and 0.1 on node 0");
    for (int longer = 0; longer < 2; longer++) { /* one value begins with the other */
        here.lr = longer ? 0.1 : 0.125;
        there = here;
        there.lr = longer ? 0.125 : 0.1;
        bytes = nnc_config_print_shared(&there, text, sizeof(text));
        cr_assert_eq(nnc_config_compare_shared(&here, text, (size_t)bytes, words, sizeof(words)),
                     1);
        cr_expect_str_eq(words, longer ? "--lr is 0.125 there and 0.1 on node 0"
                                       : "--lr is 0.1 there and 0.125 on node 0");
    }
    there = here;
    strcpy(there.rdzv_id, "monday");
    bytes = nnc_config_print_shared(&there, text, sizeof(text));
    cr_assert_eq(nnc_config_compare_shared(&here, text, (size_t)bytes, words, sizeof(words)), 1);
    cr_expect_str_eq(words, "--rdzv-id is monday there and not given on node 0");
}

Test(config_machines, the_longest_options_fit_and_too_little_room_is_an_error) {
    struct nnc_config config;
    char text[NNC_SHARED_TEXT_MAX];
    nnc_config_defaults(&config);
    for (size_t row = 0; row < nnc_config_option_count; row++) {
        const struct nnc_option *option = &nnc_config_options[row];
        if (option->type == NNC_OPTION_STRING) {
            memset((char *)&config + option->offset, 'a', option->bytes - 1);
        }
    }
    ssize_t bytes = nnc_config_print_shared(&config, text, sizeof(text));
    cr_assert(bytes > 0 && bytes < NNC_SHARED_TEXT_MAX / 2, "%zd", bytes);
    cr_expect_eq(nnc_config_print_shared(&config, text, (size_t)bytes), -ENOBUFS);
    cr_expect_eq(nnc_config_print_shared(&config, text, (size_t)bytes + 1), bytes);
}

/* Bytes of any kind behind `bytes` of a good text, in a block of exactly their size, so that a
 * reader beyond the end is found by a sanitizer. */
static int compare_copy(const struct nnc_config *here, const char *text, size_t bytes,
                        char words[256]) {
    char *copy = malloc(bytes > 0 ? bytes : 1);
    memcpy(copy, text, bytes);
    int code = nnc_config_compare_shared(here, copy, bytes, words, 256);
    free(copy);
    return code;
}

Test(config_machines, hostile_text_is_a_difference_and_is_shown_in_plain_characters) {
    struct nnc_config here;
    char text[NNC_SHARED_TEXT_MAX], words[256];
    nnc_config_defaults(&here);
    size_t bytes = (size_t)nnc_config_print_shared(&here, text, sizeof(text));
    cr_assert_eq(compare_copy(&here, text, bytes, words), 0);
    for (size_t kept = 0; kept < bytes; kept++) {
        cr_assert_eq(compare_copy(&here, text, kept, words), 1, "%zu of %zu bytes", kept, bytes);
    }
    struct nnc_rng rng = nnc_rng_make(5, NNC_RNG_SYNTHETIC, 1, 0);
    for (int round = 0; round < 4000; round++) {
        size_t at = nnc_rng_below(&rng, (uint32_t)bytes);
        char before = text[at];
        text[at] = (char)(before ^ (1 + nnc_rng_below(&rng, 255)));
        cr_assert_eq(compare_copy(&here, text, bytes, words), 1, "byte %zu", at);
        for (const char *byte = words; *byte != '\0'; byte++) {
            cr_assert(*byte >= ' ' && *byte != 0x7f, "byte %zu gives %s", at, words);
        }
        text[at] = before;
    }
    strcpy(text + bytes, "more: 1\n");
    cr_expect_eq(compare_copy(&here, text, bytes + 8, words), 1);
    char *huge = malloc(1 << 16);
    memset(huge, 'x', 1 << 16);
    memcpy(huge, "format: ", 8);
    huge[(1 << 16) - 1] = '\n';
    cr_expect_eq(compare_copy(&here, huge, 1 << 16, words), 1);
    free(huge);
}
