/* SPDX-License-Identifier: Apache-2.0 */
/* Contact sheets.
 *
 *   GAP | tile | GAP | tile | GAP ...     rows of tiles, under each a line of text
 *
 * The sheet is RGB whatever the tiles are, so that every viewer takes it.
 *
 * Does not: scale down, write files. Source of the format: libspng 0.7. */
#include "data/sheet.h"

#include "base/err.h"
#include "data/font.h"
#include "loader/image.h"

#include <assert.h>
#include <errno.h>
#include <spng.h>
#include <stdlib.h>
#include <string.h>

enum {
    GAP = 6,
    TEXT_GAP = 2,     /* above and below a caption */
    LARGE_TILE = 160, /* from here on captions are drawn twice as large */
    PAPER = 32,
    INK = 224, /* grey levels */
    CAPTION_MAX = 256,
};

struct nnc_sheet {
    struct nnc_sheet_layout layout;
    uint8_t *pixels; /* u8 (height, width, 3) */
};

/* The smallest number whose square is at least count. */
static uint32_t square_side(uint32_t count) {
    uint32_t side = 1;
    while ((uint64_t)side * side < count) {
        side++;
    }
    return side;
}

int nnc_sheet_lay_out(uint32_t count, uint32_t side, uint32_t channels,
                      struct nnc_sheet_layout *ret_layout) {
    assert(count >= 1 && side >= 1 && (channels == 1 || channels == 3));
    struct nnc_sheet_layout layout = {
        .count = count,
        .columns = square_side(count),
        .side = side,
        .channels = channels,
        .enlarge = side >= NNC_SHEET_TILE_MIN ? 1 : (NNC_SHEET_TILE_MIN + side - 1) / side,
    };
    uint32_t tile = side * layout.enlarge;
    layout.letters = tile >= LARGE_TILE ? 2 : 1;
    layout.step_x = tile + GAP;
    layout.step_y = tile + GAP + layout.letters * NNC_FONT_HEIGHT + 2 * TEXT_GAP;
    uint64_t rows = (count + layout.columns - 1) / layout.columns;
    uint64_t width = GAP + (uint64_t)layout.columns * layout.step_x;
    uint64_t height = GAP + rows * layout.step_y;
    if (nnc_image_check_size(width, height) < 0) {
        uint64_t fits = NNC_IMAGE_MAX_PIXELS / ((uint64_t)layout.step_x * layout.step_y);
        return nnc_fail(-NNC_E_USAGE,
                        "%u tiles make a picture of %llu x %llu pixels, more than programs open: "
                        "give --count %llu or less, or --npy FILE for their bytes",
                        count, (unsigned long long)width, (unsigned long long)height,
                        (unsigned long long)(fits * 9 / 10 > 0 ? fits * 9 / 10 : 1));
    }
    layout.width = (uint32_t)width;
    layout.height = (uint32_t)height;
    *ret_layout = layout;
    return 0;
}

int nnc_sheet_create(const struct nnc_sheet_layout *layout, struct nnc_sheet **ret_sheet) {
    size_t bytes = (size_t)layout->width * layout->height * 3;
    struct nnc_sheet *sheet = calloc(1, sizeof(*sheet));
    uint8_t *pixels = malloc(bytes);
    if (sheet == NULL || pixels == NULL) {
        free(sheet);
        free(pixels);
        return nnc_fail(-ENOMEM, "no memory for a picture of %u x %u pixels", layout->width,
                        layout->height);
    }
    memset(pixels, PAPER, bytes);
    *sheet = (struct nnc_sheet){.layout = *layout, .pixels = pixels};
    *ret_sheet = sheet;
    return 0;
}

void nnc_sheet_destroy(struct nnc_sheet *sheet) {
    if (sheet != NULL) {
        free(sheet->pixels);
        free(sheet);
    }
}

/* ---- drawing ---- */

