/* SPDX-License-Identifier: Apache-2.0 */
/* The variables that torchrun and srun set, as rows: what a configuration becomes, which of them
 * are wrong, and what a user says all the same. The good rows have what torchrun 2.x and Slurm 23
 * set. */
#include "coordinator/launcher.h"

#include "base/err.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TORCHRUN                                                                                   \
    "GROUP_RANK=0 GROUP_WORLD_SIZE=1 ROLE_RANK=0 ROLE_WORLD_SIZE=2 TORCHELASTIC_MAX_RESTARTS=0 "   \
    "TORCHELASTIC_RESTART_COUNT=0 "
#define WORKER TORCHRUN "RANK=1 LOCAL_RANK=1 WORLD_SIZE=2 LOCAL_WORLD_SIZE=2 MASTER_ADDR=localhost "
#define STANDALONE                                                                                 \
    WORKER                                                                                         \
    "MASTER_PORT=33859 TORCHELASTIC_USE_AGENT_STORE=True "                                         \
    "TORCHELASTIC_RUN_ID=141c6859-0948-4fb9-b7ee-1d8e5353b208 "
/* A batch script, and a task of its step. */
#define JOB                                                                                        \
    "SLURM_JOB_ID=200505 SLURM_NNODES=4 SLURM_JOB_NODELIST=gnode[10,20,25,37] SLURM_NTASKS=4 "
#define BATCH JOB "SLURM_PROCID=0 SLURM_LOCALID=0 SLURM_NODEID=0 "
#define STEP  JOB "SLURM_STEP_ID=3 SLURM_STEP_NODELIST=gnode[20,25] SLURM_STEP_NUM_NODES=2 "
#define TASK  STEP "SLURM_STEP_NUM_TASKS=2 SLURM_PROCID=1 SLURM_LOCALID=0 SLURM_NODEID=1 "
#define CROWD STEP "SLURM_STEP_NUM_TASKS=4 SLURM_PROCID=3 SLURM_LOCALID=1 SLURM_NODEID=1 "

/* Nothing of the shell that runs the test. */
static void clear(void) {
    for (const struct nnc_launcher *launcher = nnc_launchers; launcher->name != NULL; launcher++) {
        for (int word = 0; word < NNC_LAUNCHER_WORDS; word++) {
            for (int which = 0; which < 2; which++) {
                const char *name = launcher->variables[word][which];
                if (name != NULL) {
                    unsetenv(name);
                }
            }
        }
    }
    unsetenv("CUDA_VISIBLE_DEVICES");
}

/* Set "NAME=VALUE NAME=VALUE": the last of a name counts, and an empty value unsets. */
static void set(const char *assignments) {
    char copy[2048];
    cr_assert_lt(snprintf(copy, sizeof(copy), "%s", assignments), (int)sizeof(copy));
    char *rest = copy;
    for (char *word; (word = strsep(&rest, " ")) != NULL;) {
        char *value = strchr(word, '=');
        if (value != NULL) {
            *value = '\0';
            setenv(word, value + 1, 1);
        }
    }
}

/* Apply the launchers to the command line `nncoord LINE`. */
static int apply(const char *assignments, const char *line, struct nnc_command *ret_command) {
    char words[512];
    char *argv[64];
    int argc = 0;
    bool done;
    clear();
    set(assignments);
    snprintf(words, sizeof(words), "nncoord %s", line);
    char *rest = words;
    for (char *word; (word = strsep(&rest, " ")) != NULL;) {
        argv[argc++] = word;
    }
    argv[argc] = NULL;
    cr_assert_eq(nnc_command_parse(argc, argv, NULL, ret_command, &done), 0, "%s",
                 nnc_error_text());
    return nnc_launcher_apply(ret_command);
}

struct row {
    const char *variables, *line;
    uint32_t nnodes, node_rank;
    const char *endpoint, *id, *gpus;
};

