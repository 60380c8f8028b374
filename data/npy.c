/* SPDX-License-Identifier: Apache-2.0 */
/* The head of NumPy's array files; see npy.h. */
#include "data/npy.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum {
    PREFIX_BYTES = 10,
    ALIGNMENT = 64,
};

size_t nnc_npy_header(const uint64_t shape[4], uint8_t ret_header[NNC_NPY_HEADER_MAX]) {
    char text[NNC_NPY_HEADER_MAX];
    int length = snprintf(text, sizeof(text),
                          "{'descr': '|u1', 'fortran_order': False, 'shape': (%" PRIu64 ", %" PRIu64
                          ", %" PRIu64 ", %" PRIu64 "), }",
                          shape[0], shape[1], shape[2], shape[3]);
    size_t used = PREFIX_BYTES + (size_t)length + 1;
    size_t total = (used + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    assert(length > 0 && total <= NNC_NPY_HEADER_MAX);
    size_t rest = total - PREFIX_BYTES;
    memset(ret_header, ' ', total);
    memcpy(ret_header, "\x93NUMPY\x01\x00", 8);
    ret_header[8] = (uint8_t)rest;
    ret_header[9] = (uint8_t)(rest >> 8);
    memcpy(ret_header + PREFIX_BYTES, text, (size_t)length);
    ret_header[total - 1] = '\n';
    return total;
}
