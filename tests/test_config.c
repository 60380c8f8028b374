/* SPDX-License-Identifier: Apache-2.0 */
/* The option table against the struct, each layer of the configuration, hostile values, and the
 * documents in docs/ against the table. */
#include "base/config.h"

#include "base/config_table.h"
#include "base/err.h"
#include "base/rng.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Whole text of a file; the caller frees it. */
static char *read_text(const char *path) {
    FILE *file = fopen(path, "re");
    cr_assert_not_null(file, "%s: %s", path, strerror(errno));
    char *text = calloc(1, 1 << 20);
    size_t bytes = fread(text, 1, (1 << 20) - 1, file);
    text[bytes] = '\0';
    fclose(file);
    return text;
}

/* A temporary file with this text; unlink it. */
static const char *write_text(const void *text, size_t bytes) {
    static char path[64];
    snprintf(path, sizeof(path), "/tmp/nnc-config-XXXXXX");
    int fd = mkstemp(path);
    cr_assert_geq(fd, 0);
    cr_assert_eq(write(fd, text, bytes), (ssize_t)bytes);
    close(fd);
    return path;
}

/* Parse "nncoord" and the words of line, separated by spaces. */
static int parse_in(const char *line, const char *recipe_dir, struct nnc_command *ret_command,
                    bool *ret_done) {
    static char words[1024];
    static char *argv[64];
    int argc = 0;
    snprintf(words, sizeof(words), "nncoord %s", line);
    char *rest = words;
    for (char *word; (word = strsep(&rest, " ")) != NULL;) {
        if (word[0] != '\0') {
            argv[argc++] = word;
        }
    }
    argv[argc] = NULL;
    *ret_done = false;
    return nnc_command_parse(argc, argv, recipe_dir, ret_command, ret_done);
}

static int parse(const char *line, struct nnc_command *ret_command) {
    bool done;
    return parse_in(line, NULL, ret_command, &done);
}

/* The table */

/* Remove comments from text, in place. */
static void strip_comments(char *text) {
    char *to = text;
    for (const char *from = text; *from != '\0';) {
        if (from[0] == '/' && from[1] == '*') {
            from = strstr(from, "*/") + 2;
        } else {
            *to++ = *from++;
        }
    }
    *to = '\0';
}

/* Names of the fields of struct nnc_config, read from the header. */
static int list_fields(char ret_names[128][64]) {
    char *header = read_text(NNC_TEST_SOURCE_DIR "/base/config.h");
    strip_comments(header);
    char *body = strstr(header, "struct nnc_config {");
    cr_assert_not_null(body);
    body = strchr(body, '{') + 1;
    *strstr(body, "};") = '\0';
    int count = 0;
    for (char *statement; (statement = strsep(&body, ";")) != NULL;) {
        statement += strspn(statement, " \n");
        if (*statement == '\0') {
            continue;
        }
        statement += strcspn(statement, " "); /* the type */
        for (char *name; (name = strsep(&statement, ",")) != NULL;) {
            name += strspn(name, " ");
            cr_assert_lt(count, 128);
            snprintf(ret_names[count++], 64, "%.*s", (int)strcspn(name, " ["), name);
        }
    }
    free(header);
    return count;
}

Test(config, every_field_has_its_row_in_its_order) {
    char names[128][64];
    int count = list_fields(names);
    cr_assert_eq(count, (int)nnc_config_option_count);
    for (int row = 0; row < count; row++) {
        char name[64];
        snprintf(name, sizeof(name), "%s", nnc_config_options[row].name);
        for (char *dash; (dash = strchr(name, '-')) != NULL;) {
            *dash = '_';
        }
        cr_expect_str_eq(name, names[row], "row %d is %s, the field is %s", row, name, names[row]);
    }
}

Test(config, rows_cover_the_struct_without_overlap) {
    size_t end = 0;
    for (size_t row = 0; row < nnc_config_option_count; row++) {
        const struct nnc_option *option = &nnc_config_options[row];
        cr_assert(option->offset >= end && option->offset - end < 8,
                  "%s at %zu, the one before "
                  "ends at %zu",
                  option->name, option->offset, end);
        end = option->offset + option->bytes;
    }
    cr_assert(sizeof(struct nnc_config) - end < 8);
}

Test(config, rows_are_sound) {
    static const size_t sizes[NNC_OPTION_TYPE_COUNT] = {[NNC_OPTION_BOOL] = sizeof(bool),
                                                        [NNC_OPTION_LEVEL] = 4,
                                                        [NNC_OPTION_U32] = 4,
                                                        [NNC_OPTION_U64] = 8,
                                                        [NNC_OPTION_ENUM] = 4,
                                                        [NNC_OPTION_DOUBLE] = 8};
    char flags[128] = {['h'] = 1, ['V'] = 1};
    for (size_t row = 0; row < nnc_config_option_count; row++) {
        const struct nnc_option *option = &nnc_config_options[row];
        cr_expect(sizes[option->type] == 0 || sizes[option->type] == option->bytes, "%s",
                  option->name);
        cr_expect(option->unit != NULL && option->def != NULL && option->help != NULL &&
                      option->verbs != 0 && option->group < NNC_GROUP_COUNT,
                  "%s", option->name);
        bool is_number = option->type != NNC_OPTION_STRING && option->type != NNC_OPTION_BOOL &&
                         option->type != NNC_OPTION_ENUM;
        cr_expect(!is_number || option->min < option->max, "%s", option->name);
        cr_expect(option->type != NNC_OPTION_ENUM || option->choices != NULL, "%s", option->name);
        cr_expect(option->flag == 0 || !flags[(int)option->flag]++, "%s", option->name);
        size_t length = strlen(option->help);
        cr_expect(length > 0 && option->help[length - 1] != '.', "%s", option->name);
        cr_expect_eq(nnc_config_find(option->name), option, "%s is found elsewhere", option->name);
        for (const char *const *alias = option->aliases; *alias != NULL; alias++) {
            cr_expect_eq(nnc_config_find(*alias), option, "%s is found elsewhere", *alias);
        }
    }
}

