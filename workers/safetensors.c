/* SPDX-License-Identifier: Apache-2.0 */
/* Reading safetensors files (layout: safetensors.h).
 *
 *   1. length of the header, bounded by the file and by 16 MiB, before anything is allocated
 *   2. a scan of the header's bytes bounds nesting and the number of commas, before jansson builds
 * a tree
 *   3. every entry: known keys, known dtype, rank, checked product, end - begin == count * size
 *   4. sorted by place, the entries must tile the data exactly: no holes, no overlaps, no rest
 * Invariant: after a successful open every tensor lies inside the file as it was then; reads are
 * preads, so a file that shrinks later is an error and not a signal. Other readers' mistakes that
 * the tests try: overflow in products, overlapping ranges, huge headers. */
#include "workers/safetensors.h"

#include "base/checked.h"
#include "base/err.h"
#include "base/text.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the file's byte order is the host's");

#define HEADER_DEPTH_MAX  3u
#define HEADER_COMMAS_MAX (16u * NNC_SAFETENSORS_TENSORS_MAX)
#define INTEGER_MAX       ((json_int_t)1 << 53)
#define BLOCK_BYTES       65536u
#define NAME_TEXT_MAX     160

struct reader {
    struct nnc_safetensors file; /* first: what callers see */
    struct nnc_vfs *vfs;
    int fd;
    char *path;
    json_t *header; /* owns names and metadata */
    struct nnc_safetensor *tensors;
};

static const struct {
    const char *name;
    size_t bytes;
} dtypes[NNC_DTYPE_COUNT] = {
    [NNC_DTYPE_F32] = {"F32", 4},   [NNC_DTYPE_F16] = {"F16", 2}, [NNC_DTYPE_BF16] = {"BF16", 2},
    [NNC_DTYPE_F64] = {"F64", 8},   [NNC_DTYPE_I64] = {"I64", 8}, [NNC_DTYPE_I32] = {"I32", 4},
    [NNC_DTYPE_I16] = {"I16", 2},   [NNC_DTYPE_I8] = {"I8", 1},   [NNC_DTYPE_U64] = {"U64", 8},
    [NNC_DTYPE_U32] = {"U32", 4},   [NNC_DTYPE_U16] = {"U16", 2}, [NNC_DTYPE_U8] = {"U8", 1},
    [NNC_DTYPE_BOOL] = {"BOOL", 1},
};

const char *nnc_dtype_name(enum nnc_dtype dtype) {
    assert(dtype < NNC_DTYPE_COUNT);
    return dtypes[dtype].name;
}

size_t nnc_dtype_bytes(enum nnc_dtype dtype) {
    assert(dtype < NNC_DTYPE_COUNT);
    return dtypes[dtype].bytes;
}

static int fail_file(const struct reader *reader, const char *what) {
    return nnc_fail(-NNC_E_FORMAT, "%s: not a safetensors file: %s", reader->path, what);
}

static int fail_tensor(const struct reader *reader, const char *name, const char *what) {
    char text[NAME_TEXT_MAX];
    nnc_text_escape(name, text, sizeof(text));
    return nnc_fail(-NNC_E_FORMAT, "%s: tensor %s: %s", reader->path, text, what);
}

static int fail_code(const struct reader *reader, int code, const char *what) {
    if (code == -NNC_E_FORMAT) {
        return nnc_fail(code, "%s: %s: the file is too short", reader->path, what);
    }
    return nnc_fail(code, "%s: %s: %s", reader->path, what, strerror(-code));
}

/* Step 2: bound what a JSON parser would build. Strings are skipped; whether the text is JSON at
 * all is jansson's to say. */
static bool header_is_modest(const char *text, size_t length) {
    uint32_t depth = 0, commas = 0;
    bool in_string = false;
    for (size_t i = 0; i < length; i++) {
        char byte = text[i];
        if (in_string) {
            i += byte == '\\';
            in_string = byte != '"';
            continue;
        }
        in_string = byte == '"';
        commas += byte == ',';
        depth += byte == '{' || byte == '[';
        bool closes = byte == '}' || byte == ']';
        if (depth > HEADER_DEPTH_MAX || commas > HEADER_COMMAS_MAX || (closes && depth == 0)) {
            return false;
        }
        depth -= closes;
    }
    return true;
}

