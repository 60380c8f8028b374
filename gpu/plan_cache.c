/* SPDX-License-Identifier: Apache-2.0 */
/* The plan cache.
 *
 * DIRECTORY/DEVICE.plans, DEVICE the first 16 digits of the device's hash, and what ranks tell each
 * other:
 *
 *   line     "nncoord-plans 2 DEVICE BODY": hashes of cuDNN's version with the device's properties
 *            without its place in the machine, and of all bytes after this line; SHA-256 in
 *            hexadecimal
 *   plans    oldest first, each:
 *     line   "plan", the numbers of the key, of the policy, and BYTES, in decimal, a blank between,
 *            and the hash of that with the text: cuDNN takes the text of another shape and then
 *            reads memory that is not there, and cannot be asked which shape a plan is for
 *     BYTES  the text, without zero bytes
 *     1      newline
 *
 * Invariant: what is in memory fits a file of FILE_MAX bytes and ROWS_MAX plans; nothing larger is
 * read. The hash tells damage, not malice: whatever has the right one is still only numbers that
 * are compared and a text that cuDNN checks. */
#include "gpu/plan_cache.h"

#include "base/err.h"
#include "base/log.h"
#include "base/output.h"
#include "base/sha256.h"
#include "base/vfs.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAGIC       "nncoord-plans 2 "
#define HEX_DIGITS  (NNC_SHA256_HEX_BYTES - 1)
#define HEAD_BYTES  (sizeof(MAGIC) - 1 + HEX_DIGITS + 1 + HEX_DIGITS + 1)
#define FILE_MAX    ((size_t)16 << 20)
#define TEXT_MAX    ((size_t)256 << 10)
#define ROWS_MAX    4096
#define KEY_NUMBERS (sizeof(struct nnc_dnn_key) / sizeof(uint32_t))
/* "plan", 13 numbers of 10 digits, 1, 20, 10 and 6 digits, a hash, blanks and newlines: 255 at
 * most. */
#define ROW_MAX 320

_Static_assert(sizeof(struct nnc_dnn_key) == 13 * sizeof(uint32_t), "a key is 13 numbers");

struct row {
    struct nnc_dnn_key key;
    struct nnc_dnn_policy policy;
    char *text;
    size_t bytes; /* of text, without the zero */
};

struct nnc_plan_cache {
    char path[NNC_PATH_MAX]; /* "": none */
    char device[NNC_SHA256_HEX_BYTES];
    struct row rows[ROWS_MAX];
    uint32_t count;
    size_t bytes; /* of the file at most */
    bool changed;
};

/* SHA-256 of two pieces of memory, in hexadecimal. */
static int hash(const void *first, size_t first_bytes, const void *second, size_t second_bytes,
                char ret_hex[NNC_SHA256_HEX_BYTES]) {
    struct nnc_sha256 *sha = NULL;
    int code = nnc_sha256_create(&sha);
    code = code < 0 ? code : nnc_sha256_update(sha, first, first_bytes);
    code = code < 0 ? code : nnc_sha256_update(sha, second, second_bytes);
    code = code < 0 ? code : nnc_sha256_hex(sha, ret_hex);
    nnc_sha256_destroy(sha);
    return code;
}

/* ---- in memory ---- */

static bool is_under(const struct row *row, const struct nnc_dnn_policy *policy) {
    return row->policy.deterministic == policy->deterministic &&
           row->policy.workspace_cap == policy->workspace_cap &&
           row->policy.autotune == policy->autotune;
}

static bool is_same(const struct row *row, const struct nnc_dnn_key *key,
                    const struct nnc_dnn_policy *policy) {
    return memcmp(&row->key, key, sizeof(*key)) == 0 && is_under(row, policy);
}

static void remove_row(struct nnc_plan_cache *cache, uint32_t number) {
    struct row *row = &cache->rows[number];
    cache->bytes -= ROW_MAX + row->bytes;
    free(row->text);
    cache->count--;
    memmove(row, row + 1, (cache->count - number) * sizeof(*row));
}