static void check(const struct row *rows, size_t count) {
    for (size_t i = 0; i < count; i++) {
        const struct row *row = &rows[i];
        struct nnc_command command;
        cr_assert_eq(apply(row->variables, row->line, &command), 0, "row %zu: %s", i,
                     nnc_error_text());
        const struct nnc_config *config = &command.config;
        cr_expect_eq(config->nnodes, row->nnodes, "row %zu: %u", i, config->nnodes);
        cr_expect_eq(config->node_rank, row->node_rank, "row %zu: %u", i, config->node_rank);
        cr_expect_str_eq(config->rdzv_endpoint, row->endpoint, "row %zu: %s", i,
                         config->rdzv_endpoint);
        cr_expect_str_eq(config->rdzv_id, row->id, "row %zu: %s", i, config->rdzv_id);
        cr_expect_str_eq(config->gpus, row->gpus, "row %zu: %s", i, config->gpus);
    }
}

#define CHECK(rows) check(rows, sizeof(rows) / sizeof((rows)[0]))

Test(launcher, torchrun_says_the_place_and_the_port_beside_its_agents_is_taken) {
    static const char uuid[] = "141c6859-0948-4fb9-b7ee-1d8e5353b208";
    static const struct row rows[] = {
        {STANDALONE, "train d --rdzv-secret s", 2, 1, "localhost:33860", uuid, ""},
        {STANDALONE "MASTER_PORT=65535", "train d --rdzv-secret s", 2, 1, "localhost:65534", uuid,
         ""},
        {STANDALONE "TORCHELASTIC_USE_AGENT_STORE=False", "train d --rdzv-secret s", 2, 1,
         "localhost:33859", uuid, ""},
        {WORKER "MASTER_PORT=29500", "train d --rdzv-secret s", 2, 1, "localhost:29500", "", ""},
        {STANDALONE "MASTER_ADDR=fd00::7 TORCHELASTIC_RUN_ID=none", "train d --rdzv-secret s", 2, 1,
         "[fd00::7]:33860", "none", ""},
        {STANDALONE "RANK=63 WORLD_SIZE=64", "train d --rdzv-secret s", 64, 63, "localhost:33860",
         uuid, ""},
    };
    CHECK(rows);
}

Test(launcher, several_processes_of_a_machine_take_one_gpu_each) {
    static const struct row rows[] = {
        {STANDALONE "TORCHELASTIC_RUN_ID=x", "train d --rdzv-secret s --gpus all", 2, 1,
         "localhost:33860", "x", "1,"},
        {STANDALONE "TORCHELASTIC_RUN_ID=x", "train d --rdzv-secret s --gpus 2", 2, 1,
         "localhost:33860", "x", "1,"},
        {STANDALONE "TORCHELASTIC_RUN_ID=x", "train d --rdzv-secret s --gpus 1", 2, 1,
         "localhost:33860", "x", "1,"},
        {STANDALONE "TORCHELASTIC_RUN_ID=x", "train d --rdzv-secret s --gpus 4,5,6,7", 2, 1,
         "localhost:33860", "x", "5,"},
        {STANDALONE "TORCHELASTIC_RUN_ID=x LOCAL_RANK=0", "train d --rdzv-secret s --gpus 4,5", 2,
         1, "localhost:33860", "x", "4,"},
        {STANDALONE "TORCHELASTIC_RUN_ID=x", "train d --rdzv-secret s --backend cuda", 2, 1,
         "localhost:33860", "x", "1,"},
        {STANDALONE "TORCHELASTIC_RUN_ID=x", "train d --rdzv-secret s --gpus 0", 2, 1,
         "localhost:33860", "x", "0"},
        {STANDALONE "TORCHELASTIC_RUN_ID=x LOCAL_RANK=0 LOCAL_WORLD_SIZE=1",
         "train d --rdzv-secret s --gpus 8", 2, 1, "localhost:33860", "x", "8"},
        {CROWD, "train d --rdzv-secret s --gpus all", 4, 3, "gnode20:15508", "200505.3", "1,"},
        {CROWD "CUDA_VISIBLE_DEVICES=0", "train d --rdzv-secret s --gpus 1", 4, 3, "gnode20:15508",
         "200505.3", "0,"},
        {CROWD "CUDA_VISIBLE_DEVICES=2,3", "train d --rdzv-secret s --gpus 2", 4, 3,
         "gnode20:15508", "200505.3", "1,"},
        {TASK, "train d --rdzv-secret s --gpus all", 2, 1, "gnode20:15508", "200505.3", "all"},
    };
    CHECK(rows);
}

