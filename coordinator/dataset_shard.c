/* SPDX-License-Identifier: Apache-2.0 */
/* One shard: members grouped to samples as WebDataset does it.
 *
 *   member "a/b/0001.seg.png"  ->  key "a/b/0001", extension "seg.png" (lower case)
 *
 * Consecutive members of equal key are one sample; its image is KEY.jpg, .jpeg, .png, .ppm or .pgm,
 * its label is KEY.cls (an ASCII integer) or in KEY.json ("label", "cls" or "class"). Names that
 * begin with a dot or have none belong to nothing; keys __x__ are metadata. Other images
 * ("0001.left.jpg") are noted too: where the set turns out to be class folders in a tar, they are
 * images like the others. A label that reaches no image is noted with the reason, for whoever
 * wonders where it went.
 *
 * Invariants: labels are in 0..NNC_INDEX_CLASSES_MAX-1 or NNC_SHARD_NO_LABEL; at most BODY bytes
 * of a label file are read.
 * Source: webdataset, tariterators.py (base_plus_ext, group_by_keys). */
#include "coordinator/dataset_shard.h"

#include "base/err.h"
#include "base/text.h"
#include "coordinator/dataset_walk.h"
#include "ipc/index.h"
#include "ipc/sliced.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXTENSION_BYTES 32
#define EXTENSIONS_MAX  32
#define CLS_BYTES_MAX   64u
#define NAME_SHOWN      120

/* The sample that is being put together. */
struct group {
    char key[NNC_TAR_NAME_MAX + 1];
    size_t first_image; /* in the shard's images */
    bool has_image;
    int32_t label;
    char label_name[NAME_SHOWN];       /* of the member that has it, printable */
    char other_image[NAME_SHOWN];      /* the first that is no sample's, printable; "" when none */
    char fault[NNC_SHARD_FAULT_BYTES]; /* why the first label cannot be used, "" when it can */
    char extensions[EXTENSIONS_MAX][EXTENSION_BYTES];
    size_t extension_count;
};

/* A member's name taken apart. */
struct parts {
    const char *base;                /* behind the last slash */
    size_t key_length;               /* from the name's start to the first dot of base */
    char extension[EXTENSION_BYTES]; /* lower case; cut when longer, which is none we know */
};

static int take_member(struct nnc_tar_reader *reader, const struct nnc_tar_source *source,
                       const struct nnc_tar_member *member, struct group *group,
                       struct nnc_shard *shard);
static void group_end(struct group *group, struct nnc_shard *shard);

int nnc_shard_scan(const struct nnc_tar_source *source, struct nnc_shard *ret_shard) {
    *ret_shard = (struct nnc_shard){.label_max = NNC_SHARD_NO_LABEL};
    struct nnc_tar_reader *reader = NULL;
    struct group *group = calloc(1, sizeof(*group));
    int code = group == NULL ? nnc_fail(-ENOMEM, "%s: no memory to read it", source->name)
                             : nnc_tar_open(source, &reader);
    struct nnc_tar_member member;
    if (code >= 0) {
        group->label = NNC_SHARD_NO_LABEL;
    }
    while (code >= 0 && (code = nnc_tar_next(reader, &member)) > 0) {
        if (member.is_regular) {
            code = take_member(reader, source, &member, group, ret_shard);
        }
    }
    if (code >= 0) {
        group_end(group, ret_shard);
        ret_shard->lacks_end = !nnc_tar_has_end(reader);
    }
    if (code >= 0 && ret_shard->names.failed) {
        code = nnc_fail(-ENOMEM, "%s: no memory for its names", source->name);
    }
    nnc_tar_close(reader);
    free(group);
    return code;
}

void nnc_shard_finish(struct nnc_shard *shard) {
    nnc_pool_finish(&shard->names);
    free(shard->images);
    *shard = (struct nnc_shard){0};
}

