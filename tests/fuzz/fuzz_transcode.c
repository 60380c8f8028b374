/* SPDX-License-Identifier: Apache-2.0 */
/* Fuzz target: any bytes as a JPEG that is packed without loss. What is written decodes without a
 * warning, whatever it was made of; where the original does so too, both have the same pixels; and
 * a restart index that is written parses. */
#include "base/err.h"
#include "data/jpeg_write.h"
#include "loader/jpeg_restart.h"
#include "tests/fuzz/pixels_target.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static void check(const struct nnc_jpeg_file *file, const struct pixels_target *original,
                  bool is_clean) {
    struct pixels_target made = {.whole = true};
    struct nnc_jpeg_restart restart;
    int code = pixels_target_decode(file->bytes, file->size, true, NULL, &made);
    assert(code == 0 && made.warnings == 0);
    if (is_clean) {
        pixels_target_compare(&made, original);
    }
    if (file->pieces > 0) {
        assert(nnc_jpeg_restart_parse(file->bytes, file->size, file->size, &restart) == 1);
        assert(restart.pieces == file->pieces);
    }
    free(made.data);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    static struct nnc_jpeg_writer *writer;
    if (writer == NULL && nnc_jpeg_writer_create(&writer) < 0) {
        abort();
    }
    if (bytes < 3 || memcmp(data, "\xff\xd8\xff", 3) != 0) {
        return 0;
    }
    struct pixels_target original = {.whole = true};
    int decoded = pixels_target_decode(data, bytes, true, NULL, &original);
    if (decoded != -E2BIG) {
        struct nnc_jpeg_file file;
        int code = nnc_jpeg_transcode(writer, data, bytes, &file);
        assert(code == 0 || code == -NNC_E_FORMAT || code == -ENOMEM);
        if (code == 0) {
            check(&file, &original, decoded == 0 && original.warnings == 0);
        }
    }
    free(original.data);
    return 0;
}
