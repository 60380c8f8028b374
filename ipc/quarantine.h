/* SPDX-License-Identifier: Apache-2.0 */
/* Samples that no loader shall touch any more, because two of them died of it: a bit each in shared
 * memory, set by the coordinator while the run goes on and read by every loader before each sample.
 *
 * Bytes (offset, size, meaning): 0, 8*(training samples/64 + 1), a bit a training sample; behind
 * it, 8*(validation samples/64 + 1), a bit a validation sample. Bit sample % 64 of word sample/64.
 */
#ifndef NNC_IPC_QUARANTINE_H
#define NNC_IPC_QUARANTINE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct nnc_quarantine {
    _Atomic uint64_t *words[2]; /* by enum nnc_phase; NULL: nothing is ever in quarantine */
    uint64_t samples[2];
    size_t bytes; /* of the mapping */
};

/* Bytes of the memfd for so many samples of each phase. */
size_t nnc_quarantine_bytes(const uint64_t samples[2]);

/* Map it: for writing in the coordinator, for reading in loaders. Errors: as nnc_memfd_map(). */
int nnc_quarantine_map(int fd, const uint64_t samples[2], int writable,
                       struct nnc_quarantine *ret_quarantine);

/* Unmap. Takes one of zeros. */
void nnc_quarantine_unmap(struct nnc_quarantine *quarantine);

/* Coordinator: put a sample in, which is one of the phase's (assert). */
void nnc_quarantine_add(struct nnc_quarantine *quarantine, uint32_t phase, uint64_t sample);

/* Whether it is in. False for samples that do not exist and where nothing is mapped. */
bool nnc_quarantine_has(const struct nnc_quarantine *quarantine, uint32_t phase, uint64_t sample);

#endif
