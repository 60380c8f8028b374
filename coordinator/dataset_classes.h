/* SPDX-License-Identifier: Apache-2.0 */
/* Names of classes as a text file, classes.txt: one name a line, line number = class. */
#ifndef NNC_COORDINATOR_DATASET_CLASSES_H
#define NNC_COORDINATOR_DATASET_CLASSES_H

#include <stddef.h>
#include <stdint.h>

/* A longer file is refused, and so is a longer name. */
#define NNC_CLASSES_BYTES_MAX (64u << 20)
#define NNC_CLASS_NAME_MAX    1023u

struct nnc_classes {
    char *text;  /* the whole file, newlines replaced by zeros */
    char **name; /* into text */
    uint32_t count;
};

/* Take a text apart. path is for messages. text[0..size): hostile, and one more byte can be
 * written.
 * Owner:  text is taken over, also after an error; free *ret_classes with nnc_classes_free().
 * Errors: -NNC_E_FORMAT naming path and line: a line that is empty, too long or no plain UTF-8
 * text, or more than NNC_INDEX_CLASSES_MAX lines; -ENOMEM. */
int nnc_classes_parse(const char *path, char *text, size_t size, struct nnc_classes *ret_classes);

/* Read and take apart what is left of an open file. Errors: the same; of reading; -NNC_E_FORMAT it
 * is no regular file or longer than NNC_CLASSES_BYTES_MAX. */
int nnc_classes_read(int fd, const char *path, struct nnc_classes *ret_classes);

/* Free the names. Takes zero. */
void nnc_classes_free(struct nnc_classes *classes);

/* A class's name as a line that nnc_classes_parse() takes: as it is, or made printable by
 * nnc_text_escape(), as a folder's name need not be text. */
void nnc_classes_line(const char *name, char ret_line[NNC_CLASS_NAME_MAX + 1]);

#endif