Test(launcher, slurm_says_the_place_within_a_step_alone) {
    static const struct row rows[] = {
        {TASK, "train d --rdzv-secret s", 2, 1, "gnode20:15508", "200505.3", ""},
        {TASK "SLURM_STEP_NODELIST= SLURM_STEP_NUM_TASKS= SLURM_STEP_NUM_NODES=",
         "train d --rdzv-secret s", 4, 1, "gnode10:15508", "200505.3", ""},
        {TASK "SLURM_JOB_ID=4294967295 SLURM_STEP_ID=9", "train d --rdzv-secret s", 2, 1,
         "gnode20:22304", "4294967295.9", ""},
        {BATCH, "train d", 1, 0, "", "", ""},
        {TASK "SLURM_STEP_NUM_TASKS=1 SLURM_PROCID=0", "train d", 1, 0, "", "", ""},
        /* The innermost launcher counts. */
        {TASK STANDALONE "TORCHELASTIC_RUN_ID=x", "train d --rdzv-secret s", 2, 1,
         "localhost:33860", "x", ""},
        {TASK STANDALONE "WORLD_SIZE=1 RANK=0 LOCAL_RANK=0 LOCAL_WORLD_SIZE=1", "train d", 1, 0, "",
         "", ""},
    };
    CHECK(rows);
}

Test(launcher, what_the_user_says_wins) {
    static const struct row rows[] = {
        {STANDALONE, "train d --nnodes 1", 1, 0, "", "", ""},
        {STANDALONE, "train d --node-rank 0", 1, 0, "", "", ""},
        {STANDALONE "NNCOORD_NNODES=1", "train d --gpus 2", 1, 0, "", "", "2"},
        {STANDALONE "NNCOORD_NNODES=", "eval d --resume r", 1, 0, "", "", ""},
        {STANDALONE "MASTER_ADDR=!! MASTER_PORT=x TORCHELASTIC_RUN_ID=\x01",
         "train d --rdzv-secret s --rdzv-endpoint h --rdzv-id mine", 2, 1, "h", "mine", ""},
        {TASK "SLURM_STEP_NODELIST=[", "train d --rdzv-secret s --rdzv-endpoint h:1", 2, 1, "h:1",
         "200505.3", ""},
        {TASK "NNCOORD_RDZV_ID=env", "train d --rdzv-secret s", 2, 1, "gnode20:15508", "env", ""},
        {"NNCOORD_RDZV_ID= ", "train d", 1, 0, "", "", ""},
    };
    CHECK(rows);
}

Test(launcher, one_process_may_be_given_what_several_need) {
    static const struct row rows[] = {
        {TASK "SLURM_STEP_NUM_TASKS=1 SLURM_PROCID=0", "train d --rdzv-secret s", 1, 0, "", "", ""},
        {STANDALONE "WORLD_SIZE=1 RANK=0 LOCAL_RANK=0 LOCAL_WORLD_SIZE=1",
         "bench comm --rdzv-secret s --rdzv-id x", 1, 0, "", "x", ""},
    };
    CHECK(rows);
}

