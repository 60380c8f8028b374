/* SPDX-License-Identifier: Apache-2.0 */
/* The verbs of nncoord and the options that act on the command line itself, as tables; see
 * config_table.h. Rows of one verb stand together, the row without a subverb first. */
#include "base/config_table.h"

#include "base/text.h"

#include <string.h>

const struct nnc_verb nnc_config_verbs[] = {
    {.name = "train",
     .words_name = "[DATA]",
     .words = NNC_WORDS_DATA,
     .default_recipe = true,
     .mask = NNC_VERB_TRAIN,
     .help = "train a network (also without the word train)",
     .text = "Train a network on DATA and evaluate it. Without DATA and --config the recipe "
             "fashion-mnist is taken: a small network on Debian's copy of Fashion-MNIST. The run's "
             "directory gets the effective configuration, metrics and checkpoints."},
    {.name = "eval",
     .aliases = {"val", "test"},
     .words_name = "[DATA]",
     .words = NNC_WORDS_DATA,
     .default_recipe = true,
     .adopts_run = true,
     .mask = NNC_VERB_EVAL,
     .help = "evaluate a network on the validation set",
     .text =
         "Evaluate --resume or --weights on the validation set of DATA, each image once. --resume "
         "RUN brings what defines network and input, and the data unless DATA is given; all else "
         "is as on this command line."},
    {.name = "predict",
     .words_name = "FILE|DIR...",
     .words = NNC_WORDS_ARGS,
     .adopts_run = true,
     .mask = NNC_VERB_PREDICT,
     .help = "classify images",
     .text = "Classify image files, or all images in directories, with the network of --model and "
             "the weights of --weights or --resume. --resume RUN brings the model and what defines "
             "its input; all else is as on this command line."},
    {.name = "models",
     .words_name = "",
     .words = NNC_WORDS_NONE,
     .mask = NNC_VERB_MODELS,
     .help = "list the networks that are there",
     .text = "List the networks that --model knows by name."},
    {.name = "models",
     .subverb = "show",
     .words_name = "NAME|FILE...",
     .words = NNC_WORDS_ARGS,
     .mask = NNC_VERB_MODELS,
     .help = "print layers, shapes, parameters and FLOPs",
     .text = "Print each layer of a network with its shape, parameters and FLOPs."},
    {.name = "check",
     .words_name = "DATA",
     .words = NNC_WORDS_DATA,
     .mask = NNC_VERB_CHECK,
     .help = "read every image of a data set and report bad ones",
     .text = "Read and decode every image of DATA once, and list those that cannot be used."},
    {.name = "show",
     .words_name = "DATA",
     .words = NNC_WORDS_DATA,
     .mask = NNC_VERB_SHOW,
     .help = "draw the samples that a network gets, or save their bytes",
     .text = "Make the first samples of the first epoch as training with the same options would, "
             "and draw them with their labels into one PNG. --npy FILE saves their very bytes as a "
             "NumPy array instead, and beside it FILE.jsonl tells of each: path, label, class, "
             "crop, resize, window, flip, size, position, status."},
    {.name = "pack",
     .words_name = "SRC DST",
     .words = NNC_WORDS_ARGS,
     .mask = NNC_VERB_PACK,
     .help = "write a data set as tar shards that load faster",
     .text = "Write the data set SRC into the directory DST as WebDataset shards, by default of "
             "JPEGs with the same pixels and an index, so that a random crop reads and decodes "
             "only the part it needs. Other programs read the shards as any others. Interrupted, "
             "the same command goes on with the shards that are missing."},
    {.name = "doctor",
     .words_name = "",
     .words = NNC_WORDS_NONE,
     .mask = NNC_VERB_DOCTOR,
     .help = "report what this machine offers and lacks",
     .text = "Report processors, memory, limits, io_uring, GPUs, CUDA's libraries and the "
             "installation as nncoord sees them, and what it does without. Exit status 2 when the "
             "GPUs of --gpus cannot be had, with what stands in the way."},
    {.name = "selftest",
     .words_name = "",
     .words = NNC_WORDS_NONE,
     .mask = NNC_VERB_SELFTEST,
     .help = "check a GPU, or the CPU, against the reference",
     .text = "Compare what the devices of --gpus, or the CPU, compute with plain C: every "
             "operation forward and backward, updates, repetition, a step of ResNet-50, and with "
             "several devices their sums. Exit status 0 when all is well, 1 when not."},
    {.name = "bench",
     .subverb = "input",
     .words_name = "DATA",
     .words = NNC_WORDS_DATA,
     .mask = NNC_VERB_BENCH_INPUT,
     .help = "measure the loaders alone",
     .text = "Load DATA without training: images and bytes per second, CPU time, memory, what "
             "bounds it and what to do about it. With --simulate-gpu, whether the loaders keep a "
             "device of that speed busy: exit status 0 when they do, 1 when not."},
    {.name = "bench",
     .subverb = "train",
     .words_name = "",
     .words = NNC_WORDS_NONE,
     .mask = NNC_VERB_BENCH_TRAIN,
     .help = "measure the trainer alone",
     .text = "Train on synthetic images without loaders: images per second."},
    {.name = "bench",
     .subverb = "gpu",
     .words_name = "",
     .words = NNC_WORDS_NONE,
     .mask = NNC_VERB_BENCH_GPU,
     .help = "measure a GPU's operations against what it could do",
     .text = "Measure what the devices of --gpus, or the CPU, can copy and multiply, then each "
             "operation of --model (all: every network) beside the least it can take, then the "
             "whole step on synthetic images: images per second, share of the device's peak, "
             "memory. --compare adds what others published."},
    {.name = "bench",
     .subverb = "comm",
     .words_name = "",
     .words = NNC_WORDS_NONE,
     .mask = NNC_VERB_BENCH_COMM,
     .help = "measure the sums over ranks",
     .text = "Time all-reduces between the ranks of --gpus or --cpu-ranks, by size, as bandwidth "
             "of the algorithm and of the bus; then training steps on synthetic images with and "
             "without them, and how much of the reductions hides behind the backward pass."},
    {.name = "bench",
     .subverb = "synth",
     .words_name = "DIR",
     .words = NNC_WORDS_ARGS,
     .mask = NNC_VERB_BENCH_SYNTH,
     .help = "write a data set to measure with",
     .text = "Write photo-like JPEGs of ImageNet's sizes in class folders DIR/train/cNNN, the same "
             "ones for the same --seed. DIR must be new or empty. Interrupted, the same command "
             "goes on with the images that are missing."},
    {.name = "config",
     .words_name = "",
     .words = NNC_WORDS_NONE,
     .default_recipe = true,
     .mask = NNC_VERB_CONFIG,
     .help = "the same as config dump",
     .text = "Print what nncoord knows about its options."},
    {.name = "config",
     .subverb = "dump",
     .words_name = "",
     .words = NNC_WORDS_NONE,
     .default_recipe = true,
     .mask = NNC_VERB_CONFIG,
     .help = "print the effective configuration as YAML",
     .text = "Print the configuration that the same options would train with. --config reads it "
             "again."},
    {.name = "config",
     .subverb = "man",
     .words_name = "",
     .words = NNC_WORDS_NONE,
     .mask = NNC_VERB_CONFIG,
     .help = "print the manual page (roff)",
     .text = "Print the source of the manual page nncoord(1)."},
    {.name = "config",
     .subverb = "markdown",
     .words_name = "",
     .words = NNC_WORDS_NONE,
     .mask = NNC_VERB_CONFIG,
     .help = "print the table of options (Markdown)",
     .text = "Print all options as Markdown tables."},
    {.name = NULL},
};

