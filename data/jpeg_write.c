/* SPDX-License-Identifier: Apache-2.0 */
/* Restart-indexed JPEG in two steps.
 *
 *   coefficients or pixels -> libjpeg, a marker every few MCUs -> plain JPEG
 *   plain JPEG -> sizes of its pieces -> the same with the index behind JFIF's or Adobe's segment
 *
 * 1. The interval is the largest divisor up to 4 of the MCUs in a row: a row then is a whole number
 *    of pieces, and the markers cost 1 to 2 % of the bytes while a crop decodes at most three MCUs
 *    too many on each side. Where the sizes of so many pieces would not fit into one segment, the
 *    smallest larger divisor is taken that fits.
 * 2. A piece longer than 65,535 bytes cannot be indexed; such a file goes without index, which
 *    costs speed, never correctness.
 * 3. libjpeg's errors arrive by longjmp in one place for each of the two exported functions, which
 *    have no local that changes after setjmp.
 * 4. What the loader calls a bad image is refused here too: a file that ends early, and too many
 *    scans or pixels (limits of loader/jpeg.h and loader/image.h).
 *
 * 5. Where a decoder does more than transform the coefficients, writing them again would change the
 *    pixels: libjpeg smooths a progressive image whose last scans are missing. Such a file, and
 * what no baseline scan can hold, is refused here and kept as it is by whoever asked.
 *
 * Does not: keep metadata. Source: libjpeg.txt, "Really raw data: DCT coefficients"; ITU-T T.81. */
#include "data/jpeg_write.h"

#include "base/bytes.h"
#include "base/err.h"
#include "ipc/sliced.h"
#include "loader/image.h"
#include "loader/jpeg.h"

#include <assert.h>
#include <errno.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>

#include <jerror.h>

enum {
    INTERVAL_MAX = 4, /* MCUs */
    PIECE_BYTES_MAX = 65535,
    SMOOTHED = 10, /* first coefficients of a block that libjpeg guesses when bits are missing */
};

struct nnc_jpeg_writer {
    struct jpeg_decompress_struct in;
    struct jpeg_compress_struct out;
    struct jpeg_error_mgr errors;
    struct jpeg_progress_mgr progress;
    jmp_buf jump;
    int code;
    uint8_t *plain; /* libjpeg's output */
    unsigned long plain_size;
    uint8_t *file; /* with the index */
    size_t file_room;
    uint16_t *sizes; /* of the pieces */
};

/* ---- what libjpeg calls ---- */

__attribute__((noreturn)) static void on_error(j_common_ptr cinfo) {
    struct nnc_jpeg_writer *writer = cinfo->client_data;
    char text[JMSG_LENGTH_MAX];
    cinfo->err->format_message(cinfo, text);
    writer->code = nnc_fail(-NNC_E_FORMAT, "JPEG: %s", text);
    longjmp(writer->jump, 1);
}

static void on_message(j_common_ptr cinfo, int level) {
    int number = cinfo->err->msg_code;
    if (level < 0 && (number == JWRN_JPEG_EOF || number == JWRN_HIT_MARKER)) {
        on_error(cinfo);
    }
}

static void on_output(j_common_ptr cinfo) {
    (void)cinfo;
}

static void on_progress(j_common_ptr cinfo) {
    struct nnc_jpeg_writer *writer = cinfo->client_data;
    if (!cinfo->is_decompressor) {
        return;
    }
    const struct jpeg_decompress_struct *in = &writer->in;
    if (nnc_jpeg_check_scans(in->input_scan_number, in->image_width, in->image_height) < 0) {
        writer->code = -NNC_E_FORMAT;
        longjmp(writer->jump, 1);
    }
}

/* ---- life ---- */

/* May jump. Anew for each image, so that none gets the tables of the one before. */
static void create_reader(struct nnc_jpeg_writer *writer) {
    jpeg_create_decompress(&writer->in);
    writer->in.client_data = writer;
    writer->in.progress = &writer->progress;
}

