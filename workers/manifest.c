/* SPDX-License-Identifier: Apache-2.0 */
/* Writing files with their hashes, and checking a directory against its manifest.
 *
 *   caller's bytes -> private block of 1 MiB -> XXH3-64 (block line), XXH3-128 (file line) ->
 * pwrite
 *
 * Invariants:
 *   1. What is hashed is the private copy that is written: the source may be shared memory that
 * changes under us, then the hash of the source is wrong and its owner notices, but file and
 * manifest agree.
 *   2. A file is synced once; after an error the caller removes it and writes a new one.
 *   3. A manifest is input: sizes and counts are checked against the files before anything is read
 * by them.
 *
 * It does not commit, choose names or delete (checkpoint_save.c).
 *
 * Source: reliability rules of docs/checkpoints.md; XXH3 in xxhash.h. */
#include "workers/manifest.h"

#include "base/err.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

enum {
    PATH_ROOM = 2048,
    NAME_ROOM = 64,
    MANIFEST_MAX = 64 << 20,
};

#define FIRST_LINE "nncoord-ckpt 1\n"

int nnc_path_join(const char *dir, const char *name, char *ret_path, size_t room) {
    int length = snprintf(ret_path, room, "%s/%s", dir, name);
    if (length < 0 || (size_t)length >= room) {
        return nnc_fail(-ENAMETOOLONG, "path %.200s.../%s is too long", dir, name);
    }
    return 0;
}

/* ---- the text ---- */

void nnc_manifest_finish(struct nnc_manifest *manifest) {
    free(manifest->text);
    *manifest = (struct nnc_manifest){0};
}

