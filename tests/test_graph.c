/* SPDX-License-Identifier: Apache-2.0 */
/* Model texts to graphs: names, shapes and counts of torchvision's models, shape inference,
 * starting values. Mistakes in texts are in test_model_text.c. */
#include "base/err.h"
#include "workers/graph.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct nnc_graph *load(const char *model, const char *args, struct nnc_shape input,
                              uint32_t classes) {
    char path[512];
    snprintf(path, sizeof(path), "%s/models/%s.nn", NNC_TEST_SOURCE_DIR, model);
    struct nnc_graph *graph = NULL;
    int code = nnc_graph_create(
        &(struct nnc_graph_params){
            .path = path, .model_args = args, .input = input, .classes = classes},
        &graph);
    cr_assert_geq(code, 0, "%s: %s", model, nnc_error_text());
    return graph;
}

static struct nnc_graph *parse(const char *text) {
    struct nnc_graph *graph = NULL;
    int code =
        nnc_graph_create(&(struct nnc_graph_params){.path = "test.nn", .text = text}, &graph);
    cr_assert_geq(code, 0, "%s", nnc_error_text());
    return graph;
}

static const struct {
    const char *model;
    uint64_t parameters;
    double gmacs; /* published, three decimals */
} published[] = {
    {"alexnet", 61100840, 0.714},
    {"vgg16", 138357544, 15.470},
    {"resnet18", 11689512, 1.814},
    {"resnet50", 25557032, 4.089},
};

Test(graph, torchvision_models_have_the_published_counts) {
    for (size_t i = 0; i < sizeof(published) / sizeof(published[0]); i++) {
        struct nnc_graph *graph = load(published[i].model, NULL, (struct nnc_shape){0}, 0);
        uint64_t flops = 0;
        for (uint32_t node = 0; node < graph->node_count; node++) {
            flops += graph->nodes[node].flops;
        }
        cr_expect_eq(nnc_graph_parameter_count(graph), published[i].parameters, "%s: %lu",
                     published[i].model, (unsigned long)nnc_graph_parameter_count(graph));
        cr_expect_float_eq((double)flops / 2e9, published[i].gmacs, 5.01e-4, "%s: %.4f GMACs",
                           published[i].model, (double)flops / 2e9);
        cr_expect_eq(graph->classes, 1000);
        cr_expect_str_eq(graph->name, published[i].model);
        nnc_graph_destroy(graph);
    }
}

static void param_line(const struct nnc_param *param, char *line, size_t bytes) {
    int used = snprintf(line, bytes, "%s ", param->name);
    for (uint32_t i = 0; i < param->rank; i++) {
        used +=
            snprintf(line + used, bytes - (size_t)used, "%s%u", i > 0 ? "x" : "", param->dims[i]);
    }
    snprintf(line + used, bytes - (size_t)used, "\n");
}

static void compare_with_golden(const char *model, const struct nnc_graph *graph) {
    char path[512], line[256], mine[256];
    snprintf(path, sizeof(path), "%s/tests/golden/%s.params", NNC_TEST_SOURCE_DIR, model);
    FILE *golden = fopen(path, "r");
    cr_assert_not_null(golden, "%s", path);
    uint32_t number = 0;
    while (fgets(line, sizeof(line), golden) != NULL) {
        if (line[0] == '#') {
            continue;
        }
        cr_assert_lt(number, graph->param_count, "%s ends before %s", model, line);
        param_line(&graph->params[number], mine, sizeof(mine));
        cr_expect_str_eq(mine, line, "%s parameter %u: %s instead of %s", model, number, mine,
                         line);
        number++;
    }
    cr_expect_eq(number, graph->param_count, "%s", model);
    fclose(golden);
}

Test(graph, parameter_names_shapes_and_order_are_torchvisions_state_dict) {
    for (size_t i = 0; i < sizeof(published) / sizeof(published[0]); i++) {
        struct nnc_graph *graph = load(published[i].model, NULL, (struct nnc_shape){0}, 0);
        compare_with_golden(published[i].model, graph);
        nnc_graph_destroy(graph);
    }
}

