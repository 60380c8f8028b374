/* SPDX-License-Identifier: Apache-2.0 */
/* ustar, as simple as it comes: regular files with short names, numbers in octal, owner 0, time 0,
 * so that the same samples make the same bytes.
 *
 *   header (512) | bytes, padded to 512 | ... | 1024 zeros
 *
 * The index, for programs that read shards at random:
 *   v1.2 SAMPLES
 *   EXTENSION OFFSET SIZE NAME EXTENSION OFFSET SIZE NAME     a line a sample
 *
 * Source: POSIX.1-2017, pax, "ustar Interchange Format"; DALI, tools/wds2idx.py. */
#include "data/shard_write.h"

#include "base/err.h"
#include "base/regular.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    BLOCK = 512,
    NAME_MAX_BYTES = NNC_SHARD_NAME_MAX - 1,
    LINE_ROOM = 512,
    END_BYTES = 2 * BLOCK, /* behind the last member */
};

static const uint8_t zeros[END_BYTES];

int nnc_shard_writer_open(const char *path, struct nnc_shard_writer *ret_writer) {
    char name[NNC_PATH_MAX + 8];
    snprintf(name, sizeof(name), "%s.tar", path);
    *ret_writer = (struct nnc_shard_writer){.samples = 0};
    int code = nnc_output_open(nnc_vfs_real(), name, &ret_writer->tar);
    snprintf(name, sizeof(name), "%s.idx", path);
    return code < 0 ? code : nnc_output_open(nnc_vfs_real(), name, &ret_writer->idx);
}

/* A number as octal digits and a zero. */
static void put_octal(char *field, size_t bytes, uint64_t value) {
    snprintf(field, bytes, "%0*" PRIo64, (int)bytes - 1, value);
}

static void make_header(const char *name, uint64_t size, char ret_header[BLOCK]) {
    memset(ret_header, 0, BLOCK);
    memcpy(ret_header, name, strlen(name));
    put_octal(ret_header + 100, 8, 0644);
    put_octal(ret_header + 108, 8, 0); /* owner */
    put_octal(ret_header + 116, 8, 0); /* group */
    put_octal(ret_header + 124, 12, size);
    put_octal(ret_header + 136, 12, 0); /* time */
    memset(ret_header + 148, ' ', 8);   /* the checksum counts as blanks */
    ret_header[156] = '0';
    memcpy(ret_header + 257, "ustar\00000", 8);
    unsigned sum = 0;
    for (int i = 0; i < BLOCK; i++) {
        sum += (unsigned char)ret_header[i];
    }
    snprintf(ret_header + 148, 8, "%06o", sum);
    ret_header[155] = ' ';
}

static int append_text(struct nnc_shard_writer *writer, const char *text) {
    size_t length = strlen(text);
    if (writer->lines_bytes + length + 1 > writer->lines_room) {
        size_t room = 2 * writer->lines_room + length + 65536;
        char *grown = realloc(writer->lines, room);
        if (grown == NULL) {
            return nnc_fail(-ENOMEM, "no memory for the index of a shard");
        }
        writer->lines = grown;
        writer->lines_room = room;
    }
    memcpy(writer->lines + writer->lines_bytes, text, length + 1);
    writer->lines_bytes += length;
    return 0;
}

static int add_member(struct nnc_shard_writer *writer, const char *key,
                      const struct nnc_pack_member *member, char separator) {
    char name[NAME_MAX_BYTES + 1], header[BLOCK], line[LINE_ROOM];
    int length = snprintf(name, sizeof(name), "%s.%s", key, member->extension);
    assert(length > 0 && (size_t)length < sizeof(name));
    make_header(name, member->size, header);
    int code = nnc_output_write(&writer->tar, header, BLOCK);
    uint64_t offset = writer->tar.bytes;
    code = code < 0 ? code : nnc_output_write(&writer->tar, member->bytes, member->size);
    size_t padding = (BLOCK - member->size % BLOCK) % BLOCK;
    code = code < 0 ? code : nnc_output_write(&writer->tar, zeros, padding);
    snprintf(line, sizeof(line), "%s %" PRIu64 " %zu %s%c", member->extension, offset, member->size,
             name, separator);
    return code < 0 ? code : append_text(writer, line);
}

