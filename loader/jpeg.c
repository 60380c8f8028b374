/* SPDX-License-Identifier: Apache-2.0 */
/* JPEG decoding with libjpeg's own API, which unlike TurboJPEG's has limits that can be set,
 * warnings that can be told apart, and rows that can be left out.
 *
 *   header -> limits -> sink says what it needs -> start -> [skip rows above] -> rows -> stop below
 *
 * 1. libjpeg reports an error by longjmp out of error_exit. It lands in one place, attempt(), which
 * uses no local that changed after setjmp. Sinks never jump.
 * 2. libjpeg's own decoder is made anew for each image. It would keep Huffman and quantisation
 *    tables, and an image without its own would decode with those of whatever image came before.
 * 3. A file that ends early decodes to grey without an error in libjpeg. The two warnings that say
 * so are errors here; other warnings are counted.
 * 4. Columns and rows that nobody needs are not decoded, but then a file that ends early could
 * pass. So this is done only when the file has its end marker where it should be (ends_properly).
 * 5. Cut-off columns need neighbours: fancy upsampling looks one chroma sample (two pixels) to each
 * side. EDGE pixels more are decoded on each side and thrown away, and the test compares with a
 * full decode.
 * 6. Of a restart-indexed file a small JPEG is put together (jpeg_restart.h) that stands in for the
 * whole one; its pixel (0, 0) is the image's (origin_left, origin_top).
 * 7. An image is bad when it does not decode without its index: when the small JPEG is refused and
 * the whole file is in hand, it is decoded once more as if it had none.
 *
 * Does not: read EXIF, apply ICC profiles, decode 12-bit samples.
 * Source: libjpeg.txt of libjpeg-turbo 2.1; reliability: dimension and scan bombs. */
#include "loader/jpeg.h"

#include "base/checked.h"
#include "base/err.h"
#include "loader/jpeg_restart.h"

#include <errno.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>

#include <jerror.h>

enum {
    CHUNK_ROWS = 16,            /* rows handed to the sink at once: fits the first-level caches */
    EDGE = 2,                   /* pixels decoded beyond the needed ones on each side */
    TAIL_BYTES = 4096,          /* the end marker lies within so many last bytes */
    MEMORY_MAX = 512 * 1048576, /* of libjpeg, per image */
};

struct nnc_jpeg {
    struct jpeg_decompress_struct cinfo;
    struct jpeg_error_mgr errors;
    struct jpeg_progress_mgr progress;
    jmp_buf jump;
    int code; /* of the error that jumped */
    uint8_t *rows;
    size_t rows_bytes;
    uint32_t first_column; /* of the decoded columns */
    uint32_t origin_top;
    bool is_cut; /* the small JPEG stands in for the image in hand */
    struct nnc_jpeg_stitched stitched;
};

/* ---- what libjpeg calls ---- */

static struct nnc_jpeg *self(j_common_ptr cinfo) {
    return cinfo->client_data;
}

__attribute__((noreturn)) static void on_error(j_common_ptr cinfo) {
    struct nnc_jpeg *jpeg = self(cinfo);
    char text[JMSG_LENGTH_MAX];
    cinfo->err->format_message(cinfo, text);
    jpeg->code = nnc_fail(-NNC_E_FORMAT, "JPEG: %s", text);
    longjmp(jpeg->jump, 1);
}

static void on_message(j_common_ptr cinfo, int level) {
    if (level >= 0) {
        return;
    }
    cinfo->err->num_warnings++;
    int number = cinfo->err->msg_code;
    if (number == JWRN_JPEG_EOF || number == JWRN_HIT_MARKER) {
        on_error(cinfo);
    }
}

static void on_output(j_common_ptr cinfo) {
    (void)cinfo;
}

