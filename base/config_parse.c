/* SPDX-License-Identifier: Apache-2.0 */
/* A command line into a struct nnc_command, over getopt_long.
 *
 * 1. read:   one pass over argv collects assignments (option, text), words and actions. Nothing is
 *            set yet, because the YAML file named on the line ranks below the line itself.
 * 2. verb:   the first word, and for some verbs the second; no word at all means train.
 * 3. layers: defaults, what is adopted from a run, YAML or the default recipe, environment,
 *            assignments, word DATA, checks. --resume, which names the run, may come from any
 * layer: they are laid once without a run to find it.
 *
 * Invariants: options are matched by their whole name, never by a beginning that a later version
 * could make ambiguous; '_' counts as '-'; the last mention of an option wins; one that the verb
 * has no use for is refused on the line and ignored in the other layers; *ret_command is untouched
 * on failure.
 *
 * It does not look at files (but for recipes, --config and the run): whether data or a model exists
 * is found out by those who open them. Source: getopt_long(3); "-" in front of the short options
 * hands words over in order instead of moving them. */
#include "base/config_table.h"

#include "base/err.h"
#include "base/run_path.h"
#include "base/text.h"

#include <assert.h>
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    SPELLING_BYTES = 48,
    RUN_PATH_BYTES = NNC_PATH_MAX + 32,
    LONG_VALUE_FIRST = 1000, /* getopt's val of long option 0; above all characters */
};

/* A long name as getopt_long knows it: an option's name, alias or negation, or an action. */
struct spelling {
    char name[SPELLING_BYTES];
    const struct nnc_option *option; /* NULL: an action */
    bool negated;
    enum nnc_action_kind action;
};

struct assignment {
    const struct nnc_option *option;
    const char *name; /* as it was spelled, without dashes */
    const char *text; /* NULL: raise a level by one */
};

struct line {
    struct spelling *spellings;
    struct option *longs; /* getopt's table: each spelling with dashes, then with underscores */
    char (*underscored)[SPELLING_BYTES];
    const char **names; /* of the spellings, NULL-ended, to propose from */
    size_t spelling_count;
    char shorts[128];
    struct assignment *assignments;
    size_t assignment_count;
    char **words; /* gathered at the front of argv */
    int word_count;
    const char *config_name, *completion;
    bool actions[NNC_ACTION_COUNT];
};

/* Spellings */

static size_t count_aliases(const struct nnc_option *option) {
    size_t count = 0;
    while (option->aliases[count] != NULL) {
        count++;
    }
    return count;
}

static void add_spelling(struct line *line, const char *prefix, const char *name,
                         struct spelling spelling) {
    int length = snprintf(spelling.name, sizeof(spelling.name), "%s%s", prefix, name);
    assert(length > 0 && (size_t)length < sizeof(spelling.name));
    line->spellings[line->spelling_count++] = spelling;
}

static void add_option(struct line *line, const struct nnc_option *option) {
    size_t aliases = count_aliases(option);
    for (size_t number = 0; number <= aliases; number++) {
        const char *name = number == 0 ? option->name : option->aliases[number - 1];
        add_spelling(line, "", name, (struct spelling){.option = option});
        if (option->type == NNC_OPTION_BOOL) {
            add_spelling(line, "no-", name, (struct spelling){.option = option, .negated = true});
        }
    }
}

static bool takes_no_argument(const struct nnc_option *option) {
    return option->type == NNC_OPTION_BOOL || option->type == NNC_OPTION_LEVEL;
}

static int argument_kind(const struct spelling *spelling) {
    if (spelling->option == NULL) {
        bool takes = nnc_config_actions[spelling->action].argument[0] != '\0';
        return takes ? required_argument : no_argument;
    }
    if (spelling->negated) {
        return no_argument;
    }
    return takes_no_argument(spelling->option) ? optional_argument : required_argument;
}

