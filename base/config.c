/* SPDX-License-Identifier: Apache-2.0 */
/* THE option table: one row a field of struct nnc_config, in its order. Parser, help, man page,
 * completion, YAML, environment and the record of a run are all made from these rows; a test fails
 * when a field has no row. Defaults follow torchvision's reference scripts.
 *
 *   defaults < YAML file (config_yaml.c) < environment (here) < command line (config_parse.c)
 *   help (config_help.c), man page, table and completion (config_docs.c)
 *
 * To add an option: a field in config.h, a row here, scripts/generate-docs.sh. What depends on more
 * than one option is checked by a row's .check (config_check.c), after all of them are set.
 * Source: names of torchrun(1) and of torchvision's references/classification/train.py. */
#include "base/config.h"

#include "base/config_table.h"
#include "base/err.h"
#include "base/text.h"

#include <assert.h>
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    TRAIN = NNC_VERB_TRAIN,
    PREDICT = NNC_VERB_PREDICT,
    CHECK = NNC_VERB_CHECK,
    BENCH_INPUT = NNC_VERB_BENCH_INPUT,
    BENCH_TRAIN = NNC_VERB_BENCH_TRAIN,
    BENCH_COMM = NNC_VERB_BENCH_COMM,
    BENCH_GPU = NNC_VERB_BENCH_GPU,
    SHOW = NNC_VERB_SHOW,
    PACK = NNC_VERB_PACK,
    SYNTH = NNC_VERB_BENCH_SYNTH,
    SELFTEST = NNC_VERB_SELFTEST,
    /* Those that deliver a data set, read one, make training images, run loaders, make images of
     * files, run trainers, look at a backend alone, compute, measure steps, update weights. */
    DELIVERS = TRAIN | NNC_VERB_EVAL | CHECK | BENCH_INPUT,
    READS = DELIVERS | SHOW | PACK,
    AUGMENTS = TRAIN | CHECK | BENCH_INPUT | SHOW,
    LOADS = DELIVERS | PREDICT,
    BUDGETS = LOADS & ~CHECK & ~PREDICT, /* stop at too many bad images, or at one */
    MAKES = LOADS | SHOW,
    RUNS = TRAIN | NNC_VERB_EVAL | PREDICT | BENCH_TRAIN | BENCH_COMM,
    PROBES = SELFTEST | BENCH_GPU,
    COMPUTES = RUNS | PROBES,
    MEASURES = BENCH_TRAIN | BENCH_COMM | BENCH_GPU,
    LEARNS = TRAIN | BENCH_TRAIN | BENCH_COMM,
    MEETS = TRAIN | BENCH_COMM, /* other machines */
    EVERY = NNC_VERB_EVERY & ~NNC_VERB_CONFIG,
};

#define FIELD(field)                                                                               \
    .offset = offsetof(struct nnc_config, field), .bytes = sizeof(((struct nnc_config *)0)->field)

static const struct nnc_choice auto_choices[] = {{"auto", 0}, {NULL, 0}};
static const struct nnc_choice all_choices[] = {{"all", 0}, {NULL, 0}};
static const struct nnc_choice same_choices[] = {{"same", -1}, {NULL, 0}};

static const struct nnc_choice format_choices[] = {
    {"auto", NNC_FORMAT_AUTO},          {"folder", NNC_FORMAT_FOLDER},
    {"imagefolder", NNC_FORMAT_FOLDER}, {"tar", NNC_FORMAT_TAR},
    {"webdataset", NNC_FORMAT_TAR},     {"idx", NNC_FORMAT_IDX},
    {"mnist", NNC_FORMAT_IDX},          {NULL, 0}};

static const struct nnc_choice transform_choices[] = {
    {"random-resized-crop", NNC_TRANSFORM_RANDOM_RESIZED_CROP},
    {"padded-crop", NNC_TRANSFORM_PADDED_CROP},
    {"eval", NNC_TRANSFORM_EVAL},
    {NULL, 0}};

static const struct nnc_choice split_choices[] = {
    {"train", NNC_SPLIT_TRAIN}, {"val", NNC_SPLIT_VAL}, {NULL, 0}};

static const struct nnc_choice pack_choices[] = {
    {"jpeg", NNC_PACK_JPEG}, {"raw", NNC_PACK_RAW}, {NULL, 0}};

static const struct nnc_choice none_choices[] = {{"none", 0}, {NULL, 0}};
static const struct nnc_choice lossless_choices[] = {{"lossless", 0}, {NULL, 0}};

static const struct nnc_choice on_bad_choices[] = {
    {"replace", NNC_ON_BAD_REPLACE}, {"fail", NNC_ON_BAD_FAIL}, {NULL, 0}};

static const struct nnc_choice io_choices[] = {{"auto", NNC_IO_AUTO},      {"uring", NNC_IO_URING},
                                               {"io-uring", NNC_IO_URING}, {"pread", NNC_IO_PREAD},
                                               {"null", NNC_IO_NULL},      {NULL, 0}};

static const struct nnc_choice decode_choices[] = {
    {"exact", NNC_DECODE_EXACT}, {"fast", NNC_DECODE_FAST}, {NULL, 0}};

static const struct nnc_choice simd_choices[] = {{"auto", NNC_SIMD_AUTO},
                                                 {"avx512", NNC_SIMD_AVX512},
                                                 {"avx2", NNC_SIMD_AVX2},
                                                 {"c", NNC_SIMD_C},
                                                 {NULL, 0}};

static const struct nnc_choice cache_choices[] = {
    {"warm", NNC_CACHE_WARM}, {"cold", NNC_CACHE_COLD}, {NULL, 0}};

static const struct nnc_choice consumer_choices[] = {
    {"none", NNC_CONSUMER_NONE}, {"float", NNC_CONSUMER_FLOAT}, {NULL, 0}};

