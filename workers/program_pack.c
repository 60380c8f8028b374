/* SPDX-License-Identifier: Apache-2.0 */
/* Packing of a program's tensors into one arena.
 *
 * Greedy by size: the largest tensor first; each is put into the smallest gap that holds it between
 * the already placed tensors whose lifetimes meet its own, or behind them all.
 *
 *   offset ^   +-----------+
 *          |   |  already  |   +---+
 *          |   +-----------+   |   |  <- smallest gap wide enough during the whole lifetime
 *          |  +-------------------------+
 *          +--+-------------------------+---> operations
 *
 * Invariant: two tensors overlap in the arena only if their lifetimes have no operation in common.
 * What it does not do: let an operation write over its own input.
 * Source: Pisarchyk, Lee, "Efficient memory management for deep neural net inference",
 * arXiv:2001.03288, section 5.2 (greedy by size for offset calculation). */
#include "base/checked.h"
#include "base/err.h"
#include "workers/program.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

/* One tensor to place. */
struct piece {
    uint32_t tensor;
    int32_t first_op, last_op;
    size_t bytes, offset;
};

/* Largest first; equal ones by number, so that the result is one and the same everywhere. */
static int compare_bytes(const void *left, const void *right) {
    const struct piece *a = left;
    const struct piece *b = right;
    if (a->bytes != b->bytes) {
        return a->bytes > b->bytes ? -1 : 1;
    }
    return a->tensor < b->tensor ? -1 : 1;
}

/* Smallest gap for `piece` between the `count` pieces sorted by offset. */
static size_t find_offset(const struct piece *placed, uint32_t count, const struct piece *piece) {
    size_t best_offset = 0;
    size_t best_gap = SIZE_MAX;
    size_t end = 0; /* of the pieces met so far */
    for (uint32_t number = 0; number < count; number++) {
        const struct piece *other = &placed[number];
        if (other->last_op < piece->first_op || piece->last_op < other->first_op) {
            continue;
        }
        size_t gap = other->offset > end ? other->offset - end : 0;
        if (gap >= piece->bytes && gap < best_gap) {
            best_gap = gap;
            best_offset = end;
        }
        if (other->offset + other->bytes > end) {
            end = other->offset + other->bytes;
        }
    }
    return best_gap == SIZE_MAX ? end : best_offset;
}

/* Insert into the pieces sorted by offset. */
static void insert(struct piece *placed, uint32_t count, struct piece piece) {
    uint32_t place = count;
    while (place > 0 && placed[place - 1].offset > piece.offset) {
        placed[place] = placed[place - 1];
        place--;
    }
    placed[place] = piece;
}

int nnc_program_pack(const struct nnc_program *program,
                     size_t (*bytes_of)(void *context, uint32_t tensor), void *context,
                     size_t alignment, size_t *ret_offsets, size_t *ret_arena_bytes) {
    assert(alignment > 0 && (alignment & (alignment - 1)) == 0);
    uint32_t count = program->tensor_count;
    int rc = 0;
    size_t arena_bytes = 0;
    size_t total_bytes = 0; /* no offset can exceed it: additions below cannot overflow */
    struct piece *pieces = calloc(count, sizeof(*pieces));
    struct piece *placed = calloc(count, sizeof(*placed));
    if (!pieces || !placed) {
        rc = nnc_fail(-ENOMEM, "no memory to pack %u tensors", count);
        goto out;
    }
    for (uint32_t number = 0; number < count; number++) {
        const struct nnc_tensor *tensor = &program->tensors[number];
        struct piece *piece = &pieces[number];
        *piece = (struct piece){number, tensor->first_op, tensor->last_op, 0, 0};
        if (nnc_size_round_up(bytes_of(context, number), alignment, &piece->bytes) ||
            nnc_size_add(total_bytes, piece->bytes, &total_bytes)) {
            rc = nnc_fail(-EOVERFLOW, "the tensors of a batch of %u do not fit the address space",
                          program->batch);
            goto out;
        }
    }
    qsort(pieces, count, sizeof(*pieces), compare_bytes);
    for (uint32_t number = 0; number < count; number++) {
        struct piece piece = pieces[number];
        piece.offset = piece.bytes > 0 ? find_offset(placed, number, &piece) : 0;
        insert(placed, number, piece);
        ret_offsets[piece.tensor] = piece.offset;
        if (piece.offset + piece.bytes > arena_bytes) {
            arena_bytes = piece.offset + piece.bytes;
        }
    }
    *ret_arena_bytes = arena_bytes;
out:
    free(pieces);
    free(placed);
    return rc;
}