static void fill_longs(struct line *line) {
    for (size_t row = 0; row < line->spelling_count; row++) {
        const struct spelling *spelling = &line->spellings[row];
        line->names[row] = spelling->name;
        char *other = line->underscored[row];
        for (size_t place = 0; place < SPELLING_BYTES; place++) {
            other[place] = spelling->name[place] == '-' ? '_' : spelling->name[place];
        }
        struct option known = {.name = spelling->name,
                               .has_arg = argument_kind(spelling),
                               .val = LONG_VALUE_FIRST + (int)row};
        line->longs[2 * row] = known;
        known.name = other;
        line->longs[2 * row + 1] = known;
    }
}

static void fill_shorts(struct line *line) {
    size_t used = 0;
    line->shorts[used++] = '-';
    line->shorts[used++] = ':';
    for (size_t row = 0; row < nnc_config_option_count; row++) {
        const struct nnc_option *option = &nnc_config_options[row];
        if (option->flag != 0) {
            assert(used + 3 < sizeof(line->shorts));
            line->shorts[used++] = option->flag;
            line->shorts[used] = ':';
            used += !takes_no_argument(option);
        }
    }
    for (size_t row = 0; row < NNC_ACTION_COUNT; row++) {
        if (nnc_config_actions[row].flag != 0) {
            line->shorts[used++] = nnc_config_actions[row].flag;
        }
    }
    line->shorts[used] = '\0';
}

static void line_finish(struct line *line) {
    free(line->spellings);
    free(line->longs);
    free(line->underscored);
    free(line->names);
    free(line->assignments);
}

static int line_init(struct line *line, int argc, char **argv) {
    size_t most = NNC_ACTION_COUNT, letters = 1; /* each letter of -vvv is an assignment */
    for (int number = 0; number < argc; number++) {
        letters += strlen(argv[number]) + 1;
    }
    for (size_t row = 0; row < nnc_config_option_count; row++) {
        most += 2 * (1 + count_aliases(&nnc_config_options[row]));
    }
    *line = (struct line){
        .spellings = calloc(most, sizeof(*line->spellings)),
        .longs = calloc(2 * most + 1, sizeof(*line->longs)),
        .underscored = calloc(most, sizeof(*line->underscored)),
        .names = calloc(most + 1, sizeof(*line->names)),
        .words = argv + 1,
        .assignments = calloc(letters, sizeof(*line->assignments)),
    };
    if (line->spellings == NULL || line->longs == NULL || line->underscored == NULL ||
        line->names == NULL || line->assignments == NULL) {
        line_finish(line);
        return nnc_fail(-ENOMEM, "no memory for the command line");
    }
    for (size_t row = 0; row < nnc_config_option_count; row++) {
        add_option(line, &nnc_config_options[row]);
    }
    for (size_t row = 0; row < NNC_ACTION_COUNT; row++) {
        add_spelling(line, "", nnc_config_actions[row].name,
                     (struct spelling){.action = (enum nnc_action_kind)row});
    }
    fill_longs(line);
    fill_shorts(line);
    return 0;
}

/* Reading */

static int fail_unknown(const struct line *line, const char *token) {
    char name[64], meant[128], shown[64];
    snprintf(name, sizeof(name), "%.*s", (int)strcspn(token + 2, "="), token + 2);
    nnc_text_escape(name, shown, sizeof(shown));
    const char *ours = nnc_config_other_name(name);
    if (ours != NULL) {
        snprintf(meant, sizeof(meant), " (did you mean --%s?)", ours);
    } else {
        nnc_did_you_mean_text(name, line->names, "--", meant, sizeof(meant));
    }
    return nnc_fail(-NNC_E_USAGE, "unknown option --%s%s; --help lists all", shown, meant);
}

/* Does the token name the spelling in full? */
static bool is_exact(const struct spelling *spelling, const char *token) {
    size_t length = strcspn(token + 2, "=");
    char name[SPELLING_BYTES];
    if (length >= sizeof(name) || length != strlen(spelling->name)) {
        return false;
    }
    memcpy(name, token + 2, length);
    name[length] = '\0';
    return nnc_edit_distance(name, spelling->name) == 0;
}

