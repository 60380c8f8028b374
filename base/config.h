/* SPDX-License-Identifier: Apache-2.0 */
/* The configuration of a run: one flat struct without pointers, so that it travels to the children
 * in a sealed memfd exactly as it was parsed. base/config.c holds THE option table; every field
 * here has its row there, and help, man page, completion, YAML and the saved record are made from
 * that row.
 *
 * Names follow torchrun and torchvision's reference scripts. */
#ifndef NNC_BASE_CONFIG_H
#define NNC_BASE_CONFIG_H

#include "base/config_choices.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#define NNC_PATH_MAX        1024
#define NNC_NAME_MAX        64
#define NNC_MAX_RANKS       64
#define NNC_MAX_NODES       64
#define NNC_ENDPOINT_MAX    272   /* of base/endpoint.h */
#define NNC_SHARED_TEXT_MAX 16384 /* bytes of nnc_config_print_shared() */

struct nnc_config {
    /* data */
    char data[NNC_PATH_MAX];     /* positional DIR or --data-path */
    char val_data[NNC_PATH_MAX]; /* --val-data: validation set elsewhere */
    int32_t format;              /* enum nnc_data_format */
    uint32_t channels;           /* 1 or 3; 0 = as the format has it */
    int32_t train_transform;     /* enum nnc_transform */
    uint32_t train_crop_size, val_resize_size, val_crop_size;
    uint32_t crop_padding;
    double hflip_prob;
    double crop_scale_min, crop_scale_max; /* area fraction of RandomResizedCrop */
    double crop_ratio_min, crop_ratio_max; /* aspect ratio of RandomResizedCrop */
    double mean[3], std[3];                /* of pixels in 0..1; IDX data uses element 0 */
    int32_t on_bad;                        /* enum nnc_on_bad */
    double max_bad;                        /* fraction of the data set's samples */
    bool reindex;

    /* loaders */
    uint32_t workers;        /* 0 = auto */
    double workers_interval; /* seconds between decisions of auto while training; 0 = none */
    uint32_t ring_depth;
    int32_t io;              /* enum nnc_io_method */
    bool direct_io;          /* past the page cache */
    int32_t decode;          /* enum nnc_decode */
    int32_t simd;            /* enum nnc_simd */
    uint32_t sample_timeout; /* seconds a claim may stay open before its loader counts as hung */
    char shm_dir[NNC_PATH_MAX];

    /* devices */
    char gpus[NNC_NAME_MAX]; /* "N", "all", "0,2", "2,", "" = none asked for */
    uint32_t cpu_ranks;
    uint32_t threads;      /* compute threads per CPU trainer; 0 = from the CPU budget */
    int32_t backend;       /* enum nnc_device_backend */
    uint32_t step_timeout; /* seconds a trainer may stand still before it counts as hung */
    bool deterministic;
    int32_t amp;        /* enum nnc_amp */
    uint32_t autotune;  /* algorithms to time for each convolution on a GPU; 0 = the first */
    uint32_t workspace; /* MiB of scratch memory that one operation on a GPU may take */
    bool cuda_graphs;

    /* several machines; each has a coordinator, which is a node */
    uint32_t nnodes;
    uint32_t node_rank;                   /* this one's; node 0 writes the run's directory */
    char rdzv_endpoint[NNC_ENDPOINT_MAX]; /* where node 0 listens (base/endpoint.h) */
    char rdzv_id[NNC_NAME_MAX];           /* tells runs apart that share secret and endpoint */
    char rdzv_secret[NNC_PATH_MAX];       /* file or "fd:N" */
    uint32_t rdzv_timeout;                /* seconds to wait for the other machines */

    /* model */
    char model[NNC_PATH_MAX];   /* name in models/ or file */
    char model_args[256];       /* "activation=Tanh,hidden=512" */
    char weights[NNC_PATH_MAX]; /* safetensors to start from, weights only */
    bool strict;                /* --weights must fit exactly; --no-strict skips the head */

    /* training */
    uint32_t epochs;
    uint32_t batch_size;   /* per rank */
    uint32_t global_batch; /* 0 = batch_size * ranks */
    bool drop_last;
    uint32_t limit_train_batches, limit_val_batches; /* per epoch; 0 = all */
    uint32_t eval_every;                             /* epochs; 0 = only after the last */
    uint64_t seed;
    int32_t loss; /* enum nnc_loss */
    double label_smoothing;
    double lr, momentum, weight_decay;
    double norm_weight_decay; /* < 0: as weight_decay */
    double bias_weight_decay; /* < 0: as weight_decay */
    bool nesterov;
    double lars;          /* trust coefficient; 0 = plain SGD */
    int32_t lr_scheduler; /* enum nnc_lr_scheduler */
    double lr_warmup_epochs;
    int32_t lr_warmup_method; /* enum nnc_lr_warmup */
    double lr_warmup_decay;
    uint32_t lr_step_size; /* epochs */
    double lr_gamma, lr_min;

    /* state */
    char output_dir[NNC_PATH_MAX]; /* "" = runs/<model>-<time> */
    char resume[NNC_PATH_MAX];     /* "", "auto" or a checkpoint or run directory */
    bool fresh;                    /* start from zero though checkpoints exist */
    double save_every;             /* epochs between checkpoints; 0 = only at the end */
    uint32_t snapshot_interval;    /* seconds between snapshots in memory */
    uint32_t keep;                 /* newest checkpoints kept */

