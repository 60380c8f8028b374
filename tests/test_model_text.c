/* SPDX-License-Identifier: Apache-2.0 */
/* Mistakes in model texts: each is answered with file, line, column, the layer's path and the
 * shapes, and hostile texts end in an error within the limits. */
#include "base/err.h"
#include "base/rng.h"
#include "workers/graph.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int parse(const char *text, struct nnc_graph **ret_graph) {
    return nnc_graph_create(&(struct nnc_graph_params){.path = "t.nn", .text = text}, ret_graph);
}

struct mistake {
    const char *text, *said;
};

static void expect_mistakes(const struct mistake *rows, size_t count, const char *before) {
    for (size_t i = 0; i < count; i++) {
        char text[2000];
        struct nnc_graph *graph = NULL;
        snprintf(text, sizeof(text), "%s%s", before, rows[i].text);
        int code = parse(text, &graph);
        cr_expect_eq(code, -NNC_E_USAGE, "%s gives %d", rows[i].text, code);
        cr_expect_null(graph);
        cr_expect_str_eq(nnc_error_text(), rows[i].said, "\n%s\nsays     %s\nexpected %s",
                         rows[i].text, nnc_error_text(), rows[i].said);
        nnc_graph_destroy(graph);
    }
}

#define COUNT(rows) (sizeof(rows) / sizeof((rows)[0]))

Test(model_text, shapes_that_do_not_meet_are_named_with_place_path_and_both_shapes) {
    static const struct mistake rows[] = {
        {"Sequential(conv1=Conv2d(64, 8, 3))",
         "t.nn:2:18: conv1 Conv2d expects 64 channels, its input is 3x8x8"},
        {"def Block(c) = Sequential(Residual(\n  conv1=Conv2d(c, c, 3),\n  bn1=BatchNorm2d(2 * "
         "c)))\n"
         "Sequential(layer1=Sequential(Block(3)), Flatten())",
         "t.nn:4:7: layer1.0.bn1 BatchNorm2d expects 6 channels, its input is 3x6x6"},
        {"Sequential(Conv2d(3, 8, 3), Linear(8, 2))",
         "t.nn:2:29: 1 Linear expects 8 features, its input is an image 8x6x6: put Flatten() "
         "before"},
        {"Sequential(AdaptiveAvgPool2d(1), fc=Linear(3, 2))",
         "t.nn:2:37: fc Linear expects 3 features, its input is an image 3x1x1: put Flatten() "
         "before"},
        {"Sequential(Flatten(), fc=Linear(100, 2))",
         "t.nn:2:26: fc Linear expects 100 features, its input has 192"},
        {"Sequential(Flatten(), Conv2d(3, 8, 3))",
         "t.nn:2:23: 1 Conv2d expects an image (CxHxW), its input is flat with 192 features"},
        {"Sequential(Conv2d(3, 8, 11, padding=1))",
         "t.nn:2:12: 0 Conv2d has a 11x11 window with padding 1x1, which does not fit its input "
         "3x8x8"},
        {"Sequential(MaxPool2d(3, padding=2))",
         "t.nn:2:12: 0 MaxPool2d may be padded by at most half its window (3x3)"},
        {"Sequential(MaxPool2d(3, padding=(2, 0)))",
         "t.nn:2:12: 0 MaxPool2d may be padded by at most half its window (3x3)"},
        {"Sequential(AvgPool2d((5, 3), padding=(2, 2)))",
         "t.nn:2:12: 0 AvgPool2d may be padded by at most half its window (5x3)"},
        {"Sequential(AdaptiveAvgPool2d(1), Residual(Flatten()))",
         "t.nn:2:34: add Add cannot add: the body of the Residual gives 3, the shortcut 3x1x1 "
         "(downsample=... changes the shortcut)"},
        {"Sequential(layer1=Sequential(Residual(Conv2d(3, 8, 3, padding=1))))",
         "t.nn:2:30: layer1.add Add cannot add: the body of the Residual gives 8x8x8, the shortcut "
         "3x8x8 (downsample=... changes the shortcut)"},
        {"Sequential(Residual(Flatten()))",
         "t.nn:2:12: add Add cannot add: the body of the Residual gives 192, the shortcut 3x8x8 "
         "(downsample=... changes the shortcut)"},
        {"Sequential(x=Conv2d(3, 8, 3))",
         "t.nn:2:14: x Conv2d is the end of the model and gives an image 8x6x6: end with Flatten() "
         "and Linear(features, num_classes)"},
        {"Sequential()",
         "t.nn:1:1: input Input is the end of the model and gives an image 3x8x8: end with "
         "Flatten() and Linear(features, num_classes)"},
    };
    expect_mistakes(rows, COUNT(rows), "input(3, 8, 8)\n");
}