static int add_line(struct nnc_manifest *manifest, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static int add_line(struct nnc_manifest *manifest, const char *format, ...) {
    enum {
        LINE_MAX_BYTES = 256
    };
    if (manifest->room - manifest->bytes < LINE_MAX_BYTES) {
        size_t room = manifest->room * 2 + 4096;
        char *text = realloc(manifest->text, room);
        if (text == NULL) {
            return nnc_fail(-ENOMEM, "no memory for a manifest");
        }
        manifest->text = text;
        manifest->room = room;
    }
    va_list args;
    va_start(args, format);
    int length = vsnprintf(manifest->text + manifest->bytes, LINE_MAX_BYTES, format, args);
    va_end(args);
    assert(length > 0 && length < LINE_MAX_BYTES);
    manifest->bytes += (size_t)length;
    return 0;
}

int nnc_manifest_close(struct nnc_manifest *manifest, uint64_t *ret_hash) {
    uint64_t hash = XXH3_64bits(manifest->text, manifest->bytes);
    int code = add_line(manifest, "end %016" PRIx64 "\n", hash);
    if (code == 0) {
        *ret_hash = hash;
    }
    return code;
}

/* ---- writing a file ---- */

struct nnc_manifest_file {
    struct nnc_vfs *vfs;
    int fd;
    char name[NAME_ROOM];
    uint64_t size, offset; /* promised; written */
    size_t filled;         /* of the block */
    uint64_t *hashes;      /* of the blocks written */
    size_t hash_count, hash_room;
    XXH3_state_t *whole;
    uint8_t *block;
};

static uint64_t blocks_of(uint64_t size) {
    return size / NNC_MANIFEST_BLOCK + (size % NNC_MANIFEST_BLOCK != 0);
}

static int file_open(struct nnc_manifest_file *file, const char *dir) {
    char path[PATH_ROOM];
    int code = nnc_path_join(dir, file->name, path, sizeof(path));
    if (code < 0) {
        return code;
    }
    file->fd = file->vfs->ops->open(file->vfs, path, O_CREAT | O_EXCL | O_WRONLY, 0600);
    if (file->fd < 0) {
        return nnc_fail(file->fd, "create %s: %s", path, strerror(-file->fd));
    }
    code = file->vfs->ops->allocate(file->vfs, file->fd, file->size);
    if (code < 0) {
        return nnc_fail(code, "reserve %" PRIu64 " bytes for %s: %s", file->size, path,
                        strerror(-code));
    }
    return 0;
}

int nnc_manifest_file_create(struct nnc_vfs *vfs, const char *dir, const char *name, uint64_t size,
                             struct nnc_manifest_file **ret_file) {
    assert(strlen(name) < NAME_ROOM && strpbrk(name, "/ \n") == NULL);
    struct nnc_manifest_file *file = calloc(1, sizeof(*file));
    if (file == NULL) {
        return nnc_fail(-ENOMEM, "no memory to write %s", name);
    }
    file->vfs = vfs;
    file->fd = -1;
    file->size = size;
    memcpy(file->name, name, strlen(name) + 1);
    file->hash_room = blocks_of(size) + 1;
    file->hashes = calloc(file->hash_room, sizeof(*file->hashes));
    file->block = malloc(NNC_MANIFEST_BLOCK);
    file->whole = XXH3_createState();
    int code = -ENOMEM;
    if (file->hashes == NULL || file->block == NULL || file->whole == NULL) {
        nnc_fail(code, "no memory to write %s", name);
        goto out;
    }
    XXH3_128bits_reset(file->whole);
    code = file_open(file, dir);
out:
    if (code < 0) {
        nnc_manifest_file_abort(file);
        return code;
    }
    *ret_file = file;
    return 0;
}

void nnc_manifest_file_space(struct nnc_manifest_file *file, void **ret_space, size_t *ret_bytes) {
    assert(file->filled < NNC_MANIFEST_BLOCK);
    *ret_space = file->block + file->filled;
    *ret_bytes = NNC_MANIFEST_BLOCK - file->filled;
}

static int flush_block(struct nnc_manifest_file *file) {
    if (file->offset + file->filled > file->size) {
        return nnc_fail(-NNC_E_FORMAT, "%s outgrows its %" PRIu64 " bytes", file->name, file->size);
    }
    assert(file->hash_count < file->hash_room);
    file->hashes[file->hash_count++] = XXH3_64bits(file->block, file->filled);
    XXH3_128bits_update(file->whole, file->block, file->filled);
    int code = nnc_vfs_write_all(file->vfs, file->fd, file->block, file->filled, file->offset);
    if (code < 0) {
        return nnc_fail_in(code, "write %s", file->name);
    }
    file->offset += file->filled;
    file->filled = 0;
    return 0;
}

int nnc_manifest_file_advance(struct nnc_manifest_file *file, size_t bytes) {
    assert(bytes <= NNC_MANIFEST_BLOCK - file->filled);
    file->filled += bytes;
    return file->filled == NNC_MANIFEST_BLOCK ? flush_block(file) : 0;
}

int nnc_manifest_file_append(struct nnc_manifest_file *file, const void *data, size_t bytes) {
    const uint8_t *from = data;
    while (bytes > 0) {
        void *space;
        size_t room;
        nnc_manifest_file_space(file, &space, &room);
        size_t count = bytes < room ? bytes : room;
        memcpy(space, from, count);
        int code = nnc_manifest_file_advance(file, count);
        if (code < 0) {
            return code;
        }
        from += count;
        bytes -= count;
    }
    return 0;
}

static int file_end(struct nnc_manifest_file *file) {
    int code = file->filled > 0 ? flush_block(file) : 0;
    if (code < 0) {
        return code;
    }
    if (file->offset != file->size) {
        return nnc_fail(-NNC_E_FORMAT, "%s has %" PRIu64 " bytes, not %" PRIu64, file->name,
                        file->offset, file->size);
    }
    code = file->vfs->ops->sync(file->vfs, file->fd);
    if (code < 0) {
        return nnc_fail(code, "sync %s: %s", file->name, strerror(-code));
    }
    code = file->vfs->ops->close(file->vfs, file->fd);
    file->fd = -1;
    return code < 0 ? nnc_fail(code, "close %s: %s", file->name, strerror(-code)) : 0;
}

static int file_lines(const struct nnc_manifest_file *file, struct nnc_manifest *manifest) {
    int code = manifest->bytes == 0 ? add_line(manifest, FIRST_LINE) : 0;
    if (code < 0) {
        return code;
    }
    XXH128_hash_t whole = XXH3_128bits_digest(file->whole);
    code = add_line(manifest, "file %s %" PRIu64 " %016" PRIx64 "%016" PRIx64 "\n", file->name,
                    file->size, (uint64_t)whole.high64, (uint64_t)whole.low64);
    for (size_t block = 0; code == 0 && block < file->hash_count; block++) {
        code = add_line(manifest, "block %016" PRIx64 "\n", file->hashes[block]);
    }
    return code;
}

int nnc_manifest_file_commit(struct nnc_manifest_file *file, struct nnc_manifest *manifest) {
    int code = file_end(file);
    code = code < 0 ? code : file_lines(file, manifest);
    nnc_manifest_file_abort(file);
    return code;
}

void nnc_manifest_file_abort(struct nnc_manifest_file *file) {
    if (file == NULL) {
        return;
    }
    if (file->fd >= 0) {
        file->vfs->ops->close(file->vfs, file->fd);
    }
    XXH3_freeState(file->whole);
    free(file->hashes);
    free(file->block);
    free(file);
}

/* ---- checking a directory ---- */

struct check {
    struct nnc_vfs *vfs;
    const char *dir;
    const char *at; /* next line of the manifest */
    uint8_t *block;
    XXH3_state_t *whole;
};

/* Read a whole small file, zero-ended. Owner: caller frees. */
static int read_text(struct nnc_vfs *vfs, const char *path, char **ret_text, size_t *ret_bytes) {
    int fd = vfs->ops->open(vfs, path, O_RDONLY, 0);
    if (fd < 0) {
        return nnc_fail(fd, "open %s: %s", path, strerror(-fd));
    }
    char *text = NULL;
    int code;
    int64_t size = vfs->ops->size(vfs, fd);
    if (size < 1 || size > MANIFEST_MAX) {
        code = nnc_fail(-NNC_E_FORMAT, "%s has %" PRId64 " bytes", path, size);
        goto out;
    }
    text = calloc((size_t)size + 1, 1);
    code = text == NULL ? nnc_fail(-ENOMEM, "no memory for %s", path)
                        : nnc_vfs_read_all(vfs, fd, text, (size_t)size, 0);
    if (code == 0) {
        *ret_text = text;
        *ret_bytes = (size_t)size;
        text = NULL;
    }
out:
    free(text);
    vfs->ops->close(vfs, fd);
    return code;
}

/* The last line must be "end HASH" of all before, byte for byte, and no byte may be zero. */
static int check_text(const char *path, char *text, size_t bytes, uint64_t *ret_hash) {
    char end[32];
    const size_t end_bytes = strlen("end 0123456789abcdef\n");
    if (strlen(text) != bytes || bytes < strlen(FIRST_LINE) + end_bytes ||
        strncmp(text, FIRST_LINE, strlen(FIRST_LINE)) != 0) {
        return nnc_fail(-NNC_E_FORMAT, "%s is not a complete manifest", path);
    }
    uint64_t hash = XXH3_64bits(text, bytes - end_bytes);
    snprintf(end, sizeof(end), "end %016" PRIx64 "\n", hash);
    if (strcmp(text + bytes - end_bytes, end) != 0) {
        return nnc_fail(-NNC_E_FORMAT, "%s does not end with its hash %016" PRIx64, path, hash);
    }
    text[bytes - end_bytes] = '\0';
    *ret_hash = hash;
    return 0;
}

static int check_block(struct check *check, int fd, const char *name, uint64_t offset,
                       size_t bytes) {
    uint64_t stored;
    int used = 0;
    if (sscanf(check->at, "block %16" SCNx64 "\n%n", &stored, &used) != 1 || used == 0) {
        return nnc_fail(-NNC_E_FORMAT, "%s/%s: hash of the block at %" PRIu64 " is missing",
                        check->dir, name, offset);
    }
    check->at += used;
    int code = nnc_vfs_read_all(check->vfs, fd, check->block, bytes, offset);
    if (code < 0) {
        return nnc_fail_in(code, "%s/%s", check->dir, name);
    }
    if (XXH3_64bits(check->block, bytes) != stored) {
        return nnc_fail(-NNC_E_FORMAT, "%s/%s is damaged between bytes %" PRIu64 " and %" PRIu64,
                        check->dir, name, offset, offset + bytes);
    }
    XXH3_128bits_update(check->whole, check->block, bytes);
    return 0;
}

static int check_blocks(struct check *check, int fd, const char *name, uint64_t size) {
    int64_t real_size = check->vfs->ops->size(check->vfs, fd);
    if (real_size < 0 || (uint64_t)real_size != size) {
        return nnc_fail(-NNC_E_FORMAT, "%s/%s has %" PRId64 " bytes, not %" PRIu64, check->dir,
                        name, real_size, size);
    }
    XXH3_128bits_reset(check->whole);
    for (uint64_t offset = 0; offset < size; offset += NNC_MANIFEST_BLOCK) {
        uint64_t rest = size - offset;
        size_t bytes = rest < NNC_MANIFEST_BLOCK ? (size_t)rest : NNC_MANIFEST_BLOCK;
        int code = check_block(check, fd, name, offset, bytes);
        if (code < 0) {
            return code;
        }
    }
    return 0;
}

static int check_file(struct check *check) {
    char name[NAME_ROOM], path[PATH_ROOM];
    uint64_t size, high, low;
    int used = 0;
    if (sscanf(check->at, "file %63[^ /\n] %" SCNu64 " %16" SCNx64 "%16" SCNx64 "\n%n", name, &size,
               &high, &low, &used) != 4 ||
        used == 0) {
        return nnc_fail(-NNC_E_FORMAT, "%s/" NNC_MANIFEST_NAME ": bad line %.40s", check->dir,
                        check->at);
    }
    check->at += used;
    int code = nnc_path_join(check->dir, name, path, sizeof(path));
    if (code < 0) {
        return code;
    }
    int fd = check->vfs->ops->open(check->vfs, path, O_RDONLY, 0);
    if (fd < 0) {
        return nnc_fail(fd, "open %s: %s", path, strerror(-fd));
    }
    code = check_blocks(check, fd, name, size);
    check->vfs->ops->close(check->vfs, fd);
    if (code < 0) {
        return code;
    }
    XXH128_hash_t whole = XXH3_128bits_digest(check->whole);
    if (whole.high64 != high || whole.low64 != low) {
        return nnc_fail(-NNC_E_FORMAT, "%s is damaged", path);
    }
    return 0;
}

static int check_files(struct nnc_vfs *vfs, const char *dir, const char *text) {
    struct check check = {.vfs = vfs,
                          .dir = dir,
                          .at = text + strlen(FIRST_LINE),
                          .block = malloc(NNC_MANIFEST_BLOCK),
                          .whole = XXH3_createState()};
    int code = 0;
    if (check.block == NULL || check.whole == NULL) {
        code = nnc_fail(-ENOMEM, "no memory to check %s", dir);
    }
    while (code == 0 && *check.at != '\0') {
        code = check_file(&check);
    }
    free(check.block);
    XXH3_freeState(check.whole);
    return code;
}

int nnc_manifest_verify(struct nnc_vfs *vfs, const char *dir, uint64_t *ret_hash) {
    char path[PATH_ROOM];
    char *text = NULL;
    size_t bytes = 0;
    uint64_t hash = 0;
    int code = nnc_path_join(dir, NNC_MANIFEST_NAME, path, sizeof(path));
    code = code < 0 ? code : read_text(vfs, path, &text, &bytes);
    code = code < 0 ? code : check_text(path, text, bytes, &hash);
    code = code < 0 ? code : check_files(vfs, dir, text);
    if (code == 0) {
        *ret_hash = hash;
    }
    free(text);
    return code;
}
