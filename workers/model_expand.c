/* SPDX-License-Identifier: Apache-2.0 */
/* The tree of a model text to a graph: definitions are expanded where they are called, containers
 * wire their children, every layer becomes a node with its module path.
 *
 *   Sequential(a, x=b)   children one after the other; paths "0", "x" (unnamed: position among
 * children) Residual(a, b)       children one after the other, plus the input; an unnamed Residual
 * is a wire and adds nothing to the path; downsample=m puts m on the shortcut Repeat(n, a, b)
 * inside another container: its children n times, as if written n times definition(...)      its
 * body with the parameters bound; adds nothing to the path
 *
 * Invariants: 1. a definition that is being expanded is not expanded again (no recursion); 2. depth
 * and work are bounded, so that a small text cannot keep us busy for long. Source:
 * torch.nn.Module.named_modules() for the paths. */
#include "workers/model_expand.h"

#include "workers/model_layers.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

struct expansion {
    const struct nnc_model_file *file;
    struct nnc_graph_build *build;
    struct nnc_value_context context;
    char path[NNC_GRAPH_NAME_MAX];
    uint32_t depth;
    const struct nnc_model_def *active[NNC_MODEL_DEPTH_MAX + 1]; /* definitions being expanded */
    uint32_t active_count;
};

/* A module to expand: the call, where its names are looked up, and its name in the parent. */
struct module_use {
    const struct nnc_model_expr *call;
    const struct nnc_model_frame *frame;
    const char *keyword; /* NULL: unnamed */
    int64_t position;    /* of an unnamed module; -1: the root */
};

struct container {
    const char *name;
    int (*expand)(struct expansion *x, const struct module_use *use, int32_t *node);
};

static int expand_module(struct expansion *x, const struct module_use *use, int32_t *node);
static int expand_sequential(struct expansion *x, const struct module_use *use, int32_t *node);
static int expand_residual(struct expansion *x, const struct module_use *use, int32_t *node);
static int expand_stray_repeat(struct expansion *x, const struct module_use *use, int32_t *node);

static const struct container containers[] = {
    {"Sequential", expand_sequential},
    {"Residual", expand_residual},
    {"Repeat", expand_stray_repeat},
};

static const struct container *find_container(const char *name) {
    for (size_t i = 0; i < sizeof(containers) / sizeof(containers[0]); i++) {
        if (strcmp(containers[i].name, name) == 0) {
            return &containers[i];
        }
    }
    return NULL;
}

static bool is_language_module(const char *name) {
    return find_container(name) != NULL || nnc_layer_find(name) != NULL;
}

static bool is_module(const void *context, const char *name) {
    return is_language_module(name) || nnc_model_find_def(context, name) != NULL;
}

static int fail_at(const struct expansion *x, const struct nnc_model_expr *expr,
                   const char *message) {
    return nnc_model_fail(x->file->file, expr->line, expr->column, "%s%s%s", x->path,
                          x->path[0] != '\0' ? ": " : "", message);
}

/* Add the module's name to the path; *ret_length is what pop_path() needs to take it off again. */
static int push_path(struct expansion *x, const struct module_use *use, size_t *ret_length) {
    size_t length = strlen(x->path);
    size_t room = sizeof(x->path) - length;
    const char *dot = length > 0 ? "." : "";
    int added = 0;
    if (use->keyword != NULL) {
        added = snprintf(x->path + length, room, "%s%s", dot, use->keyword);
    } else if (use->position >= 0) {
        added = snprintf(x->path + length, room, "%s%lld", dot, (long long)use->position);
    }
    if (added < 0 || (size_t)added >= room) {
        x->path[length] = '\0';
        return fail_at(x, use->call, "the path of the module inside is too long");
    }
    *ret_length = length;
    return 0;
}

static void pop_path(struct expansion *x, size_t length) {
    x->path[length] = '\0';
}

