/* SPDX-License-Identifier: Apache-2.0 */
/* Members that show what their sources show, the proof of it, and shards as others read them. */
#include "data/pack_image.h"
#include "data/shard_write.h"

#include "base/err.h"
#include "base/rng.h"
#include "tests/support/fixture.h"
#include "tests/support/image_fixture.h"

#include <archive.h>
#include <archive_entry.h>
#include <criterion/criterion.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>

TestSuite(pack, .init = fixture_begin, .fini = fixture_end);

static const struct nnc_pack_recipe lossless = {.kind = NNC_PACK_JPEG, .channels = 3};

static struct nnc_packer *create(const struct nnc_pack_recipe *recipe) {
    struct nnc_packer *packer;
    cr_assert_eq(nnc_packer_create(recipe, &packer), 0);
    return packer;
}

static struct nnc_pack_source source_of(const struct fixture_file *file) {
    return (struct nnc_pack_source){.bytes = file->bytes, .size = file->size};
}

/* The member, with slack behind it. */
static struct fixture_file make(struct nnc_packer *packer, const struct fixture_file *file,
                                char ret_extension[8]) {
    struct nnc_pack_source source = source_of(file);
    struct nnc_pack_member member;
    cr_assert_eq(nnc_packer_make(packer, &source, &member), 0, "%s", nnc_error_text());
    snprintf(ret_extension, 8, "%s", member.extension);
    return fixture_file_copy(member.bytes, member.size);
}

static void assert_same_pixels(const struct fixture_file *left, const struct fixture_file *right,
                               const char *what) {
    struct nnc_image *image;
    struct fixture_pixels a = {.channels = 3}, b = {.channels = 3};
    cr_assert_eq(nnc_image_create(&image), 0);
    cr_assert_eq(fixture_decode(image, left, true, &a), 0, "%s: %s", what, nnc_error_text());
    cr_assert_eq(fixture_decode(image, right, true, &b), 0, "%s: %s", what, nnc_error_text());
    cr_assert(a.image_width == b.image_width && a.image_height == b.image_height, "%s", what);
    cr_assert_eq(memcmp(a.data, b.data, (size_t)a.image_width * a.image_height * 3), 0,
                 "%s: other pixels", what);
    free(a.data);
    free(b.data);
    nnc_image_destroy(image);
}

static void assert_packs_without_loss(const struct fixture_file *file, const char *wanted,
                                      const char *what) {
    struct nnc_packer *packer = create(&lossless);
    char extension[8];
    struct fixture_file member = make(packer, file, extension);
    cr_assert_str_eq(extension, wanted, "%s", what);
    assert_same_pixels(file, &member, what);
    struct nnc_pack_source source = source_of(file), packed = source_of(&member);
    for (uint64_t number = 0; number < 5; number++) {
        cr_assert_eq(nnc_packer_verify(packer, &source, &packed, number), 0, "%s: %s", what,
                     nnc_error_text());
    }
    fixture_free(&member);
    nnc_packer_destroy(packer);
}

Test(pack, every_kind_of_jpeg_keeps_its_pixels) {
    static const struct {
        const char *what;
        struct fixture_jpeg how;
    } rows[] = {
        {"colours 4:2:0", {331, 255, FIXTURE_YCC, 2, 2, false, 0}},
        {"colours 4:4:4", {200, 150, FIXTURE_YCC, 1, 1, false, 0}},
        {"colours 4:1:1", {201, 150, FIXTURE_YCC, 4, 1, false, 0}},
        {"grey", {331, 255, FIXTURE_GREY, 1, 1, false, 0}},
        {"RGB", {200, 150, FIXTURE_RGB, 1, 1, false, 0}},
        {"CMYK", {200, 150, FIXTURE_CMYK, 1, 1, false, 0}},
        {"YCCK", {200, 150, FIXTURE_YCCK, 2, 2, false, 0}},
        {"progressive", {331, 255, FIXTURE_YCC, 2, 2, true, 0}},
        {"progressive CMYK", {200, 150, FIXTURE_CMYK, 1, 1, true, 0}},
        {"with markers of its own", {331, 255, FIXTURE_YCC, 2, 2, false, 1}},
        {"a single pixel", {1, 1, FIXTURE_YCC, 2, 2, false, 0}},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct fixture_file file = fixture_jpeg_write(&rows[i].how);
        assert_packs_without_loss(&file, "jpg", rows[i].what);
        fixture_free(&file);
    }
}