const char *nnc_plan_cache_find(const struct nnc_plan_cache *cache, const struct nnc_dnn_key *key,
                                const struct nnc_dnn_policy *policy) {
    for (uint32_t number = 0; number < cache->count; number++) {
        if (is_same(&cache->rows[number], key, policy)) {
            return cache->rows[number].text;
        }
    }
    return NULL;
}

bool nnc_plan_cache_is_under(const struct nnc_plan_cache *cache,
                             const struct nnc_dnn_policy *policy) {
    for (uint32_t number = 0; number < cache->count; number++) {
        if (!is_under(&cache->rows[number], policy)) {
            return false;
        }
    }
    return true;
}

int nnc_plan_cache_put(struct nnc_plan_cache *cache, const struct nnc_dnn_key *key,
                       const struct nnc_dnn_policy *policy, const char *text) {
    const size_t bytes = strlen(text);
    if (bytes > TEXT_MAX) {
        return nnc_fail(-E2BIG, "a plan of %zu bytes is not kept", bytes);
    }
    char *copy = strdup(text);
    if (copy == NULL) {
        return nnc_fail(-ENOMEM, "no memory for a plan of %zu bytes", bytes);
    }
    for (uint32_t number = cache->count; number-- > 0;) {
        if (is_same(&cache->rows[number], key, policy)) {
            remove_row(cache, number);
        }
    }
    while (cache->count == ROWS_MAX || cache->bytes + ROW_MAX + bytes > FILE_MAX) {
        remove_row(cache, 0);
    }
    cache->rows[cache->count++] = (struct row){*key, *policy, copy, bytes};
    cache->bytes += ROW_MAX + bytes;
    cache->changed = true;
    return 0;
}

/* ---- from a file ---- */

/* Take a decimal number and the character after it. */
static bool take_number(char **cursor, char after, uint64_t most, uint64_t *ret_number) {
    if (**cursor < '0' || **cursor > '9') {
        return false;
    }
    char *end;
    errno = 0;
    *ret_number = strtoull(*cursor, &end, 10);
    *cursor = end + 1;
    return errno == 0 && *end == after && *ret_number <= most;
}

/* Take the hash of a plan's line, which began at `line`, and the text behind it. */
static bool take_hash(char **cursor, const char *line, const char *end, size_t bytes) {
    char right[NNC_SHA256_HEX_BYTES];
    size_t numbers = (size_t)(*cursor - line);
    if ((size_t)(end - *cursor) < HEX_DIGITS + 1 || (*cursor)[HEX_DIGITS] != '\n') {
        return false;
    }
    const char *told = *cursor;
    *cursor += HEX_DIGITS + 1;
    return bytes < (size_t)(end - *cursor) && hash(line, numbers, *cursor, bytes, right) == 0 &&
           memcmp(told, right, HEX_DIGITS) == 0;
}

/* Take one plan; *cursor is in a text that ends with a zero at end. */
static bool take_row(char **cursor, const char *end, struct nnc_plan_cache *cache) {
    static const char word[] = "plan ";
    const char *line = *cursor;
    if (strncmp(*cursor, word, sizeof(word) - 1) != 0) {
        return false;
    }
    *cursor += sizeof(word) - 1;
    uint32_t numbers[KEY_NUMBERS];
    uint64_t number, cap, bytes;
    for (size_t place = 0; place < KEY_NUMBERS; place++) {
        if (!take_number(cursor, ' ', UINT32_MAX, &number)) {
            return false;
        }
        numbers[place] = (uint32_t)number;
    }
    struct nnc_dnn_policy policy = {0};
    if (!take_number(cursor, ' ', 1, &number)) {
        return false;
    }
    policy.deterministic = number != 0;
    if (!take_number(cursor, ' ', SIZE_MAX, &cap) ||
        !take_number(cursor, ' ', UINT32_MAX, &number) ||
        !take_number(cursor, ' ', TEXT_MAX, &bytes) || !take_hash(cursor, line, end, bytes)) {
        return false;
    }
    policy.workspace_cap = cap;
    policy.autotune = (uint32_t)number;
    char *text = *cursor;
    *cursor += bytes + 1;
    if (text[bytes] != '\n') {
        return false;
    }
    text[bytes] = '\0';
    struct nnc_dnn_key key;
    memcpy(&key, numbers, sizeof(key));
    return strlen(text) == bytes && nnc_plan_cache_put(cache, &key, &policy, text) == 0;
}

