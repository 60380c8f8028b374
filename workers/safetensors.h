/* SPDX-License-Identifier: Apache-2.0 */
/* The safetensors format: named arrays in one file.
 *
 *   offset  size       meaning
 *   0       8          u64 little endian: H, bytes of the header
 *   8       H          JSON {"NAME": {"dtype": "F32", "shape": [64, 3, 7, 7], "data_offsets":
 * [begin, end]},
 *                      ..., "__metadata__": {"KEY": "TEXT"}}, padded with spaces
 *   8 + H   the rest   values, little endian, row-major; the offsets count from here, and the
 * arrays tile this part exactly
 *
 * The reader takes the header as hostile: every size is checked before it is used. Limits: H <= 16
 * MiB, 65,536 tensors, rank 8, names of 512 bytes. Source: the format's page at
 * github.com/huggingface/safetensors. */
#ifndef NNC_WORKERS_SAFETENSORS_H
#define NNC_WORKERS_SAFETENSORS_H

#include <stddef.h>
#include <stdint.h>

#include "base/vfs.h"

#define NNC_SAFETENSORS_HEADER_MAX  (16u << 20)
#define NNC_SAFETENSORS_TENSORS_MAX 65536u
#define NNC_SAFETENSORS_RANK_MAX    8u
#define NNC_SAFETENSORS_NAME_MAX    512u

enum nnc_dtype {
    NNC_DTYPE_F32,
    NNC_DTYPE_F16,
    NNC_DTYPE_BF16,
    NNC_DTYPE_F64,
    NNC_DTYPE_I64,
    NNC_DTYPE_I32,
    NNC_DTYPE_I16,
    NNC_DTYPE_I8,
    NNC_DTYPE_U64,
    NNC_DTYPE_U32,
    NNC_DTYPE_U16,
    NNC_DTYPE_U8,
    NNC_DTYPE_BOOL,
    NNC_DTYPE_COUNT,
};

/* "F32", ... as the header writes it. */
const char *nnc_dtype_name(enum nnc_dtype dtype);

/* Bytes of one value. */
size_t nnc_dtype_bytes(enum nnc_dtype dtype);

struct nnc_safetensor {
    const char *name; /* UTF-8; may hold control bytes: escape it when printing */
    enum nnc_dtype dtype;
    uint32_t rank; /* 0: one value */
    uint64_t dims[NNC_SAFETENSORS_RANK_MAX];
    uint64_t count;         /* product of dims */
    uint64_t offset, bytes; /* in the file */
};

/* An open file; tensors are in the order of their data. Read-only for callers. */
struct nnc_safetensors {
    const struct nnc_safetensor *tensors;
    uint32_t count;
};

/* Open a file and check its header completely. vfs must outlive the result.
 * Owner:  close with nnc_safetensors_close().
 * Errors: -NNC_E_FORMAT naming file and tensor; as open and pread. */
int nnc_safetensors_open(struct nnc_vfs *vfs, const char *path, struct nnc_safetensors **ret_file);

/* Takes NULL. */
void nnc_safetensors_close(struct nnc_safetensors *file);

/* Number of the tensor with that name, or -1. */
int32_t nnc_safetensors_find(const struct nnc_safetensors *file, const char *name);

/* The metadata text of a key, or NULL. Owner: the file's. */
const char *nnc_safetensors_metadata(const struct nnc_safetensors *file, const char *key);

/* All values of a tensor as floats into ret_values[count]. Every dtype converts by C's rules; F64
 * and 64-bit integers may round. Errors: as pread; -NNC_E_FORMAT when the file has become shorter.
 */
int nnc_safetensors_read(const struct nnc_safetensors *file, uint32_t number, float *ret_values);

/* The stored bytes of a tensor into ret_data[tensor->bytes]. Errors: as nnc_safetensors_read(). */
int nnc_safetensors_read_bytes(const struct nnc_safetensors *file, uint32_t number, void *ret_data);

/* One array to write. Names must be unique. */
struct nnc_safetensors_item {
    const char *name;
    enum nnc_dtype dtype;
    uint32_t rank;
    uint64_t dims[NNC_SAFETENSORS_RANK_MAX];
    const void *data; /* values; NULL: ask params->data */
};

struct nnc_safetensors_params {
    const struct nnc_safetensors_item *items; /* written in this order */
    uint32_t count;
    const char *const
        *metadata; /* key, text, key, text, ..., NULL; {"format": "pt"} is always added */
    /* The values of an item without data, valid until the next call; NULL is an error (with text).
     */
    const void *(*data)(void *context, uint32_t number);
    void *data_context;
    /* Takes the file's bytes in order; a negative answer ends the writing. */
    int (*write)(void *context, const void *data, size_t bytes);
    void *write_context;
};

/* Bytes of the whole file, for posix_fallocate. Errors: -NNC_E_USAGE for names, ranks or sizes the
 * format cannot hold; -ENOMEM. */
int nnc_safetensors_size(const struct nnc_safetensors_params *params, uint64_t *ret_bytes);

/* Give the whole file to params->write, piece by piece. Errors: as nnc_safetensors_size() and the
 * callbacks. */
int nnc_safetensors_write(const struct nnc_safetensors_params *params);

/* Write a new file: create (it must not exist), allocate, write, sync, close. params->write is not
 * used. On failure the file is removed. Errors: as the calls it makes; -EEXIST. */
int nnc_safetensors_save(struct nnc_vfs *vfs, const char *path,
                         const struct nnc_safetensors_params *params);

#endif
