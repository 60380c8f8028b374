/* SPDX-License-Identifier: Apache-2.0 */
/* The manual page, the Markdown table and the shell completions, made from the tables of options
 * and verbs. docs/ keeps copies of the first two; a test fails when they differ from what is
 * written here (scripts/generate-docs.sh makes them again). Source: man-pages(7), groff_man(7);
 * bash "Programmable Completion", zsh _arguments, fish complete. */
#include "base/config_table.h"

#include "base/err.h"

#include <stdio.h>
#include <string.h>

enum {
    TEXT_BYTES = 256,
};

/* What coordinator/launcher.c reads; its test looks for each variable here. */
static const char launchers[] =
    "Without --nnodes and --node-rank a training takes its place among several machines from the "
    "launcher that started it. torchrun sets RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, "
    "MASTER_ADDR, MASTER_PORT (all six are needed), TORCHELASTIC_RUN_ID and "
    "TORCHELASTIC_USE_AGENT_STORE. srun sets SLURM_STEP_ID, SLURM_STEP_NUM_TASKS (else "
    "SLURM_NTASKS), SLURM_PROCID, SLURM_LOCALID, SLURM_STEP_NUM_NODES (else SLURM_NNODES), "
    "SLURM_STEP_NODELIST (else SLURM_JOB_NODELIST) and SLURM_JOB_ID.";

static const struct {
    int status;
    const char *meaning;
} exits[] = {
    {NNC_EXIT_OK, "done"},
    {NNC_EXIT_INTERNAL, "internal error, or a child process failed"},
    {NNC_EXIT_USAGE, "wrong usage, or refused before the start"},
    {NNC_EXIT_DATA,
     "more bad images than --max-bad allows; check, predict: one that cannot be read"},
    {NNC_EXIT_HARDWARE, "hardware failure, or repeated crash of a child"},
    {NNC_EXIT_COMM, "communication between trainers failed"},
    {NNC_EXIT_NUMERIC, "the loss is not finite"},
    {NNC_EXIT_CHECKPOINT, "a checkpoint, standard output or another file could not be written, "
                          "or no checkpoint can be read"},
    {NNC_EXIT_STOPPED, "stopped by a signal after a durable checkpoint: run again with "
                       "--resume auto"},
    {NNC_EXIT_SANDBOX, "a required sandbox layer is missing"},
};

/* Text in roff: no hyphenation of dashes, no requests by accident. */
static void roff(FILE *out, const char *text) {
    if (*text == '.' || *text == '\'') {
        fprintf(out, "\\&");
    }
    for (; *text != '\0'; text++) {
        if (*text == '-') {
            fprintf(out, "\\-");
        } else if (*text == '\\') {
            fprintf(out, "\\e");
        } else if (*text == '\'') {
            fprintf(out, "\\(aq");
        } else if (*text == '`') {
            fprintf(out, "\"");
        } else {
            fputc(*text, out);
        }
    }
}

static void man_verbs(FILE *out) {
    fprintf(out, ".SH VERBS\n");
    for (const struct nnc_verb *verb = nnc_config_verbs; verb->name != NULL; verb++) {
        fprintf(out, ".TP\n.B ");
        roff(out, verb->name);
        if (verb->subverb != NULL) {
            fprintf(out, " ");
            roff(out, verb->subverb);
        }
        if (verb->words_name[0] != '\0') {
            fprintf(out, " \\fI");
            roff(out, verb->words_name);
            fprintf(out, "\\fR");
        }
        fprintf(out, "\n");
        roff(out, verb->text);
        for (const char *const *alias = verb->aliases; *alias != NULL; alias++) {
            fprintf(out, alias == verb->aliases ? " Also " : ", ");
            roff(out, *alias);
        }
        fprintf(out, verb->aliases[0] != NULL ? ".\n" : "\n");
    }
}

