/* SPDX-License-Identifier: Apache-2.0 */
/* JPEG encoding into memory.
 *
 * libjpeg reports an error by longjmp out of error_exit. It lands in one place, nnc_jpeg_write(),
 * which keeps what changes after setjmp in a struct. Source: libjpeg.txt of libjpeg-turbo 2.1. */
#include "data/jpeg_write.h"

#include "base/err.h"

#include <errno.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>

#include <jpeglib.h>

struct writer {
    struct jpeg_compress_struct cinfo;
    struct jpeg_error_mgr errors;
    jmp_buf jump;
    unsigned char *bytes;
    unsigned long size;
};

__attribute__((noreturn)) static void on_error(j_common_ptr cinfo) {
    struct writer *writer = cinfo->client_data;
    char text[JMSG_LENGTH_MAX];
    cinfo->err->format_message(cinfo, text);
    nnc_fail(-ENOMEM, "JPEG: %s", text);
    longjmp(writer->jump, 1);
}

static void set_sampling(struct jpeg_compress_struct *cinfo, enum nnc_photo_sampling sampling) {
    cinfo->comp_info[0].h_samp_factor = sampling == NNC_PHOTO_444 ? 1 : 2;
    cinfo->comp_info[0].v_samp_factor = sampling == NNC_PHOTO_420 ? 2 : 1;
}

static void encode(struct writer *writer, const struct nnc_photo *photo, const uint8_t *pixels) {
    struct jpeg_compress_struct *cinfo = &writer->cinfo;
    jpeg_create_compress(cinfo);
    jpeg_mem_dest(cinfo, &writer->bytes, &writer->size);
    cinfo->image_width = photo->width;
    cinfo->image_height = photo->height;
    cinfo->input_components = (int)photo->channels;
    cinfo->in_color_space = photo->channels == 1 ? JCS_GRAYSCALE : JCS_RGB;
    jpeg_set_defaults(cinfo);
    jpeg_set_quality(cinfo, photo->quality, TRUE);
    cinfo->dct_method = JDCT_ISLOW;
    if (photo->channels == 3) {
        set_sampling(cinfo, photo->sampling);
    }
    jpeg_start_compress(cinfo, TRUE);
    size_t stride = (size_t)photo->width * photo->channels;
    while (cinfo->next_scanline < cinfo->image_height) {
        /* libjpeg takes rows without const and does not write to them. */
        JSAMPROW row = (JSAMPROW)(uintptr_t)(pixels + cinfo->next_scanline * stride);
        jpeg_write_scanlines(cinfo, &row, 1);
    }
    jpeg_finish_compress(cinfo);
}

int nnc_jpeg_write(const struct nnc_photo *photo, const uint8_t *pixels, uint8_t **ret_bytes,
                   size_t *ret_size) {
    struct writer *writer = calloc(1, sizeof(*writer));
    if (writer == NULL) {
        return nnc_fail(-ENOMEM, "no memory for a JPEG encoder");
    }
    writer->cinfo.err = jpeg_std_error(&writer->errors);
    writer->errors.error_exit = on_error;
    writer->cinfo.client_data = writer;
    int code = setjmp(writer->jump) == 0 ? 0 : -ENOMEM;
    if (code == 0) {
        encode(writer, photo, pixels);
        *ret_bytes = writer->bytes;
        *ret_size = writer->size;
    } else {
        free(writer->bytes);
    }
    jpeg_destroy_compress(&writer->cinfo);
    free(writer);
    return code;
}