/* False for members that belong to no sample. */
static bool parse_name(const char *name, struct parts *ret_parts) {
    const char *slash = strrchr(name, '/');
    const char *base = slash != NULL ? slash + 1 : name;
    const char *dot = strchr(base, '.');
    if (dot == NULL || dot == base) {
        return false;
    }
    size_t base_length = (size_t)(dot - base);
    if (base_length >= 4 && strncmp(base, "__", 2) == 0 && strncmp(dot - 2, "__", 2) == 0) {
        return false;
    }
    ret_parts->base = base;
    ret_parts->key_length = (size_t)(dot - name);
    size_t at = 0;
    for (const char *from = dot + 1; *from != '\0' && at + 1 < EXTENSION_BYTES; from++) {
        ret_parts->extension[at++] =
            (char)(*from >= 'A' && *from <= 'Z' ? *from - 'A' + 'a' : *from);
    }
    ret_parts->extension[at] = '\0';
    return true;
}

static bool is_sample_image(const char *extension) {
    static const char *const known[] = {"jpg", "jpeg", "png", "ppm", "pgm"};
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        if (strcmp(extension, known[i]) == 0) {
            return true;
        }
    }
    return false;
}

/* Pool offset of the name's last folder; neighbours mostly share it. */
static size_t add_folder(struct nnc_shard *shard, const char *name, const char *base) {
    if (base == name) {
        return NNC_SHARD_NO_FOLDER;
    }
    const char *end = base - 1;
    const char *start = end;
    while (start > name && start[-1] != '/') {
        start--;
    }
    size_t length = (size_t)(end - start);
    if (length == 0) {
        return NNC_SHARD_NO_FOLDER;
    }
    if (shard->image_count > 0) {
        size_t last = shard->images[shard->image_count - 1].folder;
        const char *text = last != NNC_SHARD_NO_FOLDER ? nnc_pool_at(&shard->names, last) : "";
        if (strlen(text) == length && memcmp(text, start, length) == 0) {
            return last;
        }
    }
    return nnc_pool_add(&shard->names, start, length);
}

/* What the image's first bytes say about reading it in slices. */
static int peek(struct nnc_tar_reader *reader, const struct nnc_tar_member *member,
                uint32_t *ret_head) {
    const unsigned char *data;
    *ret_head = 0;
    if (member->size < NNC_SLICED_MIN) {
        return 0;
    }
    int code = nnc_tar_read(reader, member->offset, NNC_SLICED_PEEK, &data);
    if (code >= 0) {
        *ret_head = nnc_sliced_head(data, NNC_SLICED_PEEK, member->size);
    }
    return code;
}

static int add_image(struct nnc_shard *shard, const struct nnc_tar_source *source,
                     const struct nnc_tar_member *member, const struct parts *parts,
                     const struct nnc_shard_image *known) {
    void *rows = shard->images;
    if (!nnc_array_grow(&rows, shard->image_count, &shard->image_capacity,
                        sizeof(*shard->images))) {
        return nnc_fail(-ENOMEM, "%s: no memory for its samples", source->name);
    }
    shard->images = rows;
    struct nnc_shard_image image = *known;
    image.name = nnc_pool_add(&shard->names, member->name, strlen(member->name));
    image.folder = add_folder(shard, member->name, parts->base);
    image.offset = member->offset;
    image.size = member->size;
    image.label = NNC_SHARD_NO_LABEL;
    shard->images[shard->image_count++] = image;
    return 0;
}

static void group_begin(struct group *group, const char *name, size_t key_length,
                        const struct nnc_shard *shard) {
    memcpy(group->key, name, key_length);
    group->key[key_length] = '\0';
    group->first_image = shard->image_count;
    group->has_image = false;
    group->label = NNC_SHARD_NO_LABEL;
    group->other_image[0] = '\0';
    group->fault[0] = '\0';
    group->extension_count = 0;
}

/* A label without an image in its group. */
static void explain_orphan(struct group *group) {
    if (group->other_image[0] != '\0') {
        snprintf(
            group->fault, sizeof(group->fault),
            "%s is not the image of %s: a key ends at the first dot of the name, and the image "
            "is KEY.jpg, .jpeg, .png, .ppm or .pgm",
            group->other_image, group->label_name);
    } else {
        snprintf(group->fault, sizeof(group->fault),
                 "%s has no image next to it: the members of a sample must follow each other, as "
                 "`tar --sort=name` writes them",
                 group->label_name);
    }
}

