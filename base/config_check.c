/* SPDX-License-Identifier: Apache-2.0 */
/* What the types and ranges of the option table (config.c) cannot say: texts with a form of their
 * own, and options that depend on each other. A row names its check in .check; all run after all
 * layers are laid. Each error is one sentence that names the option and what would work. */
#include "base/config_table.h"

#include "base/endpoint.h"
#include "base/err.h"
#include "base/text.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int nnc_config_check(const struct nnc_config *config) {
    int code = 0;
    for (size_t row = 0; row < nnc_config_option_count && code == 0; row++) {
        if (nnc_config_options[row].check != NULL) {
            code = nnc_config_options[row].check(config);
        }
    }
    return code;
}

int nnc_config_check_channels(const struct nnc_config *config) {
    if (config->channels == 2) {
        return nnc_fail(-NNC_E_USAGE, "--channels must be 1 (grey), 3 (colour) or auto");
    }
    return 0;
}

static bool asks_for_gpus(const struct nnc_config *config) {
    return config->backend == NNC_BACKEND_CUDA ||
           (config->gpus[0] != '\0' && strcmp(config->gpus, "0") != 0);
}

int nnc_config_check_amp(const struct nnc_config *config) {
    bool mixed = config->amp == NNC_AMP_BF16 || config->amp == NNC_AMP_FP16;
    if (mixed && !asks_for_gpus(config)) {
        return nnc_fail(-NNC_E_USAGE,
                        "--amp %s needs a GPU: add --gpus 1, or leave --amp out and "
                        "train on the CPU in fp32",
                        config->amp == NNC_AMP_BF16 ? "bf16" : "fp16");
    }
    return 0;
}

int nnc_config_check_val_crop(const struct nnc_config *config) {
    if (config->val_crop_size > config->val_resize_size) {
        return nnc_fail(-NNC_E_USAGE,
                        "--val-crop-size %u does not fit into --val-resize-size %u: give "
                        "--val-resize-size %u or more",
                        config->val_crop_size, config->val_resize_size, config->val_crop_size);
    }
    return 0;
}

int nnc_config_check_crop_scale(const struct nnc_config *config) {
    if (config->crop_scale_min > config->crop_scale_max) {
        return nnc_fail(-NNC_E_USAGE, "--crop-scale-min %g is above --crop-scale-max %g",
                        config->crop_scale_min, config->crop_scale_max);
    }
    return 0;
}

int nnc_config_check_crop_ratio(const struct nnc_config *config) {
    if (config->crop_ratio_min > config->crop_ratio_max) {
        return nnc_fail(-NNC_E_USAGE, "--crop-ratio-min %g is above --crop-ratio-max %g",
                        config->crop_ratio_min, config->crop_ratio_max);
    }
    return 0;
}

/* A number of at most three digits; -1 when there is none. */
static int read_small(const char **at) {
    size_t digits = strspn(*at, "0123456789");
    if (digits == 0 || digits > 3) {
        return -1;
    }
    int number = atoi(*at);
    *at += digits;
    return number;
}

/* "", "all", a number, or distinct numbers separated by commas; "2," is the list of one. */
static bool is_gpus(const char *text) {
    bool seen[NNC_MAX_RANKS] = {false};
    if (*text == '\0' || strcmp(text, "all") == 0) {
        return true;
    }
    const char *comma = strchr(text, ',');
    if (comma == NULL) {
        int number = read_small(&text);
        return number >= 0 && number <= NNC_MAX_RANKS && *text == '\0';
    }
    bool is_single = comma[1] == '\0';
    for (;; text++) {
        int number = read_small(&text);
        if (number < 0 || number >= NNC_MAX_RANKS || seen[number]) {
            return false;
        }
        seen[number] = true;
        if (*text != ',' || is_single) {
            return *text == '\0' || text == comma;
        }
    }
}

int nnc_config_check_gpus(const struct nnc_config *config) {
    if (!is_gpus(config->gpus)) {
        return nnc_fail(-NNC_E_USAGE,
                        "--gpus \"%s\" is neither a number from 0 to %d nor \"all\" nor a list of "
                        "different devices like 0,2",
                        config->gpus, NNC_MAX_RANKS);
    }
    return 0;
}

int nnc_config_check_endpoint(const struct nnc_config *config) {
    struct nnc_endpoint endpoint;
    int code =
        config->rdzv_endpoint[0] != '\0' ? nnc_endpoint_parse(config->rdzv_endpoint, &endpoint) : 0;
    return code < 0 ? nnc_fail_in(code, "--rdzv-endpoint") : 0;
}

int nnc_config_check_rdzv_id(const struct nnc_config *config) {
    for (const char *at = config->rdzv_id; *at != '\0'; at++) {
        if (*at <= ' ' || *at > '~') {
            return nnc_fail(-NNC_E_USAGE,
                            "--rdzv-id \"%s\" is not of printable ASCII characters without spaces",
                            config->rdzv_id);
        }
    }
    return 0;
}

int nnc_config_check_secret(const struct nnc_config *config) {
    if (nnc_text_looks_secret(config->rdzv_secret)) {
        return nnc_fail(-NNC_E_USAGE,
                        "--rdzv-secret takes a file, not the secret itself, which others can see "
                        "now: make a new one with `(umask 077; openssl rand -hex 32 > FILE)`; a "
                        "file whose name looks like that is given as ./NAME");
    }
    if (strncmp(config->rdzv_secret, "fd:", 3) != 0) {
        return 0;
    }
    const char *number = config->rdzv_secret + 3;
    size_t digits = strspn(number, "0123456789");
    if (digits == 0 || digits > 6 || number[digits] != '\0') {
        return nnc_fail(
            -NNC_E_USAGE,
            "--rdzv-secret \"%s\": after fd: stands the number of an open descriptor; a "
            "file of that name is given as ./%s",
            config->rdzv_secret, config->rdzv_secret);
    }
    return 0;
}

