/* SPDX-License-Identifier: Apache-2.0 */
/* A small built-in font for captions: printable ASCII in cells of 6 x 8 pixels. */
#ifndef NNC_DATA_FONT_H
#define NNC_DATA_FONT_H

#include <stdbool.h>
#include <stddef.h>

enum {
    NNC_FONT_WIDTH = 6, /* of a cell, one column of it is a gap */
    NNC_FONT_HEIGHT = 8,
};

/* Is the pixel in column x, row y of a character's cell set? Other characters than printable ASCII
 * look like '?'. x < NNC_FONT_WIDTH, y < NNC_FONT_HEIGHT. */
bool nnc_font_pixel(char character, unsigned x, unsigned y);

/* Make a UTF-8 text one of at most room - 1 characters that the font has: each other character
 * becomes one '?'. Returns the number of characters. */
size_t nnc_font_text(const char *text, char *ret_text, size_t room);

#endif