static void man_option(FILE *out, const struct nnc_option *option) {
    char value[TEXT_BYTES], note[TEXT_BYTES];
    nnc_config_value_name(option, value, sizeof(value));
    nnc_config_value_note(option, note, sizeof(note));
    fprintf(out, ".TP\n");
    if (option->flag != 0) {
        fprintf(out, "\\fB\\-%c\\fR, ", option->flag);
    }
    fprintf(out, "\\fB\\-\\-%s", option->type == NNC_OPTION_BOOL ? "[no\\-]" : "");
    roff(out, option->name);
    fprintf(out, "\\fR%s\\fI", value[0] != '\0' ? " " : "");
    roff(out, value);
    fprintf(out, "\\fR\n");
    roff(out, option->help);
    if (note[0] != '\0') {
        fprintf(out, " (");
        roff(out, note);
        fprintf(out, ")");
    }
    for (const char *const *alias = option->aliases; *alias != NULL; alias++) {
        fprintf(out, alias == option->aliases ? "; also " : ", ");
        fprintf(out, "\\fB\\-\\-");
        roff(out, *alias);
        fprintf(out, "\\fR");
    }
    fprintf(out, ".\n");
}

static void man_options(FILE *out) {
    fprintf(out, ".SH OPTIONS\n"
                 "An underscore in a name counts as a dash. A verb refuses options on the command "
                 "line that it has no use for, and ignores them in a file and in the "
                 "environment.\n.SS General\n");
    for (size_t row = 0; row < NNC_ACTION_COUNT; row++) {
        const struct nnc_action *action = &nnc_config_actions[row];
        fprintf(out, ".TP\n");
        if (action->flag != 0) {
            fprintf(out, "\\fB\\-%c\\fR, ", action->flag);
        }
        fprintf(out, "\\fB\\-\\-");
        roff(out, action->name);
        fprintf(out, "\\fR \\fI");
        roff(out, action->argument);
        fprintf(out, "\\fR\n");
        roff(out, action->help);
        fprintf(out, ".\n");
    }
    for (unsigned group = 0; group < NNC_GROUP_COUNT; group++) {
        fprintf(out, ".SS %s\n", nnc_config_group_title((enum nnc_config_group)group));
        for (size_t row = 0; row < nnc_config_option_count; row++) {
            if (nnc_config_options[row].group == group) {
                man_option(out, &nnc_config_options[row]);
            }
        }
    }
}

void nnc_config_write_man(FILE *out) {
    fprintf(out,
            ".\\\" SPDX-License-Identifier: Apache-2.0\n"
            ".\\\" Written by scripts/generate-docs.sh from base/config.c; do not edit.\n"
            ".TH NNCOORD 1 \"\" \"nncoord %s\" \"User Commands\"\n"
            ".SH NAME\nnncoord \\- train image classifiers, each part a process of its own\n"
            ".SH SYNOPSIS\n.B nncoord\n[\\fIVERB\\fR] [\\fIOPTION\\fR]... [\\fIWORD\\fR]...\n"
            ".SH DESCRIPTION\n"
            "A coordinator scans the data set and starts loaders, which read, decode and augment "
            "images, and trainers, which compute. Without a verb nncoord trains; without data too, "
            "it takes the recipe %s.\n",
            nnc_version(), NNC_DEFAULT_RECIPE);
    man_verbs(out);
    man_options(out);
    fprintf(out,
            ".SH CONFIGURATION\n"
            "Options may stand in a YAML file, one \\fIname: value\\fR a line, that "
            "\\fB\\-\\-config\\fR names; a plain name is a recipe that comes with nncoord. "
            "\\fBnncoord config dump\\fR prints such a file. The command line wins over the "
            "environment, and that over the file.\n"
            ".SH ENVIRONMENT\n"
            "Each option is read from a variable too: \\fBNNCOORD_BATCH_SIZE\\fR is "
            "\\fB\\-\\-batch\\-size\\fR. \\fBNNCOORD_CONFIG\\fR is \\fB\\-\\-config\\fR.\n.PP\n");
    roff(out, launchers);
    fprintf(out, "\n.SH EXIT STATUS\n");
    for (size_t row = 0; row < sizeof(exits) / sizeof(exits[0]); row++) {
        fprintf(out, ".TP\n.B %d\n", exits[row].status);
        roff(out, exits[row].meaning);
        fprintf(out, ".\n");
    }
    fprintf(out,
            ".TP\n.B %d+N\nended by signal N, any verb but a training, which has a checkpoint: "
            "130 after Ctrl\\-C, 143 after SIGTERM.\n",
            NNC_EXIT_SIGNAL);
}