/* The name a call stands for: that of a module, possibly through a parameter of the frame. */
static int callee_name(const struct expansion *x, const struct module_use *use,
                       const char **ret_name) {
    const struct nnc_model_expr *call = use->call;
    if (call->kind == NNC_EXPR_NAME && is_module(x->file, call->name)) {
        char message[2 * NNC_MODEL_NAME_MAX + 64];
        snprintf(message, sizeof(message), "%s is the name of a module; write %s(...) to use it",
                 call->name, call->name);
        return fail_at(x, call, message);
    }
    if (call->kind != NNC_EXPR_CALL) {
        return fail_at(x, call, "a module is needed here, such as Linear(784, 10)");
    }
    const struct nnc_value *bound = nnc_frame_find(use->frame, call->name);
    const char *name = bound != NULL ? bound->module : call->name;
    if (bound != NULL && bound->kind != NNC_VALUE_MODULE) {
        return fail_at(x, call, "the parameter called here does not name a module");
    }
    if (!is_module(x->file, name)) {
        return nnc_model_fail(x->file->file, call->line, call->column,
                              "%s is neither a layer nor a definition", name);
    }
    *ret_name = name;
    return 0;
}

static struct nnc_node new_node(const struct expansion *x, const struct nnc_model_expr *call,
                                int32_t input) {
    struct nnc_node node = {
        .input = {input, -1},
        .weight = -1,
        .bias = -1,
        .running_mean = -1,
        .running_var = -1,
        .line = call->line,
        .column = call->column,
    };
    memcpy(node.name, x->path, sizeof(node.name));
    return node;
}

static int expand_layer(struct expansion *x, const struct nnc_layer_row *row,
                        const struct module_use *use, int32_t *node) {
    size_t length;
    int code = push_path(x, use, &length);
    if (code < 0) {
        return code;
    }
    struct nnc_node made = new_node(x, use->call, *node);
    code = nnc_layer_add(&x->context, x->build, row, use->call, use->frame, &made, node);
    pop_path(x, length);
    return code;
}

/* Bind the parameters of a definition: given arguments (evaluated where the call stands), then
 * defaults (which may use the parameters before them). */
static int bind_params(struct expansion *x, const struct module_use *use,
                       const struct nnc_model_def *def, struct nnc_model_frame *frame) {
    const struct nnc_model_expr *given[NNC_MODEL_PARAMS_MAX];
    int code = nnc_value_match(x->context.file, use->call, def->params, def->param_count, given);
    for (uint32_t i = 0; i < def->param_count && code >= 0; i++) {
        const struct nnc_model_expr *expr = given[i] != NULL ? given[i] : def->defaults[i];
        if (expr == NULL) {
            return nnc_model_fail(x->context.file, use->call->line, use->call->column,
                                  "%s needs a value for %s", def->name, def->params[i]);
        }
        code = nnc_value_eval(&x->context, expr, given[i] != NULL ? use->frame : frame,
                              &frame->values[i]);
        frame->bound = i + 1;
    }
    return code;
}

/* Expand the body of a definition; frame holds its parameters. */
static int expand_body(struct expansion *x, const struct nnc_model_def *def,
                       const struct nnc_model_frame *frame, const struct module_use *use,
                       int32_t *node) {
    for (uint32_t i = 0; i < x->active_count; i++) {
        if (x->active[i] == def) {
            return nnc_model_fail(x->file->file, use->call->line, use->call->column,
                                  "%s calls itself", def->name);
        }
    }
    assert(x->active_count <= NNC_MODEL_DEPTH_MAX); /* enter() bounds the depth */
    x->active[x->active_count++] = def;
    struct module_use body = *use;
    body.call = def->body;
    body.frame = frame;
    int code = expand_module(x, &body, node);
    x->active_count--;
    return code;
}

static int expand_def(struct expansion *x, const struct nnc_model_def *def,
                      const struct module_use *use, int32_t *node) {
    struct nnc_model_frame frame = {.def = def};
    int code = bind_params(x, use, def, &frame);
    return code < 0 ? code : expand_body(x, def, &frame, use, node);
}

/* One level deeper; the caller takes x->depth back. */
static int enter(struct expansion *x, const struct nnc_model_expr *expr) {
    if (x->depth >= NNC_MODEL_DEPTH_MAX) {
        return fail_at(x, expr, "modules and definitions are nested deeper than 64 levels");
    }
    x->depth++;
    return nnc_value_step(&x->context, expr);
}

/* Expand one module; *node is its input and becomes its output. */
static int expand_module(struct expansion *x, const struct module_use *use, int32_t *node) {
    const char *name = NULL;
    int code = callee_name(x, use, &name);
    if (code >= 0) {
        code = enter(x, use->call);
    }
    if (code < 0) {
        return code;
    }
    const struct container *container = find_container(name);
    const struct nnc_layer_row *row = nnc_layer_find(name);
    if (container != NULL) {
        code = container->expand(x, use, node);
    } else if (row != NULL) {
        code = expand_layer(x, row, use, node);
    } else {
        code = expand_def(x, nnc_model_find_def(x->file, name), use, node);
    }
    x->depth--;
    return code;
}

