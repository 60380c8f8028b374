/* SPDX-License-Identifier: Apache-2.0 */
/* The safetensors reader and writer: round trips, every dtype, hostile headers, faults. */
#include "base/err.h"
#include "base/rng.h"
#include "tests/support/vfs_fault.h"
#include "workers/safetensors.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char folder[64], path[128];

static void make_folder(void) {
    strcpy(folder, "/tmp/nnc-safetensors-XXXXXX");
    cr_assert_not_null(mkdtemp(folder));
    snprintf(path, sizeof(path), "%s/a.safetensors", folder);
}

static void remove_folder(void) {
    unlink(path);
    rmdir(folder);
}

TestSuite(safetensors, .init = make_folder, .fini = remove_folder);

static void write_file(const void *data, size_t bytes) {
    FILE *file = fopen(path, "wb");
    cr_assert_not_null(file);
    cr_assert_eq(fwrite(data, 1, bytes, file), bytes);
    cr_assert_eq(fclose(file), 0);
}

/* Write a file of this header and that many zero bytes of data. */
static void write_header(const char *header, size_t data_bytes) {
    size_t length = strlen(header);
    unsigned char *bytes = calloc(1, 8 + length + data_bytes);
    uint64_t word = length;
    memcpy(bytes, &word, sizeof(word));
    memcpy(bytes + 8, header, length);
    write_file(bytes, 8 + length + data_bytes);
    free(bytes);
}

static int open_file(struct nnc_safetensors **ret_file) {
    return nnc_safetensors_open(nnc_vfs_real(), path, ret_file);
}

static const float weight[6] = {1, -2.5f, 3e-30f, 0, INFINITY, -7};
static const int64_t tracked = 41;
static const struct nnc_safetensors_item items[] = {
    {.name = "fc.weight", .dtype = NNC_DTYPE_F32, .rank = 2, .dims = {2, 3}, .data = weight},
    {.name = "empty", .dtype = NNC_DTYPE_F32, .rank = 2, .dims = {0, 5}, .data = NULL},
    {.name = "bn.num_batches_tracked", .dtype = NNC_DTYPE_I64, .rank = 0, .data = &tracked},
    {.name = "quote\" \\ \n \xc3\xa9",
     .dtype = NNC_DTYPE_U8,
     .rank = 1,
     .dims = {3},
     .data = "abc"},
};
static const char *const metadata[] = {"epoch", "3", NULL};
static const struct nnc_safetensors_params params = {
    .items = items, .count = sizeof(items) / sizeof(items[0]), .metadata = metadata};

Test(safetensors, what_is_written_is_read_back) {
    cr_assert_eq(nnc_safetensors_save(nnc_vfs_real(), path, &params), 0, "%s", nnc_error_text());
    struct nnc_safetensors *file = NULL;
    cr_assert_eq(open_file(&file), 0, "%s", nnc_error_text());
    cr_assert_eq(file->count, params.count);
    for (uint32_t i = 0; i < params.count; i++) {
        int32_t number = nnc_safetensors_find(file, items[i].name);
        cr_assert_geq(number, 0, "%s", items[i].name);
        const struct nnc_safetensor *tensor = &file->tensors[number];
        cr_expect_eq(tensor->dtype, items[i].dtype);
        cr_expect_eq(tensor->rank, items[i].rank);
        cr_expect_arr_eq(tensor->dims, items[i].dims, items[i].rank * sizeof(uint64_t));
        char bytes[64];
        cr_expect_eq(nnc_safetensors_read_bytes(file, (uint32_t)number, bytes), 0);
        cr_expect_eq(memcmp(bytes, items[i].data != NULL ? items[i].data : bytes, tensor->bytes),
                     0);
    }
    cr_expect_str_eq(nnc_safetensors_metadata(file, "format"), "pt");
    cr_expect_str_eq(nnc_safetensors_metadata(file, "epoch"), "3");
    cr_expect_null(nnc_safetensors_metadata(file, "missing"));
    cr_expect_eq(nnc_safetensors_find(file, "fc"), -1);
    nnc_safetensors_close(file);
}

