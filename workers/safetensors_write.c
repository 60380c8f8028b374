/* SPDX-License-Identifier: Apache-2.0 */
/* Writing safetensors files (layout: safetensors.h).
 *
 * The header is made first, as it holds every place; then everything is handed on in order, so that
 * the taker can hash while it writes. The header is padded with spaces so that the data begin at a
 * multiple of 8 bytes. Items are written in the order given: with arrays of one dtype each of them
 * is aligned. */
#include "workers/safetensors.h"

#include "base/checked.h"
#include "base/err.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#define DATA_ALIGNMENT 8u

static int no_memory(void) {
    return nnc_fail(-ENOMEM, "no memory for the header of a safetensors file");
}

/* Bytes of the item's values. */
static int item_bytes(const struct nnc_safetensors_item *item, size_t *ret_bytes) {
    size_t bytes = nnc_dtype_bytes(item->dtype);
    size_t length = strlen(item->name);
    if (length > NNC_SAFETENSORS_NAME_MAX || strcmp(item->name, "__metadata__") == 0 ||
        item->rank > NNC_SAFETENSORS_RANK_MAX) {
        return nnc_fail(-NNC_E_USAGE, "tensor %.100s: its name or rank does not fit safetensors",
                        item->name);
    }
    for (uint32_t i = 0; i < item->rank; i++) {
        if (nnc_size_mul(bytes, item->dims[i], &bytes)) {
            return nnc_fail(-NNC_E_USAGE, "tensor %.100s is too large", item->name);
        }
    }
    *ret_bytes = bytes;
    return 0;
}

/* {"dtype": ..., "shape": ..., "data_offsets": ...}, or NULL without memory. */
static json_t *make_entry(const struct nnc_safetensors_item *item, uint64_t begin, uint64_t end) {
    json_t *shape = json_array();
    for (uint32_t i = 0; i < item->rank; i++) {
        /* A failed append makes the array too short, which is found below. */
        json_array_append_new(shape, json_integer((json_int_t)item->dims[i]));
    }
    if (json_array_size(shape) != item->rank) {
        json_decref(shape);
        return NULL;
    }
    return json_pack("{s:s, s:o, s:[I, I]}", "dtype", nnc_dtype_name(item->dtype), "shape", shape,
                     "data_offsets", (json_int_t)begin, (json_int_t)end);
}

static int add_metadata(json_t *header, const char *const *pairs) {
    json_t *metadata = json_pack("{s:s}", "format", "pt");
    if (metadata == NULL || json_object_set_new(header, "__metadata__", metadata) < 0) {
        return no_memory();
    }
    for (size_t i = 0; pairs != NULL && pairs[i] != NULL; i += 2) {
        json_t *text = json_string(pairs[i + 1]);
        if (text == NULL || json_object_set_new(metadata, pairs[i], text) < 0) {
            return nnc_fail(-NNC_E_USAGE, "metadata %.100s is not valid UTF-8", pairs[i]);
        }
    }
    return 0;
}

/* Fill header; *ret_data_bytes is what the items take. */
static int add_items(json_t *header, const struct nnc_safetensors_params *params,
                     uint64_t *ret_data_bytes) {
    size_t at = 0;
    for (uint32_t i = 0; i < params->count; i++) {
        const struct nnc_safetensors_item *item = &params->items[i];
        size_t bytes = 0, end = 0;
        int code = item_bytes(item, &bytes);
        if (code < 0) {
            return code;
        }
        if (nnc_size_add(at, bytes, &end) || end > (size_t)1 << 53) {
            return nnc_fail(-NNC_E_USAGE, "tensor %.100s: the file is too large", item->name);
        }
        if (json_object_get(header, item->name) != NULL) {
            return nnc_fail(-NNC_E_USAGE, "two tensors are called %.100s", item->name);
        }
        json_t *entry = make_entry(item, at, end);
        if (entry == NULL || json_object_set_new(header, item->name, entry) < 0) {
            return no_memory();
        }
        at = end;
    }
    *ret_data_bytes = at;
    return 0;
}

