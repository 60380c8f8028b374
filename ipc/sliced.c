/* SPDX-License-Identifier: Apache-2.0 */
/* Recognition of images that can be read in slices (format in ipc/sliced.h). The restart index is
 * looked for behind the few segments that may stand in front of it (JFIF's or Adobe's), within the
 * first NNC_SLICED_PEEK bytes; where it is not there, the image is read as a whole. */
#include "ipc/sliced.h"

#include "base/bytes.h"

#include <string.h>

static uint32_t jpeg_head(const uint8_t *bytes, size_t size) {
    size_t at = 2;
    while (at + 4 + NNC_RESTART_FIXED <= size && bytes[at] == 0xff && bytes[at + 1] >= 0xe0 &&
           bytes[at + 1] <= 0xef) {
        if (bytes[at + 1] == NNC_RESTART_MARKER &&
            memcmp(bytes + at + 4, NNC_RESTART_ID, NNC_RESTART_ID_BYTES) == 0) {
            return nnc_big32(bytes + at + 4 + NNC_RESTART_ID_BYTES);
        }
        at += 2 + nnc_big16(bytes + at + 2);
    }
    return 0;
}

uint32_t nnc_sliced_head(const uint8_t *bytes, size_t size, uint64_t total) {
    if (total < NNC_SLICED_MIN || size < 4) {
        return 0;
    }
    uint32_t head = 0;
    if (bytes[0] == 'P' && (bytes[1] == '5' || bytes[1] == '6')) {
        head = NNC_SLICED_PEEK;
    } else if (bytes[0] == 0xff && bytes[1] == 0xd8) {
        head = jpeg_head(bytes, size);
    }
    return head < total ? head : 0;
}