int nnc_jpeg_writer_create(struct nnc_jpeg_writer **ret_writer) {
    struct nnc_jpeg_writer *writer = calloc(1, sizeof(*writer));
    if (writer == NULL) {
        return nnc_fail(-ENOMEM, "no memory for a JPEG writer");
    }
    writer->in.err = writer->out.err = jpeg_std_error(&writer->errors);
    writer->errors.error_exit = on_error;
    writer->errors.emit_message = on_message;
    writer->errors.output_message = on_output;
    writer->progress.progress_monitor = on_progress;
    writer->in.client_data = writer->out.client_data = writer;
    if (setjmp(writer->jump) != 0) {
        nnc_jpeg_writer_destroy(writer);
        return -ENOMEM;
    }
    create_reader(writer);
    jpeg_create_compress(&writer->out);
    writer->out.client_data = writer;
    *ret_writer = writer;
    return 0;
}

void nnc_jpeg_writer_destroy(struct nnc_jpeg_writer *writer) {
    if (writer == NULL) {
        return;
    }
    jpeg_destroy_decompress(&writer->in);
    jpeg_destroy_compress(&writer->out);
    free(writer->plain);
    free(writer->file);
    free(writer->sizes);
    free(writer);
}

/* ---- the interval ---- */

/* MCUs of the image about to be written. */
struct grid {
    uint32_t columns, rows;
};

static struct grid grid_of(const struct jpeg_compress_struct *out) {
    uint32_t across = 1, down = 1;
    for (int i = 0; i < out->num_components && out->num_components > 1; i++) {
        uint32_t h = (uint32_t)out->comp_info[i].h_samp_factor;
        uint32_t v = (uint32_t)out->comp_info[i].v_samp_factor;
        across = h > across ? h : across;
        down = v > down ? v : down;
    }
    return (struct grid){
        .columns = (out->image_width + 8 * across - 1) / (8 * across),
        .rows = (out->image_height + 8 * down - 1) / (8 * down),
    };
}

static uint32_t choose_interval(const struct grid *grid) {
    uint32_t interval = INTERVAL_MAX;
    while (grid->columns % interval != 0) {
        interval--;
    }
    uint64_t mcus = (uint64_t)grid->columns * grid->rows;
    while (interval < grid->columns &&
           (mcus / interval > NNC_RESTART_PIECES_MAX || grid->columns % interval != 0)) {
        interval++;
    }
    return interval;
}

/* ---- the index ---- */

/* Where our own output's parts begin: the first segment behind JFIF's and Adobe's, and the first
 * entropy-coded byte. libjpeg wrote these bytes a moment ago. */
static void find_parts(const uint8_t *plain, size_t *ret_segments, size_t *ret_data) {
    size_t at = 2;
    while (plain[at + 1] >= 0xe0 && plain[at + 1] <= 0xef) {
        at += 2 + nnc_big16(plain + at + 2);
    }
    *ret_segments = at;
    while (plain[at + 1] != 0xda) {
        at += 2 + nnc_big16(plain + at + 2);
    }
    *ret_data = at + 2 + nnc_big16(plain + at + 2);
}

/* Sizes of the pieces from data on. Returns their number, 0 when one is too long. */
static uint32_t measure_pieces(struct nnc_jpeg_writer *writer, size_t data, uint32_t room) {
    uint32_t count = 0;
    size_t start = data;
    for (size_t i = data; i + 1 < writer->plain_size; i++) {
        uint8_t next = writer->plain[i + 1];
        bool marker = writer->plain[i] == 0xff && ((next & 0xf8) == 0xd0 || next == 0xd9);
        if (!marker) {
            continue;
        }
        if (i - start > PIECE_BYTES_MAX || count == room) {
            return 0;
        }
        writer->sizes[count++] = (uint16_t)(i - start);
        start = i + 2;
        i++;
    }
    return start == writer->plain_size ? count : 0;
}

