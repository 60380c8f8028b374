/* SPDX-License-Identifier: Apache-2.0 */
/* IDX files.
 *
 *   images  0 u32 0x00000803, count, height, width            then count*height*width bytes
 *        or 0 u32 0x00000804, count, height, width, channels  then count*height*width*channels
 * bytes labels  0 u32 0x00000801, count                           then count bytes
 *
 * All numbers are big endian; 08 in the magic is the element type u8, the last byte the dimensions.
 * Either file may be gzip, told by its content. Images stay where they are unless they are zipped:
 * then they are inflated once into a memfd that the loaders share.
 *
 * Invariants: a file has exactly the bytes its header promises; before memory is taken, the promise
 * is compared with the file's size (deflate never shrinks more than DEFLATE_RATIO to one).
 *
 * Nothing is cached: what is read here are the labels, one byte a sample.
 * Source: Y. LeCun's MNIST page, "FILE FORMATS FOR THE MNIST DATABASE"; RFC 1951 for the ratio. */
#include "coordinator/dataset_idx.h"

#include "base/bytes.h"
#include "base/checked.h"
#include "base/err.h"
#include "coordinator/index_build.h"
#include "ipc/memfd.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#define MAGIC_LABELS     0x801u
#define MAGIC_GREY       0x803u
#define MAGIC_COLOUR     0x804u
#define HEADER_MAX       20u
#define SIDE_MAX         65535u
#define SAMPLE_BYTES_MAX (256u << 20)
#define DEFLATE_RATIO    1032u
#define READ_AT_ONCE     (1u << 30)

struct shape {
    uint32_t count, height, width, channels;
    size_t header_bytes;
    size_t sample_bytes;
    size_t total_bytes;
};

/* One file, zipped or not, read from its start. */
struct stream {
    const char *root, *name; /* for errors */
    gzFile file;
    size_t file_bytes; /* as it lies on disk */
    bool is_zipped;
};

static int stream_open(const struct nnc_idx_files *files, const char *name, int fd,
                       struct stream *ret_stream);
static void stream_close(struct stream *stream);
static int stream_read(struct stream *stream, void *data, size_t bytes);
static int stream_check_end(struct stream *stream);
static int read_shape(struct stream *images, struct shape *ret_shape);
static int read_labels(struct stream *labels, uint32_t count, unsigned char **ret_labels);
static int inflate_images(struct stream *images, const struct shape *shape, const char *shm_dir,
                          int *ret_fd);
static int build_index(const struct nnc_idx_files *files, const struct shape *shape,
                       const unsigned char *labels, struct nnc_idx_result *result);

int nnc_idx_read(const struct nnc_idx_files *files, struct nnc_idx_result *ret_result) {
    struct nnc_idx_result result = {.raw_fd = -1};
    struct stream images = {0};
    struct stream labels = {0};
    unsigned char *label_bytes = NULL;
    struct shape shape = {0};
    int code = stream_open(files, files->images_name, files->images_fd, &images);
    if (code >= 0) {
        code = stream_open(files, files->labels_name, files->labels_fd, &labels);
    }
    if (code >= 0) {
        code = read_shape(&images, &shape);
    }
    if (code >= 0) {
        code = read_labels(&labels, shape.count, &label_bytes);
    }
    if (code >= 0 && images.is_zipped) {
        code = inflate_images(&images, &shape, files->shm_dir, &result.raw_fd);
        result.raw_bytes = shape.total_bytes;
    }
    if (code >= 0) {
        code = build_index(files, &shape, label_bytes, &result);
    }
    if (code >= 0) {
        *ret_result = result;
    } else if (result.raw_fd >= 0) {
        close(result.raw_fd);
    }
    free(label_bytes);
    stream_close(&images);
    stream_close(&labels);
    return code;
}

int nnc_idx_scan(const struct nnc_data_source *source, const char *shm_dir,
                 struct nnc_idx_result *ret_result) {
    assert(source->kind == NNC_INDEX_IDX && source->name_count == 2);
    struct nnc_idx_files files = {
        .root = source->root,
        .images_name = nnc_data_source_name(source, 0),
        .labels_name = nnc_data_source_name(source, 1),
        .images_fd = -1,
        .labels_fd = -1,
        .shm_dir = shm_dir,
    };
    char path[2 * NNC_PATH_MAX];
    snprintf(path, sizeof(path), "%s/%s", files.root, files.images_name);
    files.images_fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    int code = files.images_fd < 0 ? nnc_fail_errno("%s", path) : 0;
    if (code >= 0) {
        snprintf(path, sizeof(path), "%s/%s", files.root, files.labels_name);
        files.labels_fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
        code = files.labels_fd < 0 ? nnc_fail_errno("%s", path) : 0;
    }
    if (code >= 0) {
        code = nnc_idx_read(&files, ret_result);
    }
    if (files.images_fd >= 0) {
        close(files.images_fd);
    }
    if (files.labels_fd >= 0) {
        close(files.labels_fd);
    }
    return code;
}