static void on_progress(j_common_ptr common) {
    struct nnc_jpeg *jpeg = self(common);
    const struct jpeg_decompress_struct *cinfo = &jpeg->cinfo;
    jpeg->code =
        nnc_jpeg_check_scans(cinfo->input_scan_number, cinfo->image_width, cinfo->image_height);
    if (jpeg->code < 0) {
        longjmp(jpeg->jump, 1);
    }
}

int nnc_jpeg_check_scans(int scan_count, uint32_t width, uint32_t height) {
    unsigned long long scans = (unsigned long long)scan_count;
    unsigned long long pixels = (unsigned long long)width * height;
    /* The first scan is paid for by the size limit, which baseline files are held to as well. */
    if (scans > NNC_JPEG_MAX_SCANS || (scans > 1 && scans * pixels > NNC_JPEG_MAX_SCAN_PIXELS)) {
        return nnc_fail(-NNC_E_FORMAT, "JPEG: %llu scans of %u x %u pixels are too many", scans,
                        width, height);
    }
    return 0;
}

/* ---- life ---- */

/* May jump. */
static void create_decoder(struct nnc_jpeg *jpeg) {
    jpeg_create_decompress(&jpeg->cinfo);
    jpeg->cinfo.client_data = jpeg;
    jpeg->cinfo.progress = &jpeg->progress;
    jpeg->cinfo.mem->max_memory_to_use = MEMORY_MAX;
}

int nnc_jpeg_create(struct nnc_jpeg **ret_jpeg) {
    struct nnc_jpeg *jpeg = calloc(1, sizeof(*jpeg));
    if (jpeg == NULL) {
        return nnc_fail(-ENOMEM, "no memory for a JPEG decoder");
    }
    jpeg->cinfo.err = jpeg_std_error(&jpeg->errors);
    jpeg->errors.error_exit = on_error;
    jpeg->errors.emit_message = on_message;
    jpeg->errors.output_message = on_output;
    jpeg->progress.progress_monitor = on_progress;
    jpeg->cinfo.client_data = jpeg;
    if (setjmp(jpeg->jump) != 0) {
        nnc_jpeg_destroy(jpeg);
        return -ENOMEM;
    }
    create_decoder(jpeg);
    *ret_jpeg = jpeg;
    return 0;
}

void nnc_jpeg_destroy(struct nnc_jpeg *jpeg) {
    if (jpeg == NULL) {
        return;
    }
    jpeg_destroy_decompress(&jpeg->cinfo);
    free(jpeg->rows);
    free(jpeg->stitched.bytes);
    free(jpeg);
}

int nnc_jpeg_sniff(const uint8_t *bytes, size_t size) {
    return size >= 3 && bytes[0] == 0xff && bytes[1] == 0xd8 && bytes[2] == 0xff;
}

/* ---- one image ---- */

/* Is there an end marker near the end? Files with more than a little behind it, or with none, are
 * decoded whole and judged by libjpeg. */
static bool ends_properly(const uint8_t *bytes, size_t size) {
    size_t first = size > TAIL_BYTES ? size - TAIL_BYTES : 0;
    for (size_t i = size; i >= first + 2; i--) {
        if (bytes[i - 2] == 0xff && bytes[i - 1] == JPEG_EOI) {
            return true;
        }
    }
    return false;
}

static int choose_colours(struct jpeg_decompress_struct *cinfo, uint32_t channels) {
    switch (cinfo->num_components) {
    case 1:
        cinfo->out_color_space = channels == 1 ? JCS_GRAYSCALE : JCS_RGB;
        return 0;
    case 3:
        cinfo->out_color_space = JCS_RGB;
        return 0;
    case 4:
        cinfo->out_color_space = JCS_CMYK;
        return 0;
    default:
        return nnc_fail(-NNC_E_FORMAT, "JPEG: %d colour components are not supported",
                        cinfo->num_components);
    }
}