/* The file cut behind its first `scans` scans, with an end. */
static struct fixture_file keep_scans(const struct fixture_file *file, int scans) {
    size_t end = file->size - 2;
    for (size_t i = 0; i + 1 < file->size; i++) {
        if (file->bytes[i] == 0xff && file->bytes[i + 1] == 0xda && scans-- == 0) {
            end = i;
            break;
        }
    }
    struct fixture_file cut = fixture_file_copy(file->bytes, end + 2);
    memcpy(cut.bytes + end, "\xff\xd9", 2);
    return cut;
}

/* libjpeg smooths such an image, so its coefficients alone do not make its pixels. */
Test(pack, a_progressive_jpeg_without_its_last_scans_keeps_its_pixels) {
    const struct fixture_jpeg how = {331, 255, FIXTURE_YCC, 2, 2, true, 0};
    struct fixture_file file = fixture_jpeg_write(&how);
    for (int scans = 1; scans < 10; scans++) {
        struct fixture_file cut = keep_scans(&file, scans);
        char what[32];
        snprintf(what, sizeof(what), "%d scans", scans);
        assert_packs_without_loss(&cut, "jpg", what);
        fixture_free(&cut);
    }
    fixture_free(&file);
}

/* A scan for each component, luma sampled 4 x 4: too many blocks for a scan of all. */
static struct fixture_file write_separate_scans(void) {
    static const jpeg_scan_info scans[] = {
        {1, {0}, 0, 63, 0, 0}, {1, {1}, 0, 63, 0, 0}, {1, {2}, 0, 63, 0, 0}};
    struct jpeg_compress_struct cinfo;
    struct jpeg_error_mgr errors;
    unsigned char *bytes = NULL;
    unsigned long size = 0;
    uint8_t row[100 * 3];
    JSAMPROW rows[] = {row};
    cinfo.err = jpeg_std_error(&errors);
    jpeg_create_compress(&cinfo);
    jpeg_mem_dest(&cinfo, &bytes, &size);
    cinfo.image_width = 100;
    cinfo.image_height = 70;
    cinfo.input_components = 3;
    cinfo.in_color_space = JCS_RGB;
    jpeg_set_defaults(&cinfo);
    cinfo.comp_info[0].h_samp_factor = cinfo.comp_info[0].v_samp_factor = 4;
    cinfo.scan_info = scans;
    cinfo.num_scans = 3;
    jpeg_start_compress(&cinfo, TRUE);
    for (uint32_t y = 0; y < 70; y++) {
        for (uint32_t i = 0; i < sizeof(row); i++) {
            row[i] = fixture_pattern(i / 3, y, i % 3);
        }
        jpeg_write_scanlines(&cinfo, rows, 1);
    }
    jpeg_finish_compress(&cinfo);
    jpeg_destroy_compress(&cinfo);
    struct fixture_file file = fixture_file_copy(bytes, size);
    free(bytes);
    return file;
}

Test(pack, a_jpeg_that_no_single_scan_can_hold_is_kept_as_it_is) {
    struct fixture_file file = write_separate_scans();
    struct nnc_packer *packer = create(&lossless);
    char extension[8];
    struct fixture_file member = make(packer, &file, extension);
    cr_assert_eq(member.size, file.size);
    cr_assert_eq(memcmp(member.bytes, file.bytes, file.size), 0);
    assert_packs_without_loss(&file, "jpg", "separate scans");
    fixture_free(&member);
    fixture_free(&file);
    nnc_packer_destroy(packer);
}

Test(pack, what_the_loader_cannot_decode_is_bad_though_its_coefficients_can_be_read) {
    const struct fixture_jpeg how = {64, 64, FIXTURE_YCC, 2, 1, false, 0};
    struct fixture_file file = fixture_jpeg_write(&how);
    struct nnc_packer *packer = create(&lossless);
    for (size_t i = 0; i + 1 < file.size; i++) {
        if (file.bytes[i] == 0xff && file.bytes[i + 1] == 0xc0) {
            file.bytes[i + 11] = 0x31; /* three luma samples for two of colour */
            file.bytes[i + 14] = 0x21;
            break;
        }
    }
    struct nnc_pack_source source = source_of(&file);
    struct nnc_pack_member member;
    cr_assert_eq(nnc_packer_make(packer, &source, &member), -NNC_E_FORMAT);
    cr_assert_str_not_empty(nnc_error_text());
    fixture_free(&file);
    nnc_packer_destroy(packer);
}