/* A cell of a Markdown table. */
static void cell(FILE *out, const char *text) {
    for (; *text != '\0'; text++) {
        if (*text == '|') {
            fprintf(out, "\\");
        }
        fputc(*text, out);
    }
}

static void markdown_option(FILE *out, const struct nnc_option *option) {
    char value[TEXT_BYTES];
    nnc_config_value_name(option, value, sizeof(value));
    fprintf(out, "| `");
    if (option->flag != 0) {
        fprintf(out, "-%c, ", option->flag);
    }
    fprintf(out, "--%s%s%s", option->type == NNC_OPTION_BOOL ? "[no-]" : "", option->name,
            value[0] != '\0' ? " " : "");
    cell(out, value);
    fprintf(out, "` | %s%s%s | ", option->def[0] != '\0' ? "`" : "", option->def,
            option->def[0] != '\0' ? "`" : "");
    if (option->type != NNC_OPTION_STRING) {
        fprintf(out, "%s", option->unit);
    }
    fprintf(out, " | ");
    cell(out, option->help);
    for (const char *const *alias = option->aliases; *alias != NULL; alias++) {
        fprintf(out, "%s`--%s`", alias == option->aliases ? "; also " : ", ", *alias);
    }
    bool is_own = option->local && (option->verbs & NNC_VERB_TRAIN) != 0;
    fprintf(out, "%s%s |\n", option->adopts ? "; adopted" : "", is_own ? "; own" : "");
}

void nnc_config_write_markdown(FILE *out) {
    fprintf(
        out,
        "<!-- SPDX-License-Identifier: Apache-2.0 -->\n"
        "<!-- Written by scripts/generate-docs.sh from base/config.c; do not edit. -->\n"
        "# Options of nncoord\n\n"
        "Each name is also a key of the YAML file that `--config` reads, and, in capitals with "
        "underscores and `NNCOORD_` in front, an environment variable. The command line wins "
        "over the environment, and that over the file. On the command line a verb refuses options "
        "that it has no use for; in the other two it ignores them.\n\nThose marked adopted define "
        "network and "
        "input: `eval` and `predict` take them from the run that `--resume` names, below the "
        "file. Those marked own may differ between the machines of a training over several; all "
        "others must be the same on each.\n\n%s\n",
        launchers);
    for (unsigned group = 0; group < NNC_GROUP_COUNT; group++) {
        fprintf(out, "\n## %s\n\n| option | default | unit | meaning |\n|---|---|---|---|\n",
                nnc_config_group_title((enum nnc_config_group)group));
        for (size_t row = 0; row < nnc_config_option_count; row++) {
            if (nnc_config_options[row].group == group) {
                markdown_option(out, &nnc_config_options[row]);
            }
        }
    }
}

/* Completion */

static bool names_files(const char *value) {
    return strstr(value, "PATH") != NULL || strstr(value, "DIR") != NULL ||
           strstr(value, "FILE") != NULL;
}

/* What may follow the option: words to choose from, or "" when they cannot be listed. */
static void choice_words(const struct nnc_option *option, char *ret_text, size_t room) {
    size_t used = 0;
    ret_text[0] = '\0';
    const struct nnc_choice *choice = option->choices;
    for (; choice != NULL && choice->name != NULL && used + 1 < room; choice++) {
        used += (size_t)snprintf(ret_text + used, room - used, "%s%s", used > 0 ? " " : "",
                                 choice->name);
    }
}

/* All verbs, each once, and their subverbs. */
static void print_verbs(FILE *out) {
    const char *last = "";
    for (const struct nnc_verb *verb = nnc_config_verbs; verb->name != NULL; verb++) {
        if (strcmp(verb->name, last) != 0) {
            fprintf(out, "%s%s", last[0] != '\0' ? " " : "", verb->name);
        }
        last = verb->name;
    }
}