Test(config, defaults_follow_torchvision) {
    struct nnc_config config;
    nnc_config_defaults(&config);
    cr_expect_eq(config.epochs, 90);
    cr_expect_eq(config.batch_size, 32);
    cr_expect_eq(config.lr, 0.1);
    cr_expect_eq(config.momentum, 0.9);
    cr_expect_eq(config.weight_decay, 1e-4);
    cr_expect_eq(config.norm_weight_decay, -1);
    cr_expect_eq(config.lr_scheduler, NNC_LR_STEP);
    cr_expect_eq(config.lr_step_size, 30);
    cr_expect_eq(config.train_crop_size, 224);
    cr_expect_eq(config.val_resize_size, 256);
    cr_expect_eq(config.mean[1], 0.456);
    cr_expect_eq(config.crop_ratio_max, 4.0 / 3.0);
    cr_expect_eq(config.workers, 0);
    cr_expect_eq(config.ring_depth, 4);
    cr_expect_eq(config.max_bad, 0.001);
    cr_expect_str_eq(config.model, "resnet18");
    cr_expect(config.strict);
    cr_expect_eq(nnc_config_check(&config), 0, "%s", nnc_error_text());
}

/* Values */

Test(config, hostile_values_are_refused_with_a_reason_and_change_nothing) {
    static const struct {
        const char *option, *text, *want;
    } rows[] = {
        {"batch-size", "-1", "\"-1\" is negative; 1 to 65536 images expected"},
        {"batch-size", "0", "\"0\" is out of range; 1 to 65536 images expected"},
        {"batch-size", "4294967297", "out of range"},
        {"batch-size", "99999999999999999999999", "out of range"},
        {"batch-size", "", "not a whole number"},
        {"batch-size", " 3", "not a whole number"},
        {"batch-size", "3 ", "not a whole number"},
        {"batch-size", "+3", "not a whole number"},
        {"batch-size", "0x10", "not a whole number"},
        {"batch-size", "1e3", "not a whole number"},
        {"workers", "autoo", "or auto expected"},
        {"seed", "18446744073709551616", "out of range"},
        {"lr", "nan", "not a number"},
        {"lr", "inf", "not a number"},
        {"lr", "-inf", "not a number"},
        {"lr", "1e999", "out of range"},
        {"lr", "0x1p3", "not a number"},
        {"lr", "1.5abc", "not a number"},
        {"lr", "", "not a number"},
        {"lr", "-0.1", "\"-0.1\" is out of range; 0 to 1000000 expected"},
        {"lr", "1,5", "not a number"},
        {"label-smoothing", "1.01", "out of range"},
        {"mean", "0.1,0.2", "2 numbers, 1 or 3 expected"},
        {"mean", "0.1,0.2,0.3,0.4", "not a list of 1 or 3"},
        {"mean", "0.1,,0.3", "not a number"},
        {"mean", "2", "out of range"},
        {"std", "0", "out of range"},
        {"lr-scheduler", "cosin", "none of constant, step, cosine (did you mean cosine?)"},
        {"lr-scheduler", "", "none of"},
        {"json", "maybe", "neither true nor false"},
        {"model", "a\nb", "control characters"},
        {"model", "\xff", "not UTF-8"},
        {"model", "\x1b[2J", "\"\\x1b[2J\" has control"},
    };
    for (size_t row = 0; row < sizeof(rows) / sizeof(rows[0]); row++) {
        struct nnc_config config, before;
        nnc_config_defaults(&config);
        before = config;
        int code = nnc_option_parse(nnc_config_find(rows[row].option), rows[row].text, &config);
        cr_expect_eq(code, -NNC_E_USAGE, "%s %s", rows[row].option, rows[row].text);
        cr_expect(strstr(nnc_error_text(), rows[row].want) != NULL, "%s %s: %s", rows[row].option,
                  rows[row].text, nnc_error_text());
        cr_expect_eq(memcmp(&config, &before, sizeof(config)), 0, "%s", rows[row].option);
    }
    struct nnc_config config;
    char huge[5000];
    memset(huge, 'a', sizeof(huge) - 1);
    huge[sizeof(huge) - 1] = '\0';
    for (size_t row = 0; row < nnc_config_option_count; row++) {
        cr_expect_eq(nnc_option_parse(&nnc_config_options[row], huge, &config), -NNC_E_USAGE);
    }
    huge[NNC_PATH_MAX - 1] = '\0';
    cr_expect_eq(nnc_option_parse(nnc_config_find("data"), huge, &config), 0);
    huge[NNC_PATH_MAX - 1] = 'a', huge[NNC_PATH_MAX] = '\0';
    cr_expect_eq(nnc_option_parse(nnc_config_find("data"), huge, &config), -NNC_E_USAGE);
}

