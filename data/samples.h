/* SPDX-License-Identifier: Apache-2.0 */
/* The samples of a training run without a run: made one after the other in this process, by the
 * functions that a loader makes them with. */
#ifndef NNC_DATA_SAMPLES_H
#define NNC_DATA_SAMPLES_H

#include "base/config.h"
#include "coordinator/dataset.h"
#include "ipc/ring.h"
#include "loader/maker.h"

#include <stdint.h>

struct nnc_samples;

/* What all samples have in common. */
struct nnc_samples_info {
    enum nnc_phase phase;
    uint64_t count;                    /* positions of an epoch */
    uint32_t side, channels;           /* of a sample: u8 (side, side, channels) */
    const struct nnc_dataset *dataset; /* stays the samples' */
};

/* One sample beside its pixels. */
struct nnc_sample {
    uint64_t k;      /* position in the epoch */
    uint64_t number; /* in the phase's index; of the substitute when REPLACED */
    enum nnc_sample_status status;
    int32_t label; /* class, or -1 */
    struct nnc_maker_cut cut;
};

/* Open the data set of config, its training or validation part as config->split says.
 * Errors: as nnc_dataset_open_config(); -ENOMEM. */
int nnc_samples_open(const struct nnc_config *config, struct nnc_samples **ret_samples);

/* Close everything. Takes NULL. */
void nnc_samples_close(struct nnc_samples *samples);

/* What all samples have in common. */
struct nnc_samples_info nnc_samples_info(const struct nnc_samples *samples);

/* Make the sample at position k < count of epoch 0 of the schedule that config gives. A bad image
 * is logged and replaced as in a run.
 * Shape:  pixels u8 (side, side, channels).
 * Errors: only what keeps a loader from going on: -EIO and friends of a broken reader. */
int nnc_samples_make(struct nnc_samples *samples, uint64_t k, uint8_t *pixels,
                     struct nnc_sample *ret_sample);

#endif
