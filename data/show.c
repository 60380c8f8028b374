/* SPDX-License-Identifier: Apache-2.0 */
/* The verb show: what a network sees, for people (a contact sheet) and for other programs (the
 * bytes, and how each sample was cut).
 *
 *   open data set -> open files -> for each position: make, draw, append -> rename files
 *
 * FILE.jsonl has one object a sample, in the order of the array:
 *   path        of the image, relative to the data set's root; of the substitute when replaced
 *   label       name of its class, null when unknown or bad
 *   class       its number, or -1
 *   crop        [left, top, width, height] taken out of the image, in its pixels; null when bad
 *   resize      [width, height] that the crop was resized to
 *   window      [left, top, width, height] taken out of that; what lies outside is zero
 *   flip        whether the columns then changed sides
 *   size        [width, height] of the image
 *   position    k in the epoch
 *   status      "ok", "replaced" or "bad"
 *
 * 1. Files that cannot be made are found out before the first sample is.
 * 2. Nothing gets its final name before everything is made. What a killed run left of the same
 * files under other names goes.
 *
 * Does not: decide what a sample is (samples.c). */
#include "data/verbs.h"

#include "base/err.h"
#include "base/log.h"
#include "base/output.h"
#include "base/text.h"
#include "data/npy.h"
#include "data/samples.h"
#include "data/sheet.h"
#include "data/stop.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum {
    COUNT_DEFAULT = 64,
};

struct show {
    const struct nnc_config *config;
    struct nnc_samples *samples;
    struct nnc_samples_info info;
    uint32_t count; /* samples to make */
    uint8_t *pixels;
    size_t sample_bytes;
    struct nnc_sheet *sheet;             /* NULL: no picture is drawn */
    struct nnc_output png, array, lines; /* closed: not wanted */
    uint64_t bad, replaced;
};

/* ---- opening ---- */

/* A name that promises another kind of picture would be a lie. */
static int check_ending(const char *path) {
    static const char *const others[] = {".jpg",  ".jpeg", ".gif", ".bmp", ".webp", ".tif",
                                         ".tiff", ".ppm",  ".svg", ".pdf", ".npy"};
    const char *dot = strrchr(path, '.');
    for (size_t i = 0; dot != NULL && i < sizeof(others) / sizeof(others[0]); i++) {
        if (strcasecmp(dot, others[i]) == 0) {
            return nnc_fail(-NNC_E_USAGE,
                            "--output %s: the picture is a PNG, give a name that ends in .png",
                            path);
        }
    }
    return 0;
}

/* Begin a file, without what killed runs left of it. */
static int open_output(const char *path, struct nnc_output *ret_output) {
    nnc_output_sweep(path);
    return nnc_output_open(nnc_vfs_real(), path, ret_output);
}

static int open_picture(struct show *show) {
    struct nnc_sheet_layout layout;
    const char *path = show->config->output;
    if (path[0] == '\0' && show->config->npy[0] != '\0') {
        return 0;
    }
    int code = check_ending(path);
    code = code < 0 ? code
                    : nnc_sheet_lay_out(show->count, show->info.side, show->info.channels, &layout);
    code = code < 0 ? code : nnc_sheet_create(&layout, &show->sheet);
    if (code < 0) {
        return code;
    }
    return open_output(path[0] != '\0' ? path : "show.png", &show->png);
}

