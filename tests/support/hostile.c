/* SPDX-License-Identifier: Apache-2.0 */
/* Damage is a function of the file's number. The good originals come from the libraries' encoders
 * (image_fixture.h); headers of bombs are written by hand. */
#include "tests/support/hostile.h"

#include "base/bytes.h"
#include "base/rng.h"
#include "data/jpeg_write.h"
#include "ipc/sliced.h"
#include "loader/jpeg.h"
#include "loader/jpeg_restart.h"
#include "tests/support/image_fixture.h"

#include <criterion/criterion.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

struct maker {
    const char *folder;
    struct hostile_count count;
};

static void put(struct maker *maker, bool bad, const char *what, const void *bytes, size_t size) {
    char path[1000];
    snprintf(path, sizeof(path), "%s/%s-%04u-%s", maker->folder, bad ? "bad" : "odd",
             maker->count.files++, what);
    maker->count.bad += bad;
    FILE *file = fopen(path, "wb");
    cr_assert_not_null(file, "%s", path);
    cr_assert_eq(fwrite(bytes, 1, size, file), size);
    cr_assert_eq(fclose(file), 0);
}

/* --- damage to good files -------------------------------------------------------------------- */

enum {
    ORIGINALS = 6,
    JPEGS = 3, /* the first ones */
    CUTS = 45,
    FLIPS = 35,
};

static struct fixture_file original(uint32_t number, const char **ret_what) {
    static const struct fixture_jpeg jpegs[JPEGS] = {
        {161, 147, FIXTURE_YCC, 2, 2, false, 0},
        {161, 147, FIXTURE_YCC, 2, 2, true, 0},
        {133, 121, FIXTURE_CMYK, 1, 1, false, 1},
    };
    static const struct fixture_png pngs[] = {{61, 47, 8, 2}, {40, 40, 2, 3}, {60, 50, 8, 6, 1}};
    static const char *const names[] = {"baseline.jpg", "progressive.jpg", "cmyk.jpeg",
                                        "colour.png",   "palette.png",     "interlaced.png"};
    *ret_what = names[number];
    return number < JPEGS ? fixture_jpeg_write(&jpegs[number])
                          : fixture_png_write(&pngs[number - JPEGS]);
}

static void put_damaged(struct maker *maker, uint32_t number) {
    const char *what;
    struct nnc_rng rng = nnc_rng_make(17, NNC_RNG_SYNTHETIC, 3, number);
    struct fixture_file file = original(number, &what);
    for (size_t i = 0; i < CUTS; i++) {
        /* Rows of a PNG that no crop needs are not looked at. */
        put(maker, number < JPEGS, what, file.bytes, i * (file.size - 64) / CUTS);
    }
    for (int i = 0; i < FLIPS; i++) {
        struct fixture_file hurt = fixture_file_copy(file.bytes, file.size);
        uint32_t range = i % 2 == 0 ? (uint32_t)file.size : 200;
        for (uint32_t k = 0; k <= nnc_rng_below(&rng, 6); k++) {
            hurt.bytes[nnc_rng_below(&rng, range)] ^= (uint8_t)(1u << nnc_rng_below(&rng, 8));
        }
        put(maker, false, what, hurt.bytes, hurt.size);
        fixture_free(&hurt);
    }
    put(maker, false, "wrong-ending.png", file.bytes, file.size);
    fixture_free(&file);
}

/* --- bombs of JPEG --------------------------------------------------------------------------- */

static size_t find_marker(const struct fixture_file *file, uint8_t marker) {
    for (size_t i = 0; i + 1 < file->size; i++) {
        if (file->bytes[i] == 0xff && file->bytes[i + 1] == marker) {
            return i;
        }
    }
    cr_assert_fail("no marker %02x", marker);
    return 0;
}

