/* SPDX-License-Identifier: Apache-2.0 */
/* Building a model on a backend and moving its weights in and out.
 *
 *   setup -> graph (one for each phase's crop size, the same parameters) -> programs -> executables
 *
 * A rank's batches have at most two different counts in each phase: the full batch and the last
 * one. All four programs are compiled before training starts, the largest training program first,
 * because a backend may choose the layout of its state by it.
 *
 * Invariants:
 *   1. Both graphs have the same parameters in the same order, checked by name and shape.
 *   2. Devices compute in the same type on all ranks, or nothing is compiled; those of one kind
 *      run the same algorithms: rank 0 chooses first, and the others compile when they know its
 *      choice.
 *   3. Training programs of one engine cut their reduction buckets alike: the cut depends on the
 *      parameters alone.
 *
 * It does not train (train.c) and does not know operations (cpu/). */
#include "workers/engine.h"

#include "base/err.h"
#include "base/paths.h"
#include "base/sha256.h"
#include "workers/choices.h"
#include "workers/safetensors.h"
#include "workers/state.h"
#include "workers/weights.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    PROGRAMS_MAX = 4,
    BUCKET_BYTES = 8 << 20,
};

/* Code, libraries and kernels of a backend, beside its tensors. */
#define BASE_BYTES (112ull << 20)

struct compiled {
    enum nnc_phase phase;
    uint32_t count;
    struct nnc_program *program;
    struct nnc_executable *executable;
};

struct nnc_engine {
    const struct nnc_setup *setup;
    struct nnc_graph *graph[2]; /* by phase; NULL: the phase does not happen */
    const struct nnc_backend_ops *ops;
    struct nnc_backend *backend;
    struct compiled compiled[PROGRAMS_MAX];
    uint32_t compiled_count;
    uint32_t bucket_count;
    size_t floats;
    char cache_dir[NNC_PATH_MAX]; /* of a device's algorithms */
};

/* ---- graphs ---- */

static int input_of(const struct nnc_setup *setup, enum nnc_phase phase,
                    struct nnc_shape *ret_input) {
    const struct nnc_config *config = &setup->config;
    if (nnc_mode_is_synthetic(setup->mode) && config->input[0] == '\0') {
        *ret_input = (struct nnc_shape){0}; /* as the model's text has it */
        return 0;
    }
    if (nnc_mode_is_synthetic(setup->mode)) {
        struct nnc_shape input = {0};
        int used = 0;
        if (sscanf(config->input, "%" SCNu32 "x%" SCNu32 "x%" SCNu32 "%n", &input.c, &input.h,
                   &input.w, &used) != 3 ||
            config->input[used] != '\0') {
            return nnc_fail(-NNC_E_USAGE, "--input %s: write CHANNELSxHEIGHTxWIDTH, as 3x224x224",
                            config->input);
        }
        *ret_input = input;
        return 0;
    }
    uint32_t crop = phase == NNC_PHASE_TRAIN ? config->train_crop_size : config->val_crop_size;
    uint32_t channels = setup->geometry.channels != 0 ? setup->geometry.channels : config->channels;
    *ret_input = (struct nnc_shape){.c = channels, .h = crop, .w = crop};
    return 0;
}

int nnc_engine_graph(const struct nnc_setup *setup, enum nnc_phase phase,
                     struct nnc_graph **ret_graph) {
    struct nnc_shape input;
    int code = input_of(setup, phase, &input);
    if (code < 0) {
        return code;
    }
    const struct nnc_graph_params params = {.path = setup->model_path,
                                            .model_args = setup->config.model_args,
                                            .input = input,
                                            .classes = setup->classes};
    return nnc_graph_create(&params, ret_graph);
}

static bool has_phase(const struct nnc_setup *setup, enum nnc_phase phase) {
    if (nnc_mode_is_synthetic(setup->mode)) {
        return phase == NNC_PHASE_TRAIN;
    }
    return phase == NNC_PHASE_TRAIN ? setup->schedule.train_samples > 0
                                    : setup->schedule.val_samples > 0;
}