static int open_array(struct show *show) {
    char lines_path[NNC_PATH_MAX];
    uint8_t header[NNC_NPY_HEADER_MAX];
    const char *path = show->config->npy;
    if (path[0] == '\0') {
        return 0;
    }
    int length = snprintf(lines_path, sizeof(lines_path), "%s.jsonl", path);
    if (length < 0 || (size_t)length >= sizeof(lines_path)) {
        return nnc_fail(-NNC_E_USAGE, "--npy: the name is too long");
    }
    const uint64_t shape[4] = {show->count, show->info.side, show->info.side, show->info.channels};
    int code = open_output(path, &show->array);
    code = code < 0 ? code : open_output(lines_path, &show->lines);
    if (code >= 0 && (nnc_output_is_same(&show->array, &show->png) ||
                      nnc_output_is_same(&show->lines, &show->png) ||
                      nnc_output_is_same(&show->lines, &show->array))) {
        code = nnc_fail(-NNC_E_USAGE,
                        "two of --output, --npy and %s are the same file: give two "
                        "names",
                        lines_path);
    }
    return code < 0 ? code : nnc_output_write(&show->array, header, nnc_npy_header(shape, header));
}

static int open_show(struct show *show) {
    int code = nnc_samples_open(show->config, &show->samples);
    if (code < 0) {
        return code;
    }
    show->info = nnc_samples_info(show->samples);
    uint32_t wanted = show->config->count != 0 ? show->config->count : COUNT_DEFAULT;
    show->count = wanted < show->info.count ? wanted : (uint32_t)show->info.count;
    show->sample_bytes = (size_t)show->info.side * show->info.side * show->info.channels;
    show->pixels = malloc(show->sample_bytes);
    if (show->pixels == NULL) {
        return nnc_fail(-ENOMEM, "no memory for a sample");
    }
    code = open_picture(show);
    return code < 0 ? code : open_array(show);
}

static void close_show(struct show *show) {
    nnc_output_abandon(&show->png);
    nnc_output_abandon(&show->array);
    nnc_output_abandon(&show->lines);
    nnc_sheet_destroy(show->sheet);
    nnc_samples_close(show->samples);
    free(show->pixels);
}

/* ---- one sample ---- */

static const char *status_name(enum nnc_sample_status status) {
    switch (status) {
    case NNC_SAMPLE_OK:
        return "ok";
    case NNC_SAMPLE_REPLACED:
        return "replaced";
    case NNC_SAMPLE_BAD:
        break;
    }
    return "bad";
}

/* "" when the class is unknown. */
static void label_name(const struct show *show, const struct nnc_sample *sample,
                       char ret_name[NNC_NAME_MAX]) {
    ret_name[0] = '\0';
    if (sample->label >= 0) {
        nnc_text_escape(nnc_dataset_class_name(show->info.dataset, (uint32_t)sample->label),
                        ret_name, NNC_NAME_MAX);
    }
}

/* How the sample was cut, as members of its object. */
static json_t *cut_object(const struct nnc_sample *sample) {
    const struct nnc_maker_cut *cut = &sample->cut;
    const struct nnc_view *view = &cut->view;
    if (sample->status == NNC_SAMPLE_BAD) {
        return json_pack("{s:n, s:n, s:n, s:b, s:n}", "crop", "resize", "window", "flip", 0,
                         "size");
    }
    return json_pack("{s:[iiii], s:[ii], s:[iiii], s:b, s:[ii]}", "crop", (int)view->crop.left,
                     (int)view->crop.top, (int)view->crop.width, (int)view->crop.height, "resize",
                     (int)view->width, (int)view->height, "window", (int)view->left, (int)view->top,
                     (int)view->out_width, (int)view->out_height, "flip", (int)view->flip, "size",
                     (int)cut->width, (int)cut->height);
}

static json_t *sample_object(const struct show *show, const struct nnc_sample *sample) {
    char path[NNC_PATH_MAX], label[NNC_NAME_MAX];
    nnc_dataset_sample_path(&show->info.dataset->parts[show->info.phase], sample->number, path,
                            sizeof(path));
    label_name(show, sample, label);
    json_t *object = json_pack("{s:s, s:s?, s:i}", "path", path, "label",
                               label[0] != '\0' ? label : NULL, "class", (int)sample->label);
    json_t *cut = cut_object(sample);
    json_object_update(object, cut);
    json_decref(cut);
    json_object_set_new(object, "position", json_integer((json_int_t)sample->k));
    json_object_set_new(object, "status", json_string(status_name(sample->status)));
    return object;
}