/* Steps 1 and 2: the header as a JSON object, and where the data begin and how long they are. */
static int load_header(struct reader *reader, uint64_t *ret_begin, uint64_t *ret_bytes) {
    int64_t size = reader->vfs->ops->size(reader->vfs, reader->fd);
    if (size < 0) {
        return fail_code(reader, (int)size, "size");
    }
    uint64_t length = 0;
    if (size < 8) {
        return fail_file(reader, "it is shorter than 8 bytes");
    }
    int code = nnc_vfs_read_all(reader->vfs, reader->fd, &length, sizeof(length), 0);
    if (code < 0) {
        return fail_code(reader, code, "header");
    }
    if (length > NNC_SAFETENSORS_HEADER_MAX || length > (uint64_t)size - 8) {
        return fail_file(reader, "its header would be longer than the file or than 16 MiB");
    }
    char *text = malloc((size_t)length + 1);
    if (text == NULL) {
        return nnc_fail(-ENOMEM, "%s: no memory for the header", reader->path);
    }
    code = nnc_vfs_read_all(reader->vfs, reader->fd, text, (size_t)length, 8);
    if (code < 0) {
        code = fail_code(reader, code, "header");
    } else if (!header_is_modest(text, (size_t)length)) {
        code = fail_file(reader, "its header nests too deeply or has too many entries");
    } else {
        json_error_t error;
        reader->header = json_loadb(text, (size_t)length, JSON_REJECT_DUPLICATES, &error);
        code =
            json_is_object(reader->header) ? 0 : fail_file(reader, "its header is no JSON object");
    }
    free(text);
    *ret_begin = 8 + length;
    *ret_bytes = (uint64_t)size - 8 - length;
    return code;
}

/* A whole number from 0 to 2^53. */
static bool read_integer(const json_t *value, uint64_t *ret_number) {
    if (!json_is_integer(value) || json_integer_value(value) < 0 ||
        json_integer_value(value) > INTEGER_MAX) {
        return false;
    }
    *ret_number = (uint64_t)json_integer_value(value);
    return true;
}

static bool read_dtype(const json_t *value, enum nnc_dtype *ret_dtype) {
    const char *name = json_string_value(value);
    for (int i = 0; name != NULL && i < NNC_DTYPE_COUNT; i++) {
        if (strcmp(dtypes[i].name, name) == 0) {
            *ret_dtype = (enum nnc_dtype)i;
            return true;
        }
    }
    return false;
}

/* dims, rank, count and bytes; false when they are malformed or their product overflows. */
static bool read_shape(const json_t *value, struct nnc_safetensor *tensor) {
    if (!json_is_array(value) || json_array_size(value) > NNC_SAFETENSORS_RANK_MAX) {
        return false;
    }
    size_t count = 1;
    tensor->rank = (uint32_t)json_array_size(value);
    for (uint32_t i = 0; i < tensor->rank; i++) {
        if (!read_integer(json_array_get(value, i), &tensor->dims[i]) ||
            nnc_size_mul(count, tensor->dims[i], &count)) {
            return false;
        }
    }
    tensor->count = count;
    size_t bytes = 0;
    bool overflow = nnc_size_mul(count, nnc_dtype_bytes(tensor->dtype), &bytes);
    tensor->bytes = bytes;
    return !overflow;
}

/* Step 3: one entry. offset counts from the begin of the data. */
static int read_entry(const struct reader *reader, const char *name, const json_t *entry,
                      struct nnc_safetensor *tensor) {
    const json_t *offsets = json_object_get(entry, "data_offsets");
    uint64_t begin = 0, end = 0;
    tensor->name = name;
    if (strlen(name) > NNC_SAFETENSORS_NAME_MAX) {
        return fail_tensor(reader, name, "its name is longer than 512 bytes");
    }
    if (!json_is_object(entry) || json_object_size(entry) != 3) {
        return fail_tensor(reader, name, "needs exactly dtype, shape and data_offsets");
    }
    if (!read_dtype(json_object_get(entry, "dtype"), &tensor->dtype)) {
        return fail_tensor(reader, name, "its dtype is not known");
    }
    if (!read_shape(json_object_get(entry, "shape"), tensor)) {
        return fail_tensor(reader, name, "its shape is malformed or too large");
    }
    if (!json_is_array(offsets) || json_array_size(offsets) != 2 ||
        !read_integer(json_array_get(offsets, 0), &begin) ||
        !read_integer(json_array_get(offsets, 1), &end) || end < begin) {
        return fail_tensor(reader, name, "its data_offsets are malformed");
    }
    if (end - begin != tensor->bytes) {
        return fail_tensor(reader, name, "its data_offsets and its shape disagree");
    }
    tensor->offset = begin;
    return 0;
}