static int fail_token(const struct line *line, const char *token, bool is_missing) {
    if (token[0] != '-' || token[1] != '-') {
        return is_missing ? nnc_fail(-NNC_E_USAGE, "option -%c needs a value", optopt)
                          : nnc_fail(-NNC_E_USAGE, "unknown option -%c; --help lists all", optopt);
    }
    for (size_t row = 0; row < line->spelling_count; row++) {
        if (is_exact(&line->spellings[row], token)) {
            return nnc_fail(-NNC_E_USAGE, "option --%s %s a value", line->spellings[row].name,
                            is_missing ? "needs" : "does not take");
        }
    }
    return fail_unknown(line, token);
}

static void take_action(struct line *line, enum nnc_action_kind action, const char *text) {
    line->actions[action] = true;
    if (action == NNC_ACTION_CONFIG) {
        line->config_name = text;
    }
    if (action == NNC_ACTION_COMPLETION) {
        line->completion = text;
    }
}

static void assign(struct line *line, const struct nnc_option *option, const char *name,
                   const char *text) {
    line->assignments[line->assignment_count++] =
        (struct assignment){.option = option, .name = name, .text = text};
}

static int take_long(struct line *line, const struct spelling *spelling, const char *token) {
    if (!is_exact(spelling, token)) {
        return fail_unknown(line, token);
    }
    const struct nnc_option *option = spelling->option;
    bool is_separate = optarg != NULL && strchr(token, '=') == NULL;
    if (is_separate && strncmp(optarg, "--", 2) == 0) {
        return nnc_fail(-NNC_E_USAGE, "option --%s needs a value, but %.40s follows",
                        spelling->name, optarg);
    }
    if (option == NULL) {
        take_action(line, spelling->action, optarg);
    } else if (option->type == NNC_OPTION_BOOL) {
        assign(line, option, spelling->name,
               spelling->negated ? "false"
               : optarg != NULL  ? optarg
                                 : "true");
    } else {
        assign(line, option, spelling->name, optarg);
    }
    return 0;
}

static int take_short(struct line *line, int letter) {
    for (size_t row = 0; row < NNC_ACTION_COUNT; row++) {
        if (nnc_config_actions[row].flag == letter) {
            take_action(line, (enum nnc_action_kind)row, NULL);
            return 0;
        }
    }
    const struct nnc_option *option = nnc_config_options;
    while (option->flag != letter) {
        option++; /* getopt knows only letters of the table */
    }
    assign(line, option, option->name, option->type == NNC_OPTION_BOOL ? "true" : optarg);
    return 0;
}

static int take_token(struct line *line, const char *token, int letter) {
    switch (letter) {
    case 1:
        line->words[line->word_count++] = optarg;
        return 0;
    case '?':
    case ':':
        return fail_token(line, token, letter == ':');
    default:
        return letter >= LONG_VALUE_FIRST
                   ? take_long(line, &line->spellings[letter - LONG_VALUE_FIRST], token)
                   : take_short(line, letter);
    }
}

static int read_line(struct line *line, int argc, char **argv) {
    optind = 0; /* glibc: start over */
    opterr = 0;
    for (;;) {
        int at = optind > 0 ? optind : 1;
        int letter = getopt_long(argc, argv, line->shorts, line->longs, NULL);
        if (letter == -1) {
            break;
        }
        int code = take_token(line, argv[at], letter);
        if (code < 0) {
            return code;
        }
    }
    while (optind < argc) {
        line->words[line->word_count++] = argv[optind++];
    }
    line->words[line->word_count] = NULL;
    return 0;
}

/* The verb */

enum {
    VERB_NAMES_MAX = 32,
};

static bool is_verb(const struct nnc_verb *verb, const char *word) {
    bool found = strcmp(verb->name, word) == 0;
    for (const char *const *alias = verb->aliases; *alias != NULL; alias++) {
        found = found || strcmp(*alias, word) == 0;
    }
    return found;
}

