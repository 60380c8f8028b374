/* SPDX-License-Identifier: Apache-2.0 */
/* The launchers' variables -> place -> configuration.
 *
 * Each process is a coordinator, so the launcher's ranks are our nodes. Where it starts several on
 * one machine (torchrun --nproc-per-node 8), each takes the GPU of its local rank; on CPUs each has
 * the trainers of --cpu-ranks.
 *
 * Where the nodes meet:
 *   torchrun  MASTER_ADDR, but not at MASTER_PORT: with TORCHELASTIC_USE_AGENT_STORE=True, which is
 *             its default, torchrun's own agent listens there, on all addresses, for as long as its
 *             processes run. Then it is the port after it, which is free unless somebody happens to
 *             have it (--rdzv-endpoint names another).
 *   Slurm     the first host of the step, which has task 0. All tasks must come to the same port
 *             without talking: 15000 + (job + step) % 10000, which is below the ports that systems
 *             give away by themselves and keeps neighbours apart.
 *
 * Invariants: a variable is another program's text and checked as such; what the user gives wins;
 * one process is no run over several machines, whatever else is set.
 *
 * Source: torch/distributed/run.py, torch/distributed/elastic (local_elastic_agent.py: variables;
 * torch/distributed/rendezvous.py: agent store); srun(1), "OUTPUT ENVIRONMENT VARIABLES". */
#include "coordinator/launcher.h"

#include "base/endpoint.h"
#include "base/err.h"
#include "base/log.h"
#include "base/text.h"
#include "ipc/gpus.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    SHOWN_BYTES = 64,
    PORT_FIRST = 15000, /* of Slurm's steps */
    PORT_COUNT = 10000,
};

#define DIGITS    "0123456789"
#define BIT(word) (1u << (word))

const struct nnc_launcher nnc_launchers[] = {
    {
        .name = "torchrun",
        .variables =
            {
                [NNC_LAUNCHER_SIZE] = {"WORLD_SIZE"},
                [NNC_LAUNCHER_RANK] = {"RANK"},
                [NNC_LAUNCHER_LOCAL_SIZE] = {"LOCAL_WORLD_SIZE"},
                [NNC_LAUNCHER_LOCAL_RANK] = {"LOCAL_RANK"},
                [NNC_LAUNCHER_HOST] = {"MASTER_ADDR"},
                [NNC_LAUNCHER_PORT] = {"MASTER_PORT"},
                [NNC_LAUNCHER_ID] = {"TORCHELASTIC_RUN_ID"},
                [NNC_LAUNCHER_AGENT] = {"TORCHELASTIC_USE_AGENT_STORE"},
            },
        /* All of them: batch scripts set some of the names for purposes of their own. */
        .present = BIT(NNC_LAUNCHER_SIZE) | BIT(NNC_LAUNCHER_RANK) | BIT(NNC_LAUNCHER_LOCAL_SIZE) |
                   BIT(NNC_LAUNCHER_LOCAL_RANK) | BIT(NNC_LAUNCHER_HOST) | BIT(NNC_LAUNCHER_PORT),
    },
    {
        .name = "Slurm",
        .variables =
            {
                [NNC_LAUNCHER_STEP] = {"SLURM_STEP_ID"},
                [NNC_LAUNCHER_SIZE] = {"SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"},
                [NNC_LAUNCHER_RANK] = {"SLURM_PROCID"},
                [NNC_LAUNCHER_LOCAL_RANK] = {"SLURM_LOCALID"},
                [NNC_LAUNCHER_MACHINES] = {"SLURM_STEP_NUM_NODES", "SLURM_NNODES"},
                [NNC_LAUNCHER_HOST] = {"SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST"},
                [NNC_LAUNCHER_ID] = {"SLURM_JOB_ID"},
            },
        /* A batch script has SLURM_PROCID and the job's SLURM_NTASKS too, but it is no step. */
        .present = BIT(NNC_LAUNCHER_STEP) | BIT(NNC_LAUNCHER_SIZE),
        .lists_hosts = true,
    },
    {.name = NULL},
};

/* What a launcher said, checked. */
struct place {
    const struct nnc_launcher *launcher;
    uint32_t size, rank, local_rank;
    bool has_neighbours; /* more processes on this machine */
    uint32_t job, step;  /* where hosts are listed */
};