Test(safetensors, data_begin_at_a_multiple_of_eight_and_the_size_is_foretold) {
    uint64_t size = 0;
    cr_assert_eq(nnc_safetensors_size(&params, &size), 0);
    cr_assert_eq(nnc_safetensors_save(nnc_vfs_real(), path, &params), 0);
    struct nnc_safetensors *file = NULL;
    cr_assert_eq(open_file(&file), 0, "%s", nnc_error_text());
    cr_expect_eq(file->tensors[0].offset % 8, 0);
    const struct nnc_safetensor *last = &file->tensors[file->count - 1];
    cr_expect_eq(last->offset + last->bytes, size);
    nnc_safetensors_close(file);
}

struct sink {
    unsigned char bytes[4096];
    size_t used;
};

static int append(void *context, const void *data, size_t bytes) {
    struct sink *sink = context;
    cr_assert_leq(sink->used + bytes, sizeof(sink->bytes));
    memcpy(sink->bytes + sink->used, data, bytes);
    sink->used += bytes;
    return 0;
}

static const void *numbered(void *context, uint32_t number) {
    float *value = context;
    *value = (float)number + 0.5f;
    return number < 2 ? value : NULL;
}

Test(safetensors, values_can_be_asked_for_one_by_one) {
    const struct nnc_safetensors_item asked[] = {
        {.name = "a", .dtype = NNC_DTYPE_F32},
        {.name = "b", .dtype = NNC_DTYPE_F32},
        {.name = "c", .dtype = NNC_DTYPE_F32},
    };
    float value;
    struct sink sink = {.used = 0};
    struct nnc_safetensors_params streamed = {.items = asked,
                                              .count = 2,
                                              .data = numbered,
                                              .data_context = &value,
                                              .write = append,
                                              .write_context = &sink};
    cr_assert_eq(nnc_safetensors_write(&streamed), 0, "%s", nnc_error_text());
    write_file(sink.bytes, sink.used);
    struct nnc_safetensors *file = NULL;
    cr_assert_eq(open_file(&file), 0, "%s", nnc_error_text());
    for (uint32_t i = 0; i < 2; i++) {
        float read = 0;
        cr_expect_eq(nnc_safetensors_read(file, i, &read), 0);
        cr_expect_eq(read, (float)i + 0.5f);
    }
    nnc_safetensors_close(file);
    streamed.count = 3;
    sink.used = 0;
    cr_expect_lt(nnc_safetensors_write(&streamed), 0);
}

Test(safetensors, names_and_shapes_the_format_cannot_hold_are_refused) {
    char long_name[600];
    memset(long_name, 'n', sizeof(long_name));
    long_name[599] = '\0';
    const struct nnc_safetensors_item bad[][2] = {
        {{.name = "a", .data = weight}, {.name = "a", .data = weight}},
        {{.name = "a", .data = weight}, {.name = long_name, .data = weight}},
        {{.name = "a", .data = weight}, {.name = "__metadata__", .data = weight}},
        {{.name = "a", .data = weight}, {.name = "b", .rank = 2, .dims = {UINT64_MAX / 2, 3}}},
        {{.name = "a", .data = weight}, {.name = "b", .rank = 1, .dims = {1ull << 60}}},
        {{.name = "a", .data = weight}, {.name = "b", .rank = 9}},
        {{.name = "a", .data = weight}, {.name = "\xff\xfe", .data = weight}},
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        uint64_t size = 7;
        struct nnc_safetensors_params two = {.items = bad[i], .count = 2};
        cr_expect_lt(nnc_safetensors_size(&two, &size), 0, "row %zu", i);
        cr_expect_eq(size, 7);
    }
}