/* A random value that the row allows. */
static void randomise(const struct nnc_option *option, struct nnc_rng *rng,
                      struct nnc_config *config) {
    static const char *const strings[] = {
        "",   "plain", "null",  "~",      "yes",  "12",          "- a", "a: b", "#x",
        "'",  "\"",    " lead", "trail ", "a  b", "caf\xc3\xa9", "[1]", "{",    "!t",
        "&a", "*a",    "%",     "@",      "`",    "|",           ">",   "\\n",  "a #b"};
    void *field = (char *)config + option->offset;
    double part = nnc_rng_uniform(rng);
    double value = option->min + part * (option->max - option->min);
    size_t choices = 0;
    while (option->choices != NULL && option->choices[choices].name != NULL) {
        choices++;
    }
    switch (option->type) {
    case NNC_OPTION_STRING:
        memset(field, 0, option->bytes);
        strcpy(field, strings[nnc_rng_below(rng, sizeof(strings) / sizeof(strings[0]))]);
        break;
    case NNC_OPTION_BOOL:
        *(bool *)field = nnc_rng_below(rng, 2);
        break;
    case NNC_OPTION_LEVEL:
    case NNC_OPTION_U32:
        *(uint32_t *)field = part < 0.2 ? (uint32_t)option->min : (uint32_t)value;
        break;
    case NNC_OPTION_U64:
        *(uint64_t *)field = (uint64_t)nnc_rng_u32(rng) << 32 | nnc_rng_u32(rng);
        break;
    case NNC_OPTION_ENUM:
        *(int32_t *)field = (int32_t)option->choices[nnc_rng_below(rng, (uint32_t)choices)].value;
        break;
    default:
        for (size_t place = 0; place < option->bytes / sizeof(double); place++) {
            ((double *)field)[place] = option->choices != NULL && part < 0.3 ? -1 : value;
        }
    }
}

Test(config, a_dump_is_read_back_bit_for_bit) {
    for (uint32_t number = 0; number < 60; number++) {
        struct nnc_rng rng = nnc_rng_make(77, NNC_RNG_SYNTHETIC, number, 0);
        struct nnc_config config, back;
        nnc_config_defaults(&config);
        for (size_t row = 0; row < nnc_config_option_count && number > 0; row++) {
            randomise(&nnc_config_options[row], &rng, &config);
        }
        const char *path = write_text("", 0);
        FILE *out = fopen(path, "we");
        cr_assert_eq(nnc_config_dump_yaml(&config, out), 0, "%s", nnc_error_text());
        fclose(out);
        memset(&back, 0, sizeof(back));
        cr_assert_eq(nnc_config_load_yaml(path, &back), 0, "config %u: %s", number,
                     nnc_error_text());
        for (size_t row = 0; row < nnc_config_option_count; row++) {
            char text[NNC_PATH_MAX + 16];
            nnc_option_print(&nnc_config_options[row], &back, text, sizeof(text));
            cr_expect(nnc_option_equal(&nnc_config_options[row], &config, &back),
                      "config %u: %s came back as %s", number, nnc_config_options[row].name, text);
        }
        unlink(path);
    }
}

/* YAML */

Test(config, yaml_errors_name_file_line_and_key) {
    static const struct {
        const char *text, *want;
    } rows[] = {
        {"lr: 0.2\nbatchsize: 3\n", ":2: unknown key \"batchsize\" (did you mean batch-size?)"},
        {"lr: 0.2\n\n# x\nbatch_size: 3\n", ":4: unknown key \"batch_size\" (did you mean "
                                            "batch-size?)"},
        {"wd: 1\n", ":1: unknown key \"wd\" (did you mean weight-decay?)"},
        {"zzzzzzzzz: 1\n", ":1: unknown key \"zzzzzzzzz\""},
        {"epochs: 3\nlr: fast\n", ":2: lr: \"fast\" is not a number"},
        {"epochs: -3\n", ":1: epochs: \"-3\" is negative"},
        {"epochs:\n", ":1: epochs: \"\" is not a whole number"},
        {"epochs: 3\nlr: 1\nepochs: 4\n", ":3: key \"epochs\" is there twice, first in line 1"},
        {"lr: 0.1\nmodel: [a, b]\n", ":2: model: a single value expected"},
        {"lr: 0.1\nmodel: {a: b}\n", ":2: model: a single value expected"},
        {"lr: 0.1\nmean: {a: b}\n", ":2: mean: a single value expected"},
        {"mean: []\n", ":1: mean: [a, list] of numbers expected"},
        {"mean: 0.1,0.2\n", ":1: mean: \"0.1,0.2\" has 2 numbers"},
        {"mean: [0.1, 0.2]\n", ":1: mean: \"0.1,0.2\" has 2 numbers, 1 or 3 expected"},
        {"mean: [[0.1], 0.2, 0.3]\n", ":1: mean: [a, list] of numbers expected"},
        {"lr: 0.1\nmodel: \"open\n", ": not YAML: found unexpected end of stream"},
        {"lr: 0.1\n\tepochs: 3\n", ":2: not YAML: "},
        {"lr: 0.1\nmodel: \xff\n", ":2: not YAML: invalid leading UTF-8 octet"},
        {"- lr\n- model\n", "lines of \"option: value\" expected"},
        {"just text\n", "lines of \"option: value\" expected"},
        {"model: &m x\nweights: *m\n", ":2: aliases (*name) are not taken"},
        {"lr: 0.1\n---\nlr: 0.2\n", ":2: a second document"},
        {"? [a, b]\n: c\n", ":1: a key must be the name of an option"},
        {"[[[[[[[[[[[[", "lines of \"option: value\" expected"},
        {"model: \"a\\nb\"\n", ":1: model: \"a\\x0ab\" has control characters"},
    };
    for (size_t row = 0; row < sizeof(rows) / sizeof(rows[0]); row++) {
        struct nnc_config config, before;
        nnc_config_defaults(&config);
        before = config;
        const char *path = write_text(rows[row].text, strlen(rows[row].text));
        cr_expect_eq(nnc_config_load_yaml(path, &config), -NNC_E_USAGE, "%s", rows[row].text);
        cr_expect(strstr(nnc_error_text(), rows[row].want) != NULL, "%s\n  said: %s\n  want: %s",
                  rows[row].text, nnc_error_text(), rows[row].want);
        cr_expect(strncmp(nnc_error_text(), path, strlen(path)) == 0, "%s", nnc_error_text());
        cr_expect_eq(memcmp(&config, &before, sizeof(config)), 0, "%s", rows[row].text);
        unlink(path);
    }
}

