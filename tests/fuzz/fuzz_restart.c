/* SPDX-License-Identifier: Apache-2.0 */
/* Fuzz target: any bytes as an image of which a slice is read (restart-indexed JPEG, PNM).
 *
 *   0  1  bit 0: the head is as long as the image's first bytes say, else what follows;
 *         bit 1: bytes of the slice are missing at its end
 *   1  2  length of the head
 *   3  4  the wanted part (pixels_target.h)
 *   7     the file
 *
 * Always: what is asked for lies inside the file, and decoding ends in pixels or an error.
 * An index may lie, in sizes that cancel out, and then the slice shows something else than the
 * whole: nobody can tell without reading everything. So the slice is compared with the whole only
 * where the markers are where the index says, in order, no other is between them, and the whole
 * decodes without a warning. Then the slice decodes and its pixels are equal. PNM cannot lie. */
#include "base/err.h"
#include "ipc/sliced.h"
#include "loader/jpeg.h"
#include "loader/jpeg_restart.h"
#include "tests/fuzz/pixels_target.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
    OPTIONS = 7,
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

/* The input taken apart. */
struct input {
    const uint8_t *options, *file;
    size_t size, head_size;
};

static int answer(void *context, uint32_t width, uint32_t height, struct nnc_box *ret_need) {
    *ret_need = pixels_target_box((const uint8_t *)context, width, height);
    return 0;
}

static size_t choose_head(const struct input *input) {
    size_t peek = input->size < NNC_SLICED_PEEK ? input->size : NNC_SLICED_PEEK;
    /* Small files are not read in slices; here they are. */
    size_t head = input->options[0] & 1
                      ? nnc_sliced_head(input->file, peek, input->size + NNC_SLICED_MIN)
                      : (size_t)input->options[1] << 8 | input->options[2];
    return head < input->size ? head : input->size;
}

/* Are all markers of the scan those that the index tells, numbered in order? */
static bool is_true(const struct input *input) {
    struct nnc_jpeg_restart restart;
    if (!nnc_jpeg_sniff(input->file, input->size)) {
        return true;
    }
    if (nnc_jpeg_restart_parse(input->file, input->head_size, input->size, &restart) == 0) {
        return false;
    }
    const uint8_t *sizes = restart.head + restart.segment_at + 4 + NNC_RESTART_FIXED;
    size_t at = restart.head_size;
    for (uint32_t i = 0; i < restart.pieces; i++) {
        size_t end = at + ((size_t)sizes[2 * i] << 8 | sizes[2 * i + 1]);
        for (; at < end; at++) {
            if (input->file[at] == 0xff && (at + 1 == end || input->file[at + 1] != 0)) {
                return false;
            }
        }
        uint8_t wanted = i + 1 == restart.pieces ? 0xd9 : (uint8_t)(0xd0 + i % 8);
        if (input->file[end] != 0xff || input->file[end + 1] != wanted) {
            return false;
        }
        at = end + 2;
    }
    return at == input->size;
}

static void try_slice(const struct input *input, const struct nnc_image_range *range) {
    bool cut = (input->options[0] & 2) != 0;
    size_t bytes = cut ? range->bytes - 1 : range->bytes;
    uint8_t *rest = calloc(1, bytes + NNC_IMAGE_ROW_SLACK);
    assert(rest != NULL);
    memcpy(rest, input->file + range->first, bytes);
    const struct nnc_image_slice slice = {
        .rest = {.bytes = rest, .size = bytes, .first = range->first}, .total = input->size};
    struct pixels_target part = {.data = NULL};
    struct pixels_target whole = {.whole = true};
    memcpy(part.part, input->options + 3, 4);
    int code = pixels_target_decode(input->file, input->head_size, false, &slice, &part);
    assert(code == 0 || code == -NNC_E_FORMAT || code == -ENOMEM || code == -E2BIG);
    assert(!cut || code < 0);
    if (!cut && code != -E2BIG && is_true(input) &&
        pixels_target_decode(input->file, input->size, true, NULL, &whole) == 0 &&
        whole.warnings == 0) {
        assert(code == 0);
        pixels_target_compare(&part, &whole);
    }
    free(part.data);
    free(whole.data);
    free(rest);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    if (bytes < OPTIONS + 4) {
        return 0;
    }
    struct input input = {.options = data, .file = data + OPTIONS, .size = bytes - OPTIONS};
    input.head_size = choose_head(&input);
    uint8_t *head = malloc(input.head_size + 1);
    assert(head != NULL);
    memcpy(head, input.file, input.head_size);
    uint8_t part[4];
    memcpy(part, data + 3, 4);
    const struct nnc_image_part known = {.bytes = head, .size = input.head_size};
    const struct nnc_image_asker asker = {.box = answer, .context = part};
    struct nnc_image_range range;
    if (nnc_image_find_slice(&known, input.size, &asker, &range) == 1) {
        assert(range.bytes >= 1 && range.bytes <= input.size);
        assert(range.first <= input.size - range.bytes);
        try_slice(&input, &range);
    }
    free(head);
    return 0;
}