/* The variable that says it: the one that is set, else the usual one. NULL: none can. */
static const char *variable_of(const struct nnc_launcher *launcher, enum nnc_launcher_word word) {
    const char *const *names = launcher->variables[word];
    bool second = names[0] != NULL && nnc_env(names[0]) == NULL && names[1] != NULL &&
                  nnc_env(names[1]) != NULL;
    return names[second];
}

static const char *value_of(const struct nnc_launcher *launcher, enum nnc_launcher_word word) {
    const char *name = variable_of(launcher, word);
    return name != NULL ? nnc_env(name) : NULL;
}

static bool is_present(const struct nnc_launcher *launcher) {
    for (unsigned word = 0; word < NNC_LAUNCHER_WORDS; word++) {
        bool is_needed = (launcher->present & BIT(word)) != 0;
        if (is_needed && value_of(launcher, (enum nnc_launcher_word)word) == NULL) {
            return false;
        }
    }
    return true;
}

static int fail_word(const struct place *place, enum nnc_launcher_word word, const char *want) {
    const char *value = value_of(place->launcher, word);
    char shown[SHOWN_BYTES] = "";
    if (value != NULL) {
        nnc_text_escape(value, shown, sizeof(shown));
    }
    return nnc_fail(
        -NNC_E_USAGE, "%s: %s is %s%s%s, not %s; --nnodes 1 trains on this machine alone",
        place->launcher->name, variable_of(place->launcher, word), value != NULL ? "\"" : "",
        value != NULL ? shown : "not set", value != NULL ? "\"" : "", want);
}

/* A whole number from min to max. */
static int read_number(const struct place *place, enum nnc_launcher_word word, uint32_t min,
                       uint32_t max, uint32_t *ret_number) {
    const char *value = value_of(place->launcher, word);
    size_t digits = value != NULL ? strspn(value, DIGITS) : 0;
    bool is_number = digits >= 1 && digits <= 10 && value[digits] == '\0';
    unsigned long long number = is_number ? strtoull(value, NULL, 10) : 0;
    if (!is_number || number < min || number > max) {
        char want[64];
        snprintf(want, sizeof(want), "a number from %" PRIu32 " to %" PRIu32, min, max);
        return fail_word(place, word, want);
    }
    *ret_number = (uint32_t)number;
    return 0;
}

/* How many processes share this machine; of launchers that do not tell, whether there are several
 * somewhere, for all of them must choose their GPUs in the same way. */
static int read_neighbours(struct place *place) {
    enum nnc_launcher_word word = NNC_LAUNCHER_LOCAL_SIZE;
    uint32_t local_size = place->size, machines;
    int code;
    if (place->launcher->variables[word][0] != NULL) {
        code = read_number(place, word, 1, place->size, &local_size);
        place->has_neighbours = local_size > 1;
    } else {
        code = read_number(place, NNC_LAUNCHER_MACHINES, 1, UINT32_MAX, &machines);
        place->has_neighbours = code == 0 && place->size > machines;
    }
    return code < 0
               ? code
               : read_number(place, NNC_LAUNCHER_LOCAL_RANK, 0, local_size - 1, &place->local_rank);
}

static int read_place(const struct nnc_launcher *launcher, struct place *ret_place) {
    struct place place = {.launcher = launcher};
    int code = read_number(&place, NNC_LAUNCHER_SIZE, 1, NNC_MAX_NODES, &place.size);
    if (code == 0 && place.size > 1) {
        code = read_number(&place, NNC_LAUNCHER_RANK, 0, place.size - 1, &place.rank);
        code = code < 0 ? code : read_neighbours(&place);
    }
    if (code == 0 && place.size > 1 && launcher->lists_hosts) {
        code = read_number(&place, NNC_LAUNCHER_ID, 0, UINT32_MAX, &place.job);
        code = code < 0 ? code : read_number(&place, NNC_LAUNCHER_STEP, 0, UINT32_MAX, &place.step);
    }
    if (code < 0) {
        return code;
    }
    *ret_place = place;
    return 0;
}