static int build_graphs(struct nnc_engine *engine) {
    for (int phase = NNC_PHASE_TRAIN; phase <= NNC_PHASE_VAL; phase++) {
        if (!has_phase(engine->setup, (enum nnc_phase)phase)) {
            continue;
        }
        int code = nnc_engine_graph(engine->setup, (enum nnc_phase)phase, &engine->graph[phase]);
        if (code < 0) {
            return code;
        }
    }
    const struct nnc_graph *train = engine->graph[0], *val = engine->graph[1];
    if (train != NULL && val != NULL && nnc_state_param_hash(train) != nnc_state_param_hash(val)) {
        return nnc_fail(-NNC_E_USAGE,
                        "model %s has other parameters at --val-crop-size %u than at "
                        "--train-crop-size %u: its layers depend on the size of the image",
                        train->name, engine->setup->config.val_crop_size,
                        engine->setup->config.train_crop_size);
    }
    if (train == NULL && val == NULL) {
        return nnc_fail(-NNC_E_USAGE, "there is nothing to train and nothing to evaluate");
    }
    return nnc_state_floats(nnc_engine_model(engine), &engine->floats);
}

const struct nnc_graph *nnc_engine_model(const struct nnc_engine *engine) {
    return engine->graph[0] != NULL ? engine->graph[0] : engine->graph[1];
}

/* ---- programs ---- */

/* Samples of this rank's last batch of a phase; 0 when it has none then. */
static uint32_t last_count(const struct nnc_setup *setup, enum nnc_phase phase) {
    const struct nnc_schedule *schedule = &setup->schedule;
    uint64_t samples = phase == NNC_PHASE_TRAIN ? schedule->train_samples : schedule->val_samples;
    uint64_t rest = samples % ((uint64_t)schedule->ranks * schedule->batch);
    uint64_t first = (uint64_t)setup->number * schedule->batch;
    if (rest == 0 || rest <= first) {
        return 0;
    }
    return rest - first < schedule->batch ? (uint32_t)(rest - first) : schedule->batch;
}

/* Whether a full batch of this rank happens at all. */
static bool has_full(const struct nnc_setup *setup, enum nnc_phase phase) {
    const struct nnc_schedule *schedule = &setup->schedule;
    uint64_t samples = phase == NNC_PHASE_TRAIN ? schedule->train_samples : schedule->val_samples;
    return nnc_mode_is_synthetic(setup->mode) ||
           samples >= ((uint64_t)setup->number + 1) * schedule->batch;
}

static int lower(const struct nnc_graph *graph, enum nnc_phase phase, uint32_t count,
                 struct nnc_program **ret_program) {
    const struct nnc_program_params params = {.graph = graph,
                                              .batch = count,
                                              .training = phase == NNC_PHASE_TRAIN,
                                              .bucket_bytes = BUCKET_BYTES};
    return nnc_program_create(&params, ret_program);
}

static int compile_one(struct nnc_engine *engine, enum nnc_phase phase, uint32_t count) {
    assert(engine->compiled_count < PROGRAMS_MAX);
    struct compiled *entry = &engine->compiled[engine->compiled_count++];
    entry->phase = phase;
    entry->count = count;
    int code = lower(engine->graph[phase], phase, count, &entry->program);
    if (code < 0) {
        return code;
    }
    if (phase == NNC_PHASE_TRAIN) {
        assert(engine->bucket_count == 0 || engine->bucket_count == entry->program->bucket_count);
        engine->bucket_count = entry->program->bucket_count;
    }
    return engine->ops->compile(engine->backend, entry->program, &entry->executable);
}