Test(config, yaml_keys_that_are_not_there_keep_their_value) {
    static const char *const rows[] = {
        "epochs: 7\nmean: [0.5]\nmodel: 'x'\n", "{epochs: 7, mean: [0.5], model: x}",
        "epochs: 7\nmean: 0.5\nmodel: x\n", "mean: 0.5,0.5,0.5\nepochs: 7\nmodel: x\n",
        "# comment\n---\nmodel: x\nmean:\n  - 0.5\nepochs: \"7\"\n...\n"};
    for (size_t row = 0; row < sizeof(rows) / sizeof(rows[0]); row++) {
        struct nnc_config config;
        nnc_config_defaults(&config);
        config.lr = 0.25;
        const char *path = write_text(rows[row], strlen(rows[row]));
        cr_assert_eq(nnc_config_load_yaml(path, &config), 0, "%s", nnc_error_text());
        cr_expect_eq(config.epochs, 7);
        cr_expect_eq(config.mean[2], 0.5);
        cr_expect_str_eq(config.model, "x");
        cr_expect_eq(config.lr, 0.25);
        unlink(path);
    }
}

Test(config, an_empty_yaml_file_changes_nothing_and_an_empty_string_does) {
    struct nnc_config config;
    nnc_config_defaults(&config);
    const char *path = write_text("# nothing\n", 10);
    cr_assert_eq(nnc_config_load_yaml(path, &config), 0, "%s", nnc_error_text());
    cr_expect_str_eq(config.model, "resnet18");
    unlink(path);
    static const char *const rows[] = {"model:\n", "model: ''\n", "model: \"\"\n"};
    for (size_t row = 0; row < 3; row++) {
        nnc_config_defaults(&config);
        path = write_text(rows[row], strlen(rows[row]));
        cr_assert_eq(nnc_config_load_yaml(path, &config), 0, "%s", nnc_error_text());
        cr_expect_str_eq(config.model, "");
        unlink(path);
    }
}

Test(config, huge_and_strange_files_are_refused) {
    struct nnc_config config;
    nnc_config_defaults(&config);
    size_t bytes = (1 << 20) + 1;
    char *text = malloc(bytes);
    memset(text, '#', bytes);
    const char *path = write_text(text, bytes);
    cr_expect_eq(nnc_config_load_yaml(path, &config), -NNC_E_USAGE);
    cr_expect(strstr(nnc_error_text(), "more than 1 MiB") != NULL, "%s", nnc_error_text());
    unlink(path);
    memset(text, '[', bytes);
    path = write_text(text, bytes - 1);
    cr_expect_eq(nnc_config_load_yaml(path, &config), -NNC_E_USAGE);
    unlink(path);
    memset(text, 'a', bytes);
    memcpy(text, "model: ", 7);
    path = write_text(text, bytes - 1);
    cr_expect_eq(nnc_config_load_yaml(path, &config), -NNC_E_USAGE);
    cr_expect(strstr(nnc_error_text(), "at most 1023 fit") != NULL, "%s", nnc_error_text());
    unlink(path);
    free(text);
    cr_expect_eq(nnc_config_load_yaml("/", &config), -NNC_E_USAGE);
    cr_expect_eq(nnc_config_load_yaml("/no/such/file.yaml", &config), -NNC_E_USAGE);
    cr_expect_str_eq(nnc_error_text(), "/no/such/file.yaml: No such file or directory");
}

Test(config, random_bytes_never_pass_for_a_configuration_or_break_the_reader) {
    static const char letters[] = "epochs: 3\n\tlr[]{}-?&*!|>'\"%@`#,\\\x01\xc3\xa9~";
    struct nnc_rng rng = nnc_rng_make(5, NNC_RNG_SYNTHETIC, 0, 0);
    for (int number = 0; number < 2000; number++) {
        char text[64];
        size_t bytes = nnc_rng_below(&rng, sizeof(text));
        for (size_t place = 0; place < bytes; place++) {
            text[place] = letters[nnc_rng_below(&rng, sizeof(letters) - 1)];
        }
        struct nnc_config config;
        nnc_config_defaults(&config);
        const char *path = write_text(text, bytes);
        int code = nnc_config_load_yaml(path, &config);
        cr_expect(code == 0 || code == -NNC_E_USAGE, "%.*s: %d", (int)bytes, text, code);
        unlink(path);
    }
}

/* The command line */