Test(graph, a_residual_block_wires_body_and_shortcut_to_the_same_input) {
    struct nnc_graph *graph = load("resnet18", NULL, (struct nnc_shape){0}, 10);
    const struct nnc_node *add = NULL;
    for (uint32_t i = 0; i < graph->node_count && add == NULL; i++) {
        bool wanted = strcmp(graph->nodes[i].name, "layer2.0.add") == 0;
        add = wanted ? &graph->nodes[i] : NULL;
    }
    cr_assert_not_null(add);
    cr_assert_eq(add->layer, NNC_LAYER_ADD);
    const struct nnc_node *body = &graph->nodes[add->input[0]];
    const struct nnc_node *shortcut = &graph->nodes[add->input[1]];
    cr_expect_str_eq(body->name, "layer2.0.bn2");
    cr_expect_str_eq(shortcut->name, "layer2.0.downsample.1");
    const struct nnc_node *conv = &graph->nodes[shortcut->input[0]];
    cr_expect_str_eq(graph->nodes[conv->input[0]].name, "layer1.1.1", "%s",
                     graph->nodes[conv->input[0]].name);
    cr_expect_eq(graph->classes, 10);
    nnc_graph_destroy(graph);
}

Test(graph, every_node_comes_after_its_inputs) {
    struct nnc_graph *graph = load("resnet50", NULL, (struct nnc_shape){0}, 0);
    for (int32_t i = 0; i < (int32_t)graph->node_count; i++) {
        cr_expect_lt(graph->nodes[i].input[0], i);
        cr_expect_lt(graph->nodes[i].input[1], i);
        cr_expect_eq(graph->nodes[i].input[1] >= 0, graph->nodes[i].layer == NNC_LAYER_ADD);
    }
    nnc_graph_destroy(graph);
}

Test(graph, small_models_follow_the_data_set) {
    const struct {
        const char *model, *args;
        struct nnc_shape input;
        uint32_t classes;
        uint64_t parameters;
    } rows[] = {
        {"mlp", NULL, {1, 28, 28}, 10, 784 * 1024 + 1024 + 1024 * 10 + 10},
        {"mlp",
         "hidden=16, activation=Sigmoid, output=Sigmoid",
         {3, 2, 2},
         5,
         12 * 16 + 16 + 16 * 5 + 5},
        {"cnn",
         NULL,
         {1, 28, 28},
         10,
         32 * 9 + 32 + 64 * 32 * 9 + 64 + 3136 * 128 + 128 + 1280 + 10},
        {"cnn",
         "width=4,hidden=8",
         {3, 33, 30},
         7,
         4 * 27 + 4 + 8 * 4 * 9 + 8 + 8 * 8 * 7 * 8 + 8 + 56 + 7},
        {"resnet20", NULL, {3, 32, 32}, 10, 272474},
        {"resnet20", NULL, {1, 28, 28}, 10, 272474 - 288},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct nnc_graph *graph = load(rows[i].model, rows[i].args, rows[i].input, rows[i].classes);
        cr_expect_eq(nnc_graph_parameter_count(graph), rows[i].parameters, "row %zu: %s has %lu", i,
                     rows[i].model, (unsigned long)nnc_graph_parameter_count(graph));
        cr_expect_eq(graph->classes, rows[i].classes, "row %zu", i);
        nnc_graph_destroy(graph);
    }
}

Test(graph, the_mlp_is_what_its_arguments_say) {
    struct nnc_graph *graph =
        load("mlp", "activation=Sigmoid,output=Tanh", (struct nnc_shape){1, 28, 28}, 10);
    const enum nnc_layer layers[] = {NNC_LAYER_INPUT,   NNC_LAYER_FLATTEN, NNC_LAYER_LINEAR,
                                     NNC_LAYER_SIGMOID, NNC_LAYER_LINEAR,  NNC_LAYER_TANH};
    cr_assert_eq(graph->node_count, sizeof(layers) / sizeof(layers[0]));
    for (uint32_t i = 0; i < graph->node_count; i++) {
        cr_expect_eq(graph->nodes[i].layer, layers[i], "node %u", i);
    }
    nnc_graph_destroy(graph);
}