/* Length word, header and padding as one block. Owner: caller frees *ret_bytes. */
static int make_header(const struct nnc_safetensors_params *params, unsigned char **ret_bytes,
                       size_t *ret_length, uint64_t *ret_data_bytes) {
    json_t *header = json_object();
    char *text = NULL;
    unsigned char *bytes = NULL;
    int code = header == NULL ? no_memory() : add_metadata(header, params->metadata);
    if (code >= 0) {
        code = add_items(header, params, ret_data_bytes);
    }
    if (code >= 0 && (text = json_dumps(header, JSON_COMPACT)) == NULL) {
        code = no_memory();
    }
    size_t length = text != NULL ? strlen(text) : 0, padded = 0;
    if (code >= 0 && (nnc_size_round_up(length, DATA_ALIGNMENT, &padded) ||
                      padded > NNC_SAFETENSORS_HEADER_MAX)) {
        code = nnc_fail(-NNC_E_USAGE, "the header of a safetensors file would pass 16 MiB");
    }
    if (code >= 0 && (bytes = malloc(8 + padded)) == NULL) {
        code = no_memory();
    }
    if (code >= 0) {
        uint64_t word = padded;
        memcpy(bytes, &word, sizeof(word));
        memcpy(bytes + 8, text, length);
        memset(bytes + 8 + length, ' ', padded - length);
        *ret_bytes = bytes;
        *ret_length = 8 + padded;
    }
    free(text);
    json_decref(header);
    return code;
}

int nnc_safetensors_size(const struct nnc_safetensors_params *params, uint64_t *ret_bytes) {
    unsigned char *header = NULL;
    size_t length = 0;
    uint64_t data_bytes = 0;
    int code = make_header(params, &header, &length, &data_bytes);
    if (code >= 0) {
        *ret_bytes = length + data_bytes;
        free(header);
    }
    return code;
}

static int write_item(const struct nnc_safetensors_params *params, uint32_t number) {
    const struct nnc_safetensors_item *item = &params->items[number];
    size_t bytes = 0;
    int code = item_bytes(item, &bytes);
    if (code < 0 || bytes == 0) {
        return code;
    }
    assert(item->data != NULL || params->data != NULL);
    const void *data = item->data != NULL ? item->data : params->data(params->data_context, number);
    if (data == NULL) {
        return nnc_fail_in(-EIO, "tensor %.100s", item->name);
    }
    return params->write(params->write_context, data, bytes);
}

int nnc_safetensors_write(const struct nnc_safetensors_params *params) {
    unsigned char *header = NULL;
    size_t length = 0;
    uint64_t data_bytes = 0;
    int code = make_header(params, &header, &length, &data_bytes);
    if (code >= 0) {
        code = params->write(params->write_context, header, length);
    }
    free(header);
    for (uint32_t i = 0; i < params->count && code >= 0; i++) {
        code = write_item(params, i);
    }
    return code < 0 ? code : 0;
}

struct sink {
    struct nnc_vfs *vfs;
    int fd;
    uint64_t at;
};

static int write_to_file(void *context, const void *data, size_t bytes) {
    struct sink *sink = context;
    int code = nnc_vfs_write_all(sink->vfs, sink->fd, data, bytes, sink->at);
    sink->at += bytes;
    return code < 0 ? nnc_fail(code, "writing: %s", strerror(-code)) : 0;
}

static int fill_file(struct nnc_vfs *vfs, int fd, const struct nnc_safetensors_params *params) {
    struct sink sink = {.vfs = vfs, .fd = fd};
    struct nnc_safetensors_params to_file = *params;
    to_file.write = write_to_file;
    to_file.write_context = &sink;
    uint64_t bytes = 0;
    int code = nnc_safetensors_size(params, &bytes);
    if (code < 0) {
        return code;
    }
    code = vfs->ops->allocate(vfs, fd, bytes);
    if (code < 0) {
        return nnc_fail(code, "allocating %llu bytes: %s", (unsigned long long)bytes,
                        strerror(-code));
    }
    code = nnc_safetensors_write(&to_file);
    if (code < 0) {
        return code;
    }
    code = vfs->ops->sync(vfs, fd);
    return code < 0 ? nnc_fail(code, "syncing: %s", strerror(-code)) : 0;
}

int nnc_safetensors_save(struct nnc_vfs *vfs, const char *path,
                         const struct nnc_safetensors_params *params) {
    int fd = vfs->ops->open(vfs, path, O_WRONLY | O_CREAT | O_EXCL, 0600);
    if (fd < 0) {
        return nnc_fail(fd, "%s: %s", path, strerror(-fd));
    }
    int code = fill_file(vfs, fd, params);
    int closed = vfs->ops->close(vfs, fd);
    if (code >= 0 && closed < 0) {
        code = nnc_fail(closed, "closing: %s", strerror(-closed));
    }
    if (code < 0) {
        vfs->ops->unlink(vfs, path);
        return nnc_fail_in(code, "%s", path);
    }
    return 0;
}