static bool is_repeat(const struct nnc_model_expr *expr) {
    return expr->kind == NNC_EXPR_CALL && strcmp(expr->name, "Repeat") == 0;
}

static int expand_children(struct expansion *x, const struct nnc_model_arg *first,
                           const struct nnc_model_frame *frame, int64_t *position, int32_t *node);

/* Splice the children of a Repeat into its parent. */
static int expand_repeat(struct expansion *x, const struct nnc_model_arg *arg,
                         const struct nnc_model_frame *frame, int64_t *position, int32_t *node) {
    const struct nnc_model_expr *repeat = arg->value;
    const struct nnc_model_arg *first = repeat->args;
    if (arg->name != NULL) {
        return fail_at(x, repeat, "Repeat is no module and has no name; name its parent");
    }
    if (first == NULL || first->name != NULL) {
        return fail_at(x, repeat, "Repeat is written Repeat(n, module, ...)");
    }
    struct nnc_value times;
    int code = nnc_value_eval(&x->context, first->value, frame, &times);
    if (code < 0) {
        return code;
    }
    if (times.kind != NNC_VALUE_WHOLE || times.whole[0] < 0) {
        return fail_at(x, first->value, "the count of Repeat is a whole number from 0");
    }
    for (int64_t i = 0; i < times.whole[0] && code >= 0; i++) {
        code = enter(x, repeat);
        if (code >= 0) {
            code = expand_children(x, first->next, frame, position, node);
            x->depth--;
        }
    }
    return code;
}

/* Expand modules one after the other. Recursion through expand_repeat() is bounded by the tree. */
static int expand_children(struct expansion *x, const struct nnc_model_arg *first,
                           const struct nnc_model_frame *frame, int64_t *position, int32_t *node) {
    int code = 0;
    for (const struct nnc_model_arg *arg = first; arg != NULL && code >= 0; arg = arg->next) {
        if (is_repeat(arg->value)) {
            code = expand_repeat(x, arg, frame, position, node);
            continue;
        }
        struct module_use child = {
            .call = arg->value, .frame = frame, .keyword = arg->name, .position = *position};
        ++*position;
        code = expand_module(x, &child, node);
    }
    return code;
}

static int expand_sequential(struct expansion *x, const struct module_use *use, int32_t *node) {
    size_t length;
    int64_t position = 0;
    int code = push_path(x, use, &length);
    if (code >= 0) {
        code = expand_children(x, use->call->args, use->frame, &position, node);
        pop_path(x, length);
    }
    return code;
}

/* Append the sum of body and shortcut. */
static int add_sum(struct expansion *x, const struct module_use *use, int32_t body,
                   int32_t shortcut, int32_t *ret_node) {
    const struct nnc_node *nodes = x->build->graph->nodes;
    const struct module_use sum = {.call = use->call, .keyword = "add"};
    size_t length;
    int code = push_path(x, &sum, &length);
    if (code < 0) {
        return code;
    }
    struct nnc_node node = new_node(x, use->call, body);
    pop_path(x, length);
    node.layer = NNC_LAYER_ADD;
    node.input[1] = shortcut;
    node.shape = nodes[body].shape;
    node.flat = nodes[body].flat;
    const struct nnc_shape *other = &nodes[shortcut].shape;
    if (other->c != node.shape.c || other->h != node.shape.h || other->w != node.shape.w ||
        nodes[shortcut].flat != node.flat) {
        char first[NNC_SHAPE_TEXT_MAX], second[NNC_SHAPE_TEXT_MAX];
        return nnc_build_fail(x->build, &node,
                              "cannot add: the body of the Residual gives %s, the shortcut %s "
                              "(downsample=... changes the shortcut)",
                              nnc_shape_text(&node.shape, node.flat, first),
                              nnc_shape_text(other, nodes[shortcut].flat, second));
    }
    return nnc_build_node(x->build, &node, ret_node);
}

