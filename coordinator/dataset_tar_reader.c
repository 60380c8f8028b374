/* SPDX-License-Identifier: Apache-2.0 */
/* A tar reader for indexing: it reads headers and skips bodies.
 *
 * A header is a block of 512 bytes:
 *     0 100 name        124  12 size (octal, or base 256)   148   8 checksum
 *   156   1 type        257   8 magic and version           345 155 prefix of the name (POSIX only)
 * Bodies are padded to whole blocks. An all-zero block ends the archive; so does the end of the
 * file between two members, but as a cut archive looks the same, nnc_tar_has_end() tells them
 * apart.
 *
 * Types: 0, 7 and NUL are regular files; 1..6 are links, devices, folders and pipes and have no
 * body; x is a pax header, whose path and size hold for the next entry that is no extension header
 * itself (applying the size to an extension header is how readers were made to disagree about where
 * members begin); L is GNU's long name; g, K and the rest are skipped.
 *
 * Reading: one window. While headers follow closely it doubles up to WINDOW_MAX, so small members
 * cost few system calls; after a jump it is WINDOW_MIN again, so the bodies of large ones are not
 * read.
 *
 * Invariants: offsets only grow, each step by at least one block, so every archive ends; at most
 * EXTENSIONS_MAX extension headers precede a member; memory is bounded whatever the sizes say.
 *
 * Source: POSIX.1-2017 pax, "ustar Interchange Format"; GNU tar manual, "Basic Tar Format". */
#include "coordinator/dataset_tar_reader.h"

#include "base/err.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK          512u
#define WINDOW_MIN     4096u
#define WINDOW_MAX     (1u << 20)
#define PAX_BYTES_MAX  65536u
#define EXTENSIONS_MAX 16

_Static_assert(WINDOW_MAX >= NNC_TAR_BODY_MAX && WINDOW_MAX >= PAX_BYTES_MAX, "bodies fit");

struct header {
    char name[100];
    char mode[8], uid[8], gid[8];
    char size[12];
    char mtime[12];
    char checksum[8];
    char type;
    char link[100];
    char magic[8];
    char user[32], group[32], device_major[8], device_minor[8];
    char prefix[155];
    char pad[12];
};
_Static_assert(sizeof(struct header) == BLOCK, "tar header layout");

/* What extension headers say about the next entry. */
struct extension {
    bool has_name, has_size;
    uint64_t size;
    char name[NNC_TAR_NAME_MAX + 1];
};

struct nnc_tar_reader {
    const struct nnc_tar_source *source;
    uint64_t next; /* offset of the next header */
    bool has_end;  /* the all-zero block was met */
    unsigned char *window;
    uint64_t window_offset;
    size_t window_bytes;
    size_t window_wanted;
    struct extension extension;
    char name[NNC_TAR_NAME_MAX + 1];
};

/* One entry as its header says, before extensions. */
struct entry {
    const struct header *header; /* in the window, valid until it moves */
    uint64_t offset;             /* of the header */
    uint64_t size;
    char type;
};

static int fault(const struct nnc_tar_reader *reader, uint64_t offset, const char *what) {
    return nnc_fail(-NNC_E_FORMAT, "%s: offset %" PRIu64 ": %s", reader->source->name, offset,
                    what);
}

int nnc_tar_open(const struct nnc_tar_source *source, struct nnc_tar_reader **ret_reader) {
    struct nnc_tar_reader *reader = calloc(1, sizeof(*reader));
    /* No read is larger than the archive, so a small one needs no large window. */
    size_t room = source->size < WINDOW_MAX ? (size_t)source->size + 1 : WINDOW_MAX;
    unsigned char *window = malloc(room);
    if (reader == NULL || window == NULL) {
        free(reader);
        free(window);
        return nnc_fail(-ENOMEM, "%s: no memory to read it", source->name);
    }
    reader->source = source;
    reader->window = window;
    reader->window_wanted = WINDOW_MIN;
    *ret_reader = reader;
    return 0;
}

void nnc_tar_close(struct nnc_tar_reader *reader) {
    if (reader != NULL) {
        free(reader->window);
        free(reader);
    }
}

bool nnc_tar_has_end(const struct nnc_tar_reader *reader) {
    return reader->has_end;
}