static void put_jpeg_sizes(struct maker *maker) {
    static const uint32_t sizes[][2] = {{65535, 65535}, {65501, 1}, {1, 65501},    {0, 16},
                                        {12000, 12000}, {16, 0},    {65500, 65500}};
    const struct fixture_jpeg how = {16, 16, FIXTURE_YCC, 1, 1, false, 0};
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        struct fixture_file file = fixture_jpeg_write(&how);
        size_t frame = find_marker(&file, 0xc0);
        nnc_put_big16(file.bytes + frame + 5, sizes[i][1]);
        nnc_put_big16(file.bytes + frame + 7, sizes[i][0]);
        put(maker, true, "many-pixels.jpg", file.bytes, file.size);
        fixture_free(&file);
    }
}

/* The last scan again and again. */
static void put_scans(struct maker *maker) {
    const struct fixture_jpeg how = {64, 64, FIXTURE_GREY, 1, 1, true, 0};
    struct fixture_file file = fixture_jpeg_write(&how);
    size_t last = 0;
    for (size_t i = 0; i + 1 < file.size; i++) {
        last = file.bytes[i] == 0xff && file.bytes[i + 1] == 0xda ? i : last;
    }
    size_t scan = file.size - 2 - last, copies = 3000;
    uint8_t *bomb = malloc(file.size + copies * scan);
    memcpy(bomb, file.bytes, file.size - 2);
    for (size_t i = 0; i < copies; i++) {
        memcpy(bomb + file.size - 2 + i * scan, file.bytes + last, scan);
    }
    memcpy(bomb + file.size - 2 + copies * scan, "\xff\xd9", 2);
    put(maker, true, "many-scans.jpg", bomb, file.size + copies * scan);
    free(bomb);
    fixture_free(&file);
}

/* Megabytes of segments in front of an image, or of nothing. */
static void put_headers(struct maker *maker) {
    const struct fixture_jpeg how = {40, 40, FIXTURE_YCC, 2, 2, false, 0};
    enum {
        SEGMENTS = 40,
        SEGMENT = 65535 + 2
    };
    struct fixture_file file = fixture_jpeg_write(&how);
    size_t front = (size_t)SEGMENTS * SEGMENT;
    uint8_t *bytes = calloc(1, 2 + front + file.size);
    memcpy(bytes, "\xff\xd8", 2);
    for (size_t i = 0; i < SEGMENTS; i++) {
        memcpy(bytes + 2 + i * SEGMENT, i % 2 == 0 ? "\xff\xe1\xff\xff" : "\xff\xfe\xff\xff", 4);
    }
    memcpy(bytes + 2 + front, file.bytes + 2, file.size - 2);
    put(maker, false, "long-header.jpg", bytes, front + file.size);
    put(maker, true, "header-alone.jpg", bytes, 2 + front);
    free(bytes);
    fixture_free(&file);
}

/* --- the index of JPEG ----------------------------------------------------------------------- */

/* A restart-indexed JPEG with each field of its index changed, and indexes that lie or are twice.
 */
static void put_indexes(struct maker *maker) {
    static const size_t places[] = {0, 8, 11, 13, 14, 16, 19, 20, 21, 40, 41};
    const struct fixture_jpeg how = {500, 375, FIXTURE_YCC, 2, 2, false, 0};
    struct fixture_file file = fixture_jpeg_write(&how);
    struct nnc_jpeg_writer *writer;
    struct nnc_jpeg_file made;
    struct nnc_jpeg_restart restart;
    cr_assert_eq(nnc_jpeg_writer_create(&writer), 0);
    cr_assert_eq(nnc_jpeg_transcode(writer, file.bytes, file.size, &made), 0);
    cr_assert_gt(made.size, NNC_SLICED_MIN);
    cr_assert_eq(nnc_jpeg_restart_parse(made.bytes, made.size, made.size, &restart), 1);
    size_t body = restart.segment_at + 4, segment = restart.segment_size;
    uint8_t *bytes = malloc(made.size + segment);
    for (size_t i = 0; i < 3 * sizeof(places) / sizeof(places[0]); i++) {
        memcpy(bytes, made.bytes, made.size);
        bytes[body + places[i / 3]] ^= (uint8_t)(1u << (i % 3 * 3));
        put(maker, false, "index.jpg", bytes, made.size);
    }
    for (size_t i = 0; i < 20; i++) { /* a byte from one piece to its neighbour: the sum stays */
        memcpy(bytes, made.bytes, made.size);
        bytes[body + NNC_RESTART_FIXED + 40 * i + 1]++;
        bytes[body + NNC_RESTART_FIXED + 40 * i + 3]--;
        put(maker, false, "lying-index.jpg", bytes, made.size);
    }
    memcpy(bytes, made.bytes, restart.segment_at + segment);
    memset(bytes + body + NNC_RESTART_FIXED, 0xff, segment - 4 - NNC_RESTART_FIXED);
    memcpy(bytes + restart.segment_at + segment, made.bytes + restart.segment_at,
           made.size - restart.segment_at);
    nnc_put_big32(bytes + body + segment + 8, (uint32_t)(restart.head_size + segment));
    put(maker, false, "two-indexes.jpg", bytes, made.size + segment);
    put(maker, true, "index-alone.jpg", made.bytes, restart.head_size);
    free(bytes);
    fixture_free(&file);
    nnc_jpeg_writer_destroy(writer);
}