/* Who gives what only several machines need would else train alone, once on each of them. */
static int fail_unused(const char *name) {
    char variable[NNC_NAME_MAX];
    nnc_config_variable(nnc_config_find(name), variable);
    bool is_set = nnc_env(variable) != NULL;
    return nnc_fail(-NNC_E_USAGE,
                    "--%s has no effect on one machine: add --nnodes N --node-rank R%s%s", name,
                    is_set ? ", or unset " : "", is_set ? variable : "");
}

int nnc_config_check_place(const struct nnc_command *command) {
    const struct nnc_config *config = &command->config;
    const struct nnc_config_given *given = &command->given;
    if (config->nnodes == 1 && (given->endpoint || given->secret || given->id)) {
        return fail_unused(given->endpoint ? "rdzv-endpoint"
                           : given->secret ? "rdzv-secret"
                                           : "rdzv-id");
    }
    /* A file may give another number than 0; 0 is what any record of a run has. */
    if (config->nnodes > 1 && !given->node_rank && config->node_rank == 0) {
        return nnc_fail(-NNC_E_USAGE,
                        "--nnodes %" PRIu32 " needs --node-rank: 0 on the machine of "
                        "--rdzv-endpoint, 1 to %" PRIu32 " on the others",
                        config->nnodes, config->nnodes - 1);
    }
    return 0;
}

int nnc_config_check_machines(const struct nnc_config *config) {
    if (config->node_rank >= config->nnodes) {
        return nnc_fail(-NNC_E_USAGE,
                        "--node-rank %" PRIu32 " with --nnodes %" PRIu32
                        ": machines are counted from 0, so the last is %" PRIu32,
                        config->node_rank, config->nnodes, config->nnodes - 1);
    }
    if (config->nnodes > 1 && config->rdzv_endpoint[0] == '\0') {
        return nnc_fail(-NNC_E_USAGE,
                        "--nnodes %" PRIu32
                        " needs --rdzv-endpoint HOST:PORT, an address of machine "
                        "0 that the others reach",
                        config->nnodes);
    }
    if (config->nnodes > 1 && config->rdzv_secret[0] == '\0') {
        return nnc_fail(
            -NNC_E_USAGE,
            "%" PRIu32 " machines need --rdzv-secret FILE, by which they know each other: "
            "make it with `(umask 077; openssl rand -hex 32 > FILE)` and copy it to all",
            config->nnodes);
    }
    return 0;
}

int nnc_config_check_weights(const struct nnc_config *config) {
    if (config->weights[0] != '\0' && config->resume[0] != '\0' &&
        strcmp(config->resume, "auto") != 0) {
        return nnc_fail(-NNC_E_USAGE,
                        "--weights starts from weights alone and --resume continues a whole run: "
                        "give one of them");
    }
    return 0;
}

int nnc_config_check_label_smoothing(const struct nnc_config *config) {
    if (config->label_smoothing > 0 && config->loss != NNC_LOSS_CROSS_ENTROPY) {
        return nnc_fail(-NNC_E_USAGE, "--label-smoothing needs --loss cross-entropy");
    }
    return 0;
}

int nnc_config_check_nesterov(const struct nnc_config *config) {
    if (config->nesterov && config->momentum <= 0) {
        return nnc_fail(-NNC_E_USAGE, "--nesterov needs a --momentum above 0");
    }
    return 0;
}

int nnc_config_check_fresh(const struct nnc_config *config) {
    if (config->fresh && config->resume[0] != '\0') {
        return nnc_fail(-NNC_E_USAGE,
                        "--fresh starts from zero and --resume continues: give one of them");
    }
    return 0;
}

int nnc_config_check_quiet(const struct nnc_config *config) {
    if (config->quiet && config->verbose > 0) {
        return nnc_fail(-NNC_E_USAGE, "--quiet and --verbose contradict each other");
    }
    return 0;
}

int nnc_config_check_input(const struct nnc_config *config) {
    unsigned channels = 0, height = 0, width = 0;
    int end = 0;
    if (config->input[0] == '\0') {
        return 0;
    }
    bool is_plain = strspn(config->input, "0123456789x") == strlen(config->input);
    int found = sscanf(config->input, "%5ux%5ux%5u%n", &channels, &height, &width, &end);
    if (!is_plain || found != 3 || config->input[end] != '\0' || channels == 0 || height == 0 ||
        width == 0) {
        return nnc_fail(-NNC_E_USAGE,
                        "--input \"%s\" is not channels, height and width like 3x224x224",
                        config->input);
    }
    return 0;
}

int nnc_config_check_quality(const struct nnc_config *config) {
    if (config->quality != 0 && config->kind == NNC_PACK_RAW) {
        return nnc_fail(-NNC_E_USAGE, "--quality is of JPEG: leave it or --kind raw out");
    }
    return 0;
}

int nnc_config_check_bench(const struct nnc_config *config) {
    if (config->cache == NNC_CACHE_COLD && config->bench_epochs > 1) {
        return nnc_fail(-NNC_E_USAGE,
                        "--bench-epochs %" PRIu32 " with --cache cold: one pass is measured, the "
                        "next would find the files in memory",
                        config->bench_epochs);
    }
    if (config->simulate_gpu != 0.0 && config->simulate_gpu < 0.1) {
        return nnc_fail(-NNC_E_USAGE, "--simulate-gpu %g: give at least 0.1 images per second",
                        config->simulate_gpu);
    }
    return 0;
}