static uint8_t *at(struct nnc_sheet *sheet, uint32_t x, uint32_t y) {
    assert(x < sheet->layout.width && y < sheet->layout.height);
    return sheet->pixels + ((size_t)y * sheet->layout.width + x) * 3;
}

/* A row of the tile, each of its pixels as often as it is enlarged. */
static void draw_row(const struct nnc_sheet_layout *layout, const uint8_t *row, uint8_t *to) {
    for (uint32_t x = 0; x < layout->side * layout->enlarge; x++, to += 3) {
        const uint8_t *pixel = row + (size_t)(x / layout->enlarge) * layout->channels;
        for (uint32_t c = 0; c < 3; c++) {
            to[c] = pixel[layout->channels == 3 ? c : 0];
        }
    }
}

static void draw_letter(struct nnc_sheet *sheet, char letter, uint32_t left, uint32_t top) {
    uint32_t scale = sheet->layout.letters;
    for (uint32_t y = 0; y < NNC_FONT_HEIGHT * scale; y++) {
        for (uint32_t x = 0; x < NNC_FONT_WIDTH * scale; x++) {
            if (nnc_font_pixel(letter, x / scale, y / scale)) {
                memset(at(sheet, left + x, top + y), INK, 3);
            }
        }
    }
}

void nnc_sheet_draw(struct nnc_sheet *sheet, uint32_t number, const uint8_t *pixels,
                    const char *caption) {
    const struct nnc_sheet_layout *layout = &sheet->layout;
    assert(number < layout->count);
    uint32_t left = GAP + number % layout->columns * layout->step_x;
    uint32_t top = GAP + number / layout->columns * layout->step_y;
    uint32_t tile = layout->side * layout->enlarge;
    for (uint32_t y = 0; y < tile; y++) {
        const uint8_t *row =
            pixels + (size_t)(y / layout->enlarge) * layout->side * layout->channels;
        draw_row(layout, row, at(sheet, left, top + y));
    }
    char text[CAPTION_MAX];
    size_t letters = nnc_font_text(caption, text, sizeof(text));
    size_t room = tile / (NNC_FONT_WIDTH * layout->letters);
    for (size_t i = 0; i < letters && i < room; i++) {
        draw_letter(sheet, text[i], left + (uint32_t)i * NNC_FONT_WIDTH * layout->letters,
                    top + tile + TEXT_GAP);
    }
}

/* ---- PNG ---- */

static int encode(const struct nnc_sheet *sheet, spng_ctx *ctx, uint8_t **ret_bytes,
                  size_t *ret_size) {
    const struct nnc_sheet_layout *layout = &sheet->layout;
    struct spng_ihdr header = {
        .width = layout->width,
        .height = layout->height,
        .bit_depth = 8,
        .color_type = SPNG_COLOR_TYPE_TRUECOLOR,
    };
    size_t bytes = (size_t)layout->width * layout->height * 3;
    int status = spng_set_option(ctx, SPNG_ENCODE_TO_BUFFER, 1);
    status = status != 0 ? status : spng_set_ihdr(ctx, &header);
    status = status != 0
                 ? status
                 : spng_encode_image(ctx, sheet->pixels, bytes, SPNG_FMT_PNG, SPNG_ENCODE_FINALIZE);
    void *png = status != 0 ? NULL : spng_get_png_buffer(ctx, ret_size, &status);
    if (png == NULL) {
        return nnc_fail(-ENOMEM, "PNG: %s", spng_strerror(status));
    }
    *ret_bytes = png;
    return 0;
}

int nnc_sheet_encode(const struct nnc_sheet *sheet, uint8_t **ret_bytes, size_t *ret_size) {
    spng_ctx *ctx = spng_ctx_new(SPNG_CTX_ENCODER);
    if (ctx == NULL) {
        return nnc_fail(-ENOMEM, "PNG: no memory for an encoder");
    }
    int code = encode(sheet, ctx, ret_bytes, ret_size);
    spng_ctx_free(ctx);
    return code;
}