static int reserve_file(struct nnc_jpeg_writer *writer, size_t bytes) {
    if (writer->sizes == NULL) {
        writer->sizes = calloc(NNC_RESTART_PIECES_MAX, sizeof(*writer->sizes));
    }
    if (writer->sizes == NULL) {
        return nnc_fail(-ENOMEM, "no memory for a restart index");
    }
    return nnc_image_reserve(&writer->file, &writer->file_room, bytes);
}

/* The index's segment; returns its bytes. */
static size_t put_index(const struct nnc_jpeg_writer *writer, uint32_t pieces, size_t data,
                        uint8_t *out) {
    size_t size = 4 + NNC_RESTART_FIXED + 2 * (size_t)pieces;
    out[0] = 0xff;
    out[1] = NNC_RESTART_MARKER;
    nnc_put_big16(out + 2, (uint32_t)size - 2);
    memcpy(out + 4, NNC_RESTART_ID, NNC_RESTART_ID_BYTES);
    nnc_put_big32(out + 12, (uint32_t)(data + size));
    nnc_put_big16(out + 16, writer->out.restart_interval);
    nnc_put_big16(out + 18, 0);
    nnc_put_big32(out + 20, pieces);
    for (uint32_t i = 0; i < pieces; i++) {
        nnc_put_big16(out + 24 + 2 * (size_t)i, writer->sizes[i]);
    }
    return size;
}

/* From the plain JPEG to the indexed one. */
static int add_index(struct nnc_jpeg_writer *writer, const struct grid *grid,
                     struct nnc_jpeg_file *ret_file) {
    int code = reserve_file(writer, writer->plain_size + 65600);
    if (code < 0) {
        return code;
    }
    size_t segments, data;
    find_parts(writer->plain, &segments, &data);
    uint32_t pieces = measure_pieces(writer, data, NNC_RESTART_PIECES_MAX);
    uint64_t wanted = (uint64_t)grid->columns * grid->rows;
    if (pieces == 0 || (uint64_t)pieces * writer->out.restart_interval != wanted) {
        *ret_file = (struct nnc_jpeg_file){.bytes = writer->plain, .size = writer->plain_size};
        return 0;
    }
    memcpy(writer->file, writer->plain, segments);
    size_t index = put_index(writer, pieces, data, writer->file + segments);
    memcpy(writer->file + segments + index, writer->plain + segments,
           writer->plain_size - segments);
    *ret_file = (struct nnc_jpeg_file){
        .bytes = writer->file, .size = writer->plain_size + index, .pieces = pieces};
    return 0;
}

/* ---- the two ways ---- */

/* Restart markers, once size and components are known. */
static struct grid begin_pieces(struct nnc_jpeg_writer *writer) {
    struct grid grid = grid_of(&writer->out);
    writer->out.optimize_coding = TRUE;
    writer->out.restart_interval = choose_interval(&grid);
    return grid;
}

static void begin_output(struct nnc_jpeg_writer *writer) {
    free(writer->plain);
    writer->plain = NULL;
    writer->plain_size = 0;
    jpeg_mem_dest(&writer->out, &writer->plain, &writer->plain_size);
}

/* Would a decoder take the written coefficients for what it takes the read ones for? */
static int check_read(const struct jpeg_decompress_struct *in) {
    if (in->num_components != 1 && in->num_components != 3 && in->num_components != 4) {
        return nnc_fail(-NNC_E_FORMAT, "JPEG: %d colour components are not supported",
                        in->num_components);
    }
    for (int i = 0; i < in->num_components; i++) {
        const jpeg_component_info *component = &in->comp_info[i];
        if (in->max_h_samp_factor % component->h_samp_factor != 0 ||
            in->max_v_samp_factor % component->v_samp_factor != 0) {
            return nnc_fail(-NNC_E_FORMAT, "JPEG: the sampling of component %d is fractional", i);
        }
        for (int k = 0; in->progressive_mode && k < SMOOTHED; k++) {
            if (in->coef_bits[i][k] != 0) {
                return nnc_fail(-NNC_E_FORMAT, "JPEG: scans are missing at the end");
            }
        }
    }
    return 0;
}