/* Adobe's inverted CMYK to RGB, in place: three bytes are written where four were read. */
static void cmyk_to_rgb(uint8_t *pixels, size_t count) {
    for (size_t i = 0; i < count; i++) {
        unsigned black = pixels[4 * i + 3]; /* inverted: 255 - K */
        for (size_t c = 0; c < 3; c++) {
            unsigned product = (255u - pixels[4 * i + c]) * black + 128u;
            pixels[3 * i + c] = (uint8_t)(black - ((product + (product >> 8)) >> 8));
        }
    }
}

/* Bring decoded rows to the wanted channels, in place; rows keep their stride. */
static void convert_rows(const struct jpeg_decompress_struct *cinfo, uint32_t channels,
                         uint8_t *rows, size_t stride, uint32_t count) {
    for (uint32_t i = 0; i < count; i++) {
        uint8_t *row = rows + i * stride;
        if (cinfo->out_color_space == JCS_CMYK) {
            cmyk_to_rgb(row, cinfo->output_width);
        }
        if (channels == 1 && cinfo->out_color_space != JCS_GRAYSCALE) {
            nnc_image_rgb_to_grey(row, cinfo->output_width, row);
        }
    }
}

/* Limit decoding to the needed columns and skip the rows above. */
static void leave_out(struct nnc_jpeg *jpeg, const struct nnc_box *need) {
    struct jpeg_decompress_struct *cinfo = &jpeg->cinfo;
    uint32_t left = need->left > EDGE ? need->left - EDGE : 0;
    uint32_t right = need->left + need->width + EDGE;
    right = right < cinfo->output_width ? right : cinfo->output_width;
    if (left > 0 || right < cinfo->output_width) {
        JDIMENSION first = left, width = right - left;
        jpeg_crop_scanline(cinfo, &first, &width);
        jpeg->first_column = first;
    }
    uint32_t top = need->top > EDGE ? need->top - EDGE : 0;
    if (top > 0) {
        jpeg_skip_scanlines(cinfo, top);
    }
}

/* Decode up to CHUNK_ROWS rows into jpeg->rows; a libjpeg call yields one or two, none at the end
 * of the image. */
static uint32_t read_chunk(struct nnc_jpeg *jpeg, size_t stride, uint32_t most) {
    uint32_t count = 0;
    while (count < most) {
        JSAMPROW rows[CHUNK_ROWS];
        for (uint32_t i = count; i < most; i++) {
            rows[i - count] = jpeg->rows + i * stride;
        }
        uint32_t got = jpeg_read_scanlines(&jpeg->cinfo, rows, most - count);
        if (got == 0) {
            break;
        }
        count += got;
    }
    return count;
}

/* Decode the rows of `need` (and those that come before and after, as far as they are decoded at
 * all). */
static int deliver(struct nnc_jpeg *jpeg, const struct nnc_image_job *job,
                   const struct nnc_box *need, size_t stride, uint32_t last_row) {
    uint32_t bottom = need->top + need->height;
    size_t shift = (size_t)(need->left - jpeg->first_column) * job->channels;
    while (jpeg->cinfo.output_scanline < last_row) {
        uint32_t first = jpeg->cinfo.output_scanline;
        uint32_t end = first < need->top ? need->top : first < bottom ? bottom : last_row;
        uint32_t most = end - first < CHUNK_ROWS ? end - first : CHUNK_ROWS;
        uint32_t count = read_chunk(jpeg, stride, most);
        if (count == 0) {
            return nnc_fail(-NNC_E_FORMAT, "JPEG: the image has too few rows");
        }
        if (first < need->top || first >= bottom) {
            continue;
        }
        convert_rows(&jpeg->cinfo, job->channels, jpeg->rows, stride, count);
        job->sink->rows(job->sink->context, jpeg->origin_top + first, count, jpeg->rows + shift,
                        stride);
    }
    return 0;
}

/* Give libjpeg these bytes and read their header. */
static int read_header(struct nnc_jpeg *jpeg, const uint8_t *bytes, size_t size,
                       uint32_t channels) {
    jpeg_mem_src(&jpeg->cinfo, bytes, size);
    jpeg_read_header(&jpeg->cinfo, TRUE);
    return choose_colours(&jpeg->cinfo, channels);
}