static bool metadata_is_texts(const json_t *metadata) {
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)metadata, key, value) {
        if (!json_is_string(value)) {
            return false;
        }
    }
    return json_is_object(metadata);
}

static int read_entries(struct reader *reader) {
    size_t entries = json_object_size(reader->header);
    if (entries > NNC_SAFETENSORS_TENSORS_MAX) {
        return fail_file(reader, "it has more than 65536 tensors");
    }
    reader->tensors = calloc(entries + 1, sizeof(*reader->tensors));
    if (reader->tensors == NULL) {
        return nnc_fail(-ENOMEM, "%s: no memory for the list of tensors", reader->path);
    }
    reader->file.tensors = reader->tensors;
    const char *name;
    json_t *entry;
    int code = 0;
    json_object_foreach(reader->header, name, entry) {
        if (strcmp(name, "__metadata__") == 0) {
            code = metadata_is_texts(entry) ? 0 : fail_file(reader, "its metadata are not texts");
        } else {
            code = read_entry(reader, name, entry, &reader->tensors[reader->file.count]);
            reader->file.count++;
        }
        if (code < 0) {
            return code;
        }
    }
    return 0;
}

/* By place; an empty tensor before the one that begins where it stands. */
static int compare_places(const void *left, const void *right) {
    const struct nnc_safetensor *first = left, *second = right;
    if (first->offset != second->offset) {
        return first->offset < second->offset ? -1 : 1;
    }
    if (first->bytes != second->bytes) {
        return first->bytes < second->bytes ? -1 : 1;
    }
    return strcmp(first->name, second->name);
}

/* Step 4, and offsets from now on count from the begin of the file. */
static int check_tiling(struct reader *reader, uint64_t data_begin, uint64_t data_bytes) {
    uint64_t expected = 0;
    qsort(reader->tensors, reader->file.count, sizeof(*reader->tensors), compare_places);
    for (uint32_t i = 0; i < reader->file.count; i++) {
        struct nnc_safetensor *tensor = &reader->tensors[i];
        if (tensor->offset != expected || tensor->bytes > data_bytes - expected) {
            return fail_tensor(reader, tensor->name,
                               "its data overlap others, leave a hole or pass the file's end");
        }
        expected += tensor->bytes;
        tensor->offset += data_begin;
    }
    return expected == data_bytes ? 0 : fail_file(reader, "bytes follow the last tensor");
}

int nnc_safetensors_open(struct nnc_vfs *vfs, const char *path, struct nnc_safetensors **ret_file) {
    struct reader *reader = calloc(1, sizeof(*reader));
    if (reader == NULL) {
        return nnc_fail(-ENOMEM, "%s: no memory", path);
    }
    reader->vfs = vfs;
    reader->fd = -1;
    reader->path = strdup(path);
    uint64_t begin = 0, bytes = 0;
    int code = reader->path == NULL ? nnc_fail(-ENOMEM, "%s: no memory", path) : 0;
    if (code >= 0) {
        reader->fd = vfs->ops->open(vfs, path, O_RDONLY, 0);
        code = reader->fd < 0 ? nnc_fail(reader->fd, "%s: %s", path, strerror(-reader->fd)) : 0;
    }
    if (code >= 0) {
        code = load_header(reader, &begin, &bytes);
    }
    if (code >= 0) {
        code = read_entries(reader);
    }
    if (code >= 0) {
        code = check_tiling(reader, begin, bytes);
    }
    if (code < 0) {
        nnc_safetensors_close(&reader->file);
        return code;
    }
    *ret_file = &reader->file;
    return 0;
}

void nnc_safetensors_close(struct nnc_safetensors *file) {
    struct reader *reader = (struct reader *)file;
    if (reader == NULL) {
        return;
    }
    if (reader->fd >= 0) {
        reader->vfs->ops->close(reader->vfs, reader->fd);
    }
    json_decref(reader->header);
    free(reader->tensors);
    free(reader->path);
    free(reader);
}

int32_t nnc_safetensors_find(const struct nnc_safetensors *file, const char *name) {
    for (uint32_t i = 0; i < file->count; i++) {
        if (strcmp(file->tensors[i].name, name) == 0) {
            return (int32_t)i;
        }
    }
    return -1;
}