Test(safetensors, every_dtype_converts_to_float) {
    const struct {
        const char *dtype;
        unsigned char bytes[8];
        size_t size;
        float value;
    } rows[] = {
        {"F32", {0, 0, 0x80, 0x3f}, 4, 1.0f},
        {"F16", {0x00, 0x3c}, 2, 1.0f},
        {"F16", {0x01, 0x00}, 2, 0x1p-24f},
        {"F16", {0xff, 0x83}, 2, -1023 * 0x1p-24f},
        {"F16", {0x00, 0x7c}, 2, INFINITY},
        {"F16", {0xff, 0x7b}, 2, 65504.0f},
        {"F16", {0x55, 0xb5}, 2, -0.333251953125f},
        {"BF16", {0x80, 0xbf}, 2, -1.0f},
        {"BF16", {0x49, 0x40}, 2, 3.140625f},
        {"F64", {0, 0, 0, 0, 0, 0, 0xf8, 0x3f}, 8, 1.5f},
        {"I64", {0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, 8, -2.0f},
        {"I32", {0, 0, 1, 0}, 4, 65536.0f},
        {"I16", {0xff, 0xff}, 2, -1.0f},
        {"I8", {0x80}, 1, -128.0f},
        {"U64", {5}, 8, 5.0f},
        {"U32", {0, 0, 0, 0x80}, 4, 2147483648.0f},
        {"U16", {0xff, 0xff}, 2, 65535.0f},
        {"U8", {0xff}, 1, 255.0f},
        {"BOOL", {1}, 1, 1.0f},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        unsigned char bytes[256];
        int length = snprintf((char *)bytes + 8, sizeof(bytes) - 8,
                              "{\"x\":{\"dtype\":\"%s\",\"shape\":[1],\"data_offsets\":[0,%zu]}}",
                              rows[i].dtype, rows[i].size);
        uint64_t word = (uint64_t)length;
        memcpy(bytes, &word, sizeof(word));
        memcpy(bytes + 8 + length, rows[i].bytes, rows[i].size);
        write_file(bytes, 8 + (size_t)length + rows[i].size);
        struct nnc_safetensors *file = NULL;
        cr_assert_eq(open_file(&file), 0, "row %zu: %s", i, nnc_error_text());
        float value = 99;
        cr_expect_eq(nnc_safetensors_read(file, 0, &value), 0);
        cr_expect_eq(value, rows[i].value, "row %zu %s: %g", i, rows[i].dtype, (double)value);
        nnc_safetensors_close(file);
    }
}

Test(safetensors, long_tensors_convert_block_by_block) {
    enum {
        COUNT = 100003
    };
    uint16_t *values = malloc(COUNT * sizeof(*values));
    float *read = malloc(COUNT * sizeof(*read));
    for (int i = 0; i < COUNT; i++) {
        values[i] = (uint16_t)(i * 7);
    }
    const struct nnc_safetensors_item item = {
        .name = "x", .dtype = NNC_DTYPE_U16, .rank = 1, .dims = {COUNT}, .data = values};
    struct nnc_safetensors_params one = {.items = &item, .count = 1};
    cr_assert_eq(nnc_safetensors_save(nnc_vfs_real(), path, &one), 0);
    struct nnc_safetensors *file = NULL;
    cr_assert_eq(open_file(&file), 0);
    cr_assert_eq(nnc_safetensors_read(file, 0, read), 0);
    for (int i = 0; i < COUNT; i++) {
        cr_assert_eq(read[i], (float)values[i], "value %d", i);
    }
    nnc_safetensors_close(file);
    free(values);
    free(read);
}

#define X(rest)       "{\"x\":{" rest "}}"
#define ENTRY(rest)   X("\"dtype\":\"F32\"," rest)
#define OFFSETS(b, e) "\"data_offsets\":[" b "," e "]"

Test(safetensors, hostile_headers_are_refused) {
    const struct {
        const char *header;
        size_t data_bytes;
        const char *said;
    } rows[] = {
        {"", 0, "JSON"},
        {"[]", 0, "JSON"},
        {"{", 0, "JSON"},
        {"{}x", 0, "JSON"},
        {"{\"x\":1}", 0, "exactly dtype"},
        {"{}", 4, "follow the last"},
        {"{\"__metadata__\":{\"a\":1}}", 0, "metadata"},
        {"{\"__metadata__\":3}", 0, "metadata"},
        {"{\"a\":{\"b\":{\"c\":{}}}}", 0, "nests"},
        {ENTRY("\"shape\":[1]"), 4, "exactly"},
        {ENTRY("\"shape\":[1],\"more\":0," OFFSETS("0", "4")), 4, "exactly"},
        {ENTRY("\"shape\":[1]," OFFSETS("0", "8")), 8, "disagree"},
        {ENTRY("\"shape\":[1]," OFFSETS("4", "0")), 4, "malformed"},
        {ENTRY("\"shape\":[1]," OFFSETS("-4", "0")), 4, "malformed"},
        {ENTRY("\"shape\":[1]," OFFSETS("0", "4.0")), 4, "malformed"},
        {ENTRY("\"shape\":[1],\"data_offsets\":[0,4,8]"), 4, "malformed"},
        {ENTRY("\"shape\":[-1]," OFFSETS("0", "4")), 4, "shape"},
        {ENTRY("\"shape\":[1.0]," OFFSETS("0", "4")), 4, "shape"},
        {ENTRY("\"shape\":1," OFFSETS("0", "4")), 4, "shape"},
        {ENTRY("\"shape\":[1,1,1,1,1,1,1,1,1]," OFFSETS("0", "4")), 4, "shape"},
        /* 2^32 * 2^32 wraps to 0, 2^62 floats wrap to 0 bytes, 2^53 + 1 is no exact number */
        {ENTRY("\"shape\":[4294967296,4294967296]," OFFSETS("0", "0")), 0, "shape"},
        {ENTRY("\"shape\":[4611686018427387904]," OFFSETS("0", "0")), 0, "shape"},
        {ENTRY("\"shape\":[2147483648,2147483648]," OFFSETS("0", "0")), 0, "shape"},
        {ENTRY("\"shape\":[1]," OFFSETS("9007199254740993", "9007199254740997")), 4, "malformed"},
        {ENTRY("\"shape\":[1]," OFFSETS("4", "8")), 8, "hole"},
        {ENTRY("\"shape\":[1]," OFFSETS("0", "4")), 3, "hole"},
        {ENTRY("\"shape\":[1]," OFFSETS("0", "4")), 5, "follow the last"},
        {X("\"dtype\":\"F33\",\"shape\":[1]," OFFSETS("0", "4")), 4, "dtype"},
        {X("\"dtype\":7,\"shape\":[1]," OFFSETS("0", "4")), 4, "dtype"},
        {"{\"x\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]},"
         "\"y\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[1,3]}}",
         3, "overlap"},
        {"{\"x\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]},"
         "\"x\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[2,4]}}",
         4, "JSON"},
        {"{\"x\\u0000y\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]}}", 2, "JSON"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        write_header(rows[i].header, rows[i].data_bytes);
        struct nnc_safetensors *file = NULL;
        int code = open_file(&file);
        cr_expect_eq(code, -NNC_E_FORMAT, "row %zu: %s gives %d", i, rows[i].header, code);
        cr_expect_not_null(strstr(nnc_error_text(), rows[i].said), "row %zu: %s: %s", i,
                           rows[i].header, nnc_error_text());
        cr_expect_null(file);
    }
}

Test(safetensors, a_header_longer_than_the_file_or_the_limit_is_refused_before_reading) {
    const uint64_t lengths[] = {1, 100, (16u << 20) + 1, UINT64_MAX, UINT64_MAX - 7, 1ull << 63};
    for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        write_file(&lengths[i], sizeof(lengths[i]));
        struct nnc_safetensors *file = NULL;
        cr_expect_eq(open_file(&file), -NNC_E_FORMAT, "length %llu",
                     (unsigned long long)lengths[i]);
        cr_expect_not_null(strstr(nnc_error_text(), "longer than the file"));
    }
    write_file("1234567", 7);
    struct nnc_safetensors *file = NULL;
    cr_expect_eq(open_file(&file), -NNC_E_FORMAT);
}

Test(safetensors, truncations_and_flipped_bits_never_break_the_reader) {
    cr_assert_eq(nnc_safetensors_save(nnc_vfs_real(), path, &params), 0);
    unsigned char whole[4096], bytes[4096];
    FILE *stored = fopen(path, "rb");
    size_t size = fread(whole, 1, sizeof(whole), stored);
    fclose(stored);
    struct nnc_rng rng = nnc_rng_make(5, NNC_RNG_SYNTHETIC, 0, 0);
    uint32_t accepted = 0;
    for (int i = 0; i < 2000; i++) {
        memcpy(bytes, whole, size);
        size_t length = i % 4 == 0 ? nnc_rng_below(&rng, (uint32_t)size) : size;
        for (int flips = i % 4; flips > 0; flips--) {
            bytes[nnc_rng_below(&rng, (uint32_t)size)] ^=
                (unsigned char)(1u << nnc_rng_below(&rng, 8));
        }
        write_file(bytes, length);
        struct nnc_safetensors *file = NULL;
        int code = open_file(&file);
        cr_assert(code == 0 || code == -NNC_E_FORMAT, "round %d: %d", i, code);
        for (uint32_t t = 0; code == 0 && t < file->count; t++) {
            float values[64];
            cr_assert_leq(file->tensors[t].count, 64);
            cr_assert_eq(nnc_safetensors_read(file, t, values), 0);
        }
        accepted += code == 0;
        nnc_safetensors_close(file);
    }
    /* Flips in the values, the names and the padding leave a valid file; most others do not. */
    cr_expect_gt(accepted, 0);
    cr_expect_lt(accepted, 1500);
}

Test(safetensors, a_file_that_shrinks_after_opening_is_an_error) {
    cr_assert_eq(nnc_safetensors_save(nnc_vfs_real(), path, &params), 0);
    struct nnc_safetensors *file = NULL;
    cr_assert_eq(open_file(&file), 0);
    cr_assert_eq(truncate(path, 40), 0);
    float values[6];
    int32_t number = nnc_safetensors_find(file, "fc.weight");
    cr_expect_eq(nnc_safetensors_read(file, (uint32_t)number, values), -NNC_E_FORMAT);
    nnc_safetensors_close(file);
}

Test(safetensors, a_failed_save_leaves_no_file) {
    bool failed = true;
    for (uint64_t call = 1; failed; call++) {
        struct vfs_fault fault;
        vfs_fault_init(&fault, nnc_vfs_real());
        vfs_fault_arm(&fault, VFS_FAULT_ALL & ~VFS_FAULT_ONLY(VFS_FAULT_UNLINK), call, ENOSPC);
        int code = nnc_safetensors_save(&fault.base, path, &params);
        failed = fault.faults > 0;
        cr_expect(failed || fault.op_calls[VFS_FAULT_SYNC] == 1);
        cr_expect_eq(code, failed ? -ENOSPC : 0, "call %llu: %d", (unsigned long long)call, code);
        cr_expect_eq(access(path, F_OK) == 0, !failed, "call %llu", (unsigned long long)call);
    }
    cr_expect_eq(nnc_safetensors_save(nnc_vfs_real(), path, &params), -EEXIST);
}

Test(safetensors, failed_reads_are_errors_with_the_files_name) {
    cr_assert_eq(nnc_safetensors_save(nnc_vfs_real(), path, &params), 0);
    bool failed = true;
    for (uint64_t call = 1; failed; call++) {
        struct vfs_fault fault;
        vfs_fault_init(&fault, nnc_vfs_real());
        vfs_fault_arm(&fault, VFS_FAULT_ALL & ~VFS_FAULT_ONLY(VFS_FAULT_CLOSE), call, EIO);
        struct nnc_safetensors *file = NULL;
        int code = nnc_safetensors_open(&fault.base, path, &file);
        failed = fault.faults > 0;
        cr_expect_eq(code, failed ? -EIO : 0, "call %llu", (unsigned long long)call);
        cr_expect(!failed || strstr(nnc_error_text(), path) != NULL, "%s", nnc_error_text());
        nnc_safetensors_close(file);
    }
}