/* By how much the sink lets the image be reduced. libjpeg does that with a smaller inverse DCT. */
static uint32_t choose_shrink(const struct nnc_image_job *job, uint32_t width, uint32_t height) {
    bool may = job->sink->shrink != NULL && !job->whole;
    return may ? job->sink->shrink(job->sink->context, width, height) : 1;
}

/* Begin with the image as it is in the file. */
static int begin_plain(struct nnc_jpeg *jpeg, const struct nnc_image_job *job,
                       struct nnc_box *ret_need) {
    struct jpeg_decompress_struct *cinfo = &jpeg->cinfo;
    jpeg->origin_top = 0;
    int code = read_header(jpeg, job->bytes, job->size, job->channels);
    code = code < 0 ? code : nnc_image_check_size(cinfo->image_width, cinfo->image_height);
    if (code < 0) {
        return code;
    }
    cinfo->scale_denom = choose_shrink(job, cinfo->image_width, cinfo->image_height);
    jpeg_calc_output_dimensions(cinfo);
    return job->sink->begin(job->sink->context, cinfo->output_width, cinfo->output_height,
                            ret_need);
}

/* Where a rectangle of the reduced image lies in the image itself, with the pixels around it that
 * are made of the same samples. */
static struct nnc_box enlarge(const struct nnc_jpeg_restart *restart, const struct nnc_box *need,
                              uint32_t shrink) {
    uint32_t more = shrink == 1 ? 0 : 2 * shrink;
    uint32_t left = need->left * shrink, right = (need->left + need->width) * shrink + more;
    uint32_t top = need->top * shrink, bottom = (need->top + need->height) * shrink + more;
    struct nnc_box box = {.left = left > more ? left - more : 0,
                          .top = top > more ? top - more : 0};
    box.width = (right < restart->width ? right : restart->width) - box.left;
    box.height = (bottom < restart->height ? bottom : restart->height) - box.top;
    return box;
}

/* Begin with a small JPEG that stands in for a restart-indexed one; *ret_need is a rectangle of it.
 * Returns 1, or 0 when there is no index. */
static int begin_cut(struct nnc_jpeg *jpeg, const struct nnc_image_job *job,
                     struct nnc_box *ret_need) {
    const struct nnc_image_part file = {.bytes = job->bytes, .size = job->size};
    const struct nnc_image_part *part = job->slice != NULL ? &job->slice->rest : &file;
    uint64_t total = job->slice != NULL ? job->slice->total : job->size;
    struct nnc_jpeg_restart restart;
    if (nnc_jpeg_restart_parse(job->bytes, job->size, total, &restart) == 0) {
        return 0;
    }
    jpeg->is_cut = true;
    struct nnc_box need;
    struct nnc_jpeg_stitched *stitched = &jpeg->stitched;
    int code = nnc_image_check_size(restart.width, restart.height);
    uint32_t shrink = code < 0 ? 1 : choose_shrink(job, restart.width, restart.height);
    if (code >= 0) {
        code = job->sink->begin(job->sink->context, (restart.width + shrink - 1) / shrink,
                                (restart.height + shrink - 1) / shrink, &need);
    }
    if (code >= 0) {
        struct nnc_box box = enlarge(&restart, &need, shrink);
        code = nnc_jpeg_restart_stitch(&restart, &box, part, stitched);
    }
    if (code >= 0) {
        code = read_header(jpeg, stitched->bytes, stitched->size, job->channels);
    }
    if (code >= 0 && (jpeg->cinfo.image_width != stitched->width ||
                      jpeg->cinfo.image_height != stitched->height)) {
        code = nnc_fail(-NNC_E_FORMAT, "JPEG: the header tells two sizes");
    }
    if (code < 0) {
        return code;
    }
    jpeg->cinfo.scale_denom = shrink;
    jpeg->origin_top = stitched->top / shrink; /* pieces begin at multiples of 8 pixels */
    need.left -= stitched->left / shrink;
    need.top -= jpeg->origin_top;
    *ret_need = need;
    return 1;
}