/* --- PNG ------------------------------------------------------------------------------------- */

static size_t put_chunk(uint8_t *out, const char *type, const uint8_t *body, size_t size) {
    nnc_put_big32(out, (uint32_t)size);
    memcpy(out + 4, type, 4);
    memcpy(out + 8, body, size);
    nnc_put_big32(out + 8 + size, (uint32_t)crc32(0, out + 4, (uInt)size + 4));
    return size + 12;
}

/* A grey PNG of zeros: `rows` of them are there, whatever the header says. */
static void put_zeros(struct maker *maker, bool bad, uint32_t width, uint32_t height, size_t rows) {
    uint8_t header[13] = {0};
    uLong zeros_size = (uLong)(rows * ((size_t)width + 1));
    uLong size = compressBound(zeros_size);
    uint8_t *zeros = calloc(1, zeros_size + 1), *packed = malloc(size);
    cr_assert_eq(compress(packed, &size, zeros, zeros_size), Z_OK);
    nnc_put_big32(header, width);
    nnc_put_big32(header + 4, height);
    header[8] = 8;
    uint8_t *bytes = malloc(size + 200);
    memcpy(bytes, "\x89PNG\r\n\x1a\n", 8);
    size_t at = 8;
    at += put_chunk(bytes + at, "IHDR", header, sizeof(header));
    at += put_chunk(bytes + at, "IDAT", packed, size);
    at += put_chunk(bytes + at, "IEND", header, 0);
    put(maker, bad, "zeros.png", bytes, at);
    free(bytes);
    free(packed);
    free(zeros);
}

static void put_pngs(struct maker *maker) {
    const struct fixture_png how = {33, 21, 8, 2};
    struct fixture_file file = fixture_png_write(&how);
    static const size_t places[] = {29, 32, 16, 20, 24, 25, 28};
    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
        file.bytes[places[i]] ^= 0x40; /* the header or its checksum */
        put(maker, true, "checksum.png", file.bytes, file.size);
        file.bytes[places[i]] ^= 0x40;
    }
    fixture_free(&file);
    put_zeros(maker, true, 65500, 65500, 10);
    put_zeros(maker, true, 0x7fffffff, 1, 0);
    put_zeros(maker, true, 0, 7, 7);
    put_zeros(maker, false, 6000, 6000, 6000); /* legal, and a thousand times its size */
    put_zeros(maker, false, 300, 300, 3000);   /* more rows than the header says */
}

/* --- PNM, BMP and others --------------------------------------------------------------------- */