static int fail_verb(const char *word) {
    const char *names[VERB_NAMES_MAX] = {NULL};
    size_t count = 0;
    for (const struct nnc_verb *verb = nnc_config_verbs; verb->name != NULL; verb++) {
        assert(count + 4 < VERB_NAMES_MAX);
        names[count++] = verb->name;
        for (const char *const *alias = verb->aliases; *alias != NULL; alias++) {
            names[count++] = *alias;
        }
    }
    char meant[128], shown[64];
    nnc_text_escape(word, shown, sizeof(shown));
    nnc_did_you_mean_text(word, names, "", meant, sizeof(meant));
    return nnc_fail(-NNC_E_USAGE,
                    "unknown verb \"%s\"%s; nncoord --help lists them, and there is no data set "
                    "of that name here",
                    shown, meant);
}

static int fail_subverb(const struct nnc_verb *first, const char *word) {
    const char *names[VERB_NAMES_MAX] = {NULL};
    char list[128] = "", meant[128] = "", shown[64];
    size_t count = 0, used = 0;
    for (const struct nnc_verb *verb = first; verb->name == first->name; verb++) {
        if (verb->subverb != NULL) {
            names[count++] = verb->subverb;
            used += (size_t)snprintf(list + used, sizeof(list) - used, "%s%s", used > 0 ? ", " : "",
                                     verb->subverb);
        }
    }
    if (word == NULL) {
        return nnc_fail(-NNC_E_USAGE, "nncoord %s needs one of: %s", first->name, list);
    }
    nnc_text_escape(word, shown, sizeof(shown));
    nnc_did_you_mean_text(word, names, "", meant, sizeof(meant));
    return nnc_fail(-NNC_E_USAGE, "nncoord %s knows %s, not \"%s\"%s", first->name, list, shown,
                    meant);
}

/* The row for the words; ret_used of them belong to it. A word with a slash or dot in it, or one
 * that is no verb but a file or directory here, is the data set of train. */
static int find_verb(const struct line *line, const struct nnc_verb **ret_verb, int *ret_used) {
    const struct nnc_verb *verb = nnc_config_verbs;
    if (line->word_count == 0 || strpbrk(line->words[0], "/.") != NULL) {
        *ret_verb = verb; /* train is the first row */
        *ret_used = 0;
        return 0;
    }
    while (verb->name != NULL && !is_verb(verb, line->words[0])) {
        verb++;
    }
    if (verb->name == NULL && access(line->words[0], F_OK) == 0) {
        *ret_verb = nnc_config_verbs; /* a data set in this directory */
        *ret_used = 0;
        return 0;
    }
    if (verb->name == NULL) {
        return fail_verb(line->words[0]);
    }
    const struct nnc_verb *first = verb;
    bool has_subverbs = false;
    const char *word = line->word_count > 1 ? line->words[1] : NULL;
    for (; verb->name != NULL && is_verb(verb, line->words[0]); verb++) {
        has_subverbs = has_subverbs || verb->subverb != NULL;
        if (verb->subverb != NULL && word != NULL && strcmp(verb->subverb, word) == 0) {
            *ret_verb = verb;
            *ret_used = 2;
            return 0;
        }
    }
    if (has_subverbs && (first->subverb != NULL || word != NULL) &&
        !line->actions[NNC_ACTION_HELP]) {
        return fail_subverb(first, word);
    }
    *ret_verb = first;
    *ret_used = 1;
    return 0;
}

/* The layers */

static int apply(struct nnc_config *config, const struct assignment *assignment) {
    const struct nnc_option *option = assignment->option;
    if (option->type == NNC_OPTION_LEVEL && assignment->text == NULL) {
        uint32_t *level = (uint32_t *)((char *)config + option->offset);
        *level += *level < option->max;
        return 0;
    }
    int code = nnc_option_parse(option, assignment->text, config);
    return code < 0 ? nnc_fail_in(code, "--%s", option->name) : 0;
}

/* Whether the command line or the environment has the option. */
static bool is_given(const struct line *line, const char *name) {
    const struct nnc_option *option = nnc_config_find(name);
    char variable[NNC_NAME_MAX];
    nnc_config_variable(option, variable);
    bool given = nnc_env(variable) != NULL;
    for (size_t number = 0; number < line->assignment_count; number++) {
        given = given || line->assignments[number].option == option;
    }
    return given;
}

