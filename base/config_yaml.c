/* SPDX-License-Identifier: Apache-2.0 */
/* YAML files of options, over libcyaml.
 *
 *   load: file -> keys and their lines (libyaml events)
 *              -> all values as text (libcyaml, a schema made from the option table)
 *              -> the same parsers as the command line -> copy of *config
 *   dump: option printers -> texts -> libcyaml
 *
 * 1. The file is hostile: at most 1 MiB, no aliases, one document, one flat mapping, each key once.
 * 2. libcyaml does not tell the line of a wrong key, and our own parsers see values when lines are
 *    gone; so the keys are listed beforehand, which costs one more pass over a small file.
 * 3. All values are text to libcyaml: ranges, units and names are the option table's business.
 *
 * Source: libcyaml 1.3 guide; YAML 1.1 as libyaml reads it. */
#include "base/config_table.h"

#include "base/err.h"
#include "base/regular.h"
#include "base/text.h"

#include <assert.h>
#include <cyaml/cyaml.h>
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <yaml.h>

enum {
    FILE_BYTES_MAX = 1 << 20,
    OPTIONS_MAX = 128,
    ITEMS_MAX = 8, /* of a list of numbers */
    VALUE_BYTES = NNC_PATH_MAX + 16,
};

/* An option's value as libcyaml stores it: a text, or the texts of a list. */
struct value {
    char *text;
    char **items;
    uint32_t item_count;
};

/* The schema; everything that libcyaml points to while it works. */
struct schema {
    cyaml_schema_value_t item;
    cyaml_schema_field_t fields[OPTIONS_MAX + 1];
    cyaml_schema_value_t top;
    cyaml_config_t settings;
    char message[512]; /* first thing that libcyaml complains about */
    char key[NNC_NAME_MAX];
};

static bool is_list(const struct nnc_option *option) {
    return option->type == NNC_OPTION_DOUBLES;
}

/* libcyaml's complaints: the first is the reason, a later one names the field it was in. */
static void on_log(cyaml_log_t level, void *context, const char *format, va_list args) {
    (void)level;
    struct schema *schema = context;
    char text[512];
    vsnprintf(text, sizeof(text), format, args);
    text[strcspn(text, "\n")] = '\0';
    const char *field = strstr(text, "in mapping field '");
    if (field != NULL) {
        field += strlen("in mapping field '");
        snprintf(schema->key, sizeof(schema->key), "%.*s", (int)strcspn(field, "'"), field);
    } else if (schema->message[0] == '\0') {
        bool has_prefix = strncmp(text, "Load: ", 6) == 0;
        nnc_text_escape(text + (has_prefix ? 6 : 0), schema->message, sizeof(schema->message));
    }
}

/* schema->fields[n] describes element n of an array of struct value. A list of numbers may be [a,
 * list] or text as on the command line; sequences tells which, NULL: all are lists. */
static void schema_init(struct schema *schema, const bool *sequences) {
    assert(nnc_config_option_count <= OPTIONS_MAX);
    memset(schema, 0, sizeof(*schema));
    schema->item = (cyaml_schema_value_t){
        .type = CYAML_STRING,
        .flags = CYAML_FLAG_POINTER,
        .data_size = sizeof(char),
        .string = {.min = 0, .max = FILE_BYTES_MAX},
    };
    for (size_t row = 0; row < nnc_config_option_count; row++) {
        cyaml_schema_field_t *field = &schema->fields[row];
        size_t start = row * sizeof(struct value);
        field->key = nnc_config_options[row].name;
        if (is_list(&nnc_config_options[row]) && (sequences == NULL || sequences[row])) {
            field->data_offset = (uint32_t)(start + offsetof(struct value, items));
            field->count_offset = (uint32_t)(start + offsetof(struct value, item_count));
            field->count_size = sizeof(uint32_t);
            field->value = (cyaml_schema_value_t){
                .type = CYAML_SEQUENCE,
                .flags = (cyaml_flag_e)(CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL | CYAML_FLAG_FLOW),
                .data_size = sizeof(char *),
                .sequence = {.entry = &schema->item, .min = 1, .max = ITEMS_MAX},
            };
        } else {
            field->data_offset = (uint32_t)(start + offsetof(struct value, text));
            field->value = schema->item;
            field->value.flags = (cyaml_flag_e)(CYAML_FLAG_POINTER_NULL | CYAML_FLAG_OPTIONAL);
        }
    }
    schema->top = (cyaml_schema_value_t){
        .type = CYAML_MAPPING,
        .flags = CYAML_FLAG_POINTER,
        .data_size = (uint32_t)(nnc_config_option_count * sizeof(struct value)),
        .mapping = {.fields = schema->fields},
    };
    schema->settings = (cyaml_config_t){
        .log_fn = on_log,
        .log_ctx = schema,
        .mem_fn = cyaml_mem,
        .log_level = CYAML_LOG_WARNING,
        .flags = (cyaml_cfg_flags_t)(CYAML_CFG_NO_ALIAS | CYAML_CFG_STYLE_BLOCK),
    };
}

