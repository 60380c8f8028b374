/* SPDX-License-Identifier: Apache-2.0 */
/* Fuzz target: any bytes as a PNG file. What does not begin as one is given its magic bytes. */
#include "loader/png.h"
#include "tests/fuzz/image_target.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    static const uint8_t magic[] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};
    if (nnc_png_sniff(data, bytes)) {
        image_target_run(data, bytes);
        return 0;
    }
    uint8_t *with_magic = malloc(sizeof(magic) + bytes);
    if (with_magic == NULL) {
        return 0;
    }
    memcpy(with_magic, magic, sizeof(magic));
    memcpy(with_magic + sizeof(magic), data, bytes);
    image_target_run(with_magic, sizeof(magic) + bytes);
    free(with_magic);
    return 0;
}
