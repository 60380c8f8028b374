/* SPDX-License-Identifier: Apache-2.0 */
/* A text file so that people and scripts can read it; at most 1 MiB and 100,000 names. */
#include "coordinator/classes.h"

#include "base/config.h"
#include "base/err.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CLASSES_BYTES_MAX (1u << 20)

int nnc_classes_save(const struct nnc_index *index, const char *run_dir) {
    char path[NNC_PATH_MAX + 32];
    snprintf(path, sizeof(path), "%s/classes.txt", run_dir);
    FILE *file = fopen(path, "we");
    if (file == NULL) {
        return nnc_fail_errno("write %s", path);
    }
    for (uint64_t i = 0; i < index->header->classes; i++) {
        fprintf(file, "%s\n", nnc_index_class_name(index, i));
    }
    return fclose(file) == 0 ? 0 : nnc_fail_errno("write %s", path);
}

static FILE *open_classes(const char *run_or_checkpoint) {
    char path[NNC_PATH_MAX + 32];
    snprintf(path, sizeof(path), "%s/classes.txt", run_or_checkpoint);
    FILE *file = fopen(path, "re");
    if (file == NULL) {
        snprintf(path, sizeof(path), "%s/../classes.txt", run_or_checkpoint);
        file = fopen(path, "re");
    }
    return file;
}

/* Split text at newlines. */
static int split_lines(struct nnc_classes *classes) {
    uint32_t lines = 0;
    for (char *at = strchr(classes->text, '\n'); at != NULL; at = strchr(at + 1, '\n')) {
        lines++;
    }
    classes->name = calloc(lines + 1, sizeof(char *));
    if (classes->name == NULL) {
        return nnc_fail(-ENOMEM, "class names: out of memory");
    }
    char *start = classes->text;
    for (uint32_t i = 0; i < lines; i++) {
        char *end = strchr(start, '\n');
        *end = '\0';
        classes->name[i] = start;
        start = end + 1;
    }
    classes->count = lines;
    return 0;
}

int nnc_classes_load(const char *run_or_checkpoint, struct nnc_classes *ret_classes) {
    *ret_classes = (struct nnc_classes){0};
    FILE *file = run_or_checkpoint[0] == '\0' ? NULL : open_classes(run_or_checkpoint);
    if (file == NULL) {
        return 0;
    }
    struct nnc_classes classes = {.text = malloc(CLASSES_BYTES_MAX + 1)};
    if (classes.text == NULL) {
        fclose(file);
        return nnc_fail(-ENOMEM, "class names: out of memory");
    }
    size_t bytes = fread(classes.text, 1, CLASSES_BYTES_MAX, file);
    fclose(file);
    classes.text[bytes] = '\0';
    int result = split_lines(&classes);
    if (result < 0) {
        nnc_classes_free(&classes);
        return result;
    }
    *ret_classes = classes;
    return 0;
}

void nnc_classes_free(struct nnc_classes *classes) {
    free(classes->name);
    free(classes->text);
    *classes = (struct nnc_classes){0};
}

const char *nnc_classes_name(const struct nnc_classes *classes, uint32_t number, char *buffer,
                             size_t bytes) {
    if (number < classes->count) {
        return classes->name[number];
    }
    snprintf(buffer, bytes, "%u", (unsigned)number);
    return buffer;
}