/* Listing the keys */

/* A file that is being read. */
struct source {
    const char *path;
    unsigned char *text;
    size_t bytes;
    size_t lines[OPTIONS_MAX];   /* of each option's key; 0: it is not there */
    bool sequences[OPTIONS_MAX]; /* the value is [a, list] */
    size_t last_row;             /* of the key read last */
};

static size_t line_at(const struct source *source, size_t offset) {
    size_t line = 1;
    for (size_t place = 0; place < offset && place < source->bytes; place++) {
        line += source->text[place] == '\n';
    }
    return line;
}

static int fail_syntax(const struct source *source, const yaml_parser_t *parser) {
    bool is_encoding = parser->error == YAML_READER_ERROR;
    size_t line =
        is_encoding ? line_at(source, parser->problem_offset) : parser->problem_mark.line + 1;
    return nnc_fail(-NNC_E_USAGE, "%s:%zu: not YAML: %s", source->path, line,
                    parser->problem != NULL ? parser->problem : "no memory");
}

static int fail_key(const struct source *source, size_t line, const char *key) {
    const char *names[OPTIONS_MAX + 1] = {NULL};
    for (size_t row = 0; row < nnc_config_option_count; row++) {
        names[row] = nnc_config_options[row].name;
    }
    char shown[80], meant[128];
    nnc_text_escape(key, shown, sizeof(shown));
    const struct nnc_option *alias = nnc_config_find(key);
    if (alias != NULL) {
        snprintf(meant, sizeof(meant), " (did you mean %s?)", alias->name);
    } else {
        nnc_did_you_mean_text(key, names, "", meant, sizeof(meant));
    }
    return nnc_fail(-NNC_E_USAGE, "%s:%zu: unknown key \"%s\"%s", source->path, line, shown, meant);
}

static int note_key(struct source *source, const yaml_event_t *event) {
    const char *key = (const char *)event->data.scalar.value;
    size_t line = event->start_mark.line + 1;
    size_t row = 0;
    while (row < nnc_config_option_count && strcmp(nnc_config_options[row].name, key) != 0) {
        row++;
    }
    if (row == nnc_config_option_count) {
        return fail_key(source, line, key);
    }
    if (source->lines[row] != 0) {
        return nnc_fail(-NNC_E_USAGE, "%s:%zu: key \"%s\" is there twice, first in line %zu",
                        source->path, line, key, source->lines[row]);
    }
    source->lines[row] = line;
    source->last_row = row;
    return 0;
}

/* Where an event leads to. */
struct walk {
    int depth;      /* of mappings and sequences */
    bool wants_key; /* in the top mapping */
    int documents;
    bool done;
};

static int walk_event(struct source *source, struct walk *walk, const yaml_event_t *event) {
    size_t line = event->start_mark.line + 1;
    switch (event->type) {
    case YAML_DOCUMENT_START_EVENT:
        if (++walk->documents > 1) {
            return nnc_fail(-NNC_E_USAGE, "%s:%zu: a second document; one is taken", source->path,
                            line);
        }
        return 0;
    case YAML_SCALAR_EVENT: {
        int code = walk->depth == 1 && walk->wants_key ? note_key(source, event) : 0;
        walk->wants_key = walk->depth == 1 && !walk->wants_key;
        return code;
    }
    case YAML_MAPPING_START_EVENT:
    case YAML_SEQUENCE_START_EVENT:
        if (walk->depth == 1 && walk->wants_key) {
            return nnc_fail(-NNC_E_USAGE, "%s:%zu: a key must be the name of an option",
                            source->path, line);
        }
        if (walk->depth == 1) {
            source->sequences[source->last_row] = event->type == YAML_SEQUENCE_START_EVENT;
        }
        walk->depth++;
        walk->wants_key = walk->depth == 1;
        /* No mapping, or deeper than a list in one: libcyaml will refuse it, in better words. */
        walk->done =
            walk->depth > 2 || (walk->depth == 1 && event->type != YAML_MAPPING_START_EVENT);
        return 0;
    case YAML_MAPPING_END_EVENT:
    case YAML_SEQUENCE_END_EVENT:
        walk->depth--;
        walk->wants_key = walk->depth == 1;
        return 0;
    case YAML_ALIAS_EVENT:
        return nnc_fail(-NNC_E_USAGE, "%s:%zu: aliases (*name) are not taken", source->path, line);
    case YAML_STREAM_END_EVENT:
        walk->done = true;
        return 0;
    default:
        return 0;
    }
}