/* Body, then shortcut, in the order of the text. */
static int expand_branches(struct expansion *x, const struct module_use *use, int32_t *body,
                           int32_t *shortcut) {
    int64_t position = 0;
    bool seen = false;
    int code = 0;
    for (const struct nnc_model_arg *arg = use->call->args; arg != NULL && code >= 0;
         arg = arg->next) {
        bool branch = arg->name != NULL && strcmp(arg->name, "downsample") == 0;
        struct nnc_model_arg alone = *arg;
        alone.next = NULL;
        if (branch && seen) {
            return fail_at(x, arg->value, "a Residual has one downsample");
        }
        code = expand_children(x, &alone, use->frame, &position, branch ? shortcut : body);
        seen = seen || branch;
    }
    return code;
}

static int expand_residual(struct expansion *x, const struct module_use *use, int32_t *node) {
    size_t length = strlen(x->path);
    int32_t body = *node, shortcut = *node;
    int code = use->keyword != NULL ? push_path(x, use, &length) : 0;
    if (code >= 0) {
        code = expand_branches(x, use, &body, &shortcut);
    }
    if (code >= 0 && body == *node) {
        code = fail_at(x, use->call, "a Residual needs at least one layer besides downsample");
    }
    if (code >= 0) {
        code = add_sum(x, use, body, shortcut, node);
    }
    pop_path(x, length);
    return code;
}

static int expand_stray_repeat(struct expansion *x, const struct module_use *use, int32_t *node) {
    (void)node;
    return fail_at(x, use->call, "Repeat stands inside a Sequential or a Residual only");
}

/* The shape of the input(C, H, W) statement. */
static int read_input(struct expansion *x, struct nnc_shape *ret_shape) {
    static const char *const names[] = {"channels", "height", "width"};
    const struct nnc_model_expr *statement = x->file->input;
    const struct nnc_model_expr *given[3];
    uint32_t sizes[3];
    int code = nnc_value_match(x->context.file, statement, names, 3, given);
    for (uint32_t i = 0; i < 3 && code >= 0; i++) {
        struct nnc_value value = {.kind = NNC_VALUE_NONE};
        code = given[i] != NULL ? nnc_value_eval(&x->context, given[i], NULL, &value) : 0;
        bool fits = value.kind == NNC_VALUE_WHOLE && value.whole[0] >= 1 &&
                    value.whole[0] <= (int64_t)NNC_GRAPH_DIM_MAX;
        if (code >= 0 && !fits) {
            return fail_at(x, statement, "write input(channels, height, width)");
        }
        sizes[i] = fits ? (uint32_t)value.whole[0] : 0;
    }
    if (code >= 0) {
        *ret_shape = (struct nnc_shape){.c = sizes[0], .h = sizes[1], .w = sizes[2]};
    }
    return code;
}

static int add_input(struct expansion *x, const struct nnc_graph_params *params,
                     int32_t *ret_node) {
    struct nnc_node node = {.layer = NNC_LAYER_INPUT,
                            .input = {-1, -1},
                            .shape = params->input,
                            .weight = -1,
                            .bias = -1,
                            .running_mean = -1,
                            .running_var = -1,
                            .line = 1,
                            .column = 1,
                            .name = "input"};
    int code = 0;
    if (params->input.c == 0 && x->file->input == NULL) {
        return nnc_model_fail(x->file->file, 1, 1,
                              "the size of the images is not known: give --input CxHxW, or put "
                              "input(C, H, W) into the text");
    }
    if (params->input.c == 0) {
        code = read_input(x, &node.shape);
    }
    if (code >= 0) {
        x->build->graph->input = node.shape;
        code = nnc_build_node(x->build, &node, ret_node);
    }
    return code;
}

/* What the data set says about a parameter of the last definition; 0: nothing. */
static uint64_t given_by_data(const struct nnc_graph_params *params, const struct nnc_shape *input,
                              const char *name) {
    const struct {
        const char *name;
        uint64_t value;
    } facts[] = {
        {"num_classes", params->classes},
        {"in_channels", input->c},
        {"in_height", input->h},
        {"in_width", input->w},
        {"in_features", (uint64_t)input->c * input->h * input->w},
    };
    for (size_t i = 0; i < sizeof(facts) / sizeof(facts[0]); i++) {
        if (strcmp(facts[i].name, name) == 0) {
            return facts[i].value;
        }
    }
    return 0;
}