static int compile_all(struct nnc_engine *engine) {
    for (int phase = NNC_PHASE_TRAIN; phase <= NNC_PHASE_VAL; phase++) {
        if (engine->graph[phase] == NULL) {
            continue;
        }
        uint32_t batch = engine->setup->schedule.batch;
        uint32_t last = last_count(engine->setup, (enum nnc_phase)phase);
        int code = 0;
        /* Training is compiled full even where only a short batch happens: the first training
         * program fixes the order of the gradients on every rank. */
        if (phase == NNC_PHASE_TRAIN || has_full(engine->setup, NNC_PHASE_VAL)) {
            code = compile_one(engine, (enum nnc_phase)phase, batch);
        }
        if (code == 0 && last > 0 && last < batch) {
            code = compile_one(engine, (enum nnc_phase)phase, last);
        }
        if (code < 0) {
            return code;
        }
    }
    return 0;
}

static void fill_device(const struct nnc_setup *setup, struct nnc_engine *engine,
                        struct nnc_device_params *ret_device) {
    const struct nnc_config *config = &setup->config;
    bool keeps = nnc_path_cache("plans", engine->cache_dir, sizeof(engine->cache_dir)) == 0;
    *ret_device =
        (struct nnc_device_params){.ordinal = (uint32_t)setup->device,
                                   .amp = config->amp,
                                   .deterministic = config->deterministic,
                                   .graphs = config->cuda_graphs,
                                   /* Which one is fastest differs from run to run. */
                                   .autotune = config->deterministic ? 0 : config->autotune,
                                   .workspace_bytes = (size_t)config->workspace << 20,
                                   .cache_dir = keeps ? engine->cache_dir : NULL};
}

static int open_backend(struct nnc_engine *engine, const struct nnc_engine_params *from) {
    const struct nnc_setup *setup = engine->setup;
    const struct nnc_config *config = &setup->config;
    bool on_device = setup->device >= 0;
    int code = nnc_backend_find(on_device ? NNC_BACKEND_CUDA : config->backend, &engine->ops);
    if (code < 0) {
        return code;
    }
    struct nnc_backend_params params = {.graph = nnc_engine_model(engine),
                                        .threads = setup->threads > 0 ? setup->threads : 1,
                                        .loss = config->loss,
                                        .label_smoothing = config->label_smoothing,
                                        .seed = config->seed,
                                        .rank = setup->number,
                                        .ranks = setup->ranks,
                                        .alive = from->alive,
                                        .context = from->context};
    memcpy(params.mean, config->mean, sizeof(params.mean));
    memcpy(params.std, config->std, sizeof(params.std));
    if (on_device) {
        fill_device(setup, engine, &params.device);
    }
    return engine->ops->open(&params, &engine->backend);
}

/* Whether there are other ranks whose devices must do as this one's. */
static bool has_peers(const struct nnc_engine *engine, const struct nnc_comm *comm) {
    return comm != NULL && engine->setup->ranks > 1 && engine->ops->device != NULL;
}

static int agree_on_type(struct nnc_engine *engine, struct nnc_comm *comm) {
    return has_peers(engine, comm) ? nnc_choices_agree(engine->ops->device, engine->backend, comm)
                                   : 0;
}

/* Ranks but 0 call it before they compile, rank 0 afterwards. */
static int share_choices(struct nnc_engine *engine, struct nnc_comm *comm) {
    return has_peers(engine, comm) ? nnc_choices_share(engine->ops->device, engine->backend, comm)
                                   : 0;
}

int nnc_engine_create(const struct nnc_engine_params *params, struct nnc_engine **ret_engine) {
    struct nnc_engine *engine = calloc(1, sizeof(*engine));
    if (engine == NULL) {
        return nnc_fail(-ENOMEM, "no memory for the trainer");
    }
    engine->setup = params->setup;
    int code = build_graphs(engine);
    code = code < 0 ? code : open_backend(engine, params);
    code = code < 0 ? code : agree_on_type(engine, params->comm);
    if (code == 0 && params->setup->number != 0) {
        code = share_choices(engine, params->comm);
    }
    code = code < 0 ? code : compile_all(engine);
    if (code == 0 && params->setup->number == 0) {
        code = share_choices(engine, params->comm);
    }
    if (code < 0) {
        nnc_engine_destroy(engine);
        return code;
    }
    *ret_engine = engine;
    return 0;
}