static int list_keys(struct source *source) {
    yaml_parser_t parser;
    if (!yaml_parser_initialize(&parser)) {
        return nnc_fail(-ENOMEM, "%s: no memory for the YAML parser", source->path);
    }
    yaml_parser_set_input_string(&parser, source->text, source->bytes);
    struct walk walk = {0};
    int code = 0;
    while (code == 0 && !walk.done) {
        yaml_event_t event;
        if (!yaml_parser_parse(&parser, &event)) {
            code = fail_syntax(source, &parser);
            break;
        }
        code = walk_event(source, &walk, &event);
        yaml_event_delete(&event);
    }
    yaml_parser_delete(&parser);
    return code;
}

/* Loading */

static int read_file(const char *path, struct source *ret_source) {
    struct source source = {.path = path};
    FILE *file = NULL;
    int code = nnc_regular_open_stream(path, &file);
    if (code < 0) {
        return code == -ENOMEM ? code : -NNC_E_USAGE;
    }
    source.text = malloc(FILE_BYTES_MAX + 1);
    if (source.text == NULL) {
        code = nnc_fail(-ENOMEM, "%s: no memory to read it", path);
        goto out;
    }
    source.bytes = fread(source.text, 1, FILE_BYTES_MAX + 1, file);
    if (ferror(file)) {
        code = nnc_fail(-NNC_E_USAGE, "%s: %s", path, strerror(errno));
    } else if (source.bytes > FILE_BYTES_MAX) {
        code = nnc_fail(-NNC_E_USAGE, "%s: more than 1 MiB is no configuration", path);
    }
out:
    fclose(file);
    if (code < 0) {
        free(source.text);
        return code;
    }
    *ret_source = source;
    return 0;
}

/* The value's text, a list's items separated by commas. */
static int join_items(const struct value *value, char *ret_text, size_t room) {
    size_t used = 0;
    ret_text[0] = '\0';
    for (uint32_t item = 0; item < value->item_count; item++) {
        int length =
            snprintf(ret_text + used, room - used, "%s%s", item > 0 ? "," : "", value->items[item]);
        used += (size_t)length;
        if (used >= room) {
            return nnc_fail(-NNC_E_USAGE, "the list is too long");
        }
    }
    return 0;
}

static int take_values(const struct source *source, const struct value *values,
                       struct nnc_config *config) {
    for (size_t row = 0; row < nnc_config_option_count; row++) {
        const struct nnc_option *option = &nnc_config_options[row];
        if (source->lines[row] == 0) {
            continue;
        }
        char list[VALUE_BYTES];
        const char *text = values[row].text != NULL ? values[row].text : "";
        int code = 0;
        if (values[row].items != NULL) {
            code = join_items(&values[row], list, sizeof(list));
            text = list;
        }
        if (code == 0) {
            code = nnc_option_parse(option, text, config);
        }
        if (code < 0) {
            return nnc_fail_in(code, "%s:%zu: %s", source->path, source->lines[row], option->name);
        }
    }
    return 0;
}

static int fail_cyaml(const struct source *source, const struct schema *schema, cyaml_err_t error) {
    const char *reason = schema->message[0] != '\0' ? schema->message : cyaml_strerror(error);
    size_t line = 1, row = 0;
    while (row < nnc_config_option_count && strcmp(nnc_config_options[row].name, schema->key)) {
        row++;
    }
    if (row == nnc_config_option_count) {
        return nnc_fail(-NNC_E_USAGE, "%s:%zu: %s (lines of \"option: value\" expected)",
                        source->path, line, reason);
    }
    line = source->lines[row] != 0 ? source->lines[row] : line;
    const char *want = source->sequences[row] && is_list(&nnc_config_options[row])
                           ? "[a, list] of numbers"
                           : "a single value";
    return nnc_fail(-NNC_E_USAGE, "%s:%zu: %s: %s expected (%s)", source->path, line, schema->key,
                    want, reason);
}

static int load_values(const struct source *source, struct nnc_config *config) {
    struct schema schema;
    schema_init(&schema, source->sequences);
    struct value *values = NULL;
    cyaml_err_t error = cyaml_load_data(source->text, source->bytes, &schema.settings, &schema.top,
                                        (cyaml_data_t **)&values, NULL);
    if (error != CYAML_OK) {
        return fail_cyaml(source, &schema, error);
    }
    if (values == NULL) {
        return 0; /* nothing but comments */
    }
    struct nnc_config changed = *config;
    int code = take_values(source, values, &changed);
    cyaml_free(&schema.settings, &schema.top, values, 0);
    if (code == 0) {
        *config = changed;
    }
    return code;
}

int nnc_config_load_yaml(const char *path, struct nnc_config *config) {
    struct source source;
    int code = read_file(path, &source);
    if (code < 0) {
        return code;
    }
    code = list_keys(&source);
    if (code == 0) {
        code = load_values(&source, config);
    }
    free(source.text);
    return code;
}