Test(model_text, arguments_are_checked_against_the_layers_table) {
    static const struct mistake rows[] = {
        {"Conv2d(3, 8, 3, groups=2)",
         "t.nn:2:17: Conv2d has no argument groups (it has: in_channels, out_channels, "
         "kernel_size, stride, padding, bias)"},
        {"Conv2d(3, 8)", "t.nn:2:1: Conv2d needs kernel_size"},
        {"Conv2d(3, 8, 3, 1, 1, True, 1)", "t.nn:2:29: Conv2d takes 6 arguments at most"},
        {"Conv2d(3, 8, 3, kernel_size=3)", "t.nn:2:17: kernel_size is given twice to Conv2d"},
        {"Conv2d(3, 0, 3)",
         "t.nn:2:1: Conv2d takes a whole number from 1 to 2147483648 as out_channels"},
        {"Conv2d(3, 8.5, 3)",
         "t.nn:2:1: Conv2d takes a whole number from 1 to 2147483648 as out_channels"},
        {"Conv2d(3, 8, (3, 0))",
         "t.nn:2:1: Conv2d takes a whole number from 1 or a pair (height, width) as kernel_size"},
        {"Conv2d(3, 8, 3, padding=-1)",
         "t.nn:2:1: Conv2d takes a whole number from 0 or a pair (height, width) as padding"},
        {"Conv2d(3, 8, 3, bias=1)", "t.nn:2:1: Conv2d takes True or False as bias"},
        {"Conv2d(3, 8, 3, stride=None)",
         "t.nn:2:1: Conv2d takes a whole number from 1 or a pair (height, width) as stride"},
        {"Dropout(1.5)", "t.nn:2:1: Dropout takes a number from 0 to 0.999 as p"},
        {"Dropout(ReLU)", "t.nn:2:1: Dropout takes a number from 0 to 0.999 as p"},
        {"ReLU(6, 7)", "t.nn:2:9: ReLU takes 1 arguments at most"},
        {"Tanh(x=1)", "t.nn:2:6: Tanh has no argument x (it has: none)"},
    };
    expect_mistakes(rows, COUNT(rows), "input(3, 8, 8)\n");
}

