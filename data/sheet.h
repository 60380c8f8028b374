/* SPDX-License-Identifier: Apache-2.0 */
/* A contact sheet: tiles in rows, a caption under each. */
#ifndef NNC_DATA_SHEET_H
#define NNC_DATA_SHEET_H

#include <stddef.h>
#include <stdint.h>

/* Tiles are drawn at least this large: smaller ones are enlarged by a whole number. */
#define NNC_SHEET_TILE_MIN 64u

/* Where everything is, in pixels of the sheet. */
struct nnc_sheet_layout {
    uint32_t count, columns;
    uint32_t side, channels; /* of a tile as it is given */
    uint32_t enlarge;        /* a pixel of a tile is drawn as a square of so many */
    uint32_t letters;        /* the same for pixels of the font */
    uint32_t step_x, step_y; /* from tile to tile */
    uint32_t width, height;  /* of the sheet */
};

struct nnc_sheet;

/* Lay out count >= 1 tiles of side x side pixels as near to a square as it goes. channels: 1 or 3.
 * Errors: -NNC_E_USAGE: the sheet would be too large to be looked at, with what would fit. */
int nnc_sheet_lay_out(uint32_t count, uint32_t side, uint32_t channels,
                      struct nnc_sheet_layout *ret_layout);

/* An empty sheet. Errors: -ENOMEM. */
int nnc_sheet_create(const struct nnc_sheet_layout *layout, struct nnc_sheet **ret_sheet);

/* Free it. Takes NULL. */
void nnc_sheet_destroy(struct nnc_sheet *sheet);

/* Draw tile `number` < count. Shape: pixels u8 (side, side, channels). The caption is cut to the
 * tile's width. */
void nnc_sheet_draw(struct nnc_sheet *sheet, uint32_t number, const uint8_t *pixels,
                    const char *caption);

/* The sheet as PNG. Owner: *ret_bytes is the caller's, to be freed. Errors: -ENOMEM. */
int nnc_sheet_encode(const struct nnc_sheet *sheet, uint8_t **ret_bytes, size_t *ret_size);

#endif
