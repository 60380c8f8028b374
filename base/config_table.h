/* SPDX-License-Identifier: Apache-2.0 */
/* The option table, the verbs and the layers of a configuration, for the files base/config*.c and
 * their tests. Others use base/config.h. */
#ifndef NNC_BASE_CONFIG_TABLE_H
#define NNC_BASE_CONFIG_TABLE_H

#include "base/config.h"
#include "base/option.h"

enum nnc_config_group {
    NNC_GROUP_DATA,
    NNC_GROUP_LOADERS,
    NNC_GROUP_DEVICES,
    NNC_GROUP_MACHINES,
    NNC_GROUP_MODEL,
    NNC_GROUP_TRAINING,
    NNC_GROUP_STATE,
    NNC_GROUP_LIFE,
    NNC_GROUP_OUTPUT,
    NNC_GROUP_INSPECT,
    NNC_GROUP_PACK,
    NNC_GROUP_COUNT,
};

/* Verbs that an option is shown for; nnc_verb.mask and nnc_option.verbs. */
enum nnc_verb_mask {
    NNC_VERB_TRAIN = 1 << 0,
    NNC_VERB_EVAL = 1 << 1,
    NNC_VERB_PREDICT = 1 << 2,
    NNC_VERB_MODELS = 1 << 3,
    NNC_VERB_CHECK = 1 << 4,
    NNC_VERB_DOCTOR = 1 << 5,
    NNC_VERB_BENCH_INPUT = 1 << 6,
    NNC_VERB_BENCH_TRAIN = 1 << 7,
    NNC_VERB_CONFIG = 1 << 8,
    NNC_VERB_SHOW = 1 << 9,
    NNC_VERB_PACK = 1 << 10,
    NNC_VERB_BENCH_SYNTH = 1 << 11,
    NNC_VERB_SELFTEST = 1 << 12,
    NNC_VERB_BENCH_COMM = 1 << 13,
    NNC_VERB_BENCH_GPU = 1 << 14,
    NNC_VERB_EVERY = (1 << 15) - 1,
};

/* What becomes of the words after verb and subverb. */
enum nnc_verb_words {
    NNC_WORDS_NONE,
    NNC_WORDS_DATA, /* at most one, config.data */
    NNC_WORDS_ARGS, /* all go to command.args */
};

/* A verb, or a verb with its subverb, is one row; rows of one verb stand together. */
struct nnc_verb {
    const char *name;
    const char *subverb; /* NULL: the verb alone */
    const char *aliases[3];
    const char *words_name; /* in the synopsis; "" for NNC_WORDS_NONE */
    enum nnc_verb_words words;
    bool adopts_run;     /* takes the rows with .adopts from the run of --resume */
    bool default_recipe; /* without data and --config takes the recipe NNC_DEFAULT_RECIPE */
    uint32_t mask;       /* bit in nnc_option.verbs */
    const char *help;    /* one line, for lists */
    const char *text;    /* paragraphs of the verb's help */
};

/* Options that are no field of the configuration: they act on the command line itself. */
enum nnc_action_kind {
    NNC_ACTION_CONFIG,
    NNC_ACTION_DUMP,
    NNC_ACTION_HELP,
    NNC_ACTION_VERSION,
    NNC_ACTION_COMPLETION,
    NNC_ACTION_COUNT,
};

struct nnc_action {
    const char *name;
    char flag;
    const char *argument; /* "": takes none */
    const char *help;
};

#define NNC_DEFAULT_RECIPE "fashion-mnist"

extern const struct nnc_option nnc_config_options[];
extern const size_t nnc_config_option_count;
extern const struct nnc_verb nnc_config_verbs[]; /* ended by a NULL name */
extern const struct nnc_action nnc_config_actions[NNC_ACTION_COUNT];

/* Heading of a group of options. */
const char *nnc_config_group_title(enum nnc_config_group group);

/* The row of a name or alias, without dashes in front; '_' counts as '-'. NULL: unknown. */
const struct nnc_option *nnc_config_find(const char *name);

/* The option of ours that does what another program's option of this name does, one that is too
 * unlike to be guessed; NULL: nobody knows. '_' counts as '-'. */
const char *nnc_config_other_name(const char *name);

/* What whoever gives the option to a verb that lacks it may have meant; NULL: nobody knows. */
const char *nnc_config_foreign_hint(const struct nnc_option *option, const struct nnc_verb *verb);

/* Name of the option's environment variable, NNCOORD_BATCH_SIZE. */
void nnc_config_variable(const struct nnc_option *option, char ret_name[NNC_NAME_MAX]);

/* Set fields from NNCOORD_<OPTION> variables.
 * Errors: -NNC_E_USAGE naming the variable; *config may be half changed. */
int nnc_config_load_environment(struct nnc_config *config);

/* Run the checks between options. Errors: -NNC_E_USAGE naming the options. */
int nnc_config_check(const struct nnc_config *config);

/* The rows' checks: 0, or -NNC_E_USAGE with a sentence. */
int nnc_config_check_channels(const struct nnc_config *config);
int nnc_config_check_amp(const struct nnc_config *config);
int nnc_config_check_val_crop(const struct nnc_config *config);
int nnc_config_check_crop_scale(const struct nnc_config *config);
int nnc_config_check_crop_ratio(const struct nnc_config *config);
int nnc_config_check_gpus(const struct nnc_config *config);
int nnc_config_check_endpoint(const struct nnc_config *config);
int nnc_config_check_rdzv_id(const struct nnc_config *config);
int nnc_config_check_secret(const struct nnc_config *config);
int nnc_config_check_weights(const struct nnc_config *config);
int nnc_config_check_label_smoothing(const struct nnc_config *config);
int nnc_config_check_nesterov(const struct nnc_config *config);
int nnc_config_check_fresh(const struct nnc_config *config);
int nnc_config_check_quiet(const struct nnc_config *config);
int nnc_config_check_input(const struct nnc_config *config);
int nnc_config_check_quality(const struct nnc_config *config);
int nnc_config_check_bench(const struct nnc_config *config);

/* File of `--config NAME`: NAME itself when it has a '/' or ends in .yaml or .yml, else
 * recipe_dir/NAME.yaml. recipe_dir may be NULL.
 * Errors: -NNC_E_USAGE when there is no such recipe, with a proposal. */
int nnc_config_find_recipe(const char *name, const char *recipe_dir, char ret_path[NNC_PATH_MAX]);

/* Placeholder of the option's value in help: "DIR", "N", "constant|step|cosine"; "" for switches.
 */
void nnc_config_value_name(const struct nnc_option *option, char *ret_text, size_t room);

/* The default in words, "" when there is nothing to say: "default 30 epochs". */
void nnc_config_value_note(const struct nnc_option *option, char *ret_text, size_t room);

/* Help on the whole program, or with verb (not NULL) on all rows of that verb, or with subverb (not
 * NULL) on that one. The options are listed where all these rows take the same. */
void nnc_config_write_help(FILE *out, const char *verb, const char *subverb);

/* Completion script. Errors: -NNC_E_USAGE for a shell that is none of bash, zsh, fish. */
int nnc_config_write_completion(FILE *out, const char *shell);

#endif