static void put_pnms(struct maker *maker) {
    static const char *const headers[] = {
        "P6\n99999 99999\n255\n",
        "P6\n65500 65500\n255\n",
        "P5\n4294967295 4294967297\n255\n",
        "P5\n99999999999999999999 1\n255\n",
        "P6\n-5 -5\n255\n",
        "P6\n0 0\n255\n",
        "P6\n4 4\n65535\n",
        "P6\n4 4\n0\n",
        "P6\n4 4",
        "P6\n",
        "P5 # a comment without end",
        "P6\n4 4\n255\nshort",
        "P7\nWIDTH 4\nHEIGHT 4\n",
        "P3\n1 1\n255\n1 2 3\n",
    };
    for (size_t i = 0; i < sizeof(headers) / sizeof(headers[0]); i++) {
        put(maker, true, "header.ppm", headers[i], strlen(headers[i]));
        put(maker, true, "header.jpg", headers[i], strlen(headers[i]));
    }
}

static void put_bmps(struct maker *maker) {
    static const int32_t rows[][4] = {
        /* width, height, bits, offset of the pixels */
        {-8, 8, 24, 54},       {8, INT32_MIN, 24, 54}, {INT32_MAX, INT32_MAX, 32, 54},
        {8, 8, 24, INT32_MAX}, {8, 8, 24, -1},         {8, 8, 7, 54},
        {8, 8, 8, 54},         {0, 8, 24, 54},         {65500, 65500, 24, 54},
        {8, -9, 24, 54},       {INT32_MIN, 1, 24, 54}, {8, 8, 32, 54},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        uint8_t bytes[54 + 8 * 8 * 3] = "BM";
        const int offsets[] = {18, 22, 28, 10};
        for (int k = 0; k < 4; k++) {
            uint32_t value = (uint32_t)rows[i][k];
            for (int b = 0; b < (k == 2 ? 2 : 4); b++) {
                bytes[offsets[k] + b] = (uint8_t)(value >> (8 * b));
            }
        }
        bytes[14] = 40;
        bytes[26] = 1;
        put(maker, true, "header.bmp", bytes, sizeof(bytes));
        put(maker, true, "header.jpg", bytes, sizeof(bytes));
    }
}

static void put_others(struct maker *maker) {
    static const char *const texts[] = {"",
                                        "\n",
                                        "this is no image",
                                        "GIF89a",
                                        "RIFF....WEBP",
                                        "II*",
                                        "\xff\xd8",
                                        "\xff\xd8\xff",
                                        "\xff\xd8\xff\xd9",
                                        "BM",
                                        "P",
                                        "\x89PNG\r\n\x1a\n",
                                        "8BPS",
                                        "%PDF-1.4",
                                        "\x1f\x8b\x08",
                                        "PK\x03\x04"};
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        put(maker, true, "text.jpg", texts[i], strlen(texts[i]));
        put(maker, true, "text.png", texts[i], strlen(texts[i]));
    }
}

static void put_no_files(const struct maker *maker) {
    char path[1000];
    snprintf(path, sizeof(path), "%s/not-a-pipe.jpg", maker->folder);
    cr_assert_eq(mkfifo(path, 0600), 0);
    snprintf(path, sizeof(path), "%s/not-an-image.jpg", maker->folder);
    cr_assert_eq(mkdir(path, 0700), 0);
    static const char *const links[][2] = {{"/etc/passwd", "not-ours.jpg"},
                                           {"/dev/zero", "not-finite.jpg"},
                                           {"../../../../../../../../etc/passwd", "not-here.jpg"},
                                           {"not-round.jpg", "not-round.jpg"},
                                           {"nowhere", "not-there.jpg"}};
    for (size_t i = 0; i < sizeof(links) / sizeof(links[0]); i++) {
        snprintf(path, sizeof(path), "%s/%s", maker->folder, links[i][1]);
        cr_assert_eq(symlink(links[i][0], path), 0);
    }
}

void hostile_make(const char *folder, struct hostile_count *ret_count) {
    struct maker maker = {.folder = folder};
    for (uint32_t i = 0; i < ORIGINALS; i++) {
        put_damaged(&maker, i);
    }
    put_jpeg_sizes(&maker);
    put_scans(&maker);
    put_headers(&maker);
    put_indexes(&maker);
    put_pngs(&maker);
    put_pnms(&maker);
    put_bmps(&maker);
    put_others(&maker);
    put_no_files(&maker);
    cr_assert_geq(maker.count.files, 500);
    *ret_count = maker.count;
}