int nnc_launcher_first_host(const char *list, char *ret_host, size_t room) {
    size_t used = 0;
    const char *at = list;
    while (*at != '\0' && *at != ',') {
        size_t length = 1;
        const char *from = at;
        if (*at == '[') {
            from = at + 1;
            length = strspn(from, DIGITS);
            const char *end = strchr(from, ']');
            if (length == 0 || end == NULL || strchr("-,]", from[length]) == NULL) {
                return -NNC_E_FORMAT;
            }
            at = end;
        }
        if (length >= room - used) {
            return -NNC_E_FORMAT;
        }
        memcpy(ret_host + used, from, length);
        used += length;
        at++;
    }
    ret_host[used] = '\0';
    return used > 0 ? 0 : -NNC_E_FORMAT;
}

/* Host and port where node 0 listens, as text of --rdzv-endpoint. */
static int find_endpoint(const struct place *place, char ret_text[NNC_ENDPOINT_MAX]) {
    const char *value = value_of(place->launcher, NNC_LAUNCHER_HOST);
    struct nnc_endpoint endpoint = {.port = 0};
    char text[NNC_ENDPOINT_MAX];
    uint32_t port = 0;
    bool fits = value != NULL;
    if (fits && place->launcher->lists_hosts) {
        fits = nnc_launcher_first_host(value, endpoint.host, sizeof(endpoint.host)) == 0;
        uint64_t number = (uint64_t)place->job + place->step;
        port = PORT_FIRST + (uint32_t)(number % PORT_COUNT);
    } else if (fits) {
        fits = strlen(value) < sizeof(endpoint.host);
        snprintf(endpoint.host, sizeof(endpoint.host), "%s", value);
        const char *agent = value_of(place->launcher, NNC_LAUNCHER_AGENT);
        bool is_taken = agent != NULL && strcmp(agent, "True") == 0;
        int code = read_number(place, NNC_LAUNCHER_PORT, 1, UINT16_MAX, &port);
        if (code < 0) {
            return code;
        }
        port = !is_taken ? port : port < UINT16_MAX ? port + 1 : port - 1;
    }
    endpoint.port = (uint16_t)port;
    nnc_endpoint_print(&endpoint, text);
    if (!fits || nnc_endpoint_parse(text, &endpoint) < 0) {
        return fail_word(place, NNC_LAUNCHER_HOST, "the name or address of a machine");
    }
    memcpy(ret_text, text, sizeof(text));
    return 0;
}

/* Slurm's own notation for a step, since a job may have several at a time. */
static int find_id(const struct place *place, char ret_id[NNC_NAME_MAX]) {
    const char *value = value_of(place->launcher, NNC_LAUNCHER_ID);
    if (place->launcher->lists_hosts) {
        snprintf(ret_id, NNC_NAME_MAX, "%" PRIu32 ".%" PRIu32, place->job, place->step);
        return 0;
    }
    if (value == NULL) {
        return 0;
    }
    bool is_plain = strlen(value) < NNC_NAME_MAX;
    for (const char *at = value; *at != '\0'; at++) {
        is_plain = is_plain && *at > ' ' && *at <= '~';
    }
    if (!is_plain) {
        return fail_word(place, NNC_LAUNCHER_ID,
                         "at most 63 printable ASCII characters without spaces (--rdzv-id names "
                         "the run otherwise)");
    }
    snprintf(ret_id, NNC_NAME_MAX, "%s", value);
    return 0;
}

/* Slurm may show each task its own GPU alone (--gpus-per-task), which then has number 0. */
static bool sees_one_gpu(const struct place *place) {
    const char *visible = nnc_env("CUDA_VISIBLE_DEVICES");
    return place->launcher->lists_hosts && visible != NULL && strchr(visible, ',') == NULL;
}

/* The GPU of this process: of a list the one at the local rank, else the one with its number. */
static int choose_gpu(const struct place *place, struct nnc_config *config) {
    const char *gpus = config->gpus;
    unsigned long number = sees_one_gpu(place) ? 0 : place->local_rank;
    unsigned long count = strspn(gpus, DIGITS) > 0 ? strtoul(gpus, NULL, 10) : NNC_MAX_RANKS;
    if (strchr(gpus, ',') != NULL) {
        char *end;
        number = strtoul(gpus, &end, 10);
        for (count = 1; *end == ',' && end[1] != '\0'; count++) {
            unsigned long next = strtoul(end + 1, &end, 10);
            number = count == place->local_rank ? next : number;
        }
    }
    /* --gpus 1 is understood as one for each process. */
    bool is_each = strcmp(gpus, "1") == 0;
    if (!is_each && place->local_rank >= count) {
        return nnc_fail(-NNC_E_USAGE,
                        "%s: %s is %" PRIu32 ", but --gpus %s has no device for it: it names %lu, "
                        "and each process of a machine takes one",
                        place->launcher->name,
                        variable_of(place->launcher, NNC_LAUNCHER_LOCAL_RANK), place->local_rank,
                        gpus, count);
    }
    snprintf(config->gpus, sizeof(config->gpus), "%lu,", number);
    return 0;
}