Test(pack, a_jpeg_without_its_tables_is_bad_whatever_was_packed_before) {
    const struct fixture_jpeg how = {64, 64, FIXTURE_YCC, 2, 1, false, 0};
    struct fixture_file file = fixture_jpeg_write(&how);
    struct nnc_packer *packer = create(&lossless);
    char extension[8];
    struct fixture_file member = make(packer, &file, extension);
    for (size_t i = 0; i + 1 < file.size; i++) {
        if (file.bytes[i] == 0xff && file.bytes[i + 1] == 0xdb) {
            file.bytes[i + 1] = 0xfe; /* a comment now */
        }
    }
    struct nnc_pack_source source = source_of(&file);
    struct nnc_pack_member bad;
    cr_assert_eq(nnc_packer_make(packer, &source, &bad), -NNC_E_FORMAT);
    fixture_free(&file);
    fixture_free(&member);
    nnc_packer_destroy(packer);
}

Test(pack, png_stays_and_other_formats_become_pnm) {
    const struct fixture_png how = {61, 47, 8, 2};
    struct fixture_file png = fixture_png_write(&how);
    assert_packs_without_loss(&png, "png", "PNG");
    static const char header[] = "P6 # a comment\n40 30 255\n";
    uint8_t bytes[sizeof(header) - 1 + 40 * 30 * 3];
    memcpy(bytes, header, sizeof(header) - 1);
    for (size_t i = sizeof(header) - 1; i < sizeof(bytes); i++) {
        bytes[i] = (uint8_t)(i * 7);
    }
    struct fixture_file pnm = fixture_file_copy(bytes, sizeof(bytes));
    assert_packs_without_loss(&pnm, "ppm", "PNM");
    fixture_free(&png);
    fixture_free(&pnm);
}

Test(pack, the_proof_fails_for_a_changed_pixel_of_any_kind) {
    const struct fixture_jpeg how = {200, 150, FIXTURE_YCC, 2, 2, false, 0};
    struct fixture_file file = fixture_jpeg_write(&how);
    const struct nnc_pack_recipe raw = {.kind = NNC_PACK_RAW, .channels = 3};
    const struct nnc_pack_recipe *recipes[] = {&lossless, &raw};
    for (size_t i = 0; i < 2; i++) {
        struct nnc_packer *packer = create(recipes[i]);
        char extension[8];
        struct fixture_file member = make(packer, &file, extension);
        struct nnc_pack_source source = source_of(&file), packed = source_of(&member);
        cr_assert_eq(nnc_packer_verify(packer, &source, &packed, 1), 0, "%s", nnc_error_text());
        member.bytes[member.size * 3 / 4] ^= 0x10;
        cr_assert_eq(nnc_packer_verify(packer, &source, &packed, 1), -NNC_E_FORMAT, "%s",
                     extension);
        fixture_free(&member);
        nnc_packer_destroy(packer);
    }
    fixture_free(&file);
}

Test(pack, the_proof_fails_for_bytes_overwritten_anywhere_in_a_lossy_member) {
    static const struct nnc_pack_recipe recipes[] = {
        {.kind = NNC_PACK_JPEG, .max_side = 120, .channels = 3},
        {.kind = NNC_PACK_JPEG, .quality = 80, .channels = 3},
    };
    const struct fixture_jpeg how = {400, 300, FIXTURE_YCC, 2, 2, false, 0};
    struct fixture_file file = fixture_jpeg_write(&how);
    for (size_t i = 0; i < 2; i++) {
        struct nnc_packer *packer = create(&recipes[i]);
        char extension[8];
        struct fixture_file member = make(packer, &file, extension);
        struct nnc_pack_source source = source_of(&file), packed = source_of(&member);
        for (size_t place = 1; place < 8; place++) {
            uint8_t kept[16], *at = member.bytes + member.size * place / 8 - sizeof(kept);
            cr_assert_eq(nnc_packer_verify(packer, &source, &packed, place), 0, "%s",
                         nnc_error_text());
            memcpy(kept, at, sizeof(kept));
            memset(at, 0x55, sizeof(kept));
            cr_assert_eq(nnc_packer_verify(packer, &source, &packed, place), -NNC_E_FORMAT,
                         "recipe %zu, %zu eighths", i, place);
            memcpy(at, kept, sizeof(kept));
        }
        fixture_free(&member);
        nnc_packer_destroy(packer);
    }
    fixture_free(&file);
}

