/* SPDX-License-Identifier: Apache-2.0 */
/* DST/pack.json says what the shards beside it were made of:
 *
 *   {"format": 1, "kind": ..., "max_side": ..., "quality": ..., "channels": ...,
 *    "shard_samples": ..., "train": {"samples": N, "hash": "..."}, "val": ...}
 *   quality is that of JPEG which is encoded anew, null where nothing is; older records have there
 *   what --quality said, 0 for nothing.
 *
 * 1. It is written before the first shard. A directory with files and without it is not ours.
 * 2. The hash of a part covers names, sizes and labels of its samples, so a data set that was moved
 *    or copied is still the same, and one that grew is not.
 * 3. The lock is on the directory itself (flock), so it leaves nothing behind.
 *
 * Does not: compare the bytes of the sources. */
#include "data/pack_dir.h"

#include "base/err.h"
#include "base/output.h"
#include "base/vfs.h"
#include "coordinator/dataset_classes.h"
#include "coordinator/dataset_record.h"
#include "data/pack_image.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

enum {
    FORMAT = 1,
};

struct nnc_pack_dir {
    char path[NNC_PATH_MAX];
    int fd; /* locked */
};

/* ---- what is packed ---- */

static json_t *describe_part(const struct nnc_dataset_part *part) {
    char hash[20];
    if (part->samples == 0) {
        return json_null();
    }
    XXH3_state_t *state = XXH3_createState();
    if (state == NULL) {
        return NULL;
    }
    XXH3_64bits_reset(state);
    for (uint64_t i = 0; i < part->samples; i++) {
        const struct nnc_index_sample *sample = &part->index.samples[i];
        const char *name = part->index.strings + sample->name;
        XXH3_64bits_update(state, name, strlen(name) + 1);
        XXH3_64bits_update(state, &sample->size, sizeof(sample->size));
        XXH3_64bits_update(state, &sample->label, sizeof(sample->label));
    }
    snprintf(hash, sizeof(hash), "%016" PRIx64, (uint64_t)XXH3_64bits_digest(state));
    XXH3_freeState(state);
    return json_pack("{s:I, s:s}", "samples", (json_int_t)part->samples, "hash", hash);
}

static json_t *describe(const struct nnc_dataset *dataset, const struct nnc_config *config) {
    const struct nnc_pack_recipe recipe = {.kind = (enum nnc_pack_kind)config->kind,
                                           .max_side = config->max_side,
                                           .quality = config->quality};
    uint32_t quality = nnc_pack_recipe_quality(&recipe);
    return json_pack(
        "{s:i, s:s, s:i, s:o, s:i, s:i, s:o, s:o}", "format", FORMAT, "kind",
        recipe.kind == NNC_PACK_RAW ? "raw" : "jpeg", "max_side", (int)config->max_side, "quality",
        quality != 0 ? json_integer((json_int_t)quality) : json_null(), "channels",
        (int)nnc_dataset_channels(dataset, config->channels), "shard_samples",
        (int)config->shard_samples, "train", describe_part(&dataset->parts[NNC_PHASE_TRAIN]), "val",
        describe_part(&dataset->parts[NNC_PHASE_VAL]));
}

/* ---- the files ---- */

static int write_text(const struct nnc_pack_dir *dir, const char *name, const char *text) {
    char path[NNC_PATH_MAX + 32];
    snprintf(path, sizeof(path), "%s/%s", dir->path, name);
    return nnc_output_save(nnc_vfs_real(), path, text, strlen(text));
}

static int write_record(const struct nnc_pack_dir *dir, const json_t *record) {
    char *text = json_dumps(record, JSON_INDENT(2));
    if (text == NULL) {
        return nnc_fail(-ENOMEM, "no memory for pack.json");
    }
    int code = write_text(dir, "pack.json", text);
    free(text);
    return code;
}