/* Fill the window from offset on, with at least `bytes` or whatever the archive still has. */
static int fill_window(struct nnc_tar_reader *reader, uint64_t offset, size_t bytes) {
    uint64_t window_end = reader->window_offset + reader->window_bytes;
    bool is_near = offset >= reader->window_offset && offset < window_end + BLOCK * 64;
    size_t wanted = is_near ? reader->window_wanted * 2 : WINDOW_MIN;
    wanted = wanted > WINDOW_MAX ? WINDOW_MAX : wanted;
    reader->window_wanted = wanted;
    wanted = wanted < bytes ? bytes : wanted;
    uint64_t rest = reader->source->size - offset;
    wanted = wanted > rest ? (size_t)rest : wanted;
    reader->window_offset = offset;
    reader->window_bytes = 0;
    while (reader->window_bytes < wanted) {
        size_t at = reader->window_bytes;
        ssize_t got = reader->source->read(reader->source->context, reader->window + at,
                                           wanted - at, offset + at);
        if (got < 0 && errno != EINTR) {
            return nnc_fail_errno("%s: offset %" PRIu64, reader->source->name, offset + at);
        }
        if (got == 0) {
            return fault(reader, offset + at, "the file became shorter while it was read");
        }
        reader->window_bytes += got > 0 ? (size_t)got : 0;
    }
    return 0;
}

int nnc_tar_read(struct nnc_tar_reader *reader, uint64_t offset, size_t size,
                 const unsigned char **ret_data) {
    assert(size <= NNC_TAR_BODY_MAX);
    if (offset > reader->source->size || size > reader->source->size - offset) {
        return fault(reader, offset, "the archive ends inside a member");
    }
    bool inside = offset >= reader->window_offset &&
                  offset - reader->window_offset <= reader->window_bytes &&
                  size <= reader->window_bytes - (offset - reader->window_offset);
    int code = inside ? 0 : fill_window(reader, offset, size);
    if (code >= 0) {
        *ret_data = reader->window + (offset - reader->window_offset);
    }
    return code;
}

/* Both sums that are in use: bytes taken as unsigned (POSIX) and as signed (some old programs). */
static bool checksum_holds(const struct header *header, uint64_t written) {
    const unsigned char *bytes = (const unsigned char *)header;
    int64_t sum_unsigned = 0;
    int64_t sum_signed = 0;
    size_t first = offsetof(struct header, checksum);
    for (size_t i = 0; i < BLOCK; i++) {
        unsigned char byte = i >= first && i < first + sizeof(header->checksum) ? ' ' : bytes[i];
        sum_unsigned += byte;
        sum_signed += (signed char)byte;
    }
    return (int64_t)written == sum_unsigned || (int64_t)written == sum_signed;
}

static bool parse_base256(const unsigned char *field, size_t length, uint64_t *ret_value) {
    uint64_t value = field[0] & 0x7fu;
    if ((value & 0x40u) != 0) {
        return false; /* negative */
    }
    for (size_t i = 1; i < length; i++) {
        if (value > (uint64_t)INT64_MAX >> 8) {
            return false;
        }
        value = value << 8 | field[i];
    }
    *ret_value = value;
    return true;
}

/* A number field: base 256 when its first bit is set, else octal digits ended by space or NUL. */
static bool parse_number(const char *text, size_t length, uint64_t *ret_value) {
    const unsigned char *field = (const unsigned char *)text;
    if ((field[0] & 0x80u) != 0) {
        return parse_base256(field, length, ret_value);
    }
    size_t at = 0;
    while (at < length && field[at] == ' ') {
        at++;
    }
    uint64_t value = 0;
    for (; at < length && field[at] >= '0' && field[at] <= '7'; at++) {
        value = value * 8 + (field[at] - '0'); /* 12 digits fit */
    }
    if (at < length && field[at] != ' ' && field[at] != '\0') {
        return false;
    }
    *ret_value = value;
    return true;
}

static bool is_zero(const unsigned char *block, size_t bytes) {
    for (size_t i = 0; i < bytes; i++) {
        if (block[i] != 0) {
            return false;
        }
    }
    return true;
}

/* Entries of these types have no body, whatever their size field says. */
static bool has_body(char type) {
    return type < '1' || type > '6';
}