/* Take all plans of a file; false when it is not one of this device's, or damaged. */
static bool parse(char *content, size_t bytes, struct nnc_plan_cache *cache) {
    char head[HEAD_BYTES + 1], body[NNC_SHA256_HEX_BYTES];
    if (bytes < HEAD_BYTES || hash(content + HEAD_BYTES, bytes - HEAD_BYTES, "", 0, body) < 0) {
        return false;
    }
    snprintf(head, sizeof(head), MAGIC "%s %s\n", cache->device, body);
    if (memcmp(content, head, HEAD_BYTES) != 0) {
        return false;
    }
    const char *end = content + bytes;
    for (char *cursor = content + HEAD_BYTES; cursor < end;) {
        if (!take_row(&cursor, end, cache)) {
            return false;
        }
    }
    return true;
}

static void forget(struct nnc_plan_cache *cache) {
    while (cache->count > 0) {
        remove_row(cache, cache->count - 1);
    }
}

int nnc_plan_cache_read(struct nnc_plan_cache *cache, char *content, size_t bytes) {
    if (bytes <= FILE_MAX && parse(content, bytes, cache)) {
        return 0;
    }
    forget(cache);
    return nnc_fail(-NNC_E_FORMAT, "not plans of this device, or damaged");
}

/* The file's bytes and a zero. Owner: caller frees. NULL: none, or too large. */
static char *read_file(const char *path, size_t *ret_bytes) {
    struct nnc_vfs *vfs = nnc_vfs_real();
    int fd = vfs->ops->open(vfs, path, O_RDONLY | O_NOFOLLOW, 0);
    if (fd < 0) {
        return NULL;
    }
    int64_t bytes = vfs->ops->size(vfs, fd);
    char *content = bytes > 0 && (uint64_t)bytes <= FILE_MAX ? malloc((size_t)bytes + 1) : NULL;
    if (content != NULL && nnc_vfs_read_all(vfs, fd, content, (size_t)bytes, 0) < 0) {
        free(content);
        content = NULL;
    }
    vfs->ops->close(vfs, fd);
    if (content != NULL) {
        content[bytes] = '\0';
        *ret_bytes = (size_t)bytes;
    }
    return content;
}

static void load(struct nnc_plan_cache *cache) {
    size_t bytes = 0;
    char *content = read_file(cache->path, &bytes);
    if (content != NULL && nnc_plan_cache_read(cache, content, bytes) < 0) {
        nnc_log(NNC_LOG_DEBUG, "%s: damaged, its plans are made again", cache->path);
    }
    free(content);
    nnc_error_clear();
    cache->changed = false;
}

/* Cut the number of a key out of a device's properties. */
static void cut_number(char *properties, const char *key) {
    char *found = strstr(properties, key);
    char *value = found != NULL ? strchr(found, ':') : NULL;
    if (value != NULL) {
        char *end = value + strcspn(value, ",}");
        memmove(value, end, strlen(end) + 1);
    }
}

/* All devices of one kind have one hash, wherever they are plugged in. */
static int hash_device(uint32_t cudnn_version, const char *properties,
                       char ret_hex[NNC_SHA256_HEX_BYTES]) {
    char version[16];
    char *kind = strdup(properties);
    if (kind == NULL) {
        return nnc_fail(-ENOMEM, "no memory for the properties of a device");
    }
    cut_number(kind, "\"pciDeviceId\"");
    cut_number(kind, "\"cudaDeviceId\"");
    int digits = snprintf(version, sizeof(version), "%u ", cudnn_version);
    int code = hash(version, (size_t)digits, kind, strlen(kind), ret_hex);
    free(kind);
    return code;
}