Test(model_text, grammar_and_names_are_checked) {
    static const struct mistake rows[] = {
        {"", "t.nn:2:1: a definition or a module expected, the text ends"},
        {"Sequential(", "t.nn:2:12: a module or a value expected, the text ends"},
        {"Sequential(ReLU() Tanh())",
         "t.nn:2:19: ',' or the end of the arguments expected, not 'Tanh'"},
        {"Flatten() Flatten()",
         "t.nn:2:11: the end of the text (the model stands last) expected, not 'Flatten'"},
        {"Flatten", "t.nn:2:1: Flatten is the name of a module; write Flatten(...) to use it"},
        {"Sequential(3)", "t.nn:2:12: a module is needed here, such as Linear(784, 10)"},
        {"Sequential(Foo())", "t.nn:2:12: Foo is neither a layer nor a definition"},
        {"Sequential(Dropout(p=q))", "t.nn:2:22: q is neither a parameter nor a module"},
        {"Sequential(Dropout(p=ReLU()))",
         "t.nn:2:22: ReLU(...) is a module; a value is needed here (name modules without "
         "parentheses)"},
        {"Dropout(3=4)", "t.nn:2:10: a name before '=' expected, not '='"},
        {"Dropout(1x)", "t.nn:2:9: not a number"},
        {"Dropout(1.5.5)", "t.nn:2:12: ',' or the end of the arguments expected, not '.5'"},
        {"Dropout(1e999)", "t.nn:2:9: 1e999 is not a number"},
        {"Linear(99999999999999999999, 1)", "t.nn:2:8: 99999999999999999999 is too large"},
        {"Flatten();", "t.nn:2:10: ';' has no meaning here"},
        {"Flatten()\x01", "t.nn:2:10: byte 0x01 has no meaning here"},
        {"Flatten(\xc3\xa9)", "t.nn:2:9: byte 0xc3 has no meaning here"},
        {"Dropout(1 / 0)", "t.nn:2:11: the result of the arithmetic is out of range"},
        {"Dropout(9007199254740992 * 9007199254740992)",
         "t.nn:2:26: the result of the arithmetic is out of range"},
        {"Dropout(True + 1)", "t.nn:2:9: a number is needed here"},
        {"Conv2d(3, 8, (1, 2.5))", "t.nn:2:14: a pair holds two whole numbers"},
        {"def A() = Flatten() def A() = Flatten()", "t.nn:2:25: A is defined already in line 2"},
        {"def A(x, x) = Flatten()", "t.nn:2:10: two parameters are called x"},
        {"def A(3) = Flatten()", "t.nn:2:7: a parameter is a name, or a name = a default value"},
        {"def A(x) = Flatten()", "t.nn:2:5: A needs a value for x: --model-args x=..."},
        {"def A(x) = Flatten() A()", "t.nn:2:22: A needs a value for x"},
        {"def A(x) = x() A(3)", "t.nn:2:12: the parameter called here does not name a module"},
        {"def Conv2d() = Flatten()",
         "t.nn:2:5: Conv2d is a module of the language and cannot be defined again"},
        {"def A() = B() def B() = A()", "t.nn:2:11: B calls itself"},
        {"def A(f) = f(f) Sequential(A(A))", "t.nn:2:12: A calls itself"},
        {"input(1, 2, 3) Flatten()", "t.nn:2:1: input stands in line 1 already"},
        {"Repeat(3, ReLU())", "t.nn:2:1: Repeat stands inside a Sequential or a Residual only"},
        {"Sequential(x=Repeat(3, ReLU()))",
         "t.nn:2:14: Repeat is no module and has no name; name its parent"},
        {"Sequential(Repeat(-1, ReLU()))",
         "t.nn:2:19: the count of Repeat is a whole number from 0"},
        {"Sequential(Repeat())", "t.nn:2:12: Repeat is written Repeat(n, module, ...)"},
        {"Sequential(Residual(downsample=Conv2d(3, 3, 1)))",
         "t.nn:2:12: a Residual needs at least one layer besides downsample"},
        {"Sequential(Residual(Tanh(), downsample=Tanh(), downsample=Tanh()))",
         "t.nn:2:59: a Residual has one downsample"},
        {"Sequential(Residual(Conv2d(3, 3, 1)), Residual(Conv2d(3, 3, 1)), Flatten())",
         "t.nn:2:48: 0 Conv2d gives the name 0.bias to a second parameter: give one of the modules "
         "a name of its own (NAME=...)"},
        {"init(linear_weight=normal) Flatten()",
         "t.nn:2:20: a rule of init is a number, default, normal(deviation), uniform(bound), "
         "kaiming_normal_fan_in, kaiming_normal_fan_out or xavier_uniform"},
        {"init(conv=3) Flatten()",
         "t.nn:2:6: init has no argument conv (it has: conv_weight, conv_bias, linear_weight, "
         "linear_bias)"},
    };
    expect_mistakes(rows, COUNT(rows), "input(3, 8, 8)\n");
}

Test(model_text, the_input_is_checked_and_must_be_known) {
    static const struct mistake rows[] = {
        {"Flatten()",
         "t.nn:1:1: the size of the images is not known: give --input CxHxW, or put input(C, H, "
         "W) into the text"},
        {"input(1, 2) Flatten()", "t.nn:1:1: write input(channels, height, width)"},
        {"input(1, 2, 0) Flatten()", "t.nn:1:1: write input(channels, height, width)"},
        {"input(1, 2, 3, 4) Flatten()", "t.nn:1:16: input takes 3 arguments at most"},
        {"input Flatten()", "t.nn:1:1: input needs arguments in parentheses"},
        {"input(2147483648, 2147483648, 1) Flatten()",
         "t.nn:1:1: input Input has an output of 2147483648x2147483648x1, which is too large"},
    };
    expect_mistakes(rows, COUNT(rows), "");
}

