/* SPDX-License-Identifier: Apache-2.0 */
/* claim -> batch of the schedule -> position k -> sample.
 *
 * 1. No state: the whole input is (schedule, seed, first rank, ring, claim).
 * 2. A claim comes from shared memory, so it is checked, not trusted.
 *
 * Does not: read, decode, or find out that a sample is bad. */
#include "loader/sampler.h"

#include "base/err.h"
#include "base/rng.h"

#include <assert.h>

int nnc_sampler_locate(const struct nnc_sampler *sampler, uint32_t ring,
                       const struct nnc_claim *claim, struct nnc_sampler_place *ret_place) {
    struct nnc_batch_place batch;
    uint32_t rank = sampler->first_rank + ring;
    int code = nnc_schedule_locate(&sampler->schedule, rank, claim->seq, &batch);
    if (code < 0 || claim->index >= batch.count) {
        return nnc_fail(-NNC_E_FORMAT, "rank %u has no sample %u in batch %llu", rank, claim->index,
                        (unsigned long long)claim->seq);
    }
    struct nnc_sampler_place place = {
        .phase = batch.phase,
        .epoch = batch.epoch,
        .k = batch.first + claim->index,
    };
    place.sample = place.k;
    if (place.phase == NNC_PHASE_TRAIN) {
        struct nnc_permutation order =
            nnc_permutation_make(sampler->seed, place.epoch, sampler->schedule.train_samples);
        place.sample = nnc_permutation_at(&order, place.k);
    }
    *ret_place = place;
    return 0;
}

bool nnc_sampler_replace(const struct nnc_sampler *sampler, uint32_t *attempt,
                         struct nnc_sampler_place *place) {
    if (place->phase != NNC_PHASE_TRAIN || *attempt >= NNC_SAMPLER_SUBSTITUTES) {
        return false;
    }
    place->sample = nnc_sampler_substitute(sampler, place, *attempt);
    (*attempt)++;
    return true;
}

uint64_t nnc_sampler_substitute(const struct nnc_sampler *sampler,
                                const struct nnc_sampler_place *place, uint32_t attempt) {
    assert(place->phase == NNC_PHASE_TRAIN && attempt < NNC_SAMPLER_SUBSTITUTES);
    assert(sampler->schedule.train_samples <= UINT32_MAX);
    struct nnc_rng rng = nnc_rng_make(sampler->seed, NNC_RNG_SUBSTITUTE, place->epoch, place->k);
    uint32_t sample = 0;
    for (uint32_t i = 0; i <= attempt; i++) {
        sample = nnc_rng_below(&rng, (uint32_t)sampler->schedule.train_samples);
    }
    return sample;
}
