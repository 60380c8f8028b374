/* SPDX-License-Identifier: Apache-2.0 */
/* Reading classes.txt, of a run or beside tar shards. The last line may lack its newline.
 *
 * Invariant: what came out of nnc_classes_parse() can be printed, and is no empty name. */
#include "coordinator/dataset_classes.h"

#include "base/err.h"
#include "base/text.h"
#include "ipc/index.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static uint64_t count_lines(const char *text, size_t size) {
    uint64_t lines = 0;
    for (size_t at = 0; at < size; lines++) {
        const char *end = memchr(text + at, '\n', size - at);
        at = end != NULL ? (size_t)(end - text) + 1 : size;
    }
    return lines;
}

static int check_name(const char *path, uint32_t line, const char *name, size_t length) {
    const char *fault = length == 0                   ? "is empty"
                        : length > NNC_CLASS_NAME_MAX ? "is too long"
                        : strlen(name) != length || !nnc_text_is_plain(name)
                            ? "is no plain UTF-8 text"
                            : NULL;
    return fault == NULL ? 0
                         : nnc_fail(-NNC_E_FORMAT, "%s:%u: the name of class %u %s", path,
                                    (unsigned)line + 1, (unsigned)line, fault);
}

/* Replace newlines by zeros; there is a zero behind the text. */
static int split_lines(const char *path, struct nnc_classes *classes, size_t size) {
    char *start = classes->text;
    for (uint32_t i = 0; i < classes->count; i++) {
        size_t rest = size - (size_t)(start - classes->text);
        char *end = memchr(start, '\n', rest);
        size_t length = end != NULL ? (size_t)(end - start) : rest;
        start[length] = '\0';
        int code = check_name(path, i, start, length);
        if (code < 0) {
            return code;
        }
        classes->name[i] = start;
        start += length + 1;
    }
    return 0;
}

int nnc_classes_parse(const char *path, char *text, size_t size, struct nnc_classes *ret_classes) {
    struct nnc_classes classes = {.text = text};
    uint64_t lines = count_lines(text, size);
    int code = 0;
    text[size] = '\0';
    if (lines > NNC_INDEX_CLASSES_MAX) {
        code = nnc_fail(-NNC_E_FORMAT, "%s: more than %u lines", path, NNC_INDEX_CLASSES_MAX);
    } else {
        classes.count = (uint32_t)lines;
        classes.name = calloc(lines + 1, sizeof(*classes.name));
        code = classes.name == NULL ? nnc_fail(-ENOMEM, "%s: no memory for its names", path)
                                    : split_lines(path, &classes, size);
    }
    if (code < 0) {
        nnc_classes_free(&classes);
        return code;
    }
    *ret_classes = classes;
    return 0;
}

/* Read up to size bytes. Returns how many there were, or negative. */
static ssize_t read_up_to(int fd, char *bytes, size_t size) {
    size_t at = 0;
    while (at < size) {
        ssize_t got = read(fd, bytes + at, size - at);
        if (got < 0 && errno != EINTR) {
            return -1;
        }
        if (got == 0) {
            break;
        }
        at += got > 0 ? (size_t)got : 0;
    }
    return (ssize_t)at;
}

int nnc_classes_read(int fd, const char *path, struct nnc_classes *ret_classes) {
    struct stat status;
    if (fstat(fd, &status) != 0) {
        return nnc_fail_errno("%s", path);
    }
    if (!S_ISREG(status.st_mode) || status.st_size > (off_t)NNC_CLASSES_BYTES_MAX) {
        return nnc_fail(-NNC_E_FORMAT, "%s: no file of at most %u bytes", path,
                        NNC_CLASSES_BYTES_MAX);
    }
    /* A file that grows meanwhile is read to the size that it had. */
    size_t size = (size_t)status.st_size;
    char *text = malloc(size + 1);
    if (text == NULL) {
        return nnc_fail(-ENOMEM, "%s: no memory for its names", path);
    }
    ssize_t got = read_up_to(fd, text, size);
    if (got < 0) {
        int code = nnc_fail_errno("%s", path);
        free(text);
        return code;
    }
    return nnc_classes_parse(path, text, (size_t)got, ret_classes);
}

void nnc_classes_free(struct nnc_classes *classes) {
    free(classes->name);
    free(classes->text);
    *classes = (struct nnc_classes){0};
}

void nnc_classes_line(const char *name, char ret_line[NNC_CLASS_NAME_MAX + 1]) {
    if (nnc_text_is_plain(name) && strlen(name) <= NNC_CLASS_NAME_MAX) {
        snprintf(ret_line, NNC_CLASS_NAME_MAX + 1, "%s", name);
    } else {
        nnc_text_escape(name, ret_line, NNC_CLASS_NAME_MAX + 1);
    }
}