static int write_classes(const struct nnc_pack_dir *dir, const struct nnc_dataset *dataset) {
    char line[NNC_CLASS_NAME_MAX + 1];
    size_t bytes = 1;
    for (uint32_t i = 0; i < dataset->classes; i++) {
        nnc_classes_line(nnc_dataset_class_name(dataset, i), line);
        bytes += strlen(line) + 1;
    }
    char *text = malloc(bytes);
    if (text == NULL) {
        return nnc_fail(-ENOMEM, "no memory for the names of the classes");
    }
    size_t at = 0;
    for (uint32_t i = 0; i < dataset->classes; i++) {
        nnc_classes_line(nnc_dataset_class_name(dataset, i), line);
        at += (size_t)snprintf(text + at, bytes - at, "%s\n", line);
    }
    text[at] = '\0';
    int code = write_text(dir, "classes.txt", text);
    free(text);
    return code;
}

/* What the directory holds. */
struct contents {
    const struct nnc_pack_dir *dir;
    bool has_record;
    char other[64]; /* the first name in it that is not ours, "" when there is none */
};

static bool ends_with(const char *name, const char *ending) {
    size_t length = strlen(name), end = strlen(ending);
    return length >= end && strcmp(name + length - end, ending) == 0;
}

static int look_at(void *context, const char *name) {
    struct contents *contents = context;
    if (strcmp(name, "pack.json") == 0) {
        contents->has_record = true;
    } else if (!ends_with(name, ".tmp")) {
        snprintf(contents->other, sizeof(contents->other), "%.63s", name);
    }
    return 0;
}

/* Half-written files of a run that was killed: nobody else writes here while we hold the lock. */
static int remove_temporary(void *context, const char *name) {
    const struct contents *contents = context;
    static const char *const ours[] = {".tar.", ".idx.", "pack.json.", "classes.txt."};
    for (size_t i = 0; i < sizeof(ours) / sizeof(ours[0]) && ends_with(name, ".tmp"); i++) {
        if (strstr(name, ours[i]) != NULL) {
            unlinkat(contents->dir->fd, name, 0);
            break;
        }
    }
    return 0;
}

/* A record of before: the quality that was given becomes the one that was taken. */
static void renew_quality(json_t *there) {
    const char *kind = json_string_value(json_object_get(there, "kind"));
    json_t *quality = json_object_get(there, "quality");
    if (kind == NULL || !json_is_integer(quality) || json_integer_value(quality) != 0) {
        return;
    }
    const struct nnc_pack_recipe recipe = {
        .kind = strcmp(kind, "raw") == 0 ? NNC_PACK_RAW : NNC_PACK_JPEG,
        .max_side = (uint32_t)json_integer_value(json_object_get(there, "max_side"))};
    uint32_t taken = nnc_pack_recipe_quality(&recipe);
    json_object_set_new(there, "quality",
                        taken != 0 ? json_integer((json_int_t)taken) : json_null());
}

/* A value of the record as people give it: none for null and 0. */
static void show_value(const json_t *record, const char *key, char ret_text[32]) {
    const json_t *value = json_object_get(record, key);
    bool is_none = !json_is_string(value) && json_integer_value(value) == 0;
    snprintf(ret_text, 32, is_none ? "none" : "%" JSON_INTEGER_FORMAT, json_integer_value(value));
    if (json_is_string(value)) {
        snprintf(ret_text, 32, "%.31s", json_string_value(value));
    }
}

/* Name what differs between the record that is there and the one that would be written. */
static int fail_other(const struct nnc_pack_dir *dir, const json_t *there, const json_t *record) {
    static const struct {
        const char *key, *option;
    } options[] = {{"kind", "--kind"},
                   {"max_side", "--max-side"},
                   {"quality", "--quality"},
                   {"channels", "--channels"},
                   {"shard_samples", "--shard-samples"}};
    char was[32], now[32];
    for (size_t i = 0; json_is_object(there) && i < sizeof(options) / sizeof(options[0]); i++) {
        if (json_equal(json_object_get(there, options[i].key),
                       json_object_get(record, options[i].key))) {
            continue;
        }
        show_value(there, options[i].key, was);
        show_value(record, options[i].key, now);
        return nnc_fail(-NNC_E_USAGE,
                        "%s was packed with %s %s, not %s: give the options of then or another "
                        "directory",
                        dir->path, options[i].option, was, now);
    }
    bool is_data = json_is_object(there) &&
                   json_equal(json_object_get(there, "format"), json_object_get(record, "format"));
    return nnc_fail(-NNC_E_USAGE,
                    is_data ? "%s was packed from another data set, or from this one before its "
                              "images changed (names, sizes or labels): give another directory"
                            : "%s has a pack.json that is damaged or of another version: give "
                              "another directory",
                    dir->path);
}