static void group_end(struct group *group, struct nnc_shard *shard) {
    if (group->label != NNC_SHARD_NO_LABEL && !group->has_image) {
        explain_orphan(group);
    }
    bool is_lost = group->label == NNC_SHARD_NO_LABEL || !group->has_image;
    if (is_lost && group->fault[0] != '\0' && shard->lost_labels++ == 0) {
        memcpy(shard->first_lost, group->fault, sizeof(shard->first_lost));
    }
    for (size_t i = group->first_image; i < shard->image_count; i++) {
        shard->images[i].label = group->label;
    }
    if (group->has_image && group->label > shard->label_max) {
        shard->label_max = group->label;
    }
}

/* Note the first member that is twice in its sample. Class folders in a tar can have thousands of
 * members of equal key (n01.0001.jpg, n01.0002.jpg); only so many are compared. */
static void note_extension(struct group *group, const struct nnc_tar_member *member,
                           const struct parts *parts, struct nnc_shard *shard) {
    for (size_t i = 0; i < group->extension_count; i++) {
        if (strcmp(group->extensions[i], parts->extension) == 0 && shard->duplicate[0] == '\0') {
            char key[160];
            char extension[64];
            nnc_text_escape(group->key, key, sizeof(key));
            nnc_text_escape(parts->extension, extension, sizeof(extension));
            snprintf(shard->duplicate, sizeof(shard->duplicate),
                     "offset %" PRIu64 ": key %s has .%s twice", member->header_offset, key,
                     extension);
        }
    }
    if (group->extension_count < EXTENSIONS_MAX) {
        memcpy(group->extensions[group->extension_count++], parts->extension, EXTENSION_BYTES);
    }
}

static bool is_label(int64_t value) {
    return value >= 0 && value < (int64_t)NNC_INDEX_CLASSES_MAX;
}

/* " 12\n" -> 12; NNC_SHARD_NO_LABEL when it is anything else. */
static int32_t parse_cls(const unsigned char *data, size_t size) {
    char text[CLS_BYTES_MAX + 1];
    assert(size <= CLS_BYTES_MAX);
    memcpy(text, data, size);
    text[size] = '\0';
    char *end;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    bool any = end != text;
    end += strspn(end, " \t\r\n");
    bool whole = any && end == text + size && errno == 0;
    return whole && is_label(value) ? (int32_t)value : NNC_SHARD_NO_LABEL;
}

/* *ret_fault: what is wrong, NULL when nothing is. *ret_has tells whether the object has a label at
 * all: captions and the like have none. */
static int32_t parse_json(const unsigned char *data, size_t size, bool *ret_has,
                          const char **ret_fault) {
    static const char *const fields[] = {"label", "cls", "class"};
    json_t *object = json_loadb((const char *)data, size, JSON_REJECT_DUPLICATES, NULL);
    const json_t *label = NULL;
    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]) && label == NULL; i++) {
        label = json_object_get(object, fields[i]);
    }
    *ret_has = object == NULL || label != NULL;
    int64_t value = json_is_integer(label) ? json_integer_value(label) : -1;
    bool is_good = is_label(value);
    *ret_fault = is_good          ? NULL
                 : object == NULL ? "is no JSON"
                 : label == NULL  ? "has none of \"label\", \"cls\" and \"class\""
                                  : "has a label that is no whole number from 0 on";
    json_decref(object);
    return is_good ? (int32_t)value : NNC_SHARD_NO_LABEL;
}

/* "0006.cls holds "dog", no whole number from 0 on" */
static void explain_cls(const char *name, const unsigned char *data, size_t size, char *ret_text,
                        size_t room) {
    char text[CLS_BYTES_MAX + 1], shown[40];
    memcpy(text, data, size);
    text[size] = '\0';
    text[strcspn(text, "\r\n")] = '\0';
    nnc_text_escape(text, shown, sizeof(shown));
    snprintf(ret_text, room, "%s holds \"%s\", no whole number from 0 on", name, shown);
}

