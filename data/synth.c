/* SPDX-License-Identifier: Apache-2.0 */
/* The verb bench synth: a data set of photo-like images, so that anyone can measure the input side
 * with the same files.
 *
 *   DIR/synth.json -> for each image that is not there: plan, paint, encode, write
 *   DIR/train/cNNN/NNNNNN.jpg
 *
 *   synth.json  {"format": 1, "seed": ..., "classes": ..., "count": ...}
 *
 * 1. Image i is a function of (seed, i) and lies in folder i mod classes: a smaller set is the
 *    beginning of a larger one with as many classes.
 * 2. A directory that holds anything is refused but for one whose synth.json says the same: what is
 *    missing there, or not whole, is made.
 * 3. Each file is whole or not there. They are not synced: what a power cut takes is made again.
 *
 * Does not: decide what is in an image (photo.c). */
#include "data/verbs.h"

#include "base/err.h"
#include "base/log.h"
#include "base/output.h"
#include "base/text.h"
#include "coordinator/dataset_record.h"
#include "data/jpeg_write.h"
#include "data/photo.h"
#include "data/stop.h"

#include <errno.h>
#include <fcntl.h>
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
    uint32_t there;                                   /* images of an earlier run */
    uint64_t bytes, width_sum, height_sum, pixel_sum; /* of all images */
};

/* ---- the directory ---- */

struct contents {
    bool has_record;
    char other[NNC_NAME_MAX]; /* the first name that is not ours, printable; "" when none */
};

static int look_at(void *context, const char *name) {
    struct contents *contents = context;
    if (strcmp(name, "synth.json") == 0) {
        contents->has_record = true;
    } else if (strncmp(name, "synth.json.", 11) != 0 && contents->other[0] == '\0') {
        nnc_text_escape(name, contents->other, sizeof(contents->other));
    }
    return 0;
}

/* Does the record of an earlier run say the same, and no larger a set? */
static int compare_record(const struct synth *synth, const char *path) {
    json_int_t seed = -1, classes = -1, count = -1;
    json_t *there;
    int code = nnc_record_load(path, &there);
    if (code < 0) {
        return nnc_fail_in(-NNC_E_USAGE, "%s cannot be gone on with", synth->directory);
    }
    code =
        json_unpack(there, "{s:I, s:I, s:I}", "seed", &seed, "classes", &classes, "count", &count);
    json_decref(there);
    if (code < 0) {
        return nnc_fail(-NNC_E_USAGE, "%s is damaged: `rm -r %s`, or give a new directory", path,
                        synth->directory);
    }
    return (uint64_t)seed == synth->seed && classes == synth->classes && count <= synth->count
               ? 0
               : nnc_fail(-NNC_E_USAGE,
                          "%s is being made with --seed %" PRIu64 " --classes %" PRIu64
                          " --count %" PRIu64 ": the same command goes on with it, others need a "
                          "new directory",
                          synth->directory, (uint64_t)seed, (uint64_t)classes, (uint64_t)count);
}

static int write_record(const struct synth *synth, const char *path) {
    int code = nnc_vfs_make_dirs(synth->vfs, synth->directory, 0777);
    if (code < 0) {
        return nnc_fail(-NNC_E_USAGE, "%s", nnc_error_text());
    }
    json_t *record =
        json_pack("{s:i, s:I, s:I, s:I}", "format", 1, "seed", (json_int_t)synth->seed, "classes",
                  (json_int_t)synth->classes, "count", (json_int_t)synth->count);
    char *text = json_dumps(record, JSON_INDENT(2));
    json_decref(record);
    if (text == NULL) {
        return nnc_fail(-ENOMEM, "no memory for %s", path);
    }
    code = nnc_output_save(synth->vfs, path, text, strlen(text));
    free(text);
    return code;
}

static int open_directory(const struct synth *synth) {
    char path[NNC_PATH_MAX + NAME_BYTES];
    struct contents contents = {.has_record = false};
    snprintf(path, sizeof(path), "%s/synth.json", synth->directory);
    int code = synth->vfs->ops->list(synth->vfs, synth->directory, look_at, &contents);
    if (code < 0 && code != -ENOENT) {
        return nnc_fail(-NNC_E_USAGE, "%s: %s; give a directory that can be made and written to",
                        synth->directory, strerror(-code));
    }
    if (contents.has_record) {
        code = compare_record(synth, path);
        return code < 0 ? code : write_record(synth, path);
    }
    if (contents.other[0] != '\0') {
        return nnc_fail(-NNC_E_USAGE,
                        "%s already holds %s: give a new or empty directory, or remove this one "
                        "first",
                        synth->directory, contents.other);
    }
    return write_record(synth, path);
}