/* Is the record that is there the one that would be written? */
static int compare_record(const struct nnc_pack_dir *dir, const json_t *record) {
    char path[NNC_PATH_MAX + 32];
    snprintf(path, sizeof(path), "%s/pack.json", dir->path);
    json_t *there;
    int code = nnc_record_load(path, &there);
    if (code < 0) {
        return nnc_fail_in(-NNC_E_USAGE, "%s cannot be gone on with", dir->path);
    }
    renew_quality(there);
    code = json_equal(there, record) ? 0 : fail_other(dir, there, record);
    json_decref(there);
    return code;
}

static int take_over(const struct nnc_pack_dir *dir, const json_t *record) {
    struct nnc_vfs *vfs = nnc_vfs_real();
    struct contents contents = {.dir = dir};
    int code = vfs->ops->list(vfs, dir->path, look_at, &contents);
    if (code < 0) {
        return nnc_fail(-NNC_E_USAGE, "%s: %s", dir->path, strerror(-code));
    }
    if (contents.has_record) {
        vfs->ops->list(vfs, dir->path, remove_temporary, &contents);
        return compare_record(dir, record);
    }
    if (contents.other[0] != '\0') {
        return nnc_fail(
            -NNC_E_USAGE,
            "%s is not empty (it has %s) and was not made by pack; give a new directory", dir->path,
            contents.other);
    }
    vfs->ops->list(vfs, dir->path, remove_temporary, &contents);
    return write_record(dir, record);
}

/* ---- the place ---- */

/* The nearest directory above path, or path itself, that exists, without links. False: none. */
static bool find_existing(const char *path, char ret_real[PATH_MAX]) {
    char above[NNC_PATH_MAX];
    if (snprintf(above, sizeof(above), "%s%s", path[0] == '/' ? "" : "./", path) >=
        (int)sizeof(above)) {
        return false;
    }
    while (realpath(above, ret_real) == NULL) {
        char *slash = strrchr(above, '/');
        if (slash == NULL || slash == above) {
            return false;
        }
        *slash = '\0';
    }
    return true;
}

/* Is path the directory, or beneath it? Both without links. */
static bool is_beneath(const char *path, const char *directory) {
    size_t length = strcmp(directory, "/") == 0 ? 0 : strlen(directory);
    return strncmp(path, directory, length) == 0 && (path[length] == '/' || path[length] == '\0');
}

int nnc_pack_dir_apart(const char *from, const char *to) {
    char source[PATH_MAX], place[PATH_MAX], target[PATH_MAX];
    struct stat status;
    if (from[0] == '\0' || realpath(from, source) == NULL || stat(source, &status) < 0 ||
        !find_existing(to, place)) {
        return 0; /* who opens them says what is wrong */
    }
    if (S_ISDIR(status.st_mode) && is_beneath(place, source)) {
        return nnc_fail(-NNC_E_USAGE,
                        "%s lies in the data set %s and would become a part of it: give a "
                        "directory elsewhere",
                        to, from);
    }
    if (realpath(to, target) != NULL && is_beneath(source, target)) {
        return nnc_fail(
            -NNC_E_USAGE,
            "the data set %s lies in %s: give a directory of its own for what is packed", from, to);
    }
    return 0;
}

/* ---- life ---- */