void nnc_engine_destroy(struct nnc_engine *engine) {
    if (engine == NULL) {
        return;
    }
    for (uint32_t number = 0; number < engine->compiled_count; number++) {
        if (engine->compiled[number].executable != NULL) {
            engine->ops->release(engine->compiled[number].executable);
        }
        nnc_program_destroy(engine->compiled[number].program);
    }
    if (engine->backend != NULL) {
        engine->ops->close(engine->backend);
    }
    nnc_graph_destroy(engine->graph[0]);
    nnc_graph_destroy(engine->graph[1]);
    free(engine);
}

/* ---- looking ---- */

const struct nnc_backend_ops *nnc_engine_ops(const struct nnc_engine *engine) {
    return engine->ops;
}

struct nnc_backend *nnc_engine_backend(const struct nnc_engine *engine) {
    return engine->backend;
}

struct nnc_shape nnc_engine_input(const struct nnc_engine *engine, enum nnc_phase phase) {
    assert(engine->graph[phase] != NULL);
    return engine->graph[phase]->input;
}

struct nnc_executable *nnc_engine_executable(const struct nnc_engine *engine, enum nnc_phase phase,
                                             uint32_t count) {
    for (uint32_t number = 0; number < engine->compiled_count; number++) {
        if (engine->compiled[number].phase == phase && engine->compiled[number].count == count) {
            return engine->compiled[number].executable;
        }
    }
    assert(!"no program was compiled for this number of samples");
    return NULL;
}

uint32_t nnc_engine_bucket_count(const struct nnc_engine *engine) {
    return engine->bucket_count;
}

size_t nnc_engine_floats(const struct nnc_engine *engine) {
    return engine->floats;
}

/* ---- weights ---- */

/* Walks over the tensors in the order of nnc_state_floats(). */
struct cursor {
    enum nnc_state state;
    uint32_t number;
    size_t offset; /* in floats */
    bool started;
};

static bool next_tensor(const struct nnc_graph *graph, struct cursor *cursor) {
    if (cursor->started) {
        cursor->offset += graph->params[cursor->number].count;
        cursor->number++;
    }
    cursor->started = true;
    if (cursor->state == NNC_STATE_VALUE && cursor->number == graph->param_count) {
        cursor->state = NNC_STATE_MOMENTUM;
        cursor->number = 0;
    }
    while (cursor->state == NNC_STATE_MOMENTUM && cursor->number < graph->param_count &&
           !nnc_state_is_trained(&graph->params[cursor->number])) {
        cursor->number++;
    }
    return cursor->number < graph->param_count;
}

int nnc_engine_get(const struct nnc_engine *engine, float *ret_tensors) {
    const struct nnc_graph *graph = nnc_engine_model(engine);
    struct cursor at = {.state = NNC_STATE_VALUE};
    while (next_tensor(graph, &at)) {
        int code = engine->ops->get(engine->backend, at.state, at.number, ret_tensors + at.offset);
        if (code < 0) {
            return nnc_fail_in(code, "reading %s", graph->params[at.number].name);
        }
    }
    return 0;
}

int nnc_engine_set(const struct nnc_engine *engine, const float *tensors) {
    const struct nnc_graph *graph = nnc_engine_model(engine);
    struct cursor at = {.state = NNC_STATE_VALUE};
    while (next_tensor(graph, &at)) {
        int code = engine->ops->set(engine->backend, at.state, at.number, tensors + at.offset);
        if (code < 0) {
            return nnc_fail_in(code, "setting %s", graph->params[at.number].name);
        }
    }
    return 0;
}