/* A run that was killed left files half-written, under names of their own. */
static int remove_temporary(void *context, const char *name) {
    const char *folder = context;
    size_t length = strlen(name);
    char path[2 * NNC_PATH_MAX];
    if (length > 4 && strcmp(name + length - 4, ".tmp") == 0 && strstr(name, ".jpg.") != NULL) {
        snprintf(path, sizeof(path), "%s/%s", folder, name);
        nnc_vfs_real()->ops->unlink(nnc_vfs_real(), path);
    }
    return 0;
}

static int make_folder(const struct synth *synth, uint32_t number) {
    char path[NNC_PATH_MAX + NAME_BYTES];
    snprintf(path, sizeof(path), "%s/train/c%03" PRIu32, synth->directory, number);
    int code = nnc_vfs_make_dirs(synth->vfs, path, 0777);
    if (code < 0) {
        return nnc_fail(-NNC_E_USAGE, "%s", nnc_error_text());
    }
    synth->vfs->ops->list(synth->vfs, path, remove_temporary, path);
    return 0;
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

/* Size of the JPEG at path; 0 when there is none or it has no beginning or no end. */
static uint64_t whole_size(const struct synth *synth, const char *path) {
    const struct nnc_vfs_ops *ops = synth->vfs->ops;
    uint8_t first[2] = {0}, last[2] = {0};
    int fd = ops->open(synth->vfs, path, O_RDONLY, 0);
    int64_t size = fd < 0 ? 0 : ops->size(synth->vfs, fd);
    if (size > 4) {
        nnc_vfs_read_all(synth->vfs, fd, first, 2, 0);
        nnc_vfs_read_all(synth->vfs, fd, last, 2, (uint64_t)size - 2);
    }
    if (fd >= 0) {
        ops->close(synth->vfs, fd);
    }
    bool is_whole = memcmp(first, "\xff\xd8", 2) == 0 && memcmp(last, "\xff\xd9", 2) == 0;
    return is_whole ? (uint64_t)size : 0;
}

static void count_image(struct synth *synth, const struct nnc_photo *photo, uint64_t bytes) {
    synth->bytes += bytes;
    synth->width_sum += photo->width;
    synth->height_sum += photo->height;
    synth->pixel_sum += (uint64_t)photo->width * photo->height;
}

static int write_image(struct synth *synth, uint32_t number) {
    struct nnc_photo photo = nnc_photo_plan(synth->seed, number);
    char path[NNC_PATH_MAX + NAME_BYTES];
    struct nnc_jpeg_file file = {.size = 0};
    snprintf(path, sizeof(path), "%s/train/c%03" PRIu32 "/%06" PRIu32 ".jpg", synth->directory,
             number % synth->classes, number);
    uint64_t there = whole_size(synth, path);
    if (there != 0) {
        synth->there++;
        count_image(synth, &photo, there);
        return 0;
    }
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
        count_image(synth, &photo, file.size);
    }
    return code;
}

static int write_all(struct synth *synth) {
    int code = 0;
    for (uint32_t number = 0; number < synth->count && code >= 0; number++) {
        code = nnc_stop_check();
        if (code < 0) {
            return nnc_fail(code,
                            "interrupted: %" PRIu32 " of %" PRIu32
                            " images are in %s; run the same command to continue",
                            number, synth->count, synth->directory);
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
    int code = open_directory(&synth);
    code = code < 0 ? code : nnc_jpeg_writer_create(&synth.writer);
    code = code < 0 ? code : write_all(&synth);
    nnc_jpeg_writer_destroy(synth.writer);
    if (code < 0) {
        return code;
    }
    double images = synth.count;
    double width = (double)synth.width_sum / images, height = (double)synth.height_sum / images;
    if (synth.there != 0) {
        nnc_log(NNC_LOG_INFO, "%" PRIu32 " images were there", synth.there);
    }
    nnc_log(NNC_LOG_INFO,
            "%" PRIu32 " images in %s: mean size %.0f x %.0f, %.1f kB, %.2f bytes a pixel",
            synth.count, synth.directory, width, height, (double)synth.bytes / images * 1e-3,
            (double)synth.bytes / (double)synth.pixel_sum);
    *ret_result = json_pack("{s:s, s:I, s:I, s:f, s:f}", "directory", synth.directory, "images",
                            (json_int_t)synth.count, "bytes", (json_int_t)synth.bytes, "mean_width",
                            width, "mean_height", height);
    return 0;
}