Test(model_text, model_arguments_are_checked) {
    const struct {
        const char *args, *said;
    } rows[] = {
        {"b=3", "--model-args:1:1: m has no argument b (it has: num_classes, f)"},
        {"num_classes=", "--model-args:1:13: a module or a value expected, the text ends"},
        {"num_classes=3 4", "--model-args:1:15: ',' or the end of the arguments expected, not '4'"},
        {"f=Foo", "--model-args:1:3: Foo is neither a parameter nor a module"},
        {"num_classes=2", "gives 2 classes, the data set has 5: let the text use a parameter"},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct nnc_graph_params params = {
            .path = "t.nn",
            .model_args = rows[i].args,
            .classes = 5,
            .text = "input(1,1,1) def m(num_classes, f=ReLU) = Sequential(Flatten(),\n"
                    "Linear(1, num_classes), f())"};
        struct nnc_graph *graph = NULL;
        cr_expect_eq(nnc_graph_create(&params, &graph), -NNC_E_USAGE, "%s", rows[i].args);
        cr_expect_not_null(strstr(nnc_error_text(), rows[i].said), "%s says %s", rows[i].args,
                           nnc_error_text());
    }
}

/* n times `part`, between `before` and `after`. Owner: caller frees. */
static char *repeated(const char *before, const char *part, size_t n, const char *after) {
    size_t length = strlen(before) + n * strlen(part) + strlen(after) + 1;
    char *text = malloc(length);
    char *at = stpcpy(text, before);
    for (size_t i = 0; i < n; i++) {
        at = stpcpy(at, part);
    }
    stpcpy(at, after);
    return text;
}

Test(model_text, limits_hold_against_texts_that_want_too_much) {
    const struct {
        const char *before, *part;
        size_t n;
        const char *after, *said;
    } rows[] = {
        {"input(1,1,1) Dropout(", "(", 100000, "1", "nested deeper than 64"},
        {"input(1,1,1) Dropout(", "-", 100000, "1", "nested deeper than 64"},
        {"input(1,1,1) Dropout(1", "+1", 1000, ")", "nested deeper than 64"},
        {"input(1,1,1) ", "Sequential(", 1000, "", "nested deeper than 64"},
        {"input(1,1,1) Sequential(", "ReLU(),", 10001, ")", "at most 10000 layers"},
        {"input(1,1,1) Sequential(", "Identity(),", 90000, "Flatten())", ""},
        {"input(1,1,1) Sequential(", "Tanh(1,2),", 70000, ")", "200000 expressions"},
        {"input(1,1,1) #", "x", 1100000, "", "at most 1048576 bytes"},
        {"", "x", 64, "()", "a name has at most 63 bytes"},
        {"input(1,1,1) ", "def x() = ReLU() ", 2, "", "defined already"},
        {"input(1,1,1) Sequential(Repeat(999999999999, Identity()))", "", 0, "", "1000000 steps"},
        {"input(1,1,1) Sequential(Repeat(1000, Repeat(1000, Repeat(1000, Repeat(0, ReLU())))))", "",
         0, "", "1000000 steps"},
        {"input(1,1,1) def a() = Sequential(Identity(), Identity())\n"
         "def b() = Sequential(Repeat(99, a())) def c() = Sequential(Repeat(99, b()))\n"
         "def d() = Sequential(Repeat(99, c())) d()",
         "", 0, "", "1000000 steps"},
        {"input(1,1,1) Conv2d(1, 2147483648, (2147483648, 1), padding=2147483648)", "", 0, "",
         "Conv2d"},
        {"input(1024,1024,1024) Conv2d(1024, 1048576, 1)", "", 0, "", "too large"},
        {"input(1,2147483648,1) Sequential(Conv2d(1, 1, 1, padding=2147483648))", "", 0, "",
         "does not fit"},
        {"input(1,1,1) Sequential(Flatten(), Linear(1, 2147483648), Linear(2147483648, "
         "2147483648))",
         "", 0, "", "too many weights"},
        {"input(1,1,1) Sequential(a=",
         "Sequential(aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa=", 5, "ReLU()))))))",
         "too long"},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        char *text = repeated(rows[i].before, rows[i].part, rows[i].n, rows[i].after);
        struct nnc_graph *graph = NULL;
        int code = parse(text, &graph);
        bool fine = rows[i].said[0] == '\0';
        cr_expect_eq(code, fine ? 0 : -NNC_E_USAGE, "row %zu: %d %s", i, code, nnc_error_text());
        cr_expect(fine || strstr(nnc_error_text(), rows[i].said) != NULL, "row %zu says %s", i,
                  nnc_error_text());
        nnc_graph_destroy(graph);
        free(text);
    }
}

