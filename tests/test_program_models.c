/* SPDX-License-Identifier: Apache-2.0 */
/* The programs of the models that come with nncoord: which operations they have, that every
 * parameter is reduced once, and how well their tensors are packed. */
#include "base/err.h"
#include "workers/program.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

static struct nnc_graph *load(const char *model) {
    char path[512];
    snprintf(path, sizeof(path), "%s/models/%s.nn", NNC_TEST_SOURCE_DIR, model);
    struct nnc_graph *graph = NULL;
    int rc = nnc_graph_create(&(struct nnc_graph_params){.path = path}, &graph);
    cr_assert_eq(rc, 0, "%s: %s", model, nnc_error_text());
    return graph;
}

static struct nnc_program *lower(const struct nnc_graph *graph, bool training, uint32_t batch) {
    struct nnc_program *program = NULL;
    int rc = nnc_program_create(&(struct nnc_program_params){graph, batch, training, 25 << 20},
                                &program);
    cr_assert_eq(rc, 0, "%s: %s", graph->name, nnc_error_text());
    return program;
}

struct model_row {
    const char *model;
    uint32_t batch;
    uint32_t kinds[NNC_OP_COUNT]; /* forward operations in training */
};

/* No ACT and no ADD anywhere: all are fused. AlexNet and VGG pool adaptively to the size they have
 * already. */
static const struct model_row models[] = {
    {"mlp", 128, {[NNC_OP_LINEAR] = 2}},
    {"cnn",
     128,
     {[NNC_OP_CONV] = 2, [NNC_OP_LINEAR] = 2, [NNC_OP_MAXPOOL] = 2, [NNC_OP_DROPOUT] = 2}},
    {"alexnet",
     64,
     {[NNC_OP_CONV] = 5, [NNC_OP_LINEAR] = 3, [NNC_OP_MAXPOOL] = 3, [NNC_OP_DROPOUT] = 2}},
    {"vgg16",
     16,
     {[NNC_OP_CONV] = 13, [NNC_OP_LINEAR] = 3, [NNC_OP_MAXPOOL] = 5, [NNC_OP_DROPOUT] = 2}},
    {"resnet18",
     32,
     {[NNC_OP_CONV] = 20,
      [NNC_OP_NORM] = 20,
      [NNC_OP_LINEAR] = 1,
      [NNC_OP_MAXPOOL] = 1,
      [NNC_OP_AVGPOOL] = 1}},
    {"resnet20",
     128,
     {[NNC_OP_CONV] = 21, [NNC_OP_NORM] = 21, [NNC_OP_LINEAR] = 1, [NNC_OP_AVGPOOL] = 1}},
    {"resnet50",
     32,
     {[NNC_OP_CONV] = 53,
      [NNC_OP_NORM] = 53,
      [NNC_OP_LINEAR] = 1,
      [NNC_OP_MAXPOOL] = 1,
      [NNC_OP_AVGPOOL] = 1}},
};

enum {
    MODEL_COUNT = sizeof(models) / sizeof(models[0])
};

Test(program_models, every_activation_and_addition_is_fused) {
    for (size_t row = 0; row < MODEL_COUNT; row++) {
        struct nnc_graph *graph = load(models[row].model);
        struct nnc_program *program = lower(graph, true, models[row].batch);
        uint32_t kinds[NNC_OP_COUNT] = {0};
        for (uint32_t number = 0; number < program->forward_count; number++) {
            kinds[program->ops[number].kind]++;
        }
        for (int kind = NNC_OP_INPUT + 1; kind < NNC_OP_LOSS; kind++) {
            cr_expect_eq(kinds[kind], models[row].kinds[kind], "%s: %u %s", models[row].model,
                         kinds[kind], nnc_op_name((enum nnc_op_kind)kind));
        }
        /* All but the input have a backward operation. */
        cr_expect_eq(program->op_count, 2 * program->forward_count - 1, "%s", models[row].model);
        nnc_program_destroy(program);
        nnc_graph_destroy(graph);
    }
}

Test(program_models, each_trained_parameter_is_in_one_bucket_and_buckets_keep_their_size) {
    for (size_t row = 0; row < MODEL_COUNT; row++) {
        struct nnc_graph *graph = load(models[row].model);
        struct nnc_program *program = lower(graph, true, models[row].batch);
        uint32_t *seen = calloc(graph->param_count, sizeof(*seen));
        uint32_t next = 0;
        for (uint32_t number = 0; number < program->bucket_count; number++) {
            const struct nnc_bucket *bucket = &program->buckets[number];
            uint64_t bytes = 0;
            cr_assert_eq(bucket->first, next);
            for (; next < bucket->first + bucket->count; next++) {
                seen[program->order[next]]++;
                bytes += graph->params[program->order[next]].count * sizeof(float);
            }
            cr_assert(bytes <= 25 << 20 || bucket->count == 1, "%s", models[row].model);
        }
        cr_assert_eq(next, program->order_count);
        for (uint32_t param = 0; param < graph->param_count; param++) {
            bool trained = graph->params[param].kind != NNC_PARAM_BUFFER;
            cr_assert_eq(seen[param], trained, "%s", graph->params[param].name);
        }
        free(seen);
        nnc_program_destroy(program);
        nnc_graph_destroy(graph);
    }
}