static const struct nnc_choice backend_choices[] = {{"auto", NNC_BACKEND_AUTO},
                                                    {"onednn", NNC_BACKEND_ONEDNN},
                                                    {"reference", NNC_BACKEND_REFERENCE},
                                                    {"cuda", NNC_BACKEND_CUDA},
                                                    {NULL, 0}};

static const struct nnc_choice amp_choices[] = {{"auto", NNC_AMP_AUTO},
                                                {"off", NNC_AMP_OFF},
                                                {"bf16", NNC_AMP_BF16},
                                                {"fp16", NNC_AMP_FP16},
                                                {NULL, 0}};

static const struct nnc_choice loss_choices[] = {
    {"cross-entropy", NNC_LOSS_CROSS_ENTROPY}, {"mse", NNC_LOSS_MSE}, {NULL, 0}};

static const struct nnc_choice scheduler_choices[] = {{"constant", NNC_LR_CONSTANT},
                                                      {"step", NNC_LR_STEP},
                                                      {"steplr", NNC_LR_STEP},
                                                      {"cosine", NNC_LR_COSINE},
                                                      {"cosineannealinglr", NNC_LR_COSINE},
                                                      {NULL, 0}};

static const struct nnc_choice warmup_choices[] = {
    {"linear", NNC_WARMUP_LINEAR}, {"constant", NNC_WARMUP_CONSTANT}, {NULL, 0}};

