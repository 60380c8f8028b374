/* SPDX-License-Identifier: Apache-2.0 */
/* Images whose first bytes say where each of their rows lies, so that a crop needs a part of the
 * file only: PNM (rows are where arithmetic says) and restart-indexed JPEG.
 *
 * A restart-indexed JPEG is an ordinary baseline JPEG in one scan, with a restart marker after
 * every `mcus` MCUs, that carries the sizes of the pieces between the markers in an APP10 segment
 * in front of the frame header. Programs that do not know the segment skip it. Each piece can be
 * decoded without the others, since a restart resets the predictions.
 *
 * Body of the segment (numbers big endian, as all of JPEG):
 *   0   8                "nncrst1" and a zero
 *   8   4  header_bytes  offset in the file of the first entropy-coded byte
 *   12  2  mcus          MCUs in a piece; equals the restart interval and divides a row of MCUs
 *   14  2                0
 *   16  4  pieces
 *   20  2 * pieces       bytes of each piece, without the two of the marker behind it
 *
 * header_bytes + sum of (size + 2) is the size of the file, the last marker being the end of the
 * image. */
#ifndef NNC_IPC_SLICED_H
#define NNC_IPC_SLICED_H

#include <stddef.h>
#include <stdint.h>

#define NNC_RESTART_ID         "nncrst1" /* with its zero */
#define NNC_RESTART_ID_BYTES   8u
#define NNC_RESTART_MARKER     0xeau /* APP10 */
#define NNC_RESTART_FIXED      20u   /* bytes in front of the sizes */
#define NNC_RESTART_PIECES_MAX ((65533u - NNC_RESTART_FIXED) / 2u)

/* So many first bytes of an image are enough for nnc_sliced_head(). */
#define NNC_SLICED_PEEK 64u

/* Smaller images are not worth two reads. */
#define NNC_SLICED_MIN 16384u

/* How many first bytes of an image of `total` bytes to read before the rest; 0: read it as a whole.
 * bytes[0..size): its first ones, hostile, at least NNC_SLICED_PEEK of them or all. The answer is a
 * hint: whoever finds that the head does not tell enough reads the whole image. */
uint32_t nnc_sliced_head(const uint8_t *bytes, size_t size, uint64_t total);

#endif