static bool is_data_given(const struct line *line, int used) {
    return line->word_count > used || is_given(line, "data");
}

static int load_yaml(const struct line *line, bool takes_recipe, const char *recipe_dir,
                     struct nnc_config *config) {
    const char *name = line->config_name != NULL ? line->config_name : nnc_env("NNCOORD_CONFIG");
    if (name == NULL && takes_recipe) {
        name = NNC_DEFAULT_RECIPE;
    }
    if (name == NULL) {
        return 0;
    }
    char path[NNC_PATH_MAX];
    int code = nnc_config_find_recipe(name, recipe_dir, path);
    return code < 0 ? code : nnc_config_load_yaml(path, config);
}

/* config.yaml of the run that --resume names, or of the run that its checkpoint lies in; "" if
 * none. */
static void find_run(const char *resume, char ret_path[RUN_PATH_BYTES]) {
    char path[NNC_PATH_MAX];
    ret_path[0] = '\0';
    if (resume[0] == '\0') {
        return;
    }
    snprintf(path, sizeof(path), "%s", resume);
    nnc_run_path_resolve(path);
    snprintf(ret_path, RUN_PATH_BYTES, "%s/config.yaml", path);
    if (access(ret_path, R_OK) != 0) {
        snprintf(ret_path, RUN_PATH_BYTES, "%s/../config.yaml", path);
    }
    if (access(ret_path, R_OK) != 0) {
        ret_path[0] = '\0';
    }
}

/* Take what defines network and input from a run's config.yaml, and nothing that was only said
 * about its training. Where the data is given, all that says where the run's lay stays out. */
static int adopt_run(const char *path, bool data_given, struct nnc_config *config) {
    static const char *const places[] = {"data", "val-data", "format"};
    struct nnc_config run;
    nnc_config_defaults(&run);
    int code = nnc_config_load_yaml(path, &run);
    for (size_t row = 0; row < nnc_config_option_count && code == 0; row++) {
        const struct nnc_option *option = &nnc_config_options[row];
        bool is_place = false;
        for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
            is_place = is_place || strcmp(option->name, places[i]) == 0;
        }
        if (option->adopts && !(is_place && data_given)) {
            memcpy((char *)config + option->offset, (const char *)&run + option->offset,
                   option->bytes);
        }
    }
    return code;
}

static void verb_title(const struct nnc_verb *verb, char ret_title[NNC_NAME_MAX]) {
    snprintf(ret_title, NNC_NAME_MAX, "nncoord %s%s%s", verb->name,
             verb->subverb != NULL ? " " : "", verb->subverb != NULL ? verb->subverb : "");
}

static int take_words(const struct nnc_verb *verb, char **words, struct nnc_config *config) {
    char title[NNC_NAME_MAX], shown[64];
    verb_title(verb, title);
    bool is_needed = verb->words != NNC_WORDS_NONE && verb->words_name[0] != '[';
    bool is_given = words[0] != NULL || (verb->words == NNC_WORDS_DATA && config->data[0] != '\0');
    if (is_needed && !is_given) {
        return nnc_fail(-NNC_E_USAGE, "%s needs %s", title, verb->words_name);
    }
    if (verb->words == NNC_WORDS_ARGS || words[0] == NULL) {
        return 0;
    }
    int most = verb->words == NNC_WORDS_DATA;
    if (words[most] != NULL) {
        nnc_text_escape(words[most], shown, sizeof(shown));
        return nnc_fail(-NNC_E_USAGE, "%s: what is \"%s\"? At most %d such word is taken", title,
                        shown, most);
    }
    struct assignment data = {.option = nnc_config_find("data"), .text = words[0]};
    return apply(config, &data);
}

static int apply_all(const struct line *line, struct nnc_config *config) {
    int code = 0;
    for (size_t number = 0; number < line->assignment_count && code == 0; number++) {
        code = apply(config, &line->assignments[number]);
    }
    return code;
}

/* A training that goes on without being told its data or configuration anew takes all of the run's,
 * save what only said how that began and on which machines it was. */
