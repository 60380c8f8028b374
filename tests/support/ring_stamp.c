/* SPDX-License-Identifier: Apache-2.0 */
#include "ring_stamp.h"

/* The finaliser of MurmurHash3: every input bit changes about half of the output. */
static uint64_t mix(uint64_t value) {
    value ^= value >> 33;
    value *= 0xff51afd7ed558ccdull;
    value ^= value >> 33;
    value *= 0xc4ceb9fe1a85ec53ull;
    return value ^ value >> 33;
}

static uint8_t stamp_byte(uint64_t key, size_t at) {
    return (uint8_t)(mix(key + at / 8) >> (at % 8 * 8));
}

static uint64_t stamp_key(uint64_t seq, uint32_t index) {
    return mix(seq * 1000003 + index);
}

void ring_stamp_fill(uint8_t *pixels, size_t from, size_t to, uint64_t seq, uint32_t index) {
    uint64_t key = stamp_key(seq, index);
    for (size_t at = from; at < to; at++) {
        pixels[at] = stamp_byte(key, at);
    }
}

struct nnc_sample_result ring_stamp_result(uint64_t seq, uint32_t index) {
    uint64_t key = stamp_key(seq, index);
    enum nnc_sample_status status = (enum nnc_sample_status)(NNC_SAMPLE_OK + key % 3);
    return (struct nnc_sample_result){
        .status = status,
        .label = status == NNC_SAMPLE_BAD ? -1 : (int32_t)(key >> 33),
        .sample = (uint32_t)(key >> 7),
    };
}

bool ring_stamp_matches(const struct nnc_batch *batch, uint32_t i, size_t bytes) {
    struct nnc_sample_result expected = ring_stamp_result(batch->seq, i);
    if (batch->labels[i] != expected.label || batch->samples[i] != expected.sample ||
        batch->status[i] != expected.status) {
        return false;
    }
    uint64_t key = stamp_key(batch->seq, i);
    const uint8_t *pixels = batch->images + i * batch->sample_bytes;
    for (size_t at = 0; at < bytes; at++) {
        if (pixels[at] != stamp_byte(key, at)) {
            return false;
        }
    }
    return true;
}