const char *nnc_safetensors_metadata(const struct nnc_safetensors *file, const char *key) {
    const struct reader *reader = (const struct reader *)file;
    const json_t *metadata = json_object_get(reader->header, "__metadata__");
    return json_string_value(json_object_get(metadata, key));
}

/* IEEE 754 binary16 to binary32, subnormals, infinities and NaN included. */
static float half_to_float(uint16_t half) {
    uint32_t sign = (uint32_t)(half >> 15) << 31;
    uint32_t exponent = (half >> 10) & 31u, mantissa = half & 1023u;
    if (exponent == 0) {
        /* Subnormal: mantissa * 2^-24, exact in binary32. */
        float value = (float)mantissa * 0x1p-24f;
        return sign != 0 ? -value : value;
    }
    uint32_t bits = exponent == 31 ? sign | 0x7f800000u | mantissa << 13
                                   : sign | (exponent + 112) << 23 | mantissa << 13;
    float value;
    memcpy(&value, &bits, sizeof(value));
    return value;
}

static float bfloat_to_float(uint16_t half) {
    uint32_t bits = (uint32_t)half << 16;
    float value;
    memcpy(&value, &bits, sizeof(value));
    return value;
}

#define CONVERT(type, expression)                                                                  \
    for (size_t i = 0; i < count; i++) {                                                           \
        type stored;                                                                               \
        memcpy(&stored, data + i * sizeof(stored), sizeof(stored));                                \
        ret_values[i] = (float)(expression);                                                       \
    }                                                                                              \
    break

static void convert(enum nnc_dtype dtype, const unsigned char *data, size_t count,
                    float *ret_values) {
    switch (dtype) {
    case NNC_DTYPE_F32:
        CONVERT(float, stored);
    case NNC_DTYPE_F16:
        CONVERT(uint16_t, half_to_float(stored));
    case NNC_DTYPE_BF16:
        CONVERT(uint16_t, bfloat_to_float(stored));
    case NNC_DTYPE_F64:
        CONVERT(double, stored);
    case NNC_DTYPE_I64:
        CONVERT(int64_t, stored);
    case NNC_DTYPE_I32:
        CONVERT(int32_t, stored);
    case NNC_DTYPE_I16:
        CONVERT(int16_t, stored);
    case NNC_DTYPE_I8:
        CONVERT(int8_t, stored);
    case NNC_DTYPE_U64:
        CONVERT(uint64_t, stored);
    case NNC_DTYPE_U32:
        CONVERT(uint32_t, stored);
    case NNC_DTYPE_U16:
        CONVERT(uint16_t, stored);
    case NNC_DTYPE_U8:
    case NNC_DTYPE_BOOL:
        CONVERT(uint8_t, stored);
    case NNC_DTYPE_COUNT:
        break;
    }
}

int nnc_safetensors_read_bytes(const struct nnc_safetensors *file, uint32_t number,
                               void *ret_data) {
    assert(number < file->count);
    const struct reader *reader = (const struct reader *)file;
    const struct nnc_safetensor *tensor = &file->tensors[number];
    int code =
        nnc_vfs_read_all(reader->vfs, reader->fd, ret_data, (size_t)tensor->bytes, tensor->offset);
    return code < 0 ? fail_code(reader, code, "values") : 0;
}

int nnc_safetensors_read(const struct nnc_safetensors *file, uint32_t number, float *ret_values) {
    assert(number < file->count);
    const struct reader *reader = (const struct reader *)file;
    const struct nnc_safetensor *tensor = &file->tensors[number];
    if (tensor->dtype == NNC_DTYPE_F32) {
        return nnc_safetensors_read_bytes(file, number, ret_values);
    }
    unsigned char block[BLOCK_BYTES];
    size_t size = nnc_dtype_bytes(tensor->dtype);
    for (uint64_t done = 0; done < tensor->count;) {
        uint64_t left = tensor->count - done;
        size_t count = left < BLOCK_BYTES / size ? (size_t)left : BLOCK_BYTES / size;
        int code = nnc_vfs_read_all(reader->vfs, reader->fd, block, count * size,
                                    tensor->offset + done * size);
        if (code < 0) {
            return fail_code(reader, code, "values");
        }
        convert(tensor->dtype, block, count, ret_values + done);
        done += count;
    }
    return 0;
}
