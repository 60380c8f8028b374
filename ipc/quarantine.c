/* SPDX-License-Identifier: Apache-2.0 */
/* Two bitmaps in one mapping.
 *
 * 1. Bits are only ever set, by one process, so a reader can at worst be late. It is not late for
 *    the claim that the sample was found in: the coordinator sets the bit before the sweep frees
 *    that claim, and whoever claims it next sees both.
 * 2. A loader could be late for the same sample in another batch; then it dies of it once more. */
#include "ipc/quarantine.h"

#include "ipc/memfd.h"

#include <assert.h>
#include <string.h>
#include <sys/mman.h>

static size_t words_of(uint64_t samples) {
    return (size_t)(samples / 64 + 1);
}

size_t nnc_quarantine_bytes(const uint64_t samples[2]) {
    return (words_of(samples[0]) + words_of(samples[1])) * sizeof(uint64_t);
}

int nnc_quarantine_map(int fd, const uint64_t samples[2], int writable,
                       struct nnc_quarantine *ret_quarantine) {
    void *address;
    size_t bytes = nnc_quarantine_bytes(samples);
    int code = nnc_memfd_map(fd, bytes, writable, &address);
    if (code < 0) {
        return code;
    }
    _Atomic uint64_t *words = address;
    *ret_quarantine = (struct nnc_quarantine){
        .words = {words, words + words_of(samples[0])},
        .samples = {samples[0], samples[1]},
        .bytes = bytes,
    };
    return 0;
}

void nnc_quarantine_unmap(struct nnc_quarantine *quarantine) {
    if (quarantine->words[0] != NULL) {
        munmap((void *)(uintptr_t)quarantine->words[0], quarantine->bytes);
    }
    memset(quarantine, 0, sizeof(*quarantine));
}

void nnc_quarantine_add(struct nnc_quarantine *quarantine, uint32_t phase, uint64_t sample) {
    assert(phase < 2 && sample < quarantine->samples[phase]);
    /* Relaxed: the release of the sweep that follows carries it. */
    atomic_fetch_or_explicit(&quarantine->words[phase][sample / 64], 1ull << (sample % 64),
                             memory_order_relaxed);
}

bool nnc_quarantine_has(const struct nnc_quarantine *quarantine, uint32_t phase, uint64_t sample) {
    if (phase > 1 || quarantine->words[phase] == NULL || sample >= quarantine->samples[phase]) {
        return false;
    }
    /* Relaxed: ordered by the acquire of the claim, which pairs with the sweep's release. */
    uint64_t word =
        atomic_load_explicit(&quarantine->words[phase][sample / 64], memory_order_relaxed);
    return (word >> (sample % 64) & 1) != 0;
}