/* --- shards ---------------------------------------------------------------------------------- */

enum {
    SAMPLES = 7,
};

/* A line of the index: extension, offset, size and name, twice. Returns the number of fields. */
static int parse_line(const char *line, char names[2][100], uint64_t offsets[2],
                      uint64_t sizes[2]) {
    char extension[2][8];
    return sscanf(line, "%7s %" SCNu64 " %" SCNu64 " %99s %7s %" SCNu64 " %" SCNu64 " %99s",
                  extension[0], &offsets[0], &sizes[0], names[0], extension[1], &offsets[1],
                  &sizes[1], names[1]);
}

/* The next member as libarchive sees it equals what the index says, and the file at that place. */
static void assert_member(struct archive *in, const char *name, uint64_t offset, uint64_t size) {
    struct archive_entry *entry;
    uint8_t body[2048], there[2048];
    cr_assert_eq(archive_read_next_header(in, &entry), ARCHIVE_OK, "%s", archive_error_string(in));
    cr_assert_str_eq(archive_entry_pathname(entry), name);
    cr_assert_eq(archive_entry_filetype(entry), AE_IFREG);
    cr_assert_eq((uint64_t)archive_entry_size(entry), size);
    cr_assert_leq(size, sizeof(body));
    cr_assert_eq(archive_read_data(in, body, sizeof(body)), (la_ssize_t)size);
    FILE *file = fopen(fixture_path("s.tar"), "rb");
    cr_assert_eq(fseek(file, (long)offset, SEEK_SET), 0);
    cr_assert_eq(fread(there, 1, size, file), size);
    cr_assert_eq(memcmp(body, there, size), 0, "%s", name);
    fclose(file);
}

static void write_shard(void) {
    struct nnc_shard_writer writer;
    uint8_t bytes[2048];
    cr_assert_eq(nnc_shard_writer_open(fixture_path("s"), &writer), 0, "%s", nnc_error_text());
    for (uint32_t i = 0; i < SAMPLES; i++) {
        static const size_t sizes[SAMPLES] = {1, 511, 512, 513, 1024, 2000, 2048};
        char key[16];
        snprintf(key, sizeof(key), "%09u_x", i);
        memset(bytes, (int)i + 1, sizeof(bytes));
        const struct nnc_pack_member member = {
            .extension = "jpg", .bytes = bytes, .size = sizes[i]};
        cr_assert_eq(nnc_shard_writer_add(&writer, key, &member, i == 3 ? -1 : (int32_t)i * 100),
                     0);
    }
    cr_assert_eq(nnc_shard_writer_finish(&writer), 0);
    cr_assert_eq(nnc_shard_writer_commit(&writer), 0);
    nnc_shard_writer_abandon(&writer);
}

Test(pack, libarchive_finds_the_members_where_the_index_says) {
    char line[400], names[2][100];
    uint64_t offsets[2], sizes[2];
    write_shard();
    struct archive *in = archive_read_new();
    archive_read_support_format_tar(in);
    cr_assert_eq(archive_read_open_filename(in, fixture_path("s.tar"), 10240), ARCHIVE_OK);
    FILE *index = fopen(fixture_path("s.idx"), "r");
    cr_assert_not_null(index);
    cr_assert_not_null(fgets(line, sizeof(line), index));
    cr_assert_str_eq(line, "v1.2 7\n");
    for (uint32_t i = 0; i < SAMPLES; i++) {
        cr_assert_not_null(fgets(line, sizeof(line), index));
        int fields = parse_line(line, names, offsets, sizes);
        cr_assert_eq(fields, i == 3 ? 4 : 8, "%s", line);
        for (int k = 0; k < fields / 4; k++) {
            assert_member(in, names[k], offsets[k], sizes[k]);
        }
    }
    struct archive_entry *entry;
    cr_assert_null(fgets(line, sizeof(line), index));
    cr_assert_eq(archive_read_next_header(in, &entry), ARCHIVE_EOF);
    archive_read_free(in);
    fclose(index);
}
