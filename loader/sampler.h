/* SPDX-License-Identifier: Apache-2.0 */
/* Which sample a place in the ring stands for. Pure functions of constants that every process was
 * given: any loader makes the same sample for the same place, at any time, again. */
#ifndef NNC_LOADER_SAMPLER_H
#define NNC_LOADER_SAMPLER_H

#include "ipc/ring.h"
#include "ipc/schedule.h"

#include <stdbool.h>
#include <stdint.h>

/* Substitutes tried for a bad sample before its place is given up. */
#define NNC_SAMPLER_SUBSTITUTES 8

struct nnc_sampler {
    struct nnc_schedule schedule;
    uint32_t first_rank; /* rank of this machine's first ring */
    uint64_t seed;
};

/* What a claim stands for. */
struct nnc_sampler_place {
    enum nnc_phase phase;
    uint32_t epoch;
    uint64_t k;      /* position within the phase and epoch */
    uint64_t sample; /* number in the phase's index */
};

/* The place of a claim in a ring of this machine. Training samples are in the order of the epoch's
 * permutation, validation samples in the order of the index. Errors: -NNC_E_FORMAT the claim is not
 * one of this schedule: the ring's memory is damaged. */
int nnc_sampler_locate(const struct nnc_sampler *sampler, uint32_t ring,
                       const struct nnc_claim *claim, struct nnc_sampler_place *ret_place);

/* Put the next substitute into place->sample and count it in *attempt, which starts at 0. False
 * when the place is given up: after NNC_SAMPLER_SUBSTITUTES, and in validation at once. Both are
 * untouched then. */
bool nnc_sampler_replace(const struct nnc_sampler *sampler, uint32_t *attempt,
                         struct nnc_sampler_place *place);

/* The sample that stands in for place's, attempt 0..NNC_SAMPLER_SUBSTITUTES-1: uniform over the
 * training set, drawn from (seed, SUBSTITUTE, epoch, k). Only for training places (assert):
 * validation never substitutes. */
uint64_t nnc_sampler_substitute(const struct nnc_sampler *sampler,
                                const struct nnc_sampler_place *place, uint32_t attempt);

#endif