static int fault(const struct stream *stream, const char *what) {
    return nnc_fail(-NNC_E_FORMAT, "%s/%s: %s", stream->root, stream->name, what);
}

static int stream_open(const struct nnc_idx_files *files, const char *name, int fd,
                       struct stream *ret_stream) {
    struct stream stream = {.root = files->root, .name = name};
    struct stat status;
    if (fstat(fd, &status) != 0) {
        return nnc_fail_errno("%s/%s", stream.root, name);
    }
    if (!S_ISREG(status.st_mode) || status.st_size < 0) {
        return fault(&stream, "not a regular file");
    }
    stream.file_bytes = (size_t)status.st_size;
    int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (copy < 0 || lseek(copy, 0, SEEK_SET) != 0) {
        int code = nnc_fail_errno("%s/%s", stream.root, name);
        if (copy >= 0) {
            close(copy);
        }
        return code;
    }
    stream.file = gzdopen(copy, "rb");
    if (stream.file == NULL) {
        close(copy);
        return nnc_fail(-ENOMEM, "%s/%s: no memory to read it", stream.root, name);
    }
    gzbuffer(stream.file, 128 << 10);
    stream.is_zipped = gzdirect(stream.file) == 0;
    *ret_stream = stream;
    return 0;
}

static void stream_close(struct stream *stream) {
    if (stream->file != NULL) {
        gzclose_r(stream->file);
    }
}

static int stream_read(struct stream *stream, void *data, size_t bytes) {
    size_t at = 0;
    while (at < bytes) {
        size_t wanted = bytes - at < READ_AT_ONCE ? bytes - at : READ_AT_ONCE;
        int got = gzread(stream->file, (char *)data + at, (unsigned)wanted);
        if (got < 0) {
            int error;
            return fault(stream, gzerror(stream->file, &error));
        }
        if (got == 0) {
            return fault(stream, "the file ends before its header says");
        }
        at += (size_t)got;
    }
    return 0;
}

/* Reading up to the end also makes zlib compare the checksum of a zipped file. */
static int stream_check_end(struct stream *stream) {
    char byte;
    int got = gzread(stream->file, &byte, 1);
    int error = Z_OK;
    const char *text = gzerror(stream->file, &error);
    if (got < 0 || (error != Z_OK && error != Z_STREAM_END)) {
        return fault(stream, text);
    }
    return got == 0 ? 0 : fault(stream, "the file has more bytes than its header says");
}

/* Refuse a promise of bytes that the file cannot keep, before memory is taken for it. */
static int check_promise(const struct stream *stream, size_t bytes) {
    if (!stream->is_zipped) {
        return bytes == stream->file_bytes
                   ? 0
                   : nnc_fail(-NNC_E_FORMAT, "%s/%s: has %zu bytes, its header says %zu",
                              stream->root, stream->name, stream->file_bytes, bytes);
    }
    return bytes / DEFLATE_RATIO <= stream->file_bytes
               ? 0
               : nnc_fail(-NNC_E_FORMAT, "%s/%s: %zu zipped bytes cannot hold the %zu it promises",
                          stream->root, stream->name, stream->file_bytes, bytes);
}

static int read_shape(struct stream *images, struct shape *ret_shape) {
    unsigned char header[HEADER_MAX];
    struct shape shape = {.header_bytes = 16, .channels = 1};
    int code = stream_read(images, header, 16);
    if (code < 0) {
        return code;
    }
    uint32_t magic = nnc_big32(header);
    if (magic != MAGIC_GREY && magic != MAGIC_COLOUR) {
        return nnc_fail(-NNC_E_FORMAT,
                        "%s/%s: begins with %08" PRIx32 ", images in IDX begin with 00000803 or "
                        "00000804",
                        images->root, images->name, magic);
    }
    if (magic == MAGIC_COLOUR) {
        code = stream_read(images, header + 16, 4);
        if (code < 0) {
            return code;
        }
        shape.header_bytes = 20;
        shape.channels = nnc_big32(header + 16);
    }
    shape.count = nnc_big32(header + 4);
    shape.height = nnc_big32(header + 8);
    shape.width = nnc_big32(header + 12);
    bool fits = shape.count >= 1 && shape.height >= 1 && shape.height <= SIDE_MAX &&
                shape.width >= 1 && shape.width <= SIDE_MAX &&
                (shape.channels == 1 || shape.channels == 3);
    shape.sample_bytes = (size_t)shape.height * shape.width * shape.channels;
    if (!fits || shape.sample_bytes > SAMPLE_BYTES_MAX ||
        nnc_size_mul(shape.sample_bytes, shape.count, &shape.total_bytes) ||
        nnc_size_add(shape.total_bytes, shape.header_bytes, &shape.total_bytes)) {
        return nnc_fail(
            -NNC_E_FORMAT, "%s/%s: %ux%ux%ux%u is no number of images of 1 or 3 channels",
            images->root, images->name, shape.count, shape.height, shape.width, shape.channels);
    }
    *ret_shape = shape;
    return check_promise(images, shape.total_bytes);
}