int nnc_plan_cache_open(const char *directory, uint32_t cudnn_version, const char *properties,
                        struct nnc_plan_cache **ret_cache) {
    struct nnc_plan_cache *cache = calloc(1, sizeof(*cache));
    if (cache == NULL) {
        return nnc_fail(-ENOMEM, "no memory for a plan cache");
    }
    int code = hash_device(cudnn_version, properties, cache->device);
    if (code < 0) {
        nnc_plan_cache_close(cache);
        return code;
    }
    cache->bytes = HEAD_BYTES;
    int room = (int)sizeof(cache->path);
    if (directory != NULL && snprintf(cache->path, sizeof(cache->path), "%s/%.16s.plans", directory,
                                      cache->device) < room) {
        load(cache);
    } else {
        cache->path[0] = '\0';
    }
    *ret_cache = cache;
    return 0;
}

void nnc_plan_cache_close(struct nnc_plan_cache *cache) {
    if (cache != NULL) {
        forget(cache);
        free(cache);
    }
}

/* ---- to a file ---- */

static int print_row(const struct row *row, FILE *stream) {
    uint32_t numbers[KEY_NUMBERS];
    char line[ROW_MAX], digest[NNC_SHA256_HEX_BYTES];
    memcpy(numbers, &row->key, sizeof(numbers));
    int used = snprintf(line, sizeof(line), "plan ");
    for (size_t place = 0; place < KEY_NUMBERS; place++) {
        used += snprintf(line + used, sizeof(line) - (size_t)used, "%u ", numbers[place]);
    }
    used += snprintf(line + used, sizeof(line) - (size_t)used, "%d %zu %u %zu ",
                     row->policy.deterministic, row->policy.workspace_cap, row->policy.autotune,
                     row->bytes);
    int code = hash(line, (size_t)used, row->text, row->bytes, digest);
    if (code == 0) {
        fprintf(stream, "%s%s\n%s\n", line, digest, row->text);
    }
    return code;
}

int nnc_plan_cache_write(const struct nnc_plan_cache *cache, char **ret_content,
                         size_t *ret_bytes) {
    char head[HEAD_BYTES + 1], body[NNC_SHA256_HEX_BYTES];
    char *content = NULL;
    size_t bytes = 0;
    FILE *stream = open_memstream(&content, &bytes);
    bool whole = stream != NULL && fprintf(stream, "%*s", (int)HEAD_BYTES, "") >= 0;
    for (uint32_t number = 0; whole && number < cache->count; number++) {
        whole = print_row(&cache->rows[number], stream) == 0;
    }
    whole = whole && ferror(stream) == 0;
    whole = stream != NULL && fclose(stream) == 0 && whole;
    int code = whole ? hash(content + HEAD_BYTES, bytes - HEAD_BYTES, "", 0, body)
                     : nnc_fail(-ENOMEM, "no memory for %zu bytes of plans", cache->bytes);
    if (code < 0) {
        free(content);
        return code;
    }
    snprintf(head, sizeof(head), MAGIC "%s %s\n", cache->device, body);
    memcpy(content, head, HEAD_BYTES);
    *ret_content = content;
    *ret_bytes = bytes;
    return 0;
}

static int make_directory(const char *path) {
    char directory[NNC_PATH_MAX];
    snprintf(directory, sizeof(directory), "%s", path);
    *strrchr(directory, '/') = '\0';
    int code = nnc_vfs_make_dirs(nnc_vfs_real(), directory, 0700);
    return code < 0 ? nnc_fail(code, "%s: %s", directory, strerror(-code)) : 0;
}

int nnc_plan_cache_save(struct nnc_plan_cache *cache) {
    if (!cache->changed || cache->path[0] == '\0') {
        return 0;
    }
    char *content = NULL;
    size_t bytes = 0;
    int code = make_directory(cache->path);
    code = code < 0 ? code : nnc_plan_cache_write(cache, &content, &bytes);
    code = code < 0 ? code : nnc_output_save(nnc_vfs_real(), cache->path, content, bytes);
    free(content);
    cache->changed = code < 0;
    return code;
}