Test(config, command_lines_set_what_they_say) {
    struct nnc_command command;
    cr_assert_eq(parse("train DIR -j 3 --batch_size=64 --wd 0.5 -a alexnet --nesterov --no-strict",
                       &command),
                 0, "%s", nnc_error_text());
    cr_expect_str_eq(command.verb, "train");
    cr_expect_str_eq(command.subverb, "");
    cr_expect_str_eq(command.config.data, "DIR");
    cr_expect_eq(command.config.workers, 3);
    cr_expect_eq(command.config.batch_size, 64);
    cr_expect_eq(command.config.weight_decay, 0.5);
    cr_expect_str_eq(command.config.model, "alexnet");
    cr_expect(command.config.nesterov);
    cr_expect_not(command.config.strict);
    cr_expect_eq(command.arg_count, 0);
    cr_expect_null(command.args[0]);
    cr_assert_eq(parse("--lr 1 ./dir --lr 2 -vvq=1", &command), -NNC_E_USAGE);
    cr_assert_eq(parse("--lr 1 ./dir --lr 2 -vv --json=true --seed 18446744073709551615 "
                       "--mean 0.5 --lr-scheduler steplr --num-workers auto",
                       &command),
                 0, "%s", nnc_error_text());
    cr_expect_str_eq(command.verb, "train");
    cr_expect_str_eq(command.config.data, "./dir");
    cr_expect_eq(command.config.lr, 2);
    cr_expect_eq(command.config.verbose, 2);
    cr_expect_eq(command.config.seed, UINT64_MAX);
    cr_expect_eq(command.config.mean[2], 0.5);
    cr_expect_eq(command.config.lr_scheduler, NNC_LR_STEP);
    cr_expect(command.config.json);
    cr_assert_eq(parse("--gpus 0 val --data-path d", &command), 0, "%s", nnc_error_text());
    cr_expect_str_eq(command.verb, "eval");
    cr_expect_str_eq(command.config.data, "d");
}

Test(config, verbs_take_their_words) {
    static const struct {
        const char *line, *verb, *subverb, *data, *arg;
        int arg_count;
    } rows[] = {
        {"predict a.jpg --topk 3 b.jpg -- --json", "predict", "", "", "a.jpg", 3},
        {"models", "models", "", "", NULL, 0},
        {"models show resnet50 --input 3x224x224", "models", "show", "", "resnet50", 1},
        {"check d", "check", "", "d", NULL, 0},
        {"check --data d", "check", "", "d", NULL, 0},
        {"doctor --json", "doctor", "", "", NULL, 0},
        {"bench input d --json", "bench", "input", "d", NULL, 0},
        {"bench train --model alexnet", "bench", "train", "", NULL, 0},
        {"bench synth d --count 7", "bench", "synth", "", "d", 1},
        {"show d --split val", "show", "", "d", NULL, 0},
        {"test d", "eval", "", "d", NULL, 0},
        {"-q train d", "train", "", "d", NULL, 0},
    };
    for (size_t row = 0; row < sizeof(rows) / sizeof(rows[0]); row++) {
        struct nnc_command command;
        cr_assert_eq(parse(rows[row].line, &command), 0, "%s: %s", rows[row].line,
                     nnc_error_text());
        cr_expect_str_eq(command.verb, rows[row].verb, "%s", rows[row].line);
        cr_expect_str_eq(command.subverb, rows[row].subverb, "%s", rows[row].line);
        cr_expect_str_eq(command.config.data, rows[row].data, "%s", rows[row].line);
        cr_expect_eq(command.arg_count, rows[row].arg_count, "%s", rows[row].line);
        cr_expect_null(command.args[command.arg_count]);
        if (rows[row].arg != NULL) {
            cr_expect_str_eq(command.args[0], rows[row].arg);
        }
    }
}

Test(config, a_word_that_is_no_verb_but_lies_here_is_the_data_set) {
    char directory[] = "/tmp/nnc-config-XXXXXX", name[64];
    cr_assert_not_null(mkdtemp(directory));
    cr_assert_eq(chdir(directory), 0);
    cr_assert_eq(mkdir("photos", 0700), 0);
    char program[] = "nncoord", data[] = "photos", option[] = "--epochs", value[] = "3";
    char *words[] = {program, data, option, value, NULL};
    struct nnc_command command;
    bool done = false;
    cr_assert_eq(nnc_command_parse(4, words, NULL, &command, &done), 0, "%s", nnc_error_text());
    cr_expect_str_eq(command.verb, "train");
    cr_expect_str_eq(command.config.data, "photos");
    cr_expect_eq(command.config.epochs, 3);
    snprintf(name, sizeof(name), "%s/photos", directory);
    cr_expect_eq(rmdir(name), 0);
    cr_expect_eq(rmdir(directory), 0);
}