/* Dumping */

/* Texts of all options; libcyaml gets pointers into them. */
struct texts {
    struct value values[OPTIONS_MAX];
    char bytes[OPTIONS_MAX][VALUE_BYTES];
    char *items[OPTIONS_MAX][ITEMS_MAX];
};

static void print_values(const struct nnc_config *config, struct texts *texts) {
    for (size_t row = 0; row < nnc_config_option_count; row++) {
        const struct nnc_option *option = &nnc_config_options[row];
        struct value *value = &texts->values[row];
        char *text = texts->bytes[row];
        nnc_option_print(option, config, text, VALUE_BYTES);
        if (!is_list(option)) {
            value->text = text;
            continue;
        }
        value->items = texts->items[row];
        char *rest = text;
        for (char *item; (item = strsep(&rest, ",")) != NULL;) {
            assert(value->item_count < ITEMS_MAX);
            value->items[value->item_count++] = item;
        }
    }
}

int nnc_config_dump_yaml(const struct nnc_config *config, FILE *out) {
    struct texts *texts = calloc(1, sizeof(*texts));
    if (texts == NULL) {
        return nnc_fail(-ENOMEM, "no memory to print the configuration");
    }
    print_values(config, texts);
    struct schema schema;
    schema_init(&schema, NULL);
    char *yaml = NULL;
    size_t bytes = 0;
    cyaml_err_t error =
        cyaml_save_data(&yaml, &bytes, &schema.settings, &schema.top, texts->values, 0);
    free(texts);
    if (error != CYAML_OK) {
        return nnc_fail(-EIO, "printing the configuration: %s", cyaml_strerror(error));
    }
    int printed = fprintf(out, "# nncoord %s\n", nnc_version());
    bool is_out = printed > 0 && fwrite(yaml, 1, bytes, out) == bytes && fflush(out) == 0;
    cyaml_mem(NULL, yaml, 0);
    return is_out ? 0
                  : nnc_fail(-NNC_E_CHECKPOINT, "the configuration cannot be written: %s",
                             strerror(errno));
}

/* Recipes */

enum {
    RECIPES_MAX = 64,
};

static bool ends_in(const char *text, const char *end) {
    size_t length = strlen(text), tail = strlen(end);
    return length > tail && strcmp(text + length - tail, end) == 0;
}

static int is_yaml(const struct dirent *entry) {
    return ends_in(entry->d_name, ".yaml");
}

static int fail_recipe(const char *name, const char *recipe_dir) {
    char shown[80], meant[128] = "", list[256] = "";
    size_t used = 0;
    nnc_text_escape(name, shown, sizeof(shown));
    struct dirent **entries = NULL;
    int count = recipe_dir != NULL ? scandir(recipe_dir, &entries, is_yaml, alphasort) : 0;
    const char *names[RECIPES_MAX + 1] = {NULL};
    for (int number = 0; number < count; number++) {
        entries[number]->d_name[strlen(entries[number]->d_name) - strlen(".yaml")] = '\0';
        names[number < RECIPES_MAX ? number : RECIPES_MAX] =
            number < RECIPES_MAX ? entries[number]->d_name : NULL;
        if (used < sizeof(list)) {
            used += (size_t)snprintf(list + used, sizeof(list) - used, "%s%s",
                                     number == 0 ? ": " : ", ", entries[number]->d_name);
        }
    }
    nnc_did_you_mean_text(name, names, "", meant, sizeof(meant));
    for (int number = 0; number < count; number++) {
        free(entries[number]);
    }
    free(entries);
    return nnc_fail(-NNC_E_USAGE, "no recipe \"%s\"%s in %s%s; a file is given as ./%s.yaml", shown,
                    meant, recipe_dir != NULL ? recipe_dir : "this installation", list, shown);
}

int nnc_config_find_recipe(const char *name, const char *recipe_dir, char ret_path[NNC_PATH_MAX]) {
    char path[NNC_PATH_MAX];
    bool is_file = strchr(name, '/') != NULL || ends_in(name, ".yaml") || ends_in(name, ".yml");
    int length = is_file ? snprintf(path, sizeof(path), "%s", name)
                         : snprintf(path, sizeof(path), "%s/%s.yaml",
                                    recipe_dir != NULL ? recipe_dir : ".", name);
    if (length < 0 || (size_t)length >= sizeof(path)) {
        return nnc_fail(-NNC_E_USAGE, "--config: the name has more than %d bytes",
                        NNC_PATH_MAX - 1);
    }
    if (!is_file && (recipe_dir == NULL || access(path, F_OK) != 0)) {
        return fail_recipe(name, recipe_dir);
    }
    memcpy(ret_path, path, (size_t)length + 1);
    return 0;
}