    /* life cycle */
    uint32_t grace; /* seconds a stopping child gets */
    uint32_t max_restarts;

    /* output */
    uint32_t print_freq; /* steps between plain progress lines */
    bool json, quiet;
    uint32_t verbose;
    char audit[NNC_PATH_MAX]; /* file that receives one line per delivered sample */

    /* predict, bench, models */
    uint32_t topk;
    bool logits;
    char input[NNC_NAME_MAX];  /* "3x224x224" */
    uint32_t bench_steps;      /* measured steps or batches; 0 = as the verb has it */
    uint32_t bench_epochs;     /* bench input: measured passes; 0 = for a few seconds */
    int32_t split;             /* enum nnc_split, of bench input and show */
    int32_t cache;             /* enum nnc_cache */
    int32_t consumer;          /* enum nnc_consumer */
    double simulate_gpu;       /* images per second of the device; 0 = none */
    bool compare;              /* bench gpu: print what others published */
    uint32_t count;            /* images of show and bench synth; 0 = as the verb has it */
    uint32_t classes;          /* class folders of bench synth */
    char output[NNC_PATH_MAX]; /* file that show draws */
    char npy[NNC_PATH_MAX];    /* file for the very bytes of samples; "" = none */

    /* pack */
    int32_t kind;           /* enum nnc_pack_kind */
    uint32_t max_side;      /* longer sides are reduced to this; 0 = none */
    uint32_t quality;       /* of JPEG; 0 = without loss */
    uint32_t shard_samples; /* samples of a shard */
    bool verify;
};

/* What the command line or the environment says about the place in a run over several machines, so
 * that no launcher (coordinator/launcher.h) need say it. Files do not count: they are often the
 * record of another run. */
struct nnc_config_given {
    bool nnodes, node_rank;
    bool endpoint, id, secret;
};

/* Parsed command line: the verb, the configuration and the words of predict and `models show`. */
struct nnc_command {
    char verb[NNC_NAME_MAX];    /* "train", "eval", ...; the bare form is "train" */
    char subverb[NNC_NAME_MAX]; /* "show" in `models show`, "input" in `bench input`; else "" */
    struct nnc_config config;
    struct nnc_config_given given;
    char **args; /* points into argv, NULL-ended; owned by the caller of main */
    int arg_count;
};

/* Fill with the table's defaults. */
void nnc_config_defaults(struct nnc_config *ret_config);

/* Parse a whole command line with precedence defaults < YAML file (--config) < NNCOORD_*
 * environment < command line, where an option that the verb has no use for is refused. recipe_dir
 * is where `--config NAME` looks for NAME.yaml; train, eval and config without data and --config
 * take the recipe fashion-mnist. The first word after the verb becomes config.data for train, eval,
 * check and bench input; all words of predict and `models show` become args. --help, --version,
 * --print-completion and the verb config print on stdout and set *ret_done, meaning: exit 0 now.
 * argv is reordered. Errors: -NNC_E_USAGE with a text naming the option or the file and line, and a
 * "did you mean"; -ENOMEM. *ret_command and *ret_done are untouched then. */
int nnc_command_parse(int argc, char **argv, const char *recipe_dir,
                      struct nnc_command *ret_command, bool *ret_done);

/* Check what only a launcher may leave out: that this machine was told its number, where they are
 * several, and that nothing is given which one machine has no use for. Errors: -NNC_E_USAGE with
 * what to add. */
int nnc_config_check_place(const struct nnc_command *command);

/* Check what the options of several machines need of each other. Apart from the other checks
 * because a launcher may fill them in first. Errors: -NNC_E_USAGE with what to add. */
int nnc_config_check_machines(const struct nnc_config *config);

/* Read a YAML file of long option names into *config; keys that are not there keep their value.
 * Errors: -NNC_E_USAGE naming file, line and key; *config is untouched then. */
int nnc_config_load_yaml(const char *path, struct nnc_config *config);

/* Write every option as YAML that nnc_config_load_yaml() reads back to the same struct.
 * Errors: -ENOMEM, -EIO; -NNC_E_CHECKPOINT when out takes no more. */
int nnc_config_dump_yaml(const struct nnc_config *config, FILE *out);

/* Write the options that all machines of a training must have alike, each as a line "name: value",
 * into ret_text; returns its bytes, without the zero at the end. Errors: -ENOBUFS room is too
 * small; NNC_SHARED_TEXT_MAX is enough. */
ssize_t nnc_config_print_shared(const struct nnc_config *config, char *ret_text, size_t room);

/* Compare, on node 0, with what nnc_config_print_shared() wrote on another machine; other[bytes] is
 * that machine's word, of any bytes. Returns 0 when all are alike; else 1, with the first
 * difference in ret_words, fit to be printed: "--lr is 0.2 there and 0.1 on node 0". */
int nnc_config_compare_shared(const struct nnc_config *own, const char *other, size_t bytes,
                              char *ret_words, size_t room);

/* Write the manual page nncoord(1) in roff, made from the tables of options and verbs. */
void nnc_config_write_man(FILE *out);

/* Write all options as Markdown tables. */
void nnc_config_write_markdown(FILE *out);

/* An environment variable, for the few that are not options (XDG_CACHE_HOME, NO_COLOR, ...). The
 * only door to getenv(). NULL when unset or empty. */
const char *nnc_env(const char *name);

/* The program's version, "0.1.0". */
const char *nnc_version(void);

#endif