Test(config, wrong_lines_say_what_was_meant) {
    static const struct {
        const char *line, *want;
    } rows[] = {
        {"trian", "unknown verb \"trian\" (did you mean train?)"},
        {"tset d", "(did you mean test?)"},
        {"train d --bacth-size 3", "unknown option --bacth-size (did you mean --batch-size?)"},
        {"train d --batch 3", "unknown option --batch (did you mean --batch-size?)"},
        {"train d --batchsize=3", "(did you mean --batch-size?)"},
        {"train d --zzzzzzzz", "unknown option --zzzzzzzz; --help lists all"},
        {"train d --no-lr 3", "unknown option --no-lr"},
        {"train d -x", "unknown option -x"},
        {"train d --lr", "option --lr needs a value"},
        {"train d -b", "option -b needs a value"},
        {"train d --output-dir --json", "option --output-dir needs a value, but --json follows"},
        {"train d --no-json=yes", "option --no-json does not take a value"},
        {"train d --json=maybe", "--json: \"maybe\" is neither"},
        {"train d -b 0", "--batch-size: \"0\" is out of range"},
        {"train d -b -5", "--batch-size: \"-5\" is negative"},
        {"train d e", "what is \"e\"?"},
        {"models resnet18", "nncoord models knows show, not \"resnet18\""},
        {"models shwo", "(did you mean show?)"},
        {"bench", "nncoord bench needs one of: input, train, gpu, comm, synth"},
        {"bench synth", "nncoord bench synth needs DIR"},
        {"show", "nncoord show needs DATA"},
        {"bench inptu d", "(did you mean input?)"},
        {"bench train d", "what is \"d\"?"},
        {"check", "nncoord check needs DATA"},
        {"predict", "nncoord predict needs FILE|DIR..."},
        {"models show", "nncoord models show needs NAME|FILE..."},
        {"train d --dump", "--dump belongs to the verb config"},
        {"train d --print-completion tcsh", "none of bash, zsh, fish"},
        {"train d --config nosuch", "no recipe \"nosuch\""},
        {"train d --rdzv-backend c10d",
         "unknown option --rdzv-backend (did you mean --rdzv-endpoint?)"},
        {"train d --master_addr=h", "(did you mean --rdzv-endpoint?)"},
        {"train d --master-port 1", "(did you mean --rdzv-endpoint?)"},
        {"train d --steps 10", "--steps is not an option of `nncoord train`: steps of an epoch are "
                               "--limit-train-batches"},
        {"train d --config ./nosuch.yaml", "./nosuch.yaml: No such file"},
        {"train d --val-crop-size 300", "give --val-resize-size 300 or more"},
        {"train d --crop-scale-min 0.5 --crop-scale-max 0.4", "is above"},
        {"train d --crop-ratio-min 2 --crop-ratio-max 1", "is above"},
        {"train d --channels 2", "must be 1 (grey), 3 (colour) or auto"},
        {"train d --nesterov --momentum 0", "needs a --momentum above 0"},
        {"train d --fresh --resume auto", "give one of them"},
        {"train d --weights w --resume r", "give one of them"},
        {"train d --loss mse --label-smoothing 0.1", "needs --loss cross-entropy"},
        {"train d -q -v", "contradict"},
        {"train d --gpus 1,1", "--gpus \"1,1\""},
        {"train d --gpus 0,1,", "--gpus \"0,1,\""},
        {"train d --gpus 64,", "--gpus \"64,\""},
        {"train d --gpus x", "--gpus \"x\""},
        {"train d --gpus 65", "--gpus \"65\""},
        {"train d --gpus 99999999999", "--gpus"},
        {"models show x --input 3x0x4", "--input \"3x0x4\""},
        {"models show x --input 3x4", "--input \"3x4\""},
        {"models show x --input 3x4x5x6", "--input"},
        {"bench input d --split tset", "--split: \"tset\" is none of"},
        {"bench input d --cache cold --bench-epochs 2", "one pass is measured"},
        {"bench input d --cache tepid", "cold"},
        {"bench input d --simulate-gpu 0.01", "at least 0.1 images per second"},
        {"help trian", "did you mean train"},
        {"pack s d --on-bad fail", "--on-bad is not an option of `nncoord pack`: bad images are "
                                   "left out, and --max-bad"},
        {"pack s d -j 2 --epochs 5", "--epochs is not an option of `nncoord pack`; it is one of "
                                     "train"},
        {"check d --split val", "--split is not an option of `nncoord check`: it reads training "
                                "and validation images"},
        {"check d --max-bad 0.5", "--max-bad is not an option of `nncoord check`"},
        {"show d --max-side 30", "it is one of `nncoord pack`; the side of a sample is "
                                 "--train-crop-size"},
        {"./d --output x", "--output is not an option of `nncoord train`"},
        {"eval d --resume r --img_size 30", "--img-size is not an option of `nncoord eval`: the "
                                            "side of an evaluated image is --val-crop-size"},
        {"bench input d --epochs 2", "`nncoord bench input`: measured passes are --bench-epochs"},
        {"bench train --no-reindex", "--no-reindex is not an option of `nncoord bench train`"},
        {"bench synth d -b 3", "--batch-size is not an option of `nncoord bench synth`"},
        {"train d -j 0", "--workers: \"0\" is out of range; 1 to 1024 processes or auto"},
    };
    for (size_t row = 0; row < sizeof(rows) / sizeof(rows[0]); row++) {
        struct nnc_command command;
        memset(&command, 0x5a, sizeof(command));
        struct nnc_command before = command;
        cr_expect_eq(parse(rows[row].line, &command), -NNC_E_USAGE, "%s", rows[row].line);
        cr_expect(strstr(nnc_error_text(), rows[row].want) != NULL, "%s\n  said: %s",
                  rows[row].line, nnc_error_text());
        cr_expect_eq(memcmp(&command, &before, sizeof(command)), 0, "%s", rows[row].line);
    }
}

Test(config, good_gpu_lists_pass) {
    static const char *const rows[] = {"", "0", "1", "64", "all", "0,2", "3,1,2", "0,", "63,"};
    for (size_t row = 0; row < sizeof(rows) / sizeof(rows[0]); row++) {
        struct nnc_config config;
        nnc_config_defaults(&config);
        strcpy(config.gpus, rows[row]);
        cr_expect_eq(nnc_config_check(&config), 0, "%s", rows[row]);
    }
}

Test(config, line_beats_environment_beats_file_beats_default) {
    struct nnc_command command;
    static const char text[] = "epochs: 2\nlr: 0.2\nmomentum: 0.2\nmodel: file\n";
    const char *path = write_text(text, strlen(text));
    char line[256];
    snprintf(line, sizeof(line), "train d --config %s --epochs 4", path);
    setenv("NNCOORD_EPOCHS", "3", 1);
    setenv("NNCOORD_LR", "0.3", 1);
    setenv("NNCOORD_MODEL", "", 1); /* empty is as good as unset */
    cr_assert_eq(parse(line, &command), 0, "%s", nnc_error_text());
    cr_expect_eq(command.config.epochs, 4);
    cr_expect_eq(command.config.lr, 0.3);
    cr_expect_eq(command.config.momentum, 0.2);
    cr_expect_str_eq(command.config.model, "file");
    cr_expect_eq(command.config.batch_size, 32);
    setenv("NNCOORD_LR", "fast", 1);
    cr_expect_eq(parse(line, &command), -NNC_E_USAGE);
    cr_expect(strstr(nnc_error_text(), "environment variable NNCOORD_LR: \"fast\"") != NULL, "%s",
              nnc_error_text());
    setenv("NNCOORD_LR", "0.3", 1);
    setenv("NNCOORD_CONFIG", path, 1);
    cr_assert_eq(parse("train d", &command), 0, "%s", nnc_error_text());
    cr_expect_eq(command.config.momentum, 0.2);
    unlink(path);
}