/* Everything that may jump. */
static int transcode(struct nnc_jpeg_writer *writer, const uint8_t *bytes, size_t size,
                     struct nnc_jpeg_file *ret_file) {
    jpeg_mem_src(&writer->in, bytes, size);
    jpeg_read_header(&writer->in, TRUE);
    int code = nnc_image_check_size(writer->in.image_width, writer->in.image_height);
    if (code < 0) {
        return code;
    }
    jvirt_barray_ptr *coefficients = jpeg_read_coefficients(&writer->in);
    code = check_read(&writer->in);
    if (code < 0) {
        return code;
    }
    jpeg_copy_critical_parameters(&writer->in, &writer->out);
    struct grid grid = begin_pieces(writer);
    begin_output(writer);
    jpeg_write_coefficients(&writer->out, coefficients);
    jpeg_finish_compress(&writer->out);
    jpeg_finish_decompress(&writer->in);
    return add_index(writer, &grid, ret_file);
}

int nnc_jpeg_transcode(struct nnc_jpeg_writer *writer, const uint8_t *bytes, size_t size,
                       struct nnc_jpeg_file *ret_file) {
    if (setjmp(writer->jump) != 0) {
        jpeg_abort_compress(&writer->out);
        jpeg_abort_decompress(&writer->in);
        return writer->code;
    }
    jpeg_destroy_decompress(&writer->in);
    create_reader(writer);
    int code = transcode(writer, bytes, size, ret_file);
    jpeg_abort_compress(&writer->out);
    jpeg_abort_decompress(&writer->in);
    return code;
}

static void set_sampling(struct jpeg_compress_struct *out, enum nnc_jpeg_sampling sampling) {
    if (out->num_components == 3) {
        out->comp_info[0].h_samp_factor = sampling == NNC_JPEG_444 ? 1 : 2;
        out->comp_info[0].v_samp_factor = sampling == NNC_JPEG_420 ? 2 : 1;
    }
}

/* Everything that may jump. */
static int encode(struct nnc_jpeg_writer *writer, const struct nnc_jpeg_pixels *pixels,
                  struct nnc_jpeg_file *ret_file) {
    struct jpeg_compress_struct *out = &writer->out;
    out->image_width = pixels->width;
    out->image_height = pixels->height;
    out->input_components = (int)pixels->channels;
    out->in_color_space = pixels->channels == 1 ? JCS_GRAYSCALE : JCS_RGB;
    jpeg_set_defaults(out);
    jpeg_set_quality(out, pixels->quality, TRUE);
    out->dct_method = JDCT_ISLOW;
    set_sampling(out, pixels->sampling);
    struct grid grid = {0};
    if (!pixels->plain) {
        grid = begin_pieces(writer);
    }
    begin_output(writer);
    jpeg_start_compress(out, TRUE);
    size_t stride = (size_t)pixels->width * pixels->channels;
    while (out->next_scanline < out->image_height) {
        /* libjpeg reads the row only; its type has no const. */
        union {
            const uint8_t *in;
            JSAMPROW out;
        } row = {.in = pixels->pixels + out->next_scanline * stride};
        jpeg_write_scanlines(out, &row.out, 1);
    }
    jpeg_finish_compress(out);
    if (pixels->plain) {
        *ret_file = (struct nnc_jpeg_file){.bytes = writer->plain, .size = writer->plain_size};
        return 0;
    }
    return add_index(writer, &grid, ret_file);
}

int nnc_jpeg_encode(struct nnc_jpeg_writer *writer, const struct nnc_jpeg_pixels *pixels,
                    struct nnc_jpeg_file *ret_file) {
    assert(pixels->channels == 1 || pixels->channels == 3);
    if (setjmp(writer->jump) != 0) {
        jpeg_abort_compress(&writer->out);
        return writer->code;
    }
    int code = encode(writer, pixels, ret_file);
    jpeg_abort_compress(&writer->out);
    return code;
}