static int take_place(const struct place *place, struct nnc_command *command) {
    struct nnc_config *config = &command->config;
    char endpoint[NNC_ENDPOINT_MAX] = "", id[NNC_NAME_MAX] = "";
    int code = command->given.endpoint ? 0 : find_endpoint(place, endpoint);
    if (code == 0 && !command->given.id) {
        code = find_id(place, id);
    }
    bool has_gpu =
        place->has_neighbours && nnc_gpus_wanted(config) && strcmp(config->gpus, "0") != 0;
    if (code == 0 && has_gpu) {
        code = choose_gpu(place, config);
    }
    if (code < 0) {
        return code;
    }
    config->nnodes = place->size;
    config->node_rank = place->rank;
    if (!command->given.endpoint) {
        memcpy(config->rdzv_endpoint, endpoint, sizeof(endpoint));
    }
    if (!command->given.id) {
        memcpy(config->rdzv_id, id, sizeof(id));
    }
    char device[32] = "";
    if (has_gpu) {
        snprintf(device, sizeof(device), " on GPU %d", atoi(config->gpus));
    }
    nnc_log(NNC_LOG_INFO, "%s: rank %" PRIu32 " of %" PRIu32 "%s, run %s, meeting at %s",
            place->launcher->name, place->rank, place->size, device,
            config->rdzv_id[0] != '\0' ? config->rdzv_id : "unnamed", config->rdzv_endpoint);
    return 0;
}

/* RANK and WORLD_SIZE alone are what many a batch script sets. Each process would train for itself,
 * and nobody would know why. */
static void warn_of_half(const struct nnc_launcher *launcher) {
    const char *size = value_of(launcher, NNC_LAUNCHER_SIZE);
    bool is_half = size != NULL && strcmp(size, "1") != 0 &&
                   value_of(launcher, NNC_LAUNCHER_RANK) != NULL && !is_present(launcher);
    for (unsigned word = 0; word < NNC_LAUNCHER_WORDS && is_half; word++) {
        const char *name = launcher->variables[word][0];
        if ((launcher->present & BIT(word)) != 0 && nnc_env(name) == NULL) {
            nnc_log(NNC_LOG_WARN,
                    "%s and %s are set but %s is not, so no %s started this: say --nnodes and "
                    "--node-rank, or --nnodes 1",
                    variable_of(launcher, NNC_LAUNCHER_RANK),
                    variable_of(launcher, NNC_LAUNCHER_SIZE), name, launcher->name);
            return;
        }
    }
}

/* Take the place that a launcher gives: 1, or 0 when none started this. */
static int ask_launchers(struct nnc_command *command) {
    for (const struct nnc_launcher *launcher = nnc_launchers; launcher->name != NULL; launcher++) {
        struct place place;
        if (!is_present(launcher)) {
            continue;
        }
        int code = read_place(launcher, &place);
        if (code == 0 && place.size > 1) {
            code = take_place(&place, command);
        }
        return code < 0 ? code : 1;
    }
    warn_of_half(&nnc_launchers[0]);
    return 0;
}

int nnc_launcher_apply(struct nnc_command *command) {
    bool meets = strcmp(command->verb, "train") == 0 ||
                 (strcmp(command->verb, "bench") == 0 && strcmp(command->subverb, "comm") == 0);
    if (!meets) {
        return 0;
    }
    bool is_placed = command->given.nnodes || command->given.node_rank;
    int code = is_placed ? 0 : ask_launchers(command);
    if (code == 0) {
        code = nnc_config_check_place(command);
    }
    return code < 0 ? code : nnc_config_check_machines(&command->config);
}