/* One row fills few lines instead of a line per field. */
/* clang-format off */
const struct nnc_option nnc_config_options[] = {
    {.name = "data", .type = NNC_OPTION_STRING, FIELD(data), .unit = "PATH", .def = "",
     .help = "data set: class folders (in train/ and val/, or bare), tar shards, or a directory "
             "of idx files; also the first word after the verb",
     .group = NNC_GROUP_DATA, .aliases = {"data-path", "data-dir"},
     .verbs = (READS & ~PACK) | NNC_VERB_DOCTOR, .adopts = true, .local = true},
    {.name = "val-data", .type = NNC_OPTION_STRING, FIELD(val_data), .unit = "PATH", .def = "",
     .help = "validation set, where it is not beside the training set",
     .group = NNC_GROUP_DATA, .aliases = {"val-path", "val-dir"}, .verbs = READS, .adopts = true,
     .local = true},
    {.name = "format", .type = NNC_OPTION_ENUM, FIELD(format), .unit = "", .def = "auto",
     .choices = format_choices,
     .help = "layout of the data set",
     .group = NNC_GROUP_DATA, .verbs = READS, .adopts = true},
    {.name = "channels", .type = NNC_OPTION_U32, FIELD(channels), .unit = "", .min = 0, .max = 3,
     .def = "auto", .choices = auto_choices,
     .help = "colour channels that the network sees: 1 or 3",
     .group = NNC_GROUP_DATA, .check = nnc_config_check_channels, .verbs = MAKES | PACK,
     .adopts = true},
    {.name = "train-transform", .type = NNC_OPTION_ENUM, FIELD(train_transform), .unit = "",
     .def = "random-resized-crop", .choices = transform_choices,
     .help = "augmentation of training images",
     .group = NNC_GROUP_DATA, .verbs = AUGMENTS},
    {.name = "train-crop-size", .type = NNC_OPTION_U32, FIELD(train_crop_size), .unit = "pixels",
     .min = 1, .max = 8192, .def = "224",
     .help = "side of a training image",
     .group = NNC_GROUP_DATA, .aliases = {"img-size", "imgsz", "crop-size"},
     .verbs = AUGMENTS},
    {.name = "val-resize-size", .type = NNC_OPTION_U32, FIELD(val_resize_size), .unit = "pixels",
     .min = 1, .max = 8192, .def = "256",
     .help = "shorter side before the centre crop of an evaluated image",
     .group = NNC_GROUP_DATA, .verbs = MAKES, .adopts = true},
    {.name = "val-crop-size", .type = NNC_OPTION_U32, FIELD(val_crop_size), .unit = "pixels",
     .min = 1, .max = 8192, .def = "224",
     .help = "side of an evaluated image",
     .group = NNC_GROUP_DATA, .check = nnc_config_check_val_crop, .verbs = MAKES, .adopts = true},
    {.name = "crop-padding", .type = NNC_OPTION_U32, FIELD(crop_padding), .unit = "pixels",
     .min = 0, .max = 1024, .def = "4",
     .help = "zeros on each side for --train-transform padded-crop",
     .group = NNC_GROUP_DATA, .verbs = AUGMENTS},
    {.name = "hflip-prob", .type = NNC_OPTION_DOUBLE, FIELD(hflip_prob), .unit = "", .min = 0,
     .max = 1, .def = "0.5",
     .help = "probability of a horizontal flip in training",
     .group = NNC_GROUP_DATA, .aliases = {"hflip"}, .verbs = AUGMENTS},
    {.name = "crop-scale-min", .type = NNC_OPTION_DOUBLE, FIELD(crop_scale_min), .unit = "",
     .min = 1e-06, .max = 1, .def = "0.08",
     .help = "smallest area of a random crop, as a fraction of the image",
     .group = NNC_GROUP_DATA, .verbs = AUGMENTS},
    {.name = "crop-scale-max", .type = NNC_OPTION_DOUBLE, FIELD(crop_scale_max), .unit = "",
     .min = 1e-06, .max = 1, .def = "1",
     .help = "largest area of a random crop",
     .group = NNC_GROUP_DATA, .check = nnc_config_check_crop_scale, .verbs = AUGMENTS},
    {.name = "crop-ratio-min", .type = NNC_OPTION_DOUBLE, FIELD(crop_ratio_min), .unit = "",
     .min = 0.01, .max = 100, .def = "0.75",
     .help = "smallest width / height of a random crop",
     .group = NNC_GROUP_DATA, .verbs = AUGMENTS},
    {.name = "crop-ratio-max", .type = NNC_OPTION_DOUBLE, FIELD(crop_ratio_max), .unit = "",
     .min = 0.01, .max = 100, .def = "1.3333333333333333",
     .help = "largest width / height of a random crop",
     .group = NNC_GROUP_DATA, .check = nnc_config_check_crop_ratio, .verbs = AUGMENTS},
    {.name = "mean", .type = NNC_OPTION_DOUBLES, FIELD(mean), .unit = "", .min = 0, .max = 1,
     .def = "0.485,0.456,0.406",
     .help = "mean of the pixels (0 to 1) per channel, or one for all; grey images use the first",
     .group = NNC_GROUP_DATA, .verbs = RUNS | BENCH_INPUT, .adopts = true},
    {.name = "std", .type = NNC_OPTION_DOUBLES, FIELD(std), .unit = "", .min = 1e-06, .max = 1000,
     .def = "0.229,0.224,0.225",
     .help = "standard deviation of the pixels, likewise",
     .group = NNC_GROUP_DATA, .verbs = RUNS | BENCH_INPUT, .adopts = true},
    {.name = "on-bad", .type = NNC_OPTION_ENUM, FIELD(on_bad), .unit = "", .def = "replace",
     .choices = on_bad_choices,
     .help = "what an unreadable image leads to: another one takes its place, or the run fails",
     .group = NNC_GROUP_DATA, .verbs = BUDGETS},
    {.name = "max-bad", .type = NNC_OPTION_DOUBLE, FIELD(max_bad), .unit = "", .min = 0, .max = 1,
     .def = "0.001",
     .help = "end with exit status 3 when more than this fraction of the images is unreadable",
     .group = NNC_GROUP_DATA, .verbs = BUDGETS | PACK},
    {.name = "reindex", .type = NNC_OPTION_BOOL, FIELD(reindex), .unit = "", .def = "false",
     .help = "scan the data set again even if its cached index looks current",
     .group = NNC_GROUP_DATA, .verbs = READS, .local = true},
    {.name = "workers", .flag = 'j', .type = NNC_OPTION_U32, FIELD(workers), .unit = "processes",
     .min = 1, .max = 1024, .def = "auto", .choices = auto_choices,
     .help = "loader processes on this machine (not per device, as other trainers count them); "
             "auto starts from the CPUs and follows the training",
     .group = NNC_GROUP_LOADERS, .aliases = {"num-workers"}, .verbs = LOADS | PACK, .local = true},
    {.name = "workers-interval", .type = NNC_OPTION_DOUBLE, FIELD(workers_interval),
     .unit = "seconds", .min = 0, .max = 3600, .def = "5",
     .help = "how long auto measures a training before it adds or retires a loader; 0: never",
     .group = NNC_GROUP_LOADERS, .verbs = TRAIN, .local = true},
    {.name = "ring-depth", .type = NNC_OPTION_U32, FIELD(ring_depth), .unit = "batches", .min = 2,
     .max = 64, .def = "4",
     .help = "batches prepared ahead for each trainer",
     .group = NNC_GROUP_LOADERS, .aliases = {"prefetch-factor"}, .verbs = LOADS, .local = true},
    {.name = "io", .type = NNC_OPTION_ENUM, FIELD(io), .unit = "", .def = "auto",
     .choices = io_choices,
     .help = "how files are read; auto takes io_uring where the kernel allows it; null, for bench "
             "input, hands one image out in place of all of its size",
     .group = NNC_GROUP_LOADERS, .verbs = MAKES, .local = true},
    {.name = "direct-io", .type = NNC_OPTION_BOOL, FIELD(direct_io), .unit = "", .def = "false",
     .help = "read past the page cache (O_DIRECT) where the file system can, for data sets larger "
             "than memory",
     .group = NNC_GROUP_LOADERS, .verbs = MAKES, .local = true},
    {.name = "decode", .type = NNC_OPTION_ENUM, FIELD(decode), .unit = "", .def = "exact",
     .choices = decode_choices,
     .help = "pixels as a full decode has them, or JPEGs at 1/2, 1/4 or 1/8 of their size where "
             "the crop is reduced at least as much",
     .group = NNC_GROUP_LOADERS, .verbs = MAKES, .adopts = true},
    {.name = "simd", .type = NNC_OPTION_ENUM, FIELD(simd), .unit = "", .def = "auto",
     .choices = simd_choices,
     .help = "CPU instructions that images are resized with; the pixels are the same with all, and "
             "one that the CPU lacks is refused",
     .group = NNC_GROUP_LOADERS, .verbs = MAKES, .local = true},
    {.name = "sample-timeout", .type = NNC_OPTION_U32, FIELD(sample_timeout), .unit = "seconds",
     .min = 1, .max = 86400, .def = "60",
     .help = "time after which a loader that holds one image counts as hung and is replaced",
     .group = NNC_GROUP_LOADERS, .verbs = LOADS, .local = true},
    {.name = "shm-dir", .type = NNC_OPTION_STRING, FIELD(shm_dir), .unit = "DIR", .def = "",
     .help = "where shared memory is made if memfd is forbidden",
     .group = NNC_GROUP_LOADERS, .verbs = MAKES | PACK | NNC_VERB_DOCTOR, .local = true},
    {.name = "gpus", .type = NNC_OPTION_STRING, FIELD(gpus), .unit = "N|all|0,2", .def = "",
     .help = "GPUs of this machine: how many, all, or which (2, with its comma is number 2 alone); "
             "0 or nothing means the CPU",
     .group = NNC_GROUP_DEVICES, .check = nnc_config_check_gpus, .aliases = {"nproc-per-node"},
     .verbs = COMPUTES | NNC_VERB_DOCTOR, .local = true},
    {.name = "cpu-ranks", .type = NNC_OPTION_U32, FIELD(cpu_ranks), .unit = "processes", .min = 1,
     .max = NNC_MAX_RANKS, .def = "1",
     .help = "CPU trainers that share each step",
     .group = NNC_GROUP_DEVICES, .verbs = COMPUTES, .local = true},
    {.name = "threads", .type = NNC_OPTION_U32, FIELD(threads), .unit = "threads", .min = 0,
     .max = 1024, .def = "auto", .choices = auto_choices,
     .help = "compute threads of each CPU trainer",
     .group = NNC_GROUP_DEVICES, .verbs = COMPUTES, .local = true},
    {.name = "backend", .type = NNC_OPTION_ENUM, FIELD(backend), .unit = "", .def = "auto",
     .choices = backend_choices,
     .help = "what computes; reference is plain C and slow",
     .group = NNC_GROUP_DEVICES, .verbs = COMPUTES},
    {.name = "step-timeout", .type = NNC_OPTION_U32, FIELD(step_timeout), .unit = "seconds",
     .min = 1, .max = 86400, .def = "600",
     .help = "time after which a trainer that stands still counts as hung; the run then goes on "
             "from its last snapshot; selftest ends after a case that takes so long",
     .group = NNC_GROUP_DEVICES, .verbs = RUNS | SELFTEST, .local = true},
    {.name = "deterministic", .type = NNC_OPTION_BOOL, FIELD(deterministic), .unit = "",
     .def = "false",
     .help = "only algorithms that give the same bits each time",
     .group = NNC_GROUP_DEVICES, .aliases = {"use-deterministic-algorithms"}, .verbs = COMPUTES},
    {.name = "amp", .type = NNC_OPTION_ENUM, FIELD(amp), .unit = "", .def = "auto",
     .choices = amp_choices,
     .help = "mixed precision on GPUs: bf16, fp16 with loss scaling, or off; auto takes bf16 where "
             "the GPU has it; CPUs compute in fp32",
     .group = NNC_GROUP_DEVICES, .check = nnc_config_check_amp, .verbs = COMPUTES},
    {.name = "autotune", .type = NNC_OPTION_U32, FIELD(autotune), .unit = "algorithms", .min = 0,
     .max = 64, .def = "10",
     .help = "how many to time for each convolution on a GPU, once; 0 and --deterministic take "
             "the first",
     .group = NNC_GROUP_DEVICES, .verbs = COMPUTES},
    {.name = "workspace", .type = NNC_OPTION_U32, FIELD(workspace), .unit = "MiB", .min = 0,
     .max = 16384, .def = "512",
     .help = "scratch memory that one operation on a GPU may take",
     .group = NNC_GROUP_DEVICES, .verbs = COMPUTES},
    {.name = "cuda-graphs", .type = NNC_OPTION_BOOL, FIELD(cuda_graphs), .unit = "",
     .def = "false",
     .help = "record a step on the GPU once, with the ranks' reductions, and replay it; helps "
             "small batches",
     .group = NNC_GROUP_DEVICES, .verbs = RUNS | BENCH_GPU},
    {.name = "nnodes", .type = NNC_OPTION_U32, FIELD(nnodes), .unit = "machines", .min = 1,
     .max = NNC_MAX_NODES, .def = "1",
     .help = "machines that train together, each with an nncoord of its own; torchrun and srun say "
             "so themselves",
     .group = NNC_GROUP_MACHINES, .aliases = {"num-nodes"}, .verbs = MEETS},
    {.name = "node-rank", .type = NNC_OPTION_U32, FIELD(node_rank), .unit = "", .min = 0,
     .max = NNC_MAX_NODES - 1, .def = "0",
     .help = "number of this machine, from 0, without a launcher to be given on each of several; "
             "machine 0 writes the run's directory",
     .group = NNC_GROUP_MACHINES, .verbs = MEETS, .local = true},
    {.name = "rdzv-endpoint", .type = NNC_OPTION_STRING, FIELD(rdzv_endpoint),
     .unit = "HOST:PORT", .def = "",
     .help = "where machine 0 listens for the others; port 29500 if none is given, an IPv6 address "
             "stands in brackets",
     .group = NNC_GROUP_MACHINES, .check = nnc_config_check_endpoint, .verbs = MEETS,
     .local = true},
    {.name = "rdzv-id", .type = NNC_OPTION_STRING, FIELD(rdzv_id), .unit = "ID", .def = "",
     .help = "name of the run, which all its machines must give alike",
     .group = NNC_GROUP_MACHINES, .check = nnc_config_check_rdzv_id, .verbs = MEETS},
    {.name = "rdzv-secret", .type = NNC_OPTION_STRING, FIELD(rdzv_secret), .unit = "FILE|fd:N",
     .def = "",
     .help = "file, or open descriptor, with the secret that the machines know each other by: 64 "
             "hexadecimal digits, readable by you alone",
     .group = NNC_GROUP_MACHINES, .check = nnc_config_check_secret, .verbs = MEETS, .local = true},
    {.name = "rdzv-timeout", .type = NNC_OPTION_U32, FIELD(rdzv_timeout), .unit = "seconds",
     .min = 1, .max = 86400, .def = "600",
     .help = "how long to wait for the other machines at the start",
     .group = NNC_GROUP_MACHINES, .verbs = MEETS, .local = true},
    {.name = "model", .flag = 'a', .type = NNC_OPTION_STRING, FIELD(model), .unit = "NAME|FILE",
     .def = "resnet18",
     .help = "network: a name that `nncoord models` lists, or a model text",
     .group = NNC_GROUP_MODEL, .aliases = {"arch"}, .verbs = RUNS | NNC_VERB_MODELS | BENCH_GPU,
     .adopts = true},
    {.name = "model-args", .type = NNC_OPTION_STRING, FIELD(model_args), .unit = "KEY=VALUE,...",
     .def = "",
     .help = "parameters of the model text, such as activation=Tanh,hidden=512",
     .group = NNC_GROUP_MODEL, .verbs = RUNS | NNC_VERB_MODELS | BENCH_GPU, .adopts = true},
    {.name = "weights", .type = NNC_OPTION_STRING, FIELD(weights), .unit = "PATH", .def = "",
     .help = "safetensors file, checkpoint or run (its best checkpoint) to take weights from, and "
             "nothing else",
     .group = NNC_GROUP_MODEL, .check = nnc_config_check_weights, .aliases = {"initial-checkpoint"},
     .verbs = RUNS, .local = true},
    {.name = "strict", .type = NNC_OPTION_BOOL, FIELD(strict), .unit = "", .def = "true",
     .help = "--weights must fit exactly; --no-strict leaves out a head of another size",
     .group = NNC_GROUP_MODEL, .verbs = RUNS, .local = true},
    {.name = "epochs", .type = NNC_OPTION_U32, FIELD(epochs), .unit = "epochs", .min = 1,
     .max = 1000000, .def = "90",
     .help = "passes over the training set",
     .group = NNC_GROUP_TRAINING, .verbs = TRAIN},
    {.name = "batch-size", .flag = 'b', .type = NNC_OPTION_U32, FIELD(batch_size), .unit = "images",
     .min = 1, .max = 65536, .def = "32",
     .help = "images per step and device",
     .group = NNC_GROUP_TRAINING, .verbs = LOADS | RUNS | BENCH_GPU},
    {.name = "global-batch", .type = NNC_OPTION_U32, FIELD(global_batch), .unit = "images",
     .min = 0, .max = 4194304, .def = "auto", .choices = auto_choices,
     .help = "images per step of all devices together; auto is batch-size times devices",
     .group = NNC_GROUP_TRAINING, .aliases = {"global-batch-size"}, .verbs = LOADS | RUNS},
    {.name = "drop-last", .type = NNC_OPTION_BOOL, FIELD(drop_last), .unit = "", .def = "false",
     .help = "leave out the last, smaller step of a training epoch",
     .group = NNC_GROUP_TRAINING, .verbs = TRAIN},
    {.name = "limit-train-batches", .type = NNC_OPTION_U32, FIELD(limit_train_batches),
     .unit = "steps", .min = 0, .max = UINT32_MAX, .def = "all", .choices = all_choices,
     .help = "training steps per epoch",
     .group = NNC_GROUP_TRAINING, .verbs = TRAIN},
    {.name = "limit-val-batches", .type = NNC_OPTION_U32, FIELD(limit_val_batches), .unit = "steps",
     .min = 0, .max = UINT32_MAX, .def = "all", .choices = all_choices,
     .help = "evaluation steps",
     .group = NNC_GROUP_TRAINING, .verbs = TRAIN | NNC_VERB_EVAL},
    {.name = "eval-every", .type = NNC_OPTION_U32, FIELD(eval_every), .unit = "epochs", .min = 0,
     .max = 1000000, .def = "1",
     .help = "evaluate after each of so many epochs and after the last; 0: only then",
     .group = NNC_GROUP_TRAINING, .aliases = {"val-interval"}, .verbs = TRAIN},
    {.name = "seed", .type = NNC_OPTION_U64, FIELD(seed), .unit = "", .min = 0,
     .max = (double)UINT64_MAX, .def = "0",
     .help = "decides initial weights, order and augmentation",
     .group = NNC_GROUP_TRAINING, .verbs = MAKES | COMPUTES | SYNTH},
    {.name = "loss", .type = NNC_OPTION_ENUM, FIELD(loss), .unit = "", .def = "cross-entropy",
     .choices = loss_choices,
     .help = "what is minimised",
     .group = NNC_GROUP_TRAINING, .verbs = RUNS, .adopts = true},
    {.name = "label-smoothing", .type = NNC_OPTION_DOUBLE, FIELD(label_smoothing), .unit = "",
     .min = 0, .max = 1, .def = "0",
     .help = "share of a label that is spread over all classes",
     .group = NNC_GROUP_TRAINING, .check = nnc_config_check_label_smoothing,
     .aliases = {"smoothing"},
     .verbs = LEARNS, .adopts = true},
    {.name = "lr", .type = NNC_OPTION_DOUBLE, FIELD(lr), .unit = "", .min = 0, .max = 1000000.0,
     .def = "0.1",
     .help = "learning rate",
     .group = NNC_GROUP_TRAINING, .aliases = {"learning-rate"}, .verbs = LEARNS},
    {.name = "momentum", .type = NNC_OPTION_DOUBLE, FIELD(momentum), .unit = "", .min = 0, .max = 1,
     .def = "0.9",
     .help = "momentum of SGD",
     .group = NNC_GROUP_TRAINING, .verbs = LEARNS},
    {.name = "weight-decay", .type = NNC_OPTION_DOUBLE, FIELD(weight_decay), .unit = "", .min = 0,
     .max = 1000, .def = "0.0001",
     .help = "weight decay (L2) of SGD",
     .group = NNC_GROUP_TRAINING, .aliases = {"wd"}, .verbs = LEARNS},
    {.name = "norm-weight-decay", .type = NNC_OPTION_DOUBLE, FIELD(norm_weight_decay), .unit = "",
     .min = 0, .max = 1000, .def = "same", .choices = same_choices,
     .help = "weight decay of batch norm parameters",
     .group = NNC_GROUP_TRAINING, .verbs = LEARNS},
    {.name = "bias-weight-decay", .type = NNC_OPTION_DOUBLE, FIELD(bias_weight_decay), .unit = "",
     .min = 0, .max = 1000, .def = "same", .choices = same_choices,
     .help = "weight decay of biases",
     .group = NNC_GROUP_TRAINING, .aliases = {"bias-wd"}, .verbs = LEARNS},
    {.name = "nesterov", .type = NNC_OPTION_BOOL, FIELD(nesterov), .unit = "", .def = "false",
     .help = "Nesterov's momentum",
     .group = NNC_GROUP_TRAINING, .check = nnc_config_check_nesterov, .verbs = LEARNS},
    {.name = "lars", .type = NNC_OPTION_DOUBLE, FIELD(lars), .unit = "", .min = 0, .max = 1000,
     .def = "0",
     .help = "trust coefficient of LARS, which scales the step of each layer's weights for large "
             "batches, such as 0.001; 0 is plain SGD",
     .group = NNC_GROUP_TRAINING, .verbs = LEARNS},
    {.name = "lr-scheduler", .type = NNC_OPTION_ENUM, FIELD(lr_scheduler), .unit = "",
     .def = "step", .choices = scheduler_choices,
     .help = "course of the learning rate",
     .group = NNC_GROUP_TRAINING, .aliases = {"sched"}, .verbs = TRAIN},
    {.name = "lr-warmup-epochs", .type = NNC_OPTION_DOUBLE, FIELD(lr_warmup_epochs),
     .unit = "epochs", .min = 0, .max = 1000000.0, .def = "0",
     .help = "epochs before the schedule starts",
     .group = NNC_GROUP_TRAINING, .aliases = {"warmup-epochs"}, .verbs = TRAIN},
    {.name = "lr-warmup-method", .type = NNC_OPTION_ENUM, FIELD(lr_warmup_method), .unit = "",
     .def = "constant", .choices = warmup_choices,
     .help = "learning rate in the warm-up: rising, or constant",
     .group = NNC_GROUP_TRAINING, .verbs = TRAIN},
    {.name = "lr-warmup-decay", .type = NNC_OPTION_DOUBLE, FIELD(lr_warmup_decay), .unit = "",
     .min = 0, .max = 1, .def = "0.01",
     .help = "where the warm-up starts, as a fraction of the learning rate",
     .group = NNC_GROUP_TRAINING, .verbs = TRAIN},
    {.name = "lr-step-size", .type = NNC_OPTION_U32, FIELD(lr_step_size), .unit = "epochs",
     .min = 1, .max = 1000000, .def = "30",
     .help = "the step schedule multiplies the rate after each of so many epochs",
     .group = NNC_GROUP_TRAINING, .verbs = TRAIN},
    {.name = "lr-gamma", .type = NNC_OPTION_DOUBLE, FIELD(lr_gamma), .unit = "", .min = 0,
     .max = 1000, .def = "0.1",
     .help = "factor of the step schedule",
     .group = NNC_GROUP_TRAINING, .verbs = TRAIN},
    {.name = "lr-min", .type = NNC_OPTION_DOUBLE, FIELD(lr_min), .unit = "", .min = 0,
     .max = 1000000.0, .def = "0",
     .help = "learning rate at the end of the cosine schedule",
     .group = NNC_GROUP_TRAINING, .aliases = {"min-lr"}, .verbs = TRAIN},
    {.name = "output-dir", .type = NNC_OPTION_STRING, FIELD(output_dir), .unit = "DIR", .def = "",
     .help = "the run's directory; runs/MODEL-TIME if not given",
     .group = NNC_GROUP_STATE, .verbs = TRAIN, .local = true},
    {.name = "resume", .type = NNC_OPTION_STRING, FIELD(resume), .unit = "PATH|auto", .def = "",
     .help = "continue from a checkpoint, RUN/best or the newest checkpoint of a run; auto takes "
             "that of --output-dir. Without data and --config the run's own are taken",
     .group = NNC_GROUP_STATE, .verbs = TRAIN | NNC_VERB_EVAL | PREDICT, .local = true},
    {.name = "fresh", .type = NNC_OPTION_BOOL, FIELD(fresh), .unit = "", .def = "false",
     .help = "start from zero in a directory that has checkpoints",
     .group = NNC_GROUP_STATE, .check = nnc_config_check_fresh, .verbs = TRAIN, .local = true},
    {.name = "save-every", .type = NNC_OPTION_DOUBLE, FIELD(save_every), .unit = "epochs", .min = 0,
     .max = 1000000.0, .def = "1",
     .help = "epochs between checkpoints, may be a fraction; 0: only at the end",
     .group = NNC_GROUP_STATE, .verbs = TRAIN, .local = true},
    {.name = "snapshot-interval", .type = NNC_OPTION_U32, FIELD(snapshot_interval),
     .unit = "seconds", .min = 1, .max = 86400, .def = "60",
     .help = "time between snapshots in memory: the most that a crashed trainer loses",
     .group = NNC_GROUP_STATE, .verbs = TRAIN, .local = true},
    {.name = "keep", .type = NNC_OPTION_U32, FIELD(keep), .unit = "checkpoints", .min = 1,
     .max = 10000, .def = "3",
     .help = "newest checkpoints that stay; best and last stay always",
     .group = NNC_GROUP_STATE, .aliases = {"checkpoint-hist"}, .verbs = TRAIN, .local = true},
    {.name = "grace", .type = NNC_OPTION_U32, FIELD(grace), .unit = "seconds", .min = 1,
     .max = 3600, .def = "25",
     .help = "time for a last checkpoint after SIGTERM or Ctrl-C",
     .group = NNC_GROUP_LIFE, .aliases = {"shutdown-timeout"}, .verbs = LOADS | RUNS,
     .local = true},
    {.name = "max-restarts", .type = NNC_OPTION_U32, FIELD(max_restarts), .unit = "restarts",
     .min = 0, .max = 1000, .def = "3",
     .help = "restarts of crashed trainers",
     .group = NNC_GROUP_LIFE, .verbs = TRAIN},
    {.name = "print-freq", .type = NNC_OPTION_U32, FIELD(print_freq), .unit = "steps", .min = 1,
     .max = 1000000, .def = "50",
     .help = "steps between progress lines where there is no terminal",
     .group = NNC_GROUP_OUTPUT, .aliases = {"log-interval"}, .verbs = TRAIN | NNC_VERB_EVAL,
     .local = true},
    {.name = "json", .type = NNC_OPTION_BOOL, FIELD(json), .unit = "", .def = "false",
     .help = "one JSON object on standard output (predict: one a line for each file), everything "
             "else on standard error",
     .group = NNC_GROUP_OUTPUT, .verbs = EVERY, .local = true},
    {.name = "quiet", .flag = 'q', .type = NNC_OPTION_BOOL, FIELD(quiet), .unit = "",
     .def = "false",
     .help = "only warnings, errors and the result",
     .group = NNC_GROUP_OUTPUT, .verbs = EVERY, .local = true},
    {.name = "verbose", .flag = 'v', .type = NNC_OPTION_LEVEL, FIELD(verbose), .unit = "", .min = 0,
     .max = 3, .def = "0",
     .help = "say more; twice for more still",
     .group = NNC_GROUP_OUTPUT, .check = nnc_config_check_quiet, .verbs = EVERY, .local = true},
    {.name = "audit", .type = NNC_OPTION_STRING, FIELD(audit), .unit = "FILE", .def = "",
     .help = "write one line per delivered image: epoch, position, index, rank",
     .group = NNC_GROUP_OUTPUT, .verbs = DELIVERS, .local = true},
    {.name = "topk", .type = NNC_OPTION_U32, FIELD(topk), .unit = "classes", .min = 1, .max = 1000,
     .def = "5",
     .help = "classes shown per image",
     .group = NNC_GROUP_INSPECT, .verbs = PREDICT},
    {.name = "logits", .type = NNC_OPTION_BOOL, FIELD(logits), .unit = "", .def = "false",
     .help = "add the raw outputs of the network to --json",
     .group = NNC_GROUP_INSPECT, .verbs = PREDICT},
    {.name = "input", .type = NNC_OPTION_STRING, FIELD(input), .unit = "CxHxW", .def = "",
     .help = "input shape, such as 3x224x224; by default the one in the model's text",
     .group = NNC_GROUP_INSPECT, .check = nnc_config_check_input,
     .verbs = NNC_VERB_MODELS | MEASURES},
    {.name = "bench-steps", .type = NNC_OPTION_U32, FIELD(bench_steps), .unit = "steps", .min = 0,
     .max = 1000000, .def = "auto", .choices = auto_choices,
     .help = "steps or batches measured",
     .group = NNC_GROUP_INSPECT, .aliases = {"steps"}, .verbs = BENCH_INPUT | MEASURES},
    {.name = "bench-epochs", .type = NNC_OPTION_U32, FIELD(bench_epochs), .unit = "epochs",
     .min = 0, .max = 100000, .def = "auto", .choices = auto_choices,
     .help = "passes over the data that are measured, after one that is not; auto measures whole "
             "passes for two seconds or, of a large data set, ten seconds",
     .group = NNC_GROUP_INSPECT, .verbs = BENCH_INPUT},
    {.name = "split", .type = NNC_OPTION_ENUM, FIELD(split), .unit = "", .def = "train",
     .choices = split_choices,
     .help = "which images and transforms are taken",
     .group = NNC_GROUP_INSPECT, .aliases = {"bench-split"},
     .verbs = BENCH_INPUT | SHOW},
    {.name = "cache", .type = NNC_OPTION_ENUM, FIELD(cache), .unit = "", .def = "warm",
     .choices = cache_choices,
     .help = "warm measures after a pass that brings the files into memory; cold drops them from "
             "the page cache and measures exactly one pass",
     .group = NNC_GROUP_INSPECT, .verbs = BENCH_INPUT},
    {.name = "consumer", .type = NNC_OPTION_ENUM, FIELD(consumer), .unit = "", .def = "none",
     .choices = consumer_choices,
     .help = "what is done with a batch: nothing, or normalised float32 NCHW of it, as torchvision "
             "users get",
     .group = NNC_GROUP_INSPECT, .verbs = BENCH_INPUT},
    {.name = "simulate-gpu", .type = NNC_OPTION_DOUBLE, FIELD(simulate_gpu),
     .unit = "images/s", .min = 0, .max = 1e9, .def = "0",
     .help = "take batches as a device of this speed would; exit status 1 unless it is busy for "
             "more than 90 % of the time; 0 takes them as fast as they come",
     .group = NNC_GROUP_INSPECT, .check = nnc_config_check_bench, .verbs = BENCH_INPUT},
    {.name = "compare", .type = NNC_OPTION_BOOL, FIELD(compare), .unit = "", .def = "false",
     .help = "print beside a model's speed what others published for the same GPU",
     .group = NNC_GROUP_INSPECT, .verbs = BENCH_GPU},
    {.name = "count", .type = NNC_OPTION_U32, FIELD(count), .unit = "images", .min = 1,
     .max = 100000000, .def = "auto", .choices = auto_choices,
     .help = "how many images; auto is 64 for show and 1000 for bench synth",
     .group = NNC_GROUP_INSPECT, .verbs = SHOW | SYNTH},
    {.name = "classes", .type = NNC_OPTION_U32, FIELD(classes), .unit = "folders", .min = 1,
     .max = 1000, .def = "100",
     .help = "class folders that the images are spread over",
     .group = NNC_GROUP_INSPECT, .verbs = SYNTH},
    {.name = "output", .type = NNC_OPTION_STRING, FIELD(output), .unit = "FILE", .def = "",
     .help = "the PNG to draw; show.png if neither this nor --npy is given",
     .group = NNC_GROUP_INSPECT, .verbs = SHOW},
    {.name = "npy", .type = NNC_OPTION_STRING, FIELD(npy), .unit = "FILE", .def = "",
     .help = "save the samples as uint8 array (N, H, W, C), and FILE.jsonl with a line for each",
     .group = NNC_GROUP_INSPECT, .verbs = SHOW},
    {.name = "kind", .type = NNC_OPTION_ENUM, FIELD(kind), .unit = "", .def = "jpeg",
     .choices = pack_choices,
     .help = "restart-indexed JPEG, of which a crop decodes only its part, or raw pixels",
     .group = NNC_GROUP_PACK, .verbs = PACK},
    {.name = "max-side", .type = NNC_OPTION_U32, FIELD(max_side), .unit = "pixels", .min = 0,
     .max = 65500, .def = "none", .choices = none_choices,
     .help = "reduce images whose longer side exceeds this",
     .group = NNC_GROUP_PACK, .verbs = PACK},
    {.name = "quality", .type = NNC_OPTION_U32, FIELD(quality), .unit = "", .min = 0, .max = 100,
     .def = "lossless", .choices = lossless_choices,
     .help = "encode anew with this JPEG quality; with --max-side 90 unless given",
     .group = NNC_GROUP_PACK, .check = nnc_config_check_quality, .verbs = PACK},
    {.name = "shard-samples", .type = NNC_OPTION_U32, FIELD(shard_samples), .unit = "images",
     .min = 1, .max = 1000000, .def = "1000",
     .help = "images in a shard",
     .group = NNC_GROUP_PACK, .verbs = PACK},
    {.name = "verify", .type = NNC_OPTION_BOOL, FIELD(verify), .unit = "", .def = "false",
     .help = "read each shard back and compare it with its source, also those of an earlier run",
     .group = NNC_GROUP_PACK, .verbs = PACK},
};
/* clang-format on */