Test(graph, output_sizes_are_pytorchs) {
    /* Each text ends with Flatten(), whose features are checked. */
    const struct {
        const char *text;
        uint32_t c, h, w; /* of the node before the last */
    } rows[] = {
        {"input(3, 224, 224) Sequential(Conv2d(3, 64, 7, stride=2, padding=3), Flatten())", 64, 112,
         112},
        {"input(3, 224, 224) Sequential(Conv2d(3, 64, 11, 4, 2), Flatten())", 64, 55, 55},
        {"input(1, 9, 7) Sequential(Conv2d(1, 2, (3, 5), stride=(2, 1), padding=(0, 2)), "
         "Flatten())",
         2, 4, 7},
        {"input(1, 7, 8) Sequential(MaxPool2d(2), Flatten())", 1, 3, 4},
        {"input(1, 7, 8) Sequential(MaxPool2d(3, stride=2, padding=1), Flatten())", 1, 4, 4},
        {"input(1, 7, 8) Sequential(AvgPool2d((7, 1), stride=None), Flatten())", 1, 1, 8},
        {"input(4, 5, 6) Sequential(AdaptiveAvgPool2d((7, 2)), Flatten())", 4, 7, 2},
        {"input(2, 5, 5) Sequential(Residual(Conv2d(2, 2, 3, padding=1), downsample=Identity()), "
         "Flatten())",
         2, 5, 5},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct nnc_graph *graph = parse(rows[i].text);
        const struct nnc_shape *shape = &graph->nodes[graph->node_count - 2].shape;
        cr_expect(shape->c == rows[i].c && shape->h == rows[i].h && shape->w == rows[i].w,
                  "row %zu: %ux%ux%u", i, shape->c, shape->h, shape->w);
        cr_expect_eq(graph->classes, rows[i].c * rows[i].h * rows[i].w, "row %zu", i);
        nnc_graph_destroy(graph);
    }
}

Test(graph, arithmetic_is_pythons) {
    const struct {
        const char *expression;
        uint32_t value;
    } rows[] = {
        {"2 + 3 * 4", 14}, {"(2 + 3) * 4", 20}, {"7 // 2", 3},     {"-7 // 2 + 5", 1},
        {"8 / 2", 4},      {"10 - 2 - 3", 5},   {"2 * -3 + 7", 1}, {"12 // 5 * 5 + 12 - 10", 12},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char text[200];
        snprintf(text, sizeof(text), "input(1,1,1) Sequential(Flatten(), Linear(1, %s))",
                 rows[i].expression);
        struct nnc_graph *graph = parse(text);
        cr_expect_eq(graph->classes, rows[i].value, "%s gives %u", rows[i].expression,
                     graph->classes);
        nnc_graph_destroy(graph);
    }
}

Test(graph, names_follow_positions_keywords_and_wires) {
    struct nnc_graph *graph =
        parse("input(1, 4, 4)\n"
              "def Two(n) = Sequential(Conv2d(n, n, 1), x=Conv2d(n, n, 1))\n"
              "Sequential(a=Two(1), Two(1), Residual(Conv2d(1, 1, 1), ReLU()),\n"
              "    Residual(b=Two(1)), r=Residual(Conv2d(1, 1, 1)), Flatten(),\n"
              "    Repeat(2, Linear(16, 16), ReLU()), end=Linear(16, 2))");
    const char *names[] = {"a.0", "a.x", "1.0", "1.x", "0", "b.0", "b.x", "r.0", "6", "8", "end"};
    cr_assert_eq(graph->param_count, 2 * sizeof(names) / sizeof(names[0]));
    for (uint32_t i = 0; i < graph->param_count; i++) {
        char expected[64];
        snprintf(expected, sizeof(expected), "%s.%s", names[i / 2], i % 2 == 0 ? "weight" : "bias");
        cr_expect_str_eq(graph->params[i].name, expected);
        cr_expect_eq(nnc_graph_find_param(graph, expected), (int32_t)i);
    }
    cr_expect_eq(nnc_graph_find_param(graph, "a.0"), -1);
    nnc_graph_destroy(graph);
}