Test(launcher, without_one_nobody_trains_alone_or_waits_by_oversight) {
    static const struct {
        const char *variables, *line, *want;
    } rows[] = {
        {"", "train d --rdzv-endpoint h --rdzv-secret s", "--rdzv-endpoint has no effect"},
        {BATCH, "train d --rdzv-secret s", "--rdzv-secret has no effect"},
        {STANDALONE "RANK=", "train d --rdzv-secret s", "--rdzv-secret has no effect"},
        {STANDALONE, "train d --nnodes 1 --rdzv-endpoint h", "--rdzv-endpoint has no effect"},
        {"", "bench comm --nnodes 2 --rdzv-endpoint h --rdzv-secret s", "needs --node-rank"},
        {TASK, "train d --nnodes 2 --rdzv-endpoint h --rdzv-secret s", "needs --node-rank"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct nnc_command command;
        cr_expect_eq(apply(rows[i].variables, rows[i].line, &command), -NNC_E_USAGE, "row %zu", i);
        cr_expect(strstr(nnc_error_text(), rows[i].want) != NULL, "row %zu: %s\n  said: %s", i,
                  rows[i].want, nnc_error_text());
    }
}

Test(launcher, half_a_launcher_is_none) {
    static const char *const names[] = {"RANK",       "LOCAL_RANK",  "LOCAL_WORLD_SIZE",
                                        "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        char variables[1024];
        struct nnc_command command;
        snprintf(variables, sizeof(variables), "%s%s=", STANDALONE, names[i]);
        cr_assert_eq(apply(variables, "train d", &command), 0, "%s", nnc_error_text());
        cr_expect_eq(command.config.nnodes, 1, "%s", names[i]);
    }
}

Test(launcher, wrong_values_are_refused_by_the_variables_name) {
    static const struct {
        const char *variables, *line, *want;
    } rows[] = {
        {STANDALONE "RANK=2", "", "torchrun: RANK is \"2\", not a number from 0 to 1"},
        {STANDALONE "RANK=-1", "", "torchrun: RANK is \"-1\""},
        {STANDALONE "RANK=1x", "", "torchrun: RANK is \"1x\""},
        {STANDALONE "RANK=18446744073709551617", "", "torchrun: RANK is"},
        {STANDALONE "RANK=\x1b[2J", "", "RANK is \"\\x1b[2J\""},
        {STANDALONE "WORLD_SIZE=65", "", "WORLD_SIZE is \"65\", not a number from 1 to 64"},
        {STANDALONE "WORLD_SIZE=0", "", "WORLD_SIZE is \"0\""},
        {STANDALONE "WORLD_SIZE=two", "", "--nnodes 1 trains on this machine alone"},
        {STANDALONE "LOCAL_WORLD_SIZE=3", "", "LOCAL_WORLD_SIZE is \"3\""},
        {STANDALONE "LOCAL_RANK=2", "", "LOCAL_RANK is \"2\""},
        {STANDALONE "MASTER_PORT=0", "", "MASTER_PORT is \"0\", not a number from 1 to 65535"},
        {STANDALONE "MASTER_PORT=65536", "", "MASTER_PORT"},
        {STANDALONE "MASTER_ADDR=a/b", "", "MASTER_ADDR is \"a/b\", not the name or address"},
        {STANDALONE "MASTER_ADDR=]:1", "", "MASTER_ADDR"},
        {STANDALONE "TORCHELASTIC_RUN_ID=\xc3\xa9", "", "TORCHELASTIC_RUN_ID is"},
        {STANDALONE, " --gpus 3,", "torchrun: LOCAL_RANK is 1, but --gpus 3, has no device for it"},
        {STANDALONE "LOCAL_RANK=3 RANK=3 WORLD_SIZE=4 LOCAL_WORLD_SIZE=4", " --gpus 2",
         "it names 2"},
        {TASK "SLURM_PROCID=2", "", "Slurm: SLURM_PROCID is \"2\", not a number from 0 to 1"},
        {TASK "SLURM_PROCID=", "", "Slurm: SLURM_PROCID is not set, not a number"},
        {TASK "SLURM_STEP_NUM_TASKS=x", "", "SLURM_STEP_NUM_TASKS is \"x\""},
        {TASK "SLURM_STEP_NUM_TASKS= SLURM_NTASKS=100", "", "SLURM_NTASKS is \"100\""},
        {TASK "SLURM_STEP_NUM_NODES=0", "", "SLURM_STEP_NUM_NODES"},
        {TASK "SLURM_LOCALID=2", "", "SLURM_LOCALID"},
        {TASK "SLURM_STEP_ID=-5", "", "SLURM_STEP_ID"},
        {TASK "SLURM_JOB_ID=4294967296", "", "SLURM_JOB_ID"},
        {TASK "SLURM_STEP_NODELIST=a[1", "", "SLURM_STEP_NODELIST is \"a[1\""},
        {TASK "SLURM_STEP_NODELIST=a;b", "", "SLURM_STEP_NODELIST"},
        {TASK "SLURM_STEP_NODELIST= SLURM_JOB_NODELIST=", "", "SLURM_STEP_NODELIST is not set"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct nnc_command command;
        char line[128];
        snprintf(line, sizeof(line), "train d --rdzv-secret s%s", rows[i].line);
        cr_expect_eq(apply(rows[i].variables, line, &command), -NNC_E_USAGE, "row %zu", i);
        cr_expect(strstr(nnc_error_text(), rows[i].want) != NULL, "row %zu: %s\n  said: %s", i,
                  rows[i].want, nnc_error_text());
    }
}

Test(launcher, a_launchers_run_needs_a_secret_like_any_other) {
    struct nnc_command command;
    cr_expect_eq(apply(TASK, "train d", &command), -NNC_E_USAGE);
    cr_expect(strstr(nnc_error_text(), "2 machines need --rdzv-secret FILE") != NULL, "%s",
              nnc_error_text());
    cr_expect_eq(apply("", "train d --node-rank 1", &command), -NNC_E_USAGE);
}

Test(launcher, the_first_host_is_read_out_of_any_list) {
    static const struct {
        const char *list, *host; /* NULL: none */
    } rows[] = {
        {"node7", "node7"},
        {"node[003-007,9],x", "node003"},
        {"node[9]", "node9"},
        {"x,node[1-2]", "x"},
        {"rack[0-1]node[08-11]-ib", "rack0node08-ib"},
        {"", NULL},
        {",a", NULL},
        {"node[", NULL},
        {"node[]", NULL},
        {"node[-3]", NULL},
        {"node[a]", NULL},
        {"node[3", NULL},
        {"node[3,", NULL},
        {"node[1;2]", NULL},
    };
    char host[16];
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        int code = nnc_launcher_first_host(rows[i].list, host, sizeof(host));
        cr_expect_eq(code, rows[i].host != NULL ? 0 : -NNC_E_FORMAT, "%s", rows[i].list);
        cr_expect(code != 0 || strcmp(host, rows[i].host) == 0, "%s: %s", rows[i].list, host);
    }
    cr_expect_eq(nnc_launcher_first_host("123456789012345", host, sizeof(host)), 0);
    cr_expect_eq(nnc_launcher_first_host("1234567890123456", host, sizeof(host)), -NNC_E_FORMAT);
    cr_expect_eq(nnc_launcher_first_host("123456789012[3456]", host, sizeof(host)), -NNC_E_FORMAT);
}

Test(launcher, the_manual_names_each_variable) {
    static const char *const pages[] = {NNC_TEST_SOURCE_DIR "/docs/nncoord.1",
                                        NNC_TEST_SOURCE_DIR "/docs/options.md"};
    for (size_t page = 0; page < 2; page++) {
        FILE *file = fopen(pages[page], "re");
        cr_assert_not_null(file, "%s", pages[page]);
        char *text = calloc(1, 1 << 20);
        cr_assert_gt(fread(text, 1, (1 << 20) - 1, file), 0);
        fclose(file);
        for (const struct nnc_launcher *row = nnc_launchers; row->name != NULL; row++) {
            for (int word = 0; word < NNC_LAUNCHER_WORDS; word++) {
                const char *name = row->variables[word][0];
                cr_expect(name == NULL || strstr(text, name) != NULL, "%s does not name %s",
                          pages[page], name);
            }
        }
        free(text);
    }
}
