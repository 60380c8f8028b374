/* SPDX-License-Identifier: Apache-2.0 */
/* Fuzz target: any bytes as the two IDX files of a set, plain or zipped. The first two bytes are
 * the length of the images file, the rest of the input is the labels file. What is accepted must
 * pass as an index, and its pixels must be there. */
#include "coordinator/dataset_idx.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static int make_file(const uint8_t *data, size_t bytes) {
    int fd = memfd_create("fuzz-idx", MFD_CLOEXEC);
    assert(fd >= 0);
    assert(write(fd, data, bytes) == (ssize_t)bytes);
    return fd;
}

static void check(const struct nnc_idx_result *result, int images_fd) {
    struct nnc_index index;
    assert(nnc_index_open(result->bytes, result->size, &index) == 0);
    const struct nnc_index_sample *last = &index.samples[index.header->samples - 1];
    uint8_t byte;
    int fd = result->raw_fd >= 0 ? result->raw_fd : images_fd;
    assert(pread(fd, &byte, 1, (off_t)(last->offset + last->size - 1)) == 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    if (bytes < 2) {
        return 0;
    }
    size_t images = (size_t)data[0] << 8 | data[1];
    size_t rest = bytes - 2;
    images = images < rest ? images : rest;
    struct nnc_idx_files files = {
        .root = "fuzz",
        .images_name = "images",
        .labels_name = "labels",
        .images_fd = make_file(data + 2, images),
        .labels_fd = make_file(data + 2 + images, rest - images),
    };
    struct nnc_idx_result result;
    if (nnc_idx_read(&files, &result) >= 0) {
        check(&result, files.images_fd);
        free(result.bytes);
        if (result.raw_fd >= 0) {
            close(result.raw_fd);
        }
    }
    close(files.images_fd);
    close(files.labels_fd);
    return 0;
}