static void print_subverb_cases(FILE *out, const char *format) {
    const char *last = NULL;
    for (const struct nnc_verb *verb = nnc_config_verbs; verb->name != NULL; verb++) {
        if (verb->subverb == NULL || (last != NULL && strcmp(last, verb->name) == 0)) {
            continue;
        }
        char words[TEXT_BYTES] = "";
        size_t used = 0;
        for (const struct nnc_verb *row = nnc_config_verbs; row->name != NULL; row++) {
            if (strcmp(row->name, verb->name) == 0 && row->subverb != NULL) {
                used += (size_t)snprintf(words + used, sizeof(words) - used, "%s%s",
                                         used > 0 ? " " : "", row->subverb);
            }
        }
        fprintf(out, format, verb->name, words);
        last = verb->name;
    }
}

static void bash_values(FILE *out) {
    for (size_t row = 0; row < nnc_config_option_count; row++) {
        const struct nnc_option *option = &nnc_config_options[row];
        char value[TEXT_BYTES], words[TEXT_BYTES];
        nnc_config_value_name(option, value, sizeof(value));
        choice_words(option, words, sizeof(words));
        if (value[0] == '\0') {
            continue;
        }
        fprintf(out, "        --%s", option->name);
        if (option->flag != 0) {
            fprintf(out, "|-%c", option->flag);
        }
        for (const char *const *alias = option->aliases; *alias != NULL; alias++) {
            fprintf(out, "|--%s", *alias);
        }
        fprintf(out, ") COMPREPLY=($(compgen %s-W \"%s\" -- \"$current\")); return ;;\n",
                names_files(value) ? "-f " : "", words);
    }
}

static void write_bash(FILE *out) {
    fprintf(out, "# nncoord completion for bash: source it, or put it where bash-completion looks\n"
                 "_nncoord() {\n"
                 "    local current=\"${COMP_WORDS[COMP_CWORD]}\"\n"
                 "    local previous=\"${COMP_WORDS[COMP_CWORD - 1]}\"\n"
                 "    case \"$previous\" in\n");
    bash_values(out);
    fprintf(out, "        --config) COMPREPLY=($(compgen -f -- \"$current\")); return ;;\n"
                 "        --print-completion) COMPREPLY=($(compgen -W \"bash zsh fish\" -- "
                 "\"$current\")); return ;;\n");
    print_subverb_cases(
        out, "        %s) COMPREPLY=($(compgen -f -W \"%s\" -- \"$current\")); return ;;\n");
    fprintf(out, "    esac\n    if [[ $current == -* ]]; then\n        COMPREPLY=($(compgen -W \"");
    for (size_t row = 0; row < nnc_config_option_count; row++) {
        const struct nnc_option *option = &nnc_config_options[row];
        fprintf(out, "--%s ", option->name);
        if (option->type == NNC_OPTION_BOOL) {
            fprintf(out, "--no-%s ", option->name);
        }
    }
    fprintf(out, "--config --help --version --print-completion\" -- \"$current\"))\n"
                 "    elif ((COMP_CWORD == 1)); then\n        COMPREPLY=($(compgen -f -W \"");
    print_verbs(out);
    fprintf(out, "\" -- \"$current\"))\n    else\n"
                 "        COMPREPLY=($(compgen -f -- \"$current\"))\n    fi\n}\n"
                 "complete -o filenames -F _nncoord nncoord\n");
}

/* Text inside '...' of a shell, without characters that mean something to zsh's _arguments. */
static void quoted(FILE *out, const char *text) {
    for (; *text != '\0'; text++) {
        if (strchr("'[]:`\\", *text) == NULL) {
            fputc(*text, out);
        } else {
            fputc(' ', out);
        }
    }
}