void nnc_engine_init(const struct nnc_engine *engine, uint64_t seed, float *ret_tensors) {
    const struct nnc_graph *graph = nnc_engine_model(engine);
    size_t used = 0;
    for (uint32_t number = 0; number < graph->param_count; number++) {
        nnc_graph_init_param(graph, number, seed, ret_tensors + used);
        used += graph->params[number].count;
    }
    memset(ret_tensors + used, 0, (engine->floats - used) * sizeof(float));
}

static int read_matched(const struct nnc_graph *graph, const struct nnc_safetensors *file,
                        const struct nnc_weights *weights, float *tensors) {
    for (uint32_t number = 0; number < graph->param_count; number++) {
        int32_t tensor = weights->tensor_of_param[number];
        int code = tensor < 0 ? 0 : nnc_safetensors_read(file, (uint32_t)tensor, tensors);
        if (code < 0) {
            return code;
        }
        tensors += graph->params[number].count;
    }
    return 0;
}

/* What cannot be opened is the user's to mend. Checkpoints and runs were resolved to their files
 * when the options were read (base/run_path.h). */
static int open_weights(struct nnc_vfs *vfs, const char *path, struct nnc_safetensors **ret_file) {
    int code = nnc_safetensors_open(vfs, path, ret_file);
    if (code == -ENOENT || code == -EACCES || code == -EISDIR || code == -ENOTDIR) {
        return nnc_fail(-NNC_E_USAGE, "%s; give a safetensors file, a ckpt-* directory or a run",
                        strerror(-code));
    }
    return code;
}

int nnc_engine_check_weights(const struct nnc_graph *graph, struct nnc_vfs *vfs, const char *path,
                             bool strict) {
    struct nnc_safetensors *file = NULL;
    struct nnc_weights *weights = NULL;
    int code = open_weights(vfs, path, &file);
    code = code < 0 ? code : nnc_weights_match(graph, file, strict, &weights);
    nnc_weights_destroy(weights);
    nnc_safetensors_close(file);
    return code < 0 ? nnc_fail_in(code, "--weights %s", path) : 0;
}

int nnc_engine_load_weights(const struct nnc_engine *engine, struct nnc_vfs *vfs, const char *path,
                            bool strict, float *tensors, char **ret_report) {
    const struct nnc_graph *graph = nnc_engine_model(engine);
    struct nnc_safetensors *file = NULL;
    struct nnc_weights *weights = NULL;
    char *report = NULL;
    int code = open_weights(vfs, path, &file);
    code = code < 0 ? code : nnc_weights_match(graph, file, strict, &weights);
    code = code < 0 ? code : read_matched(graph, file, weights, tensors);
    if (code == 0) {
        report = strdup(weights->report);
        code = report == NULL ? nnc_fail(-ENOMEM, "no memory for a report") : 0;
    }
    nnc_weights_destroy(weights);
    nnc_safetensors_close(file);
    if (code < 0) {
        return nnc_fail_in(code, "--weights %s", path);
    }
    *ret_report = report;
    return 0;
}

/* Floats of the largest parameter. */
static uint64_t largest_param(const struct nnc_graph *graph) {
    uint64_t largest = 1;
    for (uint32_t number = 0; number < graph->param_count; number++) {
        uint64_t count = graph->params[number].count;
        largest = count > largest ? count : largest;
    }
    return largest;
}

static int hash_params(const struct nnc_engine *engine, struct nnc_sha256 *hash, float *scratch) {
    const struct nnc_graph *graph = nnc_engine_model(engine);
    for (uint32_t number = 0; number < graph->param_count; number++) {
        const struct nnc_param *param = &graph->params[number];
        int code = engine->ops->get(engine->backend, NNC_STATE_VALUE, number, scratch);
        code = code < 0 ? code : nnc_sha256_update(hash, param->name, strlen(param->name) + 1);
        code = code < 0 ? code : nnc_sha256_update(hash, scratch, param->count * sizeof(float));
        if (code < 0) {
            return nnc_fail_in(code, "hash of %s", param->name);
        }
    }
    return 0;
}

