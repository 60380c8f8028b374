/* SPDX-License-Identifier: Apache-2.0 */
/* Writes the first inputs of targets whose inputs are made, not found: usage: make_corpus FOLDER,
 * where FOLDER/restart, FOLDER/transcode, FOLDER/classes and FOLDER/wire are made. What is in
 * corpus/ of these names came from here. */
#include "data/jpeg_write.h"
#include "ipc/handshake.h"
#include "loader/jpeg_restart.h"
#include "tests/support/image_fixture.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static const char *folder;

static void put(const char *target, const char *name, const void *head, size_t head_bytes,
                const struct fixture_file *file) {
    char path[1000];
    snprintf(path, sizeof(path), "%s/%s", folder, target);
    mkdir(path, 0777);
    snprintf(path, sizeof(path), "%s/%s/%s", folder, target, name);
    FILE *out = fopen(path, "wb");
    assert(out != NULL);
    fwrite(head, 1, head_bytes, out);
    fwrite(file->bytes, 1, file->size, out);
    fclose(out);
}

static const struct {
    const char *name;
    struct fixture_jpeg how;
} jpegs[] = {
    {"colour", {83, 50, FIXTURE_YCC, 2, 2, false, 0}},
    {"narrow-rest", {67, 33, FIXTURE_YCC, 2, 1, false, 0}},
    {"grey", {41, 25, FIXTURE_GREY, 1, 1, false, 0}},
    {"cmyk", {33, 20, FIXTURE_CMYK, 1, 1, false, 0}},
    {"progressive", {49, 35, FIXTURE_YCC, 2, 2, true, 0}},
    {"restarts", {49, 35, FIXTURE_YCC, 1, 2, false, 1}},
};

static void put_jpeg(size_t i) {
    struct nnc_jpeg_writer *writer;
    struct nnc_jpeg_file made;
    struct fixture_file file = fixture_jpeg_write(&jpegs[i].how);
    put("transcode", jpegs[i].name, "", 0, &file);
    if (nnc_jpeg_writer_create(&writer) < 0 ||
        nnc_jpeg_transcode(writer, file.bytes, file.size, &made) < 0) {
        abort();
    }
    struct fixture_file indexed = fixture_file_copy(made.bytes, made.size);
    const uint8_t options[7] = {(uint8_t)(i == 3 ? 3 : 1), 0, 0, 200, 60, 40, 100};
    put("restart", jpegs[i].name, options, sizeof(options), &indexed);
    fixture_free(&indexed);
    fixture_free(&file);
    nnc_jpeg_writer_destroy(writer);
}

static void put_text(const char *target, const char *name, const void *head, size_t head_bytes,
                     const char *text, size_t size) {
    struct fixture_file file = fixture_file_copy((const uint8_t *)text, size);
    put(target, name, head, head_bytes, &file);
    fixture_free(&file);
}

/* A client's two messages, and frames; fuzz_wire.c says what the first two bytes are. */
static void put_wire(void) {
    struct {
        char head[8];
        struct nnc_greeting greeting;
        char nonce[32], proof_head[8], proof_tag[32];
    } words = {.head = "NNCH\1", .proof_head = "NNCP\1"};
    words.greeting =
        (struct nnc_greeting){.node = 1, .nodes = 2, .job = "job", .build_id = "build"};
    put_text("wire", "handshake", "\0\0", 2, (const char *)&words, sizeof(words));
    put_text("wire", "handshake-in-pieces", "\1\7", 2, (const char *)&words, sizeof(words));
    static const char stream[] = "\1\0\0\0\4\0\0\0\0\0\0\0\0\0\0\0body"
                                 "no tag is ever right, this one neither.";
    put_text("wire", "frame", "\2\0", 2, stream, sizeof(stream) - 1);
    static const char frames[] = "\1\0\4body\2\0\0\3\0\1x and then what is no frame, \377\377";
    put_text("wire", "frames", "\3\0", 2, frames, sizeof(frames) - 1);
    put_text("wire", "frames-in-pieces", "\3\5", 2, frames, sizeof(frames) - 1);
}

int main(int argc, char **argv) {
    if (argc != 2) {
        fprintf(stderr, "usage: %s FOLDER\n", argv[0]);
        return 2;
    }
    folder = argv[1];
    for (size_t i = 0; i < sizeof(jpegs) / sizeof(jpegs[0]); i++) {
        put_jpeg(i);
    }
    static const uint8_t options[7] = {1, 0, 0, 100, 100, 100, 100};
    static const char grey[] = "P5\n12 9\n255\n"
                               "abcdefghijklabcdefghijklabcdefghijklabcdefghijklabcdefghijkl"
                               "abcdefghijklabcdefghijklabcdefghijklabcdefghijkl";
    put_text("restart", "pgm", options, sizeof(options), grey, sizeof(grey) - 1);
    put_text("classes", "plain", "", 0, "cat\nno such class\n\xc3\xa4rger", 22);
    put_text("classes", "empty-line", "", 0, "a\n\nb\n", 5);
    put_text("classes", "not-text", "", 0, "a\n\xff\n", 4);
    put_wire();
    return 0;
}