/* Bind the model's own parameters: --model-args, else the data set, else the default. */
static int bind_model(struct expansion *x, const struct nnc_graph_params *params,
                      const struct nnc_model_file *args, struct nnc_model_frame *frame) {
    const struct nnc_model_def *def = frame->def;
    const struct nnc_model_expr call = {
        .line = def->line, .column = def->column, .name = def->name, .args = args->args};
    const struct nnc_model_expr *given[NNC_MODEL_PARAMS_MAX];
    int code = nnc_value_match(args->file, &call, def->params, def->param_count, given);
    for (uint32_t i = 0; i < def->param_count && code >= 0; i++) {
        uint64_t fact = given_by_data(params, &x->build->graph->input, def->params[i]);
        if (given[i] != NULL) {
            x->context.file = args->file;
            code = nnc_value_eval(&x->context, given[i], NULL, &frame->values[i]);
            x->context.file = x->file->file;
        } else if (fact != 0) {
            frame->values[i] = nnc_value_whole((int64_t)fact);
        } else if (def->defaults[i] != NULL) {
            code = nnc_value_eval(&x->context, def->defaults[i], frame, &frame->values[i]);
        } else {
            code = nnc_model_fail(x->file->file, def->line, def->column,
                                  "%s needs a value for %s: --model-args %s=...", def->name,
                                  def->params[i], def->params[i]);
        }
        frame->bound = i + 1;
    }
    return code;
}

/* Expand the bare expression at the end of the file, or its last definition. */
static int expand_model(struct expansion *x, const struct nnc_graph_params *params, int32_t *node) {
    struct nnc_model_file *args = NULL;
    const char *text = params->model_args != NULL ? params->model_args : "";
    int code = nnc_model_parse_args("--model-args", text, strlen(text), &args);
    if (code < 0) {
        return code;
    }
    struct module_use root = {.call = x->file->model, .position = -1};
    if (root.call != NULL && args->args != NULL) {
        code = nnc_model_fail(x->file->file, root.call->line, root.call->column,
                              "the model is an expression and takes no --model-args; make it a "
                              "definition with parameters");
    } else if (root.call != NULL) {
        code = expand_module(x, &root, node);
    } else {
        const struct nnc_model_def *def = x->file->defs[x->file->def_count - 1];
        struct nnc_model_frame frame = {.def = def};
        root.call = def->body;
        code = bind_model(x, params, args, &frame);
        code = code < 0 ? code : expand_body(x, def, &frame, &root, node);
    }
    nnc_model_file_destroy(args);
    return code;
}

/* Definitions must not take the name of a layer. */
static int check_defs(const struct expansion *x) {
    for (uint32_t i = 0; i < x->file->def_count; i++) {
        const struct nnc_model_def *def = x->file->defs[i];
        if (is_language_module(def->name)) {
            return nnc_model_fail(x->file->file, def->line, def->column,
                                  "%s is a module of the language and cannot be defined again",
                                  def->name);
        }
    }
    return 0;
}

/* The model ends in a flat (N, classes). */
static int check_output(const struct expansion *x, uint32_t classes, int32_t output) {
    struct nnc_graph *graph = x->build->graph;
    const struct nnc_node *last = &graph->nodes[output];
    char text[NNC_SHAPE_TEXT_MAX];
    if (!last->flat) {
        return nnc_build_fail(x->build, last,
                              "is the end of the model and gives an image %s: end with Flatten() "
                              "and Linear(features, num_classes)",
                              nnc_shape_text(&last->shape, false, text));
    }
    if (classes != 0 && last->shape.c != classes) {
        return nnc_build_fail(x->build, last,
                              "gives %u classes, the data set has %u: let the text use a "
                              "parameter num_classes",
                              last->shape.c, classes);
    }
    assert((uint32_t)output == graph->node_count - 1);
    graph->classes = last->shape.c;
    return 0;
}

int nnc_model_expand(const struct nnc_model_file *file, const struct nnc_graph_params *params,
                     struct nnc_graph_build *build) {
    struct expansion x = {
        .file = file,
        .build = build,
        .context = {.file = file->file,
                    .steps_left = NNC_MODEL_STEPS_MAX,
                    .is_module = is_module,
                    .context = file},
    };
    int32_t node = -1;
    int code = check_defs(&x);
    if (code >= 0) {
        code = nnc_model_init_rules(&x.context, file->init, build->rules);
    }
    if (code >= 0) {
        code = add_input(&x, params, &node);
    }
    if (code >= 0) {
        code = expand_model(&x, params, &node);
    }
    return code < 0 ? code : check_output(&x, params->classes, node);
}