static size_t plain_bytes(void *context, uint32_t tensor) {
    struct nnc_program *program = context;
    struct nnc_shape shape = program->tensors[tensor].shape;
    return sizeof(float) * program->batch * shape.c * shape.h * shape.w;
}

static size_t peak_bytes(struct nnc_program *program) {
    size_t peak = 0;
    for (int32_t op = 0; op < (int32_t)program->op_count; op++) {
        size_t live = 0;
        for (uint32_t number = 0; number < program->tensor_count; number++) {
            const struct nnc_tensor *tensor = &program->tensors[number];
            bool lives = tensor->first_op <= op && op <= tensor->last_op;
            live += lives ? (plain_bytes(program, number) + 63) / 64 * 64 : 0;
        }
        peak = live > peak ? live : peak;
    }
    return peak;
}

/* Play the program on a map of the arena in alignment units: each write stamps its tensor, each
 * read must find nothing but its own stamp. */
struct arena_map {
    struct nnc_program *program;
    const size_t *offsets;
    int32_t *owner;
};

static void stamp(struct arena_map *map, int32_t tensor) {
    if (tensor >= 0) {
        size_t units = (plain_bytes(map->program, (uint32_t)tensor) + 63) / 64;
        for (size_t unit = 0; unit < units; unit++) {
            map->owner[map->offsets[tensor] / 64 + unit] = tensor;
        }
    }
}

static void expect_owned(const struct arena_map *map, int32_t tensor, uint32_t op) {
    if (tensor >= 0) {
        size_t units = (plain_bytes(map->program, (uint32_t)tensor) + 63) / 64;
        for (size_t unit = 0; unit < units; unit++) {
            int32_t owner = map->owner[map->offsets[tensor] / 64 + unit];
            cr_assert_eq(owner, tensor, "op %u reads t%d but finds t%d", op, (int)tensor,
                         (int)owner);
        }
    }
}

static void play(struct arena_map *map) {
    for (uint32_t number = 0; number < map->program->op_count; number++) {
        const struct nnc_op *op = &map->program->ops[number];
        bool backward = op->pass == NNC_PASS_BACKWARD;
        if (!backward) {
            stamp(map, op->y);
        }
        if (!op->dx_accumulate) {
            stamp(map, op->dx);
        }
        if (!op->dz_accumulate) {
            stamp(map, op->dz);
        }
        /* After the writes: outputs must not lie on inputs either. */
        const int32_t used[] = {op->x, op->z, op->y, op->dy, op->dx, op->dz};
        for (size_t place = 0; place < sizeof(used) / sizeof(used[0]); place++) {
            expect_owned(map, used[place], number);
        }
    }
    expect_owned(map, map->program->logits, map->program->op_count);
}

static void check_packing(const struct model_row *row, bool training) {
    struct nnc_graph *graph = load(row->model);
    struct nnc_program *program = lower(graph, training, row->batch);
    size_t *offsets = calloc(program->tensor_count, sizeof(*offsets));
    size_t arena_bytes = 0;
    cr_assert_eq(nnc_program_pack(program, plain_bytes, program, 64, offsets, &arena_bytes), 0);
    size_t peak = peak_bytes(program);
    cr_expect(arena_bytes >= peak && (double)arena_bytes <= 1.1 * (double)peak,
              "%s, training %d: arena %zu, peak %zu", row->model, training, arena_bytes, peak);
    struct arena_map map = {program, offsets, calloc(arena_bytes / 64 + 1, sizeof(int32_t))};
    play(&map);
    free(map.owner);
    free(offsets);
    nnc_program_destroy(program);
    nnc_graph_destroy(graph);
}

Test(program_models, packed_tensors_are_whole_when_read_and_waste_little, .timeout = 60) {
    for (size_t row = 0; row < MODEL_COUNT; row++) {
        struct model_row small = models[row];
        small.batch = 2;
        check_packing(&small, true);
        check_packing(&small, false);
    }
}

static size_t absurd_bytes(void *context, uint32_t tensor) {
    (void)context;
    return tensor == 0 ? SIZE_MAX - 10 : 64;
}

Test(program_models, sizes_that_wrap_around_are_refused) {
    struct nnc_graph *graph = load("mlp");
    struct nnc_program *program = lower(graph, true, 1);
    size_t offsets[64];
    size_t arena_bytes = 77;
    cr_assert_eq(nnc_program_pack(program, absurd_bytes, NULL, 64, offsets, &arena_bytes),
                 -EOVERFLOW);
    cr_assert_eq(arena_bytes, 77);
    nnc_program_destroy(program);
    nnc_graph_destroy(graph);
}
