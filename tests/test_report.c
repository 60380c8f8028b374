/* SPDX-License-Identifier: Apache-2.0 */
/* What `nncoord models` prints. */
#include "base/err.h"
#include "workers/report.h"

#include <criterion/criterion.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

/* Run a models command; the caller frees *ret_text. */
static int run(const char *subverb, char **args, const struct nnc_config *config, char **ret_text) {
    struct nnc_command command = {.verb = "models", .config = *config, .args = args};
    strcpy(command.subverb, subverb);
    while (args != NULL && args[command.arg_count] != NULL) {
        command.arg_count++;
    }
    size_t bytes = 0;
    FILE *out = open_memstream(ret_text, &bytes);
    cr_assert_not_null(out);
    int code = nnc_report_command(&command, NULL, out);
    fclose(out);
    return code;
}

Test(report, show_prints_layers_shapes_parameters_and_flops) {
    char *text = NULL, *args[] = {(char[]){"resnet50"}, NULL};
    struct nnc_config config = {.input = "3x224x224"};
    cr_assert_eq(run("show", args, &config, &text), 0, "%s", nnc_error_text());
    const char *const wanted[] = {
        "resnet50, input 3x224x224, 1000 classes",
        "conv1                  Conv2d             64x112x112            9,408      236.03\n",
        "layer4.2.add           Add                2048x7x7\n",
        "layer1.0.downsample.0  Conv2d             256x56x56            16,384      102.76\n",
        "fc                     Linear             1000              2,049,000        4.10\n",
        "parameters  25,557,032\n",
        "GMACs       4.089 ",
        "GFLOPs      8.178 ",
    };
    for (size_t i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++) {
        cr_expect_not_null(strstr(text, wanted[i]), "%s is not in:\n%s", wanted[i], text);
    }
    free(text);
}

Test(report, show_as_json_has_the_same_figures) {
    char *text = NULL, *args[] = {(char[]){"cnn"}, NULL};
    struct nnc_config config = {.json = true, .model_args = "num_classes=7", .input = "3x32x32"};
    cr_assert_eq(run("show", args, &config, &text), 0, "%s", nnc_error_text());
    json_t *json = json_loads(text, 0, NULL);
    cr_assert_not_null(json, "%s", text);
    const json_t *layers = json_object_get(json, "layers");
    json_int_t parameters = 0, flops = 0;
    for (size_t i = 0; i < json_array_size(layers); i++) {
        const json_t *layer = json_array_get(layers, i);
        parameters += json_integer_value(json_object_get(layer, "parameters"));
        flops += json_integer_value(json_object_get(layer, "flops"));
    }
    cr_expect_eq(json_array_size(layers), 12);
    cr_expect_eq(json_integer_value(json_object_get(json, "parameters")), parameters);
    cr_expect_eq(parameters, 32 * 27 + 32 + 64 * 288 + 64 + 4096 * 128 + 128 + 128 * 7 + 7);
    cr_expect_eq(json_integer_value(json_object_get(json, "flops")), flops);
    cr_expect_eq(2 * json_integer_value(json_object_get(json, "macs")), flops);
    cr_expect_eq(flops, 2 * (1024 * 864 + 256 * 18432 + 4096 * 128 + 128 * 7));
    cr_expect_eq(json_integer_value(json_object_get(json, "classes")), 7);
    const json_t *first = json_object_get(json_array_get(layers, 0), "output");
    cr_expect_eq(json_array_size(first), 3);
    cr_expect_eq(json_integer_value(json_array_get(first, 2)), 32);
    json_decref(json);
    free(text);
}

Test(report, the_list_has_every_model_with_its_first_comment) {
    char *text = NULL;
    struct nnc_config config = {.json = false};
    cr_assert_eq(run("", NULL, &config, &text), 0, "%s", nnc_error_text());
    cr_expect_not_null(strstr(text, "alexnet       61,100,840     0.714  3x224x224    AlexNet as"),
                       "%s", text);
    cr_expect_not_null(strstr(text, "\nvgg16        138,357,544    15.470"), "%s", text);
    cr_expect_null(strstr(text, "mistake"), "%s", text);
    free(text);
    config.json = true;
    cr_assert_eq(run("", NULL, &config, &text), 0, "%s", nnc_error_text());
    json_t *json = json_loads(text, 0, NULL);
    cr_assert_not_null(json, "%s", text);
    const json_t *models = json_object_get(json, "models");
    cr_expect_geq(json_array_size(models), 7);
    for (size_t i = 0; i < json_array_size(models); i++) {
        const json_t *model = json_array_get(models, i);
        cr_expect_gt(json_integer_value(json_object_get(model, "parameters")), 0, "%s", text);
        cr_expect_gt(json_string_length(json_object_get(model, "description")), 10, "%s", text);
    }
    json_decref(json);
    free(text);
}

Test(report, without_a_name_the_model_of_the_configuration_is_shown) {
    char *text = NULL;
    struct nnc_config config = {.model = "mlp", .model_args = "hidden=8"};
    cr_assert_eq(run("show", NULL, &config, &text), 0, "%s", nnc_error_text());
    cr_expect_eq(strncmp(text, "mlp, input 1x28x28, 10 classes", 30), 0, "%s", text);
    free(text);
}

Test(report, wrong_inputs_are_refused) {
    static const char *const rows[] = {"3x224",  "3x224x",     "axbxc",  "3x224x224x1", "0x1x1",
                                       "1 x2x3", "3x224x224 ", "-3x2x2", "1x+2x3"};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct nnc_shape shape = {9, 9, 9};
        cr_expect_eq(nnc_report_parse_input(rows[i], &shape), -NNC_E_USAGE, "%s", rows[i]);
        cr_expect_eq(shape.c, 9);
    }
    struct nnc_shape shape;
    cr_expect_eq(nnc_report_parse_input("3x224x192", &shape), 0);
    cr_expect(shape.c == 3 && shape.h == 224 && shape.w == 192);
}

Test(report, a_report_that_cannot_be_written_is_an_error) {
    FILE *full = fopen("/dev/full", "w");
    cr_assert_not_null(full);
    cr_expect_lt(nnc_report_models(NULL, false, full), 0);
    fclose(full);
}