/* Read the header at reader->next. 1 an entry, 0 the end. */
static int read_header(struct nnc_tar_reader *reader, struct entry *ret_entry) {
    uint64_t offset = reader->next;
    if (offset > reader->source->size) {
        return fault(reader, reader->source->size, "the archive ends inside a member's padding");
    }
    if (offset == reader->source->size) {
        return 0;
    }
    uint64_t rest = reader->source->size - offset;
    size_t bytes = rest < BLOCK ? (size_t)rest : BLOCK;
    const unsigned char *block;
    int code = nnc_tar_read(reader, offset, bytes, &block);
    if (code < 0) {
        return code;
    }
    if (is_zero(block, bytes)) {
        reader->has_end = true;
        return 0;
    }
    if (bytes < BLOCK) {
        return fault(reader, offset, "the archive ends inside a header");
    }
    const struct header *header = (const void *)block;
    uint64_t checksum;
    if (!parse_number(header->checksum, sizeof(header->checksum), &checksum) ||
        !checksum_holds(header, checksum)) {
        return fault(reader, offset, "not a tar header (its checksum is wrong)");
    }
    struct entry entry = {.header = header, .offset = offset, .type = header->type};
    if (!parse_number(header->size, sizeof(header->size), &entry.size)) {
        return fault(reader, offset, "the member's size is not a number or negative");
    }
    *ret_entry = entry;
    return 1;
}

/* Set reader->next behind a body of size bytes, which must lie in the archive. */
static int skip_body(struct nnc_tar_reader *reader, uint64_t header_offset, uint64_t size) {
    uint64_t body = header_offset + BLOCK;
    if (size > reader->source->size - body) {
        return fault(reader, header_offset, "the member's size goes beyond the end of the archive");
    }
    reader->next = body + (size + BLOCK - 1) / BLOCK * BLOCK;
    return 0;
}

static int set_long_name(struct nnc_tar_reader *reader, uint64_t offset, const char *name,
                         size_t length) {
    if (length > NNC_TAR_NAME_MAX || memchr(name, '\0', length) != NULL) {
        return fault(reader, offset, "a name longer than 4095 bytes or with a zero byte in it");
    }
    memcpy(reader->extension.name, name, length);
    reader->extension.name[length] = '\0';
    reader->extension.has_name = length > 0;
    return 0;
}

static int set_pax_size(struct nnc_tar_reader *reader, uint64_t offset, const char *digits,
                        size_t length) {
    uint64_t size = 0;
    bool good = length > 0 && length <= 18; /* 18 digits fit */
    for (size_t i = 0; good && i < length; i++) {
        good = digits[i] >= '0' && digits[i] <= '9';
        size = size * 10 + (uint64_t)(digits[i] - '0');
    }
    if (!good) {
        return fault(reader, offset, "the pax size is not a number or too large");
    }
    reader->extension.has_size = true;
    reader->extension.size = size;
    return 0;
}

/* One record "KEY=VALUE" without its length and newline. */
static int take_pax_record(struct nnc_tar_reader *reader, uint64_t offset, const char *record,
                           size_t length) {
    const char *equals = memchr(record, '=', length);
    if (equals == NULL) {
        return fault(reader, offset, "a pax record without =");
    }
    size_t key = (size_t)(equals - record);
    const char *value = equals + 1;
    size_t value_length = length - key - 1;
    if (key == 4 && memcmp(record, "path", 4) == 0) {
        return set_long_name(reader, offset, value, value_length);
    }
    if (key == 4 && memcmp(record, "size", 4) == 0) {
        return set_pax_size(reader, offset, value, value_length);
    }
    if (key >= 11 && memcmp(record, "GNU.sparse.", 11) == 0) {
        return fault(reader, offset, "sparse members are not read: make the archive without them");
    }
    return 0;
}

/* Records are "LENGTH KEY=VALUE\n", LENGTH counting all of it. */
static int take_pax(struct nnc_tar_reader *reader, uint64_t offset, uint64_t size) {
    if (size > PAX_BYTES_MAX) {
        return fault(reader, offset, "a pax header larger than 64 KiB");
    }
    const unsigned char *data;
    int code = nnc_tar_read(reader, offset + BLOCK, (size_t)size, &data);
    const char *at = (const char *)data;
    size_t left = (size_t)size;
    while (code >= 0 && left > 0) {
        size_t length = 0;
        size_t digits = 0;
        while (digits < left && digits < 6 && at[digits] >= '0' && at[digits] <= '9') {
            length = length * 10 + (size_t)(at[digits++] - '0');
        }
        if (digits == 0 || digits >= left || at[digits] != ' ' || length > left ||
            length < digits + 2 || at[length - 1] != '\n') {
            return fault(reader, offset, "a malformed pax record");
        }
        code = take_pax_record(reader, offset, at + digits + 1, length - digits - 2);
        at += length;
        left -= length;
    }
    return code;
}

