/* SPDX-License-Identifier: Apache-2.0 */
/* Which samples loaders died of, and the samples that are kept from them after two such deaths.
 * Which loaders died of a sample, and not by chance while they had it, is judged here too. */
#ifndef NNC_COORDINATOR_STRIKES_H
#define NNC_COORDINATOR_STRIKES_H

#include "coordinator/process.h"
#include "ipc/quarantine.h"

#include <stdint.h>

/* Deaths of one sample after which it is put into quarantine. */
#define NNC_STRIKES_MAX 2

struct nnc_strike {
    uint32_t phase, deaths;
    uint64_t sample;
};

struct nnc_strikes {
    struct nnc_strike *list; /* of samples that loaders died of */
    uint32_t count, room;
    struct nnc_quarantine quarantine;
    int fd; /* its memfd; -1: none */
};

/* Make the quarantine for so many samples, empty. Errors: as nnc_memfd_create(). */
int nnc_strikes_open(const uint64_t samples[2], const char *shm_dir,
                     struct nnc_strikes *ret_strikes);
void nnc_strikes_close(struct nnc_strikes *strikes);

/* A loader was reaped, its page is still mapped and its claims are not swept yet. Returns 1 with
 * the sample when it is in quarantine from now on, and a clause that says why; else 0. */
int nnc_strikes_count(struct nnc_strikes *strikes, const struct nnc_process *process,
                      const struct nnc_process_end *end, struct nnc_strike *ret_strike,
                      char *ret_reason, size_t bytes);

#endif