const size_t nnc_config_option_count = sizeof(nnc_config_options) / sizeof(nnc_config_options[0]);

const char *nnc_config_group_title(enum nnc_config_group group) {
    static const char *const titles[] = {
        [NNC_GROUP_DATA] = "Data",
        [NNC_GROUP_LOADERS] = "Loaders",
        [NNC_GROUP_DEVICES] = "Devices",
        [NNC_GROUP_MACHINES] = "Several machines",
        [NNC_GROUP_MODEL] = "Model",
        [NNC_GROUP_TRAINING] = "Training",
        [NNC_GROUP_STATE] = "Checkpoints",
        [NNC_GROUP_LIFE] = "Life cycle",
        [NNC_GROUP_OUTPUT] = "Output",
        [NNC_GROUP_PACK] = "Packing",
        [NNC_GROUP_INSPECT] = "Predict, models, show and bench",
    };
    _Static_assert(sizeof(titles) / sizeof(titles[0]) == NNC_GROUP_COUNT, "a group has no title");
    return titles[group];
}

/* Equal but for '_' and '-'. */
static bool is_name(const char *name, const char *word) {
    return strlen(name) == strlen(word) && nnc_edit_distance(name, word) == 0;
}

const struct nnc_option *nnc_config_find(const char *name) {
    for (size_t row = 0; row < nnc_config_option_count; row++) {
        const struct nnc_option *option = &nnc_config_options[row];
        bool found = is_name(option->name, name);
        for (const char *const *alias = option->aliases; *alias != NULL; alias++) {
            found = found || is_name(*alias, name);
        }
        if (found) {
            return option;
        }
    }
    return NULL;
}