static int take_gnu_name(struct nnc_tar_reader *reader, uint64_t offset, uint64_t size) {
    if (size > NNC_TAR_NAME_MAX + 1) {
        return fault(reader, offset, "a name longer than 4095 bytes");
    }
    const unsigned char *data;
    int code = nnc_tar_read(reader, offset + BLOCK, (size_t)size, &data);
    if (code < 0) {
        return code;
    }
    const char *name = (const char *)data;
    return set_long_name(reader, offset, name, strnlen(name, (size_t)size));
}

/* 1 when the entry was an extension header and is done with. */
static int take_extension(struct nnc_tar_reader *reader, const struct entry *entry) {
    if (strchr("xLgK", entry->type) == NULL || entry->type == '\0') {
        return 0;
    }
    int code = skip_body(reader, entry->offset, entry->size);
    if (code >= 0 && entry->type == 'x') {
        code = take_pax(reader, entry->offset, entry->size);
    } else if (code >= 0 && entry->type == 'L') {
        code = take_gnu_name(reader, entry->offset, entry->size);
    }
    return code < 0 ? code : 1;
}

/* The entry's own name into reader->name, which has room for prefix, slash and name. */
static void join_name(struct nnc_tar_reader *reader, const struct header *header) {
    bool is_posix = memcmp(header->magic, "ustar\0", 6) == 0;
    int prefix = is_posix ? (int)strnlen(header->prefix, sizeof(header->prefix)) : 0;
    int name = (int)strnlen(header->name, sizeof(header->name));
    snprintf(reader->name, sizeof(reader->name), "%.*s%s%.*s", prefix, header->prefix,
             prefix > 0 ? "/" : "", name, header->name);
}

/* Drop leading "./"; refuse what would lead out of the folder the archive is unpacked in. */
static int clean_name(struct nnc_tar_reader *reader, uint64_t offset, const char **ret_name) {
    const char *name = reader->name;
    while (name[0] == '.' && name[1] == '/') {
        name += 2;
        while (name[0] == '/') {
            name++;
        }
    }
    if (name[0] == '/') {
        return fault(reader, offset, "the member's name is absolute");
    }
    for (const char *at = name; (at = strstr(at, "..")) != NULL; at += 2) {
        if ((at == name || at[-1] == '/') && (at[2] == '/' || at[2] == '\0')) {
            return fault(reader, offset, "the member's name has a .. in it");
        }
    }
    *ret_name = name;
    return 0;
}

static int make_member(struct nnc_tar_reader *reader, const struct entry *entry,
                       struct nnc_tar_member *ret_member) {
    struct extension *extension = &reader->extension;
    if (entry->type == 'S') {
        return fault(reader, entry->offset,
                     "sparse members are not read: make the archive without them");
    }
    if (extension->has_name) {
        memcpy(reader->name, extension->name, sizeof(reader->name));
    } else {
        join_name(reader, entry->header);
    }
    uint64_t size = extension->has_size ? extension->size : entry->size;
    size = has_body(entry->type) ? size : 0;
    extension->has_name = extension->has_size = false;
    struct nnc_tar_member member = {
        .header_offset = entry->offset, .offset = entry->offset + BLOCK, .size = size};
    int code = skip_body(reader, entry->offset, size);
    if (code >= 0) {
        code = clean_name(reader, entry->offset, &member.name);
    }
    if (code < 0) {
        return code;
    }
    size_t length = strlen(member.name);
    bool is_folder = length == 0 || member.name[length - 1] == '/'; /* as before POSIX */
    member.is_regular =
        (entry->type == '0' || entry->type == '7' || entry->type == '\0') && !is_folder;
    *ret_member = member;
    return 1;
}

int nnc_tar_next(struct nnc_tar_reader *reader, struct nnc_tar_member *ret_member) {
    for (int extensions = 0; extensions <= EXTENSIONS_MAX; extensions++) {
        struct entry entry = {0};
        int code = read_header(reader, &entry);
        if (code <= 0) {
            return code;
        }
        code = take_extension(reader, &entry);
        if (code < 0) {
            return code;
        }
        if (code == 0) {
            return make_member(reader, &entry, ret_member);
        }
    }
    return fault(reader, reader->next, "too many extension headers before a member");
}