const struct nnc_action nnc_config_actions[NNC_ACTION_COUNT] = {
    [NNC_ACTION_CONFIG] = {.name = "config",
                           .argument = "NAME|FILE",
                           .help = "YAML file of options, or the name of a recipe"},
    [NNC_ACTION_DUMP] = {.name = "dump",
                         .argument = "",
                         .help = "`config --dump` is `config dump`"},
    [NNC_ACTION_HELP] = {.name = "help", .flag = 'h', .argument = "", .help = "print this help"},
    [NNC_ACTION_VERSION] = {.name = "version",
                            .flag = 'V',
                            .argument = "",
                            .help = "print the version"},
    [NNC_ACTION_COMPLETION] = {.name = "print-completion",
                               .argument = "bash|zsh|fish",
                               .help = "print a completion script for the shell"},
};

static const struct {
    const char *name;
    uint32_t verbs; /* that lack it */
    const char *hint;
} foreign[] = {
    {"output", NNC_VERB_TRAIN,
     "it names the file of `nncoord show`; the directory of a run is --output-dir"},
    {"output-dir", NNC_VERB_SHOW, "the picture's file is --output"},
    {"output-dir", NNC_VERB_PACK | NNC_VERB_BENCH_SYNTH, "the directory is a word of its own"},
    {"on-bad", NNC_VERB_PACK,
     "bad images are left out, and --max-bad says how many may be; 0 allows none"},
    {"on-bad", NNC_VERB_CHECK, "it lists all bad images and ends with status 3 if there are any"},
    {"max-bad", NNC_VERB_CHECK, "it lists all bad images and ends with status 3 if there are any"},
    {"on-bad", NNC_VERB_PREDICT, "it says which images cannot be read and ends with status 3"},
    {"max-bad", NNC_VERB_PREDICT, "it says which images cannot be read and ends with status 3"},
    {"split", NNC_VERB_CHECK, "it reads training and validation images"},
    {"split", NNC_VERB_EVAL, "it takes the validation images; --val-data names others"},
    {"max-side", NNC_VERB_SHOW | NNC_VERB_TRAIN | NNC_VERB_BENCH_INPUT | NNC_VERB_CHECK,
     "it is one of `nncoord pack`; the side of a sample is --train-crop-size"},
    {"bench-steps", NNC_VERB_TRAIN, "steps of an epoch are --limit-train-batches"},
    {"epochs", NNC_VERB_BENCH_INPUT, "measured passes are --bench-epochs"},
    {"epochs", NNC_VERB_BENCH_TRAIN, "measured steps are --bench-steps"},
    {"train-crop-size", NNC_VERB_EVAL | NNC_VERB_PREDICT,
     "the side of an evaluated image is --val-crop-size"},
    {"count", NNC_VERB_BENCH_INPUT, "measured batches are --bench-steps"},
    {"model", NNC_VERB_BENCH_INPUT | NNC_VERB_CHECK | NNC_VERB_SHOW, "no network is involved"},
};

/* Options of torchrun and torch.distributed.launch. */
static const struct {
    const char *theirs, *ours;
} others[] = {
    {"rdzv-backend", "rdzv-endpoint"},
    {"rdzv-conf", "rdzv-timeout"},
    {"master-addr", "rdzv-endpoint"},
    {"master-port", "rdzv-endpoint"},
};

const char *nnc_config_other_name(const char *name) {
    for (size_t row = 0; row < sizeof(others) / sizeof(others[0]); row++) {
        if (nnc_edit_distance(others[row].theirs, name) == 0) {
            return others[row].ours;
        }
    }
    return NULL;
}

const char *nnc_config_foreign_hint(const struct nnc_option *option, const struct nnc_verb *verb) {
    for (size_t row = 0; row < sizeof(foreign) / sizeof(foreign[0]); row++) {
        if (strcmp(foreign[row].name, option->name) == 0 &&
            (foreign[row].verbs & verb->mask) != 0) {
            return foreign[row].hint;
        }
    }
    return NULL;
}