/* The same bytes as nnc_state_weights_sha256(), one parameter at a time: a copy of all would be the
 * largest piece of memory of a big model. */
int nnc_engine_weights_sha256(const struct nnc_engine *engine, char ret_hex[65]) {
    struct nnc_sha256 *hash = NULL;
    float *scratch = malloc(largest_param(nnc_engine_model(engine)) * sizeof(float));
    int code = scratch == NULL ? nnc_fail(-ENOMEM, "no memory to hash the weights") : 0;
    code = code < 0 ? code : nnc_sha256_create(&hash);
    code = code < 0 ? code : hash_params(engine, hash, scratch);
    code = code < 0 ? code : nnc_sha256_hex(hash, ret_hex);
    nnc_sha256_destroy(hash);
    free(scratch);
    return code;
}

/* ---- estimate ---- */

static size_t tensor_bytes(void *context, uint32_t tensor) {
    const struct nnc_program *program = context;
    struct nnc_shape shape = program->tensors[tensor].shape;
    return (size_t)program->batch * shape.c * shape.h * shape.w * sizeof(float);
}

/* Arena of the full program of a phase. The reference keeps every tensor apart. */
static int arena_of(const struct nnc_setup *setup, const struct nnc_graph *graph,
                    enum nnc_phase phase, uint64_t *ret_bytes) {
    struct nnc_program *program;
    int code = lower(graph, phase, setup->schedule.batch, &program);
    if (code < 0) {
        return code;
    }
    size_t bytes = 0;
    if (setup->config.backend == NNC_BACKEND_REFERENCE) {
        for (uint32_t tensor = 0; tensor < program->tensor_count; tensor++) {
            bytes += tensor_bytes(program, tensor);
        }
    } else {
        size_t *offsets = calloc(program->tensor_count + 1, sizeof(*offsets));
        code = offsets == NULL
                   ? nnc_fail(-ENOMEM, "no memory for the plan of the arena")
                   : nnc_program_pack(program, tensor_bytes, program, 64, offsets, &bytes);
        free(offsets);
    }
    nnc_program_destroy(program);
    if (code == 0) {
        *ret_bytes = bytes;
    }
    return code;
}

/* Weights, gradients and momentum, and beside them either the starting values (weights and
 * momentum) or the arena with a sixth for the backend's scratch memory and one parameter for
 * hashing. */
static uint64_t trainer_bytes(const struct nnc_graph *graph, uint64_t arena) {
    uint64_t state = nnc_state_value_floats(graph) * sizeof(float);
    uint64_t running = arena + arena / 6 + largest_param(graph) * sizeof(float);
    return 3 * state + (running > 2 * state ? running : 2 * state) + BASE_BYTES;
}

int nnc_engine_estimate(const struct nnc_setup *setup, uint64_t *ret_bytes) {
    uint64_t largest = 0;
    for (int phase = NNC_PHASE_TRAIN; phase <= NNC_PHASE_VAL; phase++) {
        if (!has_phase(setup, (enum nnc_phase)phase)) {
            continue;
        }
        struct nnc_graph *graph;
        uint64_t arena = 0;
        int code = nnc_engine_graph(setup, (enum nnc_phase)phase, &graph);
        if (code < 0) {
            return code;
        }
        if (setup->device < 0) { /* else activations are the device's */
            code = arena_of(setup, graph, (enum nnc_phase)phase, &arena);
        }
        uint64_t bytes = code < 0 ? 0 : trainer_bytes(graph, arena);
        largest = bytes > largest ? bytes : largest;
        nnc_graph_destroy(graph);
        if (code < 0) {
            return code;
        }
    }
    *ret_bytes = largest;
    return 0;
}