void nnc_config_defaults(struct nnc_config *ret_config) {
    memset(ret_config, 0, sizeof(*ret_config));
    for (size_t row = 0; row < nnc_config_option_count; row++) {
        const struct nnc_option *option = &nnc_config_options[row];
        int code = nnc_option_parse(option, option->def, ret_config);
        assert(code == 0);
        (void)code;
    }
}

void nnc_config_variable(const struct nnc_option *option, char ret_name[NNC_NAME_MAX]) {
    size_t used = (size_t)snprintf(ret_name, NNC_NAME_MAX, "NNCOORD_");
    for (const char *at = option->name; *at != '\0' && used + 1 < NNC_NAME_MAX; at++) {
        ret_name[used++] = *at == '-' ? '_' : (char)toupper((unsigned char)*at);
    }
    ret_name[used] = '\0';
}

int nnc_config_load_environment(struct nnc_config *config) {
    for (size_t row = 0; row < nnc_config_option_count; row++) {
        const struct nnc_option *option = &nnc_config_options[row];
        char name[NNC_NAME_MAX];
        nnc_config_variable(option, name);
        const char *text = nnc_env(name);
        if (text == NULL) {
            continue;
        }
        int code = nnc_option_parse(option, text, config);
        if (code < 0) {
            return nnc_fail_in(code, "environment variable %s", name);
        }
    }
    return 0;
}

const char *nnc_env(const char *name) {
    const char *value = getenv(name);
    return value != NULL && value[0] != '\0' ? value : NULL;
}

const char *nnc_version(void) {
    return NNC_VERSION;
}