Test(config, options_foreign_to_a_verb_are_ignored_in_file_and_environment) {
    struct nnc_command command;
    static const char text[] = "epochs: 2\non-bad: fail\nmax-side: 30\n";
    static const char *const lines[] = {"check d", "show d", "pack s d", "bench input d",
                                        "bench synth d"};
    const char *path = write_text(text, strlen(text));
    setenv("NNCOORD_CONFIG", path, 1);
    setenv("NNCOORD_SPLIT", "val", 1);
    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
        cr_expect_eq(parse(lines[i], &command), 0, "%s: %s", lines[i], nnc_error_text());
        cr_expect_eq(command.config.epochs, 2, "%s", lines[i]);
    }
    unsetenv("NNCOORD_CONFIG");
    for (const struct nnc_verb *verb = nnc_config_verbs; verb->name != NULL; verb++) {
        char line[128];
        snprintf(line, sizeof(line), "%s %s %s --json", verb->name,
                 verb->subverb != NULL ? verb->subverb : "",
                 verb->words != NNC_WORDS_NONE ? "w" : "");
        if (verb->mask != NNC_VERB_CONFIG) {
            cr_expect_eq(parse(line, &command), 0, "%s: %s", line, nnc_error_text());
        }
    }
    unlink(path);
}

Test(config, an_unknown_recipe_is_answered_with_those_that_are_there) {
    struct nnc_command command;
    bool done;
    cr_expect_eq(parse_in("train d --config fashion_mnits", NNC_TEST_SOURCE_DIR "/models/recipes",
                          &command, &done),
                 -NNC_E_USAGE);
    cr_expect(strstr(nnc_error_text(), "\"fashion_mnits\" (did you mean fashion-mnist?) in ") !=
                  NULL,
              "%s", nnc_error_text());
    cr_expect(strstr(nnc_error_text(), "/recipes: cifar10-resnet20, fashion-mnist; a file is") !=
                  NULL,
              "%s", nnc_error_text());
}

Test(config, without_data_the_default_recipe_is_taken) {
    char dir[] = "/tmp/nnc-recipes-XXXXXX", path[64];
    struct nnc_command command;
    bool done;
    cr_assert_not_null(mkdtemp(dir));
    cr_expect_eq(parse_in("--gpus 0", dir, &command, &done), -NNC_E_USAGE);
    cr_expect(strstr(nnc_error_text(), "no recipe \"fashion-mnist\"") != NULL, "%s",
              nnc_error_text());
    snprintf(path, sizeof(path), "%s/fashion-mnist.yaml", dir);
    FILE *file = fopen(path, "we");
    fprintf(file, "data: /data\nmodel: cnn\n");
    fclose(file);
    cr_assert_eq(parse_in("--gpus 0 --model mlp", dir, &command, &done), 0, "%s", nnc_error_text());
    cr_expect_str_eq(command.config.data, "/data");
    cr_expect_str_eq(command.config.model, "mlp");
    cr_assert_eq(parse_in("", dir, &command, &done), 0, "%s", nnc_error_text());
    cr_expect_str_eq(command.config.model, "cnn");
    cr_assert_eq(parse_in("eval", dir, &command, &done), 0, "%s", nnc_error_text());
    cr_expect_str_eq(command.config.model, "cnn");
    static const char *const others[] = {"train d", "--data d", "eval --data-path d", "bench train",
                                         "models"};
    for (size_t row = 0; row < sizeof(others) / sizeof(others[0]); row++) {
        cr_assert_eq(parse_in(others[row], dir, &command, &done), 0, "%s", nnc_error_text());
        cr_expect_str_eq(command.config.model, "resnet18", "%s", others[row]);
    }
    cr_expect_eq(parse_in("--config fashon-mnist", dir, &command, &done), -NNC_E_USAGE);
    cr_expect(strstr(nnc_error_text(), "(did you mean fashion-mnist?)") != NULL, "%s",
              nnc_error_text());
    setenv("NNCOORD_DATA", "e", 1);
    cr_assert_eq(parse_in("train", dir, &command, &done), 0, "%s", nnc_error_text());
    cr_expect_str_eq(command.config.model, "resnet18");
    unlink(path);
    rmdir(dir);
}

static int is_recipe(const struct dirent *entry) {
    return strstr(entry->d_name, ".yaml") != NULL;
}

Test(config, the_recipes_that_come_with_it_load) {
    struct dirent **entries;
    int count = scandir(NNC_TEST_SOURCE_DIR "/models/recipes", &entries, is_recipe, alphasort);
    cr_assert_gt(count, 0);
    for (int number = 0; number < count; number++) {
        char line[256];
        struct nnc_command command;
        snprintf(line, sizeof(line), "train d --config %.*s",
                 (int)strcspn(entries[number]->d_name, "."), entries[number]->d_name);
        bool done;
        cr_expect_eq(parse_in(line, NNC_TEST_SOURCE_DIR "/models/recipes", &command, &done), 0,
                     "%s", nnc_error_text());
        free(entries[number]);
    }
    free(entries);
}

