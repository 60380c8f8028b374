/* SPDX-License-Identifier: Apache-2.0 */
/* Temporary directories and hand-made tar archives for tests (fixture.h). */
#include "tests/support/fixture.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define BLOCK 512

static char directory[64];
static int ages; /* calls of fixture_age(): each gives another time, as real changes do */

static int remove_one(const char *path, const struct stat *status, int type, struct FTW *where) {
    (void)status, (void)type, (void)where;
    return remove(path);
}

static int age_one(const char *path, const struct stat *status, int type, struct FTW *where) {
    (void)status, (void)type, (void)where;
    struct timespec times[2] = {{.tv_sec = time(NULL) - 600, .tv_nsec = ages}};
    times[1] = times[0];
    return utimensat(AT_FDCWD, path, times, AT_SYMLINK_NOFOLLOW);
}

void fixture_begin(void) {
    snprintf(directory, sizeof(directory), "/tmp/nncoord-test-XXXXXX");
    cr_assert_not_null(mkdtemp(directory), "%s: %s", directory, strerror(errno));
}

void fixture_end(void) {
    cr_assert_eq(nftw(directory, remove_one, 16, FTW_DEPTH | FTW_PHYS), 0);
}

void fixture_age(void) {
    ages++;
    cr_assert_eq(nftw(directory, age_one, 16, FTW_DEPTH | FTW_PHYS), 0);
}

const char *fixture_path(const char *name) {
    static char paths[8][1024];
    static int next;
    next = (next + 1) % 8;
    snprintf(paths[next], sizeof(paths[next]), "%s/%s", directory, name);
    return paths[next];
}

static void make_parents(const char *path) {
    char parent[1024];
    snprintf(parent, sizeof(parent), "%s", path);
    for (char *slash = strchr(parent + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        cr_assert(mkdir(parent, 0700) == 0 || errno == EEXIST, "%s", parent);
        *slash = '/';
    }
}

void fixture_file(const char *name, const void *bytes, size_t size) {
    const char *path = fixture_path(name);
    make_parents(path);
    FILE *file = fopen(path, "wb");
    cr_assert_not_null(file, "%s: %s", path, strerror(errno));
    cr_assert_eq(fwrite(bytes, 1, size, file), size);
    cr_assert_eq(fclose(file), 0);
}

void fixture_text(const char *name, const char *text) {
    fixture_file(name, text, strlen(text));
}

void fixture_folder(const char *name) {
    const char *path = fixture_path(name);
    make_parents(path);
    cr_assert_eq(mkdir(path, 0700), 0, "%s: %s", path, strerror(errno));
}

void fixture_link(const char *target, const char *name) {
    const char *path = fixture_path(name);
    make_parents(path);
    cr_assert_eq(symlink(target, path), 0, "%s: %s", path, strerror(errno));
}

/* Room for size more bytes, zeroed. */
static unsigned char *tar_grow(struct tar_image *tar, size_t size) {
    tar->bytes = realloc(tar->bytes, tar->size + size);
    cr_assert_not_null(tar->bytes);
    unsigned char *added = tar->bytes + tar->size;
    memset(added, 0, size);
    tar->size += size;
    return added;
}

void tar_fix_checksum(struct tar_image *tar, size_t offset) {
    unsigned char *header = tar->bytes + offset;
    unsigned sum = 0;
    memset(header + 148, ' ', 8);
    for (size_t i = 0; i < BLOCK; i++) {
        sum += header[i];
    }
    char text[8];
    snprintf(text, sizeof(text), "%06o", sum & 0777777);
    memcpy(header + 148, text, 7);
}

void tar_header(struct tar_image *tar, char type, const char *name, uint64_t size) {
    size_t offset = tar->size;
    unsigned char *header = tar_grow(tar, BLOCK);
    char text[24];
    cr_assert_leq(strlen(name), 100);
    memcpy(header, name, strlen(name));
    memcpy(header + 100, "0000644", 7);
    snprintf(text, sizeof(text), "%011" PRIo64, size);
    memcpy(header + 124, text, 11);
    header[156] = (unsigned char)type;
    memcpy(header + 257, "ustar\00000", 8);
    tar_fix_checksum(tar, offset);
}

void tar_entry(struct tar_image *tar, char type, const char *name, const void *body, size_t size) {
    tar_header(tar, type, name, size);
    unsigned char *at = tar_grow(tar, (size + BLOCK - 1) / BLOCK * BLOCK);
    if (size > 0) {
        memcpy(at, body, size);
    }
}

void tar_text(struct tar_image *tar, const char *name, const char *text) {
    tar_entry(tar, '0', name, text, strlen(text));
}

void tar_pax(struct tar_image *tar, const char *key, const char *value) {
    size_t rest = strlen(key) + strlen(value) + 3; /* space, =, newline */
    size_t length = rest + 1;
    while (rest + (size_t)snprintf(NULL, 0, "%zu", length) != length) {
        length++;
    }
    char *record = malloc(length + 1);
    cr_assert_not_null(record);
    snprintf(record, length + 1, "%zu %s=%s\n", length, key, value);
    tar_entry(tar, 'x', "pax", record, length);
    free(record);
}

void tar_end(struct tar_image *tar) {
    tar_grow(tar, 2 * BLOCK);
}

void tar_free(struct tar_image *tar) {
    free(tar->bytes);
    *tar = (struct tar_image){0};
}
