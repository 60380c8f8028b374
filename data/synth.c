/* SPDX-License-Identifier: Apache-2.0 */
/* The verb bench synth: a data set of photo-like images, so that anyone can measure the input side
 * with the same files.
 *
 *   look that DIR is empty -> for each image: plan, paint, encode, write DIR/train/cNNN/NNNNNN.jpg
 *
 * 1. Image i is a function of (seed, i) and lies in folder i mod classes: a smaller set is the
 *    beginning of a larger one with as many classes.
 * 2. No file is ever written over: a directory that holds anything is refused.
 * 3. Each file is whole or not there. They are not synced: what is lost is made again.
 *
 * Does not: decide what is in an image (photo.c). */
#include "data/verbs.h"

#include "base/err.h"
#include "base/log.h"
#include "base/output.h"
#include "base/text.h"
#include "data/jpeg_write.h"
#include "data/photo.h"
#include "data/stop.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    COUNT_DEFAULT = 1000,
    NAME_BYTES = 40, /* of /train/cNNN/NNNNNNNNN.jpg */
};

struct synth {
    struct nnc_vfs *vfs;
    struct nnc_jpeg_writer *writer;
    const char *directory;
    uint64_t seed;
    uint32_t count, classes;
    uint64_t bytes, width_sum, height_sum, pixel_sum; /* of what is written */
};

/* ---- the directory ---- */

static int keep_name(void *context, const char *name) {
    nnc_text_escape(name, context, NNC_NAME_MAX);
    return 1;
}

static int check_empty(const struct synth *synth) {
    char name[NNC_NAME_MAX] = "";
    int code = synth->vfs->ops->list(synth->vfs, synth->directory, keep_name, name);
    if (code == -ENOENT) {
        return 0;
    }
    if (name[0] != '\0') {
        return nnc_fail(-NNC_E_USAGE,
                        "%s already holds %s: give a new or empty directory, or remove this one "
                        "first",
                        synth->directory, name);
    }
    return code < 0
               ? nnc_fail(-NNC_E_USAGE, "%s: %s; give a directory that can be made and written to",
                          synth->directory, strerror(-code))
               : 0;
}

static int make_folder(const struct synth *synth, uint32_t number) {
    char path[NNC_PATH_MAX + NAME_BYTES];
    snprintf(path, sizeof(path), "%s/train/c%03" PRIu32, synth->directory, number);
    int code = nnc_vfs_make_dirs(synth->vfs, path, 0777);
    return code < 0 ? nnc_fail(-NNC_E_USAGE, "%s", nnc_error_text()) : 0;
}

/* ---- images ---- */

static int write_file(const struct synth *synth, const char *path, const uint8_t *bytes,
                      size_t size) {
    struct nnc_output output = {0};
    int code = nnc_output_open(synth->vfs, path, &output);
    code = code < 0 ? code : nnc_output_write(&output, bytes, size);
    code = code < 0 ? code : nnc_output_commit(&output, false);
    nnc_output_abandon(&output);
    return code;
}

static int write_image(struct synth *synth, uint32_t number) {
    struct nnc_photo photo = nnc_photo_plan(synth->seed, number);
    char path[NNC_PATH_MAX + NAME_BYTES];
    struct nnc_jpeg_file file = {.size = 0};
    snprintf(path, sizeof(path), "%s/train/c%03" PRIu32 "/%06" PRIu32 ".jpg", synth->directory,
             number % synth->classes, number);
    uint8_t *pixels = malloc((size_t)photo.width * photo.height * photo.channels);
    if (pixels == NULL) {
        return nnc_fail(-ENOMEM, "no memory for an image");
    }
    int code = nnc_photo_paint(&photo, pixels);
    const struct nnc_jpeg_pixels picture = nnc_photo_picture(&photo, pixels);
    code = code < 0 ? code : nnc_jpeg_encode(synth->writer, &picture, &file);
    code = code < 0 ? code : write_file(synth, path, file.bytes, file.size);
    free(pixels);
    if (code >= 0) {
        synth->bytes += file.size;
        synth->width_sum += photo.width;
        synth->height_sum += photo.height;
        synth->pixel_sum += (uint64_t)photo.width * photo.height;
    }
    return code;
}

static int write_all(struct synth *synth) {
    int code = 0;
    for (uint32_t number = 0; number < synth->count && code >= 0; number++) {
        code = nnc_stop_check();
        if (code < 0) {
            return nnc_fail_in(code, "%" PRIu32 " of %" PRIu32 " images are in %s", number,
                               synth->count, synth->directory);
        }
        code = number < synth->classes ? make_folder(synth, number) : 0;
        code = code < 0 ? code : write_image(synth, number);
    }
    return code;
}

int nnc_data_synth(const struct nnc_command *command, json_t **ret_result) {
    const struct nnc_config *config = &command->config;
    if (command->arg_count != 1) {
        return nnc_fail(-NNC_E_USAGE, "nncoord bench synth takes one directory, not %d",
                        command->arg_count);
    }
    struct synth synth = {
        .vfs = nnc_vfs_real(),
        .directory = command->args[0],
        .seed = config->seed,
        .count = config->count != 0 ? config->count : COUNT_DEFAULT,
        .classes = config->classes,
    };
    if (strlen(synth.directory) + NAME_BYTES >= NNC_PATH_MAX) {
        return nnc_fail(-NNC_E_USAGE, "the directory's name is too long");
    }
    int code = check_empty(&synth);
    code = code < 0 ? code : nnc_jpeg_writer_create(&synth.writer);
    code = code < 0 ? code : write_all(&synth);
    nnc_jpeg_writer_destroy(synth.writer);
    if (code < 0) {
        return code;
    }
    double images = synth.count;
    double width = (double)synth.width_sum / images, height = (double)synth.height_sum / images;
    nnc_log(NNC_LOG_INFO,
            "%" PRIu32 " images in %s: mean size %.0f x %.0f, %.1f kB, %.2f bytes a pixel",
            synth.count, synth.directory, width, height, (double)synth.bytes / images * 1e-3,
            (double)synth.bytes / (double)synth.pixel_sum);
    *ret_result = json_pack("{s:s, s:I, s:I, s:f, s:f}", "directory", synth.directory, "images",
                            (json_int_t)synth.count, "bytes", (json_int_t)synth.bytes, "mean_width",
                            width, "mean_height", height);
    return 0;
}
