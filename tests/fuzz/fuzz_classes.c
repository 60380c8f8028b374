/* SPDX-License-Identifier: Apache-2.0 */
/* Fuzz target: any bytes as classes.txt. Names that are taken are text, none is empty, and written
 * as lines they give the file again. */
#include "base/text.h"
#include "coordinator/dataset_classes.h"
#include "ipc/index.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    struct nnc_classes classes;
    char *text = malloc(bytes + 1);
    assert(text != NULL);
    memcpy(text, data, bytes);
    if (nnc_classes_parse("fuzz", text, bytes, &classes) < 0) {
        return 0;
    }
    size_t at = 0;
    assert(classes.count <= NNC_INDEX_CLASSES_MAX);
    for (uint32_t i = 0; i < classes.count; i++) {
        char line[NNC_CLASS_NAME_MAX + 1];
        size_t length = strlen(classes.name[i]);
        assert(length >= 1 && nnc_text_is_plain(classes.name[i]));
        nnc_classes_line(classes.name[i], line);
        assert(strlen(line) == length && at + length <= bytes);
        assert(memcmp(data + at, line, length) == 0);
        at += length + 1;
        assert(at > bytes || data[at - 1] == '\n');
    }
    assert(at == bytes || at == bytes + 1);
    nnc_classes_free(&classes);
    return 0;
}