static int open_locked(struct nnc_pack_dir *dir) {
    int code = nnc_vfs_make_dirs(nnc_vfs_real(), dir->path, 0777);
    if (code < 0) {
        return nnc_fail(-NNC_E_USAGE, "%s cannot be made: %s", dir->path, strerror(-code));
    }
    dir->fd = open(dir->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir->fd < 0) {
        nnc_fail_errno("%s", dir->path);
        return -NNC_E_USAGE;
    }
    if (flock(dir->fd, LOCK_EX | LOCK_NB) < 0 && errno == EWOULDBLOCK) {
        return nnc_fail(-NNC_E_USAGE, "%s is in use by another nncoord pack", dir->path);
    }
    return 0;
}

int nnc_pack_dir_open(const char *path, const struct nnc_dataset *dataset,
                      const struct nnc_config *config, struct nnc_pack_dir **ret_dir) {
    struct nnc_pack_dir *dir = calloc(1, sizeof(*dir));
    json_t *record = describe(dataset, config);
    int code = dir == NULL || record == NULL ? nnc_fail(-ENOMEM, "no memory to pack") : 0;
    if (code >= 0) {
        dir->fd = -1;
        int length = snprintf(dir->path, sizeof(dir->path), "%s", path);
        code = length < 0 || (size_t)length >= sizeof(dir->path)
                   ? nnc_fail(-NNC_E_USAGE, "the path of the directory is too long")
                   : open_locked(dir);
    }
    code = code < 0 ? code : take_over(dir, record);
    code = code < 0 ? code : write_classes(dir, dataset);
    json_decref(record);
    if (code < 0) {
        nnc_pack_dir_close(dir);
        return code;
    }
    *ret_dir = dir;
    return 0;
}

int nnc_pack_dir_shard(const struct nnc_pack_dir *dir, const char *part, uint64_t number,
                       char ret_path[NNC_PATH_MAX]) {
    int length = snprintf(ret_path, NNC_PATH_MAX, "%s/%s-%06" PRIu64, dir->path, part, number);
    return length < 0 || length >= NNC_PATH_MAX - 40
               ? nnc_fail(-NNC_E_USAGE, "%s: the path is too long for a shard's name", dir->path)
               : 0;
}

/* Which shards there may be. */
struct wanted {
    const char *const *parts;
    const uint64_t *counts;
    char other[NAME_MAX + 1]; /* an archive that is none of them */
};

static bool is_shard(const struct wanted *wanted, const char *name) {
    for (int i = 0; i < 2; i++) {
        char same[NAME_MAX + 1];
        const char *dash = strrchr(name, '-');
        uint64_t number = dash != NULL ? strtoull(dash + 1, NULL, 10) : 0;
        snprintf(same, sizeof(same), "%s-%06" PRIu64 ".tar", wanted->parts[i], number);
        if (number < wanted->counts[i] && strcmp(same, name) == 0) {
            return true;
        }
    }
    return false;
}

static int find_other(void *context, const char *name) {
    struct wanted *wanted = context;
    if (ends_with(name, ".tar") && !is_shard(wanted, name)) {
        snprintf(wanted->other, sizeof(wanted->other), "%s", name);
        return 1;
    }
    return 0;
}

int nnc_pack_dir_foreign(const struct nnc_pack_dir *dir, const char *const parts[2],
                         const uint64_t counts[2]) {
    struct nnc_vfs *vfs = nnc_vfs_real();
    struct wanted wanted = {.parts = parts, .counts = counts};
    int code = vfs->ops->list(vfs, dir->path, find_other, &wanted);
    if (code < 0) {
        return nnc_fail(-NNC_E_USAGE, "%s: %s", dir->path, strerror(-code));
    }
    if (wanted.other[0] == '\0') {
        return 0;
    }
    return nnc_fail(-NNC_E_USAGE,
                    "%s/%s is no shard of this pack, but whoever reads %s would read it too; move "
                    "it away, then pack again",
                    dir->path, wanted.other, dir->path);
}

void nnc_pack_dir_close(struct nnc_pack_dir *dir) {
    if (dir == NULL) {
        return;
    }
    if (dir->fd >= 0) {
        close(dir->fd); /* ends the lock */
    }
    free(dir);
}