Test(model_text, flipped_bytes_of_a_real_text_never_break_the_parser) {
    char path[512], whole[8192], text[8192];
    snprintf(path, sizeof(path), "%s/models/resnet20.nn", NNC_TEST_SOURCE_DIR);
    FILE *file = fopen(path, "r");
    cr_assert_not_null(file);
    size_t length = fread(whole, 1, sizeof(whole) - 1, file);
    fclose(file);
    struct nnc_rng rng = nnc_rng_make(6, NNC_RNG_SYNTHETIC, 0, 0);
    static const char bytes[] = "(),=+-*/0123456789 abcdefRSCL#\n\x80";
    for (int i = 0; i < 2000; i++) {
        memcpy(text, whole, length);
        text[length] = '\0';
        for (uint32_t n = 0; n <= nnc_rng_below(&rng, 3); n++) {
            text[nnc_rng_below(&rng, (uint32_t)length)] =
                bytes[nnc_rng_below(&rng, sizeof(bytes) - 1)];
        }
        struct nnc_graph *graph = NULL;
        int code = parse(text, &graph);
        cr_assert(code == 0 || code == -NNC_E_USAGE, "round %d: %d %s", i, code, nnc_error_text());
        cr_assert(code == 0 || strstr(nnc_error_text(), "t.nn:") != NULL, "%s", nnc_error_text());
        nnc_graph_destroy(graph);
    }
}

Test(model_text, the_example_of_the_language_page_is_a_model) {
    char path[512], page[16384];
    snprintf(path, sizeof(path), "%s/models/LANGUAGE.md", NNC_TEST_SOURCE_DIR);
    FILE *file = fopen(path, "r");
    cr_assert_not_null(file);
    page[fread(page, 1, sizeof(page) - 1, file)] = '\0';
    fclose(file);
    char *begin = strstr(page, "```\n");
    cr_assert_not_null(begin);
    char *end = strstr(begin + 4, "```");
    cr_assert_not_null(end);
    *end = '\0';
    struct nnc_graph *graph = NULL;
    cr_expect_eq(parse(begin + 4, &graph), 0, "%s", nnc_error_text());
    nnc_graph_destroy(graph);
}

Test(model_text, what_is_no_regular_file_is_refused) {
    struct nnc_graph *graph = NULL;
    cr_expect_lt(nnc_graph_create(&(struct nnc_graph_params){.path = "/dev/zero"}, &graph), 0);
    cr_expect_lt(nnc_graph_create(&(struct nnc_graph_params){.path = "/"}, &graph), 0);
    cr_expect_eq(nnc_graph_create(&(struct nnc_graph_params){.path = "/nonexistent.nn"}, &graph),
                 -NNC_E_USAGE);
    cr_expect_not_null(strstr(nnc_error_text(), "/nonexistent.nn"));
}

Test(model_text, a_zero_byte_in_a_file_is_an_error_at_its_place) {
    char path[] = "/tmp/nnc-model-XXXXXX";
    int fd = mkstemp(path);
    cr_assert_geq(fd, 0);
    static const char text[] = "input(1, 1, 1)\nFlatten(\0)";
    cr_assert_eq(write(fd, text, sizeof(text) - 1), (ssize_t)sizeof(text) - 1);
    close(fd);
    struct nnc_graph *graph = NULL;
    cr_expect_eq(nnc_graph_create(&(struct nnc_graph_params){.path = path}, &graph), -NNC_E_USAGE);
    cr_expect_not_null(strstr(nnc_error_text(), ":2:9: byte 0x00"), "%s", nnc_error_text());
    unlink(path);
}