static int read_labels(struct stream *labels, uint32_t count, unsigned char **ret_labels) {
    unsigned char header[8];
    int code = stream_read(labels, header, sizeof(header));
    if (code < 0) {
        return code;
    }
    if (nnc_big32(header) != MAGIC_LABELS) {
        return fault(labels, "does not begin with 00000801 as labels in IDX do");
    }
    if (nnc_big32(header + 4) != count) {
        return nnc_fail(-NNC_E_FORMAT, "%s/%s: %u labels for %u images", labels->root, labels->name,
                        nnc_big32(header + 4), count);
    }
    code = check_promise(labels, sizeof(header) + (size_t)count);
    if (code < 0) {
        return code;
    }
    unsigned char *bytes = malloc(count);
    if (bytes == NULL) {
        return nnc_fail(-ENOMEM, "%s/%s: no memory for %u labels", labels->root, labels->name,
                        count);
    }
    code = stream_read(labels, bytes, count);
    if (code >= 0) {
        code = stream_check_end(labels);
    }
    if (code < 0) {
        free(bytes);
        return code;
    }
    *ret_labels = bytes;
    return 0;
}

/* The whole images file, header included, so that offsets are the same as in an unpacked one. The
 * header's own bytes have been read before and stay zero: nobody reads them again. */
static int inflate_images(struct stream *images, const struct shape *shape, const char *shm_dir,
                          int *ret_fd) {
    unsigned char *bytes = malloc(shape->total_bytes);
    if (bytes == NULL) {
        return nnc_fail(-ENOMEM, "%s/%s: no memory for its %zu bytes of pixels", images->root,
                        images->name, shape->total_bytes);
    }
    memset(bytes, 0, shape->header_bytes);
    int code =
        stream_read(images, bytes + shape->header_bytes, shape->total_bytes - shape->header_bytes);
    if (code >= 0) {
        code = stream_check_end(images);
    }
    if (code >= 0) {
        code = nnc_memfd_create("pixels", shape->total_bytes, NNC_MEMFD_READONLY, bytes, shm_dir,
                                ret_fd);
    }
    free(bytes);
    return code;
}

static int build_index(const struct nnc_idx_files *files, const struct shape *shape,
                       const unsigned char *labels, struct nnc_idx_result *result) {
    struct nnc_index_builder *builder = nnc_index_builder_create(NNC_INDEX_IDX);
    unsigned classes = 0;
    for (uint32_t i = 0; i < shape->count; i++) {
        classes = labels[i] >= classes ? labels[i] + 1u : classes;
    }
    for (unsigned i = 0; i < classes; i++) {
        char name[8];
        snprintf(name, sizeof(name), "%u", i);
        nnc_index_builder_add_class(builder, name);
    }
    bool in_memory = result->raw_fd >= 0;
    struct stat status;
    int64_t mtime_ns = fstat(files->images_fd, &status) == 0
                           ? status.st_mtim.tv_sec * 1000000000ll + status.st_mtim.tv_nsec
                           : 0;
    nnc_index_builder_set_shape(builder, shape->height, shape->width, shape->channels);
    nnc_index_builder_add_file(builder, in_memory ? "" : files->images_name, shape->total_bytes,
                               mtime_ns);
    for (uint32_t i = 0; i < shape->count; i++) {
        nnc_index_builder_add_sample(
            builder, &(struct nnc_index_entry){.name = files->images_name,
                                               .offset = shape->header_bytes +
                                                         i * (uint64_t)shape->sample_bytes,
                                               .size = shape->sample_bytes,
                                               .label = labels[i]});
    }
    int code = nnc_index_builder_finish(builder, &result->bytes, &result->size);
    nnc_index_builder_destroy(builder);
    return code;
}
