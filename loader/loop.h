/* SPDX-License-Identifier: Apache-2.0 */
/* What a loader does all day: claim samples, read them, make them, publish them. */
#ifndef NNC_LOADER_LOOP_H
#define NNC_LOADER_LOOP_H

#include "ipc/child.h"
#include "ipc/quarantine.h"
#include "ipc/ring.h"
#include "loader/maker.h"
#include "loader/reader.h"
#include "loader/sampler.h"
#include "loader/source.h"

#include <stdint.h>

/* Everything is the caller's and outlives the loop. */
struct nnc_loop_params {
    struct nnc_child *child;
    struct nnc_ring *const *rings; /* (ranks) */
    uint32_t ranks;
    struct nnc_source *sources[2]; /* by enum nnc_phase; NULL: there is none */
    struct nnc_sampler sampler;
    struct nnc_maker *maker;
    struct nnc_reader *reader;
    const struct nnc_quarantine *quarantine;
    uint32_t ahead;      /* batches after which a slot of the ring is used again */
    uint32_t claims_max; /* held at a time, 1..depth of the reader */
};

/* How many claims a loader may hold: enough to overlap reads, few enough that the last samples of a
 * batch do not queue behind one loader while others idle. Pure. */
uint32_t nnc_loop_claims_max(uint32_t batch, uint32_t ranks, uint32_t loaders);

/* Run until all slots of all rings are closed, the coordinator says STOP and all claims are
 * published, or it is gone (all 0).
 * Errors: negative when this process cannot go on: the reader broke, or a claim makes no sense. */
int nnc_loop_run(const struct nnc_loop_params *params);

#endif