static int continue_run(const char *path, struct nnc_config *config) {
    struct nnc_config run = *config;
    int code = nnc_config_load_yaml(path, &run);
    for (size_t row = 0; row < nnc_config_option_count && code == 0; row++) {
        const struct nnc_option *option = &nnc_config_options[row];
        if (option->group != NNC_GROUP_MACHINES) {
            memcpy((char *)config + option->offset, (const char *)&run + option->offset,
                   option->bytes);
        }
    }
    config->weights[0] = '\0';
    config->fresh = false;
    return code;
}

/* Does the command line of a training leave everything to the run that --resume names? */
static bool leaves_all_to_run(const struct line *line, const struct nnc_verb *verb, int used,
                              const struct nnc_config *config) {
    return verb->mask == NNC_VERB_TRAIN && line->config_name == NULL &&
           !is_data_given(line, used) && strcmp(config->resume, "auto") != 0;
}

/* All layers; run: config.yaml to adopt from, "" none. */
static int lay(const struct line *line, const struct nnc_verb *verb, int used,
               const char *recipe_dir, const char *run, struct nnc_config *config) {
    bool data_given = is_data_given(line, used);
    nnc_config_defaults(config);
    int code = 0;
    if (run[0] != '\0') {
        code = verb->adopts_run ? adopt_run(run, data_given, config) : continue_run(run, config);
    }
    if (code == 0) {
        bool takes_recipe = verb->default_recipe && !data_given && run[0] == '\0';
        code = load_yaml(line, takes_recipe, recipe_dir, config);
    }
    if (code == 0) {
        code = nnc_config_load_environment(config);
    }
    if (code == 0) {
        code = apply_all(line, config);
    }
    return code < 0 ? code : take_words(verb, line->words + used, config);
}

static int build_config(const struct line *line, const struct nnc_verb *verb, int used,
                        const char *recipe_dir, struct nnc_config *config) {
    /* Once for the errors only: a slip on the line is told before one in a file. */
    nnc_config_defaults(config);
    char run[RUN_PATH_BYTES] = "";
    int code = apply_all(line, config);
    if (code == 0) {
        code = lay(line, verb, used, recipe_dir, run, config);
    }
    if (code == 0 && (verb->adopts_run || leaves_all_to_run(line, verb, used, config))) {
        find_run(config->resume, run);
        code = run[0] == '\0' ? 0 : lay(line, verb, used, recipe_dir, run, config);
    }
    nnc_run_path_resolve(config->resume);
    nnc_run_path_weights(config->weights);
    return code < 0 ? code : nnc_config_check(config);
}

static int build(const struct line *line, const struct nnc_verb *verb, int used,
                 const char *recipe_dir, struct nnc_command *command) {
    snprintf(command->verb, sizeof(command->verb), "%s", verb->name);
    snprintf(command->subverb, sizeof(command->subverb), "%s",
             verb->subverb != NULL ? verb->subverb : "");
    bool has_args = verb->words == NNC_WORDS_ARGS;
    command->args = line->words + (has_args ? used : line->word_count);
    command->arg_count = has_args ? line->word_count - used : 0;
    command->given = (struct nnc_config_given){
        .nnodes = is_given(line, "nnodes"),
        .node_rank = is_given(line, "node-rank"),
        .endpoint = is_given(line, "rdzv-endpoint"),
        .id = is_given(line, "rdzv-id"),
        .secret = is_given(line, "rdzv-secret"),
    };
    return build_config(line, verb, used, recipe_dir, &command->config);
}

/* "; it is one of show, pack" where few verbs have the option, else "". */
static void list_owners(const struct nnc_option *option, char *ret_text, size_t room) {
    enum {
        OWNERS_MAX = 3
    };
    size_t used = 0, count = 0;
    ret_text[0] = '\0';
    uint32_t seen = NNC_VERB_CONFIG;
    for (const struct nnc_verb *verb = nnc_config_verbs; verb->name != NULL; verb++) {
        if ((option->verbs & verb->mask & ~seen) == 0 || used >= room) {
            continue;
        }
        char title[NNC_NAME_MAX];
        verb_title(verb, title);
        seen |= verb->mask;
        used +=
            (size_t)snprintf(ret_text + used, room - used, "%s%s",
                             count++ == 0 ? "; it is one of " : ", ", title + strlen("nncoord "));
    }
    if (count > OWNERS_MAX) {
        ret_text[0] = '\0';
    }
}