/* Mean square and largest absolute value of a parameter's start. */
static void start_statistics(const struct nnc_graph *graph, const char *name, double *ret_rms,
                             double *ret_max, double *ret_mean) {
    int32_t number = nnc_graph_find_param(graph, name);
    cr_assert_geq(number, 0, "%s", name);
    uint64_t count = graph->params[number].count;
    float *values = calloc(count, sizeof(*values));
    nnc_graph_init_param(graph, (uint32_t)number, 1, values);
    double squares = 0, sum = 0, largest = 0;
    for (uint64_t i = 0; i < count; i++) {
        squares += (double)values[i] * values[i];
        sum += values[i];
        largest = fmax(largest, fabs((double)values[i]));
    }
    free(values);
    *ret_rms = sqrt(squares / (double)count);
    *ret_max = largest;
    *ret_mean = sum / (double)count;
}

Test(graph, weights_start_as_torchvisions) {
    /* Bounds: 5 standard errors of the sample's root mean square, sigma/sqrt(2n) for a normal one.
     */
    const struct {
        const char *model, *param;
        double rms, max; /* max 0: normal */
    } rows[] = {
        {"resnet18", "layer4.1.conv2.weight", sqrt(2.0 / (512 * 9)), 0},
        {"resnet18", "conv1.weight", sqrt(2.0 / (64 * 49)), 0},
        {"resnet18", "fc.weight", 1 / sqrt(512 * 3.0), 1 / sqrt(512.0)},
        {"resnet18", "bn1.weight", 1, 1},
        {"resnet18", "bn1.running_var", 1, 1},
        {"resnet18", "bn1.bias", 0, 0},
        {"vgg16", "features.10.weight", sqrt(2.0 / (256 * 9)), 0},
        {"vgg16", "features.10.bias", 0, 0},
        {"vgg16", "classifier.6.weight", 0.01, 0},
        {"vgg16", "classifier.6.bias", 0, 0},
        {"alexnet", "features.3.weight", 1 / sqrt(64 * 25 * 3.0), 1 / sqrt(64 * 25.0)},
        {"alexnet", "features.3.bias", 1 / sqrt(64 * 25 * 3.0), 1 / sqrt(64 * 25.0)},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct nnc_graph *graph = load(rows[i].model, NULL, (struct nnc_shape){0}, 0);
        int32_t number = nnc_graph_find_param(graph, rows[i].param);
        double n = (double)graph->params[number].count, rms, max, mean;
        start_statistics(graph, rows[i].param, &rms, &max, &mean);
        double bound = 5 * rows[i].rms / sqrt(2 * n);
        cr_expect_float_eq(rms, rows[i].rms, bound + 1e-12, "%s %s: rms %g, not %g", rows[i].model,
                           rows[i].param, rms, rows[i].rms);
        if (rows[i].max != 0) {
            cr_expect_leq(max, rows[i].max * (1 + 1e-6), "%s: %g", rows[i].param, max);
            cr_expect_geq(max, rows[i].max * 0.9, "%s: %g", rows[i].param, max);
        }
        if (rows[i].max != 1) {
            cr_expect_leq(fabs(mean), 5 * rows[i].rms / sqrt(n), "%s: mean %g", rows[i].param,
                          mean);
        }
        nnc_graph_destroy(graph);
    }
}

Test(graph, a_start_depends_on_seed_and_parameter_only) {
    struct nnc_graph *graph = load("mlp", "hidden=4", (struct nnc_shape){1, 2, 2}, 3);
    float first[16], second[16], other[16];
    nnc_graph_init_param(graph, 0, 7, first);
    nnc_graph_init_param(graph, 0, 7, second);
    nnc_graph_init_param(graph, 0, 8, other);
    cr_expect_arr_eq(first, second, sizeof(first));
    cr_expect_neq(memcmp(first, other, sizeof(first)), 0);
    nnc_graph_destroy(graph);
}

Test(graph, blocks_of_a_large_parameter_do_not_repeat) {
    struct nnc_graph *graph = load("mlp", "hidden=4096", (struct nnc_shape){1, 28, 28}, 10);
    const size_t block = (size_t)1 << 20;
    int32_t number = nnc_graph_find_param(graph, "fc1.weight");
    cr_assert_gt(graph->params[number].count, 3 * block);
    float *values = malloc(graph->params[number].count * sizeof(*values));
    nnc_graph_init_param(graph, (uint32_t)number, 3, values);
    for (size_t i = 1; i < 3; i++) {
        cr_expect_neq(memcmp(values, values + i * block, 1000 * sizeof(*values)), 0, "block %zu",
                      i);
    }
    free(values);
    nnc_graph_destroy(graph);
}