/* The label in a member of known size; text says why there is none, "" when nothing is wrong. */
static int read_label(struct nnc_tar_reader *reader, const struct nnc_tar_member *member,
                      bool is_json, struct nnc_shard *shard, int32_t *ret_label,
                      char text[NNC_SHARD_FAULT_BYTES]) {
    const unsigned char *data;
    size_t size = (size_t)member->size;
    char name[NAME_SHOWN];
    int code = nnc_tar_read(reader, member->offset, size, &data);
    if (code < 0) {
        return code;
    }
    nnc_text_escape(member->name, name, sizeof(name));
    if (!is_json) {
        *ret_label = parse_cls(data, size);
        if (*ret_label == NNC_SHARD_NO_LABEL) {
            explain_cls(name, data, size, text, NNC_SHARD_FAULT_BYTES);
        }
        return 0;
    }
    bool has_label;
    const char *fault;
    *ret_label = parse_json(data, size, &has_label, &fault);
    if (fault != NULL && has_label) {
        snprintf(text, NNC_SHARD_FAULT_BYTES, "%s %s", name, fault);
    } else if (fault != NULL && shard->first_bare[0] == '\0') {
        snprintf(shard->first_bare, sizeof(shard->first_bare), "%s %s", name, fault);
    }
    return 0;
}

static int take_label(struct nnc_tar_reader *reader, const struct nnc_tar_member *member,
                      bool is_json, struct group *group, struct nnc_shard *shard) {
    size_t size_max = is_json ? NNC_TAR_BODY_MAX : CLS_BYTES_MAX;
    int32_t label = NNC_SHARD_NO_LABEL;
    char fault[NNC_SHARD_FAULT_BYTES] = "", name[NAME_SHOWN];
    int code = 0;
    nnc_text_escape(member->name, name, sizeof(name));
    if (member->size <= size_max) {
        code = read_label(reader, member, is_json, shard, &label, fault);
    } else {
        snprintf(fault, sizeof(fault), "%s is too long for a label", name);
    }
    if (code >= 0 && fault[0] != '\0' && group->fault[0] == '\0') {
        memcpy(group->fault, fault, sizeof(group->fault));
    }
    /* KEY.cls is the label proper and wins over what KEY.json says. */
    if (label != NNC_SHARD_NO_LABEL && (!is_json || group->label == NNC_SHARD_NO_LABEL)) {
        group->label = label;
        memcpy(group->label_name, name, sizeof(group->label_name));
    }
    return code;
}

static int take_member(struct nnc_tar_reader *reader, const struct nnc_tar_source *source,
                       const struct nnc_tar_member *member, struct group *group,
                       struct nnc_shard *shard) {
    struct parts parts;
    if (!parse_name(member->name, &parts)) {
        return 0;
    }
    if (strncmp(group->key, member->name, parts.key_length) != 0 ||
        group->key[parts.key_length] != '\0') {
        group_end(group, shard);
        group_begin(group, member->name, parts.key_length, shard);
    }
    note_extension(group, member, &parts, shard);
    bool is_json = strcmp(parts.extension, "json") == 0;
    if (is_json || strcmp(parts.extension, "cls") == 0) {
        return take_label(reader, member, is_json, group, shard);
    }
    bool is_sample = is_sample_image(parts.extension) && !group->has_image;
    if (!is_sample && !nnc_walk_is_image(parts.base)) {
        return 0;
    }
    if (!is_sample && group->other_image[0] == '\0') {
        nnc_text_escape(member->name, group->other_image, sizeof(group->other_image));
    }
    group->has_image = group->has_image || is_sample;
    struct nnc_shard_image image = {.is_sample = is_sample};
    int code = peek(reader, member, &image.head);
    return code < 0 ? code : add_image(shard, source, member, &parts, &image);
}