/* Everything that may jump. */
static int decode(struct nnc_jpeg *jpeg, const struct nnc_image_job *job, bool use_index) {
    struct jpeg_decompress_struct *cinfo = &jpeg->cinfo;
    struct nnc_box need;
    int cut = use_index ? begin_cut(jpeg, job, &need) : 0;
    int code = cut;
    if (cut == 0) {
        code = job->slice != NULL
                   ? nnc_fail(-NNC_E_FORMAT, "JPEG: a slice of a file without restart index")
                   : begin_plain(jpeg, job, &need);
    }
    if (code < 0) {
        return code;
    }
    cinfo->dct_method = JDCT_ISLOW;
    jpeg_start_decompress(cinfo);
    size_t stride;
    size_t bytes;
    if (nnc_size_mul(cinfo->output_width, (size_t)cinfo->output_components, &stride) ||
        nnc_size_mul(stride, CHUNK_ROWS, &bytes) ||
        nnc_image_reserve(&jpeg->rows, &jpeg->rows_bytes, bytes) < 0) {
        return nnc_fail(-ENOMEM, "JPEG: no memory for rows of %u pixels", cinfo->output_width);
    }
    jpeg->first_column = 0;
    if (need.left + need.width > cinfo->output_width ||
        need.top + need.height > cinfo->output_height) {
        return nnc_fail(-NNC_E_FORMAT, "JPEG: the needed part is not in the image");
    }
    bool partial = cut == 1 || (!job->whole && ends_properly(job->bytes, job->size));
    if (partial) {
        leave_out(jpeg, &need);
    }
    code =
        deliver(jpeg, job, &need, stride, partial ? need.top + need.height : cinfo->output_height);
    if (code >= 0 && !partial) {
        jpeg_finish_decompress(cinfo);
    }
    return code;
}

/* One attempt, with what jumps caught. */
static int attempt(struct nnc_jpeg *jpeg, const struct nnc_image_job *job, bool use_index,
                   struct nnc_image_report *ret_report) {
    int code;
    if (setjmp(jpeg->jump) != 0) {
        code = jpeg->code;
        jpeg_abort_decompress(&jpeg->cinfo);
        return code;
    }
    jpeg->errors.num_warnings = 0;
    jpeg->is_cut = false;
    jpeg_destroy_decompress(&jpeg->cinfo);
    create_decoder(jpeg);
    code = decode(jpeg, job, use_index);
    if (code >= 0) {
        ret_report->warnings = (uint32_t)jpeg->errors.num_warnings;
    }
    jpeg_abort_decompress(&jpeg->cinfo);
    return code;
}

int nnc_jpeg_decode(struct nnc_jpeg *jpeg, const struct nnc_image_job *job,
                    struct nnc_image_report *ret_report) {
    int code = attempt(jpeg, job, !job->whole, ret_report);
    if (code == -NNC_E_FORMAT && jpeg->is_cut && job->slice == NULL) {
        code = attempt(jpeg, job, false, ret_report);
    }
    return code;
}

int nnc_jpeg_find_slice(const struct nnc_image_part *head, uint64_t total,
                        const struct nnc_image_asker *asker, struct nnc_image_range *ret_range) {
    struct nnc_jpeg_restart restart;
    struct nnc_box need;
    if (nnc_jpeg_restart_parse(head->bytes, head->size, total, &restart) == 0 ||
        nnc_image_check_size(restart.width, restart.height) < 0 ||
        asker->box(asker->context, restart.width, restart.height, &need) < 0) {
        return 0;
    }
    *ret_range = nnc_jpeg_restart_range(&restart, &need);
    return 1;
}