/* Texts */

/* What write prints, in a buffer that the caller frees. */
static char *capture(void (*write_it)(FILE *out)) {
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);
    write_it(out);
    fclose(out);
    return text;
}

Test(config, the_documents_are_those_of_the_table) {
    static const struct {
        const char *path;
        void (*write_it)(FILE *out);
    } rows[] = {{NNC_TEST_SOURCE_DIR "/docs/options.md", nnc_config_write_markdown},
                {NNC_TEST_SOURCE_DIR "/docs/nncoord.1", nnc_config_write_man}};
    for (size_t row = 0; row < 2; row++) {
        char *want = capture(rows[row].write_it), *got = read_text(rows[row].path);
        cr_expect(strcmp(got, want) == 0, "%s is out of date: run scripts/generate-docs.sh",
                  rows[row].path);
        free(want);
        free(got);
    }
}

static void write_train_help(FILE *out) {
    nnc_config_write_help(out, "train", NULL);
}

static void write_all_help(FILE *out) {
    nnc_config_write_help(out, NULL, NULL);
    for (const struct nnc_verb *verb = nnc_config_verbs; verb->name != NULL; verb++) {
        nnc_config_write_help(out, verb->name, NULL);
        nnc_config_write_help(out, verb->name, verb->subverb);
    }
}

Test(config, help_names_each_option_and_fits_80_columns) {
    char *text = capture(write_all_help), *train = capture(write_train_help);
    for (size_t row = 0; row < nnc_config_option_count; row++) {
        const struct nnc_option *option = &nnc_config_options[row];
        char name[80];
        snprintf(name, sizeof(name), "--%s%s", option->type == NNC_OPTION_BOOL ? "[no-]" : "",
                 option->name);
        cr_expect(strstr(text, name) != NULL, "%s", name);
        bool is_trains = (option->verbs & NNC_VERB_TRAIN) != 0;
        strcat(name, option->type == NNC_OPTION_BOOL ? "" : " ");
        cr_expect_eq(strstr(train, name) != NULL, is_trains || option->type == NNC_OPTION_LEVEL,
                     "%s", name);
    }
    cr_expect(strstr(train, "(default 30 epochs)") != NULL);
    cr_expect(strstr(train, "; also --learning-rate\n") != NULL);
    cr_expect(strstr(train, "fashion-mnist") != NULL);
    for (char *line = text; *line != '\0'; line += strcspn(line, "\n") + 1) {
        cr_expect_leq(strcspn(line, "\n"), 80, "%.*s", (int)strcspn(line, "\n"), line);
    }
    free(text);
    free(train);
}

static void write_comm_help(FILE *out) {
    nnc_config_write_help(out, "bench", "comm");
}

static void write_bench_help(FILE *out) {
    nnc_config_write_help(out, "bench", NULL);
}

Test(config, help_on_one_bench_has_its_options_and_no_other_bench) {
    char *comm = capture(write_comm_help), *bench = capture(write_bench_help);
    for (size_t row = 0; row < nnc_config_option_count; row++) {
        const struct nnc_option *option = &nnc_config_options[row];
        char name[80];
        snprintf(name, sizeof(name), "--%s%s ", option->type == NNC_OPTION_BOOL ? "[no-]" : "",
                 option->name);
        bool is_comms = (option->verbs & NNC_VERB_BENCH_COMM) != 0;
        cr_expect_eq(strstr(comm, name) != NULL, is_comms || option->type == NNC_OPTION_LEVEL, "%s",
                     name);
    }
    cr_expect(strncmp(comm, "Usage: nncoord bench comm [OPTION]...\n\nTime", 43) == 0, "%s", comm);
    cr_expect(strstr(comm, "bench synth") == NULL, "%s", comm);
    cr_expect(strstr(bench, "       nncoord bench synth DIR [OPTION]...\n") != NULL);
    cr_expect(strstr(bench, "\nbench comm:\nTime all-reduces") != NULL);
    cr_expect(strstr(bench, "The options of each: nncoord bench NAME --help") != NULL);
    cr_expect(strstr(bench, "--bench-steps") == NULL, "whose would it be?");
    free(comm);
    free(bench);
}

Test(config, help_names_each_other_name_of_an_option) {
    char *text = capture(write_all_help);
    for (size_t row = 0; row < nnc_config_option_count; row++) {
        const char *const *alias = nnc_config_options[row].aliases;
        for (; *alias != NULL; alias++) {
            char name[80];
            snprintf(name, sizeof(name), " --%s", *alias);
            cr_expect(strstr(text, name) != NULL, "%s", name);
        }
    }
    free(text);
}

static void write_shells(FILE *out) {
    cr_expect_eq(nnc_config_write_completion(out, "bash"), 0);
    cr_expect_eq(nnc_config_write_completion(out, "zsh"), 0);
    cr_expect_eq(nnc_config_write_completion(out, "fish"), 0);
}

Test(config, completions_name_each_option_for_each_shell) {
    char *text = capture(write_shells);
    for (size_t row = 0; row < nnc_config_option_count; row++) {
        char name[80];
        snprintf(name, sizeof(name), "--%s ", nnc_config_options[row].name);
        cr_expect(strstr(text, name) != NULL, "bash: %s", name);
        snprintf(name, sizeof(name), "-l %s ", nnc_config_options[row].name);
        cr_expect(strstr(text, name) != NULL, "fish: %s", name);
        snprintf(name, sizeof(name), "'--%s", nnc_config_options[row].name);
        cr_expect(strstr(text, name) != NULL, "zsh: %s", name);
    }
    free(text);
}