/* Files and environment serve several verbs, so what one has no use for is ignored there. Who
 * types it wants something of it. */
static int check_options(const struct line *line, const struct nnc_verb *verb) {
    for (size_t number = 0; number < line->assignment_count; number++) {
        const struct assignment *assignment = &line->assignments[number];
        if (verb->mask == NNC_VERB_CONFIG || (assignment->option->verbs & verb->mask) != 0) {
            continue;
        }
        char title[NNC_NAME_MAX], owners[256];
        const char *hint = nnc_config_foreign_hint(assignment->option, verb);
        verb_title(verb, title);
        list_owners(assignment->option, owners, sizeof(owners));
        return nnc_fail(-NNC_E_USAGE, "--%s is not an option of `%s`%s%s", assignment->name, title,
                        hint != NULL ? ": " : "", hint != NULL ? hint : owners);
    }
    return 0;
}

/* What ends here: 1 when done, 0 to go on. */
static int run_action(const struct line *line, const struct nnc_verb *verb, int used) {
    if (line->actions[NNC_ACTION_VERSION]) {
        printf("nncoord %s\n", nnc_version());
        return 1;
    }
    if (line->actions[NNC_ACTION_HELP]) {
        nnc_config_write_help(stdout, used > 0 ? verb->name : NULL,
                              used > 1 ? verb->subverb : NULL);
        return 1;
    }
    if (line->completion != NULL) {
        int code = nnc_config_write_completion(stdout, line->completion);
        return code < 0 ? code : 1;
    }
    if (line->actions[NNC_ACTION_DUMP] && verb->mask != NNC_VERB_CONFIG) {
        return nnc_fail(-NNC_E_USAGE, "--dump belongs to the verb config: nncoord config --dump");
    }
    if (verb->subverb != NULL && strcmp(verb->subverb, "man") == 0) {
        nnc_config_write_man(stdout);
        return 1;
    }
    if (verb->subverb != NULL && strcmp(verb->subverb, "markdown") == 0) {
        nnc_config_write_markdown(stdout);
        return 1;
    }
    return 0;
}

static int parse_line(struct line *line, const char *recipe_dir, struct nnc_command *command,
                      bool *ret_done) {
    const struct nnc_verb *verb = nnc_config_verbs;
    int used = 0;
    if (line->word_count > 0 && strcmp(line->words[0], "help") == 0) {
        line->actions[NNC_ACTION_HELP] = true;
        line->words++;
        line->word_count--;
    }
    int code = find_verb(line, &verb, &used);
    if (code < 0) {
        return code;
    }
    code = run_action(line, verb, used);
    if (code != 0) {
        *ret_done = code > 0;
        return code < 0 ? code : 0;
    }
    code = check_options(line, verb);
    code = code < 0 ? code : build(line, verb, used, recipe_dir, command);
    if (code == 0 && verb->mask == NNC_VERB_CONFIG) {
        code = nnc_config_dump_yaml(&command->config, stdout);
        *ret_done = code == 0;
    }
    return code;
}

int nnc_command_parse(int argc, char **argv, const char *recipe_dir,
                      struct nnc_command *ret_command, bool *ret_done) {
    if (argc < 1) {
        return nnc_fail(-NNC_E_USAGE, "an empty command line");
    }
    struct line line;
    int code = line_init(&line, argc, argv);
    if (code < 0) {
        return code;
    }
    struct nnc_command command = {{0}};
    bool done = false;
    code = read_line(&line, argc, argv);
    if (code == 0) {
        code = parse_line(&line, recipe_dir, &command, &done);
    }
    line_finish(&line);
    if (code == 0) {
        *ret_command = command;
        *ret_done = done;
    }
    return code;
}