static void zsh_option(FILE *out, const struct nnc_option *option, const char *name) {
    char value[TEXT_BYTES], words[TEXT_BYTES];
    nnc_config_value_name(option, value, sizeof(value));
    choice_words(option, words, sizeof(words));
    fprintf(out, "        '%s%s[", name, value[0] != '\0' && name[1] == '-' ? "=" : "");
    quoted(out, option->help);
    fprintf(out, "]");
    if (value[0] != '\0') {
        fprintf(out, ":value:%s%s%s",
                words[0] != '\0'     ? "("
                : names_files(value) ? "_files"
                                     : "",
                words, words[0] != '\0' ? ")" : "");
    }
    fprintf(out, "' \\\n");
}

static void write_zsh(FILE *out) {
    fprintf(out, "#compdef nncoord\n"
                 "# nncoord completion for zsh: a file _nncoord in $fpath\n"
                 "_nncoord() {\n    _arguments \\\n");
    for (size_t row = 0; row < nnc_config_option_count; row++) {
        const struct nnc_option *option = &nnc_config_options[row];
        char name[TEXT_BYTES];
        snprintf(name, sizeof(name), "--%s", option->name);
        zsh_option(out, option, name);
        if (option->type == NNC_OPTION_BOOL) {
            snprintf(name, sizeof(name), "--no-%s", option->name);
            zsh_option(out, option, name);
        }
        if (option->flag != 0) {
            snprintf(name, sizeof(name), "-%c", option->flag);
            zsh_option(out, option, name);
        }
    }
    fprintf(out,
            "        '--config=[YAML file of options, or a recipe]:file:_files' \\\n"
            "        '--help[print help]' '--version[print the version]' \\\n"
            "        '--print-completion=[print a completion script]:shell:(bash zsh fish)' \\\n"
            "        '1:verb:(");
    print_verbs(out);
    fprintf(out, ")' \\\n        '*:file:_files'\n}\n_nncoord \"$@\"\n");
}

static void write_fish(FILE *out) {
    fprintf(out, "# nncoord completion for fish: ~/.config/fish/completions/nncoord.fish\n"
                 "complete -c nncoord -n __fish_use_subcommand -a '");
    print_verbs(out);
    fprintf(out, "'\n");
    print_subverb_cases(out, "complete -c nncoord -n '__fish_seen_subcommand_from %s' -a '%s'\n");
    for (size_t row = 0; row < nnc_config_option_count; row++) {
        const struct nnc_option *option = &nnc_config_options[row];
        char value[TEXT_BYTES], words[TEXT_BYTES];
        nnc_config_value_name(option, value, sizeof(value));
        choice_words(option, words, sizeof(words));
        fprintf(out, "complete -c nncoord -l %s", option->name);
        if (option->flag != 0) {
            fprintf(out, " -s %c", option->flag);
        }
        if (value[0] != '\0') {
            fprintf(out, names_files(value) ? " -r -F" : " -x");
        }
        if (words[0] != '\0') {
            fprintf(out, " -a '%s'", words);
        }
        fprintf(out, " -d '");
        quoted(out, option->help);
        fprintf(out, "'\n");
        if (option->type == NNC_OPTION_BOOL) {
            fprintf(out, "complete -c nncoord -l no-%s\n", option->name);
        }
    }
    fprintf(out, "complete -c nncoord -l config -r -F -d 'YAML file of options, or a recipe'\n"
                 "complete -c nncoord -l help -s h -d 'print help'\n"
                 "complete -c nncoord -l version -s V -d 'print the version'\n"
                 "complete -c nncoord -l print-completion -x -a 'bash zsh fish'\n");
}

int nnc_config_write_completion(FILE *out, const char *shell) {
    static const struct {
        const char *name;
        void (*write)(FILE *out);
    } shells[] = {{"bash", write_bash}, {"zsh", write_zsh}, {"fish", write_fish}};
    for (size_t row = 0; row < sizeof(shells) / sizeof(shells[0]); row++) {
        if (strcmp(shells[row].name, shell) == 0) {
            shells[row].write(out);
            return 0;
        }
    }
    return nnc_fail(-NNC_E_USAGE, "--print-completion: \"%.40s\" is none of bash, zsh, fish",
                    shell);
}