int nnc_shard_writer_add(struct nnc_shard_writer *writer, const char *key,
                         const struct nnc_pack_member *member, int32_t label) {
    char text[16];
    int length = snprintf(text, sizeof(text), "%" PRId32, label);
    int code = add_member(writer, key, member, label >= 0 ? ' ' : '\n');
    if (code >= 0 && label >= 0) {
        const struct nnc_pack_member class = {
            .extension = "cls", .bytes = (const uint8_t *)text, .size = (size_t)length};
        code = add_member(writer, key, &class, '\n');
    }
    writer->samples++;
    return code;
}

int nnc_shard_writer_finish(struct nnc_shard_writer *writer) {
    char first[40];
    int length = snprintf(first, sizeof(first), "v1.2 %" PRIu64 "\n", writer->samples);
    int code = nnc_output_write(&writer->tar, zeros, sizeof(zeros));
    code = code < 0 ? code : nnc_output_write(&writer->idx, first, (size_t)length);
    return code < 0 ? code : nnc_output_write(&writer->idx, writer->lines, writer->lines_bytes);
}

int nnc_shard_writer_commit(struct nnc_shard_writer *writer) {
    int code = nnc_output_commit(&writer->idx, true);
    return code < 0 ? code : nnc_output_commit(&writer->tar, true);
}

/* ---- the index, read again ---- */

static uint64_t padded(uint64_t size) {
    return (size + BLOCK - 1) / BLOCK * BLOCK;
}

int nnc_shard_index_open(const char *name, struct nnc_shard_index *ret_index) {
    struct nnc_shard_index index = {.samples = 0};
    char line[LINE_ROOM];
    int code = nnc_regular_open_stream(name, &index.file);
    if (code < 0) {
        return code;
    }
    snprintf(index.name, sizeof(index.name), "%s", name);
    if (fgets(line, sizeof(line), index.file) == NULL ||
        sscanf(line, "v1.2 %" SCNu64, &index.samples) != 1) {
        nnc_shard_index_close(&index);
        return nnc_fail(-NNC_E_FORMAT, "%s is cut or is no index of a shard", name);
    }
    *ret_index = index;
    return 0;
}

int nnc_shard_index_next(struct nnc_shard_index *index, struct nnc_shard_line *ret_line) {
    char text[LINE_ROOM];
    struct nnc_shard_line line = {.places = 0};
    struct nnc_shard_place *image = &line.place[0], *label = &line.place[1];
    if (fgets(text, sizeof(text), index->file) == NULL) {
        return index->lines == index->samples ? 0
                                              : nnc_fail(-NNC_E_FORMAT, "%s is cut", index->name);
    }
    /* Sizes that are no sizes wrap around: they fit no archive then. */
    int fields = sscanf(text, "%*31s %" SCNu64 " %" SCNu64 " %99s cls %" SCNu64 " %" SCNu64 " %99s",
                        &image->offset, &image->size, image->name, &label->offset, &label->size,
                        label->name);
    if ((fields != 3 && fields != 6) || text[strlen(text) - 1] != '\n' ||
        index->lines++ == index->samples) {
        return nnc_fail(-NNC_E_FORMAT, "%s is no index of a shard", index->name);
    }
    line.places = (uint32_t)fields / 3;
    *ret_line = line;
    return 1;
}

void nnc_shard_index_close(struct nnc_shard_index *index) {
    if (index->file != NULL) {
        fclose(index->file);
        index->file = NULL;
    }
}

int nnc_shard_index_read(const char *path, struct nnc_shard_summary *ret_summary) {
    struct nnc_shard_summary summary = {.tar_bytes = END_BYTES};
    struct nnc_shard_index index = {.file = NULL};
    struct nnc_shard_line line = {.places = 0};
    char name[NNC_PATH_MAX + 8];
    snprintf(name, sizeof(name), "%s.idx", path);
    int code = nnc_shard_index_open(name, &index);
    while (code >= 0 && (code = nnc_shard_index_next(&index, &line)) > 0) {
        const struct nnc_shard_place *last = &line.place[line.places - 1];
        summary.samples++;
        summary.image_bytes += line.place[0].size;
        /* Members follow each other, so the last one tells where the archive ends. */
        summary.tar_bytes = last->offset + padded(last->size) + END_BYTES;
    }
    nnc_shard_index_close(&index);
    if (code < 0) {
        return code;
    }
    *ret_summary = summary;
    return 0;
}

void nnc_shard_writer_abandon(struct nnc_shard_writer *writer) {
    nnc_output_abandon(&writer->tar);
    nnc_output_abandon(&writer->idx);
    free(writer->lines);
    writer->lines = NULL;
}
