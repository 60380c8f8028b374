/* SPDX-License-Identifier: Apache-2.0 */
/* Samples whose every byte depends on (seq, index): a consumer can tell each wrong byte, and whose
 * it is. */
#ifndef NNC_TESTS_RING_STAMP_H
#define NNC_TESTS_RING_STAMP_H

#include "ipc/ring.h"

#include <stdbool.h>

/* Fill pixels[from, to) of the sample. */
void ring_stamp_fill(uint8_t *pixels, size_t from, size_t to, uint64_t seq, uint32_t index);

/* The result that goes with the sample: label, number and status depend on (seq, index) too. */
struct nnc_sample_result ring_stamp_result(uint64_t seq, uint32_t index);

/* Are sample i's pixels (bytes long), label, number and status those of (batch->seq, i)? */
bool ring_stamp_matches(const struct nnc_batch *batch, uint32_t i, size_t bytes);

#endif