static int append_line(struct show *show, const struct nnc_sample *sample) {
    json_t *object = sample_object(show, sample);
    char *text = json_dumps(object, JSON_COMPACT);
    json_decref(object);
    if (text == NULL) {
        return nnc_fail(-ENOMEM, "no memory for a line of %s", show->lines.path);
    }
    int code = nnc_output_write(&show->lines, text, strlen(text));
    free(text);
    return code < 0 ? code : nnc_output_write(&show->lines, "\n", 1);
}

static void draw(struct show *show, const struct nnc_sample *sample) {
    char caption[NNC_NAME_MAX];
    label_name(show, sample, caption);
    if (sample->status == NNC_SAMPLE_BAD) {
        snprintf(caption, sizeof(caption), "(bad)");
    }
    nnc_sheet_draw(show->sheet, (uint32_t)sample->k, show->pixels, caption);
}

static int show_sample(struct show *show, uint64_t k) {
    struct nnc_sample sample;
    int code = nnc_stop_check();
    code = code < 0 ? code : nnc_samples_make(show->samples, k, show->pixels, &sample);
    if (code < 0) {
        return code;
    }
    show->bad += sample.status == NNC_SAMPLE_BAD;
    show->replaced += sample.status == NNC_SAMPLE_REPLACED;
    if (show->sheet != NULL) {
        draw(show, &sample);
    }
    if (!show->array.is_open) {
        return 0;
    }
    code = nnc_output_write(&show->array, show->pixels, show->sample_bytes);
    return code < 0 ? code : append_line(show, &sample);
}

/* ---- the end ---- */

static int write_picture(struct show *show) {
    uint8_t *bytes = NULL;
    size_t size = 0;
    int code = nnc_sheet_encode(show->sheet, &bytes, &size);
    code = code < 0 ? code : nnc_output_write(&show->png, bytes, size);
    free(bytes);
    return code;
}

/* Give all files their names, and list these. The lines come last: who finds them finds the array.
 */
static int commit(struct show *show, json_t *ret_files) {
    struct nnc_output *const outputs[] = {&show->png, &show->array, &show->lines};
    for (size_t i = 0; i < sizeof(outputs) / sizeof(outputs[0]); i++) {
        if (!outputs[i]->is_open) {
            continue;
        }
        int code = nnc_output_commit(outputs[i], true);
        if (code < 0) {
            return code;
        }
        nnc_log(NNC_LOG_INFO, "wrote %s", outputs[i]->path);
        json_array_append_new(ret_files, json_string(outputs[i]->path));
    }
    return 0;
}

static int show_all(struct show *show, json_t *ret_files) {
    int code = 0;
    for (uint64_t k = 0; k < show->count && code >= 0; k++) {
        code = show_sample(show, k);
    }
    if (code >= 0 && show->sheet != NULL) {
        code = write_picture(show);
    }
    code = code < 0 ? code : nnc_stop_check();
    return code < 0 ? code : commit(show, ret_files);
}

int nnc_data_show(const struct nnc_command *command, json_t **ret_result) {
    struct show show = {.config = &command->config};
    json_t *files = json_array();
    int code = open_show(&show);
    code = code < 0 ? code : show_all(&show, files);
    if (code >= 0) {
        nnc_log(NNC_LOG_INFO,
                "%u sample%s, the first of %" PRIu64 " of %s: %" PRIu64 " replaced, %" PRIu64
                " bad",
                show.count, nnc_text_s(show.count), show.info.count,
                show.info.phase == NNC_PHASE_TRAIN ? "training" : "validation", show.replaced,
                show.bad);
        *ret_result =
            json_pack("{s:O, s:I, s:I, s:I}", "files", files, "count", (json_int_t)show.count,
                      "replaced", (json_int_t)show.replaced, "bad", (json_int_t)show.bad);
    }
    json_decref(files);
    close_show(&show);
    return code;
}
